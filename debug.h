/* debug.h - a look inside a guest                                 MIT licence, see LICENSE

   WHAT IT IS      What a debugger or a crash report asks of a virtual machine: which physical
                   address is behind a linear one, as the guest's own page tables have it ("Intel
                   SDM" volume 3, chapter 4), and what is there; what the instruction at an address
                   is called (general instructions and those of kernels; no vectors); which symbol
                   an address belongs to, by an ELF file, a System.map, or the table that a Linux
                   kernel carries in its own memory; and where a stack came from.

   QUICK START     static bool peek(const struct vmm_mem *mem, const struct vmm_x86_regs *regs)
                   {
                       uint8_t code[16]; // what the CPU will execute next
                       uint64_t rip = regs->cs.base + regs->rip;
                       return dbg_x86_read(mem, regs, rip, code, sizeof code) == sizeof code;
                   }

   CONFIGURATION   set everywhere: VMM_DEF, see vmm.h
                   set in one file: DEBUG_IMPLEMENTATION (or VMM_IMPLEMENTATION)

   DEPENDS ON      vmm.h alone.

   THREADS         Nothing here locks or keeps state. The guest may run meanwhile: what is read is
                   then what was there at some moment.
   MEMORY          The caller's buffers alone.
   ERRORS          0 or -errno, without a sentence: an address without memory is no fault.
   GUEST TRUST     Page tables, stacks and registers may hold anything: every walk is bounded by the
                   depth of the tables or by the caller's buffer, and goes through vmm_at.

   Sections: >>walk >>disasm >>symbols >>stack */
#ifndef DEBUG_H
#define DEBUG_H

#include "vmm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* >>walk: linear addresses, which in 64-bit code are what a pointer holds; elsewhere a segment's
   base is to be added first. */
struct dbg_page {
    uint64_t gpa;              /* of the byte that was asked for */
    uint64_t left;             /* bytes from there to the end of its page */
    bool writable, user, exec; /* what the tables allow at all their levels */
};

/* Where the guest sees a linear address. Neither rights nor accessed and dirty bits matter.
   -EFAULT: not mapped, or a table lies outside of memory. What is found need not be memory. */
VMM_DEF int dbg_x86_walk(const struct vmm_mem *mem, const struct vmm_x86_regs *regs, uint64_t gva,
                         struct dbg_page *page);
/* Copies guest bytes out or in, across pages, and says how many there were before the first page
   that is not mapped to memory. Writes go where the guest itself may not write, too. */
VMM_DEF size_t dbg_x86_read(const struct vmm_mem *mem, const struct vmm_x86_regs *regs,
                            uint64_t gva, void *buf, size_t len);
VMM_DEF size_t dbg_x86_write(const struct vmm_mem *mem, const struct vmm_x86_regs *regs,
                             uint64_t gva, const void *buf, size_t len);

/* >>disasm: what an instruction is called, in the manuals' (Intel's) notation. */
#define DBG_INSN_MAX 15 /* bytes of the longest one */
#define DBG_TEXT_MAX 80 /* bytes of its text, with the terminating 0 */

/* Names the instruction that begins at code, of which len bytes are known; bits: 16, 32 or 64, as
   the code segment has it; rip: its address, to which jumps are relative. Returns its length; 0,
   with "?" as text: it goes on behind len, is no instruction, or one that is not known here. */
VMM_DEF unsigned dbg_x86_disasm(const uint8_t *code, size_t len, unsigned bits, uint64_t rip,
                                char text[DBG_TEXT_MAX]);

#ifdef __cplusplus
}
#endif
#endif /* DEBUG_H */

#if defined(VMM_IMPLEMENTATION) || defined(DEBUG_IMPLEMENTATION)
#ifndef DBG__IMPLEMENTED
#define DBG__IMPLEMENTED

/* >>walk ------------------------------------------------------------------------------------ */

#define DBG__CR0_PG 0x80000000u

enum {
    DBG__CR4_PSE = 1 << 4,
    DBG__CR4_PAE = 1 << 5,
    DBG__CR4_LA57 = 1 << 12,
    DBG__EFER_LMA = 1 << 10,
    DBG__EFER_NXE = 1 << 11,
    DBG__PRESENT = 1,
    DBG__WRITABLE = 2,
    DBG__USER = 4,
    DBG__LARGE = 0x80,
};

/* The shape of the tables: SDM 4.3 (32-bit), 4.4 (PAE), 4.5 (4 and 5 levels). */
struct dbg__paging {
    unsigned levels; /* 0: no paging */
    unsigned bits;   /* of the address that an index takes */
    unsigned size;   /* of an entry, in bytes */
    unsigned large;  /* entries of levels 1 .. large, counted from the lowest, 0, may be pages */
    uint64_t root;
};

static void dbg__paging(const struct vmm_x86_regs *r, struct dbg__paging *p)
{
    static const struct dbg__paging none = {0, 0, 0, 0, 0}, legacy = {2, 10, 4, 0, 0},
                                    pae = {3, 9, 8, 1, 0}, four = {4, 9, 8, 2, 0};

    *p = none;
    if (!(r->cr0 & DBG__CR0_PG))
        return;
    if (r->efer & DBG__EFER_LMA) {
        *p = four;
        p->levels += !!(r->cr4 & DBG__CR4_LA57);
        p->root = r->cr3 & 0xffffffffff000;
    } else if (r->cr4 & DBG__CR4_PAE) {
        *p = pae;
        p->root = r->cr3 & 0xffffffe0;
    } else {
        *p = legacy;
        p->large = !!(r->cr4 & DBG__CR4_PSE);
        p->root = r->cr3 & 0xfffff000;
    }
}

static bool dbg__entry(const struct vmm_mem *mem, const struct dbg__paging *p, uint64_t table,
                       uint64_t gva, unsigned shift, uint64_t *entry)
{
    uint64_t index = gva >> shift & ((1u << p->bits) - 1);
    const void *at = vmm_at(mem, table + index * p->size, p->size);

    if (!at)
        return false;
    *entry = p->size == 8 ? vmm_get64(at) : vmm_get32(at);
    return *entry & DBG__PRESENT;
}

/* The address in an entry. A 4 MiB page of 32-bit paging has bits 32-39 of its own in 13-20. */
static uint64_t dbg__frame(const struct dbg__paging *p, uint64_t entry, unsigned shift)
{
    uint64_t frame = entry & 0xffffffffff000;

    if (p->size == 4 && shift > 12)
        frame = (entry & 0xffc00000) | (entry >> 13 & 0xff) << 32;
    return frame & ~(((uint64_t)1 << shift) - 1);
}

/* Half of the 64-bit addresses between the two canonical ones can be behind no table. */
static bool dbg__canonical(const struct dbg__paging *p, uint64_t gva)
{
    unsigned top = 12 + p->levels * p->bits - 1;

    if (p->levels < 4)
        return gva >> 32 == 0;
    return gva >> top == 0 || gva >> top == ~(uint64_t)0 >> top;
}

/* What an entry allows is allowed if all levels do. The four of PAE's top level carry no rights. */
static void dbg__rights(const struct dbg__paging *p, unsigned level, bool nx, uint64_t entry,
                        struct dbg_page *page)
{
    if (p->levels == 3 && level == 2)
        return;
    page->writable &= !!(entry & DBG__WRITABLE);
    page->user &= !!(entry & DBG__USER);
    page->exec &= !(nx && p->size == 8 && entry >> 63);
}

VMM_DEF int dbg_x86_walk(const struct vmm_mem *mem, const struct vmm_x86_regs *r, uint64_t gva,
                         struct dbg_page *page)
{
    struct dbg__paging p;
    uint64_t entry = 0, within;
    unsigned shift = 12;

    dbg__paging(r, &p);
    page->writable = page->user = page->exec = true;
    page->gpa = gva;
    page->left = 4096 - (gva & 4095);
    if (!p.levels)
        return 0;
    if (!dbg__canonical(&p, gva))
        return -EFAULT;
    for (unsigned level = p.levels; level-- > 0;) {
        shift = 12 + level * p.bits;
        if (!dbg__entry(mem, &p, p.root, gva, shift, &entry))
            return -EFAULT;
        dbg__rights(&p, level, r->efer & DBG__EFER_NXE, entry, page);
        if (level && level <= p.large && entry & DBG__LARGE)
            break;
        p.root = entry & (p.size == 8 ? 0xffffffffff000 : 0xfffff000);
    }
    within = ((uint64_t)1 << shift) - 1;
    page->gpa = dbg__frame(&p, entry, shift) | (gva & within);
    page->left = within + 1 - (gva & within);
    return 0;
}

/* The host's view of the bytes at gva, *n of at most len; NULL: there are none. */
static uint8_t *dbg__x86_at(const struct vmm_mem *mem, const struct vmm_x86_regs *r, uint64_t gva,
                            size_t len, size_t *n)
{
    struct dbg_page page;
    uint64_t left;

    if (dbg_x86_walk(mem, r, gva, &page))
        return NULL;
    left = 4096 - (page.gpa & 4095); /* memory need not go on to the end of a large page */
    *n = len < left ? len : (size_t)left;
    return (uint8_t *)vmm_at(mem, page.gpa, *n);
}

VMM_DEF size_t dbg_x86_read(const struct vmm_mem *mem, const struct vmm_x86_regs *r, uint64_t gva,
                            void *buf, size_t len)
{
    size_t done = 0, n;

    while (done < len) {
        const uint8_t *at = dbg__x86_at(mem, r, gva + done, len - done, &n);
        if (!at)
            break;
        memcpy((uint8_t *)buf + done, at, n);
        done += n;
    }
    return done;
}

VMM_DEF size_t dbg_x86_write(const struct vmm_mem *mem, const struct vmm_x86_regs *r, uint64_t gva,
                             const void *buf, size_t len)
{
    size_t done = 0, n;

    while (done < len) {
        uint8_t *at = dbg__x86_at(mem, r, gva + done, len - done, &n);
        if (!at)
            break;
        memcpy(at, (const uint8_t *)buf + done, n);
        done += n;
    }
    return done;
}

/* >>disasm ---------------------------------------------------------------------------------- */

/* What is read of an instruction, and where its text goes. */
struct dbg__insn {
    const uint8_t *code;
    size_t len, at; /* bytes that are known, and read so far */
    unsigned bits;  /* of the code segment */
    unsigned rex;   /* bits W R X B, or 0 */
    bool has_rex, o16, a_other, overrun;
    unsigned rep;    /* 0xf2, 0xf3 or 0 */
    const char *seg; /* a prefix's, or NULL */
    unsigned modrm;
    bool has_modrm;
    uint64_t rip;
    char *text;
    size_t used;
};

static void dbg__put(struct dbg__insn *i, const char *s)
{
    for (; *s && i->used < DBG_TEXT_MAX - 1; s++)
        i->text[i->used++] = *s;
    i->text[i->used] = 0;
}

static void dbg__put_hex(struct dbg__insn *i, uint64_t v)
{
    char digits[19] = "0x";
    unsigned n = 2, shift = 60;

    while (shift && !(v >> shift))
        shift -= 4;
    for (;; shift -= 4) {
        digits[n++] = "0123456789abcdef"[v >> shift & 15];
        if (!shift)
            break;
    }
    digits[n] = 0;
    dbg__put(i, digits);
}

/* The next n bytes, little-endian; 0 beyond the end, which is remembered. */
static uint64_t dbg__take(struct dbg__insn *i, unsigned n)
{
    uint64_t v = 0;

    if (i->len - i->at < n) {
        i->overrun = true;
        return 0;
    }
    memcpy(&v, i->code + i->at, n);
    i->at += n;
    return v;
}

static uint64_t dbg__take_signed(struct dbg__insn *i, unsigned n)
{
    uint64_t v = dbg__take(i, n), sign = (uint64_t)1 << (8 * n - 1);

    return (v ^ sign) - sign;
}

static unsigned dbg__modrm(struct dbg__insn *i)
{
    if (!i->has_modrm)
        i->modrm = (unsigned)dbg__take(i, 1);
    i->has_modrm = true;
    return i->modrm;
}

/* Bytes of an operand of the size that prefixes choose, and of an address. */
static unsigned dbg__size(const struct dbg__insn *i)
{
    if (i->rex & 8)
        return 8;
    return (i->bits == 16) != i->o16 ? 2 : 4;
}

static unsigned dbg__address_size(const struct dbg__insn *i)
{
    if (i->bits == 64)
        return i->a_other ? 4 : 8;
    return (i->bits == 16) != i->a_other ? 2 : 4;
}

static void dbg__put_reg(struct dbg__insn *i, unsigned reg, unsigned size)
{
    static const char *const names[] = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"};
    static const char *const low[] = {"al", "cl", "dl", "bl", "ah", "ch", "dh", "bh"};
    static const char *const low_rex[] = {"spl", "bpl", "sil", "dil"};

    if (reg >= 8) {
        char name[4] = {'r', reg > 9 ? '1' : (char)('0' + reg),
                        reg > 9 ? (char)('0' + reg - 10) : 0};
        dbg__put(i, name);
        dbg__put(i, size == 1 ? "b" : size == 2 ? "w" : size == 4 ? "d" : "");
    } else if (size == 1) {
        dbg__put(i, i->has_rex && reg >= 4 ? low_rex[reg - 4] : low[reg]);
    } else {
        dbg__put(i, size == 8 ? "r" : size == 4 ? "e" : "");
        dbg__put(i, names[reg]);
    }
}

/* "+0x10", "-0x10"; alone: an address without registers. */
static void dbg__put_disp(struct dbg__insn *i, uint64_t disp, bool alone)
{
    if (alone) {
        dbg__put_hex(i, disp & vmm_ones(dbg__address_size(i)));
    } else if (disp) {
        dbg__put(i, disp >> 63 ? "-" : "+");
        dbg__put_hex(i, disp >> 63 ? 0 - disp : disp);
    }
}

/* 16-bit addressing, SDM volume 2, table 2-1. */
static void dbg__put_mem16(struct dbg__insn *i, unsigned mod, unsigned rm)
{
    static const char *const bases[] = {"bx+si", "bx+di", "bp+si", "bp+di", "si", "di", "bp", "bx"};
    bool alone = mod == 0 && rm == 6;
    uint64_t disp = alone || mod == 2 ? dbg__take_signed(i, 2) : mod ? dbg__take_signed(i, 1) : 0;

    if (!alone)
        dbg__put(i, bases[rm]);
    dbg__put_disp(i, disp, alone);
}

/* 32- and 64-bit addressing, tables 2-2 and 2-3. */
static void dbg__put_mem(struct dbg__insn *i, unsigned mod, unsigned rm)
{
    unsigned sib = rm == 4 ? (unsigned)dbg__take(i, 1) : 0, size = dbg__address_size(i);
    unsigned base = rm == 4 ? sib & 7 : rm, index = (sib >> 3 & 7) | (i->rex & 2 ? 8 : 0);
    bool has_index = rm == 4 && index != 4, no_base = mod == 0 && base == 5;
    uint64_t disp = no_base || mod == 2 ? dbg__take_signed(i, 4) : mod ? dbg__take_signed(i, 1) : 0;

    if (no_base && rm == 5 && i->bits == 64)
        dbg__put(i, "rip");
    else if (!no_base)
        dbg__put_reg(i, base | (i->rex & 1 ? 8 : 0), size);
    if (has_index) {
        static const char *const scales[] = {"", "*2", "*4", "*8"};
        dbg__put(i, no_base ? "" : "+");
        dbg__put_reg(i, index, size);
        dbg__put(i, scales[sib >> 6]);
    }
    dbg__put_disp(i, disp, no_base && !has_index && !(rm == 5 && i->bits == 64));
}

/* The register or memory that a ModRM byte names. */
static void dbg__put_rm(struct dbg__insn *i, unsigned size)
{
    unsigned modrm = dbg__modrm(i), mod = modrm >> 6, rm = modrm & 7;

    if (mod == 3) {
        dbg__put_reg(i, rm | (i->rex & 1 ? 8 : 0), size);
        return;
    }
    dbg__put(i, size == 1   ? "byte "
                : size == 2 ? "word "
                : size == 4 ? "dword "
                : size == 8 ? "qword "
                            : "");
    dbg__put(i, "[");
    if (i->seg) {
        dbg__put(i, i->seg);
        dbg__put(i, ":");
    }
    if (dbg__address_size(i) == 2)
        dbg__put_mem16(i, mod, rm);
    else
        dbg__put_mem(i, mod, rm);
    dbg__put(i, "]");
}

/* An address in the instruction itself (A0-A3), or where a relative jump goes. */
static void dbg__put_moffs(struct dbg__insn *i)
{
    dbg__put(i, "[");
    if (i->seg) {
        dbg__put(i, i->seg);
        dbg__put(i, ":");
    }
    dbg__put_hex(i, dbg__take(i, dbg__address_size(i)));
    dbg__put(i, "]");
}

static void dbg__put_jump(struct dbg__insn *i, unsigned size)
{
    uint64_t by = dbg__take_signed(i, size), to = i->rip + i->at + by;

    dbg__put_hex(i, i->bits == 64 ? to : to & vmm_ones(dbg__size(i) == 2 ? 2 : 4));
}

/* segment:offset, of which the offset comes first. */
static void dbg__put_far(struct dbg__insn *i, unsigned size)
{
    uint64_t offset = dbg__take(i, size);

    dbg__put_hex(i, dbg__take(i, 2));
    dbg__put(i, ":");
    dbg__put_hex(i, offset);
}

/* mov to and from CRn and DRn, and segment registers: the reg field names them. */
static void dbg__put_special(struct dbg__insn *i, char kind)
{
    static const char *const segs[] = {"es", "cs", "ss", "ds", "fs", "gs", "?", "?"};
    unsigned reg = (dbg__modrm(i) >> 3 & 7) | (kind != 'S' && i->rex & 4 ? 8 : 0);
    char name[4] = {kind == 'C' ? 'c' : 'd', 'r', (char)('0' + reg % 8), 0};

    if (reg == 8)
        name[2] = '8';
    dbg__put(i, kind == 'S' ? segs[reg & 7] : name);
}

/* One operand, by the letters of the manuals' opcode map (volume 2, appendix A): E a ModRM operand,
   G its register, I immediate, J relative, A the accumulator, X the register in the opcode; then the
   size: b w d q v (by prefix) z (v, at most 4) y (v, 8 in 64-bit code) n (not said). Without a size:
   K and L an immediate extended, O an address, P a far
   one, R with C and D, S a segment register. Anything else is text. */
static const char *dbg__operand(struct dbg__insn *i, const char *s, unsigned opcode)
{
    unsigned v = dbg__size(i), size;

    if (*s < 'A' || *s > 'Z') {
        char c[2] = {*s, 0};
        dbg__put(i, c);
        return s + 1;
    }
    size = s[1] == 'b' ? 1 : s[1] == 'w' ? 2 : s[1] == 'd' ? 4 : s[1] == 'q' ? 8 : v;
    size = s[1] == 'z' && size == 8 ? 4 : s[1] == 'y' && i->bits == 64 && size == 4 ? 8 : size;
    size = s[1] == 'n' ? 0 : size;
    switch (*s) {
    case 'E':
        dbg__put_rm(i, size);
        break;
    case 'G':
        dbg__put_reg(i, (dbg__modrm(i) >> 3 & 7) | (i->rex & 4 ? 8 : 0), size);
        break;
    case 'I':
        dbg__put_hex(i, size < v && size > 2 ? dbg__take_signed(i, size) : dbg__take(i, size));
        break;
    case 'J':
        dbg__put_jump(i, size);
        break;
    case 'A':
        dbg__put_reg(i, 0, size);
        break;
    case 'X':
        dbg__put_reg(i, (opcode & 7) | (i->rex & 1 ? 8 : 0), size);
        break;
    case 'K': /* one byte that is extended */
        size = i->bits == 64 && opcode == 0x6a ? 8 : v; /* push */
        dbg__put_hex(i, dbg__take_signed(i, 1) & vmm_ones(size));
        return s + 1;
    case 'L': /* two or four, extended to what push takes */
        size = v == 2 ? 2 : 4;
        dbg__put_hex(i, dbg__take_signed(i, size) & vmm_ones(i->bits == 64 ? 8 : size));
        return s + 1;
    case 'O':
        dbg__put_moffs(i);
        return s + 1;
    case 'P':
        dbg__put_far(i, v);
        return s + 1;
    case 'R': /* with CRn and DRn: a register, whatever the upper bits of ModRM say */
        dbg__put_reg(i, (dbg__modrm(i) & 7) | (i->rex & 1 ? 8 : 0), i->bits == 64 ? 8 : 4);
        return s + 1;
    default:
        dbg__put_special(i, *s);
        return s + 1;
    }
    return s + 2;
}

/* Names of eight that share one opcode or follow each other. */
static const char *const dbg__alu[] = {"add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"};
static const char *const dbg__shift[] = {"rol", "ror", "rcl", "rcr", "shl", "shr", "sal", "sar"};
static const char *const dbg__unary[] = {"test", "test", "not", "neg",
                                         "mul",  "imul", "div", "idiv"};
static const char *const dbg__cond[] = {"o", "no", "b", "ae", "e", "ne", "be", "a",
                                        "s", "ns", "p", "np", "l", "ge", "le", "g"};

/* One way to read some opcodes: a name and operands. % is a name that the group chooses: 'a' of
   dbg__alu by the opcode's bits 3-5, 'c' of dbg__cond by its bits 0-3; by the ModRM byte's reg field
   'A' of dbg__alu, 's' of dbg__shift, 'u' of dbg__unary. The other groups: 'r' a string instruction,
   'w' a name by operand size, 'p' nop or pause, '6' and '3' only in 64-bit code and never there,
   'F' only after prefix F3. */
enum { DBG__ANY = 8, DBG__MEM = 16 };

struct dbg__form {
    uint8_t mask, value; /* of the opcode */
    uint8_t reg;         /* of ModRM: its reg field, or ANY; and MEM: only if it names memory */
    char group;
    const char *text;
};

static const struct dbg__form dbg__one[] = {
    {0xc7, 0x00, DBG__ANY, 'a', "% Eb, Gb"},
    {0xc7, 0x01, DBG__ANY, 'a', "% Ev, Gv"},
    {0xc7, 0x02, DBG__ANY, 'a', "% Gb, Eb"},
    {0xc7, 0x03, DBG__ANY, 'a', "% Gv, Ev"},
    {0xc7, 0x04, DBG__ANY, 'a', "% Ab, Ib"},
    {0xc7, 0x05, DBG__ANY, 'a', "% Av, Iz"},
    {0xff, 0x06, DBG__ANY, '3', "push es"},
    {0xff, 0x07, DBG__ANY, '3', "pop es"},
    {0xff, 0x0e, DBG__ANY, '3', "push cs"},
    {0xff, 0x16, DBG__ANY, '3', "push ss"},
    {0xff, 0x17, DBG__ANY, '3', "pop ss"},
    {0xff, 0x1e, DBG__ANY, '3', "push ds"},
    {0xff, 0x1f, DBG__ANY, '3', "pop ds"},
    {0xf8, 0x40, DBG__ANY, 0, "inc Xv"}, /* these two are REX in 64-bit code */
    {0xf8, 0x48, DBG__ANY, 0, "dec Xv"},
    {0xf8, 0x50, DBG__ANY, 0, "push Xy"},
    {0xf8, 0x58, DBG__ANY, 0, "pop Xy"},
    {0xff, 0x60, DBG__ANY, '3', "pusha"},
    {0xff, 0x61, DBG__ANY, '3', "popa"},
    {0xff, 0x63, DBG__ANY, '6', "movsxd Gv, Ed"},
    {0xff, 0x68, DBG__ANY, 0, "push L"},
    {0xff, 0x69, DBG__ANY, 0, "imul Gv, Ev, Iz"},
    {0xff, 0x6a, DBG__ANY, 0, "push K"},
    {0xff, 0x6b, DBG__ANY, 0, "imul Gv, Ev, K"},
    {0xff, 0x6c, DBG__ANY, 'r', "insb"},
    {0xff, 0x6d, DBG__ANY, 'r', "insv"},
    {0xff, 0x6e, DBG__ANY, 'r', "outsb"},
    {0xff, 0x6f, DBG__ANY, 'r', "outsv"},
    {0xf0, 0x70, DBG__ANY, 'c', "j% Jb"},
    {0xff, 0x80, DBG__ANY, 'A', "% Eb, Ib"},
    {0xff, 0x81, DBG__ANY, 'A', "% Ev, Iz"},
    {0xff, 0x83, DBG__ANY, 'A', "% Ev, K"},
    {0xff, 0x84, DBG__ANY, 0, "test Eb, Gb"},
    {0xff, 0x85, DBG__ANY, 0, "test Ev, Gv"},
    {0xff, 0x86, DBG__ANY, 0, "xchg Eb, Gb"},
    {0xff, 0x87, DBG__ANY, 0, "xchg Ev, Gv"},
    {0xff, 0x88, DBG__ANY, 0, "mov Eb, Gb"},
    {0xff, 0x89, DBG__ANY, 0, "mov Ev, Gv"},
    {0xff, 0x8a, DBG__ANY, 0, "mov Gb, Eb"},
    {0xff, 0x8b, DBG__ANY, 0, "mov Gv, Ev"},
    {0xff, 0x8c, DBG__ANY, 0, "mov Ew, S"},
    {0xff, 0x8d, DBG__ANY | DBG__MEM, 0, "lea Gv, En"},
    {0xff, 0x8e, DBG__ANY, 0, "mov S, Ew"},
    {0xff, 0x8f, 0, 0, "pop Ey"},
    {0xff, 0x90, DBG__ANY, 'p', "nop"},
    {0xf8, 0x90, DBG__ANY, 0, "xchg Xv, Av"},
    {0xff, 0x98, DBG__ANY, 'w', "cbw|cwde|cdqe"},
    {0xff, 0x99, DBG__ANY, 'w', "cwd|cdq|cqo"},
    {0xff, 0x9c, DBG__ANY, 0, "pushf"},
    {0xff, 0x9d, DBG__ANY, 0, "popf"},
    {0xff, 0xa0, DBG__ANY, 0, "mov Ab, O"},
    {0xff, 0xa1, DBG__ANY, 0, "mov Av, O"},
    {0xff, 0xa2, DBG__ANY, 0, "mov O, Ab"},
    {0xff, 0xa3, DBG__ANY, 0, "mov O, Av"},
    {0xff, 0xa4, DBG__ANY, 'r', "movsb"},
    {0xff, 0xa5, DBG__ANY, 'r', "movsv"},
    {0xff, 0xa6, DBG__ANY, 'r', "cmpsb"},
    {0xff, 0xa7, DBG__ANY, 'r', "cmpsv"},
    {0xff, 0xa8, DBG__ANY, 0, "test Ab, Ib"},
    {0xff, 0xa9, DBG__ANY, 0, "test Av, Iz"},
    {0xff, 0xaa, DBG__ANY, 'r', "stosb"},
    {0xff, 0xab, DBG__ANY, 'r', "stosv"},
    {0xff, 0xac, DBG__ANY, 'r', "lodsb"},
    {0xff, 0xad, DBG__ANY, 'r', "lodsv"},
    {0xff, 0xae, DBG__ANY, 'r', "scasb"},
    {0xff, 0xaf, DBG__ANY, 'r', "scasv"},
    {0xf8, 0xb0, DBG__ANY, 0, "mov Xb, Ib"},
    {0xf8, 0xb8, DBG__ANY, 0, "mov Xv, Iv"},
    {0xff, 0xc0, DBG__ANY, 's', "% Eb, Ib"},
    {0xff, 0xc1, DBG__ANY, 's', "% Ev, Ib"},
    {0xff, 0xc2, DBG__ANY, 0, "ret Iw"},
    {0xff, 0xc3, DBG__ANY, 0, "ret"},
    {0xff, 0xc6, 0, 0, "mov Eb, Ib"},
    {0xff, 0xc7, 0, 0, "mov Ev, Iz"},
    {0xff, 0xc9, DBG__ANY, 0, "leave"},
    {0xff, 0xca, DBG__ANY, 0, "retf Iw"},
    {0xff, 0xcb, DBG__ANY, 0, "retf"},
    {0xff, 0xcc, DBG__ANY, 0, "int3"},
    {0xff, 0xcd, DBG__ANY, 0, "int Ib"},
    {0xff, 0xcf, DBG__ANY, 'w', "iret|iretd|iretq"},
    {0xff, 0xd0, DBG__ANY, 's', "% Eb, 1"},
    {0xff, 0xd1, DBG__ANY, 's', "% Ev, 1"},
    {0xff, 0xd2, DBG__ANY, 's', "% Eb, cl"},
    {0xff, 0xd3, DBG__ANY, 's', "% Ev, cl"},
    {0xff, 0xe0, DBG__ANY, 0, "loopne Jb"},
    {0xff, 0xe1, DBG__ANY, 0, "loope Jb"},
    {0xff, 0xe2, DBG__ANY, 0, "loop Jb"},
    {0xff, 0xe4, DBG__ANY, 0, "in Ab, Ib"},
    {0xff, 0xe5, DBG__ANY, 0, "in Az, Ib"},
    {0xff, 0xe6, DBG__ANY, 0, "out Ib, Ab"},
    {0xff, 0xe7, DBG__ANY, 0, "out Ib, Az"},
    {0xff, 0xe8, DBG__ANY, 0, "call Jz"},
    {0xff, 0xe9, DBG__ANY, 0, "jmp Jz"},
    {0xff, 0xea, DBG__ANY, '3', "jmp P"},
    {0xff, 0xeb, DBG__ANY, 0, "jmp Jb"},
    {0xff, 0xec, DBG__ANY, 0, "in Ab, dx"},
    {0xff, 0xed, DBG__ANY, 0, "in Az, dx"},
    {0xff, 0xee, DBG__ANY, 0, "out dx, Ab"},
    {0xff, 0xef, DBG__ANY, 0, "out dx, Az"},
    {0xff, 0xf4, DBG__ANY, 0, "hlt"},
    {0xff, 0xf5, DBG__ANY, 0, "cmc"},
    {0xff, 0xf6, 0, 0, "test Eb, Ib"},
    {0xff, 0xf7, 0, 0, "test Ev, Iz"},
    {0xff, 0xf6, 1, 0, "test Eb, Ib"},
    {0xff, 0xf7, 1, 0, "test Ev, Iz"},
    {0xff, 0xf6, DBG__ANY, 'u', "% Eb"},
    {0xff, 0xf7, DBG__ANY, 'u', "% Ev"},
    {0xff, 0xf8, DBG__ANY, 0, "clc"},
    {0xff, 0xf9, DBG__ANY, 0, "stc"},
    {0xff, 0xfa, DBG__ANY, 0, "cli"},
    {0xff, 0xfb, DBG__ANY, 0, "sti"},
    {0xff, 0xfc, DBG__ANY, 0, "cld"},
    {0xff, 0xfd, DBG__ANY, 0, "std"},
    {0xff, 0xfe, 0, 0, "inc Eb"},
    {0xff, 0xfe, 1, 0, "dec Eb"},
    {0xff, 0xff, 0, 0, "inc Ev"},
    {0xff, 0xff, 1, 0, "dec Ev"},
    {0xff, 0xff, 2, 0, "call Ey"},
    {0xff, 0xff, 4, 0, "jmp Ey"},
    {0xff, 0xff, 6, 0, "push Ey"},
};

/* The same after 0F. */
static const struct dbg__form dbg__two[] = {
    {0xff, 0x00, 0, 0, "sldt Ew"},
    {0xff, 0x00, 1, 0, "str Ew"},
    {0xff, 0x00, 2, 0, "lldt Ew"},
    {0xff, 0x00, 3, 0, "ltr Ew"},
    {0xff, 0x01, DBG__MEM | 0, 0, "sgdt En"},
    {0xff, 0x01, DBG__MEM | 1, 0, "sidt En"},
    {0xff, 0x01, DBG__MEM | 2, 0, "lgdt En"},
    {0xff, 0x01, DBG__MEM | 3, 0, "lidt En"},
    {0xff, 0x01, 4, 0, "smsw Ew"},
    {0xff, 0x01, 6, 0, "lmsw Ew"},
    {0xff, 0x01, DBG__MEM | 7, 0, "invlpg En"},
    {0xff, 0x05, DBG__ANY, 0, "syscall"},
    {0xff, 0x06, DBG__ANY, 0, "clts"},
    {0xff, 0x07, DBG__ANY, 0, "sysret"},
    {0xff, 0x08, DBG__ANY, 0, "invd"},
    {0xff, 0x09, DBG__ANY, 0, "wbinvd"},
    {0xff, 0x0b, DBG__ANY, 0, "ud2"},
    {0xf8, 0x18, DBG__ANY, 0, "nop Ev"}, /* prefetches and hints among them */
    {0xff, 0x20, DBG__ANY, 0, "mov R, C"},
    {0xff, 0x21, DBG__ANY, 0, "mov R, D"},
    {0xff, 0x22, DBG__ANY, 0, "mov C, R"},
    {0xff, 0x23, DBG__ANY, 0, "mov D, R"},
    {0xff, 0x30, DBG__ANY, 0, "wrmsr"},
    {0xff, 0x31, DBG__ANY, 0, "rdtsc"},
    {0xff, 0x32, DBG__ANY, 0, "rdmsr"},
    {0xff, 0x33, DBG__ANY, 0, "rdpmc"},
    {0xff, 0x34, DBG__ANY, 0, "sysenter"},
    {0xff, 0x35, DBG__ANY, 0, "sysexit"},
    {0xf0, 0x40, DBG__ANY, 'c', "cmov% Gv, Ev"},
    {0xf0, 0x80, DBG__ANY, 'c', "j% Jz"},
    {0xf0, 0x90, DBG__ANY, 'c', "set% Eb"},
    {0xff, 0xa2, DBG__ANY, 0, "cpuid"},
    {0xff, 0xa3, DBG__ANY, 0, "bt Ev, Gv"},
    {0xff, 0xa4, DBG__ANY, 0, "shld Ev, Gv, Ib"},
    {0xff, 0xa5, DBG__ANY, 0, "shld Ev, Gv, cl"},
    {0xff, 0xab, DBG__ANY, 0, "bts Ev, Gv"},
    {0xff, 0xac, DBG__ANY, 0, "shrd Ev, Gv, Ib"},
    {0xff, 0xad, DBG__ANY, 0, "shrd Ev, Gv, cl"},
    {0xff, 0xae, DBG__MEM | 0, 0, "fxsave En"},
    {0xff, 0xae, DBG__MEM | 1, 0, "fxrstor En"},
    {0xff, 0xae, DBG__MEM | 4, 0, "xsave En"},
    {0xff, 0xae, DBG__MEM | 5, 0, "xrstor En"},
    {0xff, 0xae, DBG__MEM | 7, 0, "clflush En"},
    {0xff, 0xaf, DBG__ANY, 0, "imul Gv, Ev"},
    {0xff, 0xb0, DBG__ANY, 0, "cmpxchg Eb, Gb"},
    {0xff, 0xb1, DBG__ANY, 0, "cmpxchg Ev, Gv"},
    {0xff, 0xb3, DBG__ANY, 0, "btr Ev, Gv"},
    {0xff, 0xb6, DBG__ANY, 0, "movzx Gv, Eb"},
    {0xff, 0xb7, DBG__ANY, 0, "movzx Gv, Ew"},
    {0xff, 0xba, 4, 0, "bt Ev, Ib"},
    {0xff, 0xba, 5, 0, "bts Ev, Ib"},
    {0xff, 0xba, 6, 0, "btr Ev, Ib"},
    {0xff, 0xba, 7, 0, "btc Ev, Ib"},
    {0xff, 0xbb, DBG__ANY, 0, "btc Ev, Gv"},
    {0xff, 0xb8, DBG__ANY, 'F', "popcnt Gv, Ev"},
    {0xff, 0xbc, DBG__ANY, 'F', "tzcnt Gv, Ev"},
    {0xff, 0xbd, DBG__ANY, 'F', "lzcnt Gv, Ev"},
    {0xff, 0xbc, DBG__ANY, 0, "bsf Gv, Ev"},
    {0xff, 0xbd, DBG__ANY, 0, "bsr Gv, Ev"},
    {0xff, 0xbe, DBG__ANY, 0, "movsx Gv, Eb"},
    {0xff, 0xbf, DBG__ANY, 0, "movsx Gv, Ew"},
    {0xff, 0xc0, DBG__ANY, 0, "xadd Eb, Gb"},
    {0xff, 0xc1, DBG__ANY, 0, "xadd Ev, Gv"},
    {0xff, 0xc7, 6, 0, "rdrand Ev"},
    {0xff, 0xc7, 7, 0, "rdseed Ev"},
    {0xf8, 0xc8, DBG__ANY, 0, "bswap Xv"},
};

/* Whole instructions 0F .. with this ModRM byte. */
static const struct {
    uint8_t opcode, modrm;
    const char *text;
} dbg__exact[] = {
    {0x01, 0xc1, "vmcall"}, {0x01, 0xc8, "monitor"}, {0x01, 0xc9, "mwait"},
    {0x01, 0xca, "clac"},   {0x01, 0xcb, "stac"},    {0x01, 0xd0, "xgetbv"},
    {0x01, 0xd1, "xsetbv"}, {0x01, 0xd9, "vmmcall"}, {0x01, 0xf8, "swapgs"},
    {0x01, 0xf9, "rdtscp"}, {0x1e, 0xfa, "endbr64"}, {0xae, 0xe8, "lfence"},
    {0xae, 0xf0, "mfence"}, {0xae, 0xf8, "sfence"},
};

/* Legacy prefixes in any order, then REX (volume 2, 2.1.1 and 2.2.1). */
static void dbg__prefixes(struct dbg__insn *i)
{
    static const char *const segs[] = {"es", "cs", "ss", "ds"};

    while (i->at < i->len && i->at < DBG_INSN_MAX) {
        uint8_t c = i->code[i->at];
        if ((c & 0xe7) == 0x26)
            i->seg = segs[c >> 3 & 3];
        else if ((c & 0xfe) == 0x64)
            i->seg = c & 1 ? "gs" : "fs";
        else if (c == 0x66)
            i->o16 = true;
        else if (c == 0x67)
            i->a_other = true;
        else if (c == 0xf0)
            dbg__put(i, "lock ");
        else if ((c & 0xfe) == 0xf2)
            i->rep = c;
        else
            break;
        i->at++;
    }
    if (i->bits == 64 && i->at < i->len && (i->code[i->at] & 0xf0) == 0x40) {
        i->rex = i->code[i->at++] & 15;
        i->has_rex = true;
    }
}

/* The form of an opcode, whose ModRM byte, if it has one, comes next. */
static const struct dbg__form *dbg__find(const struct dbg__insn *i, const struct dbg__form *f,
                                         size_t n, uint8_t opcode)
{
    unsigned modrm = i->at < i->len ? i->code[i->at] : 0;

    for (; n--; f++) {
        if ((opcode & f->mask) != f->value)
            continue;
        if (!(f->reg & DBG__ANY) && (f->reg & 7u) != (modrm >> 3 & 7))
            continue;
        if ((f->reg & DBG__MEM && modrm >> 6 == 3) || (f->group == '6' && i->bits != 64) ||
            (f->group == '3' && i->bits == 64) || (f->group == 'p' && i->rex & 1) ||
            (f->group == 'F' && i->rep != 0xf3))
            continue;
        return f;
    }
    return NULL;
}

/* What % stands for. */
static const char *dbg__name(struct dbg__insn *i, char group, unsigned opcode)
{
    switch (group) {
    case 'a':
        return dbg__alu[opcode >> 3 & 7];
    case 'c':
        return dbg__cond[opcode & 15];
    case 'A':
        return dbg__alu[dbg__modrm(i) >> 3 & 7];
    case 's':
        return dbg__shift[dbg__modrm(i) >> 3 & 7];
    default:
        return dbg__unary[dbg__modrm(i) >> 3 & 7];
    }
}

/* A name by operand size: the first, second or third of "a|b|c". */
static void dbg__put_sized(struct dbg__insn *i, const char *s)
{
    unsigned skip = dbg__size(i) == 2 ? 0 : dbg__size(i) == 4 ? 1 : 2;

    for (; *s; s++)
        if (*s == '|')
            skip--;
        else if (!skip)
            dbg__put(i, (const char[]){*s, 0});
}

/* A string instruction: what repeats it, and its width as last letter. */
static void dbg__put_string(struct dbg__insn *i, const char *s)
{
    dbg__put(i, i->rep == 0xf3 ? "rep " : i->rep ? "repne " : "");
    for (; *s; s++)
        if (s[1] || *s != 'v')
            dbg__put(i, (const char[]){*s, 0});
        else
            dbg__put(i, dbg__size(i) == 2 ? "w" : dbg__size(i) == 4 ? "d" : "q");
}

static void dbg__put_form(struct dbg__insn *i, const struct dbg__form *f, unsigned opcode)
{
    const char *s = f->text;

    if (f->group == 'w') {
        dbg__put_sized(i, s);
    } else if (f->group == 'r') {
        dbg__put_string(i, s);
    } else if (f->group == 'p') {
        dbg__put(i, i->rep == 0xf3 ? "pause" : "nop");
    } else {
        if (f->reg != DBG__ANY)
            dbg__modrm(i);
        while (*s)
            if (*s == '%')
                dbg__put(i, dbg__name(i, f->group, opcode)), s++;
            else
                s = dbg__operand(i, s, opcode);
    }
}

/* After 0F. */
static bool dbg__put_two(struct dbg__insn *i)
{
    uint8_t opcode = (uint8_t)dbg__take(i, 1);
    const struct dbg__form *f;

    for (size_t n = 0; n < sizeof dbg__exact / sizeof *dbg__exact; n++)
        if (i->at < i->len && dbg__exact[n].opcode == opcode &&
            dbg__exact[n].modrm == i->code[i->at]) {
            dbg__put(i, dbg__exact[n].text);
            i->at++;
            return true;
        }
    f = dbg__find(i, dbg__two, sizeof dbg__two / sizeof *dbg__two, opcode);
    if (f)
        dbg__put_form(i, f, opcode);
    return f;
}

VMM_DEF unsigned dbg_x86_disasm(const uint8_t *code, size_t len, unsigned bits, uint64_t rip,
                                char text[DBG_TEXT_MAX])
{
    struct dbg__insn i = {.code = code,
                          .len = len < DBG_INSN_MAX ? len : DBG_INSN_MAX,
                          .bits = bits,
                          .rip = rip,
                          .text = text};
    const struct dbg__form *f = NULL;
    uint8_t opcode;
    bool known;

    *text = 0;
    dbg__prefixes(&i);
    opcode = (uint8_t)dbg__take(&i, 1);
    if (opcode == 0x0f) {
        known = dbg__put_two(&i);
    } else {
        f = dbg__find(&i, dbg__one, sizeof dbg__one / sizeof *dbg__one, opcode);
        if (f)
            dbg__put_form(&i, f, opcode);
        known = f;
    }
    if (known && !i.overrun)
        return (unsigned)i.at;
    memcpy(text, "?", 2);
    return 0;
}

#endif /* DBG__IMPLEMENTED */
#endif /* DEBUG_IMPLEMENTATION */
