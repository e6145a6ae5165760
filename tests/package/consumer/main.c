/* An outside program: adds two vectors on the CPU backend through the public headers alone. */
#include <clmamba/clmamba.h>
#include <stdio.h>
#include <string.h>

#if !CLM_VERSION_AT_LEAST(0, 2, 0) ||                                                                                \
    CLM_VERSION_AT_LEAST(CLM_VERSION_MAJOR, CLM_VERSION_MINOR, CLM_VERSION_PATCH + 1)
#error "CLM_VERSION_AT_LEAST is wrong"
#endif

int main(void) {
  enum { N = 1000 };
  static float x[N], y[N];
  const int64_t shape[] = {N};
  clm_context *context = NULL;
  clm_buffer *bx = NULL, *by = NULL;
  for (int i = 0; i < N; i++) x[i] = (float)i, y[i] = 1.0f;
  clm_context_options options = {.device = "cpu"};
  clm_status status = clm_context_create(&options, &context);
  if (status == CLM_OK) status = clm_buffer_wrap_host(context, x, sizeof x, &bx);
  if (status == CLM_OK) status = clm_buffer_wrap_host(context, y, sizeof y, &by);
  if (status == CLM_OK) {
    clm_axpby_args args = {.x = clm_tensor_of(bx, 0, CLM_F32, 1, shape),
                           .out = clm_tensor_of(by, 0, CLM_F32, 1, shape),
                           .alpha = 2.0f,
                           .beta = 1.0f};
    status = clm_axpby(context, &args);
  }
  if (status == CLM_OK) status = clm_context_finish(context);
  clm_buffer_destroy(&bx);
  clm_buffer_destroy(&by);
  clm_context_destroy(&context);
  int wrong = status != CLM_OK;
  for (int i = 0; i < N; i++) wrong += y[i] != 2.0f * (float)i + 1.0f;
  char version[40];
  snprintf(version, sizeof version, "%d.%d.%d", CLM_VERSION_MAJOR, CLM_VERSION_MINOR, CLM_VERSION_PATCH);
  wrong += strcmp(version, clm_version()) != 0; /* headers and library are of one version */
  printf("clmamba %s: %s, %d wrong\n", clm_version(), clm_status_string(status), wrong);
  return wrong != 0;
}
