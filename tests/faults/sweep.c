/* The sweep: every scenario on every device, once for every way in which a call that can fail comes about. */
#define _GNU_SOURCE
#include "sweep.h"
#include "child.h"
#include "folder.h"
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_JOBS = 16 };

typedef struct job {
  pid_t pid; /* 0: free */
  char folder[300];
  fault_plan plan;
  fault_report *report;
  time_t begun;
  bool follows; /* `after` is running */
  int status;   /* of `run`           */
} job;

typedef struct sweep {
  const sweep_options *options;
  const scenario *what;
  const char *device;
  char base[200];
  held_folder before, done, followed; /* undisturbed: at first, after `run`, after `after` */
  fault_leak kept[FAULT_LEAKS];       /* memory that an undisturbed run does not free      */
  uint32_t kept_count;
  job jobs[MAX_JOBS];
  sweep_totals totals;
} sweep;

static void path_in(const sweep *s, const char *name, char *path) {
  snprintf(path, 300, "%.150s/%.140s", s->base, name);
}

/* ---- Verdicts ---- */

static void blame(sweep *s, const job *j, const char *what, const char *name) {
  s->totals.wrong++;
  printf("WRONG: %s %s %s %u%s: %s%s%s\n", s->what->name, s->device, fault_kind_names[j->plan.kind], j->plan.number,
         j->plan.lasting ? " lasting" : "", what, name[0] ? ": " : "", name);
  fflush(stdout);
}

static bool is_stream(const char *name) { return strcmp(name, "stdout") == 0 || strcmp(name, "stderr") == 0; }
static bool is_cached(const char *name) { return strncmp(name, COLD_FOLDER "/", sizeof COLD_FOLDER) == 0; }

static bool same_as(const held_folder *held, const held_file *f) {
  const held_file *other = folder_find(held, f->name);
  return other && file_equal(f, other);
}

/* Every file is whole and either as it was or as it was to become. */
static void check_files(sweep *s, const job *j, held_folder *now, const held_folder *wanted, bool success) {
  for (size_t i = 0; i < now->count; i++) {
    held_file *f = &now->files[i];
    if (is_stream(f->name)) continue;
    if (is_cached(f->name)) { /* whole entries, by their names */
      if (!strstr(f->name, ".bin")) blame(s, j, "a file was left", f->name);
      continue;
    }
    const held_file *good = folder_find(wanted, f->name);
    if (good) f->unstable = good->unstable;
    if (success ? !same_as(wanted, f) : !same_as(wanted, f) && !same_as(&s->before, f) && !same_as(&s->done, f))
      blame(s, j, good ? "a file is damaged" : "a file was left", f->name);
  }
  for (size_t i = 0; i < wanted->count; i++) {
    const held_file *f = &wanted->files[i];
    bool due = success || folder_find(&s->before, f->name);
    if (!is_stream(f->name) && !is_cached(f->name) && due && !folder_find(now, f->name))
      blame(s, j, "a file is missing", f->name);
  }
}

static bool begins_with(const held_file *whole, const char *data, size_t bytes) {
  return bytes <= whole->bytes && memcmp(data, whole->data, bytes) == 0;
}

/* What was printed is all that was to be printed, or its beginning; of a run that failed a line may end early. */
static void check_streams(sweep *s, const job *j, const held_folder *now, const held_folder *wanted, int status) {
  const held_file *out = folder_find(now, "stdout"), *good = folder_find(wanted, "stdout");
  const held_file *messages = folder_find(now, "stderr");
  if (status != 0 && messages->bytes == 0) blame(s, j, "it failed without a message", "");
  if (good->unstable) return;
  size_t bytes = out->bytes;
  if (status != 0 && bytes && out->data[bytes - 1] == '\n' && !begins_with(good, out->data, bytes)) bytes--;
  if (!begins_with(good, out->data, bytes)) blame(s, j, "it printed something else", "");
  else if (status == 0 && out->bytes < good->bytes) blame(s, j, "status 0, and not all was printed", "");
}

static uint32_t kept_by(const sweep *s, const void *caller) {
  for (uint32_t i = 0; i < s->kept_count; i++)
    if (s->kept[i].caller == caller) return s->kept[i].count;
  return 0;
}

static void check_leaks(sweep *s, const job *j) {
  const fault_report *r = j->report;
  char text[200];
  for (uint32_t i = 0; i < r->leak_count; i++) {
    if (r->leaks[i].count <= kept_by(s, r->leaks[i].caller)) continue;
    Dl_info about = {0};
    dladdr(r->leaks[i].caller, &about);
    snprintf(text, sizeof text, "%u blocks, the last after %u, by %s+%#lx", r->leaks[i].count, r->leaks[i].number,
             about.dli_fname ? strrchr(about.dli_fname, '/') + 1 : "?",
             (unsigned long)((char *)r->leaks[i].caller - (char *)about.dli_fbase));
    blame(s, j, "memory leaks", text);
  }
  if (r->opencl_objects) blame(s, j, "OpenCL objects leak", "");
  /* A driver keeps files open as it likes. */
  if (r->open_files && strcmp(s->device, "cpu") == 0) blame(s, j, "files stay open", "");
}

/* After `run`. True: `after` follows. */
static bool check_run(sweep *s, job *j, int wait_status) {
  held_folder now;
  if (!WIFEXITED(wait_status)) {
    blame(s, j, WTERMSIG(wait_status) == SIGKILL ? "it hung" : "it crashed", strsignal(WTERMSIG(wait_status)));
    return s->what->after.main != NULL;
  }
  j->status = WEXITSTATUS(wait_status);
  if (j->report->ended && !j->report->leaks_allowed) check_leaks(s, j);
  s->totals.injected += j->report->failed > 0;
  s->totals.survived += j->status == 0;
  folder_read(j->folder, &now);
  check_files(s, j, &now, &s->done, j->status == 0);
  check_streams(s, j, &now, &s->done, j->status);
  folder_free(&now);
  return s->what->after.main != NULL;
}

/* After `after`, which nothing has disturbed. */
static void check_after(sweep *s, job *j, int wait_status) {
  held_folder now;
  if (!WIFEXITED(wait_status)) {
    blame(s, j, "going on, it hung or crashed", "");
    return;
  }
  int status = WEXITSTATUS(wait_status);
  folder_read(j->folder, &now);
  const held_file *messages = folder_find(&now, "stderr");
  if (status == 0) check_files(s, j, &now, &s->followed, true);
  else if (s->what->must_go_on) blame(s, j, "it cannot go on", messages->data);
  else if (messages->bytes == 0) blame(s, j, "going on, it failed without a message", "");
  folder_free(&now);
}

/* ---- Jobs ---- */

static void start(sweep *s, job *j, const fault_plan *plan) {
  char template[300];
  path_in(s, "before", template);
  folder_remove(j->folder);
  folder_copy(template, j->folder);
  j->plan = *plan;
  j->follows = false;
  j->begun = time(NULL);
  j->pid = child_start(j->folder, &s->what->run, s->device, s->what->cold, plan, j->report);
}

static void ended(sweep *s, job *j, int wait_status) {
  bool more = false;
  if (j->follows) check_after(s, j, wait_status);
  else more = check_run(s, j, wait_status);
  j->pid = 0;
  if (!more) return;
  j->follows = true;
  j->begun = time(NULL);
  j->pid = child_start(j->folder, &s->what->after, s->device, false, NULL, NULL);
}

/* A driver compiles all kernels anew where a fault has hidden the cache. */
static void kill_hanging(sweep *s) {
  const time_t hang = strcmp(s->device, "cpu") == 0 ? 60 : 600;
  for (int i = 0; i < s->options->jobs; i++)
    if (s->jobs[i].pid && time(NULL) - s->jobs[i].begun > hang) kill(s->jobs[i].pid, SIGKILL);
}

/* Waits until one more job is free, or (`all`) all are. */
static job *wait_free(sweep *s, bool all) {
  for (;;) {
    int busy = 0, status;
    job *free_one = NULL;
    for (int i = 0; i < s->options->jobs; i++) {
      job *j = &s->jobs[i];
      if (j->pid && waitpid(j->pid, &status, WNOHANG) == j->pid) ended(s, j, status);
      if (j->pid) busy++;
      else free_one = j;
    }
    if (all ? busy == 0 : free_one != NULL) return free_one;
    kill_hanging(s);
    usleep(500);
  }
}

/* ---- Which calls are to fail ---- */

static int by_stack(const void *a, const void *b) {
  const fault_point *p = a, *q = b;
  if (p->stack != q->stack) return p->stack < q->stack ? -1 : 1;
  return p->number < q->number ? -1 : 1;
}

/* Of each way to come to a call: the first, the last and some in between; the others' numbers become 0. */
static void choose(fault_point *points, uint32_t count, uint32_t each) {
  qsort(points, count, sizeof *points, by_stack);
  for (uint32_t i = 0, end; i < count; i = end) {
    for (end = i; end < count && points[end].stack == points[i].stack;) end++;
    uint32_t n = end - i;
    for (uint32_t k = 0; n > each && k < n; k++) {
      bool taken = false;
      for (uint32_t e = 0; e < each; e++) taken |= k == (each == 1 ? 0 : e * (n - 1) / (each - 1));
      if (!taken) points[i + k].number = 0;
    }
  }
}

static void sweep_kind(sweep *s, fault_kind kind, const fault_report *seen) {
  fault_point *points = malloc((seen->point_count[kind] + 1) * sizeof *points);
  uint32_t count = seen->point_count[kind], before = s->totals.runs, nth = 0;
  if (!points) abort();
  memcpy(points, seen->points[kind], count * sizeof *points);
  choose(points, count, s->options->each);
  for (uint32_t i = 0; i < count; i++) {
    if (!points[i].number || nth++ % s->options->every != s->options->first % s->options->every) continue;
    const bool lasting = (nth / s->options->every) % 3 == 2; /* every third: from there on nothing works any more */
    start(s, wait_free(s, false), &(fault_plan){.kind = kind, .number = points[i].number, .lasting = lasting});
    s->totals.runs++;
  }
  wait_free(s, true);
  free(points);
  if (s->options->verbose)
    printf("%-18s %-4s %-8s %6u calls, %5u faults\n", s->what->name, s->device, fault_kind_names[kind],
           seen->seen[kind], s->totals.runs - before);
  fflush(stdout);
}

/* ---- A scenario ---- */

static void mark_unstable(held_folder *a, const held_folder *b) {
  for (size_t i = 0; i < a->count; i++) {
    const held_file *other = folder_find(b, a->files[i].name);
    a->files[i].unstable = file_has_times(&a->files[i]) || !other || a->files[i].bytes != other->bytes ||
                           memcmp(a->files[i].data, other->data, other->bytes) != 0;
  }
}

static bool undisturbed(sweep *s, const char *folder, const command *what, fault_report *report, held_folder *held) {
  const fault_plan plan = {.record = true};
  int status = child_run(folder, what, s->device, s->what->cold, &plan, report);
  folder_read(folder, held);
  if (status == 0) return true;
  printf("WRONG: %s %s: it fails undisturbed: %s\n", s->what->name, s->device, folder_find(held, "stderr")->data);
  s->totals.wrong++;
  return false;
}

/* Twice: what differs holds times, and so does what says so by its name: rounded, they may agree by chance. */
static bool learn(sweep *s, fault_report *report) {
  char before[300], work[300];
  held_folder again = {0};
  path_in(s, "before", before);
  path_in(s, "work", work);
  folder_remove(before);
  folder_remove(work);
  mkdir(before, 0777);
  bool ok = true;
  if (s->what->before.main) {
    ok = undisturbed(s, before, &s->what->before, report, &s->before);
    folder_free(&s->before);
  }
  folder_read(before, &s->before);
  for (int i = 0; i < 2 && ok; i++) {
    folder_free(&again);
    again = s->done;
    folder_remove(work);
    folder_copy(before, work);
    ok = undisturbed(s, work, &s->what->run, report, &s->done);
  }
  if (ok) mark_unstable(&s->done, &again);
  folder_free(&again);
  s->kept_count = report->leak_count;
  memcpy(s->kept, report->leaks, sizeof s->kept);
  if (ok && s->what->after.main) {
    ok = child_run(work, &s->what->after, s->device, false, NULL, NULL) == 0;
    folder_read(work, &s->followed);
    for (size_t i = 0; i < s->followed.count; i++) {
      const held_file *f = folder_find(&s->done, s->followed.files[i].name);
      s->followed.files[i].unstable = f && f->unstable;
    }
    if (!ok) printf("WRONG: %s %s: it cannot go on undisturbed\n", s->what->name, s->device), s->totals.wrong++;
  }
  return ok;
}

static void sweep_scenario(sweep *s, fault_report *report) {
  if (learn(s, report))
    for (int kind = 0; kind < FAULT_KINDS; kind++)
      if (s->options->kinds & 1u << kind) sweep_kind(s, (fault_kind)kind, report);
  folder_free(&s->before);
  folder_free(&s->done);
  folder_free(&s->followed);
}

static void make_base(sweep *s) {
  const char *base = getenv("TMPDIR");
  char path[300];
  snprintf(s->base, sizeof s->base, "%s/clmamba-faults-XXXXXX",
           base                            ? base
           : access("/dev/shm", W_OK) == 0 ? "/dev/shm"
                                           : "/tmp");
  if (!mkdtemp(s->base)) {
    perror(s->base);
    exit(EXIT_FAILURE);
  }
  path_in(s, "in", path);
  mkdir(path, 0777);
  scenario_inputs(path);
  for (int i = 0; i < s->options->jobs; i++) {
    snprintf(path, sizeof path, "job%d", i);
    path_in(s, path, s->jobs[i].folder);
    s->jobs[i].report = report_create();
  }
}

sweep_totals sweep_run(const sweep_options *options) {
  static sweep s;
  s = (sweep){.options = options};
  fault_report *report = report_create();
  make_base(&s);
  for (int d = 0; options->devices[d]; d++)
    for (int i = 0; i < scenario_count; i++) {
      s.device = options->devices[d];
      s.what = &scenarios[i];
      if (s.what->cold && strcmp(s.device, "cpu") == 0) continue;
      if (!options->name || strcmp(options->name, s.what->name) == 0) sweep_scenario(&s, report);
    }
  folder_remove(s.base);
  return s.totals;
}

int sweep_one(const sweep_options *options, const fault_plan *plan) {
  static sweep s;
  s = (sweep){.options = options, .device = options->devices[0]};
  fault_report *report = report_create();
  make_base(&s);
  for (int i = 0; i < scenario_count; i++)
    if (strcmp(options->name, scenarios[i].name) == 0) s.what = &scenarios[i];
  if (!s.what || !learn(&s, report)) return EXIT_FAILURE;
  fault_plan explained = *plan;
  explained.explain = true;
  start(&s, &s.jobs[0], &explained);
  wait_free(&s, true);
  char path[400], line[1000];
  snprintf(path, sizeof path, "%s/stderr", s.jobs[0].folder);
  FILE *f = fopen(path, "r");
  while (f && fgets(line, sizeof line, f)) fputs(line, stdout);
  if (f) fclose(f);
  printf("status %d, folder %s\n", s.jobs[0].status, s.jobs[0].folder);
  return EXIT_SUCCESS;
}
