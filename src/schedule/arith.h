/* Whole numbers for the scheduler. */
#ifndef CLM_SCHEDULE_ARITH_H
#define CLM_SCHEDULE_ARITH_H

#include "core/arith.h"

static inline int32_t power_of_two_at_most(int64_t n) {
  int32_t p = 1;
  while (p * INT64_C(2) <= n && p < INT32_C(1) << 30) p *= 2;
  return p;
}

#endif
