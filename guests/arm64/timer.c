/* vmm --binary timer.bin --entry 0x40001000; the virtual timer's interrupt ends WFI, in time, through
   the GIC that there is, and comes again each time that it is set. */
#include "guest.h"

#define GICD 0x08000000ul
#define GICC 0x08010000ul /* GICv2: the CPU interface */
#define GICR 0x04000000ul /* GICv3: the redistributor of CPU 0; its SGIs and PPIs 64 KiB on */
#define PPI  27           /* of the virtual timer */

#define READ(reg)                                                                                  \
    ({                                                                                             \
        uint64_t v_;                                                                               \
        __asm__ volatile("mrs %0, " reg : "=r"(v_));                                               \
        v_;                                                                                        \
    })
#define WRITE(reg, val) __asm__ volatile("msr " reg ", %0\n isb" : : "r"((uint64_t)(val)))

static volatile uint32_t *reg(uint64_t base, unsigned off)
{
    return (volatile uint32_t *)(base + off);
}

static bool is_v3(void)
{
    return READ("id_aa64pfr0_el1") >> 24 & 15;
}

static void init_v3(void)
{
    *reg(GICD, 0) = 0x13;             /* affinity routing, both groups that there may be */
    *reg(GICR, 0x14) &= ~2u;          /* GICR_WAKER: awake */
    while (*reg(GICR, 0x14) & 4)
        ;
    *reg(GICR + 0x10000, 0x80) = ~0u; /* group 1 */
    *reg(GICR + 0x10000, 0x100) = 1u << PPI;
    WRITE("s3_0_c12_c12_5", 7);       /* ICC_SRE_EL1 */
    WRITE("s3_0_c4_c6_0", 0xff);      /* ICC_PMR_EL1 */
    WRITE("s3_0_c12_c12_7", 1);       /* ICC_IGRPEN1_EL1 */
}

static void init_v2(void)
{
    *reg(GICD, 0) = 1;
    *reg(GICD, 0x100) = 1u << PPI;
    *reg(GICC, 4) = 0xff;
    *reg(GICC, 0) = 1;
}

/* Interrupts stay masked: WFI ends all the same, and the GIC says which it was. */
static unsigned acknowledge(void)
{
    return (unsigned)(is_v3() ? READ("s3_0_c12_c12_0") : *reg(GICC, 0xc)) & 0x3ff;
}

static void finish(unsigned intid)
{
    if (is_v3())
        WRITE("s3_0_c12_c12_1", intid);
    else
        *reg(GICC, 0x10) = intid;
}

void start(void)
{
    uint64_t tick = READ("cntfrq_el0") / 100; /* 10 ms */

    expect("frequency", tick > 10000, 1);
    if (is_v3())
        init_v3();
    else
        init_v2();
    for (unsigned i = 0; i < 5; i++) {
        uint64_t then = READ("cntvct_el0"), took;
        unsigned intid;
        WRITE("cntv_cval_el0", then + tick);
        WRITE("cntv_ctl_el0", 1);
        do {
            __asm__ volatile("wfi");
            intid = acknowledge();
        } while (intid >= 1020);
        took = READ("cntvct_el0") - then;
        WRITE("cntv_ctl_el0", 2); /* level-triggered: quiet before its end */
        finish(intid);
        expect("interrupt", intid, PPI);
        expect("not too early", took >= tick, 1);
        expect("not much too late", took < 50 * tick, 1);
    }
    end_well(is_v3() ? "timer: in time, GICv3" : "timer: in time, GICv2");
}
