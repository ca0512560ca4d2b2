#!/bin/sh
# Makes .venv with the project in it, or adds a group of tools to the one that is there.
#   scripts/venv.sh PYTHON         a new environment, the project installed so that edits count
#   scripts/venv.sh PYTHON GROUP   the dependency group of pyproject.toml, into the environment
set -eu

python=$1
group=${2:-}
export PIP_DISABLE_PIP_VERSION_CHECK=1

fail() {
    echo "$*" >&2
    exit 1
}

make_environment() {
    "$python" -c 'import sys' 2>/dev/null || fail "no Python answers to '$python'; choose one: make PYTHON=python3.12"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$("$python" -V) is too old, 3.11 is the least; choose another: make PYTHON=python3.12"
    echo "making .venv with $("$python" -V)"
    rm -rf .venv
    if command -v uv >/dev/null; then
        uv venv --quiet --python "$python" .venv
    elif "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        "$python" -m venv .venv
    elif "$python" -c 'import venv' 2>/dev/null && "$python" -m pip --version >/dev/null 2>&1; then
        # Debian without python3-venv: no ensurepip, but its pip can install another into .venv.
        "$python" -m venv --without-pip .venv
        "$python" -m pip --python .venv/bin/python install --quiet pip
    else
        fail "$python can not make an environment; on Debian or Ubuntu: apt install python3-venv"
    fi
}

install() {
    if command -v uv >/dev/null; then
        uv pip install --quiet --python .venv/bin/python "$@"
    else
        .venv/bin/python -m pip install --quiet "$@"
    fi
}

if [ -n "$group" ]; then
    echo "installing the tools of group '$group'"
    # Dependency groups want a pip of 2025.
    command -v uv >/dev/null || install --upgrade 'pip>=25.1'
    install --group "$group"
else
    make_environment
    install --editable .
fi
