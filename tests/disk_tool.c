/* disk_tool.c - disk.h over real files, for scripts that compare it with qemu-img

   disk_tool create OVERLAY BACKING FORMAT    a new overlay
   disk_tool [-r] FORMAT IMAGE COMMAND...     FORMAT is raw, qcow2 or probe; -r: read-only
     dump                      the whole disk on standard output
     write OFF LEN SEED        bytes that depend on SEED and their offset alone
     zero|keep|discard OFF LEN zero with and without unmapping
     flush
     kill                      ends at once, as SIGKILL would
   With BARE in the environment, it cannot inflate. With COUNT there, says how many calls of the
   store there were; STEP is the length of one write. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#define DISK_IMPLEMENTATION
#include "../disk.h"

static unsigned long reads, writes, flushes;

static int file_rw(void *ctx, bool write, const struct disk_iov *iov, unsigned n, uint64_t off)
{
    int fd = (int)(intptr_t)ctx;

    for (; n; off += iov->len, iov++, n--) {
        ssize_t done = write ? pwrite(fd, iov->base, iov->len, (off_t)off)
                             : pread(fd, iov->base, iov->len, (off_t)off);
        if (done != (ssize_t)iov->len)
            return done < 0 ? -errno : -EIO;
    }
    *(write ? &writes : &reads) += 1;
    return 0;
}

static int file_flush(void *ctx)
{
    flushes++;
    return fdatasync((int)(intptr_t)ctx) ? -errno : 0;
}

static int file_punch(void *ctx, uint64_t off, uint64_t len)
{
    return fallocate((int)(intptr_t)ctx, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off,
                     (off_t)len)
               ? -errno
               : 0;
}

static void file_close(void *ctx)
{
    close((int)(intptr_t)ctx);
}

static int file_open(const char *path, int flags, struct disk_store *s)
{
    int fd = open(path, flags, 0600);
    struct stat st;

    if (fd < 0 || fstat(fd, &st))
        return -errno;
    *s = (struct disk_store){(void *)(intptr_t)fd,
                             file_rw,
                             file_flush,
                             file_punch,
                             file_close,
                             (uint64_t)st.st_size,
                             false,
                             {st.st_dev, st.st_ino}};
    return 0;
}

static int open_backing(void *ctx, const char *path, struct disk_store *s)
{
    int rc = file_open(path, O_RDONLY, s);

    (void)ctx;
    if (rc)
        fprintf(stderr, "disk_tool: %s: %s\n", path, strerror(-rc));
    return rc;
}

VMM_PRINTF(3, 0)
static void sink(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    (void)ctx, (void)level;
    fputs("disk_tool: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
}

static const struct vmm_log log_stderr = {sink, NULL, VMM_LOG_INFO};

static void *get_mem(void *ctx, size_t len)
{
    (void)ctx;
    return calloc(1, len);
}

static void put_mem(void *ctx, void *mem)
{
    (void)ctx;
    free(mem);
}

static uint8_t pattern(uint64_t seed, uint64_t off)
{
    uint64_t x = (off / 8 + seed * 0x10001) * 0x9e3779b97f4a7c15u;

    return (uint8_t)(x >> (32 + 8 * (off % 4)));
}

static int dump(struct disk_image *d)
{
    static uint8_t buf[1 << 20];
    int rc = 0;

    for (uint64_t off = 0, n; off < d->len && !rc; off += n) {
        n = d->len - off < sizeof buf ? d->len - off : sizeof buf;
        rc = disk_read(d, &(struct disk_iov){buf, n}, 1, off);
        if (!rc && fwrite(buf, 1, n, stdout) != n)
            rc = -EIO;
    }
    return rc;
}

/* In pieces of at most `step`, as a guest would. */
static int write_range(struct disk_image *d, uint64_t off, uint64_t len, uint64_t seed)
{
    static uint8_t buf[1 << 20];
    uint64_t step = getenv("STEP") ? strtoull(getenv("STEP"), NULL, 0) : sizeof buf;
    int rc = 0;

    for (uint64_t n; len && !rc; off += n, len -= n) {
        struct disk_iov iov[2];
        n = len < step ? len : step;
        for (uint64_t i = 0; i < n; i++)
            buf[i] = pattern(seed, off + i);
        iov[0] = (struct disk_iov){buf, n / 3};
        iov[1] = (struct disk_iov){buf + n / 3, n - n / 3};
        rc = disk_write(d, iov, 2, off);
    }
    return rc;
}

static uint64_t number(char **arg)
{
    return arg[0] ? strtoull(arg[0], NULL, 0) : 0;
}

/* Carries out one command; *arg moves on to the next. */
static int command(struct disk_image *d, char ***arg)
{
    char **a = *arg, *c = a[0];
    uint64_t off = 0, len = 0;

    *arg += 1;
    if (!strcmp(c, "dump"))
        return dump(d);
    if (!strcmp(c, "flush"))
        return disk_flush(d);
    if (!strcmp(c, "kill"))
        _exit(0);
    off = number(a + 1);
    len = number(a + 2);
    *arg += 2;
    if (!strcmp(c, "zero") || !strcmp(c, "keep"))
        return disk_zero(d, off, len, *c == 'z');
    if (!strcmp(c, "discard"))
        return disk_discard(d, off, len);
    *arg += 1;
    return strcmp(c, "write") ? -EINVAL : write_range(d, off, len, number(a + 3));
}

static int create(char **arg)
{
    struct disk_desc desc = {.log = &log_stderr,
                             .name = arg[1],
                             .format = strcmp(arg[2], "raw") ? DISK_QCOW2 : DISK_RAW,
                             .read_only = true,
                             .open = open_backing,
                             .alloc = get_mem,
                             .free = put_mem};
    static struct disk_image base;
    struct disk_store s;
    int rc = file_open(arg[1], O_RDONLY, &desc.store);

    if (!rc)
        rc = disk_open(&base, &desc);
    if (!rc)
        rc = file_open(arg[0], O_RDWR | O_CREAT | O_EXCL, &s);
    return rc ? rc : disk_create(&s, base.len, arg[1], desc.format, &log_stderr);
}

int main(int argc, char **argv)
{
    static struct disk_image d;
    struct disk_desc desc = {.log = &log_stderr,
                             .open = open_backing,
                             .alloc = get_mem,
                             .free = put_mem,
                             .inflate = getenv("BARE") ? NULL : disk_inflate};
    int rc;

    if (argc > 4 && !strcmp(argv[1], "create"))
        return create(argv + 2) ? 1 : 0;
    if (argc > 1 && !strcmp(argv[1], "-r")) {
        desc.read_only = true;
        argv++;
        argc--;
    }
    if (argc < 3)
        return 2;
    desc.format = *argv[1] == 'r' ? DISK_RAW : *argv[1] == 'q' ? DISK_QCOW2 : DISK_PROBE;
    desc.name = argv[2];
    rc = file_open(argv[2], desc.read_only ? O_RDONLY : O_RDWR, &desc.store);
    if (!rc)
        rc = disk_open(&d, &desc);
    for (char **arg = argv + 3; *arg && !rc;)
        rc = command(&d, &arg);
    if (getenv("COUNT"))
        fprintf(stderr, "%lu reads, %lu writes, %lu flushes\n", reads, writes, flushes);
    disk_close(&d);
    return rc ? 1 : 0;
}
