/* fuzz_vfio.c - hostile guests and odd devices against the pure part of dev_vfio.h
   MIT licence, see LICENSE

   Input: which recorded device, and changes to its configuration space, which a device may answer
   with; then accesses of a guest to what is made of that. Aborts when a promise is broken: the
   device's BARs, command, MSI, MSI-X and the links of lists are never written by a guest, both
   lists end, and nothing is read beyond the space. */
#define _GNU_SOURCE
#define DEV_PCI_IMPLEMENTATION
#define DEV_VFIO_IMPLEMENTATION
#include "../dev_pci.h"
#include "../dev_vfio.h"
#include "vfio_dumps.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct {
    const uint8_t *p, *end; /* the input */
    uint8_t host[VFIODEV_CONFIG_LEN];
    struct pci_vector vectors[PCI_VECTORS_MAX];
    struct pci_dev d;
    struct pci_root root;
    struct vfiodev_config v;
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

static unsigned half(void)
{
    unsigned v = byte();

    return v | (unsigned)byte() << 8;
}

static bool on_read(void *ctx, unsigned off, unsigned len, uint32_t *val)
{
    uint32_t host = 0;

    (void)ctx;
    promise(off + len <= VFIODEV_CONFIG_LEN);
    if (vfiodev_config_asks(&f.v, off, len))
        memcpy(&host, f.host + off, len);
    *val = vfiodev_config_read(&f.v, &f.d, off, len, host);
    return true;
}

/* What must not reach the device, whatever the guest writes. */
static bool is_ours(unsigned at)
{
    return at < 0x40 || at == f.d.msi_cap || at == f.d.msix_cap ||
           (f.d.msi_cap && at >= f.d.msi_cap && at < f.d.msi_cap + 10u) ||
           (f.d.msix_cap && at >= f.d.msix_cap && at < f.d.msix_cap + 12u);
}

static bool on_write(void *ctx, unsigned off, unsigned len, uint32_t val)
{
    unsigned takes = vfiodev_config_takes(&f.v, off, len);

    (void)ctx;
    for (unsigned i = 0; i < len; i++)
        if (takes & 1u << i) {
            promise(!is_ours(off + i));
            f.host[off + i] = (uint8_t)(val >> 8 * i);
        }
    return takes == (1u << len) - 1 || off >= 256;
}

/* Both lists end, and nobody's write has changed them. */
static void check_lists(void)
{
    unsigned at, n = 0;

    for (at = f.d.config[0x34]; at; at = f.d.config[at + 1])
        promise(at >= 0x40 && at % 4 == 0 && ++n <= 48 && vfiodev_config_takes(&f.v, at, 2) == 0);
    for (at = 256, n = 0; at; at = vmm_get32(f.v.ext + at) >> 20)
        promise(at >= 256 && at % 4 == 0 && ++n <= 960 && vfiodev_config_takes(&f.v, at, 4) == 0);
}

/* A device as recorded, but for some bytes that the input chooses. */
static bool begin(void)
{
    static const struct dump *const dumps[] = {&dump_nvme,       &dump_nvme_pf, &dump_nvme_vf,
                                               &dump_virtio_net, &dump_e1000e,  &dump_edu};
    const struct dump *dump = dumps[byte() % 6];
    struct pci_root_desc bus = {.ecam = 0xe0000000, .mmio32 = {0xc0000000, 0x10000000}};
    struct pci_desc desc = {.name = "it", .config_read = on_read, .config_write = on_write};
    unsigned changes = byte() % 32;

    dump_load(dump, f.host);
    for (unsigned i = 0; i < changes; i++) {
        unsigned at = half() % VFIODEV_CONFIG_LEN;
        f.host[at] = byte();
    }
    desc.msix.vectors = f.vectors;
    pci_root_init(&f.root, &bus);
    return !vfiodev_describe(&desc, f.host, VFIODEV_CONFIG_LEN, dump->bar_len) &&
           !pci_init(&f.d, &desc) &&
           !vfiodev_adopt(&f.v, &f.d, f.host, byte() & 1 ? 256 : VFIODEV_CONFIG_LEN) &&
           !pci_plug(&f.root, &f.d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    uint8_t before[0x40];

    f.p = data;
    f.end = data + len;
    if (!begin())
        return 0;
    memcpy(before, f.host, sizeof before);
    check_lists();
    for (unsigned n = 0; f.p < f.end && n < 1000; n++) {
        unsigned op = byte(), off = half() % VFIODEV_CONFIG_LEN, size = 1u << (op >> 1 & 3);
        if (op & 1)
            pci_ecam_write(&f.root, 0x8000 + off, size, half() * 0x10001ull);
        else
            pci_ecam_read(&f.root, 0x8000 + off, size);
    }
    check_lists();
    promise(!memcmp(before, f.host, sizeof before));
    return 0;
}
