#include "ops/widened.h"
#include "core/arith.h"
#include <string.h>

static void add(ops_widened *h, clm_tensor *view, bool written) {
  if (!view->buffer || (view->dtype != CLM_F16 && view->dtype != CLM_BF16)) return;
  h->view[h->count] = view;
  h->stored[h->count] = *view;
  h->written[h->count++] = written;
  h->bytes += round_up_line((size_t)clm_tensor_count(*view) * sizeof(float));
}

ops_widened widened_of(const op_call *c, void *ready) {
  ops_widened h = {.count = 0};
  for (size_t i = 0; i < c->count; i++) {
    const op_tensor *row = c->rows[i];
    clm_tensor *view = (clm_tensor *)(void *)((char *)ready + row->member);
    const bool second = row->flags & OP_WIDENED_SECOND && op_has_second(row, view);
    if (row->flags & OP_WIDENED || second) add(&h, view, row->role != OP_IN);
  }
  return h;
}

size_t widened_assume(ops_widened *h) {
  for (int i = 0; i < h->count; i++) h->view[i]->dtype = CLM_F32;
  return h->bytes;
}

clm_status widened_begin(clm_context *ctx, ops_widened *h) {
  clm_buffer *block;
  size_t at = 0;
  if (h->count == 0) return CLM_OK;
  TRY(context_enter(ctx, h->bytes, &block));
  clm_status status = CLM_OK;
  for (int i = 0; i < h->count && !status; i++) {
    const clm_tensor *stored = &h->stored[i];
    *h->view[i] = clm_tensor_of(block, at, CLM_F32, stored->rank, stored->shape);
    at += round_up_line((size_t)clm_tensor_count(*stored) * sizeof(float));
    if (!h->written[i]) status = clm_cast(ctx, &(clm_cast_args){.x = *stored, .out = *h->view[i]});
  }
  if (status) context_leave(ctx);
  return status;
}

clm_status widened_end(clm_context *ctx, ops_widened *h, clm_status status) {
  if (h->count == 0) return status;
  char explain[sizeof ctx->explain];
  memcpy(explain, ctx->explain, sizeof explain);
  for (int i = 0; i < h->count && !status; i++)
    if (h->written[i]) status = clm_cast(ctx, &(clm_cast_args){.x = *h->view[i], .out = h->stored[i]});
  context_leave(ctx);
  if (!status) memcpy(ctx->explain, explain, sizeof explain);
  return status;
}
