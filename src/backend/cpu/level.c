#define _GNU_SOURCE
#include "level.h"
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>

static bool has_f16c(void) { /* which __builtin_cpu_supports knows in some compilers only */
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
}
#endif

bool cpu_has(cpu_level level) {
  switch (level) {
  case CPU_REFERENCE:
  case CPU_BASELINE: return true;
#if defined(__x86_64__)
  case CPU_AVX2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  case CPU_AVX512:
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") && cpu_has(CPU_AVX2);
#if defined(CLM_CPU_AVX512VNNI)
  case CPU_AVX512VNNI:
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16") && cpu_has(CPU_AVX512);
#endif
#elif defined(__aarch64__)
  case CPU_NEON: return true;
#endif
  default: return false;
  }
}

cpu_level cpu_best_level(void) {
  for (int level = CPU_LEVEL_COUNT - 1; level > CPU_BASELINE; level--)
    if (cpu_has((cpu_level)level)) return (cpu_level)level;
  return CPU_BASELINE;
}

const char *cpu_level_name(cpu_level level) {
  static const char *const names[] = {
#define X(name, text) text,
      CPU_LEVEL_LIST(X)
#undef X
  };
  return names[level];
}

int cpu_available_processors(void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  long online = sysconf(_SC_NPROCESSORS_ONLN);
  return online > 0 ? (int)online : 1;
}

void cpu_model_name(char *name, size_t size) {
  snprintf(name, size, "CPU");
  FILE *file = fopen("/proc/cpuinfo", "r");
  if (!file) return;
  char line[256];
  while (fgets(line, sizeof line, file)) {
    const char *value = strchr(line, ':');
    if (strncmp(line, "model name", strlen("model name")) != 0 || !value) continue;
    value += strspn(value, ": \t");
    snprintf(name, size, "%.*s", (int)strcspn(value, "\n"), value);
    break;
  }
  fclose(file);
}
