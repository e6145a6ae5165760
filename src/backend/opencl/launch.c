/* Kernels of a context, found by hash of family, name and defines; a repeated launch allocates nothing. */
/* A key holds three texts: these are hashed and compared, not the pointers to them. */
#define HASH_FUNCTION(key, bytes, hash) ((hash) = hash_of(key))
#define HASH_KEYCMP(a, b, bytes)        compare_keys(a, b)
#include "backend/opencl/opencl.h"
#include "core/hash_table.h"
#include "core/try.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct kernel_key {
  const char *family, *name, *defines;
} kernel_key;

struct opencl_kernel {
  UT_hash_handle hh;
  kernel_key key;
  char *texts; /* of the key */
  cl_kernel kernel;
  size_t max_work_group;
  bool counted; /* it takes as many arguments as it is given */
};

typedef struct built_program {
  UT_hash_handle hh;
  kernel_key key; /* without a name */
  char *texts;
  cl_program program;
} built_program;

struct kernel_table { /* hash tables */
  opencl_kernel *kernels;
  built_program *programs;
};

/* Copies a key's texts into one block, which the caller frees; NULL: out of memory. */
static char *copy_key(const kernel_key *key, kernel_key *copy) {
  size_t family = strlen(key->family) + 1, name = strlen(key->name) + 1, defines = strlen(key->defines) + 1;
  char *block = malloc(family + name + defines);
  if (!block) return NULL;
  copy->family = memcpy(block, key->family, family);
  copy->name = memcpy(block + family, key->name, name);
  copy->defines = memcpy(block + family + name, key->defines, defines);
  return block;
}

static unsigned hash_of(const kernel_key *key) {
  uint64_t h = XXH3_64bits(key->family, strlen(key->family));
  h = XXH3_64bits_withSeed(key->name, strlen(key->name), h);
  return (unsigned)XXH3_64bits_withSeed(key->defines, strlen(key->defines), h);
}

static int compare_keys(const void *a, const void *b) {
  const kernel_key *x = a, *y = b;
  return strcmp(x->name, y->name) != 0 || strcmp(x->family, y->family) != 0 || strcmp(x->defines, y->defines) != 0;
}

static void free_program(built_program *p) {
  if (!p) return;
  if (p->program) clReleaseProgram(p->program);
  free(p->texts);
  free(p);
}

static void free_kernel(opencl_kernel *k) {
  if (!k) return;
  if (k->kernel) clReleaseKernel(k->kernel);
  free(k->texts);
  free(k);
}

static clm_status no_memory(clm_context *ctx) {
  return context_fail(ctx, CLM_OUT_OF_MEMORY, "opencl: no host memory for a kernel");
}

static clm_status fill_program(clm_context *ctx, const kernel_key *key, built_program *p) {
  p->texts = copy_key(key, &p->key);
  return p->texts ? opencl_program_build(ctx, key->family, key->defines, false, &p->program) : no_memory(ctx);
}

static clm_status get_program(clm_context *ctx, kernel_table *t, const kernel_key *of, cl_program *program) {
  const kernel_key key = {of->family, "", of->defines};
  built_program *p;
  HASH_FIND(hh, t->programs, &key, sizeof key, p);
  if (!p) {
    p = calloc(1, sizeof *p);
    clm_status status = p ? fill_program(ctx, &key, p) : no_memory(ctx);
    if (!status) {
      HASH_ADD(hh, t->programs, key, sizeof p->key, p);
      if (!p->hh.tbl) status = no_memory(ctx);
    }
    if (status) {
      free_program(p);
      return status;
    }
  }
  *program = p->program;
  return CLM_OK;
}

static clm_status fill_kernel(clm_context *ctx, kernel_table *t, const kernel_key *key, opencl_kernel *k) {
  cl_program program = NULL;
  cl_int error;
  TRY(get_program(ctx, t, key, &program));
  k->texts = copy_key(key, &k->key);
  if (!k->texts) return no_memory(ctx);
  k->kernel = clCreateKernel(program, key->name, &error);
  if (error == CL_SUCCESS)
    error = clGetKernelWorkGroupInfo(k->kernel, opencl_state_of(ctx)->device.id, CL_KERNEL_WORK_GROUP_SIZE,
                                     sizeof k->max_work_group, &k->max_work_group, NULL);
  if (error == CL_SUCCESS) return CLM_OK;
  return context_fail(ctx, CLM_DEVICE_ERROR, "opencl: kernel %s of %s.cl (%s) could not be made: %s", key->name,
                      key->family, key->defines, opencl_error_name(error));
}

clm_status opencl_kernel_get(clm_context *ctx, const char *family, const char *name, const char *defines,
                             opencl_kernel **kernel) {
  opencl_state *s = opencl_state_of(ctx);
  const kernel_key key = {family, name, defines};
  kernel_table *t = s->kernels;
  opencl_kernel *k;
  *kernel = NULL;
  if (!t && !(t = s->kernels = calloc(1, sizeof *t))) return no_memory(ctx);
  HASH_FIND(hh, t->kernels, &key, sizeof key, k);
  if (!k) {
    k = calloc(1, sizeof *k);
    clm_status status = k ? fill_kernel(ctx, t, &key, k) : no_memory(ctx);
    if (!status) {
      HASH_ADD(hh, t->kernels, key, sizeof k->key, k);
      if (!k->hh.tbl) status = no_memory(ctx);
    }
    if (status) {
      free_kernel(k);
      return status;
    }
  }
  *kernel = k;
  return CLM_OK;
}

void opencl_kernels_destroy(kernel_table *t) {
  if (!t) return;
  opencl_kernel *k, *next_kernel;
  HASH_ITER(hh, t->kernels, k, next_kernel) {
    HASH_DELETE(hh, t->kernels, k);
    free_kernel(k);
  }
  built_program *p, *next_program;
  HASH_ITER(hh, t->programs, p, next_program) {
    HASH_DELETE(hh, t->programs, p);
    free_program(p);
  }
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
    cl_long offset = opencl_offset(t);
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

/* Launchers give a kernel the same number of arguments every time: asked once. */
static clm_status count_args(clm_context *ctx, opencl_kernel *k, cl_uint given) {
  cl_uint taken;
  cl_int error = clGetKernelInfo(k->kernel, CL_KERNEL_NUM_ARGS, sizeof taken, &taken, NULL);
  if (error) return opencl_check(ctx, error, "asking for a kernel's arguments");
  if (taken != given)
    return context_fail(ctx, CLM_DEVICE_ERROR, "opencl: kernel %s takes %u arguments and was given %u", k->key.name,
                        taken, given);
  k->counted = true;
  return CLM_OK;
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
      return context_fail(ctx, CLM_DEVICE_ERROR, "opencl: kernel %s: argument %u was refused with %s", k->key.name,
                          index - 1, opencl_error_name(error));
  }
  clm_status counted = k->counted ? CLM_OK : count_args(ctx, k, index);
  if (counted) return counted;
  cl_event event = NULL;
  cl_int error = clEnqueueNDRangeKernel(s->queue, k->kernel, (cl_uint)dims, NULL, rounded, local, 0, NULL,
                                        opencl_event_slot(s, &event));
  if (error) {
    char what[160];
    snprintf(what, sizeof what, "kernel %s over %zu x %zu x %zu work-items", k->key.name, rounded[0], rounded[1],
             rounded[2]);
    return opencl_check(ctx, error, what);
  }
  clm_status status = event && s->trace ? opencl_event_trace(ctx, k->key.name, event) : CLM_OK;
  if (event) opencl_event_keep(s, event);
  return status;
}
