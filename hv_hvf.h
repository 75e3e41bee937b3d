/* hv_hvf.h - the hypervisor contract of vmm.h on macOS' Hypervisor.framework   MIT licence, see LICENSE

   WHAT IT IS      hyp_open, hyp_run and friends (declared in vmm.h) for Apple Silicon. The framework
                   runs a CPU until it needs something; what that is, is told by the syndrome register
                   of its exit, which pure functions decode (>>decode, >>sysregs, >>psci). PSCI, the
                   traps of system registers and the virtual timer are done here. The interrupt
                   controller is macOS' own GICv3 where there is one (macOS 15 and newer), else the
                   caller's: then hyp_cpu_lines and hyp_cpu_ppis work. It does not place devices, load
                   images or make threads.
                   Follows Apple's documentation of Hypervisor.framework, Arm's DDI 0487 (syndromes,
                   registers), DEN 0022 (PSCI 1.1) and DEN 0028 (SMCCC 1.1).

                   Compiled and linked for macOS; logic tested on a scripted fake of the framework
                   under Linux; never run on Apple hardware. What that cannot prove: that macOS' own
                   prototypes, default registers and ID registers are as they are taken here; which
                   registers it lets one write; when exactly it masks the timer; how soon
                   hv_vcpus_exit ends a run; how its GIC counts redistributors and serves the frame
                   for messages; signing and entitlements.

   QUICK START     as hv_kvm.h's, on a thread of its own for each vCPU.

   CONFIGURATION   set everywhere:
                   HYP_WINDOWS_MAX    pieces of devices' memory of one VM; default 128
                   set in the implementing file only:
                   HVF_SYMBOL(name)   the address of a function that not every macOS has, or NULL;
                                      default: dlsym

   DEPENDS ON      vmm.h; the implementation on macOS 13 or newer, and pthreads.

   THREADS         A vCPU belongs to the thread that opened it. hyp_irq_set, hyp_cpu_lines and
                   hyp_kick: any thread. Everything else before the first hyp_run, or from one
                   thread at a time.
   MEMORY          struct hyp and struct hyp_cpu are the caller's, and stay where they are; nothing
                   is allocated. Guest memory stays the caller's too and must outlive hyp_close.
   ERRORS          Negative errno; one sentence in desc.log.
   PROCESS         One VM: a second hyp_open fails until the first is closed.
   GUEST TRUST     Every syndrome is decoded or refused; what a guest does that cannot be carried out
                   is an exception for it, or the end of it (VMM_EXIT_FAULT). */
#ifndef HV_HVF_H
#define HV_HVF_H

#define HYP_BACKEND
#include "vmm.h"

#include <pthread.h>

#ifndef HYP_WINDOWS_MAX
#define HYP_WINDOWS_MAX 128
#endif
#if defined(__aarch64__)
#define HYP_GSIS     64 /* SPIs for wires: line n is INTID 32 + n; those for messages follow */
#define HYP_CPUS_MAX 64

/* What PSCI knows of a CPU. */
struct hvf_power {
    enum { HVF_OFF, HVF_STARTING, HVF_ON } state;
    uint64_t entry, context;
};

/* An access to a device. */
struct hvf_access {
    uint64_t ipa;
    uint8_t size, reg; /* bytes; register 31 is none */
    bool write, sign;  /* a load extends the sign ... */
    bool wide;         /* ... to 64 bits */
};
#endif

struct hyp {
    const struct vmm_log *log;
    bool open;     /* the VM of this process is this one */
    unsigned caps; /* enum hyp_cap */
    unsigned ncpus;
    struct vmm_mem slots; /* what is mapped, to show the bytes at a fault */
    struct {
        uint64_t gpa, len; /* len 0: free */
    } window[HYP_WINDOWS_MAX];
#if defined(__aarch64__)
    unsigned gpa_bits;
    uint64_t offset;       /* the guest's counter is that much behind the host's */
    uint32_t numer, denom; /* of nanoseconds of a tick */
    uint64_t v2m;          /* macOS' GIC: where its frame for messages is */
    int32_t (*set_spi)(uint32_t intid, bool level);
    int32_t (*send_msi)(uint64_t gpa, uint32_t intid);
    struct hvf_power power[HYP_CPUS_MAX]; /* under the lock, as the next */
    struct hyp_cpu *cpu[HYP_CPUS_MAX];
#endif
    pthread_mutex_t lock; /* of what CPUs sleep for */
};

struct hyp_cpu {
    struct hyp *hyp;
    unsigned id;
    pthread_cond_t wake; /* of kicks, and of what a CPU may wait for */
    bool exists;
    bool kicked, inside; /* atomic; inside: a kick has to end a run */
#if defined(__aarch64__)
    uint64_t vcpu;    /* the framework's number */
    const void *exit; /* hv_vcpu_exit_t */
    bool on;          /* by PSCI */
    unsigned lines;   /* atomic: IRQ, FIQ */
    uint32_t ppis;    /* as hyp_cpu_ppis tells them */
    bool masked;      /* the framework does not tell of the timer */
    bool idle;        /* waits for an interrupt */
    bool os_lock;
    bool pending;             /* an access that the caller is to carry out */
    struct hvf_access access; /* it */
    uint8_t data[8];          /* its bytes */
    uint8_t insn[16];         /* those at a fault */
#endif
};

#endif /* HV_HVF_H */

#if defined(VMM_IMPLEMENTATION) || defined(HV_HVF_IMPLEMENTATION)
#ifndef HV_HVF_IMPLEMENTED
#define HV_HVF_IMPLEMENTED

#include <Hypervisor/Hypervisor.h>
#include <mach/mach_time.h>
#include <os/object.h>
#include <sched.h>
#include <time.h>

#if !defined(__aarch64__)
#error "hv_hvf.h knows arm64"
#endif

#ifndef HVF_SYMBOL
#include <dlfcn.h>
#define HVF_SYMBOL(name) dlsym(RTLD_DEFAULT, name)
#endif

_Static_assert(sizeof(hv_return_t) == 4, "hv_return_t"); /* as it is taken here */

/* >>errors ------------------------------------------------------------------------ */

/* Unsigned, for Apple's constants may be either. */
static int hvf__errno(hv_return_t ret)
{
    switch ((uint32_t)ret) {
    case (uint32_t)HV_SUCCESS:
        return 0;
    case (uint32_t)HV_DENIED:
        return -EACCES;
    case (uint32_t)HV_UNSUPPORTED:
    case (uint32_t)HV_NO_DEVICE:
        return -ENOTSUP;
    case (uint32_t)HV_NO_RESOURCES:
        return -ENOMEM;
    case (uint32_t)HV_BUSY:
        return -EBUSY;
    case (uint32_t)HV_BAD_ARGUMENT:
        return -EINVAL;
    default:
        return -EIO;
    }
}

/* What failed, with what to do about it where that is known. */
static int hvf__failed(const struct vmm_log *log, hv_return_t ret, const char *what)
{
    int err = hvf__errno(ret);

    if (err == -EACCES)
        return vmm_err(
            log, err,
            "macOS does not let this program use its hypervisor: sign it: 'codesign --sign "
            "- --force --entitlements vmm.entitlements vmm'");
    if (err == -ENOTSUP)
        return vmm_err(
            log, err,
            "%s: this Mac's hypervisor does not offer it ('sysctl kern.hv_support' must say "
            "1; not under Rosetta, and in a virtual machine only if it may nest)",
            what);
    if (err == -EBUSY)
        return vmm_err(log, err, "%s: the hypervisor is busy: this process has a VM already", what);
    return vmm_err(log, err, "%s: Hypervisor.framework says 0x%08x", what, (unsigned)ret);
}

/* >>open ----------------------------------------------------------------------------- */

/* Creates the VM of this process, and what vCPUs need before they exist. */
static int hvf__arch_open(struct hyp *h, const struct hyp_desc *desc);

VMM_DEF int hyp_open(struct hyp *h, const struct hyp_desc *desc)
{
    int err;

    memset(h, 0, sizeof *h);
    h->log = desc->log;
    h->ncpus = desc->ncpus ? desc->ncpus : 1;
    pthread_mutex_init(&h->lock, NULL);
    err = hvf__arch_open(h, desc);
    if (err)
        hyp_close(h);
    return err;
}

VMM_DEF void hyp_close(struct hyp *h)
{
    if (h->open)
        (void)hv_vm_destroy();
    pthread_mutex_destroy(&h->lock);
    h->open = false;
    h->caps = 0;
}

VMM_DEF unsigned hyp_caps(const struct hyp *h)
{
    return h->caps;
}

/* >>memory ------------------------------------------------------------------------ */

#if defined(__aarch64__)
#define HVF__PAGE 16384u
#else
#define HVF__PAGE 4096u
#endif

static hv_memory_flags_t hvf__prot(unsigned prot)
{
    return (prot & VMM_READ ? HV_MEMORY_READ : 0) | (prot & VMM_WRITE ? HV_MEMORY_WRITE : 0) |
           (prot & VMM_EXEC ? HV_MEMORY_EXEC : 0);
}

static int hvf__map(uint64_t gpa, uint64_t len, void *hva, unsigned prot)
{
    if ((gpa | len | (uintptr_t)hva) % HVF__PAGE)
        return -EINVAL;
    return hvf__errno(hv_vm_map(hva, gpa, len, hvf__prot(prot)));
}

VMM_DEF int hyp_map(struct hyp *h, uint64_t gpa, uint64_t len, void *hva, unsigned prot)
{
    int err = hvf__map(gpa, len, hva, prot);

    if (!err)
        err = vmm_mem_add(&h->slots, gpa, len, hva);
    return err ? vmm_err(
                     h->log, err,
                     "macOS refuses %llu KiB of memory at 0x%llx (%s): sizes and places must be "
                     "multiples of %u KiB",
                     (unsigned long long)len >> 10, (unsigned long long)gpa, strerror(-err),
                     HVF__PAGE >> 10)
               : 0;
}

VMM_DEF int hyp_window_map(struct hyp *h, uint64_t gpa, uint64_t len, void *hva, unsigned prot)
{
    unsigned i = 0;
    int err;

    while (i < HYP_WINDOWS_MAX && h->window[i].len)
        i++;
    if (i == HYP_WINDOWS_MAX)
        return -ENOSPC;
    err = hvf__map(gpa, len, hva, prot);
    if (!err) {
        h->window[i].gpa = gpa;
        h->window[i].len = len;
    }
    return err;
}

VMM_DEF int hyp_window_unmap(struct hyp *h, uint64_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < HYP_WINDOWS_MAX; i++)
        if (h->window[i].len == len && h->window[i].gpa == gpa) {
            h->window[i].len = 0;
            return hvf__errno(hv_vm_unmap(gpa, len));
        }
    return -ENOENT;
}

/* >>absent: what macOS has no counterpart of -------------------------------------------- */

VMM_DEF int hyp_device_add(struct hyp *h, int fd)
{
    (void)h;
    (void)fd;
    return -ENOSYS;
}

VMM_DEF int hyp_irq_bell(struct hyp *h, unsigned gsi, int bell, bool on)
{
    (void)h;
    (void)gsi;
    (void)bell;
    (void)on;
    return -ENOSYS;
}

VMM_DEF int hyp_irq_resample(struct hyp *h, unsigned gsi, int bell, int done, bool on)
{
    (void)done;
    return hyp_irq_bell(h, gsi, bell, on);
}

VMM_DEF int hyp_msi_line(struct hyp *h, unsigned requester)
{
    (void)h;
    (void)requester;
    return -ENOSYS;
}

VMM_DEF int hyp_msi_route(struct hyp *h, unsigned gsi, uint64_t addr, uint32_t data)
{
    (void)h;
    (void)gsi;
    (void)addr;
    (void)data;
    return -EINVAL;
}

VMM_DEF int hyp_doorbell(struct hyp *h, const struct vmm_doorbell *where, int bell, bool on)
{
    (void)h;
    (void)where;
    (void)bell;
    (void)on;
    return -ENOSYS;
}

VMM_DEF int hyp_debug(struct hyp_cpu *c, const struct vmm_debug *d)
{
    (void)c;
    (void)d;
    return -ENOSYS;
}

VMM_DEF int hyp_debug_pass(struct hyp_cpu *c)
{
    (void)c;
    return -ENOSYS;
}

VMM_DEF int hyp_get_fpu(struct hyp_cpu *c, struct vmm_fpu *fpu)
{
    (void)c;
    (void)fpu;
    return -ENOSYS;
}

VMM_DEF int hyp_set_fpu(struct hyp_cpu *c, const struct vmm_fpu *fpu)
{
    (void)c;
    (void)fpu;
    return -ENOSYS;
}

/* >>arm64 --------------------------------------------------------------------------- */
#if defined(__aarch64__)

/* What is taken for granted of Apple's headers. */
_Static_assert(sizeof(hv_vcpu_t) == 8, "hv_vcpu_t");
_Static_assert(sizeof(hv_vcpu_exit_t) == 32, "hv_vcpu_exit_t");
_Static_assert(HV_REG_X0 == 0 && HV_REG_PC == 31 && HV_REG_CPSR == 34, "hv_reg_t");
_Static_assert(HV_INTERRUPT_TYPE_IRQ == 0, "hv_interrupt_type_t");

/* >>decode: of syndromes (DDI 0487, ESR_EL2), nothing but bits ---------------------- */

enum {
    HVF__EC_WFX = 0x01,
    HVF__EC_HVC = 0x16,
    HVF__EC_SMC = 0x17,
    HVF__EC_SYSREG = 0x18,
    HVF__EC_DATA_ABORT = 0x24
};

static unsigned hvf__class(uint64_t esr)
{
    return (unsigned)(esr >> 26 & 63);
}

enum hvf_abort {
    HVF_ABORT_ACCESS, /* to a device: an access to carry out */
    HVF_ABORT_CACHE,  /* cache maintenance: nothing to do */
    HVF_ABORT_WALK,   /* the guest's page tables are where no memory is */
    HVF_ABORT_ODD,    /* by an instruction that the syndrome does not describe */
    HVF_ABORT_OTHER   /* no missing memory */
};

static enum hvf_abort hvf__decode_abort(uint64_t esr, uint64_t ipa, struct hvf_access *a)
{
    unsigned status = esr & 0x3f; /* DFSC: translation, access flag, permission */

    if (esr >> 8 & 1)
        return HVF_ABORT_CACHE;
    if (esr >> 7 & 1)
        return HVF_ABORT_WALK;
    if (status < 4 || status > 15)
        return HVF_ABORT_OTHER;
    if (!(esr >> 24 & 1))
        return HVF_ABORT_ODD;
    *a = (struct hvf_access){.ipa = ipa,
                             .size = (uint8_t)(1u << (esr >> 22 & 3)),
                             .reg = esr >> 16 & 31,
                             .write = esr >> 6 & 1,
                             .sign = esr >> 21 & 1,
                             .wide = esr >> 15 & 1};
    return HVF_ABORT_ACCESS;
}

/* What a load leaves in its register. */
static uint64_t hvf__loaded(const struct hvf_access *a, uint64_t val)
{
    uint64_t sign = 1ull << (8 * a->size - 1);

    val &= vmm_ones(a->size);
    if (a->sign)
        val = (val ^ sign) - sign;
    return a->wide ? val : (uint32_t)val;
}

/* >>sysregs: those whose accesses come out of the framework ------------------------- */

/* As the syndrome names one. */
#define HVF__SYSREG(op0, op1, crn, crm, op2)                                                       \
    ((uint32_t)(op0) << 20 | (uint32_t)(op2) << 17 | (uint32_t)(op1) << 14 |                       \
     (uint32_t)(crn) << 10 | (uint32_t)(crm) << 1)
#define HVF__SYSREG_MASK 0x3ffc1eu

/* Of the performance monitors, which ID_AA64DFR0_EL1 does not announce. */
static bool hvf__is_pmu(uint32_t key)
{
    unsigned op = (key >> 20) * 8 + (key >> 14 & 7), crn = key >> 10 & 15, crm = key >> 1 & 15;

    if (op == 3 * 8 + 3)
        return (crn == 9 && crm >= 12 && crm <= 14) || (crn == 14 && crm >= 8);
    return op == 3 * 8 && crn == 9 && crm == 14;
}

/* Registers that read as zero, and whose writes are lost. */
static bool hvf__is_void(uint32_t key)
{
    switch (key) {
    case HVF__SYSREG(2, 0, 1, 3, 4):  /* OSDLR_EL1 */
    case HVF__SYSREG(2, 0, 0, 2, 0):  /* MDCCINT_EL1 */
    case HVF__SYSREG(3, 0, 1, 0, 1):  /* ACTLR_EL1 */
    case HVF__SYSREG(3, 0, 10, 4, 3): /* LORC_EL1 */
    case HVF__SYSREG(3, 3, 14, 2, 0): /* CNTP_TVAL_EL0: guests take the virtual timer */
    case HVF__SYSREG(3, 3, 14, 2, 1): /* CNTP_CTL_EL0 */
    case HVF__SYSREG(3, 3, 14, 2, 2): /* CNTP_CVAL_EL0 */
        return true;
    default:
        return hvf__is_pmu(key);
    }
}

/* An access with such an ISS; count is what the physical counter reads. false: the instruction is
   undefined for this guest; so are the GIC's registers, for there is none that has any. */
static bool hvf__sysreg(uint32_t iss, bool *os_lock, uint64_t count, uint64_t *val)
{
    uint32_t key = iss & HVF__SYSREG_MASK, id = HVF__SYSREG(3, 0, 0, 0, 0);
    bool read = iss & 1;
    uint64_t written = *val;

    *val = 0;
    if (key == HVF__SYSREG(2, 0, 1, 0, 4)) { /* OSLAR_EL1 */
        *os_lock = read ? *os_lock : written & 1;
        return !read;
    }
    if (key == HVF__SYSREG(2, 0, 1, 1, 4)) { /* OSLSR_EL1: there is a lock, and its state */
        *val = 8 | (uint64_t)*os_lock << 1;
        return read;
    }
    if (key == HVF__SYSREG(3, 3, 14, 0, 1)) { /* CNTPCT_EL0 */
        *val = count;
        return read;
    }
    if ((key & ~HVF__SYSREG(0, 0, 0, 7, 7)) == id && (key >> 1 & 7)) /* ID registers, CRm 1 to 7 */
        return read;
    return hvf__is_void(key);
}

/* >>psci: starts and stops CPUs, and the machine ------------------------------------ */

enum {
    HVF__PSCI_VERSION = 0,
    HVF__PSCI_CPU_SUSPEND = 1,
    HVF__PSCI_CPU_OFF = 2,
    HVF__PSCI_CPU_ON = 3,
    HVF__PSCI_AFFINITY_INFO = 4,
    HVF__PSCI_MIGRATE_INFO_TYPE = 6,
    HVF__PSCI_SYSTEM_OFF = 8,
    HVF__PSCI_SYSTEM_RESET = 9,
    HVF__PSCI_FEATURES = 10
};
#define HVF__PSCI          0x84000000u
#define HVF__SMC64         0x40000000u /* arguments have 64 bits */
#define HVF__SMCCC_VERSION 0x80000000u
#define HVF__ARCH_FEATURES 0x80000001u

enum {
    HVF__NOT_SUPPORTED = -1,
    HVF__INVALID_PARAMETERS = -2,
    HVF__ALREADY_ON = -4,
    HVF__ON_PENDING = -5
};

enum hvf_call { /* what a call leads to, beside its result */
                HVF_CALL_RETURN,
                HVF_CALL_START,   /* another CPU has been told to start */
                HVF_CALL_STOP,    /* the caller is off, and does not return */
                HVF_CALL_SUSPEND, /* it waits for an interrupt */
                HVF_CALL_OFF,
                HVF_CALL_RESET
};

/* The affinity of a CPU: 16 to a group, as the device tree has it. */
static uint64_t hvf__mpidr(unsigned id)
{
    return (id & 15) | (uint64_t)(id >> 4) << 8;
}

/* The CPU with this affinity; ncpus: none. */
static unsigned hvf__find_cpu(unsigned ncpus, uint64_t mpidr)
{
    unsigned id = 0;

    while (id < ncpus && hvf__mpidr(id) != (mpidr & 0xff00ffffffull))
        id++;
    return id;
}

/* Does a function exist? Those that take addresses have a form of 64 bits. */
static bool hvf__psci_has(uint32_t fn)
{
    bool wide = fn & HVF__SMC64;

    if (fn == HVF__SMCCC_VERSION)
        return true;
    if ((fn & ~(uint32_t)HVF__SMC64) >> 5 != HVF__PSCI >> 5)
        return false;
    switch (fn & 31) {
    case HVF__PSCI_CPU_SUSPEND:
    case HVF__PSCI_CPU_ON:
    case HVF__PSCI_AFFINITY_INFO:
        return true;
    case HVF__PSCI_VERSION:
    case HVF__PSCI_CPU_OFF:
    case HVF__PSCI_MIGRATE_INFO_TYPE:
    case HVF__PSCI_SYSTEM_OFF:
    case HVF__PSCI_SYSTEM_RESET:
    case HVF__PSCI_FEATURES:
        return !wide;
    default:
        return false;
    }
}

static int64_t hvf__psci_on(struct hvf_power *power, unsigned ncpus, const uint64_t x[4])
{
    unsigned id = hvf__find_cpu(ncpus, x[1]);

    if (id == ncpus)
        return HVF__INVALID_PARAMETERS;
    if (power[id].state != HVF_OFF)
        return power[id].state == HVF_ON ? HVF__ALREADY_ON : HVF__ON_PENDING;
    power[id] = (struct hvf_power){HVF_STARTING, x[2], x[3]};
    return 0;
}

/* Only of single CPUs: groups need not be known since PSCI 1.0. */
static int64_t hvf__psci_affinity(const struct hvf_power *power, unsigned ncpus,
                                  const uint64_t x[4])
{
    unsigned id = hvf__find_cpu(ncpus, x[1]);

    if (id == ncpus || x[2])
        return HVF__INVALID_PARAMETERS;
    return power[id].state == HVF_ON ? 0 : power[id].state == HVF_OFF ? 1 : 2;
}

static enum hvf_call hvf__psci(struct hvf_power *power, unsigned ncpus, unsigned self,
                               const uint64_t x[4], int64_t *ret)
{
    *ret = 0;
    switch ((uint32_t)x[0] & 31) {
    case HVF__PSCI_VERSION:
        *ret = 0x10001; /* 1.1 */
        break;
    case HVF__PSCI_CPU_SUSPEND:
        return HVF_CALL_SUSPEND;
    case HVF__PSCI_CPU_OFF:
        power[self].state = HVF_OFF;
        return HVF_CALL_STOP;
    case HVF__PSCI_CPU_ON:
        *ret = hvf__psci_on(power, ncpus, x);
        return *ret ? HVF_CALL_RETURN : HVF_CALL_START;
    case HVF__PSCI_AFFINITY_INFO:
        *ret = hvf__psci_affinity(power, ncpus, x);
        break;
    case HVF__PSCI_MIGRATE_INFO_TYPE:
        *ret = 2; /* there is no Trusted OS that would have to */
        break;
    case HVF__PSCI_SYSTEM_OFF:
        return HVF_CALL_OFF;
    case HVF__PSCI_SYSTEM_RESET:
        return HVF_CALL_RESET;
    default:
        *ret = hvf__psci_has((uint32_t)x[1]) ? 0 : HVF__NOT_SUPPORTED;
    }
    return HVF_CALL_RETURN;
}

/* A call by HVC or SMC with these x0 to x3; *ret is for x0. */
static enum hvf_call hvf__smccc(struct hvf_power *power, unsigned ncpus, unsigned self,
                                const uint64_t args[4], int64_t *ret)
{
    uint64_t mask = args[0] & HVF__SMC64 ? UINT64_MAX : UINT32_MAX;
    uint64_t x[4] = {(uint32_t)args[0], args[1] & mask, args[2] & mask, args[3] & mask};

    *ret = HVF__NOT_SUPPORTED;
    if (x[0] == HVF__SMCCC_VERSION)
        *ret = 0x10001;
    else if (x[0] == HVF__ARCH_FEATURES && (x[1] == HVF__SMCCC_VERSION || x[1] == x[0]))
        *ret = 0;
    else if (x[0] != HVF__SMCCC_VERSION && hvf__psci_has((uint32_t)x[0]))
        return hvf__psci(power, ncpus, self, x, ret);
    return HVF_CALL_RETURN;
}

/* >>timer: the virtual one ----------------------------------------------------------- */

enum { HVF__VTIMER_INTID = 27, HVF__SPI = 32 };

/* CNTV_CTL_EL0: enabled, not masked, and its time has come. */
static bool hvf__timer_fires(uint64_t ctl)
{
    return (ctl & 7) == 5;
}

/* Ticks until it will fire; UINT64_MAX: it will not. */
static uint64_t hvf__timer_left(uint64_t ctl, uint64_t cval, uint64_t count)
{
    if ((ctl & 3) != 1)
        return UINT64_MAX;
    return cval > count ? cval - count : 0;
}

/* Without overflow, and never longer than a second: whoever sleeps looks again. */
static uint64_t hvf__ticks_ns(const struct hyp *h, uint64_t ticks)
{
    uint64_t second = 1000000000ull * h->denom / h->numer;

    return ticks >= second ? 1000000000 : ticks * h->numer / h->denom;
}

static uint64_t hvf__count(const struct hyp *h)
{
    return mach_absolute_time() - h->offset;
}

/* >>gic: macOS' own, from macOS 15 on ------------------------------------------------ */

/* The functions of that, with types that every SDK has. */
struct hvf_gic {
    void *(*config_create)(void);
    hv_return_t (*set_distributor_base)(void *config, uint64_t ipa);
    hv_return_t (*set_redistributor_base)(void *config, uint64_t ipa);
    hv_return_t (*set_msi_region_base)(void *config, uint64_t ipa);
    hv_return_t (*set_msi_interrupt_range)(void *config, uint32_t first, uint32_t count);
    hv_return_t (*create)(void *config);
};

enum { HVF__V2M_SPIS = 256, HVF__V2M_SETSPI = 0x40 };

static bool hvf__find_gic(struct hyp *h, struct hvf_gic *g)
{
    static const char *const names[] = {"hv_gic_config_create",
                                        "hv_gic_config_set_distributor_base",
                                        "hv_gic_config_set_redistributor_base",
                                        "hv_gic_config_set_msi_region_base",
                                        "hv_gic_config_set_msi_interrupt_range",
                                        "hv_gic_create",
                                        "hv_gic_set_spi",
                                        "hv_gic_send_msi"};
    void *at[sizeof names / sizeof names[0]];

    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        at[i] = HVF_SYMBOL(names[i]);
        if (!at[i])
            return false;
    }
    memcpy(g, at, sizeof *g); /* ISO C does not convert pointers to functions */
    memcpy(&h->set_spi, &at[6], sizeof h->set_spi);
    memcpy(&h->send_msi, &at[7], sizeof h->send_msi);
    return true;
}

/* Before the first vCPU. The frame is always asked for. */
static hv_return_t hvf__create_gic(const struct hvf_gic *g, const struct vmm_gic *at)
{
    void *config = g->config_create();
    hv_return_t ret = config ? HV_SUCCESS : HV_NO_RESOURCES;

    if (!ret)
        ret = g->set_distributor_base(config, at->dist);
    if (!ret)
        ret = g->set_redistributor_base(config, at->redist);
    if (!ret)
        ret = g->set_msi_region_base(config, at->v2m);
    if (!ret)
        ret = g->set_msi_interrupt_range(config, HVF__SPI + HYP_GSIS, HVF__V2M_SPIS);
    if (!ret)
        ret = g->create(config);
    if (config)
        os_release(config);
    return ret;
}

static int hvf__open_gic(struct hyp *h, const struct hyp_desc *desc)
{
    struct hvf_gic g;
    hv_return_t ret;

    if (!desc->gic || desc->no_irqchip || !hvf__find_gic(h, &g))
        return 0;
    ret = hvf__create_gic(&g, desc->gic);
    if (ret)
        return hvf__failed(h->log, ret, "cannot create an interrupt controller");
    h->v2m = desc->gic->v2m;
    h->caps |= HYP_CAP_IRQCHIP | HYP_CAP_GICV3;
    return 0;
}

/* An SPI for messages takes nothing else. */
VMM_DEF void hyp_irq_set(struct hyp *h, unsigned gsi, bool level)
{
    if (!(h->caps & HYP_CAP_IRQCHIP) || gsi >= HYP_GSIS + HVF__V2M_SPIS)
        return;
    if (gsi < HYP_GSIS)
        (void)h->set_spi(HVF__SPI + gsi, level);
    else if (level)
        (void)h->send_msi(h->v2m + HVF__V2M_SETSPI, HVF__SPI + gsi);
}

/* >>vm ------------------------------------------------------------------------------- */

/* As wide as asked for, if the host can; what it does by itself is enough for most. */
static hv_return_t hvf__create_vm(struct hyp *h, unsigned want)
{
    uint32_t usual = 36, max = 36;
    hv_vm_config_t config = NULL;
    hv_return_t ret = hv_vm_config_get_default_ipa_size(&usual);

    if (!ret)
        ret = hv_vm_config_get_max_ipa_size(&max);
    h->gpa_bits = want <= usual ? usual : want < max ? want : max;
    if (!ret && h->gpa_bits != usual) {
        config = hv_vm_config_create();
        ret = config ? hv_vm_config_set_ipa_size(config, h->gpa_bits) : HV_NO_RESOURCES;
    }
    if (!ret)
        ret = hv_vm_create(config);
    if (config)
        os_release(config);
    h->open = !ret;
    return ret;
}

static int hvf__check_cpus(const struct hyp *h)
{
    uint32_t max = 0;
    hv_return_t ret = hv_vm_get_max_vcpu_count(&max);

    if (ret)
        return hvf__failed(h->log, ret, "cannot count CPUs");
    if (max > HYP_CPUS_MAX)
        max = HYP_CPUS_MAX;
    return h->ncpus <= max ? 0
                           : vmm_err(h->log, -E2BIG,
                                     "this Mac runs at most %u CPUs in a VM, not %u: ask for fewer",
                                     (unsigned)max, h->ncpus);
}

static int hvf__check_features(const struct hyp *h, const struct hyp_desc *desc)
{
    if (desc->features_need & (HYP_FEATURE_SVE | HYP_FEATURE_PMU))
        return vmm_err(h->log, -ENOTSUP, "this Mac's hypervisor has no %s for guests: leave it out",
                       desc->features_need & HYP_FEATURE_SVE ? "SVE" : "a PMU");
    return 0;
}

static int hvf__arch_open(struct hyp *h, const struct hyp_desc *desc)
{
    struct mach_timebase_info tick;
    hv_return_t ret;
    int err = hvf__check_features(h, desc);

    if (err)
        return err;
    h->offset = mach_absolute_time();
    h->power[0].state = HVF_ON;
    mach_timebase_info(&tick);
    h->numer = tick.numer;
    h->denom = tick.denom;
    ret = hvf__create_vm(h, desc->gpa_bits);
    if (ret)
        return hvf__failed(h->log, ret, "cannot create a VM");
    err = hvf__check_cpus(h);
    return err ? err : hvf__open_gic(h, desc);
}

VMM_DEF unsigned hyp_gpa_bits(const struct hyp *h)
{
    return h->gpa_bits;
}

/* >>registers ------------------------------------------------------------------------- */

/* One of struct vmm_arm64_regs and the framework's name for it. */
struct hvf__reg {
    uint16_t at; /* in struct vmm_arm64_regs */
    hv_sys_reg_t reg;
};

#define HVF__REG(name, reg)                                                                        \
    {                                                                                              \
        offsetof(struct vmm_arm64_regs, name), HV_SYS_REG_##reg                                    \
    }
static const struct hvf__reg hvf__regs[] = {
    HVF__REG(sp_el0, SP_EL0),       HVF__REG(sp_el1, SP_EL1),       HVF__REG(elr_el1, ELR_EL1),
    HVF__REG(spsr_el1, SPSR_EL1),   HVF__REG(esr_el1, ESR_EL1),     HVF__REG(far_el1, FAR_EL1),
    HVF__REG(sctlr_el1, SCTLR_EL1), HVF__REG(tcr_el1, TCR_EL1),     HVF__REG(ttbr0_el1, TTBR0_EL1),
    HVF__REG(ttbr1_el1, TTBR1_EL1), HVF__REG(mair_el1, MAIR_EL1),   HVF__REG(vbar_el1, VBAR_EL1),
    HVF__REG(tpidr_el0, TPIDR_EL0), HVF__REG(tpidr_el1, TPIDR_EL1),
};

static hv_return_t hvf__move(struct hyp_cpu *c, bool set, hv_reg_t reg, uint64_t *val)
{
    return set ? hv_vcpu_set_reg(c->vcpu, reg, *val) : hv_vcpu_get_reg(c->vcpu, reg, val);
}

/* The registers are at the same place in both structs of the union's. */
static int hvf__move_regs(struct hyp_cpu *c, bool set, struct vmm_regs *r)
{
    hv_return_t ret = hvf__move(c, set, HV_REG_PC, &r->pc);

    if (!ret)
        ret = hvf__move(c, set, HV_REG_CPSR, &r->pstate);
    for (unsigned i = 0; i < 31 && !ret; i++)
        ret = hvf__move(c, set, (hv_reg_t)(HV_REG_X0 + i), &r->x[i]);
    for (unsigned i = 0; i < sizeof hvf__regs / sizeof hvf__regs[0] && !ret; i++) {
        uint64_t *val = (uint64_t *)(void *)((char *)r + hvf__regs[i].at);
        ret = set ? hv_vcpu_set_sys_reg(c->vcpu, hvf__regs[i].reg, *val)
                  : hv_vcpu_get_sys_reg(c->vcpu, hvf__regs[i].reg, val);
    }
    return hvf__errno(ret);
}

VMM_DEF int hyp_get_regs(struct hyp_cpu *c, struct vmm_regs *regs)
{
    memset(regs, 0, sizeof *regs);
    return hvf__move_regs(c, false, regs);
}

VMM_DEF int hyp_set_regs(struct hyp_cpu *c, const struct vmm_regs *regs)
{
    struct vmm_regs copy = *regs;

    return hvf__move_regs(c, true, &copy);
}

/* A general register, of which number 31 is zero and takes nothing. */
static uint64_t hvf__get(struct hyp_cpu *c, unsigned reg)
{
    uint64_t val = 0;

    if (reg < 31)
        (void)hv_vcpu_get_reg(c->vcpu, (hv_reg_t)(HV_REG_X0 + reg), &val);
    return val;
}

static void hvf__put(struct hyp_cpu *c, unsigned reg, uint64_t val)
{
    if (reg < 31)
        (void)hv_vcpu_set_reg(c->vcpu, (hv_reg_t)(HV_REG_X0 + reg), val);
}

static uint64_t hvf__get_sys(struct hyp_cpu *c, hv_sys_reg_t reg)
{
    uint64_t val = 0;

    (void)hv_vcpu_get_sys_reg(c->vcpu, reg, &val);
    return val;
}

static uint64_t hvf__pc(struct hyp_cpu *c)
{
    uint64_t pc = 0;

    (void)hv_vcpu_get_reg(c->vcpu, HV_REG_PC, &pc);
    return pc;
}

/* The instruction is done. */
static void hvf__skip(struct hyp_cpu *c)
{
    (void)hv_vcpu_set_reg(c->vcpu, HV_REG_PC, hvf__pc(c) + 4);
}

/* >>cpu ------------------------------------------------------------------------------ */

#define HVF__PSTATE 0x3c5u      /* EL1 with its own stack, everything masked */
#define HVF__SCTLR  0x30d00980u /* MMU and caches off, and the bits that are one */

enum { HVF__PFR0_GIC = 24, HVF__DFR0_PMUVER = 8, HVF__PFR1_SME = 24 };

/* A field of 4 bits of an ID register. */
static hv_return_t hvf__set_field(struct hyp_cpu *c, hv_sys_reg_t reg, unsigned shift, uint64_t val)
{
    uint64_t old = 0;
    hv_return_t ret = hv_vcpu_get_sys_reg(c->vcpu, reg, &old);

    if (ret || (old >> shift & 15) == val)
        return ret;
    return hv_vcpu_set_sys_reg(c->vcpu, reg, (old & ~(15ull << shift)) | val << shift);
}

/* Guests learn of a GICv3's registers if there is one, of no PMU, for its registers trap, and of no
   SME, whose state nobody saves. */
static hv_return_t hvf__identify(struct hyp_cpu *c)
{
    bool v3 = c->hyp->caps & HYP_CAP_GICV3;
    hv_return_t ret =
        hv_vcpu_set_sys_reg(c->vcpu, HV_SYS_REG_MPIDR_EL1, 1ull << 31 | hvf__mpidr(c->id));

    if (!ret)
        ret = hvf__set_field(c, HV_SYS_REG_ID_AA64PFR0_EL1, HVF__PFR0_GIC, v3);
    if (!ret)
        ret = hvf__set_field(c, HV_SYS_REG_ID_AA64DFR0_EL1, HVF__DFR0_PMUVER, 0);
    if (!ret)
        ret = hvf__set_field(c, HV_SYS_REG_ID_AA64PFR1_EL1, HVF__PFR1_SME, 0);
    return ret;
}

/* As after a reset, but for what is undefined then. */
static hv_return_t hvf__reset(struct hyp_cpu *c, uint64_t entry, uint64_t context)
{
    hv_return_t ret = hv_vcpu_set_reg(c->vcpu, HV_REG_CPSR, HVF__PSTATE);

    if (!ret)
        ret = hv_vcpu_set_reg(c->vcpu, HV_REG_PC, entry);
    if (!ret)
        ret = hv_vcpu_set_reg(c->vcpu, HV_REG_X0, context);
    if (!ret)
        ret = hv_vcpu_set_sys_reg(c->vcpu, HV_SYS_REG_SCTLR_EL1, HVF__SCTLR);
    if (!ret)
        ret = hv_vcpu_set_sys_reg(c->vcpu, HV_SYS_REG_CNTV_CTL_EL0, 0);
    return ret;
}

static hv_return_t hvf__create_cpu(struct hyp_cpu *c)
{
    hv_vcpu_exit_t *exit = NULL;
    hv_return_t ret = hv_vcpu_create(&c->vcpu, &exit, NULL);

    c->exit = exit;
    c->exists = !ret;
    if (!ret)
        ret = hvf__identify(c);
    if (!ret)
        ret = hvf__reset(c, 0, 0);
    if (!ret)
        ret = hv_vcpu_set_vtimer_offset(c->vcpu, c->hyp->offset);
    return ret;
}

VMM_DEF int hyp_cpu_open(struct hyp_cpu *c, struct hyp *h, unsigned id)
{
    hv_return_t ret;

    if (id >= h->ncpus)
        return vmm_err(h->log, -EINVAL, "CPU %u is one too many", id);
    memset(c, 0, sizeof *c);
    c->hyp = h;
    c->id = id;
    pthread_cond_init(&c->wake, NULL);
    ret = hvf__create_cpu(c);
    if (ret) {
        hyp_cpu_close(c);
        return hvf__failed(h->log, ret, "cannot create a CPU");
    }
    pthread_mutex_lock(&h->lock);
    h->cpu[id] = c;
    pthread_mutex_unlock(&h->lock);
    return 0;
}

VMM_DEF void hyp_cpu_close(struct hyp_cpu *c)
{
    struct hyp *h = c->hyp;

    pthread_mutex_lock(&h->lock);
    if (h->cpu[c->id] == c)
        h->cpu[c->id] = NULL;
    pthread_mutex_unlock(&h->lock);
    if (c->exists)
        (void)hv_vcpu_destroy(c->vcpu);
    c->exists = false;
    pthread_cond_destroy(&c->wake);
}

/* With the lock held: has a CPU look at what was changed, wherever it is. A run that begins after
   `inside` was looked at has seen the change. */
static void hvf__nudge(struct hyp_cpu *c)
{
    hv_vcpu_t vcpu = c->vcpu;

    pthread_cond_signal(&c->wake);
    if (__atomic_load_n(&c->inside, __ATOMIC_SEQ_CST))
        (void)hv_vcpus_exit(&vcpu, 1);
}

VMM_DEF void hyp_kick(struct hyp_cpu *c)
{
    pthread_mutex_lock(&c->hyp->lock);
    __atomic_store_n(&c->kicked, true, __ATOMIC_SEQ_CST);
    hvf__nudge(c);
    pthread_mutex_unlock(&c->hyp->lock);
}

VMM_DEF void hyp_cpu_lines(struct hyp *h, unsigned cpu, unsigned lines)
{
    struct hyp_cpu *c;

    pthread_mutex_lock(&h->lock);
    c = h->cpu[cpu];
    if (c) {
        __atomic_store_n(&c->lines, lines, __ATOMIC_SEQ_CST);
        hvf__nudge(c);
    }
    pthread_mutex_unlock(&h->lock);
}

VMM_DEF uint32_t hyp_cpu_ppis(const struct hyp_cpu *c)
{
    return c->ppis;
}

/* >>run ------------------------------------------------------------------------------ */

/* What a step of a CPU's life leads to. */
enum { HVF__GO_ON, HVF__COME_OUT };

/* Only while the guest's MMU is off. */
static unsigned hvf__fetch(struct hyp_cpu *c)
{
    const void *bytes = hvf__get_sys(c, HV_SYS_REG_SCTLR_EL1) & 1
                            ? NULL
                            : vmm_at(&c->hyp->slots, hvf__pc(c), sizeof c->insn);

    if (!bytes)
        return 0;
    memcpy(c->insn, bytes, sizeof c->insn);
    return sizeof c->insn;
}

static int hvf__fault(struct hyp_cpu *c, struct vmm_exit *e, const char *why, uint64_t code)
{
    e->kind = VMM_EXIT_FAULT;
    e->why = why;
    e->code = code;
    e->data = c->insn;
    e->size = hvf__fetch(c);
    return HVF__COME_OUT;
}

/* The guest gets an exception for an instruction that it does not have (DDI 0487, D1.3). */
static int hvf__undefined(struct hyp_cpu *c)
{
    uint64_t pstate = 0, vector = hvf__get_sys(c, HV_SYS_REG_VBAR_EL1);

    (void)hv_vcpu_get_reg(c->vcpu, HV_REG_CPSR, &pstate);
    vector += (pstate & 15) == 0 ? 0x400 : pstate & 1 ? 0x200 : 0;
    (void)hv_vcpu_set_sys_reg(c->vcpu, HV_SYS_REG_SPSR_EL1, pstate);
    (void)hv_vcpu_set_sys_reg(c->vcpu, HV_SYS_REG_ELR_EL1, hvf__pc(c));
    (void)hv_vcpu_set_sys_reg(c->vcpu, HV_SYS_REG_ESR_EL1, 1u << 25); /* of 32 bits, unknown */
    (void)hv_vcpu_set_reg(c->vcpu, HV_REG_PC, vector);
    (void)hv_vcpu_set_reg(c->vcpu, HV_REG_CPSR, HVF__PSTATE);
    return HVF__GO_ON;
}

static int hvf__exit_sysreg(struct hyp_cpu *c, uint32_t iss)
{
    unsigned reg = iss >> 5 & 31;
    uint64_t val = iss & 1 ? 0 : hvf__get(c, reg);

    if (!hvf__sysreg(iss, &c->os_lock, hvf__count(c->hyp), &val))
        return hvf__undefined(c);
    if (iss & 1)
        hvf__put(c, reg, val);
    hvf__skip(c);
    return HVF__GO_ON;
}

/* macOS' GIC halts CPUs by itself. What has WFE, or a time-out, goes on after a while. */
static int hvf__exit_wfx(struct hyp_cpu *c, uint32_t iss)
{
    hvf__skip(c);
    if (!(iss & 3) && !(c->hyp->caps & HYP_CAP_IRQCHIP))
        c->idle = true;
    else
        sched_yield();
    return HVF__GO_ON;
}

static int hvf__exit_call(struct hyp_cpu *c, struct vmm_exit *e)
{
    struct hyp *h = c->hyp;
    uint64_t x[4];
    int64_t ret;
    enum hvf_call call;

    for (unsigned i = 0; i < 4; i++)
        x[i] = hvf__get(c, i);
    pthread_mutex_lock(&h->lock);
    call = hvf__smccc(h->power, h->ncpus, c->id, x, &ret);
    for (unsigned i = 0; i < h->ncpus && call == HVF_CALL_START; i++)
        if (h->cpu[i])
            pthread_cond_signal(&h->cpu[i]->wake);
    pthread_mutex_unlock(&h->lock);
    hvf__put(c, 0, (uint64_t)ret);
    c->on = call != HVF_CALL_STOP;
    c->idle = call == HVF_CALL_SUSPEND && !(h->caps & HYP_CAP_IRQCHIP);
    if (call != HVF_CALL_OFF && call != HVF_CALL_RESET)
        return HVF__GO_ON;
    e->kind = call == HVF_CALL_OFF ? VMM_EXIT_OFF : VMM_EXIT_RESET;
    return HVF__COME_OUT;
}

static int hvf__exit_access(struct hyp_cpu *c, struct vmm_exit *e)
{
    const struct hvf_access *a = &c->access;

    c->pending = true;
    memset(c->data, 0, sizeof c->data);
    if (a->write)
        vmm_put64(c->data, hvf__get(c, a->reg) & vmm_ones(a->size));
    e->kind = VMM_EXIT_MMIO;
    e->write = a->write;
    e->addr = a->ipa;
    e->size = a->size;
    e->count = 1;
    e->data = c->data;
    return HVF__COME_OUT;
}

static int hvf__exit_abort(struct hyp_cpu *c, struct vmm_exit *e, uint64_t esr, uint64_t ipa)
{
    switch (hvf__decode_abort(esr, ipa, &c->access)) {
    case HVF_ABORT_ACCESS:
        return hvf__exit_access(c, e);
    case HVF_ABORT_CACHE:
        hvf__skip(c);
        return HVF__GO_ON;
    case HVF_ABORT_WALK:
        return hvf__fault(c, e, "the guest's page tables are where there is no memory, at", ipa);
    case HVF_ABORT_ODD:
        return hvf__fault(
            c, e, "the guest accesses a device by an instruction that cannot be emulated, at", ipa);
    default:
        return hvf__fault(c, e, "the guest's access to memory failed with syndrome", esr);
    }
}

static int hvf__exit_exception(struct hyp_cpu *c, struct vmm_exit *e)
{
    const hv_vcpu_exit_t *exit = c->exit;
    uint64_t esr = exit->exception.syndrome;

    switch (hvf__class(esr)) {
    case HVF__EC_WFX:
        return hvf__exit_wfx(c, (uint32_t)esr);
    case HVF__EC_HVC:
        return hvf__exit_call(c, e); /* PC is behind it */
    case HVF__EC_SMC:
        hvf__skip(c);
        return hvf__exit_call(c, e);
    case HVF__EC_SYSREG:
        return hvf__exit_sysreg(c, (uint32_t)esr);
    case HVF__EC_DATA_ABORT:
        return hvf__exit_abort(c, e, esr, exit->exception.physical_address);
    default:
        return hvf__fault(c, e, "the guest did what this hypervisor does not know, by syndrome",
                          esr);
    }
}

/* The timer's interrupt is high, and the framework shall not tell again until it was low. */
static int hvf__timer_rises(struct hyp_cpu *c)
{
    c->masked = true;
    if (c->hyp->caps & HYP_CAP_IRQCHIP)
        return HVF__GO_ON; /* macOS' GIC knows */
    c->ppis |= 1u << HVF__VTIMER_INTID;
    return HVF__COME_OUT;
}

/* After any exit: the guest may have set its timer anew, which is not told while it is masked. */
static void hvf__timer_look(struct hyp_cpu *c)
{
    if (!c->masked || hvf__timer_fires(hvf__get_sys(c, HV_SYS_REG_CNTV_CTL_EL0)))
        return;
    c->ppis &= ~(1u << HVF__VTIMER_INTID);
    c->masked = false;
    (void)hv_vcpu_set_vtimer_mask(c->vcpu, false);
}

static int hvf__exit(struct hyp_cpu *c, struct vmm_exit *e)
{
    const hv_vcpu_exit_t *exit = c->exit;

    hvf__timer_look(c);
    switch (exit->reason) {
    case HV_EXIT_REASON_CANCELED:
        return HVF__GO_ON;
    case HV_EXIT_REASON_EXCEPTION:
        return hvf__exit_exception(c, e);
    case HV_EXIT_REASON_VTIMER_ACTIVATED:
        return hvf__timer_rises(c);
    default:
        return hvf__fault(c, e, "Hypervisor.framework gave up on the guest, for reason",
                          exit->reason);
    }
}

/* The caller has carried out the access that ended the last run. */
static void hvf__complete(struct hyp_cpu *c)
{
    const struct hvf_access *a = &c->access;

    if (!c->pending)
        return;
    c->pending = false;
    if (!a->write)
        hvf__put(c, a->reg, hvf__loaded(a, vmm_get64(c->data)));
    hvf__skip(c);
}

/* With the lock held: sleeps until somebody nudges, and no longer than ns. The clock is the one that
   every system's conditions have; if it is set, the sleeper looks up too early or, once, a second
   late. */
static void hvf__sleep(struct hyp_cpu *c, uint64_t ns)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    ns += (uint64_t)until.tv_nsec;
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    pthread_cond_timedwait(&c->wake, &c->hyp->lock, &until);
}

static bool hvf__kicked(const struct hyp_cpu *c)
{
    return __atomic_load_n(&c->kicked, __ATOMIC_SEQ_CST);
}

/* WFI: until an input is high or the timer fires; that may be the end of it or, if the guest's
   interrupt controller does not care, not. */
static int hvf__idle(struct hyp_cpu *c)
{
    struct hyp *h = c->hyp;
    uint64_t left = UINT64_MAX;

    hvf__timer_look(c);
    if (!c->masked)
        left = hvf__timer_left(hvf__get_sys(c, HV_SYS_REG_CNTV_CTL_EL0),
                               hvf__get_sys(c, HV_SYS_REG_CNTV_CVAL_EL0), hvf__count(h));
    if (!left) {
        (void)hv_vcpu_set_vtimer_mask(c->vcpu, true);
        return hvf__timer_rises(c);
    }
    pthread_mutex_lock(&h->lock);
    if (!hvf__kicked(c) && !__atomic_load_n(&c->lines, __ATOMIC_SEQ_CST))
        hvf__sleep(c, hvf__ticks_ns(h, left));
    pthread_mutex_unlock(&h->lock);
    c->idle = !__atomic_load_n(&c->lines, __ATOMIC_SEQ_CST);
    return HVF__GO_ON;
}

/* A CPU that is off sleeps; one that another has just started gets its registers. */
static int hvf__power_up(struct hyp_cpu *c)
{
    struct hyp *h = c->hyp;
    struct hvf_power *p = &h->power[c->id], start;

    pthread_mutex_lock(&h->lock);
    if (p->state == HVF_OFF && !hvf__kicked(c))
        hvf__sleep(c, 1000000000);
    start = *p;
    if (p->state == HVF_STARTING)
        p->state = HVF_ON;
    pthread_mutex_unlock(&h->lock);
    c->on = start.state != HVF_OFF;
    c->idle = false;
    return start.state == HVF_STARTING ? hvf__errno(hvf__reset(c, start.entry, start.context))
                                       : HVF__GO_ON;
}

/* Inputs hold for one run. */
static hv_return_t hvf__enter(struct hyp_cpu *c)
{
    unsigned lines = __atomic_load_n(&c->lines, __ATOMIC_SEQ_CST);
    hv_return_t ret = HV_SUCCESS;

    if (lines & 1)
        ret = hv_vcpu_set_pending_interrupt(c->vcpu, HV_INTERRUPT_TYPE_IRQ, true);
    if (!ret && lines & 2)
        ret = hv_vcpu_set_pending_interrupt(c->vcpu, HV_INTERRUPT_TYPE_FIQ, true);
    return ret ? ret : hv_vcpu_run(c->vcpu);
}

static int hvf__run(struct hyp_cpu *c, struct vmm_exit *e)
{
    hv_return_t ret = HV_SUCCESS;
    bool kicked;

    __atomic_store_n(&c->inside, true, __ATOMIC_SEQ_CST);
    kicked = hvf__kicked(c);
    if (!kicked)
        ret = hvf__enter(c);
    __atomic_store_n(&c->inside, false, __ATOMIC_SEQ_CST);
    if (ret)
        return hvf__failed(c->hyp->log, ret, "the guest cannot run");
    return kicked ? HVF__GO_ON : hvf__exit(c, e);
}

/* A step of the CPU's life: sleeps, or runs. */
static int hvf__step(struct hyp_cpu *c, struct vmm_exit *e)
{
    if (__atomic_exchange_n(&c->kicked, false, __ATOMIC_SEQ_CST))
        return HVF__COME_OUT;
    if (!c->on)
        return hvf__power_up(c);
    return c->idle ? hvf__idle(c) : hvf__run(c, e);
}

VMM_DEF int hyp_run(struct hyp_cpu *c, struct vmm_exit *e)
{
    int next = HVF__GO_ON;

    e->kind = VMM_EXIT_AGAIN;
    hvf__complete(c);
    while (next == HVF__GO_ON)
        next = hvf__step(c, e);
    return next < 0 ? next : 0;
}
#endif /* arm64 */

#endif /* HV_HVF_IMPLEMENTED */
#endif /* VMM_IMPLEMENTATION || HV_HVF_IMPLEMENTATION */
