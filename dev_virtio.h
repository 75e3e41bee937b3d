/* dev_virtio.h - virtio 1.2 devices for a VMM                     MIT licence, see LICENSE

   WHAT IT IS      A virtio core that knows no transport (split and packed rings, INDIRECT_DESC,
                   EVENT_IDX, VERSION_1, RING_RESET), the transports virtio-mmio (version 2) and
                   virtio-pci (modern), and the devices console, blk, net and rng. It never opens,
                   waits or allocates. It follows "Virtual I/O Device (VIRTIO) Version 1.2", whose
                   sections the comments name. Both kinds of rings are offered: counted in
                   instructions they cost the same; between two processors a chain cost 28 ns packed
                   and 50 ns split (8 under way), for they pass fewer cache lines to and fro. Not
                   here: legacy (pre-1.0) devices and drivers; and NOTIFICATION_DATA, which would put
                   the driver's position into the written value, where a doorbell that the kernel
                   catches drops it.

   QUICK START     static uint8_t ram[1 << 16];
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

   CONFIGURATION   set everywhere, before the first include (VMM_DEF: see vmm.h):
                   VIO_QUEUE_MAX      entries of a queue whose device does not ask for another
                                      number, a power of two up to 32768; default 256
                   VIO_CHAIN_MAX      buffers of the longest chain; default 256. Not tied to the
                                      size of a queue: drivers make chains as long as a device
                                      tells them (seg_max of disks) or of less than 20 buffers
                                      (network, console), and struct vio_chain lives on stacks
                   VIO_CONSOLE_PORTS_MAX  ports of a console; default 31
                   VIO_BLK_SEGS_MAX   data buffers of one disk request; default 126
                   VIO_BLK_INFLIGHT   requests under way at a time, per disk; default 64
                   VIO_BLK_QUEUES_MAX queues of one disk; default 16
                   VIO_NET_PAIRS_MAX  pairs of queues of one network card; default 8
                   set in the implementing file only:
                   VIO_RNG_MAX        random bytes for one request; default 65536
                   VIO_NET_BURST      frames for the guest until others have their turn; default 64

   DEPENDS ON      vmm.h; dev_pci.h for virtio-pci: include that first, or do without.

   THREADS         A device and its transport are one single-threaded state machine: hold one lock
                   around every call that concerns it (vmm_io.lock does so for registers).
                   Call-backs come with that lock held and must not block. Only guest memory is
                   shared without a lock: the core orders its accesses as the specification asks.
   MEMORY          The caller owns every struct and leaves it where it is; descs are copied. Ranges
                   of guest memory stay mapped, with gpa and hva equal modulo 16.
   ERRORS          Inits return 0 or -errno. After that nothing can fail towards the host.
   GUEST TRUST     Rings, chains and register writes count as lies until checked: walking a chain is
                   bounded by VIO_CHAIN_MAX and the queue's size, a run of a queue by twice that
                   size. A liar gets DEVICE_NEEDS_RESET, a configuration interrupt, a line in the
                   log (within vmm_budget) and silence until it resets. What the specification
                   leaves undefined reads as zero and ignores writes. */
#ifndef DEV_VIRTIO_H
#define DEV_VIRTIO_H

#include "vmm.h"

#ifndef VIO_QUEUE_MAX
#define VIO_QUEUE_MAX 256
#endif
#ifndef VIO_CHAIN_MAX
#define VIO_CHAIN_MAX 256
#endif
#ifndef VIO_CONSOLE_PORTS_MAX
#define VIO_CONSOLE_PORTS_MAX 31
#endif
#define VIO_CONSOLE_NAME_MAX 63
#ifndef VIO_BLK_SEGS_MAX
#define VIO_BLK_SEGS_MAX 126 /* with header and status, 128 descriptors */
#endif
#ifndef VIO_BLK_INFLIGHT
#define VIO_BLK_INFLIGHT 64
#endif
#ifndef VIO_BLK_QUEUES_MAX
#define VIO_BLK_QUEUES_MAX 16
#endif

#ifndef VIO_NET_PAIRS_MAX
#define VIO_NET_PAIRS_MAX 8
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* A piece of host memory; same layout as POSIX struct iovec. */
struct vio_iov {
    void *base;
    size_t len;
};

struct vio_dev;

/* For writers of devices: what a kind of device is. Constant, never written. */
struct vio_class {
    uint32_t id;      /* device ID, section 5 */
    const char *name; /* for the log: "rng" */
    /* Serve what queue q offers. */
    void (*queue)(struct vio_dev *d, unsigned q);
    /* The driver is set up (DRIVER_OK): accepted is final. Before any start. NULL: ignored. */
    void (*ready)(struct vio_dev *d);
    /* Queue q came into service, with DRIVER_OK or, after a reset of this queue alone, later. NULL:
       ignored. */
    void (*start)(struct vio_dev *d, unsigned q);
    /* Queue q was stopped or reset: forget what was begun on it. NULL: nothing is. */
    void (*stop)(struct vio_dev *d, unsigned q);
    /* The device was reset, after each queue's stop. NULL: nothing to forget. */
    void (*reset)(struct vio_dev *d);
    /* The driver writes configuration, within config_len. NULL: ignored. */
    void (*config_write)(struct vio_dev *d, size_t off, size_t len, const void *val);
};

/* One queue. Private, except that a device provides the storage and may set max in its init. A
   position in a split ring is an index that counts on; in a packed one an entry, and in bit 15 the
   wrap counter. */
struct vio_queue {
    uint32_t max; /* entries that a driver may ask for, up to 32768; 0: VIO_QUEUE_MAX */
    uint64_t desc_gpa, driver_gpa, device_gpa; /* as the driver set them */
    uint8_t *desc, *driver, *device;           /* the three areas, once ready */
    uint32_t size;                             /* entries */
    uint32_t fresh;      /* chains (packed: entries) given back since the last interrupt */
    uint16_t next, used; /* positions: of the next chain to take, to give back */
    uint16_t seen;       /* split: the avail index as last looked at */
    uint16_t end;        /* position where the last look found nothing to take */
    uint16_t peeked;     /* packed: entries of the chain that vio_peek saw last */
    uint16_t left;       /* chains that may still be taken in this run */
    uint16_t out;        /* chains that the device has */
    uint16_t stale;      /* those of a former life: no new life before 0 */
    bool ready, packed, running;
    bool dry;   /* there was such a look in this run: the driver is to ring */
    bool spent; /* it was not the queue that was empty, but the run's share of it */
    bool away;  /* set in class->start: somebody else serves the rings, till class->stop */
};

/* One device: the first member of every device's struct. */
struct vio_dev {
    /* filled by the device's init, the rest zero */
    const struct vio_class *cls;
    struct vio_queue *queues;
    unsigned nqueues;
    uint64_t features;     /* offered on top of what the core offers */
    uint64_t features_off; /* bits of VIO_F_CORE that are not to be offered */
    const void *config;    /* device-specific configuration, little-endian */
    size_t config_len;
    /* filled by the transport's init */
    const struct vmm_mem *mem;
    const struct vmm_log *log;
    void (*interrupt)(void *transport, unsigned q); /* q: a queue, or VIO_CONFIG */
    void *transport;
    /* private to the core */
    uint64_t accepted; /* the driver's choice of features */
    uint32_t generation;
    uint8_t status, former; /* former: status before the last reset */
    struct vmm_budget budget;
};
#define VIO_CONFIG (~0u) /* instead of a queue: the configuration changed */

/* feature bits of the core, section 6 */
#define VIO_F_INDIRECT    (1ULL << 28)
#define VIO_F_EVENT_IDX   (1ULL << 29)
#define VIO_F_VERSION_1   (1ULL << 32)
#define VIO_F_RING_PACKED (1ULL << 34)
#define VIO_F_RING_RESET  (1ULL << 40)
#define VIO_F_CORE                                                                                 \
    (VIO_F_INDIRECT | VIO_F_EVENT_IDX | VIO_F_VERSION_1 | VIO_F_RING_PACKED | VIO_F_RING_RESET)

/* A chain of buffers that the driver offered: nread that it filled, then nwrite to be filled. */
struct vio_chain {
    unsigned nread, nwrite;
    uint64_t rlen, wlen; /* bytes in each part; together at most 4 GiB */
    uint32_t head;       /* its name, for vio_used */
    struct vio_iov iov[VIO_CHAIN_MAX];
};

/* A chain to give back: its name and how many bytes were written to its writable part. */
struct vio_done {
    uint32_t head, len;
};

/* The guest rang (or may have): serve queue q until it is empty, at most twice as many chains as it
   has entries. While this runs the guest need not ring; what it adds later does. A device that
   stops before the queue is empty comes back itself. Harmless at any time, in any state. */
VMM_DEF void vio_queue_run(struct vio_dev *d, unsigned q);

/* For writers of devices. Within class->queue: take chains, give each back with vio_used. Outside
   of it (input arrived, a request is done) bracket the same with vio_begin and vio_end. */
/* False: the queue is not in service. */
VMM_DEF bool vio_begin(struct vio_dev *d, unsigned q);
/* The next chain; false: no more in this run. vio_peek leaves it where it is, vio_take takes it
   off, vio_pop does both. A chain taken must be given back, even after a reset. */
VMM_DEF bool vio_peek(struct vio_dev *d, unsigned q, struct vio_chain *c);
VMM_DEF void vio_take(struct vio_dev *d, unsigned q);
VMM_DEF bool vio_pop(struct vio_dev *d, unsigned q, struct vio_chain *c);
/* Undoes the last vio_take, of this chain: it is the next one again. For who takes several chains
   before it knows how many it needs; those go back one by one, the latest first. */
VMM_DEF void vio_unpop(struct vio_dev *d, unsigned q, uint32_t head);
/* Gives a chain back, with `len` bytes written to its writable part. */
VMM_DEF void vio_used(struct vio_dev *d, unsigned q, uint32_t head, uint32_t len);
/* Gives several back at once: the driver sees all of them or none. */
VMM_DEF void vio_used_all(struct vio_dev *d, unsigned q, const struct vio_done *done, unsigned n);
/* Interrupts the driver if chains were given back and it wants to know. Where no chain was left to
   take, the driver is to ring; class->queue follows at once if it has been faster. */
VMM_DEF void vio_end(struct vio_dev *d, unsigned q);
/* True: chains taken from queue q still count; else leave the driver's memory alone. */
VMM_DEF bool vio_live(const struct vio_dev *d, unsigned q);
/* Where the rings of a queue in service lie: for who serves them in the core's place. */
struct vio_rings {
    uint32_t size;
    void *desc, *driver, *device;
};
VMM_DEF struct vio_rings vio_queue_rings(const struct vio_dev *d, unsigned q);
/* Copies from the readable, to the writable part, at byte `off` of that part; returns bytes. */
VMM_DEF size_t vio_chain_read(const struct vio_chain *c, uint64_t off, void *buf, size_t len);
VMM_DEF size_t vio_chain_write(const struct vio_chain *c, uint64_t off, const void *buf,
                               size_t len);
/* The driver broke the rules on queue q (what: a clause for the log): stops until a reset. */
VMM_DEF void vio_needs_reset(struct vio_dev *d, unsigned q, const char *what);
/* The bytes at config have changed: tells the driver. */
VMM_DEF void vio_config_changed(struct vio_dev *d);

/* virtio-mmio (section 4.2). Register it as struct vmm_io of VIO_MMIO_LEN bytes. */
#define VIO_MMIO_LEN    0x1000
#define VIO_MMIO_NOTIFY 0x50 /* doorbell: 4 bytes here, value = queue index; dev->nqueues of them */

struct vio_mmio_desc {
    struct vio_dev *dev;
    const struct vmm_mem *mem;
    struct vmm_irq irq; /* edge-triggered: set(true) is one interrupt; set(false) is never called */
    /* A QueueNotify write came as a plain register write (no doorbell caught it): see to it that
       vio_queue_run is called soon. NULL: it is served at once, in the caller. */
    void (*kick)(void *ctx, unsigned q);
    void *ctx;
    const struct vmm_log *log; /* NULL: silent */
};

struct vio_mmio {
    struct vio_mmio_desc desc;
    uint32_t features_sel, accepted_sel, queue_sel;
    uint32_t isr; /* InterruptStatus */
};

VMM_DEF void vio_mmio_init(struct vio_mmio *t, const struct vio_mmio_desc *desc);
VMM_DEF uint64_t vio_mmio_read(void *t, uint64_t off, unsigned len);
VMM_DEF void vio_mmio_write(void *t, uint64_t off, unsigned len, uint64_t val);

#ifdef DEV_PCI_H
/* virtio-pci (section 4.1), modern only: there if dev_pci.h was included before this header. */
#define VIO_PCI_QUEUES_MAX 64
#define VIO_PCI_BAR        0 /* where all registers are; 32 bits wide */
#define VIO_PCI_LEN        0x8000
/* Doorbell of queue q: 2 bytes at this offset in the BAR, any value; dev->nqueues of them. */
#define VIO_PCI_NOTIFY(q) (0x4000 + 4 * (q))

/* Call-backs may be NULL; see pci_desc for the locks that they come with. */
struct vio_pci_desc {
    struct vio_dev *dev;
    const struct vmm_mem *mem;
    unsigned slot;        /* device number, 1 to 31; 0: the lowest that is free */
    struct vmm_msi msi;   /* vector 0: configuration, 1 + q: queue q, unless the driver shares */
    struct vmm_lock lock; /* the device's */
    void (*kick)(void *ctx, unsigned q); /* as in vio_mmio_desc */
    /* The BAR is now at gpa, or PCI_NOWHERE: the doorbells move along. */
    void (*moved)(void *ctx, uint64_t gpa);
    /* The message of queue q, or of VIO_CONFIG, may have changed: ask vio_pci_message. For who has
       the kernel interrupt without asking this device. */
    void (*routed)(void *ctx, unsigned q);
    void *ctx;
    const struct vmm_log *log; /* NULL: silent */
};

struct vio_pci {
    struct pci_dev pci;
    struct vio_pci_desc desc;
    struct pci_vector vectors[1 + VIO_PCI_QUEUES_MAX];
    uint16_t queue_vector[VIO_PCI_QUEUES_MAX], config_vector;
    uint32_t features_sel, accepted_sel;
    uint16_t queue_sel;
    uint8_t isr;
    unsigned cfg_cap; /* of the window in configuration space, its offset there */
};

/* Between this and the driver stands pci_plug(root, &t->pci). -E2BIG: more than VIO_PCI_QUEUES_MAX
   queues. */
VMM_DEF int vio_pci_init(struct vio_pci *t, const struct vio_pci_desc *desc);
/* True: queue q, or VIO_CONFIG, interrupts with this message. False: masked, or not by MSI-X. */
VMM_DEF bool vio_pci_message(const struct vio_pci *t, unsigned q, uint64_t *addr, uint32_t *data);
#endif

/* Console (section 5.3). Alone it is the guest's terminal, which works as soon as its driver probes.
   With ports (MULTIPORT) it is a bundle of channels that the guest finds by name; a port that is a
   console appears later, once control messages went to and fro. */
struct vio_console_port {
    struct vmm_stream out; /* what the guest writes there; write NULL: it is lost */
    const char *name;      /* at most VIO_CONSOLE_NAME_MAX bytes, kept by reference; NULL: none */
    bool console;          /* a terminal like /dev/hvc0; else a channel, /dev/vport0p1 in Linux */
    bool closed;           /* nobody is there on the host's side yet: see vio_console_open */
};

struct vio_console_desc {
    struct vmm_stream out; /* without ports: the terminal's; write NULL: output is lost */
    uint16_t cols, rows;   /* of the terminal, or of port 0; 0: not known */
    const struct vio_console_port *ports; /* copied */
    unsigned nports;                      /* 0: the device is one terminal */
};

struct vio_console {
    struct vio_dev dev;
    struct vio_queue queue[2 + 2 * VIO_CONSOLE_PORTS_MAX];
    uint8_t config[12];
    unsigned nports;
    struct vio_console_state {
        struct vio_console_port desc;
        uint64_t tx_done; /* bytes of the first chain from the guest that are out already */
        uint16_t cols, rows;
        uint8_t todo;      /* messages that wait for a buffer of the driver's */
        bool ready, wants; /* the driver has the port; somebody in the guest opened it */
    } port[VIO_CONSOLE_PORTS_MAX];
};

/* -EINVAL: more than VIO_CONSOLE_PORTS_MAX ports, or a name that is too long. */
VMM_DEF int vio_console_init(struct vio_console *c, const struct vio_console_desc *desc);
/* `port` counts from 0, below the desc's nports; without ports it is 0. */
/* Input for the guest; returns how many bytes it had room for: none while nobody there has the port
   open. Fewer: wait for out.rx_room. */
VMM_DEF size_t vio_console_rx(struct vio_console *c, unsigned port, const void *buf, size_t len);
/* out.write took less than it was given and would take more now. */
VMM_DEF void vio_console_tx_ready(struct vio_console *c, unsigned port);
/* Somebody came to, or left, the host's side of a port: tells the guest, whose writers wait and
   whose readers see an end while nobody is there. */
VMM_DEF void vio_console_open(struct vio_console *c, unsigned port, bool open);
/* The terminal has another size. Of port 0 the configuration tells it; of any port that is a console
   a message does, with columns first as the specification has it (Linux reads rows first, but for a
   few versions: a terminal that is to be resized should be a device of its own). */
VMM_DEF void vio_console_resize(struct vio_console *c, unsigned port, uint16_t cols, uint16_t rows);

/* Disk (section 5.2): its queues share a pool of requests, and take turns when it is small. */
enum vio_blk_op {
    VIO_BLK_READ,
    VIO_BLK_WRITE,
    VIO_BLK_FLUSH,
    VIO_BLK_DISCARD, /* the contents no longer matter: a hint */
    VIO_BLK_ZERO     /* reads as zeroes from now on */
};
#define VIO_BLK_SERIAL_MAX 20
#define VIO_BLK_RANGES_MAX 16 /* of one DISCARD or ZERO of the driver's; each is a request to us */

struct vio_blk_range {
    uint64_t sector;
    uint32_t sectors, flags;
};

struct vio_blk_req {
    enum vio_blk_op op;
    bool durable; /* not READ, FLUSH: done must mean on stable storage, for there is no FLUSH */
    bool unmap;   /* ZERO: the space may be given back */
    uint64_t off; /* bytes into the disk; [off, off + len) is within it, both whole sectors */
    uint64_t len; /* bytes, for READ and WRITE the sum over iov; 0 only for FLUSH */
    unsigned niov;
    struct vio_iov iov[VIO_BLK_SEGS_MAX]; /* guest memory: READ fills it, WRITE takes from it */
    /* private */
    struct vio_blk_req *next_free;
    uint8_t *status;
    uint32_t head, used;
    uint16_t queue;
    uint8_t nranges, range_next;
    struct vio_blk_range range[VIO_BLK_RANGES_MAX];
};

struct vio_blk_desc {
    uint64_t capacity; /* bytes, whole sectors of 512 */
    bool read_only;
    const char *serial; /* at most VIO_BLK_SERIAL_MAX bytes; NULL: none */
    unsigned queues;    /* up to VIO_BLK_QUEUES_MAX; 0: 1 */
    /* Hints for the driver, in bytes, powers of two: */
    uint32_t block;    /* smallest unit of a request that the disk is addressed in; 0: 512 */
    uint32_t physical; /* unit that is written without reading first; 0: 4096 */
    uint32_t optimal;  /* best size of a transfer; 0: not told */
    /* Required. Starts a request and returns; whoever carries it out does so without the device's
       lock, and then calls vio_blk_done. */
    void (*submit)(void *ctx, struct vio_blk_req *req);
    /* Asked before a request is taken: true leaves it and all others in the rings until
       vio_blk_resume. NULL: never. */
    bool (*hold)(void *ctx);
    void *ctx;
};

struct vio_blk {
    struct vio_dev dev;
    struct vio_queue queue[VIO_BLK_QUEUES_MAX];
    struct vio_blk_desc desc;
    uint8_t config[64]; /* struct vio__blk_config */
    char serial[VIO_BLK_SERIAL_MAX];
    bool held;     /* by desc.hold */
    bool starved;  /* requests may be waiting for the pool */
    unsigned turn; /* the queue that is first when the pool has room again */
    struct vio_blk_req *free;
    unsigned nfresh; /* requests that were never used: those from here on; saves memory */
    struct vio_blk_req req[VIO_BLK_INFLIGHT];
};

/* -EINVAL: capacity not in whole sectors, serial too long, too many queues, hints that are no powers
   of two in order, or no submit. */
VMM_DEF int vio_blk_init(struct vio_blk *b, const struct vio_blk_desc *desc);
/* A request is done: err is 0 or -errno. May be called from within submit. Every request must come
   back, those of a driver that has reset the device meanwhile too: until then it reads a non-zero
   status. */
VMM_DEF void vio_blk_done(struct vio_blk *b, struct vio_blk_req *req, int err);
/* desc.hold would say no now. */
VMM_DEF void vio_blk_resume(struct vio_blk *b);
/* The disk has become larger or smaller, in bytes, of which whole sectors count: tells the driver.
   Requests beyond the end are refused from now on. */
VMM_DEF void vio_blk_set_capacity(struct vio_blk *b, uint64_t capacity);

/* Network card (section 5.1): for pair i, queue 2i to the guest and 2i + 1 from it; then a control
   queue. A frame is its Ethernet bytes behind a header of VIO_NET_HDR_LEN bytes (struct
   virtio_net_hdr_v1, which is also what a Linux tap takes and gives). */
#define VIO_NET_F_MRG_RXBUF (1ULL << 15)
#define VIO_NET_HDR_LEN     12
#define VIO_NET_FRAME_MAX   (VIO_NET_HDR_LEN + 65597) /* 65589 (5.1.6.3) and two VLAN tags */
#define VIO_NET_MACS_MAX    16                        /* addresses in the receive filter */

/* What a frame of more than one Ethernet packet may need, and a checksum still to be filled in. */
enum vio_net_offload {
    VIO_NET_CSUM = 1,
    VIO_NET_TSO4 = 2, /* TCP over IPv4, ... */
    VIO_NET_TSO6 = 4,
    VIO_NET_ECN = 8,   /* such TCP with congestion notification */
    VIO_NET_USO4 = 16, /* UDP over IPv4, ... */
    VIO_NET_USO6 = 32
};

/* The other end of the cable. iov is guest memory, valid during the call. */
struct vio_net_port {
    /* Sends one frame. -EAGAIN: no room; the frame waits in its queue until vio_net_ready. With any
       other result it is gone. */
    int (*send)(void *ctx, unsigned pair, const struct vio_iov *iov, unsigned n);
    /* Fills in the next frame of this pair; returns its bytes, at most VIO_NET_FRAME_MAX, for which
       iov has room. 0 or negative: none now. */
    int (*recv)(void *ctx, unsigned pair, const struct vio_iov *iov, unsigned n);
    /* The guest takes frames with these offloads (enum vio_net_offload). NULL: none are offered. */
    void (*set_offload)(void *ctx, unsigned offload);
    /* Frames for the guest are spread over pairs 0 .. n-1. NULL: there is one. */
    void (*set_pairs)(void *ctx, unsigned n);
    /* Queue q, no control queue, comes into service. True: the port serves its rings itself from
       now on (vhost), till stop, which returns when it has let go of them. Both may be NULL. */
    bool (*start)(void *ctx, unsigned q);
    void (*stop)(void *ctx, unsigned q);
    void *ctx;
};

struct vio_net_desc {
    struct vio_net_port port; /* send and recv are required */
    bool bare;                /* the port's frames have no header; then no offloads */
    unsigned offload;         /* what the port can do, both ways */
    unsigned pairs;           /* up to VIO_NET_PAIRS_MAX; 0: 1 */
    uint8_t mac[6];
    uint16_t mtu;          /* 68 and up; 0: the guest is not told */
    uint64_t features_off; /* of VIO_F_CORE and the card's own: what the port could not serve */
    bool link_down;        /* at first */
};

struct vio_net_pair {
    uint32_t want; /* bytes that the next frame is expected to have */
    uint32_t held; /* bytes of the frame in spill that waits for the guest's buffers; 0: none */
    bool starved;  /* the guest has too few buffers */
    bool blocked;  /* the port had no room */
    uint8_t spill[VIO_NET_FRAME_MAX];
};

struct vio_net {
    struct vio_dev dev;
    struct vio_queue queue[2 * VIO_NET_PAIRS_MAX + 1];
    struct vio_net_desc desc;
    uint8_t config[12]; /* struct vio__net_config */
    unsigned npairs;    /* in use */
    uint64_t away;      /* queues that the port serves, one bit each */
    /* the receive filter */
    bool promisc, allmulti, unfiltered; /* unfiltered: more addresses than fit */
    unsigned nmacs;
    uint8_t mac[VIO_NET_MACS_MAX][6];
    struct vio_net_pair pair[VIO_NET_PAIRS_MAX];
};

/* -EINVAL: send or recv missing, too many pairs, an MTU below 68, or a multicast address. */
VMM_DEF int vio_net_init(struct vio_net *n, const struct vio_net_desc *desc);
/* The port has frames of this pair, or room for some again. Bounded: call again as long as it has.
 */
VMM_DEF void vio_net_ready(struct vio_net *n, unsigned pair);
/* What the card waits for, for this pair: watch the port for nothing else. */
enum { VIO_NET_RX = 1, VIO_NET_TX = 2 };
VMM_DEF unsigned vio_net_waits(const struct vio_net *n, unsigned pair);
/* The cable is in or out; while it is out, what the guest sends is lost. */
VMM_DEF void vio_net_set_link(struct vio_net *n, bool up);
/* The port gives a queue back that it had taken in start: the card serves it from now on. */
VMM_DEF void vio_net_take_back(struct vio_net *n, unsigned q);
/* Asks the guest to make itself known to the network, when that has forgotten it. */
VMM_DEF void vio_net_announce(struct vio_net *n);

/* Entropy source (section 5.4): queue 0. */
struct vio_rng_desc {
    size_t (*fill)(void *ctx, void *buf, size_t len); /* never blocks; returns bytes; required */
    /* Nanoseconds until the next request may be served; 0: now. After any other answer it waits for
       the host to call vio_queue_run(&rng.dev, 0). NULL: no limit. */
    uint64_t (*wait)(void *ctx);
    void *ctx;
};

struct vio_rng {
    struct vio_dev dev;
    struct vio_queue queue[1];
    struct vio_rng_desc desc;
};

/* -EINVAL: no fill. */
VMM_DEF int vio_rng_init(struct vio_rng *r, const struct vio_rng_desc *desc);

#ifdef __cplusplus
}
#endif
#endif /* DEV_VIRTIO_H */

#if defined(VMM_IMPLEMENTATION) || defined(DEV_VIRTIO_IMPLEMENTATION)
#ifndef VIO__IMPLEMENTED
#define VIO__IMPLEMENTED

#ifndef VIO_RNG_MAX
#define VIO_RNG_MAX 65536
#endif
#ifndef VIO_NET_BURST
#define VIO_NET_BURST 64
#endif

/* >>wire: what lies in guest memory and what the bits mean; little-endian, as every host of vmm. */

/* device status, 2.1 */
#define VIO__DRIVER_OK   0x04
#define VIO__FEATURES_OK 0x08
#define VIO__NEEDS_RESET 0x40
#define VIO__BY_DRIVER   0x8f /* the bits that a driver may set */

/* descriptor flags, 2.7.5 and 2.8.1 */
#define VIO__DESC_NEXT     1
#define VIO__DESC_WRITE    2
#define VIO__DESC_INDIRECT 4
#define VIO__DESC_AVAIL    0x0080
#define VIO__DESC_USED     0x8000

struct vio__desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct vio__avail {
    uint16_t flags, idx;
    uint16_t ring[]; /* size entries, then used_event */
};

struct vio__used_elem {
    uint32_t id, len;
};

struct vio__used {
    uint16_t flags, idx;
    struct vio__used_elem ring[]; /* size entries, then a 16-bit avail_event */
};

/* packed rings, 2.8.13 */
struct vio__pdesc {
    uint64_t addr;
    uint32_t len;
    uint16_t id, flags;
};

/* what the driver, or the device, wants to hear of, 2.8.14 */
struct vio__event {
    uint16_t pos, flags;
};
enum { VIO__EVENT_ALL, VIO__EVENT_NONE, VIO__EVENT_POS };

struct vio__console_config {
    uint16_t cols, rows;
    uint32_t max_nr_ports, emerg_wr;
};

struct vio__console_ctrl {
    uint32_t port;
    uint16_t event, value;
};

struct vio__blk_hdr {
    uint32_t type, reserved;
    uint64_t sector;
};

struct vio__blk_config {
    uint64_t capacity;          /* sectors, as in all that follows */
    uint32_t size_max, seg_max; /* no size_max: a buffer may have any length */
    uint16_t cylinders;
    uint8_t heads, track;
    uint32_t blk_size;           /* bytes */
    uint8_t physical_exp, align; /* physical blocks have blk_size << physical_exp bytes */
    uint16_t min_io;             /* in units of blk_size */
    uint32_t opt_io;             /* likewise */
    uint8_t writeback, unused0;
    uint16_t num_queues;
    uint32_t max_discard, max_discard_seg, discard_align;
    uint32_t max_zeroes, max_zeroes_seg;
    uint8_t zeroes_may_unmap, unused1[3];
    uint32_t max_secure_erase; /* not offered: 0 */
};

_Static_assert(sizeof(struct vio__desc) == 16, "2.7.5");
_Static_assert(sizeof(struct vio__avail) == 4, "2.7.6");
_Static_assert(sizeof(struct vio__used) == 4 && sizeof(struct vio__used_elem) == 8, "2.7.8");
_Static_assert(sizeof(struct vio__pdesc) == 16, "2.8.13");
_Static_assert(sizeof(struct vio__event) == 4, "2.8.14");
_Static_assert(sizeof(struct vio__console_ctrl) == 8, "5.3.6.2");
_Static_assert(sizeof(struct vio__console_config) == sizeof(((struct vio_console *)0)->config),
               "5.3.4");
_Static_assert(VIO_CONSOLE_PORTS_MAX >= 1, "a console has a port");
_Static_assert(sizeof(struct vio__blk_hdr) == 16, "5.2.6");
_Static_assert(sizeof(struct vio__blk_config) == sizeof(((struct vio_blk *)0)->config), "5.2.4");
_Static_assert(VIO_QUEUE_MAX >= 2 && VIO_QUEUE_MAX <= 32768 &&
                   !(VIO_QUEUE_MAX & (VIO_QUEUE_MAX - 1)),
               "VIO_QUEUE_MAX is a power of two up to 32768");
_Static_assert(VIO_BLK_SEGS_MAX >= 1 && VIO_BLK_SEGS_MAX + 2 <= VIO_CHAIN_MAX,
               "a disk request fits into a chain");
_Static_assert(VIO_BLK_INFLIGHT >= 1, "a disk needs at least one request");
_Static_assert(VIO_BLK_QUEUES_MAX >= 1 && VIO_BLK_QUEUES_MAX <= 1024, "queues of a disk");
_Static_assert(sizeof(struct vio_blk_range) == 16, "5.2.6");

/* >>core: queues and chains. The driver runs on other processors while we look, so every value is
   fetched once and only the copy is used, and three orderings matter: we see a chain before it is
   announced (acquire), it sees ours before we announce (release), and where each side first says
   "wake me" and then looks again, a full fence stands between, so that one of the two always sees
   the other.

   x86 gives the first two for nothing, so that only a weakly ordered processor, and no emulation of
   one on x86, can miss them. On arm64 they are LDAR, STLR and DMB ISH: driver and device see the
   rings as Normal, write-back, inner shareable memory, and so in one domain of ordering. No cache is
   cleaned for the same reason; the device tree calls the devices dma-coherent. Kicks and interrupts
   order nothing by themselves: the driver's barrier stands before its write to the notify register,
   and ours (the release, or the fence of vio__signal) before the interrupt. */

static uint16_t vio__load(const uint16_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static void vio__store(uint16_t *p, uint16_t val)
{
    __atomic_store_n(p, val, __ATOMIC_RELEASE);
}

/* Guest memory just read into a copy may change: forbids the compiler to read it a second time. */
static void vio__fetched(void)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static uint64_t vio__offered(const struct vio_dev *d)
{
    return d->features | (VIO_F_CORE & ~d->features_off);
}

VMM_DEF bool vio_live(const struct vio_dev *d, unsigned q)
{
    const uint8_t want = VIO__DRIVER_OK | VIO__FEATURES_OK;

    return (d->status & (want | VIO__NEEDS_RESET)) == want && d->queues[q].ready &&
           !d->queues[q].stale && !d->queues[q].away;
}

VMM_DEF void vio_needs_reset(struct vio_dev *d, unsigned q, const char *what)
{
    if (d->status & VIO__NEEDS_RESET)
        return;
    if (vmm_spend(&d->budget))
        vmm_say(d->log, VMM_LOG_WARN,
                "virtio-%s: queue %u: %s; the device stops until its driver resets it",
                d->cls->name, q, what);
    d->status |= VIO__NEEDS_RESET;
    if (d->status & VIO__DRIVER_OK) /* 2.1.2 */
        d->interrupt(d->transport, VIO_CONFIG);
}

VMM_DEF void vio_config_changed(struct vio_dev *d)
{
    d->generation++;
    if (d->status & VIO__DRIVER_OK)
        d->interrupt(d->transport, VIO_CONFIG);
}

static uint32_t vio__queue_max(const struct vio_queue *vq)
{
    return vq->max ? vq->max : VIO_QUEUE_MAX;
}

/* Guest memory for one area of a queue, or NULL. */
static void *vio__area(const struct vio_dev *d, uint64_t gpa, uint64_t len, unsigned align)
{
    void *p = vmm_at(d->mem, gpa, len);

    return (gpa | (uintptr_t)p) & (align - 1) ? NULL : p;
}

/* Tells the device of a queue that is in service from now on. */
static void vio__queue_started(struct vio_dev *d, unsigned q)
{
    if (d->cls->start && vio_live(d, q))
        d->cls->start(d, q);
}

/* The driver says that a queue is set up: check all of it (2.7 and 2.8 for sizes and alignment). */
static void vio__queue_start(struct vio_dev *d, unsigned q)
{
    struct vio_queue *vq = &d->queues[q];
    bool packed = d->accepted & VIO_F_RING_PACKED;
    uint32_t n = vq->size;

    if (vq->ready)
        return;
    if (!n || n > vio__queue_max(vq) || (!packed && n & (n - 1))) {
        vio_needs_reset(d, q, "its size is out of range or no power of two");
        return;
    }
    vq->desc = vio__area(d, vq->desc_gpa, 16 * (uint64_t)n, 16);
    vq->driver = vio__area(d, vq->driver_gpa, packed ? 4 : 6 + 2 * (uint64_t)n, packed ? 4 : 2);
    vq->device = vio__area(d, vq->device_gpa, packed ? 4 : 6 + 8 * (uint64_t)n, 4);
    vq->ready = vq->desc && vq->driver && vq->device;
    vq->packed = packed;
    vq->next = vq->used = packed ? 0x8000 : 0; /* 2.8.1: wrap counters start at 1 */
    if (!vq->ready)
        vio_needs_reset(d, q, "its rings are misaligned or outside guest memory");
    else if (d->status & VIO__DRIVER_OK)
        vio__queue_started(d, q);
}

/* Ends a queue's life. Chains still out with the device become stale: a new life waits for them. */
static void vio__queue_stop(struct vio_dev *d, unsigned q)
{
    struct vio_queue *vq = &d->queues[q];
    uint16_t out = (uint16_t)(vq->stale + vq->out);

    *vq = (struct vio_queue){.max = vq->max, .size = vio__queue_max(vq), .stale = out};
    if (d->cls->stop)
        d->cls->stop(d, q);
}

/* The driver resets one queue (2.6.1). It waits until all chains are back, then starts anew. */
static void vio__queue_reset(struct vio_dev *d, unsigned q, uint32_t val)
{
    if (val == 1 && d->accepted & VIO_F_RING_RESET)
        vio__queue_stop(d, q);
}

/* Adds one buffer to a chain. NULL, or what is wrong with it. */
static const char *vio__chain_add(const struct vio_dev *d, struct vio_chain *c, uint64_t addr,
                                  uint32_t len, bool writable)
{
    struct vio_iov iov = {vmm_at(d->mem, addr, len), len};

    if (!writable && c->nwrite)
        return "a readable buffer follows a writable one";
    if (!len)
        return NULL;
    if (c->nread + c->nwrite == VIO_CHAIN_MAX)
        return "a chain has too many buffers";
    if (!iov.base)
        return "a buffer lies outside guest memory";
    if (c->rlen + c->wlen + len > (uint64_t)1 << 32)
        return "a chain is longer than 4 GiB";
    c->iov[c->nread + c->nwrite] = iov;
    *(writable ? &c->nwrite : &c->nread) += 1;
    *(writable ? &c->wlen : &c->rlen) += len;
    return NULL;
}

/* An indirect table (2.7.5.3, 2.8.7): NULL, or what is wrong with it. */
static const char *vio__indirect(const struct vio_dev *d, uint64_t addr, uint32_t len, bool alone,
                                 const uint8_t **table)
{
    if (!(d->accepted & VIO_F_INDIRECT) || !alone)
        return "an indirect descriptor where none is allowed";
    *table = vmm_at(d->mem, addr, len);
    if (!*table || !len || len % 16)
        return "an indirect table is outside guest memory or of odd length";
    return NULL;
}

/* >>split rings, 2.7. Each of these functions has a twin for packed rings, below. */

static struct vio__avail *vio__avail(const struct vio_queue *vq)
{
    return (struct vio__avail *)(void *)vq->driver;
}

static struct vio__used *vio__used(const struct vio_queue *vq)
{
    return (struct vio__used *)(void *)vq->device;
}

/* Has the driver something on offer? */
static bool vio__split_more(struct vio_queue *vq)
{
    if (vq->next == vq->seen)
        vq->seen = vio__load(&vio__avail(vq)->idx);
    return vq->next != vq->seen;
}

/* Follows a chain from its head through the ring's table and at most one indirect one. NULL, or
   what is wrong. */
static const char *vio__split_walk(const struct vio_dev *d, struct vio_queue *vq,
                                   struct vio_chain *c)
{
    const uint8_t *table = vq->desc;
    unsigned n = vq->size, left = vq->size, i;
    bool direct = true;
    struct vio__desc e;
    const char *bad;

    /* All that is on offer and all that is out with the device fit the ring together. */
    if ((uint16_t)(vq->seen - vq->used) > vq->size)
        return "its avail index ran away";
    c->head = i = vio__load(&vio__avail(vq)->ring[vq->next & (vq->size - 1)]);
    for (;;) {
        if (i >= n)
            return "a descriptor index is beyond its table";
        if (!left--)
            return "a chain has too many descriptors or a loop";
        memcpy(&e, table + 16 * (size_t)i, sizeof e);
        vio__fetched();
        if (e.flags & VIO__DESC_INDIRECT) {
            direct = direct && !(e.flags & VIO__DESC_NEXT);
            bad = vio__indirect(d, e.addr, e.len, direct, &table);
            if (bad)
                return bad;
            direct = false;
            n = e.len / sizeof e;
            left = VIO_CHAIN_MAX;
            i = 0;
            continue;
        }
        bad = vio__chain_add(d, c, e.addr, e.len, e.flags & VIO__DESC_WRITE);
        if (bad || !(e.flags & VIO__DESC_NEXT))
            return bad;
        i = e.next;
    }
}

static void vio__split_give(struct vio_queue *vq, const struct vio_done *done, unsigned n)
{
    struct vio__used *used = vio__used(vq);

    for (unsigned i = 0; i < n; i++) {
        struct vio__used_elem e = {done[i].head, done[i].len};
        used->ring[(uint16_t)(vq->used + i) & (vq->size - 1)] = e;
    }
    vq->used = (uint16_t)(vq->used + n);
    vq->fresh += n;
    /* Buffers and elements become visible before the index that announces them. */
    vio__store(&used->idx, vq->used);
}

/* Does the driver want to hear of what is fresh? (2.7.7.2) */
static bool vio__split_wanted(const struct vio_dev *d, const struct vio_queue *vq)
{
    const struct vio__avail *avail = vio__avail(vq);

    if (!(d->accepted & VIO_F_EVENT_IDX))
        return !(vio__load(&avail->flags) & 1);
    return (uint16_t)(vq->used - vio__load(&avail->ring[vq->size]) - 1) < vq->fresh;
}

static void vio__split_event(struct vio_queue *vq, uint16_t idx)
{
    vio__store((uint16_t *)(void *)&vio__used(vq)->ring[vq->size], idx);
}

/* The driver need not ring for now: never, or with EVENT_IDX not within the next 65535 chains. */
static void vio__split_hush(const struct vio_dev *d, struct vio_queue *vq)
{
    if (d->accepted & VIO_F_EVENT_IDX)
        vio__split_event(vq, (uint16_t)(vq->seen - 1));
    else
        vio__store(&vio__used(vq)->flags, 1);
}

/* The driver rings for what it adds from now on; true: it has added already. With EVENT_IDX:
   ask for a ring beyond what is seen, and see whether that moved. It can move only until the ring
   is full, so an honest driver ends this loop. */
static bool vio__split_arm(const struct vio_dev *d, struct vio_queue *vq)
{
    uint16_t asked;
    unsigned tries = 0;

    if (!(d->accepted & VIO_F_EVENT_IDX))
        vio__store(&vio__used(vq)->flags, 0);
    do {
        asked = vq->seen;
        if (d->accepted & VIO_F_EVENT_IDX)
            vio__split_event(vq, asked);
        __atomic_thread_fence(__ATOMIC_SEQ_CST); /* ask, then look: the driver does the reverse */
        vq->seen = vio__load(&vio__avail(vq)->idx);
    } while (vq->seen != asked && tries++ < vq->size);
    return vq->end != vq->seen;
}

/* >>packed rings, 2.8. A chain is known by the id that the driver gave it; behind that, in bits 16
   and up of its name, we keep how many entries it has. */

/* Entries from one position on to another, 0 to 2 * size - 1. */
static uint32_t vio__packed_dist(const struct vio_queue *vq, uint16_t from, uint16_t to)
{
    uint32_t a = (from & 0x7fff) + (from & 0x8000 ? 0 : vq->size);
    uint32_t b = (to & 0x7fff) + (to & 0x8000 ? 0 : vq->size);

    return b >= a ? b - a : b + 2 * vq->size - a;
}

/* The position n entries on, n at most size; backwards is the same, to the end of the other lap. */
static uint16_t vio__packed_add(const struct vio_queue *vq, uint16_t pos, uint32_t n)
{
    uint32_t at = (pos & 0x7fff) + n;

    return (uint16_t)(at < vq->size ? (pos & 0x8000) | at : (~pos & 0x8000) | (at - vq->size));
}

static struct vio__pdesc *vio__packed_at(const struct vio_queue *vq, uint16_t pos)
{
    return (struct vio__pdesc *)(void *)vq->desc + (pos & 0x7fff);
}

/* An entry is on offer when one of its two bits is as the wrap counter and the other is not. */
static bool vio__packed_more(const struct vio_queue *vq, uint16_t pos)
{
    uint16_t flags = vio__load(&vio__packed_at(vq, pos)->flags);
    bool wrap = pos & 0x8000;

    return !!(flags & VIO__DESC_AVAIL) == wrap && !!(flags & VIO__DESC_USED) != wrap;
}

/* The buffers of an indirect table, one after the other (2.8.7). */
static const char *vio__packed_table(const struct vio_dev *d, struct vio_chain *c,
                                     const struct vio__pdesc *e, bool alone)
{
    const uint8_t *table = NULL;
    const char *bad = vio__indirect(d, e->addr, e->len, alone, &table);

    if (!bad && e->len / sizeof *e > VIO_CHAIN_MAX)
        bad = "a chain has too many descriptors";
    for (uint32_t i = 0; !bad && i < e->len / sizeof *e; i++) {
        struct vio__pdesc t;
        memcpy(&t, table + i * sizeof t, sizeof t);
        vio__fetched();
        bad = vio__chain_add(d, c, t.addr, t.len, t.flags & VIO__DESC_WRITE);
    }
    return bad;
}

static const char *vio__packed_walk(const struct vio_dev *d, struct vio_queue *vq,
                                    struct vio_chain *c)
{
    uint32_t n = 0, room = vq->size - vio__packed_dist(vq, vq->used, vq->next);
    struct vio__pdesc e;
    const char *bad;

    do { /* room: an entry that is out with the device cannot be on offer again */
        if (n == room)
            return "a chain has too many descriptors";
        memcpy(&e, vio__packed_at(vq, vio__packed_add(vq, vq->next, n++)), sizeof e);
        vio__fetched();
        if (e.flags & VIO__DESC_INDIRECT)
            bad = vio__packed_table(d, c, &e, n == 1 && !(e.flags & VIO__DESC_NEXT));
        else
            bad = vio__chain_add(d, c, e.addr, e.len, e.flags & VIO__DESC_WRITE);
    } while (!bad && e.flags & VIO__DESC_NEXT);
    c->head = n << 16 | e.id; /* 2.8.6: the last entry's */
    vq->peeked = (uint16_t)n;
    return bad;
}

static void vio__packed_give(struct vio_queue *vq, const struct vio_done *done, unsigned n)
{
    struct vio__pdesc *first = vio__packed_at(vq, vq->used);
    uint16_t first_flags = 0;

    for (unsigned i = 0; i < n; i++) {
        struct vio__pdesc *e = vio__packed_at(vq, vq->used);
        uint16_t flags = vq->used & 0x8000 ? VIO__DESC_AVAIL | VIO__DESC_USED : 0;
        flags |= done[i].len ? VIO__DESC_WRITE : 0;
        e->id = (uint16_t)done[i].head;
        e->len = done[i].len;
        if (i)
            e->flags = flags;
        else
            first_flags = flags;
        vq->used = vio__packed_add(vq, vq->used, done[i].head >> 16);
        vq->fresh += done[i].head >> 16;
    }
    /* The driver reads in order: all else becomes visible before the first entry's flags. */
    if (n)
        vio__store(&first->flags, first_flags);
}

/* Does the driver want to hear of what is fresh? Was its position among that? (2.8.10) */
static bool vio__packed_wanted(const struct vio_dev *d, const struct vio_queue *vq)
{
    struct vio__event e;

    memcpy(&e, vq->driver, sizeof e);
    vio__fetched();
    if (e.flags == VIO__EVENT_POS && d->accepted & VIO_F_EVENT_IDX)
        return vio__packed_dist(vq, vio__packed_add(vq, e.pos, 1), vq->used) < vq->fresh;
    return e.flags != VIO__EVENT_NONE;
}

static void vio__packed_event(struct vio_queue *vq, uint16_t flags)
{
    vio__store(&((struct vio__event *)(void *)vq->device)->flags, flags);
}

static void vio__packed_hush(struct vio_queue *vq)
{
    vio__packed_event(vq, VIO__EVENT_NONE);
}

/* With EVENT_IDX: for the next entry only, which spares the rings until we look. */
static bool vio__packed_arm(const struct vio_dev *d, struct vio_queue *vq)
{
    if (d->accepted & VIO_F_EVENT_IDX) {
        vio__store(&((struct vio__event *)(void *)vq->device)->pos, vq->end);
        vio__packed_event(vq, VIO__EVENT_POS);
        __atomic_thread_fence(__ATOMIC_SEQ_CST); /* ask, then look: the driver does the reverse */
        if (!vio__packed_more(vq, vq->end))
            return false;
    }
    vio__packed_event(vq, VIO__EVENT_ALL);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return vio__packed_more(vq, vq->end);
}

/* >>queues: what devices use, whichever ring it is. */

VMM_DEF bool vio_begin(struct vio_dev *d, unsigned q)
{
    struct vio_queue *vq = &d->queues[q];

    if (!vq->running) {
        vq->left = (uint16_t)vq->size;
        vq->spent = false;
    }
    return vio_live(d, q);
}

VMM_DEF bool vio_peek(struct vio_dev *d, unsigned q, struct vio_chain *c)
{
    struct vio_queue *vq = &d->queues[q];
    const char *bad;

    if (!vio_live(d, q))
        return false;
    if (!vq->left || !(vq->packed ? vio__packed_more(vq, vq->next) : vio__split_more(vq))) {
        vq->dry = true;
        vq->spent = !vq->left;
        vq->end = vq->next;
        return false;
    }
    c->nread = c->nwrite = 0;
    c->rlen = c->wlen = 0;
    bad = vq->packed ? vio__packed_walk(d, vq, c) : vio__split_walk(d, vq, c);
    if (bad)
        vio_needs_reset(d, q, bad);
    return !bad;
}

VMM_DEF void vio_take(struct vio_dev *d, unsigned q)
{
    struct vio_queue *vq = &d->queues[q];

    vq->next = vq->packed ? vio__packed_add(vq, vq->next, vq->peeked) : (uint16_t)(vq->next + 1);
    vq->out++;
    vq->left--;
}

VMM_DEF bool vio_pop(struct vio_dev *d, unsigned q, struct vio_chain *c)
{
    if (!vio_peek(d, q, c))
        return false;
    vio_take(d, q);
    return true;
}

/* Chains of a queue's former life came back; the next life may have rung already. */
static void vio__stale_back(struct vio_dev *d, unsigned q, unsigned n)
{
    d->queues[q].stale = (uint16_t)(d->queues[q].stale - n);
    if (d->queues[q].stale)
        return;
    vio__queue_started(d, q);
    vio_queue_run(d, q);
}

VMM_DEF void vio_unpop(struct vio_dev *d, unsigned q, uint32_t head)
{
    struct vio_queue *vq = &d->queues[q];

    if (vq->stale) {
        vio__stale_back(d, q, 1);
        return;
    }
    if (vq->packed) /* back by n is on by a lap less n, in the other lap */
        vq->next = vio__packed_add(vq, vq->next ^ 0x8000, vq->size - (head >> 16));
    else
        vq->next--;
    vq->out--;
    vq->left++;
}

VMM_DEF void vio_used_all(struct vio_dev *d, unsigned q, const struct vio_done *done, unsigned n)
{
    struct vio_queue *vq = &d->queues[q];

    if (vq->stale) {
        vio__stale_back(d, q, n);
        return;
    }
    vq->out = (uint16_t)(vq->out - n);
    if (!vio_live(d, q))
        return;
    if (vq->packed)
        vio__packed_give(vq, done, n);
    else
        vio__split_give(vq, done, n);
}

VMM_DEF void vio_used(struct vio_dev *d, unsigned q, uint32_t head, uint32_t len)
{
    vio_used_all(d, q, &(struct vio_done){head, len}, 1);
}

static void vio__hush(const struct vio_dev *d, struct vio_queue *vq)
{
    if (vq->packed)
        vio__packed_hush(vq);
    else
        vio__split_hush(d, vq);
}

/* Interrupts the driver if something is fresh and it wants to hear of that: it asks, then looks; so
   this first announces, then looks whether it is asked. */
static void vio__signal(struct vio_dev *d, unsigned q)
{
    struct vio_queue *vq = &d->queues[q];
    bool wanted;

    if (!vq->fresh || !vio_live(d, q))
        return;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    wanted = vq->packed ? vio__packed_wanted(d, vq) : vio__split_wanted(d, vq);
    vq->fresh = 0;
    if (wanted)
        d->interrupt(d->transport, q);
}

/* If the device found the queue empty, has the driver ring for more; true: more came meanwhile. */
static bool vio__rest(struct vio_dev *d, unsigned q)
{
    struct vio_queue *vq = &d->queues[q];
    bool dry = vq->dry && vio_live(d, q);

    vq->dry = false;
    return dry && (vq->packed ? vio__packed_arm(d, vq) : vio__split_arm(d, vq));
}

VMM_DEF void vio_end(struct vio_dev *d, unsigned q)
{
    vio__signal(d, q);
    if (!d->queues[q].running && vio__rest(d, q))
        vio_queue_run(d, q);
}

VMM_DEF void vio_queue_run(struct vio_dev *d, unsigned q)
{
    struct vio_queue *vq = &d->queues[q];
    bool more;

    /* running: a call-back that calls back into its own queue finds it busy. */
    if (q >= d->nqueues || vq->running || !vio_begin(d, q))
        return;
    vq->running = true;
    do {
        vio__hush(d, vq);
        d->cls->queue(d, q);
        vio__signal(d, q);
        more = vio__rest(d, q);
    } while (more && !vq->spent);
    if (more) { /* The driver rings from now on: a last run takes what came before. */
        vq->left = (uint16_t)vq->size;
        d->cls->queue(d, q);
        vio__signal(d, q);
    }
    vq->running = false;
}

VMM_DEF struct vio_rings vio_queue_rings(const struct vio_dev *d, unsigned q)
{
    const struct vio_queue *vq = &d->queues[q];

    return (struct vio_rings){vq->size, vq->desc, vq->driver, vq->device};
}

/* Writes the bytes [off, off + len) of a list of buffers to `out`, as at most `max` buffers; `out`
   may be the list. Returns their number, max + 1 when there are more. */
static unsigned vio__cut(const struct vio_iov *iov, unsigned n, uint64_t off, uint64_t len,
                         struct vio_iov *out, unsigned max)
{
    unsigned k = 0;

    for (unsigned i = 0; i < n && len; i++) {
        struct vio_iov piece = iov[i];
        if (off >= piece.len) {
            off -= piece.len;
            continue;
        }
        if (k == max)
            return max + 1;
        piece.base = (uint8_t *)piece.base + off;
        piece.len -= (size_t)off;
        if (piece.len > len)
            piece.len = (size_t)len;
        off = 0;
        len -= piece.len;
        out[k++] = piece;
    }
    return k;
}

VMM_DEF size_t vio_chain_read(const struct vio_chain *c, uint64_t off, void *buf, size_t len)
{
    struct vio_iov piece[VIO_CHAIN_MAX];
    unsigned n = vio__cut(c->iov, c->nread, off, len, piece, VIO_CHAIN_MAX);
    size_t done = 0;

    for (unsigned i = 0; i < n; done += piece[i++].len)
        memcpy((uint8_t *)buf + done, piece[i].base, piece[i].len);
    vio__fetched();
    return done;
}

VMM_DEF size_t vio_chain_write(const struct vio_chain *c, uint64_t off, const void *buf, size_t len)
{
    struct vio_iov piece[VIO_CHAIN_MAX];
    unsigned n = vio__cut(c->iov + c->nread, c->nwrite, off, len, piece, VIO_CHAIN_MAX);
    size_t done = 0;

    for (unsigned i = 0; i < n; done += piece[i++].len)
        memcpy(piece[i].base, (const uint8_t *)buf + done, piece[i].len);
    return done;
}

/* The rest of the core is what a transport puts into its registers. */

/* Status reads as before a reset until every chain is back: only then may the driver reuse its
   memory. */
static uint8_t vio__status_read(const struct vio_dev *d)
{
    for (unsigned q = 0; !d->status && q < d->nqueues; q++)
        if (d->queues[q].stale)
            return d->former;
    return d->status;
}

static void vio__reset(struct vio_dev *d)
{
    if (d->status)
        d->former = d->status;
    d->status = 0;
    d->accepted = 0;
    for (unsigned q = 0; q < d->nqueues; q++)
        vio__queue_stop(d, q);
    if (d->cls->reset)
        d->cls->reset(d);
}

/* DRIVER_OK: from now on. */
static void vio__driver_ok(struct vio_dev *d)
{
    if (d->cls->ready)
        d->cls->ready(d);
    for (unsigned q = 0; q < d->nqueues; q++)
        vio__queue_started(d, q);
}

/* Bits are only ever added (2.1.1); FEATURES_OK only to a choice that we can live with (2.2.2). */
static void vio__status_write(struct vio_dev *d, uint8_t val)
{
    bool bad = d->accepted & ~vio__offered(d) || !(d->accepted & VIO_F_VERSION_1);
    uint8_t old = d->status;

    if (!val) {
        vio__reset(d);
        return;
    }
    d->status |= val & VIO__BY_DRIVER & ~(bad ? VIO__FEATURES_OK : 0);
    if (d->status & ~old & VIO__DRIVER_OK && d->status & VIO__FEATURES_OK)
        vio__driver_ok(d);
}

/* Features come in banks of 32 bits. */
static uint32_t vio__features_read(const struct vio_dev *d, uint32_t bank)
{
    return bank < 2 ? (uint32_t)(vio__offered(d) >> (32 * bank)) : 0;
}

static void vio__features_write(struct vio_dev *d, uint32_t bank, uint32_t val)
{
    if (bank < 2 && !(d->status & VIO__FEATURES_OK))
        vmm_put32((uint8_t *)&d->accepted + 4 * bank, val);
}

static void vio__config_read(const struct vio_dev *d, size_t off, size_t len, void *val)
{
    memset(val, 0, len);
    if (off < d->config_len)
        memcpy(val, (const uint8_t *)d->config + off,
               len < d->config_len - off ? len : d->config_len - off);
}

static void vio__config_write(struct vio_dev *d, size_t off, size_t len, const void *val)
{
    if (d->cls->config_write && off < d->config_len && len <= d->config_len - off)
        d->cls->config_write(d, off, len, val);
}

/* Binds a device to its transport, as after a reset. */
static void vio__attach(struct vio_dev *d, const struct vmm_mem *mem, const struct vmm_log *log,
                        void (*interrupt)(void *transport, unsigned q), void *transport)
{
    d->mem = mem;
    d->log = log;
    d->interrupt = interrupt;
    d->transport = transport;
    for (unsigned q = 0; q < d->nqueues; q++)
        d->queues[q].size = vio__queue_max(&d->queues[q]);
}

/* The driver rang for queue q, and no doorbell of the hypervisor caught it. */
static void vio__notify(struct vio_dev *d, uint64_t q, void (*kick)(void *ctx, unsigned q),
                        void *ctx)
{
    if (q >= d->nqueues)
        return;
    if (kick)
        kick(ctx, (unsigned)q);
    else
        vio_queue_run(d, (unsigned)q);
}

/* >>mmio: 4.2.2, the register table */
enum {
    VIO__MMIO_MAGIC = 0x00,
    VIO__MMIO_VERSION = 0x04,
    VIO__MMIO_DEVICE_ID = 0x08,
    VIO__MMIO_VENDOR_ID = 0x0c,
    VIO__MMIO_FEATURES = 0x10,
    VIO__MMIO_FEATURES_SEL = 0x14,
    VIO__MMIO_ACCEPTED = 0x20,
    VIO__MMIO_ACCEPTED_SEL = 0x24,
    VIO__MMIO_QUEUE_SEL = 0x30,
    VIO__MMIO_QUEUE_MAX = 0x34,
    VIO__MMIO_QUEUE_SIZE = 0x38,
    VIO__MMIO_QUEUE_READY = 0x44,
    VIO__MMIO_ISR = 0x60,
    VIO__MMIO_ACK = 0x64,
    VIO__MMIO_STATUS = 0x70,
    VIO__MMIO_DESC = 0x80,   /* and the high half 4 above */
    VIO__MMIO_DRIVER = 0x90, /* likewise */
    VIO__MMIO_DEVICE = 0xa0, /* likewise */
    VIO__MMIO_SHM_LEN = 0xb0,
    VIO__MMIO_SHM_BASE = 0xb8,
    VIO__MMIO_QUEUE_RESET = 0xc0,
    VIO__MMIO_GENERATION = 0xfc,
    VIO__MMIO_CONFIG = 0x100
};

static void vio__mmio_interrupt(void *transport, unsigned q)
{
    struct vio_mmio *t = transport;

    t->isr |= q == VIO_CONFIG ? 2 : 1;
    vmm_irq_set(&t->desc.irq, true);
}

VMM_DEF void vio_mmio_init(struct vio_mmio *t, const struct vio_mmio_desc *desc)
{
    *t = (struct vio_mmio){.desc = *desc};
    vio__attach(desc->dev, desc->mem, desc->log, vio__mmio_interrupt, t);
}

/* The queue that QueueSel names, or NULL. */
static struct vio_queue *vio__mmio_queue(const struct vio_mmio *t)
{
    return t->queue_sel < t->desc.dev->nqueues ? &t->desc.dev->queues[t->queue_sel] : NULL;
}

static uint32_t vio__mmio_reg_read(const struct vio_mmio *t, uint64_t off)
{
    const struct vio_dev *d = t->desc.dev;
    const struct vio_queue *vq = vio__mmio_queue(t);

    switch (off) {
    case VIO__MMIO_MAGIC:
        return 0x74726976; /* "virt" */
    case VIO__MMIO_VERSION:
        return 2;
    case VIO__MMIO_DEVICE_ID:
        return d->cls->id;
    case VIO__MMIO_VENDOR_ID:
        return 0x204d4d56; /* "VMM " */
    case VIO__MMIO_FEATURES:
        return vio__features_read(d, t->features_sel);
    case VIO__MMIO_QUEUE_MAX:
        return vq ? vio__queue_max(vq) : 0;
    case VIO__MMIO_QUEUE_READY: /* 0 promises that the device lets go of the rings' buffers */
        return vq && (vq->ready || vq->stale);
    case VIO__MMIO_QUEUE_RESET:
        return vq && vq->stale;
    case VIO__MMIO_ISR:
        return t->isr;
    case VIO__MMIO_STATUS:
        return vio__status_read(d);
    case VIO__MMIO_SHM_LEN:
    case VIO__MMIO_SHM_LEN + 4:
    case VIO__MMIO_SHM_BASE:
    case VIO__MMIO_SHM_BASE + 4:
        return UINT32_MAX; /* no shared memory, whichever region is selected */
    case VIO__MMIO_GENERATION:
        return d->generation;
    default:
        return 0;
    }
}

VMM_DEF uint64_t vio_mmio_read(void *t, uint64_t off, unsigned len)
{
    struct vio_mmio *m = t;
    uint64_t val = 0;

    if (off >= VIO__MMIO_CONFIG)
        vio__config_read(m->desc.dev, (size_t)off - VIO__MMIO_CONFIG, len, &val);
    else if (len == 4)
        val = vio__mmio_reg_read(m, off);
    return val;
}

static void vio__mmio_queue_write(struct vio_mmio *t, uint64_t off, uint32_t val)
{
    struct vio_queue *vq = vio__mmio_queue(t);
    uint64_t *gpa = NULL;

    if (!vq)
        return;
    if (off == VIO__MMIO_QUEUE_READY && val)
        vio__queue_start(t->desc.dev, t->queue_sel);
    else if (off == VIO__MMIO_QUEUE_READY)
        vio__queue_stop(t->desc.dev, t->queue_sel);
    else if (off == VIO__MMIO_QUEUE_RESET)
        vio__queue_reset(t->desc.dev, t->queue_sel, val);
    if (vq->ready)
        return; /* 4.2.2.2: a queue in use is not to be changed */
    if (off == VIO__MMIO_QUEUE_SIZE)
        vq->size = val;
    else if ((off & ~4u) == VIO__MMIO_DESC)
        gpa = &vq->desc_gpa;
    else if ((off & ~4u) == VIO__MMIO_DRIVER)
        gpa = &vq->driver_gpa;
    else if ((off & ~4u) == VIO__MMIO_DEVICE)
        gpa = &vq->device_gpa;
    if (gpa)
        vmm_put32((uint8_t *)gpa + (off & 4), val);
}

static void vio__mmio_reg_write(struct vio_mmio *t, uint64_t off, uint32_t val)
{
    switch (off) {
    case VIO__MMIO_FEATURES_SEL:
        t->features_sel = val;
        break;
    case VIO__MMIO_ACCEPTED:
        vio__features_write(t->desc.dev, t->accepted_sel, val);
        break;
    case VIO__MMIO_ACCEPTED_SEL:
        t->accepted_sel = val;
        break;
    case VIO__MMIO_QUEUE_SEL:
        t->queue_sel = val;
        break;
    case VIO_MMIO_NOTIFY:
        vio__notify(t->desc.dev, val, t->desc.kick, t->desc.ctx);
        break;
    case VIO__MMIO_ACK:
        t->isr &= ~val;
        break;
    case VIO__MMIO_STATUS:
        vio__status_write(t->desc.dev, (uint8_t)val);
        if (!(uint8_t)val)
            t->isr = 0;
        break;
    default:
        vio__mmio_queue_write(t, off, val);
    }
}

VMM_DEF void vio_mmio_write(void *t, uint64_t off, unsigned len, uint64_t val)
{
    struct vio_mmio *m = t;

    if (off >= VIO__MMIO_CONFIG)
        vio__config_write(m->desc.dev, (size_t)off - VIO__MMIO_CONFIG, len, &val);
    else if (len == 4)
        vio__mmio_reg_write(m, off, (uint32_t)val);
}

#ifdef DEV_PCI_H
/* >>pci: 4.1. One BAR holds all, a page for each structure. Every queue has a doorbell of its own,
   so the hypervisor need not look at the value written. */
enum {
    VIO__PCI_COMMON = 0x0000,
    VIO__PCI_ISR = 0x1000,
    VIO__PCI_CONFIG = 0x2000,
    VIO__PCI_MSIX = 0x3000,
    VIO__PCI_PAGE = 0x1000,
    VIO__PCI_MULTIPLIER = VIO_PCI_NOTIFY(1) - VIO_PCI_NOTIFY(0),
    VIO__PCI_NO_VECTOR = 0xffff
};

/* 4.1.4: a capability in configuration space, without its first two bytes */
struct vio__pci_cap {
    uint8_t len, type, bar, id, pad[2];
    uint8_t off[4], bytes[4];
    uint8_t more[4]; /* NOTIFY: multiplier; PCI: the data of the window */
};
enum { VIO__CAP_COMMON = 1, VIO__CAP_NOTIFY, VIO__CAP_ISR, VIO__CAP_DEVICE, VIO__CAP_PCI };

/* 4.1.4.3 */
struct vio__pci_common {
    uint32_t features_sel, features, accepted_sel, accepted;
    uint16_t config_vector, nqueues;
    uint8_t status, generation;
    uint16_t queue_sel, size, vector, enable, notify_off;
    uint64_t desc, driver, device;
    uint16_t notify_data, reset;
    uint32_t pad;
};

_Static_assert(sizeof(struct vio__pci_cap) == 18, "4.1.4");
_Static_assert(offsetof(struct vio__pci_common, reset) == 58, "4.1.4.3");

/* The interrupt vector that the driver chose for queue q or for VIO_CONFIG. */
static unsigned vio__pci_vector(const struct vio_pci *t, unsigned q)
{
    return q == VIO_CONFIG ? t->config_vector : t->queue_vector[q];
}

VMM_DEF bool vio_pci_message(const struct vio_pci *t, unsigned q, uint64_t *addr, uint32_t *data)
{
    return pci_msix_get(&t->pci, vio__pci_vector(t, q), addr, data);
}

static void vio__pci_isr(struct vio_pci *t, uint8_t isr)
{
    t->isr = isr;
    pci_intx_set(&t->pci, isr);
}

/* 4.1.5.3 and 4.1.5.4: the cause of a queue shows in the ISR only where that is how to tell. */
static void vio__pci_interrupt(void *transport, unsigned q)
{
    struct vio_pci *t = transport;
    bool msix = pci_msix_enabled(&t->pci);

    if (q == VIO_CONFIG)
        vio__pci_isr(t, t->isr | 2);
    else if (!msix)
        vio__pci_isr(t, t->isr | 1);
    if (msix)
        pci_msix_send(&t->pci, vio__pci_vector(t, q));
}

static void vio__pci_routed(struct vio_pci *t, unsigned q)
{
    if (t->desc.routed)
        t->desc.routed(t->desc.ctx, q);
}

static void vio__pci_msix_changed(void *ctx, unsigned vector)
{
    struct vio_pci *t = ctx;

    if (t->config_vector == vector)
        vio__pci_routed(t, VIO_CONFIG);
    for (unsigned q = 0; q < t->desc.dev->nqueues; q++)
        if (t->queue_vector[q] == vector)
            vio__pci_routed(t, q);
}

/* 4.1.5.1.2: a vector that there is not reads back as none. */
static void vio__pci_vector_write(struct vio_pci *t, unsigned q, uint16_t val)
{
    uint16_t *vector = q == VIO_CONFIG ? &t->config_vector : &t->queue_vector[q];

    *vector = val < t->pci.desc.msix.nvectors ? val : VIO__PCI_NO_VECTOR;
    vio__pci_routed(t, q);
}

static void vio__pci_status_write(struct vio_pci *t, uint8_t val)
{
    vio__status_write(t->desc.dev, val);
    if (val)
        return;
    vio__pci_isr(t, 0);
    vio__pci_vector_write(t, VIO_CONFIG, VIO__PCI_NO_VECTOR);
    for (unsigned q = 0; q < t->desc.dev->nqueues; q++)
        vio__pci_vector_write(t, q, VIO__PCI_NO_VECTOR);
}

static void vio__pci_reset(void *ctx)
{
    vio__pci_status_write(ctx, 0);
}

static void vio__pci_moved(void *ctx, unsigned bar, uint64_t gpa)
{
    struct vio_pci *t = ctx;

    if (bar == VIO_PCI_BAR && t->desc.moved)
        t->desc.moved(t->desc.ctx, gpa);
}

/* What the common structure reads as. */
static struct vio__pci_common vio__pci_common(const struct vio_pci *t)
{
    const struct vio_dev *d = t->desc.dev;
    struct vio__pci_common c = {.features_sel = t->features_sel,
                                .features = vio__features_read(d, t->features_sel),
                                .accepted_sel = t->accepted_sel,
                                .config_vector = t->config_vector,
                                .nqueues = (uint16_t)d->nqueues,
                                .status = vio__status_read(d),
                                .generation = (uint8_t)d->generation,
                                .queue_sel = t->queue_sel};

    if (t->accepted_sel < 2)
        c.accepted = (uint32_t)(d->accepted >> (32 * t->accepted_sel));
    if (t->queue_sel < d->nqueues) {
        const struct vio_queue *vq = &d->queues[t->queue_sel];
        c.size = (uint16_t)vq->size;
        c.vector = t->queue_vector[t->queue_sel];
        c.enable = vq->ready;
        c.notify_off = t->queue_sel;
        c.desc = vq->desc_gpa;
        c.driver = vq->driver_gpa;
        c.device = vq->device_gpa;
        c.reset = vq->stale != 0;
    }
    return c;
}

/* The driver wrote the queue's field at `off`, which reads as in `c` now. */
static void vio__pci_queue_write(struct vio_pci *t, size_t off, const struct vio__pci_common *c)
{
    struct vio_dev *d = t->desc.dev;
    unsigned q = t->queue_sel;
    struct vio_queue *vq = &d->queues[q];

    if (q >= d->nqueues)
        return;
    if (off == offsetof(struct vio__pci_common, vector))
        vio__pci_vector_write(t, q, c->vector);
    else if (off == offsetof(struct vio__pci_common, enable) && c->enable == 1)
        vio__queue_start(d, q);
    else if (off == offsetof(struct vio__pci_common, reset))
        vio__queue_reset(d, q, c->reset);
    if (vq->ready)
        return; /* a queue in use is not to be changed */
    if (off == offsetof(struct vio__pci_common, size))
        vq->size = c->size;
    else if (off == offsetof(struct vio__pci_common, desc))
        vq->desc_gpa = c->desc;
    else if (off == offsetof(struct vio__pci_common, driver))
        vq->driver_gpa = c->driver;
    else if (off == offsetof(struct vio__pci_common, device))
        vq->device_gpa = c->device;
}

/* The driver wrote the field at `off`, which reads as in `c` now. */
static void vio__pci_field_write(struct vio_pci *t, size_t off, const struct vio__pci_common *c)
{
    switch (off) {
    case offsetof(struct vio__pci_common, features_sel):
        t->features_sel = c->features_sel;
        break;
    case offsetof(struct vio__pci_common, accepted_sel):
        t->accepted_sel = c->accepted_sel;
        break;
    case offsetof(struct vio__pci_common, accepted):
        vio__features_write(t->desc.dev, t->accepted_sel, c->accepted);
        break;
    case offsetof(struct vio__pci_common, config_vector):
        vio__pci_vector_write(t, VIO_CONFIG, c->config_vector);
        break;
    case offsetof(struct vio__pci_common, status):
        vio__pci_status_write(t, c->status);
        break;
    case offsetof(struct vio__pci_common, queue_sel):
        t->queue_sel = c->queue_sel;
        break;
    default:
        vio__pci_queue_write(t, off, c);
    }
}

/* A write of any width: each field that it touches is written as a whole, its other bytes as they
   read. */
static void vio__pci_common_write(struct vio_pci *t, size_t off, size_t len, uint64_t val)
{
    static const uint8_t field[] = {0,  4,  8,  12, 16, 18, 20, 21, 22, 24,
                                    26, 28, 30, 32, 40, 48, 56, 58, 60, 64};

    for (unsigned i = 0; i + 1 < sizeof field; i++) {
        struct vio__pci_common c;
        if (off >= field[i + 1] || off + len <= field[i])
            continue;
        c = vio__pci_common(t);
        memcpy((uint8_t *)&c + off, &val, off + len > sizeof c ? sizeof c - off : len);
        vio__pci_field_write(t, field[i], &c);
    }
}

static uint64_t vio__pci_read(void *ctx, uint64_t off, unsigned len)
{
    struct vio_pci *t = ctx;
    size_t at = (size_t)off % VIO__PCI_PAGE;
    uint64_t val = 0;

    if (off < VIO__PCI_COMMON + sizeof(struct vio__pci_common)) {
        struct vio__pci_common c = vio__pci_common(t);
        memcpy(&val, (uint8_t *)&c + at, at + len > sizeof c ? sizeof c - at : len);
    } else if (off == VIO__PCI_ISR) { /* 4.1.4.5: a read takes it back */
        val = t->isr;
        vio__pci_isr(t, 0);
    } else if (off - at == VIO__PCI_CONFIG) {
        vio__config_read(t->desc.dev, at, len, &val);
    }
    return val;
}

static void vio__pci_write(void *ctx, uint64_t off, unsigned len, uint64_t val)
{
    struct vio_pci *t = ctx;
    size_t at = (size_t)off % VIO__PCI_PAGE;

    if (off < VIO__PCI_COMMON + sizeof(struct vio__pci_common))
        vio__pci_common_write(t, at, len, val);
    else if (off - at == VIO__PCI_CONFIG)
        vio__config_write(t->desc.dev, at, len, &val);
    else if (off >= VIO_PCI_NOTIFY(0) && (off - VIO_PCI_NOTIFY(0)) % VIO__PCI_MULTIPLIER == 0)
        vio__notify(t->desc.dev, (off - VIO_PCI_NOTIFY(0)) / VIO__PCI_MULTIPLIER, t->desc.kick,
                    t->desc.ctx);
}

/* 4.1.4.9: a window in configuration space on to the BAR, for who cannot map it. Where it looks, if
   the driver aims well. */
static bool vio__pci_aim(const struct vio_pci *t, uint32_t *off, uint32_t *len)
{
    const uint8_t *cap = t->pci.config + t->cfg_cap + 2;

    *off = vmm_get32(cap + offsetof(struct vio__pci_cap, off));
    *len = vmm_get32(cap + offsetof(struct vio__pci_cap, bytes));
    return cap[offsetof(struct vio__pci_cap, bar)] == VIO_PCI_BAR &&
           (*len == 1 || *len == 2 || *len == 4) && *off % *len == 0 && *off < VIO_PCI_LEN;
}

/* Is a look at configuration space one through the window? The latter's four bytes are one dword. */
static uint8_t *vio__pci_window(struct vio_pci *t, unsigned off)
{
    unsigned data = t->cfg_cap + 2 + offsetof(struct vio__pci_cap, more);

    return off >= data && off < data + 4 ? t->pci.config + data : NULL;
}

static bool vio__pci_config_read(void *ctx, unsigned off, unsigned len, uint32_t *val)
{
    struct vio_pci *t = ctx;
    uint8_t *data = vio__pci_window(t, off);
    uint32_t at, width;

    (void)len, (void)val;
    if (data && vio__pci_aim(t, &at, &width)) {
        uint64_t v = vio__pci_read(t, at, width);
        memcpy(data, &v, width);
    }
    return false; /* what is there now is the answer */
}

static bool vio__pci_config_write(void *ctx, unsigned off, unsigned len, uint32_t val)
{
    struct vio_pci *t = ctx;
    uint8_t *data = vio__pci_window(t, off);
    uint32_t at, width;

    if (!data)
        return false;
    memcpy(data + off % 4, &val, len);
    if (vio__pci_aim(t, &at, &width))
        vio__pci_write(t, at, width, vmm_get32(data) & vmm_ones(width));
    return true;
}

static int vio__pci_add_cap(struct vio_pci *t, uint8_t type, uint32_t off, uint32_t bytes)
{
    struct vio__pci_cap cap = {.type = type, .bar = VIO_PCI_BAR}, writable = {0};
    unsigned len = offsetof(struct vio__pci_cap, more);

    if (type == VIO__CAP_NOTIFY || type == VIO__CAP_PCI)
        len = sizeof cap;
    cap.len = (uint8_t)(len + 2);
    vmm_put32(cap.off, off);
    vmm_put32(cap.bytes, bytes);
    if (type == VIO__CAP_NOTIFY)
        vmm_put32(cap.more, VIO__PCI_MULTIPLIER);
    if (type == VIO__CAP_PCI) {
        writable.bar = 0xff;
        memset(writable.off, 0xff, sizeof writable.off);
        memset(writable.bytes, 0xff, sizeof writable.bytes);
    }
    return pci_add_cap(&t->pci, 9, &cap, len, &writable);
}

static int vio__pci_add_caps(struct vio_pci *t)
{
    static const struct {
        uint8_t type;
        uint32_t off, bytes;
    } caps[] = {
        {VIO__CAP_COMMON, VIO__PCI_COMMON, sizeof(struct vio__pci_common)},
        {VIO__CAP_ISR, VIO__PCI_ISR, 1},
        {VIO__CAP_DEVICE, VIO__PCI_CONFIG, VIO__PCI_PAGE},
        {VIO__CAP_NOTIFY, VIO_PCI_NOTIFY(0),
         VIO_PCI_NOTIFY(VIO_PCI_QUEUES_MAX) - VIO_PCI_NOTIFY(0)},
        {VIO__CAP_PCI, 0, 0},
    };
    int at = 0;

    for (unsigned i = 0; i < sizeof caps / sizeof caps[0] && at >= 0; i++)
        at = vio__pci_add_cap(t, caps[i].type, caps[i].off, caps[i].bytes);
    t->cfg_cap = at < 0 ? 0 : (unsigned)at;
    return at < 0 ? at : 0;
}

static uint32_t vio__pci_class(uint32_t id)
{
    static const struct {
        uint32_t id, class_code;
    } t[] = {{1, 0x020000}, {2, 0x010000}, {3, 0x078000}}; /* Ethernet, SCSI, communication */

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++)
        if (t[i].id == id)
            return t[i].class_code;
    return 0x00ff00; /* none of the known kinds */
}

VMM_DEF int vio_pci_init(struct vio_pci *t, const struct vio_pci_desc *desc)
{
    struct vio_dev *dev = desc->dev;
    struct pci_desc is = {.name = dev->cls->name,
                          .slot = desc->slot,
                          .vendor = 0x1af4,
                          .device = (uint16_t)(0x1040 + dev->cls->id),
                          .subvendor = 0x1af4,
                          .subdevice = (uint16_t)(0x1040 + dev->cls->id),
                          .class_code = vio__pci_class(dev->cls->id),
                          .revision = 1,
                          .intx = true,
                          .msi = desc->msi,
                          .lock = desc->lock,
                          .moved = vio__pci_moved,
                          .msix_changed = vio__pci_msix_changed,
                          .reset = vio__pci_reset,
                          .config_read = vio__pci_config_read,
                          .config_write = vio__pci_config_write,
                          .ctx = t,
                          .log = desc->log};
    int err;

    if (dev->nqueues > VIO_PCI_QUEUES_MAX)
        return vmm_err(desc->log, -E2BIG, "virtio-%s: %u queues are too many for PCI",
                       dev->cls->name, dev->nqueues);
    *t = (struct vio_pci){.desc = *desc, .config_vector = VIO__PCI_NO_VECTOR};
    memset(t->queue_vector, 0xff, sizeof t->queue_vector); /* likewise */
    is.bar[VIO_PCI_BAR] =
        (struct pci_bar){.len = VIO_PCI_LEN, .read = vio__pci_read, .write = vio__pci_write};
    is.msix = (struct pci_msix_desc){.nvectors = 1 + dev->nqueues,
                                     .vectors = t->vectors,
                                     .table_bar = VIO_PCI_BAR,
                                     .pba_bar = VIO_PCI_BAR,
                                     .table_off = VIO__PCI_MSIX};
    is.msix.pba_off = VIO__PCI_MSIX + 16 * is.msix.nvectors;
    vio__attach(dev, desc->mem, desc->log, vio__pci_interrupt, t);
    err = pci_init(&t->pci, &is);
    return err ? err : vio__pci_add_caps(t);
}
#endif /* DEV_PCI_H */

/* >>console: 5.3. A chain from the guest stays in the ring until all of it is out: the only state is
   a count. What the guest is to be told is not queued but remembered as bits, for its driver may
   have no buffer for a message for long. */
#define VIO__CONSOLE_F_SIZE      (1ULL << 0)
#define VIO__CONSOLE_F_MULTIPORT (1ULL << 1)
#define VIO__CONSOLE_F_EMERG     (1ULL << 2)

#define VIO__CONSOLE_QUEUE 64 /* entries: Linux fills a queue of input with pages */

/* Queues: 0 and 1 are port 0's, 2 and 3 carry messages, 2n + 2 and 2n + 3 are port n's. */
enum { VIO__CONSOLE_TELL = 2, VIO__CONSOLE_HEAR = 3 };

enum { /* messages from the driver */
       VIO__CONSOLE_DEVICE_READY = 0,
       VIO__CONSOLE_PORT_READY = 3,
       VIO__CONSOLE_PORT_OPEN = 6
};

enum { /* bits of todo, in the order in which they are told */
       VIO__CONSOLE_ADD = 1,
       VIO__CONSOLE_IS = 2,
       VIO__CONSOLE_NAME = 4,
       VIO__CONSOLE_SIZE = 8,
       VIO__CONSOLE_CLOSED = 16,
       VIO__CONSOLE_OPENED = 32
};

/* The messages to the driver, by bit number of todo (5.3.6.2). */
static const struct vio__console_ctrl vio__console_said[] = {{0, 1, 0}, {0, 4, 1}, {0, 7, 1},
                                                             {0, 5, 0}, {0, 6, 0}, {0, 6, 1}};

static bool vio__console_multi(const struct vio_console *c)
{
    return c->dev.accepted & VIO__CONSOLE_F_MULTIPORT;
}

/* The queue of a port's input; the one of its output follows. */
static unsigned vio__console_rxq(unsigned port)
{
    return port ? 2 * port + 2 : 0;
}

/* Tells one thing about a port, in a chain of the driver's. */
static void vio__console_say(struct vio_console *c, unsigned port, const struct vio_chain *chain)
{
    struct vio_console_state *p = &c->port[port];
    const uint16_t size[] = {p->cols, p->rows};
    struct vio__console_ctrl m;
    unsigned i = 0;
    size_t n;

    while (!(p->todo & 1u << i))
        i++;
    m = vio__console_said[i];
    m.port = port;
    n = vio_chain_write(chain, 0, &m, sizeof m);
    if (1u << i == VIO__CONSOLE_NAME)
        n += vio_chain_write(chain, n, p->desc.name, strlen(p->desc.name));
    else if (1u << i == VIO__CONSOLE_SIZE)
        n += vio_chain_write(chain, n, size, sizeof size);
    p->todo &= (uint8_t) ~(1u << i);
    vio_used(&c->dev, VIO__CONSOLE_TELL, chain->head, (uint32_t)n);
}

/* Tells what waits to be told, as far as the driver has buffers for it. */
static void vio__console_tell(struct vio_console *c)
{
    struct vio_chain chain;

    for (unsigned i = 0; i < c->nports; i++)
        while (c->port[i].todo && vio_pop(&c->dev, VIO__CONSOLE_TELL, &chain))
            vio__console_say(c, i, &chain);
}

/* The same at any other time than in a run of that queue. */
static void vio__console_tell_now(struct vio_console *c)
{
    if (!vio__console_multi(c) || !vio_begin(&c->dev, VIO__CONSOLE_TELL))
        return;
    vio__console_tell(c);
    vio_end(&c->dev, VIO__CONSOLE_TELL);
}

/* The driver is there and knows nothing, not even of ports that it knew before. */
static void vio__console_announce(struct vio_console *c)
{
    for (unsigned i = 0; i < c->nports; i++) {
        c->port[i].ready = c->port[i].wants = false;
        c->port[i].todo = VIO__CONSOLE_ADD;
    }
}

/* The driver has set up a port, or (value 0) could not. */
static void vio__console_port_ready(struct vio_console_state *p, bool ok)
{
    p->ready = ok;
    p->todo = 0;
    if (!ok)
        return;
    if (p->desc.console)
        p->todo |= VIO__CONSOLE_IS;
    if (p->desc.name)
        p->todo |= VIO__CONSOLE_NAME;
    if (p->desc.console && p->cols)
        p->todo |= VIO__CONSOLE_SIZE;
    if (!p->desc.closed)
        p->todo |= VIO__CONSOLE_OPENED;
}

/* One message from the driver. */
static void vio__console_hear(struct vio_console *c, const struct vio__console_ctrl *m)
{
    struct vio_console_state *p = &c->port[m->port < c->nports ? m->port : 0];

    if (m->event == VIO__CONSOLE_DEVICE_READY) {
        if (m->value)
            vio__console_announce(c);
    } else if (m->port >= c->nports) {
        if (vmm_spend(&c->dev.budget))
            vmm_say(c->dev.log, VMM_LOG_WARN,
                    "virtio-console: the driver speaks of port %u, which does not exist", m->port);
    } else if (m->event == VIO__CONSOLE_PORT_READY) {
        vio__console_port_ready(p, m->value);
    } else if (m->event == VIO__CONSOLE_PORT_OPEN) {
        p->wants = m->value;
        if (p->wants && p->desc.out.rx_room)
            p->desc.out.rx_room(p->desc.out.ctx);
    }
}

/* Serves the two queues of messages. */
static void vio__console_control(struct vio_console *c, unsigned q)
{
    struct vio__console_ctrl m;
    struct vio_chain chain;

    if (!vio__console_multi(c))
        return;
    if (q == VIO__CONSOLE_TELL) {
        vio__console_tell(c);
        return;
    }
    while (vio_pop(&c->dev, q, &chain)) {
        size_t n = vio_chain_read(&chain, 0, &m, sizeof m);
        vio_used(&c->dev, q, chain.head, 0);
        if (n < sizeof m) {
            vio_needs_reset(&c->dev, q, "a message is too short");
            return;
        }
        vio__console_hear(c, &m);
    }
    vio__console_tell_now(c);
}

/* Sends what is left of a chain; false: the stream takes no more for now. */
static bool vio__console_send(struct vio_console_state *p, struct vio_chain *chain)
{
    const struct vmm_stream *out = &p->desc.out;
    unsigned n =
        vio__cut(chain->iov, chain->nread, p->tx_done, UINT64_MAX, chain->iov, VIO_CHAIN_MAX);

    for (unsigned i = 0; i < n && out->write; i++) {
        size_t took = out->write(out->ctx, chain->iov[i].base, chain->iov[i].len);
        p->tx_done += took;
        if (took < chain->iov[i].len)
            return false;
    }
    return true;
}

static void vio__console_queue(struct vio_dev *d, unsigned q)
{
    struct vio_console *c = (struct vio_console *)d;
    struct vio_console_state *p = &c->port[q < 2 ? 0 : q / 2 - 1];
    struct vio_chain chain;

    if (q == VIO__CONSOLE_TELL || q == VIO__CONSOLE_HEAR) {
        vio__console_control(c, q);
        return;
    }
    if (q % 2 == 0) {
        if (p->desc.out.rx_room)
            p->desc.out.rx_room(p->desc.out.ctx);
        return;
    }
    while (vio_peek(d, q, &chain) && vio__console_send(p, &chain)) {
        vio_take(d, q);
        vio_used(d, q, chain.head, 0);
        p->tx_done = 0;
    }
}

static void vio__console_stop(struct vio_dev *d, unsigned q)
{
    if (q % 2 && q != VIO__CONSOLE_HEAR)
        ((struct vio_console *)d)->port[q < 2 ? 0 : q / 2 - 1].tx_done = 0;
}

/* Linux looks at the size when it changes, not before. */
static void vio__console_ready(struct vio_dev *d)
{
    if (d->accepted & VIO__CONSOLE_F_SIZE && ((struct vio_console *)d)->port[0].cols)
        vio_config_changed(d);
}

static void vio__console_reset(struct vio_dev *d)
{
    struct vio_console *c = (struct vio_console *)d;

    for (unsigned i = 0; i < c->nports; i++) {
        c->port[i].ready = c->port[i].wants = false;
        c->port[i].todo = 0;
    }
}

/* 5.3.4: the low byte of emerg_wr is written out at any time, for there is no queue yet. */
static void vio__console_config_write(struct vio_dev *d, size_t off, size_t len, const void *val)
{
    const struct vmm_stream *out = &((struct vio_console *)d)->port[0].desc.out;

    if (off == offsetof(struct vio__console_config, emerg_wr) && len <= 4 && out->write)
        out->write(out->ctx, val, 1);
}

static const struct vio_class vio__console_class = {.id = 3,
                                                    .name = "console",
                                                    .queue = vio__console_queue,
                                                    .ready = vio__console_ready,
                                                    .stop = vio__console_stop,
                                                    .reset = vio__console_reset,
                                                    .config_write = vio__console_config_write};

VMM_DEF int vio_console_init(struct vio_console *c, const struct vio_console_desc *desc)
{
    struct vio__console_config config = {
        .cols = desc->cols, .rows = desc->rows, .max_nr_ports = desc->nports};

    if (desc->nports > VIO_CONSOLE_PORTS_MAX)
        return -EINVAL;
    memset(c, 0, sizeof *c);
    memcpy(c->config, &config, sizeof config);
    c->port[0].desc.out = desc->out;
    for (unsigned i = 0; i < desc->nports; i++) {
        if (desc->ports[i].name && strlen(desc->ports[i].name) > VIO_CONSOLE_NAME_MAX)
            return -EINVAL;
        c->port[i].desc = desc->ports[i];
    }
    c->port[0].cols = desc->cols;
    c->port[0].rows = desc->rows;
    c->nports = desc->nports ? desc->nports : 1;
    c->dev = (struct vio_dev){.cls = &vio__console_class,
                              .queues = c->queue,
                              .nqueues = desc->nports ? 2 + 2 * desc->nports : 2,
                              .features = VIO__CONSOLE_F_SIZE | VIO__CONSOLE_F_EMERG |
                                          (desc->nports ? VIO__CONSOLE_F_MULTIPORT : 0),
                              .config = c->config,
                              .config_len = sizeof c->config};
    for (unsigned q = 0; q < c->dev.nqueues; q++)
        c->queue[q].max = VIO__CONSOLE_QUEUE;
    return 0;
}

VMM_DEF size_t vio_console_rx(struct vio_console *c, unsigned port, const void *buf, size_t len)
{
    unsigned q = vio__console_rxq(port);
    struct vio_chain chain;
    size_t done = 0;

    if ((vio__console_multi(c) ? !c->port[port].wants : port > 0) || !vio_begin(&c->dev, q))
        return 0;
    while (done < len && vio_pop(&c->dev, q, &chain)) {
        size_t n = vio_chain_write(&chain, 0, (const uint8_t *)buf + done, len - done);
        vio_used(&c->dev, q, chain.head, (uint32_t)n);
        done += n;
    }
    vio_end(&c->dev, q);
    return done;
}

VMM_DEF void vio_console_tx_ready(struct vio_console *c, unsigned port)
{
    vio_queue_run(&c->dev, vio__console_rxq(port) + 1);
}

/* Whoever left and came back since the driver last had a buffer is told as both: a new listener. */
VMM_DEF void vio_console_open(struct vio_console *c, unsigned port, bool open)
{
    struct vio_console_state *p = &c->port[port];

    if (p->desc.closed == !open)
        return;
    p->desc.closed = !open;
    if (!p->ready)
        return;
    if (open)
        p->todo |= VIO__CONSOLE_OPENED;
    else if (p->todo & VIO__CONSOLE_OPENED)
        p->todo &= (uint8_t)~VIO__CONSOLE_OPENED;
    else
        p->todo |= VIO__CONSOLE_CLOSED;
    vio__console_tell_now(c);
}

VMM_DEF void vio_console_resize(struct vio_console *c, unsigned port, uint16_t cols, uint16_t rows)
{
    struct vio_console_state *p = &c->port[port];

    if (p->cols == cols && p->rows == rows)
        return;
    p->cols = cols;
    p->rows = rows;
    if (port == 0) {
        vmm_put16(c->config + offsetof(struct vio__console_config, cols), cols);
        vmm_put16(c->config + offsetof(struct vio__console_config, rows), rows);
        vio_config_changed(&c->dev);
    }
    if (p->ready && p->desc.console) {
        p->todo |= VIO__CONSOLE_SIZE;
        vio__console_tell_now(c);
    }
}

/* >>blk: 5.2. Requests wait in the rings while all of the pool is under way, or the host holds
   them back. */
#define VIO__BLK_F_SEG_MAX  (1ULL << 2)
#define VIO__BLK_F_GEOMETRY (1ULL << 4)
#define VIO__BLK_F_RO       (1ULL << 5)
#define VIO__BLK_F_BLK_SIZE (1ULL << 6)
#define VIO__BLK_F_FLUSH    (1ULL << 9)
#define VIO__BLK_F_TOPOLOGY (1ULL << 10)
#define VIO__BLK_F_WCE      (1ULL << 11) /* CONFIG_WCE */
#define VIO__BLK_F_MQ       (1ULL << 12)
#define VIO__BLK_F_DISCARD  (1ULL << 13)
#define VIO__BLK_F_ZEROES   (1ULL << 14) /* WRITE_ZEROES */

enum {
    VIO__BLK_IN = 0,
    VIO__BLK_OUT = 1,
    VIO__BLK_FLUSH = 4,
    VIO__BLK_GET_ID = 8,
    VIO__BLK_DISCARD = 11,
    VIO__BLK_ZEROES = 13
};
/* The status byte; GO is none: the request is the host's to carry out. */
enum { VIO__BLK_OK = 0, VIO__BLK_IOERR = 1, VIO__BLK_UNSUPP = 2, VIO__BLK_GO = 255 };

/* Sectors of one DISCARD or ZERO: 2 GiB, which a host does in one call. */
#define VIO__BLK_RANGE_MAX (1u << 22)

/* [sector, sector + n) is on the disk. */
static bool vio__blk_within(const struct vio_blk *b, uint64_t sector, uint64_t n)
{
    uint64_t sectors = b->desc.capacity / 512;

    return sector <= sectors && n <= sectors - sector;
}

/* Describes a READ or WRITE: bytes [from, from + len) of iov, at a sector of the disk. */
static uint8_t vio__blk_span(const struct vio_blk *b, struct vio_blk_req *r, uint64_t sector,
                             const struct vio_iov *iov, unsigned n, uint64_t from, uint64_t len)
{
    if (len % 512 || !vio__blk_within(b, sector, len / 512))
        return VIO__BLK_IOERR;
    if (r->op == VIO_BLK_WRITE && b->desc.read_only)
        return VIO__BLK_IOERR;
    r->off = sector * 512;
    r->len = len;
    r->niov = vio__cut(iov, n, from, len, r->iov, VIO_BLK_SEGS_MAX);
    if (r->niov > VIO_BLK_SEGS_MAX)
        return VIO__BLK_IOERR;
    return len ? VIO__BLK_GO : VIO__BLK_OK;
}

/* Makes the next range that is not empty the request; false: there is none. */
static bool vio__blk_next_range(struct vio_blk_req *r)
{
    while (r->range_next < r->nranges) {
        const struct vio_blk_range *g = &r->range[r->range_next++];
        r->off = g->sector * 512;
        r->len = (uint64_t)g->sectors * 512;
        r->unmap = g->flags & 1;
        if (r->len)
            return true;
    }
    return false;
}

/* DISCARD and WRITE_ZEROES (5.2.6.2): all ranges are checked before the first is begun. */
static uint8_t vio__blk_ranges(const struct vio_blk *b, struct vio_blk_req *r,
                               const struct vio_chain *c, uint32_t flags)
{
    uint64_t len = c->rlen - sizeof(struct vio__blk_hdr);

    if (!len || len % sizeof r->range[0] || len > sizeof r->range)
        return VIO__BLK_IOERR;
    vio_chain_read(c, sizeof(struct vio__blk_hdr), r->range, (size_t)len);
    r->nranges = (uint8_t)(len / sizeof r->range[0]);
    for (unsigned i = 0; i < r->nranges; i++) {
        const struct vio_blk_range *g = &r->range[i];
        if (g->flags & ~flags)
            return VIO__BLK_UNSUPP;
        if (g->sectors > VIO__BLK_RANGE_MAX || !vio__blk_within(b, g->sector, g->sectors))
            return VIO__BLK_IOERR;
    }
    return vio__blk_next_range(r) ? VIO__BLK_GO : VIO__BLK_OK;
}

/* 5.2.6.2: what is written must be on stable storage when the driver has no FLUSH, or has switched
   the cache to write-through. */
static bool vio__blk_write_through(const struct vio_blk *b)
{
    if (b->dev.accepted & VIO__BLK_F_WCE)
        return !b->config[offsetof(struct vio__blk_config, writeback)];
    return !(b->dev.accepted & VIO__BLK_F_FLUSH);
}

static uint8_t vio__blk_get_id(const struct vio_blk *b, struct vio_blk_req *r,
                               const struct vio_chain *c)
{
    r->used = (uint32_t)(c->wlen - 1 < sizeof b->serial ? c->wlen : sizeof b->serial + 1);
    vio_chain_write(c, 0, b->serial, r->used - 1);
    return VIO__BLK_OK;
}

/* Turns a chain with a writable byte into a request. Header and status are found by counting bytes
   from the ends: framing means nothing (2.7.4). */
static uint8_t vio__blk_parse(const struct vio_blk *b, struct vio_blk_req *r,
                              const struct vio_chain *c)
{
    struct vio__blk_hdr h;
    const struct vio_iov *writable = c->iov + c->nread;
    const struct vio_iov *last = writable + c->nwrite - 1;

    r->head = c->head;
    r->status = (uint8_t *)last->base + last->len - 1;
    r->used = 1;
    r->off = r->len = 0;
    r->niov = r->nranges = r->range_next = 0;
    r->unmap = false;
    r->durable = vio__blk_write_through(b);
    if (vio_chain_read(c, 0, &h, sizeof h) < sizeof h)
        return VIO__BLK_IOERR;
    switch (h.type) {
    case VIO__BLK_IN:
        r->op = VIO_BLK_READ;
        r->used = (uint32_t)c->wlen;
        return vio__blk_span(b, r, h.sector, writable, c->nwrite, 0, c->wlen - 1);
    case VIO__BLK_OUT:
        r->op = VIO_BLK_WRITE;
        return vio__blk_span(b, r, h.sector, c->iov, c->nread, sizeof h, c->rlen - sizeof h);
    case VIO__BLK_FLUSH:
        r->op = VIO_BLK_FLUSH;
        return VIO__BLK_GO;
    case VIO__BLK_GET_ID:
        return vio__blk_get_id(b, r, c);
    case VIO__BLK_DISCARD:
        r->op = VIO_BLK_DISCARD;
        return b->dev.accepted & VIO__BLK_F_DISCARD ? vio__blk_ranges(b, r, c, 0) : VIO__BLK_UNSUPP;
    case VIO__BLK_ZEROES:
        r->op = VIO_BLK_ZERO;
        return b->dev.accepted & VIO__BLK_F_ZEROES ? vio__blk_ranges(b, r, c, 1) : VIO__BLK_UNSUPP;
    default:
        return VIO__BLK_UNSUPP;
    }
}

/* Takes a request out of the pool, or NULL. */
static struct vio_blk_req *vio__blk_take(struct vio_blk *b)
{
    struct vio_blk_req *r = b->free;

    if (r)
        b->free = r->next_free;
    else if (b->nfresh < VIO_BLK_INFLIGHT)
        r = &b->req[b->nfresh++];
    return r;
}

static void vio__blk_give_back(struct vio_blk *b, struct vio_blk_req *r)
{
    r->next_free = b->free;
    b->free = r;
}

/* Gives a request back to the pool and its chain to the driver. */
static void vio__blk_answer(struct vio_blk *b, struct vio_blk_req *r, uint8_t code)
{
    unsigned q = r->queue;
    uint32_t head = r->head;
    uint32_t len = code == VIO__BLK_OK ? r->used : 1;

    if (vio_live(&b->dev, q))
        *r->status = code;
    vio__blk_give_back(b, r);
    vio_used(&b->dev, q, head, len);
}

/* Begins one request. False: the driver lied. */
static bool vio__blk_begin(struct vio_blk *b, unsigned q, struct vio_blk_req *r,
                           const struct vio_chain *c)
{
    uint8_t code;

    r->queue = (uint16_t)q;
    if (!c->wlen) {
        vio__blk_give_back(b, r);
        vio_used(&b->dev, q, c->head, 0);
        vio_needs_reset(&b->dev, q, "a request has no room for its status");
        return false;
    }
    code = vio__blk_parse(b, r, c);
    if (code == VIO__BLK_GO)
        b->desc.submit(b->desc.ctx, r);
    else
        vio__blk_answer(b, r, code);
    return true;
}

static void vio__blk_queue(struct vio_dev *d, unsigned q)
{
    struct vio_blk *b = (struct vio_blk *)d;
    struct vio_chain c;

    for (;;) {
        struct vio_blk_req *r;
        b->held = b->desc.hold && b->desc.hold(b->desc.ctx);
        if (b->held)
            return;
        r = vio__blk_take(b);
        b->starved = !r;
        if (!r)
            return;
        if (!vio_pop(d, q, &c)) {
            vio__blk_give_back(b, r);
            return;
        }
        if (!vio__blk_begin(b, q, r, &c))
            return;
    }
}

/* Lets all queues go on, another one first each time: with a single free request they take turns. */
static void vio__blk_go_on(struct vio_blk *b)
{
    unsigned n = b->dev.nqueues, first = b->turn++ % n;

    for (unsigned i = 0; i < n && !b->held; i++)
        vio_queue_run(&b->dev, (first + i) % n);
}

/* The driver switches between write-back and write-through. */
static void vio__blk_config_write(struct vio_dev *d, size_t off, size_t len, const void *val)
{
    struct vio_blk *b = (struct vio_blk *)d;
    uint8_t on = *(const uint8_t *)val;

    if (off == offsetof(struct vio__blk_config, writeback) && len == 1 &&
        d->accepted & VIO__BLK_F_WCE)
        b->config[off] = on & 1;
}

static void vio__blk_reset(struct vio_dev *d)
{
    ((struct vio_blk *)d)->config[offsetof(struct vio__blk_config, writeback)] = 1;
}

static const struct vio_class vio__blk_class = {.id = 2,
                                                .name = "blk",
                                                .queue = vio__blk_queue,
                                                .reset = vio__blk_reset,
                                                .config_write = vio__blk_config_write};

/* Capacity and the geometry that BIOSes give disks of that size. */
static void vio__blk_size(struct vio__blk_config *c, uint64_t capacity)
{
    uint64_t cylinders = capacity / 512 / (255 * 63);

    c->capacity = capacity / 512;
    c->cylinders = cylinders < UINT16_MAX ? (uint16_t)cylinders : UINT16_MAX;
    c->heads = 255;
    c->track = 63;
}

static void vio__blk_configure(struct vio_blk *b)
{
    const struct vio_blk_desc *d = &b->desc;
    struct vio__blk_config c = {.seg_max = VIO_BLK_SEGS_MAX,
                                .blk_size = d->block,
                                .min_io = (uint16_t)(d->physical / d->block),
                                .opt_io = d->optimal / d->block,
                                .writeback = 1,
                                .num_queues = (uint16_t)d->queues,
                                .max_discard = VIO__BLK_RANGE_MAX,
                                .max_discard_seg = VIO_BLK_RANGES_MAX,
                                .discard_align = d->physical / 512,
                                .max_zeroes = VIO__BLK_RANGE_MAX,
                                .max_zeroes_seg = VIO_BLK_RANGES_MAX,
                                .zeroes_may_unmap = 1};

    while (d->block << c.physical_exp < d->physical)
        c.physical_exp++;
    vio__blk_size(&c, d->capacity);
    memcpy(b->config, &c, sizeof c);
}

static uint64_t vio__blk_features(const struct vio_blk_desc *desc)
{
    uint64_t f = VIO__BLK_F_SEG_MAX | VIO__BLK_F_GEOMETRY | VIO__BLK_F_BLK_SIZE | VIO__BLK_F_FLUSH |
                 VIO__BLK_F_TOPOLOGY;

    f |= desc->read_only ? VIO__BLK_F_RO : VIO__BLK_F_WCE | VIO__BLK_F_DISCARD | VIO__BLK_F_ZEROES;
    return desc->queues > 1 ? f | VIO__BLK_F_MQ : f;
}

/* Fills in defaults; false: a hint makes no sense. */
static bool vio__blk_hints(struct vio_blk_desc *d)
{
    d->queues = d->queues ? d->queues : 1;
    d->block = d->block ? d->block : 512;
    if (!d->physical)
        d->physical = d->block > 4096 ? d->block : 4096;
    return !(d->block & (d->block - 1)) && !(d->physical & (d->physical - 1)) &&
           !(d->optimal & (d->optimal - 1)) && d->block >= 512 && d->physical >= d->block &&
           d->physical / d->block <= 32768;
}

VMM_DEF int vio_blk_init(struct vio_blk *b, const struct vio_blk_desc *desc)
{
    size_t serial_len = desc->serial ? strlen(desc->serial) : 0;

    if (desc->capacity % 512 || serial_len > sizeof b->serial || !desc->submit ||
        desc->queues > VIO_BLK_QUEUES_MAX)
        return -EINVAL;
    memset(b, 0, offsetof(struct vio_blk, req)); /* the pool stays untouched memory */
    b->desc = *desc;
    if (!vio__blk_hints(&b->desc))
        return -EINVAL;
    vio__blk_configure(b);
    memcpy(b->serial, serial_len ? desc->serial : "", serial_len);
    b->dev = (struct vio_dev){.cls = &vio__blk_class,
                              .queues = b->queue,
                              .nqueues = b->desc.queues,
                              .features = vio__blk_features(&b->desc),
                              .config = b->config,
                              .config_len = sizeof b->config};
    return 0;
}

VMM_DEF void vio_blk_done(struct vio_blk *b, struct vio_blk_req *req, int err)
{
    unsigned q = req->queue;

    if (!err && vio__blk_next_range(req)) {
        b->desc.submit(b->desc.ctx, req);
        return;
    }
    vio__blk_answer(b, req, err ? VIO__BLK_IOERR : VIO__BLK_OK);
    if (b->starved)
        vio__blk_go_on(b);
    vio_end(&b->dev, q);
}

VMM_DEF void vio_blk_resume(struct vio_blk *b)
{
    b->held = false;
    vio__blk_go_on(b);
}

VMM_DEF void vio_blk_set_capacity(struct vio_blk *b, uint64_t capacity)
{
    struct vio__blk_config c;

    memcpy(&c, b->config, sizeof c);
    vio__blk_size(&c, capacity);
    memcpy(b->config, &c, sizeof c);
    b->desc.capacity = capacity / 512 * 512;
    vio_config_changed(&b->dev);
}

/* >>net: 5.1. A frame for the guest is read straight into its buffers, as many as the last frames
   needed, with a buffer of ours behind them. What runs over into that is put together there and
   waits for the guest: so nothing is lost for want of room, and only one frame is ever held. */
#define VIO__NET_F_CSUM           (1ULL << 0)
#define VIO__NET_F_GUEST_CSUM     (1ULL << 1)
#define VIO__NET_F_GUEST_OFFLOADS (1ULL << 2)
#define VIO__NET_F_MTU            (1ULL << 3)
#define VIO__NET_F_MAC            (1ULL << 5)
#define VIO__NET_F_GUEST_TSO4     (1ULL << 7)
#define VIO__NET_F_GUEST_TSO6     (1ULL << 8)
#define VIO__NET_F_GUEST_ECN      (1ULL << 9)
#define VIO__NET_F_HOST_TSO4      (1ULL << 11)
#define VIO__NET_F_HOST_TSO6      (1ULL << 12)
#define VIO__NET_F_HOST_ECN       (1ULL << 13)
#define VIO__NET_F_STATUS         (1ULL << 16)
#define VIO__NET_F_CTRL_VQ        (1ULL << 17)
#define VIO__NET_F_CTRL_RX        (1ULL << 18)
#define VIO__NET_F_GUEST_ANNOUNCE (1ULL << 21)
#define VIO__NET_F_MQ             (1ULL << 22)
#define VIO__NET_F_CTRL_MAC_ADDR  (1ULL << 23)
#define VIO__NET_F_GUEST_USO4     (1ULL << 54)
#define VIO__NET_F_GUEST_USO6     (1ULL << 55)
#define VIO__NET_F_HOST_USO       (1ULL << 56)
#define VIO__NET_F_ALWAYS                                                                          \
    (VIO__NET_F_MAC | VIO_NET_F_MRG_RXBUF | VIO__NET_F_STATUS | VIO__NET_F_CTRL_VQ |               \
     VIO__NET_F_CTRL_RX | VIO__NET_F_GUEST_ANNOUNCE | VIO__NET_F_CTRL_MAC_ADDR)

#define VIO__NET_F_GUEST_GSO                                                                       \
    (VIO__NET_F_GUEST_TSO4 | VIO__NET_F_GUEST_TSO6 | VIO__NET_F_GUEST_USO4 | VIO__NET_F_GUEST_USO6)

/* header flags and types, 5.1.6 */
enum { VIO__NET_NEEDS_CSUM = 1 };
enum { VIO__NET_GSO_TCPV4 = 1, VIO__NET_GSO_TCPV6 = 4, VIO__NET_GSO_UDP = 5, VIO__NET_ECN = 0x80 };
/* config.status */
enum { VIO__NET_LINK_UP = 1, VIO__NET_ANNOUNCE = 2 };

struct vio__net_hdr {
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};

struct vio__net_config {
    uint8_t mac[6];
    uint16_t status, max_pairs, mtu;
};

_Static_assert(sizeof(struct vio__net_hdr) == VIO_NET_HDR_LEN, "5.1.6");
_Static_assert(sizeof(struct vio__net_config) == sizeof(((struct vio_net *)0)->config), "5.1.4");
_Static_assert(VIO_NET_PAIRS_MAX >= 1 && VIO_NET_PAIRS_MAX <= 0x8000, "5.1.4.1");

/* What an offload is called in features: from the guest, and to it. */
static const struct {
    unsigned offload;
    uint64_t host, guest;
} vio__net_offloads[] = {
    {VIO_NET_CSUM, VIO__NET_F_CSUM, VIO__NET_F_GUEST_CSUM},
    {VIO_NET_TSO4, VIO__NET_F_HOST_TSO4, VIO__NET_F_GUEST_TSO4},
    {VIO_NET_TSO6, VIO__NET_F_HOST_TSO6, VIO__NET_F_GUEST_TSO6},
    {VIO_NET_ECN, VIO__NET_F_HOST_ECN, VIO__NET_F_GUEST_ECN},
    {VIO_NET_USO4, VIO__NET_F_HOST_USO, VIO__NET_F_GUEST_USO4},
    {VIO_NET_USO6, VIO__NET_F_HOST_USO, VIO__NET_F_GUEST_USO6},
};
#define VIO__NET_NOFFLOADS (sizeof vio__net_offloads / sizeof vio__net_offloads[0])

static struct vio__net_config vio__net_get_config(const struct vio_net *n)
{
    struct vio__net_config c;

    memcpy(&c, n->config, sizeof c);
    return c;
}

static void vio__net_put_config(struct vio_net *n, struct vio__net_config c)
{
    memcpy(n->config, &c, sizeof c);
}

/* Copies between a buffer and the front of a list of buffers; returns bytes. */
static size_t vio__net_copy(const struct vio_iov *iov, unsigned n, bool to_iov, void *buf,
                            size_t len)
{
    size_t done = 0;

    for (unsigned i = 0; i < n && done < len; i++) {
        size_t part = iov[i].len < len - done ? iov[i].len : len - done;
        uint8_t *mine = (uint8_t *)buf + done;
        memcpy(to_iov ? iov[i].base : mine, to_iov ? mine : iov[i].base, part);
        done += part;
    }
    vio__fetched();
    return done;
}

/* Frames from the guest. */

/* 5.1.6.2: is this a header that the driver may send, with the features that it accepted? */
static bool vio__net_hdr_ok(const struct vio_net *n, const struct vio__net_hdr *h, size_t len)
{
    uint64_t has = n->dev.accepted, need = 0;

    switch (h->gso_type & ~VIO__NET_ECN) {
    case 0:
        break;
    case VIO__NET_GSO_TCPV4:
        need = VIO__NET_F_HOST_TSO4;
        break;
    case VIO__NET_GSO_TCPV6:
        need = VIO__NET_F_HOST_TSO6;
        break;
    case VIO__NET_GSO_UDP:
        need = VIO__NET_F_HOST_USO;
        break;
    default:
        return false;
    }
    if (need && (!(h->flags & VIO__NET_NEEDS_CSUM) || !h->gso_size))
        return false;
    if (h->gso_type & VIO__NET_ECN)
        need |= VIO__NET_F_HOST_ECN;
    if (h->flags & VIO__NET_NEEDS_CSUM) {
        need |= VIO__NET_F_CSUM;
        if ((size_t)h->csum_start + h->csum_offset + 2 > len)
            return false;
    }
    return (has & need) == need;
}

/* Bits that mean nothing here are not passed on, nor what only a hint may say. */
static void vio__net_hdr_trim(struct vio__net_hdr *h, size_t len)
{
    h->flags &= VIO__NET_NEEDS_CSUM;
    h->num_buffers = 0;
    if (!h->gso_type)
        h->gso_size = 0;
    if (h->hdr_len > len)
        h->hdr_len = (uint16_t)len;
}

static int vio__net_send(struct vio_net *n, unsigned pair, const struct vio_chain *c)
{
    struct vio_iov iov[1 + VIO_CHAIN_MAX];
    struct vio__net_hdr h;
    size_t len = (size_t)c->rlen - sizeof h;
    unsigned niov;

    if (!(vio__net_get_config(n).status & VIO__NET_LINK_UP))
        return 0;
    if (c->rlen > VIO_NET_FRAME_MAX ||
        vio__net_copy(c->iov, c->nread, false, &h, sizeof h) < sizeof h || len < 14 ||
        !vio__net_hdr_ok(n, &h, len)) {
        if (vmm_spend(&n->dev.budget))
            vmm_say(n->dev.log, VMM_LOG_WARN,
                    "virtio-net: queue %u: a frame with a bad header or length was dropped",
                    2 * pair + 1);
        return 0;
    }
    vio__net_hdr_trim(&h, len);
    iov[0] = (struct vio_iov){&h, sizeof h};
    niov = 1 + vio__cut(c->iov, c->nread, sizeof h, len, iov + 1, VIO_CHAIN_MAX);
    return n->desc.port.send(n->desc.port.ctx, pair, iov + n->desc.bare, niov - n->desc.bare);
}

static void vio__net_tx(struct vio_net *n, unsigned pair)
{
    unsigned q = 2 * pair + 1;
    struct vio_chain c;

    n->pair[pair].blocked = false;
    while (vio_peek(&n->dev, q, &c)) {
        if (vio__net_send(n, pair, &c) == -EAGAIN) {
            n->pair[pair].blocked = true;
            return;
        }
        vio_take(&n->dev, q);
        vio_used(&n->dev, q, c.head, 0);
    }
}

/* Frames to the guest. */

/* Chains taken for one frame. */
struct vio__net_rx {
    unsigned q, nchains, niov;
    uint64_t room; /* bytes */
    bool full;     /* more chains would not help: they are too fragmented, or one is the limit */
    struct vio_done chain[VIO_CHAIN_MAX];
    struct vio_iov iov[VIO_CHAIN_MAX + 1];
};

/* Puts back all chains but the first `keep`. */
static void vio__net_unpop(struct vio_net *n, struct vio__net_rx *rx, unsigned keep)
{
    while (rx->nchains > keep)
        vio_unpop(&n->dev, rx->q, rx->chain[--rx->nchains].head);
}

/* Takes chains until there is room for `want` bytes. False: the driver lied. */
static bool vio__net_gather(struct vio_net *n, struct vio__net_rx *rx, uint64_t want)
{
    struct vio_chain c;

    while (rx->room < want && !rx->full && vio_pop(&n->dev, rx->q, &c)) {
        rx->chain[rx->nchains++] = (struct vio_done){c.head, (uint32_t)c.wlen};
        if (c.wlen < VIO_NET_HDR_LEN || c.wlen > UINT32_MAX) {
            vio__net_unpop(n, rx, 0);
            vio_needs_reset(&n->dev, rx->q, "a buffer for frames has no room for a header");
            return false;
        }
        rx->full = rx->niov + c.nwrite > VIO_CHAIN_MAX;
        if (rx->full) {
            vio__net_unpop(n, rx, rx->nchains - 1);
            break;
        }
        memcpy(rx->iov + rx->niov, c.iov + c.nread, c.nwrite * sizeof c.iov[0]);
        rx->niov += c.nwrite;
        rx->room += c.wlen;
        rx->full = !(n->dev.accepted & VIO_NET_F_MRG_RXBUF) || rx->nchains == VIO_CHAIN_MAX;
    }
    return true;
}

/* 5.1.6.4: gives the chains that hold a frame of `len` bytes to the driver, all at once. */
static void vio__net_give(struct vio_net *n, struct vio__net_rx *rx, uint32_t len)
{
    struct vio__net_hdr h;
    unsigned used = 0;

    for (uint32_t left = len; left; left -= rx->chain[used++].len)
        if (rx->chain[used].len > left)
            rx->chain[used].len = left;
    vio__net_unpop(n, rx, used);
    vio__net_copy(rx->iov, rx->niov, false, &h, sizeof h);
    if (!(n->dev.accepted & VIO__NET_F_GUEST_CSUM))
        h.flags = 0;
    h.num_buffers = (uint16_t)used;
    vio__net_copy(rx->iov, rx->niov, true, &h, sizeof h);
    vio_used_all(&n->dev, rx->q, rx->chain, used);
}

/* 5.1.6.5.1, 5.1.6.5.2: does the guest want a frame that begins like this? */
static bool vio__net_wanted(const struct vio_net *n, const uint8_t *frame, uint32_t len)
{
    const uint8_t *dst = frame + VIO_NET_HDR_LEN;
    struct vio__net_config c = vio__net_get_config(n);
    bool cut = frame[1] & ~VIO__NET_ECN; /* one frame stands for several */

    /* such as came before the driver said that it takes none */
    if (cut && !(n->dev.accepted & VIO__NET_F_GUEST_GSO))
        return false;

    /* 5.1.4.1: nothing beyond the MTU, unless it is to be cut (room for two VLAN tags) */
    if (n->dev.accepted & VIO__NET_F_MTU && !cut && len > VIO_NET_HDR_LEN + 14u + 8 + c.mtu)
        return false;
    if (n->promisc || n->unfiltered || !memcmp(dst, c.mac, 6) ||
        !memcmp(dst, "\xff\xff\xff\xff\xff\xff", 6) || (n->allmulti && dst[0] & 1))
        return true;
    for (unsigned i = 0; i < n->nmacs; i++)
        if (!memcmp(dst, n->mac[i], 6))
            return true;
    return false;
}

enum vio__net_step { VIO__NET_EMPTY, VIO__NET_STARVED, VIO__NET_GOON };

/* Tries to give the guest the frame that is held. */
static enum vio__net_step vio__net_unhold(struct vio_net *n, struct vio_net_pair *p,
                                          struct vio__net_rx *rx)
{
    if (!vio__net_gather(n, rx, p->held))
        return VIO__NET_STARVED;
    if (rx->room < p->held && !rx->full) {
        vio__net_unpop(n, rx, 0);
        return VIO__NET_STARVED;
    }
    if (rx->room < p->held) { /* it will never fit */
        vio__net_unpop(n, rx, 0);
    } else {
        vio__net_copy(rx->iov, rx->niov, true, p->spill, p->held);
        vio__net_give(n, rx, p->held);
    }
    p->held = 0;
    return VIO__NET_GOON;
}

/* One frame from the port into the chains taken, and what they have no room for into the spill. */
static uint32_t vio__net_recv(struct vio_net *n, unsigned pair, struct vio__net_rx *rx)
{
    uint32_t room = rx->room < VIO_NET_FRAME_MAX ? (uint32_t)rx->room : VIO_NET_FRAME_MAX;
    struct vio_iov iov[VIO_CHAIN_MAX + 1];
    struct vio__net_hdr none = {0};
    uint32_t skip = n->desc.bare ? sizeof none : 0;
    unsigned niov = vio__cut(rx->iov, rx->niov, skip, room - skip, iov, VIO_CHAIN_MAX);
    int got;

    if (room < VIO_NET_FRAME_MAX)
        iov[niov++] = (struct vio_iov){n->pair[pair].spill + room, VIO_NET_FRAME_MAX - room};
    if (n->desc.bare)
        vio__net_copy(rx->iov, rx->niov, true, &none, sizeof none);
    got = n->desc.port.recv(n->desc.port.ctx, pair, iov, niov);
    return got > 0 && (uint32_t)got <= VIO_NET_FRAME_MAX - skip ? (uint32_t)got + skip : 0;
}

/* One frame from the port to the guest. */
static enum vio__net_step vio__net_rx_one(struct vio_net *n, unsigned pair)
{
    struct vio_net_pair *p = &n->pair[pair];
    struct vio__net_rx rx;
    uint8_t front[VIO_NET_HDR_LEN + 14] = {0};
    uint32_t len;

    rx.q = 2 * pair;
    rx.nchains = rx.niov = 0;
    rx.room = 0;
    rx.full = false;
    if (p->held)
        return vio__net_unhold(n, p, &rx);
    if (!vio__net_gather(n, &rx, p->want ? p->want : 1) || !rx.nchains)
        return VIO__NET_STARVED;
    len = vio__net_recv(n, pair, &rx);
    if (len > rx.room) { /* put it together; it may still be filtered below */
        vio__net_copy(rx.iov, rx.niov, false, p->spill, (size_t)rx.room);
        memcpy(front, p->spill, sizeof front);
    } else if (len) {
        vio__net_copy(rx.iov, rx.niov, false, front, len < sizeof front ? len : sizeof front);
    }
    if (len < sizeof front || !vio__net_wanted(n, front, len)) {
        vio__net_unpop(n, &rx, 0);
        return len ? VIO__NET_GOON : VIO__NET_EMPTY;
    }
    p->want = len > p->want - p->want / 8 ? len : p->want - p->want / 8;
    if (len > rx.room) {
        p->held = len;
        vio__net_unpop(n, &rx, 0);
    } else {
        vio__net_give(n, &rx, len);
    }
    return VIO__NET_GOON;
}

/* As many frames as there are, but not for ever. */
static void vio__net_rx(struct vio_net *n, unsigned pair)
{
    enum vio__net_step step = VIO__NET_GOON;

    if (pair >= n->npairs || !(vio__net_get_config(n).status & VIO__NET_LINK_UP))
        return;
    for (unsigned i = 0; i < VIO_NET_BURST && step == VIO__NET_GOON; i++)
        step = vio__net_rx_one(n, pair);
    n->pair[pair].starved = step == VIO__NET_STARVED;
}

/* The control queue, 5.1.6.5: class, command, its data; the answer is one byte. */
enum {
    VIO__NET_RX_PROMISC = 0x000,
    VIO__NET_RX_ALLMULTI = 0x001,
    VIO__NET_MAC_TABLE = 0x100,
    VIO__NET_MAC_ADDR = 0x101,
    VIO__NET_ANNOUNCE_ACK = 0x300,
    VIO__NET_PAIRS = 0x400,
    VIO__NET_OFFLOADS = 0x500
};
enum { VIO__NET_OK = 0, VIO__NET_ERR = 1 };

/* Switches on what the guest takes now (bits of features). */
static void vio__net_guest_offloads(struct vio_net *n, uint64_t bits)
{
    unsigned offload = 0;

    for (unsigned i = 0; i < VIO__NET_NOFFLOADS; i++)
        if (bits & vio__net_offloads[i].guest)
            offload |= vio__net_offloads[i].offload;
    if (n->desc.port.set_offload)
        n->desc.port.set_offload(n->desc.port.ctx, offload);
}

static bool vio__net_set_offloads(struct vio_net *n, const struct vio_chain *c)
{
    uint64_t bits, all = 0;

    for (unsigned i = 0; i < VIO__NET_NOFFLOADS; i++)
        all |= vio__net_offloads[i].guest;
    if (vio_chain_read(c, 2, &bits, sizeof bits) < sizeof bits || bits & ~(all & n->dev.accepted))
        return false;
    vio__net_guest_offloads(n, bits);
    return true;
}

static void vio__net_use_pairs(struct vio_net *n, unsigned npairs)
{
    n->npairs = npairs;
    if (n->desc.port.set_pairs)
        n->desc.port.set_pairs(n->desc.port.ctx, npairs);
}

static bool vio__net_set_pairs(struct vio_net *n, const struct vio_chain *c)
{
    uint16_t npairs;

    if (vio_chain_read(c, 2, &npairs, sizeof npairs) < sizeof npairs || !npairs ||
        npairs > n->desc.pairs)
        return false;
    vio__net_use_pairs(n, npairs);
    return true;
}

static bool vio__net_set_mode(const struct vio_chain *c, bool *mode)
{
    uint8_t on;

    if (vio_chain_read(c, 2, &on, 1) < 1 || on > 1)
        return false;
    *mode = on;
    return true;
}

static bool vio__net_set_mac(struct vio_net *n, const struct vio_chain *c)
{
    struct vio__net_config config = vio__net_get_config(n);

    if (vio_chain_read(c, 2, config.mac, 6) < 6 || config.mac[0] & 1)
        return false;
    vio__net_put_config(n, config);
    return true;
}

/* Two tables, of which we keep what fits: with more addresses everything passes, as the driver has
   to expect (5.1.6.5.2). */
static bool vio__net_set_macs(struct vio_net *n, const struct vio_chain *c)
{
    uint8_t mac[VIO_NET_MACS_MAX][6];
    uint64_t off = 2, total = 0;
    unsigned kept = 0;

    for (unsigned table = 0; table < 2; table++) {
        uint32_t count;
        if (vio_chain_read(c, off, &count, 4) < 4 || count > (c->rlen - off - 4) / 6)
            return false;
        off += 4;
        if (kept + (uint64_t)count <= VIO_NET_MACS_MAX)
            kept += (unsigned)vio_chain_read(c, off, mac[kept], 6 * (size_t)count) / 6;
        off += 6 * (uint64_t)count;
        total += count;
    }
    memcpy(n->mac, mac, 6 * (size_t)kept);
    n->nmacs = kept;
    n->unfiltered = total > VIO_NET_MACS_MAX;
    return true;
}

static bool vio__net_command(struct vio_net *n, const struct vio_chain *c)
{
    struct vio__net_config config = vio__net_get_config(n);
    uint8_t cmd[2];

    if (vio_chain_read(c, 0, cmd, 2) < 2)
        return false;
    switch (cmd[0] << 8 | cmd[1]) {
    case VIO__NET_RX_PROMISC:
        return vio__net_set_mode(c, &n->promisc);
    case VIO__NET_RX_ALLMULTI:
        return vio__net_set_mode(c, &n->allmulti);
    case VIO__NET_MAC_TABLE:
        return vio__net_set_macs(n, c);
    case VIO__NET_MAC_ADDR:
        return vio__net_set_mac(n, c);
    case VIO__NET_ANNOUNCE_ACK:
        config.status &= (uint16_t)~VIO__NET_ANNOUNCE;
        vio__net_put_config(n, config);
        return true;
    case VIO__NET_PAIRS:
        return vio__net_set_pairs(n, c);
    case VIO__NET_OFFLOADS:
        return vio__net_set_offloads(n, c);
    default:
        return false;
    }
}

static void vio__net_control(struct vio_net *n, unsigned q)
{
    struct vio_chain c;

    while (vio_pop(&n->dev, q, &c)) {
        uint8_t answer = vio__net_command(n, &c) ? VIO__NET_OK : VIO__NET_ERR;
        vio_used(&n->dev, q, c.head, (uint32_t)vio_chain_write(&c, 0, &answer, 1));
    }
}

/* The card as a device. */

/* 5.1.2: pairs that the driver knows of; the control queue comes after them. */
static unsigned vio__net_known_pairs(const struct vio_net *n)
{
    return n->dev.accepted & VIO__NET_F_MQ ? n->desc.pairs : 1;
}

static void vio__net_queue(struct vio_dev *d, unsigned q)
{
    struct vio_net *n = (struct vio_net *)d;
    unsigned npairs = vio__net_known_pairs(n);

    if (q == 2 * npairs)
        vio__net_control(n, q);
    else if (q / 2 < npairs && q % 2)
        vio__net_tx(n, q / 2);
    else if (q / 2 < npairs)
        vio__net_rx(n, q / 2);
}

static void vio__net_driver_ready(struct vio_dev *d)
{
    struct vio_net *n = (struct vio_net *)d;

    vio__net_guest_offloads(n, d->accepted);
    vio__net_use_pairs(n, 1);
}

static void vio__net_start(struct vio_dev *d, unsigned q)
{
    struct vio_net *n = (struct vio_net *)d;

    if (q / 2 < vio__net_known_pairs(n) && n->desc.port.start)
        d->queues[q].away = n->desc.port.start(n->desc.port.ctx, q);
    n->away |= (uint64_t)d->queues[q].away << q;
}

static void vio__net_stop(struct vio_dev *d, unsigned q)
{
    struct vio_net *n = (struct vio_net *)d;

    if (n->away >> q & 1)
        n->desc.port.stop(n->desc.port.ctx, q);
    n->away &= ~(1ULL << q);
    if (q / 2 < n->desc.pairs)
        n->pair[q / 2].held = 0;
}

/* The filter lets everything pass until the driver sets it: not every driver does. */
static void vio__net_reset(struct vio_dev *d)
{
    struct vio_net *n = (struct vio_net *)d;
    struct vio__net_config c = vio__net_get_config(n);

    memcpy(c.mac, n->desc.mac, sizeof c.mac);
    c.status &= VIO__NET_LINK_UP;
    vio__net_put_config(n, c);
    n->promisc = true;
    n->allmulti = n->unfiltered = false;
    n->nmacs = 0;
    n->npairs = 1;
    for (unsigned i = 0; i < n->desc.pairs; i++) {
        n->pair[i].want = 0;
        n->pair[i].starved = n->pair[i].blocked = false;
    }
}

static const struct vio_class vio__net_class = {.id = 1,
                                                .name = "net",
                                                .queue = vio__net_queue,
                                                .ready = vio__net_driver_ready,
                                                .start = vio__net_start,
                                                .stop = vio__net_stop,
                                                .reset = vio__net_reset};

static uint64_t vio__net_features(const struct vio_net_desc *desc)
{
    uint64_t f = VIO__NET_F_ALWAYS;

    for (unsigned i = 0; i < VIO__NET_NOFFLOADS && !desc->bare && desc->port.set_offload; i++)
        if (desc->offload & vio__net_offloads[i].offload)
            f |= vio__net_offloads[i].host | vio__net_offloads[i].guest | VIO__NET_F_GUEST_OFFLOADS;
    if (desc->mtu)
        f |= VIO__NET_F_MTU;
    if (desc->pairs > 1)
        f |= VIO__NET_F_MQ;
    return f & ~desc->features_off;
}

VMM_DEF int vio_net_init(struct vio_net *n, const struct vio_net_desc *desc)
{
    struct vio__net_config c = {.mtu = desc->mtu};

    if (!desc->port.send || !desc->port.recv || desc->pairs > VIO_NET_PAIRS_MAX ||
        desc->mac[0] & 1 || (desc->mtu && desc->mtu < 68))
        return -EINVAL;
    memset(n, 0, offsetof(struct vio_net, pair)); /* the pairs' big buffers stay untouched */
    n->desc = *desc;
    n->desc.pairs = desc->pairs ? desc->pairs : 1;
    c.max_pairs = (uint16_t)n->desc.pairs;
    c.status = desc->link_down ? 0 : VIO__NET_LINK_UP;
    vio__net_put_config(n, c);
    n->dev = (struct vio_dev){.cls = &vio__net_class,
                              .queues = n->queue,
                              .nqueues = 2 * n->desc.pairs + 1,
                              .features = vio__net_features(&n->desc),
                              .features_off = desc->features_off & VIO_F_CORE,
                              .config = n->config,
                              .config_len = sizeof n->config};
    for (unsigned i = 0; i < n->desc.pairs; i++)
        n->pair[i].held = 0;
    vio__net_reset(&n->dev);
    return 0;
}

VMM_DEF void vio_net_ready(struct vio_net *n, unsigned pair)
{
    if (n->pair[pair].blocked)
        vio_queue_run(&n->dev, 2 * pair + 1);
    vio_queue_run(&n->dev, 2 * pair);
}

VMM_DEF unsigned vio_net_waits(const struct vio_net *n, unsigned pair)
{
    const struct vio_net_pair *p = &n->pair[pair];
    bool up = vio__net_get_config(n).status & VIO__NET_LINK_UP;
    bool rx = up && pair < n->npairs && !p->starved && vio_live(&n->dev, 2 * pair);

    return (rx ? VIO_NET_RX : 0u) |
           (p->blocked && vio_live(&n->dev, 2 * pair + 1) ? VIO_NET_TX : 0u);
}

VMM_DEF void vio_net_set_link(struct vio_net *n, bool up)
{
    struct vio__net_config c = vio__net_get_config(n);

    if (up == (c.status & VIO__NET_LINK_UP))
        return;
    c.status ^= VIO__NET_LINK_UP;
    vio__net_put_config(n, c);
    vio_config_changed(&n->dev);
}

VMM_DEF void vio_net_take_back(struct vio_net *n, unsigned q)
{
    n->dev.queues[q].away = false;
    n->away &= ~(1ULL << q);
    vio_queue_run(&n->dev, q);
}

VMM_DEF void vio_net_announce(struct vio_net *n)
{
    struct vio__net_config c = vio__net_get_config(n);

    if (!(n->dev.accepted & VIO__NET_F_GUEST_ANNOUNCE))
        return;
    c.status |= VIO__NET_ANNOUNCE;
    vio__net_put_config(n, c);
    vio_config_changed(&n->dev);
}

/* >>rng: 5.4. With its declarations above, half a hundred lines: what a simple device costs. */
static void vio__rng_queue(struct vio_dev *d, unsigned q)
{
    struct vio_rng *r = (struct vio_rng *)d;
    struct vio_chain c;

    while (vio_peek(d, q, &c) && !(r->desc.wait && r->desc.wait(r->desc.ctx))) {
        unsigned n = vio__cut(c.iov + c.nread, c.nwrite, 0, VIO_RNG_MAX, c.iov, VIO_CHAIN_MAX);
        size_t done = 0;
        vio_take(d, q);
        for (unsigned i = 0; i < n; i++) {
            size_t got = r->desc.fill(r->desc.ctx, c.iov[i].base, c.iov[i].len);
            done += got;
            if (got < c.iov[i].len)
                break;
        }
        vio_used(d, q, c.head, (uint32_t)done);
    }
}

static const struct vio_class vio__rng_class = {.id = 4, .name = "rng", .queue = vio__rng_queue};

VMM_DEF int vio_rng_init(struct vio_rng *r, const struct vio_rng_desc *desc)
{
    if (!desc->fill)
        return -EINVAL;
    *r = (struct vio_rng){.desc = *desc};
    r->dev = (struct vio_dev){.cls = &vio__rng_class, .queues = r->queue, .nqueues = 1};
    return 0;
}

#endif /* VIO__IMPLEMENTED */
#endif /* DEV_VIRTIO_IMPLEMENTATION */
