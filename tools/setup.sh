#!/bin/sh
# Makes .venv in the project folder from requirements.lock: exact versions, checked hashes, nothing global.
# usage: tools/setup.sh [python]     without an argument, the first Python >= 3.11 on PATH
set -eu
cd "$(dirname "$0")/.."

new_enough='import sys; sys.exit(sys.version_info < (3, 11))'
python=
for candidate in ${1:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if "$candidate" -c "$new_enough" 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    found=$("${1:-python3}" --version 2>/dev/null || echo "no ${1:-python3}")
    echo "relayfile needs Python 3.11 or newer; found $found. Name another one: make PYTHON=/path/to/python3.11" >&2
    exit 1
fi

# A .venv that a too old or removed Python left behind is made anew.
if ! .venv/bin/python -c "$new_enough" 2>/dev/null; then
    echo "setup: making .venv with $("$python" --version) (once)"
    if ! "$python" -m venv --clear .venv; then
        echo "setup: '$python -m venv' failed (on Debian and Ubuntu: apt-get install python3-venv)" >&2
        exit 1
    fi
fi
echo "setup: installing the locked packages into .venv"
.venv/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
.venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
touch .venv/.setup-done
