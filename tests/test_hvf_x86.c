/* test_hvf_x86.c - hv_hvf.h's x86 half over a framework that plays a script       MIT licence, see LICENSE

   Fields, bits and numbers are written out here once more, from the Intel SDM and Apple's
   documentation. */
#define _GNU_SOURCE
#define HV_HVF_IMPLEMENTATION
#define HV_X86_IMPLEMENTATION
#define DEBUG_IMPLEMENTATION
#include "../hv_hvf.h"
#include "hvf_fake_x86.h"
#include "check.h"
#include <stdarg.h>

static char said[512];

static void hear(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    (void)ctx, (void)level;
    vsnprintf(said, sizeof said, fmt, args);
}

static const struct vmm_log log_ = {hear, NULL, VMM_LOG_ERROR};
static _Alignas(4096) uint8_t ram[65536], rom[4096];

static struct hyp h;
static struct hyp_cpu c;
static struct vmm_exit e;

static struct fake_vcpu *vcpu(void)
{
    return &fake.vcpu[c.vcpu];
}

/* >>script: one exit; if the guest is entered again, the run is ended by a kick. */
static struct {
    uint32_t reason, len;
    uint64_t qualification, gpa;
    uint32_t vectoring, error;
    uint32_t info;    /* of the exception */
    uint64_t pending; /* debug exceptions */
    bool sti;         /* was the instruction before */
    bool done;
    unsigned entered;
    uint32_t event; /* of the entry before the exit */
} next;

static void play(hv_vcpuid_t id, struct fake_vcpu *v)
{
    (void)id;
    next.entered++;
    if (next.done) {
        hyp_kick(&c);
        v->vmcs[0x4402] = 1;
        return;
    }
    next.done = true;
    next.event = v->event;
    v->vmcs[0x4402] = next.reason;
    v->vmcs[0x440c] = next.len;
    v->vmcs[0x6400] = next.qualification;
    v->vmcs[0x2400] = next.gpa;
    v->vmcs[0x4408] = next.vectoring;
    v->vmcs[0x440a] = next.error;
    v->vmcs[0x4404] = next.info;
    v->vmcs[0x6822] |= next.pending;
    v->vmcs[0x4824] |= next.sti;
    v->reg[HV_X86_RFLAGS] |= next.sti ? 0x200 : 0;
}

static enum vmm_exit_kind run(void)
{
    CHECK_EQ(hyp_run(&c, &e), 0);
    return e.kind;
}

/* Plays an exit by an instruction of that length. */
static enum vmm_exit_kind go(uint32_t reason, uint64_t qualification, uint32_t len)
{
    memset(&next, 0, sizeof next);
    next.reason = reason;
    next.qualification = qualification;
    next.len = len;
    return run();
}

static enum vmm_exit_kind go_exception(uint32_t info, uint64_t qualification, uint32_t len)
{
    memset(&next, 0, sizeof next);
    next.info = info;
    next.qualification = qualification;
    next.len = len;
    return run();
}

static struct vmm_regs flat(unsigned bits)
{
    const struct vmm_x86_seg data = {0, 0xffffffff, 0x18, 0xc093};
    struct vmm_regs r = {.rip = 0x1000, .rflags = 2, .cr0 = 0x31};

    r.cs = r.ds = r.es = r.fs = r.gs = r.ss = data;
    r.cs.attr = bits == 64 ? 0xa09b : 0xc09b;
    r.tr = (struct vmm_x86_seg){0, 0x67, 0, 0x8b};
    r.ldt = (struct vmm_x86_seg){0, 0xffff, 0, 0x82};
    r.gdt.limit = 31;
    if (bits == 64) {
        r.cr0 |= 1u << 31;
        r.cr3 = 0x2000;
        r.cr4 = 0x20;
        r.efer = 0x500;
    }
    return r;
}

/* Memory from 64 KiB on, ROM from 1 MiB on; page tables at 0x12000 map the first 2 MiB to itself. */
static void open_vm(unsigned bits)
{
    struct hyp_desc d = {.log = &log_, .ncpus = 2};
    struct vmm_regs r = flat(bits);

    fake.guest = play;
    memset(ram, 0, sizeof ram);
    vmm_put64(ram + 0x2000, 0x13003);
    vmm_put64(ram + 0x3000, 0x14003);
    for (uint64_t i = 0; i < 512; i++)
        vmm_put64(ram + 0x4000 + 8 * i, i << 21 | 0x83);
    CHECK_EQ(hyp_open(&h, &d), 0);
    CHECK_EQ(hyp_map(&h, 0x10000, sizeof ram, ram, VMM_READ | VMM_WRITE | VMM_EXEC), 0);
    CHECK_EQ(hyp_map(&h, 0x100000, sizeof rom, rom, VMM_READ | VMM_EXEC), 0);
    CHECK_EQ(hyp_cpu_open(&c, &h, 0), 0);
    r.rip = 0x11000;
    r.cr3 = bits == 64 ? 0x12000 : 0;
    CHECK_EQ(hyp_set_regs(&c, &r), 0);
}

static void close_vm(void)
{
    hyp_cpu_close(&c);
    hyp_close(&h);
    CHECK(!fake.vm);
}

static uint64_t rip(void)
{
    return vcpu()->reg[HV_X86_RIP];
}

static void code(const void *bytes, size_t len)
{
    memcpy(ram + 0x1000, bytes, len);
}

/* >>pure */
static void test_qualifications(void)
{
    struct hvf_io io;
    struct hvf_cr cr = hvf__decode_cr(0x1234u << 16 | 9u << 8 | 1u << 4 | 8);

    CHECK(hvf__decode_io(0x3f8u << 16 | 0, &io) && io.port == 0x3f8 && io.size == 1 && !io.in &&
          !io.string);
    CHECK(hvf__decode_io(0xcfcu << 16 | 8 | 3, &io) && io.size == 4 && io.in && !io.string);
    CHECK(hvf__decode_io(0xffffu << 16 | 0x38 | 1, &io) && io.size == 2 && io.string &&
          io.port == 0xffff);
    CHECK(!hvf__decode_io(2, &io) && !hvf__decode_io(7, &io));
    CHECK(cr.kind == HVF_CR_READ && cr.cr == 8 && cr.reg == VMM_R9 && cr.lmsw == 0x1234);
    CHECK_EQ(hvf__decode_ept(0x181), HVF_EPT_READ);
    CHECK_EQ(hvf__decode_ept(0x182), HVF_EPT_WRITE);
    CHECK_EQ(hvf__decode_ept(0x183), HVF_EPT_WRITE);
    CHECK_EQ(hvf__decode_ept(0x184), HVF_EPT_FETCH);
    CHECK_EQ(hvf__decode_ept(0x081), HVF_EPT_WALK);
    CHECK_EQ(hvf__decode_ept(0x001), HVF_EPT_WALK);
    CHECK_EQ(hvf__decode_vectoring(0x80001b0e), 0x80000b0e);
    CHECK_EQ(hvf__decode_vectoring(0x00000b0e), 0);
    CHECK(hvf__has_len(0x80000480) && hvf__has_len(0x80000501) && hvf__has_len(0x80000603));
    CHECK(!hvf__has_len(0x8000030d) && !hvf__has_len(0x80000202) && !hvf__has_len(0x80000030));
}

static void test_rules(void)
{
    static const uint8_t regs[16] = {2, 3, 4, 5, 8, 9, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17};
    const uint64_t pe = 1, on = 0x80000001;

    for (unsigned i = 0; i < 16; i++)
        CHECK_EQ(hvf__reg(i), regs[i]);
    CHECK_EQ(hvf__control(0x0000007f00000016, 0x29), 0x3f);
    CHECK_EQ(hvf__control(0x0000000f00000001, 0x30), 1);
    CHECK(hvf__cr0_valid(0, pe, 0, 0, 0) && hvf__cr0_valid(pe, on, 0, 0, 0));
    CHECK(!hvf__cr0_valid(pe, 1ull << 31, 0, 0, 0));      /* PG without PE */
    CHECK(!hvf__cr0_valid(pe, pe | 1ull << 29, 0, 0, 0)); /* NW without CD */
    CHECK(hvf__cr0_valid(pe, pe | 3ull << 29, 0, 0, 0));
    CHECK(!hvf__cr0_valid(pe, pe | 1ull << 32, 0, 0, 0));
    CHECK(!hvf__cr0_valid(pe, on, 0, 0x100, 0)); /* LME without PAE */
    CHECK(hvf__cr0_valid(pe, on, 0x20, 0x100, 0));
    CHECK(!hvf__cr0_valid(pe, on, 0x20, 0x100, 1 << 13));
    CHECK(!hvf__cr0_valid(on, pe, 0x20, 0x500, 1 << 13)); /* from 64-bit code */
    CHECK(hvf__cr0_valid(on, pe, 0x20, 0x500, 0));
    CHECK(!hvf__cr0_valid(on, pe, 0x20020, 0x500, 0)); /* with PCIDE */
    CHECK(hvf__cr4_valid(0, 0x3727ff, 0) && hvf__cr4_valid(0x20020, 0x3727ff, 0x500));
    CHECK(!hvf__cr4_valid(0x20000, 0x3727ff, 0) && !hvf__cr4_valid(0, 0x3727ff, 0x500));
    CHECK(!hvf__cr4_valid(0x2000, 0x3727ff, 0) && !hvf__cr4_valid(0x1000, 0x3727ff, 0));
    CHECK(hvf__efer_valid(0, 0xd01, 0) && !hvf__efer_valid(0, 0x1000, 0));
    CHECK(!hvf__efer_valid(0, 0x100, on) && hvf__efer_valid(0x500, 0xd00, on));
    CHECK(hvf__xcr0_valid(0xff, 1) && hvf__xcr0_valid(0xff, 7) && hvf__xcr0_valid(0xff, 0xe7));
    CHECK(!hvf__xcr0_valid(0xff, 0) && !hvf__xcr0_valid(0xff, 5) && !hvf__xcr0_valid(3, 7));
    CHECK(!hvf__xcr0_valid(0xff, 0x1f) && !hvf__xcr0_valid(0xff, 0x67) &&
          !hvf__xcr0_valid(0xff, 0xe3) && !hvf__xcr0_valid(0x2ff, 0x203));
    CHECK(hvf__pat_valid(0x0007040600070406) && !hvf__pat_valid(0x0207040600070406) &&
          !hvf__pat_valid(0x0807040600070406));
    CHECK_EQ(hvf__next_rip(0xfffffffe, 3, 0xa09b), 0x100000001);
    CHECK_EQ(hvf__next_rip(0xfffffffe, 3, 0xc09b), 1);
    CHECK_EQ(hvf__attr(0x1c093), 0xc013);
    CHECK_EQ(hvf__attr(0xc093), 0xc093);
}

/* >>open */
static void test_open_fails(void)
{
    static const struct {
        uint32_t ret;
        int err;
        const char *says;
    } cases[] = {{0xfae94007, -EACCES, "sign it: 'codesign"},
                 {0xfae9400f, -ENOTSUP, "kern.hv_support"},
                 {0xfae94002, -EBUSY, "has a VM already"},
                 {0xfae94001, -EIO, "0xfae94001"}};
    struct hyp_desc d = {.log = &log_};
    uint64_t was = fake.capability[HV_VMX_CAP_PROCBASED2];

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fake.vm_ret = (hv_return_t)cases[i].ret;
        CHECK_EQ(hyp_open(&h, &d), cases[i].err);
        CHECK(strstr(said, cases[i].says));
    }
    fake.vm_ret = 0;
    d.ncpus = 9;
    CHECK_EQ(hyp_open(&h, &d), -E2BIG);
    CHECK(strstr(said, "at most 8 CPUs in a VM, not 9") && !fake.vm);
    d.ncpus = 1;
    fake.capability[HV_VMX_CAP_PROCBASED2] &= ~(1ull << 39);
    CHECK_EQ(hyp_open(&h, &d), -ENOTSUP);
    CHECK(strstr(said, "lacks controls 0x80 of group 2") && !fake.vm);
    fake.capability[HV_VMX_CAP_PROCBASED2] = was;
}

static void test_cpu_fails(void)
{
    struct hyp_desc d = {.log = &log_};

    CHECK_EQ(hyp_open(&h, &d), 0);
    CHECK_EQ(hyp_cpu_open(&c, &h, 1), -EINVAL);
    fake.cpu_ret = HV_NO_RESOURCES;
    CHECK_EQ(hyp_cpu_open(&c, &h, 0), -ENOMEM);
    fake.cpu_ret = 0;
    fake.msr_ret = HV_ERROR;
    CHECK_EQ(hyp_cpu_open(&c, &h, 0), -EIO);
    CHECK(strstr(said, "cannot create a CPU"));
    fake.msr_ret = 0;
    hyp_close(&h);
}

static void test_memory(void)
{
    open_vm(32);
    CHECK(fake.map[0].gpa == 0x10000 && fake.map[0].flags == 7 && fake.map[1].flags == 5);
    CHECK(h.slots.nranges == 1 && h.rom.nranges == 1);
    CHECK_EQ(hyp_map(&h, 0x200, 4096, ram, VMM_READ), -EINVAL);
    CHECK(strstr(said, "multiples of 4 KiB"));
    CHECK_EQ(hyp_window_map(&h, 0x400000, 4096, ram, VMM_READ), 0);
    CHECK_EQ(hyp_window_unmap(&h, 0x400000, 4096), 0);
    CHECK_EQ(hyp_caps(&h), HYP_CAP_DEBUG);
    CHECK(hyp_gpa_bits(&h) >= 32);
    CHECK_EQ(hyp_irq_bell(&h, 0, 0, true), -ENOSYS);
    CHECK_EQ(hyp_eoi_route(&h, 0, 0, 0), -EINVAL);
    close_vm();
}

/* What a new vCPU is told of VMX, within what Apple allows. */
static void test_controls(void)
{
    struct hyp_desc d = {.log = &log_};
    uint64_t *f = fake.vcpu[0].vmcs;

    CHECK_EQ(hyp_open(&h, &d), 0);
    CHECK_EQ(hyp_cpu_open(&c, &h, 0), 0);
    CHECK_EQ(f[0x4000], 0x3f);
    CHECK_EQ(f[0x4002], 0x95006172 | 1u << 3 | 1u << 7 | 1u << 10 | 1u << 19 | 1u << 20 | 1u << 29);
    CHECK_EQ(f[0x401e], 0xa2 | 1u << 3 | 1u << 12);
    CHECK_EQ(f[0x4012], 0x11ff | 1u << 15);
    CHECK_EQ(f[0x4004], 1u << 18);
    CHECK_EQ(f[0x6000], 0xe0000031);
    CHECK_EQ(f[0x6002], 0x2000);
    CHECK_EQ(f[0x6800], 0x30); /* real mode, but what VMX wants */
    CHECK_EQ(f[0x6004], 0x60000010);
    CHECK_EQ(f[0x6804], 0x2000);
    CHECK_EQ(f[0x6006], 0);
    CHECK(f[0x6808] == 0xffff0000 && f[0x802] == 0xf000 && f[0x4816] == 0x9b);
    CHECK(fake.vcpu[0].reg[HV_X86_RIP] == 0xfff0 && fake.vcpu[0].reg[HV_X86_XCR0] == 1);
    CHECK_EQ(fake.vcpu[0].natives, 12);
    CHECK_EQ(fake.vcpu[0].native[0], 0x10);
    CHECK_EQ(fake.vcpu[0].native[11], 0xc0000103);
    CHECK(!(fake.synced >> 40));
    hyp_cpu_close(&c);
    hyp_close(&h);
}

/* Without RDTSCP there is no TSC_AUX, nor does CPUID say so; without the monitor trap flag there is
   no debugger. */
static void test_fewer_controls(void)
{
    uint64_t was = fake.capability[HV_VMX_CAP_PROCBASED2];
    uint32_t r[4];

    fake.capability[HV_VMX_CAP_PROCBASED2] &= ~(1ull << 35 | 1ull << 44);
    fake.capability[HV_VMX_CAP_PROCBASED] &= ~(1ull << 59);
    open_vm(64);
    fake.capability[HV_VMX_CAP_PROCBASED] |= 1ull << 59;
    CHECK_EQ(hyp_caps(&h), 0);
    CHECK_EQ(vcpu()->vmcs[0x401e], 0xa2);
    CHECK_EQ(vcpu()->natives, 11);
    hvf__cpuid(&c, 0, 7, 0, r);
    CHECK(!(r[1] >> 10 & 1) && !(r[2] >> 22 & 1) && !(r[2] >> 16 & 1));
    hvf__cpuid(&c, 0, 0x80000001, 0, r);
    CHECK(!(r[3] >> 27 & 1));
    close_vm();
    fake.capability[HV_VMX_CAP_PROCBASED2] = was;
}

/* >>registers */
static void check_regs(const struct vmm_regs *a, const struct vmm_regs *b)
{
    CHECK(!memcmp(a->gpr, b->gpr, sizeof a->gpr));
    CHECK(a->rip == b->rip && a->rflags == b->rflags && a->cr0 == b->cr0 && a->cr2 == b->cr2);
    CHECK(a->cr3 == b->cr3 && a->cr4 == b->cr4 && a->efer == b->efer);
    CHECK(!memcmp(&a->cs, &b->cs, (size_t)((const char *)(a + 1) - (const char *)&a->cs)));
}

static void test_registers(void)
{
    struct vmm_regs r = flat(64), got;

    for (unsigned i = 0; i < 16; i++)
        r.gpr[i] = 0x100 + i;
    r.cr2 = 77;
    r.fs.base = 0x123456789;
    r.gs.attr = 0x13; /* none */
    r.idt = (struct vmm_x86_seg){.base = 0x5000, .limit = 0xfff};
    open_vm(64);
    CHECK_EQ(hyp_set_regs(&c, &r), 0);
    CHECK_EQ(hyp_get_regs(&c, &got), 0);
    check_regs(&r, &got);
    CHECK(vcpu()->reg[HV_X86_RSP] == 0x104 && vcpu()->reg[HV_X86_RSI] == 0x106 &&
          vcpu()->reg[HV_X86_R15] == 0x10f);
    CHECK_EQ(vcpu()->vmcs[0x481e], 0x10013); /* GS: unusable */
    CHECK(vcpu()->vmcs[0x680e] == 0x123456789 && vcpu()->vmcs[0x6818] == 0x5000);
    close_vm();
}

/* The three ways in: firmware or a start-up interrupt, PVH, Linux. */
static void test_modes(void)
{
    struct vmm_regs r = flat(32), got;
    uint64_t *f = fake.vcpu[0].vmcs;

    open_vm(64);
    CHECK_EQ(f[0x6800], 0x80000031);
    CHECK_EQ(f[0x6004], 0x80000031);
    CHECK_EQ(f[0x6804], 0x2020);
    CHECK_EQ(f[0x6006], 0x20);
    CHECK_EQ(f[0x2806], 0x500);
    CHECK_EQ(f[0x4012], 0x11ff | 1u << 15 | 1u << 9);
    CHECK_EQ(f[0x4816], 0xa09b);
    CHECK_EQ(go(12, 0, 1), VMM_EXIT_HALT);
    CHECK_EQ(hyp_set_regs(&c, &r), 0);
    CHECK_EQ(f[0x6800], 0x31);
    CHECK_EQ(f[0x2806], 0);
    CHECK_EQ(f[0x4012], 0x11ff | 1u << 15);
    CHECK_EQ(go(12, 0, 1), VMM_EXIT_HALT);
    r.cr0 = 0x60000010;
    r.cs = (struct vmm_x86_seg){0x9a000, 0xffff, 0x9a00, 0x9b};
    r.ds = r.es = r.fs = r.gs = r.ss = (struct vmm_x86_seg){0, 0xffff, 0, 0x93};
    r.rip = 0;
    CHECK_EQ(hyp_set_regs(&c, &r), 0);
    CHECK_EQ(f[0x6800], 0x30);
    CHECK_EQ(f[0x6004], 0x60000010);
    CHECK_EQ(go(12, 0, 1), VMM_EXIT_HALT);
    CHECK_EQ(hyp_get_regs(&c, &got), 0);
    CHECK(got.cr0 == 0x60000010 && got.cs.base == 0x9a000 && got.rip == 1);
    close_vm();
}

static void test_pae(void)
{
    struct vmm_regs r = flat(32);

    open_vm(32);
    for (unsigned i = 0; i < 4; i++)
        vmm_put64(ram + 0x20 + 8 * i, 0x15001 + 0x1000 * i);
    r.cr0 |= 1u << 31;
    r.cr4 = 0x20;
    r.cr3 = 0x10020;
    CHECK_EQ(hyp_set_regs(&c, &r), 0);
    CHECK(vcpu()->vmcs[0x280a] == 0x15001 && vcpu()->vmcs[0x2810] == 0x18001);
    CHECK_EQ(go(12, 0, 1), VMM_EXIT_HALT);
    close_vm();
}

static void test_fpu(void)
{
    struct vmm_fpu f, got;

    open_vm(64);
    vmm_put16(vcpu()->fp, 0x1234); /* stale: nothing is in use */
    vmm_put32(vcpu()->fp + 24, 0x1f80);
    vcpu()->fp[576] = 9;
    CHECK_EQ(hyp_get_fpu(&c, &f), 0);
    CHECK(f.fcw == 0x37f && f.mxcsr == 0x1f80 && !f.xmm[0][0]);
    f.fsw = 3;
    f.ftw = 0x81;
    f.fip = 0x1111;
    f.st[7][0] = 4;
    f.xmm[15][15] = 5;
    CHECK_EQ(hyp_set_fpu(&c, &f), 0);
    CHECK_EQ(hyp_get_fpu(&c, &got), 0);
    CHECK(!memcmp(&f, &got, sizeof f) && vcpu()->fp[576] == 9 && vcpu()->fp[512] == 3);
    CHECK(vcpu()->fp[4] == 0x81 && vcpu()->fp[32 + 7 * 16] == 4 && vcpu()->fp[160 + 255] == 5);
    close_vm();
}

/* >>exits */
static void test_ports(void)
{
    open_vm(64);
    vcpu()->reg[HV_X86_RAX] = 0x1122334455667788;
    CHECK_EQ(go(30, 0x3f8u << 16 | 0, 1), VMM_EXIT_PIO);
    CHECK(e.write && e.addr == 0x3f8 && e.size == 1 && e.count == 1 && vmm_get64(e.data) == 0x88);
    CHECK_EQ(rip(), 0x11001);
    CHECK_EQ(go(30, 0xcf8u << 16 | 3, 2), VMM_EXIT_PIO);
    CHECK(e.write && e.size == 4 && vmm_get64(e.data) == 0x55667788);
    for (unsigned size = 1; size <= 4; size *= 2) {
        uint64_t wants[] = {0, 0x11223344556677ee, 0x112233445566eeee, 0, 0xeeeeeeee};
        uint64_t at = rip();
        vcpu()->reg[HV_X86_RAX] = 0x1122334455667788;
        CHECK_EQ(go(30, 0x60u << 16 | 8 | (size - 1), 2), VMM_EXIT_PIO);
        CHECK(!e.write && e.size == size && e.addr == 0x60 && rip() == at);
        memset(e.data, 0xee, 8);
        next.reason = 1;
        CHECK_EQ(run(), VMM_EXIT_AGAIN);
        CHECK_EQ(vcpu()->reg[HV_X86_RAX], wants[size]);
        CHECK_EQ(rip(), at + 2);
    }
    CHECK_EQ(go(30, 2, 1), VMM_EXIT_FAULT);
    CHECK(strstr(e.why, "impossible width"));
    close_vm();
}

/* REP OUTSB from RAM: two accesses, then past it. */
static void test_strings(void)
{
    open_vm(64);
    code("\xf3\x6e", 2);
    memcpy(ram + 0x800, "ab", 2);
    vcpu()->reg[HV_X86_RSI] = 0x10800;
    vcpu()->reg[HV_X86_RCX] = 2;
    vcpu()->reg[HV_X86_RDX] = 0x3f8;
    CHECK_EQ(go(30, 0x3f8u << 16 | 0x30, 2), VMM_EXIT_PIO);
    CHECK(e.write && e.addr == 0x3f8 && e.data[0] == 'a');
    CHECK(!hyp_ready(&c));
    CHECK_EQ(run(), VMM_EXIT_PIO);
    CHECK_EQ(e.data[0], 'b');
    CHECK_EQ(run(), VMM_EXIT_AGAIN);
    CHECK(rip() == 0x11002 && !vcpu()->reg[HV_X86_RCX] && vcpu()->reg[HV_X86_RSI] == 0x10802);
    close_vm();
}

static enum vmm_exit_kind violate(uint64_t qualification, uint64_t gpa)
{
    memset(&next, 0, sizeof next);
    next.reason = 48;
    next.qualification = qualification;
    next.gpa = gpa;
    return run();
}

static void test_mmio(void)
{
    open_vm(64);
    code("\x89\x07\x8b\x07", 4); /* mov %eax, (%rdi); mov (%rdi), %eax */
    vcpu()->reg[HV_X86_RAX] = 0x11223344;
    vcpu()->reg[HV_X86_RDI] = 0x180010;
    CHECK_EQ(violate(0x182, 0x180010), VMM_EXIT_MMIO);
    CHECK(e.write && e.addr == 0x180010 && e.size == 4 && vmm_get32(e.data) == 0x11223344);
    CHECK_EQ(rip(), 0x11000);
    memset(&next, 0, sizeof next);
    next.reason = 48;
    next.qualification = 0x181;
    next.gpa = 0x180010;
    next.sti = true;
    CHECK_EQ(run(), VMM_EXIT_MMIO);
    CHECK(!e.write && rip() == 0x11002);
    vmm_put32(e.data, 0x55667788);
    CHECK_EQ(run(), VMM_EXIT_AGAIN);
    CHECK(vcpu()->reg[HV_X86_RAX] == 0x55667788 && rip() == 0x11004);
    CHECK_EQ(vcpu()->vmcs[0x4824], 0);
    code("\x0f\x28\x07", 3); /* movaps */
    vcpu()->reg[HV_X86_RIP] = 0x11000;
    CHECK_EQ(violate(0x181, 0x180010), VMM_EXIT_FAULT);
    CHECK(strstr(e.why, "not known") && e.size == 15 && e.data[1] == 0x28);
    close_vm();
}

/* Writes to ROM are accesses; what is mapped, the framework has not brought in yet. */
static void test_violations(void)
{
    open_vm(64);
    code("\x89\x07", 2);
    vcpu()->reg[HV_X86_RDI] = 0x100010;
    CHECK_EQ(violate(0x182, 0x100010), VMM_EXIT_MMIO);
    CHECK(e.write && e.addr == 0x100010);
    CHECK_EQ(run(), VMM_EXIT_AGAIN);
    CHECK_EQ(violate(0x181, 0x100010), VMM_EXIT_AGAIN);
    CHECK_EQ(violate(0x182, 0x10010), VMM_EXIT_AGAIN);
    CHECK_EQ(violate(0x184, 0x500000), VMM_EXIT_FAULT);
    CHECK(strstr(e.why, "executes") && e.code == 0x500000);
    CHECK_EQ(violate(0x081, 0x500000), VMM_EXIT_FAULT);
    CHECK(strstr(e.why, "page tables"));
    memset(&next, 0, sizeof next);
    next.reason = 48;
    next.qualification = 0x182;
    next.gpa = 0x500000;
    next.vectoring = 0x80000b0e;
    CHECK_EQ(run(), VMM_EXIT_FAULT);
    CHECK(strstr(e.why, "interrupt table or stack"));
    close_vm();
}

/* An instruction that faults: the page of its operand is absent. */
static void test_emulated_fault(void)
{
    open_vm(64);
    code("\x89\x07", 2);
    vcpu()->reg[HV_X86_RDI] = 1ull << 39;
    CHECK_EQ(violate(0x182, 0x500000), VMM_EXIT_AGAIN);
    CHECK_EQ(vcpu()->event, 0x80000b0e);
    CHECK_EQ(vcpu()->event_error, 2);
    CHECK_EQ(vcpu()->reg[HV_X86_CR2], 1ull << 39);
    CHECK_EQ(rip(), 0x11000);
    close_vm();
}

static void ask_cpuid(uint32_t leaf, uint32_t index)
{
    uint64_t at = rip();

    vcpu()->reg[HV_X86_RAX] = leaf;
    vcpu()->reg[HV_X86_RCX] = index;
    CHECK_EQ(go(10, 0, 2), VMM_EXIT_AGAIN);
    CHECK_EQ(rip(), at + 2);
}

static void test_cpuid(void)
{
    uint64_t *r;

    open_vm(64);
    r = vcpu()->reg;
    ask_cpuid(1, 0);
    CHECK(!(r[HV_X86_RCX] >> 27 & 1) && !(r[HV_X86_RCX] >> 5 & 1));
    CHECK(r[HV_X86_RCX] >> 31 & 1 && r[HV_X86_RCX] >> 21 & 1 && r[HV_X86_RCX] >> 24 & 1);
    vcpu()->vmcs[0x6804] |= 1u << 18; /* the guest sets OSXSAVE: no exit */
    ask_cpuid(1, 0);
    CHECK(r[HV_X86_RCX] >> 27 & 1);
    ask_cpuid(0x40000000, 0);
    CHECK(r[HV_X86_RAX] == 0x40000010 && r[HV_X86_RBX] == 0x4b4d564b);
    ask_cpuid(0x40000010, 0);
    CHECK(r[HV_X86_RAX] == 2400000 && r[HV_X86_RBX] == 1000000);
    ask_cpuid(0xd, 0);
    CHECK(!(r[HV_X86_RAX] & ~0xe7ull) && r[HV_X86_RBX] == 576 && !r[HV_X86_RDX]);
    ask_cpuid(0xd, 1);
    CHECK(!(r[HV_X86_RAX] & 0x18) && (r[HV_X86_RBX] == 576 || !(r[HV_X86_RAX] & 2)));
    ask_cpuid(0xd, 9);
    CHECK(!r[HV_X86_RAX] && !r[HV_X86_RBX]);
    ask_cpuid(7, 0);
    CHECK(!(r[HV_X86_RCX] >> 16 & 1) && !(r[HV_X86_RBX] >> 1 & 1));
    close_vm();
}

static void test_tsc(void)
{
    uint64_t hz;

    fake.tsc_hz = 0; /* measured */
    open_vm(64);
    vcpu()->vmcs[0x2010] = 5000;
    CHECK(hyp_tsc(&c, &hz) > 5000 && hz > 100000000 && hz < 10000000000);
    close_vm();
    fake.tsc_hz = 2400000000;
}

static enum vmm_exit_kind wrmsr(uint32_t msr, uint64_t val)
{
    vcpu()->reg[HV_X86_RCX] = msr;
    vcpu()->reg[HV_X86_RAX] = (uint32_t)val;
    vcpu()->reg[HV_X86_RDX] = val >> 32;
    return go(32, 0, 2);
}

static uint64_t rdmsr(uint32_t msr)
{
    vcpu()->reg[HV_X86_RCX] = msr;
    CHECK_EQ(go(31, 0, 2), VMM_EXIT_AGAIN);
    return vcpu()->reg[HV_X86_RAX] | vcpu()->reg[HV_X86_RDX] << 32;
}

static void test_msrs(void)
{
    open_vm(64);
    CHECK_EQ(rdmsr(0xc0000080), 0x500);
    CHECK_EQ(wrmsr(0xc0000080, 0x901), VMM_EXIT_AGAIN); /* LMA stays */
    CHECK_EQ(vcpu()->vmcs[0x2806], 0xd01);
    CHECK_EQ(rip(), 0x11004);
    CHECK_EQ(wrmsr(0xc0000080, 0x1), VMM_EXIT_AGAIN); /* LME cannot go */
    CHECK_EQ(vcpu()->event, 0x80000b0d);
    CHECK_EQ(vcpu()->vmcs[0x2806], 0xd01);
    CHECK_EQ(rip(), 0x11004);
    CHECK_EQ(rdmsr(0x277), 0x0007040600070406);
    CHECK_EQ(wrmsr(0x277, 0x0606060606060606), VMM_EXIT_AGAIN);
    CHECK_EQ(rdmsr(0x277), 0x0606060606060606);
    CHECK_EQ(wrmsr(0x277, 2), VMM_EXIT_AGAIN);
    CHECK_EQ(vcpu()->event, 0x80000b0d);
    CHECK_EQ(rdmsr(0x3a), 1);
    CHECK_EQ(wrmsr(0x2ff, 0xc06), VMM_EXIT_AGAIN);
    CHECK_EQ(rdmsr(0x2ff), 0xc06);
    close_vm();
}

static void test_callers_msrs(void)
{
    open_vm(64);
    CHECK_EQ(wrmsr(0x830, 0x1122334455), VMM_EXIT_MSR);
    CHECK(e.write && e.addr == 0x830 && e.size == 8 && vmm_get64(e.data) == 0x1122334455);
    CHECK_EQ(rip(), 0x11000);
    CHECK_EQ(run(), VMM_EXIT_AGAIN);
    CHECK_EQ(rip(), 0x11002);
    vcpu()->reg[HV_X86_RCX] = 0x802;
    CHECK_EQ(go(31, 0, 2), VMM_EXIT_MSR);
    CHECK(!e.write && e.addr == 0x802);
    vmm_put64(e.data, 0x300000002);
    CHECK_EQ(run(), VMM_EXIT_AGAIN);
    CHECK(vcpu()->reg[HV_X86_RAX] == 2 && vcpu()->reg[HV_X86_RDX] == 3 && rip() == 0x11004);
    CHECK_EQ(wrmsr(0x12345, 0), VMM_EXIT_MSR);
    vcpu()->reg[HV_X86_RFLAGS] |= 0x200;
    hyp_msr_refuse(&c);
    CHECK(!hyp_ready(&c));
    CHECK_EQ(run(), VMM_EXIT_AGAIN);
    CHECK(vcpu()->event == 0x80000b0d && rip() == 0x11004);
    close_vm();
}

/* >>cr */
static uint64_t mov_cr(unsigned cr, unsigned gpr)
{
    return cr | (uint64_t)gpr << 8;
}

/* A kernel's way: protection, PAE, LME, then paging; and back again. */
static void test_long_mode(void)
{
    uint64_t *f = fake.vcpu[0].vmcs;

    open_vm(32);
    f[0x6804] |= 0x20;
    CHECK_EQ(wrmsr(0xc0000080, 0x100), VMM_EXIT_AGAIN);
    CHECK_EQ(f[0x2806], 0x100);
    f[0x4822] = 0x83; /* a task of 16 bits */
    f[0x6802] = 0x12000;
    vcpu()->reg[HV_X86_RBP] = 0x80000011;
    CHECK_EQ(go(28, mov_cr(0, VMM_RBP), 3), VMM_EXIT_AGAIN);
    CHECK(f[0x6800] == 0x80000031 && f[0x6004] == 0x80000011 && f[0x2806] == 0x500);
    CHECK(f[0x4012] >> 9 & 1 && f[0x4822] == 0x8b && rip() == 0x11005);
    vcpu()->reg[HV_X86_RBP] = 0x11;
    CHECK_EQ(go(28, mov_cr(0, VMM_RBP), 3), VMM_EXIT_AGAIN);
    CHECK(f[0x6800] == 0x31 && f[0x2806] == 0x100 && !(f[0x4012] >> 9 & 1));
    vcpu()->reg[HV_X86_RBP] = 0x80000010;
    CHECK_EQ(go(28, mov_cr(0, VMM_RBP), 3), VMM_EXIT_AGAIN);
    CHECK(vcpu()->event == 0x80000b0d && f[0x6800] == 0x31 && rip() == 0x11008);
    close_vm();
}

/* Caches off and on, LMSW and CLTS; NE off in a guest that does not want it. */
static void test_cr0(void)
{
    uint64_t *f = fake.vcpu[0].vmcs;
    struct vmm_regs r;

    open_vm(32);
    vcpu()->reg[HV_X86_RAX] = 0x60000011;
    CHECK_EQ(go(28, mov_cr(0, VMM_RAX), 3), VMM_EXIT_AGAIN);
    CHECK(f[0x6800] == 0x31 && f[0x6004] == 0x60000011);
    CHECK_EQ(hyp_get_regs(&c, &r), 0);
    CHECK_EQ(r.cr0, 0x60000011);
    CHECK_EQ(go(28, 3u << 4 | 0xfffeull << 16, 3), VMM_EXIT_AGAIN); /* PE stays */
    CHECK(f[0x6800] == 0x3f && f[0x6004] == 0x6000001f);
    CHECK_EQ(go(28, 2u << 4, 2), VMM_EXIT_AGAIN);
    CHECK_EQ(f[0x6800], 0x37);
    CHECK_EQ(rip(), 0x11008);
    close_vm();
}

static void test_other_crs(void)
{
    uint64_t *f = fake.vcpu[0].vmcs;

    open_vm(64);
    vcpu()->reg[HV_X86_R8] = 0x2020;
    CHECK_EQ(go(28, mov_cr(4, VMM_R8), 3), VMM_EXIT_AGAIN); /* VMXE */
    CHECK(vcpu()->event == 0x80000b0d && f[0x6804] == 0x2020 && rip() == 0x11000);
    vcpu()->reg[HV_X86_R8] = 0x6a0;
    CHECK_EQ(go(28, mov_cr(4, VMM_R8), 3), VMM_EXIT_AGAIN);
    CHECK(f[0x6804] == 0x26a0 && f[0x6006] == 0x6a0);
    vcpu()->reg[HV_X86_R8] = 1ull << 63 | 0x12000;
    CHECK_EQ(go(28, mov_cr(3, VMM_R8), 3), VMM_EXIT_AGAIN);
    CHECK_EQ(f[0x6802], 0x12000);
    CHECK_EQ(go(28, 1u << 4 | mov_cr(3, VMM_RSP), 3), VMM_EXIT_AGAIN);
    CHECK_EQ(vcpu()->reg[HV_X86_RSP], 0x12000);
    vcpu()->reg[HV_X86_RDI] = 9;
    CHECK_EQ(go(28, mov_cr(8, VMM_RDI), 3), VMM_EXIT_AGAIN);
    CHECK(hyp_cr8(&c) == 9 && next.entered == 1); /* the caller looks at once */
    hyp_set_cr8(&c, 4);
    CHECK_EQ(go(28, 1u << 4 | mov_cr(8, VMM_RSI), 3), VMM_EXIT_AGAIN);
    CHECK_EQ(vcpu()->reg[HV_X86_RSI], 4);
    vcpu()->reg[HV_X86_RDI] = 16;
    CHECK_EQ(go(28, mov_cr(8, VMM_RDI), 3), VMM_EXIT_AGAIN);
    CHECK_EQ(vcpu()->event, 0x80000b0d);
    CHECK_EQ(go(28, mov_cr(5, VMM_RDI), 3), VMM_EXIT_FAULT);
    close_vm();
}

static void test_xsetbv(void)
{
    open_vm(64);
    vcpu()->reg[HV_X86_RAX] = 3;
    CHECK_EQ(go(55, 0, 3), VMM_EXIT_AGAIN);
    CHECK(vcpu()->reg[HV_X86_XCR0] == 3 && rip() == 0x11003 && c.xcr0 == 3);
    vcpu()->reg[HV_X86_RAX] = 0x1b; /* MPX */
    CHECK_EQ(go(55, 0, 3), VMM_EXIT_AGAIN);
    CHECK(vcpu()->event == 0x80000b0d && vcpu()->reg[HV_X86_XCR0] == 3);
    vcpu()->reg[HV_X86_RAX] = 3;
    vcpu()->reg[HV_X86_RCX] = 1;
    CHECK_EQ(go(55, 0, 3), VMM_EXIT_AGAIN);
    CHECK(vcpu()->event == 0x80000b0d && rip() == 0x11003);
    close_vm();
}

static void test_odd_exits(void)
{
    static const uint32_t undefined[] = {17, 18, 22, 27, 36, 39, 50, 53, 58, 59};
    static const uint32_t nothing[] = {13, 40, 54};
    uint64_t at;

    open_vm(64);
    for (unsigned i = 0; i < sizeof undefined / sizeof undefined[0]; i++) {
        CHECK_EQ(go(undefined[i], 0, 3), VMM_EXIT_AGAIN);
        CHECK(vcpu()->event == 0x80000306 && rip() == 0x11000);
    }
    CHECK_EQ(go(15, 0, 2), VMM_EXIT_AGAIN);
    CHECK_EQ(vcpu()->event, 0x80000b0d);
    for (unsigned i = 0; i < sizeof nothing / sizeof nothing[0]; i++) {
        at = rip();
        CHECK_EQ(go(nothing[i], 0, 2), VMM_EXIT_AGAIN);
        CHECK(!vcpu()->event && rip() == at + 2);
    }
    CHECK_EQ(go(2, 0, 0), VMM_EXIT_SHUTDOWN);
    CHECK_EQ(go(9, 0x40000018, 0), VMM_EXIT_FAULT);
    CHECK(strstr(e.why, "switches tasks") && e.code == 0x40000018);
    CHECK_EQ(go(49, 0, 0), VMM_EXIT_FAULT);
    CHECK_EQ(e.code, 49);
    CHECK_EQ(go(0x80000021, 0, 0), VMM_EXIT_FAULT);
    CHECK(strstr(e.why, "refuses the state") && e.code == 0x80000021);
    CHECK_EQ(go_exception(0x80000202, 0, 0), VMM_EXIT_AGAIN); /* the host's NMI */
    CHECK_EQ(go_exception(0x80000312, 0, 0), VMM_EXIT_FAULT);
    fake.run_ret = HV_UNSUPPORTED;
    CHECK_EQ(hyp_run(&c, &e), -ENOTSUP);
    CHECK(strstr(said, "cannot run"));
    fake.run_ret = 0;
    close_vm();
}

/* There are no error codes in real mode; a stepped instruction leaves its exception behind. */
static void test_details(void)
{
    struct vmm_regs r = flat(32);

    open_vm(32);
    r.cr0 = 0x10;
    CHECK_EQ(hyp_set_regs(&c, &r), 0);
    CHECK_EQ(go(15, 0, 2), VMM_EXIT_AGAIN);
    CHECK_EQ(vcpu()->event, 0x8000030d);
    vcpu()->reg[HV_X86_RFLAGS] |= 0x100;
    CHECK_EQ(go(54, 0, 2), VMM_EXIT_AGAIN);
    CHECK_EQ(vcpu()->vmcs[0x6822], 1 << 14);
    close_vm();
}

/* >>inject */
static void set_flags(uint64_t rflags, uint64_t blocked)
{
    vcpu()->reg[HV_X86_RFLAGS] = rflags;
    vcpu()->vmcs[0x4824] = blocked;
    (void)go(1, 0, 0); /* the backend sees it */
}

static void test_interrupts(void)
{
    open_vm(64);
    CHECK(!hyp_ready(&c));
    CHECK_EQ(hyp_inject(&c, 0x30), -EBUSY);
    CHECK(strstr(said, "cannot take interrupt 48"));
    set_flags(0x202, 1);
    CHECK(!hyp_ready(&c));
    set_flags(0x202, 2);
    CHECK(!hyp_ready(&c));
    set_flags(0x202, 8);
    CHECK(hyp_ready(&c));
    set_flags(0x202, 0);
    CHECK_EQ(hyp_inject(&c, 0x30), 0);
    CHECK(!hyp_ready(&c));
    CHECK_EQ(go(1, 0, 0), VMM_EXIT_AGAIN);
    CHECK_EQ(next.event, 0x80000030);
    CHECK(!vcpu()->event && hyp_ready(&c)); /* once */
    CHECK_EQ(hyp_inject(&c, 0x31), 0);
    hyp_kick(&c);
    next.entered = 0;
    CHECK_EQ(run(), VMM_EXIT_AGAIN);
    CHECK(!next.entered && !hyp_ready(&c)); /* not yet */
    CHECK_EQ(hyp_uninject(&c), 0);
    CHECK(hyp_ready(&c));
    CHECK_EQ(go(1, 0, 0), VMM_EXIT_AGAIN);
    CHECK_EQ(next.event, 0);
    close_vm();
}

/* The framework came back before it entered the guest: the event is still due, once. */
static void test_not_entered(void)
{
    open_vm(64);
    set_flags(0x202, 0);
    CHECK_EQ(hyp_inject(&c, 0x30), 0);
    fake.stays_out = true;
    CHECK_EQ(hvf__run(&c, &e), HVF__GO_ON);
    fake.stays_out = false;
    CHECK(!hyp_ready(&c));
    CHECK_EQ(go(1, 0, 0), VMM_EXIT_AGAIN);
    CHECK(next.event == 0x80000030 && !vcpu()->event);
    close_vm();
}

static void test_window(void)
{
    const uint64_t bit = 4;

    open_vm(64);
    hyp_want_window(&c, true);
    CHECK_EQ(go(1, 0, 0), VMM_EXIT_AGAIN);
    CHECK(vcpu()->vmcs[0x4002] & bit);
    vcpu()->reg[HV_X86_RFLAGS] = 0x202;
    next.entered = 0;
    CHECK_EQ(go(7, 0, 0), VMM_EXIT_AGAIN);
    CHECK_EQ(next.entered, 1);
    CHECK(hyp_ready(&c));
    CHECK_EQ(run(), VMM_EXIT_AGAIN); /* it could be taken now */
    CHECK_EQ(next.entered, 1);
    CHECK_EQ(hyp_inject(&c, 0x40), 0);
    hyp_want_window(&c, false);
    CHECK_EQ(go(1, 0, 0), VMM_EXIT_AGAIN);
    CHECK(next.event == 0x80000040 && !(vcpu()->vmcs[0x4002] & bit));
    close_vm();
}

static void test_nmi(void)
{
    const uint64_t bit = 1u << 22;

    open_vm(64);
    set_flags(0x202, 8); /* within the handler of one */
    CHECK_EQ(hyp_inject_nmi(&c), 0);
    CHECK(hyp_ready(&c));
    CHECK_EQ(go(1, 0, 0), VMM_EXIT_AGAIN);
    CHECK(!next.event && vcpu()->vmcs[0x4002] & bit);
    vcpu()->vmcs[0x4824] = 0; /* IRET */
    CHECK_EQ(go(8, 0, 0), VMM_EXIT_AGAIN);
    CHECK_EQ(vcpu()->event, 0x80000202);
    CHECK(!(vcpu()->vmcs[0x4002] & bit));
    CHECK_EQ(hyp_inject(&c, 0x40), 0);
    CHECK_EQ(hyp_inject_nmi(&c), 0); /* the interrupt is under way */
    CHECK_EQ(go(1, 0, 0), VMM_EXIT_AGAIN);
    CHECK_EQ(next.event, 0x80000040);
    CHECK_EQ(vcpu()->event, 0x80000202);
    hyp_inject_nmi(&c);
    CHECK(!hyp_ready(&c)); /* it comes first */
    CHECK_EQ(hyp_uninject(&c), 0);
    CHECK(hyp_ready(&c));
    close_vm();
}

/* Delivery was interrupted: the next entry gets the event again, before anything else. */
static void test_again(void)
{
    static const struct {
        uint32_t vectoring, error, len, event;
    } cases[] = {{0x80000030, 0, 0, 0x80000030},
                 {0x80001b0e, 6, 0, 0x80000b0e},
                 {0x80000480, 0, 2, 0x80000480},
                 {0x80000603, 0, 1, 0x80000603},
                 {0x80000202, 0, 0, 0x80000202}};

    open_vm(64);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vcpu()->reg[HV_X86_RFLAGS] = 0x202;
        vcpu()->vmcs[0x4824] = cases[i].vectoring == 0x80000202 ? 8 : 0;
        memset(&next, 0, sizeof next);
        next.reason = 48;
        next.gpa = 0x10000; /* of RAM */
        next.qualification = 0x182;
        next.vectoring = cases[i].vectoring;
        next.error = cases[i].error;
        next.len = cases[i].len;
        CHECK_EQ(run(), VMM_EXIT_AGAIN);
        CHECK_EQ(next.entered, 2);
        CHECK_EQ(vcpu()->event, cases[i].event);
        if (cases[i].error)
            CHECK_EQ(vcpu()->event_error, cases[i].error);
        if (cases[i].len)
            CHECK_EQ(vcpu()->event_len, cases[i].len);
    }
    close_vm();
}

/* IRET came out after it had unblocked NMIs. */
static void test_iret(void)
{
    open_vm(64);
    CHECK_EQ(violate(0x1181, 0x10000), VMM_EXIT_AGAIN);
    CHECK_EQ(vcpu()->vmcs[0x4824], 8);
    close_vm();
}

/* >>kicks */
static void *kicker(void *arg)
{
    const struct timespec some = {.tv_nsec = 3000000};

    (void)arg;
    nanosleep(&some, NULL);
    hyp_kick(&c);
    return NULL;
}

/* >>debug */
static void wants(struct vmm_debug d)
{
    CHECK_EQ(hyp_debug(&c, &d), 0);
}

static void test_steps(void)
{
    open_vm(64);
    go(12, 0, 1);
    hyp_inject_nmi(&c); /* and nothing before it */
    wants((struct vmm_debug){.step = true});
    CHECK_EQ(go(37, 0, 0), VMM_EXIT_DEBUG);
    CHECK(e.code == VMM_DEBUG_STEP && e.addr == rip() && next.event == 0);
    CHECK((vcpu()->vmcs[0x4002] >> 27 & 1) && !(vcpu()->vmcs[0x4002] >> 22 & 1));
    CHECK_EQ(vcpu()->reg[HV_X86_RFLAGS], 2);
    CHECK_EQ(vcpu()->vmcs[0x4004], 1u << 18);
    /* what is carried out here is a step, too: CPUID, OUT, IN, a store to a device */
    CHECK_EQ(go(10, 0, 2), VMM_EXIT_DEBUG);
    CHECK(e.code == VMM_DEBUG_STEP && e.addr == 0x11003 && next.entered == 1);
    CHECK_EQ(go(30, 0x80u << 16, 2), VMM_EXIT_PIO);
    CHECK(run() == VMM_EXIT_DEBUG && e.code == VMM_DEBUG_STEP && next.entered == 1);
    CHECK_EQ(go(30, 0x80u << 16 | 8, 2), VMM_EXIT_PIO);
    CHECK(run() == VMM_EXIT_DEBUG && e.addr == 0x11007 && next.entered == 1);
    code("\0\0\0\0\0\0\0\x88\x03", 9);
    vcpu()->reg[HV_X86_RBX] = 0x180000;
    memset(&next, 0, sizeof next);
    next.gpa = 0x180000;
    CHECK_EQ((next.reason = 48, next.qualification = 0x182, run()), VMM_EXIT_MMIO);
    CHECK(run() == VMM_EXIT_DEBUG && e.addr == 0x11009 && next.entered == 1);
    /* not by itself: an event is delivered, the time is over */
    CHECK_EQ(go(52, 0, 0), VMM_EXIT_AGAIN);
    wants((struct vmm_debug){0});
    CHECK(go(52, 0, 0) == VMM_EXIT_AGAIN && next.event == 0x80000202);
    CHECK(!(vcpu()->vmcs[0x4002] >> 27 & 1));
    close_vm();
}

static void test_traps(void)
{
    open_vm(64);
    wants((struct vmm_debug){.traps = true});
    CHECK_EQ(vcpu()->vmcs[0x4004], 1u << 18 | 1u << 3);
    CHECK_EQ(go_exception(0x80000603, 0, 1), VMM_EXIT_DEBUG);
    CHECK(e.code == VMM_DEBUG_TRAP && e.addr == 0x11000);
    CHECK(go(52, 0, 0) == VMM_EXIT_AGAIN && next.event == 0); /* the debugger's */
    CHECK_EQ(go_exception(0x80000603, 0, 1), VMM_EXIT_DEBUG);
    CHECK_EQ(hyp_debug_pass(&c), 0);
    CHECK(!hyp_ready(&c));
    CHECK(go(52, 0, 0) == VMM_EXIT_AGAIN && next.event == 0x80000603 && vcpu()->event_len == 1);
    CHECK_EQ(vcpu()->reg[HV_X86_DR6], 0);
    close_vm();
}

static void test_slots(void)
{
    uint64_t *reg, *f;

    open_vm(64);
    reg = vcpu()->reg;
    f = vcpu()->vmcs;
    reg[HV_X86_DR0] = 0x1234; /* the guest's */
    f[0x681a] = 0x401;
    wants((struct vmm_debug){
        .slot = {[1] = {0x6000, 4, VMM_BREAK_WRITE}, [2] = {0x7000, 1, VMM_BREAK_EXEC}}});
    CHECK_EQ(f[0x4004], 1u << 18 | 1u << 1);
    CHECK(reg[HV_X86_DR0] == 0 && reg[HV_X86_DR1] == 0x6000 && reg[HV_X86_DR2] == 0x7000);
    CHECK_EQ(f[0x681a], 0xd00428);
    CHECK_EQ(go_exception(0x80000301, 0x2, 0), VMM_EXIT_DEBUG);
    CHECK(e.code == 2 && e.addr == 0x11000);
    CHECK_EQ(go_exception(0x80000301, 0x4001, 0), VMM_EXIT_DEBUG); /* a slot that is not in use */
    CHECK_EQ(e.code, 0);
    CHECK_EQ(hyp_debug_pass(&c), 0);
    reg[HV_X86_DR3] = 0x5678; /* the guest writes two */
    f[0x681a] = 0x440;
    CHECK(go(52, 0, 0) == VMM_EXIT_AGAIN && next.event == 0x80000301);
    CHECK(reg[HV_X86_DR6] == 0x4001 && reg[HV_X86_DR3] == 0 && f[0x681a] == 0xd00428);
    CHECK_EQ(go_exception(0x80000501, 0, 1), VMM_EXIT_DEBUG); /* INT1 */
    CHECK(e.code == 0 && hyp_debug_pass(&c) == 0);
    CHECK(go(52, 0, 0) == VMM_EXIT_AGAIN && next.event == 0x80000501);
    /* a step over a store to a slot tells both, and leaves the guest's own */
    wants((struct vmm_debug){.step = true, .slot = {[1] = {0x6000, 4, VMM_BREAK_WRITE}}});
    memset(&next, 0, sizeof next);
    next.reason = 37;
    next.pending = 0x5002;
    CHECK_EQ(run(), VMM_EXIT_DEBUG);
    CHECK(e.code == (VMM_DEBUG_STEP | 2) && f[0x6822] == 0x4000);
    f[0x6822] = 0;
    wants((struct vmm_debug){0});
    CHECK(reg[HV_X86_DR0] == 0x1234 && reg[HV_X86_DR1] == 0 && reg[HV_X86_DR3] == 0x5678);
    CHECK(f[0x681a] == 0x440 && f[0x4004] == 1u << 18);
    CHECK_EQ(go(37, 0, 0), VMM_EXIT_AGAIN); /* nobody asked */
    CHECK(reg[HV_X86_DR0] == 0x1234 && f[0x681a] == 0x440);
    close_vm();
}

static void test_kicks(void)
{
    pthread_t thread;

    open_vm(64);
    fake.guest = NULL;
    hyp_kick(&c); /* before the run: it does not begin */
    CHECK_EQ(run(), VMM_EXIT_AGAIN);
    CHECK_EQ(vcpu()->runs, 0);
    CHECK_EQ(pthread_create(&thread, NULL, kicker, NULL), 0);
    CHECK_EQ(run(), VMM_EXIT_AGAIN);
    pthread_join(thread, NULL);
    CHECK(vcpu()->runs >= 1);
    close_vm();
}

/* The kick comes between the look at the flag and the run: the framework may lose it. */
static void test_lost_kick(void)
{
    open_vm(64);
    fake.guest = NULL;
    hyp_kick(&c);
    CHECK_EQ(hvf__run(&c, &e), HVF__GO_ON); /* seen in time, and not forgotten */
    CHECK(!vcpu()->runs && c.kicked);
    c.kicked = false;
    CHECK_EQ(hvf__run(&c, &e), HVF__GO_ON); /* nobody kicks: its time is over */
    CHECK_EQ(vcpu()->vmcs[0x4402], 52);
    CHECK_EQ(vcpu()->runs, 1);
    close_vm();
}

int main(void)
{
    test_qualifications();
    test_rules();
    test_open_fails();
    test_cpu_fails();
    test_memory();
    test_controls();
    test_fewer_controls();
    test_registers();
    test_modes();
    test_pae();
    test_fpu();
    test_ports();
    test_strings();
    test_mmio();
    test_violations();
    test_emulated_fault();
    test_cpuid();
    test_tsc();
    test_msrs();
    test_callers_msrs();
    test_long_mode();
    test_cr0();
    test_other_crs();
    test_xsetbv();
    test_odd_exits();
    test_details();
    test_interrupts();
    test_not_entered();
    test_window();
    test_nmi();
    test_again();
    test_iret();
    test_steps();
    test_traps();
    test_slots();
    test_kicks();
    test_lost_kick();
    CHECK_DONE("test_hvf_x86");
}
