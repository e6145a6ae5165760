#include "slopes.h"
#include "cmocka_all.h"
#include "floats.h"
#include "random.h"
#include <math.h>
#include <stdlib.h>

typedef struct slope_of {
  clm_model *model;
  double (*loss)(void *user);
  void *user;
  double noise;
} slope_of;

#define STEP 4e-3

double slopes_noise(double loss) { return 3e-5 + 0x1p-23 * loss / STEP; }

static double loss_with(const slope_of *s, clm_tensor parameter, const float *values) {
  floats_check(s->model->context, clm_tensor_write(parameter, values, (size_t)clm_tensor_count(parameter) * 4),
               "write");
  return s->loss(s->user);
}

/* The loss's slope along a direction of unit length, from differences and from the gradient. */
static void compare_slope(const slope_of *s, const weight *w, const float *gradient, const float *direction) {
  char name[WEIGHT_NAME_MAX];
  weights_name(w, name);
  clm_tensor parameter =
      clm_tensor_of(s->model->parameters, w->offset * 4, CLM_F32, 1, (int64_t[]){(int64_t)w->count});
  float *values = floats_read(s->model->context, parameter), *moved = malloc(w->count * sizeof *moved);
  double loss[2], norm = 0, want = 0;
  for (size_t i = 0; i < w->count; i++) norm += (double)direction[i] * (double)direction[i];
  norm = sqrt(norm);
  for (size_t i = 0; i < w->count; i++) want += (double)gradient[i] * (double)direction[i] / norm;
  for (int side = 0; side < 2; side++) {
    for (size_t i = 0; i < w->count; i++)
      moved[i] = (float)((double)values[i] + (side ? STEP : -STEP) * (double)direction[i] / norm);
    loss[side] = loss_with(s, parameter, moved);
  }
  loss_with(s, parameter, values);
  double got = (loss[1] - loss[0]) / (2 * STEP);
  if (!(fabs(got - want) <= 1e-2 * fabs(want) + s->noise))
    fail_msg("%s: the gradient gives a slope of %.6g, differences %.6g", name, want, got);
  free(values);
  free(moved);
}

void slopes_check(clm_model *model, const float *gradient, double (*loss)(void *user), void *user, double noise) {
  const weights_layout *l = &model->layout;
  const slope_of s = {model, loss, user, noise};
  test_random r = random_seeded(9, "slopes");
  for (size_t i = 0; i < l->item_count; i++) {
    const weight *w = &l->items[i];
    float *direction = malloc(w->count * sizeof *direction);
    for (size_t k = 0; k < w->count; k++) direction[k] = (float)random_normal(&r);
    compare_slope(&s, w, gradient + w->offset, direction);
    bool flat = true; /* a parameter without influence has no direction of its own */
    for (size_t k = 0; k < w->count; k++) flat = flat && gradient[w->offset + k] == 0;
    if (!flat) compare_slope(&s, w, gradient + w->offset, gradient + w->offset);
    free(direction);
  }
}
