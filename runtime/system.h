/* system.h - every function of the C library that the runtime uses, declared here so that the runtime compiles to
 * bitcode without a system's headers. The compiler's linker stub lists the same names. */
#ifndef CMZ_RUNTIME_SYSTEM_H
#define CMZ_RUNTIME_SYSTEM_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern int posix_memalign(void **memory, size_t alignment, size_t size);
extern void free(void *memory);
extern void *memcpy(void *restrict to, const void *restrict from, size_t size);
extern void *memmove(void *to, const void *from, size_t size);
extern void *memset(void *memory, int byte, size_t size);
extern int memcmp(const void *a, const void *b, size_t size);
extern size_t strlen(const char *text);
extern int strcmp(const char *a, const char *b);
extern int vsnprintf(char *restrict buffer, size_t size, const char *restrict format, va_list args);
extern int snprintf(char *restrict buffer, size_t size, const char *restrict format, ...)
    __attribute__((format(printf, 3, 4)));
extern long syscall(long number, ...);
extern int close(int fd);
extern int sched_yield(void);
extern int munmap(void *memory, size_t size);

/* Renamed, so that files which do include the system's headers (tests) see no second declaration. */
struct cmz_timespec {
  long seconds, nanoseconds;
};
extern int cmz_system_clock(int clock, struct cmz_timespec *now) __asm__("clock_gettime");
extern int cmz_system_open(const char *path, int flags, ...) __asm__("open");
extern void *cmz_system_map(void *at, size_t size, int protection, int flags, int fd, long offset) __asm__("mmap");
extern long cmz_system_seek(int fd, long offset, int whence) __asm__("lseek");
extern int cmz_system_thread(unsigned long *thread, const void *attributes, void *(*body)(void *), void *user)
    __asm__("pthread_create");
extern int cmz_system_join(unsigned long thread, void **result) __asm__("pthread_join");
extern void *dlopen(const char *path, int mode);
extern void *dlsym(void *library, const char *name);
extern int dlclose(void *library);
extern char *dlerror(void);
struct cmz_dl_info {
  const char *file;
  void *base;
  const char *symbol;
  void *address;
};
extern int cmz_system_dladdr(const void *address, struct cmz_dl_info *info) __asm__("dladdr");

static inline uint64_t cmz_now(void) {
  struct cmz_timespec now;
  cmz_system_clock(1 /* CLOCK_MONOTONIC */, &now);
  return (uint64_t)now.seconds * 1000000000u + (uint64_t)now.nanoseconds;
}

/* Processors that this process may use, hyper-threads of one core counted once: what a model uses when nobody says how many. */
static inline uint32_t cmz_core_count(void) {
#if defined(__x86_64__)
  const long get_affinity = 204;
#else
  const long get_affinity = 123;
#endif
  uint64_t mask[128];
  long bytes = syscall(get_affinity, 0, sizeof mask, mask);
  uint32_t count = 0, siblings = 1;
  for (long i = 0; i < bytes / 8; i++) count += (uint32_t)__builtin_popcountll(mask[i]);
#if defined(__x86_64__)
  uint32_t a, b, c, d;
  __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(0), "c"(0));
  if (a >= 0xb) { /* extended topology: the lowest level is the threads of a core */
    __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(0xb), "c"(0));
    if ((c >> 8 & 0xff) == 1 && (b & 0xffff) > 1) siblings = b & 0xffff;
  }
#endif
  return count > siblings ? count / siblings : 1;
}

#endif
