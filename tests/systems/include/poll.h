#ifndef STUB_POLL_H
#define STUB_POLL_H

#define POLLIN   0x1
#define POLLOUT  0x4
#define POLLERR  0x8
#define POLLHUP  0x10
#define POLLNVAL 0x20

typedef unsigned int nfds_t;

struct pollfd {
    int fd;
    short events;
    short revents;
};

int poll(struct pollfd *p, nfds_t n, int ms);

#endif
