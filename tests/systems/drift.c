/* drift.c - what vmm takes from the headers of other systems has these values and layouts there

   Nothing here runs: it compiles or not. Compiled with tests/systems/include it holds the headers of our
   own to what the systems' have; compiled on such a system (cc -c tests/systems/drift.c; on Haiku with
   the Makefile's flags), with its headers, it tells whether that is still true. The numbers were read from
   the headers of macOS and NetBSD 10 that the zig compiler brings along, and in the sources of DragonFly
   and Haiku. */
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
#if defined(__HAIKU__)
#include <OS.h>
#else
#include <sys/event.h>
#endif
#if defined(__APPLE__)
#include <sys/disk.h>
#elif defined(__NetBSD__)
#include <sys/dkio.h>
#elif defined(__DragonFly__)
#include <pthread_np.h>
#endif
#if defined(__NetBSD__) || defined(__DragonFly__)
#include <net/if.h>
#include <net/route.h>
#endif

#define SAME(what, value) _Static_assert((what) == (value), #what " is not " #value)

SAME(BRKINT, 2);
SAME(ECHO, 8);
SAME(FD_CLOEXEC, 1);
SAME(F_OK, 0);
SAME(ICRNL, 256);
SAME(IGNBRK, 1);
SAME(IGNCR, 128);
SAME(INADDR_LOOPBACK, 0x7f000001);
SAME(INLCR, 64);
SAME(INPCK, 16);
SAME(IPPROTO_TCP, 6);
SAME(ISTRIP, 32);
SAME(LOCK_EX, 2);
SAME(LOCK_NB, 4);
SAME(LOCK_SH, 1);
SAME(MAP_PRIVATE, 2);
SAME(MAP_SHARED, 1);
SAME(MSG_DONTWAIT, 128);
SAME(O_CREAT, 512);
SAME(O_RDONLY, 0);
SAME(O_RDWR, 2);
SAME(O_TRUNC, 0x400);
SAME(O_WRONLY, 1);
SAME(PARMRK, 8);
SAME(POLLIN, 1);
SAME(PROT_READ, 1);
SAME(PROT_WRITE, 2);
SAME(PROT_EXEC, 4);
SAME(PROT_NONE, 0);
SAME(R_OK, 4);
SAME(SA_SIGINFO, 64);
SAME(SEEK_SET, 0);
SAME(SEEK_END, 2);
SAME(SIGABRT, 6);
SAME(SIGFPE, 8);
SAME(SIGHUP, 1);
SAME(SIGILL, 4);
SAME(SIGINT, 2);
SAME(SIGKILL, 9);
SAME(SIGQUIT, 3);
SAME(SIGSEGV, 11);
SAME(SIGTERM, 15);
SAME(SIG_BLOCK, 1);
SAME(SIG_SETMASK, 3);
SAME(SOCK_DGRAM, 2);
SAME(SOCK_RAW, 3);
SAME(SOCK_STREAM, 1);
SAME(TCP_NODELAY, 1);
SAME(WNOHANG, 1);
SAME(W_OK, 2);
SAME(X_OK, 1);
SAME(_IOFBF, 0);
SAME(_IOLBF, 1);

#if defined(__HAIKU__)
SAME(AF_INET, 1);
SAME(AF_UNIX, 9);
SAME(CLOCK_REALTIME, -1);
SAME(E2BIG, 0x7fff8fff);
SAME(EACCES, 0x7ffffffe);
SAME(EADDRINUSE, 0x7fff8fea);
SAME(EAGAIN, 0x7ffffff5);
SAME(EBADF, 0x7fffa000);
SAME(EBUSY, 0x7ffffff2);
SAME(ECHONL, 64);
SAME(ECONNREFUSED, 0x7fff8fe0);
SAME(EEXIST, 0x7fff9ffe);
SAME(EFAULT, 0x7fffecff);
SAME(EINTR, 0x7ffffff6);
SAME(EINVAL, 0x7ffffffb);
SAME(EIO, 0x7fffffff);
SAME(EISDIR, 0x7fff9ff7);
SAME(ELOOP, 0x7fff9ff4);
SAME(EMFILE, 0x7fff9ff6);
SAME(EMSGSIZE, 0x7fff8fd6);
SAME(ENAMETOOLONG, 0x7fff9ffc);
SAME(ENFILE, 0x7fff8ffa);
SAME(ENOBUFS, 0x7fff8fdd);
SAME(ENODEV, 0x7fff8ff9);
SAME(ENOENT, 0x7fff9ffd);
SAME(ENOEXEC, 0x7fffecfe);
SAME(ENOMEM, 0x7fff9000);
SAME(ENOSPC, 0x7fff9ff9);
SAME(ENOSYS, 0x7fff8ff7);
SAME(ENOTCONN, 0x7fff8fe2);
SAME(ENOTTY, 0x7fff8ff6);
SAME(ENXIO, 0x7fff8ff5);
SAME(EPERM, 0x7ffffff1);
SAME(EPIPE, 0x7fff9ff3);
SAME(EROFS, 0x7fff9ff8);
SAME(EWOULDBLOCK, 0x7ffffff5);
SAME(F_GETFL, 8);
SAME(F_SETFD, 4);
SAME(F_SETFL, 16);
SAME(ICANON, 2);
SAME(IEXTEN, 0x200);
SAME(ISIG, 1);
SAME(IXON, 0x400);
SAME(MAP_ANON, 8);
SAME(MAP_FIXED, 4);
SAME(MAP_NORESERVE, 16);
SAME(O_EXCL, 0x100);
SAME(O_NONBLOCK, 128);
SAME(POLLERR, 4);
SAME(POLLHUP, 128);
SAME(POLLNVAL, 0x1000);
SAME(POLLOUT, 2);
SAME(RLIMIT_NOFILE, 4);
SAME(SA_ONSTACK, 32);
SAME(SA_RESTART, 16);
SAME(SIGBUS, 30);
SAME(SIGCONT, 12);
SAME(SIGPIPE, 7);
SAME(SIGTTIN, 16);
SAME(SIGTTOU, 17);
SAME(SIGWINCH, 20);
SAME(SIGUSR1, 18);
SAME(SIGUSR2, 19);
SAME(SOL_SOCKET, -1);
SAME(SO_RCVBUF, 0x40000004);
SAME(SO_REUSEADDR, 64);
SAME(SO_SNDBUF, 0x40000001);
SAME(TCSANOW, 1);
SAME(TIOCGWINSZ, 0x800c);
SAME(VMIN, 4);
SAME(VTIME, 5);
SAME(NCCS, 11);
SAME(ECANCELED, 0x7fff8fd1);
SAME(ENOTSUP, 0x7fff8fc8);
SAME(EOPNOTSUPP, 0x7fff8fd5);
SAME(EOVERFLOW, 0x7fff8fd7);
SAME(EPROTO, 0x7fff8fc7);
SAME(ETIMEDOUT, 0x7ffffff7);
SAME(CLOCK_MONOTONIC, 0);
SAME(F_DUPFD_CLOEXEC, 0x200);
SAME(MSG_NOSIGNAL, 0x800);
SAME(O_CLOEXEC, 64);
SAME(O_DIRECT, 0x100000);
SAME(O_NOCTTY, 0x1000);
SAME(_SC_PAGESIZE, 27);

SAME(sizeof(struct stat), 128);
SAME(offsetof(struct stat, st_dev), 0);
SAME(offsetof(struct stat, st_ino), 8);
SAME(offsetof(struct stat, st_mode), 16);
SAME(offsetof(struct stat, st_size), 32);
SAME(offsetof(struct stat, st_rdev), 40);
SAME(sizeof(struct termios), 32);
SAME(offsetof(struct termios, c_iflag), 0);
SAME(offsetof(struct termios, c_oflag), 4);
SAME(offsetof(struct termios, c_lflag), 12);
SAME(offsetof(struct termios, c_cc), 19);
SAME(sizeof(struct sigaction), 32);
SAME(offsetof(struct sigaction, sa_handler), 0);
SAME(offsetof(struct sigaction, sa_sigaction), 0);
SAME(offsetof(struct sigaction, sa_mask), 8);
SAME(offsetof(struct sigaction, sa_flags), 16);
SAME(sizeof(struct msghdr), 48);
SAME(offsetof(struct msghdr, msg_iov), 16);
SAME(offsetof(struct msghdr, msg_iovlen), 24);
SAME(offsetof(struct msghdr, msg_control), 32);
SAME(offsetof(struct msghdr, msg_flags), 44);
SAME(sizeof(struct sockaddr_un), 128);
SAME(offsetof(struct sockaddr_un, sun_family), 1);
SAME(offsetof(struct sockaddr_un, sun_path), 2);
SAME(sizeof(struct sockaddr_in), 32);
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
SAME(sizeof(pthread_mutex_t), 20);
SAME(sizeof(pthread_cond_t), 24);
SAME(sizeof(pthread_attr_t), 8);
SAME(sizeof(pthread_t), 8);
SAME(sizeof(thread_id), 4);
SAME(sizeof(sigset_t), 8);
SAME(sizeof(mode_t), 4);
SAME(sizeof(dev_t), 4);
SAME(sizeof(ino_t), 8);
SAME(sizeof(off_t), 8);
SAME(sizeof(time_t), 8);
SAME(sizeof(nfds_t), 8);
SAME(sizeof(socklen_t), 4);
SAME(sizeof(pid_t), 4);
SAME(sizeof(siginfo_t), 56);
SAME(offsetof(siginfo_t, si_code), 4);
#else
SAME(AF_INET, 2);
SAME(AF_UNIX, 1);
SAME(CLOCK_REALTIME, 0);
SAME(E2BIG, 7);
SAME(EACCES, 13);
SAME(EADDRINUSE, 48);
SAME(EAGAIN, 35);
SAME(EBADF, 9);
SAME(EBUSY, 16);
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
SAME(F_GETFL, 3);
SAME(F_SETFD, 2);
SAME(F_SETFL, 4);
SAME(ICANON, 256);
SAME(IEXTEN, 0x400);
SAME(ISIG, 128);
SAME(IXON, 512);
SAME(MAP_ANON, 0x1000);
SAME(MAP_FIXED, 16);
SAME(MAP_NORESERVE, 64);
SAME(O_EXCL, 0x800);
SAME(O_NONBLOCK, 4);
SAME(POLLERR, 8);
SAME(POLLHUP, 16);
SAME(POLLNVAL, 32);
SAME(POLLOUT, 4);
SAME(RLIMIT_MEMLOCK, 6);
SAME(RLIMIT_NOFILE, 8);
SAME(SA_ONSTACK, 1);
SAME(SA_RESTART, 2);
SAME(SIGBUS, 10);
SAME(SIGCONT, 19);
SAME(SIGPIPE, 13);
SAME(SIGTTIN, 21);
SAME(SIGTTOU, 22);
SAME(SIGWINCH, 28);
SAME(SIGUSR1, 30);
SAME(SIGUSR2, 31);
SAME(SOL_SOCKET, 0xffff);
SAME(SO_RCVBUF, 0x1002);
SAME(SO_REUSEADDR, 4);
SAME(SO_SNDBUF, 0x1001);
SAME(TCSANOW, 0);
SAME(TIOCGWINSZ, 0x40087468);
SAME(VMIN, 16);
SAME(VTIME, 17);
SAME(NCCS, 20);
#endif

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
#elif defined(__NetBSD__)
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
#elif defined(__DragonFly__)
SAME(CLOCK_MONOTONIC, 4);
SAME(ECANCELED, 85);
SAME(ENOTSUP, 45);
SAME(EOPNOTSUPP, 45);
SAME(EPROTO, 92);
SAME(EVFILT_READ, -1);
SAME(EVFILT_WRITE, -2);
SAME(F_DUPFD_CLOEXEC, 17);
SAME(MSG_NOSIGNAL, 0x400);
SAME(O_CLOEXEC, 0x20000);
SAME(O_DIRECT, 0x10000);
SAME(O_NOCTTY, 0x8000);
SAME(_SC_PAGESIZE, 47);
SAME(IFF_UP, 1);
SAME(PF_ROUTE, 17);
SAME(SIOCGIFFLAGS, 0xc0206911);
SAME(SIOCGIFMTU, 0xc0206933);

SAME(sizeof(struct stat), 128);
SAME(offsetof(struct stat, st_ino), 0);
SAME(offsetof(struct stat, st_dev), 12);
SAME(offsetof(struct stat, st_mode), 16);
SAME(offsetof(struct stat, st_rdev), 28);
SAME(offsetof(struct stat, st_size), 80);
SAME(sizeof(struct kevent), 32);
SAME(offsetof(struct kevent, ident), 0);
SAME(offsetof(struct kevent, filter), 8);
SAME(offsetof(struct kevent, flags), 10);
SAME(offsetof(struct kevent, fflags), 12);
SAME(offsetof(struct kevent, data), 16);
SAME(offsetof(struct kevent, udata), 24);
SAME(sizeof(struct termios), 44);
SAME(offsetof(struct termios, c_iflag), 0);
SAME(offsetof(struct termios, c_oflag), 4);
SAME(offsetof(struct termios, c_lflag), 12);
SAME(offsetof(struct termios, c_cc), 16);
SAME(sizeof(struct sigaction), 32);
SAME(offsetof(struct sigaction, sa_handler), 0);
SAME(offsetof(struct sigaction, sa_flags), 8);
SAME(offsetof(struct sigaction, sa_mask), 12);
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
SAME(sizeof(struct ifreq), 32);
SAME(offsetof(struct ifreq, ifr_name), 0);
SAME(offsetof(struct ifreq, ifr_flags), 16);
SAME(offsetof(struct ifreq, ifr_mtu), 16);
SAME(sizeof(pthread_mutex_t), 8);
SAME(sizeof(pthread_cond_t), 8);
SAME(sizeof(pthread_attr_t), 8);
SAME(sizeof(pthread_t), 8);
SAME(sizeof(sigset_t), 16);
SAME(sizeof(mode_t), 2);
SAME(sizeof(dev_t), 4);
SAME(sizeof(ino_t), 8);
SAME(sizeof(off_t), 8);
SAME(sizeof(time_t), 8);
SAME(sizeof(nfds_t), 4);
SAME(sizeof(socklen_t), 4);
SAME(sizeof(pid_t), 4);
SAME(sizeof(siginfo_t), 80);
SAME(offsetof(siginfo_t, si_code), 8);
#endif
