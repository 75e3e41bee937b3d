#ifndef STUB_SYS_SYSCTL_H
#define STUB_SYS_SYSCTL_H
#include <stub.h>

int sysctlbyname(const char *name, void *old, size_t *old_len,
                 STUB_SYSTEM(void *, const void *) now, size_t now_len);

#endif
