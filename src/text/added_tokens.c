#include "text/added_tokens.h"
#include "text/normalizer.h"
#include "text/utf8.h"
#include <stdlib.h>

static void *grown(void *old, size_t size, size_t count, size_t *capacity) {
  if (count < *capacity) return old;
  size_t larger = *capacity ? 2 * *capacity : 64;
  void *memory = realloc(old, larger * size);
  if (memory) *capacity = larger;
  return memory;
}

static uint32_t find_child(const added_set *set, uint32_t node, unsigned char byte) {
  if (node == 0) return set->first[byte];
  uint32_t child = set->nodes[node].child;
  while (child && set->nodes[child].byte != byte) child = set->nodes[child].next;
  return child;
}

static uint32_t add_node(added_set *set, uint32_t parent, unsigned char byte) {
  added_node *nodes = grown(set->nodes, sizeof *nodes, set->node_count + 1, &set->node_capacity);
  if (!nodes) return 0;
  set->nodes = nodes;
  if (set->node_count == 0) nodes[set->node_count++] = (added_node){.token = -1};
  uint32_t node = (uint32_t)set->node_count++;
  nodes[node] = (added_node){.token = -1, .byte = byte, .next = parent ? nodes[parent].child : 0};
  if (parent) nodes[parent].child = node;
  else set->first[byte] = node;
  return node;
}

bool added_set_add(added_set *set, byte_string spelling, added_token token) {
  added_token *tokens = grown(set->tokens, sizeof *tokens, set->count, &set->capacity);
  if (!tokens) return false;
  set->tokens = tokens;
  uint32_t node = 0;
  for (size_t i = 0; i < spelling.bytes; i++) {
    unsigned char byte = (unsigned char)spelling.text[i];
    uint32_t child = find_child(set, node, byte);
    if (!child) child = add_node(set, node, byte);
    if (!child) return false;
    node = child;
  }
  if (set->nodes[node].token < 0) set->nodes[node].token = (int32_t)set->count;
  set->tokens[set->count++] = token;
  return true;
}

void added_set_free(added_set *set) {
  free(set->tokens);
  free(set->nodes);
  pcre2_code_free(set->word);
  *set = (added_set){0};
}

/* The longest token at the front of `text`; its bytes, 0 if there is none. */
static size_t match_here(const added_set *set, byte_string text, const added_token **token) {
  size_t longest = 0;
  uint32_t node = 0;
  for (size_t i = 0; i < text.bytes && (node = find_child(set, node, (unsigned char)text.text[i])); i++)
    if (set->nodes[node].token >= 0) {
      *token = &set->tokens[set->nodes[node].token];
      longest = i + 1;
    }
  return longest;
}

/* The character that ends at `end`. */
static byte_string last_character(byte_string text, size_t end) {
  size_t from = end - 1;
  while (from > 0 && ((unsigned char)text.text[from] & 0xc0) == 0x80) from--;
  return (byte_string){text.text + from, end - from};
}

static byte_string next_character(byte_string text, size_t at) {
  size_t end = at + 1;
  while (end < text.bytes && ((unsigned char)text.text[end] & 0xc0) == 0x80) end++;
  return (byte_string){text.text + at, end - at};
}

static bool is_space(byte_string character) {
  uint32_t code = 0;
  return utf8_decode(character.text, character.bytes, &code) && is_white_space(code);
}

static bool stands_alone(const added_search *s, size_t begin, size_t end) {
  const pcre2_code *word = s->set->word;
  return (begin == 0 || !pattern_found(word, s->scratch, last_character(s->text, begin))) &&
         (end == s->text.bytes || !pattern_found(word, s->scratch, next_character(s->text, end)));
}

/* Where the white space before `begin` begins, but not before the last piece ended. */
static size_t left_of_space(const added_search *s, size_t begin) {
  if (begin < s->done) return s->done;
  for (byte_string c; begin > s->done && is_space(c = last_character(s->text, begin)); begin -= c.bytes) {
  }
  return begin;
}

static size_t right_of_space(added_search *s, size_t end) {
  if (end < s->space_end) return s->space_end;
  for (byte_string c; end < s->text.bytes && is_space(c = next_character(s->text, end)); end += c.bytes) {
  }
  return s->space_end = end;
}

static bool take_token(added_search *s, size_t begin, size_t end, const added_token *token, byte_string *piece,
                       int32_t *id) {
  if (token->lstrip) begin = left_of_space(s, begin);
  if (token->rstrip) end = right_of_space(s, end);
  byte_string found = {s->text.text + begin, end > begin ? end - begin : 0};
  *piece = found;
  *id = token->id;
  if (s->done < begin) { /* what lies before it goes first */
    s->waiting = found;
    s->waiting_id = token->id;
    s->is_waiting = true;
    *piece = (byte_string){s->text.text + s->done, begin - s->done};
    *id = -1;
  }
  s->done = end;
  return true;
}

bool added_next(added_search *s, byte_string *piece, int32_t *id) {
  if (s->is_waiting) {
    *piece = s->waiting;
    *id = s->waiting_id;
    s->is_waiting = false;
    return true;
  }
  while (s->set->count && s->at < s->text.bytes) {
    const added_token *token = NULL;
    size_t begin = s->at;
    size_t bytes = match_here(s->set, (byte_string){s->text.text + begin, s->text.bytes - begin}, &token);
    s->at += bytes ? bytes : 1;
    if (bytes == 0 || (s->plain_special && token->special)) continue;
    if (token->single_word && !stands_alone(s, begin, s->at)) continue;
    return take_token(s, begin, s->at, token, piece, id);
  }
  if (s->done >= s->text.bytes) return false;
  *piece = (byte_string){s->text.text + s->done, s->text.bytes - s->done};
  *id = -1;
  s->done = s->text.bytes;
  s->at = s->text.bytes;
  return true;
}
