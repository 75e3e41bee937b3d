/* fuzz_pci.c - a hostile guest against dev_pci.h                   MIT licence, see LICENSE

   Input: operations, each one byte and its operands (see step), on a bus with a device of each kind
   of interrupt. Guests choose among few registers and addresses, so that BARs meet and overlap.
   Aborts when a promise of the header is broken; all of them are looked at after each operation. */
#include <stdlib.h>

#define DEV_PCI_IMPLEMENTATION
#include "../dev_pci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { NDEVS = 3, NVECTORS = 66, ECAM = 0x1000000, WINDOW = 0x10000 };
#define LOW  0xc0000000ull
#define HIGH 0x100000000ull

static struct {
    const uint8_t *p, *end; /* the input */
    struct vmm_bus mmio, ports;
    struct pci_root root;
    struct pci_dev dev[NDEVS];
    struct pci_vector *vector; /* on the heap, for ASan */
    bool root_locked, locked[NDEVS], line[4], wants[NDEVS];
    uint64_t told[NDEVS][6]; /* where the BARs are, by `moved` */
    unsigned resets;
} f;

static void promise(bool kept)
{
    if (!kept)
        abort();
}

static uint8_t byte(void)
{
    return f.p < f.end ? *f.p++ : 0;
}

static uint32_t word(void)
{
    uint32_t v = byte();

    v |= (uint32_t)byte() << 8;
    v |= (uint32_t)byte() << 16;
    return v | (uint32_t)byte() << 24;
}

static void enter(void *ctx)
{
    promise(!*(bool *)ctx);
    *(bool *)ctx = true;
}

static void leave(void *ctx)
{
    promise(*(bool *)ctx);
    *(bool *)ctx = false;
}

static void enter_root(void *ctx)
{
    promise(!f.locked[0] && !f.locked[1] && !f.locked[2]);
    enter(ctx);
}

static void on_irq(void *ctx, unsigned line, bool level)
{
    promise(!ctx && line < 4);
    f.line[line] = level;
}

/* A message is sent only by who may send. */
static void on_msi(void *ctx, unsigned vector, uint64_t addr, uint32_t data)
{
    unsigned i = (unsigned)((struct pci_dev *)ctx - f.dev);
    const struct pci_dev *d = &f.dev[i];

    promise(f.locked[i] && (d->config[4] & 4) && !(addr & 3));
    promise(i == 0 ? pci_msix_enabled(d) && vector < NVECTORS
                   : pci_msi_enabled(d) && vector < 8 && data <= 0xffff);
}

static void on_moved(void *ctx, unsigned bar, uint64_t gpa)
{
    unsigned i = (unsigned)((struct pci_dev *)ctx - f.dev);

    promise(f.locked[i] && f.root_locked && bar < 6 && f.told[i][bar] != gpa);
    f.told[i][bar] = gpa;
}

static void on_changed(void *ctx, unsigned vector)
{
    promise(f.locked[(struct pci_dev *)ctx - f.dev] && vector < NVECTORS);
}

static void on_reset(void *ctx)
{
    promise(f.locked[(struct pci_dev *)ctx - f.dev]);
    f.resets++;
}

static uint64_t bar_read(void *ctx, uint64_t off, unsigned len)
{
    promise(f.locked[(struct pci_dev *)ctx - f.dev] && off + len <= 8192);
    return off;
}

static void bar_write(void *ctx, uint64_t off, unsigned len, uint64_t val)
{
    promise(f.locked[(struct pci_dev *)ctx - f.dev] && off + len <= 8192);
    promise(!(val & ~vmm_ones(len)));
}

static bool config_read(void *ctx, unsigned off, unsigned len, uint32_t *val)
{
    promise(f.locked[(struct pci_dev *)ctx - f.dev] && off < 4096 && off % 4 + len <= 4);
    *val = 0xffffffff;
    return off >= 0x100 && off < 0x104;
}

/* As a capability that reaches into its device's BAR. */
static bool config_write(void *ctx, unsigned off, unsigned len, uint32_t val)
{
    promise(f.locked[(struct pci_dev *)ctx - f.dev] && off < 4096 && off % 4 + len <= 4);
    if (off < 0xf0 || off >= 0xf4)
        return false;
    pci_bar_write((struct pci_dev *)ctx, val & 7, val >> 3 & 0x3fff, len, val);
    return true;
}

static void plug(unsigned i, struct pci_desc desc)
{
    static const uint8_t body[6] = {1, 2, 3, 4, 5, 6}, mask[6] = {0, 0, 0xff, 0x0f, 0, 1};

    desc.vendor = 0x1af4;
    desc.lock = (struct vmm_lock){enter, leave, &f.locked[i]};
    desc.msi = (struct vmm_msi){on_msi, &f.dev[i]};
    desc.moved = on_moved;
    desc.msix_changed = on_changed;
    desc.reset = on_reset;
    desc.config_read = config_read;
    desc.config_write = config_write;
    desc.ctx = &f.dev[i];
    for (unsigned b = 0; b < 6; b++) {
        desc.bar[b].read = bar_read;
        desc.bar[b].write = bar_write;
        f.told[i][b] = PCI_NOWHERE;
    }
    promise(pci_init(&f.dev[i], &desc) == 0);
    promise(pci_add_cap(&f.dev[i], 9, body, sizeof body, mask) > 0);
    promise(pci_plug(&f.root, &f.dev[i]) == 0);
}

static void start(const uint8_t *data, size_t len)
{
    struct pci_root_desc root = {.ecam = ECAM, .mmio32 = {LOW, WINDOW}, .mmio64 = {HIGH, WINDOW}};
    struct pci_desc msix = {.bar[0] = {.len = 8192, .is64 = true}, .intx = true};
    struct pci_desc msi = {.bar[5] = {.len = 16}, .bar[1] = {.len = 4096}, .nmsi = 8};
    struct pci_desc plain = {.bar[2] = {.len = 4096, .is64 = true}, .intx = true, .slot = 5};

    memset(&f, 0, sizeof f);
    f.p = data;
    f.end = data + len;
    f.vector = (struct pci_vector *)malloc(NVECTORS * sizeof *f.vector);
    promise(f.vector != NULL);
    msix.msix = (struct pci_msix_desc){.nvectors = NVECTORS, .vectors = f.vector};
    msix.msix.table_off = 0x800;
    msix.msix.pba_off = 0x800 + 16 * NVECTORS;
    root.lock = (struct vmm_lock){enter_root, leave, &f.root_locked};
    for (unsigned i = 0; i < 4; i++)
        root.intx[i] = (struct vmm_irq){on_irq, NULL, i};
    pci_root_init(&f.root, &root);
    plug(0, msix);
    plug(1, msi);
    plug(2, plain);
    promise(pci_root_add_io(&f.root, &f.mmio, &f.ports) == 0);
}

static void access_bus(struct vmm_bus *bus, uint64_t addr, unsigned len, bool write, uint64_t val)
{
    uint64_t v = val;

    vmm_bus_access(bus, addr, len, write, &v);
    promise(write || !(v & ~vmm_ones(len)));
}

/* A place in configuration space: near the header and the capabilities, or anywhere. */
static uint32_t where(uint8_t op)
{
    uint8_t b = byte();

    return op & 0x40 ? (word() & 0xfffff) : (uint32_t)(b & 7) << 15 | byte();
}

/* In a window, where BARs may be, aligned or not. */
static uint64_t place(void)
{
    uint8_t b = byte();
    uint64_t off = (uint64_t)(b & 0x1f) << 11 | (uint64_t)byte() << 3;

    return (b & 0x20 ? HIGH : LOW) + off + (b & 0x40 ? 4 : 0) + (b & 0x80 ? 1 : 0);
}

static void device_acts(uint8_t op)
{
    unsigned i = byte() % NDEVS;

    enter(&f.locked[i]);
    if (op & 0x80)
        pci_intx_set(&f.dev[i], f.wants[i] = byte() & 1);
    else if (i == 0)
        pci_msix_send(&f.dev[i], op & 0x40 ? word() : byte() % 72u);
    else
        pci_msi_send(&f.dev[i], op & 0x40 ? word() : byte() % 9u);
    leave(&f.locked[i]);
}

static void by_ports(unsigned len, bool write)
{
    uint32_t address = byte() & 0x3fu, reg = byte(), lane = byte() & 3;

    access_bus(&f.ports, 0xcf8, 4, true, 0x80000000 | address << 8 | reg);
    access_bus(&f.ports, 0xcfc + lane, len > 4 ? 4 : len, write, word());
}

/* What a driver does first. */
static void enable(void)
{
    uint64_t command = ECAM + ((1 + byte() % 2u) << 15) + 4;

    access_bus(&f.mmio, command, 2, true, byte() & 7);
}

static void step(uint8_t op)
{
    unsigned len = 1u << (op >> 4 & 3);
    bool write = op & 0x80;
    uint64_t at;

    switch (op & 7) {
    case 0: /* configuration by ECAM: a short value, or bits all over */
    case 1:
        at = ECAM + where(op);
        access_bus(&f.mmio, at, len, write, op & 1 ? word() * 0x100000001ull : byte());
        break;
    case 2:
        by_ports(len, write);
        break;
    case 3:
        at = 0xcf8 + (byte() & 7);
        access_bus(&f.ports, at, len > 4 ? 4 : len, write, word());
        break;
    case 4: /* within the windows */
    case 5:
        at = place();
        access_bus(&f.mmio, at, len, write, op & 1 ? word() * 0x100000001ull : byte());
        break;
    case 6:
        device_acts(op);
        break;
    default:
        if (op == 0xff)
            pci_reset(&f.root);
        else
            enable();
    }
}

/* What holds at any time. */
static void check_dev(unsigned i)
{
    const struct pci_dev *d = &f.dev[i];
    bool intx = f.wants[i] && d->desc.intx && !(d->config[5] & 4) && !pci_msi_enabled(d) &&
                !pci_msix_enabled(d);
    uint64_t addr;
    uint32_t data;

    promise(vmm_get16(d->config) == 0x1af4 && d->config[0xe] == 0);
    promise(!!(f.root.asserted[d->slot % 4] & 1u << d->slot) == intx);
    for (unsigned b = 0; b < 6; b++) {
        uint64_t gpa = d->bar_gpa[b], off = gpa < HIGH ? gpa - LOW : gpa - HIGH;
        promise(gpa == f.told[i][b]);
        promise(gpa == PCI_NOWHERE || ((d->config[4] & 2) && off + d->desc.bar[b].len <= WINDOW));
    }
    for (unsigned v = 0; v < d->desc.msix.nvectors; v++)
        promise(!d->desc.msix.vectors[v].pending || !pci_msix_get(d, v, &addr, &data));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    start(data, len);
    for (unsigned n = 0; f.p < f.end && n < 2000; n++) {
        uint8_t op = byte();
        if (op == 0xff)
            memset(f.wants, 0, sizeof f.wants);
        step(op);
        promise(!f.root_locked && !f.locked[0] && !f.locked[1] && !f.locked[2]);
        for (unsigned i = 0; i < NDEVS; i++)
            check_dev(i);
        for (unsigned i = 0; i < 4; i++)
            promise(f.line[i] == (f.root.asserted[i] != 0));
    }
    free(f.vector);
    return 0;
}
