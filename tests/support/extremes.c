/* Extreme numbers in the inputs of a scan. */
#include "problem.h"
#include <string.h>

static const struct {
  const char *name;
  double sizes[3];
} extremes[] = {{"delta", {1e-8, 0.1, 20}}, {"A", {-1e-4, -1, -1e4}}, {"u", {1e-4, 1, 1e4}}};

/* The number that stands for `value` in the call. */
static double written_as(const char *name, double value, bool softplus, bool log_A) {
  if (strcmp(name, "delta") == 0 && softplus) return value < 20 ? log(expm1(value)) : value;
  if (strcmp(name, "A") == 0 && log_A) return log(-value);
  return value;
}

/* The same in both runs, as the device's dtype holds them. */
static void write_extremes(test_run *device, test_run *reference, bool softplus, bool log_A) {
  for (size_t i = 0, combination = 1; i < TEST_COUNT(extremes); i++, combination *= 3) {
    const char *name = extremes[i].name;
    const bool is_A = strcmp(name, "A") == 0, is_u = strcmp(name, "u") == 0;
    const size_t count = run_values(device, name), per_channel = is_A ? count / TEST_EXTREMES : 1;
    double *values = run_read(device, name);
    test_random r = random_seeded(52, name);
    for (size_t k = 0; k < count; k++) {
      const size_t channel = k / per_channel % TEST_EXTREMES;
      const double size = extremes[i].sizes[channel / combination % 3] * (1 - 0.5 * random_uniform(&r));
      values[k] = written_as(name, is_u && random_below(&r, 2) ? -size : size, softplus, log_A);
    }
    run_write(device, name, values);
    free(values);
    values = run_read(device, name);
    run_write(reference, name, values);
    free(values);
  }
}

void problem_check_extremes(const test_problem *p, const test_device *device, bool softplus, bool log_A) {
  if (device->simulated) return;
  test_run *want = run_create(p, test_reference, true), *got = run_create(p, device->context, false);
  write_extremes(got, want, softplus, log_A);
  run_call(want);
  run_call(got);
  run_compare_slices(got, want, TEST_EXTREMES);
  run_check_untouched(got);
  run_destroy(want);
  run_destroy(got);
}
