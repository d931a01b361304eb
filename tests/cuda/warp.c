/* warp.c - what the instructions of a whole warp compute: shuffles, votes, reductions, ldmatrix and
 * mma. In: each lane's words. Out: each lane's words. Fragment layouts are those of the PTX ISA
 * (sections "ldmatrix" and "mma": row = lane / 4, pairs of columns = lane % 4), not measured on a
 * device here. Always holds: sums of an mma are kept in double and rounded once to f32. */
#include "group.h"

static void shuffle(fibre *first, uint32_t mask, const emulator_collective *c) {
  uint32_t values[WARP], ok[WARP];
  for (uint32_t lane = 0; lane < WARP; lane++) {
    if (!(mask >> lane & 1)) continue;
    uint32_t b = first[lane].in[1] & 31, clamp = first[lane].in[2] & 31,
             segment = first[lane].in[2] >> 8 & 31, low = lane & segment;
    int last = (int)(low | (clamp & ~segment)), from = (int)lane;
    bool valid = false;
    switch (c->kind) {
    case COLLECTIVE_SHUFFLE_UP:
      valid = (from = (int)lane - (int)b) >= last;
      break;
    case COLLECTIVE_SHUFFLE_DOWN:
      valid = (from = (int)(lane + b)) <= last;
      break;
    case COLLECTIVE_SHUFFLE_BFLY:
      valid = (from = (int)(lane ^ b)) <= last;
      break;
    default:
      valid = (from = (int)(low | (b & ~segment))) <= last;
      break;
    }
    if (!valid) from = (int)lane;
    if (!(mask >> from & 1))
      emulator_fail(&first[lane].thread, c->line, "shuffle from lane %d, which is not there", from);
    values[lane] = first[from].in[0];
    ok[lane] = valid;
  }
  for (uint32_t lane = 0; lane < WARP; lane++)
    if (mask >> lane & 1) first[lane].out[0] = values[lane], first[lane].out[1] = ok[lane];
}

static void vote(fibre *first, uint32_t mask, const emulator_collective *c) {
  uint32_t ballot = 0;
  for (uint32_t lane = 0; lane < WARP; lane++)
    if (mask >> lane & 1) ballot |= first[lane].in[0] << lane;
  uint32_t result = c->kind == COLLECTIVE_VOTE_ALL   ? ballot == mask
                    : c->kind == COLLECTIVE_VOTE_ANY ? ballot != 0
                    : c->kind == COLLECTIVE_VOTE_UNI ? ballot == mask || ballot == 0
                                                     : ballot;
  for (uint32_t lane = 0; lane < WARP; lane++)
    if (mask >> lane & 1) first[lane].out[0] = result;
}

static uint32_t reduce(int operation, uint32_t x, uint32_t y) {
  switch (operation) { /* the order of do_redux's table */
  case 0:
  case 1:
    return x + y;
  case 2:
    return (uint32_t)min_s32((int32_t)x, (int32_t)y);
  case 3:
    return (uint32_t)max_s32((int32_t)x, (int32_t)y);
  case 4:
    return min_u32(x, y);
  case 5:
    return max_u32(x, y);
  case 6:
    return x & y;
  case 7:
    return x | y;
  default:
    return x ^ y;
  }
}
static void redux(fibre *first, uint32_t mask, const emulator_collective *c) {
  uint32_t result = 0;
  bool any = false;
  for (uint32_t lane = 0; lane < WARP; lane++) {
    if (!(mask >> lane & 1)) continue;
    result = any ? reduce(c->operation, result, first[lane].in[0]) : first[lane].in[0];
    any = true;
  }
  for (uint32_t lane = 0; lane < WARP; lane++)
    if (mask >> lane & 1) first[lane].out[0] = result;
}

/* Lane 8 i + r gives the address of row r of matrix i; lane l gets elements 2 (l % 4) and the next
 * of row l / 4, or, transposed, of column l / 4. */
static void ldmatrix(fibre *first, const emulator_collective *c) {
  for (uint32_t i = 0; i < (uint32_t)c->count; i++)
    for (uint32_t row = 0; row < 8; row++) {
      uint32_t address = first[8 * i + row].in[0];
      if (address % 16)
        emulator_fail(&first[8 * i + row].thread, c->line,
                      "misaligned row of ldmatrix at byte %u of shared memory", address);
      for (uint32_t at = 0; at < 8; at += 2) {
        uint32_t lane = c->transposed ? 4 * at + row / 2 : 4 * row + at / 2;
        if (!c->transposed) {
          const uint8_t *p = emulator_shared(&first[lane].thread, address + 2 * at, 4, 0, c->line);
          memcpy(&first[lane].out[i], p, 4);
          continue;
        }
        for (uint32_t e = 0; e < 2; e++) { /* element at + e goes to the lanes of column at + e */
          uint16_t x;
          lane = 4 * (at + e) + row / 2;
          memcpy(&x, emulator_shared(&first[lane].thread, address + 2 * (at + e), 2, 0, c->line),
                 2);
          uint32_t *out = &first[lane].out[i];
          *out = row % 2 ? (*out & 0xffff) | (uint32_t)x << 16 : (*out & 0xffff0000u) | x;
        }
      }
    }
}

static double element(uint32_t word, int at, element_kind kind) {
  switch (kind) {
  case E_F16:
    return (double)as_f16((uint16_t)(word >> 16 * at));
  case E_BF16:
    return (double)as_bf16((uint16_t)(word >> 16 * at));
  case E_TF32:
    return (double)as_f32(word & 0xffffe000u);
  case E_S8:
    return (double)(int8_t)(word >> 8 * at);
  default:
    return (double)(uint8_t)(word >> 8 * at);
  }
}
static int elements_of_word(element_kind kind) {
  return kind == E_TF32 ? 1 : kind <= E_BF16 ? 2 : 4;
}

/* in: C (4 words), A (4), B (2). Word r of A has row lane / 4 + 8 (r & 1), of B column lane / 4. */
static void mma(fibre *first, const emulator_collective *c) {
  double a[16][32], b[8][32];
  int e = elements_of_word(c->a), halves = c->k / (4 * e);
  for (int lane = 0; lane < WARP; lane++)
    for (int half = 0; half < halves; half++)
      for (int i = 0; i < e; i++) {
        int k = 4 * e * half + lane % 4 * e + i;
        a[lane / 4][k] = element(first[lane].in[4 + 2 * half], i, c->a);
        a[lane / 4 + 8][k] = element(first[lane].in[5 + 2 * half], i, c->a);
        b[lane / 4][k] = element(first[lane].in[8 + half], i, c->b);
      }
  for (int lane = 0; lane < WARP; lane++)
    for (int i = 0; i < 4; i++) {
      const double *row = a[lane / 4 + i / 2 * 8], *column = b[lane % 4 * 2 + i % 2];
      uint32_t word = first[lane].in[i];
      double sum = c->accumulator == E_F32 ? (double)as_f32(word) : 0;
      for (int k = 0; k < c->k; k++) sum += row[k] * column[k];
      first[lane].out[i] = c->accumulator == E_F32 ? bits_f32((float)sum)
                                                   : word + (uint32_t)(int64_t)sum; /* wraps */
    }
}

void emulator_collective_run(fibre *first, uint32_t mask, const emulator_collective *c) {
  if (c->kind >= COLLECTIVE_LDMATRIX && mask != 0xffffffffu)
    emulator_fail(&first[__builtin_ctz(mask)].thread, c->line, "%s without all lanes of the warp",
                  c->name);
  switch (c->kind) {
  case COLLECTIVE_WGMMA:
    emulator_wgmma_run(first, c);
    break;
  case COLLECTIVE_MMA:
    mma(first, c);
    break;
  case COLLECTIVE_LDMATRIX:
    ldmatrix(first, c);
    break;
  case COLLECTIVE_REDUX:
    redux(first, mask, c);
    break;
  case COLLECTIVE_VOTE_ALL:
  case COLLECTIVE_VOTE_ANY:
  case COLLECTIVE_VOTE_UNI:
  case COLLECTIVE_VOTE_BALLOT:
    vote(first, mask, c);
    break;
  default:
    shuffle(first, mask, c);
    break;
  }
}
