#!/usr/bin/env bash
# Stage 2: clip and motion to depth images.
#   bash scripts/inference_edit_expression.sh [flags of inference_edit_expression.py]      without flags: on demo/portrait.mp4, after stage 1
set -euo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ $# -eq 0 ]]; then
    set -- --infer_video_path "$root/demo/portrait.mp4" --infer_exp_coeff_path "$root/results/demo/a2m/speech.npy" \
        --infer_result_dir "$root/results/demo/edit_expression"
fi
exec bash "$root/scripts/python.sh" "$root/inference_edit_expression.py" "$@"
