#!/usr/bin/env bash
# Train the embedded mini pack from clips, from nothing to the finished folder. Every step continues where it stopped.
#
#   bash scripts/mini_pack/build.sh CLIPS_DIR [WORK_DIR]
#
# CLIPS_DIR/talk holds clips of talking people (25 fps, one face each), CLIPS_DIR/faces clips whose sound is of no use.
# The pack appears in WORK_DIR/pack (default work/mini_pack/pack); copy it over pretrained_models/mini to use it.
set -euo pipefail

if [ $# -lt 1 ] || [ ! -d "$1/talk" ]; then
  echo "usage: build.sh CLIPS_DIR [WORK_DIR]   (CLIPS_DIR must hold talk/ and may hold faces/)" >&2
  exit 2
fi
clips=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=${2:-work/mini_pack}
pack=$work/pack
data=$work/dataset
mkdir -p "$pack"

# Never trained on, in no step: six speakers and two silent faces (docs: pretrained_models/mini/README.md).
validation=(menendez vr4 itref astorfi ls1 vox_00086 lp13 lps29)
folders=("$clips/talk")
if [ -d "$clips/faces" ]; then folders+=("$clips/faces"); fi
run() { bash scripts/python.sh "$@"; }

if [ ! -f "$pack/face_model.safetensors" ]; then
  run -m scripts.mini_pack.face_model --clips "${folders[@]}" --exclude "${validation[@]}" \
    --out "$pack/face_model.safetensors"
fi
for folder in "${folders[@]}"; do
  run preprocess_dataset.py --video_dir "$folder" --result_dir "$data" --bfm_folder "$pack/face_model.safetensors"
done
