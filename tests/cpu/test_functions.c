/* Exponentials, softplus, sigmoid and silu of every CPU level, at arguments of every exponent and sign, against long
 * double. They run as kernels do, on the pool: subnormal numbers are taken as zero there. */
#include "backend/cpu/level.h"
#include "backend/cpu/pool.h"
#include "functions.h"
#include "problem.h"
#include <float.h>
#include <stdio.h>
#include <string.h>

#if defined(CLM_CPU_AVX512VNNI)
#define LEVELS(X) X(CPU_BASELINE, baseline) X(CPU_AVX2, avx2) X(CPU_AVX512, avx512) X(CPU_AVX512VNNI, avx512vnni)
#elif defined(__x86_64__)
#define LEVELS(X) X(CPU_BASELINE, baseline) X(CPU_AVX2, avx2) X(CPU_AVX512, avx512)
#elif defined(__aarch64__)
#define LEVELS(X) X(CPU_BASELINE, baseline) X(CPU_NEON, neon)
#else
#define LEVELS(X) X(CPU_BASELINE, baseline)
#endif

#define X(level, set) void functions_##set(function_name, const float *, float *, int64_t);
LEVELS(X)
#undef X

typedef struct level_functions {
  cpu_level level;
  functions_fn run;
} level_functions;
static const level_functions levels[] = {
#define X(level, set) {level, functions_##set},
    LEVELS(X)
#undef X
};

#define LOG2E 1.44269504088896341f /* as kernels have it */

static long double want_exp(long double x) { return expl(x); }
static long double want_product(long double x) { return exp2l(x * LOG2E); }
static long double want_sigmoid(long double x) { return 1 / (1 + expl(-x)); }
static long double want_silu(long double x) { return x / (1 + expl(-x)); }
static long double want_softplus(long double x) { return x > 0 ? x + log1pl(expl(-x)) : log1pl(expl(x)); }
static long double want_slope(long double y) { return -expm1l(-y); }

/* Relative errors in units of 2^-24. Beyond them, what is below 2^-126 is flushed, in softplus with a factor 2, in
 * silu before a factor x; and at level baseline, which has no fused multiply-add, x log2(e) is rounded: |x| units. */
typedef struct function_case {
  const char *name;
  long double (*want)(long double);
  double units;
  double low, high; /* the arguments that the function is for */
} function_case;
static const function_case cases[FUNCTION_COUNT] = {
    [FUNCTION_exp] = {"exp", want_exp, 6, -INFINITY, INFINITY},
    [FUNCTION_exp_bounded] = {"exp_bounded", want_exp, 4, -INFINITY, 88},
    [FUNCTION_exp2_product] = {"exp2_product", want_product, 4, -INFINITY, INFINITY},
    [FUNCTION_exp2_near] = {"exp2_near", want_product, 4, -86.6, 86.6},
    [FUNCTION_sigmoid] = {"sigmoid", want_sigmoid, 6, -INFINITY, INFINITY},
    [FUNCTION_silu] = {"silu", want_silu, 7, -INFINITY, INFINITY},
    [FUNCTION_softplus] = {"softplus", want_softplus, 6, -INFINITY, INFINITY},
    [FUNCTION_softplus_slope] = {"softplus_slope", want_slope, 10, 0, INFINITY},
};

/* ---- Arguments: 64 of every exponent and sign, the last ones before infinity, infinities and NaN ---- */

enum { EACH = 64, ARGUMENTS = 2 * 255 * EACH + 16 };

static void fill_arguments(float *x) {
  test_random r = random_seeded(1, "functions");
  for (uint32_t i = 0; i < 2 * 255 * EACH; i++) {
    const uint32_t exponent = i / EACH % 255, sign = i / EACH / 255, k = i % EACH;
    const uint32_t fraction = k == 0 ? 0 : k == 1 ? 0x7fffff : (uint32_t)random_below(&r, 1 << 23);
    const uint32_t bits = sign << 31 | exponent << 23 | fraction;
    memcpy(x + i, &bits, sizeof bits);
  }
  const float last[16] = {INFINITY,    -INFINITY, NAN,         88.02f,  88.3f,   88.72283f, 88.73f, -87.3f,
                          -87.336544f, -88.0f,    -88.029692f, -103.9f, -104.1f, 20,        -20,    0.5f};
  memcpy(x + ARGUMENTS - 16, last, sizeof last);
}

typedef struct function_run {
  const level_functions *level;
  function_name name;
  float *x, *y;
} function_run;

static void run_function(void *arg, int64_t task, int worker) {
  (void)task, (void)worker;
  const function_run *run = arg;
  run->level->run(run->name, run->x, run->y, ARGUMENTS);
}

/* The last part of an octave before 2^128 has no power of its own in vec_exp2_product, but where scalef makes it. */
static double allowed(const function_case *f, cpu_level level, float x) {
  const double parts = level == CPU_AVX2 ? 8 : 1;
  double units = f->units;
  if (level == CPU_BASELINE && fabsf(x) < 128) units += fabs((double)x);
  if (f == &cases[FUNCTION_exp2_product] && level < CPU_AVX512 && x > (128 - 0.5 / parts) / LOG2E && x < 128 / LOG2E)
    units += 130;
  return units;
}

static long double flushed(function_name name, float x) {
  if (name == FUNCTION_softplus) return 0x1p-125L;
  return name == FUNCTION_silu && fabsf(x) > 1 && fabsf(x) < 128 ? 0x1p-126L * fabsl(x) : 0x1p-126L;
}

static void test_function(const test_device *device, const void *data) {
  (void)device;
  static _Alignas(64) float x[ARGUMENTS], y[ARGUMENTS];
  function_run run = *(const function_run *)data;
  const function_case *f = &cases[run.name];
  fill_arguments(x);
  memset(y, 0xff, sizeof y);
  run.x = x, run.y = y;
  cpu_pool *pool = cpu_pool_create(1);
  assert_non_null(pool);
  cpu_pool_run(pool, 1, run_function, &run);
  cpu_pool_destroy(pool);
  int compared = 0;
  for (int i = 0; i < ARGUMENTS; i++) {
    if (isnan(x[i])) assert_true(isnan(y[i]));
    if (!(x[i] >= f->low && x[i] <= f->high)) continue;
    if (run.name == FUNCTION_silu && isinf(x[i]) && x[i] < 0) continue; /* -inf times 0 */
    compared++;
    const long double want = f->want(x[i]), size = fabsl(want);
    const double units = allowed(f, run.level->level, x[i]);
    const long double most = size * units * 0x1p-24L + flushed(run.name, x[i]);
    const bool overflows = size > FLT_MAX * (1 + units * 0x1p-24L), may_overflow = size + most > FLT_MAX;
    const bool right = isinf(y[i]) ? may_overflow && signbit(y[i]) == signbit(want)
                                   : !overflows && fabsl((long double)y[i] - want) <= most;
    if (!right) fail_msg("%s(%.9g) is %.9g, expected %.9Lg", f->name, (double)x[i], (double)y[i], want);
  }
  assert_true(compared > 2 * 126 * EACH);
}

static void add(void) {
  static function_run runs[TEST_COUNT(levels) * FUNCTION_COUNT];
  function_run *run = runs;
  for (size_t i = 0; i < TEST_COUNT(levels); i++) {
    if (!cpu_has(levels[i].level)) {
      printf("# not here: %s\n", cpu_level_name(levels[i].level));
      continue;
    }
    for (int name = 0; name < FUNCTION_COUNT; name++, run++) {
      *run = (function_run){.level = &levels[i], .name = (function_name)name};
      test_add(NULL, test_function, run, "%s, cpu %s", cases[name].name, cpu_level_name(levels[i].level));
    }
  }
}

int main(void) { return test_main_reference("functions", add); }
