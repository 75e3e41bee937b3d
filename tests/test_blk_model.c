/* test_blk_model.c - a disk and its driver, at random, with every byte checked  MIT licence, see LICENSE

   A driver that rings and is interrupted exactly when the rules of notification ask for it (virtio
   1.2, 2.7.7, 2.7.10 and 2.8.10), and a host that answers in any order, at any time, often with an
   error. Whenever nothing is under way and nobody was notified, nothing may be left: no
   notification was lost. Each chain comes back once, with the right bytes, and not a byte beside
   them changes: nobody wrote to a wrong address, nor to a right one too late. */
#define VIO_BLK_INFLIGHT 5 /* so that queues wait for each other */
#define DEV_PCI_IMPLEMENTATION
#include "../dev_pci.h"
#define DEV_VIRTIO_IMPLEMENTATION
#include "../dev_virtio.h"

#include <stdlib.h>

#include "vio_driver.h"

enum { CHAINS = 24, PIECES = 8, SLOT = 0x2000, CAPACITY = 1 << 20, SERIAL_LEN = 20 };
/* Where things are in a slot, the memory of a chain; all else in it is never written. */
enum { HDR = 0x10, PIECE = 0x100, PIECE_STEP = 0x900, STATUS = 0x1c80, TABLE = 0x1d00 };
enum { IN, OUT, FLUSH = 4, GET_ID = 8, DISCARD = 11, BAD_OP = 99 };

static const char serial[] = "exactly twenty bytes";

struct piece {
    uint32_t off, len; /* within the slot */
    bool writable;
};

static struct chain {
    bool busy;                                   /* with the device */
    bool answered;                               /* by the host */
    bool failed;                                 /* its status is to say so */
    unsigned op, q, salt, npieces, ndesc, steps; /* steps: requests that the host is to get */
    uint64_t sector, len;
    struct piece piece[PIECES];
    uint16_t desc[PIECES];
} chains[NQ * CHAINS];

/* What the driver knows of a ring. Positions count descriptors (split: chains) and never wrap. */
static struct ring {
    unsigned size, nfree;
    uint64_t next, kicked, reap; /* offered; offered when it last thought of ringing; taken back */
    bool taken[256];             /* descriptors of a split ring in use */
    uint8_t by_head[256];        /* the chain of a split ring that begins with a descriptor */
    bool rung, called;           /* notifications that are on their way */
} rings[NQ];

static struct vio_blk disk;
static struct vio_blk_req *pending[VIO_BLK_INFLIGHT];
static unsigned npending, depth;
static bool holding, intruding, event_idx, indirect_ok, brief; /* brief: nothing for the host */
static uint8_t shadow[NQ * CHAINS * SLOT];                     /* what the slots have to contain */
static unsigned noffered, pace; /* the driver is often slower than the device, or never */
static uint32_t seed = 1;

/* 0 to n - 1 */
static unsigned rnd(unsigned n)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed % n;
}

static uint8_t *slot_at(unsigned c)
{
    return at(BASE + DATA) + (size_t)c * SLOT;
}

static uint8_t *shadow_at(unsigned c)
{
    return shadow + (size_t)c * SLOT;
}

/* Byte i of what a chain reads or writes. */
static uint8_t byte_at(const struct chain *c, uint64_t i)
{
    return (uint8_t)(c->salt + 37 * c->sector + i + (i >> 8));
}

/* >>driver: chains */

static void add_piece(struct chain *c, uint32_t off, uint32_t len, bool writable)
{
    c->piece[c->npieces++] = (struct piece){off, len, writable};
}

static void put_header(struct chain *c, uint8_t *p)
{
    vmm_put32(p + HDR, c->op);
    vmm_put64(p + HDR + 8, c->sector);
    if (rnd(2)) {
        add_piece(c, HDR, 7, false);
        add_piece(c, HDR + 7, 9, false);
    } else {
        add_piece(c, HDR, 16, false);
    }
    if (c->op != DISCARD)
        return;
    vmm_put64(p + HDR + 16, c->sector);
    vmm_put32(p + HDR + 24, 1 + rnd(8));
    vmm_put32(p + HDR + 28, 0);
    memcpy(p + HDR + 32, p + HDR + 16, 16);
    add_piece(c, HDR + 16, 32, false);
}

/* The data in up to three buffers, then the status. */
static void put_data(struct chain *c, uint8_t *p)
{
    uint64_t done = 0;

    for (unsigned k = 0; done < c->len; k++) {
        uint64_t left = c->len - done, n = k == 2 ? left : 1 + rnd((unsigned)left);
        uint32_t off = PIECE + k * PIECE_STEP;
        for (uint64_t i = 0; i < n && c->op == OUT; i++)
            p[off + i] = byte_at(c, done + i);
        add_piece(c, off, (uint32_t)n, c->op != OUT);
        done += n;
    }
    add_piece(c, STATUS, 1, true);
}

static void describe(unsigned i)
{
    static const unsigned ops[] = {GET_ID, BAD_OP, GET_ID, IN, IN, IN, OUT, OUT, FLUSH, DISCARD};
    struct chain *c = &chains[i];
    uint8_t *p = slot_at(i);

    CHECK(!memcmp(p, shadow_at(i), SLOT)); /* nobody wrote since it came back */
    memset(p, (int)rnd(256), SLOT);
    *c = (struct chain){.busy = true, .q = i / CHAINS, .salt = rnd(256)};
    c->op = ops[rnd(brief ? 3 : sizeof ops / sizeof ops[0])];
    c->sector = rnd(CAPACITY / 512 - 8) + (rnd(16) ? 0 : CAPACITY / 512);
    c->len = c->op == IN || c->op == OUT ? 512 * (1 + rnd(4)) : c->op == GET_ID ? SERIAL_LEN : 0;
    c->failed = c->op == BAD_OP;
    if (c->op != GET_ID && c->op != BAD_OP && c->op != FLUSH && c->sector >= CAPACITY / 512)
        c->failed = true;
    else if (c->op != GET_ID && c->op != BAD_OP)
        c->steps = c->op == DISCARD ? 2 : 1;
    put_header(c, p);
    put_data(c, p);
    memcpy(shadow_at(i), p, SLOT);
}

/* >>driver: rings */

/* A position as a packed ring spells it. */
static uint16_t spelt(const struct ring *r, uint64_t pos)
{
    return (uint16_t)(pos % r->size | (pos / r->size % 2 ? 0 : 0x8000));
}

static void put_table(unsigned i)
{
    const struct chain *c = &chains[i];

    for (unsigned k = 0; k < c->npieces; k++)
        table_desc(slot_at(i) + TABLE + 16 * k, BASE + DATA + (uint64_t)i * SLOT + c->piece[k].off,
                   c->piece[k].len,
                   (c->piece[k].writable ? WRITE : 0) | (k + 1 < c->npieces ? NEXT : 0), k + 1);
    memcpy(shadow_at(i) + TABLE, slot_at(i) + TABLE, 16 * c->npieces);
}

/* Descriptor k of a chain, as it stands in the ring. */
static struct piece nth_desc(unsigned i, unsigned k, unsigned *flags)
{
    const struct chain *c = &chains[i];
    struct piece p = c->piece[k];

    *flags = (p.writable ? WRITE : 0) | (k + 1 < c->ndesc ? NEXT : 0);
    if (c->ndesc < c->npieces) {
        p = (struct piece){TABLE, 16 * c->npieces, false};
        *flags = INDIRECT;
    }
    p.off += (uint32_t)(BASE + DATA + i * SLOT);
    return p;
}

static void offer_packed(unsigned i)
{
    struct chain *c = &chains[i];
    struct ring *r = &rings[c->q];

    for (unsigned k = c->ndesc; k-- > 0;) { /* the first last */
        uint64_t pos = r->next + k;
        uint8_t *e = packed_entry(c->q, (unsigned)(pos % r->size));
        unsigned flags;
        struct piece p = nth_desc(i, k, &flags);
        vmm_put64(e, p.off);
        vmm_put32(e + 8, p.len);
        vmm_put16(e + 12, k + 1 < c->ndesc ? 0x7777 : (uint16_t)(i * 3));
        vmm_put16(e + 14, (uint16_t)(flags | packed_flags(!(pos / r->size % 2), false)));
    }
    r->next += c->ndesc;
}

static void offer_split(unsigned i)
{
    struct chain *c = &chains[i];
    struct ring *r = &rings[c->q];

    for (unsigned k = 0; k < c->ndesc; k++) {
        unsigned d = rnd(r->size);
        while (r->taken[d])
            d = (d + 1) % r->size;
        r->taken[d] = true;
        c->desc[k] = (uint16_t)d;
    }
    for (unsigned k = 0; k < c->ndesc; k++) {
        unsigned flags;
        struct piece p = nth_desc(i, k, &flags);
        desc(c->q, c->desc[k], p.off, p.len, flags, k + 1 < c->ndesc ? c->desc[k + 1] : 0x7777);
    }
    r->by_head[c->desc[0]] = (uint8_t)i;
    vmm_put16(avail(c->q) + 4 + 2 * (r->next % r->size), c->desc[0]);
    vmm_put16(avail(c->q) + 2, (uint16_t)++r->next);
}

/* Offers a chain, if one is idle and has room. */
static void add(unsigned q)
{
    unsigned i = q * CHAINS + rnd(CHAINS);
    struct ring *r = &rings[q];
    struct chain *c = &chains[i];

    if (c->busy || r->nfree < PIECES)
        return;
    describe(i);
    c->ndesc = indirect_ok && rnd(2) ? 1 : c->npieces;
    if (c->ndesc < c->npieces)
        put_table(i);
    r->nfree -= c->ndesc;
    if (mode.packed)
        offer_packed(i);
    else
        offer_split(i);
    noffered++;
}

/* Does the device ask for a ring for what was offered since the last time? */
static bool to_ring(unsigned q)
{
    const struct ring *r = &rings[q];
    uint16_t event = mode.packed ? vmm_get16(used(q)) : vmm_get16(used(q) + 4 + 8 * r->size);
    unsigned flags = vmm_get16(used(q) + (mode.packed ? 2 : 0));
    bool by_event = mode.packed ? flags == 2 : event_idx;

    CHECK(event_idx || flags < 2);
    if (!by_event)
        return r->next != r->kicked && flags != 1;
    for (uint64_t pos = r->kicked; pos < r->next; pos++)
        if (event == (mode.packed ? spelt(r, pos) : (uint16_t)pos))
            return true;
    return false;
}

static void kick(unsigned q)
{
    rings[q].rung |= to_ring(q);
    rings[q].kicked = rings[q].next;
}

/* >>driver: interrupts */

static bool has_used(unsigned q)
{
    const struct ring *r = &rings[q];
    const uint8_t *e = packed_entry(q, (unsigned)(r->reap % r->size));

    if (!mode.packed)
        return vmm_get16(used(q) + 2) != (uint16_t)r->reap;
    return (vmm_get16(e + 14) & 0x8080) == packed_flags(!(r->reap / r->size % 2), true);
}

/* The bytes that a chain was to get are in its slot; enters them into the shadow. */
static void check_data(unsigned i)
{
    struct chain *c = &chains[i];
    uint64_t done = 0;
    bool good = true;

    for (unsigned k = 0; k < c->npieces; k++) {
        const struct piece *p = &c->piece[k];
        if (!p->writable || p->off == STATUS)
            continue;
        for (uint64_t n = 0; n < p->len && !c->failed; n++, done++)
            good &= slot_at(i)[p->off + n] ==
                    (c->op == GET_ID ? (uint8_t)serial[done] : byte_at(c, done));
        memcpy(shadow_at(i) + p->off, slot_at(i) + p->off, p->len);
    }
    CHECK(good);
}

/* Takes the next chain back. */
static void reap(unsigned q)
{
    struct ring *r = &rings[q];
    const uint8_t *e = mode.packed ? packed_entry(q, (unsigned)(r->reap % r->size)) + 8
                                   : used(q) + 4 + 8 * (r->reap % r->size);
    unsigned id = mode.packed ? vmm_get16(e + 4) : vmm_get32(e);
    unsigned i = mode.packed ? id / 3 : r->by_head[id % r->size];
    uint32_t len = vmm_get32(mode.packed ? e : e + 4);
    struct chain *c = &chains[i < NQ * CHAINS ? i : 0];

    if (!CHECK(c->busy && c->q == q && (mode.packed ? id % 3 == 0 : id == c->desc[0])))
        return;
    CHECK_EQ(c->steps, 0);
    CHECK_EQ(len, 1 + (c->failed || c->op == OUT ? 0 : c->len));
    shadow_at(i)[STATUS] = c->op == BAD_OP ? 2 : c->failed;
    check_data(i);
    CHECK(!memcmp(slot_at(i), shadow_at(i), SLOT));
    for (unsigned k = 0; k < c->ndesc && !mode.packed; k++)
        r->taken[c->desc[k]] = false;
    r->nfree += c->ndesc;
    r->reap += mode.packed ? c->ndesc : 1;
    c->busy = false;
}

/* Asks for an interrupt for the next chain, or only for one some way on. */
static void listen(unsigned q)
{
    struct ring *r = &rings[q];
    uint64_t pos = r->reap + (rnd(3) ? 0 : (r->next - r->reap) * 3 / 4);

    if (mode.packed) {
        vmm_put16(avail(q), spelt(r, pos));
        vmm_put16(avail(q) + 2, event_idx ? 2 : 0);
    } else if (event_idx) {
        vmm_put16(avail(q) + 4 + 2 * r->size, (uint16_t)pos);
    } else {
        vmm_put16(avail(q), 0);
    }
}

static void deafen(unsigned q)
{
    if (mode.packed)
        vmm_put16(avail(q) + 2, 1);
    else if (!event_idx)
        vmm_put16(avail(q), 1);
}

/* >>host */

static unsigned chain_of(const struct vio_blk_req *req)
{
    return (unsigned)((size_t)(req->status - slot_at(0)) / SLOT);
}

/* Moves the data of a request; some that fail have got half of it. */
static void transfer(const struct chain *c, const struct vio_blk_req *req, bool good)
{
    uint64_t done = 0, end = good ? req->len : req->len / 2;
    bool same = true;

    for (unsigned k = 0; k < req->niov; k++)
        for (size_t n = 0; n < req->iov[k].len && done < end; n++, done++) {
            uint8_t *p = (uint8_t *)req->iov[k].base + n;
            if (req->op == VIO_BLK_READ)
                *p = byte_at(c, done);
            same &= *p == byte_at(c, done);
        }
    CHECK(same && done == end);
}

/* Answers one of the requests that the host has. */
static void answer(unsigned k)
{
    struct vio_blk_req *req = pending[k];
    struct chain *c = &chains[chain_of(req)];
    bool good = rnd(5), live = vio_live(&disk.dev, c->q);

    pending[k] = pending[--npending];
    if (CHECK(c->busy && c->steps) && live) {
        c->steps = good ? c->steps - 1 : 0;
        c->failed |= !good;
        c->answered = !c->steps;
    }
    if (req->op == VIO_BLK_READ || req->op == VIO_BLK_WRITE) {
        CHECK_EQ(req->len, c->len);
        CHECK_EQ(req->off, c->sector * 512);
        transfer(c, req, good);
    }
    vio_blk_done(&disk, req, good ? 0 : -ENOSPC);
}

/* The driver runs on other processors: what it does meanwhile. */
static void intrude(void)
{
    unsigned q = rnd(NQ);

    if (!intruding)
        return;
    for (unsigned n = 0; n < 10 && has_used(q) && rnd(4); n++)
        reap(q);
    for (unsigned n = rnd(1 + pace / 4) ? 0 : rnd(3); n > 0; n--)
        add(q);
    if (rnd(2))
        kick(q);
}

static void submitted(void *ctx, struct vio_blk_req *req)
{
    (void)ctx;
    intrude();
    if (!CHECK(npending < VIO_BLK_INFLIGHT))
        return;
    for (unsigned k = 0; k < npending; k++)
        CHECK(pending[k] != req);
    pending[npending++] = req;
    if (depth++ < 3 && !rnd(8))
        answer(rnd(npending));
    depth--;
}

static bool held_back(void *ctx)
{
    (void)ctx;
    intrude();
    holding = holding || !rnd(200);
    return holding;
}

static void interrupted(void *transport, unsigned q)
{
    (void)transport;
    if (CHECK(q < NQ))
        rings[q].called = true;
    intrude();
}

/* >>world */

/* One thing happens that was due on the device's side; false: nothing was. */
static bool device_step(void)
{
    unsigned q = rnd(NQ);

    q = rings[q].rung ? q : (q + 1) % NQ;
    if (npending && (!rings[q].rung || rnd(2))) {
        answer(rnd(npending));
    } else if (rings[q].rung) {
        rings[q].rung = false;
        vio_queue_run(&disk.dev, q);
    } else if (holding) {
        holding = false;
        vio_blk_resume(&disk);
    } else {
        return false;
    }
    return true;
}

/* The interrupt handler, while the device goes on. */
static void serve(unsigned q)
{
    rings[q].called = false;
    do {
        if (rnd(2))
            deafen(q);
        for (unsigned n = 0; has_used(q) && n < 1000; n++) {
            reap(q);
            if (!rnd(3))
                device_step();
        }
        listen(q);
        if (rnd(2))
            device_step();
    } while (has_used(q) && !check_failed);
}

/* Until nothing is under way; then all chains have to be back. */
static void settle(void)
{
    bool more = true;

    intruding = false;
    for (unsigned q = 0; q < NQ; q++)
        kick(q);
    while (more && !check_failed) {
        more = device_step();
        for (unsigned q = 0; q < NQ; q++)
            if (rings[q].called) {
                serve(q);
                more = true;
            }
    }
    for (unsigned i = 0; i < NQ * CHAINS; i++)
        CHECK(!chains[i].busy);
    intruding = true;
    pace = rnd(3) * 10;
    brief = !rnd(5);
}

static void start(void)
{
    const uint64_t features = (event_idx ? F_EVENT_IDX : 0) | (indirect_ok ? F_INDIRECT : 0) |
                              F_VERSION_1 | 1 << 9 | 1 << 13; /* FLUSH, DISCARD */

    CHECK(negotiate(features));
    for (unsigned q = 0; q < NQ; q++) {
        uint64_t base = BASE + (uint64_t)q * QSTEP;
        memset(at(base), 0, QSTEP);
        rings[q] = (struct ring){.size = mode.packed ? 9 + rnd(60) : 16u << rnd(3)};
        rings[q].nfree = rings[q].size;
        queue_addr(q, rings[q].size, base + DESC, base + AVAIL, base + USED);
        listen(q);
    }
    wr(0x70, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
}

/* A reset takes until the host has answered; then memory is the driver's, whatever was begun. */
static void reset(void)
{
    intruding = false;
    wr(0x70, 0);
    while (rd(0x70) && CHECK(npending))
        answer(rnd(npending));
    CHECK_EQ(npending, 0);
    for (unsigned i = 0; i < NQ * CHAINS; i++) {
        struct chain *c = &chains[i];
        for (unsigned k = 0; k < c->npieces && c->busy; k++) {
            const struct piece *p = &c->piece[k];
            if (p->writable && (p->off != STATUS || c->answered || !c->steps))
                memcpy(shadow_at(i) + p->off, slot_at(i) + p->off, p->len);
        }
        c->busy = false;
        CHECK(!memcmp(slot_at(i), shadow_at(i), SLOT));
    }
    start();
    intruding = true;
}

static void step(void)
{
    unsigned q = rnd(NQ);

    switch (rnd(16)) {
    case 0:
        if (!rnd(10))
            settle();
        return;
    case 1:
        if (!rnd(400))
            reset();
        return;
    case 2:
    case 3:
        if (rings[q].called)
            serve(q);
        return;
    case 4:
    case 5:
    case 6:
        kick(q);
        return;
    case 7:
    case 8:
    case 9:
        device_step();
        return;
    default:
        if (!rnd(1 + pace))
            add(q);
    }
}

/* `n` chains, with the features that the bits of `kind` say. */
static void run(unsigned kind, unsigned n)
{
    mode.packed = kind & 1;
    event_idx = kind & 2;
    indirect_ok = kind & 4;
    noffered = 0;
    intruding = true;
    memset(shadow, 0, sizeof shadow);
    CHECK_EQ(vio_blk_init(&disk, &(struct vio_blk_desc){.capacity = CAPACITY,
                                                        .serial = serial,
                                                        .queues = NQ,
                                                        .submit = submitted,
                                                        .hold = held_back}),
             0);
    plug(&disk.dev, true);
    disk.dev.interrupt = interrupted;
    start();
    while (noffered < n && !check_failed)
        step();
    settle();
    CHECK_EQ(lines, 0); /* the device never called the driver a liar */
    if (check_failed)
        printf("  kind %u, chain %u\n", kind, noffered);
}

int main(int argc, char **argv)
{
    unsigned n = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : 4000;

    seed = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 0) : 1;
    for (unsigned kind = 0; kind < 8 && !check_failed; kind++)
        run(kind, n);
    CHECK_DONE("test_blk_model");
}
