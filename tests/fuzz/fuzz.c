/* Random calls of every public operation on the CPU backend: each gives what the reference gives, or fails cleanly: a
 * sentence that names the argument, nothing written.
 *
 *   fuzz [CASES [SEED]]       the whole run: also counts what succeeded
 *   fuzz --case NUMBER [SEED] one call, printed */
#include "call.h"
#include "numbers.h"
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LEVELS = 8, MOST_SHOWN = 20 };

static clm_context *reference, *levels[MOST_LEVELS];
static size_t level_count;
static bool verbose;

static clm_context *open_level(const char *level, int threads) {
  clm_context *context = NULL;
  clm_context_options options = {.device = "cpu", .cpu_level = level, .threads = threads};
  return clm_context_create(&options, &context) == CLM_OK ? context : NULL;
}

static void open_levels(void) {
  static const char *const names[] = {"baseline", "avx2", "avx512", "avx512vnni", "neon"};
  for (size_t i = 0; i < TEST_COUNT(names); i++) {
    clm_context *context = open_level(names[i], 1);
    if (context) levels[level_count++] = context;
  }
  levels[level_count++] = open_level(NULL, 3); /* the best one, with threads that must agree */
  reference = open_level("reference", 1);
  if (!reference || !levels[level_count - 1]) {
    fprintf(stderr, "fuzz: no CPU context\n");
    exit(EXIT_FAILURE);
  }
}

/* ---- A call on a context ---- */

typedef struct bound {
  clm_context *context;
  clm_buffer *buffers[CATALOG_ROWS];
  clm_tensor views[CATALOG_ROWS];
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
  for (size_t i = 0; op->rows[i].name; i++) {
    const fuzz_tensor *t = &c->tensors[i];
    if (!t->image) continue;
    must(clm_buffer_create(context, t->bytes, &b->buffers[i]), context, "buffer");
    must(clm_buffer_write(b->buffers[i], 0, t->bytes, t->image), context, "buffer");
  }
  for (size_t i = 0; op->rows[i].name; i++) {
    const fuzz_tensor *t = &c->tensors[i];
    if (!fuzz_present(c, i)) continue;
    b->views[i] = t->view;
    b->views[i].buffer = (t->foreign && foreign ? foreign : b)->buffers[t->buffer];
    *(clm_tensor *)(void *)((char *)b->args + op->rows[i].member) = b->views[i];
  }
}

static void unbind(bound *b) {
  for (size_t i = 0; i < CATALOG_ROWS; i++) clm_buffer_destroy(&b->buffers[i]);
  free(b->args);
}

/* ---- Complaints ---- */

static uint64_t seed = 1, now, complaints;

static void describe(const fuzz_call *c) {
  const catalog_op *op = c->choice.op;
  printf("case %llu: %s, %s%s; wrong: %s\n", (unsigned long long)now, op->op->name, clm_dtype_name(c->choice.storage),
         c->choice.complex ? ", complex" : "", c->wrong ? c->how : "nothing");
  for (size_t i = 0; op->rows[i].name; i++) {
    if (!fuzz_present(c, i)) continue;
    const fuzz_tensor *t = &c->tensors[i];
    printf("  %-14s dtype %d offset %zu rank %d:", op->rows[i].name, (int)t->view.dtype, t->view.offset,
           t->view.rank);
    for (int k = 0; k < CLM_MAX_RANK && k < t->view.rank; k++)
      printf(" %lld/%lld", (long long)t->view.shape[k], (long long)t->view.stride[k]);
    printf("%s%s\n", t->buffer == i ? "" : " in the buffer of ", t->buffer == i ? "" : op->rows[t->buffer].name);
  }
  printf(" ");
  for (size_t i = 0; op->scalars[i].name; i++)
    if (c->flags[i]) printf(" %s", op->scalars[i].name);
  printf("\n");
}

static void complain(const fuzz_call *c, const char *what, const char *detail) {
  if (++complaints > MOST_SHOWN) return;
  describe(c);
  printf("  FAILED: %s: %s\n", what, detail);
}

/* ---- Judging ---- */

static bool names(const char *sentence, const char *name) {
  const size_t length = strlen(name);
  for (const char *at = sentence; (at = strstr(at, name)) != NULL; at += length) {
    bool begins = at == sentence || !(isalnum((unsigned char)at[-1]) || at[-1] == '_');
    bool ends = !(isalnum((unsigned char)at[length]) || at[length] == '_');
    if (begins && ends) return true;
  }
  return false;
}

static bool names_any(const char *sentence, const catalog_op *op) {
  for (size_t i = 0; op->rows[i].name; i++)
    if (names(sentence, op->rows[i].name)) return true;
  return false;
}

/* "op: ", or that of its other direction, whose checks it shares. */
static bool begins_with_op(const char *sentence, const char *op) {
  size_t length = strcspn(sentence, ":");
  return sentence[length] == ':' && strncmp(sentence, op, length) == 0;
}

static unsigned char *contents(clm_buffer *buffer, clm_context *context) {
  unsigned char *memory = malloc(clm_buffer_size(buffer));
  if (!memory) abort();
  must(clm_buffer_read(buffer, 0, clm_buffer_size(buffer), memory), context, "read");
  return memory;
}

static void check_unwritten(const fuzz_call *c, const bound *b) {
  for (size_t i = 0; i < CATALOG_ROWS; i++) {
    if (!b->buffers[i]) continue;
    unsigned char *memory = contents(b->buffers[i], b->context);
    if (memcmp(memory, c->tensors[i].image, c->tensors[i].bytes) != 0)
      complain(c, "a call that failed wrote to", c->choice.op->rows[i].name);
    free(memory);
  }
}

static void check_sentence(const fuzz_call *c, clm_status status, const char *sentence) {
  if (status != CLM_INVALID_ARGUMENT && status != CLM_UNSUPPORTED) complain(c, "status", clm_status_string(status));
  if (!begins_with_op(sentence, c->choice.op->op->name)) complain(c, "the sentence does not name the call", sentence);
  if (status == CLM_INVALID_ARGUMENT &&
      !(c->wrong && *c->wrong ? names(sentence, c->wrong) : names_any(sentence, c->choice.op)))
    complain(c, "the sentence does not name the argument", sentence);
}

static bool has_integers(const catalog_op *op) {
  for (size_t i = 0; op->rows[i].name; i++)
    if (op->rows[i].kind == OF_INTEGER) return true;
  return false;
}

/* Beside what one rounding of the output gives. Against integers some levels round the activations to 15 bits. */
static double tolerance(const fuzz_call *c, clm_dtype dtype) {
  const double f32 = has_integers(c->choice.op) ? 5e-4 : 2e-5;
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
    snprintf(detail, sizeof detail, "%s number %zu is %.9g, the reference gives %.9g", c->choice.op->rows[row].name,
             k, a, b);
    complain(c, "result", detail);
    return;
  }
}

/* What the call may have written counts as unchanged; the rest must be. */
static void check_untouched(const fuzz_call *c, size_t buffer, unsigned char *memory) {
  const unsigned char *image = c->tensors[buffer].image;
  for (size_t i = 0; c->choice.op->rows[i].name; i++) {
    const clm_tensor *v = &c->tensors[i].view;
    if (!fuzz_present(c, i) || c->tensors[i].buffer != buffer || c->choice.op->rows[i].role == TEST_IN) continue;
    const walk w = walk_of(v);
    const size_t size = clm_dtype_size(v->dtype) / w.parts;
    for (size_t k = 0; k < w.count; k++) {
      size_t at = number_at(v, &w, k) * size;
      memcpy(memory + at, image + at, size);
    }
  }
  if (memcmp(memory, image, c->tensors[buffer].bytes) != 0)
    complain(c, "wrote outside of its tensors, into the buffer of", c->choice.op->rows[buffer].name);
}

static void check_results(const fuzz_call *c, const bound *got, const bound *want) {
  for (size_t buffer = 0; buffer < CATALOG_ROWS; buffer++) {
    if (!got->buffers[buffer]) continue;
    unsigned char *a = contents(got->buffers[buffer], got->context),
                  *b = contents(want->buffers[buffer], want->context);
    for (size_t i = 0; c->choice.op->rows[i].name; i++)
      if (fuzz_present(c, i) && c->tensors[i].buffer == buffer && c->choice.op->rows[i].role != TEST_IN &&
          !c->incomparable)
        compare(c, i, a, b);
    check_untouched(c, buffer, a);
    free(a);
    free(b);
  }
}

/* ---- Counting ---- */

static uint64_t succeeded, refused, unsupported, ops_done[64], dtypes_done[8], layouts_done[FUZZ_LAYOUTS],
    flags_done[64][CATALOG_SCALARS], optionals_done[64][CATALOG_ROWS], in_place;

static void count(const fuzz_call *c) {
  const catalog_op *op = c->choice.op;
  const size_t number = (size_t)(op - catalog);
  bool dtypes[8] = {false}, layouts[FUZZ_LAYOUTS] = {false}, shares = false;
  succeeded++;
  ops_done[number]++;
  for (size_t i = 0; op->rows[i].name; i++) {
    if (!fuzz_present(c, i)) continue;
    dtypes[c->tensors[i].view.dtype & 7] = true;
    layouts[c->tensors[i].layout] = true;
    shares |= c->tensors[i].buffer != i;
    optionals_done[number][i]++;
  }
  for (size_t i = 0; i < 8; i++) dtypes_done[i] += dtypes[i];
  for (size_t i = 0; i < FUZZ_LAYOUTS; i++) layouts_done[i] += layouts[i];
  for (size_t i = 0; op->scalars[i].name; i++) flags_done[number][i] += c->flags[i];
  in_place += shares;
}

static bool enough(const char *what, const char *name, uint64_t have, uint64_t want) {
  printf("  %-10s %-28s %7llu%s\n", what, name, (unsigned long long)have, have < want ? "  TOO FEW" : "");
  return have >= want;
}

/* A scalar or optional tensor is counted over all operations that have one of its name. */
static bool enough_scalars(uint64_t want) {
  bool all = true;
  for (size_t o = 0; o < catalog_count; o++)
    for (size_t i = 0; catalog[o].scalars[i].name; i++) {
      const char *name = catalog_scalar_name(&catalog[o].scalars[i]);
      uint64_t sum = 0;
      bool first = true;
      for (size_t p = 0; p < catalog_count; p++)
        for (size_t k = 0; catalog[p].scalars[k].name; k++) {
          if (strcmp(catalog_scalar_name(&catalog[p].scalars[k]), name) != 0) continue;
          sum += flags_done[p][k];
          first &= p > o || (p == o && k >= i);
        }
      if (first) all &= enough("scalar", name, sum, want);
    }
  return all;
}

static bool enough_optionals(uint64_t want) {
  bool all = true;
  for (size_t o = 0; o < catalog_count; o++)
    for (size_t i = 0; catalog[o].rows[i].name; i++) {
      uint64_t sum = 0;
      bool first = (catalog[o].rows[i].flags & ROW_OPTIONAL) != 0;
      for (size_t p = 0; p < catalog_count; p++)
        for (size_t k = 0; catalog[p].rows[k].name; k++) {
          if (!(catalog[p].rows[k].flags & ROW_OPTIONAL) ||
              strcmp(catalog[p].rows[k].name, catalog[o].rows[i].name) != 0)
            continue;
          sum += optionals_done[p][k];
          first &= p > o || (p == o && k >= i);
        }
      if (first) all &= enough("optional", catalog[o].rows[i].name, sum, want);
    }
  return all;
}

/* What is no argument of its own: rows of B, C, A_bar, weights and states in their other forms, steps and heads. */
typedef enum form { FORM_STATIC, FORM_OTHER, FORM_STEPS, FORM_HEADS, FORMS } form;
static uint64_t forms_done[FORMS];

static void count_forms(const fuzz_call *c) {
  const catalog_op *op = c->choice.op;
  bool done[FORMS] = {false};
  for (size_t i = 0; op->rows[i].name; i++) {
    catalog_dim dims[CLM_MAX_RANK];
    if (!fuzz_present(c, i)) continue;
    done[FORM_STATIC] |= c->choice.statics >> i & 1;
    done[FORM_OTHER] |= c->choice.others >> i & 1;
    for (int k = catalog_dims(&c->choice, i, dims) - 1; k >= 0; k--) {
      done[FORM_STEPS] |= dims[k] == DIM_STEPS;
      done[FORM_HEADS] |= dims[k] == DIM_HEAD_DIM;
    }
  }
  for (int i = 0; i < FORMS; i++) forms_done[i] += done[i];
}

static bool report(uint64_t cases) {
  static const char *const layouts[FUZZ_LAYOUTS] = {"contiguous", "padded",   "transposed", "wide",
                                                    "spread",     "repeated", "permuted"};
  static const char *const forms[FORMS] = {"the same for all steps", "the other dtype", "several steps", "heads"};
  static const clm_dtype dtypes[] = {CLM_F32, CLM_F16, CLM_BF16, CLM_F64, CLM_C64, CLM_C128, CLM_I32, CLM_I8};
  const double part = fmin((double)cases / 100, 1000); /* of a shorter run its part, less what few calls scatter */
  const uint64_t want = (uint64_t)(part < 1000 ? fmax(0, part - 4 * sqrt(part)) : part);
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
    const char *sentence = clm_context_error(got.context);
    if (verbose) printf("  %s\n", sentence);
    if (!c.wrong) {
      if (status != CLM_UNSUPPORTED) complain(&c, "a valid call was refused", sentence);
    } else if (*c.wrong && status == CLM_UNSUPPORTED) {
      complain(&c, "an invalid call is called unsupported", sentence);
    }
    check_sentence(&c, status, sentence);
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
  open_levels();
  for (uint64_t i = single ? number : 0; i < (single ? number + 1 : number); i++) run(i);
  bool right = single || report(number);
  for (size_t i = 0; i < level_count; i++) clm_context_destroy(&levels[i]);
  clm_context_destroy(&reference);
  return right && complaints == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
