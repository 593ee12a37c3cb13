#!/usr/bin/env bash
# Speech and a clip in, a talking video out: the three stages in turn.
#   bash scripts/inference_pipeline.sh AUDIO VIDEO RESULT_DIR [flags]
# Flags that every stage knows (--faithful, --gpu_id N) go to every stage, --seed N, --temperature X and --mouth_amp X to
# stage 1, all others (--debug, --batch_size N ...) to stage 3. Run a stage by itself for its remaining flags.
set -euo pipefail

if [[ $# -lt 3 || "$1" == -* || "$2" == -* || "$3" == -* ]]; then
    echo "usage: bash scripts/inference_pipeline.sh AUDIO VIDEO RESULT_DIR [flags]" >&2
    exit 2
fi
audio="$1" video="$2" result_dir="$3"
shift 3

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"

common=() stage1=() stage3=()
while [[ $# -gt 0 ]]; do
    case "$1" in
        --faithful) common+=("$1") ;;
        --gpu_id | --seed | --temperature | --mouth_amp)
            [[ $# -ge 2 ]] || { echo "error: $1 needs a value" >&2; exit 2; }
            if [[ "$1" == --gpu_id ]]; then common+=("$1" "$2"); else stage1+=("$1" "$2"); fi
            shift ;;
        *) stage3+=("$1") ;;
    esac
    shift
done

# The file name without its last suffix, as Python's Path.stem gives it.
stem="$(basename -- "$audio")"
[[ "$stem" == ?*.?* ]] && stem="${stem%.*}"

run() {
    local script="$1"
    shift
    bash "$root/scripts/python.sh" "$root/$script" "$@"
}

run inference_audio2motion.py --drv_aud "$audio" --result_dir "$result_dir/a2m" --exp_file="$stem.npy" \
    ${common[@]+"${common[@]}"} ${stage1[@]+"${stage1[@]}"}
run inference_edit_expression.py --infer_video_path "$video" --infer_exp_coeff_path "$result_dir/a2m/$stem.npy" \
    --infer_result_dir "$result_dir/edit_expression" ${common[@]+"${common[@]}"}
run inference_joygen.py --audio_path "$audio" --video_path "$video" --intermediate_dir "$result_dir/edit_expression" \
    --enable_pose_driven --result_dir "$result_dir/talk" ${common[@]+"${common[@]}"} ${stage3[@]+"${stage3[@]}"}
