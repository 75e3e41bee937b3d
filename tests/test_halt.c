/* test_halt.c - vmm's CPU threads with interrupt controllers of its own: no wake-up is lost between
   interrupts, HLT and kicks. The guest is a program of hv_fake.h: its CPUs pass one interrupt around
   a ring, and each waits for it now in HLT, now busy.               MIT licence, see LICENSE */
#define _GNU_SOURCE
#define VMM_NO_MAIN
#define VMM_BACKEND "tests/hv_fake.h"
#include "../vmm.c"

#include "check.h"
#include <sys/wait.h>

enum { NCPUS = 3, ROUNDS = 3000, PING = 0x41, DONE = 9 };
static unsigned up; /* CPUs whose LAPIC is on, but the first; atomic */
#define SVR      0xfee000f0u
#define EOI      0xfee000b0u
#define ICR      0xfee00300u
#define ICR_DEST 0xfee00310u

/* One access of the guest's. */
static int touch(struct hyp_cpu *c, struct vmm_exit *e, enum vmm_exit_kind kind, uint64_t addr,
                 uint32_t val)
{
    vmm_put32(c->data, val);
    *e = (struct vmm_exit){.kind = kind,
                           .write = true,
                           .size = kind == VMM_EXIT_PIO ? 1 : 4,
                           .count = 1,
                           .addr = addr,
                           .data = c->data};
    c->step++;
    return 0;
}

/* Waits as guests do: halted, or busy until something ends its run. */
static int await_ping(struct hyp_cpu *c, struct vmm_exit *e)
{
    c->ready = true;
    if (!c->vector && (c->random = c->random * 1103515245 + 12345) >> 16 & 1) {
        while (!c->window && !__atomic_exchange_n(&c->kicked, 0, __ATOMIC_SEQ_CST))
            sched_yield();
        e->kind = VMM_EXIT_AGAIN;
    } else {
        e->kind = c->vector ? VMM_EXIT_AGAIN : VMM_EXIT_HALT;
    }
    return 0;
}

/* CPU 0 starts the others and the ring; whoever has the interrupt passes it on. */
static int guest(struct hyp_cpu *c, struct vmm_exit *e)
{
    if (c->id && !c->started) {
        while (!__atomic_exchange_n(&c->kicked, 0, __ATOMIC_SEQ_CST))
            sched_yield();
        e->kind = VMM_EXIT_AGAIN;
        return 0;
    }
    switch (c->step) {
    case 0:
        return touch(c, e, VMM_EXIT_MMIO, SVR, 0x1ff);
    case 1: /* all others: INIT, then a start-up interrupt */
        if (c->id) {
            __atomic_add_fetch(&up, 1, __ATOMIC_SEQ_CST);
            c->step = 5;
            return await_ping(c, e);
        }
        return touch(c, e, VMM_EXIT_MMIO, ICR, 0xc4500);
    case 2:
        return touch(c, e, VMM_EXIT_MMIO, ICR, 0xc4608);
    case 3: /* until they are there, which is when their LAPICs are on */
        while (__atomic_load_n(&up, __ATOMIC_SEQ_CST) < NCPUS - 1)
            sched_yield();
        c->step++;
        /* fall through */
    case 4: /* the first one comes from nowhere */
        c->vector = PING;
        c->step = 5;
        /* fall through */
    case 5:
        if (!c->vector)
            return await_ping(c, e);
        c->rounds++;
        if (c->id == 0 && c->rounds > ROUNDS)
            return touch(c, e, VMM_EXIT_PIO, 0xf4, c->vector == PING ? DONE : 1);
        c->vector = 0;
        c->ready = false;
        return touch(c, e, VMM_EXIT_MMIO, EOI, 0);
    case 6:
        return touch(c, e, VMM_EXIT_MMIO, ICR_DEST, (c->id + 1) % NCPUS << 24);
    case 7:
        touch(c, e, VMM_EXIT_MMIO, ICR, PING);
        c->step = 5;
        return 0;
    default:
        return await_ping(c, e);
    }
}

int main(void)
{
    char binary[] = "/tmp/vmm-test-halt-XXXXXX";
    char *argv[] = {"vmm",      "--binary", binary,      "--entry", "0x1000",    "--cpus", "3",
                    "--serial", "null",     "--irqchip", "user",    "--timeout", "60",     NULL};
    int fd = mkstemp(binary), status = 0;
    pid_t pid;

    if (!CHECK(fd >= 0 && write(fd, "\xf4", 1) == 1))
        return 1;
    close(fd);
    fake.guest = guest;
    pid = fork();
    if (pid == 0)
        exit(vmm_main(sizeof argv / sizeof argv[0] - 1, argv));
    waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), DONE);
    unlink(binary);
    CHECK_DONE("test_halt");
}
