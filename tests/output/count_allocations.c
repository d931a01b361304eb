/* count_allocations.c - preloaded into a program: counts allocations, so that a test can see that
 * `run` makes none. In: the calls of the process. Out: allocation_count(). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static unsigned long count;
unsigned long allocation_count(void);
unsigned long allocation_count(void) { return count; }

void *malloc(size_t size) { return count++, __libc_malloc(size); }
void *calloc(size_t n, size_t size) { return count++, __libc_calloc(n, size); }
void *realloc(void *memory, size_t size) { return count++, __libc_realloc(memory, size); }
void *aligned_alloc(size_t alignment, size_t size) {
  return count++, __libc_memalign(alignment, size);
}
int posix_memalign(void **memory, size_t alignment, size_t size) {
  count++;
  *memory = __libc_memalign(alignment, size);
  return *memory ? 0 : 12;
}
