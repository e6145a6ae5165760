#include "ops/sequences.h"

bool sequences_packed(const op_call *c) { return op_present(op_tensor_of(c, "cu_seqlens")); }

static bool has_seq_idx(const op_call *c) {
  for (size_t i = 0; i < c->count; i++)
    if (strcmp(c->rows[i]->name, "seq_idx") == 0) return op_present(op_tensor_of(c, "seq_idx"));
  return false;
}

clm_status check_sequences(const op_call *c, const char *input) {
  if (!sequences_packed(c)) return CLM_OK;
  const op_size *sequences = op_size_of(c, 's');
  const int64_t batch = op_length(c, 'b'), length = op_length(c, 'l'), ends = op_length(c, 'e');
  if (has_seq_idx(c)) return op_fail(c, "seq_idx and cu_seqlens are both given");
  if (batch != 1) return op_fail(c, "%s has batch %lld, expected 1 with cu_seqlens", input, (long long)batch);
  if (ends < 2) return op_fail(c, "cu_seqlens has 1 element, expected at least 2");
  if (sequences->size && sequences->size != ends - 1)
    return op_fail(c, "%s has sequences %lld, expected %lld as in cu_seqlens", sequences->from,
                   (long long)sequences->size, (long long)ends - 1);
  if (length > INT32_MAX) return op_fail(c, "%s has length %lld, too long for cu_seqlens", input, (long long)length);
  return CLM_OK;
}

clm_status check_offsets(const op_call *c) {
  const op_size *rows = op_size_of(c, 'c');
  const int64_t expected = sequence_count(c);
  if (!op_present(op_tensor_of(c, "offsets")) || rows->size == expected) return CLM_OK;
  return op_fail(c, "%s has cache rows %lld, expected %lld as %s", rows->from, (long long)rows->size,
                 (long long)expected, sequences_packed(c) ? "in cu_seqlens" : "batch");
}
