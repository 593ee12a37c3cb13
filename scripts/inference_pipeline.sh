#!/usr/bin/env bash
# Speech and a clip in, a talking video out: the three stages in turn.
#   bash scripts/inference_pipeline.sh AUDIO VIDEO RESULT_DIR [flags]
# Every flag goes to the stages that know it, by the table below; all others (--debug, --batch_size N ...) go to stage 3.
# --adapt STEPS first teaches the generator the clip's person (adapt.py). A run that was stopped goes on with the same
# command, and what is up to date is left as it is, but with --force. --clean removes stage 1's and 2's files in the end.
# --one-process loads libraries once for all stages (inference_pipeline.py); the files are the same.
set -euo pipefail

# flag           stages        does a value follow?
flag_table="
--gpu_id         1,2,3,adapt   value
--seed           1,3,adapt     value
--faithful       1,2,3         none
--force          2,3           none
--clean          3,clean       none
--fps            2,3           value
--adapt          steps         value
--temperature    1             value
--mouth_amp      1             value
--silence        1             value
--a2m_ckpt       1             value
--hubert_path    1             value
--length         2             value
--speaker        2             value
--list[-_]speakers 2,list      none
--smoothing      2             value
--style          2             value
--recon          2             value
--bfm_folder     2             value
--checkpoints_dir 2            value
--name           2             value
--epoch          2             value
--use_opengl     2             value
--dwpose_*       2             value
*                3             none
"

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
words=()
for word in "$@"; do [[ "$word" == --one[-_]process ]] && one_process=yes || words+=("$word"); done
if [[ -n "${one_process-}" ]]; then
    exec bash "$root/scripts/python.sh" "$root/inference_pipeline.py" ${words[@]+"${words[@]}"}
fi

# A file of this folder whose name begins with a dash is no flag.
named_file() { if [[ "$1" == -* && -e "./$1" ]]; then named="./$1"; else named="$1"; fi; }
named_file "${1-}" && audio="$named"
named_file "${2-}" && video="$named"
result_dir="${3-}"
if [[ $# -lt 3 || "$audio" == -* || "$video" == -* || "$result_dir" == -* ]]; then
    echo "usage: bash scripts/inference_pipeline.sh AUDIO VIDEO RESULT_DIR [flags]" >&2
    exit 2
fi
shift 3

# The first row of the table that fits flag $1, as row_stages and row_value. The last row, *, takes a value with it that
# follows: it has no dash of its own and goes the same way.
look_up() {
    local pattern
    while read -r pattern row_stages row_value; do
        # shellcheck disable=SC2053 # the first column is a pattern
        if [[ -n "$pattern" && "${1%%=*}" == $pattern ]]; then return; fi
    done <<<"$flag_table"
}

stage1=() stage2=() stage3=() adapt=()
while [[ $# -gt 0 ]]; do
    look_up "$1"
    words=("$1")
    shift
    if [[ $row_value == value && "${words[0]}" != *=* ]]; then
        [[ $# -ge 1 ]] || { echo "error: ${words[0]} needs a value" >&2; exit 2; }
        words+=("$1")
        shift
    fi
    for stage in ${row_stages//,/ }; do
        case $stage in
            1) stage1+=("${words[@]}") ;;
            2) stage2+=("${words[@]}") ;;
            3) stage3+=("${words[@]}") ;;
            adapt) adapt+=("${words[@]}") ;;
            clean) clean=yes ;;
            list) list=yes ;;
            steps) adapt_steps="${words[1]-${words[0]#*=}}" ;;
        esac
    done
done

# Set stem: a file name without its last suffix, as Python's Path.stem gives it.
find_stem() {
    stem="${1##*/}"
    [[ "$stem" != ?*.?* ]] || stem="${stem%.*}"
}
find_stem "$video" && video_stem="$stem"
find_stem "$audio"

run() {
    local script="$1"
    shift
    bash "$root/scripts/python.sh" "$root/$script" "$@"
}

# ${array[@]+...}: an empty array counts as unset in bash before 4.4
if [[ -n "${list-}" ]]; then # who is in the clip, and nothing more
    run inference_edit_expression.py --infer_video_path "$video" --infer_result_dir "$result_dir/edit_expression" \
        ${stage2[@]+"${stage2[@]}"}
    exit
fi
run inference_audio2motion.py --drv_aud "$audio" --result_dir "$result_dir/a2m" --exp_file="$stem.npy" \
    ${stage1[@]+"${stage1[@]}"}
run inference_edit_expression.py --infer_video_path "$video" --infer_exp_coeff_path "$result_dir/a2m/$stem.npy" \
    --infer_result_dir "$result_dir/edit_expression" ${stage2[@]+"${stage2[@]}"}
if [[ -n "${adapt_steps-}" ]]; then
    run adapt.py --video_path "$video" --result_dir "$result_dir/adapted" --steps "$adapt_steps" ${adapt[@]+"${adapt[@]}"}
    stage3+=(--unet_model_path "$result_dir/adapted/$video_stem/unet")
fi
run inference_joygen.py --audio_path "$audio" --video_path "$video" --intermediate_dir "$result_dir/edit_expression" \
    --enable_pose_driven --result_dir "$result_dir/talk" ${stage3[@]+"${stage3[@]}"}
if [[ -n "${clean-}" ]]; then
    rm -f -- "$result_dir/a2m/$stem.npy"
    rmdir -- "$result_dir/a2m" "$result_dir/edit_expression" 2>/dev/null || true # other speeches' files stay
fi
