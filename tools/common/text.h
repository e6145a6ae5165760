/* Texts and directories as the language-model tools read and make them; messages go to stderr. */
#ifndef CLM_TOOLS_TEXT_H
#define CLM_TOOLS_TEXT_H

#include <clmamba/tokenizer.h>

typedef struct text_file {
  char *data;
  size_t bytes;
} text_file;

/* Reads a whole file that must not be empty; "-" is the standard input. */
bool text_read(const char *path, text_file *text);
void text_free(text_file *text);

/* What messages call such a file. */
const char *text_name(const char *path);

/* The lines of a file that must not be empty, without their ends; they lie in the text that was read. */
typedef struct text_lines {
  text_file text;
  text_file *at;
  size_t count;
} text_lines;
bool text_read_lines(const char *path, text_lines *lines);
void text_free_lines(text_lines *lines);

typedef struct token_list {
  int32_t *ids;
  size_t count;
} token_list;

/* All tokens of a text; `path` is named if it cannot be encoded. */
bool text_encode(const clm_tokenizer *tokenizer, clm_context *context, const text_file *text, const char *path,
                 token_list *tokens);

/* "directory/name" in static memory that the next call reuses. */
const char *text_path(const char *directory, const char *name);

#endif
