/* fuzz_virtio.c - a hostile driver against every device of dev_virtio.h   MIT licence, see LICENSE

   Input: byte 0 chooses the device and how it is set up (see start), then operations follow.
   Each is one byte and its operands (see step); values are small on purpose, so that rings, tables
   and buffers meet and overlap. Aborts when a promise of the header is broken.
   Here over virtio-mmio with split rings; fuzz_packed.c and fuzz_virtio_pci.c include this file for
   packed rings and for virtio-pci. */
#include <stdlib.h>

#define VIO_QUEUE_MAX    32
#define VIO_CHAIN_MAX    32
#define VIO_BLK_SEGS_MAX 6
#define VIO_BLK_INFLIGHT 3
#define VIO_RNG_MAX      512
#ifndef FUZZ_PACKED
#define FUZZ_PACKED false
#endif
#ifndef FUZZ_PCI
#define FUZZ_PCI false
#endif
#define DEV_PCI_IMPLEMENTATION
#include "../dev_pci.h"
#define DEV_VIRTIO_IMPLEMENTATION
#include "../dev_virtio.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { BASE = 0x1000, RAM = 0x1000, CAPACITY = 512 * 8, HOLE = 0x1800, QUEUES = 16, RING = 8 };

static struct {
    const uint8_t *p, *end; /* the input */
    uint8_t *low, *high;    /* guest memory: two halves with a hole between, on the heap for ASan */
    struct vmm_mem mem;
    struct vio_dev *dev; /* the one that is plugged in */
    struct vio_mmio slot;
    struct pci_root root;
    struct vio_pci card;
    struct {
        unsigned at;
        bool wrap;
    } pos[QUEUES]; /* packed rings: where the driver is */
    struct vio_rng rng;
    struct vio_console con;
    struct vio_blk blk;
    struct vio_blk_req *pending[VIO_BLK_INFLIGHT];
    unsigned npending, lines, served, rung;
    uint8_t how, mood; /* what start did; how the host behaves */
} f;

static void promise(bool kept)
{
    if (!kept)
        abort();
}

static uint8_t byte(void)
{
    return f.p < f.end ? *f.p++ : 0;
}

/* Touches every byte, so that ASan sees a piece that leaves guest memory. */
static size_t touch(void *ctx, void *buf, size_t len)
{
    size_t n = f.mood & 1 ? len / 2 : len;

    promise(++f.served <= 4096 && !ctx);
    memset(buf, f.mood, n);
    return n;
}

static size_t listen(void *ctx, const void *buf, size_t len)
{
    size_t n = f.mood & 1 ? len / 2 : len;
    volatile uint8_t sum = 0;

    promise(!ctx);
    for (size_t i = 0; i < n; i++)
        sum = (uint8_t)(sum + ((const uint8_t *)buf)[i]);
    return n;
}

static void room(void *ctx)
{
    promise(!ctx);
    if (f.mood & 2)
        promise(vio_console_rx(&f.con, 0, "input", 5) <= 5);
}

/* The device is a console with several ports. */
static bool ports(void)
{
    return f.dev == &f.con.dev && f.con.dev.nqueues > 2;
}

static void finish(unsigned i, int err)
{
    struct vio_blk_req *r = f.pending[i];
    bool erases = r->op == VIO_BLK_DISCARD || r->op == VIO_BLK_ZERO;
    uint64_t sum = erases ? r->len : 0;

    for (unsigned k = 0; k < r->niov; k++) {
        sum += r->iov[k].len;
        if (r->op == VIO_BLK_READ)
            memset(r->iov[k].base, 0x77, r->iov[k].len);
        else
            listen(NULL, r->iov[k].base, r->iov[k].len);
    }
    promise(sum == r->len);
    f.pending[i] = f.pending[--f.npending];
    vio_blk_done(&f.blk, r, err);
}

static void submit(void *ctx, struct vio_blk_req *r)
{
    promise(!ctx && f.npending < VIO_BLK_INFLIGHT && r->niov <= VIO_BLK_SEGS_MAX);
    promise(r->off % 512 == 0 && r->len % 512 == 0 && r->off + r->len <= CAPACITY);
    f.pending[f.npending++] = r;
    if (f.mood & 2)
        finish(f.npending - 1, f.mood & 4 ? -EIO : 0);
}

static bool hold(void *ctx)
{
    promise(!ctx);
    return f.mood & 8;
}

/* The I/O thread: comes when it comes, often after the guest has gone on. */
static void kick(void *ctx, unsigned q)
{
    promise(!ctx && q < f.dev->nqueues);
    f.rung |= 1u << q;
}

static void io_thread(void)
{
    for (unsigned q = 0; f.rung; q++, f.rung >>= 1)
        if (f.rung & 1)
            vio_queue_run(f.dev, q);
}

static void line(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    (void)ctx, (void)level, (void)fmt, (void)args;
    promise(++f.lines <= 8);
}

static uint8_t *ram(unsigned off)
{
    off %= 2 * RAM;
    return off < RAM ? f.low + off : f.high + (off - RAM);
}

/* A guest address on a grid: in the lower half, the last few around the start of the upper. */
static uint32_t gpa(unsigned at)
{
    return at < 240 ? BASE + 16 * at : BASE + RAM + HOLE - 32 + 16 * (at - 240);
}

static void poke(unsigned off, unsigned n)
{
    while (n--)
        *ram(off++) = byte();
}

/* Where a register of virtio-mmio is in virtio-pci: offset in the BAR and width. */
static unsigned pci_reg(unsigned off, unsigned *len)
{
    static const struct {
        uint8_t mmio, pci, len;
    } t[] = {{0x20, 12, 4}, {0x24, 8, 4},  {0x30, 22, 2}, {0x38, 24, 2},
             {0x44, 28, 2}, {0x70, 20, 1}, {0x80, 32, 4}, {0x84, 36, 4},
             {0x90, 40, 4}, {0x94, 44, 4}, {0xa0, 48, 4}, {0xa4, 52, 4}};

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++)
        if (t[i].mmio == off) {
            *len = t[i].len;
            return t[i].pci;
        }
    *len = 4;
    return VIO_PCI_LEN - 4; /* where nothing is */
}

/* Registers by their offsets in virtio-mmio; the card itself is asked, wherever its BAR is. */
static void wr(unsigned off, uint32_t val)
{
    unsigned len;

    if (!FUZZ_PCI) {
        vio_mmio_write(&f.slot, off, 4, val);
        return;
    }
    off = pci_reg(off, &len);
    vio__pci_write(&f.card, off, len, val);
}

static uint64_t status(void)
{
    return FUZZ_PCI ? vio__pci_read(&f.card, 20, 1) : vio_mmio_read(&f.slot, 0x70, 4);
}

static void ring(unsigned q)
{
    if (FUZZ_PCI)
        vio__pci_write(&f.card, VIO_PCI_NOTIFY(q), 2, q);
    else
        wr(VIO_MMIO_NOTIFY, q);
}

/* Any register, any width; on PCI also any of configuration space, and through the BAR. */
static void look(unsigned where, unsigned len, bool write, uint8_t val)
{
    static const uint16_t page[] = {0, 0x1000, 0x2000, 0x3000, 0x4000};

    if (!FUZZ_PCI && write)
        vio_mmio_write(&f.slot, where, len, val);
    else if (!FUZZ_PCI)
        vio_mmio_read(&f.slot, where, len);
    else if (where & 0x100 && write)
        pci_ecam_write(&f.root, (1 << 15) + (where & 0xff), len, val);
    else if (where & 0x100)
        pci_ecam_read(&f.root, (1 << 15) + (where & 0xff), len);
    else if (write)
        pci_window_write(&f.root.window[0], page[where >> 5 & 3] + 2 * (where & 31), len, val);
    else
        pci_window_read(&f.root.window[0], page[where % 5] + 2 * (where & 31), len);
}

/* What an honest driver does first: all rings of 8 in the first half, one after the other. */
static void set_up(bool event_idx)
{
    wr(0x70, 3);
    wr(0x24, 0);
    wr(0x20, (event_idx ? 0x30000000 : 0x10000000) | (ports() ? 3 : 0) |
                 (f.dev == &f.blk.dev ? (uint32_t)f.blk.dev.features : 0));
    wr(0x24, 1);
    wr(0x20, FUZZ_PACKED ? 0x105 : 0x101);
    wr(0x70, 11);
    for (unsigned q = 0; q < f.dev->nqueues; q++) {
        wr(0x30, q);
        wr(0x38, 8);
        wr(0x80, BASE + 0x200 * q);
        wr(0x90, BASE + 0x200 * q + 0x80);
        wr(0xa0, BASE + 0x200 * q + 0x100);
        if (FUZZ_PCI)
            vio__pci_write(&f.card, 26, 2, q);
        wr(0x44, 1);
        f.pos[q].at = 0;
        f.pos[q].wrap = true;
    }
    wr(0x70, 15);
}

/* One descriptor of the rings that set_up made, near the truth. */
static void describe(void)
{
    static const uint32_t lens[] = {0, 1, 15, 16, 17, 31, 32, 48, 64, 511, 512, 513, 1024, 1025};
    unsigned where = byte(), addr = byte(), n = byte(), link = byte();
    unsigned table = ports()      ? 0x200 * (where >> 3 & 7)
                     : where & 8  ? 0x200
                     : where & 16 ? 0x400
                                  : 0;
    uint8_t *p = ram(table + 16 * (where & 7));

    vmm_put64(p, gpa(addr));
    vmm_put32(p + 8, lens[n % (sizeof lens / sizeof lens[0])]);
    vmm_put16(p + 12, FUZZ_PACKED ? link >> 3 & 15 : link & 7);
    vmm_put16(p + 14, FUZZ_PACKED ? link & 0x87 : link >> 3 & 15);
}

/* In a packed ring what is offered are the next entries, most with the right flags. */
static void packed_offer(unsigned q, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint8_t *flags = ram(0x200 * q + 16 * f.pos[q].at + 14), how = byte();
        uint16_t want = f.pos[q].wrap ? 0x80 : 0x8000;
        vmm_put16(flags, (vmm_get16(flags) & 7) | (how & 0xc0 ? want : how << 10));
        if (++f.pos[q].at < RING)
            continue;
        f.pos[q].at = 0;
        f.pos[q].wrap = !f.pos[q].wrap;
    }
    ring(q);
}

/* The driver offers n more chains on queue q and rings. */
static void offer(unsigned q, unsigned n)
{
    uint8_t *avail = ram(0x200 * q + 0x80);
    uint16_t idx = vmm_get16(avail + 2);

    if (FUZZ_PACKED) {
        packed_offer(q, n);
        return;
    }
    for (unsigned i = 0; i < n; i++)
        vmm_put16(avail + 4 + 2 * (idx++ % 8), byte() & 15);
    vmm_put16(avail + 2, idx);
    ring(q);
}

/* What happens to a console: input; with ports also listeners, sizes, and messages. */
static void console_step(unsigned how)
{
    unsigned port = ports() ? how % 3 : 0, what = ports() ? byte() : 0;
    uint8_t *m;

    switch (what & 3) {
    case 0:
        promise(vio_console_rx(&f.con, port, "some input from the host", 24) <= 24);
        break;
    case 1:
        vio_console_open(&f.con, port, what & 4);
        break;
    case 2:
        vio_console_resize(&f.con, port, (uint16_t)what, byte());
        break;
    default: /* where a buffer may be */
        m = ram(16 * byte());
        vmm_put32(m, what & 128 ? ~0u : how & 3);
        vmm_put16(m + 4, what >> 2 & 7);
        vmm_put16(m + 6, what >> 5 & 1);
    }
}

static void step(void)
{
    uint8_t op = byte();
    unsigned a, b;

    switch (op & 15) {
    case 0: /* any register, any width */
        a = byte() | (op & 16 ? 0x100 : 0);
        b = 1u << (op >> 5 & 3);
        look(a, b, true, byte());
        break;
    case 1:
        a = byte() | (op & 16 ? 0x100 : 0);
        look(a, 1u << (op >> 5 & 3), false, 0);
        break;
    case 2: /* addresses and sizes */
        wr(0x80 + 4 * (op >> 4), gpa(byte()));
        break;
    case 3:
        wr(0x70, byte());
        status();
        break;
    case 4:
        a = byte();
        poke(a << 5 | op >> 4, 8);
        break;
    case 5:
    case 6:
    case 7:
        describe();
        break;
    case 8:
    case 9:
    case 10:
        offer((op >> 4 & 1) + (ports() ? f.mood >> 4 & 6 : 0), op >> 5);
        break;
    case 11:
        f.mood = byte();
        if (!(f.mood & 8))
            vio_blk_resume(&f.blk);
        vio_blk_set_capacity(&f.blk, f.mood & 64 ? CAPACITY / 2 : CAPACITY);
        for (unsigned i = 0; i < f.con.nports; i++)
            vio_console_tx_ready(&f.con, i);
        io_thread();
        break;
    case 12:
        console_step(op >> 4);
        break;
    case 13:
        if (f.npending)
            finish((op >> 4) % f.npending, 0);
        break;
    case 14: /* a disk request's header */
        a = byte();
        b = byte();
        vmm_put64(ram(16 * a), (op >> 4) & 15);
        vmm_put64(ram(16 * a + 8), b);
        break;
    default:
        wr(0x70, 0);
        set_up(op & 16);
    }
}

static void send(void *ctx, unsigned vector, uint64_t addr, uint32_t data)
{
    (void)addr, (void)data;
    promise(!ctx && vector <= f.dev->nqueues);
}

static void routed(void *ctx, unsigned q)
{
    uint64_t addr;
    uint32_t data;

    promise(!ctx && (q == VIO_CONFIG || q < f.dev->nqueues));
    vio_pci_message(&f.card, q, &addr, &data);
}

/* The card is device 1, its BAR at the start of the window. */
static void plug(void (*on_kick)(void *ctx, unsigned q), const struct vmm_log *log)
{
    struct pci_root_desc root = {.ecam = 0xe0000000, .mmio32 = {0xc0000000, 0x100000}};
    struct vio_pci_desc card = {.dev = f.dev,
                                .mem = &f.mem,
                                .slot = 1,
                                .msi = {.send = send},
                                .kick = on_kick,
                                .routed = routed,
                                .log = log};

    if (!FUZZ_PCI) {
        vio_mmio_init(&f.slot, &(struct vio_mmio_desc){
                                   .dev = f.dev, .mem = &f.mem, .kick = on_kick, .log = log});
        return;
    }
    pci_root_init(&f.root, &root);
    promise(!vio_pci_init(&f.card, &card) && !pci_plug(&f.root, &f.card.pci));
    pci_ecam_write(&f.root, (1 << 15) + 4, 2, 6);
}

static void start(uint8_t how)
{
    static const struct vmm_log log = {line, NULL, VMM_LOG_DEBUG};
    struct vio_console_port port[3];
    struct vio_dev *devs[] = {&f.rng.dev, &f.con.dev, &f.blk.dev, &f.blk.dev};

    vmm_mem_add(&f.mem, BASE, RAM, f.low);
    vmm_mem_add(&f.mem, BASE + RAM + HOLE, RAM, f.high);
    vio_rng_init(&f.rng, &(struct vio_rng_desc){.fill = touch});
    for (unsigned i = 0; i < 3; i++)
        port[i] = (struct vio_console_port){
            .out = {listen, room, NULL}, .name = i ? "name" : NULL, .console = i & 1};
    vio_console_init(&f.con, &(struct vio_console_desc){.out = {listen, room, NULL},
                                                        .ports = port,
                                                        .nports = how & 64 ? 3 : 0});
    vio_blk_init(&f.blk, &(struct vio_blk_desc){.capacity = CAPACITY,
                                                .read_only = how & 16,
                                                .serial = "fuzz",
                                                .queues = how & 32 ? 3 : 1,
                                                .submit = submit,
                                                .hold = hold});
    f.how = how;
    f.dev = devs[how & 3];
    plug(how & 32 ? kick : NULL, &log);
    if (how & 4)
        set_up(how & 8);
}

/* When all requests are back, a reset is complete at once and the device works as new. */
static void end(void)
{
    f.mood = 0;
    wr(0x70, 0);
    while (f.npending)
        finish(0, -EIO);
    f.rung = 0;
    promise(status() == 0);
    memset(f.low, 0, RAM);
    set_up(true);
    promise(status() == 15);
    vmm_put64(ram(0), BASE + 0x800); /* one writable buffer, as a header-less disk request too */
    vmm_put32(ram(8), 1);
    vmm_put16(ram(FUZZ_PACKED ? 14 : 12), FUZZ_PACKED ? 0x82 : 2);
    if (FUZZ_PACKED)
        ring(0);
    else
        offer(0, 1);
    io_thread();
    if (ports()) { /* somebody in the guest opens port 0 */
        vmm_put64(ram(0x600), BASE + RAM + HOLE);
        vmm_put32(ram(0x608), 8);
        vmm_put64(ram(RAM), 0x1000600000000);
        vmm_put16(ram(0x60e), FUZZ_PACKED ? 0x80 : 0);
        if (FUZZ_PACKED)
            ring(3);
        else
            offer(3, 1);
        io_thread();
    }
    vio_console_rx(&f.con, 0, "x", 1);
    promise(FUZZ_PACKED ? (vmm_get16(ram(14)) & 0x8080) == 0x8080 : vmm_get16(ram(0x102)) == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    memset(&f, 0, sizeof f);
    f.p = data;
    f.end = data + len;
    f.low = aligned_alloc(16, RAM);
    f.high = aligned_alloc(16, RAM);
    promise(f.low && f.high);
    memset(f.low, 0, RAM);
    memset(f.high, 0, RAM);
    start(byte());
    while (f.p < f.end) {
        f.served = 0;
        step();
    }
    end();
    free(f.low);
    free(f.high);
    return 0;
}
