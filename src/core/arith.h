/* Whole numbers: rounding up, the smaller and the larger of two. */
#ifndef CLM_CORE_ARITH_H
#define CLM_CORE_ARITH_H

#include <stddef.h>
#include <stdint.h>

static inline int64_t div_up(int64_t x, int64_t by) { return (x + by - 1) / by; }
static inline int64_t round_up(int64_t x, int64_t multiple) { return div_up(x, multiple) * multiple; }
static inline int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }

/* Bytes in whole cache lines: where the next tensor begins. */
static inline size_t round_up_line(size_t bytes) { return (bytes + 63) / 64 * 64; }

#endif
