/* test_boot_arm64.c - boot.h's arm64 half on kernels made here           MIT licence, see LICENSE

   test_boot_arm64              runs the checks
   test_boot_arm64 KERNEL...    loads real ones and prints what came of it */
#define _GNU_SOURCE
#define BOOT_IMPLEMENTATION
#define BOOT_ARM64
#define BOOT_NO_X86
#include "../boot.h"
#include "check.h"

#include <libdeflate.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define GIB (1ull << 30)
enum { MIB = 1 << 20, KERNEL_LEN = 0x23450 };

static const uint64_t BASE = 1 << 30;
static uint8_t *ram; /* 64 GiB of it, which cost only what is touched */
static uint64_t dirty;
static uint8_t file[1 << 20], packed[1 << 20];
static char said[512];
static unsigned sentences;

static void sink(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    (void)ctx;
    if (level == VMM_LOG_ERROR) {
        sentences++;
        vsnprintf(said, sizeof said, fmt, args);
    }
}

static const struct vmm_log sink_log = {sink, NULL, VMM_LOG_ERROR};

static int64_t unpack(void *ctx, enum boot_packing packing, const void *src, uint64_t len,
                      void *dst, uint64_t cap)
{
    (void)ctx;
    if (packing == BOOT_GZIP) {
        struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
        size_t used, n = 0;
        enum libdeflate_result r = libdeflate_gzip_decompress_ex(d, src, len, dst, cap, &used, &n);
        libdeflate_free_decompressor(d);
        return r == LIBDEFLATE_SUCCESS              ? (int64_t)n
               : r == LIBDEFLATE_INSUFFICIENT_SPACE ? -ENOSPC
                                                    : -EINVAL;
    }
    CHECK(packing == BOOT_ZSTD && len > 4 && !memcmp(src, "\x28\xb5\x2f\xfd", 4) && len - 4 <= cap);
    memcpy(dst, (const uint8_t *)src + 4, len - 4); /* what zstd makes of it is disk.h's */
    return (int64_t)len - 4;
}

static uint64_t gzip(const void *src, uint64_t len, uint8_t *dst)
{
    struct libdeflate_compressor *c = libdeflate_alloc_compressor(6);
    uint64_t n = libdeflate_gzip_compress(c, src, len, dst, sizeof packed / 2);

    libdeflate_free_compressor(c);
    return n;
}

/* >>kernels */
static uint64_t make_image(uint64_t text_offset, uint64_t image_size, uint64_t flags)
{
    memset(file, 0, sizeof file);
    for (unsigned i = 64; i < KERNEL_LEN; i++)
        file[i] = (uint8_t)(i * 7 + i / 256 + 1);
    vmm_put64(file + 8, text_offset);
    vmm_put64(file + 16, image_size);
    vmm_put64(file + 24, flags);
    memcpy(file + 56, "ARM\x64", 4);
    return KERNEL_LEN;
}

/* In front of the payload stands what Linux' zboot-header.S has there. */
static uint64_t make_zboot(const char *type, const uint8_t *payload, uint64_t len)
{
    memset(file, 0, 0x1000);
    memcpy(file, "MZ\0\0zimg", 8);
    vmm_put32(file + 8, 0x1000);
    vmm_put32(file + 12, (uint32_t)len);
    memcpy(file + 24, type, strlen(type));
    vmm_put32(file + 56, 0x818223cd);
    vmm_put32(file + 60, 64);
    memcpy(file + 64, "PE\0\0\x64\xaa", 6);
    memcpy(file + 0x1000, payload, len);
    return 0x1000 + len + 0x200;
}

struct ph {
    uint32_t type;
    uint64_t off, vaddr, paddr, filesz, memsz;
};

static void put_ph(unsigned i, struct ph p)
{
    uint8_t *at = file + 64 + 56 * i;

    vmm_put32(at, p.type);
    vmm_put64(at + 8, p.off);
    vmm_put64(at + 16, p.vaddr);
    vmm_put64(at + 24, p.paddr);
    vmm_put64(at + 32, p.filesz);
    vmm_put64(at + 40, p.memsz);
}

/* Like Linux' vmlinux: the Image's header at its text, addresses all virtual. */
static uint64_t make_vmlinux(uint64_t vaddr, uint64_t paddr, bool header)
{
    memset(file, 0, sizeof file);
    for (unsigned i = 0x10000; i < 0x31000; i++)
        file[i] = (uint8_t)(i * 5 + i / 256 + 1);
    memcpy(file, "\x7f\x45LF\2\1\1", 7);
    vmm_put16(file + 16, 3);
    vmm_put16(file + 18, 183);
    vmm_put64(file + 24, vaddr);
    vmm_put64(file + 32, 64);
    vmm_put16(file + 54, 56);
    vmm_put16(file + 56, 3);
    put_ph(0, (struct ph){1, 0x30000, vaddr + 0x20000, paddr + 0x20000, 0x1000, 0x9000});
    put_ph(1, (struct ph){1, 0x10000, vaddr, paddr, 0x18000, 0x18000});
    put_ph(2, (struct ph){4, 0x10100, 0, 0, 0x24, 0x24});
    memset(file + 0x10008, 0, 56);
    if (header) {
        vmm_put64(file + 0x10010, 0x80000);
        vmm_put64(file + 0x10018, 10);
        memcpy(file + 0x10038, "ARM\x64", 4);
    }
    return 0x31000;
}

/* >>machines */
static struct vmm_mem mem;

static void take_ram(uint64_t base, uint64_t len)
{
    madvise(ram, dirty, MADV_DONTNEED);
    dirty = len;
    mem.nranges = 0;
    vmm_mem_add(&mem, base, len, ram);
}

static const struct boot_dev devices[] = {
    {BOOT_DEV_PL011, 0x9000000, 0x1000, 1},       {BOOT_DEV_PL031, 0x9010000, 0x1000, 2},
    {BOOT_DEV_PL061, 0x9030000, 0x1000, 7},       {BOOT_DEV_UART, 0x9040000, 8, 9},
    {BOOT_DEV_VIRTIO_MMIO, 0xa000000, 0x200, 16},
};

static struct boot_desc desc_of(uint64_t len)
{
    struct boot_desc d = {0};

    d.machine.arch = BOOT_ARCH_ARM64;
    d.machine.mem = &mem;
    d.machine.ncpus = 1;
    d.machine.devs = devices;
    d.machine.ndevs = sizeof devices / sizeof devices[0];
    d.machine.arm64 = (struct boot_arm64){.gic = 3, .gic_dist = 0x8000000, .gic_cpu = 0x80a0000};
    d.kernel.data = file;
    d.kernel.len = len;
    d.kernel.name = "the-kernel";
    d.cmdline = "console=ttyAMA0";
    d.unpack = unpack;
    d.log = &sink_log;
    sentences = 0;
    said[0] = 0;
    return d;
}

/* It failed as it should: this error, and one sentence with these words. */
static void check_refused(int err, int want, const char *words, const char *what)
{
    if (!CHECK_EQ(-err, -want) || !CHECK_EQ(sentences, 1) || !CHECK(strstr(said, words)))
        fprintf(stderr, "  %s: %u sentences, \"%s\"\n", what, sentences, said);
    sentences = 0;
    said[0] = 0;
}

static const uint8_t *at(uint64_t gpa)
{
    return vmm_at(&mem, gpa, 1);
}

/* What booting.rst asks of every boot, whatever the kernel. */
static void check_protocol(const struct boot_desc *d, const struct boot_result *r)
{
    uint64_t initrd_end = r->initrd_gpa + d->initrd.len;

    for (unsigned i = 1; i < 31; i++)
        CHECK_EQ(r->arm64.x[i], 0);
    CHECK_EQ(r->arm64.x[0], r->dtb_gpa);
    CHECK_EQ(r->arm64.pstate, 0x3c5);
    CHECK_EQ(r->arm64.sctlr_el1, 0);
    CHECK_EQ(r->dtb_gpa % 8, 0);
    CHECK(r->dtb_len <= 2 * MIB && r->dtb_gpa >> 21 == (r->dtb_gpa + r->dtb_len - 1) >> 21);
    CHECK(vmm_at(&mem, r->dtb_gpa, r->dtb_len) != NULL);
    CHECK_EQ(fdt_check_full(at(r->dtb_gpa), r->dtb_len), 0);
    CHECK(r->dtb_gpa >= r->kernel_end || r->dtb_gpa + r->dtb_len <= r->kernel_gpa);
    CHECK(vmm_at(&mem, r->kernel_gpa, r->kernel_end - r->kernel_gpa) != NULL);
    CHECK_EQ(!r->initrd_gpa, !d->initrd.len);
    if (!r->initrd_gpa)
        return;
    CHECK(r->initrd_gpa >= r->kernel_end || initrd_end <= r->kernel_gpa);
    CHECK(r->initrd_gpa >> 21 > r->dtb_gpa >> 21 || (initrd_end - 1) >> 21 < r->dtb_gpa >> 21);
    CHECK(initrd_end <= (r->kernel_gpa & ~(GIB - 1)) + 32 * GIB);
    CHECK(!memcmp(vmm_at(&mem, r->initrd_gpa, d->initrd.len), d->initrd.data, d->initrd.len));
}

static int load(const struct boot_desc *d, struct boot_result *r)
{
    int err = boot_linux(d, r);

    CHECK_EQ(-err, 0);
    if (err)
        fprintf(stderr, "  %s\n", said);
    else
        check_protocol(d, r);
    return err;
}

/* >>image */
static void test_image(void)
{
    static const struct {
        uint64_t base, len, offset, size, flags, gpa, end;
    } cases[] = {
        {1 << 30, 128 * MIB, 0, 0x30000, 10, 1 << 30, (1 << 30) + 0x30000},
        {1 << 30, 128 * MIB, 0, 0x30000, 0, 1 << 30, (1 << 30) + 0x30000},
        {1 << 30, 128 * MIB, 0x80000, 0x30000, 2, 0x40080000, 0x400b0000},
        {1 << 30, 128 * MIB, 0x1ff008, 0x1000, 8, 0x401ff008, 0x401ff008 + KERNEL_LEN},
        {1 << 30, 128 * MIB, 7, 0, 1, 0x40080000, 0x40080000 + KERNEL_LEN}, /* before 3.17 */
        {0, 128 * MIB, 0, 0x30000, 10, 0, 0x30000},
        {0x40100000, 128 * MIB, 0, 0x30000, 10, 0x40200000, 0x40230000},
        {1ull << 40, 64 * GIB, 0, 600 * MIB, 10, 1ull << 40, (1ull << 40) + 600 * MIB},
    };

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct boot_desc d;
        struct boot_result r;

        take_ram(cases[i].base, cases[i].len);
        d = desc_of(make_image(cases[i].offset, cases[i].size, cases[i].flags));
        if (load(&d, &r))
            continue;
        CHECK_EQ(r.format, BOOT_IMAGE);
        CHECK_EQ(r.kernel_gpa, cases[i].gpa);
        CHECK_EQ(r.kernel_end, cases[i].end);
        CHECK_EQ(r.arm64.pc, cases[i].gpa);
        CHECK(!memcmp(at(r.kernel_gpa), file, KERNEL_LEN));
        CHECK(cases[i].size > 512 * MIB || r.dtb_gpa + r.dtb_len <= cases[i].gpa + 512 * MIB);
    }
}

static void test_image_refused(void)
{
    static const struct {
        uint64_t offset, size, flags, granules;
        int err;
        const char *words;
    } cases[] = {
        {0, 0x30000, 1, 0, -ENOEXEC, "the-kernel: is a big-endian arm64 kernel"},
        {0, 0x30000, 4, 4 | 64, -ENOEXEC, "pages of 16 KiB"},
        {0, 0x30000, 6, 4 | 16, -ENOEXEC, "pages of 64 KiB"},
        {0, 0x30000, 2, 64, -ENOEXEC, "give a kernel for 64 KiB pages"},
        {0x200000, 0x30000, 2, 0, -ENOEXEC, "damaged"},
        {4, 0x30000, 2, 0, -ENOEXEC, "damaged"},
        {0, 1ull << 40, 2, 0, -ENOEXEC, "damaged"},
        {0, 128 * MIB, 2, 0, -ENOMEM, "give --mem 132M or more"},
        {0, 127 * MIB, 2, 0, -ENOMEM, "the-kernel: does not fit"},
    };

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct boot_desc d;
        struct boot_result r;

        take_ram(BASE, 128 * MIB);
        d = desc_of(make_image(cases[i].offset, cases[i].size, cases[i].flags));
        d.machine.arm64.granules = (unsigned)cases[i].granules;
        check_refused(boot_linux(&d, &r), cases[i].err, cases[i].words, cases[i].words);
    }
}

/* An Image with an EFI stub has PE sections, which say how long it is. */
static void test_truncated(void)
{
    uint64_t len = make_image(0, 0x30000, 10);
    struct boot_desc d;
    struct boot_result r;

    take_ram(BASE, 128 * MIB);
    memcpy(file, "MZ", 2);
    vmm_put32(file + 60, 64);
    memcpy(file + 64, "PE\0\0\x64\xaa\2\0", 8);
    vmm_put16(file + 84, 0xa0);
    vmm_put32(file + 88 + 0xa0 + 16, 0x1000);
    vmm_put32(file + 88 + 0xa0 + 20, 0x1000);
    vmm_put32(file + 88 + 0xa0 + 40 + 16, KERNEL_LEN - 0x2000);
    vmm_put32(file + 88 + 0xa0 + 40 + 20, 0x2000);
    d = desc_of(len);
    load(&d, &r);
    d = desc_of(len - 1);
    check_refused(boot_linux(&d, &r), -ENOEXEC, "is truncated: it has 144463 of at least 144464",
                  "short Image");
}

/* >>packed */
static void test_packed(void)
{
    static const uint64_t offsets[] = {0, 0x80000};
    static uint8_t image[KERNEL_LEN];

    for (unsigned i = 0; i < 6; i++) {
        struct boot_desc d;
        struct boot_result r;
        uint64_t len = make_image(offsets[i & 1], 0x30000, 10);

        memcpy(image, file, len);
        if (i < 4) {
            len = gzip(image, len, packed);
        } else {
            memcpy(packed, "\x28\xb5\x2f\xfd", 4);
            memcpy(packed + 4, image, len);
            len += 4;
        }
        if (i < 2)
            memcpy(file, packed, len);
        else
            len = make_zboot(i < 4 ? "gzip" : "zstd22", packed, len);
        take_ram(BASE, 128 * MIB);
        d = desc_of(len);
        if (load(&d, &r))
            continue;
        CHECK_EQ(r.format, BOOT_IMAGE);
        CHECK_EQ(r.arm64.pc, BASE + offsets[i & 1]);
        CHECK_EQ(r.kernel_end, BASE + offsets[i & 1] + 0x30000);
        CHECK(!memcmp(at(r.arm64.pc), image, KERNEL_LEN));
        CHECK_EQ(*at(BASE), offsets[i & 1] ? 0 : image[0]);
        CHECK_EQ(vmm_get32(at(BASE + 56)), offsets[i & 1] ? 0 : 0x644d5241);
    }
}

static void test_packed_refused(void)
{
    struct boot_desc d;
    struct boot_result r;
    uint64_t n;

    take_ram(BASE, 4 * MIB);
    n = gzip(file, make_image(0, 0x30000, 10), packed);
    memcpy(file, packed, n);
    d = desc_of(n - 20);
    check_refused(boot_linux(&d, &r), -ENOEXEC, "cannot be unpacked as gzip", "cut gzip");
    d = desc_of(n);
    d.unpack = NULL;
    check_refused(boot_linux(&d, &r), -ENOEXEC, "looks like gzip: decompress it first",
                  "no unpack");
    make_zboot("gzip", packed, n);
    d = desc_of(0x1000 + n - 1);
    check_refused(boot_linux(&d, &r), -ENOEXEC, "is truncated", "cut zboot");
    d = desc_of(make_zboot("xzkern", packed, n));
    check_refused(boot_linux(&d, &r), -ENOEXEC, "neither with gzip nor zstd", "xz zboot");
    d = desc_of(make_zboot("gzip", packed, n));
    vmm_put16(file + 68, 0x5064);
    check_refused(boot_linux(&d, &r), -ENOEXEC, "compressed EFI kernel for RISC-V", "RISC-V zboot");
    memset(file, 0, sizeof file);
    n = gzip(file, 0x10000, packed);
    memcpy(file, packed, n);
    d = desc_of(n);
    check_refused(boot_linux(&d, &r), -ENOEXEC, "holds no arm64 Image", "zeroes.gz");
    memset(file, 0, sizeof file);
    n = gzip(file, sizeof file, packed);
    memcpy(file, packed, n);
    take_ram(BASE + MIB, 4 * MIB);
    mem.range[0].len = 4 * MIB; /* of which 3 MiB are left */
    d = desc_of(n);
    check_refused(boot_linux(&d, &r), -ENOEXEC, "holds no arm64 Image", "zeroes.gz, little RAM");
    d.unpack = unpack;
    make_image(0x1ff000, 0x30000, 10);
    memset(packed, 0, sizeof packed);
    n = gzip(file, sizeof file, packed);
    memcpy(file, packed, n);
    take_ram(BASE + 2 * MIB - 4096, 4 * MIB);
    d = desc_of(n);
    check_refused(boot_linux(&d, &r), -ENOMEM, "does not fit into RAM", "moved up out of RAM");
}

/* >>elf */
static void test_elf(void)
{
    static const uint64_t VIRT = 0xffff800008000000;
    struct boot_desc d;
    struct boot_result r;

    take_ram(BASE, 128 * MIB);
    d = desc_of(make_vmlinux(VIRT, VIRT, true)); /* as Linux links it */
    if (!load(&d, &r)) {
        CHECK_EQ(r.format, BOOT_ELF64);
        CHECK_EQ(r.arm64.pc, BASE);
        CHECK_EQ(r.kernel_gpa, BASE);
        CHECK_EQ(r.kernel_end, BASE + 0x80000);
        CHECK(!memcmp(at(BASE), file + 0x10000, 0x18000));
        CHECK(!memcmp(at(BASE + 0x20000), file + 0x30000, 0x1000));
        CHECK_EQ(*at(BASE + 0x21000), 0);
    }
    take_ram(BASE, 128 * MIB);
    d = desc_of(make_vmlinux(VIRT, BASE + 0x300000, false)); /* a place of its own, virtual entry */
    vmm_put64(file + 24, VIRT + 0x40);
    if (!load(&d, &r)) {
        CHECK_EQ(r.arm64.pc, BASE + 0x300040);
        CHECK_EQ(r.kernel_gpa, BASE + 0x300000);
        CHECK_EQ(r.kernel_end, BASE + 0x329000);
        CHECK(!memcmp(at(BASE + 0x300000), file + 0x10000, 0x18000));
    }
    vmm_put64(file + 24, BASE + 0x300080); /* physical entry */
    if (!load(&d, &r))
        CHECK_EQ(r.arm64.pc, BASE + 0x300080);
    vmm_put64(file + 24, BASE + 0x400000);
    check_refused(boot_linux(&d, &r), -ENOEXEC, "no entry of use", "entry outside");
    d = desc_of(make_vmlinux(VIRT, VIRT, false));
    check_refused(boot_linux(&d, &r), -ENOEXEC, "belongs at 0xffff800008000000", "no header");
    d = desc_of(make_vmlinux(VIRT, BASE - 0x10000, false));
    check_refused(boot_linux(&d, &r), -ENOEXEC, "where this machine has no RAM", "below RAM");
    d = desc_of(make_vmlinux(VIRT, BASE + 128 * MIB - 0x28000, false));
    check_refused(boot_linux(&d, &r), -ENOMEM, "does not fit into RAM", "beyond RAM");
    vmm_put16(file + 18, 62);
    check_refused(boot_linux(&d, &r), -ENOEXEC, "ELF file for x86-64: give an arm64 kernel", "x86");
}

/* >>foreign: files that are no kernel for this machine are named */
static void test_foreign(void)
{
    static const struct {
        unsigned off;
        const char *bytes;
        unsigned n;
        const char *words;
    } cases[] = {
        {0, "\xfd\x37zXZ", 6, "looks like xz: decompress it first"},
        {0x202, "HdrS\x0f\2", 6, "is a bzImage, a kernel for x86: give an arm64 Image or vmlinux"},
        {56, "RSC\5", 4, "a kernel for RISC-V: give an arm64 Image"},
        {0, "070701", 6, "an initramfs (cpio archive)"},
        {0, "hello", 5, "is not a kernel: give an arm64 Image or vmlinux"},
        {0, "MZ", 2, "is an EFI program for an unknown machine: give an arm64 Image"},
    };
    struct boot_result r;

    take_ram(BASE, 128 * MIB);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct boot_desc d = desc_of(4096);
        memset(file, 0, 4096);
        vmm_put16(file + 0x1fe, i == 1 ? 0xaa55 : 0);
        memcpy(file + cases[i].off, cases[i].bytes, cases[i].n);
        check_refused(boot_linux(&d, &r), -ENOEXEC, cases[i].words, cases[i].words);
    }
    {
        struct boot_desc d = desc_of(0);
        check_refused(boot_linux(&d, &r), -ENOEXEC, "is empty", "empty");
        d = desc_of(make_image(0, 0x30000, 10));
        d.machine.arch = BOOT_ARCH_X86;
        check_refused(boot_linux(&d, &r), -ENOSYS, "without the loaders for x86", "x86 machine");
    }
}

/* >>initrd */
static void test_initrd(void)
{
    static const struct {
        uint64_t len, size, initrd, want; /* want 0: does not fit */
    } cases[] = {
        {128 * MIB, 32 * MIB, 5000, 126 * MIB - 8192},
        {128 * MIB, 32 * MIB, 94 * MIB, 32 * MIB},
        {128 * MIB, 32 * MIB, 94 * MIB + 1, 0},
        {130 * MIB + 4096, 32 * MIB, 96 * MIB, 32 * MIB},
        {2 * GIB, 32 * MIB, 5000, 510 * MIB - 8192},
        {2 * GIB, 32 * MIB, 600 * MIB, 2 * GIB - 600 * MIB},
        {64 * GIB, 32 * MIB, 600 * MIB, 32 * GIB - 600 * MIB},
        {64 * GIB, 600 * MIB, 5000, 32 * GIB - 8192}, /* the tree is at the end of RAM */
    };
    static uint8_t *rd;

    rd = mmap(NULL, 600 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
              -1, 0);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct boot_desc d;
        struct boot_result r;
        const void *p;
        int chosen, len;

        take_ram(BASE, cases[i].len);
        d = desc_of(make_image(0, cases[i].size, 10));
        rd[0] = 1;
        rd[cases[i].initrd - 1] = 2;
        d.initrd.data = rd;
        d.initrd.len = cases[i].initrd;
        if (!cases[i].want) {
            check_refused(boot_linux(&d, &r), -ENOMEM, "initrd: does not fit", "initrd");
            continue;
        }
        if (load(&d, &r))
            continue;
        CHECK_EQ(r.initrd_gpa, BASE + cases[i].want);
        chosen = fdt_path_offset(at(r.dtb_gpa), "/chosen");
        p = fdt_getprop(at(r.dtb_gpa), chosen, "linux,initrd-start", &len);
        CHECK(p && len == 8 && fdt64_ld(p) == r.initrd_gpa);
        p = fdt_getprop(at(r.dtb_gpa), chosen, "linux,initrd-end", &len);
        CHECK(p && len == 8 && fdt64_ld(p) == r.initrd_gpa + cases[i].initrd);
        madvise(rd, 600 * MIB, MADV_DONTNEED);
    }
    munmap(rd, 600 * MIB);
}

/* >>map: pages of a file appear without a copy */
static uint64_t mapped;

static int map(void *ctx, const struct boot_file *f, uint64_t off, uint64_t gpa, uint64_t len)
{
    (void)ctx;
    CHECK_EQ((off | gpa | len) % 4096, 0);
    memcpy(vmm_at(&mem, gpa, len), f->data + off, len < f->len - off ? len : f->len - off);
    mapped += len;
    return 0;
}

static void test_map(void)
{
    struct boot_desc d;
    struct boot_result r;

    take_ram(BASE, 128 * MIB);
    d = desc_of(make_image(0, 0x30000, 10));
    d.map = map;
    mapped = 0;
    if (!load(&d, &r))
        CHECK(!memcmp(at(BASE), file, KERNEL_LEN));
    CHECK_EQ(mapped, 0x24000);
}

/* >>tree */
static const void *prop(const void *fdt, const char *path, const char *name, int *len)
{
    int node = fdt_path_offset(fdt, path);
    const void *p = node < 0 ? NULL : fdt_getprop(fdt, node, name, len);

    if (!CHECK(p != NULL))
        fprintf(stderr, "  %s of %s\n", name, path);
    return p;
}

static void check_cells(const void *fdt, const char *path, const char *name, const uint32_t *want,
                        unsigned n)
{
    int len = 0;
    const fdt32_t *p = prop(fdt, path, name, &len);

    if (!p || !CHECK_EQ(len, n * 4))
        return;
    for (unsigned i = 0; i < n; i++)
        if (!CHECK_EQ(fdt32_to_cpu(p[i]), want[i]))
            fprintf(stderr, "  cell %u of %s of %s\n", i, name, path);
}

static void check_string(const void *fdt, const char *path, const char *name, const char *want)
{
    int len = 0;
    const char *p = prop(fdt, path, name, &len);

    if (p && !CHECK(!strcmp(p, want)))
        fprintf(stderr, "  %s of %s: %s\n", name, path, p);
}

#define CELLS(fdt, path, name, ...)                                                                \
    check_cells(fdt, path, name, (const uint32_t[]){__VA_ARGS__},                                  \
                sizeof(const uint32_t[]){__VA_ARGS__} / 4)

static uint32_t phandle(const void *fdt, const char *path)
{
    return fdt_get_phandle(fdt, fdt_path_offset(fdt, path));
}

/* dtc knows what a tree should look like: it has nothing to say. */
static void check_dtc(const void *fdt, uint64_t len, const char *what)
{
    char name[] = "/tmp/vmm-dtb-XXXXXX", cmd[128], out[256] = "";
    int fd = mkstemp(name);
    FILE *p;

    CHECK(write(fd, fdt, len) == (ssize_t)len);
    close(fd);
    snprintf(cmd, sizeof cmd, "dtc -I dtb -O dts -o /dev/null %s 2>&1", name);
    p = popen(cmd, "r");
    out[fread(out, 1, sizeof out - 1, p)] = 0;
    CHECK_EQ(pclose(p), 0);
    if (!CHECK(!out[0]))
        fprintf(stderr, "  %s: %s\n", what, out);
    unlink(name);
}

static const struct boot_pci pci = {.ecam = 0x3f000000,
                                    .mmio32 = 0x10000000,
                                    .mmio32_len = 0x2e000000,
                                    .mmio64 = 0x8000000000,
                                    .mmio64_len = 0x4000000000,
                                    .gsi = {3, 4, 5, 6}};

static void test_tree_v3(void)
{
    uint8_t entropy[BOOT_ENTROPY_LEN];
    struct boot_desc d;
    struct boot_result r;
    const void *fdt, *p;
    int len;

    take_ram(BASE, 128 * MIB);
    vmm_mem_add(&mem, 0x880000000, 128 * MIB, ram + 128 * MIB);
    d = desc_of(make_image(0, 0x30000, 10));
    for (unsigned i = 0; i < sizeof entropy; i++)
        entropy[i] = (uint8_t)(i + 1);
    d.entropy = entropy;
    d.machine.ncpus = 20;
    d.machine.pci = pci;
    d.machine.arm64.gic_its = 0x8080000;
    d.machine.arm64.pmu_ppi = 7;
    if (load(&d, &r))
        return;
    fdt = at(r.dtb_gpa);
    check_dtc(fdt, r.dtb_len, "GICv3");
    CHECK_EQ(r.dtb_len, fdt_totalsize(fdt));
    check_string(fdt, "/", "compatible", "linux,dummy-virt");
    CELLS(fdt, "/", "interrupt-parent", phandle(fdt, "/interrupt-controller@8000000"));
    check_string(fdt, "/chosen", "bootargs", "console=ttyAMA0");
    check_string(fdt, "/chosen", "stdout-path", "/serial@9000000");
    p = prop(fdt, "/chosen", "kaslr-seed", &len);
    CHECK(p && len == 8 && !memcmp(p, entropy, 8));
    p = prop(fdt, "/chosen", "rng-seed", &len);
    CHECK(p && len == 64 && !memcmp(p, entropy + 8, 64));
    CELLS(fdt, "/memory@40000000", "reg", 0, 0x40000000, 0, 0x8000000);
    CELLS(fdt, "/memory@880000000", "reg", 8, 0x80000000, 0, 0x8000000);
    CELLS(fdt, "/cpus/cpu@103", "reg", 0x103);
    check_string(fdt, "/cpus/cpu@103", "enable-method", "psci");
    CELLS(fdt, "/cpus/cpu-map/cluster0/core19", "cpu", phandle(fdt, "/cpus/cpu@103"));
    CHECK(fdt_path_offset(fdt, "/cpus/cpu@104") < 0);
    check_string(fdt, "/psci", "method", "hvc");
    check_string(fdt, "/psci", "compatible", "arm,psci-1.0");
    CELLS(fdt, "/timer", "interrupts", 1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4);
    CELLS(fdt, "/pmu", "interrupts", 1, 7, 4);
    check_string(fdt, "/interrupt-controller@8000000", "compatible", "arm,gic-v3");
    CELLS(fdt, "/interrupt-controller@8000000", "reg", 0, 0x8000000, 0, 0x10000, 0, 0x80a0000, 0,
          0x280000);
    CELLS(fdt, "/interrupt-controller@8000000/msi-controller@8080000", "reg", 0, 0x8080000, 0,
          0x20000);
    CELLS(fdt, "/pcie@3f000000", "reg", 0, 0x3f000000, 0, 0x100000);
    CELLS(fdt, "/pcie@3f000000", "ranges", 0x02000000, 0, 0x10000000, 0, 0x10000000, 0, 0x2e000000,
          0x03000000, 0x80, 0, 0x80, 0, 0x40, 0);
    CELLS(fdt, "/pcie@3f000000", "msi-map", 0,
          phandle(fdt, "/interrupt-controller@8000000/msi-controller@8080000"), 0, 0x10000);
    CELLS(fdt, "/pcie@3f000000", "interrupt-map-mask", 0x1800, 0, 0, 7);
    p = prop(fdt, "/pcie@3f000000", "interrupt-map", &len);
    if (p && CHECK_EQ(len, 16 * 40)) { /* device 2, INTC#: (2 + 2) % 4 is the first line again */
        const fdt32_t *e = (const fdt32_t *)p + 10 * (2 * 4 + 2);
        CHECK_EQ(fdt32_to_cpu(e[0]), 2 << 11);
        CHECK_EQ(fdt32_to_cpu(e[3]), 3);
        CHECK_EQ(fdt32_to_cpu(e[8]), 3);
    }
}

static void test_tree_devices(void)
{
    struct boot_desc d;
    struct boot_result r;
    const void *fdt;

    take_ram(BASE, 128 * MIB);
    d = desc_of(make_image(0, 0x30000, 10));
    d.machine.ncpus = 4;
    d.machine.pci = pci;
    d.machine.arm64 = (struct boot_arm64){.gic = 2,
                                          .gic_dist = 0x8000000,
                                          .gic_cpu = 0x8010000,
                                          .gic_v2m = 0x8020000,
                                          .v2m_spi = 48,
                                          .v2m_nspis = 64};
    if (load(&d, &r))
        return;
    fdt = at(r.dtb_gpa);
    check_dtc(fdt, r.dtb_len, "GICv2");
    CHECK(fdt_path_offset(fdt, "/pmu") < 0);
    CHECK(fdt_getprop(fdt, fdt_path_offset(fdt, "/chosen"), "rng-seed", NULL) == NULL);
    CELLS(fdt, "/timer", "interrupts", 1, 13, 0xf04, 1, 14, 0xf04, 1, 11, 0xf04, 1, 10, 0xf04);
    check_string(fdt, "/interrupt-controller@8000000", "compatible", "arm,cortex-a15-gic");
    CELLS(fdt, "/interrupt-controller@8000000", "reg", 0, 0x8000000, 0, 0x1000, 0, 0x8010000, 0,
          0x2000);
    CELLS(fdt, "/interrupt-controller@8000000/v2m@8020000", "arm,msi-base-spi", 80);
    CELLS(fdt, "/interrupt-controller@8000000/v2m@8020000", "arm,msi-num-spis", 64);
    CELLS(fdt, "/pcie@3f000000", "msi-parent",
          phandle(fdt, "/interrupt-controller@8000000/v2m@8020000"));
    check_string(fdt, "/serial@9000000", "compatible", "arm,pl011");
    CELLS(fdt, "/serial@9000000", "interrupts", 0, 1, 4);
    CELLS(fdt, "/serial@9000000", "clocks", phandle(fdt, "/apb-clock"), phandle(fdt, "/apb-clock"));
    check_string(fdt, "/rtc@9010000", "compatible", "arm,pl031");
    CELLS(fdt, "/rtc@9010000", "interrupts", 0, 2, 4);
    check_string(fdt, "/gpio@9030000", "compatible", "arm,pl061");
    CELLS(fdt, "/gpio-keys/poweroff", "gpios", phandle(fdt, "/gpio@9030000"), 3, 0);
    CELLS(fdt, "/gpio-keys/poweroff", "linux,code", 116);
    check_string(fdt, "/serial@9040000", "compatible", "ns16550a");
    check_string(fdt, "/virtio_mmio@a000000", "compatible", "virtio,mmio");
    CELLS(fdt, "/virtio_mmio@a000000", "reg", 0, 0xa000000, 0, 0x200);
    CELLS(fdt, "/virtio_mmio@a000000", "interrupts", 0, 16, 1);
}

/* A GICv3 without an ITS has the frame, too. */
static void test_gicv3_frame(void)
{
    struct boot_desc d;
    struct boot_result r;
    const void *fdt;

    take_ram(BASE, 128 * MIB);
    d = desc_of(make_image(0, 0x30000, 10));
    d.machine.pci = pci;
    d.machine.arm64.gic_v2m = 0x8020000;
    d.machine.arm64.v2m_spi = 64;
    d.machine.arm64.v2m_nspis = 256;
    if (load(&d, &r))
        return;
    fdt = at(r.dtb_gpa);
    check_dtc(fdt, r.dtb_len, "GICv3 with a frame");
    check_string(fdt, "/interrupt-controller@8000000", "compatible", "arm,gic-v3");
    CELLS(fdt, "/interrupt-controller@8000000/v2m@8020000", "arm,msi-base-spi", 96);
    CELLS(fdt, "/pcie@3f000000", "msi-parent",
          phandle(fdt, "/interrupt-controller@8000000/v2m@8020000"));
    CHECK(fdt_getprop(fdt, fdt_path_offset(fdt, "/pcie@3f000000"), "msi-map", NULL) == NULL);
}

/* The smallest machine, and the largest tree. */
static void test_tree_sizes(void)
{
    static struct boot_dev many[20000];
    struct boot_desc d;
    struct boot_result r;

    take_ram(0x80000000, 128 * MIB);
    d = desc_of(make_image(0, 0x30000, 10));
    d.machine.ndevs = 0;
    d.cmdline = NULL;
    if (!load(&d, &r)) {
        check_dtc(at(r.dtb_gpa), r.dtb_len, "smallest");
        CHECK(fdt_path_offset(at(r.dtb_gpa), "/apb-clock") < 0);
    }
    d.machine.ncpus = 512;
    if (!load(&d, &r))
        check_dtc(at(r.dtb_gpa), r.dtb_len, "512 CPUs");
    for (unsigned i = 0; i < 20000; i++)
        many[i] = (struct boot_dev){BOOT_DEV_VIRTIO_MMIO, 0xa000000 + 0x200 * i, 0x200, 16};
    d.machine.devs = many;
    d.machine.ndevs = 20000;
    check_refused(boot_linux(&d, &r), -EINVAL, "device tree cannot be made: FDT_ERR_NOSPACE",
                  "20000 devices");
}

/* >>own: a tree that the caller brings */
static void test_own_tree(void)
{
    static uint8_t own[4096];
    struct boot_desc d;
    struct boot_result r;
    const void *fdt;
    int node;

    CHECK_EQ(fdt_create_empty_tree(own, sizeof own), 0);
    fdt_setprop_string(own, 0, "model", "mine");
    take_ram(BASE, 128 * MIB);
    d = desc_of(make_image(0, 0x30000, 10));
    d.dtb = (struct boot_file){own, sizeof own, "my.dtb"};
    d.initrd = (struct boot_file){own, 100, NULL};
    if (!load(&d, &r)) { /* it has no /chosen */
        fdt = at(r.dtb_gpa);
        check_string(fdt, "/", "model", "mine");
        check_string(fdt, "/chosen", "bootargs", "console=ttyAMA0");
        CELLS(fdt, "/chosen", "linux,initrd-start", 0, (uint32_t)r.initrd_gpa);
        CHECK(fdt_path_offset(fdt, "/cpus") < 0);
        CHECK(r.dtb_len < 400);
    }
    node = fdt_add_subnode(own, 0, "chosen");
    fdt_setprop_string(own, node, "bootargs", "its own");
    fdt_setprop_u64(own, node, "linux,initrd-start", 1);
    fdt_setprop_u64(own, node, "linux,initrd-end", 2);
    d.cmdline = NULL;
    d.initrd.len = 0;
    if (!load(&d, &r)) {
        fdt = at(r.dtb_gpa);
        check_string(fdt, "/chosen", "bootargs", "its own");
        CHECK(!fdt_getprop(fdt, fdt_path_offset(fdt, "/chosen"), "linux,initrd-start", NULL));
    }
    d.dtb.len = 100;
    check_refused(boot_linux(&d, &r), -ENOEXEC, "my.dtb: is no device tree, or damaged", "cut");
    d.dtb = (struct boot_file){file, 4096, NULL};
    check_refused(boot_linux(&d, &r), -ENOEXEC, "device tree: is no device tree", "not a tree");
    d.dtb.len = MIB + 1;
    check_refused(boot_linux(&d, &r), -E2BIG, "a device tree at most 1 MiB", "long");
}

/* >>machine */
static void test_machine_refused(void)
{
    static const struct boot_dev rtc = {BOOT_DEV_RTC, 0x70, 2, 0},
                                 line = {BOOT_DEV_UART, 0, 8, 988},
                                 wraps = {BOOT_DEV_UART, ~0ull, 8, 9};
    static char cmdline[2049];
    struct boot_result r;

    take_ram(BASE, 128 * MIB);
    memset(cmdline, 'a', 2048);
    for (unsigned i = 0; i < 11; i++) {
        struct boot_desc d = desc_of(make_image(0, 0x30000, 10));
        static const char *const words[] = {
            "0 CPUs",  "GICv4", "at most 8 CPUs", "device 0", "device 0",    "device 0",
            "PCI bus", "PCI",   "command line",   "entry",    "load address"};
        const struct boot_dev *bad[] = {&rtc, &line, &wraps};

        d.machine.ncpus = i == 0 ? 0 : i == 2 ? 9 : 1;
        d.machine.arm64.gic = i == 1 ? 4 : i == 2 ? 2 : 3;
        if (i >= 3 && i <= 5) {
            d.machine.devs = bad[i - 3];
            d.machine.ndevs = 1;
        }
        if (i == 6 || i == 7)
            d.machine.pci = pci;
        if (i == 6)
            d.machine.pci.ecam += 4096;
        if (i == 7)
            d.machine.pci.gsi[3] = 988;
        if (i == 8)
            d.cmdline = cmdline;
        d.entry = i == 9 ? BOOT_ENTRY_PVH : BOOT_ENTRY_AUTO;
        d.load_addr = i == 10 ? BASE : 0;
        check_refused(boot_linux(&d, &r), i == 8 ? -E2BIG : -EINVAL, words[i], words[i]);
    }
    cmdline[2047] = 0;
    {
        struct boot_desc d = desc_of(make_image(0, 0x30000, 10));
        d.cmdline = cmdline;
        load(&d, &r);
        mem.nranges = 0;
        check_refused(boot_linux(&d, &r), -ENOMEM, "--mem 128M", "no RAM");
    }
}

/* >>flat */
static void test_flat(void)
{
    static const struct {
        uint64_t load, entry, len;
        unsigned mode;
        int err;
        const char *words;
    } cases[] = {
        {0x40001000, 0x40001000, 64, 0, 0, ""},
        {0x40001000, 0x4000103c, 64, 64, 0, ""},
        {0x47ffffc0, 0x47ffffc0, 64, 0, 0, ""},
        {0x47ffffc4, 0x47ffffc4, 64, 0, -ENOMEM, "--mem 129M"},
        {0x3ffff000, 0x3ffff000, 64, 0, -EINVAL, "outside RAM"},
        {0x48000000, 0x48000000, 64, 0, -EINVAL, "outside RAM"},
        {0x40001000, 0x40001040, 64, 0, -EINVAL, "entry"},
        {0x40001000, 0x40000ffc, 64, 0, -EINVAL, "entry"},
        {0x40001000, 0x40001002, 64, 0, -EINVAL, "no multiple of 4"},
        {0x40001000, 0x40001000, 64, 32, -EINVAL, "mode 32"},
        {0x40001000, 0x40001000, 0, 0, -ENOEXEC, "is empty"},
    };

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct boot_flat_desc d = {&mem,          {file, cases[i].len, "bin"},
                                   cases[i].load, cases[i].entry,
                                   cases[i].mode, &sink_log};
        struct vmm_arm64_regs r;
        int err;

        take_ram(BASE, 128 * MIB);
        make_image(1, 2, 3);
        err = boot_flat_arm64(&d, &r);
        if (cases[i].err) {
            check_refused(err, cases[i].err, cases[i].words, cases[i].words);
            continue;
        }
        CHECK_EQ(-err, 0);
        CHECK_EQ(r.pc, cases[i].entry);
        CHECK_EQ(r.sp_el1, 0x48000000);
        CHECK_EQ(r.pstate, 0x3c5);
        CHECK(!memcmp(at(cases[i].load), file, 64));
    }
}

/* Real kernels: what is in the file, and what a machine of 1 GiB makes of it. */
static int load_real(const char *name)
{
    FILE *f = fopen(name, "rb");
    static uint8_t *real;
    struct boot_desc d = desc_of(0);
    struct boot_result r;
    int err;

    if (!f)
        return perror(name), 1;
    real = realloc(real, 256 * MIB);
    d.kernel = (struct boot_file){real, fread(real, 1, 256 * MIB, f), name};
    fclose(f);
    take_ram(BASE, GIB);
    err = boot_linux(&d, &r);
    if (err)
        printf("%s (%d)\n", said, err);
    else
        printf("%s: format %d, 0x%llx-0x%llx, entry 0x%llx, code %08x %08x, tree of %llu bytes\n",
               name, r.format, (unsigned long long)r.kernel_gpa, (unsigned long long)r.kernel_end,
               (unsigned long long)r.arm64.pc, vmm_get32(at(r.arm64.pc)),
               vmm_get32(at(r.arm64.pc + 4)), (unsigned long long)r.dtb_len);
    return err != 0;
}

int main(int argc, char **argv)
{
    int failed = 0;

    ram = mmap(NULL, 64 * GIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
               -1, 0);
    if (ram == MAP_FAILED)
        return perror("mmap"), 1;
    if (argc > 1) {
        for (int i = 1; i < argc; i++)
            failed |= load_real(argv[i]);
        return failed;
    }
    test_image();
    test_image_refused();
    test_truncated();
    test_packed();
    test_packed_refused();
    test_elf();
    test_foreign();
    test_initrd();
    test_map();
    test_tree_v3();
    test_tree_devices();
    test_gicv3_frame();
    test_tree_sizes();
    test_own_tree();
    test_machine_refused();
    test_flat();
    CHECK_DONE("test_boot_arm64");
}
