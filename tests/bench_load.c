/* bench_load.c - what a VMM does while its guest is under load, for bench.sh; static, for the lab

     bench_load time PROGRAM ARGS...     runs PROGRAM, a VMM, until it ends, and watches the guest's
     bench_load count PROGRAM ARGS...    console, its standard output
   The guest (guests/tools) says "MARK name begin", "MARK name end" and then its own figures,
   "key=value ...". For each load one line is printed, "name wall=ns key=value ...", and with `count`
   also how often the events below happened in all threads of PROGRAM in between. To count costs
   instructions, which are the lab's clock: the figures of `time` are the ones to compare.
   Other lines of the console go to standard error. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TRACING "/sys/kernel/debug/tracing/events/"

/* Exit codes of AMD's SVM, which is what the lab emulates. */
static const struct {
    const char *name, *tracepoint, *filter;
} events[] = {
    {"syscalls", "raw_syscalls/sys_enter", NULL},
    {"switches", "sched/sched_switch", NULL},
    {"exits", "kvm/kvm_exit", NULL},
    {"user_exits", "kvm/kvm_userspace_exit", NULL},
    {"npf", "kvm/kvm_exit", "exit_reason == 0x400"},
    {"pio", "kvm/kvm_exit", "exit_reason == 0x7b"},
    {"hlt", "kvm/kvm_exit", "exit_reason == 0x78"},
    {"msr", "kvm/kvm_exit", "exit_reason == 0x7c"},
    {"intr", "kvm/kvm_exit", "exit_reason == 0x60"},
    {"vintr", "kvm/kvm_exit", "exit_reason == 0x64"},
    {"messages", "kvm/kvm_msi_set_irq", NULL},
};
enum { NEVENTS = sizeof events / sizeof *events };

struct sample {
    uint64_t wall, count[NEVENTS];
};

static int counter[NEVENTS], counting;

static void fail(const char *what)
{
    fprintf(stderr, "bench_load: %s: %s\n", what, strerror(errno));
    exit(125);
}

static uint64_t tracepoint_id(const char *name)
{
    char path[128], text[32] = "";
    int fd;

    snprintf(path, sizeof path, TRACING "%s/id", name);
    fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
        fail(path);
    close(fd);
    return strtoull(text, NULL, 10);
}

/* Counts in this process and, from its exec on, in all that comes of it. */
static void open_counters(pid_t pid)
{
    for (int i = 0; i < NEVENTS; i++) {
        struct perf_event_attr a = {.type = PERF_TYPE_TRACEPOINT,
                                    .size = sizeof a,
                                    .config = tracepoint_id(events[i].tracepoint),
                                    .disabled = 1,
                                    .inherit = 1,
                                    .enable_on_exec = 1};
        counter[i] = (int)syscall(SYS_perf_event_open, &a, pid, -1, -1, PERF_FLAG_FD_CLOEXEC);
        if (counter[i] < 0)
            fail("perf_event_open");
        if (events[i].filter && ioctl(counter[i], PERF_EVENT_IOC_SET_FILTER, events[i].filter))
            fail(events[i].filter);
    }
}

static struct sample take(void)
{
    struct sample s = {0};
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    s.wall = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
    for (int i = 0; counting && i < NEVENTS; i++)
        if (read(counter[i], &s.count[i], sizeof s.count[i]) != sizeof s.count[i])
            fail("read a counter");
    return s;
}

static void report(const char *name, const struct sample *a, const struct sample *b)
{
    printf("%s wall=%llu ", name, (unsigned long long)(b->wall - a->wall));
    for (int i = 0; counting && i < NEVENTS; i++)
        printf("%s=%llu ", events[i].name, (unsigned long long)(b->count[i] - a->count[i]));
}

static void watch(FILE *console)
{
    struct sample begin = {0}, end;
    char line[1024], name[64], which[8];
    int ended = 0;

    while (fgets(line, sizeof line, console)) {
        line[strcspn(line, "\r\n")] = 0;
        if (sscanf(line, "MARK %63s %7s", name, which) == 2) {
            end = take();
            ended = !strcmp(which, "end");
            if (ended)
                report(name, &begin, &end);
            else
                begin = end;
        } else if (ended && strchr(line, '=')) {
            printf("%s\n", line);
            fflush(stdout);
            ended = 0;
        } else {
            fprintf(stderr, "%s\n", line);
        }
    }
}

/* The child waits until it is told that the counters are there. */
static void become(char **argv, int go, int out)
{
    char byte;

    if (read(go, &byte, 1) != 1)
        exit(125);
    dup2(open("/dev/null", O_RDONLY), 0);
    dup2(out, 1);
    execvp(argv[0], argv);
    fail(argv[0]);
}

int main(int argc, char **argv)
{
    int go[2], out[2], status;
    pid_t pid;

    if (argc < 3 || (strcmp(argv[1], "time") && strcmp(argv[1], "count"))) {
        fprintf(stderr, "usage: bench_load time|count PROGRAM ARGS...\n");
        return 125;
    }
    counting = !strcmp(argv[1], "count");
    if (pipe2(go, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
        fail("pipe");
    pid = fork();
    if (pid < 0)
        fail("fork");
    if (!pid)
        become(argv + 2, go[0], out[1]);
    if (counting)
        open_counters(pid);
    close(out[1]);
    if (write(go[1], "", 1) != 1)
        fail("start");
    watch(fdopen(out[0], "r"));
    if (waitpid(pid, &status, 0) != pid)
        fail("waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
