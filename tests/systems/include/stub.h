/* stub.h - what several of these headers need

   The headers in this directory are no system's: they declare what vmm uses of macOS and NetBSD, with the
   values and layouts of those systems, so that a machine that has neither compiles for both (make
   hvf-check, make bsd-check). tests/systems/drift.c holds the same values: wherever the real headers are,
   compiling it tells whether these are still right. */
#ifndef STUB_H
#define STUB_H

#include <stddef.h>
#include <stdint.h>

#if defined(__APPLE__)
#define STUB_SYSTEM(apple, netbsd) apple
#if defined(__x86_64__)
#define STUB_INODE64(name) __asm("_" #name "$INODE64")
#else
#define STUB_INODE64(name)
#endif
#define STUB_NETBSD(name)
#elif defined(__NetBSD__)
#define STUB_SYSTEM(apple, netbsd) netbsd
#define STUB_INODE64(name)
#define STUB_NETBSD(name) __asm(#name)
#else
#error "no values for this system here"
#endif

typedef intptr_t ssize_t;
typedef int64_t off_t;
typedef int32_t pid_t;
typedef uint32_t uid_t;
typedef uint32_t gid_t;
typedef uint32_t socklen_t;
typedef STUB_SYSTEM(uint16_t, uint32_t) mode_t;
typedef STUB_SYSTEM(int32_t, uint64_t) dev_t;
typedef uint64_t ino_t;
typedef STUB_SYSTEM(long, int64_t) time_t;

#endif
