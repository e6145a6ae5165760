/* Late assembly: instructions that the driver's OpenCL compiler does not take for the target it has in mind, but that
 * the device executes (NVIDIA's wgmma exists for target sm_90a only, OpenCL C is compiled for sm_90). Such a line is
 * written as a comment of the assembly; the compiler puts the registers' names into it like into any other, and
 * src/backend/opencl/late_assembly.c then takes the built program's text, removes the comment signs, corrects the
 * target and builds that text. LATE("instruction;", outputs : inputs : clobbers). */
#define LATE(text) "//@ " text "\n"
