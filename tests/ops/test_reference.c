/* Mamba-2's operations against the reference package's own Python forms: calls and their results, gradients among
 * them, as tests/fixtures/make_reference.py stored them. */
#include "catalog.h"
#include "files/safetensors.h"
#include <stdio.h>
#include <string.h>

/* |got - want| <= RELATIVE |want| + ABSOLUTE max |want| */
#define RELATIVE 1e-5
#define ABSOLUTE 3e-6

typedef struct reference_case {
  const char *file, *operation;
} reference_case;

static const reference_case cases[] = {
    {"ssd-minimal", "ssd"},
    {"ssd-minimal-groups2", "ssd"},
    {"ssd-chunk16", "ssd"},
    {"ssd-chunk8-groups8-wide", "ssd"},
    {"ssd-chunk32-nogate", "ssd"},
    {"ssd-limits", "ssd"},
    {"ssd-limit-low", "ssd"},
    {"update", "selective_state_update"},
    {"update-groups4-nogate", "selective_state_update"},
    {"norm-after", "gated_norm"},
    {"norm-after-groups4", "gated_norm"},
    {"norm-before-groups3", "gated_norm"},
};

static const catalog_op *operation_named(const char *name, const char *ending) {
  char whole[64];
  snprintf(whole, sizeof whole, "%s%s", name, ending);
  for (size_t i = 0; i < catalog_count; i++)
    if (strcmp(catalog[i].table->name, whole) == 0) return &catalog[i];
  abort();
}

/* NULL where the file does not have it; `count` numbers, to be freed. */
static double *stored(const source *file, const char *name, size_t *count) {
  const source_tensor *t = source_find(file, name);
  void *data;
  if (!t) return NULL;
  assert_int_equal(t->dtype, SOURCE_F32);
  assert_int_equal(source_read_all(test_reference, t, &data), CLM_OK);
  *count = t->bytes / sizeof(float);
  double *numbers = malloc(*count * sizeof *numbers);
  for (size_t i = 0; i < *count; i++) numbers[i] = (double)((const float *)data)[i];
  free(data);
  return numbers;
}

/* What is updated in place has "new_" before its name afterwards. */
static void name_of_result(const test_tensor *t, char name[64]) {
  snprintf(name, 64, "%s%s", t->role == TEST_INOUT ? "new_" : "", t->name);
}

static test_problem problem_of(const catalog_op *op, const source *file, void *args) {
  test_problem p = {.op = op->op, .args = args, .seed = 1, .storage = CLM_F32};
  const op_tensor *row;
  for (size_t i = 0; (row = op_tensor_at(op->table, i)); i++) {
    const source_tensor *t = source_find(file, row->name);
    if (!t) continue;
    test_tensor tensor = {.name = row->name, .member = row->member, .role = (test_role)row->role, .rank = t->rank};
    memcpy(tensor.shape, t->shape, sizeof tensor.shape);
    problem_add(&p, tensor);
  }
  const op_scalar *scalar;
  for (size_t i = 0; (scalar = catalog_scalar(op->table, i)); i++) {
    size_t count;
    double *value = stored(file, scalar->name, &count);
    if (value) catalog_store(args, scalar, *value);
    free(value);
  }
  size_t count;
  double *groups = stored(file, "n_groups", &count); /* gated_norm's, which its table does not list */
  if (groups) ((clm_gated_norm_args *)args)->n_groups = (int64_t)*groups;
  free(groups);
  return p;
}

static void compare(const test_run *run, const source *file, const test_tensor *t) {
  char name[64];
  size_t count;
  name_of_result(t, name);
  double *got = run_read(run, t->name), *want = stored(file, name, &count), largest = 0;
  assert_int_equal(count, run_values(run, t->name));
  for (size_t i = 0; i < count; i++) largest = fmax(largest, fabs(want[i]));
  for (size_t i = 0; i < count; i++)
    if (!(fabs(got[i] - want[i]) <= RELATIVE * fabs(want[i]) + ABSOLUTE * largest))
      fail_msg("%s: %s[%zu] is %.9g, expected %.9g (largest %.3g)", run->problem->op->name, name, i, got[i], want[i],
               largest);
  free(got);
  free(want);
}

static void check_call(clm_context *context, const catalog_op *op, const source *file) {
  void *args = calloc(1, op->op->args_size);
  const test_problem p = problem_of(op, file, args);
  test_run *run = run_create(&p, context, false);
  int results = 0;
  for (size_t i = 0; i < p.count; i++) {
    size_t count;
    if (p.tensors[i].role == TEST_OUT) continue;
    double *values = stored(file, p.tensors[i].name, &count);
    run_write(run, p.tensors[i].name, values);
    free(values);
  }
  run_call(run);
  for (size_t i = 0; i < p.count; i++) {
    if (p.tensors[i].role == TEST_IN) continue;
    compare(run, file, &p.tensors[i]);
    results++;
  }
  assert_true(results > 0);
  run_destroy(run);
  free(args);
}

static void check_file(clm_context *context, const reference_case *c) {
  char path[512];
  source file;
  snprintf(path, sizeof path, "%s/%s.safetensors", REFERENCE, c->file);
  if (safetensors_open(test_reference, path, &file)) fail_msg("%s", clm_context_error(test_reference));
  check_call(context, operation_named(c->operation, ""), &file);
  check_call(context, operation_named(c->operation, "_backward"), &file);
  source_close(&file);
}

static void test_device_result(const test_device *device, const void *data) { check_file(device->context, data); }
static void test_reference_result(const test_device *device, const void *data) {
  (void)device;
  check_file(test_reference, data);
}

static void add(void) {
  for (size_t i = 0; i < TEST_COUNT(cases); i++) {
    test_add(NULL, test_reference_result, &cases[i], "reference: %s by the plain reference", cases[i].file);
    for (size_t d = 0; d < test_device_count; d++)
      if (!test_devices[d].simulated) /* minutes: the kernels are those of the operations' own tests */
        test_add(&test_devices[d], test_device_result, &cases[i], "reference: %s", cases[i].file);
  }
}

int main(void) { return test_main("reference", add); }
