/* Kernels of a context, found by hash of family, name and defines; a repeated launch allocates nothing. */
#include "backend/opencl/opencl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct opencl_kernel {
  char *family, *name, *defines; /* one allocation, owned by family */
  cl_kernel kernel;
  size_t max_work_group;
};

typedef struct built_program {
  char *family, *defines; /* as above */
  cl_program program;
} built_program;

struct kernel_table {
  opencl_kernel **slots; /* open addressing, size a power of two, never more than half full */
  size_t slot_count, kernel_count;
  built_program *programs;
  size_t program_count;
};

/* Copies up to three texts into one block. */
static bool copy_texts(const char *a, const char *b, const char *c, char **ca, char **cb, char **cc) {
  size_t na = strlen(a) + 1, nb = strlen(b) + 1, nc = strlen(c) + 1;
  char *block = malloc(na + nb + nc);
  if (!block) return false;
  *ca = memcpy(block, a, na);
  *cb = memcpy(block + na, b, nb);
  *cc = memcpy(block + na + nb, c, nc);
  return true;
}

static uint64_t hash_of(const char *family, const char *name, const char *defines) {
  uint64_t h = XXH3_64bits(family, strlen(family));
  h = XXH3_64bits_withSeed(name, strlen(name), h);
  return XXH3_64bits_withSeed(defines, strlen(defines), h);
}

/* Where the kernel is, or where it would go. */
static opencl_kernel **slot_of(const kernel_table *t, const char *family, const char *name, const char *defines) {
  size_t mask = t->slot_count - 1, i = (size_t)hash_of(family, name, defines) & mask;
  for (;; i = (i + 1) & mask) {
    opencl_kernel *k = t->slots[i];
    if (!k) return &t->slots[i];
    if (strcmp(k->name, name) == 0 && strcmp(k->family, family) == 0 && strcmp(k->defines, defines) == 0)
      return &t->slots[i];
  }
}

static bool grow(kernel_table *t) {
  if (2 * (t->kernel_count + 1) <= t->slot_count) return true;
  kernel_table larger = *t;
  larger.slot_count = t->slot_count ? 2 * t->slot_count : 64;
  larger.slots = calloc(larger.slot_count, sizeof *larger.slots);
  if (!larger.slots) return false;
  for (size_t i = 0; i < t->slot_count; i++) {
    opencl_kernel *k = t->slots[i];
    if (k) *slot_of(&larger, k->family, k->name, k->defines) = k;
  }
  free(t->slots);
  *t = larger;
  return true;
}

static clm_status program_get(clm_context *ctx, kernel_table *t, const char *family, const char *defines,
                              cl_program *program) {
  for (size_t i = 0; i < t->program_count; i++)
    if (strcmp(t->programs[i].family, family) == 0 && strcmp(t->programs[i].defines, defines) == 0) {
      *program = t->programs[i].program;
      return CLM_OK;
    }
  built_program *grown = realloc(t->programs, (t->program_count + 1) * sizeof *grown);
  if (!grown) return context_fail(ctx, CLM_OUT_OF_MEMORY, "opencl: no host memory for a program");
  t->programs = grown;
  built_program p = {.program = NULL};
  char *unused;
  if (!copy_texts(family, defines, "", &p.family, &p.defines, &unused))
    return context_fail(ctx, CLM_OUT_OF_MEMORY, "opencl: no host memory for a program");
  clm_status status = opencl_program_build(ctx, family, defines, false, &p.program);
  if (status) {
    free(p.family);
    return status;
  }
  t->programs[t->program_count++] = p;
  *program = p.program;
  return CLM_OK;
}

static clm_status make_kernel(clm_context *ctx, cl_program program, const char *family, const char *name,
                              const char *defines, opencl_kernel **made) {
  cl_int error;
  opencl_kernel *k = calloc(1, sizeof *k);
  if (!k || !copy_texts(family, name, defines, &k->family, &k->name, &k->defines)) {
    free(k);
    return context_fail(ctx, CLM_OUT_OF_MEMORY, "opencl: no host memory for a kernel");
  }
  k->kernel = clCreateKernel(program, name, &error);
  if (error == CL_SUCCESS) {
    error = clGetKernelWorkGroupInfo(k->kernel, opencl_state_of(ctx)->device.id, CL_KERNEL_WORK_GROUP_SIZE,
                                     sizeof k->max_work_group, &k->max_work_group, NULL);
    if (error == CL_SUCCESS) {
      *made = k;
      return CLM_OK;
    }
    clReleaseKernel(k->kernel);
  }
  free(k->family);
  free(k);
  return context_fail(ctx, CLM_DEVICE_ERROR, "opencl: kernel %s of %s.cl (%s) could not be made: %s", name, family,
                      defines, opencl_error_name(error));
}

clm_status opencl_kernel_get(clm_context *ctx, const char *family, const char *name, const char *defines,
                             opencl_kernel **kernel) {
  opencl_state *s = opencl_state_of(ctx);
  kernel_table *t = s->kernels;
  *kernel = NULL;
  if (!t && !(t = s->kernels = calloc(1, sizeof *t)))
    return context_fail(ctx, CLM_OUT_OF_MEMORY, "opencl: no host memory for kernels");
  if (!grow(t)) return context_fail(ctx, CLM_OUT_OF_MEMORY, "opencl: no host memory for kernels");
  opencl_kernel **slot = slot_of(t, family, name, defines);
  if (!*slot) {
    cl_program program = NULL;
    clm_status status = program_get(ctx, t, family, defines, &program);
    if (status == CLM_OK) status = make_kernel(ctx, program, family, name, defines, slot);
    if (status) return status;
    t->kernel_count++;
  }
  *kernel = *slot;
  return CLM_OK;
}

void opencl_kernels_destroy(kernel_table *t) {
  if (!t) return;
  for (size_t i = 0; i < t->slot_count; i++)
    if (t->slots[i]) {
      clReleaseKernel(t->slots[i]->kernel);
      free(t->slots[i]->family);
      free(t->slots[i]);
    }
  for (size_t i = 0; i < t->program_count; i++) {
    clReleaseProgram(t->programs[i].program);
    free(t->programs[i].family);
  }
  free(t->slots);
  free(t->programs);
  free(t);
}

size_t opencl_kernel_max_work_group(const opencl_kernel *k) { return k->max_work_group; }

size_t opencl_kernel_work_group(const opencl_kernel *k, size_t wanted) {
  size_t size = 1;
  while (2 * size <= wanted && 2 * size <= k->max_work_group) size *= 2;
  return size;
}

static cl_int set_buffer(cl_kernel kernel, cl_uint *index, const clm_buffer *buffer) {
  cl_mem memory = buffer ? buffer->device : NULL;
  return clSetKernelArg(kernel, (*index)++, sizeof memory, &memory);
}

static cl_int set_arg(cl_kernel kernel, cl_uint *index, const kernel_arg *arg) {
  switch (arg->kind) {
  case KERNEL_TENSOR: {
    const clm_tensor *t = arg->value.tensor;
    cl_long offset = t->buffer ? (cl_long)(t->offset / clm_dtype_size(t->dtype)) : 0;
    cl_int error = set_buffer(kernel, index, t->buffer);
    return error ? error : clSetKernelArg(kernel, (*index)++, sizeof offset, &offset);
  }
  case KERNEL_BUFFER: return set_buffer(kernel, index, arg->value.buffer);
  case KERNEL_LOCAL: return clSetKernelArg(kernel, (*index)++, arg->value.bytes, NULL);
  case KERNEL_I32: return clSetKernelArg(kernel, (*index)++, sizeof(cl_int), &arg->value.i32);
  case KERNEL_I64: return clSetKernelArg(kernel, (*index)++, sizeof(cl_long), &arg->value.i64);
  case KERNEL_U64: return clSetKernelArg(kernel, (*index)++, sizeof(cl_ulong), &arg->value.u64);
  case KERNEL_LONG8: return clSetKernelArg(kernel, (*index)++, sizeof(cl_long8), arg->value.long8);
  case KERNEL_STRUCT: return clSetKernelArg(kernel, (*index)++, arg->value.by_value.bytes, arg->value.by_value.data);
  case KERNEL_F32: return clSetKernelArg(kernel, (*index)++, sizeof(cl_float), &arg->value.f32);
  }
  return CL_INVALID_ARG_VALUE;
}

/* A work-group where the launcher leaves it to the driver. On a CPU drivers take all there is and compile the kernel
 * again for every size that they meet: there it is a power of two, one of few. */
static const size_t *work_group_of(const opencl_state *s, int dims, const size_t *global, size_t *chosen) {
  if (s->device.info.type != CLM_DEVICE_CPU) return NULL;
  const size_t most = s->device.info.max_work_group;
  size_t left = most < 64 ? most : 64;
  for (int i = 0; i < dims; i++) {
    chosen[i] = 1;
    while (2 * chosen[i] <= left && 2 * chosen[i] <= s->device.widest[i] && global[i] % (2 * chosen[i]) == 0)
      chosen[i] *= 2;
    left /= chosen[i];
  }
  return chosen;
}

clm_status opencl_kernel_run(clm_context *ctx, opencl_kernel *k, int dims, const size_t *global, const size_t *local,
                             const kernel_arg *args, size_t arg_count) {
  opencl_state *s = opencl_state_of(ctx);
  if (s->dry_run) return CLM_OK;
  size_t rounded[3] = {1, 1, 1}, chosen[3];
  if (!local) local = work_group_of(s, dims, global, chosen);
  for (int i = 0; i < dims; i++) {
    if (global[i] == 0) return CLM_OK;
    rounded[i] = local ? (global[i] + local[i] - 1) / local[i] * local[i] : global[i];
  }
  cl_uint index = 0;
  for (size_t i = 0; i < arg_count; i++) {
    cl_int error = set_arg(k->kernel, &index, &args[i]);
    if (error)
      return context_fail(ctx, CLM_DEVICE_ERROR, "opencl: kernel %s: argument %u was refused with %s", k->name,
                          index - 1, opencl_error_name(error));
  }
  cl_event event = NULL;
  cl_int error = clEnqueueNDRangeKernel(s->queue, k->kernel, (cl_uint)dims, NULL, rounded, local, 0, NULL,
                                        opencl_event_slot(s, &event));
  if (error) {
    char what[160];
    snprintf(what, sizeof what, "kernel %s over %zu x %zu x %zu work-items", k->name, rounded[0], rounded[1],
             rounded[2]);
    return opencl_check(ctx, error, what);
  }
  clm_status status = event && s->trace ? opencl_event_trace(ctx, k->name, event) : CLM_OK;
  if (event) opencl_event_keep(s, event);
  return status;
}
