#!/usr/bin/env bash
# Training data, step 1: cut long videos into runs of frames with one face each.
#   bash scripts/preprocess_trim_crop_video.sh [flags of preprocess_trim_crop_video.py]
set -euo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
exec bash "$root/scripts/python.sh" "$root/preprocess_trim_crop_video.py" "$@"
