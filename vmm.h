/* vmm.h - the vocabulary that every room of vmm shares            MIT licence, see LICENSE

   WHAT IT IS      Types and inline functions for guest memory, interrupts, I/O dispatch, vCPU
                   exits, registers, byte streams and log lines, and the contract that a hypervisor
                   backend (hv_kvm.h, ...) fulfils. It owns nothing, allocates nothing, calls no
                   operating system and keeps no state of its own.

   QUICK START     static uint8_t ram[4096];
                   struct vmm_mem mem = {0};
                   vmm_mem_add(&mem, 0x1000, sizeof ram, ram);
                   uint8_t *last = vmm_at(&mem, 0x1ffe, 2);        // two bytes: there
                   bool beyond = vmm_at(&mem, 0x1fff, 2) != NULL;  // false: leaves the range

   CONFIGURATION   set everywhere, before the first include:
                   VMM_DEF        linkage of every function of every header; default extern
                   VMM_MEM_MAX    ranges of guest memory; default 8
                   VMM_BUS_MAX    handlers on one bus; default 64

   DEPENDS ON      <errno.h> <stdarg.h> <stdbool.h> <stddef.h> <stdint.h> <string.h> alone.

   THREADS         Nothing here locks. vmm_at and vmm_bus_access only read their tables: fill these
                   before the first vCPU runs, then share them freely.
   ERRORS          0 or a negative errno; the sentence for a human goes to the log, where the cause
                   is known. Haiku's errno is negative itself, but not for a program that is compiled
                   with B_USE_POSITIVE_POSIX_ERRORS and linked with libposix_error_mapper.
   GUEST TRUST     vmm_at is the only door from a guest address to a host pointer. It yields NULL
                   unless all bytes lie in one range of guest memory, for any address and length. */
#ifndef VMM_H
#define VMM_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if EINVAL < 0 /* as on Haiku, where -errno would be no error */
#error "errors must be positive: -DB_USE_POSITIVE_POSIX_ERRORS and, to link, -lposix_error_mapper"
#endif
#ifndef VMM_DEF
#define VMM_DEF extern
#endif
#ifndef VMM_MEM_MAX
#define VMM_MEM_MAX 8
#endif
#ifndef VMM_BUS_MAX
#define VMM_BUS_MAX 64
#endif

#if defined(__GNUC__)
#define VMM_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define VMM_PRINTF(fmt, args)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* >>log: one line for a human, without a newline. The sink formats; so pure headers need no stdio.
 */
enum vmm_level { VMM_LOG_NONE, VMM_LOG_ERROR, VMM_LOG_WARN, VMM_LOG_INFO, VMM_LOG_DEBUG };

struct vmm_log {
    void (*sink)(void *ctx, enum vmm_level level, const char *fmt, va_list args); /* any thread */
    void *ctx;
    enum vmm_level level; /* the most talkative level that is wanted */
};

/* Says one line; log may be NULL. */
VMM_PRINTF(3, 4)
static inline void vmm_say(const struct vmm_log *log, enum vmm_level level, const char *fmt, ...)
{
    va_list args;

    if (!log || !log->sink || level > log->level)
        return;
    va_start(args, fmt);
    log->sink(log->ctx, level, fmt, args);
    va_end(args);
}

/* Says why something failed and passes the (negative) error on: return vmm_err(log, -EINVAL,
 * "..."). */
VMM_PRINTF(3, 4)
static inline int vmm_err(const struct vmm_log *log, int err, const char *fmt, ...)
{
    va_list args;

    if (log && log->sink && log->level >= VMM_LOG_ERROR) {
        va_start(args, fmt);
        log->sink(log->ctx, VMM_LOG_ERROR, fmt, args);
        va_end(args);
    }
    return err;
}

/* A guest that lies gets only so many lines of the log: spend one, false when the budget is gone.
 */
struct vmm_budget {
    uint8_t spent;
};

static inline bool vmm_spend(struct vmm_budget *b)
{
    return b->spent < 8 && ++b->spent;
}

/* >>bytes: little-endian values at any alignment. Every host and guest of vmm is little-endian. */
static inline uint16_t vmm_get16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t vmm_get32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t vmm_get64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void vmm_put16(void *p, uint16_t v)
{
    memcpy(p, &v, sizeof v);
}

static inline void vmm_put32(void *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

static inline void vmm_put64(void *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}

/* The low `len` bytes (1, 2, 4 or 8) set: what a read of nothing yields, and the mask of an access.
 */
static inline uint64_t vmm_ones(unsigned len)
{
    return len >= 8 ? ~(uint64_t)0 : ((uint64_t)1 << (8 * len)) - 1;
}

/* >>bucket: a limit in units (bytes, requests) a second. Whoever wants n units asks vmm_bucket_wait
   until it says 0, and then takes them; a large n goes at once and is paid for afterwards. All zero:
   no limit. The clock is the caller's. */
struct vmm_bucket {
    uint64_t rate;     /* units a second; 0: no limit */
    uint64_t burst_ns; /* what was not used for so long may be made up for at once */
    uint64_t paid_ns;  /* private: when all that was taken is paid for */
};

/* Nanoseconds until more may be taken; 0: now. */
static inline uint64_t vmm_bucket_wait(const struct vmm_bucket *b, uint64_t now_ns)
{
    return b->paid_ns > now_ns ? b->paid_ns - now_ns : 0;
}

/* Takes n units, at most 2^34. */
static inline void vmm_bucket_take(struct vmm_bucket *b, uint64_t now_ns, uint64_t n)
{
    uint64_t oldest = now_ns > b->burst_ns ? now_ns - b->burst_ns : 0;

    if (!b->rate)
        return;
    if (b->paid_ns < oldest)
        b->paid_ns = oldest;
    b->paid_ns += n * 1000000000 / b->rate;
}

/* >>memory: guest-physical RAM as a short list of ranges, each one piece of host memory. */
struct vmm_range {
    uint64_t gpa; /* guest-physical address of the first byte */
    uint64_t len; /* bytes */
    uint8_t *hva; /* where the host sees them */
};

struct vmm_mem {
    struct vmm_range range[VMM_MEM_MAX];
    unsigned nranges;
};

/* Adds a range. -EINVAL: empty or wraps around 2^64; -EEXIST: overlaps another; -ENOSPC: more than
 * VMM_MEM_MAX. */
static inline int vmm_mem_add(struct vmm_mem *m, uint64_t gpa, uint64_t len, void *hva)
{
    if (!len || gpa + len - 1 < gpa)
        return -EINVAL;
    for (unsigned i = 0; i < m->nranges; i++)
        if (gpa <= m->range[i].gpa + m->range[i].len - 1 && m->range[i].gpa <= gpa + len - 1)
            return -EEXIST;
    if (m->nranges == VMM_MEM_MAX)
        return -ENOSPC;
    m->range[m->nranges].gpa = gpa;
    m->range[m->nranges].len = len;
    m->range[m->nranges].hva = (uint8_t *)hva;
    m->nranges++;
    return 0;
}

/* The host address of guest bytes [gpa, gpa + len), or NULL unless all of them lie in one range.
   The guest may change these bytes at any time: copy a structure once, validate the copy, use the
   copy. */
static inline void *vmm_at(const struct vmm_mem *m, uint64_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < m->nranges; i++) {
        const struct vmm_range *r = &m->range[i];
        uint64_t off = gpa - r->gpa;
        if (gpa >= r->gpa && off < r->len && len <= r->len - off)
            return r->hva + off;
    }
    return NULL;
}

/* >>interrupts: a line is a value that a device is given. set is thread-safe and takes no device's
 * lock. */
struct vmm_irq {
    void (*set)(void *ctx, unsigned line, bool level);
    void *ctx;
    unsigned line;
};

static inline void vmm_irq_set(const struct vmm_irq *irq, bool level)
{
    if (irq->set)
        irq->set(irq->ctx, irq->line, level);
}

/* A message-signalled interrupt is a write of data to addr; vector is the device's own number for
   it. send is thread-safe and takes no device's lock. */
struct vmm_msi {
    void (*send)(void *ctx, unsigned vector, uint64_t addr, uint32_t data);
    void *ctx;
};

static inline void vmm_msi_send(const struct vmm_msi *msi, unsigned vector, uint64_t addr,
                                uint32_t data)
{
    if (msi->send)
        msi->send(msi->ctx, vector, addr, data);
}

/* >>timers: what time it is, and a call to come. A device that is given one says by wake when its
   x_tick wants to be called, at that time or soon after; the last wish counts. */
struct vmm_timer {
    uint64_t (*now)(void *ctx);              /* ns; never goes back; NULL: it is always 0 */
    void (*wake)(void *ctx, uint64_t at_ns); /* UINT64_MAX: not at all; NULL: nobody calls */
    void *ctx;
};

static inline uint64_t vmm_timer_now(const struct vmm_timer *t)
{
    return t->now ? t->now(t->ctx) : 0;
}

static inline void vmm_timer_wake(const struct vmm_timer *t, uint64_t at_ns)
{
    if (t->wake)
        t->wake(t->ctx, at_ns);
}

/* >>streams: where a device with a byte stream (UART, console) sends what its guest writes. The
   opposite way is a function of the device (x_rx, which says how many bytes it had room for).
   Called with the device's lock held. */
struct vmm_stream {
    size_t (*write)(void *ctx, const void *buf,
                    size_t len); /* bytes taken; fewer: call x_tx_ready once there is room */
    void (*rx_room)(void *ctx);  /* the guest made room: offer more input; may be NULL */
    void *ctx;
};

/* >>locks: devices are single-threaded; whoever calls one from several threads brings a lock. All
 * NULL: none. */
struct vmm_lock {
    void (*enter)(void *ctx);
    void (*leave)(void *ctx);
    void *ctx;
};

static inline void vmm_enter(const struct vmm_lock *l)
{
    if (l->enter)
        l->enter(l->ctx);
}

static inline void vmm_leave(const struct vmm_lock *l)
{
    if (l->leave)
        l->leave(l->ctx);
}

/* >>bus: who answers at which address; one for ports, one for MMIO. off is relative to base, len is
 * 1, 2, 4 or 8. */
struct vmm_io {
    uint64_t base, len;
    uint64_t (*read)(void *dev, uint64_t off, unsigned len);
    void (*write)(void *dev, uint64_t off, unsigned len, uint64_t val);
    void *dev;
    struct vmm_lock lock; /* held during read and write */
};

struct vmm_bus {
    struct vmm_io io[VMM_BUS_MAX]; /* ascending base, disjoint */
    unsigned nio;
};

/* Adds a handler. -EINVAL: empty or wraps; -EEXIST: overlaps another; -ENOSPC: more than
 * VMM_BUS_MAX. */
static inline int vmm_bus_add(struct vmm_bus *bus, const struct vmm_io *io)
{
    unsigned at = 0;

    if (!io->len || io->base + io->len - 1 < io->base)
        return -EINVAL;
    if (bus->nio == VMM_BUS_MAX)
        return -ENOSPC;
    while (at < bus->nio && bus->io[at].base < io->base)
        at++;
    if (at > 0 && bus->io[at - 1].base + bus->io[at - 1].len - 1 >= io->base)
        return -EEXIST;
    if (at < bus->nio && io->base + io->len - 1 >= bus->io[at].base)
        return -EEXIST;
    memmove(&bus->io[at + 1], &bus->io[at], (bus->nio - at) * sizeof bus->io[0]);
    bus->io[at] = *io;
    bus->nio++;
    return 0;
}

/* The handler whose range holds all of [addr, addr + len), or NULL. */
static inline const struct vmm_io *vmm_bus_find(const struct vmm_bus *bus, uint64_t addr,
                                                unsigned len)
{
    unsigned lo = 0, hi = bus->nio;

    while (lo < hi) {
        unsigned mid = lo + (hi - lo) / 2;
        const struct vmm_io *io = &bus->io[mid];
        if (addr < io->base)
            hi = mid;
        else if (addr - io->base >= io->len)
            lo = mid + 1;
        else
            return len <= io->len - (addr - io->base) ? io : NULL;
    }
    return NULL;
}

/* One guest access. A read of nothing yields all ones, a write to nothing is lost; both return
 * false. */
static inline bool vmm_bus_access(const struct vmm_bus *bus, uint64_t addr, unsigned len,
                                  bool write, uint64_t *val)
{
    const struct vmm_io *io = vmm_bus_find(bus, addr, len);

    if (!io) {
        if (!write)
            *val = vmm_ones(len);
        return false;
    }
    vmm_enter(&io->lock);
    if (write)
        io->write(io->dev, addr - io->base, len, *val & vmm_ones(len));
    else
        *val = io->read(io->dev, addr - io->base, len) & vmm_ones(len);
    vmm_leave(&io->lock);
    return true;
}

/* >>exits: why a vCPU came back from the guest. */
enum vmm_exit_kind {
    VMM_EXIT_AGAIN,    /* kicked or interrupted: nothing to do, look at your own flags */
    VMM_EXIT_PIO,      /* port access: addr, size, count, write, data */
    VMM_EXIT_MMIO,     /* access to unmapped guest-physical memory: the same fields */
    VMM_EXIT_HALT,     /* HLT, only without HYP_CAP_LAPIC */
    VMM_EXIT_MSR,      /* MSR addr, 8 bytes of data: one that the hypervisor does not have, among
                          them the LAPIC's without HYP_CAP_LAPIC; see hyp_msr_refuse */
    VMM_EXIT_EOI,      /* a LAPIC finished the level-triggered interrupt of vector addr; only with
                          HYP_CAP_LAPIC and without HYP_CAP_IRQCHIP */
    VMM_EXIT_SHUTDOWN, /* x86 triple fault */
    VMM_EXIT_OFF,      /* arm64: the guest powers off, by PSCI */
    VMM_EXIT_RESET,    /* arm64: it resets itself, by PSCI */
    VMM_EXIT_DEBUG,    /* what hyp_debug asked for: code says which (enum vmm_debug_why), addr is the
                          linear address of the instruction that comes next */
    VMM_EXIT_FAULT     /* the hypervisor cannot go on: why, code, and the bytes at the instruction
                          pointer in data/size */
};

struct vmm_exit {
    enum vmm_exit_kind kind;
    bool write;      /* the guest writes; else fill data before the next hyp_run */
    unsigned size;   /* bytes of one access: 1, 2, 4 or 8 */
    unsigned count;  /* accesses, one after the other, to the same addr (string I/O); else 1 */
    uint64_t addr;   /* port or guest-physical address */
    uint8_t *data;   /* size * count bytes, owned by the backend, valid until the next hyp_run */
    const char *why; /* VMM_EXIT_FAULT: a constant phrase */
    uint64_t code;   /* VMM_EXIT_FAULT: the backend's own number for it */
};

/* >>debug: what a debugger wants of a CPU. */
#define VMM_BREAKS 4 /* hardware break- and watchpoints */

enum vmm_break_kind { VMM_BREAK_EXEC, VMM_BREAK_WRITE, VMM_BREAK_ACCESS };

struct vmm_break {
    uint64_t addr; /* linear */
    uint8_t len;   /* 1, 2, 4 or 8, to which addr is aligned; EXEC: 1; 0: not in use */
    enum vmm_break_kind kind;
};

struct vmm_debug {
    struct vmm_break slot[VMM_BREAKS];
    bool step;  /* one instruction, no interrupt before it where that can be had */
    bool traps; /* breakpoint instructions come out, the guest's own among them */
};

enum vmm_debug_why {        /* bits */
    VMM_DEBUG_SLOTS = 0xf,  /* bit n: slot n; after the instruction; EXEC and arm64: before it */
    VMM_DEBUG_STEP = 0x10,  /* the one instruction is done */
    VMM_DEBUG_TRAP = 0x20,  /* a breakpoint instruction is next */
    VMM_DEBUG_UNABLE = 0x40 /* nothing was done: there is no stepping here */
};

/* The same for x86's debug registers ("Intel SDM" volume 3, 18.2): DR7 that arms the slots, and what
   DR6 says of them, where bits of slots that are not in use may be set. */
#define VMM_X86_DR6_BS 0x4000u /* a single step */

static inline uint64_t vmm_x86_dr7(const struct vmm_debug *d)
{
    static const uint8_t types[] = {0, 1, 3}; /* by enum vmm_break_kind */
    static const uint8_t lens[] = {0, 0, 1, 0, 3, 0, 0, 0, 2};
    uint64_t dr7 = 0x400;

    for (unsigned i = 0; i < VMM_BREAKS; i++)
        if (d->slot[i].len)
            dr7 |= (uint64_t)2 << 2 * i | (uint64_t)types[d->slot[i].kind] << (16 + 4 * i) |
                   (uint64_t)lens[d->slot[i].len] << (18 + 4 * i);
    return dr7;
}

static inline unsigned vmm_x86_debug_why(const struct vmm_debug *d, uint64_t dr6)
{
    unsigned why = d->step && dr6 & VMM_X86_DR6_BS ? VMM_DEBUG_STEP : 0;

    for (unsigned i = 0; i < VMM_BREAKS; i++)
        if (dr6 >> i & 1 && d->slot[i].len)
            why |= 1u << i;
    return why;
}

/* Carries out a PIO or MMIO exit on a bus. False: no handler claimed (the last of) it. */
static inline bool vmm_bus_exit(const struct vmm_bus *bus, const struct vmm_exit *e)
{
    bool claimed = true;

    for (unsigned i = 0; i < e->count; i++) {
        uint64_t val = 0;
        if (e->write)
            memcpy(&val, e->data + (size_t)i * e->size, e->size);
        claimed = vmm_bus_access(bus, e->addr, e->size, e->write, &val);
        if (!e->write)
            memcpy(e->data + (size_t)i * e->size, &val, e->size);
    }
    return claimed;
}

/* >>registers: what a loader sets and a state dump shows. */
enum vmm_x86_gpr { /* the encoding order of the instruction set */
                   VMM_RAX,
                   VMM_RCX,
                   VMM_RDX,
                   VMM_RBX,
                   VMM_RSP,
                   VMM_RBP,
                   VMM_RSI,
                   VMM_RDI,
                   VMM_R8,
                   VMM_R9,
                   VMM_R10,
                   VMM_R11,
                   VMM_R12,
                   VMM_R13,
                   VMM_R14,
                   VMM_R15
};

struct vmm_x86_seg {
    uint64_t base;
    uint32_t limit; /* in bytes: the granularity bit is already applied */
    uint16_t selector;
    uint16_t attr; /* bits 40-55 of a descriptor without the limit bits: 0xa09b is 64-bit code,
                      0xc093 32-bit data */
};

struct vmm_x86_regs {
    uint64_t gpr[16]; /* by enum vmm_x86_gpr */
    uint64_t rip, rflags;
    uint64_t cr0, cr2, cr3, cr4, efer;
    struct vmm_x86_seg cs, ds, es, fs, gs, ss, tr, ldt;
    struct vmm_x86_seg gdt, idt; /* base and limit only */
};

struct vmm_arm64_regs {
    uint64_t x[31]; /* x30 is the link register */
    uint64_t pc, pstate;
    uint64_t sp_el0, sp_el1; /* which of them is SP: see vmm_arm64_sp */
    uint64_t elr_el1, spsr_el1, esr_el1, far_el1; /* of the last exception to EL1 */
    uint64_t sctlr_el1, tcr_el1, ttbr0_el1, ttbr1_el1, mair_el1, vbar_el1;
    uint64_t tpidr_el0, tpidr_el1; /* Linux: the thread's data, the CPU's data */
};

/* The stack pointer of the mode that PSTATE names: EL0t and EL1t use SP_EL0. */
static inline uint64_t vmm_arm64_sp(const struct vmm_arm64_regs *r)
{
    return (r->pstate & 15) == 5 ? r->sp_el1 : r->sp_el0;
}

/* The guest takes a debug exception that went to the hypervisor in its place (DDI 0487, D1.3): esr as
   the hypervisor has it, where each comes from below; far only matters to a watchpoint. */
static inline void vmm_arm64_take_debug(struct vmm_arm64_regs *r, uint32_t esr, uint64_t far)
{
    const uint64_t kept = 0xf1400000, pan = 1 << 22, ssbs = 1 << 12, el1h_masked = 0x3c5;
    unsigned ec = esr >> 26;
    bool el1 = (r->pstate & 0x1c) == 4;

    if (ec == 0x34)
        r->far_el1 = far;
    r->esr_el1 = el1 && ec >= 0x30 && ec <= 0x34 ? esr | 1u << 26 : esr; /* but for BRK */
    r->elr_el1 = r->pc;
    r->spsr_el1 = r->pstate;
    r->pc = r->vbar_el1 + (el1 ? (r->pstate & 1) * 0x200 : r->pstate & 0x10 ? 0x600 : 0x400);
    r->pstate = (r->pstate & kept) | (r->sctlr_el1 >> 23 & 1 ? 0 : pan) | /* SPAN */
                (r->sctlr_el1 >> 44 & 1 ? ssbs : 0) | el1h_masked;        /* DSSBS */
}

/* DBGBVR and DBGBCR, or DBGWVR and DBGWCR, for a slot (DDI 0487, D17.3): enabled at EL1 and EL0, all
   bytes of a breakpoint's; those of a watchpoint are chosen from the eight at an aligned address. */
static inline uint64_t vmm_arm64_slot(const struct vmm_break *b, uint64_t *value)
{
    const uint64_t on = 7, insn = 0xf << 5, loads = 1 << 3, stores = 2 << 3;
    uint64_t bytes = (((uint64_t)1 << b->len) - 1) << (b->addr & 7) << 5;

    *value = b->kind == VMM_BREAK_EXEC ? b->addr : b->addr & ~(uint64_t)7;
    if (b->kind == VMM_BREAK_EXEC)
        return on | insn;
    return on | bytes | stores | (b->kind == VMM_BREAK_ACCESS ? loads : 0);
}

/* Which of what was wanted has come (enum vmm_debug_why), by the hypervisor's syndrome. Where an
   access begins, far says, and it may begin before the bytes that are watched (D2.10.5): the nearest
   slot it is. */
static inline uint64_t vmm_arm64_why(const struct vmm_debug *d, uint32_t esr, uint64_t pc,
                                     uint64_t far)
{
    unsigned ec = esr >> 26;
    uint64_t best = UINT64_MAX, why = 0;

    if (ec == 0x3c || ec == 0x38) /* BRK, BKPT */
        return VMM_DEBUG_TRAP;
    if (ec == 0x32)
        return d->step ? VMM_DEBUG_STEP : 0;
    for (unsigned i = 0; i < VMM_BREAKS; i++) {
        const struct vmm_break *b = &d->slot[i];
        uint64_t addr = ec == 0x30 ? pc : far, away = addr - b->addr < b->len ? 0 : b->addr - addr;
        bool exec = b->kind == VMM_BREAK_EXEC;
        if (b->len && exec == (ec == 0x30) && away < best && !(exec && away)) {
            best = away;
            why = (uint64_t)1 << i;
        }
    }
    return why;
}

/* Floating point and vectors. */
struct vmm_x86_fpu {
    uint8_t st[8][16]; /* ST0 first; 10 bytes of each */
    uint8_t xmm[16][16];
    uint64_t fip, fdp;
    uint32_t mxcsr;
    uint16_t fcw, fsw, fop;
    uint8_t ftw; /* as FXSAVE has it: a bit for each register that is in use */
};

struct vmm_arm64_fpu {
    uint8_t v[32][16];
    uint32_t fpsr, fpcr;
};

/* Those of the architecture that this is compiled for, which hyp_get_regs and the like move. */
#if defined(__aarch64__)
#define vmm_regs vmm_arm64_regs
#define vmm_fpu  vmm_arm64_fpu
#else
#define vmm_regs vmm_x86_regs
#define vmm_fpu  vmm_x86_fpu
#endif

/* >>hypervisor: the contract. Exactly one of hv_kvm.h, hv_hvf.h, hv_nvmm.h (or, in tests,
   hv_fake.h) defines these two structs, which the caller owns, and every function below. Negative
   errno on failure, sentence in the log. */
struct hyp;
struct hyp_cpu;

struct hyp_desc {
    const struct vmm_log *log; /* NULL: silent */
    const char *path;          /* the hypervisor's device; NULL: the system's usual one */
    unsigned ncpus;            /* vCPUs that will be created, ids 0 .. ncpus-1; 0: 1 */
    bool no_irqchip;    /* true: no interrupt controllers or timers in the kernel; HLT exits */
    bool split_irqchip; /* true: LAPICs alone, without the other chips, if it has HYP_CAP_LAPIC */

    /* of arm64 alone */
    const struct vmm_gic *gic; /* NULL: no interrupt controller, as with no_irqchip */
    unsigned gpa_bits;         /* how wide guest-physical addresses must be, if the host can */
    unsigned features_need;    /* bits of enum hyp_feature; -ENOTSUP where the host lacks one */
    unsigned features_want;    /* the same, where the host has them */
};

/* Where the interrupt controller of an arm64 VM is put, whichever the host has: GICv3 with an ITS
   (HYP_CAP_MSI) or a frame for messages, or GICv2 with such a frame. */
struct vmm_gic {
    uint64_t dist;   /* 64 KiB; GICv2: 4 KiB */
    uint64_t redist; /* GICv3: 128 KiB for each CPU */
    uint64_t its;    /* GICv3: 128 KiB */
    uint64_t cpu;    /* GICv2: 8 KiB */
    uint64_t v2m;    /* without an ITS: writes of SPI numbers to v2m + 0x40 are messages; the caller
                        gives them to hyp_irq_set, in whose numbers they follow HYP_GSIS */
};

/* What the vCPUs of an arm64 VM can have beyond the base. */
enum hyp_feature { HYP_FEATURE_SVE = 1, HYP_FEATURE_PAUTH = 2, HYP_FEATURE_PMU = 4 };

enum hyp_cap {
    HYP_CAP_IRQCHIP =
        1 << 0, /* interrupt controllers and timers live in the kernel; hyp_irq_* work */
    HYP_CAP_DOORBELL = 1 << 1, /* hyp_doorbell works */
    HYP_CAP_SOFTWARE =
        1 << 2, /* no hardware virtualisation: guest kernel code is interpreted, slow, incomplete */
    HYP_CAP_MSI = 1 << 3,  /* hyp_msi_* work */
    HYP_CAP_LAPIC = 1 << 4, /* LAPICs live in the kernel; it halts and starts CPUs */
    HYP_CAP_GICV3 = 1 << 5, /* arm64: the interrupt controller is one; else a GICv2 */
    HYP_CAP_PMU = 1 << 6,   /* arm64: vCPUs have a PMU, whose interrupt is PPI 7 */
    HYP_CAP_DEBUG = 1 << 7, /* hyp_debug and what stands with it work */
    HYP_CAP_REMAP = 1 << 8  /* what is mapped over memory later, the guest sees */
};

/* A guest write of `len` bytes at `gpa` (and, when match is set, of exactly `value`) that rings a
   bell instead of ending hyp_run. */
struct vmm_doorbell {
    uint64_t gpa;
    unsigned len; /* 1, 2, 4, 8; 0: of any width that starts at gpa, and then nothing is matched */
    bool match;
    uint64_t value;
};

enum vmm_prot { VMM_READ = 1, VMM_WRITE = 2, VMM_EXEC = 4 };

#ifdef __cplusplus
}
#endif
#endif /* VMM_H */

/* The functions of the contract. A backend asks for them by HYP_BACKEND: elsewhere they would be
   declared and, as private copies (VMM_DEF static), never defined. */
#if defined(HYP_BACKEND) && !defined(HYP_CONTRACT)
#define HYP_CONTRACT

#ifdef __cplusplus
extern "C" {
#endif

/* Opens the hypervisor and creates an empty VM. -ENOENT: no such device; -EACCES: no permission;
   -ENOTSUP: too old; -E2BIG: more vCPUs than it supports. May be called again for another VM where
   the system allows several. */
VMM_DEF int hyp_open(struct hyp *h, const struct hyp_desc *desc);
/* Closes everything; every vCPU must have been closed before. */
VMM_DEF void hyp_close(struct hyp *h);
/* What this host offers: bits of enum hyp_cap. */
VMM_DEF unsigned hyp_caps(const struct hyp *h);
/* How wide the guest's physical addresses are, in bits. */
VMM_DEF unsigned hyp_gpa_bits(const struct hyp *h);
/* Makes host memory appear at a guest-physical address; all three page-aligned. Map before loading
   an image into it: some systems zero the memory. Call before the first hyp_run. */
VMM_DEF int hyp_map(struct hyp *h, uint64_t gpa, uint64_t len, void *hva, unsigned prot);
/* Memory of a device of the host appears, or disappears again, while the guest runs; page-aligned.
   Silent, for the guest chose the place. -EEXIST: something else is there; -ENOSPC: no more of them;
   -ENOENT: there is none. From one thread at a time. */
VMM_DEF int hyp_window_map(struct hyp *h, uint64_t gpa, uint64_t len, void *hva, unsigned prot);
VMM_DEF int hyp_window_unmap(struct hyp *h, uint64_t gpa, uint64_t len);
/* The devices behind this descriptor (on Linux a VFIO group or device) are going to be the guest's.
   -ENOSYS where nobody wants to know. */
VMM_DEF int hyp_device_add(struct hyp *h, int fd);
/* Sets the level of a line of the in-kernel interrupt controller. Thread-safe. */
VMM_DEF void hyp_irq_set(struct hyp *h, unsigned gsi, bool level);
/* A bell is a descriptor that counts what is written to it (on Linux an eventfd), the caller's.
   From now on (on) or no longer: each ring is one edge on a line, whoever rings, without this
   process if that is the kernel. gsi: a line of the controller or one of hyp_msi_line. -ENOSYS
   without HYP_CAP_IRQCHIP. Thread-safe. */
VMM_DEF int hyp_irq_bell(struct hyp *h, unsigned gsi, int bell, bool on);
/* The same for a line whose device keeps it raised until it was served: a ring of `bell` raises it,
   and when the guest ends the interrupt it is lowered and `done` is rung, so that whoever listens
   there can look whether the device still wants it. */
VMM_DEF int hyp_irq_resample(struct hyp *h, unsigned gsi, int bell, int done, bool on);
/* A new line for message-signalled interrupts of one sender: requester is its PCI bus, device and
   function, by which an ITS tells senders apart. -ENOSYS without HYP_CAP_MSI, -ENOSPC when there are
   no more. From one thread at a time, as the next. */
VMM_DEF int hyp_msi_line(struct hyp *h, unsigned requester);
/* From now on an edge on this line is this message. Slow; before the line is first rung. -EINVAL,
   silently, for the guest chose it: no such message can be, and what was before goes on. */
VMM_DEF int hyp_msi_route(struct hyp *h, unsigned gsi, uint64_t addr, uint32_t data);
/* From now on (on) or no longer: such a write of the guest's rings the bell. -ENOSYS without
   HYP_CAP_DOORBELL, or where this width is not possible; -EEXIST: another has this place. Silent,
   for a guest can bring that about. Thread-safe. */
VMM_DEF int hyp_doorbell(struct hyp *h, const struct vmm_doorbell *where, int bell, bool on);
/* Creates vCPU `id`, on the thread that will run it. It gets this host's features with topology for
   desc.ncpus; ids other than 0 wait for the guest to start them. */
VMM_DEF int hyp_cpu_open(struct hyp_cpu *c, struct hyp *h, unsigned id);
/* Closes a vCPU, on the thread that ran it. */
VMM_DEF void hyp_cpu_close(struct hyp_cpu *c);
/* All of the architecture's registers, on the vCPU's thread, between two hyp_run. */
VMM_DEF int hyp_get_regs(struct hyp_cpu *c, struct vmm_regs *regs);
VMM_DEF int hyp_set_regs(struct hyp_cpu *c, const struct vmm_regs *regs);
/* For a debugger, with HYP_CAP_DEBUG, else -ENOSYS; all on the vCPU's thread, between two hyp_run.
   From now on; replaces what was wanted before. */
VMM_DEF int hyp_debug(struct hyp_cpu *c, const struct vmm_debug *d);
/* What ended the last hyp_run (VMM_EXIT_DEBUG) is the guest's own: it gets the exception. */
VMM_DEF int hyp_debug_pass(struct hyp_cpu *c);
VMM_DEF int hyp_get_fpu(struct hyp_cpu *c, struct vmm_fpu *fpu);
VMM_DEF int hyp_set_fpu(struct hyp_cpu *c, const struct vmm_fpu *fpu);
/* Completes the previous exit, runs the guest until the next, and describes that. Never blocks on a
 * device. */
VMM_DEF int hyp_run(struct hyp_cpu *c, struct vmm_exit *e);
/* Makes the current or, when none is under way, the next hyp_run return VMM_EXIT_AGAIN. Any thread,
   any time between hyp_cpu_open and hyp_cpu_close; never lost. */
VMM_DEF void hyp_kick(struct hyp_cpu *c);

#if !defined(__aarch64__) /* of x86 alone */
/* With HYP_CAP_LAPIC: sends a message now. Thread-safe. */
VMM_DEF void hyp_msi_send(struct hyp *h, uint64_t addr, uint32_t data);
/* With HYP_CAP_LAPIC alone: pin `pin` of the caller's IOAPIC sends this, level-triggered, so that the
   end of the interrupt is told (VMM_EXIT_EOI). Slow. */
VMM_DEF int hyp_eoi_route(struct hyp *h, unsigned pin, uint64_t addr, uint32_t data);
/* Interrupts without HYP_CAP_IRQCHIP, all on the vCPU's thread, between two hyp_run. Can the guest
   take one at its next instruction? As of the last exit; false after hyp_inject. */
VMM_DEF bool hyp_ready(const struct hyp_cpu *c);
/* hyp_run returns VMM_EXIT_AGAIN as soon as it can. */
VMM_DEF void hyp_want_window(struct hyp_cpu *c, bool want);
/* The guest takes this interrupt, or a non-maskable one, first of all. Only when it is ready, or at
   any time. */
VMM_DEF int hyp_inject(struct hyp_cpu *c, uint8_t vector);
VMM_DEF int hyp_inject_nmi(struct hyp_cpu *c);
/* What was injected and the guest has not taken yet is forgotten, as it is by an INIT. */
VMM_DEF int hyp_uninject(struct hyp_cpu *c);
/* CR8, by which a guest without HYP_CAP_LAPIC sets its task priority. */
VMM_DEF unsigned hyp_cr8(const struct hyp_cpu *c);
VMM_DEF void hyp_set_cr8(struct hyp_cpu *c, unsigned cr8);
/* The access of a VMM_EXIT_MSR ends in a general protection fault. */
VMM_DEF void hyp_msr_refuse(struct hyp_cpu *c);
/* The guest's TSC now, and how fast it is; hz 0: nobody knows, and CPUID announces no timer by TSC
   without HYP_CAP_LAPIC. */
VMM_DEF uint64_t hyp_tsc(struct hyp_cpu *c, uint64_t *hz);
#else /* of arm64 alone */
/* Without HYP_CAP_IRQCHIP: the IRQ and FIQ inputs of a CPU are these now, bits 0 and 1. CPUs that wait
   for an interrupt do so in hyp_run. Thread-safe; takes no lock that is held during hyp_run. */
VMM_DEF void hyp_cpu_lines(struct hyp *h, unsigned cpu, unsigned lines);
/* PPIs that the CPU itself drives (timers, PMU), a bit for each INTID: their levels as of the last
   exit, whose access is not yet carried out. hyp_run returns when one rises. */
VMM_DEF uint32_t hyp_cpu_ppis(const struct hyp_cpu *c);
/* How many slots of struct vmm_debug a CPU has for VMM_BREAK_EXEC, and how many for other kinds. */
VMM_DEF void hyp_debug_slots(const struct hyp *h, unsigned *breaks, unsigned *watches);
#endif

#ifdef __cplusplus
}
#endif
#endif /* HYP_BACKEND */
