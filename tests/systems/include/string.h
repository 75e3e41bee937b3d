#ifndef STUB_STRING_H
#define STUB_STRING_H
#include <stub.h>

void *memchr(const void *p, int c, size_t len);
int memcmp(const void *a, const void *b, size_t len);
void *memcpy(void *to, const void *from, size_t len);
void *memmove(void *to, const void *from, size_t len);
void *memset(void *p, int c, size_t len);
char *strchr(const char *s, int c);
int strcmp(const char *a, const char *b);
char *strcpy(char *to, const char *from);
size_t strcspn(const char *s, const char *reject);
char *strdup(const char *s);
char *strerror(int err);
size_t strlen(const char *s);
int strncmp(const char *a, const char *b, size_t len);
size_t strnlen(const char *s, size_t max);
char *strrchr(const char *s, int c);
size_t strspn(const char *s, const char *accept);
char *strstr(const char *s, const char *part);

#endif
