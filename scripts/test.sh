#!/usr/bin/env bash
# Set everything up and run the whole test suite; further arguments go to pytest.
#   bash scripts/test.sh [-k name ...]
set -euo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/scripts/setup.sh" --dev
cd -- "$root"
exec "$root/.venv/bin/python" -m pytest "$@"
