/* vmm --binary liar64.bin --entry 0x1000 --mode 64 [--disk FILE]; linked at 0x1000
   With --console virtio --serial file:PATH it lies to a console too.
   expect: COM1 "pass 1" to "pass 3", then "N devices, M lies, all survived", status 0
   A driver that breaks the rules in every way that we could think of, on every virtio device, over
   either transport, with either kind of rings where a device offers both. Where the rings lie, the
   device must say NEEDS_RESET; after each lie it must work again once it is reset, and meanwhile
   another device (a random number generator) must work on as if nothing had been.
   Otherwise: COM1 names the lie, and its number (from 1) is the status.
   MIT licence, see LICENSE */
#include "guest.h"

/* Each gets a device that was started and is idle, with an empty ring. */

static void loop_of_one(struct dev *d)
{
    describe(d, 0, d->at->buffer, 16, NEXT | WRITE);
    d->at->descs[0].next = 0;
    offer(d, 0);
}

static void loop_of_two(struct dev *d)
{
    describe(d, 0, d->at->buffer, 16, NEXT);
    describe(d, 1, d->at->buffer, 16, NEXT);
    d->at->descs[1].next = 0;
    offer(d, 0);
}

static void next_outside(struct dev *d)
{
    describe(d, 0, d->at->buffer, 16, NEXT);
    d->at->descs[0].next = 0x1234;
    offer(d, 0);
}

static void head_outside(struct dev *d)
{
    offer(d, RING_SIZE);
}

static void head_far_outside(struct dev *d)
{
    offer(d, 0xffff);
}

/* A buffer at `addr`, in a chain that is otherwise fine for the device. */
static void buffer_at(struct dev *d, uint64_t addr, uint32_t len)
{
    bool blk = d->id == ID_BLK;
    unsigned i = blk ? 1 : 0;

    d->at->header.type = 0;
    d->at->header.sector = 0;
    describe(d, 0, &d->at->header, 16, NEXT);
    describe(d, i, d->at->buffer, len, d->id == ID_CONSOLE ? 0 : blk ? NEXT | WRITE : WRITE);
    d->at->descs[i].addr = addr;
    describe(d, 2, &d->at->status, 1, WRITE);
    offer(d, 0);
}

static void buffer_beyond_memory(struct dev *d)
{
    buffer_at(d, 1ull << 50, 512);
}

static void buffer_wraps(struct dev *d)
{
    buffer_at(d, ~0ull - 15, 512);
}

static void buffer_in_a_device(struct dev *d)
{
    buffer_at(d, d->base, 512);
}

static void buffer_too_long(struct dev *d)
{
    buffer_at(d, (uint64_t)(uintptr_t)d->at->buffer, 0xfffffe00);
}

static void read_after_write(struct dev *d)
{
    describe(d, 0, d->at->buffer, 16, NEXT | WRITE);
    describe(d, 1, d->at->buffer, 16, 0);
    offer(d, 0);
}

static void indirect_unasked(struct dev *d)
{
    describe(d, 0, d->at->buffer, 32, INDIRECT);
    offer(d, 0);
}

static void avail_jumps(struct dev *d)
{
    d->at->avail.idx += 1000;
    notify(d);
}

static void avail_jumps_back(struct dev *d)
{
    d->at->avail.idx--;
    notify(d);
}

static void empty_chain(struct dev *d)
{
    describe(d, 0, d->at->buffer, 0, 0);
    offer(d, 0);
}

static void wrong_direction(struct dev *d)
{
    describe(d, 0, d->at->buffer, 16, d->id == ID_CONSOLE ? WRITE : 0);
    offer(d, 0);
}

static void notify_nowhere(struct dev *d)
{
    put(d, QUEUE_NOTIFY, 77);
    put(d, QUEUE_NOTIFY, 0xffffffff);
    put(d, QUEUE_NOTIFY, 0xffff0000u | d->queue);
}

static void ring_moves_while_ready(struct dev *d)
{
    put_address(d, QUEUE_DESC, 1ull << 60);
    put_address(d, QUEUE_DEVICE, 0);
    put(d, QUEUE_SIZE, 0xffff);
    describe(d, 0, d->at->buffer, 16, WRITE);
    offer(d, 0);
}

static void ready_goes_away(struct dev *d)
{
    describe(d, 0, d->at->buffer, 16, WRITE);
    d->at->avail.idx = 1;
    put(d, QUEUE_READY, 0);
    notify(d);
    put(d, QUEUE_READY, 1);
    notify(d);
}

static void status_goes_backwards(struct dev *d)
{
    put(d, STATUS, DRIVER);
    notify(d);
    put(d, STATUS, 0xffffffff);
    notify(d);
}

static void kick_storm(struct dev *d)
{
    for (unsigned i = 0; i < 2000; i++)
        notify(d);
}

/* Requests under way when the device, or the queue, is reset. */
static void reset_in_flight(struct dev *d)
{
    for (unsigned i = 0; i < 20; i++) {
        describe_read(d);
        offer(d, 0);
        offer(d, 0);
        put(d, STATUS, 0);
        if (i % 2)
            start(d);
    }
}

static void queue_reset_in_flight(struct dev *d)
{
    for (unsigned i = 0; i < 20; i++) {
        describe_read(d);
        offer(d, 0);
        offer(d, 0);
        put(d, QUEUE_RESET, 1);
        notify(d);
        place_queue(d);
        put(d, QUEUE_READY, 1);
    }
}

/* Packed rings: all entries at a time, in one chain without an end. */
static void chain_around_the_ring(struct dev *d)
{
    for (unsigned i = 0; i < RING_SIZE; i++)
        d->at->entries[i].flags = NEXT | WRITE | AVAIL;
    notify(d);
}

/* Packed rings: entries become available again and again, whether they came back or not. */
static void entries_without_end(struct dev *d)
{
    describe_read(d);
    for (unsigned i = 0; i < 100; i++)
        offer(d, 0);
}

/* These prepare the queue anew, wrongly, from a reset. */
static void queue_of_size(struct dev *d, uint32_t size)
{
    negotiate(d);
    place_queue(d);
    put(d, QUEUE_SIZE, size);
    go(d);
    describe(d, 0, d->at->buffer, 16, WRITE);
    offer(d, 0);
}

static void odd_sizes(struct dev *d)
{
    static const uint32_t size[] = {0, 32768, 32769, 0xffff, 0x10008, 0x80000000, 0xffffffff};

    for (unsigned i = 0; i < sizeof size / sizeof size[0]; i++)
        queue_of_size(d, size[i]);
}

static void odd_places(struct dev *d)
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

static void ready_without_places(struct dev *d)
{
    negotiate(d);
    put(d, QUEUE_SEL, d->queue);
    go(d);
    notify(d);
}

static void go_without_negotiation(struct dev *d)
{
    reset(d);
    place_queue(d);
    put(d, QUEUE_READY, 1);
    notify(d);
    put(d, STATUS, DRIVER_OK);
    offer(d, 0);
}

static void features_not_offered(struct dev *d)
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

static void queue_that_is_not(struct dev *d)
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
static void registers_read(struct dev *d)
{
    for (uint64_t at = d->base; at < d->base + 0x120; at++) {
        (void)*(volatile uint8_t *)at;
        (void)*(volatile uint16_t *)at;
        (void)*(volatile uint32_t *)at;
        (void)*(volatile uint64_t *)at;
    }
    (void)*(volatile uint32_t *)(d->base + MMIO_STEP - 4);
}

static void registers_written(struct dev *d)
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

enum outcome { ANY, BROKEN };       /* BROKEN: the device must ask for a reset */
enum rings { BOTH, SPLIT, PACKED }; /* which can tell such a lie */

static const struct lie {
    void (*tell)(struct dev *d);
    enum outcome outcome;
    enum rings rings;
    const char *name;
} lies[] = {
    {loop_of_one, BROKEN, BOTH, "a descriptor that follows itself"},
    {loop_of_two, BROKEN, BOTH, "a loop of two descriptors"},
    {next_outside, BROKEN, SPLIT, "a next outside of the table"},
    {head_outside, BROKEN, SPLIT, "a head just outside of the table"},
    {head_far_outside, BROKEN, SPLIT, "a head far outside of the table"},
    {buffer_beyond_memory, BROKEN, BOTH, "a buffer beyond memory"},
    {buffer_wraps, BROKEN, BOTH, "a buffer that wraps around"},
    {buffer_in_a_device, BROKEN, BOTH, "a buffer in a device"},
    {buffer_too_long, BROKEN, BOTH, "a buffer longer than memory"},
    {read_after_write, BROKEN, BOTH, "a readable buffer after a writable one"},
    {indirect_unasked, BROKEN, BOTH, "an indirect table without the feature"},
    {avail_jumps, BROKEN, SPLIT, "an avail index that jumps by 1000"},
    {avail_jumps_back, BROKEN, SPLIT, "an avail index that goes back"},
    {empty_chain, ANY, BOTH, "an empty buffer"},
    {wrong_direction, ANY, BOTH, "a buffer in the wrong direction"},
    {chain_around_the_ring, ANY, PACKED, "a chain all around the ring"},
    {entries_without_end, ANY, PACKED, "entries that are available while they are out"},
    {kick_storm, ANY, BOTH, "notifications for nothing"},
    {reset_in_flight, ANY, BOTH, "resets with requests under way"},
    {queue_reset_in_flight, ANY, BOTH, "resets of the queue with requests under way"},
    {notify_nowhere, ANY, BOTH, "a notification of no queue"},
    {ring_moves_while_ready, ANY, BOTH, "a ring that moves while it is ready"},
    {ready_goes_away, ANY, BOTH, "a queue that goes away and comes back"},
    {status_goes_backwards, ANY, BOTH, "a status that loses and gains bits"},
    {odd_sizes, ANY, BOTH, "odd queue sizes"},
    {odd_places, ANY, BOTH, "rings in odd places"},
    {ready_without_places, ANY, BOTH, "a queue ready without addresses"},
    {go_without_negotiation, ANY, BOTH, "no negotiation"},
    {features_not_offered, ANY, BOTH, "features that were not offered"},
    {queue_that_is_not, ANY, BOTH, "a queue that does not exist"},
    {registers_read, ANY, BOTH, "reads of every register"},
    {registers_written, ANY, BOTH, "writes to every register"},
};
enum { NLIES = sizeof lies / sizeof lies[0] };

static bool asks_for_reset(struct dev *d)
{
    for (unsigned i = 0; i < PATIENCE; i++)
        if (get(d, STATUS) & NEEDS_RESET)
            return true;
    return false;
}

/* The device that is not lied to. */
static struct dev witness;

static bool find_witness(void)
{
    for (unsigned slot = 0; slot < NSLOTS; slot++)
        if (probe(&witness, slot, false) && witness.id == ID_RNG) {
            witness.at = ARENA(1);
            return start(&witness);
        }
    return false;
}

/* NULL, or what was wrong. */
static const char *survives(struct dev *d, const struct lie *lie)
{
    bool other = d->base != witness.base;

    if (!start(d))
        return "does not start";
    lie->tell(d);
    if (other && !request(&witness))
        return "another device stopped";
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

static void complain(const struct dev *d, const struct lie *lie, const char *wrong)
{
    print("device ");
    print_number(d->id);
    print(d->pci ? ", PCI" : ", MMIO");
    print(d->packed ? ", packed rings, after " : ", split rings, after ");
    print(lie->name);
    print(": ");
    print(wrong);
    print("\n");
}

/* Tells one device all lies, with one kind of rings: 0, or the number of the one that it did not
   survive. */
static int lie_to(struct dev *d, unsigned *told)
{
    for (unsigned i = 0; i < NLIES; i++) {
        const char *wrong;
        if (lies[i].rings == (d->packed ? SPLIT : PACKED))
            continue;
        wrong = survives(d, &lies[i]);
        if (wrong) {
            complain(d, &lies[i], wrong);
            return (int)i + 1;
        }
        ++*told;
    }
    reset(d);
    return 0;
}

/* The same for all devices. The witness starts afresh, for it is lied to in its turn. */
static int lie_to_all(unsigned *devices, unsigned *told)
{
    struct dev d;

    for (unsigned i = 0; i < 2 * NSLOTS; i++) {
        int failed;
        if (!probe(&d, i / 2, i % 2) || !offers(&d))
            continue;
        *devices += i % 2 == 0;
        if (d.base != witness.base && !start(&witness))
            return 254;
        failed = lie_to(&d, told);
        if (failed)
            return failed;
    }
    return 0;
}

static int guest(void)
{
    unsigned devices = 0, told = 0;

    if (!find_witness())
        return 255;
    for (unsigned pass = 1; pass <= 3; pass++) {
        int failed = lie_to_all(&devices, &told);
        if (failed)
            return failed;
        print("pass ");
        print_number(pass);
        print("\n");
    }
    print_number(devices / 3);
    print(" devices, ");
    print_number(told);
    print(" lies, all survived\n");
    return 0;
}
