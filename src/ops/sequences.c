#include "ops/sequences.h"

clm_status check_sequences(checker *c, const sequence_dims *d, const char *input, const clm_tensor *seq_idx,
                           const clm_tensor *cu_seqlens) {
  if (!check_present(cu_seqlens)) return CLM_OK;
  if (check_present(seq_idx)) return check_fail(c, "seq_idx and cu_seqlens are both given");
  if (d->batch.size != 1)
    return check_fail(c, "%s has batch %lld, expected 1 with cu_seqlens", input, (long long)d->batch.size);
  if (d->ends.size < 2) return check_fail(c, "cu_seqlens has 1 element, expected at least 2");
  if (d->sequences.size && d->sequences.size != d->ends.size - 1)
    return check_fail(c, "%s has sequences %lld, expected %lld as in cu_seqlens", d->sequences.from,
                      (long long)d->sequences.size, (long long)d->ends.size - 1);
  if (d->length.size > INT32_MAX)
    return check_fail(c, "%s has length %lld, too long for cu_seqlens", input, (long long)d->length.size);
  return CLM_OK;
}
