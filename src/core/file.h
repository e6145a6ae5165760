/* Whole files, read and written: a writer leaves either the old file or the new one, never a part. */
#ifndef CLM_CORE_FILE_H
#define CLM_CORE_FILE_H

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

/* A file written bit by bit to "path.partial"; file_close renames that to `path`, or removes it where `status`, or
 * what was written, is not well. A failure of file_write is kept, and is file_close's to tell. */
typedef struct file_output {
  char *path, *beside;
  void *stream;
  int error; /* errno */
} file_output;

clm_status file_create(clm_context *context, const char *path, file_output *output);
bool file_write(file_output *output, const void *data, size_t bytes);
clm_status file_close(clm_context *context, file_output *output, clm_status status);

typedef struct file_part {
  const void *data;
  size_t bytes;
} file_part;

/* Writes the parts one after another, as above. */
clm_status file_replace(clm_context *context, const char *path, const file_part *parts, size_t count);

#endif
