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
  static const char *const often[] = {"selective_scan", "selective_scan_backward", "causal_conv1d",
                                      "causal_conv1d_backward"};
  if (chance(r, 20)) {
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
  size[DIM_SEQUENCES] = size[DIM_BATCH];
  size[DIM_ENDS] = 0;
  size[DIM_ROWS] = small(r, 5, 20);
  size[DIM_COLUMNS] = small(r, 8, 40);
  size[DIM_INNER] = small(r, 6, 30);
  size[DIM_COUNT] = small(r, 9, 80);
  size[DIM_ONE] = 1;
}

static bool is_empty(const catalog_choice *c, const catalog_row *row) {
  for (int i = 0; i < row->rank; i++)
    if (c->size[row->dims[i]] == 0) return true;
  return false;
}

static void forget(catalog_choice *c, const char *name) {
  int row = catalog_find(c->op, name);
  if (row >= 0) c->present &= ~(1u << row);
}

static bool has(const catalog_choice *c, const char *name) {
  int row = catalog_find(c->op, name);
  return row >= 0 && (c->present >> row & 1);
}

static void draw_presence(test_random *r, catalog_choice *c) {
  const int likely = chance(r, 40) ? 95 : chance(r, 50) ? 60 : 25;
  for (size_t i = 0; c->op->rows[i].name; i++) {
    const catalog_row *row = &c->op->rows[i];
    if (!(row->flags & ROW_OPTIONAL) || chance(r, likely)) c->present |= 1u << i;
    if ((row->flags & ROW_STATIC) && chance(r, 25)) c->statics |= 1u << i;
    if ((row->flags & ROW_HALF_SUM) && chance(r, 50)) c->sums |= 1u << i;
  }
  if (has(c, "seq_idx") && has(c, "cu_seqlens")) forget(c, chance(r, 50) ? "seq_idx" : "cu_seqlens");
  if (has(c, "cu_seqlens")) {
    c->size[DIM_BATCH] = 1;
    c->size[DIM_SEQUENCES] = 1 + random_below(r, 4);
    c->size[DIM_ENDS] = c->size[DIM_SEQUENCES] + 1;
  } else {
    c->size[DIM_SEQUENCES] = c->size[DIM_BATCH];
  }
  for (size_t i = 0; c->op->rows[i].name; i++) {
    const catalog_row *row = &c->op->rows[i];
    if (is_empty(c, row) || (row->with && !has(c, row->with))) c->present &= ~(1u << i);
  }
}

static void draw_choice(test_random *r, catalog_choice *c) {
  static const clm_dtype storages[] = {CLM_F32, CLM_F16, CLM_BF16};
  c->op = draw_op(r);
  c->storage = storages[random_below(r, 3)];
  for (size_t i = 0; i < CATALOG_ROWS; i++) c->any[i] = storages[random_below(r, 3)];
  c->complex = c->op->may_be_complex && chance(r, 25);
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
    if (t->layout == LAYOUT_REPEATED && (row->role != TEST_IN || t->view.rank < 2)) t->layout = LAYOUT_CONTIGUOUS;
    t->buffer = i;
    lay_out(r, t, shape);
  }
  for (size_t i = 0; c->choice.op->rows[i].name; i++) { /* an output in the place of its input */
    const catalog_row *row = &c->choice.op->rows[i];
    int in = row->alias ? catalog_find(c->choice.op, row->alias) : -1;
    if (in < 0 || !fuzz_present(c, i) || !fuzz_present(c, (size_t)in) || !chance(r, 30)) continue;
    fuzz_tensor *t = &c->tensors[i], *of = &c->tensors[in];
    if (t->view.dtype != of->view.dtype || of->layout == LAYOUT_REPEATED || of->buffer != (size_t)in) continue;
    t->view = of->view;
    t->layout = of->layout;
    t->buffer = (size_t)in;
    t->bytes = 0;
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

static void fill_indexes(test_random *r, fuzz_call *c, size_t row) {
  const char *name = c->choice.op->rows[row].name;
  fuzz_tensor *t = &c->tensors[row];
  const int64_t count = count_of(&t->view), length = c->choice.size[DIM_LENGTH];
  const bool ends = strcmp(name, "cu_seqlens") == 0, numbers = strcmp(name, "seq_idx") == 0;
  const bool wild = ends && chance(r, 10); /* wrong, but must touch no other memory */
  int64_t bound = strcmp(name, "targets") == 0 ? c->choice.size[DIM_COLUMNS] : c->choice.size[DIM_ROWS], at = 0;
  c->incomparable |= wild;
  for (int64_t i = 0; i < count; i++) {
    int64_t value;
    if (wild) value = random_below(r, 1000) - 500;
    else if (ends) value = at = i == 0 ? 0 : i == count - 1 ? length : at + random_below(r, length - at + 1);
    else if (numbers) value = chance(r, 20) ? -1 : (at += chance(r, 25));
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
    const bool complex = t->view.dtype == CLM_C64;
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
    set_scalar(c->args, s, value);
    c->flags[i] = value != 0;
  }
  return log_A;
}

/* ---- Mistakes ---- */

/* Whether another tensor of the call has this dimension too, so that one alone cannot be changed. */
static bool shared(const fuzz_call *c, size_t row, int dim) {
  const catalog_row *changed = &c->choice.op->rows[row];
  if (c->choice.statics >> row & 1 || (changed->with && changed->role == TEST_OUT)) return false;
  const int64_t name = changed->dims[dim];
  if (name == DIM_GROUPS || name == DIM_HISTORY || name == DIM_SEQUENCES || name == DIM_ENDS) return false;
  if (name == DIM_ONE) return true;
  for (size_t i = 0; c->choice.op->rows[i].name; i++) {
    const catalog_row *other = &c->choice.op->rows[i];
    if (i == row || !fuzz_present(c, i) || c->choice.statics >> i & 1) continue;
    for (int k = 0; k < other->rank; k++)
      if (other->dims[k] == name) return true;
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
  const char *name = strrchr(s->name, '.');
  note(c, name ? name + 1 : s->name, "a scalar out of range");
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
    v->dtype = (clm_dtype)(chance(r, 50) ? 7 + random_below(r, 90) : -1 - random_below(r, 9));
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
  case UNALIGNED: v->offset += 1 + (size_t)random_below(r, (int64_t)size - 1); break;
  case PAST_THE_END: v->offset = c->tensors[t->buffer].bytes; break;
  case FAR_PAST_THE_END: v->offset = SIZE_MAX / size * size - size * (size_t)random_below(r, 5); break;
  case NEGATIVE_STRIDE: v->stride[dim] = chance(r, 20) ? INT64_MIN : -1 - random_below(r, 5); break;
  case HUGE_STRIDE:
    if (v->shape[dim] < 2) return false;
    v->stride[dim] = INT64_MAX >> random_below(r, 40);
    break;
  case MISSING:
    if ((info->flags & ROW_OPTIONAL) || t->buffer != row) return false;
    for (size_t i = 0; c->choice.op->rows[i].name; i++)
      if (i != row && fuzz_present(c, i) && c->tensors[i].buffer == row) return false;
    c->choice.present &= ~(1u << row);
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
    if ((info->alias && strcmp(info->alias, named->name) == 0) ||
        (named->alias && strcmp(named->alias, info->name) == 0) || strcmp(named->name, "residual") == 0)
      return false;
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
  snprintf(c->how, sizeof c->how, "%s: anything", c->choice.op->rows[row].name);
  c->incomparable |= c->choice.op->rows[row].kind == OF_INDEX; /* other indexes than were drawn */
  for (int64_t n = 1 + random_below(r, 3); n > 0; n--) switch (random_below(r, 6)) {
    case 0:
      v->dtype = (clm_dtype)random_below(r, 7);
      c->incomparable = true; /* the same bytes are numbers of any size now */
      break;
    case 1: v->rank = (int)random_below(r, CLM_MAX_RANK + 1); break;
    case 2: v->shape[random_below(r, CLM_MAX_RANK)] = any_number(r); break;
    case 3: v->stride[random_below(r, CLM_MAX_RANK)] = any_number(r); break;
    case 4: v->offset = (size_t)any_number(r); break;
    default: c->choice.present ^= 1u << row; return;
    }
}

static void spoil(test_random *r, fuzz_call *c) {
  for (int tries = 0; tries < 20; tries++) {
    fuzz_call before = *c;
    if (make(r, c, (mistake)random_below(r, MISTAKES), any_row(r, c))) return;
    memcpy(c->tensors, before.tensors, sizeof before.tensors);
    c->choice = before.choice;
  }
}

void fuzz_draw(fuzz_call *c, uint64_t seed, uint64_t number) {
  test_random r = random_seeded(seed * UINT64_C(1000003) + number, "call");
  memset(c, 0, sizeof *c);
  draw_choice(&r, &c->choice);
  c->args = calloc(1, c->choice.op->op->args_size);
  if (!c->args) abort();
  bool log_A = draw_scalars(&r, c);
  draw_layouts(&r, c);
  fill(&r, c, log_A);
  if (chance(&r, 30)) spoil(&r, c);
  else if (chance(&r, 20)) scramble(&r, c);
}

void fuzz_free(fuzz_call *c) {
  for (size_t i = 0; i < CATALOG_ROWS; i++) free(c->tensors[i].image);
  free(c->args);
}
