/* test_virtio_pci.c - the transport virtio-pci, register by register (virtio 1.2, section 4.1)
                                                            MIT licence, see LICENSE */
#define DEV_PCI_IMPLEMENTATION
#include "../dev_pci.h"
#define DEV_VIRTIO_IMPLEMENTATION
#include "../dev_virtio.h"

#include "vio_driver.h"

enum {
    NQUEUES = 2,
    COMMON = 0,
    ISR = 0x1000,
    CONFIG = 0x2000,
    NOTIFY = 0x4000,
    NO_VECTOR = 0xffff
};
enum { FEATURE_SEL = 0, FEATURE = 4, ACCEPTED_SEL = 8, ACCEPTED = 12, CONFIG_VECTOR = 16 };
enum { NUM_QUEUES = 18, STATUS = 20, GENERATION = 21, QUEUE_SEL = 22, QUEUE_SIZE = 24 };
enum { QUEUE_VECTOR = 26, QUEUE_ENABLE = 28, NOTIFY_OFF = 30, QUEUE_DESC = 32, QUEUE_RESET = 58 };

static struct vio_dev toy;
static struct vio_queue toy_queue[NQUEUES];
static unsigned runs[NQUEUES], resets;
static uint8_t toy_config[4] = {1, 2, 3, 4};

static void toy_run(struct vio_dev *d, unsigned q)
{
    struct vio_chain c;

    runs[q]++;
    while (vio_pop(d, q, &c))
        vio_used(d, q, c.head, (uint32_t)c.wlen);
}

static void toy_reset(struct vio_dev *d)
{
    (void)d;
    resets++;
}

static const struct vio_class toy_class = {
    .id = 4, .name = "toy", .queue = toy_run, .reset = toy_reset};

static void plug_toy(void)
{
    memset(runs, 0, sizeof runs);
    memset(toy_queue, 0, sizeof toy_queue);
    toy_queue[1].max = 512;
    toy = (struct vio_dev){.cls = &toy_class,
                           .queues = toy_queue,
                           .nqueues = NQUEUES,
                           .config = toy_config,
                           .config_len = sizeof toy_config};
    plug(&toy, false);
    resets = 0;
}

static void one(unsigned q)
{
    desc(q, 0, BASE + DATA, 4, WRITE, 0);
    offer(q, 0);
    ring(q);
}

static uint64_t reg(unsigned off, unsigned len)
{
    return bus_rd(bar + off, len);
}

static void put(unsigned off, unsigned len, uint64_t val)
{
    bus_wr(bar + off, len, val);
}

/* What a driver finds in configuration space: 4.1.2 and 4.1.4. */
static void test_identity(void)
{
    static const struct {
        unsigned type, len, off, bytes;
    } want[] = {{1, 16, COMMON, 64},
                {3, 16, ISR, 1},
                {4, 16, CONFIG, 4096},
                {2, 20, NOTIFY, 256},
                {5, 20, 0, 0}};
    unsigned cap = 0;

    plug_toy();
    CHECK_EQ(bus_rd(cfg(0), 4), 0x10441af4);
    CHECK_EQ(bus_rd(cfg(8), 4), 0x00ff0001);
    CHECK(bus_rd(cfg(0x2e), 2) >= 0x40);
    for (unsigned i = 0; i < sizeof want / sizeof want[0]; i++) {
        cap = find_cap(cap, 9);
        if (!CHECK(cap != 0))
            return;
        CHECK_EQ(bus_rd(cfg(cap + 2), 1), want[i].len);
        CHECK_EQ(bus_rd(cfg(cap + 3), 1), want[i].type);
        CHECK_EQ(bus_rd(cfg(cap + 4), 1), VIO_PCI_BAR);
        CHECK_EQ(bus_rd(cfg(cap + 8), 4), want[i].off);
        CHECK_EQ(bus_rd(cfg(cap + 12), 4), want[i].bytes);
        if (want[i].type == 2)
            CHECK_EQ(bus_rd(cfg(cap + 16), 4), 4); /* the multiplier: a doorbell for each queue */
    }
    CHECK_EQ(find_cap(cap, 9), 0);
    toy.nqueues = VIO_PCI_QUEUES_MAX + 1;
    CHECK_EQ(vio_pci_init(&card, &(struct vio_pci_desc){.dev = &toy, .mem = &mem}), -E2BIG);
}

static void test_common(void)
{
    plug_toy();
    CHECK_EQ(reg(NUM_QUEUES, 2), NQUEUES);
    CHECK_EQ(reg(CONFIG_VECTOR, 2), NO_VECTOR);
    CHECK_EQ(reg(QUEUE_SIZE, 2), VIO_QUEUE_MAX);
    CHECK_EQ(reg(QUEUE_VECTOR, 2), NO_VECTOR);
    CHECK_EQ(reg(FEATURE, 4), 3u << 28);
    put(FEATURE_SEL, 4, 1);
    CHECK_EQ(reg(FEATURE, 4), 1 | 1 << 2 | 1 << 8);
    put(FEATURE_SEL, 4, 2);
    CHECK_EQ(reg(FEATURE, 4), 0);
    put(ACCEPTED_SEL, 4, 1);
    put(ACCEPTED, 4, 0x105);
    CHECK_EQ(reg(ACCEPTED, 4), 0x105);
    put(ACCEPTED_SEL, 4, 7);
    put(ACCEPTED, 4, 0x105);
    CHECK_EQ(reg(ACCEPTED, 4), 0);
    put(QUEUE_SEL, 2, 1);
    CHECK_EQ(reg(QUEUE_SIZE, 2), 512);
    CHECK_EQ(reg(NOTIFY_OFF, 2), 1);
    put(QUEUE_SEL, 2, NQUEUES); /* 4.1.5.1.3: no such queue */
    CHECK_EQ(reg(QUEUE_SIZE, 2), 0);
    put(QUEUE_ENABLE, 2, 1);
    put(QUEUE_VECTOR, 2, 0);
    put(QUEUE_DESC, 4, 16);
    CHECK_EQ(reg(QUEUE_DESC, 8), 0);
    CHECK_EQ(reg(STATUS, 1), 0);
}

/* Any width, across fields. */
static void test_widths(void)
{
    plug_toy();
    put(QUEUE_SEL, 2, 1);
    put(QUEUE_DESC, 8, 0x123456789abcdef0);
    CHECK_EQ(reg(QUEUE_DESC, 8), 0x123456789abcdef0);
    CHECK_EQ(reg(QUEUE_DESC + 4, 4), 0x12345678);
    CHECK_EQ(reg(QUEUE_DESC + 3, 2), 0x789a);
    put(QUEUE_DESC + 1, 1, 0x55);
    CHECK_EQ(reg(QUEUE_DESC, 4), 0x9abc55f0);
    CHECK_EQ(reg(NUM_QUEUES, 4), NQUEUES);          /* status and generation are 0 */
    CHECK_EQ(reg(QUEUE_SEL, 8), 0xffff02000001ull); /* select, size, vector, enable */
    put(QUEUE_SEL, 8, 65);                          /* which is none */
    put(QUEUE_SEL, 4, 128 << 16 | 1);               /* select, then size */
    CHECK_EQ(reg(QUEUE_SIZE, 2), 128);
    CHECK_EQ(reg(60, 8), 0);
    put(60, 8, ~0ull);
    CHECK_EQ(reg(0x100, 4), 0); /* nothing between the structures */
    put(0x100, 4, ~0u);
    CHECK_EQ(reg(CONFIG, 8), 0x04030201);
    CHECK_EQ(reg(CONFIG + 3, 1), 4);
    put(NOTIFY + 1, 4, 0); /* between two doorbells */
    put(NOTIFY + 4 * NQUEUES, 2, 0);
    CHECK_EQ(runs[0] + runs[1], 0);
}

static void test_queue_reset(void)
{
    plug_toy();
    go(F_ALL | F_RING_RESET);
    one(0);
    put(QUEUE_SEL, 2, 0);
    CHECK_EQ(reg(QUEUE_ENABLE, 2), 1);
    put(QUEUE_ENABLE, 2, 0); /* 4.1.4.3.2: not the way to stop one */
    CHECK_EQ(reg(QUEUE_ENABLE, 2), 1);
    put(QUEUE_RESET, 2, 1);
    CHECK_EQ(reg(QUEUE_ENABLE, 2), 0);
    CHECK_EQ(reg(QUEUE_RESET, 2), 0);
    CHECK_EQ(reg(QUEUE_SIZE, 2), VIO_QUEUE_MAX);
    queue_up(0);
    one(0);
    CHECK_EQ(used_idx(0), 1);
    CHECK_EQ(reg(STATUS, 1), ACK | DRIVER | FEATURES_OK | DRIVER_OK);
}

static bool intx;

static void on_intx(void *ctx, unsigned line, bool level)
{
    (void)ctx, (void)line;
    intx = level;
}

/* 4.1.5.3, 4.1.5.4 without MSI-X: the ISR, and a read takes it back. */
static void test_intx(void)
{
    unsigned msix;

    plug_toy();
    for (unsigned i = 0; i < 4; i++)
        root.desc.intx[i] = (struct vmm_irq){on_intx, NULL, i};
    msix = find_cap(0, 0x11);
    bus_wr(cfg(msix + 2), 2, 0);
    go(F_ALL);
    one(1);
    CHECK(intx);
    CHECK_EQ(reg(ISR, 1), 1);
    CHECK(!intx);
    CHECK_EQ(reg(ISR, 1), 0);
    vio_config_changed(&toy);
    CHECK_EQ(reg(GENERATION, 1), 1);
    one(0);
    CHECK(intx);
    CHECK_EQ(reg(ISR, 4), 3);
    CHECK(!intx);
    one(0);
    go(F_ALL); /* a reset takes it back too */
    CHECK(!intx);
    CHECK_EQ(reg(ISR, 1), 0);
    CHECK_EQ(irqs, 0);
}

static unsigned routed[NQUEUES], routed_config;

static void on_routed(void *ctx, unsigned q)
{
    (void)ctx;
    if (q == VIO_CONFIG)
        routed_config++;
    else if (CHECK(q < NQUEUES))
        routed[q]++;
}

static void test_vectors(void)
{
    uint64_t addr;
    uint32_t data;

    plug_toy();
    card.desc.routed = on_routed;
    go(F_ALL);
    one(1);
    CHECK_EQ(irqs, 1);
    CHECK_EQ(reg(ISR, 1), 0);
    CHECK(vio_pci_message(&card, 1, &addr, &data));
    CHECK(addr == 0xfee00000 && data == 0x42);
    put(QUEUE_SEL, 2, 1);
    put(QUEUE_VECTOR, 2, NQUEUES + 1); /* beyond the table: refused */
    CHECK_EQ(reg(QUEUE_VECTOR, 2), NO_VECTOR);
    CHECK(!vio_pci_message(&card, 1, &addr, &data));
    vmm_put16(avail(1) + 4 + 2 * QLEN, 1);
    one(1);
    CHECK_EQ(irqs, 1); /* nobody to tell */
    routed[0] = routed[1] = routed_config = 0;
    put(QUEUE_VECTOR, 2, 0); /* shared with the configuration */
    CHECK_EQ(routed[1], 1);
    bus_wr(bar + MSIX_TABLE + 12, 4, 1); /* masked */
    CHECK_EQ(routed[1], 2);
    CHECK_EQ(routed_config, 1);
    CHECK_EQ(routed[0], 0);
    CHECK(!vio_pci_message(&card, VIO_CONFIG, &addr, &data));
    vmm_put16(avail(1) + 4 + 2 * QLEN, 2);
    one(1);
    CHECK_EQ(irqs, 1);
    bus_wr(bar + MSIX_TABLE + 12, 4, 0); /* comes when unmasked */
    CHECK_EQ(irqs, 2);
    vio_config_changed(&toy);
    CHECK_EQ(irqs, 3);
    CHECK_EQ(reg(ISR, 1), 2); /* 4.1.5.4: with MSI-X as well */
    put(STATUS, 1, 0);
    CHECK_EQ(reg(CONFIG_VECTOR, 2), NO_VECTOR);
    CHECK_EQ(reg(QUEUE_VECTOR, 2), NO_VECTOR);
}

/* Points the window at bytes of a BAR. */
static unsigned aim(unsigned in_bar, uint32_t off, uint32_t len)
{
    unsigned cap = 0;

    do
        cap = find_cap(cap, 9);
    while (cap && bus_rd(cfg(cap + 3), 1) != 5);
    bus_wr(cfg(cap + 4), 1, in_bar);
    bus_wr(cfg(cap + 8), 4, off);
    bus_wr(cfg(cap + 12), 4, len);
    return cap + 16;
}

/* 4.1.4.9 */
static void test_window(void)
{
    static const struct {
        unsigned in_bar;
        uint32_t off, len;
    } astray[] = {{1, STATUS, 1}, {255, STATUS, 1},    {0, STATUS, 0},
                  {0, STATUS, 3}, {0, STATUS, 8},      {0, STATUS, ~0u},
                  {0, 21, 2},     {0, VIO_PCI_LEN, 1}, {0, 0xfffffffc, 4}};
    unsigned data;

    plug_toy();
    go(F_ALL);
    data = aim(0, STATUS, 1);
    CHECK_EQ(bus_rd(cfg(data), 1), ACK | DRIVER | FEATURES_OK | DRIVER_OK);
    data = aim(0, NUM_QUEUES, 2);
    CHECK_EQ(bus_rd(cfg(data), 4) & 0xffff, NQUEUES);
    data = aim(0, CONFIG, 4);
    CHECK_EQ(bus_rd(cfg(data), 4), 0x04030201);
    CHECK_EQ(bus_rd(cfg(data + 2), 1), 3);
    data = aim(0, NOTIFY + 4, 2);
    bus_wr(cfg(data), 2, 1);
    CHECK_EQ(runs[1], 1);
    for (unsigned i = 0; i < sizeof astray / sizeof astray[0]; i++) {
        data = aim(astray[i].in_bar, astray[i].off, astray[i].len);
        bus_wr(cfg(data), 4, 0);
        bus_rd(cfg(data), 4);
        CHECK_EQ(reg(STATUS, 1), ACK | DRIVER | FEATURES_OK | DRIVER_OK);
    }
    data = aim(0, STATUS, 1);
    bus_wr(cfg(data), 1, 0);
    CHECK_EQ(reg(STATUS, 1), 0);
}

static uint64_t moved_to;

static void on_moved(void *ctx, uint64_t gpa)
{
    (void)ctx;
    moved_to = gpa;
}

static void test_moves(void)
{
    plug_toy();
    card.desc.moved = on_moved;
    bus_wr(cfg(0x10), 4, WINDOW + 0x100000);
    CHECK_EQ(moved_to, WINDOW + 0x100000);
    bar = moved_to;
    go(F_ALL);
    one(1);
    CHECK_EQ(used_idx(1), 1);
    resets = 0;
    pci_reset(&root); /* the machine's */
    CHECK_EQ(moved_to, PCI_NOWHERE);
    CHECK(resets >= 1);
    CHECK_EQ(toy.status, 0);
    CHECK(!toy_queue[1].ready);
}

int main(void)
{
    mode.pci = true;
    test_identity();
    test_common();
    test_widths();
    test_queue_reset();
    test_intx();
    test_vectors();
    test_window();
    test_moves();
    CHECK_DONE("test_virtio_pci");
}
