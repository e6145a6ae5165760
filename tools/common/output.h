/* A text file that appears whole or not at all: written beside its name and renamed when complete. */
#ifndef CLM_TOOLS_OUTPUT_H
#define CLM_TOOLS_OUTPUT_H

#include <stdbool.h>
#include <stdio.h>

typedef struct output {
  FILE *file;
  char *path, *beside; /* NULL: the standard output */
} output;

/* `path` NULL is the standard output. False: the sentence is on stderr. */
bool output_open(output *o, const char *path);

/* Renames if `keep` and everything was written; otherwise no file remains. False: the sentence is on stderr. */
bool output_close(output *o, bool keep);

#endif
