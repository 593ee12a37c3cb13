#!/usr/bin/env bash
# Train the whole mini pack from clips. Finished steps are skipped, an interrupted one resumes.
#
#   bash scripts/mini_pack/build.sh CLIPS_DIR [WORK_DIR]
#
# CLIPS_DIR/talk holds clips of talking people (25 fps, one face each), CLIPS_DIR/faces clips whose sound is not used,
# CLIPS_DIR/driven clips whose lips another system has generated from speech, for audio2motion alone.
# The pack appears in WORK_DIR/pack (default work/mini_pack/pack); copy it over pretrained_models/mini to use it.
# MAX_STEPS=10 in the environment limits every training, as a test of all steps.
set -euo pipefail

if [ $# -lt 1 ] || [ ! -d "$1/talk" ]; then
  echo "usage: build.sh CLIPS_DIR [WORK_DIR]   (CLIPS_DIR must hold talk/; faces/ and driven/ are optional)" >&2
  exit 2
fi
clips=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=${2:-work/mini_pack}
pack=$work/pack
data=$work/dataset
mkdir -p "$pack"

# Held out of every training: six speakers and two silent faces (docs: pretrained_models/mini/README.md).
validation=(menendez vr4 itref astorfi ls1 vox_00086 lp13 lps29)
folders=("$clips/talk")
if [ -d "$clips/faces" ]; then folders+=("$clips/faces"); fi
held_out=()
speakers=""  # the held-out clips with sound, as a YAML list
for name in "${validation[@]}"; do
  for folder in "${folders[@]}"; do
    if [ -f "$folder/$name.mp4" ]; then
      held_out+=("$name")
      if [ "$folder" = "$clips/talk" ]; then speakers+="${speakers:+, }$name"; fi
    fi
  done
done
run() { bash scripts/python.sh "$@"; }

# Copy folder $1 to $2 atomically.
place() {
  rm -rf -- "$2.new"
  cp -r -- "$1" "$2.new"
  rm -rf -- "$2"
  mv -- "$2.new" "$2"
}

if [ ! -f "$pack/face_model.safetensors" ]; then
  run -m scripts.mini_pack.face_model --clips "${folders[@]}" --exclude "${held_out[@]}" \
    --out "$pack/face_model.safetensors"
fi
for folder in "${folders[@]}"; do
  run preprocess_dataset.py --video_dir "$folder" --result_dir "$data" --keep_silent \
    --bfm_folder "$pack/face_model.safetensors"
done
printf '%s\n' "${held_out[@]}" >"$work/validation.txt"

if [ ! -f "$pack/vae/config.json" ]; then
  run -m scripts.mini_pack.train_vae "$data" --output_dir "$pack/vae" --work_dir "$work/vae" \
    --steps "${MAX_STEPS:-3000}" --validation "${held_out[@]}"
fi
if [ ! -f "$pack/unet/config.json" ]; then
  run train_joygen.py --config config/joygen_mini.yaml dataset.root_dir="$data" dataset.val_file="$work/validation.txt" \
    vae_path="$pack/vae" checkpoint_dir="$work/joygen" ${MAX_STEPS:+"opti.max_steps=$MAX_STEPS"}
  mkdir -p "$pack/whisper"
  cp "$work/joygen/final/whisper.pt" "$pack/whisper/mini.pt"
  place "$work/joygen/final/unet" "$pack/unet"
fi
if [ ! -f "$pack/refiner/config.json" ]; then
  run train_joygen.py --config config/joygen_mini_refiner.yaml dataset.root_dir="$data" \
    dataset.val_file="$work/validation.txt" vae_path="$pack/vae" whisper_model_path="$pack/whisper/mini.pt" \
    unet_resume_file="$pack/unet/diffusion_pytorch_model.safetensors" checkpoint_dir="$work/refiner" \
    ${MAX_STEPS:+"opti.max_steps=$MAX_STEPS"}
  place "$work/refiner/final/refiner" "$pack/refiner"
fi
if [ ! -f "$work/together/final/refiner/config.json" ]; then # the last file that this training writes
  run train_joygen.py --config config/joygen_mini_refiner.yaml dataset.root_dir="$data" \
    dataset.val_file="$work/validation.txt" vae_path="$pack/vae" whisper_model_path="$pack/whisper/mini.pt" \
    unet_resume_file="$work/joygen/final/unet/diffusion_pytorch_model.safetensors" \
    trained_blocks=all refiner=null refiner_resume_dir="$work/refiner/final/refiner" checkpoint_dir="$work/together" \
    opti.lr=3e-4 opti.max_steps="${MAX_STEPS:-1000}" critics.start=40
fi
for part in unet refiner; do place "$work/together/final/$part" "$pack/$part"; done
if [ -d "$clips/driven" ]; then
  run preprocess_dataset.py --video_dir "$clips/driven" --result_dir "$work/driven" \
    --bfm_folder "$pack/face_model.safetensors"
fi
if [ ! -f "$pack/audio2motion/config.yaml" ]; then
  mkdir -p "$work/speech" # links to the clips whose sound and lips belong together
  for clip in "$clips"/talk/*.mp4 "$clips"/driven/*.mp4; do
    name=$(basename -- "$clip" .mp4)
    for prepared in "$data/$name" "$work/driven/$name"; do
      if [ -d "$prepared" ]; then ln -sfn -- "$(realpath -- "$prepared")" "$work/speech/$name"; fi
    done
  done
  run train_audio2motion.py --config config/audio2motion_mini.yaml data_dir="$work/speech" \
    data.validation_clips="[$speakers]" face_model="$pack/face_model.safetensors" \
    output_dir="$work/audio2motion" --export "$pack/audio2motion" ${MAX_STEPS:+"max_steps=$MAX_STEPS"}
fi
# evaluate.py's sync model is not trained here, but by scripts/mini_pack/av_model.py.
cp pretrained_models/mini/pack.json pretrained_models/mini/av_agreement.safetensors "$pack/"
echo "the pack is in $pack; copy it over pretrained_models/mini to use it"
