#!/usr/bin/env bash
# Training clips: cut raw videos to segments with one talking face, cropped around it.
#   bash scripts/preprocess_trim_crop_video.sh RAW_DIR CLIPS_DIR [flags of preprocess_trim_crop_video.py]
set -euo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
exec bash "$root/scripts/python.sh" "$root/preprocess_trim_crop_video.py" "$@"
