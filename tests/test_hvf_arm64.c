/* test_hvf_arm64.c - hv_hvf.h's arm64 half over a framework that plays a script    MIT licence, see LICENSE

   Syndromes, registers and numbers are written out here once more, from DDI 0487, DEN 0022 and
   Apple's documentation. */
#define _GNU_SOURCE
#define HV_HVF_IMPLEMENTATION
static void *fake_symbol(const char *name);
#define HVF_SYMBOL fake_symbol
#include "../hv_hvf.h"
#include "hvf_fake.h"
#include "check.h"
#include <stdarg.h>

static char said[512];

static void hear(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    (void)ctx, (void)level;
    vsnprintf(said, sizeof said, fmt, args);
}

static const struct vmm_log log_ = {hear, NULL, VMM_LOG_ERROR};
static const struct vmm_gic at = {0x8000000, 0x4000000, 0x8080000, 0x8010000, 0x8020000};
static _Alignas(16384) uint8_t ram[65536];

static struct hyp h;
static struct hyp_cpu c;
static struct vmm_exit e;

/* >>script: exits in order, each with what the guest must look like when it is entered for it, and
   what it changes before it leaves. The last cancels the run by a kick. */
struct step {
    uint32_t reason;
    uint64_t esr, ipa;
    int set; /* a register that the guest has set, or -1 */
    uint64_t val;
    int seen; /* one that must have a value then, or -1 */
    uint64_t want;
};

static const struct step *script;
static unsigned nscript, played;

static void play(hv_vcpu_t id, struct fake_vcpu *v)
{
    const struct step *s = &script[played];

    (void)id;
    if (played == nscript) {
        hyp_kick(&c); /* to itself: the next run does not begin */
        v->exit.reason = HV_EXIT_REASON_CANCELED;
        return;
    }
    played++;
    if (s->seen >= 0 && !CHECK_EQ(v->reg[s->seen], s->want))
        fprintf(stderr, "  step %u, register %d\n", played, s->seen);
    if (s->set >= 0)
        v->reg[s->set] = s->val;
    v->exit.reason = s->reason;
    v->exit.exception.syndrome = s->esr;
    v->exit.exception.physical_address = s->ipa;
}

#define PLAY(steps) (script = (steps), nscript = sizeof(steps) / sizeof(steps)[0], played = 0)

static void open_vm(unsigned ncpus, bool gic)
{
    struct hyp_desc d = {.log = &log_, .ncpus = ncpus, .gic = &at};

    fake.has_gic = gic;
    fake.guest = play;
    fake.now = 1000000;
    nscript = played = 0;
    CHECK_EQ(hyp_open(&h, &d), 0);
    CHECK_EQ(hyp_map(&h, 0x40000000, sizeof ram, ram, VMM_READ | VMM_WRITE | VMM_EXEC), 0);
    CHECK_EQ(hyp_cpu_open(&c, &h, 0), 0);
    fake.vcpu[c.vcpu].reg[HV_REG_PC] = 0x1000;
}

static void close_vm(void)
{
    hyp_cpu_close(&c);
    hyp_close(&h);
    CHECK(!fake.vm && !fake.objects);
    fake.now = 0;
}

static struct fake_vcpu *vcpu(void)
{
    return &fake.vcpu[c.vcpu];
}

/* >>pure */
static void test_decode(void)
{
    static const struct {
        uint32_t iss;
        enum hvf_abort kind;
        struct hvf_access a;
    } cases[] = {
        {1u << 24 | 2u << 22 | 3u << 16 | 1u << 6 | 7,
         HVF_ABORT_ACCESS,
         {9, 4, 3, true, false, false}},
        {1u << 24 | 0u << 22 | 31u << 16 | 6, HVF_ABORT_ACCESS, {9, 1, 31, false, false, false}},
        {1u << 24 | 3u << 22 | 1u << 15 | 13, HVF_ABORT_ACCESS, {9, 8, 0, false, false, true}},
        {1u << 24 | 1u << 22 | 1u << 21 | 1u << 15 | 9,
         HVF_ABORT_ACCESS,
         {9, 2, 0, false, true, true}},
        {1u << 8 | 1u << 6 | 7, HVF_ABORT_CACHE, {0}},
        {1u << 24 | 1u << 7 | 7, HVF_ABORT_WALK, {0}},
        {7, HVF_ABORT_ODD, {0}},
        {1u << 24 | 0x10, HVF_ABORT_OTHER, {0}}, /* external abort */
        {1u << 24 | 0x21, HVF_ABORT_OTHER, {0}}, /* alignment */
        {1u << 24, HVF_ABORT_OTHER, {0}},
    };

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hvf_access a = {0};
        const struct hvf_access *w = &cases[i].a;
        CHECK_EQ(hvf__decode_abort(0x24ull << 26 | 1u << 25 | cases[i].iss, 9, &a), cases[i].kind);
        if (cases[i].kind == HVF_ABORT_ACCESS)
            CHECK(a.ipa == 9 && a.size == w->size && a.reg == w->reg && a.write == w->write &&
                  a.sign == w->sign && a.wide == w->wide);
    }
}

static void test_loads(void)
{
    struct hvf_access byte = {.size = 1, .sign = true},
                      half = {.size = 2, .sign = true, .wide = true},
                      word = {.size = 4, .wide = true}, all = {.size = 8, .wide = true};

    CHECK_EQ(hvf__loaded(&byte, 0x180), 0xffffff80);
    CHECK_EQ(hvf__loaded(&byte, 0x7f), 0x7f);
    CHECK_EQ(hvf__loaded(&half, 0x18000), 0xffffffffffff8000);
    CHECK_EQ(hvf__loaded(&word, ~0ull), 0xffffffff);
    CHECK_EQ(hvf__loaded(&all, ~0ull), ~0ull);
}

#define ISS(op0, op1, crn, crm, op2, read)                                                         \
    ((op0) << 20 | (op2) << 17 | (op1) << 14 | (crn) << 10 | (crm) << 1 | (read))

static void test_sysregs(void)
{
    static const struct {
        uint32_t iss;
        bool known;
        uint64_t val;
    } cases[] = {
        {ISS(2, 0, 1, 0, 4, 0), true, 0},   /* OSLAR: locks */
        {ISS(2, 0, 1, 1, 4, 1), true, 0xa}, /* OSLSR: locked */
        {ISS(2, 0, 1, 0, 4, 1), false, 0},  /* OSLAR cannot be read */
        {ISS(2, 0, 1, 1, 4, 0), false, 0},  /* nor OSLSR be written */
        {ISS(2, 0, 1, 3, 4, 1), true, 0},   /* OSDLR */
        {ISS(2, 0, 0, 2, 0, 0), true, 0},   /* MDCCINT */
        {ISS(3, 0, 10, 4, 3, 0), true, 0},  /* LORC */
        {ISS(3, 3, 9, 12, 0, 1), true, 0},  /* PMCR_EL0 */
        {ISS(3, 3, 9, 13, 0, 1), true, 0},  /* PMCCNTR_EL0 */
        {ISS(3, 3, 9, 14, 0, 0), true, 0},  /* PMUSERENR_EL0 */
        {ISS(3, 0, 9, 14, 1, 0), true, 0},  /* PMINTENSET_EL1 */
        {ISS(3, 3, 14, 15, 7, 0), true, 0}, /* PMCCFILTR_EL0 */
        {ISS(3, 3, 14, 8, 0, 1), true, 0},  /* PMEVCNTR0_EL0 */
        {ISS(3, 3, 14, 0, 1, 1), true, 77}, /* CNTPCT_EL0 */
        {ISS(3, 3, 14, 0, 1, 0), false, 0},  {ISS(3, 3, 14, 2, 1, 0), true, 0}, /* CNTP_CTL_EL0 */
        {ISS(3, 0, 0, 7, 3, 1), true, 0}, /* an ID register of the future */
        {ISS(3, 0, 0, 7, 3, 0), false, 0},   {ISS(3, 0, 0, 0, 1, 1), false, 0},
        {ISS(3, 0, 12, 12, 0, 1), false, 0}, /* ICC_IAR1_EL1 */
        {ISS(3, 0, 12, 12, 5, 1), false, 0}, /* ICC_SRE_EL1 */
        {ISS(3, 0, 4, 6, 0, 0), false, 0},   /* ICC_PMR_EL1 */
        {ISS(3, 3, 13, 0, 5, 1), false, 0},  /* TPIDR2_EL0 */
    };
    bool lock = false;

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t val = 1;
        if (!CHECK_EQ(hvf__sysreg(cases[i].iss, &lock, 77, &val), cases[i].known))
            fprintf(stderr, "  case %u\n", i);
        if (cases[i].known && cases[i].iss & 1)
            CHECK_EQ(val, cases[i].val);
    }
    CHECK(lock);
}

/* Of three CPUs, of which CPU 1 is off and CPU 2 about to start. */
static void test_psci(void)
{
    static const struct {
        uint64_t x[4];
        int64_t ret;
        enum hvf_call call;
    } cases[] = {
        {{0x84000000}, 0x10001, HVF_CALL_RETURN},
        {{0xffffffff84000000}, 0x10001, HVF_CALL_RETURN}, /* w0 alone counts */
        {{0xc4000000}, -1, HVF_CALL_RETURN},
        {{0x84000001}, 0, HVF_CALL_SUSPEND},
        {{0xc4000001}, 0, HVF_CALL_SUSPEND},
        {{0xc4000003, 7, 0x1000, 5}, -2, HVF_CALL_RETURN},
        {{0xc4000003, 0x100, 0x1000, 5}, -2, HVF_CALL_RETURN},
        {{0xc4000003, 0, 0x1000, 5}, -4, HVF_CALL_RETURN},
        {{0xc4000003, 2, 0x1000, 5}, -5, HVF_CALL_RETURN},
        {{0xc4000003, 0x80000001, 0x1000, 5}, 0, HVF_CALL_START}, /* bits that are no affinity */
        {{0xc4000003, 1, 0x1000, 5}, -5, HVF_CALL_RETURN},
        {{0xc4000004, 0, 0}, 0, HVF_CALL_RETURN},
        {{0xc4000004, 1, 0}, 2, HVF_CALL_RETURN},
        {{0x84000004, 0xff00000000, 0}, 0, HVF_CALL_RETURN}, /* 32 bits */
        {{0xc4000004, 0, 1}, -2, HVF_CALL_RETURN},
        {{0xc4000004, 3, 0}, -2, HVF_CALL_RETURN},
        {{0x84000006}, 2, HVF_CALL_RETURN},
        {{0x8400000a, 0x84000002}, 0, HVF_CALL_RETURN},
        {{0x8400000a, 0xc4000003}, 0, HVF_CALL_RETURN},
        {{0x8400000a, 0x80000000}, 0, HVF_CALL_RETURN},
        {{0x8400000a, 0xc4000002}, -1, HVF_CALL_RETURN},
        {{0x8400000a, 0x84000012}, -1, HVF_CALL_RETURN},
        {{0x8400000a, 0x84000005}, -1, HVF_CALL_RETURN},
        {{0x84000012}, -1, HVF_CALL_RETURN},
        {{0x80000000}, 0x10001, HVF_CALL_RETURN},
        {{0x80000001, 0x80000000}, 0, HVF_CALL_RETURN},
        {{0x80000001, 0x80000001}, 0, HVF_CALL_RETURN},
        {{0x80000001, 0x80008000}, -1, HVF_CALL_RETURN},
        {{0x84000050}, -1, HVF_CALL_RETURN},
        {{0x8600ff01}, -1, HVF_CALL_RETURN},
        {{0}, -1, HVF_CALL_RETURN},
        {{0x84000008}, 0, HVF_CALL_OFF},
        {{0x84000009}, 0, HVF_CALL_RESET},
        {{0x84000002}, 0, HVF_CALL_STOP},
    };
    struct hvf_power p[3] = {{HVF_ON, 0, 0}, {HVF_OFF, 0, 0}, {HVF_STARTING, 0, 0}};

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t ret;
        CHECK_EQ(hvf__smccc(p, 3, 0, cases[i].x, &ret), cases[i].call);
        if (!CHECK_EQ(ret, cases[i].ret))
            fprintf(stderr, "  case %u\n", i);
    }
    CHECK(p[0].state == HVF_OFF && p[1].state == HVF_STARTING && p[1].entry == 0x1000 &&
          p[1].context == 5);
    CHECK_EQ(hvf__mpidr(17), 0x101);
}

static void test_timer(void)
{
    struct hyp t = {.numer = 125, .denom = 3};

    CHECK(hvf__timer_fires(5) && !hvf__timer_fires(7) && !hvf__timer_fires(1) &&
          !hvf__timer_fires(4));
    CHECK_EQ(hvf__timer_left(1, 100, 40), 60);
    CHECK_EQ(hvf__timer_left(5, 100, 140), 0);
    CHECK_EQ(hvf__timer_left(3, 100, 40), UINT64_MAX);
    CHECK_EQ(hvf__timer_left(0, 100, 40), UINT64_MAX);
    CHECK_EQ(hvf__ticks_ns(&t, 24), 1000);
    CHECK_EQ(hvf__ticks_ns(&t, UINT64_MAX), 1000000000);
}

/* >>open */
static void test_open_fails(void)
{
    static const struct {
        uint32_t ret;
        int err;
        const char *says;
    } cases[] = {
        {0xfae94007, -EACCES, "sign it: 'codesign"}, {0xfae9400f, -ENOTSUP, "kern.hv_support"},
        {0xfae94006, -ENOTSUP, "kern.hv_support"},   {0xfae94002, -EBUSY, "has a VM already"},
        {0xfae94005, -ENOMEM, "0xfae94005"},         {0xfae94001, -EIO, "0xfae94001"}};
    struct hyp_desc d = {.log = &log_};

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
    d.features_need = HYP_FEATURE_SVE;
    CHECK_EQ(hyp_open(&h, &d), -ENOTSUP);
    CHECK(strstr(said, "no SVE"));
}

static void test_addresses(void)
{
    static const struct {
        unsigned want, bits, created; /* 0: as the host likes it */
    } cases[] = {{0, 36, 0}, {36, 36, 0}, {38, 38, 38}, {48, 42, 42}};

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hyp_desc d = {.log = &log_, .gpa_bits = cases[i].want};
        CHECK_EQ(hyp_open(&h, &d), 0);
        CHECK_EQ(hyp_gpa_bits(&h), cases[i].bits);
        CHECK_EQ(fake.created_bits, cases[i].created);
        CHECK_EQ(hyp_caps(&h), HYP_CAP_DEBUG);
        hyp_close(&h);
    }
    CHECK_EQ(fake.objects, 0);
}

static void test_memory(void)
{
    open_vm(1, false);
    CHECK_EQ(hyp_map(&h, 0x1000, 4096, ram, VMM_READ), -EINVAL);
    CHECK(strstr(said, "multiples of 16 KiB"));
    CHECK_EQ(hyp_map(&h, 0x40000000, 16384, ram, VMM_READ), -EINVAL); /* there is some */
    CHECK_EQ(hyp_window_map(&h, 0x10000000, 16384, ram, VMM_READ), 0);
    CHECK_EQ(fake.map[1].flags, 1);
    CHECK_EQ(hyp_window_map(&h, 0x10000000, 4096, ram, VMM_READ), -EINVAL);
    CHECK_EQ(hyp_window_unmap(&h, 0x10004000, 16384), -ENOENT);
    CHECK_EQ(hyp_window_unmap(&h, 0x10000000, 16384), 0);
    CHECK_EQ(hyp_irq_bell(&h, 0, 0, true), -ENOSYS);
    CHECK_EQ(hyp_msi_line(&h, 0), -ENOSYS);
    close_vm();
}

static void test_cpu_open(void)
{
    struct hyp_cpu other;

    open_vm(4, false);
    CHECK_EQ(vcpu()->sys[HV_SYS_REG_MPIDR_EL1], 0x80000000);
    CHECK_EQ(vcpu()->sys[HV_SYS_REG_ID_AA64PFR0_EL1] >> 24 & 15, 0);
    CHECK_EQ(vcpu()->sys[HV_SYS_REG_ID_AA64PFR1_EL1], 0x21);
    CHECK_EQ(vcpu()->sys[HV_SYS_REG_ID_AA64DFR0_EL1], 0x10305019);
    CHECK_EQ(vcpu()->reg[HV_REG_CPSR], 0x3c5);
    CHECK_EQ(vcpu()->sys[HV_SYS_REG_SCTLR_EL1] & 0x1005, 0);
    CHECK_EQ(vcpu()->offset, 1000000);
    CHECK_EQ(hyp_cpu_open(&other, &h, 4), -EINVAL);
    close_vm();
    fake.cpu_ret = HV_NO_RESOURCES;
    struct hyp_desc d = {.log = &log_};
    CHECK_EQ(hyp_open(&h, &d), 0);
    CHECK_EQ(hyp_cpu_open(&c, &h, 0), -ENOMEM);
    fake.cpu_ret = 0;
    hyp_close(&h);
}

static void test_registers(void)
{
    struct vmm_regs r, s;

    open_vm(1, false);
    memset(&r, 0, sizeof r);
    for (unsigned i = 0; i < sizeof r / 8; i++)
        ((uint64_t *)(void *)&r)[i] = 0x1000 + i;
    CHECK_EQ(hyp_set_regs(&c, &r), 0);
    CHECK_EQ(hyp_get_regs(&c, &s), 0);
    CHECK(memcmp(&r, &s, sizeof r) == 0);
    CHECK_EQ(vcpu()->reg[HV_REG_PC], r.pc);
    CHECK_EQ(vcpu()->reg[30], r.x[30]);
    CHECK_EQ(vcpu()->sys[HV_SYS_REG_SP_EL1], r.sp_el1);
    close_vm();
}

/* >>run */
#define DABT(iss) (0x24ull << 26 | 1u << 25 | (iss))
enum { EXC = 1, VTIMER = 2, UNKNOWN = 3, PC = HV_REG_PC };

static void run(enum vmm_exit_kind kind)
{
    CHECK_EQ(hyp_run(&c, &e), 0);
    if (!CHECK_EQ(e.kind, kind) && e.kind == VMM_EXIT_FAULT)
        fprintf(stderr, "  %s\n", e.why);
}

static void test_mmio(void)
{
    static const struct step steps[] = {
        {EXC, DABT(1u << 24 | 2u << 22 | 3u << 16 | 1u << 6 | 7), 0x9000000, 3, 0x1122334455667788,
         PC, 0x1000},
        {EXC, DABT(1u << 24 | 2u << 22 | 31u << 16 | 1u << 6 | 7), 0x9000000, -1, 0, PC, 0x1004},
        {EXC, DABT(1u << 24 | 0u << 22 | 1u << 21 | 4u << 16 | 7), 0x9000001, 4, ~0ull, PC, 0x1008},
        {EXC, DABT(1u << 24 | 2u << 22 | 31u << 16 | 7), 0x9000004, -1, 0, 4, 0xffffff81},
        {EXC, DABT(1u << 8 | 1u << 6 | 7), 0x9000004, -1, 0, PC, 0x1010}, /* cache maintenance */
        {EXC, DABT(1u << 24 | 2u << 22 | 5u << 16 | 7), 0x9000004, -1, 0, PC, 0x1014},
        {0, 0, 0, -1, 0, 5, 0xa5a5a5a5},
    };

    open_vm(1, false);
    PLAY(steps);
    run(VMM_EXIT_MMIO);
    CHECK(e.write && e.size == 4 && e.count == 1 && e.addr == 0x9000000);
    CHECK_EQ(vmm_get64(e.data), 0x55667788);
    run(VMM_EXIT_MMIO);
    CHECK_EQ(vmm_get64(e.data), 0); /* WZR */
    run(VMM_EXIT_MMIO);
    CHECK(!e.write && e.size == 1 && e.addr == 0x9000001);
    e.data[0] = 0x81;
    run(VMM_EXIT_MMIO); /* into XZR */
    vmm_put32(e.data, 7);
    run(VMM_EXIT_MMIO);
    vmm_put32(e.data, 0xa5a5a5a5);
    run(VMM_EXIT_AGAIN);
    CHECK_EQ(played, 7);
    CHECK_EQ(vcpu()->reg[PC], 0x1018);
    close_vm();
}

static void test_faults(void)
{
    static const struct {
        uint32_t reason;
        uint64_t esr;
        const char *why;
        uint64_t code;
    } cases[] = {{EXC, DABT(7), "cannot be emulated", 0x9000000},
                 {EXC, DABT(1u << 24 | 1u << 7 | 7), "page tables", 0x9000000},
                 {EXC, DABT(1u << 24 | 0x10), "failed with syndrome", DABT(1u << 24 | 0x10)},
                 {EXC, 0x20ull << 26, "does not know", 0x20ull << 26},
                 {UNKNOWN, 0, "gave up", 3},
                 {99, 0, "gave up", 99}};

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct step s[] = {{cases[i].reason, cases[i].esr, 0x9000000, -1, 0, -1, 0}};
        open_vm(1, false);
        vcpu()->reg[PC] = 0x40000010;
        memcpy(ram + 16, "0123456789abcdef", 16);
        PLAY(s);
        run(VMM_EXIT_FAULT);
        CHECK(strstr(e.why, cases[i].why) && e.code == cases[i].code);
        CHECK(e.size == 16 && memcmp(e.data, "0123456789abcdef", 16) == 0);
        close_vm();
    }
    open_vm(1, false);
    fake.run_ret = HV_ERROR;
    CHECK_EQ(hyp_run(&c, &e), -EIO);
    CHECK(strstr(said, "the guest cannot run"));
    fake.run_ret = 0;
    close_vm();
}

/* PC is behind an HVC and at an SMC; registers of the caller's stay. */
static void test_calls(void)
{
    static const struct step steps[] = {
        {EXC, 0x16ull << 26, 0, 0, 0x84000000, PC, 0x1000},
        {EXC, 0x17ull << 26, 0, 0, 0x84000006, 0, 0x10001},
        {EXC, 0x16ull << 26, 0, 0, 0x1234, 0, 2},
        {EXC, 0x16ull << 26, 0, 0, 0x84000008, 0, ~0ull},
    };
    static const struct step reset[] = {{EXC, 0x17ull << 26, 0, 0, 0x84000009, -1, 0}};

    open_vm(1, false);
    PLAY(steps);
    run(VMM_EXIT_OFF);
    CHECK_EQ(vcpu()->reg[PC], 0x1004);
    PLAY(reset);
    run(VMM_EXIT_RESET);
    close_vm();
}

static void test_sysreg_traps(void)
{
    static const struct step steps[] = {
        {EXC, 0x18ull << 26 | ISS(2, 0, 1, 0, 4, 0) | 3u << 5, 0, 3, 1, PC, 0x1000},
        {EXC, 0x18ull << 26 | ISS(2, 0, 1, 1, 4, 1) | 4u << 5, 0, 4, 99, PC, 0x1004},
        {EXC, 0x18ull << 26 | ISS(2, 0, 1, 0, 4, 0) | 31u << 5, 0, -1, 0, 4, 0xa},
        {EXC, 0x18ull << 26 | ISS(2, 0, 1, 1, 4, 1) | 4u << 5, 0, -1, 0, PC, 0x100c},
        {EXC, 0x18ull << 26 | ISS(3, 3, 9, 12, 0, 1) | 31u << 5, 0, -1, 0, 4, 8},
        {EXC, 0x18ull << 26 | ISS(3, 0, 12, 12, 0, 1) | 4u << 5, 0, HV_REG_CPSR, 0x60000005, PC,
         0x1014},
        {EXC, 0x18ull << 26 | ISS(3, 0, 12, 12, 0, 1), 0, HV_REG_CPSR, 0, PC, 0xf0200},
        {EXC, 0x18ull << 26 | ISS(3, 0, 12, 12, 0, 1), 0, HV_REG_CPSR, 4, PC, 0xf0400},
        {0, 0, 0, -1, 0, PC, 0xf0000},
    };

    open_vm(1, false);
    vcpu()->sys[HV_SYS_REG_VBAR_EL1] = 0xf0000;
    PLAY(steps);
    run(VMM_EXIT_AGAIN);
    CHECK_EQ(played, 9);
    CHECK_EQ(vcpu()->reg[HV_REG_CPSR], 0x3c5);
    CHECK_EQ(vcpu()->sys[HV_SYS_REG_SPSR_EL1], 4);
    CHECK_EQ(vcpu()->sys[HV_SYS_REG_ELR_EL1], 0xf0400);
    CHECK_EQ(vcpu()->sys[HV_SYS_REG_ESR_EL1], 0x02000000);
    close_vm();
}

/* The timer fires, and is masked; when the guest has set it anew, it is low and told again. */
static void test_vtimer(void)
{
    static const struct step fires[] = {{VTIMER, 0, 0, -1, 0, -1, 0}};
    static const struct step access[] = {
        {EXC, DABT(1u << 24 | 2u << 22 | 1u << 6 | 7), 0x9000000, -1, 0, -1, 0},
        {EXC, DABT(1u << 24 | 2u << 22 | 1u << 6 | 7), 0x9000000, -1, 0, -1, 0}};

    open_vm(1, false);
    vcpu()->sys[HV_SYS_REG_CNTV_CTL_EL0] = 1;
    vcpu()->sys[HV_SYS_REG_CNTV_CVAL_EL0] = 500;
    fake.now = 1000000 + 600;
    PLAY(fires);
    run(VMM_EXIT_AGAIN);
    CHECK_EQ(hyp_cpu_ppis(&c), 1u << 27);
    CHECK(vcpu()->masked);
    PLAY(access);
    run(VMM_EXIT_MMIO);
    CHECK_EQ(hyp_cpu_ppis(&c), 1u << 27); /* as long as it fires */
    CHECK(vcpu()->masked);
    vcpu()->sys[HV_SYS_REG_CNTV_CVAL_EL0] = 5000;
    run(VMM_EXIT_MMIO);
    CHECK_EQ(hyp_cpu_ppis(&c), 0); /* before this access is carried out */
    CHECK(!vcpu()->masked);
    close_vm();
}

/* Inputs hold for one run, and are set before each. */
static void test_lines(void)
{
    static const struct step again[] = {{0, 0, 0, -1, 0, -1, 0}};

    open_vm(1, false);
    PLAY(again);
    run(VMM_EXIT_AGAIN);
    CHECK(!vcpu()->seen[0] && !vcpu()->seen[1]);
    hyp_cpu_lines(&h, 0, 1);
    PLAY(again);
    run(VMM_EXIT_AGAIN);
    CHECK(vcpu()->seen[0] && !vcpu()->seen[1]);
    hyp_cpu_lines(&h, 0, 2);
    PLAY(again);
    run(VMM_EXIT_AGAIN);
    CHECK(!vcpu()->seen[0] && vcpu()->seen[1]);
    hyp_cpu_lines(&h, 0, 0);
    PLAY(again);
    run(VMM_EXIT_AGAIN);
    CHECK(!vcpu()->seen[0] && !vcpu()->seen[1]);
    hyp_cpu_lines(&h, 1, 1); /* one that does not exist yet */
    close_vm();
}

static void test_wfi_timer(void)
{
    static const struct step wfi[] = {{EXC, 0x01ull << 26, 0, -1, 0, PC, 0x1000}};
    struct timespec from, to;

    open_vm(1, false);
    fake.now = 0; /* real time */
    vcpu()->offset = h.offset = mach_absolute_time();
    vcpu()->sys[HV_SYS_REG_CNTV_CTL_EL0] = 1;
    vcpu()->sys[HV_SYS_REG_CNTV_CVAL_EL0] = 24000 * 30;
    PLAY(wfi);
    clock_gettime(CLOCK_MONOTONIC, &from);
    run(VMM_EXIT_AGAIN);
    clock_gettime(CLOCK_MONOTONIC, &to);
    CHECK_EQ(vcpu()->runs, 1);
    CHECK((to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000 >= 25);
    CHECK_EQ(hyp_cpu_ppis(&c), 1u << 27);
    CHECK(vcpu()->masked && c.idle);
    CHECK_EQ(vcpu()->reg[PC], 0x1004);
    hyp_cpu_lines(&h, 0, 1); /* the interrupt controller says: interrupt */
    run(VMM_EXIT_AGAIN);     /* the guest goes on, and the script ends it */
    CHECK_EQ(vcpu()->runs, 2);
    CHECK(vcpu()->seen[0] && !c.idle);
    close_vm();
}

/* A raise by another thread ends WFI, a kick comes out of it, and neither is lost. */
static void *raise_later(void *ctx)
{
    struct timespec ms = {.tv_nsec = 20000000};

    nanosleep(&ms, NULL);
    if (ctx)
        hyp_kick(&c);
    else
        hyp_cpu_lines(&h, 0, 1);
    return NULL;
}

static void test_wfi_wakes(void)
{
    static const struct step wfi[] = {{EXC, 0x01ull << 26, 0, -1, 0, -1, 0}};
    static const struct step wfe[] = {{EXC, 0x01ull << 26 | 1, 0, -1, 0, PC, 0x1000},
                                      {EXC, 0x01ull << 26 | 2, 0, -1, 0, PC, 0x1004}};
    pthread_t t;

    open_vm(1, false);
    PLAY(wfi);
    CHECK_EQ(pthread_create(&t, NULL, raise_later, NULL), 0);
    run(VMM_EXIT_AGAIN);
    pthread_join(t, NULL);
    CHECK(vcpu()->seen[0]);
    CHECK_EQ(vcpu()->runs, 2);
    hyp_cpu_lines(&h, 0, 0);
    PLAY(wfi);
    CHECK_EQ(pthread_create(&t, NULL, raise_later, &h), 0);
    run(VMM_EXIT_AGAIN);
    pthread_join(t, NULL);
    CHECK(c.idle);
    hyp_kick(&c); /* before the run */
    run(VMM_EXIT_AGAIN);
    CHECK_EQ(vcpu()->runs, 4); /* the script had cancelled one */
    c.idle = false;
    fake.guest = NULL; /* a run that lasts until it is cancelled */
    CHECK_EQ(pthread_create(&t, NULL, raise_later, &h), 0);
    run(VMM_EXIT_AGAIN);
    pthread_join(t, NULL);
    fake.guest = play;
    vcpu()->reg[PC] = 0x1000;
    PLAY(wfe);
    run(VMM_EXIT_AGAIN); /* these do not sleep */
    CHECK_EQ(played, 2);
    close_vm();
}

/* CPU 1, on its thread: waits for CPU_ON, runs there, goes off and is started once more. */
static struct hyp_cpu second;
static unsigned starts;
static uint64_t started_x0, started_pc;

static void both(hv_vcpu_t id, struct fake_vcpu *v)
{
    struct timespec ms = {.tv_nsec = 1000000};

    v->exit.reason = HV_EXIT_REASON_EXCEPTION;
    v->exit.exception.syndrome = 0x16ull << 26;
    if (id == second.vcpu) {
        started_x0 = v->reg[0];
        started_pc = v->reg[PC];
        CHECK_EQ(v->reg[HV_REG_CPSR], 0x3c5);
        __atomic_add_fetch(&starts, 1, __ATOMIC_SEQ_CST);
        v->reg[0] = 0x84000002; /* CPU_OFF */
        return;
    }
    if (v->reg[0] == 0x84000003 || v->reg[0] == 1) { /* ask until it is off */
        nanosleep(&ms, NULL);
    }
    v->reg[2] = 0;
    v->reg[3] = 0;
    v->reg[1] = 1;
    v->reg[0] = 0xc4000004;
}

static void *second_main(void *ctx)
{
    struct vmm_exit x;

    (void)ctx;
    CHECK_EQ(hyp_cpu_open(&second, &h, 1), 0);
    __atomic_store_n(&second.insn[0], 1, __ATOMIC_SEQ_CST); /* tells that it is there */
    CHECK_EQ(hyp_run(&second, &x), 0);                      /* until it is kicked */
    CHECK_EQ(x.kind, VMM_EXIT_AGAIN);
    hyp_cpu_close(&second);
    return NULL;
}

/* What CPU 0's call brings, without running it. */
static int64_t call(uint64_t fn, uint64_t x1, uint64_t x2, uint64_t x3)
{
    const uint64_t x[] = {fn, x1, x2, x3};

    for (unsigned i = 0; i < 4; i++)
        vcpu()->reg[i] = x[i];
    hvf__exit_call(&c, &e);
    return (int64_t)vcpu()->reg[0];
}

static void await_starts(unsigned n)
{
    struct timespec ms = {.tv_nsec = 1000000};

    for (unsigned i = 0; i < 5000 && __atomic_load_n(&starts, __ATOMIC_SEQ_CST) < n; i++)
        nanosleep(&ms, NULL);
    for (unsigned i = 0; i < 5000 && call(0xc4000004, 1, 0, 0) != 1; i++)
        nanosleep(&ms, NULL);
    CHECK_EQ(__atomic_load_n(&starts, __ATOMIC_SEQ_CST), n);
}

static void test_second_cpu(void)
{
    struct timespec ms = {.tv_nsec = 1000000};
    pthread_t t;

    open_vm(2, false);
    fake.guest = both;
    CHECK_EQ(pthread_create(&t, NULL, second_main, NULL), 0);
    while (!__atomic_load_n(&second.insn[0], __ATOMIC_SEQ_CST))
        nanosleep(&ms, NULL);
    CHECK_EQ(fake.vcpu[second.vcpu].sys[HV_SYS_REG_MPIDR_EL1], 0x80000001);
    CHECK_EQ(fake.vcpu[second.vcpu].offset, vcpu()->offset);
    CHECK_EQ(call(0xc4000004, 1, 0, 0), 1);
    CHECK_EQ(call(0xc4000003, 1, 0x40001000, 77), 0);
    await_starts(1);
    CHECK(started_x0 == 77 && started_pc == 0x40001000);
    CHECK_EQ(call(0xc4000003, 1, 0x40002000, 78), 0);
    await_starts(2);
    CHECK(started_x0 == 78 && started_pc == 0x40002000);
    hyp_kick(&second);
    pthread_join(t, NULL);
    close_vm();
}

/* macOS' own GIC: its places, lines and messages; it has the timer and WFI. */
static void test_system_gic(void)
{
    static const struct step steps[] = {{EXC, 0x01ull << 26, 0, -1, 0, -1, 0},
                                        {VTIMER, 0, 0, -1, 0, PC, 0x1004},
                                        {0, 0, 0, -1, 0, -1, 0}};

    open_vm(1, true);
    CHECK_EQ(hyp_caps(&h), HYP_CAP_IRQCHIP | HYP_CAP_GICV3 | HYP_CAP_DEBUG);
    CHECK(fake.gic && fake.gic_at[0] == at.dist && fake.gic_at[1] == at.redist &&
          fake.gic_at[2] == at.v2m && fake.msi[0] == 96 && fake.msi[1] == 256);
    CHECK_EQ(vcpu()->sys[HV_SYS_REG_ID_AA64PFR0_EL1] >> 24 & 15, 1);
    hyp_irq_set(&h, 5, true);
    CHECK(fake.spi == 37 && fake.spi_level && fake.spis == 1);
    hyp_irq_set(&h, HYP_GSIS + 3, true);
    hyp_irq_set(&h, HYP_GSIS + 3, false);
    hyp_irq_set(&h, HYP_GSIS + 256, true);
    CHECK(fake.message == 99 && fake.messages == 1 && fake.spis == 1);
    PLAY(steps);
    run(VMM_EXIT_AGAIN);
    CHECK_EQ(played, 3);
    CHECK(!c.idle && hyp_cpu_ppis(&c) == 0);
    close_vm();
}

/* >>debug: the guest's registers are lent to a debugger, and it gets them back as it believes them to
   be. */
static void test_debug_registers(void)
{
    static const struct step steps[] = {
        {EXC, 0x18ull << 26 | 3 << 5 | ISS(2, 0, 0, 0, 5, 0), 0, 3, 0x1e7, -1,
         0}, /* DBGBCR0 = x3 */
        {EXC, 0x18ull << 26 | 4 << 5 | ISS(2, 0, 0, 0, 5, 1), 0, -1, 0, PC, 0x1004}, /* x4 = it */
        {EXC, 0x18ull << 26 | 5 << 5 | ISS(2, 0, 0, 2, 2, 1), 0, -1, 0, 4, 0x1e7},   /* MDSCR */
        {EXC, 0x18ull << 26 | 31 << 5 | ISS(2, 0, 0, 2, 2, 0), 0, -1, 0, 5, 0x2000}};
    const struct vmm_debug want = {.slot = {{0x1000, 1, VMM_BREAK_EXEC},
                                            {0},
                                            {0x2004, 4, VMM_BREAK_WRITE},
                                            {0x3000, 1, VMM_BREAK_EXEC}}},
                           nothing = {0};
    unsigned breaks = 0, watches = 0;
    uint64_t *sys;

    open_vm(1, false);
    sys = vcpu()->sys;
    hyp_debug_slots(&h, &breaks, &watches);
    CHECK(breaks == 6 && watches == 4);
    CHECK_EQ(hyp_debug(&c, &nothing), 0);
    CHECK(!vcpu()->trap_debug);
    sys[HV_SYS_REG_DBGBVR0_EL1] = 0x77;
    sys[HV_SYS_REG_MDSCR_EL1] = 0x2000;
    CHECK_EQ(hyp_debug(&c, &want), 0);
    CHECK(vcpu()->trap_debug && vcpu()->trap_debug_regs);
    CHECK(sys[HV_SYS_REG_DBGBVR0_EL1] == 0x1000 && sys[HV_SYS_REG_DBGBCR0_EL1] == 0x1e7);
    CHECK(sys[HV_SYS_REG_DBGBVR1_EL1] == 0x3000 && sys[HV_SYS_REG_DBGBVR1_EL1 + 8] == 0);
    CHECK(sys[HV_SYS_REG_DBGWVR0_EL1] == 0x2000 && sys[HV_SYS_REG_DBGWCR0_EL1] == 0x1e17);
    CHECK_EQ(sys[HV_SYS_REG_MDSCR_EL1], 0xa000);
    PLAY(steps);
    run(VMM_EXIT_AGAIN);
    CHECK_EQ(sys[HV_SYS_REG_DBGBCR0_EL1], 0x1e7);
    CHECK_EQ(hyp_debug(&c, &nothing), 0);
    CHECK(!vcpu()->trap_debug && !vcpu()->trap_debug_regs);
    CHECK(sys[HV_SYS_REG_DBGBVR0_EL1] == 0x77 && sys[HV_SYS_REG_DBGBCR0_EL1] == 0x1e7);
    CHECK(sys[HV_SYS_REG_DBGBVR1_EL1] == 0 && sys[HV_SYS_REG_DBGWCR0_EL1] == 0);
    CHECK_EQ(sys[HV_SYS_REG_MDSCR_EL1], 0);
    close_vm();
}

/* What comes out, and a breakpoint of the guest's own, which it gets. */
static void test_debug_exits(void)
{
    static const struct step steps[] = {{EXC, 0x30ull << 26 | 0x22, 0, -1, 0, -1, 0},
                                        {EXC, 0xf2000800, 0, -1, 0, -1, 0},
                                        {EXC, 0x32ull << 26 | 0x22, 0, -1, 0, PC, 0x8200}};
    const struct vmm_debug want = {.slot = {{0x1000, 1, VMM_BREAK_EXEC}}, .traps = true},
                           traps = {.traps = true};

    open_vm(1, false);
    CHECK_EQ(hyp_debug(&c, &traps), 0);
    CHECK(vcpu()->trap_debug &&
          !vcpu()->trap_debug_regs); /* its own breakpoints may do their work */
    vcpu()->sys[HV_SYS_REG_VBAR_EL1] = 0x8000;
    CHECK_EQ(hyp_debug(&c, &want), 0);
    PLAY(steps);
    run(VMM_EXIT_DEBUG);
    CHECK(e.addr == 0x1000 && e.code == 1);
    run(VMM_EXIT_DEBUG);
    CHECK_EQ(e.code, VMM_DEBUG_TRAP);
    CHECK_EQ(hyp_debug_pass(&c), 0);
    CHECK(vcpu()->reg[PC] == 0x8200 && vcpu()->sys[HV_SYS_REG_ELR_EL1] == 0x1000);
    CHECK_EQ(vcpu()->sys[HV_SYS_REG_ESR_EL1], 0xf2000800);
    run(VMM_EXIT_DEBUG);
    CHECK_EQ(e.code, 0); /* nobody asked for a step */
    close_vm();
}

/* A step that the processor takes, and ones whose instruction is carried out here. */
static void test_debug_steps(void)
{
    static const struct step steps[] = {
        {EXC, 0x32ull << 26 | 0x22, 0, PC, 0x1004, HV_REG_CPSR, 0x2003c5},
        {EXC, DABT(1u << 24 | 2u << 22 | 5u << 16 | 7), 0x9000000, -1, 0, -1, 0},
        {EXC, 0x01ull << 26 | 1, 0, -1, 0, PC, 0x1008},
        {EXC, 0x16ull << 26, 0, 0, 0x84000000, PC, 0x100c}};
    const struct vmm_debug want = {.step = true}, nothing = {0};

    open_vm(1, false);
    CHECK_EQ(hyp_debug(&c, &want), 0);
    CHECK_EQ(vcpu()->sys[HV_SYS_REG_MDSCR_EL1], 1);
    PLAY(steps);
    run(VMM_EXIT_DEBUG);
    CHECK(e.addr == 0x1004 && e.code == VMM_DEBUG_STEP);
    run(VMM_EXIT_MMIO);
    CHECK(e.size == 4 && !e.write);
    vmm_put32(e.data, 0x55);
    for (unsigned i = 0; i < 3; i++) {
        run(VMM_EXIT_DEBUG);
        CHECK(e.code == VMM_DEBUG_STEP && e.addr == (i == 0 ? 0x1008 : 0x100c));
    }
    CHECK(vcpu()->reg[5] == 0x55 && vcpu()->reg[0] == 0x10001);
    CHECK_EQ(hyp_debug(&c, &nothing), 0);
    CHECK_EQ(vcpu()->reg[HV_REG_CPSR], 0x3c5);
    close_vm();
}

static void test_fpu(void)
{
    struct vmm_arm64_fpu in = {.fpsr = 1, .fpcr = 0x3000000}, out;

    in.v[31][15] = 0x5a;
    open_vm(1, false);
    CHECK_EQ(hyp_set_fpu(&c, &in), 0);
    CHECK(vcpu()->reg[HV_REG_FPCR] == 0x3000000 && vcpu()->simd[31][15] == 0x5a);
    CHECK_EQ(hyp_get_fpu(&c, &out), 0);
    CHECK(memcmp(&in, &out, sizeof in) == 0);
    close_vm();
}

int main(void)
{
    test_debug_registers();
    test_debug_exits();
    test_debug_steps();
    test_fpu();
    test_decode();
    test_loads();
    test_sysregs();
    test_psci();
    test_timer();
    test_open_fails();
    test_addresses();
    test_memory();
    test_cpu_open();
    test_registers();
    test_mmio();
    test_faults();
    test_calls();
    test_sysreg_traps();
    test_vtimer();
    test_lines();
    test_wfi_timer();
    test_wfi_wakes();
    test_second_cpu();
    test_system_gic();
    CHECK_DONE("test_hvf_arm64");
}
