#ifndef STUB_POLL_H
#define STUB_POLL_H
#include <stub.h>

#define POLLIN   0x1
#define POLLOUT  STUB_SYSTEM(0x4, 0x4, 0x4, 0x2)
#define POLLERR  STUB_SYSTEM(0x8, 0x8, 0x8, 0x4)
#define POLLHUP  STUB_SYSTEM(0x10, 0x10, 0x10, 0x80)
#define POLLNVAL STUB_SYSTEM(0x20, 0x20, 0x20, 0x1000)

typedef STUB_SYSTEM(unsigned int, unsigned int, unsigned int, unsigned long) nfds_t;

struct pollfd {
    int fd;
    short events;
    short revents;
};

int poll(struct pollfd *p, nfds_t n, int ms);

#endif
