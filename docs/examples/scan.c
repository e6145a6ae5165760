#include <clmamba/clmamba.h>
#include <stdio.h>

int main(void) { /* h[t] = 0.5 h[t-1] + 1 over eight steps, on the best device of this machine */
  float a[8], b[8], h[8];
  for (int t = 0; t < 8; t++) a[t] = 0.5f, b[t] = 1.0f;
  clm_context *context = NULL;
  clm_buffer *buffer = NULL;
  if (clm_context_create(NULL, &context) != CLM_OK) return 1;
  clm_status status = clm_buffer_create(context, 3 * sizeof a, &buffer);
  int64_t shape[] = {1, 8, 1}; /* batch, length, channels */
  clm_assoc_scan_args args = {.a = clm_tensor_of(buffer, 0, CLM_F32, 3, shape),
                              .b = clm_tensor_of(buffer, sizeof a, CLM_F32, 3, shape),
                              .h = clm_tensor_of(buffer, 2 * sizeof a, CLM_F32, 3, shape)};
  if (!status) status = clm_tensor_write(args.a, a, sizeof a);
  if (!status) status = clm_tensor_write(args.b, b, sizeof b);
  if (!status) status = clm_assoc_scan(context, &args);
  if (!status) status = clm_tensor_read(args.h, h, sizeof h);
  if (status) fprintf(stderr, "%s\n", clm_context_error(context));
  for (int t = 0; !status && t < 8; t++) printf("%g ", (double)h[t]); /* 1 1.5 1.75 ... */
  clm_buffer_destroy(&buffer);
  clm_context_destroy(&context);
  return status != CLM_OK;
}
