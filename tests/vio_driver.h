/* vio_driver.h - the driver half of virtio, for tests of dev_virtio.h      MIT licence, see LICENSE

   A mock driver that works registers and rings as a guest would: over virtio-mmio or virtio-pci,
   with split or packed rings, as `mode` says. It is written from the specification, so that a
   mistake in the device half does not cancel itself out. Tests speak of registers by their offsets
   in virtio-mmio and of chains by the descriptors of a split ring, whatever is beneath. */
#ifndef VIO_DRIVER_H
#define VIO_DRIVER_H

#include "check.h"

enum { BASE = 0x100000, SIZE = 0x200000, NQ = 2, QLEN = 8, PACKED_LEN = 25 };
enum { DESC = 0x0000, AVAIL = 0x4000, USED = 0x8000, QSTEP = 0x10000, DATA = 0x40000 };
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
enum { ACK = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, NEEDS_RESET = 64 };
enum { CARD = 1, MSIX_TABLE = 0x3000 };
#define ECAM         0xe0000000
#define WINDOW       0xc0000000
#define F_INDIRECT   (1ULL << 28)
#define F_EVENT_IDX  (1ULL << 29)
#define F_VERSION_1  (1ULL << 32)
#define F_PACKED     (1ULL << 34)
#define F_RING_RESET (1ULL << 40)
#define F_ALL        (F_INDIRECT | F_EVENT_IDX | F_VERSION_1)

static struct mode {
    const char *name;
    bool pci, packed;
} mode;

static _Alignas(4096) uint8_t ram[SIZE];
static struct vmm_mem mem;
static struct vio_dev *plugged;
static struct vio_mmio slot;
static struct pci_root root;
static struct vio_pci card;
static struct vmm_bus bus;
static uint64_t bar; /* guest address of the card's registers */
static unsigned irqs, lines, kicks, kicked;
static uint16_t avail_idx[NQ];

/* A packed ring: the chains that desc() described, where the driver is, what came back. */
static struct packed {
    struct {
        uint64_t addr;
        uint32_t len;
        unsigned flags, next;
    } desc[256];
    uint16_t next, reap;       /* entries of the ring, */
    bool next_wrap, reap_wrap; /* and the wrap counters there */
    unsigned id, nused;
    unsigned head[256], count[256];       /* by id */
    unsigned used_head[64], used_len[64]; /* the last 64 */
} packed[NQ];

static inline void on_irq(void *ctx, unsigned line, bool level)
{
    (void)ctx;
    CHECK(level && line == 5);
    irqs++;
}

static inline void on_msi(void *ctx, unsigned vector, uint64_t addr, uint32_t data)
{
    (void)ctx;
    CHECK(addr == 0xfee00000 && data == 0x40 + vector);
    irqs++;
}

static inline void on_line(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    char text[256];

    (void)ctx;
    CHECK_EQ(level, VMM_LOG_WARN);
    CHECK(vsnprintf(text, sizeof text, fmt, args) < (int)sizeof text);
    lines++;
}

static inline void on_kick(void *ctx, unsigned q)
{
    (void)ctx;
    kicks++;
    kicked = q;
}

static const struct vmm_log the_log = {on_line, NULL, VMM_LOG_DEBUG};

static inline uint8_t *at(uint64_t gpa)
{
    return ram + (gpa - BASE);
}

/* >>pci */
static inline uint64_t bus_rd(uint64_t addr, unsigned len)
{
    uint64_t val = 0;

    CHECK(vmm_bus_access(&bus, addr, len, false, &val));
    return val;
}

static inline void bus_wr(uint64_t addr, unsigned len, uint64_t val)
{
    CHECK(vmm_bus_access(&bus, addr, len, true, &val));
}

/* A byte of the card's configuration space. */
static inline uint64_t cfg(unsigned off)
{
    return ECAM + (CARD << 15) + off;
}

/* The offset of a capability, from `at` in the list on; 0: there is none. */
static inline unsigned find_cap(unsigned from, unsigned id)
{
    unsigned off = (unsigned)bus_rd(cfg(from ? from + 1 : 0x34), 1);

    for (unsigned i = 0; off && i < 48; i++, off = (unsigned)bus_rd(cfg(off + 1), 1))
        if (bus_rd(cfg(off), 1) == id)
            return off;
    return 0;
}

static inline void plug_pci(struct vio_dev *d, bool with_kick)
{
    struct pci_root_desc desc = {.ecam = ECAM, .mmio32 = {WINDOW, 0x1000000}};
    unsigned msix;

    memset(&bus, 0, sizeof bus);
    pci_root_init(&root, &desc);
    CHECK_EQ(vio_pci_init(&card, &(struct vio_pci_desc){.dev = d,
                                                        .mem = &mem,
                                                        .slot = CARD,
                                                        .msi = {on_msi, NULL},
                                                        .kick = with_kick ? on_kick : NULL,
                                                        .log = &the_log}),
             0);
    CHECK_EQ(pci_plug(&root, &card.pci), 0);
    CHECK_EQ(pci_root_add_io(&root, &bus, NULL), 0);
    bus_wr(cfg(4), 2, 6); /* memory, bus master */
    bar = bus_rd(cfg(0x10), 4) & ~15u;
    for (unsigned i = 0; i <= d->nqueues; i++) {
        bus_wr(bar + MSIX_TABLE + 16 * i, 8, 0xfee00000);
        bus_wr(bar + MSIX_TABLE + 16 * i + 8, 8, 0x40 + i);
    }
    msix = find_cap(0, 0x11);
    CHECK_EQ(bus_rd(cfg(msix + 2), 2), d->nqueues);
    bus_wr(cfg(msix + 2), 2, 0x8000);
}

/* Where a register of virtio-mmio is in virtio-pci: its offset in the BAR and its width. */
static inline uint64_t pci_reg(uint64_t off, unsigned *len)
{
    static const struct {
        uint8_t mmio, pci, len;
    } t[] = {
        {0x10, 4, 4},  {0x14, 0, 4},  {0x20, 12, 4}, {0x24, 8, 4},  {0x30, 22, 2}, {0x34, 24, 2},
        {0x38, 24, 2}, {0x44, 28, 2}, {0x70, 20, 1}, {0x80, 32, 4}, {0x84, 36, 4}, {0x90, 40, 4},
        {0x94, 44, 4}, {0xa0, 48, 4}, {0xa4, 52, 4}, {0xc0, 58, 2}, {0xfc, 21, 1},
    };

    if (off >= 0x100)
        return 0x2000 + off - 0x100;
    if (off == 0x60)
        return 0x1000;
    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++)
        if (t[i].mmio == off) {
            *len = t[i].len;
            return t[i].pci;
        }
    CHECK(!"a register that PCI has too");
    return 0;
}

/* >>registers, by their offsets in virtio-mmio; configuration is at 0x100. */
static inline uint64_t rd_len(uint64_t off, unsigned len)
{
    if (!mode.pci)
        return vio_mmio_read(&slot, off, len);
    if (off == 0x08) /* the device ID */
        return bus_rd(cfg(2), 2) - 0x1040;
    off = pci_reg(off, &len);
    return bus_rd(bar + off, len);
}

static inline void wr_len(uint64_t off, unsigned len, uint64_t val)
{
    if (!mode.pci) {
        vio_mmio_write(&slot, off, len, val);
        return;
    }
    off = pci_reg(off, &len);
    bus_wr(bar + off, len, val);
}

static inline uint32_t rd(uint64_t off)
{
    return (uint32_t)rd_len(off, 4);
}

static inline void wr(uint64_t off, uint32_t val)
{
    wr_len(off, 4, val);
}

static inline void ring(unsigned q)
{
    if (mode.pci)
        bus_wr(bar + 0x4000 + 4 * (uint64_t)q, 2, q);
    else
        wr(VIO_MMIO_NOTIFY, q);
}

/* A fresh machine with this device alone. */
static inline void plug(struct vio_dev *d, bool with_kick)
{
    memset(ram, 0, sizeof ram);
    memset(&mem, 0, sizeof mem);
    memset(avail_idx, 0, sizeof avail_idx);
    irqs = lines = kicks = 0;
    plugged = d;
    vmm_mem_add(&mem, BASE, SIZE, ram);
    if (mode.pci) {
        plug_pci(d, with_kick);
        return;
    }
    vio_mmio_init(&slot, &(struct vio_mmio_desc){.dev = d,
                                                 .mem = &mem,
                                                 .irq = {on_irq, NULL, 5},
                                                 .kick = with_kick ? on_kick : NULL,
                                                 .log = &the_log});
}

static inline unsigned ring_len(void)
{
    return mode.packed ? PACKED_LEN : QLEN;
}

/* >>start of a device and its queues */
static inline void queue_addr(unsigned q, uint32_t size, uint64_t desc, uint64_t avail,
                              uint64_t used)
{
    wr(0x30, q);
    wr(0x38, size);
    wr(0x80, (uint32_t)desc);
    wr(0x84, (uint32_t)(desc >> 32));
    wr(0x90, (uint32_t)avail);
    wr(0x94, (uint32_t)(avail >> 32));
    wr(0xa0, (uint32_t)used);
    wr(0xa4, (uint32_t)(used >> 32));
    if (mode.pci)
        bus_wr(bar + 26, 2, 1 + q);
    wr(0x44, 1);
}

static inline void queue_up(unsigned q)
{
    uint64_t base = BASE + (uint64_t)q * QSTEP;

    memset(at(base), 0, QSTEP);
    avail_idx[q] = 0;
    packed[q] = (struct packed){.next_wrap = true, .reap_wrap = true};
    queue_addr(q, ring_len(), base + DESC, base + AVAIL, base + USED);
}

/* The start of 3.1.1, up to FEATURES_OK; true when the device kept that. */
static inline bool negotiate(uint64_t features)
{
    if (mode.packed)
        features |= F_PACKED;
    wr(0x70, 0);
    wr(0x70, ACK);
    wr(0x70, ACK | DRIVER);
    for (uint32_t bank = 0; bank < 2; bank++) {
        wr(0x24, bank);
        wr(0x20, (uint32_t)(features >> (32 * bank)));
    }
    if (mode.pci)
        bus_wr(bar + 16, 2, 0);
    wr(0x70, ACK | DRIVER | FEATURES_OK);
    return rd(0x70) & FEATURES_OK;
}

static inline void go(uint64_t features)
{
    unsigned n = plugged->nqueues;

    CHECK(negotiate(features));
    for (unsigned q = 0; q < n; q++)
        queue_up(q);
    wr(0x70, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
    CHECK_EQ(rd(0x70), ACK | DRIVER | FEATURES_OK | DRIVER_OK);
}

/* >>rings */
static inline uint8_t *avail(unsigned q)
{
    return at(BASE + (uint64_t)q * QSTEP + AVAIL);
}

static inline uint8_t *used(unsigned q)
{
    return at(BASE + (uint64_t)q * QSTEP + USED);
}

/* A descriptor of an indirect table. */
static inline void table_desc(uint8_t *p, uint64_t addr, uint32_t len, unsigned flags,
                              unsigned next)
{
    vmm_put64(p, addr);
    vmm_put32(p + 8, len);
    vmm_put16(p + 12, mode.packed ? 0x5555 : (uint16_t)flags); /* there, the id: without meaning */
    vmm_put16(p + 14, mode.packed ? (uint16_t)(flags & ~NEXT) : (uint16_t)next);
}

static inline void desc(unsigned q, unsigned i, uint64_t addr, uint32_t len, unsigned flags,
                        unsigned next)
{
    uint8_t *p = at(BASE + (uint64_t)q * QSTEP + DESC) + 16 * i;

    if (!mode.packed) {
        table_desc(p, addr, len, flags, next);
        return;
    }
    packed[q].desc[i].addr = addr;
    packed[q].desc[i].len = len;
    packed[q].desc[i].flags = flags;
    packed[q].desc[i].next = next;
}

static inline uint8_t *packed_entry(unsigned q, unsigned i)
{
    return at(BASE + (uint64_t)q * QSTEP + DESC) + 16 * i;
}

/* 2.8.1: the flags that make an entry available, or used. */
static inline uint16_t packed_flags(bool wrap, bool use)
{
    return (uint16_t)((wrap ? 0x80 : 0) | (wrap == use ? 0x8000 : 0));
}

static inline void packed_step(uint16_t *at_, bool *wrap)
{
    if (++*at_ < PACKED_LEN)
        return;
    *at_ = 0;
    *wrap = !*wrap;
}

/* Writes a chain into the ring, the flags of its first entry last. */
static inline void packed_offer(unsigned q, unsigned head)
{
    struct packed *r = &packed[q];
    unsigned id = r->id++ % 256, first = r->next, i = head, flags;
    uint16_t first_flags = 0;

    r->head[id] = head;
    r->count[id] = 0;
    do {
        uint8_t *e = packed_entry(q, r->next);
        flags = r->desc[i].flags;
        vmm_put64(e, r->desc[i].addr);
        vmm_put32(e + 8, r->desc[i].len);
        vmm_put16(e + 12, flags & NEXT ? 0x7777 : (uint16_t)id); /* only the last one's counts */
        if (r->count[id]++)
            vmm_put16(e + 14, (uint16_t)(flags | packed_flags(r->next_wrap, false)));
        else
            first_flags = (uint16_t)(flags | packed_flags(r->next_wrap, false));
        packed_step(&r->next, &r->next_wrap);
        i = r->desc[i].next;
    } while (flags & NEXT && CHECK(r->count[id] < PACKED_LEN));
    vmm_put16(packed_entry(q, first) + 14, first_flags);
}

/* Looks for chains that came back. */
static inline void packed_reap(unsigned q)
{
    struct packed *r = &packed[q];

    for (;;) {
        const uint8_t *e = packed_entry(q, r->reap);
        unsigned id = vmm_get16(e + 12) % 256;
        if ((vmm_get16(e + 14) & 0x8080) != packed_flags(r->reap_wrap, true))
            return;
        CHECK_EQ(!!(vmm_get16(e + 14) & WRITE), vmm_get32(e + 8) != 0);
        r->used_head[r->nused % 64] = r->head[id];
        r->used_len[r->nused++ % 64] = vmm_get32(e + 8);
        for (unsigned n = r->count[id]; n > 0; n--)
            packed_step(&r->reap, &r->reap_wrap);
    }
}

/* Offers the chain that begins with descriptor `head`. */
static inline void offer(unsigned q, unsigned head)
{
    if (mode.packed) {
        packed_reap(q); /* what came back lies where this may go */
        packed_offer(q, head);
        return;
    }
    vmm_put16(avail(q) + 4 + 2 * (avail_idx[q] % QLEN), (uint16_t)head);
    vmm_put16(avail(q) + 2, ++avail_idx[q]);
}

/* How many chains came back since the queue was set up (split: modulo 65536), and the i-th. */
static inline unsigned used_idx(unsigned q)
{
    if (!mode.packed)
        return vmm_get16(used(q) + 2);
    packed_reap(q);
    return packed[q].nused;
}

static inline unsigned used_len(unsigned q, unsigned i)
{
    if (!mode.packed)
        return vmm_get32(used(q) + 4 + 8 * (i % QLEN) + 4);
    return CHECK(i < used_idx(q)) ? packed[q].used_len[i % 64] : ~0u;
}

static inline unsigned used_head(unsigned q, unsigned i)
{
    if (!mode.packed)
        return vmm_get32(used(q) + 4 + 8 * (i % QLEN));
    return CHECK(i < used_idx(q)) ? packed[q].used_head[i % 64] : ~0u;
}

#endif /* VIO_DRIVER_H */
