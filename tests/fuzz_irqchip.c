/* fuzz_irqchip.c - any sequence of register accesses, lines, messages, IPIs and time against the
   interrupt controllers and timers of dev_legacy.h.                MIT licence, see LICENSE

   The input is records of six bytes: operation, register, four bytes of value. */
#define DEV_LEGACY_IMPLEMENTATION
#include "../dev_legacy.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* No assert: it must hold in every build. */
static void must(bool held)
{
    if (!held)
        abort();
}

enum { NCPUS = 3 };

static struct {
    struct pc_irqchip chip;
    struct pc_lapic cpu[NCPUS];
    uint64_t now, wake_at;
    bool locked, kicked[NCPUS];
} m;

static uint64_t tell_now(void *ctx)
{
    (void)ctx;
    return m.now;
}

static uint64_t tell_tsc(void *ctx, unsigned cpu, uint64_t *hz)
{
    (void)ctx;
    must(cpu < NCPUS);
    *hz = cpu * 1500000000ull; /* unknown of CPU 0 */
    return m.now * 3;
}

static void note_wake(void *ctx, uint64_t at)
{
    (void)ctx;
    m.wake_at = at;
}

static void note_kick(void *ctx, unsigned cpu)
{
    (void)ctx;
    must(cpu < NCPUS && !m.kicked[cpu]); /* once until it asks */
    m.kicked[cpu] = true;
}

static void enter(void *ctx)
{
    (void)ctx;
    must(!m.locked);
    m.locked = true;
}

static void leave(void *ctx)
{
    (void)ctx;
    m.locked = false;
}

/* What the CPU does before it enters the guest, until there is nothing more to do: for ever, if a
   level-triggered line is high in automatic EOI mode. */
static void run_cpu(unsigned cpu, bool ready)
{
    uint8_t vector;

    for (unsigned n = 0; n < 64; n++) {
        enum pc_todo todo;
        m.kicked[cpu] = false;
        todo = pc_irqchip_next(&m.chip, cpu, ready, &vector);
        must(todo <= PC_TODO_WAIT);
        must(ready || todo != PC_TODO_INTERRUPT);
        if (todo == PC_TODO_NOTHING || todo == PC_TODO_WAIT || todo == PC_TODO_WINDOW)
            return;
    }
}

/* A level that is there, and may come in, is either on its way or was heard by nobody. */
static void check_pins(const struct pc_ioapic *a)
{
    for (unsigned i = 0; i < PC_IOAPIC_PINS; i++) {
        uint64_t rte = a->pin[i];
        bool unheard = a->unheard >> i & 1, level = (rte & 0x8000) && (rte >> 8 & 7) < 2;
        must(!unheard || !(rte & 0x4000));
        must(!level || !(a->in >> i & 1) || (rte & 0x14000) || unheard);
    }
}

static void check(void)
{
    const struct pc_pic *pic = &m.chip.pic;

    must(pic->intr_level == (pc__pic_request(&pic->chip[0], true) >= 0));
    must(m.chip.armed == UINT64_MAX || m.wake_at == m.chip.armed);
    check_pins(&m.chip.ioapic);
    for (unsigned i = 0; i < 3; i++)
        must(!m.chip.pit.channel[i].counting || m.chip.pit.channel[i].count);
    for (unsigned i = 0; i < NCPUS; i++) {
        const struct pc_lapic *l = &m.cpu[i];
        bool masked = l->lvt[0] & 0x10000;
        must(masked || l->fire_at == UINT64_MAX || m.chip.armed <= l->fire_at);
        must(pc_lapic_pending(l) < 0 || pc_lapic_pending(l) >= 16);
        must(m.kicked[i] == l->told);
    }
}

static void step_bus(uint8_t op, uint8_t reg, uint32_t val)
{
    unsigned len = 1u << (op >> 3 & 3);

    switch (reg >> 5) {
    case 0:
        pc_pic_master_write(&m.chip.pic, reg & 1, len, val & vmm_ones(len));
        pc_pic_master_read(&m.chip.pic, reg >> 1 & 1, len);
        break;
    case 1:
        pc_pic_slave_write(&m.chip.pic, reg & 1, len, val & vmm_ones(len));
        pc_pic_slave_read(&m.chip.pic, reg >> 1 & 1, len);
        break;
    case 2:
        pc_pic_elcr_write(&m.chip.pic, reg & 1, len, val & vmm_ones(len));
        pc_pic_elcr_read(&m.chip.pic, reg & 1, len);
        break;
    case 3:
    case 4:
        pc_pit_write(&m.chip.pit, reg & 3, len, val & vmm_ones(len));
        break;
    case 5:
        pc_pit_read(&m.chip.pit, reg & 3, len);
        pc_pit_gate_read(&m.chip.pit, reg >> 2 & 1, len);
        pc_pit_gate_write(&m.chip.pit, 0, len, val & vmm_ones(len));
        break;
    default:
        pc_ioapic_write(&m.chip.ioapic, 0, 1, reg & 0x3f);
        pc_ioapic_write(&m.chip.ioapic, 0x10 * (reg & 1) + (reg & 0x40), len, val & vmm_ones(len));
        pc_ioapic_read(&m.chip.ioapic, reg & 0x13, len);
        break;
    }
}

static void step_lapic(uint8_t op, uint8_t reg, uint32_t val)
{
    uint8_t data[8] = {0};
    unsigned cpu = (op >> 3 & 3) % NCPUS;
    struct vmm_exit e = {.write = op & 0x20, .size = 1u << (op >> 6), .count = 1, .data = data};

    memcpy(data, &val, 4);
    e.addr = 0xfee00000 + reg * 16u + (reg > 0x40 ? reg & 15 : 0);
    if (reg != 0x51 && pc_irqchip_mmio(&m.chip, cpu, &e))
        return;
    data[7] = (uint8_t)(reg >> 6);
    e.size = 8;
    e.addr = reg == 0x50 ? 0x1b : reg == 0x51 ? 0x6e0 : 0x800u + (reg & 0x7f);
    pc_irqchip_msr(&m.chip, cpu, &e);
}

static void step(uint8_t op, uint8_t reg, uint32_t val)
{
    switch (op & 7) {
    case 0:
    case 1:
        step_bus(op, reg, val);
        break;
    case 2:
    case 3:
        step_lapic(op, reg, val);
        break;
    case 4:
        pc_irqchip_set(&m.chip, reg % 25, val & 1);
        break;
    case 5:
        pc_irqchip_msi(&m.chip, reg, 0xfee00000 | (reg & 0xcu) | (val & 0xff000u), val & 0xffff);
        break;
    case 6:
        m.now += op & 8 ? (uint64_t)val << (reg & 15) : val;
        pc_irqchip_tick(&m.chip);
        break;
    default:
        run_cpu(reg % NCPUS, val & 1);
        break;
    }
    check();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct pc_irqchip_desc desc = {.lapic = m.cpu,
                                   .ncpus = NCPUS,
                                   .timer = {tell_now, note_wake, NULL},
                                   .tsc = tell_tsc,
                                   .kick = note_kick,
                                   .lock = {enter, leave, NULL}};

    memset(&m, 0, sizeof m);
    pc_irqchip_init(&m.chip, &desc);
    for (; len >= 6; data += 6, len -= 6)
        step(data[0], data[1], vmm_get32(data + 2));
    return 0;
}
