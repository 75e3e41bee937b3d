/* hvf_fake.h - Hypervisor.framework as a script: its functions for tests of hv_hvf.h under Linux.
   What Apple's documentation demands of callers is demanded here, by an abort.
                                                                    MIT licence, see LICENSE

   fake.guest is asked at each run: it looks at the registers of the vCPU, changes them, and describes
   the exit. Without one, a run lasts until it is cancelled. */
#ifndef HVF_FAKE_H
#define HVF_FAKE_H

#include <Hypervisor/Hypervisor.h>
#include <mach/mach_time.h>
#include <os/object.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A rule that the caller must not break. */
#define FAKE_RULE(held, why)                                                                       \
    do {                                                                                           \
        if (!(held)) {                                                                             \
            fprintf(stderr, "hvf_fake: %s: %s\n", __func__, why);                                  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

enum { FAKE_VCPUS = 64, FAKE_PAGE = 16384, FAKE_MAPS = 16 };

struct fake_vcpu {
    bool exists;
    pthread_t owner;
    uint64_t reg[35];
    uint64_t sys[0x10000]; /* by enum hv_sys_reg_t */
    hv_simd_fp_uchar16_t simd[32];
    bool trap_debug, trap_debug_regs;
    bool line[2]; /* pending, for the next run */
    bool seen[2]; /* what they were in the last one */
    bool masked;
    uint64_t offset;
    bool cancel; /* under the lock: hv_vcpus_exit came */
    hv_vcpu_exit_t exit;
    unsigned runs;
};

#define FAKE_DFR0 0x10305f19ull /* 6 breakpoints, 4 watchpoints */

static struct {
    void (*guest)(hv_vcpu_t id, struct fake_vcpu *v);
    bool vm, gic;                         /* exist */
    bool has_gic;                         /* the system is that new */
    hv_return_t vm_ret, cpu_ret, run_ret; /* what these fail with */
    uint32_t ipa_bits, max_ipa_bits, max_cpus;
    uint64_t now;                       /* 0: real time */
    unsigned objects;                   /* not released */
    uint32_t config_bits, created_bits; /* 0: the default */
    uint64_t gic_at[3];                 /* distributor, redistributors, frame */
    uint32_t msi[2];                    /* first and number of its SPIs */
    uint32_t spi, spi_level, message;   /* what came last, and how often */
    unsigned spis, messages;
    struct {
        uint64_t ipa, len;
        unsigned flags;
    } map[FAKE_MAPS];
    struct fake_vcpu vcpu[FAKE_VCPUS];
    pthread_mutex_t lock;
    pthread_cond_t cancelled;
} fake = {.ipa_bits = 36,
          .max_ipa_bits = 42,
          .max_cpus = 8,
          .lock = PTHREAD_MUTEX_INITIALIZER,
          .cancelled = PTHREAD_COND_INITIALIZER};

/* >>time: 24 MHz, as Apple's chips have it. */
uint64_t mach_absolute_time(void)
{
    struct timespec t;

    if (fake.now)
        return fake.now;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 24000000 + (uint64_t)t.tv_nsec * 3 / 125;
}

int mach_timebase_info(struct mach_timebase_info *info)
{
    *info = (struct mach_timebase_info){125, 3};
    return 0;
}

void os_release(void *object)
{
    FAKE_RULE(object && fake.objects, "there is no such object");
    fake.objects--;
}

/* >>vm */
hv_vm_config_t hv_vm_config_create(void)
{
    fake.objects++;
    fake.config_bits = fake.ipa_bits;
    return (hv_vm_config_t)(void *)&fake;
}

hv_return_t hv_vm_config_get_max_ipa_size(uint32_t *bits)
{
    *bits = fake.max_ipa_bits;
    return HV_SUCCESS;
}

hv_return_t hv_vm_config_get_default_ipa_size(uint32_t *bits)
{
    *bits = fake.ipa_bits;
    return HV_SUCCESS;
}

hv_return_t hv_vm_config_set_ipa_size(hv_vm_config_t config, uint32_t bits)
{
    FAKE_RULE(config && bits <= fake.max_ipa_bits, "no such width");
    fake.config_bits = bits;
    return HV_SUCCESS;
}

hv_return_t hv_vm_create(hv_vm_config_t config)
{
    if (fake.vm_ret)
        return fake.vm_ret;
    if (fake.vm)
        return HV_BUSY;
    fake.vm = true;
    fake.created_bits = config ? fake.config_bits : 0;
    return HV_SUCCESS;
}

hv_return_t hv_vm_destroy(void)
{
    FAKE_RULE(fake.vm, "there is no VM");
    for (unsigned i = 0; i < FAKE_VCPUS; i++)
        FAKE_RULE(!fake.vcpu[i].exists, "a vCPU is left");
    fake.vm = fake.gic = false;
    memset(fake.map, 0, sizeof fake.map);
    return HV_SUCCESS;
}

hv_return_t hv_vm_get_max_vcpu_count(uint32_t *n)
{
    *n = fake.max_cpus;
    return HV_SUCCESS;
}

hv_return_t hv_vm_map(void *addr, hv_ipa_t ipa, size_t size, hv_memory_flags_t flags)
{
    unsigned at = 0;

    FAKE_RULE(fake.vm, "there is no VM");
    FAKE_RULE(!(((uintptr_t)addr | ipa | size) % FAKE_PAGE) && size && !(flags & ~7ull),
              "pages have 16 KiB");
    for (unsigned i = 0; i < FAKE_MAPS; i++)
        if (fake.map[i].len && ipa < fake.map[i].ipa + fake.map[i].len &&
            fake.map[i].ipa < ipa + size)
            return HV_BAD_ARGUMENT;
    while (at < FAKE_MAPS && fake.map[at].len)
        at++;
    FAKE_RULE(at < FAKE_MAPS, "the fake has no room");
    fake.map[at].ipa = ipa;
    fake.map[at].len = size;
    fake.map[at].flags = (unsigned)flags;
    return HV_SUCCESS;
}

hv_return_t hv_vm_unmap(hv_ipa_t ipa, size_t size)
{
    for (unsigned i = 0; i < FAKE_MAPS; i++)
        if (fake.map[i].ipa == ipa && fake.map[i].len == size) {
            fake.map[i].len = 0;
            return HV_SUCCESS;
        }
    return HV_BAD_ARGUMENT;
}

hv_return_t hv_vm_protect(hv_ipa_t ipa, size_t size, hv_memory_flags_t flags)
{
    for (unsigned i = 0; i < FAKE_MAPS; i++)
        if (fake.map[i].ipa == ipa && fake.map[i].len == size) {
            fake.map[i].flags = (unsigned)flags;
            return HV_SUCCESS;
        }
    return HV_BAD_ARGUMENT;
}

/* >>gic: of newer systems, found by name */
static void *fake_gic_config_create(void)
{
    fake.objects++;
    return &fake.gic;
}

static hv_return_t fake_gic_at(unsigned which, void *config, uint64_t ipa)
{
    FAKE_RULE(config == &fake.gic && fake.vm && !(ipa % 0x10000), "a base is not aligned");
    fake.gic_at[which] = ipa;
    return HV_SUCCESS;
}

static hv_return_t fake_gic_distributor(void *config, uint64_t ipa)
{
    return fake_gic_at(0, config, ipa);
}

static hv_return_t fake_gic_redistributor(void *config, uint64_t ipa)
{
    return fake_gic_at(1, config, ipa);
}

static hv_return_t fake_gic_frame(void *config, uint64_t ipa)
{
    return fake_gic_at(2, config, ipa);
}

static hv_return_t fake_gic_range(void *config, uint32_t first, uint32_t count)
{
    FAKE_RULE(config == &fake.gic && first >= 32 && first + count <= 1020, "no such SPIs");
    fake.msi[0] = first;
    fake.msi[1] = count;
    return HV_SUCCESS;
}

static hv_return_t fake_gic_create(void *config)
{
    FAKE_RULE(config == &fake.gic && fake.vm && !fake.gic, "a VM has one");
    for (unsigned i = 0; i < FAKE_VCPUS; i++)
        FAKE_RULE(!fake.vcpu[i].exists, "it comes before the first vCPU");
    FAKE_RULE(fake.gic_at[0] && fake.gic_at[1] && fake.gic_at[2] && fake.msi[1],
              "a place is missing");
    fake.gic = true;
    return HV_SUCCESS;
}

static hv_return_t fake_set_spi(uint32_t intid, bool level)
{
    FAKE_RULE(fake.gic, "there is no GIC");
    if (intid < 32 || (intid >= fake.msi[0] && intid < fake.msi[0] + fake.msi[1]))
        return HV_BAD_ARGUMENT;
    fake.spi = intid;
    fake.spi_level = level;
    fake.spis++;
    return HV_SUCCESS;
}

static hv_return_t fake_send_msi(uint64_t gpa, uint32_t intid)
{
    FAKE_RULE(fake.gic && gpa == fake.gic_at[2] + 0x40, "not the frame's register");
    if (intid < fake.msi[0] || intid >= fake.msi[0] + fake.msi[1])
        return HV_BAD_ARGUMENT;
    fake.message = intid;
    fake.messages++;
    return HV_SUCCESS;
}

/* What HVF_SYMBOL is in a test. */
static void *fake_symbol(const char *name)
{
    static const struct {
        const char *name;
        void (*fn)(void);
    } known[] = {
        {"hv_gic_config_create", (void (*)(void))fake_gic_config_create},
        {"hv_gic_config_set_distributor_base", (void (*)(void))fake_gic_distributor},
        {"hv_gic_config_set_redistributor_base", (void (*)(void))fake_gic_redistributor},
        {"hv_gic_config_set_msi_region_base", (void (*)(void))fake_gic_frame},
        {"hv_gic_config_set_msi_interrupt_range", (void (*)(void))fake_gic_range},
        {"hv_gic_create", (void (*)(void))fake_gic_create},
        {"hv_gic_set_spi", (void (*)(void))fake_set_spi},
        {"hv_gic_send_msi", (void (*)(void))fake_send_msi},
    };
    void *at = NULL;

    for (unsigned i = 0; i < sizeof known / sizeof known[0] && fake.has_gic; i++)
        if (strcmp(known[i].name, name) == 0)
            memcpy(&at, &known[i].fn, sizeof at);
    return at;
}

/* >>vcpu */
static struct fake_vcpu *fake_of(hv_vcpu_t id)
{
    FAKE_RULE(id < FAKE_VCPUS && fake.vcpu[id].exists, "there is no such vCPU");
    return &fake.vcpu[id];
}

static struct fake_vcpu *fake_mine(hv_vcpu_t id)
{
    struct fake_vcpu *v = fake_of(id);

    FAKE_RULE(pthread_equal(v->owner, pthread_self()), "the vCPU is another thread's");
    return v;
}

hv_return_t hv_vcpu_create(hv_vcpu_t *id, hv_vcpu_exit_t **exit, hv_vcpu_config_t config)
{
    struct fake_vcpu *v = NULL;

    FAKE_RULE(fake.vm && !config, "there is no VM");
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
    v->sys[HV_SYS_REG_ID_AA64PFR0_EL1] = 0x1101000011111111; /* no GICv3, as a Mac says */
    v->sys[HV_SYS_REG_ID_AA64PFR1_EL1] = 0x1000021;          /* SME among others */
    v->sys[HV_SYS_REG_ID_AA64DFR0_EL1] = FAKE_DFR0;
    pthread_mutex_unlock(&fake.lock);
    *id = (hv_vcpu_t)(v - fake.vcpu);
    *exit = &v->exit;
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_destroy(hv_vcpu_t id)
{
    fake_mine(id)->exists = false;
    return HV_SUCCESS;
}

static bool fake_cancelled(struct fake_vcpu *v, bool wait)
{
    bool was;

    pthread_mutex_lock(&fake.lock);
    while (wait && !v->cancel)
        pthread_cond_wait(&fake.cancelled, &fake.lock);
    was = v->cancel;
    v->cancel = false;
    pthread_mutex_unlock(&fake.lock);
    return was;
}

hv_return_t hv_vcpu_run(hv_vcpu_t id)
{
    struct fake_vcpu *v = fake_mine(id);

    if (fake.run_ret)
        return fake.run_ret;
    v->runs++;
    memset(&v->exit, 0, sizeof v->exit);
    memcpy(v->seen, v->line, sizeof v->seen);
    if (fake_cancelled(v, !fake.guest))
        v->exit.reason = HV_EXIT_REASON_CANCELED;
    else
        fake.guest(id, v);
    if (v->exit.reason == HV_EXIT_REASON_VTIMER_ACTIVATED) {
        FAKE_RULE(!v->masked, "the script has a masked timer fire");
        v->masked = true;
    }
    v->line[0] = v->line[1] = false;
    return HV_SUCCESS;
}

hv_return_t hv_vcpus_exit(hv_vcpu_t *ids, uint32_t n)
{
    pthread_mutex_lock(&fake.lock);
    for (uint32_t i = 0; i < n; i++)
        fake_of(ids[i])->cancel = true;
    pthread_cond_broadcast(&fake.cancelled);
    pthread_mutex_unlock(&fake.lock);
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_get_reg(hv_vcpu_t id, hv_reg_t reg, uint64_t *value)
{
    FAKE_RULE((unsigned)reg < 35, "there is no such register");
    *value = fake_mine(id)->reg[reg];
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_set_reg(hv_vcpu_t id, hv_reg_t reg, uint64_t value)
{
    FAKE_RULE((unsigned)reg < 35, "there is no such register");
    fake_mine(id)->reg[reg] = value;
    return HV_SUCCESS;
}

/* Those that the framework knows; ID registers that may be written are few. */
static bool fake_has(unsigned reg, bool write)
{
    static const uint16_t rw[] = {0x8010, 0x8012, 0xc005, 0xc020, 0xc021, 0xc028, 0xc080, 0xc082,
                                  0xc100, 0xc101, 0xc102, 0xc200, 0xc201, 0xc208, 0xc288, 0xc289,
                                  0xc290, 0xc300, 0xc3a0, 0xc510, 0xc518, 0xc600, 0xc681, 0xc684,
                                  0xc708, 0xd000, 0xde82, 0xde83, 0xdf19, 0xdf1a, 0xe208};
    static const uint16_t ro[] = {0xc000, 0xc029, 0xc030, 0xc031, 0xc038, 0xc039, 0xc03a};

    if (reg >> 7 == 0x100 && reg & 4) /* DBGBVR, DBGBCR, DBGWVR, DBGWCR */
        return (reg >> 3 & 15) <= (FAKE_DFR0 >> (reg & 2 ? 20 : 12) & 15);
    for (unsigned i = 0; i < sizeof rw / sizeof rw[0]; i++)
        if (rw[i] == reg)
            return true;
    for (unsigned i = 0; i < sizeof ro / sizeof ro[0]; i++)
        if (ro[i] == reg)
            return !write;
    return false;
}

hv_return_t hv_vcpu_get_sys_reg(hv_vcpu_t id, hv_sys_reg_t reg, uint64_t *value)
{
    struct fake_vcpu *v = fake_mine(id);
    uint64_t count = mach_absolute_time() - v->offset;

    FAKE_RULE(fake_has(reg, false), "there is no such system register");
    *value = v->sys[reg];
    if (reg == HV_SYS_REG_CNTV_CTL_EL0 && *value & 1 && count >= v->sys[HV_SYS_REG_CNTV_CVAL_EL0])
        *value |= 4; /* ISTATUS */
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_set_sys_reg(hv_vcpu_t id, hv_sys_reg_t reg, uint64_t value)
{
    struct fake_vcpu *v = fake_mine(id);

    FAKE_RULE(fake_has(reg, true), "this system register may not be written");
    FAKE_RULE(reg != HV_SYS_REG_MPIDR_EL1 || !v->runs, "the topology is fixed once a vCPU ran");
    v->sys[reg] = value;
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_get_simd_fp_reg(hv_vcpu_t id, hv_simd_fp_reg_t reg, hv_simd_fp_uchar16_t *value)
{
    FAKE_RULE((unsigned)reg < 32, "there is no such register");
    *value = fake_mine(id)->simd[reg];
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_set_simd_fp_reg(hv_vcpu_t id, hv_simd_fp_reg_t reg, hv_simd_fp_uchar16_t value)
{
    FAKE_RULE((unsigned)reg < 32, "there is no such register");
    fake_mine(id)->simd[reg] = value;
    return HV_SUCCESS;
}

/* >>debug */
hv_return_t hv_vcpu_set_trap_debug_exceptions(hv_vcpu_t id, bool value)
{
    fake_mine(id)->trap_debug = value;
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_set_trap_debug_reg_accesses(hv_vcpu_t id, bool value)
{
    fake_mine(id)->trap_debug_regs = value;
    return HV_SUCCESS;
}

hv_vcpu_config_t hv_vcpu_config_create(void)
{
    fake.objects++;
    return (hv_vcpu_config_t)(void *)&fake;
}

hv_return_t hv_vcpu_config_get_feature_reg(hv_vcpu_config_t config, hv_feature_reg_t reg,
                                           uint64_t *value)
{
    FAKE_RULE(config && reg == HV_FEATURE_REG_ID_AA64DFR0_EL1, "no such register");
    *value = FAKE_DFR0;
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_get_pending_interrupt(hv_vcpu_t id, hv_interrupt_type_t type, bool *pending)
{
    struct fake_vcpu *v = fake_mine(id);

    *pending = v->line[type];
    return fake.gic ? HV_UNSUPPORTED : HV_SUCCESS;
}

hv_return_t hv_vcpu_set_pending_interrupt(hv_vcpu_t id, hv_interrupt_type_t type, bool pending)
{
    struct fake_vcpu *v = fake_mine(id);

    if (fake.gic)
        return HV_UNSUPPORTED;
    v->line[type] = pending;
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_get_vtimer_mask(hv_vcpu_t id, bool *masked)
{
    *masked = fake_mine(id)->masked;
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_set_vtimer_mask(hv_vcpu_t id, bool masked)
{
    fake_mine(id)->masked = masked;
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_get_vtimer_offset(hv_vcpu_t id, uint64_t *offset)
{
    *offset = fake_mine(id)->offset;
    return HV_SUCCESS;
}

hv_return_t hv_vcpu_set_vtimer_offset(hv_vcpu_t id, uint64_t offset)
{
    fake_mine(id)->offset = offset;
    return HV_SUCCESS;
}

#endif /* HVF_FAKE_H */
