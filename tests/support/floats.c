#include "floats.h"
#include "cmocka_all.h"
#include <clmamba/clmamba.h>
#include <math.h>
#include <stdlib.h>

void floats_check(clm_context *context, clm_status status, const char *what) {
  if (status) fail_msg("%s: %s: %s", what, clm_status_string(status), clm_context_error(context));
}

float *floats_read(clm_context *context, clm_tensor t) {
  size_t count = (size_t)clm_tensor_count(t);
  float *values = malloc(count * sizeof *values);
  floats_check(context, clm_tensor_read(t, values, count * sizeof *values), "read");
  return values;
}

void floats_poison(clm_context *context, clm_tensor t) {
  size_t count = (size_t)clm_tensor_count(t);
  float *values = malloc(count * sizeof *values);
  for (size_t i = 0; i < count; i++) values[i] = (float)NAN;
  floats_check(context, clm_tensor_write(t, values, count * sizeof *values), "poison");
  free(values);
}

void floats_compare(const char *what, const float *got, const float *want, size_t count, double tolerance,
                    double least) {
  double squares = 0;
  for (size_t i = 0; i < count; i++) squares += (double)want[i] * (double)want[i];
  double level = sqrt(squares / (double)count) + least;
  for (size_t i = 0; i < count; i++) {
    double error = fabs((double)got[i] - (double)want[i]);
    if (!(error <= tolerance * (fabs((double)want[i]) + level)))
      fail_msg("%s: element %zu is %.9g, expected %.9g", what, i, (double)got[i], (double)want[i]);
  }
}
