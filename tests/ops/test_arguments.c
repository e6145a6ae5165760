/* Wrong arguments of every operation: each is refused with a sentence that names the operation and the argument, and
 * nothing is written. */
#include "arguments.h"
#include <stdio.h>
#include <string.h>

static clm_tensor *tensor_of(const test_run *run, size_t i) {
  return (clm_tensor *)(void *)((char *)run->args + run->problem->tensors[i].member);
}

/* The call is refused, the sentence begins as it should and has `words`, and all buffers are as they were. */
static void refused(test_run *run, const char *words) {
  const test_problem *p = run->problem;
  char begin[80];
  snprintf(begin, sizeof begin, "%s: ", p->op->name);
  clm_status status = p->op->call(run->context, run->args);
  const char *sentence = clm_context_error(run->context);
  if (status != CLM_INVALID_ARGUMENT)
    fail_msg("%s: %s, expected a sentence with \"%s\"", p->op->name, clm_status_string(status), words);
  if (strncmp(sentence, begin, strlen(begin)) != 0 || !strstr(sentence, words))
    fail_msg("\"%s\" does not say \"%s\"", sentence, words);
  run_check_unwritten(run);
}

/* ---- Every tensor of every operation ---- */

typedef struct mutation {
  const char *name;
  bool (*mutate)(const test_run *, const valid_call *, size_t i, char *words,
                 size_t size); /* false: not for this one */
} mutation;

static const char *name_at(const test_run *run, size_t i) { return run->problem->tensors[i].name; }

static bool missing(const test_run *run, const valid_call *call, size_t i, char *words, size_t size) {
  if (!catalog_needs(&call->choice, call->rows[i])) return false;
  *tensor_of(run, i) = (clm_tensor){0};
  snprintf(words, size, "%s is missing", name_at(run, i));
  return true;
}

static bool wrong_dtype(const test_run *run, const valid_call *call, size_t i, char *words, size_t size) {
  (void)call;
  clm_tensor *t = tensor_of(run, i);
  t->dtype = t->dtype == CLM_I32 ? CLM_F32 : CLM_I32;
  snprintf(words, size, "%s is %s, expected ", name_at(run, i), clm_dtype_name(t->dtype));
  return true;
}

static bool unknown_dtype(const test_run *run, const valid_call *call, size_t i, char *words, size_t size) {
  (void)call;
  tensor_of(run, i)->dtype = (clm_dtype)77;
  snprintf(words, size, "unknown dtype 77");
  return true;
}

/* Whether the dtype of another tensor of the call depends on this one's. */
static bool is_followed(const valid_call *call, size_t i) {
  const char *name = valid_row(call, i)->name;
  const bool main = strcmp(name, call->choice.op->table->main) == 0;
  for (size_t k = 0; k < call->problem.count; k++) {
    const op_dtypes *d = &valid_row(call, k)->dtypes;
    if ((d->as && strcmp(d->as, name) == 0) || (main && d->set & (OP_MAIN | OP_STORAGE | OP_REAL | OP_COMPLEX)))
      return true;
  }
  return false;
}

/* What goes with it no longer fits either; the message may name either. */
static bool other_precision(const test_run *run, const valid_call *call, size_t i, char *words, size_t size) {
  clm_tensor *t = tensor_of(run, i);
  if (t->dtype == CLM_I32) return false;
  if (valid_row(call, i)->dtypes.set & OP_DTYPE(CLM_F64) && !is_followed(call, i)) return false;
  t->dtype = CLM_F64;
  snprintf(words, size, "expected ");
  return true;
}

static int letters_in(const char *shape) {
  int count = 0;
  while (shape && op_next(&shape)) count++;
  return count;
}

/* One dimension fewer where one more may be right: steps, or the second of two shapes; else more than any shape has.
 */
static bool wrong_rank(const test_run *run, const valid_call *call, size_t i, char *words, size_t size) {
  clm_tensor *t = tensor_of(run, i);
  const op_tensor *row = valid_row(call, i);
  if (!row->shape) {
    t->shape[--t->rank] = 0; /* any rank, but the same */
    snprintf(words, size, " has rank ");
    return true;
  }
  const int second = letters_in(op_second(row));
  if (t->rank > 1 && (letters_in(row->shape) > t->rank || second > t->rank)) {
    t->rank--;
  } else {
    do {
      t->shape[t->rank] = 1;
      t->stride[t->rank++] = 1;
    } while (t->rank <= second);
  }
  snprintf(words, size, "%s has rank %d, expected (", name_at(run, i), t->rank);
  return t->rank <= CLM_MAX_RANK;
}

static bool rank_out_of_range(const test_run *run, const valid_call *call, size_t i, char *words, size_t size) {
  (void)call;
  static const int ranks[] = {0, -1, CLM_MAX_RANK + 1, 1 << 30};
  tensor_of(run, i)->rank = ranks[i % 4];
  snprintf(words, size, "%s has rank %d, expected 1 to 5", name_at(run, i), ranks[i % 4]);
  return true;
}

static bool empty(const test_run *run, const valid_call *call, size_t i, char *words, size_t size) {
  (void)call;
  tensor_of(run, i)->shape[0] = 0;
  snprintf(words, size, "%s has size 0 in dimension 0", name_at(run, i));
  return true;
}

static bool negative_size(const test_run *run, const valid_call *call, size_t i, char *words, size_t size) {
  (void)call;
  clm_tensor *t = tensor_of(run, i);
  t->shape[t->rank - 1] = INT64_MIN;
  snprintf(words, size, "%s has size -9223372036854775808", name_at(run, i));
  return true;
}

static bool negative_stride(const test_run *run, const valid_call *call, size_t i, char *words, size_t size) {
  (void)call;
  clm_tensor *t = tensor_of(run, i);
  t->stride[t->rank - 1] = -1;
  snprintf(words, size, "%s has stride -1", name_at(run, i));
  return true;
}

/* Whether the size of its first dimension stands in no other tensor. */
static bool is_free(const valid_call *call, size_t i) {
  int dims[CLM_MAX_RANK];
  catalog_dims(&call->choice, call->rows[i], dims);
  const int first = dims[0];
  for (size_t k = 0; k < call->problem.count; k++)
    for (int d = k == i ? 0 : catalog_dims(&call->choice, call->rows[k], dims); d > 0; d--)
      if (dims[d - 1] == first) return false;
  return first < 0 || !call->choice.op->table->dims[first].size;
}

/* A size that disagrees with the other tensors: one more row of stride 0, which is inside the buffer. Where this
 * tensor is the first to show the size, the message names the next. */
static bool wrong_size(const test_run *run, const valid_call *call, size_t i, char *words, size_t size) {
  if (is_free(call, i)) return false;
  clm_tensor *t = tensor_of(run, i);
  t->shape[0]++;
  t->stride[0] = 0;
  snprintf(words, size, ", expected %s", "");
  return true;
}

static bool wrong_last_size(const test_run *run, const valid_call *call, size_t i, char *words, size_t size) {
  (void)call;
  clm_tensor *t = tensor_of(run, i);
  if (t->rank < 2) return false;
  if (strcmp(run->problem->op->name, "causal_conv1d_update") == 0 && strcmp(name_at(run, i), "state") == 0)
    return false; /* may have more places than the filter sees */
  t->shape[t->rank - 1]++;
  t->stride[t->rank - 1] = 0;
  snprintf(words, size, ", expected %s", "");
  return true;
}

static bool past_the_end(const test_run *run, const valid_call *call, size_t i, char *words, size_t size) {
  (void)call;
  clm_tensor *t = tensor_of(run, i);
  t->offset += clm_dtype_size(t->dtype);
  snprintf(words, size, "%s reaches past its buffer", name_at(run, i));
  return true;
}

static bool far_offset(const test_run *run, const valid_call *call, size_t i, char *words, size_t size) {
  (void)call;
  tensor_of(run, i)->offset = SIZE_MAX - 15;
  snprintf(words, size, "%s reaches past its buffer", name_at(run, i));
  return true;
}

static bool far_stride(const test_run *run, const valid_call *call, size_t i, char *words, size_t size) {
  (void)call;
  clm_tensor *t = tensor_of(run, i);
  if (t->shape[0] < 2) return false;
  t->stride[0] = i % 2 ? INT64_MAX : INT64_MAX / (t->shape[0] - 1) / 4;
  snprintf(words, size, "%s reaches past its buffer", name_at(run, i));
  return true;
}

static bool huge(const test_run *run, const valid_call *call, size_t i, char *words, size_t size) {
  (void)call;
  clm_tensor *t = tensor_of(run, i);
  for (int dim = 0; dim < t->rank; dim++) {
    t->shape[dim] = INT64_MAX;
    t->stride[dim] = 0;
  }
  snprintf(words, size, "%s has too many elements", name_at(run, i));
  return true;
}

static bool between_elements(const test_run *run, const valid_call *call, size_t i, char *words, size_t size) {
  (void)call;
  tensor_of(run, i)->offset++;
  snprintf(words, size, "%s has offset 1, expected a multiple of 4", name_at(run, i));
  return true;
}

static clm_context *stranger;
static clm_buffer *strangers_buffer;

static bool of_another_context(const test_run *run, const valid_call *call, size_t i, char *words, size_t size) {
  (void)call;
  tensor_of(run, i)->buffer = strangers_buffer;
  snprintf(words, size, "%s belongs to another context", name_at(run, i));
  return true;
}

static bool repeating_output(const test_run *run, const valid_call *call, size_t i, char *words, size_t size) {
  (void)call;
  clm_tensor *t = tensor_of(run, i);
  if (run->problem->tensors[i].role == TEST_IN || t->shape[0] < 2) return false;
  t->stride[0] = 0;
  snprintf(words, size, "%s is written, but its strides let elements share memory", name_at(run, i));
  return true;
}

/* An output that lies on another tensor but is not the very same view. */
static bool overlapping_output(const test_run *run, const valid_call *call, size_t i, char *words, size_t size) {
  (void)call;
  clm_tensor *t = tensor_of(run, i);
  if (run->problem->tensors[i].role == TEST_IN) return false;
  for (size_t j = 0; j < run->problem->count; j++) {
    const clm_tensor *other = tensor_of(run, j);
    if (j == i || clm_buffer_size(other->buffer) <= clm_buffer_size(t->buffer)) continue;
    t->buffer = other->buffer;
    t->offset = 4;
    snprintf(words, size, " overlaps ");
    return true;
  }
  return false;
}

static const mutation mutations[] = {
    {"missing", missing},
    {"wrong dtype", wrong_dtype},
    {"unknown dtype", unknown_dtype},
    {"another precision", other_precision},
    {"wrong rank", wrong_rank},
    {"rank out of range", rank_out_of_range},
    {"empty", empty},
    {"negative size", negative_size},
    {"negative stride", negative_stride},
    {"wrong size", wrong_size},
    {"wrong last size", wrong_last_size},
    {"past the end", past_the_end},
    {"offset far away", far_offset},
    {"stride far away", far_stride},
    {"huge", huge},
    {"offset between elements", between_elements},
    {"another context's", of_another_context},
    {"an output that repeats", repeating_output},
    {"an output on another tensor", overlapping_output},
};

static void test_mutation(const test_device *device, const void *data) {
  (void)device;
  const mutation *m = data;
  int tried = 0;
  for (size_t c = 0; c < valid_call_count; c++) {
    const test_problem *p = &valid_calls[c].problem;
    for (size_t i = 0; i < p->count; i++) {
      test_run *run = run_create(p, test_reference, false);
      char words[160];
      if (m->mutate(run, &valid_calls[c], i, words, sizeof words)) {
        refused(run, words);
        tried++;
      }
      run_destroy(run);
    }
  }
  assert_true(tried >= 8);
}

/* Takes a tensor away, and what is only given with it. */
static void take_away(const test_run *run, const valid_call *call, size_t i) {
  const char *name = valid_row(call, i)->name;
  *tensor_of(run, i) = (clm_tensor){0};
  for (size_t k = 0; k < call->problem.count; k++) {
    const char *with = valid_row(call, k)->with;
    if (with && strcmp(with, name) == 0) *tensor_of(run, k) = (clm_tensor){0};
  }
}

/* What all mutations start from is right, also without what is optional, one and all. */
static void test_valid(const test_device *device, const void *data) {
  (void)device;
  const valid_call *call = data;
  const test_problem *p = &call->problem;
  for (size_t without = 0; without <= p->count + 1; without++) {
    test_run *run = run_create(p, test_reference, false);
    for (size_t i = 0; i < p->count; i++)
      if (!catalog_needs(&call->choice, call->rows[i]) && (without == i || without == p->count))
        take_away(run, call, i);
    clm_norm_backward_args *norm = run->args;
    if (strcmp(p->op->name, "norm_backward") == 0 && !norm->dx.buffer) norm->residual = (clm_tensor){0};
    run_call(run);
    run_check_untouched(run);
    run_destroy(run);
  }
}

static void test_null(const test_device *device, const void *data) {
  (void)device;
  const test_op *op = ((const valid_call *)data)->problem.op;
  assert_int_equal(op->call(test_reference, NULL), CLM_INVALID_ARGUMENT);
  assert_non_null(strstr(clm_context_error(test_reference), "args is NULL"));
  assert_int_equal(op->call(NULL, NULL), CLM_INVALID_ARGUMENT);
}

/* ---- What only one operation has ---- */

typedef struct special_case {
  const char *op;
  void (*mutate)(void *args);
  const char *words;
} special_case;

#define SPECIAL(name, type, ...)                                                                                     \
  static void name(void *args) {                                                                                     \
    type *a = args;                                                                                                  \
    __VA_ARGS__;                                                                                                     \
  }
SPECIAL(groups, clm_selective_scan_args,
        a->B = a->C = clm_tensor_of(a->B.buffer, 0, CLM_F32, 4, (int64_t[]){2, 3, 2, 5});
        a->B.shape[2] = a->C.shape[2] = 4; a->B.stride[2] = a->C.stride[2] = 0)
SPECIAL(other_groups, clm_selective_scan_args, a->C = clm_tensor_slice(a->C, 2, 0, 1))
SPECIAL(chunk, clm_selective_scan_args, a->chunk = -1)
SPECIAL(shifted_state, clm_selective_scan_args, a->final_state = clm_tensor_transpose(a->initial_state, 0, 0);
        a->final_state.stride[0] = 5; a->final_state.stride[1] = 10)
SPECIAL(out_is_u, clm_selective_scan_args, a->out = a->u)
SPECIAL(static_B, clm_selective_scan_args,
        a->B = clm_tensor_reshape(clm_tensor_slice(a->A, 0, 0, 5), 2, (int64_t[]){5, 5}))
SPECIAL(complex_A, clm_selective_scan_args, a->A = clm_tensor_of(a->u.buffer, 0, CLM_C64, 2, (int64_t[]){6, 3}))
SPECIAL(dz_without_z, clm_selective_scan_backward_args, a->forward.z = (clm_tensor){0})
SPECIAL(dB_other_shape, clm_selective_scan_backward_args,
        a->dB = clm_tensor_of(a->dB.buffer, 0, CLM_F32, 2, (int64_t[]){6, 5}))
SPECIAL(update_groups, clm_selective_state_update_args, a->B.shape[1] = a->C.shape[1] = 4;
        a->B.stride[1] = a->C.stride[1] = 0)
SPECIAL(update_rows, clm_selective_state_update_args,
        a->state_indices = clm_tensor_of(a->A.buffer, 0, CLM_I32, 1, (int64_t[]){3}))
SPECIAL(update_heads, clm_selective_state_update_args,
        a->state = clm_tensor_reshape(a->state, 4, (int64_t[]){2, 3, 2, 5}))
SPECIAL(update_steps, clm_selective_state_update_args, a->u = clm_tensor_reshape(a->u, 3, (int64_t[]){2, 1, 6}))
SPECIAL(update_dz, clm_selective_state_update_backward_args, a->forward.z = (clm_tensor){0})
SPECIAL(ssd_groups, clm_ssd_args, a->B.shape[2] = a->C.shape[2] = 3; a->B.stride[2] = a->C.stride[2] = 0)
SPECIAL(ssd_limits, clm_ssd_args, a->dt_min = 0.1f)
SPECIAL(ssd_chunk, clm_ssd_args, a->chunk = -1)
SPECIAL(ssd_D, clm_ssd_args, a->D = clm_tensor_of(a->x.buffer, 0, CLM_F32, 2, (int64_t[]){4, 3}))
SPECIAL(ssd_dz, clm_ssd_backward_args, a->forward.z = (clm_tensor){0})
SPECIAL(attention_heads, clm_attention_args, a->k.shape[2] = a->v.shape[2] = 3; a->k.stride[2] = a->v.stride[2] = 0)
SPECIAL(attention_keys, clm_attention_args, a->q = clm_tensor_slice(a->q, 0, 0, 1);
        a->k = clm_tensor_slice(a->k, 0, 0, 1); a->v = clm_tensor_slice(a->v, 0, 0, 1);
        a->out = clm_tensor_slice(a->out, 0, 0, 1); a->lse = clm_tensor_slice(a->lse, 0, 0, 1);
        a->cu_seqlens = clm_tensor_of(a->q.buffer, 0, CLM_I32, 1, (int64_t[]){3}))
SPECIAL(attention_two_ways, clm_attention_args, attention_keys(args);
        a->offsets = clm_tensor_of(a->q.buffer, 0, CLM_I32, 1, (int64_t[]){1}))
SPECIAL(rope_rotary, clm_rope_args, a->rotary = 4)
SPECIAL(rope_theta, clm_rope_args, a->theta = 0.5f)
SPECIAL(kv_rows, clm_kv_append_args, a->k = clm_tensor_slice(a->k, 0, 0, 1); a->v = clm_tensor_slice(a->v, 0, 0, 1))
SPECIAL(kv_steps, clm_kv_advance_args, a->steps = -1)
SPECIAL(attention_window, clm_attention_args, a->window = -1)
SPECIAL(attention_scale, clm_attention_args, a->scale = -1)
SPECIAL(attention_lse, clm_attention_backward_args, a->forward.lse = (clm_tensor){0})
SPECIAL(wide, clm_causal_conv1d_args, a->weight.shape[1] = 33; a->weight.stride[1] = 0;
        a->initial_state = a->final_state = (clm_tensor){0})
SPECIAL(history, clm_causal_conv1d_args, a->initial_state = clm_tensor_slice(a->initial_state, 2, 0, 2))
SPECIAL(no_history, clm_causal_conv1d_args, a->weight = clm_tensor_slice(a->weight, 1, 0, 1))
SPECIAL(conv_two_ways, clm_causal_conv1d_args,
        a->seq_idx = clm_tensor_of(a->x.buffer, 0, CLM_I32, 2, (int64_t[]){2, 3});
        a->cu_seqlens = clm_tensor_of(a->x.buffer, 0, CLM_I32, 1, (int64_t[]){3}))
SPECIAL(conv_batch, clm_causal_conv1d_args,
        a->cu_seqlens = clm_tensor_of(a->weight.buffer, 0, CLM_I32, 1, (int64_t[]){3}))
SPECIAL(conv_ends, clm_causal_conv1d_args, a->x = clm_tensor_slice(a->x, 0, 0, 1);
        a->out = clm_tensor_slice(a->out, 0, 0, 1);
        a->cu_seqlens = clm_tensor_of(a->weight.buffer, 0, CLM_I32, 1, (int64_t[]){5}))
SPECIAL(conv_numbers, clm_causal_conv1d_args,
        a->seq_idx = clm_tensor_of(a->weight.buffer, 0, CLM_I32, 2, (int64_t[]){2, 4}))
SPECIAL(ring, clm_causal_conv1d_update_args,
        a->cache_seqlens = clm_tensor_of(a->weight.buffer, 0, CLM_I32, 1, (int64_t[]){2});
        a->state = clm_tensor_slice(a->state, 2, 0, 2))
SPECIAL(few_places, clm_causal_conv1d_update_args, a->state = clm_tensor_slice(a->state, 2, 0, 2))
SPECIAL(ring_rows, clm_causal_conv1d_update_args,
        a->cache_seqlens = clm_tensor_of(a->weight.buffer, 0, CLM_I32, 1, (int64_t[]){3}))
SPECIAL(ring_dtype, clm_causal_conv1d_update_args,
        a->cache_seqlens = clm_tensor_of(a->weight.buffer, 0, CLM_F32, 1, (int64_t[]){2}))
SPECIAL(pool_rows, clm_causal_conv1d_update_args,
        a->state_indices = clm_tensor_of(a->weight.buffer, 0, CLM_I32, 1, (int64_t[]){1}))
SPECIAL(conv_steps, clm_causal_conv1d_update_args,
        a->x = clm_tensor_of(a->x.buffer, 0, CLM_F32, 3, (int64_t[]){2, 1, 6}))
SPECIAL(method, clm_discretize_args, a->method = (clm_discretization)3)
SPECIAL(method_below, clm_discretize_args, a->method = (clm_discretization)-1)
SPECIAL(dB_static, clm_discretize_backward_args,
        a->dB = clm_tensor_of(a->dB.buffer, 0, CLM_F32, 2, (int64_t[]){6, 5}))
SPECIAL(accumulate_bias, clm_matmul_args, a->accumulate = true)
SPECIAL(accumulate_activation, clm_matmul_args, a->accumulate = true; a->bias = a->residual = (clm_tensor){0};
        a->activation = CLM_ACTIVATION_SILU)
SPECIAL(activation, clm_matmul_args, a->activation = (clm_activation)9)
SPECIAL(inner, clm_matmul_args, a->b = clm_tensor_slice(a->b, 0, 0, 3))
SPECIAL(scales_missing, clm_matmul_args, a->b.dtype = CLM_I8)
SPECIAL(scales_for_none, clm_matmul_args, a->b_scale = a->bias)
SPECIAL(scales_of_rows, clm_matmul_args, a->b.dtype = CLM_I8; a->b_scale = clm_tensor_slice(a->bias, 0, 0, 2))
SPECIAL(integers_of_a, clm_matmul_args, a->a.dtype = CLM_I8)
SPECIAL(table_scales, clm_embedding_args, a->table.dtype = CLM_I8)
SPECIAL(out_proj_scales, clm_mamba_inner_args, a->out_proj.dtype = CLM_I8)
SPECIAL(integers_backward, clm_mamba_inner_backward_args, a->forward.x_proj.dtype = CLM_I8)
SPECIAL(inner_norm_of_B, clm_mamba_inner_args, a->B = a->A)
SPECIAL(inner_no_parts, clm_mamba_inner_args, a->B = a->C = a->A)
SPECIAL(inner_complex_B, clm_mamba_inner_args, a->B = a->A; a->B.dtype = CLM_C64; a->B.stride[0] = a->B.stride[1] = 0)
SPECIAL(inner_complex_state, clm_mamba_inner_args, a->A.dtype = CLM_C64; a->A.stride[0] = a->A.stride[1] = 0)
SPECIAL(inner_complex_norms, clm_mamba_inner_args, inner_complex_state(args);
        a->scan_initial = a->scan_final = (clm_tensor){0})
SPECIAL(inner_complex_parts, clm_mamba_inner_args, inner_complex_norms(args); a->dbc = (clm_tensor){0};
        a->x_proj = clm_tensor_slice(a->x_proj, 0, 0, 13))
SPECIAL(inner_dB, clm_mamba_inner_backward_args, a->dB = a->dA; a->dA = (clm_tensor){0})
SPECIAL(kind, clm_norm_args, a->kind = (clm_norm_kind)2)
SPECIAL(epsilon, clm_norm_args, a->epsilon = -1)
SPECIAL(epsilon_nan, clm_norm_args, a->epsilon = NAN)
SPECIAL(residual_alone, clm_norm_backward_args, a->dx = a->dresidual = (clm_tensor){0})
SPECIAL(dresidual_alone, clm_norm_backward_args, a->forward.residual = (clm_tensor){0})
SPECIAL(stream_dtype, clm_norm_args, a->residual.dtype = CLM_F64)
SPECIAL(stream_apart, clm_norm_args, a->residual_out = a->out)
SPECIAL(rate_one, clm_dropout_args, a->rate = 1)
SPECIAL(rate_below, clm_dropout_args, a->rate = -0.1f)
SPECIAL(rate_nan, clm_dropout_args, a->rate = NAN)
SPECIAL(scale_nan, clm_cross_entropy_args, a->scale = NAN)
SPECIAL(step_zero, clm_adamw_args, a->step = 0)
SPECIAL(beta_one, clm_adamw_args, a->beta2 = 1)
SPECIAL(lr_infinite, clm_adamw_args, a->lr = INFINITY)
SPECIAL(norm_below, clm_adamw_args, a->max_norm = -1)
SPECIAL(two_norms, clm_adamw_args, a->sum_squares = clm_tensor_slice(a->gradient, 0, 0, 2))

static const special_case specials[] = {
    {"selective_scan", groups, "B has n_groups 4, which does not divide d_inner 6"},
    {"selective_scan", other_groups, "C has n_groups 1, expected 2 as in B"},
    {"selective_scan", chunk, "chunk is -1, expected 0 or more"},
    {"selective_scan", shifted_state, "final_state overlaps initial_state"},
    {"selective_scan", out_is_u, "out overlaps u"},
    {"selective_scan", static_B, "B has d_inner 5, expected 6 as in u"},
    {"selective_scan", complex_A, "B is f32, expected c64"},
    {"selective_scan_backward", dz_without_z, "dz is given, but z is missing"},
    {"selective_scan_backward", dB_other_shape, "dB has rank 2, expected 4 as B"},
    {"selective_state_update", update_groups, "B has n_groups 4, which does not divide d_inner 6"},
    {"causal_conv1d", wide, "weight has width 33, expected 1 to 32"},
    {"causal_conv1d", history, "initial_state has width - 1 2, expected 3 as weight has width 4"},
    {"causal_conv1d", no_history, "initial_state has width - 1 3, expected 0 as weight has width 1"},
    {"selective_state_update", update_rows, "state_indices has batch 3, expected 2 as in u"},
    {"selective_state_update", update_heads, "u has rank 2, expected (batch, n_heads, head_dim)"},
    {"selective_state_update", update_steps, "delta has rank 2, expected (batch, steps, d_inner)"},
    {"selective_state_update_backward", update_dz, "dz is given, but z is missing"},
    {"ssd", ssd_groups, "B has n_groups 3, which does not divide n_heads 4"},
    {"ssd", ssd_limits, "dt_min is 0.1 and dt_max 0, expected dt_min <= dt_max"},
    {"ssd", ssd_chunk, "chunk is -1, expected 0 or more"},
    {"ssd", ssd_D, "D has head_dim 3, expected 2 as in x"},
    {"ssd_backward", ssd_dz, "dz is given, but z is missing"},
    {"attention", attention_heads, "k has kv_heads 3, which does not divide n_heads 4"},
    {"attention", attention_keys, "k has keys 5, expected 3 as length with cu_seqlens"},
    {"attention", attention_two_ways, "k has cache rows 1, expected 2 as in cu_seqlens"},
    {"rope", rope_rotary, "rotary is 4, expected an even number of at most head_dim 2"},
    {"rope", rope_theta, "theta is 0.5, expected a number of at least 1"},
    {"kv_append", kv_rows, "offsets has cache rows 2, expected 1 as batch"},
    {"kv_advance", kv_steps, "steps is -1, expected 0 or more"},
    {"attention", attention_window, "window is -1, expected 0 or more"},
    {"attention", attention_scale, "scale is -1, expected a finite number of at least 0"},
    {"attention_backward", attention_lse, "lse is missing"},
    {"causal_conv1d", conv_two_ways, "seq_idx and cu_seqlens are both given"},
    {"causal_conv1d", conv_batch, "cu_seqlens"},
    {"causal_conv1d", conv_ends, "has sequences 2, expected 4 as in cu_seqlens"},
    {"causal_conv1d", conv_numbers, "seq_idx has length 4, expected 3 as in x"},
    {"causal_conv1d_update", ring, "state has size 2, expected at least width - 1 = 3"},
    {"causal_conv1d_update", few_places, "state has size 2, expected at least width - 1 = 3"},
    {"causal_conv1d_update", ring_rows, "cache_seqlens has batch 3, expected 2 as in x"},
    {"causal_conv1d_update", ring_dtype, "cache_seqlens is f32, expected i32"},
    {"causal_conv1d_update", pool_rows, "state_indices has batch 1, expected 2 as in x"},
    {"causal_conv1d_update", conv_steps, "out has rank 2, expected 3 as x"},
    {"discretize", method, "method is 3, expected 0 to 2"},
    {"discretize", method_below, "method is -1, expected 0 to 2"},
    {"discretize_backward", dB_static, "dB has rank 2, expected 3 as B"},
    {"matmul", accumulate_bias, "accumulate is set, expected no bias"},
    {"matmul", accumulate_activation, "accumulate is set, expected no bias"},
    {"matmul", activation, "activation is 9, expected 0 to 2"},
    {"matmul", inner, "b has k 3, expected 4 as in a"},
    {"matmul", scales_missing, "b_scale is missing, expected it as b is i8"},
    {"matmul", scales_for_none, "b_scale is given, but b is not i8"},
    {"matmul", scales_of_rows, "b_scale has n 2, expected"},
    {"matmul", integers_of_a, "a is i8, expected f32, f16, bf16 or f64"},
    {"embedding", table_scales, "table_scale is missing"},
    {"mamba_inner", out_proj_scales, "out_proj_scale is missing"},
    {"mamba_inner_backward", integers_backward, "x_proj is i8, expected"},
    {"mamba_inner", inner_norm_of_B, "norm_B is set, but B is given"},
    {"mamba_inner", inner_no_parts, "x_proj has features 22, expected dt_rank 2 as B and C are given"},
    {"mamba_inner", inner_complex_B, "B is c64, expected f32"},
    {"mamba_inner", inner_complex_state, "scan_initial is f32, expected c64"},
    {"mamba_inner", inner_complex_norms, "norm_delta is set, expected no norms as A is complex"},
    {"mamba_inner", inner_complex_parts, "x_proj has features 13, expected dt_rank 2 and 4 n_groups times d_state 5"},
    {"mamba_inner_backward", inner_dB, "dB is given, but B is missing"},
    {"norm", kind, "kind is 2, expected 0 to 1"},
    {"norm", epsilon, "epsilon is -1, expected a finite number of at least 0"},
    {"norm", epsilon_nan, "epsilon is nan"},
    {"norm_backward", dresidual_alone, "dresidual is given, but forward.residual is missing"},
    {"norm", stream_dtype, "residual is f64, expected f32, f16 or bf16"},
    {"norm", stream_apart, "out overlaps residual_out"},
    {"norm_backward", residual_alone, "residual is given, but dx is missing"},
    {"dropout", rate_one, "rate is 1, expected 0 <= rate < 1"},
    {"dropout", rate_below, "rate is -0.1, expected 0 <= rate < 1"},
    {"dropout", rate_nan, "rate is nan, expected 0 <= rate < 1"},
    {"cross_entropy", scale_nan, "scale is nan, expected a finite number"},
    {"adamw", step_zero, "step is 0, expected at least 1"},
    {"adamw", beta_one, "beta2 is 1, expected 0 <= beta2 < 1"},
    {"adamw", lr_infinite, "lr is inf, expected a finite number"},
    {"adamw", norm_below, "max_norm is -1, expected a finite number"},
    {"adamw", two_norms, "sum_squares has count 2, expected 1"},
};

static void test_special(const test_device *device, const void *data) {
  (void)device;
  const special_case *s = data;
  test_run *run = run_create(&valid_call_of(s->op)->problem, test_reference, false);
  s->mutate(run->args);
  refused(run, s->words);
  run_destroy(run);
}

/* Of two sizes that are each possible the product is not: caught before anything multiplies them. */
static void test_product_of_sizes(const test_device *device, const void *data) {
  (void)device, (void)data;
  test_run *run = run_create(&valid_call_of("selective_scan")->problem, test_reference, false);
  clm_selective_scan_args *a = run->args;
  const int64_t states = (int64_t)1 << 55;
  a->A.shape[1] = states;
  a->A.stride[1] = 0;
  refused(run, "too large");
  assert_int_equal(clm_selective_scan_workspace_size(test_reference, a), 0);
  run_destroy(run);
}

static void test_workspace_of_wrong(const test_device *device, const void *data) {
  (void)device, (void)data;
  assert_int_equal(clm_selective_scan_workspace_size(test_reference, NULL), 0);
  assert_int_equal(clm_selective_scan_workspace_size(test_reference, &(clm_selective_scan_args){0}), 0);
  assert_string_equal(clm_context_error(test_reference), "selective_scan: u is missing");
  assert_int_equal(clm_selective_scan_backward_workspace_size(test_reference, &(clm_selective_scan_backward_args){0}),
                   0);
  assert_string_equal(clm_context_error(test_reference), "selective_scan_backward: u is missing");
}

static void add(void) {
  valid_calls_init();
  if (clm_context_create(&(clm_context_options){.device = "cpu"}, &stranger) ||
      clm_buffer_create(stranger, 1 << 16, &strangers_buffer))
    abort();
  for (size_t i = 0; i < valid_call_count; i++) {
    test_add(NULL, test_valid, &valid_calls[i], "%s: valid", valid_calls[i].problem.op->name);
    test_add(NULL, test_null, &valid_calls[i], "%s: NULL", valid_calls[i].problem.op->name);
  }
  for (size_t i = 0; i < TEST_COUNT(mutations); i++)
    test_add(NULL, test_mutation, &mutations[i], "every tensor: %s", mutations[i].name);
  for (size_t i = 0; i < TEST_COUNT(specials); i++)
    test_add(NULL, test_special, &specials[i], "%s: %s", specials[i].op, specials[i].words);
  test_add(NULL, test_product_of_sizes, NULL, "sizes whose product is too large");
  test_add(NULL, test_workspace_of_wrong, NULL, "workspace of wrong arguments");
}

int main(void) {
  int status = test_main_reference("arguments", add);
  clm_buffer_destroy(&strangers_buffer);
  clm_context_destroy(&stranger);
  return status;
}
