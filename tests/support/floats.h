/* f32 tensors in tests of models: read, poisoned, compared. */
#ifndef TEST_FLOATS_H
#define TEST_FLOATS_H

#include <clmamba/tensor.h>

/* Fails the test, with the context's message, unless `status` is CLM_OK. */
void floats_check(clm_context *context, clm_status status, const char *what);

float *floats_read(clm_context *context, clm_tensor tensor); /* to be freed */
void floats_poison(clm_context *context, clm_tensor tensor);

/* |got - want| <= tolerance (|want| + root mean square of want + least) */
void floats_compare(const char *what, const float *got, const float *want, size_t count, double tolerance,
                    double least);

#endif
