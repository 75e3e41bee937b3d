/* hv_kvm.h - the hypervisor contract of vmm.h on Linux's /dev/kvm    MIT licence, see LICENSE

   WHAT IT IS      hyp_open, hyp_run and friends (declared in vmm.h) by KVM ioctls, for x86_64 and
                   arm64. Interrupt controllers and timers are the kernel's, or its LAPICs alone, or
                   none; bells are eventfds, doorbells ioeventfds and interrupts by bell irqfds. It
                   does not place devices, load images or make threads. What differs between the
                   architectures is in the sections >>x86 and >>arm64 at the end.
                   Follows Documentation/virt/kvm/api.rst, x86/cpuid.rst, devices/arm-vgic*.rst and
                   devices/vcpu.rst of the Linux kernel.

   QUICK START     struct hyp h;
                   struct hyp_cpu c;
                   struct hyp_desc desc = {.no_irqchip = true};
                   struct vmm_exit e = {.kind = VMM_EXIT_AGAIN};
                   if (hyp_open(&h, &desc) || hyp_map(&h, 0, ram_size, ram, VMM_READ | VMM_WRITE))
                       return -1;
                   if (hyp_cpu_open(&c, &h, 0) || hyp_set_regs(&c, &regs))
                       return -1;
                   while (e.kind != VMM_EXIT_HALT && hyp_run(&c, &e) == 0)
                       if (e.kind == VMM_EXIT_PIO)
                           vmm_bus_exit(&ports, &e);
                   hyp_cpu_close(&c);
                   hyp_close(&h);

   CONFIGURATION   set everywhere:
                   HYP_MSI_LINES_MAX  lines of hyp_msi_line of one VM; default 3072
                   HYP_WINDOWS_MAX    pieces of devices' memory of one VM; default 128
                   set in the implementing file only:
                   KVM_KICK_SIGNAL    what interrupts a running vCPU thread; default SIGRTMIN
                   KVM_DEVICE         default of hyp_desc.path; "/dev/kvm"

   DEPENDS ON      vmm.h; the implementation on Linux and its headers.

   THREADS         A vCPU belongs to the thread that opened it. hyp_irq_*, hyp_doorbell and
                   hyp_kick: any thread. Everything else before the first hyp_run, or from one
                   thread at a time. On arm64 the vCPUs exist since hyp_open, because interrupts
                   by bell need the GIC, and the GIC needs them all.
   MEMORY          struct hyp and struct hyp_cpu are the caller's; nothing is allocated. Guest
                   memory stays the caller's too and must outlive hyp_close.
   ERRORS          Negative errno; one sentence in desc.log.
   PROCESS         hyp_open installs a handler for KVM_KICK_SIGNAL, which does nothing.
   GUEST TRUST     Exits are passed on as KVM reports them; sizes and counts are the kernel's. */
#if (defined(VMM_IMPLEMENTATION) || defined(HV_KVM_IMPLEMENTATION)) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* sigaction, getgrgid, syscall under -std=c11; before any system header */
#endif
#ifndef HV_KVM_H
#define HV_KVM_H

#define HYP_BACKEND
#include "vmm.h"

#ifndef HYP_MSI_LINES_MAX
#define HYP_MSI_LINES_MAX 3072
#endif
#ifndef HYP_WINDOWS_MAX
#define HYP_WINDOWS_MAX 128
#endif
#if defined(__aarch64__)
#define HYP_GSIS     64  /* SPIs for wires: line n is INTID 32 + n; the v2m frame's follow */
#define HYP_CPUS_MAX 512 /* as many as KVM's GICv3 serves */
#else
#define HYP_GSIS      24  /* pins of the in-kernel IOAPIC */
#define HYP_CPUID_MAX 256 /* CPUID leaves that fit */
#endif
#define HYP_ROUTES_MAX (16 + HYP_GSIS + HYP_MSI_LINES_MAX) /* x86: lines of the PICs on top */

struct hyp {
    const struct vmm_log *log;
    int dev, vm;          /* /dev/kvm and the VM; -1: closed */
    unsigned caps;        /* enum hyp_cap */
    bool any_width;       /* doorbells of len 0 work; they spare VMX the decoding of the write */
    unsigned ncpus;       /* as the CPUID topology tells them */
    unsigned run_len;     /* bytes of a vCPU's shared page(s) */
    struct vmm_mem slots; /* what is mapped, to show the bytes at a fault */
#if defined(__aarch64__)
    int gic, its;             /* devices of KVM; -1: none */
    unsigned gpa_bits;        /* of the VM */
    unsigned features;        /* enum hyp_feature, of every vCPU */
    uint64_t v2m;             /* where the frame for messages to a GICv2 is; 0: none */
    int cpu_fd[HYP_CPUS_MAX]; /* of vCPUs that hyp_cpu_open has not taken; -1: none */
#else
    bool msr_exits;                        /* accesses to the LAPIC's MSRs come out */
    uint64_t cpuid[1 + HYP_CPUID_MAX * 5]; /* struct kvm_cpuid2 with its entries */
#endif
    struct {
        uint64_t gpa, len; /* len 0: free */
    } window[HYP_WINDOWS_MAX]; /* memory of devices, in the slots behind */
    int devices;               /* the kernel's list of them; -1: none yet */
    unsigned nlines;           /* of hyp_msi_line so far */
    uint64_t routes[1 + HYP_ROUTES_MAX * 6]; /* struct kvm_irq_routing with its entries; here and
                                                below nothing is touched before there are any */
    uint32_t requester[HYP_MSI_LINES_MAX];   /* who sends the messages of each line */
};

struct hyp_cpu {
    struct hyp *hyp;
    void *run; /* struct kvm_run */
    int fd;
    int tid; /* of the thread that runs it, for kicks */
    unsigned id;
    unsigned tsc_khz;       /* 0: unknown */
    uint8_t insn[16];       /* bytes at the instruction pointer of a fault */
    struct vmm_debug debug; /* what hyp_debug asked for */
};

#endif /* HV_KVM_H */

#if defined(VMM_IMPLEMENTATION) || defined(HV_KVM_IMPLEMENTATION)
#ifndef HV_KVM_IMPLEMENTED
#define HV_KVM_IMPLEMENTED

#include <fcntl.h>
#include <grp.h>
#include <linux/kvm.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#if !defined(__aarch64__) && !defined(__x86_64__)
#error "hv_kvm.h knows x86_64 and arm64"
#endif

#ifndef KVM_KICK_SIGNAL
#define KVM_KICK_SIGNAL SIGRTMIN
#endif
#ifndef KVM_DEVICE
#define KVM_DEVICE "/dev/kvm"
#endif

/* ioctl that is not put off by a signal; -errno on failure. */
static int kvm__ioctl(int fd, unsigned long request, void *arg)
{
    int ret;

    do
        ret = ioctl(fd, (int)request, arg);
    while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : ret;
}

/* The same for requests whose argument is a number. */
static int kvm__number(int fd, unsigned long request, unsigned long arg)
{
    return kvm__ioctl(fd, request, (void *)arg);
}

/* What KVM says about a capability: 0 is no, and many are numbers. */
static int kvm__cap(const struct hyp *h, unsigned long cap)
{
    int ret = kvm__number(h->dev, KVM_CHECK_EXTENSION, cap);

    return ret < 0 ? 0 : ret;
}

/* >>architecture: what the sections >>x86 and >>arm64 bring, each in its own way --- */
static const char *const kvm__absent; /* why there may be no /dev/kvm */
static unsigned kvm__find_caps(const struct hyp *h, const struct hyp_desc *desc);
static bool kvm__is_old(const struct hyp *h);
static unsigned long kvm__vm_type(struct hyp *h, const struct hyp_desc *desc);
/* Of the new VM: its chips, and what vCPUs will need. */
static int kvm__arch_open(struct hyp *h, const struct hyp_desc *desc);
static void kvm__arch_close(struct hyp *h);
/* A descriptor of the vCPU, and its features once its shared pages are mapped. */
static int kvm__arch_create_cpu(struct hyp_cpu *c);
static int kvm__arch_init_cpu(struct hyp_cpu *c);
/* The table of routes that a VM has at first, and the entry of a message; -EINVAL: it cannot be. */
static void kvm__first_routes(struct kvm_irq_routing *table);
static int kvm__route_message(const struct hyp *h, struct kvm_irq_routing_entry *e, uint64_t addr,
                              uint32_t data);
/* An exit that only this architecture has; false: nobody knows it. */
static bool kvm__arch_exit(struct hyp_cpu *c, struct vmm_exit *e);
/* The guest's bytes at its instruction pointer, for a human to disassemble. */
static unsigned kvm__fetch_insn(struct hyp_cpu *c);

/* >>open -------------------------------------------------------------------------- */

/* Why a device does not open, with what to do about it. */
static int kvm__open_failed(const struct hyp *h, const char *path, int err)
{
    struct stat st;
    struct group *gr;

    if (err == -EACCES || err == -EPERM) {
        gr = stat(path, &st) == 0 ? getgrgid(st.st_gid) : NULL;
        if (gr && st.st_gid == 0)
            return vmm_err(
                h->log, -EACCES,
                "no permission to open %s, which is the group %s's alone: run as root, or "
                "'chgrp kvm' and 'chmod 660' it and add your user to the group 'kvm'",
                path, gr->gr_name);
        return vmm_err(h->log, -EACCES,
                       "no permission to open %s: add your user to the group '%s' and log in again",
                       path, gr ? gr->gr_name : "kvm");
    }
    if (err == -ENOENT || err == -ENXIO || err == -ENODEV)
        return vmm_err(
            h->log, -ENOENT,
            "%s is not there: %s ('vmm doctor' tells more)", path, kvm__absent);
    return vmm_err(h->log, err, "cannot open %s: %s", path, strerror(-err));
}

static int kvm__open_device(struct hyp *h, const struct hyp_desc *desc)
{
    const char *path = desc->path ? desc->path : KVM_DEVICE;
    int version;

    h->dev = open(path, O_RDWR | O_CLOEXEC);
    if (h->dev < 0)
        return kvm__open_failed(h, path, -errno);
    version = kvm__number(h->dev, KVM_GET_API_VERSION, 0);
    if (version < 0)
        return vmm_err(h->log, -ENOTSUP, "%s is not a KVM device: give the real one", path);
    if (version != KVM_API_VERSION || !kvm__cap(h, KVM_CAP_IMMEDIATE_EXIT) ||
        !kvm__cap(h, KVM_CAP_USER_MEMORY) || kvm__is_old(h))
        return vmm_err(h->log, -ENOTSUP,
                       "the KVM of this host is too old: use Linux 4.13 or newer");
    return 0;
}

static int kvm__check_cpus(const struct hyp *h)
{
    int max = kvm__cap(h, KVM_CAP_MAX_VCPUS);

    if (max <= 0)
        max = 4; /* api.rst: what hosts without the capability support */
    if (h->ncpus > (unsigned)max)
        return vmm_err(h->log, -E2BIG,
                       "this host's KVM runs at most %d CPUs in a VM, not %u: ask for fewer", max,
                       h->ncpus);
    return 0;
}

static void kvm__kicked(int signo)
{
    (void)signo; /* its arrival ends KVM_RUN with EINTR; there is nothing else to do */
}

/* No SA_RESTART: the signal is there to interrupt. */
static void kvm__catch_kicks(void)
{
    struct sigaction sa = {.sa_handler = kvm__kicked};

    sigaction(KVM_KICK_SIGNAL, &sa, NULL);
}

static void kvm__nothing_open(struct hyp *h)
{
    h->dev = h->vm = h->devices = -1;
#if defined(__aarch64__)
    h->gic = h->its = -1;
    for (unsigned i = 0; i < HYP_CPUS_MAX; i++)
        h->cpu_fd[i] = -1;
#endif
}

static int kvm__open_vm(struct hyp *h, const struct hyp_desc *desc)
{
    int err = kvm__open_device(h, desc);

    if (err)
        return err;
    h->any_width = kvm__cap(h, KVM_CAP_IOEVENTFD_ANY_LENGTH);
    h->caps = kvm__find_caps(h, desc) | HYP_CAP_REMAP;
    err = kvm__check_cpus(h);
    if (err)
        return err;
    err = kvm__number(h->dev, KVM_GET_VCPU_MMAP_SIZE, 0);
    h->run_len = err > 0 ? (unsigned)err : 0;
    h->vm = kvm__number(h->dev, KVM_CREATE_VM, kvm__vm_type(h, desc));
    if (h->vm < 0)
        return vmm_err(h->log, h->vm, "KVM cannot create a VM: %s%s", strerror(-h->vm),
                       h->vm == -EBUSY ? " (another hypervisor holds the CPU: stop it)" : "");
    return kvm__arch_open(h, desc);
}

VMM_DEF int hyp_open(struct hyp *h, const struct hyp_desc *desc)
{
    int err;

    memset(h, 0, offsetof(struct hyp, routes) + sizeof h->routes[0]);
    h->log = desc->log;
    h->ncpus = desc->ncpus ? desc->ncpus : 1;
    kvm__nothing_open(h);
    err = kvm__open_vm(h, desc);
    if (err) {
        hyp_close(h);
        return err;
    }
    kvm__catch_kicks();
    return 0;
}

VMM_DEF void hyp_close(struct hyp *h)
{
    kvm__arch_close(h);
    if (h->devices >= 0)
        close(h->devices);
    if (h->vm >= 0)
        close(h->vm);
    if (h->dev >= 0)
        close(h->dev);
    memset(h, 0, offsetof(struct hyp, routes) + sizeof h->routes[0]);
    kvm__nothing_open(h);
}

VMM_DEF unsigned hyp_caps(const struct hyp *h)
{
    return h->caps;
}

/* >>memory ------------------------------------------------------------------------ */

VMM_DEF int hyp_map(struct hyp *h, uint64_t gpa, uint64_t len, void *hva, unsigned prot)
{
    struct kvm_userspace_memory_region region = {
        .slot = h->slots.nranges,
        .flags = prot & VMM_WRITE ? 0 : KVM_MEM_READONLY,
        .guest_phys_addr = gpa,
        .memory_size = len,
        .userspace_addr = (uintptr_t)hva,
    };
    int err = kvm__ioctl(h->vm, KVM_SET_USER_MEMORY_REGION, &region);

    if (!err)
        err = vmm_mem_add(&h->slots, gpa, len, hva);
    return err ? vmm_err(h->log, err, "KVM refuses %llu MiB of RAM at 0x%llx: %s",
                         (unsigned long long)len >> 20, (unsigned long long)gpa, strerror(-err))
               : 0;
}

static int kvm__window(struct hyp *h, unsigned i, void *hva, unsigned prot)
{
    struct kvm_userspace_memory_region region = {
        .slot = VMM_MEM_MAX + i,
        .flags = prot & VMM_WRITE ? 0 : KVM_MEM_READONLY,
        .guest_phys_addr = h->window[i].gpa,
        .memory_size = hva ? h->window[i].len : 0,
        .userspace_addr = (uintptr_t)hva,
    };

    return kvm__ioctl(h->vm, KVM_SET_USER_MEMORY_REGION, &region);
}

VMM_DEF int hyp_window_map(struct hyp *h, uint64_t gpa, uint64_t len, void *hva, unsigned prot)
{
    unsigned i = 0;
    int err;

    while (i < HYP_WINDOWS_MAX && h->window[i].len)
        i++;
    if (i == HYP_WINDOWS_MAX)
        return -ENOSPC;
    h->window[i].gpa = gpa;
    h->window[i].len = len;
    err = kvm__window(h, i, hva, prot);
    if (err)
        h->window[i].len = 0;
    return err;
}

VMM_DEF int hyp_window_unmap(struct hyp *h, uint64_t gpa, uint64_t len)
{
    int err = -ENOENT;

    for (unsigned i = 0; i < HYP_WINDOWS_MAX && err; i++)
        if (h->window[i].len == len && h->window[i].gpa == gpa) {
            err = kvm__window(h, i, NULL, VMM_WRITE);
            h->window[i].len = 0;
            break;
        }
    return err;
}

/* KVM asks these devices whether their DMA goes around the caches, and keeps a reference. Since 6.6
   these numbers are also those of KVM_DEV_VFIO_FILE and KVM_DEV_VFIO_FILE_ADD, which takes the own
   file of a device, too. */
VMM_DEF int hyp_device_add(struct hyp *h, int fd)
{
    struct kvm_create_device list = {.type = KVM_DEV_TYPE_VFIO};
    int32_t arg = fd;
    struct kvm_device_attr attr = {
        .group = KVM_DEV_VFIO_GROUP, .attr = KVM_DEV_VFIO_GROUP_ADD, .addr = (uintptr_t)&arg};

    if (h->devices < 0) {
        if (!kvm__cap(h, KVM_CAP_DEVICE_CTRL) || kvm__ioctl(h->vm, KVM_CREATE_DEVICE, &list))
            return -ENOSYS;
        h->devices = (int)list.fd;
    }
    return kvm__ioctl(h->devices, KVM_SET_DEVICE_ATTR, &attr);
}

/* >>interrupts and doorbells ------------------------------------------------------ */

VMM_DEF int hyp_irq_bell(struct hyp *h, unsigned gsi, int bell, bool on)
{
    struct kvm_irqfd irqfd = {
        .fd = (unsigned)bell, .gsi = gsi, .flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN};
    int err;

    if (!(h->caps & (gsi < HYP_GSIS ? HYP_CAP_IRQCHIP : HYP_CAP_MSI)))
        return -ENOSYS;
    if (gsi >= HYP_GSIS + h->nlines)
        return -EINVAL;
    err = kvm__ioctl(h->vm, KVM_IRQFD, &irqfd);
    return err ? vmm_err(h->log, err, "KVM refuses interrupt line %u: %s", gsi, strerror(-err)) : 0;
}

VMM_DEF int hyp_irq_resample(struct hyp *h, unsigned gsi, int bell, int done, bool on)
{
    struct kvm_irqfd irqfd = {.fd = (unsigned)bell,
                              .gsi = gsi,
                              .flags = on ? KVM_IRQFD_FLAG_RESAMPLE : KVM_IRQFD_FLAG_DEASSIGN,
                              .resamplefd = (unsigned)done};

    if (!(h->caps & HYP_CAP_IRQCHIP) || !kvm__cap(h, KVM_CAP_IRQFD_RESAMPLE))
        return -ENOSYS;
    return kvm__ioctl(h->vm, KVM_IRQFD, &irqfd);
}

VMM_DEF int hyp_msi_line(struct hyp *h, unsigned requester)
{
    if (!(h->caps & HYP_CAP_MSI))
        return -ENOSYS;
    if (h->nlines == HYP_MSI_LINES_MAX)
        return vmm_err(h->log, -ENOSPC, "more than %d interrupts by message: use fewer devices",
                       HYP_MSI_LINES_MAX);
    h->requester[h->nlines] = requester;
    return (int)(HYP_GSIS + h->nlines++);
}

/* Enters a message into the table of routes, in place of the one that the line had. */
static int kvm__route(struct hyp *h, unsigned gsi, uint64_t addr, uint32_t data)
{
    struct kvm_irq_routing *table = (struct kvm_irq_routing *)(void *)h->routes;
    struct kvm_irq_routing_entry route = {.gsi = gsi}, old;
    unsigned i = 0, nr;
    int err = kvm__route_message(h, &route, addr, data);

    if (err)
        return err;

    _Static_assert(sizeof h->routes >= sizeof *table + HYP_ROUTES_MAX * sizeof route,
                   "room for HYP_ROUTES_MAX routes");
    if (!table->nr && h->caps & HYP_CAP_IRQCHIP)
        kvm__first_routes(table);
    while (i < table->nr && table->entries[i].gsi != gsi)
        i++;
    nr = table->nr;
    old = table->entries[i];
    table->entries[i] = route;
    table->nr += i == nr;
    err = kvm__ioctl(h->vm, KVM_SET_GSI_ROUTING, table);
    if (err) { /* one message that cannot be does not harm the others */
        table->entries[i] = old;
        table->nr = nr;
    }
    return err;
}

VMM_DEF int hyp_msi_route(struct hyp *h, unsigned gsi, uint64_t addr, uint32_t data)
{
    if (gsi < HYP_GSIS || gsi >= HYP_GSIS + h->nlines)
        return -EINVAL;
    return kvm__route(h, gsi, addr, data);
}

VMM_DEF int hyp_doorbell(struct hyp *h, const struct vmm_doorbell *where, int bell, bool on)
{
    struct kvm_ioeventfd io = {.addr = where->gpa, .len = where->len, .fd = bell};

    if (!(h->caps & HYP_CAP_DOORBELL) || (!where->len && !h->any_width))
        return -ENOSYS;
    if (where->match && where->len) {
        io.datamatch = where->value;
        io.flags = KVM_IOEVENTFD_FLAG_DATAMATCH;
    }
    io.flags |= on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN;
    return kvm__ioctl(h->vm, KVM_IOEVENTFD, &io);
}

/* >>vcpu -------------------------------------------------------------------------- */

static int kvm__create_cpu(const struct hyp *h, unsigned id)
{
    int fd = kvm__number(h->vm, KVM_CREATE_VCPU, id);

    return fd < 0 ? vmm_err(h->log, fd, "KVM cannot create CPU %u: %s", id, strerror(-fd)) : fd;
}

static int kvm__prepare_cpu(struct hyp_cpu *c)
{
    struct hyp *h = c->hyp;

    c->fd = kvm__arch_create_cpu(c);
    if (c->fd < 0)
        return c->fd;
    c->run = mmap(NULL, h->run_len, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
    if (c->run == MAP_FAILED)
        return vmm_err(h->log, -errno, "cannot map the state of CPU %u: %s", c->id,
                       strerror(errno));
    return kvm__arch_init_cpu(c);
}

VMM_DEF int hyp_cpu_open(struct hyp_cpu *c, struct hyp *h, unsigned id)
{
    int err;

    memset(c, 0, sizeof *c);
    c->hyp = h;
    c->id = id;
    c->fd = -1;
    c->run = MAP_FAILED;
    c->tid = (int)syscall(SYS_gettid);
    err = kvm__prepare_cpu(c);
    if (err)
        hyp_cpu_close(c);
    return err;
}

VMM_DEF void hyp_cpu_close(struct hyp_cpu *c)
{
    if (c->run != MAP_FAILED)
        munmap(c->run, c->hyp->run_len);
    if (c->fd >= 0)
        close(c->fd);
    c->run = MAP_FAILED;
    c->fd = -1;
}

/* >>run --------------------------------------------------------------------------- */

static void kvm__exit_mmio(struct kvm_run *run, struct vmm_exit *e)
{
    e->kind = VMM_EXIT_MMIO;
    e->write = run->mmio.is_write;
    e->addr = run->mmio.phys_addr;
    e->size = run->mmio.len;
    e->count = 1;
    e->data = run->mmio.data;
}

static void kvm__fault(struct hyp_cpu *c, struct vmm_exit *e, const char *why, uint64_t code)
{
    e->kind = VMM_EXIT_FAULT;
    e->why = why;
    e->code = code;
    e->data = c->insn;
    e->size = kvm__fetch_insn(c);
}

static const char *kvm__internal_error(unsigned suberror)
{
    switch (suberror) {
    case KVM_INTERNAL_ERROR_EMULATION:
        return "KVM internal error: it cannot emulate an instruction of the guest";
    case KVM_INTERNAL_ERROR_SIMUL_EX:
        return "KVM internal error: exceptions while delivering one";
    case KVM_INTERNAL_ERROR_DELIVERY_EV:
        return "KVM internal error: an exit while delivering an event";
    default:
        return "KVM internal error";
    }
}

/* EINTR is a kick or any signal; EAGAIN a CPU that waits for its start-up interrupt. */
static int kvm__run_failed(struct hyp_cpu *c, struct kvm_run *run, struct vmm_exit *e, int err)
{
    switch (err) {
    case EINTR:
    case EAGAIN:
        __atomic_store_n(&run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        e->kind = VMM_EXIT_AGAIN;
        return 0;
    case EFAULT:
        kvm__fault(c, e, "guest memory is gone (was a file that backs it truncated?)", EFAULT);
        return 0;
    default:
        return vmm_err(c->hyp->log, -err, "KVM cannot run CPU %u: %s", c->id, strerror(err));
    }
}

VMM_DEF int hyp_run(struct hyp_cpu *c, struct vmm_exit *e)
{
    struct kvm_run *run = c->run;

    if (ioctl(c->fd, KVM_RUN, 0) < 0)
        return kvm__run_failed(c, run, e, errno);
    switch (run->exit_reason) {
    case KVM_EXIT_MMIO:
        kvm__exit_mmio(run, e);
        break;
    case KVM_EXIT_INTR:
        e->kind = VMM_EXIT_AGAIN;
        break;
    case KVM_EXIT_FAIL_ENTRY:
        kvm__fault(c, e, "the CPU refuses to enter the guest",
                   run->fail_entry.hardware_entry_failure_reason);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        kvm__fault(c, e, kvm__internal_error(run->internal.suberror), run->internal.suberror);
        break;
    default:
        if (!kvm__arch_exit(c, e))
            kvm__fault(c, e, "KVM exit of an unexpected kind", run->exit_reason);
        break;
    }
    return 0;
}

VMM_DEF void hyp_kick(struct hyp_cpu *c)
{
    struct kvm_run *run = c->run;

    /* First the flag, then the signal: whichever side of KVM_RUN's entry the signal falls on,
       one of the two ends it. */
    __atomic_store_n(&run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    (void)syscall(SYS_tgkill, getpid(), c->tid, KVM_KICK_SIGNAL);
}

/* >>x86 --------------------------------------------------------------------------- */
#if defined(__x86_64__)

#include <asm/kvm_para.h>
#include <cpuid.h>

static const char *const kvm__absent =
    "enable virtualisation in the firmware and load kvm_intel or kvm_amd";

static bool kvm__is_old(const struct hyp *h)
{
    return !kvm__cap(h, KVM_CAP_EXT_CPUID);
}

static unsigned long kvm__vm_type(struct hyp *h, const struct hyp_desc *desc)
{
    (void)h;
    (void)desc;
    return 0;
}

/* Hardware that virtualises says so in CPUID; a /dev/kvm without that is an interpreter. */
static bool kvm__is_software(void)
{
    unsigned a, b, c, d;

    if (__get_cpuid(1, &a, &b, &c, &d) && (c & 1u << 5)) /* VMX */
        return false;
    if (__get_cpuid(0x80000001, &a, &b, &c, &d) && (c & 1u << 2)) /* SVM */
        return false;
    return true;
}

/* Interrupt controllers are of use only with irqfds and the PIT, so that they are one capability;
   LAPICs alone only with routes, which say whose EOIs are told. */
static unsigned kvm__find_caps(const struct hyp *h, const struct hyp_desc *desc)
{
    unsigned caps = kvm__is_software() ? HYP_CAP_SOFTWARE : 0;
    bool routes = kvm__cap(h, KVM_CAP_IRQ_ROUTING), bells = kvm__cap(h, KVM_CAP_IRQFD);

    if (!desc->no_irqchip && !desc->split_irqchip && kvm__cap(h, KVM_CAP_IRQCHIP) && bells &&
        kvm__cap(h, KVM_CAP_PIT2))
        caps |= HYP_CAP_IRQCHIP | HYP_CAP_LAPIC;
    if (desc->split_irqchip && kvm__cap(h, KVM_CAP_SPLIT_IRQCHIP) && bells && routes)
        caps |= HYP_CAP_LAPIC;
    if (caps & HYP_CAP_LAPIC && routes)
        caps |= HYP_CAP_MSI;
    if (kvm__cap(h, KVM_CAP_IOEVENTFD))
        caps |= HYP_CAP_DOORBELL;
    if (kvm__cap(h, KVM_CAP_SET_GUEST_DEBUG) && kvm__cap(h, KVM_CAP_DEBUGREGS))
        caps |= HYP_CAP_DEBUG;
    return caps;
}

/* APIC ids of 255 and more need the 32-bit forms of interrupt destinations. */
static int kvm__enable_x2apic_ids(struct hyp *h)
{
    struct kvm_enable_cap cap = {.cap = KVM_CAP_X2APIC_API};
    int err;

    if (h->ncpus < 255)
        return 0;
    cap.args[0] = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
    err = kvm__ioctl(h->vm, KVM_ENABLE_CAP, &cap);
    return err ? vmm_err(h->log, err,
                         "this host's KVM is too old for more than 254 CPUs: ask for fewer")
               : 0;
}

/* Without LAPICs in the kernel, the guest's accesses to their MSRs shall end KVM_RUN. Those of x2APIC
   mode do because KVM fails them, the other two because a filter catches them. Older kernels cannot:
   then there is no x2APIC mode. */
static int kvm__let_msrs_out(struct hyp *h)
{
    struct kvm_enable_cap cap = {.cap = KVM_CAP_X86_USER_SPACE_MSR,
                                 .args = {KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_FILTER}};
    static uint8_t none;
    struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_ALLOW};
    static const uint32_t msrs[] = {0x1b /* APIC_BASE */, 0x6e0 /* TSC_DEADLINE */};

    if (!kvm__cap(h, KVM_CAP_X86_USER_SPACE_MSR) || !kvm__cap(h, KVM_CAP_X86_MSR_FILTER))
        return 0;
    for (unsigned i = 0; i < 2; i++)
        filter.ranges[i] =
            (struct kvm_msr_filter_range){.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
                                          .nmsrs = 1,
                                          .base = msrs[i],
                                          .bitmap = &none};
    h->msr_exits = !kvm__ioctl(h->vm, KVM_ENABLE_CAP, &cap) &&
                   !kvm__ioctl(h->vm, KVM_X86_SET_MSR_FILTER, &filter);
    return 0;
}

/* The kernel's PIC, IOAPIC, LAPICs and PIT. Intel hosts without unrestricted guests need some pages
   below 4 GiB for real mode; they must not lie in RAM or a device. */
static int kvm__create_chips(struct hyp *h)
{
    uint64_t identity = 0xfffbc000;
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {HYP_GSIS}};
    int err;

    if (kvm__cap(h, KVM_CAP_SET_IDENTITY_MAP_ADDR))
        (void)kvm__ioctl(h->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    err = kvm__number(h->vm, KVM_SET_TSS_ADDR, 0xfffbd000);
    if (err)
        return vmm_err(h->log, err, "KVM refuses a place for the TSS: %s", strerror(-err));
    if (!(h->caps & HYP_CAP_LAPIC))
        return kvm__let_msrs_out(h);
    if (!(h->caps & HYP_CAP_IRQCHIP))
        err = kvm__ioctl(h->vm, KVM_ENABLE_CAP, &split);
    else if (!(err = kvm__number(h->vm, KVM_CREATE_IRQCHIP, 0)))
        err = kvm__ioctl(h->vm, KVM_CREATE_PIT2, &pit);
    return err ? vmm_err(h->log, err, "KVM cannot create its interrupt controllers: %s",
                         strerror(-err))
               : 0;
}

/* Once for a VM: on a host that is itself a guest, this takes an exit for each leaf. */
static int kvm__read_cpuid(struct hyp *h)
{
    struct kvm_cpuid2 *cpuid = (struct kvm_cpuid2 *)(void *)h->cpuid;
    int err;

    _Static_assert(sizeof h->cpuid >= sizeof *cpuid + HYP_CPUID_MAX * sizeof cpuid->entries[0],
                   "room for HYP_CPUID_MAX leaves");
    cpuid->nent = HYP_CPUID_MAX;
    err = kvm__ioctl(h->dev, KVM_GET_SUPPORTED_CPUID, cpuid);
    return err ? vmm_err(h->log, err, "KVM does not tell its CPU features: %s", strerror(-err)) : 0;
}

static int kvm__arch_open(struct hyp *h, const struct hyp_desc *desc)
{
    int err = kvm__enable_x2apic_ids(h);

    (void)desc; /* h->caps is what was made of it */
    if (!err)
        err = kvm__create_chips(h);
    return err ? err : kvm__read_cpuid(h);
}

static void kvm__arch_close(struct hyp *h)
{
    (void)h;
}

/* What CPUID tells the guest; processors without this leaf have 36. */
VMM_DEF unsigned hyp_gpa_bits(const struct hyp *h)
{
    const struct kvm_cpuid2 *cpuid = (const struct kvm_cpuid2 *)(const void *)h->cpuid;

    for (unsigned i = 0; i < cpuid->nent; i++)
        if (cpuid->entries[i].function == 0x80000008)
            return cpuid->entries[i].eax & 0xff;
    return 36;
}

VMM_DEF void hyp_irq_set(struct hyp *h, unsigned gsi, bool level)
{
    struct kvm_irq_level line = {.irq = gsi, .level = level};

    if (h->caps & HYP_CAP_IRQCHIP)
        (void)kvm__ioctl(h->vm, KVM_IRQ_LINE, &line);
}

static void kvm__add_route(struct kvm_irq_routing *table, unsigned gsi, unsigned chip, unsigned pin)
{
    table->entries[table->nr++] = (struct kvm_irq_routing_entry){
        .gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = {.irqchip = chip, .pin = pin}};
}

/* KVM takes only whole tables. This is the one that a VM has at first: line N is pin N of the
   IOAPIC and, below 16, also of the PIC pair. */
static void kvm__first_routes(struct kvm_irq_routing *table)
{
    for (unsigned gsi = 0; gsi < HYP_GSIS; gsi++) {
        if (gsi < 16)
            kvm__add_route(table, gsi, gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
                           gsi % 8);
        kvm__add_route(table, gsi, KVM_IRQCHIP_IOAPIC, gsi);
    }
}

static int kvm__route_message(const struct hyp *h, struct kvm_irq_routing_entry *e, uint64_t addr,
                              uint32_t data)
{
    (void)h;
    e->type = KVM_IRQ_ROUTING_MSI;
    e->u.msi.address_lo = (uint32_t)addr;
    e->u.msi.address_hi = (uint32_t)(addr >> 32);
    e->u.msi.data = data;
    return 0;
}

VMM_DEF void hyp_msi_send(struct hyp *h, uint64_t addr, uint32_t data)
{
    struct kvm_msi msi = {
        .address_lo = (uint32_t)addr, .address_hi = (uint32_t)(addr >> 32), .data = data};

    (void)kvm__ioctl(h->vm, KVM_SIGNAL_MSI, &msi);
}

/* KVM reports the EOI of every vector that a route of the first lines has. */
VMM_DEF int hyp_eoi_route(struct hyp *h, unsigned pin, uint64_t addr, uint32_t data)
{
    if (pin >= HYP_GSIS || (h->caps & (HYP_CAP_IRQCHIP | HYP_CAP_LAPIC)) != HYP_CAP_LAPIC)
        return -EINVAL;
    return kvm__route(h, pin, addr, data);
}

/* >>cpuid: the host's features with the topology of one package of ncpus cores ---- */

#define KVM__LEAF_TSC_KHZ                                                                          \
    0x40000010                    /* eax: TSC, ebx: APIC bus, both in kHz; first used by VMware */
#define KVM__APIC_BUS_KHZ 1000000 /* the in-kernel LAPIC counts nanoseconds */

/* Bits that number n things. */
static unsigned kvm__bits(unsigned n)
{
    unsigned bits = 0;

    while (bits < 31 && 1u << bits < n)
        bits++;
    return bits;
}

static uint32_t kvm__field(uint32_t reg, unsigned lo, unsigned len, uint32_t val)
{
    uint32_t mask = ((1u << len) - 1) << lo;

    return (reg & ~mask) | (val << lo & mask);
}

/* Leaf 1: APIC id, logical CPUs, and features that only user space can promise. */
static void kvm__cpuid_1(const struct hyp_cpu *c, struct kvm_cpuid_entry2 *e)
{
    const struct hyp *h = c->hyp;
    unsigned n = 1u << kvm__bits(h->ncpus);

    e->ebx = kvm__field(e->ebx, 24, 8, c->id);
    e->ebx = kvm__field(e->ebx, 16, 8, n > 255 ? 255 : n);
    e->edx = kvm__field(e->edx, 28, 1, h->ncpus > 1); /* HTT: the count above is valid */
    e->ecx |= 1u << 31;                               /* a hypervisor is present */
    e->ecx = kvm__field(e->ecx, 21, 1, h->caps & HYP_CAP_LAPIC || h->msr_exits); /* x2APIC */
    e->ecx = kvm__field(e->ecx, 24, 1, /* TSC-deadline timer */
                        h->caps & HYP_CAP_LAPIC ? kvm__cap(h, KVM_CAP_TSC_DEADLINE_TIMER) > 0
                                                : h->msr_exits && c->tsc_khz);
}

/* KVM's own features: those of its LAPICs go with them. */
static void kvm__cpuid_kvm(const struct hyp_cpu *c, struct kvm_cpuid_entry2 *e)
{
    if (!(c->hyp->caps & HYP_CAP_LAPIC))
        e->eax &= ~(1u << KVM_FEATURE_ASYNC_PF | 1u << KVM_FEATURE_PV_EOI |
                    1u << KVM_FEATURE_PV_UNHALT | 1u << KVM_FEATURE_ASYNC_PF_VMEXIT |
                    1u << KVM_FEATURE_PV_SEND_IPI | 1u << KVM_FEATURE_PV_SCHED_YIELD |
                    1u << KVM_FEATURE_ASYNC_PF_INT | 1u << KVM_FEATURE_MSI_EXT_DEST_ID);
}

/* Leaf 4 (and AMD's 0x8000001d): levels 1 and 2 belong to one core, the rest to all of them. */
static void kvm__cpuid_cache(const struct hyp_cpu *c, struct kvm_cpuid_entry2 *e)
{
    unsigned level = e->eax >> 5 & 7, last = (1u << kvm__bits(c->hyp->ncpus)) - 1;

    if (!(e->eax & 31))
        return;
    e->eax = kvm__field(e->eax, 14, 12, level <= 2 ? 0 : last);
    if (e->function == 4)
        e->eax = kvm__field(e->eax, 26, 6, last > 63 ? 63 : last);
}

/* Leaves 0xb and 0x1f: one thread a core, ncpus cores in the package. */
static void kvm__cpuid_topology(const struct hyp_cpu *c, struct kvm_cpuid_entry2 *e)
{
    enum { SMT = 1, CORE = 2 };

    e->eax = e->index == 1 ? kvm__bits(c->hyp->ncpus) : 0;
    e->ebx = e->index == 0 ? 1 : e->index == 1 ? c->hyp->ncpus : 0;
    e->ecx = e->index | (e->index == 0 ? SMT << 8 : e->index == 1 ? CORE << 8 : 0);
    e->edx = c->id;
}

/* AMD's own leaves for the same topology. */
static void kvm__cpuid_amd(const struct hyp_cpu *c, struct kvm_cpuid_entry2 *e)
{
    unsigned cores = c->hyp->ncpus > 256 ? 256 : c->hyp->ncpus;

    switch (e->function) {
    case 0x80000001:
        e->ecx = kvm__field(e->ecx, 1, 1, c->hyp->ncpus > 1); /* CmpLegacy: cores, not threads */
        break;
    case 0x80000008:
        e->ecx = kvm__field(e->ecx, 0, 8, cores - 1);
        e->ecx = kvm__field(e->ecx, 12, 4, kvm__bits(cores));
        break;
    case 0x8000001e:
        e->eax = c->id;
        e->ebx = c->id & 0xff; /* core id; one thread each */
        e->ecx = 0;            /* node 0, one node */
        break;
    }
}

/* For guests without kvmclock: the frequencies that they would otherwise measure, badly. */
static void kvm__cpuid_clock(struct kvm_cpuid_entry2 *e, unsigned tsc_khz)
{
    switch (e->function) {
    case 0x15: /* TSC = crystal (the LAPIC's clock) * ebx / eax */
        e->eax = KVM__APIC_BUS_KHZ;
        e->ebx = tsc_khz;
        e->ecx = KVM__APIC_BUS_KHZ * 1000u;
        break;
    case 0x16:
        e->eax = kvm__field(e->eax, 0, 16, tsc_khz / 1000);
        break;
    case 0x40000000: /* KVM's signature: highest leaf */
        if (e->eax < KVM__LEAF_TSC_KHZ)
            e->eax = KVM__LEAF_TSC_KHZ;
        break;
    }
}

static void kvm__cpuid_patch(const struct hyp_cpu *c, struct kvm_cpuid_entry2 *e)
{
    if (e->function == 1)
        kvm__cpuid_1(c, e);
    else if (e->function == 4 || e->function == 0x8000001d)
        kvm__cpuid_cache(c, e);
    else if (e->function == 0xb || e->function == 0x1f)
        kvm__cpuid_topology(c, e);
    else if (e->function == KVM_CPUID_FEATURES)
        kvm__cpuid_kvm(c, e);
    else if (e->function >= 0x80000000)
        kvm__cpuid_amd(c, e);
    else if (c->tsc_khz)
        kvm__cpuid_clock(e, c->tsc_khz);
}

/* KVM reports only the first sub-leaf of 0xb and 0x1f on some hosts: these are made whole here. */
static bool kvm__cpuid_is_topology(const struct kvm_cpuid_entry2 *e)
{
    return e->function == 0xb || e->function == 0x1f;
}

static void kvm__cpuid_add(struct kvm_cpuid2 *cpuid, struct kvm_cpuid_entry2 e)
{
    if (cpuid->nent < HYP_CPUID_MAX)
        cpuid->entries[cpuid->nent++] = e;
}

/* What a vCPU is told: the host's leaves, patched, topology leaves made whole, a leaf of
   frequencies added. */
static int kvm__set_cpuid(struct hyp_cpu *c)
{
    uint64_t buf[sizeof c->hyp->cpuid / sizeof(uint64_t)];
    const struct kvm_cpuid2 *host = (const struct kvm_cpuid2 *)(const void *)c->hyp->cpuid;
    struct kvm_cpuid2 *cpuid = (struct kvm_cpuid2 *)(void *)buf;
    int khz = kvm__number(c->fd, KVM_GET_TSC_KHZ, 0);

    c->tsc_khz = khz > 0 ? (unsigned)khz : 0;
    cpuid->nent = cpuid->padding = 0;
    for (unsigned i = 0; i < host->nent; i++) {
        struct kvm_cpuid_entry2 e = host->entries[i];
        if (kvm__cpuid_is_topology(&e) && e.index > 0)
            continue;
        for (unsigned sub = 0; sub < (kvm__cpuid_is_topology(&e) ? 3 : 1); sub++) {
            e.index = kvm__cpuid_is_topology(&e) ? sub : e.index;
            kvm__cpuid_patch(c, &e);
            kvm__cpuid_add(cpuid, e);
        }
    }
    if (c->tsc_khz)
        kvm__cpuid_add(cpuid, (struct kvm_cpuid_entry2){.function = KVM__LEAF_TSC_KHZ,
                                                        .eax = c->tsc_khz,
                                                        .ebx = KVM__APIC_BUS_KHZ});
    return kvm__ioctl(c->fd, KVM_SET_CPUID2, cpuid);
}

/* What firmware would have set: memory is write-back unless an MTRR says otherwise, and string
   moves are fast (Linux drops `rep movsb` on Intel CPUs where this bit is clear). */
static int kvm__set_msrs(struct hyp_cpu *c)
{
    static const struct kvm_msr_entry entry[] = {
        {.index = 0x2ff /* MTRRdefType */, .data = 1u << 11 | 6},
        {.index = 0x1a0 /* MISC_ENABLE */, .data = 1},
    };
    uint64_t buf[(sizeof(struct kvm_msrs) + sizeof entry) / sizeof(uint64_t)] = {0};
    struct kvm_msrs *msrs = (struct kvm_msrs *)(void *)buf;

    msrs->nmsrs = sizeof entry / sizeof entry[0];
    memcpy(msrs->entries, entry, sizeof entry);
    return kvm__ioctl(c->fd, KVM_SET_MSRS, msrs) < 0 ? -EIO : 0;
}

static int kvm__arch_create_cpu(struct hyp_cpu *c)
{
    return kvm__create_cpu(c->hyp, c->id);
}

static int kvm__arch_init_cpu(struct hyp_cpu *c)
{
    const struct vmm_log *log = c->hyp->log;
    int err = kvm__set_cpuid(c);

    if (err)
        return vmm_err(log, err, "KVM refuses the features of CPU %u: %s", c->id, strerror(-err));
    err = kvm__set_msrs(c);
    return err ? vmm_err(log, err, "KVM refuses the MSRs of CPU %u", c->id) : 0;
}

/* >>registers --------------------------------------------------------------------- */

/* KVM numbers general registers as named fields; this is the order of enum vmm_x86_gpr. */
#define KVM__GPRS(X)                                                                               \
    X(RAX, rax)                                                                                    \
    X(RCX, rcx)                                                                                    \
    X(RDX, rdx)                                                                                    \
    X(RBX, rbx)                                                                                    \
    X(RSP, rsp)                                                                                    \
    X(RBP, rbp)                                                                                    \
    X(RSI, rsi)                                                                                    \
    X(RDI, rdi)                                                                                    \
    X(R8, r8) X(R9, r9) X(R10, r10) X(R11, r11) X(R12, r12) X(R13, r13) X(R14, r14) X(R15, r15)
#define KVM__SEGS(X) X(cs) X(ds) X(es) X(fs) X(gs) X(ss) X(tr) X(ldt)

/* Segments: KVM has their attributes as bytes, vmm.h as the bits of a descriptor. */
static struct vmm_x86_seg kvm__seg_in(const struct kvm_segment *s)
{
    struct vmm_x86_seg v = {.base = s->base, .limit = s->limit, .selector = s->selector};

    if (!s->unusable)
        v.attr = (uint16_t)(s->type | s->s << 4 | s->dpl << 5 | s->present << 7 | s->avl << 12 |
                            s->l << 13 | s->db << 14 | s->g << 15);
    return v;
}

static struct kvm_segment kvm__seg_out(const struct vmm_x86_seg *v)
{
    return (struct kvm_segment){
        .base = v->base,
        .limit = v->limit,
        .selector = v->selector,
        .type = v->attr & 15,
        .s = v->attr >> 4 & 1,
        .dpl = v->attr >> 5 & 3,
        .present = v->attr >> 7 & 1,
        .avl = v->attr >> 12 & 1,
        .l = v->attr >> 13 & 1,
        .db = v->attr >> 14 & 1,
        .g = v->attr >> 15 & 1,
        .unusable = !(v->attr & 0x80),
    };
}

VMM_DEF int hyp_get_regs(struct hyp_cpu *c, struct vmm_regs *regs)
{
    struct kvm_regs r;
    struct kvm_sregs s;
    int err = kvm__ioctl(c->fd, KVM_GET_REGS, &r);

    if (!err)
        err = kvm__ioctl(c->fd, KVM_GET_SREGS, &s);
    if (err)
        return err;
    memset(regs, 0, sizeof *regs);
#define X(up, low) regs->gpr[VMM_##up] = r.low;
    KVM__GPRS(X)
#undef X
#define X(name) regs->name = kvm__seg_in(&s.name);
    KVM__SEGS(X)
#undef X
    regs->rip = r.rip;
    regs->rflags = r.rflags;
    regs->cr0 = s.cr0;
    regs->cr2 = s.cr2;
    regs->cr3 = s.cr3;
    regs->cr4 = s.cr4;
    regs->efer = s.efer;
    regs->gdt.base = s.gdt.base;
    regs->gdt.limit = s.gdt.limit;
    regs->idt.base = s.idt.base;
    regs->idt.limit = s.idt.limit;
    return 0;
}

VMM_DEF int hyp_set_regs(struct hyp_cpu *c, const struct vmm_regs *regs)
{
    struct kvm_regs r = {.rip = regs->rip, .rflags = regs->rflags};
    struct kvm_sregs s; /* read first: APIC base and pending interrupts stay */
    int err = kvm__ioctl(c->fd, KVM_GET_SREGS, &s);

    if (err)
        return err;
#define X(up, low) r.low = regs->gpr[VMM_##up];
    KVM__GPRS(X)
#undef X
#define X(name) s.name = kvm__seg_out(&regs->name);
    KVM__SEGS(X)
#undef X
    s.cr0 = regs->cr0;
    s.cr2 = regs->cr2;
    s.cr3 = regs->cr3;
    s.cr4 = regs->cr4;
    s.efer = regs->efer;
    s.gdt.base = regs->gdt.base;
    s.gdt.limit = (uint16_t)regs->gdt.limit;
    s.idt.base = regs->idt.base;
    s.idt.limit = (uint16_t)regs->idt.limit;
    err = kvm__ioctl(c->fd, KVM_SET_SREGS, &s);
    return err ? err : kvm__ioctl(c->fd, KVM_SET_REGS, &r);
}

/* The data of string I/O lies in the shared pages, behind struct kvm_run. */
static void kvm__exit_io(struct kvm_run *run, struct vmm_exit *e)
{
    e->kind = VMM_EXIT_PIO;
    e->write = run->io.direction == KVM_EXIT_IO_OUT;
    e->addr = run->io.port;
    e->size = run->io.size;
    e->count = run->io.count;
    e->data = (uint8_t *)run + run->io.data_offset;
}

static void kvm__exit_msr(struct kvm_run *run, struct vmm_exit *e)
{
    e->kind = VMM_EXIT_MSR;
    e->write = run->exit_reason == KVM_EXIT_X86_WRMSR;
    e->addr = run->msr.index;
    e->size = sizeof run->msr.data;
    e->count = 1;
    e->data = (uint8_t *)&run->msr.data;
}

enum { KVM__BP = 3, KVM__DR6_CAUSES = 0xe00f };

static void kvm__exit_debug(const struct hyp_cpu *c, struct vmm_exit *e)
{
    const struct kvm_debug_exit_arch *debug = &((const struct kvm_run *)c->run)->debug.arch;

    e->kind = VMM_EXIT_DEBUG;
    e->addr = debug->pc;
    e->code = debug->exception == KVM__BP ? (unsigned)VMM_DEBUG_TRAP
                                          : vmm_x86_debug_why(&c->debug, debug->dr6);
}

static bool kvm__arch_exit(struct hyp_cpu *c, struct vmm_exit *e)
{
    struct kvm_run *run = c->run;

    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        kvm__exit_io(run, e);
        return true;
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
        kvm__exit_msr(run, e);
        return true;
    case KVM_EXIT_IOAPIC_EOI:
        e->kind = VMM_EXIT_EOI;
        e->addr = run->eoi.vector;
        return true;
    case KVM_EXIT_HLT:
        e->kind = VMM_EXIT_HALT;
        return true;
    case KVM_EXIT_SHUTDOWN:
        e->kind = VMM_EXIT_SHUTDOWN;
        return true;
    case KVM_EXIT_DEBUG:
        kvm__exit_debug(c, e);
        return true;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_SET_TPR:
        e->kind = VMM_EXIT_AGAIN;
        return true;
    default:
        return false;
    }
}

static unsigned kvm__fetch_insn(struct hyp_cpu *c)
{
    struct vmm_regs regs;
    struct kvm_translation tr;
    unsigned len = sizeof c->insn;
    const void *bytes;

    if (hyp_get_regs(c, &regs))
        return 0;
    tr.linear_address = regs.cs.base + regs.rip;
    if (kvm__ioctl(c->fd, KVM_TRANSLATE, &tr) || !tr.valid)
        return 0;
    if (4096 - (tr.physical_address & 4095) < len)
        len = 4096 - (unsigned)(tr.physical_address & 4095);
    bytes = vmm_at(&c->hyp->slots, tr.physical_address, len);
    if (!bytes)
        return 0;
    memcpy(c->insn, bytes, len);
    return len;
}

/* >>inject ------------------------------------------------------------------------ */

/* What KVM says includes the interrupt flag, but not on every kernel; with its LAPICs, whether LINT0
   lets external interrupts in. */
VMM_DEF bool hyp_ready(const struct hyp_cpu *c)
{
    const struct kvm_run *run = c->run;

    return run->ready_for_interrupt_injection && run->if_flag;
}

VMM_DEF void hyp_want_window(struct hyp_cpu *c, bool want)
{
    ((struct kvm_run *)c->run)->request_interrupt_window = want;
}

VMM_DEF int hyp_inject(struct hyp_cpu *c, uint8_t vector)
{
    struct kvm_interrupt intr = {.irq = vector};
    int err = kvm__ioctl(c->fd, KVM_INTERRUPT, &intr);

    ((struct kvm_run *)c->run)->ready_for_interrupt_injection = 0;
    return err ? vmm_err(c->hyp->log, err, "KVM refuses interrupt %u for CPU %u: %s", vector, c->id,
                         strerror(-err))
               : 0;
}

VMM_DEF int hyp_inject_nmi(struct hyp_cpu *c)
{
    int err = kvm__number(c->fd, KVM_NMI, 0);

    return err ? vmm_err(c->hyp->log, err, "KVM refuses an NMI for CPU %u: %s", c->id,
                         strerror(-err))
               : 0;
}

VMM_DEF int hyp_uninject(struct hyp_cpu *c)
{
    struct kvm_vcpu_events events = {0};
    int err = kvm__ioctl(c->fd, KVM_GET_VCPU_EVENTS, &events);

    memset(&events.exception, 0, sizeof events.exception);
    memset(&events.interrupt, 0, sizeof events.interrupt);
    memset(&events.nmi, 0, sizeof events.nmi);
    if (!err)
        err = kvm__ioctl(c->fd, KVM_SET_VCPU_EVENTS, &events);
    return err ? vmm_err(c->hyp->log, err, "KVM cannot take back the events of CPU %u: %s", c->id,
                         strerror(-err))
               : 0;
}

VMM_DEF unsigned hyp_cr8(const struct hyp_cpu *c)
{
    return (unsigned)((const struct kvm_run *)c->run)->cr8;
}

VMM_DEF void hyp_set_cr8(struct hyp_cpu *c, unsigned cr8)
{
    ((struct kvm_run *)c->run)->cr8 = cr8;
}

VMM_DEF void hyp_msr_refuse(struct hyp_cpu *c)
{
    ((struct kvm_run *)c->run)->msr.error = 1;
}

VMM_DEF uint64_t hyp_tsc(struct hyp_cpu *c, uint64_t *hz)
{
    uint64_t buf[(sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)) / sizeof(uint64_t)] = {0};
    struct kvm_msrs *msrs = (struct kvm_msrs *)(void *)buf;

    msrs->nmsrs = 1;
    msrs->entries[0].index = 0x10; /* TIME_STAMP_COUNTER */
    *hz = kvm__ioctl(c->fd, KVM_GET_MSRS, msrs) == 1 ? c->tsc_khz * 1000ull : 0;
    return msrs->entries[0].data;
}

/* >>debug ------------------------------------------------------------------------- */

/* `more`: KVM_GUESTDBG_INJECT_*, for once. */
static int kvm__set_debug(struct hyp_cpu *c, uint32_t more)
{
    const struct vmm_debug *d = &c->debug;
    struct kvm_guest_debug debug = {.control = more};
    int err;

    for (unsigned i = 0; i < VMM_BREAKS; i++) {
        debug.arch.debugreg[i] = d->slot[i].addr;
        if (d->slot[i].len)
            debug.control |= KVM_GUESTDBG_USE_HW_BP;
    }
    debug.arch.debugreg[7] = vmm_x86_dr7(d) | 0x200; /* GE: old processors are exact then */
    if (d->traps)
        debug.control |= KVM_GUESTDBG_USE_SW_BP;
    if (d->step)
        debug.control |= KVM_GUESTDBG_SINGLESTEP;
    if (d->step && kvm__cap(c->hyp, KVM_CAP_SET_GUEST_DEBUG2) & KVM_GUESTDBG_BLOCKIRQ)
        debug.control |= KVM_GUESTDBG_BLOCKIRQ;
    if (debug.control)
        debug.control |= KVM_GUESTDBG_ENABLE;
    err = kvm__ioctl(c->fd, KVM_SET_GUEST_DEBUG, &debug);
    return err ? vmm_err(c->hyp->log, err, "KVM cannot debug CPU %u: %s", c->id, strerror(-err))
               : 0;
}

VMM_DEF int hyp_debug(struct hyp_cpu *c, const struct vmm_debug *d)
{
    c->debug = *d;
    return kvm__set_debug(c, 0);
}

/* A handler of #DB looks for the cause in DR6, which the exception that KVM injects does not set. */
VMM_DEF int hyp_debug_pass(struct hyp_cpu *c)
{
    const struct kvm_debug_exit_arch *debug = &((const struct kvm_run *)c->run)->debug.arch;
    struct kvm_debugregs regs;
    int err;

    if (debug->exception == KVM__BP)
        return kvm__set_debug(c, KVM_GUESTDBG_INJECT_BP);
    err = kvm__ioctl(c->fd, KVM_GET_DEBUGREGS, &regs);
    regs.dr6 |= debug->dr6 & KVM__DR6_CAUSES;
    if (!err)
        err = kvm__ioctl(c->fd, KVM_SET_DEBUGREGS, &regs);
    return err ? err : kvm__set_debug(c, KVM_GUESTDBG_INJECT_DB);
}

VMM_DEF int hyp_get_fpu(struct hyp_cpu *c, struct vmm_fpu *fpu)
{
    struct kvm_fpu f;
    int err = kvm__ioctl(c->fd, KVM_GET_FPU, &f);

    _Static_assert(sizeof f.fpr == sizeof fpu->st && sizeof f.xmm == sizeof fpu->xmm, "");
    if (err)
        return err;
    *fpu = (struct vmm_fpu){.fip = f.last_ip,
                            .fdp = f.last_dp,
                            .mxcsr = f.mxcsr,
                            .fcw = f.fcw,
                            .fsw = f.fsw,
                            .fop = f.last_opcode,
                            .ftw = f.ftwx};
    memcpy(fpu->st, f.fpr, sizeof f.fpr);
    memcpy(fpu->xmm, f.xmm, sizeof f.xmm);
    return 0;
}

VMM_DEF int hyp_set_fpu(struct hyp_cpu *c, const struct vmm_fpu *fpu)
{
    struct kvm_fpu f = {.fcw = fpu->fcw,
                        .fsw = fpu->fsw,
                        .ftwx = fpu->ftw,
                        .last_opcode = fpu->fop,
                        .last_ip = fpu->fip,
                        .last_dp = fpu->fdp,
                        .mxcsr = fpu->mxcsr};

    memcpy(f.fpr, fpu->st, sizeof f.fpr);
    memcpy(f.xmm, fpu->xmm, sizeof f.xmm);
    return kvm__ioctl(c->fd, KVM_SET_FPU, &f);
}
#endif /* x86 */

/* >>arm64 ------------------------------------------------------------------------- */
#if defined(__aarch64__)

static const char *const kvm__absent = "it needs a kernel that was booted at EL2 (dmesg tells)";

/* The PMU overflows on this PPI, as on most machines; the device tree says so. */
enum { KVM__PMU_INTID = 16 + 7, KVM__SPI = 32 };
/* Architected timers: KVM's, and everybody's, by Arm's Base System Architecture. */
enum { KVM__VTIMER_INTID = 27, KVM__PTIMER_INTID = 30, KVM__PFR0_GIC = 24 };
enum { KVM__V2M_SPIS = 256, KVM__V2M_SETSPI = 0x40, KVM__ITS_TRANSLATER = 0x10040 };

static bool kvm__is_old(const struct hyp *h)
{
    return !kvm__cap(h, KVM_CAP_ONE_REG) || !kvm__cap(h, KVM_CAP_ARM_PSCI_0_2) ||
           !kvm__cap(h, KVM_CAP_DEVICE_CTRL);
}

static int kvm__attr(int fd, uint32_t group, uint64_t attr, void *value)
{
    struct kvm_device_attr a = {.group = group, .attr = attr, .addr = (uintptr_t)value};

    return kvm__ioctl(fd, KVM_SET_DEVICE_ATTR, &a);
}

/* A device of KVM's, as a descriptor. */
static int kvm__device(const struct hyp *h, uint32_t type)
{
    struct kvm_create_device d = {.type = type};
    int err = kvm__ioctl(h->vm, KVM_CREATE_DEVICE, &d);

    return err ? err : (int)d.fd;
}

static bool kvm__has_device(const struct hyp *h, uint32_t type)
{
    struct kvm_create_device d = {.type = type, .flags = KVM_CREATE_DEVICE_TEST};

    return !kvm__ioctl(h->vm, KVM_CREATE_DEVICE, &d);
}

/* Before there is a VM; which GIC it gets, only the VM can tell. */
static unsigned kvm__find_caps(const struct hyp *h, const struct hyp_desc *desc)
{
    (void)desc;
    return (kvm__cap(h, KVM_CAP_IOEVENTFD) ? HYP_CAP_DOORBELL : 0u) |
           (kvm__cap(h, KVM_CAP_SET_GUEST_DEBUG) > 0 ? HYP_CAP_DEBUG : 0u);
}

/* Narrow addresses make short walks of the guest's page tables, so that the VM gets no more than it
   needs, and 40 bits, which every KVM gives, unless it needs more or the host has less. */
static unsigned long kvm__vm_type(struct hyp *h, const struct hyp_desc *desc)
{
    int max = kvm__cap(h, KVM_CAP_ARM_VM_IPA_SIZE);
    unsigned want = desc->gpa_bits > 40 ? desc->gpa_bits : 40;

    h->gpa_bits = max <= 0 ? 40 : want < (unsigned)max ? want : (unsigned)max;
    return max <= 0 ? 0 : KVM_VM_TYPE_ARM_IPA_SIZE(h->gpa_bits);
}

VMM_DEF unsigned hyp_gpa_bits(const struct hyp *h)
{
    return h->gpa_bits;
}

/* What vCPUs can have beyond the base: asked of KVM, a feature is a capability. */
static int kvm__find_features(struct hyp *h, const struct hyp_desc *desc)
{
    static const struct {
        enum hyp_feature bit;
        unsigned long cap;
        const char *name;
    } known[] = {{HYP_FEATURE_SVE, KVM_CAP_ARM_SVE, "SVE"},
                 {HYP_FEATURE_PAUTH, KVM_CAP_ARM_PTRAUTH_ADDRESS, "pointer authentication"},
                 {HYP_FEATURE_PMU, KVM_CAP_ARM_PMU_V3, "a PMU"}};

    for (unsigned i = 0; i < sizeof known / sizeof known[0]; i++) {
        bool has = kvm__cap(h, known[i].cap);
        if (!has && desc->features_need & known[i].bit)
            return vmm_err(h->log, -ENOTSUP, "this host's KVM has no %s for guests: leave it out",
                           known[i].name);
        if (has && (desc->features_need | desc->features_want) & known[i].bit)
            h->features |= known[i].bit;
    }
    h->caps |= h->features & HYP_FEATURE_PMU ? HYP_CAP_PMU : 0u;
    return 0;
}

/* PSCI starts all CPUs but the first. */
static int kvm__init_vcpu(const struct hyp *h, int fd, unsigned id)
{
    struct kvm_vcpu_init init;
    int sve = KVM_ARM_VCPU_SVE;
    int err = kvm__ioctl(h->vm, KVM_ARM_PREFERRED_TARGET, &init);

    if (err)
        return err;
    init.features[0] |= 1u << KVM_ARM_VCPU_PSCI_0_2;
    if (id > 0)
        init.features[0] |= 1u << KVM_ARM_VCPU_POWER_OFF;
    if (h->features & HYP_FEATURE_PMU)
        init.features[0] |= 1u << KVM_ARM_VCPU_PMU_V3;
    if (h->features & HYP_FEATURE_PAUTH)
        init.features[0] |= 1u << KVM_ARM_VCPU_PTRAUTH_ADDRESS | 1u << KVM_ARM_VCPU_PTRAUTH_GENERIC;
    if (h->features & HYP_FEATURE_SVE)
        init.features[0] |= 1u << KVM_ARM_VCPU_SVE;
    err = kvm__ioctl(fd, KVM_ARM_VCPU_INIT, &init);
    if (!err && h->features & HYP_FEATURE_SVE)
        err = kvm__ioctl(fd, KVM_ARM_VCPU_FINALIZE, &sve);
    return err;
}

/* Without KVM's interrupt controller its system registers are gone, of which the guest is not told
   where KVM lets us (from Linux 6.7 on): else a guest on a host with a GICv3 wonders about them. */
static void kvm__hide_gicv3(int fd)
{
    uint64_t val = 0;
    struct kvm_one_reg pfr0 = {KVM_REG_ARM64 | KVM_REG_SIZE_U64 | ARM64_SYS_REG(3, 0, 0, 4, 0),
                               (uintptr_t)&val};

    if (kvm__ioctl(fd, KVM_GET_ONE_REG, &pfr0))
        return;
    val &= ~(15ull << KVM__PFR0_GIC);
    (void)kvm__ioctl(fd, KVM_SET_ONE_REG, &pfr0);
}

static int kvm__create_cpus(struct hyp *h)
{
    for (unsigned i = 0; i < h->ncpus; i++) {
        int fd = kvm__create_cpu(h, i), err;
        if (fd < 0)
            return fd;
        h->cpu_fd[i] = fd;
        err = kvm__init_vcpu(h, fd, i);
        if (err)
            return vmm_err(h->log, err, "KVM refuses the features of CPU %u: %s", i,
                           strerror(-err));
        if (h->gic < 0)
            kvm__hide_gicv3(fd);
    }
    return 0;
}

/* Once the GIC is there, for the PMU has an interrupt. */
static int kvm__init_pmus(const struct hyp *h)
{
    int intid = KVM__PMU_INTID, err = 0;

    for (unsigned i = 0; i < h->ncpus && h->features & HYP_FEATURE_PMU && !err; i++) {
        if (h->gic >= 0)
            err = kvm__attr(h->cpu_fd[i], KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_IRQ, &intid);
        if (!err)
            err = kvm__attr(h->cpu_fd[i], KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_INIT, NULL);
    }
    return err ? vmm_err(h->log, err, "KVM refuses a PMU: %s; leave it out", strerror(-err)) : 0;
}

/* Distributor, redistributors one after the other, and the ITS for messages. */
static int kvm__create_gicv3(struct hyp *h, const struct vmm_gic *at)
{
    uint64_t dist = at->dist, redist = at->redist, its = at->its;
    int err;

    h->gic = kvm__device(h, KVM_DEV_TYPE_ARM_VGIC_V3);
    h->its = kvm__device(h, KVM_DEV_TYPE_ARM_VGIC_ITS);
    if (h->gic < 0 || h->its < 0)
        return h->gic < 0 ? h->gic : h->its;
    err = kvm__attr(h->gic, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, &dist);
    if (!err)
        err = kvm__attr(h->gic, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST, &redist);
    if (!err)
        err = kvm__attr(h->its, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_ITS_ADDR_TYPE, &its);
    h->caps |= HYP_CAP_GICV3;
    return err;
}

static int kvm__create_gicv2(struct hyp *h, const struct vmm_gic *at)
{
    uint64_t dist = at->dist, cpu = at->cpu;
    int err;

    h->gic = kvm__device(h, KVM_DEV_TYPE_ARM_VGIC_V2);
    if (h->gic < 0)
        return h->gic;
    err = kvm__attr(h->gic, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V2_ADDR_TYPE_DIST, &dist);
    if (!err)
        err = kvm__attr(h->gic, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V2_ADDR_TYPE_CPU, &cpu);
    h->v2m = at->v2m;
    return err;
}

/* The newest that host and KVM have; the VM must exist, for only it can be asked. */
static int kvm__create_gic(struct hyp *h, const struct hyp_desc *desc)
{
    bool v3 = kvm__has_device(h, KVM_DEV_TYPE_ARM_VGIC_V3);

    if (desc->no_irqchip && kvm__cap(h, KVM_CAP_ARM_USER_IRQ) <= 0)
        return vmm_err(h->log, -ENOTSUP,
                       "this host's KVM does not tell of timers without its interrupt controller: "
                       "use Linux 4.12 or newer");
    if (!desc->gic || desc->no_irqchip)
        return 0;
    if (!v3 && !kvm__has_device(h, KVM_DEV_TYPE_ARM_VGIC_V2))
        return vmm_err(h->log, -ENOTSUP,
                       "this host's KVM has no interrupt controller for guests (no GICv3, no "
                       "GICv2): use another host");
    if (!v3 && h->ncpus > 8)
        return vmm_err(h->log, -E2BIG,
                       "this host's interrupt controller is a GICv2, which serves 8 CPUs, not %u: "
                       "ask for fewer",
                       h->ncpus);
    h->caps |= HYP_CAP_IRQCHIP | HYP_CAP_MSI;
    return v3 ? kvm__create_gicv3(h, desc->gic) : kvm__create_gicv2(h, desc->gic);
}

/* Lines and bells work only after this, and it takes all vCPUs. */
static int kvm__init_gic(struct hyp *h)
{
    uint32_t nirqs = KVM__SPI + HYP_GSIS + (h->its < 0 ? KVM__V2M_SPIS : 0u);
    int err = kvm__attr(h->gic, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &nirqs);

    if (!err)
        err = kvm__attr(h->gic, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, NULL);
    if (!err && h->its >= 0)
        err = kvm__attr(h->its, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, NULL);
    return err;
}

/* An access to a device by an instruction that hardware does not describe comes out, if KVM can. */
static void kvm__let_odd_accesses_out(const struct hyp *h)
{
    struct kvm_enable_cap cap = {.cap = KVM_CAP_ARM_NISV_TO_USER};

    if (kvm__cap(h, KVM_CAP_ARM_NISV_TO_USER))
        (void)kvm__ioctl(h->vm, KVM_ENABLE_CAP, &cap);
}

static int kvm__arch_open(struct hyp *h, const struct hyp_desc *desc)
{
    int err = h->ncpus > HYP_CPUS_MAX ? -E2BIG : 0;

    if (err)
        return vmm_err(h->log, err, "at most %d CPUs, not %u: ask for fewer", HYP_CPUS_MAX,
                       h->ncpus);
    kvm__let_odd_accesses_out(h);
    err = kvm__find_features(h, desc);
    if (err)
        return err;
    err = kvm__create_gic(h, desc);
    if (err == -ENOTSUP || err == -E2BIG)
        return err;
    if (!err) {
        err = kvm__create_cpus(h);
        if (err)
            return err;
        err = h->gic >= 0 ? kvm__init_gic(h) : 0;
    }
    return err ? vmm_err(h->log, err, "KVM cannot create its interrupt controller: %s",
                         strerror(-err))
               : kvm__init_pmus(h);
}

static void kvm__arch_close(struct hyp *h)
{
    for (unsigned i = 0; i < HYP_CPUS_MAX; i++)
        if (h->cpu_fd[i] >= 0)
            close(h->cpu_fd[i]);
    if (h->its >= 0)
        close(h->its);
    if (h->gic >= 0)
        close(h->gic);
}

/* KVM names an SPI by its INTID. */
VMM_DEF void hyp_irq_set(struct hyp *h, unsigned gsi, bool level)
{
    struct kvm_irq_level line = {.irq = KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT |
                                        (KVM__SPI + gsi),
                                 .level = level};

    if (h->caps & HYP_CAP_IRQCHIP && gsi < HYP_GSIS)
        (void)kvm__ioctl(h->vm, KVM_IRQ_LINE, &line);
}

/* KVM takes levels of a CPU's inputs from any thread, and wakes the CPU. */
VMM_DEF void hyp_cpu_lines(struct hyp *h, unsigned cpu, unsigned lines)
{
    for (unsigned fiq = 0; fiq < 2; fiq++) {
        struct kvm_irq_level line = {.irq = KVM_ARM_IRQ_TYPE_CPU << KVM_ARM_IRQ_TYPE_SHIFT |
                                            cpu << KVM_ARM_IRQ_VCPU_SHIFT |
                                            (fiq ? KVM_ARM_IRQ_CPU_FIQ : KVM_ARM_IRQ_CPU_IRQ),
                                     .level = lines >> fiq & 1};
        (void)kvm__ioctl(h->vm, KVM_IRQ_LINE, &line);
    }
}

VMM_DEF uint32_t hyp_cpu_ppis(const struct hyp_cpu *c)
{
    const struct kvm_run *run = c->run;
    uint64_t levels = run->s.regs.device_irq_level;

    return (levels & KVM_ARM_DEV_EL1_VTIMER ? 1u << KVM__VTIMER_INTID : 0u) |
           (levels & KVM_ARM_DEV_EL1_PTIMER ? 1u << KVM__PTIMER_INTID : 0u) |
           (levels & KVM_ARM_DEV_PMU ? 1u << KVM__PMU_INTID : 0u);
}

static void kvm__first_routes(struct kvm_irq_routing *table)
{
    for (unsigned gsi = 0; gsi < HYP_GSIS; gsi++)
        table->entries[table->nr++] = (struct kvm_irq_routing_entry){
            .gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip.pin = gsi};
}

/* The ITS looks the message up by who sends it; a message to the v2m frame is the number of an
   SPI. */
static int kvm__route_message(const struct hyp *h, struct kvm_irq_routing_entry *e, uint64_t addr,
                              uint32_t data)
{
    const uint32_t first = KVM__SPI + HYP_GSIS;

    if (h->its >= 0) {
        e->type = KVM_IRQ_ROUTING_MSI;
        e->flags = KVM_MSI_VALID_DEVID;
        e->u.msi.address_lo = (uint32_t)addr;
        e->u.msi.address_hi = (uint32_t)(addr >> 32);
        e->u.msi.data = data;
        e->u.msi.devid = h->requester[e->gsi - HYP_GSIS];
        return 0;
    }
    if (addr != h->v2m + KVM__V2M_SETSPI || data < first || data >= first + KVM__V2M_SPIS)
        return -EINVAL;
    e->type = KVM_IRQ_ROUTING_IRQCHIP;
    e->u.irqchip.pin = data - KVM__SPI;
    return 0;
}

static int kvm__arch_create_cpu(struct hyp_cpu *c)
{
    int fd = c->id < c->hyp->ncpus ? c->hyp->cpu_fd[c->id] : -1;

    if (fd < 0)
        return vmm_err(c->hyp->log, -EEXIST, "CPU %u exists already, or is one too many", c->id);
    c->hyp->cpu_fd[c->id] = -1;
    return fd;
}

static int kvm__arch_init_cpu(struct hyp_cpu *c)
{
    (void)c; /* done by kvm__init_vcpu */
    return 0;
}

/* One of struct vmm_arm64_regs and KVM's name for it. */
struct kvm__reg {
    uint16_t at; /* in struct vmm_arm64_regs */
    uint64_t id;
};

#define KVM__REG(name, id) {offsetof(struct vmm_arm64_regs, name), KVM_REG_ARM64 | KVM_REG_SIZE_U64 | (id)}
#define KVM__CORE(name, field) KVM__REG(name, KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(field))
#define KVM__SYS(name, op1, crn, crm, op2) KVM__REG(name, ARM64_SYS_REG(3, op1, crn, crm, op2))
static const struct kvm__reg kvm__regs[] = {
    KVM__CORE(pc, regs.pc),
    KVM__CORE(pstate, regs.pstate),
    KVM__CORE(sp_el0, regs.sp),
    KVM__CORE(sp_el1, sp_el1),
    KVM__CORE(elr_el1, elr_el1),
    KVM__CORE(spsr_el1, spsr[KVM_SPSR_EL1]),
    KVM__SYS(esr_el1, 0, 5, 2, 0),
    KVM__SYS(far_el1, 0, 6, 0, 0),
    KVM__SYS(sctlr_el1, 0, 1, 0, 0),
    KVM__SYS(tcr_el1, 0, 2, 0, 2),
    KVM__SYS(ttbr0_el1, 0, 2, 0, 0),
    KVM__SYS(ttbr1_el1, 0, 2, 0, 1),
    KVM__SYS(mair_el1, 0, 10, 2, 0),
    KVM__SYS(vbar_el1, 0, 12, 0, 0),
    KVM__SYS(tpidr_el0, 3, 13, 0, 2),
    KVM__SYS(tpidr_el1, 0, 13, 0, 4),
};

/* Every register has a call of its own. */
static int kvm__move_regs(struct hyp_cpu *c, unsigned long request, struct vmm_regs *regs)
{
    struct kvm_one_reg one;
    int err = 0;

    for (unsigned i = 0; i < 31 && !err; i++) { /* x0 to x30 lie two words of 32 bits apart */
        one.id = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE |
                 (KVM_REG_ARM_CORE_REG(regs.regs[0]) + 2 * i);
        one.addr = (uintptr_t)&regs->x[i];
        err = kvm__ioctl(c->fd, request, &one);
    }
    for (unsigned i = 0; i < sizeof kvm__regs / sizeof kvm__regs[0] && !err; i++) {
        one.id = kvm__regs[i].id;
        one.addr = (uintptr_t)((char *)regs + kvm__regs[i].at);
        err = kvm__ioctl(c->fd, request, &one);
    }
    return err;
}

VMM_DEF int hyp_get_regs(struct hyp_cpu *c, struct vmm_regs *regs)
{
    return kvm__move_regs(c, KVM_GET_ONE_REG, regs);
}

VMM_DEF int hyp_set_regs(struct hyp_cpu *c, const struct vmm_regs *regs)
{
    struct vmm_regs copy = *regs;

    return kvm__move_regs(c, KVM_SET_ONE_REG, &copy);
}

static int kvm__move(struct hyp_cpu *c, unsigned long request, uint64_t id, void *at)
{
    struct kvm_one_reg one = {KVM_REG_ARM64 | id, (uintptr_t)at};

    return kvm__ioctl(c->fd, request, &one);
}

/* A guest with SVE has V as the low ends of Z, of which the rest stays. */
static int kvm__move_z(struct hyp_cpu *c, unsigned long request, unsigned n, uint8_t v[16])
{
    uint8_t z[256];
    int err = kvm__move(c, KVM_GET_ONE_REG, KVM_REG_ARM64_SVE_ZREG(n, 0), z);

    if (err || request == KVM_GET_ONE_REG) {
        memcpy(v, z, 16);
        return err;
    }
    memcpy(z, v, 16);
    return kvm__move(c, KVM_SET_ONE_REG, KVM_REG_ARM64_SVE_ZREG(n, 0), z);
}

static int kvm__move_fpu(struct hyp_cpu *c, unsigned long request, struct vmm_fpu *fpu)
{
    const uint64_t core = KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(fp_regs.vregs[0]);
    int err = 0;

    for (unsigned i = 0; i < 32 && !err; i++) /* four words of 32 bits apart */
        err = c->hyp->features & HYP_FEATURE_SVE
                  ? kvm__move_z(c, request, i, fpu->v[i])
                  : kvm__move(c, request, KVM_REG_SIZE_U128 | (core + 4 * i), fpu->v[i]);
    if (!err)
        err = kvm__move(c, request,
                        KVM_REG_SIZE_U32 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(fp_regs.fpsr),
                        &fpu->fpsr);
    return err ? err
               : kvm__move(c, request,
                           KVM_REG_SIZE_U32 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(fp_regs.fpcr),
                           &fpu->fpcr);
}

VMM_DEF int hyp_get_fpu(struct hyp_cpu *c, struct vmm_fpu *fpu)
{
    return kvm__move_fpu(c, KVM_GET_ONE_REG, fpu);
}

VMM_DEF int hyp_set_fpu(struct hyp_cpu *c, const struct vmm_fpu *fpu)
{
    struct vmm_fpu copy = *fpu;

    return kvm__move_fpu(c, KVM_SET_ONE_REG, &copy);
}

VMM_DEF void hyp_debug_slots(const struct hyp *h, unsigned *breaks, unsigned *watches)
{
    *breaks = (unsigned)kvm__cap(h, KVM_CAP_GUEST_DEBUG_HW_BPS);
    *watches = (unsigned)kvm__cap(h, KVM_CAP_GUEST_DEBUG_HW_WPS);
}

static void kvm__arm_slots(const struct vmm_debug *d, struct kvm_guest_debug_arch *regs)
{
    unsigned breaks = 0, watches = 0;

    for (unsigned i = 0; i < VMM_BREAKS; i++) {
        const struct vmm_break *b = &d->slot[i];
        uint64_t value, control = vmm_arm64_slot(b, &value);
        if (b->len && b->kind == VMM_BREAK_EXEC) {
            regs->dbg_bvr[breaks] = value;
            regs->dbg_bcr[breaks++] = control;
        } else if (b->len) {
            regs->dbg_wvr[watches] = value;
            regs->dbg_wcr[watches++] = control;
        }
    }
}

VMM_DEF int hyp_debug(struct hyp_cpu *c, const struct vmm_debug *d)
{
    struct kvm_guest_debug debug = {0};
    int err;

    c->debug = *d;
    kvm__arm_slots(d, &debug.arch);
    if (debug.arch.dbg_bcr[0] | debug.arch.dbg_wcr[0])
        debug.control |= KVM_GUESTDBG_USE_HW;
    if (d->traps)
        debug.control |= KVM_GUESTDBG_USE_SW_BP;
    if (d->step)
        debug.control |= KVM_GUESTDBG_SINGLESTEP;
    if (debug.control)
        debug.control |= KVM_GUESTDBG_ENABLE;
    err = kvm__ioctl(c->fd, KVM_SET_GUEST_DEBUG, &debug);
    return err ? vmm_err(c->hyp->log, err, "KVM cannot debug CPU %u: %s", c->id, strerror(-err))
               : 0;
}

/* While anything is debugged from here, KVM has all debug exceptions come out. */
VMM_DEF int hyp_debug_pass(struct hyp_cpu *c)
{
    const struct kvm_debug_exit_arch *debug = &((const struct kvm_run *)c->run)->debug.arch;
    struct vmm_regs regs;
    int err = hyp_get_regs(c, &regs);

    if (err)
        return err;
    vmm_arm64_take_debug(&regs, debug->hsr, debug->far);
    return hyp_set_regs(c, &regs);
}

static void kvm__exit_debug(struct hyp_cpu *c, struct vmm_exit *e)
{
    const struct kvm_debug_exit_arch *debug = &((const struct kvm_run *)c->run)->debug.arch;

    e->kind = VMM_EXIT_DEBUG;
    (void)kvm__move(c, KVM_GET_ONE_REG,
                    KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(regs.pc), &e->addr);
    e->code = vmm_arm64_why(&c->debug, debug->hsr, e->addr, debug->far);
}

/* What PSCI asks of the machine. Suspend to RAM is not offered, and a crash not a call of PSCI. */
static bool kvm__exit_system(const struct kvm_run *run, struct vmm_exit *e)
{
    if (run->system_event.type == KVM_SYSTEM_EVENT_SHUTDOWN)
        e->kind = VMM_EXIT_OFF;
    else if (run->system_event.type == KVM_SYSTEM_EVENT_RESET)
        e->kind = VMM_EXIT_RESET;
    else
        return false;
    return true;
}

static bool kvm__arch_exit(struct hyp_cpu *c, struct vmm_exit *e)
{
    const struct kvm_run *run = c->run;

    if (run->exit_reason == KVM_EXIT_SYSTEM_EVENT)
        return kvm__exit_system(run, e);
    if (run->exit_reason == KVM_EXIT_DEBUG) {
        kvm__exit_debug(c, e);
        return true;
    }
    if (run->exit_reason != KVM_EXIT_ARM_NISV)
        return false;
    kvm__fault(c, e, "the guest accesses a device by an instruction that cannot be emulated, at",
               run->arm_nisv.fault_ipa);
    return true;
}

/* Only while the guest's MMU is off: KVM does not translate addresses here. */
static unsigned kvm__fetch_insn(struct hyp_cpu *c)
{
    struct vmm_regs regs;
    const void *bytes;

    if (hyp_get_regs(c, &regs) || regs.sctlr_el1 & 1)
        return 0;
    bytes = vmm_at(&c->hyp->slots, regs.pc, sizeof c->insn);
    if (!bytes)
        return 0;
    memcpy(c->insn, bytes, sizeof c->insn);
    return sizeof c->insn;
}
#endif /* arm64 */

#endif /* HV_KVM_IMPLEMENTED */
#endif /* VMM_IMPLEMENTATION || HV_KVM_IMPLEMENTATION */
