#include "pool.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* `word` is the number of the run in hand, and whether helpers may still join it. A helper says in a line of its own
 * that it is inside, and then looks whether the run is still open; the caller closes it, and then looks who is
 * inside. Both in one order for all (seq_cst), so one of them sees the other, and no helper waits for another's line
 * to join or to leave. */
#define WORD_OPEN 1u
#define WORD_RUN  2u

#define LINE      64 /* bytes that travel between caches as one */

/* Operations of a training step follow each other within microseconds: sleeping in between would cost more. */
#define SPINS 2000

typedef struct helper {
  cpu_pool *pool;
  pthread_t thread;
  int number;
} helper;

/* What a worker has for itself. The tasks are those that it takes before it takes others': the same ones in every run
 * of as many, so that what an operation left in a core's cache, or on its memory node, the next one finds there. */
typedef struct share {
  _Alignas(LINE) _Atomic int64_t next;
  int64_t end;
  _Atomic uint64_t inside; /* the word of the run that it takes part in, 0: none */
} share;

struct cpu_pool {
  _Alignas(LINE) _Atomic uint64_t word;
  _Alignas(LINE) cpu_task_fn fn; /* these and the shares are written before the word opens */
  void *arg;

  _Alignas(LINE) atomic_int sleepers; /* helpers asleep, or about to be */
  atomic_bool waiting;                /* the caller is asleep, or about to be */
  atomic_bool stop;
  pthread_mutex_t mutex;
  pthread_cond_t work, done;
  int threads;
  share *shares;   /* of each thread */
  helper *helpers; /* of each thread but the caller */
};

static inline void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* Decaying states end in denormal numbers, with which processors are a hundred times slower: tasks run with those
 * taken as zero. Returns what restore_denormals wants back. */
static inline uint64_t flush_denormals(void) {
#if defined(__x86_64__)
  unsigned old = __builtin_ia32_stmxcsr();
  __builtin_ia32_ldmxcsr(old | 0x8040u);
  return old;
#elif defined(__aarch64__)
  uint64_t old;
  __asm__ volatile("mrs %0, fpcr" : "=r"(old));
  __asm__ volatile("msr fpcr, %0" : : "r"(old | 1u << 24));
  return old;
#else
  return 0;
#endif
}

static inline void restore_denormals(uint64_t old) {
#if defined(__x86_64__)
  __builtin_ia32_ldmxcsr((unsigned)old);
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, %0" : : "r"(old));
#else
  (void)old;
#endif
}

/* Looks before it takes: a share that is used up stays in everyone's cache. */
static void run_share(cpu_pool *p, share *s, int worker) {
  while (atomic_load_explicit(&s->next, memory_order_relaxed) < s->end) {
    int64_t task = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
    if (task < s->end) p->fn(p->arg, task, worker);
  }
}

static void run_tasks(cpu_pool *p, int worker) {
  for (int i = worker; i < p->threads; i++) run_share(p, &p->shares[i], worker);
  for (int i = 0; i < worker; i++) run_share(p, &p->shares[i], worker);
}

/* The word of an open run that a helper has not been part of, or 0. */
static uint64_t new_run(const cpu_pool *p, uint64_t seen) {
  uint64_t word = atomic_load(&p->word);
  return word & WORD_OPEN && word != seen ? word : 0;
}

static void leave(cpu_pool *p, share *own) {
  atomic_store(&own->inside, 0);
  if (!atomic_load(&p->waiting)) return;
  pthread_mutex_lock(&p->mutex);
  pthread_cond_signal(&p->done);
  pthread_mutex_unlock(&p->mutex);
}

static bool try_join(cpu_pool *p, share *own, uint64_t *seen) {
  uint64_t word = new_run(p, *seen);
  if (!word) return false;
  atomic_store(&own->inside, word);
  if (atomic_load(&p->word) == word) {
    *seen = word;
    return true;
  }
  leave(p, own);
  return false;
}

/* Until there is something to join. */
static void sleep_until(cpu_pool *p, uint64_t seen) {
  pthread_mutex_lock(&p->mutex);
  atomic_fetch_add(&p->sleepers, 1);
  while (!atomic_load(&p->stop) && !new_run(p, seen)) pthread_cond_wait(&p->work, &p->mutex);
  atomic_fetch_sub(&p->sleepers, 1);
  pthread_mutex_unlock(&p->mutex);
}

static void *helper_main(void *arg) {
  helper *self = arg;
  cpu_pool *p = self->pool;
  share *own = &p->shares[self->number];
  uint64_t seen = 0;
  int idle = 0;
  flush_denormals();
  while (!atomic_load_explicit(&p->stop, memory_order_relaxed)) {
    if (try_join(p, own, &seen)) {
      run_tasks(p, self->number);
      leave(p, own);
      idle = 0;
    } else if (++idle < SPINS) {
      pause_briefly();
    } else {
      sleep_until(p, seen);
      idle = 0;
    }
  }
  return NULL;
}

/* Zeros, from a cache line's beginning to one's end. */
static void *lines_of(size_t bytes) {
  void *memory = NULL;
  bytes = (bytes + LINE - 1) / LINE * LINE;
  return posix_memalign(&memory, LINE, bytes) == 0 ? memset(memory, 0, bytes) : NULL;
}

cpu_pool *cpu_pool_create(int threads) {
  cpu_pool *p = lines_of(sizeof *p);
  share *shares = lines_of((size_t)threads * sizeof *shares);
  helper *helpers = calloc((size_t)threads, sizeof *helpers);
  if (!p || !shares || !helpers) {
    free(p);
    free(shares);
    free(helpers);
    return NULL;
  }
  p->shares = shares;
  p->helpers = helpers;
  pthread_mutex_init(&p->mutex, NULL);
  pthread_cond_init(&p->work, NULL);
  pthread_cond_init(&p->done, NULL);
  p->threads = 1;
  for (; p->threads < threads; p->threads++) {
    helper *h = &p->helpers[p->threads - 1];
    *h = (helper){.pool = p, .number = p->threads};
    if (pthread_create(&h->thread, NULL, helper_main, h) != 0) break;
  }
  return p;
}

void cpu_pool_destroy(cpu_pool *p) {
  if (!p) return;
  pthread_mutex_lock(&p->mutex);
  atomic_store(&p->stop, true);
  pthread_cond_broadcast(&p->work);
  pthread_mutex_unlock(&p->mutex);
  for (int i = 0; i + 1 < p->threads; i++) pthread_join(p->helpers[i].thread, NULL);
  pthread_cond_destroy(&p->done);
  pthread_cond_destroy(&p->work);
  pthread_mutex_destroy(&p->mutex);
  free(p->shares);
  free(p->helpers);
  free(p);
}

int cpu_pool_threads(const cpu_pool *p) { return p->threads; }

static bool anyone_inside(const cpu_pool *p) {
  for (int i = 1; i < p->threads; i++)
    if (atomic_load(&p->shares[i].inside)) return true;
  return false;
}

/* Shuts the door and waits for the helpers inside. */
static void close_run(cpu_pool *p) {
  atomic_store(&p->word, atomic_load(&p->word) & ~(uint64_t)WORD_OPEN);
  for (int i = 0; i < SPINS; i++) {
    if (!anyone_inside(p)) return;
    pause_briefly();
  }
  pthread_mutex_lock(&p->mutex);
  atomic_store(&p->waiting, true);
  while (anyone_inside(p)) pthread_cond_wait(&p->done, &p->mutex);
  atomic_store(&p->waiting, false);
  pthread_mutex_unlock(&p->mutex);
}

static void run_shared(cpu_pool *p, int64_t count, cpu_task_fn fn, void *arg) {
  p->fn = fn;
  p->arg = arg;
  for (int64_t i = 0, next = 0; i < p->threads; i++) {
    share *s = &p->shares[i];
    atomic_store_explicit(&s->next, next, memory_order_relaxed);
    s->end = next += count / p->threads + (i < count % p->threads);
  }
  atomic_store(&p->word, atomic_load(&p->word) + WORD_RUN + WORD_OPEN);
  if (atomic_load(&p->sleepers) > 0) {
    pthread_mutex_lock(&p->mutex);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mutex);
  }
  run_tasks(p, 0);
  close_run(p);
}

void cpu_pool_run(cpu_pool *p, int64_t count, cpu_task_fn fn, void *arg) {
  uint64_t mode = flush_denormals();
  if (count <= 1 || p->threads == 1)
    for (int64_t task = 0; task < count; task++) fn(arg, task, 0);
  else run_shared(p, count, fn, arg);
  restore_denormals(mode);
}
