/* The scheduler as a pure function: hundreds of shapes on devices that need not be here; and the cache of plans. */
#include "test_schedule.h"
#include "schedule/causal_conv1d.h"
#include "schedule/plan_cache.h"
#include <string.h>

#define KIB(n) ((int64_t)(n)*1024)
#define GIB(n) ((int64_t)(n)*1024 * 1024 * 1024)

/* clang-format off */
const named_device schedule_devices[] = {
    /*                  cpu    ptx    shuffle        units  group  sub resident  local    allocation */
    {"NVIDIA H100",    {false, PTX_BF16, SHUFFLE_PTX,   132,   1024,  32, 2048,     KIB(48), GIB(20)}},
    {"NVIDIA laptop",  {false, PTX_BASIC, SHUFFLE_PTX,   14,    1024,  32, 1536,     KIB(48), GIB(2)}},
    {"AMD wave64",     {false, false, SHUFFLE_NONE,  104,   256,   64, 2048,     KIB(64), GIB(16)}},
    {"AMD wave32",     {false, false, SHUFFLE_NONE,  48,    1024,  32, 2048,     KIB(64), GIB(8)}},
    {"AMD shuffles",   {false, false, SHUFFLE_KHR,   104,   1024,  64, 2048,     KIB(64), GIB(16)}},
    {"Intel Arc",      {false, false, SHUFFLE_KHR,   512,   1024,  16, 0,        KIB(64), GIB(4)}},
    {"Intel, 8 lanes", {false, false, SHUFFLE_KHR,   96,    512,   8,  0,        KIB(64), GIB(4)}},
    {"phone",          {false, false, SHUFFLE_NONE,  8,     128,   64, 0,        KIB(16), GIB(1)}},
    {"small phone",    {false, false, SHUFFLE_NONE,  1,     64,    1,  0,        KIB(8),  GIB(1)}},
    {"PoCL",           {true,  false, SHUFFLE_NONE,  2,     4096,  8,  0,        KIB(512), GIB(4)}},
    {"PoCL, 128 cores", {true, false, SHUFFLE_NONE,  128,   4096,  16, 0,        KIB(256), GIB(64)}},
    {"llvmpipe",       {true,  false, SHUFFLE_NONE,  2,     1024,  8,  0,        KIB(32), GIB(1)}},
};
/* clang-format on */
const size_t schedule_device_count = sizeof schedule_devices / sizeof *schedule_devices;

/* Every run of steps once, no work-group too large, no sub-group that reads nothing where one could. */
static void test_conv(void **state) {
  (void)state;
  static const int64_t lengths[] = {1, 2, 3, 17, 128, 2048, 131072}, channels[] = {1, 3, 64, 1536, 5120};
  for (size_t i = 0; i < schedule_device_count; i++)
    for (size_t l = 0; l < 7; l++)
      for (size_t c = 0; c < 5; c++)
        for (int form = 0; form < 8; form++)
          for (int64_t width = 1; width <= 32; width *= 2) {
            const schedule_device *d = &schedule_devices[i].device;
            causal_conv1d_request r = {2,        lengths[l], channels[c],          width,
                                       form & 1, form & 2,   channels[c] % 2 == 0, form & 4};
            causal_conv1d_plan p, again;
            schedule_causal_conv1d(d, &r, &p);
            schedule_causal_conv1d(d, &r, &again);
            assert_memory_equal(&p, &again, sizeof p);
            assert_in_range(p.work_group, 1, d->max_work_group);
            assert_int_equal(p.work_group & (p.work_group - 1), 0);
            assert_true(p.steps >= 1 && p.run >= 1);
            assert_true(p.vector == 1 || (p.vector == 2 && r.pairs && !r.length_fast));
            assert_int_equal(p.run % (r.length_fast ? (int64_t)p.steps * p.work_group : p.steps), 0);
            assert_true(p.run * p.runs >= r.length);      /* every step    */
            assert_true(p.run * (p.runs - 1) < r.length); /* no empty run  */
            assert_true(p.why[0] != '\0');
          }
}

static void test_plan_cache(void **state) {
  (void)state;
  plan_cache *cache = plan_cache_create(4);
  assert_non_null(cache);
  bool found;
  int64_t *plans[6], key[6] = {10, 11, 12, 13, 14, 15};
  for (int i = 0; i < 4; i++) {
    plans[i] = plan_cache_get(cache, &key[i], sizeof key[i], &found);
    assert_false(found);
    assert_int_equal(*plans[i], 0);
    *plans[i] = 100 + i;
  }
  for (int i = 0; i < 4; i++) { /* all are there, in their own places */
    int64_t *plan = plan_cache_get(cache, &key[i], sizeof key[i], &found);
    assert_true(found);
    assert_ptr_equal(plan, plans[i]);
    assert_int_equal(*plan, 100 + i);
  }
  plan_cache_get(cache, &key[0], sizeof key[0], &found); /* 1 is now the least recently used */
  plans[4] = plan_cache_get(cache, &key[4], sizeof key[4], &found);
  assert_false(found);
  assert_int_equal(*plans[4], 0); /* nothing of the plan that was there before */
  assert_ptr_equal(plans[4], plans[1]);
  plan_cache_get(cache, &key[0], sizeof key[0], &found);
  assert_true(found);
  plan_cache_get(cache, &key[1], sizeof key[1], &found);
  assert_false(found);
  plan_cache_forget(cache);
  plan_cache_get(cache, &key[1], sizeof key[1], &found);
  assert_false(found);
  plan_cache_get(cache, &key[0], sizeof key[0] - 1, &found); /* a shorter key is another key */
  assert_false(found);
  plan_cache_destroy(cache);
  plan_cache_destroy(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_scan_limits),      cmocka_unit_test(test_scan_coverage), cmocka_unit_test(test_scan_pure),
      cmocka_unit_test(test_scan_fixed_chunk), cmocka_unit_test(test_scan_choice),   cmocka_unit_test(test_conv),
      cmocka_unit_test(test_plan_cache),
  };
  return cmocka_run_group_tests_name("schedule", tests, NULL, NULL);
}
