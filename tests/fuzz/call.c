#include "call.h"
#include "numbers.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool chance(test_random *r, int percent) { return random_below(r, 100) < percent; }

/* Mostly a few; now and then enough for several tiles or vectors. */
static int64_t small(test_random *r, int64_t few, int64_t many) {
  return 1 + random_below(r, chance(r, 10) ? many : few);
}

static size_t row_count(const catalog_op *op) {
  size_t n = 0;
  while (op_tensor_at(op->table, n)) n++;
  return n;
}

/* ---- What the tables leave open ---- */

static const catalog_op *draw_op(test_random *r) {
  static const struct {
    const char *name;
    int64_t times;
  } often[] = {{"selective_scan", 1},
               {"selective_scan_backward", 1},
               {"causal_conv1d", 1},
               {"causal_conv1d_backward", 1},
               {"mamba_inner", 2},
               {"mamba_inner_backward", 4},
               {"ssd", 1},
               {"ssd_backward", 1},
               {"attention", 1},
               {"attention_backward", 1},
               {"rope", 1},
               {"kv_append", 1},
               {"kv_advance", 1},
               {"adamw", 1},
               {"assoc_scan", 1},
               {"matmul", 2},
               {"embedding", 1},
               {"norm_backward", 1}};
  int64_t all = 0;
  for (size_t i = 0; i < TEST_COUNT(often); i++) all += often[i].times;
  if (chance(r, 30)) {
    int64_t drawn = random_below(r, all);
    size_t at = 0;
    while (drawn >= often[at].times) drawn -= often[at++].times;
    for (size_t i = 0; i < catalog_count; i++)
      if (strcmp(catalog[i].op->name, often[at].name) == 0) return &catalog[i];
  }
  return &catalog[random_below(r, (int64_t)catalog_count)];
}

static void draw_sizes(test_random *r, catalog_choice *c) {
  static const struct {
    const char *name;
    int64_t few, many;
  } sizes[] = {{"batch", 3, 3},    {"length", 7, 40},   {"d_inner", 8, 36},  {"channels", 8, 36}, {"d_state", 5, 20},
               {"width", 5, 18},   {"sequences", 4, 4}, {"rows", 5, 20},     {"dim", 8, 40},      {"vocab", 8, 40},
               {"count", 9, 80},   {"m", 5, 20},        {"n", 8, 40},        {"k", 6, 30},        {"dt_rank", 3, 8},
               {"d_model", 6, 20}, {"steps", 4, 12},    {"head_dim", 4, 20}, {"keys", 9, 60},     {"tokens", 5, 30}};
  for (size_t i = 0; i < TEST_COUNT(sizes); i++)
    catalog_resize(c, sizes[i].name, small(r, sizes[i].few, sizes[i].many));
  const int64_t channels = catalog_size(c, "d_inner");
  do c->groups = small(r, 3, channels ? channels : 1);
  while (channels % c->groups);
  catalog_resize(c, "n_groups", c->groups);
  catalog_resize(c, "kv_heads", c->groups);
  catalog_resize(c, "n_heads", c->groups * small(r, 3, 8));
  const int64_t experts = small(r, 5, 40); /* of a group */
  catalog_resize(c, "experts", c->groups * experts);
  catalog_resize(c, "chosen", 1 + random_below(r, experts));
  if (channels && chance(r, 50)) catalog_resize(c, "head_dim", NO_DIM);
  if (chance(r, 50)) catalog_resize(c, "steps", NO_DIM);
  catalog_resize(c, "pool", catalog_size(c, "batch") + random_below(r, 4));
  catalog_resize(c, "size", catalog_size(c, "width") - 1 + random_below(r, 4));
  for (size_t i = 0; i < TEST_COUNT(c->any_shape); i++) c->any_shape[i] = small(r, 6, 30);
}

static void draw_presence(test_random *r, catalog_choice *c) {
  const int likely = chance(r, 65) ? 95 : chance(r, 50) ? 60 : 25;
  for (size_t i = 0; i < row_count(c->op); i++) {
    if (chance(r, likely)) c->present |= catalog_bit(i);
    if (chance(r, 25)) c->seconds |= catalog_bit(i);
  }
  if (catalog_given(c, "x_proj")) { /* the norms are of what it makes */
    if (chance(r, 70)) catalog_forget(c, "B");
    if (chance(r, 70)) catalog_forget(c, "C");
  }
  if (catalog_given(c, "seq_idx") && catalog_given(c, "cu_seqlens"))
    catalog_forget(c, chance(r, 50) ? "seq_idx" : "cu_seqlens");
}

static clm_dtype pick(void *user, const op_tensor *t, unsigned dtypes) {
  (void)t;
  for (int64_t n = random_below(user, __builtin_popcount(dtypes)); n > 0; n--) dtypes &= dtypes - 1;
  return (clm_dtype)__builtin_ctz(dtypes);
}

static void draw_choice(test_random *r, catalog_choice *c) {
  static const clm_dtype storages[] = {CLM_F32, CLM_F16, CLM_BF16, CLM_F64};
  c->op = draw_op(r);
  c->storage = storages[chance(r, 18) ? 3 : random_below(r, 3)];
  c->complex = c->op->table->rate && chance(r, catalog_find(c->op->table, "x_proj") >= 0 ? 15 : 40);
  c->integers = chance(r, 45);
  draw_sizes(r, c);
  draw_presence(r, c);
}

/* ---- Memory ---- */

static void lay_out(test_random *r, fuzz_tensor *t, const int64_t *shape) {
  clm_tensor *v = &t->view;
  int order[CLM_MAX_RANK]; /* from the outermost in memory to the innermost */
  for (int i = 0; i < v->rank; i++) order[i] = i;
  if (t->layout == LAYOUT_TRANSPOSED && v->rank >= 2) {
    order[v->rank - 1] = v->rank - 2;
    order[v->rank - 2] = v->rank - 1;
  }
  if (t->layout == LAYOUT_PERMUTED)
    for (int i = v->rank - 1; i > 0; i--) {
      int j = (int)random_below(r, i + 1), moved = order[i];
      order[i] = order[j];
      order[j] = moved;
    }
  int64_t stride = t->layout == LAYOUT_SPREAD ? 2 : 1, first = 0, last = 0;
  for (int i = v->rank - 1; i >= 0; i--) {
    const int dim = order[i];
    int64_t extent = v->shape[dim] = shape[dim];
    v->stride[dim] = i == 0 && t->layout == LAYOUT_REPEATED ? 0 : stride;
    last += (extent - 1) * v->stride[dim];
    if (t->layout == LAYOUT_PADDED && i == v->rank - 1) extent += 3;
    if (t->layout == LAYOUT_WIDE && i == v->rank - 1) {
      first = extent;
      extent *= 3;
    }
    if (t->layout == LAYOUT_PERMUTED) extent += random_below(r, 3);
    stride *= extent;
  }
  if (t->layout == LAYOUT_PADDED || t->layout == LAYOUT_PERMUTED) first = random_below(r, 6);
  size_t size = clm_dtype_size(v->dtype);
  v->offset = (size_t)first * size;
  t->bytes = (size_t)(first + last + 1) * size; /* to the last element: a sanitizer sees one more */
}

static bool lies_in_rows(fuzz_layout layout) {
  return layout != LAYOUT_TRANSPOSED && layout != LAYOUT_REPEATED && layout != LAYOUT_PERMUTED;
}

static void draw_layouts(test_random *r, fuzz_call *c) {
  const fuzz_layout common = (fuzz_layout)random_below(r, FUZZ_LAYOUTS);
  const bool same = chance(r, 60);
  const size_t count = row_count(c->choice.op);
  for (size_t i = 0; i < count; i++) {
    if (!fuzz_present(c, i)) continue;
    const op_tensor *row = catalog_row(&c->choice, i);
    fuzz_tensor *t = &c->tensors[i];
    int64_t shape[CLM_MAX_RANK];
    t->view.rank = catalog_shape(&c->choice, i, shape);
    t->view.dtype = c->choice.dtype[i];
    t->layout = same ? common : (fuzz_layout)random_below(r, FUZZ_LAYOUTS);
    if (row->flags & OP_ROWS && !lies_in_rows(t->layout)) t->layout = LAYOUT_CONTIGUOUS;
    if (t->layout == LAYOUT_REPEATED && (row->role != OP_IN || t->view.rank < 2)) t->layout = LAYOUT_CONTIGUOUS;
    t->buffer = i;
    lay_out(r, t, shape);
  }
  bool taken[OP_TENSORS] = {false};
  for (size_t i = 0; i < count; i++) { /* an output in the place of an input */
    const op_tensor *row = catalog_row(&c->choice, i);
    if (!row->may_be || !fuzz_present(c, i)) continue;
    for (size_t in = 0; in < count; in++) {
      fuzz_tensor *t = &c->tensors[i], *of = &c->tensors[in];
      if (!op_lists(row->may_be, catalog_row(&c->choice, in)->name) || !fuzz_present(c, in) || taken[in] ||
          t->view.dtype != of->view.dtype || of->layout == LAYOUT_REPEATED || of->buffer != in || !chance(r, 30))
        continue;
      t->view = of->view;
      t->layout = of->layout;
      t->buffer = in;
      t->bytes = 0;
      taken[in] = true;
      break;
    }
  }
}

/* ---- Values ---- */

static int64_t element_at(const clm_tensor *v, int64_t element) {
  int64_t at = (int64_t)(v->offset / clm_dtype_size(v->dtype));
  for (int dim = v->rank - 1; dim >= 0; dim--) {
    at += element % v->shape[dim] * v->stride[dim];
    element /= v->shape[dim];
  }
  return at;
}

static int64_t count_of(const clm_tensor *v) {
  int64_t count = 1;
  for (int i = 0; i < v->rank; i++) count *= v->shape[i];
  return count;
}

/* Numbers of the pool's states, none twice; some rows are padding. */
static void fill_pool(test_random *r, fuzz_call *c, size_t row) {
  const fuzz_tensor *t = &c->tensors[row];
  const int64_t pool = catalog_size(&c->choice, "pool");
  int64_t next = random_below(r, pool);
  for (int64_t i = 0; i < count_of(&t->view); i++, next = (next + 1) % pool) {
    const int64_t value = !chance(r, 15) ? next : chance(r, 50) ? -1 - random_below(r, 9) : pool + random_below(r, 9);
    ((int32_t *)(void *)t->image)[element_at(&t->view, i)] = (int32_t)value;
  }
}

static void fill_indexes(test_random *r, fuzz_call *c, size_t row) {
  const char *name = catalog_row(&c->choice, row)->name;
  fuzz_tensor *t = &c->tensors[row];
  if (strcmp(name, "state_indices") == 0) {
    fill_pool(r, c, row);
    return;
  }
  const int64_t count = count_of(&t->view), length = catalog_size(&c->choice, "length");
  const bool ends = strcmp(name, "cu_seqlens") == 0, numbers = strcmp(name, "seq_idx") == 0;
  const bool groups = strcmp(name, "group_offsets") == 0, pairs = strcmp(name, "order") == 0;
  const bool rows = strcmp(name, "places") == 0, experts = catalog_size(&c->choice, "experts") > 0 && !groups;
  const bool steps = strcmp(name, "cache_seqlens") == 0, positions = strcmp(name, "offsets") == 0;
  const bool wild = (ends || groups || steps) && chance(r, 10); /* wrong, but must touch no other memory */
  const int64_t others = rows ? catalog_size(&c->choice, "rows")
                              : catalog_size(&c->choice, "tokens") * catalog_size(&c->choice, "chosen");
  int64_t at = 0;
  c->incomparable |= wild;
  for (int64_t i = 0; i < count; i++) {
    int64_t value;
    if (wild) value = chance(r, 10) ? INT32_MIN : random_below(r, 1000) - 500;
    else if (ends) value = at = i == 0 ? 0 : i == count - 1 ? length : at + random_below(r, length - at + 1);
    else if (groups) value = at = i == 0 ? 0 : at + random_below(r, catalog_size(&c->choice, "rows") - at + 1);
    else if (pairs || rows) value = chance(r, 10) ? random_below(r, 2000) - 1000 : random_below(r, others);
    else if (experts) value = chance(r, 12) ? -1 : random_below(r, catalog_size(&c->choice, "experts"));
    else if (positions) value = chance(r, 90) ? random_below(r, 80) - 10 : (chance(r, 50) ? INT32_MIN : INT32_MAX);
    else if (numbers) value = chance(r, 20) ? -1 : (at += chance(r, 25));
    else if (steps) value = chance(r, 90) ? random_below(r, 40) : INT32_MAX - random_below(r, 40);
    else value = chance(r, 12) ? -1 : random_below(r, catalog_size(&c->choice, "vocab"));
    ((int32_t *)(void *)t->image)[element_at(&t->view, i)] = (int32_t)value;
  }
}

static double one(test_random *r, const fuzz_call *c, size_t row, bool complex) {
  const catalog_draw draw = catalog_draw_of(&c->choice, row);
  if (strcmp(catalog_row(&c->choice, row)->name, "A") == 0 && complex) return draw_complex_decay(r);
  if (draw == draw_decay && catalog_is_set(&c->choice, "A_is_log")) return draw_log_decay(r);
  return draw ? draw(r) : random_normal(r);
}

static void fill(test_random *r, fuzz_call *c) {
  for (size_t i = 0; i < row_count(c->choice.op); i++) {
    fuzz_tensor *t = &c->tensors[i];
    if (!fuzz_present(c, i) || t->buffer != i) continue;
    t->image = malloc(t->bytes);
    if (!t->image) abort();
    memset(t->image, 0xff, t->bytes); /* not a number in every floating dtype */
    if (catalog_role(&c->choice, i) == OP_OUT) continue;
    if (t->view.dtype == CLM_I32) {
      fill_indexes(r, c, i);
      continue;
    }
    const bool complex = op_is_complex(t->view.dtype);
    const int64_t count = count_of(&t->view);
    for (int64_t k = 0; k < count; k++)
      for (int part = 0; part <= complex; part++)
        number_set(t->view.dtype, t->image, (size_t)(element_at(&t->view, k) * (1 + complex) + part),
                   one(r, c, i, complex));
  }
}

/* ---- Scalars ---- */

/* Of those whose valid values are too many. */
static double draw_scalar(test_random *r, const op_scalar *s, int64_t groups) {
  static const struct {
    const char *name;
    double low, high;
  } ranges[] = {{"norm_epsilon", 0.01, 0.1},
                {"epsilon", 1e-6, 1e-2},
                {"alpha", -2, 2},
                {"beta", -2, 2},
                {"scale", 0.5, 2},
                {"rate", 0, 0.9},
                {"lr", 0, 1},
                {"beta1", 0, 0.99},
                {"beta2", 0, 0.99},
                {"weight_decay", 0, 0.5},
                {"gradient_scale", 0, 2},
                {"max_norm", 0, 2},
                {"step", 1, 100},
                {"chunk", 0, 20},
                {"window", 1, 20},
                {"theta", 1, 10000},
                {"rotary", 2, 3},
                {"steps", 0, 20},
                {"dt_min", 0, 0.1},
                {"dt_max", 0.1, 1},
                {"seed", 0, 1e6}};
  if (s->kind == OP_BOOL) return (double)chance(r, 50);
  if (strcmp(s->name, "n_groups") == 0) return (double)groups;
  if (strcmp(s->name, "top_groups") == 0) return (double)(1 + random_below(r, groups));
  if (s->kind == OP_CHOICE) return (double)random_below(r, (int64_t)s->high);
  if (s->kind == OP_COUNT && s->low == 0 && chance(r, 60)) return 0;
  for (size_t i = 0; i < TEST_COUNT(ranges); i++) {
    if (strcmp(ranges[i].name, s->name) != 0) continue;
    const double value = ranges[i].low + (ranges[i].high - ranges[i].low) * random_uniform(r);
    return s->kind == OP_NUMBER ? value : floor(value);
  }
  abort(); /* a new scalar: it needs a range */
}

static void draw_scalars(test_random *r, fuzz_call *c) {
  const op_scalar *s;
  double values[CATALOG_SCALARS];
  for (size_t i = 0; (s = catalog_scalar(c->choice.op->table, i)) != NULL; i++)
    if ((values[i] = draw_scalar(r, s, c->choice.groups)) != 0) c->choice.set |= catalog_bit(i);
  for (size_t i = 0; (s = catalog_scalar(c->choice.op->table, i)) != NULL; i++) {
    if (!catalog_allows(&c->choice, s)) c->choice.set &= ~catalog_bit(i);
    catalog_store(c->args, s, c->choice.set >> i & 1 ? values[i] : 0);
  }
}

/* ---- Mistakes ---- */

/* Whether another tensor of the call has this dimension too, so that one alone cannot be changed. */
static bool shared(const fuzz_call *c, size_t row, int dim) {
  static const char *const free[] = {/* these must divide, follow from others, or may be anything beyond them */
                                     "n_groups",      "kv_heads", "width - 1", "sequences", "cache rows",
                                     "sequences + 1", "pool",     "size",      "features"};
  const op_table *table = c->choice.op->table;
  int dims[CLM_MAX_RANK];
  if (c->choice.seconds >> row & 1 || (catalog_row(&c->choice, row)->shape && catalog_row(&c->choice, row)->shape_as))
    return false;
  catalog_dims(&c->choice, row, dims);
  const int changed = dims[dim];
  if (changed >= 0 && table->dims[changed].size) return true;
  for (size_t i = 0; changed >= 0 && i < TEST_COUNT(free); i++)
    if (strcmp(table->dims[changed].name, free[i]) == 0) return false;
  for (size_t i = 0; i < row_count(c->choice.op); i++) {
    if (i == row || !fuzz_present(c, i) || c->choice.seconds >> i & 1) continue;
    for (int k = catalog_dims(&c->choice, i, dims) - 1; k >= 0; k--)
      if (dims[k] == changed) return true;
  }
  return false;
}

static void note(fuzz_call *c, const char *wrong, const char *how) {
  c->wrong = wrong;
  snprintf(c->how, sizeof c->how, "%s: %s", wrong, how);
}

typedef enum mistake {
  UNKNOWN_DTYPE,
  OTHER_DTYPE,
  BAD_RANK,
  NO_ELEMENTS,
  OTHER_SIZE,
  TOO_MANY,
  UNALIGNED,
  PAST_THE_END,
  FAR_PAST_THE_END,
  NEGATIVE_STRIDE,
  HUGE_STRIDE,
  MISSING,
  FOREIGN,
  SHARED_OUTPUT,
  OVERLAP,
  BAD_SCALAR,
  MISTAKES
} mistake;

static bool bad_scalar(test_random *r, fuzz_call *c) {
  const op_table *table = c->choice.op->table;
  size_t count = 0;
  while (catalog_scalar(table, count)) count++;
  if (!count) return false;
  const op_scalar *s = catalog_scalar(table, (size_t)random_below(r, (int64_t)count));
  const bool low = chance(r, 50);
  if (s->with && !catalog_given(&c->choice, s->with)) return false;
  if (s->kind == OP_CHOICE) catalog_store(c->args, s, low ? -1 - (double)random_below(r, 9) : s->high);
  else if (!s->expected) return false;
  else if (s->kind == OP_NUMBER) catalog_store(c->args, s, low && s->low == 0 ? -1 : (double)NAN);
  else catalog_store(c->args, s, s->low - 1 - (double)random_below(r, 9));
  note(c, s->name, "a scalar out of range");
  return true;
}

/* Makes one thing wrong; false if it cannot be made here. */
static bool make(test_random *r, fuzz_call *c, mistake m, size_t row) {
  const op_tensor *info = catalog_row(&c->choice, row);
  fuzz_tensor *t = &c->tensors[row];
  clm_tensor *v = &t->view;
  const int dim = (int)random_below(r, v->rank);
  const size_t size = clm_dtype_size(v->dtype);
  switch (m) {
  case UNKNOWN_DTYPE:
    v->dtype = (clm_dtype)(chance(r, 50) ? 8 + random_below(r, 90) : -1 - random_below(r, 9));
    break;
  case OTHER_DTYPE: v->dtype = v->dtype == CLM_I32 ? CLM_F32 : CLM_I32; break;
  case BAD_RANK:
    v->rank = (int)(chance(r, 50) ? -random_below(r, 3) : CLM_MAX_RANK + 1 + random_below(r, 100));
    break;
  case NO_ELEMENTS: v->shape[dim] = -random_below(r, 5); break;
  case OTHER_SIZE:
    if (!shared(c, row, dim) || v->shape[dim] < 2) return false;
    v->shape[dim]--;
    break;
  case TOO_MANY:
    v->shape[dim] = INT64_MAX >> random_below(r, 4);
    v->stride[dim] = 0;
    break;
  case UNALIGNED:
    if (size == 1) return false;
    v->offset += 1 + (size_t)random_below(r, (int64_t)size - 1);
    break;
  case PAST_THE_END: v->offset = c->tensors[t->buffer].bytes; break;
  case FAR_PAST_THE_END: v->offset = SIZE_MAX / size * size - size * (size_t)random_below(r, 5); break;
  case NEGATIVE_STRIDE: v->stride[dim] = chance(r, 20) ? INT64_MIN : -1 - random_below(r, 5); break;
  case HUGE_STRIDE:
    if (v->shape[dim] < 2) return false;
    v->stride[dim] = INT64_MAX >> random_below(r, 40);
    break;
  case MISSING:
    if (!catalog_needs(&c->choice, row) || t->buffer != row) return false;
    for (size_t i = 0; i < row_count(c->choice.op); i++)
      if (i != row && fuzz_present(c, i) && c->tensors[i].buffer == row) return false;
    c->choice.present &= ~catalog_bit(row);
    break;
  case FOREIGN: t->foreign = true; break;
  case SHARED_OUTPUT:
    if (info->role == OP_IN || v->shape[dim] < 2) return false;
    v->stride[dim] = 0;
    break;
  case OVERLAP: {
    if (info->role == OP_IN) return false;
    size_t other = (size_t)random_below(r, (int64_t)row_count(c->choice.op));
    if (other == row || !fuzz_present(c, other) || c->tensors[other].bytes < t->bytes || t->buffer != row ||
        c->tensors[other].buffer != other || clm_dtype_size(c->tensors[other].view.dtype) != size)
      return false;
    const op_tensor *named = catalog_row(&c->choice, other);
    if (op_lists(info->may_be, named->name) || op_lists(named->may_be, info->name)) return false;
    for (size_t i = 0; i < row_count(c->choice.op); i++) /* what lies in its buffer stays there */
      if (i != row && fuzz_present(c, i) && c->tensors[i].buffer == row) return false;
    v->offset = c->tensors[other].view.offset;
    if (v->rank != c->tensors[other].view.rank) return false;
    memcpy(v->stride, c->tensors[other].view.stride, sizeof v->stride);
    for (int i = 0; i < v->rank; i++)
      if (v->shape[i] != c->tensors[other].view.shape[i] || (v->shape[i] > 1 && v->stride[i] == 0)) return false;
    t->buffer = other;
    break;
  }
  case BAD_SCALAR: return bad_scalar(r, c);
  case MISTAKES: return false;
  }
  static const char *const names[MISTAKES] = {
      "unknown dtype",
      "a dtype of another kind",
      "a rank that cannot be",
      "a size of 0 or less",
      "another size",
      "too many elements",
      "unaligned",
      "past the end",
      "far past the end",
      "negative stride",
      "huge stride",
      "missing",
      "of another context",
      "elements share memory",
      "overlaps another",
      "scalar",
  };
  note(c, info->name, names[m]);
  return true;
}

static size_t any_row(test_random *r, const fuzz_call *c) {
  size_t row;
  do row = (size_t)random_below(r, (int64_t)row_count(c->choice.op));
  while (!fuzz_present(c, row));
  return row;
}

static int64_t any_number(test_random *r) {
  static const int64_t numbers[] = {0,         1,        2, 3, 4, 5, 8, -1, 7, 16, 64, 1 << 20, INT64_C(1) << 40,
                                    INT64_MAX, INT64_MIN};
  return numbers[random_below(r, chance(r, 80) ? 7 : (int64_t)TEST_COUNT(numbers))];
}

/* One descriptor at random, whatever comes of it. */
static void scramble(test_random *r, fuzz_call *c) {
  const size_t row = any_row(r, c);
  fuzz_tensor *t = &c->tensors[row];
  clm_tensor *v = &t->view;
  c->wrong = "";
  c->poisoned = true;
  snprintf(c->how, sizeof c->how, "%s: anything", catalog_row(&c->choice, row)->name);
  c->incomparable |= c->choice.dtype[row] == CLM_I32; /* other indexes than were drawn */
  for (int64_t n = 1 + random_below(r, 3); n > 0; n--) switch (random_below(r, 6)) {
    case 0:
      v->dtype = (clm_dtype)random_below(r, 8);
      c->incomparable = true; /* the same bytes are numbers of any size now */
      break;
    case 1: v->rank = (int)random_below(r, CLM_MAX_RANK + 1); break;
    case 2: v->shape[random_below(r, CLM_MAX_RANK)] = any_number(r); break;
    case 3: v->stride[random_below(r, CLM_MAX_RANK)] = any_number(r); break;
    case 4: v->offset = (size_t)any_number(r); break;
    default: c->choice.present ^= catalog_bit(row); break;
    }
  /* A valid call, but of a million million numbers. */
  for (int i = 0; i < CLM_MAX_RANK; i++)
    if (v->stride[i] == 0 && v->shape[i] > 4096) v->stride[i] = 1;
}

static void spoil(test_random *r, fuzz_call *c) {
  for (int tries = 0; tries < 20; tries++) {
    fuzz_call before = *c;
    if (make(r, c, (mistake)random_below(r, MISTAKES), any_row(r, c))) return;
    memcpy(c->tensors, before.tensors, sizeof before.tensors);
    c->choice = before.choice;
  }
}

/* With negative steps states grow without bound. */
static bool grows(const fuzz_call *c) { return c->composed && !catalog_is_set(&c->choice, "delta_softplus"); }

void fuzz_draw(fuzz_call *c, uint64_t seed, uint64_t number) {
  test_random r = random_seeded(seed * UINT64_C(1000003) + number, "call");
  memset(c, 0, sizeof *c);
  draw_choice(&r, &c->choice);
  c->args = calloc(1, c->choice.op->op->args_size);
  if (!c->args) abort();
  draw_scalars(&r, c);
  catalog_settle(&c->choice);
  catalog_choose_dtypes(&c->choice, pick, &r);
  c->composed = strncmp(c->choice.op->op->name, "mamba_inner", strlen("mamba_inner")) == 0;
  c->grows = grows(c);
  /* What is rounded to 16 bits on the way to such states may be off by any amount. */
  c->incomparable = c->grows && (c->choice.storage == CLM_F16 || c->choice.storage == CLM_BF16);
  draw_layouts(&r, c);
  fill(&r, c);
  if (chance(&r, 28)) spoil(&r, c);
  else if (chance(&r, 20)) scramble(&r, c);
}

void fuzz_free(fuzz_call *c) {
  for (size_t i = 0; i < OP_TENSORS; i++) free(c->tensors[i].image);
  free(c->args);
}
