/* vmm --binary edu64.bin --entry 0x1000 --mode 64 --vfio ADDRESS; linked at 0x1000
   expect: COM1 "edu: line, messages and DMA work", status 0

   QEMU's teaching device (docs/specs/edu.rst), which a host passed through: its registers, its
   interrupt line, which it holds until it is acknowledged, MSI, and DMA both ways. With QEMU's
   ivshmem beside it (--vfio ADDRESS --vfio ADDRESS), whose memory is a BAR, also "edu: DMA from and
   to its neighbour works". MIT licence, see LICENSE */
#pragma GCC diagnostic ignored "-Wunused-function" /* virtio: not here */
#include "guest.h"

enum { ID = 0, LIVE = 4, RAISE = 0x60, ACK = 0x64, DMA_FROM = 0x80, DMA_TO = 0x88, DMA_LEN = 0x90 };
enum { DMA = 0x98, DMA_START = 1, DMA_TO_RAM = 2, DMA_IRQ = 4, DMA_BUFFER = 0x40000 };
enum {
    COMMAND = 4,
    BAR0 = 0x10,
    BAR2 = 0x18,
    CAPS = 0x34,
    MSI = 5,
    V_LINE = 0x41,
    V_MESSAGE = 0x42
};
/* The last byte of its buffer the device refuses. */
enum { ROUNDS = 100, BYTES = 4092, IOAPIC_LEVEL = 1 << 15, MASKED = 1 << 16 };
enum { EDU = 0x11e81234, NEIGHBOUR = 0x11101af4 };
#define ELSEWHERE 0xcf000000ul /* in the window below 4 GiB */

#define GDTR     ((volatile uint8_t *)0x8f10)
#define GDT      ((volatile uint64_t *)0x8f20)
#define IDTR     ((volatile uint8_t *)0x8f60)
#define IDT      ((volatile uint64_t *)0x500000)
#define COUNT(v) (((volatile uint32_t *)0x502000)[v])
#define STUBBORN (*(volatile uint32_t *)0x504000) /* interrupts that are not acknowledged yet */
#define BASE     (*(volatile uint64_t *)0x504008) /* of the device's registers */
#define SOURCE   ((volatile uint32_t *)0x600000)
#define TARGET   ((volatile uint32_t *)0x610000)

static volatile uint32_t *reg(unsigned off)
{
    return (volatile uint32_t *)(BASE + off);
}

static volatile uint32_t *config(unsigned slot, unsigned off)
{
    return (volatile uint32_t *)(PCI_ECAM + (uint64_t)PCI_STEP * slot + off);
}

static void lapic_write(unsigned off, uint32_t val)
{
    *(volatile uint32_t *)(0xfee00000ul + off) = val;
}

static void ioapic_write(unsigned off, uint32_t val)
{
    *(volatile uint32_t *)0xfec00000ul = off;
    *(volatile uint32_t *)0xfec00010ul = val;
}

/* A stubborn one is looked at only: the device goes on pulling its line, so that it comes again. */
static void serve(unsigned vector)
{
    COUNT(vector)++;
    if (STUBBORN)
        STUBBORN--;
    else
        *reg(ACK) = ~0u;
    lapic_write(0xb0, 0);
}

struct frame;
#define HANDLER __attribute__((interrupt, target("general-regs-only"))) static void

HANDLER on_line(struct frame *f)
{
    (void)f;
    serve(V_LINE);
}

HANDLER on_message(struct frame *f)
{
    (void)f;
    serve(V_MESSAGE);
}

static void set_gate(unsigned vector, void (*handler)(struct frame *f))
{
    uint64_t at = (uint64_t)handler;

    IDT[2 * vector] = (at & 0xffff) | 8 << 16 | 0x8e00ull << 32 | (at & 0xffff0000) << 32;
    IDT[2 * vector + 1] = at >> 32;
}

static void prepare(void)
{
    memset((void *)0x500000, 0, 0x5000);
    GDT[0] = 0;
    GDT[1] = 0x00af9b000000ffff;
    GDT[2] = 0x00cf93000000ffff;
    *(volatile uint16_t *)GDTR = 23;
    *(volatile uint64_t *)(GDTR + 2) = (uint64_t)GDT;
    *(volatile uint16_t *)IDTR = 0xfff;
    *(volatile uint64_t *)(IDTR + 2) = (uint64_t)IDT;
    set_gate(V_LINE, on_line);
    set_gate(V_MESSAGE, on_message);
    __asm__ volatile("lgdt 0x8f10\n"
                     "lidt 0x8f60\n"
                     "mov %0, %%ds\n"
                     "mov %0, %%ss\n"
                     "pushq $8\n"
                     "lea 1f(%%rip), %%rax\n"
                     "pushq %%rax\n"
                     "lretq\n"
                     "1:\n"
                     :
                     : "r"(16)
                     : "rax", "memory");
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    lapic_write(0xf0, 0x1ff);
}

/* HLT until so many have come: STI lets none in before HLT. */
static void await(unsigned vector, uint32_t n)
{
    while (COUNT(vector) < n)
        __asm__ volatile("sti; hlt; cli" : : : "memory");
}

static unsigned find(uint32_t id)
{
    for (unsigned slot = 1; slot < PCI_SLOTS; slot++)
        if (*config(slot, 0) == id)
            return slot;
    return 0;
}

/* Each is acknowledged before the next is raised, and one comes three times. */
static int by_line(unsigned slot)
{
    unsigned pin = 16 + slot % 4;

    ioapic_write(0x10 + 2 * pin + 1, 0);
    ioapic_write(0x10 + 2 * pin, IOAPIC_LEVEL | V_LINE);
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        *reg(RAISE) = i;
        await(V_LINE, i);
    }
    STUBBORN = 2;
    *reg(RAISE) = 1;
    await(V_LINE, ROUNDS + 3);
    ioapic_write(0x10 + 2 * pin, MASKED);
    return STUBBORN || COUNT(V_LINE) != ROUNDS + 3;
}

static int by_message(unsigned slot)
{
    unsigned cap = *config(slot, CAPS) & 0xff;

    while (cap && (*config(slot, cap) & 0xff) != MSI)
        cap = *config(slot, cap) >> 8 & 0xff;
    if (!cap)
        return 1;
    *config(slot, cap + 4) = 0xfee00000;
    *config(slot, cap + 8) = 0;
    *config(slot, cap + 12) = V_MESSAGE;
    *config(slot, cap) |= 1 << 16;
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        *reg(RAISE) = i;
        await(V_MESSAGE, i);
    }
    return COUNT(V_LINE) != ROUNDS + 3;
}

static void copy(uint64_t from, uint64_t to, uint32_t how)
{
    uint32_t before = COUNT(V_MESSAGE);

    *(volatile uint64_t *)reg(DMA_FROM) = from;
    *(volatile uint64_t *)reg(DMA_TO) = to;
    *reg(DMA_LEN) = BYTES;
    *reg(DMA) = DMA_START | DMA_IRQ | how;
    await(V_MESSAGE, before + 1);
}

static void fill(volatile uint32_t *at, uint32_t step)
{
    for (uint32_t i = 0; i < BYTES / 4; i++)
        at[i] = i * step;
}

static bool holds(const volatile uint32_t *at, uint32_t step)
{
    for (uint32_t i = 0; i < BYTES / 4; i++)
        if (at[i] != i * step)
            return false;
    return true;
}

static int by_dma(void)
{
    fill(SOURCE, 0x9e3779b9);
    fill(TARGET, 0);
    copy((uint64_t)SOURCE, DMA_BUFFER, 0);
    copy(DMA_BUFFER, (uint64_t)TARGET, DMA_TO_RAM);
    return !holds(TARGET, 0x9e3779b9);
}

/* One device writes into the other's memory and reads it again, where it was found, beyond what this
   guest can look at, and where it is moved to, within that. */
static int by_neighbour(unsigned slot)
{
    uint64_t at = (*config(slot, BAR2) & ~15u) | (uint64_t)*config(slot, BAR2 + 4) << 32;

    fill(SOURCE, 0x9e3779b9);
    *config(slot, COMMAND) = 6;
    copy((uint64_t)SOURCE, DMA_BUFFER, 0);
    copy(DMA_BUFFER, at + 0x2000, DMA_TO_RAM);
    fill(SOURCE, 0);
    copy((uint64_t)SOURCE, DMA_BUFFER, 0);
    copy(at + 0x2000, DMA_BUFFER, 0);
    copy(DMA_BUFFER, (uint64_t)TARGET, DMA_TO_RAM);
    if (!holds(TARGET, 0x9e3779b9))
        return 1;
    *config(slot, COMMAND) = 0;
    *config(slot, BAR2) = ELSEWHERE;
    *config(slot, BAR2 + 4) = 0;
    *config(slot, COMMAND) = 6;
    if (!holds((volatile uint32_t *)(ELSEWHERE + 0x2000), 0x9e3779b9))
        return 1;
    fill((volatile uint32_t *)(ELSEWHERE + 0x4000), 0x85ebca6b);
    copy(ELSEWHERE + 0x4000, DMA_BUFFER, 0);
    copy(DMA_BUFFER, (uint64_t)TARGET, DMA_TO_RAM);
    return !holds(TARGET, 0x85ebca6b);
}

static int guest(void)
{
    unsigned slot = find(EDU), neighbour = find(NEIGHBOUR);

    if (!slot)
        return 10;
    prepare();
    *config(slot, COMMAND) = 6;
    BASE = *config(slot, BAR0) & ~15u;
    *reg(LIVE) = 0x12345678;
    if (*reg(ID) != 0x010000ed || *reg(LIVE) != ~0x12345678u)
        return 11;
    if (by_line(slot))
        return 12;
    if (by_message(slot))
        return 13;
    if (by_dma())
        return 14;
    print("edu: line, messages and DMA work\n");
    if (neighbour && by_neighbour(neighbour))
        return 15;
    if (neighbour)
        print("edu: DMA from and to its neighbour works\n");
    return 0;
}
