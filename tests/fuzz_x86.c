/* fuzz_x86.c - hv_x86.h against guests that lie                    MIT licence, see LICENSE

   40 bytes of registers, the rest is memory: from address 0, with page tables in it, code at RIP, and
   beyond it a device that answers with what comes along. */
#include <stdint.h>
#include <stdlib.h>

#define HV_X86_IMPLEMENTATION
#define DEBUG_IMPLEMENTATION
#include "../hv_x86.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void demand(bool held)
{
    if (!held)
        abort();
}

static void start(struct vmm_x86_regs *r, const uint8_t *d)
{
    static const uint16_t code[] = {0xa09b, 0xc09b, 0x009b, 0x0099};
    const struct vmm_x86_seg seg = {.base = d[1] & 1 ? 0x10 : 0,
                                    .limit = d[1] & 2 ? 0x1fff : 0xffffffff,
                                    .attr = vmm_get16(d + 2)};

    memset(r, 0, sizeof *r);
    r->cs = r->ds = r->es = r->fs = r->gs = r->ss = seg;
    r->cs.attr = code[d[0] & 3];
    r->efer = (d[0] & 3) == 0 ? 0x400 : 0;
    r->efer |= (uint64_t)(d[0] >> 2 & 1) << 11;
    r->cr0 = (d[0] >> 3 & 1) | (uint64_t)(d[0] >> 4 & 1) << 16 | (uint64_t)(d[0] >> 5 & 1) << 31;
    r->cr4 = (uint64_t)(d[1] >> 2 & 3) << 4 | (uint64_t)(d[1] >> 4 & 1) << 12 |
             (uint64_t)(d[1] >> 5 & 3) << 20;
    r->cr3 = vmm_get16(d + 4);
    r->rip = vmm_get16(d + 6) & 0x1fff;
    r->rflags = vmm_get32(d + 8);
    for (unsigned i = 0; i < 16; i++)
        r->gpr[i] = i & 1 ? vmm_get64(d + 8 + i) : vmm_get16(d + 8 + i);
}

static void run(const struct vmm_mem *mem, struct vmm_x86_regs *r, const uint8_t *d)
{
    const struct vmm_x86_regs first = *r;
    struct x86_emul e = {0};
    unsigned accesses = 0;
    enum x86_step step = x86_emul_begin(&e, mem, r, d + 24, d[12] & 15);

    for (; step == X86_ACCESS; step = x86_emul_next(&e)) {
        const struct x86_access *a = &e.access;
        demand(a->size == 1 || a->size == 2 || a->size == 4 || (a->size == 8 && !e.is_port));
        demand(e.is_port ? a->gpa < 0x10000 : !vmm_at(mem, a->gpa, a->size));
        demand(++accesses <= 10 * X86_BATCH);
        if (!a->write)
            vmm_put64(e.access.data, vmm_get64(d + 16) + accesses);
    }
    demand(e.insn_len <= X86_INSN_MAX);
    if (step == X86_UNKNOWN)
        demand(!memcmp(&first, r, sizeof first));
    if (step == X86_FAULT)
        demand(r->rip == first.rip && e.has_error == (e.vector != X86_UD));
    if (step == X86_DONE)
        demand(r->rip - first.rip <= X86_INSN_MAX || r->rip < X86_INSN_MAX);
}

static void policies(const uint8_t *d)
{
    const struct x86_cpuid_desc desc = {
        .ncpus = vmm_get16(d), .id = d[2], .tsc_hz = vmm_get64(d + 4)};
    uint32_t regs[4];
    struct x86_msrs m;
    uint64_t val;

    memcpy(regs, d + 8, sizeof regs);
    x86_cpuid(&desc, vmm_get32(d + 24), d[28], regs);
    x86_msr_reset(&m);
    if (x86_msr_write(&m, vmm_get32(d + 24), vmm_get64(d + 8)) == 0)
        demand(x86_msr_read(&m, vmm_get32(d + 24), &val) == 0);
}

static void exceptions(const struct vmm_mem *mem, const struct vmm_x86_regs *first,
                       const uint8_t *d)
{
    static const uint8_t words[] = {2, 4, 8};
    struct vmm_x86_regs r = *first;
    struct x86_gate gate;
    uint64_t at;

    r.idt = (struct vmm_x86_seg){.base = vmm_get16(d + 12), .limit = d[14]};
    r.gdt = (struct vmm_x86_seg){.base = vmm_get16(d + 15), .limit = d[17]};
    r.ldt = (struct vmm_x86_seg){.base = vmm_get16(d + 18), .limit = d[20], .attr = d[21]};
    if (!x86_gate_find(mem, &r, d[22], &gate)) {
        demand(!(gate.gpa & 1) && vmm_at(mem, gate.gpa, 2));
        if (!x86_gate_snare(mem, NULL, &r, &gate, d[23] & 1, &at))
            demand((at & 1) == (d[23] & 1) && (at ^ gate.offset) < 0x10000);
    }
    if (x86_undeliver(mem, &r, words[d[23] >> 1 & 1 ? 2 : d[23] >> 2 & 1]))
        return;
    demand(r.rflags & 2 && !(r.rflags & 0x20000));
    demand(r.cs.selector == first->cs.selector || !(r.cr0 & 1) || (r.cs.attr & 0x98) == 0x98);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static uint8_t ram[0x4000];
    struct vmm_x86_regs r;
    struct vmm_mem mem = {0};

    if (len < 40)
        return 0;
    memset(ram, 0, sizeof ram);
    memcpy(ram, data + 40, len - 40 < sizeof ram ? len - 40 : sizeof ram);
    vmm_mem_add(&mem, 0, sizeof ram, ram);
    start(&r, data);
    exceptions(&mem, &r, data);
    run(&mem, &r, data);
    policies(data);
    return 0;
}
