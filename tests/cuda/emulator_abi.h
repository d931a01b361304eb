/* emulator_abi.h - what translated kernels are written in: threads, checked memory, PTX's
 * arithmetic as C (PTX ISA 8.0, sections 9.7.1 to 9.7.9). Included by generated code only. Always
 * holds: an access outside of live memory, or one that is not aligned to its size, ends the launch
 * with a message. */
#ifndef CMZ_EMULATOR_ABI_H
#define CMZ_EMULATOR_ABI_H
#define EXPORT __attribute__((visibility("default")))

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct thread {
  uint32_t tid[3], ntid[3], ctaid[3], nctaid[3];
  uint32_t index, lane, warp;
  /* Where the launch's own shared memory begins, and its size */
  uint32_t dynamic, dynamic_bytes;
  uint64_t window; /* generic address of shared memory's byte 0 */
  const uint8_t *local;
  uint64_t local_bytes;
  const uint8_t *low, *high; /* of the allocation used last */
};

/* What the launcher must know of an entry; exported as emulator_kernel_NAME. */
typedef struct emulator_kernel {
  uint32_t shared_bytes;
  int fibres; /* some instruction needs other threads */
  uint32_t param_count;
  const uint16_t *param_bytes; /* of each */
} emulator_kernel;

typedef enum collective_kind {
  COLLECTIVE_BARRIER,
  COLLECTIVE_SHUFFLE_IDX,
  COLLECTIVE_SHUFFLE_UP,
  COLLECTIVE_SHUFFLE_DOWN,
  COLLECTIVE_SHUFFLE_BFLY,
  COLLECTIVE_VOTE_ALL,
  COLLECTIVE_VOTE_ANY,
  COLLECTIVE_VOTE_UNI,
  COLLECTIVE_VOTE_BALLOT,
  COLLECTIVE_REDUX,    /* operation: of a reduction */
  COLLECTIVE_LDMATRIX, /* count matrices */
  COLLECTIVE_MMA,
  /* Count sums a lane; transposed: 1 A, 2 B; operation: whether sums are added to */
  COLLECTIVE_WGMMA
} collective_kind;
typedef enum element_kind { E_F16, E_BF16, E_TF32, E_S8, E_U8, E_F32, E_S32 } element_kind;

/* One warp-wide instruction. in and out of emulator_collective_call are words, as many as it needs.
 */
typedef struct emulator_collective {
  collective_kind kind;
  uint32_t line;
  int aligned;
  const char *name;
  int operation, count, transposed;
  int k;                          /* mma: m is 16, n is 8 */
  element_kind a, b, accumulator; /* mma */
} emulator_collective;

uint8_t *emulator_access_slow(struct thread *t, uint64_t address, uint32_t bytes, int store,
                              const char *space, uint32_t line);
uint8_t *emulator_shared(struct thread *t, uint64_t offset, uint32_t bytes, int how, uint32_t line);
_Noreturn void emulator_trap(struct thread *t, uint32_t line);
uint32_t emulator_active(struct thread *t);
void emulator_collective_call(struct thread *t, const emulator_collective *c, uint32_t mask,
                              const uint32_t *in, uint32_t *out);
void emulator_wgmma(struct thread *t, const emulator_collective *c, uint64_t rows, uint64_t columns,
                    uint32_t *const *sums);
void emulator_wgmma_fence(struct thread *t);
void emulator_wgmma_commit(struct thread *t);
void emulator_wgmma_wait(struct thread *t, uint32_t n);
void emulator_proxy_fence(struct thread *t);
uint32_t emulator_barrier(struct thread *t, uint32_t id, uint32_t count, uint32_t value, int wait,
                          int aligned, uint32_t line);
void emulator_copy_async(struct thread *t, uint64_t to, uint64_t from, uint32_t bytes,
                         uint32_t source_bytes, uint32_t line);
void emulator_copy_commit(struct thread *t);
void emulator_copy_wait(struct thread *t, uint32_t n, int all);

static inline void emulator_local(struct thread *t, const uint8_t *depot, uint64_t bytes) {
  t->local = depot;
  t->local_bytes = bytes;
}
/* STORE: 0 a load, 1 a store, 2 an atomic. */
static inline uint8_t *emulator_access(struct thread *t, uint64_t address, uint32_t bytes,
                                       int store, const char *space, uint32_t line) {
  uint8_t *p = (uint8_t *)(uintptr_t)address;
  if (p >= t->low && p + bytes <= t->high && address % bytes == 0) return p;
  return emulator_access_slow(t, address, bytes, store, space, line);
}

#define CAST(name, T, U)                                                                           \
  static inline T as_##name(U x) {                                                                 \
    T y;                                                                                           \
    memcpy(&y, &x, sizeof y);                                                                      \
    return y;                                                                                      \
  }                                                                                                \
  static inline U bits_##name(T x) {                                                               \
    U y;                                                                                           \
    memcpy(&y, &x, sizeof y);                                                                      \
    return y;                                                                                      \
  }
CAST(f32, float, uint32_t)
CAST(f64, double, uint64_t)
CAST(f16, _Float16, uint16_t)
static inline float as_bf16(uint16_t x) { return as_f32((uint32_t)x << 16); }
static inline uint16_t bits_bf16(float x) { /* to nearest even; NaN is the canonical one */
  uint32_t u = bits_f32(x);
  if (x != x) return 0x7fff;
  return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* f32 to tf32: the 10 leading bits of the mantissa, to nearest, ties away from zero. */
static inline uint32_t round_tf32(uint32_t u) {
  if ((u & 0x7f800000) == 0x7f800000) return u & 0x7fffff ? 0x7fffffff : u;
  return (u + 0x1000) & 0xffffe000u;
}

#define INTEGERS(T, name)                                                                          \
  static inline T divide_##name(T x, T y) {                                                        \
    return y == 0 ? (T) ~(T)0 : y == (T)-1 && (T)-1 < (T)1 ? (T)(0 - (uint64_t)x) : (T)(x / y);    \
  }                                                                                                \
  static inline T remainder_##name(T x, T y) {                                                     \
    return y == 0 ? x : y == (T)-1 && (T)-1 < (T)1 ? 0 : (T)(x % y);                               \
  }                                                                                                \
  static inline T min_##name(T x, T y) { return x < y ? x : y; }                                   \
  static inline T max_##name(T x, T y) { return x > y ? x : y; }
INTEGERS(int16_t, s16)
INTEGERS(uint16_t, u16)
INTEGERS(int32_t, s32)
INTEGERS(uint32_t, u32)
INTEGERS(int64_t, s64)
INTEGERS(uint64_t, u64)
#define FLOATS(T, name)                                                                            \
  static inline T min_##name(T x, T y) {                                                           \
    return x != x ? y : y != y ? x : x < y || (x == y && signbit(x)) ? x : y;                      \
  }                                                                                                \
  static inline T max_##name(T x, T y) {                                                           \
    return x != x ? y : y != y ? x : x > y || (x == y && !signbit(x)) ? x : y;                     \
  }                                                                                                \
  static inline T min_nan_##name(T x, T y) {                                                       \
    return x != x || y != y ? (T)NAN : min_##name(x, y);                                           \
  }                                                                                                \
  static inline T max_nan_##name(T x, T y) { return x != x || y != y ? (T)NAN : max_##name(x, y); }
FLOATS(float, f32)
FLOATS(float, f16)
FLOATS(float, bf16)
FLOATS(double, f64)

static inline int is_num(double x, double y) { return x == x && y == y; }
static inline int is_ne(double x, double y) { return is_num(x, y) && x != y; }
static inline double round_rni(double x) { return rint(x); }
static inline double round_rzi(double x) { return trunc(x); }
static inline double round_rmi(double x) { return floor(x); }
static inline double round_rpi(double x) { return ceil(x); }

/* Conversions from floats saturate; NaN gives 0. */
#define SATURATE(T, name, low, high)                                                               \
  static inline T saturate_##name(double x) {                                                      \
    return x != x ? 0 : x <= (double)(low) ? (T)(low) : x >= (double)(high) ? (T)(high) : (T)x;    \
  }                                                                                                \
  static inline T clamp_##name(__int128 x) {                                                       \
    return x < (low) ? (T)(low) : x > (high) ? (T)(high) : (T)x;                                   \
  }
SATURATE(int8_t, s8, INT8_MIN, INT8_MAX)
SATURATE(uint8_t, u8, 0, UINT8_MAX)
SATURATE(int16_t, s16, INT16_MIN, INT16_MAX)
SATURATE(uint16_t, u16, 0, UINT16_MAX)
SATURATE(int32_t, s32, INT32_MIN, INT32_MAX)
SATURATE(uint32_t, u32, 0, UINT32_MAX)
SATURATE(int64_t, s64, INT64_MIN, INT64_MAX)
SATURATE(uint64_t, u64, 0, UINT64_MAX)

static inline uint32_t popcount_32(uint32_t x) { return (uint32_t)__builtin_popcount(x); }
static inline uint32_t popcount_64(uint64_t x) { return (uint32_t)__builtin_popcountll(x); }
static inline uint32_t leading_zeros_32(uint32_t x) { return x ? (uint32_t)__builtin_clz(x) : 32; }
static inline uint32_t leading_zeros_64(uint64_t x) {
  return x ? (uint32_t)__builtin_clzll(x) : 64;
}
static inline uint32_t reversed_32(uint32_t x) {
  uint32_t y = 0;
  for (int i = 0; i < 32; i++) y |= (x >> i & 1) << (31 - i);
  return y;
}
static inline uint64_t reversed_64(uint64_t x) {
  return (uint64_t)reversed_32((uint32_t)x) << 32 | reversed_32((uint32_t)(x >> 32));
}
/* prmt.b32 in its default mode: four selectors of four bits; the fourth repeats the sign. */
static inline uint32_t permute(uint32_t a, uint32_t b, uint32_t selectors) {
  uint64_t bytes = (uint64_t)b << 32 | a;
  uint32_t y = 0;
  for (int i = 0; i < 4; i++) {
    uint32_t s = selectors >> (4 * i) & 15, byte = (uint32_t)(bytes >> (8 * (s & 7))) & 255;
    if (s & 8) byte = byte & 128 ? 255 : 0;
    y |= byte << (8 * i);
  }
  return y;
}
static inline uint32_t logic3(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
  uint32_t y = 0;
  for (int i = 0; i < 32; i++)
    y |= (table >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1)) & 1) << i;
  return y;
}
static inline uint32_t funnel_left(uint32_t low, uint32_t high, uint32_t n) {
  return (uint32_t)((((uint64_t)high << 32 | low) << (n & 31)) >> 32);
}
static inline uint32_t funnel_right(uint32_t low, uint32_t high, uint32_t n) {
  return (uint32_t)(((uint64_t)high << 32 | low) >> (n & 31));
}
static inline uint32_t dot4_ss(uint32_t a, uint32_t b, uint32_t c) {
  for (int i = 0; i < 32; i += 8) c += (uint32_t)((int8_t)(a >> i) * (int8_t)(b >> i));
  return c;
}
static inline uint32_t dot4_uu(uint32_t a, uint32_t b, uint32_t c) {
  for (int i = 0; i < 32; i += 8) c += (uint32_t)((uint8_t)(a >> i) * (uint8_t)(b >> i));
  return c;
}
static inline uint32_t dot4_su(uint32_t a, uint32_t b, uint32_t c) {
  for (int i = 0; i < 32; i += 8) c += (uint32_t)((int8_t)(a >> i) * (uint8_t)(b >> i));
  return c;
}
static inline uint32_t dot4_us(uint32_t a, uint32_t b, uint32_t c) { return dot4_su(b, a, c); }
/* a * b + c rounded once: the sum in double, rounded to odd, then by the caller. */
static inline double multiply_add(double a, double b, double c) {
  double p = a * b, s = p + c, q = s - p, error = (p - (s - q)) + (c - q);
  if (error != 0 && error == error && !(bits_f64(s) & 1))
    s = nextafter(s, error > 0 ? INFINITY : -INFINITY);
  return s;
}
static inline uint16_t bits_bf16_odd(double x) { /* a double to bf16, rounded once */
  float f = (float)x;
  uint32_t u = bits_f32(f);
  if (x != x || (double)f == x || (u & 0x7f800000) == 0x7f800000) return bits_bf16(f);
  if (fabs((double)f) > fabs(x)) u--; /* towards zero, then odd */
  return bits_bf16(as_f32(u | 1));
}
#define EXTRACT(name, T, U, bits)                                                                  \
  static inline T extract_##name(T x, uint32_t position, uint32_t length) {                        \
    position &= 255, length &= 255;                                                                \
    U y = 0;                                                                                       \
    int sign =                                                                                     \
        (T)-1 < (T)1 && length                                                                     \
            ? (int)((U)x >> (position + length > bits ? bits - 1 : position + length - 1) & 1)     \
            : 0;                                                                                   \
    for (uint32_t i = 0; i < bits; i++)                                                            \
      y |= (U)(i < length && position + i < bits ? (U)x >> (position + i) & 1 : (U)sign) << i;     \
    return (T)y;                                                                                   \
  }
EXTRACT(u32, uint32_t, uint32_t, 32)
EXTRACT(s32, int32_t, uint32_t, 32)
EXTRACT(u64, uint64_t, uint64_t, 64)
EXTRACT(s64, int64_t, uint64_t, 64)

#endif
