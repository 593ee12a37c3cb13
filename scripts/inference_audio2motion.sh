#!/usr/bin/env bash
# Stage 1: speech to motion.
#   bash scripts/inference_audio2motion.sh [flags of inference_audio2motion.py]      without flags: on demo/speech.wav
set -euo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ $# -eq 0 ]]; then
    set -- --drv_aud "$root/demo/speech.wav" --seed 0 --result_dir "$root/results/demo/a2m" --exp_file speech.npy
fi
exec bash "$root/scripts/python.sh" "$root/inference_audio2motion.py" "$@"
