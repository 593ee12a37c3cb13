#!/usr/bin/env bash
# Speech and a clip in, a talking video out: the three stages in turn.
#   bash scripts/inference_pipeline.sh AUDIO VIDEO RESULT_DIR [flags]
# Every flag goes to the stages that know it: --faithful and --gpu_id N to all, --seed N to stages 1 and 3, --temperature,
# --mouth_amp, --a2m_ckpt and --hubert_path to stage 1, --smoothing, --recon, --bfm_folder and the like to stage 2, all
# others (--debug, --batch_size N ...) to stage 3. --adapt STEPS first teaches the generator the clip's person (adapt.py).
set -euo pipefail

if [[ $# -lt 3 || "$1" == -* || "$2" == -* || "$3" == -* ]]; then
    echo "usage: bash scripts/inference_pipeline.sh AUDIO VIDEO RESULT_DIR [flags]" >&2
    exit 2
fi
audio="$1" video="$2" result_dir="$3"
shift 3

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"

stage1=() stage2=() stage3=() adapt=()
while [[ $# -gt 0 ]]; do
    takes_value=yes
    case "${1%%=*}" in
        --gpu_id) stages="1 2 3 adapt" ;;
        --seed) stages="1 3 adapt" ;;
        --adapt) stages="steps" ;;
        --temperature | --mouth_amp | --a2m_ckpt | --hubert_path) stages="1" ;;
        --smoothing | --recon | --bfm_folder | --checkpoints_dir | --name | --epoch | --use_opengl | --dwpose_*) stages="2" ;;
        --faithful) stages="1 2 3" takes_value=no ;;
        *) stages="3" takes_value=no ;; # a value that follows goes the same way
    esac
    words=("$1")
    shift
    if [[ $takes_value == yes && "${words[0]}" != *=* ]]; then
        [[ $# -ge 1 ]] || { echo "error: ${words[0]} needs a value" >&2; exit 2; }
        words+=("$1")
        shift
    fi
    for stage in $stages; do
        case $stage in
            1) stage1+=("${words[@]}") ;;
            2) stage2+=("${words[@]}") ;;
            3) stage3+=("${words[@]}") ;;
            adapt) adapt+=("${words[@]}") ;;
            steps) adapt_steps="${words[1]-${words[0]#*=}}" ;;
        esac
    done
done

# A file name without its last suffix, as Python's Path.stem gives it.
stem_of() {
    local name
    name="$(basename -- "$1")"
    [[ "$name" == ?*.?* ]] && name="${name%.*}"
    printf '%s' "$name"
}
stem="$(stem_of "$audio")"

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
if [[ -n "${adapt_steps-}" ]]; then
    run adapt.py --video_path "$video" --result_dir "$result_dir/adapted" --steps "$adapt_steps" ${adapt[@]+"${adapt[@]}"}
    stage3+=(--unet_model_path "$result_dir/adapted/$(stem_of "$video")/unet")
fi
run inference_joygen.py --audio_path "$audio" --video_path "$video" --intermediate_dir "$result_dir/edit_expression" \
    --enable_pose_driven --result_dir "$result_dir/talk" ${stage3[@]+"${stage3[@]}"}
