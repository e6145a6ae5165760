/* The CPU backend's part of a context. */
#ifndef CLM_CPU_STATE_H
#define CLM_CPU_STATE_H

#include "core/context.h"
#include "level.h"
#include "plan.h"
#include "pool.h"

typedef struct cpu_state {
  cpu_pool *pool;
  cpu_level level;
  char *single; /* the last stage that ran by itself, and after it what it worked on */
  char *stream; /* what cpu_limits goes through: kept, as it is called in turn with other work */
  double begin; /* of the profile: clock_seconds */
} cpu_state;

static inline cpu_pool *cpu_context_pool(const clm_context *ctx) { return ((const cpu_state *)ctx->state)->pool; }
static inline const char *cpu_context_level(const clm_context *ctx) {
  return cpu_level_name(((const cpu_state *)ctx->state)->level);
}

/* At the beginning of a cache line, in large pages if it is large; free() takes it. NULL: none is left. */
void *cpu_memory(size_t bytes);

/* Fills the table: the reference everywhere, faster kernels over it up to the level. */
void cpu_kernels_init(backend_ops *, cpu_level);

/* What this machine can do, with the kernels of `level`. The reference has no exponentials of its own, and reads as
 * the baseline does. */
double cpu_limits_exponentials(cpu_level level, int64_t steps, double *sum);
double cpu_limits_read(cpu_level level, const char *from, size_t bytes);
clm_status cpu_limits(clm_context *, int runs, backend_limits *);

#endif
