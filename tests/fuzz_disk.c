/* fuzz_disk.c - hostile images, and guests on them, against disk.h   MIT licence, see LICENSE

   Input: byte 0 chooses how the image is opened, byte 1 the number of requests; these follow, 4
   bytes each (see request), then the image. Every backing file is the same image again. Aborts when
   a promise of the header is broken. */
#include <stdlib.h>

#define DISK_L2_SLICES  8
#define DISK_REF_SLICES 8
#define DISK_CHAIN_MAX  3
#define DISK_IMPLEMENTATION
#include "../disk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { STORE_MAX = 256 << 10, BUF = 40 << 10, READ_ONLY = 1, PROBE = 2, FIXED = 4, SICK = 8 };

static struct {
    uint8_t file[STORE_MAX], buf[BUF];
    uint64_t len;
    unsigned mood, lines, blocks, calls, layers;
    uint64_t memory;
} f;

static void promise(bool kept)
{
    if (!kept)
        abort();
}

static int file_rw(void *ctx, bool write, const struct disk_iov *iov, unsigned n, uint64_t off)
{
    bool backing = ctx != NULL;

    promise(n > 0 && !(write && (backing || f.mood & READ_ONLY)));
    if (write && f.mood & SICK && ++f.calls % 16 == 0)
        return -EIO;
    for (; n; off += iov->len, iov++, n--) {
        promise(write || (off <= f.len && iov->len <= f.len - off));
        if (off > (f.mood & FIXED ? f.len : STORE_MAX) ||
            iov->len > (f.mood & FIXED ? f.len : STORE_MAX) - off)
            return -ENOSPC;
        if (write)
            memcpy(f.file + off, iov->base, iov->len);
        else
            memcpy(iov->base, f.file + off, iov->len);
        f.len = off + iov->len > f.len ? off + iov->len : f.len;
    }
    return 0;
}

static int file_flush(void *ctx)
{
    promise(!ctx);
    return f.mood & SICK && ++f.calls % 16 == 0 ? -EIO : 0;
}

static int file_punch(void *ctx, uint64_t off, uint64_t len)
{
    promise(!ctx && len > 0);
    if (off < f.len)
        memset(f.file + off, 0, len < f.len - off ? len : f.len - off);
    return 0;
}

static void file_close(void *ctx)
{
    promise(ctx && f.layers > 0);
    f.layers--;
}

static int open_backing(void *ctx, const char *path, struct disk_store *s)
{
    (void)ctx;
    promise(strlen(path) < 4096 && f.layers < DISK_CHAIN_MAX);
    f.layers++;
    *s = (struct disk_store){.ctx = &f, .rw = file_rw, .close = file_close, .len = f.len};
    return 0;
}

/* A machine with 192 MiB for tables. */
static void *get_mem(void *ctx, size_t len)
{
    void *p;

    (void)ctx;
    if (len > (192u << 20) - f.memory)
        return NULL;
    p = calloc(1, len);
    promise(p != NULL);
    f.memory += len;
    f.blocks++;
    return p;
}

static void put_mem(void *ctx, void *p)
{
    (void)ctx;
    f.blocks--;
    free(p);
}

/* Reads all of the input and writes all of the output, as a decompressor may. */
static int unpack(void *ctx, void *dst, size_t dst_len, const void *src, size_t src_len)
{
    volatile uint8_t sum = 0;

    (void)ctx;
    for (size_t i = 0; i < src_len; i++)
        sum = (uint8_t)(sum + ((const uint8_t *)src)[i]);
    memset(dst, sum, dst_len);
    return sum % 8 == 7 ? -EIO : 0;
}

static void line(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    (void)ctx, (void)level, (void)fmt, (void)args;
    promise(++f.lines <= 9 * (DISK_CHAIN_MAX + 1)); /* a budget for each image, one refusal */
}

/* Byte 0: kind; 1 and 2: where, in sectors, the last few from the end of the disk; 3: length. */
static void request(struct disk_image *d, const uint8_t *r)
{
    uint64_t at = vmm_get16(r + 1), off = at < 0xff00 ? at * 512 : d->len - (0xffff - at) * 512;
    uint64_t len = (r[3] & 64 ? 7 : 512) * (uint64_t)(r[3] & 63);
    struct disk_iov iov[2] = {{f.buf, len / 3}, {f.buf + len / 3, len - len / 3}};
    bool inside = off <= d->len && len <= d->len - off;
    int rc;

    memset(f.buf, r[0], len);
    switch (r[0] % 6) {
    case 0:
        rc = disk_read(d, iov, 2, off);
        promise(inside || rc == -EINVAL);
        break;
    case 1:
        rc = disk_write(d, iov, 2, off);
        promise(rc || (inside && !(f.mood & READ_ONLY)));
        break;
    case 2:
        rc = disk_discard(d, off, len * (1 + r[0] / 64));
        break;
    case 3:
        rc = disk_zero(d, off, len, r[0] & 64);
        break;
    default:
        rc = disk_flush(d);
    }
    promise(rc <= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const struct vmm_log log = {line, NULL, VMM_LOG_DEBUG};
    static struct disk_image d;
    struct disk_desc desc = {.log = &log,
                             .name = "a/b",
                             .open = open_backing,
                             .alloc = get_mem,
                             .free = put_mem,
                             .inflate = unpack};
    unsigned n = len < 2 ? 0 : data[1] % 64;

    if (len < 2 + 4 * (size_t)n || len - 2 - 4 * (size_t)n > STORE_MAX)
        return 0;
    f.mood = data[0];
    f.len = len - 2 - 4 * (size_t)n;
    f.lines = f.blocks = f.layers = f.calls = 0;
    f.memory = 0;
    memset(f.file, 0, sizeof f.file);
    memcpy(f.file, data + len - f.len, f.len);
    desc.format = f.mood & PROBE ? DISK_PROBE : DISK_QCOW2;
    desc.read_only = f.mood & READ_ONLY;
    desc.store = (struct disk_store){.rw = file_rw,
                                     .flush = file_flush,
                                     .punch = file_punch,
                                     .len = f.len,
                                     .fixed = f.mood & FIXED};
    if (!disk_open(&d, &desc))
        for (unsigned i = 0; i < n; i++)
            request(&d, data + 2 + 4 * i);
    else
        promise(f.lines > 0);
    disk_close(&d);
    promise(!f.blocks && !f.layers);
    return 0;
}
