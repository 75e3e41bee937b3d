/* test_vmm.c - guest memory, buses and small helpers of vmm.h  MIT licence, see LICENSE */
#include "vmm.h"
#include "check.h"

static void test_memory(void)
{
    static uint8_t low[4096], high[4096];
    struct vmm_mem m = {0};
    static const struct {
        uint64_t gpa, len;
        bool there;
    } cases[] = {
        {0x1000, 0, true},
        {0x1000, 1, true},
        {0x1000, 4096, true},
        {0x1000, 4097, false},
        {0x1fff, 1, true},
        {0x1fff, 2, false},
        {0x2000, 0, false},
        {0xfff, 1, false},
        {0, 0, false},
        {0x1800, ~0ull, false},
        {~0ull, 1, true},
        {~0ull, 2, false},
        {0xfffffffffffff000, 4096, true},
        {0xfffffffffffff001, 4096, false},
    };

    CHECK_EQ(vmm_mem_add(&m, 0x1000, sizeof low, low), 0);
    CHECK_EQ(vmm_mem_add(&m, 0xfffffffffffff000, sizeof high, high), 0); /* ends at 2^64 */
    CHECK(vmm_mem_add(&m, 0x1fff, 1, low) == -EEXIST);
    CHECK(vmm_mem_add(&m, 0x3000, 0, low) == -EINVAL);
    CHECK(vmm_mem_add(&m, ~0ull, 2, low) == -EINVAL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK_EQ(vmm_at(&m, cases[i].gpa, cases[i].len) != NULL, cases[i].there);
    CHECK(vmm_at(&m, 0x1010, 1) == low + 0x10);
    for (unsigned i = m.nranges; i < VMM_MEM_MAX; i++)
        CHECK_EQ(vmm_mem_add(&m, (i + 1) << 20, 1, low), 0);
    CHECK(vmm_mem_add(&m, 0x9000, 1, low) == -ENOSPC);
}

struct reg {
    uint64_t val, off;
    unsigned len, entered;
};

static uint64_t reg_read(void *dev, uint64_t off, unsigned len)
{
    struct reg *r = dev;

    r->off = off;
    r->len = len;
    return r->val;
}

static void reg_write(void *dev, uint64_t off, unsigned len, uint64_t val)
{
    struct reg *r = dev;

    r->off = off;
    r->len = len;
    r->val = val;
}

static void reg_enter(void *ctx)
{
    ((struct reg *)ctx)->entered++;
}

static void reg_leave(void *ctx)
{
    ((struct reg *)ctx)->entered += 100;
}

static void test_bus(void)
{
    struct reg a = {0}, b = {0};
    struct vmm_bus bus = {0};
    struct vmm_io ioa = {.base = 0x10, .len = 4, .read = reg_read, .write = reg_write, .dev = &a};
    struct vmm_io iob = {.base = 0x8, .len = 8, .read = reg_read, .write = reg_write, .dev = &b};
    uint64_t val = 0x1122334455667788;

    ioa.lock = (struct vmm_lock){reg_enter, reg_leave, &a};
    CHECK_EQ(vmm_bus_add(&bus, &ioa), 0);
    CHECK_EQ(vmm_bus_add(&bus, &iob), 0);
    CHECK(vmm_bus_add(&bus, &ioa) == -EEXIST);
    iob.base = 0x13;
    CHECK(vmm_bus_add(&bus, &iob) == -EEXIST);
    iob.base = ~0ull - 3;
    CHECK(vmm_bus_add(&bus, &iob) == -EINVAL);

    CHECK(vmm_bus_access(&bus, 0x12, 2, true, &val));
    CHECK_EQ(a.val, 0x7788);
    CHECK_EQ(a.off, 2);
    CHECK_EQ(a.entered, 101);
    a.val = 0xabcdef;
    CHECK(vmm_bus_access(&bus, 0x10, 1, false, &val));
    CHECK_EQ(val, 0xef);
    CHECK(!vmm_bus_access(&bus, 0x12, 4, false, &val)); /* half of it is nobody's */
    CHECK_EQ(val, 0xffffffff);
    CHECK(!vmm_bus_access(&bus, 0x14, 8, false, &val));
    CHECK_EQ(val, ~0ull);
    CHECK(vmm_bus_access(&bus, 0xf, 1, true, &val));
    CHECK_EQ(b.off, 7);
    CHECK(!vmm_bus_access(&bus, 0, 1, true, &val));
    CHECK(!vmm_bus_access(&bus, ~0ull, 1, true, &val));
}

static void test_exit(void)
{
    struct reg a = {0};
    struct vmm_bus bus = {0};
    struct vmm_io io = {.base = 0x60, .len = 2, .read = reg_read, .write = reg_write, .dev = &a};
    uint8_t data[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    struct vmm_exit e = {
        .kind = VMM_EXIT_PIO, .write = true, .size = 2, .count = 3, .addr = 0x60, .data = data};

    vmm_bus_add(&bus, &io);
    CHECK(vmm_bus_exit(&bus, &e)); /* rep outsw: the last one stays */
    CHECK_EQ(a.val, 0x0605);
    e.write = false;
    a.val = 0xbeef;
    CHECK(vmm_bus_exit(&bus, &e));
    CHECK(memcmp(data, "\xef\xbe\xef\xbe\xef\xbe\x07\x08", 8) == 0);
    e.addr = 0x70;
    CHECK(!vmm_bus_exit(&bus, &e));
    CHECK(memcmp(data, "\xff\xff\xff\xff\xff\xff\x07\x08", 8) == 0);
}

static void test_budget(void)
{
    struct vmm_budget b = {0};
    unsigned said = 0;

    for (int i = 0; i < 1000; i++)
        said += vmm_spend(&b);
    CHECK_EQ(said, 8);
    CHECK_EQ(vmm_ones(1), 0xff);
    CHECK_EQ(vmm_ones(4), 0xffffffff);
    CHECK_EQ(vmm_ones(8), ~0ull);
}

/* Takes n units whenever it is allowed to, for `ns`; returns how many in all. */
static uint64_t drain(struct vmm_bucket *b, uint64_t from, uint64_t ns, uint64_t n)
{
    uint64_t taken = 0, wait;

    for (uint64_t now = from; now < from + ns; now += wait) {
        wait = vmm_bucket_wait(b, now);
        if (wait)
            continue;
        vmm_bucket_take(b, now, n);
        taken += n;
    }
    return taken;
}

static void test_bucket(void)
{
    const uint64_t second = 1000000000;
    struct vmm_bucket free = {0}, b = {.rate = 1000, .burst_ns = second / 10};
    struct vmm_bucket fast = {.rate = UINT64_MAX};

    vmm_bucket_take(&free, 5, 1ull << 34);
    CHECK_EQ(vmm_bucket_wait(&free, 5), 0);
    vmm_bucket_take(&fast, 5, 1ull << 34);
    CHECK_EQ(vmm_bucket_wait(&fast, 6), 0);

    CHECK_EQ(drain(&b, 100 * second, second, 1), 1100); /* 100 saved up, 1000 earned */
    CHECK_EQ(drain(&b, 101 * second, second, 1), 1000);
    CHECK_EQ(drain(&b, 500 * second, second, 1), 1100); /* a long rest saves up no more */
    b.paid_ns = 0;
    CHECK_EQ(drain(&b, 600 * second, 10 * second, 5000), 15000); /* at once, then paid for */
    CHECK_EQ(vmm_bucket_wait(&b, 610 * second), 4900000000);
    b = (struct vmm_bucket){.rate = 1000, .burst_ns = second};
    vmm_bucket_take(&b, 10, 1); /* a young clock */
    CHECK_EQ(vmm_bucket_wait(&b, 0), second / 1000);
}

static void test_quick_start(void)
{
    /* quick start */
    static uint8_t ram[4096];
    struct vmm_mem mem = {0};
    vmm_mem_add(&mem, 0x1000, sizeof ram, ram);
    uint8_t *last = vmm_at(&mem, 0x1ffe, 2);       // two bytes: there
    bool beyond = vmm_at(&mem, 0x1fff, 2) != NULL; // false: leaves the range
    /* end */
    CHECK(last == ram + 0xffe);
    CHECK(!beyond);
}

/* A debug exception that went to the hypervisor is given back: from EL1, from EL0 and from a program of
   32 bits. */
static void test_arm64_debug(void)
{
    static const struct {
        uint64_t pstate, sctlr;
        uint32_t esr;
        uint64_t vector, after;
        uint32_t esr_el1;
    } cases[] = {
        {0x20400345, 1 << 23, 0xf2000800, 0x200, 0x204003c5, 0xf2000800}, /* BRK in a kernel */
        {0x60001000, 0, 0xf2000001, 0x400, 0x604003c5, 0xf2000001},       /* in a program */
        {0x00000004, 1 << 23, 0xc2000022, 0, 0x3c5, 0xc6000022},          /* EL1t; a breakpoint */
        {0x81000005, 1ull << 44 | 1 << 23, 0xd2000062, 0x200, 0x810013c5, 0xd6000062},
        {0x00000010, 1 << 23, 0xe2000000, 0x600, 0x3c5, 0xe2000000}, /* BKPT */
    };

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vmm_arm64_regs r = {.pc = 0x1234,
                                   .pstate = cases[i].pstate,
                                   .sctlr_el1 = cases[i].sctlr,
                                   .far_el1 = 5,
                                   .vbar_el1 = 0xffff000000080000};
        vmm_arm64_take_debug(&r, cases[i].esr, 0x77);
        CHECK_EQ(r.pc, 0xffff000000080000 + cases[i].vector);
        CHECK_EQ(r.pstate, cases[i].after);
        CHECK_EQ(r.esr_el1, cases[i].esr_el1);
        CHECK(r.elr_el1 == 0x1234 && r.spsr_el1 == cases[i].pstate);
        CHECK_EQ(r.far_el1, cases[i].esr >> 26 == 0x34 ? 0x77 : 5);
    }
}

/* Slots as registers have them, and the one that a stop is told of. */
static void test_arm64_slots(void)
{
    const struct vmm_debug d = {.slot = {{0x1000, 1, VMM_BREAK_EXEC},
                                         {0x2006, 2, VMM_BREAK_WRITE},
                                         {0x2010, 8, VMM_BREAK_ACCESS},
                                         {0}}};
    static const struct {
        uint32_t ec;
        uint64_t pc, far, why;
    } cases[] = {
        {0x30, 0x1000, 0, 1},         {0x30, 0x1004, 0, 0},         {0x34, 0x1000, 0x2007, 2},
        {0x34, 0, 0x2000, 2}, /* wider, and from before */
        {0x34, 0, 0x2008, 4},         {0x34, 0, 0x2017, 4},         {0x32, 0, 0, 0},
        {0x3c, 0, 0, VMM_DEBUG_TRAP}, {0x38, 0, 0, VMM_DEBUG_TRAP},
    };
    const struct vmm_debug step = {.step = true};
    uint64_t value = 0;

    CHECK_EQ(vmm_arm64_slot(&d.slot[0], &value), 0x1e7);
    CHECK_EQ(value, 0x1000);
    CHECK_EQ(vmm_arm64_slot(&d.slot[1], &value), 0xc0 << 5 | 0x17);
    CHECK_EQ(value, 0x2000);
    CHECK_EQ(vmm_arm64_slot(&d.slot[2], &value), 0xff << 5 | 0x1f);
    CHECK_EQ(value, 0x2010);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK_EQ(vmm_arm64_why(&d, cases[i].ec << 26 | 0x22, cases[i].pc, cases[i].far),
                 cases[i].why);
    CHECK_EQ(vmm_arm64_why(&step, 0x32u << 26, 0, 0), VMM_DEBUG_STEP);
}

int main(void)
{
    test_arm64_debug();
    test_arm64_slots();
    test_quick_start();
    test_memory();
    test_bus();
    test_exit();
    test_budget();
    test_bucket();
    CHECK_DONE("test_vmm");
}
