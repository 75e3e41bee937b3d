/* dev_pci.h - a PCI root bus for a VMM                            MIT licence, see LICENSE

   WHAT IT IS      One host bridge with bus 0 behind it: up to 31 devices of one function each, type
                   0 headers, memory BARs of 32 and 64 bits, capability lists, INTx, MSI and MSI-X.
                   The guest reaches configuration space by ECAM and by ports 0xcf8/0xcfc, sizes and
                   moves BARs as it likes. A device is told where its BARs are, and supplies what is
                   in them. An expansion ROM is place 6 of the BARs. For firmware, a bridge to ISA
                   that routes interrupts (Intel's 82371SB). It follows "PCI Local Bus Specification
                   3.0" and, for ECAM, "PCI Express Base Specification". Not here: other bridges and
                   buses, I/O BARs, hot-plug, and the extended configuration space, but for what a
                   device answers there itself.

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
                   configuration space holds the root's lock and in it the device's, so that moved,
                   reset and the config call-backs come with both; read, write, msix_changed and
                   msi.send with the device's at least. An access to a window looks the BAR up
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
#define PCI_BARS        7                           /* 0 to 5, and the expansion ROM */
#define PCI_ROM         6                           /* its place among them */
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
    uint64_t len; /* bytes, a power of two from 16 on, of a ROM from 2048 on; 0: none */
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
    struct pci_bar bar[PCI_BARS]; /* the last one is the expansion ROM */
    struct pci_msix_desc msix;
    unsigned nmsi; /* MSI vectors: 1, 2, 4, 8, 16 or 32; 0: no MSI */
    bool msi_is32; /* without the upper half of the address */
    bool msi_bare; /* without mask and pending bits */
    uint8_t msi_at, msix_at; /* where in config the capabilities are; 0: at the next free place */
    struct vmm_msi msi;   /* who delivers messages of MSI and MSI-X */
    struct vmm_lock lock; /* the device's lock */
    /* A BAR is now at gpa, or PCI_NOWHERE; also at reset. Two BARs may be told the same place. */
    void (*moved)(void *ctx, unsigned bar, uint64_t gpa);
    /* An MSI-X vector may have changed: ask pci_msix_get. Not for pending bits. */
    void (*msix_changed)(void *ctx, unsigned vector);
    /* The guest wrote to configuration space, and BARs and INTx have followed; MSI-X vectors are
       next. Also at reset. */
    void (*changed)(void *ctx);
    /* The machine was reset: the header is already as after power-on. */
    void (*reset)(void *ctx);
    /* An access to configuration space [off, off + len), 1 to 4 bytes within one dword, is shown
       here first; true: it is done. For capabilities with side effects, for the extended space
       (off 256 to 4095), and for passthrough. */
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
    uint8_t writable[256];     /* the bits of config that the guest may change */
    uint8_t power_on[256];     /* config as pci_plug left it */
    uint64_t bar_gpa[PCI_BARS]; /* where each BAR is decoded, or PCI_NOWHERE */
    uint32_t msi_pending;
    uint8_t msi_cap, msix_cap; /* where in config; 0: none */
    uint8_t last_cap;          /* 0: the list is empty */
    unsigned caps_end;         /* where in config the next capability goes */
    uint8_t in_cap[256 / 8];   /* a bit for each byte of config that belongs to one */
};

/* Guest-physical space for BARs. */
struct pci_window {
    uint64_t base, len; /* len 0: none */
    /* private */
    struct pci_root *root;
    uint64_t used; /* bytes from base that pci_plug has given out */
};

struct pci_root_desc {
    uint16_t vendor, device; /* of the host bridge; both 0: an id of no real bridge. That of Intel's
                                82441FX (0x8086, 0x1237) has its registers for shadow RAM, too */
    uint64_t ecam;           /* where PCI_ECAM_LEN bytes of configuration space are; 0: nowhere */
    struct {
        uint64_t base, len;
    } mmio32, mmio64;       /* windows; 32: below 4 GiB; len 0: none */
    struct vmm_irq intx[4]; /* level-triggered; device n, pin p (INTA# is 0) has (n + p) % 4 */
    uint8_t line[4];        /* what firmware has noted in the devices' registers: which line of the
                               8259s that one is; 0: nothing */
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
/* The same at a place of the caller's choice, a multiple of 4. -EEXIST: another one is there. */
VMM_DEF int pci_put_cap(struct pci_dev *d, unsigned at, uint8_t id, const void *body, unsigned len,
                        const void *writable);
/* Gives the device a number and its BARs addresses. -EEXIST: the slot is taken; -ENOSPC: no slot,
   or a window is too small; sentence in the log. */
VMM_DEF int pci_plug(struct pci_root *r, struct pci_dev *d);

/* For devices, with their lock held, from any thread. */
/* Sets the level of INTA#. It stays inside while the guest has disabled INTx, or enabled MSI or
   MSI-X. */
VMM_DEF void pci_intx_set(struct pci_dev *d, bool level);
/* Sends a message; a masked one stays pending until the guest unmasks it. Nothing happens for a
   vector that there is not, nor while the guest has not enabled MSI, MSI-X. */
VMM_DEF void pci_msi_send(struct pci_dev *d, unsigned vector);
VMM_DEF void pci_msix_send(struct pci_dev *d, unsigned vector);
/* Has the guest enabled it? Then INTx is silent. */
VMM_DEF bool pci_msi_enabled(const struct pci_dev *d);
VMM_DEF bool pci_msix_enabled(const struct pci_dev *d);
/* True: the vector would be delivered now, as this message. False: masked or disabled; who bypasses
   pci_msix_send (an irqfd) must then come back to it. */
VMM_DEF bool pci_msix_get(const struct pci_dev *d, unsigned vector, uint64_t *addr, uint32_t *data);
VMM_DEF bool pci_msi_get(const struct pci_dev *d, unsigned vector, uint64_t *addr, uint32_t *data);
/* What a guest's access to BAR `bar` would do, wherever that is. Beyond its end: all ones, lost. */
VMM_DEF uint64_t pci_bar_read(struct pci_dev *d, unsigned bar, uint64_t off, unsigned len);
VMM_DEF void pci_bar_write(struct pci_dev *d, unsigned bar, uint64_t off, unsigned len,
                           uint64_t val);

/* >>isa: the bridge to ISA of Intel's 82371SB (PIIX3), as firmware and old systems know it: four
   registers route the bus's lines to lines of the 8259s. Plug it into slot 1, or do not: then it routes
   all the same, and no guest sees it. Give the root for its intx[i]: {pci_isa_intx, isa, i}. */
struct pci_isa_desc {
    struct vmm_irq intx[4]; /* where the bus's lines go in any case: pins of the IOAPIC */
    struct vmm_irq irq;     /* of the 8259s; its line is replaced by the one that is meant */
    uint8_t route[4];       /* where firmware has routed the bus's lines; 0: nowhere yet */
    struct vmm_lock lock;   /* the device's */
};

struct pci_isa {
    struct pci_dev dev;
    struct pci_isa_desc desc;
    uint32_t asserted; /* a bit for each of the bus's lines; atomic */
    uint32_t routes;   /* the four registers; atomic */
};

VMM_DEF int pci_isa_init(struct pci_isa *isa, const struct pci_isa_desc *desc);
/* The disk controller of the same chip, with nothing of its own: systems that look for disks on PCI
   learn that there is a channel at its old place (ports 0x1f0 and 0x3f6, line 14). */
VMM_DEF int pci_ide_init(struct pci_dev *d, const struct vmm_lock *lock);
/* What struct vmm_irq wants: thread-safe, a leaf. */
VMM_DEF void pci_isa_intx(void *isa, unsigned line, bool level);

#ifdef __cplusplus
}
#endif
#endif /* DEV_PCI_H */

#if defined(VMM_IMPLEMENTATION) || defined(DEV_PCI_IMPLEMENTATION)
#ifndef PCI__IMPLEMENTED
#define PCI__IMPLEMENTED

/* >>header: offsets and bits of configuration space, "PCI Local Bus Specification 3.0", 6.1 */
enum {
    PCI__COMMAND = 0x04,
    PCI__STATUS = 0x06,
    PCI__BAR0 = 0x10,
    PCI__ROM_BAR = 0x30,
    PCI__CAPS = 0x34,
    PCI__LINE = 0x3c,
    PCI__PIN = 0x3d,
    PCI__HEADER_LEN = 0x40,
    PCI__PAM = 0x59, /* of the 82441FX: what below 1 MiB is RAM. Here all is, always */
    PCI__PAM_LEN = 7,

    PCI__CMD_MEMORY = 1 << 1,
    PCI__CMD_MASTER = 1 << 2,
    PCI__CMD_NO_INTX = 1 << 10,
    PCI__STATUS_INTX = 1 << 3,
    PCI__STATUS_CAPS = 1 << 4,
    PCI__BAR_IS64 = 4,
    PCI__BAR_PREFETCH = 8
};

/* offsets in the capabilities, 6.8.1 and 6.8.2 */
enum {
    PCI__MSI = 0x05,
    PCI__MSI_CTRL = 2,
    PCI__MSI_ADDR = 4,
    PCI__MSI_DATA = 8, /* of 32 bits of address; 4 more of 64; the next two are relative to it */
    PCI__MSI_MASK = 4,
    PCI__MSI_PENDING = 8,
    PCI__MSI_LEN = 24, /* at most */
    PCI__MSI_ON = 1,

    PCI__MSIX = 0x11,
    PCI__MSIX_CTRL = 2,
    PCI__MSIX_LEN = 12,
    PCI__MSIX_ON = 1 << 15,
    PCI__MSIX_ALL_MASKED = 1 << 14,
    PCI__ENTRY_LEN = 16,
    PCI__ENTRY_MASKED = 1
};

static bool pci__command(const struct pci_dev *d, unsigned bit)
{
    return vmm_get16(d->config + PCI__COMMAND) & bit;
}

static unsigned pci__msi_ctrl(const struct pci_dev *d)
{
    return d->msi_cap ? vmm_get16(d->config + d->msi_cap + PCI__MSI_CTRL) : 0;
}

static unsigned pci__msix_ctrl(const struct pci_dev *d)
{
    return d->msix_cap ? vmm_get16(d->config + d->msix_cap + PCI__MSIX_CTRL) : 0;
}

VMM_DEF bool pci_msi_enabled(const struct pci_dev *d)
{
    return pci__msi_ctrl(d) & PCI__MSI_ON;
}

VMM_DEF bool pci_msix_enabled(const struct pci_dev *d)
{
    return pci__msix_ctrl(d) & PCI__MSIX_ON;
}

/* >>intx: four lines that many devices share; each has a bit in the set of those that pull it. */

/* Devices set their bits under different locks, so the line may be set by two threads at a time:
   whoever set it last looks whether it is still true, and sets it again if not. */
static void pci__line_pull(struct pci_root *r, unsigned line, unsigned slot, bool level)
{
    uint32_t *set = &r->asserted[line], bit = 1u << slot;
    bool any;

    if (level)
        __atomic_or_fetch(set, bit, __ATOMIC_SEQ_CST);
    else
        __atomic_and_fetch(set, ~bit, __ATOMIC_SEQ_CST);
    do {
        any = __atomic_load_n(set, __ATOMIC_SEQ_CST) != 0;
        vmm_irq_set(&r->desc.intx[line], any);
    } while (any != (__atomic_load_n(set, __ATOMIC_SEQ_CST) != 0));
}

/* Passes on what the device wants, if the guest lets it. */
static void pci__intx_update(struct pci_dev *d)
{
    bool wanted = d->config[PCI__STATUS] & PCI__STATUS_INTX;
    bool level =
        wanted && !pci__command(d, PCI__CMD_NO_INTX) && !pci_msi_enabled(d) && !pci_msix_enabled(d);
    unsigned line = d->slot % 4;
    uint32_t bit = 1u << d->slot;

    if (!d->root || !d->desc.intx)
        return;
    if (level != !!(__atomic_load_n(&d->root->asserted[line], __ATOMIC_SEQ_CST) & bit))
        pci__line_pull(d->root, line, d->slot, level);
}

VMM_DEF void pci_intx_set(struct pci_dev *d, bool level)
{
    if (!d->desc.intx)
        return;
    d->config[PCI__STATUS] &= (uint8_t)~PCI__STATUS_INTX;
    d->config[PCI__STATUS] |= level ? PCI__STATUS_INTX : 0;
    pci__intx_update(d);
}

/* >>msi: 6.8.1. A message is a write by the device, so it waits for the bus master bit, too. */

/* The vectors that the guest allows, as a power of two; the device may have more. */
static unsigned pci__msi_allowed(const struct pci_dev *d)
{
    unsigned ctrl = pci__msi_ctrl(d), most = ctrl >> 1 & 7, log2 = ctrl >> 4 & 7;

    return 1u << (log2 < most ? log2 : most);
}

/* Where in config its data is, behind which come mask and pending bits. */
static unsigned pci__msi_data(const struct pci_dev *d)
{
    return d->msi_cap + PCI__MSI_DATA + (d->desc.msi_is32 ? 0 : 4);
}

static uint32_t pci__msi_masked(const struct pci_dev *d)
{
    return d->desc.msi_bare ? 0 : vmm_get32(d->config + pci__msi_data(d) + PCI__MSI_MASK);
}

VMM_DEF bool pci_msi_get(const struct pci_dev *d, unsigned vector, uint64_t *addr, uint32_t *data)
{
    const uint8_t *at = d->config + d->msi_cap + PCI__MSI_ADDR;

    if (!pci_msi_enabled(d) || !pci__command(d, PCI__CMD_MASTER) ||
        vector >= pci__msi_allowed(d) || pci__msi_masked(d) & 1u << vector)
        return false;
    *addr = d->desc.msi_is32 ? vmm_get32(at) : vmm_get64(at);
    *data = vmm_get16(d->config + pci__msi_data(d));
    *data = (*data & ~(pci__msi_allowed(d) - 1)) | vector;
    return true;
}

/* Delivers what is pending and may go. */
static void pci__msi_flush(struct pci_dev *d)
{
    uint32_t ready = d->msi_pending;
    uint64_t addr;
    uint32_t data;

    for (unsigned v = 0; v < pci__msi_allowed(d); v++)
        if (ready & 1u << v && pci_msi_get(d, v, &addr, &data)) {
            d->msi_pending &= ~(1u << v);
            vmm_msi_send(&d->desc.msi, v, addr, data);
        }
    if (!d->desc.msi_bare)
        vmm_put32(d->config + pci__msi_data(d) + PCI__MSI_PENDING, d->msi_pending);
}

VMM_DEF void pci_msi_send(struct pci_dev *d, unsigned vector)
{
    if (!pci_msi_enabled(d) || vector >= d->desc.nmsi)
        return;
    d->msi_pending |= 1u << (vector & (pci__msi_allowed(d) - 1));
    pci__msi_flush(d);
}

/* >>msix: 6.8.2 */

/* Messages may go, but for vectors masked one by one. */
static bool pci__msix_live(const struct pci_dev *d)
{
    return (pci__msix_ctrl(d) & (PCI__MSIX_ON | PCI__MSIX_ALL_MASKED)) == PCI__MSIX_ON &&
           pci__command(d, PCI__CMD_MASTER);
}

VMM_DEF bool pci_msix_get(const struct pci_dev *d, unsigned vector, uint64_t *addr, uint32_t *data)
{
    const struct pci_vector *v = d->desc.msix.vectors;

    if (vector >= d->desc.msix.nvectors || !pci__msix_live(d) || v[vector].ctrl & PCI__ENTRY_MASKED)
        return false;
    *addr = v[vector].addr;
    *data = v[vector].data;
    return true;
}

/* Delivers a vector that is pending, if it may go. */
static void pci__msix_flush(struct pci_dev *d, unsigned vector)
{
    struct pci_vector *v = &d->desc.msix.vectors[vector];
    uint64_t addr;
    uint32_t data;

    if (!v->pending || !pci_msix_get(d, vector, &addr, &data))
        return;
    v->pending = false;
    vmm_msi_send(&d->desc.msi, vector, addr, data);
}

VMM_DEF void pci_msix_send(struct pci_dev *d, unsigned vector)
{
    if (vector >= d->desc.msix.nvectors || !pci_msix_enabled(d))
        return;
    d->desc.msix.vectors[vector].pending = true;
    pci__msix_flush(d, vector);
}

/* A table entry, or what all of them hang on, changed: tells the owner, delivers what waited. */
static void pci__msix_changed(struct pci_dev *d, unsigned vector)
{
    if (d->desc.msix_changed)
        d->desc.msix_changed(d->desc.ctx, vector);
    pci__msix_flush(d, vector);
}

/* Message control or the bus master bit changed. Disabled, MSI-X forgets what was pending. */
static void pci__msix_update(struct pci_dev *d, bool was_live)
{
    const struct pci_msix_desc *m = &d->desc.msix;

    for (unsigned v = 0; v < m->nvectors && !pci_msix_enabled(d); v++)
        m->vectors[v].pending = false;
    for (unsigned v = 0; v < m->nvectors && was_live != pci__msix_live(d); v++)
        pci__msix_changed(d, v);
}

static void pci__entry_get(const struct pci_vector *v, uint8_t entry[PCI__ENTRY_LEN])
{
    vmm_put64(entry, v->addr);
    vmm_put32(entry + 8, v->data);
    vmm_put32(entry + 12, v->ctrl);
}

/* An access to the table; in accesses that touch two entries nobody answers. */
static uint64_t pci__table_access(struct pci_dev *d, uint64_t off, unsigned len, bool write,
                                  uint64_t val)
{
    uint64_t vector = off / PCI__ENTRY_LEN, got = 0;
    unsigned at = off % PCI__ENTRY_LEN;
    uint8_t entry[PCI__ENTRY_LEN];
    struct pci_vector *v;

    if (vector >= d->desc.msix.nvectors || at + len > PCI__ENTRY_LEN)
        return vmm_ones(len);
    v = &d->desc.msix.vectors[vector];
    pci__entry_get(v, entry);
    memcpy(&got, entry + at, len);
    if (!write)
        return got;
    memcpy(entry + at, &val, len);
    v->addr = vmm_get64(entry) & ~(uint64_t)3;
    v->data = vmm_get32(entry + 8);
    v->ctrl = vmm_get32(entry + 12) & PCI__ENTRY_MASKED;
    pci__msix_changed(d, (unsigned)vector);
    return 0;
}

/* `len` bytes of pending bits from byte `off` on. */
static uint64_t pci__pba_read(const struct pci_dev *d, uint64_t off, unsigned len)
{
    const struct pci_msix_desc *m = &d->desc.msix;
    uint64_t got = 0;

    for (unsigned i = 0; i < 8 * len && 8 * off + i < m->nvectors; i++)
        got |= (uint64_t)m->vectors[8 * off + i].pending << i;
    return got;
}

/* >>bars */

static bool pci__overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
    return a < b + blen && b < a + alen;
}

/* An access within a BAR: to the table, to the pending bits, or to the device. */
static uint64_t pci__bar_access(struct pci_dev *d, unsigned bar, uint64_t off, unsigned len,
                                bool write, uint64_t val)
{
    const struct pci_msix_desc *m = &d->desc.msix;
    const struct pci_bar *b = &d->desc.bar[bar];
    uint64_t table = m->nvectors * (uint64_t)PCI__ENTRY_LEN, pba = PCI_PBA_LEN(m->nvectors);

    if (m->nvectors && bar == m->table_bar && pci__overlap(off, len, m->table_off, table))
        return pci__table_access(d, off - m->table_off, len, write, val);
    if (m->nvectors && bar == m->pba_bar && pci__overlap(off, len, m->pba_off, pba))
        return write || off < m->pba_off ? vmm_ones(len) : pci__pba_read(d, off - m->pba_off, len);
    if (!write)
        return b->read ? b->read(d->desc.ctx, off, len) & vmm_ones(len) : 0;
    if (b->write)
        b->write(d->desc.ctx, off, len, val & vmm_ones(len));
    return 0;
}

static bool pci__within(uint64_t off, unsigned len, uint64_t end)
{
    return off < end && len <= end - off;
}

VMM_DEF uint64_t pci_bar_read(struct pci_dev *d, unsigned bar, uint64_t off, unsigned len)
{
    return bar < PCI_BARS && pci__within(off, len, d->desc.bar[bar].len)
               ? pci__bar_access(d, bar, off, len, false, 0)
               : vmm_ones(len);
}

VMM_DEF void pci_bar_write(struct pci_dev *d, unsigned bar, uint64_t off, unsigned len,
                           uint64_t val)
{
    if (bar < PCI_BARS && pci__within(off, len, d->desc.bar[bar].len))
        pci__bar_access(d, bar, off, len, true, val);
}

/* Where in config a BAR is. */
static unsigned pci__bar_reg(unsigned bar)
{
    return bar == PCI_ROM ? PCI__ROM_BAR : PCI__BAR0 + 4 * bar;
}

/* Where a BAR would be decoded: at its address, if that lies in one of the windows. A ROM has a
   switch of its own. */
static uint64_t pci__bar_target(const struct pci_dev *d, unsigned bar)
{
    const uint8_t *p = d->config + pci__bar_reg(bar);
    const struct pci_bar *b = &d->desc.bar[bar];
    uint64_t gpa = (b->is64 ? vmm_get64(p) : vmm_get32(p)) & ~(b->len - 1);

    if (bar == PCI_ROM && !(*p & 1))
        return PCI_NOWHERE;
    for (unsigned i = 0; i < 2 && d->root && pci__command(d, PCI__CMD_MEMORY); i++) {
        const struct pci_window *w = &d->root->window[i];
        if (gpa >= w->base && gpa - w->base < w->len && b->len <= w->len - (gpa - w->base))
            return gpa;
    }
    return PCI_NOWHERE;
}

/* Looks where each BAR is now, with both locks held. */
static void pci__remap(struct pci_dev *d)
{
    for (unsigned i = 0; i < PCI_BARS; i++) {
        uint64_t gpa = d->desc.bar[i].len ? pci__bar_target(d, i) : PCI_NOWHERE;
        if (gpa == d->bar_gpa[i])
            continue;
        d->bar_gpa[i] = gpa;
        if (d->desc.moved)
            d->desc.moved(d->desc.ctx, i, gpa);
    }
}

static bool pci__bar_holds(const struct pci_dev *d, unsigned bar, uint64_t gpa, unsigned len)
{
    return d->bar_gpa[bar] != PCI_NOWHERE && gpa >= d->bar_gpa[bar] &&
           pci__within(gpa - d->bar_gpa[bar], len, d->desc.bar[bar].len);
}

/* The device at an address, under the root's lock; NULL: none. */
static struct pci_dev *pci__find(const struct pci_root *r, uint64_t gpa, unsigned len,
                                 unsigned *bar)
{
    for (unsigned i = 0; i < PCI_SLOTS; i++)
        for (*bar = 0; r->slot[i] && *bar < PCI_BARS; ++*bar)
            if (pci__bar_holds(r->slot[i], *bar, gpa, len))
                return r->slot[i];
    return NULL;
}

/* Looks again under the device's lock, since between the two locks the BAR may have moved. */
static uint64_t pci__window_access(struct pci_window *w, uint64_t off, unsigned len, bool write,
                                   uint64_t val)
{
    uint64_t gpa = w->base + off, got = vmm_ones(len);
    struct pci_dev *d;
    unsigned bar;

    vmm_enter(&w->root->desc.lock);
    d = pci__find(w->root, gpa, len, &bar);
    vmm_leave(&w->root->desc.lock);
    if (!d)
        return got;
    vmm_enter(&d->desc.lock);
    if (pci__bar_holds(d, bar, gpa, len))
        got = pci__bar_access(d, bar, gpa - d->bar_gpa[bar], len, write, val);
    vmm_leave(&d->desc.lock);
    return got;
}

VMM_DEF uint64_t pci_window_read(void *window, uint64_t off, unsigned len)
{
    return pci__window_access((struct pci_window *)window, off, len, false, 0);
}

VMM_DEF void pci_window_write(void *window, uint64_t off, unsigned len, uint64_t val)
{
    pci__window_access((struct pci_window *)window, off, len, true, val);
}

/* >>config */

/* After config changed: everything that hangs on it follows. */
static void pci__config_changed(struct pci_dev *d, bool msix_was_live)
{
    pci__remap(d);
    pci__intx_update(d);
    if (d->msi_cap)
        pci__msi_flush(d);
    if (d->desc.changed)
        d->desc.changed(d->desc.ctx);
    pci__msix_update(d, msix_was_live);
}

static void pci__config_write(struct pci_dev *d, unsigned off, unsigned len, uint32_t val)
{
    bool msix_was_live = pci__msix_live(d);

    if (d->desc.config_write && d->desc.config_write(d->desc.ctx, off, len, val))
        return;
    if (off >= sizeof d->config)
        return;
    for (unsigned i = 0; i < len; i++) {
        uint8_t mask = d->writable[off + i], byte = (uint8_t)(val >> 8 * i);
        d->config[off + i] = (uint8_t)((d->config[off + i] & ~mask) | (byte & mask));
    }
    pci__config_changed(d, msix_was_live);
}

static uint32_t pci__config_read(const struct pci_dev *d, unsigned off, unsigned len)
{
    uint32_t val = 0;

    if (d->desc.config_read && d->desc.config_read(d->desc.ctx, off, len, &val))
        return val & (uint32_t)vmm_ones(len);
    val = 0;
    if (off < sizeof d->config)
        memcpy(&val, d->config + off, len);
    return val;
}

/* One access, in pieces that stay within a dword. Who is on the bus does not change any more, so
   that an empty slot needs no lock. */
static uint64_t pci__config_access(struct pci_root *r, uint64_t where, unsigned len, bool write,
                                   uint64_t val)
{
    unsigned reg = where & 0xfff, function = where >> 12 & 7;
    struct pci_dev *d = where < PCI_ECAM_LEN && !function ? r->slot[where >> 15] : NULL;
    uint64_t got = 0;

    if (!d || len > 0x1000 - reg)
        return vmm_ones(len);
    vmm_enter(&r->desc.lock);
    vmm_enter(&d->desc.lock);
    for (unsigned done = 0, n; done < len; done += n) {
        n = 4 - (reg + done) % 4;
        n = n < len - done ? n : len - done;
        if (write)
            pci__config_write(d, reg + done, n, (uint32_t)(val >> 8 * done & vmm_ones(n)));
        else
            got |= (uint64_t)pci__config_read(d, reg + done, n) << 8 * done;
    }
    vmm_leave(&d->desc.lock);
    vmm_leave(&r->desc.lock);
    return got;
}

VMM_DEF uint64_t pci_ecam_read(void *root, uint64_t off, unsigned len)
{
    return pci__config_access((struct pci_root *)root, off, len, false, 0);
}

VMM_DEF void pci_ecam_write(void *root, uint64_t off, unsigned len, uint64_t val)
{
    pci__config_access((struct pci_root *)root, off, len, true, val);
}

/* >>ports: configuration mechanism #1, 3.2.2.3.2: an address at 0xcf8, always four bytes, then data
   at 0xcfc, where the two low address bits are those of the port. */
#define PCI__PORT_DATA 4
#define PCI__PORT_ON   0x80000000u
#define PCI__PORT_BITS 0x80fffffcu

static uint64_t pci__data_access(struct pci_root *r, unsigned lane, unsigned len, bool write,
                                 uint64_t val)
{
    uint32_t address;

    vmm_enter(&r->desc.lock);
    address = r->address;
    vmm_leave(&r->desc.lock);
    if (!(address & PCI__PORT_ON) || address >> 16 & 0xff || lane + len > 4)
        return vmm_ones(len);
    return pci__config_access(r, (address & 0xff00) << 4 | (address & 0xfc) | lane, len, write,
                              val);
}

static uint64_t pci__reset_access(struct pci_root *r, bool write, uint64_t val)
{
    const struct vmm_io *io = &r->desc.reset_port;
    uint64_t got = vmm_ones(1);

    vmm_enter(&io->lock);
    if (write && io->write)
        io->write(io->dev, 0, 1, val);
    else if (!write && io->read)
        got = io->read(io->dev, 0, 1);
    vmm_leave(&io->lock);
    return got;
}

static uint64_t pci__address_access(struct pci_root *r, bool write, uint64_t val)
{
    uint64_t got;

    vmm_enter(&r->desc.lock);
    if (write)
        r->address = (uint32_t)val & PCI__PORT_BITS;
    got = r->address;
    vmm_leave(&r->desc.lock);
    return got;
}

static uint64_t pci__port_access(struct pci_root *r, uint64_t off, unsigned len, bool write,
                                 uint64_t val)
{
    if (off >= PCI__PORT_DATA)
        return pci__data_access(r, (unsigned)off - PCI__PORT_DATA, len, write, val);
    if (off == 0 && len == 4)
        return pci__address_access(r, write, val);
    if (off == 1 && len == 1)
        return pci__reset_access(r, write, val);
    return vmm_ones(len);
}

VMM_DEF uint64_t pci_port_read(void *root, uint64_t off, unsigned len)
{
    return pci__port_access((struct pci_root *)root, off, len, false, 0);
}

VMM_DEF void pci_port_write(void *root, uint64_t off, unsigned len, uint64_t val)
{
    pci__port_access((struct pci_root *)root, off, len, true, val);
}

/* >>device */

static const char *pci__name(const struct pci_dev *d)
{
    return d->desc.name ? d->desc.name : "pci device";
}

static int pci__check_bars(const struct pci_dev *d)
{
    for (unsigned i = 0; i < PCI_BARS; i++) {
        const struct pci_bar *b = &d->desc.bar[i];
        bool pow2 = b->len >= (i == PCI_ROM ? 2048 : 16) && !(b->len & (b->len - 1));
        if (!b->len)
            continue;
        if (!pow2 || (!b->is64 && b->len >> 31 > 1) ||
            (b->is64 && (i >= 5 || d->desc.bar[i + 1].len)))
            return vmm_err(d->desc.log, -EINVAL,
                           "%s: BAR %u of %llu bytes cannot be: give a power of two from 16 on, "
                           "and two places to 64 bits",
                           pci__name(d), i, (unsigned long long)b->len);
    }
    return 0;
}

static int pci__check_msi(struct pci_dev *d)
{
    struct pci_msix_desc *m = &d->desc.msix;
    uint64_t table = m->nvectors * (uint64_t)PCI__ENTRY_LEN, pba = PCI_PBA_LEN(m->nvectors);
    unsigned nmsi = d->desc.nmsi;

    if (nmsi > 32 || (nmsi & (nmsi - 1)))
        return vmm_err(d->desc.log, -EINVAL, "%s: %u MSI vectors: give 1, 2, 4, 8, 16 or 32",
                       pci__name(d), nmsi);
    if (!m->nvectors)
        return 0;
    if (m->table_bar == m->pba_bar && !m->table_off && !m->pba_off)
        m->pba_off = (uint32_t)table;
    if (m->nvectors > PCI_VECTORS_MAX || !m->vectors || m->table_bar > 5 || m->pba_bar > 5 ||
        m->table_off % 8 || m->pba_off % 8 ||
        m->table_off + table > d->desc.bar[m->table_bar].len ||
        m->pba_off + pba > d->desc.bar[m->pba_bar].len ||
        (m->table_bar == m->pba_bar && pci__overlap(m->table_off, table, m->pba_off, pba)))
        return vmm_err(d->desc.log, -EINVAL, "%s: the MSI-X table of %u vectors does not fit",
                       pci__name(d), m->nvectors);
    return 0;
}

static void pci__init_header(struct pci_dev *d)
{
    const struct pci_desc *desc = &d->desc;
    unsigned command = PCI__CMD_MEMORY | PCI__CMD_MASTER | PCI__CMD_NO_INTX;

    vmm_put16(d->config, desc->vendor);
    vmm_put16(d->config + 2, desc->device);
    vmm_put32(d->config + 8, desc->class_code << 8 | desc->revision);
    vmm_put16(d->config + 0x2c, desc->subvendor);
    vmm_put16(d->config + 0x2e, desc->subdevice);
    vmm_put16(d->writable + PCI__COMMAND, (uint16_t)command);
    d->config[PCI__PIN] = desc->intx;
    d->writable[PCI__LINE] = 0xff; /* a note of the guest to itself */
    for (unsigned i = 0; i < PCI_BARS; i++) {
        const struct pci_bar *b = &desc->bar[i];
        uint8_t *at = d->config + pci__bar_reg(i), *mask = d->writable + pci__bar_reg(i);
        d->bar_gpa[i] = PCI_NOWHERE;
        if (!b->len)
            continue;
        *at = (uint8_t)((b->is64 ? PCI__BAR_IS64 : 0) | (b->prefetch ? PCI__BAR_PREFETCH : 0));
        vmm_put32(mask, (uint32_t) ~(b->len - 1) | (i == PCI_ROM));
        if (b->is64)
            vmm_put64(mask, ~(b->len - 1));
    }
}

/* Off at power-on, and every MSI-X vector masked. */
static void pci__reset_vectors(struct pci_dev *d)
{
    struct pci_vector masked = {0, 0, PCI__ENTRY_MASKED, false};

    for (unsigned i = 0; i < d->desc.msix.nvectors; i++)
        d->desc.msix.vectors[i] = masked;
}

/* At its place, or at the next that is free. */
static int pci__add_cap(struct pci_dev *d, unsigned at, uint8_t id, const void *body, unsigned len,
                        const void *writable)
{
    return at ? pci_put_cap(d, at, id, body, len, writable)
              : pci_add_cap(d, id, body, len, writable);
}

static int pci__add_msi(struct pci_dev *d)
{
    enum { IS64 = 1 << 7, MASKS = 1 << 8, ALLOWED = 7 << 4 };
    bool is32 = d->desc.msi_is32, bare = d->desc.msi_bare;
    uint8_t cap[PCI__MSI_LEN] = {0}, mask[PCI__MSI_LEN] = {0};
    unsigned log2 = 0, data = PCI__MSI_DATA + (is32 ? 0 : 4);
    int at;

    while (1u << log2 < d->desc.nmsi)
        log2++;
    vmm_put16(cap + PCI__MSI_CTRL, (uint16_t)((is32 ? 0 : IS64) | (bare ? 0 : MASKS) | log2 << 1));
    vmm_put16(mask + PCI__MSI_CTRL, PCI__MSI_ON | ALLOWED);
    vmm_put64(mask + PCI__MSI_ADDR, ~(uint64_t)3);
    vmm_put32(mask + data, 0xffff);
    vmm_put32(mask + data + PCI__MSI_MASK, (uint32_t)(((uint64_t)1 << d->desc.nmsi) - 1));
    at = pci__add_cap(d, d->desc.msi_at, PCI__MSI, cap + 2, data + (bare ? 2 : 12) - 2, mask + 2);
    d->msi_cap = (uint8_t)(at < 0 ? 0 : at);
    return at < 0 ? at : 0;
}

static int pci__add_msix(struct pci_dev *d)
{
    const struct pci_msix_desc *m = &d->desc.msix;
    uint8_t cap[PCI__MSIX_LEN] = {0}, mask[PCI__MSIX_LEN] = {0};
    int at;

    vmm_put16(cap + PCI__MSIX_CTRL, (uint16_t)(m->nvectors - 1));
    vmm_put16(mask + PCI__MSIX_CTRL, PCI__MSIX_ON | PCI__MSIX_ALL_MASKED);
    vmm_put32(cap + 4, m->table_off | m->table_bar);
    vmm_put32(cap + 8, m->pba_off | m->pba_bar);
    at = pci__add_cap(d, d->desc.msix_at, PCI__MSIX, cap + 2, sizeof cap - 2, mask + 2);
    d->msix_cap = (uint8_t)(at < 0 ? 0 : at);
    return at < 0 ? at : 0;
}

VMM_DEF int pci_init(struct pci_dev *d, const struct pci_desc *desc)
{
    int err;

    memset(d, 0, sizeof *d);
    d->desc = *desc;
    d->caps_end = PCI__HEADER_LEN;
    err = pci__check_bars(d);
    if (!err)
        err = pci__check_msi(d);
    if (err)
        return err;
    pci__init_header(d);
    pci__reset_vectors(d);
    if (desc->nmsi)
        err = pci__add_msi(d);
    return err || !desc->msix.nvectors ? err : pci__add_msix(d);
}

VMM_DEF int pci_put_cap(struct pci_dev *d, unsigned at, uint8_t id, const void *body, unsigned len,
                        const void *writable)
{
    if (at < PCI__HEADER_LEN || at % 4 || at + 2 > sizeof d->config ||
        len > sizeof d->config - at - 2)
        return vmm_err(d->desc.log, -ENOSPC, "%s: no room for capability 0x%x", pci__name(d), id);
    for (unsigned i = at; i < at + 2 + len; i++)
        if (d->in_cap[i / 8] & 1 << i % 8)
            return vmm_err(d->desc.log, -EEXIST, "%s: capability 0x%x overlaps another",
                           pci__name(d), id);
    for (unsigned i = at; i < at + 2 + len; i++)
        d->in_cap[i / 8] |= (uint8_t)(1 << i % 8);
    d->config[d->last_cap ? d->last_cap + 1u : PCI__CAPS] = (uint8_t)at;
    d->config[PCI__STATUS] |= PCI__STATUS_CAPS;
    d->config[at] = id;
    memcpy(d->config + at + 2, body, len);
    if (writable)
        memcpy(d->writable + at + 2, writable, len);
    d->last_cap = (uint8_t)at;
    if (d->caps_end < at + 2 + len)
        d->caps_end = (at + 2 + len + 3) & ~3u;
    return (int)at;
}

VMM_DEF int pci_add_cap(struct pci_dev *d, uint8_t id, const void *body, unsigned len,
                        const void *writable)
{
    return pci_put_cap(d, d->caps_end, id, body, len, writable);
}

/* >>isa: "82371FB (PIIX) and 82371SB (PIIX3)", 2.2.4: PIRQRC[A:D] */
enum { PCI__PIRQ = 0x60, PCI__PIRQ_OFF = 0x80, PCI__PIRQ_BITS = 0x8f };

/* PIRQA# is INTA# of slot 1, by custom. */
static unsigned pci__isa_shift(unsigned line)
{
    return 8 * ((line + 3) % 4);
}

static unsigned pci__isa_route(const struct pci_isa *isa, unsigned line)
{
    uint32_t routes = __atomic_load_n(&isa->routes, __ATOMIC_SEQ_CST);

    return routes >> pci__isa_shift(line) & PCI__PIRQ_BITS;
}

static bool pci__isa_pulled(const struct pci_isa *isa, unsigned irq)
{
    uint32_t asserted = __atomic_load_n(&isa->asserted, __ATOMIC_SEQ_CST);

    for (unsigned i = 0; i < 4; i++)
        if ((asserted >> i & 1) && pci__isa_route(isa, i) == irq)
            return true;
    return false;
}

/* As pci__line_pull: the last one to set it looks again. */
static void pci__isa_drive(struct pci_isa *isa, unsigned route)
{
    struct vmm_irq irq = isa->desc.irq;
    bool any;

    if (route < 3 || route == 8 || route == 13 || (route & PCI__PIRQ_OFF)) /* off or reserved */
        return;
    irq.line = route;
    do {
        any = pci__isa_pulled(isa, route);
        vmm_irq_set(&irq, any);
    } while (any != pci__isa_pulled(isa, route));
}

VMM_DEF void pci_isa_intx(void *ctx, unsigned line, bool level)
{
    struct pci_isa *isa = (struct pci_isa *)ctx;

    if (level)
        __atomic_or_fetch(&isa->asserted, 1u << line, __ATOMIC_SEQ_CST);
    else
        __atomic_and_fetch(&isa->asserted, ~(1u << line), __ATOMIC_SEQ_CST);
    vmm_irq_set(&isa->desc.intx[line], level);
    pci__isa_drive(isa, pci__isa_route(isa, line));
}

static void pci__isa_changed(struct pci_isa *isa)
{
    uint32_t was, now = vmm_get32(isa->dev.config + PCI__PIRQ);

    was = __atomic_exchange_n(&isa->routes, now, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < 4 && was != now; i++) {
        pci__isa_drive(isa, was >> 8 * i & PCI__PIRQ_BITS);
        pci__isa_drive(isa, now >> 8 * i & PCI__PIRQ_BITS);
    }
}

static bool pci__isa_write(void *ctx, unsigned off, unsigned len, uint32_t val)
{
    struct pci_isa *isa = (struct pci_isa *)ctx;

    if (off < PCI__PIRQ || off >= PCI__PIRQ + 4)
        return false;
    for (unsigned i = 0; i < len; i++)
        isa->dev.config[off + i] = (uint8_t)(val >> 8 * i) & PCI__PIRQ_BITS;
    pci__isa_changed(isa);
    return true;
}

static void pci__isa_reset(void *ctx)
{
    pci__isa_changed((struct pci_isa *)ctx);
}

VMM_DEF int pci_isa_init(struct pci_isa *isa, const struct pci_isa_desc *desc)
{
    struct pci_desc is = {.name = "ISA bridge",
                          .slot = 1,
                          .vendor = 0x8086,
                          .device = 0x7000,
                          .class_code = 0x060100,
                          .lock = desc->lock,
                          .reset = pci__isa_reset,
                          .config_write = pci__isa_write,
                          .ctx = isa};

    isa->desc = *desc;
    isa->asserted = isa->routes = 0;
    for (unsigned i = 0; i < 4; i++) {
        uint32_t route = desc->route[i] ? desc->route[i] : (uint32_t)PCI__PIRQ_OFF;
        isa->routes |= route << pci__isa_shift(i);
    }
    if (pci_init(&isa->dev, &is))
        return -EINVAL;
    vmm_put32(isa->dev.config + PCI__PIRQ, isa->routes);
    return 0;
}

VMM_DEF int pci_ide_init(struct pci_dev *d, const struct vmm_lock *lock)
{
    enum { IDETIM = 0x40 }; /* timing, and whether the channels are on: read by drivers alone */
    struct pci_desc is = {.name = "IDE controller",
                          .vendor = 0x8086,
                          .device = 0x7010,
                          .class_code = 0x010100, /* both channels at their old places */
                          .lock = *lock};
    int err = pci_init(d, &is);

    vmm_put32(d->writable + IDETIM, 0xffffffff);
    return err;
}

/* >>root */

/* Space of its size, and no page shared with another; PCI_NOWHERE: there is none left. */
static uint64_t pci__window_take(struct pci_window *w, uint64_t len)
{
    uint64_t align = len < 4096 ? 4096 : len;
    uint64_t skip = -(w->base + w->used) & (align - 1);

    if (!w->len || skip > w->len - w->used || align > w->len - w->used - skip)
        return PCI_NOWHERE;
    w->used += skip + align;
    return w->base + w->used - align;
}

static int pci__place_bar(struct pci_root *r, struct pci_dev *d, unsigned bar)
{
    const struct pci_bar *b = &d->desc.bar[bar];
    uint8_t *at = d->config + pci__bar_reg(bar);
    uint64_t gpa = b->is64 ? pci__window_take(&r->window[1], b->len) : PCI_NOWHERE;

    if (gpa == PCI_NOWHERE)
        gpa = pci__window_take(&r->window[0], b->len);
    if (gpa == PCI_NOWHERE)
        return vmm_err(r->desc.log, -ENOSPC, "%s: no address is left for BAR %u of %llu bytes",
                       pci__name(d), bar, (unsigned long long)b->len);
    vmm_put32(at, vmm_get32(at) | (uint32_t)gpa);
    if (b->is64)
        vmm_put32(at + 4, (uint32_t)(gpa >> 32));
    return 0;
}

VMM_DEF int pci_plug(struct pci_root *r, struct pci_dev *d)
{
    unsigned slot = d->desc.slot ? d->desc.slot : 1;
    int err = 0;

    while (!d->desc.slot && slot < PCI_SLOTS && r->slot[slot])
        slot++;
    if (slot >= PCI_SLOTS)
        return vmm_err(r->desc.log, -ENOSPC, "%s: the PCI bus is full: take fewer devices",
                       pci__name(d));
    if (r->slot[slot])
        return vmm_err(r->desc.log, -EEXIST, "%s: PCI slot %u is taken by %s", pci__name(d), slot,
                       pci__name(r->slot[slot]));
    for (unsigned i = 0; i < PCI_BARS && !err; i++)
        err = d->desc.bar[i].len ? pci__place_bar(r, d, i) : 0;
    if (err)
        return err;
    if (d->desc.intx)
        d->config[PCI__LINE] = r->desc.line[slot % 4];
    memcpy(d->power_on, d->config, sizeof d->config);
    d->slot = slot;
    d->root = r;
    r->slot[slot] = d;
    return 0;
}

VMM_DEF void pci_root_init(struct pci_root *r, const struct pci_root_desc *desc)
{
    struct pci_desc bridge = {.name = "host bridge", .class_code = 0x060000};

    memset(r, 0, sizeof *r);
    r->desc = *desc;
    bridge.vendor = desc->vendor || desc->device ? desc->vendor : 0x1234; /* nobody's, by custom */
    bridge.device = desc->vendor || desc->device ? desc->device : 0x0b1d;
    pci_init(&r->bridge, &bridge);
    memcpy(r->bridge.power_on, r->bridge.config, sizeof r->bridge.config);
    for (unsigned i = 0; i < PCI__PAM_LEN && bridge.vendor == 0x8086 && bridge.device == 0x1237; i++)
        r->bridge.writable[PCI__PAM + i] = 0x33; /* readable, writable; for two areas each */
    r->bridge.root = r;
    r->slot[0] = &r->bridge;
    r->window[0] = (struct pci_window){desc->mmio32.base, desc->mmio32.len, r, 0};
    r->window[1] = (struct pci_window){desc->mmio64.base, desc->mmio64.len, r, 0};
}

VMM_DEF int pci_root_add_io(struct pci_root *r, struct vmm_bus *mmio, struct vmm_bus *ports)
{
    struct vmm_io port = {0xcf8, 8, pci_port_read, pci_port_write, r, {0}};
    struct vmm_io ecam = {r->desc.ecam, PCI_ECAM_LEN, pci_ecam_read, pci_ecam_write, r, {0}};
    int err = ports ? vmm_bus_add(ports, &port) : 0;

    if (!err && mmio && r->desc.ecam)
        err = vmm_bus_add(mmio, &ecam);
    for (unsigned i = 0; i < 2 && mmio && !err; i++) {
        struct pci_window *w = &r->window[i];
        struct vmm_io io = {w->base, w->len, pci_window_read, pci_window_write, w, {0}};
        err = w->len ? vmm_bus_add(mmio, &io) : 0;
    }
    return err;
}

static void pci__reset_dev(struct pci_dev *d)
{
    bool msix_was_live = pci__msix_live(d);

    memcpy(d->config, d->power_on, sizeof d->config);
    d->msi_pending = 0;
    pci__reset_vectors(d);
    pci__config_changed(d, msix_was_live);
    if (d->desc.reset)
        d->desc.reset(d->desc.ctx);
}

VMM_DEF void pci_reset(struct pci_root *r)
{
    vmm_enter(&r->desc.lock);
    r->address = 0;
    for (unsigned i = 0; i < PCI_SLOTS; i++)
        if (r->slot[i]) {
            vmm_enter(&r->slot[i]->desc.lock);
            pci__reset_dev(r->slot[i]);
            vmm_leave(&r->slot[i]->desc.lock);
        }
    vmm_leave(&r->desc.lock);
}

#endif /* PCI__IMPLEMENTED */
#endif /* DEV_PCI_IMPLEMENTATION */
