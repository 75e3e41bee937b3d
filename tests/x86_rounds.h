/* x86_rounds.h - random instructions, and how a processor is made to do one  MIT licence, see LICENSE

   For tests/test_x86_native.c, which compares hv_x86.h with the processor that it runs on, and for
   guests/forms64.c, which does them to a device. Who includes this has said where things are: CONTEXT,
   PROLOGUE, EPILOGUE, CODE and DATA (two pages each), DS_BASE and ES_BASE of 16- and 32-bit code,
   FS_BASE, GS_BASE, and the selectors CODE64, CODE32 and CODE16. */
#include <stddef.h>

#include "../vmm.h"

static volatile struct context { /* what prologue and epilogue move */
    uint64_t in[16], out[16];
    uint64_t flags_in, flags_out, rsp;
    uint32_t far_offset;
    uint16_t far_selector;
} *const context = (struct context *)(uintptr_t)CONTEXT;

#define OFFSET(field) ((uint32_t)(CONTEXT + offsetof(struct context, field)))

static uint64_t seed = 1;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * 0x2545f4914f6cdd1d >> 8;
}

static bool one_in(unsigned n)
{
    return rnd() % n == 0;
}

/* >>processor: how it is made to do one */

static uint8_t *put32(uint8_t *p, uint32_t v)
{
    vmm_put32(p, v);
    return p + 4;
}

/* MOV between a 64-bit register and an absolute address: opcode 0x8b loads, 0x89 stores. */
static uint8_t *mov(uint8_t *p, uint8_t opcode, unsigned reg, uint32_t addr)
{
    *p++ = (uint8_t)(0x48 | (reg & 8) >> 1);
    *p++ = opcode;
    *p++ = (uint8_t)(0x04 | (reg & 7) << 3);
    *p++ = 0x25;
    return put32(p, addr);
}

static uint8_t *bytes(uint8_t *p, const char *s, size_t len)
{
    memcpy(p, s, len);
    return p + len;
}

static void make_stubs(void)
{
    uint8_t *p = (uint8_t *)(uintptr_t)PROLOGUE;

    p = bytes(p, "\x53\x55\x41\x54\x41\x55\x41\x56\x41\x57", 10); /* push rbx rbp r12-r15 */
    p = mov(p, 0x89, VMM_RSP, OFFSET(rsp));
    p = put32(bytes(p, "\xff\x34\x25", 3), OFFSET(flags_in)); /* push */
    *p++ = 0x9d;                                              /* popf */
    for (unsigned reg = 0; reg < 16; reg++)
        p = mov(p, 0x8b, reg, OFFSET(in) + 8 * reg);
    p = put32(bytes(p, "\xff\x2c\x25", 3), OFFSET(far_offset)); /* jmp far */

    p = (uint8_t *)(uintptr_t)EPILOGUE;
    for (unsigned reg = 0; reg < 16; reg++)
        p = mov(p, 0x89, reg, OFFSET(out) + 8 * reg);
    p = mov(p, 0x8b, VMM_RSP, OFFSET(rsp));
    *p++ = 0x9c;                                                      /* pushf */
    p = put32(bytes(p, "\x8f\x04\x25", 3), OFFSET(flags_out));        /* pop */
    bytes(p, "\xfc\x41\x5f\x41\x5e\x41\x5d\x41\x5c\x5d\x5b\xc3", 12); /* cld, pop, ret */
}

/* >>instructions: those that hv_x86.h claims, with and without memory's other operand */
enum { NONE, IB, IZ, MOFFS, STRING };
enum { WIDTH = 1, LOCK = 2, BITS = 4, LOGIC = 8, STACK = 16, NOT64 = 32, ONLY64 = 64, PLAIN = 128 };

static const struct insn {
    uint16_t opcode; /* 0x1xx: 0f xx; 0x2xx: 0f 38 xx */
    int8_t reg;      /* -1: any */
    uint8_t tail;
    uint8_t flags;
} insns[] = {
    {0x00, -1, NONE, WIDTH | LOCK},
    {0x02, -1, NONE, WIDTH},
    {0x08, -1, NONE, WIDTH | LOCK | LOGIC},
    {0x0a, -1, NONE, WIDTH | LOGIC},
    {0x10, -1, NONE, WIDTH | LOCK},
    {0x12, -1, NONE, WIDTH},
    {0x18, -1, NONE, WIDTH | LOCK},
    {0x1a, -1, NONE, WIDTH},
    {0x20, -1, NONE, WIDTH | LOCK | LOGIC},
    {0x22, -1, NONE, WIDTH | LOGIC},
    {0x28, -1, NONE, WIDTH | LOCK},
    {0x2a, -1, NONE, WIDTH},
    {0x30, -1, NONE, WIDTH | LOCK | LOGIC},
    {0x32, -1, NONE, WIDTH | LOGIC},
    {0x38, -1, NONE, WIDTH},
    {0x3a, -1, NONE, WIDTH},
    {0x80, -1, IB, LOCK | LOGIC},
    {0x81, -1, IZ, LOCK | LOGIC},
    {0x83, -1, IB, LOCK | LOGIC},
    {0x82, -1, IB, LOCK | LOGIC | NOT64},
    {0x84, -1, NONE, WIDTH | LOGIC},
    {0x86, -1, NONE, WIDTH | LOCK},
    {0x88, -1, NONE, WIDTH},
    {0x8a, -1, NONE, WIDTH},
    {0x8c, -1, NONE, 0},
    {0x63, -1, NONE, ONLY64},
    {0x8f, 0, NONE, STACK},
    {0xff, 6, NONE, STACK},
    {0xa0, -1, MOFFS, WIDTH},
    {0xa2, -1, MOFFS, WIDTH},
    {0xa4, -1, STRING, WIDTH},
    {0xa6, -1, STRING, WIDTH},
    {0xaa, -1, STRING, WIDTH},
    {0xac, -1, STRING, WIDTH},
    {0xae, -1, STRING, WIDTH},
    {0xc6, 0, IB, 0},
    {0xc7, 0, IZ, 0},
    {0xf6, 0, IB, LOGIC},
    {0xf6, 1, IB, LOGIC},
    {0xf7, 0, IZ, LOGIC},
    {0xf7, 1, IZ, LOGIC},
    {0xf6, 2, NONE, WIDTH | LOCK},
    {0xf6, 3, NONE, WIDTH | LOCK},
    {0xfe, 0, NONE, WIDTH | LOCK},
    {0xfe, 1, NONE, WIDTH | LOCK},
    {0x1a3, -1, NONE, BITS},
    {0x1ab, -1, NONE, BITS | LOCK},
    {0x1b3, -1, NONE, BITS | LOCK},
    {0x1bb, -1, NONE, BITS | LOCK},
    {0x1ba, 4, IB, BITS},
    {0x1ba, 5, IB, BITS | LOCK},
    {0x1ba, 6, IB, BITS | LOCK},
    {0x1ba, 7, IB, BITS | LOCK},
    {0x1b0, -1, NONE, WIDTH | LOCK},
    {0x1c0, -1, NONE, WIDTH | LOCK},
    {0x1b6, -1, NONE, 0},
    {0x1b7, -1, NONE, 0},
    {0x1be, -1, NONE, 0},
    {0x1bf, -1, NONE, 0},
    {0x1c3, -1, NONE, PLAIN},
    {0x2f0, -1, NONE, PLAIN},
    {0x2f1, -1, NONE, PLAIN},
};

/* One round. */
struct round {
    const struct insn *insn;
    unsigned bits, asize; /* asize in bytes */
    uint8_t code[24];
    unsigned len;
    uint64_t rip; /* an offset into CS */
    uint64_t gpr[16], flags;
    uint64_t target;   /* the linear address that is meant */
    unsigned rex, reg; /* reg: ModRM's */
    bool o16;
    int seg;     /* a prefix byte, or 0 */
    bool astray; /* RSP had to be moved, and the target with it */
};

static void emit(struct round *r, uint64_t v, unsigned len)
{
    memcpy(r->code + r->len, &v, len);
    r->len += len;
}

static uint64_t seg_base(const struct round *r, int by_default)
{
    int seg = r->seg ? r->seg : by_default;

    if (seg == 0x64)
        return FS_BASE;
    if (seg == 0x65)
        return GS_BASE;
    if (r->bits == 64 || seg == 0x36)
        return 0;
    return seg == 0x26 ? ES_BASE : DS_BASE;
}

/* Registers hold what makes the sum the target; what addresses do not use of them is noise. */
static void set_reg(struct round *r, unsigned reg, uint64_t val)
{
    r->gpr[reg] = (rnd() << 32 & ~vmm_ones(r->asize)) | (val & vmm_ones(r->asize));
    if (r->asize == 2)
        r->gpr[reg] |= (rnd() << 16 & 0xffff0000);
}

static uint64_t get_reg(const struct round *r, unsigned reg)
{
    return r->gpr[reg] & vmm_ones(r->asize);
}

static uint64_t disp(struct round *r, unsigned mod)
{
    uint64_t d = rnd();

    if (mod == 0)
        return 0;
    if (mod == 1)
        return (uint64_t)(int64_t)(int8_t)d;
    return r->asize == 2 ? (uint64_t)(int64_t)(int16_t)d : (uint64_t)(int64_t)(int32_t)d;
}

static void emit_disp(struct round *r, unsigned mod, uint64_t d)
{
    if (mod)
        emit(r, d, mod == 1 ? 1 : r->asize == 2 ? 2 : 4);
}

static void address16(struct round *r)
{
    static const uint8_t first[8] = {VMM_RBX, VMM_RBX, VMM_RBP, VMM_RBP,
                                     VMM_RSI, VMM_RDI, VMM_RBP, VMM_RBX};
    unsigned mod = (unsigned)(rnd() % 3), rm = rnd() & 7, reg = r->reg << 3;
    uint64_t d = disp(r, mod), ea = r->target;

    if (mod == 0 && rm == 6) {
        ea -= seg_base(r, 0x3e);
        emit(r, reg | 6, 1);
        emit(r, ea, 2);
        return;
    }
    ea -= seg_base(r, first[rm] == VMM_RBP ? 0x36 : 0x3e);
    set_reg(r, first[rm], ea - d - (rm < 4 ? get_reg(r, rm & 1 ? VMM_RDI : VMM_RSI) : 0));
    emit(r, mod << 6 | reg | rm, 1);
    emit_disp(r, mod, d);
}

/* mod 0 with base 5: a displacement alone, in 64-bit code without a SIB byte relative to RIP. */
static void address_plain(struct round *r, unsigned reg, unsigned tail)
{
    uint64_t ea = r->target - seg_base(r, 0x3e);

    if (r->bits == 64 && one_in(2)) {
        emit(r, reg | 4, 1);
        emit(r, 0x25, 1);
        if (r->rex & 2)
            set_reg(r, VMM_R12, 0); /* which index 4 is then */
    } else {
        emit(r, reg | 5, 1);
        if (r->bits == 64)
            ea -= r->rip + r->len + 4 + tail;
    }
    emit(r, ea, 4);
}

static void address32(struct round *r, unsigned tail)
{
    unsigned mod = (unsigned)(rnd() % 3), base = rnd() & 7, index = rnd() & 7, scale = rnd() & 3;
    unsigned reg = r->reg << 3, b = base | (r->rex & 1) << 3, x = index | (r->rex & 2) << 2;
    uint64_t d = disp(r, mod), ea = r->target;
    bool sib = base == 4 || one_in(3), pops = r->insn->opcode == 0x8f && b == VMM_RSP;

    if (mod == 0 && base == 5) {
        address_plain(r, reg, tail);
        return;
    }
    ea -= seg_base(r, b == VMM_RSP || b == VMM_RBP ? 0x36 : 0x3e);
    if (b == x) {
        index ^= 1;
        x ^= 1;
    }
    emit(r, mod << 6 | reg | (sib ? 4 : base), 1);
    if (sib)
        emit(r, scale << 6 | index << 3 | base, 1);
    if (sib && x != 4)
        ea -= get_reg(r, x) << scale;
    if (pops)
        ea -= r->bits == 64 ? (r->o16 ? 2 : 8) : (r->bits == 16) == r->o16 ? 4 : 2;
    set_reg(r, b, ea - d);
    r->astray = b == VMM_RSP;
    emit_disp(r, mod, d);
}

static void prefixes(struct round *r)
{
    static const uint8_t segs32[] = {0x3e, 0x26, 0x65}, segs64[] = {0x64, 0x65, 0x26, 0x2e};
    const struct insn *i = r->insn;

    r->o16 = one_in(3) && !(i->flags & PLAIN && i->opcode < 0x200);
    r->asize = r->bits == 64 ? 8 : r->bits / 8;
    if (one_in(3)) {
        emit(r, 0x67, 1);
        r->asize = r->bits == 32 ? 2 : 4;
    }
    if (r->bits == 64 ? one_in(4) : r->asize == 2 || one_in(3)) {
        r->seg = r->bits == 64 ? segs64[rnd() & 3] : segs32[rnd() % 3];
        emit(r, (unsigned)r->seg, 1);
        if (r->bits == 64 && r->seg < 0x64)
            r->seg = 0; /* counts for nothing there */
    }
    if (r->o16)
        emit(r, 0x66, 1);
    if (one_in(i->tail == STRING ? 2 : 16) && !(i->flags & PLAIN))
        emit(r, one_in(2) ? 0xf2 : 0xf3, 1);
    if (one_in(i->flags & LOCK ? 3 : 64)) {
        emit(r, 0xf0, 1);
        r->target &= ~7ull; /* systems punish locked accesses that are split between cache lines */
    }
    if (r->bits == 64 && one_in(2)) {
        r->rex = 0x40 | (rnd() & 15);
        emit(r, r->rex, 1);
    }
}

static unsigned opcode(struct round *r)
{
    unsigned op = r->insn->opcode;

    if (r->insn->flags & WIDTH)
        op |= rnd() & 1;
    if (op > 0xff)
        emit(r, 0x0f, 1);
    if (op > 0x1ff)
        emit(r, 0x38, 1);
    emit(r, op & 0xff, 1);
    return op;
}

/* Bytes of the immediate. */
static unsigned tail(const struct round *r)
{
    if (r->insn->tail == IB)
        return 1;
    if (r->insn->tail != IZ)
        return 0;
    return r->rex & 8 ? 4 : (r->bits == 16) == r->o16 ? 4 : 2;
}

static void build(struct round *r)
{
    static const uint64_t corners[] = {0,
                                       1,
                                       0x7f,
                                       0x80,
                                       0xff,
                                       0x7fff,
                                       0x8000,
                                       0x7fffffff,
                                       0x80000000,
                                       0xffffffff,
                                       0x7fffffffffffffff,
                                       ~0ull,
                                       1ull << 63};

    memset(r, 0, sizeof *r);
    r->insn = &insns[rnd() % (sizeof insns / sizeof insns[0])];
    r->bits = 16u << rnd() % 3;
    r->rip = (one_in(8) ? 0xff4 + rnd() % 12 : 0x100) + (r->bits == 16 ? 0 : CODE);
    for (unsigned i = 0; i < 16; i++)
        r->gpr[i] = one_in(3) ? corners[rnd() % 13] : rnd() << 8 ^ rnd();
    r->flags = 2 | (rnd() & 0x8d5) | (one_in(3) ? 0x400 : 0);
    r->target = DATA + (one_in(4) ? 0xff0 + rnd() % 32 : 0x100 + rnd() % 0x1e00);
    r->reg = r->insn->reg < 0 ? (unsigned)rnd() & 7 : (unsigned)r->insn->reg;
    if (r->insn->opcode == 0x86)
        r->target &= ~7ull; /* XCHG locks without a prefix */
    prefixes(r);
    opcode(r);
    if (r->insn->flags & BITS && r->insn->tail == NONE)
        r->gpr[r->reg | (r->rex & 4) << 1] = 0 - (rnd() & 0xfff);
    if (r->insn->tail == MOFFS) {
        emit(r, r->target - seg_base(r, 0x3e), r->asize);
    } else if (r->insn->tail == STRING) {
        set_reg(r, VMM_RSI, r->target - seg_base(r, 0x3e));
        set_reg(r, VMM_RDI, DATA + 0x100 + rnd() % 0x1e00 - (r->bits == 64 ? 0 : ES_BASE));
        /* None, with 32-bit addresses in 64-bit code: Intel's processors zero upper halves */
        set_reg(r, VMM_RCX, r->bits == 64 && r->asize == 4 ? 1 + rnd() % 23 : rnd() % 24);
    } else if (r->asize == 2) {
        address16(r);
    } else {
        address32(r, tail(r));
    }
    if (!(r->insn->flags & STACK) || r->gpr[VMM_RSP] - DATA <= DATA_LEN)
        r->astray = false;
    else
        r->gpr[VMM_RSP] = DATA + 0x100 + rnd() % 0x1e00;
    emit(r, rnd(), tail(r));
}

/* The instruction and, behind it, the way back. */
static void place(const struct round *r)
{
    uint8_t *p = (uint8_t *)(uintptr_t)(r->rip + (r->bits == 16 ? CODE : 0));

    p = bytes(p, (const char *)r->code, r->len);
    if (r->bits == 64) {
        *p++ = 0xe9;
        put32(p, EPILOGUE - (uint32_t)(uintptr_t)p - 4);
    } else { /* a far jump, to a 32-bit offset in 16-bit code, too */
        p = bytes(p, "\x66\xea" + (r->bits == 32), r->bits == 32 ? 1 : 2);
        vmm_put16(put32(p, EPILOGUE), CODE64);
    }
}
