/* The kernel sources of cl/, put into the library by cl/embed.py at build time. */
#ifndef CLM_OPENCL_EMBEDDED_H
#define CLM_OPENCL_EMBEDDED_H

typedef struct embedded_source {
  const char *name; /* "scan.cl", "common.h" */
  const char *text;
} embedded_source;

extern const embedded_source embedded_sources[]; /* ends with a NULL name */

#endif
