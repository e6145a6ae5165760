/* Whole-number helpers of the scheduler. */
#ifndef CLM_SCHEDULE_ARITH_H
#define CLM_SCHEDULE_ARITH_H

#include <stdint.h>

static inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

static inline int32_t power_of_two_at_most(int64_t n) {
  int32_t p = 1;
  while (p * INT64_C(2) <= n && p < INT32_C(1) << 30) p *= 2;
  return p;
}

#endif
