# Sourced by test.sh for --all: what goes beyond one gcc build. Uses its suite(), tests() and row().
# shellcheck shell=sh disable=SC2154,SC2034

required=$CLM_REQUIRE_PLATFORMS

# Of the OpenCL tests the runs below take every sixth: the kernels are those of the first run, the host side is the
# same for all cases of an operation. One driver only: not all bear sanitizers.
with_pocl() { # ON|OFF
  if [ "$1" = on ]; then
    CLM_TEST_EVERY=6 OCL_ICD_VENDORS=/etc/OpenCL/vendors/pocl.icd CLM_REQUIRE_PLATFORMS=pocl
    export CLM_TEST_EVERY OCL_ICD_VENDORS
  else
    unset CLM_TEST_EVERY OCL_ICD_VENDORS
    CLM_REQUIRE_PLATFORMS=
  fi
}

# Another compiler; both sanitizers that bear foreign drivers.
with_pocl on
CC=clang
export CC
suite clang '' ''
unset CC
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
tests oclgrind gcc '--suite ops' "$(date +%s)" 'sh tests/support/oclgrind.sh'
CLM_REQUIRE_PLATFORMS=$required
