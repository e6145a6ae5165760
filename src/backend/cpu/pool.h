/* A team of threads that lives as long as its context. The caller takes part in every run; helpers that have not
 * woken up by the time the tasks are gone are not waited for. One caller at a time. */
#ifndef CLM_CPU_POOL_H
#define CLM_CPU_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cpu_pool cpu_pool;

/* `worker` is below cpu_pool_threads(): no two tasks run at once under the same number, so it can index scratch. */
typedef void (*cpu_task_fn)(void *arg, int64_t task, int worker);

typedef struct cpu_range {
  const char *from;
  int64_t bytes;
} cpu_range;

/* Tasks 0 to tasks - 1, each once, in any order and on any thread. */
typedef struct cpu_stage {
  int64_t tasks;
  cpu_task_fn run;
  void *arg;
  size_t arg_bytes;                     /* of what tasks read at arg                 */
  void (*begin)(void *arg, int worker); /* optional: before a worker's first task    */
  /* Optional: the i-th range of memory that tasks begin to end - 1 go through and no stage writes, empty after the
   * last; asked for while their worker waits for the stage before. */
  cpu_range (*reads)(const void *arg, int64_t begin, int64_t end, int i);
} cpu_stage;

/* NULL if memory is short. Fewer threads than asked for is not an error. */
cpu_pool *cpu_pool_create(int threads);
void cpu_pool_destroy(cpu_pool *);
int cpu_pool_threads(const cpu_pool *);

/* Of `tasks` tasks, the first of the w-th worker's share; that of the next worker's is its end. */
static inline int64_t cpu_pool_share(int64_t tasks, int threads, int worker) {
  const int64_t each = tasks / threads, rest = tasks % threads;
  return worker * each + (worker < rest ? worker : rest);
}

/* Whether the task after this one is the worker's next: in its own share, unlike one that it takes from another's.
 */
static inline bool cpu_pool_goes_on(int64_t tasks, int threads, int worker, int64_t task) {
  return task >= cpu_pool_share(tasks, threads, worker) && task + 1 < cpu_pool_share(tasks, threads, worker + 1);
}

/* Runs stages one after another, each when all tasks of the one before are done; returns when all are. Allocates
 * nothing. A worker takes the tasks of its own share first, the w-th of equal parts, then what others have left. */
void cpu_pool_run_stages(cpu_pool *, const cpu_stage *, int64_t count);

/* One stage. */
void cpu_pool_run(cpu_pool *, int64_t count, cpu_task_fn, void *arg);

#endif
