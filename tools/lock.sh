#!/bin/sh
# Resolves requirements.lock anew from pyproject.toml, for every Python >= 3.11 and platform, with all hashes.
# uv is used for this alone, from an environment of its own: the project needs only pip.
set -eu
cd "$(dirname "$0")/.."
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
.venv/bin/python -m venv "$environment"
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check "uv>=0.13"
"$environment/bin/uv" pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-header --quiet --output-file requirements.lock "$@" >/dev/null
