#include "pool.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* `word` is the state of the run in hand: its number in the upper half, whether helpers may still join, and how many
 * have. A helper joins by compare-and-swap, so that the caller can shut the door and wait for those inside only. */
#define WORD_OPEN  0x80000000u
#define WORD_COUNT 0x7fffffffu
#define WORD_RUN   0x100000000u

#define LINE       64 /* bytes that travel between caches as one */

/* Operations of a training step follow each other within microseconds: sleeping in between would cost more. */
#define SPINS 2000

typedef struct helper {
  cpu_pool *pool;
  pthread_t thread;
  int number;
} helper;

/* The tasks of a run that a worker takes before it takes others': the same ones in every run of as many tasks, so
 * that what an operation left in a core's cache, or on its memory node, the next one finds there. */
typedef struct share {
  _Alignas(LINE) _Atomic int64_t next;
  int64_t end;
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

/* Joins the run if there is an open one that this helper has not been part of. */
static bool try_join(cpu_pool *p, uint64_t *seen) {
  uint64_t word = atomic_load(&p->word);
  while (word & WORD_OPEN && word / WORD_RUN != *seen)
    if (atomic_compare_exchange_weak(&p->word, &word, word + 1)) {
      *seen = word / WORD_RUN;
      return true;
    }
  return false;
}

static void leave(cpu_pool *p) {
  uint64_t word = atomic_fetch_sub(&p->word, 1) - 1;
  if (word & (WORD_OPEN | WORD_COUNT) || !atomic_load(&p->waiting)) return;
  pthread_mutex_lock(&p->mutex);
  pthread_cond_signal(&p->done);
  pthread_mutex_unlock(&p->mutex);
}

static void *helper_main(void *arg) {
  helper *self = arg;
  cpu_pool *p = self->pool;
  uint64_t seen = 0;
  flush_denormals();
  while (!atomic_load(&p->stop)) {
    bool joined = false;
    for (int i = 0; i < SPINS && !joined && !atomic_load_explicit(&p->stop, memory_order_relaxed); i++) {
      joined = try_join(p, &seen);
      if (!joined) pause_briefly();
    }
    if (!joined) {
      pthread_mutex_lock(&p->mutex);
      atomic_fetch_add(&p->sleepers, 1);
      while (!atomic_load(&p->stop) && !(joined = try_join(p, &seen))) pthread_cond_wait(&p->work, &p->mutex);
      atomic_fetch_sub(&p->sleepers, 1);
      pthread_mutex_unlock(&p->mutex);
    }
    if (joined) {
      run_tasks(p, self->number);
      leave(p);
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

/* Shuts the door and waits for the helpers inside. */
static void close_run(cpu_pool *p) {
  uint64_t word = atomic_fetch_and(&p->word, ~(uint64_t)WORD_OPEN);
  for (int i = 0; i < SPINS && word & WORD_COUNT; i++) {
    pause_briefly();
    word = atomic_load(&p->word);
  }
  if (!(word & WORD_COUNT)) return;
  pthread_mutex_lock(&p->mutex);
  atomic_store(&p->waiting, true);
  while (atomic_load(&p->word) & WORD_COUNT) pthread_cond_wait(&p->done, &p->mutex);
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
  uint64_t run = atomic_load(&p->word) / WORD_RUN + 1;
  atomic_store(&p->word, run * WORD_RUN | WORD_OPEN);
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
