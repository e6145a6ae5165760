/* How a matrix product on a matrix engine is divided: tiles, and pieces of k where tiles alone leave units idle. */
#ifndef CLM_SCHEDULE_MATMUL_H
#define CLM_SCHEDULE_MATMUL_H

#include "schedule/device.h"

/* What an engine's kernel is built for. */
typedef struct matmul_tile {
  int32_t m, n;            /* results of a work-group                       */
  int32_t groups_per_unit; /* work-groups that a compute unit holds at once */
} matmul_tile;

typedef struct matmul_plan {
  int32_t tiles_m, tiles_n;
  int32_t band;   /* tile rows that are walked together, column by column        */
  int32_t whole;  /* tiles that one work-group makes from first to last step     */
  int32_t parts;  /* pieces of k of every other tile; 1 where there are none     */
  int32_t units;  /* whole tiles and pieces                                      */
  int32_t groups; /* work-groups, each of which takes every groups-th unit       */
} matmul_plan;

typedef struct matmul_work {
  int64_t m, n;
  int64_t steps;    /* of a tile, each 32 bytes of k                                  */
  int64_t products; /* of planes in a step                                            */
  int64_t batch;    /* such products at once, which share the device's compute units  */
} matmul_work;

/* Depends on nothing but its arguments, so that the bits of a
 * product on one device do not change. */
matmul_plan schedule_matmul(const schedule_device *, const matmul_tile *, const matmul_work *);

#endif
