/* embed_kvm.c - hv_kvm.h as an outsider uses it: its quick start verbatim  MIT licence, see LICENSE
   Exit status 77: there is no usable /dev/kvm here. */
#define HV_KVM_IMPLEMENTATION
#include "hv_kvm.h"

#include <stdio.h>

static uint8_t *port_dev;

static uint64_t port_read(void *dev, uint64_t off, unsigned len)
{
    (void)dev, (void)off, (void)len;
    return 0x5a;
}

static void port_write(void *dev, uint64_t off, unsigned len, uint64_t val)
{
    (void)off, (void)len;
    *(uint8_t *)dev = (uint8_t)val;
    port_dev = dev;
}

/* Runs real-mode code at 0: reads port 0x80, adds one, writes it back, halts. */
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

/* Two VMs at once in one process, their guests in turn: neither sees the other. */
static int two_at_once(uint8_t *ram)
{
    static const struct vmm_x86_seg flat = {0, 0xffff, 0, 0x93};
    struct vmm_x86_regs regs = {.rflags = 2, .cr0 = 0x60000010, .ds = flat, .es = flat, .ss = flat};
    struct hyp_desc desc = {.no_irqchip = true};
    struct hyp h[2];
    struct hyp_cpu c[2];
    struct vmm_exit e;
    uint8_t said[2] = {0, 0};

    regs.cs = (struct vmm_x86_seg){0, 0xffff, 0, 0x9b};
    regs.tr = (struct vmm_x86_seg){0, 0xffff, 0, 0x8b};
    for (unsigned i = 0; i < 2; i++) {
        /* in al, 0x80; out 0x80, al; hlt */
        memcpy(ram + i * 4096, "\xe4\x80\xe6\x80\xf4", 5);
        if (hyp_open(&h[i], &desc) || hyp_map(&h[i], 0, 4096, ram + i * 4096, VMM_READ | VMM_WRITE))
            return -1;
        if (hyp_cpu_open(&c[i], &h[i], 0) || hyp_set_regs(&c[i], &regs))
            return -1;
    }
    for (unsigned step = 0; step < 6; step++) {
        unsigned i = step & 1;
        if (hyp_run(&c[i], &e) || e.kind != (step < 4 ? VMM_EXIT_PIO : VMM_EXIT_HALT))
            return -1;
        if (step < 2)
            e.data[0] = (uint8_t)(0x70 + i);
        else if (step < 4)
            said[i] = e.data[0];
    }
    for (unsigned i = 0; i < 2; i++) {
        hyp_cpu_close(&c[i]);
        hyp_close(&h[i]);
    }
    return said[0] == 0x70 && said[1] == 0x71 ? 0 : -1;
}

int main(void)
{
    static const uint8_t code[] = {0xe4, 0x80, 0xfe, 0xc0, 0xe6, 0x80, 0xf4};
    static uint8_t ram[1 << 16] __attribute__((aligned(4096)));
    uint8_t seen = 0;
    struct vmm_bus ports = {0};
    struct vmm_io io = {0x80, 1, port_read, port_write, &seen, {0}};

    if (access("/dev/kvm", R_OK | W_OK)) {
        printf("embed_kvm: no usable /dev/kvm\n");
        return 77;
    }
    memcpy(ram, code, sizeof code);
    vmm_bus_add(&ports, &io);
    /* twice: nothing of the first VM is left behind */
    for (int i = 0; i < 2; i++) {
        seen = 0;
        if (quick_start(ram, sizeof ram, ports) || seen != 0x5b) {
            printf("embed_kvm: the guest wrote %#x instead of 0x5b\n", seen);
            return 1;
        }
    }
    if (two_at_once(ram)) {
        printf("embed_kvm: two VMs at once do not work\n");
        return 1;
    }
    printf("embed_kvm: guests one after the other, and two VMs at once\n");
    return 0;
}
