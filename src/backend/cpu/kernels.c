#include "reference/reference.h"
#include "state.h"

#if defined(CLM_CPU_AVX512VNNI)
#define LEVELS(X) X(CPU_BASELINE, baseline) X(CPU_AVX2, avx2) X(CPU_AVX512, avx512) X(CPU_AVX512VNNI, avx512vnni)
#elif defined(__x86_64__)
#define LEVELS(X) X(CPU_BASELINE, baseline) X(CPU_AVX2, avx2) X(CPU_AVX512, avx512)
#elif defined(__aarch64__)
#define LEVELS(X) X(CPU_BASELINE, baseline) X(CPU_NEON, neon)
#else
#define LEVELS(X) X(CPU_BASELINE, baseline)
#endif

#define X(level, set)                                                                                                \
  void cpu_kernels_init_##set(backend_ops *);                                                                        \
  double cpu_limits_exponentials_##set(int64_t, double *);                                                           \
  double cpu_limits_read_##set(const char *, size_t);
LEVELS(X)
#undef X

void cpu_kernels_init(backend_ops *ops, cpu_level level) {
  *ops = (backend_ops){
#define X(name, shape) .name = ref_##name,
      BACKEND_OPS(X)
#undef X
  };
#define X(needed, set)                                                                                               \
  if (level >= needed && cpu_has(needed)) cpu_kernels_init_##set(ops);
  LEVELS(X)
#undef X
}

double cpu_limits_exponentials(cpu_level level, int64_t steps, double *sum) {
  double (*best)(int64_t, double *) = NULL;
#define X(needed, set)                                                                                               \
  if (level >= needed && cpu_has(needed)) best = cpu_limits_exponentials_##set;
  LEVELS(X)
#undef X
  return best ? best(steps, sum) : 0;
}

double cpu_limits_read(cpu_level level, const char *from, size_t bytes) {
  double (*best)(const char *, size_t) = cpu_limits_read_baseline;
#define X(needed, set)                                                                                               \
  if (level >= needed && cpu_has(needed)) best = cpu_limits_read_##set;
  LEVELS(X)
#undef X
  return best(from, bytes);
}
