#include <clmamba/context.h>
#include <clmamba/version.h>

const char *clm_status_string(clm_status status) {
  switch (status) {
#define X(name, text)                                                                                                \
  case name: return text;
    CLM_STATUS_LIST(X)
#undef X
  }
  return "unknown status";
}

#define TEXT(x)          #x
#define VERSION(a, b, c) TEXT(a) "." TEXT(b) "." TEXT(c)

const char *clm_version(void) { return VERSION(CLM_VERSION_MAJOR, CLM_VERSION_MINOR, CLM_VERSION_PATCH); }
