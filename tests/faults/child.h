/* A command in a process of its own: in a folder, its streams in files there, with a fault or without. */
#ifndef FAULTS_CHILD_H
#define FAULTS_CHILD_H

#include "inject.h"
#include "scenario.h"
#include <sys/types.h>

#define COLD_FOLDER "cold"

/* "stdout" and "stderr" of the folder receive the streams; `cold`: compiled programs are kept in COLD_FOLDER there.
 * The report is shared memory; NULL: no faults, not even counted. */
pid_t child_start(const char *folder, const command *what, const char *device, bool cold, const fault_plan *plan,
                  fault_report *report);

/* Waits; the exit status, or -1 (and a message) where it did not exit by itself. */
int child_wait(pid_t pid);

/* Both. */
int child_run(const char *folder, const command *what, const char *device, bool cold, const fault_plan *plan,
              fault_report *report);

fault_report *report_create(void); /* shared */

#endif
