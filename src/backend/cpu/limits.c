/* Streaming rates and exponentials per second of this machine, all threads together. */
#include "state.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Larger than the share of a cache that a few cores get, and still quick to walk. */
enum { STREAM_BYTES = 256 << 20, EXP_STEPS = 40000, RUNS = 8, MOST_TASKS = 4096 };

typedef struct job {
  char *from, *to;
  size_t bytes; /* of each task                                            */
  cpu_level level;
  double *result; /* of each task, so that the compiler can leave nothing out */
  double *count;  /* exponentials of each task                                */
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

static void exp_task(void *arg, int64_t task, int worker) {
  const job *j = arg;
  (void)worker;
  j->count[task] = cpu_limits_exponentials(j->level, EXP_STEPS, &j->result[task]);
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
           .level = ((const cpu_state *)ctx->state)->level,
           .result = calloc((size_t)tasks, sizeof(double)),
           .count = calloc((size_t)tasks, sizeof(double))};
  clm_status status = CLM_OK;
  *limits = (backend_limits){0};
  if (j.from && j.to && j.result && j.count) {
    memset(j.from, 1, STREAM_BYTES); /* pages must exist */
    j.bytes = (size_t)STREAM_BYTES / (size_t)tasks / 64 * 64;
    double bytes = (double)j.bytes * (double)tasks;
    limits->copy_bytes = 2 * bytes / fastest(pool, tasks, copy_task, &j);
    limits->read_bytes = bytes / fastest(pool, tasks, read_task, &j);
    double seconds = fastest(pool, tasks, exp_task, &j), count = 0;
    for (int64_t i = 0; i < tasks; i++) count += j.count[i];
    limits->exponentials = count / seconds;
  } else {
    status = context_fail(ctx, CLM_OUT_OF_MEMORY, "limits: no memory for two times %d bytes", STREAM_BYTES);
  }
  free(j.from);
  free(j.to);
  free(j.result);
  free(j.count);
  return status;
}
