/* system_posix.h - Linux, Android, macOS and iOS for system.h: the POSIX functions that they share,
 * and where they differ: how a thread sleeps, what a core is, the numbers of flags. Always holds:
 * only names that Android has had since API level 21, macOS since 11 and iOS since 12. */
#ifndef CMZ_RUNTIME_SYSTEM_POSIX_H
#define CMZ_RUNTIME_SYSTEM_POSIX_H

#define CMZ_SYSTEM_THREADS 1

#if defined(__APPLE__)
enum { CMZ_CLOCK_MONOTONIC = 6, CMZ_OPEN_CLOSED_ON_EXEC = 0x1000000 };
#else
enum { CMZ_CLOCK_MONOTONIC = 1, CMZ_OPEN_CLOSED_ON_EXEC = 0x80000 };
#endif
enum { CMZ_SEEK_END = 2, CMZ_PROTECTION_READ = 1, CMZ_MAP_SHARED = 1 };

extern int close(int fd);
extern int munmap(void *memory, size_t size);
struct cmz_timespec {
  long seconds, nanoseconds;
};
extern int cmz_system_clock(int clock, struct cmz_timespec *now) CMZ_SYSTEM_NAME("clock_gettime");
extern int cmz_system_open(const char *path, int flags, ...) CMZ_SYSTEM_NAME("open");
extern void *cmz_system_map(void *at, size_t size, int protection, int flags, int fd, long offset)
    CMZ_SYSTEM_NAME("mmap");
extern long cmz_system_seek(int fd, long offset, int whence) CMZ_SYSTEM_NAME("lseek");
extern int cmz_system_thread(unsigned long *thread, const void *attributes, void *(*body)(void *),
                             void *user) CMZ_SYSTEM_NAME("pthread_create");
extern int cmz_system_join(unsigned long thread, void **result) CMZ_SYSTEM_NAME("pthread_join");
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
extern int cmz_system_dladdr(const void *address, struct cmz_dl_info *info)
    CMZ_SYSTEM_NAME("dladdr");

static inline uint64_t cmz_now(void) {
  struct cmz_timespec now;
  cmz_system_clock(CMZ_CLOCK_MONOTONIC, &now);
  return (uint64_t)now.seconds * 1000000000u + (uint64_t)now.nanoseconds;
}

/* ---- cores ---- */

#if defined(__APPLE__)
extern int sysctlbyname(const char *name, void *value, size_t *size, void *new_value,
                        size_t new_size);

/* Fast cores where the machine has several kinds: a slow one among a kernel's workers holds up the
 * others. */
static inline uint32_t cmz_core_count(void) {
  static const char *const names[] = {"hw.perflevel0.physicalcpu", "hw.physicalcpu"};
  for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
    int count = 0;
    size_t size = sizeof count;
    if (sysctlbyname(names[i], &count, &size, NULL, 0) == 0 && count > 0) return (uint32_t)count;
  }
  return 1;
}
#else
extern long syscall(long number, ...);

/* Processors that this process may use, hyper-threads of one core counted once: what a model uses
 * when nobody says how many. */
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

/* ---- threads ---- */

typedef unsigned long cmz_thread; /* pthread_t: an integer or a pointer of its size */
typedef void *cmz_thread_result;

static inline bool cmz_thread_start(cmz_thread *thread, cmz_thread_result (*body)(void *),
                                    void *user) {
  return cmz_system_thread(thread, NULL, body, user) == 0;
}
static inline void cmz_thread_join(cmz_thread thread) { cmz_system_join(thread, NULL); }

/* CMZ_WAIT_CONDITION makes a test of what is there for Apple's systems possible on this one. */
#if defined(__APPLE__) || defined(CMZ_WAIT_CONDITION)
/* Their futex is private to Apple before macOS 14.4: a mutex and a condition, whose words the
 * system's library fills in. */
typedef struct cmz_waiter {
  uint64_t mutex[8], condition[8]; /* 64 and 48 bytes at most */
} cmz_waiter;
extern int cmz_system_mutex_init(void *mutex, const void *attributes)
    CMZ_SYSTEM_NAME("pthread_mutex_init");
extern int cmz_system_mutex_lock(void *mutex) CMZ_SYSTEM_NAME("pthread_mutex_lock");
extern int cmz_system_mutex_unlock(void *mutex) CMZ_SYSTEM_NAME("pthread_mutex_unlock");
extern int cmz_system_mutex_destroy(void *mutex) CMZ_SYSTEM_NAME("pthread_mutex_destroy");
extern int cmz_system_condition_init(void *condition, const void *attributes)
    CMZ_SYSTEM_NAME("pthread_cond_init");
extern int cmz_system_condition_wait(void *condition, void *mutex)
    CMZ_SYSTEM_NAME("pthread_cond_wait");
extern int cmz_system_condition_wake(void *condition) CMZ_SYSTEM_NAME("pthread_cond_broadcast");
extern int cmz_system_condition_destroy(void *condition) CMZ_SYSTEM_NAME("pthread_cond_destroy");

static inline bool cmz_waiter_begin(cmz_waiter *w) {
  if (cmz_system_mutex_init(w->mutex, NULL) != 0) return false;
  if (cmz_system_condition_init(w->condition, NULL) == 0) return true;
  cmz_system_mutex_destroy(w->mutex);
  return false;
}
static inline void cmz_waiter_end(cmz_waiter *w) {
  cmz_system_condition_destroy(w->condition);
  cmz_system_mutex_destroy(w->mutex);
}
static inline void cmz_waiter_sleep(cmz_waiter *w, uint32_t *word, uint32_t value) {
  cmz_system_mutex_lock(w->mutex);
  while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == value)
    cmz_system_condition_wait(w->condition, w->mutex);
  cmz_system_mutex_unlock(w->mutex);
}
/* The word has changed before: whoever still saw the old value holds the mutex until it sleeps. */
static inline void cmz_waiter_wake(cmz_waiter *w, uint32_t *word) {
  (void)word;
  cmz_system_mutex_lock(w->mutex);
  cmz_system_condition_wake(w->condition);
  cmz_system_mutex_unlock(w->mutex);
}
#else
#if defined(__x86_64__)
enum { CMZ_SYSCALL_FUTEX = 202 };
#else
enum { CMZ_SYSCALL_FUTEX = 98 };
#endif
enum { CMZ_FUTEX_WAIT_PRIVATE = 128, CMZ_FUTEX_WAKE_PRIVATE = 129 };

typedef struct cmz_waiter {
  char nothing; /* a futex is the word itself */
} cmz_waiter;
static inline bool cmz_waiter_begin(cmz_waiter *w) {
  (void)w;
  return true;
}
static inline void cmz_waiter_end(cmz_waiter *w) { (void)w; }
static inline void cmz_waiter_sleep(cmz_waiter *w, uint32_t *word, uint32_t value) {
  (void)w;
  syscall(CMZ_SYSCALL_FUTEX, word, CMZ_FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}
static inline void cmz_waiter_wake(cmz_waiter *w, uint32_t *word) {
  (void)w;
  syscall(CMZ_SYSCALL_FUTEX, word, CMZ_FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}
#endif

/* ---- files ---- */

/* NULL: cannot be opened. (void *)-1: cannot be mapped. */
static inline void *cmz_file_map(const char *path, size_t *bytes) {
  int fd = cmz_system_open(path, CMZ_OPEN_CLOSED_ON_EXEC);
  if (fd < 0) return NULL;
  long size = cmz_system_seek(fd, 0, CMZ_SEEK_END);
  void *map = size > 0
                  ? cmz_system_map(NULL, (size_t)size, CMZ_PROTECTION_READ, CMZ_MAP_SHARED, fd, 0)
                  : (void *)-1;
  close(fd);
  *bytes = size > 0 ? (size_t)size : 0;
  return map;
}
static inline void cmz_file_unmap(void *map, size_t bytes) { munmap(map, bytes); }

/* The path lies in memory of the system, or in BUFFER. NULL: not known. */
static inline const char *cmz_library_path(const void *address, char *buffer, size_t size) {
  struct cmz_dl_info info = {0};
  (void)buffer;
  (void)size;
  return cmz_system_dladdr(address, &info) ? info.file : NULL;
}

#endif
