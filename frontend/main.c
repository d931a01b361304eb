#include "cmzc.h"
int main(int argc, char **argv) { return cmzc_compile(argc - 1, (const char *const *)argv + 1, NULL); }
