#!/usr/bin/env bash
# Stage 3: clip, speech and depth images to the talking video.
#   bash scripts/inference_joygen.sh [flags of inference_joygen.py]      without flags: on the demo, after stages 1 and 2
set -euo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ $# -eq 0 ]]; then
    set -- --audio_path "$root/demo/speech.wav" --video_path "$root/demo/portrait.mp4" --enable_pose_driven \
        --intermediate_dir "$root/results/demo/edit_expression" --result_dir "$root/results/demo/talk"
fi
exec bash "$root/scripts/python.sh" "$root/inference_joygen.py" "$@"
