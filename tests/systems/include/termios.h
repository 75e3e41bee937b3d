#ifndef STUB_TERMIOS_H
#define STUB_TERMIOS_H
#include <stub.h>

#define NCCS    STUB_SYSTEM(20, 20, 20, 11)
#define VMIN    STUB_SYSTEM(16, 16, 16, 4)
#define VTIME   STUB_SYSTEM(17, 17, 17, 5)
#define IGNBRK  0x1
#define BRKINT  0x2
#define PARMRK  0x8
#define INPCK   0x10
#define ISTRIP  0x20
#define INLCR   0x40
#define IGNCR   0x80
#define ICRNL   0x100
#define IXON    STUB_SYSTEM(0x200, 0x200, 0x200, 0x400)
#define ECHO    0x8
#define ECHONL  STUB_SYSTEM(0x10, 0x10, 0x10, 0x40)
#define ISIG    STUB_SYSTEM(0x80, 0x80, 0x80, 0x1)
#define ICANON  STUB_SYSTEM(0x100, 0x100, 0x100, 0x2)
#define IEXTEN  STUB_SYSTEM(0x400, 0x400, 0x400, 0x200)
#define TCSANOW STUB_SYSTEM(0, 0, 0, 1)

typedef STUB_SYSTEM(unsigned long, unsigned int, unsigned int, unsigned int) tcflag_t;
typedef STUB_SYSTEM(unsigned long, int, unsigned int, unsigned char) speed_t;

struct termios {
    tcflag_t c_iflag, c_oflag, c_cflag, c_lflag;
#if defined(__HAIKU__)
    char c_line;
    speed_t c_ispeed, c_ospeed;
    unsigned char c_cc[NCCS];
#else
    unsigned char c_cc[NCCS];
    speed_t c_ispeed, c_ospeed;
#endif
};

int tcgetattr(int fd, struct termios *t);
int tcsetattr(int fd, int when, const struct termios *t);

#endif
