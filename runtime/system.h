/* system.h - every function of a system that the runtime uses, declared here and in the system's
 * own header so that the runtime compiles to bitcode without a system's headers. The compiler's
 * linker stubs list the same names. In: nothing. Out: the C library's functions that all systems
 * have, and for each system (system_*.h) the same small set: cmz_now, cmz_core_count monotonic
 * nanoseconds (0 where there is no clock); cores this process may use cmz_block_take,
 * cmz_block_give   memory aligned to a power of two cmz_thread_start, cmz_thread_join cmz_waiter_*
 * sleeping until a word changes; one waiter serves all words of its owner cmz_file_map,
 * cmz_file_unmap     a whole file, read-only and shared cmz_library_path                 the file
 * that an address was loaded from CMZ_SYSTEM_THREADS is 0 where there are no threads. */
#ifndef CMZ_RUNTIME_SYSTEM_H
#define CMZ_RUNTIME_SYSTEM_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Declares a function of the system under another name, so that files which do include the system's
 * headers (tests) see no second declaration. */
#define CMZ_SYSTEM_TEXT(prefix, name) CMZ_SYSTEM_TEXT_(prefix, name)
#define CMZ_SYSTEM_TEXT_(prefix, name) #prefix name
#define CMZ_SYSTEM_NAME(name) __asm__(CMZ_SYSTEM_TEXT(__USER_LABEL_PREFIX__, name))

/* No block is larger; sizes that are computed from dims have 64 bits everywhere. */
#define CMZ_LARGEST_BLOCK                                                                          \
  ((int64_t)(SIZE_MAX >> 18 > UINT32_MAX ? UINT64_C(1) << 46 : SIZE_MAX >> 1))

/* *PRODUCT = A * B, neither of them negative; false when it does not fit. */
static inline bool cmz_multiply(int64_t a, int64_t b, int64_t *product) {
#if defined(__wasm__) /* the compiler's way needs a function of its own library there */
  if (b && a > INT64_MAX / b) return false;
  *product = a * b;
  return true;
#else
  return !__builtin_mul_overflow(a, b, product);
#endif
}

extern void free(void *memory);
extern void *memcpy(void *restrict to, const void *restrict from, size_t size);
extern void *memmove(void *to, const void *from, size_t size);
extern void *memset(void *memory, int byte, size_t size);
extern int memcmp(const void *a, const void *b, size_t size);
extern size_t strlen(const char *text);
extern int strcmp(const char *a, const char *b);

#if defined(_WIN32)
#include "system_windows.h"
#else
extern int posix_memalign(void **memory, size_t alignment, size_t size);
extern int vsnprintf(char *restrict buffer, size_t size, const char *restrict format, va_list args);
extern int snprintf(char *restrict buffer, size_t size, const char *restrict format, ...)
    __attribute__((format(printf, 3, 4)));

static inline void *cmz_block_take(size_t alignment, size_t bytes) {
  void *memory = NULL;
  return posix_memalign(&memory, alignment, bytes) == 0 ? memory : NULL;
}
static inline void cmz_block_give(void *memory) { free(memory); }

#if defined(__wasm__)
#include "system_wasm.h"
#else
#include "system_posix.h"
#endif
#endif

#endif
