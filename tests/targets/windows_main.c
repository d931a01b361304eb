/* windows_main.c - windows_main.exe: reads input.npy, runs the model of model.dll on it, writes
 * output.npy, all in the current folder. Exit status: 0, or which step failed. Needs kernel32
 * alone. */
#include "foreign.h"

extern void *CreateFileA(const char *path, uint32_t access, uint32_t share, void *security,
                         uint32_t disposition, uint32_t flags, void *pattern);
extern int ReadFile(void *file, void *buffer, uint32_t size, uint32_t *done, void *overlapped);
extern int WriteFile(void *file, const void *buffer, uint32_t size, uint32_t *done,
                     void *overlapped);
extern int CloseHandle(void *handle);
extern void *GetStdHandle(uint32_t number);
extern void *LoadLibraryA(const char *path);
extern void *GetProcAddress(void *library, const char *name);
extern void ExitProcess(uint32_t status);

int _fltused;
static uint8_t input[1 << 20], output[1 << 20];

void *memset(void *memory, int byte, size_t size) {
  for (size_t i = 0; i < size; i++) ((volatile uint8_t *)memory)[i] = (uint8_t)byte;
  return memory;
}

static void fail(uint32_t status, const char *text) {
  uint32_t length = 0, done;
  while (text[length]) length++;
  WriteFile(GetStdHandle((uint32_t)-12), text, length, &done, 0);
  ExitProcess(status);
}

void start(void) {
  uint32_t bytes = 0;
  void *file = CreateFileA("input.npy", 0x80000000u, 1, 0, 3, 0x80, 0);
  if (file == (void *)-1 || !ReadFile(file, input, sizeof input, &bytes, 0))
    fail(2, "cannot read input.npy\n");
  CloseHandle(file);
  void *library = LoadLibraryA("model.dll");
  if (!library) fail(3, "cannot load model.dll\n");
  const cmz_api *(*api)(void) = (const cmz_api *(*)(void))GetProcAddress(library, "cmz_model_api");
  if (!api) fail(4, "model.dll has no cmz_model_api\n");
  const char *said;
  long written = foreign_run(api(), input, bytes, 4, 50, output, sizeof output, &said);
  if (written < 0) fail(5, said);
  file = CreateFileA("output.npy", 0x40000000u, 0, 0, 2, 0x80, 0);
  if (file == (void *)-1 || !WriteFile(file, output, (uint32_t)written, &bytes, 0))
    fail(6, "cannot write output.npy\n");
  CloseHandle(file);
  ExitProcess(0);
}
