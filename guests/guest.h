/* guest.h - what the guests in C share: a start, ports, COM1, an honest virtio driver.
   MIT licence, see LICENSE

   A guest is one C file that includes this and defines guest(), whose result is the exit status.
   It runs in 64-bit mode, without interrupts, with memory mapped one to one, and has no libc. Rings
   and buffers lie at fixed addresses, because a flat binary brings no zeroed memory. The driver speaks
   virtio-mmio and virtio-pci, with split and packed rings; guests describe their chains in the form
   of a split ring, and name registers as virtio-mmio does. */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static int guest(void);

/* The linker puts this section first: the entry point is the first byte of the binary. */
__asm__(".section .text.unlikely, \"ax\"\n"
        ".globl _start\n"
        "_start: cld\n"
        "and $-16, %rsp\n"
        "call run\n"
        ".text\n");

static inline void outb(uint16_t port, uint8_t val)
{
    __asm__ volatile("outb %0, %1" : : "a"(val), "Nd"(port) : "memory");
}

static void print(const char *text)
{
    for (; *text; text++)
        outb(0x3f8, (uint8_t)*text);
}

/* Debug exit; the loop is for a machine without that port. */
static _Noreturn void finish(uint8_t status)
{
    outb(0xf4, status);
    for (;;)
        __asm__ volatile("hlt");
}

__attribute__((used)) static _Noreturn void run(void)
{
    finish((uint8_t)guest());
}

/* The compiler may turn loops into calls of these. */
__attribute__((used)) void *memset(void *to, int val, size_t len)
{
    void *at = to;

    __asm__ volatile("rep stosb" : "+D"(at), "+c"(len) : "a"(val) : "memory");
    return to;
}

__attribute__((used)) void *memcpy(void *to, const void *from, size_t len)
{
    void *at = to;

    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(len) : : "memory");
    return to;
}

/* virtio-mmio, version 2 (virtio 1.2, section 4.2.2). */
enum {
    MMIO_FIRST = 0xd0000000,
    MMIO_STEP = 0x1000,
    MMIO_SLOTS = 32,
    MAGIC = 0x00,
    VERSION = 0x04,
    DEVICE_ID = 0x08,
    DEVICE_FEATURES = 0x10,
    DEVICE_FEATURES_SEL = 0x14,
    DRIVER_FEATURES = 0x20,
    DRIVER_FEATURES_SEL = 0x24,
    QUEUE_SEL = 0x30,
    QUEUE_SIZE_MAX = 0x34,
    QUEUE_SIZE = 0x38,
    QUEUE_READY = 0x44,
    QUEUE_NOTIFY = 0x50,
    STATUS = 0x70,
    QUEUE_DESC = 0x80,
    QUEUE_DRIVER = 0x90,
    QUEUE_DEVICE = 0xa0,
    QUEUE_RESET = 0xc0
};
/* PCI: configuration space by ECAM, devices of bus 0. */
enum { PCI_ECAM = 0xe0000000, PCI_STEP = 0x8000, PCI_SLOTS = 32, NSLOTS = MMIO_SLOTS + PCI_SLOTS };
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, NEEDS_RESET = 64 };
enum { F1_VERSION_1 = 1, F1_PACKED = 4, F1_RING_RESET = 0x100 }; /* features 32 and up */
enum { NEXT = 1, WRITE = 2, INDIRECT = 4, AVAIL = 0x80, USED = 0x8000 };
enum { ID_BLK = 2, ID_CONSOLE = 3, ID_RNG = 4 };
enum { RING_SIZE = 8, PATIENCE = 50000 }; /* PATIENCE: looks, each of which leaves the guest */

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

/* An entry of a packed ring. */
struct entry {
    uint64_t addr;
    uint32_t len;
    uint16_t id, flags;
};

struct avail {
    uint16_t flags, idx, ring[RING_SIZE];
};

struct used {
    uint16_t flags, idx;
    struct {
        uint32_t id, len;
    } ring[RING_SIZE];
};

struct blk_header {
    uint32_t type, reserved;
    uint64_t sector;
};

/* All that one device uses of memory. */
struct arena {
    struct desc descs[4096 / 16]; /* a split ring's table, or what goes into a packed ring */
    struct entry entries[4096 / 16];
    union {
        struct avail avail;
        uint8_t avail_page[4096];
    };
    union {
        struct used used;
        uint8_t used_page[4096];
    };
    struct blk_header header;
    uint8_t status;
    uint8_t buffer[4096];
};
#define ARENA(n) ((volatile struct arena *)(0x400000 + 0x10000 * (uint64_t)(n)))

struct dev {
    volatile struct arena *at;
    bool pci, packed;
    uint64_t base;     /* registers; PCI: the common structure */
    uint64_t doorbell; /* PCI: of our queue */
    uint32_t id;
    uint16_t queue;             /* the one that we use */
    uint16_t count;             /* chains offered */
    uint16_t next;              /* packed: the entry to use next, */
    bool wrap;                  /* and the wrap counter there */
    uint16_t reap;              /* packed: where what comes back is written next */
    bool reap_wrap;             /* and the wrap counter there */
    uint16_t reaped;            /* chains that came back */
    uint8_t entries[RING_SIZE]; /* packed: of each chain that is out, by id */
};

/* Where a register of virtio-mmio is in virtio-pci (4.1.4.3): offset and width; -1: nowhere. */
static int pci_register(unsigned reg, unsigned *width)
{
    *width = 4;
    if (reg >= QUEUE_DESC && reg < QUEUE_DEVICE + 8) {
        unsigned area = (reg - QUEUE_DESC) / 16;
        return (int)(32 + 8 * area + (reg & 4));
    }
    switch (reg) {
    case DEVICE_FEATURES_SEL:
        return 0;
    case DEVICE_FEATURES:
        return 4;
    case DRIVER_FEATURES_SEL:
        return 8;
    case DRIVER_FEATURES:
        return 12;
    case STATUS:
        *width = 1;
        return 20;
    default:
        *width = 2;
        return reg == QUEUE_SEL     ? 22
               : reg == QUEUE_SIZE  ? 24
               : reg == QUEUE_READY ? 28
               : reg == QUEUE_RESET ? 58
                                    : -1;
    }
}

static inline uint32_t get(const struct dev *d, unsigned reg)
{
    unsigned width;
    int at = pci_register(reg, &width);

    if (!d->pci)
        return *(volatile uint32_t *)(d->base + reg);
    if (at < 0)
        return 0;
    return width == 1   ? *(volatile uint8_t *)(d->base + (unsigned)at)
           : width == 2 ? *(volatile uint16_t *)(d->base + (unsigned)at)
                        : *(volatile uint32_t *)(d->base + (unsigned)at);
}

static inline void put(const struct dev *d, unsigned reg, uint32_t val)
{
    unsigned width;
    int at = pci_register(reg, &width);

    if (!d->pci)
        *(volatile uint32_t *)(d->base + reg) = val;
    else if (at < 0)
        return;
    else if (width == 1)
        *(volatile uint8_t *)(d->base + (unsigned)at) = (uint8_t)val;
    else if (width == 2)
        *(volatile uint16_t *)(d->base + (unsigned)at) = (uint16_t)val;
    else
        *(volatile uint32_t *)(d->base + (unsigned)at) = val;
}

static void put_address(const struct dev *d, unsigned reg, uint64_t addr)
{
    put(d, reg, (uint32_t)addr);
    put(d, reg + 4, (uint32_t)(addr >> 32));
}

static void notify(const struct dev *d)
{
    if (d->pci)
        *(volatile uint16_t *)d->doorbell = d->queue;
    else
        put(d, QUEUE_NOTIFY, d->queue);
}

static bool probe_mmio(struct dev *d, unsigned slot)
{
    d->base = MMIO_FIRST + (uint64_t)slot * MMIO_STEP;
    if (get(d, MAGIC) != 0x74726976 || get(d, VERSION) != 2)
        return false;
    d->id = get(d, DEVICE_ID);
    return d->id != 0;
}

/* Finds the structures of a modern virtio-pci device by their capabilities, 4.1.4. */
static bool probe_pci(struct dev *d, unsigned slot)
{
    uint64_t cfg = PCI_ECAM + (uint64_t)slot * PCI_STEP, bar;
    uint32_t id = *(volatile uint32_t *)cfg;

    if ((id & 0xffff) != 0x1af4 || id >> 16 < 0x1040)
        return false;
    d->id = (id >> 16) - 0x1040;
    *(volatile uint16_t *)(cfg + 4) = 6; /* memory, bus master */
    for (unsigned at = *(volatile uint8_t *)(cfg + 0x34); at;
         at = *(volatile uint8_t *)(cfg + at + 1)) {
        unsigned type = *(volatile uint8_t *)(cfg + at + 3);
        if (*(volatile uint8_t *)(cfg + at) != 9)
            continue;
        bar = *(volatile uint32_t *)(cfg + 0x10 + 4 * *(volatile uint8_t *)(cfg + at + 4)) & ~15u;
        bar += *(volatile uint32_t *)(cfg + at + 8);
        if (type == 1)
            d->base = bar;
        if (type == 2) /* the queue's number is its offset with us, see 4.1.4.4 */
            d->doorbell = bar + *(volatile uint32_t *)(cfg + at + 16) * (uint64_t)d->queue;
    }
    return d->base != 0;
}

/* The device in a slot, to be used with one kind of rings; false: there is none. */
static bool probe(struct dev *d, unsigned slot, bool packed)
{
    uint32_t id;

    memset(d, 0, sizeof *d);
    d->at = ARENA(0);
    d->packed = packed;
    d->pci = slot >= MMIO_SLOTS;
    if (!(d->pci ? probe_pci(d, slot - MMIO_SLOTS) : probe_mmio(d, slot)))
        return false;
    id = d->id;
    d->queue = id == ID_CONSOLE;                       /* its queue 1 is the one from the guest */
    return !d->pci || probe_pci(d, slot - MMIO_SLOTS); /* again, for the doorbell of that queue */
}

/* Status 0 is reset; the device has done it when the status reads 0. */
static bool reset(const struct dev *d)
{
    put(d, STATUS, 0);
    for (unsigned i = 0; i < PATIENCE; i++)
        if (get(d, STATUS) == 0)
            return true;
    return false;
}

/* Initialisation up to the features, 3.1.1 steps 1 to 6: VERSION_1, RING_RESET, RING_PACKED if that
   kind of ring is meant, and nothing else. */
static bool negotiate(const struct dev *d)
{
    uint32_t want = F1_VERSION_1 | F1_RING_RESET | (d->packed ? F1_PACKED : 0);

    if (!reset(d))
        return false;
    put(d, STATUS, ACKNOWLEDGE);
    put(d, STATUS, ACKNOWLEDGE | DRIVER);
    put(d, DEVICE_FEATURES_SEL, 1);
    if ((get(d, DEVICE_FEATURES) & want) != want)
        return false;
    put(d, DRIVER_FEATURES_SEL, 0);
    put(d, DRIVER_FEATURES, 0);
    put(d, DRIVER_FEATURES_SEL, 1);
    put(d, DRIVER_FEATURES, want);
    put(d, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    return (get(d, STATUS) & FEATURES_OK) != 0;
}

/* Does the device offer this kind of rings? */
static bool offers(const struct dev *d)
{
    put(d, DEVICE_FEATURES_SEL, 1);
    return !d->packed || get(d, DEVICE_FEATURES) & F1_PACKED;
}

/* Step 7: an empty queue of RING_SIZE, not yet ready. */
static void place_queue(struct dev *d)
{
    memset((void *)d->at, 0, offsetof(struct arena, header));
    d->count = d->next = d->reap = d->reaped = 0;
    d->wrap = d->reap_wrap = true;
    put(d, QUEUE_SEL, d->queue);
    put(d, QUEUE_SIZE, RING_SIZE);
    put_address(d, QUEUE_DESC,
                (uint64_t)(d->packed ? (uintptr_t)d->at->entries : (uintptr_t)d->at->descs));
    put_address(d, QUEUE_DRIVER, (uint64_t)(uintptr_t)&d->at->avail);
    put_address(d, QUEUE_DEVICE, (uint64_t)(uintptr_t)&d->at->used);
}

/* Step 8: the device may go. */
static void go(const struct dev *d)
{
    put(d, QUEUE_READY, 1);
    put(d, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

static bool start(struct dev *d)
{
    if (!negotiate(d))
        return false;
    place_queue(d);
    go(d);
    return !(get(d, STATUS) & NEEDS_RESET);
}

static void describe(const struct dev *d, unsigned i, volatile const void *addr, uint32_t len,
                     uint16_t flags)
{
    d->at->descs[i].addr = (uint64_t)(uintptr_t)addr;
    d->at->descs[i].len = len;
    d->at->descs[i].flags = flags;
    d->at->descs[i].next = (uint16_t)(i + 1);
}

static void fence(void)
{
    __asm__ volatile("mfence" : : : "memory");
}

/* The flags that make an entry of a packed ring available, or used (2.8.1). */
static uint16_t entry_flags(bool wrap, bool used)
{
    return (uint16_t)((wrap ? AVAIL : 0) | (wrap == used ? USED : 0));
}

static void entry_step(uint16_t *at, bool *wrap)
{
    if (++*at < RING_SIZE)
        return;
    *at = 0;
    *wrap = !*wrap;
}

/* Copies the chain into the ring, at most once around; its first entry becomes available last. */
static void offer_packed(struct dev *d, uint16_t head)
{
    uint16_t first = d->next, id = d->count % RING_SIZE, i = head, flags, first_flags = 0;
    uint8_t n = 0;

    do {
        volatile struct entry *e = &d->at->entries[d->next];
        flags = d->at->descs[i].flags;
        e->addr = d->at->descs[i].addr;
        e->len = d->at->descs[i].len;
        e->id = id;
        if (n++)
            e->flags = flags | entry_flags(d->wrap, false);
        else
            first_flags = flags | entry_flags(d->wrap, false);
        entry_step(&d->next, &d->wrap);
        i = d->at->descs[i].next % RING_SIZE;
    } while (flags & NEXT && n < RING_SIZE);
    d->entries[id] = n;
    fence();
    d->at->entries[first].flags = first_flags;
}

/* Offers the chain that starts at descriptor `head`, without a ring. */
static void offer_quietly(struct dev *d, uint16_t head)
{
    if (d->packed) {
        offer_packed(d, head);
    } else {
        d->at->avail.ring[d->at->avail.idx % RING_SIZE] = head;
        fence();
        d->at->avail.idx++;
    }
    d->count++;
    fence();
}

static void offer(struct dev *d, uint16_t head)
{
    offer_quietly(d, head);
    notify(d);
}

/* How many chains came back; *len: of the last one. */
static uint16_t came_back(struct dev *d, uint32_t *len)
{
    if (!d->packed) {
        uint16_t idx = d->at->used.idx;
        *len = d->at->used.ring[(idx - 1) % RING_SIZE].len;
        return idx;
    }
    for (;;) {
        volatile struct entry *e = &d->at->entries[d->reap];
        if ((e->flags & (AVAIL | USED)) != entry_flags(d->reap_wrap, true))
            return d->reaped;
        fence();
        *len = e->len;
        for (unsigned n = d->entries[e->id % RING_SIZE]; n > 0; n--)
            entry_step(&d->reap, &d->reap_wrap);
        d->reaped++;
    }
}

/* Waits until as many chains came back as were offered. */
static bool served(struct dev *d, uint32_t *len)
{
    for (unsigned i = 0; i < PATIENCE; i++)
        if (get(d, STATUS) != 0 && came_back(d, len) == d->count)
            return true;
    return false;
}

/* 16 random bytes to the buffer. */
static bool rng_request(struct dev *d)
{
    unsigned seen = 0;
    uint32_t len = 0;

    memset((void *)d->at->buffer, 0, 32);
    describe(d, 0, d->at->buffer, 16, WRITE);
    offer(d, 0);
    if (!served(d, &len) || len != 16)
        return false;
    for (unsigned i = 0; i < 32; i++)
        seen |= (unsigned)d->at->buffer[i] << (i < 16 ? 0 : 8); /* all of 16, nothing beyond */
    return seen != 0 && seen < 256;
}

/* The chain that reads sector 0 to the buffer. */
static void describe_read(const struct dev *d)
{
    d->at->header.type = 0;
    d->at->header.reserved = 0;
    d->at->header.sector = 0;
    d->at->status = 0xff;
    describe(d, 0, &d->at->header, 16, NEXT);
    describe(d, 1, d->at->buffer, 512, NEXT | WRITE);
    describe(d, 2, &d->at->status, 1, WRITE);
}

static bool blk_request(struct dev *d)
{
    uint32_t len = 0;

    describe_read(d);
    offer(d, 0);
    return served(d, &len) && d->at->status == 0 && len == 513;
}

/* An empty line, so that a line on COM1 stays one even if both are shown in one place. */
static bool console_request(struct dev *d)
{
    uint32_t len;

    d->at->buffer[0] = '\n';
    describe(d, 0, d->at->buffer, 1, 0);
    offer(d, 0);
    return served(d, &len);
}

/* One request on a device that was started; a kind that we do not know passes. */
static bool request(struct dev *d)
{
    switch (d->id) {
    case ID_RNG:
        return rng_request(d);
    case ID_BLK:
        return blk_request(d);
    case ID_CONSOLE:
        return console_request(d);
    default:
        return true;
    }
}

#endif /* GUEST_H */
