/* What the device can do, for tools: streaming copies and reads, and exponentials. */

/* One float4 for each work-item. */
__kernel void limits_copy(__global const float4 *in, long in_offset, __global float4 *out, long out_offset) {
  size_t i = get_global_id(0);
  out[out_offset / 4 + (long)i] = in[in_offset / 4 + (long)i];
}

/* Neighbouring work-items read neighbouring float4s; sums are kept only so that the reads cannot be left out. */
__kernel void limits_read(__global const float4 *in, long in_offset, __global float *out, long out_offset, int each) {
  size_t i = get_global_id(0), stride = get_global_size(0);
  __global const float4 *p = in + in_offset / 4 + i;
  float4 sum = 0.0f;
  for (int n = 0; n < each; n++) sum += p[(size_t)n * stride];
  out[out_offset + (long)i] = sum.x + sum.y + sum.z + sum.w;
}

/* Eight independent chains; each exponential is followed by one product, as in a scan. */
__kernel void limits_exp(__global float *out, long out_offset, int each, float seed) {
  size_t i = get_global_id(0);
  float8 x = seed + (float8)(0.0f, 0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f, 0.7f);
  for (int n = 0; n < each; n++) x = native_exp2(x * -0.5f);
  out[out_offset + (long)i] = x.s0 + x.s1 + x.s2 + x.s3 + x.s4 + x.s5 + x.s6 + x.s7;
}
