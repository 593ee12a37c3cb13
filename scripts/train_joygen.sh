#!/usr/bin/env bash
# Train stage 3 through accelerate; config/accelerate_config.yaml sets the devices.
#   bash scripts/train_joygen.sh [flags of train_joygen.py]
set -euo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
exec bash "$root/scripts/python.sh" -m accelerate.commands.launch --main_process_port "${MAIN_PROCESS_PORT:-29501}" \
    --config_file "$root/config/accelerate_config.yaml" "$root/train_joygen.py" "$@"
