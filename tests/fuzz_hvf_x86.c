/* fuzz_hvf_x86.c - exits at random for hv_hvf.h on Intel           MIT licence, see LICENSE

   The input is steps of 32 bytes: the exit's reason, qualification, address, what was being delivered,
   and some registers; each is an exit of a framework that is played. What must hold: every entry is
   one that the processor takes, no call of the framework's breaks its rules (hvf_fake_x86.h), accesses
   have a width that exists, and an instruction is left behind by its length or not at all. */
#define _GNU_SOURCE
#define HV_HVF_IMPLEMENTATION
#define HV_X86_IMPLEMENTATION
#define DEBUG_IMPLEMENTATION
#include "../hv_hvf.h"
#include "hvf_fake_x86.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { STEP = 32 };

static struct hyp h;
static struct hyp_cpu c;
static const uint8_t *input;
static size_t left;
static _Alignas(4096) uint8_t ram[65536], rom[4096];

/* No assert: it must hold in every build. */
static void must(bool held)
{
    if (!held)
        abort();
}

/* A reason that there is, most of the time. */
static uint32_t reason(const uint8_t *d)
{
    static const uint8_t reasons[] = {28, 28, 30, 30, 31, 32, 48, 48, 55, 10, 12, 0, 37, 7, 8, 2};

    return d[0] & 0x80 ? d[1] : reasons[d[0] & 15];
}

/* An event whose delivery is interrupted by an access, and which the guest can take. */
static uint32_t vectoring(const uint8_t *d, const struct fake_vcpu *v)
{
    static const uint32_t events[] = {0x80000030, 0x80001b0e, 0x80000480, 0x80000603, 0x80000202};
    uint32_t event = events[d[0] % 5];

    if (v->vmcs[0x4402] != 48 || !(d[1] & 1) || (event & 0x800 && !(v->vmcs[0x6800] & 1)))
        return 0;
    if ((event == 0x80000030 || event == 0x80000202) && v->vmcs[0x4824] & 3)
        return 0;
    return event == 0x80000030 && !(v->reg[HV_X86_RFLAGS] & 0x200) ? 0 : event;
}

/* What the guest did before it came out: within what a processor lets it. */
static void live(struct fake_vcpu *v, const uint8_t *d)
{
    static const hv_x86_reg_t regs[] = {HV_X86_RAX, HV_X86_RCX, HV_X86_RDX, HV_X86_RDI};

    for (unsigned i = 0; i < 4; i++)
        v->reg[regs[i]] = d[2 + i] & 1 ? vmm_get64(d + 3 + i) : vmm_get32(d + i);
    v->reg[HV_X86_RFLAGS] = 2 | (d[6] & 1 ? 0x200 : 0) | (d[6] & 2 ? 0x100 : 0);
    v->vmcs[0x4824] = d[6] & 4 ? 8 : d[6] & 8 ? 2 : 0;
    v->vmcs[0x6822] = (d[6] & 10) == 10 && !(d[6] & 4) ? 0x4000 : d[6] & 64 ? 0x1001 : 0;
    v->vmcs[0x681a] = d[5] & 2 ? 0x455 : 0x400;
    if (!(v->vmcs[0x2806] >> 10 & 1) && d[6] & 16)
        v->vmcs[0x6804] ^= 0x20; /* PAE */
    if (d[6] & 32)
        v->vmcs[0x6802] = vmm_get16(d + 7);
}

static void play(hv_vcpuid_t id, struct fake_vcpu *v)
{
    static const uint32_t exceptions[] = {0x80000202, 0x80000312, 0x80000301, 0x80000603,
                                          0x80000501};
    const uint8_t *d = input;

    (void)id;
    if (left < STEP) {
        hyp_kick(&c);
        v->vmcs[0x4402] = 1;
        return;
    }
    input += STEP;
    left -= STEP;
    live(v, d + 16);
    v->vmcs[0x4402] = reason(d);
    v->vmcs[0x440c] = 1 + d[2] % 15;
    v->vmcs[0x6400] = vmm_get32(d + 4);
    v->vmcs[0x2400] = d[3] & 1 ? vmm_get32(d + 8) : 0x180000;
    v->vmcs[0x4408] = vectoring(d + 12, v);
    v->vmcs[0x4404] = exceptions[d[14] % 5];
}

/* What vmm.c does with an exit, and before the next run. */
static void answer(const struct vmm_exit *e, const uint8_t *d)
{
    must(e->kind <= VMM_EXIT_FAULT);
    if (e->kind == VMM_EXIT_PIO || e->kind == VMM_EXIT_MMIO) {
        must(e->count == 1 && (e->size == 1 || e->size == 2 || e->size == 4 || e->size == 8));
        must(e->kind == VMM_EXIT_MMIO ? !vmm_at(&h.slots, e->addr, e->size)
                                      : e->addr < 0x10000 && e->size <= 4);
        if (!e->write)
            memset(e->data, 0xff, e->size);
    }
    if (e->kind == VMM_EXIT_MSR && d[0] & 1)
        hyp_msr_refuse(&c);
    if (e->kind == VMM_EXIT_DEBUG && !e->code)
        must(!hyp_debug_pass(&c));
    if (d[0] & 32)
        must(!hyp_debug(&c, &(struct vmm_debug){.slot = {{d[-1], d[-2] & 1, VMM_BREAK_WRITE}},
                                                .step = d[-2] & 2,
                                                .traps = d[-2] & 4}));
    if (e->kind == VMM_EXIT_FAULT)
        must(e->why && e->size <= X86_INSN_MAX);
    hyp_want_window(&c, d[0] & 2);
    if (d[0] & 4)
        hyp_inject_nmi(&c);
    if (d[0] & 8 && hyp_ready(&c))
        must(!hyp_inject(&c, 0x40));
}

static void start(const uint8_t *d)
{
    const struct vmm_x86_seg data = {0, 0xffffffff, 0x18, 0xc093};
    struct vmm_regs r = {.rip = 0x1000, .rflags = 2, .cr0 = d[0] & 1 ? 0x31 : 0x10};

    r.cs = r.ds = r.es = r.fs = r.gs = r.ss = data;
    r.cs.attr = d[0] & 2 ? 0xa09b : 0xc09b;
    r.tr = (struct vmm_x86_seg){0, 0x67, 0, 0x8b};
    r.ldt = (struct vmm_x86_seg){0, 0xffff, 0, 0x82};
    if (d[0] & 2) {
        r.cr0 = 0x80000031;
        r.cr3 = 0x2000;
        r.cr4 = 0x20;
        r.efer = 0x500;
    }
    must(!hyp_set_regs(&c, &r));
}

static void fill(const uint8_t *d)
{
    memset(ram, 0, sizeof ram);
    vmm_put64(ram + 0x2000, 0x3003);
    vmm_put64(ram + 0x3000, 0x83);
    memcpy(ram + 0x1000, d + 1, STEP - 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct hyp_desc d = {.ncpus = 2};
    struct vmm_exit e = {.kind = VMM_EXIT_AGAIN};
    unsigned runs = 0;

    if (len < 2 * STEP)
        return 0;
    fake.guest = play;
    input = data + STEP;
    left = len - STEP;
    must(!hyp_open(&h, &d) && !hyp_map(&h, 0, sizeof ram, ram, VMM_READ | VMM_WRITE | VMM_EXEC) &&
         !hyp_map(&h, 0x100000, sizeof rom, rom, VMM_READ | VMM_EXEC) && !hyp_cpu_open(&c, &h, 0));
    fill(data);
    start(data);
    while (left >= STEP && runs++ < 4096) {
        must(!hyp_run(&c, &e));
        answer(&e, input - 1);
    }
    hyp_cpu_close(&c);
    hyp_close(&h);
    return 0;
}
