#define _GNU_SOURCE
#include "child.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what) {
  perror(what);
  exit(EXIT_FAILURE);
}

fault_report *report_create(void) {
  void *memory = mmap(NULL, sizeof(fault_report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) die("shared memory");
  return memory;
}

static void redirect(int stream, const char *name) {
  int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (fd < 0 || dup2(fd, stream) < 0) _exit(99);
  close(fd);
}

static void run(const char *folder, const command *what, const char *device, bool cold, const fault_plan *plan,
                fault_report *report) {
  char *words[SCENARIO_WORDS + 3];
  int count = 0;
  for (; what->words[count]; count++) words[count] = (char *)(uintptr_t)what->words[count];
  words[count++] = (char *)(uintptr_t) "--device";
  words[count++] = (char *)(uintptr_t)device;
  words[count] = NULL;
  if (chdir(folder) != 0) _exit(99);
  char cache[4200], here[4096];
  if (cold && getcwd(here, sizeof here)) {
    snprintf(cache, sizeof cache, "%s/" COLD_FOLDER, here);
    setenv("XDG_CACHE_HOME", cache, 1);
  }
  redirect(STDOUT_FILENO, "stdout");
  redirect(STDERR_FILENO, "stderr");
  if (report) fault_begin(plan, report);
  int status = what->main(count, words);
  if (report) fault_end();
  fflush(stdout);
  _exit(status);
}

pid_t child_start(const char *folder, const command *what, const char *device, bool cold, const fault_plan *plan,
                  fault_report *report) {
  fflush(stdout);
  if (report) {
    report->ended = false;
    memset(report, 0, offsetof(fault_report, points));
  }
  pid_t pid = fork();
  if (pid < 0) die("fork");
  if (pid == 0) run(folder, what, device, cold, plan, report);
  return pid;
}

int child_wait(pid_t pid) {
  int status;
  if (waitpid(pid, &status, 0) != pid) die("waitpid");
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int child_run(const char *folder, const command *what, const char *device, bool cold, const fault_plan *plan,
              fault_report *report) {
  return child_wait(child_start(folder, what, device, cold, plan, report));
}
