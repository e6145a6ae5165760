/* TRY(call) returns the call's status from the function it stands in, unless that is CLM_OK. */
#ifndef CLM_CORE_TRY_H
#define CLM_CORE_TRY_H

#define TRY(call)                                                                                                    \
  do {                                                                                                               \
    clm_status try_status = (call);                                                                                  \
    if (try_status) return try_status;                                                                               \
  } while (0)

#endif
