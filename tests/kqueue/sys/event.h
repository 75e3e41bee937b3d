/* sys/event.h - as much of kqueue as host.h uses, on Linux: so that its kqueue loop runs in the tests

   Layout and values are FreeBSD's and DragonFly's. Of each direction an epoll of its own keeps the
   filters, and a third one, the kqueue, tells which of the two has something to report. What kqueue
   does differently from epoll is done as its manual says: a filter for each direction, EV_EOF, ENOENT
   for a filter that is not there, a timeout in nanoseconds. What only a kernel with a kqueue can show
   (which devices have filters, how ends of terminals look) is not shown by this. */
#ifndef TESTS_SYS_EVENT_H
#define TESTS_SYS_EVENT_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define EVFILT_READ  (-1)
#define EVFILT_WRITE (-2)
#define EV_ADD       0x0001
#define EV_DELETE    0x0002
#define EV_CLEAR     0x0020
#define EV_EOF       0x8000

struct kevent {
    uintptr_t ident;
    short filter;
    unsigned short flags;
    unsigned fflags;
    intptr_t data;
    void *udata;
};

#define KQ_FDS 1024 /* the largest descriptor of a test */

static struct kq {
    int dir[2]; /* the epoll of the readers, and of the writers */
    void *udata[2][KQ_FDS];
} kq[KQ_FDS];

static int kqueue(void)
{
    int fd = epoll_create1(0);

    if (fd < 0 || fd >= KQ_FDS)
        return -1;
    for (unsigned i = 0; i < 2; i++) {
        struct epoll_event e = {EPOLLIN, {.u32 = i}};
        if (kq[fd].dir[i]) /* of one that was closed */
            close(kq[fd].dir[i]);
        kq[fd].dir[i] = epoll_create1(EPOLL_CLOEXEC);
        if (epoll_ctl(fd, EPOLL_CTL_ADD, kq[fd].dir[i], &e))
            return -1;
    }
    return fd;
}

static int kq_change(struct kq *q, const struct kevent *c)
{
    unsigned out = c->filter == EVFILT_WRITE;
    struct epoll_event e = {.data.fd = (int)c->ident};
    int rc;

    if ((!out && c->filter != EVFILT_READ) || c->ident >= KQ_FDS)
        return errno = EINVAL, -1;
    e.events = (out ? EPOLLOUT : EPOLLIN | EPOLLRDHUP) | (c->flags & EV_CLEAR ? EPOLLET : 0u);
    if (c->flags & EV_DELETE)
        return epoll_ctl(q->dir[out], EPOLL_CTL_DEL, (int)c->ident, NULL);
    rc = epoll_ctl(q->dir[out], EPOLL_CTL_ADD, (int)c->ident, &e);
    if (rc && errno == EEXIST)
        rc = epoll_ctl(q->dir[out], EPOLL_CTL_MOD, (int)c->ident, &e);
    if (rc && errno == EPERM)
        errno = EINVAL; /* a device without filters */
    q->udata[out][c->ident] = c->udata;
    return rc;
}

/* What is ready in one direction. */
static int kq_reap(struct kq *q, unsigned out, struct kevent *to, int room)
{
    struct epoll_event e[64];
    int n = epoll_wait(q->dir[out], e, room < 64 ? room : 64, 0);

    for (int i = 0; i < n; i++) {
        unsigned end = EPOLLHUP | EPOLLERR | (out ? 0u : EPOLLRDHUP);
        memset(&to[i], 0, sizeof to[i]);
        to[i].ident = (uintptr_t)e[i].data.fd;
        to[i].filter = out ? EVFILT_WRITE : EVFILT_READ;
        to[i].flags = e[i].events & end ? EV_EOF : 0;
        to[i].udata = q->udata[out][e[i].data.fd];
    }
    return n < 0 ? 0 : n;
}

static int kevent(int fd, const struct kevent *change, int nchange, struct kevent *to, int room,
                  const struct timespec *timeout)
{
    struct epoll_event any[2];
    int n;

    for (int i = 0; i < nchange; i++)
        if (kq_change(&kq[fd], &change[i]))
            return -1;
    if (!room)
        return 0;
    if (timeout && (timeout->tv_nsec < 0 || timeout->tv_nsec >= 1000000000 || timeout->tv_sec < 0))
        return errno = EINVAL, -1;
    if (epoll_wait(fd, any, 2,
                   timeout ? (int)(timeout->tv_sec * 1000 + (timeout->tv_nsec + 999999) / 1000000)
                           : -1) < 0)
        return -1;
    n = kq_reap(&kq[fd], 1, to, room);
    return n + kq_reap(&kq[fd], 0, to + n, room - n);
}

#endif
