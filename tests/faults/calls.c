/* The calls that the linker hands over (--wrap, meson.build has their names): each fails when it is told to, else
 * goes on to the real one. A call that releases something does so even when it fails. */
#define _GNU_SOURCE
#define CL_TARGET_OPENCL_VERSION 120
#define CL_USE_DEPRECATED_OPENCL_1_1_APIS
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include "inject.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef FAULTS_OPENCL
#include <CL/cl.h>
#endif

/* ---- Files: the disk is full or does not answer ---- */

#define WRAP(type, name, params, args, error, failure)                                                               \
  type __real_##name params;                                                                                         \
  type __wrap_##name params;                                                                                         \
  type __wrap_##name params {                                                                                        \
    if (!fault_here(FAULT_FILES)) return __real_##name args;                                                         \
    errno = error;                                                                                                   \
    return failure;                                                                                                  \
  }

/* glibc has some calls under two names, which are one where files are of 64 bits. */
#define WRAP_BOTH(type, name, params, args, error, failure)                                                          \
  WRAP(type, name, params, args, error, failure)                                                                     \
  WRAP(type, name##64, params, args, error, failure)

WRAP_BOTH(FILE *, fopen, (const char *path, const char *mode), (path, mode), EACCES, NULL)
WRAP(FILE *, fdopen, (int fd, const char *mode), (fd, mode), ENOMEM, NULL)
WRAP(int, fsync, (int fd), (fd), EIO, -1)
WRAP(int, rename, (const char *from, const char *to), (from, to), EACCES, -1)
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode), ENOSPC, -1)
WRAP_BOTH(int, mkstemp, (char *name), (name), ENOSPC, -1)
WRAP(ssize_t, read, (int fd, void *to, size_t bytes), (fd, to, bytes), EIO, -1)
WRAP_BOTH(ssize_t, pread, (int fd, void *to, size_t bytes, off_t at), (fd, to, bytes, at), EIO, -1)
WRAP_BOTH(int, fstat, (int fd, struct stat *about), (fd, about), EIO, -1)
WRAP_BOTH(int, stat, (const char *path, struct stat *about), (path, about), EACCES, -1)
WRAP_BOTH(int, lstat, (const char *path, struct stat *about), (path, about), EACCES, -1)
WRAP(int, access, (const char *path, int mode), (path, mode), EACCES, -1)
WRAP_BOTH(int, ftruncate, (int fd, off_t bytes), (fd, bytes), EIO, -1)
WRAP(int, fchmod, (int fd, mode_t mode), (fd, mode), EPERM, -1)
WRAP_BOTH(off_t, lseek, (int fd, off_t at, int from), (fd, at, from), EIO, -1)
WRAP(int, fseek, (FILE * f, long at, int from), (f, at, from), EIO, -1)
WRAP_BOTH(int, fseeko, (FILE * f, off_t at, int from), (f, at, from), EIO, -1)
WRAP(long, ftell, (FILE * f), (f), EIO, -1)
WRAP_BOTH(off_t, ftello, (FILE * f), (f), EIO, -1)
WRAP(ssize_t, readlink, (const char *path, char *to, size_t bytes), (path, to, bytes), EIO, -1)
WRAP(char *, realpath, (const char *path, char *to), (path, to), EACCES, NULL)
/* Memory that is not a file's is asked for to learn whether there is room (cpu/openblas.c): where there is none,
 * products are another function's, and the last bits of a result others. */
#define MMAP(name)                                                                                                   \
  void *__real_##name(void *at, size_t bytes, int what, int how, int fd, off_t from);                                \
  void *__wrap_##name(void *at, size_t bytes, int what, int how, int fd, off_t from);                                \
  void *__wrap_##name(void *at, size_t bytes, int what, int how, int fd, off_t from) {                               \
    if (fd < 0 || !fault_here(FAULT_FILES)) return __real_##name(at, bytes, what, how, fd, from);                    \
    errno = ENOMEM;                                                                                                  \
    return MAP_FAILED;                                                                                               \
  }
MMAP(mmap)
MMAP(mmap64)

#define OPEN(name)                                                                                                   \
  int __real_##name(const char *path, int flags, ...);                                                               \
  int __wrap_##name(const char *path, int flags, ...);                                                               \
  int __wrap_##name(const char *path, int flags, ...) {                                                              \
    va_list more;                                                                                                    \
    va_start(more, flags);                                                                                           \
    int mode = flags & O_CREAT ? va_arg(more, int) : 0;                                                              \
    va_end(more);                                                                                                    \
    if (!fault_here(FAULT_FILES)) return __real_##name(path, flags, mode);                                           \
    errno = EMFILE;                                                                                                  \
    return -1;                                                                                                       \
  }
OPEN(open)
OPEN(open64)

#define OPEN_AT(name)                                                                                                \
  int __real_##name(int folder, const char *path, int flags, ...);                                                   \
  int __wrap_##name(int folder, const char *path, int flags, ...);                                                   \
  int __wrap_##name(int folder, const char *path, int flags, ...) {                                                  \
    va_list more;                                                                                                    \
    va_start(more, flags);                                                                                           \
    int mode = flags & O_CREAT ? va_arg(more, int) : 0;                                                              \
    va_end(more);                                                                                                    \
    if (!fault_here(FAULT_FILES)) return __real_##name(folder, path, flags, mode);                                   \
    errno = EMFILE;                                                                                                  \
    return -1;                                                                                                       \
  }
OPEN_AT(openat)
OPEN_AT(openat64)

/* Half of it gets through. */
ssize_t __real_write(int fd, const void *from, size_t bytes);
ssize_t __wrap_write(int fd, const void *from, size_t bytes);
ssize_t __wrap_write(int fd, const void *from, size_t bytes) {
  if (fd == STDERR_FILENO || !fault_here(FAULT_FILES)) return __real_write(fd, from, bytes);
  if (bytes > 1 && __real_write(fd, from, bytes / 2) < 0) return -1;
  errno = ENOSPC;
  return -1;
}

/* A stream remembers its error, as ferror tells. */
static void spoil(FILE *f) {
  f->_flags |= 0x20; /* glibc's _IO_ERR_SEEN */
  errno = ENOSPC;
}

static bool stream_fails(FILE *f) { return f != stderr && fault_here(FAULT_FILES); }

size_t __real_fwrite(const void *from, size_t size, size_t count, FILE *f);
size_t __wrap_fwrite(const void *from, size_t size, size_t count, FILE *f);
size_t __wrap_fwrite(const void *from, size_t size, size_t count, FILE *f) {
  if (!stream_fails(f)) return __real_fwrite(from, size, count, f);
  size_t half = count > 1 ? __real_fwrite(from, size, count / 2, f) : 0;
  spoil(f);
  return half;
}

size_t __real_fread(void *to, size_t size, size_t count, FILE *f);
size_t __wrap_fread(void *to, size_t size, size_t count, FILE *f);
size_t __wrap_fread(void *to, size_t size, size_t count, FILE *f) {
  if (!stream_fails(f)) return __real_fread(to, size, count, f);
  size_t half = count > 1 ? __real_fread(to, size, count / 2, f) : 0;
  spoil(f);
  errno = EIO;
  return half;
}

/* Calls on a stream: `spoilt` is what they return then. */
#define STREAM(type, name, params, args, f, spoilt)                                                                  \
  type __real_##name params;                                                                                         \
  type __wrap_##name params;                                                                                         \
  type __wrap_##name params {                                                                                        \
    if (!stream_fails(f)) return __real_##name args;                                                                 \
    spoil(f);                                                                                                        \
    return spoilt;                                                                                                   \
  }

STREAM(char *, fgets, (char *to, int size, FILE *f), (to, size, f), f, NULL)
STREAM(int, fgetc, (FILE * f), (f), f, EOF)
STREAM(int, fputs, (const char *text, FILE *f), (text, f), f, EOF)
STREAM(int, fputc, (int c, FILE *f), (c, f), f, EOF)
STREAM(int, putc, (int c, FILE *f), (c, f), f, EOF)
STREAM(int, puts, (const char *text), (text), stdout, EOF)
STREAM(int, putchar, (int c), (c), stdout, EOF)
STREAM(int, fflush, (FILE * f), (f), f ? f : stdout, EOF)
STREAM(int, vfprintf, (FILE * f, const char *format, va_list args), (f, format, args), f, -1)
STREAM(ssize_t, getline, (char **line, size_t *size, FILE *f), (line, size, f), f, -1)

int __wrap_fprintf(FILE *f, const char *format, ...);
int __wrap_fprintf(FILE *f, const char *format, ...) {
  va_list args;
  va_start(args, format);
  int written = __wrap_vfprintf(f, format, args);
  va_end(args);
  return written;
}

int __wrap_printf(const char *format, ...);
int __wrap_printf(const char *format, ...) {
  va_list args;
  va_start(args, format);
  int written = __wrap_vfprintf(stdout, format, args);
  va_end(args);
  return written;
}

int __real_fclose(FILE *f);
int __wrap_fclose(FILE *f);
int __wrap_fclose(FILE *f) {
  bool fails = fault_here(FAULT_FILES);
  int closed = __real_fclose(f);
  if (!fails) return closed;
  errno = ENOSPC;
  return EOF;
}

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd) {
  bool fails = fault_here(FAULT_FILES);
  int closed = __real_close(fd);
  if (!fails) return closed;
  errno = EIO;
  return -1;
}

/* ---- Threads ---- */

typedef struct thread_start {
  void *(*run)(void *);
  void *arg;
} thread_start;

static void *start_watched(void *arg) {
  thread_start start = *(thread_start *)arg;
  fault_watch_thread();
  fault_enter_driver();
  free(arg);
  fault_leave_driver();
  return start.run(start.arg);
}

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *arg) {
  if (fault_here(FAULT_THREADS)) return EAGAIN;
  fault_enter_driver();
  thread_start *start = malloc(sizeof *start);
  if (!start) abort();
  *start = (thread_start){run, arg};
  int error = __real_pthread_create(thread, how, start_watched, start);
  if (error) free(start);
  fault_leave_driver();
  return error;
}

/* The loader keeps what it has loaded. */
void *__real_dlopen(const char *path, int how);
void *__wrap_dlopen(const char *path, int how);
void *__wrap_dlopen(const char *path, int how) {
  fault_enter_driver();
  void *library = __real_dlopen(path, how);
  fault_leave_driver();
  return library;
}

/* ---- OpenCL ---- */

#ifdef FAULTS_OPENCL

#define CL_FAILURE CL_OUT_OF_HOST_MEMORY

/* Calls that return a status; `objects`: how many more there are after a success. */
#define CL_CALL(name, params, args, objects)                                                                         \
  cl_int __real_##name params;                                                                                       \
  cl_int __wrap_##name params;                                                                                       \
  cl_int __wrap_##name params {                                                                                      \
    if (fault_here(FAULT_OPENCL)) return CL_FAILURE;                                                                 \
    fault_enter_driver();                                                                                            \
    cl_int error = __real_##name args;                                                                               \
    if (error == CL_SUCCESS) fault_opencl_objects(objects);                                                          \
    fault_leave_driver();                                                                                            \
    return error;                                                                                                    \
  }

/* Calls that return an object. */
#define CL_MAKE(type, name, params, args, objects)                                                                   \
  type __real_##name params;                                                                                         \
  type __wrap_##name params;                                                                                         \
  type __wrap_##name params {                                                                                        \
    if (fault_here(FAULT_OPENCL)) {                                                                                  \
      *error = CL_FAILURE;                                                                                           \
      return NULL;                                                                                                   \
    }                                                                                                                \
    fault_enter_driver();                                                                                            \
    type made = __real_##name args;                                                                                  \
    if (made) fault_opencl_objects(objects);                                                                         \
    fault_leave_driver();                                                                                            \
    return made;                                                                                                     \
  }

#define CL_RELEASE(name, type)                                                                                       \
  cl_int __real_##name(type object);                                                                                 \
  cl_int __wrap_##name(type object);                                                                                 \
  cl_int __wrap_##name(type object) {                                                                                \
    bool fails = fault_here(FAULT_OPENCL);                                                                           \
    fault_enter_driver();                                                                                            \
    cl_int error = __real_##name(object);                                                                            \
    if (error == CL_SUCCESS) fault_opencl_objects(-1);                                                               \
    fault_leave_driver();                                                                                            \
    return fails ? CL_FAILURE : error;                                                                               \
  }

CL_CALL(clGetPlatformIDs, (cl_uint room, cl_platform_id *ids, cl_uint *count), (room, ids, count), 0)
CL_CALL(clGetPlatformInfo, (cl_platform_id id, cl_platform_info what, size_t room, void *to, size_t *size),
        (id, what, room, to, size), 0)
CL_CALL(clGetDeviceIDs, (cl_platform_id id, cl_device_type type, cl_uint room, cl_device_id *ids, cl_uint *count),
        (id, type, room, ids, count), 0)
CL_CALL(clGetDeviceInfo, (cl_device_id id, cl_device_info what, size_t room, void *to, size_t *size),
        (id, what, room, to, size), 0)
CL_MAKE(cl_context, clCreateContext,
        (const cl_context_properties *properties, cl_uint count, const cl_device_id *ids,
         void(CL_CALLBACK *notify)(const char *, const void *, size_t, void *), void *user, cl_int *error),
        (properties, count, ids, notify, user, error), 1)
CL_CALL(clRetainContext, (cl_context context), (context), 1)
CL_RELEASE(clReleaseContext, cl_context)
CL_MAKE(cl_command_queue, clCreateCommandQueue,
        (cl_context context, cl_device_id id, cl_command_queue_properties properties, cl_int *error),
        (context, id, properties, error), 1)
CL_CALL(clRetainCommandQueue, (cl_command_queue queue), (queue), 1)
CL_RELEASE(clReleaseCommandQueue, cl_command_queue)
CL_CALL(clGetCommandQueueInfo,
        (cl_command_queue queue, cl_command_queue_info what, size_t room, void *to, size_t *size),
        (queue, what, room, to, size), 0)
CL_CALL(clFinish, (cl_command_queue queue), (queue), 0)
CL_CALL(clFlush, (cl_command_queue queue), (queue), 0)
CL_MAKE(cl_mem, clCreateBuffer, (cl_context context, cl_mem_flags flags, size_t size, void *memory, cl_int *error),
        (context, flags, size, memory, error), 1)
CL_CALL(clRetainMemObject, (cl_mem memory), (memory), 1)
CL_RELEASE(clReleaseMemObject, cl_mem)
CL_CALL(clGetMemObjectInfo, (cl_mem memory, cl_mem_info what, size_t room, void *to, size_t *size),
        (memory, what, room, to, size), 0)
CL_CALL(clEnqueueWriteBuffer,
        (cl_command_queue queue, cl_mem memory, cl_bool wait, size_t at, size_t bytes, const void *from,
         cl_uint count, const cl_event *list, cl_event *event),
        (queue, memory, wait, at, bytes, from, count, list, event), event != NULL)
CL_CALL(clEnqueueReadBuffer,
        (cl_command_queue queue, cl_mem memory, cl_bool wait, size_t at, size_t bytes, void *to, cl_uint count,
         const cl_event *list, cl_event *event),
        (queue, memory, wait, at, bytes, to, count, list, event), event != NULL)
CL_MAKE(void *, clEnqueueMapBuffer,
        (cl_command_queue queue, cl_mem memory, cl_bool wait, cl_map_flags flags, size_t at, size_t bytes,
         cl_uint count, const cl_event *list, cl_event *event, cl_int *error),
        (queue, memory, wait, flags, at, bytes, count, list, event, error), event != NULL)
CL_CALL(clEnqueueUnmapMemObject,
        (cl_command_queue queue, cl_mem memory, void *mapped, cl_uint count, const cl_event *list, cl_event *event),
        (queue, memory, mapped, count, list, event), event != NULL)
CL_CALL(clEnqueueMarkerWithWaitList, (cl_command_queue queue, cl_uint count, const cl_event *list, cl_event *event),
        (queue, count, list, event), event != NULL)
CL_CALL(clEnqueueBarrierWithWaitList, (cl_command_queue queue, cl_uint count, const cl_event *list, cl_event *event),
        (queue, count, list, event), event != NULL)
CL_CALL(clEnqueueNDRangeKernel,
        (cl_command_queue queue, cl_kernel kernel, cl_uint dims, const size_t *offset, const size_t *global,
         const size_t *local, cl_uint count, const cl_event *list, cl_event *event),
        (queue, kernel, dims, offset, global, local, count, list, event), event != NULL)
CL_MAKE(cl_program, clCreateProgramWithSource,
        (cl_context context, cl_uint count, const char **texts, const size_t *lengths, cl_int *error),
        (context, count, texts, lengths, error), 1)
CL_MAKE(cl_program, clCreateProgramWithBinary,
        (cl_context context, cl_uint count, const cl_device_id *ids, const size_t *lengths,
         const unsigned char **binaries, cl_int *loaded, cl_int *error),
        (context, count, ids, lengths, binaries, loaded, error), 1)
CL_CALL(clBuildProgram,
        (cl_program program, cl_uint count, const cl_device_id *ids, const char *options,
         void(CL_CALLBACK *notify)(cl_program, void *), void *user),
        (program, count, ids, options, notify, user), 0)
CL_RELEASE(clReleaseProgram, cl_program)
CL_CALL(clGetProgramInfo, (cl_program program, cl_program_info what, size_t room, void *to, size_t *size),
        (program, what, room, to, size), 0)
CL_CALL(clGetProgramBuildInfo,
        (cl_program program, cl_device_id id, cl_program_build_info what, size_t room, void *to, size_t *size),
        (program, id, what, room, to, size), 0)
CL_MAKE(cl_kernel, clCreateKernel, (cl_program program, const char *name, cl_int *error), (program, name, error), 1)
CL_CALL(clCreateKernelsInProgram, (cl_program program, cl_uint room, cl_kernel *kernels, cl_uint *count),
        (program, room, kernels, count), kernels ? room : 0)
CL_RELEASE(clReleaseKernel, cl_kernel)
CL_CALL(clSetKernelArg, (cl_kernel kernel, cl_uint index, size_t size, const void *value),
        (kernel, index, size, value), 0)
CL_CALL(clGetKernelInfo, (cl_kernel kernel, cl_kernel_info what, size_t room, void *to, size_t *size),
        (kernel, what, room, to, size), 0)
CL_CALL(clGetKernelWorkGroupInfo,
        (cl_kernel kernel, cl_device_id id, cl_kernel_work_group_info what, size_t room, void *to, size_t *size),
        (kernel, id, what, room, to, size), 0)
CL_CALL(clWaitForEvents, (cl_uint count, const cl_event *list), (count, list), 0)
CL_CALL(clGetEventInfo, (cl_event event, cl_event_info what, size_t room, void *to, size_t *size),
        (event, what, room, to, size), 0)
CL_CALL(clGetEventProfilingInfo, (cl_event event, cl_profiling_info what, size_t room, void *to, size_t *size),
        (event, what, room, to, size), 0)
CL_RELEASE(clReleaseEvent, cl_event)

#endif
