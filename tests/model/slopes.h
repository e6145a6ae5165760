/* Gradients of a model against differences of its loss. */
#ifndef TEST_SLOPES_H
#define TEST_SLOPES_H

#include "model/model.h"

/* Moves each parameter along a random direction and along its gradient (of the flat layout) and back; `loss` gives
 * the loss with the parameters as they are. For a model of the reference, whose sums are in double. `noise`: what
 * rounding of the loss makes of a slope of 0. */
void slopes_check(clm_model *model, const float *gradient, double (*loss)(void *user), void *user, double noise);

/* The noise where a loss of this size is rounded to f32. */
double slopes_noise(double loss);

#endif
