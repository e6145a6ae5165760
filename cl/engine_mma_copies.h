/* Copies that pass registers by, STAGES - 1 of them under way. */
#define ENGINE_COPIES
#define STAGES 5
typedef int fetched;
INLINE void load_stage(fetched *f, __local uchar *stage, const step_walk *w, int a_rows, int b_rows, int item) {
  const uint to = local_address(stage) + item * 16;
  copy_chunk(to, w->a + item * 16, item / 2 < a_rows ? 16 : 0); /* of 0 bytes: 16 zeros */
  copy_chunk(to + TILE_M * PANEL_BYTES, w->b + item * 16, item / 2 < b_rows ? 16 : 0);
}
INLINE void end_stage(void) { __asm__ volatile("cp.async.commit_group;" ::: "memory"); }
INLINE void ready_stage(const fetched *f, __local uchar *stage, int item) {
  __asm__ volatile("cp.async.wait_group 3;" ::: "memory"); /* STAGES - 2 */
}
