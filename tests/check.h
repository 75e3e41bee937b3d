/* check.h - what every tests/test_*.c counts with                  MIT licence, see LICENSE

   CHECK(expr) counts one check and, when expr is false, prints where and what.
   CHECK_EQ(a, b) does so for integers and prints both values. Both yield whether it held.
   CHECK_DONE("test_x") ends main: prints the line of counts and returns 0, or 1 after a failure. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>

static unsigned check_total, check_failed;

static inline int check_one(int held, const char *file, int line, const char *expr)
{
    check_total++;
    if (held)
        return 1;
    check_failed++;
    fprintf(stderr, "%s:%d: %s\n", file, line, expr);
    return 0;
}

static inline int check_same(unsigned long long a, unsigned long long b, const char *file, int line,
                             const char *expr)
{
    if (a != b)
        fprintf(stderr, "%s:%d: %llu (0x%llx) != %llu (0x%llx)\n", file, line, a, a, b, b);
    return check_one(a == b, file, line, expr);
}

#define CHECK(expr) check_one(!!(expr), __FILE__, __LINE__, #expr)
#define CHECK_EQ(a, b)                                                                             \
    check_same((unsigned long long)(a), (unsigned long long)(b), __FILE__, __LINE__, #a " == " #b)
#define CHECK_DONE(name)                                                                           \
    return (printf("%s: %u checks, %u failed\n", name, check_total, check_failed),                 \
            check_failed ? 1 : 0)

#endif /* CHECK_H */
