/* What this processor can run, and the levels of kernels made from it. */
#ifndef CLM_CPU_LEVEL_H
#define CLM_CPU_LEVEL_H

#include <stdbool.h>
#include <stddef.h>

/* Ordered from the plainest; name, text */
#define CPU_LEVEL_LIST(X)                                                                                            \
  X(CPU_REFERENCE, "reference")                                                                                      \
  X(CPU_BASELINE, "baseline")                                                                                        \
  X(CPU_NEON, "neon")                                                                                                \
  X(CPU_AVX2, "avx2")                                                                                                \
  X(CPU_AVX512, "avx512")                                                                                            \
  X(CPU_AVX512VNNI, "avx512vnni")

typedef enum cpu_level {
#define X(name, text) name,
  CPU_LEVEL_LIST(X)
#undef X
      CPU_LEVEL_COUNT
} cpu_level;

/* Whether this processor and operating system run kernels of that level, and this build has them. */
bool cpu_has(cpu_level);
cpu_level cpu_best_level(void);
const char *cpu_level_name(cpu_level);
int cpu_available_processors(void);
void cpu_model_name(char *name, size_t size);

#endif
