#ifndef STUB_TERMIOS_H
#define STUB_TERMIOS_H
#include <stub.h>

#define NCCS    20
#define VMIN    16
#define VTIME   17
#define IGNBRK  0x1
#define BRKINT  0x2
#define PARMRK  0x8
#define INPCK   0x10
#define ISTRIP  0x20
#define INLCR   0x40
#define IGNCR   0x80
#define ICRNL   0x100
#define IXON    0x200
#define ECHO    0x8
#define ECHONL  0x10
#define ISIG    0x80
#define ICANON  0x100
#define IEXTEN  0x400
#define TCSANOW 0

typedef STUB_SYSTEM(unsigned long, unsigned int) tcflag_t;
typedef STUB_SYSTEM(unsigned long, unsigned int) speed_t;

struct termios {
    tcflag_t c_iflag, c_oflag, c_cflag, c_lflag;
    unsigned char c_cc[NCCS];
    STUB_SYSTEM(speed_t, int) c_ispeed, c_ospeed;
};

int tcgetattr(int fd, struct termios *t);
int tcsetattr(int fd, int when, const struct termios *t);

#endif
