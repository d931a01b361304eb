#!/bin/sh
# embed.sh OUT.S NAME=FILE... - an assembler source that holds each FILE as `NAME` with its size in `NAME_size`.
set -eu
out=$1
shift
{
  echo '  .section .rodata'
  for pair in "$@"; do
    name=${pair%%=*}
    file=${pair#*=}
    printf '  .globl %s, %s_size\n  .balign 16\n%s:\n  .incbin "%s"\n.L%s_end:\n  .balign 8\n%s_size:\n  .quad .L%s_end - %s\n' \
      "$name" "$name" "$name" "$file" "$name" "$name" "$name" "$name"
  done
  echo '  .section .note.GNU-stack,"",%progbits'
} >"$out"
