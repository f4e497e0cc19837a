#!/bin/sh
# Prepare .venv with the packages of one dependency group of pyproject.toml: scripts/prepare.sh bake|dev
# Needs git and Python 3.11 or newer, and nothing else: uv, which is fast, is installed into .venv itself.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

command -v git >/dev/null || { say "git is missing. Install it first, on Debian or Ubuntu with: apt install git"; exit 1; }

if ! [ -x .venv/bin/python ] || ! new_enough .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    python=
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11; do
        if new_enough "$candidate"; then python=$candidate; break; fi
    done
    if [ -z "$python" ]; then
        say "No Python 3.11 or newer was found. Install one, or name it: make new PYTHON=/path/to/python3.13"
        exit 1
    fi
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        say "$python can't make virtual environments. On Debian or Ubuntu: apt install $("$python" -c \
            'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
        exit 1
    fi
    say "... Preparing .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi

.venv/bin/python -m pip install -qq --disable-pip-version-check "uv>=0.9,<1"
.venv/bin/python -m uv pip install --quiet --no-build --python .venv/bin/python --group "$1"
