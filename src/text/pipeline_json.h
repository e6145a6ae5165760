/* The parts of a tokenizer.json, each into its part of a pipeline. */
#ifndef CLM_TEXT_PIPELINE_JSON_H
#define CLM_TEXT_PIPELINE_JSON_H

#include "text/json_reader.h"
#include "text/pipeline.h"

/* All of them, in the order that they need. */
clm_status pipeline_from_json(const json_reader *reader, const json_t *json, pipeline *p);

clm_status normalizer_from_json(const json_reader *reader, const json_t *json, normalizer *n);
clm_status pretokenizer_from_json(const json_reader *reader, const json_t *json, pretokenizer *p);
clm_status model_from_json(const json_reader *reader, const json_t *json, pipeline *p); /* and its vocabulary */
clm_status added_tokens_from_json(const json_reader *reader, const json_t *json, pipeline *p); /* needs all above */
clm_status post_processor_from_json(const json_reader *reader, const json_t *json, pipeline *p);
clm_status decoder_from_json(const json_reader *reader, const json_t *json, decoder *d);

/* Of a Metaspace, pre-tokenizer or decoder. */
clm_status metaspace_from_json(const json_reader *reader, const json_t *json, metaspace *m);

/* {"String": ..} or {"Regex": ..}. */
clm_status pattern_from_json(const json_reader *reader, const json_t *json, const char *part, pcre2_code **pattern);

#endif
