# common.sh - what the scripts of this folder share. Their arguments: BUILD_DIR WORK_DIR. Sets BUILD, SOURCE, WORK (emptied), CMZC,
# RUN, MNIST; makes the small models in WORK; counts in PASSED and FAILED.
BUILD=$(cd "$1" && pwd)
SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
WORK=$2
CMZC=$(find "$BUILD" -maxdepth 2 -name cmzc -type f -perm -u+x | head -n 1)
rm -rf "$WORK"
mkdir -p "$WORK"
WORK=$(cd "$WORK" && pwd)
PASSED=0 FAILED=0
export XDG_CACHE_HOME=$WORK/cache

ok() { PASSED=$((PASSED + 1)); }
bad() { FAILED=$((FAILED + 1)); printf 'FAILED %s\n' "$*"; }
check() { if eval "$2"; then ok; else bad "$1: $2"; fi; }

# run STATUS TEXT WORDS… - cmzc with these words exits with STATUS, and its messages hold TEXT.
run() {
  local status=$1 text=$2 output got
  shift 2
  output=$("$CMZC" "$@" 2>&1)
  got=$?
  if [ $got -ne "$status" ]; then bad "cmzc $*: exit $got instead of $status: ${output:0:300}"
  elif ! grep -qF -- "$text" <<<"$output"; then bad "cmzc $*: no \"$text\" in: ${output:0:300}"
  else ok; fi
}

# refuse NAME TEXT - NAME.onnx is refused with status 1 and leaves the old output and nothing else.
refuse() {
  mkdir -p "$WORK/out"
  echo old >"$WORK/out/m.so"
  run 1 "$2" "$WORK/$1.onnx" -o "$WORK/out/m.so"
  check "$1 leaves what was there" '[ "$(ls -A "$WORK/out")" = m.so ] && [ "$(cat "$WORK/out/m.so")" = old ]'
}

gcc -std=gnu11 -o "$WORK/make_models" "$SOURCE/tests/cli/make_models.c" && "$WORK/make_models" "$WORK" || { echo "0 passed, 1 failed"; exit 1; }
MNIST=$SOURCE/examples/digits/mnist-8.onnx
RUN=$(find "$BUILD" -maxdepth 2 -name cmz-run -type f -perm -u+x | head -n 1)
