#ifndef STUB_TIME_H
#define STUB_TIME_H
#include <stub.h>

#define CLOCK_REALTIME  STUB_SYSTEM(0, 0, 0, -1)
#define CLOCK_MONOTONIC STUB_SYSTEM(6, 3, 4, 0)

struct timespec {
    time_t tv_sec;
    long tv_nsec;
};

typedef STUB_SYSTEM(int, int, unsigned long, int32_t) clockid_t;

int clock_gettime(clockid_t clock, struct timespec *t) STUB_NETBSD(__clock_gettime50);
int nanosleep(const struct timespec *t, struct timespec *left) STUB_NETBSD(__nanosleep50);

#endif
