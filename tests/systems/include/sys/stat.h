#ifndef STUB_SYS_STAT_H
#define STUB_SYS_STAT_H
#include <stub.h>
#include <time.h>

#define S_ISFIFO(m) (((m)&0xf000) == 0x1000)
#define S_ISCHR(m)  (((m)&0xf000) == 0x2000)
#define S_ISDIR(m)  (((m)&0xf000) == 0x4000)
#define S_ISBLK(m)  (((m)&0xf000) == 0x6000)
#define S_ISREG(m)  (((m)&0xf000) == 0x8000)
#define S_ISSOCK(m) (((m)&0xf000) == 0xc000)

#if defined(__APPLE__)
struct stat {
    dev_t st_dev;
    mode_t st_mode;
    uint16_t st_nlink;
    ino_t st_ino;
    uid_t st_uid;
    gid_t st_gid;
    dev_t st_rdev;
    struct timespec times[4];
    off_t st_size;
    int64_t st_blocks;
    int32_t st_blksize;
    uint32_t st_flags, st_gen;
    int32_t spare;
    int64_t spares[2];
};
#elif defined(__NetBSD__)
struct stat {
    dev_t st_dev;
    mode_t st_mode;
    ino_t st_ino;
    uint32_t st_nlink;
    uid_t st_uid;
    gid_t st_gid;
    dev_t st_rdev;
    struct timespec times[4];
    off_t st_size;
    int64_t st_blocks;
    int32_t st_blksize;
    uint32_t st_flags, st_gen, spares[2];
};
#elif defined(__DragonFly__)
struct stat {
    ino_t st_ino;
    uint32_t st_nlink;
    dev_t st_dev;
    mode_t st_mode;
    uint16_t padding;
    uid_t st_uid;
    gid_t st_gid;
    dev_t st_rdev;
    struct timespec times[3];
    off_t st_size;
    int64_t st_blocks;
    uint32_t spares[4];
    int64_t st_blksize, spare;
};
#else
struct stat {
    dev_t st_dev;
    ino_t st_ino;
    mode_t st_mode;
    int32_t st_nlink;
    uid_t st_uid;
    gid_t st_gid;
    off_t st_size;
    dev_t st_rdev;
    int32_t st_blksize;
    struct timespec times[4];
    uint32_t st_type;
    int64_t st_blocks;
};
#endif

int chmod(const char *path, mode_t mode);
#if defined(__APPLE__)
int fstat(int fd, struct stat *st) STUB_INODE64(fstat);
int lstat(const char *path, struct stat *st) STUB_INODE64(lstat);
int stat(const char *path, struct stat *st) STUB_INODE64(stat);
#else
int fstat(int fd, struct stat *st) STUB_NETBSD(__fstat50);
int lstat(const char *path, struct stat *st) STUB_NETBSD(__lstat50);
int stat(const char *path, struct stat *st) STUB_NETBSD(__stat50);
#endif

#endif
