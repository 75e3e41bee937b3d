/* vmm --binary irq64.bin --entry 0x1000 --mode 64 --cpus N; linked at 0x1000
   expect: COM1 "interrupts: all came", status 0 (N from 1 to 8)

   Interrupt controllers and timers as a kernel uses them, waiting in HLT each time, so that one lost
   interrupt or wake-up is the end: the PIT by the 8259 and by the IOAPIC, the LAPIC's timer once and
   periodically, IPIs to oneself, to all and to all others, NMIs, and a ring of CPUs that wake each
   other. A line before each part says which one it is. MIT licence, see LICENSE */
#pragma GCC diagnostic ignored "-Wunused-function" /* virtio: not here */
#include "guest.h"

enum { TICKS = 20, ROUNDS = 300 };
enum { EOI = 0xb0, SVR = 0xf0, ICR = 0x300, ICR_DEST = 0x310, TIMER = 0x320 };
enum { INITIAL = 0x380, DIVIDE = 0x3e0, BY_1 = 11, PERIODIC = 0x20000, MASKED = 0x10000 };
enum { SELF = 1 << 18, ALL = 2 << 18, OTHERS = 3 << 18 };
enum { NMI = 0x400, INIT = 0x4500, STARTUP = 0x4600 };
enum { V_NMI = 2, V_PIT = 0x20, V_IOAPIC = 0x41, V_TIMER, V_IPI, V_PING };

/* A flat binary brings no zeroed memory: everything has its address. The trampoline's page comes
   first, where real mode reaches it. */
#define TRAMPOLINE ((uint8_t *)0x8000)
#define CR3        (*(volatile uint32_t *)0x8f00)
#define GDTR       ((volatile uint8_t *)0x8f10)
#define GDT        ((volatile uint64_t *)0x8f20)
#define IDTR       ((volatile uint8_t *)0x8f60)
#define IDT        ((volatile uint64_t *)0x500000)
#define COUNT(v)   (((volatile uint32_t *)0x502000)[v])
#define PINGED(id) (((volatile uint32_t *)0x503000)[id])
#define NCPUS      (*(volatile uint32_t *)0x504000) /* that have come up */
#define RING       (*(volatile uint32_t *)0x504004) /* of so many CPUs; 0: no ring yet */

/* From real mode to 64-bit mode in one step, with a stack of a page for each CPU. */
extern const uint8_t ap_start[], ap_end[];
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
        "mov (%rax), %eax\n"
        "shr $12, %eax\n"
        "lea 0x601000(%rax), %rsp\n"
        "movabs $ap_main, %rax\n"
        "call *%rax\n"
        "ap_end:\n");

static uint32_t lapic_read(unsigned reg)
{
    return *(volatile uint32_t *)(0xfee00000ul + reg);
}

static void lapic_write(unsigned reg, uint32_t val)
{
    *(volatile uint32_t *)(0xfee00000ul + reg) = val;
}

static void ioapic_write(unsigned reg, uint32_t val)
{
    *(volatile uint32_t *)0xfec00000ul = reg;
    *(volatile uint32_t *)0xfec00010ul = val;
}

static void send(uint32_t dest, uint32_t what)
{
    lapic_write(ICR_DEST, dest << 24);
    lapic_write(ICR, what);
}

static void count(unsigned vector)
{
    __atomic_add_fetch(&COUNT(vector), 1, __ATOMIC_SEQ_CST);
}

struct frame;
#define HANDLER __attribute__((interrupt, target("general-regs-only"))) static void

HANDLER on_nmi(struct frame *f)
{
    (void)f;
    count(V_NMI);
}

HANDLER on_pit(struct frame *f)
{
    (void)f;
    count(V_PIT);
    outb(0x20, 0x20);
}

#define LAPIC_HANDLER(name, vector)                                                                \
    HANDLER name(struct frame *f)                                                                  \
    {                                                                                              \
        (void)f;                                                                                   \
        count(vector);                                                                             \
        lapic_write(EOI, 0);                                                                       \
    }
LAPIC_HANDLER(on_ioapic, V_IOAPIC)
LAPIC_HANDLER(on_timer, V_TIMER)
LAPIC_HANDLER(on_ipi, V_IPI)

/* Wakes the next CPU of the ring; CPU 0 does so in its loop. */
HANDLER on_ping(struct frame *f)
{
    uint32_t id = lapic_read(0x20) >> 24;

    (void)f;
    PINGED(id)++;
    lapic_write(EOI, 0);
    if (id)
        send((id + 1) % RING, V_PING);
}

static void set_gate(unsigned vector, void (*handler)(struct frame *f))
{
    uint64_t at = (uint64_t)handler;

    IDT[2 * vector] = (at & 0xffff) | 8 << 16 | 0x8e00ull << 32 | (at & 0xffff0000) << 32;
    IDT[2 * vector + 1] = at >> 32;
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

/* HLT until the interrupt's count is there: STI lets none in before HLT. */
static void await(volatile uint32_t *counter, uint32_t n)
{
    while (*counter < n)
        __asm__ volatile("sti; hlt; cli" : : : "memory");
}

__attribute__((used)) static _Noreturn void ap_main(void)
{
    load_tables();
    lapic_write(SVR, 0x1ff);
    __atomic_add_fetch(&NCPUS, 1, __ATOMIC_SEQ_CST);
    for (;;)
        __asm__ volatile("sti; hlt; cli" : : : "memory");
}

static void prepare(void)
{
    uint64_t cr3;

    memset((void *)0x500000, 0, 0x5000);
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
    set_gate(V_NMI, on_nmi);
    set_gate(V_PIT, on_pit);
    set_gate(V_IOAPIC, on_ioapic);
    set_gate(V_TIMER, on_timer);
    set_gate(V_IPI, on_ipi);
    set_gate(V_PING, on_ping);
    load_tables();
    lapic_write(SVR, 0x1ff);
    NCPUS = 1;
}

static void pit_start(void)
{
    outb(0x43, 0x34);
    outb(0x40, 0xa9); /* 1193 clocks: 1 ms */
    outb(0x40, 0x04);
}

static void by_8259(void)
{
    static const uint8_t master[] = {0x20, 4, 1, 0xfe}; /* vectors, slave, 8086 mode; IRQ 0 alone */

    outb(0x20, 0x11);
    for (unsigned i = 0; i < 4; i++)
        outb(0x21, master[i]);
    lapic_write(0x350, 0x700); /* LINT0: ExtINT */
    pit_start();
    await(&COUNT(V_PIT), TICKS);
    outb(0x21, 0xff);
}

static void by_ioapic(void)
{
    ioapic_write(0x11, 0);
    ioapic_write(0x10, V_IOAPIC);
    pit_start();
    await(&COUNT(V_IOAPIC), TICKS);
    ioapic_write(0x10, MASKED);
}

static void by_timer(void)
{
    lapic_write(DIVIDE, BY_1);
    for (unsigned i = 1; i <= TICKS; i++) {
        lapic_write(TIMER, V_TIMER);
        lapic_write(INITIAL, 500000);
        await(&COUNT(V_TIMER), i);
    }
    lapic_write(TIMER, PERIODIC | V_TIMER);
    lapic_write(INITIAL, 500000);
    await(&COUNT(V_TIMER), 2 * TICKS);
    lapic_write(TIMER, MASKED);
}

/* All other CPUs have taken it, too: one look costs an exit, so that they get to run. */
static void await_all(unsigned vector, uint32_t n)
{
    while (COUNT(vector) < n)
        lapic_read(0x20);
}

static void by_ipi(void)
{
    uint32_t n = NCPUS;

    send(0, SELF | V_IPI);
    await(&COUNT(V_IPI), 1);
    send(0, ALL | V_IPI);
    __asm__ volatile("sti");
    await_all(V_IPI, 1 + n);
    send(0, OTHERS | V_IPI);
    await_all(V_IPI, 2 * n);
    __asm__ volatile("cli");
    send(0, OTHERS | NMI);
    await_all(V_NMI, n - 1);
}

static void around(void)
{
    uint32_t n = NCPUS;

    RING = n;
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        send(1 % n, V_PING);
        await(&PINGED(0), i);
    }
}

/* Nobody knows how many they are: until the count has not grown for a while. */
static void wake_others(void)
{
    uint32_t seen = 0;

    send(0, OTHERS | INIT);
    send(0, OTHERS | STARTUP | 8);
    for (unsigned quiet = 0; quiet < 20000; quiet++) {
        lapic_read(0x20);
        quiet = NCPUS == seen ? quiet : 0;
        seen = NCPUS;
    }
}

static int guest(void)
{
    prepare();
    print("PIT by the 8259\n");
    by_8259();
    print("PIT by the IOAPIC\n");
    by_ioapic();
    print("LAPIC timer\n");
    by_timer();
    wake_others();
    print("IPIs\n");
    by_ipi();
    print("CPUs wake each other\n");
    around();
    print("interrupts: all came\n");
    return 0;
}
