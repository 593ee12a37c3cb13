#!/usr/bin/env bash
# Run Python as the other scripts do: .venv's if scripts/setup.sh made one, else the one on PATH.
#   bash scripts/python.sh FILE.py [arguments]
set -euo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
python="$root/.venv/bin/python"
[[ -x "$python" ]] || python=python
exec "$python" "$@"
