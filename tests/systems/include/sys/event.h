#ifndef STUB_SYS_EVENT_H
#define STUB_SYS_EVENT_H
#include <stub.h>
#include <time.h>

#if defined(__APPLE__)
#define EVFILT_READ  (-1)
#define EVFILT_WRITE (-2)
#else
#define EVFILT_READ  0u
#define EVFILT_WRITE 1u
#endif
#define EV_ADD    0x1
#define EV_DELETE 0x2
#define EV_CLEAR  0x20
#define EV_EOF    0x8000

struct kevent {
    uintptr_t ident;
    STUB_SYSTEM(int16_t, uint32_t) filter;
    STUB_SYSTEM(uint16_t, uint32_t) flags;
    uint32_t fflags;
    STUB_SYSTEM(intptr_t, int64_t) data;
    void *udata;
};

int kqueue(void);
int kevent(int fd, const struct kevent *change, STUB_SYSTEM(int, size_t) nchange, struct kevent *to,
           STUB_SYSTEM(int, size_t) room, const struct timespec *t) STUB_NETBSD(__kevent50);

#endif
