/* traps.c - a program that has breakpoints and steps of its own; static, runs in guests

     traps N   executes N breakpoint instructions, and N times one with the trap flag set
   Each has to end in the signal that is meant for a debugger within the guest, and at the right place.
   Prints "breakpoints=N steps=N wrong=N"; exit status 1 if anything was wrong. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

extern const char after_breakpoint[], after_step[];
static unsigned breakpoints, steps, wrong;

static void on_trap(int signo, siginfo_t *info, void *context)
{
    greg_t *gregs = ((ucontext_t *)context)->uc_mcontext.gregs;
    uintptr_t rip = (uintptr_t)gregs[REG_RIP];

    (void)signo, (void)info;
    if (rip == (uintptr_t)after_breakpoint && !(gregs[REG_EFL] & 0x100))
        breakpoints++;
    else if (rip == (uintptr_t)after_step)
        steps++;
    else
        wrong++;
    gregs[REG_EFL] &= ~0x100;
}

int main(int argc, char **argv)
{
    struct sigaction sa = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    unsigned n = argc == 2 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;

    sigaction(SIGTRAP, &sa, NULL);
    for (unsigned i = 0; i < n; i++)
        __asm__ volatile("subq $128, %%rsp\n"
                         "int3\n"
                         ".globl after_breakpoint\n"
                         "after_breakpoint:\n"
                         "pushfq\n"
                         "orq $0x100, (%%rsp)\n"
                         "popfq\n"
                         "nop\n"
                         ".globl after_step\n"
                         "after_step:\n"
                         "addq $128, %%rsp\n" ::
                             : "cc", "memory");
    wrong += breakpoints != n || steps != n;
    printf("breakpoints=%u steps=%u wrong=%u\n", breakpoints, steps, wrong);
    return wrong != 0;
}
