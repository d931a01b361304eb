#!/usr/bin/env bash
# run.sh BUILD_DIR [--all] - the whole suite. Each part is a function that prints what it does; its last line says
# `N passed, N failed[, N skipped]`. Ends with the sums on a line of its own; exit status 0 when nothing failed.
# Needs: gcc, Debian's packages from ./bootstrap, and PyPI's numpy and onnx in a virtual environment of its own.
# Optional: ../shared (real models); parts that need it are skipped, visibly, without it.
set -uo pipefail
cd "$(dirname "$0")/.."
BUILD=$(cd "$1" && pwd)
shift
ALL=0
ONLY=
while [ $# -gt 0 ]; do
  case "$1" in
    --all) ALL=1 ;;
    --only) ONLY=$2; shift ;;
    *) echo "usage: tests/run.sh BUILD_DIR [--all] [--only PART]" >&2; exit 2 ;;
  esac
  shift
done
export ALL BUILD
SHARED=$(cd .. && pwd)/shared
WORK=$BUILD/test-work
mkdir -p "$WORK"
JOBS=$(nproc)
PASSED=0 FAILED=0 SKIPPED=0

# part NAME COMMAND… - runs one part and adds up what its last line says.
part() {
  local name=$1 log last p f s start
  shift
  [ -z "$ONLY" ] || [ "$ONLY" = "$name" ] || return 0
  log=$WORK/$name.log
  start=$(date +%s)
  printf '\n== %s\n' "$name"
  : >"$log"
  "$@" >>"$log" 2>&1 # (appended to: a part may open its own output again)
  local status=$?
  last=$(grep -E '[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1)
  p=$(sed -nE 's/.*\b([0-9]+) passed.*/\1/p' <<<"$last")
  f=$(sed -nE 's/.*\b([0-9]+) failed.*/\1/p' <<<"$last")
  s=$(sed -nE 's/.*\b([0-9]+) skipped.*/\1/p' <<<"$last")
  if [ -z "$last" ] || { [ $status -ne 0 ] && [ "${f:-0}" -eq 0 ]; }; then
    f=$((${f:-0} + 1))
  fi
  grep -E 'skipped:|^SKIP|^bytes:' "$log" || true
  if [ "${f:-0}" -gt 0 ] || [ -n "${VERBOSE:-}" ]; then tail -n 60 "$log"; fi
  printf '%s: %s passed, %s failed, %s skipped (%s s)\n' "$name" "${p:-0}" "${f:-0}" "${s:-0}" "$(($(date +%s) - start))"
  PASSED=$((PASSED + ${p:-0})) FAILED=$((FAILED + ${f:-0})) SKIPPED=$((SKIPPED + ${s:-0}))
}

# A part that cannot run here: counted, with its reason.
skip() {
  [ -z "$ONLY" ] || [ "$ONLY" = "$1" ] || return 0
  printf '\n== %s\nskipped: %s\n' "$1" "$2"
  SKIPPED=$((SKIPPED + 1))
}

unit_tests() {
  ctest --test-dir "$BUILD" -j "$JOBS" --output-on-failure --timeout 120 || true
  local line total failed
  line=$(grep -E 'tests passed' "$WORK/unit.log" | tail -n 1)
  total=$(sed -nE 's/.* out of ([0-9]+).*/\1/p' <<<"$line")
  failed=$(sed -nE 's/.*, ([0-9]+) tests? failed.*/\1/p' <<<"$line")
  echo "$((${total:-0} - ${failed:-1})) passed, ${failed:-1} failed"
}

. tests/known_failure.sh

# judge PART < "good NAME" and "bad NAME" lines: a bad one fails unless it is known to; then it is skipped, with the reason.
judge() {
  local part=$1 state name reason passed=0 failed=0 skipped=0
  while read -r state name; do
    if [ "$state" = good ]; then passed=$((passed + 1)); continue; fi
    reason=$(known_failure "$part" "$name")
    if [ -n "$reason" ]; then skipped=$((skipped + 1)); echo "skipped: $name: $reason"
    else failed=$((failed + 1)); echo "FAILED $name"; fi
  done
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" -eq 0 ]
}

# What passed once must go on passing (tests/onnx/passing.txt); what is wrong, crashes or hangs fails. Refused cases are counted in the log.
onnx_tests() {
  local cases=$WORK/onnx-cases results=$WORK/onnx-results.tsv
  [ -e "$cases/.done" ] || { "$BUILD/venv/bin/python" tests/onnx/export_cases.py "$cases" && touch "$cases/.done"; } || return 1
  "$BUILD/tests/run_cases" "$cases" "$WORK/onnx-work" --jobs "$JOBS" --list "$results" -- --cache-dir "$WORK/cache"
  awk -F'\t' 'NR==FNR {must[$1]=1; next} $1=="pass" {print "good", $2} $1=="refused" && must[$2] {print "bad", $2} $1!="pass" && $1!="refused" {print "bad", $2}' \
    tests/onnx/passing.txt "$results" | judge onnx
}

# Every model of ../shared/models against its stored outputs; the checker's rule is in its first comment.
models_checked() { # FLAGS… as check_models.py takes them
  PATH="$BUILD/venv/bin:$PATH" python "$SHARED/models/check_models.py" "$BUILD" "$SHARED/models" "$@" | tee "$WORK/models.txt"
  grep -qE '^[0-9]+ of [0-9]+ match$' "$WORK/models.txt" || return 1
  awk '/ of [0-9]+ match$/ {next} $2=="ok" {print "good", $1; next} $2=="WRONG" || $2=="COMPILE" || $2=="TIMEOUT" {print "bad", $1}' "$WORK/models.txt" | judge models
}

# One library of three levels; each that this machine has runs by itself. The second and third compile from the cache.
models_at_levels() { # [--pin]
  local level p f s passed=0 failed=0 skipped=0 counts
  for level in x86-64-v2 x86-64-v3 x86-64-v4; do
    if ! machine_runs "$level"; then echo "skipped: $level: this machine cannot run it"; skipped=$((skipped + 1)); continue; fi
    counts=$(LEVEL=$level models_checked "$@" --cflags "-O2 --cpu x86-64-v2,x86-64-v3,x86-64-v4 --cache-dir $WORK/cache" --runner "tests/at_level.sh $level" |
      tee -a /dev/stderr | tail -n 1)
    read -r p f s < <(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped$/\1 \2 \3/p' <<<"$counts")
    passed=$((passed + ${p:-0})) failed=$((failed + ${f:-1})) skipped=$((skipped + ${s:-0}))
  done
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" -eq 0 ]
}

# Whether this machine runs code of a CPU level: /proc/cpuinfo names what the kernel saves.
machine_runs() {
  case "$1" in
    x86-64-v2) grep -qw sse4_2 /proc/cpuinfo ;;
    x86-64-v3) grep -qw avx2 /proc/cpuinfo && grep -qw fma /proc/cpuinfo ;;
    x86-64-v4) grep -qw avx512bw /proc/cpuinfo && grep -qw avx512vl /proc/cpuinfo ;;
  esac
}

python_environment() {
  [ -x "$BUILD/venv/bin/python" ] || python3 -m venv "$BUILD/venv" || return 1
  "$BUILD/venv/bin/pip" install -q -r tests/requirements.txt
}

part unit unit_tests
part layers tests/layers.sh
part cli tests/cli/run.sh "$BUILD" "$WORK/cli"
part bad-input tests/cli/bad_input.sh "$BUILD" "$WORK/bad-input"
part fuzz tests/fuzz/run.sh "$BUILD"
part output tests/output/run.sh "$BUILD" "$WORK/output"
part adding tests/adding/run.sh "$BUILD" "$WORK/adding"
part formats tests/targets/formats.sh "$BUILD" "$WORK/formats"
if python_environment >"$WORK/venv.log" 2>&1; then
  part compress tests/compress/run.sh "$BUILD" "$WORK/compress" "$SHARED/models"
  part attributes "$BUILD/venv/bin/python" tests/onnx/check_attributes.py "$BUILD"
  part graphs "$BUILD/venv/bin/python" tests/onnx/check_graphs.py "$BUILD" "$WORK/graphs"
  part onnx onnx_tests
  part targets tests/targets/run.sh "$BUILD" "$WORK/targets"
  part cuda tests/cuda/run.sh "$BUILD" "$WORK/cuda"
  part vulkan tests/vulkan/run.sh "$BUILD" "$WORK/vulkan"
  if [ -d "$SHARED/models" ]; then
    part models models_checked --cflags "-O2 --cache-dir $WORK/cache"
    part models-pinned models_checked --pin --cflags "-O2 --cache-dir $WORK/cache"
    if [ "$ALL" = 1 ] || [ "$ONLY" = models-levels ]; then part models-levels models_at_levels; fi
    if [ "$ALL" = 1 ] || [ "$ONLY" = models-levels-pinned ]; then part models-levels-pinned models_at_levels --pin; fi
  else
    skip models "no ../shared/models beside the checkout"
  fi
else
  skip onnx "no virtual environment with PyPI's numpy and onnx (see $WORK/venv.log)"
  skip compress "the same"
  skip models "the same"
  skip targets "the same"
  skip cuda "the same"
  skip vulkan "the same"
fi

printf '\n%s passed, %s failed, %s skipped\n' "$PASSED" "$FAILED" "$SKIPPED"
[ "$FAILED" -eq 0 ] && [ "$PASSED" -gt 0 ]
