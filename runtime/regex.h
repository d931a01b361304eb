/* regex.h - the programs of the matcher in ops_regex.c, which the compiler makes (ir/ops/regex.c):
 * instructions of three words, op, x and y. A SET with x ranges is followed by them, and takes one
 * character of the text; all others take none. */
#ifndef CMZ_RUNTIME_REGEX_H
#define CMZ_RUNTIME_REGEX_H

enum {
  CMZ_REGEX_MATCH,
  CMZ_REGEX_SET,   /* x ranges follow */
  CMZ_REGEX_RANGE, /* of characters x to y */
  CMZ_REGEX_SPLIT, /* on at instruction x and at y */
  CMZ_REGEX_JUMP,  /* on at x */
  CMZ_REGEX_TEXT_BEGIN,
  CMZ_REGEX_TEXT_END,
  CMZ_REGEX_LINE_BEGIN,
  CMZ_REGEX_LINE_END,
  CMZ_REGEX_WORD_EDGE,
  CMZ_REGEX_NO_WORD_EDGE
};

#endif
