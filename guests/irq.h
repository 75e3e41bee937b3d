/* irq.h - what the guests that take interrupts share: tables, the chips, a clock, other CPUs.
   MIT licence, see LICENSE

   A guest defines on_interrupt(vector), called with interrupts off, which ends the interrupt, and
   other_cpu(id), where CPUs come to that start_others has woken. An exception ends the guest. What
   a guest finds is told by expect and within: the first failure is printed, and is its status. */
#ifndef IRQ_H
#define IRQ_H

#pragma GCC diagnostic ignored "-Wunused-function" /* virtio: not here */
#include "guest.h"

static void on_interrupt(unsigned vector);
static void other_cpu(uint32_t id);

/* Registers of a LAPIC, by their MSR less 0x800, which is their address in the page / 16. */
enum { ID = 2, LAPIC_VERSION, TPR = 8, APR, PPR, EOI, LDR = 13, DFR, SVR, ISR, TMR = 24, IRR = 32 };
enum { ESR = 40, ICR = 48, ICR_DEST, TIMER, LINT0 = 53, LINT1, LVT_ERROR, INITIAL, CURRENT };
enum { DIVIDE = 62, SELF_IPI, BY_1 = 11 };
enum { MASKED = 0x10000, PERIODIC = 0x20000, DEADLINE = 0x40000, ENABLED = 0x100 };
enum { LOWEST = 0x100, NMI = 0x400, INIT = 0x4500, STARTUP = 0x4600, EXTINT = 0x700 };
enum { LOGICAL = 0x800, SELF = 1 << 18, ALL = 2 << 18, OTHERS = 3 << 18 };
enum { MSR_BASE = 0x1b, MSR_DEADLINE = 0x6e0, MSR_X2 = 0x800 };

/* A flat binary brings no zeroed memory: everything has its address. The trampoline's page comes
   first, where real mode reaches it. */
#define TRAMPOLINE ((uint8_t *)0x8000)
#define CR3        (*(volatile uint32_t *)0x8f00)
#define GDTR       ((volatile uint8_t *)0x8f10)
#define GDT        ((volatile uint64_t *)0x8f20)
#define IDTR       ((volatile uint8_t *)0x8f60)
#define IDT        ((volatile uint64_t *)0x500000)
#define STACKS     0x600000 /* a page each for all CPUs but the first */

#define SHARED (*(volatile struct shared *)0x502000)
struct shared {
    uint32_t count[256];           /* of interrupts, by vector */
    uint32_t vector[64], nvectors; /* as they came, if one CPU alone takes them */
    uint32_t ncpus;                /* that have come up */
    uint32_t failed, held;         /* properties */
    uint32_t x2apic;               /* of CPU 0 */
    uint64_t tsc_khz;
    uint64_t mine[64]; /* for guests that know more of their CPUs */
};
#define COUNT(v) (SHARED.count[v])

/* From real mode to 64-bit mode in one step. */
extern const uint8_t ap_start[], ap_end[], vectors[];
__asm__(".code16\n"
        "ap_start: cli\n"
        "xor %ax, %ax\n"
        "mov %ax, %ds\n"
        "lgdtl 0x8f10\n"
        "mov $0x20, %eax\n"
        "mov %eax, %cr4\n"
        "mov 0x8f00, %eax\n"
        "mov %eax, %cr3\n"
        "mov $0xc0000080, %ecx\n"
        "rdmsr\n"
        "or $0x100, %eax\n"
        "wrmsr\n"
        "mov $0x80000011, %eax\n"
        "mov %eax, %cr0\n"
        "ljmpl $8, $0x8000 + 1f - ap_start\n"
        ".code64\n"
        "1: mov $16, %eax\n"
        "mov %eax, %ds\n"
        "mov %eax, %ss\n"
        "mov $0xfee00020, %eax\n"
        "mov (%rax), %edi\n"
        "shr $24, %edi\n"
        "mov %edi, %eax\n"
        "shl $12, %eax\n"
        "lea 0x601000(%rax), %rsp\n"
        "movabs $ap_main, %rax\n"
        "call *%rax\n"
        "ap_end:\n"
        /* one entry of 16 bytes a vector */
        ".balign 16\n"
        "vectors: .set v, 0\n"
        ".rept 256\n"
        "pushq $v\n"
        "jmp 2f\n"
        ".balign 16\n"
        ".set v, v + 1\n"
        ".endr\n"
        "2: push %rax; push %rcx; push %rdx; push %rsi; push %rdi\n"
        "push %r8; push %r9; push %r10; push %r11\n"
        "mov 72(%rsp), %edi\n"
        "cld\n"
        "call on_vector\n"
        "pop %r11; pop %r10; pop %r9; pop %r8\n"
        "pop %rdi; pop %rsi; pop %rdx; pop %rcx; pop %rax\n"
        "add $8, %rsp\n"
        "iretq\n");

static inline uint8_t inb(uint16_t port)
{
    uint8_t val;

    __asm__ volatile("inb %1, %0" : "=a"(val) : "Nd"(port) : "memory");
    return val;
}

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
    return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t msr, uint64_t val)
{
    __asm__ volatile("wrmsr"
                     :
                     : "c"(msr), "a"((uint32_t)val), "d"((uint32_t)(val >> 32))
                     : "memory");
}

static inline uint64_t tsc(void)
{
    uint32_t low, high;

    __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

static inline void cpuid(uint32_t leaf, uint32_t reg[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(reg[0]), "=b"(reg[1]), "=c"(reg[2]), "=d"(reg[3])
                     : "a"(leaf), "c"(0));
}

static inline void sti(void)
{
    __asm__ volatile("sti" : : : "memory");
}

static inline void cli(void)
{
    __asm__ volatile("cli" : : : "memory");
}

/* STI lets no interrupt in before the HLT. */
static inline void sti_hlt_cli(void)
{
    __asm__ volatile("sti; hlt; cli" : : : "memory");
}

static void print_number(uint64_t n)
{
    char text[21], *at = text + 20;

    for (*at = 0; !*at || n; n /= 10)
        *--at = (char)('0' + n % 10);
    print(at);
}

/* Which CPU this is, without asking a chip: by its stack. */
static inline uint32_t cpu_id(void)
{
    uint64_t sp;

    __asm__ volatile("mov %%rsp, %0" : "=r"(sp));
    return sp > STACKS && sp < STACKS + 0x100000 ? (uint32_t)(sp - STACKS) / 4096 : 0;
}

/* >>verdicts */

static void told(const char *what, uint64_t got, const char *but, uint64_t low, uint64_t high)
{
    print("FAILED: ");
    print(what);
    print(": ");
    print_number(got);
    print(but);
    print_number(low);
    if (high != low) {
        print(" to ");
        print_number(high);
    }
    print("\n");
    SHARED.failed++;
}

static void within(const char *what, uint64_t got, uint64_t low, uint64_t high)
{
    if (got < low || got > high)
        told(what, got, " instead of ", low, high);
    else
        SHARED.held++;
}

static void expect(const char *what, uint64_t got, uint64_t want)
{
    within(what, got, want, want);
}

/* What guest() returns. */
static int verdict(const char *name)
{
    print(name);
    print(": ");
    print_number(SHARED.held);
    print(SHARED.failed ? " held, but not all\n" : " properties held\n");
    return SHARED.failed != 0;
}

/* >>chips */

static uint32_t lapic_read(unsigned reg)
{
    if (SHARED.x2apic)
        return (uint32_t)rdmsr(MSR_X2 + reg);
    return *(volatile uint32_t *)(0xfee00000ul + 16 * reg);
}

static void lapic_write(unsigned reg, uint32_t val)
{
    if (SHARED.x2apic)
        wrmsr(MSR_X2 + reg, val);
    else
        *(volatile uint32_t *)(0xfee00000ul + 16 * reg) = val;
}

static uint32_t ioapic_read(unsigned reg)
{
    *(volatile uint32_t *)0xfec00000ul = reg;
    return *(volatile uint32_t *)0xfec00010ul;
}

static void ioapic_write(unsigned reg, uint32_t val)
{
    *(volatile uint32_t *)0xfec00000ul = reg;
    *(volatile uint32_t *)0xfec00010ul = val;
}

/* KVM's chips do not do all that their data sheets say. Its IOAPIC is an old one; its LAPIC comes
   with an EOI by memory (of the features in CPUID). */
static bool kvm_has_chips(void)
{
    return (ioapic_read(1) & 0xff) == 0x11;
}

static bool kvm_has_lapic(void)
{
    uint32_t leaf[4];

    cpuid(0x40000001, leaf);
    return leaf[0] >> 6 & 1;
}

static void send(uint32_t dest, uint32_t what)
{
    if (SHARED.x2apic) {
        wrmsr(MSR_X2 + ICR, (uint64_t)dest << 32 | what);
        return;
    }
    lapic_write(ICR_DEST, dest << 24);
    lapic_write(ICR, what);
}

/* Both 8259s, vectors from 0x20 and 0x28, all lines masked but those given. */
static void pic_init(uint8_t icw4, unsigned lines)
{
    static const uint8_t first[] = {0x20, 4}, second[] = {0x28, 2};

    outb(0x20, 0x11);
    outb(0xa0, 0x11);
    for (unsigned i = 0; i < 2; i++) {
        outb(0x21, first[i]);
        outb(0xa1, second[i]);
    }
    outb(0x21, icw4);
    outb(0xa1, icw4);
    outb(0x21, (uint8_t)~lines);
    outb(0xa1, (uint8_t) ~(lines >> 8));
}

static void pit_program(unsigned channel, unsigned mode, unsigned count)
{
    outb(0x43, (uint8_t)(channel << 6 | 0x30 | mode << 1));
    outb((uint16_t)(0x40 + channel), (uint8_t)count);
    outb((uint16_t)(0x40 + channel), (uint8_t)(count >> 8));
}

static unsigned pit_read(unsigned channel)
{
    unsigned low;

    outb(0x43, (uint8_t)(channel << 6));
    low = inb((uint16_t)(0x40 + channel));
    return low | (unsigned)inb((uint16_t)(0x40 + channel)) << 8;
}

/* >>clock: PIT clocks (1193182 Hz) by the TSC, and what is known of when something happened: not
   before one look at the TSC, not after another, however long a host makes its guest wait. */
struct span {
    uint64_t from, to; /* TSC */
};

static uint64_t clocks(uint64_t ticks)
{
    return ticks * 1193182 / 1000 / SHARED.tsc_khz;
}

static uint64_t microseconds(uint64_t ticks)
{
    return ticks * 1000 / SHARED.tsc_khz;
}

/* TSC against the PIT's channel 2 over 30 ms; of three looks, the one of the shortest span counts. One
   that took so long that the count has passed 0, which its output tells, does not. */
static void measure_tsc(void)
{
    uint64_t best = ~0ull, start;

    outb(0x61, 1);
    for (unsigned i = 0; i < 3 || !SHARED.tsc_khz; i++) {
        uint64_t before = tsc(), ticks, slack, count;
        pit_program(2, 0, 0xffff);
        start = tsc();
        slack = start - before;
        while ((count = pit_read(2)) > 0xffff - 35795)
            ;
        before = tsc();
        count = 0xffff - pit_read(2);
        ticks = tsc() - start;
        slack += start + ticks - before;
        if (inb(0x61) & 0x20)
            continue;
        if (slack < best)
            SHARED.tsc_khz = (ticks - (start + ticks - before) / 2) * 1193182 / 1000 / count;
        best = slack < best ? slack : best;
    }
}

/* >>interrupts */

__attribute__((used)) static void on_vector(unsigned vector)
{
    if (vector < 32 && vector != 2 && vector != 16 && !COUNT(vector)) {
        print("exception ");
        print_number(vector);
        print("\n");
        finish(200);
    }
    __atomic_add_fetch(&SHARED.count[vector], 1, __ATOMIC_SEQ_CST);
    on_interrupt(vector);
}

static void load_tables(void)
{
    __asm__ volatile("lgdt 0x8f10\n"
                     "lidt 0x8f60\n"
                     "mov %0, %%ds\n"
                     "mov %0, %%ss\n"
                     "pushq $8\n"
                     "lea 1f(%%rip), %%rax\n"
                     "pushq %%rax\n"
                     "lretq\n"
                     "1:\n"
                     :
                     : "r"(16)
                     : "rax", "memory");
}

__attribute__((used)) static _Noreturn void ap_main(uint32_t id)
{
    load_tables();
    lapic_write(SVR, 0xff | ENABLED);
    __atomic_add_fetch(&SHARED.ncpus, 1, __ATOMIC_SEQ_CST);
    other_cpu(id);
    for (;;)
        sti_hlt_cli();
}

/* Tables for CPU 0, its LAPIC on, the 8259s silent. */
static void prepare(void)
{
    uint64_t cr3;

    memset((void *)0x500000, 0, 0x3000 + sizeof SHARED);
    __asm__ volatile("mov %%cr3, %0" : "=r"(cr3));
    memcpy(TRAMPOLINE, ap_start, (size_t)(ap_end - ap_start));
    CR3 = (uint32_t)cr3;
    GDT[0] = 0;
    GDT[1] = 0x00af9b000000ffff;
    GDT[2] = 0x00cf93000000ffff;
    *(volatile uint16_t *)GDTR = 23;
    *(volatile uint64_t *)(GDTR + 2) = (uint64_t)GDT;
    *(volatile uint16_t *)IDTR = 0xfff;
    *(volatile uint64_t *)(IDTR + 2) = (uint64_t)IDT;
    for (unsigned vector = 0; vector < 256; vector++) {
        uint64_t at = (uint64_t)vectors + 16 * vector;
        IDT[2 * vector] = (at & 0xffff) | 8 << 16 | 0x8e00ull << 32 | (at & 0xffff0000) << 32;
        IDT[2 * vector + 1] = 0;
    }
    load_tables();
    pic_init(1, 0);
    lapic_write(SVR, 0xff | ENABLED);
    SHARED.ncpus = 1;
}

/* HLT until the interrupt's count is there. */
static void await(volatile uint32_t *counter, uint32_t n)
{
    while (*counter < n)
        sti_hlt_cli();
}

/* All that is due comes in: a port that nobody has is where every hypervisor gets to say so. */
static void settle(void)
{
    sti();
    for (unsigned i = 0; i < 8; i++)
        outb(0x80, 0);
    cli();
}

/* Nobody knows how many they are: until the count has not grown for a while. */
static void start_others(void)
{
    uint32_t seen = 0;

    send(0, OTHERS | INIT);
    send(0, OTHERS | STARTUP | (uint32_t)((uint64_t)TRAMPOLINE >> 12));
    for (unsigned quiet = 0; quiet < 20000; quiet++) {
        lapic_read(ID);
        quiet = SHARED.ncpus == seen ? quiet : 0;
        seen = SHARED.ncpus;
    }
}
#endif
