# checks.sh - what the parts that drive built programs with the example's model share. Sourced by tests/*/run.sh BUILD_DIR WORK_DIR.
# In: the part's two arguments. Out: the paths below, the current folder WORK, counted checks. A part ends with `finish`, which prints
# `N passed, N failed, N skipped` and gives the exit status.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=$(cd "$1" && pwd)
mkdir -p "$2"
WORK=$(cd "$2" && pwd)
CMZC=$BUILD/bin/cmzc
RUN=$BUILD/bin/cmz-run
MODEL=$ROOT/examples/digits/mnist-8.onnx
INPUT=$ROOT/examples/digits/input.npy
SHARED=$(cd "$ROOT/.." && pwd)/shared
CACHE=$WORK/cache
PASSED=0 FAILED=0 SKIPPED=0
cd "$WORK" || exit 1
. "$ROOT/tests/known_failure.sh"

check() { # WHAT COMMAND…
  local what=$1
  shift
  if "$@" >"$WORK/check.log" 2>&1; then
    PASSED=$((PASSED + 1))
    echo "ok: $what"
  else
    FAILED=$((FAILED + 1))
    echo "FAILED: $what"
    tail -n 20 "$WORK/check.log"
  fi
}
skip() { # WHAT REASON
  SKIPPED=$((SKIPPED + 1))
  echo "skipped: $1: $2"
}
compile() { "$CMZC" "$MODEL" --cache-dir "$CACHE" "$@"; }
needs_only_libc() { [ -z "$(readelf -d "$1" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | grep -vxE 'lib(c|m|dl|pthread)\.so\.[0-9]+')" ]; }
build_comparer() { gcc -O1 "$ROOT/tests/output/compare_npy.c" -o compare_npy -lm; }
fails_with() { # TEXT COMMAND…: exit status 1, and TEXT in what it says
  local text=$1
  shift
  "$@" >refused.log 2>&1
  local status=$?
  cat refused.log
  [ $status -eq 1 ] && grep -q -- "$text" refused.log
}

# check_models LABEL CFLAGS [OPTIONS of check_models.py…]: real models against their stored outputs, each a check; LABEL ends their names.
check_models() {
  local label=$1 cflags=$2 name state reason
  shift 2
  PATH="$BUILD/venv/bin:$PATH" python "$SHARED/models/check_models.py" "$BUILD" "$SHARED/models" --timeout 1800 --cflags "-O2 $cflags --cache-dir $CACHE" "$@" | tee models.txt
  grep -qE '^[0-9]+ of [0-9]+ match$' models.txt || { FAILED=$((FAILED + 1)); echo "FAILED: the checker did not run"; }
  while read -r name state _; do
    case $state in
      ok) PASSED=$((PASSED + 1)) ;;
      WRONG | COMPILE | TIMEOUT)
        reason=$(known_failure models "$name")
        if [ -n "$reason" ]; then skip "$name$label" "$reason"
        else FAILED=$((FAILED + 1)); echo "FAILED: $name$label: $state"; fi ;;
    esac
  done <models.txt
}

# The ONNX project's node tests, exported once for all parts.
CASES=$BUILD/test-work/onnx-cases
export_cases() { [ -e "$CASES/.done" ] || { "$BUILD/venv/bin/python" "$ROOT/tests/onnx/export_cases.py" "$CASES" && touch "$CASES/.done"; }; }
# STEP PATTERN: every STEPth of the cases that must pass on this machine and match; all of them with ALL=1.
choose() { grep -E "$2" "$ROOT/tests/onnx/passing.txt" | awk -v step="$([ "${ALL:-0}" = 1 ] && echo 1 || echo "$1")" '(NR - 1) % step == 0'; }

finish() {
  echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
  [ "$FAILED" -eq 0 ]
}
