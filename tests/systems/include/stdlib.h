#ifndef STUB_STDLIB_H
#define STUB_STDLIB_H
#include <stub.h>

void abort(void) __attribute__((noreturn));
#if !defined(__HAIKU__) || defined(_BSD_SOURCE)
void arc4random_buf(void *buf, size_t len);
#endif
void *calloc(size_t n, size_t len);
void exit(int status) __attribute__((noreturn));
void free(void *p);
char *getenv(const char *name);
int grantpt(int fd);
void *malloc(size_t len);
int mkstemp(char *path);
int posix_memalign(void **p, size_t align, size_t len);
int posix_openpt(int flags);
char *ptsname(int fd);
void *realloc(void *p, size_t len);
#if defined(__APPLE__)
char *realpath(const char *path, char *to) __asm("_realpath$DARWIN_EXTSN");
#else
char *realpath(const char *path, char *to);
#endif
unsigned long strtoul(const char *s, char **end, int base);
unsigned long long strtoull(const char *s, char **end, int base);
int unlockpt(int fd);

#endif
