# Sourced by test.sh for --all: what goes beyond the gcc and clang builds. Uses its suite(), tests() and row().
# shellcheck shell=sh disable=SC2154,SC2034

required=$CLM_REQUIRE_PLATFORMS

# The reference of the headers: a warning of Doxygen's fails.
say '== reference'
begun=$(date +%s)
if configure reference -Dreference=enabled && ninja -C build-test/reference docs/reference/html >build-test/reference.build.log 2>&1
then row reference 1 0 0 $(($(date +%s) - begun))
else tail -n 30 build-test/reference.build.log; row reference 0 1 0 $(($(date +%s) - begun))
fi

# Both sanitizers that bear foreign drivers; only one driver, not all of them do. On the CPU every third test, on the
# driver every sixteenth: the kernels are those of the first run, the host side is the same for all cases of an
# operation. Leaks are looked for on the CPU alone: a driver's threads that end with the process can crash the leak
# check.
CLM_TEST_DEVICES=cpu CLM_TEST_EVERY=3 CLM_REQUIRE_PLATFORMS= OCL_ICD_VENDORS=/etc/OpenCL/vendors/pocl.icd
export CLM_TEST_DEVICES CLM_TEST_EVERY OCL_ICD_VENDORS
suite address '-Db_sanitize=address,undefined -Ddefault_library=static -Doptimization=1' '--no-suite package --no-suite engines -t 3'
CLM_TEST_DEVICES=pocl CLM_TEST_EVERY=16 CLM_REQUIRE_PLATFORMS=pocl
tests address-opencl address '--suite ops --no-suite samples --no-suite engines -t 3' "$(date +%s)" \
  'env ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=0'
unset CLM_TEST_DEVICES CLM_TEST_EVERY OCL_ICD_VENDORS
CLM_REQUIRE_PLATFORMS=

# Without the optional parts: no OpenCL, so no platform to require. Every third test: the operations' code is gcc's.
CLM_TEST_EVERY=3
export CLM_TEST_EVERY
suite no-opencl '-Dopencl=disabled -Dopenblas=disabled -Doptimization=1' '--no-suite package --no-suite commands -t 3'
suite no-clblast '-Dclblast=disabled -Dtools=disabled -Doptimization=1' 'matmul norm opencl_joined'

# Drivers and OpenBLAS are not built for ThreadSanitizer, which would see races that are none. Every tenth test: what
# threads share is the same for all tests of an operation.
CLM_TEST_EVERY=10
suite thread '-Db_sanitize=thread -Ddefault_library=static -Doptimization=1 -Dopencl=disabled -Dopenblas=disabled' \
  '--suite core --suite cpu --suite ops --suite model --suite train --no-suite samples -t 3'

# NEON, by qemu: every twelfth test, as it runs a fiftieth as fast.
if [ "$(uname -m)" = x86_64 ]; then
  mkdir -p build-test
  if sh tests/support/arm64.sh build-test/arm64-root >build-test/arm64-root.log 2>&1; then
    CLM_TEST_DEVICES=cpu CLM_TEST_EVERY=12
    export CLM_TEST_DEVICES
    suite arm64 '--cross-file build-test/arm64-root/arm64.ini -Dopencl=disabled -Dopenblas=disabled -Dtools=disabled' \
      '--suite core --suite cpu --suite ops --no-suite samples -t 5'
    unset CLM_TEST_DEVICES
  else
    tail -n 30 build-test/arm64-root.log
    row arm64 0 1 0 0
  fi
fi

# The kernels' memory accesses and races, on small shapes: every fifth test; of each matrix engine one product (half a
# minute).
say '== oclgrind'
CLM_TEST_EVERY=5
tests oclgrind gcc '--suite ops --no-suite samples --no-suite engines' "$(date +%s)" "'$root/tests/support/oclgrind.sh'"
unset CLM_TEST_EVERY
CLM_REQUIRE_PLATFORMS=$required
