#ifndef STUB_SYS_RESOURCE_H
#define STUB_SYS_RESOURCE_H
#include <stub.h>

#if !defined(__HAIKU__)
#define RLIMIT_MEMLOCK 6
#endif
#define RLIMIT_NOFILE STUB_SYSTEM(8, 8, 8, 4)

typedef STUB_SYSTEM(uint64_t, uint64_t, int64_t, uintptr_t) rlim_t;

struct rlimit {
    rlim_t rlim_cur, rlim_max;
};

int getrlimit(int what, struct rlimit *limit);
int setrlimit(int what, const struct rlimit *limit);

#endif
