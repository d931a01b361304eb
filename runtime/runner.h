/* runner.h - what the files of cmz-run share, and the C library functions that they use beyond
 * system.h. The runner is a program: it prints and returns exit statuses; it is also linked, as
 * bitcode, into compiled executables. */
#ifndef CMZ_RUNTIME_RUNNER_H
#define CMZ_RUNTIME_RUNNER_H

#include "cmz.h"
#include "system.h"

extern void *malloc(size_t size);
extern void *calloc(size_t count, size_t size);
extern void *realloc(void *memory, size_t size);
extern char *strchr(const char *text, int c);
extern char *strrchr(const char *text, int c);
extern int strncmp(const char *a, const char *b, size_t n);
extern long long strtoll(const char *restrict text, char **restrict end, int base);
extern void qsort(void *base, size_t count, size_t size,
                  int (*compare)(const void *, const void *));
extern long cmz_system_read(int fd, void *buffer, size_t size) __asm__("read");
extern long cmz_system_write(int fd, const void *buffer, size_t size) __asm__("write");
extern int cmz_system_unlink(const char *path) __asm__("unlink");
extern int cmz_system_mkdir(const char *path, unsigned mode) __asm__("mkdir");
extern int cmz_system_unlink(const char *path) __asm__("unlink");

/* Text that grows; printed or written at the end. */
typedef struct cmz_out {
  char *data;
  size_t length, capacity;
  bool incomplete; /* memory ran out: flushing it fails */
} cmz_out;
void cmz_out_add(cmz_out *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
void cmz_out_bytes(cmz_out *out, const void *data, size_t size);
/* A JSON string with its quotes. */
void cmz_out_json(cmz_out *out, const char *text);
int cmz_out_flush(cmz_out *out, int fd);
/* `cmz-run: error: …` on stderr; returns STATUS. */
int cmz_complain(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* npy.c: a tensor in memory of its own. STRINGS' data is a table of char pointers in the same
 * block. */
int cmz_npy_read(const char *path, uint32_t wanted_element, cmz_tensor *tensor);
int cmz_npy_write(const char *path, const cmz_tensor *tensor);
int cmz_file_read(const char *path, uint8_t **data, size_t *size);
const char *cmz_element_text(uint32_t element);
uint32_t cmz_element_width(uint32_t element); /* bits */
size_t cmz_element_count(const cmz_tensor *tensor);

/* report.c */
typedef struct cmz_timing {
  uint64_t *samples; /* nanoseconds, sorted */
  uint32_t count;
} cmz_timing;
void cmz_report_ports(cmz_out *out, const cmz_api *api, const cmz_value *inputs,
                      const cmz_value *outputs);
void cmz_report_info(cmz_out *out, const cmz_api *api, uint32_t threads);
void cmz_report_timing(cmz_out *out, const cmz_timing *timing);
void cmz_report_profile(cmz_out *out, const cmz_api *api, const cmz_model *model, uint32_t runs,
                        uint32_t threads);
void cmz_report_json(cmz_out *out, const cmz_api *api, const cmz_model *model,
                     const cmz_value *inputs, const cmz_value *outputs, const cmz_timing *timing,
                     uint32_t threads, uint32_t profiled_runs);
/* What the machine can do with THREADS: measured, a few milliseconds. */
void cmz_machine_limits(uint32_t threads, double *flops_per_second, double *bytes_per_second);

/* cmz_run.c. LOAD opens a model for cmz-run and is NULL in an executable, which has its own. */
typedef const cmz_api *cmz_runner_load(const char *path, char *error, size_t error_size);
int cmz_runner_run(int argument_count, char **arguments, const cmz_api *api, cmz_runner_load *load);
int cmz_runner_main(int argument_count, char **arguments, const cmz_api *api);

#endif
