/* embed_x86.c - hv_x86.h as an outsider uses it                    MIT licence, see LICENSE

   Its quick start, on a guest without paging that stores a byte in a device's register. */
#include <stdio.h>

#define HV_X86_IMPLEMENTATION
#define DEBUG_IMPLEMENTATION
#include "../hv_x86.h"

/* quick start */
static bool carry_out(const struct vmm_bus *bus, const struct vmm_mem *mem,
                      struct vmm_x86_regs *regs)
{
    struct x86_emul e = {0};
    enum x86_step step = x86_emul_begin(&e, mem, regs, NULL, 0);
    for (; step == X86_ACCESS; step = x86_emul_next(&e)) {
        uint64_t val = vmm_get64(e.access.data);
        vmm_bus_access(bus, e.access.gpa, e.access.size, e.access.write, &val);
        vmm_put64(e.access.data, val);
    }
    return step == X86_DONE; // else an exception, or not known: see enum x86_step
}
/* end */

static uint64_t stored;

static void store(void *dev, uint64_t off, unsigned len, uint64_t val)
{
    (void)dev;
    stored = off << 16 | len << 8 | val;
}

int main(void)
{
    static uint8_t ram[4096] = {0xc6, 0x05, 0x34, 0x12, 0x00, 0x00, 0x2a}; /* mov [0x1234], 42 */
    const struct vmm_io io = {.base = 0x1000, .len = 0x1000, .write = store};
    const struct vmm_x86_seg flat = {.limit = 0xffffffff, .attr = 0xc093};
    struct vmm_x86_regs regs = {.cr0 = 1, .ds = flat, .cs = flat};
    struct vmm_bus bus = {0};
    struct vmm_mem mem = {0};
    bool done;

    vmm_mem_add(&mem, 0, sizeof ram, ram);
    vmm_bus_add(&bus, &io);
    done = carry_out(&bus, &mem, &regs);
    printf("embed_x86: done %d, stored %#llx\n", done, (unsigned long long)stored);
    return !done || regs.rip != 7 || stored != (0x234 << 16 | 1 << 8 | 42);
}
