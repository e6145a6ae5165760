#include "bench/ops.h"
#include <inttypes.h>
#include <string.h>

const bench_op *const bench_ops[] = {
    &bench_scan,
    &bench_scan_backward,
    &bench_scan_train,
    &bench_conv,
    &bench_ssd,
    &bench_ssd_backward,
    &bench_ssd_train,
    &bench_attention,
    &bench_attention_train,
    &bench_conv_backward,
    &bench_update,
    &bench_assoc_scan,
    &bench_gemm,
    &bench_block,
    &bench_block_train,
    &bench_block_mamba2,
    &bench_block_mamba2_train,
    &bench_lm_prefill,
    &bench_lm_decode,
    &bench_lm_train,
    &bench_lm_load,
    &bench_backbone_step,
    NULL,
};

const bench_op *bench_find_op(const char *name, const char *kind) {
  for (int i = 0; bench_ops[i]; i++) {
    const bench_op *op = bench_ops[i];
    if (strcmp(op->name, name) == 0 && (!kind ? !op->kind : op->kind && strcmp(op->kind, kind) == 0)) return op;
  }
  return NULL;
}

static const struct {
  const char *name;
  size_t member;
} dims[] = {
    {"batch", offsetof(bench_shape, batch)},
    {"length", offsetof(bench_shape, length)},
    {"dim", offsetof(bench_shape, dim)},
    {"state", offsetof(bench_shape, state)},
    {"heads", offsetof(bench_shape, heads)},
    {"kv_heads", offsetof(bench_shape, kv_heads)},
    {"head_dim", offsetof(bench_shape, head_dim)},
    {"width", offsetof(bench_shape, width)},
    {"groups", offsetof(bench_shape, groups)},
    {"m", offsetof(bench_shape, m)},
    {"n", offsetof(bench_shape, n)},
    {"k", offsetof(bench_shape, k)},
};
enum { DIMS = sizeof dims / sizeof dims[0] };

int64_t *bench_dim(bench_shape *shape, const char *name) {
  for (int i = 0; i < DIMS; i++)
    if (strcmp(dims[i].name, name) == 0) return (int64_t *)(void *)((char *)shape + dims[i].member);
  return NULL;
}

const char *bench_dim_name(int i) { return i < DIMS ? dims[i].name : NULL; }

bool bench_op_has(const bench_op *op, const char *name) {
  size_t size = strlen(name);
  for (const char *word = op->dims; *word;) {
    size_t n = strcspn(word, " ");
    if (n == size && memcmp(word, name, n) == 0) return true;
    word += n + (word[n] == ' ');
  }
  return false;
}

const char *bench_dtype_name(const bench_shape *shape) {
  return shape->complex ? "c64" : clm_dtype_name(shape->dtype);
}

void bench_defaults(const bench *b, const bench_op *op, bench_shape *shape) {
  bench_shape defaults = b->device.type == CLM_DEVICE_CPU ? op->cpu : op->gpu;
  for (int i = 0; i < DIMS; i++) {
    int64_t *size = bench_dim(shape, dims[i].name);
    if (!bench_op_has(op, dims[i].name)) *size = 0;
    else if (*size == 0) *size = *bench_dim(&defaults, dims[i].name);
  }
}

void bench_shape_text(const bench_op *op, const bench_shape *shape, char *text, size_t size) {
  bench_shape copy = *shape;
  size_t used = 0;
  text[0] = '\0';
  if (op->kind) used = (size_t)snprintf(text, size, "kind=%s", op->kind);
  for (const char *word = op->dims; *word && used < size;) {
    size_t n = strcspn(word, " ");
    char name[16];
    snprintf(name, sizeof name, "%.*s", (int)n, word);
    int wrote = snprintf(text + used, size - used, "%s%s=%" PRId64, used ? " " : "", name, *bench_dim(&copy, name));
    used += wrote > 0 ? (size_t)wrote : 0;
    word += n + (word[n] == ' ');
  }
  if (shape->layout == BENCH_BDL && !op->measure && bench_op_has(op, "length") && used < size)
    snprintf(text + used, size - used, " layout=bdl");
}
