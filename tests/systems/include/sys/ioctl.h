#ifndef STUB_SYS_IOCTL_H
#define STUB_SYS_IOCTL_H
#include <stub.h>
#include <unistd.h>

struct winsize {
    unsigned short ws_row, ws_col, ws_xpixel, ws_ypixel;
};

#if defined(__HAIKU__)
#define TIOCGWINSZ 0x800c /* and ioctl stands in unistd.h */
#else
#define STUB_IO(dir, group, nr, type)                                                              \
    ((dir) | (unsigned long)sizeof(type) << 16 | (unsigned long)(group) << 8 | (nr))
#define _IOR(group, nr, type)  STUB_IO(0x40000000ul, group, nr, type)
#define _IOW(group, nr, type)  STUB_IO(0x80000000ul, group, nr, type)
#define _IOWR(group, nr, type) STUB_IO(0xc0000000ul, group, nr, type)

#define TIOCGWINSZ 0x40087468ul
#if defined(__NetBSD__) || defined(__DragonFly__)
#define SIOCGIFFLAGS STUB_SYSTEM(, 0xc0906911ul, 0xc0206911ul, )
#define SIOCGIFMTU   STUB_SYSTEM(, 0xc090697eul, 0xc0206933ul, )
#endif

int ioctl(int fd, unsigned long request, ...);
#endif

#endif
