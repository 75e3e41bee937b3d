/* embed_guest.c - a VMM in under 60 lines: boots the kernel that it is given, or, without one, a
   guest of a few bytes that says hi. Status 77: no usable /dev/kvm.  MIT licence, see LICENSE */
#define VMM_IMPLEMENTATION
#include "hv_kvm.h"
#include "boot.h"
#include "dev_legacy.h"

#include <stdio.h>

static size_t put(void *ctx, const void *buf, size_t len)
{
    return fwrite(buf, 1, len, (FILE *)ctx);
}

static void irq(void *ctx, unsigned line, bool level)
{
    hyp_irq_set((struct hyp *)ctx, line, level);
}

static void complain(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    (void)level;
    vfprintf((FILE *)ctx, fmt, args);
}

static int run(const char *kernel, uint8_t *ram, uint64_t ram_len, FILE *out)
{
    static const uint8_t hi[] = {0x66, 0xba, 0xf8, 3, 0xb0, 'h', 0xee, 0xb0, 'i', 0xee, 0xf4};
    struct vmm_log log = {complain, stderr, VMM_LOG_ERROR};
    struct hyp_desc hv = {.log = &log, .no_irqchip = !kernel}; /* then HLT ends the guest */
    struct boot_dev uart = {BOOT_DEV_UART, 0x3f8, 8, 4};
    struct vmm_mem mem = {.range = {{0, ram_len, ram}}, .nranges = 1};
    struct boot_desc boot = {.machine = {.mem = &mem, .ncpus = 1, .devs = &uart, .ndevs = 1},
                             .cmdline = "console=ttyS0 panic=-1 reboot=t",
                             .log = &log};
    struct boot_flat_desc flat = {.mem = &mem, .file = {hi, sizeof hi, "hi"}, .log = &log};
    struct vmm_bus ports = {0}, mmio = {0};
    struct vmm_exit e = {0};
    struct boot_result at;
    struct pc_uart com1;
    struct hyp h;
    struct hyp_cpu c;
    int fd = kernel ? open(kernel, O_RDONLY) : -1;

    if (hyp_open(&h, &hv) || hyp_map(&h, 0, ram_len, ram, VMM_READ | VMM_WRITE))
        return 1;
    pc_uart_init(&com1, &(struct pc_uart_desc){.irq = {irq, &h, 4}, .out = {put, NULL, out}});
    vmm_bus_add(&ports, &(struct vmm_io){0x3f8, 8, pc_uart_read, pc_uart_write, &com1, {0}});
    boot.kernel.len = fd < 0 ? 0 : (uint64_t)lseek(fd, 0, SEEK_END);
    boot.kernel.data = mmap(NULL, boot.kernel.len, PROT_READ, MAP_PRIVATE, fd, 0);
    if (kernel ? boot_linux(&boot, &at) : boot_flat(&flat, &at.regs))
        return 1;
    if (hyp_cpu_open(&c, &h, 0) || hyp_set_regs(&c, &at.regs))
        return 1;
    while (hyp_run(&c, &e) == 0 && e.kind < VMM_EXIT_HALT)
        if (e.kind != VMM_EXIT_AGAIN)
            vmm_bus_exit(e.kind == VMM_EXIT_PIO ? &ports : &mmio, &e);
    hyp_cpu_close(&c);
    hyp_close(&h);
    return 0;
}
/* end of the VMM; what follows runs it */

int main(int argc, char **argv)
{
    const uint64_t len = 256 << 20;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    uint8_t *ram = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, -1, 0);
    FILE *out = argc > 1 ? stdout : tmpfile();
    char said[8] = "";

    if (access("/dev/kvm", R_OK | W_OK)) {
        printf("embed_guest: no usable /dev/kvm\n");
        return 77;
    }
    if (ram == MAP_FAILED || !out || run(argc > 1 ? argv[1] : NULL, ram, len, out))
        return 1;
    if (argc > 1)
        return 0;
    rewind(out);
    printf("embed_guest: the guest said '%s'\n", fgets(said, sizeof said, out) ? said : "");
    return strcmp(said, "hi") != 0;
}
