/* guest.h - what the tiny arm64 guests share: the console, PSCI, the end. One file, no libraries.
   They are entered at _start on CPU 0, EL1, MMU off, with a stack; all memory is Device memory then,
   which is why they are compiled for strict alignment.  MIT licence, see LICENSE */
#include <stdbool.h>
#include <stdint.h>

#define UART 0x09000000ul /* a 16550 */

enum { /* functions of PSCI, 64-bit calls where there are two */
       PSCI_VERSION = 0x84000000,
       PSCI_CPU_OFF = 0x84000002,
       PSCI_CPU_ON = 0xc4000003,
       PSCI_AFFINITY_INFO = 0xc4000004,
       PSCI_SYSTEM_OFF = 0x84000008,
       PSCI_SYSTEM_RESET = 0x84000009,
       PSCI_FEATURES = 0x8400000a,
       SMCCC_VERSION = 0x80000000
};

static inline long psci(unsigned function, uint64_t a, uint64_t b, uint64_t c)
{
    register uint64_t x0 __asm__("x0") = function;
    register uint64_t x1 __asm__("x1") = a;
    register uint64_t x2 __asm__("x2") = b;
    register uint64_t x3 __asm__("x3") = c;

    __asm__ volatile("hvc #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3) : : "memory");
    return (long)x0;
}

static inline void put(const char *s)
{
    for (; *s; s++)
        *(volatile uint8_t *)UART = (uint8_t)*s;
}

static inline void put_hex(uint64_t v)
{
    char text[17] = {0};

    for (unsigned i = 0; i < 16; i++)
        text[i] = "0123456789abcdef"[v >> (60 - 4 * i) & 15];
    put(text);
}

/* All is well: power off, status 0. */
static inline void end_well(const char *line)
{
    put(line);
    put("\n");
    psci(PSCI_SYSTEM_OFF, 0, 0, 0);
}

/* Something is not: says what, and resets the machine, status 4. */
static inline void expect(const char *what, uint64_t got, uint64_t want)
{
    if (got == want)
        return;
    put(what);
    put(": ");
    put_hex(got);
    put(" instead of ");
    put_hex(want);
    put("\n");
    psci(PSCI_SYSTEM_RESET, 0, 0, 0);
}

void start(void);
__asm__(".section .start, \"ax\"\n.globl _start\n_start: bl start\n1: wfi\n b 1b\n.text\n");
