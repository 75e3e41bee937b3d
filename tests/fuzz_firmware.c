/* fuzz_firmware.c - a hostile guest against what firmware uses: fw_cfg and its transfers, the ATA disk,
   the debug ports, the bridge to ISA. MIT licence, see LICENSE

   The input is operations: a byte that chooses chip, port and width, and the value's bytes. What must
   hold: transfers stay within guest memory and the disk, no read changes what is told to be written
   nowhere, and lines are pulled as the registers say. */
#define DEV_LEGACY_IMPLEMENTATION
#define DEV_PCI_IMPLEMENTATION
#include "../dev_legacy.h"
#include "../dev_pci.h"
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { RAM = 0x2000, NSECTORS = 40, IDE_LINE = 23 };

static struct {
    const uint8_t *p, *end; /* the input */
    uint8_t *ram, *disk;    /* on the heap, for ASan */
    struct vmm_mem mem;
    struct pc_fwlog log;
    struct pc_fwcfg cfg;
    struct pc_ata ata;
    struct pci_root root;
    struct pci_isa isa;
    struct pci_dev card[2];
    bool line[24], fails;
    unsigned panics;
} f;

/* No assert: it must hold in every build. */
static void must(bool held)
{
    if (!held)
        abort();
}

static uint64_t number(unsigned len)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < len; i++)
        v |= (uint64_t)(f.p < f.end ? *f.p++ : 0) << 8 * i;
    return v;
}

static void set_line(void *ctx, unsigned line, bool level)
{
    must(!ctx && line < 24);
    f.line[line] = level;
}

static int rw(void *ctx, bool write, void *buf, uint64_t sector, unsigned n)
{
    must(!ctx && n && n <= PC_ATA_BLOCK && sector < NSECTORS && n <= NSECTORS - sector);
    if (f.fails)
        return -EIO;
    if (write)
        memcpy(f.disk + 512 * sector, buf, 512 * n);
    else
        memcpy(buf, f.disk + 512 * sector, 512 * n);
    return 0;
}

static void sink(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    char line[256];

    (void)ctx;
    must(vsnprintf(line, sizeof line, fmt, args) < 120 && !strchr(line, '\n'));
    f.panics += level == VMM_LOG_WARN;
}

static const struct vmm_log talkative = {sink, NULL, VMM_LOG_DEBUG};
static const uint8_t bytes[300] = {[0] = 1, [299] = 2};
static const struct pc_fwcfg_item items[] = {
    {NULL, 5, 2, bytes}, {"etc/a", 0, sizeof bytes, bytes}, {"etc/empty", 0, 0, NULL}};

static void power_on(void)
{
    struct pc_ata_desc ata = {{set_line, NULL, IDE_LINE}, NSECTORS, "s", rw, NULL, NULL};
    struct pci_root_desc root = {.vendor = 0x8086, .device = 0x1237};
    struct pci_isa_desc isa = {.irq = {set_line, NULL, 0}};
    struct pci_desc card = {.vendor = 1, .device = 1, .intx = true};

    f.mem.nranges = 0;
    vmm_mem_add(&f.mem, 0, RAM, f.ram);
    f.log = (struct pc_fwlog){.log = &talkative};
    f.cfg = (struct pc_fwcfg){.item = items, .nitems = 3, .mem = &f.mem};
    f.panics = 0;
    memset(f.line, 0, sizeof f.line);
    pc_ata_init(&f.ata, &ata);
    for (unsigned i = 0; i < 4; i++) {
        isa.intx[i] = (struct vmm_irq){set_line, NULL, 16 + i};
        root.intx[i] = (struct vmm_irq){pci_isa_intx, &f.isa, i};
    }
    pci_root_init(&f.root, &root);
    must(!pci_isa_init(&f.isa, &isa) && !pci_plug(&f.root, &f.isa.dev));
    for (unsigned i = 0; i < 2; i++)
        must(!pci_init(&f.card[i], &card) && !pci_plug(&f.root, &f.card[i]));
}

/* One transfer, with a descriptor anywhere. */
static void transfer(void)
{
    uint64_t at = number(2);
    uint8_t desc[16] = {0};

    desc[0] = 0;
    desc[1] = (uint8_t)number(1) % 0x24; /* the key */
    desc[3] = (uint8_t)number(1);        /* what to do */
    desc[6] = (uint8_t)number(1);        /* length, mostly short */
    desc[7] = (uint8_t)number(1);
    desc[4] = desc[7] == 0xff ? 0xff : 0;
    desc[14] = (uint8_t)number(1); /* address */
    desc[15] = (uint8_t)number(1);
    desc[8] = desc[14] == 0xff ? 0xff : 0;
    if (at <= RAM - sizeof desc)
        memcpy(f.ram + at, desc, sizeof desc);
    pc_fwcfg_write(&f.cfg, 4, 4, 0);
    pc_fwcfg_write(&f.cfg, 8, 4, (at & 0xff) << 24 | (at >> 8) << 16);
}

static void ata(unsigned how)
{
    unsigned len = how & 1 ? 2 : 1, reg = how >> 1 & 7;

    if (how & 0x10)
        pc_ata_command_write(&f.ata, reg, len, number(len));
    else
        pc_ata_command_read(&f.ata, reg, len);
    must(f.ata.pos <= f.ata.len && f.ata.len <= sizeof f.ata.buf);
    must(!(f.ata.status & 8) == !f.ata.len);
    must(f.line[IDE_LINE] == (f.ata.irq_level && !(f.ata.control & 2)));
}

/* Bytes of a sector, in a row. */
static void ata_data(bool write)
{
    unsigned n = (unsigned)number(1) * 4;
    uint64_t val = number(1);

    while (n--)
        if (write)
            pc_ata_command_write(&f.ata, 0, 4, val * 0x01010101u);
        else
            pc_ata_command_read(&f.ata, 0, 4);
    must(f.ata.pos <= f.ata.len && f.ata.len <= sizeof f.ata.buf);
}

/* Each line of the 8259s is the OR of what is routed to it. */
static void check_lines(void)
{
    const uint8_t *route = f.isa.dev.config + 0x60;
    bool want[16] = {false};

    for (unsigned i = 0; i < 2; i++) {
        unsigned slot = f.card[i].slot, pirq = (slot + 3) % 4;
        bool high = f.line[16 + slot % 4];
        if (high && !(route[pirq] & 0x80))
            want[route[pirq] & 15] = true;
    }
    for (unsigned irq = 3; irq < 16; irq++)
        must(irq == 8 || irq == 13 || f.line[irq] == want[irq]);
}

static void pci(unsigned how)
{
    unsigned reg = how & 1 ? 0x60 + (how >> 2 & 3) : (unsigned)number(1);

    if (how & 2) {
        pci_intx_set(&f.card[how >> 2 & 1], how & 8);
    } else {
        pci_port_write(&f.root, 0, 4,
                       0x80000000 | (how & 1 ? 1 : how >> 2 & 3) << 11 | (reg & 0xfc));
        pci_port_write(&f.root, 4 + (reg & 3), 1, number(1));
    }
    check_lines();
}

static void step(void)
{
    unsigned op = (unsigned)number(1), how = op >> 3;

    switch (op & 7) {
    case 0:
        pc_fwlog_write(&f.log, how & 3, 1, number(1));
        must((pc_fwlog_read(&f.log, how & 3, 1) | 0xff) == 0xff && f.panics <= 8);
        break;
    case 1:
        pc_fwcfg_write(&f.cfg, how % 12, how & 1 ? 2 : 4, number(4));
        break;
    case 2:
        pc_fwcfg_read(&f.cfg, how % 12, how & 1 ? 1 : 4);
        break;
    case 3:
        transfer();
        break;
    case 4:
    case 5:
        ata(how);
        break;
    case 6:
        f.fails = how & 2;
        if (how & 4)
            ata_data(how & 1);
        else
            pc_ata_control_write(&f.ata, 0, 1, number(1));
        break;
    default:
        pci(how);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    f.p = data;
    f.end = data + len;
    f.ram = calloc(1, RAM);
    f.disk = calloc(NSECTORS, 512);
    must(f.ram && f.disk);
    power_on();
    while (f.p < f.end)
        step();
    must(bytes[0] == 1 && bytes[299] == 2);
    free(f.ram);
    free(f.disk);
    return 0;
}
