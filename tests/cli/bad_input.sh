#!/usr/bin/env bash
# bad_input.sh BUILD_DIR WORK_DIR - what else may come wrong from outside: the inputs of cmz-run, .cmz text, memory that is not
# there, killed processes. Each gives one clear message, the documented exit status, and nothing half done.
# Prints a line for each failure and `N passed, N failed[, N skipped]` last.
set -uo pipefail
. "$(dirname "$0")/common.sh"
SKIPPED=0
skip() { SKIPPED=$((SKIPPED + 1)); printf 'skipped: %s\n' "$*"; }

# ---- cmz-run: a model of x: f32[4] ----
cd "$WORK"
"$CMZC" good.onnx -o good.so || bad "good.onnx does not compile"

# npy FILE DESCR SHAPE BYTES - a version 1 file whose data is BYTES zeros.
npy() {
  local header="{'descr': $2, 'fortran_order': False, 'shape': $3, }"
  while [ $(((${#header} + 11) % 64)) -ne 0 ]; do header+=" "; done
  { printf '\x93NUMPY\x01\x00'; printf "\\x$(printf %x $(((${#header} + 1) & 255)))\\x$(printf %x $(((${#header} + 1) >> 8)))"
    printf '%s\n' "$header"; head -c "$4" /dev/zero; } >"$1"
}
npy right.npy "'<f4'" "(4,)" 16
npy type.npy "'<f8'" "(4,)" 32
npy rank.npy "'<f4'" "(2, 2)" 16
npy dims.npy "'<f4'" "(5,)" 20
npy short.npy "'<f4'" "(4,)" 15
npy huge.npy "'<f4'" "(9223372036854775807, 9223372036854775807)" 16
npy wraps.npy "'<f4'" "(4611686018427387904, 4)" 16
npy minus.npy "'<f4'" "(-4,)" 16
npy widthless.npy "'<U0'" "(4611686018427387904, 4)" 16
npy cut_descr.npy "'" "(4,)" 16
npy odd_descr.npy "'<f99999999999999999999'" "(4,)" 16
npy many_dims.npy "'<f4'" "(1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,4)" 16
npy no_shape.npy "'<f4'" "4" 16
head -c 40 right.npy >cut_header.npy
head -c 9 right.npy >cut_start.npy
printf '\x93NUMPY\x02\x00\xff\xff\xff\xff' >long_header.npy
printf "\x93NUMPY\x01\x00\x0b\x00'descr': '<" >cut_word.npy
: >empty.npy
printf 'not an array\n' >text.npy

# runs STATUS TEXT WORDS… - the same for cmz-run; a refused input leaves no output.
runs() {
  local status=$1 text=$2 output got
  shift 2
  rm -rf out
  output=$("$RUN" "$@" 2>&1)
  got=$?
  if [ $got -ne "$status" ]; then bad "cmz-run $*: exit $got instead of $status: ${output:0:300}"
  elif ! grep -qF -- "$text" <<<"$output"; then bad "cmz-run $*: no \"$text\" in: ${output:0:300}"
  elif [ "$status" -ne 0 ] && [ "$(wc -l <<<"$output")" -ne 1 ]; then bad "cmz-run $*: more than one line: ${output:0:300}"
  elif [ "$status" -ne 0 ] && [ -n "$(ls -A out 2>/dev/null)" ]; then bad "cmz-run $*: left an output"
  else ok; fi
}
given() { runs "$1" "$2" ./good.so --input "x=$3" --output-dir out; }
given 0 "" right.npy
check "the output is there" '[ "$(stat -c %s out/y.npy)" -eq 144 ]'
given 1 'input "x"' type.npy
given 1 'input "x"' rank.npy
given 1 'input "x"' dims.npy
given 1 "is truncated" short.npy
given 1 "shape is too large" huge.npy
given 1 "shape is too large" wraps.npy
given 1 "no size" widthless.npy
for file in minus cut_descr odd_descr many_dims no_shape cut_header cut_start long_header cut_word empty text; do
  given 1 "\"$file.npy\" is not a .npy file" $file.npy
done
given 1 'cannot open "none.npy"' none.npy
given 1 'cannot read "."' .
runs 1 'input "x" is not given' ./good.so --output-dir out
runs 1 "no such input; the model has \"x\"" ./good.so --input z=right.npy --output-dir out
runs 2 "unknown option" ./good.so --frobnicate
runs 2 "takes a number" ./good.so --random -1
runs 2 "no model given"
runs 1 "none.so" ./none.so --random 1
runs 1 "text.npy" ./text.npy --random 1
runs 1 "is not a model that cmzc has compiled" "$(gcc -print-file-name=libm.so.6)" --random 1
runs 1 "good.h" ./good.h --random 1
for size in 20 100 3000 6000; do
  head -c $size good.so >cut.so
  runs 1 "cut.so" ./cut.so --random 1
done
if "$CMZC" good.onnx -o other.so --no-header --target aarch64-linux-gnu 2>/dev/null && [ "$(uname -m)" = x86_64 ]; then
  runs 1 "other.so" ./other.so --random 1
else
  skip "a library of another architecture: this cmzc makes none"
fi
: >file
runs 1 "cannot write" ./good.so --input x=right.npy --output-dir file/out
mkdir -p blocked/y.npy
runs 1 "cannot write" ./good.so --input x=right.npy --output-dir blocked
check "standard output that is full" '! "$RUN" ./good.so --input x=right.npy >/dev/full 2>full.txt && grep -q "cannot write" full.txt'
mkdir -p small
if mount -t tmpfs -o size=4k none small 2>/dev/null; then
  printf '%4096s' "" >small/fill
  runs 1 "cannot write" ./good.so --input x=right.npy --output-dir small
  check "a full disk leaves no half output" '[ ! -e small/y.npy ]'
  umount small
else
  skip "outputs of cmz-run on a full disk: no tmpfs can be mounted"
fi

# ---- .cmz text ----
"$CMZC" "$MNIST" -o net.cmz || bad "no net.cmz"
# refuse_text NAME TEXT - NAME.cmz is refused with a message that names the file.
refuse_text() {
  mkdir -p out
  echo old >out/m.so
  run 1 "$2" "$1.cmz" -o out/m.so
  check "$1 leaves what was there" '[ "$(ls -A out)" = m.so ] && [ "$(cat out/m.so)" = old ]'
}
head -c 1500 net.cmz >cut.cmz
tr 'e' '\377' <net.cmz >bytes.cmz
sed 's/[0-9]\{1,\}/99999999999999999999/g' net.cmz >numbers.cmz
sed 's/(/((((((((/g' net.cmz >nested.cmz
head -c 100000 /dev/zero >zeros.cmz
head -c 300000 /dev/zero | tr '\0' '(' >parentheses.cmz
: >empty.cmz
for name in cut bytes numbers nested zeros parentheses empty; do refuse_text $name "$name.cmz"; done
cp net.cmz lonely.cmz
if ls net.cmz.* >/dev/null 2>&1; then refuse_text lonely "lonely.cmz"; fi

# ---- memory ----
# Address space runs out at some point of the compilation: a message, status 1, the old output.
mkdir -p memory
for limit in 400000 500000 700000 1000000; do
  rm -f memory/*
  echo old >memory/m.so
  output=$(ulimit -v $limit; exec "$CMZC" "$MNIST" -o memory/m.so --no-cache --no-header 2>&1)
  got=$?
  if [ $got -eq 0 ]; then check "within $limit KiB" '[ -s memory/m.so ]'; continue; fi
  check "$limit KiB of memory: status 1 or the loader's 127, not $got" '[ $got -eq 1 ] || [ $got -eq 127 ]'
  check "$limit KiB of memory: the message says it: ${output:0:200}" 'grep -qiE "memory|cannot allocate|error while loading" <<<"$output"'
  check "$limit KiB of memory: nothing new: $(ls -A memory | tr "\n" " ")" '[ "$(ls -A memory)" = m.so ] && [ "$(cat memory/m.so)" = old ]'
done

# ---- killed workers ----
# With one worker for each core, the first one that is seen is killed.
mkdir -p killed
killed=0
for try in 1 2 3 4 5; do
  rm -rf killed/*
  echo old >killed/m.so
  "$CMZC" "$MNIST" -o killed/m.so --no-cache -j2 2>killed.txt &
  compiler=$!
  worker=
  while kill -0 $compiler 2>/dev/null && [ -z "$worker" ]; do read -r worker _ <"/proc/$compiler/task/$compiler/children"; done 2>/dev/null
  sleep 0.02
  [ -z "$worker" ] || kill -KILL "$worker" 2>/dev/null || worker=
  wait $compiler
  status=$?
  [ $status -eq 0 ] || { killed=1; break; }
done
if [ $killed = 1 ]; then
  check "a killed worker: status 1, not $status: $(head -c 300 killed.txt)" '[ $status -eq 1 ]'
  check "a killed worker: one message: $(head -c 300 killed.txt)" '[ "$(wc -l <killed.txt)" -eq 1 ] && grep -q "signal 9 (Killed)" killed.txt'
  check "a killed worker leaves what was there: $(ls -A killed)" '[ "$(ls -A killed)" = m.so ] && [ "$(cat killed/m.so)" = old ]'
  check "a killed worker leaves no process" '! ps -o args= --ppid 1 | grep -qF "$WORK/killed"'
else
  skip "a killed worker: it always ended first"
fi
for signal in INT TERM HUP; do
  rm -rf killed/*
  echo old >killed/m.so
  "$CMZC" "$MNIST" -o killed/m.so --no-cache -j2 2>/dev/null &
  compiler=$!
  worker=
  while kill -0 $compiler 2>/dev/null && [ -z "$worker" ]; do read -r worker _ <"/proc/$compiler/task/$compiler/children"; done 2>/dev/null
  kill -$signal $compiler 2>/dev/null
  wait $compiler 2>/dev/null
  status=$?
  check "SIG$signal ends cmzc by that signal, not with $status" '[ $status -eq $((128 + $(kill -l $signal))) ]'
  check "SIG$signal leaves what was there: $(ls -A killed)" '[ "$(ls -A killed)" = m.so ] && [ "$(cat killed/m.so)" = old ]'
  check "SIG$signal ends the workers" '[ -z "$worker" ] || ! kill -0 $worker 2>/dev/null'
done
check "no temporary files anywhere" '[ -z "$(find . -name "*.cmzc-*" -o -name "*.tmp" -o -name "*reproducer*")" ]'

printf '%d passed, %d failed, %d skipped\n' $PASSED $FAILED $SKIPPED
[ $FAILED -eq 0 ]
