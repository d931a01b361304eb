#!/usr/bin/env bash
# run.sh BUILD_DIR WORK_DIR - models for NVIDIA's GPUs: what is emitted, what create says without a device, and the results under the
# emulated driver (libcuda.c). Prints a line a check and `N passed, N failed, N skipped` last. Needs gcc and PyPI's numpy and onnx;
# ptxas where there is one; ../shared/models for more than the example's model. ALL=1 runs every model and node test.
set -uo pipefail
. "$(dirname "$0")/../checks.sh"
EMULATOR=$BUILD/tests/cuda
emulated() { LD_LIBRARY_PATH=$EMULATOR "$@"; }

# ---- what is emitted ----
PTXAS=$(command -v ptxas || true)
for sm in sm_80 sm_86 sm_89 sm_90 sm_90a; do
  check "$sm: PTX is written" compile --target $sm -o digits-$sm.ptx
  if [ -n "$PTXAS" ]; then check "$sm: ptxas takes it, without spills" sh -c "'$PTXAS' -v -arch=$sm -o /dev/null digits-$sm.ptx 2>ptxas.log && ! grep -E '[1-9][0-9]* bytes spill' ptxas.log"
  else skip "$sm: ptxas" "there is no ptxas"; fi
done
check "PTX is only for GPUs" sh -c "! '$CMZC' '$MODEL' -o x.ptx 2>log && grep -q 'NVIDIA' log"
check "a library" compile --target sm_90 -o digits.so
check "the library needs nothing but libc" needs_only_libc digits.so
same_bytes() { cp digits.so first.so && compile --target sm_90 --no-cache -o digits.so && cmp first.so digits.so; }
check "the same bytes twice" same_bytes

# ---- what runs where ----
for target in sm_90 vulkan1.1; do
  [ -d "$SHARED/models" ] || skip "$target: what real models do on the host" "no ../shared/models beside the checkout"
  check "$target: only the closed table's operators on the host, copies as planned" env PATH="$BUILD/venv/bin:$PATH" python "$ROOT/tests/cuda/check_placement.py" "$BUILD" "$SHARED/models" $target
done

# ---- without a device ----
if [ -e /usr/lib/x86_64-linux-gnu/libcuda.so.1 ]; then skip "no driver" "this machine has one"
else check "no driver: create says what is missing" fails_with "no CUDA driver: libcuda.so.1" "$RUN" digits.so --random 1; fi
check "a driver without a device" fails_with "no device" env CMZ_EMULATOR_NONE=1 LD_LIBRARY_PATH="$EMULATOR" "$RUN" digits.so --random 1
check "a device that is too old" fails_with "compute capability 7.5" env CMZ_EMULATOR_CAPABILITY=75 LD_LIBRARY_PATH="$EMULATOR" "$RUN" digits.so --random 1
check "a device without enough memory" fails_with "the device has no" env CMZ_EMULATOR_MEMORY=10000 LD_LIBRARY_PATH="$EMULATOR" "$RUN" digits.so --random 1
check "an older device takes the older code" env CMZ_EMULATOR_CAPABILITY=86 LD_LIBRARY_PATH="$EMULATOR" "$RUN" digits.so --random 1 --output-dir older

# ---- results ----
build_comparer || exit 1
same_results() {
  rm -rf out && emulated "$RUN" digits.so --input "Input3=$INPUT" --output-dir out && ./compare_npy out/Plus214_Output_0.npy "$ROOT/examples/digits/expected.npy"
}
check "mnist-8's results" same_results
compressed() { # OPTIONS…: the same as the same compression on the CPU
  compile "$@" -o cpu.so && compile "$@" --target sm_80 -o gpu.so && rm -rf out-cpu out-gpu &&
    "$RUN" cpu.so --input "Input3=$INPUT" --output-dir out-cpu && emulated "$RUN" gpu.so --input "Input3=$INPUT" --output-dir out-gpu &&
    ./compare_npy out-cpu/Plus214_Output_0.npy out-gpu/Plus214_Output_0.npy
}
check "--w4a16" compressed --w4a16
check "--w8a16" compressed --w8a16
check "--prune 2:4" compressed --prune 2:4
check "--w4a16 --prune 2:4" compressed --w4a16 --prune 2:4
broken() { # seeded fault: a load that leaves its buffer is found
  sed 's/ld\.global\(\.nc\)*\.b32 \(.*\), \[\(%rd[0-9]*\)\]/ld.global.b32 \2, [\3+1048576]/' digits-sm_80.ptx >broken.ptx
  ! cmp -s broken.ptx digits-sm_80.ptx && gcc -O1 -o load_ptx "$ROOT/tests/cuda/load_ptx.c" -ldl && ! emulated ./load_ptx broken.ptx 2>broken.log && grep -q 'out of bounds' broken.log && emulated ./load_ptx digits-sm_80.ptx
}
check "a load outside of its buffer is found" broken

# ---- the C interface: device tensors, streams, graphs, faults ----
gcc -O1 -Wall -iquote "$ROOT/runtime" -o check_api "$ROOT/tests/cuda/check_api.c" -ldl || exit 1
check "device tensors, a caller's streams and contexts, capture" emulated ./check_api ./digits.so
calls() { # WHAT COUNT: how often the emulated driver was called
  grep -qx "$1 $2" calls.txt
}
graph_used() { # after the first run a graph does it all; nothing is left in the device's memory
  CMZ_EMULATOR_CALLS=calls.txt emulated "$RUN" digits.so --input "Input3=$INPUT" --bench 4 --warmup 0 2>leaks.log || return 1
  cat calls.txt leaks.log
  calls instantiate 1 && calls graph-launch 4 && [ ! -s leaks.log ]
}
check "a graph does the second run and all later ones" graph_used
create_fails() { # KIND:N TEXT: create says what went wrong
  check "create with a fault ($1)" fails_with "$2" env CMZ_EMULATOR_FAIL="$1" LD_LIBRARY_PATH="$EMULATOR" "$RUN" digits.so --random 1
}
create_fails context:1 'opening the device: CUDA_ERROR_DEVICE_UNAVAILABLE'
create_fails module:1 'loading the kernels: CUDA_ERROR_UNSUPPORTED_PTX_VERSION'
create_fails function:2 'finding a kernel: CUDA_ERROR_NOT_FOUND'
create_fails stream:1 'making a stream: CUDA_ERROR_OUT_OF_MEMORY'
create_fails alloc:1 'the device has no [0-9]* bytes for the weights'
create_fails write:2 'the device was lost while writing to the device: CUDA_ERROR_ECC_UNCORRECTABLE'
run_fails() { # KIND:N CODE TEXT after|lost: so ends a run; the instance, or a new one, goes on
  local fault=$1
  shift
  check "a run with a fault ($fault)" env CMZ_EMULATOR_FAIL="$fault" LD_LIBRARY_PATH="$EMULATOR" ./check_api ./digits.so "$@"
}
run_fails alloc:2 2 'the device has no [0-9]* bytes' after
run_fails alloc:3 2 'the device has no' after
run_fails alloc:4 2 'the device has no' after
run_fails start:3 4 'CUDA: running the model: CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES' after
run_fails graph-launch:2 2 'CUDA: running the model: CUDA_ERROR_OUT_OF_MEMORY' after
run_fails launch:4 3 'lost while .*CUDA_ERROR_LAUNCH_FAILED' lost
run_fails launch:8 3 'lost while' lost
run_fails write:8 3 'lost while writing' lost
run_fails read:2 3 'lost while reading' lost
run_fails sync:4 3 'CUDA_ERROR_LAUNCH_TIMEOUT' lost
for fault in graph:1 instantiate:1; do
  check "no graph ($fault): launches one by one" env CMZ_EMULATOR_FAIL=$fault LD_LIBRARY_PATH="$EMULATOR" ./check_api ./digits.so none
done

# ---- shared memory, cp.async, ldmatrix, mma.sync: a correct kernel passes, each seeded fault is found ----
TILE=$ROOT/tests/cuda/tile.ptx
for sm in sm_80 sm_86 sm_89 sm_90; do
  if [ -n "$PTXAS" ]; then check "tile.ptx: ptxas takes it for $sm" "$PTXAS" -arch=$sm -o /dev/null "$TILE"
  else skip "tile.ptx: ptxas for $sm" "there is no ptxas"; fi
done
gcc -O1 -o check_tile "$ROOT/tests/cuda/check_tile.c" -ldl || exit 1
check "tile.ptx: its product" emulated ./check_tile "$TILE"
fault() { # STATUS TEXT SED: the kernel changed by SED ends with STATUS and says TEXT
  sed "$3" "$TILE" >fault.ptx
  ! cmp -s fault.ptx "$TILE" || return 1
  emulated ./check_tile fault.ptx 2>fault.log
  local status=$?
  cat fault.log
  [ $status -eq "$1" ] && { [ -z "$2" ] || grep -q -- "$2" fault.log; }
}
check "a barrier before the first read removed" fault 4 'ldmatrix.*race: read' '0,/bar.sync 0;/s/bar.sync 0;//'
check "a barrier before memory is used again removed" fault 4 'st.shared.*race: write' '/Done:/,$s/bar.sync 0;//'
check "a barrier that half of the threads come to" fault 4 'race: read' 's/^  bar.sync 0;$/  @%p1 bar.sync 0;/'
check "a barrier that not enough threads come to" fault 4 'deadlock' '/Done:/,$s/bar.sync 0;/bar.sync 1, 96;/'
check "a wait for cp.async removed" fault 4 'ldmatrix.*no wait' 's/cp.async.wait_group 0;//'
check "a wait for too few groups" fault 4 'no wait' 's/cp.async.wait_group 0;/cp.async.wait_group 1;/'
check "a cp.async removed: nobody has written" fault 4 'which nobody has written' 's/cp.async.cg.shared.global \[%r8\].*//'
check "a swizzle that does not match: another result" fault 1 '' 's/add.s32 %r11, %r11, %r2/xor.b32 %r11, %r11, 16; add.s32 %r11, %r11, %r2/'
check "a row of ldmatrix that is not aligned" fault 4 'misaligned row' 's/shl.b32 %r10, %r10, 4/shl.b32 %r10, %r10, 3/'
check "a cp.async that is not aligned" fault 4 'misaligned cp.async' 's/\[%rd5\], 16/[%rd5+8], 16/'
check "shared memory left" fault 4 'out of bounds: read' 's/shl.b32 %r9, %r9, 5/shl.b32 %r9, %r9, 7/'
check "a shuffle from a lane that its mask leaves out" fault 4 'lane 16, which is not there' 's/16, 31, -1/16, 31, %r34/; s/mov.b32 %r30, %r22;/mov.b32 %r30, %r22; shl.b32 %r34, 1, %r1; or.b32 %r34, %r34, 3;/'
check "an instruction that is not known" fault 3 'cannot translate: line 40' 's/bar.sync 0;/bar.bogus 0;/'

# ---- warpgroups' matrix instructions (sm_90a): each seeded fault is found ----
warpgroup_fault() { # TEXT FROM TO: the product's kernel with FROM as TO does not pass, and the reason has TEXT
  CMZ_KERNEL_CASE=wgmma_matmul "$BUILD/tests/test_codegen_device" >fault.log 2>&1 || return 1
  CMZ_KERNEL_CASE=wgmma_matmul CMZ_KERNEL_FAULT="$2=>$3" "$BUILD/tests/test_codegen_device" >fault.log 2>&1 && return 1
  cat fault.log
  grep -q -- "$1" fault.log
}
check "wgmma: a barrier removed" warpgroup_fault 'race: ' 'bar.sync' '//'
check "wgmma: a wait for cp.async removed" warpgroup_fault 'no wait' 'cp.async.wait_group' '//'
check "wgmma: its own wait removed" warpgroup_fault 'wgmma' 'wgmma.wait_group' '//'
check "wgmma: the fence of its registers removed" warpgroup_fault 'without a wgmma.fence' 'wgmma.fence' '//'
check "wgmma: the fence between the proxies removed" warpgroup_fault 'without a fence.proxy.async' 'fence.proxy.async' '//'
check "wgmma: another swizzle of what is written" warpgroup_fault 'race: ' ', 112;' ', 48;'
check "wgmma: another distance between eight lines" warpgroup_fault 'evaluation has\|nobody has written' 4611686293305360384 4611686155866406912
check "wgmma: a descriptor without a swizzle" warpgroup_fault 'not of the 128-byte swizzle' 4611686293305360384 274877972480

# ---- kernels of real models: ptxas takes them; those that share memory spill nothing ----
if [ -z "$PTXAS" ]; then skip "kernels of real models: ptxas" "there is no ptxas"
elif [ ! -d "$SHARED/models" ]; then skip "kernels of real models: ptxas" "no ../shared/models beside the checkout"
else
  ptxas_models() { env PATH="$BUILD/venv/bin:$PATH" python "$ROOT/tests/cuda/check_ptxas.py" "$BUILD" "$CACHE" "$SHARED/models" --table ptxas.tsv "$@"; }
  if [ "${ALL:-0}" = 1 ]; then check "kernels of all models: ptxas for every target" ptxas_models
  else check "kernels of real models: ptxas" ptxas_models --only micro-kws-fp32,micro-kws-qdq,rl-go1,silero-vad-16k --sm sm_80,sm_90 --seconds 60; fi
fi

# ---- node tests under the emulated driver: every 32nd of the cases that pass on this machine, all of them with ALL=1 ----
node_tests() {
  local state name detail
  choose 32 '^(node|simple|pytorch)' >names.txt
  emulated "$BUILD/tests/run_cases" "$CASES" nodes --names names.txt --jobs "$(nproc)" --list judged.tsv -- --target sm_90 --cache-dir "$CACHE" >nodes.log
  [ "$(wc -l <judged.tsv)" -eq "$(wc -l <names.txt)" ] || { FAILED=$((FAILED + 1)); echo "FAILED: node tests: not all were run"; }
  while IFS=$'\t' read -r state name detail; do
    case "$state $detail" in
      pass*) PASSED=$((PASSED + 1)) ;;
      refused*"not compiled for GPUs yet"*) skip "$name" "strings, sequences and optionals are not compiled for GPUs" ;;
      *) FAILED=$((FAILED + 1)); echo "FAILED: $name: $state $detail" ;;
    esac
  done <judged.tsv
}
if export_cases >export.log 2>&1; then node_tests
else skip "node tests" "PyPI's onnx is not there to export its cases"; fi

# Three runs of the first ones: one launches its kernels one by one, the others are a graph, whose nodes the emulator runs in the order
# that its edges allow which is farthest from the launches'. The larger ones take long here: one run.
models() { LD_LIBRARY_PATH=$EMULATOR check_models "" "--target sm_80" "$@"; }
if [ ! -d "$SHARED/models" ]; then skip "real models" "no ../shared/models beside the checkout"
elif [ "${ALL:-0}" = 1 ]; then models
else
  models --runner "sh -c '\"\$@\" --bench 2 --warmup 0' sh" --only micro-kws-qdq,rl-go1
  models --only micro-kws-fp32,micro-kws-qop,silero-vad-16k,dnsmos-p808
fi

finish
