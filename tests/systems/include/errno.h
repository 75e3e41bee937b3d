#ifndef STUB_ERRNO_H
#define STUB_ERRNO_H
#include <limits.h>
#include <stub.h>

#if defined(__HAIKU__)
/* Negative, but for who asks for others and links with what turns them: the least has none. */
#if defined(B_USE_POSITIVE_POSIX_ERRORS)
#define STUB_ERROR(nr) (-(INT_MIN + (nr)))
#define ENOMEM         STUB_ERROR(0x7000)
#else
#define STUB_ERROR(nr) (INT_MIN + (nr))
#define ENOMEM         STUB_ERROR(0)
#endif
#define EIO          STUB_ERROR(0x1)
#define EACCES       STUB_ERROR(0x2)
#define EINVAL       STUB_ERROR(0x5)
#define ETIMEDOUT    STUB_ERROR(0x9)
#define EINTR        STUB_ERROR(0xa)
#define EAGAIN       STUB_ERROR(0xb)
#define EBUSY        STUB_ERROR(0xe)
#define EPERM        STUB_ERROR(0xf)
#define EFAULT       STUB_ERROR(0x1301)
#define ENOEXEC      STUB_ERROR(0x1302)
#define EBADF        STUB_ERROR(0x6000)
#define EEXIST       STUB_ERROR(0x6002)
#define ENOENT       STUB_ERROR(0x6003)
#define ENAMETOOLONG STUB_ERROR(0x6004)
#define ENOTDIR      STUB_ERROR(0x6005)
#define ENOSPC       STUB_ERROR(0x6007)
#define EROFS        STUB_ERROR(0x6008)
#define EISDIR       STUB_ERROR(0x6009)
#define EMFILE       STUB_ERROR(0x600a)
#define ELOOP        STUB_ERROR(0x600c)
#define EPIPE        STUB_ERROR(0x600d)
#define E2BIG        STUB_ERROR(0x7001)
#define EFBIG        STUB_ERROR(0x7004)
#define ENFILE       STUB_ERROR(0x7006)
#define ENODEV       STUB_ERROR(0x7007)
#define ENOSYS       STUB_ERROR(0x7009)
#define ENOTTY       STUB_ERROR(0x700a)
#define ENXIO        STUB_ERROR(0x700b)
#define EDOM         STUB_ERROR(0x7010)
#define ERANGE       STUB_ERROR(0x7011)
#define EADDRINUSE   STUB_ERROR(0x7016)
#define ENOTCONN     STUB_ERROR(0x701e)
#define ECONNREFUSED STUB_ERROR(0x7020)
#define ENOBUFS      STUB_ERROR(0x7023)
#define EOVERFLOW    STUB_ERROR(0x7029)
#define EMSGSIZE     STUB_ERROR(0x702a)
#define EOPNOTSUPP   STUB_ERROR(0x702b)
#define ECANCELED    STUB_ERROR(0x702f)
#define ENOTSUP      STUB_ERROR(0x7038)
#define EPROTO       STUB_ERROR(0x7039)
#define EWOULDBLOCK  EAGAIN

int *_errnop(void);
#define errno (*_errnop())

#else
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
#define ENOTSUP      STUB_SYSTEM(45, 86, 45, )
#define EOPNOTSUPP   STUB_SYSTEM(102, 45, 45, )
#define EADDRINUSE   48
#define ENOBUFS      55
#define ENOTCONN     57
#define ETIMEDOUT    60
#define ECONNREFUSED 61
#define ELOOP        62
#define ENAMETOOLONG 63
#define ENOSYS       78
#define EOVERFLOW    84
#define ECANCELED    STUB_SYSTEM(89, 87, 85, )
#define EPROTO       STUB_SYSTEM(100, 96, 92, )

#if defined(__DragonFly__)
extern __thread int errno;
static inline int *__error(void)
{
    return &errno;
}
#define errno (*__error())
#else
int *STUB_SYSTEM(__error, __errno, , )(void);
#define errno (*STUB_SYSTEM(__error, __errno, , )())
#endif
#endif

#endif
