/* hv_fake.h - a hypervisor that plays a script: the contract of vmm.h for tests of vmm.c without
   any virtualisation. CPU 0 gets the exits of fake_script one after the other, then, like every
   other CPU, sleeps until it is kicked.  MIT licence, see LICENSE */
#ifndef HV_FAKE_H
#define HV_FAKE_H

#define HYP_BACKEND
#include "vmm.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

struct hyp {
    const struct vmm_log *log;
    unsigned caps;
};

struct hyp_cpu {
    struct hyp *hyp;
    unsigned id, next;
    int kicked; /* atomic */
    bool ready, window;
    unsigned cr8;

    /* for fake.guest */
    uint8_t data[8];
    bool started;
    unsigned step, rounds, random, vector; /* the last that came in */
    struct vmm_debug debug;
};

struct fake_exit {
    enum vmm_exit_kind kind;
    uint64_t addr;
    uint64_t val;  /* written; for a read: what must come back; DEBUG: the code */
    unsigned size; /* 0: 1 */
    bool write;
    int err;           /* what hyp_run returns */
    bool ready;        /* the guest can take an interrupt after it */
    bool await_window; /* the VMM must want one when the guest is entered next */
    bool await_start;  /* it comes when another CPU has been started */
};

static struct {
    const struct fake_exit *exits;
    int (*guest)(struct hyp_cpu *c, struct vmm_exit *e); /* in place of exits, on every CPU */
    unsigned nexits;
    int open_err, cpu_err; /* what hyp_open, hyp_cpu_open (of the last CPU) return */
    unsigned last_cpu;
    unsigned *asleep;    /* NULL, or where to tell that CPU 0 has come to the end of the script */
    unsigned raised;     /* hyp_irq_set(true) so far; atomic */
    unsigned mismatches; /* reads that brought something else, windows that were not wanted */
    unsigned injected, ninjected, nmis, refused, uninjected; /* the last vector; how often each */
    unsigned debugged, passed; /* calls of hyp_debug, hyp_debug_pass */
    unsigned started;                            /* page of the CPU that was started; atomic */
} fake;

VMM_DEF int hyp_open(struct hyp *h, const struct hyp_desc *desc)
{
    h->log = desc->log;
    h->caps = desc->no_irqchip      ? 0
              : desc->split_irqchip ? HYP_CAP_LAPIC
                                    : HYP_CAP_IRQCHIP | HYP_CAP_LAPIC;
    h->caps |= HYP_CAP_DEBUG | HYP_CAP_REMAP;
    return fake.open_err ? vmm_err(h->log, fake.open_err, "the fake hypervisor does not open") : 0;
}

VMM_DEF void hyp_close(struct hyp *h)
{
    (void)h;
}

VMM_DEF unsigned hyp_caps(const struct hyp *h)
{
    return h->caps;
}

VMM_DEF unsigned hyp_gpa_bits(const struct hyp *h)
{
    (void)h;
    return 40;
}

VMM_DEF int hyp_map(struct hyp *h, uint64_t gpa, uint64_t len, void *hva, unsigned prot)
{
    (void)h;
    return (gpa | len | (uintptr_t)hva) % 4096 || !prot ? -EINVAL : 0;
}

VMM_DEF void hyp_irq_set(struct hyp *h, unsigned gsi, bool level)
{
    (void)h;
    (void)gsi;
    if (level)
        __atomic_add_fetch(&fake.raised, 1, __ATOMIC_SEQ_CST);
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
    (void)h;
    (void)gsi;
    (void)bell;
    (void)done;
    (void)on;
    return -ENOSYS;
}

VMM_DEF int hyp_window_map(struct hyp *h, uint64_t gpa, uint64_t len, void *hva, unsigned prot)
{
    return hyp_map(h, gpa, len, hva, prot);
}

VMM_DEF int hyp_window_unmap(struct hyp *h, uint64_t gpa, uint64_t len)
{
    (void)h;
    return (gpa | len) % 4096 ? -EINVAL : 0;
}

VMM_DEF int hyp_device_add(struct hyp *h, int fd)
{
    (void)h;
    (void)fd;
    return -ENOSYS;
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

VMM_DEF void hyp_msi_send(struct hyp *h, uint64_t addr, uint32_t data)
{
    (void)h;
    (void)addr;
    (void)data;
    __atomic_add_fetch(&fake.raised, 1, __ATOMIC_SEQ_CST);
}

VMM_DEF int hyp_eoi_route(struct hyp *h, unsigned pin, uint64_t addr, uint32_t data)
{
    (void)h;
    (void)addr;
    (void)data;
    return pin < 24 ? 0 : -EINVAL;
}

VMM_DEF bool hyp_ready(const struct hyp_cpu *c)
{
    return c->ready;
}

VMM_DEF void hyp_want_window(struct hyp_cpu *c, bool want)
{
    c->window = want;
}

VMM_DEF int hyp_inject(struct hyp_cpu *c, uint8_t vector)
{
    fake.injected = vector;
    fake.ninjected++;
    c->vector = vector;
    c->ready = false;
    return 0;
}

VMM_DEF int hyp_inject_nmi(struct hyp_cpu *c)
{
    (void)c;
    fake.nmis++;
    return 0;
}

VMM_DEF int hyp_uninject(struct hyp_cpu *c)
{
    c->vector = 0;
    fake.uninjected++;
    return 0;
}

VMM_DEF unsigned hyp_cr8(const struct hyp_cpu *c)
{
    return c->cr8;
}

VMM_DEF void hyp_set_cr8(struct hyp_cpu *c, unsigned cr8)
{
    c->cr8 = cr8;
}

VMM_DEF void hyp_msr_refuse(struct hyp_cpu *c)
{
    (void)c;
    fake.refused++;
}

VMM_DEF uint64_t hyp_tsc(struct hyp_cpu *c, uint64_t *hz)
{
    (void)c;
    *hz = 1000000000;
    return 5000;
}

VMM_DEF int hyp_doorbell(struct hyp *h, const struct vmm_doorbell *where, int bell, bool on)
{
    (void)h;
    (void)where;
    (void)bell;
    (void)on;
    return -ENOSYS;
}

VMM_DEF int hyp_cpu_open(struct hyp_cpu *c, struct hyp *h, unsigned id)
{
    memset(c, 0, sizeof *c);
    c->hyp = h;
    c->id = id;
    if (fake.cpu_err && id == fake.last_cpu)
        return vmm_err(h->log, fake.cpu_err, "the fake CPU %u does not open", id);
    return 0;
}

VMM_DEF void hyp_cpu_close(struct hyp_cpu *c)
{
    c->id = ~0u;
}

VMM_DEF int hyp_get_regs(struct hyp_cpu *c, struct vmm_x86_regs *regs)
{
    (void)c;
    memset(regs, 0, sizeof *regs);
    regs->rip = 0x1234;
    return 0;
}

VMM_DEF int hyp_set_regs(struct hyp_cpu *c, const struct vmm_x86_regs *regs)
{
    if (c->id)
        __atomic_store_n(&fake.started, regs->cs.selector >> 8, __ATOMIC_SEQ_CST);
    c->started = c->id;
    return regs->rflags & 2 ? 0 : -EINVAL;
}

VMM_DEF int hyp_debug(struct hyp_cpu *c, const struct vmm_debug *d)
{
    c->debug = *d;
    fake.debugged++;
    return 0;
}

VMM_DEF int hyp_debug_pass(struct hyp_cpu *c)
{
    (void)c;
    fake.passed++;
    return 0;
}

VMM_DEF int hyp_get_fpu(struct hyp_cpu *c, struct vmm_fpu *fpu)
{
    (void)c;
    memset(fpu, 0, sizeof *fpu);
    return 0;
}

VMM_DEF int hyp_set_fpu(struct hyp_cpu *c, const struct vmm_fpu *fpu)
{
    (void)c;
    (void)fpu;
    return 0;
}

static int fake_sleep(struct hyp_cpu *c, struct vmm_exit *e)
{
    struct timespec ms = {.tv_nsec = 1000000};

    if (c->id == 0 && fake.asleep)
        __atomic_store_n(fake.asleep, 1, __ATOMIC_SEQ_CST);
    while (!__atomic_exchange_n(&c->kicked, 0, __ATOMIC_SEQ_CST))
        nanosleep(&ms, NULL);
    e->kind = VMM_EXIT_AGAIN;
    return 0;
}

VMM_DEF int hyp_run(struct hyp_cpu *c, struct vmm_exit *e)
{
    static uint8_t data[8];
    const struct fake_exit *f = &fake.exits[c->next];

    if (fake.guest)
        return fake.guest(c, e);
    if (c->id == 0 && c->next > 0 && !f[-1].write && f[-1].size + f[-1].addr)
        fake.mismatches += memcmp(data, &f[-1].val, f[-1].size ? f[-1].size : 1) != 0;
    if (c->id != 0 || c->next >= fake.nexits)
        return fake_sleep(c, e);
    c->next++;
    memcpy(data, &f->val, sizeof data);
    fake.mismatches += f->await_window && !c->window;
    while (f->await_start && !__atomic_load_n(&fake.started, __ATOMIC_SEQ_CST))
        sched_yield();
    c->ready = f->ready;
    *e = (struct vmm_exit){.kind = f->kind,
                           .write = f->write,
                           .size = f->size ? f->size : 1,
                           .count = 1,
                           .addr = f->addr,
                           .data = data,
                           .why = "the script says so",
                           .code = f->kind == VMM_EXIT_DEBUG ? f->val : 7};
    return f->err;
}

VMM_DEF void hyp_kick(struct hyp_cpu *c)
{
    __atomic_store_n(&c->kicked, 1, __ATOMIC_SEQ_CST);
}

#endif /* HV_FAKE_H */
