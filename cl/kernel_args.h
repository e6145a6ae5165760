/* Structs that a launcher passes to a kernel by value, as one argument. Host and kernel read the same header.
 *
 * Members are of these types only, the long ones first, and an even number of the others: no compiler adds padding
 * then. (Rusticl leaves out what others add at the end, and refuses the argument.) KERNEL_ARGS checks that on both
 * sides. */
#ifndef CLM_KERNEL_ARGS_H
#define CLM_KERNEL_ARGS_H

#ifdef __OPENCL_VERSION__
typedef int kernel_int;
typedef long kernel_long;
typedef float kernel_float;
#define KERNEL_ARGS(type, longs, others)                                                                             \
  typedef char type##_has_no_padding[sizeof(type) == 8 * (longs) + 4 * (others) ? 1 : -1]
#else
#include <stdint.h>
typedef int32_t kernel_int;
typedef int64_t kernel_long;
typedef float kernel_float;
#define KERNEL_ARGS(type, longs, others)                                                                             \
  _Static_assert(sizeof(type) == 8 * (longs) + 4 * (others), #type " has padding, or other members than it says")
#endif

/* Where the elements of a tensor lie, in elements. */
typedef struct kernel_view {
  kernel_long offset, stride[4];
} kernel_view;

#endif
