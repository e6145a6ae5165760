/* SSD and its gradients over a grid: lengths to 4,096, chunks of 16 to 256 and the backend's choice, 1 to 8 groups,
 * three dtypes; heads, head_dim, d_state and flags drawn for each cell. Tolerances are those of the reference
 * package's tests of the selective scan, without exceptions. */
#include "grid.h"
#include <stdio.h>
#include <string.h>

TEST_OP(ssd);
TEST_OP(ssd_backward);

static const int64_t lengths[] = {1, 2, 7, 16, 63, 128, 151, 256, 372, 784, 1024, 1134, 2048, 4096};
static const int64_t chunks[] = {16, 32, 64, 100, 128, 256, 0};
static const int64_t groups[] = {1, 2, 4, 8};
static const int64_t head_dims[] = {4, 12, 64, 80};
static const int64_t states[] = {8, 16, 64, 96, 128};
static const clm_dtype dtypes[] = {CLM_F32, CLM_F16, CLM_BF16};

enum {
  HAS_D = 1,
  WIDE_D = 2,
  HAS_Z = 4,
  BIAS = 8,
  SOFTPLUS = 16,
  LOG_A = 32,
  LOW = 64, /* a lower limit of the steps, an upper one */
  HIGH = 128,
  INITIAL = 256,
  FINAL = 512,
  REVERSE = 1024,
  HALF_SUMS = 2048, /* gradients of B and C in their own dtype, not in f32 */
  LENGTH_FAST = 4096,
  SEQ_IDX = 8192,
  PACKED = 16384,
};

typedef struct cell {
  int64_t batch, length, n_heads, head_dim, n_groups, d_state, sequences, chunk;
  clm_dtype dtype;
  unsigned flags;
  int number;
} cell;

static cell cell_of(int number, clm_dtype dtype, int64_t length, int64_t chunk, int64_t n_groups) {
  test_random r = random_seeded((uint64_t)number, "cell");
  cell c = {.number = number, .dtype = dtype, .length = length, .chunk = chunk, .n_groups = n_groups};
  c.n_heads = n_groups * (1 + random_below(&r, 3));
  c.head_dim = head_dims[random_below(&r, TEST_COUNT(head_dims))];
  c.d_state = states[random_below(&r, TEST_COUNT(states))];
  c.flags = (unsigned)random_below(&r, 2 * PACKED);
  if (c.flags & SEQ_IDX && c.flags & PACKED) c.flags &= ~(unsigned)(number & 1 ? SEQ_IDX : PACKED);
  c.batch = c.flags & PACKED || length > 512 ? 1 : 2;
  c.sequences = c.flags & PACKED ? 1 + number % 5 : c.batch;
  return c;
}

/* ---- Inputs ---- */

/* Multiples of 1/256 below 0.5, so that no sum of two, nor its softplus, is so near to a limit that rounding decides
 * on which side it is. */
static double draw_half(test_random *r) { return (double)random_below(r, 128) / 256; }

static double draw_rate(test_random *r) { return 0.5 * (1 + 31 * random_uniform(r)) / 32; }
static double draw_decay_rate(test_random *r) { return -draw_rate(r); }
static double draw_log_rate(test_random *r) { return log(draw_rate(r)); }

#define ROW(p, field, role, kind, draw, ...)                                                                         \
  PROBLEM_ADD(p, TEST_ROW(clm_ssd_args, field, role, kind, draw, __VA_ARGS__))
#define GRADIENT(p, field, role, kind, of, ...)                                                                      \
  PROBLEM_ADD(p, TEST_GRADIENT(clm_ssd_backward_args, field, role, kind, of, __VA_ARGS__))
#define STEP(c)     (c)->batch, (c)->length, (c)->n_heads
#define SEQUENCE(c) STEP(c), (c)->head_dim
#define B_OR_C(c)   (c)->batch, (c)->length, (c)->n_groups, (c)->d_state
#define STATE(c)    (c)->sequences, (c)->n_heads, (c)->head_dim, (c)->d_state

static void add_inputs(test_problem *p, const cell *c) {
  ROW(p, x, TEST_IN, TEST_STORAGE, NULL, SEQUENCE(c));
  ROW(p, dt, TEST_IN, TEST_STORAGE, draw_half, STEP(c));
  ROW(p, A, TEST_IN, TEST_PARAMETER, c->flags & LOG_A ? draw_log_rate : draw_decay_rate, c->n_heads);
  ROW(p, B, TEST_IN, TEST_STORAGE, draw_small, B_OR_C(c));
  ROW(p, C, TEST_IN, TEST_STORAGE, draw_small, B_OR_C(c));
  if (c->flags & HAS_D && c->flags & WIDE_D) ROW(p, D, TEST_IN, TEST_PARAMETER, NULL, c->n_heads, c->head_dim);
  else if (c->flags & HAS_D) ROW(p, D, TEST_IN, TEST_PARAMETER, NULL, c->n_heads);
  if (c->flags & HAS_Z) ROW(p, z, TEST_IN, TEST_STORAGE, NULL, SEQUENCE(c));
  if (c->flags & BIAS) ROW(p, dt_bias, TEST_IN, TEST_PARAMETER, draw_half, c->n_heads);
  if (c->flags & INITIAL) ROW(p, initial_state, TEST_IN, TEST_PARAMETER, NULL, STATE(c));
  if (c->flags & SEQ_IDX) {
    ROW(p, seq_idx, TEST_IN, TEST_INDEX, NULL, c->batch, c->length);
    problem_find(p, "seq_idx")->bound = 1; /* until grid_check draws sequences */
  }
  if (c->flags & PACKED) {
    ROW(p, cu_seqlens, TEST_IN, TEST_INDEX, NULL, c->sequences + 1);
    problem_find(p, "cu_seqlens")->bound = 1;
  }
}

static void add_outputs(test_problem *p, const cell *c) {
  ROW(p, out, TEST_OUT, TEST_STORAGE, NULL, SEQUENCE(c));
  if (c->flags & FINAL) ROW(p, final_state, TEST_OUT, TEST_PARAMETER, NULL, STATE(c));
}

static void add_gradients(test_problem *p, const cell *c) {
  const test_kind sums = c->flags & HALF_SUMS ? TEST_STORAGE : TEST_PARAMETER;
  GRADIENT(p, dout, TEST_IN, TEST_STORAGE, out, SEQUENCE(c));
  if (c->flags & FINAL) GRADIENT(p, dfinal_state, TEST_IN, TEST_PARAMETER, final_state, STATE(c));
  GRADIENT(p, dx, TEST_OUT, TEST_STORAGE, x, SEQUENCE(c));
  GRADIENT(p, ddt, TEST_OUT, TEST_STORAGE, dt, STEP(c));
  if (c->flags & HAS_Z) GRADIENT(p, dz, TEST_OUT, TEST_STORAGE, z, SEQUENCE(c));
  GRADIENT(p, dA, TEST_OUT, TEST_PARAMETER, A, c->n_heads);
  GRADIENT(p, dB, TEST_OUT, sums, B, B_OR_C(c));
  GRADIENT(p, dC, TEST_OUT, sums, C, B_OR_C(c));
  if (c->flags & HAS_D && c->flags & WIDE_D) GRADIENT(p, dD, TEST_OUT, TEST_PARAMETER, D, c->n_heads, c->head_dim);
  else if (c->flags & HAS_D) GRADIENT(p, dD, TEST_OUT, TEST_PARAMETER, D, c->n_heads);
  if (c->flags & BIAS) GRADIENT(p, ddt_bias, TEST_OUT, TEST_PARAMETER, dt_bias, c->n_heads);
  if (c->flags & INITIAL) GRADIENT(p, dinitial_state, TEST_OUT, TEST_PARAMETER, initial_state, STATE(c));
  PROBLEM_ADD(p, TEST_ROW(clm_ssd_backward_args, out, TEST_OUT, TEST_STORAGE, NULL, SEQUENCE(c)));
}

/* ---- The cells ---- */

static void describe(char *text, size_t size, const cell *c) {
  static const char *const names[] = {"D",       "wide",  "z",       "bias",   "softplus", "log A",   "low",   "high",
                                      "initial", "final", "reverse", "halves", "bdl",      "seq_idx", "packed"};
  int used = snprintf(
      text, size, "cell %d: %lld x %lld, %lld heads of %lld, %lld groups of %lld states, %s, chunk %lld:", c->number,
      (long long)c->batch, (long long)c->length, (long long)c->n_heads, (long long)c->head_dim,
      (long long)c->n_groups, (long long)c->d_state, clm_dtype_name(c->dtype), (long long)c->chunk);
  for (size_t i = 0; i < TEST_COUNT(names) && used < (int)size; i++)
    if (c->flags >> i & 1) used += snprintf(text + used, size - (size_t)used, " %s", names[i]);
}

static test_problem problem_of(const cell *c, const test_op *op, const void *args) {
  return (test_problem){.op = op,
                        .args = args,
                        .seed = (uint64_t)c->number + 1,
                        .storage = c->dtype,
                        .layout = c->flags & LENGTH_FAST ? TEST_TRANSPOSED : TEST_CONTIGUOUS};
}

/* Steps are below 1 without softplus, and about 1 with it. */
static bool check_cell(const cell *c) {
  static const grid_exception none[] = {{NULL, 0, 0}};
  const bool softplus = c->flags & SOFTPLUS;
  const float high = softplus ? 1.0f : 0.4f, without = c->flags & LOW ? INFINITY : 0;
  const clm_ssd_args args = {.dt_min = c->flags & LOW ? (softplus ? 0.8f : 0.1f) : 0,
                             .dt_max = c->flags & HIGH ? high : without,
                             .chunk = c->chunk,
                             .dt_softplus = softplus,
                             .A_is_log = c->flags & LOG_A,
                             .reverse = c->flags & REVERSE};
  const clm_ssd_backward_args backward_args = {.forward = args};
  test_problem forward = problem_of(c, &op_ssd, &args), backward = problem_of(c, &op_ssd_backward, &backward_args);
  char text[300];
  describe(text, sizeof text, c);
  add_inputs(&forward, c);
  add_outputs(&forward, c);
  add_inputs(&backward, c);
  add_gradients(&backward, c);
  const bool right = grid_check(&forward, none, text);
  return grid_check(&backward, none, text) && right;
}

typedef struct group { /* a test */
  clm_dtype dtype;
  int64_t chunk;
} group;

static void run_group(const test_device *device, const void *data) {
  (void)device;
  const group *g = data;
  int number = 0, failed = 0;
  for (size_t t = 0; t < TEST_COUNT(dtypes); t++)
    for (size_t k = 0; k < TEST_COUNT(chunks); k++)
      for (size_t l = 0; l < TEST_COUNT(lengths); l++)
        for (size_t n = 0; n < TEST_COUNT(groups); n++, number++) {
          if (dtypes[t] != g->dtype || chunks[k] != g->chunk) continue;
          const cell c = cell_of(number, dtypes[t], lengths[l], chunks[k], groups[n]);
          if (grid_takes(number, c.length * c.n_heads * c.head_dim * c.d_state)) failed += !check_cell(&c);
        }
  if (failed) fail_msg("%d cells", failed);
}

static void add(void) {
  static group all[TEST_COUNT(dtypes) * TEST_COUNT(chunks)];
  group *g = all;
  for (size_t t = 0; t < TEST_COUNT(dtypes); t++)
    for (size_t k = 0; k < TEST_COUNT(chunks); k++, g++) {
      *g = (group){dtypes[t], chunks[k]};
      if (grid_has_share((int)t))
        test_add(NULL, run_group, g, "ssd, %s, chunk %lld", clm_dtype_name(dtypes[t]), (long long)chunks[k]);
    }
  test_add(NULL, grid_report, NULL, "all");
}

int main(void) { return grid_main("grid_ssd", add); }
