/* Panels: how matrix engines want their operands. A matrix (rows, k) is cut along k into panels of 32 bytes; panel p
 * holds those 32 bytes of every row, one row after the other, so that any number of rows from any multiple of 8 on is
 * one contiguous piece. The two 16-byte chunks of a row change places in rows 4 to 7 of every 8, so that 8 rows of
 * one chunk lie in different banks of local memory (the 32-byte swizzle of NVIDIA's wgmma; ldmatrix likes it too).
 * Chunk c counts 16 bytes of k. The result counts 16 bytes. */
#define PANEL_BYTES 32

static inline long panel_chunk(long rows, long row, long c) {
  return ((c >> 1) * rows + row) * 2 + ((c & 1) ^ ((row >> 2) & 1));
}
