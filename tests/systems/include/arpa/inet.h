#ifndef STUB_ARPA_INET_H
#define STUB_ARPA_INET_H
#include <stub.h>

/* macros on macOS, and functions for who asks for them on NetBSD */
#define htonl(x) __builtin_bswap32(x)
#define ntohl(x) __builtin_bswap32(x)
#define htons(x) __builtin_bswap16(x)
#define ntohs(x) __builtin_bswap16(x)

#endif
