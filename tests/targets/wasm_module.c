/* wasm_module.c - a WebAssembly module around a model, for run_wasm.mjs: the few functions of a C
 * library that the model asks for, and foreign.h's run. Built for wasm32 and linked by wasm-ld with
 * the model's archive. Memory is given out and never taken back. */
#include "foreign.h"

extern const cmz_api *model_api(void);
extern unsigned char __heap_base;

static uintptr_t heap_end;
static uint8_t *input, *output;
static size_t output_capacity;
static const char *message;

static void *take(size_t alignment, size_t size) {
  uintptr_t at = heap_end ? heap_end : (uintptr_t)&__heap_base;
  at = (at + alignment - 1) & ~(uintptr_t)(alignment - 1);
  heap_end = at + size;
  size_t pages = __builtin_wasm_memory_size(0), wanted = (heap_end + 65535) / 65536;
  if (wanted > pages && __builtin_wasm_memory_grow(0, wanted - pages) == (size_t)-1) return 0;
  return (void *)at;
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
  *memory = take(alignment, size);
  return *memory ? 0 : 12;
}
void free(void *memory) { (void)memory; }
void *memcpy(void *to, const void *from, size_t size) {
  for (size_t i = 0; i < size; i++) ((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
  return to;
}
void *memmove(void *to, const void *from, size_t size) {
  if (to <= from) return memcpy(to, from, size);
  for (size_t i = size; i-- > 0;) ((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
  return to;
}
void *memset(void *memory, int byte, size_t size) {
  for (size_t i = 0; i < size; i++) ((volatile uint8_t *)memory)[i] = (uint8_t)byte;
  return memory;
}
int memcmp(const void *a, const void *b, size_t size) {
  const uint8_t *x = a, *y = b;
  for (size_t i = 0; i < size; i++)
    if (x[i] != y[i]) return x[i] - y[i];
  return 0;
}
size_t strlen(const char *text) {
  size_t size = 0;
  while (text[size]) size++;
  return size;
}
int strcmp(const char *a, const char *b) {
  while (*a && *a == *b) a++, b++;
  return (uint8_t)*a - (uint8_t)*b;
}
/* The format as it is: only messages of failures are made with it here. */
int vsnprintf(char *buffer, size_t size, const char *format, __builtin_va_list args) {
  size_t i = 0;
  (void)args;
  for (; format[i] && i + 1 < size; i++) buffer[i] = format[i];
  if (size) buffer[i] = 0;
  return (int)i;
}

__attribute__((export_name("take_input"))) uint8_t *take_input(size_t bytes) {
  input = take(64, bytes);
  return input;
}
__attribute__((export_name("run"))) long run(size_t bytes, uint32_t threads, uint32_t runs) {
  output_capacity = 1 << 20;
  output = take(64, output_capacity);
  return output ? foreign_run(model_api(), input, bytes, threads, runs, output, output_capacity,
                              &message)
                : FOREIGN_TOO_LARGE;
}
__attribute__((export_name("output"))) uint8_t *output_bytes(void) { return output; }
__attribute__((export_name("message"))) const char *said(void) { return message; }
