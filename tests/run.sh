#!/usr/bin/env bash
# tests/run.sh:        installs the current TensorFlow into .venv (or VENV), lints, checks types, runs all tests.
# tests/run.sh addons: installs tensorflow-addons with its TensorFlow into .venv-addons (or ADDONS_VENV), runs
#                      all tests but the slow ones; what the stacks make for each other too, where .venv is there.
set -euo pipefail
cd "$(dirname "$0")/.."
current="${VENV:-.venv}" addons="${ADDONS_VENV:-.venv-addons}"

make_venv() {  # a folder, and the newest Python allowed: 3.N
  [ -x "$1/bin/python" ] && return
  for python in python3 python3.11 python3.10; do
    if "$python" -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $2))" 2> /dev/null; then
      "$python" -m venv --upgrade-deps "$1"  # pip 23.0 never ends resolving
      return
    fi
  done
  echo "error: no Python from 3.10 to 3.$2 found" >&2
  exit 1
}

# A process for each core, each with one thread: twice as fast as one process with many.
export TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1
case "${1:-current}" in
  current)
    make_venv "$current" 13
    "$current/bin/pip" install --quiet -e ".[test,tpu_check]"
    "$current/bin/ruff" check .
    "$current/bin/mypy"
    "$current/bin/python" -m pytest --numprocesses=auto --dist=loadfile
    ;;
  addons)
    make_venv "$addons" 11
    "$addons/bin/pip" install --quiet -e ".[addons,test]"
    [ -x "$current/bin/python" ] && export BDM_OTHER_PYTHON="$(cd "$current" && pwd)/bin/python"
    "$addons/bin/python" -m pytest --numprocesses=auto --dist=loadfile -m "not slow" -r s
    ;;
  *)
    echo "error: tests/run.sh $1: give nothing, or addons" >&2
    exit 1
    ;;
esac
