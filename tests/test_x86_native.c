/* test_x86_native.c - hv_x86.h beside the processor that this runs on   MIT licence, see LICENSE

   test_x86_native [ROUNDS [SEED]]   Random instructions with random registers, in 64-, 32- and 16-bit
   code: each is carried out by x86_emul_* on a copy of some memory, one page of which is RAM and the
   other a device, and by the processor on that memory itself. Registers, flags and memory must agree,
   and so must who refuses what. Flags that the manuals call undefined are left out. The encodings and
   the addresses that they mean are made here once more, from the manuals.
   Elsewhere than on x86_64 Linux there is nothing to compare with. */
#if defined(__x86_64__) && defined(__linux__)
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <cpuid.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HV_X86_IMPLEMENTATION
#define DEBUG_IMPLEMENTATION
#include "../hv_x86.h"

#include "check.h"

/* Where things are, below 2 GiB so that 32-bit code reaches them. */
enum {
    CONTEXT = 0x20000000,
    PROLOGUE = 0x20001000,
    EPILOGUE = 0x20001800,
    CODE = 0x20002000, /* two pages, for instructions that lie across their border */
    DATA = 0x30000000,
    DATA_LEN = 0x2000,
    MARGIN = 0x1000, /* around DATA, not mapped */
    GS_BASE = 0x2ffff000,
    DS_BASE = 0x2ffffe00, /* of 16- and 32-bit code */
    ES_BASE = 0x2fffff00,
    ES_LIMIT = 0x1aff, /* so that some accesses are beyond it */
    GS_LIMIT = 0x2fff
};

static volatile struct context { /* what prologue and epilogue move */
    uint64_t in[16], out[16];
    uint64_t flags_in, flags_out, rsp;
    uint32_t far_offset;
    uint16_t far_selector;
} *const context = (struct context *)(uintptr_t)CONTEXT;

#define OFFSET(field) ((uint32_t)(CONTEXT + offsetof(struct context, field)))

static uint8_t *const data = (uint8_t *)(uintptr_t)DATA;
static uint8_t before[DATA_LEN], mine[DATA_LEN];
static uint64_t fs_base;

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

/* >>processor: how one instruction is run for real */

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

static sigjmp_buf refused;

static void on_signal(int sig)
{
    siglongjmp(refused, sig);
}

static void catch_signals(void)
{
    static uint8_t stack[65536];
    const stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_NODEFER};

    sigaltstack(&alt, NULL);
    for (unsigned i = 0; i < 4; i++)
        sigaction((const int[]){SIGSEGV, SIGBUS, SIGILL, SIGTRAP}[i], &act, NULL);
}

/* Segments of 16- and 32-bit code come from the LDT; flat ones are Linux's own. */
enum {
    LDT_CODE16 = 0x07,
    LDT_DS = 0x0f,
    LDT_ES = 0x17,
    LDT_GS = 0x1f,
    CODE64 = 0x33,
    CODE32 = 0x23
};

static bool segment(unsigned selector, uint32_t base, uint32_t limit, bool code)
{
    struct user_desc d = {
        .entry_number = selector >> 3, .base_addr = base, .limit = limit, .contents = code ? 2 : 0};

    return syscall(SYS_modify_ldt, 1, &d, sizeof d) == 0;
}

static bool prepare(void)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;

    if (mmap((void *)(uintptr_t)CONTEXT, 0x4000, PROT_READ | PROT_WRITE | PROT_EXEC, flags, -1,
             0) != (void *)(uintptr_t)CONTEXT ||
        mmap(data, DATA_LEN, PROT_READ | PROT_WRITE, flags, -1, 0) != data)
        return false;
    make_stubs();
    catch_signals();
    if (syscall(SYS_arch_prctl, ARCH_GET_FS, &fs_base))
        return false;
    return segment(LDT_CODE16, CODE, 0xffff, true) && segment(LDT_DS, DS_BASE, 0xffff, false) &&
           segment(LDT_ES, ES_BASE, ES_LIMIT, false) && segment(LDT_GS, GS_BASE, GS_LIMIT, false);
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
    int seg; /* a prefix byte, or 0 */
};

static void put(struct round *r, uint64_t v, unsigned len)
{
    memcpy(r->code + r->len, &v, len);
    r->len += len;
}

static uint64_t seg_base(const struct round *r, int by_default)
{
    int seg = r->seg ? r->seg : by_default;

    if (seg == 0x64)
        return fs_base;
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

static void put_disp(struct round *r, unsigned mod, uint64_t d)
{
    if (mod)
        put(r, d, mod == 1 ? 1 : r->asize == 2 ? 2 : 4);
}

static void address16(struct round *r)
{
    static const uint8_t first[8] = {VMM_RBX, VMM_RBX, VMM_RBP, VMM_RBP,
                                     VMM_RSI, VMM_RDI, VMM_RBP, VMM_RBX};
    unsigned mod = (unsigned)(rnd() % 3), rm = rnd() & 7, reg = r->reg << 3;
    uint64_t d = disp(r, mod), ea = r->target;

    if (mod == 0 && rm == 6) {
        ea -= seg_base(r, 0x3e);
        put(r, reg | 6, 1);
        put(r, ea, 2);
        return;
    }
    ea -= seg_base(r, first[rm] == VMM_RBP ? 0x36 : 0x3e);
    set_reg(r, first[rm], ea - d - (rm < 4 ? get_reg(r, rm & 1 ? VMM_RDI : VMM_RSI) : 0));
    put(r, mod << 6 | reg | rm, 1);
    put_disp(r, mod, d);
}

/* mod 0 with base 5: a displacement alone, in 64-bit code without a SIB byte relative to RIP. */
static void address_plain(struct round *r, unsigned reg, unsigned tail)
{
    uint64_t ea = r->target - seg_base(r, 0x3e);

    if (r->bits == 64 && one_in(2)) {
        put(r, reg | 4, 1);
        put(r, 0x25, 1);
        if (r->rex & 2)
            set_reg(r, VMM_R12, 0); /* which index 4 is then */
    } else {
        put(r, reg | 5, 1);
        if (r->bits == 64)
            ea -= r->rip + r->len + 4 + tail;
    }
    put(r, ea, 4);
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
    put(r, mod << 6 | reg | (sib ? 4 : base), 1);
    if (sib)
        put(r, scale << 6 | index << 3 | base, 1);
    if (sib && x != 4)
        ea -= get_reg(r, x) << scale;
    if (pops)
        ea -= r->bits == 64 ? (r->o16 ? 2 : 8) : (r->bits == 16) == r->o16 ? 4 : 2;
    set_reg(r, b, ea - d);
    put_disp(r, mod, d);
}

static void prefixes(struct round *r)
{
    static const uint8_t segs32[] = {0x3e, 0x26, 0x65}, segs64[] = {0x64, 0x65, 0x26, 0x2e};
    const struct insn *i = r->insn;

    r->o16 = one_in(3) && !(i->flags & PLAIN && i->opcode < 0x200);
    r->asize = r->bits == 64 ? 8 : r->bits / 8;
    if (one_in(3)) {
        put(r, 0x67, 1);
        r->asize = r->bits == 32 ? 2 : 4;
    }
    if (r->bits == 64 ? one_in(4) : r->asize == 2 || one_in(3)) {
        r->seg = r->bits == 64 ? segs64[rnd() & 3] : segs32[rnd() % 3];
        put(r, (unsigned)r->seg, 1);
        if (r->bits == 64 && r->seg < 0x64)
            r->seg = 0; /* counts for nothing there */
    }
    if (r->o16)
        put(r, 0x66, 1);
    if (one_in(i->tail == STRING ? 2 : 16) && !(i->flags & PLAIN))
        put(r, one_in(2) ? 0xf2 : 0xf3, 1);
    if (one_in(i->flags & LOCK ? 3 : 64)) {
        put(r, 0xf0, 1);
        r->target &= ~7ull; /* systems punish locked accesses that are split between cache lines */
    }
    if (r->bits == 64 && one_in(2)) {
        r->rex = 0x40 | (rnd() & 15);
        put(r, r->rex, 1);
    }
}

static unsigned opcode(struct round *r)
{
    unsigned op = r->insn->opcode;

    if (r->insn->flags & WIDTH)
        op |= rnd() & 1;
    if (op > 0xff)
        put(r, 0x0f, 1);
    if (op > 0x1ff)
        put(r, 0x38, 1);
    put(r, op & 0xff, 1);
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
        put(r, r->target - seg_base(r, 0x3e), r->asize);
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
    if (r->insn->flags & STACK && r->gpr[VMM_RSP] - DATA > DATA_LEN)
        r->gpr[VMM_RSP] = DATA + 0x100 + rnd() % 0x1e00;
    put(r, rnd(), tail(r));
}

/* >>comparison */

static struct vmm_x86_regs start(const struct round *r)
{
    const struct vmm_x86_seg flat = {0, 0xffffffff, 0x2b, 0xc0f3};
    struct vmm_x86_regs regs = {
        .rip = r->rip, .rflags = r->flags, .cr0 = 1, .ss = flat, .ds = flat};

    memcpy(regs.gpr, r->gpr, sizeof regs.gpr);
    regs.es = regs.cs = regs.fs = regs.gs = flat;
    regs.fs.base = fs_base;
    regs.gs.base = GS_BASE;
    regs.cs.attr = r->bits == 64 ? 0xa0fb : 0xc0fb;
    regs.cs.selector = r->bits == 64 ? CODE64 : CODE32;
    __asm__("mov %%fs, %0" : "=r"(regs.fs.selector));
    if (r->bits == 64) {
        regs.efer = 1 << 10;
        regs.gs.selector = 0;
        return regs;
    }
    if (r->bits == 16)
        regs.cs = (struct vmm_x86_seg){CODE, 0xffff, LDT_CODE16, 0x00fb};
    regs.ds = (struct vmm_x86_seg){DS_BASE, 0xffff, LDT_DS, 0xf3};
    regs.es = (struct vmm_x86_seg){ES_BASE, ES_LIMIT, LDT_ES, 0xf3};
    regs.gs = (struct vmm_x86_seg){GS_BASE, GS_LIMIT, LDT_GS, 0xf3};
    return regs;
}

/* False: it reaches beyond the data, so that nothing can be compared. */
static bool access_mine(struct x86_access *a)
{
    uint64_t off = a->gpa - DATA;

    if (off >= DATA_LEN || DATA_LEN - off < a->size)
        return false;
    if (a->write)
        memcpy(mine + off, a->data, a->size);
    else
        memcpy(a->data, mine + off, a->size);
    return true;
}

static enum x86_step emulate(const struct round *r, struct vmm_x86_regs *regs, struct x86_emul *e)
{
    struct vmm_mem mem = {0};
    enum x86_step step;
    unsigned given = one_in(2) ? 0 : 1 + (unsigned)(rnd() % r->len);
    uint64_t rip = regs->rip;

    vmm_mem_add(&mem, CODE, 0x2000, (void *)(uintptr_t)CODE);
    if (one_in(2))
        vmm_mem_add(&mem, DATA, 0x1000, mine);
    do {
        step = x86_emul_begin(e, &mem, regs, r->code, given);
        while (step == X86_ACCESS) {
            if (!access_mine(&e->access))
                return X86_UNKNOWN;
            step = x86_emul_next(e);
        }
    } while (step == X86_DONE && regs->rip == rip);
    return step;
}

static void load_segments(unsigned ds, unsigned es)
{
    __asm__ volatile("mov %0, %%ds\n mov %1, %%es" ::"r"(ds), "r"(es) : "memory");
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

static void load_state(const struct round *r)
{
    memcpy((void *)(uintptr_t)(CONTEXT + offsetof(struct context, in)), r->gpr, sizeof r->gpr);
    context->flags_in = r->flags | 0x200;
    context->far_offset = (uint32_t)r->rip;
    context->far_selector = r->bits == 64 ? CODE64 : r->bits == 32 ? CODE32 : LDT_CODE16;
    if (r->bits == 64) {
        syscall(SYS_arch_prctl, ARCH_SET_GS, (uint64_t)GS_BASE);
    } else {
        load_segments(LDT_DS, LDT_ES);
        __asm__ volatile("mov %0, %%gs" ::"r"(LDT_GS) : "memory");
    }
}

/* What the processor makes of it: 0, or the signal by which it refused. */
static int execute(const struct round *r)
{
    int sig = sigsetjmp(refused, 0);

    if (!sig) {
        place(r);
        load_state(r);
        ((void (*)(void))(uintptr_t)PROLOGUE)();
    }
    load_segments(0x2b, 0x2b);
    return sig;
}

static uint64_t undefined_flags(const struct round *r)
{
    return r->insn->flags & BITS ? 0x894 : r->insn->flags & LOGIC ? 0x10 : 0;
}

static bool same(const struct round *r, const struct vmm_x86_regs *regs)
{
    uint64_t mask = r->bits == 64 ? ~0ull : 0xffffffff, flags = 0xcd5 & ~undefined_flags(r);

    for (unsigned i = 0; i < 16; i++)
        if ((i < 8 || r->bits == 64) && (regs->gpr[i] ^ context->out[i]) & mask)
            return false;
    return !((regs->rflags ^ context->flags_out) & flags) && !memcmp(mine, data, DATA_LEN) &&
           regs->rip == r->rip + r->len;
}

static void show(const struct round *r, const struct vmm_x86_regs *regs, int sig, int step)
{
    char text[DBG_TEXT_MAX];

    dbg_x86_disasm(r->code, r->len, r->bits, r->rip, text);
    fprintf(stderr, "%u bits: %s:", r->bits, text);
    for (unsigned i = 0; i < r->len; i++)
        fprintf(stderr, " %02x", r->code[i]);
    fprintf(stderr, "\n  target %#llx, signal %d, step %d, rip %#llx + %llu\n",
            (unsigned long long)r->target, sig, step, (unsigned long long)r->rip,
            (unsigned long long)(regs->rip - r->rip));
    for (unsigned i = 0; i < 16; i++)
        fprintf(stderr, "  %2u: %016llx -> %016llx, processor %016llx\n", i,
                (unsigned long long)r->gpr[i], (unsigned long long)regs->gpr[i],
                (unsigned long long)context->out[i]);
    fprintf(stderr, "  flags %llx -> %llx, processor %llx, memory %s\n",
            (unsigned long long)r->flags, (unsigned long long)regs->rflags,
            (unsigned long long)context->flags_out,
            memcmp(mine, data, DATA_LEN) ? "differs" : "same");
}

static unsigned compared, refusals, compared_of[sizeof insns / sizeof insns[0]][3];

static bool has_movbe; /* which is newer than the rest */

static bool is_here(const struct insn *i)
{
    return i->opcode < 0x200 || has_movbe;
}

/* False: they do not agree. */
static bool one_round(void)
{
    static struct x86_emul e;
    struct round r;
    struct vmm_x86_regs regs;
    enum x86_step step;
    int sig;

    build(&r);
    if (r.len > X86_INSN_MAX || !is_here(r.insn) || (r.insn->flags & NOT64 && r.bits == 64) ||
        (r.insn->flags & ONLY64 && r.bits != 64))
        return true;
    memcpy(mine, before, DATA_LEN);
    memcpy(data, before, DATA_LEN);
    bytes((uint8_t *)(uintptr_t)(r.rip + (r.bits == 16 ? CODE : 0)), (const char *)r.code, r.len);
    regs = start(&r);
    step = emulate(&r, &regs, &e);
    if (step == X86_UNKNOWN || (step == X86_FAULT && e.vector == X86_PF))
        return true;
    sig = execute(&r);
    compared++;
    compared_of[r.insn - insns][r.bits / 32]++;
    refusals += step == X86_FAULT;
    if (step == X86_FAULT ? sig != 0 : !sig && same(&r, &regs))
        return true;
    show(&r, &regs, sig, (int)step);
    return false;
}

int main(int argc, char **argv)
{
    unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 0) : 15000;
    unsigned a, b, c = 0, d;

    seed = argc > 2 ? strtoul(argv[2], NULL, 0) | 1 : 1;
    has_movbe = __get_cpuid(1, &a, &b, &c, &d) && c & bit_MOVBE;
    if (!prepare()) {
        printf("skip - test_x86_native: this process gets no memory or segments where it wants "
               "them\n");
        return 0;
    }
    for (unsigned i = 0; i < DATA_LEN; i++)
        before[i] = (uint8_t)(one_in(4) ? 0 : rnd());
    for (unsigned long i = 0; i < rounds && check_failed < 5; i++)
        CHECK(one_round());
    for (unsigned i = 0; i < sizeof insns / sizeof insns[0]; i++)
        for (unsigned mode = 0; mode < 3; mode++)
            CHECK(compared_of[i][mode] > rounds / 2000 || !is_here(&insns[i]) ||
                  insns[i].flags & (mode == 2 ? NOT64 : ONLY64)); /* it is known there at all */
    printf("test_x86_native: %u compared, of which %u refused\n", compared, refusals);
    CHECK(compared > rounds / 3 && refusals > 0);
    CHECK_DONE("test_x86_native");
}
#else
#include <stdio.h>

int main(void)
{
    printf("skip - test_x86_native: there is no x86 processor here\n");
    return 0;
}
#endif
