/* test_vfio.c - dev_vfio.h without a device: what guests see of configuration spaces that were
   recorded, what is asked of the kernel, and why hosts refuse.  MIT licence, see LICENSE */
#define _GNU_SOURCE
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int fake_ioctl(int fd, unsigned long request, ...);
#define VFIODEV_SYS   "build/tests/vfio.sys"
#define VFIODEV_DEV   "build/tests/vfio.dev"
#define VFIODEV_IOMMU "build/tests/vfio.dev/iommu"
#define DEV_PCI_IMPLEMENTATION
#define DEV_VFIO_IMPLEMENTATION
#include "../dev_pci.h"
#define ioctl fake_ioctl
#include "../dev_vfio.h"
#undef ioctl

#include "check.h"
#include "vfio_dumps.h"

static char said[1024];

static void hear(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    (void)ctx, (void)level;
    vsnprintf(said, sizeof said, fmt, args);
}

static const struct vmm_log log_here = {hear, NULL, VMM_LOG_INFO};

/* >>config ------------------------------------------------------------------------ */

struct seen {
    uint8_t config[VFIODEV_CONFIG_LEN];
    struct pci_vector vectors[PCI_VECTORS_MAX];
    struct pci_desc desc;
    struct pci_dev d;
    struct vfiodev_config v;
};

static int see(struct seen *s, const struct dump *dump)
{
    int err;

    memset(&s->desc, 0, sizeof s->desc);
    s->desc.name = "it";
    s->desc.log = &log_here;
    dump_load(dump, s->config);
    err = vfiodev_describe(&s->desc, s->config, sizeof s->config, dump->bar_len);
    s->desc.msix.vectors = s->vectors;
    if (!err)
        err = pci_init(&s->d, &s->desc);
    return err ? err : vfiodev_adopt(&s->v, &s->d, s->config, sizeof s->config);
}

/* What the guest reads, the device having what was recorded. */
static uint32_t guest_reads(const struct seen *s, unsigned off, unsigned len)
{
    uint32_t host = 0;

    memcpy(&host, s->config + off, len);
    return vfiodev_config_read(&s->v, &s->d, off, len, host);
}

/* "11@40 01@60": the guest's list of capabilities, of the extended ones from 256 on. */
static const char *list(const struct seen *s, bool extended)
{
    static char text[256];
    unsigned at = extended ? 256 : guest_reads(s, 0x34, 1), n = 0;

    text[0] = 0;
    for (unsigned i = 0; at && i < 64; i++) {
        uint32_t header = guest_reads(s, at, 4);
        n += (unsigned)snprintf(text + n, sizeof text - n, "%s%02x@%x", i ? " " : "",
                                header & (extended ? 0xffff : 0xff), at);
        at = extended ? header >> 20 : header >> 8 & 0xff;
    }
    return text;
}

static void test_dumps(void)
{
    static const struct {
        const char *name;
        const struct dump *dump;
        uint32_t ids, nmsi, nvectors, table, intx;
        bool is32, bare;
        const char *caps, *ext;
    } known[] = {
        {"nvme", &dump_nvme, 0x00101b36, 0, 65, 0x2000, 1, false, false, "11@40 10@80 01@60",
         "00@100"},
        {"pf", &dump_nvme_pf, 0x00101b36, 0, 3, 0x2000, 1, false, false, "11@40 10@80 01@60",
         "00@100"},
        {"vf", &dump_nvme_vf, 0x00101b36, 0, 1, 0x2000, 0, false, false, "11@40 10@80 01@60",
         "00@100"},
        {"virtio", &dump_virtio_net, 0x10411af4, 0, 4, 0, 1, false, false,
         "11@dc 09@c8 09@b4 09@a4 09@94 09@84 01@7c 10@40", NULL},
        {"e1000e", &dump_e1000e, 0x10d38086, 1, 5, 0, 1, false, true, "05@d0 11@a0 01@c8 10@e0",
         "01@100 03@140"},
        {"edu", &dump_edu, 0x11e81234, 1, 0, 0, 1, false, true, "05@40", NULL},
    };
    static struct seen s;

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        CHECK_EQ(see(&s, known[i].dump), 0);
        CHECK_EQ(guest_reads(&s, 0, 4), known[i].ids);
        CHECK_EQ(s.desc.nmsi, known[i].nmsi);
        CHECK_EQ(s.desc.msix.nvectors, known[i].nvectors);
        CHECK_EQ(s.desc.msix.table_off, known[i].table);
        CHECK_EQ(s.d.config[PCI_INTERRUPT_PIN], known[i].intx);
        CHECK(s.desc.msi_is32 == known[i].is32 && s.desc.msi_bare == known[i].bare);
        if (!CHECK(strcmp(list(&s, false), known[i].caps) == 0))
            fprintf(stderr, "  %s: %s\n", known[i].name, list(&s, false));
        if (known[i].ext && !CHECK(strcmp(list(&s, true), known[i].ext) == 0))
            fprintf(stderr, "  %s: %s\n", known[i].name, list(&s, true));
    }
}

/* BARs are ours, whatever the device has there; ports are not shown. */
static void test_bars(void)
{
    static struct seen s;

    CHECK_EQ(see(&s, &dump_e1000e), 0);
    CHECK(s.desc.bar[0].len == 0x20000 && !s.desc.bar[0].is64 && s.desc.bar[3].len == 0x4000);
    CHECK_EQ(s.desc.bar[2].len, 0);
    CHECK_EQ(s.desc.bar[PCI_ROM].len, 0x40000);
    CHECK_EQ(guest_reads(&s, PCI_BASE_ADDRESS_2, 4), 0);
    CHECK_EQ(see(&s, &dump_virtio_net), 0);
    CHECK(s.desc.bar[4].is64 && s.desc.bar[4].prefetch && s.desc.bar[4].len == 0x4000);
    s.config[PCI_HEADER_TYPE] = PCI_HEADER_TYPE_BRIDGE;
    CHECK_EQ(vfiodev_describe(&s.desc, s.config, 256, dump_edu.bar_len), -ENOTSUP);
    CHECK(strstr(said, "is a bridge"));
}

/* Whose byte is which: a write goes to the device, to us, or nowhere. */
static void test_passing(void)
{
    static struct seen s;

    CHECK_EQ(see(&s, &dump_virtio_net), 0);
    CHECK_EQ(vfiodev_config_takes(&s.v, 0x94 + 4, 4), 0xf); /* a vendor's capability */
    CHECK_EQ(vfiodev_config_takes(&s.v, 0x94, 4), 0xc);     /* but for id and link */
    CHECK_EQ(guest_reads(&s, 0x98, 4), 0x00000004);
    CHECK_EQ(vfiodev_config_takes(&s.v, 0xdc, 4), 0);        /* MSI-X */
    CHECK_EQ(vfiodev_config_takes(&s.v, PCI_COMMAND, 4), 0); /* the header */
    CHECK_EQ(vfiodev_config_takes(&s.v, PCI_BASE_ADDRESS_0, 4), 0);
    CHECK_EQ(vfiodev_config_takes(&s.v, 0x7c, 4), 0); /* power: notes of the guest */
    CHECK_EQ(s.d.writable[0x7c + PCI_PM_CTRL], 3);
    CHECK_EQ(guest_reads(&s, 0x7c + PCI_PM_CTRL, 2), PCI_PM_CTRL_NO_SOFT_RESET);
    CHECK_EQ(guest_reads(&s, 0x7c + PCI_PM_PMC, 2) & PCI_PM_CAP_PME_MASK, 0);
    CHECK_EQ(vfiodev_config_takes(&s.v, 0x40 + PCI_EXP_DEVCTL, 2), 3);
    CHECK_EQ(guest_reads(&s, 0x40 + PCI_EXP_FLAGS, 2), 0x92); /* in the root complex */
    CHECK_EQ(vfiodev_config_takes(&s.v, 0xf4, 4), 0xf);       /* between capabilities */
    CHECK(vfiodev_config_asks(&s.v, PCI_STATUS, 1) && !vfiodev_config_asks(&s.v, 0, 4));
    s.config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
    CHECK_EQ(guest_reads(&s, PCI_STATUS, 1), PCI_STATUS_CAP_LIST | PCI_STATUS_INTERRUPT);
    CHECK_EQ(see(&s, &dump_nvme_pf), 0);
    CHECK_EQ(guest_reads(&s, 0x128, 4), 0); /* SR-IOV: how many there are, where, on or off */
    CHECK_EQ(vfiodev_config_takes(&s.v, 0x128, 4), 0);
    CHECK_EQ(see(&s, &dump_e1000e), 0);
    CHECK_EQ(guest_reads(&s, 0x144, 4), 0xff123457); /* the serial number */
    CHECK_EQ(vfiodev_config_takes(&s.v, 0x104, 4), 0xf);
}

/* Lists that loop, end in the middle of nothing, or claim more than there is. */
static void test_lists(void)
{
    static struct seen s;
    static const struct dump empty = {{0}, ""};

    CHECK_EQ(see(&s, &empty), 0);
    CHECK_EQ(list(&s, false)[0], 0);
    dump_load(&dump_nvme, s.config);
    s.config[0x61] = 0x80; /* a loop */
    memset(&s.desc, 0, sizeof s.desc);
    CHECK_EQ(vfiodev_describe(&s.desc, s.config, sizeof s.config, dump_nvme.bar_len), 0);
    s.desc.msix.vectors = s.vectors;
    CHECK_EQ(pci_init(&s.d, &s.desc), 0);
    CHECK_EQ(vfiodev_adopt(&s.v, &s.d, s.config, sizeof s.config), 0);
    CHECK(strcmp(list(&s, false), "11@40 10@80 01@60") == 0);
    s.config[0x61] = 0xfc; /* a vendor's capability of 255 bytes, in the last dword */
    memcpy(s.config + 0xfc, "\x09\x00\xff\x55", 4);
    vmm_put32(s.config + 0x100, 0x10010003); /* a loop, too */
    CHECK_EQ(pci_init(&s.d, &s.desc), 0);
    CHECK_EQ(vfiodev_adopt(&s.v, &s.d, s.config, sizeof s.config), 0);
    CHECK(strcmp(list(&s, false), "11@40 10@80 01@60 09@fc") == 0);
    CHECK_EQ(guest_reads(&s, 0xfc, 4), 0x55ff0009);
    CHECK(strcmp(list(&s, true), "03@100") == 0);
}

static void test_areas(void)
{
    static const struct {
        uint64_t len, off, cut;
        unsigned max, n;
        struct vfiodev_area left[2];
    } t[] = {
        {0x4000, 0x2000, 1040, 8, 2, {{0, 0x2000}, {0x3000, 0x1000}}},
        {0x4000, 0x2ff8, 16, 8, 1, {{0, 0x2000}}},
        {0x4000, 0, 16, 8, 1, {{0x1000, 0x3000}}},
        {0x1000, 0, 16, 8, 0, {{0, 0}}},
        {0x4000, 0x8000, 16, 8, 1, {{0, 0x4000}}},
        {0x4000, 0x4000, 16, 8, 1, {{0, 0x4000}}},
        {0x4000, 0x1000, 16, 1, 1, {{0, 0x1000}}}, /* no room for the rest: that traps */
    };

    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct vfiodev_area area[8] = {{0, t[i].len}};
        unsigned n = vfiodev_areas_cut(area, 1, t[i].max, t[i].off, t[i].cut, 4096);
        CHECK_EQ(n, t[i].n);
        for (unsigned j = 0; j < n; j++)
            CHECK(area[j].off == t[i].left[j].off && area[j].len == t[i].left[j].len);
    }
}

/* >>kernel: VFIO as far as it is asked; a device's regions are 16 MiB apart in a memfd --------- */
enum { REGION = 16 << 20, VECTORS_MAX = PCI_VECTORS_MAX };

static struct {
    const struct dump *dump;
    int device, wanted;
    bool not_viable, no_reset;
    int iommu_errno, map_errno, device_errno, bind_errno, attach_errno;
    unsigned nbinds, nattaches, ngroups, nioas_unmaps, nioas_maps;
    struct iommu_ioas_map ioas_map[4];
    unsigned most; /* interrupts that the host has left */
    unsigned sets, index, count, flags, nmaps, nunmaps, resets;
    int fd[VECTORS_MAX];
    struct vfio_iommu_type1_dma_map map[4];
} kernel;

static int fail(int err)
{
    errno = err;
    return err ? -1 : 0;
}

static int fake_region(struct vfio_region_info *info)
{
    info->offset = info->index * (uint64_t)REGION;
    if (info->index == VFIO_PCI_CONFIG_REGION_INDEX)
        info->size = VFIODEV_CONFIG_LEN;
    else if (info->index < PCI_BARS)
        info->size = kernel.dump->bar_len[info->index];
    else
        return fail(EINVAL);
    info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
    info->flags |= info->size >= 4096 ? VFIO_REGION_INFO_FLAG_MMAP : 0;
    return 0;
}

static int fake_set_irqs(const struct vfio_irq_set *set)
{
    if (set->index == VFIO_PCI_REQ_IRQ_INDEX)
        memcpy(&kernel.wanted, set->data, sizeof kernel.wanted);
    kernel.sets += set->index != VFIO_PCI_REQ_IRQ_INDEX;
    if (set->index == VFIO_PCI_REQ_IRQ_INDEX)
        return 0;
    if (set->count > kernel.most)
        return (int)kernel.most;
    kernel.index = set->index;
    kernel.count = set->count;
    kernel.flags = set->flags;
    memcpy(kernel.fd, set->data, set->count * sizeof kernel.fd[0]);
    return 0;
}

/* What iommufd and a device's own file are asked; false: something else. */
static bool fake_iommufd(unsigned long request, void *arg, int *ret)
{
    struct vfio_device_attach_iommufd_pt *attach = arg;
    struct iommu_ioas_map *map = arg;

    switch (request) {
    case VFIO_DEVICE_BIND_IOMMUFD:
        CHECK(((struct vfio_device_bind_iommufd *)arg)->iommufd > 0);
        kernel.nbinds++;
        *ret = fail(kernel.bind_errno);
        return true;
    case VFIO_DEVICE_ATTACH_IOMMUFD_PT:
        CHECK_EQ(attach->pt_id, 77);
        kernel.nattaches++;
        *ret = fail(kernel.attach_errno);
        return true;
    case IOMMU_IOAS_ALLOC:
        CHECK_EQ(((struct iommu_ioas_alloc *)arg)->size, 12);
        ((struct iommu_ioas_alloc *)arg)->out_ioas_id = 77;
        *ret = 0;
        return true;
    case IOMMU_IOAS_MAP:
        CHECK(map->size == 40 && map->ioas_id == 77 && map->flags == 7);
        if (!kernel.map_errno)
            kernel.ioas_map[kernel.nioas_maps++ % 4] = *map;
        *ret = fail(kernel.map_errno);
        return true;
    case IOMMU_IOAS_UNMAP:
        CHECK_EQ(((struct iommu_ioas_unmap *)arg)->ioas_id, 77);
        kernel.nioas_unmaps++;
        *ret = 0;
        return true;
    default:
        return false;
    }
}

static int fake_answer(unsigned long request, void *arg)
{
    struct vfio_irq_info *irq = arg;
    int ret;

    if (fake_iommufd(request, arg, &ret))
        return ret;
    switch (request) {
    case VFIO_GET_API_VERSION:
        return VFIO_API_VERSION;
    case VFIO_CHECK_EXTENSION:
        return 1;
    case VFIO_GROUP_GET_STATUS:
        ((struct vfio_group_status *)arg)->flags = kernel.not_viable ? 0 : VFIO_GROUP_FLAGS_VIABLE;
        return 0;
    case VFIO_SET_IOMMU:
        return fail(kernel.iommu_errno);
    case VFIO_GROUP_GET_DEVICE_FD:
        kernel.ngroups++;
        return kernel.device_errno ? fail(kernel.device_errno) : dup(kernel.device);
    case VFIO_DEVICE_GET_INFO:
        ((struct vfio_device_info *)arg)->flags = kernel.no_reset ? 0 : VFIO_DEVICE_FLAGS_RESET;
        return 0;
    case VFIO_DEVICE_GET_REGION_INFO:
        return fake_region(arg);
    case VFIO_DEVICE_GET_IRQ_INFO:
        irq->count = irq->index <= VFIO_PCI_REQ_IRQ_INDEX;
        return 0;
    case VFIO_DEVICE_SET_IRQS:
        return fake_set_irqs(arg);
    case VFIO_DEVICE_RESET:
        kernel.resets++;
        return 0;
    case VFIO_IOMMU_MAP_DMA:
        if (!kernel.map_errno)
            kernel.map[kernel.nmaps++ % 4] = *(struct vfio_iommu_type1_dma_map *)arg;
        return fail(kernel.map_errno);
    case VFIO_IOMMU_UNMAP_DMA:
        kernel.nunmaps++;
        return 0;
    default:
        return 0;
    }
}

static int fake_ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    void *arg;

    (void)fd;
    va_start(args, request);
    arg = va_arg(args, void *);
    va_end(args);
    return fake_answer(request, arg);
}

/* >>host: a tree that looks like sysfs ------------------------------------------------------- */

static void sh(const char *command)
{
    CHECK_EQ(system(command), 0);
}

/* A device of group 7, bound to a driver, or to none. */
static void host_has(const char *driver)
{
    char command[1024];

    sh("rm -rf " VFIODEV_SYS " " VFIODEV_DEV);
    snprintf(
        command, sizeof command,
        "set -e; mkdir -p %s/bus/pci/devices/0000:01:00.0 %s/bus/pci/drivers/vfio-pci "
        "%s/kernel/iommu_groups/7/devices/0000:01:00.0 %s; touch %s/vfio %s/7; "
        "cd %s/bus/pci/devices/0000:01:00.0; ln -s ../../../../kernel/iommu_groups/7 iommu_group; "
        "echo 0x1b36 >vendor; echo 0x0010 >device; echo 0x010802 >class; "
        "[ -z '%s' ] || ln -s ../../drivers/%s driver",
        VFIODEV_SYS, VFIODEV_SYS, VFIODEV_SYS, VFIODEV_DEV, VFIODEV_DEV, VFIODEV_DEV, VFIODEV_SYS,
        driver, driver);
    sh(command);
}

static void check_said(int err, int expected, const char *text, const char *words)
{
    CHECK_EQ(err, expected);
    if (!CHECK(strstr(text, words)))
        fprintf(stderr, "  said: %s\n", text);
}

/* One sentence for each way in which a host keeps a device. */
static void test_refusals(void)
{
    struct vfiodev_finding f;
    const char *a = "0000:01:00.0", *at = VFIODEV_SYS "/bus/pci/devices/0000:01:00.0";
    char command[512];

    memset(&kernel, 0, sizeof kernel);
    host_has("vfio-pci");
    CHECK_EQ(vfiodev_look(a, &f), 0);
    CHECK(strcmp(f.what, "1b36:0010, class 010802, driver vfio-pci, group 7") == 0 && f.group == 7);
    check_said(vfiodev_look("1:0", &f), -EINVAL, f.said, "is no PCI address: give one like");
    check_said(vfiodev_look("0000:09:00.0", &f), -ENOENT, f.said, "there is no PCI device");
    kernel.not_viable = true;
    snprintf(
        command, sizeof command,
        "mkdir -p %s/bus/pci/devices/0000:01:00.1 %s/kernel/iommu_groups/7/devices/0000:01:00.1; "
        "ln -s ../../drivers/snd %s/bus/pci/devices/0000:01:00.1/driver",
        VFIODEV_SYS, VFIODEV_SYS, VFIODEV_SYS);
    sh(command);
    check_said(vfiodev_look(a, &f), -EPERM, f.said, "unbind them: 0000:01:00.1 (snd)");
    kernel.not_viable = false;
    sh("rm " VFIODEV_DEV "/7");
    check_said(vfiodev_look(a, &f), -ENOENT, f.said, "has no group at");
    host_has("nvme");
    check_said(vfiodev_look(a, &f), -ENODEV, f.said,
               "by its driver nvme: echo vfio-pci > /sys/bus/pci/devices/0000:01:00.0/"
               "driver_override; echo 0000:01:00.0 | tee "
               "/sys/bus/pci/devices/0000:01:00.0/driver/unbind /sys/bus/pci/drivers_probe");
    host_has("");
    check_said(vfiodev_look(a, &f), -ENODEV, f.said, "has no driver: echo vfio-pci");
    sh("rmdir " VFIODEV_SYS "/bus/pci/drivers/vfio-pci");
    check_said(vfiodev_look(a, &f), -ENODEV, f.said, "modprobe vfio-pci; echo");
    host_has("vfio-pci");
    snprintf(command, sizeof command, "rm %s/iommu_group", at);
    sh(command);
    check_said(vfiodev_look(a, &f), -ENOTSUP, f.said, "behind no IOMMU: switch VT-d, AMD-Vi or");
    host_has("vfio-pci");
    snprintf(command, sizeof command, "ln -s ../0000:01:00.9 %s/physfn", at);
    sh(command);
    check_said(vfiodev_look(a, &f), -ENODEV, f.said,
               "virtual function of 0000:01:00.9, which has no");
}

static void host_open(struct vfiodev_host *h, unsigned ndevices)
{
    struct vfiodev_host_desc desc = {.ndevices = ndevices, .log = &log_here};

    CHECK_EQ(vfiodev_host_init(h, &desc), 0);
}

static void test_host(void)
{
    static struct vfiodev d;
    static uint8_t ram[8192];
    struct vfiodev_host h;
    struct vfiodev_host_desc desc = {.log = &log_here};
    struct vmm_mem mem = {0};

    memset(&kernel, 0, sizeof kernel);
    sh("rm -rf " VFIODEV_DEV);
    check_said(vfiodev_host_init(&h, &desc), -ENOTSUP, said, "modprobe vfio_iommu_type1");
    host_has("vfio-pci");
    host_open(&h, 1);
    kernel.iommu_errno = EPERM;
    check_said(vfiodev_open(&d, &h, "0000:01:00.0", NULL, &log_here), -EPERM, said,
               "echo 1 > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts");
    vfiodev_host_fini(&h);
    host_open(&h, 1);
    kernel.iommu_errno = 0;
    kernel.device_errno = EBUSY;
    check_said(vfiodev_open(&d, &h, "0000:01:00.0", NULL, &log_here), -EBUSY, said,
               "VFIO does not open 0000:01:00.0");
    vmm_mem_add(&mem, 0, 4096, ram);
    vmm_mem_add(&mem, 0x100000000, 4096, ram + 4096);
    CHECK_EQ(vfiodev_host_map(&h, &mem), 0);
    CHECK(kernel.nmaps == 2 && kernel.map[1].iova == 0x100000000 && kernel.map[1].size == 4096);
    CHECK_EQ(kernel.map[1].vaddr, (uintptr_t)(ram + 4096));
    mem.range[0].len = 1ull << 50; /* no limit is that high, but none at all is */
    kernel.map_errno = ENOMEM;
    check_said(vfiodev_host_map(&h, &mem), -ENOMEM, said, "guest RAM");
    vfiodev_host_fini(&h);
}

/* The device has a file of its own, and there is iommufd. */
static void host_has_cdev(void)
{
    char command[512];

    snprintf(command, sizeof command,
             "mkdir -p %s/bus/pci/devices/0000:01:00.0/vfio-dev/vfio3 %s/devices; touch %s/iommu; "
             "ln -sf /proc/self/fd/%d %s/devices/vfio3",
             VFIODEV_SYS, VFIODEV_DEV, VFIODEV_DEV, kernel.device, VFIODEV_DEV);
    sh(command);
}

/* One device goes by iommufd, several go by groups, as long as there are any. */
static void test_iommufd(void)
{
    static struct vfiodev d;
    static uint8_t ram[8192];
    struct vfiodev_host h;
    struct vmm_mem mem = {0};

    memset(&kernel, 0, sizeof kernel);
    kernel.dump = &dump_edu;
    kernel.device = memfd_create("device", 0);
    CHECK_EQ(ftruncate(kernel.device, 9ll * REGION), 0);
    host_has("vfio-pci");
    host_has_cdev();
    host_open(&h, 1);
    CHECK_EQ(vfiodev_open(&d, &h, "0000:01:00.0", NULL, &log_here), 0);
    CHECK(kernel.nbinds == 1 && kernel.nattaches == 1 && kernel.ngroups == 0 && h.ioas == 77);
    vmm_mem_add(&mem, 0, 4096, ram);
    vmm_mem_add(&mem, 0x100000000, 4096, ram + 4096);
    CHECK_EQ(vfiodev_host_map(&h, &mem), 0);
    CHECK(kernel.nmaps == 0 && kernel.nioas_maps == 2);
    CHECK(kernel.ioas_map[1].iova == 0x100000000 && kernel.ioas_map[1].length == 4096);
    CHECK_EQ(kernel.ioas_map[1].user_va, (uintptr_t)(ram + 4096));
    mem.range[0].len = 1ull << 50;
    kernel.map_errno = ENOMEM;
    check_said(vfiodev_host_map(&h, &mem), -ENOMEM, said, "guest RAM");
    vfiodev_close(&d);
    vfiodev_host_fini(&h);
    kernel.map_errno = 0;
    kernel.bind_errno = EPERM; /* the group is asked instead */
    host_open(&h, 1);
    CHECK_EQ(vfiodev_open(&d, &h, "0000:01:00.0", NULL, &log_here), 0);
    CHECK(kernel.nbinds == 2 && kernel.ngroups == 1 && h.ioas == 0);
    vfiodev_close(&d);
    vfiodev_host_fini(&h);
    host_open(&h, 2);
    CHECK_EQ(vfiodev_open(&d, &h, "0000:01:00.0", NULL, &log_here), 0);
    CHECK(kernel.nbinds == 2 && kernel.ngroups == 2);
    vfiodev_close(&d);
    vfiodev_host_fini(&h);
    close(kernel.device);
}

/* A host that has no groups any more. */
static void test_iommufd_alone(void)
{
    static struct vfiodev d;
    static const char a[] = "0000:01:00.0";
    struct vfiodev_host h;
    struct vfiodev_finding f;

    memset(&kernel, 0, sizeof kernel);
    kernel.dump = &dump_edu;
    kernel.device = memfd_create("device", 0);
    CHECK_EQ(ftruncate(kernel.device, 9ll * REGION), 0);
    host_has("vfio-pci");
    host_has_cdev();
    sh("rm " VFIODEV_DEV "/vfio " VFIODEV_DEV "/7");
    CHECK_EQ(vfiodev_look(a, &f), 0);
    CHECK(f.said[0] == 0 && strcmp(f.cdev, "vfio3") == 0);
    host_open(&h, 2);
    CHECK_EQ(vfiodev_open(&d, &h, a, NULL, &log_here), 0);
    vfiodev_close(&d);
    kernel.attach_errno = ENODEV;
    check_said(vfiodev_open(&d, &h, a, NULL, &log_here), -ENODEV, said, "iommufd does not take");
    kernel.bind_errno = EPERM;
    check_said(vfiodev_look(a, &f), -EPERM, f.said,
               "echo 1 > /sys/module/iommufd/parameters/allow_unsafe_interrupts");
    kernel.bind_errno = EINVAL;
    check_said(vfiodev_open(&d, &h, a, NULL, &log_here), -EBUSY, said,
               "is in use: end the program that has " VFIODEV_DEV "/devices/vfio3 open");
    kernel.bind_errno = EPERM;
    sh("cd " VFIODEV_SYS "; mkdir -p bus/pci/devices/0000:01:00.1 "
       "kernel/iommu_groups/7/devices/0000:01:00.1; "
       "ln -s ../../drivers/snd bus/pci/devices/0000:01:00.1/driver");
    check_said(vfiodev_look(a, &f), -EPERM, f.said, "unbind them: 0000:01:00.1 (snd)");
    sh("rm -r " VFIODEV_SYS "/bus/pci/devices/0000:01:00.0/vfio-dev");
    check_said(vfiodev_open(&d, &h, a, NULL, &log_here), -ENOENT, said, "has no file in");
    vfiodev_host_fini(&h);
    close(kernel.device);
}

/* >>device ------------------------------------------------------------------------ */

static struct {
    struct pci_root root;
    struct vmm_bus mmio;
    struct vfiodev_host host;
    struct vfiodev d;
    struct pci_vector vectors[PCI_VECTORS_MAX];
    int bell[VECTORS_MAX];
    uint8_t config[VFIODEV_CONFIG_LEN];
    struct {
        uint64_t gpa, len;
    } area[4];
    unsigned nareas, nroutes;
    bool on[VECTORS_MAX];
    uint64_t addr[VECTORS_MAX];
    uint32_t data[VECTORS_MAX];
} m;

static int on_map(void *ctx, uint64_t gpa, uint64_t len, void *hva, unsigned prot)
{
    CHECK(ctx == &m && hva && prot == (VMM_READ | VMM_WRITE) && m.nareas < 4);
    m.area[m.nareas].gpa = gpa;
    m.area[m.nareas++].len = len;
    return 0;
}

static int on_unmap(void *ctx, uint64_t gpa, uint64_t len)
{
    (void)ctx;
    for (unsigned i = 0; i < m.nareas; i++)
        if (m.area[i].gpa == gpa && m.area[i].len == len) {
            m.area[i] = m.area[--m.nareas];
            return 0;
        }
    CHECK(!"it was mapped");
    return -ENOENT;
}

static void on_route(void *ctx, unsigned vector, bool on, uint64_t addr, uint32_t data)
{
    (void)ctx;
    m.nroutes += on != m.on[vector];
    m.on[vector] = on;
    m.addr[vector] = addr;
    m.data[vector] = data;
}

/* The device of a dump in slot 1 of a bus, its BARs from 0xc0000000 on, as one of several. */
static void machine_of(const struct dump *dump, unsigned ndevices)
{
    struct pci_root_desc bus = {.ecam = 0xe0000000, .mmio32 = {0xc0000000, 0x1000000}};
    struct vfiodev_desc desc = {.vectors = m.vectors,
                                .bell = m.bell,
                                .intx_bell = 1000,
                                .intx_done = 1001,
                                .wanted = 1002,
                                .map = on_map,
                                .unmap = on_unmap,
                                .route = on_route,
                                .ctx = &m,
                                .log = &log_here};

    memset(&m, 0, sizeof m);
    memset(&kernel, 0, sizeof kernel);
    kernel.dump = dump;
    kernel.most = VECTORS_MAX;
    kernel.device = memfd_create("device", 0);
    dump_load(dump, m.config);
    CHECK_EQ(ftruncate(kernel.device, 9ll * REGION), 0);
    CHECK_EQ(pwrite(kernel.device, m.config, sizeof m.config, 7ll * REGION), sizeof m.config);
    for (unsigned i = 0; i < VECTORS_MAX; i++)
        m.bell[i] = 2000 + (int)i; /* of no descriptor */
    host_has("vfio-pci");
    host_open(&m.host, ndevices);
    pci_root_init(&m.root, &bus);
    CHECK_EQ(vfiodev_open(&m.d, &m.host, "0000:01:00.0", NULL, &log_here), 0);
    CHECK_EQ(vfiodev_init(&m.d, &desc), 0);
    CHECK_EQ(pci_plug(&m.root, &m.d.pci), 0);
    CHECK_EQ(pci_root_add_io(&m.root, &m.mmio, NULL), 0);
}

static void machine(const struct dump *dump)
{
    machine_of(dump, 1);
}

static void machine_end(void)
{
    vfiodev_close(&m.d);
    vfiodev_host_fini(&m.host);
    close(kernel.device);
}

static uint64_t rd(uint64_t gpa, unsigned len)
{
    uint64_t val = 0;

    vmm_bus_access(&m.mmio, gpa, len, false, &val);
    return val;
}

static void wr(uint64_t gpa, unsigned len, uint64_t val)
{
    vmm_bus_access(&m.mmio, gpa, len, true, &val);
}

static uint64_t cfg(unsigned off)
{
    return 0xe0008000 + off;
}

static uint32_t device_has(unsigned region, uint64_t off, unsigned len)
{
    uint32_t val = 0;

    CHECK_EQ(pread(kernel.device, &val, len, (off_t)(region * (uint64_t)REGION + off)), len);
    return val;
}

static bool is_mapped(uint64_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < m.nareas; i++)
        if (m.area[i].gpa == gpa && m.area[i].len == len)
            return true;
    return false;
}

/* The guest has all of the BAR but the page of the MSI-X table, wherever it puts it. */
static void test_mapping(void)
{
    machine(&dump_nvme);
    CHECK(kernel.resets == 1 && m.nareas == 0 && kernel.wanted == 1002);
    CHECK_EQ(device_has(7, PCI_COMMAND, 2), PCI_COMMAND_MEMORY); /* at once */
    wr(cfg(PCI_COMMAND), 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    CHECK_EQ(device_has(7, PCI_COMMAND, 2), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    CHECK(m.nareas == 2 && is_mapped(0xc0000000, 0x2000) && is_mapped(0xc0003000, 0x1000));
    wr(0xc0002800, 4, 0x12345678); /* behind the table, in its page */
    CHECK_EQ(device_has(0, 0x2800, 4), 0x12345678);
    CHECK_EQ(rd(0xc0002802, 2), 0x1234);
    wr(0xc0002000, 4, 0xfee00000); /* the table is ours */
    CHECK(device_has(0, 0x2000, 4) == 0 && rd(0xc0002000, 4) == 0xfee00000);
    wr(cfg(PCI_BASE_ADDRESS_0), 4, 0xc0100000);
    CHECK(m.nareas == 2 && is_mapped(0xc0100000, 0x2000) && is_mapped(0xc0103000, 0x1000));
    wr(cfg(PCI_COMMAND), 2, 0);
    CHECK(m.nareas == 0 && device_has(7, PCI_COMMAND, 2) == PCI_COMMAND_MEMORY);
    wr(cfg(0x80 + PCI_EXP_DEVCTL), 2, 0x2810);
    CHECK_EQ(device_has(7, 0x80 + PCI_EXP_DEVCTL, 2), 0x2810);
    wr(cfg(0x60 + PCI_PM_CTRL), 2, 3); /* it only seems to sleep */
    CHECK(rd(cfg(0x60 + PCI_PM_CTRL), 2) == 0xb && device_has(7, 0x60 + PCI_PM_CTRL, 2) == 8);
    machine_end();
}

/* Beside other devices, its BARs are where these find them, too. */
static void test_peers(void)
{
    machine_of(&dump_nvme, 2);
    wr(cfg(PCI_COMMAND), 2, PCI_COMMAND_MEMORY);
    CHECK(kernel.nmaps == 2 && kernel.map[0].iova == 0xc0000000 && kernel.map[0].size == 0x2000);
    CHECK(kernel.map[1].iova == 0xc0003000 && kernel.nunmaps == 0);
    wr(cfg(PCI_BASE_ADDRESS_0), 4, 0xc0100000);
    CHECK(kernel.nmaps == 4 && kernel.nunmaps == 2 && kernel.map[2].iova == 0xc0100000);
    kernel.map_errno = EFAULT; /* as iommufd does: said once, and nothing to take back */
    said[0] = 0;
    wr(cfg(PCI_BASE_ADDRESS_0), 4, 0xc0200000);
    CHECK(strstr(said, "other devices do not reach its memory") && kernel.nunmaps == 4);
    wr(cfg(PCI_BASE_ADDRESS_0), 4, 0xc0300000);
    CHECK_EQ(kernel.nunmaps, 4);
    machine_end();
}

static void vector(unsigned n, uint32_t addr, uint32_t data, unsigned masked)
{
    wr(0xc0002000 + 16 * n, 8, addr);
    wr(0xc0002008 + 16 * n, 4, data);
    wr(0xc000200c + 16 * n, 4, masked);
}

/* As Linux does it: enabled with all masked, messages, the function unmasked, then each vector. */
static void test_msix(void)
{
    machine(&dump_nvme);
    CHECK(kernel.index == VFIO_PCI_INTX_IRQ_INDEX && kernel.fd[0] == 1001);
    CHECK_EQ(kernel.flags, VFIO_IRQ_SET_ACTION_UNMASK | VFIO_IRQ_SET_DATA_EVENTFD);
    wr(cfg(PCI_COMMAND), 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    wr(cfg(0x42), 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    CHECK(kernel.index == VFIO_PCI_MSIX_IRQ_INDEX && kernel.count == 1); /* it is in that mode */
    for (unsigned n = 0; n < 2; n++)
        vector(n, 0xfee00000 + (n << 12), 0x40 + n, 1);
    kernel.sets = 0;
    wr(cfg(0x42), 2, PCI_MSIX_FLAGS_ENABLE);
    CHECK(kernel.sets == 2 && kernel.count == 2 && kernel.fd[1] == 2001); /* off and on, once */
    CHECK_EQ(m.nroutes, 0);
    wr(0xc000201c, 4, 0);
    CHECK(m.on[1] && m.addr[1] == 0xfee01000 && m.data[1] == 0x41 && m.nroutes == 1);
    wr(0xc000201c, 4, 1);
    CHECK(!m.on[1] && m.nroutes == 2 && kernel.sets == 2); /* masked without the host */
    vector(40, 0xfee09000, 0x99, 0);
    CHECK(kernel.count == 41 && m.on[40]);
    kernel.most = 50; /* the host has no more: the guest goes on with what it got */
    vector(60, 0xfee0a000, 0x9a, 0);
    CHECK(kernel.count == 41 && !m.on[60] && m.on[40] && strstr(said, "not so many interrupts"));
    wr(cfg(0x42), 2, 0);
    CHECK(!m.on[40] && kernel.index == VFIO_PCI_INTX_IRQ_INDEX && kernel.count == 1);
    pci_reset(&m.root);
    CHECK(kernel.resets == 2 && m.nareas == 0);
    machine_end();
}

/* As many as there can be, of which the first and the last are used. */
static void test_many_vectors(void)
{
    struct dump many = dump_nvme;
    static char rows[4096];
    char *at;

    strcpy(rows, dump_nvme.rows);
    at = strstr(rows, "40: 11 80 40 80 00 20 00 00 00 30");
    if (!CHECK(at))
        return;
    memcpy(at, "40: 11 80 ff 87 00 20 00 00 00 c0", 33);
    many.rows = rows;
    many.bar_len[0] = 0x10000;
    machine(&many);
    CHECK(m.d.nvectors == 2048 && m.d.nbells == 2048);
    wr(cfg(PCI_COMMAND), 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    CHECK(m.nareas == 2 && is_mapped(0xc0000000, 0x2000) && is_mapped(0xc000a000, 0x6000));
    wr(cfg(0x42), 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    vector(0, 0xfee00000, 0x40, 0);
    vector(2047, 0xfee01000, 0x41, 0);
    wr(cfg(0x42), 2, PCI_MSIX_FLAGS_ENABLE);
    CHECK(kernel.count == 2048 && kernel.fd[2047] == 2000 + 2047);
    CHECK(m.on[0] && !m.on[1] && m.on[2047] && m.data[2047] == 0x41 && m.nroutes == 2);
    machine_end();
}

static void test_msi(void)
{
    machine(&dump_edu);
    wr(cfg(PCI_COMMAND), 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    CHECK(m.nareas == 1 && is_mapped(0xc0000000, 0x100000));
    wr(cfg(0x44), 8, 0xfee02000);
    wr(cfg(0x4c), 2, 0x4051);
    CHECK_EQ(m.nroutes, 0);
    wr(cfg(0x42), 2, PCI_MSI_FLAGS_ENABLE);
    CHECK(kernel.index == VFIO_PCI_MSI_IRQ_INDEX && kernel.count == 1 && kernel.fd[0] == 2000);
    CHECK(m.on[0] && m.addr[0] == 0xfee02000 && m.data[0] == 0x4051);
    wr(cfg(0x4c), 2, 0x4052);
    CHECK_EQ(m.data[0], 0x4052);
    wr(cfg(PCI_COMMAND), 2, PCI_COMMAND_MEMORY);
    CHECK(!m.on[0]);
    wr(cfg(0x42), 2, 0);
    CHECK_EQ(kernel.index, VFIO_PCI_INTX_IRQ_INDEX);
    machine_end();
}

/* A file in place of the device's ROM, whose length it rounds up. */
static void test_rom(void)
{
    static const char path[] = "build/tests/vfio.rom";
    uint8_t image[3000] = {0x55, 0xaa};
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

    CHECK_EQ(write(fd, image, sizeof image), sizeof image);
    close(fd);
    machine(&dump_edu);
    vfiodev_close(&m.d);
    CHECK_EQ(vfiodev_open(&m.d, &m.host, "0000:01:00.0", path, &log_here), 0);
    CHECK_EQ(m.d.is.bar[PCI_ROM].len, 4096);
    CHECK_EQ(vfiodev__rom_read(&m.d, 0, 2), 0xaa55);
    CHECK_EQ(vfiodev__rom_read(&m.d, 2998, 4), 0xffff0000);
    CHECK_EQ(vfiodev__rom_read(&m.d, 4092, 4), 0xffffffff);
    vfiodev_close(&m.d);
    check_said(vfiodev_open(&m.d, &m.host, "0000:01:00.0", "/nonexistent", &log_here), -ENOENT,
               said, "rom '/nonexistent' of 0000:01:00.0");
    machine_end();
    unlink(path);
}

int main(void)
{
    test_dumps();
    test_bars();
    test_passing();
    test_lists();
    test_areas();
    test_refusals();
    test_host();
    test_iommufd();
    test_iommufd_alone();
    test_mapping();
    test_peers();
    test_msix();
    test_many_vectors();
    test_msi();
    test_rom();
    sh("rm -rf " VFIODEV_SYS " " VFIODEV_DEV);
    CHECK_DONE("test_vfio");
}
