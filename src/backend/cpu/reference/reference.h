/* The plain reference: every operation, any dtype the header allows, any strides, all arithmetic in double, sums in
 * index order. Tests compare with it and faster kernels fall back to it; nothing here is meant to be fast.
 */
#ifndef CLM_CPU_REFERENCE_H
#define CLM_CPU_REFERENCE_H

#include "element.h"
#include <math.h>

#define X(name, shape) clm_status ref_##name(clm_context *, const shape *, const clm_##name##_args *);
BACKEND_OPS(X)
#undef X

/* `count` elements of `size` bytes set to zero, or NULL and a message in the context. */
void *ref_alloc(clm_context *, const char *op, int64_t count, size_t size);

static inline double ref_sigmoid(double x) { return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)); }
static inline double ref_silu(double x) { return x * ref_sigmoid(x); }
static inline double ref_silu_gradient(double x) { return ref_sigmoid(x) * (1 + x * (1 - ref_sigmoid(x))); }
static inline double ref_softplus(double x) { return x <= 20 ? log1p(exp(x)) : x; }
static inline double ref_softplus_gradient(double x) { return x <= 20 ? ref_sigmoid(x) : 1; }

/* cexp costs several times exp, and a real A is the usual one. */
static inline complex_double ref_exp(complex_double x) { return cimag(x) == 0 ? exp(creal(x)) : cexp(x); }

#endif
