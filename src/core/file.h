/* Whole files, read and written: a writer leaves either the old file or the new one, never a part. */
#ifndef CLM_CORE_FILE_H
#define CLM_CORE_FILE_H

#include "core/output_file.h"
#include <clmamba/context.h>

/* "directory/name", to be freed; NULL when out of memory. */
char *file_path(const char *directory, const char *name);

/* Reads a file of at most `limit` bytes; *data (to be freed) has a zero byte after its end. */
clm_status file_read(clm_context *context, const char *path, size_t limit, char **data, size_t *bytes);

/* A regular file that is open for reading. Files are read and never mapped: a page of a mapped file that became
 * shorter kills the process (SIGBUS), a read of it fails with a message. */
typedef struct file_input {
  int fd; /* -1: closed */
  size_t bytes;
} file_input;
#define FILE_INPUT_CLOSED ((file_input){.fd = -1})

/* What is no regular file is refused at once, also a FIFO that nobody writes to; and so is the pointer that Git LFS
 * leaves in place of a file. */
clm_status file_open(clm_context *context, const char *path, file_input *input);
clm_status file_read_at(clm_context *context, const char *path, const file_input *input, uint64_t offset,
                        size_t bytes, void *out);
void file_input_close(file_input *input);

/* Whether it is a regular file that begins with `text`, of at most 16 bytes. */
bool file_begins_with(const char *path, const char *text);

/* A file written bit by bit (core/output_file.h): file_close puts it in its place, or removes it where `status`, or
 * what was written, is not well. A failure of output_file_write is kept, and is file_close's to tell. */
clm_status file_create(clm_context *context, const char *path, output_file *output);
clm_status file_close(clm_context *context, const char *path, output_file *output, clm_status status);

typedef struct file_part {
  const void *data;
  size_t bytes;
} file_part;

/* Writes the parts one after another, as above. */
clm_status file_replace(clm_context *context, const char *path, const file_part *parts, size_t count);

#endif
