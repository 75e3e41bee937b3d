/* test_debug.c - debug.h on guests made by hand                    MIT licence, see LICENSE

   Page tables are written out here once more from the SDM, entry by entry. */
#define DEBUG_IMPLEMENTATION
#include "../debug.h"

#include "check.h"

enum { P = 1, W = 2, U = 4, PS = 0x80, RAM = 0x20000, HOLE = 0x40000000 };
#define NX  (1ull << 63)
#define TOP 0x100000000ull /* a second piece of memory, beyond 4 GiB */

static uint8_t ram[RAM], top[0x3000];
static struct vmm_mem mem;

static void put(uint64_t table, unsigned index, unsigned size, uint64_t entry)
{
    memcpy(vmm_at(&mem, table + index * size, size), &entry, size);
}

static void start(void)
{
    memset(ram, 0, sizeof ram);
    memset(&mem, 0, sizeof mem);
    CHECK(vmm_mem_add(&mem, 0, sizeof ram, ram) == 0);
    CHECK(vmm_mem_add(&mem, TOP, sizeof top, top) == 0);
}

/* An address, and what is expected behind it. */
struct walk {
    uint64_t gva;
    int err;
    uint64_t gpa, left;
    bool writable, user, exec;
};

static void walks(const struct vmm_x86_regs *r, const struct walk *w, unsigned n)
{
    struct dbg_page page;

    for (unsigned i = 0; i < n; i++, w++) {
        CHECK_EQ(dbg_x86_walk(&mem, r, w->gva, &page), w->err);
        if (w->err)
            continue;
        CHECK_EQ(page.gpa, w->gpa);
        CHECK_EQ(page.left, w->left);
        CHECK_EQ(page.writable, w->writable);
        CHECK_EQ(page.user, w->user);
        CHECK_EQ(page.exec, w->exec);
    }
}

static void test_no_paging(void)
{
    static const struct walk want[] = {{0x1234, 0, 0x1234, 0xdcc, true, true, true},
                                       {0xfffffff0, 0, 0xfffffff0, 0x10, true, true, true}};
    struct vmm_x86_regs r = {.cr3 = 0x1000};

    start();
    walks(&r, want, 2);
}

static void test_32bit(void)
{
    static const struct walk want[] = {
        {0x00401234, 0, 0x7234, 0xdcc, true, false, true},
        {0x00402000, -EFAULT, 0, 0, false, false, false},
        {0x00800000, -EFAULT, 0, 0, false, false, false},
        {0x00c12345, 0, 0x1200012345ull + 0x800000, 0x3edcbb, false, true, true},
        {0x100401234ull, -EFAULT, 0, 0, false, false, false},
    };
    struct vmm_x86_regs r = {.cr0 = 0x80000001, .cr3 = 0x1018, .cr4 = 1 << 4};

    start();
    put(0x1000, 1, 4, 0x2000 | P | W);
    put(0x2000, 1, 4, 0x7000 | P | W | U);
    put(0x1000, 3, 4, 0x00800000 | 0x12 << 13 | PS | P | U);
    walks(&r, want, 5);
    r.cr4 = 0; /* without PSE the same entry is a table: outside of memory */
    CHECK_EQ(dbg_x86_walk(&mem, &r, 0x00c12345, &(struct dbg_page){0}), -EFAULT);
}

static void test_pae(void)
{
    static const struct walk want[] = {
        {0x40003456, 0, TOP + 0x1456, 0xbaa, true, true, false},
        {0x40212345, 0, 0x400000 + 0x12345, 0x1edcbb, true, false, true},
        {0x00003456, -EFAULT, 0, 0, false, false, false},
    };
    struct vmm_x86_regs r = {.cr0 = 0x80000001, .cr3 = 0x1020, .cr4 = 1 << 5, .efer = 1 << 11};

    start();
    put(0x1020, 1, 8, 0x2000 | P);
    put(0x2000, 0, 8, 0x3000 | P | W | U);
    put(0x3000, 3, 8, NX | (TOP + 0x1000) | P | W | U);
    put(0x2000, 1, 8, 0x400000 | PS | P | W);
    walks(&r, want, 3);
}

static void test_4level(void)
{
    static const struct walk want[] = {
        {0xffffffff80001abc, 0, 0x7abc, 0x544, false, false, true},
        {0xffffffff80212345, 0, 0x600000 + 0x12345, 0x1edcbb, true, false, true},
        {0xffffffffc0123456, 0, 0x140000000 + 0x123456, 0x3fedcbaa, true, false, true},
        {0x0000ffff80001abc, -EFAULT, 0, 0, false, false, false}, /* not canonical */
        {0xffff7fffffffffff, -EFAULT, 0, 0, false, false, false},
        {0x0000000000000000, -EFAULT, 0, 0, false, false, false},
    };
    struct vmm_x86_regs r = {
        .cr0 = 0x80000001, .cr3 = 0x1fff, .cr4 = 1 << 5, .efer = 1 << 10 | 1 << 11};

    start();
    put(0x1000, 511, 8, 0x2000 | P | W);
    put(0x2000, 510, 8, 0x3000 | P | W);
    put(0x2000, 511, 8, 0x140000000 | PS | P | W);
    put(0x3000, 0, 8, 0x4000 | P | W);
    put(0x4000, 1, 8, 0x7000 | P | U);
    put(0x3000, 1, 8, 0x600000 | PS | P | W);
    walks(&r, want, 6);
    r.cr3 = HOLE;
    CHECK_EQ(dbg_x86_walk(&mem, &r, want[0].gva, &(struct dbg_page){0}), -EFAULT);
}

static void test_5level(void)
{
    static const struct walk want[] = {
        {0xff00000000000123, 0, 0x7123, 0xedd, true, false, true},
        {0x0100000000000000, -EFAULT, 0, 0, false, false, false},
    };
    struct vmm_x86_regs r = {
        .cr0 = 0x80000001, .cr3 = 0x1000, .cr4 = 1 << 5 | 1 << 12, .efer = 1 << 10};

    start();
    put(0x1000, 256, 8, 0x2000 | P | W);
    for (unsigned level = 2; level <= 5; level++)
        put(0x1000 * level, 0, 8, 0x1000 * (level == 5 ? 7 : level + 1) | P | W);
    walks(&r, want, 2);
}

/* Two neighbouring pages that are far apart in memory, then nothing. */
static void test_read_write(void)
{
    struct vmm_x86_regs r = {.cr0 = 0x80000001, .cr3 = 0x1000, .cr4 = 1 << 5, .efer = 1 << 10};
    char text[32] = "";

    start();
    for (unsigned level = 1; level <= 3; level++)
        put(0x1000 * level, 0, 8, 0x1000 * (level + 1) | P);
    put(0x4000, 0, 8, 0x9000 | P);
    put(0x4000, 1, 8, (TOP + 0x2000) | P);
    put(0x4000, 2, 8, HOLE | P);
    CHECK_EQ(dbg_x86_write(&mem, &r, 0xffa, "across pages", 12), 12);
    CHECK(memcmp(ram + 0x9ffa, "across", 6) == 0 && memcmp(top + 0x2000, " pages", 6) == 0);
    CHECK_EQ(dbg_x86_read(&mem, &r, 0xffa, text, 12), 12);
    CHECK(strcmp(text, "across pages") == 0);
    CHECK_EQ(dbg_x86_read(&mem, &r, 0x1ff0, text, sizeof text), 16);
    CHECK_EQ(dbg_x86_write(&mem, &r, 0x1ff0, text, sizeof text), 16);
    CHECK_EQ(dbg_x86_read(&mem, &r, 0x2000, text, 1), 0);
}

/* Bytes in hex, and what they are called. Lengths and names agree with GNU objdump. */
static const struct insn {
    unsigned bits;
    const char *hex, *text;
} insns[] = {
    {64, "f4", "hlt"},
    {64, "fa", "cli"},
    {64, "90", "nop"},
    {64, "f390", "pause"},
    {64, "4990", "xchg r8, rax"},
    {64, "0f01c1", "vmcall"},
    {64, "0f01d1", "xsetbv"},
    {64, "0f01f8", "swapgs"},
    {64, "f30f1efa", "endbr64"},
    {64, "0f30", "wrmsr"},
    {64, "0f0b", "ud2"},
    {64, "0f22d8", "mov cr3, rax"},
    {64, "440f20c0", "mov rax, cr8"},
    {32, "0f22c0", "mov cr0, eax"},
    {64, "0f0138", "invlpg [rax]"},
    {64, "0f011d10000000", "lidt [rip+0x10]"},
    {64, "4889e5", "mov rbp, rsp"},
    {64, "8b4508", "mov eax, dword [rbp+0x8]"},
    {64, "488b44d8f0", "mov rax, qword [rax+rbx*8-0x10]"},
    {64, "4b8d4401ff", "lea rax, [r9+r8-0x1]"},
    {64, "65488b042528000000", "mov rax, qword [gs:0x28]"},
    {64, "8b0510000000", "mov eax, dword [rip+0x10]"},
    {32, "8b0510000000", "mov eax, dword [0x10]"},
    {64, "40b7ff", "mov dil, 0xff"},
    {32, "b7ff", "mov bh, 0xff"},
    {64, "48b8efcdab8967452301", "mov rax, 0x123456789abcdef"},
    {64, "48c7c0ffffffff", "mov rax, 0xffffffffffffffff"},
    {64, "4883ec08", "sub rsp, 0x8"},
    {64, "4883c4f8", "add rsp, 0xfffffffffffffff8"},
    {64, "f0480fb111", "lock cmpxchg qword [rcx], rdx"},
    {64, "f348ab", "rep stosq"},
    {64, "f3a4", "rep movsb"},
    {64, "f2ae", "repne scasb"},
    {64, "ebfe", "jmp 0x1000"},
    {64, "e8fbffffff", "call 0x1000"},
    {64, "0f84fa0f0000", "je 0x2000"},
    {64, "ffd0", "call rax"},
    {64, "41ff2424", "jmp qword [r12]"},
    {64, "c3", "ret"},
    {64, "48cf", "iretq"},
    {64, "cf", "iretd"},
    {64, "ec", "in al, dx"},
    {64, "66ef", "out dx, ax"},
    {64, "e464", "in al, 0x64"},
    {64, "e680", "out 0x80, al"},
    {64, "480fba2e05", "bts qword [rsi], 0x5"},
    {64, "480fc8", "bswap rax"},
    {64, "0fb6c0", "movzx eax, al"},
    {64, "4863d0", "movsxd rdx, eax"},
    {64, "f6c3f7", "test bl, 0xf7"},
    {64, "48f7f1", "div rcx"},
    {64, "48c1e80c", "shr rax, 0xc"},
    {64, "480f44c2", "cmove rax, rdx"},
    {64, "f3480fbcc0", "tzcnt rax, rax"},
    {64, "6aff", "push 0xffffffffffffffff"},
    {64, "4155", "push r13"},
    {64, "0faee8", "lfence"},
    {64, "66670f1f440000", "nop word [eax+eax]"},
    {32, "40", "inc eax"},
    {32, "60", "pusha"},
    {32, "ea785634120800", "jmp 0x8:0x12345678"},
    {32, "a100100000", "mov eax, [0x1000]"},
    {16, "ea5be000f0", "jmp 0xf000:0xe05b"},
    {16, "8ed8", "mov ds, ax"},
    {16, "8b4702", "mov ax, word [bx+0x2]"},
    {16, "268a05", "mov al, byte [es:di]"},
    {16, "a11004", "mov ax, [0x410]"},
    {16, "6631c0", "xor eax, eax"},
    {16, "cd10", "int 0x10"},
    {16, "74fe", "je 0x1000"},
    {16, "0e", "push cs"},
    {64, "0e", "?"}, /* is none in 64-bit code */
    {64, "60", "?"},
    {64, "0f01", "?"}, /* goes on */
    {64, "48b8efcdab", "?"},
    {64, "0fff", "?"},
    {64, "", "?"},
    {64, "666666666666666666666666666666", "?"}, /* prefixes alone */
};

static size_t from_hex(const char *hex, uint8_t *bytes)
{
    size_t n = strlen(hex) / 2;

    for (size_t i = 0; i < n; i++)
        sscanf(hex + 2 * i, "%2hhx", &bytes[i]);
    return n;
}

static void test_disasm(void)
{
    char text[DBG_TEXT_MAX];
    uint8_t bytes[16];

    for (size_t i = 0; i < sizeof insns / sizeof *insns; i++) {
        size_t n = from_hex(insns[i].hex, bytes);
        unsigned len = dbg_x86_disasm(bytes, n, insns[i].bits, 0x1000, text);
        if (!CHECK(strcmp(text, insns[i].text) == 0))
            fprintf(stderr, "%s: %s\n", insns[i].hex, text);
        CHECK_EQ(len, *insns[i].text == '?' ? 0 : n);
    }
}

/* >>symbols */

static void expect(const struct dbg_symbols *s, uint64_t addr, const char *name, uint64_t offset)
{
    struct dbg_symbol got = {.name = "-"};
    bool found = dbg_symbol_at(s, addr, &got);

    CHECK_EQ(found, name != NULL);
    if (!name || !found)
        return;
    if (!CHECK(strcmp(got.name, name) == 0))
        fprintf(stderr, "%llx: %s, not %s\n", (unsigned long long)addr, got.name, name);
    CHECK_EQ(got.offset, offset);
}

static void test_map(void)
{
    static const char map[] = "ffffffff81000000 T _text\nffffffff81000100 t start_it\n"
                              "ffffffff81000080 T between\nnonsense\n\n"
                              "ffffffffc0000000 t in_module\t[module]\nffffffff81000200 T last";
    struct dbg_symbols s;

    CHECK_EQ(dbg_symbols_file(&s, map, sizeof map - 1), 0);
    expect(&s, 0xffffffff81000000, "_text", 0);
    expect(&s, 0xffffffff8100007f, "_text", 0x7f);
    expect(&s, 0xffffffff81000081, "between", 1);
    expect(&s, 0xffffffff810001ff, "start_it", 0xff);
    expect(&s, 0xffffffff81000204, "last", 4);
    expect(&s, 0xffffffffc0000010, "in_module", 0x10);
    expect(&s, 0xffffffff81010200, NULL, 0);
    expect(&s, 0xffffffff80ffffff, NULL, 0);
    CHECK(!dbg_symbols_moved(&s, "start", 0xffffffff91000100));
    CHECK(!dbg_symbols_moved(&s, "start_it", 0xffffffff91000108));
    CHECK(dbg_symbols_moved(&s, "start_it", 0xffffffff91000100));
    expect(&s, 0xffffffff91000081, "between", 1);
    CHECK_EQ(dbg_symbols_file(&s, "hello world", 11), -EINVAL);
    CHECK_EQ(dbg_symbols_file(&s, "", 0), -EINVAL);
    CHECK_EQ(dbg_symbols_file(&s, "0123456789abcdef0 t x", 21), -EINVAL);
}

/* An ELF file with three sections: none, symbols, names. */
static size_t make_elf(uint8_t *f, unsigned bits)
{
    static const char names[] = "\0main\0data\0undefined\0label";
    static const struct {
        uint8_t name, info, section;
        uint32_t value;
    } syms[] = {
        {1, 2, 1, 0x401000}, {6, 1, 1, 0x401010}, {11, 2, 0, 0x401010}, {21, 0, 1, 0x401020}};
    bool w = bits == 64;
    size_t sections = 64, symbols = 256, strings = 448;

    memset(f, 0, 512);
    memcpy(f, w ? "\177ELF\2\1\1" : "\177ELF\1\1\1", 7);
    f[w ? 0x28 : 0x20] = (uint8_t)sections;
    f[w ? 0x3c : 0x30] = 3;
    for (unsigned n = 1; n < 3; n++) {
        uint8_t *h = f + sections + n * (w ? 64 : 40);
        h[4] = n == 1 ? 2 : 3;
        vmm_put16(h + (w ? 0x18 : 0x10), (uint16_t)(n == 1 ? symbols : strings));
        vmm_put16(h + (w ? 0x20 : 0x14), (uint16_t)(n == 1 ? 4 * (w ? 24 : 16) : sizeof names));
        h[w ? 0x28 : 0x18] = n == 1 ? 2 : 0;
    }
    for (unsigned n = 0; n < 4; n++) {
        uint8_t *p = f + symbols + n * (w ? 24 : 16);
        p[0] = syms[n].name;
        vmm_put32(p + (w ? 8 : 4), syms[n].value);
        p[w ? 4 : 12] = syms[n].info;
        p[w ? 6 : 14] = syms[n].section;
    }
    memcpy(f + strings, names, sizeof names);
    return strings + sizeof names;
}

static void test_elf(unsigned bits)
{
    uint8_t file[512], damaged[512];
    struct dbg_symbols s;
    size_t len = make_elf(file, bits);

    CHECK_EQ(dbg_symbols_file(&s, file, len), 0);
    expect(&s, 0x401000, "main", 0);
    expect(&s, 0x401018, "main", 0x18);
    expect(&s, 0x401021, "label", 1);
    expect(&s, 0x400fff, NULL, 0);
    CHECK(dbg_symbols_moved(&s, "label", 0x501020));
    expect(&s, 0x501000, "main", 0);
    CHECK_EQ(dbg_symbols_file(&s, file, len - 1), -EINVAL); /* names go on */
    file[64 + (bits == 64 ? 64 : 40) + 4] = 1;
    CHECK_EQ(dbg_symbols_file(&s, file, len), -ENOENT);
    for (size_t i = 4; i < len; i++) { /* any byte may lie; ASan watches */
        struct dbg_symbol got;
        make_elf(damaged, bits);
        damaged[i] ^= 0xff;
        if (dbg_symbols_file(&s, damaged, len) == 0)
            dbg_symbol_at(&s, 0x401000, &got);
    }
}

/* Linux's tables as scripts/kallsyms makes them, with two tokens that are longer than a letter. */
static void test_linux(bool absolute)
{
    static const char info[] =
        "OSRELEASE=6.1.0\nPAGESIZE=4096\nSYMBOL(_stext)=ffffffff81001000\n"
        "NUMBER(phys_base)=-16773120\nSYMBOL(kallsyms_names)=ffffffff81000100\n"
        "SYMBOL(kallsyms_num_syms)=ffffffff81000000\n"
        "SYMBOL(kallsyms_token_table)=ffffffff81000200\n"
        "SYMBOL(kallsyms_token_index)=ffffffff81000600\n"
        "SYMBOL(kallsyms_offsets)=ffffffff81000020\n"
        "SYMBOL(kallsyms_relative_base)=ffffffff81000008\n";
    static const uint8_t names[] = {3, 'T', 1, 2, 5, 't', 1, 'f', 'o', 'x', 3, 'A', 'p', 'c'};
    static const uint32_t offsets[] = {0x1000, 0x2000, 0x40};
    /* 0xffffffff81000000 lies at 0x1000000 + phys_base = 0x1000 */
    const uint64_t at = 0x1000;
    struct dbg_symbols s;
    uint16_t token = 0;

    start();
    CHECK_EQ(dbg_symbols_linux(&s, &mem), -ENOENT);
    vmm_put32(ram + at, 3);
    vmm_put64(ram + at + 8, 0xffffffff81000000);
    for (unsigned i = 0; i < 3; i++) /* per-CPU ones are absolute: the others count down from -1 */
        vmm_put32(ram + at + 0x20 + 4 * i, absolute && i < 2 ? ~offsets[i] : offsets[i]);
    memcpy(ram + at + 0x100, names, sizeof names);
    for (unsigned i = 0; i < 256; i++) {
        const char *text = i == 1 ? "_s" : i == 2 ? "text" : (const char[]){(char)i, 0};
        vmm_put16(ram + at + 0x600 + 2 * i, token);
        strcpy((char *)ram + at + 0x200 + token, text);
        token = (uint16_t)(token + strlen(text) + 1);
    }
    memcpy(ram + 0x5000, info, sizeof info);
    CHECK_EQ(dbg_symbols_linux(&s, &mem), 0);
    expect(&s, 0xffffffff81001000, "_stext", 0);
    expect(&s, 0xffffffff81001fff, "_stext", 0xfff);
    expect(&s, 0xffffffff81002004, "_sfox", 4);
    expect(&s, 0xffffffff80ffffff, NULL, 0);
    for (size_t i = 0; i < 0x1000; i += i < 0x140 ? 1 : 7) { /* any byte may lie */
        struct dbg_symbol got;
        ram[at + i] ^= 0xff;
        dbg_symbol_at(&s, 0xffffffff81002004, &got);
        ram[at + i] ^= 0xff;
    }
    vmm_put32(ram + at, 0x7fffffff);
    CHECK_EQ(dbg_symbols_linux(&s, &mem), -ENOENT);
}

/* >>stack: a stack between calls, near and through a register, and words that are none. */
static void test_stack(void)
{
    static const uint8_t code[] = {0x90, 0xe8, 0,    0,    0,    0,    0x90, 0xff,
                                   0xd0, 0x90, 0x41, 0xff, 0x54, 0x24, 0x08};
    struct vmm_x86_regs r = {.gpr[VMM_RSP] = 0x8000, .cs.attr = 0x4000};
    uint64_t found[4];

    start();
    memcpy(ram + 0x1000, code, sizeof code);
    vmm_put32(ram + 0x8000, 0x1006); /* behind the call */
    vmm_put32(ram + 0x8004, 0x1007);
    vmm_put32(ram + 0x8008, 0x1009); /* behind call eax */
    vmm_put32(ram + 0x800c, HOLE);
    vmm_put32(ram + 0x8010, 0x100f);
    CHECK_EQ(dbg_x86_stack(&mem, &r, found, 4), 3);
    CHECK_EQ(found[0], 0x1006);
    CHECK_EQ(found[1], 0x1009);
    CHECK_EQ(found[2], 0x100f);
    CHECK_EQ(dbg_x86_stack(&mem, &r, found, 2), 2);
    r.gpr[VMM_RSP] = HOLE;
    CHECK_EQ(dbg_x86_stack(&mem, &r, found, 4), 0);
    CHECK_EQ(dbg_x86_bits(&r), 32);
    r.cs.attr = 0x2000;
    CHECK_EQ(dbg_x86_bits(&r), 16);
    r.efer = 1 << 10;
    CHECK_EQ(dbg_x86_bits(&r), 64);
}

/* arm64: granules of 4, 16 and 64 KiB, both halves, a tag, a block, and what is not mapped. */
static void walks_arm64(const struct vmm_arm64_regs *r, const struct walk *w, unsigned n)
{
    struct dbg_page page;

    for (unsigned i = 0; i < n; i++, w++) {
        if (!CHECK_EQ(dbg_arm64_walk(&mem, r, w->gva, &page), w->err) || w->err)
            continue;
        CHECK_EQ(page.gpa, w->gpa);
        CHECK_EQ(page.left, w->left);
        CHECK_EQ(page.writable, w->writable);
        CHECK_EQ(page.user, w->user);
        CHECK_EQ(page.exec, w->exec);
    }
}

enum { TABLE = 3, BLOCK = 1, PAGE = 3, EL0 = 1 << 6, RO = 1 << 7 };
#define XN (3ull << 53)

static void test_arm64_4k(void)
{
    static const struct walk want[] = {
        {0xffff800008001abc, 0, 0x7abc, 0x544, false, false, true},
        {0xff7f800008001abc, -EFAULT, 0, 0, false, false, false}, /* bit 55 chooses */
        {0x55ff800008001abc, 0, 0x7abc, 0x544, false, false, true},
        {0xffff800008212345, 0, 0x600000 + 0x12345, 0x1edcbb, true, false, false},
        {0xffff800008003000, -EFAULT, 0, 0, false, false, false},
        {0x0000000040000123, 0, 0x5123, 0xedd, true, true, true},
        {0xab00000040000123, 0, 0x5123, 0xedd, true, true, true}, /* tagged */
        {0x0001000040000123, -EFAULT, 0, 0, false, false, false},
    };
    struct vmm_arm64_regs r = {.sctlr_el1 = 1,
                               .tcr_el1 = 25 | 16 << 16 | 2u << 30, /* 39 bits, 48 bits */
                               .ttbr0_el1 = 0x8000,
                               .ttbr1_el1 = 0x1234000000001000};

    start();
    put(0x1000, 256, 8, 0x2000 | TABLE);
    put(0x2000, 0, 8, 0x3000 | TABLE);
    put(0x3000, 64, 8, 0x4000 | TABLE);
    put(0x3000, 65, 8, 0x600000 | BLOCK | XN);
    put(0x4000, 1, 8, 0x7000 | PAGE | RO);
    put(0x4000, 3, 8, 0x7000 | BLOCK); /* no such thing at the lowest level */
    put(0x8000, 1, 8, 0x9000 | TABLE);
    put(0x9000, 0, 8, 0xa000 | TABLE);
    put(0xa000, 0, 8, 0x5000 | PAGE | EL0);
    r.ttbr1_el1 &= 0xffffffffffff;
    walks_arm64(&r, want, 8);
    r.sctlr_el1 = 0;
    CHECK_EQ(dbg_arm64_walk(&mem, &r, 0x1234, &(struct dbg_page){0}), 0);
}

static void test_arm64_granules(void)
{
    static const struct walk want16[] = {
        {0xffff800000004010, 0, 0xc010, 0x3ff0, true, false, true},
        {0xffff000000004010, -EFAULT, 0, 0, false, false, false}, /* the other entry of two */
    };
    static const struct walk want64[] = {
        {0xfffffc0000010020, 0, 0x10020, 0xffe0, true, false, true},
    };
    struct vmm_arm64_regs r = {.sctlr_el1 = 1, .tcr_el1 = 16 << 16 | 1u << 30, .ttbr1_el1 = 0x0};

    start(); /* tables of 16 KiB, the first with two entries alone */
    put(0, 1, 8, 0x4000 | TABLE);
    put(0x4000, 0, 8, 0x8000 | TABLE);
    put(0x8000, 0, 8, 0x10000 | TABLE);
    put(0x10000, 1, 8, 0xc000 | PAGE);
    walks_arm64(&r, want16, 2);
    start(); /* 42 bits, two levels of 64 KiB */
    r.tcr_el1 = 22 << 16 | 3u << 30;
    put(0, 0, 8, 0x10000 | TABLE);
    put(0x10000, 1, 8, 0x10000 | PAGE);
    walks_arm64(&r, want64, 1);
    r.tcr_el1 |= 1 << 23; /* EPD1 */
    CHECK_EQ(dbg_arm64_walk(&mem, &r, want64[0].gva, &(struct dbg_page){0}), -EFAULT);
}

static void test_arm64_stack(void)
{
    struct vmm_arm64_regs r = {.x[29] = 0x8000, .x[30] = 0x00aa800008001234};
    uint64_t found[4], records[] = {0x8020, 0xffff800008002000, 0, 0, 0x8000, 0xffff800008003000};

    start();
    memcpy(ram + 0x8000, records, sizeof records);
    r.x[30] |= 1ull << 55; /* a code of pointer authentication around it */
    CHECK_EQ(dbg_arm64_stack(&mem, &r, found, 4), 3);
    CHECK_EQ(found[0], 0xffff800008001234 | 0xaa800000000000);
    CHECK_EQ(found[1], 0xffff800008002000);
    CHECK_EQ(found[2], 0xffff800008003000); /* then the chain turns back */
    CHECK_EQ(dbg_arm64_stack(&mem, &r, found, 1), 1);
    r.x[29] = HOLE;
    CHECK_EQ(dbg_arm64_stack(&mem, &r, found, 4), 1);
}

static void test_arm64_disasm(void)
{
    static const struct {
        uint32_t insn;
        const char *text;
    } want[] = {
        {0xd503207f, "wfi"},
        {0xd5033fdf, "isb"},
        {0xd4000002, "hvc 0x0"},
        {0xd4210000, "brk 0x800"},
        {0xd65f03c0, "ret x30"},
        {0xd63f0100, "blr x8"},
        {0x14000000, "b 0x1000"},
        {0x97ffffff, "bl 0xffc"},
        {0x54ffffe1, "b.ne 0xffc"},
        {0xb4000041, "cbz x1, 0x1008"},
        {0x35000041, "cbnz w1, 0x1008"},
        {0xd5384240, "mrs x0, s3_0_c4_c2_2"},
        {0xd5181000, "msr s3_0_c1_c0_0, x0"},
        {0xf9400be1, "ldr x1, [sp, 0x10]"},
        {0xb9400001, "ldr w1, [x0]"},
        {0xb900041f, "str wzr, [x0, 0x4]"},
        {0x39000422, "strb w2, [x1, 0x1]"},
        {0xd2a10000, "movz x0, 0x8000000"},
        {0x00000000, "?"},
    };
    char text[DBG_TEXT_MAX];

    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        unsigned len = dbg_arm64_disasm(want[i].insn, 0x1000, text);
        if (!CHECK(strcmp(text, want[i].text) == 0))
            fprintf(stderr, "%08x: %s\n", want[i].insn, text);
        CHECK_EQ(len, *want[i].text == '?' ? 0 : 4);
    }
}

int main(void)
{
    test_arm64_4k();
    test_arm64_granules();
    test_arm64_stack();
    test_arm64_disasm();
    test_stack();
    test_map();
    test_elf(32);
    test_elf(64);
    test_linux(false);
    test_linux(true);
    test_disasm();
    test_no_paging();
    test_32bit();
    test_pae();
    test_4level();
    test_5level();
    test_read_write();
    CHECK_DONE("test_debug");
}
