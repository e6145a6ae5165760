#include "arguments.h"
#include <string.h>

enum { MAX_CALLS = 48 };
valid_call valid_calls[MAX_CALLS];
size_t valid_call_count;

static void choose_sizes(catalog_choice *c) {
  static const struct {
    const char *name;
    int64_t size;
  } sizes[] = {{"batch", 2},     {"length", 3},  {"d_inner", 6},
               {"channels", 6},  {"d_state", 5}, {"n_groups", 2},
               {"width", 4},     {"size", 3},    {"dt_rank", 2},
               {"d_model", 6},   {"rows", 3},    {"dim", 4},
               {"vocab", 4},     {"count", 7},   {"m", 3},
               {"k", 4},         {"n", 5},       {"steps", NO_DIM},
               {"pool", 2},      {"n_heads", 4}, {"head_dim", NO_DIM},
               {"sequences", 2}, {"keys", 5},    {"kv_heads", 2},
               {"tokens", 3},    {"experts", 5}, {"chosen", 2}};
  static const int64_t any_shape[CATALOG_ANY_RANK] = {3, 4, 2};
  for (size_t i = 0; i < TEST_COUNT(sizes); i++) catalog_resize(c, sizes[i].name, sizes[i].size);
  if (!catalog_size(c, "d_inner")) catalog_resize(c, "head_dim", 2); /* heads that are no channels */
  memcpy(c->any_shape, any_shape, sizeof any_shape);
  c->groups = 2;
}

static bool is_any(const char *name, const char *const *names, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (strcmp(name, names[i]) == 0) return true;
  return false;
}

static void choose_tensors(catalog_choice *c) {
  static const char *const left_out[] = {"seq_idx", "cu_seqlens", "state_indices", "cache_seqlens", "offsets",
                                         "B",       "C"};
  const op_tensor *t;
  for (size_t i = 0; (t = catalog_row(c, i)) != NULL; i++)
    if (!(t->flags & OP_OPTIONAL) || !is_any(t->name, left_out, TEST_COUNT(left_out))) c->present |= catalog_bit(i);
}

static void choose_scalars(catalog_choice *c, void *args) {
  static const char *const left_out[] = {"accumulate", "reverse", "exclusive", "dt_min", "dt_max"};
  const op_scalar *s;
  for (size_t i = 0; (s = catalog_scalar(c->op->table, i)) != NULL; i++) {
    if (is_any(s->name, left_out, TEST_COUNT(left_out))) continue;
    if (s->kind == OP_BOOL) c->set |= catalog_bit(i);
    catalog_store(args, s,
                  s->kind == OP_BOOL              ? 1
                  : strcmp(s->name, "theta") == 0 ? 100
                  : s->kind == OP_NUMBER          ? 0.5
                                                  : s->low);
  }
}

static clm_dtype pick(void *user, const op_tensor *t, unsigned dtypes) {
  (void)user, (void)t;
  return (clm_dtype)__builtin_ctz(dtypes); /* f32, where the tensor may be */
}

static void add(const catalog_op *op) {
  valid_call *call = &valid_calls[valid_call_count++];
  catalog_choice *c = &call->choice;
  void *args = calloc(1, op->op->args_size);
  if (!args) abort();
  c->op = op;
  choose_sizes(c);
  choose_tensors(c);
  choose_scalars(c, args);
  catalog_settle(c);
  catalog_choose_dtypes(c, pick, NULL);
  call->problem = (test_problem){.op = op->op, .args = args, .seed = 121, .tolerance = 1e-5};
  const op_tensor *t;
  for (size_t i = 0; (t = catalog_row(c, i)) != NULL; i++) {
    if (!catalog_has(c, i)) continue;
    call->rows[call->problem.count] = i;
    test_tensor tensor = {.name = t->name,
                          .member = t->member,
                          .role = (test_role)catalog_role(c, i),
                          .kind = c->dtype[i] == CLM_I32 ? TEST_INDEX : TEST_STORAGE,
                          .draw = catalog_draw_of(c, i),
                          .bound = 2};
    tensor.rank = catalog_shape(c, i, tensor.shape);
    problem_add(&call->problem, tensor);
  }
}

void valid_calls_init(void) {
  if (catalog_count > MAX_CALLS) abort();
  for (size_t i = 0; i < catalog_count; i++) add(&catalog[i]);
}

valid_call *valid_call_of(const char *op) {
  for (size_t i = 0; i < valid_call_count; i++)
    if (strcmp(valid_calls[i].problem.op->name, op) == 0) return &valid_calls[i];
  abort();
}
