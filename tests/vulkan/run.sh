#!/usr/bin/env bash
# run.sh BUILD_DIR WORK_DIR - models for Vulkan: what create says without a device, every kernel under spirv-val, and the results on the
# machine's Vulkan device (lavapipe computes on the CPU) with the validation layers silent. Prints a line a check and
# `N passed, N failed, N skipped` last. What is not installed is skipped visibly. ALL=1 runs every model of ../shared/models.
set -uo pipefail
. "$(dirname "$0")/../checks.sh"
LAYER=VK_LAYER_KHRONOS_validation

# ---- what is emitted ----
modules() { # IMAGE: its modules as module_N.spv; an image begins with a begin and an end a kernel
  rm -f module_*.spv
  local first i begin end
  first=$(od -An -tu4 -N4 "$1")
  for ((i = 0; i < first / 8; i++)); do
    read -r begin end < <(od -An -tu4 -j $((8 * i)) -N8 "$1")
    dd if="$1" of="module_$i.spv" iflag=skip_bytes,count_bytes skip="$begin" count=$((end - begin)) status=none
  done
  [ -e module_0.spv ]
}
valid() { # VERSION
  local file
  modules "digits-$1.s" && for file in module_*.spv; do spirv-val --target-env "$1" "$file" || return 1; done
}
for version in vulkan1.1 vulkan1.2 vulkan1.3; do
  check "$version: SPIR-V is written" compile --target $version -o digits-$version.s
  if command -v spirv-val >/dev/null; then check "$version: spirv-val takes every kernel" valid $version
  else skip "$version: spirv-val" "it is not installed (spirv-tools)"; fi
done
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

# ---- results ----
models() { check_models "" "--target vulkan1.1" "$@"; }
if loader && "$RUN" digits.so --random 1 >device.log 2>&1; then
  build_comparer || exit 1
  same_results() {
    rm -rf out && "$@" "$RUN" digits.so --input "Input3=$INPUT" --output-dir out && ./compare_npy out/Plus214_Output_0.npy "$ROOT/examples/digits/expected.npy"
  }
  check "mnist-8's results" same_results env
  silent() { same_results env VK_INSTANCE_LAYERS=$LAYER >layers.log 2>&1 && cat layers.log && ! grep -qiE 'validation|VUID' layers.log; }
  if grep -rlq $LAYER /usr/share/vulkan /usr/local/share/vulkan /etc/vulkan 2>/dev/null; then check "the validation layers are silent" silent
  else skip "validation layers" "they are not installed (vulkan-validationlayers)"; fi
  if [ ! -d "$SHARED/models" ]; then skip "real models" "no ../shared/models beside the checkout"
  elif [ "${ALL:-0}" = 1 ]; then models
  else models --only micro-kws-fp32,micro-kws-qdq,micro-kws-qop,rl-go1,silero-vad-16k,dnsmos-p808; fi
else
  skip "results on a device" "no Vulkan device (mesa-vulkan-drivers has one that computes on the CPU)"
fi

finish
