#!/usr/bin/env bash
# Speech and a clip in, a talking video out: the three stages in turn.
#   bash scripts/inference_pipeline.sh AUDIO VIDEO RESULT_DIR [flags]
# --faithful goes to every stage; --seed N and --gpu_id N to stages 1 and 3; --temperature X and --mouth_amp X to stage 1;
# --smoothing MODE to stage 2; all others (--debug, --batch_size N ...) to stage 3. Run a stage by itself for the rest.
set -euo pipefail

if [[ $# -lt 3 || "$1" == -* || "$2" == -* || "$3" == -* ]]; then
    echo "usage: bash scripts/inference_pipeline.sh AUDIO VIDEO RESULT_DIR [flags]" >&2
    exit 2
fi
audio="$1" video="$2" result_dir="$3"
shift 3

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"

stage1=() stage2=() stage3=()
while [[ $# -gt 0 ]]; do
    case "$1" in
        --faithful)
            stage1+=("$1") stage2+=("$1") stage3+=("$1")
            shift
            ;;
        --seed | --gpu_id | --temperature | --mouth_amp | --smoothing)
            [[ $# -ge 2 ]] || { echo "error: $1 needs a value" >&2; exit 2; }
            case "$1" in
                --smoothing) stage2+=("$1" "$2") ;;
                --seed | --gpu_id) stage1+=("$1" "$2") stage3+=("$1" "$2") ;;
                *) stage1+=("$1" "$2") ;;
            esac
            shift 2
            ;;
        *)
            stage3+=("$1")
            shift
            ;;
    esac
done

# The file name without its last suffix, as Python's Path.stem gives it.
stem="$(basename -- "$audio")"
[[ "$stem" == ?*.?* ]] && stem="${stem%.*}"

run() {
    local script="$1"
    shift
    bash "$root/scripts/python.sh" "$root/$script" "$@"
}

# ${array[@]+...}: an empty array counts as unset in bash before 4.4
run inference_audio2motion.py --drv_aud "$audio" --result_dir "$result_dir/a2m" --exp_file="$stem.npy" \
    ${stage1[@]+"${stage1[@]}"}
run inference_edit_expression.py --infer_video_path "$video" --infer_exp_coeff_path "$result_dir/a2m/$stem.npy" \
    --infer_result_dir "$result_dir/edit_expression" ${stage2[@]+"${stage2[@]}"}
run inference_joygen.py --audio_path "$audio" --video_path "$video" --intermediate_dir "$result_dir/edit_expression" \
    --enable_pose_driven --result_dir "$result_dir/talk" ${stage3[@]+"${stage3[@]}"}
