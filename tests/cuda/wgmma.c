/* wgmma.c - Hopper's asynchronous matrix instructions and the proxy that they read shared memory
 * through. In: descriptors, sums. Out: sums, when they are waited for. Layouts: PTX ISA, "wgmma":
 * matrix descriptor, shared memory matrix layout (128-byte swizzle), fragments of D; not measured
 * on a device here. Each warp computes its own 16 of the 64 rows. Always holds: until wait_group
 * the registers of sums hold a NaN, and what is read may not be written; what the generic proxy
 * wrote (st, cp.async) is read only after its thread's fence.proxy.async. */
#include "group.h"

#include <stdlib.h>

enum { SWIZZLE_128 = 1, K = 16, MOST_WORDS = 128, POISON = 0x7fc0dead };

typedef struct descriptor {
  uint32_t start, leading, stride; /* bytes */
} descriptor;

static descriptor unpacked(fibre *f, const uint32_t words[2], uint32_t line) {
  uint64_t d = (uint64_t)words[1] << 32 | words[0];
  if (d >> 62 != SWIZZLE_128 || (d >> 49 & 7) != 0)
    emulator_fail(&f->thread, line,
                  "wgmma: a descriptor that is not of the 128-byte swizzle: %#llx",
                  (unsigned long long)d);
  return (descriptor){(uint32_t)(d & 0x3fff) * 16, (uint32_t)(d >> 16 & 0x3fff) * 16,
                      (uint32_t)(d >> 32 & 0x3fff) * 16};
}

/* Where element K of POSITION lies: lines are of K, or, TRANSPOSED, of positions. */
static uint32_t place(const descriptor *d, bool transposed, uint32_t position, uint32_t k) {
  uint32_t at = transposed ? d->start + position / 64 * d->leading + k / 8 * d->stride +
                                 k % 8 * 128 + position % 64 * 2
                           : d->start + position / 8 * d->stride + position % 8 * 128 + k * 2;
  return at ^ (at >> 7 & 7) << 4;
}

static double element(fibre *f, uint32_t at, element_kind kind, uint32_t line) {
  uint16_t x;
  memcpy(&x, emulator_async_read(f, at, line), sizeof x);
  return kind == E_F16 ? (double)as_f16(x) : (double)as_bf16(x);
}

/* in: two descriptors (4 words), the sums of the lane; out: the sums. */
void emulator_wgmma_run(fibre *first, const emulator_collective *c) {
  static double a[16][K], b[256][K];
  uint32_t columns = (uint32_t)c->count * 2, warp = first->thread.warp % 4;
  descriptor rows = unpacked(first, first->in, c->line),
             of_columns = unpacked(first, first->in + 2, c->line);
  for (uint32_t k = 0; k < K; k++) {
    for (uint32_t i = 0; i < 16; i++)
      a[i][k] = element(first, place(&rows, c->transposed & 1, warp * 16 + i, k), c->a, c->line);
    for (uint32_t i = 0; i < columns; i++)
      b[i][k] = element(first, place(&of_columns, c->transposed & 2, i, k), c->b, c->line);
  }
  for (uint32_t lane = 0; lane < WARP; lane++)
    for (uint32_t i = 0; i < (uint32_t)c->count; i++) {
      const double *row = a[lane / 4 + i % 4 / 2 * 8],
                   *column = b[i / 4 * 8 + lane % 4 * 2 + i % 2];
      double sum = c->operation ? (double)as_f32(first[lane].in[4 + i]) : 0;
      for (int k = 0; k < K; k++) sum += row[k] * column[k];
      first[lane].out[i] = bits_f32((float)sum);
    }
}

/* ---- what is on its way ---- */

EXPORT void emulator_wgmma(struct thread *t, const emulator_collective *c, uint64_t rows,
                           uint64_t columns, uint32_t *const *sums) {
  fibre *f = emulator_fibre(t);
  pending_sums *p = &f->sums;
  uint32_t in[4 + MOST_WORDS] = {(uint32_t)rows, (uint32_t)(rows >> 32), (uint32_t)columns,
                                 (uint32_t)(columns >> 32)};
  bool same = p->count != 0 && p->registers[0] == sums[0];
  if (p->count != 0 && !same)
    emulator_fail(t, c->line, "wgmma into other registers while sums are on their way");
  if (!same && !f->fenced_registers)
    emulator_fail(t, c->line, "wgmma.mma_async without a wgmma.fence before it");
  for (int i = 0; i < c->count; i++) in[4 + i] = same ? p->values[i] : *sums[i];
  emulator_collective_call(t, c, 0xffffffffu, in, p->values);
  p->count = (uint32_t)c->count;
  p->batch = f->sums_batch;
  for (int i = 0; i < c->count; i++) {
    p->registers[i] = sums[i];
    *sums[i] = POISON;
  }
}
EXPORT void emulator_wgmma_fence(struct thread *t) { emulator_fibre(t)->fenced_registers = true; }
EXPORT void emulator_wgmma_commit(struct thread *t) { emulator_fibre(t)->sums_batch++; }

/* Finishes all but the last N groups. */
EXPORT void emulator_wgmma_wait(struct thread *t, uint32_t n) {
  fibre *f = emulator_fibre(t);
  pending_sums *p = &f->sums;
  f->fenced_registers = false;
  if (p->count == 0 || f->sums_batch - p->batch <= n) return; /* the batch not committed counts 0 */
  for (uint32_t i = 0; i < p->count; i++) *p->registers[i] = p->values[i];
  emulator_wgmma_drop(f);
}

void emulator_wgmma_drop(fibre *f) {
  f->sums.count = 0;
  emulator_async_reads_end(f);
}

EXPORT void emulator_proxy_fence(struct thread *t) {
  fibre *f = emulator_fibre(t);
  f->fenced_clock = f->clock++;
}
