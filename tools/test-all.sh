# Sourced by test.sh for --all: what goes beyond one gcc build. Uses its suite(), tests() and row().
# shellcheck shell=sh disable=SC2154,SC2034

required=$CLM_REQUIRE_PLATFORMS

# Of the OpenCL tests sanitizers take every eighth: the kernels are those of the first run, the host side is the same
# for all cases of an operation. One driver only: not all bear sanitizers.
with_pocl() { # on|off
  if [ "$1" = on ]; then
    CLM_TEST_EVERY=8 OCL_ICD_VENDORS=/etc/OpenCL/vendors/pocl.icd CLM_REQUIRE_PLATFORMS=pocl
    export CLM_TEST_EVERY OCL_ICD_VENDORS
  else
    unset CLM_TEST_EVERY OCL_ICD_VENDORS
    CLM_REQUIRE_PLATFORMS=
  fi
}

# Another compiler: its warnings, and its code on the CPU.
CC=clang CLM_TEST_DEVICES=cpu
export CC CLM_TEST_DEVICES
CLM_REQUIRE_PLATFORMS=
suite clang '' ''
unset CC CLM_TEST_DEVICES

with_pocl on
suite address '-Db_sanitize=address,undefined -Ddefault_library=static -Doptimization=1' '--no-suite package -t 3'
with_pocl off

# Without the optional parts: no OpenCL, so no platform to require.
suite no-opencl '-Dopencl=disabled -Dopenblas=disabled' ''
suite no-clblast '-Dclblast=disabled -Dtools=disabled' 'matmul norm opencl_joined'

# Drivers and OpenBLAS are not built for ThreadSanitizer, which would see races that are none.
suite thread '-Db_sanitize=thread -Ddefault_library=static -Doptimization=1 -Dopencl=disabled -Dopenblas=disabled' \
  '--suite core --suite cpu --suite ops --suite model --suite train -t 3'

# The kernels' memory accesses and races, on small shapes.
say '== oclgrind'
CLM_TEST_EVERY=3
export CLM_TEST_EVERY
tests oclgrind gcc '--suite ops' "$(date +%s)" "'$root/tests/support/oclgrind.sh'"
unset CLM_TEST_EVERY
CLM_REQUIRE_PLATFORMS=$required
