#ifndef STUB_NET_ROUTE_H
#define STUB_NET_ROUTE_H
/* nothing of it is used by name: a message is a reason to look */
#endif
