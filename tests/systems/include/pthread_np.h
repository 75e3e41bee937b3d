#ifndef STUB_PTHREAD_NP_H
#define STUB_PTHREAD_NP_H
#include <pthread.h>

#if !defined(__DragonFly__)
#error "a header of DragonFly"
#endif

void pthread_set_name_np(pthread_t t, const char *name);

#endif
