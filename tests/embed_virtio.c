/* embed_virtio.c - dev_virtio.h as an outsider uses it             MIT licence, see LICENSE

   Its quick start, and a guest that asks for one random byte. */
#include <stdio.h>

#define DEV_VIRTIO_IMPLEMENTATION
#include "../dev_virtio.h"

/* quick start */
static uint8_t ram[1 << 16];
static struct vmm_mem mem;
static struct vio_rng rng;
static struct vio_mmio slot;
static size_t dice(void *ctx, void *buf, size_t len)
{
    (void)ctx;
    memset(buf, 4, len); // chosen by fair dice roll
    return len;
}
static int machine(struct vmm_bus *bus)
{
    struct vmm_io io = {.base = 0xd0000000, .len = VIO_MMIO_LEN, .dev = &slot};
    io.read = vio_mmio_read;
    io.write = vio_mmio_write;
    vmm_mem_add(&mem, 0, sizeof ram, ram);
    vio_rng_init(&rng, &(struct vio_rng_desc){.fill = dice});
    vio_mmio_init(&slot, &(struct vio_mmio_desc){.dev = &rng.dev, .mem = &mem});
    return vmm_bus_add(bus, &io);
}
/* end */

static struct vmm_bus bus;

/* What the guest would do: set up queue 0, offer one buffer at 0x8000, ring. */
static void guest(void)
{
    static const uint32_t steps[][2] = {
        {0x70, 3},      {0x24, 1}, {0x20, 1},      {0x70, 11}, {0x38, 2}, {0x80, 0x1000}, {0x84, 0},
        {0x90, 0x2000}, {0x94, 0}, {0xa0, 0x3000}, {0xa4, 0},  {0x44, 1}, {0x70, 15},     {0x50, 0},
    };

    vmm_put64(ram + 0x1000, 0x8000); /* descriptor 0: address, length, flags: writable */
    vmm_put32(ram + 0x1008, 1);
    vmm_put16(ram + 0x100c, 2);
    vmm_put16(ram + 0x2002, 1); /* one chain is offered, head 0 */
    for (unsigned i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        uint64_t val = steps[i][1];
        vmm_bus_access(&bus, 0xd0000000 + steps[i][0], 4, true, &val);
    }
}

int main(void)
{
    int err = machine(&bus);

    if (!err)
        guest();
    printf("embed_virtio: the guest drew %d\n", ram[0x8000]);
    return err || ram[0x8000] != 4 || vmm_get16(ram + 0x3002) != 1;
}
