/* fuzz_nvmm.c - any sequence of exits, with any registers and code, against hv_nvmm.h.
                                                                    MIT licence, see LICENSE
   The input: the version; then records of 64 bytes: what the caller does before it runs the guest (a
   byte of bits), which exit comes, the guest's state, and the exit's own bytes. Guest memory has the
   input, too: its code. */
#define _GNU_SOURCE
#include <sys/ioctl.h>
#include <sys/mman.h>

static int fuzz_ioctl(int fd, int request, ...);
static void *fuzz_mmap(void *at, size_t len, int prot, int flags, int fd, off_t off);
static int fuzz_munmap(void *at, size_t len);
#define ioctl   fuzz_ioctl
#define mmap    fuzz_mmap
#define munmap  fuzz_munmap
#define VMM_DEF static __attribute__((unused))
#define HV_NVMM_IMPLEMENTATION
#define HV_X86_IMPLEMENTATION
#define DEBUG_IMPLEMENTATION
#include "hv_nvmm.h"
#undef ioctl
#undef mmap
#undef munmap

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { RECORD = 64, RUNS_MAX = 16 };

static struct {
    unsigned version, runs;
    struct nvmm__comm comm;
    const uint8_t *record;
    uint8_t ram[32768] __attribute__((aligned(4096))), rom[4096] __attribute__((aligned(4096)));
} m;

/* No assert: it must hold in every build. */
static void must(bool held)
{
    if (!held)
        abort();
}

/* What NVMM's kernels would refuse, or suffer. */
static void check_event(const struct nvmm__exit *was)
{
    const struct nvmm__event *e = &m.comm.event;

    must(e->type <= 1);
    if (e->type == 0)
        must(e->vector != 0 && e->vector != 2 && e->vector != 3 && e->vector < 32);
    else if (e->vector != 2)
        must(was->state.rflags & 0x200 && !(was->state.intr & NVMM__SHADOW));
    must(!(was->state.intr & NVMM__PENDING));
}

static void bring(struct nvmm__exit *x)
{
    static const uint64_t reasons[] = {0,      1,      2,         0x1000, 0x1001, 0x1002,
                                       0x1003, 0x1004, 0x2000,    0x2001, 0x2002, 0x2003,
                                       0x2004, 0x3000, ~0ull - 1, ~0ull};
    const uint8_t *r = m.record;

    memset(x, 0, sizeof *x);
    x->reason = m.runs > RUNS_MAX ? 0 : reasons[r[1] & 15];
    memcpy(&x->u, r + 8, sizeof x->u);
    x->state.rflags = 2 | (r[2] & 1 ? 0x200 : 0);
    x->state.cr8 = r[2] >> 4;
    /* no instruction is carried out while an event is delivered */
    x->state.intr = r[3] & (x->reason == 2 || x->reason >> 12 == 2 ? 7 : 15);
    m.comm.cached = r[1] & 0x80 ? 0 : NVMM__REGS;
    for (unsigned i = 0; i < 8 && r[4] & 1; i++)
        m.comm.state.gpr[i] = vmm_get64(r + 40 + (i * 3) % 16);
    m.comm.state.gpr[NVMM__RIP] = vmm_get16(r + 56);
    m.comm.state.dr[NVMM__DR6] = vmm_get16(r + 58);
    m.comm.state.seg[NVMM__IDT].base = r[62] & 16 ? r[63] * 8u : 0;
    m.comm.state.seg[NVMM__IDT].limit = r[62] & 32 ? 63 : 0xffff;
    m.comm.state.seg[NVMM__GDT].limit = 0xffff;
    m.comm.state.gpr[NVMM__RFLAGS] = x->state.rflags | (r[4] & 2 ? 0x400 : 0);
    m.comm.state.cr[NVMM__CR0] = r[4] & 4 ? 0x80000011 : r[4] & 8 ? 0x11 : 0x10;
    m.comm.state.cr[NVMM__CR3] = r[5] & 0x70u << 8;
    m.comm.state.cr[NVMM__CR4] = r[6] & 0x30;
    m.comm.state.msr[NVMM__EFER] = r[4] & 16 ? 0x500 : 0;
    m.comm.state.seg[NVMM__CS].attrib = r[4] & 16 ? 0xa9b : r[4] & 32 ? 0xc9b : 0x9b;
    for (unsigned i = 0; i < 6; i++) {
        m.comm.state.seg[i].limit = r[7] & 1 ? 0xffff : 0xffffffff;
        if (i != NVMM__CS)
            m.comm.state.seg[i].attrib = r[7] & 2 ? 0xc93 : 0x93;
    }
}

static int run(struct nvmm__run *user)
{
    if (user->machid)
        return EINVAL;
    must(!(m.comm.commit & ~m.comm.cached & 0x7f));
    if (m.comm.event_commit)
        check_event(&user->exit);
    m.comm.event_commit = false;
    m.comm.commit = 0;
    m.runs++;
    bring(&user->exit);
    return 0;
}

static int answer(unsigned request, void *arg)
{
    bool v3 = m.version == 3;
    struct nvmm__cap cap = {.version = m.version,
                            .state_size = 1008,
                            .max_vcpus = 8,
                            .max_ram = 1ull << 37,
                            .md.vcpu_conf = 3};
    struct nvmm__cap3 cap3 = {.version = 3,
                              .state_size = 1008,
                              .comm_size = 4096,
                              .max_vcpus = 8,
                              .max_ram = 1ull << 37,
                              .md.vcpu_conf = 1};

    switch (_IOC_NR(request)) {
    case 0:
        if (_IOC_SIZE(request) != (v3 ? sizeof cap3 : sizeof cap))
            return EINVAL;
        memcpy(arg, v3 ? (void *)&cap3 : (void *)&cap, _IOC_SIZE(request));
        return 0;
    case 4:
        m.comm.cached = 0x7f;
        if (v3)
            ((struct nvmm__vcpu3 *)arg)->comm = &m.comm;
        return 0;
    case 8:
        m.comm.cached |= m.comm.wanted;
        m.comm.wanted = 0;
        return 0;
    case 10:
        return run(arg);
    default:
        return 0;
    }
}

static int fuzz_ioctl(int fd, int request, ...)
{
    va_list args;

    (void)fd;
    va_start(args, request);
    errno = answer((unsigned)request, va_arg(args, void *));
    va_end(args);
    return errno ? -1 : 0;
}

static void *fuzz_mmap(void *at, size_t len, int prot, int flags, int fd, off_t off)
{
    (void)at, (void)len, (void)prot, (void)flags, (void)fd, (void)off;
    return &m.comm;
}

static int fuzz_munmap(void *at, size_t len)
{
    (void)at, (void)len;
    return 0;
}

/* What vmm.c does between two runs. */
static void prepare(struct hyp_cpu *c, uint8_t what)
{
    struct vmm_x86_regs regs;

    if (what & 1 && hyp_ready(c))
        must(!hyp_inject(c, 0x40));
    if (what & 2)
        hyp_inject_nmi(c);
    hyp_want_window(c, what & 4);
    if (what & 8)
        hyp_set_cr8(c, what >> 4);
    if (what & 16)
        hyp_kick(c);
    if (what & 32 && !hyp_get_regs(c, &regs) && what & 64)
        must(!hyp_set_regs(c, &regs));
    if (what & 128)
        hyp_msr_refuse(c);
}

/* What a debugger wants, and that the guest gets what is its own. */
static void debug(struct hyp_cpu *c, const uint8_t *r, const struct vmm_exit *e)
{
    const struct vmm_debug d = {.slot = {[0] = {vmm_get16(r + 60), r[62] & 1, VMM_BREAK_WRITE}},
                                .step = r[62] & 2,
                                .traps = r[62] & 4};

    if (e->kind == VMM_EXIT_DEBUG && !e->code)
        must(!hyp_debug_pass(c));
    if (r[62] & 8)
        must(!hyp_debug(c, &d));
}

static void check_exit(struct vmm_exit *e)
{
    bool is_access = e->kind == VMM_EXIT_PIO || e->kind == VMM_EXIT_MMIO || e->kind == VMM_EXIT_MSR;

    must(e->kind <= VMM_EXIT_FAULT);
    must(e->kind != VMM_EXIT_FAULT || (e->why && e->data && e->size <= 15));
    if (!is_access)
        return;
    must(e->count == 1 && e->data &&
         (e->size == 1 || e->size == 2 || e->size == 4 || e->size == 8));
    if (!e->write)
        memset(e->data, 0xa5, e->size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct hyp_desc desc = {.path = "/dev/null", .ncpus = 2};
    struct vmm_exit e = {.kind = VMM_EXIT_AGAIN};
    static struct hyp h;
    static struct hyp_cpu c;

    memset(&m.comm, 0, sizeof m.comm);
    m.version = len ? data[0] % 3 + 1u : 1;
    for (size_t i = 0; i < sizeof m.ram; i++)
        m.ram[i] = len ? data[i % len] : 0;
    must(!hyp_open(&h, &desc));
    h.tsc_hz = 1000000000; /* not to be measured */
    must(!hyp_map(&h, 0, sizeof m.ram, m.ram, VMM_READ | VMM_WRITE));
    must(!hyp_map(&h, 0xf000, sizeof m.rom, m.rom, VMM_READ | VMM_EXEC));
    must(!hyp_cpu_open(&c, &h, 1));
    for (size_t at = 1; at + RECORD <= len; at += RECORD) {
        m.record = data + at;
        m.runs = 0;
        debug(&c, m.record, &e);
        prepare(&c, m.record[0]);
        must(!hyp_run(&c, &e));
        must(m.runs <= RUNS_MAX + 2);
        check_exit(&e);
    }
    hyp_cpu_close(&c);
    hyp_close(&h);
    return 0;
}
