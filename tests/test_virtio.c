/* test_virtio.c - a mock driver (vio_driver.h) against dev_virtio.h       MIT licence, see LICENSE

   What looks at a transport's registers or into a ring runs with that one alone; what devices do,
   over both transports and with both kinds of rings: see main. */
#define DEV_PCI_IMPLEMENTATION
#include "../dev_pci.h"
#define DEV_VIRTIO_IMPLEMENTATION
#define VIO_BLK_INFLIGHT 4 /* a pool that a test can empty */
#include "../dev_virtio.h"

#include "vio_driver.h"

/* >>rng */
static size_t fill_limit;
static struct vio_rng rng;

static size_t fill(void *ctx, void *buf, size_t len)
{
    size_t n = len < fill_limit ? len : fill_limit;

    (void)ctx;
    memset(buf, 0xaa, n);
    return n;
}

static void plug_rng(void)
{
    fill_limit = SIZE_MAX;
    CHECK_EQ(vio_rng_init(&rng, &(struct vio_rng_desc){.fill = fill}), 0);
    plug(&rng.dev, false);
}

static void test_registers(void)
{
    static const struct {
        uint32_t off, val;
    } fixed[] = {
        {0x00, 0x74726976}, {0x04, 2},        {0x08, 4},   {0x34, VIO_QUEUE_MAX},
        {0x44, 0},          {0x60, 0},        {0x70, 0},   {0xb0, ~0u},
        {0xb4, ~0u},        {0xb8, ~0u},      {0xbc, ~0u}, {0xfc, 0},
        {0x100, 0},         {0x20, 0},        {0x50, 0},   {0x80, 0},
        {0xc0, 0},          {0x10, 3u << 28}, {0xffc, 0},
    };

    plug_rng();
    for (unsigned i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
        CHECK_EQ(rd(fixed[i].off), fixed[i].val);
    wr(0x14, 1);
    CHECK_EQ(rd(0x10), 1 | 1 << 2 | 1 << 8); /* VERSION_1, RING_PACKED, RING_RESET */
    wr(0x14, 2);
    CHECK_EQ(rd(0x10), 0);
    wr(0x30, 1);
    CHECK_EQ(rd(0x34), 0); /* no such queue */
    wr(0x44, 1);
    CHECK_EQ(rd(0x44), 0);
    ring(77);
    /* registers are 32 bits wide, whole and aligned */
    CHECK_EQ(vio_mmio_read(&slot, 0, 1), 0);
    CHECK_EQ(vio_mmio_read(&slot, 0, 8), 0);
    CHECK_EQ(vio_mmio_read(&slot, 2, 4), 0);
    vio_mmio_write(&slot, 0x70, 1, ACK);
    vio_mmio_write(&slot, 0x70, 8, ACK);
    vio_mmio_write(&slot, 0x72, 4, ACK);
    CHECK_EQ(rd(0x70), 0);
    wr(0x70, ACK);
    wr(0x70, DRIVER); /* bits stay */
    wr(0x70, NEEDS_RESET | 16);
    CHECK_EQ(rd(0x70), ACK | DRIVER);
    wr(0x70, 0x100); /* the register has eight bits */
    CHECK_EQ(rd(0x70), 0);
}

static void test_features(void)
{
    plug_rng();
    CHECK(!negotiate(0));
    CHECK(!negotiate(F_INDIRECT | F_EVENT_IDX)); /* a legacy driver */
    CHECK(!negotiate(F_VERSION_1 | 1ULL << 41));
    CHECK(!negotiate(F_VERSION_1 | 1));
    CHECK(negotiate(F_VERSION_1));
    CHECK(negotiate(F_ALL));
    wr(0x24, 0);
    wr(0x20, 0); /* too late */
    CHECK_EQ(rng.dev.accepted, F_ALL);
    wr(0x70, 0);
    CHECK_EQ(rng.dev.accepted, 0);
}

static void test_queue_setup(void)
{
    static const struct {
        uint32_t size;
        uint64_t desc, avail, used;
        bool good;
    } t[] = {
        {8, BASE, BASE + 0x1000, BASE + 0x2000, true},
        {1, BASE, BASE + 0x1002, BASE + 0x2004, true},
        {256, BASE, BASE + 0x1000, BASE + 0x2000, true},
        {0, BASE, BASE + 0x1000, BASE + 0x2000, false},
        {3, BASE, BASE + 0x1000, BASE + 0x2000, false},
        {512, BASE, BASE + 0x1000, BASE + 0x2000, false},
        {0x10008, BASE, BASE + 0x1000, BASE + 0x2000, false},
        {1u << 31, BASE, BASE + 0x1000, BASE + 0x2000, false},
        {8, BASE + 8, BASE + 0x1000, BASE + 0x2000, false},
        {8, BASE, BASE + 0x1001, BASE + 0x2000, false},
        {8, BASE, BASE + 0x1000, BASE + 0x2002, false},
        {8, 0, BASE + 0x1000, BASE + 0x2000, false},
        {8, BASE, BASE - 2, BASE + 0x2000, false},
        {8, BASE, BASE + 0x1000, 1ULL << 63, false},
        {8, BASE + SIZE - 16 * 8, BASE + 0x1000, BASE + 0x2000, true},
        {8, BASE + SIZE - 16 * 7, BASE + 0x1000, BASE + 0x2000, false},
        {8, BASE, BASE + SIZE - 22, BASE + 0x2000, true},
        {8, BASE, BASE + SIZE - 20, BASE + 0x2000, false},
        {8, BASE, BASE + 0x1000, BASE + SIZE - 72, true},
        {8, BASE, BASE + 0x1000, BASE + SIZE - 68, false},
        {8, ~15ULL, BASE + 0x1000, BASE + 0x2000, false},
    };

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        plug_rng();
        CHECK(negotiate(F_ALL));
        queue_addr(0, t[i].size, t[i].desc, t[i].avail, t[i].used);
        if (!CHECK_EQ(rd(0x44), t[i].good))
            printf("  in row %u\n", i);
        CHECK_EQ(!!(rd(0x70) & NEEDS_RESET), !t[i].good);
        CHECK_EQ(lines, !t[i].good);
        CHECK_EQ(irqs, 0); /* DRIVER_OK was not there yet */
    }
    plug_rng(); /* who is silenced already says nothing more */
    CHECK(negotiate(F_ALL));
    for (unsigned i = 0; i < 3; i++)
        queue_addr(0, 3, BASE, BASE, BASE);
    CHECK_EQ(lines, 1);
    plug_rng(); /* a queue in use does not change */
    go(F_ALL);
    wr(0x38, 4);
    wr(0x80, 0);
    CHECK_EQ(rng.queue[0].size, QLEN);
    CHECK_EQ(rng.queue[0].desc_gpa, BASE);
    wr(0x44, 0);
    CHECK_EQ(rd(0x44), 0);
}

static void test_rng(void)
{
    plug_rng();
    CHECK_EQ(vio_rng_init(&rng, &(struct vio_rng_desc){0}), -EINVAL);
    go(F_VERSION_1);
    desc(0, 0, BASE + DATA, 100, WRITE | NEXT, 3);
    desc(0, 3, BASE + DATA + 0x1000, 50, WRITE, 0);
    offer(0, 0);
    ring(0);
    CHECK_EQ(used_idx(0), 1);
    CHECK_EQ(used_head(0, 0), 0);
    CHECK_EQ(used_len(0, 0), 150);
    CHECK_EQ(at(BASE + DATA)[99], 0xaa);
    CHECK_EQ(at(BASE + DATA)[100], 0);
    CHECK_EQ(at(BASE + DATA + 0x1000)[49], 0xaa);
    CHECK_EQ(irqs, 1);
    CHECK_EQ(rd(0x60), !mode.pci); /* 4.1.5: nothing in the ISR with MSI-X */
    if (!mode.pci)
        wr(0x64, 1);
    CHECK_EQ(rd(0x60), 0);
    fill_limit = 10; /* a short source */
    offer(0, 0);
    ring(0);
    CHECK_EQ(used_len(0, 1), 10);
    fill_limit = SIZE_MAX; /* a greedy driver, and a zero-length buffer */
    desc(0, 3, 0, 0, WRITE | NEXT, 1);
    desc(0, 1, BASE + DATA, SIZE - DATA, WRITE, 0);
    offer(0, 0);
    ring(0);
    CHECK_EQ(used_len(0, 2), VIO_RNG_MAX);
    desc(0, 0, BASE + DATA, 100, 0, 0); /* nothing to write to */
    offer(0, 0);
    ring(0);
    CHECK_EQ(used_len(0, 3), 0);
    CHECK_EQ(irqs, 4);
    CHECK_EQ(lines, 0);
}

/* A direct descriptor, then an indirect table (2.7.5.3). */
static uint64_t rng_now;
static struct vmm_bucket rng_limit;

static uint64_t rng_wait(void *ctx)
{
    (void)ctx;
    return vmm_bucket_wait(&rng_limit, rng_now);
}

static size_t rng_pay(void *ctx, void *buf, size_t len)
{
    vmm_bucket_take(&rng_limit, rng_now, len);
    return fill(ctx, buf, len);
}

/* 1000 bytes a second: what goes beyond waits in the ring, whatever the guest does meanwhile. */
static void test_rng_rate(void)
{
    fill_limit = SIZE_MAX;
    rng_limit = (struct vmm_bucket){.rate = 1000};
    rng_now = 5000000000;
    vio_rng_init(&rng, &(struct vio_rng_desc){.fill = rng_pay, .wait = rng_wait});
    plug(&rng.dev, false);
    go(F_VERSION_1);
    for (unsigned i = 0; i < 3; i++) {
        desc(0, i, BASE + DATA, 100, WRITE, 0);
        offer(0, i);
    }
    ring(0);
    ring(0);
    CHECK_EQ(used_idx(0), 1);
    CHECK_EQ(irqs, 1);
    CHECK_EQ(rng_wait(NULL), 100000000);
    rng_now += 99999999;
    vio_queue_run(&rng.dev, 0);
    CHECK_EQ(used_idx(0), 1);
    rng_now++;
    vio_queue_run(&rng.dev, 0);
    CHECK_EQ(used_idx(0), 2);
    rng_now += 1000000000; /* nothing is saved up without a burst */
    vio_queue_run(&rng.dev, 0);
    CHECK_EQ(used_idx(0), 3);
    CHECK_EQ(rng_wait(NULL), 100000000);
    CHECK_EQ(lines, 0);
}

static void test_indirect(void)
{
    uint8_t *table;

    plug_rng();
    go(F_ALL);
    desc(0, 2, BASE + DATA, 16, WRITE | NEXT, 5);
    desc(0, 5, BASE + DATA + 0x2000, 3 * 16, INDIRECT | WRITE, 0); /* WRITE is to be ignored */
    table = at(BASE + DATA + 0x2000);
    for (unsigned i = 0; i < 3; i++) {
        vmm_put64(table + 16 * i, BASE + DATA + 0x100 * (i + 1));
        vmm_put32(table + 16 * i + 8, 16);
        vmm_put16(table + 16 * i + 12, i == 1 ? WRITE : WRITE | NEXT);
        vmm_put16(table + 16 * i + 14, i == 0 ? 2 : 1);
    }
    offer(0, 2);
    ring(0);
    CHECK_EQ(used_idx(0), 1);
    CHECK_EQ(used_head(0, 0), 2);
    CHECK_EQ(used_len(0, 0), 64);
    CHECK_EQ(rd(0x70) & NEEDS_RESET, 0);
    /* a table longer than the ring is fine, as drivers do that */
    desc(0, 0, BASE + DATA + 0x10000, VIO_QUEUE_MAX * 16, INDIRECT, 0);
    table = at(BASE + DATA + 0x10000);
    for (unsigned i = 0; i < VIO_QUEUE_MAX; i++) {
        vmm_put64(table + 16 * i, BASE + DATA + i);
        vmm_put32(table + 16 * i + 8, 1);
        vmm_put16(table + 16 * i + 12, i == VIO_QUEUE_MAX - 1 ? WRITE : WRITE | NEXT);
        vmm_put16(table + 16 * i + 14, (uint16_t)(i + 1));
    }
    offer(0, 0);
    ring(0);
    CHECK_EQ(used_len(0, 1), VIO_QUEUE_MAX);
}

/* >>lies: each must end in NEEDS_RESET, one line, one configuration interrupt, and silence. */
static void lie_head(void)
{
    offer(0, QLEN);
}

static void lie_next(void)
{
    desc(0, 0, BASE + DATA, 1, WRITE | NEXT, QLEN);
    offer(0, 0);
}

static void lie_loop(void)
{
    desc(0, 0, BASE + DATA, 1, WRITE | NEXT, 1);
    desc(0, 1, BASE + DATA, 1, WRITE | NEXT, 0);
    offer(0, 0);
}

static void lie_empty_loop(void)
{
    desc(0, 0, BASE + DATA, 0, WRITE | NEXT, 0);
    offer(0, 0);
}

static void lie_order(void)
{
    desc(0, 0, BASE + DATA, 1, WRITE | NEXT, 1);
    desc(0, 1, BASE + DATA, 1, 0, 0);
    offer(0, 0);
}

static void lie_outside(void)
{
    desc(0, 0, BASE + SIZE - 4, 5, WRITE, 0);
    offer(0, 0);
}

static void lie_wraps(void)
{
    desc(0, 0, ~0ULL, 2, WRITE, 0);
    offer(0, 0);
}

static void lie_no_memory(void)
{
    desc(0, 0, 0, 4096, WRITE, 0);
    offer(0, 0);
}

static void indirect(uint64_t gpa, uint32_t len, unsigned flags)
{
    desc(0, 0, gpa, len, INDIRECT | flags, 0);
    offer(0, 0);
}

static void lie_indirect_next(void)
{
    indirect(BASE + DATA, 16, NEXT);
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

static void lie_nested(void)
{
    vmm_put16(at(BASE + DATA) + 12, INDIRECT);
    indirect(BASE + DATA, 16, 0);
}

static void lie_nested_in_itself(void)
{
    indirect(BASE + DESC, 16, 0); /* the ring's own table, whose first entry is this one */
}

static void lie_indirect_loop(void)
{
    vmm_put64(at(BASE + DATA), BASE + DATA);
    vmm_put32(at(BASE + DATA) + 8, 1);
    vmm_put16(at(BASE + DATA) + 12, WRITE | NEXT);
    indirect(BASE + DATA, 16, 0);
}

static void lie_indirect_next_index(void)
{
    lie_indirect_loop();
    vmm_put16(at(BASE + DATA) + 14, 1);
}

static void lie_avail_far(void)
{
    vmm_put16(avail(0) + 2, QLEN + 1);
}

static void lie_avail_back(void)
{
    vmm_put16(avail(0) + 2, 0xffff);
}

static void test_lies(void)
{
    static void (*const lie[])(void) = {
        lie_head,           lie_next,
        lie_loop,           lie_empty_loop,
        lie_order,          lie_outside,
        lie_wraps,          lie_no_memory,
        lie_indirect_next,  lie_indirect_odd,
        lie_indirect_empty, lie_indirect_outside,
        lie_nested,         lie_nested_in_itself,
        lie_indirect_loop,  lie_indirect_next_index,
        lie_avail_far,      lie_avail_back,
    };

    for (unsigned i = 0; i < sizeof lie / sizeof lie[0]; i++) {
        unsigned status;
        plug_rng();
        go(F_ALL);
        lie[i]();
        ring(0);
        status = rd(0x70);
        if (!CHECK(status & NEEDS_RESET))
            printf("  lie %u\n", i);
        CHECK_EQ(lines, 1);
        CHECK_EQ(irqs, 1);
        CHECK_EQ(rd(0x60), 2);
        CHECK_EQ(used_idx(0), 0);
        /* silent now, also when the driver behaves and when it tries to clear the bit */
        desc(0, 0, BASE + DATA, 4, WRITE, 0);
        offer(0, 0);
        wr(0x70, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
        ring(0);
        CHECK_EQ(rd(0x70), status);
        CHECK_EQ(used_idx(0) + lines + irqs, 2);
        go(F_ALL); /* and as new after a reset */
        CHECK_EQ(rd(0x60), 0);
        desc(0, 0, BASE + DATA, 4, WRITE, 0);
        offer(0, 0);
        ring(0);
        CHECK_EQ(used_len(0, 0), 4);
    }
    plug_rng(); /* indirect without the feature */
    go(F_VERSION_1);
    indirect(BASE + DATA, 16, 0);
    ring(0);
    CHECK(rd(0x70) & NEEDS_RESET);
}

static void test_log_budget(void)
{
    plug_rng();
    for (unsigned i = 0; i < 100; i++) {
        go(F_ALL);
        lie_head();
        ring(0);
    }
    CHECK_EQ(irqs, 100);
    CHECK_EQ(lines, 8);
}

/* A chain whose buffers overlap, each as long as they come, up to and beyond 4 GiB. */
static void test_4gib(void)
{
    enum { HALF = 1 << 20, N = 4096 };
    uint8_t *table = at(BASE + DATA);

    plug_rng();
    go(F_ALL);
    /* 256 buffers of 1 MiB: fine, and the answer is capped */
    for (unsigned i = 0; i < VIO_QUEUE_MAX; i++) {
        vmm_put64(table + 16 * i, BASE + SIZE - HALF);
        vmm_put32(table + 16 * i + 8, HALF);
        vmm_put16(table + 16 * i + 12, WRITE | (i == VIO_QUEUE_MAX - 1 ? 0 : NEXT));
        vmm_put16(table + 16 * i + 14, (uint16_t)(i + 1));
    }
    indirect(BASE + DATA, VIO_QUEUE_MAX * 16, 0);
    ring(0);
    CHECK_EQ(used_len(0, 0), VIO_RNG_MAX);
    /* the same where memory is large: only the walk is wanted, so it is not really there */
    mem.range[0].len = (uint64_t)N << 20;
    for (unsigned i = 0; i < VIO_QUEUE_MAX; i++) {
        vmm_put64(table + 16 * i, BASE);
        vmm_put32(table + 16 * i + 8, i < 255 ? 1u << 24 : (1u << 24) + 1);
    }
    indirect(BASE + DATA, VIO_QUEUE_MAX * 16, 0);
    ring(0);
    CHECK(rd(0x70) & NEEDS_RESET);
}

/* >>suppression */
static void one(void)
{
    desc(0, 0, BASE + DATA, 4, WRITE, 0);
    offer(0, 0);
    ring(0);
}

static void test_suppression(void)
{
    plug_rng();
    go(F_VERSION_1);
    vmm_put16(avail(0), 1); /* NO_INTERRUPT */
    one();
    CHECK_EQ(irqs, 0);
    vmm_put16(avail(0), 0);
    ring(0); /* nothing new: nothing to tell */
    CHECK_EQ(irqs, 0);
    one();
    CHECK_EQ(irqs, 1);
    CHECK_EQ(vmm_get16(used(0)), 0); /* we never ask for silence */

    go(F_ALL);
    irqs = 0;
    vmm_put16(avail(0), 1); /* has no meaning with EVENT_IDX */
    one();
    CHECK_EQ(irqs, 1);
    CHECK_EQ(vmm_get16(used(0) + 4 + 8 * QLEN), 1); /* avail_event: ring at the next chain */
    vmm_put16(avail(0) + 4 + 2 * QLEN, 3);          /* used_event: after the fourth */
    one();
    one();
    CHECK_EQ(irqs, 1);
    one();
    CHECK_EQ(irqs, 2);
    one(); /* passed: no more until it moves on */
    CHECK_EQ(irqs, 2);
    vmm_put16(avail(0) + 4 + 2 * QLEN, 6);
    desc(0, 1, BASE + DATA, 4, WRITE, 0);
    for (unsigned i = 0; i < 4; i++) /* 6 .. 9 in one run: one interrupt, as the run passes 6 */
        offer(0, i & 1);
    ring(0);
    CHECK_EQ(used_idx(0), 9);
    CHECK_EQ(irqs, 3);
}

/* Both indices wrap around 2^16 with the interrupt mechanism on the way. */
static void test_wrap(void)
{
    plug_rng();
    go(F_ALL);
    for (unsigned i = 0; i < 0x10010; i++) {
        vmm_put16(avail(0) + 4 + 2 * QLEN, (uint16_t)i);
        one();
    }
    CHECK_EQ(irqs, 0x10010);
    CHECK_EQ(used_idx(0), 0x10);
    CHECK_EQ(rd(0x70) & NEEDS_RESET, 0);
}

/* >>core: a toy device, to see the core from a device writer's side. */
static struct vio_dev toy;
static struct vio_queue toy_queue[1];
static unsigned toy_served;
static uint8_t toy_config[6];

/* A guest that refills the ring as fast as the device empties it. */
static void toy_run(struct vio_dev *d, unsigned q)
{
    struct vio_chain c;

    while (vio_pop(d, q, &c)) {
        toy_served++;
        vio_used(d, q, c.head, 0);
        offer(q, 0);
    }
    vio_queue_run(d, q); /* refused: it runs */
}

static void toy_config_write(struct vio_dev *d, size_t off, size_t len, const void *val)
{
    memcpy(toy_config + off, val, len);
    vio_config_changed(d);
}

static const struct vio_class toy_class = {
    .id = 42, .name = "toy", .queue = toy_run, .config_write = toy_config_write};

static void plug_toy(bool with_kick)
{
    toy = (struct vio_dev){.cls = &toy_class,
                           .queues = toy_queue,
                           .nqueues = 1,
                           .features = 1ULL << 50,
                           .config = toy_config,
                           .config_len = sizeof toy_config};
    memset(toy_queue, 0, sizeof toy_queue);
    for (uint8_t i = 0; i < sizeof toy_config; i++)
        toy_config[i] = (uint8_t)(i + 1);
    toy_served = 0;
    plug(&toy, with_kick);
}

/* >>unpop and hooks: what a device does that reads a frame into several chains at a time. */
static char toy_log[32];

static void toy_note(char what)
{
    size_t n = strlen(toy_log);

    if (CHECK(n + 1 < sizeof toy_log))
        toy_log[n] = what;
}

static void toy_ready(struct vio_dev *d)
{
    CHECK_EQ(d->accepted, F_ALL | F_RING_RESET | (mode.packed ? F_PACKED : 0));
    toy_note('r');
}

static void toy_start(struct vio_dev *d, unsigned q)
{
    CHECK(vio_live(d, q));
    toy_note('s');
}

static void toy_stop(struct vio_dev *d, unsigned q)
{
    CHECK(!vio_live(d, q));
    toy_note('x');
}

static void toy_reset(struct vio_dev *d)
{
    CHECK_EQ(d->accepted, 0);
    toy_note('0');
}

static void toy_idle(struct vio_dev *d, unsigned q)
{
    (void)d, (void)q;
}

static const struct vio_class idle_class = {.id = 42,
                                            .name = "idle",
                                            .queue = toy_idle,
                                            .ready = toy_ready,
                                            .start = toy_start,
                                            .stop = toy_stop,
                                            .reset = toy_reset};

static void plug_idle(void)
{
    plug_toy(false);
    toy.cls = &idle_class;
    memset(toy_log, 0, sizeof toy_log);
}

static void test_unpop(void)
{
    struct vio_chain c[4];
    struct vio_done done[2] = {{0, 0}};

    plug_idle();
    go(F_ALL | F_RING_RESET);
    for (unsigned i = 0; i < 4; i++) {
        desc(0, i, BASE + DATA, i + 1, WRITE, 0);
        offer(0, i);
    }
    CHECK(vio_begin(&toy, 0));
    for (unsigned i = 0; i < 4; i++)
        CHECK(vio_pop(&toy, 0, &c[i]));
    vio_unpop(&toy, 0, c[3].head);
    vio_unpop(&toy, 0, c[2].head);
    for (unsigned i = 0; i < 2; i++)
        done[i] = (struct vio_done){c[i].head, 10 + i};
    vio_used_all(&toy, 0, done, 2);
    vio_end(&toy, 0);
    CHECK_EQ(used_idx(0), 2);
    CHECK_EQ(used_len(0, 0), 10);
    CHECK_EQ(used_head(0, 1), 1);
    CHECK_EQ(used_len(0, 1), 11);
    CHECK_EQ(irqs, 1);
    CHECK(vio_pop(&toy, 0, &c[0])); /* the one that went back, as it was */
    CHECK_EQ(c[0].wlen, 3);
    CHECK(vio_pop(&toy, 0, &c[1]));
    wr(0x70, 0); /* a reset while two are out: neither way to give one back leaves a trace */
    CHECK(rd(0x70) != 0);
    vio_unpop(&toy, 0, c[1].head);
    CHECK(rd(0x70) != 0);
    vio_used_all(&toy, 0, done, 1);
    CHECK_EQ(rd(0x70), 0);
    CHECK_EQ(used_idx(0), 2);
}

static void test_hooks(void)
{
    struct vio_chain c;

    plug_idle();
    go(F_ALL | F_RING_RESET); /* from a reset */
    CHECK(!strcmp(toy_log, "x0rs"));
    wr(0x70, DRIVER_OK);
    CHECK(!strcmp(toy_log, "x0rs"));
    wr(0xc0, 1);
    queue_up(0);
    CHECK(!strcmp(toy_log, "x0rsxs"));
    offer(0, 0);
    CHECK(vio_begin(&toy, 0) && vio_pop(&toy, 0, &c));
    go(F_ALL | F_RING_RESET); /* does not start before the old chain is back */
    CHECK(!strcmp(toy_log, "x0rsxsx0r"));
    vio_used(&toy, 0, c.head, 0);
    CHECK(!strcmp(toy_log, "x0rsxsx0rs"));
}

static void test_bounded_run(void)
{
    plug_toy(false);
    go(F_ALL);
    desc(0, 0, BASE + DATA, 4, WRITE, 0);
    for (unsigned i = 0; i < QLEN; i++)
        offer(0, 0);
    ring(0);
    CHECK_EQ(toy_served, 2 * QLEN);
    CHECK_EQ(irqs, 1);
    /* avail_event lies where the first half ended, so what came since has rung (2.7.10) */
    CHECK_EQ(vmm_get16(used(0) + 4 + 8 * QLEN), 2 * QLEN);
    ring(0);
    CHECK_EQ(toy_served, 4 * QLEN);
}

/* A device that needs more chains than there are puts them back, and the driver rings for more; what
   comes while it looks is looked at without a ring. */
static unsigned gathers, gather_rest;

static void toy_gather(struct vio_dev *d, unsigned q)
{
    struct vio_chain c[QLEN];
    unsigned n = 0;

    gathers++;
    while (n < QLEN && vio_pop(d, q, &c[n]))
        n++;
    if (gather_rest)
        offer(q, --gather_rest);
    while (n > 0)
        vio_unpop(d, q, c[--n].head);
}

static void test_gather(void)
{
    static const struct vio_class cls = {.id = 42, .name = "gather", .queue = toy_gather};

    plug_toy(false);
    toy.cls = &cls;
    go(F_ALL);
    gathers = 0;
    gather_rest = 2;
    for (unsigned i = 0; i < 3; i++)
        offer(0, i);
    ring(0);
    CHECK_EQ(gathers, 3);
    CHECK_EQ(toy_queue[0].out, 0);
    CHECK_EQ(vmm_get16(used(0) + 4 + 8 * QLEN), 5); /* avail_event: the next one rings */
    for (unsigned i = 3; i < 6; i++)
        offer(0, i);
    ring(0);
    CHECK_EQ(gathers, 4);
    CHECK_EQ(rd(0x70) & NEEDS_RESET, 0);
}

static void test_kick(void)
{
    plug_toy(true);
    go(F_ALL);
    offer(0, 0);
    ring(1);
    CHECK_EQ(kicks, 0);
    ring(0);
    CHECK_EQ(kicks, 1);
    CHECK_EQ(kicked, 0);
    CHECK_EQ(toy_served, 0);
    vio_queue_run(&toy, 7);
    vio_queue_run(&toy, 0);
    CHECK_EQ(toy_served, 2 * ring_len());
}

static void test_config(void)
{
    plug_toy(false);
    CHECK(negotiate(F_VERSION_1 | 1ULL << 50));
    CHECK_EQ(rd(0x100), 0x04030201);
    CHECK_EQ(rd_len(0x100, 8), 0x060504030201); /* zero beyond the end */
    CHECK_EQ(rd_len(0x101, 2), 0x0302);
    CHECK_EQ(rd_len(0x105, 1), 6);
    CHECK_EQ(rd_len(0x106, 1), 0);
    CHECK_EQ(rd_len(0xff8, 8), 0);
    wr_len(0x105, 1, 66);
    CHECK_EQ(rd_len(0x105, 1), 66);
    CHECK_EQ(rd(0xfc), 1);
    CHECK_EQ(irqs, 0); /* no DRIVER_OK yet */
    wr_len(0x105, 2, 0x1234);
    CHECK_EQ(rd_len(0x105, 1), 66);
    wr(0x70, DRIVER_OK);
    wr_len(0x100, 8, 1);
    wr_len(0xffc, 4, 1);
    CHECK_EQ(rd(0xfc), 1);
    wr_len(0x102, 4, 0);
    CHECK_EQ(rd(0xfc), 2);
    CHECK_EQ(irqs, 1);
    CHECK_EQ(rd(0x60), 2);
    CHECK_EQ(rd(0x100), 0x0201);
}

/* Acknowledged bit by bit. */
static void test_mmio_ack(void)
{
    plug_toy(false);
    slot.isr = 3;
    wr(0x64, 1);
    CHECK_EQ(rd(0x60), 2);
    wr(0x64, 2);
    CHECK_EQ(rd(0x60), 0);
}

static void test_not_in_service(void)
{
    plug_rng(); /* ready, offered, rung, but without DRIVER_OK or FEATURES_OK */
    CHECK(negotiate(F_ALL));
    queue_up(0);
    one();
    CHECK_EQ(used_idx(0), 0);
    wr(0x70, 0);
    queue_up(0);
    wr(0x70, ACK | DRIVER | DRIVER_OK);
    one();
    CHECK_EQ(used_idx(0), 0);
    CHECK_EQ(irqs, 0);
}

/* >>console */
static struct vio_console con;
static uint8_t sent[256];
static size_t nsent, out_room;
static unsigned rooms;

static size_t out_write(void *ctx, const void *buf, size_t len)
{
    size_t n = len < out_room ? len : out_room;

    (void)ctx;
    memcpy(sent + nsent, buf, n);
    nsent += n;
    out_room -= n;
    return n;
}

static void out_rx_room(void *ctx)
{
    (void)ctx;
    rooms++;
}

static void plug_console(void)
{
    nsent = rooms = 0;
    out_room = sizeof sent;
    vio_console_init(&con, &(struct vio_console_desc){.out = {out_write, out_rx_room, NULL}});
    plug(&con.dev, false);
}

/* Offers one chain of two buffers, "hello, " and "world", on the transmit queue. */
static void say_hello(void)
{
    memcpy(at(BASE + DATA), "hello, world", 12);
    desc(1, 0, BASE + DATA, 7, NEXT, 1);
    desc(1, 1, BASE + DATA + 7, 5, 0, 0);
    offer(1, 0);
    ring(1);
}

static void test_console_tx(void)
{
    plug_console();
    CHECK_EQ(rd(0x08), 3);
    go(F_ALL);
    say_hello();
    CHECK_EQ(nsent, 12);
    CHECK(!memcmp(sent, "hello, world", 12));
    CHECK_EQ(used_idx(1), 1);
    CHECK_EQ(used_len(1, 0), 0);
    CHECK_EQ(irqs, 1);
    /* the stream takes it in three portions, the first two within a buffer */
    out_room = 3;
    say_hello();
    CHECK_EQ(nsent, 15);
    CHECK_EQ(used_idx(1), 1);
    out_room = 6;
    vio_console_tx_ready(&con, 0);
    ring(1); /* changes nothing */
    CHECK_EQ(nsent, 21);
    CHECK_EQ(used_idx(1), 1);
    out_room = 100;
    vio_console_tx_ready(&con, 0);
    CHECK_EQ(nsent, 24);
    CHECK(!memcmp(sent + 12, "hello, world", 12));
    CHECK_EQ(used_idx(1), 2);
    CHECK_EQ(irqs, mode.packed ? 2 : 1); /* used_event still says 0: the driver did not ask */
    /* what was begun is forgotten with a reset */
    out_room = 3;
    say_hello();
    go(F_ALL);
    nsent = 0;
    out_room = 100;
    say_hello();
    CHECK_EQ(nsent, 12);
    vio_console_init(&con, &(struct vio_console_desc){0}); /* nobody listens */
    plug(&con.dev, false);
    go(F_ALL);
    say_hello();
    CHECK_EQ(used_idx(1), 1);
}

static void test_console_rx(void)
{
    plug_console();
    CHECK_EQ(vio_console_rx(&con, 0, "x", 1), 0); /* no driver */
    go(F_ALL);
    CHECK_EQ(vio_console_rx(&con, 0, "x", 1), 0); /* no buffers */
    desc(0, 0, BASE + DATA, 2, WRITE | NEXT, 1);
    desc(0, 1, BASE + DATA + 0x100, 2, WRITE, 0);
    desc(0, 2, BASE + DATA + 0x200, 8, WRITE, 0);
    offer(0, 0);
    offer(0, 2);
    ring(0);
    CHECK_EQ(rooms, 1);
    CHECK_EQ(used_idx(0), 0);
    CHECK_EQ(vio_console_rx(&con, 0, "abcde", 5), 5);
    CHECK_EQ(used_idx(0), 2);
    CHECK_EQ(used_len(0, 0), 4);
    CHECK_EQ(used_len(0, 1), 1);
    CHECK(!memcmp(at(BASE + DATA), "ab", 2));
    CHECK(!memcmp(at(BASE + DATA + 0x100), "cd", 2));
    CHECK(!memcmp(at(BASE + DATA + 0x200), "e", 2));
    CHECK_EQ(irqs, 1);
    CHECK_EQ(vio_console_rx(&con, 0, "f", 1), 0);
    offer(0, 2);
    ring(0);
    CHECK_EQ(rooms, 2);
    CHECK_EQ(vio_console_rx(&con, 0, "0123456789", 10), 8);
    CHECK_EQ(vio_console_rx(&con, 0, NULL, 0), 0);
}

/* >>blk */
enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNSUPP = 2, UNTOUCHED = 0xee };
enum { SECTORS = 16, HDR = DATA, STATUS = DATA + 0x100, BUF = DATA + 0x1000 };
#define F_BLK_FLUSH   (1ULL << 9)
#define F_BLK_WCE     (1ULL << 11)
#define F_BLK_MQ      (1ULL << 12)
#define F_BLK_DISCARD (1ULL << 13)
#define F_BLK_ZEROES  (1ULL << 14)

static struct vio_blk blk;
static uint8_t disk[SECTORS * 512];
static struct vio_blk_req *pending[VIO_BLK_INFLIGHT];
static unsigned npending, submitted;
static bool at_once, on_hold;
static int disk_err;

static int carry_out(struct vio_blk_req *r)
{
    uint64_t off = r->off, sum = 0;

    if (r->op == VIO_BLK_DISCARD || r->op == VIO_BLK_ZERO) {
        CHECK(r->len && r->off <= sizeof disk && r->len <= sizeof disk - r->off && !r->niov);
        memset(disk + off, r->op == VIO_BLK_ZERO ? 0 : r->unmap ? 1 : 2, r->len);
        return disk_err;
    }
    for (unsigned i = 0; i < r->niov; i++) {
        if (r->op == VIO_BLK_READ)
            memcpy(r->iov[i].base, disk + off, r->iov[i].len);
        else
            memcpy(disk + off, r->iov[i].base, r->iov[i].len);
        CHECK(r->iov[i].len != 0);
        off += r->iov[i].len;
        sum += r->iov[i].len;
    }
    CHECK_EQ(sum, r->len);
    return disk_err;
}

static void submit(void *ctx, struct vio_blk_req *r)
{
    CHECK(ctx == &blk);
    submitted++;
    if (at_once)
        vio_blk_done(&blk, r, carry_out(r));
    else if (CHECK(npending < VIO_BLK_INFLIGHT))
        pending[npending++] = r;
}

/* Completes the oldest request. */
static void complete(void)
{
    struct vio_blk_req *r = pending[0];

    memmove(pending, pending + 1, --npending * sizeof pending[0]);
    vio_blk_done(&blk, r, carry_out(r));
}

static bool hold(void *ctx)
{
    CHECK(ctx == &blk);
    return on_hold;
}

static void plug_blk_desc(struct vio_blk_desc d)
{
    at_once = true;
    on_hold = false;
    disk_err = 0;
    npending = submitted = 0;
    for (unsigned i = 0; i < sizeof disk; i++)
        disk[i] = (uint8_t)(i / 512 + i);
    d.capacity = sizeof disk;
    d.serial = "serial-0123456789abc";
    d.submit = submit;
    d.ctx = &blk;
    memset(&blk, 0xcc, sizeof blk); /* nothing is expected of the memory */
    CHECK_EQ(vio_blk_init(&blk, &d), 0);
    plug(&blk.dev, false);
}

static void plug_blk(bool read_only)
{
    plug_blk_desc((struct vio_blk_desc){.read_only = read_only});
}

static void header(uint32_t type, uint64_t sector)
{
    vmm_put32(at(BASE + HDR), type);
    vmm_put32(at(BASE + HDR) + 4, 0);
    vmm_put64(at(BASE + HDR) + 8, sector);
    *at(BASE + STATUS) = UNTOUCHED;
}

/* One request in three descriptors; returns the status byte. */
static unsigned request(uint32_t type, uint64_t sector, uint32_t len)
{
    header(type, sector);
    desc(0, 0, BASE + HDR, 16, NEXT, 1);
    desc(0, 1, BASE + BUF, len, NEXT | (type == OUT ? 0 : WRITE), 2);
    desc(0, 2, BASE + STATUS, 1, WRITE, 0);
    offer(0, 0);
    ring(0);
    return *at(BASE + STATUS);
}

static void test_blk_config(void)
{
    char serial[] = "123456789012345678901";
    struct vio_blk_desc d = {.capacity = 513, .submit = submit};

    CHECK_EQ(vio_blk_init(&blk, &d), -EINVAL);
    d.capacity = 512;
    d.serial = serial;
    CHECK_EQ(vio_blk_init(&blk, &d), -EINVAL);
    d.serial = NULL;
    CHECK_EQ(vio_blk_init(&blk, &d), 0);
    d.submit = NULL;
    CHECK_EQ(vio_blk_init(&blk, &d), -EINVAL);
    plug_blk(false);
    CHECK_EQ(rd(0x08), 2);
    CHECK_EQ(rd(0x10), 3u << 28 | 0x6e54);
    CHECK_EQ(rd_len(0x100, 8), SECTORS);
    CHECK_EQ(rd(0x10c), VIO_BLK_SEGS_MAX);
    CHECK_EQ(rd(0x114), 512);
    plug_blk(true);
    CHECK_EQ(rd(0x10), 3u << 28 | 0x0674);
}

static uint64_t config(unsigned off, unsigned len)
{
    return rd_len(0x100 + off, len);
}

/* Offsets as 5.2.4 lists them. */
static void test_blk_hints(void)
{
    static const struct {
        uint32_t block, physical, optimal;
        int rc;
    } t[] = {{1, 0, 0, -EINVAL},      {513, 0, 0, -EINVAL},   {4096, 512, 0, -EINVAL},
             {512, 4097, 0, -EINVAL}, {512, 0, 100, -EINVAL}, {512, 1u << 25, 0, -EINVAL},
             {4096, 0, 0, 0},         {8192, 0, 0, 0}};
    struct vio_blk_desc d = {.capacity = 512, .submit = submit};

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        d.block = t[i].block;
        d.physical = t[i].physical;
        d.optimal = t[i].optimal;
        CHECK_EQ(vio_blk_init(&blk, &d), t[i].rc);
    }
    d = (struct vio_blk_desc){.submit = submit, .queues = VIO_BLK_QUEUES_MAX + 1};
    CHECK_EQ(vio_blk_init(&blk, &d), -EINVAL);
    plug_blk_desc((struct vio_blk_desc){
        .queues = VIO_BLK_QUEUES_MAX, .block = 1024, .physical = 8192, .optimal = 65536});
    CHECK_EQ(rd(0x10), 3u << 28 | 0x7e54);
    CHECK_EQ(config(18, 1) << 8 | config(19, 1), 255 << 8 | 63);
    CHECK_EQ(config(20, 4), 1024);
    CHECK_EQ(config(24, 1), 3);
    CHECK_EQ(config(26, 2), 8);
    CHECK_EQ(config(28, 4), 64);
    CHECK_EQ(config(32, 1), 1);
    CHECK_EQ(config(34, 2), VIO_BLK_QUEUES_MAX);
    CHECK_EQ(config(36, 4), 1 << 22);
    CHECK_EQ(config(40, 4), VIO_BLK_RANGES_MAX);
    CHECK_EQ(config(44, 4), 16);
    CHECK_EQ(config(48, 4), 1 << 22);
    CHECK_EQ(config(52, 4), VIO_BLK_RANGES_MAX);
    CHECK_EQ(config(56, 1), 1);
    CHECK_EQ(config(60, 4), 0);
    wr(0x30, VIO_BLK_QUEUES_MAX - 1);
    CHECK(rd(0x34) != 0);
    vio_blk_set_capacity(&blk, 255 * 63 * 512ull * 70000 + 1);
    CHECK_EQ(config(16, 2), 65535);
    vio_blk_set_capacity(&blk, 255 * 63 * 512 * 7);
    CHECK_EQ(config(16, 2), 7);
}

/* A request whose data is `n` ranges of sector, sectors, flags; returns the status byte. */
static unsigned erase(uint32_t type, const uint64_t (*range)[3], unsigned n, uint32_t len)
{
    for (unsigned i = 0; i < n; i++) {
        vmm_put64(at(BASE + BUF) + 16 * i, range[i][0]);
        vmm_put32(at(BASE + BUF) + 16 * i + 8, (uint32_t)range[i][1]);
        vmm_put32(at(BASE + BUF) + 16 * i + 12, (uint32_t)range[i][2]);
    }
    header(type, 0);
    desc(0, 0, BASE + HDR, 16, NEXT, 1);
    desc(0, 1, BASE + BUF, len, NEXT, 2);
    desc(0, 2, BASE + STATUS, 1, WRITE, 0);
    offer(0, 0);
    ring(0);
    return *at(BASE + STATUS);
}

static void test_blk_erase(void)
{
    static const struct {
        uint32_t type, len; /* len 0: that of the ranges */
        unsigned n;
        uint64_t range[3][3];
        unsigned status, submitted;
    } t[] = {
        {DISCARD, 0, 1, {{2, 3, 0}}, OK, 1},
        {DISCARD, 0, 3, {{0, 1, 0}, {5, 0, 0}, {SECTORS - 1, 1, 0}}, OK, 2},
        {DISCARD, 0, 1, {{0, 1, 1}}, UNSUPP, 0},
        {DISCARD, 0, 1, {{0, 1, 2}}, UNSUPP, 0},
        {DISCARD, 0, 1, {{SECTORS, 0, 0}}, OK, 0},
        {DISCARD, 0, 1, {{SECTORS, 1, 0}}, IOERR, 0},
        {DISCARD, 0, 1, {{~0ull, 2, 0}}, IOERR, 0},
        {DISCARD, 0, 1, {{0, 0xffffffff, 0}}, IOERR, 0},
        {DISCARD, 0, 2, {{0, 1, 0}, {SECTORS, 1, 0}}, IOERR, 0}, /* nothing is begun */
        {DISCARD, 15, 1, {{0, 1, 0}}, IOERR, 0},
        {DISCARD, 17, 1, {{0, 1, 0}}, IOERR, 0},
        {DISCARD, 16 * VIO_BLK_RANGES_MAX + 16, 1, {{0, 1, 0}}, IOERR, 0},
        {ZEROES, 0, 1, {{1, 2, 0}}, OK, 1},
        {ZEROES, 0, 2, {{1, 2, 1}, {4, 4, 0}}, OK, 2},
        {ZEROES, 0, 1, {{0, 1, 2}}, UNSUPP, 0},
    };

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        uint32_t len = t[i].len ? t[i].len : 16 * t[i].n;
        plug_blk(false);
        go(F_VERSION_1 | F_BLK_DISCARD | F_BLK_ZEROES);
        CHECK_EQ(erase(t[i].type, t[i].range, t[i].n, len), t[i].status);
        CHECK_EQ(submitted, t[i].submitted);
        for (unsigned k = 0; k < t[i].n && t[i].submitted; k++)
            if (t[i].range[k][1])
                CHECK_EQ(disk[512 * t[i].range[k][0]], t[i].type == ZEROES ? 0 : 2);
        plug_blk(false);
        go(F_VERSION_1); /* not asked for, not there */
        CHECK_EQ(erase(t[i].type, t[i].range, t[i].n, len), UNSUPP);
    }
}

/* Ranges follow each other; the first that fails ends it. */
static void test_blk_erase_order(void)
{
    static const uint64_t range[3][3] = {{1, 1, 0}, {2, 0, 1}, {3, 2, 1}};

    plug_blk(false);
    at_once = false;
    go(F_VERSION_1 | F_BLK_ZEROES);
    CHECK_EQ(erase(ZEROES, range, 3, 48), UNTOUCHED);
    CHECK(npending == 1 && !pending[0]->unmap && pending[0]->durable);
    CHECK_EQ(pending[0]->off, 512);
    complete();
    CHECK_EQ(*at(BASE + STATUS), UNTOUCHED);
    CHECK(npending == 1 && pending[0]->unmap);
    CHECK_EQ(pending[0]->len, 1024);
    complete();
    CHECK_EQ(*at(BASE + STATUS), OK);
    CHECK_EQ(used_idx(0), 1);
    disk_err = -EIO;
    erase(ZEROES, range, 3, 48);
    complete();
    CHECK_EQ(*at(BASE + STATUS), IOERR);
    CHECK(!npending && used_idx(0) == 2);
    /* reset in between */
    disk_err = 0;
    erase(ZEROES, range, 3, 48);
    wr(0x70, 0);
    complete();
    CHECK(rd(0x70) != 0);
    complete();
    CHECK_EQ(rd(0x70), 0);
}

static void test_blk_requests(void)
{
    static const struct {
        uint32_t type, len;
        uint64_t sector;
        unsigned code, used;
        bool reaches_host;
    } t[] = {
        {IN, 512, 0, OK, 513, true},
        {IN, 1024, SECTORS - 2, OK, 1025, true},
        {IN, 1024, SECTORS - 1, IOERR, 1, false},
        {IN, 512, SECTORS, IOERR, 1, false},
        {IN, 512, ~0ULL, IOERR, 1, false},
        {IN, 512, 1ULL << 55, IOERR, 1, false},
        {IN, 511, 0, IOERR, 1, false},
        {IN, 0, SECTORS, OK, 1, false},
        {OUT, 512, 3, OK, 1, true},
        {OUT, 513, 3, IOERR, 1, false},
        {OUT, 512, SECTORS, IOERR, 1, false},
        {FLUSH, 0, 0, OK, 1, true},
        {GET_ID, 20, 0, OK, 21, false},
        {GET_ID, 512, 0, OK, 21, false},
        {GET_ID, 7, 0, OK, 8, false},
        {11, 512, 0, UNSUPP, 1, false},
        {0x80000000, 0, 0, UNSUPP, 1, false},
    };

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        plug_blk(false);
        go(F_ALL | F_BLK_FLUSH);
        memset(at(BASE + BUF), 0x5a, 2048);
        if (!CHECK_EQ(request(t[i].type, t[i].sector, t[i].len), t[i].code))
            printf("  in row %u\n", i);
        CHECK_EQ(used_idx(0), 1);
        CHECK_EQ(used_len(0, 0), t[i].used);
        CHECK_EQ(submitted, t[i].reaches_host);
        CHECK_EQ(irqs, 1);
        if (t[i].type == IN && submitted)
            CHECK(!memcmp(at(BASE + BUF), disk + 512 * t[i].sector, t[i].len));
        if (t[i].type == OUT && submitted)
            CHECK(!memcmp(at(BASE + BUF), disk + 512 * t[i].sector, t[i].len));
        if (t[i].type == GET_ID)
            CHECK(!memcmp(at(BASE + BUF), "serial-0123456789abc", t[i].used - 1));
        CHECK_EQ(*(at(BASE + BUF) + t[i].len), 0x5a);
    }
    plug_blk(true);
    go(F_ALL);
    CHECK_EQ(request(OUT, 0, 512), IOERR);
    CHECK_EQ(request(IN, 0, 512), OK);
    CHECK_EQ(submitted, 1);
    disk_err = -EIO;
    CHECK_EQ(request(IN, 0, 512), IOERR);
    CHECK_EQ(request(FLUSH, 0, 0), IOERR);
    CHECK_EQ(used_len(0, 2), 1);
}

/* A driver that cannot flush is promised stable writes. */
/* 5.2.6.2: with CONFIG_WCE the driver decides, else the lack of FLUSH does. */
static void test_blk_durable(void)
{
    static const struct {
        uint64_t features;
        int writeback; /* what the driver writes, -1: nothing */
        bool durable;
    } t[] = {
        {0, -1, true},
        {F_BLK_FLUSH, -1, false},
        {F_BLK_FLUSH, 0, false}, /* not its to write */
        {F_BLK_FLUSH | F_BLK_WCE, -1, false},
        {F_BLK_FLUSH | F_BLK_WCE, 0, true},
        {F_BLK_FLUSH | F_BLK_WCE, 1, false},
        {F_BLK_WCE, 0, true},
    };

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        plug_blk(false);
        at_once = false;
        go(F_VERSION_1 | t[i].features);
        if (t[i].writeback >= 0)
            wr_len(0x100 + 32, 1, (unsigned)t[i].writeback);
        request(OUT, 0, 512);
        if (CHECK_EQ(npending, 1))
            CHECK_EQ(pending[0]->durable, t[i].durable);
        wr(0x70, 0);
        CHECK_EQ(config(32, 1), 1);
    }
}

/* The same read or write, cut at every possible place into up to four descriptors. */
static void test_blk_framing(void)
{
    enum { LEN = 1024 };

    for (unsigned cut = 0; cut <= LEN; cut += 37) {
        /* out: | header + cut data | rest of data |, in: | status | */
        plug_blk(false);
        go(F_ALL);
        memset(at(BASE + BUF - 16), 0, LEN + 17);
        header(OUT, 2);
        memcpy(at(BASE + BUF) - 16, at(BASE + HDR), 16);
        for (unsigned i = 0; i < LEN; i++)
            at(BASE + BUF)[i] = (uint8_t)(i * 7);
        desc(0, 0, BASE + BUF - 16, 5, NEXT, 1);
        desc(0, 1, BASE + BUF - 11, 11 + cut, NEXT, 2);
        desc(0, 2, BASE + BUF + cut, LEN - cut, NEXT, 3);
        desc(0, 3, BASE + BUF + LEN, 1, WRITE, 0);
        *at(BASE + BUF + LEN) = UNTOUCHED;
        offer(0, 0);
        ring(0);
        CHECK_EQ(*at(BASE + BUF + LEN), OK);
        CHECK(!memcmp(disk + 1024, at(BASE + BUF), LEN));
        /* back: | header |, | cut data | rest of data + status | */
        header(IN, 2);
        memset(at(BASE + BUF), 0, LEN);
        *at(BASE + BUF + LEN) = UNTOUCHED;
        desc(0, 0, BASE + HDR, 16, NEXT, 1);
        desc(0, 1, BASE + BUF, cut, NEXT | WRITE, 2);
        desc(0, 2, BASE + BUF + cut, LEN - cut + 1, WRITE, 0);
        offer(0, 0);
        ring(0);
        CHECK_EQ(*at(BASE + BUF + LEN), OK);
        CHECK(!memcmp(disk + 1024, at(BASE + BUF), LEN));
    }
}

static void test_blk_malformed(void)
{
    plug_blk(false);
    go(F_ALL);
    header(IN, 0); /* a short header can still be answered */
    desc(0, 0, BASE + HDR, 15, NEXT, 1);
    desc(0, 1, BASE + STATUS, 1, WRITE, 0);
    offer(0, 0);
    ring(0);
    CHECK_EQ(*at(BASE + STATUS), IOERR);
    desc(0, 0, BASE + HDR, 16, 0, 0); /* no room for a status cannot */
    offer(0, 0);
    ring(0);
    CHECK(rd(0x70) & NEEDS_RESET);
    CHECK_EQ(submitted, 0);
    CHECK_EQ(lines, 1);
}

/* As many data buffers as we said, and one more. */
static void test_blk_segments(void)
{
    for (unsigned extra = 0; extra < 2; extra++) {
        unsigned n = VIO_BLK_SEGS_MAX + extra;
        uint8_t *table = at(BASE + DATA + 0x20000);
        uint32_t type = IN, len = 512;

        plug_blk(false);
        at_once = false;
        go(F_ALL);
        header(type, 0);
        for (unsigned i = 0; i < n + 2; i++) {
            uint64_t addr = i == 0 ? BASE + HDR : i == n + 1 ? BASE + STATUS : BASE + BUF + 4 * i;
            uint32_t bytes = i == 0 ? 16 : i == n + 1 ? 1 : i == n ? len - 4 * (n - 1) : 4;
            table_desc(table + 16 * i, addr, bytes, (i ? WRITE : 0) | (i == n + 1 ? 0 : NEXT),
                       i + 1);
        }
        indirect(BASE + DATA + 0x20000, 16 * (n + 2), 0);
        ring(0);
        CHECK_EQ(npending, !extra);
        CHECK_EQ(*at(BASE + STATUS), extra ? IOERR : UNTOUCHED);
        if (!extra && npending)
            CHECK_EQ(pending[0]->niov, VIO_BLK_SEGS_MAX);
    }
}

/* More requests than the pool holds: they wait in the ring and go on one by one. */
static void test_blk_pool(void)
{
    enum { N = 64 };

    plug_blk(false);
    at_once = false;
    CHECK(negotiate(F_ALL));
    queue_addr(0, N, BASE, BASE + AVAIL, BASE + USED);
    wr(0x70, DRIVER_OK);
    header(FLUSH, 0);
    for (unsigned i = 0; i < N / 2; i++) {
        desc(0, 2 * i, BASE + HDR, 16, NEXT, 2 * i + 1);
        desc(0, 2 * i + 1, BASE + STATUS, 1, WRITE, 0);
    }
    for (unsigned i = 0; i < N; i++)
        vmm_put16(avail(0) + 4 + 2 * i, (uint16_t)(2 * (i % (N / 2))));
    vmm_put16(avail(0) + 2, N);
    ring(0);
    CHECK_EQ(npending, VIO_BLK_INFLIGHT);
    ring(0);
    CHECK_EQ(npending, VIO_BLK_INFLIGHT);
    for (unsigned i = 1; i <= N; i++) {
        complete();
        CHECK_EQ(used_idx(0), i);
        CHECK_EQ(submitted, i + VIO_BLK_INFLIGHT < N ? i + VIO_BLK_INFLIGHT : N);
    }
    CHECK_EQ(npending, 0);
    CHECK_EQ(rd(0x70) & NEEDS_RESET, 0);
    /* at most a ring full, counting what is under way */
    vmm_put16(avail(0) + 2, 2 * N);
    ring(0);
    vmm_put16(avail(0) + 2, 3 * N);
    while (npending)
        complete();
    CHECK(rd(0x70) & NEEDS_RESET);
    CHECK_EQ(submitted, 2 * N);
}

/* >>reset with requests under way */
/* Offers `n` flushes in queue q, which share header and status. */
static void offer_flushes(unsigned q, unsigned n)
{
    header(FLUSH, 0);
    desc(q, 0, BASE + HDR, 16, NEXT, 1);
    desc(q, 1, BASE + STATUS, 1, WRITE, 0);
    for (unsigned i = 0; i < n; i++)
        offer(q, 0);
}

/* One queue takes all of the pool; then both get their turn. */
static void test_blk_queues(void)
{
    unsigned ones = 0;

    plug_blk_desc((struct vio_blk_desc){.queues = 2});
    at_once = false;
    go(F_ALL | F_BLK_MQ);
    offer_flushes(0, QLEN);
    offer_flushes(1, QLEN);
    ring(0);
    ring(1);
    CHECK_EQ(npending, VIO_BLK_INFLIGHT);
    for (unsigned i = 0; i < VIO_BLK_INFLIGHT; i++) {
        CHECK_EQ(pending[0]->queue, 0);
        complete();
        CHECK_EQ(npending, VIO_BLK_INFLIGHT);
    }
    for (unsigned i = 0; i < VIO_BLK_INFLIGHT; i++)
        ones += pending[i]->queue;
    CHECK_EQ(ones, VIO_BLK_INFLIGHT / 2);
    while (npending)
        complete();
    CHECK(used_idx(0) == QLEN && used_idx(1) == QLEN && submitted == 2 * QLEN);
}

static void test_blk_hold(void)
{
    plug_blk_desc((struct vio_blk_desc){.queues = 2, .hold = hold});
    at_once = false;
    go(F_ALL | F_BLK_MQ);
    on_hold = true;
    offer_flushes(0, 1);
    offer_flushes(1, 2);
    for (unsigned i = 0; i < 100; i++) {
        ring(0);
        ring(1);
    }
    CHECK_EQ(npending, 0);
    on_hold = false;
    vio_blk_resume(&blk);
    CHECK_EQ(npending, 3);
    on_hold = true;
    complete();
    offer_flushes(0, 1);
    ring(0);
    complete();
    CHECK_EQ(npending, 1); /* what comes back does not let others in */
    wr(0x70, 0);
    on_hold = false;
    complete();
    vio_blk_resume(&blk);
    CHECK(!npending && rd(0x70) == 0);
}

static void test_blk_capacity(void)
{
    plug_blk(false);
    vio_blk_set_capacity(&blk, 4 * 512);
    CHECK_EQ(irqs, 0); /* no driver yet */
    go(F_ALL);
    CHECK_EQ(request(IN, 4, 512), IOERR);
    irqs = 0;
    uint32_t generation = rd(0xfc);
    vio_blk_set_capacity(&blk, 8 * 512 + 511);
    CHECK_EQ(irqs, 1);
    CHECK(rd(0x60) & 2 && rd(0xfc) != generation);
    CHECK_EQ(config(0, 8), 8);
    CHECK_EQ(request(IN, 7, 512), OK);
    CHECK_EQ(request(IN, 8, 512), IOERR);
}

static void test_blk_reset_in_flight(void)
{
    plug_blk(false);
    at_once = false;
    go(F_ALL);
    request(IN, 0, 512);
    request(IN, 1, 512);
    CHECK_EQ(npending, 2);
    wr(0x70, 0);
    CHECK(rd(0x70) != 0);
    wr(0x70, 0);
    CHECK(rd(0x70) != 0);
    complete();
    CHECK(rd(0x70) != 0);
    complete();
    CHECK_EQ(rd(0x70), 0);
    CHECK_EQ(used_idx(0), 0);
    CHECK_EQ(*at(BASE + STATUS), UNTOUCHED);
    CHECK_EQ(irqs, 0);
    go(F_ALL);
    request(IN, 0, 512);
    complete();
    CHECK_EQ(used_idx(0), 1);
}

/* A driver that does not wait for the reset: its new rings rest until the old requests are done. */
static void test_blk_impatient_driver(void)
{
    plug_blk(false);
    at_once = false;
    go(F_ALL);
    request(IN, 0, 512);
    go(F_ALL);
    CHECK_EQ(request(FLUSH, 0, 0), UNTOUCHED);
    CHECK_EQ(npending, 1);
    complete(); /* the old one: leaves no trace, and lets the new one start */
    CHECK_EQ(npending, 1);
    CHECK_EQ(used_idx(0), 0);
    CHECK_EQ(irqs, 0);
    CHECK_EQ(pending[0]->op, VIO_BLK_FLUSH);
    complete();
    CHECK_EQ(used_idx(0), 1);
    CHECK_EQ(*at(BASE + STATUS), OK);
    CHECK_EQ(irqs, 1);
}

static void test_blk_queue_stop_in_flight(void)
{
    plug_blk(false);
    at_once = false;
    go(F_ALL);
    request(IN, 0, 512);
    wr(0x44, 0);
    CHECK_EQ(rd(0x44), 1); /* not yet */
    complete();
    CHECK_EQ(rd(0x44), 0);
    CHECK_EQ(used_idx(0), 0);
    queue_up(0);
    at_once = true;
    CHECK_EQ(request(IN, 0, 512), OK);
}

static void test_blk_queue_reset_in_flight(void)
{
    plug_blk(false);
    at_once = false;
    go(F_ALL);
    request(IN, 0, 512);
    wr(0xc0, 1); /* not without the feature */
    CHECK_EQ(rd(0xc0), 0);
    CHECK_EQ(rd(0x44), 1);
    complete();
    CHECK_EQ(used_idx(0), 1);
    go(F_ALL | F_RING_RESET);
    request(IN, 0, 512);
    request(IN, 1, 512);
    wr(0xc0, 1);
    CHECK_EQ(rd(0xc0), 1);
    complete();
    CHECK_EQ(rd(0xc0), 1);
    complete();
    CHECK_EQ(rd(0xc0), 0);
    CHECK_EQ(rd(0x44), 0);
    CHECK_EQ(used_idx(0), 0);
    CHECK_EQ(rd(0x70), ACK | DRIVER | FEATURES_OK | DRIVER_OK);
    queue_up(0);
    at_once = true;
    CHECK_EQ(request(IN, 0, 512), OK);
}

static void test_blk_needs_reset_in_flight(void)
{
    plug_blk(false);
    at_once = false;
    go(F_ALL);
    request(IN, 0, 512);
    lie_head();
    ring(0);
    CHECK(rd(0x70) & NEEDS_RESET);
    complete(); /* after the lie nothing is touched any more */
    CHECK_EQ(used_idx(0), 0);
    CHECK_EQ(*at(BASE + STATUS), UNTOUCHED);
    wr(0x70, 0);
    CHECK_EQ(rd(0x70), 0);
}

int main(void)
{
    /* over either transport, with either ring */
    static void (*const everywhere[])(void) = {
        test_rng,
        test_rng_rate,
        test_unpop,
        test_hooks,
        test_kick,
        test_config,
        test_not_in_service,
        test_console_tx,
        test_console_rx,
        test_blk_config,
        test_blk_hints,
        test_blk_erase,
        test_blk_erase_order,
        test_blk_requests,
        test_blk_durable,
        test_blk_framing,
        test_blk_malformed,
        test_blk_segments,
        test_blk_queues,
        test_blk_hold,
        test_blk_capacity,
        test_blk_reset_in_flight,
        test_blk_impatient_driver,
        test_blk_queue_reset_in_flight,
    };
    static const struct mode modes[] = {{"mmio, split rings", false, false},
                                        {"mmio, packed rings", false, true},
                                        {"pci, split rings", true, false},
                                        {"pci, packed rings", true, true}};

    for (unsigned m = 0; m < 4; m++) {
        mode = modes[m];
        for (unsigned i = 0; i < sizeof everywhere / sizeof everywhere[0]; i++) {
            unsigned before = check_failed;
            everywhere[i]();
            if (check_failed != before)
                printf("  test %u, %s\n", i, mode.name);
        }
    }
    mode = modes[0];
    test_registers();
    test_features();
    test_queue_setup();
    test_indirect();
    test_lies();
    test_log_budget();
    test_4gib();
    test_suppression();
    test_wrap();
    test_bounded_run();
    test_gather();
    test_mmio_ack();
    test_blk_pool();
    test_blk_queue_stop_in_flight();
    test_blk_needs_reset_in_flight();
    CHECK_DONE("test_virtio");
}
