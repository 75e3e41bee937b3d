#ifndef STUB_SIGNAL_H
#define STUB_SIGNAL_H
#include <stub.h>

#define SIGHUP   1
#define SIGINT   2
#define SIGQUIT  3
#define SIGILL   4
#define SIGABRT  6
#define SIGFPE   8
#define SIGKILL  9
#define SIGBUS   10
#define SIGSEGV  11
#define SIGPIPE  13
#define SIGALRM  14
#define SIGTERM  15
#define SIGCONT  19
#define SIGTTIN  21
#define SIGTTOU  22
#define SIGWINCH 28
#define SIGUSR1  30
#define SIGUSR2  31

#define SIG_DFL     ((void (*)(int))0)
#define SIG_IGN     ((void (*)(int))1)
#define SIG_BLOCK   1
#define SIG_UNBLOCK 2
#define SIG_SETMASK 3
#define SA_ONSTACK  0x1
#define SA_RESTART  0x2
#define SA_SIGINFO  0x40

typedef int sig_atomic_t;

#if defined(__APPLE__)
typedef uint32_t sigset_t;
typedef struct {
    int si_signo, si_errno, si_code;
    pid_t si_pid;
    uid_t si_uid;
    int si_status;
    void *si_addr, *si_value;
    long si_band;
    unsigned long opaque[7];
} siginfo_t;
#else
typedef struct {
    uint32_t bits[4];
} sigset_t;
typedef struct {
    int si_signo, si_code, si_errno, pad;
    void *opaque[14];
} siginfo_t;
#endif

struct sigaction {
    union {
        void (*handler)(int);
        void (*action)(int, siginfo_t *, void *);
    } stub;
    sigset_t sa_mask;
    int sa_flags;
};
#define sa_handler   stub.handler
#define sa_sigaction stub.action

int kill(pid_t pid, int signo);
int pthread_sigmask(int how, const sigset_t *set, sigset_t *old);
int raise(int signo);
int sigaction(int signo, const struct sigaction *a, struct sigaction *old)
    STUB_NETBSD(__sigaction_siginfo);
int sigaddset(sigset_t *set, int signo) STUB_NETBSD(__sigaddset14);
int sigemptyset(sigset_t *set) STUB_NETBSD(__sigemptyset14);
int sigfillset(sigset_t *set) STUB_NETBSD(__sigfillset14);
int sigprocmask(int how, const sigset_t *set, sigset_t *old) STUB_NETBSD(__sigprocmask14);
int sigwait(const sigset_t *set, int *signo);

#endif
