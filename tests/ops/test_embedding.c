/* Embedding and its backward. */
#include "problem.h"

TEST_OP(embedding);
TEST_OP(embedding_backward);

typedef struct embedding_case {
  int64_t count, vocab, dim;
  test_layout layout;
  const char *why;
} embedding_case;

static const embedding_case cases[] = {
    {1, 1, 1, TEST_CONTIGUOUS, "smallest"},
    {7, 5, 3, TEST_CONTIGUOUS, "odd sizes, repeated ids"},
    {200, 3, 17, TEST_CONTIGUOUS, "few ids, each often"},
    {33, 300, 64, TEST_CONTIGUOUS, "most rows without a gradient"},
    {129, 65, 35, TEST_PADDED, "padded rows"},
    {40, 20, 12, TEST_TRANSPOSED, "column-major"},
    {40, 20, 12, TEST_WIDE, "slices of wider matrices"},
    {21, 9, 5, TEST_SPREAD, "every other element"},
    {600, 256, 40, TEST_CONTIGUOUS, "bytes"},
};
#define CASES (sizeof cases / sizeof cases[0])

static void add_ids(test_problem *p, size_t member, const embedding_case *c) {
  problem_add(p, (test_tensor){.name = "ids",
                               .member = member,
                               .role = TEST_IN,
                               .kind = TEST_INDEX,
                               .rank = 1,
                               .shape = {c->count},
                               .bound = c->vocab});
}

static test_problem forward_of(const embedding_case *c, const clm_embedding_args *args) {
  test_problem p = {.op = &op_embedding, .args = args, .seed = 91, .layout = c->layout, .tolerance = 1e-7};
  add_ids(&p, offsetof(clm_embedding_args, ids), c);
  PROBLEM_ADD(&p, TEST_ROW(clm_embedding_args, table, TEST_IN, TEST_STORAGE, NULL, c->vocab, c->dim));
  PROBLEM_ADD(&p, TEST_ROW(clm_embedding_args, out, TEST_OUT, TEST_STORAGE, NULL, c->count, c->dim));
  return p;
}

static test_problem backward_of(const embedding_case *c, const clm_embedding_backward_args *args) {
  test_problem p = {.op = &op_embedding_backward, .args = args, .seed = 91, .layout = c->layout, .tolerance = 3e-6};
  add_ids(&p, offsetof(clm_embedding_backward_args, ids), c);
  PROBLEM_ADD(&p, TEST_GRADIENT(clm_embedding_backward_args, dout, TEST_IN, TEST_STORAGE, out, c->count, c->dim));
  PROBLEM_ADD(&p, TEST_GRADIENT(clm_embedding_backward_args, dtable, args->accumulate ? TEST_INOUT : TEST_OUT,
                                TEST_PARAMETER, table, c->vocab, c->dim));
  return p;
}

static void test_forward(const test_device *device, const void *data) {
  const clm_embedding_args args = {0};
  const test_problem p = forward_of(data, &args);
  problem_check(&p, device);
}

static void test_backward(const test_device *device, const void *data) {
  for (int accumulate = 0; accumulate < 2; accumulate++) {
    const clm_embedding_backward_args args = {.accumulate = accumulate};
    const test_problem p = backward_of(data, &args);
    problem_check(&p, device);
  }
}

static void test_16bit(const test_device *device, const void *data) {
  const clm_embedding_args args = {0};
  const clm_embedding_backward_args backward_args = {0};
  test_problem forward = forward_of(data, &args), backward = backward_of(data, &backward_args);
  problem_check_16bit(&forward, device);
  problem_check_16bit(&backward, device);
  problem_find(&forward, "table")->kind = TEST_PARAMETER;
  problem_check_16bit(&forward, device);
}

static void test_integers(const test_device *device, const void *data) {
  const embedding_case *c = data;
  const clm_embedding_args args = {0};
  test_problem p = forward_of(c, &args);
  problem_find(&p, "table")->kind = TEST_INTEGER;
  problem_find(&p, "table")->draw = draw_integer;
  PROBLEM_ADD(&p, TEST_ROW(clm_embedding_args, table_scale, TEST_IN, TEST_PARAMETER, draw_scale, c->vocab));
  problem_check(&p, device);
  if (!device->slow) problem_check_16bit(&p, device);
}

static void test_gradients(const test_device *device, const void *data) {
  (void)device;
  const clm_embedding_args args = {0};
  const clm_embedding_backward_args backward_args = {0};
  const test_problem forward = forward_of(data, &args), backward = backward_of(data, &backward_args);
  problem_check_gradients(&forward, &backward, 20);
}

/* Ids outside the table, however far, give rows of zeros and no gradient. */
static void test_outside(const test_device *device, const void *data) {
  (void)data;
  static const embedding_case c = {6, 4, 3, TEST_CONTIGUOUS, "outside"};
  static const double ids[] = {-1, 4, 2147483647, -2147483648.0, 3, 0};
  const clm_embedding_args args = {0};
  const test_problem p = forward_of(&c, &args);
  test_run *run = run_create(&p, device->context, false);
  run_write(run, "ids", ids);
  run_call(run);
  double *out = run_read(run, "out"), *table = run_read(run, "table");
  for (int i = 0; i < 12; i++) assert_true(out[i] == 0);
  assert_memory_equal(out + 12, table + 9, 3 * sizeof *out);
  assert_memory_equal(out + 15, table, 3 * sizeof *out);
  free(out);
  free(table);
  run_destroy(run);

  const clm_embedding_backward_args backward_args = {0};
  const test_problem q = backward_of(&c, &backward_args);
  run = run_create(&q, device->context, false);
  run_write(run, "ids", ids);
  run_call(run);
  double *dout = run_read(run, "dout"), *dtable = run_read(run, "dtable");
  for (int i = 3; i < 9; i++) assert_true(dtable[i] == 0);
  assert_memory_equal(dtable, dout + 15, 3 * sizeof *dout);
  assert_memory_equal(dtable + 9, dout + 12, 3 * sizeof *dout);
  free(dout);
  free(dtable);
  run_destroy(run);
}

static void add(void) {
  for (size_t i = 0; i < CASES; i++) {
    for (size_t d = 0; d < test_device_count; d++) {
      test_add(&test_devices[d], test_forward, &cases[i], "embedding: %s", cases[i].why);
      test_add(&test_devices[d], test_backward, &cases[i], "embedding backward: %s", cases[i].why);
      if (!test_devices[d].slow || i == 4)
        test_add(&test_devices[d], test_integers, &cases[i], "embedding in i8: %s", cases[i].why);
      if (!test_devices[d].slow || i == 4)
        test_add(&test_devices[d], test_16bit, &cases[i], "embedding in 16 bits: %s", cases[i].why);
    }
    test_add(NULL, test_gradients, &cases[i], "embedding gradients: %s", cases[i].why);
  }
  for (size_t d = 0; d < test_device_count; d++)
    test_add(&test_devices[d], test_outside, NULL, "embedding: ids outside the table");
}

int main(void) { return test_main("embedding", add); }
