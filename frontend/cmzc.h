/* cmzc.h - libcmzc: the compiler as a library. `cmzc` itself is its first user. C99, C++-safe.
 * Nothing here prints, exits or aborts; messages go to the sink. */
#ifndef CMZC_H
#define CMZC_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cmzc_message {
  int severity;     /* 0 note, 1 warning, 2 error */
  const char *text; /* `model.onnx: node "Conv_12" (Conv): error: …`, hint included */
  const char *file, *node, *op, *tensor, *hint, *message; /* the parts; may be NULL */
} cmzc_message;

typedef struct cmzc_callbacks {
  void (*message)(void *user, const cmzc_message *message);
  void (*progress)(void *user, const char *stage, unsigned done, unsigned total);
  /* What --print-after, --list-… and --time-passes print */
  void (*text)(void *user, const char *text, size_t length);
  void *user;
  /* A temporary folder was made (or, with made 0, is gone): what a program removes when it is
   * killed. May be NULL. */
  void (*temporary)(void *user, const char *path, int made);
  int terminal; /* messages go to a terminal: --color=auto colours them */
} cmzc_callbacks;

/* Runs one compilation described by command-line words (without the program's name), as `cmzc`
 * does. Returns the exit status of INTERFACE.md: 0 done, 1 the input could not be compiled, 2 wrong
 * usage, 3 a tolerance or budget was not met, 4 internal error. */
int cmzc_compile(int argument_count, const char *const *arguments, const cmzc_callbacks *callbacks);
const char *cmzc_version(void);

#ifdef __cplusplus
}
#endif
#endif
