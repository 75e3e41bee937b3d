/* fuzz_net.c - a hostile driver against the network card of dev_virtio.h   MIT licence, see LICENSE

   Input: byte 0 is how the card is set up (see start), then operations follow. Each is one byte and
   its operands (see step); addresses are small on purpose, so that rings, tables and buffers meet
   and overlap. Aborts when a promise of the header is broken. */
#include <stdlib.h>

#define VIO_QUEUE_MAX     16
#define VIO_CHAIN_MAX     12
#define VIO_BLK_SEGS_MAX  4
#define VIO_NET_PAIRS_MAX 2
#define VIO_NET_BURST     5
#define DEV_VIRTIO_IMPLEMENTATION
#include "../dev_virtio.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { BASE = 0x1000, RAM = 0x2000, QLEN = 8, QSTEP = 0x200, NQ = 5, HOLE = 0x800 };

static struct {
    const uint8_t *p, *end; /* the input */
    uint8_t *low, *high;    /* guest memory: two pieces with a hole between, on the heap for ASan */
    struct vmm_mem mem;
    struct vio_mmio slot;
    unsigned lines, calls, away;
    unsigned npairs, offload;
    uint8_t mood;      /* how the port behaves */
    uint32_t in_len;   /* bytes of the frames for the guest */
    unsigned nin;      /* how many there are */
    unsigned from, to; /* frames that were passed */
} f;
static struct vio_net net;

static void promise(bool kept)
{
    if (!kept)
        abort();
}

static uint8_t byte(void)
{
    return f.p < f.end ? *f.p++ : 0;
}

/* Reads every byte, so that ASan sees a piece that leaves guest memory. */
static int on_send(void *ctx, unsigned pair, const struct vio_iov *iov, unsigned n)
{
    volatile uint8_t sum = 0;
    size_t total = 0;

    promise(!ctx && pair < 2 && n <= 1 + VIO_CHAIN_MAX && ++f.calls < 4096);
    promise(!(f.away >> (2 * pair + 1) & 1));
    for (unsigned i = 0; i < n; total += iov[i++].len)
        for (size_t k = 0; k < iov[i].len; k++)
            sum = (uint8_t)(sum + ((const uint8_t *)iov[i].base)[k]);
    total += net.desc.bare ? VIO_NET_HDR_LEN : 0;
    promise(total >= VIO_NET_HDR_LEN + 14 && total <= VIO_NET_FRAME_MAX);
    f.from++;
    return f.mood & 1 ? -EAGAIN : f.mood & 2 ? -EIO : (int)total;
}

static int on_recv(void *ctx, unsigned pair, const struct vio_iov *iov, unsigned n)
{
    size_t room = 0, left = f.in_len;

    promise(!ctx && pair < f.npairs && n <= VIO_CHAIN_MAX + 1 && ++f.calls < 4096);
    promise(!(f.away >> (2 * pair) & 1));
    for (unsigned i = 0; i < n; i++)
        room += iov[i].len;
    promise(room == VIO_NET_FRAME_MAX - (net.desc.bare ? VIO_NET_HDR_LEN : 0));
    if (!f.nin)
        return f.mood & 4 ? 0 : -EAGAIN;
    f.nin--;
    f.to++;
    for (unsigned i = 0; i < n && left; i++) {
        size_t part = iov[i].len < left ? iov[i].len : left;
        memset(iov[i].base, f.mood, part);
        left -= part;
    }
    return (int)f.in_len;
}

static void on_offload(void *ctx, unsigned offload)
{
    promise(!ctx && offload < 64);
    f.offload = offload;
}

static void on_pairs(void *ctx, unsigned n)
{
    promise(!ctx && n >= 1 && n <= net.desc.pairs);
    f.npairs = n;
}

static bool on_start(void *ctx, unsigned q)
{
    promise(!ctx && q < 2 * net.desc.pairs && !(f.away >> q & 1));
    f.away |= (f.mood & 8 ? 1u : 0) << q;
    return f.mood & 8;
}

static void on_stop(void *ctx, unsigned q)
{
    promise(!ctx && f.away >> q & 1);
    f.away &= ~(1u << q);
}

static void on_irq(void *ctx, unsigned line, bool level)
{
    promise(!ctx && !line && level);
}

VMM_PRINTF(3, 0)
static void on_line(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    (void)args;
    promise(!ctx && level == VMM_LOG_WARN && fmt);
    promise(++f.lines <= 8); /* the budget */
}

static void wr(uint64_t off, uint32_t val)
{
    vio_mmio_write(&f.slot, off, 4, val);
}

/* Guest memory without the hole. */
static uint8_t *ram(unsigned off)
{
    off %= 2 * RAM;
    return off < RAM ? f.low + off : f.high + (off - RAM);
}

/* An address in units of 16 bytes, mostly of guest memory. */
static uint64_t address(void)
{
    return BASE + 16ull * (byte() | (byte() & 7u) << 8);
}

static void set_up(uint64_t features)
{
    features = (features & net.dev.features) | (features & VIO_F_CORE) | VIO_F_VERSION_1;
    wr(0x70, 0);
    wr(0x70, 3);
    for (uint32_t bank = 0; bank < 2; bank++) {
        wr(0x24, bank);
        wr(0x20, (uint32_t)(features >> (32 * bank)));
    }
    wr(0x70, 11);
    for (uint32_t q = 0; q < net.dev.nqueues; q++) {
        wr(0x30, q);
        wr(0x38, QLEN);
        wr(0x80, BASE + q * QSTEP);
        wr(0x90, BASE + q * QSTEP + 0x80);
        wr(0xa0, BASE + q * QSTEP + 0x100);
        wr(0x44, 1);
    }
    wr(0x70, 15);
}

static void put_desc(unsigned q, unsigned i, uint64_t gpa, uint32_t len, unsigned flags,
                     unsigned next)
{
    uint8_t *d = ram(q % NQ * QSTEP + i % QLEN * 16);

    vmm_put64(d, gpa);
    vmm_put32(d + 8, len);
    vmm_put16(d + 12, (uint16_t)flags);
    vmm_put16(d + 14, (uint16_t)next);
}

static void offer(unsigned q, unsigned head)
{
    uint8_t *avail = ram(q % NQ * QSTEP + 0x80);
    uint16_t idx = vmm_get16(avail + 2);

    vmm_put16(avail + 4 + 2 * (idx % QLEN), (uint16_t)head);
    vmm_put16(avail + 2, (uint16_t)(idx + 1));
}

static void guest_writes(void)
{
    unsigned off = byte() * 16u + byte() * 64u, n = byte() & 31;

    for (unsigned i = 0; i < n; i++)
        *ram(off + i) = byte();
}

/* One descriptor; a chain is several of them. */
static void guest_describes(void)
{
    unsigned q = byte(), i = byte(), flags = byte() & 7, next = byte() % QLEN;
    uint64_t gpa = address();
    uint32_t len = byte();

    put_desc(q, i, gpa, flags & 4 ? 16 * len : len * (1u + byte()), flags, next);
}

static void port_happens(void)
{
    unsigned pair = byte() % net.desc.pairs;

    f.in_len = 1 + byte() * 257u;
    if (f.in_len > VIO_NET_FRAME_MAX - VIO_NET_HDR_LEN)
        f.in_len = VIO_NET_FRAME_MAX - VIO_NET_HDR_LEN;
    f.nin = byte() & 15;
    vio_net_ready(&net, pair);
    promise(vio_net_waits(&net, pair) < 4);
}

static void step(void)
{
    unsigned op = byte(), q;

    f.calls = 0;
    switch (op & 15) {
    case 0:
        wr((byte() & 63) * 4, byte() * (op & 16 ? 0x01010101u : 1u));
        break;
    case 1:
    case 2:
        guest_writes();
        break;
    case 3:
    case 4:
        guest_describes();
        break;
    case 5:
    case 6:
        q = byte();
        offer(q, byte() % (op & 16 ? 256 : QLEN));
        break;
    case 7:
    case 8:
        wr(VIO_MMIO_NOTIFY, byte() % (NQ + 1));
        break;
    case 9:
    case 10:
        port_happens();
        break;
    case 11:
        f.mood = byte();
        break;
    case 12:
        vio_net_set_link(&net, byte() & 1);
        vio_net_announce(&net);
        break;
    case 13:
        set_up(op & 16 ? ~0ull : (uint64_t)byte() << 10 | byte());
        break;
    case 14: /* the port gives a queue back */
        q = byte() % (2 * net.desc.pairs);
        f.away &= ~(1u << q);
        vio_net_take_back(&net, q);
        break;
    default:
        wr(0x70, byte() & 1 ? 0 : 15);
    }
}

static void start(uint8_t how)
{
    static const struct vmm_log log = {on_line, NULL, VMM_LOG_DEBUG};
    struct vio_net_desc d = {
        .port = {on_send, on_recv, on_offload, on_pairs, on_start, on_stop, NULL},
        .bare = how & 1,
        .offload = 63,
        .pairs = how & 2 ? 2 : 1,
        .mac = {2, 2, 2, 2, 2, 2},
        .mtu = how & 4 ? 1500 : 0};

    vmm_mem_add(&f.mem, BASE, RAM, f.low);
    vmm_mem_add(&f.mem, BASE + RAM + HOLE, RAM, f.high);
    promise(!vio_net_init(&net, &d));
    f.npairs = 1;
    vio_mmio_init(&f.slot,
                  &(struct vio_mmio_desc){
                      .dev = &net.dev, .mem = &f.mem, .irq = {on_irq, NULL, 0}, .log = &log});
    if (how & 8)
        set_up(~0ull);
}

/* After a reset the card works as new: a frame each way. */
static void end(void)
{
    f.mood = 0;
    f.calls = 0;
    vio_net_set_link(&net, true);
    wr(0x70, 0);
    promise(!f.away);
    memset(f.low, 0, RAM);
    set_up(0);
    put_desc(1, 0, BASE + 0x1000, 100, 0, 0);
    offer(1, 0);
    f.from = f.to = 0;
    wr(VIO_MMIO_NOTIFY, 1);
    promise(f.from == 1 && vmm_get16(ram(QSTEP + 0x102)) == 1);
    put_desc(0, 0, BASE + 0x1000, 100, 2, 0);
    offer(0, 0);
    f.nin = 1;
    f.in_len = 80;
    wr(VIO_MMIO_NOTIFY, 0);
    promise(f.to == 1 && vmm_get16(ram(0x102)) == 1);
    promise(vmm_get32(ram(0x108)) == (net.desc.bare ? 92 : 80));
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
    while (f.p < f.end)
        step();
    end();
    free(f.low);
    free(f.high);
    return 0;
}
