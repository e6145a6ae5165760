#include "schedule/causal_conv1d.h"
#include "schedule/arith.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Work-items per compute unit that hide the memory's latency. */
enum { BUSY_GPU = 512, BUSY_CPU = 32 };

void schedule_causal_conv1d(const schedule_device *d, const causal_conv1d_request *r, causal_conv1d_plan *p) {
  memset(p, 0, sizeof *p);
  p->vector = r->pairs && r->is_16bit && !r->length_fast && !d->is_cpu ? 2 : 1;
  int64_t wide = r->length_fast ? r->length : r->channels / p->vector; /* what neighbouring work-items share */
  int32_t most = d->max_work_group < 128 ? d->max_work_group : 128, size = power_of_two_at_most(most);
  while (size > 1 && size / 2 >= wide && (d->is_cpu || size > d->subgroup)) size /= 2;
  p->work_group = size;
  p->steps = (r->width > 8 || r->backward ? 8 : 16) / p->vector;
  if (r->length_fast) {
    p->steps = 4;
    while (p->steps > 1 && (int64_t)p->steps / 2 * size >= r->length) p->steps /= 2;
  } else {
    while (p->steps > 1 && p->steps / 2 >= r->length) p->steps /= 2;
  }
  int64_t block = r->length_fast ? (int64_t)p->steps * size : p->steps;
  int64_t rows = r->batch * (r->channels / p->vector) * (r->length_fast ? size : 1);
  p->run = block;
  if (r->backward) { /* as long as the device stays busy */
    int64_t busy = (int64_t)d->compute_units * (d->is_cpu ? BUSY_CPU : BUSY_GPU);
    while (p->run < 512 && p->run < r->length && rows * (r->length / (2 * p->run)) >= busy) p->run *= 2;
    while (p->run < 128 && p->run < r->length) p->run *= 2; /* partial sums smaller than the input */
  }
  p->runs = div_up(r->length, p->run);
  snprintf(p->why, sizeof p->why, "%s neighbours in memory, %" PRId64 " runs of %" PRId64 " steps",
           r->length_fast ? "steps are" : "channels are", p->runs, p->run);
}
