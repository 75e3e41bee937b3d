/* stub.h - what several of these headers need

   The headers in this directory are no system's: they declare what vmm uses of macOS, NetBSD, DragonFly
   and Haiku, with the values and layouts of those systems, so that a machine that has none of them
   compiles for all (make hvf-check, make bsd-check). tests/systems/drift.c holds the same values: wherever
   the real headers are, compiling it tells whether these are still right. */
#ifndef STUB_H
#define STUB_H

#include <stddef.h>
#include <stdint.h>

#define STUB_INODE64(name)
#define STUB_NETBSD(name)
#if defined(__APPLE__)
#define STUB_SYSTEM(apple, netbsd, dragonfly, haiku) apple
#if defined(__x86_64__)
#undef STUB_INODE64
#define STUB_INODE64(name) __asm("_" #name "$INODE64")
#endif
#elif defined(__NetBSD__)
#define STUB_SYSTEM(apple, netbsd, dragonfly, haiku) netbsd
#undef STUB_NETBSD
#define STUB_NETBSD(name) __asm(#name)
#elif defined(__DragonFly__)
#define STUB_SYSTEM(apple, netbsd, dragonfly, haiku) dragonfly
#elif defined(__HAIKU__)
#define STUB_SYSTEM(apple, netbsd, dragonfly, haiku) haiku
#else
#error "no values for this system here"
#endif

typedef intptr_t ssize_t;
typedef int64_t off_t;
typedef int32_t pid_t;
typedef uint32_t uid_t;
typedef uint32_t gid_t;
typedef uint32_t socklen_t;
typedef STUB_SYSTEM(uint16_t, uint32_t, uint16_t, uint32_t) mode_t;
typedef STUB_SYSTEM(int32_t, uint64_t, uint32_t, int32_t) dev_t;
typedef STUB_SYSTEM(uint64_t, uint64_t, uint64_t, int64_t) ino_t;
typedef STUB_SYSTEM(long, int64_t, int64_t, int64_t) time_t;

#endif
