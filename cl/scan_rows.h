/* The rows of a selective scan: batch rows, or with SCAN_PACKED the sequences that cu_seqlens cuts out of the one
 * row.
 *
 * What is kept for a chunk of a row lies in the chunk's slot. Batch rows have `chunks` each. Sequence i, in the order
 * of the scan, has those from (its first step) / chunk + i on: never fewer than it has chunks, one at least, and
 * length / chunk + sequences in all, which the host knows without reading cu_seqlens. Likewise for tiles. */
#define PACKED_PARAMETERS global const int *ends, long ends_offset, long ends_stride, int rows, int reversed
#define PACKED_ARGUMENTS  ends + ends_offset, ends_stride, rows, reversed

typedef struct scan_row {
  long states;     /* row of the initial and the final state */
  long batch;      /* row of the sequences                   */
  long begin, end; /* steps                                  */
  long slot, tile; /* the first of each                      */
} scan_row;

#if SCAN_PACKED
/* The first step of sequence i, both counted in the order of the scan. */
static inline long packed_begin(long length, int i, global const int *ends, long stride, int rows, int reversed) {
  const long step = clamp((long)ends[(reversed ? rows - i : i) * stride], 0L, length);
  return reversed ? length - step : step;
}

static inline scan_row packed_row(long length, long chunk, int tile_steps, int i, global const int *ends, long stride,
                                  int rows, int reversed) {
  scan_row r;
  r.states = reversed ? rows - 1 - i : i;
  r.batch = 0;
  r.begin = packed_begin(length, i, ends, stride, rows, reversed);
  r.end = max(r.begin, packed_begin(length, i + 1, ends, stride, rows, reversed));
  r.slot = r.begin / chunk + i;
  r.tile = r.begin / tile_steps + i;
  return r;
}

/* The sequence that has this slot. */
static inline int packed_sequence(long slot, long length, long chunk, global const int *ends, long stride, int rows,
                                  int reversed) {
  int low = 0, high = rows - 1;
  while (low < high) {
    const int middle = low + (high - low + 1) / 2;
    if (packed_begin(length, middle, ends, stride, rows, reversed) / chunk + middle <= slot) low = middle;
    else high = middle - 1;
  }
  return low;
}
#endif
