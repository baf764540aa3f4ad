#!/usr/bin/env bash
# Installs into a virtual environment (VENV, default .venv), then lints, checks types and tests.
set -euo pipefail
cd "$(dirname "$0")/.."
venv="${VENV:-.venv}"
[ -x "$venv/bin/python" ] || python3 -m venv --upgrade-deps "$venv"  # pip 23.0 never ends resolving
"$venv/bin/pip" install --quiet -e ".[test,tpu_check]"
"$venv/bin/ruff" check .
"$venv/bin/mypy"
# A process for each core, each with one thread: twice as fast as one process with many.
export TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1
"$venv/bin/python" -m pytest --numprocesses=auto --dist=loadfile
