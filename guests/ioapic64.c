/* vmm --binary ioapic64.bin --entry 0x1000 --mode 64
   expect: COM1 "ioapic: N properties held", status 0

   The IOAPIC, with COM1's and the PIT's lines: registers, edges, levels with remote IRR and EOI, masks,
   destinations, delivery modes. MIT licence, see LICENSE */
#include "irq.h"

enum { PIT = 0, UART = 4, LEVEL = 0x8000, REMOTE = 0x4000, V_UART = 0x51, V_PIT = 0x61 };
enum { LOW = 0x10 + 2 * UART, HIGH = LOW + 1 };
#define TIMES SHARED.mine[0] /* the UART is silenced after so many interrupts */
#define STAY  SHARED.mine[1] /* no EOI */

static void silence(void)
{
    outb(0x3f9, 0);
}

static void ask(void)
{
    outb(0x3fc, 8);
    outb(0x3f9, 2);
}

static void on_interrupt(unsigned vector)
{
    if (vector == V_UART && COUNT(V_UART) >= TIMES)
        silence();
    if (vector != 2 && !STAY)
        lapic_write(EOI, 0);
}

static void other_cpu(uint32_t id)
{
    (void)id;
}

/* The UART's pin; silent, and no interrupt seen. */
static void route(uint32_t how, uint32_t dest)
{
    silence();
    ioapic_write(LOW, MASKED);
    ioapic_write(HIGH, dest << 24);
    ioapic_write(LOW, how);
    COUNT(V_UART) = 0;
    COUNT(2) = 0;
    TIMES = 1;
    STAY = 0;
}

static void registers(void)
{
    expect("pins", ioapic_read(1) >> 16 & 0xff, 23);
    ioapic_write(LOW, MASKED | LEVEL | 0x2000 | V_UART);
    ioapic_write(HIGH, 0x12000000);
    expect("entry", ioapic_read(LOW), MASKED | LEVEL | 0x2000 | V_UART);
    expect("destination", ioapic_read(HIGH) >> 24, 0x12);
    ioapic_write(LOW, MASKED | LEVEL | REMOTE | 0x1000 | V_UART);
    expect("bits that cannot be written", ioapic_read(LOW), MASKED | LEVEL | V_UART);
    for (unsigned pin = 0; pin < 24; pin++) {
        ioapic_write(0x10 + 2 * pin, MASKED | pin);
        expect("every pin", ioapic_read(0x10 + 2 * pin), MASKED | pin);
    }
}

static void edges(void)
{
    route(V_UART, 0);
    TIMES = 5;
    ask();
    settle();
    expect("an edge comes once", COUNT(V_UART), 1);
    silence();
    ask();
    settle();
    expect("and the next", COUNT(V_UART), 2);
    expect("no remote IRR", ioapic_read(LOW), V_UART);
    route(MASKED | V_UART, 0);
    ask();
    settle();
    expect("masked", COUNT(V_UART), 0);
    silence();
    ioapic_write(LOW, V_UART);
    settle();
    expect("what was masked and is over", COUNT(V_UART), 0);
    pit_program(0, 2, 1193);
    ioapic_write(0x11, 0);
    ioapic_write(0x10, V_PIT);
    await(&COUNT(V_PIT), 10);
    ioapic_write(0x10, MASKED);
    pit_program(0, 0, 1);
    settle();
    COUNT(V_PIT) = 0;
    settle();
    expect("the PIT is masked", COUNT(V_PIT), 0);
}

static void levels(void)
{
    route(LEVEL | V_UART, 0);
    TIMES = 5;
    ask();
    settle();
    expect("a level comes until it falls", COUNT(V_UART), 5);
    expect("and then is done", ioapic_read(LOW), LEVEL | V_UART);
    route(LEVEL | V_UART, 0);
    TIMES = 2;
    STAY = 1;
    ask();
    settle();
    expect("once before the EOI", COUNT(V_UART), 1);
    expect("remote IRR", ioapic_read(LOW), LEVEL | REMOTE | V_UART);
    expect("TMR", lapic_read(TMR + V_UART / 32) >> V_UART % 32 & 1, 1);
    STAY = 0;
    lapic_write(EOI, 0);
    settle();
    expect("again after the EOI", COUNT(V_UART), 2);
    expect("remote IRR is gone", ioapic_read(LOW), LEVEL | V_UART);
    route(LEVEL | MASKED | V_UART, 0);
    ask();
    settle();
    expect("masked level", COUNT(V_UART), 0);
    ioapic_write(LOW, LEVEL | V_UART);
    settle();
    expect("a level waits for the mask", COUNT(V_UART), 1);
    route(LEVEL | V_UART, 0);
    STAY = 1;
    ask();
    settle();
    silence();
    ioapic_write(LOW, MASKED | V_UART); /* as edge: how Linux clears remote IRR of old IOAPICs */
    ioapic_write(LOW, LEVEL | V_UART);
    expect("edges forget remote IRR", ioapic_read(LOW), LEVEL | V_UART);
    STAY = 0;
    lapic_write(EOI, 0);
}

/* The guest tells the IOAPIC itself, by its register, when the LAPIC does not. */
static void directed(void)
{
    expect("the LAPIC can be told to", lapic_read(LAPIC_VERSION) >> 24 & 1, 1);
    lapic_write(SVR, 0x1000 | 0xff | ENABLED);
    route(LEVEL | V_UART, 0);
    TIMES = 2;
    ask();
    settle();
    expect("no EOI broadcast", COUNT(V_UART), 1);
    expect("remote IRR stays", ioapic_read(LOW) & REMOTE, REMOTE);
    *(volatile uint32_t *)0xfec00040ul = V_UART + 1;
    settle();
    expect("another's EOI", COUNT(V_UART), 1);
    *(volatile uint32_t *)0xfec00040ul = V_UART;
    settle();
    expect("EOI register", COUNT(V_UART), 2);
    *(volatile uint32_t *)0xfec00040ul = V_UART;
    expect("remote IRR is gone", ioapic_read(LOW), LEVEL | V_UART);
    lapic_write(SVR, 0xff | ENABLED);
}

static void destinations(void)
{
    lapic_write(DFR, 0xffffffff);
    lapic_write(LDR, 0x04000000);
    route(LOGICAL | V_UART, 0x06);
    ask();
    settle();
    expect("logical", COUNT(V_UART), 1);
    route(LOGICAL | V_UART, 0x03);
    ask();
    settle();
    expect("logical, others", COUNT(V_UART), 0);
    route(LOWEST | LOGICAL | V_UART, 0xff);
    ask();
    settle();
    expect("lowest priority", COUNT(V_UART), 1);
    route(V_UART, 0xff);
    ask();
    settle();
    expect("everybody", COUNT(V_UART), 1);
    route(V_UART, 0x05);
    ask();
    settle();
    expect("nobody", COUNT(V_UART), 0);
    route(NMI, 0);
    ask();
    settle();
    expect("NMI", COUNT(2), 1);
    route(MASKED, 0);
}

static int guest(void)
{
    prepare();
    registers();
    edges();
    levels();
    if (!kvm_has_lapic()) /* which has that bit, but broadcasts */
        directed();
    destinations();
    return verdict("ioapic");
}
