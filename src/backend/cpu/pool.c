#include "pool.h"
#include "core/arith.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* `word` is the number of the current run, and whether helpers may still join it. A helper says in a line of its own
 * that it is inside, and then looks whether the run is still open; the caller closes it, and then looks who is
 * inside. Both in one order for all (seq_cst), so one of them sees the other, and no helper waits for another's line
 * to join or to leave.
 *
 * Stages have numbers of their own that go on from run to run. What a worker writes for others carries the number, so
 * nothing has to be set back between stages, and only its own thread (or one that takes from it) writes a line. */
#define WORD_OPEN 1u
#define WORD_RUN  2u

#define LINE      64 /* bytes that travel between caches as one */

/* Operations of a training step follow each other within microseconds: sleeping in between would cost more. */
#define SPINS 2000

/* One of two workers looks so often whether the other is done before it takes its tasks: what those write is in the
 * other's cache, and far away where the two share none (a state update 4.93 microseconds instead of 5.1). Of sixteen
 * some are always late: waiting for them took 1.03 to 1.13 of a token's time. */
#define GRACE 100

/* While it waits, a worker asks for the memory of a stage to come, and looks after each piece whether it still has
 * to.
 */
#define MAX_ASKED 65536
#define ASKED     512

typedef struct helper {
  cpu_pool *pool;
  pthread_t thread;
  int number;
} helper;

/* A stage's tasks in parts that can be counted with the stage's number: a part is one task, if they are not very
 * many. */
#define PART_BITS 24
#define MAX_PARTS ((1 << PART_BITS) - 1)

/* What a worker has for itself. The tasks are those that it takes before it takes others': the same ones in every
 * stage of as many, so that what an operation left in a core's cache, or on its memory node, the next one finds. */
typedef struct share {
  _Alignas(LINE) _Atomic uint64_t taken; /* stage, parts of the share that have been taken in it */
  _Alignas(LINE) _Atomic uint64_t done;  /* stage, parts that the worker ran in it */
  _Atomic uint64_t inside;               /* the word of the run that it takes part in, 0: none */
} share;

struct cpu_pool {
  _Alignas(LINE) _Atomic uint64_t word;
  _Alignas(LINE) const cpu_stage *stages; /* these are written before the word opens */
  int64_t count;
  uint64_t first; /* number of the first stage */

  _Alignas(LINE) atomic_int sleepers; /* helpers asleep, or about to be */
  atomic_int waiting;                 /* workers asleep until others are done, or about to be */
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

/* A stage that is running: a copy, as what the memory that streams by has left of the caches is little. */
typedef struct running {
  cpu_stage stage;
  uint64_t number;
  int64_t parts, part; /* how many; tasks of each */
} running;

static running stage_at(const cpu_pool *p, int64_t index) {
  const cpu_stage stage = p->stages[index];
  const int64_t part = stage.tasks / MAX_PARTS + 1;
  return (running){stage, p->first + (uint64_t)index, div_up(stage.tasks, part), part};
}

static inline uint64_t stamp(const running *r, int64_t parts) { return r->number << PART_BITS | (uint64_t)parts; }

static inline int64_t share_begin(const cpu_pool *p, const running *r, int worker) {
  return cpu_pool_share(r->parts, p->threads, worker);
}

/* Takes a part of a share: its number in it, or -1. A share that still carries an older stage is whole. */
static inline int64_t take(share *s, const running *r, int64_t size) {
  uint64_t old = atomic_load_explicit(&s->taken, memory_order_relaxed);
  for (;;) {
    const int64_t next = old < stamp(r, 0) ? 0 : (int64_t)(old - stamp(r, 0));
    if (next >= size) return -1;
    if (atomic_compare_exchange_weak_explicit(&s->taken, &old, stamp(r, next + 1), memory_order_relaxed,
                                              memory_order_relaxed))
      return next;
  }
}

static void run_part(const running *r, int64_t part, int worker) {
  const int64_t end = (part + 1) * r->part;
  for (int64_t task = part * r->part; task < end && task < r->stage.tasks; task++)
    r->stage.run(r->stage.arg, task, worker);
}

/* What a worker will read in the next stage. */
typedef struct ahead {
  const cpu_stage *stage;
  int64_t begin, end; /* tasks of its share */
  int range;          /* that comes after this one */
  cpu_range left;
  int64_t asked;
} ahead;

static ahead look_ahead(const cpu_pool *p, const running *next, int worker) {
  const int64_t end = share_begin(p, next, worker + 1) * next->part;
  return (ahead){.stage = &next->stage,
                 .begin = share_begin(p, next, worker) * next->part,
                 .end = end < next->stage.tasks ? end : next->stage.tasks};
}

static inline void ask_for(const char *from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += LINE) __builtin_prefetch(from + i);
}

/* The next piece; false after the last. */
static bool ask(ahead *a) {
  if (!a->stage->reads || a->begin >= a->end || a->asked >= MAX_ASKED) return false;
  if (a->left.bytes <= 0) a->left = a->stage->reads(a->stage->arg, a->begin, a->end, a->range++);
  if (a->left.bytes <= 0) {
    a->end = a->begin;
    return false;
  }
  ask_for(a->left.from, a->left.bytes < ASKED ? a->left.bytes : ASKED);
  a->left.from += ASKED;
  a->left.bytes -= ASKED;
  a->asked += ASKED;
  return true;
}

/* Runs what parts there are left of a worker's share. `done`: how many of the stage's it has run before; returns how
 * many it has then. */
static int64_t run_share(cpu_pool *p, const running *r, int of, int worker, int64_t done) {
  const int64_t begin = share_begin(p, r, of), size = share_begin(p, r, of + 1) - begin;
  for (int64_t part; (part = take(&p->shares[of], r, size)) >= 0; done++) {
    if (done == 0 && r->stage.begin) r->stage.begin(r->stage.arg, worker);
    run_part(r, begin + part, worker);
  }
  return done;
}

static int64_t run_others(cpu_pool *p, const running *r, int worker, int64_t done) {
  for (int of = worker + 1; of < p->threads; of++) done = run_share(p, r, of, worker, done);
  for (int of = 0; of < worker; of++) done = run_share(p, r, of, worker, done);
  return done;
}

/* Whether all parts are done. A worker that is further on has seen that they are. */
static bool stage_done(const cpu_pool *p, const running *r) {
  int64_t done = 0;
  for (int i = 0; i < p->threads; i++) {
    const uint64_t word = atomic_load(&p->shares[i].done);
    if (word >= stamp(r, 0) + MAX_PARTS + 1) return true;
    if (word > stamp(r, 0)) done += (int64_t)(word - stamp(r, 0));
  }
  return done == r->parts;
}

/* Those who sleep look again. */
static void wake_waiting(cpu_pool *p) {
  if (!atomic_load(&p->waiting)) return;
  pthread_mutex_lock(&p->mutex);
  pthread_cond_broadcast(&p->done);
  pthread_mutex_unlock(&p->mutex);
}

/* Whether the stage is done after so many looks; in between, memory of the next one is asked for. */
static bool done_within(const cpu_pool *p, const running *r, int looks, ahead *a) {
  for (int i = 0; i < looks; i++) {
    if (stage_done(p, r)) return true;
    if (!ask(a)) pause_briefly();
  }
  return false;
}

static void wait_for_stage(cpu_pool *p, const running *r, ahead *a) {
  if (done_within(p, r, SPINS, a)) return;
  pthread_mutex_lock(&p->mutex);
  atomic_fetch_add(&p->waiting, 1);
  while (!stage_done(p, r)) pthread_cond_wait(&p->done, &p->mutex);
  atomic_fetch_sub(&p->waiting, 1);
  pthread_mutex_unlock(&p->mutex);
}

/* The last stage is done when nobody is inside any more. */
static void run_stages(cpu_pool *p, int worker) {
  running r = stage_at(p, 0);
  if (worker > 0) ask_for(r.stage.arg, (int64_t)r.stage.arg_bytes); /* the caller has just written it */
  for (int64_t i = 1;; i++) {
    running next = {0};
    if (i < p->count) next = stage_at(p, i);
    int64_t done = run_share(p, &r, worker, worker, 0);
    atomic_store(&p->shares[worker].done, stamp(&r, done));
    ask_for(next.stage.arg, (int64_t)next.stage.arg_bytes);
    ahead a = look_ahead(p, &next, worker);
    if (!done_within(p, &r, p->threads == 2 ? GRACE : 0, &a)) {
      done = run_others(p, &r, worker, done);
      atomic_store(&p->shares[worker].done, stamp(&r, done));
    }
    if (i == p->count) return;
    wake_waiting(p);
    wait_for_stage(p, &r, &a);
    r = next;
  }
}

/* The word of an open run that a helper has not been part of, or 0. */
static uint64_t new_run(const cpu_pool *p, uint64_t seen) {
  uint64_t word = atomic_load(&p->word);
  return word & WORD_OPEN && word != seen ? word : 0;
}

static void leave(cpu_pool *p, share *own) {
  atomic_store(&own->inside, 0);
  wake_waiting(p);
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
      run_stages(p, self->number);
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
  bytes = round_up_line(bytes);
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
  atomic_fetch_add(&p->waiting, 1);
  while (anyone_inside(p)) pthread_cond_wait(&p->done, &p->mutex);
  atomic_fetch_sub(&p->waiting, 1);
  pthread_mutex_unlock(&p->mutex);
}

static void run_shared(cpu_pool *p, const cpu_stage *stages, int64_t count) {
  p->first += (uint64_t)p->count;
  p->stages = stages;
  p->count = count;
  atomic_store(&p->word, atomic_load(&p->word) + WORD_RUN + WORD_OPEN);
  if (atomic_load(&p->sleepers) > 0) {
    pthread_mutex_lock(&p->mutex);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mutex);
  }
  run_stages(p, 0);
  close_run(p);
}

static void run_alone(const cpu_stage *stage) {
  if (stage->tasks > 0 && stage->begin) stage->begin(stage->arg, 0);
  for (int64_t task = 0; task < stage->tasks; task++) stage->run(stage->arg, task, 0);
}

void cpu_pool_run_stages(cpu_pool *p, const cpu_stage *stages, int64_t count) {
  uint64_t mode = flush_denormals();
  if (p->threads == 1 || (count == 1 && stages->tasks <= 1))
    for (int64_t i = 0; i < count; i++) run_alone(&stages[i]);
  else if (count > 0) run_shared(p, stages, count);
  restore_denormals(mode);
}

void cpu_pool_run(cpu_pool *p, int64_t count, cpu_task_fn fn, void *arg) {
  cpu_pool_run_stages(p, &(cpu_stage){.tasks = count, .run = fn, .arg = arg}, 1);
}
