/* hv_hvf.h - the hypervisor contract of vmm.h on macOS' Hypervisor.framework   MIT licence, see LICENSE

   WHAT IT IS      hyp_open, hyp_run and friends (declared in vmm.h) for Apple Silicon and for Macs
                   with Intel's processors: two halves, which the architecture chooses. It does not
                   place devices, load images or make threads.
                   >>arm64: the framework runs a CPU until it needs something; what that is, is told by
                   the syndrome register of its exit, which pure functions decode (>>decode,
                   >>sysregs, >>psci). PSCI, the traps of system registers and the virtual timer are
                   done here. The interrupt controller is macOS' own GICv3 where there is one (macOS
                   15 and newer), else the caller's: then hyp_cpu_lines and hyp_cpu_ppis work. A
                   debugger is lent the guest's debug registers.
                   >>x86: the framework is a thin layer over VMX: fields of the VMCS are written here
                   within what Apple lets one write, exits are decoded by pure functions
                   (>>qualification, >>rules), instructions that touch devices are carried out by
                   hv_x86.h, and interrupt controllers and timers are all the caller's. The
                   framework's own LAPIC (macOS 12 and newer) is not used. An access to a device
                   reads all registers, one call each. A debugger steps by the monitor trap
                   flag; the exceptions that it wants come out.
                   Follows Apple's documentation of Hypervisor.framework, Arm's DDI 0487 (syndromes,
                   registers), DEN 0022 (PSCI 1.1) and DEN 0028 (SMCCC 1.1), and the Intel SDM, volume
                   3, chapters 24 to 27.

                   Compiled and linked for macOS; logic tested on a scripted fake of the framework
                   under Linux, and on one that KVM plays, where it booted guests (x86: without
                   what KVM keeps to itself there; each access to a device's memory, and the registers
                   behind the instruction, compared with KVM's own decoding of it); never run on Apple
                   hardware. What that cannot prove: that macOS' own prototypes, default registers
                   and ID registers are as they are taken here; which registers it lets one write;
                   when exactly it masks the timer; how soon hv_vcpus_exit and hv_vcpu_interrupt end a
                   run; how its GIC counts redistributors and serves the frame for messages; which
                   controls and MSRs an Intel Mac allows, what its TSC does with hv_vm_sync_tsc, and
                   whether its guests have the debug registers that are written here; signing and
                   entitlements.

   QUICK START     as hv_kvm.h's, on a thread of its own for each vCPU.

   CONFIGURATION   set everywhere:
                   HYP_WINDOWS_MAX    pieces of devices' memory of one VM; default 128
                   set in the implementing file only:
                   HVF_SYMBOL(name)   of arm64: the address of a function that not every macOS has,
                                      or NULL; default: dlsym

   DEPENDS ON      vmm.h, on x86 hv_x86.h (and debug.h by it); the implementation on macOS 13 or
                   newer, and pthreads.

   THREADS         A vCPU belongs to the thread that opened it. hyp_irq_set, hyp_cpu_lines and
                   hyp_kick: any thread. Everything else before the first hyp_run, or from one
                   thread at a time.
   MEMORY          struct hyp and struct hyp_cpu are the caller's, and stay where they are; nothing
                   is allocated. Guest memory stays the caller's too and must outlive hyp_close.
   ERRORS          Negative errno; one sentence in desc.log.
   PROCESS         One VM: a second hyp_open fails until the first is closed.
   GUEST TRUST     Every syndrome or qualification is decoded or refused; what a guest does that
                   cannot be carried out is an exception for it, or the end of it (VMM_EXIT_FAULT). */
#ifndef HV_HVF_H
#define HV_HVF_H

#define HYP_BACKEND
#include "vmm.h"

#if defined(__x86_64__)
#include "hv_x86.h"
#endif
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
#else

/* What the next hyp_run has to finish first. */
enum hvf_todo { HVF_NOTHING, HVF_IN, HVF_RDMSR, HVF_WRMSR, HVF_EMULATION };
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
    unsigned breaks, watches; /* of a CPU, in hardware */
    int32_t (*set_spi)(uint32_t intid, bool level);
    int32_t (*send_msi)(uint64_t gpa, uint32_t intid);
    struct hvf_power power[HYP_CPUS_MAX]; /* under the lock, as the next */
    struct hyp_cpu *cpu[HYP_CPUS_MAX];
#else
    struct vmm_mem rom;               /* what is mapped and cannot be written; not in slots */
    uint32_t pin, proc, proc2, entry; /* controls of a new vCPU */
    uint64_t cr0_ones, cr0_may;       /* bits that VMX wants set, or allows */
    uint64_t cr4_ones, cr4_may;
    uint64_t tsc, tsc_hz;     /* the host's when this was opened, and how fast it is */
    uint64_t slice;           /* ticks of the host's clock that a run lasts at most */
#endif
    pthread_mutex_t lock; /* of what CPUs sleep for */
};

struct hyp_cpu {
    struct hyp *hyp;
    unsigned id;
    bool exists;
    bool kicked, inside; /* atomic; inside: a kick has to end a run */
#if defined(__aarch64__)
    pthread_cond_t wake; /* of kicks, and of what a CPU may wait for */
    uint64_t vcpu;       /* the framework's number */
    const void *exit;    /* hv_vcpu_exit_t */
    bool on;             /* by PSCI */
    unsigned lines;      /* atomic: IRQ, FIQ */
    uint32_t ppis;       /* as hyp_cpu_ppis tells them */
    bool masked;         /* the framework does not tell of the timer */
    bool idle;           /* waits for an interrupt */
    bool os_lock;
    bool pending;             /* an access that the caller is to carry out */
    struct hvf_access access; /* it */
    uint8_t data[8];          /* its bytes */
    uint8_t insn[16];         /* those at a fault */
    struct vmm_debug debug;   /* what hyp_debug asked for */
    bool retired;             /* stepping: an instruction was carried out here */
    bool lent;                /* the debug registers are the debugger's; the guest believes in: */
    uint64_t mdscr, guest_debug[16][4]; /* DBGBVR, DBGBCR, DBGWVR, DBGWCR of each number */
#else
    unsigned vcpu;            /* the framework's number */
    int32_t ret;              /* the first failure of a call since this was last looked at */
    uint32_t proc, entry;     /* controls as they are */
    bool window;              /* hyp_run shall return as soon as an interrupt can be taken */
    bool nmi;                 /* waits for its turn */
    bool refused;             /* the access to an MSR */
    uint64_t rflags, blocked; /* as of the last exit, and what was changed since */
    uint64_t cr8, pat, xcr0;
    uint32_t event, event_error, event_len; /* the next entry delivers this; 0: nothing */
    enum hvf_todo todo;
    unsigned size;            /* of HVF_IN: bytes */
    uint8_t data[8];          /* of all but HVF_EMULATION: read or written */
    struct vmm_x86_regs regs; /* what HVF_EMULATION works on */
    struct x86_emul emul;
    struct x86_msrs msrs;
    uint8_t insn[X86_INSN_MAX];      /* bytes at the instruction pointer of a fault */
    struct vmm_debug debug;          /* what hyp_debug asked for */
    bool retired;                    /* an instruction was carried out here since */
    bool lent;                       /* the debug registers are the debugger's: */
    uint64_t dr[5], guest_dr[5];     /* DR0 to DR3 and DR7: these, and what the guest gets back */
    uint32_t trap, trap_len, causes; /* the exception that was told, as an event, and for DR6 */
#endif
};

#endif /* HV_HVF_H */

#if defined(VMM_IMPLEMENTATION) || defined(HV_HVF_IMPLEMENTATION)
#ifndef HV_HVF_IMPLEMENTED
#define HV_HVF_IMPLEMENTED

#include <Hypervisor/Hypervisor.h>
#include <mach/mach_time.h>
#include <time.h>
#if defined(__aarch64__)
#include <os/object.h>
#include <sched.h>
#elif defined(__x86_64__)
#include <Hypervisor/hv.h>
#include <Hypervisor/hv_vmx.h>
#include <cpuid.h>
#include <sys/sysctl.h>
#else
#error "hv_hvf.h knows arm64 and x86_64"
#endif

#if defined(__aarch64__) && !defined(HVF_SYMBOL)
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

/* Where memory is noted: what emulates instructions must know what the guest cannot write. */
static struct vmm_mem *hvf__mem(struct hyp *h, unsigned prot)
{
#if defined(__x86_64__)
    return prot & VMM_WRITE ? &h->slots : &h->rom;
#else
    (void)prot;
    return &h->slots;
#endif
}

VMM_DEF int hyp_map(struct hyp *h, uint64_t gpa, uint64_t len, void *hva, unsigned prot)
{
    int err = hvf__map(gpa, len, hva, prot);

    if (!err)
        err = vmm_mem_add(hvf__mem(h, prot), gpa, len, hva);
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

#if defined(__aarch64__)
#endif

/* What a step of a CPU's life leads to; negative: it failed. */
enum { HVF__GO_ON, HVF__COME_OUT };

static bool hvf__kicked(const struct hyp_cpu *c)
{
    return __atomic_load_n(&c->kicked, __ATOMIC_SEQ_CST);
}

/* >>arm64 --------------------------------------------------------------------------- */
#if defined(__aarch64__)

/* What is taken for granted of Apple's headers. */
_Static_assert(sizeof(hv_vcpu_t) == 8, "hv_vcpu_t");
_Static_assert(sizeof(hv_vcpu_exit_t) == 32, "hv_vcpu_exit_t");
_Static_assert(HV_REG_X0 == 0 && HV_REG_PC == 31 && HV_REG_CPSR == 34, "hv_reg_t");
_Static_assert(HV_INTERRUPT_TYPE_IRQ == 0, "hv_interrupt_type_t");
_Static_assert(HV_SYS_REG_DBGWCR0_EL1 == HV_SYS_REG_DBGBVR0_EL1 + 3 &&
                   HV_SYS_REG_DBGBVR1_EL1 == HV_SYS_REG_DBGBVR0_EL1 + 8,
               "hv_sys_reg_t");
_Static_assert(sizeof(hv_simd_fp_uchar16_t) == 16, "hv_simd_fp_uchar16_t");

/* >>decode: of syndromes (DDI 0487, ESR_EL2), nothing but bits ---------------------- */

enum {
    HVF__EC_WFX = 0x01,
    HVF__EC_HVC = 0x16,
    HVF__EC_SMC = 0x17,
    HVF__EC_SYSREG = 0x18,
    HVF__EC_DATA_ABORT = 0x24,
    HVF__EC_BREAK = 0x30,
    HVF__EC_STEP = 0x32,
    HVF__EC_WATCH = 0x34,
    HVF__EC_BKPT32 = 0x38,
    HVF__EC_BRK = 0x3c
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

/* One more than ID_AA64DFR0_EL1 says (DDI 0487, D17.2.59). Without, there is no debugging. */
static void hvf__count_slots(struct hyp *h)
{
    hv_vcpu_config_t config = hv_vcpu_config_create();
    uint64_t dfr0 = 0;

    if (!config)
        return;
    if (!hv_vcpu_config_get_feature_reg(config, HV_FEATURE_REG_ID_AA64DFR0_EL1, &dfr0)) {
        h->breaks = (dfr0 >> 12 & 15) + 1;
        h->watches = (dfr0 >> 20 & 15) + 1;
        h->caps |= HYP_CAP_DEBUG;
    }
    os_release(config);
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
    hvf__count_slots(h);
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

enum { HVF__PSTATE_STEP = 1 << 21 }; /* the debugger's, while that steps */

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
    int err;

    memset(regs, 0, sizeof *regs);
    err = hvf__move_regs(c, false, regs);
    if (c->lent)
        regs->pstate &= ~(uint64_t)HVF__PSTATE_STEP;
    return err;
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

/* The instruction is done; of a step, the processor does not know that. */
static void hvf__skip(struct hyp_cpu *c)
{
    (void)hv_vcpu_set_reg(c->vcpu, HV_REG_PC, hvf__pc(c) + 4);
    c->retired = c->debug.step;
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

/* >>debug: slots and steps are those of the guest's debug registers, which are lent to the debugger for
   that. Meanwhile the guest's accesses to them come out and go to what it believes in, so that it
   finds what it left; its own breakpoints and steps rest. ----------------------------------- */

enum { HVF__MDSCR_STEP = 1, HVF__MDSCR_ENABLE = 1 << 15 };

/* Which of the four at number n. */
static hv_sys_reg_t hvf__debug_reg(unsigned n, unsigned which)
{
    return (hv_sys_reg_t)(HV_SYS_REG_DBGBVR0_EL1 + 8 * n + which);
}

static bool hvf__has_slot(const struct hyp *h, unsigned n, unsigned which)
{
    return n < (which < 2 ? h->breaks : h->watches);
}

/* All that there are: to the CPU, or from it. */
static hv_return_t hvf__move_slots(struct hyp_cpu *c, bool set, uint64_t slots[16][4])
{
    hv_return_t ret = HV_SUCCESS;

    for (unsigned n = 0; n < 16; n++)
        for (unsigned w = 0; w < 4 && !ret; w++) {
            if (!hvf__has_slot(c->hyp, n, w))
                continue;
            ret = set ? hv_vcpu_set_sys_reg(c->vcpu, hvf__debug_reg(n, w), slots[n][w])
                      : hv_vcpu_get_sys_reg(c->vcpu, hvf__debug_reg(n, w), &slots[n][w]);
        }
    return ret;
}

/* The first takes them, the last gives them back. */
static hv_return_t hvf__lend(struct hyp_cpu *c, bool lend)
{
    hv_return_t ret = HV_SUCCESS;

    if (c->lent == lend)
        return ret;
    if (lend)
        ret = hvf__move_slots(c, false, c->guest_debug);
    if (!ret && lend)
        ret = hv_vcpu_get_sys_reg(c->vcpu, HV_SYS_REG_MDSCR_EL1, &c->mdscr);
    if (!ret)
        ret = hv_vcpu_set_trap_debug_reg_accesses(c->vcpu, lend);
    if (!ret && !lend)
        ret = hvf__move_slots(c, true, c->guest_debug);
    if (!ret && !lend)
        ret = hv_vcpu_set_sys_reg(c->vcpu, HV_SYS_REG_MDSCR_EL1, c->mdscr);
    c->lent = lend;
    return ret;
}

/* How many slots are in use. */
static unsigned hvf__fill_slots(const struct vmm_debug *d, uint64_t slots[16][4])
{
    unsigned breaks = 0, watches = 0;

    for (unsigned i = 0; i < VMM_BREAKS; i++) {
        const struct vmm_break *b = &d->slot[i];
        uint64_t *at = b->kind == VMM_BREAK_EXEC ? slots[breaks] : slots[watches] + 2;
        if (b->len)
            at[1] = vmm_arm64_slot(b, at);
        breaks += b->len && b->kind == VMM_BREAK_EXEC;
        watches += b->len && b->kind != VMM_BREAK_EXEC;
    }
    return breaks + watches;
}

/* A step ends behind one instruction if PSTATE says so, too. */
static hv_return_t hvf__arm(struct hyp_cpu *c)
{
    uint64_t slots[16][4] = {{0}}, pstate = 0, mdscr = c->mdscr & ~(uint64_t)HVF__MDSCR_STEP;
    hv_return_t ret;

    mdscr |= hvf__fill_slots(&c->debug, slots) ? HVF__MDSCR_ENABLE : 0;
    mdscr |= c->debug.step ? HVF__MDSCR_STEP : 0;
    ret = hvf__move_slots(c, true, slots);
    if (!ret)
        ret = hv_vcpu_set_sys_reg(c->vcpu, HV_SYS_REG_MDSCR_EL1, mdscr);
    if (!ret)
        ret = hv_vcpu_get_reg(c->vcpu, HV_REG_CPSR, &pstate);
    pstate &= ~(uint64_t)HVF__PSTATE_STEP;
    return ret ? ret
               : hv_vcpu_set_reg(c->vcpu, HV_REG_CPSR,
                                 pstate | (c->debug.step ? HVF__PSTATE_STEP : 0));
}

VMM_DEF void hyp_debug_slots(const struct hyp *h, unsigned *breaks, unsigned *watches)
{
    *breaks = h->breaks;
    *watches = h->watches;
}

VMM_DEF int hyp_debug(struct hyp_cpu *c, const struct vmm_debug *d)
{
    bool lend = d->step;
    hv_return_t ret;

    for (unsigned i = 0; i < VMM_BREAKS; i++)
        lend |= d->slot[i].len != 0;
    c->debug = *d;
    c->retired = false;
    ret = hv_vcpu_set_trap_debug_exceptions(c->vcpu, lend || d->traps);
    if (!ret && lend)
        ret = hvf__lend(c, true);
    if (!ret && c->lent)
        ret = hvf__arm(c);
    if (!ret && !lend)
        ret = hvf__lend(c, false);
    return ret ? hvf__failed(c->hyp->log, ret, "cannot debug a CPU") : 0;
}

VMM_DEF int hyp_debug_pass(struct hyp_cpu *c)
{
    const hv_vcpu_exit_t *exit = c->exit;
    struct vmm_regs regs;
    int err = hyp_get_regs(c, &regs);

    if (err)
        return err;
    vmm_arm64_take_debug(&regs, (uint32_t)exit->exception.syndrome,
                         exit->exception.virtual_address);
    return hyp_set_regs(c, &regs);
}

/* What the guest believes in of its debug registers. NULL: this is none of them. */
static uint64_t *hvf__believed(struct hyp_cpu *c, uint32_t key)
{
    unsigned crm = key >> 1 & 15, op2 = key >> 17 & 7;

    if (!c->lent || (key & ~HVF__SYSREG(0, 0, 0, 15, 7)) != HVF__SYSREG(2, 0, 0, 0, 0))
        return NULL;
    return op2 >= 4 ? &c->guest_debug[crm][op2 - 4] : crm == 2 && op2 == 2 ? &c->mdscr : NULL;
}

static hv_return_t hvf__move_fpu(struct hyp_cpu *c, bool set, struct vmm_fpu *fpu)
{
    uint64_t fpsr = fpu->fpsr, fpcr = fpu->fpcr;
    hv_return_t ret = hvf__move(c, set, HV_REG_FPSR, &fpsr);

    if (!ret)
        ret = hvf__move(c, set, HV_REG_FPCR, &fpcr);
    fpu->fpsr = (uint32_t)fpsr;
    fpu->fpcr = (uint32_t)fpcr;
    for (unsigned i = 0; i < 32 && !ret; i++) {
        hv_simd_fp_reg_t reg = (hv_simd_fp_reg_t)(HV_SIMD_FP_REG_Q0 + i);
        hv_simd_fp_uchar16_t v;
        memcpy(&v, fpu->v[i], sizeof v);
        ret = set ? hv_vcpu_set_simd_fp_reg(c->vcpu, reg, v)
                  : hv_vcpu_get_simd_fp_reg(c->vcpu, reg, &v);
        memcpy(fpu->v[i], &v, sizeof v);
    }
    return ret;
}

VMM_DEF int hyp_get_fpu(struct hyp_cpu *c, struct vmm_fpu *fpu)
{
    memset(fpu, 0, sizeof *fpu);
    return hvf__errno(hvf__move_fpu(c, false, fpu));
}

VMM_DEF int hyp_set_fpu(struct hyp_cpu *c, const struct vmm_fpu *fpu)
{
    struct vmm_fpu copy = *fpu;

    return hvf__errno(hvf__move_fpu(c, true, &copy));
}

/* >>run ------------------------------------------------------------------------------ */

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
    c->retired = c->debug.step;
    return HVF__GO_ON;
}

static int hvf__exit_sysreg(struct hyp_cpu *c, uint32_t iss)
{
    unsigned reg = iss >> 5 & 31;
    uint64_t val = iss & 1 ? 0 : hvf__get(c, reg),
             *believed = hvf__believed(c, iss & HVF__SYSREG_MASK);

    if (believed && iss & 1)
        val = *believed;
    else if (believed)
        *believed = val;
    else if (!hvf__sysreg(iss, &c->os_lock, hvf__count(c->hyp), &val))
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
    c->retired = c->debug.step;
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

static int hvf__exit_debug(struct hyp_cpu *c, struct vmm_exit *e, uint64_t esr, uint64_t far)
{
    e->kind = VMM_EXIT_DEBUG;
    e->addr = hvf__pc(c);
    e->code = vmm_arm64_why(&c->debug, (uint32_t)esr, e->addr, far);
    return HVF__COME_OUT;
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
    case HVF__EC_BREAK:
    case HVF__EC_STEP:
    case HVF__EC_WATCH:
    case HVF__EC_BKPT32:
    case HVF__EC_BRK:
        return hvf__exit_debug(c, e, esr, exit->exception.virtual_address);
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
    if (c->retired) {
        c->retired = false;
        return hvf__exit_debug(c, e, (uint64_t)HVF__EC_STEP << 26, 0);
    }
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

/* >>x86: of Intel's Macs ------------------------------------------------------------- */
#if defined(__x86_64__)

/* What is taken for granted of Apple's headers. */
_Static_assert(sizeof(hv_vcpuid_t) == 4 && sizeof(hv_gpaddr_t) == 8, "hv_vcpuid_t, hv_gpaddr_t");
_Static_assert(HV_X86_RIP == 0 && HV_X86_RAX == 2 && HV_X86_RSI == 6 && HV_X86_R15 == 17,
               "hv_x86_reg_t");
_Static_assert(HV_X86_CR2 == 38 && HV_X86_XCR0 == 50, "hv_x86_reg_t");
_Static_assert(HV_VMX_CAP_ENTRY == 3 && HV_VMX_CAP_CR0_FIXED0 == 11, "hv_vmx_capability_t");

/* >>vmx: numbers of the Intel SDM, volume 3, chapters 24 and 27 and appendices B and C ---------- */

enum hvf__field {
    HVF__EFER_FIELD = 0x2806,
    HVF__PDPTE0 = 0x280a, /* four, two apart */
    HVF__TSC_OFFSET = 0x2010,
    HVF__GPA = 0x2400,
    HVF__PIN = 0x4000,
    HVF__PROC = 0x4002,
    HVF__EXCEPTIONS = 0x4004,
    HVF__ENTRY = 0x4012,
    HVF__EVENT = 0x4016,
    HVF__EVENT_ERROR = 0x4018,
    HVF__EVENT_LEN = 0x401a,
    HVF__PROC2 = 0x401e,
    HVF__REASON = 0x4402,
    HVF__EXIT_EVENT = 0x4404,
    HVF__VECTORING = 0x4408,
    HVF__VECTORING_ERROR = 0x440a,
    HVF__EXIT_LEN = 0x440c,
    HVF__GDT_LIMIT = 0x4810,
    HVF__IDT_LIMIT = 0x4812,
    HVF__BLOCKED = 0x4824,
    HVF__ACTIVITY = 0x4826,
    HVF__CR0_MASK = 0x6000,
    HVF__CR4_MASK = 0x6002,
    HVF__CR0_SHADOW = 0x6004,
    HVF__CR4_SHADOW = 0x6006,
    HVF__QUALIFICATION = 0x6400,
    HVF__CR0 = 0x6800,
    HVF__CR3 = 0x6802,
    HVF__CR4 = 0x6804,
    HVF__GDT_BASE = 0x6816,
    HVF__IDT_BASE = 0x6818,
    HVF__DR7 = 0x681a,
    HVF__PENDING_DEBUG = 0x6822
};

/* Of the segment with this number, see HVF__EACH_SEG. */
#define HVF__SELECTOR(seg) (0x800u + 2 * (seg))
#define HVF__LIMIT(seg)    (0x4800u + 2 * (seg))
#define HVF__AR(seg)       (0x4814u + 2 * (seg))
#define HVF__BASE(seg)     (0x6806u + 2 * (seg))

enum hvf__control {
    HVF__PIN_INTERRUPTS = 1 << 0,
    HVF__PIN_NMIS = 1 << 3,
    HVF__PIN_VIRTUAL_NMIS = 1 << 5,
    HVF__PROC_WINDOW = 1 << 2,
    HVF__PROC_TSC_OFFSET = 1 << 3,
    HVF__PROC_HLT = 1 << 7,
    HVF__PROC_MWAIT = 1 << 10,
    HVF__PROC_CR8_LOAD = 1 << 19,
    HVF__PROC_CR8_STORE = 1 << 20,
    HVF__PROC_NMI_WINDOW = 1 << 22,
    HVF__PROC_IO = 1 << 24,
    HVF__PROC_MTF = 1 << 27, /* the monitor trap flag */
    HVF__PROC_MSRS = 1 << 28,
    HVF__PROC_MONITOR = 1 << 29,
    HVF__PROC2_EPT = 1 << 1,
    HVF__PROC2_RDTSCP = 1 << 3,
    HVF__PROC2_VPID = 1 << 5,
    HVF__PROC2_UNRESTRICTED = 1 << 7,
    HVF__PROC2_INVPCID = 1 << 12,
    HVF__ENTRY_LONG = 1 << 9,
    HVF__ENTRY_EFER = 1 << 15
};
#define HVF__PROC_SECOND (1u << 31)

enum hvf__reason {
    HVF__EXIT_EXCEPTION = 0,
    HVF__EXIT_INTERRUPT = 1, /* of the host, or hv_vcpu_interrupt */
    HVF__EXIT_TRIPLE_FAULT = 2,
    HVF__EXIT_WINDOW = 7,
    HVF__EXIT_NMI_WINDOW = 8,
    HVF__EXIT_TASK = 9,
    HVF__EXIT_CPUID = 10,
    HVF__EXIT_HLT = 12,
    HVF__EXIT_INVD = 13,
    HVF__EXIT_RDPMC = 15,
    HVF__EXIT_RSM = 17,
    HVF__EXIT_VMCALL = 18, /* and further instructions of VMX, to VMXON */
    HVF__EXIT_VMXON = 27,
    HVF__EXIT_CR = 28,
    HVF__EXIT_IO = 30,
    HVF__EXIT_RDMSR = 31,
    HVF__EXIT_WRMSR = 32,
    HVF__EXIT_MWAIT = 36,
    HVF__EXIT_MTF = 37,
    HVF__EXIT_MONITOR = 39,
    HVF__EXIT_PAUSE = 40,
    HVF__EXIT_EPT = 48,
    HVF__EXIT_INVEPT = 50,
    HVF__EXIT_TIMER = 52,
    HVF__EXIT_INVVPID = 53,
    HVF__EXIT_WBINVD = 54,
    HVF__EXIT_XSETBV = 55,
    HVF__EXIT_INVPCID = 58,
    HVF__EXIT_VMFUNC = 59
};

enum hvf__bit {
    HVF__CR0_PE = 1,
    HVF__CR0_MP_EM_TS = 0xe,
    HVF__CR0_TS = 8,
    HVF__CR0_ET = 0x10,
    HVF__CR0_NE = 0x20,
    HVF__CR4_PAE = 1 << 5,
    HVF__CR4_VMXE = 1 << 13,
    HVF__CR4_PCIDE = 1 << 17,
    HVF__CR4_OSXSAVE = 1 << 18,
    HVF__EFER_SCE = 1,
    HVF__EFER_LME = 1 << 8,
    HVF__EFER_LMA = 1 << 10,
    HVF__EFER_NXE = 1 << 11,
    HVF__FLAG_TF = 1 << 8,
    HVF__FLAG_IF = 1 << 9,
    HVF__DR6_CAUSES = 0xe00f,
    HVF__PENDING_BREAK = 1 << 12, /* of those that DR7 enables */
    HVF__BLOCKED_SHADOW = 3,      /* by STI, or by MOV or POP to SS */
    HVF__BLOCKED_NMI = 8,
    HVF__AR_PRESENT = 0x80,
    HVF__AR_LONG = 1 << 13,
    HVF__AR_UNUSABLE = 1 << 16
};
#define HVF__CR0_NW   (1ull << 29)
#define HVF__CR0_CD   (1ull << 30)
#define HVF__CR0_PG   (1ull << 31)
#define HVF__CR0_BITS 0xe005003full /* that there are */
#define HVF__CR0_OWNED                                                                             \
    (HVF__CR0_PG | HVF__CR0_CD | HVF__CR0_NW | HVF__CR0_PE | HVF__CR0_NE | HVF__CR0_ET)
#define HVF__XCR0_BITS 0xe7ull /* x87, SSE, AVX, AVX-512 */
#define HVF__VALID     (1u << 31)
#define HVF__HAS_ERROR (1u << 11)

enum hvf__type { HVF__TYPE_INTERRUPT, HVF__TYPE_NMI = 2, HVF__TYPE_EXCEPTION = 3 };
enum { HVF__MSR_TSC = 0x10, HVF__MSR_PAT = 0x277, HVF__MC = 18 };
#define HVF__MSR_EFER 0xc0000080u

/* >>qualification: what an exit says of itself, nothing but bits ------------------------------- */

struct hvf_io {
    uint16_t port;
    uint8_t size; /* 1, 2 or 4 */
    bool in, string;
};

/* false: no processor says that. */
static bool hvf__decode_io(uint64_t q, struct hvf_io *io)
{
    unsigned size = (unsigned)(q & 7) + 1;

    *io = (struct hvf_io){
        .port = (uint16_t)(q >> 16), .size = (uint8_t)size, .in = q >> 3 & 1, .string = q >> 4 & 1};
    return size == 1 || size == 2 || size == 4;
}

enum hvf_cr_kind { HVF_CR_WRITE, HVF_CR_READ, HVF_CR_CLTS, HVF_CR_LMSW };

struct hvf_cr {
    enum hvf_cr_kind kind;
    unsigned cr, reg; /* reg: of enum vmm_x86_gpr */
    uint16_t lmsw;    /* what it loads */
};

static struct hvf_cr hvf__decode_cr(uint64_t q)
{
    return (struct hvf_cr){.kind = (enum hvf_cr_kind)(q >> 4 & 3),
                           .cr = (unsigned)(q & 15),
                           .reg = (unsigned)(q >> 8 & 15),
                           .lmsw = (uint16_t)(q >> 16)};
}

enum hvf_ept {
    HVF_EPT_READ,
    HVF_EPT_WRITE,
    HVF_EPT_FETCH,
    HVF_EPT_WALK /* the guest's own page tables are there */
};

static enum hvf_ept hvf__decode_ept(uint64_t q)
{
    if ((q >> 7 & 3) != 3) /* there is a linear address, and this is what it led to */
        return HVF_EPT_WALK;
    return q >> 2 & 1 ? HVF_EPT_FETCH : q >> 1 & 1 ? HVF_EPT_WRITE : HVF_EPT_READ;
}

/* An event whose delivery was interrupted (what HVF__VECTORING says), as the next entry is to be
   told of it; 0: there was none. Bit 12 is undefined here and reserved there. */
static uint32_t hvf__decode_vectoring(uint32_t info)
{
    return info & HVF__VALID ? info & (HVF__VALID | 0xfff) : 0;
}

/* Events by instructions, INT n and the like, need the length of it. */
static bool hvf__has_len(uint32_t event)
{
    unsigned type = event >> 8 & 7;

    return type >= 4 && type <= 6;
}

/* The framework's number for one of enum vmm_x86_gpr. */
static hv_x86_reg_t hvf__reg(unsigned gpr)
{
    static const uint8_t regs[8] = {HV_X86_RAX, HV_X86_RCX, HV_X86_RDX, HV_X86_RBX,
                                    HV_X86_RSP, HV_X86_RBP, HV_X86_RSI, HV_X86_RDI};

    return (hv_x86_reg_t)(gpr < 8 ? regs[gpr] : HV_X86_R8 + (gpr & 15) - 8);
}

/* >>rules: of the architecture, nothing but bits ------------------------------------------------ */

/* What can be, of what is wanted; Apple's word says in its halves which bits must be and may be. */
static uint32_t hvf__control(uint64_t capability, uint32_t want)
{
    return (want | (uint32_t)capability) & (uint32_t)(capability >> 32);
}

/* May CR0 become val? (SDM volume 2, MOV to control registers.) */
static bool hvf__cr0_valid(uint64_t old, uint64_t val, uint64_t cr4, uint64_t efer, uint64_t cs_ar)
{
    bool on = val & HVF__CR0_PG, was = old & HVF__CR0_PG, code64 = cs_ar & HVF__AR_LONG;

    if (val >> 32 || (on && !(val & HVF__CR0_PE)) || (val & HVF__CR0_NW && !(val & HVF__CR0_CD)))
        return false;
    if (on == was)
        return true;
    if (on)
        return !(efer & HVF__EFER_LME) || (cr4 & HVF__CR4_PAE && !code64);
    return !(cr4 & HVF__CR4_PCIDE) && !(efer & HVF__EFER_LMA && code64);
}

/* May CR4 become val, of the bits that there are? */
static bool hvf__cr4_valid(uint64_t val, uint64_t may, uint64_t efer)
{
    uint64_t must = efer & HVF__EFER_LMA ? HVF__CR4_PAE : 0;

    return !(val & (~may | HVF__CR4_VMXE)) && (val & must) == must &&
           (!(val & HVF__CR4_PCIDE) || efer & HVF__EFER_LMA);
}

/* May EFER become val? */
static bool hvf__efer_valid(uint64_t old, uint64_t val, uint64_t cr0)
{
    const uint64_t bits = HVF__EFER_SCE | HVF__EFER_LME | HVF__EFER_LMA | HVF__EFER_NXE;

    return !(val & ~bits) && !((val ^ old) & HVF__EFER_LME && cr0 & HVF__CR0_PG);
}

/* May XCR0 become val on a processor that has these bits? SSE before AVX, AVX before AVX-512, and
   that whole. */
static bool hvf__xcr0_valid(uint64_t has, uint64_t val)
{
    uint64_t wide = val >> 5 & 7;

    return val & 1 && !(val & ~(has & HVF__XCR0_BITS)) && (!(val & 4) || val & 2) &&
           (!wide || (wide == 7 && val & 4));
}

/* Memory types: 0, 1, 4, 5, 6 and 7. */
static bool hvf__pat_valid(uint64_t val)
{
    for (unsigned n = 0; n < 64; n += 8)
        if ((val >> n & 0xff) > 7 || !(0xf3 >> (val >> n & 0xff) & 1))
            return false;
    return true;
}

static uint32_t hvf__ar(const struct vmm_x86_seg *s)
{
    uint32_t ar = s->attr & 0xf0ffu;

    return ar & HVF__AR_PRESENT ? ar : ar | HVF__AR_UNUSABLE;
}

static uint16_t hvf__attr(uint64_t ar)
{
    return (uint16_t)(ar & (ar & HVF__AR_UNUSABLE ? 0xf07f : 0xf0ff));
}

/* >>cpuid ----------------------------------------------------------------------------- */

#define HVF__LAPIC_HZ 1000000000u /* the caller's counts nanoseconds, as KVM's */

static void hvf__host_cpuid(uint32_t leaf, uint32_t index, uint32_t r[4])
{
    __cpuid_count(leaf, index, r[0], r[1], r[2], r[3]);
}

/* What XSAVE needs for these parts of the state: where each is, the processor says; compacted they
   follow one another, some at multiples of 64 bytes. */
static uint32_t hvf__xsave_size(uint64_t xcr0, bool compact)
{
    uint32_t end = 576, r[4];

    for (unsigned n = 2; n < 63; n++) {
        if (!(xcr0 >> n & 1))
            continue;
        hvf__host_cpuid(0xd, n, r);
        if (!compact)
            end = r[0] + r[1] > end ? r[0] + r[1] : end;
        else
            end = (r[2] & 2 ? (end + 63) & ~63u : end) + r[0];
    }
    return end;
}

/* Leaf 0xd: XCR0 of the guest counts, and only what it may set there. */
static void hvf__cpuid_xsave(uint32_t index, uint64_t xcr0, uint32_t r[4])
{
    if (index == 0) {
        r[0] &= (uint32_t)HVF__XCR0_BITS;
        r[1] = hvf__xsave_size(xcr0, false);
        r[2] = hvf__xsave_size(r[0], false);
        r[3] = 0;
    } else if (index == 1) {
        r[1] = r[0] & 2 ? hvf__xsave_size(xcr0, true) : 0;
        r[2] = r[3] = 0;
    } else if (index > 63 || !(HVF__XCR0_BITS >> index & 1)) {
        memset(r, 0, 4 * sizeof r[0]);
    }
}

/* As x86_cpuid has it, without what this framework cannot give, and with what CR4 and XCR0 say. */
static void hvf__cpuid(const struct hyp_cpu *c, uint64_t cr4, uint32_t leaf, uint32_t index,
                       uint32_t r[4])
{
    const struct hyp *h = c->hyp;
    const struct x86_cpuid_desc d = {.ncpus = h->ncpus,
                                     .id = c->id,
                                     .tsc_hz = h->tsc_hz,
                                     .lapic_hz = HVF__LAPIC_HZ,
                                     .x2apic = true,
                                     .tsc_deadline = h->tsc_hz != 0};
    bool rdtscp = h->proc2 & HVF__PROC2_RDTSCP, invpcid = h->proc2 & HVF__PROC2_INVPCID;

    hvf__host_cpuid(leaf, index, r);
    x86_cpuid(&d, leaf, index, r);
    if (leaf == 1) {
        r[2] = (r[2] & ~(1u << 27)) | (cr4 & HVF__CR4_OSXSAVE ? 1u << 27 : 0);
    } else if (leaf == 7 && index == 0) {
        r[1] &= ~(invpcid ? 0 : 1u << 10);
        r[2] &= ~(1u << 16 | (rdtscp ? 0 : 1u << 22)); /* LA57, RDPID */
    } else if (leaf == 0xd) {
        hvf__cpuid_xsave(index, c->xcr0, r);
    } else if (leaf == 0x80000001) {
        r[3] &= ~(rdtscp ? 0 : 1u << 27);
    }
}

/* >>vm ------------------------------------------------------------------------------- */

/* How fast the TSC is: macOS knows; else it is measured, against the clock. */
static uint64_t hvf__find_tsc_hz(const struct mach_timebase_info *tick)
{
    const struct timespec some = {.tv_nsec = 2000000};
    uint64_t hz = 0, tsc, then, ns;
    size_t len = sizeof hz;

    if (sysctlbyname("machdep.tsc.frequency", &hz, &len, NULL, 0) == 0 && len == sizeof hz && hz)
        return hz;
    then = mach_absolute_time();
    tsc = __builtin_ia32_rdtsc();
    nanosleep(&some, NULL);
    tsc = __builtin_ia32_rdtsc() - tsc;
    ns = (mach_absolute_time() - then) * tick->numer / tick->denom;
    return ns ? (uint64_t)((double)tsc / (double)ns * 1e9) : 0;
}

static int hvf__check_cpus(const struct hyp *h)
{
    uint64_t max = 0;
    hv_return_t ret = hv_capability(HV_CAP_VCPUMAX, &max);

    if (ret)
        return hvf__failed(h->log, ret, "cannot count CPUs");
    return h->ncpus <= max ? 0
                           : vmm_err(h->log, -E2BIG,
                                     "this Mac runs at most %u CPUs in a VM, not %u: ask for fewer",
                                     (unsigned)max, h->ncpus);
}

/* Controls that are wanted, and those without which this does not work. */
static const struct hvf__want {
    hv_vmx_capability_t capability;
    uint32_t want, need;
} hvf__wants[] = {
    {HV_VMX_CAP_PINBASED, 0, HVF__PIN_INTERRUPTS | HVF__PIN_NMIS | HVF__PIN_VIRTUAL_NMIS},
    {HV_VMX_CAP_PROCBASED, HVF__PROC_TSC_OFFSET | HVF__PROC_MWAIT | HVF__PROC_MONITOR,
     HVF__PROC_HLT | HVF__PROC_CR8_LOAD | HVF__PROC_CR8_STORE | HVF__PROC_IO | HVF__PROC_MSRS |
         HVF__PROC_SECOND},
    {HV_VMX_CAP_PROCBASED2,
     HVF__PROC2_EPT | HVF__PROC2_VPID | HVF__PROC2_RDTSCP | HVF__PROC2_INVPCID,
     HVF__PROC2_UNRESTRICTED},
    {HV_VMX_CAP_ENTRY, 0, HVF__ENTRY_EFER},
};

static int hvf__find_controls(struct hyp *h)
{
    uint32_t *const to[] = {&h->pin, &h->proc, &h->proc2, &h->entry};

    for (unsigned i = 0; i < 4; i++) {
        const struct hvf__want *w = &hvf__wants[i];
        uint64_t capability = 0;
        hv_return_t ret = hv_vmx_read_capability(w->capability, &capability);
        if (ret)
            return hvf__failed(h->log, ret, "cannot ask what this processor does for guests");
        *to[i] = hvf__control(capability, w->want | w->need);
        if (i == 1 && hvf__control(capability, HVF__PROC_MTF) & HVF__PROC_MTF)
            h->caps |= HYP_CAP_DEBUG;
        if (w->need & ~*to[i])
            return vmm_err(h->log, -ENOTSUP,
                           "this Mac's hypervisor lacks controls 0x%x of group %u: a Mac with a "
                           "newer processor is needed",
                           (unsigned)(w->need & ~*to[i]), i);
    }
    return 0;
}

/* VMX wants some bits of CR0 and CR4 set, whatever the guest thinks; but not paging and protection,
   for the guest is unrestricted. */
static int hvf__find_fixed(struct hyp *h)
{
    uint64_t ones = 0, cr4 = 0;
    hv_return_t ret = hv_vmx_read_capability(HV_VMX_CAP_CR0_FIXED0, &ones);

    if (!ret)
        ret = hv_vmx_read_capability(HV_VMX_CAP_CR0_FIXED1, &h->cr0_may);
    if (!ret)
        ret = hv_vmx_read_capability(HV_VMX_CAP_CR4_FIXED0, &cr4);
    if (!ret)
        ret = hv_vmx_read_capability(HV_VMX_CAP_CR4_FIXED1, &h->cr4_may);
    h->cr0_ones = ones & ~(HVF__CR0_PE | HVF__CR0_PG);
    h->cr4_ones = cr4 | HVF__CR4_VMXE;
    return ret ? hvf__failed(h->log, ret, "cannot ask what this processor does for guests") : 0;
}

static int hvf__arch_open(struct hyp *h, const struct hyp_desc *desc)
{
    struct mach_timebase_info tick;
    hv_return_t ret;
    int err;

    (void)desc; /* nothing in it is for this system */
    mach_timebase_info(&tick);
    h->slice = 10000000ull * tick.denom / tick.numer;
    h->tsc = __builtin_ia32_rdtsc();
    h->tsc_hz = hvf__find_tsc_hz(&tick);
    ret = hv_vm_create(HV_VM_DEFAULT);
    h->open = !ret;
    if (ret)
        return hvf__failed(h->log, ret, "cannot create a VM");
    err = hvf__check_cpus(h);
    if (!err)
        err = hvf__find_controls(h);
    return err ? err : hvf__find_fixed(h);
}

/* What CPUID tells the guest; processors without this leaf have 36. */
VMM_DEF unsigned hyp_gpa_bits(const struct hyp *h)
{
    unsigned a, b, c, d;

    (void)h;
    return __get_cpuid(0x80000008, &a, &b, &c, &d) ? a & 0xff : 36;
}

/* >>access: to a vCPU's state. The first failure is remembered until hvf__settle. -------------- */

static void hvf__note(struct hyp_cpu *c, hv_return_t ret)
{
    if (ret && !c->ret)
        c->ret = ret;
}

static hv_return_t hvf__settle(struct hyp_cpu *c)
{
    hv_return_t ret = c->ret;

    c->ret = 0;
    return ret;
}

static uint64_t hvf__vmcs(struct hyp_cpu *c, uint32_t field)
{
    uint64_t val = 0;

    hvf__note(c, hv_vmx_vcpu_read_vmcs(c->vcpu, field, &val));
    return val;
}

static void hvf__set_vmcs(struct hyp_cpu *c, uint32_t field, uint64_t val)
{
    hvf__note(c, hv_vmx_vcpu_write_vmcs(c->vcpu, field, val));
}

static uint64_t hvf__get(struct hyp_cpu *c, hv_x86_reg_t reg)
{
    uint64_t val = 0;

    hvf__note(c, hv_vcpu_read_register(c->vcpu, reg, &val));
    return val;
}

static void hvf__put(struct hyp_cpu *c, hv_x86_reg_t reg, uint64_t val)
{
    hvf__note(c, hv_vcpu_write_register(c->vcpu, reg, val));
}

/* The control registers as the guest sees them. */
static uint64_t hvf__cr0(struct hyp_cpu *c)
{
    return (hvf__vmcs(c, HVF__CR0) & ~HVF__CR0_OWNED) |
           (hvf__vmcs(c, HVF__CR0_SHADOW) & HVF__CR0_OWNED);
}

static uint64_t hvf__cr4(struct hyp_cpu *c)
{
    uint64_t own = c->hyp->cr4_ones;

    return (hvf__vmcs(c, HVF__CR4) & ~own) | (hvf__vmcs(c, HVF__CR4_SHADOW) & own);
}

/* Caches are the host's business. */
static void hvf__set_cr0(struct hyp_cpu *c, uint64_t val)
{
    const struct hyp *h = c->hyp;
    uint64_t real = (val & HVF__CR0_BITS) | h->cr0_ones | HVF__CR0_ET;

    hvf__set_vmcs(c, HVF__CR0, real & h->cr0_may & ~(HVF__CR0_CD | HVF__CR0_NW));
    hvf__set_vmcs(c, HVF__CR0_SHADOW, (val & HVF__CR0_BITS) | HVF__CR0_ET);
}

static void hvf__set_cr4(struct hyp_cpu *c, uint64_t val)
{
    hvf__set_vmcs(c, HVF__CR4, val | c->hyp->cr4_ones);
    hvf__set_vmcs(c, HVF__CR4_SHADOW, val);
}

/* EFER and the control of entries must agree on long mode. */
static void hvf__set_efer(struct hyp_cpu *c, uint64_t efer)
{
    uint32_t entry = (c->entry & ~(uint32_t)HVF__ENTRY_LONG) |
                     (efer & HVF__EFER_LMA ? (uint32_t)HVF__ENTRY_LONG : 0);

    hvf__set_vmcs(c, HVF__EFER_FIELD, efer);
    if (entry != c->entry)
        hvf__set_vmcs(c, HVF__ENTRY, entry);
    c->entry = entry;
}

/* Paging with PAE, but not in long mode, has its four topmost entries in the processor. */
static void hvf__load_pdptes(struct hyp_cpu *c)
{
    const uint8_t *at;

    if (!(hvf__cr0(c) & HVF__CR0_PG) || !(hvf__cr4(c) & HVF__CR4_PAE) ||
        hvf__vmcs(c, HVF__EFER_FIELD) & HVF__EFER_LMA)
        return;
    at = vmm_at(&c->hyp->slots, hvf__vmcs(c, HVF__CR3) & 0xffffffe0, 32);
    for (unsigned i = 0; i < 4 && at; i++)
        hvf__set_vmcs(c, HVF__PDPTE0 + 2 * i, vmm_get64(at + 8 * i));
}

/* What translations depend on is another. */
static void hvf__repaged(struct hyp_cpu *c)
{
    hvf__load_pdptes(c);
    hvf__note(c, hv_vcpu_invalidate_tlb(c->vcpu));
}

static void hvf__set_blocked(struct hyp_cpu *c, uint64_t blocked)
{
    if (blocked != c->blocked)
        hvf__set_vmcs(c, HVF__BLOCKED, blocked);
    c->blocked = blocked;
}

/* >>registers ------------------------------------------------------------------------- */

#define HVF__EACH_SEG(X) X(0, es) X(1, cs) X(2, ss) X(3, ds) X(4, fs) X(5, gs) X(6, ldt) X(7, tr)

static struct vmm_x86_seg hvf__seg(struct hyp_cpu *c, unsigned seg)
{
    return (struct vmm_x86_seg){.base = hvf__vmcs(c, HVF__BASE(seg)),
                                .limit = (uint32_t)hvf__vmcs(c, HVF__LIMIT(seg)),
                                .selector = (uint16_t)hvf__vmcs(c, HVF__SELECTOR(seg)),
                                .attr = hvf__attr(hvf__vmcs(c, HVF__AR(seg)))};
}

static void hvf__set_seg(struct hyp_cpu *c, unsigned seg, const struct vmm_x86_seg *s)
{
    hvf__set_vmcs(c, HVF__BASE(seg), s->base);
    hvf__set_vmcs(c, HVF__LIMIT(seg), s->limit);
    hvf__set_vmcs(c, HVF__SELECTOR(seg), s->selector);
    hvf__set_vmcs(c, HVF__AR(seg), hvf__ar(s));
}

static int hvf__regs_moved(struct hyp_cpu *c)
{
    hv_return_t ret = hvf__settle(c);

    return ret ? hvf__failed(c->hyp->log, ret, "cannot reach the registers of a CPU") : 0;
}

VMM_DEF int hyp_get_regs(struct hyp_cpu *c, struct vmm_regs *regs)
{
    memset(regs, 0, sizeof *regs);
    for (unsigned i = 0; i < 16; i++)
        regs->gpr[i] = hvf__get(c, hvf__reg(i));
    regs->rip = hvf__get(c, HV_X86_RIP);
    regs->rflags = hvf__get(c, HV_X86_RFLAGS);
    regs->cr0 = hvf__cr0(c);
    regs->cr2 = hvf__get(c, HV_X86_CR2);
    regs->cr3 = hvf__vmcs(c, HVF__CR3);
    regs->cr4 = hvf__cr4(c);
    regs->efer = hvf__vmcs(c, HVF__EFER_FIELD);
#define X(n, name) regs->name = hvf__seg(c, n);
    HVF__EACH_SEG(X)
#undef X
    regs->gdt.base = hvf__vmcs(c, HVF__GDT_BASE);
    regs->gdt.limit = (uint32_t)hvf__vmcs(c, HVF__GDT_LIMIT);
    regs->idt.base = hvf__vmcs(c, HVF__IDT_BASE);
    regs->idt.limit = (uint32_t)hvf__vmcs(c, HVF__IDT_LIMIT);
    return hvf__regs_moved(c);
}

static void hvf__set_system_regs(struct hyp_cpu *c, const struct vmm_regs *regs)
{
    hvf__put(c, HV_X86_CR2, regs->cr2);
    hvf__set_vmcs(c, HVF__CR3, regs->cr3);
    hvf__set_cr0(c, regs->cr0);
    hvf__set_cr4(c, regs->cr4);
    hvf__set_efer(c, regs->efer);
#define X(n, name) hvf__set_seg(c, n, &regs->name);
    HVF__EACH_SEG(X)
#undef X
    hvf__set_vmcs(c, HVF__GDT_BASE, regs->gdt.base);
    hvf__set_vmcs(c, HVF__GDT_LIMIT, regs->gdt.limit);
    hvf__set_vmcs(c, HVF__IDT_BASE, regs->idt.base);
    hvf__set_vmcs(c, HVF__IDT_LIMIT, regs->idt.limit);
    hvf__repaged(c);
}

/* Where an instruction stands that was not finished, it may be begun anew elsewhere. What the last
   instruction held back it holds back no longer, for the next one may be another. */
VMM_DEF int hyp_set_regs(struct hyp_cpu *c, const struct vmm_regs *regs)
{
    if (c->todo == HVF_EMULATION || regs->rip != hvf__get(c, HV_X86_RIP))
        c->todo = HVF_NOTHING;
    for (unsigned i = 0; i < 16; i++)
        hvf__put(c, hvf__reg(i), regs->gpr[i]);
    hvf__put(c, HV_X86_RIP, regs->rip);
    hvf__put(c, HV_X86_RFLAGS, regs->rflags | 2);
    hvf__set_system_regs(c, regs);
    hvf__set_blocked(c, c->blocked & ~(uint64_t)HVF__BLOCKED_SHADOW);
    c->rflags = regs->rflags;
    return hvf__regs_moved(c);
}

/* What XSAVE stores: its first 512 bytes are FXSAVE's, and behind them it says which parts count:
   the others are as after a reset, but MXCSR. */
enum { HVF__FP_LEN = 4096, HVF__FP_PARTS = 512, HVF__FP_X87 = 1, HVF__FP_SSE = 2 };

VMM_DEF int hyp_get_fpu(struct hyp_cpu *c, struct vmm_fpu *fpu)
{
    _Alignas(HVF__FP_LEN) uint8_t f[HVF__FP_LEN] = {0};

    hvf__note(c, hv_vcpu_read_fpstate(c->vcpu, f, sizeof f));
    *fpu = (struct vmm_fpu){.mxcsr = vmm_get32(f + 24), .fcw = 0x37f};
    if (f[HVF__FP_PARTS] & HVF__FP_X87) {
        fpu->fcw = vmm_get16(f);
        fpu->fsw = vmm_get16(f + 2);
        fpu->ftw = f[4];
        fpu->fop = vmm_get16(f + 6);
        fpu->fip = vmm_get64(f + 8);
        fpu->fdp = vmm_get64(f + 16);
        memcpy(fpu->st, f + 32, sizeof fpu->st);
    }
    if (f[HVF__FP_PARTS] & HVF__FP_SSE)
        memcpy(fpu->xmm, f + 160, sizeof fpu->xmm);
    return hvf__regs_moved(c);
}

VMM_DEF int hyp_set_fpu(struct hyp_cpu *c, const struct vmm_fpu *fpu)
{
    _Alignas(HVF__FP_LEN) uint8_t f[HVF__FP_LEN] = {0};

    hvf__note(c, hv_vcpu_read_fpstate(c->vcpu, f, sizeof f)); /* the rest stays */
    vmm_put16(f, fpu->fcw);
    vmm_put16(f + 2, fpu->fsw);
    f[4] = fpu->ftw;
    vmm_put16(f + 6, fpu->fop);
    vmm_put64(f + 8, fpu->fip);
    vmm_put64(f + 16, fpu->fdp);
    vmm_put32(f + 24, fpu->mxcsr);
    memcpy(f + 32, fpu->st, sizeof fpu->st);
    memcpy(f + 160, fpu->xmm, sizeof fpu->xmm);
    f[HVF__FP_PARTS] |= HVF__FP_X87 | HVF__FP_SSE;
    hvf__note(c, hv_vcpu_write_fpstate(c->vcpu, f, sizeof f));
    return hvf__regs_moved(c);
}

/* >>cpu ------------------------------------------------------------------------------ */

/* MSRs that the guest reads and writes without an exit. A processor without RDTSCP has no TSC_AUX.
   The framework may refuse what is optional. */
static void hvf__set_msrs(struct hyp_cpu *c)
{
    static const uint32_t native[] = {
        HVF__MSR_TSC, 0x174,      0x175,      0x176,      /* SYSENTER */
        0xc0000081,   0xc0000082, 0xc0000083, 0xc0000084, /* STAR, LSTAR, CSTAR, FMASK */
        0xc0000100,   0xc0000101, 0xc0000102              /* FS, GS, KERNEL_GS_BASE */
    };

    for (unsigned i = 0; i < sizeof native / sizeof native[0]; i++)
        hvf__note(c, hv_vcpu_enable_native_msr(c->vcpu, native[i], true));
    if (c->hyp->proc2 & HVF__PROC2_RDTSCP)
        (void)hv_vcpu_enable_native_msr(c->vcpu, 0xc0000103, true);
}

/* Exit controls, and the host's state, are the framework's. Host's machine checks must not become
   the guest's. */
static void hvf__set_controls(struct hyp_cpu *c)
{
    const struct hyp *h = c->hyp;

    c->proc = h->proc;
    c->entry = h->entry & ~(uint32_t)HVF__ENTRY_LONG;
    hvf__set_vmcs(c, HVF__PIN, h->pin);
    hvf__set_vmcs(c, HVF__PROC, c->proc);
    hvf__set_vmcs(c, HVF__PROC2, h->proc2);
    hvf__set_vmcs(c, HVF__ENTRY, c->entry);
    hvf__set_vmcs(c, HVF__EXCEPTIONS, 1u << HVF__MC);
    hvf__set_vmcs(c, HVF__CR0_MASK, HVF__CR0_OWNED);
    hvf__set_vmcs(c, HVF__CR4_MASK, h->cr4_ones);
    hvf__set_vmcs(c, HVF__DR7, 0x400);
    hvf__set_vmcs(c, HVF__ACTIVITY, 0);
    hvf__set_vmcs(c, HVF__BLOCKED, 0);
    hvf__set_vmcs(c, HVF__PENDING_DEBUG, 0);
    hvf__put(c, HV_X86_XCR0, c->xcr0);
}

/* As after a reset: real mode, at the top of the first 4 GiB. */
static void hvf__reset(struct hyp_cpu *c)
{
    const struct vmm_x86_seg data = {.limit = 0xffff, .attr = 0x93};
    struct vmm_regs r = {.rip = 0xfff0, .rflags = 2, .cr0 = 0x60000010};

    r.ds = r.es = r.fs = r.gs = r.ss = r.cs = r.tr = r.ldt = data;
    r.cs = (struct vmm_x86_seg){0xffff0000, 0xffff, 0xf000, 0x9b};
    r.tr.attr = 0x8b;
    r.ldt.attr = 0x82;
    r.gdt.limit = r.idt.limit = 0xffff;
    for (unsigned i = 0; i < 16; i++)
        hvf__put(c, hvf__reg(i), 0);
    hvf__put(c, HV_X86_RIP, r.rip);
    hvf__put(c, HV_X86_RFLAGS, r.rflags);
    c->rflags = r.rflags;
    hvf__set_system_regs(c, &r);
}

/* All vCPUs' TSCs count from when the VM was opened. Where the framework does not want that, they
   are as it starts them. */
static void hvf__set_tsc(struct hyp *h)
{
    pthread_mutex_lock(&h->lock);
    (void)hv_vm_sync_tsc(__builtin_ia32_rdtsc() - h->tsc);
    pthread_mutex_unlock(&h->lock);
}

static hv_return_t hvf__create_cpu(struct hyp_cpu *c)
{
    hv_vcpuid_t vcpu = 0;
    hv_return_t ret = hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT);

    c->vcpu = vcpu;
    c->exists = !ret;
    if (ret)
        return ret;
    hvf__set_msrs(c);
    hvf__set_controls(c);
    hvf__reset(c);
    hvf__set_tsc(c->hyp);
    return hvf__settle(c);
}

VMM_DEF int hyp_cpu_open(struct hyp_cpu *c, struct hyp *h, unsigned id)
{
    hv_return_t ret;

    if (id >= h->ncpus)
        return vmm_err(h->log, -EINVAL, "CPU %u is one too many", id);
    memset(c, 0, sizeof *c);
    c->hyp = h;
    c->id = id;
    c->xcr0 = 1;
    c->pat = 0x0007040600070406;
    c->emul.rom = &h->rom;
    x86_msr_reset(&c->msrs);
    ret = hvf__create_cpu(c);
    if (!ret)
        return 0;
    hyp_cpu_close(c);
    return hvf__failed(h->log, ret, "cannot create a CPU");
}

VMM_DEF void hyp_cpu_close(struct hyp_cpu *c)
{
    if (c->exists)
        (void)hv_vcpu_destroy(c->vcpu);
    c->exists = false;
}

/* Whether hv_vcpu_interrupt ends a run that is only about to begin, Apple does not say: so the run
   lasts no longer than h->slice, and then the flag is seen. */
VMM_DEF void hyp_kick(struct hyp_cpu *c)
{
    hv_vcpuid_t vcpu = c->vcpu;

    __atomic_store_n(&c->kicked, true, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&c->inside, __ATOMIC_SEQ_CST))
        (void)hv_vcpu_interrupt(&vcpu, 1);
}

/* >>inject ---------------------------------------------------------------------------- */

static bool hvf__nmi_ready(const struct hyp_cpu *c)
{
    return !c->event && !(c->blocked & (HVF__BLOCKED_SHADOW | HVF__BLOCKED_NMI));
}

VMM_DEF bool hyp_ready(const struct hyp_cpu *c)
{
    bool nmi_first = c->nmi && hvf__nmi_ready(c);
    bool fault = c->todo == HVF_EMULATION || (c->todo != HVF_NOTHING && c->refused);

    return c->rflags & HVF__FLAG_IF && !(c->blocked & HVF__BLOCKED_SHADOW) && !c->event &&
           !nmi_first && !fault;
}

VMM_DEF void hyp_want_window(struct hyp_cpu *c, bool want)
{
    c->window = want;
}

VMM_DEF int hyp_inject(struct hyp_cpu *c, uint8_t vector)
{
    if (!hyp_ready(c))
        return vmm_err(c->hyp->log, -EBUSY, "CPU %u cannot take interrupt %u now", c->id, vector);
    c->event = HVF__VALID | HVF__TYPE_INTERRUPT << 8 | vector;
    return 0;
}

VMM_DEF int hyp_inject_nmi(struct hyp_cpu *c)
{
    c->nmi = true;
    return 0;
}

VMM_DEF int hyp_uninject(struct hyp_cpu *c)
{
    c->nmi = false;
    c->event = 0;
    hvf__set_vmcs(c, HVF__EVENT, 0);
    return hvf__regs_moved(c);
}

/* Without an error code in real mode, where there are none. */
static int hvf__except(struct hyp_cpu *c, uint8_t vector, bool has_error, uint32_t error)
{
    has_error = has_error && hvf__cr0(c) & HVF__CR0_PE;
    c->event = HVF__VALID | (has_error ? HVF__HAS_ERROR : 0) | HVF__TYPE_EXCEPTION << 8 | vector;
    c->event_error = error;
    return HVF__GO_ON;
}

static int hvf__refuse(struct hyp_cpu *c)
{
    return hvf__except(c, X86_GP, true, 0);
}

VMM_DEF unsigned hyp_cr8(const struct hyp_cpu *c)
{
    return (unsigned)c->cr8;
}

VMM_DEF void hyp_set_cr8(struct hyp_cpu *c, unsigned cr8)
{
    c->cr8 = cr8;
}

VMM_DEF void hyp_msr_refuse(struct hyp_cpu *c)
{
    c->refused = true;
}

VMM_DEF uint64_t hyp_tsc(struct hyp_cpu *c, uint64_t *hz)
{
    *hz = c->hyp->tsc_hz;
    return __builtin_ia32_rdtsc() + hvf__vmcs(c, HVF__TSC_OFFSET);
}

/* >>exits ------------------------------------------------------------------------------ */

static int hvf__tell(struct vmm_exit *e, enum vmm_exit_kind kind)
{
    e->kind = kind;
    return HVF__COME_OUT;
}

static int hvf__fault(struct hyp_cpu *c, struct vmm_exit *e, const char *why, uint64_t code)
{
    struct vmm_regs regs;

    e->why = why;
    e->code = code;
    e->data = c->insn;
    e->size = hyp_get_regs(c, &regs) ? 0 : x86_fetch(&c->hyp->slots, &c->hyp->rom, &regs, c->insn);
    return hvf__tell(e, VMM_EXIT_FAULT);
}

/* RIP has 32 bits outside of 64-bit code. */
static uint64_t hvf__next_rip(uint64_t rip, uint64_t len, uint64_t cs_ar)
{
    return cs_ar & HVF__AR_LONG ? rip + len : (uint32_t)(rip + len);
}

/* The instruction is done: the next one may be interrupted, and is if this one was to be stepped. */
static int hvf__skip(struct hyp_cpu *c)
{
    uint64_t rip = hvf__get(c, HV_X86_RIP), len = hvf__vmcs(c, HVF__EXIT_LEN);

    hvf__put(c, HV_X86_RIP, hvf__next_rip(rip, len, hvf__vmcs(c, HVF__AR(1))));
    hvf__set_blocked(c, c->blocked & ~(uint64_t)HVF__BLOCKED_SHADOW);
    if (c->rflags & HVF__FLAG_TF)
        hvf__set_vmcs(c, HVF__PENDING_DEBUG,
                      hvf__vmcs(c, HVF__PENDING_DEBUG) | VMM_X86_DR6_BS);
    c->retired = true;
    return HVF__GO_ON;
}

static int hvf__exit_access(struct hyp_cpu *c, struct vmm_exit *e)
{
    struct x86_access *a = &c->emul.access;

    c->todo = HVF_EMULATION;
    e->write = a->write;
    e->addr = a->gpa;
    e->size = a->size;
    e->count = 1;
    e->data = a->data;
    return hvf__tell(e, c->emul.is_port ? VMM_EXIT_PIO : VMM_EXIT_MMIO);
}

/* Gives the vCPU what an instruction made of its registers. */
static void hvf__write_back(struct hyp_cpu *c)
{
    for (unsigned i = 0; i < 16; i++)
        hvf__put(c, hvf__reg(i), c->regs.gpr[i]);
    hvf__put(c, HV_X86_RIP, c->regs.rip);
    hvf__put(c, HV_X86_RFLAGS, c->regs.rflags);
    hvf__put(c, HV_X86_CR2, c->regs.cr2);
    c->rflags = c->regs.rflags;
}

static int hvf__stepped(struct hyp_cpu *c, struct vmm_exit *e, enum x86_step step)
{
    if (step == X86_ACCESS)
        return hvf__exit_access(c, e);
    c->todo = HVF_NOTHING;
    if (step == X86_UNKNOWN)
        return hvf__fault(c, e, "the guest accesses a device by an instruction that is not known",
                          hvf__vmcs(c, HVF__REASON));
    hvf__write_back(c);
    if (step == X86_FAULT)
        return hvf__except(c, c->emul.vector, c->emul.has_error, c->emul.error);
    hvf__set_blocked(c, c->blocked & ~(uint64_t)HVF__BLOCKED_SHADOW);
    c->retired = true;
    return HVF__GO_ON;
}

static int hvf__emulate(struct hyp_cpu *c, struct vmm_exit *e)
{
    int err = hyp_get_regs(c, &c->regs);

    return err ? err
               : hvf__stepped(c, e, x86_emul_begin(&c->emul, &c->hyp->slots, &c->regs, NULL, 0));
}

/* IRET had unblocked NMIs before its access came out here: it will do so again. */
static void hvf__block_nmis_again(struct hyp_cpu *c, uint64_t qualification)
{
    if (qualification >> 12 & 1 && !c->event)
        hvf__set_blocked(c, c->blocked | HVF__BLOCKED_NMI);
}

/* Memory that is mapped comes out while the framework still brings it in. What happens while an event
   is delivered is not the instruction's doing. */
static int hvf__exit_ept(struct hyp_cpu *c, struct vmm_exit *e)
{
    uint64_t q = hvf__vmcs(c, HVF__QUALIFICATION), gpa = hvf__vmcs(c, HVF__GPA);
    enum hvf_ept kind = hvf__decode_ept(q);

    hvf__block_nmis_again(c, q);
    if (vmm_at(&c->hyp->slots, gpa, 1))
        return HVF__GO_ON;
    if (kind != HVF_EPT_WRITE && vmm_at(&c->hyp->rom, gpa, 1))
        return HVF__GO_ON;
    if (kind == HVF_EPT_WALK)
        return hvf__fault(c, e, "the guest's page tables are where there is no memory, at", gpa);
    if (c->event)
        return hvf__fault(c, e, "the guest's interrupt table or stack is a device, at", gpa);
    if (kind == HVF_EPT_FETCH)
        return hvf__fault(c, e, "the guest executes what is no memory, at", gpa);
    return hvf__emulate(c, e);
}

/* String instructions move memory, and are carried out here; the others are told whole. */
static int hvf__exit_io(struct hyp_cpu *c, struct vmm_exit *e)
{
    struct hvf_io io;
    uint64_t q = hvf__vmcs(c, HVF__QUALIFICATION);

    if (!hvf__decode_io(q, &io))
        return hvf__fault(c, e, "macOS tells of a port access of an impossible width", q);
    if (io.string)
        return hvf__emulate(c, e);
    memset(c->data, 0, sizeof c->data);
    e->write = !io.in;
    e->addr = io.port;
    e->size = c->size = io.size;
    e->count = 1;
    e->data = c->data;
    c->todo = io.in ? HVF_IN : HVF_NOTHING;
    if (e->write) {
        vmm_put64(c->data, hvf__get(c, HV_X86_RAX) & vmm_ones(io.size));
        hvf__skip(c);
    }
    return hvf__tell(e, VMM_EXIT_PIO);
}

static int hvf__exit_cpuid(struct hyp_cpu *c)
{
    static const hv_x86_reg_t to[4] = {HV_X86_RAX, HV_X86_RBX, HV_X86_RCX, HV_X86_RDX};
    uint32_t r[4];

    hvf__cpuid(c, hvf__cr4(c), (uint32_t)hvf__get(c, HV_X86_RAX), (uint32_t)hvf__get(c, HV_X86_RCX),
               r);
    for (unsigned i = 0; i < 4; i++)
        hvf__put(c, to[i], r[i]);
    return hvf__skip(c);
}

static int hvf__exit_xsetbv(struct hyp_cpu *c)
{
    uint64_t val = (uint32_t)hvf__get(c, HV_X86_RAX) | hvf__get(c, HV_X86_RDX) << 32;
    uint32_t r[4];

    hvf__host_cpuid(0xd, 0, r);
    if ((uint32_t)hvf__get(c, HV_X86_RCX) || !hvf__xcr0_valid(r[0], val))
        return hvf__refuse(c);
    c->xcr0 = val;
    hvf__put(c, HV_X86_XCR0, val);
    return hvf__skip(c);
}

/* >>msr: EFER, PAT and those of hv_x86.h are answered at once, the others by the caller ---------- */

static int hvf__write_efer(struct hyp_cpu *c, uint64_t val)
{
    uint64_t old = hvf__vmcs(c, HVF__EFER_FIELD);

    if (!hvf__efer_valid(old, val, hvf__cr0(c)))
        return -EINVAL;
    hvf__set_efer(c, (val & ~(uint64_t)HVF__EFER_LMA) | (old & HVF__EFER_LMA));
    hvf__repaged(c);
    return 0;
}

static int hvf__write_msr(struct hyp_cpu *c, uint32_t msr, uint64_t val)
{
    if (msr == HVF__MSR_EFER)
        return hvf__write_efer(c, val);
    if (msr != HVF__MSR_PAT)
        return x86_msr_write(&c->msrs, msr, val);
    if (!hvf__pat_valid(val))
        return -EINVAL;
    c->pat = val;
    return 0;
}

static int hvf__read_msr(struct hyp_cpu *c, uint32_t msr, uint64_t *val)
{
    if (msr != HVF__MSR_EFER && msr != HVF__MSR_PAT)
        return x86_msr_read(&c->msrs, msr, val);
    *val = msr == HVF__MSR_PAT ? c->pat : hvf__vmcs(c, HVF__EFER_FIELD);
    return 0;
}

/* Ends an access to an MSR: with a value, or with an exception. */
static int hvf__end_msr(struct hyp_cpu *c, bool refused)
{
    bool read = c->todo == HVF_RDMSR;

    c->todo = HVF_NOTHING;
    if (refused)
        return hvf__refuse(c);
    if (read) {
        hvf__put(c, HV_X86_RAX, vmm_get32(c->data));
        hvf__put(c, HV_X86_RDX, vmm_get32(c->data + 4));
    }
    return hvf__skip(c);
}

static int hvf__exit_msr(struct hyp_cpu *c, struct vmm_exit *e, bool write)
{
    uint32_t msr = (uint32_t)hvf__get(c, HV_X86_RCX);
    uint64_t val = 0;
    int known;

    if (write)
        val = (uint32_t)hvf__get(c, HV_X86_RAX) | hvf__get(c, HV_X86_RDX) << 32;
    known = write ? hvf__write_msr(c, msr, val) : hvf__read_msr(c, msr, &val);
    vmm_put64(c->data, val);
    c->todo = write ? HVF_WRMSR : HVF_RDMSR;
    if (known != -ENOENT)
        return hvf__end_msr(c, known != 0);
    c->refused = false;
    e->write = write;
    e->addr = msr;
    e->size = sizeof c->data;
    e->count = 1;
    e->data = c->data;
    return hvf__tell(e, VMM_EXIT_MSR);
}

/* >>cr: control registers --------------------------------------------------------------- */

/* With paging long mode begins, if EFER wants it, and ends; there, the task register is of its kind. */
static int hvf__write_cr0(struct hyp_cpu *c, uint64_t val)
{
    uint64_t efer = hvf__vmcs(c, HVF__EFER_FIELD), cs = hvf__vmcs(c, HVF__AR(1));
    bool was = efer & HVF__EFER_LMA, lma = val & HVF__CR0_PG && efer & HVF__EFER_LME;

    if (!hvf__cr0_valid(hvf__cr0(c), val, hvf__cr4(c), efer, cs))
        return hvf__refuse(c);
    hvf__set_cr0(c, val);
    if (lma != was)
        hvf__set_efer(c, efer ^ HVF__EFER_LMA);
    if (lma && !was)
        hvf__set_vmcs(c, HVF__AR(7), (hvf__vmcs(c, HVF__AR(7)) & ~15ull) | 11);
    hvf__repaged(c);
    return hvf__skip(c);
}

/* Only what is not the guest's comes out: VMXE, which CPUID does not announce. */
static int hvf__write_cr4(struct hyp_cpu *c, uint64_t val)
{
    if (!hvf__cr4_valid(val, c->hyp->cr4_may, hvf__vmcs(c, HVF__EFER_FIELD)))
        return hvf__refuse(c);
    hvf__set_cr4(c, val);
    hvf__repaged(c);
    return hvf__skip(c);
}

/* The caller is to look whether an interrupt is due now. */
static int hvf__write_cr8(struct hyp_cpu *c, uint64_t val)
{
    if (val > 15)
        return hvf__refuse(c);
    c->cr8 = val;
    hvf__skip(c);
    return HVF__COME_OUT;
}

static int hvf__write_cr(struct hyp_cpu *c, struct vmm_exit *e, unsigned cr, uint64_t val)
{
    switch (cr) {
    case 0:
        return hvf__write_cr0(c, val);
    case 3: /* bit 63: translations may stay */
        hvf__set_vmcs(c, HVF__CR3, val & ~(1ull << 63));
        hvf__repaged(c);
        return hvf__skip(c);
    case 4:
        return hvf__write_cr4(c, val);
    case 8:
        return hvf__write_cr8(c, val);
    default:
        return hvf__fault(c, e, "the guest writes a control register that is not known, number",
                          cr);
    }
}

static int hvf__read_cr(struct hyp_cpu *c, const struct hvf_cr *cr)
{
    uint64_t val = cr->cr == 8   ? c->cr8
                   : cr->cr == 3 ? hvf__vmcs(c, HVF__CR3)
                   : cr->cr == 4 ? hvf__cr4(c)
                                 : hvf__cr0(c);

    hvf__put(c, hvf__reg(cr->reg), val);
    return hvf__skip(c);
}

/* LMSW changes the lowest four bits, and cannot leave protected mode. */
static int hvf__exit_cr(struct hyp_cpu *c, struct vmm_exit *e)
{
    struct hvf_cr cr = hvf__decode_cr(hvf__vmcs(c, HVF__QUALIFICATION));
    uint64_t cr0;

    switch (cr.kind) {
    case HVF_CR_WRITE:
        return hvf__write_cr(c, e, cr.cr, hvf__get(c, hvf__reg(cr.reg)));
    case HVF_CR_READ:
        return hvf__read_cr(c, &cr);
    case HVF_CR_CLTS:
        return hvf__write_cr0(c, hvf__cr0(c) & ~(uint64_t)HVF__CR0_TS);
    default:
        cr0 = hvf__cr0(c) & ~(uint64_t)HVF__CR0_MP_EM_TS;
        return hvf__write_cr0(c, cr0 | (cr.lmsw & 15));
    }
}

/* >>debug: exceptions that a debugger wants come out instead of being delivered, and one instruction is
   stepped by the monitor trap flag, of which the guest sees nothing; SDM 25.2, 25.5.2. ------------ */

static bool hvf__has_slots(const struct vmm_debug *d)
{
    bool slots = false;

    for (unsigned i = 0; i < VMM_BREAKS; i++)
        slots |= d->slot[i].len != 0;
    return slots;
}

/* While a debugger has the debug registers, the guest's stand aside. What differs from what was put
   there is what the guest has put there since. */
static void hvf__swap_drs(struct hyp_cpu *c, const uint64_t *dr)
{
    for (unsigned i = 0; i < 5; i++) {
        hv_x86_reg_t reg = (hv_x86_reg_t)(HV_X86_DR0 + i);
        uint64_t now = i < 4 ? hvf__get(c, reg) : hvf__vmcs(c, HVF__DR7);
        if (!c->lent || now != c->dr[i])
            c->guest_dr[i] = now;
        c->dr[i] = dr ? dr[i] : c->guest_dr[i];
        if (now == c->dr[i])
            continue;
        if (i < 4)
            hvf__put(c, reg, c->dr[i]);
        else
            hvf__set_vmcs(c, HVF__DR7, c->dr[i]);
    }
    c->lent = dr != NULL;
}

static void hvf__lend_drs(struct hyp_cpu *c)
{
    uint64_t dr[5];

    for (unsigned i = 0; i < VMM_BREAKS; i++)
        dr[i] = c->debug.slot[i].addr;
    dr[4] = vmm_x86_dr7(&c->debug);
    hvf__swap_drs(c, dr);
}

VMM_DEF int hyp_debug(struct hyp_cpu *c, const struct vmm_debug *d)
{
    bool slots = hvf__has_slots(d);

    c->debug = *d;
    c->retired = false;
    if (slots)
        hvf__lend_drs(c);
    else if (c->lent)
        hvf__swap_drs(c, NULL);
    hvf__set_vmcs(c, HVF__EXCEPTIONS,
                  1u << HVF__MC | (d->traps ? 1u << X86_BP : 0) | (slots ? 1u << X86_DB : 0));
    return hvf__regs_moved(c);
}

/* DR6 does not have yet what came out. */
VMM_DEF int hyp_debug_pass(struct hyp_cpu *c)
{
    c->event = c->trap;
    c->event_len = c->trap_len;
    if (c->causes)
        hvf__put(c, HV_X86_DR6, hvf__get(c, HV_X86_DR6) | c->causes);
    return hvf__regs_moved(c);
}

static int hvf__tell_debug(struct hyp_cpu *c, struct vmm_exit *e, unsigned code)
{
    c->retired = false;
    e->code = code;
    e->addr = hvf__vmcs(c, HVF__BASE(1)) + hvf__get(c, HV_X86_RIP);
    return hvf__tell(e, VMM_EXIT_DEBUG);
}

/* What the instruction has done to slots would come out next, but the step is first. */
static int hvf__exit_step(struct hyp_cpu *c, struct vmm_exit *e)
{
    uint64_t pending = hvf__vmcs(c, HVF__PENDING_DEBUG);
    unsigned slots = vmm_x86_debug_why(&c->debug, pending) & VMM_DEBUG_SLOTS;

    if (slots)
        hvf__set_vmcs(c, HVF__PENDING_DEBUG,
                      pending & ~(uint64_t)(VMM_DEBUG_SLOTS | HVF__PENDING_BREAK));
    return c->debug.step ? hvf__tell_debug(c, e, VMM_DEBUG_STEP | slots) : HVF__GO_ON;
}

/* A single step that comes out is the guest's own. */
static int hvf__exit_debug(struct hyp_cpu *c, struct vmm_exit *e, uint32_t info)
{
    uint64_t causes = hvf__vmcs(c, HVF__QUALIFICATION) & HVF__DR6_CAUSES;
    bool db = (uint8_t)info == X86_DB;

    c->trap = HVF__VALID | (info & 0x7ff);
    c->trap_len = (uint32_t)hvf__vmcs(c, HVF__EXIT_LEN);
    c->causes = db ? (uint32_t)causes : 0;
    return hvf__tell_debug(
        c, e, db ? vmm_x86_debug_why(&c->debug, causes) & VMM_DEBUG_SLOTS : VMM_DEBUG_TRAP);
}

/* >>run ------------------------------------------------------------------------------ */

/* Instructions that CPUID does not announce, and those that have nothing to do. */
static int hvf__exit_odd(struct hyp_cpu *c, struct vmm_exit *e, uint32_t reason)
{
    switch (reason) {
    case HVF__EXIT_RSM:
    case HVF__EXIT_MWAIT:
    case HVF__EXIT_MONITOR:
    case HVF__EXIT_INVEPT:
    case HVF__EXIT_INVVPID:
    case HVF__EXIT_INVPCID:
    case HVF__EXIT_VMFUNC:
        return hvf__except(c, X86_UD, false, 0);
    case HVF__EXIT_RDPMC:
        return hvf__refuse(c);
    case HVF__EXIT_INVD:
    case HVF__EXIT_WBINVD:
    case HVF__EXIT_PAUSE:
        return hvf__skip(c);
    case HVF__EXIT_TASK:
        return hvf__fault(c, e, "the guest switches tasks by hardware, which is not emulated; by",
                          hvf__vmcs(c, HVF__QUALIFICATION));
    default:
        if (reason >= HVF__EXIT_VMCALL && reason <= HVF__EXIT_VMXON)
            return hvf__except(c, X86_UD, false, 0);
        return hvf__fault(c, e, "macOS could not go on with the guest, for reason", reason);
    }
}

/* Of the host: non-maskable interrupts. */
static int hvf__exit_exception(struct hyp_cpu *c, struct vmm_exit *e)
{
    uint64_t info = hvf__vmcs(c, HVF__EXIT_EVENT);
    uint8_t vector = (uint8_t)info;

    if ((info >> 8 & 7) == HVF__TYPE_NMI)
        return HVF__GO_ON;
    if (vector == X86_DB || vector == X86_BP)
        return hvf__exit_debug(c, e, (uint32_t)info);
    return hvf__fault(c, e, "the host's processor reports an error while the guest runs, by", info);
}

static int hvf__exit(struct hyp_cpu *c, struct vmm_exit *e, uint32_t reason)
{
    switch (reason) {
    case HVF__EXIT_EXCEPTION:
        return hvf__exit_exception(c, e);
    case HVF__EXIT_INTERRUPT:
    case HVF__EXIT_WINDOW:
    case HVF__EXIT_NMI_WINDOW:
    case HVF__EXIT_TIMER:
        return HVF__GO_ON;
    case HVF__EXIT_TRIPLE_FAULT:
        return hvf__tell(e, VMM_EXIT_SHUTDOWN);
    case HVF__EXIT_CPUID:
        return hvf__exit_cpuid(c);
    case HVF__EXIT_HLT:
        hvf__skip(c);
        return hvf__tell(e, VMM_EXIT_HALT);
    case HVF__EXIT_CR:
        return hvf__exit_cr(c, e);
    case HVF__EXIT_IO:
        return hvf__exit_io(c, e);
    case HVF__EXIT_RDMSR:
    case HVF__EXIT_WRMSR:
        return hvf__exit_msr(c, e, reason == HVF__EXIT_WRMSR);
    case HVF__EXIT_EPT:
        return hvf__exit_ept(c, e);
    case HVF__EXIT_XSETBV:
        return hvf__exit_xsetbv(c);
    case HVF__EXIT_MTF:
        return hvf__exit_step(c, e);
    default:
        return hvf__exit_odd(c, e, reason);
    }
}

/* What the last exit left to do, once the caller has done its part. A write of 32 bits clears the
   upper half. */
static int hvf__complete(struct hyp_cpu *c, struct vmm_exit *e)
{
    uint64_t mask = vmm_ones(c->size), rax;

    switch (c->todo) {
    case HVF_NOTHING:
        break;
    case HVF_IN:
        c->todo = HVF_NOTHING;
        rax = c->size == 4 ? 0 : hvf__get(c, HV_X86_RAX) & ~mask;
        hvf__put(c, HV_X86_RAX, rax | (vmm_get64(c->data) & mask));
        return hvf__skip(c);
    case HVF_RDMSR:
    case HVF_WRMSR:
        return hvf__end_msr(c, c->refused);
    case HVF_EMULATION:
        return hvf__stepped(c, e, x86_emul_next(&c->emul));
    }
    return HVF__GO_ON;
}

/* The event of this entry, and which windows are to be told. One event an entry: a non-maskable
   interrupt comes first, if nothing else is under way. */
static void hvf__arm(struct hyp_cpu *c)
{
    bool nmi = c->nmi && !c->debug.step;
    uint32_t proc =
        c->hyp->proc | (c->window ? HVF__PROC_WINDOW : 0) | (c->debug.step ? HVF__PROC_MTF : 0);

    if (nmi && hvf__nmi_ready(c)) {
        nmi = c->nmi = false;
        c->event = HVF__VALID | HVF__TYPE_NMI << 8 | 2;
    }
    proc |= nmi ? HVF__PROC_NMI_WINDOW : 0;
    if (proc != c->proc)
        hvf__set_vmcs(c, HVF__PROC, proc);
    c->proc = proc;
    if (!c->event)
        return;
    if (c->event & HVF__HAS_ERROR)
        hvf__set_vmcs(c, HVF__EVENT_ERROR, c->event_error);
    if (hvf__has_len(c->event))
        hvf__set_vmcs(c, HVF__EVENT_LEN, c->event_len);
    hvf__set_vmcs(c, HVF__EVENT, c->event);
}

/* What an exit leaves: the processor takes the event of the entry back, if it got that far; and tells
   of one whose delivery it could not finish, which the next entry gets. A non-maskable interrupt
   that was not delivered does not block the next. */
static void hvf__look(struct hyp_cpu *c)
{
    uint32_t again = hvf__decode_vectoring((uint32_t)hvf__vmcs(c, HVF__VECTORING));

    c->rflags = hvf__get(c, HV_X86_RFLAGS);
    c->blocked = hvf__vmcs(c, HVF__BLOCKED);
    if (hvf__vmcs(c, HVF__EVENT) & HVF__VALID)
        return;
    c->event = again;
    if (!again)
        return;
    c->event_error = (uint32_t)hvf__vmcs(c, HVF__VECTORING_ERROR);
    c->event_len = (uint32_t)hvf__vmcs(c, HVF__EXIT_LEN);
    if ((again >> 8 & 7) == HVF__TYPE_NMI)
        hvf__set_blocked(c, c->blocked & ~(uint64_t)HVF__BLOCKED_NMI);
}

/* Into the guest, and out again. */
static int hvf__ran(struct hyp_cpu *c, struct vmm_exit *e)
{
    uint32_t reason = (uint32_t)hvf__vmcs(c, HVF__REASON);

    if (reason & HVF__VALID)
        return hvf__fault(
            c, e, "the processor refuses the state of the guest; the exit's reason is", reason);
    hvf__look(c);
    return hvf__exit(c, e, reason & 0xffff);
}

static int hvf__run(struct hyp_cpu *c, struct vmm_exit *e)
{
    bool kicked;

    if (c->lent)
        hvf__lend_drs(c);
    hvf__arm(c);
    __atomic_store_n(&c->inside, true, __ATOMIC_SEQ_CST);
    kicked = hvf__kicked(c);
    if (!kicked && !c->ret)
        hvf__note(c, hv_vcpu_run_until(c->vcpu, mach_absolute_time() + c->hyp->slice));
    __atomic_store_n(&c->inside, false, __ATOMIC_SEQ_CST);
    return kicked || c->ret ? HVF__GO_ON : hvf__ran(c, e);
}

/* A step of the CPU's life. */
static int hvf__step(struct hyp_cpu *c, struct vmm_exit *e)
{
    hv_return_t ret = hvf__settle(c);

    if (ret)
        return hvf__failed(c->hyp->log, ret, "the guest cannot run");
    if (c->debug.step && c->retired)
        return hvf__tell_debug(c, e, VMM_DEBUG_STEP);
    if (__atomic_exchange_n(&c->kicked, false, __ATOMIC_SEQ_CST))
        return HVF__COME_OUT;
    if (c->window && hyp_ready(c))
        return HVF__COME_OUT;
    return hvf__run(c, e);
}

VMM_DEF int hyp_run(struct hyp_cpu *c, struct vmm_exit *e)
{
    int next;

    e->kind = VMM_EXIT_AGAIN;
    next = hvf__complete(c, e);
    while (next == HVF__GO_ON)
        next = hvf__step(c, e);
    return next < 0 ? next : 0;
}

/* >>lines: interrupt controllers are all the caller's -------------------------------------------- */

VMM_DEF void hyp_irq_set(struct hyp *h, unsigned gsi, bool level)
{
    (void)h, (void)gsi, (void)level;
}

VMM_DEF void hyp_msi_send(struct hyp *h, uint64_t addr, uint32_t data)
{
    (void)h, (void)addr, (void)data;
}

VMM_DEF int hyp_eoi_route(struct hyp *h, unsigned pin, uint64_t addr, uint32_t data)
{
    (void)h, (void)pin, (void)addr, (void)data;
    return -EINVAL;
}
#endif /* x86 */

#endif /* HV_HVF_IMPLEMENTED */
#endif /* VMM_IMPLEMENTATION || HV_HVF_IMPLEMENTATION */
