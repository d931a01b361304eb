#!/usr/bin/env bash
# run.sh BUILD_DIR [MUTANTS [FIRST_SEED]] - mutants of real models against the importer and all passes up to the plan, under
# AddressSanitizer and UBSan: MUTANTS of each model (40), the same ones for the same seed. README.md says more.
# Prints a line for each model and each finding, then `N passed, N failed` (models).
set -uo pipefail
BUILD=$(cd "$1" && pwd)
SOURCE=$(cd "$(dirname "$0")/../.." && pwd)
MUTANTS=${2:-40} SEED=${3:-1}
SHARED=$(cd "$SOURCE/.." && pwd)/shared
cmake --build "$BUILD" --target mutate_onnx >"$BUILD/mutate_onnx.log" 2>&1 || { tail -n 20 "$BUILD/mutate_onnx.log"; echo "0 passed, 1 failed"; exit 1; }
PASSED=0 FAILED=0 MADE=0 READ=0 THROUGH=0

# mutants COUNT MODEL [FLAGS…]
mutants() {
  local log
  if log=$("$BUILD/tests/mutate_onnx" -n "$1" -s "$SEED" "${@:3}" "$2" 2>&1); then PASSED=$((PASSED + 1)); else FAILED=$((FAILED + 1)); echo "FAILED $2"; fi
  printf '%s: %s\n' "$(basename "$2")" "$log"
  read -r made _ read _ _ _ through _ < <(tail -n 1 <<<"$log" | tr -d ,) || true
  MADE=$((MADE + ${made:-0})) READ=$((READ + ${read:-0})) THROUGH=$((THROUGH + ${through:-0}))
}

mutants $((10 * MUTANTS)) "$SOURCE/examples/digits/mnist-8.onnx"
if [ -d "$SHARED/models" ]; then
  for model in "$SHARED"/models/*/*.onnx; do mutants "$MUTANTS" "$model"; done
else
  echo "skipped: the real models (no ../shared/models beside the checkout)"
fi
MADE_OF_MODELS=$MADE READ_OF_MODELS=$READ
for pass in infer plan; do mutants $((5 * MUTANTS)) "$SOURCE/examples/digits/mnist-8.onnx" -x $pass; done
echo "$MADE mutants, $READ past the reader, $THROUGH through all passes"
# Mutants that the reader refuses test nothing behind it.
if [ $((READ_OF_MODELS * 5)) -lt "$MADE_OF_MODELS" ]; then FAILED=$((FAILED + 1)); echo "FAILED fewer than a fifth get past the reader"; fi
printf '%d passed, %d failed\n' $PASSED $FAILED
[ $FAILED -eq 0 ] && [ $PASSED -gt 0 ]
