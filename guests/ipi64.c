/* vmm --binary ipi64.bin --entry 0x1000 --mode 64 --cpus N
   expect: COM1 "ipi: N properties held", status 0 (N from 1 to 8)

   IPIs of every kind between LAPICs in xAPIC and in x2APIC mode: whoever is meant gets one, and nobody else.
   MIT licence, see LICENSE */
#include "irq.h"

enum { V = 0x61, V_TELL = 0xa1 };
#define GOT(cpu, vector) (((volatile uint32_t *)0x510000)[256 * (cpu) + (vector)])
#define TELL             SHARED.mine[0] /* what the others shall do at the next V_TELL */
#define DONE             SHARED.mine[1]
#define AT(cpu)          SHARED.mine[8 + (cpu)] /* starts of this CPU */
enum { TO_FLAT = 1, TO_CLUSTERS, TO_X2APIC, BE_BUSY, BE_IDLE };

static uint32_t cluster_id(uint32_t id)
{
    return (id / 2 << 4 | 1u << id % 2) << 24;
}

/* On every CPU. */
static void obey(uint32_t id)
{
    switch (TELL) {
    case TO_FLAT:
        lapic_write(DFR, 0xffffffff);
        lapic_write(LDR, 1u << (24 + id));
        break;
    case TO_CLUSTERS:
        lapic_write(DFR, 0x0fffffff);
        lapic_write(LDR, cluster_id(id));
        break;
    case TO_X2APIC:
        wrmsr(MSR_BASE, rdmsr(MSR_BASE) | 0x400);
        break;
    case BE_BUSY:
        lapic_write(TPR, id ? 0x90 : 0);
        break;
    default:
        lapic_write(TPR, 0);
        break;
    }
    __atomic_add_fetch(&SHARED.mine[1], 1, __ATOMIC_SEQ_CST);
}

/* In x2APIC mode the EOI is elsewhere: a CPU is in that mode from TO_X2APIC on. */
static void on_interrupt(unsigned vector)
{
    uint32_t id = cpu_id();

    if (vector == V_TELL && TELL == TO_X2APIC) {
        lapic_write(EOI, 0);
        obey(id);
        return;
    }
    __atomic_add_fetch(&GOT(id, vector), 1, __ATOMIC_SEQ_CST);
    if (vector != 2)
        lapic_write(EOI, 0);
    if (vector == V_TELL)
        obey(id);
}

static void other_cpu(uint32_t id)
{
    AT(id)++;
}

/* A second without it is for ever. */
static bool comes(volatile uint32_t *what, uint32_t n)
{
    uint64_t start = tsc();

    while (*what < n && microseconds(tsc() - start) < 2000000)
        outb(0x80, 0);
    return *what >= n;
}

static void tell(unsigned what)
{
    TELL = what;
    DONE = 0;
    send(0, OTHERS | V_TELL);
    if (!comes((volatile uint32_t *)&SHARED.mine[1], SHARED.ncpus - 1))
        expect("CPUs that obey", DONE, SHARED.ncpus - 1);
    if (what == TO_X2APIC)
        SHARED.x2apic = 1;
    obey(0);
}

static void forget(void)
{
    memset((void *)0x510000, 0, 1024 * SHARED.ncpus);
}

/* Each CPU of `who`, a bit each, gets one, the others none. */
static void reaches(const char *what, uint32_t dest, uint32_t icr, uint32_t who)
{
    unsigned vector = (icr & 0x700) == NMI ? 2 : icr & 0xff;

    forget();
    send(dest, icr);
    sti();
    for (uint32_t id = 0; id < SHARED.ncpus; id++)
        if (who >> id & 1)
            comes(&GOT(id, vector), 1);
    settle();
    for (uint32_t id = 0; id < SHARED.ncpus; id++)
        expect(what, GOT(id, vector), who >> id & 1);
}

static uint32_t got_in_all(void)
{
    uint32_t sum = 0;

    for (uint32_t id = 0; id < SHARED.ncpus; id++)
        sum += GOT(id, V);
    return sum;
}

/* One of them, and not the busy ones. */
static void lowest(uint32_t dest, bool busy)
{
    uint64_t start = tsc();

    forget();
    sti();
    for (uint32_t i = 1; i <= 20; i++) {
        send(dest, LOGICAL | LOWEST | V);
        while (got_in_all() < i && microseconds(tsc() - start) < 2000000)
            outb(0x80, 0);
    }
    settle();
    expect("lowest priority: one each", got_in_all(), 20);
    if (busy && !kvm_has_lapic()) /* which chooses by vector */
        expect("lowest priority: the idle one", GOT(0, V), 20);
}

static void everywhere(void)
{
    uint32_t n = SHARED.ncpus, all = (1u << n) - 1;

    for (uint32_t id = 0; id < n; id++) {
        reaches("physical", id, V, 1u << id);
        if (id) /* one's own NMI by number, too, but then it is not after the instruction */
            reaches("NMI", id, NMI, 1u << id);
    }
    reaches("self", 0, SELF | V, 1);
    reaches("all", 0, ALL | V, all);
    reaches("others", 0, OTHERS | V, all & ~1u);
    reaches("NMI to others", 0, OTHERS | NMI, all & ~1u);
    reaches("everybody by number", SHARED.x2apic ? 0xffffffff : 0xff, V, all);
    reaches("nobody", n + 20, V, 0);
}

static void logical(void)
{
    uint32_t n = SHARED.ncpus, all = (1u << n) - 1;

    for (uint32_t set = 0; set <= all && set < 16; set++)
        reaches("logical", set, LOGICAL | V, set);
    reaches("logical, everybody", SHARED.x2apic ? 0xffffffff : 0xff, LOGICAL | V, all);
    lowest(all, false);
    tell(BE_BUSY);
    lowest(all, true);
    tell(BE_IDLE);
}

static void clusters(void)
{
    uint32_t n = SHARED.ncpus, all = (1u << n) - 1;

    for (uint32_t id = 0; id < n; id++)
        reaches("cluster, one", cluster_id(id) >> 24, LOGICAL | V, 1u << id);
    reaches("cluster, both", 0x03, LOGICAL | V, 3 & all);
    reaches("cluster, next", 0x13, LOGICAL | V, 12 & all);
    reaches("cluster, none", 0x53, LOGICAL | V, 0);
    reaches("cluster, everybody", 0xff, LOGICAL | V, all);
    if (!kvm_has_lapic()) /* for which only 0xff is more than one cluster */
        reaches("second of each cluster", 0xf2, LOGICAL | V, 0xaa & all);
}

/* INIT stops a CPU with what is pending; a start-up interrupt starts it, and the next does nothing. */
static void restart(void)
{
    uint32_t last = SHARED.ncpus - 1, ncpus = SHARED.ncpus;

    if (!last)
        return;
    send(last, INIT);
    reaches("stopped", last, V, 0);
    send(last, STARTUP | 8);
    comes(&SHARED.ncpus, ncpus + 1);
    send(last, STARTUP | 8);
    send(last, STARTUP | 9);
    settle();
    SHARED.ncpus--;
    expect("started again, once", AT(last), 2);
    expect("CPUs", SHARED.ncpus, ncpus);
    reaches("alive", last, V, 1u << last);
}

static int guest(void)
{
    uint32_t leaf[4];

    prepare();
    memset((void *)0x510000, 0, 0x10000);
    measure_tsc();
    start_others();
    print_number(SHARED.ncpus);
    print(" CPUs\n");
    everywhere();
    tell(TO_FLAT);
    logical();
    tell(TO_CLUSTERS);
    clusters();
    restart();
    cpuid(1, leaf);
    if (leaf[2] >> 21 & 1) {
        print("x2APIC\n");
        tell(TO_X2APIC);
        everywhere();
        logical();
    }
    return verdict("ipi");
}
