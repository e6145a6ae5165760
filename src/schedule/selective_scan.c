#include "schedule/selective_scan.h"
#include "schedule/arith.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Work-items per compute unit that keep it busy with this family's kernels (an H100's best plans have 250 to 370). */
enum { BUSY_GPU = 256, BUSY_CPU = 16 };
enum { ONE_PASS = 4 }; /* this times fewer work-items than keep it busy still run in one pass; backward half of it */
enum { MAX_CHUNKS = 1024, LONG_CHUNK = 3072 };
enum { FOLD_LIMIT = 36 }; /* chunks that a second pass folds itself: each work-group reads all that come before */

static int32_t vector_of(int32_t states) { return states % 4 == 0 ? 4 : states % 2 == 0 ? 2 : 1; }

/* Floats of a state: a complex one has two. */
static int32_t parts_of(const selective_scan_request *r) { return r->complex ? 2 : 1; }

int32_t selective_scan_state(const selective_scan_request *r, const selective_scan_plan *p, int32_t lane, int32_t s) {
  int32_t v = r->complex ? 1 : vector_of(p->states);
  return (s / v * p->lanes + lane) * v + s % v;
}

int64_t selective_scan_local_bytes(const selective_scan_request *r, const selective_scan_plan *p) {
  int64_t pitch = p->channels + (r->length_fast ? 1 : 0), element = p->tile * pitch;
  int64_t padded = (int64_t)p->lanes * p->states * parts_of(r), parts = p->shuffle ? 1 : p->lanes;
  int64_t marks = r->resets ? p->tile : 0;
  if (r->backward) {
    int64_t steps = p->tile % 8 == 0 ? p->tile + 4 : p->tile, slots = p->channels / p->per_lane;
    int64_t inputs = 3 * p->channels * steps + p->tile * padded * (r->B_varies + r->C_varies);
    int64_t sums = 3 * parts * p->channels * p->block;
    if (r->B_varies || r->C_varies) sums += p->block * slots * 2 * padded;
    return 4 * (inputs + sums + marks);
  }
  bool staged = r->length_fast || (p->lanes > 1 && !p->shuffle);
  int64_t floats = p->buffers * (element * 4 + p->tile * padded * (r->B_varies + r->C_varies) + marks);
  return 4 * (floats + (staged ? parts * element : 0));
}

/* States of a lane for `lanes` lanes: whole vectors where there is more than one. */
static int32_t states_for(int64_t d_state, int32_t lanes) {
  int64_t states = div_up(d_state, lanes);
  return (int32_t)(states > 4 ? round_up(states, 4) : states == 3 ? 4 : states);
}

/* Work-items that keep the device busy. */
static int64_t busy_items(const schedule_device *d) {
  return (int64_t)d->compute_units * (d->is_cpu ? BUSY_CPU : BUSY_GPU);
}

/* Without any part that a kernel may be without: what registers those take is there for more states. */
static bool is_lean(const schedule_device *d, const selective_scan_request *r) {
  return d->shuffle != SHUFFLE_NONE && !r->gate && !r->resets && !r->packed && !r->keep_every && !r->length_fast;
}

/* How many states a lane should have: few enough for registers, enough to pay for the sum over lanes. */
static int32_t lanes_for(const schedule_device *d, const selective_scan_request *r) {
  int32_t wanted;
  if (d->is_cpu) wanted = 32 / parts_of(r);
  else if (r->backward) wanted = (r->d_state <= 32 ? 4 : 8) / parts_of(r);
  else if (r->d_state > 32) wanted = 16 / parts_of(r);
  else wanted = r->complex && !is_lean(d, r) ? 4 : 8;
  const int64_t items = r->batch * r->d_inner * div_up(r->d_state, wanted);
  /* One pass, but half of the device would be idle. (With the caller's chunks lanes must not depend on the batch.) */
  if (!d->is_cpu && !r->backward && !r->chunk && r->d_state > 8 && wanted == 8 && items * 2 < busy_items(d) &&
      items * ONE_PASS >= busy_items(d))
    wanted = 4;
  int32_t limit = d->is_cpu ? 16 : 32, lanes = 1;
  while (lanes < limit && div_up(r->d_state, lanes) > wanted) lanes *= 2;
  return lanes;
}

static bool fits(const schedule_device *d, const selective_scan_request *r, selective_scan_plan *p) {
  p->local_bytes = selective_scan_local_bytes(r, p);
  return p->local_bytes <= d->local_memory_bytes;
}

/* Steps worked off together. Forward: those whose exponentials run ahead of the recurrence, which compilers take
 * registers for. Those of offline compilers decide (tests/portability), where exp2 and sincos are not single
 * instructions. Backward: those whose states and decays are in registers. */
static int32_t block_for(const schedule_device *d, const selective_scan_request *r, const selective_scan_plan *p) {
  const int32_t floats = p->states * p->per_lane * parts_of(r);
  if (d->is_cpu) return r->backward ? 8 : 4;
  if (r->backward) return floats <= 4 ? 8 : floats <= 8 ? 4 : floats <= 16 ? 2 : 1;
  if (p->shuffle) return floats > 8 ? 4 : r->complex || (r->length_fast && !r->is_16bit) ? 8 : 16;
  const int32_t room = r->complex ? 16 : r->gate || r->resets || r->length_fast || p->lanes > 1 ? 32 : 64;
  return floats * 4 <= room ? 4 : floats * 2 <= room ? 2 : 1;
}

/* B and C of the next tile wait in registers: fewer of them with many states. */
static bool prefetch_fits(const schedule_device *d, const selective_scan_request *r, const selective_scan_plan *p) {
  const int64_t padded = (int64_t)p->lanes * p->states * parts_of(r);
  const int64_t most =
      p->states * p->per_lane * parts_of(r) > 16 || p->lanes >= 16 ? 8 : 16; /* floats of B, and as many of C */
  return d->is_cpu || r->backward || p->tile == 1 || p->tile * padded <= most * p->work_group;
}

/* The largest tile that fits, two buffers before one. */
static bool choose_tile(const schedule_device *d, const selective_scan_request *r, selective_scan_plan *p) {
  /* Compilers for CPUs take twice as long over a tile of 16 steps. Others lack registers for one with many states,
   * and where elements of many channels are staged together with what few calls have. */
  const bool crowded = r->length_fast && (!p->shuffle || r->gate || r->resets || r->packed);
  const bool many = p->states * p->per_lane * parts_of(r) > 16;
  int32_t largest = r->force.tile ? r->force.tile : d->is_cpu || r->backward || crowded || many ? 8 : 16;
  for (int32_t buffers = r->force.buffers ? r->force.buffers : r->backward ? 1 : 2; buffers >= 1; buffers--)
    for (int32_t tile = largest; tile >= (r->force.tile ? largest : 1); tile /= 2) {
      p->tile = tile;
      p->buffers = buffers;
      if (buffers == 2 && tile < 8 && !r->force.tile) break; /* one barrier fewer does not pay for that */
      int32_t block = r->force.block ? r->force.block : block_for(d, r, p);
      if (r->keep_every && block > r->keep_every) block = r->keep_every;
      p->block = block < tile ? block : tile;
      if (fits(d, r, p) && (r->force.tile || prefetch_fits(d, r, p))) return true;
    }
  return false;
}

static void choose_work_group(const schedule_device *d, const selective_scan_request *r, selective_scan_plan *p) {
  /* Small work-groups where they have small tiles: more of them are resident, and none waits for many others. */
  const bool small = !d->is_cpu && !r->backward && p->states * p->per_lane <= 8 && p->lanes <= 4 &&
                     (!r->length_fast || !r->is_16bit || d->shuffle == SHUFFLE_NONE);
  int32_t wanted = r->force.work_group ? r->force.work_group : d->is_cpu ? 16 * p->lanes : small ? 64 : 128;
  int32_t size = power_of_two_at_most(wanted < d->max_work_group ? wanted : d->max_work_group);
  p->work_group = size;
  p->channels = size / p->lanes * p->per_lane;
}

static bool tile_of(const schedule_device *d, const selective_scan_request *r, selective_scan_plan *p) {
  memset(p, 0, sizeof *p);
  p->keep_every = r->keep_every;
  p->lanes = r->force.lanes ? r->force.lanes : lanes_for(d, r);
  while (p->lanes > d->max_work_group) p->lanes /= 2;
  p->states = states_for(r->d_state, p->lanes);
  p->per_lane = 1;
  if (r->force.per_lane) p->per_lane = r->force.per_lane;
  else if (p->lanes >= 4 && p->lanes <= 16 && d->shuffle != SHUFFLE_NONE && !r->complex &&
           p->states <= (r->backward ? 8 : 16) && (r->backward || r->d_state > 16))
    p->per_lane = 2;
  if (p->per_lane > p->lanes) p->per_lane = 1;
  choose_work_group(d, r, p);
  p->shuffle = d->shuffle != SHUFFLE_NONE && p->lanes > 1 && p->lanes <= d->subgroup;
  if (choose_tile(d, r, p)) return true;
  if (p->shuffle) { /* a sum by shuffles wants a tile of `lanes` steps at least */
    p->shuffle = false;
    if (choose_tile(d, r, p)) return true;
  }
  while (p->work_group / 2 >= p->lanes) { /* fewer channels */
    p->work_group /= 2;
    p->channels = p->work_group / p->lanes * p->per_lane;
    if (choose_tile(d, r, p)) return true;
  }
  return false;
}

/* Work-groups of the backward pass take what registers there are: they run in waves of as many as keep the device
 * busy. The chunks that make the longest way through all waves short, rather few of them. */
static int64_t chunks_in_waves(const schedule_device *d, const selective_scan_request *r,
                               const selective_scan_plan *p, int64_t items) {
  const int64_t groups = div_up(items, p->work_group), resident = div_up(busy_items(d), p->work_group);
  int64_t best = 1, shortest = INT64_MAX;
  for (int64_t chunks = 1; chunks <= MAX_CHUNKS && chunks * groups <= 4 * resident; chunks++) {
    const int64_t steps = div_up(chunks * groups, resident) * div_up(r->length, chunks);
    if (steps + steps / 64 >= shortest) continue;
    best = chunks;
    shortest = steps;
  }
  return best;
}

bool schedule_selective_scan(const schedule_device *d, const selective_scan_request *r, selective_scan_plan *p) {
  const int64_t busy = busy_items(d), channels = r->batch * r->d_inner;
  if (!tile_of(d, r, p)) {
    snprintf(p->why, sizeof p->why,
             "a step with d_state %" PRId64 " takes more than the %" PRId64 " bytes of local memory", r->d_state,
             d->local_memory_bytes);
    return false;
  }
  int64_t items = channels * p->lanes / p->per_lane, chunks = 1;
  if (r->force.chunks) chunks = r->force.chunks;
  else if (items * (r->backward ? ONE_PASS / 2 : ONE_PASS) < busy)
    chunks = r->backward && !d->is_cpu ? chunks_in_waves(d, r, p, items) : busy / items;
  /* Chunks of long sequences may be shorter: the last of them to end then leave the device idle for less. They fill
   * whole waves of what the device runs at once. */
  if (!r->force.chunks && !r->backward && !d->is_cpu && chunks > 1)
    for (int64_t waves = 2, more; (more = waves * busy / items) <= FOLD_LIMIT && r->length / more >= LONG_CHUNK;
         waves *= 2)
      chunks = more;
  if (chunks > MAX_CHUNKS) chunks = MAX_CHUNKS;
  int64_t least = 4 * (int64_t)p->tile > 64 ? 4 * (int64_t)p->tile : 64; /* steps that pay for a chunk's own cost */
  /* Packed sequences are taken to be equally long; where one chunk each is enough, it takes the longest there may be.
   */
  int64_t row = r->packed && chunks > 1 ? div_up(r->length, r->batch) : r->length;
  int64_t chunk = round_up(div_up(row, chunks), p->tile);
  if (chunk < least && !r->force.chunks) chunk = least;
  if (r->chunk && !r->backward) chunk = r->chunk;
  if (chunk > r->length && !(r->chunk && !r->backward)) chunk = round_up(r->length, p->tile);
  p->chunk = chunk;
  p->chunks = (int32_t)div_up(r->length, chunk);
  p->slots = r->packed ? r->length / chunk + r->batch : r->batch * p->chunks;
  p->fold = !r->chunk && !r->backward && p->chunks > 1 && p->chunks <= FOLD_LIMIT;
  p->group_blocks = (int32_t)div_up(r->d_inner / r->n_groups, p->channels);
  p->work_groups = p->group_blocks * r->n_groups * p->slots;
  snprintf(p->why, sizeof p->why,
           "%" PRId64 " work-items in one pass, %" PRId64 " keep %d compute units busy: %s%s%s", items, busy,
           d->compute_units,
           r->chunk && !r->backward ? "chunks as the caller asks"
           : p->chunks > 1          ? "the length is split"
                                    : "one pass",
           p->lanes == 1 ? ""
           : p->shuffle  ? ", lanes sum by shuffles"
                         : ", lanes sum through local memory",
           p->buffers == 1 && !r->backward ? ", one buffer fits local memory" : "");
  return true;
}
