/* system_wasm.h - WebAssembly for system.h: whatever C library the module is linked with (WASI's,
 * Emscripten's, one of the program's own) and nothing besides. Always holds: no threads, no clock
 * (times of a profile are 0), no files (the compiler refuses weights beside the module). */
#ifndef CMZ_RUNTIME_SYSTEM_WASM_H
#define CMZ_RUNTIME_SYSTEM_WASM_H

#define CMZ_SYSTEM_THREADS 0

static inline uint64_t cmz_now(void) { return 0; }
static inline uint32_t cmz_core_count(void) { return 1; }

typedef int cmz_thread;
typedef int cmz_thread_result;
static inline bool cmz_thread_start(cmz_thread *thread, cmz_thread_result (*body)(void *),
                                    void *user) {
  (void)thread, (void)body, (void)user;
  return false;
}
static inline void cmz_thread_join(cmz_thread thread) { (void)thread; }

typedef struct cmz_waiter {
  char nothing;
} cmz_waiter;
static inline bool cmz_waiter_begin(cmz_waiter *w) {
  (void)w;
  return true;
}
static inline void cmz_waiter_end(cmz_waiter *w) { (void)w; }
static inline void cmz_waiter_sleep(cmz_waiter *w, uint32_t *word, uint32_t value) {
  (void)w, (void)word, (void)value;
}
static inline void cmz_waiter_wake(cmz_waiter *w, uint32_t *word) { (void)w, (void)word; }

static inline void *cmz_file_map(const char *path, size_t *bytes) {
  (void)path, (void)bytes;
  return NULL;
}
static inline void cmz_file_unmap(void *map, size_t bytes) { (void)map, (void)bytes; }
static inline const char *cmz_library_path(const void *address, char *buffer, size_t size) {
  (void)address, (void)buffer, (void)size;
  return NULL;
}

#endif
