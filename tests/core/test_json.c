/* JSON as Python writes it. What stands for each text is what json.loads of Python 3.11 makes of it, as jansson can
 * hold that; what Python refuses is refused. */
#include "cmocka_all.h"
#include "core/json.h"
#include <math.h>
#include <string.h>

#define DIGITS_100                                                                                                   \
  "1234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890"

static const struct {
  const char *text, *want; /* as json_dumps writes it; NULL: refused */
  const char *strict;      /* NULL: the same                         */
} cases[] = {
    {"{\"a\": 1, \"b\": [true, null, \"x\", -2.5]}", "{\"a\":1,\"b\":[true,null,\"x\",-2.5]}", NULL},
    {"9223372036854775807", "9223372036854775807", NULL},
    {"-9223372036854775808", "-9223372036854775808", NULL},
    {"9223372036854775808", "9.2233720368547758e18", NULL},
    {"-9223372036854775809", "-9.2233720368547758e18", NULL},
    {"{\"model_max_length\": 1000000000000000019884624838656}", "{\"model_max_length\":1e30}", NULL},
    {DIGITS_100, "1.2345678901234567e99", NULL},
    {DIGITS_100 DIGITS_100 DIGITS_100 DIGITS_100, "\"Infinity\"", NULL}, /* an int there, inf as a float */
    {"-" DIGITS_100 DIGITS_100 DIGITS_100 DIGITS_100, "\"-Infinity\"", NULL},
    {"[1e400, -1E+400, 1.5e309, 1e-400, 1e308]", "[\"Infinity\",\"-Infinity\",\"Infinity\",0.0,1e308]", NULL},
    {"[NaN, Infinity, -Infinity]", "[\"NaN\",\"Infinity\",\"-Infinity\"]", NULL},
    {"[\"NaN -Infinity 100000000000000000000 \\\" NaN\", NaN]",
     "[\"NaN -Infinity 100000000000000000000 \\\" NaN\",\"NaN\"]", NULL},
    {"[\"\\ud83d\", \"\\ude00\", \"\\ud83d\\ude00\", \"\\ud83dx\", \"\\\\ud83d\"]",
     "[\"\\uFFFD\",\"\\uFFFD\",\"\\uD83D\\uDE00\",\"\\uFFFDx\",\"\\\\ud83d\"]", "refused"},
    {"{\"a\": 1, \"a\": 2}", "{\"a\":2}", "refused"},
    {"\"a\\u0000b\"", "\"a\\u0000b\"", "refused"},
    {"{\"model_max_length\": 1000000000000000019884624838656", NULL, NULL},
    {"[Infinityx]", NULL, NULL},
    {"[- Infinity]", NULL, NULL},
    {"[+1]", NULL, NULL},
    {"[01]", NULL, NULL},
    {"[1000000000000000000000000000000.]", NULL, NULL},
    {"[1e400", NULL, NULL},
    {"\"\\ud83d", NULL, NULL},
    {"\"\\ud8", NULL, NULL},
    {"\"\\", NULL, NULL},
    {"[nan]", NULL, NULL},
    {"-", NULL, NULL},
    {"", NULL, NULL},
};

static void check(const char *text, json_rules rules, const char *want) {
  json_error_t error;
  json_t *json = json_parse(text, strlen(text), rules, &error);
  char *got =
      json ? json_dumps(json, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(17)) : NULL;
  if (!want ? json != NULL : !got || strcmp(got, want) != 0)
    fail_msg("%.60s is %.60s, expected %.60s", text, got ? got : error.text, want ? want : "an error");
  if (!json) assert_true(strlen(error.text) > 0);
  free(got);
  json_decref(json);
}

static void test_texts(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    check(cases[i].text, JSON_PYTHON, cases[i].want);
    check(cases[i].text, JSON_EXACT, cases[i].strict ? NULL : cases[i].want);
  }
}

/* Every cut of a text with everything in it: nothing past its end is read. */
static void test_cuts(void **state) {
  (void)state;
  static const char text[] =
      "{\"a\": [100000000000000000000, NaN, -Infinity, 1e400, \"\\ud83d\\ud83d\\ude00\", 9e999]}";
  for (size_t bytes = 0; bytes < sizeof text; bytes++) {
    char *cut = malloc(bytes ? bytes : 1);
    assert_non_null(cut);
    memcpy(cut, text, bytes);
    json_error_t error;
    json_t *json = json_parse(cut, bytes, JSON_PYTHON, &error);
    assert_int_equal(json != NULL, bytes == sizeof text - 1);
    json_decref(json);
    free(cut);
  }
}

static void test_numbers(void **state) {
  (void)state;
  static const struct {
    const char *text;
    bool is;
    double value;
  } numbers[] = {{"2.5", true, 2.5},
                 {"-3", true, -3},
                 {"100000000000000000000", true, 1e20},
                 {"Infinity", true, (double)INFINITY},
                 {"-Infinity", true, (double)-INFINITY},
                 {"1e400", true, (double)INFINITY},
                 {"{\"__float__\": \"Infinity\"}", true, (double)INFINITY},
                 {"{\"__float__\": \"-Infinity\"}", true, (double)-INFINITY},
                 {"NaN", true, (double)NAN},
                 {"{\"__float__\": \"NaN\"}", true, (double)NAN},
                 {"{\"__float__\": \"many\"}", false, 0},
                 {"{}", false, 0},
                 {"\"auto\"", false, 0},
                 {"true", false, 0},
                 {"null", false, 0},
                 {"[1]", false, 0}};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    json_error_t error;
    double got = 0;
    json_t *json = json_parse(numbers[i].text, strlen(numbers[i].text), JSON_PYTHON, &error);
    assert_int_equal(json_to_double(json, &got), numbers[i].is);
    assert_true(got == numbers[i].value || (isnan(got) && isnan(numbers[i].value)));
    json_decref(json);
  }
  double got;
  assert_false(json_to_double(NULL, &got));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_texts), cmocka_unit_test(test_cuts),
                                     cmocka_unit_test(test_numbers)};
  return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
