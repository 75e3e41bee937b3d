/* embed_bios.c - dev_bios.h as an outsider uses it: declarations first, then the implementation, and
   the doc block's quick start verbatim. MIT licence, see LICENSE */
#include "../dev_bios.h"
#include <stdio.h>
#define DEV_BIOS_IMPLEMENTATION
#include "../dev_bios.h"

/* quick start */
static int one_char(struct vmm_mem *mem, struct vmm_bus *ports)
{
    static struct pc_bios bios;
    struct pc_bios_desc desc = {.mem = mem, .ports = ports};
    struct vmm_x86_regs r = {.cs = {.base = 0xf0000}, .rip = 0xfc96};

    pc_bios_rom((uint8_t *)vmm_at(mem, PC_BIOS_GPA, PC_BIOS_LEN));
    pc_bios_init(&bios, &desc);
    pc_bios_call(&bios, 0x1f, &r); // power-on: the data area
    r.gpr[VMM_RAX] = 0x0e41;       // INT 10h, teletype, 'A'
    pc_bios_call(&bios, 0x10, &r); // after the guest's write to port 0x10
    return r.rflags & 1;           // 0: done
}
/* end */

static uint8_t sent;

static uint64_t uart_read(void *dev, uint64_t off, unsigned len)
{
    (void)dev;
    (void)len;
    return off == 5 ? 0x60 : 0;
}

static void uart_write(void *dev, uint64_t off, unsigned len, uint64_t val)
{
    (void)dev;
    (void)len;
    sent = off ? sent : (uint8_t)val;
}

int main(void)
{
    static const struct vmm_io com1 = {0x3f8, 8, uart_read, uart_write, NULL, {0}};
    static uint8_t ram[1 << 20];
    struct vmm_mem mem = {0};
    struct vmm_bus ports = {0};
    int failed;

    vmm_mem_add(&mem, 0, sizeof ram, ram);
    vmm_bus_add(&ports, &com1);
    failed = one_char(&mem, &ports) || sent != 'A';
    printf("embed_bios: %s\n", failed ? "failed" : "ok");
    return failed;
}
