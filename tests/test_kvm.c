/* test_kvm.c - hv_kvm.h against a KVM that is played here: what it refuses and why, the CPUID that
   guests get, the exits that it reports. No /dev/kvm needed.  MIT licence, see LICENSE */
#define _GNU_SOURCE
#include <sys/ioctl.h>

static int fake_ioctl(int fd, int request, ...);
#define ioctl fake_ioctl
#define HV_KVM_IMPLEMENTATION
#include "hv_kvm.h"
#undef ioctl

#include "check.h"
#include <stdlib.h>
#include <sys/wait.h>

/* >>fake */
static struct {
    int version, max_cpus, create_err, run_err;
    unsigned missing_cap; /* KVM_CHECK_EXTENSION says 0 to this one */
    struct kvm_run *run;
    struct kvm_cpuid2 *set; /* what KVM_SET_CPUID2 got */
    struct kvm_sregs sregs;
    struct kvm_regs regs;
    unsigned irq_lines, routings;
    int route_err;
    unsigned created; /* KVM_CREATE_IRQCHIP */
    struct kvm_enable_cap enabled;
    struct kvm_msr_filter filter;
    struct kvm_msi msi;
    unsigned vector, nmis;
    struct kvm_irqfd irqfd;
    struct kvm_userspace_memory_region region;
    int region_err, device;
    struct kvm_ioeventfd bell;
    struct kvm_guest_debug debug;
    struct kvm_vcpu_events events;
    struct kvm_debugregs debugregs;
    struct kvm_fpu fpu;
} kvm;

static uint64_t set_cpuid[sizeof(struct hyp) / 8];

static const struct kvm_cpuid_entry2 host_cpuid[] = {
    {.function = 0, .eax = 0x16},
    {.function = 1, .ebx = 0x01020800, .ecx = 0, .edx = 1u << 9},
    {.function = 4, .index = 0, .flags = 1, .eax = 0x7c00ff21},
    {.function = 4, .index = 3, .flags = 1, .eax = 0x7c00ff63},
    {.function = 4, .index = 4, .flags = 1, .eax = 0},
    {.function = 0xb, .index = 0, .flags = 1, .eax = 1, .ebx = 2},
    {.function = 0xb, .index = 1, .flags = 1, .eax = 5, .ebx = 32},
    {.function = 0x15},
    {.function = 0x16},
    {.function = 0x40000000, .eax = 0x40000001, .ebx = 0x4b4d564b},
    {.function = 0x40000001, .eax = 0xffff},
    {.function = 0x80000008, .eax = 0x3030, .ecx = 0x700f},
    {.function = 0x8000001e, .eax = 77, .ebx = 0x100},
};

static int fake_cpuid(struct kvm_cpuid2 *c)
{
    if (c->nent < sizeof host_cpuid / sizeof host_cpuid[0])
        return E2BIG;
    c->nent = sizeof host_cpuid / sizeof host_cpuid[0];
    memcpy(c->entries, host_cpuid, sizeof host_cpuid);
    return 0;
}

static int fake_cap(unsigned long cap)
{
    if (cap == kvm.missing_cap)
        return 0;
    if (cap == KVM_CAP_SET_GUEST_DEBUG2)
        return KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ;
    return cap == KVM_CAP_MAX_VCPUS ? kvm.max_cpus : 1;
}

/* Where KVM copies: the size is in the request's number. */
static int fake_copy(unsigned request, void *arg, void *what)
{
    if (_IOC_DIR(request) & _IOC_READ)
        memcpy(arg, what, _IOC_SIZE(request));
    else
        memcpy(what, arg, _IOC_SIZE(request));
    return 0;
}

static int fake_answer(unsigned request, unsigned long number, void *arg)
{
    switch (request) {
    case KVM_GET_API_VERSION:
        return kvm.version < 0 ? -ENOTTY : kvm.version;
    case KVM_CHECK_EXTENSION:
        return fake_cap(number);
    case KVM_GET_VCPU_MMAP_SIZE:
        return 4096;
    case KVM_CREATE_VM:
        return kvm.create_err ? -kvm.create_err : open("/dev/null", O_RDWR);
    case KVM_CREATE_VCPU: {
        int fd = memfd_create("vcpu", 0);
        return ftruncate(fd, 4096) ? -1 : fd;
    }
    case KVM_GET_SUPPORTED_CPUID:
        return -fake_cpuid(arg);
    case KVM_SET_CPUID2:
        kvm.set =
            memcpy(set_cpuid, arg, 8 + ((struct kvm_cpuid2 *)arg)->nent * sizeof host_cpuid[0]);
        return 0;
    case KVM_SET_MSRS:
        return (int)((struct kvm_msrs *)arg)->nmsrs;
    case KVM_GET_MSRS:
        ((struct kvm_msrs *)arg)->entries[0].data = 0x123456789;
        return ((struct kvm_msrs *)arg)->entries[0].index == 0x10;
    case KVM_GET_TSC_KHZ:
        return 2500000;
    case KVM_GET_SREGS:
    case KVM_SET_SREGS:
        return fake_copy(request, arg, &kvm.sregs);
    case KVM_GET_REGS:
    case KVM_SET_REGS:
        return fake_copy(request, arg, &kvm.regs);
    case KVM_SET_GUEST_DEBUG:
        return fake_copy(_IOW(0, 0, struct kvm_guest_debug), arg, &kvm.debug);
    case KVM_GET_DEBUGREGS:
    case KVM_SET_DEBUGREGS:
        return fake_copy(request, arg, &kvm.debugregs);
    case KVM_GET_VCPU_EVENTS:
    case KVM_SET_VCPU_EVENTS:
        return fake_copy(request, arg, &kvm.events);
    case KVM_GET_FPU:
    case KVM_SET_FPU:
        return fake_copy(request, arg, &kvm.fpu);
    case KVM_TRANSLATE:
        ((struct kvm_translation *)arg)->physical_address =
            ((struct kvm_translation *)arg)->linear_address;
        ((struct kvm_translation *)arg)->valid = 1;
        return 0;
    case KVM_CREATE_IRQCHIP:
        kvm.created++;
        return 0;
    case KVM_ENABLE_CAP:
        return fake_copy(request, arg, &kvm.enabled);
    case KVM_X86_SET_MSR_FILTER:
        return fake_copy(request, arg, &kvm.filter);
    case KVM_SIGNAL_MSI:
        return fake_copy(request, arg, &kvm.msi);
    case KVM_INTERRUPT:
        return fake_copy(request, arg, &kvm.vector);
    case KVM_NMI:
        kvm.nmis++;
        return 0;
    case KVM_IRQ_LINE:
        kvm.irq_lines++;
        return 0;
    case KVM_SET_USER_MEMORY_REGION:
        return kvm.region_err ? -kvm.region_err : fake_copy(request, arg, &kvm.region);
    case KVM_CREATE_DEVICE:
        kvm.created++;
        ((struct kvm_create_device *)arg)->fd = (unsigned)open("/dev/null", O_RDWR);
        return 0;
    case KVM_SET_DEVICE_ATTR:
        kvm.device = *(int32_t *)(uintptr_t)((struct kvm_device_attr *)arg)->addr;
        return 0;
    case KVM_IRQFD:
        return fake_copy(request, arg, &kvm.irqfd);
    case KVM_IOEVENTFD:
        return fake_copy(request, arg, &kvm.bell);
    case KVM_SET_GSI_ROUTING:
        kvm.routings++;
        return kvm.route_err ? -kvm.route_err : 0;
    case KVM_RUN:
        return -kvm.run_err;
    default:
        return 0;
    }
}

static int fake_ioctl(int fd, int request, ...)
{
    va_list args;
    void *arg;
    int ret;

    (void)fd;
    va_start(args, request);
    arg = (unsigned)request == KVM_RUN ? NULL : va_arg(args, void *);
    va_end(args);
    ret = fake_answer((unsigned)request, (unsigned long)arg, arg);
    if (ret >= 0)
        return ret;
    errno = -ret;
    return -1;
}

/* >>tests */
static char said[512];
static unsigned nsaid;

static void hear(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    (void)ctx;
    (void)level;
    nsaid++;
    vsnprintf(said, sizeof said, fmt, args);
}

static const struct vmm_log log_here = {hear, NULL, VMM_LOG_ERROR};

static int open_with(struct hyp *h, const char *path, unsigned ncpus)
{
    struct hyp_desc desc = {.log = &log_here, .path = path, .ncpus = ncpus};

    nsaid = 0;
    said[0] = 0;
    return hyp_open(h, &desc);
}

static void healthy(void)
{
    memset(&kvm, 0, sizeof kvm);
    kvm.version = KVM_API_VERSION;
    kvm.max_cpus = 64;
    kvm.missing_cap = ~0u;
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

    healthy();
    check_refused(open_with(&h, "/nonexistent/kvm", 1), -ENOENT, "load kvm_intel or kvm_amd");
    kvm.version = -1;
    check_refused(open_with(&h, "/dev/null", 1), -ENOTSUP, "is not a KVM device");
    kvm.version = 11;
    check_refused(open_with(&h, "/dev/null", 1), -ENOTSUP, "too old: use Linux 4.13");
    healthy();
    kvm.missing_cap = KVM_CAP_IMMEDIATE_EXIT;
    check_refused(open_with(&h, "/dev/null", 1), -ENOTSUP, "too old");
    healthy();
    check_refused(open_with(&h, "/dev/null", 65), -E2BIG, "at most 64 CPUs in a VM, not 65");
    kvm.create_err = EBUSY;
    check_refused(open_with(&h, "/dev/null", 1), -EBUSY, "another hypervisor");
    healthy();
    kvm.max_cpus = 1000;
    kvm.missing_cap = KVM_CAP_X2APIC_API;
    CHECK_EQ(open_with(&h, "/dev/null", 300), 0); /* KVM_ENABLE_CAP decides, not the capability */
    hyp_close(&h);
    CHECK_EQ(h.vm, -1);
}

/* Who may not open it is told the group's name. Root may everything, so a child becomes nobody. */
static void test_permission(void)
{
    char path[] = "/tmp/vmm-test-kvm-XXXXXX";
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
        healthy();
        _exit(open_with(&h, path, 1) != -EACCES || !strstr(said, "to the group '"));
    }
    waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(fd);
    unlink(path);
}

static const struct kvm_cpuid_entry2 *leaf(unsigned function, unsigned index)
{
    static const struct kvm_cpuid_entry2 none;

    for (unsigned i = 0; kvm.set && i < kvm.set->nent; i++)
        if (kvm.set->entries[i].function == function && kvm.set->entries[i].index == index)
            return &kvm.set->entries[i];
    CHECK(!"the leaf is there");
    return &none;
}

/* The topology that CPU `id` of n is told, in Intel's and AMD's leaves. */
static void check_cpuid(unsigned id, unsigned n, unsigned shift)
{
    struct hyp h;
    struct hyp_cpu c;

    healthy();
    CHECK_EQ(open_with(&h, "/dev/null", n), 0);
    CHECK_EQ(hyp_cpu_open(&c, &h, id), 0);
    CHECK_EQ(leaf(1, 0)->ebx >> 24, id);
    CHECK_EQ(leaf(1, 0)->ebx >> 16 & 255, 1u << shift);
    CHECK_EQ(leaf(1, 0)->edx >> 28 & 1, n > 1);
    CHECK_EQ(leaf(1, 0)->edx & 1u << 9, 1u << 9); /* the host's features stay */
    CHECK_EQ(leaf(1, 0)->ecx, 1u << 31 | 1u << 24 | 1u << 21);
    CHECK_EQ(leaf(4, 0)->eax >> 14 & 0xfff, 0);
    CHECK_EQ(leaf(4, 3)->eax >> 14 & 0xfff, (1u << shift) - 1);
    CHECK_EQ(leaf(4, 3)->eax >> 26, (1u << shift) - 1);
    CHECK_EQ(leaf(4, 4)->eax, 0);
    CHECK_EQ(leaf(0xb, 0)->eax, 0);
    CHECK_EQ(leaf(0xb, 0)->ebx, 1);
    CHECK_EQ(leaf(0xb, 0)->ecx, 0x100);
    CHECK_EQ(leaf(0xb, 1)->eax, shift);
    CHECK_EQ(leaf(0xb, 1)->ebx, n);
    CHECK_EQ(leaf(0xb, 1)->ecx, 0x201);
    CHECK_EQ(leaf(0xb, 2)->ecx, 2);
    CHECK_EQ(leaf(0xb, 0)->edx, id);
    CHECK_EQ(leaf(0x80000008, 0)->ecx, n - 1 + (shift << 12));
    CHECK_EQ(leaf(0x8000001e, 0)->eax, id);
    CHECK_EQ(leaf(0x40000000, 0)->eax, 0x40000010);
    CHECK_EQ(leaf(0x40000010, 0)->eax, 2500000);
    CHECK_EQ((uint64_t)leaf(0x15, 0)->ecx * leaf(0x15, 0)->ebx / leaf(0x15, 0)->eax, 2500000000u);
    CHECK_EQ(leaf(0x16, 0)->eax, 2500);
    hyp_cpu_close(&c);
    hyp_close(&h);
}

static void test_regs(struct hyp_cpu *c)
{
    struct vmm_x86_regs in = {.rip = 0x1234,
                              .rflags = 2,
                              .cr0 = 0x80000011,
                              .cr3 = 0x8000,
                              .efer = 0x500},
                        out;

    for (unsigned i = 0; i < 16; i++)
        in.gpr[i] = i * 0x0101010101010101;
    in.cs = (struct vmm_x86_seg){0, 0xffffffff, 0x10, 0xa09b};
    in.ss = (struct vmm_x86_seg){0, 0xffffffff, 0x18, 0xc093};
    in.gdt = (struct vmm_x86_seg){.base = 0xe000, .limit = 31};
    kvm.sregs.apic_base = 0xfee00900;
    CHECK_EQ(hyp_set_regs(c, &in), 0);
    CHECK_EQ(kvm.sregs.apic_base, 0xfee00900); /* not ours to change */
    CHECK(kvm.sregs.cs.l && !kvm.sregs.cs.db && kvm.sregs.cs.g && kvm.sregs.cs.present);
    CHECK(kvm.sregs.ldt.unusable && !kvm.sregs.ss.unusable && kvm.sregs.ss.db);
    CHECK_EQ(kvm.regs.rbx, 3 * 0x0101010101010101);
    CHECK_EQ(kvm.regs.rsi, 6 * 0x0101010101010101);
    CHECK_EQ(hyp_get_regs(c, &out), 0);
    CHECK(memcmp(&in, &out, sizeof in) == 0);
}

static void test_exits(struct hyp_cpu *c)
{
    struct kvm_run *run = c->run;
    struct vmm_exit e;

    run->exit_reason = KVM_EXIT_IO;
    run->io.direction = KVM_EXIT_IO_OUT;
    run->io.port = 0x3f8;
    run->io.size = 2;
    run->io.count = 3;
    run->io.data_offset = 512;
    CHECK_EQ(hyp_run(c, &e), 0);
    CHECK(e.kind == VMM_EXIT_PIO && e.write && e.addr == 0x3f8 && e.size == 2 && e.count == 3);
    CHECK(e.data == (uint8_t *)run + 512);
    run->exit_reason = KVM_EXIT_MMIO;
    run->mmio.is_write = 0;
    run->mmio.phys_addr = 0xd0000070;
    run->mmio.len = 4;
    CHECK_EQ(hyp_run(c, &e), 0);
    CHECK(e.kind == VMM_EXIT_MMIO && !e.write && e.addr == 0xd0000070 && e.size == 4 &&
          e.count == 1);
    run->exit_reason = KVM_EXIT_HLT;
    CHECK(hyp_run(c, &e) == 0 && e.kind == VMM_EXIT_HALT);
    run->exit_reason = KVM_EXIT_SHUTDOWN;
    CHECK(hyp_run(c, &e) == 0 && e.kind == VMM_EXIT_SHUTDOWN);
    run->exit_reason = 12345;
    CHECK(hyp_run(c, &e) == 0 && e.kind == VMM_EXIT_FAULT && e.code == 12345);
}

/* What is wanted, and which of it has come. */
static void test_debug(struct hyp_cpu *c)
{
    struct kvm_run *run = c->run;
    struct vmm_debug want = {.slot = {{0x1000, 1, VMM_BREAK_EXEC},
                                      {0x2000, 8, VMM_BREAK_WRITE},
                                      {0},
                                      {0x3004, 4, VMM_BREAK_ACCESS}},
                             .traps = true};
    const struct vmm_debug nothing = {0};
    struct vmm_exit e;

    CHECK(hyp_caps(c->hyp) & HYP_CAP_DEBUG);
    CHECK_EQ(hyp_debug(c, &want), 0);
    CHECK_EQ(kvm.debug.control,
             KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP | KVM_GUESTDBG_USE_SW_BP);
    CHECK(kvm.debug.arch.debugreg[1] == 0x2000 && kvm.debug.arch.debugreg[3] == 0x3004);
    CHECK_EQ(kvm.debug.arch.debugreg[7], 0xf090068a);
    run->exit_reason = KVM_EXIT_DEBUG;
    run->debug.arch.exception = 1;
    run->debug.arch.pc = 0x1000;
    run->debug.arch.dr6 = 0xffff4ff7; /* slot 2 is not in use, and a step was not asked for */
    CHECK_EQ(hyp_run(c, &e), 0);
    CHECK(e.kind == VMM_EXIT_DEBUG && e.addr == 0x1000 && e.code == 3);
    kvm.debugregs.dr6 = 0xffff0ff0;
    CHECK_EQ(hyp_debug_pass(c), 0);
    CHECK_EQ(kvm.debugregs.dr6, 0xffff4ff7);
    CHECK_EQ(kvm.debug.control, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP |
                                    KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_INJECT_DB);
    run->debug.arch.exception = 3;
    CHECK_EQ(hyp_run(c, &e), 0);
    CHECK_EQ(e.code, VMM_DEBUG_TRAP);
    CHECK_EQ(hyp_debug_pass(c), 0);
    CHECK(kvm.debug.control & KVM_GUESTDBG_INJECT_BP);
    want.step = true;
    CHECK_EQ(hyp_debug(c, &want), 0);
    CHECK_EQ(kvm.debug.control, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP |
                                    KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_SINGLESTEP |
                                    KVM_GUESTDBG_BLOCKIRQ);
    run->debug.arch.exception = 1;
    run->debug.arch.dr6 = 0xffff4ff0;
    CHECK_EQ(hyp_run(c, &e), 0);
    CHECK_EQ(e.code, VMM_DEBUG_STEP);
    CHECK_EQ(hyp_debug(c, &nothing), 0);
    CHECK_EQ(kvm.debug.control, 0);
}

static void test_fpu(struct hyp_cpu *c)
{
    struct vmm_x86_fpu in = {.fip = 1, .fdp = 2, .mxcsr = 0x1f80, .fcw = 0x37f, .fsw = 5}, out;

    in.ftw = 0x81;
    in.fop = 0x7ff;
    memset(in.st[7], 7, 16);
    memset(in.xmm[15], 15, 16);
    CHECK_EQ(hyp_set_fpu(c, &in), 0);
    CHECK(kvm.fpu.fcw == 0x37f && kvm.fpu.ftwx == 0x81 && kvm.fpu.fpr[7][0] == 7);
    memset(&out, 0, sizeof out);
    CHECK_EQ(hyp_get_fpu(c, &out), 0);
    CHECK(out.fip == 1 && out.fdp == 2 && out.mxcsr == 0x1f80 && out.fsw == 5 && out.ftw == 0x81);
    CHECK(out.fop == 0x7ff && out.xmm[15][15] == 15 && out.st[7][15] == 7);
}

static void test_faults(struct hyp_cpu *c, const uint8_t *ram)
{
    struct kvm_run *run = c->run;
    struct vmm_exit e;

    kvm.sregs.cs.base = 0;
    kvm.regs.rip = 0xffa; /* six bytes to the end of the page */
    run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
    run->internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
    CHECK(hyp_run(c, &e) == 0 && e.kind == VMM_EXIT_FAULT && e.code == 1);
    CHECK(strstr(e.why, "cannot emulate"));
    CHECK(e.size == 6 && memcmp(e.data, ram + 0xffa, 6) == 0);
    kvm.regs.rip = 1ull << 40; /* no RAM there: no bytes */
    CHECK(hyp_run(c, &e) == 0 && e.size == 0);
    kvm.run_err = EFAULT;
    CHECK(hyp_run(c, &e) == 0 && e.kind == VMM_EXIT_FAULT && strstr(e.why, "memory is gone"));
    kvm.run_err = EINTR;
    run->immediate_exit = 1;
    CHECK(hyp_run(c, &e) == 0 && e.kind == VMM_EXIT_AGAIN && !run->immediate_exit);
    nsaid = 0;
    kvm.run_err = EINVAL;
    CHECK(hyp_run(c, &e) == -EINVAL && nsaid == 1);
    kvm.run_err = 0;
    hyp_kick(c);
    CHECK(run->immediate_exit);
}

static void test_lines(struct hyp *h)
{
    hyp_irq_set(h, 4, true);
    hyp_irq_set(h, 1000, true); /* a line that KVM may know and the IOAPIC does not */
    CHECK_EQ(kvm.irq_lines, 2);
    CHECK_EQ(hyp_irq_bell(h, 5, 77, true), 0);
    CHECK(kvm.irqfd.gsi == 5 && kvm.irqfd.fd == 77 && kvm.irqfd.flags == 0);
    CHECK_EQ(hyp_irq_bell(h, 5, 77, false), 0);
    CHECK_EQ(kvm.irqfd.flags, KVM_IRQFD_FLAG_DEASSIGN);
    CHECK_EQ(hyp_irq_bell(h, 24, 77, true), -EINVAL); /* no such line yet */
}

/* The table that KVM gets must repeat the lines of the chips, or they would be gone. */
static void test_messages(struct hyp *h)
{
    const struct kvm_irq_routing *table = (const void *)h->routes;
    const struct kvm_irq_routing_entry *last;

    CHECK_EQ(hyp_msi_route(h, 24, 0xfee00000, 1), -EINVAL);
    CHECK_EQ(hyp_msi_line(h, 8), 24);
    CHECK_EQ(hyp_msi_line(h, 8), 25);
    CHECK_EQ(hyp_msi_route(h, 25, 0x1fee01000, 0x4021), 0);
    CHECK(kvm.routings == 1 && table->nr == 16 + 24 + 1);
    for (unsigned i = 0, pins = 0; i < table->nr; i++) {
        const struct kvm_irq_routing_entry *e = &table->entries[i];
        if (e->type == KVM_IRQ_ROUTING_IRQCHIP && e->u.irqchip.irqchip == KVM_IRQCHIP_IOAPIC)
            CHECK(e->gsi == e->u.irqchip.pin && e->gsi == pins++);
    }
    last = &table->entries[table->nr - 1];
    CHECK(last->gsi == 25 && last->u.msi.data == 0x4021 && last->u.msi.address_hi == 1);
    CHECK_EQ(hyp_msi_route(h, 24, 0xfee00000, 1), 0);
    CHECK_EQ(hyp_msi_route(h, 25, 0xfee00000, 2), 0); /* again: no second entry */
    CHECK(table->nr == 16 + 24 + 2 && last->u.msi.data == 2 && last->u.msi.address_hi == 0);
    kvm.route_err = EINVAL; /* a message that cannot be: what was before goes on */
    nsaid = 0;
    CHECK_EQ(hyp_msi_route(h, 25, 0xff00000000, 3), -EINVAL);
    CHECK(last->u.msi.data == 2 && table->nr == 16 + 24 + 2 && nsaid == 0);
    CHECK_EQ(hyp_msi_line(h, 8), 26);
    CHECK_EQ(hyp_msi_route(h, 26, 0xff00000000, 3), -EINVAL);
    CHECK_EQ(table->nr, 16 + 24 + 2);
    kvm.route_err = 0;
    CHECK_EQ(hyp_irq_bell(h, 25, 77, true), 0);
    while (h->nlines < HYP_MSI_LINES_MAX)
        hyp_msi_line(h, 8);
    CHECK_EQ(hyp_msi_line(h, 8), -ENOSPC);
}

/* Memory of devices, which comes and goes: its slots are behind those of RAM, and used again. */
static void test_windows(struct hyp *h)
{
    static uint8_t page[8192];

    CHECK_EQ(hyp_window_map(h, 0xc0000000, 4096, page, VMM_READ), 0);
    CHECK(kvm.region.slot == VMM_MEM_MAX && kvm.region.flags == KVM_MEM_READONLY);
    CHECK_EQ(hyp_window_map(h, 0xc0004000, 8192, page, VMM_READ | VMM_WRITE), 0);
    CHECK(kvm.region.slot == VMM_MEM_MAX + 1 && !kvm.region.flags && kvm.region.memory_size == 8192);
    CHECK_EQ(hyp_window_unmap(h, 0xc0000000, 8192), -ENOENT);
    CHECK_EQ(hyp_window_unmap(h, 0xc0000000, 4096), 0);
    CHECK(kvm.region.slot == VMM_MEM_MAX && kvm.region.memory_size == 0);
    CHECK_EQ(hyp_window_unmap(h, 0xc0000000, 4096), -ENOENT);
    kvm.region_err = EEXIST;
    nsaid = 0;
    CHECK_EQ(hyp_window_map(h, 0, 4096, page, VMM_READ), -EEXIST);
    CHECK_EQ(nsaid, 0);
    kvm.region_err = 0;
    for (unsigned i = 1; i < HYP_WINDOWS_MAX; i++)
        CHECK_EQ(hyp_window_map(h, 0xd0000000 + i * 4096, 4096, page, VMM_READ | VMM_WRITE), 0);
    CHECK_EQ(hyp_window_map(h, 0xe0000000, 4096, page, VMM_READ), -ENOSPC);
}

static void test_devices(struct hyp *h)
{
    unsigned before = kvm.created;

    CHECK_EQ(hyp_device_add(h, 17), 0);
    CHECK_EQ(hyp_device_add(h, 18), 0);
    CHECK(kvm.device == 18 && kvm.created == before + 1); /* one list for all */
    CHECK_EQ(hyp_irq_resample(h, 16, 70, 71, true), 0);
    CHECK(kvm.irqfd.gsi == 16 && kvm.irqfd.fd == 70 && kvm.irqfd.resamplefd == 71);
    CHECK_EQ(kvm.irqfd.flags, KVM_IRQFD_FLAG_RESAMPLE);
    CHECK_EQ(hyp_irq_resample(h, 16, 70, 71, false), 0);
    CHECK_EQ(kvm.irqfd.flags, KVM_IRQFD_FLAG_DEASSIGN);
    kvm.missing_cap = KVM_CAP_IRQFD_RESAMPLE;
    CHECK_EQ(hyp_irq_resample(h, 16, 70, 71, true), -ENOSYS);
    kvm.missing_cap = ~0u;
}

/* LAPICs alone are in the kernel: routes of the first lines say whose EOIs come out. */
static void test_split(void)
{
    struct hyp_desc desc = {.path = "/dev/null", .log = &log_here, .split_irqchip = true};
    struct hyp h;
    const struct kvm_irq_routing *table = (const void *)h.routes;

    kvm.created = 0;
    CHECK_EQ(hyp_open(&h, &desc), 0);
    CHECK_EQ(hyp_caps(&h) & (HYP_CAP_IRQCHIP | HYP_CAP_LAPIC | HYP_CAP_MSI),
             HYP_CAP_LAPIC | HYP_CAP_MSI);
    CHECK_EQ(kvm.created, 0);
    CHECK(kvm.enabled.cap == KVM_CAP_SPLIT_IRQCHIP && kvm.enabled.args[0] == 24);
    CHECK_EQ(hyp_irq_bell(&h, 5, 77, true), -ENOSYS);
    CHECK_EQ(hyp_eoi_route(&h, 9, 0xfee00000, 0xc044), 0);
    CHECK_EQ(hyp_eoi_route(&h, 9, 0xfee01000, 0xc045), 0);
    CHECK_EQ(hyp_eoi_route(&h, 24, 0xfee01000, 0xc045), -EINVAL);
    CHECK(table->nr == 1 && table->entries[0].gsi == 9 && table->entries[0].u.msi.data == 0xc045);
    hyp_msi_send(&h, 0xfee02000, 0x33);
    CHECK(kvm.msi.address_lo == 0xfee02000 && kvm.msi.data == 0x33);
    hyp_close(&h);
    kvm.missing_cap = KVM_CAP_SPLIT_IRQCHIP;
    CHECK_EQ(hyp_open(&h, &desc), 0);
    CHECK(!(hyp_caps(&h) & HYP_CAP_LAPIC));
    hyp_close(&h);
    kvm.missing_cap = 0;
}

/* The exits and injections of a vCPU whose LAPIC is the caller's. */
static void test_injection(struct hyp_cpu *c)
{
    struct kvm_run *run = c->run;
    struct vmm_exit e;
    uint64_t hz;

    run->exit_reason = KVM_EXIT_X86_WRMSR;
    run->msr.index = 0x830;
    run->msr.data = 0x1234567800000041;
    CHECK(hyp_run(c, &e) == 0 && e.kind == VMM_EXIT_MSR && e.write && e.addr == 0x830);
    CHECK_EQ(vmm_get64(e.data), 0x1234567800000041);
    CHECK(!run->msr.error);
    hyp_msr_refuse(c);
    CHECK(run->msr.error);
    run->exit_reason = KVM_EXIT_X86_RDMSR;
    CHECK(hyp_run(c, &e) == 0 && e.kind == VMM_EXIT_MSR && !e.write);
    run->exit_reason = KVM_EXIT_IOAPIC_EOI;
    run->eoi.vector = 0x51;
    CHECK(hyp_run(c, &e) == 0 && e.kind == VMM_EXIT_EOI && e.addr == 0x51);
    run->exit_reason = KVM_EXIT_SET_TPR;
    CHECK(hyp_run(c, &e) == 0 && e.kind == VMM_EXIT_AGAIN);
    run->ready_for_interrupt_injection = 1;
    run->if_flag = 0;
    CHECK(!hyp_ready(c));
    run->if_flag = 1;
    CHECK(hyp_ready(c));
    CHECK_EQ(hyp_inject(c, 0x41), 0);
    CHECK(kvm.vector == 0x41 && !hyp_ready(c)); /* one at a time */
    hyp_want_window(c, true);
    CHECK(run->request_interrupt_window);
    hyp_want_window(c, false);
    CHECK(!run->request_interrupt_window);
    CHECK(hyp_inject_nmi(c) == 0 && kvm.nmis == 1);
    kvm.events.interrupt.injected = kvm.events.nmi.pending = 1;
    kvm.events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SMM;
    kvm.events.smi.smm = 1;
    CHECK_EQ(hyp_uninject(c), 0);
    CHECK(!kvm.events.interrupt.injected && !kvm.events.nmi.pending && kvm.events.smi.smm);
    CHECK(kvm.events.flags & KVM_VCPUEVENT_VALID_NMI_PENDING); /* or it would stay */
    hyp_set_cr8(c, 9);
    CHECK(run->cr8 == 9 && hyp_cr8(c) == 9);
    CHECK(hyp_tsc(c, &hz) == 0x123456789 && hz == 2500000000);
}

/* Without LAPICs in the kernel, guests get what works: x2APIC where its MSRs come out. */
static void test_no_irqchip(void)
{
    struct hyp_desc desc = {.path = "/dev/null", .log = &log_here, .no_irqchip = true};
    struct hyp_cpu c;
    struct hyp h;

    CHECK(hyp_open(&h, &desc) == 0 && hyp_cpu_open(&c, &h, 0) == 0);
    CHECK(!(hyp_caps(&h) & (HYP_CAP_IRQCHIP | HYP_CAP_LAPIC | HYP_CAP_MSI)));
    CHECK_EQ(kvm.enabled.cap, KVM_CAP_X86_USER_SPACE_MSR);
    CHECK_EQ(kvm.enabled.args[0], KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_FILTER);
    CHECK(kvm.filter.ranges[0].base == 0x1b && kvm.filter.ranges[1].base == 0x6e0);
    CHECK(kvm.filter.ranges[0].nmsrs == 1 && kvm.filter.ranges[2].nmsrs == 0);
    CHECK_EQ(leaf(1, 0)->ecx & (1u << 24 | 1u << 21), 1u << 24 | 1u << 21);
    CHECK_EQ(leaf(0x40000001, 0)->eax, 0x132f); /* nothing that its LAPICs do */
    test_injection(&c);
    hyp_cpu_close(&c);
    hyp_close(&h);
    kvm.missing_cap = KVM_CAP_X86_USER_SPACE_MSR;
    CHECK(hyp_open(&h, &desc) == 0 && hyp_cpu_open(&c, &h, 0) == 0);
    CHECK_EQ(leaf(1, 0)->ecx & (1u << 24 | 1u << 21), 0);
    hyp_cpu_close(&c);
    hyp_close(&h);
    kvm.missing_cap = 0;
}

static void test_doorbells(struct hyp *h)
{
    struct vmm_doorbell where = {.gpa = 0xd0000050, .len = 4, .match = true, .value = 3};

    CHECK_EQ(hyp_doorbell(h, &where, 78, true), 0);
    CHECK(kvm.bell.addr == 0xd0000050 && kvm.bell.len == 4 && kvm.bell.fd == 78);
    CHECK(kvm.bell.datamatch == 3 && kvm.bell.flags == KVM_IOEVENTFD_FLAG_DATAMATCH);
    where.match = false;
    CHECK_EQ(hyp_doorbell(h, &where, 78, false), 0);
    CHECK_EQ(kvm.bell.flags, KVM_IOEVENTFD_FLAG_DEASSIGN);
    where.len = 0;
    where.match = true; /* not together with any width */
    CHECK_EQ(hyp_doorbell(h, &where, 78, true), 0);
    CHECK(kvm.bell.len == 0 && kvm.bell.flags == 0);
    h->any_width = false;
    CHECK_EQ(hyp_doorbell(h, &where, 78, true), -ENOSYS);
}

int main(void)
{
    static uint8_t ram[8192] __attribute__((aligned(4096)));
    struct hyp h;
    struct hyp_cpu c;

    test_refusals();
    test_permission();
    check_cpuid(0, 1, 0);
    check_cpuid(1, 2, 1);
    check_cpuid(4, 5, 3);
    check_cpuid(63, 64, 6);
    healthy();
    CHECK_EQ(open_with(&h, "/dev/null", 1), 0);
    CHECK_EQ(hyp_cpu_open(&c, &h, 0), 0);
    for (unsigned i = 0; i < sizeof ram; i++)
        ram[i] = (uint8_t)(i * 7);
    CHECK_EQ(hyp_map(&h, 0, sizeof ram, ram, VMM_READ | VMM_WRITE), 0);
    test_regs(&c);
    test_exits(&c);
    test_debug(&c);
    test_fpu(&c);
    test_faults(&c, ram);
    test_lines(&h);
    test_messages(&h);
    test_windows(&h);
    test_devices(&h);
    test_doorbells(&h);
    hyp_cpu_close(&c);
    hyp_close(&h);
    test_split();
    test_no_irqchip();
    CHECK_DONE("test_kvm");
}
