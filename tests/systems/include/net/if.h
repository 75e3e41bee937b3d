#ifndef STUB_NET_IF_H
#define STUB_NET_IF_H
#include <sys/socket.h>

#if defined(__HAIKU__)
#error "what an interface is on Haiku nobody needs here"
#endif

#define IFF_UP 0x1

struct ifreq {
    char ifr_name[16];
    union {
        struct sockaddr addr;
        short flags;
        int mtu;
        char room[STUB_SYSTEM(16, 128, 16, 0)];
    } stub;
};
#define ifr_flags stub.flags
#define ifr_mtu   stub.mtu

#endif
