/* embed_debug.c - debug.h as an outsider uses it                   MIT licence, see LICENSE

   Its quick start, on a guest without paging that is about to execute the end of its memory. */
#include <stdio.h>

#define DEBUG_IMPLEMENTATION
#include "../debug.h"

/* quick start */
static bool peek(const struct vmm_mem *mem, const struct vmm_x86_regs *regs)
{
    uint8_t code[16]; // what the CPU will execute next
    uint64_t rip = regs->cs.base + regs->rip;
    return dbg_x86_read(mem, regs, rip, code, sizeof code) == sizeof code;
}
/* end */

int main(void)
{
    static uint8_t ram[4096];
    struct vmm_mem mem = {0};
    struct vmm_x86_regs regs = {.rip = 0xff0};
    bool last, beyond;

    vmm_mem_add(&mem, 0, sizeof ram, ram);
    last = peek(&mem, &regs);
    regs.rip++;
    beyond = peek(&mem, &regs);
    printf("embed_debug: 16 bytes at 0xff0: %d, at 0xff1: %d\n", last, beyond);
    return !last || beyond;
}
