/* hvf_fake_x86.h - Hypervisor.framework for Intel as a script: its functions for tests of hv_hvf.h
   under Linux. What Apple's documentation and the SDM's rules for VM entries (volume 3, 26.2 and 26.3)
   demand of callers is demanded here, by an abort.

   fake.guest is asked at each run: it looks at the registers of the vCPU, changes them, and fills the
   fields that describe the exit. Without one, a run lasts until it is interrupted or its time is
   over; what comes between two runs is forgotten. */
#ifndef HVF_FAKE_X86_H
#define HVF_FAKE_X86_H

#include <Hypervisor/Hypervisor.h>
#include <mach/mach_time.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysctl.h>
#include <time.h>

/* A rule that the caller must not break. */
#define FAKE_RULE(held, why)                                                                       \
    do {                                                                                           \
        if (!(held)) {                                                                             \
            fprintf(stderr, "hvf_fake: %s: %s\n", __func__, why);                                  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

enum { FAKE_VCPUS = 8, FAKE_PAGE = 4096, FAKE_MAPS = 16, FAKE_FIELDS = 0x7000, FAKE_MSRS = 16 };

struct fake_vcpu {
    bool exists;
    pthread_t owner;
    uint64_t reg[51];
    uint64_t vmcs[FAKE_FIELDS];
    uint32_t native[FAKE_MSRS];
    unsigned natives, runs, flushes, writes;
    uint32_t event, event_error, event_len; /* what the last entry delivered */
    uint8_t fp[4096];
    bool inside, interrupted; /* under the lock */
};

static struct {
    void (*guest)(hv_vcpuid_t id, struct fake_vcpu *v);
    bool vm;
    bool stays_out;                                /* runs end before the guest is entered */
    hv_return_t vm_ret, cpu_ret, run_ret, msr_ret; /* what these fail with */
    uint64_t max_cpus, tsc_hz;                     /* tsc_hz 0: nobody knows */
    uint64_t capability[64];
    uint64_t synced; /* what hv_vm_sync_tsc was told last */
    struct {
        uint64_t gpa, len;
        unsigned flags;
    } map[FAKE_MAPS];
    struct fake_vcpu vcpu[FAKE_VCPUS];
    pthread_mutex_t lock;
    pthread_cond_t interrupt;
} fake = {.max_cpus = 8,
          .tsc_hz = 2400000000,
          /* as of a processor of 2017: what must be in the lower half, what may be in the upper */
          .capability = {[HV_VMX_CAP_PINBASED] = 0x0000007f00000016,
                         [HV_VMX_CAP_PROCBASED] = 0xfdf9fffe95006172,
                         [HV_VMX_CAP_PROCBASED2] = 0x001c14ff000000a2,
                         [HV_VMX_CAP_ENTRY] = 0x0003ffff000011ff,
                         [HV_VMX_CAP_CR0_FIXED0] = 0x80000021,
                         [HV_VMX_CAP_CR0_FIXED1] = 0xffffffff,
                         [HV_VMX_CAP_CR4_FIXED0] = 0x2000,
                         [HV_VMX_CAP_CR4_FIXED1] = 0x3727ff},
          .lock = PTHREAD_MUTEX_INITIALIZER,
          .interrupt = PTHREAD_COND_INITIALIZER};

/* >>time: nanoseconds, as on Intel. */
uint64_t mach_absolute_time(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

int mach_timebase_info(struct mach_timebase_info *info)
{
    *info = (struct mach_timebase_info){1, 1};
    return 0;
}

int sysctlbyname(const char *name, void *old, size_t *old_len, void *now, size_t now_len)
{
    FAKE_RULE(!strcmp(name, "machdep.tsc.frequency") && *old_len == 8 && !now && !now_len,
              "no such name");
    if (!fake.tsc_hz)
        return -1;
    memcpy(old, &fake.tsc_hz, sizeof fake.tsc_hz);
    return 0;
}

/* >>vm */
hv_return_t hv_capability(hv_capability_t capability, uint64_t *value)
{
    FAKE_RULE(capability == HV_CAP_VCPUMAX, "no such capability");
    *value = fake.max_cpus;
    return HV_SUCCESS;
}

hv_return_t hv_vmx_read_capability(hv_vmx_capability_t field, uint64_t *value)
{
    FAKE_RULE(fake.vm && (unsigned)field < 64, "there is no VM, or no such field");
    *value = fake.capability[field];
    return HV_SUCCESS;
}

hv_return_t hv_vm_create(hv_vm_options_t flags)
{
    FAKE_RULE(flags == HV_VM_DEFAULT, "an option that is not known");
    if (fake.vm_ret)
        return fake.vm_ret;
    if (fake.vm)
        return HV_BUSY;
    fake.vm = true;
    return HV_SUCCESS;
}

hv_return_t hv_vm_destroy(void)
{
    FAKE_RULE(fake.vm, "there is no VM");
    for (unsigned i = 0; i < FAKE_VCPUS; i++)
        FAKE_RULE(!fake.vcpu[i].exists, "a vCPU is left");
    fake.vm = false;
    memset(fake.map, 0, sizeof fake.map);
    return HV_SUCCESS;
}

hv_return_t hv_vm_map(hv_uvaddr_t addr, hv_gpaddr_t gpa, size_t size, hv_memory_flags_t flags)
{
    unsigned at = 0;

    FAKE_RULE(fake.vm, "there is no VM");
    FAKE_RULE(!(((uintptr_t)addr | gpa | size) % FAKE_PAGE) && size && !(flags & ~7ull),
              "pages have 4 KiB");
    for (unsigned i = 0; i < FAKE_MAPS; i++)
        if (fake.map[i].len && gpa < fake.map[i].gpa + fake.map[i].len &&
            fake.map[i].gpa < gpa + size)
            return HV_BAD_ARGUMENT;
    while (at < FAKE_MAPS && fake.map[at].len)
        at++;
    FAKE_RULE(at < FAKE_MAPS, "the fake has no room");
    fake.map[at].gpa = gpa;
    fake.map[at].len = size;
    fake.map[at].flags = (unsigned)flags;
    return HV_SUCCESS;
}

hv_return_t hv_vm_unmap(hv_gpaddr_t gpa, size_t size)
{
    for (unsigned i = 0; i < FAKE_MAPS; i++)
        if (fake.map[i].gpa == gpa && fake.map[i].len == size) {
            fake.map[i].len = 0;
            return HV_SUCCESS;
        }
    return HV_BAD_ARGUMENT;
}

hv_return_t hv_vm_sync_tsc(uint64_t tsc)
{
    FAKE_RULE(fake.vm, "there is no VM");
    fake.synced = tsc;
    return HV_SUCCESS;
}

/* >>vcpu */
static struct fake_vcpu *fake_mine(hv_vcpuid_t id)
{
    FAKE_RULE(id < FAKE_VCPUS && fake.vcpu[id].exists, "there is no such vCPU");
    FAKE_RULE(pthread_equal(fake.vcpu[id].owner, pthread_self()), "the vCPU is another thread's");
    return &fake.vcpu[id];
}

hv_return_t hv_vcpu_create(hv_vcpuid_t *id, hv_vcpu_options_t flags)
{
    struct fake_vcpu *v = NULL;

    FAKE_RULE(fake.vm && flags == HV_VCPU_DEFAULT, "there is no VM");
    if (fake.cpu_ret)
        return fake.cpu_ret;
    pthread_mutex_lock(&fake.lock);
    for (unsigned i = FAKE_VCPUS; i-- > 0;) {
        FAKE_RULE(!fake.vcpu[i].exists || !pthread_equal(fake.vcpu[i].owner, pthread_self()),
                  "a thread has one vCPU");
        if (!fake.vcpu[i].exists)
            v = &fake.vcpu[i];
    }
    FAKE_RULE(v, "the fake has no room");
    memset(v, 0, sizeof *v);
    v->exists = true;
    v->owner = pthread_self();
    pthread_mutex_unlock(&fake.lock);
    *id = (hv_vcpuid_t)(v - fake.vcpu);
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_destroy(hv_vcpuid_t id)
{
    fake_mine(id)->exists = false;
    return HV_SUCCESS;
}

/* CR0, CR3 and CR4 by this interface fight with the shadows of VMX. */
static uint64_t *fake_reg(hv_vcpuid_t id, hv_x86_reg_t reg)
{
    FAKE_RULE((unsigned)reg <= HV_X86_XCR0, "there is no such register");
    FAKE_RULE(reg != HV_X86_CR0 && reg != HV_X86_CR3 && reg != HV_X86_CR4, "take the VMCS");
    return &fake_mine(id)->reg[reg];
}

hv_return_t hv_vcpu_read_register(hv_vcpuid_t id, hv_x86_reg_t reg, uint64_t *value)
{
    *value = *fake_reg(id, reg);
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_write_register(hv_vcpuid_t id, hv_x86_reg_t reg, uint64_t value)
{
    *fake_reg(id, reg) = value;
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_read_fpstate(hv_vcpuid_t id, void *buffer, size_t size)
{
    FAKE_RULE(size == 4096 && !((uintptr_t)buffer % 4096), "a page, as the others give");
    memcpy(buffer, fake_mine(id)->fp, size);
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_write_fpstate(hv_vcpuid_t id, const void *buffer, size_t size)
{
    FAKE_RULE(size == 4096 && !((uintptr_t)buffer % 4096), "a page, as the others give");
    memcpy(fake_mine(id)->fp, buffer, size);
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_enable_native_msr(hv_vcpuid_t id, uint32_t msr, bool enable)
{
    struct fake_vcpu *v = fake_mine(id);

    FAKE_RULE(enable && v->natives < FAKE_MSRS && !v->runs, "before the first run");
    v->native[v->natives++] = msr;
    return fake.msr_ret;
}

hv_return_t hv_vcpu_invalidate_tlb(hv_vcpuid_t id)
{
    fake_mine(id)->flushes++;
    return HV_SUCCESS;
}

/* >>vmcs: which fields Apple documents as writable, and what they take */
static bool fake_is_segment(uint32_t field)
{
    return (field >= 0x800 && field <= 0x80e) || (field >= 0x4800 && field <= 0x4822) ||
           (field >= 0x6806 && field <= 0x6818);
}

static bool fake_is_writable(uint32_t field)
{
    static const uint32_t fields[] = {
        0x2806, 0x280a, 0x280c, 0x280e, 0x2810, 0x4000, 0x4002, 0x4004, 0x4006, 0x4008, 0x4012,
        0x4016, 0x4018, 0x401a, 0x401c, 0x401e, 0x4824, 0x4826, 0x482a, 0x6000, 0x6002, 0x6004,
        0x6006, 0x6800, 0x6802, 0x6804, 0x681a, 0x681c, 0x681e, 0x6820, 0x6822, 0x6824, 0x6826};

    for (unsigned i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (field == fields[i])
            return true;
    return fake_is_segment(field) && !(field & 1);
}

static bool fake_is_readable(uint32_t field)
{
    return fake_is_writable(field) || field == 0x2010 || field == 0x2400 || field == 0x6400 ||
           field == 0x640a || (field >= 0x4400 && field <= 0x440e && !(field & 1));
}

/* Bits 13 and 14 of a field's number say how wide it is. */
static uint64_t fake_width(uint32_t field)
{
    unsigned width = field >> 13 & 3;

    return width == 0 ? 0xffff : width == 2 ? 0xffffffff : UINT64_MAX;
}

static bool fake_control_fits(uint32_t field, uint64_t val)
{
    hv_vmx_capability_t which = field == 0x4000   ? HV_VMX_CAP_PINBASED
                                : field == 0x4002 ? HV_VMX_CAP_PROCBASED
                                : field == 0x401e ? HV_VMX_CAP_PROCBASED2
                                                  : HV_VMX_CAP_ENTRY;
    uint64_t capability = fake.capability[which], must = (uint32_t)capability;

    if (field != 0x4000 && field != 0x4002 && field != 0x401e && field != 0x4012)
        return true;
    return (val & must) == must && !(val & ~(capability >> 32));
}

hv_return_t hv_vmx_vcpu_read_vmcs(hv_vcpuid_t id, uint32_t field, uint64_t *value)
{
    FAKE_RULE(fake_is_readable(field), "there is no such field");
    *value = fake_mine(id)->vmcs[field];
    return HV_SUCCESS;
}

hv_return_t hv_vmx_vcpu_write_vmcs(hv_vcpuid_t id, uint32_t field, uint64_t value)
{
    struct fake_vcpu *v = fake_mine(id);

    FAKE_RULE(fake_is_writable(field), "not a field that may be written");
    FAKE_RULE(!(value & ~fake_width(field)), "the field is not that wide");
    FAKE_RULE(fake_control_fits(field, value), "a control that must or must not be");
    FAKE_RULE(field != 0x6800 || !(value & 3ull << 29), "CD and NW are 0");
    FAKE_RULE(field != 0x4826 || value <= 1, "active, or halted");
    v->vmcs[field] = value;
    v->writes++;
    return HV_SUCCESS;
}

/* >>run */
/* What the processor checks of segments. */
static void fake_check_segments(const struct fake_vcpu *v, bool lma)
{
    uint64_t cs = v->vmcs[0x4816], tr = v->vmcs[0x4822], rflags = v->reg[HV_X86_RFLAGS];

    for (unsigned i = 0; i < 8; i++) {
        uint64_t ar = v->vmcs[0x4814 + 2 * i], limit = v->vmcs[0x4800 + 2 * i];
        FAKE_RULE(!(ar & ~0x1f0ffull), "reserved bits of access rights");
        if (ar >> 16)
            continue;
        FAKE_RULE(ar & 0x80, "a segment that is used is present");
        FAKE_RULE(!(ar >> 15 & 1) || (limit & 0xfff) == 0xfff, "granularity and limit");
        FAKE_RULE(ar >> 15 & 1 || !(limit >> 20), "limit and granularity");
    }
    FAKE_RULE(!(cs >> 16) && !(tr >> 16), "code and task are used");
    FAKE_RULE(cs & 0x10 && cs & 1, "accessed code");
    FAKE_RULE(!lma || !(cs >> 13 & 1) || !(cs >> 14 & 1), "L and D");
    FAKE_RULE((tr & 31) == 11 || (!lma && (tr & 31) == 3), "a busy task");
    FAKE_RULE((lma && cs >> 13 & 1) || !(v->reg[HV_X86_RIP] >> 32), "RIP has 32 bits");
    FAKE_RULE(rflags & 2 && !(rflags & 0x28), "reserved flags");
}

static void fake_check_controls(const struct fake_vcpu *v, bool lma)
{
    uint64_t cr0 = v->vmcs[0x6800], cr4 = v->vmcs[0x6804], efer = v->vmcs[0x2806];
    uint64_t ones = fake.capability[HV_VMX_CAP_CR0_FIXED0] & ~0x80000001ull;

    FAKE_RULE((cr0 & ones) == ones && !(cr0 & ~fake.capability[HV_VMX_CAP_CR0_FIXED1]), "CR0");
    FAKE_RULE(!(cr0 >> 31 & 1) || cr0 & 1, "paging needs protection");
    FAKE_RULE(cr4 >> 13 & 1, "CR4.VMXE");
    FAKE_RULE((v->vmcs[0x4012] >> 9 & 1) == lma, "long mode of the entry and of EFER");
    FAKE_RULE(lma == (cr0 >> 31 & 1 && efer >> 8 & 1), "LMA is LME with paging");
    FAKE_RULE(!lma || cr4 >> 5 & 1, "long mode needs PAE");
    FAKE_RULE(!(efer & ~0xd01ull), "reserved bits of EFER");
}

/* Takes the event, as a processor does, and checks whether it can be. */
static void fake_deliver(struct fake_vcpu *v)
{
    uint32_t event = (uint32_t)v->vmcs[0x4016], type = event >> 8 & 7;
    uint64_t blocked = v->vmcs[0x4824], rflags = v->reg[HV_X86_RFLAGS];

    FAKE_RULE(!(blocked & ~0xfull) && (blocked & 3) != 3, "interruptibility");
    FAKE_RULE(rflags & 0x200 || !(blocked & 1), "STI blocks with the flag off");
    FAKE_RULE(!(v->vmcs[0x4002] & 1u << 22) || v->vmcs[0x4000] & 1u << 5, "window for NMIs");
    FAKE_RULE(!(v->vmcs[0x6822] & ~0x1500full), "reserved bits of pending debug exceptions");
    FAKE_RULE(!(blocked & 3) || !(v->vmcs[0x6822] >> 14 & 1) == !(rflags & 0x100),
              "blocked, the trap flag needs its exception pending, and that needs the flag");
    FAKE_RULE(!(v->vmcs[0x681a] >> 32), "DR7 has 32 bits");
    v->event = event >> 31 ? event : 0;
    if (!v->event)
        return;
    v->event_error = (uint32_t)v->vmcs[0x4018];
    v->event_len = (uint32_t)v->vmcs[0x401a];
    FAKE_RULE(!(event & 0x7ffff000), "reserved bits of an event");
    FAKE_RULE(type != 0 || (rflags & 0x200 && !(blocked & 3)), "the guest takes no interrupt now");
    FAKE_RULE(type != 2 || ((event & 0xff) == 2 && !(blocked & 10)), "the guest takes no NMI now");
    FAKE_RULE(!(event >> 11 & 1) || (type == 3 && v->vmcs[0x6800] & 1), "an error code");
    FAKE_RULE(type != 1 && type != 7 && (type != 3 || (event & 0xff) < 32), "an event's type");
    FAKE_RULE(type != 5 || (event & 0xff) == 1, "a privileged exception by software");
    FAKE_RULE(type != 6 || (event & 0xff) == 3 || (event & 0xff) == 4, "an exception by software");
    FAKE_RULE(type < 4 || (v->event_len > 0 && v->event_len <= 15), "an instruction's length");
    v->vmcs[0x4016] = event & ~(1u << 31);
}

/* Until the interrupt or the deadline. */
static void fake_wait(struct fake_vcpu *v, uint64_t deadline)
{
    bool late = false;

    pthread_mutex_lock(&fake.lock);
    while (!v->interrupted && !late) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&fake.interrupt, &fake.lock, &until);
        late = mach_absolute_time() > deadline;
    }
    v->vmcs[0x4402] = v->interrupted ? 1 : 52;
    pthread_mutex_unlock(&fake.lock);
}

static void fake_inside(struct fake_vcpu *v, bool inside)
{
    pthread_mutex_lock(&fake.lock);
    v->inside = inside;
    v->interrupted = false;
    pthread_mutex_unlock(&fake.lock);
}

hv_return_t hv_vcpu_run_until(hv_vcpuid_t id, uint64_t deadline)
{
    struct fake_vcpu *v = fake_mine(id);
    bool lma = v->vmcs[0x2806] >> 10 & 1;

    FAKE_RULE(deadline < mach_absolute_time() + 1000000000, "an interrupt may be lost: look again");
    if (fake.run_ret)
        return fake.run_ret;
    if (fake.stays_out) {
        v->vmcs[0x4402] = 1;
        return HV_SUCCESS;
    }
    fake_check_controls(v, lma);
    fake_check_segments(v, lma);
    fake_deliver(v);
    v->runs++;
    v->vmcs[0x4408] = 0;
    fake_inside(v, true);
    if (fake.guest)
        fake.guest(id, v);
    else
        fake_wait(v, deadline);
    fake_inside(v, false);
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_interrupt(hv_vcpuid_t *ids, unsigned n)
{
    pthread_mutex_lock(&fake.lock);
    for (unsigned i = 0; i < n; i++) {
        FAKE_RULE(ids[i] < FAKE_VCPUS && fake.vcpu[ids[i]].exists, "there is no such vCPU");
        fake.vcpu[ids[i]].interrupted = fake.vcpu[ids[i]].inside;
    }
    pthread_cond_broadcast(&fake.interrupt);
    pthread_mutex_unlock(&fake.lock);
    return HV_SUCCESS;
}

#endif /* HVF_FAKE_X86_H */
