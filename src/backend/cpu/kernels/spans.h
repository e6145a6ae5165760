/* Elementwise walks over tensors of one shape and any strides: runs along which every tensor has a constant stride.
 */
#ifndef CLM_CPU_SPANS_H
#define CLM_CPU_SPANS_H

#include "storage.h"

#define SPANS_TENSORS 5

typedef struct spans {
  const clm_tensor *tensor[SPANS_TENSORS]; /* some may be absent */
  bool present[SPANS_TENSORS];
  int64_t stride[SPANS_TENSORS]; /* along a span */
  int64_t length, count;         /* of a span in elements; elements in all */
  int tensors, outer;            /* dimensions [0, outer) lead to the spans */
} spans;

/* x[i] is tensor i's part of the run (no data if it is absent), `number` the row-major number of its first element.
 */
typedef void (*span_fn)(void *arg, const line *x, int64_t n, int64_t number);

static inline void spans_of(spans *s, const clm_tensor *const *tensors, int count, const clm_tensor *shape) {
  *s = (spans){.tensors = count, .length = 1, .outer = shape->rank, .count = clm_tensor_count(*shape)};
  for (int i = 0; i < count; i++) {
    s->tensor[i] = tensors[i];
    s->present[i] = present(*tensors[i]);
  }
  bool begun = false;
  for (int d = shape->rank - 1; d >= 0; d--) { /* take dimension d in if every tensor goes on with the same stride */
    bool joins = true;
    for (int i = 0; i < count && shape->shape[d] > 1; i++)
      if (begun && s->present[i] && tensors[i]->stride[d] != s->stride[i] * s->length) joins = false;
    if (!joins) break;
    for (int i = 0; i < count && shape->shape[d] > 1 && !begun; i++) s->stride[i] = tensors[i]->stride[d];
    if (shape->shape[d] > 1) begun = true;
    s->length *= shape->shape[d];
    s->outer = d;
  }
}

static inline int64_t spans_offset(const spans *s, int tensor, int64_t span) {
  const clm_tensor *t = s->tensor[tensor];
  int64_t offset = 0;
  if (!s->present[tensor]) return 0;
  for (int d = s->outer - 1; d >= 0; d--) {
    offset += span % t->shape[d] * t->stride[d];
    span /= t->shape[d];
  }
  return offset;
}

typedef struct spans_task {
  const spans *s;
  span_fn fn;
  void *arg;
  int64_t piece;
} spans_task;

static inline void spans_piece(void *arg, int64_t index, int worker) {
  const spans_task *task = arg;
  const spans *s = task->s;
  int64_t end = min_of((index + 1) * task->piece, s->count);
  (void)worker;
  for (int64_t number = index * task->piece; number < end;) {
    int64_t within = number % s->length, n = min_of(s->length - within, end - number);
    line x[SPANS_TENSORS];
    for (int i = 0; i < s->tensors; i++)
      x[i] = line_from(line_at(s->tensor[i], spans_offset(s, i, number / s->length), s->stride[i]), within);
    task->fn(task->arg, x, n, number);
    number += n;
  }
}

static inline void spans_run(clm_context *ctx, const spans *s, span_fn fn, void *arg) {
  spans_task task = {s, fn, arg, 16384};
  cpu_pool_run(cpu_context_pool(ctx), div_up(s->count, task.piece), spans_piece, &task);
}

#endif
