# Sourced by test.sh for --clang and --all: another compiler, its warnings, and its code on the CPU; of the tests
# every third, as what differs is the code of each operation, not of each case.
# shellcheck shell=sh disable=SC2034

all_required=$CLM_REQUIRE_PLATFORMS
CC=clang CLM_TEST_DEVICES=cpu CLM_TEST_EVERY=3 CLM_REQUIRE_PLATFORMS=
export CC CLM_TEST_DEVICES CLM_TEST_EVERY
suite clang '' '--no-suite package --no-suite engines --no-suite commands'
unset CC CLM_TEST_DEVICES CLM_TEST_EVERY
CLM_REQUIRE_PLATFORMS=$all_required
