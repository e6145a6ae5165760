#include "grouped.h"
#include "core/try.h"
#include "ops/rows.h"
#include "ops/view.h"
#include "reference/element.h"

/* The rows of an expert; after the last expert's, those of none. */
static seq_row rows_of(const grouped_shape *s, const clm_tensor *offsets, int64_t expert) {
  if (expert < s->experts) return seq_row_of(offsets, false, s->rows, expert);
  const int64_t end = seq_row_of(offsets, false, s->rows, s->experts - 1).end;
  return (seq_row){.begin = end, .end = s->rows};
}

static clm_tensor slice(const clm_tensor *t, seq_row rows) {
  return clm_tensor_slice(*t, 0, rows.begin, rows.end - rows.begin);
}

static clm_tensor weight(clm_tensor t, int64_t expert) {
  view_take(&t, 0, expert);
  return t;
}

static void clear(clm_tensor t) {
  for (int64_t i = 0; i < t.shape[0]; i++)
    for (int64_t j = 0; j < t.shape[1]; j++) SET(t, 0, i, j);
}

static clm_status multiply(clm_context *ctx, cpu_product *product, clm_tensor a, clm_tensor b, clm_tensor b_scale,
                           clm_tensor out) {
  const matmul_shape s = {.m = out.shape[0], .n = out.shape[1], .k = a.shape[1], .batch = 1};
  return product(ctx, &s, &(clm_matmul_args){.a = a, .b = b, .b_scale = b_scale, .out = out});
}

clm_status cpu_grouped_matmul(clm_context *ctx, const grouped_shape *s, const clm_grouped_matmul_args *a,
                              cpu_product *product) {
  for (int64_t e = 0; e <= s->experts; e++) {
    const seq_row rows = rows_of(s, &a->group_offsets, e);
    if (rows.begin == rows.end) continue;
    const clm_tensor out = slice(&a->out, rows);
    if (e == s->experts) clear(out);
    else
      TRY(multiply(ctx, product, slice(&a->a, rows), clm_tensor_transpose(weight(a->b, e), 0, 1),
                   a->b_scale.buffer ? weight(a->b_scale, e) : (clm_tensor){0}, out));
  }
  return CLM_OK;
}

clm_status cpu_grouped_matmul_backward(clm_context *ctx, const grouped_shape *s,
                                       const clm_grouped_matmul_backward_args *b, cpu_product *product) {
  const clm_grouped_matmul_args *a = &b->forward;
  const clm_tensor none = {0};
  for (int64_t e = 0; e <= s->experts; e++) {
    const seq_row rows = rows_of(s, &a->group_offsets, e);
    const bool empty = rows.begin == rows.end, expert = e < s->experts;
    if (b->da.buffer && !empty) {
      const clm_tensor da = slice(&b->da, rows);
      if (!expert) clear(da);
      else TRY(multiply(ctx, product, slice(&b->dout, rows), weight(a->b, e), none, da));
    }
    if (!b->db.buffer || !expert) continue;
    if (empty) clear(weight(b->db, e));
    else
      TRY(multiply(ctx, product, clm_tensor_transpose(slice(&b->dout, rows), 0, 1), slice(&a->a, rows), none,
                   weight(b->db, e)));
  }
  return CLM_OK;
}
