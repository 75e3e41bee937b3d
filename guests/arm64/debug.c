/* vmm --binary debug.bin --entry 0x40001000; debug exceptions of the guest's own: a breakpoint
   instruction, a hardware breakpoint and a watchpoint, each with what it must say; the same when a
   debugger outside has a breakpoint, too. */
#include "guest.h"

#define READ(reg)                                                                                  \
    ({                                                                                             \
        uint64_t v_;                                                                               \
        __asm__ volatile("mrs %0, " reg : "=r"(v_));                                               \
        v_;                                                                                        \
    })
#define WRITE(reg, val) __asm__ volatile("msr " reg ", %0\n isb" : : "r"((uint64_t)(val)))

enum { MDE = 1 << 15, KDE = 1 << 13, D_MASKED = 1 << 9 };
enum { BREAKPOINT = 0x1e7, WATCHPOINT = 0x1ff7 }; /* at EL1 and EL0, all bytes; of stores */

volatile uint64_t counter;
static volatile struct {
    uint64_t n, esr, elr, far, spsr, pstate;
} took;

extern const char vectors[], second[];
__asm__(".balign 2048\n"
        "vectors:\n"
        ".fill 128, 4, 0x14000000\n" /* b . */
        "sub sp, sp, #160\n"
        "stp x0, x1, [sp]\n stp x2, x3, [sp, #16]\n stp x4, x5, [sp, #32]\n stp x6, x7, [sp, #48]\n"
        "stp x8, x9, [sp, #64]\n stp x10, x11, [sp, #80]\n stp x12, x13, [sp, #96]\n"
        "stp x14, x15, [sp, #112]\n stp x16, x17, [sp, #128]\n stp x18, x30, [sp, #144]\n"
        "bl exception\n"
        "ldp x0, x1, [sp]\n ldp x2, x3, [sp, #16]\n ldp x4, x5, [sp, #32]\n ldp x6, x7, [sp, #48]\n"
        "ldp x8, x9, [sp, #64]\n ldp x10, x11, [sp, #80]\n ldp x12, x13, [sp, #96]\n"
        "ldp x14, x15, [sp, #112]\n ldp x16, x17, [sp, #128]\n ldp x18, x30, [sp, #144]\n"
        "add sp, sp, #160\n"
        "eret\n");

void exception(void);
void exception(void)
{
    took.n++;
    took.esr = READ("esr_el1");
    took.elr = READ("elr_el1");
    took.far = READ("far_el1");
    took.spsr = READ("spsr_el1");
    took.pstate = READ("daif");
    if (took.esr >> 26 == 0x3c)
        WRITE("elr_el1", took.elr + 4);
    WRITE("dbgbcr0_el1", 0);
    WRITE("dbgwcr0_el1", 0);
}

/* Where a debugger finds something to stop at. */
void count(void);
__attribute__((noinline)) void count(void)
{
    counter++;
}

static void says(const char *what, uint64_t n, uint64_t esr, uint64_t elr)
{
    put(what);
    put("\n");
    expect("exceptions", took.n, n);
    expect("ESR", took.esr, esr);
    expect("ELR", took.elr, elr);
    expect("SPSR, but for flags", took.spsr & 0xfffffff, 0x1c5);
    expect("DAIF", took.pstate, 0x3c0);
}

void start(void)
{
    WRITE("vbar_el1", vectors);
    WRITE("oslar_el1", 0);
    WRITE("mdscr_el1", MDE | KDE);
    __asm__ volatile("msr daifclr, #8");
    count();

    __asm__ volatile(".globl second\n brk #0x123\nsecond:" : : : "memory");
    says("BRK", 1, 0xf2000123, (uint64_t)second - 4);

    WRITE("dbgbvr0_el1", count);
    WRITE("dbgbcr0_el1", BREAKPOINT);
    count();
    says("a breakpoint", 2, 0xc6000022, (uint64_t)count);

    WRITE("dbgwvr0_el1", &counter);
    WRITE("dbgwcr0_el1", WATCHPOINT);
    count();
    expect("FAR", took.far, (uint64_t)&counter);
    says("a watchpoint", 3, 0xd6000062, took.elr);
    expect("counted", counter, 3);
    end_well("debug: as it must be");
}
