#ifndef STUB_STDIO_H
#define STUB_STDIO_H
#include <stdarg.h>
#include <stub.h>

typedef struct stub_file FILE;

#if defined(__HAIKU__)
extern FILE *stdin, *stdout, *stderr;
#elif defined(__NetBSD__)
struct stub_file {
    char opaque[152];
};
extern FILE __sF[3];
#define stdin  (&__sF[0])
#define stdout (&__sF[1])
#define stderr (&__sF[2])
#else
extern FILE *__stdinp, *__stdoutp, *__stderrp;
#define stdin  __stdinp
#define stdout __stdoutp
#define stderr __stderrp
#endif

#define EOF    (-1)
#define _IOFBF 0
#define _IOLBF 1
#define BUFSIZ STUB_SYSTEM(1024, 1024, 1024, 8192)

int fclose(FILE *f);
FILE *fdopen(int fd, const char *mode);
int fflush(FILE *f);
FILE *fopen(const char *path, const char *mode);
int fprintf(FILE *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int fputc(int c, FILE *f);
int fputs(const char *s, FILE *f);
size_t fwrite(const void *p, size_t len, size_t n, FILE *f);
int printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int putchar(int c);
int puts(const char *s);
int remove(const char *path);
int setvbuf(FILE *f, char *buf, int mode, size_t len);
int snprintf(char *to, size_t len, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int vfprintf(FILE *f, const char *fmt, va_list args) __attribute__((format(printf, 2, 0)));
int vsnprintf(char *to, size_t len, const char *fmt, va_list args)
    __attribute__((format(printf, 3, 0)));

#endif
