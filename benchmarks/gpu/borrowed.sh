#!/usr/bin/env bash
# Two calls on a machine that is borrowed for minutes, and has JAX and PyTorch and no TensorFlow.
#
#   bash benchmarks/gpu/borrowed.sh measure LOWERED [LOWERED ...]
#   bash benchmarks/gpu/borrowed.sh train LOWERED
#
# The first says how fast the training steps are, ours and PyTorch's of the same network (within
# 4 minutes for two networks). The second trains, draws and ends within 9 minutes; given again, it
# goes on where it was. What is to be sent back is in $OUT (back), the state in $STATE (state).
# MINUTES, LIMIT (seconds of each command), SAMPLES and MATRIX_SIZE make a rehearsal small.
set -uo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
out="${OUT:-back}" python="${PYTHON:-python3}"
export PYTHONUNBUFFERED=1

case "${1:-}:$#" in
  measure:[2-9])
    mkdir -p "$out"
    {
      failed=0
      for folder in "${@:2}"; do
        echo "== $folder"
        timeout "${LIMIT:-70}" "$python" "$here/run.py" "$folder" --measure=3 \
          --matrix_size="${MATRIX_SIZE:-8192}" --output="$out" || failed=1
        timeout "${LIMIT:-50}" "$python" "$here/torch_step.py" "$folder" --seconds=25
      done
      exit $failed
    } 2>&1 | tee -a "$out/measured.txt"
    ;;
  train:2)
    timeout "${LIMIT:-540}" "$python" "$here/run.py" "$2" --minutes="${MINUTES:-8.5}" \
      --samples="${SAMPLES:-10000}" --output="$out" --state="${STATE:-state}"
    ;;
  *)
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
