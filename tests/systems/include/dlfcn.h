#ifndef STUB_DLFCN_H
#define STUB_DLFCN_H
#include <stub.h>

#define RTLD_DEFAULT ((void *)-2)

void *dlsym(void *library, const char *name);

#endif
