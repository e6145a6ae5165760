/* What cl_khr_subgroup_shuffle adds, for compilers whose header has it only beyond OpenCL C 1.2. */
float __attribute__((overloadable, const)) sub_group_shuffle_xor(float value, uint mask);
