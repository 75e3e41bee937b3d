/* fuzz_gic.c - guests at random with the GICv2 of dev_legacy.h            MIT licence, see LICENSE

   The input is steps of four bytes: what and who, which register, how wide, which value. What must
   hold: a CPU is told of changes alone, and of what it would get if it took its interrupt now; what
   is taken was enabled, pending and meant for it; narrow values stay narrow. */
#define DEV_LEGACY_IMPLEMENTATION
#include "../dev_legacy.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { DIST = 0x8000000, CPU = 0x8010000, NCPUS = 3 };

static struct pc_gic gic;
static unsigned input[PC_GIC_CPUS];

/* No assert: it must hold in every build. */
static void must(bool held)
{
    if (!held)
        abort();
}

static void note(void *ctx, unsigned cpu, unsigned lines)
{
    (void)ctx;
    must(cpu < gic.desc.ncpus && lines != input[cpu] && lines <= 2);
    input[cpu] = lines;
}

static uint64_t get(unsigned cpu, uint64_t addr, unsigned size)
{
    uint64_t val = 0;
    struct vmm_exit e = {.size = size, .count = 1, .addr = addr, .data = (uint8_t *)&val};

    must(pc_gic_mmio(&gic, cpu, &e) && !(val & ~vmm_ones(size)));
    return val;
}

static void put(unsigned cpu, uint64_t addr, unsigned size, uint64_t val)
{
    struct vmm_exit e = {
        .write = true, .size = size, .count = 1, .addr = addr, .data = (uint8_t *)&val};

    must(pc_gic_mmio(&gic, cpu, &e));
}

/* What the CPU is told is what it finds, in a copy, so that nothing is taken. */
static void check(unsigned cpu)
{
    struct pc_gic copy = gic;
    unsigned before = input[cpu], ctlr = gic.cpu[cpu].ctlr;
    unsigned id = (unsigned)get(cpu, CPU + (before == 2 || ctlr & 4 ? 0xc : 0x20), 4) & 0x3ff;

    must(before ? id < PC_GIC_LINES || (before == 1 && id == 1023) : id == 1023);
    if (id < PC_GIC_LINES) {
        const struct pc_gic_word *w = id < 32 ? &copy.cpu[cpu].own : &copy.spi[id / 32];
        uint32_t bit = 1u << id % 32;
        must(w->enabled & bit && !(w->active & bit) && (w->latched | (w->level & ~w->edge)) & bit);
        must(id < 32 || gic.desc.ncpus == 1 || copy.targets[id] >> cpu & 1);
    }
    gic = copy;
    input[cpu] = before;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct pc_gic_desc desc = {.dist = DIST, .cpu = CPU, .output = note};

    if (!len)
        return 0;
    desc.ncpus = 1 + data[0] % NCPUS;
    memset(input, 0, sizeof input);
    pc_gic_init(&gic, &desc);
    for (data++, len--; len >= 4; data += 4, len -= 4) {
        unsigned cpu = (data[0] >> 4 & 7) % desc.ncpus, size = 1u << (data[2] & 3);
        uint32_t val = data[3] * (data[2] & 4 ? 0x1010101u : 1) << (data[2] >> 3 & 31);
        uint64_t dist = DIST + ((data[1] * 16u + (data[0] & 12)) & 0xfffu & -size);
        uint64_t face = CPU + (data[1] & 0x80 ? 0x1000u : 0) + (data[1] & 0x7fu & -size) * 2;
        if ((data[0] & 3) == 0)
            pc_gic_set(&gic, data[1] * 2u, data[3] & 1);
        else if ((data[0] & 3) == 1)
            pc_gic_set_ppis(&gic, cpu, val, (uint32_t)data[1] << 24 | val);
        else if (data[0] & 0x80)
            put(cpu, data[0] & 1 ? face : dist, size, val);
        else
            get(cpu, data[0] & 1 ? face : dist, size);
        for (cpu = 0; cpu < desc.ncpus; cpu++)
            check(cpu);
    }
    return 0;
}
