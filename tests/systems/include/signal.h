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
#define SIGBUS   STUB_SYSTEM(10, 10, 10, 30)
#define SIGSEGV  11
#define SIGPIPE  STUB_SYSTEM(13, 13, 13, 7)
#define SIGALRM  14
#define SIGTERM  15
#define SIGCONT  STUB_SYSTEM(19, 19, 19, 12)
#define SIGTTIN  STUB_SYSTEM(21, 21, 21, 16)
#define SIGTTOU  STUB_SYSTEM(22, 22, 22, 17)
#define SIGWINCH STUB_SYSTEM(28, 28, 28, 20)
#define SIGUSR1  STUB_SYSTEM(30, 30, 30, 18)
#define SIGUSR2  STUB_SYSTEM(31, 31, 31, 19)

#define SIG_DFL     ((void (*)(int))0)
#define SIG_IGN     ((void (*)(int))1)
#define SIG_BLOCK   1
#define SIG_UNBLOCK 2
#define SIG_SETMASK 3
#define SA_ONSTACK  STUB_SYSTEM(0x1, 0x1, 0x1, 0x20)
#define SA_RESTART  STUB_SYSTEM(0x2, 0x2, 0x2, 0x10)
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
#elif defined(__HAIKU__)
typedef uint64_t sigset_t;
typedef struct {
    int si_signo, si_code, si_errno;
    pid_t si_pid;
    uid_t si_uid;
    void *si_addr;
    int si_status;
    long si_band;
    void *si_value;
} siginfo_t;
#else
typedef struct {
    uint32_t bits[4];
} sigset_t;
typedef struct {
    int si_signo, STUB_SYSTEM(, si_code, si_errno, ), STUB_SYSTEM(, si_errno, si_code, ), pad;
    void *opaque[STUB_SYSTEM(, 14, 8, )];
} siginfo_t;
#endif

#if defined(__HAIKU__)
struct sigaction {
    union {
        void (*sa_handler)(int);
        void (*sa_sigaction)(int, siginfo_t *, void *);
    };
    sigset_t sa_mask;
    int sa_flags;
    void *sa_userdata;
};
#else
struct sigaction {
    union {
        void (*handler)(int);
        void (*action)(int, siginfo_t *, void *);
    } stub;
#if defined(__DragonFly__)
    int sa_flags;
    sigset_t sa_mask;
#else
    sigset_t sa_mask;
    int sa_flags;
#endif
};
#define sa_handler   stub.handler
#define sa_sigaction stub.action
#endif

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
