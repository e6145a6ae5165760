/* Exchange between the work-items of a sub-group, in the form that the probes found (SHUFFLE_PTX, SHUFFLE_KHR). */
#if defined(SHUFFLE_PTX)
static inline float lane_xor(float value, int mask) {
  float r;
  __asm__ volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=f"(r) : "f"(value), "r"(mask));
  return r;
}
#elif defined(SHUFFLE_KHR)
#pragma OPENCL EXTENSION cl_khr_subgroup_shuffle : enable
static inline float lane_xor(float value, int mask) { return sub_group_shuffle_xor(value, (uint)mask); }
#endif

/* SHUFFLE_LOCAL imitates shuffles through local memory, so that the kernels that use them can be tested anywhere; a
 * function that shuffles takes SHUFFLE_PARAMETER last and is given SHUFFLE_ARGUMENT. */
#ifdef SHUFFLE_LOCAL
static inline float lane_xor_local(float value, int mask, local float *scratch) {
  const int lid = (int)get_local_id(0);
  local_barrier();
  scratch[lid] = value;
  local_barrier();
  return scratch[lid ^ mask];
}
#define lane_xor(value, mask) lane_xor_local(value, mask, shuffle_scratch)
#define SHUFFLE_SCRATCH       local float shuffle_scratch[WORK_GROUP];
#define SHUFFLE_PARAMETER     , local float *shuffle_scratch
#define SHUFFLE_ARGUMENT      , shuffle_scratch
#else
#define SHUFFLE_SCRATCH
#define SHUFFLE_PARAMETER
#define SHUFFLE_ARGUMENT
#endif
