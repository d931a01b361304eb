/* cache.h - the kernel cache's and the worker processes' own interface; workers.c uses cache.c. */
#ifndef CMZ_CODEGEN_CACHE_H
#define CMZ_CODEGEN_CACHE_H

#include "codegen.h"

/* The name of the kernel's object in the cache (32 hex digits): everything that decides its bytes
 * takes part. */
void cmz_cache_key(const cmz_kernel *k, const cmz_schedule *s, const cmz_cpu_row *cpu,
                   const cmz_codegen_options *o, const char *symbol, char key[33]);
/* Copies the object stored under KEY to PATH; false when there is none or it is damaged (which is
 * no error). */
bool cmz_cache_fetch(cmz_context *ctx, const char *dir, const char *key, const char *path);
/* Stores the object at PATH under KEY; failures are ignored: a cache may be read-only or full. */
void cmz_cache_store(cmz_context *ctx, const char *dir, const char *key, const char *path);

#endif
