/* shim_nvmm.c - NVMM for tests: its device, played on Linux's /dev/kvm     MIT licence, see LICENSE

   A program that is linked with --wrap=open,close,ioctl,mmap,munmap finds an NVMM at /dev/nvmm, whose
   guests run by KVM without any of its chips. It is strict: what the kernels with NVMM would refuse
   is refused, and what they would let pass to the harm of the guest ends the program with a sentence.
   Layouts are told here by offsets, not by the structures of hv_nvmm.h, so that a mistake in one is
   seen by the other.

   KVM comes out in the middle of an instruction where NVMM comes out before it. So each such exit is
   completed with nothing, and then the registers that were are put back: reads, IN, and MSRs are
   not carried out yet at the exit; a store to a device's memory and OUT may be, and are found again by
   decoding backwards: see >>undo.

   At a device's memory KVM stays in the middle of the instruction while hv_x86.h carries it out, if
   that is told here (shim_compare.h), and gets the same answers: each access of one must be the
   other's, by address, width, direction and bytes, and so must registers and flags at the end, or
   the exception. A difference ends the program: see >>compare.

   NVMM_SHIM in the environment, words: version=1|2|3, vmx (its capabilities; else SVM's), stats (counts
   of exits and of what was compared on standard error at the end), noise (what is read of devices'
   memory becomes random), lie (KVM's 100th result is changed, which must be noticed).

   Not played: CPUID and MONITOR exits, the undefined instructions that NVMM makes of VMMCALL, RDTSCP and
   RDPMC, the TSC that stands still in user space, windows for NMIs at the very IRET, instruction bytes
   from the processor, a stop flag that is seen without a signal. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shim_compare.h"

int __real_open(const char *path, int flags, ...);
int __real_close(int fd);
int __real_ioctl(int fd, int request, ...);
void *__real_mmap(void *at, size_t len, int prot, int flags, int fd, off_t off);
int __real_munmap(void *at, size_t len);
int __wrap_open(const char *path, int flags, ...);
int __wrap_close(int fd);
int __wrap_ioctl(int fd, int request, ...);
void *__wrap_mmap(void *at, size_t len, int prot, int flags, int fd, off_t off);
int __wrap_munmap(void *at, size_t len);

enum { PAGE = 4096, CPUS_MAX = 128, RANGES_MAX = 32, CONFS_MAX = 32, LEAVES_MAX = 128 };
#define MAX_RAM (128ull << 30)
#define MACHID  5u /* any but 0, which would hide that it is not passed on */

/* Parts of the state, in the shared page. */
enum { SEGS = 1, GPRS = 2, CRS = 4, DRS = 8, MSRS = 0x10, INTR = 0x20, FPU = 0x40, ALL = 0x7f };
enum {
    WANTED = 0,
    CACHED = 8,
    COMMIT = 16,
    STATE = 32,
    EVENT_COMMIT = 1040,
    EVENT = 1048,
    STOP = 1064
};
enum {
    S_SEGS = 0,
    S_GPRS = 160,
    S_CRS = 304,
    S_DRS = 352,
    S_MSRS = 400,
    S_INTR = 488,
    S_FPU = 496
};
enum { STATE_LEN = 1008 };
enum { I_SHADOW = 1, I_INT = 2, I_NMI = 4, I_PENDING = 8 };
enum { RIP = 16, RFLAGS = 17 };
enum { TF = 0x100, IF = 0x200, DF = 0x400, RF = 0x10000 };
static const char *const reg_names[18] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                          "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                          "r12", "r13", "r14", "r15", "rip", "rflags"};

struct shim_cpu {
    int fd;
    unsigned id;
    bool made, entered;
    uint8_t *comm;
    struct kvm_run *run;
    bool int_window, nmi_window;
    bool tpr_exits;
    unsigned nconf;
    struct {
        uint32_t what, leaf, set[4], del[4];
    } conf[CONFS_MAX];
    struct {
        bool under_way; /* KVM is in an instruction at a device's memory, or just behind it */
        bool asks;      /* it waits for an access, which c->run tells */
        bool over;      /* hv_x86.h is through, and was right */
        unsigned done;  /* bytes of what is asked that were dealt with, */
        unsigned size;  /* and that hv_x86.h deals with now */
        uint64_t cr2;   /* before it */
        struct kvm_regs before, theirs; /* theirs: where KVM is now */
        uint64_t ours[18];              /* once it is over */
    } insn;
};
static _Thread_local struct shim_cpu *running; /* by this thread */

static struct {
    pthread_mutex_t lock;
    int fd; /* the device; -1: not open */
    int vm;
    unsigned version;
    bool vmx, made, noise, lie;
    size_t run_len;
    struct {
        uintptr_t hva;
        uint64_t len;
    } range[RANGES_MAX];
    unsigned nranges;
    struct {
        uint64_t gpa, len;
        uint8_t *hva;
    } slot[RANGES_MAX];
    unsigned nslots;
    struct shim_cpu cpu[CPUS_MAX];
    unsigned long exits[20];
} shim = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1, .vm = -1};

enum shim_stat {
    N_NONE,
    N_MEMORY_READ,
    N_MEMORY_WRITE,
    N_IN,
    N_OUT,
    N_SHUTDOWN,
    N_INT_READY,
    N_NMI_READY,
    N_HALTED,
    N_TPR,
    N_RDMSR,
    N_WRMSR,
    N_STOPPED,
    N_INVALID,
    N_GETSTATE,
    N_ACCESSES, /* compared */
    N_INSNS,
    N_FAULTS,
    N_STATS
};
static const char *const stat_names[N_STATS] = {
    "none",      "memory-read", "memory-write", "in",       "out",          "shutdown",
    "int-ready", "nmi-ready",   "halted",       "tpr",      "rdmsr",        "wrmsr",
    "stopped",   "invalid",     "getstate",     "compared", "instructions", "faults"};

static void count(enum shim_stat n)
{
    __atomic_add_fetch(&shim.exits[n], 1, __ATOMIC_RELAXED);
}

/* A rule of NVMM's was broken in a way that its kernels would not notice. */
static void must(bool held, const char *rule)
{
    if (held)
        return;
    fprintf(stderr, "shim_nvmm: %s\n", rule);
    abort();
}

static uint64_t get(const void *p, size_t off, size_t len)
{
    uint64_t v = 0;

    memcpy(&v, (const uint8_t *)p + off, len);
    return v;
}

static void put(void *p, size_t off, size_t len, uint64_t v)
{
    memcpy((uint8_t *)p + off, &v, len);
}

static uint64_t get_state(const struct shim_cpu *c, size_t part, unsigned i)
{
    return get(c->comm, STATE + part + 8 * i, 8);
}

static void put_state(struct shim_cpu *c, size_t part, unsigned i, uint64_t v)
{
    put(c->comm, STATE + part + 8 * i, 8, v);
}

static int kvm(int fd, unsigned long request, void *arg)
{
    return __real_ioctl(fd, (int)request, arg);
}

/* >>state ------------------------------------------------------------------------------------- */

static struct kvm_regs *regs_of(const struct shim_cpu *c)
{
    return &c->run->s.regs.regs;
}

static struct kvm_sregs *sregs_of(const struct shim_cpu *c)
{
    return &c->run->s.regs.sregs;
}

/* Of the order that the encoding of instructions has, where KVM's begins with a, b, c, d. */
static __u64 *gpr_of(struct kvm_regs *r, unsigned i)
{
    __u64 *const all[18] = {&r->rax, &r->rcx, &r->rdx, &r->rbx, &r->rsp, &r->rbp,
                            &r->rsi, &r->rdi, &r->r8,  &r->r9,  &r->r10, &r->r11,
                            &r->r12, &r->r13, &r->r14, &r->r15, &r->rip, &r->rflags};

    return all[i];
}

static struct kvm_segment *seg_of(struct kvm_sregs *s, unsigned i)
{
    struct kvm_segment *const all[10] = {&s->es, &s->cs, &s->ss, &s->ds,  &s->fs,
                                         &s->gs, NULL,   NULL,   &s->ldt, &s->tr};

    return all[i];
}

static struct kvm_dtable *table_of(struct kvm_sregs *s, unsigned i)
{
    return i == 6 ? &s->gdt : &s->idt;
}

static void provide_segs(struct shim_cpu *c)
{
    for (unsigned i = 0; i < 10; i++) {
        uint8_t *to = c->comm + STATE + S_SEGS + 16 * i;
        const struct kvm_segment *s = seg_of(sregs_of(c), i);
        unsigned attrib = s ? s->type | s->s << 4 | s->dpl << 5 | s->present << 7 | s->avl << 8 |
                                  s->l << 9 | s->db << 10 | s->g << 11
                            : 0;
        put(to, 0, 2, s ? s->selector : 0);
        put(to, 2, 2, s && s->unusable ? attrib & ~0x80u : attrib);
        put(to, 4, 4, s ? s->limit : table_of(sregs_of(c), i)->limit);
        put(to, 8, 8, s ? s->base : table_of(sregs_of(c), i)->base);
    }
}

static void commit_segs(struct shim_cpu *c)
{
    for (unsigned i = 0; i < 10; i++) {
        const uint8_t *from = c->comm + STATE + S_SEGS + 16 * i;
        struct kvm_segment *s = seg_of(sregs_of(c), i);
        unsigned a = (unsigned)get(from, 2, 2);
        must(!(a >> 12), "reserved bits of a segment's attributes are set");
        if (!s) {
            table_of(sregs_of(c), i)->base = get(from, 8, 8);
            table_of(sregs_of(c), i)->limit = (uint16_t)get(from, 4, 4);
            continue;
        }
        *s = (struct kvm_segment){.base = get(from, 8, 8),
                                  .limit = (uint32_t)get(from, 4, 4),
                                  .selector = (uint16_t)get(from, 0, 2),
                                  .type = a & 15,
                                  .s = a >> 4 & 1,
                                  .dpl = a >> 5 & 3,
                                  .present = a >> 7 & 1,
                                  .avl = a >> 8 & 1,
                                  .l = a >> 9 & 1,
                                  .db = a >> 10 & 1,
                                  .g = a >> 11 & 1,
                                  .unusable = !(a & 0x80)};
    }
}

/* CR0, CR2, CR3, CR4, CR8, XCR0 */
static void provide_crs(struct shim_cpu *c)
{
    const struct kvm_sregs *s = sregs_of(c);
    const uint64_t cr[6] = {s->cr0, s->cr2, s->cr3, s->cr4, c->run->cr8, 1};

    for (unsigned i = 0; i < 6; i++)
        put_state(c, S_CRS, i, cr[i]);
}

static void commit_crs(struct shim_cpu *c)
{
    struct kvm_sregs *s = sregs_of(c);

    s->cr0 = get_state(c, S_CRS, 0);
    s->cr2 = get_state(c, S_CRS, 1);
    s->cr3 = get_state(c, S_CRS, 2);
    s->cr4 = get_state(c, S_CRS, 3);
    s->cr8 = c->run->cr8 = get_state(c, S_CRS, 4);
    must(s->cr8 < 16, "CR8 has more than four bits");
    must(get_state(c, S_CRS, 5) & 1, "XCR0 is without x87");
}

/* EFER is KVM's special register; then STAR, LSTAR, CSTAR, SFMASK, KERNELGSBASE, SYSENTER_CS, _ESP,
   _EIP, PAT, TSC. */
static const uint32_t msr_numbers[10] = {0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102,
                                         0x174,      0x175,      0x176,      0x277,      0x10};
struct msrs {
    struct kvm_msrs head;
    struct kvm_msr_entry entry[10];
};

static void provide_msrs(struct shim_cpu *c)
{
    struct msrs m = {.head.nmsrs = 10};

    for (unsigned i = 0; i < 10; i++)
        m.entry[i].index = msr_numbers[i];
    must(kvm(c->fd, KVM_GET_MSRS, &m) == 10, "KVM does not tell its MSRs");
    put_state(c, S_MSRS, 0, sregs_of(c)->efer);
    for (unsigned i = 0; i < 10; i++)
        put_state(c, S_MSRS, 1 + i, m.entry[i].data);
}

static void commit_msrs(struct shim_cpu *c)
{
    struct msrs m = {.head.nmsrs = 10};

    for (unsigned i = 0; i < 10; i++)
        m.entry[i] =
            (struct kvm_msr_entry){.index = msr_numbers[i], .data = get_state(c, S_MSRS, 1 + i)};
    must(kvm(c->fd, KVM_SET_MSRS, &m) == 10, "KVM refuses an MSR");
    sregs_of(c)->efer = get_state(c, S_MSRS, 0);
}

static bool is_pending(const struct shim_cpu *c)
{
    const struct kvm_vcpu_events *e = &c->run->s.regs.events;

    return e->exception.injected || e->exception.pending || e->interrupt.injected ||
           e->nmi.injected || e->nmi.pending;
}

static uint64_t intr_of(const struct shim_cpu *c)
{
    return (c->run->s.regs.events.interrupt.shadow ? I_SHADOW : 0) | (c->int_window ? I_INT : 0) |
           (c->nmi_window ? I_NMI : 0) | (is_pending(c) ? I_PENDING : 0);
}

static void commit_intr(struct shim_cpu *c)
{
    struct kvm_vcpu_events *e = &c->run->s.regs.events;
    uint64_t intr = get_state(c, S_INTR, 0);

    must(intr < 16, "reserved bits of the interrupt state are set");
    c->int_window = intr & I_INT;
    c->nmi_window = intr & I_NMI;
    if (!e->interrupt.shadow == !(intr & I_SHADOW))
        return;
    e->interrupt.shadow = intr & I_SHADOW ? KVM_X86_SHADOW_INT_STI : 0;
    e->flags = KVM_VCPUEVENT_VALID_SHADOW;
    must(!kvm(c->fd, KVM_SET_VCPU_EVENTS, e), "KVM refuses the interrupt shadow");
}

static void move_drs(struct shim_cpu *c, bool in)
{
    struct kvm_debugregs d = {0};

    must(!kvm(c->fd, KVM_GET_DEBUGREGS, &d), "KVM does not tell its debug registers");
    for (unsigned i = 0; i < 6; i++) {
        __u64 *reg = i < 4 ? &d.db[i] : i == 4 ? &d.dr6 : &d.dr7;
        if (in)
            *reg = get_state(c, S_DRS, i);
        else
            put_state(c, S_DRS, i, *reg);
    }
    must(!in || !kvm(c->fd, KVM_SET_DEBUGREGS, &d), "KVM refuses the debug registers");
}

/* As FXSAVE has it: control, status, tags, opcode, instruction, data, MXCSR and its mask, x87, XMM */
static void move_fpu(struct shim_cpu *c, bool in)
{
    uint8_t *x = c->comm + STATE + S_FPU;
    struct kvm_fpu f;

    must(!kvm(c->fd, KVM_GET_FPU, &f), "KVM does not tell its FPU");
    if (in) {
        f.fcw = (uint16_t)get(x, 0, 2);
        f.fsw = (uint16_t)get(x, 2, 2);
        f.ftwx = (uint8_t)get(x, 4, 1);
        f.last_opcode = (uint16_t)get(x, 6, 2);
        f.last_ip = get(x, 8, 8);
        f.last_dp = get(x, 16, 8);
        f.mxcsr = (uint32_t)get(x, 24, 4);
        memcpy(f.fpr, x + 32, 128);
        memcpy(f.xmm, x + 160, 256);
        must(!kvm(c->fd, KVM_SET_FPU, &f), "KVM refuses the FPU");
        return;
    }
    memset(x, 0, 512);
    put(x, 0, 2, f.fcw);
    put(x, 2, 2, f.fsw);
    put(x, 4, 1, f.ftwx);
    put(x, 6, 2, f.last_opcode);
    put(x, 8, 8, f.last_ip);
    put(x, 16, 8, f.last_dp);
    put(x, 24, 4, f.mxcsr);
    put(x, 28, 4, 0xffff);
    memcpy(x + 32, f.fpr, 128);
    memcpy(x + 160, f.xmm, 256);
}

/* What is not provided is garbage: who reads it all the same shall not get away with it. */
static void provide(struct shim_cpu *c, uint64_t parts)
{
    if (parts & SEGS)
        provide_segs(c);
    if (parts & GPRS)
        for (unsigned i = 0; i < 18; i++)
            put_state(c, S_GPRS, i, *gpr_of(regs_of(c), i));
    if (parts & CRS)
        provide_crs(c);
    if (parts & DRS)
        move_drs(c, false);
    if (parts & MSRS)
        provide_msrs(c);
    if (parts & INTR)
        put_state(c, S_INTR, 0, intr_of(c));
    if (parts & FPU)
        move_fpu(c, false);
    put(c->comm, CACHED, 8, get(c->comm, CACHED, 8) | parts);
}

static void commit(struct shim_cpu *c)
{
    uint64_t parts = get(c->comm, COMMIT, 8);

    must(!(parts & ~(uint64_t)ALL), "a part of the state that does not exist is committed");
    must(!(parts & ~get(c->comm, CACHED, 8)),
         "a part of the state is committed that is not cached");
    if (parts & SEGS)
        commit_segs(c);
    if (parts & GPRS)
        for (unsigned i = 0; i < 18; i++)
            *gpr_of(regs_of(c), i) = get_state(c, S_GPRS, i);
    if (parts & CRS)
        commit_crs(c);
    if (parts & DRS)
        move_drs(c, true);
    if (parts & MSRS)
        commit_msrs(c);
    if (parts & INTR)
        commit_intr(c);
    if (parts & FPU)
        move_fpu(c, true);
    memset(sregs_of(c)->interrupt_bitmap, 0, sizeof sregs_of(c)->interrupt_bitmap);
    if (parts & GPRS)
        c->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
    if (parts & (SEGS | CRS | MSRS))
        c->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
    put(c->comm, COMMIT, 8, 0);
}

static int get_state_call(struct shim_cpu *c)
{
    uint64_t wanted = get(c->comm, WANTED, 8);

    count(N_GETSTATE);
    must(!get(c->comm, COMMIT, 8) || !(wanted & get(c->comm, COMMIT, 8)),
         "a part of the state is asked for that waits to be committed");
    provide(c, wanted);
    put(c->comm, WANTED, 8, 0);
    return 0;
}

/* >>cpuid: KVM's, less what NVMM hides, as vCPUs' configurations change it --------------------- */

struct leaves {
    struct kvm_cpuid2 head;
    struct kvm_cpuid_entry2 entry[LEAVES_MAX];
};

static void hide(struct kvm_cpuid_entry2 *e)
{
    switch (e->function) {
    case 0:
        e->eax = e->eax < 0xd ? e->eax : 0xd;
        break;
    case 1: /* MONITOR VMX x2APIC TSC_DEADLINE AVX PCID; MCE MCA MTRR DS ACPI TM */
        e->ecx &= ~(1u << 3 | 1u << 5 | 1u << 17 | 1u << 21 | 1u << 24 | 1u << 28);
        e->edx &= ~(1u << 7 | 1u << 12 | 1u << 14 | 1u << 21 | 1u << 22 | 1u << 29);
        e->ecx |= 1u << 31;
        break;
    case 7: /* AVX2 INVPCID RTM HLE SGX TSC_ADJUST MPX AVX512; PKU */
        e->ebx &=
            ~(1u << 1 | 1u << 2 | 1u << 4 | 1u << 5 | 1u << 10 | 1u << 11 | 1u << 14 | 0xdc230000u);
        e->ecx = e->edx = 0;
        break;
    case 0xd:
        e->eax = e->index == 0 ? 3 : e->eax & 1;
        e->ebx = e->ecx = e->index == 0 ? 576 : 0;
        e->edx = 0;
        break;
    case 0x80000001: /* SVM, RDTSCP */
        e->ecx &= ~(1u << 2);
        e->edx &= ~(1u << 27);
        break;
    }
}

static bool is_shown(const struct kvm_cpuid_entry2 *e)
{
    uint32_t f = e->function;

    if (f == 4 || f == 5 || f == 6 || (f >= 8 && f <= 0xc) || (f > 0xd && f < 0x80000000))
        return false;
    return f != 0xd || e->index < 2;
}

static struct kvm_cpuid_entry2 *find_leaf(struct leaves *l, uint32_t leaf)
{
    for (unsigned i = 0; i < l->head.nent; i++)
        if (l->entry[i].function == leaf)
            return &l->entry[i];
    must(l->head.nent < LEAVES_MAX, "too many leaves");
    l->entry[l->head.nent] = (struct kvm_cpuid_entry2){.function = leaf};
    return &l->entry[l->head.nent++];
}

static void change_leaf(const struct shim_cpu *c, struct kvm_cpuid_entry2 *e)
{
    uint32_t *const reg[4] = {&e->eax, &e->ebx, &e->ecx, &e->edx};

    for (unsigned i = 0; i < c->nconf; i++)
        for (unsigned r = 0; r < 4 && c->conf[i].leaf == e->function; r++)
            *reg[r] = (*reg[r] & ~c->conf[i].del[r]) | c->conf[i].set[r];
}

static void set_cpuid(struct shim_cpu *c)
{
    static struct leaves all;
    struct leaves l = {0};

    pthread_mutex_lock(&shim.lock);
    all.head.nent = LEAVES_MAX;
    must(!kvm(shim.fd, KVM_GET_SUPPORTED_CPUID, &all), "KVM does not tell its CPUID");
    for (unsigned i = 0; i < all.head.nent; i++)
        if (is_shown(&all.entry[i])) {
            hide(&all.entry[i]);
            l.entry[l.head.nent++] = all.entry[i];
        }
    pthread_mutex_unlock(&shim.lock);
    *find_leaf(&l, 0x40000000) = (struct kvm_cpuid_entry2){.function = 0x40000000,
                                                           .eax = 0x40000000,
                                                           .ebx = 0x205f5f5f,
                                                           .ecx = 0x4d4d564e,
                                                           .edx = 0x5f5f5f20};
    find_leaf(&l, 1)->ebx = (find_leaf(&l, 1)->ebx & 0xffff) | c->id << 24;
    for (unsigned i = 0; i < c->nconf; i++)
        find_leaf(&l, c->conf[i].leaf);
    for (unsigned i = 0; i < l.head.nent; i++)
        change_leaf(c, &l.entry[i]);
    must(!kvm(c->fd, KVM_SET_CPUID2, &l), "KVM refuses the CPUID");
}

static int configure_cpuid(struct shim_cpu *c, const void *conf)
{
    uint32_t what = (uint32_t)get(conf, 0, 4), leaf = (uint32_t)get(conf, 4, 4);
    unsigned i = 0;

    if (what > 2)
        return EINVAL;
    while (i < c->nconf && c->conf[i].leaf != leaf)
        i++;
    if (i == CONFS_MAX)
        return ENOBUFS;
    for (unsigned r = 0; r < 4; r++) {
        c->conf[i].set[r] = (uint32_t)get(conf, 8 + 4 * r, 4);
        c->conf[i].del[r] = (uint32_t)get(conf, 24 + 4 * r, 4);
        if (what == 1 && c->conf[i].set[r] & c->conf[i].del[r])
            return EINVAL;
    }
    must(what == 1, "exits of CPUID are not played");
    must(!c->entered, "CPUID of a vCPU that ran is not played");
    c->conf[i].what = what;
    c->conf[i].leaf = leaf;
    c->nconf += i == c->nconf;
    return 0;
}

/* >>undo: what KVM did is found again, and undone ----------------------------------------------- */

static uint8_t *host_at(uint64_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < shim.nslots; i++)
        if (gpa >= shim.slot[i].gpa && gpa - shim.slot[i].gpa < shim.slot[i].len &&
            len <= shim.slot[i].len - (gpa - shim.slot[i].gpa))
            return shim.slot[i].hva + (gpa - shim.slot[i].gpa);
    return NULL;
}

static bool translate(struct shim_cpu *c, uint64_t gva, uint64_t *gpa)
{
    struct kvm_translation t = {.linear_address = gva};

    if ((gva >> 47 && gva >> 47 != 0x1ffff) || kvm(c->fd, KVM_TRANSLATE, &t) || !t.valid)
        return false; /* KVM looks at 48 bits */
    *gpa = t.physical_address;
    return true;
}

static unsigned code_bits(struct shim_cpu *c)
{
    const struct kvm_sregs *s = sregs_of(c);

    return !(s->cr0 & 1)                                 ? 16
           : s->efer & 1 << 10 && s->cs.l                ? 64
           : s->cs.db && !(regs_of(c)->rflags & 1 << 17) ? 32
                                                         : 16;
}

/* Code at `at`, relative to its segment; false: it cannot be had. */
static bool fetch(struct shim_cpu *c, uint64_t at, uint8_t *bytes, unsigned len)
{
    uint64_t gva = (code_bits(c) == 64 ? 0 : sregs_of(c)->cs.base) + at, gpa = 0;

    for (unsigned i = 0; i < len; i++, gpa++) {
        const uint8_t *p;
        if ((!i || !((gva + i) % PAGE)) && !translate(c, gva + i, &gpa))
            return false;
        p = host_at(gpa, 1);
        if (!p)
            return false;
        bytes[i] = *p;
    }
    return true;
}

/* An instruction with its prefixes; len 0: it is none that is looked for here. */
struct insn {
    unsigned len, op, size, asize, rex;
    int seg;
    bool rep;
    uint8_t modrm, sib;
    int64_t disp;
    uint64_t imm;
};

static bool is_prefix(struct insn *n, uint8_t b, unsigned bits)
{
    static const uint8_t segs[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};

    for (int i = 0; i < 6; i++)
        if (b == segs[i]) {
            n->seg = i;
            return true;
        }
    if (b == 0x66)
        n->size = bits == 16 ? 4 : 2;
    else if (b == 0x67)
        n->asize = bits == 32 ? 2 : 4;
    else if (b == 0xf2 || b == 0xf3)
        n->rep = true;
    else
        return false;
    return true;
}

static unsigned decode_modrm(struct insn *n, const uint8_t *b, unsigned at)
{
    unsigned mod, rm, disp;

    n->modrm = b[at++];
    mod = n->modrm >> 6;
    rm = n->modrm & 7;
    if (mod == 3)
        return 0;
    if (n->asize == 2) {
        disp = mod == 1 ? 1 : mod == 2 || rm == 6 ? 2 : 0;
    } else {
        if (rm == 4)
            n->sib = b[at++];
        disp = mod == 1 ? 1 : mod == 2 || rm == 5 || (rm == 4 && (n->sib & 7) == 5) ? 4 : 0;
    }
    n->disp = disp == 1   ? (int8_t)b[at]
              : disp == 2 ? (int16_t)get(b, at, 2)
              : disp == 4 ? (int32_t)get(b, at, 4)
                          : 0;
    return at + disp;
}

enum { MOV_SEG = 0x8c, POP = 0x8f, PUSH = 0xff, MOVNTI = 0x1c3, MOVBE = 0x2f1 };

static bool has_modrm(unsigned op)
{
    return op == 0x88 || op == 0x89 || op == 0xc6 || op == 0xc7 || op == MOV_SEG || op == POP ||
           op == PUSH || op == MOVNTI || op == MOVBE;
}

static bool is_string_op(unsigned op)
{
    return op == 0xaa || op == 0xab || op == 0xa4 || op == 0xa5 || op == 0x6e || op == 0x6f;
}

static unsigned decode_opcode(struct insn *n, const uint8_t *b, unsigned bits)
{
    unsigned at = 0;

    while (at < 12 && is_prefix(n, b[at], bits))
        at++;
    if (bits == 64 && (b[at] & 0xf0) == 0x40)
        n->rex = b[at++];
    n->op = b[at++];
    if (n->op == 0x0f)
        n->op = 0x100 | b[at++];
    if (n->op == 0x138)
        n->op = 0x200 | b[at++];
    return at;
}

/* Bytes that are moved. */
static unsigned width(const struct insn *n, unsigned bits)
{
    if (n->op == MOV_SEG)
        return 2;
    if ((n->op == POP || n->op == PUSH) && bits == 64)
        return n->size == 2 && !(n->rex & 8) ? 2 : 8;
    if (n->op == MOVNTI)
        return n->rex & 8 ? 8 : 4;
    if (!(n->op & 1))
        return 1;
    if (n->op == 0x6f || n->op == 0xef || n->op == 0xe7)
        return n->size;
    return n->rex & 8 ? 8 : n->size;
}

/* Stores: MOV 88, 89, 8C, C6, C7, A2, A3, MOVNTI, MOVBE, PUSH, POP, STOS, MOVS; and OUT, OUTS. b has 16
   bytes and then some. */
static struct insn decode(const uint8_t *b, unsigned bits)
{
    struct insn n = {.size = bits == 16 ? 2 : 4, .asize = bits / 8, .seg = -1};
    unsigned at = decode_opcode(&n, b, bits);

    if (has_modrm(n.op)) {
        at = decode_modrm(&n, b, at);
        if (!at || ((n.op >= 0xc6 && n.op < PUSH) && n.modrm >> 3 & 7) ||
            (n.op == PUSH && (n.modrm >> 3 & 7) != 6))
            return n;
    } else if (n.op == 0xa2 || n.op == 0xa3) {
        n.disp = (int64_t)get(b, at, n.asize);
        at += n.asize;
    } else if (n.op == 0xe6 || n.op == 0xe7) {
        n.imm = b[at++];
    } else if (!is_string_op(n.op) && n.op != 0xee && n.op != 0xef) {
        return n;
    }
    n.size = width(&n, bits);
    if (n.op == 0xc6 || n.op == 0xc7) {
        unsigned len = n.size > 4 ? 4 : n.size;
        n.imm = len == 1   ? b[at]
                : len == 2 ? get(b, at, 2)
                           : (uint64_t)(int64_t)(int32_t)get(b, at, 4);
        at += len;
    }
    n.len = at <= 15 ? at : 0;
    return n;
}

static uint64_t reg(struct shim_cpu *c, unsigned i)
{
    return *gpr_of(regs_of(c), i);
}

static uint64_t mask_of(unsigned bytes)
{
    return bytes >= 8 ? ~0ull : (1ull << 8 * bytes) - 1;
}

static uint64_t seg_base(struct shim_cpu *c, int seg)
{
    return code_bits(c) == 64 && seg < 4 ? 0 : seg_of(sregs_of(c), (unsigned)seg)->base;
}

static uint64_t address16(struct shim_cpu *c, const struct insn *n, int *seg)
{
    static const int8_t base[8] = {3, 3, 5, 5, 6, 7, 5, 3}, index[8] = {6, 7, 6, 7, -1, -1, -1, -1};
    unsigned rm = n->modrm & 7;
    uint64_t ea = (uint64_t)n->disp;

    if (rm != 6 || n->modrm >> 6) {
        ea += reg(c, (unsigned)base[rm]);
        *seg = base[rm] == 5 ? 2 : 3;
    }
    return index[rm] >= 0 ? ea + reg(c, (unsigned)index[rm]) : ea;
}

static uint64_t linear(struct shim_cpu *c, int seg, uint64_t ea)
{
    uint64_t gva = seg_base(c, seg) + ea;

    return code_bits(c) == 64 ? gva : (uint32_t)gva;
}

static uint64_t address32(struct shim_cpu *c, const struct insn *n, uint64_t end, int *seg)
{
    unsigned mod = n->modrm >> 6, rm = n->modrm & 7, base = rm, index = 4;
    uint64_t ea = (uint64_t)n->disp;

    if (rm == 4) {
        base = n->sib & 7;
        index = (n->sib >> 3 & 7) | (n->rex & 2 ? 8u : 0);
        if (index != 4)
            ea += reg(c, index) << (n->sib >> 6);
    }
    if (base == 5 && mod == 0)
        return rm == 5 && code_bits(c) == 64 ? ea + end : ea;
    if (base == 4 || base == 5)
        *seg = n->rex & 1 ? 3 : 2;
    return ea + reg(c, base | (n->rex & 1 ? 8u : 0));
}

/* The operand in memory of `n`, which ends at `end`. */
static uint64_t address(struct shim_cpu *c, const struct insn *n, uint64_t end)
{
    bool moffs = n->op == 0xa2 || n->op == 0xa3;
    int seg = 3;
    uint64_t ea;

    ea = moffs           ? (uint64_t)n->disp
         : n->asize == 2 ? address16(c, n, &seg)
                         : address32(c, n, end, &seg);
    return linear(c, n->seg < 0 ? seg : n->seg, ea & mask_of(n->asize));
}

static uint64_t value(struct shim_cpu *c, const struct insn *n)
{
    unsigned r = (n->modrm >> 3 & 7) | (n->rex & 4 ? 8u : 0);

    if (n->op == 0xc6 || n->op == 0xc7)
        return n->imm;
    if (n->op == 0xa2 || n->op == 0xa3)
        return reg(c, 0);
    if (n->op == 0x88 && !n->rex && r >= 4)
        return reg(c, r - 4) >> 8;
    if (n->op == MOV_SEG)
        return r < 6 ? seg_of(sregs_of(c), r)->selector : 0;
    if (n->op == MOVBE)
        return __builtin_bswap64(reg(c, r)) >> (64 - 8 * n->size);
    return reg(c, r);
}

/* Whether what KVM wrote is that of a store, or its only or first part that is a device's; *skip: bytes
   before it, in another page. */
static bool is_part(struct shim_cpu *c, uint64_t gva, unsigned size, unsigned *skip)
{
    unsigned room = PAGE - (unsigned)(gva % PAGE), len = c->run->mmio.len;
    uint64_t gpa;

    *skip = 0;
    if (translate(c, gva, &gpa) && gpa == c->run->mmio.phys_addr)
        return len == (size < room ? size : room);
    *skip = room;
    return room < size && len == size - room && translate(c, gva + room, &gpa) &&
           gpa == c->run->mmio.phys_addr;
}

static bool reads(struct shim_cpu *c, uint64_t gva, uint8_t *to, unsigned len)
{
    uint64_t gpa;

    for (unsigned i = 0; i < len; i++) {
        const uint8_t *p = translate(c, gva + i, &gpa) ? host_at(gpa, 1) : NULL;
        if (!p)
            return false;
        to[i] = *p;
    }
    return true;
}

/* Whether that is what KVM did, before which RSP was another. */
static bool is_push_or_pop(struct shim_cpu *c, const struct insn *n)
{
    uint64_t now = regs_of(c)->rsp, stack, operand;
    unsigned skip, len = c->run->mmio.len;
    bool push = n->op == PUSH;
    uint8_t from[8];

    if (push)
        regs_of(c)->rsp += n->size; /* addresses are made of that */
    stack = linear(c, 2, regs_of(c)->rsp - n->size);
    operand = address(c, n, regs_of(c)->rip);
    if (!push)
        regs_of(c)->rsp -= n->size;
    if (is_part(c, push ? stack : operand, n->size, &skip) &&
        reads(c, (push ? operand : stack) + skip, from, len) &&
        !memcmp(from, c->run->mmio.data, len))
        return true;
    regs_of(c)->rsp = now;
    return false;
}

static bool is_mov(struct shim_cpu *c, const struct insn *n)
{
    const struct kvm_run *run = c->run;
    unsigned skip;

    if (is_string_op(n->op) || n->op == 0xee || n->op == 0xef || n->op == 0xe6 || n->op == 0xe7)
        return false;
    return is_part(c, address(c, n, regs_of(c)->rip), n->size, &skip) &&
           get(run->mmio.data, 0, run->mmio.len) ==
               (value(c, n) >> 8 * skip & mask_of(run->mmio.len));
}

/* The store that KVM did, as a plain MOV or the like that ends where the instruction pointer is now. */
static bool undo_mov(struct shim_cpu *c, const uint8_t *before, unsigned max)
{
    for (unsigned len = 2; len <= max; len++) {
        struct insn n = decode(before + max - len, code_bits(c));
        if (n.len != len || !(n.op == PUSH || n.op == POP ? is_push_or_pop(c, &n) : is_mov(c, &n)))
            continue;
        regs_of(c)->rip -= len;
        return true;
    }
    return false;
}

/* A string instruction has moved its registers on by one; with REP it may stand at itself still. */
static void undo_string(struct shim_cpu *c, const struct insn *n, uint64_t start)
{
    struct kvm_regs *r = regs_of(c);
    int64_t step = r->rflags & DF ? -(int64_t)n->size : (int64_t)n->size;
    uint64_t mask = mask_of(n->asize);
    bool outs = n->op == 0x6e || n->op == 0x6f;

    if (n->op != 0xaa && n->op != 0xab)
        r->rsi = (r->rsi & ~mask) | ((r->rsi - (uint64_t)step) & mask);
    if (!outs)
        r->rdi = (r->rdi & ~mask) | ((r->rdi - (uint64_t)step) & mask);
    if (n->rep)
        r->rcx = (r->rcx & ~mask) | ((r->rcx + 1) & mask);
    r->rip = start;
}

/* Whether STOS or MOVS, whose registers are as before it, writes what KVM wrote. */
static bool is_string_store(struct shim_cpu *c, const struct insn *n)
{
    const struct kvm_regs *r = regs_of(c);
    unsigned skip, len = c->run->mmio.len;
    uint64_t mask = mask_of(n->asize), rax = r->rax;
    uint8_t from[8];

    if (!is_part(c, linear(c, 0, r->rdi & mask), n->size, &skip))
        return false;
    if (n->op == 0xaa || n->op == 0xab)
        memcpy(from, (uint8_t *)&rax + skip, len);
    else if (!reads(c, linear(c, n->seg < 0 ? 3 : n->seg, r->rsi & mask) + skip, from, len))
        return false;
    return !memcmp(from, c->run->mmio.data, len);
}

/* The string instruction that brought KVM out: by what it writes, or by its port's width. */
static bool undo_if_string(struct shim_cpu *c, const struct insn *n, uint64_t start,
                           unsigned port_size)
{
    struct kvm_regs were = *regs_of(c);
    bool outs = n->op == 0x6e || n->op == 0x6f;

    if (!n->len || !is_string_op(n->op) || outs != (port_size != 0) ||
        (outs && n->size != port_size))
        return false;
    undo_string(c, n, start);
    if (outs || is_string_store(c, n))
        return true;
    *regs_of(c) = were;
    return false;
}

/* With REP KVM stands at the instruction still, even after the last time. */
static bool undo_strings(struct shim_cpu *c, const uint8_t *before, unsigned max,
                         unsigned port_size)
{
    uint64_t rip = regs_of(c)->rip;
    unsigned room =
        PAGE - (unsigned)((code_bits(c) == 64 ? rip : sregs_of(c)->cs.base + rip) % PAGE);
    uint8_t at[32] = {0};
    struct insn n;

    if (fetch(c, rip, at, 8) || fetch(c, rip, at, room)) {
        n = decode(at, code_bits(c));
        if (n.rep && undo_if_string(c, &n, rip, port_size))
            return true;
    }
    for (unsigned len = 1; len <= max; len++) {
        n = decode(before + max - len, code_bits(c));
        if (n.len == len && !n.rep && undo_if_string(c, &n, rip - len, port_size))
            return true;
    }
    return false;
}

/* The bytes before the instruction pointer, zeroes behind them. */
static unsigned look_back(struct shim_cpu *c, uint8_t before[32])
{
    unsigned max = 15;
    uint64_t rip = regs_of(c)->rip;

    memset(before, 0, 32);
    while (max && (rip < max || !fetch(c, rip - max, before, max)))
        max--;
    return max;
}

static void undo_store(struct shim_cpu *c)
{
    uint8_t before[32];
    unsigned max = look_back(c, before);

    if (undo_mov(c, before, max) || undo_strings(c, before, max, 0))
        return;
    fprintf(stderr,
            "shim_nvmm: a store of %u bytes to 0x%llx that is not known, before rip 0x%llx:",
            c->run->mmio.len, c->run->mmio.phys_addr, regs_of(c)->rip);
    for (unsigned i = 0; i < max; i++)
        fprintf(stderr, " %02x", before[i]);
    fprintf(stderr, "\n");
    abort();
}

/* KVM goes on with nothing read, until the instruction is over. */
static void finish(struct shim_cpu *c)
{
    struct kvm_run *run = c->run;
    int ret;

    run->immediate_exit = 1;
    do {
        if (run->exit_reason == KVM_EXIT_MMIO)
            memset(run->mmio.data, 0, sizeof run->mmio.data);
        else if (run->exit_reason == KVM_EXIT_IO)
            memset((uint8_t *)run + run->io.data_offset, 0, run->io.size * run->io.count);
        ret = kvm(c->fd, KVM_RUN, NULL);
    } while (!ret);
    must(errno == EINTR, "KVM does not finish an instruction");
    run->immediate_exit = 0;
}

/* KVM has done the instruction, and so a trap is due that NVMM does not know of. */
static void drop_trap(struct shim_cpu *c)
{
    struct kvm_vcpu_events *e = &c->run->s.regs.events;
    struct kvm_debugregs d;

    if (!(regs_of(c)->rflags & TF) || !e->exception.injected || e->exception.nr != 1)
        return;
    e->exception.injected = e->exception.pending = 0;
    e->flags = 0;
    must(!kvm(c->fd, KVM_SET_VCPU_EVENTS, e), "KVM does not forget a trap");
    must(!kvm(c->fd, KVM_GET_DEBUGREGS, &d), "KVM does not tell its debug registers");
    d.dr6 &= ~0x4000ull;
    must(!kvm(c->fd, KVM_SET_DEBUGREGS, &d), "KVM refuses the debug registers");
}

/* Registers as they were at the instruction; returns where the next one is. */
static uint64_t roll_back(struct shim_cpu *c)
{
    struct kvm_regs were = *regs_of(c);
    uint64_t npc;

    finish(c);
    npc = regs_of(c)->rip;
    *regs_of(c) = were;
    drop_trap(c);
    c->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
    return npc;
}

/* >>compare: KVM's own decoding and carrying out of an instruction, beside hv_x86.h's --------------- */

/* What KVM asks for, or still asks for. */
static struct shim_access asked(const struct shim_cpu *c, uint8_t **data)
{
    struct kvm_run *run = c->run;
    unsigned done = c->insn.done;
    bool port = run->exit_reason == KVM_EXIT_IO;

    *data = (port ? (uint8_t *)run + run->io.data_offset : run->mmio.data) + done;
    if (port)
        return (struct shim_access){.at = run->io.port,
                                    .size = run->io.size * run->io.count - done,
                                    .write = run->io.direction == KVM_EXIT_IO_OUT,
                                    .port = true,
                                    .data = *data};
    return (struct shim_access){.at = run->mmio.phys_addr + done,
                                .size = run->mmio.len - done,
                                .write = run->mmio.is_write,
                                .data = *data};
}

static const char *describe(char text[96], const struct shim_access *a)
{
    int n = snprintf(text, 96, "%s %u bytes at %s0x%llx", a->write ? "writes" : "reads", a->size,
                     a->port ? "port " : "", (unsigned long long)a->at);

    for (unsigned i = 0; a->write && i < a->size && n < 90; i++)
        n += snprintf(text + n, 96 - (size_t)n, "%s%02x", i ? " " : ": ", a->data[i]);
    return text;
}

static _Noreturn void differ(const struct shim_step *s, const char *ours, const char *theirs)
{
    fprintf(stderr, "shim_nvmm: at 0x%llx, instruction", running->insn.before.rip);
    for (unsigned i = 0; i < s->len; i++)
        fprintf(stderr, " %02x", s->insn[i]);
    fprintf(stderr, ": hv_x86.h %s, KVM %s\n", ours, theirs);
    abort();
}

/* KVM goes on with the answer to what it asked; or enters the guest, for the next iteration of a REP. */
static void go_on(struct shim_cpu *c, bool enter)
{
    struct kvm_run *run = c->run;
    int ret;

    run->immediate_exit = !enter;
    run->request_interrupt_window = 0;
    do
        ret = kvm(c->fd, KVM_RUN, NULL);
    while (enter && ret && errno == EINTR);
    run->immediate_exit = 0;
    must(!ret || errno == EINTR, "KVM does not finish an instruction");
    must(ret || run->exit_reason == KVM_EXIT_MMIO || run->exit_reason == KVM_EXIT_IO,
         "KVM ends in the middle of an instruction");
    c->insn.asks = !ret;
    c->insn.done = 0;
    c->insn.theirs = *regs_of(c);
    *regs_of(c) = c->insn.before;
}

/* False: there is none. */
static bool drop_exception(struct shim_cpu *c)
{
    struct kvm_vcpu_events *e = &c->run->s.regs.events;

    if (!e->exception.injected && !e->exception.pending)
        return false;
    e->flags = 0;
    e->exception.injected = e->exception.pending = 0;
    must(!kvm(c->fd, KVM_SET_VCPU_EVENTS, e), "KVM keeps an exception");
    return true;
}

/* A width that is none of the processor's, at the end of a page, comes in several accesses of hv_x86.h's. */
static void compare_access(struct shim_cpu *c, const struct shim_step *s)
{
    const struct shim_access *a = &s->access;
    struct shim_access k;
    char ours[96], theirs[96];
    uint8_t *data;
    bool split;

    if (!c->insn.asks && c->insn.theirs.rip == c->insn.before.rip)
        go_on(c, true);
    if (!c->insn.asks)
        differ(s, describe(ours, a), "is through");
    k = asked(c, &data);
    split = c->insn.done || k.size & (k.size - 1);
    if (a->at != k.at || a->write != k.write || a->port != k.port ||
        (split ? a->size > k.size : a->size != k.size) ||
        (a->write && memcmp(a->data, k.data, a->size) != 0))
        differ(s, describe(ours, a), describe(theirs, &k));
    c->insn.size = a->size;
    count(N_ACCESSES);
}

static uint64_t *their_reg(struct shim_cpu *c, unsigned i)
{
    return (uint64_t *)gpr_of(&c->insn.theirs, i);
}

/* A REP whose count has become 0 KVM leaves to the processor to leave. Where hv_x86.h ends a batch of
   its own, KVM may ask for more already, and then has flags of before. TF is the debugger's. */
static void compare_end(struct shim_cpu *c, const struct shim_step *s)
{
    char ours[96], theirs[96];
    bool midway = c->insn.asks;
    struct shim_access k;
    uint8_t *data;

    if (midway && s->reg[RIP] != c->insn.before.rip) {
        k = asked(c, &data);
        differ(s, "is through", describe(theirs, &k));
    }
    if (!midway && s->count_mask && !(c->insn.theirs.rcx & s->count_mask) &&
        c->insn.theirs.rip == c->insn.before.rip)
        c->insn.theirs.rip += s->len;
    count(N_INSNS);
    if (shim.lie && shim.exits[N_INSNS] == 100)
        c->insn.theirs.rax ^= 1;
    for (unsigned i = 0; i < 18; i++) {
        uint64_t mask = i < RFLAGS ? ~0ull : midway ? 0 : ~(s->undefined | RF | TF);
        if (!((s->reg[i] ^ *their_reg(c, i)) & mask))
            continue;
        snprintf(ours, sizeof ours, "leaves 0x%llx in %s", (unsigned long long)s->reg[i],
                 reg_names[i]);
        snprintf(theirs, sizeof theirs, "0x%llx", (unsigned long long)*their_reg(c, i));
        differ(s, ours, theirs);
    }
    memcpy(c->insn.ours, s->reg, sizeof s->reg);
    c->insn.over = true;
}

/* A prefix that 64-bit code gives no meaning KVM (6.1) takes for the segment nevertheless, and so raises
   12 instead of 13 or the other way round where an address is not canonical. Intel's processors do not. */
static unsigned their_vector(struct shim_cpu *c, const struct shim_step *s)
{
    struct insn n = {.seg = -1};
    unsigned vector = c->run->s.regs.events.exception.nr;

    for (unsigned i = 0; i < s->len && is_prefix(&n, s->insn[i], 64);)
        i++;
    if (code_bits(c) == 64 && n.seg >= 0 && n.seg < 4 && (vector == 12 || vector == 13))
        return s->vector == 12 || s->vector == 13 ? s->vector : vector;
    return vector;
}

/* KVM may have to do with nothing what comes before the exception, as it sees that later. Of a REP that
   it has not begun the next iteration of there is nothing to compare. */
static void compare_fault(struct shim_cpu *c, const struct shim_step *s)
{
    const struct kvm_vcpu_events *e = &c->run->s.regs.events;
    char ours[96], theirs[96];

    if (c->insn.asks)
        finish(c);
    c->insn.asks = false;
    snprintf(ours, sizeof ours, "raises exception %u, error %u, CR2 0x%llx", s->vector,
             s->has_error ? s->error : 0, (unsigned long long)s->cr2);
    if (!drop_exception(c)) {
        if (!s->count_mask || c->insn.theirs.rip != c->insn.before.rip)
            differ(s, ours, "does not");
        return;
    }
    count(N_FAULTS);
    if (their_vector(c, s) == s->vector && !e->exception.has_error_code == !s->has_error &&
        (!s->has_error || e->exception.error_code == s->error) && sregs_of(c)->cr2 == s->cr2)
        return;
    snprintf(theirs, sizeof theirs, "%u, error %u, CR2 0x%llx", e->exception.nr,
             e->exception.error_code, (unsigned long long)sregs_of(c)->cr2);
    differ(s, ours, theirs);
}

void shim_step(const struct shim_step *s)
{
    struct shim_cpu *c = running;

    if (!c || !c->insn.under_way)
        return; /* INS and OUTS with RAM */
    if (s->kind == SHIM_ACCESS)
        compare_access(c, s);
    else if (s->kind == SHIM_DONE)
        compare_end(c, s);
    else if (s->kind == SHIM_FAULT)
        compare_fault(c, s);
}

void shim_answer(uint8_t data[8])
{
    static _Thread_local uint64_t random = 1;
    struct shim_cpu *c = running;
    struct shim_access k;
    uint8_t *to;

    if (!c || !c->insn.under_way)
        return;
    k = asked(c, &to);
    random = random * 6364136223846793005u + 1442695040888963407u;
    if (shim.noise && !k.write)
        put(data, 0, 8, random ^ random >> 29);
    if (!k.write)
        memcpy(to, data, c->insn.size);
    c->insn.done += c->insn.size;
    if (c->insn.size == k.size)
        go_on(c, false);
}

/* The instruction is over: its registers come from hv_x86.h, by the backend. */
static void settle(struct shim_cpu *c)
{
    bool same = get_state(c, S_GPRS, RIP) == c->insn.ours[RIP];

    if (!c->insn.under_way)
        return;
    for (unsigned i = 0; i < 18 && c->insn.over && same; i++)
        must(!((get_state(c, S_GPRS, i) ^ c->insn.ours[i]) & ~(i == RFLAGS ? TF : 0ull)),
             "a register is lost behind hv_x86.h");
    if (c->insn.asks)
        finish(c);
    *regs_of(c) = c->insn.before;
    drop_trap(c);
    (void)drop_exception(c);
    c->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
    if (sregs_of(c)->cr2 != c->insn.cr2)
        c->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
    sregs_of(c)->cr2 = c->insn.cr2;
    c->insn.under_way = false;
}

/* >>run ---------------------------------------------------------------------------------------- */

static int inject_interrupt(struct shim_cpu *c, uint8_t vector, bool told)
{
    struct kvm_interrupt intr = {.irq = vector};
    struct kvm_vcpu_events *e = &c->run->s.regs.events;

    if (vector == 2) {
        must(!c->nmi_window, "an NMI while NMIs are blocked");
        c->nmi_window = true;
        e->nmi.pending = 1; /* as KVM will tell, once it ran */
        return kvm(c->fd, KVM_NMI, NULL) ? errno : 0;
    }
    must(regs_of(c)->rflags & IF, "an interrupt for a guest that has them off");
    must(!(intr_of(c) & I_SHADOW), "an interrupt in the shadow of STI or MOV SS");
    must(!c->int_window || told, "an interrupt while its window is awaited");
    e->interrupt.injected = 1;
    e->interrupt.nr = vector;
    return kvm(c->fd, KVM_INTERRUPT, &intr) ? errno : 0;
}

static int inject_exception(struct shim_cpu *c, uint8_t vector, uint32_t error)
{
    static const uint32_t with_code = 1u << 8 | 0x1fu << 10 | 1u << 17;
    struct kvm_vcpu_events *e = &c->run->s.regs.events;

    if (vector == 0 || vector == 2 || vector == 3 || vector >= 32)
        return EINVAL;
    e->flags = 0;
    e->exception.injected = 1;
    e->exception.nr = vector;
    e->exception.has_error_code = with_code >> vector & 1 && sregs_of(c)->cr0 & 1;
    e->exception.error_code = error;
    return kvm(c->fd, KVM_SET_VCPU_EVENTS, e) ? errno : 0;
}

/* told: what is awaited was said anew with it, so that it is the next interrupt's window. */
static int inject(struct shim_cpu *c, bool told)
{
    const uint8_t *event = c->comm + EVENT;
    uint8_t vector = (uint8_t)get(event, 4, 1);

    if (!get(c->comm, EVENT_COMMIT, 1))
        return 0;
    put(c->comm, EVENT_COMMIT, 1, 0);
    must(!is_pending(c), "an event overwrites one that was not delivered yet");
    if (get(event, 0, 4) == 1)
        return inject_interrupt(c, vector, told);
    return get(event, 0, 4) ? EINVAL : inject_exception(c, vector, (uint32_t)get(event, 8, 8));
}

/* Exit structures: reason at 0, its union at 8, the state at 40. */
static void tell(uint8_t *x, uint64_t reason)
{
    put(x, 0, 8, reason);
}

static void exit_io(struct shim_cpu *c, uint8_t *x)
{
    const struct kvm_run *run = c->run;
    bool in = run->io.direction == KVM_EXIT_IO_IN;
    unsigned port = run->io.port, size = run->io.size;
    struct kvm_regs were = *regs_of(c);
    uint8_t bytes[32] = {0};
    unsigned max;
    struct insn n;
    uint64_t npc = roll_back(c);

    if (!in && npc == were.rip) { /* it was carried out */
        max = look_back(c, bytes);
        n = decode(bytes + max - 1, code_bits(c));
        if (!undo_strings(c, bytes, max, size)) {
            bool imm = max >= 2 && (bytes[max - 2] & 0xfe) == 0xe6 && bytes[max - 1] == port;
            must(imm || (n.op & 0xfe) == 0xee, "an OUT that is not found");
            regs_of(c)->rip -= imm ? 2 : 1;
            if (size == (code_bits(c) == 16 ? 4 : 2) && bytes[max - (imm ? 3 : 2)] == 0x66)
                regs_of(c)->rip--;
        }
    }
    (void)fetch(c, regs_of(c)->rip, bytes, 6);
    n = decode(bytes, code_bits(c));
    if (n.op == 0x6c || n.op == 0x6d || n.op == 0x6e || n.op == 0x6f)
        put(x, 8 + 8, 1, 1);
    put(x, 8 + 0, 1, in);
    put(x, 8 + 2, 2, port);
    put(x, 8 + 4, 1, 0xff);
    put(x, 8 + 5, 1, n.asize);
    put(x, 8 + 6, 1, size);
    put(x, 8 + 7, 1, n.rep);
    put(x, 8 + 16, 8, npc);
    tell(x, 2);
    count(in ? N_IN : N_OUT);
    provide(c, SEGS | GPRS | CRS | MSRS);
}

static void exit_memory(struct shim_cpu *c, uint8_t *x)
{
    uint64_t gpa = c->run->mmio.phys_addr;
    bool write = c->run->mmio.is_write;

    c->insn.under_way = c->insn.asks = true;
    c->insn.over = false;
    c->insn.done = c->insn.size = 0;
    c->insn.cr2 = sregs_of(c)->cr2;
    c->insn.theirs = *regs_of(c);
    if (write)
        undo_store(c);
    c->insn.before = *regs_of(c);
    put(x, 8 + 0, 4, write ? PROT_WRITE : PROT_READ);
    put(x, 8 + 8, 8, gpa);
    tell(x, 1);
    count(write ? N_MEMORY_WRITE : N_MEMORY_READ);
    provide(c, SEGS | GPRS | CRS | MSRS);
}

static void exit_msr(struct shim_cpu *c, uint8_t *x)
{
    bool write = c->run->exit_reason == KVM_EXIT_X86_WRMSR;
    uint32_t msr = c->run->msr.index;
    uint64_t val = c->run->msr.data, npc;

    c->run->msr.error = 0;
    npc = roll_back(c);
    put(x, 8 + 0, 4, msr);
    if (write)
        put(x, 8 + 8, 8, val);
    put(x, write ? 8 + 16 : 8 + 8, 8, npc);
    tell(x, write ? 0x2001 : 0x2000);
    count(write ? N_WRMSR : N_RDMSR);
    provide(c, GPRS);
}

static void exit_halted(struct shim_cpu *c, uint8_t *x)
{
    if (regs_of(c)->rflags & IF)
        c->int_window = false;
    drop_trap(c);
    tell(x, 0x1003);
    count(N_HALTED);
}

static void exit_invalid(uint8_t *x, uint64_t code)
{
    tell(x, ~0ull);
    put(x, 8, 8, code);
    count(N_INVALID);
}

/* One exit of KVM's. False: nothing that NVMM would tell. */
static bool translate_exit(struct shim_cpu *c, uint8_t *x)
{
    switch (c->run->exit_reason) {
    case KVM_EXIT_IO:
        exit_io(c, x);
        return true;
    case KVM_EXIT_MMIO:
        exit_memory(c, x);
        return true;
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
        exit_msr(c, x);
        return true;
    case KVM_EXIT_HLT:
        exit_halted(c, x);
        return true;
    case KVM_EXIT_SHUTDOWN:
        tell(x, 0x1000);
        count(N_SHUTDOWN);
        return true;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        c->int_window = false;
        tell(x, 0x1001);
        count(N_INT_READY);
        return true;
    case KVM_EXIT_SET_TPR:
        tell(x, 0x1004);
        count(N_TPR);
        return c->tpr_exits;
    case KVM_EXIT_INTR:
        return false;
    default:
        exit_invalid(x, c->run->exit_reason == KVM_EXIT_INTERNAL_ERROR ? c->run->internal.suberror
                                                                       : c->run->exit_reason);
        return true;
    }
}

static void tell_state(struct shim_cpu *c, uint8_t *x)
{
    put(x, 40, 8, regs_of(c)->rflags);
    put(x, 48, 8, c->run->cr8);
    put(x, 56, 8, intr_of(c));
}

/* The NMI's handler is over, seen late. */
static bool nmi_ready(struct shim_cpu *c, uint8_t *x)
{
    const struct kvm_vcpu_events *e = &c->run->s.regs.events;

    if (!c->nmi_window || e->nmi.masked || e->nmi.pending || e->nmi.injected)
        return false;
    c->nmi_window = false;
    tell(x, 0x1002);
    count(N_NMI_READY);
    return true;
}

static void enter(struct shim_cpu *c, uint8_t *x)
{
    int stop;

    for (;;) {
        stop = 0;
        if (shim.version == 2)
            __atomic_load((int *)(void *)(c->comm + STOP), &stop, __ATOMIC_SEQ_CST);
        if (stop) {
            put(c->comm, STOP, 4, 0);
            tell(x, ~0ull - 1);
            count(N_STOPPED);
            return;
        }
        c->run->request_interrupt_window = c->int_window;
        if (kvm(c->fd, KVM_RUN, NULL)) {
            must(errno == EINTR || errno == EAGAIN, "KVM_RUN fails");
            tell(x, 0);
            count(N_NONE);
            return;
        }
        if (translate_exit(c, x))
            return;
    }
}

static int run(struct shim_cpu *c, uint8_t *x)
{
    bool told;
    int err;

    if (!c->entered)
        set_cpuid(c);
    c->entered = true;
    running = c;
    settle(c);
    told = get(c->comm, COMMIT, 8) & INTR;
    commit(c);
    put(c->comm, CACHED, 8, 0);
    memset(c->comm + STATE, 0xdb, STATE_LEN);
    err = inject(c, told);
    if (err)
        return err;
    memset(x, 0xdb, 40);
    put(x, 8 + 8, 1, 0); /* IO: no string; MEMORY: no bytes of the instruction */
    put(x, 8 + 16, 1, 0);
    if (!nmi_ready(c, x))
        enter(c, x);
    tell_state(c, x);
    return 0;
}

/* >>calls --------------------------------------------------------------------------------------- */

static int capability(uint8_t *arg, size_t size)
{
    bool v3 = shim.version == 3;
    uint8_t *md = arg + (v3 ? 32 : 24);

    if (size != (v3 ? 112 : 104))
        return EINVAL;
    memset(arg, 0, size);
    put(arg, 0, 4, shim.version);
    put(arg, 4, 4, STATE_LEN);
    if (v3)
        put(arg, 8, 4, PAGE);
    put(arg, v3 ? 12 : 8, 4, 128);
    put(arg, v3 ? 16 : 12, 4, CPUS_MAX);
    put(arg, v3 ? 24 : 16, 8, MAX_RAM);
    put(md, 8, 8, shim.vmx ? 3 : 1);
    put(md, 16, 8, 3);
    put(md, 24, 4, 0xffff);
    put(md, 28, 4, CONFS_MAX);
    return 0;
}

/* MSRs that the guest reaches without an exit, or NVMM's kernel answers; all others come out. */
static int filter_msrs(void)
{
    static uint8_t ones[1] = {0xff};
    static const struct {
        uint32_t base, n;
    } direct[] = {{0x10, 1},       {0x174, 3},      {0x277, 1},      {0xc0000080, 5},
                  {0xc0000100, 3}, {0xc001001f, 1}, {0xc0010055, 1}, {0xc0011021, 1},
                  {0xc0011029, 1}, {0x8b, 1}};
    struct kvm_enable_cap cap = {.cap = KVM_CAP_X86_USER_SPACE_MSR,
                                 .args = {KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN |
                                          KVM_MSR_EXIT_REASON_FILTER}};
    struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_DENY};

    for (unsigned i = 0; i < sizeof direct / sizeof direct[0]; i++)
        filter.ranges[i] =
            (struct kvm_msr_filter_range){.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
                                          .nmsrs = direct[i].n,
                                          .base = direct[i].base,
                                          .bitmap = ones};
    return kvm(shim.vm, KVM_ENABLE_CAP, &cap) || kvm(shim.vm, KVM_X86_SET_MSR_FILTER, &filter);
}

static int machine_create(uint8_t *arg)
{
    uint64_t identity = 0xfffbc000;

    must(!shim.made, "a second machine is not played");
    shim.vm = kvm(shim.fd, KVM_CREATE_VM, NULL);
    if (shim.vm < 0)
        return errno;
    (void)kvm(shim.vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    if (kvm(shim.vm, KVM_SET_TSS_ADDR, (void *)0xfffbd000ul) || filter_msrs())
        return errno;
    shim.run_len = (size_t)kvm(shim.fd, KVM_GET_VCPU_MMAP_SIZE, NULL);
    shim.made = true;
    put(arg, 0, 4, MACHID);
    return 0;
}

static void cpu_destroy(struct shim_cpu *c)
{
    __real_munmap(c->run, shim.run_len);
    __real_close(c->fd);
    memset(c, 0, sizeof *c);
}

static int machine_destroy(void)
{
    for (unsigned i = 0; i < CPUS_MAX; i++)
        if (shim.cpu[i].made)
            cpu_destroy(&shim.cpu[i]);
    __real_close(shim.vm);
    shim.vm = -1;
    shim.made = false;
    shim.nranges = shim.nslots = 0;
    return 0;
}

/* The state after a reset is there from the beginning. */
static int cpu_start(struct shim_cpu *c)
{
    if (kvm(c->fd, KVM_GET_REGS, regs_of(c)) || kvm(c->fd, KVM_GET_SREGS, sregs_of(c)) ||
        kvm(c->fd, KVM_GET_VCPU_EVENTS, &c->run->s.regs.events))
        return errno;
    c->run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
    provide(c, ALL);
    return 0;
}

static int cpu_create(uint8_t *arg, size_t size)
{
    unsigned id = (unsigned)get(arg, 4, 4);
    struct shim_cpu *c = &shim.cpu[id];

    if (size != (shim.version == 3 ? 16 : 8) || id >= CPUS_MAX)
        return EINVAL;
    if (c->made)
        return EBUSY;
    c->id = id;
    c->fd = kvm(shim.vm, KVM_CREATE_VCPU, (void *)(uintptr_t)id);
    if (c->fd < 0)
        return errno;
    c->run = __real_mmap(NULL, shim.run_len, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
    c->comm = __real_mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (c->run == MAP_FAILED || c->comm == MAP_FAILED)
        return ENOMEM;
    c->made = true;
    if (size == 16)
        put(arg, 8, 8, (uintptr_t)c->comm);
    return cpu_start(c);
}

static int cpu_configure(struct shim_cpu *c, const uint8_t *arg)
{
    const void *conf = (const void *)(uintptr_t)get(arg, 16, 8);

    if (get(arg, 8, 8) == 200)
        return configure_cpuid(c, conf);
    if (get(arg, 8, 8) != 201 || !shim.vmx)
        return EINVAL;
    c->tpr_exits = get(conf, 0, 4) & 1;
    return 0;
}

static bool in_range(uintptr_t hva, uint64_t len)
{
    for (unsigned i = 0; i < shim.nranges; i++)
        if (hva >= shim.range[i].hva && hva + len <= shim.range[i].hva + shim.range[i].len)
            return true;
    return false;
}

static bool meets_range(uintptr_t hva, uint64_t len)
{
    for (unsigned i = 0; i < shim.nranges; i++)
        if (hva < shim.range[i].hva + shim.range[i].len && shim.range[i].hva < hva + len)
            return true;
    return false;
}

/* The kernel puts pages of its own there. */
static int hva_map(const uint8_t *arg)
{
    uintptr_t hva = (uintptr_t)get(arg, 8, 8);
    size_t len = (size_t)get(arg, 16, 8);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;

    if (!hva || !len || hva % PAGE || len % PAGE)
        return EINVAL;
    if (meets_range(hva, len))
        return EEXIST;
    if (shim.nranges == RANGES_MAX)
        return ENOBUFS;
    if (__real_mmap((void *)hva, len, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
        return errno;
    madvise((void *)hva, len, MADV_HUGEPAGE);
    shim.range[shim.nranges].hva = hva;
    shim.range[shim.nranges++].len = len;
    return 0;
}

static int gpa_map(const uint8_t *arg)
{
    uint64_t hva = get(arg, 8, 8), gpa = get(arg, 16, 8), len = get(arg, 24, 8);
    int prot = (int)get(arg, 32, 4);
    struct kvm_userspace_memory_region region = {
        .slot = shim.nslots,
        .flags = prot & PROT_WRITE ? 0 : KVM_MEM_READONLY,
        .guest_phys_addr = gpa,
        .memory_size = len,
        .userspace_addr = hva,
    };

    if (gpa % PAGE || len % PAGE || hva % PAGE || !hva || gpa + len <= gpa || gpa + len > MAX_RAM ||
        !in_range(hva, len) || prot & ~7 || shim.nslots == RANGES_MAX)
        return EINVAL;
    must(prot & PROT_EXEC && prot & PROT_READ, "memory that is not executable is not played");
    if (kvm(shim.vm, KVM_SET_USER_MEMORY_REGION, &region))
        return errno;
    shim.slot[shim.nslots].gpa = gpa;
    shim.slot[shim.nslots].len = len;
    shim.slot[shim.nslots++].hva = (uint8_t *)(uintptr_t)hva;
    return 0;
}

static int cpu_call(unsigned nr, uint8_t *arg)
{
    unsigned id = (unsigned)get(arg, 4, 4);
    struct shim_cpu *c = &shim.cpu[id < CPUS_MAX ? id : 0];

    if (id >= CPUS_MAX)
        return EINVAL;
    if (!c->made)
        return ENOENT;
    switch (nr) {
    case 5:
        cpu_destroy(c);
        return 0;
    case 6:
        return cpu_configure(c, arg);
    case 8:
        return get_state_call(c);
    default:
        return run(c, arg + 8);
    }
}

static int machine_call(unsigned nr, uint8_t *arg, size_t size)
{
    int err = EINVAL;

    if (get(arg, 0, 4) >= 128)
        return EINVAL;
    if (!shim.made || get(arg, 0, 4) != MACHID)
        return ENOENT;
    if (nr >= 5 && nr <= 10 && nr != 7 && nr != 9)
        return cpu_call(nr, arg);
    pthread_mutex_lock(&shim.lock);
    if (nr == 2)
        err = machine_destroy();
    else if (nr == 4)
        err = cpu_create(arg, size);
    else if (nr == 11)
        err = gpa_map(arg);
    else if (nr == 13)
        err = hva_map(arg);
    pthread_mutex_unlock(&shim.lock);
    return err;
}

/* The whole argument is copied in before, and out again after success, as its direction says. */
static int call(unsigned request, void *user)
{
    static const uint8_t sizes[14] = {0, 4, 4, 24, 0, 8, 24, 8, 8, 8, 72, 40, 24, 32};
    unsigned nr = _IOC_NR(request), dir = _IOC_DIR(request);
    size_t size = _IOC_SIZE(request);
    uint8_t arg[112] = {0};
    int err;

    if (_IOC_TYPE(request) != 'N' || nr >= sizeof sizes || size > sizeof arg ||
        (sizes[nr] && sizes[nr] != size))
        return EINVAL;
    if (dir & _IOC_WRITE)
        memcpy(arg, user, size);
    if (nr == 0)
        err = dir == _IOC_READ ? capability(arg, size) : EINVAL;
    else if (nr == 1)
        err = dir == (_IOC_READ | _IOC_WRITE) ? machine_create(arg) : EINVAL;
    else
        err = machine_call(nr, arg, size);
    if (!err && dir & _IOC_READ)
        memcpy(user, arg, size);
    return err;
}

/* >>wraps --------------------------------------------------------------------------------------- */

static void print_stats(void)
{
    for (unsigned i = 0; i < N_STATS; i++)
        fprintf(stderr, "%s%s=%lu%s", i ? " " : "shim_nvmm: ", stat_names[i], shim.exits[i],
                i == N_STATS - 1 ? "\n" : "");
}

static void read_options(void)
{
    const char *s = getenv("NVMM_SHIM");
    const char *version = s ? strstr(s, "version=") : NULL;

    shim.version = version ? (unsigned)(version[8] - '0') : 2;
    shim.vmx = s && strstr(s, "vmx");
    shim.noise = s && strstr(s, "noise");
    shim.lie = s && strstr(s, "lie");
    if (s && strstr(s, "stats"))
        atexit(print_stats);
}

int __wrap_open(const char *path, int flags, ...)
{
    va_list args;
    int mode;

    va_start(args, flags);
    mode = flags & O_CREAT ? va_arg(args, int) : 0;
    va_end(args);
    if (strcmp(path, "/dev/nvmm"))
        return __real_open(path, flags, mode);
    must(shim.fd < 0, "a second open device is not played");
    read_options();
    errno = EINVAL;
    if (!(flags & O_CLOEXEC) || (flags & O_ACCMODE) != O_RDONLY)
        return -1;
    shim.fd = __real_open("/dev/kvm", O_RDWR | O_CLOEXEC);
    return shim.fd;
}

int __wrap_close(int fd)
{
    if (fd < 0 || fd != shim.fd)
        return __real_close(fd);
    if (shim.made)
        machine_destroy();
    shim.fd = -1;
    return __real_close(fd);
}

int __wrap_ioctl(int fd, int request, ...)
{
    va_list args;
    void *arg;
    int err;

    va_start(args, request);
    arg = va_arg(args, void *);
    va_end(args);
    if (fd < 0 || fd != shim.fd)
        return __real_ioctl(fd, request, arg);
    err = call((unsigned)request, arg);
    errno = err;
    return err ? -1 : 0;
}

/* The page that is shared with a vCPU; and nobody may put anything else over guest memory. */
void *__wrap_mmap(void *at, size_t len, int prot, int flags, int fd, off_t off)
{
    unsigned id = (unsigned)(off >> 12 & 0xff);

    must(!(flags & MAP_FIXED) || !meets_range((uintptr_t)at, len),
         "guest memory is mapped over while NVMM holds it");
    if (fd < 0 || fd != shim.fd)
        return __real_mmap(at, len, prot, flags, fd, off);
    errno = EINVAL;
    if (shim.version == 3 || len != PAGE || prot & PROT_EXEC || (unsigned)(off >> 20) != MACHID ||
        id >= CPUS_MAX || !shim.cpu[id].made)
        return MAP_FAILED;
    return shim.cpu[id].comm;
}

int __wrap_munmap(void *at, size_t len)
{
    must(!meets_range((uintptr_t)at, len), "guest memory is unmapped while NVMM holds it");
    return __real_munmap(at, len);
}
