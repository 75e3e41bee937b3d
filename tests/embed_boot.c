/* embed_boot.c - boot.h as an outsider uses it: declarations first, then the implementation, and
   the doc block's quick start verbatim, on a kernel of one instruction. MIT licence, see LICENSE */
#include "../boot.h"
#include <stdio.h>
#define BOOT_IMPLEMENTATION
#include "../boot.h"

/* An ELF file with one segment: hlt, at 2 MiB. */
static uint64_t make_kernel(uint8_t *file)
{
    static const uint8_t ident[] = {0x7f, 'E', 'L', 'F', 2, 1, 1};

    memcpy(file, ident, sizeof ident);
    vmm_put16(file + 16, 2);        /* executable */
    vmm_put16(file + 18, 62);       /* x86-64 */
    vmm_put64(file + 24, 0x200000); /* entry */
    vmm_put64(file + 32, 64);       /* program headers: where, */
    vmm_put16(file + 54, 56);       /* of which size, */
    vmm_put16(file + 56, 1);        /* how many */
    vmm_put32(file + 64, 1);        /* PT_LOAD */
    vmm_put64(file + 72, 120);      /* offset */
    vmm_put64(file + 88, 0x200000); /* physical address */
    vmm_put64(file + 96, 1);        /* bytes in the file, */
    vmm_put64(file + 104, 1);       /* in memory */
    file[120] = 0xf4;
    return 121;
}

static int run(const uint8_t *file, uint64_t len)
{
    /* quick start */
    static uint8_t ram[32 << 20]; // zeroed
    struct vmm_mem mem = {0};
    struct boot_dev devs[] = {{BOOT_DEV_UART, 0x3f8, 8, 4}};
    struct boot_desc desc = {0};
    struct boot_result at;

    vmm_mem_add(&mem, 0, sizeof ram, ram);
    desc.machine.mem = &mem;
    desc.machine.ncpus = 1;
    desc.machine.devs = devs;
    desc.machine.ndevs = 1;
    desc.kernel.data = file; // the whole file, read or mapped
    desc.kernel.len = len;
    desc.kernel.name = "vmlinux";
    desc.cmdline = "console=ttyS0";
    int err = boot_linux(&desc, &at); // 0: give at.regs to vCPU 0
    /* end */

    return err || at.format != BOOT_ELF64 || at.regs.rip != 0x200000 || ram[0x200000] != 0xf4;
}

int main(void)
{
    static uint8_t file[4096];
    int failed = run(file, make_kernel(file));

    printf("embed_boot: %s\n", failed ? "failed" : "ok");
    return failed;
}
