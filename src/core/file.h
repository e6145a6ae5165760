/* Whole files, read and written: a writer leaves either the old file or the new one, never a part. */
#ifndef CLM_CORE_FILE_H
#define CLM_CORE_FILE_H

#include "core/output_file.h"
#include <clmamba/context.h>

/* "directory/name", to be freed; NULL when out of memory. */
char *file_path(const char *directory, const char *name);

/* Reads a file of at most `limit` bytes; *data (to be freed) has a zero byte after its end. */
clm_status file_read(clm_context *context, const char *path, size_t limit, char **data, size_t *bytes);

/* A whole file as read-only memory; an empty one has no data. */
typedef struct file_mapping {
  const unsigned char *data;
  size_t bytes;
} file_mapping;

clm_status file_map(clm_context *context, const char *path, file_mapping *mapping);
void file_unmap(file_mapping *mapping);

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
