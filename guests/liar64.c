/* vmm --binary liar64.bin --entry 0x1000 --mode 64 [--disk FILE]; linked at 0x1000
   With --console virtio --serial file:PATH it lies to a console too.
   expect: COM1 "N devices, M lies, all survived", status 0
   A driver that breaks the rules in every way that we could think of, on every virtio device. Where
   the rings lie, the device must say NEEDS_RESET; after each lie it must work again once it is
   reset. Otherwise: COM1 names the lie, and its number (from 1) is the status.
   MIT licence, see LICENSE */
#include "guest.h"

/* Each gets a device that was started and is idle, with an empty ring. */

static void loop_of_one(const struct dev *d)
{
    describe(0, BUFFER, 16, NEXT | WRITE);
    DESCS[0].next = 0;
    offer(d, 0);
}

static void loop_of_two(const struct dev *d)
{
    describe(0, BUFFER, 16, NEXT);
    describe(1, BUFFER, 16, NEXT);
    DESCS[1].next = 0;
    offer(d, 0);
}

static void next_outside(const struct dev *d)
{
    describe(0, BUFFER, 16, NEXT);
    DESCS[0].next = 0x1234;
    offer(d, 0);
}

static void head_outside(const struct dev *d)
{
    offer(d, RING_SIZE);
}

static void head_far_outside(const struct dev *d)
{
    offer(d, 0xffff);
}

/* A buffer at `addr`, in a chain that is otherwise fine for the device. */
static void buffer_at(const struct dev *d, uint64_t addr, uint32_t len)
{
    bool blk = d->id == ID_BLK;
    unsigned i = blk ? 1 : 0;

    BLK_HEADER->type = 0;
    BLK_HEADER->sector = 0;
    describe(0, BLK_HEADER, 16, NEXT);
    describe(i, BUFFER, len, d->id == ID_CONSOLE ? 0 : blk ? NEXT | WRITE : WRITE);
    DESCS[i].addr = addr;
    describe(2, BLK_STATUS, 1, WRITE);
    offer(d, 0);
}

static void buffer_beyond_memory(const struct dev *d)
{
    buffer_at(d, 1ull << 50, 512);
}

static void buffer_wraps(const struct dev *d)
{
    buffer_at(d, ~0ull - 15, 512);
}

static void buffer_in_a_device(const struct dev *d)
{
    buffer_at(d, d->base, 512);
}

static void buffer_too_long(const struct dev *d)
{
    buffer_at(d, (uint64_t)(uintptr_t)BUFFER, 0xfffffe00);
}

static void read_after_write(const struct dev *d)
{
    describe(0, BUFFER, 16, NEXT | WRITE);
    describe(1, BUFFER, 16, 0);
    offer(d, 0);
}

static void indirect_unasked(const struct dev *d)
{
    describe(0, BUFFER, 32, INDIRECT);
    offer(d, 0);
}

static void avail_jumps(const struct dev *d)
{
    AVAIL->idx += 1000;
    put(d, QUEUE_NOTIFY, d->queue);
}

static void avail_jumps_back(const struct dev *d)
{
    AVAIL->idx--;
    put(d, QUEUE_NOTIFY, d->queue);
}

static void empty_chain(const struct dev *d)
{
    describe(0, BUFFER, 0, 0);
    offer(d, 0);
}

static void wrong_direction(const struct dev *d)
{
    describe(0, BUFFER, 16, d->id == ID_CONSOLE ? WRITE : 0);
    offer(d, 0);
}

static void notify_nowhere(const struct dev *d)
{
    put(d, QUEUE_NOTIFY, 77);
    put(d, QUEUE_NOTIFY, 0xffffffff);
    put(d, QUEUE_NOTIFY, 0xffff0000u | d->queue);
}

static void ring_moves_while_ready(const struct dev *d)
{
    put_address(d, QUEUE_DESC, 1ull << 60);
    put_address(d, QUEUE_DEVICE, 0);
    put(d, QUEUE_SIZE, 0xffff);
    describe(0, BUFFER, 16, WRITE);
    offer(d, 0);
}

static void ready_goes_away(const struct dev *d)
{
    describe(0, BUFFER, 16, WRITE);
    AVAIL->idx = 1;
    put(d, QUEUE_READY, 0);
    put(d, QUEUE_NOTIFY, d->queue);
    put(d, QUEUE_READY, 1);
    put(d, QUEUE_NOTIFY, d->queue);
}

static void status_goes_backwards(const struct dev *d)
{
    put(d, STATUS, DRIVER);
    put(d, QUEUE_NOTIFY, d->queue);
    put(d, STATUS, 0xffffffff);
    put(d, QUEUE_NOTIFY, d->queue);
}

/* These prepare the queue anew, wrongly, from a reset. */
static void queue_of_size(const struct dev *d, uint32_t size)
{
    negotiate(d);
    place_queue(d);
    put(d, QUEUE_SIZE, size);
    go(d);
    describe(0, BUFFER, 16, WRITE);
    offer(d, 0);
}

static void odd_sizes(const struct dev *d)
{
    static const uint32_t size[] = {0, 3, 7, 0x8000, 0xffff, 0x10008, 0x80000000, 0xffffffff};

    for (unsigned i = 0; i < sizeof size / sizeof size[0]; i++)
        queue_of_size(d, size[i]);
}

static void odd_places(const struct dev *d)
{
    static const unsigned area[] = {QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE};
    static const uint64_t place[] = {1ull << 52, ~0ull - 63, MMIO_FIRST, 0x400003, ~0ull};

    for (unsigned i = 0; i < sizeof area / sizeof area[0]; i++)
        for (unsigned k = 0; k < sizeof place / sizeof place[0]; k++) {
            negotiate(d);
            place_queue(d);
            put_address(d, area[i], place[k]);
            go(d);
            offer(d, 0);
        }
}

static void ready_without_places(const struct dev *d)
{
    negotiate(d);
    put(d, QUEUE_SEL, d->queue);
    go(d);
    put(d, QUEUE_NOTIFY, d->queue);
}

static void go_without_negotiation(const struct dev *d)
{
    reset(d);
    place_queue(d);
    put(d, QUEUE_READY, 1);
    put(d, QUEUE_NOTIFY, d->queue);
    put(d, STATUS, DRIVER_OK);
    offer(d, 0);
}

static void features_not_offered(const struct dev *d)
{
    reset(d);
    put(d, STATUS, ACKNOWLEDGE | DRIVER);
    for (unsigned sel = 0; sel < 4; sel++) {
        put(d, DRIVER_FEATURES_SEL, sel);
        put(d, DRIVER_FEATURES, 0xffffffff);
    }
    put(d, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    place_queue(d);
    go(d);
    offer(d, 0);
}

static void queue_that_is_not(const struct dev *d)
{
    negotiate(d);
    put(d, QUEUE_SEL, 0xffff);
    put(d, QUEUE_SIZE, RING_SIZE);
    put_address(d, QUEUE_DESC, 0x400000);
    go(d);
    put(d, QUEUE_SEL, 0xffffffff);
    put(d, QUEUE_READY, 1);
}

/* Every register, at every width, aligned or not. */
static void registers_read(const struct dev *d)
{
    for (uint64_t at = d->base; at < d->base + 0x120; at++) {
        (void)*(volatile uint8_t *)at;
        (void)*(volatile uint16_t *)at;
        (void)*(volatile uint32_t *)at;
        (void)*(volatile uint64_t *)at;
    }
    (void)*(volatile uint32_t *)(d->base + MMIO_STEP - 4);
}

static void registers_written(const struct dev *d)
{
    static const uint64_t val[] = {0, 1, ~0ull, 0x400000};

    for (unsigned i = 0; i < sizeof val / sizeof val[0]; i++)
        for (uint64_t at = d->base; at < d->base + 0x120; at++) {
            *(volatile uint8_t *)at = (uint8_t)val[i];
            *(volatile uint16_t *)at = (uint16_t)val[i];
            *(volatile uint32_t *)at = (uint32_t)val[i];
            *(volatile uint64_t *)at = val[i];
        }
}

enum outcome { ANY, BROKEN }; /* BROKEN: the device must ask for a reset */

static const struct lie {
    void (*tell)(const struct dev *d);
    enum outcome outcome;
    const char *name;
} lies[] = {
    {loop_of_one, BROKEN, "a descriptor that follows itself"},
    {loop_of_two, BROKEN, "a loop of two descriptors"},
    {next_outside, BROKEN, "a next outside of the table"},
    {head_outside, BROKEN, "a head just outside of the table"},
    {head_far_outside, BROKEN, "a head far outside of the table"},
    {buffer_beyond_memory, BROKEN, "a buffer beyond memory"},
    {buffer_wraps, BROKEN, "a buffer that wraps around"},
    {buffer_in_a_device, BROKEN, "a buffer in a device"},
    {buffer_too_long, BROKEN, "a buffer longer than memory"},
    {read_after_write, BROKEN, "a readable buffer after a writable one"},
    {indirect_unasked, BROKEN, "an indirect table without the feature"},
    {avail_jumps, BROKEN, "an avail index that jumps by 1000"},
    {avail_jumps_back, BROKEN, "an avail index that goes back"},
    {empty_chain, ANY, "an empty buffer"},
    {wrong_direction, ANY, "a buffer in the wrong direction"},
    {notify_nowhere, ANY, "a notification of no queue"},
    {ring_moves_while_ready, ANY, "a ring that moves while it is ready"},
    {ready_goes_away, ANY, "a queue that goes away and comes back"},
    {status_goes_backwards, ANY, "a status that loses and gains bits"},
    {odd_sizes, ANY, "odd queue sizes"},
    {odd_places, ANY, "rings in odd places"},
    {ready_without_places, ANY, "a queue ready without addresses"},
    {go_without_negotiation, ANY, "no negotiation"},
    {features_not_offered, ANY, "features that were not offered"},
    {queue_that_is_not, ANY, "a queue that does not exist"},
    {registers_read, ANY, "reads of every register"},
    {registers_written, ANY, "writes to every register"},
};
enum { NLIES = sizeof lies / sizeof lies[0] };

static bool asks_for_reset(const struct dev *d)
{
    for (unsigned i = 0; i < PATIENCE; i++)
        if (get(d, STATUS) & NEEDS_RESET)
            return true;
    return false;
}

/* NULL, or what was wrong. */
static const char *survives(const struct dev *d, const struct lie *lie)
{
    if (!start(d))
        return "does not start";
    lie->tell(d);
    if (lie->outcome == BROKEN && !asks_for_reset(d))
        return "did not ask for a reset";
    if (!start(d))
        return "does not start again";
    return request(d) ? NULL : "does not work again";
}

static void print_number(unsigned n)
{
    char digit[2] = "";

    if (n >= 10)
        print_number(n / 10);
    digit[0] = (char)('0' + n % 10);
    print(digit);
}

static int guest(void)
{
    unsigned devices = 0;
    struct dev d;

    for (unsigned slot = 0; slot < MMIO_SLOTS; slot++) {
        if (!probe(&d, slot))
            continue;
        devices++;
        for (unsigned i = 0; i < NLIES; i++) {
            const char *wrong = survives(&d, &lies[i]);
            if (!wrong)
                continue;
            print("device ");
            print_number(d.id);
            print(", after ");
            print(lies[i].name);
            print(": ");
            print(wrong);
            print("\n");
            return (int)i + 1;
        }
        reset(&d);
    }
    print_number(devices);
    print(" devices, ");
    print_number(devices * NLIES);
    print(" lies, all survived\n");
    return devices ? 0 : 255;
}
