/* vmm --binary forms64.bin --entry 0x1000 --mode 64 --mem 64M; linked at 0x1000
   expect: COM1 "forms: done", status 0

   Random instructions that touch what is behind the end of RAM, in 64-, 32- and 16-bit code, for a hypervisor whose
   accesses are compared with another's (tests/shim_nvmm.c): nothing is looked at here. Operands lie in RAM, in the
   device, across the border between both or between two pages of the device. MIT licence, see LICENSE */
#pragma GCC diagnostic ignored "-Wunused-function" /* virtio: not here */
#include "guest.h"

#include <cpuid.h>

#ifndef ROUNDS
#define ROUNDS 60000
#endif
enum {
    CONTEXT = 0x300000,
    PROLOGUE = 0x301000,
    EPILOGUE = 0x301800,
    CODE = 0x302000,
    DATA = 0x3fff000, /* the last page of RAM, and one behind it */
    DATA_LEN = 0x2000,
    DS_BASE = DATA - 0x200,
    ES_BASE = DATA - 0x100,
    GS_BASE = DATA - 0x1000,
    FS_BASE = 0,
    CODE64 = 0x08,
    FLAT = 0x10,
    CODE32 = 0x18,
    CODE16 = 0x20,
    DS16 = 0x28,
    ES16 = 0x30,
    GS16 = 0x38,
    TASK = 0x40
};
#include "../tests/x86_rounds.h"

#define GDT    ((volatile uint64_t *)0x310000)
#define IDT    ((volatile uint64_t *)0x311000)
#define TSS    ((volatile uint8_t *)0x312000)
#define TABLES ((volatile uint8_t *)0x313000) /* what LGDT and LIDT read */
#define STACK  0x318000ul                     /* of exceptions */

static uint64_t descriptor(uint64_t attr, uint64_t base, uint64_t limit)
{
    return (limit & 0xffff) | (base & 0xffffff) << 16 | attr << 40 | (limit >> 16 & 15) << 48 |
           base >> 24 << 56;
}

static void table(volatile uint8_t *at, volatile uint64_t *base, uint16_t limit)
{
    *(volatile uint16_t *)at = limit;
    *(volatile uint64_t *)(at + 2) = (uint64_t)base;
}

/* The same segments that the test beside the processor has. */
static void load_tables(void)
{
    GDT[CODE64 / 8] = descriptor(0xa09b, 0, 0xfffff);
    GDT[FLAT / 8] = descriptor(0xc093, 0, 0xfffff);
    GDT[CODE32 / 8] = descriptor(0xc09b, 0, 0xfffff);
    GDT[CODE16 / 8] = descriptor(0x9b, CODE, 0xffff);
    GDT[DS16 / 8] = descriptor(0x93, DS_BASE, 0xffff);
    GDT[ES16 / 8] = descriptor(0x93, ES_BASE, 0x1aff);
    GDT[GS16 / 8] = descriptor(0x93, GS_BASE, 0x2fff);
    GDT[TASK / 8] = descriptor(0x89, (uint64_t)TSS, 0x67);
    GDT[TASK / 8 + 1] = 0;
    *(volatile uint64_t *)(TSS + 36) = STACK;
    table(TABLES, GDT, TASK + 15);
    table(TABLES + 16, IDT, 32 * 16 - 1);
    __asm__ volatile("lgdt (%0)\n"
                     "lidt 16(%0)\n"
                     "ltr %w1\n"
                     "mov %2, %%ss\n"
                     "mov %3, %%gs\n"
                     "push %4\n"
                     "lea 1f(%%rip), %%rax\n"
                     "push %%rax\n"
                     "lretq\n"
                     "1:\n"
                     :
                     : "r"(TABLES), "r"(TASK), "r"(FLAT), "r"(GS16), "i"(CODE64)
                     : "rax", "memory");
}

/* Refused: on with the next one, by the part of the epilogue behind its 16 stores of 8 bytes. */
static void catch_exceptions(void)
{
    const uint64_t at = EPILOGUE + 16 * 8;

    for (unsigned vector = 0; vector < 32; vector++) {
        IDT[2 * vector] = (at & 0xffff) | CODE64 << 16 | 0x8e01ull << 32 | (at & 0xffff0000) << 32;
        IDT[2 * vector + 1] = 0;
    }
}

/* Repeated instructions keep to RAM or the device with each pointer: carried out twice, by two emulators
   side by side, they may not read what they wrote. Now and then there is more than one batch to do. */
static void place_string(struct round *r)
{
    uint64_t ram = DATA + 0x100 + rnd() % 0x300, device = DATA + 0x1200 + rnd() % 0x1000;
    bool from_ram = one_in(3), to_ram = !from_ram && one_in(2), many = one_in(30);

    if (one_in(4))
        device = DATA + 0x1fe0 + rnd() % 0x20;
    if (many)
        device += 0x800;
    set_reg(r, VMM_RSI, (from_ram ? ram : device) - seg_base(r, 0x3e));
    set_reg(r, VMM_RDI, (to_ram ? ram : device + rnd() % 64) - (r->bits == 64 ? 0 : ES_BASE));
    if (many)
        set_reg(r, VMM_RCX, 300);
}

static void load_state(const struct round *r)
{
    unsigned ds = r->bits == 64 ? FLAT : DS16, es = r->bits == 64 ? FLAT : ES16;

    memcpy((void *)(uintptr_t)(CONTEXT + offsetof(struct context, in)), r->gpr, sizeof r->gpr);
    context->flags_in = r->flags;
    context->far_offset = (uint32_t)r->rip;
    context->far_selector = r->bits == 64 ? CODE64 : r->bits == 32 ? CODE32 : CODE16;
    __asm__ volatile("mov %0, %%ds\n mov %1, %%es\n mov %2, %%ss" ::"r"(ds), "r"(es), "r"(FLAT)
                     : "memory");
}

/* Of a segment register KVM's emulator (6.1) stores eight bytes if there is REX.W; processors two. */
static bool is_here(const struct round *r, bool has_movbe)
{
    return r->len <= 15 && !r->astray && !(r->insn->flags & (r->bits == 64 ? NOT64 : ONLY64)) &&
           (r->insn->opcode < 0x200 || has_movbe) && !(r->insn->opcode == 0x8c && r->rex & 8);
}

static void do_one(bool has_movbe)
{
    struct round r;

    build(&r);
    if (!is_here(&r, has_movbe))
        return;
    if (r.insn->tail == STRING)
        place_string(&r);
    place(&r);
    load_state(&r);
    ((void (*)(void))(uintptr_t)PROLOGUE)();
}

static int guest(void)
{
    unsigned a, b, c, d;

    __cpuid(1, a, b, c, d);
    load_tables();
    catch_exceptions();
    make_stubs();
    for (unsigned i = 0; i < ROUNDS; i++)
        do_one(c & bit_MOVBE);
    print("forms: done\n");
    return 0;
}
