/* The tile of a selective scan: d_inner x d_state x length cut into work-groups, lanes, states and steps.
 *
 * Pure: the same question gives the same plan. States are split first (lanes share a channel without repeating an
 * exponential), then the length (chunks repeat them), by d_inner x batch against the work-items that fill the device.
 */
#ifndef CLM_SCHEDULE_SELECTIVE_SCAN_H
#define CLM_SCHEDULE_SELECTIVE_SCAN_H

#include "schedule/device.h"
#include <stddef.h>

/* Instead of the scheduler's own choice where not 0: for tuning. */
typedef struct selective_scan_force {
  int32_t lanes, per_lane, work_group, tile, block, buffers, chunks;
} selective_scan_force;

typedef struct selective_scan_request {
  int64_t batch, length, d_inner, d_state, n_groups; /* packed: batch sequences of `length` steps in all */
  int64_t chunk;                                     /* steps, the caller's; 0: the scheduler chooses */
  int32_t keep_every; /* steps between the states that a forward pass keeps for the backward one; 0: none */
  bool B_varies, C_varies;
  bool length_fast; /* neighbouring steps are neighbours in memory, not channels       */
  bool is_16bit;    /* u and what is stored like it has 16 bits                        */
  bool backward;
  bool gate, resets, packed, complex; /* what few calls have: kernels of their own             */
  selective_scan_force force;
} selective_scan_request;

typedef struct selective_scan_plan {
  int32_t lanes;    /* work-items that share a channel                                  */
  int32_t states;   /* states of a lane; lanes * states >= d_state, the rest is padding */
  int32_t per_lane; /* channels of a lane                                               */
  int32_t channels; /* of a work-group: work_group / lanes * per_lane                   */
  int32_t work_group;
  int32_t tile;         /* steps in local memory at a time                                  */
  int32_t block;        /* steps worked off together, whose y is summed over lanes at a time */
  int32_t keep_every;   /* as asked for; a multiple of block                                */
  int32_t buffers;      /* 2: the next tile is written while this one is read               */
  bool shuffle;         /* lanes sum y by shuffles                                          */
  bool fold;            /* the second pass folds the chunks before its own itself           */
  int32_t group_blocks; /* work-groups along the channels of one of n_groups           */
  int64_t chunk;        /* steps                                                       */
  int32_t chunks;       /* maximum, of a row                                                */
  int64_t slots;        /* chunks in all: where each leaves its state (cl/scan_rows.h)     */
  int64_t work_groups;  /* in all, one pass */
  int64_t local_bytes;
  char why[224];
} selective_scan_plan;

/* False if the device cannot hold one step of the tile; `why` then says so. */
bool schedule_selective_scan(const schedule_device *, const selective_scan_request *, selective_scan_plan *);

/* Bytes of local memory of a tile: what cl/selective_scan.cl (or its backward kernel) declares. */
int64_t selective_scan_local_bytes(const selective_scan_request *, const selective_scan_plan *);

/* The state of lane `lane` that its register `s` holds: vectors of neighbouring lanes lie side by side. */
int32_t selective_scan_state(const selective_scan_request *, const selective_scan_plan *, int32_t lane, int32_t s);

#endif
