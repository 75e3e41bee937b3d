#ifndef STUB_SYS_MMAN_H
#define STUB_SYS_MMAN_H
#include <stub.h>

#define PROT_NONE     0
#define PROT_READ     1
#define PROT_WRITE    2
#define PROT_EXEC     4
#define MAP_SHARED    0x1
#define MAP_PRIVATE   0x2
#define MAP_FIXED     STUB_SYSTEM(0x10, 0x10, 0x10, 0x4)
#define MAP_NORESERVE STUB_SYSTEM(0x40, 0x40, 0x40, 0x10)
#define MAP_ANON      STUB_SYSTEM(0x1000, 0x1000, 0x1000, 0x8)
#define MAP_FAILED    ((void *)-1)

void *mmap(void *at, size_t len, int prot, int flags, int fd, off_t off);
int mprotect(void *at, size_t len, int prot);
int munmap(void *at, size_t len);

#endif
