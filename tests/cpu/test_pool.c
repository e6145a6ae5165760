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
      cmocka_unit_test(test_denormals), cmocka_unit_test(test_destroy_null),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
