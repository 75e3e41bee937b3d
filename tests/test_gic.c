/* test_gic.c - the GICv2 of dev_legacy.h against ARM IHI 0048B.b          MIT licence, see LICENSE

   Offsets, bits and numbers are written out here once more from the manual; sections in brackets. */
#define DEV_LEGACY_IMPLEMENTATION
#include "../dev_legacy.h"
#include "check.h"

enum { D = 0x1000, C = 0x10000 }; /* where distributor and CPU interface are */
enum {
    CTLR = D,
    TYPER = D + 4,
    IGROUPR = D + 0x80,
    ISENABLER = D + 0x100,
    ICENABLER = D + 0x180,
    ISPENDR = D + 0x200,
    ICPENDR = D + 0x280,
    ISACTIVER = D + 0x300,
    ICACTIVER = D + 0x380,
    IPRIORITYR = D + 0x400,
    ITARGETSR = D + 0x800,
    ICFGR = D + 0xc00,
    SGIR = D + 0xf00,
    CPENDSGIR = D + 0xf10,
    SPENDSGIR = D + 0xf20,
    C_CTLR = C,
    PMR = C + 4,
    BPR = C + 8,
    IAR = C + 0xc,
    EOIR = C + 0x10,
    RPR = C + 0x14,
    HPPIR = C + 0x18,
    ABPR = C + 0x1c,
    AIAR = C + 0x20,
    AEOIR = C + 0x24,
    AHPPIR = C + 0x28,
    APR = C + 0xd0,
    DIR = C + 0x1000
};
enum { SPURIOUS = 1023 };

static struct pc_gic g;
static unsigned input[PC_GIC_CPUS], changes;
static bool locked;

static void note(void *ctx, unsigned cpu, unsigned lines)
{
    (void)ctx;
    CHECK(locked && cpu < PC_GIC_CPUS && lines != input[cpu]);
    input[cpu] = lines;
    changes++;
}

static void enter(void *ctx)
{
    (void)ctx;
    CHECK(!locked);
    locked = true;
}

static void leave(void *ctx)
{
    (void)ctx;
    CHECK(locked);
    locked = false;
}

static bool access_as(unsigned cpu, uint64_t addr, unsigned size, bool write, uint64_t *val)
{
    struct vmm_exit e = {.kind = VMM_EXIT_MMIO,
                         .write = write,
                         .size = size,
                         .count = 1,
                         .addr = addr,
                         .data = (uint8_t *)val};

    return pc_gic_mmio(&g, cpu, &e);
}

static uint32_t get_as(unsigned cpu, unsigned addr)
{
    uint64_t val = 0;

    CHECK(access_as(cpu, addr, 4, false, &val));
    return (uint32_t)val;
}

static void set_as(unsigned cpu, unsigned addr, uint32_t v)
{
    uint64_t val = v;

    CHECK(access_as(cpu, addr, 4, true, &val));
}

static uint32_t get(unsigned addr)
{
    return get_as(0, addr);
}

static void set(unsigned addr, uint32_t val)
{
    set_as(0, addr, val);
}

static void set_byte(unsigned addr, uint8_t v)
{
    uint64_t val = v;

    CHECK(access_as(0, addr, 1, true, &val));
}

static void reset(unsigned ncpus)
{
    struct pc_gic_desc d = {
        .ncpus = ncpus, .dist = D, .cpu = C, .output = note, .lock = {enter, leave, NULL}};

    memset(input, 0, sizeof input);
    pc_gic_init(&g, &d);
}

/* As Linux sets it up: all in group 0, priority 0xa0, SPIs to CPU 0. */
static void start(unsigned ncpus)
{
    reset(ncpus);
    for (unsigned id = 32; id < 96; id += 4) {
        set(IPRIORITYR + id, 0xa0a0a0a0);
        set(ITARGETSR + id, 0x01010101);
    }
    for (unsigned cpu = 0; cpu < ncpus; cpu++) {
        for (unsigned id = 0; id < 32; id += 4)
            set_as(cpu, IPRIORITYR + id, 0xa0a0a0a0);
        set_as(cpu, PMR, 0xf0);
        set_as(cpu, C_CTLR, 1);
    }
    set(ISENABLER + 4, ~0u);
    set(CTLR, 1);
}

static void test_reset(void)
{
    reset(4);
    CHECK_EQ(get(CTLR), 0);
    CHECK_EQ(get(TYPER), 11 | 3 << 5); /* 384 lines, 4 CPUs, no Security Extensions */
    CHECK_EQ(get(D + 0xfe8) >> 4, 2);  /* version of the architecture */
    CHECK_EQ(get(C + 0xfc), 0x2043b);
    CHECK_EQ(get(ISENABLER), 0xffff);
    CHECK_EQ(get(ICFGR), 0xaaaaaaaa);
    CHECK_EQ(get(PMR), 0);
    CHECK_EQ(get(BPR), 2);
    CHECK_EQ(get(ABPR), 3);
    CHECK_EQ(get(RPR), 0xff);
    CHECK_EQ(get(IAR), SPURIOUS);
    CHECK_EQ(get(HPPIR), SPURIOUS);
    CHECK_EQ(get_as(2, ITARGETSR + 28), 0x04040404); /* of its own, each CPU is the target */
}

static void test_registers(void)
{
    reset(2);
    set(ICENABLER, ~0u);
    CHECK_EQ(get(ISENABLER), 0xffff); /* SGIs are always enabled */
    set(ISENABLER + 4, 0x11);
    set(ICENABLER + 4, 1);
    CHECK_EQ(get(ISENABLER + 4), 0x10);
    CHECK_EQ(get(ICENABLER + 4), 0x10);
    set(ISENABLER + 0x30, ~0u); /* beyond the last */
    CHECK_EQ(get(ISENABLER + 0x30), 0);
    set(IPRIORITYR + 32, 0x12345678);
    CHECK_EQ(get(IPRIORITYR + 32), 0x10305078); /* five bits each */
    set_byte(IPRIORITYR + 33, 0xff);
    CHECK_EQ(get(IPRIORITYR + 32), 0x1030f878);
    set_byte(ITARGETSR + 34, 0xff);
    CHECK_EQ(get(ITARGETSR + 32), 0x00030000); /* of CPUs that are there */
    set(ICFGR + 4, ~0u);
    CHECK_EQ(get(ICFGR + 4), 0xaaaaaaaa);
    set(ICFGR, 0);
    CHECK_EQ(get(ICFGR), 0xaaaaaaaa);
    set_as(1, IPRIORITYR, 0x80); /* banked */
    CHECK_EQ(get(IPRIORITYR), 0);
    CHECK_EQ(get_as(1, IPRIORITYR), 0x80);
    set(PMR, 0xff);
    CHECK_EQ(get(PMR), 0xf8);
    set(BPR, 0);
    set(ABPR, 7);
    CHECK_EQ(get(BPR), 2);
    CHECK_EQ(get(ABPR), 7);
    reset(1);
    set(ITARGETSR + 32, ~0u); /* one CPU: no targets to choose */
    CHECK_EQ(get(ITARGETSR + 32), 0);
    CHECK_EQ(get(ITARGETSR), 0);
}

static void test_widths(void)
{
    uint64_t val = 0;

    start(1);
    CHECK(access_as(0, IPRIORITYR + 33, 1, false, &val));
    CHECK_EQ(val, 0xa0);
    CHECK(access_as(0, TYPER + 1, 1, false, &val));
    CHECK_EQ(val & 0xff, 0);
    val = 0;
    CHECK(access_as(0, CTLR, 1, true, &val)); /* words alone */
    CHECK_EQ(get(CTLR), 1);
    CHECK(!access_as(0, D - 1, 1, false, &val));
    CHECK(!access_as(0, D + 0xffc, 8, false, &val));
    CHECK(!access_as(0, C + 0x2000, 4, false, &val));
    CHECK(!access_as(0, C - 4, 8, false, &val));
}

/* A level stays pending as long as it is high; it is active from IAR to EOIR (3.2.4). */
static void test_level(void)
{
    start(1);
    pc_gic_set(&g, 3, true);
    CHECK_EQ(input[0], PC_GIC_IRQ);
    CHECK_EQ(get(ISPENDR + 4), 8);
    CHECK_EQ(get(HPPIR), 35);
    CHECK_EQ(get(IAR), 35);
    CHECK_EQ(input[0], 0);
    CHECK_EQ(get(ISACTIVER + 4), 8);
    CHECK_EQ(get(ISPENDR + 4), 8);
    CHECK_EQ(get(RPR), 0xa0);
    CHECK_EQ(get(APR), 1u << 20);
    CHECK_EQ(get(IAR), SPURIOUS);
    set(EOIR, 35);
    CHECK_EQ(input[0], PC_GIC_IRQ); /* still high */
    CHECK_EQ(get(IAR), 35);
    pc_gic_set(&g, 3, false);
    set(EOIR, 35);
    CHECK_EQ(input[0], 0);
    CHECK_EQ(get(ISACTIVER + 4), 0);
    set(ISPENDR + 4, 8); /* by software, until it is taken */
    set(ICPENDR + 4, 8);
    CHECK_EQ(input[0], 0);
    set(ISPENDR + 4, 8);
    CHECK_EQ(get(IAR), 35);
    CHECK_EQ(get(ISPENDR + 4), 0);
    pc_gic_set(&g, 1000, true); /* nobody's */
}

static void test_edge(void)
{
    start(1);
    set(ICFGR + 8, 2u << 6);
    pc_gic_set(&g, 3, true);
    pc_gic_set(&g, 3, false);
    CHECK_EQ(get(IAR), 35);
    CHECK_EQ(get(ISPENDR + 4), 0);
    pc_gic_set(&g, 3, true); /* again while it is active: pending, but not told yet */
    CHECK_EQ(get(ISPENDR + 4), 8);
    CHECK_EQ(input[0], 0);
    set(EOIR, 35);
    CHECK_EQ(input[0], PC_GIC_IRQ);
    CHECK_EQ(get(IAR), 35);
    set(EOIR, 35);
    CHECK_EQ(input[0], 0); /* high, but no new edge */
    pc_gic_set(&g, 3, false);
    pc_gic_set(&g, 3, true);
    set(ICPENDR + 4, 8);
    CHECK_EQ(input[0], 0);
}

/* What is more important interrupts what runs, what is as important does not (3.3). */
static void test_priorities(void)
{
    start(1);
    set_byte(IPRIORITYR + 40, 0x80);
    pc_gic_set(&g, 1, true);
    pc_gic_set(&g, 2, true);
    CHECK_EQ(get(IAR), 33); /* equals: the lowest INTID */
    CHECK_EQ(input[0], 0);
    CHECK_EQ(get(HPPIR), 34); /* waits, and does not interrupt */
    pc_gic_set(&g, 8, true);
    CHECK_EQ(input[0], PC_GIC_IRQ);
    CHECK_EQ(get(IAR), 40);
    CHECK_EQ(get(RPR), 0x80);
    pc_gic_set(&g, 8, false);
    set(EOIR, 40);
    CHECK_EQ(get(RPR), 0xa0);
    pc_gic_set(&g, 1, false);
    set(EOIR, 33);
    CHECK_EQ(input[0], PC_GIC_IRQ);
    set(PMR, 0xa0); /* as important as the mask is not enough */
    CHECK_EQ(input[0], 0);
    CHECK_EQ(get(IAR), SPURIOUS);
    set(PMR, 0xa8);
    CHECK_EQ(get(IAR), 34);
}

/* With a binary point of 5, 0x80 and 0xa0 are of one group (3.3.3). */
static void test_binary_point(void)
{
    start(1);
    set(BPR, 5);
    set_byte(IPRIORITYR + 40, 0x80);
    pc_gic_set(&g, 1, true);
    CHECK_EQ(get(IAR), 33);
    CHECK_EQ(get(RPR), 0x80);
    pc_gic_set(&g, 8, true);
    CHECK_EQ(input[0], 0);
    set_byte(IPRIORITYR + 40, 0x78);
    CHECK_EQ(input[0], PC_GIC_IRQ);
    reset(1);
    set(BPR, 7); /* no group priority at all: nothing interrupts */
    set(PMR, 0xf0);
    set(C_CTLR, 1);
    set(CTLR, 1);
    set_byte(IPRIORITYR + 16, 0xa0);
    set(ISENABLER, 3u << 16);
    pc_gic_set_ppis(&g, 0, 1u << 16, 1u << 16);
    CHECK_EQ(get(IAR), 16);
    CHECK_EQ(get(RPR), 0);
    pc_gic_set_ppis(&g, 0, 1u << 17, 1u << 17);
    CHECK_EQ(input[0], 0);
}

/* EOImode: the end of the priority, and later that of the interrupt (3.2.1). */
static void test_eoi_mode(void)
{
    start(1);
    set(C_CTLR, 0x201);
    pc_gic_set(&g, 3, true);
    CHECK_EQ(get(IAR), 35);
    set(EOIR, 35);
    CHECK_EQ(get(RPR), 0xff);
    CHECK_EQ(get(ISACTIVER + 4), 8);
    CHECK_EQ(input[0], 0);
    pc_gic_set(&g, 4, true);
    CHECK_EQ(get(IAR), 36); /* others can interrupt */
    set(EOIR, 36);
    set(DIR, 36);
    set(DIR, 35);
    CHECK_EQ(get(ISACTIVER + 4), 0);
    CHECK_EQ(input[0], PC_GIC_IRQ);
    set(C_CTLR, 1);
    CHECK_EQ(get(IAR), 35);
    set(DIR, 35); /* not in this mode */
    CHECK_EQ(get(ISACTIVER + 4), 8);
    set(ICACTIVER + 4, 8);
    CHECK_EQ(get(ISACTIVER + 4), 0);
    set(ISACTIVER + 4, 8);
    CHECK_EQ(get(ISACTIVER + 4), 8);
    set(EOIR, SPURIOUS);
    set(EOIR, 0x3fff);
    CHECK_EQ(get(RPR), 0xa0);
}

static void test_sgis(void)
{
    start(4);
    set_as(2, SGIR, 1 << 16 | 5); /* to CPU 0, from 2 and 1 */
    set_as(1, SGIR, 1 << 16 | 5);
    CHECK_EQ(input[0], PC_GIC_IRQ);
    CHECK_EQ(get(SPENDSGIR + 4), 6 << 8);
    CHECK_EQ(get(HPPIR), 5 | 1 << 10);
    CHECK_EQ(get(IAR), 5 | 1 << 10);
    CHECK_EQ(get(ISPENDR), 1u << 5);
    set(EOIR, 5 | 1 << 10);
    CHECK_EQ(get(IAR), 5 | 2 << 10);
    set(EOIR, 5 | 2 << 10);
    CHECK_EQ(get(IAR), SPURIOUS);
    set(SGIR, 1 << 24 | 3); /* all others */
    CHECK(!input[0] && input[1] && input[2] && input[3]);
    CHECK_EQ(get_as(3, IAR), 3);
    set(SGIR, 2 << 24 | 4); /* itself */
    CHECK_EQ(get(IAR), 4);
    set(EOIR, 4);
    set(SGIR, 3 << 24 | 0xff << 16 | 1); /* reserved */
    CHECK(!input[0]);
    set(SPENDSGIR, 8 << 16); /* SGI 2 from CPU 3; from CPUs that are there */
    set_byte(SPENDSGIR + 2, 0xf0);
    CHECK_EQ(get(SPENDSGIR), 8 << 16);
    CHECK_EQ(get(CPENDSGIR), 8 << 16);
    CHECK_EQ(input[0], PC_GIC_IRQ);
    set(ICPENDR, ~0u); /* not by this */
    CHECK_EQ(input[0], PC_GIC_IRQ);
    set_byte(CPENDSGIR + 2, 8);
    CHECK_EQ(input[0], 0);
    set(ISPENDR, ~0u);
    CHECK_EQ(get(ISPENDR) & 0xffff, 0);
}

static void test_targets(void)
{
    start(4);
    set_byte(ITARGETSR + 35, 6);
    pc_gic_set(&g, 3, true);
    CHECK(!input[0] && input[1] && input[2] && !input[3]);
    CHECK_EQ(get_as(2, IAR), 35); /* one takes it, all others see it no more (3.2.3) */
    CHECK_EQ(input[1], 0);
    CHECK_EQ(get_as(1, IAR), SPURIOUS);
    pc_gic_set_ppis(&g, 3, 1u << 27, 1u << 27);
    CHECK_EQ(input[3], 0);
    set_as(3, ISENABLER, 1u << 27);
    CHECK_EQ(input[3], PC_GIC_IRQ);
    CHECK_EQ(get_as(3, IAR), 27);
    pc_gic_set_ppis(&g, 3, 1u << 27, 0);
    set_as(3, EOIR, 27);
    CHECK_EQ(input[3], 0);
    changes = 0;
    pc_gic_set_ppis(&g, 3, 0xffff, 0xffff); /* SGIs are no lines */
    CHECK_EQ(changes, 0);
}

/* Group 0 may be FIQs, and each register sees its group (3.6, 4.4.4). */
static void test_groups(void)
{
    start(1);
    set(CTLR, 3);
    set(C_CTLR, 0xb); /* both, group 0 by FIQ */
    set(IGROUPR + 4, 1u << 4);
    pc_gic_set(&g, 4, true);
    CHECK_EQ(input[0], PC_GIC_IRQ);
    CHECK_EQ(get(IAR), 1022);
    CHECK_EQ(get(HPPIR), 1022);
    CHECK_EQ(get(AHPPIR), 36);
    pc_gic_set(&g, 3, true); /* as important, and first */
    CHECK_EQ(input[0], PC_GIC_FIQ);
    CHECK_EQ(get(AIAR), SPURIOUS);
    CHECK_EQ(get(IAR), 35);
    set(AEOIR, 35); /* not its register */
    CHECK_EQ(get(RPR), 0xa0);
    pc_gic_set(&g, 3, false);
    set(EOIR, 35);
    CHECK_EQ(get(AIAR), 36);
    set(EOIR, 36);
    CHECK_EQ(get(RPR), 0xa0);
    set(AEOIR, 36);
    CHECK_EQ(get(RPR), 0xff);
    set(C_CTLR, 0xf); /* AckCtl: one register for both */
    CHECK_EQ(get(IAR), 36);
    set(EOIR, 36);
    CHECK_EQ(get(RPR), 0xff);
    set(CTLR, 1);
    CHECK_EQ(input[0], 0);
    set(CTLR, 3);
    set(C_CTLR, 1);
    CHECK_EQ(input[0], 0);
    CHECK_EQ(get(AHPPIR), SPURIOUS);
}

/* Group 1 has a binary point of its own, unless CBPR (3.3.3). */
static void test_group1_binary_point(void)
{
    start(1);
    set(CTLR, 3);
    set(C_CTLR, 7);
    set(IGROUPR + 4, ~0u);
    set(ABPR, 6); /* bits 7 and 6 */
    pc_gic_set(&g, 3, true);
    CHECK_EQ(get(IAR), 35);
    CHECK_EQ(get(RPR), 0x80);
    set(EOIR, 35);
    set(C_CTLR, 0x17);
    CHECK_EQ(get(IAR), 35);
    CHECK_EQ(get(RPR), 0xa0);
}

int main(void)
{
    test_reset();
    test_registers();
    test_widths();
    test_level();
    test_edge();
    test_priorities();
    test_binary_point();
    test_eoi_mode();
    test_sgis();
    test_targets();
    test_groups();
    test_group1_binary_point();
    CHECK_DONE("test_gic");
}
