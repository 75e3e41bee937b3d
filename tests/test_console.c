/* test_console.c - several ports, sizes and early output of the console of dev_virtio.h
   MIT licence, see LICENSE

   The driver's half is written out from the specification (2.7 and 5.3); one port's plain data
   path is in test_virtio.c. */
#define DEV_VIRTIO_IMPLEMENTATION
#include "../dev_virtio.h"

#include "check.h"

enum { NPORTS = 3, NQ = 2 + 2 * NPORTS, QLEN = 8, SIZE = 0x30000, DATA = 0x10000 };
enum { SIZED = 1, MULTIPORT = 2 }; /* feature bits */
enum { READY, ADD, PORT_READY = 3, CONSOLE, RESIZE, OPEN, NAME };
enum { TELL = 2, HEAR = 3 }; /* the queues of messages */

static _Alignas(4096) uint8_t ram[SIZE];
static struct vmm_mem mem;
static struct vio_mmio slot;
static struct vio_console con;
static unsigned lines, changes;

/* the host's side */
static uint8_t sent[NPORTS][64];
static size_t nsent[NPORTS], room[NPORTS];
static unsigned rooms[NPORTS];
static const unsigned number[NPORTS] = {0, 1, 2};

static size_t out_write(void *ctx, const void *buf, size_t len)
{
    unsigned port = *(const unsigned *)ctx;
    size_t n = len < room[port] ? len : room[port];

    CHECK(nsent[port] + n <= sizeof sent[port]);
    memcpy(sent[port] + nsent[port], buf, n);
    nsent[port] += n;
    room[port] -= n;
    return n;
}

static void out_room(void *ctx)
{
    rooms[*(const unsigned *)ctx]++;
}

static void on_irq(void *ctx, unsigned line, bool level)
{
    (void)ctx, (void)line, (void)level;
    if (vio_mmio_read(&slot, 0x60, 4) & 2) { /* the configuration changed */
        changes++;
        vio_mmio_write(&slot, 0x64, 4, 2);
    }
}

static void on_line(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    (void)ctx, (void)level, (void)fmt, (void)args;
    lines++;
}

static void wr(uint64_t off, uint32_t val)
{
    vio_mmio_write(&slot, off, 4, val);
}

static uint32_t rd(uint64_t off)
{
    return (uint32_t)vio_mmio_read(&slot, off, 4);
}

/* >>driver */
static uint8_t *area(unsigned q, unsigned off)
{
    return ram + q * 0x1000 + off;
}

static uint8_t *data(unsigned q, unsigned i)
{
    return ram + DATA + q * 0x1000 + (i % QLEN) * 0x100;
}

static unsigned used_idx(unsigned q)
{
    return vmm_get16(area(q, 0x802));
}

static unsigned used_len(unsigned q, unsigned i)
{
    return vmm_get32(area(q, 0x804 + 8 * (i % QLEN) + 4));
}

/* Offers buffer number idx of queue q and rings. */
static void offer(unsigned q, unsigned len, bool writable)
{
    uint16_t idx = vmm_get16(area(q, 0x402));
    uint8_t *d = area(q, 16u * (idx % QLEN));

    vmm_put64(d, (uint64_t)(data(q, idx) - ram));
    vmm_put32(d + 8, len);
    vmm_put16(d + 12, writable ? 2 : 0);
    vmm_put16(area(q, 0x404 + 2u * (idx % QLEN)), idx % QLEN);
    vmm_put16(area(q, 0x402), (uint16_t)(idx + 1));
    wr(VIO_MMIO_NOTIFY, q);
}

static void go(uint32_t features)
{
    memset(ram, 0, sizeof ram);
    wr(0x70, 0);
    wr(0x70, 3);
    wr(0x24, 0);
    wr(0x20, features);
    wr(0x24, 1);
    wr(0x20, 1);
    wr(0x70, 11);
    for (unsigned q = 0; q < slot.desc.dev->nqueues; q++) {
        wr(0x30, q);
        wr(0x38, QLEN);
        wr(0x80, q * 0x1000);
        wr(0x90, q * 0x1000 + 0x400);
        wr(0xa0, q * 0x1000 + 0x800);
        wr(0x44, 1);
    }
    wr(0x70, 15);
    CHECK_EQ(rd(0x70), 15);
}

static void plug(unsigned nports)
{
    static const struct vmm_log log = {on_line, NULL, VMM_LOG_DEBUG};
    const struct vio_console_port ports[NPORTS] = {
        {.name = "alpha", .out = {out_write, out_room, (void *)&number[0]}, .closed = true},
        {.console = true, .out = {out_write, out_room, (void *)&number[1]}},
        {.name = "gamma", .out = {out_write, out_room, (void *)&number[2]}}};

    memset(&mem, 0, sizeof mem);
    memset(nsent, 0, sizeof nsent);
    memset(rooms, 0, sizeof rooms);
    for (unsigned i = 0; i < NPORTS; i++)
        room[i] = sizeof sent[i];
    lines = changes = 0;
    vmm_mem_add(&mem, 0, SIZE, ram);
    CHECK_EQ(vio_console_init(&con, &(struct vio_console_desc){.out = ports[0].out,
                                                               .cols = nports ? 0 : 80,
                                                               .rows = nports ? 0 : 25,
                                                               .ports = ports,
                                                               .nports = nports}),
             0);
    vio_mmio_init(&slot, &(struct vio_mmio_desc){
                             .dev = &con.dev, .mem = &mem, .irq = {on_irq, NULL, 5}, .log = &log});
}

/* The driver says something. */
static void say(uint32_t port, uint16_t event, uint16_t value)
{
    uint8_t *m = data(HEAR, vmm_get16(area(HEAR, 0x402)));

    vmm_put32(m, port);
    vmm_put16(m + 4, event);
    vmm_put16(m + 6, value);
    offer(HEAR, 8, false);
}

/* What the device said in message i: is it this? */
static bool told(unsigned i, uint32_t port, unsigned event, unsigned value, const char *rest)
{
    const uint8_t *m = data(TELL, i);
    size_t len = strlen(rest);

    return i < used_idx(TELL) && vmm_get32(m) == port && vmm_get16(m + 4) == event &&
           vmm_get16(m + 6) == value && used_len(TELL, i) == 8 + len && !memcmp(m + 8, rest, len);
}

static void listen(unsigned n)
{
    while (n--)
        offer(TELL, 64, true);
}

/* Up to the point where all ports are known and nothing is left to be told. */
static void greet(void)
{
    listen(QLEN);
    say(~0u, READY, 1);
    for (unsigned i = 0; i < NPORTS; i++)
        say(i, PORT_READY, 1);
    listen(used_idx(TELL));
}

/* >>tests */
static void test_limits(void)
{
    char name[VIO_CONSOLE_NAME_MAX + 2];
    struct vio_console_port ports[VIO_CONSOLE_PORTS_MAX + 1] = {{.name = name}};
    struct vio_console_desc desc = {.ports = ports, .nports = VIO_CONSOLE_PORTS_MAX};

    memset(name, 'x', sizeof name);
    name[VIO_CONSOLE_NAME_MAX] = 0;
    CHECK_EQ(vio_console_init(&con, &desc), 0);
    CHECK_EQ(con.dev.nqueues, 2 + 2 * VIO_CONSOLE_PORTS_MAX);
    desc.nports++;
    CHECK_EQ(vio_console_init(&con, &desc), -EINVAL);
    desc.nports = 1;
    name[VIO_CONSOLE_NAME_MAX] = 'x';
    name[VIO_CONSOLE_NAME_MAX + 1] = 0;
    CHECK_EQ(vio_console_init(&con, &desc), -EINVAL);
}

/* Each port is announced, and described once its driver has it. */
static void test_greeting(void)
{
    plug(NPORTS);
    CHECK_EQ(rd(0x104), NPORTS); /* max_nr_ports */
    go(MULTIPORT);
    listen(QLEN);
    CHECK_EQ(used_idx(TELL), 0);
    say(~0u, READY, 1);
    CHECK_EQ(used_idx(TELL), 3);
    for (unsigned i = 0; i < NPORTS; i++)
        CHECK(told(i, i, ADD, 0, ""));
    say(0, PORT_READY, 1); /* closed: nothing but its name */
    CHECK_EQ(used_idx(TELL), 4);
    CHECK(told(3, 0, NAME, 1, "alpha"));
    say(1, PORT_READY, 1);
    CHECK_EQ(used_idx(TELL), 6);
    CHECK(told(4, 1, CONSOLE, 1, ""));
    CHECK(told(5, 1, OPEN, 1, ""));
    say(2, PORT_READY, 0); /* the driver failed */
    CHECK_EQ(used_idx(TELL), 6);
    say(2, PORT_READY, 1);
    CHECK(told(6, 2, NAME, 1, "gamma"));
    CHECK(told(7, 2, OPEN, 1, ""));
    CHECK_EQ(used_idx(HEAR), 5);
    CHECK_EQ(changes, 0);
    /* a driver that failed is told nothing; a reset forgets what the driver knew */
    go(MULTIPORT);
    listen(QLEN);
    say(~0u, READY, 0);
    vio_console_open(&con, 0, true);
    CHECK_EQ(used_idx(TELL), 0);
    CHECK_EQ(lines, 0);
}

/* Messages wait for buffers, without a queue: what is out of date by then is not told. */
static void test_no_buffers(void)
{
    plug(NPORTS);
    go(MULTIPORT);
    greet();
    CHECK_EQ(used_idx(TELL), 8);
    for (unsigned i = 0; i < 8; i++) /* fills the queue with closings and openings of port 2 */
        vio_console_open(&con, 2, i & 1);
    CHECK_EQ(used_idx(TELL), 16);
    CHECK(told(8, 2, OPEN, 0, ""));
    CHECK(told(15, 2, OPEN, 1, ""));
    for (unsigned i = 0; i < 1001; i++)
        vio_console_open(&con, 0, !(i & 1)); /* ends open, was closed */
    vio_console_open(&con, 2, false);
    vio_console_open(&con, 2, true); /* another listener: the change is told, not only its end */
    vio_console_open(&con, 1, false);
    for (unsigned i = 0; i < 10; i++)
        vio_console_resize(&con, 1, 100, (uint16_t)i);
    CHECK_EQ(used_idx(TELL), 16);
    listen(8);
    CHECK_EQ(used_idx(TELL), 21);
    CHECK(told(16, 0, OPEN, 1, ""));
    CHECK(vmm_get32(data(TELL, 17)) == 1 && used_len(TELL, 17) == 12);
    CHECK(!memcmp(data(TELL, 17) + 4, "\5\0\0\0d\0\t\0", 8)); /* 100 columns, 9 rows */
    CHECK(told(18, 1, OPEN, 0, ""));
    CHECK(told(19, 2, OPEN, 0, ""));
    CHECK(told(20, 2, OPEN, 1, ""));
}

/* Input waits for somebody in the guest to open the port; output of one port that does not get on
   holds up no other. */
static void test_data(void)
{
    plug(NPORTS);
    go(MULTIPORT);
    greet();
    offer(6, 16, true); /* port 2's input */
    CHECK_EQ(rooms[2], 1);
    CHECK_EQ(vio_console_rx(&con, 2, "early", 5), 0);
    say(2, OPEN, 1);
    CHECK_EQ(rooms[2], 2); /* offer it again */
    CHECK_EQ(vio_console_rx(&con, 2, "early", 5), 5);
    CHECK_EQ(used_len(6, 0), 5);
    CHECK(!memcmp(data(6, 0), "early", 5));
    offer(6, 16, true);
    say(2, OPEN, 0);
    CHECK_EQ(vio_console_rx(&con, 2, "late", 4), 0);
    CHECK_EQ(vio_console_rx(&con, 1, "x", 1), 0);

    room[2] = 3;
    memcpy(data(7, 0), "slow reader", 11);
    offer(7, 11, false);
    CHECK_EQ(used_idx(7), 0);
    memcpy(data(5, 0), "fast", 4);
    offer(5, 4, false);
    CHECK_EQ(used_idx(5), 1);
    memcpy(data(1, 0), "first", 5);
    offer(1, 5, false);
    CHECK_EQ(used_idx(1), 1);
    room[2] = 60;
    vio_console_tx_ready(&con, 2);
    CHECK_EQ(used_idx(7), 1);
    CHECK(nsent[2] == 11 && !memcmp(sent[2], "slow reader", 11));
    CHECK(nsent[1] == 4 && nsent[0] == 5);
}

/* A driver that does not know of ports has the first one as its console. */
static void test_declined(void)
{
    plug(NPORTS);
    go(0);
    listen(1);
    say(~0u, READY, 1);
    CHECK_EQ(used_idx(HEAR), 0);
    offer(0, 16, true);
    CHECK_EQ(vio_console_rx(&con, 0, "keys", 4), 4);
    offer(6, 16, true);
    CHECK_EQ(vio_console_rx(&con, 2, "keys", 4), 0);
    vio_console_open(&con, 0, true);
    CHECK_EQ(used_idx(TELL), 0);
}

static void test_lies(void)
{
    plug(NPORTS);
    go(MULTIPORT);
    greet();
    for (unsigned i = 0; i < 20; i++) { /* ports that are none: ignored, said within the budget */
        say(NPORTS + i, PORT_READY, 1);
        say(0x80000000u - i, OPEN, 1);
    }
    CHECK_EQ(lines, 8);
    for (unsigned event = 0; event < 16; event++) /* what only the device says, and nonsense */
        if (event != READY && event != PORT_READY && event != OPEN)
            say(0, (uint16_t)event, 1);
    CHECK_EQ(used_idx(HEAR), 4 + 40 + 13);
    CHECK_EQ(used_idx(TELL), 8);
    CHECK_EQ(rd(0x70), 15);
    for (unsigned i = 0; i < QLEN; i++)
        vio_console_open(&con, 2, i & 1);
    offer(TELL, 3, true); /* a buffer too short for anything gets what fits */
    vio_console_open(&con, 2, false);
    CHECK_EQ(used_idx(TELL), 17);
    CHECK_EQ(used_len(TELL, 16), 3);
    offer(HEAR, 7, false);
    CHECK(rd(0x70) & 64); /* needs a reset */
    CHECK_EQ(vio_console_rx(&con, 2, "x", 1), 0);
    vio_console_open(&con, 2, true);
    go(MULTIPORT);
    greet();
    CHECK_EQ(used_idx(TELL), 8);
}

/* The size of a terminal of its own: there from the start, and announced once the driver looks. */
static void test_size(void)
{
    plug(0);
    CHECK_EQ(con.dev.nqueues, 2);
    CHECK_EQ(rd(0x100), 25u << 16 | 80);
    CHECK_EQ(rd(0x104), 0);
    go(SIZED);
    CHECK_EQ(changes, 1);
    vio_console_resize(&con, 0, 132, 43);
    CHECK_EQ(changes, 2);
    CHECK_EQ(rd(0x100), 43u << 16 | 132);
    vio_console_resize(&con, 0, 132, 43); /* no change */
    CHECK_EQ(changes, 2);
    wr(0x70, 0);
    vio_console_resize(&con, 0, 80, 25); /* nobody to tell */
    CHECK_EQ(changes, 2);
    go(0); /* a driver without interest is not told at its start */
    CHECK_EQ(changes, 2);
}

static void test_early_output(void)
{
    plug(0);
    for (const char *p = "panic"; *p; p++)
        wr(0x108, (uint8_t)*p | 0xabcd00u); /* emerg_wr; only the low byte counts */
    vio_mmio_write(&slot, 0x108, 1, '!');
    CHECK(nsent[0] == 6 && !memcmp(sent[0], "panic!", 6));
    wr(0x100, 'x'); /* the rest of the configuration is read-only */
    vio_mmio_write(&slot, 0x109, 1, 'x');
    CHECK_EQ(nsent[0], 6);
    CHECK_EQ(rd(0x108), 0);
    vio_console_init(&con, &(struct vio_console_desc){0});
    wr(0x108, 'x'); /* to nobody */
}

int main(void)
{
    test_limits();
    test_greeting();
    test_no_buffers();
    test_data();
    test_declined();
    test_lies();
    test_size();
    test_early_output();
    CHECK_DONE("test_console");
}
