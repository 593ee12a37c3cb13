#!/usr/bin/env bash
# Train the whole mini pack from clips. Finished steps are skipped, an interrupted one resumes.
#
#   bash scripts/mini_pack/build.sh CLIPS_DIR|ARCHIVE [WORK_DIR] [--device cpu|cuda] [--minutes M]
#
# CLIPS_DIR/talk holds clips of talking people (25 fps, one face each), CLIPS_DIR/faces clips whose sound is not used,
# CLIPS_DIR/driven clips whose lips another system has generated from speech, for audio2motion alone.
# ARCHIVE is a file of scripts/mini_pack/archive.py with the data folders "dataset" (talk and faces) and, optionally,
# "driven"; sound in it belongs to the lips. Its face model is the pack's.
# The pack appears in WORK_DIR/pack (default work/mini_pack/pack); copy it over pretrained_models/mini to use it.
# --device: where networks train (default: a GPU if there is one). --minutes: time of all trainings together, instead of
# the configs' numbers of steps: VAE 10 %, generator 35 %, refiner 15 %, both 30 %, audio2motion 10 % or its steps, if
# they take less. Preparation, start and validation at the end come on top.
# MAX_STEPS=10 in the environment limits every training, as a test of all steps.
set -euo pipefail

fail() {
  echo "error: $1" >&2
  exit 2
}
usage="usage: build.sh CLIPS_DIR|ARCHIVE [WORK_DIR] [--device cpu|cuda] [--minutes M]"
words=() device="" minutes=""
while [ $# -gt 0 ]; do
  case $1 in
    --device | --minutes) [ $# -gt 1 ] || fail "$1 needs a value; $usage" ;;&
    --device) device=$2 && shift ;;
    --minutes) minutes=$2 && shift ;;
    -*) fail "unknown flag $1; $usage" ;;
    *) words+=("$1") ;;
  esac
  shift
done
[[ ${#words[@]} -eq 1 || ${#words[@]} -eq 2 ]] || fail "$usage"
[[ -f ${words[0]} || -d ${words[0]}/talk ]] || fail "${words[0]} is no archive and holds no folder talk; $usage"
[[ $device =~ ^(|cpu|cuda)$ ]] || fail "--device: expected cpu or cuda, found $device"
[[ -z $minutes || $minutes =~ ^[0-9]+(\.[0-9]+)?$ && ! $minutes =~ ^[0.]+$ ]] ||
  fail "--minutes: expected a number above 0, found $minutes"
clips=$(realpath -- "${words[0]}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=${words[1]:-work/mini_pack}
pack=$work/pack
data=$work/dataset
mkdir -p "$pack"

run() { bash scripts/python.sh "$@"; }
gpu=()
if [ "$device" = cpu ]; then
  gpu=(--gpu_id -1)
  export ACCELERATE_USE_CPU=true # for train_joygen.py
elif [ "$device" = cuda ]; then
  run -c "import sys, torch; sys.exit(not torch.cuda.is_available())" || fail "--device cuda: there is no CUDA device"
fi
share() { awk "BEGIN { print $minutes * $1 / 100 }"; }
# Length of a training of train_joygen.py: $1 percent of --minutes, else $2 steps (default: the config's).
length() {
  if [ -n "$minutes" ]; then
    echo "opti.max_minutes=$(share "$1") opti.max_steps=${MAX_STEPS:-1000000}"
  else
    steps=${MAX_STEPS:-${2:-}}
    echo "${steps:+opti.max_steps=$steps}"
  fi
}

# Held out of every training: six speakers and two silent faces (docs: pretrained_models/mini/README.md).
validation=(menendez vr4 itref astorfi ls1 vox_00086 lp13 lps29)

# Copy folder $1 to $2 atomically.
place() {
  rm -rf -- "$2.new"
  cp -r -- "$1" "$2.new"
  rm -rf -- "$2"
  mv -- "$2.new" "$2"
}

if [ -f "$clips" ]; then
  run -m scripts.mini_pack.archive unpack "$clips" "$work"
  [ -d "$data" ] || fail "$clips has no data folder of the name dataset"
  cp -- "$work/face_model.safetensors" "$pack/"
else
  folders=("$clips/talk")
  if [ -d "$clips/faces" ]; then folders+=("$clips/faces"); fi
  if [ ! -f "$pack/face_model.safetensors" ]; then
    run -m scripts.mini_pack.face_model --clips "${folders[@]}" --exclude "${validation[@]}" \
      --out "$pack/face_model.safetensors"
  fi
  for folder in "${folders[@]}"; do
    run preprocess_dataset.py --video_dir "$folder" --result_dir "$data" --keep_silent \
      --bfm_folder "$pack/face_model.safetensors" "${gpu[@]}"
  done
  if [ -d "$clips/driven" ]; then
    run preprocess_dataset.py --video_dir "$clips/driven" --result_dir "$work/driven" \
      --bfm_folder "$pack/face_model.safetensors" "${gpu[@]}"
  fi
fi
mkdir -p "$work/speech" # links to the clips whose sound and lips belong together
for prepared in "$data"/* "$work"/driven/*; do
  name=$(basename -- "$prepared")
  if [ -d "$prepared" ] && [ ! -f "$clips/faces/$name.mp4" ]; then
    ln -sfn -- "$(realpath -- "$prepared")" "$work/speech/$name"
  fi
done
held_out=()
speakers="" # the held-out clips with sound, as a YAML list
for name in "${validation[@]}"; do
  if [ -d "$data/$name" ]; then held_out+=("$name"); fi
  if [ -f "$work/speech/$name/audio.npy" ]; then speakers+="${speakers:+, }$name"; fi
done
printf '%s\n' "${held_out[@]}" >"$work/validation.txt"

if [ ! -f "$pack/vae/config.json" ]; then
  steps=${MAX_STEPS:-$([ -n "$minutes" ] || echo 3000)}
  run -m scripts.mini_pack.train_vae "$data" --output_dir "$pack/vae" --work_dir "$work/vae" "${gpu[@]}" \
    ${steps:+--steps "$steps"} ${minutes:+--minutes "$(share 10)"} --validation "${held_out[@]}"
fi
generator=(dataset.root_dir="$data" dataset.val_file="$work/validation.txt" vae_path="$pack/vae")
if [ ! -f "$pack/unet/config.json" ]; then
  run train_joygen.py --config config/joygen_mini.yaml "${generator[@]}" checkpoint_dir="$work/joygen" $(length 35)
  place "$work/joygen/final/unet" "$pack/unet"
fi
if [ ! -f "$pack/refiner/config.json" ]; then
  run train_joygen.py --config config/joygen_mini_refiner.yaml "${generator[@]}" checkpoint_dir="$work/refiner" \
    unet_resume_file="$pack/unet/diffusion_pytorch_model.safetensors" $(length 15)
  place "$work/refiner/final/refiner" "$pack/refiner"
fi
if [ ! -f "$work/together/final/refiner/config.json" ]; then # the last file that this training writes
  run train_joygen.py --config config/joygen_mini_refiner.yaml "${generator[@]}" checkpoint_dir="$work/together" \
    unet_resume_file="$work/joygen/final/unet/diffusion_pytorch_model.safetensors" trained_blocks=all refiner=null \
    refiner_resume_dir="$work/refiner/final/refiner" opti.lr=3e-4 critics.start=40 $(length 30 1000)
fi
for part in unet refiner; do place "$work/together/final/$part" "$pack/$part"; done
if [ ! -f "$pack/audio2motion/config.yaml" ]; then
  run train_audio2motion.py --config config/audio2motion_mini.yaml data_dir="$work/speech" \
    data.validation_clips="[$speakers]" face_model="$pack/face_model.safetensors" \
    output_dir="$work/audio2motion" --export "$pack/audio2motion" "${gpu[@]}" \
    ${MAX_STEPS:+"max_steps=$MAX_STEPS"} ${minutes:+"max_minutes=$(share 10)"}
fi
# evaluate.py's models of agreement are not trained here: scripts/mini_pack/av_model.py fits av_agreement.safetensors.
for name in pack.json av_agreement.safetensors av_log_mel.safetensors; do cp "pretrained_models/mini/$name" "$pack/"; done
echo "the pack is in $pack; copy it over pretrained_models/mini to use it"
