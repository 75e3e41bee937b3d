/* shim_hvf_arm64.c - Hypervisor.framework of Apple Silicon, played on Linux' KVM, so that hv_hvf.h
   boots guests where there is no Mac                               MIT licence, see LICENSE

   Each hv_* function does on KVM what Apple documents, and aborts where Apple's rules are broken. A
   KVM exit becomes the exit that the framework would have: of an access to a device the instruction
   is fetched and decoded, for the syndrome says which register it is, and compared with what KVM
   knows of it; calls come out by a filter (Linux 6.4), for SMC at the instruction. KVM itself does
   WFI, the traps of system registers and SMCCC_VERSION: these are not seen here. */
#define _GNU_SOURCE
#define VMM_DEF static __attribute__((unused))
#define DEBUG_IMPLEMENTATION
#include "../debug.h"
#include <Hypervisor/Hypervisor.h>
#include <mach/mach_time.h>
#include <os/object.h>

#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Newer than the kernel headers of the system that this is built on. */
struct shim_filter {
    uint32_t base, nr;
    uint8_t action, pad[15];
};
struct shim_offset {
    uint64_t offset, reserved;
};
enum { SHIM_FORWARD = 2, SHIM_EXIT_SMC = 1 };
#define SHIM_SET_OFFSET _IOW(KVMIO, 0xb5, struct shim_offset)

/* What must hold, be it Apple's rule or KVM's answer. */
#define MUST(held, why)                                                                            \
    do {                                                                                           \
        if (!(held)) {                                                                             \
            fprintf(stderr, "shim_hvf: %s: %s (%s)\n", __func__, why, strerror(errno));            \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

enum { VCPUS = 8, PAGE = 16384, FRAME_LEN = 0x10000 };

struct vcpu {
    bool exists;
    int fd, tid;
    pthread_t owner;
    struct kvm_run *run;
    bool cancel; /* atomic */
    bool masked;
    bool line[2], told[2]; /* for the next run; as KVM has them */
    hv_vcpu_exit_t exit;
    bool traps, trapped; /* debug exceptions come out; KVM knows of some */
    bool lent;           /* accesses to debug registers do, which shall be: */
    uint64_t debug[16][4], mdscr;
};

static struct {
    int kvm, vm, gic; /* gic: 0: none */
    bool ran, offset_set;
    uint64_t frame;
    uint32_t first, count; /* SPIs for messages */
    uint32_t bits;
    struct vmm_mem mem;
    struct vcpu vcpu[VCPUS];
    pthread_mutex_t lock;
} s = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int request(int fd, unsigned long what, void *arg)
{
    int ret;

    do
        ret = ioctl(fd, (int)what, arg);
    while (ret < 0 && errno == EINTR);
    return ret;
}

/* >>time: the counter itself, as in the guest but for the offset. */
uint64_t mach_absolute_time(void)
{
    uint64_t t;

    __asm__ volatile("isb\n mrs %0, cntvct_el0" : "=r"(t));
    return t;
}

int mach_timebase_info(struct mach_timebase_info *info)
{
    uint64_t hz, a, b = 1000000000;

    __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(hz));
    for (a = hz; b;) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    *info = (struct mach_timebase_info){(uint32_t)(1000000000 / a), (uint32_t)(hz / a)};
    return 0;
}

/* >>vm */
void os_release(void *object)
{
    MUST(object == &s, "no object of ours");
}

hv_vm_config_t hv_vm_config_create(void)
{
    return (hv_vm_config_t)(void *)&s;
}

hv_return_t hv_vm_config_get_default_ipa_size(uint32_t *bits)
{
    *bits = 36;
    return HV_SUCCESS;
}

hv_return_t hv_vm_config_get_max_ipa_size(uint32_t *bits)
{
    *bits = 40;
    return HV_SUCCESS;
}

hv_return_t hv_vm_config_set_ipa_size(hv_vm_config_t config, uint32_t bits)
{
    MUST(config && bits <= 40, "no such width");
    s.bits = bits;
    return HV_SUCCESS;
}

hv_return_t hv_vm_get_max_vcpu_count(uint32_t *n)
{
    *n = VCPUS;
    return HV_SUCCESS;
}

static void interrupted(int signo)
{
    (void)signo;
}

static void forward(uint32_t base, uint32_t nr)
{
    struct shim_filter f = {.base = base, .nr = nr, .action = SHIM_FORWARD};
    struct kvm_device_attr attr = {.addr = (uintptr_t)&f};

    MUST(!request(s.vm, KVM_SET_DEVICE_ATTR, &attr), "calls do not come out: Linux 6.4 or newer?");
}

hv_return_t hv_vm_create(hv_vm_config_t config)
{
    struct kvm_enable_cap odd = {.cap = KVM_CAP_ARM_NISV_TO_USER};
    struct sigaction sa = {.sa_handler = interrupted};

    MUST(!s.vm, "a process has one VM");
    s.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (s.kvm < 0)
        return HV_DENIED;
    s.vm = ioctl(s.kvm, KVM_CREATE_VM, (unsigned long)(config ? s.bits : 36));
    MUST(s.vm > 0 && !request(s.vm, KVM_ENABLE_CAP, &odd), "no VM");
    forward(0x84000000, 0x20);
    forward(0xc4000000, 0x20);
    sigaction(SIGRTMIN + 1, &sa, NULL);
    return HV_SUCCESS;
}

hv_return_t hv_vm_destroy(void)
{
    for (unsigned i = 0; i < VCPUS; i++)
        MUST(!s.vcpu[i].exists, "a vCPU is left");
    close(s.vm);
    close(s.kvm);
    s.vm = 0;
    return HV_SUCCESS;
}

hv_return_t hv_vm_map(void *addr, hv_ipa_t ipa, size_t size, hv_memory_flags_t flags)
{
    struct kvm_userspace_memory_region r = {.slot = s.mem.nranges,
                                            .flags = flags & HV_MEMORY_WRITE ? 0 : KVM_MEM_READONLY,
                                            .guest_phys_addr = ipa,
                                            .memory_size = size,
                                            .userspace_addr = (uintptr_t)addr};

    MUST(s.vm && !(((uintptr_t)addr | ipa | size) % PAGE), "pages have 16 KiB");
    if (vmm_mem_add(&s.mem, ipa, size, addr))
        return HV_BAD_ARGUMENT;
    MUST(!request(s.vm, KVM_SET_USER_MEMORY_REGION, &r), "no memory");
    return HV_SUCCESS;
}

/* Not needed by what is tested. */
hv_return_t hv_vm_unmap(hv_ipa_t ipa, size_t size)
{
    (void)ipa;
    (void)size;
    return HV_UNSUPPORTED;
}

/* >>gic */
static void gic_attr(uint32_t group, uint64_t attr, void *value)
{
    struct kvm_device_attr a = {.group = group, .attr = attr, .addr = (uintptr_t)value};

    MUST(!request(s.gic, KVM_SET_DEVICE_ATTR, &a), "KVM refuses the GIC");
}

static void *gic_config_create(void)
{
    struct kvm_create_device d = {.type = KVM_DEV_TYPE_ARM_VGIC_V3};

    for (unsigned i = 0; i < VCPUS; i++)
        MUST(!s.vcpu[i].exists, "it comes before the first vCPU");
    MUST(s.vm && !request(s.vm, KVM_CREATE_DEVICE, &d), "no GICv3 here");
    s.gic = (int)d.fd;
    return &s;
}

static hv_return_t gic_set_distributor(void *config, uint64_t ipa)
{
    MUST(config == &s, "no configuration");
    gic_attr(KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, &ipa);
    return HV_SUCCESS;
}

static hv_return_t gic_set_redistributor(void *config, uint64_t ipa)
{
    MUST(config == &s, "no configuration");
    gic_attr(KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST, &ipa);
    return HV_SUCCESS;
}

static hv_return_t gic_set_frame(void *config, uint64_t ipa)
{
    MUST(config == &s && !(ipa % FRAME_LEN), "no place for the frame");
    s.frame = ipa;
    return HV_SUCCESS;
}

static hv_return_t gic_set_range(void *config, uint32_t first, uint32_t count)
{
    MUST(config == &s && first >= 32 && first + count <= 1020, "no such SPIs");
    s.first = first;
    s.count = count;
    return HV_SUCCESS;
}

static hv_return_t gic_create(void *config)
{
    uint32_t n = s.first + s.count;

    MUST(config == &s && s.frame, "a place is missing");
    gic_attr(KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &n);
    return HV_SUCCESS;
}

static void line(uint32_t irq, bool level)
{
    struct kvm_irq_level l = {.irq = irq, .level = level};

    MUST(!request(s.vm, KVM_IRQ_LINE, &l), "KVM refuses a line");
}

static hv_return_t gic_set_spi(uint32_t intid, bool level)
{
    if (intid < 32 || intid >= s.first)
        return HV_BAD_ARGUMENT;
    if (s.ran) /* before, KVM has no lines; nor has the guest any use of them */
        line(KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT | intid, level);
    return HV_SUCCESS;
}

static hv_return_t gic_send_msi(uint64_t gpa, uint32_t intid)
{
    MUST(gpa == s.frame + 0x40, "not the frame's register");
    if (intid < s.first || intid >= s.first + s.count)
        return HV_BAD_ARGUMENT;
    line(KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT | intid, true);
    line(KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT | intid, false);
    return HV_SUCCESS;
}

void *shim_symbol(const char *name);
void *shim_symbol(const char *name)
{
    static const struct {
        const char *name;
        void (*fn)(void);
    } known[] = {
        {"hv_gic_config_create", (void (*)(void))gic_config_create},
        {"hv_gic_config_set_distributor_base", (void (*)(void))gic_set_distributor},
        {"hv_gic_config_set_redistributor_base", (void (*)(void))gic_set_redistributor},
        {"hv_gic_config_set_msi_region_base", (void (*)(void))gic_set_frame},
        {"hv_gic_config_set_msi_interrupt_range", (void (*)(void))gic_set_range},
        {"hv_gic_create", (void (*)(void))gic_create},
        {"hv_gic_set_spi", (void (*)(void))gic_set_spi},
        {"hv_gic_send_msi", (void (*)(void))gic_send_msi},
    };
    void *at = NULL;

    for (unsigned i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].name, name) == 0)
            memcpy(&at, &known[i].fn, sizeof at);
    return at;
}

/* Guests write to the frame, which is macOS' own; false: it is no access to it. */
static bool frame_access(struct kvm_run *run)
{
    uint64_t off = run->mmio.phys_addr - s.frame;
    uint32_t val = 0;

    if (!s.gic || off >= FRAME_LEN)
        return false;
    memcpy(&val, run->mmio.data, sizeof val);
    if (run->mmio.is_write && off == 0x40)
        gic_send_msi(s.frame + off, val);
    val = off == 8 ? s.first << 16 | s.count : 0;
    if (!run->mmio.is_write)
        memcpy(run->mmio.data, &val, sizeof val);
    return true;
}

/* >>vcpu */
static struct vcpu *of(hv_vcpu_t id)
{
    MUST(id < VCPUS && s.vcpu[id].exists, "there is no such vCPU");
    return &s.vcpu[id];
}

static struct vcpu *mine(hv_vcpu_t id)
{
    struct vcpu *v = of(id);

    MUST(pthread_equal(v->owner, pthread_self()), "the vCPU is another thread's");
    return v;
}

static void init_vcpu(struct vcpu *v, unsigned id)
{
    struct kvm_vcpu_init init;
    int len = ioctl(s.kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

    v->fd = ioctl(s.vm, KVM_CREATE_VCPU, (unsigned long)id);
    MUST(v->fd > 0 && len > 0, "no vCPU");
    v->run = mmap(NULL, (size_t)len, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    MUST(v->run != MAP_FAILED, "no vCPU");
    MUST(!request(s.vm, KVM_ARM_PREFERRED_TARGET, &init), "no vCPU");
    init.features[0] |= 1u << KVM_ARM_VCPU_PSCI_0_2;
    MUST(!request(v->fd, KVM_ARM_VCPU_INIT, &init), "no vCPU");
}

hv_return_t hv_vcpu_create(hv_vcpu_t *id, hv_vcpu_exit_t **exit, hv_vcpu_config_t config)
{
    unsigned n = VCPUS;
    struct vcpu *v;

    MUST(s.vm && !config, "there is no VM");
    pthread_mutex_lock(&s.lock);
    for (unsigned i = VCPUS; i-- > 0;) {
        MUST(!s.vcpu[i].exists || !pthread_equal(s.vcpu[i].owner, pthread_self()),
             "a thread has one vCPU");
        if (!s.vcpu[i].exists)
            n = i;
    }
    MUST(n < VCPUS && !s.ran, "too many vCPUs, or too late");
    v = &s.vcpu[n];
    init_vcpu(v, n);
    v->owner = pthread_self();
    v->tid = (int)syscall(SYS_gettid);
    v->exists = true;
    pthread_mutex_unlock(&s.lock);
    *id = n;
    *exit = &v->exit;
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_destroy(hv_vcpu_t id)
{
    struct vcpu *v = mine(id);

    close(v->fd);
    v->exists = false;
    return HV_SUCCESS;
}

hv_return_t hv_vcpus_exit(hv_vcpu_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct vcpu *v = of(ids[i]);
        __atomic_store_n(&v->cancel, true, __ATOMIC_SEQ_CST);
        __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        syscall(SYS_tgkill, getpid(), v->tid, SIGRTMIN + 1);
    }
    return HV_SUCCESS;
}

/* >>registers */
#define CORE(field)                                                                                \
    (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(field))

#define CORE32(field)                                                                              \
    (KVM_REG_ARM64 | KVM_REG_SIZE_U32 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(field))

static uint64_t reg_id(hv_reg_t reg)
{
    MUST((unsigned)reg <= HV_REG_CPSR, "there is no such register");
    return reg == HV_REG_PC     ? CORE(regs.pc)
           : reg == HV_REG_CPSR ? CORE(regs.pstate)
           : reg == HV_REG_FPSR ? CORE32(fp_regs.fpsr)
           : reg == HV_REG_FPCR ? CORE32(fp_regs.fpcr)
                                : CORE(regs.regs[0]) + 2u * (unsigned)reg;
}

/* KVM's numbers are the framework's, with a few exceptions. */
static uint64_t sys_reg_id(hv_sys_reg_t reg)
{
    switch (reg) {
    case HV_SYS_REG_SP_EL0:
        return CORE(regs.sp);
    case HV_SYS_REG_SP_EL1:
        return CORE(sp_el1);
    case HV_SYS_REG_ELR_EL1:
        return CORE(elr_el1);
    case HV_SYS_REG_SPSR_EL1:
        return CORE(spsr[KVM_SPSR_EL1]);
    case HV_SYS_REG_CNTV_CVAL_EL0:
        return KVM_REG_ARM_TIMER_CVAL;
    default:
        return KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM64_SYSREG | (unsigned)reg;
    }
}

static hv_return_t move(hv_vcpu_t id, unsigned long what, uint64_t reg, uint64_t *val)
{
    struct kvm_one_reg one = {.id = reg, .addr = (uintptr_t)val};

    if (request(mine(id)->fd, what, &one)) {
        fprintf(stderr, "shim_hvf: KVM refuses register 0x%llx: %s\n", (unsigned long long)reg,
                strerror(errno));
        return HV_BAD_ARGUMENT;
    }
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_get_reg(hv_vcpu_t id, hv_reg_t reg, uint64_t *value)
{
    return move(id, KVM_GET_ONE_REG, reg_id(reg), value);
}

hv_return_t hv_vcpu_set_reg(hv_vcpu_t id, hv_reg_t reg, uint64_t value)
{
    return move(id, KVM_SET_ONE_REG, reg_id(reg), &value);
}

/* The debug registers that a VMM sets are its own here, and KVM gets them all at once: those of the
   guest KVM keeps, with what the guest writes there meanwhile, for that does not come out. */
static uint64_t *debug_reg(struct vcpu *v, hv_sys_reg_t reg)
{
    if (reg == HV_SYS_REG_MDSCR_EL1)
        return &v->mdscr;
    return (unsigned)reg >> 7 == 0x100 && reg & 4 ? &v->debug[reg >> 3 & 15][reg & 3] : NULL;
}

hv_return_t hv_vcpu_get_sys_reg(hv_vcpu_t id, hv_sys_reg_t reg, uint64_t *value)
{
    uint64_t *at = debug_reg(mine(id), reg);

    if (at)
        *value = *at;
    return at ? HV_SUCCESS : move(id, KVM_GET_ONE_REG, sys_reg_id(reg), value);
}

hv_return_t hv_vcpu_set_sys_reg(hv_vcpu_t id, hv_sys_reg_t reg, uint64_t value)
{
    uint64_t *at = debug_reg(mine(id), reg);

    if (at)
        *at = value;
    return at ? HV_SUCCESS : move(id, KVM_SET_ONE_REG, sys_reg_id(reg), &value);
}

#define SIMD(reg)                                                                                  \
    (KVM_REG_ARM64 | KVM_REG_SIZE_U128 | KVM_REG_ARM_CORE |                                        \
     (KVM_REG_ARM_CORE_REG(fp_regs.vregs[0]) + 4u * (unsigned)(reg)))

hv_return_t hv_vcpu_get_simd_fp_reg(hv_vcpu_t id, hv_simd_fp_reg_t reg, hv_simd_fp_uchar16_t *value)
{
    return move(id, KVM_GET_ONE_REG, SIMD(reg), (uint64_t *)(void *)value);
}

hv_return_t hv_vcpu_set_simd_fp_reg(hv_vcpu_t id, hv_simd_fp_reg_t reg, hv_simd_fp_uchar16_t value)
{
    return move(id, KVM_SET_ONE_REG, SIMD(reg), (uint64_t *)(void *)&value);
}

/* >>debug */
hv_return_t hv_vcpu_set_trap_debug_exceptions(hv_vcpu_t id, bool value)
{
    mine(id)->traps = value;
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_set_trap_debug_reg_accesses(hv_vcpu_t id, bool value)
{
    mine(id)->lent = value;
    return HV_SUCCESS;
}

hv_vcpu_config_t hv_vcpu_config_create(void)
{
    return (hv_vcpu_config_t)(void *)&s;
}

hv_return_t hv_vcpu_config_get_feature_reg(hv_vcpu_config_t config, hv_feature_reg_t reg,
                                           uint64_t *value)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), breaks, watches;

    MUST(config && reg == HV_FEATURE_REG_ID_AA64DFR0_EL1, "not needed");
    breaks = ioctl(kvm, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_GUEST_DEBUG_HW_BPS);
    watches = ioctl(kvm, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_GUEST_DEBUG_HW_WPS);
    close(kvm);
    *value = (uint64_t)(breaks - 1) << 12 | (uint64_t)(watches - 1) << 20;
    return breaks > 0 && watches > 0 ? HV_SUCCESS : HV_UNSUPPORTED;
}

/* What the debug registers say, in KVM's words. */
static void set_debug(struct vcpu *v)
{
    struct kvm_guest_debug d = {0};

    if (!v->traps && !v->trapped)
        return;
    v->trapped = v->traps;
    if (v->traps)
        d.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
    if (v->lent && v->mdscr & 1)
        d.control |= KVM_GUESTDBG_SINGLESTEP;
    if (v->lent && v->mdscr >> 15 & 1)
        d.control |= KVM_GUESTDBG_USE_HW;
    MUST(v->traps || !v->lent, "debug exceptions go to the guest");
    for (unsigned n = 0; n < 16; n++) {
        d.arch.dbg_bvr[n] = v->debug[n][0];
        d.arch.dbg_bcr[n] = v->debug[n][1];
        d.arch.dbg_wvr[n] = v->debug[n][2];
        d.arch.dbg_wcr[n] = v->debug[n][3];
    }
    MUST(!request(v->fd, KVM_SET_GUEST_DEBUG, &d), "KVM refuses to debug");
}

hv_return_t hv_vcpu_get_pending_interrupt(hv_vcpu_t id, hv_interrupt_type_t type, bool *pending)
{
    *pending = mine(id)->line[type];
    return s.gic ? HV_UNSUPPORTED : HV_SUCCESS;
}

hv_return_t hv_vcpu_set_pending_interrupt(hv_vcpu_t id, hv_interrupt_type_t type, bool pending)
{
    if (s.gic)
        return HV_UNSUPPORTED;
    mine(id)->line[type] = pending;
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_get_vtimer_mask(hv_vcpu_t id, bool *masked)
{
    *masked = mine(id)->masked;
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_set_vtimer_mask(hv_vcpu_t id, bool masked)
{
    mine(id)->masked = masked;
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_get_vtimer_offset(hv_vcpu_t id, uint64_t *offset)
{
    (void)mine(id);
    *offset = 0;
    return HV_UNSUPPORTED;
}

/* All vCPUs have the same. */
hv_return_t hv_vcpu_set_vtimer_offset(hv_vcpu_t id, uint64_t offset)
{
    struct shim_offset o = {.offset = offset};

    (void)mine(id);
    pthread_mutex_lock(&s.lock);
    if (!s.offset_set)
        MUST(!request(s.vm, SHIM_SET_OFFSET, &o), "KVM refuses the counter's offset");
    s.offset_set = true;
    pthread_mutex_unlock(&s.lock);
    return HV_SUCCESS;
}

/* >>run */
static void all_regs(hv_vcpu_t id, struct vmm_arm64_regs *r)
{
    memset(r, 0, sizeof *r);
    hv_vcpu_get_reg(id, HV_REG_PC, &r->pc);
    hv_vcpu_get_reg(id, HV_REG_CPSR, &r->pstate);
    hv_vcpu_get_sys_reg(id, HV_SYS_REG_SCTLR_EL1, &r->sctlr_el1);
    hv_vcpu_get_sys_reg(id, HV_SYS_REG_TCR_EL1, &r->tcr_el1);
    hv_vcpu_get_sys_reg(id, HV_SYS_REG_TTBR0_EL1, &r->ttbr0_el1);
    hv_vcpu_get_sys_reg(id, HV_SYS_REG_TTBR1_EL1, &r->ttbr1_el1);
}

/* The syndrome of a load or store as hardware describes it: any form without write-back, and the
   ones that acquire or release. */
static uint64_t syndrome_of(uint32_t insn)
{
    unsigned size = insn >> 30, opc = insn >> 22 & 3, form = insn >> 10 & 3;
    bool scaled = (insn & 0x3f000000) == 0x39000000;
    bool other =
        (insn & 0x3f000000) == 0x38000000 && (insn >> 21 & 1 ? form == 2 : form == 0 || form == 2);
    bool ordered = (insn & 0x3fbffc00) == 0x089ffc00;
    bool sign, wide;

    if (!scaled && !other && !ordered)
        return 0;
    if (ordered)
        opc = insn >> 22 & 1;
    sign = opc >= 2;
    wide = sign ? opc == 2 : size == 3;
    return 1u << 24 | (uint64_t)size << 22 | (uint64_t)sign << 21 | (uint64_t)(insn & 31) << 16 |
           (uint64_t)wide << 15 | (opc == 0 ? 1u << 6 : 0);
}

/* KVM says what, the instruction says which register: they must agree. */
static void exit_mmio(hv_vcpu_t id, struct vcpu *v)
{
    struct kvm_run *run = v->run;
    struct vmm_arm64_regs r;
    uint32_t insn = 0;
    uint64_t iss, val = 0, data = 0;
    unsigned reg;

    all_regs(id, &r);
    MUST(dbg_arm64_read(&s.mem, &r, r.pc, &insn, sizeof insn) == sizeof insn,
         "no instruction at PC");
    iss = syndrome_of(insn);
    reg = iss >> 16 & 31;
    MUST(iss && 1u << (iss >> 22 & 3) == run->mmio.len && (iss >> 6 & 1) == run->mmio.is_write,
         "the instruction is not the access");
    if (run->mmio.is_write && reg < 31)
        hv_vcpu_get_reg(id, (hv_reg_t)reg, &val);
    memcpy(&data, run->mmio.data, sizeof data);
    MUST(!run->mmio.is_write || !((val ^ data) & vmm_ones(run->mmio.len)), "not this register");
    v->exit.exception.syndrome = 0x24ull << 26 | 1u << 25 | iss | 7;
    v->exit.exception.physical_address = run->mmio.phys_addr;
    run->exit_reason = 0; /* so that KVM does not complete it */
}

static void exit_call(hv_vcpu_t id, struct vcpu *v)
{
    bool smc = v->run->hypercall.longmode & SHIM_EXIT_SMC; /* which is `flags` since Linux 6.4 */
    uint64_t pc;

    if (smc) {
        hv_vcpu_get_reg(id, HV_REG_PC, &pc);
        hv_vcpu_set_reg(id, HV_REG_PC, pc - 4);
    }
    v->exit.exception.syndrome = (smc ? 0x17ull : 0x16ull) << 26 | 1u << 25;
}

/* What KVM came back with; false: nothing for the caller. */
static bool translate(hv_vcpu_t id, struct vcpu *v)
{
    struct kvm_run *run = v->run;

    v->exit.reason = HV_EXIT_REASON_EXCEPTION;
    switch (run->exit_reason) {
    case KVM_EXIT_MMIO:
        if (frame_access(run))
            return false;
        exit_mmio(id, v);
        return true;
    case KVM_EXIT_HYPERCALL:
        exit_call(id, v);
        return true;
    case KVM_EXIT_ARM_NISV:
        v->exit.exception.syndrome = 0x24ull << 26 | 1u << 25 | (run->arm_nisv.esr_iss & 0x3f);
        v->exit.exception.physical_address = run->arm_nisv.fault_ipa;
        return true;
    case KVM_EXIT_DEBUG:
        v->exit.exception.syndrome = run->debug.arch.hsr;
        v->exit.exception.virtual_address = run->debug.arch.far;
        return true;
    default:
        fprintf(stderr, "shim_hvf: exit %u of KVM\n", run->exit_reason);
        v->exit.reason = HV_EXIT_REASON_UNKNOWN;
        return true;
    }
}

/* The GIC wants all vCPUs. */
static void first_run(void)
{
    pthread_mutex_lock(&s.lock);
    if (!s.ran && s.gic)
        gic_attr(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, NULL);
    s.ran = true;
    pthread_mutex_unlock(&s.lock);
}

static void set_lines(hv_vcpu_t id, struct vcpu *v)
{
    for (unsigned i = 0; i < 2 && !s.gic; i++)
        if (v->line[i] != v->told[i]) {
            v->told[i] = v->line[i];
            line(KVM_ARM_IRQ_TYPE_CPU << KVM_ARM_IRQ_TYPE_SHIFT |
                     (uint32_t)id << KVM_ARM_IRQ_VCPU_SHIFT | i,
                 v->line[i]);
        }
}

/* One entry of KVM's; true: v->exit is filled. */
static bool enter(hv_vcpu_t id, struct vcpu *v)
{
    bool fires = v->run->s.regs.device_irq_level & KVM_ARM_DEV_EL1_VTIMER;

    __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    if (__atomic_exchange_n(&v->cancel, false, __ATOMIC_SEQ_CST)) {
        v->exit.reason = HV_EXIT_REASON_CANCELED;
        return true;
    }
    if (!s.gic && fires && !v->masked) {
        v->exit.reason = HV_EXIT_REASON_VTIMER_ACTIVATED;
        v->masked = true;
        return true;
    }
    if (ioctl(v->fd, KVM_RUN, 0) < 0) {
        MUST(errno == EINTR || errno == EAGAIN, "KVM cannot run the guest");
        return false;
    }
    return translate(id, v);
}

hv_return_t hv_vcpu_run(hv_vcpu_t id)
{
    struct vcpu *v = mine(id);

    if (!s.ran)
        first_run();
    memset(&v->exit, 0, sizeof v->exit);
    set_lines(id, v);
    set_debug(v);
    while (!enter(id, v))
        ;
    v->line[0] = v->line[1] = false;
    return HV_SUCCESS;
}
