/* Streaming rates and exponentials per second of this machine, all threads together. */
#include "core/clock.h"
#include "state.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Larger than the share of a cache that a few cores get, and still quick to walk. */
enum { STREAM_BYTES = 256 << 20, EXP_STEPS = 40000, MAX_TASKS = 4096 };

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
  (void)worker;
  j->result[task] = cpu_limits_read(j->level, j->from + (size_t)task * j->bytes, j->bytes);
}

static void exp_task(void *arg, int64_t task, int worker) {
  const job *j = arg;
  (void)worker;
  j->count[task] = cpu_limits_exponentials(j->level, EXP_STEPS, &j->result[task]);
}

/* The best of some runs, in seconds. */
static double fastest(cpu_pool *pool, int runs, int64_t tasks, cpu_task_fn run, job *j) {
  double best = INFINITY;
  for (int i = 0; i < runs; i++) {
    double begun = clock_seconds();
    cpu_pool_run(pool, tasks, run, j);
    best = fmin(best, clock_seconds() - begun);
  }
  return best;
}

static void touch_task(void *arg, int64_t task, int worker) {
  const job *j = arg;
  (void)worker;
  memset(j->from + (size_t)task * j->bytes, 1, j->bytes);
  memset(j->to + (size_t)task * j->bytes, 2, j->bytes);
}

clm_status cpu_limits(clm_context *ctx, int runs, backend_limits *limits) {
  cpu_state *state = ctx->state;
  cpu_pool *pool = cpu_context_pool(ctx);
  /* More tasks than threads: one that is interrupted does not hold up all. */
  const int64_t wanted = 8 * (int64_t)cpu_pool_threads(pool), tasks = wanted < MAX_TASKS ? wanted : MAX_TASKS;
  const bool first = !state->stream;
  if (first) state->stream = cpu_memory(2 * (size_t)STREAM_BYTES);
  job j = {.from = state->stream,
           .to = state->stream ? state->stream + STREAM_BYTES : NULL,
           .bytes = (size_t)STREAM_BYTES / (size_t)tasks / 1024 * 1024, /* whole blocks of any vectors */
           .level = state->level,
           .result = calloc((size_t)tasks, sizeof(double)),
           .count = calloc((size_t)tasks, sizeof(double))};
  clm_status status = CLM_OK;
  *limits = (backend_limits){0};
  if (state->stream && j.result && j.count) {
    const double bytes = (double)j.bytes * (double)tasks;
    if (first) cpu_pool_run(pool, tasks, touch_task, &j); /* pages must exist */
    limits->copy_bytes = 2 * bytes / fastest(pool, runs, tasks, copy_task, &j);
    limits->read_bytes = bytes / fastest(pool, runs, tasks, read_task, &j);
    double seconds = fastest(pool, runs, tasks, exp_task, &j), count = 0;
    for (int64_t i = 0; i < tasks; i++) count += j.count[i];
    limits->exponentials = count / seconds;
  } else {
    status = context_fail(ctx, CLM_OUT_OF_MEMORY, "limits: no memory for two times %d bytes", STREAM_BYTES);
  }
  free(j.result);
  free(j.count);
  return status;
}
