#!/usr/bin/env bash
# run.sh BUILD_DIR WORK_DIR - docs/adding.md's examples, applied: a CPU that does not exist and an operator that ONNX does not have are one
# file and one row each. The patched files are compiled as the build does, and a cmzc with them is linked and used.
# Prints a line a check and `N passed, N failed, N skipped` last.
set -uo pipefail
. "$(dirname "$0")/../checks.sh"
HERE=$ROOT/tests/adding
if ! command -v ninja >/dev/null || [ ! -e "$BUILD/build.ninja" ]; then skip "docs/adding.md's examples" "the build folder is not ninja's"; finish; exit; fi

one_file() { [ "$(grep -c '^+++ ' "$1")" = 1 ] && ! grep -q '^-[^-]' "$1"; }
in_the_docs() { # every line of the patch stands in docs/adding.md, indented
  while IFS= read -r line; do grep -qxF -- "    $line" "$ROOT/docs/adding.md" || { echo "not in docs/adding.md: $line"; return 1; }; done < <(sed 's/[[:space:]]*$//' "$1" | grep .)
}
apply() { rm -rf tree && mkdir tree && cp -r "$ROOT"/{ir,targets,runtime} tree/ && cat "$HERE"/*.patch | patch -s -p1 -d tree; }
# The build's own command for SOURCE, with the patched file and another object.
recompile() { # SOURCE
  local command
  command=$(ninja -C "$BUILD" -t commands bin/cmzc | grep -E -- "-c $ROOT/$1\$") || return 1
  command=$(sed -E "s#-MD -MT [^ ]+ -MF [^ ]+##; s#-o [^ ]+ -c [^ ]+\$##" <<<"$command")
  (cd "$BUILD" && eval "$command -o '$WORK/$(basename "$1").o' -c '$WORK/tree/$1'")
}
# Objects that stand before the libraries are taken instead of theirs.
relink() {
  local command
  command=$(ninja -C "$BUILD" -t commands bin/cmzc | tail -n 1)
  (cd "$BUILD" && eval "${command/-o bin\/cmzc/$WORK/aarch64.c.o $WORK/pointwise.c.o -o $WORK/cmzc}")
}
for patch in cpu operator; do
  check "$patch: one file, lines only added" one_file "$HERE/$patch.patch"
  check "$patch: docs/adding.md shows it" in_the_docs "$HERE/$patch.patch"
done
check "both apply" apply
check "the CPU's file compiles" recompile targets/aarch64.c
check "the operator's file compiles" recompile ir/ops/pointwise.c
check "cmzc links" relink
[ -x cmzc ] || { finish; exit 1; }
CMZC=$WORK/cmzc
lists() {
  "$CMZC" --list-targets >targets.txt && "$CMZC" --list-ops >ops.txt && grep -qE '^ +made-up-p1 +aarch64$' targets.txt && grep -q Squareplus ops.txt
}
check "both are listed" lists
check "a model is compiled for the CPU" compile --target aarch64-linux-gnu --cpu made-up-p1+fp16,armv8-a -o made-up.so
check "the operator is compiled for it" "$CMZC" "$HERE/squareplus.cmz" --no-cache --target aarch64-linux-gnu --cpu made-up-p1 -o squareplus-arm.so
check "and for GPUs" "$CMZC" "$HERE/squareplus.cmz" --no-cache --target sm_80 -o squareplus.ptx
values() { # what it computes is what the formula says, NaN's and infinities' absence included
  "$CMZC" "$HERE/squareplus.cmz" --no-cache -o squareplus.so && "$RUN" squareplus.so --random 1 --output-dir out --json >run.json &&
    "$CMZC" "$HERE/mul.cmz" --no-cache -o mul.so && "$RUN" mul.so --random 1 --output-dir out >/dev/null &&
    python3 - <<'PYTHON'
import math, struct
def floats(path):
    data = open(path, "rb").read()
    start = 10 + int.from_bytes(data[8:10], "little")
    return struct.unpack(f"<{(len(data) - start) // 4}f", data[start:])
z, y = floats("out/z.npy"), floats("out/y.npy")
assert len(z) == len(y) == 80 and len(set(y)) > 70
assert all(abs(b - (a + math.sqrt(a * a + 4)) / 2) <= 1e-6 * b for a, b in zip(z, y))
PYTHON
}
check "its values are right" values
finish
