#include "scan_problem.h"
#include <string.h>

const scan_case scan_cases[] = {
    /* batch length d_inner d_state groups flags layout chunk why it is here */
    {1, 1, 1, 1, 1, 0, TEST_CONTIGUOUS, 0, "smallest"},
    {1, 2, 3, 3, 1, HAS_D | NOT_SLOW, TEST_CONTIGUOUS, 0, "two steps, three states"},
    {2, 7, 5, 16, 1, SOFTPLUS, TEST_CONTIGUOUS, 0, "softplus without bias"},
    {2, 7, 5, 16, 1, BIAS, TEST_CONTIGUOUS, 0, "bias without softplus"},
    {1, 64, 32, 16, 1, MAMBA, TEST_CONTIGUOUS, 0, "whole tiles"},
    {2, 129, 35, 16, 1, MAMBA | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "one past a tile, ragged"},
    {2, 33, 17, 8, 1, HAS_Z | FINAL | NOT_SLOW, TEST_CONTIGUOUS, 0, "gate alone, 8 states"},
    {1, 65, 19, 17, 1, MAMBA | INITIAL | NOT_SLOW, TEST_CONTIGUOUS, 0, "17 states"},
    {1, 65, 37, 64, 1, MAMBA | INITIAL | FINAL | NOT_SLOW, TEST_CONTIGUOUS, 0, "64 states"},
    {1, 20, 9, 128, 1, MAMBA | FINAL | NOT_SLOW, TEST_CONTIGUOUS, 0, "128 states"},
    {1, 20, 9, 256, 3, MAMBA | INITIAL | FINAL | NOT_SLOW, TEST_CONTIGUOUS, 0, "256 states"},
    {1, 12, 9, 512, 1, MAMBA | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "512 states"},
    {2, 20, 7, 512, 1, MAMBA | INITIAL | FINAL | F16 | NOT_SLOW, TEST_TRANSPOSED, 8, "512 states, f16"},
    {2, 40, 1, 16, 1, MAMBA | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "one channel"},
    {2, 40, 12, 1, 1, MAMBA | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "one state"},
    {2, 70, 12, 16, 2, MAMBA | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "two groups"},
    {1, 35, 66, 16, 33, MAMBA, TEST_CONTIGUOUS, 0, "a group for every two channels"},
    {2, 19, 6, 5, 6, HAS_D | NOT_SLOW, TEST_CONTIGUOUS, 0, "a group for each channel"},
    {2, 50, 10, 16, 1, MAMBA | STATIC_B, TEST_CONTIGUOUS, 0, "static B"},
    {2, 50, 10, 16, 2, MAMBA | STATIC_C | FINAL | NOT_SLOW, TEST_CONTIGUOUS, 0, "static C, two groups"},
    {2, 50, 10, 16, 1, HAS_D | STATIC_B | STATIC_C | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "B and C static: S4D"},
    {2, 66, 21, 16, 1, MAMBA | INITIAL | FINAL, TEST_PADDED, 0, "padded rows"},
    {2, 66, 21, 16, 1, MAMBA | INITIAL | FINAL, TEST_TRANSPOSED, 0, "channel before length"},
    {2, 66, 22, 16, 2, MAMBA | INITIAL | FINAL, TEST_WIDE, 0, "slices of wider tensors"},
    {1, 34, 10, 16, 1, MAMBA | INITIAL | FINAL, TEST_SPREAD, 0, "every other element"},
    {3, 34, 10, 16, 1, MAMBA | INITIAL | FINAL, TEST_REPEATED, 0, "one batch row read for all"},
    {1, 372, 48, 16, 1, MAMBA | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "several chunks"},
    {2, 200, 24, 16, 1, MAMBA | INITIAL | FINAL, TEST_CONTIGUOUS, 64, "chunks of 64"},
    {1, 100, 24, 16, 1, MAMBA | FINAL, TEST_CONTIGUOUS, 7, "chunks of 7, not of a tile"},
    {1, 30, 24, 16, 1, MAMBA | FINAL, TEST_CONTIGUOUS, 1000, "a chunk longer than the sequence"},
    {1, 1024, 64, 16, 1, MAMBA | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "long"},
    {3, 1024, 200, 16, 1, MAMBA | INITIAL | FINAL | NOT_SLOW, TEST_CONTIGUOUS, 0, "long, many channels"},
    {1, 4099, 33, 16, 1, MAMBA | FINAL | NOT_SLOW, TEST_TRANSPOSED, 0, "longer, channel before length"},
    /* With so few channels the scheduler cuts the length of the backward on a device of any size. */
    {2, 9, 4, 3, 2, MAMBA | COMPLEX | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "complex A"},
    {2, 150, 4, 3, 2, MAMBA | COMPLEX | INITIAL | FINAL, TEST_CONTIGUOUS, 40, "complex A, chunks of 40"},
    {2, 150, 4, 3, 2, MAMBA | COMPLEX | INITIAL | FINAL | REVERSE, TEST_CONTIGUOUS, 0, "complex A, reversed"},
    {2, 9, 4, 3, 1, HAS_D | COMPLEX | STATIC_B | STATIC_C | FINAL | NOT_SLOW, TEST_CONTIGUOUS, 0,
     "complex A, B and C static"},
    {2, 150, 4, 16, 1, MAMBA | COMPLEX | STATIC_B | INITIAL | FINAL | NOT_SLOW, TEST_TRANSPOSED, 33,
     "complex A, static B, channel before length"},
    {2, 150, 4, 16, 1, MAMBA | COMPLEX | STATIC_C | SEQ | GATE | F16 | INITIAL | FINAL | NOT_SLOW, TEST_PADDED, 33,
     "complex A, static C, sequences and the gate, f16"},
    {1, 400, 3, 5, 1, MAMBA | COMPLEX | PACKED | BF16 | INITIAL | FINAL | REVERSE | NOT_SLOW, TEST_CONTIGUOUS, 0,
     "complex A, packed, reversed, bf16"},
    {1, 20, 5, 256, 1, MAMBA | COMPLEX | INITIAL | FINAL | NOT_SLOW, TEST_CONTIGUOUS, 0, "complex A, 256 states"},

    {2, 150, 5, 16, 1, MAMBA | GATE | SEQ | F16 | INITIAL | FINAL, TEST_CONTIGUOUS, 40,
     "sequences, padding, the gate, f16, chunks of 40"},
    {2, 150, 5, 16, 1, GATE | HAS_D | SOFTPLUS | SEQ | F16 | INITIAL | FINAL | REVERSE, TEST_CONTIGUOUS, 0,
     "sequences, padding, the gate, f16, reversed"},
    {3, 75, 5, 16, 1, MAMBA | GATE | LEFT | F16 | INITIAL | FINAL, TEST_PADDED, 0, "padding on the left"},
    {1, 400, 3, 16, 1, MAMBA | PACKED | BF16 | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "packed, bf16"},
    {1, 400, 3, 16, 1, MAMBA | PACKED | BF16 | INITIAL | FINAL | REVERSE, TEST_CONTIGUOUS, 40,
     "packed, bf16, reversed, chunks of 40"},
    {2, 66, 21, 16, 1, MAMBA | INITIAL | FINAL | REVERSE, TEST_TRANSPOSED, 16, "channel before length, reversed"},
    {2, 66, 21, 16, 1, MAMBA | INITIAL | FINAL | REVERSE, TEST_CONTIGUOUS, 0, "reversed"},
    {2, 90, 21, 16, 1, MAMBA | GATE | INITIAL | FINAL | NOT_SLOW, TEST_CONTIGUOUS, 32, "the gate"},
    {2, 90, 21, 16, 1, HAS_Z | GATE | BF16 | NOT_SLOW, TEST_TRANSPOSED, 0, "the gate, bf16, channel before length"},
    {3, 200, 5, 8, 1, MAMBA | SEQ | FINAL | NOT_SLOW, TEST_TRANSPOSED, 0, "sequences, channel before length"},
    {2, 200, 22, 16, 2, MAMBA | SEQ | STATIC_C | BF16 | INITIAL | NOT_SLOW, TEST_WIDE, 50, "sequences, two groups"},
    {1, 400, 3, 16, 1, MAMBA | PACKED | GATE | F16 | INITIAL | FINAL | NOT_SLOW, TEST_TRANSPOSED, 0,
     "packed, the gate, f16, channel before length"},
    {1, 90, 20, 24, 2, HAS_D | PACKED | STATIC_B | FINAL | NOT_SLOW, TEST_SPREAD, 7, "packed, chunks of 7"},
    {1, 6, 20, 16, 1, MAMBA | PACKED | BF16 | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "packed, almost nothing"},
    {2, 41, 12, 16, 1, MAMBA | INITIAL | FINAL | F16 | NOT_SLOW, TEST_PADDED, 0, "f16"},
    {2, 41, 12, 16, 1, MAMBA | INITIAL | FINAL | BF16 | NOT_SLOW, TEST_TRANSPOSED, 0, "bf16, channel before length"},
    {2, 70, 300, 16, 1, MAMBA | INITIAL | FINAL | NOT_SLOW, TEST_CONTIGUOUS, 0, "wide: steps compiled in"},
    {1, 300, 256, 16, 2, MAMBA | BF16 | NOT_SLOW, TEST_PADDED, 0, "wide, whole work-groups, padded rows"},
    {1, 40, 264, 8, 1, MAMBA | REVERSE | FINAL | NOT_SLOW, TEST_CONTIGUOUS, 0, "wide, reversed"},
    {1, 40, 260, 16, 1, MAMBA | SEQ | GATE | NOT_SLOW, TEST_CONTIGUOUS, 0, "wide, with sequences and the gate"},
};
const size_t scan_case_count = sizeof scan_cases / sizeof scan_cases[0];

const scan_case *scan_case_named(const char *why) {
  for (size_t i = 0; i < scan_case_count; i++)
    if (strcmp(scan_cases[i].why, why) == 0) return &scan_cases[i];
  abort();
}

static const char *const contained[] = {
    "one past a tile, ragged",
    "complex A, chunks of 40",
    "sequences, padding, the gate, f16, chunks of 40",
    "sequences, padding, the gate, f16, reversed",
    "packed, bf16",
    "packed, bf16, reversed, chunks of 40",
};
const size_t scan_contained_count = TEST_COUNT(contained);
const scan_case *scan_contained(size_t i) { return scan_case_named(contained[i]); }

clm_selective_scan_args scan_args_of(const scan_case *c) {
  return (clm_selective_scan_args){
      .chunk = c->chunk,
      .delta_softplus = c->flags & SOFTPLUS,
      .A_is_log = c->flags & LOG_A && !(c->flags & COMPLEX),
      .reverse = c->flags & REVERSE,
  };
}

test_kind scan_weight(const scan_case *c) { return c->flags & BF16 ? TEST_STORAGE : TEST_PARAMETER; }

int64_t scan_rows_of(const scan_case *c) { return c->flags & PACKED ? TEST_SEQUENCES : c->batch; }

/* Row b: 7 b + 3 steps of padding, then one sequence. */
static const int32_t *left_padded(const scan_case *c) {
  static int32_t numbers[300];
  if (c->batch * c->length > (int64_t)TEST_COUNT(numbers)) abort();
  for (int64_t i = 0; i < c->batch * c->length; i++) numbers[i] = i % c->length < i / c->length * 7 + 3 ? -1 : 0;
  return numbers;
}

#define ROW(field, kind, draw, ...)                                                                                  \
  PROBLEM_ADD(&p, TEST_ROW(clm_selective_scan_args, field, TEST_IN, kind, draw, __VA_ARGS__))

test_problem scan_inputs_of(const scan_case *c, const test_op *op, const void *args) {
  const bool complex = c->flags & COMPLEX;
  const test_kind parameter = complex ? TEST_COMPLEX : TEST_PARAMETER,
                  varying = complex ? TEST_COMPLEX : TEST_STORAGE;
  test_problem p = {.op = op, .args = args, .seed = 51, .layout = c->layout, .tolerance = 1e-5};
  p.storage = c->flags & F16 ? CLM_F16 : c->flags & BF16 ? CLM_BF16 : CLM_F32;
  double (*draw_delta)(test_random *) = c->flags & SOFTPLUS ? draw_raw_step : draw_step;
  double (*draw_A)(test_random *) = complex ? draw_complex_decay : c->flags & LOG_A ? draw_log_decay : draw_decay;
  ROW(u, TEST_STORAGE, NULL, c->batch, c->length, c->d_inner);
  ROW(delta, TEST_STORAGE, draw_delta, c->batch, c->length, c->d_inner);
  const test_kind weight = complex ? TEST_COMPLEX : scan_weight(c);
  ROW(A, weight, draw_A, c->d_inner, c->d_state);
  if (c->flags & STATIC_B) ROW(B, weight, NULL, c->d_inner, c->d_state);
  else ROW(B, varying, NULL, c->batch, c->length, c->n_groups, c->d_state);
  if (c->flags & STATIC_C) ROW(C, weight, NULL, c->d_inner, c->d_state);
  else ROW(C, varying, NULL, c->batch, c->length, c->n_groups, c->d_state);
  if (c->flags & HAS_D) ROW(D, scan_weight(c), NULL, c->d_inner);
  if (c->flags & HAS_Z) ROW(z, TEST_STORAGE, NULL, c->batch, c->length, c->d_inner);
  if (c->flags & BIAS) ROW(delta_bias, scan_weight(c), draw_step, c->d_inner);
  if (c->flags & GATE) ROW(gate, TEST_STORAGE, random_uniform, c->batch, c->length, c->d_inner);
  if (c->flags & (SEQ | LEFT)) {
    ROW(seq_idx, TEST_INDEX, NULL, c->batch, c->length);
    problem_find(&p, "seq_idx")->values = c->flags & LEFT ? left_padded(c) : test_sequences(c->batch, c->length, 90);
  }
  if (c->flags & PACKED) {
    ROW(cu_seqlens, TEST_INDEX, NULL, TEST_SEQUENCES + 1);
    problem_find(&p, "cu_seqlens")->values = test_ends(c->length);
  }
  if (c->flags & INITIAL) ROW(initial_state, parameter, NULL, scan_rows_of(c), c->d_inner, c->d_state);
  return p;
}

test_problem scan_forward_of(const scan_case *c, const test_op *op, const clm_selective_scan_args *args) {
  const test_kind parameter = c->flags & COMPLEX ? TEST_COMPLEX : TEST_PARAMETER;
  test_problem p = scan_inputs_of(c, op, args);
  PROBLEM_ADD(&p,
              TEST_ROW(clm_selective_scan_args, out, TEST_OUT, TEST_STORAGE, NULL, c->batch, c->length, c->d_inner));
  if (c->flags & FINAL)
    PROBLEM_ADD(&p, TEST_ROW(clm_selective_scan_args, final_state, TEST_OUT, parameter, NULL, scan_rows_of(c),
                             c->d_inner, c->d_state));
  return p;
}

/* ---- Extreme numbers ---- */

const scan_case scan_extremes[] = {
    {2, 150, TEST_EXTREMES, 16, 1, HAS_D | HAS_Z | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "f32"},
    {2, 70, TEST_EXTREMES, 16, 1, HAS_D | SOFTPLUS | LOG_A | FINAL, TEST_CONTIGUOUS, 16,
     "f32, through softplus, chunks"},
    {2, 70, TEST_EXTREMES, 16, 1, HAS_D | HAS_Z | GATE | SEQ | F16 | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "f16"},
    {2, 70, TEST_EXTREMES, 16, 1, SOFTPLUS | LOG_A | GATE | SEQ | F16, TEST_CONTIGUOUS, 0, "f16, through softplus"},
    {1, 70, TEST_EXTREMES, 16, 1, HAS_D | HAS_Z | PACKED | BF16 | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "bf16"},
    {1, 70, TEST_EXTREMES, 16, 1, SOFTPLUS | LOG_A | PACKED | BF16 | FINAL, TEST_CONTIGUOUS, 0,
     "bf16, through softplus"},
    {2, 70, TEST_EXTREMES, 3, 1, HAS_D | COMPLEX | INITIAL | FINAL, TEST_CONTIGUOUS, 16, "complex A"},
};
const size_t scan_extreme_count = TEST_COUNT(scan_extremes);

void scan_check_extremes(const scan_case *c, const test_problem *p, const test_device *device) {
  problem_check_extremes(p, device, c->flags & SOFTPLUS, c->flags & LOG_A);
}
