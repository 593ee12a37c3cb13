#!/usr/bin/env bash
# Set everything up and make a talking video from demo/.
#   bash scripts/demo.sh
set -euo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
result_dir="$root/results/demo"
bash "$root/scripts/setup.sh"
bash "$root/scripts/inference_pipeline.sh" \
    "$root/demo/speech.wav" "$root/demo/portrait.mp4" "$result_dir" --seed 0 --debug
echo "video:          $result_dir/talk/portrait#speech.mp4"
echo "contact sheet:  $result_dir/talk/portrait#speech.png"
