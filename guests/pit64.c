/* vmm --binary pit64.bin --entry 0x1000 --mode 64
   expect: COM1 "pit: N properties held", status 0

   The 8254 by looking at it: outputs and counts of all modes, latches, read-back, BCD, half writes, the gate
   and output of channel 2 at port 0x61, and the interrupts of channel 0. Where a mode has a pulse of
   one clock, nobody can look that closely; its counts tell. MIT licence, see LICENSE */
#include "irq.h"

enum { CHANNEL = 2, LOOKS = 60 };

static void on_interrupt(unsigned vector)
{
    if (vector == 0x20)
        outb(0x20, 0x20);
}

static void other_cpu(uint32_t id)
{
    (void)id;
}

static void gate(bool open)
{
    outb(0x61, open);
}

static bool out(void)
{
    return inb(0x61) >> 5 & 1;
}

/* The data sheet's waves: the output `done` clocks after the count n was loaded. */
static bool wave(unsigned mode, uint64_t done, uint64_t n)
{
    switch (mode) {
    case 0:
    case 1:
        return done >= n;
    case 2:
        return done % n != n - 1;
    case 3:
        return done % n < (n + 1) / 2;
    default:
        return done != n;
    }
}

/* And the count, of which two looks know no more than that it is between two. */
static uint64_t count_at(unsigned mode, uint64_t done, uint64_t n)
{
    if (mode == 2)
        return n - done % n;
    if (mode == 3)
        return n - 2 * (done % n % (n / 2));
    return (n + 0x10000 - done % 0x10000) % 0x10000;
}

/* Looks at the output for a bit over two periods; where it may just be changing, a look says nothing. */
static unsigned looks(unsigned mode, unsigned n, const struct span *start)
{
    unsigned good = 0;

    for (unsigned i = 0; i < LOOKS; i++) {
        struct span look;
        uint64_t from, to;
        bool is;
        do
            look.from = tsc();
        while (clocks(look.from - start->from) < i * n / 25);
        is = out();
        look.to = tsc();
        from = clocks((look.from - start->to) / 100 * 99) - 1;
        to = clocks((look.to - start->from) / 100 * 101) + 3;
        if (look.from <= start->to || from / (n / 2) != to / (n / 2) ||
            wave(mode, from, n) != wave(mode, to, n))
            continue;
        if (is != wave(mode, from, n)) {
            expect("output", is, !is);
            return 0;
        }
        good++;
    }
    return good;
}

static void counts(unsigned mode, unsigned n, const struct span *start)
{
    uint64_t before, after, low, high;
    unsigned count;

    before = tsc();
    count = pit_read(CHANNEL);
    after = tsc();
    low = count_at(mode, clocks((after - start->from) / 1000 * 1003) + 3, n);
    high = count_at(mode, clocks((before - start->to) / 1000 * 997) - 1, n);
    if (low <= high) /* else it was just reloaded */
        within("count", count, low, high);
}

static void modes(void)
{
    static const char *const names[] = {"mode 0\n", "mode 1\n", "mode 2\n",
                                        "mode 3\n", "mode 4\n", "mode 5\n"};

    for (unsigned mode = 0; mode < 6; mode++) {
        bool by_gate = mode == 1 || mode == 5;
        unsigned n = 12000; /* 10 ms */
        struct span start;
        if (kvm_has_chips() && mode != 0 && mode != 3)
            continue; /* KVM has the outputs of these upside down */
        print(names[mode]);
        gate(!by_gate);
        start.from = tsc();
        pit_program(CHANNEL, mode, n);
        if (by_gate) {
            expect("output before the gate opens", out(), 1);
            start.from = tsc();
            gate(true);
        }
        start.to = tsc();
        counts(mode, n, &start);
        if (looks(mode, n, &start) < LOOKS / 4)
            print("the host is too busy for a wave\n");
        else
            SHARED.held++;
        if (mode != 3) /* whose count KVM computes otherwise */
            counts(mode, n, &start);
    }
}

/* Closed, the gate holds modes 0 and 4, and the outputs of 2 and 3 are high. */
static void gates(void)
{
    unsigned n;

    gate(true);
    pit_program(CHANNEL, 0, 60000);
    gate(false);
    n = pit_read(CHANNEL);
    expect("count of a closed gate", pit_read(CHANNEL), n);
    for (unsigned i = 0; i < 100; i++)
        expect("count of a closed gate, later", pit_read(CHANNEL), n);
    gate(true);
    while (pit_read(CHANNEL) == n)
        ;
    within("and on it goes", pit_read(CHANNEL), 0, n - 1);
    pit_program(CHANNEL, 3, 1000);
    gate(false);
    for (unsigned i = 0; i < 300; i++)
        if (!out())
            expect("output of a closed gate", 0, 1);
    gate(true);
}

static void latches(void)
{
    unsigned first, low, status;

    gate(true);
    outb(0x43, 0xb0); /* mode 0, two bytes */
    outb(0x43, 0xe8); /* read back: status of channel 2 */
    within("status: nothing loaded, output low", inb(0x42), kvm_has_chips() ? 0 : 0x70,
           kvm_has_chips() ? 0xff : 0x70);
    outb(0x42, 0x00);
    outb(0x42, 0xf0);
    outb(0x43, 0x80); /* latch */
    first = inb(0x42);
    for (unsigned i = 0; i < 50; i++)
        inb(0x61);
    outb(0x43, 0x80);
    first |= (unsigned)inb(0x42) << 8;
    within("latched once", first, 0xe000, 0xf000);
    outb(0x43, 0x80);
    low = inb(0x42);
    outb(0x43, 0xc8); /* read back: both; the count is latched already */
    status = inb(0x42);
    expect("status comes first", status, 0x30);
    low |= (unsigned)inb(0x42) << 8;
    within("latched count goes on", low, 1, first - 1);
    outb(0x43, 0x90); /* low byte alone */
    outb(0x42, 0xff);
    outb(0x43, 0xe8);
    expect("status: low byte", inb(0x42) & 0x3f, 0x10);
    outb(0x43, 0xb1); /* BCD: 9999 */
    outb(0x42, 0x99);
    outb(0x42, 0x99);
    outb(0x43, 0x80);
    low = inb(0x42);
    within("decimal digits", low & 15, 0, 9);
    within("decimal digits", low >> 4, 0, 9);
    within("decimal digits", inb(0x42), 0x90, 0x99);
}

/* Mode 0 interrupts once, mode 2 again and again. */
static void interrupts(void)
{
    uint64_t start;

    pic_init(1, 1);
    lapic_write(LINT0, EXTINT);
    start = tsc();
    pit_program(0, 0, 11932); /* 10 ms */
    await(&COUNT(0x20), 1);
    within("mode 0, us", microseconds(tsc() - start), 9900, 2000000);
    start = tsc();
    while (microseconds(tsc() - start) < 20000)
        settle();
    expect("mode 0 comes once", COUNT(0x20), 1);
    start = tsc();
    pit_program(0, 2, 5966); /* 5 ms */
    await(&COUNT(0x20), 21);
    within("20 periods, us", microseconds(tsc() - start), 20 * 4950 - (kvm_has_chips() ? 5000 : 0),
           4000000);
    pit_program(0, 0, 1);
    outb(0x21, 0xff);
}

static int guest(void)
{
    prepare();
    measure_tsc();
    modes();
    if (!kvm_has_chips()) /* whose gate stops no count */
        gates();
    latches();
    interrupts();
    return verdict("pit");
}
