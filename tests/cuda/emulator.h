/* emulator.h - what the files of the CUDA emulator share. */
#ifndef CMZ_EMULATOR_H
#define CMZ_EMULATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Writes the C translation of the module PTX to OUT; false with a message in ERROR. translate.c */
bool cmz_emulator_translate(const char *ptx, FILE *out, char *error, size_t error_size);

#endif
