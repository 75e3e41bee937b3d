/* embed_legacy.c - dev_legacy.h as an outsider uses it: declarations first, then the
   implementation, and the doc block's quick start verbatim. MIT licence, see LICENSE */
#include "../dev_legacy.h"
#include <stdio.h>
#define DEV_LEGACY_IMPLEMENTATION
#include "../dev_legacy.h"

/* quick start */
static size_t put(void *ctx, const void *buf, size_t len)
{
    return fwrite(buf, 1, len, (FILE *)ctx);
}
static int com1_says_a(FILE *f)
{
    struct pc_uart com1;
    struct pc_uart_desc desc = {.out = {.write = put, .ctx = f}};
    struct vmm_io io = {0x3f8, 8, pc_uart_read, pc_uart_write, &com1, {0}};
    struct vmm_bus ports = {0};
    uint64_t val = 'A';

    pc_uart_init(&com1, &desc);
    vmm_bus_add(&ports, &io);
    return vmm_bus_access(&ports, 0x3f8, 1, true, &val) ? 0 : 1;
}
/* end */

static uint64_t the_time(void *now)
{
    return *(uint64_t *)now;
}
static void nobody_sleeps(void *ctx, unsigned cpu)
{
    (void)ctx, (void)cpu;
}

/* A PC's interrupt controllers on buses, as a VMM has them whose hypervisor brings none: the guest
   programs the PIT and the 8259, time passes, and CPU 0 is to be interrupted. */
static int pit_interrupts(void)
{
    static const uint8_t programs[][2] = {{0x20, 0x11}, {0x21, 0x20}, {0x21, 4}, {0x21, 1},
                                          {0x43, 0x34}, {0x40, 0xa9}, {0x40, 4}};
    static struct pc_irqchip chip;
    static struct pc_lapic lapic;
    uint64_t now = 1000;
    uint8_t vector = 0;
    struct pc_irqchip_desc desc = {.lapic = &lapic, .ncpus = 1, .timer = {the_time, NULL, &now}};
    struct vmm_io pic = {0x20, 2, pc_pic_master_read, pc_pic_master_write, &chip.pic, {0}};
    struct vmm_io pit = {0x40, 4, pc_pit_read, pc_pit_write, &chip.pit, {0}};
    struct vmm_bus ports = {0};

    desc.kick = nobody_sleeps;
    pc_irqchip_init(&chip, &desc);
    vmm_bus_add(&ports, &pic);
    vmm_bus_add(&ports, &pit);
    for (unsigned i = 0; i < sizeof programs / sizeof programs[0]; i++) {
        uint64_t val = programs[i][1];
        vmm_bus_access(&ports, programs[i][0], 1, true, &val);
    }
    now += 1100000;
    pc_irqchip_tick(&chip);
    return pc_irqchip_next(&chip, 0, true, &vector) != PC_TODO_INTERRUPT || vector != 0x20;
}

int main(void)
{
    FILE *f = tmpfile();
    int failed = !f || com1_says_a(f) || fseek(f, 0, SEEK_SET) || getc(f) != 'A' || getc(f) != EOF;

    failed |= pit_interrupts();

    printf("embed_legacy: %s\n", failed ? "failed" : "ok");
    return failed;
}
