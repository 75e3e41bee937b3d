#ifndef STUB_OS_OBJECT_H
#define STUB_OS_OBJECT_H

void os_release(void *object);

#endif
