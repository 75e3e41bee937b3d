/* bench_time.c - how long a program takes, for bench.sh; static, so that it also runs in the lab.

     bench_time exit PROGRAM ARGS...          from exec to exit: wall time and the CPU time of the
                                              process and its threads
     bench_time kvm PROGRAM ARGS...           the counters of KVM (exits, ...) at its end: slow, so
                                              a run of its own
     bench_time first N A ARGS... -- B ARGS...
                                              from exec to the first byte on standard output, wall
                                              and CPU; A and B in turn, N times each; medians
   Results go to standard output, one line of key=value each, in nanoseconds. In the modes exit and
   kvm the program's own output goes to standard error. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RUNS_MAX = 2000 };

static void fail(const char *what)
{
    fprintf(stderr, "bench_time: %s: %s\n", what, strerror(errno));
    exit(125);
}

static long long now(clockid_t clock)
{
    struct timespec t;

    if (clock_gettime(clock, &t))
        return 0;
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Starts a program with its standard output on `out`. */
static pid_t start(char **argv, int out, int traced)
{
    pid_t pid = fork();

    if (pid < 0)
        fail("fork");
    if (pid)
        return pid;
    int null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(out, 1);
    if (traced)
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    execvp(argv[0], argv);
    fail(argv[0]);
    return -1;
}

static long long cpu_ns(const struct rusage *u)
{
    return (u->ru_utime.tv_sec + u->ru_stime.tv_sec) * 1000000000LL +
           (u->ru_utime.tv_usec + u->ru_stime.tv_usec) * 1000LL;
}

static int run_to_exit(char **argv)
{
    struct rusage use;
    int status;
    long long t0 = now(CLOCK_MONOTONIC);
    pid_t pid = start(argv, 2, 0);

    if (wait4(pid, &status, 0, &use) != pid)
        fail("wait4");
    printf("wall=%lld cpu=%lld status=%d\n", now(CLOCK_MONOTONIC) - t0, cpu_ns(&use),
           WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    return 0;
}

static void print_counter(const char *name)
{
    char path[100], text[32] = "";
    snprintf(path, sizeof path, "/sys/kernel/debug/kvm/%s", name);
    int fd = open(path, O_RDONLY);

    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
        fail(path);
    close(fd);
    printf("%s=%lld ", name, atoll(text));
}

/* The counters are those of VMs that exist: they have to be read when the program is about to end
   but still holds its VM, and that moment is an event for a tracer. */
static int run_to_counters(char **argv)
{
    int status;
    pid_t pid = start(argv, 2, 1);

    waitpid(pid, &status, 0); /* the stop at exec */
    if (!WIFSTOPPED(status))
        return 125;
    ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACEEXIT);
    for (int pass = 0;; pass = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status)) {
        ptrace(PTRACE_CONT, pid, NULL, pass);
        if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
            return 125;
        if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXIT << 8))
            break;
    }
    print_counter("exits");
    print_counter("io_exits");
    print_counter("mmio_exits");
    print_counter("pf_fixed");
    printf("\n");
    ptrace(PTRACE_CONT, pid, NULL, 0);
    waitpid(pid, &status, 0);
    return 0;
}

struct sample {
    long long wall, cpu;
};

/* One start: until the first byte comes out of it; then it has served. */
static struct sample first_byte(char **argv)
{
    struct sample s;
    clockid_t clock;
    char byte;
    int fd[2];

    if (pipe2(fd, O_CLOEXEC))
        fail("pipe");
    long long t0 = now(CLOCK_MONOTONIC);
    pid_t pid = start(argv, fd[1], 0);
    close(fd[1]);
    if (read(fd[0], &byte, 1) != 1) {
        fprintf(stderr, "bench_time: %s ended without a byte of output\n", argv[0]);
        exit(125);
    }
    s.wall = now(CLOCK_MONOTONIC) - t0;
    s.cpu = clock_getcpuclockid(pid, &clock) ? 0 : now(clock);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(fd[0]);
    return s;
}

static int ascending(const void *a, const void *b)
{
    long long x = *(const long long *)a, y = *(const long long *)b;
    return (x > y) - (x < y);
}

static long long median(long long *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, ascending);
    return v[n / 2];
}

static int compare_starts(int n, char **a, char **b)
{
    static long long wall[2][RUNS_MAX], cpu[2][RUNS_MAX];

    for (int i = 0; i < n; i++) {
        for (int who = 0; who < 2; who++) {
            struct sample s = first_byte(who ? b : a);
            wall[who][i] = s.wall;
            cpu[who][i] = s.cpu;
        }
    }
    for (int who = 0; who < 2; who++)
        printf("%s wall=%lld cpu=%lld\n", who ? "b" : "a", median(wall[who], n),
               median(cpu[who], n));
    return 0;
}

int main(int argc, char **argv)
{
    if (argc >= 3 && !strcmp(argv[1], "exit"))
        return run_to_exit(argv + 2);
    if (argc >= 3 && !strcmp(argv[1], "kvm"))
        return run_to_counters(argv + 2);
    if (argc >= 6 && !strcmp(argv[1], "first")) {
        int n = atoi(argv[2]), b = 3;
        while (b < argc && strcmp(argv[b], "--"))
            b++;
        if (n > 0 && n <= RUNS_MAX && b + 1 < argc) {
            argv[b] = NULL;
            return compare_starts(n, argv + 3, argv + b + 1);
        }
    }
    fprintf(stderr,
            "usage: bench_time exit|kvm PROGRAM ARGS... | first N A ARGS... -- B ARGS...\n");
    return 125;
}
