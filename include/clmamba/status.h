/* What every call returns. The message that explains a failure is clm_context_error(). */
#ifndef CLMAMBA_STATUS_H
#define CLMAMBA_STATUS_H

#include <clmamba/export.h>

CLM_BEGIN_DECLS

#define CLM_STATUS_LIST(X)                                                                                           \
  X(CLM_OK, "success")                                                                                               \
  X(CLM_INVALID_ARGUMENT, "invalid argument")                                                                        \
  X(CLM_UNSUPPORTED, "not supported by this backend or device")                                                      \
  X(CLM_OUT_OF_MEMORY, "out of memory")                                                                              \
  X(CLM_NO_DEVICE, "no such device")                                                                                 \
  X(CLM_DEVICE_ERROR, "device error")                                                                                \
  X(CLM_BUILD_FAILED, "a kernel did not compile")                                                                    \
  X(CLM_IO_ERROR, "input/output error")                                                                              \
  X(CLM_BAD_FORMAT, "malformed file")                                                                                \
  X(CLM_INTERRUPTED, "interrupted")

typedef enum clm_status {
#define X(name, text) name,
  CLM_STATUS_LIST(X)
#undef X
} clm_status;

/* A static string such as "invalid argument"; "unknown status" for a value outside the list. Thread-safe. */
CLM_API const char *clm_status_string(clm_status status);

CLM_END_DECLS

#endif
