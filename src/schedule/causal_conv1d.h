/* The tile of a causal convolution: a work-item owns one channel and `run` steps (in blocks of `steps` unrolled);
 * where neighbouring steps are neighbours in memory, a work-group owns one channel and walks `run` steps together. */
#ifndef CLM_SCHEDULE_CAUSAL_CONV1D_H
#define CLM_SCHEDULE_CAUSAL_CONV1D_H

#include "schedule/device.h"

typedef struct causal_conv1d_request {
  int64_t batch, length, channels, width;
  bool length_fast;
  bool backward; /* longer runs: each leaves one partial sum of the gradient of the weights */
  bool pairs;    /* two neighbouring channels can be read at once                           */
  bool is_16bit; /* x has 16 bits                                                           */
} causal_conv1d_request;

typedef struct causal_conv1d_plan {
  int32_t work_group;
  int32_t steps;
  int32_t vector;    /* neighbouring channels of a work-item: 1 or 2 */
  int64_t run, runs; /* runs * run >= length */
  char why[128];
} causal_conv1d_plan;

void schedule_causal_conv1d(const schedule_device *, const causal_conv1d_request *, causal_conv1d_plan *);

#endif
