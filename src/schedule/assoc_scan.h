/* The tile of an associative scan: channels x segments work-items, `steps` steps of a channel in each; the length is
 * cut into chunks where the channels alone leave the device idle. */
#ifndef CLM_SCHEDULE_ASSOC_SCAN_H
#define CLM_SCHEDULE_ASSOC_SCAN_H

#include "schedule/device.h"

typedef struct assoc_scan_request {
  int64_t batch, length, channels;
  bool complex;
  bool length_fast; /* neighbouring steps are neighbours in memory, not channels */
  struct {
    int32_t steps, work_group;
  } force; /* instead of the scheduler's own choice where not 0: for tuning */
} assoc_scan_request;

typedef struct assoc_scan_plan {
  int32_t channels, segments; /* powers of two; their product is the work-group */
  int32_t steps;
  int64_t chunk; /* a multiple of segments * steps */
  int32_t chunks;
  int64_t local_bytes;
  char why[128];
} assoc_scan_plan;

void schedule_assoc_scan(const schedule_device *, const assoc_scan_request *, assoc_scan_plan *);

#endif
