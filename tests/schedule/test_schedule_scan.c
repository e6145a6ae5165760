/* Plans of the selective scan, both directions. */
#include "schedule/selective_scan.h"
#include "test_schedule.h"
#include <stdlib.h>
#include <string.h>

static const struct {
  int64_t batch, length, d_inner, n_groups;
} shapes[] = {
    {1, 1, 1, 1},         {1, 2, 3, 1},        {2, 129, 35, 1},    {3, 63, 70, 2},     {1, 64, 96, 3},
    {1, 2048, 1536, 1},   {1, 2048, 5120, 1},  {8, 2048, 2048, 1}, {8, 2048, 2048, 8}, {64, 256, 384, 1},
    {1, 131072, 2048, 1}, {1, 1000003, 17, 1}, {1024, 1, 5120, 1}, {1, 65536, 64, 4},
};
static const int64_t states[] = {1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 24, 32, 35, 64, 96, 128, 200, 256};

typedef void (*visitor)(const named_device *, const selective_scan_request *);

static void visit_all(visitor visit) {
  for (size_t i = 0; i < schedule_device_count; i++)
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
      for (size_t n = 0; n < sizeof states / sizeof *states; n++)
        for (int form = 0; form < 8; form++) {
          selective_scan_request r;
          memset(&r, 0, sizeof r);
          r.batch = shapes[s].batch;
          r.length = shapes[s].length;
          r.d_inner = shapes[s].d_inner;
          r.n_groups = shapes[s].n_groups;
          r.d_state = states[n];
          r.backward = form & 1;
          r.length_fast = form & 2;
          r.B_varies = r.C_varies = !(form & 4);
          visit(&schedule_devices[i], &r);
        }
}

static void say(const named_device *d, const selective_scan_request *r, const selective_scan_plan *p) {
  print_error("%s, batch %d length %d d_inner %d d_state %d groups %d%s: %d channels, %d lanes x %d states, tile %d, "
              "work-group %d, %d chunks of %d; %s\n",
              d->name, (int)r->batch, (int)r->length, (int)r->d_inner, (int)r->d_state, (int)r->n_groups,
              r->backward ? " backward" : "", p->channels, p->lanes, p->states, p->tile, p->work_group, p->chunks,
              (int)p->chunk, p->why);
}

/* What the plan `p` of request `r` on device `d` must fulfil. */
#define CHECK(d, r, p, condition)                                                                                    \
  do {                                                                                                               \
    if (!(condition)) {                                                                                              \
      say(d, r, p);                                                                                                  \
      fail_msg("%s", #condition);                                                                                    \
    }                                                                                                                \
  } while (0)

static bool power_of_two(int64_t n) { return n > 0 && (n & (n - 1)) == 0; }

static void limits(const named_device *d, const selective_scan_request *r) {
  const schedule_device *v = &d->device;
  selective_scan_plan p;
  CHECK(d, r, &p, schedule_selective_scan(v, r, &p));
  CHECK(d, r, &p, power_of_two(p.work_group) && p.work_group <= v->max_work_group);
  CHECK(d, r, &p, p.local_bytes == selective_scan_local_bytes(r, &p));
  CHECK(d, r, &p, p.local_bytes > 0 && p.local_bytes <= v->local_memory_bytes);
  CHECK(d, r, &p, power_of_two(p.lanes) && power_of_two(p.tile) && power_of_two(p.per_lane));
  CHECK(d, r, &p, p.channels == p.work_group / p.lanes * p.per_lane && p.channels >= 1);
  CHECK(d, r, &p, p.work_group % p.channels == 0); /* a work-item stages one channel */
  CHECK(d, r, &p, p.lanes * p.states >= r->d_state);
  CHECK(d, r, &p, p.block >= 1 && p.tile % p.block == 0);
  CHECK(d, r, &p, !p.shuffle || (v->shuffle != SHUFFLE_NONE && p.lanes <= v->subgroup));
  CHECK(d, r, &p, power_of_two(p.block));
  CHECK(d, r, &p, p.chunks >= 1 && p.chunks <= 1024 * 16);
  CHECK(d, r, &p, !r->backward || p.chunk % p.tile == 0);
  CHECK(d, r, &p, p.why[0] != '\0');
}

void test_scan_limits(void **state) {
  (void)state;
  visit_all(limits);
}

/* Who owns what, by the formulas of the kernels: each (channel, state, step) exactly once. The three are independent:
 * work-groups and slots give channels, lanes and registers give states, chunks and tiles give steps. */
static void coverage(const named_device *d, const selective_scan_request *r) {
  selective_scan_plan p;
  CHECK(d, r, &p, schedule_selective_scan(&d->device, r, &p));
  int64_t group_channels = r->d_inner / r->n_groups, padded = (int64_t)p.lanes * p.states;
  unsigned char *seen = calloc((size_t)(r->d_inner + padded + 1), 1);
  assert_non_null(seen);
  for (int64_t group = 0; group < r->n_groups; group++)
    for (int64_t block = 0; block < p.group_blocks; block++) {
      int64_t first = group * group_channels + block * p.channels, left = (group + 1) * group_channels - first;
      CHECK(d, r, &p, left > 0); /* no work-group without a channel */
      int32_t slots = p.channels / p.per_lane;
      for (int32_t slot = 0; slot < slots; slot++)
        for (int32_t j = 0; j < p.per_lane; j++)
          if (slot + j * slots < left) seen[first + slot + j * slots]++;
    }
  for (int64_t c = 0; c < r->d_inner; c++) CHECK(d, r, &p, seen[c] == 1);
  memset(seen, 0, (size_t)(r->d_inner + padded));
  for (int32_t lane = 0; lane < p.lanes; lane++)
    for (int32_t s = 0; s < p.states; s++) {
      int32_t n = selective_scan_state(r, &p, lane, s);
      CHECK(d, r, &p, n >= 0 && n < padded);
      seen[n]++;
    }
  for (int64_t n = 0; n < padded; n++) CHECK(d, r, &p, seen[n] == 1);
  free(seen);
  int64_t next = 0; /* chunks follow each other, tiles within them */
  for (int64_t k = 0; k < p.chunks; k++) {
    int64_t begin = k * p.chunk, end = begin + p.chunk < r->length ? begin + p.chunk : r->length;
    CHECK(d, r, &p, begin == next && end > begin);
    next = end;
  }
  CHECK(d, r, &p, next == r->length);
  CHECK(d, r, &p, p.work_groups == p.group_blocks * r->n_groups * p.chunks * r->batch);
}

void test_scan_coverage(void **state) {
  (void)state;
  visit_all(coverage);
}

static void pure(const named_device *d, const selective_scan_request *r) {
  selective_scan_plan p, again;
  memset(&p, 0x55, sizeof p);
  memset(&again, 0xaa, sizeof again);
  CHECK(d, r, &p, schedule_selective_scan(&d->device, r, &p));
  CHECK(d, r, &p, schedule_selective_scan(&d->device, r, &again));
  CHECK(d, r, &p, memcmp(&p, &again, sizeof p) == 0);
}

void test_scan_pure(void **state) {
  (void)state;
  visit_all(pure);
}

/* With the caller's chunk, the arithmetic of a step must not depend on how long the sequence is. */
static void fixed_chunk(const named_device *d, const selective_scan_request *request) {
  if (request->backward) return;
  selective_scan_request whole = *request, part = *request, *r = &whole;
  selective_scan_plan p, q;
  whole.chunk = part.chunk = 48;
  part.length = 48;
  CHECK(d, r, &p, schedule_selective_scan(&d->device, &whole, &p));
  CHECK(d, r, &p, schedule_selective_scan(&d->device, &part, &q));
  CHECK(d, r, &p, p.chunk == 48 && q.chunk == 48 && !p.fold && !q.fold);
  CHECK(d, r, &p,
        p.lanes == q.lanes && p.states == q.states && p.per_lane == q.per_lane && p.work_group == q.work_group);
  CHECK(d, r, &p, p.tile == q.tile && p.block == q.block && p.buffers == q.buffers && p.shuffle == q.shuffle);
}

void test_scan_fixed_chunk(void **state) {
  (void)state;
  visit_all(fixed_chunk);
}

/* What was measured to be best on an H100 (docs/kernels/history.md). */
void test_scan_choice(void **state) {
  (void)state;
  const named_device *d = &schedule_devices[0];
  selective_scan_request request = {.batch = 8, .length = 2048, .d_inner = 2048, .d_state = 16, .n_groups = 1};
  selective_scan_request *r = &request;
  selective_scan_plan p;
  request.B_varies = request.C_varies = true;
  CHECK(d, r, &p, schedule_selective_scan(&d->device, r, &p));
  CHECK(d, r, &p, p.lanes == 2 && p.states == 8 && p.chunks == 1 && p.shuffle && p.buffers == 2);
  request.batch = 1;
  request.d_inner = 1536;
  CHECK(d, r, &p, schedule_selective_scan(&d->device, r, &p));
  CHECK(d, r, &p, p.lanes == 2 && p.chunks == 11 && p.fold);
  request.d_inner = 5120;
  CHECK(d, r, &p, schedule_selective_scan(&d->device, r, &p));
  CHECK(d, r, &p, p.lanes == 4 && p.states == 4 && p.chunks == 1 && p.work_group == 64);
  request.d_inner = 2048;
  request.length = 131072;
  CHECK(d, r, &p, schedule_selective_scan(&d->device, r, &p));
  CHECK(d, r, &p, p.lanes == 2 && p.chunks == 33 && p.fold);
  request.backward = true;
  CHECK(d, r, &p, schedule_selective_scan(&d->device, r, &p));
  CHECK(d, r, &p, p.lanes == 4 && p.per_lane == 2 && p.chunks == 33);
}
