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
  while (op->rows[n].name) n++;
  return n;
}

/* ---- What the catalog leaves open ---- */

static const catalog_op *draw_op(test_random *r) {
  static const char *const often[] = {"selective_scan",       "selective_scan_backward",
                                      "causal_conv1d",        "causal_conv1d_backward",
                                      "mamba_inner",          "mamba_inner_backward",
                                      "mamba_inner_backward", "adamw",
                                      "assoc_scan",           "ssd",
                                      "ssd_backward"};
  if (chance(r, 25)) {
    const char *name = often[random_below(r, TEST_COUNT(often))];
    for (size_t i = 0; i < catalog_count; i++)
      if (strcmp(catalog[i].op->name, name) == 0) return &catalog[i];
  }
  return &catalog[random_below(r, (int64_t)catalog_count)];
}

static void draw_sizes(test_random *r, int64_t size[CATALOG_DIMS]) {
  size[DIM_BATCH] = 1 + random_below(r, 3);
  size[DIM_LENGTH] = small(r, 7, 40);
  size[DIM_CHANNELS] = small(r, 8, 36);
  size[DIM_STATES] = small(r, 5, 20);
  size[DIM_WIDTH] = small(r, 5, 18);
  size[DIM_HISTORY] = size[DIM_WIDTH] - 1;
  do size[DIM_GROUPS] = small(r, 3, size[DIM_CHANNELS]);
  while (size[DIM_CHANNELS] % size[DIM_GROUPS]);
  size[DIM_ROWS] = small(r, 5, 20);
  size[DIM_COLUMNS] = small(r, 8, 40);
  size[DIM_INNER] = small(r, 6, 30);
  size[DIM_COUNT] = small(r, 9, 80);
  size[DIM_ONE] = 1;
  size[DIM_STEPS] = chance(r, 50) ? NO_DIM : small(r, 4, 12);
  const bool heads = chance(r, 50);
  size[DIM_HEADS] = heads ? size[DIM_GROUPS] * small(r, 3, 8) : size[DIM_CHANNELS];
  size[DIM_HEAD_DIM] = heads ? small(r, 4, 20) : NO_DIM;
  size[DIM_SSD_DIM] = small(r, 4, 20);
  size[DIM_BOTH] = 2 * size[DIM_CHANNELS];
  size[DIM_RANK] = small(r, 3, 8);
  size[DIM_MODEL] = small(r, 6, 20);
}

static bool is_empty(const catalog_choice *c, size_t row) {
  int64_t shape[CLM_MAX_RANK];
  for (int i = catalog_shape(c, row, shape) - 1; i >= 0; i--)
    if (shape[i] == 0) return true;
  return false;
}

static void forget(catalog_choice *c, const char *name) {
  int row = catalog_find(c->op, name);
  if (row >= 0) c->present &= ~catalog_bit((size_t)row);
}

static bool has(const catalog_choice *c, const char *name) {
  int row = catalog_find(c->op, name);
  return row >= 0 && catalog_has(c, (size_t)row);
}

/* Sizes that follow from what is there. */
static void draw_rows(test_random *r, catalog_choice *c) {
  int64_t *size = c->size;
  if (has(c, "cu_seqlens")) {
    size[DIM_BATCH] = 1;
    size[DIM_SEQUENCES] = 1 + random_below(r, 4);
    size[DIM_ENDS] = size[DIM_SEQUENCES] + 1;
  } else {
    size[DIM_SEQUENCES] = size[DIM_BATCH];
  }
  size[DIM_POOL] = size[DIM_BATCH] + (has(c, "state_indices") ? random_below(r, 4) : 0);
  size[DIM_PLACES] = size[DIM_HISTORY] + random_below(r, 4);
  size[DIM_FEATURES] = catalog_features(c);
  if (!has(c, "out_proj")) size[DIM_MODEL] = size[DIM_CHANNELS];
}

static void draw_presence(test_random *r, catalog_choice *c) {
  const int likely = chance(r, 50) ? 95 : chance(r, 50) ? 60 : 25;
  for (size_t i = 0; c->op->rows[i].name; i++) {
    const catalog_row *row = &c->op->rows[i];
    if (!(row->flags & ROW_OPTIONAL) || chance(r, likely)) c->present |= catalog_bit(i);
    if ((row->flags & ROW_STATIC) && chance(r, 25)) c->statics |= catalog_bit(i);
    if ((row->flags & (ROW_EITHER | ROW_STATIC_EITHER)) && chance(r, 50)) c->others |= catalog_bit(i);
  }
  if (has(c, "x_proj")) { /* the norms are of what it makes */
    if (chance(r, 70)) forget(c, "B");
    if (chance(r, 70)) forget(c, "C");
  }
  if (has(c, "seq_idx") && has(c, "cu_seqlens")) forget(c, chance(r, 50) ? "seq_idx" : "cu_seqlens");
  draw_rows(r, c);
  for (size_t i = 0; c->op->rows[i].name; i++) {
    const catalog_row *row = &c->op->rows[i];
    if (is_empty(c, i) || (row->with && !has(c, row->with))) c->present &= ~catalog_bit(i);
  }
}

static void draw_choice(test_random *r, catalog_choice *c) {
  static const clm_dtype storages[] = {CLM_F32, CLM_F16, CLM_BF16, CLM_F64};
  c->op = draw_op(r);
  c->storage = storages[chance(r, 18) ? 3 : random_below(r, 3)];
  for (size_t i = 0; i < CATALOG_ROWS; i++) c->any[i] = storages[random_below(r, 4)];
  c->complex = c->op->may_be_complex && chance(r, catalog_find(c->op, "x_proj") >= 0 ? 15 : 40);
  draw_sizes(r, c->size);
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
  for (size_t i = 0; c->choice.op->rows[i].name; i++) {
    if (!fuzz_present(c, i)) continue;
    const catalog_row *row = &c->choice.op->rows[i];
    fuzz_tensor *t = &c->tensors[i];
    int64_t shape[CLM_MAX_RANK];
    t->view.rank = catalog_shape(&c->choice, i, shape);
    t->view.dtype = catalog_dtype(&c->choice, i);
    t->layout = same ? common : (fuzz_layout)random_below(r, FUZZ_LAYOUTS);
    if (row->flags & ROW_MATRIX && !lies_in_rows(t->layout)) t->layout = LAYOUT_CONTIGUOUS;
    if (t->layout == LAYOUT_REPEATED && (row->role != TEST_IN || t->view.rank < 2)) t->layout = LAYOUT_CONTIGUOUS;
    t->buffer = i;
    lay_out(r, t, shape);
  }
  bool taken[CATALOG_ROWS] = {false};
  for (size_t i = 0; c->choice.op->rows[i].name; i++) { /* an output in the place of an input */
    const catalog_row *row = &c->choice.op->rows[i];
    if (!row->alias || !fuzz_present(c, i)) continue;
    for (size_t in = 0; c->choice.op->rows[in].name; in++) {
      fuzz_tensor *t = &c->tensors[i], *of = &c->tensors[in];
      if (!catalog_may_be(row, c->choice.op->rows[in].name) || !fuzz_present(c, in) || taken[in] ||
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
  const int64_t pool = c->choice.size[DIM_POOL];
  int64_t next = random_below(r, pool);
  for (int64_t i = 0; i < count_of(&t->view); i++, next = (next + 1) % pool) {
    const int64_t value = !chance(r, 15) ? next : chance(r, 50) ? -1 - random_below(r, 9) : pool + random_below(r, 9);
    ((int32_t *)(void *)t->image)[element_at(&t->view, i)] = (int32_t)value;
  }
}

static void fill_indexes(test_random *r, fuzz_call *c, size_t row) {
  const char *name = c->choice.op->rows[row].name;
  fuzz_tensor *t = &c->tensors[row];
  if (strcmp(name, "state_indices") == 0) {
    fill_pool(r, c, row);
    return;
  }
  const int64_t count = count_of(&t->view), length = c->choice.size[DIM_LENGTH];
  const bool ends = strcmp(name, "cu_seqlens") == 0, numbers = strcmp(name, "seq_idx") == 0;
  const bool steps = strcmp(name, "cache_seqlens") == 0;
  const bool wild = (ends || steps) && chance(r, 10); /* wrong, but must touch no other memory */
  int64_t bound = strcmp(name, "targets") == 0 ? c->choice.size[DIM_COLUMNS] : c->choice.size[DIM_ROWS], at = 0;
  c->incomparable |= wild;
  for (int64_t i = 0; i < count; i++) {
    int64_t value;
    if (wild) value = chance(r, 10) ? INT32_MIN : random_below(r, 1000) - 500;
    else if (ends) value = at = i == 0 ? 0 : i == count - 1 ? length : at + random_below(r, length - at + 1);
    else if (numbers) value = chance(r, 20) ? -1 : (at += chance(r, 25));
    else if (steps) value = chance(r, 90) ? random_below(r, 40) : INT32_MAX - random_below(r, 40);
    else value = chance(r, 12) ? -1 : random_below(r, bound);
    ((int32_t *)(void *)t->image)[element_at(&t->view, i)] = (int32_t)value;
  }
}

static double one(test_random *r, const catalog_row *row, bool log_A, bool complex) {
  if (strcmp(row->name, "A") == 0 && complex) return -0.5 * exp(0.5 * random_normal(r));
  if (strcmp(row->name, "A") == 0 && log_A) return random_normal(r);
  return row->draw ? row->draw(r) : random_normal(r);
}

static void fill(test_random *r, fuzz_call *c, bool log_A) {
  for (size_t i = 0; c->choice.op->rows[i].name; i++) {
    const catalog_row *row = &c->choice.op->rows[i];
    fuzz_tensor *t = &c->tensors[i];
    if (!fuzz_present(c, i) || t->buffer != i) continue;
    t->image = malloc(t->bytes);
    if (!t->image) abort();
    memset(t->image, 0xff, t->bytes); /* not a number in every floating dtype */
    if (row->role == TEST_OUT) continue;
    if (row->kind == OF_INDEX) {
      fill_indexes(r, c, i);
      continue;
    }
    const bool complex = t->view.dtype == CLM_C64 || t->view.dtype == CLM_C128;
    const int64_t count = count_of(&t->view);
    for (int64_t k = 0; k < count; k++)
      for (int part = 0; part <= complex; part++)
        number_set(t->view.dtype, t->image, (size_t)(element_at(&t->view, k) * (1 + complex) + part),
                   one(r, row, log_A, complex));
  }
}

/* ---- Scalars ---- */

static void set_scalar(void *args, const catalog_scalar *s, double value) {
  void *at = (char *)args + s->member;
  switch (s->kind) {
  case SCALAR_BOOL: *(bool *)at = value != 0; break;
  case SCALAR_CHOICE: *(int *)at = (int)value; break;
  case SCALAR_FLOAT: *(float *)at = (float)value; break;
  case SCALAR_INT64: *(int64_t *)at = (int64_t)value; break;
  }
}

/* Whether A holds its logarithm. */
static bool draw_scalars(test_random *r, fuzz_call *c) {
  const catalog_op *op = c->choice.op;
  bool log_A = false;
  for (size_t i = 0; op->scalars[i].name; i++) {
    const catalog_scalar *s = &op->scalars[i];
    double value = s->kind == SCALAR_BOOL    ? (double)chance(r, 50)
                   : s->kind == SCALAR_FLOAT ? s->low + (s->high - s->low) * random_uniform(r)
                                             : s->low + (double)random_below(r, (int64_t)(s->high - s->low) + 1);
    if (s->kind == SCALAR_INT64 && s->low == 0 && chance(r, 60)) value = 0;
    if (strstr(s->name, "A_is_log")) {
      if (c->choice.complex) value = 0;
      log_A = value != 0;
    }
    if (!catalog_allows(&c->choice, s)) value = 0;
    set_scalar(c->args, s, value);
    c->flags[i] = value != 0;
    if (!c->flags[i]) catalog_unset(&c->choice, catalog_scalar_name(s));
  }
  return log_A;
}

/* ---- Mistakes ---- */

/* Whether another tensor of the call has this dimension too, so that one alone cannot be changed. */
static bool shared(const fuzz_call *c, size_t row, int dim) {
  const catalog_row *changed = &c->choice.op->rows[row];
  catalog_dim dims[CLM_MAX_RANK];
  if (c->choice.statics >> row & 1 || (changed->with && changed->role == TEST_OUT)) return false;
  catalog_dims(&c->choice, row, dims);
  const catalog_dim name = dims[dim];
  switch (name) { /* these must divide, follow from others, or may be anything beyond them */
  case DIM_GROUPS:
  case DIM_HISTORY:
  case DIM_SEQUENCES:
  case DIM_ENDS:
  case DIM_POOL:
  case DIM_PLACES:
  case DIM_FEATURES: return false;
  case DIM_ONE: return true;
  default: break;
  }
  for (size_t i = 0; c->choice.op->rows[i].name; i++) {
    if (i == row || !fuzz_present(c, i) || c->choice.statics >> i & 1) continue;
    for (int k = catalog_dims(&c->choice, i, dims) - 1; k >= 0; k--)
      if (dims[k] == name) return true;
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
  size_t count = 0;
  while (c->choice.op->scalars[count].name) count++;
  if (!count) return false;
  const catalog_scalar *s = &c->choice.op->scalars[random_below(r, (int64_t)count)];
  if (s->unchecked) return false;
  const bool low = chance(r, 50);
  if (s->kind == SCALAR_CHOICE) set_scalar(c->args, s, low ? -1 - (double)random_below(r, 9) : s->high + 1);
  else if (s->kind == SCALAR_FLOAT) set_scalar(c->args, s, low ? -1 : (double)NAN);
  else set_scalar(c->args, s, s->low - 1 - (double)random_below(r, 9));
  note(c, catalog_scalar_name(s), "a scalar out of range");
  return true;
}

/* Makes one thing wrong; false if it cannot be made here. */
static bool make(test_random *r, fuzz_call *c, mistake m, size_t row) {
  const catalog_row *info = &c->choice.op->rows[row];
  fuzz_tensor *t = &c->tensors[row];
  clm_tensor *v = &t->view;
  const int dim = (int)random_below(r, v->rank);
  const size_t size = clm_dtype_size(v->dtype);
  switch (m) {
  case UNKNOWN_DTYPE:
    v->dtype = (clm_dtype)(chance(r, 50) ? 8 + random_below(r, 90) : -1 - random_below(r, 9));
    break;
  case OTHER_DTYPE: v->dtype = info->kind == OF_INDEX ? CLM_F32 : CLM_I32; break;
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
    if ((info->flags & ROW_OPTIONAL) || t->buffer != row) return false;
    if (info->dims[info->rank - 1] == DIM_PLACES && c->choice.size[DIM_WIDTH] == 1) return false; /* may be absent */
    for (size_t i = 0; c->choice.op->rows[i].name; i++)
      if (i != row && fuzz_present(c, i) && c->tensors[i].buffer == row) return false;
    c->choice.present &= ~catalog_bit(row);
    break;
  case FOREIGN: t->foreign = true; break;
  case SHARED_OUTPUT:
    if (info->role == TEST_IN || v->shape[dim] < 2) return false;
    v->stride[dim] = 0;
    break;
  case OVERLAP: {
    if (info->role == TEST_IN) return false;
    size_t other = (size_t)random_below(r, (int64_t)row_count(c->choice.op));
    if (other == row || !fuzz_present(c, other) || c->tensors[other].bytes < t->bytes || t->buffer != row ||
        c->tensors[other].buffer != other || clm_dtype_size(c->tensors[other].view.dtype) != size)
      return false;
    const catalog_row *named = &c->choice.op->rows[other];
    if (catalog_may_be(info, named->name) || catalog_may_be(named, info->name)) return false;
    for (size_t i = 0; c->choice.op->rows[i].name; i++) /* what lies in its buffer stays there */
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
  snprintf(c->how, sizeof c->how, "%s: anything", c->choice.op->rows[row].name);
  c->incomparable |= c->choice.op->rows[row].kind == OF_INDEX; /* other indexes than were drawn */
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
static bool grows(const fuzz_call *c) {
  for (size_t i = 0; c->composed && c->choice.op->scalars[i].name; i++)
    if (strcmp(catalog_scalar_name(&c->choice.op->scalars[i]), "delta_softplus") == 0) return !c->flags[i];
  return false;
}

void fuzz_draw(fuzz_call *c, uint64_t seed, uint64_t number) {
  test_random r = random_seeded(seed * UINT64_C(1000003) + number, "call");
  memset(c, 0, sizeof *c);
  draw_choice(&r, &c->choice);
  c->args = calloc(1, c->choice.op->op->args_size);
  if (!c->args) abort();
  bool log_A = draw_scalars(&r, c);
  c->composed = strncmp(c->choice.op->op->name, "mamba_inner", strlen("mamba_inner")) == 0;
  c->grows = grows(c);
  /* What is rounded to halves on the way to such states may be off by any amount. */
  c->incomparable = c->grows && (c->choice.storage == CLM_F16 || c->choice.storage == CLM_BF16);
  draw_layouts(&r, c);
  fill(&r, c, log_A);
  if (chance(&r, 28)) spoil(&r, c);
  else if (chance(&r, 20)) scramble(&r, c);
}

void fuzz_free(fuzz_call *c) {
  for (size_t i = 0; i < CATALOG_ROWS; i++) free(c->tensors[i].image);
  free(c->args);
}
