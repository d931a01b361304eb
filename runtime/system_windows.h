/* system_windows.h - Windows for system.h: kernel32 and the universal C library. Always holds: only
 * names that both have had since Windows 10; `long` has 32 bits here. */
#ifndef CMZ_RUNTIME_SYSTEM_WINDOWS_H
#define CMZ_RUNTIME_SYSTEM_WINDOWS_H

#define CMZ_SYSTEM_THREADS 1

extern void *_aligned_malloc(size_t size, size_t alignment);
extern void _aligned_free(void *memory);

static inline void *cmz_block_take(size_t alignment, size_t bytes) {
  return _aligned_malloc(bytes, alignment);
}
static inline void cmz_block_give(void *memory) { _aligned_free(memory); }

/* The C library exports no other printf. Option 2: the result and the ending zero are the
 * standard's. */
extern int __stdio_common_vsprintf(uint64_t options, char *buffer, size_t size, const char *format,
                                   void *locale, va_list args);
static inline int cmz_vsnprintf(char *buffer, size_t size, const char *format, va_list args) {
  return __stdio_common_vsprintf(2, buffer, size, format, NULL, args);
}
__attribute__((format(printf, 3, 4))) static inline int cmz_snprintf(char *buffer, size_t size,
                                                                     const char *format, ...) {
  va_list args;
  va_start(args, format);
  int length = cmz_vsnprintf(buffer, size, format, args);
  va_end(args);
  return length;
}
#define vsnprintf cmz_vsnprintf
#define snprintf cmz_snprintf

extern int QueryPerformanceCounter(int64_t *count);
extern int QueryPerformanceFrequency(int64_t *per_second);
extern int CloseHandle(void *handle);

static inline uint64_t cmz_now(void) {
  int64_t count = 0, per_second = 0;
  QueryPerformanceCounter(&count);
  QueryPerformanceFrequency(&per_second);
  if (per_second <= 0) return 0;
  uint64_t whole = (uint64_t)(count / per_second), rest = (uint64_t)(count % per_second);
  return whole * 1000000000u + rest * 1000000000u / (uint64_t)per_second;
}

/* ---- cores ---- */

struct cmz_processor_information {
  uintptr_t mask;
  uint32_t relation; /* 0: the processors in `mask` share a core */
  uint32_t padding;
  uint64_t detail[2];
};
extern int GetLogicalProcessorInformation(struct cmz_processor_information *rows, uint32_t *bytes);
extern uint32_t GetActiveProcessorCount(uint16_t group);

static inline uint32_t cmz_core_count(void) {
  struct cmz_processor_information rows[96]; /* more than a page of stack would need a probe */
  uint32_t bytes = sizeof rows, count = 0;
  if (!GetLogicalProcessorInformation(rows, &bytes))
    count = GetActiveProcessorCount(0xffff /* all groups */);
  else
    for (uint32_t i = 0; i < bytes / sizeof rows[0]; i++) count += rows[i].relation == 0;
  return count ? count : 1;
}

/* ---- threads ---- */

typedef void *cmz_thread;
typedef uint32_t cmz_thread_result;
extern void *CreateThread(void *security, size_t stack, cmz_thread_result (*body)(void *),
                          void *user, uint32_t flags, uint32_t *id);
extern uint32_t WaitForSingleObject(void *handle, uint32_t milliseconds);

static inline bool cmz_thread_start(cmz_thread *thread, cmz_thread_result (*body)(void *),
                                    void *user) {
  *thread = CreateThread(NULL, 0, body, user, 0, NULL);
  return *thread != NULL;
}
static inline void cmz_thread_join(cmz_thread thread) {
  WaitForSingleObject(thread, UINT32_MAX);
  CloseHandle(thread);
}

/* Both are a word that begins as zero. */
typedef struct cmz_waiter {
  void *lock, *condition;
} cmz_waiter;
extern void AcquireSRWLockExclusive(void *lock);
extern void ReleaseSRWLockExclusive(void *lock);
extern int SleepConditionVariableSRW(void *condition, void *lock, uint32_t milliseconds,
                                     uint32_t flags);
extern void WakeAllConditionVariable(void *condition);

static inline bool cmz_waiter_begin(cmz_waiter *w) {
  w->lock = w->condition = NULL;
  return true;
}
static inline void cmz_waiter_end(cmz_waiter *w) { (void)w; }
static inline void cmz_waiter_sleep(cmz_waiter *w, uint32_t *word, uint32_t value) {
  AcquireSRWLockExclusive(&w->lock);
  while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == value)
    SleepConditionVariableSRW(&w->condition, &w->lock, UINT32_MAX, 0);
  ReleaseSRWLockExclusive(&w->lock);
}
static inline void cmz_waiter_wake(cmz_waiter *w, uint32_t *word) {
  (void)
      word; /* has changed before: whoever still saw the old value holds the lock until it sleeps */
  AcquireSRWLockExclusive(&w->lock);
  WakeAllConditionVariable(&w->condition);
  ReleaseSRWLockExclusive(&w->lock);
}

/* ---- files ---- */

extern void *CreateFileA(const char *path, uint32_t access, uint32_t share, void *security,
                         uint32_t disposition, uint32_t flags, void *pattern);
extern int GetFileSizeEx(void *file, int64_t *size);
extern void *CreateFileMappingA(void *file, void *security, uint32_t protection, uint32_t high,
                                uint32_t low, const char *name);
extern void *MapViewOfFile(void *mapping, uint32_t access, uint32_t high, uint32_t low,
                           size_t bytes);
extern int UnmapViewOfFile(const void *view);
extern int GetModuleHandleExA(uint32_t flags, const char *address, void **module);
extern uint32_t GetModuleFileNameA(void *module, char *path, uint32_t size);

static inline void *cmz_file_map(const char *path, size_t *bytes) {
  void *file = CreateFileA(path, 0x80000000u /* GENERIC_READ */, 1 /* FILE_SHARE_READ */, NULL,
                           3 /* OPEN_EXISTING */, 0x80, NULL);
  if (file == (void *)-1) return NULL;
  int64_t size = 0;
  void *mapping = GetFileSizeEx(file, &size) && size > 0
                      ? CreateFileMappingA(file, NULL, 2 /* PAGE_READONLY */, 0, 0, NULL)
                      : NULL;
  void *map = mapping ? MapViewOfFile(mapping, 4 /* FILE_MAP_READ */, 0, 0, 0) : NULL;
  if (mapping) CloseHandle(mapping); /* the view keeps it */
  CloseHandle(file);
  *bytes = (size_t)size;
  return map ? map : (void *)-1;
}
static inline void cmz_file_unmap(void *map, size_t bytes) {
  (void)bytes;
  UnmapViewOfFile(map);
}

static inline const char *cmz_library_path(const void *address, char *buffer, size_t size) {
  void *module = NULL;
  if (!GetModuleHandleExA(6 /* by address, no reference kept */, address, &module)) return NULL;
  uint32_t length = GetModuleFileNameA(module, buffer, (uint32_t)size);
  return length && length < size ? buffer : NULL;
}

#endif
