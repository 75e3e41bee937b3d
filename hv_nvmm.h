/* hv_nvmm.h - the hypervisor contract of vmm.h on NVMM             MIT licence, see LICENSE

   WHAT IT IS      hyp_open, hyp_run and friends (declared in vmm.h) on the NVMM of NetBSD, DragonFly
                   and Haiku, x86_64: its ioctls and the page that it shares with each vCPU, without
                   libnvmm, so that one piece of code serves the API's versions 1 (NetBSD 9), 2 (NetBSD
                   10) and 3 (DragonFly, Haiku), told apart when it runs. NVMM has nested paging and
                   vCPUs: no interrupt controllers, no timers, no bells, no emulation of what an
                   instruction does to a device, which is in hv_x86.h, and no breakpoints, which are
                   caught behind the guest's own gates, see >>debug. It also compiles on Linux, for
                   tests and for whoever has NVMM's ioctls there.
                   Follows NetBSD's sys/dev/nvmm and nvmm(4), and the headers of the other two.

   QUICK START     struct hyp h;
                   struct hyp_cpu c;
                   struct hyp_desc desc = {.no_irqchip = true};
                   struct vmm_exit e = {.kind = VMM_EXIT_AGAIN};
                   if (hyp_open(&h, &desc) || hyp_map(&h, 0, ram_size, ram, VMM_READ | VMM_WRITE))
                       return -1;
                   memcpy(ram, code, sizeof code); // not before: mapped memory is zeroed
                   if (hyp_cpu_open(&c, &h, 0) || hyp_set_regs(&c, &regs))
                       return -1;
                   while (e.kind != VMM_EXIT_HALT && hyp_run(&c, &e) == 0)
                       if (e.kind == VMM_EXIT_PIO)
                           vmm_bus_exit(&ports, &e);
                   hyp_cpu_close(&c);
                   hyp_close(&h);

   CONFIGURATION   set everywhere: NVMM_HOOKS, see below; in the implementing file only:
                   NVMM_KICK_SIGNAL   what interrupts a running vCPU thread; default SIGUSR1
                   NVMM_DEVICE        default of hyp_desc.path; "/dev/nvmm", on Haiku
                                      "/dev/misc/nvmm"

   DEPENDS ON      vmm.h, hv_x86.h (and debug.h by it); the implementation on POSIX and on ioctl.

   THREADS         A vCPU belongs to the thread that opened it. hyp_kick: any thread. Everything else
                   before the first hyp_run, or from one thread at a time.
   MEMORY          struct hyp and struct hyp_cpu are the caller's; nothing is allocated. Guest memory
                   stays the caller's too, must outlive hyp_close, and may not be mapped anew, in
                   whole or in part: NVMM puts pages of its own there, zeroed.
   ERRORS          Negative errno; one sentence in desc.log.
   PROCESS         hyp_open installs a handler for NVMM_KICK_SIGNAL, which does nothing.
   GUEST TRUST     What NVMM reports of the guest's instructions is used as far as it can be true;
                   they are fetched and carried out by hv_x86.h, whose bounds hold.

   Sections: >>abi >>open >>memory >>state >>vcpu >>registers >>exits >>debug >>run
   >>inject >>absent */
#if (defined(VMM_IMPLEMENTATION) || defined(HV_NVMM_IMPLEMENTATION)) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* sigaction, getgrgid, pthread_kill under -std=c11; before any system header */
#endif
#if (defined(VMM_IMPLEMENTATION) || defined(HV_NVMM_IMPLEMENTATION)) && defined(__NetBSD__) &&     \
    !defined(_NETBSD_SOURCE)
#define _NETBSD_SOURCE
#endif
#ifndef HV_NVMM_H
#define HV_NVMM_H

#define HYP_BACKEND
#include "vmm.h"

#include <pthread.h>

#include "hv_x86.h"

/* What NVMM tells when a vCPU comes back, private as the structs of >>abi: 64 bytes. */
struct nvmm__exit {
    uint64_t reason;
    union {
        struct {
            int prot; /* of the access: PROT_READ, PROT_WRITE, PROT_EXEC */
            uint64_t gpa;
            uint8_t inst_len, inst_bytes[15];
        } mem;
        struct {
            uint8_t in;
            uint16_t port;
            int8_t seg; /* -1: unknown */
            uint8_t address_size, operand_size;
            uint8_t rep, str;
            uint64_t npc; /* of the next instruction */
        } io;
        struct {
            uint32_t msr;
            uint64_t npc;
        } rdmsr;
        struct {
            uint32_t msr;
            uint64_t val, npc;
        } wrmsr;
        struct {
            uint64_t npc;
        } insn;
        struct {
            uint64_t hwcode;
        } inv;
    } u;
    struct {
        uint64_t rflags, cr8, intr; /* intr: as in the state */
    } state;
};

/* The argument of the ioctl that runs a vCPU. */
struct nvmm__run {
    uint32_t machid, cpuid;
    struct nvmm__exit exit;
};

#ifndef NVMM_HOOKS
#define NVMM_HOOKS                                                                                 \
    64 /* gates of the guest's that a debugger may need: two for each of its tables */
#endif

/* A gate of the guest's that leads, while `set`, to where its exception comes out. */
struct nvmm__hook {
    uint64_t gpa;     /* of the gate */
    uint64_t handler; /* where it led */
    uint64_t snare;   /* where it leads */
    uint16_t selector;
    uint8_t vector, word;
    bool set;
};

/* What the next hyp_run has to finish first. */
enum nvmm__todo { NVMM__NOTHING, NVMM__IN, NVMM__RDMSR, NVMM__WRMSR, NVMM__EMULATION };

struct hyp {
    const struct vmm_log *log;
    int fd; /* the device, which owns the machine; -1: closed */
    bool created;
    uint32_t machid;
    unsigned version;        /* of the API */
    unsigned comm_len;       /* bytes of the page shared with a vCPU */
    unsigned ncpus;          /* as the CPUID topology tells them */
    bool tpr_exits;          /* writes to CR8 come out, if that is asked for */
    uint64_t max_ram;        /* end of guest-physical addresses for memory */
    uint64_t tsc, ns;        /* both clocks of the host when it was opened */
    uint64_t tsc_hz;         /* 0: not measured yet; atomic */
    struct vmm_mem ram, rom; /* what is mapped: writable, and not */
    pthread_mutex_t lock;    /* guards: */
    unsigned nwanted[2];     /* CPUs whose debugger wants #DB, and #BP */
    unsigned nhooks;         /* are, or were, in use; atomic */
    struct nvmm__hook hook[NVMM_HOOKS];
};

struct hyp_cpu {
    struct hyp *hyp;
    struct nvmm__comm *comm; /* NULL: none */
    struct nvmm__run run;
    unsigned id;
    uintptr_t thread; /* that runs it, for kicks */
    bool kicked;      /* atomic */
    bool created;
    bool entered;               /* once at least */
    bool window;                /* hyp_run shall return as soon as an interrupt can be taken */
    bool nmi;                   /* waits for its turn */
    bool refused;               /* the access to an MSR */
    uint64_t rflags, cr8, intr; /* as of the last exit, and what was set since */
    enum nvmm__todo todo;
    uint64_t npc;             /* of NVMM__IN, NVMM__RDMSR and NVMM__WRMSR: the next instruction */
    unsigned size;            /* of NVMM__IN: bytes */
    uint8_t data[8];          /* of all but NVMM__EMULATION: read or written */
    struct vmm_x86_regs regs; /* what NVMM__EMULATION works on */
    struct x86_emul emul;
    struct x86_msrs msrs;
    uint8_t insn[X86_INSN_MAX];    /* bytes at the instruction pointer of a fault */
    struct vmm_debug debug;        /* what hyp_debug asked for */
    bool retired;                  /* an instruction was carried out here since */
    bool tf;                       /* the trap flag, where it is set, is the debugger's */
    bool lent;                     /* the debug registers are */
    uint64_t step_at;              /* linear address of the instruction that is the step */
    uint64_t dr[6], guest_dr[6];   /* what was lent, and what the guest gets back */
    struct vmm_x86_regs delivered; /* of an exception that was told, at the guest's handler */
};

#endif /* HV_NVMM_H */

#if defined(VMM_IMPLEMENTATION) || defined(HV_NVMM_IMPLEMENTATION)
#ifndef HV_NVMM_IMPLEMENTED
#define HV_NVMM_IMPLEMENTED

#include <cpuid.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if !defined(__x86_64__)
#error "hv_nvmm.h knows x86_64"
#endif

#ifndef NVMM_KICK_SIGNAL
#define NVMM_KICK_SIGNAL SIGUSR1
#endif
#ifndef NVMM_DEVICE
#if defined(__HAIKU__)
#define NVMM_DEVICE "/dev/misc/nvmm"
#else
#define NVMM_DEVICE "/dev/nvmm"
#endif
#endif

/* >>abi: of nvmm.h, nvmm_x86.h and nvmm_ioctl.h, which not every system with NVMM installs, and of
   which each has the version of its own ------------------------------------------------------ */

struct nvmm__cap { /* of versions 1 and 2; 3 has comm_size behind state_size */
    uint32_t version, state_size, max_machines, max_vcpus;
    uint64_t max_ram;
    struct nvmm__cap_md {
        uint64_t mach_conf, vcpu_conf; /* what can be configured: enum nvmm__conf_bit */
        uint64_t xcr0_mask;
        uint32_t mxcsr_mask, cpuid_ops;
        uint64_t reserved[6];
    } md;
};

struct nvmm__cap3 {
    uint32_t version, state_size, comm_size, max_machines, max_vcpus;
    uint64_t max_ram;
    struct nvmm__cap_md md;
};

struct nvmm__vcpu { /* of most ioctls on a vCPU */
    uint32_t machid, cpuid;
};

struct nvmm__vcpu3 { /* version 3 says where the shared page is */
    uint32_t machid, cpuid;
    void *comm;
};

struct nvmm__configure {
    uint32_t machid, cpuid;
    uint64_t op;
    const void *conf;
};

struct nvmm__hva {
    uint32_t machid;
    uintptr_t hva;
    size_t size;
    int flags;
};

struct nvmm__gpa {
    uint32_t machid;
    uintptr_t hva;
    uint64_t gpa;
    size_t size;
    int prot;
};

enum nvmm__conf_bit { NVMM__CONF_HAS_CPUID = 1, NVMM__CONF_HAS_TPR = 2 };
enum nvmm__conf { NVMM__CONF_CPUID = 200, NVMM__CONF_TPR = 201 };

struct nvmm__conf_cpuid {
    uint32_t what; /* enum below */
    uint32_t leaf;
    uint32_t set[4], del[4];
};

enum { NVMM__CPUID_MASK = 1, NVMM__CPUID_EXIT = 2, NVMM__TPR_EXIT = 1 };

enum nvmm__seg_index {
    NVMM__ES,
    NVMM__CS,
    NVMM__SS,
    NVMM__DS,
    NVMM__FS,
    NVMM__GS,
    NVMM__GDT,
    NVMM__IDT,
    NVMM__LDT,
    NVMM__TR
};
enum { NVMM__RAX = VMM_RAX, NVMM__RDX = VMM_RDX, NVMM__RIP = 16, NVMM__RFLAGS = 17 };
enum { NVMM__CR0, NVMM__CR2, NVMM__CR3, NVMM__CR4, NVMM__CR8, NVMM__XCR0 };
enum { NVMM__EFER = 0, NVMM__TSC = 10 };
enum { NVMM__DR6 = 4, NVMM__DR7 = 5 };
enum { NVMM__SHADOW = 1, NVMM__INT_WINDOW = 2, NVMM__NMI_WINDOW = 4, NVMM__PENDING = 8 };

struct nvmm__seg {
    uint16_t selector;
    uint16_t attrib; /* as a descriptor has it, without the limit's bits between */
    uint32_t limit;
    uint64_t base;
};

struct nvmm__fpu { /* what FXSAVE stores */
    uint16_t cw, sw;
    uint8_t tw, zero;
    uint16_t opcode;
    uint64_t ip, dp;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16], xmm[16][16];
    uint8_t reserved[96];
};

struct nvmm__state {
    struct nvmm__seg seg[10];
    uint64_t gpr[18], cr[6], dr[6], msr[11], intr;
    struct nvmm__fpu fpu;
};

/* Parts of the state, each of which moves as a whole. */
enum {
    NVMM__SEGS = 1,
    NVMM__GPRS = 2,
    NVMM__CRS = 4,
    NVMM__DRS = 8,
    NVMM__MSRS = 0x10,
    NVMM__INTR = 0x20,
    NVMM__FPU = 0x40,
    NVMM__REGS = NVMM__SEGS | NVMM__GPRS | NVMM__CRS | NVMM__MSRS
};

enum { NVMM__EXCEPTION, NVMM__INTERRUPT };

struct nvmm__event {
    uint32_t type;
    uint8_t vector;
    uint64_t error;
};

struct nvmm__comm {
    uint64_t wanted, cached, commit; /* parts of the state, see >>state */
    _Alignas(16) struct nvmm__state state;
    bool event_commit; /* the event comes first of all */
    struct nvmm__event event;
    int stop; /* version 2: ends the run under way, or the next */
};

enum {
    NVMM__EXIT_NONE = 0,
    NVMM__EXIT_MEMORY = 1,
    NVMM__EXIT_IO = 2,
    NVMM__EXIT_SHUTDOWN = 0x1000,
    NVMM__EXIT_INT_READY = 0x1001,
    NVMM__EXIT_NMI_READY = 0x1002,
    NVMM__EXIT_HALTED = 0x1003,
    NVMM__EXIT_TPR = 0x1004,
    NVMM__EXIT_RDMSR = 0x2000,
    NVMM__EXIT_WRMSR = 0x2001,
    NVMM__EXIT_MONITOR = 0x2002,
    NVMM__EXIT_MWAIT = 0x2003,
    NVMM__EXIT_CPUID = 0x2004
};
#define NVMM__EXIT_STOPPED 0xfffffffffffffffeull
#define NVMM__EXIT_INVALID 0xffffffffffffffffull

#define NVMM__AT(type, field, off) _Static_assert(offsetof(struct type, field) == (off), #field)
#define NVMM__SIZE(type, size)     _Static_assert(sizeof(struct type) == (size), #type)
NVMM__SIZE(nvmm__exit, 64);
NVMM__AT(nvmm__exit, u.mem.prot, 8);
NVMM__AT(nvmm__exit, u.mem.gpa, 16);
NVMM__AT(nvmm__exit, u.mem.inst_len, 24);
NVMM__AT(nvmm__exit, u.mem.inst_bytes, 25);
NVMM__AT(nvmm__exit, u.io.in, 8);
NVMM__AT(nvmm__exit, u.io.port, 10);
NVMM__AT(nvmm__exit, u.io.seg, 12);
NVMM__AT(nvmm__exit, u.io.address_size, 13);
NVMM__AT(nvmm__exit, u.io.operand_size, 14);
NVMM__AT(nvmm__exit, u.io.rep, 15);
NVMM__AT(nvmm__exit, u.io.str, 16);
NVMM__AT(nvmm__exit, u.io.npc, 24);
NVMM__AT(nvmm__exit, u.rdmsr.msr, 8);
NVMM__AT(nvmm__exit, u.rdmsr.npc, 16);
NVMM__AT(nvmm__exit, u.wrmsr.val, 16);
NVMM__AT(nvmm__exit, u.wrmsr.npc, 24);
NVMM__AT(nvmm__exit, u.insn.npc, 8);
NVMM__AT(nvmm__exit, u.inv.hwcode, 8);
NVMM__AT(nvmm__exit, state, 40);
NVMM__AT(nvmm__exit, state.cr8, 48);
NVMM__AT(nvmm__exit, state.intr, 56);
NVMM__SIZE(nvmm__run, 72);
NVMM__AT(nvmm__run, exit, 8);
NVMM__SIZE(nvmm__cap, 104);
NVMM__AT(nvmm__cap, max_vcpus, 12);
NVMM__AT(nvmm__cap, max_ram, 16);
NVMM__AT(nvmm__cap, md, 24);
NVMM__AT(nvmm__cap, md.vcpu_conf, 32);
NVMM__AT(nvmm__cap, md.cpuid_ops, 52);
NVMM__SIZE(nvmm__cap3, 112);
NVMM__AT(nvmm__cap3, comm_size, 8);
NVMM__AT(nvmm__cap3, max_vcpus, 16);
NVMM__AT(nvmm__cap3, max_ram, 24);
NVMM__AT(nvmm__cap3, md, 32);
NVMM__SIZE(nvmm__vcpu, 8);
NVMM__SIZE(nvmm__vcpu3, 16);
NVMM__SIZE(nvmm__configure, 24);
NVMM__AT(nvmm__configure, conf, 16);
NVMM__SIZE(nvmm__hva, 32);
NVMM__AT(nvmm__hva, hva, 8);
NVMM__AT(nvmm__hva, flags, 24);
NVMM__SIZE(nvmm__gpa, 40);
NVMM__AT(nvmm__gpa, gpa, 16);
NVMM__AT(nvmm__gpa, prot, 32);
NVMM__SIZE(nvmm__conf_cpuid, 40);
NVMM__AT(nvmm__conf_cpuid, set, 8);
NVMM__AT(nvmm__conf_cpuid, del, 24);
NVMM__SIZE(nvmm__seg, 16);
NVMM__AT(nvmm__seg, limit, 4);
NVMM__AT(nvmm__seg, base, 8);
NVMM__SIZE(nvmm__fpu, 512);
NVMM__AT(nvmm__fpu, mxcsr, 24);
NVMM__AT(nvmm__fpu, xmm, 160);
NVMM__SIZE(nvmm__state, 1008);
NVMM__AT(nvmm__state, gpr, 160);
NVMM__AT(nvmm__state, cr, 304);
NVMM__AT(nvmm__state, dr, 352);
NVMM__AT(nvmm__state, msr, 400);
NVMM__AT(nvmm__state, intr, 488);
NVMM__AT(nvmm__state, fpu, 496);
NVMM__SIZE(nvmm__event, 16);
NVMM__AT(nvmm__event, vector, 4);
NVMM__AT(nvmm__event, error, 8);
NVMM__SIZE(nvmm__comm, 1072);
NVMM__AT(nvmm__comm, commit, 16);
NVMM__AT(nvmm__comm, state, 32);
NVMM__AT(nvmm__comm, event_commit, 1040);
NVMM__AT(nvmm__comm, event, 1048);
NVMM__AT(nvmm__comm, stop, 1064);

#define NVMM__PAGE 4096u /* of x86 */

/* The numbers of ioctls are made as the host makes them: on the BSDs and Haiku, whose NVMM knows its
   own, and on Linux, where direction has other bits, for a kernel that translates. */
#if !defined(_IOWR)
#define NVMM__IOC(dir, group, nr, type)                                                            \
    ((dir) | (sizeof(type) & 0x1fff) << 16 | (unsigned long)(group) << 8 | (nr))
#define _IOR(group, nr, type)  NVMM__IOC(0x40000000ul, group, nr, type)
#define _IOW(group, nr, type)  NVMM__IOC(0x80000000ul, group, nr, type)
#define _IOWR(group, nr, type) NVMM__IOC(0xc0000000ul, group, nr, type)
#endif
#define NVMM__CAPABILITY      _IOR('N', 0, struct nvmm__cap)
#define NVMM__CAPABILITY3     _IOR('N', 0, struct nvmm__cap3)
#define NVMM__MACHINE_CREATE  _IOWR('N', 1, uint32_t)
#define NVMM__MACHINE_DESTROY _IOW('N', 2, uint32_t)
#define NVMM__VCPU_CREATE     _IOW('N', 4, struct nvmm__vcpu)
#define NVMM__VCPU_CREATE3    _IOWR('N', 4, struct nvmm__vcpu3)
#define NVMM__VCPU_DESTROY    _IOW('N', 5, struct nvmm__vcpu)
#define NVMM__VCPU_CONFIGURE  _IOW('N', 6, struct nvmm__configure)
#define NVMM__VCPU_GETSTATE   _IOW('N', 8, struct nvmm__vcpu)
#define NVMM__VCPU_RUN        _IOWR('N', 10, struct nvmm__run)
#define NVMM__GPA_MAP         _IOW('N', 11, struct nvmm__gpa)
#define NVMM__HVA_MAP         _IOW('N', 13, struct nvmm__hva)
#if !defined(__linux__)
_Static_assert(NVMM__CAPABILITY == 0x40684e00ul && NVMM__CAPABILITY3 == 0x40704e00ul, "");
_Static_assert(NVMM__MACHINE_CREATE == 0xc0044e01ul && NVMM__MACHINE_DESTROY == 0x80044e02ul, "");
_Static_assert(NVMM__VCPU_CREATE == 0x80084e04ul && NVMM__VCPU_CREATE3 == 0xc0104e04ul, "");
_Static_assert(NVMM__VCPU_RUN == 0xc0484e0aul && NVMM__GPA_MAP == 0x80284e0bul, "");
#endif

/* Against the system's own header, where there is one. */
#if defined(__has_include)
#if __has_include(<dev/nvmm/nvmm_ioctl.h>)
#include <dev/nvmm/nvmm.h>
#include <dev/nvmm/nvmm_ioctl.h>
#define NVMM__SYSTEM
#elif __has_include(<dev/virtual/nvmm/nvmm_ioctl.h>)
#include <dev/virtual/nvmm/nvmm.h>
#include <dev/virtual/nvmm/nvmm_ioctl.h>
#define NVMM__SYSTEM
#endif
#endif
#if defined(NVMM__SYSTEM)
#define NVMM__LIKE(ours, theirs)                                                                   \
    _Static_assert(sizeof(struct ours) == sizeof(struct theirs), #theirs)
NVMM__LIKE(nvmm__exit, nvmm_vcpu_exit);
NVMM__LIKE(nvmm__run, nvmm_ioc_vcpu_run);
NVMM__LIKE(nvmm__state, nvmm_x64_state);
NVMM__LIKE(nvmm__event, nvmm_vcpu_event);
NVMM__LIKE(nvmm__comm, nvmm_comm_page);
NVMM__LIKE(nvmm__configure, nvmm_ioc_vcpu_configure);
NVMM__LIKE(nvmm__conf_cpuid, nvmm_vcpu_conf_cpuid);
NVMM__LIKE(nvmm__hva, nvmm_ioc_hva_map);
NVMM__LIKE(nvmm__gpa, nvmm_ioc_gpa_map);
_Static_assert(offsetof(struct nvmm__comm, state) == offsetof(struct nvmm_comm_page, state), "");
_Static_assert(offsetof(struct nvmm__comm, event) == offsetof(struct nvmm_comm_page, event), "");
_Static_assert(offsetof(struct nvmm__exit, state) == offsetof(struct nvmm_vcpu_exit, exitstate),
               "");
_Static_assert(NVMM__VCPU_RUN == NVMM_IOC_VCPU_RUN && NVMM__HVA_MAP == NVMM_IOC_HVA_MAP, "");
_Static_assert(NVMM__VCPU_CONFIGURE == NVMM_IOC_VCPU_CONFIGURE, "");
_Static_assert(NVMM__GPA_MAP == NVMM_IOC_GPA_MAP, "");
_Static_assert(NVMM__CAPABILITY == NVMM_IOC_CAPABILITY || NVMM__CAPABILITY3 == NVMM_IOC_CAPABILITY,
               "");
_Static_assert(NVMM__VCPU_CREATE == NVMM_IOC_VCPU_CREATE ||
                   NVMM__VCPU_CREATE3 == NVMM_IOC_VCPU_CREATE,
               "");
#endif

/* -errno on failure. musl, and Linux, know 32 bits of a request; the BSDs look at all of a long. */
static int nvmm__ioctl(int fd, unsigned long request, void *arg)
{
#if defined(__linux__)
    return ioctl(fd, (int)request, arg) < 0 ? -errno : 0;
#else
    return ioctl(fd, request, arg) < 0 ? -errno : 0;
#endif
}

/* >>open -------------------------------------------------------------------------- */

/* What there is to do where there is no device, and whose it is where it may not be opened. */
#if defined(__NetBSD__)
static const char nvmm__absent[] =
    "load the module ('modload nvmm' as root, or a line 'nvmm' in /etc/modules.conf), have VMX or "
    "SVM enabled in the firmware, and make the device ('cd /dev && sh MAKEDEV nvmm')";
#elif defined(__DragonFly__)
static const char nvmm__absent[] =
    "load the module ('kldload nvmm' as root, or nvmm_load=\"YES\" in /boot/loader.conf), and have "
    "VMX or SVM enabled in the firmware";
#elif defined(__HAIKU__)
static const char nvmm__absent[] =
    "use a Haiku that has the driver nvmm, and have VMX or SVM enabled in the firmware";
#else
static const char nvmm__absent[] =
    "this program is for NVMM, which NetBSD, DragonFly and Haiku have: on Linux take the one for "
    "/dev/kvm";
#endif

static int nvmm__open_failed(const struct hyp *h, const char *path, int err)
{
    struct stat st;
    struct group *gr;

    if (err == -EACCES || err == -EPERM) {
        gr = stat(path, &st) == 0 ? getgrgid(st.st_gid) : NULL;
        return vmm_err(h->log, -EACCES,
                       "no permission to open %s: add your user to the group '%s' and log in again",
                       path, gr ? gr->gr_name : "nvmm");
    }
    if (err == -ENOENT || err == -ENXIO || err == -ENODEV)
        return vmm_err(h->log, -ENOENT, "%s is not there: %s", path, nvmm__absent);
    return vmm_err(h->log, err, "cannot open %s: %s", path, strerror(-err));
}

/* The size of the answer is part of the question: version 3 knows only a longer one. Shorter ones
   are brought into its shape. */
static int nvmm__ask(struct hyp *h, struct nvmm__cap3 *cap3)
{
    struct nvmm__cap cap = {0};

    if (!nvmm__ioctl(h->fd, NVMM__CAPABILITY, &cap)) {
        *cap3 = (struct nvmm__cap3){
            cap.version, cap.state_size, sizeof(struct nvmm__comm), cap.max_machines, cap.max_vcpus,
            cap.max_ram, cap.md};
        return cap.version == 1 || cap.version == 2 ? 0 : -ENOTSUP;
    }
    if (nvmm__ioctl(h->fd, NVMM__CAPABILITY3, cap3))
        return -ENOTTY;
    return cap3->version == 3 ? 0 : -ENOTSUP;
}

static int nvmm__check(struct hyp *h, const char *path)
{
    struct nvmm__cap3 cap = {0};
    int err = nvmm__ask(h, &cap);

    if (err == -ENOTTY)
        return vmm_err(h->log, -ENOTSUP, "%s is not an NVMM device: give the real one", path);
    if (err || cap.state_size != sizeof(struct nvmm__state) || cap.comm_size % 8 ||
        cap.comm_size < offsetof(struct nvmm__comm, stop) ||
        !(cap.md.vcpu_conf & NVMM__CONF_HAS_CPUID))
        return vmm_err(h->log, -ENOTSUP,
                       "the NVMM of this host is of version %u, with %u bytes of state: 1, 2 and 3 "
                       "with 1008 are known",
                       cap.version, cap.state_size);
    if (h->ncpus > cap.max_vcpus)
        return vmm_err(h->log, -E2BIG,
                       "this host's NVMM runs at most %u CPUs in a VM, not %u: ask for fewer",
                       cap.max_vcpus, h->ncpus);
    h->version = cap.version;
    h->comm_len = cap.version == 3 ? cap.comm_size : NVMM__PAGE;
    h->max_ram = cap.max_ram;
    h->tpr_exits = cap.md.vcpu_conf & NVMM__CONF_HAS_TPR;
    return 0;
}

static void nvmm__kicked(int signo)
{
    (void)signo; /* its arrival ends the run; there is nothing else to do */
}

/* No SA_RESTART: the signal is there to interrupt. */
static void nvmm__catch_kicks(void)
{
    struct sigaction sa = {.sa_handler = nvmm__kicked};

    sigaction(NVMM_KICK_SIGNAL, &sa, NULL);
}

static uint64_t nvmm__now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The descriptor owns the machine, and must be one that a program that is started does not get. */
static int nvmm__open_machine(struct hyp *h, const char *path)
{
    int err;

    h->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (h->fd < 0)
        return nvmm__open_failed(h, path, -errno);
    err = nvmm__check(h, path);
    if (err)
        return err;
    err = nvmm__ioctl(h->fd, NVMM__MACHINE_CREATE, &h->machid);
    h->created = !err;
    if (err == -ENOBUFS)
        return vmm_err(h->log, err, "NVMM has no room for another VM: end one of the others");
    return err ? vmm_err(h->log, err, "NVMM cannot create a VM: %s", strerror(-err)) : 0;
}

VMM_DEF int hyp_open(struct hyp *h, const struct hyp_desc *desc)
{
    int err;

    memset(h, 0, sizeof *h);
    h->log = desc->log;
    h->ncpus = desc->ncpus ? desc->ncpus : 1;
    h->tsc = __builtin_ia32_rdtsc();
    h->ns = nvmm__now();
    pthread_mutex_init(&h->lock, NULL);
    err = nvmm__open_machine(h, desc->path ? desc->path : NVMM_DEVICE);
    if (err) {
        hyp_close(h);
        return err;
    }
    nvmm__catch_kicks();
    return 0;
}

VMM_DEF void hyp_close(struct hyp *h)
{
    if (h->created)
        (void)nvmm__ioctl(h->fd, NVMM__MACHINE_DESTROY, &h->machid);
    if (h->fd >= 0)
        close(h->fd);
    if (h->ncpus)
        pthread_mutex_destroy(&h->lock);
    memset(h, 0, sizeof *h);
    h->fd = -1;
}

/* All that a PC has beside its CPUs is the caller's. */
VMM_DEF unsigned hyp_caps(const struct hyp *h)
{
    (void)h;
    return HYP_CAP_DEBUG;
}

/* What CPUID tells the guest; processors without this leaf have 36. */
VMM_DEF unsigned hyp_gpa_bits(const struct hyp *h)
{
    unsigned a, b, c, d;

    (void)h;
    return __get_cpuid(0x80000008, &a, &b, &c, &d) ? a & 0xff : 36;
}

/* >>memory ------------------------------------------------------------------------ */

static int nvmm__map(struct hyp *h, uint64_t gpa, uint64_t len, void *hva, unsigned prot)
{
    struct nvmm__hva host = {.machid = h->machid, .hva = (uintptr_t)hva, .size = (size_t)len};
    struct nvmm__gpa guest = {.machid = h->machid,
                              .hva = (uintptr_t)hva,
                              .gpa = gpa,
                              .size = (size_t)len,
                              .prot = PROT_READ | PROT_EXEC | (prot & VMM_WRITE ? PROT_WRITE : 0)};
    int err = nvmm__ioctl(h->fd, NVMM__HVA_MAP, &host);

    if (!err)
        err = nvmm__ioctl(h->fd, NVMM__GPA_MAP, &guest);
    return err ? err : vmm_mem_add(prot & VMM_WRITE ? &h->ram : &h->rom, gpa, len, hva);
}

VMM_DEF int hyp_map(struct hyp *h, uint64_t gpa, uint64_t len, void *hva, unsigned prot)
{
    int err;

    if (len > h->max_ram || gpa > h->max_ram - len)
        return vmm_err(h->log, -ENOSPC,
                       "memory from 0x%llx to 0x%llx: NVMM gives guests the first %llu GiB of "
                       "addresses; give the guest less",
                       (unsigned long long)gpa, (unsigned long long)(gpa + len),
                       (unsigned long long)(h->max_ram >> 30));
    err = nvmm__map(h, gpa, len, hva, prot);
    return err ? vmm_err(h->log, err, "NVMM refuses %llu MiB of RAM at 0x%llx: %s",
                         (unsigned long long)len >> 20, (unsigned long long)gpa, strerror(-err))
               : 0;
}

/* >>state: NVMM and the vCPU's thread pass parts of the state to each other in the shared page.
   What is `cached` there is what the vCPU has; other parts are asked for. What is in `commit` the
   next run gives to the vCPU first, and forgets what was cached. -------------------------------- */

static int nvmm__get(struct hyp_cpu *c, uint64_t parts)
{
    struct nvmm__vcpu arg = {c->hyp->machid, c->id};
    uint64_t missing = parts & ~c->comm->cached;

    if (!missing)
        return 0;
    c->comm->wanted = missing;
    return nvmm__ioctl(c->hyp->fd, NVMM__VCPU_GETSTATE, &arg);
}

static void nvmm__set(struct hyp_cpu *c, uint64_t parts)
{
    c->comm->commit |= parts;
    c->comm->cached |= parts;
}

static void nvmm__event(struct hyp_cpu *c, uint32_t type, uint8_t vector, uint32_t error)
{
    c->comm->event = (struct nvmm__event){.type = type, .vector = vector, .error = error};
    c->comm->event_commit = true;
}

static int nvmm__advance(struct hyp_cpu *c, uint64_t npc)
{
    int err = nvmm__get(c, NVMM__GPRS);

    if (err)
        return err;
    c->comm->state.gpr[NVMM__RIP] = npc;
    nvmm__set(c, NVMM__GPRS);
    c->retired = true;
    return 0;
}

/* >>vcpu -------------------------------------------------------------------------- */

/* How fast the host's TSC is, which is the guest's: none of the systems tells everybody. Measured
   since hyp_open, but for 2 ms at least. The first result counts, on whichever thread. */
static uint64_t nvmm__hz(struct hyp *h)
{
    const struct timespec some = {.tv_nsec = 500000};
    uint64_t ns, tsc, hz = __atomic_load_n(&h->tsc_hz, __ATOMIC_SEQ_CST), mine;

    if (hz)
        return hz;
    while ((ns = nvmm__now() - h->ns) < 2000000)
        nanosleep(&some, NULL);
    tsc = __builtin_ia32_rdtsc();
    mine = (uint64_t)((double)(tsc - h->tsc) / (double)ns * 1e9);
    return __atomic_compare_exchange_n(&h->tsc_hz, &hz, mine, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST)
               ? mine
               : hz;
}

#define NVMM__LAPIC_HZ 1000000000u /* the caller's counts nanoseconds, as KVM's */

/* NVMM answers CPUID itself, and can be told which bits of which leaf it shall set or clear. (It can
   also come out, but does not say then which leaf was asked for.) So each bit that x86_cpuid makes
   of nothing is one to set, and each that it makes of everything is not one to clear. Leaves whose
   sub-leaves differ cannot be told so: caches and topology are as NVMM has them. */
static int nvmm__set_leaf(struct hyp_cpu *c, const struct x86_cpuid_desc *d, uint32_t leaf)
{
    struct nvmm__conf_cpuid conf = {.what = NVMM__CPUID_MASK, .leaf = leaf};
    struct nvmm__configure arg = {c->hyp->machid, c->id, NVMM__CONF_CPUID, &conf};
    uint32_t most[4] = {~0u, ~0u, ~0u, ~0u}, any = 0;

    x86_cpuid(d, leaf, 0, conf.set);
    x86_cpuid(d, leaf, 0, most);
    for (unsigned i = 0; i < 4; i++) {
        conf.set[i] &= most[i];
        conf.del[i] = ~most[i];
        any |= conf.set[i] | conf.del[i];
    }
    return any ? nvmm__ioctl(c->hyp->fd, NVMM__VCPU_CONFIGURE, &arg) : 0;
}

static int nvmm__set_cpuid(struct hyp_cpu *c)
{
    static const uint32_t leaves[] = {1,          6,          7,          0x15,
                                      0x16,       0x40000000, 0x40000001, 0x40000010,
                                      0x80000001, 0x80000007, 0x80000008, 0x8000001e};
    struct x86_cpuid_desc d = {.ncpus = c->hyp->ncpus,
                               .id = c->id,
                               .tsc_hz = nvmm__hz(c->hyp),
                               .lapic_hz = NVMM__LAPIC_HZ,
                               .x2apic = true,
                               .tsc_deadline = true};
    int err = 0;

    for (unsigned i = 0; i < sizeof leaves / sizeof leaves[0] && !err; i++)
        err = nvmm__set_leaf(c, &d, leaves[i]);
    return err;
}

/* Where CR8 is written without an exit, a lower task priority is seen at the next exit. */
static int nvmm__want_tpr(struct hyp_cpu *c)
{
    uint32_t conf = NVMM__TPR_EXIT;
    struct nvmm__configure arg = {c->hyp->machid, c->id, NVMM__CONF_TPR, &conf};

    return c->hyp->tpr_exits ? nvmm__ioctl(c->hyp->fd, NVMM__VCPU_CONFIGURE, &arg) : 0;
}

static int nvmm__create(struct hyp_cpu *c)
{
    struct hyp *h = c->hyp;
    struct nvmm__vcpu3 arg = {.machid = h->machid, .cpuid = c->id};
    bool v3 = h->version == 3;
    int err = nvmm__ioctl(h->fd, v3 ? NVMM__VCPU_CREATE3 : NVMM__VCPU_CREATE, &arg);

    if (err)
        return err;
    c->created = true;
    if (!v3)
        arg.comm = mmap(NULL, NVMM__PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, h->fd,
                        (off_t)(h->machid & 0xff) << 20 | (off_t)(c->id & 0xff) << 12);
    if (!arg.comm || arg.comm == MAP_FAILED)
        return v3 ? -ENOMEM : -errno;
    c->comm = arg.comm;
    return 0;
}

static int nvmm__prepare(struct hyp_cpu *c)
{
    const struct vmm_log *log = c->hyp->log;
    int err = nvmm__create(c);

    if (err)
        return vmm_err(log, err, "NVMM cannot create CPU %u: %s", c->id, strerror(-err));
    err = nvmm__set_cpuid(c);
    if (!err)
        err = nvmm__want_tpr(c);
    return err ? vmm_err(log, err, "NVMM refuses the features of CPU %u: %s", c->id, strerror(-err))
               : 0;
}

VMM_DEF int hyp_cpu_open(struct hyp_cpu *c, struct hyp *h, unsigned id)
{
    pthread_t self = pthread_self();
    int err;

    _Static_assert(sizeof self <= sizeof c->thread, "a thread fits");
    memset(c, 0, sizeof *c);
    c->hyp = h;
    c->id = id;
    c->run.machid = h->machid;
    c->run.cpuid = id;
    memcpy(&c->thread, &self, sizeof self);
    c->emul.rom = &h->rom;
    x86_msr_reset(&c->msrs);
    err = nvmm__prepare(c);
    if (err)
        hyp_cpu_close(c);
    return err;
}

VMM_DEF void hyp_cpu_close(struct hyp_cpu *c)
{
    struct nvmm__vcpu arg = {c->hyp->machid, c->id};

    if (c->created)
        (void)nvmm__ioctl(c->hyp->fd, NVMM__VCPU_DESTROY, &arg);
    if (c->comm)
        munmap(c->comm, c->hyp->comm_len);
    c->created = false;
    c->comm = NULL;
}

/* >>registers --------------------------------------------------------------------- */

#define NVMM__EACH_SEG(X)                                                                          \
    X(NVMM__ES, es)                                                                                \
    X(NVMM__CS, cs)                                                                                \
    X(NVMM__SS, ss)                                                                                \
    X(NVMM__DS, ds)                                                                                \
    X(NVMM__FS, fs)                                                                                \
    X(NVMM__GS, gs)                                                                                \
    X(NVMM__GDT, gdt)                                                                              \
    X(NVMM__IDT, idt)                                                                              \
    X(NVMM__LDT, ldt)                                                                              \
    X(NVMM__TR, tr)
#define NVMM__EACH_REG(X)                                                                          \
    X(gpr[NVMM__RIP], rip)                                                                         \
    X(gpr[NVMM__RFLAGS], rflags)                                                                   \
    X(cr[NVMM__CR0], cr0)                                                                          \
    X(cr[NVMM__CR2], cr2)                                                                          \
    X(cr[NVMM__CR3], cr3)                                                                          \
    X(cr[NVMM__CR4], cr4)                                                                          \
    X(msr[NVMM__EFER], efer)

static struct vmm_x86_seg nvmm__seg_in(const struct nvmm__seg *s)
{
    return (struct vmm_x86_seg){.base = s->base,
                                .limit = s->limit,
                                .selector = s->selector,
                                .attr = (uint16_t)((s->attrib & 0xff) | (s->attrib & 0xf00) << 4)};
}

static struct nvmm__seg nvmm__seg_out(const struct vmm_x86_seg *v)
{
    return (struct nvmm__seg){.base = v->base,
                              .limit = v->limit,
                              .selector = v->selector,
                              .attrib = (uint16_t)((v->attr & 0xff) | (v->attr >> 4 & 0xf00))};
}

VMM_DEF int hyp_get_regs(struct hyp_cpu *c, struct vmm_regs *regs)
{
    const struct nvmm__state *s = &c->comm->state;
    int err = nvmm__get(c, NVMM__REGS);

    if (err)
        return err;
    memset(regs, 0, sizeof *regs);
    memcpy(regs->gpr, s->gpr, sizeof regs->gpr);
#define X(index, name) regs->name = nvmm__seg_in(&s->seg[index]);
    NVMM__EACH_SEG(X)
#undef X
#define X(theirs, ours) regs->ours = s->theirs;
    NVMM__EACH_REG(X)
#undef X
    regs->gdt.attr = regs->gdt.selector = regs->idt.attr = regs->idt.selector = 0;
    return 0;
}

/* Where an instruction stands that was not finished, it may be begun anew elsewhere. MSRs go with the
   TSC, which would lose what passes until the next run: so only if EFER is another. */
VMM_DEF int hyp_set_regs(struct hyp_cpu *c, const struct vmm_regs *regs)
{
    struct nvmm__state *s = &c->comm->state;
    int err = nvmm__get(c, NVMM__REGS);
    bool msrs;

    if (err)
        return err;
    msrs = s->msr[NVMM__EFER] != regs->efer;
    if (c->todo == NVMM__EMULATION || regs->rip != s->gpr[NVMM__RIP])
        c->todo = NVMM__NOTHING;
    memcpy(s->gpr, regs->gpr, sizeof regs->gpr);
#define X(index, name) s->seg[index] = nvmm__seg_out(&regs->name);
    NVMM__EACH_SEG(X)
#undef X
#define X(theirs, ours) s->theirs = regs->ours;
    NVMM__EACH_REG(X)
#undef X
    nvmm__set(c, NVMM__SEGS | NVMM__GPRS | NVMM__CRS | (msrs ? NVMM__MSRS : 0));
    c->rflags = regs->rflags;
    return 0;
}

VMM_DEF int hyp_get_fpu(struct hyp_cpu *c, struct vmm_fpu *fpu)
{
    const struct nvmm__fpu *f = &c->comm->state.fpu;
    int err = nvmm__get(c, NVMM__FPU);

    if (err)
        return err;
    *fpu = (struct vmm_fpu){.fip = f->ip,
                            .fdp = f->dp,
                            .mxcsr = f->mxcsr,
                            .fcw = f->cw,
                            .fsw = f->sw,
                            .fop = f->opcode,
                            .ftw = f->tw};
    memcpy(fpu->st, f->st, sizeof f->st);
    memcpy(fpu->xmm, f->xmm, sizeof f->xmm);
    return 0;
}

VMM_DEF int hyp_set_fpu(struct hyp_cpu *c, const struct vmm_fpu *fpu)
{
    struct nvmm__fpu *f = &c->comm->state.fpu;
    int err = nvmm__get(c, NVMM__FPU); /* the mask of MXCSR stays */

    if (err)
        return err;
    f->ip = fpu->fip;
    f->dp = fpu->fdp;
    f->mxcsr = fpu->mxcsr;
    f->cw = fpu->fcw;
    f->sw = fpu->fsw;
    f->opcode = fpu->fop;
    f->tw = fpu->ftw;
    memcpy(f->st, fpu->st, sizeof f->st);
    memcpy(f->xmm, fpu->xmm, sizeof f->xmm);
    nvmm__set(c, NVMM__FPU);
    return 0;
}

/* >>exits: NVMM comes out before the instruction is carried out. 0: back into the guest; 1: *e says
   what is to be done ---------------------------------------------------------------------------- */

static int nvmm__tell(struct vmm_exit *e, enum vmm_exit_kind kind)
{
    e->kind = kind;
    return 1;
}

/* Whoever kicked until now is heard by this. */
static int nvmm__again(struct hyp_cpu *c, struct vmm_exit *e)
{
    __atomic_store_n(&c->kicked, false, __ATOMIC_SEQ_CST);
    if (c->hyp->version == 2)
        __atomic_store_n(&c->comm->stop, 0, __ATOMIC_SEQ_CST);
    return nvmm__tell(e, VMM_EXIT_AGAIN);
}

static int nvmm__fault(struct hyp_cpu *c, struct vmm_exit *e, const char *why, uint64_t code)
{
    struct vmm_regs regs;

    e->why = why;
    e->code = code;
    e->data = c->insn;
    e->size = hyp_get_regs(c, &regs) ? 0 : x86_fetch(&c->hyp->ram, &c->hyp->rom, &regs, c->insn);
    return nvmm__tell(e, VMM_EXIT_FAULT);
}

static int nvmm__exit_access(struct hyp_cpu *c, struct vmm_exit *e)
{
    struct x86_access *a = &c->emul.access;

    c->todo = NVMM__EMULATION;
    e->write = a->write;
    e->addr = a->gpa;
    e->size = a->size;
    e->count = 1;
    e->data = a->data;
    return nvmm__tell(e, c->emul.is_port ? VMM_EXIT_PIO : VMM_EXIT_MMIO);
}

/* Gives the vCPU what an instruction made of its registers: general ones, and CR2 at a page fault. */
static int nvmm__write_back(struct hyp_cpu *c)
{
    struct nvmm__state *s = &c->comm->state;
    int err = nvmm__get(c, NVMM__CRS);

    if (err)
        return err;
    memcpy(s->gpr, c->regs.gpr, sizeof c->regs.gpr);
    s->gpr[NVMM__RIP] = c->regs.rip;
    s->gpr[NVMM__RFLAGS] = c->regs.rflags;
    nvmm__set(c, NVMM__GPRS);
    if (s->cr[NVMM__CR2] != c->regs.cr2) {
        s->cr[NVMM__CR2] = c->regs.cr2;
        nvmm__set(c, NVMM__CRS);
    }
    return 0;
}

static int nvmm__stepped(struct hyp_cpu *c, struct vmm_exit *e, enum x86_step step)
{
    int err;

    if (step == X86_ACCESS)
        return nvmm__exit_access(c, e);
    c->todo = NVMM__NOTHING;
    if (step == X86_UNKNOWN)
        return nvmm__fault(c, e, "the guest accesses a device by an instruction that is not known",
                           c->run.exit.reason);
    err = nvmm__write_back(c);
    c->retired |= step == X86_DONE;
    if (!err && step == X86_FAULT)
        nvmm__event(c, NVMM__EXCEPTION, c->emul.vector, c->emul.has_error ? c->emul.error : 0);
    return err;
}

/* Intel's processors, and older ones of AMD's, do not say which bytes the instruction has. */
static int nvmm__emulate(struct hyp_cpu *c, struct vmm_exit *e, const uint8_t *bytes, unsigned len)
{
    int err = hyp_get_regs(c, &c->regs);

    if (err)
        return err;
    return nvmm__stepped(
        c, e,
        x86_emul_begin(&c->emul, &c->hyp->ram, &c->regs, bytes, len <= X86_INSN_MAX ? len : 0));
}

/* RAM comes out only when the host cannot give the guest its page. What happens while an event is
   delivered is not the instruction's doing. */
static int nvmm__exit_memory(struct hyp_cpu *c, struct vmm_exit *e)
{
    const struct nvmm__exit *x = &c->run.exit;

    if (vmm_at(&c->hyp->ram, x->u.mem.gpa, 1))
        return nvmm__fault(c, e, "NVMM has no memory for the guest's RAM, at", x->u.mem.gpa);
    if (c->intr & NVMM__PENDING)
        return nvmm__fault(c, e, "the guest's interrupt table or stack is a device, at",
                           x->u.mem.gpa);
    return nvmm__emulate(c, e, x->u.mem.inst_bytes, x->u.mem.inst_len);
}

/* String instructions move memory, and are carried out here; the others are told whole. */
static int nvmm__exit_io(struct hyp_cpu *c, struct vmm_exit *e)
{
    const struct nvmm__exit *x = &c->run.exit;
    unsigned size = x->u.io.operand_size;
    int err;

    if (x->u.io.str)
        return nvmm__emulate(c, e, NULL, 0);
    if (size != 1 && size != 2 && size != 4)
        return nvmm__fault(c, e, "NVMM tells of a port access of an impossible width", size);
    err = nvmm__get(c, NVMM__GPRS);
    if (err)
        return err;
    memset(c->data, 0, sizeof c->data);
    e->write = !x->u.io.in;
    e->addr = x->u.io.port;
    e->size = c->size = size;
    e->count = 1;
    e->data = c->data;
    c->npc = x->u.io.npc;
    if (e->write)
        memcpy(c->data, &c->comm->state.gpr[NVMM__RAX], size);
    else
        c->todo = NVMM__IN;
    err = e->write ? nvmm__advance(c, c->npc) : 0;
    return err ? err : nvmm__tell(e, VMM_EXIT_PIO);
}

/* Ends an access to an MSR: with a value, or with an exception. */
static int nvmm__end_msr(struct hyp_cpu *c, bool refused)
{
    struct nvmm__state *s = &c->comm->state;
    int err = nvmm__get(c, NVMM__GPRS);

    if (err)
        return err;
    if (refused) {
        nvmm__event(c, NVMM__EXCEPTION, X86_GP, 0);
        return 0;
    }
    if (c->todo == NVMM__RDMSR) {
        s->gpr[NVMM__RAX] = vmm_get32(c->data);
        s->gpr[NVMM__RDX] = vmm_get32(c->data + 4);
    }
    return nvmm__advance(c, c->npc);
}

/* Those that are only remembered are answered at once. */
static int nvmm__exit_msr(struct hyp_cpu *c, struct vmm_exit *e, uint32_t msr, uint64_t val)
{
    bool write = c->todo == NVMM__WRMSR;
    int known = write ? x86_msr_write(&c->msrs, msr, val) : x86_msr_read(&c->msrs, msr, &val);

    vmm_put64(c->data, val);
    if (known != -ENOENT) {
        int err = nvmm__end_msr(c, known != 0);
        c->todo = NVMM__NOTHING;
        return err;
    }
    c->refused = false;
    e->write = write;
    e->addr = msr;
    e->size = sizeof c->data;
    e->count = 1;
    e->data = c->data;
    return nvmm__tell(e, VMM_EXIT_MSR);
}

static int nvmm__exit_rdmsr(struct hyp_cpu *c, struct vmm_exit *e)
{
    c->todo = NVMM__RDMSR;
    c->npc = c->run.exit.u.rdmsr.npc;
    return nvmm__exit_msr(c, e, c->run.exit.u.rdmsr.msr, 0);
}

static int nvmm__exit_wrmsr(struct hyp_cpu *c, struct vmm_exit *e)
{
    c->todo = NVMM__WRMSR;
    c->npc = c->run.exit.u.wrmsr.npc;
    return nvmm__exit_msr(c, e, c->run.exit.u.wrmsr.msr, c->run.exit.u.wrmsr.val);
}

/* CPUID says that there is no MONITOR. */
static int nvmm__exit_undefined(struct hyp_cpu *c)
{
    nvmm__event(c, NVMM__EXCEPTION, X86_UD, 0);
    return 0;
}

/* >>debug: NVMM delivers exceptions to the guest, whoever debugs it. So while #DB or #BP are wanted,
   the gate of the guest's interrupt table leads to where they come out, see x86_gate_snare, and what
   the delivery did is taken back. The guest's handler stays as it is, and gets what is not the
   debugger's. Tables are looked at whenever a CPU enters the guest: it may write one anew, or load
   another; what it takes before its next exit is its own. What NVMM carries out itself, such as
   CPUID, is one step with what comes next. ------------------------------------------------------ */

static const uint8_t nvmm__vectors[2] = {X86_DB, X86_BP};
enum { NVMM__TF = 0x100 };

static bool nvmm__wants(const struct vmm_debug *d, uint8_t vector)
{
    bool slots = false;

    for (unsigned i = 0; i < VMM_BREAKS; i++)
        slots |= d->slot[i].len != 0;
    return vector == X86_BP ? d->traps : d->step || slots;
}

/* With the lock held, as the next: what there is for a gate, or NULL. */
static struct nvmm__hook *nvmm__hook_of(struct hyp *h, uint64_t gpa, uint8_t vector)
{
    for (unsigned i = 0; i < h->nhooks; i++)
        if (h->hook[i].gpa == gpa && h->hook[i].vector == vector)
            return &h->hook[i];
    return NULL;
}

static struct nvmm__hook *nvmm__spare_hook(struct hyp *h)
{
    for (unsigned i = 0; i < h->nhooks; i++)
        if (!h->hook[i].set)
            return &h->hook[i];
    if (h->nhooks == NVMM_HOOKS)
        return NULL;
    return &h->hook[__atomic_fetch_add(&h->nhooks, 1, __ATOMIC_SEQ_CST)];
}

/* In one piece: other CPUs take exceptions meanwhile. */
static void nvmm__lead(struct hyp *h, uint64_t gpa, uint64_t offset)
{
    uint16_t *low = (uint16_t *)vmm_at(&h->ram, gpa, 2);

    if (low)
        __atomic_store_n(low, (uint16_t)offset, __ATOMIC_SEQ_CST);
}

/* Where a gate leads by the guest's will, which may have copied one that was in our hands. */
static uint64_t nvmm__handler(const struct hyp *h, const struct x86_gate *g, uint8_t vector)
{
    for (unsigned i = 0; i < h->nhooks; i++) {
        const struct nvmm__hook *k = &h->hook[i];
        if (k->vector == vector && k->selector == g->selector && k->snare == g->offset)
            return k->handler;
    }
    return g->offset;
}

static bool nvmm__plant(struct hyp *h, const struct vmm_regs *r, const struct x86_gate *g,
                        uint8_t vector)
{
    struct nvmm__hook *k = nvmm__hook_of(h, g->gpa, vector);
    struct x86_gate real = *g;
    uint64_t snare;

    if (k && k->set && k->snare == g->offset && k->selector == g->selector)
        return true;
    real.offset = nvmm__handler(h, g, vector);
    if (k)
        k->set = false;
    else
        k = nvmm__spare_hook(h);
    if (!k || x86_gate_snare(&h->ram, &h->rom, r, &real, vector == X86_BP, &snare))
        return false;
    *k = (struct nvmm__hook){.gpa = g->gpa,
                             .handler = real.offset,
                             .snare = snare,
                             .selector = g->selector,
                             .vector = vector,
                             .word = g->word,
                             .set = true};
    nvmm__lead(h, g->gpa, snare);
    return true;
}

/* From now on the exception comes out. False: not with the guest's present table. */
static bool nvmm__hook(struct hyp_cpu *c, const struct vmm_regs *r, uint8_t vector)
{
    struct hyp *h = c->hyp;
    struct x86_gate gate;
    bool planted;

    if (x86_gate_find(&h->ram, r, vector, &gate))
        return false;
    pthread_mutex_lock(&h->lock);
    planted = nvmm__plant(h, r, &gate, vector);
    pthread_mutex_unlock(&h->lock);
    return planted;
}

/* With the lock held: gates lead where they did, unless the guest has something else there by now.
   What there was to know of them is kept: a CPU may have gone through one right now. */
static void nvmm__unhook(struct hyp *h, uint8_t vector)
{
    for (unsigned i = 0; i < h->nhooks; i++) {
        struct nvmm__hook *k = &h->hook[i];
        const void *d = vmm_at(&h->ram, k->gpa, 4);
        if (!k->set || k->vector != vector)
            continue;
        if (d && vmm_get16(d) == (uint16_t)k->snare &&
            vmm_get16((const uint8_t *)d + 2) == k->selector)
            nvmm__lead(h, k->gpa, k->handler);
        k->set = false;
    }
}

/* While a debugger has the debug registers, the guest's stand aside. What differs from what was put
   there is what the guest has put there since. DR6 is common: causes are told and cleared by whose
   they are. */
static int nvmm__swap_drs(struct hyp_cpu *c, const uint64_t *dr)
{
    uint64_t *now = c->comm->state.dr;
    int err = nvmm__get(c, NVMM__DRS);
    bool differ = false;

    for (unsigned i = 0; i < 6 && !err; i++) {
        if (i == NVMM__DR6)
            continue;
        if (!c->lent || now[i] != c->dr[i])
            c->guest_dr[i] = now[i];
        c->dr[i] = dr ? dr[i] : c->guest_dr[i];
        differ |= now[i] != c->dr[i];
        now[i] = c->dr[i];
    }
    if (differ)
        nvmm__set(c, NVMM__DRS);
    return err;
}

/* `armed`: the guest's table is such that they do no harm. */
static int nvmm__lend_drs(struct hyp_cpu *c, bool armed)
{
    uint64_t dr[6] = {0};
    int err;

    for (unsigned i = 0; i < VMM_BREAKS; i++)
        dr[i] = c->debug.slot[i].addr;
    dr[NVMM__DR7] = armed ? vmm_x86_dr7(&c->debug) : 0x400;
    err = nvmm__swap_drs(c, dr);
    c->lent |= !err;
    return err;
}

static int nvmm__return_drs(struct hyp_cpu *c)
{
    int err = c->lent ? nvmm__swap_drs(c, NULL) : 0;

    c->lent = false;
    return err;
}

VMM_DEF int hyp_debug(struct hyp_cpu *c, const struct vmm_debug *d)
{
    struct hyp *h = c->hyp;
    struct vmm_regs r;
    int err = 0;

    pthread_mutex_lock(&h->lock);
    for (unsigned i = 0; i < 2; i++) {
        bool was = nvmm__wants(&c->debug, nvmm__vectors[i]);
        h->nwanted[i] += nvmm__wants(d, nvmm__vectors[i]);
        h->nwanted[i] -= was;
        if (was && !h->nwanted[i])
            nvmm__unhook(h, nvmm__vectors[i]);
    }
    pthread_mutex_unlock(&h->lock);
    c->debug = *d;
    c->retired = c->tf = false;
    if (!nvmm__wants(d, X86_DB))
        return nvmm__return_drs(c);
    if (d->step)
        err = hyp_get_regs(c, &r);
    if (d->step && !err)
        c->step_at = r.cs.base + r.rip;
    return err;
}

/* The guest's handler has not begun yet. */
VMM_DEF int hyp_debug_pass(struct hyp_cpu *c)
{
    return hyp_set_regs(c, &c->delivered);
}

static int nvmm__tell_debug(struct hyp_cpu *c, struct vmm_exit *e, const struct vmm_regs *r,
                            uint64_t code)
{
    c->retired = false;
    e->code = code;
    e->addr = r->cs.base + r->rip;
    return nvmm__tell(e, VMM_EXIT_DEBUG);
}

/* The trap flag is set where the step began, also when something else came first, but not for what
   that does. Intel's processors do not take it together with the shadow of STI or MOV SS, which holds
   off interrupts, and there are none now. */
static void nvmm__set_tf(struct hyp_cpu *c, const struct vmm_regs *r)
{
    if (r->rflags & NVMM__TF || r->cs.base + r->rip != c->step_at)
        return;
    c->tf = true;
    c->comm->state.gpr[NVMM__RFLAGS] |= NVMM__TF;
    nvmm__set(c, NVMM__GPRS);
    if (!(c->intr & NVMM__SHADOW))
        return;
    c->intr &= ~(uint64_t)NVMM__SHADOW;
    c->comm->state.intr = c->intr & ~(uint64_t)NVMM__PENDING;
    nvmm__set(c, NVMM__INTR);
}

static int nvmm__clear_tf(struct hyp_cpu *c)
{
    uint64_t *rflags = &c->comm->state.gpr[NVMM__RFLAGS];
    int err = c->tf ? nvmm__get(c, NVMM__GPRS) : 0;

    if (err || !c->tf || !(*rflags & NVMM__TF))
        return err;
    *rflags &= ~(uint64_t)NVMM__TF;
    nvmm__set(c, NVMM__GPRS);
    return 0;
}

/* Before the guest is entered. 1: there is something to tell instead. */
static int nvmm__debug_enter(struct hyp_cpu *c, struct vmm_exit *e)
{
    bool db = nvmm__wants(&c->debug, X86_DB), hooked;
    struct vmm_regs r;
    int err;

    if (!db && !c->debug.traps)
        return 0;
    err = hyp_get_regs(c, &r);
    if (err)
        return err;
    if (c->debug.step && c->retired)
        return nvmm__tell_debug(c, e, &r, VMM_DEBUG_STEP);
    if (c->debug.traps)
        (void)nvmm__hook(c, &r, X86_BP);
    if (!db)
        return 0;
    hooked = nvmm__hook(c, &r, X86_DB);
    err = nvmm__lend_drs(c, hooked);
    if (err || !c->debug.step)
        return err;
    if (!hooked)
        return nvmm__tell_debug(c, e, &r, VMM_DEBUG_UNABLE);
    nvmm__set_tf(c, &r);
    return 0;
}

/* Has this CPU just gone through a gate of ours? Where nobody debugs any more, one may have been on
   its way when that ended, and has come out by an access to a port then. */
static bool nvmm__caught(struct hyp_cpu *c, struct vmm_regs *r, struct nvmm__hook *hook)
{
    struct hyp *h = c->hyp;
    unsigned n = __atomic_load_n(&h->nhooks, __ATOMIC_SEQ_CST);
    struct x86_gate gate;
    bool found = false;

    if (!n ||
        (c->run.exit.reason != NVMM__EXIT_IO && !c->debug.traps &&
         !nvmm__wants(&c->debug, X86_DB)) ||
        hyp_get_regs(c, r))
        return false;
    pthread_mutex_lock(&h->lock);
    for (unsigned i = 0; i < 2 && !found; i++) {
        const struct nvmm__hook *k = NULL;
        if (!x86_gate_find(&h->ram, r, nvmm__vectors[i], &gate))
            k = nvmm__hook_of(h, gate.gpa, nvmm__vectors[i]);
        found = k && k->snare == r->rip && !((k->selector ^ r->cs.selector) & 0xfffc);
        if (found)
            *hook = *k;
    }
    pthread_mutex_unlock(&h->lock);
    return found;
}

/* Back to the breakpoint instruction, if it is the short one, which debuggers use. */
static bool nvmm__at_int3(struct hyp_cpu *c, struct vmm_regs *r)
{
    uint8_t insn = 0;

    r->rip--;
    return dbg_x86_read(&c->hyp->ram, r, r->cs.base + r->rip, &insn, 1) == 1 && insn == 0xcc;
}

static int nvmm__causes(struct hyp_cpu *c, uint64_t *code)
{
    uint64_t *dr6 = &c->comm->state.dr[NVMM__DR6];
    int err = nvmm__get(c, NVMM__DRS);

    if (err)
        return err;
    *code = vmm_x86_debug_why(&c->debug, *dr6);
    *dr6 &= ~((*code & VMM_DEBUG_SLOTS) | (*code & VMM_DEBUG_STEP ? VMM_X86_DR6_BS : 0u));
    nvmm__set(c, NVMM__DRS);
    return 0;
}

static int nvmm__exit_debug(struct hyp_cpu *c, struct vmm_exit *e, struct vmm_regs *r,
                            const struct nvmm__hook *hook)
{
    uint64_t code = VMM_DEBUG_TRAP;
    int err;

    c->delivered = *r;
    c->delivered.rip = hook->handler;
    if (!nvmm__wants(&c->debug, hook->vector) || x86_undeliver(&c->hyp->ram, r, hook->word) ||
        (hook->vector == X86_BP && !nvmm__at_int3(c, r)))
        return hyp_debug_pass(c);
    if (c->tf)
        r->rflags &= ~(uint64_t)NVMM__TF;
    err = hyp_set_regs(c, r);
    if (!err && hook->vector == X86_DB)
        err = nvmm__causes(c, &code);
    return err ? err : nvmm__tell_debug(c, e, r, code);
}

/* >>run --------------------------------------------------------------------------- */

static int nvmm__exit(struct hyp_cpu *c, struct vmm_exit *e)
{
    struct nvmm__hook hook = {0};
    struct vmm_regs r;

    if (nvmm__caught(c, &r, &hook))
        return nvmm__exit_debug(c, e, &r, &hook);
    switch (c->run.exit.reason) {
    case NVMM__EXIT_MEMORY:
        return nvmm__exit_memory(c, e);
    case NVMM__EXIT_IO:
        return nvmm__exit_io(c, e);
    case NVMM__EXIT_RDMSR:
        return nvmm__exit_rdmsr(c, e);
    case NVMM__EXIT_WRMSR:
        return nvmm__exit_wrmsr(c, e);
    case NVMM__EXIT_HALTED:
        return nvmm__tell(e, VMM_EXIT_HALT);
    case NVMM__EXIT_SHUTDOWN:
        return nvmm__tell(e, VMM_EXIT_SHUTDOWN);
    case NVMM__EXIT_MONITOR:
    case NVMM__EXIT_MWAIT:
        return nvmm__exit_undefined(c);
    case NVMM__EXIT_CPUID: /* with NVMM's answer in the registers */
        return nvmm__advance(c, c->run.exit.u.insn.npc);
    case NVMM__EXIT_NONE:
    case NVMM__EXIT_STOPPED:
    case NVMM__EXIT_INT_READY:
    case NVMM__EXIT_NMI_READY:
    case NVMM__EXIT_TPR:
        return nvmm__again(c, e);
    case NVMM__EXIT_INVALID:
        return nvmm__fault(c, e, "NVMM cannot run the guest; the processor's code is",
                           c->run.exit.u.inv.hwcode);
    default:
        return nvmm__fault(c, e, "NVMM exit of an unexpected kind", c->run.exit.reason);
    }
}

/* What the last exit left to do, once the caller has done its part. */
static int nvmm__complete(struct hyp_cpu *c, struct vmm_exit *e)
{
    uint64_t *rax = &c->comm->state.gpr[NVMM__RAX];
    int err = 0;

    switch (c->todo) {
    case NVMM__NOTHING:
        break;
    case NVMM__IN:
        err = nvmm__advance(c, c->npc);
        if (c->size == 4)
            *rax = 0; /* as every write of 32 bits */
        memcpy(rax, c->data, c->size);
        break;
    case NVMM__RDMSR:
    case NVMM__WRMSR:
        err = nvmm__end_msr(c, c->refused);
        break;
    case NVMM__EMULATION:
        return nvmm__stepped(c, e, x86_emul_next(&c->emul));
    }
    c->todo = NVMM__NOTHING;
    return err;
}

/* All vCPUs' TSCs shall count from when the VM was opened; NVMM's count from their creation. */
static int nvmm__first_run(struct hyp_cpu *c)
{
    int err = nvmm__get(c, NVMM__MSRS);

    if (err)
        return err;
    c->comm->state.msr[NVMM__TSC] = __builtin_ia32_rdtsc() - c->hyp->tsc;
    nvmm__set(c, NVMM__MSRS);
    c->entered = true;
    return 0;
}

/* Which windows shall be told. A part moves as a whole; what else is in this one the last exit has
   told. */
static void nvmm__watch(struct hyp_cpu *c, uint64_t windows)
{
    const uint64_t all = NVMM__INT_WINDOW | NVMM__NMI_WINDOW;

    if ((c->intr & all) == windows)
        return;
    c->intr = (c->intr & ~all) | windows;
    c->comm->state.intr = c->intr & ~(uint64_t)NVMM__PENDING;
    nvmm__set(c, NVMM__INTR);
}

/* One event a run. NVMM holds the next non-maskable interrupt back until the handler of the last one
   is over, and tells then; and while something else has the run, it shall tell when that is over. */
static void nvmm__add_nmi(struct hyp_cpu *c)
{
    if (!c->nmi || c->intr & NVMM__NMI_WINDOW || c->debug.step)
        return;
    if (c->comm->event_commit || c->intr & NVMM__PENDING) {
        nvmm__watch(c, (c->intr & NVMM__INT_WINDOW) | NVMM__NMI_WINDOW);
        return;
    }
    c->nmi = false;
    nvmm__event(c, NVMM__INTERRUPT, 2, 0);
}

/* Into the guest. 1: a kick was first. The number of the machine is what a kick spoils, see
   hyp_kick. */
static int nvmm__enter(struct hyp_cpu *c, struct vmm_exit *e)
{
    const uint32_t machid = c->hyp->machid;
    int err;

    if (c->window)
        nvmm__watch(c, (c->intr & NVMM__NMI_WINDOW) | NVMM__INT_WINDOW);
    nvmm__add_nmi(c);
    __atomic_store_n(&c->run.machid, machid, __ATOMIC_SEQ_CST);
    if (__atomic_exchange_n(&c->kicked, false, __ATOMIC_SEQ_CST))
        return nvmm__again(c, e);
    err = nvmm__ioctl(c->hyp->fd, NVMM__VCPU_RUN, &c->run);
    if (err == -EINTR || (err && __atomic_load_n(&c->run.machid, __ATOMIC_SEQ_CST) != machid))
        return nvmm__again(c, e);
    if (err)
        return vmm_err(c->hyp->log, err, "NVMM cannot run CPU %u: %s", c->id, strerror(-err));
    c->rflags = c->run.exit.state.rflags;
    c->cr8 = c->run.exit.state.cr8;
    c->intr = c->run.exit.state.intr;
    return 0;
}

VMM_DEF int hyp_run(struct hyp_cpu *c, struct vmm_exit *e)
{
    int ret = nvmm__complete(c, e), err;

    if (!ret && !c->entered)
        ret = nvmm__first_run(c);
    while (!ret) {
        if (c->window && hyp_ready(c))
            ret = nvmm__again(c, e);
        else
            ret = nvmm__debug_enter(c, e);
        if (!ret) {
            ret = nvmm__enter(c, e);
            err = nvmm__clear_tf(c);
            ret = err ? err : ret;
        }
        if (!ret)
            ret = nvmm__exit(c, e);
    }
    return ret < 0 ? ret : 0;
}

/* A signal ends a run that is under way, but is forgotten when it comes before. So something is left
   behind first that ends the next run: in version 2 the flag for it, which the run takes back. In
   the others the argument of the ioctl is made invalid. Then it either is copied by the kernel before
   that, and the signal finds it inside; or after that, and the ioctl fails. Since it is copied back
   in the end, and may undo what was done here, there is a flag of our own too, which nvmm__enter
   looks at after it has made the argument valid and before it gives it to the kernel: the order of
   both is the other way round here. */
VMM_DEF void hyp_kick(struct hyp_cpu *c)
{
    pthread_t thread;

    memcpy(&thread, &c->thread, sizeof thread);
    if (c->hyp->version == 2) {
        __atomic_store_n(&c->comm->stop, 1, __ATOMIC_SEQ_CST);
    } else {
        __atomic_store_n(&c->kicked, true, __ATOMIC_SEQ_CST);
        __atomic_store_n(&c->run.machid, ~0u, __ATOMIC_SEQ_CST);
    }
    (void)pthread_kill(thread, NVMM_KICK_SIGNAL);
}

/* >>inject: NVMM delivers whatever it is given, whether the guest can take it or not ------------- */

VMM_DEF bool hyp_ready(const struct hyp_cpu *c)
{
    bool nmi_first = c->nmi && !(c->intr & NVMM__NMI_WINDOW);
    bool fault = c->todo == NVMM__EMULATION || (c->todo != NVMM__NOTHING && c->refused);

    return c->rflags & 0x200 && !(c->intr & (NVMM__SHADOW | NVMM__PENDING)) &&
           !c->comm->event_commit && !nmi_first && !fault;
}

VMM_DEF void hyp_want_window(struct hyp_cpu *c, bool want)
{
    c->window = want;
}

VMM_DEF int hyp_inject(struct hyp_cpu *c, uint8_t vector)
{
    if (!hyp_ready(c))
        return vmm_err(c->hyp->log, -EBUSY, "CPU %u cannot take interrupt %u now", c->id, vector);
    nvmm__watch(c, c->intr & NVMM__NMI_WINDOW); /* there is nothing more to wait for */
    nvmm__event(c, NVMM__INTERRUPT, vector, 0);
    return 0;
}

VMM_DEF int hyp_inject_nmi(struct hyp_cpu *c)
{
    c->nmi = true;
    return 0;
}

VMM_DEF int hyp_uninject(struct hyp_cpu *c)
{
    c->nmi = c->comm->event_commit = false;
    return 0;
}

VMM_DEF unsigned hyp_cr8(const struct hyp_cpu *c)
{
    return (unsigned)c->cr8;
}

VMM_DEF void hyp_set_cr8(struct hyp_cpu *c, unsigned cr8)
{
    if (cr8 == c->cr8 || nvmm__get(c, NVMM__CRS))
        return;
    c->cr8 = c->comm->state.cr[NVMM__CR8] = cr8;
    nvmm__set(c, NVMM__CRS);
}

VMM_DEF void hyp_msr_refuse(struct hyp_cpu *c)
{
    c->refused = true;
}

VMM_DEF uint64_t hyp_tsc(struct hyp_cpu *c, uint64_t *hz)
{
    *hz = nvmm__get(c, NVMM__MSRS) ? 0 : c->hyp->tsc_hz;
    return c->comm->state.msr[NVMM__TSC];
}

/* >>absent: what NVMM does not have ----------------------------------------------- */

VMM_DEF int hyp_window_map(struct hyp *h, uint64_t gpa, uint64_t len, void *hva, unsigned prot)
{
    (void)h, (void)gpa, (void)len, (void)hva, (void)prot;
    return -ENOSYS;
}

VMM_DEF int hyp_window_unmap(struct hyp *h, uint64_t gpa, uint64_t len)
{
    (void)h, (void)gpa, (void)len;
    return -ENOSYS;
}

VMM_DEF int hyp_device_add(struct hyp *h, int fd)
{
    (void)h, (void)fd;
    return -ENOSYS;
}

VMM_DEF void hyp_irq_set(struct hyp *h, unsigned gsi, bool level)
{
    (void)h, (void)gsi, (void)level;
}

VMM_DEF int hyp_irq_bell(struct hyp *h, unsigned gsi, int bell, bool on)
{
    (void)h, (void)gsi, (void)bell, (void)on;
    return -ENOSYS;
}

VMM_DEF int hyp_irq_resample(struct hyp *h, unsigned gsi, int bell, int done, bool on)
{
    (void)h, (void)gsi, (void)bell, (void)done, (void)on;
    return -ENOSYS;
}

VMM_DEF int hyp_msi_line(struct hyp *h, unsigned requester)
{
    (void)h, (void)requester;
    return -ENOSYS;
}

VMM_DEF int hyp_msi_route(struct hyp *h, unsigned gsi, uint64_t addr, uint32_t data)
{
    (void)h, (void)gsi, (void)addr, (void)data;
    return -EINVAL;
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

VMM_DEF int hyp_doorbell(struct hyp *h, const struct vmm_doorbell *where, int bell, bool on)
{
    (void)h, (void)where, (void)bell, (void)on;
    return -ENOSYS;
}

#endif /* HV_NVMM_IMPLEMENTED */
#endif /* VMM_IMPLEMENTATION || HV_NVMM_IMPLEMENTATION */
