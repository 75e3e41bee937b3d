/* sys/sysctl.h - for programs that play Hypervisor.framework on Linux       MIT licence, see LICENSE */
#ifndef SYS_SYSCTL_H
#define SYS_SYSCTL_H

#include <stddef.h>

int sysctlbyname(const char *name, void *old, size_t *old_len, void *now, size_t now_len);

#endif
