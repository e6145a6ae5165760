/* What Intel's compilers know of cl_intel_subgroup_matrix_multiply_accumulate, for those that do not: declarations.
 */
float8 __attribute__((overloadable)) intel_sub_group_f16_f16_matrix_mad_k16(short8 a, int8 b, float8 sum);
float8 __attribute__((overloadable)) intel_sub_group_bf16_bf16_matrix_mad_k16(short8 a, int8 b, float8 sum);
