/* embed_vfio.c - dev_vfio.h as an outsider uses it                  MIT licence, see LICENSE

   Its quick start, on a host that most probably has no such device and says why. */
#define _GNU_SOURCE
#define DEV_PCI_IMPLEMENTATION
#define DEV_VFIO_IMPLEMENTATION
#include "../dev_pci.h"
#include "../dev_vfio.h"

/* quick start */
static struct vfiodev_host host;
static struct vfiodev nic;
static int machine(struct pci_root *root, struct vfiodev_desc *desc,
                   const struct vmm_mem *mem)
{
    struct vfiodev_host_desc all = {.ndevices = 1, .log = desc->log};
    int err = vfiodev_host_init(&host, &all);
    if (!err)
        err = vfiodev_open(&nic, &host, "0000:01:00.0", NULL, desc->log);
    desc->vectors = calloc(nic.nvectors + 1, sizeof *desc->vectors);
    desc->bell = calloc(nic.nbells + 1, sizeof *desc->bell); // an eventfd each
    if (!err)
        err = vfiodev_init(&nic, desc);
    if (!err)
        err = pci_plug(root, &nic.pci);
    return err ? err : vfiodev_host_map(&host, mem); // once images are loaded
}
/* end */

static unsigned nsaid;

static void say(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    (void)ctx, (void)level;
    printf("embed_vfio: ");
    vprintf(fmt, args);
    printf("\n");
    nsaid++;
}

static int map(void *ctx, uint64_t gpa, uint64_t len, void *hva, unsigned prot)
{
    (void)ctx, (void)gpa, (void)len, (void)hva, (void)prot;
    return -ENOSYS;
}

static int unmap(void *ctx, uint64_t gpa, uint64_t len)
{
    (void)ctx, (void)gpa, (void)len;
    return -ENOSYS;
}

static void route(void *ctx, unsigned vector, bool on, uint64_t addr, uint32_t data)
{
    (void)ctx, (void)vector, (void)on, (void)addr, (void)data;
}

int main(void)
{
    static struct pci_root root;
    struct pci_root_desc bus = {.mmio32 = {0xc0000000, 0x10000000}};
    struct vmm_log log = {say, NULL, VMM_LOG_ERROR};
    struct vfiodev_desc desc = {.map = map, .unmap = unmap, .route = route, .log = &log};
    struct vmm_mem mem = {0};
    int err;

    pci_root_init(&root, &bus);
    err = machine(&root, &desc, &mem);
    vfiodev_close(&nic);
    vfiodev_host_fini(&host);
    free(desc.vectors);
    free(desc.bell);
    if (!err)
        printf("embed_vfio: this host gives 0000:01:00.0 away\n");
    return err ? nsaid != 1 : 0;
}
