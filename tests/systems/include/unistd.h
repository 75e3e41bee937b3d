#ifndef STUB_UNISTD_H
#define STUB_UNISTD_H
#include <stub.h>

#define STDIN_FILENO  0
#define STDOUT_FILENO 1
#define STDERR_FILENO 2
#define F_OK          0
#define X_OK          1
#define W_OK          2
#define R_OK          4
#define SEEK_SET      0
#define SEEK_END      2
#define _SC_PAGESIZE  STUB_SYSTEM(29, 28, 47, 27)

#if defined(__NetBSD__)
#define FDATASYNC 0x10
#define FDISKSYNC 0x40
int fsync_range(int fd, int how, off_t off, off_t len);
#endif

int access(const char *path, int mode);
int close(int fd);
int dup(int fd);
int dup2(int fd, int to);
void _exit(int status) __attribute__((noreturn));
pid_t fork(void);
int fsync(int fd);
pid_t getpgrp(void);
pid_t getpid(void);
int isatty(int fd);
#if defined(__HAIKU__)
struct ioctl_args {
    void *argument;
    size_t size;
};
int __ioctl(int fd, unsigned long request, struct ioctl_args args);
#define ioctl(fd, request, ...)                                                                    \
    __ioctl(fd, request, (struct ioctl_args){.argument = (void *)__VA_ARGS__})
#endif
off_t lseek(int fd, off_t off, int whence);
int pipe(int ends[2]);
ssize_t pread(int fd, void *buf, size_t len, off_t off);
ssize_t pwrite(int fd, const void *buf, size_t len, off_t off);
ssize_t read(int fd, void *buf, size_t len);
long sysconf(int name);
pid_t tcgetpgrp(int fd);
char *ttyname(int fd);
int unlink(const char *path);
ssize_t write(int fd, const void *buf, size_t len);

#endif
