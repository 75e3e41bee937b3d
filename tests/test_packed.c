/* test_packed.c - what is special about packed rings (virtio 1.2, section 2.8)  MIT licence, see LICENSE
 */
#define DEV_PCI_IMPLEMENTATION
#include "../dev_pci.h"
#define DEV_VIRTIO_IMPLEMENTATION
#include "../dev_virtio.h"

#include "vio_driver.h"

/* A device that holds what it takes, until told. */
static struct vio_dev toy;
static struct vio_queue toy_queue[1];
static struct vio_chain held[64];
static unsigned nheld;
static bool at_once;

static void toy_run(struct vio_dev *d, unsigned q)
{
    while (nheld < 64 && vio_pop(d, q, &held[nheld])) {
        if (at_once)
            vio_used(d, q, held[nheld].head, (uint32_t)held[nheld].wlen);
        else
            nheld++;
    }
}

static const struct vio_class toy_class = {.id = 42, .name = "toy", .queue = toy_run};

static void plug_toy(uint64_t features)
{
    nheld = 0;
    at_once = true;
    memset(toy_queue, 0, sizeof toy_queue);
    toy = (struct vio_dev){.cls = &toy_class, .queues = toy_queue, .nqueues = 1};
    plug(&toy, false);
    go(features);
}

/* Gives the i-th chain that the device holds back. */
static void give(unsigned i, uint32_t len)
{
    vio_used(&toy, 0, held[i].head, len);
    vio_end(&toy, 0);
}

static void one(void)
{
    desc(0, 0, BASE + DATA, 4, WRITE, 0);
    offer(0, 0);
    ring(0);
}

static bool broken(void)
{
    return rd(0x70) & NEEDS_RESET;
}

static void event(unsigned pos, unsigned flags)
{
    vmm_put16(avail(0), (uint16_t)pos);
    vmm_put16(avail(0) + 2, (uint16_t)flags);
}

static void test_setup(void)
{
    static const struct {
        uint32_t size;
        uint64_t desc, driver, device;
        bool good;
    } t[] = {
        {1, BASE, BASE + 0x1000, BASE + 0x2000, true},
        {25, BASE, BASE + 0x1000, BASE + 0x2000, true},
        {256, BASE, BASE + 0x1000, BASE + 0x2000, true},
        {0, BASE, BASE + 0x1000, BASE + 0x2000, false},
        {257, BASE, BASE + 0x1000, BASE + 0x2000, false},
        {32769, BASE, BASE + 0x1000, BASE + 0x2000, false},
        {8, BASE + 8, BASE + 0x1000, BASE + 0x2000, false},
        {8, BASE, BASE + 0x1002, BASE + 0x2000, false},
        {8, BASE, BASE + 0x1000, BASE + 0x2002, false},
        {8, BASE + SIZE - 16 * 8, BASE + 0x1000, BASE + 0x2000, true},
        {8, BASE + SIZE - 16 * 7, BASE + 0x1000, BASE + 0x2000, false},
        {8, BASE, BASE + SIZE - 4, BASE + 0x2000, true},
        {8, BASE, BASE + SIZE, BASE + 0x2000, false},
        {8, BASE, BASE + 0x1000, BASE - 4, false},
    };

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        plug_toy(F_ALL);
        CHECK(negotiate(F_ALL));
        queue_addr(0, t[i].size, t[i].desc, t[i].driver, t[i].device);
        if (!CHECK_EQ(rd(0x44), t[i].good))
            printf("  in row %u\n", i);
        CHECK_EQ(broken(), !t[i].good);
    }
}

/* Chains of one to three entries, all around the ring many times, given back in another order. */
static void test_laps(void)
{
    unsigned done = 0, ready = 0;

    plug_toy(F_ALL);
    at_once = false;
    event(0, 1);
    for (unsigned lap = 0; lap < 2000; lap++) {
        for (unsigned i = 0; i < 8; i++) { /* 8 chains, 16 of 25 entries */
            unsigned n = 1 + (lap + i) % 3;
            for (unsigned k = 0; k < n; k++)
                desc(0, 3 * i + k, BASE + DATA + 16 * k, 1 + i, k + 1 < n ? WRITE | NEXT : WRITE,
                     3 * i + k + 1);
            offer(0, 3 * i);
        }
        ring(0);
        CHECK_EQ(nheld, 8);
        for (unsigned i = 0; i < 8; i++) {
            unsigned k = (5 * i + lap) % 8; /* 5 and 8 have no common divisor: all of them */
            CHECK_EQ(held[k].nwrite, 1 + (lap + k) % 3);
            CHECK_EQ(held[k].wlen, held[k].nwrite * (uint64_t)(1 + k));
            give(k, k);
            CHECK_EQ(used_idx(0), ++done);
            CHECK_EQ(used_head(0, ready), 3 * k);
            CHECK_EQ(used_len(0, ready++), k);
        }
        nheld = 0;
    }
    CHECK_EQ(irqs, 0);
    CHECK(!broken());
}

/* The ring is full when its entries are out, whatever is written there. */
static void test_full(void)
{
    plug_toy(F_ALL);
    at_once = false;
    for (unsigned i = 0; i < PACKED_LEN; i++)
        one();
    CHECK_EQ(nheld, PACKED_LEN);
    CHECK(!broken());
    vmm_put16(packed_entry(0, 0) + 14, WRITE | packed_flags(false, false));
    ring(0);
    CHECK(broken());
    CHECK_EQ(nheld, PACKED_LEN);
    give(0, 0);
    CHECK_EQ(used_idx(0), 0);
    for (unsigned i = 1; i < PACKED_LEN; i++)
        give(i, 0);
    wr(0x70, 0);
    CHECK_EQ(rd(0x70), 0);
}

/* vio_unpop across the end of the ring, then the same chains again. */
static void test_unpop(void)
{
    plug_toy(F_ALL);
    for (unsigned i = 0; i < PACKED_LEN - 2; i++)
        one();
    at_once = false;
    for (unsigned i = 0; i < 3; i++) {
        desc(0, 2 * i, BASE + DATA, 1 + i, WRITE | NEXT, 2 * i + 1);
        desc(0, 2 * i + 1, BASE + DATA, 10, WRITE, 0);
        offer(0, 2 * i);
    }
    ring(0);
    CHECK_EQ(nheld, 3);
    while (nheld)
        vio_unpop(&toy, 0, held[--nheld].head);
    CHECK_EQ(toy_queue[0].next, 0x8000 | (PACKED_LEN - 2));
    vio_queue_run(&toy, 0);
    CHECK_EQ(nheld, 3);
    for (unsigned i = 0; i < 3; i++)
        CHECK_EQ(held[i].wlen, 11 + i);
    vio_used_all(&toy, 0, (struct vio_done[]){{held[0].head, 5}, {held[1].head, 6}}, 2);
    vio_unpop(&toy, 0, held[2].head);
    CHECK_EQ(used_idx(0), PACKED_LEN);
    CHECK_EQ(used_len(0, PACKED_LEN - 1), 6);
}

static void test_interrupts(void)
{
    plug_toy(F_VERSION_1);
    one();
    CHECK_EQ(irqs, 1);
    event(0, 1); /* none */
    one();
    CHECK_EQ(irqs, 1);
    event(0, 2); /* a position means nothing without EVENT_IDX */
    one();
    CHECK_EQ(irqs, 2);

    plug_toy(F_ALL);
    event(0x8000 | 2, 2); /* after entry 2 of this lap */
    one();
    one();
    CHECK_EQ(irqs, 0);
    one();
    CHECK_EQ(irqs, 1);
    for (unsigned i = 3; i < PACKED_LEN; i++)
        one();
    CHECK_EQ(irqs, 1);
    event(2, 2); /* the same in the next lap */
    one();
    one();
    CHECK_EQ(irqs, 1);
    one();
    CHECK_EQ(irqs, 2);
    event(0xffff, 2); /* nowhere */
    one();
    at_once = false;
    event(4, 2); /* entries 4 to 6 in one go pass 4 */
    for (unsigned i = 0; i < 3; i++) {
        desc(0, 0, BASE + DATA, 4, WRITE, 0);
        offer(0, 0);
    }
    ring(0);
    irqs = 0;
    for (unsigned i = 0; i < 3; i++)
        vio_used(&toy, 0, held[i].head, 0);
    vio_end(&toy, 0);
    CHECK_EQ(irqs, 1);
}

/* What the device wants to hear of: nothing while it is at work, then the next entry. */
static uint16_t seen_flags;

static void look_run(struct vio_dev *d, unsigned q)
{
    seen_flags = vmm_get16(used(0) + 2);
    toy_run(d, q);
}

static void test_kicks(void)
{
    static const struct vio_class look = {.id = 42, .name = "look", .queue = look_run};

    plug_toy(F_ALL);
    toy.cls = &look;
    one();
    CHECK_EQ(seen_flags, 1);
    CHECK_EQ(vmm_get16(used(0)), 0x8001);
    CHECK_EQ(vmm_get16(used(0) + 2), 2);
    for (unsigned i = 1; i < PACKED_LEN; i++)
        one();
    CHECK_EQ(vmm_get16(used(0)), 0); /* the next lap */
    plug_toy(F_VERSION_1);
    toy.cls = &look;
    one();
    CHECK_EQ(seen_flags, 1);
    CHECK_EQ(vmm_get16(used(0) + 2), 0);
}

static void test_indirect(void)
{
    uint8_t *table = at(BASE + DATA + 0x2000);

    plug_toy(F_ALL);
    at_once = false;
    for (unsigned i = 0; i < VIO_CHAIN_MAX; i++)
        table_desc(table + 16 * i, BASE + DATA + i, 1, i < 3 ? 0 : WRITE, 0);
    desc(0, 0, BASE + DATA + 0x2000, 16 * VIO_CHAIN_MAX, INDIRECT | WRITE, 0);
    offer(0, 0);
    ring(0);
    if (CHECK_EQ(nheld, 1)) {
        CHECK_EQ(held[0].nread, 3);
        CHECK_EQ(held[0].wlen, VIO_CHAIN_MAX - 3);
        give(0, 1);
    }
    CHECK_EQ(used_idx(0), 1);
    one();
    CHECK_EQ(nheld, 2);
    CHECK(!broken());
}

/* >>lies */
static void lie_loop(void) /* all around the ring, and on */
{
    for (unsigned i = 0; i < PACKED_LEN; i++)
        vmm_put16(packed_entry(0, i) + 14, NEXT | WRITE | packed_flags(true, false));
}

static void lie_outside(void)
{
    desc(0, 0, BASE + SIZE - 4, 5, WRITE, 0);
    offer(0, 0);
}

static void lie_order(void)
{
    desc(0, 0, BASE + DATA, 1, WRITE | NEXT, 1);
    desc(0, 1, BASE + DATA, 1, 0, 0);
    offer(0, 0);
}

static void indirect(uint64_t gpa, uint32_t len, unsigned flags)
{
    desc(0, 0, gpa, len, INDIRECT | flags, 1);
    desc(0, 1, BASE + DATA, 1, 0, 0);
    offer(0, 0);
}

static void lie_indirect_next(void)
{
    indirect(BASE + DATA, 16, NEXT);
}

static void lie_indirect_last(void)
{
    desc(0, 0, BASE + DATA, 1, NEXT, 1);
    desc(0, 1, BASE + DATA, 16, INDIRECT, 0);
    offer(0, 0);
}

static void lie_indirect_odd(void)
{
    indirect(BASE + DATA, 24, 0);
}

static void lie_indirect_empty(void)
{
    indirect(BASE + DATA, 0, 0);
}

static void lie_indirect_outside(void)
{
    indirect(BASE + SIZE - 16, 32, 0);
}

static void lie_indirect_long(void) /* of empty buffers, which take no place in a chain */
{
    indirect(BASE + DATA, 16 * (VIO_CHAIN_MAX + 1), 0);
}

static void test_lies(void)
{
    static void (*const lie[])(void) = {
        lie_loop,           lie_outside,          lie_order,
        lie_indirect_next,  lie_indirect_last,    lie_indirect_odd,
        lie_indirect_empty, lie_indirect_outside, lie_indirect_long};

    for (unsigned i = 0; i < sizeof lie / sizeof lie[0]; i++) {
        plug_toy(F_ALL);
        lie[i]();
        ring(0);
        if (!CHECK(broken()))
            printf("  lie %u\n", i);
        CHECK_EQ(lines, 1);
        CHECK_EQ(irqs, 1);
        CHECK_EQ(used_idx(0), 0);
        go(F_ALL);
        one();
        CHECK_EQ(used_idx(0), 1);
    }
    plug_toy(F_VERSION_1);
    indirect(BASE + DATA, 16, 0);
    ring(0);
    CHECK(broken());
}

/* The ring that was chosen does not depend on what the queue was before. */
static void test_split_after_packed(void)
{
    plug_toy(F_ALL);
    one();
    mode.packed = false;
    go(F_ALL);
    one();
    CHECK_EQ(used_idx(0), 1);
    mode.packed = true;
    go(F_ALL);
    one();
    CHECK_EQ(used_idx(0), 1);
}

int main(void)
{
    mode.packed = true;
    test_setup();
    test_laps();
    test_full();
    test_unpop();
    test_interrupts();
    test_kicks();
    test_indirect();
    test_lies();
    test_split_after_packed();
    CHECK_DONE("test_packed");
}
