/* fuzz_boot_arm64.c - any bytes as kernel, packed kernel or device tree for boot.h's arm64 half, on
   small machines of many shapes.                                        MIT licence, see LICENSE

   The input is six bytes that choose the machine and what the file is, and the file. What must hold:
   an error comes with one sentence, success with none; then kernel, initrd, tree and entry lie in
   guest memory, apart, and the tree is valid. */
#define BOOT_IMPLEMENTATION
#define BOOT_ARM64
#include "../boot.h"

#include <libdeflate.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { MIB = 1 << 20, FILE_MAX = 1 << 20 };

static uint8_t *ram;
static struct vmm_mem mem;
static unsigned sentences;
static uint8_t packed[FILE_MAX];

/* No assert: it must hold in every build. */
static void must(bool held)
{
    if (!held)
        abort();
}

static void sink(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    char line[512];

    (void)ctx;
    must(vsnprintf(line, sizeof line, fmt, args) > 0 && !strchr(line, '\n'));
    sentences += level == VMM_LOG_ERROR;
}

static const struct vmm_log talkative = {sink, NULL, VMM_LOG_DEBUG};

static int64_t unpack(void *ctx, enum boot_packing packing, const void *src, uint64_t len,
                      void *dst, uint64_t cap)
{
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    size_t used, n = 0;
    int rc = packing == BOOT_ZSTD
                 ? -1
                 : (int)libdeflate_gzip_decompress_ex(d, src, len, dst, cap, &used, &n);

    (void)ctx;
    libdeflate_free_decompressor(d);
    return rc < 0                                ? -ENOSYS
           : rc == LIBDEFLATE_INSUFFICIENT_SPACE ? -ENOSPC
           : rc != LIBDEFLATE_SUCCESS            ? -EINVAL
                                                 : (int64_t)n;
}

static int map(void *ctx, const struct boot_file *f, uint64_t off, uint64_t gpa, uint64_t len)
{
    uint8_t *at = vmm_at(&mem, gpa, len);

    (void)ctx;
    must(at && len && (off | gpa | len) % 4096 == 0);
    must(off < f->len && len - 4096 < f->len - off);
    memset(at, 0, len);
    memcpy(at, f->data + off, len < f->len - off ? len : f->len - off);
    return 0;
}

/* The file as it is, or packed with gzip: alone, or behind the header of a zboot image. */
static struct boot_file kernel_of(uint8_t how, const uint8_t *data, size_t len)
{
    struct libdeflate_compressor *c;
    size_t at = how & 1 ? 64 : 0, n;

    if (!(how & 2) || len > FILE_MAX / 2)
        return (struct boot_file){data, len, "f"};
    c = libdeflate_alloc_compressor(1);
    n = libdeflate_gzip_compress(c, data, len, packed + at, sizeof packed - at);
    libdeflate_free_compressor(c);
    if (at) {
        memcpy(packed, "MZ\0\0zimg", 8);
        vmm_put32(packed + 8, 64);
        vmm_put32(packed + 12, (uint32_t)n);
        memcpy(packed + 16, "PE\0\0\x64\xaa\0\0gzip\0", 13);
        vmm_put32(packed + 60, 16);
    }
    return (struct boot_file){packed, at + n, NULL};
}

/* An Image of a few words, for when the file is a device tree. */
static struct boot_file image(void)
{
    static uint8_t file[128];

    vmm_put64(file + 16, 4096);
    memcpy(file + 56, "ARM\x64", 4);
    return (struct boot_file){file, sizeof file, "Image"};
}

static void apart(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
    must(a + alen <= b || b + blen <= a);
}

static void check(const struct boot_desc *d, const struct boot_result *at)
{
    uint64_t rd = at->initrd_gpa, len = at->kernel_end - at->kernel_gpa;

    must(vmm_at(&mem, at->kernel_gpa, len) && vmm_at(&mem, at->arm64.pc, 1));
    must(vmm_at(&mem, at->dtb_gpa, at->dtb_len) && at->arm64.x[0] == at->dtb_gpa);
    must(!fdt_check_full(vmm_at(&mem, at->dtb_gpa, at->dtb_len), at->dtb_len));
    must(!rd == !d->initrd.len);
    apart(at->kernel_gpa, len, at->dtb_gpa, at->dtb_len);
    if (!rd)
        return;
    must(!memcmp(vmm_at(&mem, rd, d->initrd.len), d->initrd.data, d->initrd.len));
    apart(at->kernel_gpa, len, rd, d->initrd.len);
    apart(at->dtb_gpa, at->dtb_len, rd, d->initrd.len);
}

static void fuzz_linux(const uint8_t *pick, struct boot_file file)
{
    static const struct boot_dev devs[] = {{BOOT_DEV_PL011, 0x9000000, 0x1000, 1},
                                           {BOOT_DEV_PL061, 0x9030000, 0x1000, 7},
                                           {BOOT_DEV_VIRTIO_MMIO, 0xa000000, 0x200, 16}};
    static const uint8_t entropy[BOOT_ENTROPY_LEN] = {1};
    struct boot_desc d = {.machine = {.arch = BOOT_ARCH_ARM64,
                                      .mem = &mem,
                                      .ncpus = pick[0] & 7,
                                      .devs = devs,
                                      .ndevs = pick[0] >> 3 & 3,
                                      .arm64 = {.gic = 2 + (pick[0] >> 5 & 1)}},
                          .kernel = pick[1] & 4 ? image() : kernel_of(pick[1], file.data, file.len),
                          .cmdline = pick[0] & 128 ? "quiet" : NULL,
                          .log = &talkative};
    struct boot_result at;
    int err;

    d.unpack = pick[1] & 8 ? NULL : unpack;
    d.map = pick[1] & 16 ? map : NULL;
    d.entropy = pick[1] & 32 ? entropy : NULL;
    d.machine.arm64.granules = pick[2] & 0x54;
    if (pick[1] & 4)
        d.dtb = file;
    if (pick[1] & 64)
        d.initrd = file;
    err = boot_linux(&d, &at);
    must(err <= 0 && sentences == (err != 0));
    if (!err)
        check(&d, &at);
}

static void fuzz_flat(const uint8_t *pick, struct boot_file file)
{
    struct boot_flat_desc d = {.mem = &mem, .file = file, .log = &talkative};
    struct vmm_arm64_regs r;
    int err;

    d.load = (uint64_t)pick[2] << (pick[3] & 63);
    d.entry = d.load + (int8_t)pick[4];
    err = boot_flat_arm64(&d, &r);
    must(err <= 0 && sentences == (err != 0));
    if (err)
        return;
    must(r.pc == d.entry && vmm_at(&mem, d.entry, 1));
    must(!memcmp(vmm_at(&mem, d.load, file.len), file.data, file.len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const uint32_t sizes[] = {8 * MIB,        6 * MIB, 4 * MIB, MIB,
                                     8 * MIB - 4096, 4096,    0,       5 * MIB};
    static const uint64_t bases[] = {1 << 30, 0, (1 << 30) + MIB, 1ull << 40};
    uint32_t size;

    if (len < 6)
        return 0;
    size = sizes[data[5] & 7];
    ram = calloc(1, size ? size : 1); /* of just this size, for the sanitizer */
    must(ram != NULL);
    mem.nranges = 0;
    if (size)
        vmm_mem_add(&mem, bases[data[5] >> 3 & 3], size, ram);
    sentences = 0;
    if (data[5] & 128)
        fuzz_flat(data, (struct boot_file){data + 6, len - 6, "f"});
    else
        fuzz_linux(data, (struct boot_file){data + 6, len - 6, NULL});
    free(ram);
    return 0;
}
