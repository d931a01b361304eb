#!/usr/bin/env bash
# run.sh BUILD_DIR WORK_DIR - models for Vulkan: what create says without a device, every kernel under spirv-val, and the results on the
# machine's Vulkan device (lavapipe computes on the CPU) with the validation layers silent. Prints a line a check and
# `N passed, N failed, N skipped` last. What is not installed is skipped visibly. ALL=1 runs every model of ../shared/models.
set -uo pipefail
. "$(dirname "$0")/../checks.sh"
LAYER=VK_LAYER_KHRONOS_validation

# ---- what is emitted ----
refuses_spv() { # usage: status 2
  compile -o digits.spv 2>refused.log
  [ $? -eq 2 ] && grep -q 'SPIR-V is for Vulkan' refused.log
}
modules() { # IMAGE: its modules as module_N.spv; it begins with a begin and an end for each kernel of each level
  rm -f module_*.spv
  local first i begin end
  read -r first < <(od -An -tu4 -N4 "$1")
  for ((i = 0; i < first / 8; i++)); do
    read -r begin end < <(od -An -tu4 -j $((8 * i)) -N8 "$1")
    dd if="$1" of="module_$begin.spv" iflag=skip_bytes,count_bytes skip="$begin" count=$((end - begin)) status=none
  done
  [ -e "module_$first.spv" ]
}
valid() { # VERSION [IMAGE]
  local file
  modules "${2:-digits-$1.s}" && for file in module_*.spv; do spirv-val --target-env "$1" "$file" || return 1; done
}
for version in vulkan1.1 vulkan1.2 vulkan1.3; do
  check "$version: SPIR-V is written" compile --target $version -o digits-$version.s
  if command -v spirv-val >/dev/null; then check "$version: spirv-val takes every kernel" valid $version
  else skip "$version: spirv-val" "it is not installed (spirv-tools)"; fi
done
one_module() { compile --target vulkan1.1 -o digits.spv && spirv-val --target-env vulkan1.1 digits.spv && [ "$(spirv-dis digits.spv | grep -c OpEntryPoint)" = 5 ]; }
if command -v spirv-val >/dev/null; then check ".spv: one module, an entry a kernel" one_module
else skip ".spv: one module, an entry a kernel" "spirv-tools is not installed"; fi
check ".spv without Vulkan is refused" refuses_spv
reads_packed() { # the last matrix product reads codes, and none of its weights is decoded by a kernel of its own
  compile --target vulkan1.1 $1 --print-after=plan -o packed.so >packed.log 2>&1 &&
    ! grep -E '^kernel [0-9]+ decode .*Plus214' packed.log && sed -n '/^kernel "matmul_add"/,$p' packed.log | grep -E "operand $2 [ui]8 read constant"
}
check "--w4a16: kernels read nibbles" reads_packed --w4a16 1
check "--w8a16: kernels read bytes" reads_packed --w8a16 1
check "2:4 and --w4a16: kernels read the half of the nibbles" reads_packed "--prune 2:4 --w4a16" 2
check "a library" compile --target vulkan1.1 -o digits.so
check "the library needs nothing but libc" needs_only_libc digits.so
same_bytes() { cp digits.so first.so && compile --target vulkan1.1 --no-cache -o digits.so && cmp first.so digits.so; }
check "the same bytes twice" same_bytes

# ---- without a device ----
loader() { ldconfig -p | grep 'libvulkan\.so\.1' >/dev/null; } # (grep -q would end ldconfig by SIGPIPE, which pipefail takes for no loader)
if loader; then
  skip "no loader" "this machine has one"
  check "a loader without a driver" fails_with "there is a Vulkan loader but no driver\|no device" env VK_ICD_FILENAMES=/nowhere VK_DRIVER_FILES=/nowhere "$RUN" digits.so --random 1
else
  check "no loader: create says what is missing" fails_with "no Vulkan loader: libvulkan.so.1" "$RUN" digits.so --random 1
fi

# ---- the ONNX project's node tests ----
CASES=$BUILD/test-work/onnx-cases
export_cases() { [ -e "$CASES/.done" ] || { "$BUILD/venv/bin/python" "$ROOT/tests/onnx/export_cases.py" "$CASES" && touch "$CASES/.done"; }; }
# What was wrong once on some device, and every STEPth of the cases that pass on this machine; all of them with ALL=1.
ONCE_WRONG='node\.test_(pow_bcast_array|gelu_tanh_2_expanded|mod_float_edge_cases_fmod_0_float32|mod_mixed_sign_float64|gridsample_nearest|reduce_(max|min|prod)_empty_set)'
node_tests() { # STEP
  local state name detail passed=0
  { grep -xE "$ONCE_WRONG" "$ROOT/tests/onnx/passing.txt"; grep '^node' "$ROOT/tests/onnx/passing.txt" | awk -v step="$1" '(NR - 1) % step == 0'; } | sort -u >names.txt
  rm -f nodes.tsv
  "$BUILD/tests/run_cases" "$CASES" nodes --names names.txt --list nodes.tsv --jobs "$(nproc)" -- --target vulkan1.1 --cache-dir "$CACHE" >nodes.log
  [ -s nodes.tsv ] || { FAILED=$((FAILED + 1)); echo "FAILED: node tests did not run"; return; }
  while IFS=$'\t' read -r state name detail; do
    case $state:$detail in
      pass:*) passed=$((passed + 1)) ;;
      refused:*"not compiled for GPUs yet"*) skip "$name" "what only exists at run time is not compiled for GPUs yet" ;;
      *) FAILED=$((FAILED + 1)); echo "FAILED: $name: $state $detail" ;;
    esac
  done <nodes.tsv
  PASSED=$((PASSED + passed))
  echo "ok: $passed of $(wc -l <names.txt) node tests"
}

# ---- results ----
models() { LEVEL=vulkan check_models "" "--target vulkan1.1" "$@"; } # known failures: rows models-vulkan
if loader && "$RUN" digits.so --random 1 >device.log 2>&1; then
  build_comparer || exit 1
  same_results() {
    rm -rf out && "$@" "$RUN" "${LIBRARY:-digits.so}" ${VARIANT:+--cpu "$VARIANT"} --input "Input3=$INPUT" --output-dir out && ./compare_npy out/Plus214_Output_0.npy "$ROOT/examples/digits/expected.npy"
  }
  check "mnist-8's results" same_results env
  # The variants of a level (targets/vulkan.c): each by its name, and which of them a device gets.
  VARIANTS=("" +small +dot +tiles +tiles+small +tiles+dot)
  variants() { # LIBRARY OUTPUT: every variant computes the same
    local variant
    for variant in "${VARIANTS[@]}"; do
      rm -rf "out$variant"
      "$RUN" "$1" --cpu "vulkan1.1$variant" --input "Input3=$INPUT" --output-dir "out$variant" && ./compare_npy "out$variant/$2" "out/$2" || return 1
    done
  }
  compressed() { # OPTIONS…
    rm -rf out
    compile --target vulkan1.1 "$@" -o variants.so && "$RUN" variants.so --input "Input3=$INPUT" --output-dir out && variants variants.so Plus214_Output_0.npy
  }
  check "every variant computes the same" compressed
  for options in --w8a16 --w4a16 "--precision f16" "--precision bf16" "--prune 2:4 --w4a16"; do
    # shellcheck disable=SC2086
    check "every variant computes the same: $options" compressed $options
  done
  # A loader of our own stands before the real one: devices that are hard to come by, and faults (shim.c).
  mkdir -p shim
  SHIM_REAL=$(ldconfig -p | sed -n 's/.*libvulkan\.so\.1 .*=> //p' | head -n 1)
  export SHIM_REAL
  check "the shim builds" gcc -std=gnu11 -O1 -fPIC -shared "$ROOT/tests/vulkan/shim.c" -o shim/libvulkan.so.1
  shimmed() { env LD_LIBRARY_PATH="$WORK/shim" "$@"; }
  refused() { fails_with "$1" shimmed "$2" "$RUN" digits.so --input "Input3=$INPUT" --bench 3; } # TEXT SETTING
  check "memory near the device that the host cannot reach" same_results shimmed SHIM_SPLIT=1
  check "no memory: said, and the process lives" refused "bytes for the arena" SHIM_MEMORY=40000
  check "a tensor beyond what a binding reaches" refused "this Vulkan device reaches at most 16384" SHIM_RANGE=16384
  check "a device without 64-bit numbers" same_results shimmed SHIM_WITHOUT=int64,float64
  # Which variant a device gets: the entries of the pipelines that it makes are named after the first level that they serve.
  compile --target vulkan1.1 -o floats.so && compile --target vulkan1.1 --w8a16 -o bytes.so
  gets() { # LIBRARY PATTERN SETTING…: PATTERN or !PATTERN
    local library=$1 pattern=$2
    shift 2
    rm -f entries.log
    LIBRARY=$library same_results shimmed SHIM_LOG=entries.log "$@" || [ "$library" = bytes.so ] || return 1
    grep ^cmz_ entries.log || return 1
    case $pattern in
      !*) ! grep -qE "^cmz_.*${pattern#!}\$" entries.log ;;
      *) grep -qE "^cmz_.*$pattern\$" entries.log ;;
    esac
  }
  check "a processor gets no tiles of work-groups" gets floats.so 'vulkan1_1_dot' SHIM_TYPE=4
  check "a graphics card gets them" gets floats.so '!vulkan1_1_dot' SHIM_TYPE=2
  check "a device with 8-bit storage reads bytes" gets bytes.so '!vulkan1_1' SHIM_TYPE=4
  check "a device without it reads words" gets bytes.so 'vulkan1_1' SHIM_TYPE=4 SHIM_WITHOUT=storage8
  lacks_storage() {
    fails_with "no 8-bit storage" shimmed SHIM_WITHOUT=storage8 "$RUN" bytes.so --cpu vulkan1.1+small --input "Input3=$INPUT"
  }
  check "what the device lacks is named" lacks_storage
  large() { # SETTING…: a tensor that takes more than one binding; everything when the device reaches it through one
    rm -rf out
    env "$@" "$RUN" large.so --input x=large_x.npy --input i=large_i.npy --output-dir out &&
      ./compare_npy out/rows.npy large_rows.npy && ./compare_npy out/product.npy large_product.npy
  }
  check "the check of the C interface builds" gcc -std=gnu11 -O1 -Wall "$ROOT/tests/vulkan/check_api.c" -o check_api
  check "what instances have in common, a caller's device, queue and buffers" ./check_api ./digits.so
  in_common() { # 5 kernels, three instances; once these have closed the shim, the caller's device is made by the real loader
    rm -f common.log
    shimmed SHIM_LOG=common.log ./check_api ./digits.so && [ "$(grep -c ^cmz_ common.log)" = 5 ]
  }
  check "instances on one device share their pipelines" in_common
  quantised() { # VARIANT: sums of products of bytes are exact
    rm -rf out
    "$RUN" quantised.so --cpu "vulkan1.1$1" --input x=quantised_x.npy --input a=quantised_a.npy --output-dir out &&
      ./compare_npy out/conv.npy quantised_conv.npy && ./compare_npy out/product.npy quantised_product.npy
  }
  dots() { # how many kernels, of two schedules each, have integer dot products
    modules quantised.s && [ "$(for file in module_*.spv; do spirv-dis "$file" | grep -E 'Op(S|U|SU)Dot' >/dev/null && echo "$file"; done | wc -l)" -ge 3 ]
  }
  takes_dots() { # COUNT SETTING: of the pipelines' entries so many are of the variant with dots
    rm -f entries.log
    shimmed SHIM_LOG=entries.log SHIM_TYPE=4 "$2" "$RUN" quantised.so --input x=quantised_x.npy --input a=quantised_a.npy && cat entries.log &&
      [ "$(grep -c '^cmz_integer.*vulkan1_1_dot$' entries.log)" = "$1" ]
  }
  if "$BUILD/venv/bin/python" "$ROOT/tests/vulkan/make_models.py" . 2>large.log; then
    check "sums of products of bytes" "$CMZC" quantised.onnx --cache-dir "$CACHE" --target vulkan1.1 -o quantised.so
    for variant in "${VARIANTS[@]}"; do check "they are exact: vulkan1.1$variant" quantised "$variant"; done
    check "the device's integer dot products are used" takes_dots 2 SHIM_WITHOUT=
    check "and not where it has none" takes_dots 0 SHIM_WITHOUT=dot
    if command -v spirv-val >/dev/null; then
      "$CMZC" quantised.onnx --cache-dir "$CACHE" --target vulkan1.1 -o quantised.s
      check "spirv-val takes them" valid vulkan1.1 quantised.s
      check "they are there" dots
    fi
    check "a model with a tensor of 140 MB" "$CMZC" large.onnx --cache-dir "$CACHE" --target vulkan1.1 -o large.so
    check "a Gather from it and a MatMul by it, through windows" large
    check "the same in tiles of work-groups" large LD_LIBRARY_PATH="$WORK/shim" SHIM_TYPE=2
    check "the same where one binding reaches all" large LD_LIBRARY_PATH="$WORK/shim" SHIM_RANGE=4294967295
    rm -f large.onnx
  else skip "tensors beyond what a binding reaches" "PyPI's onnx is not there to make the model"; fi
  check "a lost device: said, and the process lives" refused "the device was lost" SHIM_LOSE=3
  recorded_once() {
    rm -f calls.log
    shimmed SHIM_LOG=calls.log "$RUN" digits.so --input "Input3=$INPUT" --bench 5 && cat calls.log &&
      [ "$(grep -c "^record" calls.log)" = 1 ] && [ "$(grep -c submit calls.log)" -ge 6 ] && [ "$(grep -c barrier calls.log)" = 4 ]
  }
  check "recorded once, submitted in every run, a barrier where a kernel reads another's results" recorded_once
  validated() { # COMMAND…: what the validation layers say, synchronisation included
    (export VK_INSTANCE_LAYERS=$LAYER VK_LAYER_ENABLES=VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT && "$@") >layers.log 2>&1
    grep -iE 'validation|VUID|hazard' layers.log
  }
  silent() {
    ! validated same_results env && ! validated same_results shimmed SHIM_SPLIT=1 || return 1
    [ ! -e large.so ] || ! validated large || return 1
    ! validated ./check_api ./digits.so || return 1
    [ ! -e quantised.so ] || ! validated quantised +dot || return 1
    for VARIANT in "${VARIANTS[@]}"; do
      ! VARIANT=vulkan1.1$VARIANT LIBRARY=bytes.so validated same_results env || return 1
    done
  }
  finds_barrier() { validated shimmed SHIM_DROP="$1" "$RUN" digits.so --input "Input3=$INPUT" | grep 'SYNC-HAZARD'; }
  if grep -rlq $LAYER /usr/share/vulkan /usr/local/share/vulkan /etc/vulkan 2>/dev/null; then
    check "the validation layers are silent, synchronisation included" silent
    for barrier in 1 2 3 4; do check "barrier $barrier left out: found" finds_barrier $barrier; done
  else skip "validation layers" "they are not installed (vulkan-validationlayers)"; fi
  if export_cases >export.log 2>&1; then node_tests "$([ "${ALL:-0}" = 1 ] && echo 1 || echo 20)"
  else skip "node tests" "PyPI's onnx is not there to export its cases"; fi
  if [ ! -d "$SHARED/models" ]; then skip "real models" "no ../shared/models beside the checkout"
  elif [ "${ALL:-0}" = 1 ]; then models
  else models --only micro-kws-fp32,micro-kws-qdq,micro-kws-qop,rl-go1,silero-vad-16k,dnsmos-p808; fi
else
  skip "results on a device" "no Vulkan device (mesa-vulkan-drivers has one that computes on the CPU)"
fi

finish
