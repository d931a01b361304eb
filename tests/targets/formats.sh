#!/usr/bin/env bash
# formats.sh BUILD_DIR WORK_DIR - Mach-O, COFF and WebAssembly: archives that lld's flavours link, libraries that need nothing but what
# tests/targets lists, and the results of what can be run here: WebAssembly with node, Windows' x86-64 with wine.
# Prints a line a check and `N passed, N failed, N skipped` last.
set -uo pipefail
. "$(dirname "$0")/../checks.sh"
build_comparer || exit 1
HERE=$ROOT/tests/targets
TOOLS=$(llvm-config-22 --bindir 2>/dev/null || echo /usr/lib/llvm-22/bin)
KWS=$SHARED/models/micro-kws-fp32
freestanding() { "$TOOLS/clang" -std=gnu11 -O2 -ffreestanding -nostdlibinc -Wall -Wextra -Werror "$@"; }

# ---- archives ----
# What LLVM's reader calls each member of TARGET's archive.
declare -A FORMATS=([arm64-apple-ios]="Mach-O arm64" [arm64-apple-macos]="Mach-O arm64" [x86_64-apple-macos]="Mach-O 64-bit x86-64"
  [x86_64-windows]="COFF-x86-64" [aarch64-windows]="COFF-ARM64" [wasm32]="WASM")
two_archives() { # TARGET: the same model twice under two names, as one program might have it
  compile --target "$1" --prefix one -o "$1.one.a" && compile --target "$1" --prefix two -o "$1.two.a"
}
of_format() { # TARGET
  "$TOOLS/llvm-readobj" "$1.one.a" | sed -n 's/^Format: //p' | sort -u >format.txt
  [ "$(cat format.txt)" = "${FORMATS[$1]}" ]
}
link_apple() { # TARGET ARCH PLATFORM VERSION: both archives whole, so that names which both have would show
  "$TOOLS/ld64.lld" -dylib -all_load -arch "$2" -platform_version "$3" "$4" "$4" -install_name "@rpath/$1.dylib" -exported_symbol _one_api \
    -exported_symbol _two_api "$1.one.a" "$1.two.a" "$HERE/libSystem.tbd" -o "$1.linked.dylib" &&
    [ "$("$TOOLS/llvm-nm" --defined-only --extern-only -j "$1.linked.dylib" | sort | tr '\n' ' ')" = "_one_api _two_api " ]
}
import_library() { # NAME MACHINE
  "$TOOLS/lld-link" /lib "/def:$HERE/$1.def" "/machine:$2" "/out:$1-$2.lib"
}
link_windows() { # TARGET MACHINE TRIPLE
  import_library kernel32 "$2" && import_library ucrtbase "$2" && freestanding "--target=$3" -c "$HERE/windows_support.c" -o "support-$2.o" &&
    "$TOOLS/lld-link" /dll /noentry /nodefaultlib "/machine:$2" /export:one_api /export:two_api "/wholearchive:$1.one.a" \
      "/wholearchive:$1.two.a" "support-$2.o" "kernel32-$2.lib" "ucrtbase-$2.lib" "/out:$1.linked.dll"
}
same_twice() { # TARGET SUFFIX
  mkdir -p again
  compile --target "$1" -o "same.$2" && compile --target "$1" --no-cache -o "again/same.$2" && cmp "same.$2" "again/same.$2"
}
no_x18() { # the register that Apple and Microsoft keep for themselves
  "$TOOLS/llvm-objdump" -d --no-show-raw-insn "$1" >code.txt && grep -q '\bx19\b' code.txt && ! grep -E '\b[xw]18\b' code.txt
}
for target in arm64-apple-ios arm64-apple-macos x86_64-apple-macos x86_64-windows aarch64-windows wasm32; do
  check "$target: archives are made" two_archives $target
  check "$target: every member is ${FORMATS[$target]}" of_format $target
  check "$target: the same bytes twice" same_twice $target a
done
check "arm64-apple-ios: ld64.lld links two models" link_apple arm64-apple-ios arm64 ios 12.0
check "arm64-apple-macos: ld64.lld links two models" link_apple arm64-apple-macos arm64 macos 11.0
check "x86_64-apple-macos: ld64.lld links two models" link_apple x86_64-apple-macos x86_64 macos 11.0
check "x86_64-windows: lld-link links two models" link_windows x86_64-windows x64 x86_64-pc-windows-msvc
check "aarch64-windows: lld-link links two models" link_windows aarch64-windows arm64 aarch64-pc-windows-msvc
for target in arm64-apple-ios aarch64-windows; do check "$target: x18 is left alone" no_x18 $target.one.a; done

# ---- libraries ----
apple_library() { # TARGET PLATFORM VERSION
  compile --target "$1" --prefix one -o model.dylib || return 1
  "$TOOLS/llvm-objdump" --macho -p model.dylib >headers.txt
  grep -A5 LC_BUILD_VERSION headers.txt | grep -q "platform $2" && grep -A5 LC_BUILD_VERSION headers.txt | grep -q "minos $3" &&
    [ "$(grep -A3 LC_LOAD_DYLIB headers.txt | grep -c ' name ')" = 1 ] && grep -q 'name /usr/lib/libSystem.B.dylib' headers.txt &&
    [ "$("$TOOLS/llvm-nm" --defined-only --extern-only -j model.dylib | sort | tr '\n' ' ')" = "_cmz_model_api _one_api " ] &&
    [ -z "$(comm -23 <("$TOOLS/llvm-nm" --undefined-only -j model.dylib | sort) <(tr -c 'A-Za-z0-9_' '\n' <"$HERE/libSystem.tbd" | sort -u))" ]
}
windows_library() { # TARGET
  compile --target "$1" --prefix one -o model.dll || return 1
  "$TOOLS/llvm-readobj" --coff-imports --coff-exports model.dll >headers.txt
  awk '/^Import \{/ {i=1} /^Export \{/ {i=0} i && /Name:/ {print $2}' headers.txt | sort | tr '\n' ' ' >imports.txt
  awk '/^Export \{/ {e=1} e && /Name:/ {print $2}' headers.txt | sort | tr '\n' ' ' >exports.txt
  [ "$(cat imports.txt)" = "KERNEL32.dll ucrtbase.dll " ] && [ "$(cat exports.txt)" = "cmz_model_api one_api " ] &&
    [ -z "$(comm -23 <(sed -n 's/.*Symbol: \([^ ]*\).*/\1/p' headers.txt | sort -u) <(cat "$HERE"/{kernel32,ucrtbase}.def | tr -d ' ' | sort -u))" ]
}
check "arm64-apple-ios15.1: a .dylib for that version, libSystem alone" apple_library arm64-apple-ios15.1 ios 15.1
check "arm64-apple-macos: a .dylib, libSystem alone" apple_library arm64-apple-macos macos 11.0
check "x86_64-apple-macos: a .dylib, libSystem alone" apple_library x86_64-apple-macos macos 11.0
check "arm64-apple-macos: the same .dylib twice" same_twice arm64-apple-macos dylib
check "aarch64-windows: a .dll, kernel32 and ucrtbase alone" windows_library aarch64-windows
check "x86_64-windows: a .dll, kernel32 and ucrtbase alone" windows_library x86_64-windows
check "x86_64-windows: the same .dll twice" same_twice x86_64-windows dll
several() { compile --target arm64-apple-ios --cpu armv8-a,armv8.2-a+dotprod,apple-m2 -o several.dylib; }
check "arm64-apple-ios: three levels in one library" several

# ---- refusals ----
refuses() { # TEXT OPTIONS…: exit status 2, and TEXT in what it says
  local text=$1
  shift
  compile "$@" >refused.log 2>&1
  [ $? -eq 2 ] && grep -q -- "$text" refused.log
}
check "a Mach-O object is refused for the archive" refuses 'NAME.dylib' --target arm64-apple-ios -o refused.o
check "a COFF executable is refused" refuses 'NAME.dll' --target x86_64-windows -o refused
check "a WebAssembly library is refused for the archive" refuses 'NAME.a' --target wasm32 -o refused.so
check "weights beside a WebAssembly module are refused" refuses 'no files to map' --target wasm32 --weights external -o refused.a
check "a .dll for Linux is refused" refuses 'is for another system' --target x86_64-linux-gnu -o refused.dll
check "iOS before 12 is refused" refuses 'least version.*12' --target arm64-apple-ios11.4 -o refused.a
check "a GPU's host on Windows is refused" refuses 'on Linux and Android only' --target sm_80 --host x86_64-windows -o refused.dll

# ---- results ----
wasm_module() { # MODEL NAME
  "$CMZC" "$1" --cache-dir "$CACHE" --target wasm32 --prefix model -o "$2.a" &&
    freestanding --target=wasm32 -c "$HERE/wasm_module.c" -o wasm_module.o && freestanding --target=wasm32 -c "$HERE/foreign.c" -o wasm_foreign.o &&
    "$TOOLS/wasm-ld" --no-entry --fatal-warnings wasm_module.o wasm_foreign.o "$2.a" -o "$2.wasm"
}
uses_vectors() { "$TOOLS/llvm-objdump" -d --no-show-raw-insn "$1" >code.txt && grep -q 'f32x4.mul' code.txt; }
on_node() { # NAME INPUT EXPECTED
  node "$HERE/run_wasm.mjs" "$1.wasm" "$2" "$1.wasm.npy" && ./compare_npy "$3" "$1.wasm.npy"
}
WINE=$(command -v wine64 || ls /usr/lib/wine/wine64 2>/dev/null)
export WINEPREFIX=$WORK/wine WINEDEBUG=-all WINEDLLOVERRIDES="mscoree,mshtml,winemenubuilder.exe="
windows_program() {
  import_library kernel32 x64 && freestanding --target=x86_64-pc-windows-msvc -c "$HERE/windows_main.c" -o windows_main.o &&
    freestanding --target=x86_64-pc-windows-msvc -c "$HERE/foreign.c" -o windows_foreign.o &&
    "$TOOLS/lld-link" /machine:x64 /subsystem:console /entry:start /nodefaultlib /out:windows_main.exe windows_main.o windows_foreign.o kernel32-x64.lib
}
on_wine() { # MODEL INPUT EXPECTED CFLAGS…
  local model=$1 input=$2 expected=$3
  shift 3
  rm -f output.npy
  "$CMZC" "$model" --cache-dir "$CACHE" --target x86_64-windows "$@" -o model.dll && cp "$input" input.npy &&
    timeout 120 "$WINE" windows_main.exe && ./compare_npy "$expected" output.npy
}
DIGITS="$MODEL $INPUT $ROOT/examples/digits/expected.npy"
KEYWORDS="$KWS/micro-kws-fp32.onnx $(echo "$KWS"/set0/inputs/*.npy) $(echo "$KWS"/set0/outputs/*.npy)"
run_all() { # NAME MODEL INPUT EXPECTED
  check "$1: a WebAssembly module links by itself" wasm_module "$2" "$1"
  if ! command -v node >/dev/null; then skip "$1 on WebAssembly" "no node"
  else
    check "$1 on WebAssembly" on_node "$1" "$3" "$4"
  fi
  if [ -z "$WINE" ] || [ "$(uname -m)" != x86_64 ]; then skip "$1 on Windows" "no wine64, or another machine than x86-64"
  else
    check "$1 on Windows, four threads" on_wine "$2" "$3" "$4"
    check "$1 on Windows, levels" on_wine "$2" "$3" "$4" --cpu x86-64-v2,x86-64-v3
    check "$1 on Windows, weights beside it" on_wine "$2" "$3" "$4" --weights external
  fi
}
check "the program for Windows is built" windows_program
run_all digits $DIGITS
check "its kernels use vectors" uses_vectors digits.wasm
if [ -d "$KWS" ]; then run_all keywords $KEYWORDS; else skip "keywords" "no ../shared/models beside the checkout"; fi

finish
