#!/usr/bin/env bash
# run.sh BUILD_DIR WORK_DIR [MODELS_DIR] - compression with the built programs: sizes, outputs, recipes, reports, refusals.
# Needs a Python with numpy and onnx (tests/run.sh makes one); MODELS_DIR holds real models with inputs and outputs, else those
# checks are skipped. Prints a line a check and `N passed, N failed, N skipped` last.
set -uo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
BUILD=$(cd "$1" && pwd)
mkdir -p "$2"
WORK=$(cd "$2" && pwd)
PYTHON=${PYTHON:-$BUILD/venv/bin/python}
exec "$PYTHON" "$HERE/check.py" "$BUILD" "$WORK" "$HERE/../../examples/digits" "${3:-}"
