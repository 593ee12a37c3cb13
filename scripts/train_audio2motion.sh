#!/usr/bin/env bash
# Train stage 1.
#   bash scripts/train_audio2motion.sh [flags of train_audio2motion.py]
set -euo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
exec bash "$root/scripts/python.sh" "$root/train_audio2motion.py" "$@"
