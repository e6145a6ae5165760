#include "core/context.h"
#include "core/try.h"
#include "text/pipeline_json.h"
#include "text/utf8.h"
#include <string.h>

/* GPT-2's, which ByteLevel brings along. */
#define WORDS "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* Numbers as Rust has them: decimal digits, letters that are numbers, and others. */
#define DIGIT "\\p{N}"

/* ASCII's punctuation, and what was punctuation when the table in Rust's unicode_categories was made: without what
 * Unicode has made so since, and with what it has made something else since. */
#define PUNCTUATION                                                                                                  \
  "(?![\\x{61d}\\x{9fd}\\x{a76}\\x{c77}\\x{c84}\\x{1b7d}\\x{1b7e}\\x{2e43}-\\x{2e4f}\\x{2e52}-\\x{2e5d}\\x{10ead}"   \
  "\\x{10f55}-\\x{10f59}\\x{10f86}-\\x{10f89}\\x{1144b}-\\x{1144f}\\x{1145a}\\x{1145b}\\x{1145d}\\x{11660}-"         \
  "\\x{1166c}\\x{116b9}\\x{1183b}\\x{11944}-\\x{11946}\\x{119e2}\\x{11a3f}-\\x{11a46}\\x{11a9a}-\\x{11a9c}"          \
  "\\x{11a9e}-\\x{11aa2}\\x{11c41}-\\x{11c45}\\x{11c70}\\x{11c71}\\x{11ef7}\\x{11ef8}\\x{11fff}\\x{12ff1}\\x{12ff2}" \
  "\\x{16e97}-\\x{16e9a}\\x{16fe2}\\x{1e95e}\\x{1e95f}])[\\p{P}$+<=>^`|~\\x{166d}\\x{111c9}]"

/* Words and runs of what is neither word nor white space, by Rust's \w. */
#define WORD_OR_NOT                                                                                                  \
  "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}]+|"                                                        \
  "[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}\\p{wspace}]+"

static const struct {
  const char *name;
  split_behaviour behaviour;
} behaviours[] = {
    {"Removed", SPLIT_REMOVED},
    {"Isolated", SPLIT_ISOLATED},
    {"MergedWithPrevious", SPLIT_MERGED_WITH_PREVIOUS},
    {"MergedWithNext", SPLIT_MERGED_WITH_NEXT},
    {"Contiguous", SPLIT_CONTIGUOUS},
};

static clm_status add_stage(const json_reader *r, pretokenizer *p, pretokenizer_stage stage) {
  if (p->count < PRETOKENIZER_STAGES) {
    p->stages[p->count++] = stage; /* its pattern is freed with it, whatever comes */
    return CLM_OK;
  }
  pcre2_code_free(stage.pattern);
  return context_fail(r->context, CLM_UNSUPPORTED, "%s: more than %d pre-tokenizers", r->path, PRETOKENIZER_STAGES);
}

static clm_status add_split(const json_reader *r, pretokenizer *p, pattern_kind kind, const char *pattern,
                            split_behaviour behaviour, bool invert) {
  pretokenizer_stage stage = {.kind = PRETOKENIZER_SPLIT, .behaviour = behaviour, .invert = invert};
  TRY(pattern_compile(r->context, r->path, kind, (byte_string){pattern, strlen(pattern)}, &stage.pattern));
  return add_stage(r, p, stage);
}

static clm_status read_behaviour(const json_reader *r, const json_t *json, bool optional,
                                 split_behaviour *behaviour) {
  const char *name = json_string_value(json_object_get(json, "behavior"));
  *behaviour = SPLIT_ISOLATED;
  if (!name && optional) return CLM_OK;
  for (size_t i = 0; name && i < sizeof behaviours / sizeof *behaviours; i++)
    if (strcmp(name, behaviours[i].name) == 0) {
      *behaviour = behaviours[i].behaviour;
      return CLM_OK;
    }
  return json_misses(r, "a pre-tokenizer", "behavior");
}

static clm_status take_byte_level(const json_reader *r, const json_t *json, pretokenizer *p) {
  if (json_flag(json, "add_prefix_space", true))
    TRY(add_stage(r, p, (pretokenizer_stage){.kind = PRETOKENIZER_PREFIX}));
  if (json_flag(json, "use_regex", true)) TRY(add_split(r, p, PATTERN_REGEX, WORDS, SPLIT_ISOLATED, false));
  return add_stage(r, p, (pretokenizer_stage){.kind = PRETOKENIZER_BYTE_LEVEL});
}

static clm_status take_split(const json_reader *r, const json_t *json, pretokenizer *p) {
  pretokenizer_stage stage = {.kind = PRETOKENIZER_SPLIT, .invert = json_flag(json, "invert", false)};
  TRY(read_behaviour(r, json, false, &stage.behaviour));
  TRY(pattern_from_json(r, json_object_get(json, "pattern"), "a Split", &stage.pattern));
  return add_stage(r, p, stage);
}

static clm_status take_digits(const json_reader *r, const json_t *json, pretokenizer *p) {
  bool each = json_flag(json, "individual_digits", false);
  return add_split(r, p, PATTERN_PCRE2, DIGIT, each ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, false);
}

static clm_status take_punctuation(const json_reader *r, const json_t *json, pretokenizer *p) {
  split_behaviour behaviour;
  TRY(read_behaviour(r, json, true, &behaviour));
  return add_split(r, p, PATTERN_PCRE2, PUNCTUATION, behaviour, false);
}

static clm_status take_whitespace(const json_reader *r, const json_t *json, pretokenizer *p) {
  (void)json;
  return add_split(r, p, PATTERN_PCRE2, WORD_OR_NOT, SPLIT_REMOVED, true);
}

static clm_status take_whitespace_split(const json_reader *r, const json_t *json, pretokenizer *p) {
  (void)json;
  return add_split(r, p, PATTERN_PCRE2, "\\p{wspace}", SPLIT_REMOVED, false);
}

static clm_status take_delimiter(const json_reader *r, const json_t *json, pretokenizer *p) {
  const char *delimiter = json_string_value(json_object_get(json, "delimiter"));
  return delimiter ? add_split(r, p, PATTERN_LITERAL, delimiter, SPLIT_REMOVED, false)
                   : json_misses(r, "a CharDelimiterSplit", "delimiter");
}

clm_status metaspace_from_json(const json_reader *r, const json_t *json, metaspace *m) {
  static const char *const schemes[] = {
      [METASPACE_ALWAYS] = "always", [METASPACE_FIRST] = "first", [METASPACE_NEVER] = "never"};
  const byte_string replacement = json_text(json_object_get(json, "replacement"));
  const json_t *given = json_object_get(json, "prepend_scheme");
  const char *scheme = json_is_string(given) ? json_string_value(given) : schemes[METASPACE_ALWAYS];
  uint32_t code;
  *m = (metaspace){.prepend = METASPACE_ALWAYS};
  if (replacement.bytes == 0 || utf8_decode(replacement.text, replacement.bytes, &code) != replacement.bytes)
    return json_misses(r, "a Metaspace", "replacement");
  memcpy(m->replacement, replacement.text, replacement.bytes);
  while (m->prepend <= METASPACE_NEVER && strcmp(scheme, schemes[m->prepend]) != 0) m->prepend++;
  if (m->prepend > METASPACE_NEVER) return json_misses(r, "a Metaspace", "prepend_scheme");
  if (!json_flag(json, "add_prefix_space", true) && m->prepend != METASPACE_NEVER)
    return json_misses(r, "a Metaspace", "add_prefix_space");
  return CLM_OK;
}

static clm_status take_metaspace(const json_reader *r, const json_t *json, pretokenizer *p) {
  pretokenizer_stage stage = {.kind = PRETOKENIZER_METASPACE};
  TRY(metaspace_from_json(r, json, &stage.metaspace));
  TRY(add_stage(r, p, stage));
  if (!json_flag(json, "split", true)) return CLM_OK;
  return add_split(r, p, PATTERN_LITERAL, stage.metaspace.replacement, SPLIT_MERGED_WITH_NEXT, false);
}

static const struct {
  const char *type;
  clm_status (*take)(const json_reader *, const json_t *, pretokenizer *);
} kinds[] = {
    {"ByteLevel", take_byte_level},
    {"Split", take_split},
    {"Digits", take_digits},
    {"Punctuation", take_punctuation},
    {"Whitespace", take_whitespace},
    {"WhitespaceSplit", take_whitespace_split},
    {"CharDelimiterSplit", take_delimiter},
    {"Metaspace", take_metaspace},
};

static clm_status take_part(const json_reader *r, const json_t *json, void *user) {
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (strcmp(kinds[i].type, json_type_name(json)) == 0) return kinds[i].take(r, json, user);
  return json_unsupported(r, "a pre-tokenizer", json);
}

clm_status pretokenizer_from_json(const json_reader *r, const json_t *json, pretokenizer *p) {
  return json_each(r, json, "pretokenizers", take_part, p);
}
