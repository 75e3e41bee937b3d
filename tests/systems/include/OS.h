#ifndef STUB_OS_H
#define STUB_OS_H
#include <stub.h>

#if !defined(__HAIKU__)
#error "a header of Haiku"
#endif

/* these come with it, and nothing of ours may be called so */
#define min(a, b) ((a) > (b) ? (b) : (a))
#define max(a, b) ((a) > (b) ? (a) : (b))
typedef int32_t int32;
typedef uint32_t uint32;

typedef int32 status_t;
typedef int32 thread_id;

thread_id find_thread(const char *name);
status_t rename_thread(thread_id id, const char *name);

#endif
