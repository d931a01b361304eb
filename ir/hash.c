/* hash.c - hashing of byte strings: 64 bits for tables, 128 bits for keys of the kernel cache.
 * In: bytes. Out: numbers that are the same on every machine and in every version. Not
 * cryptographic. Always holds: words are read little-endian whatever the machine is. */
#include "base.h"

static const uint64_t K0 = 0x9e3779b97f4a7c15u, K1 = 0xc2b2ae3d27d4eb4fu, K2 = 0x165667b19e3779f9u,
                      K3 = 0xd6e8feb86659fd93u;

static uint64_t fold(uint64_t a, uint64_t b) {
  unsigned __int128 product = (unsigned __int128)a * b;
  return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t rotate(uint64_t x, unsigned n) { return x << n | x >> (64 - n); }

/* The next word of up to 8 bytes. */
static uint64_t word_at(const uint8_t *data, size_t size) {
  uint64_t w = 0;
  if (size >= 8) {
    memcpy(&w, data, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    w = __builtin_bswap64(w);
#endif
    return w;
  }
  for (size_t i = 0; i < size; i++) w |= (uint64_t)data[i] << (8 * i);
  return w;
}

static uint64_t finish(uint64_t h) {
  h ^= h >> 32;
  h *= K3;
  h ^= h >> 29;
  h *= K1;
  return h ^ h >> 32;
}

uint64_t cmz_hash64(const void *data, size_t size, uint64_t seed) {
  const uint8_t *bytes = data;
  uint64_t h = fold(seed ^ K0, K1) ^ (uint64_t)size * K2;
  for (size_t i = 0; i < size; i += 8) {
    uint64_t w = word_at(bytes + i, size - i);
    h = fold(h ^ w, K0) + rotate(w * K3, 29);
  }
  return finish(h);
}

cmz_hash128 cmz_hash_bytes(const void *data, size_t size) {
  const uint8_t *bytes = data;
  uint64_t a = K1 ^ (uint64_t)size, b = K2 + (uint64_t)size * K3;
  for (size_t i = 0; i < size; i += 8) {
    uint64_t w = word_at(bytes + i, size - i);
    a = fold(a ^ w, K0) + rotate(w * K3, 29);
    b = (rotate(b, 27) ^ w * K1) * K2 + a;
  }
  return (cmz_hash128){finish(a + rotate(b, 17)), finish(b ^ rotate(a, 41))};
}
