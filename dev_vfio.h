/* dev_vfio.h - devices of the host for a guest, by Linux's VFIO     MIT licence, see LICENSE

   WHAT IT IS      Takes a PCI device that the host's vfio-pci holds and shows it on a bus of
                   dev_pci.h. The device's memory is the guest's memory, its interrupts go from the
                   kernel to the guest, its DMA goes through the host's IOMMU: once a driver runs,
                   no access and no interrupt comes by here, but for the pages of the MSI-X table,
                   configuration space and BARs smaller than a page. What the guest sees of
                   configuration space is decided here (>>config, pure), and why a host does not
                   give a device away (>>sysfs). The DMA of one device goes by iommufd and the
                   device's own file (Linux 6.6) where the host has them, else by its group and the
                   type-1 IOMMU; so it does for several devices, for iommufd does not let one reach
                   another's memory. It follows "PCI Local Bus Specification 3.0", "PCI Express Base
                   Specification" and the kernel's Documentation/driver-api/vfio.rst and
                   userspace-api/iommufd.rst.
                   Not here: I/O BARs, which the guest does not see, the pending bits of vectors
                   that the guest has masked, mediated devices, hot-plug.

   QUICK START     static struct vfiodev_host host;
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

   CONFIGURATION   set everywhere, before the first include:
                   VFIODEV_GROUPS   IOMMU groups of one VM; default 16
                   VFIODEV_AREAS    pieces of a BAR that the guest reaches directly; default 8
                   set in the implementing file only:
                   VFIODEV_SYS      where sysfs is; default "/sys"
                   VFIODEV_DEV      where VFIO's devices are; default "/dev/vfio"
                   VFIODEV_IOMMU    iommufd; default "/dev/iommu"
                   _GNU_SOURCE      needed; defined here unless a system header came first

   DEPENDS ON      vmm.h, and dev_pci.h, which is included first; the implementation on Linux and
                   its headers. Elsewhere what opens says that there is no VFIO.

   THREADS         Opening, init, plugging and mapping belong before the first vCPU, vfiodev_close
                   after the last. In between everything comes from dev_pci.h, with its locks held;
                   two devices that are moved at a time meet in the root's lock.
   MEMORY          The caller owns every struct, the vectors and bells, and leaves them where they
                   are. Guest memory is pinned: all of it is there, for the device may write
                   anywhere.
   ERRORS          Negative errno; one sentence with its remedy in the log. While the guest runs,
                   what the host refuses is a line in the log within a budget.
   GUEST TRUST     A guest can do to the device whatever its driver could; the IOMMU keeps that away
                   from the host. Configuration space that could move the device, its interrupts or
                   others of its kind (BARs, MSI, SR-IOV, ATS, bridges) is not the device's but ours
                   or hidden; beyond that the kernel filters once more. */
#ifndef DEV_VFIO_H
#define DEV_VFIO_H

#if (defined(VMM_IMPLEMENTATION) || defined(DEV_VFIO_IMPLEMENTATION)) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "vmm.h"

#ifdef DEV_PCI_H

#ifndef VFIODEV_GROUPS
#define VFIODEV_GROUPS 16
#endif
#ifndef VFIODEV_AREAS
#define VFIODEV_AREAS 8
#endif
#define VFIODEV_CONFIG_LEN 4096

#ifdef __cplusplus
extern "C" {
#endif

/* >>config: what the guest sees of a device's configuration space, of which the caller read `len`
   bytes (256 or VFIODEV_CONFIG_LEN). Pure. */
struct vfiodev_config {
    uint8_t pass[VFIODEV_CONFIG_LEN]; /* the bits that are the device's own, at any time */
    uint8_t ext[VFIODEV_CONFIG_LEN];  /* the rest of what is read from 256 on */
};

/* Fills what a device says about itself into desc: ids, BARs of the given lengths, MSI and MSI-X
   without vectors. -ENOTSUP: no device but a bridge; sentence in the log. */
VMM_DEF int vfiodev_describe(struct pci_desc *desc, const uint8_t *config, unsigned len,
                             const uint64_t bar_len[PCI_BARS]);
/* Between pci_init and pci_plug: gives d the capabilities that are safe, where the device has
   them. */
VMM_DEF int vfiodev_adopt(struct vfiodev_config *v, struct pci_dev *d, const uint8_t *config,
                          unsigned len);
/* Does a read need the device? */
VMM_DEF bool vfiodev_config_asks(const struct vfiodev_config *v, unsigned off, unsigned len);
/* What a guest reads where the device has `host`. */
VMM_DEF uint32_t vfiodev_config_read(const struct vfiodev_config *v, const struct pci_dev *d,
                                     unsigned off, unsigned len, uint32_t host);
/* A bit for each byte of a write that the device gets. */
VMM_DEF unsigned vfiodev_config_takes(const struct vfiodev_config *v, unsigned off, unsigned len);

/* A piece of a BAR, whole pages. */
struct vfiodev_area {
    uint64_t off, len;
};

/* Takes [off, off + len), widened to whole pages, out of n areas; returns how many there are then,
   at most max. */
VMM_DEF unsigned vfiodev_areas_cut(struct vfiodev_area *area, unsigned n, unsigned max,
                                   uint64_t off, uint64_t len, uint64_t page);

/* >>host: the IOMMU's side, one a VM. */
struct vfiodev_host_desc {
    unsigned ndevices; /* that are going to be opened; from 2 on they reach each other's BARs */
    /* A group, or a device without one, was opened: for the hypervisor; may be NULL. */
    void (*opened)(void *ctx, int fd);
    void *ctx;
    const struct vmm_log *log; /* NULL: silent */
};

struct vfiodev_host {
    struct vfiodev_host_desc desc;
    int iommu;     /* iommufd; -1: groups only */
    uint32_t ioas; /* its address space; 0: none yet */
    int container; /* of groups; -1: none */
    bool ready;    /* it has an IOMMU */
    struct {
        unsigned number;
        int fd;
    } group[VFIODEV_GROUPS];
    unsigned ngroups;
};

VMM_DEF int vfiodev_host_init(struct vfiodev_host *h, const struct vfiodev_host_desc *desc);
/* Lets the devices reach all of guest memory, where the guest sees it. When nothing is going to
   replace its pages any more: they are pinned as they are. Again for ranges that appear later, with
   these alone. */
VMM_DEF int vfiodev_host_map(struct vfiodev_host *h, const struct vmm_mem *mem);
/* After every device. */
VMM_DEF void vfiodev_host_fini(struct vfiodev_host *h);

/* >>device */
struct vfiodev_desc {
    struct pci_vector *vectors; /* vfiodev.nvectors of them */
    int *bell;                  /* vfiodev.nbells eventfds, one a vector of MSI or MSI-X */
    int intx_bell, intx_done;   /* eventfds of a line that is looked at again; both 0: no INTx */
    int wanted;                 /* eventfd that the host rings when it wants it back; 0: none */
    unsigned slot;              /* as pci_desc.slot */
    struct vmm_lock lock;       /* the device's lock */
    /* The BARs' memory for the guest, see hyp_window_map. */
    int (*map)(void *ctx, uint64_t gpa, uint64_t len, void *hva, unsigned prot);
    int (*unmap)(void *ctx, uint64_t gpa, uint64_t len);
    /* From now on a ring of bell `vector` is this message; on false: nothing, it keeps until
       then. */
    void (*route)(void *ctx, unsigned vector, bool on, uint64_t addr, uint32_t data);
    void *ctx;
    const struct vmm_log *log; /* NULL: silent */
};

struct vfiodev {
    struct vfiodev_desc desc;
    struct vfiodev_host *host;
    char name[16]; /* its address */
    int fd;
    bool resets;       /* the host can reset it */
    unsigned nvectors; /* of MSI-X */
    unsigned nbells;   /* of MSI or MSI-X, whichever has more */
    bool intx;         /* it has INTA# */
    struct pci_desc is;
    struct pci_dev pci;
    struct vfiodev_config config;
    uint8_t recorded[VFIODEV_CONFIG_LEN]; /* configuration space when it was opened */
    unsigned config_len;
    uint64_t config_off; /* of configuration space in fd */
    struct vfiodev_bar {
        uint64_t off; /* in fd */
        unsigned prot;
        struct vfiodev_area area[VFIODEV_AREAS];
        void *mem[VFIODEV_AREAS];
        unsigned nareas;
        uint64_t gpa;   /* where the areas are mapped */
        unsigned there; /* a bit for each area that the guest has */
        unsigned peers; /* and that other devices have */
    } bar[PCI_BARS];
    const uint8_t *rom; /* in place of the device's; NULL: none */
    uint64_t rom_len;
    void *rom_map;
    enum { VFIODEV_NO_IRQ, VFIODEV_INTX, VFIODEV_MSI, VFIODEV_MSIX } irq;
    unsigned nactive; /* vectors that the host delivers */
    uint16_t command; /* that the device has */
    struct vmm_budget budget;
};

/* Opens a device by its address, 0000:01:00.0; rom: a file with its expansion ROM, NULL: its
   own. */
VMM_DEF int vfiodev_open(struct vfiodev *d, struct vfiodev_host *h, const char *address,
                         const char *rom, const struct vmm_log *log);
/* Resets the device and makes d->pci; then pci_plug. */
VMM_DEF int vfiodev_init(struct vfiodev *d, const struct vfiodev_desc *desc);
/* Gives it back, reset. */
VMM_DEF void vfiodev_close(struct vfiodev *d);

/* >>sysfs: could a device be passed now? */
struct vfiodev_finding {
    char address[16];
    unsigned group;
    char cdev[16];  /* "vfio0", its own file; "": the host has none */
    char what[96];  /* "1b36:0010, class 010802, driver nvme, group 12" */
    char said[480]; /* that it cannot be, ": ", and what to do about that; "": it can */
};

/* 0: it could; else -errno with the sentence. */
VMM_DEF int vfiodev_look(const char *address, struct vfiodev_finding *f);
/* Calls back for each device that is no bridge, in order of their addresses; returns how many. */
VMM_DEF unsigned vfiodev_list(void (*fn)(void *ctx, int err, const struct vfiodev_finding *f),
                              void *ctx);

#ifdef __cplusplus
}
#endif
#endif /* DEV_PCI_H */
#endif /* DEV_VFIO_H */

#if (defined(VMM_IMPLEMENTATION) || defined(DEV_VFIO_IMPLEMENTATION)) && defined(DEV_PCI_H)
#ifndef VFIODEV__IMPLEMENTED
#define VFIODEV__IMPLEMENTED

#ifdef __linux__
#include <dirent.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef VFIODEV_SYS
#define VFIODEV_SYS "/sys"
#endif
#ifndef VFIODEV_DEV
#define VFIODEV_DEV "/dev/vfio"
#endif
#ifndef VFIODEV_IOMMU
#define VFIODEV_IOMMU "/dev/iommu"
#endif

/* >>headers: what the kernel has since 6.2 and 6.6, for a build whose headers are older: the one
   place where its structures are written down again. ------------------------------- */

#ifdef __has_include
#if __has_include(<linux/iommufd.h>)
#include <linux/iommufd.h>
#endif
#endif

#ifndef IOMMU_IOAS_ALLOC
struct iommu_ioas_alloc {
    uint32_t size, flags, out_ioas_id;
};
struct iommu_ioas_map {
    uint32_t size, flags, ioas_id, __reserved;
    uint64_t user_va, length, iova;
};
struct iommu_ioas_unmap {
    uint32_t size, ioas_id;
    uint64_t iova, length;
};
enum {
    IOMMU_IOAS_MAP_FIXED_IOVA = 1 << 0,
    IOMMU_IOAS_MAP_WRITEABLE = 1 << 1,
    IOMMU_IOAS_MAP_READABLE = 1 << 2
};
#define IOMMU_IOAS_ALLOC _IO(';', 0x81)
#define IOMMU_IOAS_MAP   _IO(';', 0x85)
#define IOMMU_IOAS_UNMAP _IO(';', 0x86)
_Static_assert(sizeof(struct iommu_ioas_alloc) == 12, "as the kernel's");
_Static_assert(sizeof(struct iommu_ioas_map) == 40, "as the kernel's");
_Static_assert(sizeof(struct iommu_ioas_unmap) == 24, "as the kernel's");
#endif

#ifndef VFIO_DEVICE_BIND_IOMMUFD
struct vfio_device_bind_iommufd {
    uint32_t argsz, flags;
    int32_t iommufd;
    uint32_t out_devid;
};
struct vfio_device_attach_iommufd_pt {
    uint32_t argsz, flags, pt_id;
};
#define VFIO_DEVICE_BIND_IOMMUFD      _IO(VFIO_TYPE, VFIO_BASE + 18)
#define VFIO_DEVICE_ATTACH_IOMMUFD_PT _IO(VFIO_TYPE, VFIO_BASE + 19)
_Static_assert(sizeof(struct vfio_device_bind_iommufd) == 16, "as the kernel's");
_Static_assert(sizeof(struct vfio_device_attach_iommufd_pt) == 12, "as the kernel's");
#endif

/* >>config ------------------------------------------------------------------------ */

enum {
    VFIODEV__HEADER = 0x40, /* bytes that all devices have alike */
    VFIODEV__STD = 256,     /* without the extended space */
    VFIODEV__CAPS_MAX = 48,
    VFIODEV__CLASS_BRIDGE = 6
};

VMM_DEF bool vfiodev_config_asks(const struct vfiodev_config *v, unsigned off, unsigned len)
{
    for (unsigned i = off; i < off + len && i < VFIODEV_CONFIG_LEN; i++)
        if (v->pass[i])
            return true;
    return false;
}

VMM_DEF uint32_t vfiodev_config_read(const struct vfiodev_config *v, const struct pci_dev *d,
                                     unsigned off, unsigned len, uint32_t host)
{
    uint32_t val = 0;

    for (unsigned i = 0; i < len && off + i < VFIODEV_CONFIG_LEN; i++) {
        unsigned at = off + i, pass = v->pass[at];
        unsigned ours = at < VFIODEV__STD ? d->config[at] : v->ext[at];
        val |= ((ours & ~pass) | (host >> 8 * i & pass)) << 8 * i;
    }
    return val;
}

/* What passes in part is there to be read. */
VMM_DEF unsigned vfiodev_config_takes(const struct vfiodev_config *v, unsigned off, unsigned len)
{
    unsigned bytes = 0;

    for (unsigned i = 0; i < len && off + i < VFIODEV_CONFIG_LEN; i++)
        bytes |= (unsigned)(v->pass[off + i] == 0xff) << i;
    return bytes;
}

/* The offsets of the capability list, until it ends, leaves its space or meets itself. */
static unsigned vfiodev__list_caps(const uint8_t *config, uint8_t at[VFIODEV__CAPS_MAX])
{
    unsigned n = 0, next = config[PCI_CAPABILITY_LIST] & ~3u;
    uint64_t seen = 0; /* a bit for each dword of the 64 */

    if (!(config[PCI_STATUS] & PCI_STATUS_CAP_LIST))
        return 0;
    while (next >= VFIODEV__HEADER && n < VFIODEV__CAPS_MAX && !(seen & 1ull << next / 4)) {
        seen |= 1ull << next / 4;
        at[n++] = (uint8_t)next;
        next = config[next + 1] & ~3u;
    }
    return n;
}

static unsigned vfiodev__find_cap(const uint8_t *config, unsigned id)
{
    uint8_t at[VFIODEV__CAPS_MAX];
    unsigned n = vfiodev__list_caps(config, at);

    for (unsigned i = 0; i < n; i++)
        if (config[at[i]] == id)
            return at[i];
    return 0;
}

/* Where the next capability begins, or the space ends. */
static unsigned vfiodev__cap_end(const uint8_t *at, unsigned n, unsigned from)
{
    unsigned end = VFIODEV__STD;

    for (unsigned i = 0; i < n; i++)
        if (at[i] > from && at[i] < end)
            end = at[i];
    return end;
}

/* "PCI Express Base Specification": what an endpoint has. */
static unsigned vfiodev__express_len(const uint8_t *cap)
{
    return (cap[2] & PCI_EXP_FLAGS_VERS) < 2 ? PCI_CAP_EXP_ENDPOINT_SIZEOF_V1
                                             : PCI_CAP_EXP_ENDPOINT_SIZEOF_V2;
}

/* Bytes of a capability that the guest may have; 0: it is hidden. Enhanced Allocation would move
   BARs; of what is not known nobody can say. */
static unsigned vfiodev__cap_len(const uint8_t *cap)
{
    switch (cap[0]) {
    case PCI_CAP_ID_PM:
        return PCI_PM_SIZEOF;
    case PCI_CAP_ID_VPD:
        return PCI_CAP_VPD_SIZEOF;
    case PCI_CAP_ID_PCIX:
        return PCI_CAP_PCIX_SIZEOF_V0;
    case PCI_CAP_ID_VNDR:
        return cap[2] < 3 ? 3 : cap[2];
    case PCI_CAP_ID_EXP:
        return vfiodev__express_len(cap);
    case PCI_CAP_ID_AF:
        return PCI_CAP_AF_SIZEOF;
    default:
        return 0;
    }
}

/* The device stays in D0, where its memory answers; the guest's notes about power are its own. No
   power management events: nobody would hear them. */
static void vfiodev__own_power(uint8_t *cap, uint8_t *writable)
{
    vmm_put16(cap + PCI_PM_PMC, vmm_get16(cap + PCI_PM_PMC) & (uint16_t)~PCI_PM_CAP_PME_MASK);
    vmm_put16(cap + PCI_PM_CTRL, PCI_PM_CTRL_NO_SOFT_RESET);
    cap[6] = cap[7] = 0;
    vmm_put16(writable + PCI_PM_CTRL, PCI_PM_CTRL_STATE_MASK);
}

/* An endpoint without a port above it is one of the root complex. */
static void vfiodev__own_express(uint8_t *cap)
{
    unsigned flags = vmm_get16(cap + PCI_EXP_FLAGS), type = (flags & PCI_EXP_FLAGS_TYPE) >> 4;

    if (type == PCI_EXP_TYPE_ENDPOINT || type == PCI_EXP_TYPE_LEG_END)
        type = PCI_EXP_TYPE_RC_END;
    vmm_put16(cap + PCI_EXP_FLAGS, (uint16_t)((flags & PCI_EXP_FLAGS_VERS) | type << 4));
}

/* One capability of the list, behind which the next one begins at `end`. Its header is ours. */
static int vfiodev__adopt_cap(struct vfiodev_config *v, struct pci_dev *d, const uint8_t *config,
                              unsigned at, unsigned end)
{
    uint8_t cap[VFIODEV__STD] = {0}, writable[VFIODEV__STD] = {0};
    unsigned len = vfiodev__cap_len(config + at);
    int err;

    if (at == d->msi_cap || at == d->msix_cap)
        return 0;
    memset(v->pass + at, 0, len ? 2 : end - at);
    if (!len)
        return 0;
    if (len > end - at)
        len = end - at;
    memcpy(cap, config + at, len);
    if (cap[0] == PCI_CAP_ID_PM) {
        vfiodev__own_power(cap, writable);
        memset(v->pass + at, 0, len);
    } else if (cap[0] == PCI_CAP_ID_EXP) {
        vfiodev__own_express(cap);
        memset(v->pass + at, 0, 4);
    }
    err = pci_put_cap(d, at, cap[0], cap + 2, len - 2, writable + 2);
    return err < 0 ? err : 0;
}

/* Extended capabilities that only describe, or are the vendor's. Those that change how the device
   is reached or translates addresses (SR-IOV, ARI, ATS, PASID, resizable BARs, ...) are hidden. */
static unsigned vfiodev__ext_len(const uint8_t *cap)
{
    switch (vmm_get16(cap)) {
    case PCI_EXT_CAP_ID_ERR:
        return 0x38; /* up to where only root ports have more */
    case PCI_EXT_CAP_ID_DSN:
        return PCI_EXT_CAP_DSN_SIZEOF;
    case PCI_EXT_CAP_ID_PWR:
        return PCI_EXT_CAP_PWR_SIZEOF;
    case PCI_EXT_CAP_ID_VNDR:
    case PCI_EXT_CAP_ID_DVSEC:
        return vmm_get32(cap + 4) >> 20;
    default:
        return 0;
    }
}

/* The list begins at 256: if what the device has there is hidden, a null capability stands for
   it. */
static void vfiodev__adopt_ext(struct vfiodev_config *v, const uint8_t *config)
{
    unsigned at = VFIODEV__STD, last = VFIODEV__STD;
    uint8_t seen[VFIODEV_CONFIG_LEN / 4] = {0};

    while (at >= VFIODEV__STD && at <= VFIODEV_CONFIG_LEN - 8 && !seen[at / 4]) {
        uint32_t header = vmm_get32(config + at);
        unsigned len = vfiodev__ext_len(config + at);
        seen[at / 4] = 1;
        if (len > VFIODEV_CONFIG_LEN - at)
            len = VFIODEV_CONFIG_LEN - at;
        if (len >= 8) {
            if (at != last)
                vmm_put32(v->ext + last, vmm_get32(v->ext + last) | at << 20);
            last = at;
            vmm_put32(v->ext + at, header & 0xfffff);
            memset(v->pass + at + 4, 0xff, len - 4);
        }
        at = PCI_EXT_CAP_NEXT(header);
    }
    /* a capability that reaches into another one's header does not change it */
    for (at = VFIODEV__STD; at; at = vmm_get32(v->ext + at) >> 20)
        memset(v->pass + at, 0, 4);
}

VMM_DEF int vfiodev_adopt(struct vfiodev_config *v, struct pci_dev *d, const uint8_t *config,
                          unsigned len)
{
    uint8_t at[VFIODEV__CAPS_MAX];
    unsigned n = vfiodev__list_caps(config, at);
    int err = 0;

    memset(v, 0, sizeof *v);
    v->pass[PCI_STATUS] = PCI_STATUS_INTERRUPT;
    /* vendors have more than capabilities; MSI and MSI-X are in already */
    for (unsigned i = VFIODEV__HEADER; i < VFIODEV__STD; i++)
        v->pass[i] = d->in_cap[i / 8] & 1 << i % 8 ? 0 : 0xff;
    for (unsigned i = 0; i < n && !err; i++)
        err = vfiodev__adopt_cap(v, d, config, at[i], vfiodev__cap_end(at, n, at[i]));
    if (!err && len == VFIODEV_CONFIG_LEN && vfiodev__find_cap(config, PCI_CAP_ID_EXP))
        vfiodev__adopt_ext(v, config);
    return err;
}

static void vfiodev__describe_bars(struct pci_desc *desc, const uint8_t *config,
                                   const uint64_t bar_len[PCI_BARS])
{
    for (unsigned i = 0; i < 6; i++) {
        uint32_t reg = vmm_get32(config + PCI_BASE_ADDRESS_0 + 4 * i);
        struct pci_bar *b = &desc->bar[i];
        if (!bar_len[i] || reg & PCI_BASE_ADDRESS_SPACE_IO)
            continue;
        b->len = bar_len[i];
        b->is64 = (reg & PCI_BASE_ADDRESS_MEM_TYPE_MASK) == PCI_BASE_ADDRESS_MEM_TYPE_64;
        b->prefetch = reg & PCI_BASE_ADDRESS_MEM_PREFETCH;
    }
    desc->bar[PCI_ROM].len = bar_len[PCI_ROM];
}

static void vfiodev__describe_irqs(struct pci_desc *desc, const uint8_t *config)
{
    unsigned msi = vfiodev__find_cap(config, PCI_CAP_ID_MSI);
    unsigned msix = vfiodev__find_cap(config, PCI_CAP_ID_MSIX);
    unsigned flags = msi && msi <= VFIODEV__STD - 24 ? vmm_get16(config + msi + PCI_MSI_FLAGS) : 0;
    unsigned log2 = (flags & PCI_MSI_FLAGS_QMASK) >> 1;

    desc->intx = config[PCI_INTERRUPT_PIN];
    if (msi && msi <= VFIODEV__STD - 24) {
        desc->nmsi = 1u << (log2 > 5 ? 5 : log2);
        desc->msi_is32 = !(flags & PCI_MSI_FLAGS_64BIT);
        desc->msi_bare = !(flags & PCI_MSI_FLAGS_MASKBIT);
        desc->msi_at = (uint8_t)msi;
    }
    if (msix && msix <= VFIODEV__STD - PCI_CAP_MSIX_SIZEOF) {
        uint32_t table = vmm_get32(config + msix + PCI_MSIX_TABLE);
        uint32_t pba = vmm_get32(config + msix + PCI_MSIX_PBA);
        flags = vmm_get16(config + msix + PCI_MSIX_FLAGS);
        desc->msix.nvectors = (flags & PCI_MSIX_FLAGS_QSIZE) + 1u;
        desc->msix.table_bar = table & PCI_MSIX_TABLE_BIR;
        desc->msix.table_off = table & PCI_MSIX_TABLE_OFFSET;
        desc->msix.pba_bar = pba & PCI_MSIX_PBA_BIR;
        desc->msix.pba_off = pba & PCI_MSIX_PBA_OFFSET;
        desc->msix_at = (uint8_t)msix;
    }
}

VMM_DEF int vfiodev_describe(struct pci_desc *desc, const uint8_t *config, unsigned len,
                             const uint64_t bar_len[PCI_BARS])
{
    if (len < VFIODEV__STD || (config[PCI_HEADER_TYPE] & 0x7f) != PCI_HEADER_TYPE_NORMAL)
        return vmm_err(desc->log, -ENOTSUP, "%s is a bridge: pass the devices behind it",
                       desc->name);
    desc->vendor = vmm_get16(config + PCI_VENDOR_ID);
    desc->device = vmm_get16(config + PCI_DEVICE_ID);
    desc->subvendor = vmm_get16(config + PCI_SUBSYSTEM_VENDOR_ID);
    desc->subdevice = vmm_get16(config + PCI_SUBSYSTEM_ID);
    desc->class_code = vmm_get32(config + PCI_CLASS_REVISION) >> 8;
    desc->revision = config[PCI_REVISION_ID];
    vfiodev__describe_bars(desc, config, bar_len);
    vfiodev__describe_irqs(desc, config);
    return 0;
}

VMM_DEF unsigned vfiodev_areas_cut(struct vfiodev_area *area, unsigned n, unsigned max,
                                   uint64_t off, uint64_t len, uint64_t page)
{
    uint64_t from = off & ~(page - 1), to = (off + len + page - 1) & ~(page - 1);

    for (unsigned i = 0; i < n; i++) {
        uint64_t begin = area[i].off, end = begin + area[i].len;
        if (from >= end || to <= begin)
            continue;
        area[i].len = from > begin ? from - begin : 0;
        if (to < end && !area[i].len)
            area[i] = (struct vfiodev_area){to, end - to};
        else if (to < end && n < max)
            area[n++] = (struct vfiodev_area){to, end - to};
        if (!area[i].len)
            area[i--] = area[--n];
    }
    return n;
}

/* >>sysfs ------------------------------------------------------------------------- */

/* A file's first line. */
static bool vfiodev__slurp(char *buf, size_t size, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);

    if (fd >= 0)
        close(fd);
    buf[n > 0 ? n : 0] = 0;
    buf[strcspn(buf, "\n")] = 0;
    return n > 0;
}

/* The last part of where a link of a device's directory leads: its driver, its group. */
static bool vfiodev__link(char *name, size_t size, const char *address, const char *link)
{
    char path[384], to[256];
    const char *slash;
    ssize_t n;

    snprintf(path, sizeof path, VFIODEV_SYS "/bus/pci/devices/%s/%s", address, link);
    n = readlink(path, to, sizeof to - 1);
    to[n > 0 ? n : 0] = 0;
    slash = strrchr(to, '/');
    snprintf(name, size, "%.*s", (int)size - 1, slash ? slash + 1 : to);
    return n > 0;
}

/* The name of a device's own file, "vfio0"; "": it has none. */
static void vfiodev__cdev(char name[16], const char *address)
{
    char path[128];
    struct dirent *e;
    DIR *dir;

    snprintf(path, sizeof path, VFIODEV_SYS "/bus/pci/devices/%s/vfio-dev", address);
    dir = opendir(path);
    name[0] = 0;
    while (dir && !name[0] && (e = readdir(dir)) != NULL)
        if (strncmp(e->d_name, "vfio", 4) == 0)
            snprintf(name, 16, "%.15s", e->d_name);
    if (dir)
        closedir(dir);
}

static unsigned vfiodev__number(const char *address, const char *file)
{
    char path[128], text[32];

    snprintf(path, sizeof path, VFIODEV_SYS "/bus/pci/devices/%s/%s", address, file);
    return vfiodev__slurp(text, sizeof text, path) ? (unsigned)strtoul(text, NULL, 0) : 0;
}

static bool vfiodev__is_bridge(const char *address)
{
    return vfiodev__number(address, "class") >> 16 == VFIODEV__CLASS_BRIDGE;
}

VMM_PRINTF(3, 4)
static int vfiodev__no(struct vfiodev_finding *f, int err, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vsnprintf(f->said, sizeof f->said, fmt, args);
    va_end(args);
    return err;
}

static bool vfiodev__is_vfio(const char *driver)
{
    return strstr(driver, "vfio") != NULL; /* vfio-pci, and mlx5_vfio_pci and its like */
}

/* The two commands that give a device to vfio-pci; a third where that is not loaded. */
static int vfiodev__not_bound(struct vfiodev_finding *f, const char *driver)
{
    bool loaded = access(VFIODEV_SYS "/bus/pci/drivers/vfio-pci", F_OK) == 0;
    char unbind[64] = "";

    if (*driver)
        snprintf(unbind, sizeof unbind, "/sys/bus/pci/devices/%s/driver/unbind ", f->address);
    return vfiodev__no(f, -ENODEV,
                       "%s %s%s: %secho vfio-pci > /sys/bus/pci/devices/%s/driver_override; echo "
                       "%s | tee %s/sys/bus/pci/drivers_probe, as root",
                       f->address,
                       *driver ? "is still the host's, by its driver " : "has no driver", driver,
                       loaded ? "" : "modprobe vfio-pci; ", f->address, f->address, unbind);
}

/* A virtual function works as long as the driver of its physical one does. */
static int vfiodev__look_physical(struct vfiodev_finding *f)
{
    char physical[32], driver[32];

    if (!vfiodev__link(physical, sizeof physical, f->address, "physfn"))
        return 0;
    if (!vfiodev__link(driver, sizeof driver, physical, "driver"))
        return vfiodev__no(f, -ENODEV,
                           "%s is a virtual function of %s, which has no driver: bind that to its "
                           "own driver",
                           f->address, physical);
    if (vfiodev__is_vfio(driver))
        return vfiodev__no(f, -ENODEV,
                           "%s is a virtual function of %s, which somebody else may be given: bind "
                           "that to its own driver instead of %s",
                           f->address, physical, driver);
    return 0;
}

/* Who keeps a group from being given away, " 0000:01:00.1 (snd_hda_intel)". */
static void vfiodev__in_the_way(char *text, size_t size, unsigned group)
{
    char path[128], driver[32];
    struct dirent *e;
    size_t len = 0;
    DIR *dir;

    snprintf(path, sizeof path, VFIODEV_SYS "/kernel/iommu_groups/%u/devices", group);
    dir = opendir(path);
    text[0] = 0;
    while (dir && len < size - 1 && (e = readdir(dir)) != NULL)
        if (e->d_name[0] != '.' && vfiodev__link(driver, sizeof driver, e->d_name, "driver") &&
            !vfiodev__is_vfio(driver) && strcmp(driver, "pci-stub") && strcmp(driver, "pcieport"))
            len += (size_t)snprintf(text + len, size - len, " %.31s (%s)", e->d_name, driver);
    if (dir)
        closedir(dir);
}

/* of: what the path is, "the group of". */
static int vfiodev__refused(struct vfiodev_finding *f, const char *path, const char *of, int err)
{
    char cdev[64] = "";

    if (f->cdev[0])
        snprintf(cdev, sizeof cdev, " " VFIODEV_DEV "/devices/%s", f->cdev);
    if (err == -EBUSY)
        return vfiodev__no(f, err, "%s is in use: end the program that has %s open (fuser -v %s%s)",
                           f->address, path, path, cdev);
    if (err == -EACCES || err == -EPERM)
        return vfiodev__no(f, err,
                           "no permission to open %s, %s %s: run as root, or 'chown USER %s'", path,
                           of, f->address, path);
    if (err == -ENOENT)
        return vfiodev__no(f, err, "%s has no group at %s: modprobe vfio-pci, as root", f->address,
                           path);
    return vfiodev__no(f, err, "cannot open %s, %s %s: %s", path, of, f->address, strerror(-err));
}

static int vfiodev__not_viable(struct vfiodev_finding *f, const char *who)
{
    return vfiodev__no(
        f, -EPERM,
        "%s shares its IOMMU group %u with devices that the host uses: bind these to "
        "vfio-pci too, or unbind them:%s",
        f->address, f->group, who);
}

static int vfiodev__unsafe(struct vfiodev_finding *f, const char *module)
{
    return vfiodev__no(
        f, -EPERM,
        "this host does not remap interrupts, so that a guest could have %s raise any "
        "interrupt of the host: switch interrupt remapping on in the firmware, or "
        "accept that by echo 1 > /sys/module/%s/parameters/allow_unsafe_interrupts, as root",
        f->address, module);
}

/* The group's descriptor, of which there is only one at a time. */
static int vfiodev__group_open(struct vfiodev_finding *f)
{
    struct vfio_group_status status = {.argsz = sizeof status};
    char path[64], who[160];
    int fd;

    snprintf(path, sizeof path, VFIODEV_DEV "/%u", f->group);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return vfiodev__refused(f, path, "the group of", -errno);
    if (!ioctl(fd, VFIO_GROUP_GET_STATUS, &status) && status.flags & VFIO_GROUP_FLAGS_VIABLE)
        return fd;
    close(fd);
    vfiodev__in_the_way(who, sizeof who, f->group);
    return vfiodev__not_viable(f, who);
}

/* Binding says in one word, EPERM, that others use the group and that interrupts are not
   remapped. */
static int vfiodev__bind_refused(struct vfiodev_finding *f, const char *path, int err)
{
    char who[160];

    vfiodev__in_the_way(who, sizeof who, f->group);
    if (err == -EPERM && who[0])
        return vfiodev__not_viable(f, who);
    if (err == -EPERM)
        return vfiodev__unsafe(f, "iommufd");
    return vfiodev__refused(f, path, "the file of", err == -EINVAL ? -EBUSY : err);
}

/* The device's own descriptor, which iommufd has. The hypervisor gets it before that: it wants to
   know about the device when that is opened in earnest. */
static int vfiodev__cdev_open(struct vfiodev_finding *f, int iommu,
                              const struct vfiodev_host_desc *host)
{
    struct vfio_device_bind_iommufd bind = {.argsz = sizeof bind, .iommufd = iommu};
    char path[64];
    int fd, err;

    snprintf(path, sizeof path, VFIODEV_DEV "/devices/%s", f->cdev);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return vfiodev__refused(f, path, "the file of", -errno);
    if (host && host->opened)
        host->opened(host->ctx, fd);
    if (!ioctl(fd, VFIO_DEVICE_BIND_IOMMUFD, &bind))
        return fd;
    err = -errno;
    close(fd);
    return vfiodev__bind_refused(f, path, err);
}

/* All but opening the group. */
static int vfiodev__look_sys(struct vfiodev_finding *f)
{
    char path[128], driver[32], group[32];
    size_t n;

    snprintf(path, sizeof path, VFIODEV_SYS "/bus/pci/devices/%s", f->address);
    if (access(path, F_OK))
        return vfiodev__no(f, -ENOENT, "there is no PCI device %s: lspci -D lists them",
                           f->address);
    vfiodev__link(driver, sizeof driver, f->address, "driver");
    snprintf(f->what, sizeof f->what, "%04x:%04x, class %06x, %s%s",
             vfiodev__number(f->address, "vendor"), vfiodev__number(f->address, "device"),
             vfiodev__number(f->address, "class"), *driver ? "driver " : "no driver", driver);
    if (!vfiodev__link(group, sizeof group, f->address, "iommu_group"))
        return vfiodev__no(
            f, -ENOTSUP,
            "%s is behind no IOMMU: switch VT-d, AMD-Vi or the SMMU on in the firmware, "
            "and boot with intel_iommu=on where it is Intel's",
            f->address);
    f->group = (unsigned)strtoul(group, NULL, 10);
    n = strlen(f->what);
    snprintf(f->what + n, sizeof f->what - n, ", group %u", f->group);
    vfiodev__cdev(f->cdev, f->address);
    if (vfiodev__is_bridge(f->address))
        return vfiodev__no(f, -ENOTSUP, "%s is a bridge: pass the devices behind it", f->address);
    if (!vfiodev__is_vfio(driver))
        return vfiodev__not_bound(f, driver);
    return vfiodev__look_physical(f);
}

static int vfiodev__finding(struct vfiodev_finding *f, const char *address)
{
    memset(f, 0, sizeof *f);
    snprintf(f->address, sizeof f->address, "%.15s", address);
    if (strlen(address) != 12 || strspn(address, "0123456789abcdef:.") != 12)
        return vfiodev__no(f, -EINVAL, "'%.32s' is no PCI address: give one like 0000:01:00.0",
                           address);
    return vfiodev__look_sys(f);
}

/* Where there is no group to ask, or not for us, iommufd knows. */
static int vfiodev__look_cdev(struct vfiodev_finding *f, int err)
{
    int iommu = open(VFIODEV_IOMMU, O_RDWR | O_CLOEXEC), fd;
    struct vfiodev_finding other = *f;

    if (iommu < 0)
        return err;
    fd = vfiodev__cdev_open(&other, iommu, NULL);
    close(iommu);
    if (fd < 0 && err == -ENOENT)
        *f = other;
    return fd < 0 && err != -ENOENT ? err : fd;
}

VMM_DEF int vfiodev_look(const char *address, struct vfiodev_finding *f)
{
    int err = vfiodev__finding(f, address), fd;

    if (err)
        return err;
    fd = vfiodev__group_open(f);
    if ((fd == -ENOENT || fd == -EACCES) && f->cdev[0])
        fd = vfiodev__look_cdev(f, fd);
    if (fd < 0)
        return fd;
    close(fd);
    f->said[0] = 0;
    return 0;
}

static int vfiodev__by_address(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

VMM_DEF unsigned vfiodev_list(void (*fn)(void *ctx, int err, const struct vfiodev_finding *f),
                              void *ctx)
{
    struct vfiodev_finding f;
    struct dirent **e;
    unsigned found = 0;
    int n = scandir(VFIODEV_SYS "/bus/pci/devices", &e, NULL, vfiodev__by_address);

    for (int i = 0; i < n; i++) {
        if (e[i]->d_name[0] != '.' && !vfiodev__is_bridge(e[i]->d_name)) {
            int err = vfiodev_look(e[i]->d_name, &f);
            fn(ctx, err, &f);
            found++;
        }
        free(e[i]);
    }
    if (n >= 0)
        free(e);
    return found;
}

/* >>host -------------------------------------------------------------------------- */

static int vfiodev__container(void)
{
    int fd = open(VFIODEV_DEV "/vfio", O_RDWR | O_CLOEXEC);

    if (fd < 0 || (ioctl(fd, VFIO_GET_API_VERSION) == VFIO_API_VERSION &&
                   ioctl(fd, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) == 1))
        return fd < 0 ? -errno : fd;
    close(fd);
    return -ENOTSUP;
}

/* iommufd is for one device, or where there is nothing else: it does not map BARs, without which
   devices do not reach each other. */
VMM_DEF int vfiodev_host_init(struct vfiodev_host *h, const struct vfiodev_host_desc *desc)
{
    memset(h, 0, sizeof *h);
    h->desc = *desc;
    h->container = vfiodev__container();
    h->iommu = -1;
    if (h->container < 0 || desc->ndevices < 2)
        h->iommu = open(VFIODEV_IOMMU, O_RDWR | O_CLOEXEC);
    if (h->container >= 0 || h->iommu >= 0)
        return 0;
    if (h->container == -EACCES)
        return vmm_err(desc->log, -EACCES,
                       "no permission to open " VFIODEV_DEV
                       "/vfio: run as root, or 'chmod 666' it");
    return vmm_err(desc->log, -ENOTSUP,
                   VFIODEV_DEV "/vfio does not work here: modprobe vfio_iommu_type1 and vfio-pci, "
                               "as root ('vmm doctor --vfio' tells more)");
}

/* The first group brings the IOMMU. */
static int vfiodev__host_ready(struct vfiodev_host *h, struct vfiodev_finding *f)
{
    if (h->ready)
        return 0;
    h->ready = !ioctl(h->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU);
    if (h->ready)
        return 0;
    if (errno != EPERM)
        return vmm_err(h->desc.log, -errno, "the IOMMU does not take the group of %s: %s",
                       f->address, strerror(errno));
    vfiodev__unsafe(f, "vfio_iommu_type1");
    return vmm_err(h->desc.log, -EPERM, "%s", f->said);
}

/* The descriptor of a device's group, which the container has. */
static int vfiodev__host_group(struct vfiodev_host *h, struct vfiodev_finding *f)
{
    unsigned i = 0;
    int fd, err;

    while (i < h->ngroups && h->group[i].number != f->group)
        i++;
    if (i < h->ngroups)
        return h->group[i].fd;
    if (i == VFIODEV_GROUPS)
        return vmm_err(h->desc.log, -ENOSPC, "more than %d IOMMU groups: pass fewer devices",
                       VFIODEV_GROUPS);
    fd = vfiodev__group_open(f);
    if (fd < 0)
        return vmm_err(h->desc.log, fd, "%s", f->said);
    h->group[i].number = f->group;
    h->group[i].fd = fd;
    h->ngroups++;
    if (ioctl(fd, VFIO_GROUP_SET_CONTAINER, &h->container))
        return vmm_err(h->desc.log, -errno, "VFIO does not take the group of %s: %s", f->address,
                       strerror(errno));
    err = vfiodev__host_ready(h, f);
    if (!err && h->desc.opened)
        h->desc.opened(h->desc.ctx, fd);
    return err ? err : fd;
}

/* A device that iommufd has gets the address space of all of them. */
static int vfiodev__host_attach(struct vfiodev_host *h, const struct vfiodev_finding *f, int fd)
{
    struct iommu_ioas_alloc alloc = {.size = sizeof alloc};
    struct vfio_device_attach_iommufd_pt attach = {.argsz = sizeof attach};
    int err;

    if (!h->ioas && !ioctl(h->iommu, IOMMU_IOAS_ALLOC, &alloc))
        h->ioas = alloc.out_ioas_id;
    attach.pt_id = h->ioas;
    if (h->ioas && !ioctl(fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach))
        return fd;
    err = -errno;
    close(fd);
    return vmm_err(h->desc.log, err, "iommufd does not take %s: %s", f->address, strerror(-err));
}

/* Whom iommufd refuses, for lack of rights or anything else, a group may let in; if not, that knows
   best why. */
static int vfiodev__host_device(struct vfiodev_host *h, struct vfiodev_finding *f)
{
    int fd = -ENOENT;

    if (h->iommu >= 0 && f->cdev[0])
        fd = vfiodev__cdev_open(f, h->iommu, &h->desc);
    else
        vfiodev__no(f, fd, "%s has no file in " VFIODEV_DEV "/devices: modprobe vfio-pci, as root",
                    f->address);
    if (fd >= 0)
        return vfiodev__host_attach(h, f, fd);
    if (h->container < 0)
        return vmm_err(h->desc.log, fd, "%s", f->said);
    fd = vfiodev__host_group(h, f);
    if (fd < 0)
        return fd;
    fd = ioctl(fd, VFIO_GROUP_GET_DEVICE_FD, f->address);
    return fd < 0 ? vmm_err(h->desc.log, -errno, "VFIO does not open %s: %s", f->address,
                            strerror(errno))
                  : fd;
}

static int vfiodev__ioas_map(struct vfiodev_host *h, uint64_t gpa, uint64_t len, void *hva,
                             unsigned prot)
{
    struct iommu_ioas_map map = {.size = sizeof map,
                                 .flags = IOMMU_IOAS_MAP_FIXED_IOVA |
                                          (prot & VMM_READ ? IOMMU_IOAS_MAP_READABLE : 0) |
                                          (prot & VMM_WRITE ? IOMMU_IOAS_MAP_WRITEABLE : 0),
                                 .ioas_id = h->ioas,
                                 .user_va = (uintptr_t)hva,
                                 .length = len,
                                 .iova = gpa};

    return ioctl(h->iommu, IOMMU_IOAS_MAP, &map) ? -errno : 0;
}

static int vfiodev__dma_map(struct vfiodev_host *h, uint64_t gpa, uint64_t len, void *hva,
                            unsigned prot)
{
    struct vfio_iommu_type1_dma_map map = {.argsz = sizeof map,
                                           .flags =
                                               (prot & VMM_READ ? VFIO_DMA_MAP_FLAG_READ : 0) |
                                               (prot & VMM_WRITE ? VFIO_DMA_MAP_FLAG_WRITE : 0),
                                           .vaddr = (uintptr_t)hva,
                                           .iova = gpa,
                                           .size = len};

    if (h->ioas)
        return vfiodev__ioas_map(h, gpa, len, hva, prot);
    return ioctl(h->container, VFIO_IOMMU_MAP_DMA, &map) ? -errno : 0;
}

static void vfiodev__dma_unmap(struct vfiodev_host *h, uint64_t gpa, uint64_t len)
{
    struct vfio_iommu_type1_dma_unmap unmap = {.argsz = sizeof unmap, .iova = gpa, .size = len};

    struct iommu_ioas_unmap out = {
        .size = sizeof out, .ioas_id = h->ioas, .iova = gpa, .length = len};

    (void)(h->ioas ? ioctl(h->iommu, IOMMU_IOAS_UNMAP, &out)
                   : ioctl(h->container, VFIO_IOMMU_UNMAP_DMA, &unmap));
}

static int vfiodev__map_refused(struct vfiodev_host *h, const struct vmm_mem *mem, unsigned at,
                                int err)
{
    const struct vmm_range *r = &mem->range[at];
    struct rlimit limit = {0};
    uint64_t all = 0;

    for (unsigned i = 0; i < mem->nranges; i++)
        all += mem->range[i].len;
    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (err == -ENOMEM && limit.rlim_cur < all)
        return vmm_err(h->desc.log, err,
                       "devices need all %llu MiB of guest RAM locked, and the limit is %llu KiB: "
                       "ulimit -l %llu, or LimitMEMLOCK= of the service",
                       (unsigned long long)all >> 20, (unsigned long long)limit.rlim_cur >> 10,
                       (unsigned long long)all >> 10);
    return vmm_err(h->desc.log, err,
                   "the IOMMU does not take %llu MiB of guest RAM at 0x%llx: %s%s",
                   (unsigned long long)r->len >> 20, (unsigned long long)r->gpa, strerror(-err),
                   err == -ENOMEM ? ", so give the guest less memory" : "");
}

VMM_DEF int vfiodev_host_map(struct vfiodev_host *h, const struct vmm_mem *mem)
{
    for (unsigned i = 0; i < mem->nranges; i++) {
        const struct vmm_range *r = &mem->range[i];
        int err = vfiodev__dma_map(h, r->gpa, r->len, r->hva, VMM_READ | VMM_WRITE);
        if (err)
            return vfiodev__map_refused(h, mem, i, err);
    }
    return 0;
}

VMM_DEF void vfiodev_host_fini(struct vfiodev_host *h)
{
    for (unsigned i = 0; i < h->ngroups; i++)
        close(h->group[i].fd);
    if (h->container >= 0)
        close(h->container);
    if (h->iommu >= 0)
        close(h->iommu);
    h->ngroups = 0;
    h->container = h->iommu = -1;
}

/* >>irqs -------------------------------------------------------------------------- */

/* What the guest did needs the host, and that refuses: the guest goes on without. */
static void vfiodev__trouble(struct vfiodev *d, const char *what, int err)
{
    if (vmm_spend(&d->budget))
        vmm_say(d->desc.log, VMM_LOG_WARN, "%s: %s: %s", d->name, what, strerror(-err));
}

static unsigned vfiodev__irq_index(const struct vfiodev *d)
{
    return d->irq == VFIODEV_INTX  ? VFIO_PCI_INTX_IRQ_INDEX
           : d->irq == VFIODEV_MSI ? VFIO_PCI_MSI_IRQ_INDEX
                                   : VFIO_PCI_MSIX_IRQ_INDEX;
}

/* Vectors 0 to n-1 of a kind ring these bells, or, n being 0, the kind is off. */
static int vfiodev__bells(const struct vfiodev *d, unsigned index, unsigned action, const int *bell,
                          unsigned n)
{
    size_t size = sizeof(struct vfio_irq_set) + n * sizeof *bell;
    struct vfio_irq_set *set = calloc(1, size);
    int err;

    if (!set)
        return -ENOMEM;
    set->argsz = (uint32_t)size;
    set->flags = action | (n ? VFIO_IRQ_SET_DATA_EVENTFD : VFIO_IRQ_SET_DATA_NONE);
    set->index = index;
    set->count = n;
    memcpy(set->data, bell, n * sizeof *bell);
    err = ioctl(d->fd, VFIO_DEVICE_SET_IRQS, set);
    free(set);
    return err < 0 ? -errno : err > 0 ? -ENOSPC : 0;
}

/* Of the kind in force. */
static int vfiodev__set_irqs(const struct vfiodev *d, unsigned action, const int *bell, unsigned n)
{
    return vfiodev__bells(d, vfiodev__irq_index(d), action, bell, n);
}

static void vfiodev__drain(int bell)
{
    uint64_t n;

    if (read(bell, &n, sizeof n) < 0)
        return; /* it had not been rung */
}

/* What was pending is forgotten. */
static void vfiodev__irq_off(struct vfiodev *d)
{
    if (d->irq == VFIODEV_NO_IRQ)
        return;
    for (unsigned v = 0; d->irq != VFIODEV_INTX && v < d->nbells; v++)
        d->desc.route(d->desc.ctx, v, false, 0, 0);
    if (d->irq == VFIODEV_INTX || d->nactive)
        (void)vfiodev__set_irqs(d, VFIO_IRQ_SET_ACTION_TRIGGER, d->desc.bell, 0);
    for (unsigned v = 0; v < d->nactive; v++)
        vfiodev__drain(d->desc.bell[v]);
    d->irq = VFIODEV_NO_IRQ;
    d->nactive = 0;
}

/* More vectors than before: the host has to start over, and what it missed meanwhile is made good
   by ringing once too often. */
static void vfiodev__irq_grow(struct vfiodev *d, unsigned n)
{
    static const uint64_t one = 1;
    int err;

    if (d->nactive)
        (void)vfiodev__set_irqs(d, VFIO_IRQ_SET_ACTION_TRIGGER, d->desc.bell, 0);
    err = vfiodev__set_irqs(d, VFIO_IRQ_SET_ACTION_TRIGGER, d->desc.bell, n);
    if (err) {
        vfiodev__trouble(d, "the host has not so many interrupts", err);
        n = d->nactive;
        (void)vfiodev__set_irqs(d, VFIO_IRQ_SET_ACTION_TRIGGER, d->desc.bell, n);
    }
    for (unsigned v = 0; v < d->nactive; v++)
        if (write(d->desc.bell[v], &one, sizeof one) < 0)
            break; /* it is ringing as much as it can */
    d->nactive = n;
}

/* The bells of the line: one raises it, and the other lets the device raise it again. */
static void vfiodev__intx_on(struct vfiodev *d)
{
    int err;

    d->irq = VFIODEV_INTX;
    err = vfiodev__set_irqs(d, VFIO_IRQ_SET_ACTION_TRIGGER, &d->desc.intx_bell, 1);
    if (!err)
        err = vfiodev__set_irqs(d, VFIO_IRQ_SET_ACTION_UNMASK, &d->desc.intx_done, 1);
    if (err)
        vfiodev__trouble(d, "no interrupt line", err);
}

static void vfiodev__msi_update(struct vfiodev *d)
{
    unsigned n = 1, most = d->pci.desc.nmsi;
    uint64_t addr = 0;
    uint32_t data = 0;

    while (2 * n <= most && n < 1u << (d->pci.config[d->pci.msi_cap + PCI_MSI_FLAGS] >> 4 & 7))
        n *= 2;
    if (n > d->nactive)
        vfiodev__irq_grow(d, n);
    for (unsigned v = 0; v < most; v++) {
        bool on = pci_msi_get(&d->pci, v, &addr, &data);
        d->desc.route(d->desc.ctx, v, on, addr, data);
    }
}

/* The device is in MSI-X mode as soon as the guest thinks so, for its firmware may look at that
   long before the first vector is unmasked. */
static void vfiodev__msix_update(struct vfiodev *d)
{
    if (!d->nactive)
        vfiodev__irq_grow(d, 1);
}

/* Whatever kind of interrupts the guest has chosen. */
static void vfiodev__irq_update(struct vfiodev *d)
{
    unsigned want = pci_msix_enabled(&d->pci)  ? VFIODEV_MSIX
                    : pci_msi_enabled(&d->pci) ? VFIODEV_MSI
                    : d->pci.desc.intx         ? VFIODEV_INTX
                                               : VFIODEV_NO_IRQ;

    if (want != (unsigned)d->irq) {
        vfiodev__irq_off(d);
        if (want == VFIODEV_INTX)
            vfiodev__intx_on(d);
        else
            d->irq = want == VFIODEV_MSIX  ? VFIODEV_MSIX
                     : want == VFIODEV_MSI ? VFIODEV_MSI
                                           : VFIODEV_NO_IRQ;
    }
    if (d->irq == VFIODEV_MSI)
        vfiodev__msi_update(d);
    if (d->irq == VFIODEV_MSIX)
        vfiodev__msix_update(d);
}

/* How many vectors the guest has given a message, so many the host has to have. */
static unsigned vfiodev__msix_used(const struct vfiodev *d)
{
    unsigned n = d->nvectors;

    while (n > 1 && !d->desc.vectors[n - 1].addr)
        n--;
    return n;
}

/* Guests write the messages of all their vectors while all are masked, and then unmask them: so the
   host starts over only once, and spends no interrupts of its own on those that nobody uses. */
static void vfiodev__msix_changed(void *ctx, unsigned vector)
{
    struct vfiodev *d = ctx;
    uint64_t addr = 0;
    uint32_t data = 0;
    bool on = pci_msix_get(&d->pci, vector, &addr, &data);
    unsigned flags = vmm_get16(d->pci.config + d->pci.msix_cap + PCI_MSIX_FLAGS);
    unsigned n = vfiodev__msix_used(d);

    if (d->irq != VFIODEV_MSIX)
        return;
    if (n > d->nactive && !(flags & PCI_MSIX_FLAGS_MASKALL))
        vfiodev__irq_grow(d, n);
    d->desc.route(d->desc.ctx, vector, on && vector < d->nactive, addr, data);
}

/* >>bars -------------------------------------------------------------------------- */

/* What the guest cannot reach directly comes here, and goes to the device in one piece. */
static uint64_t vfiodev__bar_read(void *ctx, unsigned bar, uint64_t off, unsigned len)
{
    const struct vfiodev *d = ctx;
    uint64_t val = 0;

    if (bar == PCI_ROM && d->rom) {
        memset(&val, 0xff, len);
        if (off < d->rom_len)
            memcpy(&val, d->rom + off, len < d->rom_len - off ? len : d->rom_len - off);
        return val;
    }
    return pread(d->fd, &val, len, (off_t)(d->bar[bar].off + off)) == (ssize_t)len ? val
                                                                                   : vmm_ones(len);
}

static void vfiodev__bar_write(void *ctx, unsigned bar, uint64_t off, unsigned len, uint64_t val)
{
    const struct vfiodev *d = ctx;

    if (pwrite(d->fd, &val, len, (off_t)(d->bar[bar].off + off)) < 0)
        return; /* as on a bus where nobody answers */
}

#define VFIODEV__BAR(n)                                                                            \
    static uint64_t vfiodev__bar_read##n(void *ctx, uint64_t off, unsigned len)                    \
    {                                                                                              \
        return vfiodev__bar_read(ctx, n, off, len);                                                \
    }                                                                                              \
    static void vfiodev__bar_write##n(void *ctx, uint64_t off, unsigned len, uint64_t val)         \
    {                                                                                              \
        vfiodev__bar_write(ctx, n, off, len, val);                                                 \
    }
VFIODEV__BAR(0)
VFIODEV__BAR(1)
VFIODEV__BAR(2)
VFIODEV__BAR(3)
VFIODEV__BAR(4)
VFIODEV__BAR(5)
#undef VFIODEV__BAR

static uint64_t vfiodev__rom_read(void *ctx, uint64_t off, unsigned len)
{
    return vfiodev__bar_read(ctx, PCI_ROM, off, len);
}

static void vfiodev__wire_bars(struct pci_desc *desc)
{
    static const struct {
        uint64_t (*read)(void *ctx, uint64_t off, unsigned len);
        void (*write)(void *ctx, uint64_t off, unsigned len, uint64_t val);
    } by_bar[PCI_BARS] = {{vfiodev__bar_read0, vfiodev__bar_write0},
                          {vfiodev__bar_read1, vfiodev__bar_write1},
                          {vfiodev__bar_read2, vfiodev__bar_write2},
                          {vfiodev__bar_read3, vfiodev__bar_write3},
                          {vfiodev__bar_read4, vfiodev__bar_write4},
                          {vfiodev__bar_read5, vfiodev__bar_write5},
                          {vfiodev__rom_read, NULL}};

    for (unsigned i = 0; i < PCI_BARS; i++) {
        desc->bar[i].read = by_bar[i].read;
        desc->bar[i].write = by_bar[i].write;
    }
}

/* Where a BAR's areas are no more. */
static void vfiodev__bar_away(struct vfiodev *d, struct vfiodev_bar *b)
{
    for (unsigned i = 0; i < b->nareas; i++) {
        uint64_t gpa = b->gpa + b->area[i].off;
        if (b->there & 1u << i)
            (void)d->desc.unmap(d->desc.ctx, gpa, b->area[i].len);
        if (b->peers & 1u << i)
            vfiodev__dma_unmap(d->host, gpa, b->area[i].len);
    }
    b->there = b->peers = 0;
}

/* Where something else is, the guest gets by access what it cannot get directly. A BAR smaller than
   a host's page shares that with others of the guest. */
static void vfiodev__moved(void *ctx, unsigned bar, uint64_t gpa)
{
    struct vfiodev *d = ctx;
    struct vfiodev_bar *b = &d->bar[bar];

    vfiodev__bar_away(d, b);
    b->gpa = gpa;
    for (unsigned i = 0; i < b->nareas && gpa != PCI_NOWHERE; i++) {
        uint64_t at = gpa + b->area[i].off, len = b->area[i].len;
        if (!d->desc.map(d->desc.ctx, at, len, b->mem[i], b->prot))
            b->there |= 1u << i;
        int err = d->host->desc.ndevices > 1
                      ? vfiodev__dma_map(d->host, at, len, b->mem[i], b->prot)
                      : -ENODEV;
        if (!err)
            b->peers |= 1u << i;
        else if (err != -ENODEV)
            vfiodev__trouble(d, "other devices do not reach its memory", err);
    }
}

/* >>device ------------------------------------------------------------------------ */

static bool vfiodev__config_read(void *ctx, unsigned off, unsigned len, uint32_t *val)
{
    struct vfiodev *d = ctx;
    uint32_t host = 0;

    if (vfiodev_config_asks(&d->config, off, len) &&
        pread(d->fd, &host, len, (off_t)(d->config_off + off)) != (ssize_t)len)
        host = ~0u;
    *val = vfiodev_config_read(&d->config, &d->pci, off, len, host);
    return true;
}

static void vfiodev__config_put(const struct vfiodev *d, unsigned off, const void *val,
                                unsigned len)
{
    if (pwrite(d->fd, val, len, (off_t)(d->config_off + off)) < 0)
        return; /* the kernel does not let the guest: as if the bits were read-only */
}

/* What the device gets it gets in one piece, unless some of it is ours. */
static bool vfiodev__config_write(void *ctx, unsigned off, unsigned len, uint32_t val)
{
    struct vfiodev *d = ctx;
    unsigned takes = vfiodev_config_takes(&d->config, off, len);

    if (takes == (1u << len) - 1) {
        vfiodev__config_put(d, off, &val, len);
        return true;
    }
    for (unsigned i = 0; i < len; i++)
        if (takes & 1u << i)
            vfiodev__config_put(d, off + i, (const uint8_t *)&val + i, 1);
    return off >= VFIODEV__STD;
}

/* The device always answers at its own addresses, which are not the guest's; whether it may write
   to memory and pull its line is the guest's choice. */
static void vfiodev__command(struct vfiodev *d)
{
    uint16_t guest = vmm_get16(d->pci.config + PCI_COMMAND);
    uint16_t command =
        (guest & (PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE)) | PCI_COMMAND_MEMORY;

    if (command == d->command)
        return;
    vfiodev__config_put(d, PCI_COMMAND, &command, sizeof command);
    d->command = command;
}

static void vfiodev__changed(void *ctx)
{
    vfiodev__command(ctx);
    vfiodev__irq_update(ctx);
}

/* As after power-on. */
static void vfiodev__reset(void *ctx)
{
    struct vfiodev *d = ctx;

    vfiodev__irq_off(d);
    if (d->resets && ioctl(d->fd, VFIO_DEVICE_RESET))
        vfiodev__trouble(d, "the host cannot reset it", -errno);
    d->command = 0;
    vfiodev__changed(d);
}

/* A region's place in the descriptor; len 0: it has none. The kernel adds the list of areas that
   may be mapped if there is room. */
static int vfiodev__region(struct vfiodev *d, unsigned index, struct vfio_region_info **info)
{
    uint32_t size = sizeof **info;
    int err = 0;

    *info = NULL;
    for (unsigned tries = 0; tries < 2 && !err; tries++) {
        struct vfio_region_info *more = realloc(*info, size);
        if (!more)
            return -ENOMEM;
        *info = more;
        memset(more, 0, size);
        more->argsz = size;
        more->index = index;
        err = ioctl(d->fd, VFIO_DEVICE_GET_REGION_INFO, more) ? -errno : 0;
        if (more->argsz <= size || more->argsz > 65536)
            break;
        size = more->argsz;
    }
    return err;
}

/* The areas that the kernel allows: those of its list, else all. */
static void vfiodev__sparse(struct vfiodev_bar *b, const struct vfio_region_info *info,
                            uint64_t page)
{
    const uint8_t *base = (const uint8_t *)info;
    uint32_t at = info->flags & VFIO_REGION_INFO_FLAG_CAPS ? info->cap_offset : 0;

    b->area[0] = (struct vfiodev_area){0, info->size & ~(page - 1)};
    b->nareas = b->area[0].len ? 1 : 0;
    while (at && at + sizeof(struct vfio_info_cap_header) <= info->argsz) {
        struct vfio_info_cap_header cap;
        struct vfio_region_info_cap_sparse_mmap list;
        memcpy(&cap, base + at, sizeof cap);
        if (cap.id == VFIO_REGION_INFO_CAP_SPARSE_MMAP && at + sizeof list <= info->argsz) {
            memcpy(&list, base + at, sizeof list);
            b->nareas = 0;
            for (unsigned i = 0; i < list.nr_areas && b->nareas < VFIODEV_AREAS; i++) {
                struct vfio_region_sparse_mmap_area area;
                size_t place = at + sizeof list + i * sizeof area;
                if (place + sizeof area > info->argsz)
                    break;
                memcpy(&area, base + place, sizeof area);
                if (area.size && !(area.offset % page) && !(area.size % page))
                    b->area[b->nareas++] = (struct vfiodev_area){area.offset, area.size};
            }
        }
        at = cap.next > at ? cap.next : 0;
    }
}

/* The areas as memory of this process. One that cannot be is reached by access. */
static void vfiodev__mmap(struct vfiodev *d, struct vfiodev_bar *b)
{
    int prot = (b->prot & VMM_READ ? PROT_READ : 0) | (b->prot & VMM_WRITE ? PROT_WRITE : 0);

    for (unsigned i = 0; i < b->nareas; i++) {
        b->mem[i] =
            mmap(NULL, b->area[i].len, prot, MAP_SHARED, d->fd, (off_t)(b->off + b->area[i].off));
        if (b->mem[i] == MAP_FAILED) {
            b->area[i] = b->area[b->nareas - 1];
            b->nareas--, i--;
        }
    }
}

static int vfiodev__open_bar(struct vfiodev *d, unsigned index, uint64_t *len)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    struct vfiodev_bar *b = &d->bar[index];
    struct vfio_region_info *info;
    int err = vfiodev__region(d, index, &info);

    *len = err ? 0 : info->size;
    b->gpa = PCI_NOWHERE;
    if (!err && *len) {
        b->off = info->offset;
        b->prot = (info->flags & VFIO_REGION_INFO_FLAG_READ ? VMM_READ : 0u) |
                  (info->flags & VFIO_REGION_INFO_FLAG_WRITE ? VMM_WRITE : 0u);
        if (info->flags & VFIO_REGION_INFO_FLAG_MMAP && index != PCI_ROM)
            vfiodev__sparse(b, info, page);
    }
    free(info);
    return err == -EINVAL && index == PCI_ROM ? 0 : err;
}

/* The table, and pending bits that share its pages, trap; pending bits elsewhere are the device's.
   */
static void vfiodev__spare_table(struct vfiodev *d)
{
    const struct pci_msix_desc *m = &d->is.msix;
    struct vfiodev_bar *b = &d->bar[m->table_bar];
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

    if (m->nvectors && m->table_bar < 6)
        b->nareas = vfiodev_areas_cut(b->area, b->nareas, VFIODEV_AREAS, m->table_off,
                                      m->nvectors * (uint64_t)PCI_MSIX_ENTRY_SIZE, page);
    for (unsigned i = 0; i < 6; i++)
        vfiodev__mmap(d, &d->bar[i]);
}

static int vfiodev__open_config(struct vfiodev *d, const struct vmm_log *log)
{
    struct vfio_region_info *info;
    int err = vfiodev__region(d, VFIO_PCI_CONFIG_REGION_INDEX, &info);
    ssize_t n = 0;

    if (!err) {
        d->config_off = info->offset;
        n = pread(d->fd, d->recorded,
                  info->size < sizeof d->recorded ? info->size : sizeof d->recorded,
                  (off_t)info->offset);
    }
    free(info);
    d->config_len = n >= VFIODEV_CONFIG_LEN ? VFIODEV_CONFIG_LEN : VFIODEV__STD;
    return err || n < VFIODEV__STD
               ? vmm_err(log, -EIO, "%s: its configuration space cannot be read", d->name)
               : 0;
}

/* How many interrupts of a kind the host lets it have. */
static unsigned vfiodev__count_irqs(const struct vfiodev *d, unsigned index)
{
    struct vfio_irq_info info = {.argsz = sizeof info, .index = index};

    return ioctl(d->fd, VFIO_DEVICE_GET_IRQ_INFO, &info) ? 0 : info.count;
}

static void vfiodev__open_irqs(struct vfiodev *d)
{
    if (!vfiodev__count_irqs(d, VFIO_PCI_INTX_IRQ_INDEX))
        d->is.intx = false;
    if (!vfiodev__count_irqs(d, VFIO_PCI_MSI_IRQ_INDEX))
        d->is.nmsi = 0;
    if (!vfiodev__count_irqs(d, VFIO_PCI_MSIX_IRQ_INDEX))
        d->is.msix.nvectors = 0;
    d->intx = d->is.intx;
    d->nvectors = d->is.msix.nvectors;
    d->nbells = d->nvectors > d->is.nmsi ? d->nvectors : d->is.nmsi;
}

static int vfiodev__open_rom(struct vfiodev *d, const char *path, const struct vmm_log *log)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode) || !st.st_size || st.st_size > 1 << 24) {
        int err = fd < 0 ? -errno : -EINVAL;
        if (fd >= 0)
            close(fd);
        return vmm_err(log, err, "rom '%s' of %s: %s", path, d->name,
                       err == -EINVAL ? "give a file of 1 byte to 16 MiB" : strerror(-err));
    }
    d->rom_map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (d->rom_map == MAP_FAILED)
        return vmm_err(log, -errno, "cannot map rom '%s' of %s: %s", path, d->name,
                       strerror(errno));
    d->rom = d->rom_map;
    d->rom_len = (uint64_t)st.st_size;
    return 0;
}

/* Everything about the device that takes no decision of the guest's. */
static int vfiodev__learn(struct vfiodev *d, const char *rom, const struct vmm_log *log)
{
    uint64_t len[PCI_BARS];
    int err = vfiodev__open_config(d, log);

    for (unsigned i = 0; i < PCI_BARS && !err; i++)
        err = vfiodev__open_bar(d, i, &len[i]);
    if (!err && rom)
        err = vfiodev__open_rom(d, rom, log);
    if (err)
        return err;
    for (len[PCI_ROM] = d->rom ? 2048 : len[PCI_ROM]; d->rom && len[PCI_ROM] < d->rom_len;)
        len[PCI_ROM] *= 2;
    d->is.name = d->name;
    d->is.log = log;
    err = vfiodev_describe(&d->is, d->recorded, d->config_len, len);
    vfiodev__open_irqs(d);
    for (unsigned i = 0; i < 6; i++)
        if (!d->is.bar[i].len)
            d->bar[i].nareas = 0; /* I/O ports */
    vfiodev__spare_table(d);
    return err;
}

VMM_DEF int vfiodev_open(struct vfiodev *d, struct vfiodev_host *h, const char *address,
                         const char *rom, const struct vmm_log *log)
{
    struct vfio_device_info info = {.argsz = sizeof info};
    struct vfiodev_finding f;
    int err;

    memset(d, 0, sizeof *d);
    d->fd = -1;
    d->host = h;
    d->desc.log = log;
    err = vfiodev__finding(&f, address);
    if (err)
        return vmm_err(log, err, "%s", f.said);
    memcpy(d->name, f.address, sizeof d->name);
    d->fd = vfiodev__host_device(h, &f);
    if (d->fd < 0)
        return d->fd;
    if (ioctl(d->fd, VFIO_DEVICE_GET_INFO, &info))
        return vmm_err(log, -errno, "VFIO does not open %s: %s", d->name, strerror(errno));
    d->resets = info.flags & VFIO_DEVICE_FLAGS_RESET;
    return vfiodev__learn(d, rom, log);
}

VMM_DEF int vfiodev_init(struct vfiodev *d, const struct vfiodev_desc *desc)
{
    int err;

    d->desc = *desc;
    d->is.slot = desc->slot;
    d->is.lock = desc->lock;
    d->is.intx = d->intx && desc->intx_bell != desc->intx_done;
    d->is.msix.vectors = desc->vectors;
    d->is.moved = vfiodev__moved;
    d->is.changed = vfiodev__changed;
    d->is.msix_changed = vfiodev__msix_changed;
    d->is.reset = vfiodev__reset;
    d->is.config_read = vfiodev__config_read;
    d->is.config_write = vfiodev__config_write;
    d->is.ctx = d;
    vfiodev__wire_bars(&d->is);
    err = pci_init(&d->pci, &d->is);
    if (!err)
        err = vfiodev_adopt(&d->config, &d->pci, d->recorded, d->config_len);
    if (err)
        return err;
    if (!d->resets)
        vmm_say(desc->log, VMM_LOG_INFO,
                "%s cannot be reset: the guest finds it as its last user left it", d->name);
    vfiodev__reset(d);
    if (desc->wanted && vfiodev__count_irqs(d, VFIO_PCI_REQ_IRQ_INDEX))
        (void)vfiodev__bells(d, VFIO_PCI_REQ_IRQ_INDEX, VFIO_IRQ_SET_ACTION_TRIGGER, &desc->wanted,
                             1);
    return 0;
}

VMM_DEF void vfiodev_close(struct vfiodev *d)
{
    if (d->fd < 0 || !d->host)
        return;
    for (unsigned i = 0; i < 6; i++)
        for (unsigned j = 0; j < d->bar[i].nareas; j++)
            munmap(d->bar[i].mem[j], d->bar[i].area[j].len);
    if (d->rom)
        munmap(d->rom_map, d->rom_len);
    close(d->fd); /* the kernel takes its interrupts and resets it */
    d->fd = -1;
}

#else
/* >>others: what a program calls, to hear that there is none of it. */

VMM_DEF int vfiodev_host_init(struct vfiodev_host *h, const struct vfiodev_host_desc *desc)
{
    memset(h, 0, sizeof *h);
    return vmm_err(desc->log, -ENOTSUP, "this system has no VFIO: leave --vfio out");
}

VMM_DEF int vfiodev_host_map(struct vfiodev_host *h, const struct vmm_mem *mem)
{
    (void)h;
    (void)mem;
    return -ENOTSUP;
}

VMM_DEF void vfiodev_host_fini(struct vfiodev_host *h)
{
    (void)h;
}

VMM_DEF int vfiodev_open(struct vfiodev *d, struct vfiodev_host *h, const char *address,
                         const char *rom, const struct vmm_log *log)
{
    (void)d;
    (void)h;
    (void)rom;
    return vmm_err(log, -ENOTSUP, "%s cannot be passed: this system has no VFIO", address);
}

VMM_DEF int vfiodev_init(struct vfiodev *d, const struct vfiodev_desc *desc)
{
    (void)d;
    (void)desc;
    return -ENOTSUP;
}

VMM_DEF void vfiodev_close(struct vfiodev *d)
{
    (void)d;
}

VMM_DEF unsigned vfiodev_list(void (*fn)(void *ctx, int err, const struct vfiodev_finding *f),
                              void *ctx)
{
    (void)fn;
    (void)ctx;
    return 0;
}
#endif

#endif /* VFIODEV__IMPLEMENTED */
#endif /* DEV_VFIO_IMPLEMENTATION */
