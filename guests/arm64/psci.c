/* vmm --binary psci.bin --entry 0x40001000 --cpus N; PSCI and SMCCC: versions, CPUs that come and
   go one after the other, and what is refused. */
#include "guest.h"

enum { NOT_SUPPORTED = -1, INVALID_PARAMETERS = -2, ALREADY_ON = -4, ON = 0, OFF = 1 };

static volatile uint64_t came[8]; /* the context that each CPU was given, as it saw it */

/* x0: the context, whose last digit gives each CPU 256 bytes of stack. */
void second(void);
__asm__(".globl second\nsecond: mov x1, #0x40000000\n and x2, x0, #7\n"
        " add x1, x1, x2, lsl #8\n mov sp, x1\n b arrived\n");

void arrived(uint64_t context);
void arrived(uint64_t context)
{
    came[context & 7] = context;
    __asm__ volatile("dsb sy");
    psci(PSCI_CPU_OFF, 0, 0, 0);
}

static unsigned start_others(void)
{
    unsigned n = 1;

    for (; n < 8; n++) {
        uint64_t context = 0xabcd0000 + n;
        long rc = psci(PSCI_CPU_ON, n, (uint64_t)second, context);
        if (rc == INVALID_PARAMETERS)
            break;
        expect("CPU_ON", (uint64_t)rc, 0);
        while (came[n] != context)
            ;
        while (psci(PSCI_AFFINITY_INFO, n, 0, 0) != OFF)
            ;
        came[n] = 0;
        expect("CPU_ON again", (uint64_t)psci(PSCI_CPU_ON, n, (uint64_t)second, context), 0);
        while (came[n] != context)
            ;
    }
    return n;
}

void start(void)
{
    char line[] = "psci: N CPUs";

    expect("version 1.0 or newer", (uint64_t)psci(PSCI_VERSION, 0, 0, 0) >> 16, 1);
    expect("SMCCC 1.1 or newer", (uint64_t)psci(SMCCC_VERSION, 0, 0, 0) >= 0x10001, 1);
    expect("SYSTEM_RESET is there", (uint64_t)psci(PSCI_FEATURES, PSCI_SYSTEM_RESET, 0, 0), 0);
    expect("nothing is there", (uint64_t)psci(PSCI_FEATURES, 0x8400ffff, 0, 0) & 0xffffffff,
           0xffffffff);
    expect("this CPU is on", (uint64_t)psci(PSCI_AFFINITY_INFO, 0, 0, 0), ON);
    expect("and stays so", (uint64_t)psci(PSCI_CPU_ON, 0, (uint64_t)second, 0),
           (uint64_t)ALREADY_ON);
    line[6] = (char)('0' + start_others());
    end_well(line);
}
