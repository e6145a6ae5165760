/* What mamba-info knows about one device. */
#ifndef CLM_INFO_H
#define CLM_INFO_H

#include <clmamba/clmamba.h>

typedef struct info_variant { /* how an operation would run at a typical shape */
  const char *op;
  char *explain; /* clm_context_explain, or the error's message */
  bool failed;
} info_variant;

typedef struct info_device {
  char option[32]; /* what --device takes */
  clm_device_info device;
  info_variant *variants; /* ended by a NULL op; NULL if there is no context on this device */
  char *failure;          /* why no context could be made */
} info_device;

/* The name of the device that --device auto takes. */
void info_automatic(char *name, size_t size);

/* Fills device (for the CPU), variants and failure by creating a context and running small probes. False: out of
 * memory. */
bool info_probe(info_device *entry);
void info_free(info_device *entry);

void info_print_brief(const info_device *entries, size_t count);
void info_print_text(const info_device *entries, size_t count, const char *automatic);
/* False: out of memory, and nothing was printed. */
bool info_print_json(const info_device *entries, size_t count, const char *automatic);

#endif
