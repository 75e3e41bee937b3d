/* debug.h - a look inside a guest                                 MIT licence, see LICENSE

   WHAT IT IS      What a debugger or a crash report asks of a virtual machine: which physical
                   address is behind a linear one, as the guest's own page tables have it ("Intel
                   SDM" volume 3, chapter 4), and what is there; what the instruction at an address
                   is called (general instructions and those of kernels; no vectors); which symbol
                   an address belongs to, by an ELF file, a System.map, or the table that a Linux
                   kernel carries in its own memory; and where a stack came from. And the stub that
                   gdb speaks to ("Debugging with GDB", appendix E, the remote serial protocol).

   QUICK START     static bool peek(const struct vmm_mem *mem, const struct vmm_x86_regs *regs)
                   {
                       uint8_t code[16]; // what the CPU will execute next
                       uint64_t rip = regs->cs.base + regs->rip;
                       return dbg_x86_read(mem, regs, rip, code, sizeof code) == sizeof code;
                   }

   CONFIGURATION   set everywhere: VMM_DEF, see vmm.h
                   DBG_CPUS_MAX    vCPUs that gdb is shown; default 1024
                   DBG_PACKET_MAX  bytes of one of its packets, at least 2048; default 4096
                   DBG_TRAPS_MAX   its breakpoints in memory; default 256
                   set in one file: DEBUG_IMPLEMENTATION (or VMM_IMPLEMENTATION)
                   DBG_NO_X86, DBG_NO_ARM64: gdb's stub without this architecture

   DEPENDS ON      vmm.h alone.

   THREADS         Nothing here locks, and only struct dbg_gdb keeps state: one thread at a time, and
                   dbg_gdb_owns on any while the guest runs. For the rest the guest may run
                   meanwhile: what is read is then what was there at some moment.
   MEMORY          The caller's buffers alone.
   ERRORS          0 or -errno, without a sentence: an address without memory is no fault.
   GUEST TRUST     Page tables, stacks and registers may hold anything: every walk is bounded by the
                   depth of the tables or by the caller's buffer, and goes through vmm_at. What
                   gdb sends is trusted no more: it can change the guest, and nothing else.

   Sections: >>walk >>disasm >>symbols >>stack >>step >>gdb */
#ifndef DEBUG_H
#define DEBUG_H

#include "vmm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* >>walk: linear addresses, which in 64-bit code are what a pointer holds; elsewhere a segment's
   base is to be added first. */
struct dbg_page {
    uint64_t gpa;              /* of the byte that was asked for */
    uint64_t left;             /* bytes from there to the end of its page */
    bool writable, user, exec; /* what the tables allow at all their levels */
};

/* Where the guest sees a linear address. Neither rights nor accessed and dirty bits matter.
   -EFAULT: not mapped, or a table lies outside of memory. What is found need not be memory. */
VMM_DEF int dbg_x86_walk(const struct vmm_mem *mem, const struct vmm_x86_regs *regs, uint64_t gva,
                         struct dbg_page *page);
/* Copies guest bytes out or in, across pages, and says how many there were before the first page
   that is not mapped to memory. Writes go where the guest itself may not write, too. */
VMM_DEF size_t dbg_x86_read(const struct vmm_mem *mem, const struct vmm_x86_regs *regs,
                            uint64_t gva, void *buf, size_t len);
VMM_DEF size_t dbg_x86_write(const struct vmm_mem *mem, const struct vmm_x86_regs *regs,
                             uint64_t gva, const void *buf, size_t len);
/* The same for arm64 (EL1 and EL0): granules of 4, 16 and 64 KiB, 48 bits of physical address. */
VMM_DEF int dbg_arm64_walk(const struct vmm_mem *mem, const struct vmm_arm64_regs *regs,
                           uint64_t gva, struct dbg_page *page);
VMM_DEF size_t dbg_arm64_read(const struct vmm_mem *mem, const struct vmm_arm64_regs *regs,
                              uint64_t gva, void *buf, size_t len);
VMM_DEF size_t dbg_arm64_write(const struct vmm_mem *mem, const struct vmm_arm64_regs *regs,
                               uint64_t gva, const void *buf, size_t len);

/* >>disasm: what an instruction is called, in the manuals' (Intel's) notation. */
#define DBG_INSN_MAX 15 /* bytes of the longest one */
#define DBG_TEXT_MAX 80 /* bytes of its text, with the terminating 0 */

/* Names the instruction that begins at code, of which len bytes are known; bits: 16, 32 or 64, as
   the code segment has it; rip: its address, to which jumps are relative. Returns its length; 0,
   with "?" as text: it goes on behind len, is no instruction, or one that is not known here. */
VMM_DEF unsigned dbg_x86_disasm(const uint8_t *code, size_t len, unsigned bits, uint64_t rip,
                                char text[DBG_TEXT_MAX]);
/* The same for an instruction of arm64, at pc; few have names here: those that wait, trap, branch and
   touch system registers, and the commonest loads and stores. */
VMM_DEF unsigned dbg_arm64_disasm(uint32_t insn, uint64_t pc, char text[DBG_TEXT_MAX]);

/* >>symbols: which function an address belongs to. All sources hold symbols by ascending or any
   address; a search looks at all of them, for what is asked for is a dozen addresses of a report. */
struct dbg_symbols {
    const struct vmm_mem *mem; /* private, as all that follows; all zero: there are none */
    const uint8_t *file;
    uint64_t len, slide;
    struct {
        unsigned bits, entry; /* 32 or 64; bytes of a symbol; bits 0: it is a System.map */
        uint64_t syms, nsyms, names, names_len;
    } elf;
    struct {
        uint64_t names, offsets, tokens, index, base; /* addresses as the guest has them */
        uint64_t to_gpa;                              /* to be added to them */
        uint32_t n;
        bool absolute; /* offsets that are not negative are addresses themselves */
    } linux_;
};

struct dbg_symbol {
    char name[96]; /* cut off there */
    uint64_t offset;
};

/* From an ELF file with a symbol table, or from text whose lines are "address type name", as
   System.map and /proc/kallsyms have it. The file must stay while s is used. -EINVAL: it is neither;
   -ENOENT: an ELF file without symbols. */
VMM_DEF int dbg_symbols_file(struct dbg_symbols *s, const void *file, uint64_t len);
/* From the tables that Linux (6.0 and newer, CONFIG_KALLSYMS) has in memory: it tells where by its
   VMCOREINFO, a page of text, for which all of memory is looked through. -ENOENT: not found. */
VMM_DEF int dbg_symbols_linux(struct dbg_symbols *s, const struct vmm_mem *mem);
/* A kernel that moved itself (KASLR): the address of a symbol of that name is known to be addr. Only
   by whole 64 KiB; false, and nothing changes: no such symbol, or it is elsewhere in its page. */
VMM_DEF bool dbg_symbols_moved(struct dbg_symbols *s, const char *name, uint64_t addr);
/* The symbol at or, by less than 64 KiB, before addr. */
VMM_DEF bool dbg_symbol_at(const struct dbg_symbols *s, uint64_t addr, struct dbg_symbol *symbol);

/* >>stack: words on the stack behind which the guest executes and before which there is a call.
   Some may be left over from calls that are done: kernels have no frame pointers to tell. Stores at
   most n addresses, the innermost first, and returns how many. */
VMM_DEF size_t dbg_x86_stack(const struct vmm_mem *mem, const struct vmm_x86_regs *regs,
                             uint64_t *addr, size_t n);
/* By frame records (AAPCS64, 6.4.6): of the function under way, x30, then what the chain at x29
   holds. Codes of pointer authentication are removed. */
VMM_DEF size_t dbg_arm64_stack(const struct vmm_mem *mem, const struct vmm_arm64_regs *regs,
                               uint64_t *addr, size_t n);
/* 16, 32 or 64: how code at regs->cs is decoded. */
VMM_DEF unsigned dbg_x86_bits(const struct vmm_x86_regs *regs);

/* >>step: of an arm64 CPU, without its interrupts. One that waits comes before the instruction, and
   after a stop one always waits: the step would end in its handler, and what a debugger steps over,
   such as its own breakpoint, would be met again and again. */
struct dbg_arm64_step {
    uint64_t pc, masked;
};

/* Masks interrupts for the instruction that comes next, unless it is one that has to do with the mask
   itself or that cannot be read. False: regs are as they were. */
VMM_DEF bool dbg_arm64_step_begin(const struct vmm_mem *mem, struct vmm_arm64_regs *regs,
                                  struct dbg_arm64_step *step);
/* Undoes it, wherever the CPU stopped since: in regs, or in what an exception has saved. */
VMM_DEF void dbg_arm64_step_end(struct vmm_arm64_regs *regs, const struct dbg_arm64_step *step);

/* >>gdb: a stub that stock gdb speaks to, over any stream of bytes. CPUs are threads, and stop and go
   on as a whole. The owner stops them when it is asked to, or when one has a reason (dbg_gdb_why),
   says so once all stand still, and lets them go when it is told to. */
#ifndef DBG_CPUS_MAX
#define DBG_CPUS_MAX 1024
#endif
#ifndef DBG_PACKET_MAX
#define DBG_PACKET_MAX 4096 /* bytes of one packet, either way; at least 2048 */
#endif
#ifndef DBG_TRAPS_MAX
#define DBG_TRAPS_MAX 256 /* breakpoints in memory */
#endif

enum dbg_machine { DBG_X86_64, DBG_X86_32, DBG_X86_16, DBG_ARM64 }; /* how gdb disassembles */

/* All that gdb sees and sets of a CPU that stands still; registers first. */
struct dbg_x86_cpu {
    struct vmm_x86_regs regs;
    struct vmm_x86_fpu fpu;
};
struct dbg_arm64_cpu {
    struct vmm_arm64_regs regs;
    struct vmm_arm64_fpu fpu;
};

/* That of the architecture that this is compiled for. */
#if defined(__aarch64__)
#define dbg_cpu dbg_arm64_cpu
#else
#define dbg_cpu dbg_x86_cpu
#endif

enum dbg_go { DBG_STAY, DBG_RUN, DBG_STEP };

enum dbg_why {                          /* enum vmm_debug_why, and: */
               DBG_WHY_SHUTDOWN = 0x80, /* the CPU cannot go on: a triple fault */
               DBG_WHY_FAULT = 0x100    /* it cannot, for the hypervisor cannot */
};

struct dbg_gdb_desc {
    enum dbg_machine machine;
    const struct vmm_mem *mem;
    unsigned ncpus;           /* at most DBG_CPUS_MAX */
    unsigned breaks, watches; /* of VMM_BREAKS, how many may be VMM_BREAK_EXEC, and how many of the
                                 other kinds; 0: all */
    bool stopped; /* the guest waits for gdb; false: it runs, and is stopped when gdb comes */
    struct vmm_stream stream; /* to gdb; rx_room: offer again what dbg_gdb_rx did not take */
    /* A CPU that stands still: the struct dbg_*_cpu of the machine's architecture. `write`: it is
       about to be changed. */
    void *(*cpu)(void *ctx, unsigned cpu, bool write);
    /* All CPUs shall stop: dbg_gdb_stopped once they did. May be called again before that. */
    void (*stop)(void *ctx);
    /* go has an enum dbg_go for each CPU. `want` is for all of them, but step is as go says. Never
       NULL; all zero when there is nothing to look for any more. */
    void (*resume)(void *ctx, const uint8_t *go, const struct vmm_debug *want);
    void (*kill)(void *ctx); /* the VM shall end */
    void *ctx;
};

struct dbg_gdb { /* private */
    struct dbg_gdb_desc desc;
    const struct dbg__machine *machine;
    bool there;   /* gdb is */
    bool stopped; /* the guest is */
    bool free;    /* it runs as if there were no gdb */
    bool held;    /* nobody shall let it run but gdb */
    bool awaits;  /* gdb wants to know when it stops */
    bool asked;   /* by Ctrl-C */
    bool no_ack, no_ack_next, tells_breaks, physical;
    unsigned current; /* CPU of g, m and the like */
    unsigned stepper; /* CPU of s */
    unsigned listed;  /* CPUs that gdb knows of */
    struct dbg__stop {
        unsigned why; /* 0: it was asked to */
        char kind;    /* of the break- or watchpoint, '1' to '4'; 0: none */
        uint64_t addr;
    } stop[DBG_CPUS_MAX], told;
    unsigned teller; /* the CPU of told */
    uint8_t go[DBG_CPUS_MAX];
    struct dbg__trap {
        uint64_t gva, gpa;
        uint8_t saved[4];
    } trap[DBG_TRAPS_MAX];
    unsigned ntraps;
    struct dbg__watch {
        char kind; /* '1' to '4', as in Z1 to Z4 */
        uint64_t addr, len;
    } watch[VMM_BREAKS], owner[VMM_BREAKS]; /* what gdb asked for; for which a slot is */
    unsigned nwatches;
    struct vmm_debug want;
    enum { DBG__IDLE, DBG__BODY, DBG__ESCAPED, DBG__SUM1, DBG__SUM2 } state;
    bool too_long;
    uint8_t sum, sum_told;
    size_t in_len, out_len, out_at;
    char in[DBG_PACKET_MAX + 1];
    char out[DBG_PACKET_MAX + 8]; /* the last packet, which gdb may want again */
};

/* -EINVAL: a desc that cannot be. */
VMM_DEF int dbg_gdb_init(struct dbg_gdb *g, const struct dbg_gdb_desc *desc);
/* gdb came, or went without a word: then its breakpoints vanish and the guest goes on. */
VMM_DEF void dbg_gdb_peer(struct dbg_gdb *g, bool there);
/* Bytes from gdb; returns how many were taken. */
VMM_DEF size_t dbg_gdb_rx(struct dbg_gdb *g, const void *buf, size_t len);
/* There is room in the stream again. */
VMM_DEF void dbg_gdb_tx_ready(struct dbg_gdb *g);
/* Why this CPU stopped: bits of vmm_exit.code or enum dbg_why. For each that had a reason, the first
   of them first; then dbg_gdb_stopped. */
VMM_DEF void dbg_gdb_why(struct dbg_gdb *g, unsigned cpu, unsigned why);
VMM_DEF void dbg_gdb_stopped(struct dbg_gdb *g);
/* The breakpoint instruction at a linear address is one of gdb's; any thread, while a CPU runs. regs:
   struct vmm_*_regs of the machine's architecture. */
VMM_DEF bool dbg_gdb_owns(const struct dbg_gdb *g, const void *regs, uint64_t pc);
/* The VM is over: gdb is told, if it waits for something. */
VMM_DEF void dbg_gdb_over(struct dbg_gdb *g, uint8_t status);

#ifdef __cplusplus
}
#endif
#endif /* DEBUG_H */

#if defined(VMM_IMPLEMENTATION) || defined(DEBUG_IMPLEMENTATION)
#ifndef DBG__IMPLEMENTED
#define DBG__IMPLEMENTED

/* >>walk ------------------------------------------------------------------------------------ */

#define DBG__CR0_PG 0x80000000u

enum {
    DBG__CR4_PSE = 1 << 4,
    DBG__CR4_PAE = 1 << 5,
    DBG__CR4_LA57 = 1 << 12,
    DBG__EFER_LMA = 1 << 10,
    DBG__EFER_NXE = 1 << 11,
    DBG__PRESENT = 1,
    DBG__WRITABLE = 2,
    DBG__USER = 4,
    DBG__LARGE = 0x80,
};

/* The shape of the tables: SDM 4.3 (32-bit), 4.4 (PAE), 4.5 (4 and 5 levels). */
struct dbg__paging {
    unsigned levels; /* 0: no paging */
    unsigned bits;   /* of the address that an index takes */
    unsigned size;   /* of an entry, in bytes */
    unsigned large;  /* entries of levels 1 .. large, counted from the lowest, 0, may be pages */
    uint64_t root;
};

static void dbg__paging(const struct vmm_x86_regs *r, struct dbg__paging *p)
{
    static const struct dbg__paging none = {0, 0, 0, 0, 0}, legacy = {2, 10, 4, 0, 0},
                                    pae = {3, 9, 8, 1, 0}, four = {4, 9, 8, 2, 0};

    *p = none;
    if (!(r->cr0 & DBG__CR0_PG))
        return;
    if (r->efer & DBG__EFER_LMA) {
        *p = four;
        p->levels += !!(r->cr4 & DBG__CR4_LA57);
        p->root = r->cr3 & 0xffffffffff000;
    } else if (r->cr4 & DBG__CR4_PAE) {
        *p = pae;
        p->root = r->cr3 & 0xffffffe0;
    } else {
        *p = legacy;
        p->large = !!(r->cr4 & DBG__CR4_PSE);
        p->root = r->cr3 & 0xfffff000;
    }
}

static bool dbg__entry(const struct vmm_mem *mem, const struct dbg__paging *p, uint64_t table,
                       uint64_t gva, unsigned shift, uint64_t *entry)
{
    uint64_t index = gva >> shift & ((1u << p->bits) - 1);
    const void *at = vmm_at(mem, table + index * p->size, p->size);

    if (!at)
        return false;
    *entry = p->size == 8 ? vmm_get64(at) : vmm_get32(at);
    return *entry & DBG__PRESENT;
}

/* The address in an entry. A 4 MiB page of 32-bit paging has bits 32-39 of its own in 13-20. */
static uint64_t dbg__frame(const struct dbg__paging *p, uint64_t entry, unsigned shift)
{
    uint64_t frame = entry & 0xffffffffff000;

    if (p->size == 4 && shift > 12)
        frame = (entry & 0xffc00000) | (entry >> 13 & 0xff) << 32;
    return frame & ~(((uint64_t)1 << shift) - 1);
}

/* Half of the 64-bit addresses between the two canonical ones can be behind no table. */
static bool dbg__canonical(const struct dbg__paging *p, uint64_t gva)
{
    unsigned top = 12 + p->levels * p->bits - 1;

    if (p->levels < 4)
        return gva >> 32 == 0;
    return gva >> top == 0 || gva >> top == ~(uint64_t)0 >> top;
}

/* What an entry allows is allowed if all levels do. The four of PAE's top level carry no rights. */
static void dbg__rights(const struct dbg__paging *p, unsigned level, bool nx, uint64_t entry,
                        struct dbg_page *page)
{
    if (p->levels == 3 && level == 2)
        return;
    page->writable &= !!(entry & DBG__WRITABLE);
    page->user &= !!(entry & DBG__USER);
    page->exec &= !(nx && p->size == 8 && entry >> 63);
}

VMM_DEF int dbg_x86_walk(const struct vmm_mem *mem, const struct vmm_x86_regs *r, uint64_t gva,
                         struct dbg_page *page)
{
    struct dbg__paging p;
    uint64_t entry = 0, within;
    unsigned shift = 12;

    dbg__paging(r, &p);
    page->writable = page->user = page->exec = true;
    page->gpa = gva;
    page->left = 4096 - (gva & 4095);
    if (!p.levels)
        return 0;
    if (!dbg__canonical(&p, gva))
        return -EFAULT;
    for (unsigned level = p.levels; level-- > 0;) {
        shift = 12 + level * p.bits;
        if (!dbg__entry(mem, &p, p.root, gva, shift, &entry))
            return -EFAULT;
        dbg__rights(&p, level, r->efer & DBG__EFER_NXE, entry, page);
        if (level && level <= p.large && entry & DBG__LARGE)
            break;
        p.root = entry & (p.size == 8 ? 0xffffffffff000 : 0xfffff000);
    }
    within = ((uint64_t)1 << shift) - 1;
    page->gpa = dbg__frame(&p, entry, shift) | (gva & within);
    page->left = within + 1 - (gva & within);
    return 0;
}

/* arm64: VMSAv8-64, "Arm ARM" D8.2 and D8.3. Addresses with bit 55 set have tables of their own. */
static bool dbg__arm64_paging(const struct vmm_arm64_regs *r, uint64_t gva, struct dbg__paging *p,
                              unsigned *granule, uint64_t *index)
{
    static const uint8_t low[] = {12, 16, 14, 0}, high[] = {0, 14, 12, 16}; /* TG0, TG1 */
    bool top = gva >> 55 & 1;
    unsigned size = 64 - (unsigned)(r->tcr_el1 >> (top ? 16 : 0) & 63);

    *granule = top ? high[r->tcr_el1 >> 30 & 3] : low[r->tcr_el1 >> 14 & 3];
    if (!*granule || r->tcr_el1 >> (top ? 23 : 7) & 1 || size < *granule + 4 || size > 52)
        return false;
    if (((gva ^ (top ? ~(uint64_t)0 : 0)) & 0xffffffffffffff) >> size)
        return false; /* the top byte may be a tag */
    *index = gva & (((uint64_t)1 << size) - 1);
    p->bits = *granule - 3;
    p->levels = (size - *granule + p->bits - 1) / p->bits;
    p->size = 8;
    p->large = *granule == 12 ? 2 : 1;
    p->root = (top ? r->ttbr1_el1 : r->ttbr0_el1) & 0xfffffffffffe;
    return true;
}

enum { DBG__ARM64_TABLE = 2, DBG__ARM64_EL0 = 1 << 6, DBG__ARM64_READ_ONLY = 1 << 7 };

VMM_DEF int dbg_arm64_walk(const struct vmm_mem *mem, const struct vmm_arm64_regs *r, uint64_t gva,
                           struct dbg_page *page)
{
    struct dbg__paging p = {0, 0, 0, 0, 0};
    unsigned granule = 12, shift = 12;
    uint64_t entry = 0, within, index;

    page->writable = page->user = page->exec = true;
    page->gpa = gva;
    page->left = 4096 - (gva & 4095);
    if (!(r->sctlr_el1 & 1))
        return 0;
    if (!dbg__arm64_paging(r, gva, &p, &granule, &index))
        return -EFAULT;
    for (unsigned level = p.levels; level-- > 0;) {
        shift = granule + level * p.bits;
        if (!dbg__entry(mem, &p, p.root, index, shift, &entry))
            return -EFAULT;
        if (!(entry & DBG__ARM64_TABLE)) {
            if (!level || level > p.large)
                return -EFAULT;
            break;
        }
        p.root = entry & 0xfffffffff000 & ~(((uint64_t)1 << granule) - 1);
    }
    within = ((uint64_t)1 << shift) - 1;
    page->gpa = (entry & 0xfffffffff000 & ~within) | (gva & within);
    page->left = within + 1 - (gva & within);
    page->writable = !(entry & DBG__ARM64_READ_ONLY);
    page->user = entry & DBG__ARM64_EL0;
    page->exec = (entry >> 53 & 3) != 3; /* PXN, UXN: not at EL1, not at EL0 */
    return 0;
}

/* A guest's linear addresses, whatever its architecture. */
struct dbg__space {
    const struct vmm_mem *mem;
    const struct vmm_x86_regs *x86; /* or, if NULL: */
    const struct vmm_arm64_regs *arm64;
};

/* The host's view of the bytes at gva, *n of at most len; NULL: there are none. */
static uint8_t *dbg__space_at(const struct dbg__space *s, uint64_t gva, size_t len, size_t *n)
{
    struct dbg_page page;
    uint64_t left;

    if (s->x86 ? dbg_x86_walk(s->mem, s->x86, gva, &page)
               : dbg_arm64_walk(s->mem, s->arm64, gva, &page))
        return NULL;
    left = 4096 - (page.gpa & 4095); /* memory need not go on to the end of a large page */
    *n = len < left ? len : (size_t)left;
    return (uint8_t *)vmm_at(s->mem, page.gpa, *n);
}

/* Copies from the guest to `to`, or from `from` to the guest. */
static size_t dbg__copy(const struct dbg__space *s, uint64_t gva, uint8_t *to, const uint8_t *from,
                        size_t len)
{
    size_t done = 0, n;

    while (done < len) {
        uint8_t *at = dbg__space_at(s, gva + done, len - done, &n);
        if (!at)
            break;
        if (to)
            memcpy(to + done, at, n);
        else
            memcpy(at, from + done, n);
        done += n;
    }
    return done;
}

VMM_DEF size_t dbg_x86_read(const struct vmm_mem *mem, const struct vmm_x86_regs *r, uint64_t gva,
                            void *buf, size_t len)
{
    const struct dbg__space s = {mem, r, NULL};

    return dbg__copy(&s, gva, (uint8_t *)buf, NULL, len);
}

VMM_DEF size_t dbg_x86_write(const struct vmm_mem *mem, const struct vmm_x86_regs *r, uint64_t gva,
                             const void *buf, size_t len)
{
    const struct dbg__space s = {mem, r, NULL};

    return dbg__copy(&s, gva, NULL, (const uint8_t *)buf, len);
}

VMM_DEF size_t dbg_arm64_read(const struct vmm_mem *mem, const struct vmm_arm64_regs *r,
                              uint64_t gva, void *buf, size_t len)
{
    const struct dbg__space s = {mem, NULL, r};

    return dbg__copy(&s, gva, (uint8_t *)buf, NULL, len);
}

VMM_DEF size_t dbg_arm64_write(const struct vmm_mem *mem, const struct vmm_arm64_regs *r,
                               uint64_t gva, const void *buf, size_t len)
{
    const struct dbg__space s = {mem, NULL, r};

    return dbg__copy(&s, gva, NULL, (const uint8_t *)buf, len);
}

/* >>disasm ---------------------------------------------------------------------------------- */

/* What is read of an instruction, and where its text goes. */
struct dbg__insn {
    const uint8_t *code;
    size_t len, at; /* bytes that are known, and read so far */
    unsigned bits;  /* of the code segment */
    unsigned rex;   /* bits W R X B, or 0 */
    bool has_rex, o16, a_other, overrun;
    unsigned rep;    /* 0xf2, 0xf3 or 0 */
    const char *seg; /* a prefix's, or NULL */
    unsigned modrm;
    bool has_modrm;
    uint64_t rip;
    char *text;
    size_t used;
};

static void dbg__put(struct dbg__insn *i, const char *s)
{
    for (; *s && i->used < DBG_TEXT_MAX - 1; s++)
        i->text[i->used++] = *s;
    i->text[i->used] = 0;
}

static void dbg__put_hex(struct dbg__insn *i, uint64_t v)
{
    char digits[19] = "0x";
    unsigned n = 2, shift = 60;

    while (shift && !(v >> shift))
        shift -= 4;
    for (;; shift -= 4) {
        digits[n++] = "0123456789abcdef"[v >> shift & 15];
        if (!shift)
            break;
    }
    digits[n] = 0;
    dbg__put(i, digits);
}

/* The next n bytes, little-endian; 0 beyond the end, which is remembered. */
static uint64_t dbg__take(struct dbg__insn *i, unsigned n)
{
    uint64_t v = 0;

    if (i->len - i->at < n) {
        i->overrun = true;
        return 0;
    }
    memcpy(&v, i->code + i->at, n);
    i->at += n;
    return v;
}

static uint64_t dbg__take_signed(struct dbg__insn *i, unsigned n)
{
    uint64_t v = dbg__take(i, n), sign = (uint64_t)1 << (8 * n - 1);

    return (v ^ sign) - sign;
}

static unsigned dbg__modrm(struct dbg__insn *i)
{
    if (!i->has_modrm)
        i->modrm = (unsigned)dbg__take(i, 1);
    i->has_modrm = true;
    return i->modrm;
}

/* Bytes of an operand of the size that prefixes choose, and of an address. */
static unsigned dbg__size(const struct dbg__insn *i)
{
    if (i->rex & 8)
        return 8;
    return (i->bits == 16) != i->o16 ? 2 : 4;
}

static unsigned dbg__address_size(const struct dbg__insn *i)
{
    if (i->bits == 64)
        return i->a_other ? 4 : 8;
    return (i->bits == 16) != i->a_other ? 2 : 4;
}

static void dbg__put_reg(struct dbg__insn *i, unsigned reg, unsigned size)
{
    static const char *const names[] = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"};
    static const char *const low[] = {"al", "cl", "dl", "bl", "ah", "ch", "dh", "bh"};
    static const char *const low_rex[] = {"spl", "bpl", "sil", "dil"};

    if (reg >= 8) {
        char name[4] = {'r', reg > 9 ? '1' : (char)('0' + reg),
                        reg > 9 ? (char)('0' + reg - 10) : 0};
        dbg__put(i, name);
        dbg__put(i, size == 1 ? "b" : size == 2 ? "w" : size == 4 ? "d" : "");
    } else if (size == 1) {
        dbg__put(i, i->has_rex && reg >= 4 ? low_rex[reg - 4] : low[reg]);
    } else {
        dbg__put(i, size == 8 ? "r" : size == 4 ? "e" : "");
        dbg__put(i, names[reg]);
    }
}

/* "+0x10", "-0x10"; alone: an address without registers. */
static void dbg__put_disp(struct dbg__insn *i, uint64_t disp, bool alone)
{
    if (alone) {
        dbg__put_hex(i, disp & vmm_ones(dbg__address_size(i)));
    } else if (disp) {
        dbg__put(i, disp >> 63 ? "-" : "+");
        dbg__put_hex(i, disp >> 63 ? 0 - disp : disp);
    }
}

/* 16-bit addressing, SDM volume 2, table 2-1. */
static void dbg__put_mem16(struct dbg__insn *i, unsigned mod, unsigned rm)
{
    static const char *const bases[] = {"bx+si", "bx+di", "bp+si", "bp+di", "si", "di", "bp", "bx"};
    bool alone = mod == 0 && rm == 6;
    uint64_t disp = alone || mod == 2 ? dbg__take_signed(i, 2) : mod ? dbg__take_signed(i, 1) : 0;

    if (!alone)
        dbg__put(i, bases[rm]);
    dbg__put_disp(i, disp, alone);
}

/* 32- and 64-bit addressing, tables 2-2 and 2-3. */
static void dbg__put_mem(struct dbg__insn *i, unsigned mod, unsigned rm)
{
    unsigned sib = rm == 4 ? (unsigned)dbg__take(i, 1) : 0, size = dbg__address_size(i);
    unsigned base = rm == 4 ? sib & 7 : rm, index = (sib >> 3 & 7) | (i->rex & 2 ? 8 : 0);
    bool has_index = rm == 4 && index != 4, no_base = mod == 0 && base == 5;
    uint64_t disp = no_base || mod == 2 ? dbg__take_signed(i, 4) : mod ? dbg__take_signed(i, 1) : 0;

    if (no_base && rm == 5 && i->bits == 64)
        dbg__put(i, "rip");
    else if (!no_base)
        dbg__put_reg(i, base | (i->rex & 1 ? 8 : 0), size);
    if (has_index) {
        static const char *const scales[] = {"", "*2", "*4", "*8"};
        dbg__put(i, no_base ? "" : "+");
        dbg__put_reg(i, index, size);
        dbg__put(i, scales[sib >> 6]);
    }
    dbg__put_disp(i, disp, no_base && !has_index && !(rm == 5 && i->bits == 64));
}

/* The register or memory that a ModRM byte names. */
static void dbg__put_rm(struct dbg__insn *i, unsigned size)
{
    unsigned modrm = dbg__modrm(i), mod = modrm >> 6, rm = modrm & 7;

    if (mod == 3) {
        dbg__put_reg(i, rm | (i->rex & 1 ? 8 : 0), size);
        return;
    }
    dbg__put(i, size == 1   ? "byte "
                : size == 2 ? "word "
                : size == 4 ? "dword "
                : size == 8 ? "qword "
                            : "");
    dbg__put(i, "[");
    if (i->seg) {
        dbg__put(i, i->seg);
        dbg__put(i, ":");
    }
    if (dbg__address_size(i) == 2)
        dbg__put_mem16(i, mod, rm);
    else
        dbg__put_mem(i, mod, rm);
    dbg__put(i, "]");
}

/* An address in the instruction itself (A0-A3), or where a relative jump goes. */
static void dbg__put_moffs(struct dbg__insn *i)
{
    dbg__put(i, "[");
    if (i->seg) {
        dbg__put(i, i->seg);
        dbg__put(i, ":");
    }
    dbg__put_hex(i, dbg__take(i, dbg__address_size(i)));
    dbg__put(i, "]");
}

static void dbg__put_jump(struct dbg__insn *i, unsigned size)
{
    uint64_t by = dbg__take_signed(i, size), to = i->rip + i->at + by;

    dbg__put_hex(i, i->bits == 64 ? to : to & vmm_ones(dbg__size(i) == 2 ? 2 : 4));
}

/* segment:offset, of which the offset comes first. */
static void dbg__put_far(struct dbg__insn *i, unsigned size)
{
    uint64_t offset = dbg__take(i, size);

    dbg__put_hex(i, dbg__take(i, 2));
    dbg__put(i, ":");
    dbg__put_hex(i, offset);
}

/* mov to and from CRn and DRn, and segment registers: the reg field names them. */
static void dbg__put_special(struct dbg__insn *i, char kind)
{
    static const char *const segs[] = {"es", "cs", "ss", "ds", "fs", "gs", "?", "?"};
    unsigned reg = (dbg__modrm(i) >> 3 & 7) | (kind != 'S' && i->rex & 4 ? 8 : 0);
    char name[4] = {kind == 'C' ? 'c' : 'd', 'r', (char)('0' + reg % 8), 0};

    if (reg == 8)
        name[2] = '8';
    dbg__put(i, kind == 'S' ? segs[reg & 7] : name);
}

/* One operand, by the letters of the manuals' opcode map (volume 2, appendix A): E a ModRM operand,
   G its register, I immediate, J relative, A the accumulator, X the register in the opcode; then the
   size: b w d q v (by prefix) z (v, at most 4) y (v, 8 in 64-bit code) n (not said). Without a size:
   K and L an immediate extended, O an address, P a far
   one, R with C and D, S a segment register. Anything else is text. */
static const char *dbg__operand(struct dbg__insn *i, const char *s, unsigned opcode)
{
    unsigned v = dbg__size(i), size;

    if (*s < 'A' || *s > 'Z') {
        char c[2] = {*s, 0};
        dbg__put(i, c);
        return s + 1;
    }
    size = s[1] == 'b' ? 1 : s[1] == 'w' ? 2 : s[1] == 'd' ? 4 : s[1] == 'q' ? 8 : v;
    size = s[1] == 'z' && size == 8 ? 4 : s[1] == 'y' && i->bits == 64 && size == 4 ? 8 : size;
    size = s[1] == 'n' ? 0 : size;
    switch (*s) {
    case 'E':
        dbg__put_rm(i, size);
        break;
    case 'G':
        dbg__put_reg(i, (dbg__modrm(i) >> 3 & 7) | (i->rex & 4 ? 8 : 0), size);
        break;
    case 'I':
        dbg__put_hex(i, size < v && size > 2 ? dbg__take_signed(i, size) : dbg__take(i, size));
        break;
    case 'J':
        dbg__put_jump(i, size);
        break;
    case 'A':
        dbg__put_reg(i, 0, size);
        break;
    case 'X':
        dbg__put_reg(i, (opcode & 7) | (i->rex & 1 ? 8 : 0), size);
        break;
    case 'K':                                           /* one byte that is extended */
        size = i->bits == 64 && opcode == 0x6a ? 8 : v; /* push */
        dbg__put_hex(i, dbg__take_signed(i, 1) & vmm_ones(size));
        return s + 1;
    case 'L': /* two or four, extended to what push takes */
        size = v == 2 ? 2 : 4;
        dbg__put_hex(i, dbg__take_signed(i, size) & vmm_ones(i->bits == 64 ? 8 : size));
        return s + 1;
    case 'O':
        dbg__put_moffs(i);
        return s + 1;
    case 'P':
        dbg__put_far(i, v);
        return s + 1;
    case 'R': /* with CRn and DRn: a register, whatever the upper bits of ModRM say */
        dbg__put_reg(i, (dbg__modrm(i) & 7) | (i->rex & 1 ? 8 : 0), i->bits == 64 ? 8 : 4);
        return s + 1;
    default:
        dbg__put_special(i, *s);
        return s + 1;
    }
    return s + 2;
}

/* Names of eight that share one opcode or follow each other. */
static const char *const dbg__alu[] = {"add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"};
static const char *const dbg__shift[] = {"rol", "ror", "rcl", "rcr", "shl", "shr", "sal", "sar"};
static const char *const dbg__unary[] = {"test", "test", "not", "neg",
                                         "mul",  "imul", "div", "idiv"};
static const char *const dbg__cond[] = {"o", "no", "b", "ae", "e", "ne", "be", "a",
                                        "s", "ns", "p", "np", "l", "ge", "le", "g"};

/* One way to read some opcodes: a name and operands. % is a name that the group chooses: 'a' of
   dbg__alu by the opcode's bits 3-5, 'c' of dbg__cond by its bits 0-3; by the ModRM byte's reg field
   'A' of dbg__alu, 's' of dbg__shift, 'u' of dbg__unary. The other groups: 'r' a string instruction,
   'w' a name by operand size, 'p' nop or pause, '6' and '3' only in 64-bit code and never there,
   'F' only after prefix F3. */
enum { DBG__ANY = 8, DBG__MEM = 16 };

struct dbg__form {
    uint8_t mask, value; /* of the opcode */
    uint8_t reg;         /* of ModRM: its reg field, or ANY; and MEM: only if it names memory */
    char group;
    const char *text;
};

static const struct dbg__form dbg__one[] = {
    {0xc7, 0x00, DBG__ANY, 'a', "% Eb, Gb"},
    {0xc7, 0x01, DBG__ANY, 'a', "% Ev, Gv"},
    {0xc7, 0x02, DBG__ANY, 'a', "% Gb, Eb"},
    {0xc7, 0x03, DBG__ANY, 'a', "% Gv, Ev"},
    {0xc7, 0x04, DBG__ANY, 'a', "% Ab, Ib"},
    {0xc7, 0x05, DBG__ANY, 'a', "% Av, Iz"},
    {0xff, 0x06, DBG__ANY, '3', "push es"},
    {0xff, 0x07, DBG__ANY, '3', "pop es"},
    {0xff, 0x0e, DBG__ANY, '3', "push cs"},
    {0xff, 0x16, DBG__ANY, '3', "push ss"},
    {0xff, 0x17, DBG__ANY, '3', "pop ss"},
    {0xff, 0x1e, DBG__ANY, '3', "push ds"},
    {0xff, 0x1f, DBG__ANY, '3', "pop ds"},
    {0xf8, 0x40, DBG__ANY, 0, "inc Xv"}, /* these two are REX in 64-bit code */
    {0xf8, 0x48, DBG__ANY, 0, "dec Xv"},
    {0xf8, 0x50, DBG__ANY, 0, "push Xy"},
    {0xf8, 0x58, DBG__ANY, 0, "pop Xy"},
    {0xff, 0x60, DBG__ANY, '3', "pusha"},
    {0xff, 0x61, DBG__ANY, '3', "popa"},
    {0xff, 0x63, DBG__ANY, '6', "movsxd Gv, Ed"},
    {0xff, 0x68, DBG__ANY, 0, "push L"},
    {0xff, 0x69, DBG__ANY, 0, "imul Gv, Ev, Iz"},
    {0xff, 0x6a, DBG__ANY, 0, "push K"},
    {0xff, 0x6b, DBG__ANY, 0, "imul Gv, Ev, K"},
    {0xff, 0x6c, DBG__ANY, 'r', "insb"},
    {0xff, 0x6d, DBG__ANY, 'r', "insv"},
    {0xff, 0x6e, DBG__ANY, 'r', "outsb"},
    {0xff, 0x6f, DBG__ANY, 'r', "outsv"},
    {0xf0, 0x70, DBG__ANY, 'c', "j% Jb"},
    {0xff, 0x80, DBG__ANY, 'A', "% Eb, Ib"},
    {0xff, 0x81, DBG__ANY, 'A', "% Ev, Iz"},
    {0xff, 0x83, DBG__ANY, 'A', "% Ev, K"},
    {0xff, 0x84, DBG__ANY, 0, "test Eb, Gb"},
    {0xff, 0x85, DBG__ANY, 0, "test Ev, Gv"},
    {0xff, 0x86, DBG__ANY, 0, "xchg Eb, Gb"},
    {0xff, 0x87, DBG__ANY, 0, "xchg Ev, Gv"},
    {0xff, 0x88, DBG__ANY, 0, "mov Eb, Gb"},
    {0xff, 0x89, DBG__ANY, 0, "mov Ev, Gv"},
    {0xff, 0x8a, DBG__ANY, 0, "mov Gb, Eb"},
    {0xff, 0x8b, DBG__ANY, 0, "mov Gv, Ev"},
    {0xff, 0x8c, DBG__ANY, 0, "mov Ew, S"},
    {0xff, 0x8d, DBG__ANY | DBG__MEM, 0, "lea Gv, En"},
    {0xff, 0x8e, DBG__ANY, 0, "mov S, Ew"},
    {0xff, 0x8f, 0, 0, "pop Ey"},
    {0xff, 0x90, DBG__ANY, 'p', "nop"},
    {0xf8, 0x90, DBG__ANY, 0, "xchg Xv, Av"},
    {0xff, 0x98, DBG__ANY, 'w', "cbw|cwde|cdqe"},
    {0xff, 0x99, DBG__ANY, 'w', "cwd|cdq|cqo"},
    {0xff, 0x9c, DBG__ANY, 0, "pushf"},
    {0xff, 0x9d, DBG__ANY, 0, "popf"},
    {0xff, 0xa0, DBG__ANY, 0, "mov Ab, O"},
    {0xff, 0xa1, DBG__ANY, 0, "mov Av, O"},
    {0xff, 0xa2, DBG__ANY, 0, "mov O, Ab"},
    {0xff, 0xa3, DBG__ANY, 0, "mov O, Av"},
    {0xff, 0xa4, DBG__ANY, 'r', "movsb"},
    {0xff, 0xa5, DBG__ANY, 'r', "movsv"},
    {0xff, 0xa6, DBG__ANY, 'r', "cmpsb"},
    {0xff, 0xa7, DBG__ANY, 'r', "cmpsv"},
    {0xff, 0xa8, DBG__ANY, 0, "test Ab, Ib"},
    {0xff, 0xa9, DBG__ANY, 0, "test Av, Iz"},
    {0xff, 0xaa, DBG__ANY, 'r', "stosb"},
    {0xff, 0xab, DBG__ANY, 'r', "stosv"},
    {0xff, 0xac, DBG__ANY, 'r', "lodsb"},
    {0xff, 0xad, DBG__ANY, 'r', "lodsv"},
    {0xff, 0xae, DBG__ANY, 'r', "scasb"},
    {0xff, 0xaf, DBG__ANY, 'r', "scasv"},
    {0xf8, 0xb0, DBG__ANY, 0, "mov Xb, Ib"},
    {0xf8, 0xb8, DBG__ANY, 0, "mov Xv, Iv"},
    {0xff, 0xc0, DBG__ANY, 's', "% Eb, Ib"},
    {0xff, 0xc1, DBG__ANY, 's', "% Ev, Ib"},
    {0xff, 0xc2, DBG__ANY, 0, "ret Iw"},
    {0xff, 0xc3, DBG__ANY, 0, "ret"},
    {0xff, 0xc6, 0, 0, "mov Eb, Ib"},
    {0xff, 0xc7, 0, 0, "mov Ev, Iz"},
    {0xff, 0xc9, DBG__ANY, 0, "leave"},
    {0xff, 0xca, DBG__ANY, 0, "retf Iw"},
    {0xff, 0xcb, DBG__ANY, 0, "retf"},
    {0xff, 0xcc, DBG__ANY, 0, "int3"},
    {0xff, 0xcd, DBG__ANY, 0, "int Ib"},
    {0xff, 0xcf, DBG__ANY, 'w', "iret|iretd|iretq"},
    {0xff, 0xd0, DBG__ANY, 's', "% Eb, 1"},
    {0xff, 0xd1, DBG__ANY, 's', "% Ev, 1"},
    {0xff, 0xd2, DBG__ANY, 's', "% Eb, cl"},
    {0xff, 0xd3, DBG__ANY, 's', "% Ev, cl"},
    {0xff, 0xe0, DBG__ANY, 0, "loopne Jb"},
    {0xff, 0xe1, DBG__ANY, 0, "loope Jb"},
    {0xff, 0xe2, DBG__ANY, 0, "loop Jb"},
    {0xff, 0xe4, DBG__ANY, 0, "in Ab, Ib"},
    {0xff, 0xe5, DBG__ANY, 0, "in Az, Ib"},
    {0xff, 0xe6, DBG__ANY, 0, "out Ib, Ab"},
    {0xff, 0xe7, DBG__ANY, 0, "out Ib, Az"},
    {0xff, 0xe8, DBG__ANY, 0, "call Jz"},
    {0xff, 0xe9, DBG__ANY, 0, "jmp Jz"},
    {0xff, 0xea, DBG__ANY, '3', "jmp P"},
    {0xff, 0xeb, DBG__ANY, 0, "jmp Jb"},
    {0xff, 0xec, DBG__ANY, 0, "in Ab, dx"},
    {0xff, 0xed, DBG__ANY, 0, "in Az, dx"},
    {0xff, 0xee, DBG__ANY, 0, "out dx, Ab"},
    {0xff, 0xef, DBG__ANY, 0, "out dx, Az"},
    {0xff, 0xf4, DBG__ANY, 0, "hlt"},
    {0xff, 0xf5, DBG__ANY, 0, "cmc"},
    {0xff, 0xf6, 0, 0, "test Eb, Ib"},
    {0xff, 0xf7, 0, 0, "test Ev, Iz"},
    {0xff, 0xf6, 1, 0, "test Eb, Ib"},
    {0xff, 0xf7, 1, 0, "test Ev, Iz"},
    {0xff, 0xf6, DBG__ANY, 'u', "% Eb"},
    {0xff, 0xf7, DBG__ANY, 'u', "% Ev"},
    {0xff, 0xf8, DBG__ANY, 0, "clc"},
    {0xff, 0xf9, DBG__ANY, 0, "stc"},
    {0xff, 0xfa, DBG__ANY, 0, "cli"},
    {0xff, 0xfb, DBG__ANY, 0, "sti"},
    {0xff, 0xfc, DBG__ANY, 0, "cld"},
    {0xff, 0xfd, DBG__ANY, 0, "std"},
    {0xff, 0xfe, 0, 0, "inc Eb"},
    {0xff, 0xfe, 1, 0, "dec Eb"},
    {0xff, 0xff, 0, 0, "inc Ev"},
    {0xff, 0xff, 1, 0, "dec Ev"},
    {0xff, 0xff, 2, 0, "call Ey"},
    {0xff, 0xff, 4, 0, "jmp Ey"},
    {0xff, 0xff, 6, 0, "push Ey"},
};

/* The same after 0F. */
static const struct dbg__form dbg__two[] = {
    {0xff, 0x00, 0, 0, "sldt Ew"},
    {0xff, 0x00, 1, 0, "str Ew"},
    {0xff, 0x00, 2, 0, "lldt Ew"},
    {0xff, 0x00, 3, 0, "ltr Ew"},
    {0xff, 0x01, DBG__MEM | 0, 0, "sgdt En"},
    {0xff, 0x01, DBG__MEM | 1, 0, "sidt En"},
    {0xff, 0x01, DBG__MEM | 2, 0, "lgdt En"},
    {0xff, 0x01, DBG__MEM | 3, 0, "lidt En"},
    {0xff, 0x01, 4, 0, "smsw Ew"},
    {0xff, 0x01, 6, 0, "lmsw Ew"},
    {0xff, 0x01, DBG__MEM | 7, 0, "invlpg En"},
    {0xff, 0x05, DBG__ANY, 0, "syscall"},
    {0xff, 0x06, DBG__ANY, 0, "clts"},
    {0xff, 0x07, DBG__ANY, 0, "sysret"},
    {0xff, 0x08, DBG__ANY, 0, "invd"},
    {0xff, 0x09, DBG__ANY, 0, "wbinvd"},
    {0xff, 0x0b, DBG__ANY, 0, "ud2"},
    {0xf8, 0x18, DBG__ANY, 0, "nop Ev"}, /* prefetches and hints among them */
    {0xff, 0x20, DBG__ANY, 0, "mov R, C"},
    {0xff, 0x21, DBG__ANY, 0, "mov R, D"},
    {0xff, 0x22, DBG__ANY, 0, "mov C, R"},
    {0xff, 0x23, DBG__ANY, 0, "mov D, R"},
    {0xff, 0x30, DBG__ANY, 0, "wrmsr"},
    {0xff, 0x31, DBG__ANY, 0, "rdtsc"},
    {0xff, 0x32, DBG__ANY, 0, "rdmsr"},
    {0xff, 0x33, DBG__ANY, 0, "rdpmc"},
    {0xff, 0x34, DBG__ANY, 0, "sysenter"},
    {0xff, 0x35, DBG__ANY, 0, "sysexit"},
    {0xf0, 0x40, DBG__ANY, 'c', "cmov% Gv, Ev"},
    {0xf0, 0x80, DBG__ANY, 'c', "j% Jz"},
    {0xf0, 0x90, DBG__ANY, 'c', "set% Eb"},
    {0xff, 0xa2, DBG__ANY, 0, "cpuid"},
    {0xff, 0xa3, DBG__ANY, 0, "bt Ev, Gv"},
    {0xff, 0xa4, DBG__ANY, 0, "shld Ev, Gv, Ib"},
    {0xff, 0xa5, DBG__ANY, 0, "shld Ev, Gv, cl"},
    {0xff, 0xab, DBG__ANY, 0, "bts Ev, Gv"},
    {0xff, 0xac, DBG__ANY, 0, "shrd Ev, Gv, Ib"},
    {0xff, 0xad, DBG__ANY, 0, "shrd Ev, Gv, cl"},
    {0xff, 0xae, DBG__MEM | 0, 0, "fxsave En"},
    {0xff, 0xae, DBG__MEM | 1, 0, "fxrstor En"},
    {0xff, 0xae, DBG__MEM | 4, 0, "xsave En"},
    {0xff, 0xae, DBG__MEM | 5, 0, "xrstor En"},
    {0xff, 0xae, DBG__MEM | 7, 0, "clflush En"},
    {0xff, 0xaf, DBG__ANY, 0, "imul Gv, Ev"},
    {0xff, 0xb0, DBG__ANY, 0, "cmpxchg Eb, Gb"},
    {0xff, 0xb1, DBG__ANY, 0, "cmpxchg Ev, Gv"},
    {0xff, 0xb3, DBG__ANY, 0, "btr Ev, Gv"},
    {0xff, 0xb6, DBG__ANY, 0, "movzx Gv, Eb"},
    {0xff, 0xb7, DBG__ANY, 0, "movzx Gv, Ew"},
    {0xff, 0xba, 4, 0, "bt Ev, Ib"},
    {0xff, 0xba, 5, 0, "bts Ev, Ib"},
    {0xff, 0xba, 6, 0, "btr Ev, Ib"},
    {0xff, 0xba, 7, 0, "btc Ev, Ib"},
    {0xff, 0xbb, DBG__ANY, 0, "btc Ev, Gv"},
    {0xff, 0xb8, DBG__ANY, 'F', "popcnt Gv, Ev"},
    {0xff, 0xbc, DBG__ANY, 'F', "tzcnt Gv, Ev"},
    {0xff, 0xbd, DBG__ANY, 'F', "lzcnt Gv, Ev"},
    {0xff, 0xbc, DBG__ANY, 0, "bsf Gv, Ev"},
    {0xff, 0xbd, DBG__ANY, 0, "bsr Gv, Ev"},
    {0xff, 0xbe, DBG__ANY, 0, "movsx Gv, Eb"},
    {0xff, 0xbf, DBG__ANY, 0, "movsx Gv, Ew"},
    {0xff, 0xc0, DBG__ANY, 0, "xadd Eb, Gb"},
    {0xff, 0xc1, DBG__ANY, 0, "xadd Ev, Gv"},
    {0xff, 0xc7, 6, 0, "rdrand Ev"},
    {0xff, 0xc7, 7, 0, "rdseed Ev"},
    {0xf8, 0xc8, DBG__ANY, 0, "bswap Xv"},
};

/* Whole instructions 0F .. with this ModRM byte. */
static const struct {
    uint8_t opcode, modrm;
    const char *text;
} dbg__exact[] = {
    {0x01, 0xc1, "vmcall"}, {0x01, 0xc8, "monitor"}, {0x01, 0xc9, "mwait"},
    {0x01, 0xca, "clac"},   {0x01, 0xcb, "stac"},    {0x01, 0xd0, "xgetbv"},
    {0x01, 0xd1, "xsetbv"}, {0x01, 0xd9, "vmmcall"}, {0x01, 0xf8, "swapgs"},
    {0x01, 0xf9, "rdtscp"}, {0x1e, 0xfa, "endbr64"}, {0xae, 0xe8, "lfence"},
    {0xae, 0xf0, "mfence"}, {0xae, 0xf8, "sfence"},
};

/* Legacy prefixes in any order, then REX (volume 2, 2.1.1 and 2.2.1). */
static void dbg__prefixes(struct dbg__insn *i)
{
    static const char *const segs[] = {"es", "cs", "ss", "ds"};

    while (i->at < i->len && i->at < DBG_INSN_MAX) {
        uint8_t c = i->code[i->at];
        if ((c & 0xe7) == 0x26)
            i->seg = segs[c >> 3 & 3];
        else if ((c & 0xfe) == 0x64)
            i->seg = c & 1 ? "gs" : "fs";
        else if (c == 0x66)
            i->o16 = true;
        else if (c == 0x67)
            i->a_other = true;
        else if (c == 0xf0)
            dbg__put(i, "lock ");
        else if ((c & 0xfe) == 0xf2)
            i->rep = c;
        else
            break;
        i->at++;
    }
    if (i->bits == 64 && i->at < i->len && (i->code[i->at] & 0xf0) == 0x40) {
        i->rex = i->code[i->at++] & 15;
        i->has_rex = true;
    }
}

/* The form of an opcode, whose ModRM byte, if it has one, comes next. */
static const struct dbg__form *dbg__find(const struct dbg__insn *i, const struct dbg__form *f,
                                         size_t n, uint8_t opcode)
{
    unsigned modrm = i->at < i->len ? i->code[i->at] : 0;

    for (; n--; f++) {
        if ((opcode & f->mask) != f->value)
            continue;
        if (!(f->reg & DBG__ANY) && (f->reg & 7u) != (modrm >> 3 & 7))
            continue;
        if ((f->reg & DBG__MEM && modrm >> 6 == 3) || (f->group == '6' && i->bits != 64) ||
            (f->group == '3' && i->bits == 64) || (f->group == 'p' && i->rex & 1) ||
            (f->group == 'F' && i->rep != 0xf3))
            continue;
        return f;
    }
    return NULL;
}

/* What % stands for. */
static const char *dbg__name(struct dbg__insn *i, char group, unsigned opcode)
{
    switch (group) {
    case 'a':
        return dbg__alu[opcode >> 3 & 7];
    case 'c':
        return dbg__cond[opcode & 15];
    case 'A':
        return dbg__alu[dbg__modrm(i) >> 3 & 7];
    case 's':
        return dbg__shift[dbg__modrm(i) >> 3 & 7];
    default:
        return dbg__unary[dbg__modrm(i) >> 3 & 7];
    }
}

/* A name by operand size: the first, second or third of "a|b|c". */
static void dbg__put_sized(struct dbg__insn *i, const char *s)
{
    unsigned skip = dbg__size(i) == 2 ? 0 : dbg__size(i) == 4 ? 1 : 2;

    for (; *s; s++)
        if (*s == '|')
            skip--;
        else if (!skip)
            dbg__put(i, (const char[]){*s, 0});
}

/* A string instruction: what repeats it, and its width as last letter. */
static void dbg__put_string(struct dbg__insn *i, const char *s)
{
    dbg__put(i, i->rep == 0xf3 ? "rep " : i->rep ? "repne " : "");
    for (; *s; s++)
        if (s[1] || *s != 'v')
            dbg__put(i, (const char[]){*s, 0});
        else
            dbg__put(i, dbg__size(i) == 2 ? "w" : dbg__size(i) == 4 ? "d" : "q");
}

static void dbg__put_form(struct dbg__insn *i, const struct dbg__form *f, unsigned opcode)
{
    const char *s = f->text;

    if (f->group == 'w') {
        dbg__put_sized(i, s);
    } else if (f->group == 'r') {
        dbg__put_string(i, s);
    } else if (f->group == 'p') {
        dbg__put(i, i->rep == 0xf3 ? "pause" : "nop");
    } else {
        if (f->reg != DBG__ANY)
            dbg__modrm(i);
        while (*s)
            if (*s == '%')
                dbg__put(i, dbg__name(i, f->group, opcode)), s++;
            else
                s = dbg__operand(i, s, opcode);
    }
}

/* After 0F. */
static bool dbg__put_two(struct dbg__insn *i)
{
    uint8_t opcode = (uint8_t)dbg__take(i, 1);
    const struct dbg__form *f;

    for (size_t n = 0; n < sizeof dbg__exact / sizeof *dbg__exact; n++)
        if (i->at < i->len && dbg__exact[n].opcode == opcode &&
            dbg__exact[n].modrm == i->code[i->at]) {
            dbg__put(i, dbg__exact[n].text);
            i->at++;
            return true;
        }
    f = dbg__find(i, dbg__two, sizeof dbg__two / sizeof *dbg__two, opcode);
    if (f)
        dbg__put_form(i, f, opcode);
    return f;
}

VMM_DEF unsigned dbg_x86_disasm(const uint8_t *code, size_t len, unsigned bits, uint64_t rip,
                                char text[DBG_TEXT_MAX])
{
    struct dbg__insn i = {.code = code,
                          .len = len < DBG_INSN_MAX ? len : DBG_INSN_MAX,
                          .bits = bits,
                          .rip = rip,
                          .text = text};
    const struct dbg__form *f = NULL;
    uint8_t opcode;
    bool known;

    *text = 0;
    dbg__prefixes(&i);
    opcode = (uint8_t)dbg__take(&i, 1);
    if (opcode == 0x0f) {
        known = dbg__put_two(&i);
    } else {
        f = dbg__find(&i, dbg__one, sizeof dbg__one / sizeof *dbg__one, opcode);
        if (f)
            dbg__put_form(&i, f, opcode);
        known = f;
    }
    if (known && !i.overrun)
        return (unsigned)i.at;
    memcpy(text, "?", 2);
    return 0;
}

/* arm64: "Arm ARM" C4.1. Operands by letters: j and c branch targets of 26 and 19 bits, t Rt, n Rn,
   T, L and w Rt with 32 bits if bit 31, if bit 30 is clear, and always; s a system register, i and I
   immediates, m an offset scaled by the width, b a condition. */
static const struct {
    uint32_t mask, value;
    const char *text;
} dbg__arm64[] = {
    {0xffffffff, 0xd503201f, "nop"},
    {0xffffffff, 0xd503203f, "yield"},
    {0xffffffff, 0xd503205f, "wfe"},
    {0xffffffff, 0xd503207f, "wfi"},
    {0xffffffff, 0xd503209f, "sev"},
    {0xffffffff, 0xd69f03e0, "eret"},
    {0xffffffff, 0xd503233f, "paciasp"},
    {0xffffffff, 0xd50323bf, "autiasp"},
    {0xfffff0ff, 0xd50330bf, "dmb"},
    {0xfffff0ff, 0xd503309f, "dsb"},
    {0xfffff0ff, 0xd50330df, "isb"},
    {0xffe0001f, 0xd4000001, "svc @i"},
    {0xffe0001f, 0xd4000002, "hvc @i"},
    {0xffe0001f, 0xd4000003, "smc @i"},
    {0xffe0001f, 0xd4200000, "brk @i"},
    {0xfffffc1f, 0xd65f0000, "ret @n"},
    {0xfffffc1f, 0xd61f0000, "br @n"},
    {0xfffffc1f, 0xd63f0000, "blr @n"},
    {0xfc000000, 0x14000000, "b @j"},
    {0xfc000000, 0x94000000, "bl @j"},
    {0xff000010, 0x54000000, "b.@b @c"},
    {0x7f000000, 0x34000000, "cbz @T, @c"},
    {0x7f000000, 0x35000000, "cbnz @T, @c"},
    {0xfff00000, 0xd5300000, "mrs @t, @s"},
    {0xfff00000, 0xd5100000, "msr @s, @t"},
    {0xbfc00000, 0xb9400000, "ldr @L, [@n@m]"},
    {0xbfc00000, 0xb9000000, "str @L, [@n@m]"},
    {0xffc00000, 0x39400000, "ldrb @w, [@n@m]"},
    {0xffc00000, 0x39000000, "strb @w, [@n@m]"},
    {0xff800000, 0xd2800000, "movz @t, @I"},
};

static void dbg__put_x(struct dbg__insn *i, unsigned reg, bool wide)
{
    const char name[4] = {wide ? 'x' : 'w', reg > 9 ? (char)('0' + reg / 10) : (char)('0' + reg),
                          reg > 9 ? (char)('0' + reg % 10) : 0};

    dbg__put(i, reg != 31 ? name : wide ? "xzr" : "wzr");
}

/* op0, op1, CRn, CRm, op2, as assemblers take registers without a name. */
static void dbg__put_sysreg(struct dbg__insn *i, uint32_t insn)
{
    static const uint8_t at[] = {19, 16, 12, 8, 5}, mask[] = {1, 7, 15, 15, 7};

    for (unsigned n = 0; n < 5; n++) {
        unsigned v = (insn >> at[n] & mask[n]) + (n == 0 ? 2 : 0);
        const char digits[3] = {v > 9 ? '1' : (char)('0' + v), v > 9 ? (char)('0' + v - 10) : 0, 0};
        dbg__put(i, n == 0 ? "s" : n == 2 ? "_c" : n == 3 ? "_c" : "_");
        dbg__put(i, digits);
    }
}

static void dbg__arm64_operand(struct dbg__insn *i, char letter, uint32_t insn)
{
    static const char *const conds[] = {"eq", "ne", "cs", "cc", "mi", "pl", "vs", "vc",
                                        "hi", "ls", "ge", "lt", "gt", "le", "al", "nv"};
    unsigned scale = insn >> 30;

    switch (letter) {
    case 'j':
        dbg__put_hex(i, i->rip + (((uint64_t)(insn & 0x3ffffff) ^ 0x2000000) - 0x2000000) * 4);
        break;
    case 'c':
        dbg__put_hex(i, i->rip + (((uint64_t)(insn >> 5 & 0x7ffff) ^ 0x40000) - 0x40000) * 4);
        break;
    case 'b':
        dbg__put(i, conds[insn & 15]);
        break;
    case 's':
        dbg__put_sysreg(i, insn);
        break;
    case 'i':
        dbg__put_hex(i, insn >> 5 & 0xffff);
        break;
    case 'I':
        dbg__put_hex(i, (uint64_t)(insn >> 5 & 0xffff) << (insn >> 21 & 3) * 16);
        break;
    case 'm':
        if (insn >> 10 & 0xfff) {
            dbg__put(i, ", ");
            dbg__put_hex(i, (uint64_t)(insn >> 10 & 0xfff) << scale);
        }
        break;
    case 'n':
        if ((insn >> 5 & 31) == 31 && insn >> 25 != 0x6b)
            dbg__put(i, "sp"); /* as a base; branches have xzr there */
        else
            dbg__put_x(i, insn >> 5 & 31, true);
        break;
    case 'L':
        dbg__put_x(i, insn & 31, insn >> 30 & 1);
        break;
    default:
        dbg__put_x(i, insn & 31, letter == 't' || (letter == 'T' && insn >> 31));
    }
}

VMM_DEF unsigned dbg_arm64_disasm(uint32_t insn, uint64_t pc, char text[DBG_TEXT_MAX])
{
    struct dbg__insn i = {.rip = pc, .text = text};

    *text = 0;
    for (size_t n = 0; n < sizeof dbg__arm64 / sizeof *dbg__arm64; n++) {
        if ((insn & dbg__arm64[n].mask) != dbg__arm64[n].value)
            continue;
        for (const char *s = dbg__arm64[n].text; *s; s++)
            if (*s == '@')
                dbg__arm64_operand(&i, *++s, insn);
            else
                dbg__put(&i, (const char[]){*s, 0});
        return 4;
    }
    memcpy(text, "?", 2);
    return 0;
}

/* >>symbols --------------------------------------------------------------------------------- */

#define DBG__NEAR 0x10000 /* what is farther from any symbol belongs to none */

/* Candidates come in any order; the last at or before the address that is asked for is kept. */
struct dbg__best {
    uint64_t addr, offset;
    uint64_t where; /* what the source finds its name by */
    bool found;
};

static void dbg__candidate(struct dbg__best *b, uint64_t addr, uint64_t where)
{
    uint64_t offset = b->addr - addr;

    if (addr > b->addr || offset >= DBG__NEAR || (b->found && offset >= b->offset))
        return;
    b->offset = offset;
    b->where = where;
    b->found = true;
}

static void dbg__name_copy(struct dbg_symbol *symbol, const uint8_t *name, uint64_t len)
{
    size_t n = 0;

    while (n < len && n < sizeof symbol->name - 1 && name[n] > ' ' && name[n] < 0x7f) {
        symbol->name[n] = (char)name[n];
        n++;
    }
    symbol->name[n] = 0;
}

/* Bytes [off, off + len) of the file, or NULL. */
static const uint8_t *dbg__file(const struct dbg_symbols *s, uint64_t off, uint64_t len)
{
    return off <= s->len && len <= s->len - off ? s->file + off : NULL;
}

/* A field that is 4 bytes wide at `at32` of a 32-bit ELF file and 8 at `at64` of the other. */
static uint64_t dbg__elf_field(const struct dbg_symbols *s, const uint8_t *p, unsigned at32,
                               unsigned at64)
{
    return s->elf.bits == 32 ? vmm_get32(p + at32) : vmm_get64(p + at64);
}

/* Section n, of which a header is 40 or 64 bytes long. */
static const uint8_t *dbg__section(const struct dbg_symbols *s, uint64_t n)
{
    unsigned len = s->elf.bits == 32 ? 40 : 64;
    uint64_t shoff = dbg__elf_field(s, s->file, 0x20, 0x28);

    if (n >= vmm_get16(s->file + (s->elf.bits == 32 ? 0x30 : 0x3c)) || shoff > s->len)
        return NULL;
    return dbg__file(s, shoff + n * len, len);
}

static int dbg__elf_open(struct dbg_symbols *s)
{
    const uint8_t *section = NULL, *names = NULL;

    s->elf.bits = s->file[4] == 1 ? 32 : 64;
    s->elf.entry = s->elf.bits == 32 ? 16 : 24;
    for (uint64_t n = 0; (section = dbg__section(s, n)); n++)
        if (vmm_get32(section + 4) == 2 /* SHT_SYMTAB */)
            break;
    if (section)
        names = dbg__section(s, vmm_get32(section + (s->elf.bits == 32 ? 0x18 : 0x28)));
    if (!names)
        return -ENOENT;
    s->elf.syms = dbg__elf_field(s, section, 0x10, 0x18);
    s->elf.nsyms = dbg__elf_field(s, section, 0x14, 0x20) / s->elf.entry;
    s->elf.names = dbg__elf_field(s, names, 0x10, 0x18);
    s->elf.names_len = dbg__elf_field(s, names, 0x14, 0x20);
    if (!dbg__file(s, s->elf.names, s->elf.names_len) || s->elf.nsyms > s->len ||
        !dbg__file(s, s->elf.syms, s->elf.nsyms * s->elf.entry))
        return -EINVAL;
    return s->elf.nsyms ? 0 : -ENOENT;
}

/* Functions, and labels without a type, that are in some section. */
static bool dbg__elf_symbol(const struct dbg_symbols *s, uint64_t n, uint64_t *addr, uint64_t *name)
{
    const uint8_t *p = s->file + s->elf.syms + n * s->elf.entry;
    unsigned type = p[s->elf.bits == 32 ? 12 : 4] & 15;

    *name = vmm_get32(p);
    *addr = dbg__elf_field(s, p, 4, 8);
    return (type == 0 || type == 2) && vmm_get16(p + (s->elf.bits == 32 ? 14 : 6)) && *name &&
           *name < s->elf.names_len;
}

/* A line's address; *at moves on to the next line, *name is where its name is. */
static bool dbg__map_line(const struct dbg_symbols *s, uint64_t *at, uint64_t *addr, uint64_t *name)
{
    uint64_t p = *at, digits = 0;

    for (*addr = 0; p < s->len && digits < 17; p++, digits++) {
        uint8_t c = s->file[p];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            break;
        *addr = *addr << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    while (*at < s->len && s->file[*at] != '\n')
        ++*at;
    *name = p + 3;
    *at += *at < s->len;
    return digits && digits <= 16 && *name < *at && s->file[p] == ' ' && s->file[p + 2] == ' ';
}

VMM_DEF int dbg_symbols_file(struct dbg_symbols *s, const void *file, uint64_t len)
{
    uint64_t at = 0, addr, name;

    memset(s, 0, sizeof *s);
    s->file = (const uint8_t *)file;
    s->len = len;
    if (len >= 64 && memcmp(file, "\177ELF", 4) == 0)
        return dbg__elf_open(s);
    return dbg__map_line(s, &at, &addr, &name) ? 0 : -EINVAL;
}

/* The best candidate of a file; name: only symbols of that name, or NULL. */
static void dbg__file_search(const struct dbg_symbols *s, const char *name, struct dbg__best *best)
{
    uint64_t at = 0, addr, where, len = name ? strlen(name) : 0;

    for (uint64_t n = 0; s->elf.bits ? n < s->elf.nsyms : at < s->len; n++) {
        if (!(s->elf.bits ? dbg__elf_symbol(s, n, &addr, &where)
                          : dbg__map_line(s, &at, &addr, &where)))
            continue;
        where += s->elf.names;
        if (name && (!dbg__file(s, where, len + 1) || memcmp(s->file + where, name, len) != 0 ||
                     s->file[where + len] > ' '))
            continue;
        if (name) {
            best->addr = addr;
            best->found = true;
            return;
        }
        dbg__candidate(best, addr + s->slide, where);
    }
}

VMM_DEF bool dbg_symbols_moved(struct dbg_symbols *s, const char *name, uint64_t addr)
{
    struct dbg__best best = {0};

    if (!s->file)
        return false;
    dbg__file_search(s, name, &best);
    if (!best.found || (addr - best.addr) % DBG__NEAR)
        return false;
    s->slide = addr - best.addr;
    return true;
}

/* Guest bytes from gpa on, *len of them up to the end of their piece of memory, or NULL. */
static const uint8_t *dbg__rest(const struct vmm_mem *mem, uint64_t gpa, uint64_t *len)
{
    for (unsigned i = 0; i < mem->nranges; i++) {
        const struct vmm_range *r = &mem->range[i];
        if (gpa >= r->gpa && gpa - r->gpa < r->len) {
            *len = r->len - (gpa - r->gpa);
            return r->hva + (gpa - r->gpa);
        }
    }
    return NULL;
}

/* VMCOREINFO is lines of KEY=value in a page of its own (Documentation/admin-guide/kdump). Values
   are hexadecimal, those of NUMBER(phys_base) decimal and possibly negative. */
static bool dbg__info(const char *page, const char *key, unsigned base, uint64_t *value)
{
    const char *p = strstr(page, key);
    bool minus;

    if (!p)
        return false;
    p += strlen(key);
    minus = *p == '-';
    p += minus;
    p += p[0] == '0' && p[1] == 'x' ? 2 : 0;
    for (*value = 0; *p; p++) {
        unsigned digit = *p >= '0' && *p <= '9'   ? (unsigned)(*p - '0')
                         : *p >= 'a' && *p <= 'f' ? (unsigned)(*p - 'a' + 10)
                                                  : 16;
        if (digit >= base)
            break;
        *value = *value * base + digit;
    }
    *value = minus ? 0 - *value : *value;
    return true;
}

/* The kernel's image is at a constant distance from where it is in memory. */
static bool dbg__info_to_gpa(const char *page, uint64_t *to_gpa)
{
    uint64_t v;

    if (dbg__info(page, "NUMBER(phys_base)=", 10, &v)) /* x86_64: __START_KERNEL_map */
        *to_gpa = v - 0xffffffff80000000;
    else if (dbg__info(page, "NUMBER(kimage_voffset)=", 16, &v)) /* arm64 */
        *to_gpa = 0 - v;
    else
        return false;
    return true;
}

static const uint8_t *dbg__linux(const struct dbg_symbols *s, uint64_t gva, uint64_t *len)
{
    return dbg__rest(s->mem, gva + s->linux_.to_gpa, len);
}

/* Symbol n's address. With per-CPU symbols, positive offsets are absolute and the others count
   down from one below the base (kernel/kallsyms.c: kallsyms_sym_address). */
static uint64_t dbg__linux_address(const struct dbg_symbols *s, const uint8_t *offsets, uint32_t n)
{
    uint32_t offset = vmm_get32(offsets + 4 * (uint64_t)n);

    if (!s->linux_.absolute)
        return s->linux_.base + offset;
    return offset >> 31 ? s->linux_.base - 1 - (uint64_t)(int64_t)(int32_t)offset : offset;
}

/* Which of the two ways of offsets this kernel has: by the one of the two that has _stext. */
static bool dbg__linux_check(struct dbg_symbols *s, uint64_t stext)
{
    uint64_t len;
    const uint8_t *offsets = dbg__linux(s, s->linux_.offsets, &len);

    if (!offsets || s->linux_.n > len / 4)
        return false;
    for (unsigned way = 0; way < 2; way++) {
        s->linux_.absolute = way == 0;
        for (uint32_t n = 0; n < s->linux_.n; n++)
            if (dbg__linux_address(s, offsets, n) == stext)
                return true;
    }
    return false;
}

/* Takes what a page says, if it is the one. */
static bool dbg__linux_take(struct dbg_symbols *s, const char *page)
{
    uint64_t n, base, stext, len;
    const uint8_t *p;

    if (!dbg__info_to_gpa(page, &s->linux_.to_gpa) ||
        !dbg__info(page, "SYMBOL(kallsyms_names)=", 16, &s->linux_.names) ||
        !dbg__info(page, "SYMBOL(kallsyms_offsets)=", 16, &s->linux_.offsets) ||
        !dbg__info(page, "SYMBOL(kallsyms_token_table)=", 16, &s->linux_.tokens) ||
        !dbg__info(page, "SYMBOL(kallsyms_token_index)=", 16, &s->linux_.index) ||
        !dbg__info(page, "SYMBOL(kallsyms_num_syms)=", 16, &n) ||
        !dbg__info(page, "SYMBOL(kallsyms_relative_base)=", 16, &base) ||
        !dbg__info(page, "SYMBOL(_stext)=", 16, &stext))
        return false;
    p = dbg__linux(s, n, &len);
    if (!p || len < 4)
        return false;
    s->linux_.n = vmm_get32(p);
    p = dbg__linux(s, base, &len);
    if (!p || len < 8)
        return false;
    s->linux_.base = vmm_get64(p);
    return dbg__linux_check(s, stext);
}

VMM_DEF int dbg_symbols_linux(struct dbg_symbols *s, const struct vmm_mem *mem)
{
    char page[4097] = "";

    memset(s, 0, sizeof *s);
    s->mem = mem;
    for (unsigned i = 0; i < mem->nranges; i++)
        for (uint64_t off = 0; off + 4096 <= mem->range[i].len; off += 4096) {
            if (memcmp(mem->range[i].hva + off, "OSRELEASE=", 10) != 0)
                continue;
            memcpy(page, mem->range[i].hva + off, 4096);
            if (dbg__linux_take(s, page))
                return 0;
        }
    memset(s, 0, sizeof *s);
    return -ENOENT;
}

/* The length of the compressed name at p, and in *head how many bytes tell it; 0: beyond the end. */
static uint32_t dbg__linux_length(const uint8_t *p, uint64_t left, unsigned *head)
{
    uint32_t len;

    if (left < 2)
        return 0;
    len = *p;
    *head = 1;
    if (len & 0x80) {
        len = (len & 0x7f) | (uint32_t)p[1] << 7;
        *head = 2;
    }
    return len && len <= left - *head ? len : 0;
}

/* A name is a list of tokens, each a string of the token table; its first letter is the type. */
static void dbg__linux_expand(const struct dbg_symbols *s, const uint8_t *p, uint32_t n,
                              struct dbg_symbol *symbol)
{
    uint64_t index_len = 0, tokens_len = 0;
    const uint8_t *index = dbg__linux(s, s->linux_.index, &index_len);
    const uint8_t *tokens = dbg__linux(s, s->linux_.tokens, &tokens_len);
    uint8_t text[sizeof symbol->name + 1];
    size_t used = 0;

    if (!index || index_len < 512 || !tokens)
        n = 0;
    for (; n--; p++)
        for (uint64_t at = vmm_get16(index + 2 * *p); at < tokens_len && tokens[at]; at++)
            if (used < sizeof text)
                text[used++] = tokens[at];
    dbg__name_copy(symbol, text + 1, used ? used - 1 : 0);
}

static void dbg__linux_name(const struct dbg_symbols *s, uint64_t n, struct dbg_symbol *symbol)
{
    uint64_t left = 0;
    const uint8_t *p = dbg__linux(s, s->linux_.names, &left);
    uint32_t len = 0;
    unsigned head = 0;

    *symbol->name = 0;
    for (uint64_t i = 0; p && i <= n; i++) {
        p += len + head;
        left -= len + head;
        len = dbg__linux_length(p, left, &head);
        if (!len)
            return;
    }
    if (p)
        dbg__linux_expand(s, p + head, len, symbol);
}

VMM_DEF bool dbg_symbol_at(const struct dbg_symbols *s, uint64_t addr, struct dbg_symbol *symbol)
{
    struct dbg__best best = {.addr = addr};
    const uint8_t *offsets;
    uint64_t len;

    if (s->file) {
        dbg__file_search(s, NULL, &best);
        if (best.found)
            dbg__name_copy(symbol, s->file + best.where, s->len - best.where);
    } else if (s->mem && (offsets = dbg__linux(s, s->linux_.offsets, &len))) {
        for (uint32_t n = 0; n < s->linux_.n && n < len / 4; n++)
            dbg__candidate(&best, dbg__linux_address(s, offsets, n), n);
        if (best.found)
            dbg__linux_name(s, best.where, symbol);
    }
    symbol->offset = best.offset;
    return best.found && *symbol->name;
}

/* >>stack ----------------------------------------------------------------------------------- */

#define DBG__STACK_MAX 16384 /* bytes that are looked at */

VMM_DEF unsigned dbg_x86_bits(const struct vmm_x86_regs *r)
{
    if (r->efer & DBG__EFER_LMA && r->cs.attr & 0x2000)
        return 64;
    return r->cs.attr & 0x4000 ? 32 : 16;
}

/* Is there a call that ends here, in memory that the guest executes? */
static bool dbg__after_call(const struct vmm_mem *mem, const struct vmm_x86_regs *r, unsigned bits,
                            uint64_t addr)
{
    enum { LONGEST = 8 };
    uint8_t code[LONGEST];
    char text[DBG_TEXT_MAX];
    struct dbg_page page;

    if (dbg_x86_walk(mem, r, addr, &page) || !page.exec ||
        dbg_x86_read(mem, r, addr - LONGEST, code, LONGEST) != LONGEST)
        return false;
    for (unsigned n = 2; n <= LONGEST; n++)
        if (dbg_x86_disasm(code + LONGEST - n, n, bits, addr - n, text) == n &&
            memcmp(text, "call", 4) == 0)
            return true;
    return false;
}

VMM_DEF size_t dbg_x86_stack(const struct vmm_mem *mem, const struct vmm_x86_regs *r,
                             uint64_t *addr, size_t n)
{
    unsigned bits = dbg_x86_bits(r), size = bits / 8;
    uint64_t base = bits == 64 ? 0 : r->ss.base, code = bits == 64 ? 0 : r->cs.base;
    uint64_t sp = base + (r->gpr[VMM_RSP] & vmm_ones(size));
    size_t found = 0;

    for (unsigned off = 0; off < DBG__STACK_MAX && found < n; off += size) {
        uint64_t word = 0;
        if (dbg_x86_read(mem, r, sp + off, &word, size) != size)
            break;
        if (word && dbg__after_call(mem, r, bits, code + word))
            addr[found++] = word;
    }
    return found;
}

/* Bits 55 and below say where an address is; above and in what they repeat there may be a code. */
static uint64_t dbg__arm64_strip(uint64_t addr)
{
    uint64_t code = 0xffff000000000000;

    return addr >> 55 & 1 ? addr | code : addr & ~code;
}

VMM_DEF size_t dbg_arm64_stack(const struct vmm_mem *mem, const struct vmm_arm64_regs *r,
                               uint64_t *addr, size_t n)
{
    uint64_t record[2] = {r->x[29], r->x[30]}, last = 0;
    size_t found = 0;

    while (found < n && record[1]) {
        addr[found++] = dbg__arm64_strip(record[1]);
        if (record[0] <= last || record[0] & 7) /* outer frames are at higher addresses */
            break;
        last = record[0];
        if (dbg_arm64_read(mem, r, last, record, sizeof record) != sizeof record)
            break;
    }
    return found;
}

/* >>step ------------------------------------------------------------------------------------ */

enum {
    DBG__ARM64_IRQ_FIQ = 3 << 6, /* in PSTATE */
    DBG__ARM64_VECTORS_LEN = 0x800,
};

/* Instructions that read or change PSTATE, or take it along: SVC and the like, ERET, MRS and MSR of
   DAIF, and MSR DAIFSet and DAIFClr. */
static bool dbg__arm64_minds_mask(uint32_t insn)
{
    return insn >> 24 == 0xd4 || insn >> 16 == 0xd69f || (insn & 0xffdfffe0) == 0xd51b4220 ||
           (insn & 0xfffff0df) == 0xd50340df;
}

VMM_DEF bool dbg_arm64_step_begin(const struct vmm_mem *mem, struct vmm_arm64_regs *regs,
                                  struct dbg_arm64_step *step)
{
    uint8_t insn[4];

    step->pc = regs->pc;
    step->masked = ~regs->pstate & DBG__ARM64_IRQ_FIQ;
    if (dbg_arm64_read(mem, regs, regs->pc, insn, 4) != 4 || dbg__arm64_minds_mask(vmm_get32(insn)))
        step->masked = 0;
    regs->pstate |= step->masked;
    return step->masked;
}

VMM_DEF void dbg_arm64_step_end(struct vmm_arm64_regs *regs, const struct dbg_arm64_step *step)
{
    bool fault = regs->pc - regs->vbar_el1 < DBG__ARM64_VECTORS_LEN && regs->elr_el1 == step->pc;

    *(fault ? &regs->spsr_el1 : &regs->pstate) &= ~step->masked;
}

/* >>gdb ------------------------------------------------------------------------------------- */

#define DBG__EFAULT 14 /* errno as the protocol has it, in gdb's own numbers */
#define DBG__EINVAL 22
#define DBG__ENOSPC 28
#define DBG__CTRL_C 3

/* Text as it grows: the `room` characters behind the first `skip`; what is more is only counted. */
struct dbg__text {
    char *buf;
    size_t room, len;
    uint64_t skip;
    bool more; /* something did not fit */
};

static void dbg__putc(struct dbg__text *t, char c)
{
    if (t->skip)
        t->skip--;
    else if (t->len < t->room)
        t->buf[t->len++] = c;
    else
        t->more = true;
}

static void dbg__puts(struct dbg__text *t, const char *s)
{
    while (*s)
        dbg__putc(t, *s++);
}

/* At least `digits` of them. */
static void dbg__puthex(struct dbg__text *t, uint64_t v, unsigned digits)
{
    while (digits < 16 && v >> (4 * digits))
        digits++;
    while (digits-- > 0)
        dbg__putc(t, "0123456789abcdef"[v >> (4 * digits) & 15]);
}

static void dbg__putdec(struct dbg__text *t, unsigned v)
{
    if (v >= 10)
        dbg__putdec(t, v / 10);
    dbg__putc(t, (char)('0' + v % 10));
}

static void dbg__putbytes(struct dbg__text *t, const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dbg__puthex(t, ((const uint8_t *)bytes)[i], 2);
}

static int dbg__digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A number of 1 to 16 digits at *p, which then is behind it. Packets end with a zero. */
static bool dbg__gethex(const char **p, uint64_t *v)
{
    const char *s = *p;

    for (*v = 0; dbg__digit(**p) >= 0; ++*p) {
        if (*p - s == 16)
            return false;
        *v = *v << 4 | (unsigned)dbg__digit(**p);
    }
    return *p != s;
}

/* n bytes of two digits each. */
static bool dbg__getbytes(const char **p, uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++, *p += 2) {
        int high = dbg__digit((*p)[0]), low = high < 0 ? -1 : dbg__digit((*p)[1]);
        if (low < 0)
            return false;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* Exactly this character comes next. */
static bool dbg__getc(const char **p, char c)
{
    return **p == c && ++*p;
}

/* >>gdb architectures: what differs between them is in these tables, and in the functions that they
   name. One table of registers makes the description that gdb reads and moves the values, so that the
   two cannot disagree. gdb knows its "standard features" by the names of their registers. */

enum { /* what is to be known of a register, bits */
       DBG__PC = 1,
       DBG__ODD = 2 /* not as it lies in the CPU: get_odd and put_odd of the architecture move it */
};

struct dbg__reg {
    const char *name, *type;
    uint8_t bits, size; /* as gdb has it; bytes as the struct dbg_*_cpu has it */
    uint16_t at;
    uint8_t how, first,
        n; /* n > 1: so many in a row, with numbers behind their name from first on */
};

struct dbg__feature {
    const char *name, *types, *group;
    const struct dbg__reg *reg;
    unsigned n;
};

/* Of a type of 32 bits, what gdb calls some of them. */
struct dbg__flag {
    char name[6];
    uint8_t first, last;
};

struct dbg__arch {
    uint8_t trap[4], trap_len; /* the breakpoint instruction; code is aligned to its length */
    uint8_t nflags;
    const char *flags_type;
    const struct dbg__flag *flag;
    int (*walk)(const struct vmm_mem *mem, const void *regs, uint64_t gva, struct dbg_page *page);
    void (*get_odd)(const void *cpu, const struct dbg__reg *reg, uint8_t *buf);
    void (*put_odd)(void *cpu, const struct dbg__reg *reg, const uint8_t *buf);
    void (*tell)(const void *cpu, struct dbg__text *t); /* what gdb has no names for, as text */
};

struct dbg__machine {
    const char *name; /* that gdb knows it by */
    const struct dbg__arch *arch;
    const struct dbg__feature *feature;
    unsigned n;
};

/* Bytes of a value, by which it lies in struct dbg_*_cpu and in the protocol. */
static unsigned dbg__reg_len(const struct dbg__reg *reg)
{
    return reg->bits / 8u < reg->size ? reg->bits / 8u : reg->size;
}

#define DBG__FEATURE(name, types, group, regs)                                                     \
    {                                                                                              \
        name, types, group, regs, sizeof(regs) / sizeof((regs)[0])                                 \
    }

static const char dbg__vector_types[] =
    "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
    "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
    "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
    "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
    "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
    "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
    "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>"
    "<field name=\"v2_double\" type=\"v2d\"/><field name=\"v16_int8\" type=\"v16i8\"/>"
    "<field name=\"v8_int16\" type=\"v8i16\"/><field name=\"v4_int32\" type=\"v4i32\"/>"
    "<field name=\"v2_int64\" type=\"v2i64\"/><field name=\"uint128\" type=\"uint128\"/></union>";

/* Registers in a row, as they lie in a struct dbg_*_cpu. */
#define DBG__ROW(cpu, name, type, bits, field, how, first, n)                                      \
    {                                                                                              \
        name, type, bits, sizeof(((struct cpu *)0)->field), offsetof(struct cpu, field), how,      \
            first, n                                                                               \
    }

/* >>gdb x86 */
#ifndef DBG_NO_X86

#define DBG__REGS(name, type, bits, field, first, n)                                               \
    DBG__ROW(dbg_x86_cpu, name, type, bits, field, 0, first, n)
#define DBG__REG(name, type, bits, field) DBG__REGS(name, type, bits, field, 0, 1)
#define DBG__GPR(name, type, bits, id)    DBG__REG(name, type, bits, regs.gpr[id])
#define DBG__FLAGS_AND_SEGMENTS                                                                    \
    DBG__REG("eflags", "i386_eflags", 32, regs.rflags),                                            \
        DBG__REG("cs", "int32", 32, regs.cs.selector),                                             \
        DBG__REG("ss", "int32", 32, regs.ss.selector),                                             \
        DBG__REG("ds", "int32", 32, regs.ds.selector),                                             \
        DBG__REG("es", "int32", 32, regs.es.selector),                                             \
        DBG__REG("fs", "int32", 32, regs.fs.selector),                                             \
        DBG__REG("gs", "int32", 32, regs.gs.selector)
#define DBG__HALF(name, field, high)                                                               \
    {                                                                                              \
        name, "int", 32, 4, offsetof(struct dbg_x86_cpu, field) + (high), 0, 0, 1                  \
    }
#define DBG__X87                                                                                   \
    DBG__REGS("st", "i387_ext", 80, fpu.st[0], 0, 8), DBG__REG("fctrl", "int", 32, fpu.fcw),       \
        DBG__REG("fstat", "int", 32, fpu.fsw),                                                     \
        DBG__ROW(dbg_x86_cpu, "ftag", "int", 32, fpu.ftw, DBG__ODD, 0, 1),                         \
        DBG__HALF("fiseg", fpu.fip, 4), DBG__HALF("fioff", fpu.fip, 0),                            \
        DBG__HALF("foseg", fpu.fdp, 4), DBG__HALF("fooff", fpu.fdp, 0),                            \
        DBG__REG("fop", "int", 32, fpu.fop)
#define DBG__SSE(n)                                                                                \
    DBG__REGS("xmm", "vec128", 128, fpu.xmm[0], 0, n), DBG__REG("mxcsr", "int", 32, fpu.mxcsr)
#define DBG__PC_REG(name, bits)                                                                    \
    DBG__ROW(dbg_x86_cpu, name, "code_ptr", bits, regs.rip, DBG__PC | DBG__ODD, 0, 1)

static const struct dbg__reg dbg__core64[] = {
    DBG__GPR("rax", "int64", 64, VMM_RAX),
    DBG__GPR("rbx", "int64", 64, VMM_RBX),
    DBG__GPR("rcx", "int64", 64, VMM_RCX),
    DBG__GPR("rdx", "int64", 64, VMM_RDX),
    DBG__GPR("rsi", "int64", 64, VMM_RSI),
    DBG__GPR("rdi", "int64", 64, VMM_RDI),
    DBG__GPR("rbp", "data_ptr", 64, VMM_RBP),
    DBG__GPR("rsp", "data_ptr", 64, VMM_RSP),
    DBG__REGS("r", "int64", 64, regs.gpr[VMM_R8], 8, 8),
    DBG__PC_REG("rip", 64),
    DBG__FLAGS_AND_SEGMENTS,
    DBG__X87,
};

static const struct dbg__reg dbg__core32[] = {
    DBG__GPR("eax", "int32", 32, VMM_RAX),
    DBG__GPR("ecx", "int32", 32, VMM_RCX),
    DBG__GPR("edx", "int32", 32, VMM_RDX),
    DBG__GPR("ebx", "int32", 32, VMM_RBX),
    DBG__GPR("esp", "data_ptr", 32, VMM_RSP),
    DBG__GPR("ebp", "data_ptr", 32, VMM_RBP),
    DBG__GPR("esi", "int32", 32, VMM_RSI),
    DBG__GPR("edi", "int32", 32, VMM_RDI),
    DBG__PC_REG("eip", 32),
    DBG__FLAGS_AND_SEGMENTS,
    DBG__X87,
};

static const struct dbg__reg dbg__sse64[] = {DBG__SSE(16)};
static const struct dbg__reg dbg__sse32[] = {DBG__SSE(8)};

static const struct dbg__reg dbg__bases[] = {
    DBG__REG("fs_base", "int", 64, regs.fs.base),
    DBG__REG("gs_base", "int", 64, regs.gs.base),
};

static const struct dbg__reg dbg__system[] = {
    DBG__REG("cr0", "int64", 64, regs.cr0),         DBG__REG("cr2", "int64", 64, regs.cr2),
    DBG__REG("cr3", "int64", 64, regs.cr3),         DBG__REG("cr4", "int64", 64, regs.cr4),
    DBG__REG("efer", "int64", 64, regs.efer),       DBG__REG("cs_base", "int64", 64, regs.cs.base),
    DBG__REG("ss_base", "int64", 64, regs.ss.base), DBG__REG("ds_base", "int64", 64, regs.ds.base),
    DBG__REG("es_base", "int64", 64, regs.es.base),
};

static const struct dbg__flag dbg__eflags[] = {
    {"CF", 0, 0},    {"", 1, 1},     {"PF", 2, 2},   {"AF", 4, 4},   {"ZF", 6, 6},
    {"SF", 7, 7},    {"TF", 8, 8},   {"IF", 9, 9},   {"DF", 10, 10}, {"OF", 11, 11},
    {"NT", 14, 14},  {"RF", 16, 16}, {"VM", 17, 17}, {"AC", 18, 18}, {"VIF", 19, 19},
    {"VIP", 20, 20}, {"ID", 21, 21},
};

#define DBG__SYSTEM DBG__FEATURE("vmm.x86.system", "", "system", dbg__system)

static const struct dbg__feature dbg__features64[] = {
    DBG__FEATURE("org.gnu.gdb.i386.core", "", NULL, dbg__core64),
    DBG__FEATURE("org.gnu.gdb.i386.sse", dbg__vector_types, NULL, dbg__sse64),
    DBG__FEATURE("org.gnu.gdb.i386.segments", "", NULL, dbg__bases),
    DBG__SYSTEM,
};

static const struct dbg__feature dbg__features32[] = {
    DBG__FEATURE("org.gnu.gdb.i386.core", "", NULL, dbg__core32),
    DBG__FEATURE("org.gnu.gdb.i386.sse", dbg__vector_types, NULL, dbg__sse32),
    DBG__FEATURE("vmm.x86.segments", "", "system", dbg__bases),
    DBG__SYSTEM,
};

/* 64-bit code has no code segment base. */
static uint64_t dbg__code_base(const struct vmm_x86_regs *r)
{
    return r->efer & DBG__EFER_LMA && r->cs.attr & 0x2000 ? 0 : r->cs.base;
}

static int dbg__x86_walk(const struct vmm_mem *mem, const void *regs, uint64_t gva,
                         struct dbg_page *page)
{
    return dbg_x86_walk(mem, (const struct vmm_x86_regs *)regs, gva, page);
}

/* gdb knows no segments: its program counter is a linear address. And it wants two bits for each
   register of the x87: in use, 0 (valid), else 3 (empty). */
static void dbg__x86_get_odd(const void *cpu, const struct dbg__reg *reg, uint8_t *buf)
{
    const struct dbg_x86_cpu *c = (const struct dbg_x86_cpu *)cpu;

    if (reg->how & DBG__PC)
        vmm_put64(buf, c->regs.rip + dbg__code_base(&c->regs));
    for (unsigned i = 0; i < 8 && !(reg->how & DBG__PC); i++)
        buf[i / 4] |= (uint8_t)(c->fpu.ftw >> i & 1 ? 0 : 3 << 2 * (i % 4));
}

static void dbg__x86_put_odd(void *cpu, const struct dbg__reg *reg, const uint8_t *buf)
{
    struct dbg_x86_cpu *c = (struct dbg_x86_cpu *)cpu;

    if (!(reg->how & DBG__PC)) {
        c->fpu.ftw = 0;
        for (unsigned i = 0; i < 8; i++)
            c->fpu.ftw |= (uint8_t)((buf[i / 4] >> 2 * (i % 4) & 3) != 3) << i;
        return;
    }
    c->regs.rip = (reg->bits < 64 ? vmm_get32(buf) : vmm_get64(buf)) - dbg__code_base(&c->regs);
    if (reg->bits < 64)
        c->regs.rip &= 0xffffffff;
}

static void dbg__tell_segment(struct dbg__text *t, const char *name, const struct vmm_x86_seg *s)
{
    dbg__puts(t, name);
    dbg__puts(t, " ");
    dbg__puthex(t, s->selector, 4);
    dbg__puts(t, " base ");
    dbg__puthex(t, s->base, 16);
    dbg__puts(t, " limit ");
    dbg__puthex(t, s->limit, 8);
    dbg__puts(t, " attributes ");
    dbg__puthex(t, s->attr, 4);
    dbg__puts(t, "\n");
}

static void dbg__x86_tell(const void *cpu, struct dbg__text *t)
{
    const struct vmm_x86_regs *r = &((const struct dbg_x86_cpu *)cpu)->regs;

    dbg__tell_segment(t, "cs ", &r->cs);
    dbg__tell_segment(t, "ss ", &r->ss);
    dbg__tell_segment(t, "ds ", &r->ds);
    dbg__tell_segment(t, "es ", &r->es);
    dbg__tell_segment(t, "fs ", &r->fs);
    dbg__tell_segment(t, "gs ", &r->gs);
    dbg__tell_segment(t, "tr ", &r->tr);
    dbg__tell_segment(t, "ldt", &r->ldt);
    dbg__tell_segment(t, "gdt", &r->gdt);
    dbg__tell_segment(t, "idt", &r->idt);
}

static const struct dbg__arch dbg__x86 = {
    .trap = {0xcc}, /* INT3 */
    .trap_len = 1,
    .nflags = sizeof dbg__eflags / sizeof dbg__eflags[0],
    .flags_type = "i386_eflags",
    .flag = dbg__eflags,
    .walk = dbg__x86_walk,
    .get_odd = dbg__x86_get_odd,
    .put_odd = dbg__x86_put_odd,
    .tell = dbg__x86_tell,
};
#endif

/* >>gdb arm64 */
#ifndef DBG_NO_ARM64
#define DBG__ARM64(name, type, bits, field)                                                        \
    DBG__ROW(dbg_arm64_cpu, name, type, bits, field, 0, 0, 1)
#define DBG__EL1(name) DBG__ARM64(#name, "int64", 64, regs.name)

static const struct dbg__reg dbg__arm64_core[] = {
    DBG__ROW(dbg_arm64_cpu, "x", "int64", 64, regs.x[0], 0, 0, 31),
    DBG__ROW(dbg_arm64_cpu, "sp", "data_ptr", 64, regs.sp_el0, DBG__ODD, 0, 1),
    DBG__ROW(dbg_arm64_cpu, "pc", "code_ptr", 64, regs.pc, DBG__PC, 0, 1),
    DBG__ARM64("cpsr", "cpsr_flags", 32, regs.pstate),
};

static const struct dbg__reg dbg__arm64_fpu[] = {
    DBG__ROW(dbg_arm64_cpu, "v", "vec128", 128, fpu.v[0], 0, 0, 32),
    DBG__ARM64("fpsr", "int", 32, fpu.fpsr),
    DBG__ARM64("fpcr", "int", 32, fpu.fpcr),
};

static const struct dbg__reg dbg__arm64_system[] = {
    DBG__EL1(sp_el0),    DBG__EL1(sp_el1),    DBG__EL1(elr_el1),   DBG__EL1(spsr_el1),
    DBG__EL1(esr_el1),   DBG__EL1(far_el1),   DBG__EL1(sctlr_el1), DBG__EL1(tcr_el1),
    DBG__EL1(ttbr0_el1), DBG__EL1(ttbr1_el1), DBG__EL1(mair_el1),  DBG__EL1(vbar_el1),
    DBG__EL1(tpidr_el0), DBG__EL1(tpidr_el1),
};

static const struct dbg__flag dbg__cpsr[] = {
    {"SP", 0, 0},   {"EL", 2, 3},    {"nRW", 4, 4},     {"F", 6, 6},      {"I", 7, 7},
    {"A", 8, 8},    {"D", 9, 9},     {"BTYPE", 10, 11}, {"SSBS", 12, 12}, {"IL", 20, 20},
    {"SS", 21, 21}, {"PAN", 22, 22}, {"UAO", 23, 23},   {"DIT", 24, 24},  {"TCO", 25, 25},
    {"V", 28, 28},  {"C", 29, 29},   {"Z", 30, 30},     {"N", 31, 31},
};

static const struct dbg__feature dbg__arm64_features[] = {
    DBG__FEATURE("org.gnu.gdb.aarch64.core", "", NULL, dbg__arm64_core),
    DBG__FEATURE("org.gnu.gdb.aarch64.fpu", dbg__vector_types, NULL, dbg__arm64_fpu),
    DBG__FEATURE("vmm.aarch64.system", "", "system", dbg__arm64_system),
};

static int dbg__arm64_walk(const struct vmm_mem *mem, const void *regs, uint64_t gva,
                           struct dbg_page *page)
{
    return dbg_arm64_walk(mem, (const struct vmm_arm64_regs *)regs, gva, page);
}

/* Which stack pointer is SP, PSTATE says. */
static void dbg__arm64_get_sp(const void *cpu, const struct dbg__reg *reg, uint8_t *buf)
{
    (void)reg;
    vmm_put64(buf, vmm_arm64_sp(&((const struct dbg_arm64_cpu *)cpu)->regs));
}

static void dbg__arm64_put_sp(void *cpu, const struct dbg__reg *reg, const uint8_t *buf)
{
    struct vmm_arm64_regs *r = &((struct dbg_arm64_cpu *)cpu)->regs;

    (void)reg;
    *((r->pstate & 15) == 5 ? &r->sp_el1 : &r->sp_el0) = vmm_get64(buf);
}

static void dbg__arm64_tell(const void *cpu, struct dbg__text *t)
{
    (void)cpu;
    dbg__puts(t, "gdb has them all: info registers system\n");
}

static const struct dbg__arch dbg__arm64_arch = {
    .trap = {0x00, 0x00, 0x20, 0xd4}, /* BRK #0 */
    .trap_len = 4,
    .nflags = sizeof dbg__cpsr / sizeof dbg__cpsr[0],
    .flags_type = "cpsr_flags",
    .flag = dbg__cpsr,
    .walk = dbg__arm64_walk,
    .get_odd = dbg__arm64_get_sp,
    .put_odd = dbg__arm64_put_sp,
    .tell = dbg__arm64_tell,
};
#endif

/* >>gdb registers */

static const struct dbg__machine dbg__machines[] = {
#ifndef DBG_NO_X86
    [DBG_X86_64] = {"i386:x86-64", &dbg__x86, dbg__features64, 4},
    [DBG_X86_32] = {"i386", &dbg__x86, dbg__features32, 4},
    [DBG_X86_16] = {"i8086", &dbg__x86, dbg__features32, 4},
#endif
#ifndef DBG_NO_ARM64
    [DBG_ARM64] = {"aarch64", &dbg__arm64_arch, dbg__arm64_features, 3},
#endif
};

/* What gdb calls register n. False: there are not so many. */
static bool dbg__reg_at(const struct dbg_gdb *g, uint64_t n, struct dbg__reg *reg)
{
    for (unsigned i = 0; i < g->machine->n; i++) {
        const struct dbg__feature *f = &g->machine->feature[i];
        for (unsigned k = 0; k < f->n; k++) {
            if (n < f->reg[k].n) {
                *reg = f->reg[k];
                reg->at += (uint16_t)(n * reg->size);
                return true;
            }
            n -= f->reg[k].n;
        }
    }
    return false;
}

static void dbg__reg_read(const struct dbg_gdb *g, const void *cpu, const struct dbg__reg *reg,
                          uint8_t *buf)
{
    memset(buf, 0, 16);
    if (reg->how & DBG__ODD)
        g->machine->arch->get_odd(cpu, reg, buf);
    else
        memcpy(buf, (const uint8_t *)cpu + reg->at, dbg__reg_len(reg));
}

static void dbg__reg_write(const struct dbg_gdb *g, void *cpu, const struct dbg__reg *reg,
                           const uint8_t *buf)
{
    uint8_t *at = (uint8_t *)cpu + reg->at;

    if (reg->how & DBG__ODD) {
        g->machine->arch->put_odd(cpu, reg, buf);
        return;
    }
    memset(at, 0, reg->size);
    memcpy(at, buf, dbg__reg_len(reg));
}

static void dbg__put_attribute(struct dbg__text *t, const char *name, const char *value)
{
    dbg__puts(t, name);
    dbg__puts(t, "=\"");
    dbg__puts(t, value);
    dbg__puts(t, "\"");
}

/* Register k of a row. */
static void dbg__describe_reg(struct dbg__text *t, const struct dbg__reg *reg, unsigned k,
                              const char *group)
{
    dbg__puts(t, "<reg name=\"");
    dbg__puts(t, reg->name);
    if (reg->n > 1)
        dbg__putdec(t, reg->first + k);
    dbg__puts(t, "\" bitsize=\"");
    dbg__putdec(t, reg->bits);
    dbg__puts(t, "\"");
    dbg__put_attribute(t, " type", reg->type);
    if (group)
        dbg__put_attribute(t, " group", group);
    dbg__puts(t, "/>");
}

static void dbg__describe_flags(struct dbg__text *t, const struct dbg__arch *arch)
{
    dbg__puts(t, "<flags ");
    dbg__put_attribute(t, "id", arch->flags_type);
    dbg__puts(t, " size=\"4\">");
    for (unsigned i = 0; i < arch->nflags; i++) {
        dbg__puts(t, "<field ");
        dbg__put_attribute(t, "name", arch->flag[i].name);
        dbg__puts(t, " start=\"");
        dbg__putdec(t, arch->flag[i].first);
        dbg__puts(t, "\" end=\"");
        dbg__putdec(t, arch->flag[i].last);
        dbg__puts(t, "\"/>");
    }
    dbg__puts(t, "</flags>");
}

static void dbg__describe_feature(struct dbg__text *t, const struct dbg__machine *m, unsigned n)
{
    const struct dbg__feature *f = &m->feature[n];

    dbg__puts(t, "<feature ");
    dbg__put_attribute(t, "name", f->name);
    dbg__puts(t, ">");
    if (n == 0) /* in the core of all */
        dbg__describe_flags(t, m->arch);
    dbg__puts(t, f->types);
    for (unsigned i = 0; i < f->n; i++)
        for (unsigned k = 0; k < f->reg[i].n; k++)
            dbg__describe_reg(t, &f->reg[i], k, f->group);
    dbg__puts(t, "</feature>");
}

/* "Target Description Format". None of the protocol's own characters ($ # } *) is in it. */
static void dbg__describe(const struct dbg_gdb *g, struct dbg__text *t)
{
    dbg__puts(t, "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>"
                 "<architecture>");
    dbg__puts(t, g->machine->name);
    dbg__puts(t, "</architecture>");
    for (unsigned i = 0; i < g->machine->n; i++)
        dbg__describe_feature(t, g->machine, i);
    dbg__puts(t, "</target>");
}

static void dbg__list_threads(const struct dbg_gdb *g, struct dbg__text *t)
{
    dbg__puts(t, "<?xml version=\"1.0\"?><threads>");
    for (unsigned i = 0; i < g->desc.ncpus; i++) {
        dbg__puts(t, "<thread id=\"");
        dbg__puthex(t, i + 1, 1);
        dbg__puts(t, "\" name=\"vcpu");
        dbg__putdec(t, i);
        dbg__puts(t, "\"/>");
    }
    dbg__puts(t, "</threads>");
}

/* >>gdb memory: as the current CPU sees it, without the breakpoints that are in it. */

/* What is written may be code. On arm64 the instruction caches learn of it: the stores are cleaned to
   where instructions come from, and that is invalidated, on all CPUs, before one of them is back in the
   guest, which is as good as the ISB that the architecture wants. By the host's address, which does
   for the guest's where caches are physically tagged; where they are virtually indexed and small pages
   make aliases of that, or where a guest's MMU is off and its accesses bypass the caches (no
   FEAT_S2FWB), a CPU may execute what was there: a hardware breakpoint is the way out. */
static void dbg__store(uint8_t *at, const uint8_t *from, size_t n)
{
    memcpy(at, from, n);
    __builtin___clear_cache((char *)at, (char *)at + n);
}

static void *dbg__cpu(struct dbg_gdb *g, bool write)
{
    return g->desc.cpu(g->desc.ctx, g->current, write);
}

/* The host's view of the bytes at an address, *n of at most len, and where that is. */
static uint8_t *dbg__at(struct dbg_gdb *g, bool physical, uint64_t addr, size_t len, size_t *n,
                        uint64_t *gpa)
{
    struct dbg_page page = {.gpa = addr};
    uint64_t left;

    if (!physical && g->machine->arch->walk(g->desc.mem, dbg__cpu(g, false), addr, &page))
        return NULL;
    left = 4096 - (page.gpa & 4095);
    *n = len < left ? len : (size_t)left;
    *gpa = page.gpa;
    return (uint8_t *)vmm_at(g->desc.mem, page.gpa, *n);
}

/* Where byte k of a breakpoint is within n bytes at gpa; -1: not there. */
static int dbg__trap_within(const struct dbg__trap *t, size_t k, uint64_t gpa, size_t n)
{
    uint64_t off = t->gpa + k - gpa;

    return off < n ? (int)off : -1;
}

/* Puts what the guest has below gdb's breakpoints into a copy of its memory. */
static void dbg__hide_traps(const struct dbg_gdb *g, uint64_t gpa, uint8_t *buf, size_t n)
{
    for (unsigned i = 0; i < g->ntraps; i++)
        for (size_t k = 0; k < g->machine->arch->trap_len; k++) {
            int at = dbg__trap_within(&g->trap[i], k, gpa, n);
            if (at >= 0)
                buf[at] = g->trap[i].saved[k];
        }
}

/* The opposite: what is about to be written goes below the breakpoints. Two of them may be at the
   same place: first all take note. */
static void dbg__keep_traps(struct dbg_gdb *g, uint64_t gpa, uint8_t *buf, size_t n)
{
    const struct dbg__arch *arch = g->machine->arch;

    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned i = 0; i < g->ntraps; i++)
            for (size_t k = 0; k < arch->trap_len; k++) {
                int at = dbg__trap_within(&g->trap[i], k, gpa, n);
                if (at >= 0 && pass == 0)
                    g->trap[i].saved[k] = buf[at];
                else if (at >= 0)
                    buf[at] = arch->trap[k];
            }
}

/* What cannot be read ends it; nothing at all is an error. */
static bool dbg__read(struct dbg_gdb *g, struct dbg__text *r, uint64_t addr, uint64_t len)
{
    uint8_t chunk[64];
    uint64_t gpa, done = 0;
    size_t n;

    if (len > r->room / 2)
        len = r->room / 2;
    while (done < len) {
        const uint8_t *at = dbg__at(g, g->physical, addr + done,
                                    len - done < 64 ? (size_t)(len - done) : 64, &n, &gpa);
        if (!at)
            break;
        memcpy(chunk, at, n);
        dbg__hide_traps(g, gpa, chunk, n);
        dbg__putbytes(r, chunk, n);
        done += n;
    }
    return done || !len;
}

/* All of it or, after what went before an error, not. */
static bool dbg__write(struct dbg_gdb *g, uint64_t addr, uint8_t *buf, size_t len)
{
    uint64_t gpa;
    size_t n;

    for (; len; addr += n, buf += n, len -= n) {
        uint8_t *at = dbg__at(g, g->physical, addr, len, &n, &gpa);
        if (!at)
            return false;
        dbg__keep_traps(g, gpa, buf, n);
        dbg__store(at, buf, n);
    }
    return true;
}

/* >>gdb breakpoints: those in memory are kept by their physical address, for the page tables may be
   others by the time that they are taken out. */

static struct dbg__trap *dbg__trap_find(struct dbg_gdb *g, uint64_t gva)
{
    for (unsigned i = 0; i < g->ntraps; i++)
        if (g->trap[i].gva == gva)
            return &g->trap[i];
    return NULL;
}

/* 0 or an error of the protocol. */
static unsigned dbg__trap_add(struct dbg_gdb *g, uint64_t gva)
{
    struct dbg__trap *t = &g->trap[g->ntraps];
    size_t n, len = g->machine->arch->trap_len;
    uint64_t gpa;
    uint8_t *at;

    if (dbg__trap_find(g, gva))
        return 0;
    if (gva % len)
        return DBG__EINVAL;
    if (g->ntraps == DBG_TRAPS_MAX)
        return DBG__ENOSPC;
    at = dbg__at(g, false, gva, len, &n, &gpa);
    if (!at || n < len)
        return DBG__EFAULT;
    t->gva = gva;
    t->gpa = gpa;
    memcpy(t->saved, at, len);
    dbg__hide_traps(g, gpa, t->saved, len); /* another address may lead there, too */
    dbg__store(at, g->machine->arch->trap, len);
    g->ntraps++;
    return 0;
}

/* The guest may have written something else there meanwhile; that stays. */
static void dbg__trap_del(struct dbg_gdb *g, struct dbg__trap *t)
{
    const struct dbg__arch *arch = g->machine->arch;
    struct dbg__trap old = *t;
    uint8_t *at = (uint8_t *)vmm_at(g->desc.mem, old.gpa, arch->trap_len);

    *t = g->trap[--g->ntraps];
    for (unsigned i = 0; i < g->ntraps; i++)
        if (g->trap[i].gpa == old.gpa)
            return;
    if (at && !memcmp(at, arch->trap, arch->trap_len))
        dbg__store(at, old.saved, arch->trap_len);
}

VMM_DEF bool dbg_gdb_owns(const struct dbg_gdb *g, const void *regs, uint64_t pc)
{
    struct dbg_page page;

    if (!g->ntraps || g->machine->arch->walk(g->desc.mem, regs, pc, &page))
        return false;
    for (unsigned i = 0; i < g->ntraps; i++)
        if (g->trap[i].gpa == page.gpa)
            return true;
    return false;
}

/* Slots for one watch: as many as aligned pieces cover it. */
static bool dbg__slots_for(struct dbg_gdb *g, const struct dbg__watch *w, unsigned *used)
{
    static const enum vmm_break_kind kinds[] = {VMM_BREAK_EXEC, VMM_BREAK_WRITE, VMM_BREAK_ACCESS,
                                                VMM_BREAK_ACCESS};
    uint64_t addr = w->addr, len = w->kind == '1' ? 1 : w->len;

    while (len) {
        uint8_t size = 8;
        while (addr & (size - 1u) || size > len)
            size >>= 1;
        if (*used == VMM_BREAKS)
            return false;
        g->owner[*used] = *w;
        g->want.slot[(*used)++] = (struct vmm_break){addr, size, kinds[w->kind - '1']};
        addr += size;
        len -= size;
    }
    return true;
}

/* Some CPUs have fewer slots of a kind. */
static bool dbg__slots_suffice(const struct dbg_gdb *g)
{
    const struct dbg_gdb_desc *d = &g->desc;
    unsigned breaks = 0, watches = 0;

    for (unsigned i = 0; i < VMM_BREAKS; i++) {
        breaks += g->want.slot[i].len && g->want.slot[i].kind == VMM_BREAK_EXEC;
        watches += g->want.slot[i].len && g->want.slot[i].kind != VMM_BREAK_EXEC;
    }
    return (!d->breaks || breaks <= d->breaks) && (!d->watches || watches <= d->watches);
}

/* False: there are not enough slots for all. */
static bool dbg__assign_slots(struct dbg_gdb *g)
{
    unsigned used = 0;
    bool fits = true;

    memset(g->want.slot, 0, sizeof g->want.slot);
    for (unsigned i = 0; i < g->nwatches && fits; i++)
        fits = dbg__slots_for(g, &g->watch[i], &used);
    return fits && dbg__slots_suffice(g);
}

static struct dbg__watch *dbg__watch_find(struct dbg_gdb *g, const struct dbg__watch *w)
{
    for (unsigned i = 0; i < g->nwatches; i++)
        if (g->watch[i].kind == w->kind && g->watch[i].addr == w->addr && g->watch[i].len == w->len)
            return &g->watch[i];
    return NULL;
}

static void dbg__watch_del(struct dbg_gdb *g, struct dbg__watch *w)
{
    if (!w)
        return;
    *w = g->watch[--g->nwatches];
    dbg__assign_slots(g);
}

static unsigned dbg__watch_add(struct dbg_gdb *g, const struct dbg__watch *w)
{
    if (dbg__watch_find(g, w))
        return 0;
    if (!w->len || (w->kind == '1' && w->addr % g->machine->arch->trap_len))
        return DBG__EINVAL;
    if (g->nwatches == VMM_BREAKS)
        return DBG__ENOSPC;
    g->watch[g->nwatches++] = *w;
    if (dbg__assign_slots(g))
        return 0;
    dbg__watch_del(g, &g->watch[g->nwatches - 1]);
    return DBG__ENOSPC;
}

/* >>gdb packets: a reply is made behind '$' in g->out, which is kept until the next. */

static void dbg__flush(struct dbg_gdb *g)
{
    size_t n = 1;

    while (g->out_at < g->out_len && n) {
        n = g->desc.stream.write(g->desc.stream.ctx, g->out + g->out_at, g->out_len - g->out_at);
        g->out_at += n;
    }
}

static bool dbg__flushed(const struct dbg_gdb *g)
{
    return g->out_at == g->out_len;
}

static struct dbg__text dbg__begin(struct dbg_gdb *g)
{
    g->out[0] = '+';
    g->out[1] = '$';
    return (struct dbg__text){g->out + 2, DBG_PACKET_MAX, 0, 0, false};
}

/* `ack`: the packet answers one that wants to be acknowledged. */
static void dbg__end(struct dbg_gdb *g, struct dbg__text *r, bool ack)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < r->len; i++)
        sum += (uint8_t)r->buf[i];
    r->room += 3;
    dbg__putc(r, '#');
    dbg__puthex(r, sum, 2);
    g->out_len = 2 + r->len;
    g->out_at = ack ? 0 : 1;
    dbg__flush(g);
}

/* One character that is no packet. */
static void dbg__send(struct dbg_gdb *g, char c)
{
    g->out[0] = c;
    g->out_len = 1;
    g->out_at = 0;
    dbg__flush(g);
}

/* '-': the other side did not understand. */
static void dbg__again(struct dbg_gdb *g)
{
    g->out_at = g->out_len ? 1 : 0;
    dbg__flush(g);
}

static void dbg__error(struct dbg__text *r, unsigned err)
{
    r->len = 0;
    dbg__puts(r, err ? "E" : "OK");
    if (err)
        dbg__puthex(r, err, 2);
}

/* >>gdb stopping and going on */

/* "Stop Reply Packets". The signals are gdb's own numbers, those of most Unixes. */
static void dbg__put_stop(const struct dbg_gdb *g, struct dbg__text *r)
{
    const struct dbg__stop *s = &g->told;
    unsigned signo = 5; /* SIGTRAP */

    if (s->why & DBG_WHY_SHUTDOWN)
        signo = 11; /* SIGSEGV */
    else if (s->why & (DBG_WHY_FAULT | VMM_DEBUG_UNABLE))
        signo = 4; /* SIGILL */
    else if (!s->why && g->asked)
        signo = 2; /* SIGINT */
    dbg__puts(r, "T");
    dbg__puthex(r, signo, 2);
    if (s->kind > '1') {
        dbg__puts(r, s->kind == '2' ? "watch:" : s->kind == '3' ? "rwatch:" : "awatch:");
        dbg__puthex(r, s->addr, 1);
        dbg__puts(r, ";");
    } else if (g->tells_breaks && (s->kind || s->why & VMM_DEBUG_TRAP)) {
        dbg__puts(r, s->kind ? "hwbreak:;" : "swbreak:;");
    }
    dbg__puts(r, "thread:");
    dbg__puthex(r, g->teller + 1, 1);
    dbg__puts(r, ";");
}

VMM_DEF void dbg_gdb_why(struct dbg_gdb *g, unsigned cpu, unsigned why)
{
    struct dbg__stop *s = &g->stop[cpu];

    *s = (struct dbg__stop){.why = why};
    for (unsigned i = 0; i < VMM_BREAKS; i++)
        if (why >> i & 1 && g->want.slot[i].len) {
            s->kind = g->owner[i].kind;
            s->addr = g->want.slot[i].addr;
            break;
        }
    if (!g->told.why) {
        g->teller = cpu;
        g->told = *s;
    }
}

/* Something that will not happen again by itself when the CPU goes on, and is still of interest. */
static bool dbg__is_due(const struct dbg_gdb *g, const struct dbg__stop *s)
{
    if (s->why & (DBG_WHY_SHUTDOWN | DBG_WHY_FAULT))
        return true;
    for (unsigned i = 0; i < VMM_BREAKS; i++)
        if (s->kind > '1' && g->want.slot[i].len && g->owner[i].kind == s->kind &&
            g->want.slot[i].addr == s->addr)
            return true;
    return false;
}

/* A CPU that stopped for a reason of its own while another's was told first. */
static bool dbg__tell_due(struct dbg_gdb *g)
{
    for (unsigned i = 0; i < g->desc.ncpus; i++) {
        struct dbg__stop *s = &g->stop[i];
        if (g->go[i] != DBG_STAY && dbg__is_due(g, s)) {
            g->told = *s;
            g->teller = g->current = i;
            *s = (struct dbg__stop){0};
            return true;
        }
    }
    return false;
}

/* Lets CPUs go as g->go says. True: one of them had something to tell, which is now in the reply. */
static bool dbg__resume(struct dbg_gdb *g, struct dbg__text *r)
{
    if (dbg__tell_due(g)) {
        dbg__put_stop(g, r);
        return true;
    }
    for (unsigned i = 0; i < g->desc.ncpus; i++)
        if (g->go[i] != DBG_STAY)
            g->stop[i] = (struct dbg__stop){0};
    g->told = (struct dbg__stop){0};
    g->stopped = g->asked = false;
    g->awaits = true;
    g->want.traps = g->ntraps > 0;
    g->desc.resume(g->desc.ctx, g->go, &g->want);
    return false;
}

/* As if there never had been a gdb. */
static void dbg__release(struct dbg_gdb *g)
{
    while (g->ntraps)
        dbg__trap_del(g, &g->trap[0]);
    g->nwatches = 0;
    memset(&g->want, 0, sizeof g->want);
    memset(g->stop, 0, sizeof g->stop);
    memset(g->go, DBG_RUN, sizeof g->go);
    g->told = (struct dbg__stop){0};
    g->stopped = g->awaits = g->asked = false;
    g->free = true;
    g->desc.resume(g->desc.ctx, g->go, &g->want);
}

static void dbg__tell_stop(struct dbg_gdb *g)
{
    struct dbg__text r = dbg__begin(g);

    g->awaits = false;
    dbg__put_stop(g, &r);
    dbg__end(g, &r, false);
}

VMM_DEF void dbg_gdb_stopped(struct dbg_gdb *g)
{
    g->stopped = true;
    if (g->told.why)
        g->stop[g->teller] = (struct dbg__stop){0};
    else
        g->teller = g->current;
    g->current = g->stepper = g->teller;
    if (g->free || (!g->there && !g->held))
        dbg__release(g);
    else if (g->there && g->awaits && dbg__flushed(g))
        dbg__tell_stop(g); /* else once there is room */
    else if (g->there && g->desc.stream.rx_room)
        g->desc.stream.rx_room(g->desc.stream.ctx);
}

/* >>gdb commands: each gets what follows its name; false: no reply now. An empty reply says that
   there is no such command. */

static bool dbg__cmd_status(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    (void)args;
    dbg__put_stop(g, r);
    return true;
}

static bool dbg__cmd_read_regs(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    struct dbg__reg reg;
    uint8_t buf[16];

    (void)args;
    for (unsigned i = 0; dbg__reg_at(g, i, &reg); i++) {
        dbg__reg_read(g, dbg__cpu(g, false), &reg, buf);
        dbg__putbytes(r, buf, reg.bits / 8u);
    }
    return true;
}

/* All registers or none: the first pass only looks. */
static bool dbg__cmd_write_regs(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    struct dbg__reg reg;
    uint8_t buf[16] = {0};

    for (unsigned pass = 0; pass < 2; pass++) {
        const char *p = args;
        for (unsigned i = 0; dbg__reg_at(g, i, &reg); i++) {
            if (!dbg__getbytes(&p, buf, reg.bits / 8u)) {
                dbg__error(r, DBG__EINVAL);
                return true;
            }
            if (pass)
                dbg__reg_write(g, dbg__cpu(g, true), &reg, buf);
        }
    }
    dbg__error(r, 0);
    return true;
}

static bool dbg__cmd_read_reg(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    uint64_t n;
    struct dbg__reg reg;
    uint8_t buf[16];

    if (!dbg__gethex(&args, &n) || !dbg__reg_at(g, n, &reg)) {
        dbg__error(r, DBG__EINVAL);
        return true;
    }
    dbg__reg_read(g, dbg__cpu(g, false), &reg, buf);
    dbg__putbytes(r, buf, reg.bits / 8u);
    return true;
}

static bool dbg__cmd_write_reg(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    uint64_t n;
    struct dbg__reg reg;
    uint8_t buf[16] = {0};
    bool ok = dbg__gethex(&args, &n) && dbg__reg_at(g, n, &reg) && dbg__getc(&args, '=') &&
              dbg__getbytes(&args, buf, reg.bits / 8u);

    if (ok)
        dbg__reg_write(g, dbg__cpu(g, true), &reg, buf);
    dbg__error(r, ok ? 0 : DBG__EINVAL);
    return true;
}

/* "addr,len" */
static bool dbg__getrange(const char **p, uint64_t *addr, uint64_t *len)
{
    return dbg__gethex(p, addr) && dbg__getc(p, ',') && dbg__gethex(p, len);
}

static bool dbg__cmd_read(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    uint64_t addr, len;

    if (!dbg__getrange(&args, &addr, &len))
        dbg__error(r, DBG__EINVAL);
    else if (!dbg__read(g, r, addr, len))
        dbg__error(r, DBG__EFAULT);
    return true;
}

/* M in hex, X in bytes. What was received is as good a place as any for the bytes. */
static bool dbg__write_command(struct dbg_gdb *g, struct dbg__text *r, const char *args, bool hex)
{
    uint64_t addr, len;
    uint8_t *buf = (uint8_t *)g->in;
    bool ok = dbg__getrange(&args, &addr, &len) && dbg__getc(&args, ':');
    size_t left = ok ? (size_t)(g->in + g->in_len - args) : 0;

    if (!ok || (hex ? left / 2 : left) != len || (hex && left % 2))
        dbg__error(r, DBG__EINVAL);
    else if (hex && !dbg__getbytes(&args, buf, (size_t)len))
        dbg__error(r, DBG__EINVAL);
    else
        dbg__error(r, dbg__write(g, addr, hex ? buf : buf + (args - g->in), (size_t)len)
                          ? 0
                          : DBG__EFAULT);
    return true;
}

static bool dbg__cmd_write(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    return dbg__write_command(g, r, args, true);
}

static bool dbg__cmd_write_binary(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    return dbg__write_command(g, r, args, false);
}

/* "kind,addr,len" of Z and z. False: an empty reply or an error is made. */
static bool dbg__getbreak(struct dbg__text *r, const char *args, struct dbg__watch *w)
{
    w->kind = *args++;
    if (w->kind < '0' || w->kind > '4')
        return false;
    if (dbg__getc(&args, ',') && dbg__getrange(&args, &w->addr, &w->len))
        return true;
    dbg__error(r, DBG__EINVAL);
    return false;
}

static bool dbg__cmd_insert(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    struct dbg__watch w;

    if (dbg__getbreak(r, args, &w))
        dbg__error(r, w.kind == '0' ? dbg__trap_add(g, w.addr) : dbg__watch_add(g, &w));
    return true;
}

static bool dbg__cmd_remove(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    struct dbg__watch w;
    struct dbg__trap *t;

    if (!dbg__getbreak(r, args, &w))
        return true;
    t = w.kind == '0' ? dbg__trap_find(g, w.addr) : NULL;
    if (t)
        dbg__trap_del(g, t);
    else if (w.kind != '0')
        dbg__watch_del(g, dbg__watch_find(g, &w));
    dbg__error(r, 0);
    return true;
}

enum dbg__who { DBG__NOBODY, DBG__ONE, DBG__ALL }; /* of a thread-id */

/* -1: all; 0: any, for which the current one is as good as others. */
static enum dbg__who dbg__getthread(const struct dbg_gdb *g, const char **p, unsigned *cpu)
{
    uint64_t id;

    *cpu = g->current;
    if (dbg__getc(p, '-'))
        return dbg__getc(p, '1') ? DBG__ALL : DBG__NOBODY;
    if (!dbg__gethex(p, &id) || id > g->desc.ncpus)
        return DBG__NOBODY;
    if (id)
        *cpu = (unsigned)id - 1;
    return DBG__ONE;
}

static bool dbg__cmd_thread(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    char what = *args++;
    unsigned cpu;

    if ((what != 'g' && what != 'c') || dbg__getthread(g, &args, &cpu) == DBG__NOBODY) {
        dbg__error(r, DBG__EINVAL);
        return true;
    }
    *(what == 'g' ? &g->current : &g->stepper) = cpu;
    dbg__error(r, 0);
    return true;
}

static bool dbg__cmd_alive(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    unsigned cpu;

    dbg__error(r, dbg__getthread(g, &args, &cpu) == DBG__ONE ? 0 : DBG__EINVAL);
    return true;
}

/* c and s, which gdb sends to those who do not know vCont; C and S with a signal, of which machines
   have none. With an address, they go on there. */
static bool dbg__go_on(struct dbg_gdb *g, struct dbg__text *r, const char *args, bool step)
{
    uint8_t pc[16] = {0};
    uint64_t addr;
    struct dbg__reg reg;

    if (dbg__gethex(&args, &addr)) {
        vmm_put64(pc, addr);
        for (unsigned i = 0; dbg__reg_at(g, i, &reg); i++)
            if (reg.how & DBG__PC)
                dbg__reg_write(g, g->desc.cpu(g->desc.ctx, g->stepper, true), &reg, pc);
    }
    memset(g->go, step ? DBG_STAY : DBG_RUN, sizeof g->go);
    if (step)
        g->go[g->stepper] = DBG_STEP;
    return dbg__resume(g, r);
}

static bool dbg__cmd_continue(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    return dbg__go_on(g, r, args, false);
}

static bool dbg__cmd_step(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    return dbg__go_on(g, r, args, true);
}

static const char *dbg__after_signal(const char *args)
{
    uint64_t signo;

    if (dbg__gethex(&args, &signo) && *args == ';')
        args++;
    return args;
}

static bool dbg__cmd_continue_signal(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    return dbg__go_on(g, r, dbg__after_signal(args), false);
}

static bool dbg__cmd_step_signal(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    return dbg__go_on(g, r, dbg__after_signal(args), true);
}

#define DBG__UNDECIDED 0xff

/* One action of vCont: for a thread, or for those for which none came before. */
static bool dbg__vcont_action(struct dbg_gdb *g, const char **p)
{
    char what = *(*p)++;
    uint8_t go = what == 's' || what == 'S' ? DBG_STEP : DBG_RUN;
    enum dbg__who who = DBG__ALL;
    uint64_t signo;
    unsigned cpu = 0;

    if (what != 'c' && what != 's' && what != 'C' && what != 'S')
        return false;
    if ((what == 'C' || what == 'S') && !dbg__gethex(p, &signo))
        return false;
    if (dbg__getc(p, ':'))
        who = dbg__getthread(g, p, &cpu);
    for (unsigned i = 0; i < g->desc.ncpus; i++)
        if (g->go[i] == DBG__UNDECIDED && (who == DBG__ALL || (who == DBG__ONE && i == cpu)))
            g->go[i] = go;
    return who != DBG__NOBODY;
}

static bool dbg__cmd_vcont(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    bool ok = *args == ';', some = false;

    memset(g->go, DBG__UNDECIDED, sizeof g->go);
    while (ok && dbg__getc(&args, ';'))
        ok = dbg__vcont_action(g, &args);
    for (unsigned i = 0; i < g->desc.ncpus; i++) {
        if (g->go[i] == DBG__UNDECIDED)
            g->go[i] = DBG_STAY;
        some |= g->go[i] != DBG_STAY;
    }
    if (ok && some && !*args)
        return dbg__resume(g, r);
    dbg__error(r, DBG__EINVAL);
    return true;
}

static bool dbg__cmd_vcont_which(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    (void)g;
    (void)args;
    dbg__puts(r, "vCont;c;C;s;S");
    return true;
}

static bool dbg__cmd_detach(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    (void)args;
    dbg__error(r, 0);
    dbg__release(g);
    return true;
}

static bool dbg__cmd_kill(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    (void)args;
    g->desc.kill(g->desc.ctx);
    dbg__error(r, 0);
    return g->in[0] == 'v'; /* vKill has a reply, k has none */
}

static bool dbg__cmd_supported(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    g->tells_breaks = strstr(args, "swbreak+") && strstr(args, "hwbreak+");
    dbg__puts(r, "PacketSize=");
    dbg__puthex(r, DBG_PACKET_MAX, 1);
    dbg__puts(r, ";QStartNoAckMode+;qXfer:features:read+;qXfer:threads:read+;vContSupported+;"
                 "swbreak+;hwbreak+");
    return true;
}

static bool dbg__cmd_no_ack(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    (void)args;
    g->no_ack_next = true;
    dbg__error(r, 0);
    return true;
}

static bool dbg__cmd_attached(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    (void)g;
    (void)args;
    dbg__puts(r, "1"); /* so that gdb, when it leaves, detaches and does not kill */
    return true;
}

static bool dbg__cmd_current(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    (void)args;
    dbg__puts(r, "QC");
    dbg__puthex(r, g->current + 1, 1);
    return true;
}

/* For those who do not ask for the list in XML. */
static bool dbg__threads_from(struct dbg_gdb *g, struct dbg__text *r, unsigned cpu)
{
    const unsigned many = 256; /* fit into a packet */

    g->listed = cpu + many;
    dbg__puts(r, cpu < g->desc.ncpus ? "m" : "l");
    for (unsigned i = cpu; i < g->desc.ncpus && i < cpu + many; i++) {
        dbg__puts(r, i > cpu ? "," : "");
        dbg__puthex(r, i + 1, 1);
    }
    return true;
}

static bool dbg__cmd_threads(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    (void)args;
    return dbg__threads_from(g, r, 0);
}

static bool dbg__cmd_more_threads(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    (void)args;
    return dbg__threads_from(g, r, g->listed);
}

/* "annex:offset,length": a piece of a document, and whether it is the last. */
static bool dbg__document(struct dbg_gdb *g, struct dbg__text *r, const char *args,
                          void (*write)(const struct dbg_gdb *g, struct dbg__text *t))
{
    struct dbg__text part = {r->buf + 1, 0, 0, 0, false};
    uint64_t len;

    if (!dbg__getrange(&args, &part.skip, &len)) {
        dbg__error(r, DBG__EINVAL);
        return true;
    }
    part.room = len < r->room - 1 ? (size_t)len : r->room - 1;
    write(g, &part);
    r->buf[0] = part.more ? 'm' : 'l';
    r->len = 1 + part.len;
    return true;
}

static bool dbg__cmd_features(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    return dbg__document(g, r, args, dbg__describe);
}

static bool dbg__cmd_thread_list(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    return dbg__document(g, r, args, dbg__list_threads);
}

/* >>gdb monitor: commands that gdb hands on as they are, for what it has no words for. */

static void dbg__mon_help(struct dbg_gdb *g, struct dbg__text *t, const char *args)
{
    (void)g;
    (void)args;
    dbg__puts(t, "monitor help            this text\n"
                 "monitor phys on|off     addresses are physical; or the CPU's own, as at first\n"
                 "monitor regs            of the CPU that gdb read last, what it has no names for\n"
                 "monitor walk ADDRESS    what the CPU's page tables say of a linear address\n");
}

static void dbg__mon_phys(struct dbg_gdb *g, struct dbg__text *t, const char *args)
{
    if (!strcmp(args, "on") || !strcmp(args, "off"))
        g->physical = args[1] == 'n';
    else
        dbg__puts(t, "say monitor phys on, or monitor phys off\n");
}

static void dbg__mon_regs(struct dbg_gdb *g, struct dbg__text *t, const char *args)
{
    (void)args;
    g->machine->arch->tell(dbg__cpu(g, false), t);
}

static void dbg__mon_walk(struct dbg_gdb *g, struct dbg__text *t, const char *args)
{
    struct dbg_page page;
    uint64_t gva;

    if (args[0] == '0' && (args[1] | 0x20) == 'x')
        args += 2;
    if (!dbg__gethex(&args, &gva) || *args) {
        dbg__puts(t, "say monitor walk ADDRESS, in hex\n");
        return;
    }
    if (g->machine->arch->walk(g->desc.mem, dbg__cpu(g, false), gva, &page)) {
        dbg__puts(t, "not mapped\n");
        return;
    }
    dbg__puts(t, "physical 0x");
    dbg__puthex(t, page.gpa, 1);
    dbg__puts(t, page.writable ? ", writable" : ", read-only");
    dbg__puts(t, page.exec ? ", executable" : "");
    dbg__puts(t, page.user ? ", user\n" : ", supervisor\n");
}

static const struct dbg__monitor {
    const char *name;
    void (*fn)(struct dbg_gdb *g, struct dbg__text *t, const char *args);
} dbg__monitors[] = {
    {"help", dbg__mon_help},
    {"phys", dbg__mon_phys},
    {"regs", dbg__mon_regs},
    {"walk", dbg__mon_walk},
};

/* The text of a command, and then its output, are in hex. Both find room in what was received. */
static bool dbg__cmd_monitor(struct dbg_gdb *g, struct dbg__text *r, const char *args)
{
    char line[64], text[DBG_PACKET_MAX / 2];
    struct dbg__text t = {text, sizeof text, 0, 0, false};
    size_t len = strlen(args) / 2;

    if (len >= sizeof line || !dbg__getbytes(&args, (uint8_t *)line, len)) {
        dbg__error(r, DBG__EINVAL);
        return true;
    }
    line[len] = 0;
    for (unsigned i = 0; i < sizeof dbg__monitors / sizeof dbg__monitors[0]; i++) {
        const struct dbg__monitor *m = &dbg__monitors[i];
        size_t n = strlen(m->name);
        if (strncmp(line, m->name, n) || (line[n] && line[n] != ' '))
            continue;
        m->fn(g, &t, line + n + (line[n] == ' '));
        if (t.len)
            dbg__putbytes(r, text, t.len);
        else
            dbg__error(r, 0);
        return true;
    }
    dbg__puts(&t, "no such command: see monitor help\n");
    dbg__putbytes(r, text, t.len);
    return true;
}

/* >>gdb dispatch */

static const struct dbg__command {
    const char *name;
    bool (*fn)(struct dbg_gdb *g, struct dbg__text *r, const char *args);
} dbg__commands[] = {
    {"?", dbg__cmd_status},
    {"g", dbg__cmd_read_regs},
    {"G", dbg__cmd_write_regs},
    {"p", dbg__cmd_read_reg},
    {"P", dbg__cmd_write_reg},
    {"m", dbg__cmd_read},
    {"M", dbg__cmd_write},
    {"X", dbg__cmd_write_binary},
    {"Z", dbg__cmd_insert},
    {"z", dbg__cmd_remove},
    {"H", dbg__cmd_thread},
    {"T", dbg__cmd_alive},
    {"c", dbg__cmd_continue},
    {"C", dbg__cmd_continue_signal},
    {"s", dbg__cmd_step},
    {"S", dbg__cmd_step_signal},
    {"D", dbg__cmd_detach},
    {"k", dbg__cmd_kill},
    {"vCont?", dbg__cmd_vcont_which},
    {"vCont", dbg__cmd_vcont},
    {"vKill;", dbg__cmd_kill},
    {"qSupported", dbg__cmd_supported},
    {"QStartNoAckMode", dbg__cmd_no_ack},
    {"qAttached", dbg__cmd_attached},
    {"qC", dbg__cmd_current},
    {"qfThreadInfo", dbg__cmd_threads},
    {"qsThreadInfo", dbg__cmd_more_threads},
    {"qXfer:features:read:target.xml:", dbg__cmd_features},
    {"qXfer:threads:read::", dbg__cmd_thread_list},
    {"qRcmd,", dbg__cmd_monitor},
};

/* Does the packet begin with this name? One that ends in a letter must be followed by none: qC is
   not qCRC. */
static bool dbg__is(const char *packet, const char *name)
{
    size_t n = strlen(name);
    char last = name[n - 1], next = packet[strncmp(packet, name, n) ? 0 : n];

    if (strncmp(packet, name, n))
        return false;
    return n == 1 || (last | 0x20) < 'a' || (last | 0x20) > 'z' || (next | 0x20) < 'a' ||
           (next | 0x20) > 'z';
}

/* A packet is complete. While the guest runs, there is nothing to say but Ctrl-C. */
static void dbg__packet(struct dbg_gdb *g)
{
    struct dbg__text r;
    bool ack = !g->no_ack, reply = true;

    if (g->sum != g->sum_told && ack)
        dbg__send(g, '-');
    if (g->sum != g->sum_told)
        return;
    if (!g->stopped) {
        if (ack)
            dbg__send(g, '+');
        return;
    }
    g->in[g->in_len] = 0;
    r = dbg__begin(g);
    if (g->too_long)
        dbg__error(&r, DBG__EINVAL);
    for (unsigned i = 0; !g->too_long && i < sizeof dbg__commands / sizeof dbg__commands[0]; i++)
        if (dbg__is(g->in, dbg__commands[i].name)) {
            reply = dbg__commands[i].fn(g, &r, g->in + strlen(dbg__commands[i].name));
            break;
        }
    if (reply)
        dbg__end(g, &r, ack);
    else if (ack)
        dbg__send(g, '+');
    g->no_ack |= g->no_ack_next;
}

static void dbg__rx_idle(struct dbg_gdb *g, char c)
{
    if (c == '$') {
        g->state = DBG__BODY;
        g->in_len = g->sum = 0;
        g->too_long = false;
    } else if (c == '-') {
        dbg__again(g);
    } else if (c == DBG__CTRL_C && g->awaits) {
        g->asked = true;
        g->desc.stop(g->desc.ctx);
    }
}

static void dbg__rx_body(struct dbg_gdb *g, char c)
{
    if (c == '#') {
        g->state = DBG__SUM1;
        return;
    }
    g->sum += (uint8_t)c;
    if (c == '}' && g->state == DBG__BODY) {
        g->state = DBG__ESCAPED;
        return;
    }
    if (g->in_len == DBG_PACKET_MAX)
        g->too_long = true;
    else
        g->in[g->in_len++] = g->state == DBG__ESCAPED ? (char)(c ^ 0x20) : c;
    g->state = DBG__BODY;
}

static void dbg__rx_byte(struct dbg_gdb *g, char c)
{
    switch (g->state) {
    case DBG__IDLE:
        dbg__rx_idle(g, c);
        break;
    case DBG__BODY:
    case DBG__ESCAPED:
        dbg__rx_body(g, c);
        break;
    case DBG__SUM1:
        g->sum_told = (uint8_t)((dbg__digit(c) & 15) << 4);
        g->state = DBG__SUM2;
        break;
    case DBG__SUM2:
        g->sum_told |= (uint8_t)(dbg__digit(c) & 15);
        g->state = DBG__IDLE;
        dbg__packet(g);
        break;
    }
}

/* Not before the last reply is out, nor while the guest is about to stop. */
static bool dbg__listens(const struct dbg_gdb *g)
{
    return dbg__flushed(g) && (g->free || g->stopped != g->awaits);
}

VMM_DEF size_t dbg_gdb_rx(struct dbg_gdb *g, const void *buf, size_t len)
{
    size_t n = 0;

    while (n < len && dbg__listens(g))
        dbg__rx_byte(g, ((const char *)buf)[n++]);
    return n;
}

VMM_DEF void dbg_gdb_tx_ready(struct dbg_gdb *g)
{
    dbg__flush(g);
    if (!dbg__flushed(g))
        return;
    if (g->stopped && g->awaits)
        dbg__tell_stop(g);
    if (g->desc.stream.rx_room)
        g->desc.stream.rx_room(g->desc.stream.ctx);
}

VMM_DEF void dbg_gdb_peer(struct dbg_gdb *g, bool there)
{
    g->there = there;
    g->state = DBG__IDLE;
    g->out_len = g->out_at = 0;
    g->no_ack = g->no_ack_next = g->tells_breaks = g->physical = g->awaits = g->asked = false;
    if (there) {
        g->held = g->free = false;
        if (!g->stopped)
            g->desc.stop(g->desc.ctx);
    } else if (g->stopped) {
        dbg__release(g);
    } else if (!g->free) {
        g->desc.stop(g->desc.ctx);
    }
}

VMM_DEF void dbg_gdb_over(struct dbg_gdb *g, uint8_t status)
{
    struct dbg__text r;

    if (!g->there || !g->awaits || !dbg__flushed(g))
        return;
    r = dbg__begin(g);
    dbg__puts(&r, "W");
    dbg__puthex(&r, status, 2);
    dbg__end(g, &r, false);
}

VMM_DEF int dbg_gdb_init(struct dbg_gdb *g, const struct dbg_gdb_desc *desc)
{
    memset(g, 0, sizeof *g);
    if (!desc->ncpus || desc->ncpus > DBG_CPUS_MAX ||
        (unsigned)desc->machine >= sizeof dbg__machines / sizeof dbg__machines[0] ||
        !dbg__machines[desc->machine].name)
        return -EINVAL;
    g->desc = *desc;
    g->machine = &dbg__machines[desc->machine];
    g->held = desc->stopped;
    g->free = !desc->stopped;
    return 0;
}
#endif /* DBG__IMPLEMENTED */
#endif /* DEBUG_IMPLEMENTATION */
