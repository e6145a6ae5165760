/* An element of a view (kernel_args.h). */
static inline long view_at(const kernel_view *v, long i, long j, long k, long l) {
  return v->offset + i * v->stride[0] + j * v->stride[1] + k * v->stride[2] + l * v->stride[3];
}
