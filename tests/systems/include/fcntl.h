#ifndef STUB_FCNTL_H
#define STUB_FCNTL_H
#include <stub.h>

#define O_RDONLY   0
#define O_WRONLY   1
#define O_RDWR     2
#define O_NONBLOCK STUB_SYSTEM(0x4, 0x4, 0x4, 0x80)
#define O_CREAT    0x200
#define O_TRUNC    0x400
#define O_EXCL     STUB_SYSTEM(0x800, 0x800, 0x800, 0x100)
#define O_NOCTTY   STUB_SYSTEM(0x20000, 0x8000, 0x8000, 0x1000)
#define O_CLOEXEC  STUB_SYSTEM(0x1000000, 0x400000, 0x20000, 0x40)

#define F_SETFD         STUB_SYSTEM(2, 2, 2, 4)
#define F_GETFL         STUB_SYSTEM(3, 3, 3, 8)
#define F_SETFL         STUB_SYSTEM(4, 4, 4, 16)
#define F_DUPFD_CLOEXEC STUB_SYSTEM(67, 12, 17, 0x200)
#define FD_CLOEXEC      1

#if defined(__APPLE__)
#define F_NOCACHE   48
#define F_FULLFSYNC 51
#define F_PUNCHHOLE 99
typedef struct fpunchhole {
    unsigned int fp_flags;
    unsigned int reserved;
    off_t fp_offset;
    off_t fp_length;
} fpunchhole_t;
#else
#define O_DIRECT STUB_SYSTEM(, 0x80000, 0x10000, 0x100000)
#endif

int fcntl(int fd, int cmd, ...);
int open(const char *path, int flags, ...);

#endif
