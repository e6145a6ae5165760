#include "catalog.h"
#include "backend/backend.h"
#include <string.h>

/* clang-format off */
#define X(name, shape) TEST_OP(name);
BACKEND_OPS(X) X(mamba_inner, ) X(mamba_inner_backward, )
#undef X

const catalog_op catalog[] = {
#define X(name, shape) {&name##_table, &op_##name},
    BACKEND_OPS(X) X(mamba_inner, ) X(mamba_inner_backward, )
#undef X
};
/* clang-format on */
const size_t catalog_count = sizeof catalog / sizeof catalog[0];

/* ---- Names ---- */

int catalog_find(const op_table *table, const char *name) {
  const op_tensor *t;
  for (size_t i = 0; (t = op_tensor_at(table, i)) != NULL; i++)
    if (strcmp(t->name, name) == 0) return (int)i;
  return -1;
}

bool catalog_given(const catalog_choice *c, const char *name) {
  const int row = catalog_find(c->op->table, name);
  return row >= 0 && catalog_has(c, (size_t)row);
}

void catalog_forget(catalog_choice *c, const char *name) {
  const int row = catalog_find(c->op->table, name);
  if (row >= 0) c->present &= ~catalog_bit((size_t)row);
}

const op_scalar *catalog_scalar(const op_table *table, size_t i) {
  return table->scalars && table->scalars[i].name ? &table->scalars[i] : NULL;
}

bool catalog_is_set(const catalog_choice *c, const char *scalar) {
  const op_scalar *s;
  for (size_t i = 0; (s = catalog_scalar(c->op->table, i)) != NULL; i++)
    if (strcmp(s->name, scalar) == 0) return c->set >> i & 1;
  return false;
}

void catalog_store(void *args, const op_scalar *s, double value) {
  void *at = (char *)args + s->member;
  switch (s->kind) {
  case OP_BOOL: *(bool *)at = value != 0; break;
  case OP_CHOICE: *(int *)at = (int)value; break;
  case OP_NUMBER: *(float *)at = (float)value; break;
  case OP_COUNT: *(int64_t *)at = (int64_t)value; break;
  case OP_SEED: *(uint64_t *)at = (uint64_t)value; break;
  }
}

/* ---- Sizes ---- */

static int dim_named(const op_table *table, const char *name) {
  for (int i = 0; table->dims && table->dims[i].letter; i++)
    if (strcmp(table->dims[i].name, name) == 0 && !table->dims[i].size) return i;
  return -1;
}

static int dim_lettered(const op_table *table, char letter) {
  int i = 0;
  while (table->dims[i].letter != letter) i++;
  return i;
}

void catalog_resize(catalog_choice *c, const char *name, int64_t size) {
  const int dim = dim_named(c->op->table, name);
  if (dim >= 0) c->size[dim] = size;
}

int64_t catalog_size(const catalog_choice *c, const char *name) {
  const int dim = dim_named(c->op->table, name);
  return dim < 0 ? 0 : c->size[dim];
}

/* What a letter of a shape is in this call; -1: nothing. */
static int dim_in(const catalog_choice *c, char letter) {
  const op_table *table = c->op->table;
  const int dim = dim_lettered(table, letter);
  const op_dim *d = &table->dims[dim];
  if (c->size[dim] == NO_DIM) return -1;
  const bool alone = d->along && c->size[dim_lettered(table, d->along)] == NO_DIM;
  return alone || (d->with && !catalog_given(c, d->with)) ? dim_lettered(table, d->otherwise) : dim;
}

int catalog_dims(const catalog_choice *c, size_t row, int dims[CLM_MAX_RANK]) {
  const op_tensor *t = catalog_row(c, row);
  int rank = 0;
  for (; !t->shape && rank < CATALOG_ANY_RANK; rank++) dims[rank] = -1;
  if (!t->shape) return rank;
  const char *shape = c->seconds >> row & 1 ? op_second(t) : t->shape;
  for (char letter; (letter = op_next(&shape)) != '\0';) {
    const int dim = dim_in(c, letter);
    if (dim >= 0) dims[rank++] = dim;
  }
  return rank;
}

int catalog_shape(const catalog_choice *c, size_t row, int64_t shape[CLM_MAX_RANK]) {
  int dims[CLM_MAX_RANK];
  const int rank = catalog_dims(c, row, dims);
  for (int i = 0; i < rank; i++) shape[i] = dims[i] < 0 ? c->any_shape[i] : c->size[dims[i]];
  return rank;
}

/* dt_rank, and the numbers of the parts of B and C that are not given. */
static int64_t features(const catalog_choice *c) {
  const int64_t varying = !catalog_given(c, "B") + !catalog_given(c, "C");
  return catalog_size(c, "dt_rank") + varying * c->groups * catalog_size(c, "d_state") * (c->complex ? 2 : 1);
}

static void settle_sizes(catalog_choice *c) {
  const op_table *table = c->op->table;
  if (catalog_given(c, "cu_seqlens")) {
    catalog_resize(c, "batch", 1);
    if (!catalog_given(c, "offsets")) catalog_resize(c, "keys", catalog_size(c, "length"));
  }
  catalog_resize(c, "cache rows", catalog_size(c, catalog_given(c, "cu_seqlens") ? "sequences" : "batch"));
  catalog_resize(c, "sequences + 1", catalog_size(c, "sequences") + 1);
  catalog_resize(c, "experts + 1", catalog_size(c, "experts") + 1);
  catalog_resize(c, "2 d_inner", 2 * catalog_size(c, "d_inner"));
  catalog_resize(c, "features", features(c));
  if (strcmp(table->name, "expert_rows") == 0)
    catalog_resize(c, "rows", catalog_size(c, "tokens") * catalog_size(c, "chosen"));
  if (strcmp(table->name, "rope") == 0) /* pairs */
    catalog_resize(c, "head_dim", (catalog_size(c, "head_dim") + 1) / 2 * 2);
  if (!catalog_given(c, "out_proj")) catalog_resize(c, "d_model", catalog_size(c, "d_inner"));
  for (int i = 0; table->dims && table->dims[i].letter; i++) {
    if (table->dims[i].size) c->size[i] = table->dims[i].size;
    if (table->dims[i].of) c->size[i] = c->size[dim_lettered(table, table->dims[i].of)] + table->dims[i].plus;
  }
}

static bool is_empty(const catalog_choice *c, size_t row) {
  int64_t shape[CLM_MAX_RANK];
  for (int i = catalog_shape(c, row, shape) - 1; i >= 0; i--)
    if (shape[i] == 0) return true;
  return false;
}

/* Whether what it is given with is not there. */
static bool is_alone(const catalog_choice *c, const op_tensor *t) {
  if (t->scale_of) {
    const int matrix = catalog_find(c->op->table, t->scale_of);
    return !(c->integers && catalog_has(c, (size_t)matrix));
  }
  return (t->with && !catalog_given(c, t->with)) || (t->when && !catalog_is_set(c, t->when));
}

bool catalog_needs(const catalog_choice *c, size_t row) {
  const op_tensor *t = catalog_row(c, row);
  if (t->scale_of) return !is_alone(c, t);
  const bool filter_state = strcmp(t->name, "state") == 0 && catalog_size(c, "width") > 1;
  return !(t->flags & OP_OPTIONAL) || filter_state;
}

/* A product of a batch has one in a or b or both; out and residual follow. */
static void settle_batch(catalog_choice *c) {
  const op_table *table = c->op->table;
  uint64_t *seconds = &c->seconds;
  const uint64_t inputs =
      catalog_bit((size_t)catalog_find(table, "a")) | catalog_bit((size_t)catalog_find(table, "b"));
  const uint64_t outputs =
      catalog_bit((size_t)catalog_find(table, "out")) | catalog_bit((size_t)catalog_find(table, "residual"));
  *seconds = *seconds & inputs ? *seconds | outputs : *seconds & ~outputs;
}

void catalog_settle(catalog_choice *c) {
  const op_tensor *t;
  const char *name = c->op->table->name;
  const bool cached_backward = strcmp(name, "attention_backward") == 0 && catalog_given(c, "offsets");
  if (catalog_given(c, "seq_idx") || cached_backward) catalog_forget(c, "cu_seqlens");
  if (strcmp(name, "matmul") == 0) settle_batch(c);
  if (strcmp(name, "matmul") == 0 && catalog_is_set(c, "accumulate")) {
    catalog_forget(c, "bias");
    catalog_forget(c, "residual");
  }
  for (size_t i = 0; (t = op_tensor_at(c->op->table, i)) != NULL; i++)
    if (catalog_needs(c, i)) c->present |= catalog_bit(i);
  settle_sizes(c);
  for (size_t i = 0; (t = op_tensor_at(c->op->table, i)) != NULL; i++) {
    const int like = t->shape_as ? catalog_find(c->op->table, t->shape_as) : (int)i;
    if (op_second(t) && c->seconds >> like & 1) c->seconds |= catalog_bit(i);
    else c->seconds &= ~catalog_bit(i);
    if (is_empty(c, i) || is_alone(c, t)) c->present &= ~catalog_bit(i);
  }
  if (strcmp(name, "norm_backward") == 0 && !catalog_given(c, "dx") && !catalog_given(c, "dresidual"))
    catalog_forget(c, "residual");
}

/* Norms are of what x_proj makes, of real numbers; A of complex ones is no logarithm; a product that is added to has
 * no activation. */
bool catalog_allows(const catalog_choice *c, const op_scalar *s) {
  if (strncmp(s->name, "norm_", 5) == 0 && s->kind == OP_BOOL) {
    const char *of = s->name + strlen("norm_");
    return !c->complex && !(of[1] == '\0' && catalog_given(c, of));
  }
  if (strcmp(s->name, "A_is_log") == 0) return !c->complex;
  if (strcmp(s->name, "activation") == 0) return !catalog_is_set(c, "accumulate");
  return true;
}

/* ---- Dtypes ---- */

/* Operations whose tensors may be of any precision with any other. Elsewhere f64 is tried with f64 only. */
static bool mixes(const op_table *table) {
  return strcmp(table->name, "cast") == 0 || strcmp(table->name, "axpby") == 0;
}

static const unsigned complex_set = OP_ANY_COMPLEX, double_set = OP_DTYPE(CLM_F64) | OP_DTYPE(CLM_C128);

/* Of the dtypes that the row allows those that suit the call: complex in a complex call, f64 with f64, i8 where
 * integers are asked for. */
static unsigned suitable(const catalog_choice *c, unsigned set, clm_dtype main) {
  const unsigned integer = OP_DTYPE(CLM_I8), kind = c->complex ? set & complex_set : set & ~complex_set;
  if (kind) set = kind;
  if (set & integer) set = c->integers ? integer : set & ~integer;
  const unsigned precise = op_real_of(main) == CLM_F64 ? set & double_set : set & ~double_set;
  return precise && !mixes(c->op->table) ? precise : set;
}

/* What a scan writes, or reads its gradient from, where no product comes after it. */
static bool is_scans(const catalog_choice *c, const op_tensor *t) {
  const char *end = strcmp(c->op->table->name, "mamba_inner") == 0            ? "out"
                    : strcmp(c->op->table->name, "mamba_inner_backward") == 0 ? "dout"
                                                                              : "";
  return strcmp(t->name, end) == 0 && !catalog_given(c, "out_proj");
}

static clm_dtype main_dtype(const catalog_choice *c, const op_tensor *t) {
  const clm_dtype complex = op_complex_of(c->storage);
  if (c->complex && t->dtypes.set & OP_DTYPE(complex)) return complex;
  if (t->dtypes.set == OP_DTYPE(CLM_I32)) return CLM_I32;
  return t->dtypes.set & OP_DTYPE(c->storage) ? c->storage : op_real_of(c->storage);
}

void catalog_choose_dtypes(catalog_choice *c, catalog_pick pick, void *user) {
  const op_table *table = c->op->table;
  const op_tensor *t;
  const int main = catalog_find(table, table->main);
  const clm_dtype dtype = main_dtype(c, op_tensor_at(table, (size_t)main));
  for (size_t i = 0; (t = op_tensor_at(table, i)) != NULL; i++) {
    const int as = t->dtypes.as ? catalog_find(table, t->dtypes.as) : -1;
    unsigned set = op_dtype_set(&t->dtypes, dtype, c->complex, c->seconds >> i & 1);
    if (set) set = suitable(c, set, dtype);
    if (as >= 0) set |= OP_DTYPE(c->dtype[as]);
    if ((int)i == main || is_scans(c, t)) set = OP_DTYPE(dtype);
    c->dtype[i] = pick(user, t, set);
  }
}

/* ---- Values ---- */

op_role catalog_role(const catalog_choice *c, size_t row) {
  const op_tensor *t = catalog_row(c, row);
  return t->added && catalog_is_set(c, t->added) ? OP_INOUT : t->role;
}

catalog_draw catalog_draw_of(const catalog_choice *c, size_t row) {
  static const struct {
    const char *op, *tensor; /* op NULL: of all */
    catalog_draw draw;
  } draws[] = {{NULL, "delta", draw_step},
               {NULL, "delta_bias", draw_step},
               {NULL, "dt", draw_step},
               {NULL, "dt_bias", draw_step},
               {NULL, "A", draw_decay},
               {"selective_scan", "gate", random_uniform},
               {"selective_scan_backward", "gate", random_uniform},
               {"assoc_scan", "a", draw_factor},
               {"assoc_scan_backward", "a", draw_factor},
               {NULL, "conv_weight", draw_small},
               {NULL, "x_proj", draw_small},
               {NULL, "dt_proj", draw_small},
               {NULL, "out_proj", draw_small},
               {"adamw", "v", draw_positive},
               {"adamw", "sum_squares", draw_positive}};
  const op_tensor *t = catalog_row(c, row);
  if (c->dtype[row] == CLM_I8) return draw_integer;
  if (t->scale_of) return draw_scale;
  for (size_t i = 0; i < TEST_COUNT(draws); i++)
    if (strcmp(draws[i].tensor, t->name) == 0 && (!draws[i].op || strcmp(draws[i].op, c->op->table->name) == 0))
      return draws[i].draw;
  return NULL;
}
