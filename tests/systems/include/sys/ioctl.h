#ifndef STUB_SYS_IOCTL_H
#define STUB_SYS_IOCTL_H

struct winsize {
    unsigned short ws_row, ws_col, ws_xpixel, ws_ypixel;
};

#define TIOCGWINSZ 0x40087468ul
#if defined(__NetBSD__)
#define SIOCGIFFLAGS 0xc0906911ul
#define SIOCGIFMTU   0xc090697eul
#endif

int ioctl(int fd, unsigned long request, ...);

#endif
