/* vmm --binary stress64.bin --entry 0x1000 --mode 64 --cpus N
   expect: COM1 "stress: no wake-up lost", status 0 (N from 1 to 8)

   Interrupts that race with HLT, with the interrupt flag, with the task priority by CR8 and by register, and with
   each other, from CPU to CPU and from timers. Each part waits for every interrupt in HLT, so that one
   that is lost is the end; a line before each says which part it is. MIT licence, see LICENSE */
#include "irq.h"

#ifndef ROUNDS
#define ROUNDS 400
#endif
enum { V_PING = 0x41, V_TIMER = 0x51, V_PART = 0xe1 };
/* Each CPU writes its own line of 64 bytes alone. */
#define MINE(id) (((volatile struct mine *)0x510000)[id])
struct mine {
    uint32_t pings, timers, nmis, part, done;
    uint32_t random;
    uint32_t pad[10];
};
#define PART (*(volatile uint32_t *)&SHARED.mine[0])
enum part { PING_PONG, FLAGS, BY_CR8, BY_TPR, NMIS, TIMERS, ALL_AT_ONCE, NPARTS };

static void on_interrupt(unsigned vector)
{
    volatile struct mine *m = &MINE(cpu_id());

    m->pings += vector == V_PING;
    m->timers += vector == V_TIMER;
    m->nmis += vector == 2;
    if (vector != 2)
        lapic_write(EOI, 0);
}

static uint32_t random(uint32_t id)
{
    uint32_t x = MINE(id).random;

    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return MINE(id).random = x;
}

/* Now at once, now as long as it takes to get to HLT. */
static void dawdle(uint32_t id)
{
    for (uint32_t n = random(id) % 8 ? 0 : random(id) % 300; n; n--)
        __asm__ volatile("pause");
}

static void set_cr8(uint64_t priority)
{
    __asm__ volatile("mov %0, %%cr8" : : "r"(priority) : "memory");
}

/* An interrupt comes sometime while this CPU does not let it in, by one of three means; then it lets it in and
   halts. */
static void let_in(uint32_t id, unsigned part, uint32_t n)
{
    if (part == BY_CR8)
        set_cr8(15);
    else if (part == BY_TPR)
        lapic_write(TPR, 0xf0);
    if (part != FLAGS)
        sti();
    dawdle(id);
    cli();
    if (part == BY_CR8)
        set_cr8(0);
    else if (part == BY_TPR)
        lapic_write(TPR, 0);
    if (part == FLAGS && random(id) % 2) { /* a window of one instruction */
        __asm__ volatile("sti; nop; cli" : : : "memory");
        dawdle(id);
    }
    while (MINE(id).pings < n)
        sti_hlt_cli();
}

/* Two CPUs send each other an interrupt in turn. */
static void ping_pong(uint32_t id, unsigned part)
{
    uint32_t other = id ^ 1;

    if (other >= SHARED.ncpus)
        return;
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        if (!(id & 1))
            send(other, V_PING);
        let_in(id, part, i);
        dawdle(id);
        if (id & 1)
            send(other, V_PING);
    }
}

/* With the interrupt flag off: an NMI alone ends HLT. */
static void nmis(uint32_t id)
{
    uint32_t other = id ^ 1;

    if (other >= SHARED.ncpus)
        return;
    for (uint32_t i = 1; i <= ROUNDS / 8; i++) {
        if (!(id & 1))
            send(other, NMI);
        if (id & 1)
            send(id, SELF | V_PING); /* waits behind the flag */
        while (MINE(id).nmis < i)    /* it may come before the HLT: then not for ever */
            __asm__ volatile("pause");
        if (id & 1)
            send(other, NMI);
    }
    settle();
}

/* The LAPIC's timer against HLT, from "already there" to "long after". */
static void timers(uint32_t id)
{
    lapic_write(DIVIDE, BY_1);
    lapic_write(TIMER, V_TIMER);
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        lapic_write(INITIAL, 1 + random(id) % 60000);
        dawdle(id);
        while (MINE(id).timers < i)
            sti_hlt_cli();
    }
    lapic_write(TIMER, MASKED);
}

/* The timer wakes; in between, whatever the others send. */
static void all_at_once(uint32_t id)
{
    lapic_write(TIMER, V_TIMER);
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        lapic_write(INITIAL, 1 + random(id) % 60000);
        send((id + 1 + random(id) % SHARED.ncpus) % SHARED.ncpus, V_PING);
        set_cr8(random(id) % 16);
        sti();
        dawdle(id);
        cli();
        set_cr8(0);
        while (MINE(id).timers < i)
            sti_hlt_cli();
    }
    lapic_write(TIMER, MASKED);
    settle();
}

static void run_part(uint32_t id, unsigned part)
{
    MINE(id).pings = MINE(id).timers = MINE(id).nmis = 0;
    __atomic_store_n((uint32_t *)&MINE(id).part, part + 1, __ATOMIC_SEQ_CST);
    for (uint32_t i = 0; i < SHARED.ncpus; i++)
        while (MINE(i).part <= part)
            __asm__ volatile("pause");
    if (part == NMIS)
        nmis(id);
    else if (part == TIMERS)
        timers(id);
    else if (part == ALL_AT_ONCE)
        all_at_once(id);
    else
        ping_pong(id, part);
    __atomic_store_n((uint32_t *)&MINE(id).done, part + 1, __ATOMIC_SEQ_CST);
}

static void other_cpu(uint32_t id)
{
    MINE(id).random = 12345 + id;
    for (unsigned part = 0; part < NPARTS; part++) {
        while (PART <= part)
            sti_hlt_cli();
        cli();
        run_part(id, part);
    }
}

static int guest(void)
{
    static const char *const names[NPARTS] = {[PING_PONG] = "HLT\n",
                                              [FLAGS] = "interrupt flag\n",
                                              [BY_CR8] = "CR8\n",
                                              [BY_TPR] = "TPR\n",
                                              [NMIS] = "NMIs\n",
                                              [TIMERS] = "timers\n",
                                              [ALL_AT_ONCE] = "all at once\n"};

    prepare();
    memset((void *)0x510000, 0, 0x1000);
    measure_tsc();
    MINE(0).random = 12345;
    start_others();
    print_number(SHARED.ncpus);
    print(" CPUs\n");
    for (unsigned part = 0; part < NPARTS; part++) {
        uint64_t start = tsc();
        print(names[part]);
        PART = part + 1;
        send(0, OTHERS | V_PART);
        run_part(0, part);
        for (uint32_t id = 1; id < SHARED.ncpus; id++)
            while (MINE(id).done <= part)
                outb(0x80, 0);
        print_number(microseconds(tsc() - start) / 1000);
        print(" ms\n");
    }
    print("stress: no wake-up lost\n");
    return 0;
}
