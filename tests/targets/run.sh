#!/usr/bin/env bash
# run.sh BUILD_DIR WORK_DIR - other architectures and systems: what is written for them, and the same results under qemu.
# Prints a line a check and `N passed, N failed, N skipped` last. Needs binutils and, to run what it compiles, qemu-user-static with
# the C libraries of libc6-arm64-cross and libc6-riscv64-cross, and for node tests gcc-aarch64-linux-gnu; parts that lack them are skipped,
# visibly. ALL=1 runs every model of ../shared/models at every level, and every node test of tests/onnx/passing.txt at the first level
# and every one of a matrix family at the others.
set -uo pipefail
. "$(dirname "$0")/../checks.sh"
build_comparer || exit 1

# ---- Android: what the library asks of the system ----
needed() { readelf -dW "$1" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p'; }
needs_only_bionic() { ! needed "$1" | grep -vxE 'lib(c|m|dl)\.so'; }
only_old_names() { # every undefined name stands in the list
  nm -D --undefined-only "$1" | awk '{print $NF}' | sort >undefined.txt
  awk '!/^#/ {print $2}' "$ROOT/tests/targets/bionic_api21.txt" | sort >allowed.txt
  [ -s undefined.txt ] && [ -z "$(comm -23 undefined.txt allowed.txt | tee /dev/stderr)" ]
}
aligned_to_16k() { readelf -lW "$1" | awk '$1=="LOAD" {n++; if ($NF != "0x4000") bad=1} END {exit bad || !n}'; }
for arch in aarch64 x86_64; do
  for form in so exe; do
    file=digits-$arch.$form
    check "$arch Android .$form is made" compile --target $arch-linux-android24 -o "$file"
    check "$arch Android .$form needs bionic's libraries only" needs_only_bionic "$file"
    check "$arch Android .$form uses names of API 21 only" only_old_names "$file"
    check "$arch Android .$form has pages of 16 KiB" aligned_to_16k "$file"
  done
  check "$arch Android has both hash tables" sh -c "readelf -dW digits-$arch.so | grep -q '(HASH)' && readelf -dW digits-$arch.so | grep -q '(GNU_HASH)'"
done
# Weights beside the library, and a GPU's host side, take more of the system.
check "aarch64 Android with weights beside it is made" compile --target aarch64-linux-android24 --weights external -o beside.so
check "aarch64 Android with weights beside it uses names of API 21 only" only_old_names beside.so
check "aarch64 Android as Vulkan's host is made" compile --target vulkan1.1 --host aarch64-linux-android24 -o vulkan-host.so
check "aarch64 Android as Vulkan's host needs bionic's libraries only" needs_only_bionic vulkan-host.so
check "aarch64 Android as Vulkan's host uses names of API 21 only" only_old_names vulkan-host.so
refused() { ! compile --target aarch64-linux-android20 -o old.so 2>refused.log && grep -q 'least version.*21' refused.log && [ ! -e old.so ]; }
check "Android before API 21 is refused" refused
other_arch() { ! compile --target aarch64-linux-gnu --cpu x86-64-v3 -o wrong.so 2>refused.log && grep -q 'not a CPU of' refused.log; }
check "a CPU of another architecture is refused" other_arch
same_bytes() { compile --target aarch64-linux-gnu -o one.so && cp one.so first.so && compile --target aarch64-linux-gnu --no-cache -o one.so && cmp first.so one.so; }
check "the same bytes twice" same_bytes
# Another folder, home, locale, time zone, number of CPUs, addresses that are not random, and a C library that takes its functions for
# older CPUs: with a named target nothing of it shows.
OLD_CPU=glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX,-FMA,-FMA4,-SSE4_2,-SSE4_1,-ERMS
elsewhere() { # NAME OPTIONS…
  local name=$1
  shift
  mkdir -p "else where/home" here
  cp "$MODEL" "else where/" || return 1
  "$CMZC" "$MODEL" --no-cache -j 2 "$@" -o "here/$name" || return 1
  (cd "else where" && env -i PATH="$PATH" HOME="$PWD/home" LC_ALL=C.UTF-8 TZ=Asia/Tokyo GLIBC_TUNABLES=$OLD_CPU taskset -c 0 setarch -R \
    "$CMZC" mnist-8.onnx --no-cache "$@" -o "$name") || return 1
  cmp "here/$name" "else where/$name"
}
for target in x86_64-linux-gnu aarch64-linux-android24; do
  for form in so o exe; do check "the same bytes elsewhere: $target .$form" elsewhere "digits-$target.$form" --target $target; done
done
# What another machine's log is compared with: the suite prints these lines.
print_bytes() { # NAME OPTIONS…
  check "the same bytes elsewhere: ${*:2}" elsewhere "$@"
  [ ! -e "here/$1" ] || echo "bytes: $(sha256sum "here/$1" | cut -d' ' -f1) mnist-8 ${*:2} -o $1"
}
print_bytes digits-v3.so --target x86_64-linux-gnu --cpu x86-64-v3
print_bytes digits-levels.o --target aarch64-linux-gnu --cpu armv8-a,armv8.2-a+dotprod,armv8.6-a+i8mm+bf16
print_bytes digits-cuda.so --target sm_90 --host x86_64-linux-gnu
print_bytes digits-vulkan.so --target vulkan1.1 --host aarch64-linux-android24
old_machine() { # the compiler itself on a CPU without AVX-512 and what came after it
  mkdir -p older && qemu-x86_64-static -cpu Haswell "$CMZC" "$MODEL" --no-cache -j 1 --target x86_64-linux-gnu --cpu x86-64-v3 -o older/digits-v3.so &&
    cmp here/digits-v3.so older/digits-v3.so
}
if [ "$(uname -m)" != x86_64 ] || ! command -v qemu-x86_64-static >/dev/null; then skip "the same bytes on a Haswell" "no x86-64 or no qemu-x86_64-static"
else check "the same bytes on a Haswell" old_machine; fi

# ---- the same results under emulation ----
"$CMZC" "$MODEL" --cache-dir "$CACHE" -o reference || exit 1
./reference --input "Input3=$INPUT" --output-dir reference-out || exit 1
same_results() { # TARGET LEVELS EMULATOR… : an executable agrees with this machine's
  local target=$1 levels=$2
  shift 2
  compile --target "$target" --cpu "$levels" -o digits-emulated || return 1
  rm -rf emulated-out
  "$@" ./digits-emulated --input "Input3=$INPUT" --output-dir emulated-out || return 1
  ./compare_npy reference-out/Plus214_Output_0.npy emulated-out/Plus214_Output_0.npy
}
emulated() { # NAME TARGET ROOT LEVELS EMULATOR…
  local name=$1 target=$2 root=$3 levels=$4
  shift 4
  if ! command -v "$1" >/dev/null; then skip "$name" "no $1"; return; fi
  if [ ! -d "$root" ]; then skip "$name" "no C library in $root"; return; fi
  check "mnist-8 on $name" same_results "$target" "$levels" "$@" -L "$root"
}
ARM=/usr/aarch64-linux-gnu
ARM_LEVELS=armv8-a,armv8.2-a+dotprod,armv8.6-a+i8mm+bf16
emulated "armv8-a" aarch64-linux-gnu $ARM armv8-a qemu-aarch64-static -cpu cortex-a53
emulated "cortex-a76" aarch64-linux-gnu $ARM cortex-a76 qemu-aarch64-static -cpu cortex-a76
emulated "three levels, a cortex-a53" aarch64-linux-gnu $ARM $ARM_LEVELS qemu-aarch64-static -cpu cortex-a53
emulated "three levels, a cortex-a76" aarch64-linux-gnu $ARM $ARM_LEVELS qemu-aarch64-static -cpu cortex-a76
emulated "three levels, everything" aarch64-linux-gnu $ARM $ARM_LEVELS qemu-aarch64-static -cpu max
RISCV=/usr/riscv64-linux-gnu
emulated "rv64gc" riscv64-linux-gnu $RISCV rv64gc qemu-riscv64-static
emulated "rv64gcv" riscv64-linux-gnu $RISCV rv64gcv,rv64gc qemu-riscv64-static -cpu rv64,v=true,vext_spec=v1.0
same_halves() { # LEVEL TYPE : numbers of 16 bits give what they give on this machine
  compile --precision "$2" -o digits-half && compile --target aarch64-linux-gnu --cpu "$1" --precision "$2" -o digits-half-arm || return 1
  rm -rf half-out half-arm-out
  ./digits-half --input "Input3=$INPUT" --output-dir half-out && qemu-aarch64-static -cpu max -L $ARM ./digits-half-arm --input "Input3=$INPUT" --output-dir half-arm-out &&
    ./compare_npy half-out/Plus214_Output_0.npy half-arm-out/Plus214_Output_0.npy
}
for halves in "armv8-a f16" "armv8.2-a+fp16 f16" "armv8.6-a+i8mm+bf16 bf16"; do
  if ! command -v qemu-aarch64-static >/dev/null || [ ! -d $ARM ]; then skip "mnist-8 at $halves" "no qemu-aarch64-static or no $ARM"
  else check "mnist-8 at $halves" same_halves $halves; fi
done
if ! command -v qemu-aarch64-static >/dev/null || [ ! -d $ARM ]; then skip "models of 16-bit numbers" "no qemu-aarch64-static or no $ARM"
elif [ ! -x "$BUILD/venv/bin/python" ]; then skip "models of 16-bit numbers" "no virtual environment with PyPI's onnx"
else
  "$BUILD/venv/bin/python" "$ROOT/tests/targets/check_halves.py" "$CMZC" "$CACHE" $ARM >halves.log 2>&1
  cat halves.log
  read -r p f s < <(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped$/\1 \2 \3/p' halves.log)
  PASSED=$((PASSED + ${p:-0})) FAILED=$((FAILED + ${f:-1})) SKIPPED=$((SKIPPED + ${s:-0}))
fi
lacks() {
  compile --target cortex-a76 -o a76 || return 1
  qemu-aarch64-static -cpu cortex-a53 -L $ARM ./a76 --random 1 --output-dir lacks-out 2>lacks.log
  [ $? -eq 1 ] && grep -q 'this CPU lacks' lacks.log
}
if command -v qemu-aarch64-static >/dev/null && [ -d $ARM ]; then check "a CPU that lacks the level is told so" lacks
else skip "a CPU that lacks the level is told so" "no qemu-aarch64-static or no $ARM"; fi

# ---- the ONNX project's node tests: compiled here, judged by one emulated process for each level ----
build_judge() { aarch64-linux-gnu-gcc -std=gnu11 -O1 -DCASE_SECONDS=600 "$ROOT"/tests/onnx/{judge_cases,judge,cases}.c "$ROOT/ir/dtype.c" -o judge_cases -ldl -lm; }
old_names_of() { # NODE TEST
  "$CMZC" "$CASES/node.test_$1/model.onnx" --cache-dir "$CACHE" --target aarch64-linux-android24 -o node.so && only_old_names node.so
}
node_tests() { # LEVEL CPU STEP PATTERN
  local level=$1 cpu=$2 state name detail reason passed=0
  choose "$3" "$4" >names.txt
  rm -rf nodes judged.tsv
  : >judged.tsv
  "$BUILD/tests/run_cases" "$CASES" nodes --keep --names names.txt --jobs "$(nproc)" -- --target aarch64-linux-gnu --cpu "$level" --cache-dir "$CACHE" >compile-nodes.log
  qemu-aarch64-static -cpu "$cpu" -L $ARM ./judge_cases "$CASES" nodes --jobs "$(nproc)" --list judged.tsv >judge-nodes.log
  rm -rf nodes
  while IFS=$'\t' read -r state name detail; do
    if [ "$state" = pass ]; then passed=$((passed + 1)); continue; fi
    reason=$(known_failure "onnx-$level" "$name")
    if [ -n "$reason" ]; then skip "$name at $level" "$reason"
    else FAILED=$((FAILED + 1)); echo "FAILED: $name at $level: $state $detail"; fi
  done < <(awk -F'\t' 'FILENAME == ARGV[1] {state[$2] = $1; detail[$2] = $3; next}
                       {print (($1 in state) ? state[$1] : "not compiled") "\t" $1 "\t" detail[$1]}' judged.tsv names.txt)
  PASSED=$((PASSED + passed))
  echo "ok: $passed of $(wc -l <names.txt) node tests at $level"
}
MATRICES='conv|gemm|matmul|einsum|attention|integer|qlinear|quantize|cast|rnn|lstm|gru'
if ! command -v qemu-aarch64-static >/dev/null || [ ! -d $ARM ]; then skip "node tests on aarch64" "no qemu-aarch64-static or no $ARM"
elif ! command -v aarch64-linux-gnu-gcc >/dev/null; then skip "node tests on aarch64" "no aarch64-linux-gnu-gcc"
elif ! export_cases >export.log 2>&1; then skip "node tests on aarch64" "PyPI's onnx is not there to export its cases"
else
  check "the judge of node tests builds for aarch64" build_judge
  for name in string_concat regex_full_match_basic top_k nonmaxsuppression_suppress_by_IOU sequence_insert_at_back unique_sorted_without_axis; do
    check "$name for Android uses names of API 21 only" old_names_of "$name"
  done
  node_tests armv8-a cortex-a53 12 .
  node_tests armv8.2-a+dotprod cortex-a76 12 "$MATRICES"
  node_tests armv8.6-a+i8mm+bf16 max 12 "$MATRICES"
fi

# ---- a quantised model's sums of bytes are taken by the instruction that the level has ----
QUANTISED=$SHARED/models/micro-kws-qop/micro-kws-qop.onnx
holds() { # TARGET LEVEL INSTRUCTION
  "$CMZC" "$QUANTISED" --target "$1" --cpu "$2" --cache-dir "$CACHE" -o holds.s && [ "$(grep -cw "$3" holds.s)" -ge 50 ]
}
if [ ! -e "$QUANTISED" ]; then skip "instructions for sums of bytes" "no ../shared/models beside the checkout"
else
  check "armv8-a: smull" holds aarch64-linux-gnu armv8-a smull
  check "armv8.2-a+dotprod: sdot" holds aarch64-linux-gnu armv8.2-a+dotprod sdot
  check "armv8.6-a+i8mm+bf16: smmla" holds aarch64-linux-gnu armv8.6-a+i8mm+bf16 smmla
  check "x86-64-v3: vpmaddwd" holds x86_64-linux-gnu x86-64-v3 vpmaddwd
  check "x86-64-v4+avx512vnni: vpdpbusd" holds x86_64-linux-gnu x86-64-v4+avx512vnni vpdpbusd
fi

# ---- real models ----
models() { # LEVEL CPU [--only LIST]
  check_models " at $1 on $2" "--target aarch64-linux-gnu --cpu $1" --exe --runner "qemu-aarch64-static -cpu $2 -L $ARM" "${@:3}"
}
if ! command -v qemu-aarch64-static >/dev/null || [ ! -d $ARM ]; then skip "models on aarch64" "no qemu-aarch64-static or no $ARM"
elif [ ! -d "$SHARED/models" ]; then skip "models on aarch64" "no ../shared/models beside the checkout"
elif [ "${ALL:-0}" = 1 ]; then
  models armv8-a cortex-a53
  models armv8.2-a+dotprod cortex-a76
  models armv8.6-a+i8mm+bf16 max
else # one library of three levels, on a machine for each
  models $ARM_LEVELS max --only micro-kws-fp32,micro-kws-qdq,micro-kws-qop,rl-go1,silero-vad-16k,dnsmos-p808,nnsplit-en
  models $ARM_LEVELS cortex-a53 --only micro-kws-fp32,micro-kws-qdq,rl-go1,silero-vad-16k
  models $ARM_LEVELS cortex-a76 --only micro-kws-fp32,micro-kws-qdq,rl-go1,silero-vad-16k
fi
if ! command -v qemu-riscv64-static >/dev/null || [ ! -d $RISCV ]; then skip "models on riscv64" "no qemu-riscv64-static or no $RISCV"
elif [ ! -d "$SHARED/models" ]; then skip "models on riscv64" "no ../shared/models beside the checkout"
else
  check_models " on rv64gcv" "--target riscv64-linux-gnu --cpu rv64gcv" --exe --runner "qemu-riscv64-static -cpu rv64,v=true,vext_spec=v1.0 -L $RISCV" \
    --only micro-kws-fp32,micro-kws-qdq,rl-go1
fi

finish
