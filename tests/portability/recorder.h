/* An OpenCL driver that compiles and computes nothing: it keeps the programs that it is asked for. A program linked
 * with it sees one device. */
#ifndef PORTABILITY_RECORDER_H
#define PORTABILITY_RECORDER_H

#include <stddef.h>

/* Called for every program built: its source and its options. */
typedef void (*recorder_program)(const char *source, const char *options);
extern recorder_program recorder_on_program;

/* What the device says of itself. */
typedef struct recorder_device {
  const char *name;
  unsigned compute_units;
  size_t max_work_group;
  unsigned long local_memory_bytes;
} recorder_device;
extern recorder_device recorder_the_device;

#endif
