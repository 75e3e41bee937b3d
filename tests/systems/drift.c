/* drift.c - what vmm takes from the headers of macOS and NetBSD has these values and layouts there

   Nothing here runs: it compiles or not. Compiled with tests/systems/include it holds the headers of our
   own to what the systems' have; compiled on such a system (cc -c tests/systems/drift.c), with its headers,
   it tells whether that is still true. The numbers were read from the headers of macOS and NetBSD 10 that
   the zig compiler brings along. */
#if defined(__NetBSD__) && !defined(_NETBSD_SOURCE)
#define _NETBSD_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/event.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#if defined(__APPLE__)
#include <sys/disk.h>
#else
#include <net/if.h>
#include <net/route.h>
#include <sys/dkio.h>
#endif

#define SAME(what, value) _Static_assert((what) == (value), #what " is not " #value)

SAME(AF_INET, 2);
SAME(AF_UNIX, 1);
SAME(BRKINT, 2);
SAME(CLOCK_REALTIME, 0);
SAME(E2BIG, 7);
SAME(EACCES, 13);
SAME(EADDRINUSE, 48);
SAME(EAGAIN, 35);
SAME(EBADF, 9);
SAME(EBUSY, 16);
SAME(ECHO, 8);
SAME(ECHONL, 16);
SAME(ECONNREFUSED, 61);
SAME(EEXIST, 17);
SAME(EFAULT, 14);
SAME(EINTR, 4);
SAME(EINVAL, 22);
SAME(EIO, 5);
SAME(EISDIR, 21);
SAME(ELOOP, 62);
SAME(EMFILE, 24);
SAME(EMSGSIZE, 40);
SAME(ENAMETOOLONG, 63);
SAME(ENFILE, 23);
SAME(ENOBUFS, 55);
SAME(ENODEV, 19);
SAME(ENOENT, 2);
SAME(ENOEXEC, 8);
SAME(ENOMEM, 12);
SAME(ENOSPC, 28);
SAME(ENOSYS, 78);
SAME(ENOTCONN, 57);
SAME(ENOTTY, 25);
SAME(ENXIO, 6);
SAME(EPERM, 1);
SAME(EPIPE, 32);
SAME(EROFS, 30);
SAME(EV_ADD, 1);
SAME(EV_CLEAR, 32);
SAME(EV_DELETE, 2);
SAME(EV_EOF, 0x8000);
SAME(EWOULDBLOCK, 35);
SAME(FD_CLOEXEC, 1);
SAME(F_GETFL, 3);
SAME(F_OK, 0);
SAME(F_SETFD, 2);
SAME(F_SETFL, 4);
SAME(ICANON, 256);
SAME(ICRNL, 256);
SAME(IEXTEN, 0x400);
SAME(IGNBRK, 1);
SAME(IGNCR, 128);
SAME(INADDR_LOOPBACK, 0x7f000001);
SAME(INLCR, 64);
SAME(INPCK, 16);
SAME(IPPROTO_TCP, 6);
SAME(ISIG, 128);
SAME(ISTRIP, 32);
SAME(IXON, 512);
SAME(LOCK_EX, 2);
SAME(LOCK_NB, 4);
SAME(LOCK_SH, 1);
SAME(MAP_ANON, 0x1000);
SAME(MAP_FIXED, 16);
SAME(MAP_NORESERVE, 64);
SAME(MAP_PRIVATE, 2);
SAME(MAP_SHARED, 1);
SAME(MSG_DONTWAIT, 128);
SAME(O_CREAT, 512);
SAME(O_EXCL, 0x800);
SAME(O_NONBLOCK, 4);
SAME(O_RDONLY, 0);
SAME(O_RDWR, 2);
SAME(O_TRUNC, 0x400);
SAME(O_WRONLY, 1);
SAME(PARMRK, 8);
SAME(POLLERR, 8);
SAME(POLLHUP, 16);
SAME(POLLIN, 1);
SAME(POLLNVAL, 32);
SAME(POLLOUT, 4);
SAME(PROT_READ, 1);
SAME(PROT_WRITE, 2);
SAME(PROT_EXEC, 4);
SAME(PROT_NONE, 0);
SAME(RLIMIT_MEMLOCK, 6);
SAME(RLIMIT_NOFILE, 8);
SAME(R_OK, 4);
SAME(SA_ONSTACK, 1);
SAME(SA_RESTART, 2);
SAME(SA_SIGINFO, 64);
SAME(SEEK_SET, 0);
SAME(SEEK_END, 2);
SAME(SIGABRT, 6);
SAME(SIGBUS, 10);
SAME(SIGCONT, 19);
SAME(SIGFPE, 8);
SAME(SIGHUP, 1);
SAME(SIGILL, 4);
SAME(SIGINT, 2);
SAME(SIGKILL, 9);
SAME(SIGPIPE, 13);
SAME(SIGQUIT, 3);
SAME(SIGSEGV, 11);
SAME(SIGTERM, 15);
SAME(SIGTTIN, 21);
SAME(SIGTTOU, 22);
SAME(SIGWINCH, 28);
SAME(SIGUSR1, 30);
SAME(SIGUSR2, 31);
SAME(SIG_BLOCK, 1);
SAME(SIG_SETMASK, 3);
SAME(SOCK_DGRAM, 2);
SAME(SOCK_RAW, 3);
SAME(SOCK_STREAM, 1);
SAME(SOL_SOCKET, 0xffff);
SAME(SO_RCVBUF, 0x1002);
SAME(SO_REUSEADDR, 4);
SAME(SO_SNDBUF, 0x1001);
SAME(TCP_NODELAY, 1);
SAME(TCSANOW, 0);
SAME(TIOCGWINSZ, 0x40087468);
SAME(VMIN, 16);
SAME(VTIME, 17);
SAME(WNOHANG, 1);
SAME(W_OK, 2);
SAME(X_OK, 1);
SAME(_IOFBF, 0);
SAME(_IOLBF, 1);
SAME(NCCS, 20);

#if defined(__APPLE__)
SAME(CLOCK_MONOTONIC, 6);
SAME(ECANCELED, 89);
SAME(ENOTSUP, 45);
SAME(EOPNOTSUPP, 102);
SAME(EVFILT_READ, -1);
SAME(EVFILT_WRITE, -2);
SAME(F_DUPFD_CLOEXEC, 67);
SAME(MSG_NOSIGNAL, 0x80000);
SAME(O_CLOEXEC, 0x1000000);
SAME(O_NOCTTY, 0x20000);
SAME(_SC_PAGESIZE, 29);
SAME(F_FULLFSYNC, 51);
SAME(F_NOCACHE, 48);
SAME(F_PUNCHHOLE, 99);
SAME(DKIOCGETBLOCKSIZE, 0x40046418);
SAME(DKIOCGETBLOCKCOUNT, 0x40086419);

SAME(sizeof(struct stat), 144);
SAME(offsetof(struct stat, st_dev), 0);
SAME(offsetof(struct stat, st_mode), 4);
SAME(offsetof(struct stat, st_ino), 8);
SAME(offsetof(struct stat, st_rdev), 24);
SAME(offsetof(struct stat, st_size), 96);
SAME(sizeof(struct kevent), 32);
SAME(offsetof(struct kevent, ident), 0);
SAME(offsetof(struct kevent, filter), 8);
SAME(offsetof(struct kevent, flags), 10);
SAME(offsetof(struct kevent, fflags), 12);
SAME(offsetof(struct kevent, data), 16);
SAME(offsetof(struct kevent, udata), 24);
SAME(sizeof(struct termios), 72);
SAME(offsetof(struct termios, c_iflag), 0);
SAME(offsetof(struct termios, c_oflag), 8);
SAME(offsetof(struct termios, c_lflag), 24);
SAME(offsetof(struct termios, c_cc), 32);
SAME(sizeof(struct sigaction), 16);
SAME(offsetof(struct sigaction, sa_handler), 0);
SAME(offsetof(struct sigaction, sa_mask), 8);
SAME(offsetof(struct sigaction, sa_flags), 12);
SAME(sizeof(struct msghdr), 48);
SAME(offsetof(struct msghdr, msg_iov), 16);
SAME(offsetof(struct msghdr, msg_iovlen), 24);
SAME(offsetof(struct msghdr, msg_control), 32);
SAME(offsetof(struct msghdr, msg_flags), 44);
SAME(sizeof(struct sockaddr_un), 106);
SAME(offsetof(struct sockaddr_un, sun_family), 1);
SAME(offsetof(struct sockaddr_un, sun_path), 2);
SAME(sizeof(struct sockaddr_in), 16);
SAME(offsetof(struct sockaddr_in, sin_family), 1);
SAME(offsetof(struct sockaddr_in, sin_port), 2);
SAME(offsetof(struct sockaddr_in, sin_addr), 4);
SAME(sizeof(struct iovec), 16);
SAME(offsetof(struct iovec, iov_base), 0);
SAME(offsetof(struct iovec, iov_len), 8);
SAME(sizeof(struct rlimit), 16);
SAME(offsetof(struct rlimit, rlim_cur), 0);
SAME(offsetof(struct rlimit, rlim_max), 8);
SAME(sizeof(struct pollfd), 8);
SAME(offsetof(struct pollfd, fd), 0);
SAME(offsetof(struct pollfd, events), 4);
SAME(offsetof(struct pollfd, revents), 6);
SAME(sizeof(struct timespec), 16);
SAME(offsetof(struct timespec, tv_sec), 0);
SAME(offsetof(struct timespec, tv_nsec), 8);
SAME(sizeof(struct winsize), 8);
SAME(offsetof(struct winsize, ws_row), 0);
SAME(offsetof(struct winsize, ws_col), 2);
SAME(sizeof(struct fpunchhole), 24);
SAME(offsetof(struct fpunchhole, fp_offset), 8);
SAME(offsetof(struct fpunchhole, fp_length), 16);
SAME(sizeof(pthread_mutex_t), 64);
SAME(sizeof(pthread_cond_t), 48);
SAME(sizeof(pthread_attr_t), 64);
SAME(sizeof(pthread_t), 8);
SAME(sizeof(sigset_t), 4);
SAME(sizeof(mode_t), 2);
SAME(sizeof(dev_t), 4);
SAME(sizeof(ino_t), 8);
SAME(sizeof(off_t), 8);
SAME(sizeof(time_t), 8);
SAME(sizeof(nfds_t), 4);
SAME(sizeof(socklen_t), 4);
SAME(sizeof(pid_t), 4);
SAME(sizeof(siginfo_t), 104);
SAME(offsetof(siginfo_t, si_code), 8);
#else
SAME(CLOCK_MONOTONIC, 3);
SAME(ECANCELED, 87);
SAME(ENOTSUP, 86);
SAME(EOPNOTSUPP, 45);
SAME(EVFILT_READ, 0);
SAME(EVFILT_WRITE, 1);
SAME(F_DUPFD_CLOEXEC, 12);
SAME(MSG_NOSIGNAL, 0x400);
SAME(O_CLOEXEC, 0x400000);
SAME(O_NOCTTY, 0x8000);
SAME(_SC_PAGESIZE, 28);
SAME(FDISKSYNC, 64);
SAME(FDATASYNC, 16);
SAME(DIOCGSECTORSIZE, 0x40046485);
SAME(DIOCGMEDIASIZE, 0x40086484);
SAME(IFF_UP, 1);
SAME(PF_ROUTE, 34);
SAME(SIOCGIFFLAGS, 0xc0906911);
SAME(SIOCGIFMTU, 0xc090697e);
SAME(O_DIRECT, 0x80000);

SAME(sizeof(struct stat), 152);
SAME(offsetof(struct stat, st_dev), 0);
SAME(offsetof(struct stat, st_mode), 8);
SAME(offsetof(struct stat, st_ino), 16);
SAME(offsetof(struct stat, st_rdev), 40);
SAME(offsetof(struct stat, st_size), 112);
SAME(sizeof(struct kevent), 40);
SAME(offsetof(struct kevent, ident), 0);
SAME(offsetof(struct kevent, filter), 8);
SAME(offsetof(struct kevent, flags), 12);
SAME(offsetof(struct kevent, fflags), 16);
SAME(offsetof(struct kevent, data), 24);
SAME(offsetof(struct kevent, udata), 32);
SAME(sizeof(struct termios), 44);
SAME(offsetof(struct termios, c_iflag), 0);
SAME(offsetof(struct termios, c_oflag), 4);
SAME(offsetof(struct termios, c_lflag), 12);
SAME(offsetof(struct termios, c_cc), 16);
SAME(sizeof(struct sigaction), 32);
SAME(offsetof(struct sigaction, sa_handler), 0);
SAME(offsetof(struct sigaction, sa_mask), 8);
SAME(offsetof(struct sigaction, sa_flags), 24);
SAME(sizeof(struct msghdr), 48);
SAME(offsetof(struct msghdr, msg_iov), 16);
SAME(offsetof(struct msghdr, msg_iovlen), 24);
SAME(offsetof(struct msghdr, msg_control), 32);
SAME(offsetof(struct msghdr, msg_flags), 44);
SAME(sizeof(struct sockaddr_un), 106);
SAME(offsetof(struct sockaddr_un, sun_family), 1);
SAME(offsetof(struct sockaddr_un, sun_path), 2);
SAME(sizeof(struct sockaddr_in), 16);
SAME(offsetof(struct sockaddr_in, sin_family), 1);
SAME(offsetof(struct sockaddr_in, sin_port), 2);
SAME(offsetof(struct sockaddr_in, sin_addr), 4);
SAME(sizeof(struct iovec), 16);
SAME(offsetof(struct iovec, iov_base), 0);
SAME(offsetof(struct iovec, iov_len), 8);
SAME(sizeof(struct rlimit), 16);
SAME(offsetof(struct rlimit, rlim_cur), 0);
SAME(offsetof(struct rlimit, rlim_max), 8);
SAME(sizeof(struct pollfd), 8);
SAME(offsetof(struct pollfd, fd), 0);
SAME(offsetof(struct pollfd, events), 4);
SAME(offsetof(struct pollfd, revents), 6);
SAME(sizeof(struct timespec), 16);
SAME(offsetof(struct timespec, tv_sec), 0);
SAME(offsetof(struct timespec, tv_nsec), 8);
SAME(sizeof(struct winsize), 8);
SAME(offsetof(struct winsize, ws_row), 0);
SAME(offsetof(struct winsize, ws_col), 2);
SAME(sizeof(struct ifreq), 144);
SAME(offsetof(struct ifreq, ifr_name), 0);
SAME(offsetof(struct ifreq, ifr_flags), 16);
SAME(offsetof(struct ifreq, ifr_mtu), 16);
SAME(sizeof(pthread_mutex_t), 48);
SAME(sizeof(pthread_cond_t), 40);
SAME(sizeof(pthread_attr_t), 16);
SAME(sizeof(pthread_t), 8);
SAME(sizeof(sigset_t), 16);
SAME(sizeof(mode_t), 4);
SAME(sizeof(dev_t), 8);
SAME(sizeof(ino_t), 8);
SAME(sizeof(off_t), 8);
SAME(sizeof(time_t), 8);
SAME(sizeof(nfds_t), 4);
SAME(sizeof(socklen_t), 4);
SAME(sizeof(pid_t), 4);
SAME(sizeof(siginfo_t), 128);
SAME(offsetof(siginfo_t, si_code), 4);
#endif
