/* The thread pool: every task once, no worker number shared by two tasks at a time, helpers asleep and awake. */
#include "backend/cpu/pool.h"
#include "cmocka_all.h"
#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

typedef struct pool_case {
  int threads;
  int64_t tasks;
  int runs;
  const char *why;
} pool_case;

static const pool_case cases[] = {
    {1, 100, 3, "the caller alone"},           {2, 0, 3, "nothing to do"},
    {2, 1, 100, "one task: no helper needed"}, {2, 2, 20000, "runs so short that helpers come late"},
    {3, 7, 5000, "more tasks than threads"},   {8, 3, 2000, "more threads than tasks"},
    {5, 20000, 5, "many small tasks"},         {2, 5, 5000, "shares of different sizes"},
};

typedef struct tally {
  atomic_int *done;
  atomic_int busy[8];
  atomic_int shared; /* tasks that found their worker's number in use */
  int64_t plain;     /* written by one task, read after the run       */
  int threads;
} tally;

static void count_task(void *arg, int64_t task, int worker) {
  tally *t = arg;
  if (worker < 0 || worker >= t->threads || atomic_fetch_add(&t->busy[worker], 1) != 0)
    atomic_fetch_add(&t->shared, 1);
  atomic_fetch_add(&t->done[task], 1);
  if (task == 0) t->plain++;
  atomic_fetch_sub(&t->busy[worker], 1);
}

static void run_case(const pool_case *c) {
  cpu_pool *pool = cpu_pool_create(c->threads);
  assert_non_null(pool);
  tally t = {.done = calloc((size_t)c->tasks + 1, sizeof *t.done), .threads = cpu_pool_threads(pool)};
  assert_non_null(t.done);
  assert_true(t.threads >= 1 && t.threads <= c->threads);
  for (int run = 0; run < c->runs; run++) {
    if (run == c->runs / 2) nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL); /* long enough to fall asleep */
    cpu_pool_run(pool, c->tasks, count_task, &t);
  }
  for (int64_t i = 0; i < c->tasks; i++) assert_int_equal(atomic_load(&t.done[i]), c->runs);
  assert_int_equal(atomic_load(&t.shared), 0);
  assert_int_equal(t.plain, c->tasks ? c->runs : 0);
  free(t.done);
  cpu_pool_destroy(pool);
}

static void test_cases(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    print_message("%s\n", cases[i].why);
    run_case(&cases[i]);
  }
}

static void both_at_once(void *arg, int64_t task, int worker) {
  atomic_int *arrived = arg;
  (void)task, (void)worker;
  atomic_fetch_add(arrived, 1);
  while (atomic_load(arrived) < 2) nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL);
}

/* Two tasks that wait for each other end only if two threads run them. */
static void test_parallel(void **state) {
  (void)state;
  cpu_pool *pool = cpu_pool_create(2);
  assert_non_null(pool);
  assert_int_equal(cpu_pool_threads(pool), 2);
  for (int i = 0; i < 20; i++) {
    atomic_int arrived = 0;
    cpu_pool_run(pool, 2, both_at_once, &arrived);
    assert_int_equal(atomic_load(&arrived), 2);
  }
  cpu_pool_destroy(pool);
}

typedef struct shares {
  atomic_int arrived;
  atomic_llong first[2]; /* task of each worker, -1: none yet */
} shares;

static void note_first(void *arg, int64_t task, int worker) {
  shares *s = arg;
  long long none = -1;
  if (!atomic_compare_exchange_strong(&s->first[worker], &none, task)) return;
  atomic_fetch_add(&s->arrived, 1);
  while (atomic_load(&s->arrived) < 2) nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL);
}

/* A worker begins with the same task in every run: what it wrote last time is in its cache. */
static void test_shares(void **state) {
  (void)state;
  cpu_pool *pool = cpu_pool_create(2);
  assert_non_null(pool);
  for (int i = 0; i < 20; i++) {
    shares s = {.first = {-1, -1}};
    cpu_pool_run(pool, 9, note_first, &s);
    assert_int_equal(atomic_load(&s.first[0]), 0);
    assert_int_equal(atomic_load(&s.first[1]), 5);
  }
  cpu_pool_destroy(pool);
}

/* ---- Stages ---- */

enum { STAGES = 7, MAX_THREADS = 8 };
static const int64_t stage_tasks[STAGES] = {1, 40, 0, 3, 8, 1, 17};

typedef struct stage_tally {
  atomic_int done[STAGES];
  atomic_int early;   /* tasks that ran before all of the stage before were done */
  atomic_int unbegun; /* tasks of a worker that had not begun the stage           */
  atomic_int ranges;  /* asked for that are no part of the stage                  */
  bool slow;          /* some tasks take so long that others fall asleep          */
} stage_tally;

typedef struct stage_arg {
  stage_tally *tally;
  int index;
  int begun[MAX_THREADS]; /* runs in which each worker has begun it */
  int run;
} stage_arg;

static void begin_stage(void *arg, int worker) { ((stage_arg *)arg)->begun[worker] = ((stage_arg *)arg)->run + 1; }

static void stage_task(void *arg, int64_t task, int worker) {
  stage_arg *a = arg;
  stage_tally *t = a->tally;
  for (int i = 0; i < a->index; i++)
    if (atomic_load(&t->done[i]) != (a->run + 1) * stage_tasks[i]) atomic_fetch_add(&t->early, 1);
  if (a->begun[worker] != a->run + 1) atomic_fetch_add(&t->unbegun, 1);
  if (t->slow && task == a->index) nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
  atomic_fetch_add(&t->done[a->index], 1);
}

static cpu_range stage_reads(const void *arg, int64_t begin, int64_t end, int i) {
  const stage_arg *a = arg;
  if (begin < 0 || begin >= end || end > stage_tasks[a->index]) atomic_fetch_add(&a->tally->ranges, 1);
  return i < 2 ? (cpu_range){(const char *)arg, (int64_t)sizeof *a} : (cpu_range){0};
}

static void run_stages(int threads, bool slow, int runs) {
  cpu_pool *pool = cpu_pool_create(threads);
  assert_non_null(pool);
  stage_tally t = {.slow = slow};
  stage_arg args[STAGES] = {0};
  cpu_stage stages[STAGES];
  for (int i = 0; i < STAGES; i++) {
    args[i] = (stage_arg){.tally = &t, .index = i};
    stages[i] = (cpu_stage){stage_tasks[i], stage_task, &args[i], sizeof args[i], begin_stage, stage_reads};
  }
  for (int run = 0; run < runs; run++) {
    for (int i = 0; i < STAGES; i++) args[i].run = run;
    if (run == runs / 2) nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL); /* long enough to fall asleep */
    cpu_pool_run_stages(pool, stages, STAGES);
    for (int i = 0; i < STAGES; i++) assert_int_equal(atomic_load(&t.done[i]), (run + 1) * stage_tasks[i]);
  }
  cpu_pool_run_stages(pool, stages, 0);
  assert_int_equal(atomic_load(&t.early), 0);
  assert_int_equal(atomic_load(&t.unbegun), 0);
  assert_int_equal(atomic_load(&t.ranges), 0);
  cpu_pool_destroy(pool);
}

/* A stage's tasks run after all of the stage before, each worker having begun it, whoever sleeps or comes late. */
static void test_stages(void **state) {
  (void)state;
  static const int threads[] = {1, 2, 3, MAX_THREADS};
  for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
    run_stages(threads[i], false, 2000);
    run_stages(threads[i], true, 10);
  }
}

static void count_up(void *arg, int64_t task, int worker) {
  (void)task, (void)worker;
  atomic_fetch_add_explicit((atomic_llong *)arg, 1, memory_order_relaxed);
}

/* More tasks than parts that a share can count. */
static void test_many_tasks(void **state) {
  (void)state;
  cpu_pool *pool = cpu_pool_create(2);
  assert_non_null(pool);
  const int64_t tasks = ((int64_t)1 << 24) + 12345;
  atomic_llong count = 0;
  cpu_pool_run(pool, tasks, count_up, &count);
  assert_int_equal(atomic_load(&count), tasks);
  cpu_pool_destroy(pool);
}

/* Shares follow each other, and leave nothing out. */
static void test_share(void **state) {
  (void)state;
  for (int threads = 1; threads < 9; threads++)
    for (int64_t tasks = 0; tasks < 40; tasks++) {
      assert_int_equal(cpu_pool_share(tasks, threads, 0), 0);
      assert_int_equal(cpu_pool_share(tasks, threads, threads), tasks);
      for (int i = 0; i < threads; i++) {
        const int64_t size = cpu_pool_share(tasks, threads, i + 1) - cpu_pool_share(tasks, threads, i);
        assert_true(size == tasks / threads || size == tasks / threads + 1);
      }
    }
}

static void halve(void *arg, int64_t task, int worker) {
  (void)worker;
  ((volatile float *)arg)[task] /= 2;
}

/* Tasks flush denormal numbers to zero, on every thread; the caller's own arithmetic stays as it was. */
static void test_denormals(void **state) {
  (void)state;
#if defined(__x86_64__) || defined(__aarch64__)
  enum { COUNT = 4096 };
  static volatile float numbers[COUNT];
  volatile float smallest = 0x1p-126f;
  cpu_pool *pool = cpu_pool_create(2);
  assert_non_null(pool);
  for (int i = 0; i < COUNT; i++) numbers[i] = smallest;
  cpu_pool_run(pool, COUNT, halve, (void *)(uintptr_t)numbers);
  for (int i = 0; i < COUNT; i++) assert_true(numbers[i] == 0);
  assert_true(smallest / 2 > 0);
  cpu_pool_destroy(pool);
#else
  skip();
#endif
}

static void test_destroy_null(void **state) {
  (void)state;
  cpu_pool_destroy(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_cases),     cmocka_unit_test(test_parallel),     cmocka_unit_test(test_shares),
      cmocka_unit_test(test_stages),    cmocka_unit_test(test_many_tasks),   cmocka_unit_test(test_share),
      cmocka_unit_test(test_denormals), cmocka_unit_test(test_destroy_null),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
