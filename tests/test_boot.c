/* test_boot.c - the loaders of boot.h on kernels made here, byte by byte   MIT licence, see LICENSE

   test_boot            runs the checks
   test_boot DIR        writes DSDT.dat, FACP.dat and APIC.dat of a full machine to DIR, so that
                        `iasl -d DSDT.dat && iasl DSDT.dsl` can judge them */
#define BOOT_IMPLEMENTATION
#include "../boot.h"
#include "check.h"

#include <stdlib.h>

enum { MIB = 1 << 20, RAM = 64 * MIB, SETUP = 0x400, PAYLOAD = 0x2340, PREF = 0x400000 };

static uint8_t ram[RAM];
static uint8_t file[64 * 1024];
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

/* >>kernels */
static uint64_t make_bzimage(void)
{
    memset(file, 0, sizeof file);
    for (unsigned i = 0; i < PAYLOAD; i++)
        file[SETUP + i] = (uint8_t)(i * 7 + i / 256 + 1);
    file[0x1f1] = SETUP / 512 - 1;
    vmm_put32(file + 0x1f4, PAYLOAD / 16);
    vmm_put16(file + 0x1fe, 0xaa55);
    file[0x200] = 0xeb;
    file[0x201] = 0x6a;
    memcpy(file + 0x202, "HdrS", 4);
    vmm_put16(file + 0x206, 0x20f);
    file[0x211] = 1;
    vmm_put32(file + 0x22c, 0x7fffffff);
    vmm_put32(file + 0x230, 0x200000);
    file[0x234] = 1;
    vmm_put16(file + 0x236, 1);
    vmm_put32(file + 0x238, 255);
    vmm_put64(file + 0x258, PREF);
    vmm_put32(file + 0x260, 0x300000);
    return SETUP + PAYLOAD;
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

enum { NOTE = 0x218 }; /* where PVH's note is */

/* Like vmlinux: two segments with virtual addresses high up, a start address that is physical,
   notes of which the second is PVH's. */
static uint64_t make_vmlinux(void)
{
    static const uint8_t notes[] = "\4\0\0\0\5\0\0\0\1\0\0\0GNU\0abcde\0\0\0"
                                   "\4\0\0\0\10\0\0\0\22\0\0\0Xen\0\120\0\20\0\0\0\0";

    memset(file, 0, sizeof file);
    for (unsigned i = 0x1000; i < 0x6123; i++)
        file[i] = (uint8_t)(i * 5 + i / 256 + 1);
    memcpy(file, "\x7f\x45LF\2\1\1", 7);
    vmm_put16(file + 16, 2);
    vmm_put16(file + 18, 62);
    vmm_put64(file + 24, 0x100040);
    vmm_put64(file + 32, 64);
    vmm_put16(file + 54, 56);
    vmm_put16(file + 56, 3);
    put_ph(0, (struct ph){1, 0x1000, 0xffffffff81000000, 0x100000, 0x2800, 0x2800});
    put_ph(1, (struct ph){1, 0x3900, 0xffffffff81200000, 0x200900, 0x2823, 0x9000});
    put_ph(2, (struct ph){4, 0x200, 0, 0, sizeof notes, sizeof notes});
    memcpy(file + 0x200, notes, sizeof notes);
    return 0x6123;
}

static struct vmm_mem one_range(uint64_t len)
{
    struct vmm_mem mem = {0};
    vmm_mem_add(&mem, 0, len, ram);
    return mem;
}

static struct boot_desc desc_of(const struct vmm_mem *mem, uint64_t len)
{
    struct boot_desc d = {0};

    d.machine.mem = mem;
    d.machine.ncpus = 1;
    d.kernel.data = file;
    d.kernel.len = len;
    d.kernel.name = "the-kernel";
    d.cmdline = "console=ttyS0";
    d.log = &sink_log;
    sentences = 0;
    said[0] = 0;
    return d;
}

/* It failed as it should: this error, and one sentence with these words. */
static void check_refused(int err, int expect, const char *words, const char *what)
{
    if (!CHECK_EQ(err, expect) || !CHECK_EQ(sentences, 1) || !CHECK(strstr(said, words)))
        fprintf(stderr, "  %s: %s\n", what, said);
}

/* >>tests */
struct poke {
    const char *what;
    unsigned at, len;
    uint64_t value;
    int err;
    const char *words;
};

static void test_damaged_bzimage(void)
{
    static const struct poke pokes[] = {
        {"protocol 2.05", 0x206, 2, 0x205, -ENOEXEC, "boot protocol 2.05"},
        {"protocol 2.11", 0x206, 2, 0x20b, -ENOEXEC, "too old"},
        {"zImage", 0x211, 1, 0, -ENOEXEC, "damaged"},
        {"no payload", 0x1f4, 4, 0, -ENOEXEC, "damaged"},
        {"payload of 64 GiB", 0x1f4, 4, 0xffffffff, -ENOEXEC, "truncated"},
        {"setup of 128 KiB", 0x1f1, 1, 255, -ENOEXEC, "truncated"},
        {"alignment 0", 0x230, 4, 0, -ENOEXEC, "damaged"},
        {"alignment 3", 0x230, 4, 3, -ENOEXEC, "damaged"},
        {"short header", 0x201, 1, 0x20, -ENOEXEC, "damaged"},
        {"far too high", 0x258, 8, ~0ull, -EINVAL, "4 GiB"},
        {"in the BIOS", 0x258, 8, 0x1000, -EINVAL, "below 1 MiB"},
        {"init_size of 4 GiB", 0x260, 4, 0xffffffff, -ENOMEM, "4100 MiB"},
        {"init_size of 61 MiB", 0x260, 4, 61 << 20, -ENOMEM, "--mem 65M"},
        {"takes no command line", 0x238, 4, 0, -E2BIG, "13 bytes, the-kernel takes 0"},
        {"takes 12 bytes of it", 0x238, 4, 12, -E2BIG, "shorten"},
    };

    for (unsigned i = 0; i < sizeof pokes / sizeof pokes[0]; i++) {
        struct vmm_mem mem = one_range(RAM);
        struct boot_desc d = desc_of(&mem, make_bzimage());
        struct boot_result out;

        memcpy(file + pokes[i].at, &pokes[i].value, pokes[i].len);
        check_refused(boot_linux(&d, &out), pokes[i].err, pokes[i].words, pokes[i].what);
    }
}

static void test_damaged_elf(void)
{
    static const struct poke pokes[] = {
        {"big-endian", 5, 1, 2, -ENOEXEC, "big-endian"},
        {"32-bit", 4, 1, 1, -ENOEXEC, "32-bit ELF"},
        {"arm64", 18, 2, 183, -ENOEXEC, "for arm64"},
        {"unheard of", 18, 2, 4711, -ENOEXEC, "another architecture"},
        {"object file", 16, 2, 1, -ENOEXEC, "linked"},
        {"no program headers", 56, 2, 0, -ENOEXEC, "make no sense"},
        {"65535 of them", 56, 2, 65535, -ENOEXEC, "make no sense"},
        {"of odd size", 54, 2, 32, -ENOEXEC, "make no sense"},
        {"beyond the end", 32, 8, 0x6100, -ENOEXEC, "truncated"},
        {"far beyond the end", 32, 8, ~0ull, -ENOEXEC, "make no sense"},
        {"an interpreter", 64, 4, 3, -ENOEXEC, "a program, not a kernel"},
        {"segment beyond the end", 64 + 8, 8, 0x6000, -ENOEXEC, "truncated"},
        {"segment that wraps", 64 + 8, 8, ~0ull - 5, -ENOEXEC, "segment makes no sense"},
        {"more file than memory", 64 + 40, 8, 0x27ff, -ENOEXEC, "segment makes no sense"},
        {"memory that wraps", 64 + 40, 8, ~0ull, -ENOEXEC, "segment makes no sense"},
        {"below 1 MiB", 64 + 24, 8, 0xff000, -ENOEXEC, "above 1 MiB"},
        {"overlap", 64 + 24, 8, 0x1ff000, -ENOEXEC, "overlap at 0x200900"},
        {"too high", 120 + 24, 8, 0x8000000, -ENOMEM, "--mem 129M"},
        {"huge", 64 + 40, 8, 1ull << 40, -ENOEXEC, "overlap"},
        {"no entry", 24, 8, 7, 0, ""}, /* PVH */
    };

    for (unsigned i = 0; i < sizeof pokes / sizeof pokes[0]; i++) {
        struct vmm_mem mem = one_range(RAM);
        struct boot_desc d = desc_of(&mem, make_vmlinux());
        struct boot_result out;
        int err;

        memcpy(file + pokes[i].at, &pokes[i].value, pokes[i].len);
        err = boot_linux(&d, &out);
        if (pokes[i].err)
            check_refused(err, pokes[i].err, pokes[i].words, pokes[i].what);
        else
            CHECK(err == 0 && sentences == 0);
    }
}

/* What people hand over by mistake. */
static void test_not_a_kernel(void)
{
    static const struct {
        unsigned at, len;
        const char *bytes;
        const char *words;
    } files[] = {
        {0, 3, "\x1f\x8b\x08", "gzip: decompress"},
        {0, 6,
         "\xfd"
         "7zXZ",
         "xz: decompress"},
        {0, 4, "\x28\xb5\x2f\xfd", "zstd: decompress"},
        {0, 4, "\x02\x21\x4c\x18", "lz4: decompress"},
        {0, 4, "\x04\x22\x4d\x18", "lz4: decompress"},
        {0, 4, "BZh9", "bzip2: decompress"},
        {0, 5, "\x5d\0\0\x80\0", "lzma: decompress"},
        {0, 4, "\x89LZO", "lzop: decompress"},
        {56, 4, "ARM\x64", "arm64"},
        {56, 4, "RSC\5", "RISC-V"},
        {56, 4, "\xcd\x23\x82\x81", "LoongArch"},
        {36, 4, "\x18\x28\x6f\1", "32-bit ARM"},
        {0, 6, "070701", "initramfs"},
        {510, 2, "\x55\xaa", "boot sector"},
        {0, 2, "MZ", "EFI program"},
        {0, 9, "#!/bin/sh", "not a kernel"},
    };

    for (unsigned i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct boot_file f = {file, 4096, NULL};

        memset(file, 0, 4096);
        memcpy(file + files[i].at, files[i].bytes, files[i].len);
        sentences = 0;
        check_refused(boot_probe(&f, &sink_log), -ENOEXEC, files[i].words, files[i].words);
    }
}

static void test_efi_programs(void)
{
    struct boot_file f = {file, 4096, NULL};

    memset(file, 0, 4096);
    memcpy(file, "MZ\0\0zimg", 8);
    file[0x3c] = 0x40;
    memcpy(file + 0x40, "PE\0\0\x64\xaa", 6);
    sentences = 0;
    check_refused(boot_probe(&f, &sink_log), -ENOEXEC, "compressed EFI kernel for arm64", "zboot");
    vmm_put32(file + 0x3c, 4091); /* its machine number would end behind the file */
    sentences = 0;
    check_refused(boot_probe(&f, &sink_log), -ENOEXEC, "unknown machine", "cut PE header");
}

/* Cut after every byte, each kind of kernel is refused with one sentence; whole, it boots. The file
   lies at the very end of a block of its size, for the address sanitizer's sake. */
static void test_truncated(void)
{
    static const enum boot_entry entries[] = {BOOT_ENTRY_64, BOOT_ENTRY_AUTO, BOOT_ENTRY_PVH};

    for (unsigned kind = 0; kind < 3; kind++) {
        uint64_t whole = kind ? make_vmlinux() : make_bzimage();
        struct vmm_mem mem = one_range(RAM);

        for (uint64_t len = 0; len <= whole; len++) {
            struct boot_desc d = desc_of(&mem, len);
            struct boot_result out;
            uint8_t *cut = malloc(len ? len : 1);
            bool complete = len + (kind ? 0 : 15) >= whole; /* a paragraph may lack its end */
            int err;

            memcpy(cut, file, len);
            d.kernel.data = cut;
            d.entry = entries[kind];
            err = boot_linux(&d, &out);
            free(cut);
            if (complete ? err != 0 : err != -ENOEXEC || sentences != 1)
                CHECK_EQ(len, whole); /* says which */
        }
        CHECK_EQ(boot_probe(&(struct boot_file){file, whole, NULL}, NULL),
                 kind ? BOOT_ELF64 : BOOT_BZIMAGE);
    }
}

static void test_entries(void)
{
    static const struct {
        const char *what;
        uint64_t e_entry;
        bool note;
        enum boot_entry entry;
        int err;
        enum boot_format format;
        uint64_t rip;
    } cases[] = {
        {"vmlinux", 0x100040, true, BOOT_ENTRY_AUTO, 0, BOOT_ELF64, 0x100040},
        {"vmlinux by PVH", 0x100040, true, BOOT_ENTRY_PVH, 0, BOOT_PVH, 0x100050},
        {"virtual entry", 0xffffffff81000010, true, BOOT_ENTRY_AUTO, 0, BOOT_PVH, 0x100050},
        {"virtual entry, forced", 0xffffffff81000010, true, BOOT_ENTRY_64, -EINVAL, BOOT_NONE, 0},
        {"no note", 0x208fff, false, BOOT_ENTRY_AUTO, 0, BOOT_ELF64, 0x208fff},
        {"no note, PVH forced", 0x100040, false, BOOT_ENTRY_PVH, -EINVAL, BOOT_NONE, 0},
        {"nothing", 0x209900, false, BOOT_ENTRY_AUTO, -ENOEXEC, BOOT_NONE, 0},
    };

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vmm_mem mem = one_range(RAM);
        struct boot_desc d = desc_of(&mem, make_vmlinux());
        struct boot_result out = {0};

        vmm_put64(file + 24, cases[i].e_entry);
        if (!cases[i].note)
            file[NOTE + 12] = 'x'; /* "xen" */
        d.entry = cases[i].entry;
        if (!CHECK_EQ(boot_linux(&d, &out), cases[i].err) ||
            !CHECK_EQ(out.format, cases[i].format) || !CHECK_EQ(out.regs.rip, cases[i].rip) ||
            !CHECK_EQ(sentences, cases[i].err != 0))
            fprintf(stderr, "  %s: %s\n", cases[i].what, said);
    }
}

/* A note of identical virtual and physical addresses: PVH when there is a note. */
static void test_identity_elf(void)
{
    struct vmm_mem mem = one_range(RAM);
    struct boot_desc d = desc_of(&mem, make_vmlinux());
    struct boot_result out;

    put_ph(0, (struct ph){1, 0x1000, 0x100000, 0x100000, 0x2800, 0x2800});
    CHECK_EQ(boot_linux(&d, &out), 0);
    CHECK_EQ(out.format, BOOT_PVH);
    vmm_put32(file + NOTE + 4, 4); /* the short form of the note */
    CHECK_EQ(boot_linux(&d, &out), 0);
    CHECK_EQ(out.regs.rip, 0x100050);
    vmm_put32(file + NOTE + 4, 0x10000000); /* a note that leaves its segment */
    CHECK_EQ(boot_linux(&d, &out), 0);
    CHECK_EQ(out.format, BOOT_ELF64);
}

#define LOW (MIB + SETUP % 4096) /* where file pages can be mapped and are only read */

static void test_placement(void)
{
    static const struct {
        const char *what;
        uint64_t ram, initrd, load;
        uint8_t relocatable;
        int err;
        uint64_t gpa, end, initrd_gpa;
        const char *words;
    } cases[] = {
        {"plain", RAM, 0, 0, 1, 0, LOW, 0x700000, 0, ""},
        {"initrd", RAM, 5000, 0, 1, 0, LOW, 0x700000, RAM - 8192, ""},
        {"not relocatable", RAM, 0, 0, 0, 0, PREF, 0x700000, 0, ""},
        {"elsewhere", RAM, 0, 0x500000, 1, 0, 0x500000, 0x900000, 0, ""},
        {"below its place", RAM, 0, 0x100000, 1, 0, 0x100000, 0x700000, 0, ""},
        {"cannot go elsewhere", RAM, 0, 0x500000, 0, -EINVAL, 0, 0, 0, "must be 0x400000"},
        {"load beyond RAM", RAM, 0, RAM, 1, -EINVAL, 0, 0, 0, "outside RAM"},
        {"load beyond 4 GiB", RAM, 0, 1ull << 32, 1, -EINVAL, 0, 0, 0, "not below 4 GiB"},
        {"load in the tables", RAM, 0, 0x8000, 1, -EINVAL, 0, 0, 0, "below 1 MiB"},
        {"load at the end", RAM, 0, RAM - 4096, 1, -ENOMEM, 0, 0, 0, "--mem 67M"},
        {"just enough RAM", 7 * MIB, 0, 0, 1, 0, LOW, 0x700000, 0, ""},
        {"one page short", 7 * MIB - 4096, 0, 0, 1, -ENOMEM, 0, 0, 0, "give --mem 7M"},
        {"initrd below", 7 * MIB, 2 * MIB, 0x300000, 1, 0, 0x300000, 0x700000, 0x100000, ""},
        {"no room for an initrd", 7 * MIB, 2 * MIB, 0, 1, -ENOMEM, 0, 0, 0, "give --mem 9M"},
        {"initrd just above", 9 * MIB, 2 * MIB, 0, 1, 0, LOW, 0x700000, 0x700000, ""},
        {"initrd too large", 9 * MIB, 4 * MIB, 0, 1, -ENOMEM, 0, 0, 0, "give --mem 11M"},
        {"initrd beyond RAM", RAM, RAM + 1, 0, 1, -ENOMEM, 0, 0, 0, "initrd: does not fit"},
        {"less than 1 MiB", 4096, 0, 0, 1, -ENOMEM, 0, 0, 0, "give --mem 7M"},
        {"odd RAM", RAM - 100, 100, 0, 1, 0, LOW, 0x700000, RAM - 8192, ""},
    };
    static uint8_t initrd[RAM + 1];

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vmm_mem mem = one_range(cases[i].ram);
        struct boot_desc d = desc_of(&mem, make_bzimage());
        struct boot_result out = {0};

        d.initrd = (struct boot_file){initrd, cases[i].initrd, NULL};
        d.load_addr = cases[i].load;
        file[0x234] = cases[i].relocatable;
        if (!CHECK_EQ(boot_linux(&d, &out), cases[i].err) ||
            !CHECK_EQ(sentences, cases[i].err != 0) || !CHECK(strstr(said, cases[i].words)) ||
            !CHECK_EQ(out.kernel_gpa, cases[i].gpa) || !CHECK_EQ(out.kernel_end, cases[i].end) ||
            !CHECK_EQ(out.initrd_gpa, cases[i].initrd_gpa))
            fprintf(stderr, "  %s: %s\n", cases[i].what, said);
        else if (!cases[i].err)
            CHECK(!memcmp(ram + out.kernel_gpa, file + SETUP, PAYLOAD));
    }
}

/* A kernel that does not fit below its preferred address comes close to it. */
static void test_placement_of_large(void)
{
    struct vmm_mem mem = one_range(RAM);
    struct boot_desc d = desc_of(&mem, make_bzimage());
    struct boot_result out = {0};

    vmm_put64(file + 0x258, MIB + 0x2000);
    CHECK_EQ(boot_linux(&d, &out), 0);
    CHECK_EQ(out.kernel_gpa % 4096, SETUP % 4096);
    CHECK(out.kernel_gpa < MIB + 0x2000 && out.kernel_gpa + 4096 >= MIB + 0x2000);
}

/* An initrd stays where the kernel looks for it. */
static void test_initrd_limit(void)
{
    struct vmm_mem mem = one_range(RAM);
    struct boot_desc d = desc_of(&mem, make_bzimage());
    struct boot_result out;
    static uint8_t initrd[4 * MIB];

    d.initrd = (struct boot_file){initrd, 3 * MIB, "rd"};
    vmm_put32(file + 0x22c, 11 * MIB - 1);
    CHECK_EQ(boot_linux(&d, &out), 0);
    CHECK_EQ(out.initrd_gpa, 8 * MIB);
    d.initrd.len = sizeof initrd;
    vmm_put32(file + 0x22c, 8 * MIB - 1);
    check_refused(boot_linux(&d, &out), -ENOMEM, "rd: does not fit below 8 MiB", "limit");
}

/* What a mapping of file pages does, done by copying; refuses when ctx says so. */
static struct {
    unsigned calls;
    uint64_t bytes;
    bool refuse;
} mapper;

static int map_pages(void *ctx, const struct boot_file *f, uint64_t off, uint64_t gpa, uint64_t len)
{
    struct vmm_mem *mem = ctx;
    uint8_t *at = vmm_at(mem, gpa, len);

    CHECK(at && len && (off | gpa | len) % 4096 == 0 && off < f->len && len - 4096 < f->len - off);
    mapper.calls++;
    if (mapper.refuse)
        return -ENOSYS;
    mapper.bytes += len;
    memset(at, 0, len);
    memcpy(at, f->data + off, len < f->len - off ? len : f->len - off);
    return 0;
}

static void test_mapping(void)
{
    static const struct {
        const char *what;
        bool elf, refuse;
        uint64_t load;
        unsigned calls;
        uint64_t bytes;
    } cases[] = {
        {"bzImage and initrd, all pages", false, false, 0, 2, 0x3000 + 0x3000},
        {"refused", false, true, 0, 2, 0},
        {"bzImage at a place of no use", false, false, 0x500000, 1, 0x3000},
        {"ELF: whole pages only", true, false, 0, 3, 0x2000 + 0x2000 - 0x1000 + 0x1000 + 0x3000},
    };
    static uint8_t initrd[0x2001];

    memset(initrd, 0x5a, sizeof initrd);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vmm_mem mem = one_range(RAM);
        struct boot_desc d = desc_of(&mem, cases[i].elf ? make_vmlinux() : make_bzimage());
        struct boot_result out;

        memset(ram, 0, sizeof ram);
        memset(&mapper, 0, sizeof mapper);
        mapper.refuse = cases[i].refuse;
        d.map = map_pages;
        d.ctx = &mem;
        d.load_addr = cases[i].load;
        d.initrd = (struct boot_file){initrd, sizeof initrd, NULL};
        CHECK_EQ(boot_linux(&d, &out), 0);
        if (!CHECK_EQ(mapper.calls, cases[i].calls) || !CHECK_EQ(mapper.bytes, cases[i].bytes))
            fprintf(stderr, "  %s\n", cases[i].what);
        CHECK(!memcmp(ram + out.initrd_gpa, initrd, sizeof initrd));
        if (cases[i].elf) {
            CHECK(!memcmp(ram + 0x100000, file + 0x1000, 0x2800) && !ram[0x102800]);
            CHECK(!memcmp(ram + 0x200900, file + 0x3900, 0x2823) && !ram[0x203123]);
            CHECK(!ram[0x2008ff]);
        } else {
            CHECK(!memcmp(ram + out.kernel_gpa, file + SETUP, PAYLOAD));
        }
    }
}

/* Fresh RAM is touched in a few pages only, when file pages are not copied. */
static int map_nothing(void *ctx, const struct boot_file *f, uint64_t off, uint64_t gpa,
                       uint64_t len)
{
    (void)ctx, (void)f, (void)off, (void)gpa, (void)len;
    return 0;
}

static void test_frugal(void)
{
    struct vmm_mem mem = one_range(RAM);
    struct boot_desc d = desc_of(&mem, make_bzimage());
    struct boot_result out;
    unsigned pages = 0;

    memset(ram, 0, sizeof ram);
    d.map = map_nothing;
    d.machine.reset_port = 0x604;
    CHECK_EQ(boot_linux(&d, &out), 0);
    for (unsigned at = 0; at < RAM; at += 4096)
        pages += ram[at] != 0 || memcmp(ram + at, ram + at + 1, 4095) != 0;
    CHECK_EQ(pages, 1 + 6 + 1 + 1); /* zero page, page tables, GDT and command line, tables */
}

static void test_zero_page(void)
{
    struct vmm_mem mem = one_range(RAM - 2 * MIB);
    struct boot_desc d = desc_of(&mem, make_bzimage());
    struct boot_result out;
    const uint8_t *zp = ram + BOOT_ZERO_PAGE, *e820 = zp + 0x2d0;
    static const uint64_t ranges[][3] = {
        {0, 0x9fc00, 1},          {0x9fc00, 0x400, 2},
        {0xe0000, 0x20000, 2},    {0x100000, RAM - 3 * MIB, 1},
        {1ull << 32, 2 * MIB, 1},
    };

    vmm_mem_add(&mem, 1ull << 32, 2 * MIB, ram + RAM - 2 * MIB);
    memset(ram, 0, sizeof ram);
    d.initrd = (struct boot_file){(const uint8_t *)"rd", 2, NULL};
    CHECK_EQ(boot_linux(&d, &out), 0);
    CHECK(!memcmp(zp + 0x230, file + 0x230, 0x26c - 0x230)); /* copied to its own end ... */
    CHECK_EQ(zp[0x1ef], 0);                                  /* ... and nothing before it */
    CHECK_EQ(zp[0x210], 0xff);
    CHECK_EQ(vmm_get32(zp + 0x228), BOOT_CMDLINE);
    CHECK(!strcmp((const char *)ram + BOOT_CMDLINE, "console=ttyS0"));
    CHECK_EQ(vmm_get32(zp + 0x218), RAM - 2 * MIB - 4096);
    CHECK_EQ(vmm_get32(zp + 0x21c), 2);
    CHECK_EQ(vmm_get64(zp + 0x70), out.rsdp);
    CHECK_EQ(zp[0x1e8], 5);
    for (unsigned i = 0; i < 5; i++) {
        CHECK_EQ(vmm_get64(e820 + 20 * i), ranges[i][0]);
        CHECK_EQ(vmm_get64(e820 + 20 * i + 8), ranges[i][1]);
        CHECK_EQ(vmm_get32(e820 + 20 * i + 16), ranges[i][2]);
    }
}

static void test_pvh_info(void)
{
    struct vmm_mem mem = one_range(RAM);
    struct boot_desc d = desc_of(&mem, make_vmlinux());
    struct boot_result out;
    const uint8_t *info = ram + BOOT_PVH_INFO;

    memset(ram, 0, sizeof ram);
    d.entry = BOOT_ENTRY_PVH;
    d.initrd = (struct boot_file){(const uint8_t *)"rd", 2, NULL};
    CHECK_EQ(boot_linux(&d, &out), 0);
    CHECK_EQ(out.regs.gpr[VMM_RBX], BOOT_PVH_INFO);
    CHECK_EQ(out.regs.cr0, 0x31);
    CHECK_EQ(out.regs.cs.attr, 0xc09b);
    CHECK_EQ(vmm_get32(info), 0x336ec578);
    CHECK_EQ(vmm_get32(info + 4), 1);
    CHECK_EQ(vmm_get32(info + 12), 1);
    CHECK_EQ(vmm_get64(ram + vmm_get64(info + 16)), out.initrd_gpa);
    CHECK_EQ(vmm_get64(ram + vmm_get64(info + 16) + 8), 2);
    CHECK(!strcmp((const char *)ram + vmm_get64(info + 24), "console=ttyS0"));
    CHECK_EQ(vmm_get64(info + 32), out.rsdp);
    CHECK_EQ(vmm_get32(info + 48), 4);
    CHECK_EQ(vmm_get64(ram + vmm_get64(info + 40) + 3 * 24), MIB);
    CHECK_EQ(vmm_get64(ram + vmm_get64(info + 40) + 3 * 24 + 8), RAM - MIB);
}

/* The address that the page tables lead to. */
static uint64_t translate(uint64_t cr3, uint64_t va)
{
    uint64_t e = cr3 | 1;

    for (unsigned shift = 39; shift >= 21; shift -= 9) {
        if (!(e & 1))
            return ~0ull;
        e = vmm_get64(ram + (e & ~0xfffull) + (va >> shift & 511) * 8);
    }
    return e & 0x80 ? (e & ~0x1fffffull) + (va & 0x1fffff) : ~0ull;
}

static void check_long_mode(const struct vmm_x86_regs *r)
{
    static const uint64_t va[] = {0, 0x1234, 0x40000000, 0xfee00000, 0xffffffff};

    CHECK_EQ(r->cr0 & 0x80000001, 0x80000001);
    CHECK_EQ(r->cr4, 0x20);
    CHECK_EQ(r->efer, 0x500);
    CHECK_EQ(r->rflags, 2);
    CHECK_EQ(r->cs.attr, 0xa09b);
    CHECK_EQ(vmm_get64(ram + r->gdt.base + r->cs.selector), 0x00af9b000000ffff);
    CHECK_EQ(vmm_get64(ram + r->gdt.base + r->ss.selector), 0x00cf93000000ffff);
    CHECK_EQ(r->tr.attr & 0x9f, 0x8b);
    for (unsigned i = 0; i < sizeof va / sizeof va[0]; i++)
        CHECK_EQ(translate(r->cr3, va[i]), va[i]);
    CHECK_EQ(translate(r->cr3, 1ull << 32), ~0ull);
}

/* >>tables */
static bool sums_up(const uint8_t *p, uint64_t len)
{
    uint8_t sum = 0;

    while (len--)
        sum = (uint8_t)(sum + *p++);
    return sum == 0;
}

/* The table at gpa, if its signature and checksum are right. */
static const uint8_t *table(uint64_t gpa, const char *sig)
{
    const uint8_t *t = ram + gpa;
    uint32_t len = vmm_get32(t + 4);

    if (CHECK(gpa >= BOOT_TABLES && gpa + len <= BOOT_RESET) && CHECK(!memcmp(t, sig, 4)) &&
        CHECK(sums_up(t, len)))
        return t;
    exit(1);
}

static const uint8_t *xsdt_entry(uint64_t rsdp, unsigned i, const char *sig)
{
    CHECK(rsdp % 16 == 0 && sums_up(ram + rsdp, 20) && sums_up(ram + rsdp, 36));
    CHECK_EQ(vmm_get32(table(vmm_get32(ram + rsdp + 16), "RSDT") + 36 + 4 * i),
             vmm_get64(table(vmm_get64(ram + rsdp + 24), "XSDT") + 36 + 8 * i));
    return table(vmm_get64(table(vmm_get64(ram + rsdp + 24), "XSDT") + 36 + 8 * i), sig);
}

/* CPUs in the MADT; its entries fill it exactly, ids count up. */
static unsigned madt_cpus(const uint8_t *madt)
{
    unsigned len = vmm_get32(madt + 4), n = 0, at = 44;

    for (; at + 2 <= len && madt[at + 1]; at += madt[at + 1]) {
        if (madt[at] == 0)
            CHECK_EQ(madt[at + 3], n++);
        else if (madt[at] == 9)
            CHECK_EQ(vmm_get32(madt + at + 4), n++);
        else
            CHECK_EQ(madt[at], 1);
    }
    CHECK_EQ(at, len);
    return n;
}

static const uint8_t *find_mp(void)
{
    uint64_t fp = BOOT_TABLES;
    const uint8_t *mp;

    while (fp < BOOT_RESET && memcmp(ram + fp, "_MP_", 4))
        fp += 16;
    mp = ram + vmm_get32(ram + fp + 4);
    CHECK(sums_up(ram + fp, 16) && !memcmp(mp, "PCMP", 4) && sums_up(mp, vmm_get16(mp + 4)));
    return mp;
}

/* CPUs in the MP table; its entries are as many as it says, and fill it. */
static unsigned mp_cpus(void)
{
    const uint8_t *mp = find_mp();
    unsigned n = 0, at = 44;

    for (unsigned i = 0; i < vmm_get16(mp + 34); i++) {
        n += mp[at] == 0;
        at += mp[at] == 0 ? 20 : 8;
    }
    CHECK_EQ(at, vmm_get16(mp + 4));
    return n;
}

static const struct boot_dev some_devs[] = {
    {BOOT_DEV_UART, 0x3f8, 8, 4},
    {BOOT_DEV_RTC, 0x70, 2, 8},
    {BOOT_DEV_VIRTIO_MMIO, 0xd0000000, 0x200, 6},
    {BOOT_DEV_VIRTIO_MMIO, 0xfffff000, 0x1000, 23},
};

static const struct boot_dev pc_devs[] = {{BOOT_DEV_UART, 0x3f8, 8, 4},
                                          {BOOT_DEV_UART, 0x2f8, 8, 3},
                                          {BOOT_DEV_UART, 0x3e8, 8, 4},
                                          {BOOT_DEV_PVPANIC, 0x505, 1, 0}};

static void fill_machine(struct boot_machine *m)
{
    m->devs = some_devs;
    m->ndevs = 4;
    m->power_gsi = 5;
    m->sleep_port = 0x600;
    m->reset_port = 0x602;
    m->reset_value = 0x42;
}

static void test_cpu_tables(void)
{
    static const struct {
        unsigned ncpus;
        int err;
    } cases[] = {{1, 0},    {2, 0},       {64, 0},         {254, 0},      {256, 0},
                 {1024, 0}, {0, -EINVAL}, {4096, -EINVAL}, {~0u, -EINVAL}};

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vmm_mem mem = one_range(RAM);
        struct boot_desc d = desc_of(&mem, make_bzimage());
        struct boot_result out;
        unsigned n = cases[i].ncpus;

        memset(ram, 0, MIB);
        fill_machine(&d.machine);
        d.machine.ncpus = n;
        if (cases[i].err) {
            check_refused(boot_linux(&d, &out), cases[i].err, "CPUs", "number of CPUs");
            continue;
        }
        CHECK_EQ(boot_linux(&d, &out), 0);
        CHECK_EQ(madt_cpus(xsdt_entry(out.rsdp, 1, "APIC")), n);
        CHECK_EQ(mp_cpus(), n < 254 ? n : 254);
        CHECK(!memcmp(ram + BOOT_RESET, "\xba\x02\x06\xb0\x42\xee\xfa\xf4\xeb\xfd", 10));
    }
}

/* One FADT with all registers, one with none. */
static void test_fadt(void)
{
    struct vmm_mem mem = one_range(RAM);
    struct boot_desc d = desc_of(&mem, make_bzimage());
    struct boot_result out;
    const uint8_t *fadt;

    fill_machine(&d.machine);
    CHECK_EQ(boot_linux(&d, &out), 0);
    fadt = xsdt_entry(out.rsdp, 0, "FACP");
    CHECK_EQ(vmm_get32(fadt + 4), 276);
    CHECK_EQ(vmm_get16(fadt + 109), 4); /* no VGA, no i8042, but an RTC */
    CHECK_EQ(vmm_get32(fadt + 112) & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10);
    CHECK_EQ(vmm_get64(fadt + 120), 0x602);
    CHECK_EQ(fadt[128], 0x42);
    CHECK_EQ(vmm_get64(fadt + 248), 0x600);
    CHECK_EQ(vmm_get64(fadt + 260), 0x601);

    memset(ram, 0, MIB);
    d.machine = (struct boot_machine){.mem = &mem, .ncpus = 1};
    CHECK_EQ(boot_linux(&d, &out), 0);
    fadt = xsdt_entry(out.rsdp, 0, "FACP");
    CHECK_EQ(vmm_get16(fadt + 109), 4 | 32);
    CHECK_EQ(vmm_get32(fadt + 112) & (1 << 20 | 1 << 10), 1 << 20);
    CHECK_EQ(vmm_get64(fadt + 120) | vmm_get64(fadt + 248) | ram[BOOT_RESET], 0);

    memset(ram, 0, MIB);
    d.machine.no_acpi = true;
    CHECK_EQ(boot_linux(&d, &out), 0);
    CHECK_EQ(out.rsdp, 0);
    CHECK_EQ(mp_cpus(), 1);
}

/* The entry of type 2 (an interrupt of ISA that goes elsewhere, or is not as ISA has them). */
static const uint8_t *madt_override(const uint8_t *madt)
{
    for (uint32_t at = 44; at < vmm_get32(madt + 4); at += madt[at + 1])
        if (madt[at] == 2)
            return madt + at;
    return NULL;
}

/* ACPI 6.3, 5.2.9 and 5.2.10: with registers, a FADT tells where, and there is a FACS. */
static void test_pm(void)
{
    struct vmm_mem mem = one_range(RAM);
    struct boot_desc d = desc_of(&mem, make_bzimage());
    struct boot_result out;
    const uint8_t *fadt, *facs, *madt;

    fill_machine(&d.machine);
    d.machine.pm_port = 0x600;
    d.machine.sci_gsi = 9;
    CHECK_EQ(boot_linux(&d, &out), 0);
    fadt = xsdt_entry(out.rsdp, 0, "FACP");
    facs = ram + vmm_get32(fadt + 36);
    CHECK(vmm_get32(fadt + 36) % 64 == 0 && !memcmp(facs, "FACS\x40\0\0\0", 8) && facs[32] == 2);
    CHECK_EQ(vmm_get16(fadt + 46), 9);
    CHECK_EQ(vmm_get32(fadt + 48), 0); /* no SMI command: always in ACPI's mode */
    CHECK_EQ(vmm_get32(fadt + 56), 0x600);
    CHECK_EQ(vmm_get32(fadt + 64), 0x604);
    CHECK_EQ(vmm_get32(fadt + 76), 0x608);
    CHECK(fadt[88] == 4 && fadt[89] == 2 && fadt[91] == 4);
    CHECK_EQ(vmm_get32(fadt + 60) | vmm_get32(fadt + 68) | vmm_get64(fadt + 80), 0);
    CHECK(vmm_get16(fadt + 96) > 100 && vmm_get16(fadt + 98) > 1000); /* no C2, no C3 */
    CHECK_EQ(fadt[108], 0x32);
    CHECK_EQ(vmm_get32(fadt + 112), 1 | 4 | 32 | 64 | 256 | 1 << 10);
    CHECK_EQ(vmm_get64(fadt + 248) | vmm_get64(fadt + 260), 0);
    madt = xsdt_entry(out.rsdp, 1, "APIC");
    CHECK_EQ(vmm_get32(madt + 40), 1); /* 8259s */
    CHECK(!memcmp(madt_override(madt), "\2\x0a\0\x09\x09\0\0\0\x0d\0", 10));

    memset(ram, 0, MIB);
    d.machine.pm_port = 0;
    CHECK_EQ(boot_linux(&d, &out), 0);
    CHECK(!madt_override(xsdt_entry(out.rsdp, 1, "APIC")));
    CHECK_EQ(vmm_get32(xsdt_entry(out.rsdp, 0, "FACP") + 36), 0);
}

/* The n-th byte string with these bytes in the DSDT, or NULL. */
static bool dsdt_has(const uint8_t *dsdt, const void *bytes, size_t len)
{
    for (uint32_t at = 36; at + len <= vmm_get32(dsdt + 4); at++)
        if (!memcmp(dsdt + at, bytes, len))
            return true;
    return false;
}

static uint32_t aml_len(const uint8_t *p)
{
    return (p[0] & 15) | (uint32_t)p[1] << 4 | (uint32_t)p[2] << 12;
}

/* The scope ends with the table, and its devices follow one another exactly. */
static void test_dsdt(void)
{
    struct vmm_mem mem = one_range(RAM);
    struct boot_desc d = desc_of(&mem, make_bzimage());
    struct boot_result out;
    const uint8_t *dsdt;
    uint32_t at = 36 + 13, end;
    unsigned devices = 0;

    fill_machine(&d.machine);
    CHECK_EQ(boot_linux(&d, &out), 0);
    dsdt = table(vmm_get64(xsdt_entry(out.rsdp, 0, "FACP") + 140), "DSDT");
    end = vmm_get32(dsdt + 4);
    CHECK(dsdt_has(dsdt, "\x08_S5_\x12\x07\x04\x0a\x05", 10));
    CHECK(dsdt[at] == 0x10 && at + 1 + aml_len(dsdt + at + 1) == end);
    for (at += 9; at + 5 < end && dsdt[at] == 0x5b; at += 2 + aml_len(dsdt + at + 2))
        devices++;
    CHECK_EQ(at, end);
    CHECK_EQ(devices, 6);                             /* and power button, event device */
    CHECK(dsdt_has(dsdt, "\x0c\x41\xd0\x05\x01", 5)); /* PNP0501 */
    CHECK(dsdt_has(dsdt, "\x47\1\xf8\3\xf8\3\1\x08\x89\6\0\3\1\4\0\0\0\x79", 18));
    CHECK(dsdt_has(dsdt, "LNRO0005", 9));
    CHECK(dsdt_has(dsdt, "\x86\x09\0\1\0\0\0\xd0\0\2\0\0\x89\6\0\3\1\6\0\0\0\x79", 22));
    CHECK(dsdt_has(dsdt, "_EVT\x09\x86\\._SB_PWRB\x0a\x80", 18));

    memset(ram, 0, MIB);
    d.machine.pm_port = 0x600;
    CHECK_EQ(boot_linux(&d, &out), 0);
    dsdt = table(vmm_get64(xsdt_entry(out.rsdp, 0, "FACP") + 140), "DSDT");
    CHECK(dsdt_has(dsdt, "\x08_S5_\x12\x06\x04\0\0\0\0\x10", 13));
    CHECK(!dsdt_has(dsdt, "PWRB", 4)); /* the button is one of the registers' */

    memset(ram, 0, MIB);
    d.machine.devs = pc_devs;
    d.machine.ndevs = 4;
    CHECK_EQ(boot_linux(&d, &out), 0);
    dsdt = table(vmm_get64(xsdt_entry(out.rsdp, 0, "FACP") + 140), "DSDT");
    CHECK(dsdt_has(dsdt, "\xf8\3\xf8\3\1\x08\x89\6\0\x0b\1\4\0\0\0\x79", 16)); /* shared: 4 */
    CHECK(dsdt_has(dsdt, "\xf8\2\xf8\2\1\x08\x89\6\0\x03\1\3\0\0\0\x79", 16)); /* not: 3 */
    CHECK(dsdt_has(dsdt, "\xe8\3\xe8\3\1\x08\x89\6\0\x0b\1\4\0\0\0\x79", 16));
    CHECK(dsdt_has(dsdt, "P003\x08_HID\x0dQEMU0001", 19));
    CHECK(dsdt_has(dsdt, "\x47\1\5\5\5\5\1\1\x79", 9));
}

static const struct boot_pci some_pci = {
    .ecam = 0xe0000000,
    .mmio32 = 0xc0000000,
    .mmio32_len = 0x10000000,
    .mmio64 = 0x1000000000,
    .mmio64_len = 0x1000000000,
    .gsi = {22, 23, 22, 21},
    .pic = {10, 11, 5, 7},
};

/* The line that the MP table gives to a pin of PCI bus 0; ~0: none, or more than one. */
static unsigned mp_pci_line(unsigned slot, unsigned pin)
{
    unsigned line = ~0u;
    const uint8_t *mp = find_mp(), *end = mp + vmm_get16(mp + 4);

    for (const uint8_t *e = mp + 44; e < end; e += *e ? 8 : 20)
        if (e[0] == 3 && e[4] == 0 && e[5] == (slot << 2 | pin)) {
            CHECK(e[1] == 0 && vmm_get16(e + 2) == 0 && line == ~0u);
            line = e[7];
        }
    return line;
}

/* The n-th package of interrupt lines in the DSDT, or NULL: as many packages as pins, each of the form
   that we know. */
static const uint8_t *find_prt(const uint8_t *dsdt, unsigned n)
{
    for (uint32_t at = 36; at + 5 + 124 * 13 <= vmm_get32(dsdt + 4); at++)
        if (dsdt[at] == 0x12 && dsdt[at + 4] == 124 && n-- == 0)
            return aml_len(dsdt + at + 1) == 4 + 124 * 13 ? dsdt + at + 5 : NULL;
    return NULL;
}

static void check_prt(const uint8_t *prt, const unsigned line[4], bool mp)
{
    for (unsigned i = 0; i < 124 && CHECK(prt); i++, prt += 13) {
        unsigned slot = 1 + i / 4, pin = i % 4, gsi = line[(slot + pin) % 4];
        CHECK_EQ(vmm_get32(prt + 4), slot << 16 | 0xffff);
        CHECK(prt[9] == pin && prt[12] == gsi);
        CHECK(!mp || mp_pci_line(slot, pin) == gsi);
    }
}

/* Each line has one owner: ISA (bus 1), or PCI. */
static void check_mp_isa(void)
{
    const uint8_t *mp = find_mp(), *end = mp + vmm_get16(mp + 4);
    uint32_t isa = 0;

    for (const uint8_t *e = mp + 44; e < end; e += *e ? 8 : 20) {
        if (e[0] == 1)
            CHECK(!memcmp(e + 2, e[1] ? "ISA   " : "PCI   ", 6));
        if (e[0] == 3 && e[4] == 1)
            isa |= 1u << e[7];
    }
    CHECK_EQ(isa, 0x1fffff);
}

static void test_pci(void)
{
    struct vmm_mem mem = one_range(RAM);
    struct boot_desc d = desc_of(&mem, make_bzimage());
    struct boot_result out;
    const uint8_t *dsdt, *mcfg;

    memset(ram, 0, MIB);
    d.machine.pci = some_pci;
    CHECK_EQ(boot_linux(&d, &out), 0);
    mcfg = xsdt_entry(out.rsdp, 2, "MCFG");
    CHECK(vmm_get32(mcfg + 4) == 60 && vmm_get64(mcfg + 44) == 0xe0000000);
    CHECK_EQ(vmm_get64(mcfg + 52), 0);
    dsdt = table(vmm_get64(xsdt_entry(out.rsdp, 0, "FACP") + 140), "DSDT");
    CHECK(dsdt_has(dsdt, "PCI0\x08_HID\x0c\x41\xd0\x0a\x08\x08_CID\x0c\x41\xd0\x0a\x03", 24));
    CHECK(dsdt_has(dsdt, "\x88\x0d\0\2\x0c\0\0\0\0\0\0\0\0\0\1\0\x47\1\xf8\x0c\xf8\x0c\1\x08", 24));
    CHECK(dsdt_has(dsdt, "\x87\x17\0\0\x0c\1\0\0\0\0\0\0\0\xc0\xff\xff\xff\xcf", 18));
    CHECK(dsdt_has(dsdt, "\x8a\x2b\0\0\x0c\1\0\0\0\0\0\0\0\0\0\0\0\0\x10\0\0\0", 22));
    CHECK(dsdt_has(dsdt, "\x86\x09\0\1\0\0\0\xe0\0\0\x10\0\x79", 13));
    CHECK(dsdt_has(dsdt, "\x08PICM\0\x14", 7) && dsdt_has(dsdt, "_PIC\1\x70\x68PICM", 11));
    CHECK(dsdt_has(dsdt, "_PRT\0\xa0", 6) && dsdt_has(dsdt, "PICM\xa4\x12", 6));
    check_prt(find_prt(dsdt, 0), some_pci.gsi, true);
    check_prt(find_prt(dsdt, 1), some_pci.pic, false);
    CHECK_EQ(mp_pci_line(0, 0), ~0u);
    CHECK_EQ(mp_cpus(), 1);
    check_mp_isa();
    memset(d.machine.pci.pic, 0, sizeof d.machine.pci.pic); /* no such lines: no choice */
    CHECK_EQ(boot_linux(&d, &out), 0);
    dsdt = table(vmm_get64(xsdt_entry(out.rsdp, 0, "FACP") + 140), "DSDT");
    CHECK(dsdt_has(dsdt, "\x08_PRT\x12", 6) && !dsdt_has(dsdt, "PICM", 4));
    check_prt(find_prt(dsdt, 0), some_pci.gsi, true);
    d.machine.pci.pic[2] = 16;
    CHECK_EQ(boot_linux(&d, &out), -EINVAL);
}

/* ECAM is reserved, in its place between RAM below and above 4 GiB. */
static void test_pci_map(void)
{
    struct vmm_mem mem = one_range(RAM);
    struct boot_desc d = desc_of(&mem, make_bzimage());
    const uint8_t *e820 = ram + BOOT_ZERO_PAGE + 0x2d0;
    struct boot_result out;

    d.machine.pci = some_pci;
    for (unsigned high = 0; high < 2; high++) {
        memset(ram, 0, MIB);
        if (high)
            CHECK_EQ(vmm_mem_add(&mem, 1ull << 32, 1 << 20, ram + RAM - MIB), 0);
        CHECK_EQ(boot_linux(&d, &out), 0);
        CHECK_EQ(ram[BOOT_ZERO_PAGE + 0x1e8], 5 + high);
        CHECK_EQ(vmm_get64(e820 + 80), 0xe0000000);
        CHECK_EQ(vmm_get64(e820 + 88), 0x100000);
        CHECK_EQ(vmm_get32(e820 + 96), 2);
        CHECK_EQ(vmm_get64(e820 + 100), high ? 1ull << 32 : 0);
    }
}

static void test_bad_pci(void)
{
    struct boot_pci bad[6];

    for (unsigned i = 0; i < 6; i++)
        bad[i] = some_pci;
    bad[0].ecam = 0xe0080000;
    bad[1].ecam = 1ull << 32;
    bad[2].mmio32_len = 0x40000001;
    bad[3].mmio32 = 1ull << 32;
    bad[4].mmio64 = -0xfff00000ull;
    bad[5].gsi[3] = 24;
    for (unsigned i = 0; i < 6; i++) {
        struct vmm_mem mem = one_range(RAM);
        struct boot_desc d = desc_of(&mem, make_bzimage());
        struct boot_result out;

        d.machine.pci = bad[i];
        check_refused(boot_linux(&d, &out), -EINVAL, "cannot be described", "PCI");
    }
}

static void test_bad_devices(void)
{
    static const struct boot_dev bad[] = {
        {BOOT_DEV_UART, 0x10000, 8, 4},
        {BOOT_DEV_UART, 0xfffc, 8, 4},
        {BOOT_DEV_RTC, 0x70, 0, 8},
        {BOOT_DEV_VIRTIO_MMIO, 1ull << 32, 0x200, 6},
        {BOOT_DEV_VIRTIO_MMIO, 0xffffff00, 0x200, 6},
        {(enum boot_dev_kind)7, 0x70, 2, 8},
    };

    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct vmm_mem mem = one_range(RAM);
        struct boot_desc d = desc_of(&mem, make_bzimage());
        struct boot_result out;

        d.machine.devs = &bad[i];
        d.machine.ndevs = 1;
        check_refused(boot_linux(&d, &out), -EINVAL, "cannot be described", "device");
    }
}

/* >>multiboot */

/* A header of version 1 at `at`, with the fields of flag bit 16 when addr is given. */
static void put_mb1(unsigned at, uint32_t flags, const uint32_t *addr)
{
    vmm_put32(file + at, 0x1badb002);
    vmm_put32(file + at + 4, flags);
    vmm_put32(file + at + 8, 0u - 0x1badb002 - flags);
    for (unsigned i = 0; addr && i < 5; i++) /* header, load, load end, bss end, entry */
        vmm_put32(file + at + 12 + 4 * i, addr[i]);
}

/* A header of version 2: tags of type, flags, and up to four words. */
struct tag {
    uint16_t type, flags;
    uint32_t size, word[4];
};

static void put_mb2(unsigned at, const struct tag *tags, unsigned n)
{
    unsigned len = 16;

    for (unsigned i = 0; i < n; i++) {
        vmm_put16(file + at + len, tags[i].type);
        vmm_put16(file + at + len + 2, tags[i].flags);
        vmm_put32(file + at + len + 4, tags[i].size);
        memcpy(file + at + len + 8, tags[i].word, 16);
        len += (tags[i].size + 7) & ~7u;
    }
    vmm_put32(file + at, 0xe85250d6);
    vmm_put32(file + at + 4, 0);
    vmm_put32(file + at + 8, len);
    vmm_put32(file + at + 12, 0u - 0xe85250d6 - len);
}

/* An ELF file of either class: one segment, physically at 1 MiB, virtually at 3 GiB; no notes. */
static uint64_t make_mb_elf(bool wide)
{
    uint64_t len = make_vmlinux();

    put_ph(0, (struct ph){1, 0x1000, 0xc0100000, 0x100000, 0x2800, 0x5000});
    put_ph(1, (struct ph){0});
    put_ph(2, (struct ph){0});
    vmm_put64(file + 24, 0xc0100040);
    if (wide)
        return len;
    memset(file + 16, 0, 48);
    file[4] = 1;
    vmm_put16(file + 16, 2);
    vmm_put16(file + 18, 3);
    vmm_put32(file + 24, 0xc0100040);
    vmm_put32(file + 28, 0x80);
    vmm_put16(file + 42, 32);
    vmm_put16(file + 44, 1);
    for (unsigned i = 0; i < 6; i++)
        vmm_put32(file + 0x80 + 4 * i,
                  (const uint32_t[]){1, 0x1000, 0xc0100000, 0x100000, 0x2800, 0x5000}[i]);
    return len;
}

/* Flat: text with a header at 0x20, loaded at 1 MiB. */
static uint64_t make_mb_flat(void)
{
    static const uint32_t addr[] = {0x100020, 0x100000, 0, 0x108000, 0x100100};

    make_vmlinux();
    memset(file, 0x90, 64);
    put_mb1(0x20, 0x10003, addr);
    return 0x6123;
}

static void test_multiboot_shapes(void)
{
    static const uint32_t aout[] = {0x101004, 0x101000, 0x103000, 0x104000, 0x101010};
    static const uint32_t low[] = {0x9020, 0x9000, 0xa000, 0, 0x9100};
    static const struct {
        const char *what;
        int shape; /* 0: flat, 1: ELF32, 2: ELF64, 3: a.out kludge in an ELF64 file, 4: flat, low */
        unsigned version;
        enum boot_entry entry;
        uint64_t start, end, rip;
    } rows[] = {
        {"flat", 0, 1, BOOT_ENTRY_AUTO, 0x100000, 0x108000, 0x100100},
        {"ELF32", 1, 1, BOOT_ENTRY_AUTO, 0x100000, 0x105000, 0x100040},
        {"ELF64", 2, 1, BOOT_ENTRY_AUTO, 0x100000, 0x105000, 0x100040},
        {"kludge", 3, 1, BOOT_ENTRY_AUTO, 0x101000, 0x104000, 0x101010},
        {"flat, low", 4, 1, BOOT_ENTRY_AUTO, 0x9000, 0xa000, 0x9100},
        {"ELF32, 2", 1, 2, BOOT_ENTRY_AUTO, 0x100000, 0x105000, 0x100040},
        {"ELF64, 2", 2, 2, BOOT_ENTRY_MULTIBOOT, 0x100000, 0x105000, 0x100040},
    };

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        bool flat = rows[i].shape == 0 || rows[i].shape == 4;
        uint64_t len = flat ? make_mb_flat() : make_mb_elf(rows[i].shape >= 2);
        uint64_t off = flat ? 0 : 0x1000; /* of what is at rows[i].start */
        struct vmm_mem mem = one_range(RAM);
        struct boot_desc d;
        struct boot_result out;

        if (rows[i].version == 2)
            put_mb2(0x800, (const struct tag[]){{6, 0, 8, {0}}, {0, 0, 8, {0}}}, 2);
        else if (rows[i].shape == 3)
            put_mb1(0x1004, 0x10000, aout);
        else if (rows[i].shape == 4)
            put_mb1(0x20, 0x10000, low);
        else if (rows[i].shape)
            put_mb1(0x400, 3, NULL);
        memset(ram, 0, RAM);
        d = desc_of(&mem, len);
        d.entry = rows[i].entry;
        if (!CHECK_EQ(boot_linux(&d, &out), 0)) {
            fprintf(stderr, "  %s: %s\n", rows[i].what, said);
            continue;
        }
        CHECK_EQ(out.format, rows[i].version == 2 ? BOOT_MULTIBOOT2 : BOOT_MULTIBOOT);
        CHECK_EQ(out.kernel_gpa, rows[i].start);
        CHECK_EQ(out.kernel_end, rows[i].end);
        CHECK_EQ(out.regs.rip, rows[i].rip);
        CHECK_EQ(out.regs.gpr[VMM_RAX], rows[i].version == 2 ? 0x36d76289 : 0x2badb002);
        CHECK_EQ(out.regs.gpr[VMM_RBX], BOOT_MULTIBOOT_INFO);
        CHECK(out.regs.cr0 == 0x31 && out.regs.cs.attr == 0xc09b && out.regs.rflags == 2);
        CHECK_EQ(vmm_get64(ram + out.regs.gdt.base + 0x10), 0x00cf9b000000ffff);
        CHECK(!memcmp(ram + rows[i].start, file + off, 0x1000));
    }
}

static void test_multiboot_refused(void)
{
    static const struct {
        const char *what;
        uint32_t flags;
        uint32_t addr[5];
        int err;
        const char *words;
    } rows[] = {
        {"unknown flag", 8, {0}, -ENOEXEC, "does not know"},
        {"no addresses", 3, {0}, -ENOEXEC, "not ELF"},
        {"header before the load address",
         0x10003,
         {0x100020, 0x100030, 0, 0, 0x100100},
         -ENOEXEC,
         "make no sense"},
        {"from before the file",
         0x10003,
         {0x100020, 0x100000 - 1, 0, 0, 0x100100},
         -ENOEXEC,
         "make no sense"},
        {"end before the load address",
         0x10003,
         {0x100020, 0x100000, 0xfffff, 0, 0x100100},
         -ENOEXEC,
         "make no sense"},
        {"beyond the file",
         0x10003,
         {0x100020, 0x100000, 0x106124, 0, 0x100100},
         -ENOEXEC,
         "truncated"},
        {"in page 0", 0x10003, {0x520, 0x500, 0, 0, 0x500}, -ENOEXEC, "page 0"},
        {"over the information", 0x10003, {0x7f020, 0x7f000, 0, 0, 0x7f000}, -ENOEXEC, "512 KiB"},
        {"entry outside",
         0x10003,
         {0x100020, 0x100000, 0, 0, 0x200000},
         -ENOEXEC,
         "outside of the kernel"},
        {"too large",
         0x10003,
         {0x100020, 0x100000, 0, 0xffffffff, 0x100100},
         -ENOMEM,
         "there are 64"},
    };
    static const struct {
        struct tag tag;
        const char *words; /* NULL: fine */
    } tags[] = {
        {{5, 0, 20, {640, 480, 32}}, "frame buffer"},
        {{5, 1, 20, {640, 480, 32}}, NULL},
        {{4, 0, 12, {1}}, "text screen"},
        {{4, 0, 12, {2}}, NULL},
        {{1, 0, 16, {4, 6}}, NULL},
        {{1, 0, 16, {4, 99}}, "does not know"},
        {{1, 1, 16, {4, 99}}, NULL},
        {{7, 0, 8, {0}}, NULL},
        {{77, 0, 8, {0}}, "does not know"},
        {{77, 1, 8, {0}}, NULL},
        {{3, 0, 12, {0x100044}}, NULL},
        {{3, 0, 12, {0x300000}}, "outside of the kernel"},
        {{9, 1, 7, {0}}, "a tag makes no sense"},
        {{9, 1, 0x100, {0}}, "a tag makes no sense"},
        {{10, 0, 24, {0, 0x200000, 3, 0}}, "alignment"},
        {{10, 0, 24, {0x2000000, 0x2001000, 4096, 0}}, "where it may be"},
    };
    struct vmm_mem mem = one_range(RAM);
    struct boot_result out;

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t len = make_mb_flat();
        struct boot_desc d = desc_of(&mem, len);
        put_mb1(0x20, rows[i].flags, rows[i].addr);
        check_refused(boot_linux(&d, &out), rows[i].err, rows[i].words, rows[i].what);
    }
    for (unsigned i = 0; i < sizeof tags / sizeof tags[0]; i++) {
        uint64_t len = make_mb_elf(true);
        struct boot_desc d = desc_of(&mem, len);
        int err;
        put_mb2(0x800, &tags[i].tag, 1);
        if (tags[i].tag.size == 0x100) { /* it is longer than the header */
            put_mb2(0x800, (const struct tag[]){{6, 0, 8, {0}}}, 1);
            vmm_put32(file + 0x814, 0x100);
        }
        err = boot_linux(&d, &out);
        if (tags[i].words)
            check_refused(err, strstr(tags[i].words, "where") ? -ENOMEM : -ENOEXEC, tags[i].words,
                          tags[i].words);
        else
            CHECK_EQ(err, 0);
    }
}

/* Where headers are looked for, and who is asked first. */
static void test_multiboot_found(void)
{
    static const struct {
        unsigned at, version;
        bool note;
        enum boot_entry entry;
        int format; /* or an error */
    } rows[] = {
        {8180, 1, false, BOOT_ENTRY_AUTO, BOOT_MULTIBOOT},
        {8184, 1, false, BOOT_ENTRY_AUTO, -ENOEXEC},  /* not all of it */
        {0x402, 1, false, BOOT_ENTRY_AUTO, -ENOEXEC}, /* not aligned */
        {0x5ff8, 2, false, BOOT_ENTRY_AUTO, BOOT_MULTIBOOT2},
        {0x804, 2, false, BOOT_ENTRY_AUTO, -ENOEXEC},
        {0x400, 1, true, BOOT_ENTRY_AUTO, BOOT_PVH},
        {0x400, 1, true, BOOT_ENTRY_MULTIBOOT, BOOT_MULTIBOOT},
        {0x400, 1, true, BOOT_ENTRY_MULTIBOOT1, BOOT_MULTIBOOT},
        {0x800, 2, true, BOOT_ENTRY_MULTIBOOT1, -EINVAL},
        {0x400, 1, true, BOOT_ENTRY_64, -EINVAL},
    };
    struct vmm_mem mem = one_range(RAM);

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t len = make_mb_elf(true);
        struct boot_desc d = desc_of(&mem, len);
        struct boot_result out = {0};
        int err;

        if (rows[i].note) {
            put_ph(1, (struct ph){4, 0x200, 0, 0, 64, 64});
        }
        if (rows[i].version == 2)
            put_mb2(rows[i].at, (const struct tag[]){{0, 0, 8, {0}}}, 1);
        else
            put_mb1(rows[i].at, 3, NULL);
        d.entry = rows[i].entry;
        err = boot_linux(&d, &out);
        if (!CHECK_EQ(err ? err : (int)out.format, rows[i].format))
            fprintf(stderr, "  row %u: %s\n", i, said);
    }
}

static const uint8_t *mb2_tag(uint32_t type, unsigned nth)
{
    const uint8_t *info = ram + BOOT_MULTIBOOT_INFO;

    for (uint32_t at = 8; at < vmm_get32(info); at += (vmm_get32(info + at + 4) + 7) & ~7u) {
        if (vmm_get32(info + at) == type && !nth--)
            return info + at;
        if (!vmm_get32(info + at))
            break;
    }
    return NULL;
}

static const uint8_t module_bytes[5000] = "one", more_bytes[100] = "two";

static struct boot_desc desc_with_modules(const struct vmm_mem *mem, uint64_t len)
{
    static const struct boot_module modules[] = {
        {{more_bytes, sizeof more_bytes, "more"}, "args of more"}};
    struct boot_desc d = desc_of(mem, len);

    memset(ram, 0, RAM);
    d.initrd = (struct boot_file){module_bytes, sizeof module_bytes, "initrd.img"};
    d.modules = modules;
    d.nmodules = 1;
    return d;
}

static void test_multiboot_info(void)
{
    struct vmm_mem mem = one_range(RAM);
    struct boot_desc d = desc_with_modules(&mem, make_mb_flat());
    const uint8_t *info = ram + BOOT_MULTIBOOT_INFO, *mods;
    struct boot_result out;

    CHECK_EQ(boot_linux(&d, &out), 0);
    CHECK_EQ(vmm_get32(info), 0x24d);
    CHECK_EQ(vmm_get32(info + 4), 639);
    CHECK_EQ(vmm_get16(ram + 0x413), 639);    /* the BIOS data area says the same, ... */
    CHECK_EQ(vmm_get16(ram + 0x40e), 0x9fc0); /* ... and where the extended one is */
    CHECK_EQ(vmm_get32(info + 8), (RAM >> 10) - 1024);
    CHECK(!strcmp((const char *)ram + vmm_get32(info + 16), "console=ttyS0"));
    CHECK_EQ(vmm_get32(info + 20), 2);
    mods = ram + vmm_get32(info + 24);
    CHECK_EQ(vmm_get32(mods), 0x108000);
    CHECK_EQ(vmm_get32(mods + 4), 0x108000 + 5000);
    CHECK_EQ(vmm_get32(mods + 16), 0x10a000);
    CHECK(!memcmp(ram + 0x108000, "one", 4) && !memcmp(ram + 0x10a000, "two", 4));
    CHECK(!strcmp((const char *)ram + vmm_get32(mods + 8), "initrd.img"));
    CHECK(!strcmp((const char *)ram + vmm_get32(mods + 24), "args of more"));
    CHECK_EQ(vmm_get32(info + 44), 4 * 24);
    CHECK_EQ(vmm_get32(ram + vmm_get32(info + 48)), 20);
    CHECK_EQ(vmm_get64(ram + vmm_get32(info + 48) + 3 * 24 + 4), 0x100000);
    CHECK_EQ(vmm_get64(ram + vmm_get32(info + 48) + 3 * 24 + 12), RAM - 0x100000);
    CHECK(!strcmp((const char *)ram + vmm_get32(info + 64), "vmm"));
    CHECK_EQ(out.initrd_gpa, 0x108000);
    mem = one_range(0x109000); /* the second has no room */
    d = desc_with_modules(&mem, make_mb_flat());
    check_refused(boot_linux(&d, &out), -ENOMEM, "more --mem", "little RAM");
    mem = one_range(RAM);
    d = desc_with_modules(&mem, make_bzimage());
    check_refused(boot_linux(&d, &out), -EINVAL, "no multiboot kernel", "modules for Linux");
}

static void test_multiboot2_info(void)
{
    static const struct {
        uint32_t min, max, align, preference, at;
    } rows[] = {{0, 0xffffffff, 4096, 0, 0x100000}, /* where it was linked */
                {0x180000, 0xffffffff, 0x200000, 1, 0x200000},
                {0, 0x2ffffff, 0x100000, 2, 0x2f00000},
                {0x800000, 0x900000, 4096, 0, 0x800000}};
    struct vmm_mem mem = one_range(RAM);

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t len = make_mb_elf(false);
        struct boot_desc d = desc_with_modules(&mem, len);
        struct boot_result out = {0};
        const uint8_t *t;

        put_mb2(0x800,
                (const struct tag[]){
                    {10, 0, 24, {rows[i].min, rows[i].max, rows[i].align, rows[i].preference}},
                    {0, 0, 8, {0}}},
                2);
        CHECK_EQ(boot_linux(&d, &out), 0);
        CHECK_EQ(out.kernel_gpa, rows[i].at);
        CHECK_EQ(out.regs.rip, rows[i].at + 0x40);
        CHECK(!memcmp(ram + rows[i].at, file + 0x1000, 0x2800));
        if (CHECK((t = mb2_tag(21, 0))))
            CHECK_EQ(vmm_get32(t + 8), rows[i].at);
        if (CHECK((t = mb2_tag(1, 0))))
            CHECK(!strcmp((const char *)t + 8, "console=ttyS0"));
        if (CHECK((t = mb2_tag(3, 1))))
            CHECK(!strcmp((const char *)t + 16, "args of more") &&
                  !memcmp(ram + vmm_get32(t + 8), "two", 4));
        if (CHECK((t = mb2_tag(4, 0))))
            CHECK(vmm_get32(t + 8) == 639 && vmm_get32(t + 12) == (RAM >> 10) - 1024);
        if (CHECK((t = mb2_tag(6, 0))))
            CHECK(vmm_get32(t + 4) == 16 + 4 * 24 && vmm_get32(t + 8) == 24 &&
                  vmm_get64(t + 16 + 3 * 24) == 0x100000);
        if (CHECK((t = mb2_tag(15, 0))))
            CHECK(!memcmp(t + 8, ram + out.rsdp, 36));
        CHECK(mb2_tag(14, 0) && mb2_tag(0, 0) && !mb2_tag(8, 0));
    }
}

static void test_linux_regs(void)
{
    struct vmm_mem mem = one_range(RAM);
    struct boot_desc d = desc_of(&mem, make_bzimage());
    struct boot_result out;

    memset(ram, 0, sizeof ram);
    d.cmdline = NULL;
    CHECK_EQ(boot_linux(&d, &out), 0);
    CHECK_EQ(out.regs.rip, out.kernel_gpa + 0x200);
    CHECK_EQ(out.regs.gpr[VMM_RSI], BOOT_ZERO_PAGE);
    CHECK_EQ(ram[BOOT_CMDLINE], 0);
    check_long_mode(&out.regs);
    vmm_put16(file + 0x236, 2); /* no XLF_KERNEL_64 */
    CHECK_EQ(boot_linux(&d, &out), 0);
    CHECK_EQ(out.format, BOOT_BZIMAGE32);
    CHECK_EQ(out.regs.rip, out.kernel_gpa);
    CHECK_EQ(out.regs.gpr[VMM_RSI], BOOT_ZERO_PAGE);
    CHECK_EQ(out.regs.gpr[VMM_RBX] | out.regs.gpr[VMM_RBP] | out.regs.gpr[VMM_RDI], 0);
    CHECK_EQ(out.regs.cs.attr, 0xc09b);
    CHECK_EQ(out.regs.cr0 & 0x80000001, 1); /* protected, no paging */
    CHECK_EQ(out.regs.efer, 0);
    d.entry = BOOT_ENTRY_64;
    CHECK_EQ(boot_linux(&d, &out), -EINVAL);
}

/* >>flat */
static void test_flat(void)
{
    static const struct {
        const char *what;
        uint64_t load, entry, len;
        unsigned mode;
        int err;
        const char *words;
    } cases[] = {
        {"64", 0x1000, 0x1000, 100, 64, 0, ""},
        {"default", 0x8000, 0x8010, 5 * MIB, 0, 0, ""},
        {"32", 0x100000, 0x100001, 100, 32, 0, ""},
        {"16", 0x7c00, 0x7c00, 512, 16, 0, ""},
        {"16 higher", 0x12340, 0x12345, 512, 16, 0, ""},
        {"up to the tables", RAM - 0x8000, RAM - 0x8000, 0x1000, 64, 0, ""},
        {"into the tables", RAM - 0x8000, RAM - 0x8000, 0x1001, 64, -ENOMEM, "--mem 65M"},
        {"16 up to the end", 0x1000, 0x1000, RAM - 0x1000, 16, 0, ""},
        {"too large", 0x1000, 0x1000, RAM, 16, -ENOMEM, "give --mem"},
        {"nowhere", RAM, RAM, 1, 64, -EINVAL, "outside RAM"},
        {"nowhere at all", ~0ull, ~0ull, 1, 64, -EINVAL, "outside RAM"},
        {"entry before", 0x1000, 0xfff, 100, 64, -EINVAL, "outside the binary"},
        {"entry behind", 0x1000, 0x1064, 100, 64, -EINVAL, "outside the binary"},
        {"16 out of reach", 0x100000, 0x100000, 100, 16, -EINVAL, "below 1 MiB"},
        {"odd mode", 0x1000, 0x1000, 100, 8, -EINVAL, "mode 8"},
        {"empty", 0x1000, 0x1000, 0, 64, -ENOEXEC, "empty"},
    };
    static uint8_t code[RAM];

    memset(code, 0x90, sizeof code);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vmm_mem mem = one_range(RAM);
        struct boot_flat_desc d = {&mem,          {code, cases[i].len, NULL},
                                   cases[i].load, cases[i].entry,
                                   cases[i].mode, &sink_log};
        struct vmm_x86_regs r = {0};

        sentences = 0;
        if (cases[i].err) {
            check_refused(boot_flat(&d, &r), cases[i].err, cases[i].words, cases[i].what);
            continue;
        }
        memset(ram, 0, sizeof ram);
        if (!CHECK_EQ(boot_flat(&d, &r), 0) || !CHECK_EQ(r.cs.base + r.rip, cases[i].entry))
            fprintf(stderr, "  %s\n", cases[i].what);
        CHECK(!memcmp(ram + cases[i].load, code, cases[i].len));
        if (cases[i].mode == 16) {
            CHECK_EQ(r.cr0 & 1, 0);
            CHECK(r.cs.base == r.cs.selector * 16u && r.rip < 0x10000);
            continue;
        }
        CHECK_EQ(r.gpr[VMM_RSP], RAM - 0x7000);
        if (cases[i].mode != 32)
            check_long_mode(&r);
        else
            CHECK(r.cs.attr == 0xc09b && r.cr0 >> 31 == 0);
    }
}

/* >>dump */
static void dump(const char *dir, const char *name, const uint8_t *t)
{
    char path[4096];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s.dat", dir, name);
    f = fopen(path, "wb");
    if (!CHECK(f))
        return;
    CHECK_EQ(fwrite(t, 1, vmm_get32(t + 4), f), vmm_get32(t + 4));
    CHECK_EQ(fclose(f), 0);
}

static void dump_tables(const char *dir)
{
    struct vmm_mem mem = one_range(RAM);
    struct boot_desc d = desc_of(&mem, make_bzimage());
    struct boot_result out;

    fill_machine(&d.machine);
    d.machine.ncpus = 300;
    d.machine.pci = some_pci;
    CHECK_EQ(boot_linux(&d, &out), 0);
    dump(dir, "FACP", xsdt_entry(out.rsdp, 0, "FACP"));
    dump(dir, "APIC", xsdt_entry(out.rsdp, 1, "APIC"));
    dump(dir, "MCFG", xsdt_entry(out.rsdp, 2, "MCFG"));
    dump(dir, "DSDT", table(vmm_get64(xsdt_entry(out.rsdp, 0, "FACP") + 140), "DSDT"));
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        dump_tables(argv[1]);
        CHECK_DONE("test_boot");
    }
    test_damaged_bzimage();
    test_damaged_elf();
    test_not_a_kernel();
    test_efi_programs();
    test_truncated();
    test_entries();
    test_identity_elf();
    test_placement();
    test_placement_of_large();
    test_initrd_limit();
    test_mapping();
    test_frugal();
    test_zero_page();
    test_pvh_info();
    test_multiboot_shapes();
    test_multiboot_refused();
    test_multiboot_found();
    test_multiboot_info();
    test_multiboot2_info();
    test_linux_regs();
    test_cpu_tables();
    test_fadt();
    test_pm();
    test_dsdt();
    test_pci();
    test_pci_map();
    test_bad_pci();
    test_bad_devices();
    test_flat();
    CHECK_DONE("test_boot");
}
