#!/usr/bin/env bash
# Training data: track, fit and render every clip of a folder.
#   bash scripts/preprocess_dataset.sh --video_dir DIR --result_dir DIR [flags of preprocess_dataset.py]
set -euo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
exec bash "$root/scripts/python.sh" "$root/preprocess_dataset.py" "$@"
