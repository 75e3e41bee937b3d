#ifndef STUB_ERRNO_H
#define STUB_ERRNO_H
#include <stub.h>

int *STUB_SYSTEM(__error, __errno)(void);
#define errno (*STUB_SYSTEM(__error, __errno)())

#define EPERM        1
#define ENOENT       2
#define EINTR        4
#define EIO          5
#define ENXIO        6
#define E2BIG        7
#define ENOEXEC      8
#define EBADF        9
#define ENOMEM       12
#define EACCES       13
#define EFAULT       14
#define EBUSY        16
#define EEXIST       17
#define ENODEV       19
#define ENOTDIR      20
#define EISDIR       21
#define EINVAL       22
#define ENFILE       23
#define EMFILE       24
#define ENOTTY       25
#define EFBIG        27
#define ENOSPC       28
#define EROFS        30
#define EPIPE        32
#define EDOM         33
#define ERANGE       34
#define EAGAIN       35
#define EWOULDBLOCK  EAGAIN
#define EMSGSIZE     40
#define ENOTSUP      STUB_SYSTEM(45, 86)
#define EOPNOTSUPP   STUB_SYSTEM(102, 45)
#define EADDRINUSE   48
#define ENOBUFS      55
#define ENOTCONN     57
#define ETIMEDOUT    60
#define ECONNREFUSED 61
#define ELOOP        62
#define ENAMETOOLONG 63
#define ENOSYS       78
#define EOVERFLOW    84
#define ECANCELED    STUB_SYSTEM(89, 87)
#define EPROTO       STUB_SYSTEM(100, 96)

#endif
