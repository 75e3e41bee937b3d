/* embed_pci.c - dev_pci.h as an outsider uses it                   MIT licence, see LICENSE

   Its quick start, and a guest that finds the card, asks how long its BAR is, moves it, and asks
   it the question. */
#include <stdio.h>

#define DEV_PCI_IMPLEMENTATION
#include "../dev_pci.h"

/* quick start */
static struct pci_root root;
static struct pci_dev card;
static uint64_t answer(void *ctx, uint64_t off, unsigned len)
{
    (void)ctx, (void)len;
    return off ? 0 : 42;
}
static int machine(struct vmm_bus *mmio, struct vmm_bus *ports)
{
    struct pci_root_desc desc = {.ecam = 0xe0000000};
    struct pci_desc is = {.vendor = 0x1234, .device = 1, .class_code = 0xff0000};
    desc.mmio32.base = 0xc0000000;
    desc.mmio32.len = 0x10000000;
    is.bar[0].len = 4096;
    is.bar[0].read = answer;
    pci_root_init(&root, &desc);
    pci_init(&card, &is);
    int err = pci_plug(&root, &card); // 00:01.0
    return err ? err : pci_root_add_io(&root, mmio, ports);
}
/* end */

static struct vmm_bus mmio, ports;

static uint64_t config(unsigned reg, bool write, uint64_t val)
{
    uint64_t address = 0x80000800 | reg;

    vmm_bus_access(&ports, 0xcf8, 4, true, &address);
    vmm_bus_access(&ports, 0xcfc, 4, write, &val);
    return val;
}

int main(void)
{
    uint64_t val = 0;
    int err = machine(&mmio, &ports);

    config(0x10, true, 0xffffffff);
    if (!err && (config(0, false, 0) != 0x00011234 || config(0x10, false, 0) != 0xfffff000))
        err = -ENODEV;
    config(0x10, true, 0xc5000000);
    config(0x04, true, 2);
    vmm_bus_access(&mmio, 0xc5000000, 4, false, &val);
    printf("embed_pci: the card answers %u\n", (unsigned)val);
    return err || val != 42;
}
