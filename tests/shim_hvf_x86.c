/* shim_hvf_x86.c - Hypervisor.framework for Intel, played on Linux's /dev/kvm       MIT licence, see LICENSE

   Its functions over hv_nvmm.h, whose device shim_nvmm.c plays on KVM: there, instructions that come
   out are not yet carried out, as here. The VMCS is made of NVMM's state, exits are told by VMX's
   numbers. The unmodified hv_hvf.h boots stock kernels on it; which rules it must keep is
   hvf_fake_x86.h's part. HVF_SHIM_CPUS in the environment: how many CPUs CPUID tells of; 1.

   The monitor trap flag and the bitmap of exceptions are played by what hv_nvmm.h has for debuggers, in
   a guest that has gates for them.

   Not played, for KVM has the answers: CPUID, EFER, control registers, CR8, XSETBV; besides, time limits
   of runs, native MSRs, the guest's own debug registers, and events whose delivery was interrupted: KVM
   keeps those, and they are told as not yet taken. */
#define _GNU_SOURCE
#define VMM_DEF static __attribute__((unused))
#define HV_NVMM_IMPLEMENTATION
#define HV_X86_IMPLEMENTATION
#define DEBUG_IMPLEMENTATION
#include "../hv_nvmm.h"

#include <Hypervisor/Hypervisor.h>
#include <mach/mach_time.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysctl.h>

enum { SHIM_CPUS = 16, SHIM_FIELDS = 0x7000 };
#define SHIM_VALID (1u << 31)

static struct hyp nvmm;
static unsigned ncpus;
static pthread_mutex_t ncpus_lock = PTHREAD_MUTEX_INITIALIZER;

static struct shim_cpu {
    struct hyp_cpu c;
    bool inside;    /* KVM has the event, and has not delivered it */
    uint64_t dr[8]; /* which only a debugger sets */
    uint64_t field[SHIM_FIELDS];
} cpus[SHIM_CPUS];

static void must(bool held, const char *rule)
{
    if (held)
        return;
    fprintf(stderr, "shim_hvf: %s\n", rule);
    abort();
}

static struct nvmm__state *state(hv_vcpuid_t id, uint64_t parts)
{
    must(id < SHIM_CPUS && cpus[id].c.created, "there is no such vCPU");
    must(!nvmm__get(&cpus[id].c, parts), "the state cannot be had");
    return &cpus[id].c.comm->state;
}

/* >>host */
uint64_t mach_absolute_time(void)
{
    return nvmm__now();
}

int mach_timebase_info(struct mach_timebase_info *info)
{
    *info = (struct mach_timebase_info){1, 1};
    return 0;
}

int sysctlbyname(const char *name, void *old, size_t *old_len, void *now, size_t now_len)
{
    (void)name, (void)old, (void)old_len, (void)now, (void)now_len;
    return -1;
}

/* >>vm */
hv_return_t hv_capability(hv_capability_t capability, uint64_t *value)
{
    (void)capability;
    *value = SHIM_CPUS;
    return HV_SUCCESS;
}

hv_return_t hv_vmx_read_capability(hv_vmx_capability_t field, uint64_t *value)
{
    static const uint64_t words[] = {[HV_VMX_CAP_PINBASED] = 0x0000007f00000016,
                                     [HV_VMX_CAP_PROCBASED] = 0xfdf9fffe95006172,
                                     [HV_VMX_CAP_PROCBASED2] = 0x001c14ff000000a2,
                                     [HV_VMX_CAP_ENTRY] = 0x0003ffff000011ff,
                                     [HV_VMX_CAP_CR0_FIXED0] = 0x80000021,
                                     [HV_VMX_CAP_CR0_FIXED1] = 0xffffffff,
                                     [HV_VMX_CAP_CR4_FIXED0] = 0x2000,
                                     [HV_VMX_CAP_CR4_FIXED1] = 0x3727ff};

    must(field <= HV_VMX_CAP_CR4_FIXED1, "there is no such capability");
    *value = words[field];
    return HV_SUCCESS;
}

hv_return_t hv_vm_create(hv_vm_options_t flags)
{
    const char *n = getenv("HVF_SHIM_CPUS");
    struct hyp_desc d = {.ncpus = n ? (unsigned)strtoul(n, NULL, 10) : 1, .path = "/dev/nvmm"};

    (void)flags;
    return hyp_open(&nvmm, &d) ? HV_ERROR : HV_SUCCESS;
}

hv_return_t hv_vm_destroy(void)
{
    hyp_close(&nvmm);
    return HV_SUCCESS;
}

hv_return_t hv_vm_map(hv_uvaddr_t addr, hv_gpaddr_t gpa, size_t size, hv_memory_flags_t flags)
{
    void *at;

    memcpy(&at, &addr, sizeof at);
    return hyp_map(&nvmm, gpa, size, at, (unsigned)flags) ? HV_BAD_ARGUMENT : HV_SUCCESS;
}

hv_return_t hv_vm_unmap(hv_gpaddr_t gpa, size_t size)
{
    (void)gpa, (void)size;
    return HV_UNSUPPORTED;
}

/* They agree from the beginning, see nvmm__first_run. */
hv_return_t hv_vm_sync_tsc(uint64_t tsc)
{
    (void)tsc;
    return HV_SUCCESS;
}

/* >>vcpu */
hv_return_t hv_vcpu_create(hv_vcpuid_t *id, hv_vcpu_options_t flags)
{
    (void)flags;
    pthread_mutex_lock(&ncpus_lock);
    *id = ncpus++;
    pthread_mutex_unlock(&ncpus_lock);
    must(*id < SHIM_CPUS, "there are more vCPUs than may be");
    return hyp_cpu_open(&cpus[*id].c, &nvmm, *id) ? HV_ERROR : HV_SUCCESS;
}

hv_return_t hv_vcpu_destroy(hv_vcpuid_t id)
{
    hyp_cpu_close(&cpus[id].c);
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_interrupt(hv_vcpuid_t *ids, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        hyp_kick(&cpus[ids[i]].c);
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_enable_native_msr(hv_vcpuid_t id, uint32_t msr, bool enable)
{
    (void)id, (void)msr, (void)enable;
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_invalidate_tlb(hv_vcpuid_t id)
{
    (void)id;
    return HV_SUCCESS;
}

/* x87 and SSE, which a byte behind them says. */
hv_return_t hv_vcpu_read_fpstate(hv_vcpuid_t id, void *buffer, size_t size)
{
    const struct nvmm__fpu *fpu = &state(id, NVMM__FPU)->fpu;

    must(size == 4096, "not a page");
    memset(buffer, 0, size);
    memcpy(buffer, fpu, sizeof *fpu);
    ((uint8_t *)buffer)[sizeof *fpu] = 3;
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_write_fpstate(hv_vcpuid_t id, const void *buffer, size_t size)
{
    struct nvmm__fpu *fpu = &state(id, NVMM__FPU)->fpu;

    must(size == 4096, "not a page");
    memcpy(fpu, buffer, sizeof *fpu);
    nvmm__set(&cpus[id].c, NVMM__FPU);
    return HV_SUCCESS;
}

/* >>registers: a part of the state moves only if something in it is another, for the TSC is in one. */
static void change(hv_vcpuid_t id, uint64_t *at, uint64_t val, uint64_t part)
{
    if (*at != val)
        nvmm__set(&cpus[id].c, part);
    *at = val;
}

static uint64_t *reg_at(hv_vcpuid_t id, hv_x86_reg_t reg, uint64_t *part)
{
    static const uint8_t map[] = {NVMM__RIP, NVMM__RFLAGS, VMM_RAX, VMM_RCX, VMM_RDX, VMM_RBX,
                                  VMM_RSI,   VMM_RDI,      VMM_RSP, VMM_RBP, VMM_R8,  VMM_R9,
                                  VMM_R10,   VMM_R11,      VMM_R12, VMM_R13, VMM_R14, VMM_R15};

    *part = 0;
    if (reg >= HV_X86_DR0 && reg <= HV_X86_DR7)
        return &cpus[id].dr[reg - HV_X86_DR0];
    *part = reg <= HV_X86_R15 ? NVMM__GPRS : NVMM__CRS;
    must(reg <= HV_X86_R15 || reg == HV_X86_CR2 || reg == HV_X86_XCR0, "not such a register");
    if (reg <= HV_X86_R15)
        return &state(id, *part)->gpr[map[reg]];
    return &state(id, *part)->cr[reg == HV_X86_CR2 ? NVMM__CR2 : NVMM__XCR0];
}

hv_return_t hv_vcpu_read_register(hv_vcpuid_t id, hv_x86_reg_t reg, uint64_t *value)
{
    uint64_t part;

    *value = *reg_at(id, reg, &part);
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_write_register(hv_vcpuid_t id, hv_x86_reg_t reg, uint64_t value)
{
    uint64_t part, *at = reg_at(id, reg, &part);

    change(id, at, value, part);
    return HV_SUCCESS;
}

/* >>vmcs */
enum part { SELECTOR, LIMIT, RIGHTS, BASE, NO_SEGMENT };

/* Which part of which of NVMM's segments a field is. */
static enum part segment(uint32_t field, unsigned *seg)
{
    static const uint8_t map[] = {NVMM__ES, NVMM__CS,  NVMM__SS, NVMM__DS,  NVMM__FS,
                                  NVMM__GS, NVMM__LDT, NVMM__TR, NVMM__GDT, NVMM__IDT};
    static const uint16_t first[] = {0x800, 0x4800, 0x4814, 0x6806};

    for (unsigned part = SELECTOR; part < NO_SEGMENT; part++) {
        unsigned n = part == LIMIT || part == BASE ? 10 : 8;
        if (field < first[part] || field >= first[part] + 2 * n)
            continue;
        *seg = map[(field - first[part]) / 2];
        return (enum part)part;
    }
    return NO_SEGMENT;
}

static uint64_t read_segment(hv_vcpuid_t id, unsigned seg, enum part part)
{
    const struct nvmm__seg *s = &state(id, NVMM__SEGS)->seg[seg];
    uint32_t ar = (s->attrib & 0xffu) | (s->attrib & 0xf00u) << 4;

    return part == SELECTOR ? s->selector
           : part == LIMIT  ? s->limit
           : part == BASE   ? s->base
           : ar & 0x80      ? ar
                            : ar | 1u << 16;
}

static void write_segment(hv_vcpuid_t id, unsigned seg, enum part part, uint64_t val)
{
    struct nvmm__seg *s = &state(id, NVMM__SEGS)->seg[seg];

    if (part == SELECTOR)
        s->selector = (uint16_t)val;
    else if (part == LIMIT)
        s->limit = (uint32_t)val;
    else if (part == BASE)
        s->base = val;
    else
        s->attrib = (uint16_t)((val & (val >> 16 & 1 ? 0x7f : 0xff)) | (val >> 4 & 0xf00));
    nvmm__set(&cpus[id].c, NVMM__SEGS);
}

/* The shadows are what the guest sees, and so what NVMM knows; CR3 has none. */
static uint64_t *cr_at(hv_vcpuid_t id, uint32_t field)
{
    switch (field) {
    case 0x6004:
    case 0x6800:
        return &state(id, NVMM__CRS)->cr[NVMM__CR0];
    case 0x6006:
    case 0x6804:
        return &state(id, NVMM__CRS)->cr[NVMM__CR4];
    case 0x6802:
        return &state(id, NVMM__CRS)->cr[NVMM__CR3];
    default:
        return NULL;
    }
}

hv_return_t hv_vmx_vcpu_read_vmcs(hv_vcpuid_t id, uint32_t field, uint64_t *value)
{
    unsigned seg;
    enum part part = segment(field, &seg);

    if (part != NO_SEGMENT)
        *value = read_segment(id, seg, part);
    else if (cr_at(id, field))
        *value = *cr_at(id, field);
    else if (field == 0x2806)
        *value = state(id, NVMM__MSRS)->msr[NVMM__EFER];
    else if (field == 0x2010)
        *value = state(id, NVMM__MSRS)->msr[NVMM__TSC] - __builtin_ia32_rdtsc();
    else if (field == 0x4824)
        *value = cpus[id].c.intr & NVMM__SHADOW ? 1 : 0;
    else
        *value = cpus[id].field[field];
    return HV_SUCCESS;
}

static void write_shadow(struct hyp_cpu *c, bool on)
{
    c->intr = (c->intr & ~(uint64_t)NVMM__SHADOW) | (on ? NVMM__SHADOW : 0);
    c->comm->state.intr = c->intr & ~(uint64_t)NVMM__PENDING;
    nvmm__set(c, NVMM__INTR);
}

hv_return_t hv_vmx_vcpu_write_vmcs(hv_vcpuid_t id, uint32_t field, uint64_t value)
{
    unsigned seg;
    enum part part = segment(field, &seg);

    if (part != NO_SEGMENT)
        write_segment(id, seg, part, value);
    else if (field == 0x6004 || field == 0x6006 || field == 0x6802)
        change(id, cr_at(id, field), value, NVMM__CRS);
    else if (field == 0x2806)
        change(id, &state(id, NVMM__MSRS)->msr[NVMM__EFER], value, NVMM__MSRS);
    else if (field == 0x4824)
        write_shadow(&cpus[id].c, value & 3);
    else
        cpus[id].field[field] = value;
    return HV_SUCCESS;
}

/* >>run */
static void give_event(struct shim_cpu *s)
{
    uint32_t event = (uint32_t)s->field[0x4016], type = event >> 8 & 7;

    if (!(event & SHIM_VALID) || (s->inside && s->c.intr & NVMM__PENDING))
        return;
    if ((uint8_t)event == X86_DB || (uint8_t)event == X86_BP) { /* as it has been delivered once */
        must(!hyp_debug_pass(&s->c), "the guest does not get its exception");
        return;
    }
    must(type == 0 || type == 2 || type == 3, "an event of a type that never comes out here");
    nvmm__event(&s->c, type == 3 ? NVMM__EXCEPTION : NVMM__INTERRUPT, (uint8_t)event,
                event >> 11 & 1 ? (uint32_t)s->field[0x4018] : 0);
}

static uint32_t tell_io(struct shim_cpu *s, uint64_t rip)
{
    const struct nvmm__exit *x = &s->c.run.exit;

    s->field[0x6400] = (uint64_t)x->u.io.port << 16 | (x->u.io.operand_size - 1u) |
                       (x->u.io.in ? 8 : 0) | (x->u.io.str ? 16 : 0) | (x->u.io.rep ? 32 : 0);
    s->field[0x440c] = x->u.io.npc - rip;
    return 30;
}

static uint32_t tell_memory(struct shim_cpu *s)
{
    const struct nvmm__exit *x = &s->c.run.exit;

    s->field[0x2400] = x->u.mem.gpa;
    s->field[0x6400] = 0x180 | (x->u.mem.prot & PROT_WRITE ? 2 : x->u.mem.prot & PROT_EXEC ? 4 : 1);
    return 48;
}

/* NVMM has left HLT behind already. */
static uint32_t tell_halt(struct shim_cpu *s)
{
    s->c.comm->state.gpr[NVMM__RIP]--;
    nvmm__set(&s->c, NVMM__GPRS);
    s->field[0x440c] = 1;
    return 12;
}

/* The exit's reason, with the fields that go with it. */
static uint32_t tell(hv_vcpuid_t id)
{
    struct shim_cpu *s = &cpus[id];
    const struct nvmm__exit *x = &s->c.run.exit;
    uint64_t rip = state(id, NVMM__GPRS)->gpr[NVMM__RIP];

    switch (x->reason) {
    case NVMM__EXIT_MEMORY:
        return tell_memory(s);
    case NVMM__EXIT_IO:
        return tell_io(s, rip);
    case NVMM__EXIT_RDMSR:
        s->field[0x440c] = x->u.rdmsr.npc - rip;
        return 31;
    case NVMM__EXIT_WRMSR:
        s->field[0x440c] = x->u.wrmsr.npc - rip;
        return 32;
    case NVMM__EXIT_HALTED:
        return tell_halt(s);
    case NVMM__EXIT_SHUTDOWN:
        return 2;
    case NVMM__EXIT_INT_READY:
        return 7;
    case NVMM__EXIT_NMI_READY:
        return 8;
    case NVMM__EXIT_INVALID:
        return 33 | SHIM_VALID;
    default:
        return 1;
    }
}

/* >>debug: a slot of DR7, 0 if it is not enabled there */
static struct vmm_break slot(const struct shim_cpu *s, unsigned i)
{
    static const uint8_t lens[] = {1, 2, 8, 4};
    static const enum vmm_break_kind kinds[] = {VMM_BREAK_EXEC, VMM_BREAK_WRITE, VMM_BREAK_ACCESS,
                                                VMM_BREAK_ACCESS};
    uint64_t dr7 = s->field[0x681a], bits = dr7 >> (16 + 4 * i);

    if (!(dr7 >> 2 * i & 3) || !(s->field[0x4004] >> X86_DB & 1))
        return (struct vmm_break){.len = 0};
    return (struct vmm_break){s->dr[i], lens[bits >> 2 & 3], kinds[bits & 3]};
}

static void want_debug(struct shim_cpu *s)
{
    struct vmm_debug d = {.step = s->field[0x4002] >> 27 & 1,
                          .traps = s->field[0x4004] >> X86_BP & 1};
    struct vmm_exit e;

    for (unsigned i = 0; i < VMM_BREAKS; i++)
        d.slot[i] = slot(s, i);
    must(!hyp_debug(&s->c, &d), "NVMM cannot debug");
    must(!nvmm__debug_enter(&s->c, &e), "a step where the guest has no gate for it");
}

/* Has NVMM caught something? The exit's reason, with what VMX says of it; 1: it was the guest's. */
static bool debugged(struct shim_cpu *s, uint32_t *reason)
{
    struct nvmm__hook hook = {0};
    struct vmm_exit e = {.kind = VMM_EXIT_AGAIN};
    struct vmm_regs r;

    must(!nvmm__clear_tf(&s->c), "the trap flag cannot be cleared");
    if (!nvmm__caught(&s->c, &r, &hook))
        return false;
    *reason = 1;
    if (!nvmm__exit_debug(&s->c, &e, &r, &hook))
        return true;
    *reason = e.code & VMM_DEBUG_STEP ? 37 : 0;
    s->field[0x440c] = 1;
    s->field[0x4404] = SHIM_VALID | (e.code & VMM_DEBUG_TRAP ? 0x603u : 0x301u);
    s->field[0x6400] = e.code ? e.code & VMM_DEBUG_SLOTS : s->c.comm->state.dr[NVMM__DR6] & 0xe00f;
    if (*reason == 37 && e.code & VMM_DEBUG_SLOTS)
        s->field[0x6822] |= 0x1000 | (e.code & VMM_DEBUG_SLOTS);
    return true;
}

hv_return_t hv_vcpu_run_until(hv_vcpuid_t id, uint64_t deadline)
{
    struct shim_cpu *s = &cpus[id];
    struct vmm_exit e = {.kind = VMM_EXIT_AGAIN};
    uint32_t reason = 1;
    uint64_t proc = s->field[0x4002];
    int err = s->c.entered ? 0 : nvmm__first_run(&s->c);

    (void)deadline;
    nvmm__watch(&s->c,
                (proc >> 2 & 1 ? NVMM__INT_WINDOW : 0) | (proc >> 22 & 1 ? NVMM__NMI_WINDOW : 0));
    give_event(s);
    want_debug(s);
    if (!err)
        err = nvmm__enter(&s->c, &e);
    must(err >= 0, "NVMM cannot run the guest");
    s->inside = s->c.intr & NVMM__PENDING;
    if (err && s->c.comm->event_commit)
        s->c.comm->event_commit = false; /* it was not entered */
    else if (!s->inside)
        s->field[0x4016] &= ~(uint64_t)SHIM_VALID;
    if (!debugged(s, &reason) && !err)
        reason = tell(id);
    s->field[0x4402] = reason;
    return HV_SUCCESS;
}
