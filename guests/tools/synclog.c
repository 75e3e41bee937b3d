/* synclog.c - a log whose promises can be checked after a crash; static, runs in guests

     synclog write FILE     appends records, and says "synced N" on standard output once fsync has
                            returned for record N; for ever, or until an error
     synclog check FILE     prints "records=N": the records from 1 to N are whole and in order. A torn
                            tail after them is what a crash leaves; a hole before whole records is not
   A record is 4 KiB, all of which depends on its number. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { WORDS = 512 };

static uint64_t record[WORDS], wanted[WORDS];

static void fill(uint64_t *words, uint64_t number)
{
    for (uint64_t i = 0; i < WORDS; i++)
        words[i] = (number << 16 | i) * 0x9e3779b97f4a7c15;
}

static int fail(const char *what)
{
    fprintf(stderr, "synclog: %s: %s\n", what, strerror(errno));
    return 1;
}

static int write_log(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);

    if (fd < 0)
        return fail(path);
    for (uint64_t n = 1;; n++) {
        fill(record, n);
        if (write(fd, record, sizeof record) != (ssize_t)sizeof record)
            return fail("write");
        if (fsync(fd))
            return fail("fsync");
        printf("synced %llu\n", (unsigned long long)n);
        fflush(stdout);
    }
}

static int check_log(const char *path)
{
    uint64_t good = 0, n = 0;
    int fd = open(path, O_RDONLY), hole = 0;

    if (fd < 0)
        return fail(path);
    while (read(fd, record, sizeof record) == (ssize_t)sizeof record) {
        fill(wanted, ++n);
        if (memcmp(record, wanted, sizeof record))
            continue;
        hole |= good != n - 1;
        good = n;
    }
    printf("records=%llu hole=%d\n", (unsigned long long)good, hole);
    return hole;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "write"))
        return write_log(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "check"))
        return check_log(argv[2]);
    fprintf(stderr, "usage: synclog write|check FILE\n");
    return 2;
}
