#include "schedule/assoc_scan.h"
#include "schedule/arith.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Work-items per compute unit that hide the memory's latency, with `steps` pairs on the way in each. */
enum { BUSY_GPU = 512, BUSY_CPU = 32, MAX_CHUNKS = 256 };

static int32_t power_for(int64_t n, int32_t max) { /* the smallest power of two that holds n, up to `max` */
  int32_t p = 1;
  while (p < max && p < n) p *= 2;
  return p;
}

void schedule_assoc_scan(const schedule_device *d, const assoc_scan_request *r, assoc_scan_plan *p) {
  memset(p, 0, sizeof *p);
  int32_t max = d->is_cpu ? 32 : 256;
  if (r->force.work_group) max = r->force.work_group;
  int32_t size = power_of_two_at_most(max < d->max_work_group ? max : d->max_work_group);
  int64_t number = r->complex ? 8 : 4;
  while (size > 1 && 4 * number * size > d->local_memory_bytes) size /= 2;
  int32_t widest = d->is_cpu ? 16 : 32;
  p->steps = r->force.steps ? r->force.steps : r->complex ? 4 : d->is_cpu ? 8 : 16;
  p->channels = r->length_fast ? 1 : power_for(r->channels, widest < size ? widest : size);
  p->segments = power_for(div_up(r->length, p->steps), size / p->channels);
  int64_t tile = (int64_t)p->segments * p->steps;
  int64_t items = r->batch * div_up(r->channels, p->channels) * p->channels * p->segments, chunks = 1;
  int64_t busy = (int64_t)d->compute_units * (d->is_cpu ? BUSY_CPU : BUSY_GPU);
  while (chunks < MAX_CHUNKS && chunks * items * 2 <= busy) chunks *= 2;
  p->chunk = round_up(div_up(r->length, chunks), tile);
  if (p->chunk < 4 * tile) p->chunk = 4 * tile; /* steps that pay for reading a and b twice */
  p->chunks = (int32_t)div_up(r->length, p->chunk);
  p->local_bytes = 2 * number * p->channels * (p->segments + 1);
  snprintf(p->why, sizeof p->why, "%" PRId64 " work-items in one pass, %" PRId64 " keep the device busy: %s", items,
           busy, p->chunks > 1 ? "reduce, then scan" : "one pass");
}
