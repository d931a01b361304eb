/* foreign.h - runs a compiled model of one input and one output where there is no C library: for
 * the programs that try out libraries of other systems. In: the model's table, the bytes of a .npy
 * file. Out: the bytes of a .npy file with the output. */
#ifndef CMZ_TESTS_FOREIGN_H
#define CMZ_TESTS_FOREIGN_H

#include "../../runtime/cmz.h"

enum {
  FOREIGN_BAD_INPUT = -1,
  FOREIGN_NOT_CREATED = -2,
  FOREIGN_NOT_RUN = -3,
  FOREIGN_TOO_LARGE = -4
};

/* Runs MODEL times RUNS with THREADS. Returns the bytes written to OUT, or one of the above; *SAID
 * is the model's message then. */
long foreign_run(const cmz_api *api, const uint8_t *npy, size_t npy_bytes, uint32_t threads,
                 uint32_t runs, uint8_t *out, size_t capacity, const char **said);

#endif
