/* embed_guest.c - a VMM in under 60 lines: boots the kernel that it is given, or, without one, a
   guest of a few bytes that says hi. Exit status 77: no usable /dev/kvm.  MIT licence, see LICENSE */
#define VMM_IMPLEMENTATION
#include "hv_kvm.h"
#include "boot.h"
#include "dev_legacy.h"

#include <stdio.h>

static size_t printed;

static size_t put(void *ctx, const void *buf, size_t len)
{
    printed += len;
    return fwrite(buf, 1, len, (FILE *)ctx);
}

static void complain(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    (void)level;
    vfprintf((FILE *)ctx, fmt, args);
}

static void irq(void *ctx, unsigned line, bool level)
{
    hyp_irq_set((struct hyp *)ctx, line, level);
}

static uint8_t *read_file(const char *path, uint64_t *len)
{
    int fd = open(path, O_RDONLY);
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    void *p = size <= 0 ? MAP_FAILED : mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0);

    *len = p == MAP_FAILED ? 0 : (uint64_t)size;
    return p == MAP_FAILED ? NULL : (uint8_t *)p;
}

static int run(const char *kernel)
{
    static const uint8_t hi[] = {0x66, 0xba, 0xf8, 0x03, 0xb0, 'h',  0xee,
                                 0xb0, 'i',  0xee, 0xb0, '\n', 0xee, 0xf4};
    struct vmm_log log = {complain, stderr, VMM_LOG_ERROR};
    struct hyp_desc desc = {.log = &log, .no_irqchip = !kernel};
    struct boot_dev dev = {BOOT_DEV_UART, 0x3f8, 8, 4};
    struct hyp h;
    struct hyp_cpu c;
    struct vmm_exit e = {0};
    struct vmm_mem mem = {0};
    struct vmm_bus ports = {0}, mmio = {0};
    struct boot_result at;
    uint64_t ram_len = 256 << 20;
    void *ram = mmap(NULL, ram_len, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (vmm_mem_add(&mem, 0, ram_len, ram) || hyp_open(&h, &desc) ||
        hyp_map(&h, 0, ram_len, ram, VMM_READ | VMM_WRITE))
        return 1;
    struct pc_uart com1;
    struct pc_uart_desc uart = {.irq = {irq, &h, 4}, .out = {.write = put, .ctx = stdout}};
    struct vmm_io io = {0x3f8, 8, pc_uart_read, pc_uart_write, &com1, {0}};
    pc_uart_init(&com1, &uart);
    vmm_bus_add(&ports, &io);

    struct boot_desc linux_image = {.machine = {.mem = &mem, .ncpus = 1, .devs = &dev, .ndevs = 1},
                                    .cmdline = "console=ttyS0 panic=-1 reboot=t",
                                    .log = &log};
    struct boot_flat_desc flat = {
        .mem = &mem, .file = {hi, sizeof hi, "hi"}, .load = 0x1000, .entry = 0x1000, .log = &log};
    if (kernel)
        linux_image.kernel.data = read_file(kernel, &linux_image.kernel.len);
    if (kernel ? boot_linux(&linux_image, &at) : boot_flat(&flat, &at.regs))
        return 1;
    if (hyp_cpu_open(&c, &h, 0) || hyp_set_regs(&c, &at.regs))
        return 1;
    while (hyp_run(&c, &e) == 0 && e.kind != VMM_EXIT_HALT && e.kind != VMM_EXIT_SHUTDOWN &&
           e.kind != VMM_EXIT_FAULT)
        if (e.kind == VMM_EXIT_PIO || e.kind == VMM_EXIT_MMIO)
            vmm_bus_exit(e.kind == VMM_EXIT_PIO ? &ports : &mmio, &e);
    hyp_cpu_close(&c);
    hyp_close(&h);
    return e.kind == VMM_EXIT_FAULT;
}

int main(int argc, char **argv)
{
    if (access("/dev/kvm", R_OK | W_OK)) {
        printf("embed_guest: no usable /dev/kvm\n");
        return 77;
    }
    if (argc > 1)
        return run(argv[1]);
    return run(NULL) || printed != 3; /* "hi" and a newline */
}
