/* vmm --binary irq64.bin --entry 0x1000 --mode 64 --cpus N; linked at 0x1000
   expect: COM1 "interrupts: all came", status 0 (N from 1 to 8)

   Interrupt controllers and timers as a kernel uses them, waiting in HLT each time, so that one lost
   interrupt or wake-up is the end: the PIT by the 8259 and by the IOAPIC, the LAPIC's timer once and
   periodically, IPIs to oneself, to all and to all others, NMIs, and a ring of CPUs that wake each
   other. A line before each part says which one it is. MIT licence, see LICENSE */
#include "irq.h"

enum { TICKS = 20, ROUNDS = 300 };
enum { V_NMI = 2, V_PIT = 0x20, V_IOAPIC = 0x41, V_TIMER, V_IPI, V_PING };
#define PINGED(id) (((volatile uint32_t *)SHARED.mine)[id])
#define RING       (((volatile uint32_t *)SHARED.mine)[100]) /* of so many CPUs; 0: no ring yet */

/* In the ring, each wakes the next CPU; CPU 0 does so in its loop. */
static void on_interrupt(unsigned vector)
{
    uint32_t id = cpu_id();

    if (vector == V_PIT)
        outb(0x20, 0x20);
    else if (vector != V_NMI)
        lapic_write(EOI, 0);
    if (vector != V_PING)
        return;
    PINGED(id)++;
    if (id)
        send((id + 1) % RING, V_PING);
}

static void other_cpu(uint32_t id)
{
    (void)id; /* waits for interrupts */
}

static void by_8259(void)
{
    pic_init(1, 1);
    lapic_write(LINT0, EXTINT);
    pit_program(0, 2, 1193); /* 1 ms */
    await(&COUNT(V_PIT), TICKS);
    outb(0x21, 0xff);
}

static void by_ioapic(void)
{
    ioapic_write(0x11, 0);
    ioapic_write(0x10, V_IOAPIC);
    pit_program(0, 2, 1193);
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
        lapic_read(ID);
}

static void by_ipi(void)
{
    uint32_t n = SHARED.ncpus;

    send(0, SELF | V_IPI);
    await(&COUNT(V_IPI), 1);
    send(0, ALL | V_IPI);
    sti();
    await_all(V_IPI, 1 + n);
    send(0, OTHERS | V_IPI);
    await_all(V_IPI, 2 * n);
    __asm__ volatile("cli");
    send(0, OTHERS | NMI);
    await_all(V_NMI, n - 1);
}

static void around(void)
{
    uint32_t n = SHARED.ncpus;

    RING = n;
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        send(1 % n, V_PING);
        await(&PINGED(0), i);
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
    start_others();
    print("IPIs\n");
    by_ipi();
    print("CPUs wake each other\n");
    around();
    print("interrupts: all came\n");
    return 0;
}
