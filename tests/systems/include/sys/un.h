#ifndef STUB_SYS_UN_H
#define STUB_SYS_UN_H
#include <stub.h>

struct sockaddr_un {
    uint8_t sun_len, sun_family;
    char sun_path[STUB_SYSTEM(104, 104, 104, 126)];
};

#endif
