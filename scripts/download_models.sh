#!/usr/bin/env bash
# Fetch the official weights into pretrained_models/; existing files are kept.
#   bash scripts/download_models.sh [flags of download_models.py]
set -euo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
exec bash "$root/scripts/python.sh" "$root/scripts/download_models.py" "$@"
