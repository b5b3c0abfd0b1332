#!/usr/bin/env bash
# Finds a Python, makes .venv, and lets ops.setup.install put the named parts into it: `setup.sh [dev] [llama] [torch] [mlx] [otel]`.
# Needs no root; what is missing is one line with the command that installs it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() {
    echo "error: $*" >&2
    exit 3
}

is_recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14 python; do
        if is_recent "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

install_hint() {
    if command -v apt-get >/dev/null; then
        echo "sudo apt-get install $1"
    elif command -v dnf >/dev/null; then
        echo "sudo dnf install $2"
    elif [[ $(uname) == Darwin ]]; then
        echo "brew install $3"
    else
        echo "install $2 with your package manager"
    fi
}

if ! is_recent .venv/bin/python; then
    python=$(find_python) || fail "Python 3.11 or newer is missing: $(install_hint 'python3 python3-venv' python3 python)"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "Python's venv module is missing: $(install_hint python3-venv python3 python)"
    echo "setup: creating .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi
exec .venv/bin/python -m ops.setup.install "$@"
