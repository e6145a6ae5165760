/* One step of the selective scan, state in place. */
#include "problem.h"

TEST_OP(selective_state_update);

enum { HAS_D = 1, HAS_Z = 2, BIAS = 4, SOFTPLUS = 8, LOG_A = 16, MAMBA = 31 };

typedef struct update_case {
  int64_t batch, d_inner, d_state, n_groups;
  unsigned flags;
  test_layout layout;
  const char *why;
} update_case;

static const update_case cases[] = {
    /* batch d_inner d_state groups flags layout why it is here */
    {1, 1, 1, 1, 0, TEST_CONTIGUOUS, "smallest"},
    {2, 5, 3, 1, HAS_D, TEST_CONTIGUOUS, "three states"},
    {1, 64, 16, 1, MAMBA, TEST_CONTIGUOUS, "Mamba's"},
    {3, 35, 16, 1, MAMBA, TEST_CONTIGUOUS, "ragged"},
    {2, 33, 17, 1, MAMBA, TEST_CONTIGUOUS, "17 states"},
    {2, 12, 64, 3, MAMBA, TEST_CONTIGUOUS, "64 states, three groups"},
    {1, 9, 128, 9, HAS_D | SOFTPLUS, TEST_CONTIGUOUS, "128 states, a group for each channel"},
    {2, 21, 16, 1, MAMBA, TEST_PADDED, "padded rows"},
    {2, 21, 16, 1, MAMBA, TEST_TRANSPOSED, "state before channel"},
    {2, 21, 8, 1, MAMBA, TEST_WIDE, "slices of wider tensors"},
    {2, 10, 16, 1, MAMBA, TEST_SPREAD, "every other element"},
    {1, 1536, 16, 1, MAMBA, TEST_CONTIGUOUS, "a model's width"},
};
#define CASES (sizeof cases / sizeof cases[0])

#define ROW(field, role, kind, draw, ...)                                                                            \
  PROBLEM_ADD(&p, TEST_ROW(clm_selective_state_update_args, field, role, kind, draw, __VA_ARGS__))

static test_problem problem_of(const update_case *c, const clm_selective_state_update_args *args) {
  test_problem p = {
      .op = &op_selective_state_update, .args = args, .seed = 61, .layout = c->layout, .tolerance = 3e-6};
  ROW(u, TEST_IN, TEST_STORAGE, NULL, c->batch, c->d_inner);
  ROW(delta, TEST_IN, TEST_STORAGE, c->flags & SOFTPLUS ? draw_raw_step : draw_step, c->batch, c->d_inner);
  ROW(A, TEST_IN, TEST_PARAMETER, c->flags & LOG_A ? draw_log_decay : draw_decay, c->d_inner, c->d_state);
  ROW(B, TEST_IN, TEST_STORAGE, NULL, c->batch, c->n_groups, c->d_state);
  ROW(C, TEST_IN, TEST_STORAGE, NULL, c->batch, c->n_groups, c->d_state);
  if (c->flags & HAS_D) ROW(D, TEST_IN, TEST_PARAMETER, NULL, c->d_inner);
  if (c->flags & HAS_Z) ROW(z, TEST_IN, TEST_STORAGE, NULL, c->batch, c->d_inner);
  if (c->flags & BIAS) ROW(delta_bias, TEST_IN, TEST_PARAMETER, draw_step, c->d_inner);
  ROW(state, TEST_INOUT, TEST_PARAMETER, NULL, c->batch, c->d_inner, c->d_state);
  ROW(out, TEST_OUT, TEST_STORAGE, NULL, c->batch, c->d_inner);
  return p;
}

static clm_selective_state_update_args args_of(const update_case *c) {
  return (clm_selective_state_update_args){.delta_softplus = c->flags & SOFTPLUS, .A_is_log = c->flags & LOG_A};
}

static void test_update(const test_device *device, const void *data) {
  const clm_selective_state_update_args args = args_of(data);
  const test_problem p = problem_of(data, &args);
  problem_check(&p, device);
}

static void test_flags(const test_device *device, const void *data) {
  (void)data;
  for (unsigned flags = 0; flags <= MAMBA; flags += device->slow ? 11 : 1) {
    const update_case c = {2, 11, 16, 1, flags, TEST_CONTIGUOUS, "flags"};
    test_update(device, &c);
  }
}

/* Steps taken one at a time give what the scan gives. */
static void test_against_scan(const test_device *device, const void *data) {
  enum { STEPS = 9, BATCH = 2, CHANNELS = 13, STATES = 16 };
  (void)data;
  static const update_case c = {BATCH, CHANNELS, STATES, 1, MAMBA, TEST_CONTIGUOUS, "scan"};
  const clm_selective_state_update_args args = args_of(&c);
  test_problem p = problem_of(&c, &args);
  for (size_t i = 0; i < p.count; i++) { /* the sequences of all steps, (length, batch, ...) in memory */
    test_tensor *t = &p.tensors[i];
    bool varies = t->kind == TEST_STORAGE;
    if (!varies) continue;
    for (int k = t->rank; k > 0; k--) t->shape[k] = t->shape[k - 1];
    t->shape[0] = STEPS;
    t->rank++;
  }
  test_run *steps = run_create(&p, device->context, false), *scan = run_create(&p, device->context, false);
  const clm_selective_state_update_args *whole = steps->args, *s = scan->args;
  for (int64_t step = 0; step < STEPS; step++) {
    clm_selective_state_update_args a = *whole;
    clm_tensor *sequences[] = {&a.u, &a.delta, &a.B, &a.C, &a.z, &a.out};
    for (size_t i = 0; i < sizeof sequences / sizeof sequences[0]; i++) {
      clm_tensor *t = sequences[i];
      *t = clm_tensor_slice(*t, 0, step, 1);
      t->rank--;
      for (int k = 0; k < t->rank; k++) {
        t->shape[k] = t->shape[k + 1];
        t->stride[k] = t->stride[k + 1];
      }
    }
    assert_int_equal(clm_selective_state_update(device->context, &a), CLM_OK);
  }
  const clm_selective_scan_args scan_args = {
      .u = clm_tensor_transpose(s->u, 0, 1),
      .delta = clm_tensor_transpose(s->delta, 0, 1),
      .A = s->A,
      .B = clm_tensor_transpose(s->B, 0, 1),
      .C = clm_tensor_transpose(s->C, 0, 1),
      .D = s->D,
      .z = clm_tensor_transpose(s->z, 0, 1),
      .delta_bias = s->delta_bias,
      .initial_state = s->state,
      .out = clm_tensor_transpose(s->out, 0, 1),
      .final_state = s->state,
      .delta_softplus = true,
      .A_is_log = true,
  };
  assert_int_equal(clm_selective_scan(device->context, &scan_args), CLM_OK);
  static const char *const outputs[] = {"out", "state"};
  for (int i = 0; i < 2; i++) {
    double *got = run_read(steps, outputs[i]), *want = run_read(scan, outputs[i]);
    for (size_t k = 0; k < run_values(steps, outputs[i]); k++)
      if (!(fabs(got[k] - want[k]) <= 1e-5 * (1 + fabs(want[k]))))
        fail_msg("%s[%zu] is %.9g, the scan gives %.9g", outputs[i], k, got[k], want[k]);
    free(got);
    free(want);
  }
  run_destroy(steps);
  run_destroy(scan);
}

static void add(void) {
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    for (size_t i = 0; i < CASES; i++)
      test_add(device, test_update, &cases[i], "selective_state_update: %s", cases[i].why);
    test_add(device, test_flags, NULL, "selective_state_update: every subset of options");
    test_add(device, test_against_scan, NULL, "selective_state_update: steps against the scan");
  }
}

int main(void) { return test_main("selective_state_update", add); }
