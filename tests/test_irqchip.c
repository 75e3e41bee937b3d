/* test_irqchip.c - the interrupt controllers and timers of dev_legacy.h against their data sheets:
   8259A, 8254, 82093AA and Intel's SDM.                            MIT licence, see LICENSE */
#define DEV_LEGACY_IMPLEMENTATION
#include "../dev_legacy.h"
#include "check.h"

/* The world around a chip: a clock, and what it was told. */
static struct {
    uint64_t now, wake_at, tsc, tsc_hz;
    bool intr;
    unsigned rises, refused; /* of PIT output 0 */
    bool refuse;
    unsigned sent; /* of the IOAPIC */
    uint64_t addr;
    uint32_t data, routed;
    unsigned eois;
    uint8_t eoi;
    struct pc_apic_msg ipi;
    unsigned ipis, kicks[256];
    bool deaf; /* nobody takes what the IOAPIC sends */
} w;

static uint64_t tell_now(void *ctx)
{
    (void)ctx;
    return w.now;
}

static void note_wake(void *ctx, uint64_t at)
{
    (void)ctx;
    w.wake_at = at;
}

static const struct vmm_timer timer = {tell_now, note_wake, NULL};

static void note_intr(void *ctx, unsigned line, bool level)
{
    (void)ctx, (void)line;
    CHECK(w.intr != level);
    w.intr = level;
}

/* >>pic */
static struct pc_pic pic;

static void out8(unsigned port, unsigned val)
{
    if (port >= 0x4d0)
        pc_pic_elcr_write(&pic, port - 0x4d0, 1, val);
    else if (port >= 0xa0)
        pc_pic_slave_write(&pic, port - 0xa0, 1, val);
    else
        pc_pic_master_write(&pic, port - 0x20, 1, val);
}

static unsigned in8(unsigned port)
{
    if (port >= 0x4d0)
        return (unsigned)pc_pic_elcr_read(&pic, port - 0x4d0, 1);
    if (port >= 0xa0)
        return (unsigned)pc_pic_slave_read(&pic, port - 0xa0, 1);
    return (unsigned)pc_pic_master_read(&pic, port - 0x20, 1);
}

/* As every PC does it: vectors from 0x20 and 0x28, and everything unmasked. */
static void pic_new(unsigned icw4)
{
    struct vmm_irq intr = {note_intr, NULL, 0};

    memset(&w, 0, sizeof w);
    pc_pic_init(&pic, &intr);
    out8(0x20, 0x11), out8(0x21, 0x20), out8(0x21, 4), out8(0x21, icw4);
    out8(0xa0, 0x11), out8(0xa1, 0x28), out8(0xa1, 2), out8(0xa1, icw4);
    out8(0x21, 0), out8(0xa1, 0);
}

static void pulse(unsigned line)
{
    pc_pic_set(&pic, line, true);
    pc_pic_set(&pic, line, false);
}

static void pic_nested(void)
{
    pic_new(1);
    CHECK(!w.intr);
    pulse(4);
    CHECK(w.intr);
    CHECK_EQ(pc_pic_ack(&pic), 0x24);
    CHECK(!w.intr);
    pulse(5); /* lower: waits */
    CHECK(!w.intr);
    pulse(3); /* higher: nests */
    CHECK(w.intr);
    CHECK_EQ(pc_pic_ack(&pic), 0x23);
    out8(0x20, 0x0b); /* read ISR */
    CHECK_EQ(in8(0x20), 0x18);
    out8(0x20, 0x0a); /* read IRR */
    CHECK_EQ(in8(0x20), 0x20);
    out8(0x20, 0x20); /* EOI of 3 */
    CHECK(!w.intr);
    out8(0x20, 0x20); /* EOI of 4 */
    CHECK(w.intr);
    CHECK_EQ(pc_pic_ack(&pic), 0x25);
    out8(0x20, 0x65); /* specific */
    out8(0x20, 0x0b);
    CHECK_EQ(in8(0x20), 0);
    CHECK_EQ(pc_pic_ack(&pic), 0x27); /* spurious: nothing asks */
    CHECK_EQ(in8(0x20), 0);
}

static void pic_cascade(void)
{
    pic_new(1);
    pulse(12);
    CHECK(w.intr);
    CHECK_EQ(pc_pic_ack(&pic), 0x2c);
    pulse(8); /* higher on the slave, but its line is in service at the master */
    CHECK(!w.intr);
    pulse(3); /* lower than line 2 of the master */
    CHECK(!w.intr);
    pulse(1);
    CHECK(w.intr);
    CHECK_EQ(pc_pic_ack(&pic), 0x21);
    out8(0x20, 0x61);
    out8(0x20, 0x62);
    CHECK(w.intr);
    CHECK_EQ(pc_pic_ack(&pic), 0x28);
    out8(0xa0, 0x20), out8(0xa0, 0x20), out8(0x20, 0x20);
    CHECK_EQ(pc_pic_ack(&pic), 0x23);

    pic_new(0x11); /* special fully nested: the slave may interrupt itself */
    pulse(12);
    CHECK_EQ(pc_pic_ack(&pic), 0x2c);
    pulse(8);
    CHECK(w.intr);
    CHECK_EQ(pc_pic_ack(&pic), 0x28);
    pulse(13);
    CHECK(!w.intr);
    out8(0xa0, 0x20);
    CHECK(!w.intr); /* 12 is still in service */
}

static void pic_masks(void)
{
    pic_new(1);
    out8(0x21, 0x10);
    pulse(4);
    CHECK(!w.intr);
    out8(0x21, 0);
    CHECK(w.intr); /* it was remembered */
    CHECK_EQ(pc_pic_ack(&pic), 0x24);
    pulse(6);
    CHECK(!w.intr);
    out8(0x21, 0x10);
    CHECK(!w.intr);
    out8(0x20, 0x68); /* special mask: what is masked holds nobody back */
    CHECK(w.intr);
    CHECK_EQ(pc_pic_ack(&pic), 0x26);
    out8(0x20, 0x20); /* not the masked 4 */
    out8(0x20, 0x0b);
    CHECK_EQ(in8(0x20), 0x10);
    out8(0x20, 0x48);
    out8(0x20, 0x20);
    CHECK_EQ(in8(0x20), 0);
    CHECK_EQ(in8(0x21), 0x10);
}

static void pic_levels(void)
{
    pic_new(1);
    out8(0x4d0, 0xff), out8(0x4d1, 0xff);
    CHECK_EQ(in8(0x4d0), 0xf8); /* 0, 1, 2, 8 and 13 stay edge-triggered */
    CHECK_EQ(in8(0x4d1), 0xde);
    pc_pic_set(&pic, 5, true);
    CHECK_EQ(pc_pic_ack(&pic), 0x25);
    out8(0x20, 0x20);
    CHECK(w.intr); /* still high */
    pc_pic_set(&pic, 5, false);
    CHECK(!w.intr);
    pc_pic_set(&pic, 1, true);
    CHECK_EQ(pc_pic_ack(&pic), 0x21);
    out8(0x20, 0x20);
    CHECK(!w.intr); /* one edge, one interrupt */
    pc_pic_set(&pic, 10, true);
    out8(0x4d1, 0);
    CHECK(!w.intr);
}

static void pic_rotation(void)
{
    pic_new(1);
    out8(0x20, 0xc3); /* 3 is the lowest now, 4 the highest */
    pulse(3), pulse(4), pulse(0);
    CHECK_EQ(pc_pic_ack(&pic), 0x24);
    out8(0x20, 0xa0); /* and rotate: 4 becomes the lowest */
    CHECK_EQ(pc_pic_ack(&pic), 0x20);
    out8(0x20, 0xe0); /* specific, rotate */
    CHECK_EQ(pc_pic_ack(&pic), 0x23);

    pic_new(3); /* automatic EOI */
    pulse(4), pulse(4);
    CHECK_EQ(pc_pic_ack(&pic), 0x24);
    out8(0x20, 0x0b);
    CHECK_EQ(in8(0x20), 0);
    out8(0x20, 0x80); /* rotate with it */
    pulse(4);
    CHECK_EQ(pc_pic_ack(&pic), 0x24);
    pulse(4), pulse(5);
    CHECK_EQ(pc_pic_ack(&pic), 0x25);
    out8(0x20, 0x00);
    CHECK_EQ(pc_pic_ack(&pic), 0x24);
}

static void pic_poll(void)
{
    pic_new(1);
    out8(0x20, 0x0c);
    CHECK_EQ(in8(0x20), 0); /* nobody */
    pulse(7), pulse(5);
    out8(0x20, 0x0c);
    CHECK_EQ(in8(0x20), 0x85); /* an acknowledge */
    CHECK(!w.intr);
    CHECK_EQ(in8(0x20), 0x80); /* IRR again */
    out8(0x20, 0x0b);
    CHECK_EQ(in8(0x20), 0x20);
    out8(0x20, 0x13), out8(0x21, 0x40), out8(0x21, 1); /* single: no ICW3 */
    CHECK_EQ(in8(0x21), 0);
    pulse(6);
    CHECK_EQ(pc_pic_ack(&pic), 0x46);
    out8(0x20, 0x12), out8(0x21, 0x50); /* nor ICW4 */
    out8(0x21, 0xaa);
    CHECK_EQ(in8(0x21), 0xaa);
    CHECK_EQ(pc_pic_master_read(&pic, 0, 2) >> 8, 0xaa);
}

/* >>pit. Times are clocks; the world's are ns. */
static struct pc_pit pit;

static bool note_rise(void *ctx)
{
    (void)ctx;
    w.refused += w.refuse;
    w.rises += !w.refuse;
    return !w.refuse;
}

static void pit_new(void)
{
    struct pc_pit_desc desc = {timer, note_rise, NULL};

    memset(&w, 0, sizeof w);
    pc_pit_init(&pit, &desc);
}

/* In the middle of a clock, so that rounding does not matter. */
static void clocks(uint64_t n)
{
    w.now = (n * 1000000000 + 500000000) / PC_PIT_HZ;
}

static void pit_program(unsigned channel, unsigned mode, unsigned count)
{
    pc_pit_write(&pit, 3, 1, channel << 6 | 0x30 | mode << 1);
    pc_pit_write(&pit, channel, 1, count & 0xff);
    pc_pit_write(&pit, channel, 1, count >> 8);
}

static unsigned pit_status(unsigned channel)
{
    pc_pit_write(&pit, 3, 1, 0xe0 | 2u << channel);
    return (unsigned)pc_pit_read(&pit, channel, 1);
}

static unsigned pit_count(unsigned channel)
{
    pc_pit_write(&pit, 3, 1, channel << 6);
    return (unsigned)(pc_pit_read(&pit, channel, 1) | pc_pit_read(&pit, channel, 1) << 8);
}

/* Outputs as the data sheet draws them: mode, count, gate raised at clock 0 after it was low, and
   the output at clocks 1, 2, ... (clock 1 loads). */
static void pit_waves(void)
{
    static const struct {
        unsigned mode, count;
        const char *out;
    } t[] = {
        {0, 4, "0000111111"}, {1, 3, "0001111111"}, {2, 3, "1101101101"},
        {3, 4, "1100110011"}, {3, 5, "1110011100"}, {4, 3, "1110111111"},
        {5, 3, "1110111111"}, {6, 2, "1010101010"}, {7, 2, "1010101010"},
    };

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        pit_new();
        pc_pit_gate_write(&pit, 0, 1, t[i].mode == 1 || t[i].mode == 5 ? 0 : 1);
        clocks(0);
        pit_program(2, t[i].mode, t[i].count);
        CHECK_EQ(pit_status(2), (t[i].mode ? 0x80u : 0) | 0x40 | 0x30 | t[i].mode << 1);
        pc_pit_gate_write(&pit, 0, 1, 1);
        for (unsigned k = 0; t[i].out[k]; k++) {
            clocks(k + 1);
            if (!CHECK_EQ(pc_pit_gate_read(&pit, 0, 1) >> 5 & 1, t[i].out[k] == '1'))
                fprintf(stderr, "  mode %u, count %u, clock %u\n", t[i].mode, t[i].count, k + 1);
        }
    }
}

static void pit_counts(void)
{
    pit_new();
    pit_program(2, 0, 10); /* the gate is closed */
    clocks(100);
    CHECK_EQ(pit_count(2), 10);
    pc_pit_gate_write(&pit, 0, 1, 1);
    clocks(103);
    CHECK_EQ(pit_count(2), 7);
    pc_pit_gate_write(&pit, 0, 1, 0);
    clocks(200);
    CHECK_EQ(pit_count(2), 7);
    pc_pit_gate_write(&pit, 0, 1, 3);
    CHECK_EQ(pc_pit_gate_read(&pit, 0, 1) & 0x23, 3);
    clocks(208);
    CHECK_EQ(pit_count(2), 0xffff); /* and on, around */
    CHECK_EQ(pc_pit_gate_read(&pit, 0, 1) & 0x23, 0x23);

    pit_program(0, 2, 0); /* 65536 */
    clocks(208 + 1 + 65535);
    CHECK_EQ(pit_count(0), 1);
    clocks(208 + 1 + 65536);
    CHECK_EQ(pit_count(0), 0);
    pc_pit_write(&pit, 3, 1, 0x54); /* channel 1, low byte, mode 2 */
    pc_pit_write(&pit, 1, 1, 18);
    clocks(208 + 1 + 65536 + 8);
    CHECK_EQ(pc_pit_read(&pit, 1, 1), 11);
    pc_pit_write(&pit, 3, 1, 0x64); /* high byte alone */
    pc_pit_write(&pit, 1, 1, 0x12);
    CHECK_EQ(pc_pit_read(&pit, 1, 1), 0x12);
    CHECK_EQ(pc_pit_read(&pit, 3, 1), 0xff);
}

static void pit_bcd_and_latches(void)
{
    pit_new();
    clocks(0);
    pc_pit_write(&pit, 3, 1, 0x31); /* mode 0, BCD */
    pc_pit_write(&pit, 0, 1, 0x00);
    CHECK_EQ(pit_status(0), 0x71); /* half written: it stands still */
    pc_pit_write(&pit, 0, 1, 0x10);
    clocks(1 + 1);
    CHECK_EQ(pit_count(0), 0x0999);
    pc_pit_write(&pit, 3, 1, 0xc2); /* read back: both of channel 0 */
    clocks(500);
    pc_pit_write(&pit, 3, 1, 0x00); /* latched already: no effect */
    CHECK_EQ(pc_pit_read(&pit, 0, 1), 0x31);
    CHECK_EQ(pc_pit_read(&pit, 0, 1), 0x99);
    CHECK_EQ(pc_pit_read(&pit, 0, 1), 0x09);
    CHECK_EQ(pc_pit_read(&pit, 0, 1), 0x01); /* 501, live */
    CHECK_EQ(pc_pit_read(&pit, 0, 1), 0x05);
    clocks(1001);
    CHECK_EQ(pit_status(0), 0xb1);
    clocks(1002);
    CHECK_EQ(pit_count(0), 0x9999);
}

static void pit_new_counts(void)
{
    pit_new();
    clocks(0);
    pit_program(0, 2, 100);
    clocks(51);
    pc_pit_write(&pit, 0, 1, 10), pc_pit_write(&pit, 0, 1, 0);
    CHECK_EQ(pit_count(0), 50);
    CHECK_EQ(pit_status(0), 0xf4); /* null count: 10 has not been loaded */
    clocks(101 + 3);
    CHECK_EQ(pit_count(0), 7);
    CHECK_EQ(pit_status(0), 0xb4);
    CHECK_EQ(w.rises, 1);
    clocks(101 + 35);
    pc_pit_tick(&pit);
    CHECK_EQ(w.rises, 4);

    pit_new();
    clocks(0);
    pit_program(2, 3, 100);
    pc_pit_gate_write(&pit, 0, 1, 1); /* high 1..51, low 51..101 */
    clocks(21);
    pc_pit_write(&pit, 2, 1, 10), pc_pit_write(&pit, 2, 1, 0);
    for (unsigned k = 41; k < 80; k++) {
        clocks(k);
        CHECK_EQ(pc_pit_gate_read(&pit, 0, 1) >> 5 & 1, k < 51 || (k - 51) / 5 % 2);
    }
}

/* Late ticks tell all that they missed; what is refused is offered again. */
static void pit_interrupts(void)
{
    pit_new();
    clocks(0);
    pit_program(0, 2, 11932); /* 100 Hz */
    CHECK(w.wake_at > 10000000 && w.wake_at < 10003000);
    w.now = w.wake_at;
    pc_pit_tick(&pit);
    CHECK_EQ(w.rises, 1);
    pc_pit_tick(&pit);
    CHECK_EQ(w.rises, 1);
    for (unsigned i = 0; i < 99; i++)
        w.now = w.wake_at, pc_pit_tick(&pit);
    CHECK_EQ(w.rises, 100);
    CHECK(w.now > 999990000 && w.now < 1000020000);
    w.now += 500100000;
    w.refuse = true;
    pc_pit_tick(&pit);
    CHECK_EQ(w.rises, 100);
    CHECK_EQ(pit.owed, 50);
    w.refuse = false;
    pc_pit_tick(&pit);
    CHECK_EQ(w.rises, 150);

    pit_program(0, 0, 1000); /* once */
    w.now = w.wake_at;
    pc_pit_tick(&pit);
    CHECK_EQ(w.rises, 151);
    CHECK(w.wake_at == UINT64_MAX);
    pit_program(0, 4, 1000);
    w.now = w.wake_at;
    pc_pit_tick(&pit);
    CHECK_EQ(w.rises, 152);
    CHECK(w.wake_at == UINT64_MAX);
    pit_program(0, 2, 2); /* 600 kHz: in bunches, not 600000 wake-ups a second */
    CHECK(w.wake_at >= w.now + 200000);
    w.now += 10000000000;
    pc_pit_tick(&pit);
    CHECK_EQ(w.rises, 152 + 4096); /* and not without end */
}

/* >>ioapic */
static struct pc_ioapic ioapic;

static enum pc_taken note_send(void *ctx, unsigned pin, uint64_t addr, uint32_t data)
{
    (void)ctx, (void)pin;
    w.sent++;
    w.addr = addr;
    w.data = data;
    return w.deaf ? PC_NOBODY : PC_TAKEN;
}

static void note_route(void *ctx, unsigned pin, uint64_t addr, uint32_t data)
{
    (void)ctx, (void)pin, (void)addr;
    w.routed = data;
}

static void ioapic_put(unsigned index, uint32_t val)
{
    pc_ioapic_write(&ioapic, 0, 4, index);
    pc_ioapic_write(&ioapic, 0x10, 4, val);
}

static uint32_t ioapic_get(unsigned index)
{
    pc_ioapic_write(&ioapic, 0, 1, index);
    return (uint32_t)pc_ioapic_read(&ioapic, 0x10, 4);
}

static void test_ioapic(void)
{
    struct pc_ioapic_desc desc = {note_send, note_route, NULL};

    memset(&w, 0, sizeof w);
    pc_ioapic_init(&ioapic, &desc);
    CHECK_EQ(ioapic_get(1), 0x170020);
    CHECK_EQ(ioapic_get(0x10), 0x10000);
    CHECK_EQ(ioapic_get(0x40), 0xffffffff);
    ioapic_put(0, 0xff000000);
    CHECK_EQ(ioapic_get(0), 0x0f000000);
    CHECK_EQ(ioapic_get(2), 0x0f000000);
    ioapic_put(0x40, 0);
    ioapic_put(0x10 + 8, 0xfffff041); /* bits that are not there, and read-only ones */
    CHECK_EQ(ioapic_get(0x10 + 8), 0x1a041);
    CHECK_EQ(w.routed, 0xc041);

    ioapic_put(0x10 + 9, 0x03000000); /* pin 4: vector 0x41 to CPU 3, edges */
    pc_ioapic_set(&ioapic, 4, true);  /* masked: lost */
    ioapic_put(0x10 + 8, 0x41);
    CHECK_EQ(w.sent, 0);
    pc_ioapic_set(&ioapic, 4, true); /* no edge */
    CHECK_EQ(w.sent, 0);
    pc_ioapic_set(&ioapic, 4, false);
    pc_ioapic_set(&ioapic, 4, true);
    CHECK_EQ(w.sent, 1);
    CHECK_EQ(w.addr, 0xfee03000);
    CHECK_EQ(w.data, 0x41);

    ioapic_put(0x10 + 21, 0xff000000);
    ioapic_put(0x10 + 20, 0x8952); /* pin 10: lowest priority, logical, level */
    pc_ioapic_set(&ioapic, 10, true);
    CHECK_EQ(w.sent, 2);
    CHECK_EQ(w.addr, 0xfeeff004);
    CHECK_EQ(w.data, 0xc152);
    CHECK_EQ(ioapic_get(0x10 + 20), 0xc952); /* remote IRR */
    pc_ioapic_set(&ioapic, 10, true);
    CHECK_EQ(w.sent, 2);
    pc_ioapic_eoi(&ioapic, 0x51); /* another's */
    CHECK_EQ(w.sent, 2);
    pc_ioapic_eoi(&ioapic, 0x52); /* still high: again */
    CHECK_EQ(w.sent, 3);
    pc_ioapic_set(&ioapic, 10, false);
    pc_ioapic_write(&ioapic, 0x40, 4, 0x52);
    CHECK_EQ(ioapic_get(0x10 + 20), 0x8952);
    ioapic_put(0x10 + 20, 0x18952);
    pc_ioapic_set(&ioapic, 10, true);
    CHECK_EQ(w.sent, 3);
    ioapic_put(0x10 + 20, 0x8952); /* unmasked while high */
    CHECK_EQ(w.sent, 4);
    ioapic_put(0x10 + 20, 0x0952); /* to edges: remote IRR goes */
    CHECK_EQ(ioapic_get(0x10 + 20), 0x0952);
    ioapic_put(0x10 + 20, 0x8400); /* an NMI knows no end: each rise is one, for all that it is a level */
    CHECK_EQ(w.sent, 4);
    pc_ioapic_set(&ioapic, 10, false);
    pc_ioapic_set(&ioapic, 10, true);
    pc_ioapic_set(&ioapic, 10, true);
    CHECK_EQ(w.sent, 5);
    CHECK_EQ(w.data, 0x400);
    CHECK_EQ(ioapic_get(0x10 + 20), 0x8400);
    pc_ioapic_set(&ioapic, 10, false);
    pc_ioapic_set(&ioapic, 10, true);
    CHECK_EQ(w.sent, 6);
}

/* A level that nobody takes waits for no end: it is sent again when there may be somebody. */
static void ioapic_unheard(void)
{
    struct pc_ioapic_desc desc = {note_send, NULL, NULL};

    memset(&w, 0, sizeof w);
    pc_ioapic_init(&ioapic, &desc);
    w.deaf = true;
    ioapic_put(0x10 + 20, 0x8052);
    pc_ioapic_set(&ioapic, 10, true);
    CHECK_EQ(w.sent, 1);
    CHECK_EQ(ioapic_get(0x10 + 20), 0x8052); /* no remote IRR */
    pc_ioapic_retry(&ioapic);
    CHECK_EQ(w.sent, 2);
    w.deaf = false;
    pc_ioapic_retry(&ioapic);
    CHECK_EQ(w.sent, 3);
    CHECK_EQ(ioapic_get(0x10 + 20), 0xc052);
    pc_ioapic_retry(&ioapic); /* it was taken */
    CHECK_EQ(w.sent, 3);
    w.deaf = true;
    pc_ioapic_eoi(&ioapic, 0x52);
    CHECK_EQ(w.sent, 4);
    pc_ioapic_set(&ioapic, 10, false);
    w.deaf = false;
    pc_ioapic_retry(&ioapic); /* it is not there any more */
    CHECK_EQ(w.sent, 4);
}

/* >>lapic */
static struct pc_lapic lapic;

static uint64_t tell_tsc(void *ctx, uint32_t id, uint64_t *hz)
{
    (void)ctx;
    CHECK_EQ(id, lapic.desc.id);
    *hz = w.tsc_hz;
    return w.tsc;
}

static void note_ipi(void *ctx, const struct pc_lapic *from, const struct pc_apic_msg *m)
{
    (void)ctx;
    CHECK(from == &lapic);
    w.ipi = *m;
    w.ipis++;
}

static void note_eoi(void *ctx, uint8_t vector)
{
    (void)ctx;
    w.eoi = vector;
    w.eois++;
}

static uint64_t lapic_in(unsigned off)
{
    return pc_lapic_read(&lapic, off, 4);
}

static void lapic_out(unsigned off, uint32_t val)
{
    pc_lapic_write(&lapic, off, 4, val);
}

static void lapic_new(unsigned id)
{
    struct pc_lapic_desc desc = {id, timer, tell_tsc, note_ipi, note_eoi, NULL};

    memset(&w, 0, sizeof w);
    w.now = 1000;
    pc_lapic_init(&lapic, &desc);
    lapic_out(0xf0, 0x1ff);
}

static bool fixed(unsigned vector, bool level)
{
    struct pc_apic_msg m = {.vector = (uint8_t)vector, .level = level};

    return pc_lapic_accept(&lapic, &m) == PC_TAKEN;
}

static bool wrmsr(uint32_t msr, uint64_t val)
{
    return pc_lapic_msr(&lapic, msr, true, &val);
}

static uint64_t rdmsr(uint32_t msr)
{
    uint64_t val = 0xbad;

    return pc_lapic_msr(&lapic, msr, false, &val) ? val : 0xdead;
}

static void lapic_reset(void)
{
    static const struct {
        unsigned off;
        uint32_t val;
    } t[] = {{0x20, 0},        {0x30, 0x01050014}, {0x80, 0},        {0xa0, 0},
             {0xd0, 0},        {0xe0, 0xffffffff}, {0xf0, 0xff},     {0x100, 0},
             {0x180, 0},       {0x200, 0},         {0x280, 0},       {0x300, 0},
             {0x320, 0x10000}, {0x350, 0x700},     {0x360, 0x10000}, {0x370, 0x10000},
             {0x380, 0},       {0x390, 0},         {0x3e0, 0}};
    struct pc_lapic_desc desc = {0, timer, NULL, note_ipi, note_eoi, NULL};

    pc_lapic_init(&lapic, &desc);
    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++)
        CHECK_EQ(lapic_in(t[i].off), t[i].val);
    CHECK_EQ(rdmsr(0x1b), 0xfee00900);
    CHECK(!fixed(0x50, false)); /* off: nobody is at home */
    CHECK(pc_lapic_pending(&lapic) < 0);
    lapic_out(0x350, 0x41); /* entries stay masked while it is off */
    CHECK_EQ(lapic_in(0x350), 0x10041);
    desc.id = 5;
    pc_lapic_init(&lapic, &desc);
    CHECK_EQ(lapic_in(0x20), 0x05000000);
    CHECK_EQ(rdmsr(0x1b), 0xfee00800);
    CHECK_EQ(lapic_in(0x350), 0x10000);
}

static void lapic_priorities(void)
{
    lapic_new(0);
    CHECK(fixed(0x31, false));
    CHECK(!fixed(0x31, false)); /* two in one */
    fixed(0x45, true);
    CHECK_EQ(lapic_in(0x210), 0x20000); /* IRR 0x20..0x3f */
    CHECK_EQ(lapic_in(0x1a0), 0x20);    /* TMR 0x40..0x5f */
    CHECK_EQ(pc_lapic_pending(&lapic), 0x45);
    CHECK_EQ(pc_lapic_ack(&lapic), 0x45);
    CHECK_EQ(lapic_in(0x120), 0x20);
    CHECK_EQ(lapic_in(0xa0), 0x40);
    CHECK(pc_lapic_pending(&lapic) < 0); /* 3 < 4 */
    fixed(0x4f, false);
    CHECK(pc_lapic_pending(&lapic) < 0); /* the same class */
    fixed(0x50, false);
    CHECK_EQ(pc_lapic_ack(&lapic), 0x50);
    lapic_out(0xb0, 0);
    CHECK_EQ(w.eois, 0); /* 0x50 was an edge */
    lapic_out(0xb0, 0);
    CHECK_EQ(w.eois, 1);
    CHECK_EQ(w.eoi, 0x45);
    CHECK_EQ(pc_lapic_pending(&lapic), 0x4f);
    lapic_out(0x80, 0x4e); /* the task is as important */
    CHECK(pc_lapic_pending(&lapic) < 0);
    CHECK_EQ(lapic_in(0xa0), 0x4e);
    CHECK_EQ(pc_lapic_ack(&lapic), 0xff); /* spurious */
    lapic_out(0x80, 0x30);
    CHECK_EQ(pc_lapic_ack(&lapic), 0x4f);
    lapic_out(0xb0, 0), lapic_out(0xb0, 0); /* one too many */
    lapic_out(0x80, 0);
    CHECK_EQ(pc_lapic_ack(&lapic), 0x31);
    lapic_out(0xb0, 0);
    fixed(0x61, true);
    lapic_out(0xf0, 0x11ff); /* directed EOI: no broadcast */
    pc_lapic_ack(&lapic);
    lapic_out(0xb0, 0);
    CHECK_EQ(w.eois, 1);
}

static void lapic_errors(void)
{
    lapic_new(0);
    lapic_out(0x370, 0xfe);
    fixed(15, false);
    CHECK_EQ(lapic_in(0x280), 0);
    lapic_out(0x280, 0);
    CHECK_EQ(lapic_in(0x280), 0x40);
    CHECK_EQ(pc_lapic_ack(&lapic), 0xfe);
    lapic_out(0x300, 0x5); /* to send vector 5 */
    CHECK_EQ(w.ipis, 0);
    lapic_in(0x40); /* no such register */
    lapic_out(0x280, 0);
    CHECK_EQ(lapic_in(0x280), 0xa0);
    lapic_out(0x280, 0);
    CHECK_EQ(lapic_in(0x280), 0);
    CHECK_EQ(pc_lapic_read(&lapic, 0x31, 1), 0); /* bytes of version 0x01050014 */
    CHECK_EQ(pc_lapic_read(&lapic, 0x32, 2), 0x105);
    CHECK_EQ(pc_lapic_read(&lapic, 0x34, 4), 0);
    pc_lapic_write(&lapic, 0x81, 1, 0xff);
    CHECK_EQ(lapic_in(0x80), 0);
}

static void lapic_ipis(void)
{
    static const struct {
        uint32_t icr2, icr;
        struct pc_apic_msg m;
    } t[] = {
        {0x02000000, 0x00041, {.dest = 2, .vector = 0x41}},
        {0xff000000, 0x00041, {.dest = PC_APIC_ALL, .vector = 0x41}},
        {0x03000000, 0x00941, {.dest = 3, .vector = 0x41, .mode = 1, .logical = 1, .lowest = 1}},
        {0x03000000, 0x00400, {.dest = 3, .mode = PC_APIC_NMI}},
        {0x03000000, 0x04500, {.dest = 3, .mode = PC_APIC_INIT}},
        {0x03000000, 0x08500, {.dest = 3, .mode = PC_APIC_INIT, .deassert = 1}},
        {0x03000000, 0x00699, {.dest = 3, .mode = PC_APIC_STARTUP, .vector = 0x99}},
        {0, 0x40041, {.vector = 0x41, .shorthand = 1}},
        {0, 0x80041, {.vector = 0x41, .shorthand = 2}},
        {0, 0xc0041, {.vector = 0x41, .shorthand = 3}},
    };

    lapic_new(0);
    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        lapic_out(0x310, t[i].icr2);
        lapic_out(0x300, t[i].icr);
        CHECK_EQ(w.ipis, i + 1);
        CHECK_EQ(w.ipi.dest, t[i].m.dest);
        CHECK_EQ(w.ipi.vector, t[i].m.vector);
        CHECK_EQ(w.ipi.mode, t[i].m.mode);
        CHECK_EQ(w.ipi.logical, t[i].m.logical);
        CHECK_EQ(w.ipi.lowest, t[i].m.lowest);
        CHECK_EQ(w.ipi.deassert, t[i].m.deassert);
        CHECK_EQ(w.ipi.shorthand, t[i].m.shorthand);
        CHECK_EQ(lapic_in(0x300), t[i].icr);
    }
}

static bool hits(uint32_t dest, bool logical)
{
    struct pc_apic_msg m = {.dest = dest, .logical = logical};

    return pc_lapic_matches(&lapic, &m);
}

static void lapic_destinations(void)
{
    lapic_new(5);
    CHECK(hits(5, false) && !hits(4, false) && hits(PC_APIC_ALL, false) && hits(PC_APIC_ALL, true));
    CHECK(!hits(0x10, true));
    lapic_out(0xd0, 0x10ffffff);
    CHECK_EQ(lapic_in(0xd0), 0x10000000);
    CHECK(hits(0x10, true) && hits(0x30, true) && !hits(0x20, true)); /* flat */
    lapic_out(0xe0, 0);
    CHECK_EQ(lapic_in(0xe0), 0x0fffffff);
    lapic_out(0xd0, 0x24000000); /* cluster 2, the third */
    CHECK(hits(0x24, true) && hits(0x2f, true) && hits(0xf4, true));
    CHECK(!hits(0x23, true) && !hits(0x34, true) && !hits(0x124, true));

    lapic_new(37);
    CHECK(wrmsr(0x1b, 0xfee00c00));
    CHECK_EQ(rdmsr(0x802), 37);
    CHECK_EQ(rdmsr(0x80d), 0x20020);
    CHECK(hits(37, false) && !hits(0x100 + 37, false));
    CHECK(hits(0x20020, true) && hits(0x2ffff, true) && !hits(0x20001, true) && !hits(0x20, true));
}

static void lapic_x2apic(void)
{
    lapic_new(1);
    CHECK_EQ(rdmsr(0x802), 0xdead);  /* not yet */
    CHECK(!wrmsr(0x1b, 0xfee00400)); /* x2APIC without enable */
    CHECK(!wrmsr(0x1b, 0xfee00a00)); /* a reserved bit */
    CHECK(pc_lapic_claims(&lapic, 0xfee00300) && !pc_lapic_claims(&lapic, 0xfee01000));
    CHECK(wrmsr(0x1b, 0xfee00c00));
    CHECK(!pc_lapic_claims(&lapic, 0xfee00300));
    CHECK(!wrmsr(0x1b, 0xfee00800));         /* only by way of off */
    CHECK(wrmsr(0x830, 0x1234567800000041)); /* 64 bits, sent at once */
    CHECK_EQ(w.ipi.dest, 0x12345678);
    CHECK_EQ(rdmsr(0x830), 0x1234567800000041);
    CHECK(wrmsr(0x830, 0xff00000041));
    CHECK_EQ(w.ipi.dest, 0xff);
    CHECK(wrmsr(0x830, 0xffffffff00000041));
    CHECK(w.ipi.dest == PC_APIC_ALL);
    CHECK(wrmsr(0x83f, 0x77));
    CHECK_EQ(w.ipi.shorthand, 1);
    CHECK_EQ(w.ipi.vector, 0x77);
    CHECK_EQ(rdmsr(0x83f), 0xdead); /* write-only */
    CHECK_EQ(rdmsr(0x80b), 0xdead);
    CHECK(!wrmsr(0x802, 1) && !wrmsr(0x80d, 1) && !wrmsr(0x80e, 0) && !wrmsr(0x831, 0));
    CHECK_EQ(rdmsr(0x80e), 0xdead);
    CHECK(!wrmsr(0x80b, 1) && wrmsr(0x80b, 0));
    CHECK(!wrmsr(0x828, 1) && wrmsr(0x828, 0));
    CHECK(!wrmsr(0x808, 1ull << 32) && wrmsr(0x808, 0x20));
    CHECK(!wrmsr(0x808, 0x100) && !wrmsr(0x83f, 0x177));
    CHECK_EQ(rdmsr(0x808), 0x20);
    CHECK(!wrmsr(0x840, 0) && !wrmsr(0x7ff, 0) && !wrmsr(0x10, 0));
    CHECK(wrmsr(0x1b, 0xfee00000));  /* off */
    CHECK(!wrmsr(0x1b, 0xfee00c00)); /* not in one step */
    CHECK(wrmsr(0x1b, 0xfee00800) && wrmsr(0x1b, 0xfee00c00));
    CHECK_EQ(rdmsr(0x80f), 0xff); /* it forgot */
}

static void lapic_timer(void)
{
    static const struct {
        unsigned reg, by;
    } t[] = {{0, 2}, {1, 4}, {2, 8}, {3, 16}, {8, 32}, {9, 64}, {10, 128}, {11, 1}};

    for (unsigned i = 0; i < 8; i++) {
        lapic_new(0);
        lapic_out(0x3e0, t[i].reg);
        lapic_out(0x320, 0x40);
        lapic_out(0x380, 1000000);
        CHECK_EQ(w.wake_at, 1000 + 1000000ull * t[i].by);
        CHECK_EQ(lapic_in(0x390), 1000000);
        w.now += 400000ull * t[i].by;
        CHECK_EQ(lapic_in(0x390), 600000);
        lapic_out(0x3e0, 11); /* the count stays */
        CHECK_EQ(lapic_in(0x390), 600000);
        w.now = w.wake_at - 1;
        pc_lapic_tick(&lapic);
        CHECK(pc_lapic_pending(&lapic) < 0);
        w.now++;
        pc_lapic_tick(&lapic);
        CHECK_EQ(pc_lapic_pending(&lapic), 0x40);
        CHECK(w.wake_at == UINT64_MAX);
        CHECK_EQ(lapic_in(0x390), 0);
    }
}

static void lapic_periodic(void)
{
    lapic_new(0);
    lapic_out(0x3e0, 11);
    lapic_out(0x320, 0x20040);
    lapic_out(0x380, 1000000);
    w.now = w.wake_at + 300000;
    CHECK_EQ(lapic_in(0x390), 700000); /* before anybody called */
    w.now += 4000000;
    pc_lapic_tick(&lapic); /* five periods late: five interrupts, one after the other */
    CHECK_EQ(w.wake_at, 1000 + 6000000);
    for (unsigned i = 0; i < 5; i++) {
        CHECK_EQ(pc_lapic_ack(&lapic), 0x40);
        lapic_out(0xb0, 0);
    }
    CHECK(pc_lapic_pending(&lapic) < 0);
    lapic_out(0x320, 0x30040); /* masked: nobody need wake up, but it counts */
    CHECK(w.wake_at == UINT64_MAX);
    w.now = 1000 + 6500000;
    CHECK_EQ(lapic_in(0x390), 500000);
    lapic_out(0x320, 0x20040);
    CHECK_EQ(w.wake_at, 1000 + 7000000);
    lapic_out(0x380, 10); /* 100 MHz: no */
    CHECK_EQ(w.wake_at, w.now + 200000);
    lapic_out(0x380, 0);
    CHECK(w.wake_at == UINT64_MAX);
}

static void lapic_deadline(void)
{
    lapic_new(0);
    w.tsc = 1000000;
    w.tsc_hz = 2000000000;
    CHECK(wrmsr(0x6e0, 2000000)); /* not in this mode */
    CHECK_EQ(rdmsr(0x6e0), 0);
    lapic_out(0x320, 0x40040);
    CHECK(wrmsr(0x6e0, 3000000));
    CHECK_EQ(rdmsr(0x6e0), 3000000);
    CHECK_EQ(w.wake_at, 1000 + 1000000); /* 2 GHz */
    lapic_out(0x380, 50);                /* ignored */
    CHECK_EQ(lapic_in(0x390), 0);
    CHECK_EQ(w.wake_at, 1000 + 1000000);
    w.now = w.wake_at;
    pc_lapic_tick(&lapic);
    CHECK_EQ(pc_lapic_ack(&lapic), 0x40);
    CHECK_EQ(rdmsr(0x6e0), 0);
    lapic_out(0xb0, 0);
    CHECK(wrmsr(0x6e0, 1)); /* long gone: at once */
    CHECK_EQ(pc_lapic_ack(&lapic), 0x40);
    CHECK(wrmsr(0x6e0, ~0ull));
    CHECK(w.wake_at > w.now + 100000000000);
    CHECK(wrmsr(0x6e0, 0));
    CHECK(w.wake_at == UINT64_MAX);
    CHECK(wrmsr(0x6e0, 9000000));
    lapic_out(0x320, 0x40); /* leaving the mode disarms */
    CHECK(w.wake_at == UINT64_MAX);
    lapic_out(0x320, 0x40040);
    w.tsc_hz = 0; /* nobody knows how fast it is */
    CHECK(wrmsr(0x6e0, 9000000));
    CHECK(w.wake_at > w.now + 100000000000);
}

/* >>irqchip: three CPUs */
static struct pc_lapic cpus[3];
static struct pc_irqchip chip;
static unsigned locked;

static void enter(void *ctx)
{
    (void)ctx;
    CHECK_EQ(locked++, 0);
}

static void leave(void *ctx)
{
    (void)ctx;
    CHECK_EQ(--locked, 0);
}

static void note_kick(void *ctx, unsigned cpu)
{
    (void)ctx;
    w.kicks[cpu]++;
}

static void note_msi(void *ctx, unsigned vector, uint64_t addr, uint32_t data)
{
    (void)ctx, (void)vector;
    w.addr = addr;
    w.data = data;
    w.sent++;
}

static void chip_new(bool lapics)
{
    struct pc_irqchip_desc desc = {.lapic = lapics ? cpus : NULL,
                                   .ncpus = lapics ? 3 : 0,
                                   .timer = timer,
                                   .kick = note_kick,
                                   .msi = {note_msi, NULL},
                                   .route = note_route,
                                   .lock = {enter, leave, NULL}};

    memset(&w, 0, sizeof w);
    pc_irqchip_init(&chip, &desc);
    for (unsigned i = 0; lapics && i < 3; i++)
        pc_lapic_write(&cpus[i], 0xf0, 4, 0x1ff);
}

static void ipi(unsigned from, uint32_t dest, uint32_t icr)
{
    pc_lapic_write(&cpus[from], 0x310, 4, dest << 24);
    pc_lapic_write(&cpus[from], 0x300, 4, icr);
}

static int next(unsigned cpu)
{
    uint8_t vector = 0;
    enum pc_todo todo = pc_irqchip_next(&chip, cpu, true, &vector);

    return (int)todo << 8 | vector;
}
#define WORK(what, vector) (PC_TODO_##what << 8 | (vector))

/* INIT, then two start-up interrupts, of which one counts, as Linux starts a CPU. */
static void chip_startup(void)
{
    chip_new(true);
    CHECK_EQ(next(0), WORK(NOTHING, 0));
    CHECK_EQ(next(1), WORK(WAIT, 0));
    ipi(0, 1, 0x4500), ipi(0, 1, 0x8500);
    CHECK_EQ(w.kicks[1], 1);
    CHECK_EQ(next(1), WORK(INIT, 0));
    CHECK_EQ(next(1), WORK(WAIT, 0));
    ipi(0, 1, 0x699);
    CHECK_EQ(w.kicks[1], 2);
    CHECK_EQ(next(1), WORK(STARTUP, 0x99));
    ipi(0, 1, 0x69a);
    CHECK_EQ(w.kicks[1], 2);
    CHECK_EQ(next(1), WORK(NOTHING, 0));
    ipi(0, 2, 0x698); /* no INIT needed after a reset */
    CHECK_EQ(next(2), WORK(STARTUP, 0x98));
    ipi(1, 2, 0x400);
    CHECK_EQ(next(2), WORK(NMI, 0));
}

/* INIT: what came in before is gone; CPU 0, at once or by its own doing, does not wait after it. */
static void chip_init(void)
{
    for (unsigned from = 0; from < 2; from++) {
        chip_new(true);
        ipi(1, 0, 0x51), ipi(1, 0, 0x400);
        ipi(from, 0, 0x4500);
        CHECK_EQ(next(0), WORK(INIT, 0));
        CHECK_EQ(next(0), WORK(NOTHING, 0));
        CHECK_EQ(cpus[0].svr, 0xff);
        CHECK_EQ(cpus[0].base & 0x900, 0x900);
        ipi(1, 0, 0x699); /* and a start-up interrupt is none of its business */
        CHECK_EQ(next(0), WORK(NOTHING, 0));
    }
    chip_new(true);
    ipi(0, 1, 0x699);
    CHECK_EQ(next(1), WORK(STARTUP, 0x99));
    ipi(0, 1, 0x51), ipi(0, 1, 0x400);
    ipi(0, 1, 0x4500);
    CHECK_EQ(next(1), WORK(INIT, 0));
    CHECK_EQ(next(1) >> 8, PC_TODO_WAIT);
    ipi(0, 1, 0x69a);
    CHECK_EQ(next(1), WORK(STARTUP, 0x9a));
    CHECK_EQ(next(1), WORK(NOTHING, 0));
}

static void chip_put(unsigned cpu, uint64_t addr, uint32_t val)
{
    uint8_t data[8];
    struct vmm_exit e = {
        .kind = VMM_EXIT_MMIO, .write = true, .size = 4, .count = 1, .addr = addr, .data = data};

    vmm_put32(data, val);
    CHECK(pc_irqchip_mmio(&chip, cpu, &e));
}

/* A level for a LAPIC that is off, or has not got that logical id yet, comes in as soon as it has. */
static void chip_unheard(void)
{
    chip_new(true);
    ipi(0, 1, 0x699), next(1);
    chip_put(1, 0xfee000f0, 0xff);
    pc_ioapic_write(&chip.ioapic, 0, 4, 0x10 + 2 * 16 + 1);
    pc_ioapic_write(&chip.ioapic, 0x10, 4, 0x02000000);
    pc_ioapic_write(&chip.ioapic, 0, 4, 0x10 + 2 * 16);
    pc_ioapic_write(&chip.ioapic, 0x10, 4, 0x8871);
    pc_irqchip_set(&chip, 16, true);
    CHECK_EQ(next(1), WORK(NOTHING, 0));
    chip_put(1, 0xfee000d0, 0x02000000);
    CHECK_EQ(next(1), WORK(NOTHING, 0));
    CHECK_EQ((uint32_t)chip.ioapic.pin[16], 0x8871);
    chip_put(1, 0xfee000f0, 0x1ff);
    CHECK_EQ(next(1), WORK(INTERRUPT, 0x71));
    CHECK_EQ((uint32_t)chip.ioapic.pin[16], 0xc871);
    pc_irqchip_set(&chip, 16, false);
    chip_put(1, 0xfee000b0, 0);
    CHECK_EQ((uint32_t)chip.ioapic.pin[16], 0x8871);
}

static void chip_start_all(void)
{
    chip_new(true);
    ipi(0, 1, 0x699), ipi(0, 2, 0x699);
    next(1), next(2);
    memset(w.kicks, 0, sizeof w.kicks);
    for (unsigned i = 0; i < 3; i++) {
        pc_lapic_write(&cpus[i], 0xf0, 4, 0x1ff);
        pc_lapic_write(&cpus[i], 0xd0, 4, 1u << (24 + i));
    }
}

static void chip_ipis(void)
{
    static const struct {
        uint32_t dest, icr;
        unsigned who; /* a bit each */
    } t[] = {{2, 0x51, 4},    {0xff, 0x51, 7}, {6, 0x851, 6}, {0, 0x40051, 2}, {0, 0x80051, 7},
             {0, 0xc0051, 5}, {9, 0x51, 0},    {5, 0x851, 5}, {1, 0x40851, 2}};

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        chip_start_all();
        ipi(1, t[i].dest, t[i].icr);
        for (unsigned cpu = 0; cpu < 3; cpu++) {
            bool hit = t[i].who >> cpu & 1;
            CHECK_EQ(w.kicks[cpu], hit);
            CHECK_EQ(next(cpu), hit ? WORK(INTERRUPT, 0x51) : WORK(NOTHING, 0));
        }
    }
    chip_start_all();
    for (unsigned i = 0; i < 6; i++) /* lowest priority: in turns, but not to the busy one */
        pc_lapic_write(&cpus[2], 0x80, 4, 0x90), ipi(0, 7, 0x960 + i);
    CHECK_EQ(next(0), WORK(INTERRUPT, 0x64));
    CHECK_EQ(next(1), WORK(INTERRUPT, 0x65));
    CHECK_EQ(next(2), WORK(NOTHING, 0));
}

/* A kick for the first of several interrupts; a CPU that is not ready waits for its window. */
static void chip_windows(void)
{
    uint8_t vector;

    chip_start_all();
    ipi(0, 1, 0x41), ipi(0, 1, 0x52);
    CHECK_EQ(w.kicks[1], 1);
    CHECK_EQ(pc_irqchip_next(&chip, 1, false, &vector), PC_TODO_WINDOW);
    CHECK_EQ(next(1), WORK(INTERRUPT, 0x52));
    CHECK_EQ(next(1), WORK(NOTHING, 0)); /* 0x41 waits for the EOI */
    pc_lapic_write(&cpus[1], 0xb0, 4, 0);
    CHECK_EQ(next(1), WORK(INTERRUPT, 0x41));
    pc_lapic_write(&cpus[1], 0x80, 4, 0x70);
    w.kicks[1] = 0;
    ipi(0, 1, 0x61);
    CHECK_EQ(w.kicks[1], 0); /* the task does not want it now */
}

static void chip_lines(void)
{
    chip_start_all();
    pc_pic_master_write(&chip.pic, 0, 1, 0x11);
    pc_pic_master_write(&chip.pic, 1, 1, 0x20);
    pc_pic_master_write(&chip.pic, 1, 1, 4);
    pc_pic_master_write(&chip.pic, 1, 1, 1);
    pc_irqchip_set(&chip, 4, true); /* by the 8259 and LINT0 to CPU 0 */
    CHECK_EQ(w.kicks[0], 1);
    CHECK_EQ(next(0), WORK(INTERRUPT, 0x24));
    CHECK_EQ(next(0), WORK(NOTHING, 0));
    pc_irqchip_set(&chip, 4, false);
    pc_pic_master_write(&chip.pic, 1, 1, 0xff);
    pc_ioapic_write(&chip.ioapic, 0, 4, 0x10 + 2 * 16 + 1);
    pc_ioapic_write(&chip.ioapic, 0x10, 4, 0x02000000);
    pc_ioapic_write(&chip.ioapic, 0, 4, 0x10 + 2 * 16);
    pc_ioapic_write(&chip.ioapic, 0x10, 4, 0x8071);
    pc_irqchip_set(&chip, 16, true); /* a level, by the IOAPIC to CPU 2 */
    CHECK_EQ(next(2), WORK(INTERRUPT, 0x71));
    pc_lapic_write(&cpus[2], 0xb0, 4, 0);
    CHECK_EQ(next(2), WORK(INTERRUPT, 0x71)); /* the EOI found it high */
    pc_irqchip_set(&chip, 16, false);
    pc_lapic_write(&cpus[2], 0xb0, 4, 0);
    CHECK_EQ(next(2), WORK(NOTHING, 0));
    pc_irqchip_msi(&chip, 0, 0xfee01000, 0x81);
    CHECK_EQ(next(1), WORK(INTERRUPT, 0x81));
    pc_irqchip_msi(&chip, 0, 0xfed01000, 0x82); /* no LAPIC is there */
    pc_irqchip_msi(&chip, 0, 0xfee01000, 0x482);
    CHECK_EQ(next(1), WORK(NMI, 0));
    CHECK_EQ(next(1), WORK(NOTHING, 0));
}

/* The PIT's interrupts all arrive, however late the guest takes them: by 8259 and by IOAPIC. */
static void chip_pit(bool by_ioapic)
{
    unsigned n = 0;
    int todo;

    chip_start_all();
    pc_pic_master_write(&chip.pic, 0, 1, 0x11);
    pc_pic_master_write(&chip.pic, 1, 1, 0x20);
    pc_pic_master_write(&chip.pic, 1, 1, 4);
    pc_pic_master_write(&chip.pic, 1, 1, 1);
    pc_pic_master_write(&chip.pic, 1, 1, by_ioapic);
    pc_ioapic_write(&chip.ioapic, 0, 4, 0x10);
    pc_ioapic_write(&chip.ioapic, 0x10, 4, by_ioapic ? 0x30 : 0x10030);
    pc_pit_write(&chip.pit, 3, 1, 0x34);
    pc_pit_write(&chip.pit, 0, 2, 0xa9), pc_pit_write(&chip.pit, 0, 1, 4); /* 1 kHz, about */
    CHECK(w.wake_at > 999000 && w.wake_at < 1002000);
    w.now = 100 * w.wake_at + 500000;
    pc_irqchip_tick(&chip);
    CHECK(w.wake_at > w.now && w.wake_at < w.now + 1000000);
    while ((todo = next(0)) != WORK(NOTHING, 0)) {
        CHECK_EQ(todo, by_ioapic ? WORK(INTERRUPT, 0x30) : WORK(INTERRUPT, 0x20));
        pc_lapic_write(&cpus[0], 0xb0, 4, 0);
        pc_pic_master_write(&chip.pic, 0, 1, 0x20);
        n++;
    }
    CHECK_EQ(n, 100);
}

/* The earliest wish sets the timer. */
static void chip_timers(void)
{
    chip_start_all();
    CHECK_EQ(w.wake_at, 0);
    for (unsigned i = 0; i < 3; i++) {
        pc_lapic_write(&cpus[i], 0x3e0, 4, 11);
        pc_lapic_write(&cpus[i], 0x320, 4, 0x40 + i);
        pc_lapic_write(&cpus[i], 0x380, 4, 3000000 - i * 1000000);
    }
    CHECK_EQ(w.wake_at, 1000000);
    w.now = 1000000;
    pc_irqchip_tick(&chip);
    CHECK_EQ(w.kicks[2], 1);
    CHECK_EQ(next(2), WORK(INTERRUPT, 0x42));
    CHECK_EQ(w.wake_at, 2000000);
    w.now = 9000000;
    pc_irqchip_tick(&chip);
    CHECK_EQ(next(0), WORK(INTERRUPT, 0x40));
    CHECK_EQ(next(1), WORK(INTERRUPT, 0x41));
    CHECK(chip.armed == UINT64_MAX);
}

/* With the hypervisor's LAPICs: messages leave, and CPU 0 takes what the 8259s ask for. */
static void chip_split(void)
{
    uint8_t vector = 0;

    chip_new(false);
    pc_pic_master_write(&chip.pic, 0, 1, 0x11);
    pc_pic_master_write(&chip.pic, 1, 1, 0x20);
    pc_pic_master_write(&chip.pic, 1, 1, 4);
    pc_pic_master_write(&chip.pic, 1, 1, 1);
    pc_irqchip_set(&chip, 1, true);
    CHECK_EQ(w.kicks[0], 1);
    CHECK_EQ(next(1), WORK(NOTHING, 0));
    CHECK_EQ(pc_irqchip_next(&chip, 0, false, &vector), PC_TODO_WINDOW);
    CHECK_EQ(next(0), WORK(INTERRUPT, 0x21));
    CHECK_EQ(next(0), WORK(NOTHING, 0));
    pc_ioapic_write(&chip.ioapic, 0, 4, 0x10 + 2 * 9);
    pc_ioapic_write(&chip.ioapic, 0x10, 4, 0x8044);
    CHECK_EQ(w.routed, 0xc044);
    pc_irqchip_set(&chip, 9, true);
    CHECK_EQ(w.sent, 1);
    CHECK_EQ(w.data, 0xc044);
    pc_ioapic_eoi(&chip.ioapic, 0x44);
    CHECK_EQ(w.sent, 2);
}

/* Exits of a CPU that touches its LAPIC. */
static void chip_exits(void)
{
    uint8_t data[8] = {0};
    struct vmm_exit e = {.kind = VMM_EXIT_MMIO, .size = 4, .count = 1, .data = data};

    chip_start_all();
    e.addr = 0xfee00020;
    CHECK(pc_irqchip_mmio(&chip, 2, &e));
    CHECK_EQ(vmm_get32(data), 0x02000000);
    e.addr = 0xfee00080, e.write = true, data[0] = 0x40;
    CHECK(pc_irqchip_mmio(&chip, 2, &e));
    CHECK_EQ(cpus[2].tpr, 0x40);
    e.addr = 0xfed00000;
    CHECK(!pc_irqchip_mmio(&chip, 2, &e));
    e.addr = 0x1b, vmm_put64(data, 0xfee00c00);
    CHECK(pc_irqchip_msr(&chip, 2, &e));
    e.addr = 0x802, e.write = false;
    CHECK(pc_irqchip_msr(&chip, 2, &e));
    CHECK_EQ(vmm_get64(data), 2);
    e.addr = 0x10;
    CHECK(!pc_irqchip_msr(&chip, 2, &e));
}

int main(void)
{
    pic_nested();
    pic_cascade();
    pic_masks();
    pic_levels();
    pic_rotation();
    pic_poll();
    pit_waves();
    pit_counts();
    pit_bcd_and_latches();
    pit_new_counts();
    pit_interrupts();
    test_ioapic();
    ioapic_unheard();
    lapic_reset();
    lapic_priorities();
    lapic_errors();
    lapic_ipis();
    lapic_destinations();
    lapic_x2apic();
    lapic_timer();
    lapic_periodic();
    lapic_deadline();
    chip_startup();
    chip_init();
    chip_unheard();
    chip_ipis();
    chip_windows();
    chip_lines();
    chip_pit(false);
    chip_pit(true);
    chip_timers();
    chip_split();
    chip_exits();
    CHECK_DONE("test_irqchip");
}
