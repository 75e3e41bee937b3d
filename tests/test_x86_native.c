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

/* Segments of 16- and 32-bit code come from the LDT; flat ones are Linux's own. */
enum { CODE16 = 0x07, LDT_DS = 0x0f, LDT_ES = 0x17, LDT_GS = 0x1f, CODE64 = 0x33, CODE32 = 0x23 };

static uint64_t fs_base;
#define FS_BASE fs_base
#include "x86_rounds.h"

static uint8_t *const data = (uint8_t *)(uintptr_t)DATA;
static uint8_t before[DATA_LEN], mine[DATA_LEN];
/* >>processor: how one instruction is run for real */

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
    return segment(CODE16, CODE, 0xffff, true) && segment(LDT_DS, DS_BASE, 0xffff, false) &&
           segment(LDT_ES, ES_BASE, ES_LIMIT, false) && segment(LDT_GS, GS_BASE, GS_LIMIT, false);
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
        regs.cs = (struct vmm_x86_seg){CODE, 0xffff, CODE16, 0x00fb};
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

static void load_state(const struct round *r)
{
    memcpy((void *)(uintptr_t)(CONTEXT + offsetof(struct context, in)), r->gpr, sizeof r->gpr);
    context->flags_in = r->flags | 0x200;
    context->far_offset = (uint32_t)r->rip;
    context->far_selector = r->bits == 64 ? CODE64 : r->bits == 32 ? CODE32 : CODE16;
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
