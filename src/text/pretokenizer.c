#include "text/pretokenizer.h"
#include "core/context.h"
#include "core/try.h"
#include "text/byte_level.h"
#include <string.h>

static clm_status from_stage(pretokenizer_run *run, size_t stage, byte_string piece);

/* The parts of one piece as they come, and the piece that they make under a behaviour. */
typedef struct splitter {
  pretokenizer_run *run;
  size_t stage; /* the next one */
  byte_string text;
  split_behaviour behaviour;
  size_t begin, end; /* what is held back, if `held` */
  bool held, held_matches;
} splitter;

static clm_status emit(splitter *s, size_t begin, size_t end) {
  if (begin > 0) s->run->at_start = false; /* and so for all that follow */
  return from_stage(s->run, s->stage, (byte_string){s->text.text + begin, end - begin});
}

/* Whether this part continues what is held back. */
static bool joins(const splitter *s, bool matches) {
  switch (s->behaviour) {
  case SPLIT_CONTIGUOUS: return matches == s->held_matches;
  case SPLIT_MERGED_WITH_PREVIOUS: return matches && !s->held_matches;
  case SPLIT_MERGED_WITH_NEXT: return !matches && s->held_matches;
  default: return false;
  }
}

static clm_status take_part(splitter *s, size_t begin, size_t end, bool matches) {
  if (s->behaviour == SPLIT_REMOVED && matches) return CLM_OK;
  bool joined = s->held && joins(s, matches);
  if (s->held && !joined) TRY(emit(s, s->begin, s->end));
  if (!joined) s->begin = begin;
  s->end = end;
  s->held = true;
  s->held_matches = matches;
  return CLM_OK;
}

static clm_status split(pretokenizer_run *run, size_t stage, byte_string piece) {
  const pretokenizer_stage *how = &run->pretokenizer->stages[stage];
  splitter s = {.run = run, .stage = stage + 1, .text = piece, .behaviour = how->behaviour};
  pattern_search search = {.pattern = how->pattern, .scratch = run->scratch, .text = piece};
  size_t done = 0, begin = 0, end = 0;
  for (bool found;; done = end) {
    TRY(pattern_next(run->context, &search, &found, &begin, &end));
    if (!found) break;
    if (begin > done) TRY(take_part(&s, done, begin, how->invert));
    TRY(take_part(&s, begin, end, !how->invert));
  }
  if (piece.bytes > done) TRY(take_part(&s, done, piece.bytes, how->invert));
  return s.held ? emit(&s, s.begin, s.end) : CLM_OK;
}

static bool metaspace_append(byte_buffer *to, const metaspace *m, bool at_start, byte_string piece) {
  const size_t bytes = strlen(m->replacement);
  const bool begins =
      piece.text[0] == ' ' || (piece.bytes >= bytes && memcmp(piece.text, m->replacement, bytes) == 0);
  bool ok = true;
  if (!begins && (m->prepend == METASPACE_ALWAYS || (m->prepend == METASPACE_FIRST && at_start)))
    ok = bytes_append(to, m->replacement, bytes);
  for (size_t at = 0, end; at < piece.bytes && ok; at = end) {
    const char *space = memchr(piece.text + at, ' ', piece.bytes - at);
    end = space ? (size_t)(space - piece.text) : piece.bytes;
    ok = bytes_append(to, piece.text + at, end - at) && (!space || bytes_append(to, m->replacement, bytes));
    if (space) end++;
  }
  return ok;
}

static clm_status from_stage(pretokenizer_run *run, size_t stage, byte_string piece) {
  if (piece.bytes == 0) return CLM_OK;
  if (stage == run->pretokenizer->count) return run->word(run->user, piece);
  byte_buffer *buffer = &run->buffers[stage];
  buffer->bytes = 0;
  bool ok = true;
  switch (run->pretokenizer->stages[stage].kind) {
  case PRETOKENIZER_SPLIT: return split(run, stage, piece);
  case PRETOKENIZER_PREFIX:
    if (piece.text[0] == ' ') return from_stage(run, stage + 1, piece);
    ok = bytes_append(buffer, " ", 1) && bytes_append(buffer, piece.text, piece.bytes);
    break;
  case PRETOKENIZER_BYTE_LEVEL: ok = byte_level_append(buffer, piece); break;
  case PRETOKENIZER_METASPACE:
    ok = metaspace_append(buffer, &run->pretokenizer->stages[stage].metaspace, run->at_start, piece);
    break;
  }
  if (!ok) return context_fail(run->context, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  return from_stage(run, stage + 1, bytes_of(buffer));
}

clm_status pretokenizer_apply(pretokenizer_run *run, byte_string text, bool at_start) {
  run->at_start = at_start;
  return from_stage(run, 0, text);
}

void pretokenizer_run_free(pretokenizer_run *run) {
  for (size_t i = 0; i < PRETOKENIZER_STAGES; i++) bytes_free(&run->buffers[i]);
}

void pretokenizer_free(pretokenizer *p) {
  for (size_t i = 0; i < p->count; i++) pcre2_code_free(p->stages[i].pattern);
  p->count = 0;
}
