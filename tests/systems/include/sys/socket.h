#ifndef STUB_SYS_SOCKET_H
#define STUB_SYS_SOCKET_H
#include <stub.h>
#include <sys/uio.h>

#define AF_UNIX      STUB_SYSTEM(1, 1, 1, 9)
#define AF_INET      STUB_SYSTEM(2, 2, 2, 1)
#define SOCK_STREAM  1
#define SOCK_DGRAM   2
#define SOCK_RAW     3
#define SOL_SOCKET   STUB_SYSTEM(0xffff, 0xffff, 0xffff, -1)
#define SO_REUSEADDR STUB_SYSTEM(0x4, 0x4, 0x4, 0x40)
#define SO_SNDBUF    STUB_SYSTEM(0x1001, 0x1001, 0x1001, 0x40000001)
#define SO_RCVBUF    STUB_SYSTEM(0x1002, 0x1002, 0x1002, 0x40000004)
#define MSG_DONTWAIT 0x80
#define MSG_NOSIGNAL STUB_SYSTEM(0x80000, 0x400, 0x400, 0x800)
#if defined(__NetBSD__) || defined(__DragonFly__)
#define PF_ROUTE STUB_SYSTEM(, 34, 17, )
#endif

typedef uint8_t sa_family_t;

struct sockaddr {
    uint8_t sa_len;
    sa_family_t sa_family;
    char sa_data[STUB_SYSTEM(14, 14, 14, 30)];
};

struct msghdr {
    void *msg_name;
    socklen_t msg_namelen;
    struct iovec *msg_iov;
    int msg_iovlen;
    void *msg_control;
    socklen_t msg_controllen;
    int msg_flags;
};

int accept(int fd, struct sockaddr *from, socklen_t *len);
int bind(int fd, const struct sockaddr *at, socklen_t len);
int connect(int fd, const struct sockaddr *to, socklen_t len);
int listen(int fd, int n);
ssize_t recv(int fd, void *buf, size_t len, int flags);
ssize_t recvmsg(int fd, struct msghdr *m, int flags);
ssize_t send(int fd, const void *buf, size_t len, int flags);
ssize_t sendmsg(int fd, const struct msghdr *m, int flags);
int setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int socket(int family, int type, int protocol) STUB_NETBSD(__socket30);

#endif
