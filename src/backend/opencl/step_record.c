/* Operations as stages of a step program. What would only hand its result to the next operation becomes a part of
 * that operation's stage: a norm before a product, a convolution behind one, the product that makes the step sizes of
 * a state update. Every stage less is a meeting of all work-groups less. */
#include "backend/opencl/step.h"
#include "core/arith.h"
#include "core/try.h"
#include "ops/view.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
  MAX_ROWS = 8,
  MAX_STEP_SIZES = 512,
  MAX_TAPS = 4, /* TAPS and PIECE of cl/step_product.h */
  PIECE = 8,
  UNITS = 8448 /* columns times slices that keep a large device busy: 132 units of 16 lines, four times */
};

/* ---- Tensors ---- */

static bool buffer_number(step_plan *p, const clm_buffer *buffer, int *number) {
  for (*number = 0; *number < p->buffer_count; ++*number)
    if (p->buffers[*number] == buffer) return true;
  if (p->buffer_count == STEP_BUFFERS) return false;
  p->buffers[p->buffer_count++] = buffer;
  return true;
}

/* An absent tensor is fine; false: it has no place in the table. */
static bool place(step_plan *p, const clm_tensor *t, step_view *view) {
  *view = (step_view){0};
  int number;
  if (!t->buffer) return true;
  if (t->rank > 4 || !buffer_number(p, t->buffer, &number)) return false;
  view->at = (int64_t)(number + 1) << STEP_BUFFER_SHIFT | (int64_t)t->offset;
  for (int i = 0; i < t->rank; i++) {
    if (t->stride[i] < INT32_MIN || t->stride[i] > INT32_MAX) return false;
    view->stride[i] = (int32_t)t->stride[i];
  }
  return true;
}

static bool is_f32(const clm_tensor *t) { return !t->buffer || t->dtype == CLM_F32; }

/* Of (batch, steps, ...) with one step: (batch, ...). */
static clm_tensor one_step(clm_tensor t) {
  if (t.buffer) view_take(&t, 1, 0);
  return t;
}

/* Places f32 tensors; false as soon as one has none. */
typedef struct placed {
  const clm_tensor *tensor;
  step_view *view;
} placed;
static bool place_all(step_plan *p, const placed *list, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (!is_f32(list[i].tensor) || !place(p, list[i].tensor, list[i].view)) return false;
  return true;
}
#define PLACE(plan, ...)                                                                                             \
  place_all(plan, (const placed[]){__VA_ARGS__}, sizeof((const placed[]){__VA_ARGS__}) / sizeof(placed))

/* ---- Stages ---- */

static step_plan *plan_of(const clm_context *ctx) { return ctx->plan->state; }

/* All operations of a step have the same rows. */
static bool has_rows(step_plan *p, int64_t rows) {
  if (!p->rows && rows <= MAX_ROWS) p->rows = rows;
  return p->rows == rows;
}

static void widen(step_plan *p, int64_t width) { p->width = p->width > width ? p->width : width; }

static step_stage *last_stage(step_plan *p) { return p->count ? &p->stages[p->count - 1] : NULL; }

static clm_status add(clm_context *ctx, const step_stage *stage) {
  step_plan *p = plan_of(ctx);
  if (p->count == p->room) {
    const int64_t room = p->room ? 2 * p->room : 128;
    step_stage *larger = realloc(p->stages, (size_t)room * sizeof *larger);
    if (!larger) return context_fail(ctx, CLM_OUT_OF_MEMORY, "opencl: no host memory for a plan");
    p->stages = larger;
    p->room = room;
  }
  p->stages[p->count++] = *stage;
  return CLM_OK;
}

static bool same_view(const step_view *a, const step_view *b) { return memcmp(a, b, sizeof *a) == 0; }

/* Whether `v` begins in what the folded norm would have written: only products of all of it may read that. */
static bool reads_folded(const step_plan *p, const step_view *v) {
  const step_product *n = &p->folded.product;
  if (!p->folded.parts) return false;
  const int64_t end = n->out.at + 4 * ((p->rows - 1) * n->out.stride[0] + n->k);
  return v->at >= n->out.at && v->at < end;
}

/* ---- Norms ---- */

typedef struct norm_tensors {
  const clm_tensor *x, *weight, *bias, *z, *out;
} norm_tensors;

static clm_status record_rows(clm_context *ctx, const norm_tensors *t, step_norm norm, int64_t rows, int64_t dim) {
  step_plan *p = plan_of(ctx);
  step_stage s = {.parts = STEP_NORM, .norm = norm, .product = {.k = (int32_t)dim}};
  if (dim > INT32_MAX || !has_rows(p, rows) ||
      !PLACE(p, {t->x, &s.product.in}, {t->weight, &s.norm.weight}, {t->bias, &s.norm.bias}, {t->z, &s.norm.z},
             {t->out, &s.product.out}) ||
      reads_folded(p, &s.product.in) || reads_folded(p, &s.norm.z))
    return CLM_UNSUPPORTED;
  widen(p, dim);
  return add(ctx, &s);
}

static clm_status record_norm(clm_context *ctx, const matrix_shape *s, const clm_norm_args *a) {
  if (a->residual.buffer || a->residual_out.buffer) return CLM_UNSUPPORTED;
  const clm_tensor absent = {0};
  const norm_tensors t = {&a->x, &a->weight, &a->bias, &absent, &a->out};
  return record_rows(ctx, &t,
                     (step_norm){.epsilon = a->epsilon,
                                 .width = (int32_t)s->dim,
                                 .flags = a->kind == CLM_LAYER_NORM ? STEP_NORM_LAYER : 0},
                     s->rows, s->dim);
}

static clm_status record_gated_norm(clm_context *ctx, const gated_norm_shape *s, const clm_gated_norm_args *a) {
  const clm_tensor absent = {0};
  const norm_tensors t = {&a->x, &a->weight, &absent, &a->z, &a->out};
  return record_rows(ctx, &t,
                     (step_norm){.epsilon = a->epsilon,
                                 .width = (int32_t)s->width,
                                 .flags = a->norm_before_gate ? STEP_NORM_GATED_LAST : STEP_NORM_GATED_FIRST},
                     s->rows, s->dim);
}

/* ---- Products ---- */

static bool is_aligned(const clm_matmul_args *a) {
  const size_t size = clm_dtype_size(a->b.dtype), piece = 8 * size;
  return a->b.offset % piece == 0 && (size_t)a->b.stride[1] * size % piece == 0;
}

/* How k is cut depends on the shape alone, and so does the order of the sums. */
static void cut(step_product *p, int64_t lanes) {
  const int64_t chunk = lanes * PIECE, chunks = div_up(p->k, chunk);
  const int64_t wanted = UNITS / p->n < 1 ? 1 : UNITS / p->n;
  const int64_t each = div_up(chunks, wanted < chunks ? wanted : chunks);
  p->each = (int32_t)(each * chunk);
  p->slices = (int32_t)div_up(chunks, each);
}

/* The stage before is the norm of this product's input: from now on it is made where it is needed. */
static void fold_norm(step_plan *p, const step_product *product) {
  const step_stage *last = last_stage(p);
  if (!last || last->parts != STEP_NORM || !same_view(&last->product.out, &product->in) ||
      last->product.k != product->k)
    return;
  p->folded = *last;
  p->count--;
}

static clm_status record_matmul(clm_context *ctx, const matmul_shape *s, const clm_matmul_args *a) {
  step_plan *p = plan_of(ctx);
  step_stage stage = {.parts = STEP_PRODUCT,
                      .product = {.n = (int32_t)s->n, .k = (int32_t)s->k, .activation = (int32_t)a->activation}};
  step_product *product = &stage.product;
  const clm_tensor weight = clm_tensor_transpose(a->b, 0, 1);
  if (s->n > INT32_MAX || s->k > INT32_MAX || s->batch > 1 || a->accumulate || (a->scale != 0 && a->scale != 1) ||
      a->math != CLM_MATH_F32 || a->b.stride[0] != 1 || !has_rows(p, s->m) ||
      (p->products && p->weights != a->b.dtype) || !place(p, &weight, &product->weight) ||
      !PLACE(p, {&a->a, &product->in}, {&a->bias, &product->bias}, {&a->residual, &product->residual},
             {&a->b_scale, &product->scale}, {&a->out, &product->out}))
    return CLM_UNSUPPORTED;
  cut(product, opencl_step_lanes(ctx));
  if (product->slices > STEP_PARTS) return CLM_UNSUPPORTED;
  fold_norm(p, product);
  if (p->folded.parts && same_view(&p->folded.product.out, &product->in) && p->folded.product.k == product->k) {
    if (same_view(&p->folded.product.in, &product->out)) return CLM_UNSUPPORTED; /* others still read it */
    stage.parts |= STEP_NORM;
    stage.norm = p->folded.norm;
    product->in = p->folded.product.in;
  } else if (reads_folded(p, &product->in) || reads_folded(p, &product->residual)) {
    return CLM_UNSUPPORTED;
  }
  p->aligned = (p->aligned || !p->products) && is_aligned(a);
  p->weights = a->b.dtype;
  p->products = true;
  widen(p, s->k);
  return add(ctx, &stage);
}

/* ---- Convolutions ---- */

static clm_status record_causal_conv1d_update(clm_context *ctx, const conv_update_shape *s,
                                              const clm_causal_conv1d_update_args *a) {
  step_plan *p = plan_of(ctx);
  step_stage *last = last_stage(p);
  if (!last || !(last->parts & STEP_PRODUCT) || last->parts & (STEP_CONV | STEP_UPDATE) || s->steps != 1 ||
      s->pool != s->batch || a->cache_seqlens.buffer || a->state_indices.buffer || s->channels > INT32_MAX ||
      s->width > MAX_TAPS || s->size < s->width - 1 || s->size > s->width || !has_rows(p, s->batch))
    return CLM_UNSUPPORTED;
  const clm_tensor x = one_step(a->x), out = one_step(a->out);
  step_conv conv = {
      .channels = (int32_t)s->channels, .width = (int32_t)s->width, .places = (int32_t)s->size, .silu = a->silu};
  step_view in;
  if (!PLACE(p, {&x, &in}, {&a->state, &conv.state}, {&a->weight, &conv.weight}, {&a->bias, &conv.bias},
             {&out, &conv.out}))
    return CLM_UNSUPPORTED;
  const step_product *product = &last->product;
  const int64_t begin = (in.at - product->out.at) / 4;
  if (in.at < product->out.at || begin + conv.channels > product->n || in.stride[0] != product->out.stride[0] ||
      in.stride[1] != 1 || product->out.stride[1] != 1)
    return CLM_UNSUPPORTED;
  conv.begin = (int32_t)begin;
  last->conv = conv;
  last->parts |= STEP_CONV;
  return CLM_OK;
}

/* ---- State updates ---- */

/* Whether the stage before only makes the step sizes, one for each channel. */
static bool makes_step_sizes(const step_plan *p, const step_stage *last, const step_update *u) {
  const step_product *product = &last->product;
  return last->parts == STEP_PRODUCT && u->head_dim == 1 && product->n == u->heads && product->k <= MAX_STEP_SIZES &&
         !product->residual.at && product->out.at == u->delta.at && product->out.stride[1] == u->delta.stride[1] &&
         (p->rows == 1 || product->out.stride[0] == u->delta.stride[0]);
}

static clm_status record_selective_state_update(clm_context *ctx, const state_update_shape *s,
                                                const clm_selective_state_update_args *a) {
  step_plan *p = plan_of(ctx);
  if (s->steps != 1 || s->complex || s->pool != s->batch || a->state_indices.buffer ||
      s->n_heads * s->head_dim > INT32_MAX || s->d_state > INT32_MAX || !has_rows(p, s->batch))
    return CLM_UNSUPPORTED;
  step_stage stage = {.parts = STEP_UPDATE};
  step_update *u = &stage.update;
  *u = (step_update){.heads = (int32_t)s->n_heads,
                     .head_dim = (int32_t)s->head_dim,
                     .group_heads = (int32_t)(s->n_heads / s->n_groups),
                     .d_state = (int32_t)s->d_state,
                     .flags = (a->delta_softplus ? STEP_UPDATE_SOFTPLUS : 0) | (a->A_is_log ? STEP_UPDATE_A_LOG : 0)};
  const clm_tensor in = one_step(a->u), delta = one_step(a->delta), B = one_step(a->B), C = one_step(a->C),
                   z = one_step(a->z), out = one_step(a->out);
  if (!PLACE(p, {&a->state, &u->state}, {&in, &u->u}, {&delta, &u->delta}, {&a->A, &u->A}, {&B, &u->B}, {&C, &u->C},
             {&a->D, &u->D}, {&z, &u->z}, {&a->delta_bias, &u->bias}, {&out, &u->out}))
    return CLM_UNSUPPORTED;
  step_stage *last = last_stage(p);
  if (last && makes_step_sizes(p, last, u)) {
    stage.parts |= STEP_PRODUCT;
    stage.product = last->product;
    p->count--;
  }
  return add(ctx, &stage);
}

const backend_ops step_record_ops = {
    .causal_conv1d_update = record_causal_conv1d_update,
    .gated_norm = record_gated_norm,
    .matmul = record_matmul,
    .norm = record_norm,
    .selective_state_update = record_selective_state_update,
};
