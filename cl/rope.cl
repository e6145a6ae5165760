/* Rotary position embedding, in plain OpenCL C: a work-item for each pair of each head, and for each number that is
 * copied. Angles are fractions of a turn in units of 2^-64, whose products with a position wrap around as angles do:
 * they are as exact at position 10^6 as at 1.
 *   bytes per element: read once, written once */
#include "common.h"
#include "rope_args.h"
#include "sequence_row.h"
#include "storage.h"
#include "view.h"

#ifndef X_TYPE
#define X_TYPE f32
#endif
typedef STORAGE(X_TYPE) x_t;

/* a ratio^exponent */
static inline ulong scaled(ulong a, ulong ratio, long exponent) {
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1) a = mul_hi(a, ratio);
    ratio = mul_hi(ratio, ratio);
  }
  return a;
}

kernel void rope(const rope_args a, global const x_t *x, global const int *offsets, global const int *ends,
                 global x_t *out) {
  const long half_dims = a.rotary / 2, items = a.head_dim - half_dims; /* pairs, then the others */
  const long i = (long)get_global_id(0), item = i % items, head = i / items % a.heads;
  const long step = i / items / a.heads % a.length, batch = i / items / a.heads / a.length;
  if (batch >= a.batch) return;
  if (item >= half_dims) {
    const long p = item + half_dims;
    STORE(X_TYPE, out, view_at(&a.out, batch, step, head, p), LOAD(X_TYPE, x, view_at(&a.x, batch, step, head, p)));
    return;
  }
  const sequence_row r =
      sequence_row_of(a.flags & ROPE_IS_PACKED ? ends : 0, &a.ends, a.length, a.sequences, batch, step);
  long position = step - r.begin;
  if (a.flags & ROPE_HAS_OFFSETS && r.row >= 0) position += offsets[a.offsets.offset + r.row * a.offsets.stride[0]];
  if (r.row < 0) position = 0;
  const ulong turns = (ulong)position * scaled((ulong)a.whole, (ulong)a.ratio, item);
  const float half_turns = (float)(long)turns * 0x1p-63f;
  const float c = cospi(half_turns), d = a.flags & ROPE_INVERSE ? -sinpi(half_turns) : sinpi(half_turns);
  const bool interleaved = a.flags & ROPE_INTERLEAVED;
  const long first = interleaved ? 2 * item : item, second = interleaved ? 2 * item + 1 : item + half_dims;
  const float u = LOAD(X_TYPE, x, view_at(&a.x, batch, step, head, first)),
              v = LOAD(X_TYPE, x, view_at(&a.x, batch, step, head, second));
  STORE(X_TYPE, out, view_at(&a.out, batch, step, head, first), u * c - v * d);
  STORE(X_TYPE, out, view_at(&a.out, batch, step, head, second), v * c + u * d);
}
