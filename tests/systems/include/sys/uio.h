#ifndef STUB_SYS_UIO_H
#define STUB_SYS_UIO_H
#include <stub.h>

struct iovec {
    void *iov_base;
    size_t iov_len;
};

#if defined(__HAIKU__)
ssize_t readv_pos(int fd, off_t off, const struct iovec *v, size_t n);
ssize_t writev_pos(int fd, off_t off, const struct iovec *v, size_t n);
#else
ssize_t preadv(int fd, const struct iovec *v, int n, off_t off);
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t off);
#endif
ssize_t readv(int fd, const struct iovec *v, STUB_SYSTEM(int, int, int, size_t) n);
ssize_t writev(int fd, const struct iovec *v, STUB_SYSTEM(int, int, int, size_t) n);

#endif
