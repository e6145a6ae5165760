/* Elements in storage and in arithmetic: load_<type>(pointer, index) gives a float (c64: a float2), store_<type>
 * rounds one to nearest even, load16_<type> gives sixteen neighbours. The type arrives as a define, so that one
 * kernel source serves all: LOAD(X_TYPE, x, i). */
typedef float storage_f32;
typedef ushort storage_f16; /* half itself is an optional type; its bits are not */
typedef ushort storage_bf16;
typedef char storage_i8; /* read only: integers beside an f32 scale for each row */
typedef float2 storage_c64;

#define load_f32(p, i)     ((p)[i])
#define store_f32(p, i, x) ((p)[i] = (x))
#define load_c64(p, i)     ((p)[i])
#define store_c64(p, i, x) ((p)[i] = (x))

static inline float load_f16(__global const ushort *p, long i) { return vload_half(i, (__global const half *)p); }
static inline float load_bf16(__global const ushort *p, long i) { return as_float((uint)p[i] << 16); }

static inline float load_i8(__global const char *p, long i) { return (float)p[i]; }

static inline void store_f16(__global ushort *p, long i, float x) { vstore_half_rte(x, i, (__global half *)p); }
#ifdef CLM_PTX_BF16
static inline ushort bf16_bits(float x) {
  ushort r;
  __asm__("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(x));
  return r;
}
#else
static inline ushort bf16_bits(float x) {
  const uint bits = as_uint(x), rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return (ushort)(isnan(x) ? (bits >> 16) | 0x40u : rounded);
}
#endif
/* What is so large that the nearest is infinity is cut instead. */
static inline ushort finite_bf16_bits(float x) {
  const ushort bits = bf16_bits(x);
  return (bits & 0x7fff) == 0x7f80 && isfinite(x) ? (ushort)(as_uint(x) >> 16) : bits;
}
static inline void store_bf16(__global ushort *p, long i, float x) { p[i] = bf16_bits(x); }

static inline float16 load16_f32(__global const float *p, long i) { return vload16(0, p + i); }
static inline float16 load16_f16(__global const ushort *p, long i) {
  return vload_half16(0, (__global const half *)(p + i));
}
static inline float16 load16_bf16(__global const ushort *p, long i) {
  return as_float16(convert_uint16(vload16(0, p + i)) << (uint16)(16));
}

static inline float16 load16_i8(__global const char *p, long i) { return convert_float16(vload16(0, p + i)); }

/* What lies in storage, and the number it stands for: who fetches ahead keeps the first and takes the second when it
 * is needed, or the conversion waits for the memory. */
#define value_f32(bits) (bits)
#define value_c64(bits) (bits)
#ifdef CLM_PTX
static inline float value_f16(ushort bits) {
  float r;
  __asm__("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(bits));
  return r;
}
#else
static inline float value_f16(ushort bits) { return vload_half(0, (const __private half *)&bits); }
#endif
static inline float value_bf16(ushort bits) { return as_float((uint)bits << 16); }

/* Whether there are such scales. */
#define scaled_f32           0
#define scaled_f16           0
#define scaled_bf16          0
#define scaled_i8            1

#define STORAGE_PASTE(a, b)  a##b
#define STORAGE(type)        STORAGE_PASTE(storage_, type)
#define LOAD_BY(type)        STORAGE_PASTE(load_, type)
#define STORE_BY(type)       STORAGE_PASTE(store_, type)
#define LOAD(type, p, i)     LOAD_BY(type)(p, i)
#define STORE(type, p, i, x) STORE_BY(type)(p, i, x)
#define LOAD16_BY(type)      STORAGE_PASTE(load16_, type)
#define LOAD16(type, p, i)   LOAD16_BY(type)(p, i)
#define SCALED(type)         STORAGE_PASTE(scaled_, type)
#define VALUE_BY(type)       STORAGE_PASTE(value_, type)
#define VALUE(type, bits)    VALUE_BY(type)(bits)
