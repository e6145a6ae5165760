/* The gate of a SwiGLU layer, forward and backward: pieces of fixed size, element by element. */
#include "spans.h"

#define BLOCK 256 /* numbers converted at a time */

enum { GATE, UP, OUT, DOUT = OUT, DGATE, DUP };

static void forward_span(void *arg, const line *l, int64_t n, int64_t number) {
  float gate_scratch[BLOCK], up_scratch[BLOCK], out_scratch[BLOCK];
  (void)arg, (void)number;
  for (int64_t begin = 0; begin < n; begin += BLOCK) {
    const int64_t count = min_of(BLOCK, n - begin);
    const line result = line_from(l[OUT], begin);
    const float *gate = line_load(line_from(l[GATE], begin), count, gate_scratch),
                *up = line_load(line_from(l[UP], begin), count, up_scratch);
    float *out = line_target(result, out_scratch);
    for (int64_t i = 0; i < count; i += LANES) {
      const vec x = vec_load_part(gate + i, count - i);
      vec_store_part(out + i, x * vec_sigmoid(x) * vec_load_part(up + i, count - i), count - i);
    }
    line_store(result, count, out);
  }
}

clm_status KERNEL(swiglu)(clm_context *ctx, const matrix_shape *s, const clm_swiglu_args *a) {
  if (!ALL_STORAGE(a->gate, a->up, a->out)) return ref_swiglu(ctx, s, a);
  spans walk;
  spans_of(&walk, (const clm_tensor *const[]){&a->gate, &a->up, &a->out}, 3, &a->out);
  spans_run(ctx, &walk, forward_span, NULL);
  context_explain(ctx, "swiglu: cpu %s, spans of %lld", cpu_context_level(ctx), (long long)walk.length);
  return CLM_OK;
}

/* silu'(x) = s (1 + x (1 - s)) with s = sigmoid(x) */
static void backward_span(void *arg, const line *l, int64_t n, int64_t number) {
  float scratch[5][BLOCK];
  (void)arg, (void)number;
  for (int64_t begin = 0; begin < n; begin += BLOCK) {
    const int64_t count = min_of(BLOCK, n - begin);
    const line to_gate = line_from(l[DGATE], begin), to_up = line_from(l[DUP], begin);
    const float *gate = line_load(line_from(l[GATE], begin), count, scratch[GATE]),
                *up = line_load(line_from(l[UP], begin), count, scratch[UP]),
                *dout = line_load(line_from(l[DOUT], begin), count, scratch[DOUT]);
    for (int64_t i = 0; i < count; i += LANES) {
      const int64_t left = count - i;
      const vec x = vec_load_part(gate + i, left), d = vec_load_part(dout + i, left), open = vec_sigmoid(x);
      const vec slope = open * (vec_set(1) + x * (vec_set(1) - open));
      vec_store_part(scratch[DGATE] + i, d * vec_load_part(up + i, left) * slope, left);
      vec_store_part(scratch[DUP] + i, d * x * open, left);
    }
    if (to_gate.data) line_write(to_gate, count, scratch[DGATE]);
    if (to_up.data) line_write(to_up, count, scratch[DUP]);
  }
}

clm_status KERNEL(swiglu_backward)(clm_context *ctx, const matrix_shape *s, const clm_swiglu_backward_args *b) {
  const clm_swiglu_args *a = &b->forward;
  if (!ALL_STORAGE(a->gate, a->up, b->dout, b->dgate, b->dup)) return ref_swiglu_backward(ctx, s, b);
  spans walk;
  spans_of(&walk, (const clm_tensor *const[]){&a->gate, &a->up, &b->dout, &b->dgate, &b->dup}, 5, &a->gate);
  spans_run(ctx, &walk, backward_span, NULL);
  context_explain(ctx, "swiglu_backward: cpu %s, spans of %lld", cpu_context_level(ctx), (long long)walk.length);
  return CLM_OK;
}
