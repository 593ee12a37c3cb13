#!/usr/bin/env bash
# Training data, step 3: check the clips and list the samples.
#   bash scripts/preprocess_dataset_extra.sh DATA_DIR [flags of preprocess_dataset_extra.py]
set -euo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
exec bash "$root/scripts/python.sh" "$root/preprocess_dataset_extra.py" "$@"
