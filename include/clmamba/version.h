/* The version of these headers; clm_version() is that of the library that is linked. docs/api.md, "Versions", says
 * what a new version may change. */
#ifndef CLMAMBA_VERSION_H
#define CLMAMBA_VERSION_H

#define CLM_VERSION_MAJOR 0
#define CLM_VERSION_MINOR 2
#define CLM_VERSION_PATCH 0

/* True for headers of this version or a newer one, also in #if:
 *
 *   #if CLM_VERSION_AT_LEAST(0, 2, 0)
 */
#define CLM_VERSION_AT_LEAST(major, minor, patch)                                                                    \
  (CLM_VERSION_MAJOR > (major) ||                                                                                    \
   (CLM_VERSION_MAJOR == (major) &&                                                                                  \
    (CLM_VERSION_MINOR > (minor) || (CLM_VERSION_MINOR == (minor) && CLM_VERSION_PATCH >= (patch)))))

#endif
