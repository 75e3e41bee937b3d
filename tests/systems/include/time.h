#ifndef STUB_TIME_H
#define STUB_TIME_H
#include <stub.h>

#define CLOCK_REALTIME  0
#define CLOCK_MONOTONIC STUB_SYSTEM(6, 3)

struct timespec {
    time_t tv_sec;
    long tv_nsec;
};

typedef int clockid_t;

int clock_gettime(clockid_t clock, struct timespec *t) STUB_NETBSD(__clock_gettime50);
int nanosleep(const struct timespec *t, struct timespec *left) STUB_NETBSD(__nanosleep50);

#endif
