/* os/object.h - for programs that play Hypervisor.framework on Linux        MIT licence, see LICENSE */
#ifndef OS_OBJECT_H
#define OS_OBJECT_H

void os_release(void *object);

#endif
