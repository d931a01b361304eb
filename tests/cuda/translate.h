/* translate.h - what the files that translate PTX to C share: translate.c (text, entries, control),
 * translate_operands.c, and a table of instructions each: translate_arithmetic.c,
 * translate_memory.c (loads, stores, copies), translate_group.c (barriers and what a warp does
 * together), translate_matrix.c. Always holds: an instruction or form that is not known ends the
 * translation. */
#ifndef CMZ_TRANSLATE_H
#define CMZ_TRANSLATE_H

#include "emulator.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum {
  MAX_PARTS = 12,
  MAX_OPERANDS = 12,
  MAX_TEXT = 512,
  MAX_PARAMS = 512,
  MAX_SHARED = 256,
  MAX_BARE = 256
};

typedef struct shared_variable {
  char name[256];
  uint32_t bytes, align;
  long offset; /* -1: not used yet by this entry */
  bool launch; /* extern: its size is the launch's */
} shared_variable;

typedef struct translator {
  const char *at, *end;
  FILE *out;
  char *error;
  size_t error_size;
  char entry[MAX_TEXT];
  int param_count;
  bool failed;
  int lines_within; /* newlines inside of the statement */
  int line;         /* of the statement being translated */
  shared_variable shared[MAX_SHARED];
  int shared_count;
  uint32_t shared_bytes;   /* that the entry has used so far */
  char bare[MAX_BARE][64]; /* registers without a % */
  int bare_count;
  bool fibres;
} translator;

typedef struct instruction {
  char text[4 * MAX_TEXT]; /* for messages */
  char parts_text[MAX_TEXT], operands_text[4 * MAX_TEXT];
  const char *parts[MAX_PARTS];
  int part_count;
  char *operands[MAX_OPERANDS];
  int operand_count;
  char guard[64]; /* "" or a C condition */
} instruction;

/* A handler writes the C statements of one instruction. */
typedef void ptx_handler(translator *t, const instruction *in);
typedef struct ptx_row {
  const char *name;
  ptx_handler *handle;
} ptx_row;
/* Each ends with a row without a name. */
extern const ptx_row ptx_arithmetic[], ptx_memory[], ptx_collectives[], ptx_matrices[];

/* ---- translate_operands.c ---- */
/* Ends the translation with a message; the first one counts. */
void ptx_fail(translator *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Whether the instruction's name has ".PART". */
bool ptx_has(const instruction *in, const char *part);
/* The last part of its name: the type it works on; the bits of a type. */
const char *ptx_type(const instruction *in);
int ptx_bits(const char *type);
/* Fails unless there are COUNT operands. */
bool ptx_need(translator *t, const instruction *in, int count);
/* C expressions, in buffers that take turns (eight are valid at a time): operand TEXT's raw bits,
 * and read as TYPE. */
const char *ptx_value(translator *t, const char *text);
const char *ptx_typed(translator *t, const char *type, const char *text);
/* Writes DESTINATION = the bits of an expression of TYPE. */
void ptx_assign(translator *t, const char *type, const char *destination, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* {%a, %b} in TEXT, which is changed, split at commas; returns the count, 0 when it is no such
 * group. */
int ptx_group(char *text, char *items[4]);
/* Splits {a, b, …} or a single operand of TEXT into up to MOST items of COPY; returns how many. */
int ptx_items(const char *text, char *copy, size_t size, char **items, int most);
/* [base+offset] as a C address, in one buffer. */
const char *ptx_address(translator *t, const char *text);
/* The state space that the instruction's name says; "generic" when none. */
const char *ptx_space(const instruction *in);
/* Begins a C block in which p is the checked place of BYTES bytes; HOW as emulator_access has it.
 */
void ptx_open_access(translator *t, const instruction *in, const char *text, int bytes, int how);
/* Begins a C block in which c is the collective of KIND, with more designated initialisers. */
void ptx_begin_collective(translator *t, const char *kind, int aligned, const char *more);

#endif
