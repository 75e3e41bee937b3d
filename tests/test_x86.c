/* test_x86.c - hv_x86.h by hand                                    MIT licence, see LICENSE

   What its siblings test_x86_native and test_x86_zydis cannot show: who does which access, faults,
   page tables, REP in pieces, ports, CPUID and MSRs. */
#define HV_X86_IMPLEMENTATION
#define DEBUG_IMPLEMENTATION
#include "../hv_x86.h"

#include "check.h"

enum { RAM = 0x10000, CODE = 0x1000, DEVICE = 0x40000000, P = 1, W = 2, U = 4 };
#define NX (1ull << 63)

static uint8_t ram[RAM], rom[0x1000];
static struct vmm_mem mem, rom_mem;
static struct vmm_x86_regs regs;
static struct x86_emul e;

static void start(unsigned bits)
{
    const struct vmm_x86_seg flat = {.limit = 0xffffffff, .attr = 0xc093};

    memset(ram, 0, sizeof ram);
    memset(&mem, 0, sizeof mem);
    memset(&regs, 0, sizeof regs);
    memset(&e, 0, sizeof e);
    CHECK(vmm_mem_add(&mem, 0, RAM, ram) == 0);
    regs.rip = CODE;
    regs.rflags = 2;
    regs.cr0 = 1;
    regs.ds = regs.es = regs.fs = regs.gs = regs.ss = regs.cs = flat;
    regs.cs.attr = bits == 64 ? 0xa09b : bits == 32 ? 0xc09b : 0x009b;
    regs.efer = bits == 64 ? 1 << 10 : 0;
}

/* Begins what the hexadecimal digits say. */
static enum x86_step begin(const char *hex)
{
    unsigned n = 0, byte;

    for (; sscanf(hex + 2 * n, "%2x", &byte) == 1; n++)
        ram[regs.rip + n] = (uint8_t)byte;
    return x86_emul_begin(&e, &mem, &regs, NULL, 0);
}

static bool is_access(enum x86_step step, bool write, uint64_t gpa, unsigned size)
{
    return CHECK(step == X86_ACCESS) && CHECK_EQ(e.access.write, write) &&
           CHECK_EQ(e.access.gpa, gpa) && CHECK_EQ(e.access.size, size);
}

static enum x86_step answer(uint64_t val)
{
    vmm_put64(e.access.data, val);
    return x86_emul_next(&e);
}

static uint64_t written(void)
{
    return vmm_get64(e.access.data);
}

/* RBX points to the device, RAX holds `val`: what is written there, and how wide. */
static void test_stores(void)
{
    static const struct {
        unsigned bits;
        const char *code;
        unsigned size;
        uint64_t want;
    } t[] = {
        {64, "8803", 1, 0x88},
        {64, "8823", 1, 0x77}, /* AH */
        {64, "668903", 2, 0x7788},
        {64, "8903", 4, 0x55667788},
        {64, "488903", 8, 0x1122334455667788},
        {64, "480fc303", 8, 0x1122334455667788},
        {64, "0f38f103", 4, 0x88776655},
        {64, "c60342", 1, 0x42},
        {64, "c70378563412", 4, 0x12345678},
        {64, "48c703ffffffff", 8, ~0ull},
        {32, "8903", 4, 0x55667788},
        {32, "668903", 2, 0x7788},
        {16, "678903", 2, 0x7788},
        {16, "66678903", 4, 0x55667788},
        {32, "a300000040", 4, 0x55667788},
        {64, "48a30000004000000000", 8, 0x1122334455667788},
    };

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        start(t[i].bits);
        regs.gpr[VMM_RBX] = DEVICE;
        regs.gpr[VMM_RAX] = 0x1122334455667788;
        if (!is_access(begin(t[i].code), true, DEVICE, t[i].size))
            fprintf(stderr, "# %s\n", t[i].code);
        CHECK_EQ(written(), t[i].want);
        CHECK(x86_emul_next(&e) == X86_DONE);
        CHECK_EQ(regs.rip, CODE + strlen(t[i].code) / 2);
    }
}

/* What RAX, 0x1122334455667788 before, is after the device answered 0x...8182838485868788. */
static void test_loads(void)
{
    static const struct {
        unsigned bits;
        const char *code;
        unsigned size;
        uint64_t want;
    } t[] = {
        {64, "8a03", 1, 0x1122334455667788},
        {64, "668b03", 2, 0x1122334455668788},
        {64, "8b03", 4, 0x85868788},
        {64, "488b03", 8, 0x8182838485868788},
        {64, "0fb603", 1, 0x88},
        {64, "0fbe03", 1, 0xffffff88},
        {64, "480fbf03", 2, ~0x7877ull},
        {64, "486303", 4, 0xffffffff85868788},
        {64, "0f38f003", 4, 0x88878685},
        {32, "8b03", 4, 0x85868788},
        {16, "678b03", 2, 0x1122334455668788},
        {32, "a100000040", 4, 0x85868788},
    };

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        start(t[i].bits);
        regs.gpr[VMM_RBX] = DEVICE;
        regs.gpr[VMM_RAX] = 0x1122334455667788;
        is_access(begin(t[i].code), false, DEVICE, t[i].size);
        CHECK(answer(0x8182838485868788) == X86_DONE);
        CHECK_EQ(regs.gpr[VMM_RAX], t[i].want);
    }
}

/* A device is read once and written once, and registers change only then. */
static void test_both(void)
{
    start(64);
    regs.gpr[VMM_RBX] = DEVICE;
    regs.gpr[VMM_RAX] = 5;
    is_access(begin("f00fc103"), false, DEVICE, 4); /* lock xadd [rbx], eax */
    is_access(answer(0xffffffff), true, DEVICE, 4);
    CHECK_EQ(written(), 4);
    CHECK_EQ(regs.gpr[VMM_RAX], 5);
    CHECK_EQ(regs.rflags, 2);
    CHECK(x86_emul_next(&e) == X86_DONE);
    CHECK_EQ(regs.gpr[VMM_RAX], 0xffffffff);
    CHECK_EQ(regs.rflags, 2 | 1 | 0x10); /* CF, AF; 4 has odd parity */

    start(64);
    regs.gpr[VMM_RBX] = DEVICE;
    is_access(begin("833b07"), false, DEVICE, 4); /* cmp dword [rbx], 7 */
    CHECK(answer(7) == X86_DONE);
    CHECK_EQ(regs.rflags, 2 | 0x40 | 4);

    start(64);
    regs.gpr[VMM_RAX] = DEVICE;
    is_access(begin("0fba280a"), false, DEVICE, 4); /* bts dword [rax], 10 */
    is_access(answer(1), true, DEVICE, 4);
    CHECK_EQ(written(), 0x401);
}

/* Between a device and RAM, and over the end of a page of the device. */
static void test_parts(void)
{
    start(64);
    regs.gpr[VMM_RSI] = DEVICE;
    regs.gpr[VMM_RDI] = 0x3000;
    is_access(begin("48a5"), false, DEVICE, 8); /* movsq */
    CHECK(answer(0x0123456789abcdef) == X86_DONE);
    CHECK_EQ(vmm_get64(ram + 0x3000), 0x0123456789abcdef);
    CHECK_EQ(regs.gpr[VMM_RDI], 0x3008);

    start(64);
    regs.gpr[VMM_RBX] = DEVICE + 0xffd;
    is_access(begin("488b03"), false, DEVICE + 0xffd, 2);
    is_access(answer(0x2211), false, DEVICE + 0xfff, 1);
    is_access(answer(0x33), false, DEVICE + 0x1000, 4);
    is_access(answer(0x77665544), false, DEVICE + 0x1004, 1);
    CHECK(answer(0x88) == X86_DONE);
    CHECK_EQ(regs.gpr[VMM_RAX], 0x8877665544332211);

    start(64); /* PUSH from a device: onto the stack in RAM */
    regs.gpr[VMM_RSP] = 0x4000;
    regs.gpr[VMM_RBX] = DEVICE;
    is_access(begin("ff33"), false, DEVICE, 8);
    CHECK(answer(42) == X86_DONE);
    CHECK_EQ(regs.gpr[VMM_RSP], 0x3ff8);
    CHECK_EQ(vmm_get64(ram + 0x3ff8), 42);
}

static void test_rep(void)
{
    unsigned n = 0;

    start(64);
    regs.gpr[VMM_RCX] = X86_BATCH + 3;
    regs.gpr[VMM_RDI] = DEVICE;
    regs.gpr[VMM_RAX] = 0x5a;
    for (enum x86_step s = begin("f3aa"); s == X86_ACCESS; s = x86_emul_next(&e))
        CHECK_EQ(e.access.gpa, DEVICE + n++);
    CHECK_EQ(n, X86_BATCH);
    CHECK_EQ(regs.rip, CODE);
    CHECK_EQ(regs.gpr[VMM_RCX], 3);
    for (enum x86_step s = begin("f3aa"); s == X86_ACCESS; s = x86_emul_next(&e))
        n++;
    CHECK_EQ(n, X86_BATCH + 3);
    CHECK_EQ(regs.rip, CODE + 2);
    CHECK(begin("f3aa") == X86_DONE); /* none */

    start(64); /* repne scasb ends at what it looks for */
    regs.gpr[VMM_RCX] = 10;
    regs.gpr[VMM_RDI] = DEVICE;
    regs.gpr[VMM_RAX] = 3;
    CHECK(begin("f2ae") == X86_ACCESS);
    for (n = 1; answer(n) == X86_ACCESS; n++)
        ;
    CHECK_EQ(n, 3);
    CHECK_EQ(regs.gpr[VMM_RCX], 7);
    CHECK_EQ(regs.rip, CODE + 2);
}

/* Four levels with 4 KiB pages: the first 64 KiB as they are, then what a test puts at `at`. */
static void page(uint64_t gva, uint64_t entry)
{
    const uint64_t pml4 = 0x8000, pdpt = 0x9000, pd = 0xa000, pt = 0xb000;

    vmm_put64(ram + pml4, pdpt | P | W | U);
    vmm_put64(ram + pdpt, pd | P | W | U);
    vmm_put64(ram + pd, pt | P | W | U);
    vmm_put64(ram + pt + (gva >> 12) * 8, entry);
}

static void start_paging(void)
{
    start(64);
    for (uint64_t gva = 0; gva < RAM; gva += 4096)
        page(gva, gva | P | W);
    regs.cr3 = 0x8000;
    regs.cr0 = 0x80010001;
    regs.cr4 = 0x20;
    regs.efer |= 1 << 11;
}

static void test_walk(void)
{
    enum { AT = 0x20000, READ = VMM_READ, WRITE = VMM_WRITE, EXEC = VMM_EXEC };
    static const struct {
        uint64_t entry;
        bool user;
        unsigned want, cr4, no_wp, ac;
        int code; /* -1: allowed */
    } t[] = {
        {P | W, false, READ | WRITE | EXEC, 0, 0, 0, -1},
        {P | W, true, READ, 0, 0, 0, P | U},
        {P | W | U, true, READ | WRITE | EXEC, 0, 0, 0, -1},
        {P | U, true, READ | WRITE, 0, 0, 0, P | W | U},
        {P | U, true, READ | WRITE, 0, 1, 0, P | W | U}, /* WP is of supervisors */
        {P, false, WRITE, 0, 0, 0, P | W},
        {P, false, WRITE, 0, 1, 0, -1},
        {P | NX, false, EXEC, 0, 0, 0, P | 16},
        {P | NX, false, READ, 0, 0, 0, -1},
        {P | U, false, EXEC, 1 << 20, 0, 0, P | 16}, /* SMEP */
        {P | U, false, READ, 1 << 20, 0, 0, -1},
        {P | U, false, READ, 1 << 21, 0, 0, P}, /* SMAP */
        {P | U, false, READ, 1 << 21, 0, 1, -1},
        {P | U, false, EXEC, 1 << 21, 0, 0, -1},
        {0, false, READ, 0, 0, 0, 0},
        {0, true, WRITE, 0, 0, 0, W | U},
        {0, true, EXEC, 0, 0, 0, U | 16},
    };
    uint64_t gpa;
    uint32_t code;

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        start_paging();
        page(AT, t[i].entry ? t[i].entry | DEVICE : 0);
        regs.ss.attr |= t[i].user ? 0x60 : 0;
        regs.cr4 |= t[i].cr4;
        regs.cr0 &= ~((uint64_t)t[i].no_wp << 16);
        regs.rflags |= t[i].ac << 18;
        code = 0xffffffff;
        if (!CHECK_EQ(x86_walk(&mem, &regs, AT + 5, t[i].want, &gpa, &code),
                      t[i].code < 0 ? 0 : -EFAULT))
            fprintf(stderr, "# walk %u\n", i);
        CHECK_EQ(code, t[i].code < 0 ? 0xffffffff : (uint32_t)t[i].code);
        CHECK(t[i].code >= 0 || gpa == DEVICE + 5);
    }
}

static void test_fetch_for_fault(void)
{
    struct vmm_mem firmware = {0};
    uint8_t insn[X86_INSN_MAX] = {0};

    CHECK(vmm_mem_add(&firmware, DEVICE, sizeof rom, rom) == 0);
    start_paging();
    memset(ram + 0x2ff0, 0x90, 0x20);
    regs.rip = 0x2ff0;
    CHECK_EQ(x86_fetch(&mem, &firmware, &regs, insn), X86_INSN_MAX);
    regs.rip = 0x2ffe;
    CHECK_EQ(x86_fetch(&mem, &firmware, &regs, insn), 2);
    CHECK(insn[0] == 0x90 && insn[1] == 0x90);
    page(0x2000, DEVICE | P);
    rom[0xfff] = 0xf4;
    regs.rip = 0x2fff;
    CHECK_EQ(x86_fetch(&mem, &firmware, &regs, insn), 1);
    CHECK_EQ(insn[0], 0xf4);
    page(0x2000, (DEVICE + sizeof rom) | P);
    CHECK_EQ(x86_fetch(&mem, &firmware, &regs, insn), 0);
    page(0x2000, 0);
    CHECK_EQ(x86_fetch(&mem, &firmware, &regs, insn), 0);
    rom[0xfff] = 0;
}

static void is_fault(enum x86_step step, unsigned vector, uint32_t error)
{
    CHECK(step == X86_FAULT);
    CHECK_EQ(e.vector, vector);
    CHECK_EQ(e.has_error, vector != X86_UD);
    CHECK(vector == X86_UD || e.error == error);
    CHECK_EQ(regs.rip, CODE);
}

static void test_faults(void)
{
    start_paging();
    page(0x20000, DEVICE | P | W);
    regs.gpr[VMM_RSI] = 0x20000;
    regs.gpr[VMM_RDI] = 0x21004;
    is_fault(begin("a4"), X86_PF, W); /* nothing was read from the device */
    CHECK_EQ(regs.cr2, 0x21004);

    start_paging(); /* the second half alone */
    page(0x20000, DEVICE | P | W);
    regs.gpr[VMM_RBX] = 0x20ffe;
    is_fault(begin("8b03"), X86_PF, 0);
    CHECK_EQ(regs.cr2, 0x21000);

    start_paging(); /* REP: what was done before the fault stays done */
    page(0x20000, DEVICE | P | W);
    regs.gpr[VMM_RDI] = 0x20ffc;
    regs.gpr[VMM_RCX] = 9;
    is_access(begin("f3ab"), true, DEVICE + 0xffc, 4);
    is_fault(x86_emul_next(&e), X86_PF, W);
    CHECK_EQ(regs.gpr[VMM_RCX], 8);
    CHECK_EQ(regs.gpr[VMM_RDI], 0x21000);

    start(64);
    regs.gpr[VMM_RBX] = 1ull << 50;
    is_fault(begin("8b03"), X86_GP, 0);
    regs.gpr[VMM_RBP] = 1ull << 50;
    is_fault(begin("8b4500"), X86_SS, 0);
    is_fault(begin("f08903"), X86_UD, 0);
    is_fault(begin("f08b03"), X86_UD, 0);
    is_fault(begin("6666666666666666666666666666668903"), X86_GP, 0); /* too long */
}

static void test_fetch(void)
{
    start_paging(); /* code over the end of a page; the next is elsewhere */
    page(0x20000, 0x2000 | P);
    page(0x21000, 0x5000 | P);
    page(0x22000, DEVICE | P | W);
    memcpy(ram + 0x2ffe, "\xc7\x05", 2);
    memcpy(ram + 0x5000, "\x00\x10\x00\x00\x78\x56\x34\x12", 8); /* rip-relative */
    regs.rip = 0x20ffe;
    is_access(x86_emul_begin(&e, &mem, &regs, NULL, 0), true, DEVICE + 8, 4);
    CHECK_EQ(written(), 0x12345678);
    CHECK(x86_emul_next(&e) == X86_DONE);
    CHECK_EQ(regs.rip, 0x21008);

    page(0x21000, 0);
    regs.rip = 0x20ffe;
    CHECK(x86_emul_begin(&e, &mem, &regs, NULL, 0) == X86_FAULT);
    CHECK_EQ(regs.cr2, 0x21000);
    CHECK_EQ(e.error, 16);
    memcpy(ram + 0x2ffe, "\xaa\xaa", 2); /* one that ends there needs no more */
    regs.gpr[VMM_RDI] = 0x22000;
    regs.rip = 0x20fff;
    is_access(x86_emul_begin(&e, &mem, &regs, NULL, 0), true, DEVICE, 1);

    start(64); /* known by the hypervisor: the beginning, or all */
    regs.gpr[VMM_RBX] = DEVICE;
    ram[CODE + 1] = 0x03;
    is_access(x86_emul_begin(&e, &mem, &regs, (const uint8_t *)"\x89", 1), true, DEVICE, 4);
    is_access(x86_emul_begin(&e, &mem, &regs, (const uint8_t *)"\x88\x03", 2), true, DEVICE, 1);

    regs.rip = DEVICE;
    CHECK(x86_emul_begin(&e, &mem, &regs, NULL, 0) == X86_UNKNOWN);
    regs.rip = CODE;
    CHECK(begin("0f6f03") == X86_UNKNOWN); /* movq mm0, [rbx] */
    CHECK(e.insn_len >= 3 && !memcmp(e.insn, "\x0f\x6f\x03", 3));
    CHECK(begin("89d8") == X86_UNKNOWN);       /* registers alone touch no device */
    CHECK(begin("f20f38f103") == X86_UNKNOWN); /* crc32 */
}

static void test_segments(void)
{
    static const struct {
        const char *code;
        unsigned vector; /* 0: fine */
    } t[] = {
        {"8807", 0},                                /* mov [bx], al: DS */
        {"268807", X86_GP},                         /* ES is read-only */
        {"268a07", 0},        {"2e8a07", X86_GP},   /* CS is code that cannot be read */
        {"648807", X86_GP},                         /* FS is null */
        {"88867001", X86_SS},                       /* [bp + 0x170]: beyond SS */
        {"88866001", 0},      {"65880fff", X86_GP}, /* GS grows downwards: [bx] is below */
        {"6588871000", 0},
    };

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        start(16);
        regs.gpr[VMM_RBX] = 0x100;
        regs.ds = (struct vmm_x86_seg){DEVICE, 0x100, 8, 0x93};
        regs.es = (struct vmm_x86_seg){DEVICE, 0xffff, 8, 0x91};
        regs.cs.attr = 0x99;
        regs.fs.attr = 0;
        regs.ss = (struct vmm_x86_seg){DEVICE, 0x160, 8, 0x93};
        regs.gs = (struct vmm_x86_seg){DEVICE, 0x108, 8, 0x97};
        if (t[i].vector)
            is_fault(begin(t[i].code), t[i].vector, 0);
        else
            CHECK(begin(t[i].code) == X86_ACCESS);
    }
    start(16); /* real mode: limits, but no rights */
    regs.cr0 = 0;
    regs.ds = (struct vmm_x86_seg){0xf0000, 0xffff, 0xf000, 0};
    regs.gpr[VMM_RBX] = 0xfffe;
    is_access(begin("8907"), true, 0xffffe, 2);
    regs.gpr[VMM_RBX] = 0xffff;
    is_fault(begin("8907"), X86_GP, 0);
}

static void test_ports(void)
{
    start(64);
    regs.gpr[VMM_RAX] = ~0ull;
    regs.gpr[VMM_RDX] = 0xffff1234;
    is_access(begin("ed"), false, 0x1234, 4);
    CHECK(e.is_port);
    CHECK(answer(7) == X86_DONE);
    CHECK_EQ(regs.gpr[VMM_RAX], 7);
    is_access(begin("e480"), false, 0x80, 1);
    CHECK(answer(0x55) == X86_DONE);
    CHECK_EQ(regs.gpr[VMM_RAX], 0x55);
    is_access(begin("66e780"), true, 0x80, 2);
    is_access(begin("48ef"), true, 0x1234, 4);

    start(64); /* rep insw: to RAM */
    regs.gpr[VMM_RDX] = 0x1f0;
    regs.gpr[VMM_RCX] = 2;
    regs.gpr[VMM_RDI] = 0x3000;
    is_access(begin("f3666d"), false, 0x1f0, 2);
    is_access(answer(0x1111), false, 0x1f0, 2);
    CHECK(answer(0x2222) == X86_DONE);
    CHECK_EQ(vmm_get32(ram + 0x3000), 0x22221111);
    CHECK_EQ(regs.rip, CODE + 3);

    regs.rip = CODE; /* outsb, backwards, from a device to a port */
    regs.rflags |= 0x400;
    regs.gpr[VMM_RSI] = DEVICE;
    is_access(begin("6e"), false, DEVICE, 1);
    CHECK(!e.is_port);
    is_access(answer(9), true, 0x1f0, 1);
    CHECK(e.is_port && written() == 9);
    CHECK(x86_emul_next(&e) == X86_DONE);
    CHECK_EQ(regs.gpr[VMM_RSI], DEVICE - 1);
}

static void test_rom(void)
{
    start(64);
    memset(&rom_mem, 0, sizeof rom_mem);
    vmm_mem_add(&rom_mem, DEVICE, sizeof rom, rom);
    memcpy(rom, "\x89\x03\x8b\x0b", 4);
    e.rom = &rom_mem;
    regs.rip = regs.gpr[VMM_RBX] = DEVICE;
    is_access(x86_emul_begin(&e, &mem, &regs, NULL, 0), true, DEVICE, 4);
    CHECK(x86_emul_next(&e) == X86_DONE);
    CHECK(x86_emul_begin(&e, &mem, &regs, NULL, 0) == X86_DONE);
    CHECK_EQ(regs.gpr[VMM_RCX], 0x0b8b0389);
}

/* An interrupt table at 0x2000 with gate `vector` to 0x1008 in segment 8, and its segment table at
   0x3000: code of `attr` for rings 0 and 3 (8, 0x23), data of both (0x10, 0x2b). */
static void start_gate(unsigned bits, uint8_t vector, uint8_t type, uint16_t attr)
{
    unsigned size = bits == 64 ? 16 : 8;
    uint8_t *d = ram + 0x2000 + size * vector, *gdt = ram + 0x3000;
    const uint16_t seg[6] = {0, attr, 0xc093, 0, attr | 0x60, 0xc0f3};

    start(bits);
    regs.idt = (struct vmm_x86_seg){.base = 0x2000, .limit = 0xfff};
    regs.gdt = (struct vmm_x86_seg){.base = 0x3000, .limit = sizeof seg * 4 - 1};
    regs.cs.selector = 8;
    regs.ss.selector = 0x10;
    vmm_put16(d, 0x1008);
    vmm_put16(d + 2, 8);
    d[5] = type;
    for (unsigned i = 1; i < 6; i++) {
        vmm_put16(gdt + 8 * i, 0xffff);
        gdt[8 * i + 5] = (uint8_t)seg[i];
        gdt[8 * i + 6] = (uint8_t)(seg[i] >> 8 | 15);
    }
}

static void test_gates(void)
{
    static const struct {
        unsigned bits;
        uint8_t type;
        uint16_t attr;
        bool there;
        uint8_t word;
    } t[] = {
        {64, 0x8e, 0xa09b, true, 8},  {64, 0xef, 0xa09b, true, 8}, /* interrupt, trap from ring 3 */
        {64, 0x8e, 0xc09b, false, 8},                              /* no 64-bit code */
        {64, 0x86, 0xa09b, false, 8}, {64, 0x0e, 0xa09b, false, 8}, /* 16 bits, not present */
        {64, 0x8c, 0xa09b, false, 8}, {32, 0x8e, 0xc09b, true, 4},
        {32, 0x87, 0xc09b, true, 2},  {32, 0x85, 0xc09b, false, 2}, /* a task */
        {32, 0x8e, 0xc0fb, false, 4}, {32, 0x8e, 0xc09f, false, 4}, /* of ring 3, conforming */
        {32, 0x8e, 0xc093, false, 4}, {32, 0x8e, 0xc01b, false, 4}, /* data, not present */
    };
    struct x86_gate g;

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        start_gate(t[i].bits, X86_BP, t[i].type, t[i].attr);
        if (!CHECK_EQ(x86_gate_find(&mem, &regs, X86_BP, &g), t[i].there ? 0 : -ENOENT))
            fprintf(stderr, "# %u\n", i);
        if (t[i].there)
            CHECK(g.offset == 0x1008 && g.base == 0 && g.selector == 8 && g.word == t[i].word &&
                  g.gpa == 0x2000 + X86_BP * (t[i].bits == 64 ? 16 : 8));
    }
    start_gate(64, X86_BP, 0x8e, 0xa09b);
    vmm_put16(ram + 0x2036, 0x8100);
    vmm_put32(ram + 0x2038, 0xffffffff);
    CHECK(x86_gate_find(&mem, &regs, X86_BP, &g) == 0 && g.offset == 0xffffffff81001008 &&
          g.bits == 64);
    regs.idt.limit = 0x3e;
    CHECK_EQ(x86_gate_find(&mem, &regs, X86_BP, &g), -ENOENT);
    regs.idt.limit = 0x3f;
    CHECK_EQ(x86_gate_find(&mem, &regs, X86_BP, &g), 0);
    regs.gdt.limit = 0xe;
    CHECK_EQ(x86_gate_find(&mem, &regs, X86_BP, &g), -ENOENT);
    regs.idt.base = RAM;
    CHECK_EQ(x86_gate_find(&mem, &regs, X86_BP, &g), -ENOENT);
    start(16);
    regs.cr0 = 0;
    regs.idt = (struct vmm_x86_seg){.limit = 0x3ff};
    CHECK_EQ(x86_gate_find(&mem, &regs, X86_DB, &g), -ENOENT); /* all zero */
    vmm_put16(ram + 4, 0xff53);
    vmm_put16(ram + 6, 0xf000);
    CHECK(x86_gate_find(&mem, &regs, X86_DB, &g) == 0 && g.gpa == 4 && g.offset == 0xff53 &&
          g.base == 0xf0000 && g.selector == 0xf000 && g.word == 2 && g.bits == 16);
}

/* Where exceptions are caught: never where an instruction begins, nor where the next page has the
   rest of it. */
static void test_snare(void)
{
    /* in al, dx; out 0xee, al; mov rdi, rsp; sub rsp, 8; jmp to 0xe4e4e4 behind it */
    static const uint8_t code[] = {0xec, 0xe6, 0xee, 0x48, 0x89, 0xe7, 0x48, 0x83,
                                   0xec, 0x08, 0xe9, 0xe4, 0xe4, 0xe4, 0x00};
    struct x86_gate g;
    uint64_t at;

    start_gate(64, X86_DB, 0x8e, 0xa09b);
    memcpy(ram + 0x1008, code, sizeof code);
    CHECK_EQ(x86_gate_find(&mem, &regs, X86_DB, &g), 0);
    CHECK(x86_gate_snare(&mem, NULL, &regs, &g, false, &at) == 0 && at == 0x100a);
    CHECK(x86_gate_snare(&mem, NULL, &regs, &g, true, &at) == 0 && at == 0x100d);
    g.offset = 0x1012; /* and what is before it comes last */
    CHECK(x86_gate_snare(&mem, NULL, &regs, &g, false, &at) == 0 && at == 0x1014);
    g.offset = 0x1020;
    CHECK(x86_gate_snare(&mem, NULL, &regs, &g, false, &at) == 0 && at == 0x100a);
    memset(ram + 0x1000, 0x90, 4096);
    CHECK_EQ(x86_gate_snare(&mem, NULL, &regs, &g, false, &at), -ENOENT);
    memcpy(ram + 0x1ffe, "\x89\xe5", 2);
    CHECK_EQ(x86_gate_snare(&mem, NULL, &regs, &g, true, &at), -ENOENT);
    memcpy(ram + 0x1ffc, "\x48\x83\xec\x08", 4);
    CHECK(x86_gate_snare(&mem, NULL, &regs, &g, false, &at) == 0 && at == 0x1ffe);
    memset(ram + 0x8000, 0x90, 4096);
    memcpy(ram + 0x8410, "\x89\xe5", 2);
    g = (struct x86_gate){.base = 0xffff8800, .offset = 0x10000, .bits = 32, .word = 4};
    CHECK_EQ(x86_gate_snare(&mem, NULL, &regs, &g, true, &at), -ENOENT); /* below 0x10000 */
    g.base += 0x10;
    memcpy(ram + 0x8ff0, "\x89\xe5", 2);
    CHECK(x86_gate_snare(&mem, NULL, &regs, &g, true, &at) == 0 && at == 0x107e1);
    memset(rom, 0x90, sizeof rom);
    memcpy(rom + 0x10, "\x89\xe5", 2);
    memset(&rom_mem, 0, sizeof rom_mem);
    CHECK(vmm_mem_add(&rom_mem, 0xf0000, sizeof rom, rom) == 0);
    g = (struct x86_gate){.base = 0xf0000, .offset = 0xfff, .bits = 16, .word = 2};
    CHECK(x86_gate_snare(&mem, &rom_mem, &regs, &g, true, &at) == 0 && at == 0x11);
    CHECK_EQ(x86_gate_snare(&mem, NULL, &regs, &g, true, &at), -ENOENT);
}

static void push(unsigned word, uint64_t at, const uint64_t *val, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        memcpy(ram + at + i * word, &val[i], word);
    regs.gpr[VMM_RSP] = at;
}

static void test_undeliver(void)
{
    const uint64_t kernel[] = {0xffffffff81001234, 8, 0x10346, 0x8000, 0x10};
    const uint64_t user[] = {0x7f0000001234, 0x23, 0x246, 0x7fffff000000, 0x2b};
    const uint64_t v86[] = {0x1234, 0x23, 0x20246, 0x7000, 0x2b};
    const uint64_t null[] = {0x1234, 8, 0x246, 0x7000, 0};
    struct vmm_x86_regs were;

    start_gate(64, X86_DB, 0x8e, 0xa09b);
    push(8, 0x7000, kernel, 5);
    were = regs;
    CHECK_EQ(x86_undeliver(&mem, &regs, 8), 0);
    CHECK(regs.rip == kernel[0] && regs.rflags == 0x10346 && regs.gpr[VMM_RSP] == 0x8000);
    CHECK(!memcmp(&regs.cs, &were.cs, sizeof regs.cs) &&
          !memcmp(&regs.ss, &were.ss, sizeof regs.ss));
    regs = were;
    regs.ss =
        (struct vmm_x86_seg){.attr = 0}; /* as every handler has it that came from a program */
    push(8, 0x7000, null, 5);
    CHECK(x86_undeliver(&mem, &regs, 8) == 0 && regs.ss.attr == 0 && regs.rip == 0x1234);

    push(8, 0x7000, user, 5);
    CHECK_EQ(x86_undeliver(&mem, &regs, 8), 0);
    CHECK(regs.rip == user[0] && regs.gpr[VMM_RSP] == user[3]);
    CHECK(regs.cs.selector == 0x23 && regs.cs.attr == 0xa0fb && regs.cs.base == 0);
    CHECK(regs.ss.selector == 0x2b && regs.ss.attr == 0xc0f3 && regs.ss.limit == 0xffffffff);

    start_gate(32, X86_DB, 0x8e, 0xc09b);
    push(4, 0x7000, kernel, 3);
    CHECK_EQ(x86_undeliver(&mem, &regs, 4), 0);
    CHECK(regs.rip == 0x81001234 && regs.gpr[VMM_RSP] == 0x700c);
    ram[0x3000 + 8 * 4 + 7] = 0x12; /* a base */
    push(4, 0x7000, user, 5);
    CHECK_EQ(x86_undeliver(&mem, &regs, 4), 0);
    CHECK(regs.cs.base == 0x12000000 && regs.cs.attr == 0xc0fb && regs.gpr[VMM_RSP] == 0xff000000);
    start_gate(32, X86_DB, 0x8e, 0xc09b);
    push(4, 0x7000, v86, 5);
    were = regs;
    CHECK_EQ(x86_undeliver(&mem, &regs, 4), -EFAULT);
    CHECK(!memcmp(&regs, &were, sizeof regs));
    push(4, 0x7000, user, 5);
    were = regs;
    ram[0x3000 + 8 * 5 + 5] = 0x93; /* a stack of ring 0 for code of ring 3 */
    CHECK_EQ(x86_undeliver(&mem, &regs, 4), -EFAULT);
    regs.gpr[VMM_RSP] = RAM - 8;
    CHECK_EQ(x86_undeliver(&mem, &regs, 4), -EFAULT);
    regs.gpr[VMM_RSP] = were.gpr[VMM_RSP];
    CHECK(!memcmp(&regs, &were, sizeof regs));

    start(16);
    regs.cr0 = 0;
    regs.ss.attr = 0x0093;
    regs.ss.base = 0x4000;
    regs.rflags = 0x40002;
    push(2, 0x7000, (const uint64_t[]){0xff53, 0xf000, 0x246}, 3);
    regs.gpr[VMM_RSP] = 0x55553000;
    CHECK_EQ(x86_undeliver(&mem, &regs, 2), 0);
    CHECK(regs.rip == 0xff53 && regs.cs.base == 0xf0000 && regs.cs.selector == 0xf000);
    CHECK(regs.rflags == 0x40246 && regs.gpr[VMM_RSP] == 0x55553006);
}

static void test_cpuid(void)
{
    const struct x86_cpuid_desc d = {
        .ncpus = 3, .id = 2, .tsc_hz = 2500000000, .lapic_hz = 1000000000, .x2apic = true};
    const struct x86_cpuid_desc one = {.tsc_deadline = true};
    uint32_t r[4] = {0x12345, 0, ~0u, ~0u};

    x86_cpuid(&d, 1, 0, r);
    CHECK_EQ(r[0], 0x12345);
    CHECK_EQ(r[1], 2u << 24 | 4u << 16);
    CHECK_EQ(r[2] & (1u << 31 | 1u << 21 | 1u << 24 | 1u << 5 | 1u << 3), 1u << 31 | 1u << 21);
    CHECK_EQ(r[3] & (1u << 28 | 1u << 22 | 1u << 12), 1u << 28 | 1u << 12);
    memset(r, 0, sizeof r);
    x86_cpuid(&one, 1, 0, r);
    CHECK_EQ(r[2], 1u << 31 | 1u << 24);
    CHECK_EQ(r[3] & 1u << 28, 0);
    x86_cpuid(&d, 0xb, 0, r);
    CHECK(r[0] == 0 && r[1] == 1 && r[2] == 0x100 && r[3] == 2);
    x86_cpuid(&d, 0xb, 1, r);
    CHECK(r[0] == 2 && r[1] == 3 && r[2] == 0x201 && r[3] == 2);
    x86_cpuid(&d, 0x1f, 2, r);
    CHECK(r[0] == 0 && r[1] == 0 && r[2] == 2 && r[3] == 2);
    memcpy(r, (uint32_t[]){0xffffc163, 1, 2, 3}, sizeof r);
    x86_cpuid(&d, 4, 3, r);
    CHECK_EQ(r[0], 3u << 26 | 3u << 14 | 0x163);
    x86_cpuid(&d, 0x80000008, 0, r);
    CHECK_EQ(r[2] & 0xf0ff, 0x2002);
    x86_cpuid(&d, 0x40000000, 0, r);
    CHECK(r[0] == 0x40000010 && !memcmp(&r[1], "KVMKVMKVM\0\0\0", 12));
    x86_cpuid(&d, 0x40000001, 0, r);
    CHECK(!(r[0] | r[1] | r[2] | r[3]));
    x86_cpuid(&d, 0x40000010, 0, r);
    CHECK(r[0] == 2500000 && r[1] == 1000000);
    x86_cpuid(&d, 0x15, 0, r);
    CHECK_EQ((uint64_t)r[2] * r[1] / r[0], d.tsc_hz);
    x86_cpuid(&one, 0x15, 0, r);
    CHECK(!(r[0] | r[1] | r[2] | r[3]));
    memset(r, 0xff, sizeof r);
    x86_cpuid(&d, 0xa, 0, r);
    CHECK(!(r[0] | r[1] | r[2] | r[3]));
}

static void test_msrs(void)
{
    struct x86_msrs m;
    uint64_t val;

    x86_msr_reset(&m);
    CHECK(x86_msr_read(&m, 0x2ff, &val) == 0 && val == 0x806);
    CHECK(x86_msr_read(&m, 0xfe, &val) == 0 && val == 0x508);
    CHECK(x86_msr_write(&m, 0xfe, 0) == -EINVAL);
    CHECK(x86_msr_write(&m, 0x2ff, 0xc06) == 0);
    CHECK(x86_msr_write(&m, 0x2ff, 0xc02) == -EINVAL); /* no such type */
    CHECK(x86_msr_write(&m, 0x2ff, 0x1006) == -EINVAL);
    CHECK(x86_msr_write(&m, 0x200, 0xc0000006) == 0);
    CHECK(x86_msr_write(&m, 0x201, 0xfc0000800) == 0);
    CHECK(x86_msr_write(&m, 0x201, 0xfc0000801) == -EINVAL);
    CHECK(x86_msr_write(&m, 0x210, 0) == -ENOENT);
    CHECK(x86_msr_read(&m, 0x201, &val) == 0 && val == 0xfc0000800);
    CHECK(x86_msr_write(&m, 0x26f, 0x0606060605050505) == 0);
    CHECK(x86_msr_write(&m, 0x26f, 0x0306060605050505) == -EINVAL);
    CHECK(x86_msr_write(&m, 0x8b, 0) == 0);
    CHECK(x86_msr_read(&m, 0x3a, &val) == 0 && val == 1);
    CHECK(x86_msr_write(&m, 0x3a, 5) == -EINVAL);
    CHECK(x86_msr_read(&m, 0x1b, &val) == -ENOENT);
    CHECK(x86_msr_read(&m, 0x48, &val) == -ENOENT);
    CHECK(x86_msr_read(&m, 0x1a0, &val) == 0 && val == 1);
    CHECK(x86_msr_read(&m, 0xc0010015, &val) == 0 && val == 1 << 24);
}

int main(void)
{
    test_stores();
    test_loads();
    test_both();
    test_parts();
    test_rep();
    test_walk();
    test_fetch_for_fault();
    test_faults();
    test_fetch();
    test_segments();
    test_ports();
    test_rom();
    test_gates();
    test_snare();
    test_undeliver();
    test_cpuid();
    test_msrs();
    CHECK_DONE("test_x86");
}
