#!/usr/bin/env bash
# demo.sh BUILD_DIR - compiles a real trained model and runs it in a C program that knows nothing of cmzc but cmz.h.
set -euo pipefail
cd "$(dirname "$0")/.."
BUILD=$1
OUT=$BUILD/demo
CMZC=$BUILD/bin/cmzc
CMZ_RUN=$BUILD/bin/cmz-run
mkdir -p "$OUT"
run() { printf '\n$ %s\n' "$*"; "$@"; }

run "$CMZC" examples/digits/mnist-8.onnx -O3 -o "$OUT/mnist8.so"
run ls -l "$OUT/mnist8.so" "$OUT/mnist8.h"
run gcc -O2 -Iruntime examples/digits/digits.c -o "$OUT/digits" -ldl -lm
run "$OUT/digits" "$OUT/mnist8.so" examples/digits/input.npy examples/digits/expected.npy
run "$CMZC" examples/digits/mnist-8.onnx -O3 --w4a16 -o "$OUT/mnist8_w4.so"
run ls -l "$OUT/mnist8_w4.so"
run "$CMZ_RUN" "$OUT/mnist8_w4.so" --input Input3=examples/digits/input.npy --output-dir "$OUT" --bench 1000
