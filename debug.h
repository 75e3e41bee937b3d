/* debug.h - a look inside a guest                                 MIT licence, see LICENSE

   WHAT IT IS      What a debugger or a crash report asks of a virtual machine: which physical
                   address is behind a linear one, as the guest's own page tables have it ("Intel
                   SDM" volume 3, chapter 4), and what is there.

   QUICK START     static bool peek(const struct vmm_mem *mem, const struct vmm_x86_regs *regs)
                   {
                       uint8_t code[16]; // what the CPU will execute next
                       uint64_t rip = regs->cs.base + regs->rip;
                       return dbg_x86_read(mem, regs, rip, code, sizeof code) == sizeof code;
                   }

   CONFIGURATION   set everywhere: VMM_DEF, see vmm.h
                   set in one file: DEBUG_IMPLEMENTATION (or VMM_IMPLEMENTATION)

   DEPENDS ON      vmm.h alone.

   THREADS         Nothing here locks or keeps state. The guest may run meanwhile: what is read is
                   then what was there at some moment.
   MEMORY          The caller's buffers alone.
   ERRORS          0 or -errno, without a sentence: an address without memory is no fault.
   GUEST TRUST     Page tables, stacks and registers may hold anything: every walk is bounded by the
                   depth of the tables or by the caller's buffer, and goes through vmm_at.

   Sections: >>walk */
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

/* The host's view of the bytes at gva, *n of at most len; NULL: there are none. */
static uint8_t *dbg__x86_at(const struct vmm_mem *mem, const struct vmm_x86_regs *r, uint64_t gva,
                            size_t len, size_t *n)
{
    struct dbg_page page;
    uint64_t left;

    if (dbg_x86_walk(mem, r, gva, &page))
        return NULL;
    left = 4096 - (page.gpa & 4095); /* memory need not go on to the end of a large page */
    *n = len < left ? len : (size_t)left;
    return (uint8_t *)vmm_at(mem, page.gpa, *n);
}

VMM_DEF size_t dbg_x86_read(const struct vmm_mem *mem, const struct vmm_x86_regs *r, uint64_t gva,
                            void *buf, size_t len)
{
    size_t done = 0, n;

    while (done < len) {
        const uint8_t *at = dbg__x86_at(mem, r, gva + done, len - done, &n);
        if (!at)
            break;
        memcpy((uint8_t *)buf + done, at, n);
        done += n;
    }
    return done;
}

VMM_DEF size_t dbg_x86_write(const struct vmm_mem *mem, const struct vmm_x86_regs *r, uint64_t gva,
                             const void *buf, size_t len)
{
    size_t done = 0, n;

    while (done < len) {
        uint8_t *at = dbg__x86_at(mem, r, gva + done, len - done, &n);
        if (!at)
            break;
        memcpy(at, (const uint8_t *)buf + done, n);
        done += n;
    }
    return done;
}
#endif /* DBG__IMPLEMENTED */
#endif /* DEBUG_IMPLEMENTATION */
