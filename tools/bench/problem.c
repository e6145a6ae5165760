/* The tensors of one operation on the device, in as many copies as it takes to keep them out of the cache. */
#include "bench/bench.h"
#include "common/tool.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ALIGNMENT = 256, MAX_SETS = 64, PIECE = 1 << 20 /* floats moved at once */ };

/* What a last-level cache may hold. OpenCL does not say it dependably for GPUs. */
static size_t cache_bytes(const bench *b) {
  if (b->device.type != CLM_DEVICE_CPU) return (size_t)128 << 20;
  size_t largest = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
  const int levels[] = {_SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE, _SC_LEVEL4_CACHE_SIZE};
  for (int i = 0; i < 3; i++) {
    long bytes = sysconf(levels[i]);
    if (bytes > 0 && (size_t)bytes > largest) largest = (size_t)bytes;
  }
#endif
  return largest ? largest : (size_t)32 << 20;
}

clm_dtype bench_tensor_dtype(const bench_tensor *info, const bench_shape *shape) {
  if (info->complex && shape->complex) return CLM_C64;
  return info->fixed ? CLM_F32 : shape->dtype;
}

clm_tensor bench_tensor_view(const bench_tensor *info, bench_layout layout, clm_dtype dtype, clm_buffer *buffer) {
  if (layout == BENCH_BLD || info->length < 0) return clm_tensor_of(buffer, 0, dtype, info->rank, info->shape);
  /* (batch, length, ...) in memory as (batch, ..., length) */
  int64_t shape[CLM_MAX_RANK];
  int rank = 0;
  for (int i = 0; i < info->rank; i++)
    if (i != info->length) shape[rank++] = info->shape[i];
  shape[rank++] = info->shape[info->length];
  clm_tensor tensor = clm_tensor_of(buffer, 0, dtype, rank, shape);
  for (int i = rank - 1; i > info->length; i--) tensor = clm_tensor_transpose(tensor, i, i - 1);
  return tensor;
}

/* Fills every copy: inputs with the same random values, what is only written with NaN. */
static clm_status fill(const bench_problem *p, int index, float *floats, unsigned char *stored) {
  const bench_tensor *info = &p->info[index];
  clm_tensor tensor = p->tensor[index];
  bool is_complex = tensor.dtype == CLM_C64;
  size_t width = is_complex ? sizeof(float) : clm_dtype_size(tensor.dtype);
  size_t count = (size_t)clm_tensor_count(tensor) * (is_complex ? 2 : 1);
  rng random = rng_seed((uint64_t)index + 1, 0);
  for (size_t done = 0; done < count; done += PIECE) {
    size_t piece = count - done < PIECE ? count - done : PIECE;
    if (info->input) {
      bench_fill_floats(&random, info->fill, info->scale, floats, piece);
      for (size_t i = 0; i < piece; i++) {
        float value = is_complex && info->fill == BENCH_DECAY ? 0.7f * floats[i] : floats[i]; /* |a| stays below 1 */
        bench_store(is_complex ? CLM_F32 : tensor.dtype, stored, i, value);
      }
    } else {
      memset(stored, 0xff, piece * width);
    }
    for (int set = 0; set < p->sets; set++) {
      clm_status status =
          clm_buffer_write(p->buffer[index], (size_t)set * p->stride[index] + done * width, piece * width, stored);
      if (status != CLM_OK) return status;
    }
  }
  return CLM_OK;
}

/* Enough copies that what a call touches has left the cache when its turn comes again. */
static int choose_sets(const bench *b, size_t bytes, size_t largest) {
  if (b->settings.warm || bytes == 0) return 1;
  size_t wanted = cache_bytes(b) * 3 / 2 / bytes + 2, memory = b->device.memory_bytes / 4, max_sets = MAX_SETS;
  if (memory && memory / bytes < max_sets) max_sets = memory / bytes;
  if (b->device.max_allocation_bytes && b->device.max_allocation_bytes / largest < max_sets)
    max_sets = b->device.max_allocation_bytes / largest;
  if (wanted > max_sets) wanted = max_sets;
  return wanted < 1 ? 1 : (int)wanted;
}

bool bench_problem_create(bench *b, const bench_op *op, const bench_shape *shape, bench_problem *p) {
  *p = (bench_problem){.op = op, .shape = *shape};
  p->count = bench_tensors(op, shape, p->info);
  size_t total = 0, largest = 1;
  for (int i = 0; i < p->count; i++) {
    p->tensor[i] = bench_tensor_view(&p->info[i], shape->layout, bench_tensor_dtype(&p->info[i], shape), NULL);
    size_t bytes = (size_t)clm_tensor_count(p->tensor[i]) * clm_dtype_size(p->tensor[i].dtype);
    p->stride[i] = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    total += p->stride[i];
    if (p->stride[i] > largest) largest = p->stride[i];
  }
  p->sets = choose_sets(b, total, largest);
  float *floats = malloc(PIECE * sizeof *floats);
  unsigned char *stored = malloc(PIECE * sizeof(double));
  clm_status status = floats && stored ? CLM_OK : CLM_OUT_OF_MEMORY;
  if (status != CLM_OK) tool_fail("out of memory");
  for (int i = 0; i < p->count && status == CLM_OK; i++) {
    status = clm_buffer_create(b->context, p->stride[i] * (size_t)p->sets, &p->buffer[i]);
    p->tensor[i].buffer = p->buffer[i];
    if (status == CLM_OK) status = fill(p, i, floats, stored);
    if (status == CLM_OK && p->info[i].weights) status = clm_buffer_keep_packed(p->buffer[i], true);
    if (status != CLM_OK) bench_fail(b, op->name, status);
  }
  free(floats);
  free(stored);
  if (status != CLM_OK) bench_problem_destroy(p);
  return status == CLM_OK;
}

void bench_problem_destroy(bench_problem *p) {
  for (int i = 0; i < p->count; i++) clm_buffer_destroy(&p->buffer[i]);
}

clm_status bench_problem_call(bench *b, const bench_problem *p, int set) {
  clm_tensor tensors[BENCH_MAX_TENSORS];
  for (int i = 0; i < p->count; i++) {
    tensors[i] = p->tensor[i];
    tensors[i].offset = (size_t)set * p->stride[i];
  }
  return bench_call_op(p->op, b->context, &p->shape, tensors);
}

double bench_problem_bytes(const bench_problem *p) {
  double bytes = 0;
  for (int i = 0; i < p->count; i++)
    bytes += (double)clm_tensor_count(p->tensor[i]) * (double)clm_dtype_size(p->tensor[i].dtype) *
             (p->info[i].passes ? p->info[i].passes : p->info[i].input + p->info[i].output);
  return bytes;
}
