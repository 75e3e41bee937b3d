#ifndef STUB_SYS_EVENT_H
#define STUB_SYS_EVENT_H
#include <stub.h>
#include <time.h>

#if defined(__HAIKU__)
#error "not every Haiku has a kqueue"
#endif

#define EVFILT_READ  STUB_SYSTEM(-1, 0u, -1, )
#define EVFILT_WRITE STUB_SYSTEM(-2, 1u, -2, )
#define EV_ADD       0x1
#define EV_DELETE    0x2
#define EV_CLEAR     0x20
#define EV_EOF       0x8000

#if !defined(STUB_UDATA) /* what it is on NetBSD 9, the test says */
#define STUB_UDATA void *
#endif

struct kevent {
    uintptr_t ident;
    STUB_SYSTEM(int16_t, uint32_t, int16_t, ) filter;
    STUB_SYSTEM(uint16_t, uint32_t, uint16_t, ) flags;
    uint32_t fflags;
    STUB_SYSTEM(intptr_t, int64_t, intptr_t, ) data;
    STUB_UDATA udata;
};
typedef STUB_SYSTEM(int, size_t, int, ) stub_count;

int kqueue(void);
int kevent(int fd, const struct kevent *change, stub_count nchange, struct kevent *to,
           stub_count room, const struct timespec *t) STUB_NETBSD(__kevent50);

#endif
