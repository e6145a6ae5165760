/* An output of a tool: the standard output, or a file that is written whole or not at all (core/output_file.h). */
#ifndef CLM_TOOLS_OUTPUT_H
#define CLM_TOOLS_OUTPUT_H

#include "core/output_file.h"

typedef struct output {
  const char *path; /* the caller's; NULL: the standard output                             */
  FILE *stream;     /* to write to; whether that went well is found by output_close        */
  output_file file;
} output;

/* False: the message is on stderr. */
bool output_open(output *o, const char *path);

/* As output_file_sync. False: the message is on stderr; close the output without keeping it. */
bool output_sync(output *o);

/* Puts the file in its place if `keep` and everything was written; otherwise no file remains. False: the message is
 * on stderr. */
bool output_close(output *o, bool keep);

#endif
