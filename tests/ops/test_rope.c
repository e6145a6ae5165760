/* Rotary position embedding. */
#include "problem.h"

TEST_OP(rope);

enum { OFFSETS = 1, PACKED = 2, F16 = 4, BF16 = 8, INTERLEAVED = 16, INVERSE = 32 };

typedef struct rope_case {
  int64_t batch, length, n_heads, head_dim, rotary;
  float theta;
  unsigned flags;
  test_layout layout;
  const char *why;
} rope_case;

static const rope_case cases[] = {
    /* batch length n_heads head_dim rotary theta */
    {1, 1, 1, 2, 0, 0, 0, TEST_CONTIGUOUS, "smallest"},
    {2, 9, 3, 20, 0, 0, 0, TEST_CONTIGUOUS, "whole heads"},
    {2, 9, 3, 64, 32, 0, 0, TEST_CONTIGUOUS, "half of a head"},
    {2, 9, 3, 80, 0, 1e11f, 0, TEST_CONTIGUOUS, "head_dim 80, theta 1e11"},
    {2, 5, 2, 7, 4, 1, 0, TEST_CONTIGUOUS, "odd head_dim, theta 1"},
    {2, 9, 3, 20, 0, 0, INTERLEAVED, TEST_CONTIGUOUS, "interleaved"},
    {2, 9, 3, 20, 12, 500, INTERLEAVED | INVERSE, TEST_PADDED, "interleaved, in part, inverse"},
    {2, 9, 3, 20, 0, 0, INVERSE, TEST_TRANSPOSED, "inverse, dimensions exchanged"},
    {3, 4, 2, 128, 0, 0, OFFSETS, TEST_CONTIGUOUS, "far positions"},
    {1, 40, 2, 16, 0, 0, PACKED, TEST_CONTIGUOUS, "packed"},
    {1, 40, 2, 16, 8, 0, PACKED | OFFSETS, TEST_WIDE, "packed, with offsets"},
    {2, 9, 3, 20, 0, 0, F16, TEST_SPREAD, "f16"},
    {2, 9, 3, 20, 10, 0, BF16, TEST_CONTIGUOUS, "bf16"},
    {2, 9, 3, 20, 0, 0, 0, TEST_REPEATED, "one batch row read for all"},
};

#define SHAPE c->batch, c->length, c->n_heads, c->head_dim

static test_problem problem_of(const rope_case *c, const clm_rope_args *args) {
  static const int32_t offsets[] = {1000003, -3, 80, 4096, 7, 0, 11, 50};
  const int64_t rows = c->flags & PACKED ? TEST_SEQUENCES : c->batch;
  test_problem p = {.op = &op_rope, .args = args, .seed = 91, .layout = c->layout, .tolerance = 2e-6};
  p.storage = c->flags & F16 ? CLM_F16 : c->flags & BF16 ? CLM_BF16 : CLM_F32;
  PROBLEM_ADD(&p, TEST_ROW(clm_rope_args, x, TEST_IN, TEST_STORAGE, NULL, SHAPE));
  if (c->flags & OFFSETS) {
    assert_true(rows <= (int64_t)TEST_COUNT(offsets));
    PROBLEM_ADD(&p, TEST_ROW(clm_rope_args, offsets, TEST_IN, TEST_INDEX, NULL, rows));
    problem_find(&p, "offsets")->values = offsets;
  }
  if (c->flags & PACKED) {
    PROBLEM_ADD(&p, TEST_ROW(clm_rope_args, cu_seqlens, TEST_IN, TEST_INDEX, NULL, TEST_SEQUENCES + 1));
    problem_find(&p, "cu_seqlens")->values = test_ends(c->length);
  }
  PROBLEM_ADD(&p, TEST_ROW(clm_rope_args, out, TEST_OUT, TEST_STORAGE, NULL, SHAPE));
  return p;
}

static clm_rope_args args_of(const rope_case *c) {
  return (clm_rope_args){
      .rotary = c->rotary, .theta = c->theta, .interleaved = c->flags & INTERLEAVED, .inverse = c->flags & INVERSE};
}

static void test_case(const test_device *device, const void *data) {
  const clm_rope_args args = args_of(data);
  const test_problem p = problem_of(data, &args);
  problem_check(&p, device);
}

/* The inverse, in place, of what it gives is x; lengths of pairs stay. */
static void test_inverse(const test_device *device, const void *data) {
  const rope_case *c = data;
  const clm_rope_args args = args_of(c);
  const test_problem p = problem_of(c, &args);
  test_run *run = run_create(&p, device->context, false);
  run_call(run);
  clm_rope_args back = *(const clm_rope_args *)run->args;
  back.x = back.out;
  back.inverse = !back.inverse;
  assert_int_equal(clm_rope(device->context, &back), CLM_OK);
  double *x = run_read(run, "x"), *out = run_read(run, "out");
  for (size_t i = 0; i < run_values(run, "x"); i++) assert_true(fabs(out[i] - x[i]) <= 1e-5);
  free(x);
  free(out);
  run_destroy(run);
}

/* Products of rotated vectors depend on the distance of their positions alone; at position 1 pair 0 turns by 1. */
static void test_values(const test_device *device, const void *data) {
  (void)data;
  static const rope_case c = {1, 2, 1, 4, 0, 100, 0, TEST_CONTIGUOUS, ""};
  const clm_rope_args args = args_of(&c);
  const test_problem p = problem_of(&c, &args);
  test_run *run = run_create(&p, device->context, false);
  run_write(run, "x", (const double[]){1, 2, 3, 4, 1, 0, 0, 1});
  run_call(run);
  const double want[] = {1, 2, 3, 4, cos(1), -sin(0.1), sin(1), cos(0.1)};
  double *out = run_read(run, "out");
  for (size_t i = 0; i < 8; i++) assert_true(fabs(out[i] - want[i]) <= 1e-6);
  free(out);
  run_destroy(run);
}

static void add(void) {
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    test_add(device, test_values, NULL, "rope: values");
    for (size_t i = 0; i < TEST_COUNT(cases); i++) test_add(device, test_case, &cases[i], "rope: %s", cases[i].why);
    test_add(device, test_inverse, &cases[2], "rope: the inverse in place: %s", cases[2].why);
    test_add(device, test_inverse, &cases[8], "rope: the inverse in place: %s", cases[8].why);
  }
}

int main(void) { return test_main("rope", add); }
