#!/usr/bin/env bash
# run.sh BUILD_DIR WORK_DIR - what cmzc writes: symbols, needs, sizes, sameness, linking, the C ABI, the examples, installation.
# Prints a line a check and `N passed, N failed` last. Needs gcc, g++, binutils, cmake; examples/digits for a model.
set -uo pipefail
. "$(dirname "$0")/../checks.sh"
add_up() { # the last line of a C test
  local p f
  p=$(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed$/\1/p' "$1" | tail -n 1)
  f=$(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed$/\2/p' "$1" | tail -n 1)
  PASSED=$((PASSED + ${p:-0}))
  FAILED=$((FAILED + ${f:-1}))
  [ "${f:-1}" = 0 ] || cat "$1"
}

# ---- kinds ----
for kind in so o a h s ll mlir cmz; do check "mnist-8 to .$kind" compile -o "digits.$kind"; done
check "mnist-8 to an executable" compile -o digits_exe

lines() { # every line of the code is one of the listing, and the listing's names a node
  rm -rf debug && mkdir debug && compile -g -o debug/digits.so || return 1
  readelf --debug-dump=decodedline debug/digits.so | awk '$1=="digits.so.cmz" && $2>0 {print $2}' | sort -un >debug/lines
  [ -s debug/lines ] || return 1
  local line
  while read -r line; do sed -n "${line}p" debug/digits.so.cmz | grep -q '= "' || return 1; done <debug/lines
  [ "$(sed -n "$(head -n 1 debug/lines)p" debug/digits.so.cmz | grep -c 'name "')" = 1 ]
}
check "-g: lines lead to the listing's nodes" lines
default_threads() {
  local cores
  cores=$(lscpu -p=CORE,SOCKET | grep -v '^#' | sort -u | wc -l)
  "$RUN" digits.so --info | grep -qx "threads $cores" || [ "$(nproc)" != "$(nproc --all)" ]
}
check "threads: one a core when nobody says" default_threads

# ---- symbols, needs, sizes ----
only_exports() { [ "$(nm "$@" | awk 'NF > 1 && $(NF-1) ~ /^[A-TV-Z]$/ {print $NF}' | sort | tr '\n' ' ')" = "$WANT" ]; }
WANT="cmz_model_api digits_api " check "the .so exports two names" only_exports -D digits.so
WANT="digits_api " check "the .o exports one name" only_exports digits.o
WANT="digits_api " check "the .a exports one name" only_exports digits.a
check "the .so needs nothing but libc" needs_only_libc digits.so
check "the executable needs nothing but libc" needs_only_libc digits_exe
small() {
  strip -o stripped.so digits.so || return 1
  local weights
  weights=$("$RUN" digits.so --info --json | sed -nE 's/.*"weight_bytes": ([0-9]+).*/\1/p')
  echo "$(stat -c %s stripped.so) bytes, weights $weights"
  [ $(($(stat -c %s stripped.so) - weights)) -le 65536 ]
}
check "the stripped .so is at most 64 KiB larger than its weights" small
# ---- CPU levels ----
check "mnist-8 for two levels" compile -o levels.so --cpu x86-64,x86-64-v2
check "the lower level runs when asked for" "$RUN" levels.so --input "$INPUT" --cpu x86-64
refuses_level() { ! "$RUN" levels.so --input "$INPUT" --cpu x86-64-v9 2>message && grep -q 'no level "x86-64-v9"' message; }
check "a level that the model does not have is refused by name" refuses_level

not_writable_and_executable() { ! readelf -lW "$1" | grep -qE 'LOAD.* RWE '; }
check "no memory is both written and executed" not_writable_and_executable digits.so

# ---- sameness ----
same_again() {
  mkdir -p again && compile --cache-dir again/cache -j 1 -o "again/digits.$1" && cmp "again/digits.$1" "digits.$1"
}
for kind in so o a s; do check "the same bytes again: .$kind" same_again $kind; done
three_levels() {
  compile --cpu x86-64-v2,x86-64-v3,x86-64-v4 -o levels.so && "$RUN" levels.so --info | grep -q 'x86-64-v4,x86-64-v3,x86-64-v2'
}
check "three CPU levels in one library" three_levels
rounding_model() { # a convolution and a sigmoid
  awk 'BEGIN {
    print "cmz 1 module \"r\" file \"r.onnx\" opset 21 ir 10 graphs 1 values 4\ngraph @1 \"r\" entry {\n  input %1 \"x\" : f32[1, 2, 40, 40]"
    printf "  constant %%2 \"w\" : f32[2, 2, 3, 3] = ["
    for (i = 0; i < 36; i++) printf "%s%.9f", i ? ", " : "", sin(i + 1) / 2
    print "]\n  %3 \"y\" : undefined[*] = \"Conv\"(%1, %2) opset 21 name \"conv\"\n  %4 \"p\" : undefined[*] = \"Sigmoid\"(%3) opset 21 name \"sigmoid\""
    print "  output %4\n}" }'
}
same_bits() { # libraries of several levels round alike where an output is a sigmoid; a level by itself rounds as it likes
  if ! grep -qw fma /proc/cpuinfo || ! grep -qw avx2 /proc/cpuinfo; then echo "skipped: no fused multiply-add here"; return 0; fi
  rounding_model >r.cmz && "$CMZC" r.cmz --cache-dir "$CACHE" --cpu x86-64-v2,x86-64-v3 -o r.so && "$CMZC" r.cmz --cache-dir "$CACHE" --cpu x86-64-v2 -o r2.so &&
    "$RUN" r.so --random 1 --cpu x86-64-v2 --output-dir r.soft && "$RUN" r.so --random 1 --cpu x86-64-v3 --output-dir r.fused &&
    "$RUN" r2.so --random 1 --output-dir r.plain || return 1
  cmp r.soft/p.npy r.fused/p.npy && ! cmp -s r.plain/p.npy r.fused/p.npy
}
check "the same bits with and without fused multiply-add" same_bits

# ---- results ----
results() { # COMMAND…: the output file is the expected one to 1e-3
  rm -rf out
  "$@" --input "Input3=$INPUT" --output-dir out || return 1
  ./compare_npy out/Plus214_Output_0.npy "$ROOT/examples/digits/expected.npy"
}
check "build the comparer" build_comparer
check "the .so computes what is expected" results "$RUN" digits.so
check "the executable too" results ./digits_exe
check "the library of three levels too" results "$RUN" levels.so
external() {
  mkdir -p ext && compile --weights external -o ext/digits.so && [ -s ext/digits.so.weights ] && results "$RUN" ext/digits.so
}
check "external weights" external
missing_weights() {
  mkdir -p ext2 && cp ext/digits.so ext2/ && ! "$RUN" ext2/digits.so --random 1 2>message && grep -q 'weights' message || return 1
  head -c 4096 /dev/zero >ext2/digits.so.weights
  ! "$RUN" ext2/digits.so --random 1 2>message && grep -q 'weights' message
}
check "missing or wrong external weights are named" missing_weights

# ---- the runner ----
refuses() { # STATUS TEXT COMMAND…
  local status=$1 text=$2
  shift 2
  "$@" >refused.log 2>&1
  local got=$?
  cat refused.log
  [ "$got" = "$status" ] && grep -q -- "$text" refused.log && [ "$(wc -l <refused.log)" = 1 ]
}
check "no model: usage" refuses 2 "no model" "$RUN"
check "unknown option: usage" refuses 2 "--nonsense" "$RUN" digits.so --nonsense
check "a number that is none: usage" refuses 2 "--bench" "$RUN" digits.so --bench many
check "not a library" refuses 1 "cannot load" "$RUN" "$MODEL"
check "a library that is no model" refuses 1 "not a model" "$RUN" "$(gcc -print-file-name=libm.so.6)"
check "a missing input is named" refuses 1 "Input3" "$RUN" digits.so
check "an input that is not there is named" refuses 1 "nowhere.npy" "$RUN" digits.so --input Input3=nowhere.npy
check "an unknown input is named" refuses 1 "Other" "$RUN" digits.so --input "Other=$INPUT"
check "a file that is no .npy" refuses 1 "not a .npy" "$RUN" digits.so --input "Input3=$MODEL"
head -c 500 "$INPUT" >short.npy
check "a truncated .npy" refuses 1 "truncated" "$RUN" digits.so --input Input3=short.npy
check "an input of the wrong shape" refuses 1 "Input3" "$RUN" digits.so --input "Input3=$ROOT/examples/digits/expected.npy"
json() {
  "$RUN" digits.so --random 1 --bench 5 --json >out.json && python3 -c '
import json
d = json.load(open("out.json"))
assert set("inputs outputs min_us median_us max_us threads arena_bytes weight_bytes target".split()) <= set(d), d
assert 0 < d["min_us"] <= d["median_us"] <= d["max_us"]'
}
check "--json has the promised keys" json
check "--profile prints a table" sh -c "'$RUN' digits.so --random 1 --profile | grep -q 'of the run'"

# ---- the C ABI ----
check "build the exerciser" gcc -O1 -Wall -Wextra -I"$ROOT/runtime" "$ROOT/tests/output/exercise.c" -o exercise -ldl -lpthread
check "build the allocation counter" gcc -O1 -shared -fPIC "$ROOT/tests/output/count_allocations.c" -o count.so
LD_PRELOAD=./count.so ./exercise ./digits.so >exercise.log 2>&1
add_up exercise.log
if [ -e /usr/include/dlpack/dlpack.h ]; then
  check "build the DLPack round trip" gcc -O1 -Wall -Wextra -I"$ROOT/runtime" "$ROOT/tests/output/dlpack.c" -o dlpack
  ./dlpack >dlpack.log 2>&1
  add_up dlpack.log
else
  SKIPPED=$((SKIPPED + 1))
  echo "skipped: DLPack round trip: no dlpack/dlpack.h (Debian's libdlpack-dev)"
fi
header_is_clean() {
  echo '#include "digits.h"' >header.c && cp header.c header.cpp &&
    gcc -std=c99 -pedantic -Wall -Wextra -Werror -I"$ROOT/runtime" -I. -fsyntax-only header.c &&
    g++ -std=c++11 -pedantic -Wall -Werror -I"$ROOT/runtime" -I. -fsyntax-only header.cpp
}
check "the header is clean C99 and C++11" header_is_clean

# ---- examples ----
check "example: C with the model linked in" sh -c "gcc -O1 -Wall -I'$ROOT/runtime' -I. '$ROOT/examples/linked/linked.c' digits.o -o linked && ./linked '$INPUT' | grep -qx '[0-9]'"
check "example: the same with the archive" sh -c "gcc -O1 -I'$ROOT/runtime' -I. '$ROOT/examples/linked/linked.c' -L. digits.a -o linked_a && [ \"\$(./linked '$INPUT')\" = \"\$(./linked_a '$INPUT')\" ]"
check "example: C++" sh -c "g++ -O1 -Wall -I'$ROOT/runtime' -I. '$ROOT/examples/cpp/digits.cpp' digits.o -o digits_cpp && [ \"\$(./digits_cpp '$INPUT')\" = \"\$(./linked '$INPUT')\" ]"
check "example: a library by dlopen" sh -c "gcc -O1 -I'$ROOT/runtime' '$ROOT/examples/digits/digits.c' -o digits_dl -ldl -lm && ./digits_dl ./digits.so '$INPUT' '$ROOT/examples/digits/expected.npy'"
installed() {
  cmake --install "$BUILD" --prefix "$WORK/prefix" &&
    cmake -S "$ROOT/examples/two_models" -B two_models -DCMAKE_PREFIX_PATH="$WORK/prefix" -DCMAKE_BUILD_TYPE=Release &&
    cmake --build two_models && two_models/two_models "$INPUT"
}
check "installed, find_package(cmzc), two models in one executable" installed
check "pkg-config finds the headers" sh -c "PKG_CONFIG_PATH=\$(dirname \$(find prefix -name cmzc.pc)) pkg-config --cflags cmzc | grep -q include"
rm -rf prefix # else who looks for the compiler below the build folder finds this copy, and one day an old one

finish
