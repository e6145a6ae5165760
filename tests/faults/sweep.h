#ifndef FAULTS_SWEEP_H
#define FAULTS_SWEEP_H

#include "inject.h"

typedef struct sweep_options {
  const char *const *devices; /* NULL at the end                                      */
  const char *name;           /* of the only scenario, or NULL: all                   */
  unsigned kinds;             /* bits                                                 */
  uint32_t each;              /* faults for each way in which a call comes about      */
  uint32_t every, first;      /* of all these only every n-th, beginning with `first` */
  int jobs;
  bool verbose;
} sweep_options;

typedef struct sweep_totals {
  uint32_t runs, injected, survived, wrong;
} sweep_totals;

sweep_totals sweep_run(const sweep_options *options);

/* A single fault, told in detail; what it leaves stays on the disk. */
int sweep_one(const sweep_options *options, const fault_plan *plan);

#endif
