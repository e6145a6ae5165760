/* Writes every program that the library would compile for many calls on many devices, without any of the devices: the
 * launchers and the scheduler run as they are, on a driver that only records (recorder.c).
 *
 *   variants FOLDER [few]     FOLDER/variants.tsv: device, source, options; the sources are next to it
 *
 * "few": the calls that a short run compiles. */
#include "backend/opencl/engine.h"
#include "backend/opencl/opencl.h"
#include "catalog.h"
#include "recorder.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

typedef struct target {
  const char *name;
  schedule_device device;
  const char *engine; /* a matrix engine, whose programs alone are kept */
} target;

#define GPU(...)                                                                                                     \
  { .max_allocation_bytes = (int64_t)1 << 40, __VA_ARGS__ }
static const target targets[] = {
    {.name = "gfx90a",
     .device = GPU(.compute_units = 104, .max_work_group = 256, .subgroup = 64, .resident_work_items = 2048,
                   .local_memory_bytes = 65536)},
    {.name = "gfx1030",
     .device = GPU(.compute_units = 40, .max_work_group = 256, .subgroup = 32, .resident_work_items = 2048,
                   .local_memory_bytes = 65536)},
    {.name = "nvidia",
     .device = GPU(.ptx = PTX_BASIC, .shuffle = SHUFFLE_PTX, .compute_units = 132, .max_work_group = 1024,
                   .subgroup = 32, .resident_work_items = 2048, .local_memory_bytes = 49152)},
    {.name = "nvidia_bf16",
     .device = GPU(.ptx = PTX_BF16, .shuffle = SHUFFLE_PTX, .compute_units = 132, .max_work_group = 1024,
                   .subgroup = 32, .resident_work_items = 2048, .local_memory_bytes = 49152)},
    {.name = "shuffle",
     .device = GPU(.shuffle = SHUFFLE_KHR, .compute_units = 128, .max_work_group = 1024, .subgroup = 32,
                   .local_memory_bytes = 65536)},
    {.name = "mfma",
     .device = GPU(.compute_units = 104, .max_work_group = 256, .subgroup = 64, .local_memory_bytes = 65536),
     .engine = "mfma"},
    {.name = "wmma",
     .device = GPU(.compute_units = 96, .max_work_group = 256, .subgroup = 32, .local_memory_bytes = 65536),
     .engine = "wmma"},
    {.name = "dpas",
     .device = GPU(.compute_units = 512, .max_work_group = 1024, .subgroup = 16, .local_memory_bytes = 65536),
     .engine = "dpas"},
    {.name = "mma",
     .device = GPU(.ptx = PTX_BF16, .compute_units = 108, .max_work_group = 1024, .subgroup = 32,
                   .local_memory_bytes = 49152),
     .engine = "mma"},
    {.name = "wgmma",
     .device = GPU(.ptx = PTX_BF16, .compute_units = 132, .max_work_group = 1024, .subgroup = 32,
                   .local_memory_bytes = 49152),
     .engine = "wgmma"},
    {.name = "plain",
     .device = GPU(.compute_units = 16, .max_work_group = 256, .subgroup = 1, .local_memory_bytes = 32768)},
};

/* ---- The list ---- */

static FILE *list;
static const char *folder, *current;
static bool engine_only; /* programs of a matrix engine */
static uint64_t *seen;
static size_t seen_count, seen_room;

static bool is_new(uint64_t hash) {
  for (size_t i = 0; i < seen_count; i++)
    if (seen[i] == hash) return false;
  if (seen_count == seen_room) {
    seen_room = seen_room ? 2 * seen_room : 1024;
    seen = realloc(seen, seen_room * sizeof *seen);
    if (!seen) abort();
  }
  seen[seen_count++] = hash;
  return true;
}

static void fatal(const char *what) {
  perror(what);
  exit(EXIT_FAILURE);
}

/* The first line of a source names its file: #line 1 "norm.cl" */
static void family_of(const char *source, char *family, size_t size) {
  const char *begin = strchr(source, '"');
  snprintf(family, size, "%.*s", begin ? (int)strcspn(begin + 1, ".\"") : 0, begin ? begin + 1 : "");
}

static void keep(const char *source, const char *options) {
  char family[64], path[4096];
  if (strcmp(current, "nvidia_bf16") == 0 && !strstr(options, "=bf16")) return; /* as for nvidia */
  family_of(source, family, sizeof family);
  if (engine_only && strcmp(family, "matmul_engine") != 0 && strcmp(family, "pack") != 0) return;
  uint64_t hash = XXH3_64bits(source, strlen(source));
  if (is_new(hash)) {
    snprintf(path, sizeof path, "%s/%s.cl", folder, family);
    FILE *file = fopen(path, "w");
    if (!file || fputs(source, file) < 0 || fclose(file)) fatal(path);
  }
  hash = XXH3_64bits_withSeed(options, strlen(options), hash ^ XXH3_64bits(current, strlen(current)));
  if (is_new(hash)) fprintf(list, "%s\t%s\t%s\n", current, family, options);
}

/* ---- The calls ---- */

static const struct usual_size {
  const char *dim;
  int64_t size;
} usual[] = {
    {"batch", 8},      {"length", 2048},     {"d_inner", 2048}, {"channels", 2048}, {"d_state", 16}, {"n_groups", 1},
    {"width", 4},      {"sequences", 8},     {"rows", 2048},    {"dim", 1536},      {"vocab", 1536}, {"m", 2048},
    {"k", 768},        {"n", 1536},          {"count", 4096},   {"pool", 8},        {"n_heads", 32}, {"dt_rank", 64},
    {"d_model", 1024}, {"head_dim", NO_DIM}, {"steps", NO_DIM}, {"keys", 4096},     {"kv_heads", 1}, {"tokens", 2048},
    {"experts", 64},   {"chosen", 6},
};

static const struct other_size {
  const char *dim;
  int64_t size[16];
  bool few; /* also in a short run */
} others[] = {
    {"batch", {1}, true},
    {"batch", {3}, false},
    {"length", {1, 17, 300, 131072}, false},
    {"d_inner", {1, 4, 35, 1536, 5120}, false},
    {"channels", {1, 4, 35, 1536, 5120}, false},
    {"d_state", {1, 2, 3, 4, 5, 8, 17, 24, 32, 64, 128, 256, 512}, false},
    {"d_state", {64, 256}, true},
    {"n_heads", {1, 4, 35}, false},
    {"n_groups", {2, 2048}, false},
    {"width", {1, 2, 3, 8, 16}, false},
    {"rows", {1, 3, 100}, false},
    {"m", {1, 3, 100}, false},
    {"dim", {1, 33, 50280}, false},
    {"vocab", {1, 33, 50280}, false},
    {"n", {1, 33, 50280}, false},
    {"k", {1, 33}, false},
    {"count", {1, 50280}, false},
    {"steps", {2, 70}, false},
};

static clm_context *context;
static uint64_t asked, refused;

/* Row-major, or with the last two of three dimensions (and the step of B and C) innermost. */
static clm_tensor view_of(const catalog_choice *c, size_t row, bool length_fast, clm_buffer *buffer) {
  int64_t shape[CLM_MAX_RANK];
  int rank = catalog_shape(c, row, shape);
  clm_tensor t = clm_tensor_of(buffer, 0, c->dtype[row], rank, shape);
  int dims[CLM_MAX_RANK];
  catalog_dims(c, row, dims);
  if (!length_fast || rank < 3 || rank > 4 || catalog_row(c, row)->flags & OP_ROWS ||
      (dims[1] >= 0 && strcmp(c->op->table->dims[dims[1]].name, "length") != 0))
    return t;
  int64_t stride = 1;
  const int inner[] = {1, rank - 1, rank == 4 ? 2 : 0, 0};
  for (int i = 0; i < rank; i++) {
    t.stride[inner[i]] = stride;
    stride *= shape[inner[i]];
  }
  return t;
}

/* Small weights in f32; what lies along the sequence, and what may be of any dtype, as the main tensor is. */
static clm_dtype pick(void *user, const op_tensor *t, unsigned dtypes) {
  const clm_dtype storage = ((const catalog_choice *)user)->storage;
  const bool along = t->shape && strchr(t->shape, 'l');
  if (dtypes & OP_DTYPE(storage) && (along || !(t->dtypes.set & OP_REAL))) return storage;
  return (clm_dtype)__builtin_ctz(dtypes);
}

static double value_of(const op_scalar *s, bool set) {
  switch (s->kind) {
  case OP_BOOL: return set;
  case OP_CHOICE: return set ? s->high - 1 : 0;
  case OP_NUMBER: return strcmp(s->name, "theta") == 0 ? 10000 : 0.5; /* at least 1 */
  default: return s->low;
  }
}

static void call(const catalog_choice *chosen, bool length_fast, uint64_t flags) {
  catalog_choice choice = *chosen, *c = &choice;
  clm_buffer *buffers[OP_TENSORS] = {NULL};
  char *args = calloc(1, c->op->op->args_size);
  if (!args) abort();
  const op_scalar *s;
  c->set = flags;
  for (size_t i = 0; (s = catalog_scalar(c->op->table, i)) != NULL; i++) {
    if (!catalog_allows(c, s)) c->set &= ~catalog_bit(i);
    catalog_store(args, s, value_of(s, c->set >> i & 1));
  }
  catalog_settle(c);
  catalog_choose_dtypes(c, pick, c);
  for (size_t i = 0; catalog_row(c, i); i++) {
    int64_t shape[CLM_MAX_RANK], count = 1;
    if (!catalog_has(c, i)) continue;
    int rank = catalog_shape(c, i, shape);
    for (int k = 0; k < rank; k++) count *= shape[k];
    if (clm_buffer_create(context, (size_t)count * clm_dtype_size(c->dtype[i]), &buffers[i])) {
      fprintf(stderr, "%s\n", clm_context_error(context));
      exit(EXIT_FAILURE);
    }
    *(clm_tensor *)(void *)(args + catalog_row(c, i)->member) = view_of(c, i, length_fast, buffers[i]);
  }
  asked++;
  clm_status status = c->op->op->call(context, args);
  if (status == CLM_UNSUPPORTED) refused++;
  else if (status) {
    fprintf(stderr, "%s\n", clm_context_error(context));
    exit(EXIT_FAILURE);
  }
  for (size_t i = 0; i < OP_TENSORS; i++) clm_buffer_destroy(&buffers[i]);
  free(args);
}

typedef enum presence { REQUIRED, MAMBA, WITH_SEQ_IDX, PACKED, PRESENCES } presence;

/* What is there of the optional tensors: nothing; what a Mamba block has; everything, with either kind of packing. */
static void choose(catalog_choice *c, presence which) {
  static const char *const not_in_mamba[] = {
      "initial_state", "final_state", "dfinal_state", "dinitial_state", "gate",     "dgate",         "seq_idx",
      "cu_seqlens",    "initial",     "final",        "dfinal",         "dinitial", "state_indices", "cache_seqlens"};
  c->present = 0;
  for (size_t i = 0; catalog_row(c, i); i++) {
    const op_tensor *t = catalog_row(c, i);
    const bool optional = t->flags & OP_OPTIONAL;
    bool there = which != REQUIRED || !optional;
    const bool fixed = strcmp(t->name, "B") == 0 || strcmp(t->name, "C") == 0;
    if (which != PACKED && fixed && optional) there = false;
    for (size_t k = 0; which == MAMBA && optional && k < TEST_COUNT(not_in_mamba); k++)
      if (strcmp(t->name, not_in_mamba[k]) == 0) there = false;
    if (strcmp(t->name, which == PACKED ? "seq_idx" : "cu_seqlens") == 0) there = false;
    if (which == PACKED && strcmp(t->name, "offsets") == 0) there = false;
    if (there) c->present |= catalog_bit(i);
  }
}

static catalog_choice usual_choice(const catalog_op *op, clm_dtype storage) {
  catalog_choice c = {.op = op, .storage = storage, .groups = 1, .any_shape = {8, 2048, 2048}};
  for (size_t i = 0; i < TEST_COUNT(usual); i++) catalog_resize(&c, usual[i].dim, usual[i].size);
  if (!catalog_size(&c, "d_inner")) catalog_resize(&c, "head_dim", 64); /* heads that are no channels */
  return c;
}

/* Where it divides the channels. */
static bool groups_fit(const catalog_choice *c) {
  const int64_t groups = catalog_size(c, "n_groups");
  const int64_t channels = catalog_size(c, "d_inner");
  return groups == 0 || (channels ? channels : catalog_size(c, "n_heads")) % groups == 0;
}

/* Every scalar set, but for those that leave no room for others or for the programs of exact products. */
static uint64_t usual_flags(const op_table *table) {
  static const char *const apart[] = {"accumulate", "math"};
  uint64_t flags = ~UINT64_C(0);
  for (size_t i = 0; catalog_scalar(table, i); i++)
    for (size_t k = 0; k < TEST_COUNT(apart); k++)
      if (strcmp(catalog_scalar(table, i)->name, apart[k]) == 0) flags &= ~catalog_bit(i);
  return flags;
}

static bool takes_integers(const catalog_op *op) {
  for (size_t i = 0; op_tensor_at(op->table, i); i++)
    if (op_tensor_at(op->table, i)->dtypes.set & OP_DTYPE(CLM_I8)) return true;
  return false;
}

/* One size after the other away from the usual shape. */
static void call_size(const catalog_op *op, const char *dim, int64_t size, bool integers, bool few) {
  catalog_choice c = usual_choice(op, CLM_F32);
  if (!catalog_size(&c, dim)) return;
  c.integers = integers;
  catalog_resize(&c, dim, size);
  catalog_resize(&c, "size", catalog_size(&c, "width") - 1);
  if (!groups_fit(&c)) return;
  if (strcmp(dim, "length") == 0) catalog_resize(&c, "batch", 1);
  choose(&c, MAMBA);
  call(&c, false, usual_flags(op->table));
  if (few) return;
  call(&c, true, usual_flags(op->table));
  choose(&c, REQUIRED);
  call(&c, false, 0);
}

static void call_sizes(const catalog_op *op, bool few) {
  for (size_t o = 0; o < TEST_COUNT(others); o++)
    for (size_t k = 0; k < TEST_COUNT(others[o].size) && others[o].size[k]; k++)
      for (int integers = 0; integers <= takes_integers(op) && (!few || others[o].few); integers++)
        call_size(op, others[o].dim, others[o].size[k], integers, few);
}

/* Every dtype, layout, kind of presence and flag at the usual shape. */
static void call_kinds(const catalog_op *op, bool few) {
  static const clm_dtype storages[] = {CLM_F32, CLM_F16, CLM_BF16};
  for (size_t s = 0; s < TEST_COUNT(storages); s++)
    for (int complex = 0; complex <= (op->table->rate != NULL); complex++)
      for (int integers = 0; integers <= takes_integers(op); integers++)
        for (int layout = 0; layout < 2; layout++)
          for (presence p = REQUIRED; p < PRESENCES; p++) {
            if (few && (p != MAMBA || (layout && s))) continue;
            catalog_choice c = usual_choice(op, storages[s]);
            catalog_resize(&c, "size", catalog_size(&c, "width") - 1);
            c.complex = complex;
            c.integers = integers;
            choose(&c, p);
            const uint64_t flags = p == REQUIRED ? 0 : usual_flags(op->table);
            call(&c, layout, flags);
            if (few || layout || p != MAMBA) continue;
            for (size_t i = 0; catalog_scalar(op->table, i); i++) call(&c, false, flags ^ catalog_bit(i));
            for (size_t i = 0; catalog_row(&c, i); i++) {
              if (!op_second(catalog_row(&c, i))) continue;
              c.seconds ^= catalog_bit(i);
              call(&c, false, flags);
            }
          }
}

static void open_device(const target *t) {
  recorder_the_device = (recorder_device){.name = t->name,
                                          .compute_units = (unsigned)t->device.compute_units,
                                          .max_work_group = (size_t)t->device.max_work_group,
                                          .local_memory_bytes = (unsigned long)t->device.local_memory_bytes};
  char error[256] = "";
  clm_context_options options = {
      .device = "opencl:0", .no_program_cache = true, .error = error, .error_size = sizeof error};
  if (clm_context_create(&options, &context)) {
    fprintf(stderr, "%s\n", error);
    exit(EXIT_FAILURE);
  }
  opencl_state *s = opencl_state_of(context);
  s->schedule = t->device;
  s->scheduled = true; /* no probes */
  s->sgemm = -1;       /* no CLBlast: its kernels are not ours */
  s->engine = t->engine ? opencl_engine_named(t->engine) : NULL;
  s->engine_asked = true;
  engine_only = t->engine != NULL;
  current = t->name;
}

int main(int argc, char **argv) {
  if (argc < 2) return EXIT_FAILURE;
  const bool few = argc > 2 && strcmp(argv[2], "few") == 0;
  folder = argv[1];
  char path[4096];
  snprintf(path, sizeof path, "%s/variants.tsv", folder);
  list = fopen(path, "w");
  if (!list) fatal(path);
  recorder_on_program = keep;
  for (size_t t = 0; t < TEST_COUNT(targets); t++) {
    open_device(&targets[t]);
    for (size_t i = 0; i < catalog_count; i++) {
      if (catalog_find(catalog[i].table, "x_proj") >= 0) continue; /* mamba_inner: made of others */
      if (engine_only && strcmp(catalog[i].op->name, "matmul") != 0) continue;
      call_kinds(&catalog[i], few);
      call_sizes(&catalog[i], few);
    }
    clm_context_destroy(&context);
  }
  if (fclose(list)) fatal(path);
  free(seen);
  printf("%" PRIu64 " calls, %" PRIu64 " not supported by the OpenCL backend\n", asked, refused);
  return EXIT_SUCCESS;
}
