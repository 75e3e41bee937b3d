/* fuzz_hvf_arm64.c - syndromes, system registers and calls at random for hv_hvf.h  MIT licence, see LICENSE

   The input is steps of 16 bytes: which kind, and 15 bytes of a syndrome or of arguments; each is an
   exit of a framework that is played. What must hold: the guest's registers change as the
   architecture says and no other way, an access has a width and a register that exist, calls answer
   what PSCI has, and no call of the framework's breaks its rules (hvf_fake.h). */
#define _GNU_SOURCE
#define HV_HVF_IMPLEMENTATION
static void *fake_symbol(const char *name);
#define HVF_SYMBOL fake_symbol
#include "../hv_hvf.h"
#include "hvf_fake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct hyp h;
static struct hyp_cpu c;
static const uint8_t *input;
static size_t left;
static uint64_t esr, before[35];

/* No assert: it must hold in every build. */
static void must(bool held)
{
    if (!held)
        abort();
}

/* A syndrome of a class that there is, most of the time; the arguments of calls that there are. */
static void next_exit(struct fake_vcpu *v)
{
    static const uint8_t classes[] = {0x01, 0x16, 0x17, 0x18, 0x24, 0x24, 0x20, 0};
    unsigned class = input[0] & 7;

    esr = (uint64_t)(class < 7 ? classes[class] : input[1] >> 2) << 26 |
          vmm_get32(input + 1) % (1u << 26);
    if (class == 1 || class == 2)
        v->reg[0] = (input[0] & 8 ? 0x84000000 : 0) | (input[0] & 16 ? 0x40000000 : 0) |
                    (input[0] & 32 ? input[5] & 31 : vmm_get32(input + 5));
    for (unsigned i = 1; i < 4; i++)
        v->reg[i] = input[0] & 64 ? input[8 + i] & 3 : vmm_get32(input + 8 + i);
    v->reg[HV_REG_CPSR] = input[15] & 0x1f;
    v->exit.reason = input[0] & 0x80 ? input[14] & 3 : HV_EXIT_REASON_EXCEPTION;
    if (v->exit.reason == HV_EXIT_REASON_VTIMER_ACTIVATED && v->masked)
        v->exit.reason = HV_EXIT_REASON_CANCELED;
    v->exit.exception.syndrome = esr;
    v->exit.exception.physical_address = vmm_get64(input + 6);
    memcpy(before, v->reg, sizeof before);
    input += 16;
    left -= 16;
}

static void play(hv_vcpu_t id, struct fake_vcpu *v)
{
    (void)id;
    if (left < 16) {
        hyp_kick(&c);
        v->exit.reason = HV_EXIT_REASON_CANCELED;
        return;
    }
    next_exit(v);
}

/* One turn of what vmm.c does; false: the guest has ended. A CPU that is off or waits would sleep. */
static bool turn(void)
{
    struct vmm_exit e = {.kind = VMM_EXIT_AGAIN};
    struct fake_vcpu *v = &fake.vcpu[c.vcpu];

    if (!c.on || c.idle) {
        c.on = true;
        c.idle = false;
        h.power[0].state = HVF_ON;
    }
    hyp_cpu_lines(&h, 0, 1); /* so that nothing sleeps for long */
    must(!hvf__step(&c, &e) || e.kind <= VMM_EXIT_FAULT);
    if (!c.pending)
        return true;
    must(c.access.size && c.access.size <= 8 && !(c.access.size & (c.access.size - 1)));
    must(c.access.reg < 32);
    memset(c.data, 0xff, sizeof c.data);
    memcpy(before, v->reg, sizeof before);
    hvf__complete(&c);
    for (unsigned i = 0; i < 31; i++)
        must(v->reg[i] == before[i] || (!c.access.write && i == c.access.reg));
    must(v->reg[HV_REG_PC] == before[HV_REG_PC] + 4);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct hyp_desc d = {.ncpus = 3};
    struct vmm_debug debug = {0};

    if (len < 16)
        return 0;
    fake.guest = play;
    fake.now = 1000000;
    fake.has_gic = false;
    input = data;
    left = len;
    must(!hyp_open(&h, &d) && !hyp_cpu_open(&c, &h, 0));
    debug.step = data[13] & 1;
    debug.traps = data[13] & 2;
    must(!hyp_debug(&c, &debug));
    while (left >= 16) {
        size_t had = left;
        for (unsigned i = 0; i < 4 && left == had; i++)
            turn();
        must(left < had);
        for (unsigned i = 0; i < 3; i++)
            must(h.power[i].state <= HVF_ON);
    }
    hyp_cpu_close(&c);
    hyp_close(&h);
    return 0;
}
