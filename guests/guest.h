/* guest.h - what the guests in C share: a start, ports, COM1, an honest virtio-mmio driver.
   MIT licence, see LICENSE

   A guest is one C file that includes this and defines guest(), whose result is the exit status.
   It runs in 64-bit mode, without interrupts, with memory mapped one to one, and has no libc. Rings
   and buffers lie at fixed addresses, because a flat binary brings no zeroed memory. */
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
    QUEUE_DEVICE = 0xa0
};
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, NEEDS_RESET = 64 };
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
enum { ID_BLK = 2, ID_CONSOLE = 3, ID_RNG = 4 };
enum { RING_SIZE = 8, PATIENCE = 50000 }; /* PATIENCE: looks, each of which leaves the guest */

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
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

#define DESCS      ((volatile struct desc *)0x400000)
#define AVAIL      ((volatile struct avail *)0x401000)
#define USED       ((volatile struct used *)0x402000)
#define BLK_HEADER ((volatile struct blk_header *)0x403000)
#define BLK_STATUS ((volatile uint8_t *)0x403100)
#define BUFFER     ((volatile uint8_t *)0x404000)

struct dev {
    uint64_t base;
    uint32_t id;
    uint16_t queue; /* the one that we use */
};

static inline uint32_t get(const struct dev *d, unsigned reg)
{
    return *(volatile uint32_t *)(d->base + reg);
}

static inline void put(const struct dev *d, unsigned reg, uint32_t val)
{
    *(volatile uint32_t *)(d->base + reg) = val;
}

static void put_address(const struct dev *d, unsigned reg, uint64_t addr)
{
    put(d, reg, (uint32_t)addr);
    put(d, reg + 4, (uint32_t)(addr >> 32));
}

/* The device in a slot; false: there is none. */
static bool probe(struct dev *d, unsigned slot)
{
    d->base = MMIO_FIRST + (uint64_t)slot * MMIO_STEP;
    if (get(d, MAGIC) != 0x74726976 || get(d, VERSION) != 2)
        return false;
    d->id = get(d, DEVICE_ID);
    d->queue = d->id == ID_CONSOLE; /* its queue 1 is the one from the guest */
    return d->id != 0;
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

/* Initialisation up to the features, 3.1.1 steps 1 to 6: VERSION_1 and nothing else. */
static bool negotiate(const struct dev *d)
{
    if (!reset(d))
        return false;
    put(d, STATUS, ACKNOWLEDGE);
    put(d, STATUS, ACKNOWLEDGE | DRIVER);
    put(d, DEVICE_FEATURES_SEL, 1);
    if (!(get(d, DEVICE_FEATURES) & 1))
        return false;
    put(d, DRIVER_FEATURES_SEL, 0);
    put(d, DRIVER_FEATURES, 0);
    put(d, DRIVER_FEATURES_SEL, 1);
    put(d, DRIVER_FEATURES, 1);
    put(d, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    return (get(d, STATUS) & FEATURES_OK) != 0;
}

/* Step 7: an empty queue of RING_SIZE, not yet ready. */
static void place_queue(const struct dev *d)
{
    memset((void *)DESCS, 0, 0x3000);
    put(d, QUEUE_SEL, d->queue);
    put(d, QUEUE_SIZE, RING_SIZE);
    put_address(d, QUEUE_DESC, (uint64_t)(uintptr_t)DESCS);
    put_address(d, QUEUE_DRIVER, (uint64_t)(uintptr_t)AVAIL);
    put_address(d, QUEUE_DEVICE, (uint64_t)(uintptr_t)USED);
}

/* Step 8: the device may go. */
static void go(const struct dev *d)
{
    put(d, QUEUE_READY, 1);
    put(d, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

static bool start(const struct dev *d)
{
    if (!negotiate(d))
        return false;
    place_queue(d);
    go(d);
    return !(get(d, STATUS) & NEEDS_RESET);
}

static void describe(unsigned i, volatile const void *addr, uint32_t len, uint16_t flags)
{
    DESCS[i].addr = (uint64_t)(uintptr_t)addr;
    DESCS[i].len = len;
    DESCS[i].flags = flags;
    DESCS[i].next = (uint16_t)(i + 1);
}

/* Offers the chain that starts at descriptor `head`, and rings. */
static void offer(const struct dev *d, uint16_t head)
{
    AVAIL->ring[AVAIL->idx % RING_SIZE] = head;
    __asm__ volatile("mfence" : : : "memory");
    AVAIL->idx++;
    __asm__ volatile("mfence" : : : "memory");
    put(d, QUEUE_NOTIFY, d->queue);
}

/* Waits until as many chains came back as were offered. */
static bool served(const struct dev *d)
{
    for (unsigned i = 0; i < PATIENCE; i++)
        if (get(d, STATUS) != 0 && USED->idx == AVAIL->idx)
            return true;
    return false;
}

/* 16 random bytes to BUFFER. */
static bool rng_request(const struct dev *d)
{
    unsigned seen = 0;

    memset((void *)BUFFER, 0, 32);
    describe(0, BUFFER, 16, WRITE);
    offer(d, 0);
    if (!served(d) || USED->ring[0].id != 0 || USED->ring[0].len != 16)
        return false;
    for (unsigned i = 0; i < 32; i++)
        seen |= (unsigned)BUFFER[i] << (i < 16 ? 0 : 8); /* all of 16, nothing beyond */
    return seen != 0 && seen < 256;
}

/* Sector 0 to BUFFER. */
static bool blk_request(const struct dev *d)
{
    BLK_HEADER->type = 0;
    BLK_HEADER->reserved = 0;
    BLK_HEADER->sector = 0;
    *BLK_STATUS = 0xff;
    describe(0, BLK_HEADER, 16, NEXT);
    describe(1, BUFFER, 512, NEXT | WRITE);
    describe(2, BLK_STATUS, 1, WRITE);
    offer(d, 0);
    return served(d) && *BLK_STATUS == 0 && USED->ring[0].len == 513;
}

/* An empty line, so that a line on COM1 stays one even if both are shown in one place. */
static bool console_request(const struct dev *d)
{
    BUFFER[0] = '\n';
    describe(0, BUFFER, 1, 0);
    offer(d, 0);
    return served(d);
}

/* One request on a device that was just started; a kind that we do not know passes. */
static bool request(const struct dev *d)
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
