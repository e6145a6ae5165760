/* Rows that call operations of the library as they are: their tensors and the call, from the tables of the operations
 * (ops/table.h). What a table leaves open, sizes, values and which optional tensors take part, is the bench's. */
#include "bench/bench.h"
#include "core/try.h"
#include <string.h>

static bool takes_part(const bench_op *op, const op_tensor *t) {
  return !(t->flags & OP_OPTIONAL) || op_lists(op->given, t->name);
}

/* ---- Shapes ---- */

static const op_dim *dim_of(const op_table *table, char letter) {
  const op_dim *dim = table->dims;
  while (dim->letter != letter) dim++;
  return dim;
}

/* The row's name of a dimension, or of the one that stands for it; NULL where its tensors do not have it. */
static const char *bench_name(const bench_op *op, const op_table *table, const op_dim *dim) {
  static const char *const names[][2] = {{"batch", "batch"},
                                         {"length", "length"},
                                         {"d_inner", "dim"},
                                         {"channels", "dim"},
                                         {"d_state", "state"},
                                         {"width", "width"},
                                         {"n_groups", "groups"},
                                         {"n_heads", "heads"},
                                         {"kv_heads", "kv_heads"},
                                         {"keys", "length"},
                                         {"head_dim", "head_dim"},
                                         {"m", "m"},
                                         {"n", "n"},
                                         {"k", "k"}};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(names[i][0], dim->name) == 0 && bench_op_has(op, names[i][1])) return names[i][1];
  return dim->otherwise ? bench_name(op, table, dim_of(table, dim->otherwise)) : NULL;
}

/* In the row's dimensions; a product has the second of its shapes in a batch. */
static void set_shape(bench_tensor *b, const bench_op *op, const op_table *table, const op_tensor *t,
                      const bench_shape *s) {
  bench_shape sizes = *s;
  const bool batched = op_second(t) && !bench_op_has(op, "length") && s->batch > 1;
  const char *shape = batched ? op_second(t) : t->shape;
  b->channel = b->length = -1;
  for (char letter; (letter = op_next(&shape)) != '\0';) {
    const char *name = bench_name(op, table, dim_of(table, letter));
    if (!name) continue;
    if (strcmp(name, op->channels) == 0) b->channel = b->rank;
    if (strcmp(name, "length") == 0) b->length = b->rank;
    b->shape[b->rank++] = *bench_dim(&sizes, name);
  }
}

/* Whether an operand of a product lies in memory as its transpose. */
static bool is_transposed(const bench_shape *s, const char *name) {
  return (s->a_transposed && strcmp(name, "a") == 0) || (s->b_transposed && strcmp(name, "b") == 0);
}

static void exchange(bench_tensor *b) {
  const int row = b->rank - 2, column = b->rank - 1;
  const int64_t size = b->shape[row];
  b->shape[row] = b->shape[column];
  b->shape[column] = size;
  if (b->channel >= row) b->channel = row + column - b->channel;
}

/* ---- Dtypes and values ---- */

/* Small weights and states stay f32; what has a row for each of the batch is stored as the main tensor. */
static bool is_fixed(const op_tensor *t) {
  if (strcmp(t->name, "state") == 0) return true;
  return t->dtypes.set & (OP_REAL | OP_STORAGE) && !strchr(t->shape, 'b');
}

static bool may_be_complex(const op_table *table, const op_tensor *t) {
  while (t->dtypes.as && !t->dtypes.set) {
    size_t i = 0;
    while (strcmp(op_tensor_at(table, i)->name, t->dtypes.as) != 0) i++;
    t = op_tensor_at(table, i);
  }
  return (t->dtypes.set | t->dtypes.complex) & (OP_COMPLEX | OP_ANY_COMPLEX);
}

static void set_values(bench_tensor *b, const bench_op *op, const bench_shape *s) {
  static const struct {
    const char *op, *tensor; /* op NULL: of all */
    bench_fill fill;
    float scale;
  } fills[] = {{NULL, "delta", BENCH_STEP, 1},           {NULL, "dt", BENCH_STEP, 1},
               {NULL, "dt_bias", BENCH_NORMAL, 0.5f},    {NULL, "A", BENCH_NEGATIVE, 1},
               {NULL, "delta_bias", BENCH_NORMAL, 0.5f}, {NULL, "weight", BENCH_NORMAL, 0.5f},
               {"assoc-scan", "a", BENCH_DECAY, 1}};
  b->fill = BENCH_NORMAL;
  b->scale = 1;
  for (size_t i = 0; i < sizeof fills / sizeof *fills; i++)
    if (strcmp(fills[i].tensor, b->name) == 0 && (!fills[i].op || strcmp(fills[i].op, op->name) == 0)) {
      b->fill = fills[i].fill;
      b->scale = fills[i].scale;
    }
  b->gradient = strcmp(b->name, "dout") == 0;
  b->weights = (s->a_packed && strcmp(b->name, "a") == 0) || (s->b_packed && strcmp(b->name, "b") == 0);
}

/* ---- Rows ---- */

static int find(const bench_tensor *tensors, int count, const char *name) {
  for (int i = 0; i < count; i++)
    if (strcmp(tensors[i].name, name) == 0) return i;
  return count;
}

int bench_tensors(const bench_op *op, const bench_shape *shape, bench_tensor *tensors) {
  if (op->tensors) return op->tensors(shape, tensors);
  int count = 0;
  for (size_t call = 0; call < BENCH_CALLS && op->calls[call]; call++) {
    const op_table *table = op->calls[call]->table;
    const op_tensor *t;
    for (size_t i = 0; (t = op_tensor_at(table, i)) != NULL; i++) {
      if (!takes_part(op, t)) continue;
      const int at = find(tensors, count, t->name);
      bench_tensor *b = &tensors[at];
      if (at == count) {
        *b = (bench_tensor){.name = t->name, .fixed = is_fixed(t), .complex = may_be_complex(table, t)};
        set_shape(b, op, table, t, shape);
        set_values(b, op, shape);
        if (is_transposed(shape, t->name)) exchange(b);
        b->input = t->role != OP_OUT;
        count++;
      }
      b->output |= t->role != OP_IN;
      b->passes += (t->role != OP_OUT) + (t->role != OP_IN);
    }
  }
  return count;
}

static void set_scalars(const bench_op *op, const op_table *table, const bench_shape *shape, char *args) {
  for (const op_scalar *s = table->scalars; s && s->name; s++) {
    if (s->kind == OP_BOOL) *(bool *)(args + s->member) = op_lists(op->set, s->name);
    if (strcmp(s->name, "math") == 0) *(int *)(void *)(args + s->member) = (int)shape->math;
  }
}

clm_status bench_call_op(const bench_op *op, clm_context *context, const bench_shape *shape,
                         const clm_tensor *tensors) {
  if (op->call) return op->call(context, shape, tensors);
  bench_tensor info[BENCH_MAX_TENSORS];
  const int count = bench_tensors(op, shape, info);
  for (size_t call = 0; call < BENCH_CALLS && op->calls[call]; call++) {
    const op_table *table = op->calls[call]->table;
    _Alignas(max_align_t) char args[BENCH_MOST_ARGS] = {0};
    const op_tensor *t;
    for (size_t i = 0; (t = op_tensor_at(table, i)) != NULL; i++) {
      if (!takes_part(op, t)) continue;
      clm_tensor *member = (clm_tensor *)(void *)(args + t->member);
      *member = tensors[find(info, count, t->name)];
      if (is_transposed(shape, t->name)) *member = clm_tensor_transpose(*member, member->rank - 2, member->rank - 1);
    }
    set_scalars(op, table, shape, args);
    TRY(op->calls[call]->call(context, args));
  }
  return CLM_OK;
}
