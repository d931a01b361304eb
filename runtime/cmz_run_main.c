/* cmz_run_main.c - cmz-run: the runner for any compiled shared library. In: the command line. Out:
 * exit status. */
#include "runner.h"

extern void *dlopen(const char *path, int mode);
extern void *dlsym(void *handle, const char *name);
extern char *dlerror(void);

static const cmz_api *load(const char *path, char *error, size_t error_size) {
  char plain[4096];
  if (!strchr(path, '/') &&
      strlen(path) + 3 <
          sizeof plain) { /* a name alone would be looked for in the system's folders */
    snprintf(plain, sizeof plain, "./%s", path);
    path = plain;
  }
  void *handle = dlopen(path, 2 /* RTLD_NOW */);
  if (!handle) {
    snprintf(error, error_size, "cannot load the model: %s", dlerror());
    return NULL;
  }
  const cmz_api *(*get)(void);
  void *symbol = dlsym(handle, "cmz_model_api");
  memcpy(&get, &symbol, sizeof get);
  if (!symbol) {
    snprintf(error, error_size, "\"%s\" is not a model that cmzc has compiled", path);
    return NULL;
  }
  return get();
}

int main(int argument_count, char **arguments) {
  return cmz_runner_run(argument_count, arguments, NULL, load);
}
