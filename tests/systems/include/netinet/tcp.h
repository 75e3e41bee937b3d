#ifndef STUB_NETINET_TCP_H
#define STUB_NETINET_TCP_H

#define TCP_NODELAY 1

#endif
