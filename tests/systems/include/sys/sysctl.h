#ifndef STUB_SYS_SYSCTL_H
#define STUB_SYS_SYSCTL_H
#include <stub.h>

#if !defined(__APPLE__)
#error "used on macOS alone"
#endif

int sysctlbyname(const char *name, void *old, size_t *old_len, void *now, size_t now_len);

#endif
