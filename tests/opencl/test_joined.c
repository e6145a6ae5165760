/* Contexts on a host program's own cl_context, queue and memory, between the host's kernels. */
#include "backend/opencl/opencl.h"
#include "problem.h"
#include <stdio.h>
#include <string.h>

typedef struct host {
  cl_device_id id;
  cl_context context;
  cl_command_queue queue;
} host;

static host host_open(const test_device *device, cl_command_queue_properties properties) {
  const opencl_device *d = &opencl_state_of(device->context)->device;
  cl_int error;
  host h = {.id = d->id};
  cl_context_properties platform[] = {CL_CONTEXT_PLATFORM, (cl_context_properties)d->platform, 0};
  h.context = clCreateContext(platform, 1, &h.id, NULL, NULL, &error);
  assert_int_equal(error, CL_SUCCESS);
  h.queue = clCreateCommandQueue(h.context, h.id, properties, &error);
  if (error != CL_SUCCESS) h.queue = NULL; /* this driver has no such queue */
  return h;
}

static void host_close(host *h) {
  if (h->queue) assert_int_equal(clReleaseCommandQueue(h->queue), CL_SUCCESS);
  assert_int_equal(clReleaseContext(h->context), CL_SUCCESS);
}

static cl_uint references(host *h) {
  cl_uint count = 0;
  assert_int_equal(clGetContextInfo(h->context, CL_CONTEXT_REFERENCE_COUNT, sizeof count, &count, NULL), CL_SUCCESS);
  return count;
}

enum { COUNT = 1000 };

/* The host writes, clmamba doubles and adds, the host reads: no wait in between, and no reference remains. */
static void test_shared(const test_device *device, const void *unused) {
  (void)unused;
  host h = host_open(device, CL_QUEUE_PROFILING_ENABLE);
  assert_non_null(h.queue);
  cl_uint before = references(&h);
  float values[COUNT], results[COUNT];
  for (int i = 0; i < COUNT; i++) values[i] = (float)i;
  cl_int error;
  cl_mem memory = clCreateBuffer(h.context, CL_MEM_READ_WRITE, sizeof values, NULL, &error);
  assert_int_equal(error, CL_SUCCESS);

  clm_context *context;
  clm_buffer *buffer;
  const clm_context_options options = {.profiling = true, .device = "no such thing: it is ignored"};
  assert_int_equal(clm_context_create_opencl(h.context, h.id, h.queue, &options, &context), CLM_OK);
  assert_int_equal(clm_buffer_wrap_cl_mem(context, memory, &buffer), CLM_OK);
  assert_int_equal(clm_buffer_size(buffer), sizeof values);
  clm_tensor x = clm_tensor_of(buffer, 0, CLM_F32, 1, (const int64_t[]){COUNT});
  for (int round = 0; round < 3; round++) {
    values[7] = (float)round;
    assert_int_equal(clEnqueueWriteBuffer(h.queue, memory, CL_FALSE, 0, sizeof values, values, 0, NULL, NULL),
                     CL_SUCCESS);
    double milliseconds = -1;
    assert_int_equal(clm_profile_begin(context), CLM_OK);
    assert_int_equal(clm_axpby(context, &(clm_axpby_args){.out = x, .beta = 2}), CLM_OK);
    if (round == 1) {
      assert_int_equal(clm_profile_end(context, &milliseconds), CLM_OK);
      assert_true(milliseconds >= 0 && milliseconds < 60000);
    }
    assert_int_equal(clEnqueueReadBuffer(h.queue, memory, CL_TRUE, 0, sizeof results, results, 0, NULL, NULL),
                     CL_SUCCESS);
    for (int i = 0; i < COUNT; i++) assert_true(results[i] == 2 * values[i]);
  }
  clm_device_info info, expected;
  assert_int_equal(clm_context_device(context, &info), CLM_OK);
  assert_int_equal(clm_context_device(device->context, &expected), CLM_OK);
  assert_string_equal(info.name, expected.name);
  uint64_t now = 1;
  clm_context_memory(context, &now, NULL);
  assert_true(now < sizeof values); /* wrapped memory is not ours */

  clm_buffer_destroy(&buffer);
  clm_context_destroy(&context);
  assert_int_equal(clReleaseMemObject(memory), CL_SUCCESS);
  assert_int_equal(clFinish(h.queue), CL_SUCCESS); /* the host's queue still lives */
  if (!strstr(device->name, "rusticl")) /* Mesa 22.3 counts references of its own, long after they are needed */
    assert_int_equal(references(&h), before);
  host_close(&h);
}

/* Two queues of the host: clmamba's work waits for an event of the first, and signals one to it. */
static void test_events(const test_device *device, const void *unused) {
  (void)unused;
  host h = host_open(device, 0);
  cl_int error;
  cl_command_queue other = clCreateCommandQueue(h.context, h.id, 0, &error);
  assert_int_equal(error, CL_SUCCESS);
  clm_context *context;
  assert_int_equal(clm_context_create_opencl(h.context, h.id, h.queue, NULL, &context), CLM_OK);
  float values[COUNT], results[COUNT];
  for (int i = 0; i < COUNT; i++) values[i] = (float)(i + 1);
  cl_mem memory = clCreateBuffer(h.context, CL_MEM_READ_WRITE, sizeof values, NULL, &error);
  assert_int_equal(error, CL_SUCCESS);
  clm_buffer *buffer;
  assert_int_equal(clm_buffer_wrap_cl_mem(context, memory, &buffer), CLM_OK);
  clm_tensor x = clm_tensor_of(buffer, 0, CLM_F32, 1, (const int64_t[]){COUNT});

  cl_event gate = clCreateUserEvent(h.context, &error), written, done;
  assert_int_equal(error, CL_SUCCESS);
  assert_int_equal(clEnqueueWriteBuffer(other, memory, CL_FALSE, 0, sizeof values, values, 1, &gate, &written),
                   CL_SUCCESS);
  assert_int_equal(clFlush(other), CL_SUCCESS);
  assert_int_equal(clm_opencl_wait_for_events(context, 1, &written), CLM_OK);
  assert_int_equal(clm_axpby(context, &(clm_axpby_args){.out = x, .beta = 3}), CLM_OK);
  assert_int_equal(clm_opencl_signal_event(context, &done), CLM_OK);
  cl_int state = CL_COMPLETE;
  assert_int_equal(clGetEventInfo(done, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL), CL_SUCCESS);
  assert_true(state > CL_COMPLETE); /* the gate is still shut */
  assert_int_equal(clSetUserEventStatus(gate, CL_COMPLETE), CL_SUCCESS);
  assert_int_equal(clEnqueueReadBuffer(other, memory, CL_TRUE, 0, sizeof results, results, 1, &done, NULL),
                   CL_SUCCESS);
  for (int i = 0; i < COUNT; i++) assert_true(results[i] == 3 * values[i]);

  assert_int_equal(clm_opencl_wait_for_events(context, 0, NULL), CLM_OK);
  assert_int_equal(clm_opencl_wait_for_events(context, 1, NULL), CLM_INVALID_ARGUMENT);
  assert_int_equal(clm_opencl_signal_event(context, NULL), CLM_INVALID_ARGUMENT);
  assert_int_equal(clm_opencl_wait_for_events(test_reference, 1, &done), CLM_INVALID_ARGUMENT);
  assert_int_equal(clm_opencl_signal_event(test_reference, &gate), CLM_INVALID_ARGUMENT);
  clReleaseEvent(gate);
  clReleaseEvent(written);
  clReleaseEvent(done);
  clm_buffer_destroy(&buffer);
  clm_context_destroy(&context);
  clReleaseMemObject(memory);
  clReleaseCommandQueue(other);
  host_close(&h);
}

static void expect_refused(const host *h, cl_context context, cl_device_id id, cl_command_queue queue, bool profiling,
                           const char *message) {
  (void)h;
  char error[256] = "";
  clm_context *created = (clm_context *)(void *)&created;
  const clm_context_options options = {.profiling = profiling, .error = error, .error_size = sizeof error};
  assert_int_equal(clm_context_create_opencl(context, id, queue, &options, &created), CLM_INVALID_ARGUMENT);
  assert_null(created);
  if (!strstr(error, message)) fail_msg("\"%s\" does not say \"%s\"", error, message);
}

static void test_refused(const test_device *device, const void *unused) {
  (void)unused;
  host h = host_open(device, 0), stranger = host_open(device, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE);
  expect_refused(&h, NULL, h.id, h.queue, false, "context is NULL");
  expect_refused(&h, h.context, NULL, h.queue, false, "device is NULL");
  expect_refused(&h, h.context, h.id, NULL, false, "queue is NULL");
  expect_refused(&h, stranger.context, h.id, h.queue, false, "another cl_context");
  expect_refused(&h, h.context, h.id, h.queue, true, "CL_QUEUE_PROFILING_ENABLE");
  if (stranger.queue) expect_refused(&stranger, stranger.context, h.id, stranger.queue, false, "out of order");
  else printf("# %s has no out-of-order queue\n", device->name);

  clm_context *context;
  clm_buffer *buffer = (clm_buffer *)(void *)&buffer;
  cl_int error;
  assert_int_equal(clm_context_create_opencl(h.context, h.id, h.queue, NULL, &context), CLM_OK);
  cl_mem foreign = clCreateBuffer(stranger.context, CL_MEM_READ_WRITE, 64, NULL, &error);
  assert_int_equal(error, CL_SUCCESS);
  assert_int_equal(clm_buffer_wrap_cl_mem(context, foreign, &buffer), CLM_INVALID_ARGUMENT);
  assert_null(buffer);
  assert_non_null(strstr(clm_context_error(context), "another cl_context"));
  assert_int_equal(clm_buffer_wrap_cl_mem(context, NULL, &buffer), CLM_INVALID_ARGUMENT);
  assert_int_equal(clm_buffer_wrap_cl_mem(test_reference, foreign, &buffer), CLM_INVALID_ARGUMENT);
  clReleaseMemObject(foreign);
  clm_context_destroy(&context);
  host_close(&h);
  host_close(&stranger);
}

static void add(void) {
  for (size_t i = 0; i < test_device_count; i++) {
    if (!test_devices[i].opencl) continue;
    test_add(&test_devices[i], test_shared, NULL, "between the host's commands");
    test_add(&test_devices[i], test_events, NULL, "events of the host");
    test_add(&test_devices[i], test_refused, NULL, "queues and memory that are refused");
  }
}

int main(void) { return test_main("joined", add); }
