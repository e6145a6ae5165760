/* Streaming rates and exponentials per second of this machine, all threads together. */
#include "state.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Larger than the share of a cache that a few cores get, and still quick to walk. */
enum { STREAM_BYTES = 256 << 20, EXP_CHAINS = 64, EXP_STEPS = 40000, RUNS = 5, MOST_TASKS = 4096 };

typedef struct job {
  char *from, *to;
  size_t bytes;   /* of each task                                            */
  double *result; /* of each task, so that the compiler can leave nothing out */
} job;

static void copy_task(void *arg, int64_t task, int worker) {
  const job *j = arg;
  (void)worker;
  memcpy(j->to + (size_t)task * j->bytes, j->from + (size_t)task * j->bytes, j->bytes);
}

static void read_task(void *arg, int64_t task, int worker) {
  const job *j = arg;
  const uint64_t *words = (const uint64_t *)(const void *)(j->from + (size_t)task * j->bytes);
  uint64_t sum[16] = {0};
  (void)worker;
  for (size_t i = 0; i + 16 <= j->bytes / sizeof *words; i += 16)
    for (size_t k = 0; k < 16; k++) sum[k] += words[i + k];
  for (size_t k = 1; k < 16; k++) sum[0] += sum[k];
  j->result[task] = (double)sum[0];
}

/* 2^x for x in [-1, 1], a polynomial of degree 6 as the kernels use: independent chains that the compiler turns into
 * vectors. */
static void exp_task(void *arg, int64_t task, int worker) {
  const job *j = arg;
  float x[EXP_CHAINS];
  (void)worker;
  for (int i = 0; i < EXP_CHAINS; i++) x[i] = 0.01f * (float)i;
  for (int step = 0; step < EXP_STEPS; step++)
    for (int i = 0; i < EXP_CHAINS; i++) {
      float shifted = x[i] * -0.5f + 12582912.0f, f = x[i] * -0.5f - (shifted - 12582912.0f);
      float p = 1.5353373e-4f * f + 1.3398879e-3f;
      p = p * f + 9.618437e-3f;
      p = p * f + 5.5503324e-2f;
      p = p * f + 2.4022648e-1f;
      p = p * f + 6.931472e-1f;
      p = p * f + 1.0f;
      int32_t bits, exponent;
      memcpy(&bits, &p, sizeof bits);
      memcpy(&exponent, &shifted, sizeof exponent);
      bits = (int32_t)((uint32_t)bits + ((uint32_t)exponent << 23));
      memcpy(&x[i], &bits, sizeof bits);
    }
  double sum = 0;
  for (int i = 0; i < EXP_CHAINS; i++) sum += (double)x[i];
  j->result[task] = sum;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The best of a few runs, in seconds. */
static double fastest(cpu_pool *pool, int64_t tasks, cpu_task_fn run, job *j) {
  double best = INFINITY;
  for (int i = 0; i < RUNS; i++) {
    double begun = now();
    cpu_pool_run(pool, tasks, run, j);
    best = fmin(best, now() - begun);
  }
  return best;
}

clm_status cpu_limits(clm_context *ctx, backend_limits *limits) {
  cpu_pool *pool = cpu_context_pool(ctx);
  int64_t tasks =
      8 * (int64_t)cpu_pool_threads(pool); /* more than threads: an interrupted one does not hold up all */
  if (tasks > MOST_TASKS) tasks = MOST_TASKS;
  job j = {.from = calloc(1, STREAM_BYTES),
           .to = calloc(1, STREAM_BYTES),
           .result = calloc((size_t)tasks, sizeof(double))};
  clm_status status = CLM_OK;
  *limits = (backend_limits){0};
  if (j.from && j.to && j.result) {
    memset(j.from, 1, STREAM_BYTES); /* pages must exist */
    j.bytes = (size_t)STREAM_BYTES / (size_t)tasks / 64 * 64;
    double bytes = (double)j.bytes * (double)tasks;
    limits->copy_bytes = 2 * bytes / fastest(pool, tasks, copy_task, &j);
    limits->read_bytes = bytes / fastest(pool, tasks, read_task, &j);
    limits->exponentials = (double)tasks * EXP_CHAINS * EXP_STEPS / fastest(pool, tasks, exp_task, &j);
  } else {
    status = context_fail(ctx, CLM_OUT_OF_MEMORY, "limits: no memory for two times %d bytes", STREAM_BYTES);
  }
  free(j.from);
  free(j.to);
  free(j.result);
  return status;
}
