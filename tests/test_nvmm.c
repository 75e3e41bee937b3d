/* test_nvmm.c - hv_nvmm.h against an NVMM that is played here by a script: what it refuses and why,
   each version's way, every exit, and races of events, windows and kicks. What it makes of real
   guests, shim_nvmm.c shows.  MIT licence, see LICENSE */
#define _GNU_SOURCE
#include <sys/ioctl.h>
#include <sys/mman.h>

static int fake_ioctl(int fd, int request, ...);
static void *fake_mmap(void *at, size_t len, int prot, int flags, int fd, off_t off);
static int fake_munmap(void *at, size_t len);
#define ioctl   fake_ioctl
#define mmap    fake_mmap
#define munmap  fake_munmap
#define VMM_DEF static __attribute__((unused))
#define HV_NVMM_IMPLEMENTATION
#define HV_X86_IMPLEMENTATION
#define DEBUG_IMPLEMENTATION
#include "hv_nvmm.h"
#undef ioctl
#undef mmap
#undef munmap

#include "check.h"
#include <stdlib.h>
#include <sys/wait.h>

/* >>fake */
enum { MACHID = 9, CONFS = 40 };

static struct {
    struct nvmm__cap cap;
    unsigned comm_size; /* of version 3 */
    unsigned fails;     /* number of the ioctl that fails, with this error */
    int err;
    bool mmap_fails;
    struct nvmm__comm comm;
    struct nvmm__exit exit; /* what the next run brings */
    void (*inside)(void);   /* while it runs */
    unsigned runs, gets;
    uint64_t got; /* parts that were asked for */
    uint64_t committed;
    struct nvmm__state given; /* with the last commit */
    bool injected;
    struct nvmm__event event;
    struct nvmm__conf_cpuid conf[CONFS];
    unsigned nconf, ntpr, destroyed, unmapped;
    struct nvmm__hva hva;
    struct nvmm__gpa gpa;
    off_t comm_off;
} nvmm;

static int fake_configure(const struct nvmm__configure *arg)
{
    if (arg->op == NVMM__CONF_TPR) {
        nvmm.ntpr++;
        return 0;
    }
    if (arg->op != NVMM__CONF_CPUID || nvmm.nconf == CONFS)
        return EINVAL;
    nvmm.conf[nvmm.nconf++] = *(const struct nvmm__conf_cpuid *)arg->conf;
    return 0;
}

static int fake_run(struct nvmm__run *user)
{
    struct nvmm__run arg = *user;

    nvmm.runs++;
    if (arg.machid != MACHID)
        return EINVAL;
    nvmm.committed = nvmm.comm.commit;
    nvmm.given = nvmm.comm.state;
    nvmm.injected = nvmm.comm.event_commit;
    nvmm.event = nvmm.comm.event;
    nvmm.comm.commit = nvmm.comm.cached = 0;
    nvmm.comm.event_commit = false;
    if (nvmm.inside)
        nvmm.inside();
    if (nvmm.exit.reason == NVMM__EXIT_IO || nvmm.exit.reason == NVMM__EXIT_MEMORY)
        nvmm.comm.cached = NVMM__REGS;
    if (nvmm.exit.reason == NVMM__EXIT_RDMSR || nvmm.exit.reason == NVMM__EXIT_WRMSR)
        nvmm.comm.cached = NVMM__GPRS;
    arg.exit = nvmm.exit;
    *user = arg; /* all of it */
    return 0;
}

static int fake_capability(void *arg, size_t size)
{
    struct nvmm__cap3 cap3 = {.version = nvmm.cap.version,
                              .state_size = nvmm.cap.state_size,
                              .comm_size = nvmm.comm_size,
                              .max_vcpus = nvmm.cap.max_vcpus,
                              .max_ram = nvmm.cap.max_ram,
                              .md = nvmm.cap.md};

    if (size != (nvmm.comm_size ? sizeof cap3 : sizeof nvmm.cap))
        return EINVAL;
    memcpy(arg, nvmm.comm_size ? (void *)&cap3 : (void *)&nvmm.cap, size);
    return 0;
}

static int fake_create_cpu(void *arg, size_t size)
{
    if (size != (nvmm.comm_size ? 16 : 8))
        return EINVAL;
    nvmm.comm.cached = 0x7f;
    if (size == 16)
        ((struct nvmm__vcpu3 *)arg)->comm = &nvmm.comm;
    return 0;
}

static int fake_get(void)
{
    nvmm.gets++;
    nvmm.got = nvmm.comm.wanted;
    nvmm.comm.cached |= nvmm.comm.wanted;
    nvmm.comm.wanted = 0;
    return 0;
}

static int fake_answer(unsigned request, void *arg)
{
    if (_IOC_TYPE(request) != 'N' || _IOC_NR(request) == nvmm.fails)
        return nvmm.err;
    switch (_IOC_NR(request)) {
    case 0:
        return fake_capability(arg, _IOC_SIZE(request));
    case 1:
        *(uint32_t *)arg = MACHID;
        return 0;
    case 4:
        return fake_create_cpu(arg, _IOC_SIZE(request));
    case 5:
        nvmm.destroyed++;
        return 0;
    case 6:
        return fake_configure(arg);
    case 8:
        return fake_get();
    case 10:
        return fake_run(arg);
    case 11:
        nvmm.gpa = *(struct nvmm__gpa *)arg;
        return 0;
    case 13:
        nvmm.hva = *(struct nvmm__hva *)arg;
        return 0;
    default:
        return 0;
    }
}

static int fake_ioctl(int fd, int request, ...)
{
    va_list args;

    (void)fd;
    va_start(args, request);
    errno = fake_answer((unsigned)request, va_arg(args, void *));
    va_end(args);
    return errno ? -1 : 0;
}

static void *fake_mmap(void *at, size_t len, int prot, int flags, int fd, off_t off)
{
    (void)at, (void)prot, (void)fd;
    nvmm.comm_off = off;
    errno = ENOMEM;
    return nvmm.mmap_fails || len != 4096 || flags != MAP_SHARED ? MAP_FAILED : &nvmm.comm;
}

static int fake_munmap(void *at, size_t len)
{
    nvmm.unmapped += at == &nvmm.comm ? (unsigned)len : 0;
    return 0;
}

/* >>tests */
static char said[512];
static unsigned nsaid;

static void hear(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    (void)ctx, (void)level;
    nsaid++;
    vsnprintf(said, sizeof said, fmt, args);
}

static const struct vmm_log log_here = {hear, NULL, VMM_LOG_ERROR};

static void healthy(unsigned version)
{
    memset(&nvmm, 0, sizeof nvmm);
    nvmm.cap = (struct nvmm__cap){.version = version,
                                  .state_size = 1008,
                                  .max_machines = 128,
                                  .max_vcpus = 128,
                                  .max_ram = 128ull << 30,
                                  .md = {.vcpu_conf = 1, .cpuid_ops = 32}};
    nvmm.comm_size = version == 3 ? 4096 : 0;
    nvmm.fails = ~0u;
    nsaid = 0;
    said[0] = 0;
}

static int open_with(struct hyp *h, const char *path, unsigned ncpus)
{
    struct hyp_desc desc = {.log = &log_here, .path = path, .ncpus = ncpus};

    nsaid = 0;
    said[0] = 0;
    return hyp_open(h, &desc);
}

static void check_refused(int err, int expected, const char *words)
{
    CHECK_EQ(err, expected);
    CHECK_EQ(nsaid, 1);
    if (!CHECK(strstr(said, words)))
        fprintf(stderr, "  said: %s\n", said);
}

static void test_refusals(void)
{
    struct hyp h;

    healthy(2);
    check_refused(open_with(&h, "/nonexistent/nvmm", 1), -ENOENT, "on Linux take the one for");
    CHECK_EQ(h.fd, -1);
    nvmm.fails = 0;
    nvmm.err = ENOTTY;
    check_refused(open_with(&h, "/dev/null", 1), -ENOTSUP, "is not an NVMM device");
    healthy(4);
    check_refused(open_with(&h, "/dev/null", 1), -ENOTSUP, "version 4");
    healthy(2);
    nvmm.cap.state_size = 1024;
    check_refused(open_with(&h, "/dev/null", 1), -ENOTSUP, "1024 bytes of state");
    healthy(3);
    nvmm.comm_size = 1024;
    check_refused(open_with(&h, "/dev/null", 1), -ENOTSUP, "version 3");
    healthy(1);
    nvmm.cap.md.vcpu_conf = 0;
    check_refused(open_with(&h, "/dev/null", 1), -ENOTSUP, "version 1");
    healthy(2);
    check_refused(open_with(&h, "/dev/null", 129), -E2BIG, "at most 128 CPUs in a VM, not 129");
    nvmm.fails = 1;
    nvmm.err = ENOBUFS;
    check_refused(open_with(&h, "/dev/null", 1), -ENOBUFS, "end one of the others");
    nvmm.err = EIO;
    check_refused(open_with(&h, "/dev/null", 1), -EIO, "cannot create a VM");
}

/* Who may not open it is told the group's name. Root may everything, so a child becomes nobody. */
static void test_permission(void)
{
    char path[] = "/tmp/vmm-test-nvmm-XXXXXX";
    int fd = mkstemp(path), status = 1;
    pid_t pid;

    if (!CHECK(fd >= 0 && fchmod(fd, 0) == 0))
        return;
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        struct hyp h;
        if (getuid() == 0 && setuid(65534))
            _exit(2);
        healthy(2);
        _exit(open_with(&h, path, 1) != -EACCES || !strstr(said, "to the group '"));
    }
    waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(fd);
    unlink(path);
}

/* Directions have other bits on Linux; the rest is as every system with NVMM has it. */
static void test_words(void)
{
    static const struct {
        unsigned long word;
        unsigned bsd;
    } words[] = {{NVMM__CAPABILITY, 0x40684e00},     {NVMM__CAPABILITY3, 0x40704e00},
                 {NVMM__MACHINE_CREATE, 0xc0044e01}, {NVMM__MACHINE_DESTROY, 0x80044e02},
                 {NVMM__VCPU_CREATE, 0x80084e04},    {NVMM__VCPU_CREATE3, 0xc0104e04},
                 {NVMM__VCPU_DESTROY, 0x80084e05},   {NVMM__VCPU_CONFIGURE, 0x80184e06},
                 {NVMM__VCPU_GETSTATE, 0x80084e08},  {NVMM__VCPU_RUN, 0xc0484e0a},
                 {NVMM__GPA_MAP, 0x80284e0b},        {NVMM__HVA_MAP, 0x80204e0d}};

    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++) {
        unsigned in = words[i].bsd >> 31, out = words[i].bsd >> 30 & 1;
        CHECK_EQ(words[i].word & 0x3fffffff, words[i].bsd & 0x3fffffff);
        CHECK_EQ(_IOC_DIR(words[i].word), (in ? _IOC_WRITE : 0) | (out ? _IOC_READ : 0));
    }
}

static uint8_t ram[65536] __attribute__((aligned(4096))), rom[4096] __attribute__((aligned(4096)));

static void test_memory(void)
{
    struct hyp h;

    healthy(2);
    CHECK_EQ(open_with(&h, "/dev/null", 1), 0);
    CHECK_EQ(hyp_caps(&h), HYP_CAP_DEBUG);
    CHECK(hyp_gpa_bits(&h) >= 36);
    CHECK_EQ(hyp_map(&h, 0x10000, sizeof ram, ram, VMM_READ | VMM_WRITE), 0);
    CHECK(nvmm.hva.machid == MACHID && nvmm.hva.hva == (uintptr_t)ram && nvmm.hva.flags == 0);
    CHECK(nvmm.hva.size == sizeof ram && nvmm.gpa.size == sizeof ram && nvmm.gpa.prot == 7);
    CHECK(nvmm.gpa.gpa == 0x10000 && nvmm.gpa.hva == (uintptr_t)ram && nvmm.gpa.machid == MACHID);
    CHECK_EQ(hyp_map(&h, 0x40000, sizeof rom, rom, VMM_READ | VMM_EXEC), 0);
    CHECK(nvmm.gpa.prot == 5 && h.rom.nranges == 1 && h.ram.nranges == 1);
    check_refused(hyp_map(&h, (128ull << 30) - 4096, 8192, ram, VMM_READ), -ENOSPC,
                  "the first 128 GiB");
    check_refused((nsaid = 0, hyp_map(&h, 1ull << 63, 1ull << 63, ram, VMM_READ)), -ENOSPC, "less");
    for (unsigned nr = 11; nr <= 13; nr += 2) {
        nvmm.fails = nr;
        nvmm.err = EEXIST;
        nsaid = 0;
        check_refused(hyp_map(&h, 0, 4096, rom, VMM_READ | VMM_WRITE), -EEXIST, "refuses 0 MiB");
    }
    hyp_close(&h);
}

static void open_both(struct hyp *h, struct hyp_cpu *c, unsigned version)
{
    healthy(version);
    nvmm.cap.md.vcpu_conf = version == 1 ? 3 : 1;
    CHECK_EQ(open_with(h, "/dev/null", 4), 0);
    CHECK_EQ(hyp_map(h, 0, sizeof ram, ram, VMM_READ | VMM_WRITE), 0);
    CHECK_EQ(hyp_map(h, 0x40000, sizeof rom, rom, VMM_READ | VMM_EXEC), 0);
    CHECK_EQ(hyp_cpu_open(c, h, 3), 0);
    nvmm.exit.state.rflags = 0x202;
}

static void close_both(struct hyp *h, struct hyp_cpu *c)
{
    hyp_cpu_close(c);
    hyp_close(h);
}

static void test_cpu(unsigned version)
{
    struct hyp h;
    struct hyp_cpu c;

    open_both(&h, &c, version);
    CHECK_EQ(nvmm.comm_off, version == 3 ? 0 : MACHID << 20 | 3 << 12);
    CHECK_EQ(nvmm.ntpr, version == 1);
    close_both(&h, &c);
    CHECK(nvmm.destroyed == 1 && nvmm.unmapped == 4096);
    healthy(version);
    CHECK_EQ(open_with(&h, "/dev/null", 1), 0);
    nvmm.err = EBUSY;
    for (nvmm.fails = 4; nvmm.fails <= 6; nvmm.fails += 2) {
        nsaid = 0;
        CHECK(hyp_cpu_open(&c, &h, 0) == -EBUSY && nsaid == 1);
        CHECK_EQ(nvmm.destroyed, nvmm.fails == 6); /* what was created goes again */
    }
    nvmm.mmap_fails = true;
    nvmm.fails = ~0u;
    CHECK_EQ(hyp_cpu_open(&c, &h, 0), version == 3 ? 0 : -ENOMEM);
    close_both(&h, &c);
}

static const struct nvmm__conf_cpuid *leaf(uint32_t number)
{
    for (unsigned i = 0; i < nvmm.nconf; i++)
        if (nvmm.conf[i].leaf == number)
            return &nvmm.conf[i];
    return NULL;
}

/* What x86_cpuid makes of a leaf, NVMM is told to make of it. */
static void test_cpuid(void)
{
    struct hyp h;
    struct hyp_cpu c;
    struct x86_cpuid_desc d = {
        .ncpus = 4, .id = 3, .lapic_hz = 1000000000, .x2apic = true, .tsc_deadline = true};

    open_both(&h, &c, 2);
    d.tsc_hz = h.tsc_hz;
    CHECK(h.tsc_hz > 100000000 && h.tsc_hz < 20000000000ull);
    CHECK(nvmm.nconf <= 32);
    for (unsigned i = 0; i < nvmm.nconf; i++) {
        uint32_t r[4] = {0x12345678, 0x9abcdef0, 0x0f1e2d3c, 0x55aa33cc};
        const struct nvmm__conf_cpuid *conf = &nvmm.conf[i];
        CHECK_EQ(conf->what, NVMM__CPUID_MASK);
        for (unsigned n = 0; n < 4; n++) {
            CHECK_EQ(conf->set[n] & conf->del[n], 0);
            r[n] = (r[n] & ~conf->del[n]) | conf->set[n];
        }
        uint32_t want[4] = {0x12345678, 0x9abcdef0, 0x0f1e2d3c, 0x55aa33cc};
        x86_cpuid(&d, conf->leaf, 0, want);
        CHECK(memcmp(r, want, sizeof r) == 0);
    }
    if (CHECK(leaf(1) && leaf(0x40000000) && leaf(0x40000001))) {
        CHECK_EQ(leaf(1)->set[2] & (1u << 21 | 1u << 24), 1u << 21 | 1u << 24);
        CHECK_EQ(leaf(1)->set[1] >> 24, 3);
        CHECK_EQ(leaf(0x40000000)->set[1], 0x4b4d564b);
        CHECK(leaf(0x40000001)->set[0] == 0 && leaf(0x40000001)->del[0] == ~0u);
    }
    close_both(&h, &c);
}

static int run(struct hyp_cpu *c, struct vmm_exit *e, uint64_t reason)
{
    nvmm.exit.reason = reason;
    return hyp_run(c, e);
}

static void test_registers(void)
{
    struct hyp h;
    struct hyp_cpu c;
    struct vmm_exit e;
    struct vmm_x86_regs in = {.rip = 0x1234,
                              .rflags = 2,
                              .cr0 = 0x80000011,
                              .cr3 = 0x8000,
                              .efer = 0x500},
                        out;

    open_both(&h, &c, 2);
    for (unsigned i = 0; i < 16; i++)
        in.gpr[i] = i * 0x0101010101010101;
    in.cs = (struct vmm_x86_seg){0, 0xffffffff, 0x10, 0xa09b};
    in.ss = (struct vmm_x86_seg){0, 0xffffffff, 0x18, 0xc093};
    in.tr = (struct vmm_x86_seg){5, 0x67, 0x20, 0x008b};
    in.gdt = (struct vmm_x86_seg){.base = 0xe000, .limit = 31};
    nvmm.comm.state.cr[NVMM__CR8] = 5;
    CHECK_EQ(hyp_set_regs(&c, &in), 0);
    CHECK_EQ(nvmm.gets, 0); /* all was there since the reset */
    CHECK_EQ(run(&c, &e, NVMM__EXIT_NONE), 0);
    CHECK_EQ(e.kind, VMM_EXIT_AGAIN);
    CHECK_EQ(nvmm.committed, NVMM__REGS);
    CHECK(nvmm.given.seg[1].attrib == 0xa9b && nvmm.given.seg[1].selector == 0x10);
    CHECK(nvmm.given.seg[9].attrib == 0x8b && nvmm.given.seg[9].base == 5);
    CHECK(nvmm.given.seg[6].base == 0xe000 && nvmm.given.seg[6].limit == 31);
    CHECK(nvmm.given.gpr[3] == in.gpr[3] && nvmm.given.gpr[16] == 0x1234 && nvmm.given.cr[4] == 5);
    CHECK(nvmm.given.msr[0] == 0x500 && nvmm.given.msr[10] < h.tsc_hz * 60); /* since hyp_open */
    CHECK_EQ(hyp_get_regs(&c, &out), 0);
    CHECK_EQ(nvmm.got, NVMM__REGS);
    CHECK(memcmp(&in, &out, sizeof in) == 0);
    CHECK_EQ(hyp_set_regs(&c, &in), 0);
    CHECK_EQ(run(&c, &e, NVMM__EXIT_NONE), 0);
    CHECK_EQ(nvmm.committed, NVMM__REGS & ~NVMM__MSRS); /* the TSC is let alone */
    nvmm.fails = 8;
    nvmm.err = EIO;
    CHECK(hyp_get_regs(&c, &out) == -EIO && hyp_set_regs(&c, &in) == -EIO);
    close_both(&h, &c);
}

static void test_fpu(void)
{
    struct hyp h;
    struct hyp_cpu c;
    struct vmm_exit e;
    struct vmm_x86_fpu in = {.fip = 1, .fdp = 2, .mxcsr = 0x1f80, .fcw = 0x37f, .fsw = 5}, out;

    open_both(&h, &c, 1);
    memset(in.st[7], 7, 16);
    memset(in.xmm[15], 15, 16);
    in.ftw = 0x81;
    in.fop = 0x7ff;
    nvmm.comm.state.fpu.mxcsr_mask = 0xffff;
    CHECK_EQ(hyp_set_fpu(&c, &in), 0);
    CHECK_EQ(run(&c, &e, NVMM__EXIT_NONE), 0);
    CHECK(nvmm.committed & NVMM__FPU && nvmm.given.fpu.mxcsr_mask == 0xffff);
    CHECK(nvmm.given.fpu.cw == 0x37f && nvmm.given.fpu.tw == 0x81 &&
          nvmm.given.fpu.xmm[15][3] == 15);
    memset(&out, 0, sizeof out);
    CHECK_EQ(hyp_get_fpu(&c, &out), 0);
    CHECK(memcmp(&in, &out, sizeof in) == 0);
    nvmm.fails = 8;
    nvmm.err = EIO;
    nvmm.comm.cached = 0;
    CHECK(hyp_get_fpu(&c, &out) == -EIO && hyp_set_fpu(&c, &in) == -EIO);
    close_both(&h, &c);
}

static void test_ports(struct hyp_cpu *c)
{
    struct vmm_exit e;
    uint64_t *gpr = nvmm.comm.state.gpr;

    gpr[NVMM__RAX] = 0x1122334455667788;
    nvmm.exit.u.io.in = 0;
    nvmm.exit.u.io.port = 0x3f8;
    nvmm.exit.u.io.operand_size = 2;
    nvmm.exit.u.io.str = 0;
    nvmm.exit.u.io.npc = 0x77;
    CHECK_EQ(run(c, &e, NVMM__EXIT_IO), 0);
    CHECK(e.kind == VMM_EXIT_PIO && e.write && e.addr == 0x3f8 && e.size == 2 && e.count == 1);
    CHECK_EQ(vmm_get16(e.data), 0x7788);
    nvmm.exit.u.io.in = 1;
    CHECK_EQ(run(c, &e, NVMM__EXIT_IO), 0);
    CHECK_EQ(nvmm.given.gpr[NVMM__RIP], 0x77);
    CHECK(e.kind == VMM_EXIT_PIO && !e.write);
    CHECK(!hyp_ready(c) || c->rflags & 0x200);
    vmm_put16(e.data, 0xbeef);
    nvmm.exit.u.io.operand_size = 4;
    nvmm.exit.u.io.npc = 0x79;
    CHECK_EQ(run(c, &e, NVMM__EXIT_IO), 0);
    CHECK_EQ(nvmm.committed, NVMM__GPRS);
    CHECK(nvmm.given.gpr[NVMM__RAX] == 0x112233445566beef && nvmm.given.gpr[NVMM__RIP] == 0x77);
    vmm_put32(e.data, 0xcafe);
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(nvmm.given.gpr[NVMM__RAX] == 0xcafe && nvmm.given.gpr[NVMM__RIP] == 0x79);
    nvmm.exit.u.io.operand_size = 3;
    CHECK(run(c, &e, NVMM__EXIT_IO) == 0 && e.kind == VMM_EXIT_FAULT &&
          strstr(e.why, "impossible"));
}

/* A CPU in real mode at 0, whose code is at 0x100. */
static void at_code(struct hyp_cpu *c, const void *code, size_t len)
{
    static const struct vmm_x86_seg flat = {0, 0xffffffff, 0, 0xc093};
    struct vmm_x86_regs r = {
        .rip = 0x100, .rflags = 2, .cr0 = 0x11, .ds = flat, .es = flat, .ss = flat};

    r.cs = (struct vmm_x86_seg){0, 0xffffffff, 8, 0xc09b};
    r.gpr[VMM_RBX] = 0xd0000000;
    r.gpr[VMM_RSI] = 0x200;
    r.gpr[VMM_RCX] = 2;
    r.gpr[VMM_RDX] = 0x1f0;
    memcpy(ram + 0x100, code, len);
    CHECK_EQ(hyp_set_regs(c, &r), 0);
}

static void test_mmio(struct hyp_cpu *c)
{
    struct vmm_exit e;

    /* or %eax, (%ebx): read, then write */
    at_code(c, "\x09\x03", 2);
    nvmm.comm.state.gpr[NVMM__RAX] = 0x0f;
    nvmm.exit.u.mem.gpa = 0xd0000000;
    nvmm.exit.u.mem.inst_len = 0;
    CHECK_EQ(run(c, &e, NVMM__EXIT_MEMORY), 0);
    CHECK(e.kind == VMM_EXIT_MMIO && !e.write && e.addr == 0xd0000000 && e.size == 4);
    CHECK(!hyp_ready(c)); /* it may fault yet */
    vmm_put32(e.data, 0xf0);
    nvmm.runs = 0;
    CHECK_EQ(hyp_run(c, &e), 0);
    CHECK(e.kind == VMM_EXIT_MMIO && e.write && vmm_get32(e.data) == 0xff && nvmm.runs == 0);
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(nvmm.committed & NVMM__GPRS && nvmm.given.gpr[NVMM__RIP] == 0x102);
    /* what the processor says of the bytes counts: nop where memory has something else */
    at_code(c, "\x8b\x03", 2);
    nvmm.exit.u.mem.inst_len = 2;
    memcpy(nvmm.exit.u.mem.inst_bytes, "\x89\x03", 2);
    CHECK(run(c, &e, NVMM__EXIT_MEMORY) == 0 && e.kind == VMM_EXIT_MMIO && e.write);
    nvmm.exit.u.mem.inst_len = 99; /* cannot be */
    at_code(c, "\x8b\x03", 2);
    CHECK(run(c, &e, NVMM__EXIT_MEMORY) == 0 && e.kind == VMM_EXIT_MMIO && !e.write);
    nvmm.exit.u.mem.inst_len = 0;
    /* registers that were set meanwhile: begun anew, and the old one is forgotten */
    at_code(c, "\x8b\x03", 2);
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(nvmm.given.gpr[NVMM__RIP] == 0x100);
    at_code(c, "\x0f\x0b", 2);
    CHECK(run(c, &e, NVMM__EXIT_MEMORY) == 0 && e.kind == VMM_EXIT_FAULT);
    CHECK(strstr(e.why, "not known") && e.size == 15 && e.data[0] == 0x0f && e.data[1] == 0x0b);
    nvmm.exit.u.mem.gpa = 0xd0000000;
    nvmm.exit.state.intr = NVMM__PENDING;
    CHECK(run(c, &e, NVMM__EXIT_MEMORY) == 0 && e.kind == VMM_EXIT_FAULT && strstr(e.why, "stack"));
    nvmm.exit.state.intr = 0;
    nvmm.exit.u.mem.gpa = 0x3000;
    CHECK(run(c, &e, NVMM__EXIT_MEMORY) == 0 && e.kind == VMM_EXIT_FAULT && e.code == 0x3000);
}

/* Flash that is written to: the write comes out, and nothing changes. Reads of ROM come in. */
static void test_rom(struct hyp_cpu *c)
{
    struct vmm_exit e;

    at_code(c, "\x89\x03", 2); /* mov %eax, (%ebx) */
    nvmm.comm.state.gpr[VMM_RBX] = 0x40010;
    nvmm.exit.u.mem.gpa = 0x40010;
    memset(rom, 0x5a, sizeof rom);
    CHECK_EQ(run(c, &e, NVMM__EXIT_MEMORY), 0);
    CHECK(e.kind == VMM_EXIT_MMIO && e.write && e.addr == 0x40010 && rom[0x10] == 0x5a);
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(nvmm.given.gpr[NVMM__RIP] == 0x102 && rom[0x10] == 0x5a);
}

static void test_strings(struct hyp_cpu *c)
{
    struct vmm_exit e;

    at_code(c, "\xf3\x6f", 2); /* rep outsl, two of them */
    vmm_put32(ram + 0x200, 0x11);
    vmm_put32(ram + 0x204, 0x22);
    nvmm.exit.u.io.str = 1;
    CHECK_EQ(run(c, &e, NVMM__EXIT_IO), 0);
    CHECK(e.kind == VMM_EXIT_PIO && e.write && e.addr == 0x1f0 && e.size == 4 && e.data[0] == 0x11);
    CHECK_EQ(hyp_run(c, &e), 0);
    CHECK(e.kind == VMM_EXIT_PIO && e.data[0] == 0x22);
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(nvmm.given.gpr[VMM_RSI] == 0x208 && nvmm.given.gpr[VMM_RCX] == 0);
    CHECK_EQ(nvmm.given.gpr[NVMM__RIP], 0x102);
}

static void become_none(void)
{
    nvmm.exit.reason = nvmm.runs > 1 ? NVMM__EXIT_NONE : nvmm.exit.reason;
}

/* A page fault of an instruction that is carried out here is the guest's, with CR2. */
static void test_page_fault(struct hyp_cpu *c)
{
    struct vmm_x86_regs r;
    struct vmm_exit e;

    at_code(c, "\xa4", 1); /* movsb */
    hyp_get_regs(c, &r);
    r.cr0 = 0x80000011;
    r.cr3 = 0x1000; /* 4 MiB at 0, nothing else but a device at 0xd0000000 */
    r.cr4 = 0x10;
    r.gpr[VMM_RSI] = 0xd0000000;
    r.gpr[VMM_RDI] = 0x500000;
    vmm_put32(ram + 0x1000, 0x83);
    vmm_put32(ram + 0x1000 + 4 * 0x340, 0xd0000083);
    CHECK_EQ(hyp_set_regs(c, &r), 0);
    nvmm.exit.u.mem.gpa = 0xd0000000;
    nvmm.inside = become_none;
    nvmm.runs = 0;
    CHECK(run(c, &e, NVMM__EXIT_MEMORY) == 0 && e.kind == VMM_EXIT_AGAIN && nvmm.runs == 2);
    nvmm.inside = NULL;
    CHECK(nvmm.injected && nvmm.event.type == 0 && nvmm.event.vector == 14 &&
          nvmm.event.error == 2);
    CHECK(nvmm.committed & NVMM__CRS && nvmm.given.cr[NVMM__CR2] == 0x500000);
    CHECK_EQ(nvmm.given.gpr[NVMM__RIP], 0x100);
}

static void test_msrs(struct hyp_cpu *c)
{
    struct vmm_exit e;

    nvmm.exit.u.rdmsr.msr = 0x802;
    nvmm.exit.u.rdmsr.npc = 0x300;
    CHECK_EQ(run(c, &e, NVMM__EXIT_RDMSR), 0);
    CHECK(e.kind == VMM_EXIT_MSR && !e.write && e.addr == 0x802 && e.size == 8);
    vmm_put64(e.data, 0x0123456789abcdef);
    nvmm.exit.u.wrmsr.msr = 0x6e0;
    nvmm.exit.u.wrmsr.val = 0xfedcba9876543210;
    nvmm.exit.u.wrmsr.npc = 0x302;
    CHECK_EQ(run(c, &e, NVMM__EXIT_WRMSR), 0);
    CHECK(nvmm.given.gpr[NVMM__RAX] == 0x89abcdef && nvmm.given.gpr[NVMM__RDX] == 0x01234567);
    CHECK(nvmm.given.gpr[NVMM__RIP] == 0x300 && nvmm.committed == NVMM__GPRS);
    CHECK(e.kind == VMM_EXIT_MSR && e.write && vmm_get64(e.data) == 0xfedcba9876543210);
    nvmm.comm.state.gpr[NVMM__RIP] = 0x300;
    hyp_msr_refuse(c);
    CHECK(!hyp_ready(c));
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(nvmm.injected && nvmm.event.type == 0 && nvmm.event.vector == 13 && !nvmm.event.error);
    CHECK_EQ(nvmm.committed, 0); /* it stands where it was */
}

/* Registers that are only remembered never come out, nor does what is nobody's but the guest's. */
static void test_inside(struct hyp_cpu *c)
{
    struct vmm_exit e;

    nvmm.inside = become_none;
    nvmm.runs = 0;
    nvmm.exit.u.wrmsr.msr = 0x2ff;
    nvmm.exit.u.wrmsr.val = 0xc06;
    nvmm.exit.u.wrmsr.npc = 0x402;
    CHECK(run(c, &e, NVMM__EXIT_WRMSR) == 0 && e.kind == VMM_EXIT_AGAIN && nvmm.runs == 2);
    CHECK(nvmm.given.gpr[NVMM__RIP] == 0x402 && !nvmm.injected);
    nvmm.runs = 0;
    nvmm.exit.u.rdmsr.msr = 0x2ff;
    nvmm.exit.u.rdmsr.npc = 0x404;
    CHECK(run(c, &e, NVMM__EXIT_RDMSR) == 0 && nvmm.runs == 2);
    CHECK(nvmm.given.gpr[NVMM__RAX] == 0xc06 && nvmm.given.gpr[NVMM__RIP] == 0x404);
    nvmm.runs = 0;
    nvmm.exit.u.wrmsr.msr = 0xfe; /* which cannot be written */
    CHECK(run(c, &e, NVMM__EXIT_WRMSR) == 0 && nvmm.runs == 2);
    CHECK(nvmm.injected && nvmm.event.vector == 13);
    nvmm.runs = 0;
    nvmm.exit.u.insn.npc = 0x500;
    CHECK(run(c, &e, NVMM__EXIT_CPUID) == 0 && e.kind == VMM_EXIT_AGAIN && nvmm.runs == 2);
    CHECK_EQ(nvmm.given.gpr[NVMM__RIP], 0x500);
    for (uint64_t reason = NVMM__EXIT_MONITOR; reason <= NVMM__EXIT_MWAIT; reason++) {
        nvmm.runs = 0;
        CHECK(run(c, &e, reason) == 0 && e.kind == VMM_EXIT_AGAIN && nvmm.runs == 2);
        CHECK(nvmm.injected && nvmm.event.type == 0 && nvmm.event.vector == 6);
    }
    nvmm.inside = NULL;
}

static void test_ends(struct hyp_cpu *c)
{
    static const uint64_t again[] = {NVMM__EXIT_NONE, NVMM__EXIT_STOPPED, NVMM__EXIT_INT_READY,
                                     NVMM__EXIT_NMI_READY, NVMM__EXIT_TPR};
    struct vmm_exit e;

    for (unsigned i = 0; i < sizeof again / sizeof again[0]; i++)
        CHECK(run(c, &e, again[i]) == 0 && e.kind == VMM_EXIT_AGAIN);
    CHECK(run(c, &e, NVMM__EXIT_HALTED) == 0 && e.kind == VMM_EXIT_HALT);
    CHECK(run(c, &e, NVMM__EXIT_SHUTDOWN) == 0 && e.kind == VMM_EXIT_SHUTDOWN);
    nvmm.exit.u.inv.hwcode = 0x400;
    CHECK(run(c, &e, NVMM__EXIT_INVALID) == 0 && e.kind == VMM_EXIT_FAULT && e.code == 0x400);
    CHECK(run(c, &e, 0x4711) == 0 && e.kind == VMM_EXIT_FAULT && e.code == 0x4711);
    nsaid = 0;
    nvmm.fails = 10;
    nvmm.err = ENOENT;
    check_refused(run(c, &e, NVMM__EXIT_NONE), -ENOENT, "cannot run CPU 3");
    nvmm.err = EINTR;
    CHECK(run(c, &e, NVMM__EXIT_NONE) == 0 && e.kind == VMM_EXIT_AGAIN);
    nvmm.fails = 8;
    nvmm.err = EIO;
    nvmm.exit.u.wrmsr.msr = 0x2ff;
    nvmm.exit.u.insn.npc = 1;
    CHECK_EQ(run(c, &e, NVMM__EXIT_CPUID), -EIO);
    nvmm.fails = ~0u;
}

/* When an interrupt may be given, and what is awaited until then. */
static void test_windows(struct hyp_cpu *c)
{
    struct vmm_exit e;

    nvmm.exit.state.intr = 0;
    nvmm.exit.state.rflags = 2;
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(!hyp_ready(c) && hyp_inject(c, 0x41) == -EBUSY);
    hyp_want_window(c, true);
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(nvmm.committed == NVMM__INTR && nvmm.given.intr == NVMM__INT_WINDOW);
    nvmm.exit.state.intr = NVMM__INT_WINDOW;
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    nvmm.exit.state.rflags = 0x202;
    nvmm.exit.state.intr = NVMM__SHADOW | NVMM__INT_WINDOW;
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK_EQ(nvmm.committed, 0); /* it is awaited already */
    CHECK(!hyp_ready(c));
    nvmm.exit.state.intr = NVMM__PENDING;
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(!hyp_ready(c));
    nvmm.exit.state.intr = 0;
    CHECK(run(c, &e, NVMM__EXIT_INT_READY) == 0 && hyp_ready(c));
    nvmm.runs = 0;
    CHECK(hyp_run(c, &e) == 0 && e.kind == VMM_EXIT_AGAIN && nvmm.runs == 0); /* take it */
    CHECK(hyp_inject(c, 0x41) == 0 && !hyp_ready(c) && hyp_inject(c, 0x42) == -EBUSY);
    hyp_want_window(c, false);
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(nvmm.injected && nvmm.event.type == 1 && nvmm.event.vector == 0x41);
    /* one is awaited and can be taken before NVMM says so: nothing is awaited any more */
    nvmm.exit.state.intr = NVMM__INT_WINDOW;
    CHECK(run(c, &e, NVMM__EXIT_NONE) == 0 && hyp_ready(c));
    CHECK_EQ(hyp_inject(c, 0x43), 0);
    nvmm.exit.state.intr = 0;
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(nvmm.injected && nvmm.committed == NVMM__INTR && nvmm.given.intr == 0);
}

static void test_nmis(struct hyp_cpu *c)
{
    struct vmm_exit e;

    CHECK(hyp_inject_nmi(c) == 0 && !hyp_ready(c));
    nvmm.exit.state.intr = NVMM__NMI_WINDOW;
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(nvmm.injected && nvmm.event.type == 1 && nvmm.event.vector == 2);
    CHECK_EQ(hyp_inject_nmi(c), 0); /* in the handler of the first */
    CHECK(hyp_ready(c));
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(!nvmm.injected);
    nvmm.exit.state.intr = 0;
    CHECK_EQ(run(c, &e, NVMM__EXIT_NMI_READY), 0);
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(nvmm.injected && nvmm.event.vector == 2);
    CHECK_EQ(hyp_inject(c, 0x44), 0); /* an interrupt has the run: told when it is over */
    CHECK_EQ(hyp_inject_nmi(c), 0);
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(nvmm.injected && nvmm.event.vector == 0x44 && nvmm.given.intr == NVMM__NMI_WINDOW);
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(nvmm.injected && nvmm.event.vector == 2);
}

static void test_cr8(struct hyp_cpu *c)
{
    struct vmm_exit e;
    uint64_t hz;

    nvmm.exit.state.cr8 = 7;
    CHECK(run(c, &e, NVMM__EXIT_TPR) == 0 && hyp_cr8(c) == 7);
    nvmm.gets = 0;
    hyp_set_cr8(c, 7);
    CHECK_EQ(nvmm.gets, 0);
    hyp_set_cr8(c, 9);
    CHECK(nvmm.gets == 1 && nvmm.got == NVMM__CRS && hyp_cr8(c) == 9);
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(nvmm.committed == NVMM__CRS && nvmm.given.cr[NVMM__CR8] == 9);
    nvmm.comm.state.msr[NVMM__TSC] = 0x123456789;
    CHECK(hyp_tsc(c, &hz) == 0x123456789 && hz == c->hyp->tsc_hz);
    nvmm.fails = 8;
    nvmm.err = EIO;
    nvmm.comm.cached = 0;
    hyp_set_cr8(c, 3);
    CHECK_EQ(hyp_cr8(c), 7);
    hyp_tsc(c, &hz);
    CHECK_EQ(hz, 0);
    nvmm.fails = ~0u;
}

static struct hyp_cpu *kicked;

static void kick(void)
{
    hyp_kick(kicked);
}

/* Before, in and after the run: one AGAIN each, never none, whatever is copied back. */
static void test_kicks(struct hyp_cpu *c, unsigned version)
{
    struct vmm_exit e;

    kicked = c;
    nvmm.runs = 0;
    hyp_kick(c);
    if (version == 2) {
        CHECK_EQ(nvmm.comm.stop, 1);
        nvmm.comm.stop = 0; /* the kernel's part */
        CHECK(run(c, &e, NVMM__EXIT_STOPPED) == 0 && e.kind == VMM_EXIT_AGAIN);
        return;
    }
    CHECK(run(c, &e, NVMM__EXIT_HALTED) == 0 && e.kind == VMM_EXIT_AGAIN && nvmm.runs == 0);
    CHECK(hyp_run(c, &e) == 0 && e.kind == VMM_EXIT_HALT);
    nvmm.inside = kick; /* and the kernel copies the valid number back */
    CHECK(hyp_run(c, &e) == 0 && e.kind == VMM_EXIT_HALT);
    nvmm.inside = NULL;
    CHECK(hyp_run(c, &e) == 0 && e.kind == VMM_EXIT_AGAIN);
    CHECK(hyp_run(c, &e) == 0 && e.kind == VMM_EXIT_HALT);
    /* the number alone was spoiled, for the flag was seen by a run that had made it valid before */
    c->run.machid = ~0u;
    c->kicked = false;
    CHECK(hyp_run(c, &e) == 0 && e.kind == VMM_EXIT_HALT);
}

static void spoil(void)
{
    kicked->run.machid = ~0u;
}

/* After the look at the flag, before the kernel copies: the ioctl fails, and events stay. */
static void test_late_kick(struct hyp_cpu *c)
{
    struct vmm_exit e;

    nvmm.exit.state.intr = 0;
    nvmm.exit.state.rflags = 0x202;
    CHECK(run(c, &e, NVMM__EXIT_NONE) == 0 && hyp_ready(c));
    CHECK_EQ(hyp_inject(c, 0x55), 0);
    nvmm.fails = 10;
    nvmm.err = EINVAL;
    spoil();
    __atomic_store_n(&c->kicked, true, __ATOMIC_SEQ_CST);
    CHECK(hyp_run(c, &e) == 0 && e.kind == VMM_EXIT_AGAIN && nvmm.comm.event_commit);
    CHECK(!hyp_ready(c));
    nvmm.fails = ~0u;
    CHECK(run(c, &e, NVMM__EXIT_NONE) == 0 && nvmm.injected && nvmm.event.vector == 0x55);
}

/* >>debug: a guest in 64-bit mode, whose exceptions all have one handler, at 0x4000, and whose
   program counter is at 0x100. */
enum { IDT = 0x2000, GDT = 0x3000, HANDLER = 0x4000, SNARE_DB = 0x4008, SNARE_BP = 0x4003 };

static uint16_t gate(unsigned vector)
{
    return vmm_get16(ram + IDT + 16 * vector);
}

static void gates(void)
{
    memset(ram + IDT, 0, 64);
    for (unsigned v = 0; v < 4; v++) {
        vmm_put16(ram + IDT + 16 * v, HANDLER);
        vmm_put16(ram + IDT + 16 * v + 2, 8);
        ram[IDT + 16 * v + 5] = 0x8e;
    }
}

static void at_table(struct hyp_cpu *c)
{
    static const struct vmm_x86_seg data = {0, 0xffffffff, 0x10, 0xc093};
    static const uint8_t code[] = {0, 0,    0,    0,
                                   0, 0x9b, 0xaf, 0}, /* nop; sub rsp, 8; nop; mov rdi, rsp */
        handler[] = {0x90, 0x48, 0x83, 0xec, 0x08, 0x90, 0x48, 0x89, 0xe7};
    struct vmm_x86_regs r = {.rip = 0x100,
                             .rflags = 2,
                             .cr0 = 0x11,
                             .efer = 0x500,
                             .ds = data,
                             .es = data,
                             .ss = data,
                             .cs = {0, 0xffffffff, 8, 0xa09b},
                             .idt = {IDT, 63, 0, 0},
                             .gdt = {GDT, 23, 0, 0}};

    memset(ram, 0x90, sizeof ram);
    memcpy(ram + GDT + 8, code, sizeof code);
    memcpy(ram + HANDLER, handler, sizeof handler);
    gates();
    r.gpr[VMM_RSP] = 0x8000;
    CHECK_EQ(hyp_set_regs(c, &r), 0);
    memset(nvmm.comm.state.dr, 0, sizeof nvmm.comm.state.dr);
    nvmm.comm.state.dr[NVMM__DR7] = 0x400;
}

static void nothing_more(void)
{
    nvmm.exit.reason = NVMM__EXIT_NONE;
    nvmm.inside = NULL;
}

/* What the processor does inside of a run, and that the port at the gate's end comes out then. */
static void deliver(unsigned vector, uint64_t next, uint64_t dr6)
{
    uint64_t *gpr = nvmm.comm.state.gpr, sp = gpr[VMM_RSP] - 40;
    const uint64_t frame[] = {next, 8, gpr[NVMM__RFLAGS], gpr[VMM_RSP], 0x10};

    memcpy(ram + sp, frame, sizeof frame);
    gpr[VMM_RSP] = sp;
    gpr[NVMM__RIP] = gate(vector);
    gpr[NVMM__RFLAGS] &= ~(uint64_t)0x300;
    nvmm.comm.state.dr[NVMM__DR6] |= dr6;
    nvmm.exit.reason = NVMM__EXIT_IO;
    nvmm.exit.state.rflags = 2;
    nvmm.inside = nothing_more;
}

static void breakpoint(void)
{
    deliver(X86_BP, 0x101, 0);
}

static void single_step(void)
{
    deliver(X86_DB, 0x101, 0x4000);
}

static void write_to_slot_1(void)
{
    deliver(X86_DB, 0x108, 0x2);
}

static int run_into(struct hyp_cpu *c, struct vmm_exit *e, void (*what)(void))
{
    int err;

    nvmm.inside = what;
    err = hyp_run(c, e);
    nvmm.inside = NULL;
    return err;
}

static void test_traps(struct hyp_cpu *c)
{
    const struct vmm_debug traps = {.traps = true}, none = {0};
    struct vmm_x86_regs r;
    struct vmm_exit e;

    at_table(c);
    CHECK_EQ(hyp_debug(c, &traps), 0);
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(gate(X86_BP) == SNARE_BP && gate(X86_DB) == HANDLER && gate(2) == HANDLER);
    ram[0x100] = 0xcc;
    CHECK_EQ(run_into(c, &e, breakpoint), 0);
    CHECK(e.kind == VMM_EXIT_DEBUG && e.code == VMM_DEBUG_TRAP && e.addr == 0x100);
    CHECK(!hyp_get_regs(c, &r) && r.rip == 0x100 && r.gpr[VMM_RSP] == 0x8000 && r.rflags == 2);
    CHECK_EQ(hyp_debug_pass(c), 0); /* the guest's own after all */
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(nvmm.given.gpr[NVMM__RIP] == HANDLER && nvmm.given.gpr[VMM_RSP] == 0x8000 - 40);
    /* as is what no debugger writes there, and what a CPU's frame does not tell */
    at_table(c);
    ram[0xff] = 0xcd;
    ram[0x100] = 3;
    CHECK(run_into(c, &e, breakpoint) == 0 && e.kind == VMM_EXIT_AGAIN);
    CHECK(gate(X86_BP) == SNARE_BP && nvmm.given.gpr[NVMM__RIP] == HANDLER);
    /* the guest writes its table anew, and copies it */
    gates();
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK_EQ(gate(X86_BP), SNARE_BP);
    memcpy(ram + 0x2800, ram + IDT, 64);
    hyp_get_regs(c, &r);
    r.idt.base = 0x2800;
    CHECK_EQ(hyp_set_regs(c, &r), 0);
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    vmm_put16(ram + IDT + 48, 0x4444); /* its own now */
    CHECK_EQ(hyp_debug(c, &none), 0);
    CHECK(gate(X86_BP) == 0x4444 && vmm_get16(ram + 0x2830) == HANDLER);
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK_EQ(vmm_get16(ram + 0x2830), HANDLER);
}

/* A CPU that was on its way when nobody wanted it any more: its handler it is. */
static struct hyp_cpu *inside_cpu;

static void unhooked(void)
{
    const struct vmm_debug none = {0};

    deliver(X86_BP, 0x101, 0);
    CHECK_EQ(hyp_debug(inside_cpu, &none), 0);
    CHECK_EQ(gate(X86_BP), HANDLER);
}

static void test_late_trap(struct hyp_cpu *c)
{
    const struct vmm_debug traps = {.traps = true};
    struct vmm_exit e;

    at_table(c);
    inside_cpu = c;
    CHECK_EQ(hyp_debug(c, &traps), 0);
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(run_into(c, &e, unhooked) == 0 && e.kind == VMM_EXIT_AGAIN);
    CHECK_EQ(nvmm.given.gpr[NVMM__RIP], HANDLER);
}

static void test_step(struct hyp_cpu *c)
{
    const struct vmm_debug step = {.step = true}, none = {0};
    struct vmm_x86_regs r;
    struct vmm_exit e;

    at_table(c);
    nvmm.exit.state.intr = NVMM__SHADOW;
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    nvmm.exit.state.intr = 0;
    hyp_inject_nmi(c);
    CHECK_EQ(hyp_debug(c, &step), 0);
    CHECK(run(c, &e, NVMM__EXIT_NONE) == 0 && e.kind == VMM_EXIT_AGAIN);
    CHECK(nvmm.given.gpr[NVMM__RFLAGS] == 0x102 && !nvmm.injected);
    CHECK(nvmm.committed & NVMM__INTR && !(nvmm.given.intr & NVMM__SHADOW));
    CHECK(!hyp_get_regs(c, &r) && r.rflags == 2); /* nobody sees it */
    CHECK_EQ(run_into(c, &e, single_step), 0);
    CHECK(e.kind == VMM_EXIT_DEBUG && e.code == VMM_DEBUG_STEP && e.addr == 0x101);
    CHECK(!hyp_get_regs(c, &r) && r.rip == 0x101 && r.rflags == 2 && r.gpr[VMM_RSP] == 0x8000);
    CHECK_EQ(nvmm.comm.state.dr[NVMM__DR6], 0);
    /* it is set for the one instruction alone */
    CHECK(run(c, &e, NVMM__EXIT_NONE) == 0 && nvmm.given.gpr[NVMM__RFLAGS] == 2);
    CHECK_EQ(hyp_debug(c, &step), 0);
    nvmm.exit.u.io.in = nvmm.exit.u.io.str = 0; /* what is carried out here is a step, too */
    nvmm.exit.u.io.operand_size = 1;
    nvmm.exit.u.io.npc = 0x102;
    CHECK(run(c, &e, NVMM__EXIT_IO) == 0 && e.kind == VMM_EXIT_PIO);
    nvmm.runs = 0;
    CHECK(hyp_run(c, &e) == 0 && e.kind == VMM_EXIT_DEBUG && e.code == VMM_DEBUG_STEP);
    CHECK(e.addr == 0x102 && nvmm.runs == 0);
    CHECK_EQ(hyp_debug(c, &none), 0);
    CHECK_EQ(gate(X86_DB), HANDLER);
    CHECK(run(c, &e, NVMM__EXIT_NONE) == 0 && nvmm.injected && nvmm.event.vector == 2);
    /* nor is the guest's own trap flag lost, or its trap */
    r.rflags = 0x102;
    CHECK(hyp_set_regs(c, &r) == 0 && hyp_debug(c, &step) == 0);
    CHECK(run_into(c, &e, single_step) == 0 && e.code == VMM_DEBUG_STEP);
    CHECK(!hyp_get_regs(c, &r) && r.rflags == 0x102);
    CHECK_EQ(hyp_debug(c, &(struct vmm_debug){.slot = {{.addr = 0x5000, .len = 1}}}), 0);
    CHECK(run_into(c, &e, single_step) == 0 && e.kind == VMM_EXIT_DEBUG && e.code == 0);
    CHECK(hyp_debug_pass(c) == 0 && run(c, &e, NVMM__EXIT_NONE) == 0);
    CHECK(nvmm.given.gpr[NVMM__RIP] == HANDLER && nvmm.given.dr[NVMM__DR6] == 0x4000);
    CHECK_EQ(hyp_debug(c, &none), 0);
}

/* Where the guest has no gate, or nothing in its handler's page that can be used. */
static void test_unable(struct hyp_cpu *c)
{
    const struct vmm_debug step = {.step = true}, none = {0};
    struct vmm_exit e;

    at_table(c);
    memset(ram + HANDLER, 0x90, 4096);
    CHECK_EQ(hyp_debug(c, &step), 0);
    nvmm.runs = 0;
    for (unsigned i = 0; i < 2; i++) {
        CHECK(hyp_run(c, &e) == 0 && e.kind == VMM_EXIT_DEBUG && e.code == VMM_DEBUG_UNABLE);
        CHECK(e.addr == 0x100 && nvmm.runs == 0 && gate(X86_DB) == HANDLER);
        ram[IDT + 16 + 5] = 0;
    }
    CHECK_EQ(hyp_debug(c, &none), 0);
}

static void test_slots(struct hyp_cpu *c)
{
    const struct vmm_debug
        none = {0},
        want = {.slot = {[1] = {0x6000, 4, VMM_BREAK_WRITE}, [3] = {0x7008, 8, VMM_BREAK_ACCESS}}};
    uint64_t *dr = nvmm.comm.state.dr;
    struct vmm_exit e;

    at_table(c);
    dr[0] = 0x1234; /* the guest's */
    dr[NVMM__DR7] = 0x401;
    ram[IDT + 16 + 5] = 0;
    CHECK_EQ(hyp_debug(c, &want), 0);
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(nvmm.committed & NVMM__DRS && nvmm.given.dr[NVMM__DR7] == 0x400); /* not yet */
    gates();
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(nvmm.given.dr[0] == 0 && nvmm.given.dr[1] == 0x6000 && nvmm.given.dr[3] == 0x7008);
    CHECK_EQ(nvmm.given.dr[NVMM__DR7], 0xb0d00488);
    CHECK_EQ(run_into(c, &e, write_to_slot_1), 0);
    CHECK(e.kind == VMM_EXIT_DEBUG && e.code == 2 && e.addr == 0x108 && dr[NVMM__DR6] == 0);
    dr[2] = 0x5678; /* the guest writes one, which waits until they are its again */
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK_EQ(nvmm.given.dr[2], 0);
    CHECK_EQ(hyp_debug(c, &none), 0);
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), 0);
    CHECK(nvmm.given.dr[0] == 0x1234 && nvmm.given.dr[1] == 0 && nvmm.given.dr[2] == 0x5678);
    CHECK_EQ(nvmm.given.dr[NVMM__DR7], 0x401);
    nvmm.gets = 0;
    CHECK(run(c, &e, NVMM__EXIT_HALTED) == 0 && nvmm.gets == 0); /* and it costs nothing any more */
}

static void test_hooks(struct hyp *h, struct hyp_cpu *c)
{
    struct hyp_cpu other = {.hyp = h};
    const struct vmm_debug traps = {.traps = true}, none = {0};
    struct vmm_x86_regs r;
    struct vmm_exit e;

    at_table(c); /* a table that is always another one */
    CHECK(hyp_get_regs(c, &r) == 0 && hyp_debug(c, &traps) == 0);
    for (unsigned i = 0; i < NVMM_HOOKS + 8; i++) {
        memcpy(ram + 0x9000 + 64 * i, ram + IDT, 64);
        r.idt.base = 0x9000 + 64 * i;
        CHECK(hyp_set_regs(c, &r) == 0 && run(c, &e, NVMM__EXIT_NONE) == 0);
    }
    CHECK(h->nhooks == NVMM_HOOKS && vmm_get16(ram + r.idt.base + 48) == HANDLER);
    CHECK_EQ(hyp_debug(c, &none), 0);
    for (unsigned i = 0; i < NVMM_HOOKS + 8; i++)
        CHECK_EQ(vmm_get16(ram + 0x9000 + 64 * i + 48), HANDLER);
    CHECK_EQ(hyp_debug(c, &traps), 0); /* there is room again */
    CHECK_EQ(hyp_debug(&other, &traps), 0);
    CHECK(run(c, &e, NVMM__EXIT_NONE) == 0 && vmm_get16(ram + r.idt.base + 48) == SNARE_BP);
    nvmm.fails = 8;
    nvmm.err = EIO;
    nvmm.comm.cached = 0;
    CHECK_EQ(run(c, &e, NVMM__EXIT_NONE), -EIO);
    nvmm.fails = ~0u;
    CHECK_EQ(hyp_debug(c, &none), 0);
    CHECK_EQ(vmm_get16(ram + r.idt.base + 48), SNARE_BP); /* while another CPU wants it */
    CHECK_EQ(hyp_debug(&other, &none), 0);
    CHECK_EQ(vmm_get16(ram + r.idt.base + 48), HANDLER);
}

static void test_absent(struct hyp *h)
{
    const struct vmm_doorbell bell = {0};

    CHECK(hyp_irq_bell(h, 1, 1, true) == -ENOSYS && hyp_irq_resample(h, 1, 1, 1, true) == -ENOSYS);
    CHECK(hyp_msi_line(h, 1) == -ENOSYS && hyp_msi_route(h, 1, 1, 1) == -EINVAL);
    CHECK(hyp_eoi_route(h, 1, 1, 1) == -EINVAL && hyp_doorbell(h, &bell, 1, true) == -ENOSYS);
    CHECK(hyp_device_add(h, 1) == -ENOSYS && hyp_window_unmap(h, 0, 1) == -ENOSYS);
    CHECK_EQ(hyp_window_map(h, 0, 4096, ram, VMM_READ), -ENOSYS);
    hyp_irq_set(h, 1, true);
    hyp_msi_send(h, 1, 1);
}

static void test_version(unsigned version)
{
    struct hyp h;
    struct hyp_cpu c;

    open_both(&h, &c, version);
    test_ports(&c);
    test_mmio(&c);
    test_rom(&c);
    test_strings(&c);
    test_page_fault(&c);
    test_msrs(&c);
    test_inside(&c);
    test_ends(&c);
    test_windows(&c);
    test_nmis(&c);
    test_cr8(&c);
    test_kicks(&c, version);
    if (version != 2)
        test_late_kick(&c);
    test_traps(&c);
    test_late_trap(&c);
    test_step(&c);
    test_unable(&c);
    test_slots(&c);
    test_hooks(&h, &c);
    test_absent(&h);
    close_both(&h, &c);
}

int main(void)
{
    test_refusals();
    test_permission();
    test_words();
    test_memory();
    test_cpuid();
    test_registers();
    test_fpu();
    for (unsigned version = 1; version <= 3; version++) {
        test_cpu(version);
        test_version(version);
    }
    CHECK_DONE("test_nvmm");
}
