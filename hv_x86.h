/* hv_x86.h - what a hypervisor without an emulator needs           MIT licence, see LICENSE

   WHAT IT IS      For backends on systems whose kernel hands out nested paging and little else: the
                   instruction that touched a device's memory or a port is decoded and carried out
                   ("Intel SDM" volume 2); linear addresses are translated with the rights that the
                   guest's page tables give (volume 3, chapter 4); CPUID is shaped for a virtual
                   machine of some CPUs; and the model-specific registers that every PC has, but no
                   such hypervisor, are answered. Instructions: what compilers and kernels use on
                   device memory, that is moves of general registers, arithmetic and logic to and
                   from memory, exchanges, bit tests, string instructions with or without REP, PUSH
                   and POP, IN and OUT, INS and OUTS, in 16-, 32- and 64-bit code. Not here: x87,
                   vectors, shifts, multiplication, jumps and calls through memory; debug exceptions
                   and alignment checks; atomicity on RAM (who is here has touched a device).

   QUICK START     static bool carry_out(const struct vmm_bus *bus, const struct vmm_mem *mem,
                                         struct vmm_x86_regs *regs)
                   {
                       struct x86_emul e = {0};
                       enum x86_step step = x86_emul_begin(&e, mem, regs, NULL, 0);
                       for (; step == X86_ACCESS; step = x86_emul_next(&e)) {
                           uint64_t val = vmm_get64(e.access.data);
                           vmm_bus_access(bus, e.access.gpa, e.access.size, e.access.write, &val);
                           vmm_put64(e.access.data, val);
                       }
                       return step == X86_DONE; // else an exception, or not known: see enum x86_step
                   }

   CONFIGURATION   set everywhere: VMM_DEF, see vmm.h
                   X86_BATCH       iterations of a REP before the caller is asked again; default 256
                   set in one file: HV_X86_IMPLEMENTATION and, for the page walk, there or in
                   another DEBUG_IMPLEMENTATION (or VMM_IMPLEMENTATION for both)

   DEPENDS ON      vmm.h, and debug.h for its walk of page tables and its disassembler.

   THREADS         Nothing here locks; one thread at a time for each object.
   MEMORY          The caller's objects alone.
   ERRORS          What went wrong is the guest's: an exception for it, by vector and error code.
   GUEST TRUST     Instructions, registers, page tables and segments may hold anything: an
                   instruction has at most 15 bytes, one begin at most X86_BATCH iterations of at most
                   ten accesses each, and memory is reached by vmm_at alone. Another CPU may change
                   code and tables meanwhile: each byte of code is read once.

   Sections: >>emulation >>walk >>exceptions >>cpuid >>msr */
#ifndef HV_X86_H
#define HV_X86_H

#include "debug.h"
#include "vmm.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef X86_BATCH
#define X86_BATCH 256
#endif
#define X86_INSN_MAX 15 /* bytes of the longest instruction */

enum {
    X86_DB = 1,
    X86_BP = 3,
    X86_UD = 6,
    X86_SS = 12,
    X86_GP = 13,
    X86_PF = 14
}; /* vectors of exceptions */

/* >>emulation: one instruction, with the devices left to the caller. */
struct x86_access {
    uint64_t gpa;  /* or the port */
    unsigned size; /* 1, 2, 4 or 8 */
    bool write;
    uint8_t data[8]; /* what is written; or the caller puts there what was read */
};

enum x86_step {
    X86_ACCESS, /* e->access is to be carried out, then x86_emul_next */
    X86_DONE,   /* regs are what the instruction left, rip behind it; a REP that goes on has rip
                   still at it: run the guest again, which may take an interrupt first */
    X86_FAULT,  /* the guest gets exception e->vector, with e->error if e->has_error; CR2 is in regs
                   already, the other registers are as before the instruction (or iteration) */
    X86_UNKNOWN /* nothing that is known here, nor changed; its first bytes are in e->insn */
};

struct x86_emul {
    /* ROM: the guest can read and execute it, but writes come out as accesses; NULL: there is none.
       The owner's, to be set before x86_emul_begin; all else here is not. */
    const struct vmm_mem *rom;

    struct vmm_x86_regs *regs;
    struct x86_access access; /* data is zeroed before a read */
    bool is_port;             /* access.gpa is an I/O port */
    bool has_error;
    uint8_t vector;
    uint32_t error;
    uint8_t insn[X86_INSN_MAX];
    unsigned insn_len; /* bytes of insn that are known */

    const struct vmm_mem *mem; /* private, as all that follows */
    enum x86_step failed;      /* X86_FAULT or X86_UNKNOWN while decoding; else X86_DONE */
    struct x86__insn {
        const struct x86__form *form;
        unsigned at;    /* bytes decoded */
        unsigned bits;  /* 16, 32 or 64: the code segment's */
        unsigned osize; /* bytes of registers */
        unsigned size;  /* bytes in memory */
        unsigned asize; /* bytes of addresses */
        unsigned op;
        uint8_t rex, rep, modrm; /* rep: 0xf2, 0xf3 or 0 */
        bool o16, a_other, lock;
        int seg; /* override, or -1 */
        uint64_t imm;
    } i;
    struct x86__operand {
        struct x86__part {
            uint64_t gpa;
            uint8_t len; /* 1, 2, 4 or 8 */
        } part[6];
        unsigned n; /* parts; 0: the operand is not in memory */
        bool port;
        uint8_t data[8];
    } to, from;
    unsigned phase, part; /* of the transfers; of the operand under way */
    unsigned left;        /* iterations of this batch */
    uint64_t reg_val;     /* what the instruction leaves in a register, once all is written */
    int reg;              /* -1: in none */
    unsigned reg_size;
    uint64_t flags;
};

/* Begins the instruction at regs->rip. The hypervisor may know the first `len` bytes of it; the rest
   is fetched. Operands in RAM are read and written at once; what is not becomes accesses. */
VMM_DEF enum x86_step x86_emul_begin(struct x86_emul *e, const struct vmm_mem *mem,
                                     struct vmm_x86_regs *regs, const uint8_t *bytes, unsigned len);
/* The access was carried out. */
VMM_DEF enum x86_step x86_emul_next(struct x86_emul *e);

/* >>walk: where a linear address is, and whether code at regs' privilege may do what it wants there.
   want: bits of enum vmm_prot. -EFAULT: *code is the error code of the page fault. Protection keys
   are not looked at, nor are accessed and dirty bits set. */
VMM_DEF int x86_walk(const struct vmm_mem *mem, const struct vmm_x86_regs *regs, uint64_t gva,
                     unsigned want, uint64_t *gpa, uint32_t *code);
/* The guest's bytes at its instruction pointer, to the end of their page: how many there are, in RAM
   or in ROM; 0 if none can be had. */
VMM_DEF unsigned x86_fetch(const struct vmm_mem *ram, const struct vmm_mem *rom,
                           const struct vmm_x86_regs *regs, uint8_t insn[X86_INSN_MAX]);

/* >>exceptions: those without an error code, as the processor delivers them ("Intel SDM" volume 3,
   chapter 6), for backends that get to see one only when that is done. */
struct x86_gate {
    uint64_t gpa;      /* of the entry of the interrupt table: an even number */
    uint64_t offset;   /* of the handler; the entry begins with its low 16 bits */
    uint64_t base;     /* of the handler's segment */
    uint16_t selector; /* of that */
    uint8_t bits;      /* of its code */
    uint8_t word;      /* bytes of each of the words that are pushed */
};

/* The gate of an exception. -ENOENT: there is none in RAM that leads to a handler in ring 0. */
VMM_DEF int x86_gate_find(const struct vmm_mem *mem, const struct vmm_x86_regs *regs,
                          uint8_t vector, struct x86_gate *gate);
/* Where to lead that gate so that the exception comes out: to a byte within an instruction of the
   guest's, where no code of it goes, which read as an instruction is IN or OUT, of which each comes
   out. Only the low 16 bits differ from gate->offset. Two exceptions are told apart by `odd`: the
   offset's lowest bit. rom: as in struct x86_emul, or NULL. -ENOENT: its page has no such byte. */
VMM_DEF int x86_gate_snare(const struct vmm_mem *mem, const struct vmm_mem *rom,
                           const struct vmm_x86_regs *regs, const struct x86_gate *gate, bool odd,
                           uint64_t *offset);
/* Takes the delivery back: regs, those of a CPU that has not executed anything of the handler,
   become what they were before; word: the gate's. -EFAULT, and nothing changed: the stack does not
   say, or came from virtual-8086 mode. */
VMM_DEF int x86_undeliver(const struct vmm_mem *mem, struct vmm_x86_regs *regs, unsigned word);

/* >>cpuid: what a guest is told. */
struct x86_cpuid_desc {
    unsigned ncpus;    /* 0: 1 */
    unsigned id;       /* of this CPU: its APIC id */
    uint64_t tsc_hz;   /* 0: not told */
    uint64_t lapic_hz; /* of the LAPIC's timer before its divider; 0: not told */
    bool x2apic;       /* the caller answers the MSRs of x2APIC mode */
    bool tsc_deadline; /* and of this timer */
};

/* regs: eax, ebx, ecx, edx. In: what the hypervisor, or the host's CPU, says; out: what the guest is
   told. What needs an MSR that is not in >>msr, or another CPU's help, is taken away; MTRRs and
   machine checks, which are there, are added. From 0x40000000 on regs count for nothing: the
   signature is KVM's, by which Linux trusts that x2APIC works without interrupt remapping, but
   without any of its features. */
VMM_DEF void x86_cpuid(const struct x86_cpuid_desc *d, uint32_t leaf, uint32_t index,
                       uint32_t regs[4]);

/* >>msr: those of a PC that have no effect beyond being remembered. Not here: the LAPIC's, the TSC's
   and what hypervisors keep themselves (EFER, STAR, SYSENTER, PAT ...). */
struct x86_msrs { /* of one CPU */
    uint64_t mtrr_var[16], mtrr_fix[11], mtrr_def;
    uint64_t misc_enable, mcg_status, hwcr; /* private, as all of them */
};

/* As after a reset, but memory is write-back unless an MTRR says otherwise, as firmware leaves it. */
VMM_DEF void x86_msr_reset(struct x86_msrs *m);
/* -ENOENT: not one of these; -EINVAL: it is, but the guest gets a general protection fault. */
VMM_DEF int x86_msr_read(const struct x86_msrs *m, uint32_t msr, uint64_t *val);
VMM_DEF int x86_msr_write(struct x86_msrs *m, uint32_t msr, uint64_t val);

#ifdef __cplusplus
}
#endif
#endif /* HV_X86_H */

#if defined(VMM_IMPLEMENTATION) || defined(HV_X86_IMPLEMENTATION)
#ifndef X86__IMPLEMENTED
#define X86__IMPLEMENTED

/* >>walk ------------------------------------------------------------------------------------ */

enum {
    X86__CR0_PE = 1,
    X86__CR0_WP = 1 << 16,
    X86__CR4_LA57 = 1 << 12,
    X86__CR4_SMEP = 1 << 20,
    X86__CR4_SMAP = 1 << 21,
    X86__EFER_NXE = 1 << 11,
    X86__CF = 1,
    X86__PF = 4,
    X86__AF = 0x10,
    X86__ZF = 0x40,
    X86__SF = 0x80,
    X86__DF = 0x400,
    X86__OF = 0x800,
    X86__RF = 1 << 16,
    X86__VM = 1 << 17,
    X86__AC = 1 << 18,
    X86__STATUS = X86__CF | X86__PF | X86__AF | X86__ZF | X86__SF | X86__OF
};

static bool x86__protected(const struct vmm_x86_regs *r)
{
    return r->cr0 & X86__CR0_PE && !(r->rflags & X86__VM);
}

static bool x86__is_user(const struct vmm_x86_regs *r)
{
    return r->cr0 & X86__CR0_PE && (r->rflags & X86__VM || (r->ss.attr >> 5 & 3) == 3);
}

/* SDM 4.6: what may be done with a page. */
static bool x86__allowed(const struct vmm_x86_regs *r, const struct dbg_page *page, unsigned want)
{
    bool user = x86__is_user(r), paging = r->cr0 >> 31 & 1;

    if (!paging)
        return true;
    if (want & VMM_WRITE && !page->writable && (user || r->cr0 & X86__CR0_WP))
        return false;
    if (want & VMM_EXEC && !page->exec)
        return false;
    if (user)
        return page->user;
    if (!page->user)
        return true;
    return want & VMM_EXEC ? !(r->cr4 & X86__CR4_SMEP)
                           : !(r->cr4 & X86__CR4_SMAP) || r->rflags & X86__AC;
}

/* SDM 4.7: the instruction fetch bit is there only if something can forbid one. */
VMM_DEF int x86_walk(const struct vmm_mem *mem, const struct vmm_x86_regs *r, uint64_t gva,
                     unsigned want, uint64_t *gpa, uint32_t *code)
{
    enum { PRESENT = 1, WRITE = 2, USER = 4, FETCH = 16 };
    struct dbg_page page;
    bool present = !dbg_x86_walk(mem, r, gva, &page);

    if (present && x86__allowed(r, &page, want)) {
        *gpa = page.gpa;
        return 0;
    }
    *code = present ? PRESENT : 0;
    if (want & VMM_WRITE)
        *code |= WRITE;
    if (x86__is_user(r))
        *code |= USER;
    if (want & VMM_EXEC && (r->efer & X86__EFER_NXE || r->cr4 & X86__CR4_SMEP))
        *code |= FETCH;
    return -EFAULT;
}

VMM_DEF unsigned x86_fetch(const struct vmm_mem *ram, const struct vmm_mem *rom,
                           const struct vmm_x86_regs *regs, uint8_t insn[X86_INSN_MAX])
{
    uint64_t gpa;
    uint32_t code;
    unsigned len;
    const void *bytes;

    if (x86_walk(ram, regs, regs->cs.base + regs->rip, VMM_EXEC, &gpa, &code))
        return 0;
    len = 4096 - (unsigned)(gpa % 4096);
    len = len < X86_INSN_MAX ? len : X86_INSN_MAX;
    bytes = vmm_at(ram, gpa, len);
    if (!bytes)
        bytes = vmm_at(rom, gpa, len);
    if (bytes)
        memcpy(insn, bytes, len);
    return bytes ? len : 0;
}

/* >>exceptions ------------------------------------------------------------------------------ */

enum {
    X86__ATTR_CODE = 8, /* of a segment that is present, 0x90 */
    X86__ATTR_WRITABLE = 2,
    X86__ATTR_CONFORMING = 4,
    X86__ATTR_LONG = 0x2000,
    X86__ATTR_BIG = 0x4000,
    X86__ATTR_PAGES = 0x8000,
    X86__FLAGS = 0x3d7fd5 /* those that there are, but VM */
};

static bool x86__long(const struct vmm_x86_regs *r)
{
    return r->efer >> 10 & 1;
}

/* The segment that a descriptor makes; SDM 3.4.5. False: there is none. */
static bool x86__descriptor(const struct vmm_mem *mem, const struct vmm_x86_regs *r,
                            uint16_t selector, struct vmm_x86_seg *seg)
{
    const struct vmm_x86_seg *table = selector & 4 ? &r->ldt : &r->gdt;
    unsigned index = selector & ~7u;
    uint8_t d[8];

    if (!(selector & ~3u) || index + 7 > table->limit || (selector & 4 && !(table->attr & 0x80)) ||
        dbg_x86_read(mem, r, table->base + index, d, sizeof d) != sizeof d)
        return false;
    seg->selector = selector;
    seg->attr = (uint16_t)(d[5] | (d[6] & 0xf0) << 8);
    seg->base = vmm_get16(d + 2) | (uint32_t)d[4] << 16 | (uint32_t)d[7] << 24;
    seg->limit = vmm_get16(d) | (uint32_t)(d[6] & 15) << 16;
    if (seg->attr & X86__ATTR_PAGES)
        seg->limit = seg->limit << 12 | 4095;
    if (x86__long(r) && seg->attr & X86__ATTR_LONG)
        seg->base = 0;
    return true;
}

/* SDM 6.11: a gate whose handler runs in ring 0, whoever was interrupted. */
static bool x86__protected_gate(const struct vmm_mem *mem, const struct vmm_x86_regs *r,
                                const uint8_t d[16], struct x86_gate *gate)
{
    unsigned type = d[5] & 0x9f;
    struct vmm_x86_seg cs;

    gate->word = x86__long(r) ? 8 : type & 8 ? 4 : 2;
    if ((type | 9) != 0x8f || (gate->word == 8 && !(type & 8)) ||
        !x86__descriptor(mem, r, gate->selector, &cs))
        return false;
    if (gate->word >= 4)
        gate->offset |= (uint64_t)vmm_get16(d + 6) << 16;
    if (gate->word == 8)
        gate->offset |= (uint64_t)vmm_get32(d + 8) << 32;
    gate->base = cs.base;
    gate->bits = cs.attr & X86__ATTR_LONG ? 64 : cs.attr & X86__ATTR_BIG ? 32 : 16;
    return (cs.attr & (0xf0 | X86__ATTR_CODE | X86__ATTR_CONFORMING)) == (0x90 | X86__ATTR_CODE) &&
           (gate->bits == 64) == (gate->word == 8);
}

VMM_DEF int x86_gate_find(const struct vmm_mem *mem, const struct vmm_x86_regs *r, uint8_t vector,
                          struct x86_gate *gate)
{
    unsigned size = !(r->cr0 & X86__CR0_PE) ? 4 : x86__long(r) ? 16 : 8;
    uint64_t gva = r->idt.base + vector * size;
    struct dbg_page page;
    uint8_t d[16];

    if (vector * size + size - 1 > r->idt.limit || gva & 1 ||
        dbg_x86_read(mem, r, gva, d, size) != size || dbg_x86_walk(mem, r, gva, &page))
        return -ENOENT;
    gate->gpa = page.gpa;
    gate->offset = vmm_get16(d);
    gate->selector = vmm_get16(d + 2);
    if (size > 4)
        return x86__protected_gate(mem, r, d, gate) ? 0 : -ENOENT;
    gate->base = gate->selector * 16u;
    gate->bits = 16;
    gate->word = 2;
    return gate->selector || gate->offset ? 0 : -ENOENT; /* nobody's handler is the table */
}

/* Offsets within a page of code, from..to, by a disassembly from the first: -1 or the first byte
   behind an instruction's first that would be IN or OUT, which may need the byte after it. */
static int x86__sweep(const uint8_t *code, unsigned from, unsigned to, unsigned bits, unsigned odd)
{
    char text[DBG_TEXT_MAX];

    while (from < to) {
        unsigned len = dbg_x86_disasm(code + from, 4096 - from, bits, 0, text);
        for (unsigned i = from + 1; i < from + len && i < 4095; i++)
            if ((code[i] & 0xf4) == 0xe4 && (i & 1) == odd)
                return (int)i;
        from += len ? len : 1;
    }
    return -1;
}

VMM_DEF int x86_gate_snare(const struct vmm_mem *mem, const struct vmm_mem *rom,
                           const struct vmm_x86_regs *r, const struct x86_gate *gate, bool odd,
                           uint64_t *offset)
{
    uint64_t gva = gate->base + gate->offset;
    unsigned within, lowest;
    struct dbg_page page;
    const uint8_t *code;
    int at;

    gva = gate->bits == 64 ? gva : (uint32_t)gva;
    within = (unsigned)(gva & 4095);
    if (dbg_x86_walk(mem, r, gva - within, &page) || !page.exec)
        return -ENOENT;
    code = (const uint8_t *)vmm_at(mem, page.gpa, 4096);
    if (!code && rom)
        code = (const uint8_t *)vmm_at(rom, page.gpa, 4096);
    if (!code)
        return -ENOENT;
    lowest = (unsigned)(gate->base & 1) ^ odd;
    at = x86__sweep(code, within, 4095, gate->bits, lowest);
    if (at < 0)
        at = x86__sweep(code, 0, within, gate->bits, lowest);
    *offset = gate->offset + (uint64_t)(at - (int)within);
    return at < 0 || (*offset ^ gate->offset) >> 16 ? -ENOENT : 0;
}

/* A segment register that the delivery may have changed, with what its descriptor says. */
static bool x86__reload(const struct vmm_mem *mem, const struct vmm_x86_regs *r, uint16_t selector,
                        struct vmm_x86_seg *seg, bool code)
{
    unsigned kind = code ? X86__ATTR_CODE : X86__ATTR_WRITABLE;
    unsigned mask = X86__ATTR_CODE | (code ? X86__ATTR_CONFORMING : X86__ATTR_WRITABLE);

    if (selector == seg->selector)
        return true;
    if (!(r->cr0 & X86__CR0_PE)) {
        seg->selector = selector;
        seg->base = selector * 16u;
        return true;
    }
    if (!x86__descriptor(mem, r, selector, seg))
        return false;
    kind |= 0x90u | (selector & 3u) << 5;
    seg->attr |= 1; /* accessed, by whoever loaded it */
    return (seg->attr & (0xf0 | mask)) == kind;
}

/* The topmost words on the stack. */
static bool x86__peek(const struct vmm_mem *mem, const struct vmm_x86_regs *r, unsigned word,
                      uint64_t *val, unsigned n)
{
    uint64_t sp = r->gpr[VMM_RSP];
    uint8_t buf[40];

    if (word != 8)
        sp = (uint32_t)(r->ss.base + (sp & vmm_ones(r->ss.attr & X86__ATTR_BIG ? 4 : 2)));
    if (dbg_x86_read(mem, r, sp, buf, (size_t)n * word) != (size_t)n * word)
        return false;
    for (unsigned i = 0; i < n; i++)
        val[i] = word == 8   ? vmm_get64(buf + 8 * i)
                 : word == 4 ? vmm_get32(buf + 4 * i)
                             : vmm_get16(buf + 2 * i);
    return true;
}

/* SDM 6.12.1, 6.14.2: who was in an outer ring has his stack pointer there too, and in 64-bit mode
   everybody. */
VMM_DEF int x86_undeliver(const struct vmm_mem *mem, struct vmm_x86_regs *regs, unsigned word)
{
    enum { IP, CS, FLAGS, SP, SS };
    struct vmm_x86_regs r = *regs;
    uint64_t val[5], mask = vmm_ones(r.ss.attr & X86__ATTR_BIG ? 4 : 2);
    bool whole = word == 8;

    if (!x86__peek(mem, regs, word, val, whole ? 5 : 3) || val[FLAGS] & X86__VM)
        return -EFAULT;
    if (!whole && regs->cr0 & X86__CR0_PE && val[CS] & 3) {
        whole = true;
        if (!x86__peek(mem, regs, word, val, 5))
            return -EFAULT;
    }
    r.rip = val[IP];
    if (word == 2)
        val[FLAGS] |= r.rflags & ~(uint64_t)0xffff;
    r.rflags = (val[FLAGS] & X86__FLAGS) | 2;
    if (whole)
        r.gpr[VMM_RSP] = val[SP];
    else
        r.gpr[VMM_RSP] = (r.gpr[VMM_RSP] & ~mask) | ((r.gpr[VMM_RSP] + 3 * word) & mask);
    if (!x86__reload(mem, regs, (uint16_t)val[CS], &r.cs, true) ||
        (whole && !x86__reload(mem, regs, (uint16_t)val[SS], &r.ss, false)))
        return -EFAULT;
    *regs = r;
    return 0;
}

/* >>emulation: failures stick, so that decoding goes on harmlessly and is judged once -------- */

static void x86__unknown(struct x86_emul *e)
{
    if (e->failed == X86_DONE)
        e->failed = X86_UNKNOWN;
}

static void x86__raise(struct x86_emul *e, uint8_t vector, uint32_t error)
{
    if (e->failed != X86_DONE)
        return;
    e->failed = X86_FAULT;
    e->vector = vector;
    e->has_error = vector != X86_UD;
    e->error = error;
}

static bool x86__translate(struct x86_emul *e, uint64_t gva, unsigned want, uint64_t *gpa)
{
    uint32_t code;

    if (!x86_walk(e->mem, e->regs, gva, want, gpa, &code))
        return true;
    if (e->failed == X86_DONE)
        e->regs->cr2 = gva;
    x86__raise(e, X86_PF, code);
    return false;
}

/* A byte of RAM, or of ROM. */
static const uint8_t *x86__readable(const struct x86_emul *e, uint64_t gpa, unsigned len)
{
    const void *at = vmm_at(e->mem, gpa, len);

    if (!at && e->rom)
        at = vmm_at(e->rom, gpa, len);
    return (const uint8_t *)at;
}

/* In the order in which ModRM.reg numbers them. */
enum { X86__ES, X86__CS, X86__SS, X86__DS, X86__FS, X86__GS };

static const struct vmm_x86_seg *x86__seg(const struct vmm_x86_regs *r, int seg)
{
    const struct vmm_x86_seg *const segs[] = {&r->es, &r->cs, &r->ss, &r->ds, &r->fs, &r->gs};

    return segs[seg];
}

static bool x86__canonical(const struct x86_emul *e, uint64_t gva)
{
    unsigned top = e->regs->cr4 & X86__CR4_LA57 ? 56 : 47;

    return gva >> top == 0 || gva >> top == ~(uint64_t)0 >> top;
}

/* Whether a segment outside of 64-bit code allows the access (SDM volume 3, 5.3 to 5.5). */
static bool x86__within(const struct x86_emul *e, const struct vmm_x86_seg *s, uint64_t ea,
                        unsigned len, bool write)
{
    enum { WRITABLE = 2, READABLE = 2, DOWN = 4, CODE = 8, PRESENT = 0x80, BIG = 0x4000 };
    uint64_t last = ea + len - 1;

    if (x86__protected(e->regs)) {
        if (!(s->attr & PRESENT) || (s->attr & CODE && write) ||
            (s->attr & CODE && !(s->attr & READABLE)) || (write && !(s->attr & WRITABLE)))
            return false;
        if ((s->attr & (CODE | DOWN)) == DOWN)
            return ea > s->limit && last <= (s->attr & BIG ? 0xffffffff : 0xffff);
    }
    return last <= s->limit;
}

/* The linear address of `len` bytes at an offset into a segment. */
static uint64_t x86__linear(struct x86_emul *e, int seg, uint64_t ea, unsigned len, bool write)
{
    const struct vmm_x86_seg *s = x86__seg(e->regs, seg);
    uint64_t gva = ea;

    if (e->i.bits == 64) {
        if (seg == X86__FS || seg == X86__GS)
            gva += s->base;
        if (!x86__canonical(e, gva) || !x86__canonical(e, gva + len - 1))
            x86__raise(e, seg == X86__SS ? X86_SS : X86_GP, 0);
        return gva;
    }
    if (!x86__within(e, s, ea, len, write))
        x86__raise(e, seg == X86__SS ? X86_SS : X86_GP, 0);
    return (uint32_t)(s->base + ea);
}

/* >>emulation fetch */

/* More bytes of the instruction, to the end of their page. */
static void x86__fetch(struct x86_emul *e)
{
    uint64_t eip = e->regs->rip + e->insn_len, gva = eip, gpa = 0;
    const uint8_t *code;
    unsigned len;

    if (e->i.bits != 64) {
        eip = (uint32_t)eip;
        gva = (uint32_t)(e->regs->cs.base + eip);
    }
    if (e->i.bits == 64 ? !x86__canonical(e, gva) : eip > e->regs->cs.limit) {
        x86__raise(e, X86_GP, 0);
        return;
    }
    if (!x86__translate(e, gva, VMM_EXEC, &gpa))
        return;
    len = 4096 - (unsigned)(gpa & 4095);
    if (len > X86_INSN_MAX - e->insn_len)
        len = X86_INSN_MAX - e->insn_len;
    code = x86__readable(e, gpa, len);
    if (!code) {
        x86__unknown(e); /* code in a device */
        return;
    }
    memcpy(e->insn + e->insn_len, code, len);
    e->insn_len += len;
}

static uint8_t x86__byte(struct x86_emul *e)
{
    if (e->i.at == X86_INSN_MAX)
        x86__raise(e, X86_GP, 0);
    else if (e->failed == X86_DONE && e->i.at == e->insn_len)
        x86__fetch(e);
    return e->failed == X86_DONE ? e->insn[e->i.at++] : 0;
}

/* A little-endian value of len bytes, its sign extended. */
static uint64_t x86__value(struct x86_emul *e, unsigned len)
{
    uint64_t v = 0, sign = (uint64_t)1 << (8 * len - 1);

    for (unsigned n = 0; n < len; n++)
        v |= (uint64_t)x86__byte(e) << 8 * n;
    return (v ^ sign) - sign;
}

/* >>emulation registers */

/* Of bytes, 4 to 7 are AH, CH, DH and BH unless there is a REX prefix. */
static uint64_t x86__get(const struct x86_emul *e, unsigned reg, unsigned size)
{
    if (size == 1 && !e->i.rex && reg >= 4 && reg < 8)
        return e->regs->gpr[reg - 4] >> 8 & 0xff;
    return e->regs->gpr[reg] & vmm_ones(size);
}

/* 32 bits zero the upper half, less leaves the rest alone. */
static void x86__set_wide(struct x86_emul *e, unsigned reg, unsigned size, uint64_t val)
{
    uint64_t mask = vmm_ones(size), keep = size == 4 ? 0 : e->regs->gpr[reg] & ~mask;

    e->regs->gpr[reg] = keep | (val & mask);
}

static void x86__set(struct x86_emul *e, unsigned reg, unsigned size, uint64_t val)
{
    if (size == 1 && !e->i.rex && reg >= 4 && reg < 8)
        x86__set_wide(e, reg - 4, 2, (e->regs->gpr[reg - 4] & 0xff) | (val & 0xff) << 8);
    else
        x86__set_wide(e, reg, size, val);
}

static unsigned x86__reg(const struct x86_emul *e)
{
    return (e->i.modrm >> 3 & 7) | (e->i.rex & 4 ? 8 : 0);
}

/* >>emulation forms: one row for each instruction that is known */

enum x86__op { /* the first eight as the instruction set numbers them */
               X86__ADD,
               X86__OR,
               X86__ADC,
               X86__SBB,
               X86__AND,
               X86__SUB,
               X86__XOR,
               X86__CMP,
               X86__TEST,
               X86__MOV,
               X86__MOVBE,
               X86__MOVSX,
               X86__XCHG,
               X86__CMPXCHG,
               X86__XADD,
               X86__INC,
               X86__DEC,
               X86__NOT,
               X86__NEG,
               X86__BT,
               X86__BTS,
               X86__BTR,
               X86__BTC,
               X86__ALU, /* that which ModRM.reg says */
               X86__PUSH,
               X86__POP,
               X86__MOVS, /* strings, from here on */
               X86__CMPS,
               X86__STOS,
               X86__LODS,
               X86__SCAS,
               X86__INS,
               X86__OUTS
};

enum x86__shape { /* destination, source */
                  X86__M_R,
                  X86__R_M,
                  X86__M_I, /* an immediate as wide as the operand, at most 4 bytes */
                  X86__M_B, /* one of a byte, extended */
                  X86__M_S, /* a segment register */
                  X86__M,   /* memory alone */
                  X86__O_A, /* moffs, rAX */
                  X86__A_O,
                  X86__STRING,
                  X86__A_P, /* rAX, a port in a byte or (D) in DX */
                  X86__P_A,
                  X86__A_D,
                  X86__D_A
};

enum {
    X86__W = 1,     /* opcode bit 0 clear: bytes */
    X86__LOCK = 2,  /* may have a LOCK prefix */
    X86__BYTE = 4,  /* one byte in memory */
    X86__WORD = 8,  /* two */
    X86__LONG = 16, /* four */
    X86__STACK = 32,
    X86__ONLY64 = 64,
    X86__NOT64 = 128,
    X86__PLAIN = 256, /* 66, F2 or F3 make another instruction of it, or none */
    X86__NO_REP = 512,
    X86__ANY = 8 /* ModRM.reg counts for nothing; else it belongs to the opcode */
};

struct x86__form {
    uint16_t opcode; /* 0x100: behind 0f; 0x200: behind 0f 38 */
    uint8_t reg;
    uint8_t op, shape;
    uint16_t flags;
};

static const struct x86__form x86__forms[] = {
    {0x063, X86__ANY, X86__MOVSX, X86__R_M, X86__LONG | X86__ONLY64},
    {0x06c, X86__ANY, X86__INS, X86__STRING, X86__W},
    {0x06e, X86__ANY, X86__OUTS, X86__STRING, X86__W},
    {0x080, X86__ANY, X86__ALU, X86__M_I, X86__W | X86__LOCK},
    {0x083, X86__ANY, X86__ALU, X86__M_B, X86__LOCK}, /* before the row of 82, which would match */
    {0x082, X86__ANY, X86__ALU, X86__M_B, X86__W | X86__LOCK | X86__NOT64},
    {0x084, X86__ANY, X86__TEST, X86__M_R, X86__W},
    {0x086, X86__ANY, X86__XCHG, X86__M_R, X86__W | X86__LOCK},
    {0x088, X86__ANY, X86__MOV, X86__M_R, X86__W},
    {0x08a, X86__ANY, X86__MOV, X86__R_M, X86__W},
    {0x08c, X86__ANY, X86__MOV, X86__M_S, X86__WORD},
    {0x08f, 0, X86__POP, X86__M, X86__STACK},
    {0x0a0, X86__ANY, X86__MOV, X86__A_O, X86__W},
    {0x0a2, X86__ANY, X86__MOV, X86__O_A, X86__W},
    {0x0a4, X86__ANY, X86__MOVS, X86__STRING, X86__W},
    {0x0a6, X86__ANY, X86__CMPS, X86__STRING, X86__W},
    {0x0aa, X86__ANY, X86__STOS, X86__STRING, X86__W},
    {0x0ac, X86__ANY, X86__LODS, X86__STRING, X86__W},
    {0x0ae, X86__ANY, X86__SCAS, X86__STRING, X86__W},
    {0x0c6, 0, X86__MOV, X86__M_I, X86__W},
    {0x0e4, X86__ANY, X86__MOV, X86__A_P, X86__W},
    {0x0e6, X86__ANY, X86__MOV, X86__P_A, X86__W},
    {0x0ec, X86__ANY, X86__MOV, X86__A_D, X86__W},
    {0x0ee, X86__ANY, X86__MOV, X86__D_A, X86__W},
    {0x0f6, 0, X86__TEST, X86__M_I, X86__W},
    {0x0f6, 1, X86__TEST, X86__M_I, X86__W},
    {0x0f6, 2, X86__NOT, X86__M, X86__W | X86__LOCK},
    {0x0f6, 3, X86__NEG, X86__M, X86__W | X86__LOCK},
    {0x0fe, 0, X86__INC, X86__M, X86__W | X86__LOCK},
    {0x0fe, 1, X86__DEC, X86__M, X86__W | X86__LOCK},
    {0x0ff, 6, X86__PUSH, X86__M, X86__STACK},
    {0x1a3, X86__ANY, X86__BT, X86__M_R, 0},
    {0x1ab, X86__ANY, X86__BTS, X86__M_R, X86__LOCK},
    {0x1b0, X86__ANY, X86__CMPXCHG, X86__M_R, X86__W | X86__LOCK},
    {0x1b3, X86__ANY, X86__BTR, X86__M_R, X86__LOCK},
    {0x1b6, X86__ANY, X86__MOV, X86__R_M, X86__BYTE},
    {0x1b7, X86__ANY, X86__MOV, X86__R_M, X86__WORD},
    {0x1ba, 4, X86__BT, X86__M_B, 0},
    {0x1ba, 5, X86__BTS, X86__M_B, X86__LOCK},
    {0x1ba, 6, X86__BTR, X86__M_B, X86__LOCK},
    {0x1ba, 7, X86__BTC, X86__M_B, X86__LOCK},
    {0x1bb, X86__ANY, X86__BTC, X86__M_R, X86__LOCK},
    {0x1be, X86__ANY, X86__MOVSX, X86__R_M, X86__BYTE},
    {0x1bf, X86__ANY, X86__MOVSX, X86__R_M, X86__WORD},
    {0x1c0, X86__ANY, X86__XADD, X86__M_R, X86__W | X86__LOCK},
    {0x1c3, X86__ANY, X86__MOV, X86__M_R, X86__PLAIN},
    {0x2f0, X86__ANY, X86__MOVBE, X86__R_M, X86__NO_REP},
    {0x2f1, X86__ANY, X86__MOVBE, X86__M_R, X86__NO_REP},
};

/* 00 to 3b: eight operations, each to memory and from it. */
static const struct x86__form x86__alu[2] = {
    {0x000, X86__ANY, X86__ALU, X86__M_R, X86__W | X86__LOCK},
    {0x002, X86__ANY, X86__ALU, X86__R_M, X86__W},
};

static bool x86__has_modrm(unsigned shape)
{
    return shape <= X86__M;
}

/* The row of an opcode; modrm < 0: not read yet, any row of it. */
static const struct x86__form *x86__find(unsigned opcode, int modrm)
{
    if (opcode < 0x40 && (opcode & 7) < 4)
        return &x86__alu[opcode >> 1 & 1];
    for (unsigned n = 0; n < sizeof x86__forms / sizeof x86__forms[0]; n++) {
        const struct x86__form *f = &x86__forms[n];
        if (f->opcode == (f->flags & X86__W ? opcode & ~1u : opcode) &&
            (f->reg == X86__ANY || modrm < 0 || f->reg == (modrm >> 3 & 7)))
            return f;
    }
    return NULL;
}

/* >>emulation decode */

static bool x86__prefix(struct x86__insn *i, uint8_t byte)
{
    switch (byte) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
        if (i->bits != 64) /* there they count for nothing, nor do they take FS or GS back */
            i->seg = byte >> 3 & 3;
        return true;
    case 0x64:
    case 0x65:
        i->seg = byte & 1 ? X86__GS : X86__FS;
        return true;
    case 0x66:
        i->o16 = true;
        return true;
    case 0x67:
        i->a_other = true;
        return true;
    case 0xf0:
        i->lock = true;
        return true;
    case 0xf2:
    case 0xf3:
        i->rep = byte;
        return true;
    default:
        return false;
    }
}

/* Prefixes, of which REX counts only as the last, and the opcode. */
static unsigned x86__opcode(struct x86_emul *e)
{
    struct x86__insn *i = &e->i;
    unsigned byte = x86__byte(e);

    for (; e->failed == X86_DONE; byte = x86__byte(e)) {
        if (x86__prefix(i, (uint8_t)byte))
            i->rex = 0;
        else if (i->bits == 64 && (byte & 0xf0) == 0x40)
            i->rex = (uint8_t)byte;
        else
            break;
    }
    if (byte != 0x0f)
        return byte;
    byte = x86__byte(e);
    return byte == 0x38 ? 0x200u | x86__byte(e) : 0x100 | byte;
}

static void x86__sizes(struct x86__insn *i, unsigned opcode)
{
    unsigned flags = i->form->flags;

    i->osize = (i->bits == 16) == i->o16 || flags & X86__PLAIN ? 4 : 2; /* MOVNTI: no 16 bits */
    if (i->rex & 8 || (flags & X86__STACK && i->bits == 64 && !i->o16))
        i->osize = 8;
    if (flags & X86__W && !(opcode & 1))
        i->osize = 1;
    i->asize = i->bits == 64 ? (i->a_other ? 4 : 8) : (i->bits == 16) == i->a_other ? 4 : 2;
    i->size = flags & X86__BYTE ? 1 : flags & X86__WORD ? 2 : flags & X86__LONG ? 4 : i->osize;
    if (i->form->shape >= X86__A_P || i->op >= X86__INS)
        i->size = i->osize = i->osize == 8 ? 4 : i->osize; /* ports are no wider */
}

/* Which rows may have which prefixes, and in which code. */
static void x86__check(struct x86_emul *e)
{
    const struct x86__insn *i = &e->i;
    unsigned flags = i->form->flags;
    bool is_load = i->form->shape == X86__R_M || i->op == X86__CMP;

    if ((flags & X86__ONLY64 && i->bits != 64) || (flags & X86__NOT64 && i->bits == 64) ||
        (x86__has_modrm(i->form->shape) && i->modrm >> 6 == 3) ||
        (flags & X86__PLAIN && (i->rep || i->o16)) || (flags & X86__NO_REP && i->rep) ||
        (i->form->shape == X86__M_S && (i->modrm >> 3 & 7) > X86__GS))
        x86__unknown(e);
    else if (i->lock && (!(flags & X86__LOCK) || is_load))
        x86__raise(e, X86_UD, 0);
}

/* 16-bit addresses: SDM volume 2, table 2-1. */
static uint64_t x86__ea16(struct x86_emul *e, int *seg)
{
    static const uint8_t base[8] = {VMM_RBX, VMM_RBX, VMM_RBP, VMM_RBP,
                                    VMM_RSI, VMM_RDI, VMM_RBP, VMM_RBX};
    unsigned mod = e->i.modrm >> 6, rm = e->i.modrm & 7;
    uint64_t ea = 0;

    if (mod == 0 && rm == 6) {
        ea = x86__value(e, 2);
    } else {
        ea = e->regs->gpr[base[rm]];
        if (rm < 4)
            ea += e->regs->gpr[rm & 1 ? VMM_RDI : VMM_RSI];
        if (base[rm] == VMM_RBP)
            *seg = X86__SS;
        if (mod)
            ea += x86__value(e, mod);
    }
    return ea;
}

/* The others: tables 2-2 and 2-3. *rip: it is relative to the instruction's end. */
static uint64_t x86__ea32(struct x86_emul *e, int *seg, bool *rip)
{
    struct x86__insn *i = &e->i;
    unsigned mod = i->modrm >> 6, base = i->modrm & 7;
    uint64_t ea = 0;

    if (base == 4) {
        uint8_t sib = x86__byte(e);
        unsigned index = (sib >> 3 & 7) | (i->rex & 2 ? 8 : 0);
        if (index != 4)
            ea = e->regs->gpr[index] << (sib >> 6);
        base = sib & 7;
    } else if (mod == 0 && base == 5) {
        *rip = i->bits == 64;
    }
    if (mod == 0 && base == 5)
        return ea + x86__value(e, 4);
    if (base == VMM_RSP || base == VMM_RBP)
        *seg = i->rex & 1 ? *seg : X86__SS;
    ea += e->regs->gpr[base | (i->rex & 1 ? 8 : 0)];
    if (base == VMM_RSP && i->op == X86__POP && !(i->rex & 1))
        ea += i->osize; /* POP increments it first */
    if (mod)
        ea += x86__value(e, mod == 1 ? 1 : 4);
    return ea;
}

static void x86__immediate(struct x86_emul *e)
{
    struct x86__insn *i = &e->i;

    if (i->form->shape == X86__M_I)
        i->imm = x86__value(e, i->osize == 8 ? 4 : i->osize);
    else if (i->form->shape == X86__M_B)
        i->imm = x86__value(e, 1);
    else if (i->form->shape == X86__A_P || i->form->shape == X86__P_A)
        i->imm = x86__value(e, 1) & 0xff;
}

/* What is at an effective address, split where its pages end and where a width is odd. */
static void x86__place(struct x86_emul *e, struct x86__operand *o, int seg, uint64_t ea, bool write)
{
    unsigned size = e->i.size, done = 0, len;
    uint64_t gva = x86__linear(e, seg, ea & vmm_ones(e->i.asize), size, write), gpa = 0;

    o->n = 0;
    o->port = false;
    while (done < size && e->failed == X86_DONE) {
        unsigned room = 4096 - (unsigned)(gva & 4095);
        for (len = size - done < 8 ? size - done : 8; len > room || len & (len - 1); len--)
            ;
        if (!x86__translate(e, gva, write ? VMM_READ | VMM_WRITE : VMM_READ, &gpa))
            return;
        o->part[o->n++] = (struct x86__part){gpa, (uint8_t)len};
        done += len;
        gva += len;
        if (e->i.bits != 64)
            gva = (uint32_t)gva;
    }
}

static void x86__port(struct x86_emul *e, struct x86__operand *o, uint64_t port)
{
    o->n = 1;
    o->port = true;
    o->part[0] = (struct x86__part){port & 0xffff, (uint8_t)e->i.size};
}

/* Which operands an operation reads and writes in its destination. */
static bool x86__reads(const struct x86__insn *i)
{
    return i->op != X86__MOV && i->op != X86__MOVBE && i->op != X86__MOVSX && i->op != X86__POP &&
           i->op != X86__PUSH && (i->op < X86__MOVS || i->op == X86__CMPS || i->op == X86__SCAS);
}

static bool x86__writes(const struct x86__insn *i)
{
    return i->op != X86__CMP && i->op != X86__TEST && i->op != X86__BT && i->op != X86__CMPS &&
           i->op != X86__SCAS;
}

/* A bit number in a register reaches beyond the operand, in both directions. */
static uint64_t x86__bit_offset(const struct x86_emul *e)
{
    const struct x86__insn *i = &e->i;
    uint64_t sign = (uint64_t)1 << (8 * i->osize - 1), bit;

    if (i->op < X86__BT || i->op > X86__BTC || i->form->shape != X86__M_R)
        return 0;
    bit = (x86__get(e, x86__reg(e), i->osize) ^ sign) - sign;
    return (bit >> 3 | (bit >> 63 ? ~(~(uint64_t)0 >> 3) : 0)) & ~(uint64_t)(i->osize - 1);
}

static unsigned x86__stack_size(const struct x86_emul *e)
{
    return e->i.bits == 64 ? 8 : e->regs->ss.attr & 0x4000 ? 4 : 2;
}

/* The other operand of PUSH and POP. */
static void x86__stack(struct x86_emul *e, struct x86__operand *o, bool push)
{
    unsigned asize = e->i.asize;
    uint64_t sp = e->regs->gpr[VMM_RSP] - (push ? e->i.size : 0);

    e->i.asize = x86__stack_size(e);
    x86__place(e, o, X86__SS, sp, push);
    e->i.asize = asize;
}

static void x86__memory(struct x86_emul *e)
{
    struct x86__insn *i = &e->i;
    bool is_from = i->form->shape == X86__R_M || i->form->shape == X86__A_O || i->op == X86__PUSH;
    int seg = X86__DS;
    bool rip = false;
    uint64_t ea;

    if (i->form->shape == X86__O_A || i->form->shape == X86__A_O)
        ea = x86__value(e, i->asize);
    else
        ea = i->asize == 2 ? x86__ea16(e, &seg) : x86__ea32(e, &seg, &rip);
    x86__immediate(e);
    if (rip)
        ea += e->regs->rip + i->at;
    ea += x86__bit_offset(e);
    if (i->seg >= 0)
        seg = i->seg;
    if (e->failed != X86_DONE)
        return;
    x86__place(e, is_from ? &e->from : &e->to, seg, ea, !is_from && x86__writes(i));
    if (i->op == X86__PUSH || i->op == X86__POP)
        x86__stack(e, i->op == X86__PUSH ? &e->to : &e->from, i->op == X86__PUSH);
}

/* One iteration's operands: DS:rSI, whose segment may be another, and ES:rDI. */
static void x86__string(struct x86_emul *e)
{
    struct x86__insn *i = &e->i;
    bool has_si =
        i->op == X86__MOVS || i->op == X86__CMPS || i->op == X86__LODS || i->op == X86__OUTS;

    if (has_si)
        x86__place(e, &e->from, i->seg >= 0 ? i->seg : X86__DS, e->regs->gpr[VMM_RSI], false);
    if (i->op == X86__INS)
        x86__port(e, &e->from, e->regs->gpr[VMM_RDX]);
    if (i->op == X86__OUTS)
        x86__port(e, &e->to, e->regs->gpr[VMM_RDX]);
    else if (i->op != X86__LODS)
        x86__place(e, &e->to, X86__ES, e->regs->gpr[VMM_RDI], x86__writes(i));
}

/* Where the operands are; anything that can fault does so here, before anything happens. */
static void x86__operands(struct x86_emul *e)
{
    unsigned shape = e->i.form->shape;

    e->to.n = e->from.n = e->phase = e->part = 0;
    if (shape == X86__STRING) {
        x86__string(e);
    } else if (shape >= X86__A_P) {
        x86__immediate(e);
        x86__port(e, shape == X86__A_P || shape == X86__A_D ? &e->from : &e->to,
                  shape >= X86__A_D ? e->regs->gpr[VMM_RDX] : e->i.imm);
    } else {
        x86__memory(e);
    }
}

static void x86__decode(struct x86_emul *e)
{
    struct x86__insn *i = &e->i;
    unsigned opcode = x86__opcode(e);

    i->form = e->failed == X86_DONE ? x86__find(opcode, -1) : NULL;
    if (i->form && x86__has_modrm(i->form->shape)) {
        i->modrm = x86__byte(e);
        i->form = x86__find(opcode, i->modrm);
    }
    if (!i->form) {
        x86__unknown(e);
        return;
    }
    i->op = i->form->op;
    if (i->op == X86__ALU)
        i->op = opcode < 0x40 ? opcode >> 3 : i->modrm >> 3 & 7;
    x86__sizes(i, opcode);
    x86__check(e);
}

/* >>emulation arithmetic */

/* The flags that follow from the result alone. */
static uint64_t x86__flags_of(uint64_t r, unsigned size)
{
    uint64_t flags = r & vmm_ones(size) ? 0 : X86__ZF;
    unsigned low = r & 0xff;

    low ^= low >> 4;
    if (!(0x6996 >> (low & 15) & 1))
        flags |= X86__PF;
    return flags | (r >> (8 * size - 1) & 1 ? X86__SF : 0);
}

static uint64_t x86__add(struct x86_emul *e, uint64_t a, uint64_t b, unsigned carry)
{
    unsigned size = e->i.size, top = 8 * size - 1;
    uint64_t r = a + b + carry;

    e->flags = x86__flags_of(r, size) | ((a ^ b ^ r) & X86__AF);
    e->flags |= (((a & b) | ((a | b) & ~r)) >> top & 1) ? X86__CF : 0;
    e->flags |= (((a ^ r) & (b ^ r)) >> top & 1) ? X86__OF : 0;
    return r;
}

static uint64_t x86__sub(struct x86_emul *e, uint64_t a, uint64_t b, unsigned borrow)
{
    unsigned size = e->i.size, top = 8 * size - 1;
    uint64_t r = a - b - borrow;

    e->flags = x86__flags_of(r, size) | ((a ^ b ^ r) & X86__AF);
    e->flags |= (((~a & b) | (~(a ^ b) & r)) >> top & 1) ? X86__CF : 0;
    e->flags |= (((a ^ b) & (a ^ r)) >> top & 1) ? X86__OF : 0;
    return r;
}

static uint64_t x86__logic(struct x86_emul *e, uint64_t r)
{
    e->flags = x86__flags_of(r, e->i.size);
    return r;
}

/* BT and its kin change nothing but the carry flag. */
static uint64_t x86__bit(struct x86_emul *e, uint64_t a, uint64_t b)
{
    uint64_t mask = (uint64_t)1 << (b & (8 * e->i.size - 1));

    e->flags = (e->regs->rflags & X86__STATUS & ~(uint64_t)X86__CF) | (a & mask ? X86__CF : 0);
    if (e->i.op == X86__BTS)
        return a | mask;
    return e->i.op == X86__BTR ? a & ~mask : a ^ mask;
}

/* INC and DEC leave the carry flag alone. */
static uint64_t x86__step_by_one(struct x86_emul *e, uint64_t a)
{
    uint64_t r = e->i.op == X86__INC ? x86__add(e, a, 1, 0) : x86__sub(e, a, 1, 0);

    e->flags = (e->flags & ~(uint64_t)X86__CF) | (e->regs->rflags & X86__CF);
    return r;
}

static uint64_t x86__swapped(uint64_t v, unsigned size)
{
    uint64_t r = 0;

    for (; size > 0; size--, v >>= 8)
        r = r << 8 | (v & 0xff);
    return r;
}

static uint64_t x86__sign_extended(uint64_t v, unsigned size)
{
    uint64_t sign = (uint64_t)1 << (8 * size - 1);

    return (v ^ sign) - sign;
}

static void x86__leave(struct x86_emul *e, unsigned reg, unsigned size, uint64_t val)
{
    e->reg = (int)reg;
    e->reg_size = size;
    e->reg_val = val;
}

/* Either way the destination is written: with what it held, if it was not as expected. */
static uint64_t x86__cmpxchg(struct x86_emul *e, uint64_t a, uint64_t b)
{
    uint64_t want = x86__get(e, VMM_RAX, e->i.size);

    x86__sub(e, want, a, 0);
    if (want == a)
        return b;
    x86__leave(e, VMM_RAX, e->i.size, a);
    return a;
}

/* What operation makes of destination a and source b. */
static uint64_t x86__compute(struct x86_emul *e, uint64_t a, uint64_t b)
{
    unsigned carry = e->regs->rflags & X86__CF;

    switch (e->i.op) {
    case X86__ADD:
        return x86__add(e, a, b, 0);
    case X86__ADC:
        return x86__add(e, a, b, carry);
    case X86__SBB:
        return x86__sub(e, a, b, carry);
    case X86__SUB:
    case X86__CMP:
    case X86__SCAS:
        return x86__sub(e, a, b, 0);
    case X86__CMPS: /* the other way round */
        return x86__sub(e, b, a, 0);
    case X86__OR:
        return x86__logic(e, a | b);
    case X86__AND:
    case X86__TEST:
        return x86__logic(e, a & b);
    case X86__XOR:
        return x86__logic(e, a ^ b);
    case X86__INC:
    case X86__DEC:
        return x86__step_by_one(e, a);
    case X86__NOT:
        return ~a;
    case X86__NEG:
        return x86__sub(e, 0, a, 0);
    case X86__BT:
    case X86__BTS:
    case X86__BTR:
    case X86__BTC:
        return x86__bit(e, a, b);
    case X86__MOVSX:
        return x86__sign_extended(b, e->i.size);
    case X86__MOVBE:
        return x86__swapped(b, e->i.size);
    case X86__XCHG:
        x86__leave(e, x86__reg(e), e->i.size, a);
        return b;
    case X86__XADD:
        x86__leave(e, x86__reg(e), e->i.size, a);
        return x86__add(e, a, b, 0);
    case X86__CMPXCHG:
        return x86__cmpxchg(e, a, b);
    default:
        return b; /* all that moves */
    }
}

/* >>emulation execution */

static bool x86__to_acc(const struct x86_emul *e)
{
    unsigned shape = e->i.form->shape;

    return shape == X86__A_O || shape == X86__A_P || shape == X86__A_D || e->i.op == X86__LODS;
}

/* The source: memory or a port, if there is one, else by the form. */
static uint64_t x86__source(const struct x86_emul *e)
{
    unsigned shape = e->i.form->shape;

    if (e->from.n)
        return vmm_get64(e->from.data);
    if (shape == X86__M_I || shape == X86__M_B)
        return e->i.imm & vmm_ones(e->i.size);
    if (shape == X86__M_S)
        return x86__seg(e->regs, e->i.modrm >> 3 & 7)->selector;
    if (shape == X86__M_R)
        return x86__get(e, x86__reg(e), e->i.osize);
    return x86__get(e, VMM_RAX, e->i.osize);
}

/* Between reading and writing. */
static void x86__execute(struct x86_emul *e)
{
    struct x86__insn *i = &e->i;
    bool from_reg = i->form->shape == X86__R_M;
    uint64_t a = from_reg ? x86__get(e, x86__reg(e), i->osize) : vmm_get64(e->to.data), r;

    e->flags = e->regs->rflags & X86__STATUS;
    e->reg = -1;
    if (i->op == X86__SCAS)
        r = x86__sub(e, x86__get(e, VMM_RAX, i->size), a, 0);
    else
        r = x86__compute(e, a, x86__source(e));
    if (x86__to_acc(e))
        x86__leave(e, VMM_RAX, i->osize, r);
    else if (from_reg && x86__writes(i))
        x86__leave(e, x86__reg(e), i->osize, r);
    else
        vmm_put64(e->to.data, r);
}

static void x86__advance(struct x86_emul *e, unsigned reg, uint64_t by)
{
    unsigned asize = e->i.asize;

    x86__set_wide(e, reg, asize, (e->regs->gpr[reg] + by) & vmm_ones(asize));
}

/* The pointers of a string instruction move on, and its count. False: that was the last. */
static bool x86__string_next(struct x86_emul *e)
{
    struct x86__insn *i = &e->i;
    uint64_t by = e->regs->rflags & X86__DF ? 0 - (uint64_t)i->size : i->size;
    bool compares = i->op == X86__CMPS || i->op == X86__SCAS;

    if (e->from.n && !e->from.port)
        x86__advance(e, VMM_RSI, by);
    if (e->to.n && !e->to.port)
        x86__advance(e, VMM_RDI, by);
    if (!i->rep)
        return false;
    x86__advance(e, VMM_RCX, ~(uint64_t)0);
    if (compares && !(e->flags & X86__ZF) != (i->rep == 0xf2))
        return false;
    return e->regs->gpr[VMM_RCX] & vmm_ones(i->asize);
}

static void x86__retire(struct x86_emul *e)
{
    struct vmm_x86_regs *r = e->regs;

    r->rip += e->i.at;
    if (e->i.bits != 64)
        r->rip = (uint32_t)r->rip;
    r->rflags &= ~(uint64_t)X86__RF;
}

/* All is read and written: what the instruction leaves in registers. True: another iteration. */
static bool x86__finish(struct x86_emul *e)
{
    struct vmm_x86_regs *r = e->regs;
    unsigned asize = x86__stack_size(e);
    bool more = false;

    r->rflags = (r->rflags & ~(uint64_t)X86__STATUS) | e->flags;
    if (e->reg >= 0)
        x86__set(e, (unsigned)e->reg, e->reg_size, e->reg_val);
    if (e->i.op == X86__PUSH || e->i.op == X86__POP)
        x86__set_wide(e, VMM_RSP, asize,
                      r->gpr[VMM_RSP] +
                          (e->i.op == X86__POP ? e->i.size : 0 - (uint64_t)e->i.size));
    if (e->i.form->shape == X86__STRING)
        more = x86__string_next(e);
    if (!more)
        x86__retire(e);
    return more;
}

/* One part of an operand that is memory. */
static void x86__copy(void *to, const void *from, unsigned len)
{
    switch (len) { /* each as one access, as another CPU may look at it */
    case 1:
        memcpy(to, from, 1);
        break;
    case 2:
        vmm_put16(to, vmm_get16(from));
        break;
    case 4:
        vmm_put32(to, vmm_get32(from));
        break;
    default:
        vmm_put64(to, vmm_get64(from));
    }
}

/* Carries out what can be of an operand's transfer. X86_ACCESS: the caller has to do a part. */
static enum x86_step x86__transfer(struct x86_emul *e, struct x86__operand *o, bool write)
{
    unsigned at = 0;

    for (unsigned n = 0; n < e->part; n++)
        at += o->part[n].len;
    for (; e->part < o->n; at += o->part[e->part++].len) {
        const struct x86__part *p = &o->part[e->part];
        void *to = o->port ? NULL : vmm_at(e->mem, p->gpa, p->len);
        const uint8_t *from = o->port ? NULL : x86__readable(e, p->gpa, p->len);
        if (write && to) {
            x86__copy(to, o->data + at, p->len);
        } else if (!write && from) {
            x86__copy(o->data + at, from, p->len);
        } else {
            e->access = (struct x86_access){.gpa = p->gpa, .size = p->len, .write = write};
            if (write)
                memcpy(e->access.data, o->data + at, p->len);
            e->is_port = o->port;
            return X86_ACCESS;
        }
    }
    e->part = 0;
    return X86_DONE;
}

enum { X86__READ_FROM, X86__READ_TO, X86__WRITE_TO }; /* phases */

/* From where the transfers stand to the next access, or the end of this iteration. */
static enum x86_step x86__go_on(struct x86_emul *e)
{
    if (e->phase == X86__READ_FROM) {
        if (x86__transfer(e, &e->from, false) == X86_ACCESS)
            return X86_ACCESS;
        e->phase++;
    }
    if (e->phase == X86__READ_TO) {
        if (x86__reads(&e->i) && x86__transfer(e, &e->to, false) == X86_ACCESS)
            return X86_ACCESS;
        x86__execute(e);
        e->phase++;
    }
    return x86__writes(&e->i) ? x86__transfer(e, &e->to, true) : X86_DONE;
}

/* Iterations, until one needs the caller. */
static enum x86_step x86__run(struct x86_emul *e)
{
    for (;;) {
        if (x86__go_on(e) == X86_ACCESS)
            return X86_ACCESS;
        if (!x86__finish(e) || !--e->left)
            return X86_DONE;
        x86__operands(e);
        if (e->failed != X86_DONE)
            return e->failed;
    }
}

VMM_DEF enum x86_step x86_emul_begin(struct x86_emul *e, const struct vmm_mem *mem,
                                     struct vmm_x86_regs *regs, const uint8_t *bytes, unsigned len)
{
    const struct x86__insn none = {.bits = dbg_x86_bits(regs), .seg = -1};

    e->mem = mem;
    e->regs = regs;
    e->i = none;
    e->failed = X86_DONE;
    e->left = X86_BATCH;
    e->insn_len = len < X86_INSN_MAX ? len : X86_INSN_MAX;
    if (len)
        memcpy(e->insn, bytes, e->insn_len);
    memset(&e->to, 0, sizeof e->to);
    memset(&e->from, 0, sizeof e->from);
    x86__decode(e);
    if (e->failed == X86_DONE && e->i.form->shape == X86__STRING && e->i.rep &&
        !(regs->gpr[VMM_RCX] & vmm_ones(e->i.asize))) {
        x86__retire(e);
        return X86_DONE;
    }
    if (e->failed == X86_DONE)
        x86__operands(e);
    return e->failed == X86_DONE ? x86__run(e) : e->failed;
}

VMM_DEF enum x86_step x86_emul_next(struct x86_emul *e)
{
    bool write = e->access.write;
    struct x86__operand *o = e->phase == X86__READ_FROM ? &e->from : &e->to;
    unsigned at = 0;

    for (unsigned n = 0; n < e->part; n++)
        at += o->part[n].len;
    if (!write)
        memcpy(o->data + at, e->access.data, o->part[e->part].len);
    e->part++;
    return x86__run(e);
}

/* >>cpuid ----------------------------------------------------------------------------------- */

/* Bits that number n things. */
static unsigned x86__bits_for(unsigned n)
{
    unsigned bits = 0;

    while (bits < 31 && 1u << bits < n)
        bits++;
    return bits;
}

static uint32_t x86__field(uint32_t reg, unsigned lo, unsigned len, uint32_t val)
{
    uint32_t mask = ((1u << len) - 1) << lo;

    return (reg & ~mask) | (val << lo & mask);
}

/* Features that need MSRs, CPUs or a hypervisor's help that is not there: by leaf, sub-leaf and
   register (0: eax). */
static const struct x86__absent {
    uint32_t leaf, index;
    unsigned reg;
    uint32_t bits;
} x86__absences[] = {
    /* DTES64, MONITOR, DS-CPL, VMX, SMX, EIST, TM2, SDBG, PDCM, DCA */
    {1, 0, 2,
     1u << 2 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 7 | 1u << 8 | 1u << 11 | 1u << 15 |
         1u << 18},
    /* DS, ACPI, TM, PBE */
    {1, 0, 3, 1u << 21 | 1u << 22 | 1u << 29 | 1u << 31},
    {6, 0, 0, ~4u}, /* but ARAT: the LAPIC's timer goes on */
    {6, 0, 1, ~0u},
    {6, 0, 2, ~0u},
    {6, 0, 3, ~0u},
    /* TSC_ADJUST, SGX, HLE, PQM, RTM, MPX, PQE, PT */
    {7, 0, 1, 1u << 1 | 1u << 2 | 1u << 4 | 1u << 11 | 1u << 12 | 1u << 14 | 1u << 15 | 1u << 25},
    /* PKU, OSPKE, WAITPKG, CET_SS, TME, BUS_LOCK, ENQCMD, SGX_LC, PKS */
    {7, 0, 2,
     1u << 3 | 1u << 4 | 1u << 5 | 1u << 7 | 1u << 13 | 1u << 24 | 1u << 29 | 1u << 30 | 1u << 31},
    /* UINTR, RTM_ALWAYS_ABORT, TSX_FORCE_ABORT, HYBRID, PCONFIG, ARCH_LBR, CET_IBT, AMX and
       everything by which MSRs steer speculation */
    {7, 0, 3,
     1u << 5 | 1u << 9 | 1u << 11 | 1u << 13 | 1u << 15 | 1u << 18 | 1u << 19 | 1u << 20 |
         1u << 22 | 1u << 24 | 1u << 25 | 0xfc000000},
    {0xd, 1, 0, 1u << 3 | 1u << 4}, /* XSAVES, XFD */
    /* SVM, extended APIC space, IBS, OSVW, SKINIT, WDT, LWP, PERFCTR_*, MWAITX */
    {0x80000001, 0, 2,
     1u << 2 | 1u << 3 | 1u << 9 | 1u << 10 | 1u << 12 | 1u << 13 | 1u << 15 | 1u << 23 | 1u << 24 |
         1u << 28 | 1u << 29},
    {0x80000007, 0, 3, ~(1u << 8)}, /* but the invariant TSC */
    /* IRPERF, RDPRU, MCOMMIT, IBPB, IBRS, STIBP and their like, PPIN, SSBD, CPPC, PSFD */
    {0x80000008, 0, 1,
     1u << 1 | 1u << 4 | 1u << 8 | 1u << 12 | 0x3fu << 14 | 7u << 23 | 3u << 27 | 1u << 30},
};

/* Leaves that are only about such features. */
static const struct {
    uint32_t first, last;
} x86__empty[] = {
    {0x3, 0x3},
    {0x5, 0x5},
    {0x9, 0xa},
    {0xe, 0x14},
    {0x17, 0x1e},
    {0x20, 0x3fffffff},
    {0x40000000, 0x4fffffff},
    {0x8000000a, 0x8000000a},
    {0x8000001b, 0x8000001c},
    {0x8000001f, 0x8fffffff},
};

static void x86__cpuid_absent(uint32_t leaf, uint32_t index, uint32_t r[4])
{
    for (unsigned n = 0; n < sizeof x86__absences / sizeof x86__absences[0]; n++)
        if (x86__absences[n].leaf == leaf && x86__absences[n].index == index)
            r[x86__absences[n].reg] &= ~x86__absences[n].bits;
    for (unsigned n = 0; n < sizeof x86__empty / sizeof x86__empty[0]; n++)
        if (leaf >= x86__empty[n].first && leaf <= x86__empty[n].last)
            memset(r, 0, 4 * sizeof r[0]);
}

/* Leaf 1: APIC id, logical CPUs, and what the caller promises. */
static void x86__cpuid_1(const struct x86_cpuid_desc *d, unsigned ncpus, uint32_t r[4])
{
    enum { MCE = 1 << 7, MTRR = 1 << 12, MCA = 1 << 14 };
    unsigned n = 1u << x86__bits_for(ncpus);

    r[1] = x86__field(r[1], 24, 8, d->id);
    r[1] = x86__field(r[1], 16, 8, n > 255 ? 255 : n);
    r[2] = x86__field(r[2], 21, 1, d->x2apic);
    r[2] = x86__field(r[2], 24, 1, d->tsc_deadline);
    r[2] |= 1u << 31; /* a hypervisor is present */
    r[3] = x86__field(r[3], 28, 1, ncpus > 1);
    r[3] |= MCE | MTRR | MCA;
}

/* Leaf 4 (and AMD's 0x8000001d): levels 1 and 2 belong to one core, the rest to all of them. */
static void x86__cpuid_cache(uint32_t leaf, unsigned ncpus, uint32_t r[4])
{
    unsigned level = r[0] >> 5 & 7, last = (1u << x86__bits_for(ncpus)) - 1;

    if (!(r[0] & 31))
        return;
    r[0] = x86__field(r[0], 14, 12, level <= 2 ? 0 : last);
    if (leaf == 4)
        r[0] = x86__field(r[0], 26, 6, last > 63 ? 63 : last);
}

/* Leaves 0xb and 0x1f: one thread a core, ncpus cores in the package. */
static void x86__cpuid_topology(const struct x86_cpuid_desc *d, unsigned ncpus, uint32_t index,
                                uint32_t r[4])
{
    enum { SMT = 1, CORE = 2 };

    r[0] = index == 1 ? x86__bits_for(ncpus) : 0;
    r[1] = index == 0 ? 1 : index == 1 ? ncpus : 0;
    r[2] = (index & 0xff) | (index == 0 ? SMT << 8 : index == 1 ? CORE << 8 : 0);
    r[3] = d->id;
}

/* AMD's leaves for the same topology. */
static void x86__cpuid_amd(const struct x86_cpuid_desc *d, uint32_t leaf, unsigned ncpus,
                           uint32_t r[4])
{
    unsigned cores = ncpus > 256 ? 256 : ncpus;

    if (leaf == 0x80000001) {
        r[2] = x86__field(r[2], 1, 1, ncpus > 1); /* CmpLegacy: cores, not threads */
    } else if (leaf == 0x80000008) {
        r[2] = x86__field(r[2], 0, 8, cores - 1);
        r[2] = x86__field(r[2], 12, 4, x86__bits_for(cores));
    } else if (leaf == 0x8000001e) {
        r[0] = d->id;
        r[1] = d->id & 0xff; /* core id; one thread each */
        r[2] = 0;            /* node 0, one node */
    }
}

/* The frequencies, which a guest would otherwise measure, badly. */
static void x86__cpuid_clock(const struct x86_cpuid_desc *d, uint32_t leaf, uint32_t r[4])
{
    uint32_t tsc_khz = (uint32_t)(d->tsc_hz / 1000), lapic_khz = (uint32_t)(d->lapic_hz / 1000);
    bool known = tsc_khz && lapic_khz;

    if (leaf == 0x15) { /* TSC = crystal (the LAPIC's clock) * ebx / eax */
        r[0] = known ? lapic_khz : 0;
        r[1] = known ? tsc_khz : 0;
        r[2] = known ? lapic_khz * 1000 : 0;
        r[3] = 0;
    } else if (leaf == 0x16 && tsc_khz) {
        r[0] = x86__field(r[0], 0, 16, tsc_khz / 1000);
    } else if (leaf == 0x40000010) { /* first used by VMware */
        r[0] = tsc_khz;
        r[1] = lapic_khz;
    }
}

VMM_DEF void x86_cpuid(const struct x86_cpuid_desc *d, uint32_t leaf, uint32_t index, uint32_t r[4])
{
    static const uint32_t signature[4] = {0x40000010, 0x4b4d564b, 0x564b4d56, 0x4d};
    unsigned ncpus = d->ncpus ? d->ncpus : 1;

    x86__cpuid_absent(leaf, index, r);
    if (leaf == 1)
        x86__cpuid_1(d, ncpus, r);
    else if (leaf == 4 || leaf == 0x8000001d)
        x86__cpuid_cache(leaf, ncpus, r);
    else if (leaf == 0xb || leaf == 0x1f)
        x86__cpuid_topology(d, ncpus, index, r);
    else if (leaf == 0x40000000)
        memcpy(r, signature, sizeof signature);
    else if (leaf >= 0x80000000)
        x86__cpuid_amd(d, leaf, ncpus, r);
    else
        x86__cpuid_clock(d, leaf, r);
}

/* >>msr ------------------------------------------------------------------------------------- */

enum {
    X86__MTRR_VARS = 8,                     /* pairs */
    X86__MTRR_CAP = 0x500 | X86__MTRR_VARS, /* fixed ones, and write-combining */
    X86__MTRR_ON = 1 << 11,
    X86__MTRR_FIX_ON = 1 << 10,
    X86__WRITE_BACK = 6,
    X86__FAST_STRINGS = 1,
    X86__HWCR_TSC_P0 = 1 << 24 /* the TSC counts at the frequency of P0 */
};

/* Registers that read as a constant. Writes: lost, or refused unless they change nothing. */
static const struct x86__const_msr {
    uint32_t msr;
    bool lost;
    uint64_t val;
} x86__const_msrs[] = {
    {0x17, false, 0}, /* PLATFORM_ID */
    {0x2a, false, 0}, /* EBL_CR_POWERON */
    {0x3a, false, 1}, /* FEATURE_CONTROL: locked, with nothing on */
    {0x79, true, 0},  /* BIOS_UPDT_TRIG: microcode is the host's */
    {0x8b, true, 0},  /* BIOS_SIGN_ID: before it is read, 0 is written */
    {0xce, false, 0}, /* PLATFORM_INFO */
    {0xfe, false, X86__MTRR_CAP},
    {0x140, false, 0},      /* MISC_FEATURES_ENABLES */
    {0x179, false, 0},      /* MCG_CAP: no banks */
    {0x198, false, 0},      /* PERF_STATUS */
    {0x1d9, false, 0},      /* DEBUGCTL */
    {0xc0010010, false, 0}, /* SYSCFG */
    {0xc001001a, false, 0}, /* TOP_MEM */
    {0xc001001d, false, 0}, /* TOP_MEM2 */
    {0xc001001f, false, 0}, /* NB_CFG */
    {0xc0010055, true, 0},  /* INT_PENDING_MSG */
    {0xc0010058, false, 0}, /* MMIO_CONF_BASE */
    {0xc0011020, true, 0},  /* LS_CFG, and more bits that work around faults of processors */
    {0xc0011022, true, 0},  /* DC_CFG */
    {0xc0011023, true, 0},  /* CU_CFG or TW_CFG */
    {0xc001102a, true, 0},  /* CU_CFG2 */
};

static const struct x86__const_msr *x86__const_msr(uint32_t msr)
{
    for (unsigned n = 0; n < sizeof x86__const_msrs / sizeof x86__const_msrs[0]; n++)
        if (x86__const_msrs[n].msr == msr)
            return &x86__const_msrs[n];
    return NULL;
}

/* Where a register is remembered, and which bits it has; 0: it holds memory types. */
static const uint64_t *x86__kept_msr(const struct x86_msrs *m, uint32_t msr, uint64_t *bits)
{
    static const uint16_t fix[] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
                                   0x26b, 0x26c, 0x26d, 0x26e, 0x26f};

    for (unsigned n = 0; n < sizeof fix / sizeof fix[0]; n++)
        if (msr == fix[n]) {
            *bits = 0;
            return &m->mtrr_fix[n];
        }
    if (msr >= 0x200 && msr < 0x200 + 2 * X86__MTRR_VARS) {
        *bits = msr & 1 ? 0xffffffffff800 : 0xffffffffff0ff;
        return &m->mtrr_var[msr - 0x200];
    }
    *bits = msr == 0x2ff ? X86__MTRR_ON | X86__MTRR_FIX_ON | 0xff : ~(uint64_t)0;
    switch (msr) {
    case 0x2ff:
        return &m->mtrr_def;
    case 0x1a0:
        return &m->misc_enable;
    case 0x17a:
        return &m->mcg_status;
    case 0xc0010015:
        return &m->hwcr;
    default:
        return NULL;
    }
}

/* SDM volume 3, 11.11.2: the memory types are 0, 1, 4, 5 and 6. */
static bool x86__mtrr_type(uint64_t type)
{
    return type < 8 && 0x73 >> type & 1;
}

static bool x86__mtrr_valid(uint32_t msr, uint64_t bits, uint64_t val)
{
    bool typed = msr == 0x2ff || (msr >= 0x200 && msr < 0x250 && !(msr & 1));

    if (bits)
        return !(val & ~bits) && (!typed || x86__mtrr_type(val & 0xff));
    for (unsigned n = 0; n < 64; n += 8)
        if (!x86__mtrr_type(val >> n & 0xff))
            return false;
    return true;
}

VMM_DEF void x86_msr_reset(struct x86_msrs *m)
{
    memset(m, 0, sizeof *m);
    m->mtrr_def = X86__MTRR_ON | X86__WRITE_BACK;
    m->misc_enable = X86__FAST_STRINGS;
    m->hwcr = X86__HWCR_TSC_P0;
}

VMM_DEF int x86_msr_read(const struct x86_msrs *m, uint32_t msr, uint64_t *val)
{
    const struct x86__const_msr *c = x86__const_msr(msr);
    uint64_t bits;
    const uint64_t *kept = x86__kept_msr(m, msr, &bits);

    if (!c && !kept)
        return -ENOENT;
    *val = c ? c->val : *kept;
    return 0;
}

VMM_DEF int x86_msr_write(struct x86_msrs *m, uint32_t msr, uint64_t val)
{
    const struct x86__const_msr *c = x86__const_msr(msr);
    uint64_t bits;
    uint64_t *kept = (uint64_t *)x86__kept_msr(m, msr, &bits);

    if (c)
        return c->lost || c->val == val ? 0 : -EINVAL;
    if (!kept)
        return -ENOENT;
    if (!x86__mtrr_valid(msr, bits, val))
        return -EINVAL;
    *kept = val;
    return 0;
}

#endif /* X86__IMPLEMENTED */
#endif /* HV_X86_IMPLEMENTATION */
