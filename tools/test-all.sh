# Sourced by test.sh for --all: what goes beyond one gcc build. Uses its suite(), tests(), configure(), build().
# shellcheck shell=sh disable=SC2154

# Another compiler.
(CC=clang; export CC; configure clang) && begun=$(date +%s) && say '== clang' &&
  if build clang; then tests clang clang '' "$begun"; else row clang 0 1 0 0; fi

# Without the optional parts. A library without OpenCL has no platform to require.
required=$CLM_REQUIRE_PLATFORMS
CLM_REQUIRE_PLATFORMS=
suite no-opencl '-Dopencl=disabled -Dopenblas=disabled' ''
CLM_REQUIRE_PLATFORMS=$required
suite no-clblast '-Dclblast=disabled -Dtools=disabled' '--suite core'
