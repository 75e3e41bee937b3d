/* files.c - a tree of random files that can be checked; static, runs in guests

     files write DIRECTORY SEED MIB     creates directories and files of 1 byte to 4 MiB, MIB in all,
                                        of random content, and syncs the file system
     files check DIRECTORY SEED MIB     the same files with the same content must be there
   Names, sizes and contents follow from SEED, so a check compares every byte without a list of
   checksums. Prints "files=N bytes=N wrong=N"; exit status 1 if one is missing or differs. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 65536, SIZE_BITS_MAX = 22, DIRECTORIES = 16 };

static uint64_t data[CHUNK / 8], found[CHUNK / 8];

static uint64_t random_next(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

static void random_fill(uint64_t *state)
{
    for (int i = 0; i < CHUNK / 8; i++)
        data[i] = random_next(state);
}

/* Returns whether the whole file could be written. */
static int write_file(const char *path, uint64_t state, uint64_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644), good = fd >= 0;

    for (uint64_t done = 0; good && done < size; done += CHUNK) {
        size_t len = size - done < CHUNK ? size - done : CHUNK;
        random_fill(&state);
        good = write(fd, data, len) == (ssize_t)len;
    }
    if (!good)
        fprintf(stderr, "files: %s: %s\n", path, strerror(errno));
    close(fd);
    return good;
}

/* Returns whether the file is there, of this size and content. */
static int check_file(const char *path, uint64_t state, uint64_t size)
{
    int fd = open(path, O_RDONLY), good = fd >= 0;

    for (uint64_t done = 0; good && done < size; done += CHUNK) {
        size_t len = size - done < CHUNK ? size - done : CHUNK;
        random_fill(&state);
        good = read(fd, found, len) == (ssize_t)len && !memcmp(found, data, len);
    }
    good = good && read(fd, found, 1) == 0;
    if (!good)
        fprintf(stderr, "files: %s is missing or differs\n", path);
    close(fd);
    return good;
}

int main(int argc, char **argv)
{
    uint64_t bytes = 0, total, seed, n = 0, wrong = 0;
    int writes = argc == 5 && !strcmp(argv[1], "write");
    char path[4096];

    if (argc != 5 || (!writes && strcmp(argv[1], "check"))) {
        fprintf(stderr, "usage: files write|check DIRECTORY SEED MIB\n");
        return 2;
    }
    seed = strtoull(argv[3], NULL, 0) * 0x9e3779b97f4a7c15 | 1;
    total = strtoull(argv[4], NULL, 0) << 20;
    for (; bytes < total; n++) {
        uint64_t r = random_next(&seed);
        uint64_t size = 1 + (r >> 8) % ((uint64_t)1 << (r & 63) % (SIZE_BITS_MAX + 1));
        snprintf(path, sizeof path, "%s/d%llu", argv[2], (unsigned long long)(n % DIRECTORIES));
        if (writes)
            mkdir(path, 0755);
        snprintf(path, sizeof path, "%s/d%llu/f%llu", argv[2],
                 (unsigned long long)(n % DIRECTORIES), (unsigned long long)n);
        wrong += !(writes ? write_file(path, seed, size) : check_file(path, seed, size));
        bytes += size;
    }
    if (writes)
        sync();
    printf("files=%llu bytes=%llu wrong=%llu\n", (unsigned long long)n, (unsigned long long)bytes,
           (unsigned long long)wrong);
    return wrong != 0;
}
