/* Tiny kernels that use one feature each; the host compares what they write with what they must write.
 * Compiled with exactly one of the PROBE_ names defined, since most compilers know only some of the features.
 * Work-group: one of 64 work-items. */

#ifdef PROBE_PTX
/* Lane exchange and the fast exponential through PTX: out[i] = in[i xor 1] + 2^(i mod 4). */
__kernel void probe(__global const float *in, __global float *out) {
  int i = (int)get_local_id(0);
  float other, power, x = (float)(i & 3);
  __asm__ volatile("shfl.sync.bfly.b32 %0, %1, 1, 0x1f, 0xffffffff;" : "=f"(other) : "f"(in[i]));
  __asm__ volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  out[i] = other + power;
}
#endif

#ifdef PROBE_PTX_BF16
/* Rounding to bf16 through PTX: out[i] = in[i] rounded to 8 bits. */
__kernel void probe(__global const float *in, __global float *out) {
  int i = (int)get_local_id(0);
  ushort rounded;
  __asm__("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded) : "f"(in[i] * 1.001f));
  out[i] = as_float((uint)rounded << 16);
}
#endif

#ifdef PROBE_SUBGROUP_SHUFFLE
/* out[i] = in[i xor 1] + sub-group size if lanes follow work-items, else -1. */
#pragma OPENCL EXTENSION cl_khr_subgroups : enable
#pragma OPENCL EXTENSION cl_khr_subgroup_shuffle : enable
__kernel void probe(__global const float *in, __global float *out) {
  int i = (int)get_local_id(0);
  int lanes = (int)get_max_sub_group_size();
  float other = sub_group_shuffle_xor(in[i], 1u);
  int in_order = (int)get_sub_group_local_id() == i % lanes && (int)get_sub_group_id() == i / lanes;
  out[i] = in_order ? other + (float)lanes : -1.0f;
}
#endif

#ifdef PROBE_PLAIN
/* Says what this device prefers as a multiple for work-groups (a question to the kernel, it need not run). */
__kernel void probe(__global const float *in, __global float *out) {
  int i = (int)get_local_id(0);
  out[i] = in[i];
}
#endif
