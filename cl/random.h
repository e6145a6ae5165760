/* Counter-based random bits, the same in C and in OpenCL C: 32-bit integer arithmetic only, so that a dropout mask is
 * equal bit for bit on every backend. The counter is the element's number in row-major order of the logical shape,
 * whatever the strides. */
#ifndef CLM_RANDOM_H
#define CLM_RANDOM_H

#ifdef __OPENCL_VERSION__
typedef uint random_u32;
typedef ulong random_u64;
#else
#include <stdint.h>
typedef uint32_t random_u32;
typedef uint64_t random_u64;
#endif

/* A bijection of 32 bits in which every input bit flips every output bit about half the time. */
static inline random_u32 random_mix(random_u32 x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  x ^= x >> 16;
  return x;
}

/* Two rounds with a key before each: one round alone would give every seed the same bits in another order. */
static inline random_u32 random_bits(random_u64 seed, random_u64 number) {
  random_u32 key = random_mix((random_u32)(seed >> 32) + 0x9e3779b9u) ^ (random_u32)seed;
  random_u32 x = random_mix((random_u32)number ^ random_mix(key)) + random_mix(key + 0x85ebca6bu);
  return random_mix(x ^ random_mix((random_u32)(number >> 32) + 0xc2b2ae35u));
}

/* An element is kept where its upper 24 bits reach this; exact, since rate * 2^24 only moves the exponent. */
static inline random_u32 random_threshold(float rate) { return (random_u32)(rate * 16777216.0f); }
static inline int random_keep(random_u32 bits, random_u32 threshold) { return (bits >> 8) >= threshold; }

#endif
