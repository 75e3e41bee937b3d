/* isa.h - for guests that take the interrupts of ISA's lines from the 8259s. MIT licence, see LICENSE

   Lines 0 to 15 come in as vectors ISA_VECTOR and up, which is the count of each; a handler is called
   between. Guests of one CPU, in 64-bit mode, with boot_flat's segments. */
#ifndef ISA_H
#define ISA_H

#include "guest.h"

enum { ISA_VECTOR = 0x20, ISA_CODE = 0x10 };
#define ISA_IDT      ((volatile uint64_t *)0x500000)
#define ISA_IDTR     ((volatile uint8_t *)0x501000)
#define ISA_COUNT(n) (((volatile uint32_t *)0x501010)[n])

static inline uint8_t inb(uint16_t port)
{
    uint8_t val;

    __asm__ volatile("inb %1, %0" : "=a"(val) : "Nd"(port) : "memory");
    return val;
}

static inline uint32_t inl(uint16_t port)
{
    uint32_t val;

    __asm__ volatile("inl %1, %0" : "=a"(val) : "Nd"(port) : "memory");
    return val;
}

static inline void outw(uint16_t port, uint16_t val)
{
    __asm__ volatile("outw %0, %1" : : "a"(val), "Nd"(port) : "memory");
}

struct isa_frame;
#define ISA_HANDLER(name, line, body)                                                              \
    __attribute__((interrupt, target("general-regs-only"))) static void name(struct isa_frame *f)  \
    {                                                                                              \
        (void)f;                                                                                   \
        body;                                                                                      \
        ISA_COUNT(line)++;                                                                         \
        if ((line) > 7)                                                                            \
            outb(0xa0, 0x20);                                                                      \
        outb(0x20, 0x20);                                                                          \
    }

static void isa_handle(unsigned line, void (*handler)(struct isa_frame *f))
{
    uint64_t at = (uint64_t)handler;

    ISA_IDT[2 * (ISA_VECTOR + line)] =
        (at & 0xffff) | ISA_CODE << 16 | 0x8e00ull << 32 | (at & 0xffff0000) << 32;
    ISA_IDT[2 * (ISA_VECTOR + line) + 1] = at >> 32;
}

/* Lines that are not in `lines` are masked. */
static void isa_start(unsigned lines)
{
    static const uint16_t words[][2] = {
        {0x20, 0x11}, {0xa0, 0x11}, {0x21, ISA_VECTOR}, {0xa1, ISA_VECTOR + 8},
        {0x21, 4},    {0xa1, 2},    {0x21, 1},          {0xa1, 1}};

    memset((void *)0x500000, 0, 0x2000);
    *(volatile uint16_t *)ISA_IDTR = 0xfff;
    *(volatile uint64_t *)(ISA_IDTR + 2) = (uint64_t)ISA_IDT;
    __asm__ volatile("lidt 0x501000");
    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++)
        outb(words[i][0], (uint8_t)words[i][1]);
    outb(0x21, (uint8_t) ~(lines | (lines > 0xff ? 4 : 0)));
    outb(0xa1, (uint8_t) ~(lines >> 8));
}

/* HLT until so many interrupts of the line have come: STI lets none in before HLT. */
static void isa_await(unsigned line, uint32_t n)
{
    while (ISA_COUNT(line) < n)
        __asm__ volatile("sti; hlt; cli" : : : "memory");
}

#endif
