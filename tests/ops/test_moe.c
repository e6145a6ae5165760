/* Mixture of experts: routing, rows by expert, grouped products, adding up. */
#include "problem.h"
#include <string.h>

TEST_OP(route);
TEST_OP(route_backward);
TEST_OP(expert_rows);
TEST_OP(grouped_matmul);
TEST_OP(grouped_matmul_backward);
TEST_OP(combine);
TEST_OP(combine_backward);

/* ---- Routing ---- */

typedef struct route_case {
  int64_t tokens, experts, chosen, n_groups, top_groups;
  clm_route_scores scores;
  bool normalize, bias;
  float scale;
  test_layout layout;
  const char *why;
} route_case;

#define SOFTMAX CLM_ROUTE_SOFTMAX
#define SIGMOID CLM_ROUTE_SIGMOID
static const route_case route_cases[] = {
    {1, 1, 1, 0, 0, SOFTMAX, false, false, 0, TEST_CONTIGUOUS, "smallest"},
    {5, 16, 2, 0, 0, SOFTMAX, false, false, 0, TEST_CONTIGUOUS, "jamba"},
    {7, 64, 6, 0, 0, SOFTMAX, true, false, 0, TEST_CONTIGUOUS, "granite"},
    {9, 128, 6, 0, 0, SIGMOID, true, true, 2.5f, TEST_CONTIGUOUS, "nemotron"},
    {9, 24, 5, 4, 2, SIGMOID, true, true, 5, TEST_PADDED, "groups, padded"},
    {3, 12, 3, 12, 4, SIGMOID, false, true, 0, TEST_CONTIGUOUS, "groups of one"},
    {3, 12, 4, 3, 3, SOFTMAX, false, true, 0.5f, TEST_CONTIGUOUS, "all groups, a bias"},
    {4, 35, 35, 0, 0, SOFTMAX, true, false, 0, TEST_TRANSPOSED, "all experts, column-major"},
    {33, 300, 22, 0, 0, SIGMOID, true, true, 5, TEST_WIDE, "many experts, a slice"},
    {17, 9, 2, 0, 0, SIGMOID, false, false, 3, TEST_SPREAD, "every other element"},
};

static clm_route_args route_args_of(const route_case *c) {
  return (clm_route_args){.scores = c->scores,
                          .normalize = c->normalize,
                          .scale = c->scale,
                          .n_groups = c->n_groups,
                          .top_groups = c->top_groups};
}

static test_problem route_of(const route_case *c, const clm_route_args *args) {
  test_problem p = {.op = &op_route, .args = args, .seed = 17, .layout = c->layout, .tolerance = 3e-6};
  PROBLEM_ADD(&p, TEST_ROW(clm_route_args, logits, TEST_IN, TEST_STORAGE, NULL, c->tokens, c->experts));
  if (c->bias) PROBLEM_ADD(&p, TEST_ROW(clm_route_args, bias, TEST_IN, TEST_PARAMETER, NULL, c->experts));
  PROBLEM_ADD(&p, TEST_ROW(clm_route_args, ids, TEST_OUT, TEST_INDEX, NULL, c->tokens, c->chosen));
  PROBLEM_ADD(&p, TEST_ROW(clm_route_args, weights, TEST_OUT, TEST_PARAMETER, NULL, c->tokens, c->chosen));
  return p;
}

/* `forward` gives ids. */
static test_problem route_backward_of(const route_case *c, const clm_route_backward_args *args,
                                      const test_problem *forward) {
  test_problem p = {.op = &op_route_backward, .args = args, .seed = 17, .layout = c->layout, .tolerance = 1e-5};
  PROBLEM_ADD(&p, TEST_ROW(clm_route_args, logits, TEST_IN, TEST_STORAGE, NULL, c->tokens, c->experts));
  PROBLEM_ADD(&p, TEST_ROW(clm_route_args, ids, TEST_IN, TEST_INDEX, NULL, c->tokens, c->chosen));
  problem_find(&p, "ids")->made_by = forward;
  PROBLEM_ADD(
      &p, TEST_GRADIENT(clm_route_backward_args, dweights, TEST_IN, TEST_PARAMETER, weights, c->tokens, c->chosen));
  PROBLEM_ADD(&p,
              TEST_GRADIENT(clm_route_backward_args, dlogits, TEST_OUT, TEST_STORAGE, logits, c->tokens, c->experts));
  return p;
}

static void test_route(const test_device *device, const void *data) {
  const clm_route_args args = route_args_of(data);
  const test_problem p = route_of(data, &args);
  problem_check(&p, device);
  problem_check_16bit(&p, device);
}

static void test_route_backward(const test_device *device, const void *data) {
  static const clm_dtype storages[] = {CLM_F32, CLM_F16, CLM_BF16};
  const clm_route_backward_args args = {.forward = route_args_of(data)};
  for (size_t i = 0; i < TEST_COUNT(storages); i++) {
    test_problem forward = route_of(data, &args.forward), p = route_backward_of(data, &args, &forward);
    forward.storage = p.storage = storages[i];
    problem_check(&p, device);
  }
}

static void test_route_gradients(const test_device *device, const void *data) {
  (void)device;
  const clm_route_backward_args args = {.forward = route_args_of(data)};
  const test_problem forward = route_of(data, &args.forward), backward = route_backward_of(data, &args, &forward);
  problem_check_gradients(&forward, &backward, 30);
}

static void check_ids(const test_run *run, const double *want, size_t count) {
  double *ids = run_read(run, "ids");
  for (size_t i = 0; i < count; i++) assert_int_equal(ids[i], want[i]);
  free(ids);
}

/* Equal experts go by number; what is not a number comes last; a bias chooses, but does not weigh; of equal groups
 * the first ones stay. */
static void test_choice(const test_device *device, const void *data) {
  (void)data;
  static const route_case tie = {3, 6, 3, 0, 0, SOFTMAX, false, false, 0, TEST_CONTIGUOUS, "ties"},
                          bias = {1, 4, 2, 0, 0, SIGMOID, false, true, 0, TEST_CONTIGUOUS, "bias"},
                          group = {1, 6, 2, 3, 1, SIGMOID, false, false, 0, TEST_CONTIGUOUS, "groups"};
  static const double ties[] = {1, 2, 2, 1, 2, 2, 0, 0, 0, 0, 0, 0, -1, 5, -1, -2, -1, -3},
                      tied[] = {1, 2, 4, 0, 1, 2, 1, 0, 2};
  static const double even[] = {0, 0, 0, 0}, biases[] = {-1, 3, 0, 2}, biased[] = {1, 3};
  static const double groups[] = {4, -9, 2, 2, 2, 2}, grouped[] = {2, 3};
  clm_route_args args = route_args_of(&tie);
  test_problem p = route_of(&tie, &args);
  test_run *run = run_create(&p, device->context, false);
  run_write(run, "logits", ties);
  run_call(run);
  check_ids(run, tied, 9);
  run_destroy(run);
  args = route_args_of(&bias);
  p = route_of(&bias, &args);
  run = run_create(&p, device->context, false);
  run_write(run, "logits", even);
  run_write(run, "bias", biases);
  run_call(run);
  check_ids(run, biased, 2);
  double *weights = run_read(run, "weights");
  assert_true(weights[0] == 0.5 && weights[1] == 0.5);
  free(weights);
  run_write(run, "bias", (const double[]){(double)NAN, 0, (double)NAN, (double)NAN});
  run_call(run);
  check_ids(run, (const double[]){1, 0}, 2);
  run_destroy(run);
  args = route_args_of(&group);
  p = route_of(&group, &args);
  run = run_create(&p, device->context, false);
  run_write(run, "logits", groups);
  run_call(run);
  check_ids(run, grouped, 2);
  run_destroy(run);
}

/* ---- Rows by expert ---- */

typedef struct rows_case {
  int64_t tokens, chosen, experts;
  test_layout layout;
  const char *why;
} rows_case;

static const rows_case rows_cases[] = {
    {1, 1, 1, TEST_CONTIGUOUS, "smallest"},
    {1, 6, 64, TEST_CONTIGUOUS, "one token"},
    {50, 2, 3, TEST_CONTIGUOUS, "few experts"},
    {129, 3, 300, TEST_PADDED, "experts without rows, padded"},
    {40, 4, 16, TEST_TRANSPOSED, "column-major"},
    {33, 5, 7, TEST_SPREAD, "every other element"},
    {20, 3, 1, TEST_WIDE, "all to one expert, a slice"},
};

static test_problem rows_of(const rows_case *c, const clm_expert_rows_args *args) {
  const int64_t rows = c->tokens * c->chosen;
  test_problem p = {.op = &op_expert_rows, .args = args, .seed = 5, .layout = c->layout, .tolerance = 0};
  PROBLEM_ADD(&p, TEST_ROW(clm_expert_rows_args, ids, TEST_IN, TEST_INDEX, NULL, c->tokens, c->chosen));
  problem_find(&p, "ids")->bound = c->experts;
  PROBLEM_ADD(&p, TEST_ROW(clm_expert_rows_args, group_offsets, TEST_OUT, TEST_INDEX, NULL, c->experts + 1));
  PROBLEM_ADD(&p, TEST_ROW(clm_expert_rows_args, order, TEST_OUT, TEST_INDEX, NULL, rows));
  PROBLEM_ADD(&p, TEST_ROW(clm_expert_rows_args, tokens, TEST_OUT, TEST_INDEX, NULL, rows));
  PROBLEM_ADD(&p, TEST_ROW(clm_expert_rows_args, places, TEST_OUT, TEST_INDEX, NULL, c->tokens, c->chosen));
  PROBLEM_ADD(&p, TEST_ROW(clm_expert_rows_args, counts, TEST_OUT, TEST_INDEX, NULL, c->experts));
  return p;
}

static void test_rows(const test_device *device, const void *data) {
  const clm_expert_rows_args args = {0};
  const test_problem p = rows_of(data, &args);
  problem_check(&p, device);
}

/* The reference: rows ascend by expert, then by pair, and each pair's place is its row. */
static void test_rows_sorted(const test_device *device, const void *data) {
  (void)device;
  const rows_case *c = data;
  const clm_expert_rows_args args = {0};
  const test_problem p = rows_of(c, &args);
  test_run *run = run_create(&p, test_reference, true);
  run_call(run);
  double *ids = run_read(run, "ids"), *order = run_read(run, "order"), *places = run_read(run, "places"),
         *tokens = run_read(run, "tokens"), *offsets = run_read(run, "group_offsets"),
         *counts = run_read(run, "counts");
  int64_t row = 0;
  for (int64_t e = 0; e <= c->experts; e++) {
    assert_int_equal(offsets[e], row);
    for (int64_t i = 0; i < c->tokens * c->chosen; i++) {
      const bool is_own = e < c->experts ? (int64_t)ids[i] == e : ids[i] < 0 || ids[i] >= (double)c->experts;
      if (!is_own) continue;
      assert_int_equal(order[row], i);
      assert_int_equal(tokens[row], i / c->chosen);
      assert_int_equal(places[i], row);
      row++;
    }
    if (e < c->experts) assert_int_equal(counts[e], (double)row - offsets[e]);
  }
  free(ids);
  free(order);
  free(places);
  free(tokens);
  free(offsets);
  free(counts);
  run_destroy(run);
}

/* ---- Products ---- */

enum { EVEN, ONE, SOME, NONE }; /* who has rows: all, one, every third, no expert */

typedef struct product_case {
  int64_t rows, experts, n, k;
  int share;
  test_layout layout;
  const char *why;
} product_case;

static const product_case product_cases[] = {
    {1, 1, 1, 1, EVEN, TEST_CONTIGUOUS, "smallest"},
    {6, 64, 33, 40, SOME, TEST_CONTIGUOUS, "a token, experts without rows"},
    {8, 8, 70, 64, EVEN, TEST_CONTIGUOUS, "a row each"},
    {5, 3, 9, 35, ONE, TEST_CONTIGUOUS, "all to one expert"},
    {7, 4, 9, 35, NONE, TEST_CONTIGUOUS, "no expert has rows"},
    {100, 5, 37, 50, EVEN, TEST_CONTIGUOUS, "tiles, past whole ones"},
    {90, 7, 65, 33, SOME, TEST_PADDED, "some without rows, padded"},
    {70, 3, 40, 20, EVEN, TEST_TRANSPOSED, "columns innermost"},
    {70, 3, 40, 20, SOME, TEST_WIDE, "slices"},
    {40, 4, 17, 36, EVEN, TEST_SPREAD, "every other element"},
};

/* The last of the rows are of no expert, where there is more than one for each. */
static const int32_t *offsets_of(const product_case *c) {
  static int32_t offsets[65];
  const int64_t rows = c->rows > 2 * c->experts ? c->rows - 3 : c->rows;
  const int64_t owners = c->share == EVEN ? c->experts : (c->experts + 2) / 3;
  for (int64_t e = 0; e <= c->experts; e++) {
    int64_t before = c->share == EVEN ? e : (e + 2) / 3; /* owners among the experts before it */
    if (c->share == ONE) before = e > c->experts / 2 ? owners : 0;
    offsets[e] = c->share == NONE ? 0 : (int32_t)(rows * before / owners);
  }
  return offsets;
}

static test_problem product_of(const product_case *c, const clm_grouped_matmul_args *args) {
  test_problem p = {.op = &op_grouped_matmul, .args = args, .seed = 23, .layout = c->layout, .tolerance = 1e-5};
  PROBLEM_ADD(&p, TEST_ROW(clm_grouped_matmul_args, a, TEST_IN, TEST_STORAGE, NULL, c->rows, c->k));
  PROBLEM_ADD(&p, TEST_ROW(clm_grouped_matmul_args, b, TEST_IN, TEST_STORAGE, NULL, c->experts, c->n, c->k));
  PROBLEM_ADD(&p, TEST_ROW(clm_grouped_matmul_args, group_offsets, TEST_IN, TEST_INDEX, NULL, c->experts + 1));
  problem_find(&p, "group_offsets")->values = offsets_of(c);
  PROBLEM_ADD(&p, TEST_ROW(clm_grouped_matmul_args, out, TEST_OUT, TEST_STORAGE, NULL, c->rows, c->n));
  return p;
}

enum { DA = 1, DB = 2 };

static test_problem product_backward_of(const product_case *c, const clm_grouped_matmul_backward_args *args,
                                        unsigned wanted) {
  test_problem p = product_of(c, &args->forward);
  p.op = &op_grouped_matmul_backward;
  p.args = args;
  p.count--; /* out */
  PROBLEM_ADD(&p, TEST_GRADIENT(clm_grouped_matmul_backward_args, dout, TEST_IN, TEST_STORAGE, out, c->rows, c->n));
  if (wanted & DA)
    PROBLEM_ADD(&p, TEST_GRADIENT(clm_grouped_matmul_backward_args, da, TEST_OUT, TEST_STORAGE, a, c->rows, c->k));
  if (wanted & DB)
    PROBLEM_ADD(
        &p, TEST_GRADIENT(clm_grouped_matmul_backward_args, db, TEST_OUT, TEST_PARAMETER, b, c->experts, c->n, c->k));
  return p;
}

static void test_product(const test_device *device, const void *data) {
  const product_case *c = data;
  const clm_grouped_matmul_args args = {0};
  test_problem p = product_of(c, &args);
  problem_check(&p, device);
  problem_check_16bit(&p, device);
  problem_find(&p, "out")->kind = TEST_PARAMETER;
  problem_find(&p, "b")->kind = TEST_INTEGER;
  problem_find(&p, "b")->draw = draw_integer;
  PROBLEM_ADD(&p, TEST_ROW(clm_grouped_matmul_args, b_scale, TEST_IN, TEST_PARAMETER, draw_scale, c->experts, c->n));
  problem_check(&p, device);
  if (!device->slow) problem_check_16bit(&p, device);
}

static void test_product_backward(const test_device *device, const void *data) {
  const clm_grouped_matmul_backward_args args = {0};
  for (unsigned wanted = DA; wanted <= (DA | DB); wanted++) {
    const test_problem p = product_backward_of(data, &args, wanted);
    problem_check(&p, device);
    if (wanted == (DA | DB)) problem_check_16bit(&p, device);
  }
}

static void test_product_gradients(const test_device *device, const void *data) {
  (void)device;
  const clm_grouped_matmul_args forward = {0};
  const clm_grouped_matmul_backward_args args = {0};
  const test_problem f = product_of(data, &forward), b = product_backward_of(data, &args, DA | DB);
  problem_check_gradients(&f, &b, 30);
}

/* Not a number in the weights of experts without rows changes nothing: they are not read. */
static void test_unread(const test_device *device, const void *data) {
  const product_case *c = data;
  const clm_grouped_matmul_args args = {0};
  const test_problem p = product_of(c, &args);
  test_run *clean = run_create(&p, device->context, false), *dirty = run_create(&p, device->context, false);
  double *b = run_read(dirty, "b");
  const int32_t *offsets = offsets_of(c);
  const int64_t each = c->n * c->k;
  int64_t unread = 0;
  for (int64_t i = 0; i < c->experts * each; i++)
    if (offsets[i / each] == offsets[i / each + 1]) {
      b[i] = (double)NAN;
      unread++;
    }
  assert_true(unread > 0);
  run_write(dirty, "b", b);
  run_call(clean);
  run_call(dirty);
  double *want = run_read(clean, "out"), *got = run_read(dirty, "out");
  assert_memory_equal(got, want, (size_t)(c->rows * c->n) * sizeof *got);
  free(b);
  free(want);
  free(got);
  run_destroy(clean);
  run_destroy(dirty);
}

/* ---- Adding up ---- */

typedef struct combine_case {
  int64_t tokens, chosen, dim;
  bool weights, residual;
  test_layout layout;
  const char *why;
} combine_case;

static const combine_case combine_cases[] = {
    {1, 1, 1, true, false, TEST_CONTIGUOUS, "smallest"},
    {1, 6, 70, true, true, TEST_CONTIGUOUS, "one token"},
    {9, 2, 33, false, false, TEST_CONTIGUOUS, "without weights"},
    {35, 4, 17, true, true, TEST_PADDED, "padded"},
    {12, 3, 300, true, false, TEST_TRANSPOSED, "column-major"},
    {30, 2, 40, false, true, TEST_WIDE, "slices"},
    {21, 3, 9, true, true, TEST_SPREAD, "every other element"},
};

/* Pairs and rows in turn, from both ends; some pairs have no row, and their rows no pair. */
static void scatter_pairs(const combine_case *c, int32_t *places, int32_t *order) {
  const int32_t pairs = (int32_t)(c->tokens * c->chosen);
  for (int32_t i = 0; i < pairs; i++) {
    const int32_t row = i % 2 ? pairs - 1 - i / 2 : i / 2;
    places[i] = i % 7 == 3 ? -1 : row;
    order[row] = i % 7 == 3 ? pairs : i;
  }
}

static test_problem combine_of(const combine_case *c, const clm_combine_args *args, const int32_t *places) {
  test_problem p = {.op = &op_combine, .args = args, .seed = 31, .layout = c->layout, .tolerance = 1e-6};
  PROBLEM_ADD(&p, TEST_ROW(clm_combine_args, y, TEST_IN, TEST_STORAGE, NULL, c->tokens * c->chosen, c->dim));
  PROBLEM_ADD(&p, TEST_ROW(clm_combine_args, places, TEST_IN, TEST_INDEX, NULL, c->tokens, c->chosen));
  problem_find(&p, "places")->values = places;
  if (c->weights)
    PROBLEM_ADD(&p, TEST_ROW(clm_combine_args, weights, TEST_IN, TEST_PARAMETER, NULL, c->tokens, c->chosen));
  if (c->residual)
    PROBLEM_ADD(&p, TEST_ROW(clm_combine_args, residual, TEST_IN, TEST_STORAGE, NULL, c->tokens, c->dim));
  PROBLEM_ADD(&p, TEST_ROW(clm_combine_args, out, TEST_OUT, TEST_STORAGE, NULL, c->tokens, c->dim));
  return p;
}

static test_problem combine_backward_of(const combine_case *c, const clm_combine_backward_args *args,
                                        const int32_t *places, const int32_t *order, bool dy, bool dweights) {
  combine_case inputs = *c;
  inputs.residual = false;
  test_problem p = combine_of(&inputs, &args->forward, places);
  p.op = &op_combine_backward;
  p.args = args;
  p.tolerance = 5e-6;
  p.count--; /* out */
  PROBLEM_ADD(&p, TEST_ROW(clm_combine_backward_args, order, TEST_IN, TEST_INDEX, NULL, c->tokens * c->chosen));
  problem_find(&p, "order")->values = order;
  PROBLEM_ADD(&p, TEST_GRADIENT(clm_combine_backward_args, dout, TEST_IN, TEST_STORAGE, out, c->tokens, c->dim));
  if (dy)
    PROBLEM_ADD(
        &p, TEST_GRADIENT(clm_combine_backward_args, dy, TEST_OUT, TEST_STORAGE, y, c->tokens * c->chosen, c->dim));
  if (dweights)
    PROBLEM_ADD(&p, TEST_GRADIENT(clm_combine_backward_args, dweights, TEST_OUT, TEST_PARAMETER, weights, c->tokens,
                                  c->chosen));
  return p;
}

enum { MAX_PAIRS = 256 };

static void test_combine(const test_device *device, const void *data) {
  const clm_combine_args args = {0};
  int32_t places[MAX_PAIRS], order[MAX_PAIRS];
  scatter_pairs(data, places, order);
  test_problem p = combine_of(data, &args, places);
  problem_check(&p, device);
  problem_check_16bit(&p, device);
  problem_find(&p, "y")->kind = TEST_BF16; /* inside a layer, beside a residual stream in f32 */
  problem_check(&p, device);
}

static void test_combine_backward(const test_device *device, const void *data) {
  const combine_case *c = data;
  const clm_combine_backward_args args = {0};
  int32_t places[MAX_PAIRS], order[MAX_PAIRS];
  scatter_pairs(c, places, order);
  for (int wanted = 1; wanted < (c->weights ? 4 : 2); wanted++) {
    const test_problem p = combine_backward_of(c, &args, places, order, wanted & 1, wanted & 2);
    problem_check(&p, device);
    if (wanted != 2) problem_check_16bit(&p, device);
  }
}

static void test_combine_gradients(const test_device *device, const void *data) {
  (void)device;
  const combine_case *c = data;
  const clm_combine_args forward = {0};
  const clm_combine_backward_args args = {0};
  int32_t places[MAX_PAIRS], order[MAX_PAIRS];
  scatter_pairs(c, places, order);
  const test_problem f = combine_of(c, &forward, places),
                     b = combine_backward_of(c, &args, places, order, true, c->weights);
  problem_check_gradients(&f, &b, 30);
}

#define ADD_ALL(device, test, cases, format)                                                                         \
  for (size_t i = 0; i < TEST_COUNT(cases); i++) test_add(device, test, &(cases)[i], format, (cases)[i].why)

static void add(void) {
  ADD_ALL(NULL, test_route_gradients, route_cases, "route: finite differences: %s");
  ADD_ALL(NULL, test_rows_sorted, rows_cases, "expert_rows: sorted: %s");
  ADD_ALL(NULL, test_product_gradients, product_cases, "grouped_matmul: finite differences: %s");
  ADD_ALL(NULL, test_combine_gradients, combine_cases, "combine: finite differences: %s");
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    ADD_ALL(device, test_route, route_cases, "route: %s");
    ADD_ALL(device, test_route_backward, route_cases, "route_backward: %s");
    test_add(device, test_choice, NULL, "route: ties, a bias, groups");
    ADD_ALL(device, test_rows, rows_cases, "expert_rows: %s");
    ADD_ALL(device, test_product, product_cases, "grouped_matmul: %s");
    test_add(device, test_unread, &product_cases[1], "grouped_matmul: few rows, weights that are not read");
    test_add(device, test_unread, &product_cases[6], "grouped_matmul: weights that are not read");
    ADD_ALL(device, test_product_backward, product_cases, "grouped_matmul_backward: %s");
    ADD_ALL(device, test_combine, combine_cases, "combine: %s");
    ADD_ALL(device, test_combine_backward, combine_cases, "combine_backward: %s");
  }
}

int main(void) { return test_main("moe", add); }
