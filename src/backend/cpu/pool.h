/* A team of threads that lives as long as its context. The caller takes part in every run; helpers that have not
 * woken up by the time the tasks are gone are not waited for. One caller at a time. */
#ifndef CLM_CPU_POOL_H
#define CLM_CPU_POOL_H

#include <stdint.h>

typedef struct cpu_pool cpu_pool;

/* `worker` is below cpu_pool_threads(): no two tasks run at once under the same number, so it can index scratch. */
typedef void (*cpu_task_fn)(void *arg, int64_t task, int worker);

/* NULL if memory is short. Fewer threads than asked for is not an error. */
cpu_pool *cpu_pool_create(int threads);
void cpu_pool_destroy(cpu_pool *);
int cpu_pool_threads(const cpu_pool *);

/* Runs task 0 to count - 1, each once, in any order and on any thread; returns when all are done. Allocates nothing.
 * A worker takes the tasks of its own share first, the w-th of equal runs of tasks, then what others have left. */
void cpu_pool_run(cpu_pool *, int64_t count, cpu_task_fn, void *arg);

#endif
