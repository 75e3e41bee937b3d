/* dev_pci.h - a PCI root bus for a VMM                            MIT licence, see LICENSE

   WHAT IT IS      One host bridge with bus 0 behind it: up to 31 devices of one function each, type
                   0 headers, memory BARs of 32 and 64 bits, capability lists, INTx, MSI and MSI-X.
                   The guest reaches configuration space by ECAM and by ports 0xcf8/0xcfc, sizes and
                   moves BARs as it likes. A device is told where its BARs are, and supplies what is
                   in them. It follows "PCI Local Bus Specification 3.0" and, for ECAM, "PCI Express
                   Base Specification". Not here: bridges, other buses, I/O BARs, hot-plug, and the
                   extended configuration space, but for what a device answers there itself.

   QUICK START     static struct pci_root root;
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

   CONFIGURATION   set everywhere: VMM_DEF, see vmm.h
                   set in one file: DEV_PCI_IMPLEMENTATION (or VMM_IMPLEMENTATION)

   DEPENDS ON      vmm.h alone.

   THREADS         The handlers that pci_root_add_io registers lock for themselves. An access to
                   configuration space holds the root's lock and in it the device's: so moved, reset
                   and the other call-backs come with both. An access to a window looks the BAR up
                   under the root's lock, leaves that, takes the device's lock alone, and looks
                   again: a BAR that was moved meanwhile answers as if nobody was there, and never
                   sees an offset beyond its length. So a slow device stops no other. The order is
                   root, device, then interrupt lines and MSI, which are leaves: with a device's
                   lock held nobody may enter the root. Functions that take a struct pci_dev want
                   the device's lock held, and come from any thread; inits, pci_add_cap and plugging
                   belong before the first vCPU.
   MEMORY          The caller owns every struct and leaves it where it is; descs are copied.
   ERRORS          Inits return 0 or -errno. After that nothing can fail towards the host.
   GUEST TRUST     Any access of any width at any offset is fine: what nobody answers reads as all
                   ones and ignores writes, what the specification reserves reads as zero. A BAR
                   that the guest puts outside of the windows is nowhere; of two in one place the
                   device with the lower number answers. BAR handlers get accesses of
                   1, 2, 4 or 8 bytes that lie within the BAR, at any alignment. */
#ifndef DEV_PCI_H
#define DEV_PCI_H

#include "vmm.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PCI_NOWHERE     (~(uint64_t)0)              /* no address: the BAR is not decoded */
#define PCI_ECAM_LEN    0x100000                    /* bytes: one bus */
#define PCI_SLOTS       32                          /* device numbers on the bus; 0 is the bridge */
#define PCI_VECTORS_MAX 2048                        /* of MSI-X */
#define PCI_PBA_LEN(n)  (8 * (((n) + 63u) / 64u))   /* bytes of the pending bits of n vectors */
#define PCI_MSIX_LEN(n) (16 * (n) + PCI_PBA_LEN(n)) /* bytes of table and pending bits behind it */

/* One MSI-X vector: its table entry as the guest wrote it, and the pending bit. Private. */
struct pci_vector {
    uint64_t addr;
    uint32_t data, ctrl; /* ctrl bit 0: masked */
    bool pending;
};

/* A memory BAR. A 64-bit one takes its own and the next place in the list. */
struct pci_bar {
    uint64_t len; /* bytes, a power of two from 16 on; 0: none */
    bool is64, prefetch;
    /* off counts from the start of the BAR; NULL: reads as zero, ignores writes. What lies in the
       MSI-X table or the pending bits does not come here. */
    uint64_t (*read)(void *ctx, uint64_t off, unsigned len);
    void (*write)(void *ctx, uint64_t off, unsigned len, uint64_t val);
};

/* Where the MSI-X vectors show, and what keeps them. */
struct pci_msix_desc {
    unsigned nvectors; /* 1 to PCI_VECTORS_MAX; 0: no MSI-X */
    struct pci_vector *vectors;
    unsigned table_bar, pba_bar; /* which BARs */
    uint32_t table_off, pba_off; /* bytes from their start, multiples of 8; both 0 in one BAR: the
                                    pending bits follow the table */
};

/* What a device is. All call-backs may be NULL. */
struct pci_desc {
    const char *name; /* for the log; NULL: "pci device" */
    unsigned slot;    /* device number, 1 to 31; 0: the lowest that is free */
    uint16_t vendor, device, subvendor, subdevice;
    uint32_t class_code; /* base class, subclass, interface: 0xbbsspp */
    uint8_t revision;
    bool intx; /* uses pin INTA# */
    struct pci_bar bar[6];
    struct pci_msix_desc msix;
    unsigned nmsi;        /* MSI vectors: 1, 2, 4, 8, 16 or 32; 0: no MSI */
    struct vmm_msi msi;   /* who delivers messages of MSI and MSI-X */
    struct vmm_lock lock; /* the device's lock */
    /* A BAR is now at gpa, or PCI_NOWHERE; also at reset. Two BARs may be told the same place. */
    void (*moved)(void *ctx, unsigned bar, uint64_t gpa);
    /* An MSI-X vector may have changed: ask pci_msix_get. Not for pending bits. */
    void (*msix_changed)(void *ctx, unsigned vector);
    /* The machine was reset: the header is already as after power-on. */
    void (*reset)(void *ctx);
    /* A look at configuration space [off, off + len), within one dword: true: answered here. For
       capabilities with side effects, the extended space (off 256 to 4095), and passthrough. */
    bool (*config_read)(void *ctx, unsigned off, unsigned len, uint32_t *val);
    bool (*config_write)(void *ctx, unsigned off, unsigned len, uint32_t val);
    void *ctx;
    const struct vmm_log *log; /* NULL: silent */
};

struct pci_dev {
    struct pci_desc desc;
    struct pci_root *root; /* NULL: not plugged */
    unsigned slot;
    uint8_t config[256]; /* little-endian, as the guest reads it */
    /* private */
    uint8_t writable[256]; /* the bits of config that the guest may change */
    uint64_t bar_gpa[6];   /* where each BAR is decoded, or PCI_NOWHERE */
    uint64_t bar_home[6];  /* where pci_plug put it */
    uint8_t msi_cap, msix_cap, last_cap, next_free; /* offsets in config; 0: none */
    bool intx_level;                                /* what the device wants of its pin */
};

/* Guest-physical space for BARs. */
struct pci_window {
    uint64_t base, len; /* len 0: none */
    /* private */
    struct pci_root *root;
    uint64_t used; /* bytes from base that pci_plug has given out */
};

struct pci_root_desc {
    uint16_t vendor, device; /* of the host bridge; both 0: an id of no real bridge */
    uint64_t ecam;           /* where PCI_ECAM_LEN bytes of configuration space are; 0: nowhere */
    struct {
        uint64_t base, len;
    } mmio32, mmio64;       /* windows; 32: below 4 GiB; len 0: none */
    struct vmm_irq intx[4]; /* level-triggered; device n, pin p (INTA# is 0) has (n + p) % 4 */
    /* What answers 1-byte accesses of port 0xcf9, off 0: where chipsets have their reset register.
       read and write NULL: nothing */
    struct vmm_io reset_port;
    struct vmm_lock lock;      /* the root's lock */
    const struct vmm_log *log; /* NULL: silent */
};

struct pci_root {
    struct pci_root_desc desc;
    struct pci_dev bridge;           /* 00:00.0 */
    struct pci_dev *slot[PCI_SLOTS]; /* NULL: empty */
    struct pci_window window[2];     /* of 32 and of 64 bits */
    uint32_t address;                /* port 0xcf8 */
    uint32_t asserted[4];            /* per line: a bit for each slot that pulls it; atomic */
};

VMM_DEF void pci_root_init(struct pci_root *r, const struct pci_root_desc *desc);
/* Registers ECAM and windows, and the ports 0xcf8 to 0xcff. Either bus may be NULL: left out. The
   errors are those of vmm_bus_add. */
VMM_DEF int pci_root_add_io(struct pci_root *r, struct vmm_bus *mmio, struct vmm_bus *ports);
/* Machine reset, with no lock held: every device as after power-on, BARs where pci_plug put them,
   decoding off. */
VMM_DEF void pci_reset(struct pci_root *r);

/* What pci_root_add_io registers. off: from the start of ECAM; from port 0xcf8. */
VMM_DEF uint64_t pci_ecam_read(void *root, uint64_t off, unsigned len);
VMM_DEF void pci_ecam_write(void *root, uint64_t off, unsigned len, uint64_t val);
VMM_DEF uint64_t pci_port_read(void *root, uint64_t off, unsigned len);
VMM_DEF void pci_port_write(void *root, uint64_t off, unsigned len, uint64_t val);
VMM_DEF uint64_t pci_window_read(void *window, uint64_t off, unsigned len);
VMM_DEF void pci_window_write(void *window, uint64_t off, unsigned len, uint64_t val);

/* In this order: pci_init, pci_add_cap for each capability, pci_plug. */
/* -EINVAL: a BAR, MSI or MSI-X that cannot be; sentence in the log. */
VMM_DEF int pci_init(struct pci_dev *d, const struct pci_desc *desc);
/* Appends a capability: id, link, then `len` bytes from `body`, of which the guest may change the
   bits set in `writable` (NULL: none). Returns its offset in config (`body` is at + 2), -ENOSPC. */
VMM_DEF int pci_add_cap(struct pci_dev *d, uint8_t id, const void *body, unsigned len,
                        const void *writable);
/* Gives the device a number and its BARs addresses. -EEXIST: the slot is taken; -ENOSPC: no slot,
   or a window is too small; sentence in the log. */
VMM_DEF int pci_plug(struct pci_root *r, struct pci_dev *d);

/* For devices, with their lock held, from any thread. */
/* Sets the level of INTA#. Harmless while the guest uses MSI or MSI-X: nothing is seen of it. */
VMM_DEF void pci_intx_set(struct pci_dev *d, bool level);
/* Sends a message; a masked one stays pending until the guest unmasks it. Nothing happens for a
   vector that there is not, nor while the guest has not enabled MSI, MSI-X. */
VMM_DEF void pci_msi_send(struct pci_dev *d, unsigned vector);
VMM_DEF void pci_msix_send(struct pci_dev *d, unsigned vector);
/* Has the guest enabled it? Then it expects no INTx. */
VMM_DEF bool pci_msi_enabled(const struct pci_dev *d);
VMM_DEF bool pci_msix_enabled(const struct pci_dev *d);
/* True: the vector would be delivered now, as this message. False: masked or disabled; who bypasses
   pci_msix_send (an irqfd) must then come back to it. */
VMM_DEF bool pci_msix_get(const struct pci_dev *d, unsigned vector, uint64_t *addr, uint32_t *data);

#ifdef __cplusplus
}
#endif
#endif /* DEV_PCI_H */
