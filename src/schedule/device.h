/* What the scheduler knows of a device: plain data, filled by a backend from what the driver reports and what probes
 * found, or by a test from a table. Plans depend on this and on the shape, and on nothing else. */
#ifndef CLM_SCHEDULE_DEVICE_H
#define CLM_SCHEDULE_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

/* How lanes of a sub-group exchange registers; the consecutive work-items of a work-group must be consecutive lanes.
 */
typedef enum schedule_shuffle {
  SHUFFLE_NONE,  /* through local memory and barriers: the plain kernels         */
  SHUFFLE_PTX,   /* shfl.sync by __asm__, 32 lanes (probed: it compiles and runs) */
  SHUFFLE_KHR,   /* cl_khr_subgroup_shuffle (probed likewise)                     */
  SHUFFLE_LOCAL, /* imitated through local memory, to test the shuffle kernels where there are no shuffles */
} schedule_shuffle;

/* PTX by __asm__ that compiles and runs (probed). */
typedef enum schedule_ptx {
  PTX_NONE,
  PTX_BASIC, /* ex2.approx, shfl.sync       */
  PTX_BF16,  /* also cvt.rn.bf16.f32        */
} schedule_ptx;

typedef struct schedule_device {
  bool is_cpu; /* an OpenCL device that runs work-groups on CPU cores               */
  schedule_ptx ptx;
  schedule_shuffle shuffle;
  int32_t compute_units;
  int32_t max_work_group;      /* work-items                                                        */
  int32_t subgroup;            /* lanes that run together; 1 if not known                           */
  int32_t resident_work_items; /* per compute unit, at best; 2048 on large GPUs, 0: not known       */
  int64_t local_memory_bytes;  /* per work-group                                                    */
  int64_t max_allocation_bytes;
} schedule_device;

#endif
