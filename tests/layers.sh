#!/usr/bin/env bash
# layers.sh - holds the layers of docs/ARCHITECTURE.md: a folder includes only what stands before it; the runtime shares with
# the compiler only cmz.h and program.h; importers see ir/ alone; nothing below main prints, exits or aborts.
set -u
cd "$(dirname "$0")/.."
passed=0 failed=0 skipped=0
# allow FOLDER "FOLDERS IT MAY INCLUDE"
check() { # LABEL COMMAND-THAT-PRINTS-VIOLATIONS
  local label=$1 found
  shift
  found=$("$@")
  if [ -n "$found" ]; then
    printf '%s:\n%s\n' "$label" "$found"
    failed=$((failed + 1))
  else
    passed=$((passed + 1))
  fi
}
includes_outside() { # FOLDER ALLOWED-REGEX: quoted includes of other folders that the regex does not allow
  grep -rnE '#include "(\.\./)+[a-z]' "$1" --include='*.c' --include='*.h' | grep -vE "#include \"(\.\./)+($2)[/.\"]" || true
}
calls() { # FOLDERS…: printing, exiting, aborting
  grep -rnE '(^|[^a-zA-Z0-9_>.])(printf|puts|putchar|abort|exit|assert|perror)\(' "$@" --include='*.c' || true
}
check "ir includes only ir and the words of the runtime's matcher" includes_outside ir 'ir|runtime/regex|dim|dtype|op|module|kernel|base|evaluator|plan|layout|format'
check "targets includes only ir, targets and the runtime's feature bits" includes_outside targets 'ir|targets|runtime/cpu'
check "passes includes only ir, targets, passes" includes_outside passes 'ir|targets|passes|compress|support|placement'
check "codegen includes only ir, targets, passes, codegen and the shared runtime headers" includes_outside codegen \
  'ir|targets|passes|codegen|runtime/(cmz|program|ops|cpu)'
check "importers include only ir" includes_outside frontend/onnx 'ir|importers'
check "the runtime includes nothing of the compiler" includes_outside runtime 'runtime'
check "the library neither prints nor exits" calls ir targets passes frontend/onnx

misplaced() { # sources that clang-format would lay out otherwise
  git ls-files '*.c' '*.h' | while read -r file; do
    clang-format --dry-run -Werror "$file" >/dev/null 2>&1 || echo "$file"
  done
}
# Its versions differ in details: Debian 12's own decides.
if clang-format --version 2>/dev/null | grep -q 'version 14\.' && git rev-parse --git-dir >/dev/null 2>&1; then
  check "clang-format agrees with every source" misplaced
else
  skipped=1
  echo "skipped: layout of the sources: no clang-format 14, or no git checkout"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
