/* A file that is written whole or not at all.
 *
 * The data goes to a temporary file with a unique name in the same folder, which is renamed to `path` when everything
 * is on the disk. Two writers of one path therefore leave one whole file, the last one's. The new file keeps the
 * permissions of the one that it replaces. What is no regular file (a device, a FIFO) is opened and written into,
 * since a rename would put a file in its place; of a symbolic link the file that it points to is replaced, never the
 * link.
 *
 * Nothing here knows a context, so that the tools have it too. */
#ifndef CLM_CORE_OUTPUT_FILE_H
#define CLM_CORE_OUTPUT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct output_file {
  FILE *stream;    /* NULL: closed, or never opened                                                       */
  char *path;      /* where the data is to appear: as it was given, or what the link points to            */
  char *temporary; /* NULL: written into `path`                                                           */
  int error;       /* errno of the first failure; one of the stream alone is found by output_file_close   */
} output_file;

/* 0, or errno. After a failure there is nothing to close. */
int output_file_open(output_file *file, const char *path);

/* False after any failure so far, which output_file_close returns. */
bool output_file_write(output_file *file, const void *data, size_t bytes);

/* Brings what was written to the disk, so that output_file_close has nothing left to do that fails for want of room:
 * for several files of which all or none are to appear. False after any failure so far. */
bool output_file_sync(output_file *file);

/* Puts the file in its place if `keep` and all was written, else removes it. 0, or errno; 0 if not `keep`. */
int output_file_close(output_file *file, bool keep);

#endif
