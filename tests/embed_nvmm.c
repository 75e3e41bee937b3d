/* embed_nvmm.c - hv_nvmm.h as an outsider uses it: its quick start verbatim, on an NVMM that
   shim_nvmm.c plays on /dev/kvm. Exit status 77: there is none here.   MIT licence, see LICENSE */
#define HV_NVMM_IMPLEMENTATION
#define HV_X86_IMPLEMENTATION
#define DEBUG_IMPLEMENTATION
#include "hv_nvmm.h"

#include <stdio.h>

static uint8_t got;

static uint64_t port_read(void *dev, uint64_t off, unsigned len)
{
    (void)dev, (void)off, (void)len;
    return 0x5a;
}

static void port_write(void *dev, uint64_t off, unsigned len, uint64_t val)
{
    (void)off, (void)len;
    *(uint8_t *)dev = (uint8_t)val;
}

/* in $0x80, %al; inc %al; out %al, $0x80; hlt */
static const uint8_t code[] = {0xe4, 0x80, 0xfe, 0xc0, 0xe6, 0x80, 0xf4};

static int quick_start(uint8_t *ram, size_t ram_len, struct vmm_bus ports)
{
    static const struct vmm_x86_seg flat = {0, 0xffff, 0, 0x93}, none = {0, 0xffff, 0, 0x82};
    struct vmm_x86_regs regs = {.rflags = 2,
                                .cr0 = 0x60000010,
                                .ds = flat,
                                .es = flat,
                                .fs = flat,
                                .gs = flat,
                                .ss = flat,
                                .cs = {0, 0xffff, 0, 0x9b},
                                .tr = {0, 0xffff, 0, 0x8b},
                                .ldt = none};
#define ram_size ram_len
    /* quick start */
    struct hyp h;
    struct hyp_cpu c;
    struct hyp_desc desc = {.no_irqchip = true};
    struct vmm_exit e = {.kind = VMM_EXIT_AGAIN};
    if (hyp_open(&h, &desc) || hyp_map(&h, 0, ram_size, ram, VMM_READ | VMM_WRITE))
        return -1;
    memcpy(ram, code, sizeof code); // not before: mapped memory is zeroed
    if (hyp_cpu_open(&c, &h, 0) || hyp_set_regs(&c, &regs))
        return -1;
    while (e.kind != VMM_EXIT_HALT && hyp_run(&c, &e) == 0)
        if (e.kind == VMM_EXIT_PIO)
            vmm_bus_exit(&ports, &e);
    hyp_cpu_close(&c);
    hyp_close(&h);
    /* end */
    return 0;
}

int main(void)
{
    static uint8_t ram[65536] __attribute__((aligned(4096)));
    struct vmm_bus ports = {0};
    struct vmm_io io = {
        .base = 0x80, .len = 1, .read = port_read, .write = port_write, .dev = &got};

    if (access("/dev/kvm", R_OK | W_OK)) {
        printf("embed_nvmm: no usable /dev/kvm here\n");
        return 77;
    }
    if (vmm_bus_add(&ports, &io) || quick_start(ram, sizeof ram, ports) || got != 0x5b) {
        printf("embed_nvmm: the guest wrote 0x%x\n", got);
        return 1;
    }
    printf("embed_nvmm: the guest read 0x5a and wrote 0x%x\n", got);
    return 0;
}
