/* Devices that the scheduler is asked for: descriptions, no hardware. */
#ifndef TEST_SCHEDULE_H
#define TEST_SCHEDULE_H

#include "cmocka_all.h"
#include "schedule/device.h"
#include <stdio.h>

typedef struct named_device {
  const char *name;
  schedule_device device;
} named_device;

extern const named_device schedule_devices[];
extern const size_t schedule_device_count;

void test_scan_limits(void **state);
void test_scan_coverage(void **state);
void test_scan_pure(void **state);
void test_scan_fixed_chunk(void **state);
void test_scan_choice(void **state);

#endif
