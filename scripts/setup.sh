#!/usr/bin/env bash
# Create .venv and install the requirements; does nothing if they are installed.
#   bash scripts/setup.sh          to run the scripts
#   bash scripts/setup.sh --dev    to run the tests as well
# PYTHON names another interpreter (3.11 or 3.12). TORCH_INDEX_URL names another source of torch; without it a machine
# without an NVIDIA driver gets the CPU build from download.pytorch.org, which is ten times smaller.
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
stamp="$venv/.requirements.sha256"
requirements=(requirements.txt requirements-nodeps.txt)

case "${1:-}" in
    "") ;;
    --dev) requirements+=(requirements-dev.txt) ;;
    *) echo "usage: bash scripts/setup.sh [--dev]" >&2; exit 2 ;;
esac

fail() {
    echo "error: $1" >&2
    exit 1
}

is_supported() {
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3 python; do
        if command -v -- "$candidate" >/dev/null && is_supported "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "Python 3.11 or 3.12 not found; install it or name it: PYTHON=/path/to/python3.11 bash scripts/setup.sh"
}

# One line per requirements file: its sha256 and its name.
requirement_hashes() {
    (cd -- "$root" && "$venv/bin/python" - "${requirements[@]}" <<'PY'
import hashlib, pathlib, sys
for name in sys.argv[1:]:
    print(hashlib.sha256(pathlib.Path(name).read_bytes()).hexdigest(), name)
PY
    )
}

is_done() {
    [[ -x "$venv/bin/python" && -f "$stamp" ]] && is_supported "$venv/bin/python" || return 1
    local line
    while IFS= read -r line; do
        grep -qxF -- "$line" "$stamp" || return 1
    done < <(requirement_hashes)
}

# Extra pip arguments that find the CPU build of torch, when it is wanted and its index answers.
torch_source() {
    if [[ -n "${TORCH_INDEX_URL:-}" ]]; then
        echo "--extra-index-url=$TORCH_INDEX_URL"
        return
    fi
    [[ "$(uname -s)" == Linux ]] && ! command -v nvidia-smi >/dev/null || return 0
    local url=https://download.pytorch.org/whl/cpu
    if "$venv/bin/python" -c \
        'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)' "$url/torch/" 2>/dev/null; then
        echo "--extra-index-url=$url"
    fi
}

install() {
    local pip=("$venv/bin/python" -m pip install --disable-pip-version-check --quiet)
    local torch extra
    torch="$(grep -E '^torch==' "$root/requirements.txt")"
    extra="$(torch_source)"
    echo "setup: installing into $venv (a few minutes, once)"
    "${pip[@]}" ${extra:+"$extra"} "$torch"
    "${pip[@]}" -r "$root/requirements.txt"
    "${pip[@]}" --no-deps -r "$root/requirements-nodeps.txt"
    if [[ " ${requirements[*]} " == *" requirements-dev.txt "* ]]; then
        "${pip[@]}" -r "$root/requirements-dev.txt"
    fi
}

verify() {
    GLOG_minloglevel=2 TF_CPP_MIN_LOG_LEVEL=3 "$venv/bin/python" -c '
import av, cv2, diffusers, mediapipe, numba, parselmouth, safetensors, scipy, skimage, soxr, torch, tqdm, whisper, yaml
mediapipe.solutions.face_mesh.FaceMesh
'
}

if is_done; then
    exit 0
fi
if ! is_supported "$venv/bin/python"; then
    python="$(find_python)"
    "$python" -m venv --clear "$venv" || fail "cannot create $venv; on Debian and Ubuntu: apt-get install python3.11-venv"
fi
install
verify || fail "the installed packages do not import; delete $venv and run scripts/setup.sh again"
requirement_hashes >"$stamp"
echo "setup: done"
