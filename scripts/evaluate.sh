#!/usr/bin/env bash
# Metrics of generated clips against real ones, with floors, tables and plots.
#   bash scripts/evaluate.sh GENERATED REFERENCE [flags of evaluate.py]
set -euo pipefail
if [[ $# -lt 2 || "$1" == -* || "$2" == -* ]]; then
    echo "usage: bash scripts/evaluate.sh GENERATED REFERENCE [flags]" >&2
    exit 2
fi
generated="$1" reference="$2"
shift 2
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
exec bash "$root/scripts/python.sh" "$root/evaluate.py" --generated "$generated" --reference "$reference" "$@"
