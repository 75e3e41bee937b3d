#ifndef STUB_NETINET_IN_H
#define STUB_NETINET_IN_H
#include <stub.h>

#define IPPROTO_TCP     6
#define INADDR_LOOPBACK 0x7f000001u

struct in_addr {
    uint32_t s_addr;
};

struct sockaddr_in {
    uint8_t sin_len, sin_family;
    uint16_t sin_port;
    struct in_addr sin_addr;
    char sin_zero[STUB_SYSTEM(8, 8, 8, 24)];
};

#endif
