#include "scan_problem.h"
#include <string.h>

const scan_case scan_cases[] = {
    /* batch length d_inner d_state groups flags layout chunk why it is here */
    {1, 1, 1, 1, 1, 0, TEST_CONTIGUOUS, 0, "smallest"},
    {1, 2, 3, 3, 1, HAS_D, TEST_CONTIGUOUS, 0, "two steps, three states"},
    {2, 7, 5, 16, 1, SOFTPLUS, TEST_CONTIGUOUS, 0, "softplus without bias"},
    {2, 7, 5, 16, 1, BIAS, TEST_CONTIGUOUS, 0, "bias without softplus"},
    {1, 64, 32, 16, 1, MAMBA, TEST_CONTIGUOUS, 0, "whole tiles"},
    {2, 129, 35, 16, 1, MAMBA | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "one past a tile, ragged"},
    {2, 33, 17, 8, 1, HAS_Z | FINAL | NOT_SLOW, TEST_CONTIGUOUS, 0, "gate alone, 8 states"},
    {1, 65, 19, 17, 1, MAMBA | INITIAL, TEST_CONTIGUOUS, 0, "17 states"},
    {1, 65, 37, 64, 1, MAMBA | INITIAL | FINAL | NOT_SLOW, TEST_CONTIGUOUS, 0, "64 states"},
    {1, 20, 9, 128, 1, MAMBA | FINAL, TEST_CONTIGUOUS, 0, "128 states"},
    {2, 40, 1, 16, 1, MAMBA | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "one channel"},
    {2, 40, 12, 1, 1, MAMBA | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "one state"},
    {2, 70, 12, 16, 2, MAMBA | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "two groups"},
    {1, 35, 66, 4, 33, MAMBA, TEST_CONTIGUOUS, 0, "a group for every two channels"},
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
    {2, 9, 4, 3, 2, MAMBA | COMPLEX | INITIAL | FINAL, TEST_CONTIGUOUS, 0, "complex A"},
    {2, 9, 4, 3, 1, HAS_D | COMPLEX | STATIC_B | STATIC_C | FINAL | NOT_SLOW, TEST_CONTIGUOUS, 0,
     "complex A, B and C static"},
};
const size_t scan_case_count = sizeof scan_cases / sizeof scan_cases[0];

const scan_case *scan_case_named(const char *why) {
  for (size_t i = 0; i < scan_case_count; i++)
    if (strcmp(scan_cases[i].why, why) == 0) return &scan_cases[i];
  abort();
}

clm_selective_scan_args scan_args_of(const scan_case *c) {
  return (clm_selective_scan_args){
      .chunk = c->chunk,
      .delta_softplus = c->flags & SOFTPLUS,
      .A_is_log = c->flags & LOG_A && !(c->flags & COMPLEX),
  };
}

/* Real and imaginary part alike: stable, oscillating. */
static double draw_complex_decay(test_random *r) { return -0.5 * exp(0.5 * random_normal(r)); }

#define ROW(field, kind, draw, ...)                                                                                  \
  PROBLEM_ADD(&p, TEST_ROW(clm_selective_scan_args, field, TEST_IN, kind, draw, __VA_ARGS__))

test_problem scan_inputs_of(const scan_case *c, const test_op *op, const void *args) {
  const bool complex = c->flags & COMPLEX;
  const test_kind parameter = complex ? TEST_COMPLEX : TEST_PARAMETER,
                  varying = complex ? TEST_COMPLEX : TEST_STORAGE;
  test_problem p = {.op = op, .args = args, .seed = 51, .layout = c->layout, .tolerance = 1e-5};
  double (*draw_delta)(test_random *) = c->flags & SOFTPLUS ? draw_raw_step : draw_step;
  double (*draw_A)(test_random *) = complex ? draw_complex_decay : c->flags & LOG_A ? draw_log_decay : draw_decay;
  ROW(u, TEST_STORAGE, NULL, c->batch, c->length, c->d_inner);
  ROW(delta, TEST_STORAGE, draw_delta, c->batch, c->length, c->d_inner);
  ROW(A, parameter, draw_A, c->d_inner, c->d_state);
  if (c->flags & STATIC_B) ROW(B, parameter, NULL, c->d_inner, c->d_state);
  else ROW(B, varying, NULL, c->batch, c->length, c->n_groups, c->d_state);
  if (c->flags & STATIC_C) ROW(C, parameter, NULL, c->d_inner, c->d_state);
  else ROW(C, varying, NULL, c->batch, c->length, c->n_groups, c->d_state);
  if (c->flags & HAS_D) ROW(D, TEST_PARAMETER, NULL, c->d_inner);
  if (c->flags & HAS_Z) ROW(z, TEST_STORAGE, NULL, c->batch, c->length, c->d_inner);
  if (c->flags & BIAS) ROW(delta_bias, TEST_PARAMETER, draw_step, c->d_inner);
  if (c->flags & INITIAL) ROW(initial_state, parameter, NULL, c->batch, c->d_inner, c->d_state);
  return p;
}

test_problem scan_forward_of(const scan_case *c, const test_op *op, const clm_selective_scan_args *args) {
  const test_kind parameter = c->flags & COMPLEX ? TEST_COMPLEX : TEST_PARAMETER;
  test_problem p = scan_inputs_of(c, op, args);
  PROBLEM_ADD(&p,
              TEST_ROW(clm_selective_scan_args, out, TEST_OUT, TEST_STORAGE, NULL, c->batch, c->length, c->d_inner));
  if (c->flags & FINAL)
    PROBLEM_ADD(&p, TEST_ROW(clm_selective_scan_args, final_state, TEST_OUT, parameter, NULL, c->batch, c->d_inner,
                             c->d_state));
  return p;
}
