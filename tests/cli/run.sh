#!/usr/bin/env bash
# run.sh BUILD_DIR WORK_DIR - cmzc from outside: exit statuses, messages that name the place, nothing left behind.
# Prints a line for each failure and `N passed, N failed` last.
set -uo pipefail
. "$(dirname "$0")/common.sh"

head -c 9000 "$MNIST" >"$WORK/truncated.onnx"
head -c 26000 "$MNIST" >"$WORK/truncated2.onnx"

# ---- usage ----
run 2 "no input"
run 2 "give -o OUTPUT" "$WORK/good.onnx"
run 2 "unknown option" --frobnicate
run 2 "did you mean --shape?" --shap x=1 "$WORK/good.onnx"
run 2 "--w8a8 is not supported yet" --w8a8 "$WORK/good.onnx" -o "$WORK/a.so"
run 2 "a second input" "$WORK/good.onnx" "$WORK/good.onnx" -o "$WORK/a.so"
run 2 "is not a C identifier" "$WORK/good.onnx" -o "$WORK/a.so" --prefix 3d
run 2 "leaves only a module" "$WORK/good.onnx" -o "$WORK/a.so" --stop-after=infer
run 2 "there is no pass" "$WORK/good.onnx" -o "$WORK/a.cmz" --stop-after=nothing
run 2 "is for another system: --target x86_64-windows" "$WORK/good.onnx" -o "$WORK/a.dll"
run 2 "this kind of output is not made for it" "$WORK/good.onnx" --target x86_64-windows -o "$WORK/a.o"
run 2 "" "$WORK/good.onnx" -o "$WORK/a.so" --cpu z80
run 2 "" "$WORK/good.onnx" -o "$WORK/a.so" --target pdp11
run 0 "usage: cmzc" --help
run 0 "--calib-samples" --help=all
run 0 ".TH CMZC" --help=man
run 0 "complete" --help=bash
run 0 "cmzc " --version
run 0 "x86-64-v3" --list-targets
run 0 "Conv" --list-ops
run 0 "infer" --list-passes
check "--help fits a screen" '[ "$("$CMZC" --help | wc -l)" -le 25 ]'

# ---- bad models ----
refuse truncated "not readable as ONNX"
refuse truncated2 "not readable as ONNX"
refuse text "not readable as ONNX"
refuse empty "the file is empty"
refuse nothing "cannot open"
refuse cycle "cycle"
refuse cycle_output 'node "the node" (If): error: the graph has a cycle through this node'
refuse cycle_inside 'node "the node" (If): error: the graph has a cycle through this node'
refuse duplicate "is taken already"
refuse missing_input 'node "the node" (Relu): error: input "z" is made by no node'
refuse missing_output 'output "y"'
refuse arity "has 2 inputs"
ln -s /etc/hostname "$WORK/link.bin"
refuse link "leads outside the model's folder"
refuse negative 'offset is "-8", not a number'
refuse wraps 'runs past the end'
refuse domain 'operator Relu of domain org.example is not known'
refuse element 'element type 77'
refuse dim 'negative'
refuse unknown "operator Frobnicate of domain ai.onnx is not known"
refuse two_unknown "operator Foo of domain ai.onnx is not known (2 nodes)"
refuse two_unknown "operator Bar of domain ai.onnx is not known"
refuse attribute 'node "the node" (Elu): error: attribute "slope" is not known for Elu at opset 13'
refuse no_attribute 'attribute "to" is missing'
refuse future "opset 99 of ai.onnx is newer than 28"
refuse overflow "overflow"
refuse shapes "(Add): error"
refuse types "(Add): error"
refuse past_end "runs past the end"
refuse no_file "cannot be found"
refuse escape "not a relative path inside the model's folder"
refuse absolute "not a relative path inside the model's folder"
run 1 "not supported yet" "$WORK" -o "$WORK/a.so"
run 1 "operator Foo" "$WORK/two_unknown.onnx" --check
run 0 "everything in it is supported" "$WORK/good.onnx" --check
run 1 '"message":"operator Foo' "$WORK/two_unknown.onnx" --check --diagnostics=json

# ---- outputs that cannot be written ----
run 1 "cannot write" "$WORK/good.onnx" -o "$WORK/no/such/folder/m.so"
run 1 "is a folder" "$WORK/good.onnx" -o "$WORK"
run 1 "No space left" "$WORK/good.onnx" -o /dev/full
mkdir -p "$WORK/full"
if mount -t tmpfs -o size=8k none "$WORK/full" 2>/dev/null; then
  run 1 "No space left" "$MNIST" -o "$WORK/full/m.so" --no-cache
  check "a full disk leaves nothing" '[ -z "$(ls -A "$WORK/full")" ]'
  umount "$WORK/full"
fi
(ulimit -f 8; trap '' XFSZ; "$CMZC" "$MNIST" -o "$WORK/small.so" --no-cache >/dev/null 2>&1)
check "a file size limit is status 1" "[ $? -eq 1 ]"
check "a file size limit leaves nothing" '[ -z "$(find "$WORK" -maxdepth 1 -name "small.so*")" ]'

# ---- what comes out ----
run 0 "" "$WORK/good.onnx" -o "$WORK/good.so"
check "header beside a library" '[ -s "$WORK/good.h" ]'
run 0 "" "$WORK/external.onnx" -o "$WORK/external.so" --no-header -MD
check "no header with --no-header" '[ ! -e "$WORK/external.h" ]'
check "the depfile names the data" 'grep -q "w\.bin" "$WORK/external.so.d" && grep -q "external\.onnx" "$WORK/external.so.d" && ! grep -q cmzc- "$WORK/external.so.d"'
run 0 "" "$MNIST" -o "$WORK/net.cmz"
run 0 "" "$WORK/net.cmz" -o "$WORK/again.so"
run 0 "" "$MNIST" -o "$WORK/infer.cmz" --stop-after=infer
run 0 "" "$WORK/infer.cmz" -o "$WORK/again2.so"
for kind in ll s mlir; do
  run 0 "" "$WORK/good.onnx" -o "$WORK/good.$kind"
  check "good.$kind has text" '[ -s "$WORK/good.'$kind'" ]'
done
for kind in o a h; do
  run 0 "" "$WORK/good.onnx" -o "$WORK/k_$kind.$kind"
  check "k_$kind.$kind is there" '[ -s "$WORK/k_'$kind.$kind'" ]'
done
run 0 "" "$WORK/good.onnx" -o "$WORK/program"
check "a program runs" '"$WORK/program" --info | grep -q x'
run 0 "// after infer" "$WORK/good.onnx" --print-after=infer
run 0 "fuse" "$WORK/good.onnx" -o "$WORK/t.so" --time-passes
run 0 "" "$WORK/good.onnx" -o "$WORK/kept.so" --save-temps
check "--save-temps keeps files" '[ -d "$WORK/kept.so.temps" ]'
printf '%s\n' "-O1 '$WORK/good.onnx'" "-o \"$WORK/with space.so\"" >"$WORK/words"
run 0 "" "@$WORK/words"
check "response file" '[ -s "$WORK/with space.so" ]'
run 0 "" "$MNIST" -o "$WORK/one.so"
cp "$WORK/one.so" "$WORK/first.so"
run 0 "" "$MNIST" -o "$WORK/one.so" --no-cache
check "the same bytes again" 'cmp -s "$WORK/one.so" "$WORK/first.so"'

# ---- killed ----
mkdir -p "$WORK/killed"
for signal in INT TERM; do
  "$CMZC" "$MNIST" -o "$WORK/killed/m.so" --no-cache 2>/dev/null &
  pid=$!
  sleep 0.08
  kill -$signal $pid 2>/dev/null
  wait $pid 2>/dev/null
  sleep 0.1
  rm -f "$WORK/killed/m.so" "$WORK/killed/m.h"
  check "SIG$signal leaves no temporary files" '[ -z "$(ls -A "$WORK/killed")" ]'
done
check "no temporary files anywhere" '[ -z "$(find "$WORK" -name "*.cmzc-*" -o -name "*.tmp" -o -name "*reproducer*")" ]'

printf '%d passed, %d failed\n' $PASSED $FAILED
[ $FAILED -eq 0 ]
