/* test_net.c - a mock driver and a scripted port against the network card of dev_virtio.h
                                                            MIT licence, see LICENSE */
#define VIO_NET_PAIRS_MAX 3
#define DEV_VIRTIO_IMPLEMENTATION
#include "../dev_virtio.h"

#include "check.h"

#include <stdlib.h>

enum { BASE = 0x100000, SIZE = 0x400000, QLEN = 64, CTRL = 2 };
enum { DESC = 0x0000, AVAIL = 0x4000, USED = 0x8000, QSTEP = 0x10000, DATA = 0x80000 };
enum { NEXT = 1, WRITE = 2 };
#define F(bit)     (1ULL << (bit))
#define F_EVENT    F(29)
#define F_VERSION  F(32)
#define F_MRG      F(15)
#define F_CTRL     (F(17) | F(18) | F(21) | F(23))
#define F_OFFLOADS (F(0) | F(1) | F(2) | F(7) | F(8) | F(9) | F(11) | F(12) | F(13))
#define F_USO      (F(54) | F(55) | F(56))

static _Alignas(4096) uint8_t ram[SIZE];
static struct vmm_mem mem;
static struct vio_mmio slot;
static struct vio_net net;
static unsigned irqs, lines;
static uint16_t avail_idx[7];

/* The port: what it was told, what it will say. */
static struct {
    uint8_t sent[VIO_NET_FRAME_MAX]; /* the last frame from the guest */
    size_t sent_len;
    unsigned nsent, sent_pair, blocked;
    const uint8_t *in; /* the next frames for the guest, each of in_len bytes */
    size_t in_len;
    unsigned nin, nrecv;
    unsigned offload, npairs, started, stopped;
} port;
static bool refuses; /* to serve queues */

static int on_send(void *ctx, unsigned pair, const struct vio_iov *iov, unsigned n)
{
    CHECK(ctx == &port);
    if (port.blocked) {
        port.blocked--;
        return -EAGAIN;
    }
    port.nsent++;
    port.sent_pair = pair;
    port.sent_len = 0;
    for (unsigned i = 0; i < n; i++) {
        memcpy(port.sent + port.sent_len, iov[i].base, iov[i].len);
        port.sent_len += iov[i].len;
    }
    return 0;
}

static int on_recv(void *ctx, unsigned pair, const struct vio_iov *iov, unsigned n)
{
    size_t done = 0, room = 0;

    CHECK(ctx == &port && pair < 3);
    port.nrecv++;
    for (unsigned i = 0; i < n; i++)
        room += iov[i].len;
    CHECK_EQ(room, VIO_NET_FRAME_MAX - (net.desc.bare ? 12 : 0));
    if (!port.nin)
        return -EAGAIN;
    port.nin--;
    for (unsigned i = 0; i < n && done < port.in_len; i++) {
        size_t part = iov[i].len < port.in_len - done ? iov[i].len : port.in_len - done;
        memcpy(iov[i].base, port.in + done, part);
        done += part;
    }
    return (int)port.in_len;
}

static void on_offload(void *ctx, unsigned offload)
{
    CHECK(ctx == &port);
    port.offload = offload;
}

static void on_pairs(void *ctx, unsigned n)
{
    CHECK(ctx == &port);
    port.npairs = n;
}

static bool on_start(void *ctx, unsigned q)
{
    CHECK(ctx == &port);
    port.started |= 1u << q;
    return !refuses;
}

static void on_stop(void *ctx, unsigned q)
{
    CHECK(ctx == &port);
    port.stopped |= 1u << q;
}

static void on_irq(void *ctx, unsigned line, bool level)
{
    (void)ctx;
    CHECK(level && line == 5);
    irqs++;
}

static void on_line(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    char text[256];

    (void)ctx;
    CHECK_EQ(level, VMM_LOG_WARN);
    CHECK(vsnprintf(text, sizeof text, fmt, args) < (int)sizeof text);
    lines++;
}

static const struct vmm_log the_log = {on_line, NULL, VMM_LOG_DEBUG};

static uint32_t rd(uint64_t off)
{
    return (uint32_t)vio_mmio_read(&slot, off, 4);
}

static void wr(uint64_t off, uint32_t val)
{
    vio_mmio_write(&slot, off, 4, val);
}

static uint8_t *at(uint64_t gpa)
{
    return ram + (gpa - BASE);
}

static struct vio_net_desc usual(void)
{
    struct vio_net_desc d = {.port = {on_send, on_recv, on_offload, on_pairs, NULL, NULL, &port},
                             .offload = 63,
                             .mac = {0x52, 1, 2, 3, 4, 5},
                             .mtu = 1500};
    return d;
}

/* A fresh machine, with this card set up with these features (VERSION_1 comes on top). */
static void plug(const struct vio_net_desc *d, uint64_t features)
{
    memset(ram, 0, sizeof ram);
    memset(&mem, 0, sizeof mem);
    memset(&port, 0, sizeof port);
    memset(avail_idx, 0, sizeof avail_idx);
    irqs = lines = 0;
    CHECK_EQ(vio_net_init(&net, d), 0);
    vmm_mem_add(&mem, BASE, SIZE, ram);
    vio_mmio_init(&slot,
                  &(struct vio_mmio_desc){
                      .dev = &net.dev, .mem = &mem, .irq = {on_irq, NULL, 5}, .log = &the_log});
    wr(0x70, 3);
    for (uint32_t bank = 0; bank < 2; bank++) {
        wr(0x24, bank);
        wr(0x20, (uint32_t)((features | F_VERSION) >> (32 * bank)));
    }
    wr(0x70, 11);
    CHECK_EQ(rd(0x70), 11);
    for (unsigned q = 0; q < net.dev.nqueues; q++) {
        uint32_t base = BASE + q * QSTEP;
        wr(0x30, q);
        wr(0x38, QLEN);
        wr(0x80, base + DESC);
        wr(0x90, base + AVAIL);
        wr(0xa0, base + USED);
        wr(0x44, 1);
    }
    wr(0x70, 15);
    irqs = 0;
}

static void desc(unsigned q, unsigned i, uint64_t addr, uint32_t len, unsigned flags, unsigned next)
{
    uint8_t *p = at(BASE + (uint64_t)q * QSTEP + DESC) + 16 * i;

    vmm_put64(p, addr);
    vmm_put32(p + 8, len);
    vmm_put16(p + 12, (uint16_t)flags);
    vmm_put16(p + 14, (uint16_t)next);
}

static void offer(unsigned q, unsigned head)
{
    uint8_t *avail = at(BASE + (uint64_t)q * QSTEP + AVAIL);

    vmm_put16(avail + 4 + 2 * (avail_idx[q] % QLEN), (uint16_t)head);
    vmm_put16(avail + 2, ++avail_idx[q]);
}

static void ring(unsigned q)
{
    wr(VIO_MMIO_NOTIFY, q);
}

static unsigned used_idx(unsigned q)
{
    return vmm_get16(at(BASE + (uint64_t)q * QSTEP + USED) + 2);
}

static unsigned used_len(unsigned q, unsigned i)
{
    return vmm_get32(at(BASE + (uint64_t)q * QSTEP + USED) + 4 + 8 * (i % QLEN) + 4);
}

/* Receive buffers [first, first + n) of `len` bytes each, 4 KiB apart. */
static void refill(unsigned q, unsigned first, unsigned n, uint32_t len)
{
    for (unsigned i = first; i < first + n; i++) {
        desc(q, i % QLEN, BASE + DATA + 0x1000ULL * (i % QLEN), len, WRITE, 0);
        offer(q, i % QLEN);
    }
}

static uint8_t *rx_buf(unsigned i)
{
    return at(BASE + DATA + 0x1000ULL * (i % QLEN));
}

/* A frame of len bytes, header included, for address 52:01:02:03:04:05 unless told otherwise. */
static uint8_t frame[VIO_NET_FRAME_MAX];

static void make_frame(size_t len, uint8_t dst0)
{
    static const uint8_t mac[] = {0x52, 1, 2, 3, 4, 5};

    for (size_t i = 0; i < sizeof frame; i++)
        frame[i] = (uint8_t)(i * 7 + (i >> 8));
    memset(frame, 0, 12);
    memcpy(frame + 12, mac, 6);
    frame[12] = dst0;
    port.in = frame;
    port.in_len = len;
    port.nin = 1;
}

/* What `n` buffers of blen bytes hold is the frame; the count in the header is not compared. */
static bool got_frame(unsigned first, unsigned n, uint32_t blen, size_t len)
{
    size_t done = 0;

    for (unsigned i = 0; i < n && done < len; i++) {
        size_t part = blen < len - done ? blen : len - done, skip = i ? 0 : 12;
        if (memcmp(rx_buf(first + i) + skip, frame + done + skip, part - skip))
            return false;
        done += part;
    }
    return done == len;
}

static void test_init(void)
{
    struct vio_net_desc d = usual();

    d.port.send = NULL;
    CHECK_EQ(vio_net_init(&net, &d), -EINVAL);
    d = usual();
    d.port.recv = NULL;
    CHECK_EQ(vio_net_init(&net, &d), -EINVAL);
    d = usual();
    d.pairs = 4;
    CHECK_EQ(vio_net_init(&net, &d), -EINVAL);
    d = usual();
    d.mac[0] = 0x53;
    CHECK_EQ(vio_net_init(&net, &d), -EINVAL);
    d = usual();
    d.mtu = 67;
    CHECK_EQ(vio_net_init(&net, &d), -EINVAL);
}

static void test_features(void)
{
    struct vio_net_desc d = usual();

    CHECK_EQ(vio_net_init(&net, &d), 0);
    CHECK_EQ(net.dev.features, F_OFFLOADS | F_USO | F_MRG | F_CTRL | F(3) | F(5) | F(16));
    d.bare = true;
    d.mtu = 0;
    d.pairs = 3;
    CHECK_EQ(vio_net_init(&net, &d), 0);
    CHECK_EQ(net.dev.features, F_MRG | F_CTRL | F(5) | F(16) | F(22));
    d = usual();
    d.offload = VIO_NET_CSUM;
    d.features_off = F_MRG | F_EVENT;
    CHECK_EQ(vio_net_init(&net, &d), 0);
    CHECK_EQ(net.dev.features, F(0) | F(1) | F(2) | F_CTRL | F(3) | F(5) | F(16));
    CHECK_EQ(net.dev.features_off, F_EVENT);
    d = usual();
    d.pairs = 3;
    plug(&d, 0);
    CHECK_EQ(rd(0x100), 0x03020152); /* MAC, link up, pairs, MTU */
    CHECK_EQ(rd(0x104), 0x00010504);
    CHECK_EQ(rd(0x108), 1500u << 16 | 3);
    wr(0x100, 0); /* 5.1.4.2: read-only */
    CHECK_EQ(rd(0x100), 0x03020152);
    CHECK_EQ(port.offload, 0);
    plug(&d, F(1) | F(7) | F_USO);
    CHECK_EQ(port.offload, VIO_NET_CSUM | VIO_NET_TSO4 | VIO_NET_USO4 | VIO_NET_USO6);
    CHECK_EQ(port.npairs, 1);
}

/* Sends len bytes at DATA through queue q, in two buffers. */
static void transmit(unsigned q, uint32_t len)
{
    uint32_t first = len < 20 ? len / 2 : 20;

    desc(q, 0, BASE + DATA, first, NEXT, 1);
    desc(q, 1, BASE + DATA + first, len - first, 0, 0);
    offer(q, 0);
    ring(q);
}

static void test_tx(void)
{
    static const struct {
        uint64_t features;
        uint8_t hdr[12]; /* flags, type, hdr_len, gso_size, csum_start, csum_offset, num_buffers */
        uint32_t len;    /* header and frame */
        bool passes;
        uint8_t out[12]; /* the header that the port gets, if it passes */
    } t[] = {
        {0, {0}, 12 + 60, true, {0}},
        {0, {0}, 12 + 14, true, {0}},
        {0, {0}, 12 + 13, false, {0}},
        {0, {0}, 12, false, {0}},
        {0, {0}, 11, false, {0}},
        {0, {0}, VIO_NET_FRAME_MAX, true, {0}},
        {0, {0}, VIO_NET_FRAME_MAX + 1, false, {0}},
        /* unknown flags, junk in unused fields, a hint that is too long */
        {0, {0xfe, 0, 1, 1, 9, 9, 9, 9, 9, 9, 9, 9}, 72, true, {0, 0, 60, 0, 0, 0, 9, 9, 9, 9}},
        {0, {1, 0, 0, 0, 0, 0, 34, 0, 16}, 12 + 60, false, {0}}, /* checksum not negotiated */
        {F(0), {1, 0, 0, 0, 0, 0, 34, 0, 16}, 72, true, {1, 0, 0, 0, 0, 0, 34, 0, 16}},
        {F(0), {1, 0, 0, 0, 0, 0, 42, 0, 16}, 72, true, {1, 0, 0, 0, 0, 0, 42, 0, 16}},
        {F(0), {1, 0, 0, 0, 0, 0, 43, 0, 16}, 72, false, {0}}, /* beyond the frame */
        {F(0), {1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, 72, false, {0}},
        {F(0), {1, 1, 54, 0, 100, 0, 34, 0, 16}, 900, false, {0}}, /* no TSO4 */
        {F(0) | F(11),
         {1, 1, 54, 0, 100, 0, 34, 0, 16},
         900,
         true,
         {1, 1, 54, 0, 100, 0, 34, 0, 16}},
        {F(0) | F(11), {0, 1, 54, 0, 100, 0, 34, 0, 16}, 900, false, {0}}, /* no checksum */
        {F(0) | F(11), {1, 1, 54, 0, 0, 0, 34, 0, 16}, 900, false, {0}},   /* no size */
        {F(0) | F(11), {1, 0x81, 54, 0, 100, 0, 34, 0, 16}, 900, false, {0}},
        {F(0) | F(11) | F(13),
         {1, 0x81, 54, 0, 100, 0, 34, 0, 16},
         900,
         true,
         {1, 0x81, 54, 0, 100, 0, 34, 0, 16}},
        {F(0) | F(11), {1, 4, 54, 0, 100, 0, 34, 0, 16}, 900, false, {0}},
        {F(0) | F(12),
         {1, 4, 74, 0, 100, 0, 54, 0, 16},
         900,
         true,
         {1, 4, 74, 0, 100, 0, 54, 0, 16}},
        {F(0) | F(56), {1, 5, 42, 0, 100, 0, 34, 0, 6}, 900, true, {1, 5, 42, 0, 100, 0, 34, 0, 6}},
        {F(0) | F(11), {1, 5, 42, 0, 100, 0, 34, 0, 6}, 900, false, {0}},
        {F_OFFLOADS | F_USO, {1, 3, 42, 0, 100, 0, 34, 0, 6}, 900, false, {0}}, /* UFO */
        {F_OFFLOADS | F_USO, {1, 2, 42, 0, 100, 0, 34, 0, 6}, 900, false, {0}},
    };
    struct vio_net_desc d = usual();

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        plug(&d, t[i].features);
        memset(at(BASE + DATA), 0x5a, t[i].len);
        memcpy(at(BASE + DATA), t[i].hdr, 12);
        transmit(1, t[i].len);
        CHECK_EQ(used_idx(1), 1);
        CHECK_EQ(used_len(1, 0), 0);
        CHECK_EQ(lines, !t[i].passes);
        if (!CHECK_EQ(port.nsent, t[i].passes) ||
            (t[i].passes &&
             (!CHECK_EQ(port.sent_len, t[i].len) || !CHECK(!memcmp(port.sent, t[i].out, 12)) ||
              !CHECK(!memcmp(port.sent + 12, at(BASE + DATA + 12), t[i].len - 12)))))
            printf("  in row %u\n", i);
    }
    d.bare = true; /* without the header */
    plug(&d, 0);
    memset(at(BASE + DATA), 0, 12);
    transmit(1, 72);
    CHECK_EQ(port.sent_len, 60);
}

/* No room at the port: the frame waits, in order, and is not lost. */
static void test_tx_blocked(void)
{
    struct vio_net_desc d = usual();

    plug(&d, 0);
    CHECK_EQ(vio_net_waits(&net, 0), VIO_NET_RX);
    port.blocked = 1;
    transmit(1, 72);
    CHECK_EQ(port.nsent, 0);
    CHECK_EQ(used_idx(1), 0);
    CHECK_EQ(vio_net_waits(&net, 0), VIO_NET_RX | VIO_NET_TX);
    offer(1, 0);
    vio_net_ready(&net, 0);
    CHECK_EQ(port.nsent, 2);
    CHECK_EQ(used_idx(1), 2);
    CHECK(!(vio_net_waits(&net, 0) & VIO_NET_TX));
    CHECK_EQ(irqs, 1);
    port.blocked = 1; /* forgotten with a reset */
    transmit(1, 72);
    wr(0x70, 0);
    CHECK_EQ(vio_net_waits(&net, 0), 0);
}

static void test_rx(void)
{
    static const struct {
        uint64_t features;
        uint32_t len;  /* of the frame */
        uint32_t blen; /* of each buffer */
        unsigned used; /* buffers; 0: dropped */
    } t[] = {
        {F_MRG, 72, 2000, 1},
        {F_MRG, 26, 2000, 1},
        {F_MRG, 25, 2000, 0}, /* no Ethernet frame */
        {F_MRG, 2000, 2000, 1},
        {F_MRG, 2001, 2000, 2},
        {F_MRG, 65601, 2000, 33},
        {F_MRG, VIO_NET_FRAME_MAX, 4000, 17},
        {F_MRG, 72, 12, 6},
        {F_MRG, 72, 13, 6},
        {0, 72, 2000, 1},
        {0, 2000, 2000, 1},
        {0, 2001, 2000, 0}, /* one buffer or none */
        {F_MRG | F_EVENT, 5000, 2000, 3},
        {F_MRG | F(3), 12 + 1514, 2000, 1},
        {F_MRG | F(3), 12 + 1522, 2000, 1}, /* with VLAN tags */
        {F_MRG | F(3), 12 + 1523, 2000, 0}, /* beyond the MTU */
    };
    struct vio_net_desc d = usual();

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        bool good;
        plug(&d, t[i].features);
        refill(0, 0, QLEN - 1, t[i].blen);
        for (unsigned again = 0; again < 2; again++) { /* guessed wrong, then right */
            unsigned first = again * t[i].used;
            make_frame(t[i].len, 0x52);
            memset(rx_buf(first), 0xee, 4096);
            if (again && 2 * t[i].used > QLEN - 1)
                refill(0, QLEN - 1, 8, t[i].blen);
            vio_net_ready(&net, 0);
            good = CHECK_EQ(used_idx(0), (again + 1) * t[i].used);
            if (good && t[i].used) {
                good &= CHECK(got_frame(first, t[i].used, t[i].blen, t[i].len));
                good &= CHECK_EQ(vmm_get16(rx_buf(first) + 10), t[i].used);
                good &= CHECK_EQ(used_len(0, first), t[i].len < t[i].blen ? t[i].len : t[i].blen);
            }
            if (!good)
                printf("  in row %u, %u\n", i, again);
        }
        CHECK_EQ(vio_net_waits(&net, 0) & VIO_NET_RX, VIO_NET_RX);
        CHECK_EQ(lines, 0);
    }
}

/* A guest without buffers stalls only itself, and loses nothing. */
static void test_rx_starved(void)
{
    struct vio_net_desc d = usual();

    plug(&d, F_MRG);
    make_frame(5000, 0x52);
    vio_net_ready(&net, 0);
    CHECK_EQ(port.nrecv, 0);
    CHECK_EQ(vio_net_waits(&net, 0), 0);
    refill(0, 0, 1, 2000); /* too little: the frame is held */
    ring(0);
    CHECK_EQ(port.nin, 0);
    CHECK_EQ(used_idx(0), 0);
    CHECK_EQ(vio_net_waits(&net, 0), 0);
    port.nin = 1; /* the next one stays with the port */
    refill(0, 1, 1, 2000);
    ring(0);
    CHECK_EQ(used_idx(0), 0);
    CHECK_EQ(port.nin, 1);
    refill(0, 2, 1, 2000);
    ring(0);
    CHECK_EQ(used_idx(0), 3);
    CHECK(got_frame(0, 3, 2000, 5000));
    CHECK_EQ(vmm_get16(rx_buf(0) + 10), 3);
    CHECK_EQ(port.nin, 1);
    CHECK_EQ(vio_net_waits(&net, 0), 0);
    refill(0, 3, 8, 2000);
    ring(0);
    CHECK_EQ(port.nin, 0);
    CHECK_EQ(used_idx(0), 6);
    CHECK_EQ(vio_net_waits(&net, 0), VIO_NET_RX);
    make_frame(60000, 0x52); /* held, then the driver goes: it must not reach the next one */
    vio_net_ready(&net, 0);
    CHECK_EQ(net.pair[0].held, 60000);
    wr(0x70, 0);
    CHECK_EQ(net.pair[0].held, 0);
}

/* A frame in pieces of a few bytes can need more buffers than we take: then it is dropped, and the
   next one passes. */
static void test_rx_fragments(void)
{
    struct vio_net_desc d = usual();

    plug(&d, F_MRG);
    refill(0, 0, QLEN, 16);
    make_frame(VIO_CHAIN_MAX * 16 + 1, 0x52);
    vio_net_ready(&net, 0);
    CHECK_EQ(port.nin, 0);
    CHECK_EQ(used_idx(0), 0);
    CHECK_EQ(vio_net_waits(&net, 0), 0); /* a ring that is too small: its owner's affair */
    plug(&d, 0);
    refill(0, 0, 4, 100);
    make_frame(101, 0x52);
    vio_net_ready(&net, 0);
    CHECK_EQ(used_idx(0), 0);
    CHECK_EQ(net.pair[0].held, 0);
    make_frame(100, 0x52);
    vio_net_ready(&net, 0);
    CHECK_EQ(used_idx(0), 1);
    plug(&d, F_MRG); /* buffers without room for a header */
    refill(0, 0, 4, 11);
    make_frame(100, 0x52);
    vio_net_ready(&net, 0);
    CHECK(rd(0x70) & 64);
    CHECK_EQ(lines, 1);
    CHECK_EQ(vio_net_waits(&net, 0), 0);
}

/* 5.1.6.4.1: no flags for a driver that does not know them; no header from a bare port. */
static void test_rx_header(void)
{
    struct vio_net_desc d = usual();

    for (unsigned csum = 0; csum < 2; csum++) {
        plug(&d, F_MRG | (csum ? F(1) : 0));
        refill(0, 0, 4, 2000);
        make_frame(100, 0x52);
        frame[0] = 2;
        vio_net_ready(&net, 0);
        CHECK_EQ(rx_buf(0)[0], csum ? 2 : 0);
    }
    for (unsigned tso = 0; tso < 2; tso++) { /* a large one, for a driver that may not take such */
        plug(&d, F_MRG | F(1) | (tso ? F(7) : 0));
        refill(0, 0, 4, 2000);
        make_frame(3000, 0x52);
        frame[1] = 1;
        vio_net_ready(&net, 0);
        CHECK_EQ(used_idx(0), 2 * tso);
    }
    d.bare = true;
    plug(&d, F_MRG);
    refill(0, 0, 8, 1000);
    memset(rx_buf(0), 0xee, 1000);
    make_frame(3000, 0x52);
    port.in += 12;
    port.in_len -= 12;
    vio_net_ready(&net, 0);
    CHECK_EQ(used_idx(0), 3);
    CHECK(got_frame(0, 3, 1000, 3000));
    CHECK_EQ(vmm_get64(rx_buf(0)), 0);
    CHECK_EQ(vmm_get32(rx_buf(0) + 8), 3u << 16);
}

/* One command; the answer, or 255 when there was none. */
static unsigned command(const void *cmd, uint32_t len)
{
    unsigned q = net.dev.nqueues - 1;

    if (!(net.dev.accepted & F(22)))
        q = CTRL;
    memcpy(at(BASE + DATA), cmd, len);
    *at(BASE + DATA + 0x800) = 255;
    desc(q, 0, BASE + DATA, 2, NEXT, 1);
    desc(q, 1, BASE + DATA + 2, len - 2, NEXT, 2);
    desc(q, 2, BASE + DATA + 0x800, 1, WRITE, 0);
    offer(q, 0);
    ring(q);
    CHECK_EQ(used_idx(q), avail_idx[q]);
    return *at(BASE + DATA + 0x800);
}
#define COMMAND(...) command((const uint8_t[]){__VA_ARGS__}, sizeof(const uint8_t[]){__VA_ARGS__})

static void test_control(void)
{
    struct vio_net_desc d = usual();

    d.pairs = 3;
    plug(&d, F_CTRL | F(22) | F(1) | F(2) | F(7) | F(8));
    CHECK_EQ(COMMAND(0, 0, 0), 0);
    CHECK(!net.promisc);
    CHECK_EQ(COMMAND(0, 1, 1), 0);
    CHECK(net.allmulti);
    CHECK_EQ(COMMAND(0, 1, 2), 1);
    CHECK_EQ(COMMAND(0, 0), 1);
    CHECK_EQ(COMMAND(0, 2, 1), 1); /* RX_EXTRA is not offered */
    CHECK_EQ(COMMAND(1, 1, 0x52, 9, 9, 9, 9, 9), 0);
    CHECK_EQ(rd(0x100), 0x09090952);
    CHECK_EQ(COMMAND(1, 1, 0x53, 9, 9, 9, 9, 9), 1); /* multicast */
    CHECK_EQ(COMMAND(1, 1, 0x52, 9, 9, 9, 9), 1);
    CHECK_EQ(COMMAND(4, 0, 3, 0), 0);
    CHECK_EQ(port.npairs, 3);
    CHECK_EQ(COMMAND(4, 0, 4, 0), 1);
    CHECK_EQ(COMMAND(4, 0, 0, 0), 1);
    CHECK_EQ(COMMAND(4, 0, 1), 1);
    CHECK_EQ(port.npairs, 3);
    CHECK_EQ(COMMAND(5, 0, 2, 0, 0, 0, 0, 0, 0, 0), 0);
    CHECK_EQ(port.offload, VIO_NET_CSUM);
    CHECK_EQ(COMMAND(5, 0, 0x82, 1, 0, 0, 0, 0, 0, 0), 0);
    CHECK_EQ(port.offload, VIO_NET_CSUM | VIO_NET_TSO4 | VIO_NET_TSO6);
    CHECK_EQ(COMMAND(5, 0, 0x82, 3, 0, 0, 0, 0, 0, 0), 1); /* ECN was not negotiated */
    CHECK_EQ(COMMAND(5, 0, 0x82), 1);
    CHECK_EQ(COMMAND(9, 9, 9), 1);
    CHECK_EQ(COMMAND(3, 0), 0);
    wr(0x70, 0); /* all of it is forgotten */
    CHECK(net.promisc && !net.allmulti && net.npairs == 1);
    CHECK_EQ(rd(0x100), 0x03020152);
    plug(&d, F_CTRL); /* without MQ the control queue is the third */
    CHECK_EQ(COMMAND(0, 0, 0), 0);
    desc(CTRL, 0, BASE + DATA, 2, 0, 0); /* no room for the answer, no command at all */
    offer(CTRL, 0);
    desc(CTRL, 1, BASE + DATA, 1, WRITE, 0);
    offer(CTRL, 1);
    ring(CTRL);
    CHECK_EQ(used_idx(CTRL), 3);
    CHECK_EQ(used_len(CTRL, 1), 0);
    CHECK_EQ(*at(BASE + DATA), 1);
}

static bool passes(uint8_t dst0, uint8_t dst5)
{
    unsigned before = used_idx(0);

    make_frame(100, dst0);
    frame[17] = dst5;
    vio_net_ready(&net, 0);
    CHECK_EQ(port.nin, 0);
    return used_idx(0) != before;
}

static void test_filter(void)
{
    static const uint8_t liar[] = {1, 0, 255, 255, 255, 255, 1, 2, 3, 4, 5, 6};
    static const uint8_t shorter[] = {1, 0, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6};
    uint8_t many[2 + 4 + 17 * 6 + 4] = {1, 0, 17};
    struct vio_net_desc d = usual();

    plug(&d, F_MRG | F_CTRL);
    for (unsigned i = 0; i < 40; i++) {
        desc(0, i, BASE + DATA + 0x1000 + 0x1000 * i, 2000, WRITE, 0);
        offer(0, i);
    }
    CHECK(passes(0x66, 1)); /* until the driver says what it wants */
    CHECK_EQ(COMMAND(0, 0, 0), 0);
    CHECK(!passes(0x66, 1));
    CHECK(!passes(0x33, 1));
    CHECK(passes(0x52, 5));
    CHECK_EQ(COMMAND(1, 0, 1, 0, 0, 0, 0x66, 1, 2, 3, 4, 1, 1, 0, 0, 0, 0x33, 1, 2, 3, 4, 7), 0);
    CHECK(passes(0x66, 1));
    CHECK(!passes(0x66, 2));
    CHECK(passes(0x33, 7));
    CHECK(!passes(0x33, 8));
    CHECK_EQ(COMMAND(0, 1, 1), 0);
    CHECK(passes(0x33, 8));
    CHECK(!passes(0x66, 2));
    CHECK_EQ(command(liar, sizeof liar), 1);
    CHECK_EQ(command(shorter, sizeof shorter), 1);
    CHECK(passes(0x66, 1)); /* the table is as it was */
    CHECK_EQ(command(many, sizeof many), 0);
    CHECK(passes(0x66, 9)); /* more than fit: no filter */
    CHECK_EQ(COMMAND(1, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0);
    CHECK(!passes(0x66, 9));
    memset(frame + 12, 0xff, 6);
    port.nin = 1;
    CHECK_EQ(used_idx(0), 7);
    vio_net_ready(&net, 0);
    CHECK_EQ(used_idx(0), 8); /* broadcast */
}

static void test_link(void)
{
    struct vio_net_desc d = usual();

    d.link_down = true;
    plug(&d, F_MRG | F_CTRL | F(16));
    refill(0, 0, 8, 2000);
    CHECK_EQ(rd(0x104) >> 16, 0);
    CHECK_EQ(vio_net_waits(&net, 0), 0);
    make_frame(100, 0x52);
    vio_net_ready(&net, 0);
    CHECK_EQ(port.nrecv, 0);
    transmit(1, 72); /* is lost */
    CHECK_EQ(port.nsent, 0);
    CHECK_EQ(used_idx(1), 1);
    irqs = 0;
    vio_net_set_link(&net, true);
    CHECK_EQ(irqs, 1);
    CHECK_EQ(rd(0x60) & 2, 2);
    CHECK_EQ(rd(0x104) >> 16, 1);
    vio_net_set_link(&net, true);
    CHECK_EQ(irqs, 1);
    CHECK_EQ(vio_net_waits(&net, 0), VIO_NET_RX);
    vio_net_ready(&net, 0);
    CHECK_EQ(used_idx(0), 1);
    vio_net_announce(&net);
    CHECK_EQ(rd(0x104) >> 16, 3);
    CHECK_EQ(COMMAND(3, 0), 0);
    CHECK_EQ(rd(0x104) >> 16, 1);
    vio_net_set_link(&net, false);
    wr(0x70, 0); /* the link does not come back with a reset */
    CHECK_EQ(rd(0x104) >> 16, 0);
    vio_net_announce(&net); /* a driver that does not know of it */
    CHECK_EQ(rd(0x104) >> 16, 0);
}

static void test_pairs(void)
{
    struct vio_net_desc d = usual();

    d.pairs = 3;
    plug(&d, F_MRG | F_CTRL | F(22));
    refill(4, 0, 8, 2000);
    ring(4);
    make_frame(100, 0x52);
    vio_net_ready(&net, 2);
    CHECK_EQ(port.nrecv, 0); /* 5.1.6.5.5: not before it is asked for */
    CHECK_EQ(vio_net_waits(&net, 2), 0);
    CHECK_EQ(COMMAND(4, 0, 3, 0), 0);
    CHECK_EQ(vio_net_waits(&net, 2), VIO_NET_RX);
    make_frame(100, 0x52);
    vio_net_ready(&net, 2);
    CHECK_EQ(used_idx(4), 1);
    memset(at(BASE + DATA), 0, 12);
    transmit(5, 72);
    CHECK_EQ(port.nsent, 1);
    CHECK_EQ(port.sent_pair, 2);
    CHECK_EQ(COMMAND(4, 0, 1, 0), 0);
    CHECK_EQ(vio_net_waits(&net, 2), 0);
    plug(&d, F_MRG | F_CTRL); /* one pair; what looks like the others is nothing */
    transmit(5, 72);
    refill(4, 0, 8, 2000);
    ring(4);
    CHECK_EQ(port.nsent + used_idx(5) + used_idx(4), 0);
}

/* A port that serves the rings itself. */
static void test_away(void)
{
    struct vio_net_desc d = usual();

    d.port.start = on_start;
    d.port.stop = on_stop;
    plug(&d, F_MRG | F_CTRL | F_EVENT);
    CHECK_EQ(port.started, 3); /* not the control queue */
    CHECK_EQ(vio_queue_rings(&net.dev, 1).size, QLEN);
    CHECK(vio_queue_rings(&net.dev, 1).desc == at(BASE + QSTEP + DESC));
    CHECK(vio_queue_rings(&net.dev, 1).driver == at(BASE + QSTEP + AVAIL));
    CHECK(vio_queue_rings(&net.dev, 1).device == at(BASE + QSTEP + USED));
    transmit(1, 72);
    refill(0, 0, 4, 2000);
    make_frame(100, 0x52);
    ring(0);
    vio_net_ready(&net, 0);
    CHECK_EQ(port.nsent + port.nrecv + used_idx(0) + used_idx(1), 0);
    CHECK_EQ(vmm_get16(at(BASE + QSTEP + USED) + 4 + 8 * QLEN), 0); /* avail_event is theirs */
    CHECK_EQ(vio_net_waits(&net, 0), 0);
    CHECK_EQ(COMMAND(0, 0, 1), 0);
    CHECK_EQ(port.stopped, 0);
    wr(0x70, 0);
    CHECK_EQ(port.stopped, 3);
    refuses = true; /* then we do */
    plug(&d, F_MRG);
    refuses = false;
    CHECK_EQ(port.started, 3);
    transmit(1, 72);
    CHECK_EQ(port.nsent, 1);
    wr(0x70, 0);
    CHECK_EQ(port.stopped, 0);
    plug(&d, F_MRG); /* it changes its mind */
    transmit(1, 72);
    CHECK_EQ(port.nsent, 0);
    vio_net_take_back(&net, 1);
    CHECK_EQ(port.nsent, 1);
    wr(0x70, 0);
    CHECK_EQ(port.stopped, 1);
}

int main(void)
{
    test_init();
    test_features();
    test_tx();
    test_tx_blocked();
    test_rx();
    test_rx_starved();
    test_rx_fragments();
    test_rx_header();
    test_control();
    test_filter();
    test_link();
    test_pairs();
    test_away();
    CHECK_DONE("test_net");
}
