/* The selective scan and its gradients over a grid at least as wide as the reference package's own: every length,
 * number of states, groups, channels, dtype, real and complex; flags drawn for each cell. Inputs are distributed as
 * there, tolerances are those of there (rtol, atol), compared with the double-precision reference. */
#include "grid.h"
#include <stdio.h>
#include <string.h>

TEST_OP(selective_scan);
TEST_OP(selective_scan_backward);

static const int64_t lengths[] = {1, 2, 7, 8, 16, 32, 64, 128, 151, 256, 372, 512, 784, 1024, 1134, 2048, 4096};
static const int64_t states[] = {1, 8, 16, 64, 128, 256};
static const int64_t channels[] = {4, 35, 96};
static const clm_dtype dtypes[] = {CLM_F32, CLM_F16, CLM_BF16};

enum { /* of a cell */
       HAS_D = 1,
       HAS_Z = 2,
       BIAS = 4,
       SOFTPLUS = 8,
       LOG_A = 16,
       INITIAL = 32,
       FINAL = 64,
       REVERSE = 128,
       CHUNK = 256,
       HALF_SUMS = 512, /* gradients of B and C in their own dtype, else in that of A */
       STATIC_B = 1024, /* from here on: OpenCL compiles another program for it */
       STATIC_C = 2048,
       LENGTH_FAST = 4096,
       GATE = 8192,
       SEQ_IDX = 16384,
       PACKED = 32768,
       RUN_TIME = STATIC_B - 1,
       COMPILE_TIME = 65535 & ~RUN_TIME,
};

typedef struct cell {
  int64_t batch, length, d_inner, d_state, n_groups, sequences;
  clm_dtype dtype;
  bool complex;
  unsigned flags;
  int number;
} cell;

/* ---- Flags ---- */

static unsigned bits_of(uint64_t seed, const char *what) {
  test_random r = random_seeded(seed, what);
  return (unsigned)random_below(&r, 65536);
}

/* Two sets of the flags that make programs for each number of states, dtype and kind of number; the others are drawn
 * for each cell. */
static unsigned flags_of(const cell *c) {
  uint64_t program = (uint64_t)c->d_state * 16 + (uint64_t)c->dtype * 4 + (uint64_t)c->complex * 2 + (c->number & 1);
  unsigned flags = (bits_of((uint64_t)c->number, "cell") & RUN_TIME) | (bits_of(program, "program") & COMPILE_TIME);
  if (flags & SEQ_IDX && flags & PACKED) flags &= ~(unsigned)(c->number & 1 ? SEQ_IDX : PACKED);
  if (c->n_groups > 1) flags &= ~(unsigned)(c->number & 1 ? STATIC_B : STATIC_C);
  if (c->complex) flags &= ~(unsigned)LOG_A;
  return flags;
}

/* ---- Inputs ---- */

static double draw_half(test_random *r) { return 0.5 * random_uniform(r); }

/* -A. There they are 32, 4 channels of 8 states, and the nearest to 0 is about 0.5 / 32; among the 24,576 of the
 * largest cells some would remember every step, which takes more digits of a sum over them than f32 has. */
static double draw_rate(test_random *r) { return 0.5 * (1 + 31 * random_uniform(r)) / 32; }
static double draw_decay_rate(test_random *r) { return -draw_rate(r); }
static double draw_log_rate(test_random *r) { return log(draw_rate(r)); }

#define ROW(p, field, role, kind, draw, ...)                                                                         \
  PROBLEM_ADD(p, TEST_ROW(clm_selective_scan_args, field, role, kind, draw, __VA_ARGS__))
#define GRADIENT(p, field, role, kind, of, ...)                                                                      \
  PROBLEM_ADD(p, TEST_GRADIENT(clm_selective_scan_backward_args, field, role, kind, of, __VA_ARGS__))
#define STEPS(c) (c)->batch, (c)->length, (c)->d_inner
#define STATE(c) (c)->sequences, (c)->d_inner, (c)->d_state

static void add_matrix(test_problem *p, const cell *c, test_tensor t, bool fixed, test_kind kind) {
  t.kind = kind;
  t.rank = fixed ? 2 : 4;
  const int64_t shape[4] = {fixed ? c->d_inner : c->batch, fixed ? c->d_state : c->length, c->n_groups, c->d_state};
  memcpy(t.shape, shape, sizeof shape);
  problem_add(p, t);
}

#define MATRIX(p, c, args, field, role_, of_, fixed, kind)                                                           \
  add_matrix(p, c, (test_tensor){.name = #field, .member = offsetof(args, field), .role = role_, .of = of_}, fixed,  \
             kind)

static test_kind number_of(const cell *c) { return c->complex ? TEST_COMPLEX : TEST_PARAMETER; }
static test_kind input_of(const cell *c, bool fixed) {
  return fixed ? number_of(c) : c->complex ? TEST_COMPLEX : TEST_STORAGE;
}

static void add_inputs(test_problem *p, const cell *c) {
  const bool fixed_B = c->flags & STATIC_B, fixed_C = c->flags & STATIC_C;
  ROW(p, u, TEST_IN, TEST_STORAGE, NULL, STEPS(c));
  ROW(p, delta, TEST_IN, TEST_STORAGE, draw_half, STEPS(c));
  ROW(p, A, TEST_IN, number_of(c), c->flags & LOG_A ? draw_log_rate : draw_decay_rate, c->d_inner, c->d_state);
  MATRIX(p, c, clm_selective_scan_args, B, TEST_IN, NULL, fixed_B, input_of(c, fixed_B));
  MATRIX(p, c, clm_selective_scan_args, C, TEST_IN, NULL, fixed_C, input_of(c, fixed_C));
  if (c->flags & HAS_D) ROW(p, D, TEST_IN, TEST_PARAMETER, NULL, c->d_inner);
  if (c->flags & HAS_Z) ROW(p, z, TEST_IN, TEST_STORAGE, NULL, STEPS(c));
  if (c->flags & BIAS) ROW(p, delta_bias, TEST_IN, TEST_PARAMETER, draw_half, c->d_inner);
  if (c->flags & GATE) ROW(p, gate, TEST_IN, TEST_STORAGE, random_uniform, STEPS(c));
  if (c->flags & INITIAL) ROW(p, initial_state, TEST_IN, number_of(c), NULL, STATE(c));
  if (c->flags & SEQ_IDX)
    PROBLEM_ADD(p, {.name = "seq_idx",
                    .member = offsetof(clm_selective_scan_args, seq_idx),
                    .role = TEST_IN,
                    .kind = TEST_INDEX,
                    .rank = 2,
                    .shape = {c->batch, c->length},
                    .bound = 1});
  if (c->flags & PACKED)
    PROBLEM_ADD(p, {.name = "cu_seqlens",
                    .member = offsetof(clm_selective_scan_args, cu_seqlens),
                    .role = TEST_IN,
                    .kind = TEST_INDEX,
                    .rank = 1,
                    .shape = {c->sequences + 1},
                    .bound = 1});
}

static void add_outputs(test_problem *p, const cell *c) {
  ROW(p, out, TEST_OUT, TEST_STORAGE, NULL, STEPS(c));
  if (c->flags & FINAL) ROW(p, final_state, TEST_OUT, number_of(c), NULL, STATE(c));
}

static void add_gradients(test_problem *p, const cell *c) {
  const bool fixed_B = c->flags & STATIC_B, fixed_C = c->flags & STATIC_C, halves = c->flags & HALF_SUMS;
  GRADIENT(p, dout, TEST_IN, TEST_STORAGE, out, STEPS(c));
  if (c->flags & FINAL) GRADIENT(p, dfinal_state, TEST_IN, number_of(c), final_state, STATE(c));
  GRADIENT(p, du, TEST_OUT, TEST_STORAGE, u, STEPS(c));
  GRADIENT(p, ddelta, TEST_OUT, TEST_STORAGE, delta, STEPS(c));
  if (c->flags & HAS_Z) GRADIENT(p, dz, TEST_OUT, TEST_STORAGE, z, STEPS(c));
  GRADIENT(p, dA, TEST_OUT, number_of(c), A, c->d_inner, c->d_state);
  MATRIX(p, c, clm_selective_scan_backward_args, dB, TEST_OUT, "B", fixed_B,
         halves ? input_of(c, fixed_B) : number_of(c));
  MATRIX(p, c, clm_selective_scan_backward_args, dC, TEST_OUT, "C", fixed_C,
         halves ? input_of(c, fixed_C) : number_of(c));
  if (c->flags & HAS_D) GRADIENT(p, dD, TEST_OUT, TEST_PARAMETER, D, c->d_inner);
  if (c->flags & BIAS) GRADIENT(p, ddelta_bias, TEST_OUT, TEST_PARAMETER, delta_bias, c->d_inner);
  if (c->flags & INITIAL) GRADIENT(p, dinitial_state, TEST_OUT, number_of(c), initial_state, STATE(c));
  if (c->flags & GATE) GRADIENT(p, dgate, TEST_OUT, TEST_STORAGE, gate, STEPS(c));
  PROBLEM_ADD(p, TEST_ROW(clm_selective_scan_backward_args, out, TEST_OUT, TEST_STORAGE, NULL, STEPS(c)));
}

/* What goes with delta, its bias and the gate, has the tolerance of delta. */
static const grid_exception exceptions[] = {{"du", 2, 2},     {"ddelta", 5, 10}, {"ddelta_bias", 5, 10},
                                            {"dgate", 5, 10}, {"dA", 1, 5},      {NULL, 0, 0}};

static void describe(char *text, size_t size, const cell *c) {
  static const char *const names[] = {"D",     "z",       "bias",    "softplus", "log A",    "initial",
                                      "final", "reverse", "chunk",   "halves",   "static B", "static C",
                                      "bdl",   "gate",    "seq_idx", "packed"};
  int used = snprintf(text, size, "cell %d: %lld x %lld x %lld, %lld states, %lld groups, %s%s:", c->number,
                      (long long)c->batch, (long long)c->length, (long long)c->d_inner, (long long)c->d_state,
                      (long long)c->n_groups, clm_dtype_name(c->dtype), c->complex ? ", complex" : "");
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

static bool check_cell(const cell *c) {
  const int64_t chunk = c->flags & CHUNK ? 1 + (c->number * 7) % 100 : 0;
  const clm_selective_scan_args args = {.delta_softplus = c->flags & SOFTPLUS,
                                        .A_is_log = c->flags & LOG_A,
                                        .reverse = c->flags & REVERSE,
                                        .chunk = chunk};
  const clm_selective_scan_backward_args backward_args = {.forward = args};
  test_problem forward = problem_of(c, &op_selective_scan, &args),
               backward = problem_of(c, &op_selective_scan_backward, &backward_args);
  char text[300];
  describe(text, sizeof text, c);
  add_inputs(&forward, c);
  add_outputs(&forward, c);
  add_inputs(&backward, c);
  add_gradients(&backward, c);
  const bool right = grid_check(&forward, exceptions, text);
  return grid_check(&backward, exceptions, text) && right;
}

/* ---- The cells ---- */

typedef struct group { /* a test */
  int64_t d_state;
  clm_dtype dtype;
  bool complex;
  int number;
} group;

static void run_group(const test_device *device, const void *data) {
  (void)device;
  const group *g = data;
  int number = 0, failed = 0;
  for (size_t s = 0; s < TEST_COUNT(states); s++)
    for (size_t t = 0; t < TEST_COUNT(dtypes); t++)
      for (int complex = 0; complex < 2; complex++)
        for (size_t l = 0; l < TEST_COUNT(lengths); l++)
          for (size_t d = 0; d < TEST_COUNT(channels); d++)
            for (int64_t n_groups = 1; n_groups <= 2; n_groups++) {
              cell c = {.length = lengths[l],
                        .d_inner = channels[d],
                        .d_state = states[s],
                        .dtype = dtypes[t],
                        .complex = complex,
                        .number = number++};
              if (c.d_state != g->d_state || c.dtype != g->dtype || c.complex != g->complex) continue;
              if (!grid_takes(c.number, c.length * c.d_inner * c.d_state)) continue;
              c.n_groups = c.d_inner % n_groups == 0 ? n_groups : c.length > 256 ? 5 : c.d_inner;
              c.flags = flags_of(&c);
              c.batch = c.flags & PACKED || c.length > 512 ? 1 : 2;
              c.sequences = c.flags & PACKED ? 1 + c.number % 5 : c.batch;
              failed += !check_cell(&c);
            }
  if (failed) fail_msg("%d cells", failed);
}

static void add(void) {
  static group groups[TEST_COUNT(states) * TEST_COUNT(dtypes) * 2];
  group *g = groups;
  for (size_t s = 0; s < TEST_COUNT(states); s++)
    for (size_t t = 0; t < TEST_COUNT(dtypes); t++)
      for (int complex = 0; complex < 2; complex++, g++) {
        *g = (group){states[s], dtypes[t], complex, (int)(g - groups)};
        if (!grid_has_share(g->number)) continue;
        test_add(NULL, run_group, g, "%lld states, %s%s", (long long)g->d_state, clm_dtype_name(g->dtype),
                 complex ? ", complex" : "");
      }
  test_add(NULL, grid_report, NULL, "all");
}

int main(void) { return grid_main("grid", add); }
