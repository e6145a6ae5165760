/* The associative scan of a first-order recurrence, both directions, inclusive and exclusive, real and complex. */
#include "problem.h"

TEST_OP(assoc_scan);
TEST_OP(assoc_scan_backward);

enum { COMPLEX = 1, INITIAL = 2, FINAL = 4, REVERSE = 8, EXCLUSIVE = 16 };

typedef struct scan_case {
  int64_t batch, length, channels;
  unsigned flags;
  test_layout layout;
  const char *why;
} scan_case;

static const scan_case cases[] = {
    /* batch length channels flags layout why it is here */
    {1, 1, 1, 0, TEST_CONTIGUOUS, "smallest"},
    {1, 1, 3, INITIAL | FINAL | EXCLUSIVE, TEST_CONTIGUOUS, "one step, exclusive"},
    {2, 2, 3, INITIAL | FINAL, TEST_CONTIGUOUS, "two steps"},
    {2, 7, 5, REVERSE, TEST_CONTIGUOUS, "reverse, no state"},
    {2, 7, 5, COMPLEX | INITIAL | FINAL | REVERSE, TEST_CONTIGUOUS, "complex, reverse"},
    {3, 64, 33, INITIAL, TEST_CONTIGUOUS, "a power of two"},
    {1, 129, 35, FINAL | EXCLUSIVE, TEST_CONTIGUOUS, "one past a tile, exclusive"},
    {2, 257, 3, COMPLEX | FINAL, TEST_CONTIGUOUS, "complex, past a work-group"},
    {2, 372, 17, INITIAL | FINAL | REVERSE | EXCLUSIVE, TEST_PADDED, "reverse and exclusive, padded"},
    {2, 100, 9, INITIAL | FINAL, TEST_TRANSPOSED, "channel before length"},
    {2, 65, 9, COMPLEX | INITIAL | EXCLUSIVE, TEST_TRANSPOSED, "complex, channel before length"},
    {2, 65, 9, FINAL, TEST_WIDE, "slices of wider tensors"},
    {2, 33, 6, INITIAL | FINAL, TEST_SPREAD, "every other element"},
    {3, 33, 6, INITIAL | FINAL, TEST_REPEATED, "one batch row read for all"},
    {1, 1024, 2, INITIAL | FINAL, TEST_CONTIGUOUS, "long, few channels"},
    {1, 5001, 1, FINAL, TEST_CONTIGUOUS, "many chunks"},
    {1, 3001, 2, COMPLEX | INITIAL | FINAL | REVERSE, TEST_CONTIGUOUS, "many chunks, complex, reverse"},
};
#define CASES (sizeof cases / sizeof cases[0])

static test_kind kind_of(const scan_case *c) { return c->flags & COMPLEX ? TEST_COMPLEX : TEST_STORAGE; }
static test_kind state_kind_of(const scan_case *c) { return c->flags & COMPLEX ? TEST_COMPLEX : TEST_PARAMETER; }

static double draw_complex_factor(test_random *r) { return 1.3 * random_uniform(r) - 0.65; }

static clm_assoc_scan_args args_of(const scan_case *c) {
  return (clm_assoc_scan_args){.reverse = c->flags & REVERSE, .exclusive = c->flags & EXCLUSIVE};
}

static test_problem problem_of(const scan_case *c, const test_op *op, const void *args) {
  test_problem p = {.op = op, .args = args, .seed = 31, .layout = c->layout, .tolerance = 3e-6};
  PROBLEM_ADD(&p, TEST_ROW(clm_assoc_scan_args, a, TEST_IN, kind_of(c),
                           c->flags & COMPLEX ? draw_complex_factor : draw_factor, c->batch, c->length, c->channels));
  PROBLEM_ADD(&p, TEST_ROW(clm_assoc_scan_args, b, TEST_IN, kind_of(c), NULL, c->batch, c->length, c->channels));
  if (c->flags & INITIAL)
    PROBLEM_ADD(&p, TEST_ROW(clm_assoc_scan_args, initial, TEST_IN, state_kind_of(c), NULL, c->batch, c->channels));
  return p;
}

static test_problem forward_of(const scan_case *c, const clm_assoc_scan_args *args) {
  test_problem p = problem_of(c, &op_assoc_scan, args);
  PROBLEM_ADD(&p, TEST_ROW(clm_assoc_scan_args, h, TEST_OUT, kind_of(c), NULL, c->batch, c->length, c->channels));
  if (c->flags & FINAL)
    PROBLEM_ADD(&p, TEST_ROW(clm_assoc_scan_args, final, TEST_OUT, state_kind_of(c), NULL, c->batch, c->channels));
  return p;
}

#define GRADIENT(p, field, role, kind, of, ...)                                                                      \
  PROBLEM_ADD(p, TEST_GRADIENT(clm_assoc_scan_backward_args, field, role, kind, of, __VA_ARGS__))

/* `wanted`: bits for da, db, dinitial. */
static test_problem backward_of(const scan_case *c, const clm_assoc_scan_backward_args *args, unsigned wanted) {
  test_problem p = problem_of(c, &op_assoc_scan_backward, args);
  p.tolerance = 1e-5;
  const test_kind kind = kind_of(c), state_kind = state_kind_of(c);
  GRADIENT(&p, dh, TEST_IN, kind, h, c->batch, c->length, c->channels);
  if (c->flags & FINAL) GRADIENT(&p, dfinal, TEST_IN, state_kind, final, c->batch, c->channels);
  if (wanted & 1) GRADIENT(&p, da, TEST_OUT, kind, a, c->batch, c->length, c->channels);
  if (wanted & 2) GRADIENT(&p, db, TEST_OUT, kind, b, c->batch, c->length, c->channels);
  if (wanted & 4 && c->flags & INITIAL) GRADIENT(&p, dinitial, TEST_OUT, state_kind, initial, c->batch, c->channels);
  return p;
}

static void test_forward(const test_device *device, const void *data) {
  const clm_assoc_scan_args args = args_of(data);
  const test_problem p = forward_of(data, &args);
  problem_check(&p, device);
}

static void test_backward(const test_device *device, const void *data) {
  const clm_assoc_scan_backward_args args = {.forward = args_of(data)};
  const test_problem p = backward_of(data, &args, 7);
  problem_check(&p, device);
}

static void test_16bit(const test_device *device, const void *data) {
  const clm_assoc_scan_backward_args args = {.forward = args_of(data)};
  const test_problem forward = forward_of(data, &args.forward), backward = backward_of(data, &args, 7);
  problem_check_16bit(&forward, device);
  problem_check_16bit(&backward, device);
}

static void test_some_gradients(const test_device *device, const void *data) {
  const clm_assoc_scan_backward_args args = {.forward = args_of(data)};
  for (unsigned wanted = 1; wanted < 7; wanted++) {
    const test_problem p = backward_of(data, &args, wanted);
    problem_check(&p, device);
  }
}

static void test_gradients(const test_device *device, const void *data) {
  (void)device;
  const clm_assoc_scan_backward_args args = {.forward = args_of(data)};
  const test_problem forward = forward_of(data, &args.forward), backward = backward_of(data, &args, 7);
  problem_check_gradients(&forward, &backward, 40);
}

/* A recurrence that is not a number in one batch row stays there. */
static void test_nan_contained(const test_device *device, const void *data) {
  const scan_case *c = data;
  const clm_assoc_scan_args args = args_of(c);
  const test_problem p = forward_of(c, &args);
  test_run *clean = run_create(&p, device->context, false), *dirty = run_create(&p, device->context, false);
  double *b = run_read(dirty, "b");
  const size_t row = run_values(dirty, "b") / (size_t)c->batch;
  b[row / 2] = (double)NAN;
  run_write(dirty, "b", b);
  run_call(clean);
  run_call(dirty);
  double *want = run_read(clean, "h"), *got = run_read(dirty, "h");
  size_t nan_count = 0;
  for (size_t i = 0; i < row; i++) nan_count += got[i] != got[i];
  assert_true(nan_count > 0);
  assert_memory_equal(got + row, want + row, (size_t)(c->batch - 1) * row * sizeof *want);
  free(b);
  free(want);
  free(got);
  run_destroy(clean);
  run_destroy(dirty);
}

static void add(void) {
  for (size_t i = 0; i < CASES; i++) {
    for (size_t d = 0; d < test_device_count; d++) {
      test_add(&test_devices[d], test_forward, &cases[i], "assoc_scan: %s", cases[i].why);
      test_add(&test_devices[d], test_backward, &cases[i], "assoc_scan backward: %s", cases[i].why);
      if (!(cases[i].flags & COMPLEX) && (!test_devices[d].slow || i == 8))
        test_add(&test_devices[d], test_16bit, &cases[i], "assoc_scan in 16 bits: %s", cases[i].why);
    }
    if (cases[i].length <= 100) test_add(NULL, test_gradients, &cases[i], "assoc_scan gradients: %s", cases[i].why);
  }
  for (size_t d = 0; d < test_device_count; d++) {
    test_add(&test_devices[d], test_some_gradients, &cases[4], "assoc_scan: each subset of gradients");
    test_add(&test_devices[d], test_nan_contained, &cases[5], "assoc_scan: not a number stays in its batch row");
  }
}

int main(void) { return test_main("assoc_scan", add); }
