/* errno.h - errors as large as those that Haiku has for programs that want them positive

   For tests under Linux of host.h with a loop that polls: as with Haiku's libposix_error_mapper, a number
   that the system left becomes the large one when somebody looks. Only the names that these tests use. */
#ifndef HAIKU_ERRNO_H
#define HAIKU_ERRNO_H
#include_next <errno.h>
#include <string.h>

#define LARGE_ERROR(nr) (0x7fff0000 + (nr))

static inline int *large_errno(void)
{
    int *err = __errno_location();

    if (*err > 0 && *err < LARGE_ERROR(0))
        *err = LARGE_ERROR(*err);
    return err;
}

static inline char *large_strerror(int err)
{
    return strerror(err < LARGE_ERROR(0) ? err : err - LARGE_ERROR(0));
}

#undef errno
#define errno         (*large_errno())
#define strerror(err) large_strerror(err)

#undef EPERM
#undef ENOENT
#undef EINTR
#undef EIO
#undef ENXIO
#undef E2BIG
#undef EBADF
#undef EAGAIN
#undef EWOULDBLOCK
#undef ENOMEM
#undef EACCES
#undef EBUSY
#undef EEXIST
#undef ENODEV
#undef ENOTDIR
#undef EISDIR
#undef EINVAL
#undef ENFILE
#undef EMFILE
#undef ENOTTY
#undef EFBIG
#undef ENOSPC
#undef EROFS
#undef EPIPE
#undef EDOM
#undef ENAMETOOLONG
#undef ENOSYS
#undef EMSGSIZE
#undef ENOTSUP
#undef EOPNOTSUPP
#undef EADDRINUSE
#undef ENOBUFS
#undef ENOTCONN
#undef ECONNREFUSED
#undef ECANCELED

#define EPERM        LARGE_ERROR(1)
#define ENOENT       LARGE_ERROR(2)
#define EINTR        LARGE_ERROR(4)
#define EIO          LARGE_ERROR(5)
#define ENXIO        LARGE_ERROR(6)
#define E2BIG        LARGE_ERROR(7)
#define EBADF        LARGE_ERROR(9)
#define EAGAIN       LARGE_ERROR(11)
#define EWOULDBLOCK  EAGAIN
#define ENOMEM       LARGE_ERROR(12)
#define EACCES       LARGE_ERROR(13)
#define EBUSY        LARGE_ERROR(16)
#define EEXIST       LARGE_ERROR(17)
#define ENODEV       LARGE_ERROR(19)
#define ENOTDIR      LARGE_ERROR(20)
#define EISDIR       LARGE_ERROR(21)
#define EINVAL       LARGE_ERROR(22)
#define ENFILE       LARGE_ERROR(23)
#define EMFILE       LARGE_ERROR(24)
#define ENOTTY       LARGE_ERROR(25)
#define EFBIG        LARGE_ERROR(27)
#define ENOSPC       LARGE_ERROR(28)
#define EROFS        LARGE_ERROR(30)
#define EPIPE        LARGE_ERROR(32)
#define EDOM         LARGE_ERROR(33)
#define ENAMETOOLONG LARGE_ERROR(36)
#define ENOSYS       LARGE_ERROR(38)
#define EMSGSIZE     LARGE_ERROR(90)
#define ENOTSUP      LARGE_ERROR(95)
#define EOPNOTSUPP   LARGE_ERROR(95)
#define EADDRINUSE   LARGE_ERROR(98)
#define ENOBUFS      LARGE_ERROR(105)
#define ENOTCONN     LARGE_ERROR(107)
#define ECONNREFUSED LARGE_ERROR(111)
#define ECANCELED    LARGE_ERROR(125)

#endif
