/* ioload.c - block I/O load for tests and benches; static, runs in guests and in the lab's machine

     ioload FILE read|write|randread|randwrite [KEY=NUMBER]... [verify] [buffered] [mark=NAME]
     ioload DEVICE discard|zero [span=NUMBER]    gives the first span bytes back or has them zeroed
       block=4096      bytes per request, a power of two from 512 to 1 MiB
       depth=1         requests in flight, up to 256
       span=           bytes from the start that are used; whole blocks, the file's size if not given
       requests=       span/block if not given: then each block is used once, in random order too
       seed=1          what a written block holds depends on it
       verify          every block read must be what a write with the same seed has put there
       blank           every block read must be zeroes
       buffered        without O_DIRECT; a write ends with fdatasync
       mark=NAME       prints "MARK NAME begin" and "MARK NAME end" around the load, for bench_time
   Prints "requests=N bytes=N errors=N wrong=N ns=N errno=N": errors are failed or short requests
   (errno is the last one's), wrong counts blocks that do not verify. Exit status 1 if either is not
   zero. Depth 1 is pread and pwrite; more is Linux AIO, which refills all that came back with one
   call, as a busy database does. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { DEPTH_MAX = 256, BLOCK_MAX = 1 << 20, STAMP = 512 /* bytes between two stamps */ };

struct load {
    const char *path, *mark;
    int fd, writes, random, verify, blank, buffered;
    uint64_t block, depth, span, requests, seed;
    uint64_t next; /* request */
    uint64_t errors, wrong;
    int last_errno;
};

static char *buffer[DEPTH_MAX];
static struct iocb iocbs[DEPTH_MAX];

static void die(const char *what)
{
    fprintf(stderr, "ioload: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* A one-to-one map of numbers of `bits` bits: visits every block once. */
static uint64_t scatter(uint64_t i, unsigned bits)
{
    uint64_t mask = ((uint64_t)1 << bits) - 1;

    for (int round = 0; round < 3; round++) {
        i = i * 0x9e3779b97f4a7c15 + 0x7f4a7c15; /* odd factor: one-to-one modulo 2^bits */
        i &= mask;
        i ^= i >> (bits / 2 + 1);
    }
    return i;
}

/* Which block the next request is for. */
static uint64_t next_block(struct load *l)
{
    uint64_t nblocks = l->span / l->block, i = l->next++ % nblocks;
    unsigned bits = 1;

    if (!l->random)
        return i;
    while ((uint64_t)1 << bits < nblocks)
        bits++;
    do
        i = scatter(i, bits);
    while (i >= nblocks); /* following the cycle keeps it one-to-one */
    return i;
}

/* Each stamp says where it belongs. */
static void stamp(const struct load *l, char *data, uint64_t off)
{
    for (uint64_t i = 0; i < l->block; i += STAMP) {
        uint64_t s[3] = {off + i, l->seed, (off + i) * 0x9e3779b97f4a7c15 ^ l->seed};
        memcpy(data + i, s, sizeof s);
        memcpy(data + i + STAMP - sizeof s, s, sizeof s);
    }
}

static int verifies(const struct load *l, const char *data, uint64_t off)
{
    for (uint64_t i = 0; i < l->block; i += STAMP) {
        uint64_t s[3] = {off + i, l->seed, (off + i) * 0x9e3779b97f4a7c15 ^ l->seed};
        if (memcmp(data + i, s, sizeof s) || memcmp(data + i + STAMP - sizeof s, s, sizeof s))
            return 0;
    }
    return 1;
}

static int is_blank(const char *data, uint64_t len)
{
    return !data[0] && !memcmp(data, data + 1, len - 1);
}

/* Takes the result of one request, a length or -errno. */
static void account(struct load *l, const char *data, uint64_t off, int64_t res)
{
    if (res != (int64_t)l->block) {
        l->errors++;
        l->last_errno = res < 0 ? (int)-res : 0;
    } else if (!l->writes && ((l->verify && !verifies(l, data, off)) ||
                              (l->blank && !is_blank(data, l->block)))) {
        l->wrong++;
    }
}

static void run_single(struct load *l)
{
    while (l->next < l->requests) {
        off_t off = (off_t)(next_block(l) * l->block);
        ssize_t n;

        if (l->writes) {
            stamp(l, buffer[0], (uint64_t)off);
            n = pwrite(l->fd, buffer[0], l->block, off);
        } else {
            n = pread(l->fd, buffer[0], l->block, off);
        }
        account(l, buffer[0], (uint64_t)off, n < 0 ? -errno : n);
    }
}

static void prepare(struct load *l, struct iocb *cb)
{
    char *data = buffer[cb - iocbs];

    *cb = (struct iocb){.aio_data = (uintptr_t)cb,
                        .aio_lio_opcode = l->writes ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
                        .aio_fildes = (uint32_t)l->fd,
                        .aio_buf = (uintptr_t)data,
                        .aio_nbytes = l->block,
                        .aio_offset = (int64_t)(next_block(l) * l->block)};
    if (l->writes)
        stamp(l, data, (uint64_t)cb->aio_offset);
}

static void submit(aio_context_t ctx, struct iocb **list, long n)
{
    while (n > 0) {
        long done = syscall(SYS_io_submit, ctx, n, list);
        if (done < 0)
            die("io_submit");
        list += done;
        n -= done;
    }
}

static void run_deep(struct load *l)
{
    struct io_event events[DEPTH_MAX];
    struct iocb *list[DEPTH_MAX];
    aio_context_t ctx = 0;
    uint64_t flying = 0;
    long n = 0;

    if (syscall(SYS_io_setup, l->depth, &ctx))
        die("io_setup");
    for (; flying < l->depth && l->next < l->requests; flying++) {
        prepare(l, &iocbs[flying]);
        list[n++] = &iocbs[flying];
    }
    while (flying) {
        submit(ctx, list, n);
        long got = syscall(SYS_io_getevents, ctx, 1, l->depth, events, NULL);
        if (got < 0)
            die("io_getevents");
        n = 0;
        for (long i = 0; i < got; i++) {
            struct iocb *cb = (struct iocb *)(uintptr_t)events[i].data;
            account(l, buffer[cb - iocbs], (uint64_t)cb->aio_offset, events[i].res);
            if (l->next < l->requests) {
                prepare(l, cb);
                list[n++] = cb;
            }
        }
        flying += (uint64_t)n - (uint64_t)got;
    }
    syscall(SYS_io_destroy, ctx);
}

/* Of a file or of a block device. */
static uint64_t file_size(int fd)
{
    off_t end = lseek(fd, 0, SEEK_END);

    if (end < 0)
        die("lseek");
    return (uint64_t)end;
}

/* DISCARD or WRITE_ZEROES, one request for the kernel. */
static int give_back(const struct load *l, int zero)
{
    uint64_t range[2] = {0, l->span};

    if (ioctl(l->fd, (int)(zero ? BLKZEROOUT : BLKDISCARD), range))
        die(zero ? "BLKZEROOUT" : "BLKDISCARD");
    return 0;
}

/* The mark is given time to leave the guest before the load begins. */
static void mark(const struct load *l, const char *which)
{
    if (!l->mark)
        return;
    printf("MARK %s %s\n", l->mark, which);
    fflush(stdout);
    usleep(50000);
}

static void option(struct load *l, const char *arg)
{
    static const char *const names[] = {"block", "depth", "span", "requests", "seed"};
    uint64_t *const fields[] = {&l->block, &l->depth, &l->span, &l->requests, &l->seed};
    const char *value = strchr(arg, '=');

    for (size_t i = 0; value && i < sizeof names / sizeof *names; i++)
        if (!strncmp(arg, names[i], (size_t)(value - arg)) && !names[i][value - arg]) {
            *fields[i] = strtoull(value + 1, NULL, 0);
            return;
        }
    if (!strcmp(arg, "verify"))
        l->verify = 1;
    else if (!strcmp(arg, "blank"))
        l->blank = 1;
    else if (!strcmp(arg, "buffered"))
        l->buffered = 1;
    else if (!strncmp(arg, "mark=", 5))
        l->mark = value + 1;
    else {
        fprintf(stderr, "ioload: what is '%s'?\n", arg);
        exit(2);
    }
}

static void open_file(struct load *l)
{
    l->fd = open(l->path, (l->writes ? O_RDWR : O_RDONLY) | (l->buffered ? 0 : O_DIRECT));
    if (l->fd < 0)
        die(l->path);
    if (!l->span)
        l->span = file_size(l->fd);
    if (!l->requests)
        l->requests = l->span / l->block;
    if (l->block < STAMP || l->block > BLOCK_MAX || l->block & (l->block - 1) || !l->depth ||
        l->depth > DEPTH_MAX || l->span < l->block) {
        fprintf(stderr, "ioload: block, depth or span out of range\n");
        exit(2);
    }
    for (uint64_t i = 0; i < l->depth; i++) {
        buffer[i] = aligned_alloc(4096, l->block < 4096 ? 4096 : l->block);
        if (!buffer[i])
            die("memory");
        memset(buffer[i], (int)l->seed, l->block);
    }
}

int main(int argc, char **argv)
{
    struct load l = {.block = 4096, .depth = 1, .seed = 1};
    uint64_t start, ns;
    int give;

    if (argc < 3) {
        fprintf(stderr, "usage: ioload FILE read|write|randread|randwrite [KEY=NUMBER]...\n");
        return 2;
    }
    l.path = argv[1];
    l.random = !strncmp(argv[2], "rand", 4);
    give = !strcmp(argv[2], "discard") || !strcmp(argv[2], "zero");
    l.writes = give || !strcmp(argv[2] + 4 * l.random, "write");
    for (int i = 3; i < argc; i++)
        option(&l, argv[i]);
    open_file(&l);
    if (give)
        return give_back(&l, *argv[2] == 'z');
    mark(&l, "begin");
    start = now();
    if (l.depth > 1)
        run_deep(&l);
    else
        run_single(&l);
    if (l.writes && l.buffered && fdatasync(l.fd)) {
        l.errors++;
        l.last_errno = errno;
    }
    ns = now() - start;
    mark(&l, "end");
    printf("requests=%llu bytes=%llu errors=%llu wrong=%llu ns=%llu errno=%d\n",
           (unsigned long long)l.requests, (unsigned long long)(l.requests * l.block),
           (unsigned long long)l.errors, (unsigned long long)l.wrong, (unsigned long long)ns,
           l.last_errno);
    return l.errors || l.wrong;
}
