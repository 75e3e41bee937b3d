/* vmm --binary lapic64.bin --entry 0x1000 --mode 64
   expect: COM1 "lapic: N properties held", status 0

   The LAPIC of one CPU: its timer in all modes and with all dividers against the PIT and the TSC,
   priorities, masks, errors, being switched off, x2APIC mode. MIT licence, see LICENSE */
#include "irq.h"

enum { V_LOW = 0x35, V_TIMER = 0x45, V_MIDDLE = 0x55, V_HIGH = 0x65, V_ERROR = 0x75 };
#define TOOK(i) (SHARED.vector[i])
#define HZ      SHARED.mine[0] /* of the timer, before the divider */
#define STAY    SHARED.mine[1] /* interrupts that do not end themselves */

static void on_interrupt(unsigned vector)
{
    TOOK(SHARED.nvectors++ % 64) = vector;
    if (vector >= 32 && vector != STAY)
        lapic_write(EOI, 0);
}

static void other_cpu(uint32_t id)
{
    (void)id;
}

static void forget(void)
{
    SHARED.nvectors = 0;
    for (unsigned v = 0; v < 256; v++)
        COUNT(v) = 0;
}

static void wait_us(uint64_t us)
{
    uint64_t start = tsc();

    while (microseconds(tsc() - start) < us)
        ;
}

static unsigned bit_of(unsigned set, unsigned vector)
{
    return lapic_read(set + vector / 32) >> vector % 32 & 1;
}

/* What a timer of so many Hz does between two looks; with what the PIT cannot tell of the TSC. */
static uint64_t units(uint64_t ticks, uint64_t hz, unsigned percent)
{
    return ticks * (hz / 1000) / SHARED.tsc_khz * percent / 100;
}

/* The count falls at the timer's speed; 3 ms. */
static void counts(unsigned divide, unsigned by)
{
    uint64_t t0, t1, t2, t3;
    uint32_t done;

    lapic_write(TIMER, MASKED | V_TIMER);
    lapic_write(DIVIDE, divide);
    t0 = tsc();
    lapic_write(INITIAL, 0xffffffff);
    t1 = tsc();
    wait_us(3000);
    t2 = tsc();
    done = 0xffffffff - lapic_read(CURRENT);
    t3 = tsc();
    within("timer counts", done, units(t2 - t1, HZ / by, 99), units(t3 - t0, HZ / by, 101) + 2);
    lapic_write(INITIAL, 0);
    expect("stopped timer", lapic_read(CURRENT), 0);
}

/* One interrupt, not too early, and not another. */
static void one_shot(unsigned divide, unsigned by)
{
    uint64_t start, us;

    forget();
    lapic_write(TIMER, V_TIMER);
    lapic_write(DIVIDE, divide);
    start = tsc();
    lapic_write(INITIAL, (uint32_t)(HZ / 1000 / by));
    await(&COUNT(V_TIMER), 1);
    us = microseconds(tsc() - start);
    within("one-shot, us", us, 990, 1000000);
    sti();
    wait_us(1500);
    cli();
    expect("one-shot comes once", COUNT(V_TIMER), 1);
    expect("one-shot is over", lapic_read(CURRENT), 0);
}

static void dividers(void)
{
    static const uint8_t code[] = {11, 0, 1, 2, 3, 8, 9, 10};
    uint32_t leaf[4];
    uint64_t t0, done;

    cpuid(0x40000010, leaf);
    within("TSC as CPUID tells it, kHz", SHARED.tsc_khz, leaf[0] - leaf[0] / 100,
           leaf[0] + leaf[0] / 100);
    HZ = leaf[1] * 1000ull;
    for (unsigned i = 0; i < 8; i++) {
        counts(code[i], 1u << i);
        expect("divider", lapic_read(DIVIDE), code[i]);
        one_shot(code[i], 1u << i);
    }
    lapic_write(DIVIDE, BY_1);
    t0 = tsc();
    lapic_write(INITIAL, 0xffffffff);
    pit_program(2, 0, 11932); /* 10 ms by the PIT */
    while (!(inb(0x61) & 0x20))
        ;
    done = 0xffffffff - lapic_read(CURRENT);
    within("timer against PIT", done, HZ / 101, units(tsc() - t0, HZ, 101));
    lapic_write(INITIAL, 0);
}

static void periodic(void)
{
    bool kvm = kvm_has_lapic();
    uint64_t start, us;

    forget();
    lapic_write(DIVIDE, BY_1);
    lapic_write(TIMER, PERIODIC | V_TIMER);
    start = tsc();
    lapic_write(INITIAL, (uint32_t)(HZ / 1000));
    for (unsigned i = 1; i <= 20; i++) {
        await(&COUNT(V_TIMER), i);
        within("periodic count", lapic_read(CURRENT), !kvm, HZ / 1000);
    }
    wait_us(5500);
    settle();
    us = microseconds(tsc() - start);
    within("periodic, not too many", COUNT(V_TIMER), 20, us / 990);
    while (!kvm && COUNT(V_TIMER) < us / 1010 - 1 && microseconds(tsc() - start) < 5000000)
        settle(); /* those that a guest does not take in time come later; KVM forgets them */
    if (!kvm)
        within("periodic, none lost", COUNT(V_TIMER), us / 1010 - 1, ~0u);
    lapic_write(TIMER, PERIODIC | MASKED | V_TIMER);
    settle();
    forget();
    wait_us(2500);
    settle();
    expect("masked timer is silent", COUNT(V_TIMER), 0);
    within("but counts", lapic_read(CURRENT), !kvm, HZ / 1000);
    lapic_write(INITIAL, 0);
}

static void deadline(void)
{
    uint32_t leaf[4];
    uint64_t at;

    cpuid(1, leaf);
    if (!(leaf[2] >> 24 & 1)) {
        print("no TSC-deadline timer\n");
        return;
    }
    forget();
    lapic_write(TIMER, DEADLINE | V_TIMER);
    expect("no deadline yet", rdmsr(MSR_DEADLINE), 0);
    at = tsc() + 2 * SHARED.tsc_khz;
    wrmsr(MSR_DEADLINE, at);
    await(&COUNT(V_TIMER), 1);
    within("deadline", tsc(), at, ~0ull);
    expect("deadline is over", rdmsr(MSR_DEADLINE), 0);
    wrmsr(MSR_DEADLINE, 1);
    settle();
    expect("deadline in the past", COUNT(V_TIMER), 2);
    at = tsc() + 1000 * SHARED.tsc_khz;
    wrmsr(MSR_DEADLINE, at);
    expect("deadline to come", rdmsr(MSR_DEADLINE), at);
    lapic_write(INITIAL, 1000);
    expect("no count in this mode", lapic_read(CURRENT), 0);
    wrmsr(MSR_DEADLINE, tsc() + 40 * SHARED.tsc_khz);
    wrmsr(MSR_DEADLINE, 0);
    wait_us(41000);
    settle();
    expect("no deadline any more", COUNT(V_TIMER), 2);
    wrmsr(MSR_DEADLINE, tsc() + 40 * SHARED.tsc_khz);
    lapic_write(TIMER, V_TIMER);
    wait_us(41000);
    settle();
    expect("another mode ends it", COUNT(V_TIMER), 2);
    lapic_write(TIMER, MASKED);
}

/* Requests wait for the task's priority, and for what is in service. */
static void priorities(void)
{
    forget();
    lapic_write(TPR, 0x50);
    send(0, SELF | V_LOW);
    send(0, SELF | V_MIDDLE);
    send(0, SELF | V_HIGH);
    settle();
    expect("above the task's priority", SHARED.nvectors, 1);
    expect("highest of them", TOOK(0), V_HIGH);
    expect("request waits", bit_of(IRR, V_MIDDLE), 1);
    expect("PPR is TPR", lapic_read(PPR), 0x50);
    lapic_write(TPR, 0x4f);
    settle();
    expect("one more", TOOK(1), V_MIDDLE);
    __asm__ volatile("mov %0, %%cr8" : : "r"(3ul));
    settle();
    expect("CR8 holds back", SHARED.nvectors, 2);
    expect("CR8 is TPR", lapic_read(TPR), 0x30);
    __asm__ volatile("mov %0, %%cr8" : : "r"(2ul));
    settle();
    expect("CR8 lets in", TOOK(2), V_LOW);
    lapic_write(TPR, 0);

    STAY = V_MIDDLE;
    forget();
    send(0, SELF | V_MIDDLE);
    settle();
    expect("in service", bit_of(ISR, V_MIDDLE), 1);
    expect("PPR is the class in service", lapic_read(PPR), V_MIDDLE & 0xf0);
    send(0, SELF | V_LOW);
    send(0, SELF | (V_MIDDLE + 1)); /* of the same class */
    settle();
    expect("same class waits", SHARED.nvectors, 1);
    send(0, SELF | V_HIGH);
    settle();
    expect("higher class nests", TOOK(1), V_HIGH);
    expect("its EOI was its own", bit_of(ISR, V_MIDDLE), 1);
    lapic_write(EOI, 0);
    settle();
    expect("after the EOI", TOOK(2), V_MIDDLE + 1);
    expect("and then", TOOK(3), V_LOW);
    expect("edges leave TMR alone", bit_of(TMR, V_LOW), 0);
    STAY = 0;
}

/* KVM has no ESR to speak of. */
static void errors(void)
{
    forget();
    lapic_write(ESR, 0);
    lapic_write(LVT_ERROR, V_ERROR);
    send(0, SELF | 5);
    settle();
    expect("error interrupt", COUNT(V_ERROR), 1);
    expect("ESR shows nothing before it is written", lapic_read(ESR), 0);
    lapic_write(ESR, 0);
    expect("ESR: bad vector sent", lapic_read(ESR), 0x20);
    lapic_write(ESR, 0);
    lapic_write(TIMER, 7); /* a bad vector of the LAPIC's own */
    lapic_write(INITIAL, 1000);
    await(&COUNT(V_ERROR), 2);
    lapic_write(ESR, 0);
    expect("ESR: bad vector received", lapic_read(ESR), 0x40);
    lapic_write(7, 1);
    lapic_write(ESR, 0);
    expect("ESR: no such register", lapic_read(ESR), 0x80);
    lapic_write(LVT_ERROR, MASKED);
    lapic_write(TIMER, MASKED);
}

static void off_and_on(void)
{
    forget();
    lapic_write(LINT1, NMI);
    lapic_write(SVR, 0xff);
    expect("off: local interrupts are masked", lapic_read(LINT1) & MASKED, MASKED);
    lapic_write(LINT1, NMI);
    expect("off: and stay so", lapic_read(LINT1) & MASKED, MASKED);
    send(0, SELF | V_LOW);
    settle();
    expect("off: fixed interrupts are lost", COUNT(V_LOW), 0);
    send(0, NMI);
    settle();
    expect("off: NMIs come in", COUNT(2), 1);
    lapic_write(SVR, 0xff | ENABLED);
    settle();
    expect("on again", COUNT(V_LOW), 0);
    send(0, SELF | V_LOW);
    settle();
    expect("on: interrupts", COUNT(V_LOW), 1);
}

static void x2apic(void)
{
    uint64_t base = rdmsr(MSR_BASE);
    uint32_t leaf[4];

    expect("base: first CPU, on", base & 0xfff, 0x900);
    cpuid(1, leaf);
    if (!(leaf[2] >> 21 & 1)) {
        print("no x2APIC mode\n");
        return;
    }
    wrmsr(MSR_BASE, base | 0x400);
    SHARED.x2apic = 1;
    expect("x2APIC: id", lapic_read(ID), 0);
    expect("x2APIC: logical id", lapic_read(LDR), 1);
    expect("x2APIC: state stays", lapic_read(SVR), 0xff | ENABLED);
    forget();
    wrmsr(MSR_X2 + SELF_IPI, V_LOW);
    settle();
    expect("x2APIC: self IPI", COUNT(V_LOW), 1);
    send(0, V_MIDDLE);
    send(1, LOGICAL | V_HIGH);
    send(0xffffffff, V_LOW);
    settle();
    expect("x2APIC: logical", TOOK(1), V_HIGH);
    expect("x2APIC: physical", TOOK(2), V_MIDDLE);
    expect("x2APIC: everybody", TOOK(3), V_LOW);
    expect("x2APIC: ICR in one", rdmsr(MSR_X2 + ICR), 0xffffffff00000000 | V_LOW);
    priorities();
    one_shot(BY_1, 1);
    deadline();
    wrmsr(MSR_BASE, base & ~0xc00ull);
    SHARED.x2apic = 0;
    wrmsr(MSR_BASE, base);
    if (!kvm_has_lapic())
        expect("off forgets", lapic_read(SVR), 0xff);
    lapic_write(SVR, 0xff | ENABLED);
}

static int guest(void)
{
    prepare();
    measure_tsc();
    dividers();
    periodic();
    deadline();
    priorities();
    if (!kvm_has_lapic())
        errors();
    off_and_on();
    x2apic();
    return verdict("lapic");
}
