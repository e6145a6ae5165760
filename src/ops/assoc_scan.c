#include "ops/check.h"

typedef struct assoc_scan_dims {
  check_dim batch, length, channels;
} assoc_scan_dims;

/* States of 16-bit sequences are f32. */
static unsigned state_dtype(clm_dtype dtype) {
  return CHECK_DTYPE(check_is_complex(dtype) ? dtype : check_real_of(dtype));
}

/* clang-format off */
#define DIMS {CHECK_DIM(batch), CHECK_DIM(length), CHECK_DIM(channels)}
#define SEQUENCE .dims = {&d.batch, &d.length, &d.channels}
#define STATE    .dtypes = state_dtype(f->a.dtype), .dims = {&d.batch, &d.channels}
#define INPUTS                                                                                                        \
  CHECK_ROW(f, a, 0, .dtypes = CHECK_FLOAT | CHECK_COMPLEX, SEQUENCE),                                                 \
  CHECK_ROW(f, b, 0, .as = &f->a, SEQUENCE),                                                                          \
  CHECK_ROW(f, initial, CHECK_OPTIONAL, STATE)
/* clang-format on */

static assoc_scan_shape shape_of(const assoc_scan_dims *d, const clm_assoc_scan_args *f) {
  return (assoc_scan_shape){d->batch.size, d->length.size, d->channels.size, check_is_complex(f->a.dtype)};
}

static clm_status check(checker *c, const clm_assoc_scan_args *f, assoc_scan_shape *s) {
  assoc_scan_dims d = DIMS;
  clm_status status = CHECK_TENSORS(c, INPUTS, CHECK_ROW(f, h, CHECK_WRITTEN, .as = &f->a, SEQUENCE),
                                    CHECK_ROW(f, final, CHECK_OPTIONAL | CHECK_WRITTEN, STATE));
  if (!status) *s = shape_of(&d, f);
  return status;
}

static clm_status check_backward(checker *c, const clm_assoc_scan_backward_args *b, assoc_scan_shape *s) {
  const clm_assoc_scan_args *f = &b->forward;
  const unsigned gradient = CHECK_OPTIONAL | CHECK_WRITTEN;
  assoc_scan_dims d = DIMS;
  clm_status status =
      CHECK_TENSORS(c, INPUTS, CHECK_ROW(b, dh, 0, .as = &f->a, SEQUENCE),
                    CHECK_ROW(b, dfinal, CHECK_OPTIONAL, STATE), CHECK_ROW(b, da, gradient, .as = &f->a, SEQUENCE),
                    CHECK_ROW(b, db, gradient, .as = &f->a, SEQUENCE), CHECK_ROW(b, dinitial, gradient, STATE));
  if (!status) *s = shape_of(&d, f);
  return status;
}

clm_status clm_assoc_scan(clm_context *context, const clm_assoc_scan_args *args) {
  checker c;
  assoc_scan_shape s;
  clm_status status = check_begin(&c, context, "assoc_scan", args);
  if (!status) status = check(&c, args, &s);
  return status ? status : OPS_CALL(&c, assoc_scan, &s, args);
}

clm_status clm_assoc_scan_backward(clm_context *context, const clm_assoc_scan_backward_args *args) {
  checker c;
  assoc_scan_shape s;
  clm_status status = check_begin(&c, context, "assoc_scan_backward", args);
  if (!status) status = check_backward(&c, args, &s);
  return status ? status : OPS_CALL(&c, assoc_scan_backward, &s, args);
}
