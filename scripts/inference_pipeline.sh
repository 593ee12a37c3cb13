#!/usr/bin/env bash
# Speech and a clip in, a talking video out: the three stages in turn.
#   bash scripts/inference_pipeline.sh AUDIO VIDEO RESULT_DIR [flags]
# --help lists all flags. A stopped run is resumed by the same command.
set -euo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
exec bash "$root/scripts/python.sh" "$root/inference_pipeline.py" "$@"
