#include "ops/check.h"
#include "ops/view.h"

static const op_dim dims[] = {OP_DIM('b', "batch"), OP_DIM('m', "m"), OP_DIM('n', "n"), OP_DIM('k', "k"), {0}};

/* clang-format off */
static const op_tensor tensors[] = {
    OP_TENSOR(clm_matmul_args, a, OP_IN, OP_IS_FLOAT, "m k | b m k"),
    OP_TENSOR(clm_matmul_args, b, OP_IN, {.set = OP_FLOAT | OP_DTYPE(CLM_I8)}, "k n | b k n"),
    OP_TENSOR(clm_matmul_args, out, OP_OUT, OP_IS_FLOAT, "m n | b m n", .may_be = "residual", .added = "accumulate"),
    OP_TENSOR(clm_matmul_args, bias, OP_IN, OP_IS_REAL, "n", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_matmul_args, residual, OP_IN, OP_AS("out"), "m n | b m n", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_matmul_args, b_scale, OP_IN, OP_IS_REAL, "n", .flags = OP_OPTIONAL, .scale_of = "b"),
};

static const op_scalar scalars[] = {
    OP_SCALAR(clm_matmul_args, scale, OP_NUMBER),
    OP_SCALAR(clm_matmul_args, activation, OP_CHOICE, .high = CLM_ACTIVATION_SOFTPLUS + 1),
    OP_SCALAR(clm_matmul_args, accumulate, OP_BOOL),
    OP_SCALAR(clm_matmul_args, math, OP_CHOICE, .high = CLM_MATH_F16 + 1),
    {0},
};
/* clang-format on */

const op_table matmul_table = {
    .name = "matmul", .main = "out", .dims = dims, .parts = {OP_PART(tensors)}, .scalars = scalars};

static clm_status check(op_call *c, clm_context *context, const clm_matmul_args *a, matmul_shape *s) {
  TRY(op_check(c, context, &matmul_table, a));
  const int rank = a->a.rank > a->b.rank ? a->a.rank : a->b.rank;
  if (a->out.rank != rank)
    return op_fail(c, "out has rank %d, expected %d as %s", a->out.rank, rank, a->a.rank == rank ? "a" : "b");
  if (op_present(&a->residual) && a->residual.rank != rank)
    return op_fail(c, "residual has rank %d, expected %d as out", a->residual.rank, rank);
  if (a->accumulate && (op_present(&a->bias) || op_present(&a->residual) || a->activation))
    return op_fail(c, "accumulate is set, expected no bias, residual or activation with it");
  *s = (matmul_shape){.m = op_length(c, 'm'),
                      .n = op_length(c, 'n'),
                      .k = op_length(c, 'k'),
                      .batch = rank == 3 ? op_length(c, 'b') : 1};
  return CLM_OK;
}

/* ---- A batch ---- */

/* Leaves product `index` of a batch, and the elements from one to the next. */
static int64_t take(clm_tensor *t, int64_t index) {
  if (!op_present(t) || t->rank < 3) return 0;
  const int64_t next = t->shape[0] > 1 ? t->stride[0] : 0;
  view_take(t, 0, index);
  return next;
}

static void take_product(clm_matmul_args *a, matmul_shape *s, int64_t index) {
  s->a_next = take(&a->a, index);
  s->b_next = take(&a->b, index);
  s->out_next = take(&a->out, index);
  s->residual_next = take(&a->residual, index);
}

/* Whether the products are one of all rows: the same b, and each matrix begins a row after the last. */
static bool rows_follow(const matmul_shape *s, const clm_matmul_args *a) {
  return s->b_next == 0 && s->a_next == s->m * a->a.stride[0] && s->out_next == s->m * a->out.stride[0] &&
         (!op_present(&a->residual) || s->residual_next == s->m * a->residual.stride[0]);
}

static void join_rows(matmul_shape *s, clm_matmul_args *a) {
  s->m *= s->batch;
  s->batch = 1;
  a->a.shape[0] = a->out.shape[0] = s->m;
  if (op_present(&a->residual)) a->residual.shape[0] = s->m;
}

static clm_status all_products(op_call *c, const matmul_shape *s, const clm_matmul_args *first,
                               const clm_matmul_args *args) {
  clm_context *context = c->context;
  const backend_ops *slots = op_slots(context);
  if (slots->matmul_batch) {
    const clm_status status = slots->matmul_batch(context, s, first);
    if (status != CLM_UNSUPPORTED) return status;
    context->error[0] = '\0';
  }
  for (int64_t i = 0; i < s->batch; i++) {
    clm_matmul_args one = *args;
    matmul_shape shape = *s;
    take_product(&one, &shape, i);
    shape.batch = 1;
    TRY(OP_RUN(c, matmul, &shape, &one));
  }
  return CLM_OK;
}

clm_status clm_matmul(clm_context *context, const clm_matmul_args *args) {
  op_call c;
  matmul_shape s;
  TRY(check(&c, context, args, &s));
  clm_matmul_args first = *args;
  take_product(&first, &s, 0);
  if (s.batch > 1 && rows_follow(&s, &first)) join_rows(&s, &first);
  return s.batch > 1 ? all_products(&c, &s, &first, args) : OP_RUN(&c, matmul, &s, &first);
}
