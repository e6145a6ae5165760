/* A folder of a test's own, the files that it writes there, and the message of a call that must fail. */
#ifndef TEST_MODEL_FOLDER_H
#define TEST_MODEL_FOLDER_H

#include <clmamba/model.h>

extern char test_folder[];

bool folder_make(void);

/* Removes the folder and every file in it; false: something else was there. */
bool folder_remove(void);

/* "folder/name" in memory that the next call but three reuses. */
const char *in_folder(const char *name);

void folder_empty(void);

/* A growing piece of memory: what a file will be. */
typedef struct bytes {
  unsigned char *data;
  size_t count, capacity;
} bytes;

void put(bytes *b, const void *data, size_t count);
void put_number(bytes *b, uint64_t number, size_t count); /* little endian */
void put_text(bytes *b, const char *text);                /* without its zero byte */
void bytes_release(bytes *b);

void write_file(const char *name, const void *data, size_t count);
bytes read_file(const char *name);

/* The last call on `context` gave `want`, and its message has `part` in it. */
void expect_failure(clm_context *context, clm_status got, clm_status want, const char *part);

#endif
