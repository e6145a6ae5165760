/* Random calls of every public operation on the CPU backend, or on one device: each gives what the reference gives,
 * or fails cleanly: a message that names the argument, nothing written.
 *
 *   fuzz [CASES [SEED [DEVICE]]]       the whole run: also counts what succeeded
 *   fuzz --case NUMBER [SEED [DEVICE]] one call, printed */
#include "call.h"
#include "numbers.h"
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LEVELS = 8, MAX_SHOWN = 20 };

static clm_context *reference, *levels[MAX_LEVELS];
static size_t level_count;
static bool verbose;

static clm_context *open_level(const char *level, int threads) {
  clm_context *context = NULL;
  clm_context_options options = {.device = "cpu", .cpu_level = level, .threads = threads};
  return clm_context_create(&options, &context) == CLM_OK ? context : NULL;
}

static void open_cpu(void) {
  static const char *const names[] = {"baseline", "avx2", "avx512", "avx512vnni", "neon"};
  for (size_t i = 0; i < TEST_COUNT(names); i++) {
    clm_context *context = open_level(names[i], 1);
    if (context) levels[level_count++] = context;
  }
  levels[level_count++] = open_level(NULL, 3); /* the best one, with threads that must agree */
}

static void open_device(const char *device) {
  char error[256] = "";
  clm_context_options options = {.device = device, .error = error, .error_size = sizeof error};
  if (clm_context_create(&options, &levels[level_count++])) fprintf(stderr, "fuzz: %s\n", error);
}

/* `device` NULL: every level of the CPU backend. */
static void open_levels(const char *device) {
  if (device) open_device(device);
  else open_cpu();
  reference = open_level("reference", 1);
  if (reference && levels[level_count - 1]) return;
  fprintf(stderr, "fuzz: no context\n");
  exit(EXIT_FAILURE);
}

/* ---- A call on a context ---- */

typedef struct bound {
  clm_context *context;
  clm_buffer *buffers[OP_TENSORS];
  clm_tensor views[OP_TENSORS];
  void *args;
} bound;

static void must(clm_status status, clm_context *context, const char *what) {
  if (status == CLM_OK) return;
  fprintf(stderr, "fuzz: %s: %s\n", what, clm_context_error(context));
  exit(EXIT_FAILURE);
}

static void bind(bound *b, const fuzz_call *c, clm_context *context, const bound *foreign) {
  const catalog_op *op = c->choice.op;
  memset(b, 0, sizeof *b);
  b->context = context;
  b->args = malloc(op->op->args_size);
  if (!b->args) abort();
  memcpy(b->args, c->args, op->op->args_size);
  for (size_t i = 0; op_tensor_at(op->table, i); i++) {
    const fuzz_tensor *t = &c->tensors[i];
    if (!t->image) continue;
    must(clm_buffer_create(context, t->bytes, &b->buffers[i]), context, "buffer");
    must(clm_buffer_write(b->buffers[i], 0, t->bytes, t->image), context, "buffer");
  }
  for (size_t i = 0; op_tensor_at(op->table, i); i++) {
    const fuzz_tensor *t = &c->tensors[i];
    if (!fuzz_present(c, i)) continue;
    b->views[i] = t->view;
    b->views[i].buffer = (t->foreign && foreign ? foreign : b)->buffers[t->buffer];
    *(clm_tensor *)(void *)((char *)b->args + op_tensor_at(op->table, i)->member) = b->views[i];
  }
}

static void unbind(bound *b) {
  for (size_t i = 0; i < OP_TENSORS; i++) clm_buffer_destroy(&b->buffers[i]);
  free(b->args);
}

/* ---- Complaints ---- */

static uint64_t seed = 1, now, complaints;

static void describe(const fuzz_call *c) {
  const catalog_op *op = c->choice.op;
  printf("case %llu: %s, %s%s; wrong: %s\n", (unsigned long long)now, op->op->name, clm_dtype_name(c->choice.storage),
         c->choice.complex ? ", complex" : "", c->wrong ? c->how : "nothing");
  for (size_t i = 0; op_tensor_at(op->table, i); i++) {
    if (!fuzz_present(c, i)) continue;
    const fuzz_tensor *t = &c->tensors[i];
    printf("  %-14s dtype %d offset %zu rank %d:", op_tensor_at(op->table, i)->name, (int)t->view.dtype,
           t->view.offset, t->view.rank);
    for (int k = 0; k < CLM_MAX_RANK && k < t->view.rank; k++)
      printf(" %lld/%lld", (long long)t->view.shape[k], (long long)t->view.stride[k]);
    printf("%s%s\n", t->buffer == i ? "" : " in the buffer of ",
           t->buffer == i ? "" : op_tensor_at(op->table, t->buffer)->name);
  }
  printf(" ");
  for (size_t i = 0; catalog_scalar(op->table, i); i++)
    if (c->choice.set >> i & 1) printf(" %s", catalog_scalar(op->table, i)->name);
  printf("\n");
}

static void complain(const fuzz_call *c, const char *what, const char *detail) {
  if (++complaints > MAX_SHOWN) return;
  describe(c);
  printf("  FAILED: %s: %s\n", what, detail);
}

/* ---- Comparing ---- */

static bool names(const char *message, const char *name) {
  const size_t length = strlen(name);
  for (const char *at = message; (at = strstr(at, name)) != NULL; at += length) {
    bool begins = at == message || !(isalnum((unsigned char)at[-1]) || at[-1] == '_');
    bool ends = !(isalnum((unsigned char)at[length]) || at[length] == '_');
    if (begins && ends) return true;
  }
  return false;
}

static bool names_any(const char *message, const catalog_op *op) {
  for (size_t i = 0; op_tensor_at(op->table, i); i++)
    if (names(message, op_tensor_at(op->table, i)->name)) return true;
  return false;
}

/* "op: ", or that of its other direction, whose checks it shares. */
static bool begins_with_op(const char *message, const char *op) {
  size_t length = strcspn(message, ":");
  return message[length] == ':' && strncmp(message, op, length) == 0;
}

static unsigned char *contents(clm_buffer *buffer, clm_context *context) {
  unsigned char *memory = malloc(clm_buffer_size(buffer));
  if (!memory) abort();
  must(clm_buffer_read(buffer, 0, clm_buffer_size(buffer), memory), context, "read");
  return memory;
}

static void check_unwritten(const fuzz_call *c, const bound *b) {
  for (size_t i = 0; i < OP_TENSORS; i++) {
    if (!b->buffers[i]) continue;
    unsigned char *memory = contents(b->buffers[i], b->context);
    if (memcmp(memory, c->tensors[i].image, c->tensors[i].bytes) != 0)
      complain(c, "a call that failed wrote to", catalog_row(&c->choice, i)->name);
    free(memory);
  }
}

static void check_message(const fuzz_call *c, clm_status status, const char *message) {
  if (status != CLM_INVALID_ARGUMENT && status != CLM_UNSUPPORTED) complain(c, "status", clm_status_string(status));
  if (!begins_with_op(message, c->choice.op->op->name)) complain(c, "the message does not name the call", message);
  if (status == CLM_INVALID_ARGUMENT &&
      !(c->wrong && *c->wrong ? names(message, c->wrong) : names_any(message, c->choice.op)))
    complain(c, "the message does not name the argument", message);
}

static bool has_integers(const fuzz_call *c) {
  for (size_t i = 0; catalog_row(&c->choice, i); i++)
    if (fuzz_present(c, i) && c->choice.dtype[i] == CLM_I8) return true;
  return false;
}

/* In addition to one rounding of the output. Against integers some levels round the activations to 15 bits. */
static double tolerance(const fuzz_call *c, clm_dtype dtype) {
  const double f32 = has_integers(c) ? 5e-4 : 2e-5;
  const double one = dtype == CLM_F16 ? 1e-3 : dtype == CLM_BF16 ? 8e-3 : f32;
  if (!c->composed) return one;
  const clm_dtype between = c->choice.storage; /* of what passes between the pieces */
  return 8 * (between == CLM_F16 ? 1e-3 : between == CLM_BF16 ? 8e-3 : one);
}

typedef struct walk {
  size_t count, parts; /* numbers; 2 in an element of a complex tensor */
} walk;

static walk walk_of(const clm_tensor *v) {
  walk w = {1, v->dtype == CLM_C64 || v->dtype == CLM_C128 ? 2 : 1};
  for (int i = 0; i < v->rank; i++) w.count *= (size_t)v->shape[i];
  w.count *= w.parts;
  return w;
}

static size_t number_at(const clm_tensor *v, const walk *w, size_t k) {
  int64_t element = (int64_t)(k / w->parts), at = (int64_t)(v->offset / clm_dtype_size(v->dtype));
  for (int dim = v->rank - 1; dim >= 0; dim--) {
    at += element % v->shape[dim] * v->stride[dim];
    element /= v->shape[dim];
  }
  return (size_t)at * w->parts + k % w->parts;
}

static void compare(const fuzz_call *c, size_t row, const unsigned char *got, const unsigned char *want) {
  const clm_tensor *v = &c->tensors[row].view;
  const walk w = walk_of(v);
  double square = 0;
  for (size_t k = 0; k < w.count; k++) {
    double x = number_get(v->dtype, want, number_at(v, &w, k));
    if (isfinite(x)) square += x * x;
  }
  const double scale = sqrt(square / (double)w.count) + 0.3;
  for (size_t k = 0; k < w.count; k++) {
    double a = number_get(v->dtype, got, number_at(v, &w, k)), b = number_get(v->dtype, want, number_at(v, &w, k));
    if (c->grows && !(fabs(a) < 1e20 && fabs(b) < 1e20)) continue;
    if (c->poisoned && (isnan(a) || isnan(b))) continue;
    if (a == b || (isnan(a) && isnan(b)) || fabs(a - b) <= tolerance(c, v->dtype) * (fabs(b) + scale)) continue;
    char detail[200];
    snprintf(detail, sizeof detail, "%s number %zu is %.9g, the reference gives %.9g",
             catalog_row(&c->choice, row)->name, k, a, b);
    complain(c, "result", detail);
    return;
  }
}

/* What the call may have written counts as unchanged; the rest must be. */
static void check_untouched(const fuzz_call *c, size_t buffer, unsigned char *memory) {
  const unsigned char *image = c->tensors[buffer].image;
  for (size_t i = 0; catalog_row(&c->choice, i); i++) {
    const clm_tensor *v = &c->tensors[i].view;
    if (!fuzz_present(c, i) || c->tensors[i].buffer != buffer || catalog_row(&c->choice, i)->role == OP_IN) continue;
    const walk w = walk_of(v);
    const size_t size = clm_dtype_size(v->dtype) / w.parts;
    for (size_t k = 0; k < w.count; k++) {
      size_t at = number_at(v, &w, k) * size;
      memcpy(memory + at, image + at, size);
    }
  }
  if (memcmp(memory, image, c->tensors[buffer].bytes) != 0)
    complain(c, "wrote outside of its tensors, into the buffer of", catalog_row(&c->choice, buffer)->name);
}

static void check_results(const fuzz_call *c, const bound *got, const bound *want) {
  for (size_t buffer = 0; buffer < OP_TENSORS; buffer++) {
    if (!got->buffers[buffer]) continue;
    unsigned char *a = contents(got->buffers[buffer], got->context),
                  *b = contents(want->buffers[buffer], want->context);
    for (size_t i = 0; catalog_row(&c->choice, i); i++)
      if (fuzz_present(c, i) && c->tensors[i].buffer == buffer && catalog_row(&c->choice, i)->role != OP_IN &&
          !c->incomparable)
        compare(c, i, a, b);
    check_untouched(c, buffer, a);
    free(a);
    free(b);
  }
}

/* ---- Counting ---- */

static uint64_t succeeded, refused, unsupported, ops_done[64], dtypes_done[8], layouts_done[FUZZ_LAYOUTS],
    flags_done[64][CATALOG_SCALARS], optionals_done[64][OP_TENSORS], in_place;

static void count(const fuzz_call *c) {
  const catalog_op *op = c->choice.op;
  const size_t number = (size_t)(op - catalog);
  bool dtypes[8] = {false}, layouts[FUZZ_LAYOUTS] = {false}, shares = false;
  succeeded++;
  ops_done[number]++;
  for (size_t i = 0; op_tensor_at(op->table, i); i++) {
    if (!fuzz_present(c, i)) continue;
    dtypes[c->tensors[i].view.dtype & 7] = true;
    layouts[c->tensors[i].layout] = true;
    shares |= c->tensors[i].buffer != i;
    optionals_done[number][i]++;
  }
  for (size_t i = 0; i < 8; i++) dtypes_done[i] += dtypes[i];
  for (size_t i = 0; i < FUZZ_LAYOUTS; i++) layouts_done[i] += layouts[i];
  for (size_t i = 0; catalog_scalar(op->table, i); i++) flags_done[number][i] += c->choice.set >> i & 1;
  in_place += shares;
}

static bool enough(const char *what, const char *name, uint64_t have, uint64_t want) {
  printf("  %-10s %-28s %7llu%s\n", what, name, (unsigned long long)have, have < want ? "  TOO FEW" : "");
  return have >= want;
}

/* A scalar or optional tensor is counted over all operations that have one of its name. */
static bool enough_scalars(uint64_t want) {
  bool all = true;
  const op_scalar *s, *other;
  for (size_t o = 0; o < catalog_count; o++)
    for (size_t i = 0; (s = catalog_scalar(catalog[o].table, i)) != NULL; i++) {
      uint64_t sum = 0;
      bool first = true;
      for (size_t p = 0; p < catalog_count; p++)
        for (size_t k = 0; (other = catalog_scalar(catalog[p].table, k)) != NULL; k++) {
          if (strcmp(other->name, s->name) != 0) continue;
          sum += flags_done[p][k];
          first &= p > o || (p == o && k >= i);
        }
      if (first) all &= enough("scalar", s->name, sum, want);
    }
  return all;
}

static bool enough_optionals(uint64_t want) {
  bool all = true;
  const op_tensor *t, *other;
  for (size_t o = 0; o < catalog_count; o++)
    for (size_t i = 0; (t = op_tensor_at(catalog[o].table, i)) != NULL; i++) {
      uint64_t sum = 0;
      bool first = (t->flags & OP_OPTIONAL) != 0;
      for (size_t p = 0; p < catalog_count; p++)
        for (size_t k = 0; (other = op_tensor_at(catalog[p].table, k)) != NULL; k++) {
          if (!(other->flags & OP_OPTIONAL) || strcmp(other->name, t->name) != 0) continue;
          sum += optionals_done[p][k];
          first &= p > o || (p == o && k >= i);
        }
      if (first) all &= enough("optional", t->name, sum, want);
    }
  return all;
}

/* What is no argument of its own: the second of two shapes, a dtype beside the main tensor's, steps and heads. */
typedef enum form { FORM_SECOND, FORM_OTHER, FORM_STEPS, FORM_HEADS, FORMS } form;
static uint64_t forms_done[FORMS];

static void count_forms(const fuzz_call *c) {
  const op_table *table = c->choice.op->table;
  bool done[FORMS] = {false};
  for (size_t i = 0; op_tensor_at(table, i); i++) {
    int dims[CLM_MAX_RANK];
    if (!fuzz_present(c, i)) continue;
    done[FORM_SECOND] |= c->choice.seconds >> i & 1;
    const clm_dtype dtype = c->choice.dtype[i];
    done[FORM_OTHER] |= !op_is_complex(dtype) && dtype != CLM_I32 && dtype != c->choice.storage;
    for (int k = catalog_dims(&c->choice, i, dims) - 1; k >= 0 && dims[k] >= 0; k--) {
      done[FORM_STEPS] |= strcmp(table->dims[dims[k]].name, "steps") == 0;
      done[FORM_HEADS] |= strcmp(table->dims[dims[k]].name, "head_dim") == 0;
    }
  }
  for (int i = 0; i < FORMS; i++) forms_done[i] += done[i];
}

enum { WHOLE_RUN = 160000, EACH = 1000 }; /* calls, and how often each thing must have succeeded in them */

static bool report(uint64_t cases) {
  static const char *const layouts[FUZZ_LAYOUTS] = {"contiguous", "padded",   "transposed", "wide",
                                                    "spread",     "repeated", "permuted"};
  static const char *const forms[FORMS] = {"the second shape", "another dtype", "several steps", "heads"};
  static const clm_dtype dtypes[] = {CLM_F32, CLM_F16, CLM_BF16, CLM_F64, CLM_C64, CLM_C128, CLM_I32, CLM_I8};
  /* Of a shorter run its part, less what few calls scatter. */
  const double part = fmin(EACH * (double)cases / WHOLE_RUN, EACH);
  const uint64_t want = (uint64_t)(part < EACH ? fmax(0, part - 4 * sqrt(part)) : part);
  printf("%llu calls: %llu succeeded, %llu refused, %llu not supported, %llu complaints\n", (unsigned long long)cases,
         (unsigned long long)succeeded, (unsigned long long)refused, (unsigned long long)unsupported,
         (unsigned long long)complaints);
  bool all = enough("succeeded", "in all", succeeded, cases * 3 / 10);
  for (size_t i = 0; i < catalog_count; i++) all &= enough("operation", catalog[i].op->name, ops_done[i], want);
  for (size_t i = 0; i < TEST_COUNT(dtypes); i++)
    all &= enough("dtype", clm_dtype_name(dtypes[i]), dtypes_done[dtypes[i]], want);
  for (size_t i = 0; i < FUZZ_LAYOUTS; i++) all &= enough("layout", layouts[i], layouts_done[i], want);
  all &= enough("layout", "in place", in_place, want);
  for (size_t i = 0; i < FORMS; i++) all &= enough("form", forms[i], forms_done[i], want);
  all &= enough_scalars(want);
  return enough_optionals(want) && all;
}

/* ---- One call ---- */

static void run(uint64_t number) {
  fuzz_call c;
  bound got, want;
  now = number;
  fuzz_draw(&c, seed, number);
  if (verbose) describe(&c);
  bind(&want, &c, reference, NULL);
  bind(&got, &c, levels[number % level_count], &want);
  const clm_status status = c.choice.op->op->call(got.context, got.args);
  if (status == CLM_OK) {
    must(clm_context_finish(got.context), got.context, "finish");
    if (c.wrong && *c.wrong) complain(&c, "succeeded", c.how);
    const clm_status expected = c.choice.op->op->call(want.context, want.args);
    if (expected) complain(&c, "the reference refuses it", clm_context_error(want.context));
    else check_results(&c, &got, &want);
    count(&c);
    count_forms(&c);
  } else {
    const char *message = clm_context_error(got.context);
    if (verbose) printf("  %s\n", message);
    if (!c.wrong) {
      if (status != CLM_UNSUPPORTED) complain(&c, "a valid call was refused", message);
    } else if (*c.wrong && status == CLM_UNSUPPORTED) {
      complain(&c, "an invalid call is called unsupported", message);
    }
    check_message(&c, status, message);
    check_unwritten(&c, &got);
    if (status == CLM_UNSUPPORTED) unsupported++;
    else refused++;
  }
  unbind(&got);
  unbind(&want);
  fuzz_free(&c);
}

int main(int argc, char **argv) {
  const bool single = argc > 1 && strcmp(argv[1], "--case") == 0;
  const int at = single ? 2 : 1;
  const uint64_t number = argc > at ? strtoull(argv[at], NULL, 10) : 3000;
  if (argc > at + 1) seed = strtoull(argv[at + 1], NULL, 10);
  verbose = single;
  open_levels(argc > at + 2 ? argv[at + 2] : NULL);
  for (uint64_t i = single ? number : 0; i < (single ? number + 1 : number); i++) run(i);
  bool right = single || report(number);
  for (size_t i = 0; i < level_count; i++) clm_context_destroy(&levels[i]);
  clm_context_destroy(&reference);
  return right && complaints == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
