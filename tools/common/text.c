#include "common/text.h"
#include "common/tool.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool read_all(FILE *f, const char *path, text_file *text) {
  size_t capacity = 0, got;
  do {
    if (text->bytes == capacity) {
      capacity = capacity ? 2 * capacity : (size_t)1 << 16;
      char *larger = realloc(text->data, capacity);
      if (!larger) return tool_fail("out of memory for %s", path), false;
      text->data = larger;
    }
    got = fread(text->data + text->bytes, 1, capacity - text->bytes, f);
    text->bytes += got;
  } while (got > 0);
  if (ferror(f)) return tool_fail("cannot read %s: %s", path, strerror(errno)), false;
  if (text->bytes == 0) return tool_fail("%s is empty", path), false;
  return true;
}

static bool is_standard(const char *path) { return strcmp(path, "-") == 0; }

const char *text_name(const char *path) { return is_standard(path) ? "standard input" : path; }

bool text_read(const char *path, text_file *text) {
  *text = (text_file){0};
  bool standard = is_standard(path);
  FILE *f = standard ? stdin : fopen(path, "rb");
  if (!f) return tool_fail("cannot read %s: %s", path, strerror(errno)), false;
  bool ok = read_all(f, text_name(path), text);
  if (!standard) fclose(f);
  if (!ok) text_free(text);
  return ok;
}

void text_free(text_file *text) {
  free(text->data);
  *text = (text_file){0};
}

bool text_read_lines(const char *path, text_lines *lines) {
  *lines = (text_lines){0};
  if (!text_read(path, &lines->text)) return false;
  const char *end = lines->text.data + lines->text.bytes;
  size_t count = 1;
  for (char *at = lines->text.data; at < end; at++) count += *at == '\n';
  lines->at = calloc(count, sizeof *lines->at);
  if (!lines->at) {
    text_free_lines(lines);
    return tool_fail("out of memory for %s", path), false;
  }
  for (char *at = lines->text.data; at < end;) {
    char *newline = memchr(at, '\n', (size_t)(end - at));
    size_t bytes = newline ? (size_t)(newline - at) : (size_t)(end - at);
    lines->at[lines->count++] = (text_file){at, bytes && at[bytes - 1] == '\r' ? bytes - 1 : bytes};
    at += bytes + 1;
  }
  return true;
}

void text_free_lines(text_lines *lines) {
  text_free(&lines->text);
  free(lines->at);
  *lines = (text_lines){0};
}

/* Writes what fits in `capacity`; tokens->count is how many there are. */
static bool encode_some(const clm_tokenizer *tokenizer, clm_context *context, const text_file *text, const char *path,
                        size_t capacity, token_list *tokens) {
  int32_t *ids = realloc(tokens->ids, capacity * sizeof *ids);
  if (!ids) return tool_fail("out of memory for the tokens of %s", path), false;
  tokens->ids = ids;
  if (clm_tokenizer_encode(tokenizer, text->data, text->bytes, ids, capacity, &tokens->count) == CLM_OK) return true;
  return tool_fail("%s: %s", path, clm_context_error(context)), false;
}

/* There are seldom more tokens than bytes. */
bool text_encode(const clm_tokenizer *tokenizer, clm_context *context, const text_file *text, const char *path,
                 token_list *tokens) {
  *tokens = (token_list){0};
  bool ok = encode_some(tokenizer, context, text, path, text->bytes, tokens);
  if (ok && tokens->count > text->bytes) ok = encode_some(tokenizer, context, text, path, tokens->count, tokens);
  if (ok) return true;
  free(tokens->ids);
  *tokens = (token_list){0};
  return false;
}

const char *text_path(const char *directory, const char *name) {
  static char path[4096];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  return path;
}
