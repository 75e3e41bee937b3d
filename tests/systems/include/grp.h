#ifndef STUB_GRP_H
#define STUB_GRP_H
#include <stub.h>

struct group {
    char *gr_name, *gr_passwd;
    gid_t gr_gid;
    char **gr_mem;
};

struct group *getgrgid(gid_t gid);

#endif
