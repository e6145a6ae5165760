/* Steps of the selective scan, state in place. */
#include "update_problem.h"

TEST_OP(selective_state_update);

static void check(const update_case *c, const test_device *device) {
  const clm_selective_state_update_args args = update_args_of(c);
  const test_problem p = update_forward_of(c, &op_selective_state_update, &args);
  if (!(c->flags & SHARED)) {
    problem_check(&p, device);
    return;
  }
  test_run *want = run_create(&p, test_reference, true), *got = run_create(&p, device->context, false);
  update_share(c, want);
  update_share(c, got);
  run_call(want);
  run_call(got);
  run_compare(got, want);
  run_check_untouched(got);
  run_destroy(want);
  run_destroy(got);
}

static void test_update(const test_device *device, const void *data) { check(data, device); }

static void test_mix(const test_device *device, const void *data) {
  const update_case c = update_mix_case(data);
  const clm_selective_state_update_args args = update_args_of(&c);
  test_problem p = update_forward_of(&c, &op_selective_state_update, &args);
  update_mix_apply(data, &p, "state");
  problem_check(&p, device);
}

static void test_flags(const test_device *device, const void *data) {
  (void)data;
  for (unsigned flags = 0; flags <= MAMBA; flags += device->slow ? 11 : 1) {
    const update_case c = {2, 0, 11, 0, 16, 1, flags, TEST_CONTIGUOUS, "flags"};
    check(&c, device);
  }
}

/* Rows that name no state: out is 0, and every state but the one that is named is as it was. */
static void test_padding_rows(const test_device *device, const void *data) {
  static const int32_t outside[] = {7, INT32_MIN, 4};
  const update_case *c = data;
  const clm_selective_state_update_args args = update_args_of(c);
  test_problem p = update_forward_of(c, &op_selective_state_update, &args);
  problem_find(&p, "state_indices")->values = outside;
  test_run *run = run_create(&p, device->context, false);
  double *before = run_read(run, "state");
  run_call(run);
  double *out = run_read(run, "out"), *after = run_read(run, "state");
  for (size_t i = 0; i < run_values(run, "out") / 3 * 2; i++) assert_true(out[i] == 0);
  for (size_t i = 0; i < run_values(run, "state") / UPDATE_STATES * 4; i++) assert_true(before[i] == after[i]);
  run_check_untouched(run);
  free(before);
  free(out);
  free(after);
  run_destroy(run);
}

static void test_contained(const test_device *device, const void *data) {
  const update_case *c = data;
  const clm_selective_state_update_args args = update_args_of(c);
  const test_problem p = update_forward_of(c, &op_selective_state_update, &args);
  problem_check_contained(&p, device);
}

static void test_extremes(const test_device *device, const void *data) {
  const update_case *c = data;
  const clm_selective_state_update_args args = update_args_of(c);
  const test_problem p = update_forward_of(c, &op_selective_state_update, &args);
  problem_check_extremes(&p, device, args.delta_softplus, args.A_is_log);
}

static clm_tensor steps_of(clm_tensor t, int64_t first, int64_t count) {
  return clm_tensor_slice(t, 1, first, count);
}

/* Steps taken one at a time, then some together, give what the scan gives. */
static void test_against_scan(const test_device *device, const void *data) {
  enum { STEPS = 9, BATCH = 2, CHANNELS = 13, STATES = 16 };
  (void)data;
  static const update_case c = {BATCH, STEPS, CHANNELS, 0, STATES, 1, MAMBA, TEST_CONTIGUOUS, "scan"};
  const clm_selective_state_update_args args = update_args_of(&c);
  const test_problem p = update_forward_of(&c, &op_selective_state_update, &args);
  test_run *steps = run_create(&p, device->context, false), *scan = run_create(&p, device->context, false);
  const clm_selective_state_update_args *whole = steps->args, *s = scan->args;
  for (int64_t step = 0; step < STEPS;) {
    const int64_t count = step == 4 ? 3 : 1;
    clm_selective_state_update_args a = *whole;
    clm_tensor *sequences[] = {&a.u, &a.delta, &a.B, &a.C, &a.z, &a.out};
    for (size_t i = 0; i < TEST_COUNT(sequences); i++) *sequences[i] = steps_of(*sequences[i], step, count);
    assert_int_equal(clm_selective_state_update(device->context, &a), CLM_OK);
    step += count;
  }
  const clm_selective_scan_args scan_args = {
      .u = s->u,
      .delta = s->delta,
      .A = s->A,
      .B = s->B,
      .C = s->C,
      .D = s->D,
      .z = s->z,
      .delta_bias = s->delta_bias,
      .initial_state = s->state,
      .out = s->out,
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
    for (size_t i = 0; i < update_case_count; i++)
      if (!(device->slow && update_cases[i].flags & NOT_SLOW))
        test_add(device, test_update, &update_cases[i], "selective_state_update: %s", update_cases[i].why);
    for (size_t i = 0; i < update_mix_count; i++)
      test_add(device, test_mix, &update_mixes[i], "selective_state_update: %s", update_mixes[i].why);
    test_add(device, test_flags, NULL, "selective_state_update: every subset of options");
    test_add(device, test_padding_rows, update_case_named("states of a pool"),
             "selective_state_update: rows outside the pool");
    static const char *const rows[] = {"ragged", "three steps", "complex A"};
    for (size_t i = 0; i < TEST_COUNT(rows); i++)
      test_add(device, test_contained, update_case_named(rows[i]), "selective_state_update: NaN stays in its row: %s",
               rows[i]);
    for (size_t i = 0; i < TEST_COUNT(update_extremes); i++)
      test_add(device, test_extremes, &update_extremes[i], "selective_state_update: extreme numbers: %s",
               update_extremes[i].why);
    test_add(device, test_against_scan, NULL, "selective_state_update: steps against the scan");
  }
}

int main(void) { return test_main("selective_state_update", add); }
