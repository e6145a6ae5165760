/* Writes every program that the library would compile for many calls on many devices, without any of the devices: the
 * launchers and the scheduler run as they are, on a driver that only records (recorder.c).
 *
 *   variants FOLDER [few]     FOLDER/variants.tsv: device, source, options; the sources beside it
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

static const int64_t usual[CATALOG_DIMS] = {
    [DIM_BATCH] = 8,         [DIM_LENGTH] = 2048,  [DIM_CHANNELS] = 2048, [DIM_STATES] = 16, [DIM_GROUPS] = 1,
    [DIM_WIDTH] = 4,         [DIM_HISTORY] = 3,    [DIM_SEQUENCES] = 8,   [DIM_ENDS] = 9,    [DIM_ROWS] = 2048,
    [DIM_INNER] = 768,       [DIM_COLUMNS] = 1536, [DIM_COUNT] = 4096,    [DIM_ONE] = 1,     [DIM_STEPS] = NO_DIM,
    [DIM_HEAD_DIM] = NO_DIM, [DIM_RANK] = 64,      [DIM_MODEL] = 1024,
};

static const struct other_size {
  catalog_dim dim;
  int64_t size[16];
  bool few; /* also in a short run */
} others[] = {
    {DIM_BATCH, {1}, true},
    {DIM_BATCH, {3}, false},
    {DIM_LENGTH, {1, 17, 300, 131072}, false},
    {DIM_CHANNELS, {1, 4, 35, 1536, 5120}, false},
    {DIM_STATES, {1, 2, 3, 4, 5, 8, 17, 24, 32, 64, 128, 256, 512}, false},
    {DIM_STATES, {64, 256}, true},
    {DIM_GROUPS, {2, 2048}, false},
    {DIM_WIDTH, {1, 2, 3, 8, 16}, false},
    {DIM_ROWS, {1, 3, 100}, false},
    {DIM_COLUMNS, {1, 33, 50280}, false},
    {DIM_INNER, {1, 33}, false},
    {DIM_COUNT, {1, 50280}, false},
    {DIM_STEPS, {2, 70}, false},
};

static clm_context *context;
static uint64_t asked, refused;

/* Row-major, or with the last two of three dimensions (and the step of B and C) innermost. */
static clm_tensor view_of(const catalog_choice *c, size_t row, bool length_fast, clm_buffer *buffer) {
  int64_t shape[CLM_MAX_RANK];
  int rank = catalog_shape(c, row, shape);
  clm_tensor t = clm_tensor_of(buffer, 0, catalog_dtype(c, row), rank, shape);
  if (!length_fast || rank < 3 || c->op->rows[row].dims[1] != DIM_LENGTH || rank > 4 ||
      c->op->rows[row].flags & ROW_MATRIX)
    return t;
  int64_t stride = 1;
  const int inner[] = {1, rank - 1, rank == 4 ? 2 : 0, 0};
  for (int i = 0; i < rank; i++) {
    t.stride[inner[i]] = stride;
    stride *= shape[inner[i]];
  }
  return t;
}

static void call(const catalog_choice *chosen, bool length_fast, const bool flags[CATALOG_SCALARS]) {
  catalog_choice choice = *chosen, *c = &choice;
  clm_buffer *buffers[CATALOG_ROWS] = {NULL};
  char *args = calloc(1, c->op->op->args_size);
  if (!args) abort();
  for (size_t i = 0; c->op->scalars[i].name; i++) {
    const catalog_scalar *s = &c->op->scalars[i];
    const bool set = flags[i] && catalog_allows(c, s);
    if (!set) catalog_unset(c, catalog_scalar_name(s));
    if (s->kind == SCALAR_BOOL) *(bool *)(args + s->member) = set;
    if (s->kind == SCALAR_CHOICE) *(int *)(void *)(args + s->member) = flags[i] ? (int)s->high : 0;
    if (s->kind == SCALAR_FLOAT) *(float *)(void *)(args + s->member) = (float)s->low;
    if (s->kind == SCALAR_INT64) *(int64_t *)(void *)(args + s->member) = (int64_t)s->low;
  }
  for (size_t i = 0; c->op->rows[i].name; i++) {
    int64_t shape[CLM_MAX_RANK], count = 1;
    if (!catalog_has(c, i)) continue;
    int rank = catalog_shape(c, i, shape);
    for (int k = 0; k < rank; k++) count *= shape[k];
    if (count == 0) continue;
    if (clm_buffer_create(context, (size_t)count * clm_dtype_size(catalog_dtype(c, i)), &buffers[i])) {
      fprintf(stderr, "%s\n", clm_context_error(context));
      exit(EXIT_FAILURE);
    }
    *(clm_tensor *)(void *)(args + c->op->rows[i].member) = view_of(c, i, length_fast, buffers[i]);
  }
  asked++;
  clm_status status = c->op->op->call(context, args);
  if (status == CLM_UNSUPPORTED) refused++;
  else if (status) {
    fprintf(stderr, "%s\n", clm_context_error(context));
    exit(EXIT_FAILURE);
  }
  for (size_t i = 0; i < CATALOG_ROWS; i++) clm_buffer_destroy(&buffers[i]);
  free(args);
}

typedef enum presence { REQUIRED, MAMBA, WITH_SEQ_IDX, PACKED, PRESENCES } presence;

static bool has(const catalog_choice *c, const char *name) {
  int row = catalog_find(c->op, name);
  return row >= 0 && catalog_has(c, (size_t)row);
}

/* Sizes that follow from others and from what is there. */
static void derive_sizes(catalog_choice *c) {
  int64_t *size = c->size;
  size[DIM_HISTORY] = size[DIM_PLACES] = size[DIM_WIDTH] - 1;
  size[DIM_HEADS] = size[DIM_CHANNELS];
  size[DIM_BOTH] = 2 * size[DIM_CHANNELS];
  size[DIM_FEATURES] = catalog_features(c);
  if (!has(c, "out_proj")) size[DIM_MODEL] = size[DIM_CHANNELS];
  size[DIM_SEQUENCES] = size[DIM_POOL] = size[DIM_BATCH];
  if (!has(c, "cu_seqlens")) return;
  size[DIM_BATCH] = 1;
  size[DIM_SEQUENCES] = 8;
  size[DIM_ENDS] = 9;
}

/* What is there of the optional tensors: nothing; what a Mamba block has; everything, with either kind of packing. */
static void choose(catalog_choice *c, presence which) {
  static const char *const not_in_mamba[] = {
      "initial_state", "final_state", "dfinal_state", "dinitial_state", "gate",     "dgate",         "seq_idx",
      "cu_seqlens",    "initial",     "final",        "dfinal",         "dinitial", "state_indices", "cache_seqlens"};
  c->present = 0;
  for (size_t i = 0; c->op->rows[i].name; i++) {
    const catalog_row *row = &c->op->rows[i];
    bool there = which != REQUIRED || !(row->flags & ROW_OPTIONAL);
    const bool fixed = strcmp(row->name, "B") == 0 || strcmp(row->name, "C") == 0;
    if (which != PACKED && fixed && row->flags & ROW_OPTIONAL) there = false;
    for (size_t k = 0; which == MAMBA && row->flags & ROW_OPTIONAL && k < TEST_COUNT(not_in_mamba); k++)
      if (strcmp(row->name, not_in_mamba[k]) == 0) there = false;
    if (strcmp(row->name, which == PACKED ? "seq_idx" : "cu_seqlens") == 0) there = false;
    if (there) c->present |= catalog_bit(i);
  }
  for (size_t i = 0; c->op->rows[i].name; i++) {
    int with = c->op->rows[i].with ? catalog_find(c->op, c->op->rows[i].with) : -1;
    if (with >= 0 && !catalog_has(c, (size_t)with)) c->present &= ~catalog_bit(i);
  }
  derive_sizes(c);
}

static catalog_choice usual_choice(const catalog_op *op, clm_dtype storage) {
  catalog_choice c = {.op = op, .storage = storage};
  memcpy(c.size, usual, sizeof usual);
  for (size_t i = 0; op->rows[i].name; i++)
    if (op->rows[i].kind == OF_WEIGHT || op->rows[i].kind == OF_RATE || op->rows[i].flags & ROW_STATIC_EITHER)
      c.others |= catalog_bit(i); /* f32 */
  for (size_t i = 0; i < CATALOG_ROWS; i++) c.any[i] = storage;
  return c;
}

static bool has_dim(const catalog_op *op, catalog_dim dim) {
  for (size_t i = 0; op->rows[i].name; i++)
    for (int k = 0; k < op->rows[i].rank; k++)
      if (op->rows[i].dims[k] == dim) return true;
  return false;
}

static const bool none[CATALOG_SCALARS], every[CATALOG_SCALARS] = {true, true, true, true, true, true, true, true};

/* One size after the other away from the usual shape. */
static void call_sizes(const catalog_op *op, bool few) {
  for (size_t o = 0; o < TEST_COUNT(others); o++)
    for (size_t k = 0; k < TEST_COUNT(others[o].size) && others[o].size[k]; k++) {
      if (!has_dim(op, others[o].dim) || (few && !others[o].few)) continue;
      catalog_choice c = usual_choice(op, CLM_F32);
      c.size[others[o].dim] = others[o].size[k];
      if (c.size[DIM_CHANNELS] % c.size[DIM_GROUPS]) continue;
      if (others[o].dim == DIM_LENGTH) c.size[DIM_BATCH] = 1;
      choose(&c, MAMBA);
      call(&c, false, every);
      if (few) continue;
      call(&c, true, every);
      choose(&c, REQUIRED);
      call(&c, false, none);
    }
}

/* Every dtype, layout, kind of presence and flag at the usual shape. */
static void call_kinds(const catalog_op *op, bool few) {
  static const clm_dtype storages[] = {CLM_F32, CLM_F16, CLM_BF16};
  for (size_t s = 0; s < TEST_COUNT(storages); s++)
    for (int complex = 0; complex <= op->may_be_complex; complex++)
      for (int layout = 0; layout < 2; layout++)
        for (presence p = REQUIRED; p < PRESENCES; p++) {
          if (few && (p != MAMBA || (layout && s))) continue;
          catalog_choice c = usual_choice(op, storages[s]);
          c.complex = complex;
          choose(&c, p);
          bool flags[CATALOG_SCALARS];
          memcpy(flags, p == REQUIRED ? none : every, sizeof flags);
          for (size_t i = 0; op->scalars[i].name; i++)
            if (complex && strstr(op->scalars[i].name, "A_is_log")) flags[i] = false;
          call(&c, layout, flags);
          for (size_t i = 0; !few && s == 0 && !layout && p == MAMBA && op->scalars[i].name; i++) {
            flags[i] = !flags[i];
            if (!complex || !strstr(op->scalars[i].name, "A_is_log")) call(&c, false, flags);
            flags[i] = !flags[i];
          }
          for (size_t i = 0; !few && s == 0 && !layout && p == MAMBA && op->rows[i].name; i++) {
            if (!(op->rows[i].flags & ROW_STATIC)) continue;
            c.statics ^= catalog_bit(i);
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
      if (has_dim(&catalog[i], DIM_BOTH)) continue; /* mamba_inner: made of others */
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
