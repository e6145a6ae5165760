/* What the stages of the step program share: where tensors lie, how work is divided among the work-groups, how they
 * meet, and sums over lanes. */

typedef struct step_memory {
  __global uchar *buffer[STEP_BUFFERS + 1];
  step_stage stage[2];
  float x[STEP_ROWS * STEP_WIDTH];   /* a product's input */
  float part[STEP_PARTS * STEP_ROWS]; /* of its sums       */
  int lost;                          /* the groups did not meet in time */
} step_memory;

INLINE __global uchar *step_at(__local const step_memory *m, __local const step_view *v) {
  return m->buffer[(int)((ulong)v->at >> STEP_BUFFER_SHIFT)] + (v->at & ((1L << STEP_BUFFER_SHIFT) - 1));
}
INLINE bool step_has(__local const step_view *v) { return v->at != 0; }

/* What other work-groups have written since the kernel began lies in memory or the cache that they share. */
INLINE float step_load(__global const float *p) {
#ifdef CLM_PTX
  float x;
  __asm__ volatile("ld.global.cg.f32 %0, [%1];" : "=f"(x) : "l"(p));
  return x;
#else
  return *(volatile __global const float *)p;
#endif
}
INLINE void step_store(__global float *p, float x) {
#ifdef CLM_PTX
  __asm__ volatile("st.global.cg.f32 [%0], %1;" ::"l"(p), "f"(x) : "memory");
#else
  *(volatile __global float *)p = x;
#endif
}

/* The elements of this work-group: neighbouring ones, as many as of the others, but one. */
INLINE int2 step_share(int count) {
  const uint group = (uint)get_group_id(0), groups = (uint)get_num_groups(0), each = (uint)count / groups;
  const uint more = (uint)count - each * groups; /* groups that have one more */
  const uint begin = group * each + min(group, more);
  return (int2)((int)begin, (int)(begin + each + (group < more)));
}

/* A work-group of one, on a CPU, has nobody to wait for, and is compiled many times as fast without. */
#if WORK_GROUP == 1
INLINE void step_barrier(void) {}
INLINE void step_barrier_all(void) { mem_fence(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE); }
#else
INLINE void step_barrier(void) { local_barrier(); }
INLINE void step_barrier_all(void) {
  barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
  ANCHOR
}
#endif

/* Every group waits here until all have arrived as often as `times` says; after STEP_PATIENCE looks it gives up, which
 * meeting[1] tells the host. */
INLINE void step_meet(__local step_memory *m, __global int *meeting, uint times) {
  step_barrier_all();
  if (ITEM == 0 && get_num_groups(0) > 1) {
    const uint wanted = times * (uint)get_num_groups(0);
    int patience = STEP_PATIENCE, seen; /* the count goes round */
#ifdef CLM_PTX
    __asm__ volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(meeting) : "memory");
    do {
      __asm__ volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(seen) : "l"(meeting) : "memory");
    } while ((int)((uint)seen - wanted) < 0 && --patience > 0);
#else
    mem_fence(CLK_GLOBAL_MEM_FENCE);
    atomic_inc((volatile __global int *)meeting);
    do seen = atomic_add((volatile __global int *)meeting, 0);
    while ((int)((uint)seen - wanted) < 0 && --patience > 0);
    mem_fence(CLK_GLOBAL_MEM_FENCE);
#endif
    if (patience <= 0) {
      m->lost = 1;
      meeting[1] = 1;
    }
  }
  step_barrier_all();
}

/* A stage of a probe: what another work-group left in `slots` before the last meeting must be there. */
INLINE void step_try_stage(__local step_memory *m, __global float *slots, __global int *meeting, int stage) {
  const int groups = (int)get_num_groups(0), group = (int)get_group_id(0);
  __global float *now = slots + (stage & 1) * groups, *before = slots + (~stage & 1) * groups;
  if (ITEM == 0) {
    if (stage > 0 && step_load(before + (group + stage) % groups) != (float)stage) meeting[1] = 1;
    step_store(now + group, (float)(stage + 1));
  }
}

/* Sum over neighbouring work-items (a power of two, at most STEP_LANES), in every one of them, as a tree. The whole
 * work-group calls it. */
#if STEP_LANES == 1
#define STEP_SUM(value, lanes) (value)
#else
INLINE float step_sum(float value, int lanes SHUFFLE_PARAMETER) {
  for (int step = lanes / 2; step > 0; step /= 2) value += lane_xor(value, step);
  return value;
}
#define STEP_SUM(value, lanes) step_sum(value, lanes SHUFFLE_ARGUMENT)
#endif
