#include <clmamba/context.h>

const char *clm_status_string(clm_status status) {
  switch (status) {
#define X(name, text)                                                                                                \
  case name: return text;
    CLM_STATUS_LIST(X)
#undef X
  }
  return "unknown status";
}

const char *clm_version(void) { return CLM_VERSION; }
