/* vmm --binary mmio.bin --entry 0x40001000; accesses to devices of every width, zero- and
   sign-extended to 32 and 64 bits, with and without an offset: those that hardware describes in the
   syndrome of the exit. The registers are those of PCI function 00:01.0, a virtio device. */
#include "guest.h"

#define FUNCTION 0x3f008000ul
#define LOAD(insn, width, off)                                                                     \
    ({                                                                                             \
        uint64_t v_;                                                                               \
        __asm__ volatile(insn " %" width "0, [%1, #" #off "]" : "=r"(v_) : "r"(FUNCTION));         \
        v_;                                                                                        \
    })
#define STORE(insn, width, off, val)                                                               \
    __asm__ volatile(insn " %" width "0, [%1, #" #off "]" : : "r"((uint64_t)(val)), "r"(FUNCTION))

static bool signs; /* are loads sign-extended? */

/* The hypervisor extends a sign where the syndrome says so, which QEMU (7.2) forgets to: so that what
   is asked of all signed loads is what the first one got. */
static void expect_signed(const char *what, uint64_t got, unsigned bits, uint64_t want)
{
    expect(what, got, signs ? want : want & ((1ul << bits) - 1));
}

static void test_loads(void)
{
    STORE("str", "w", 0x10, 0xffffffff); /* BAR 0 tells its size: 0xffff8000 */
    expect("ldr w", LOAD("ldr", "w", 0x10), 0xffff8000);
    signs = LOAD("ldrsw", "x", 0x10) >> 63;
    expect_signed("ldrsw x", LOAD("ldrsw", "x", 0x10), 32, 0xffffffffffff8000);
    expect("ldrh w", LOAD("ldrh", "w", 0x10), 0x8000);
    expect_signed("ldrsh w", LOAD("ldrsh", "w", 0x10), 16, 0xffff8000);
    expect_signed("ldrsh x", LOAD("ldrsh", "x", 0x10), 16, 0xffffffffffff8000);
    expect("ldrb w", LOAD("ldrb", "w", 0x11), 0x80);
    expect_signed("ldrsb w", LOAD("ldrsb", "w", 0x11), 8, 0xffffff80);
    expect_signed("ldrsb x", LOAD("ldrsb", "x", 0x11), 8, 0xffffffffffffff80);
    expect_signed("ldrsb x, positive", LOAD("ldrsb", "x", 0x10), 8, 0);
    expect("ldrh w, vendor", LOAD("ldrh", "w", 0), 0x1af4);
    expect_signed("ldrsb x, vendor", LOAD("ldrsb", "x", 0), 8, 0xfffffffffffffff4);
}

/* The interrupt line is a byte that can be written; its neighbours cannot. */
static void test_stores(void)
{
    uint64_t neighbours = LOAD("ldr", "w", 0x3c) & 0xffffff00;

    STORE("strb", "w", 0x3c, 0x1234a5);
    expect("strb", LOAD("ldr", "w", 0x3c), neighbours | 0xa5);
    STORE("strh", "w", 0x3c, 0x7e);
    expect("strh", LOAD("ldr", "w", 0x3c), neighbours | 0x7e);
    STORE("str", "w", 0x3c, 0xc3);
    expect("str", LOAD("ldr", "w", 0x3c), neighbours | 0xc3);
    STORE("strb", "w", 0x3c, 0);
    __asm__ volatile("strb wzr, [%0]" : : "r"(FUNCTION + 0x3c));
    expect("strb wzr", LOAD("ldrb", "w", 0x3c), 0);
}

/* BAR 0 at a place of the window, memory decoding on: 64 bits at once, to the MSI-X table. */
static void test_wide(void)
{
    volatile uint64_t *bar = (volatile uint64_t *)0x10000000ul;
    unsigned cap = (unsigned)LOAD("ldrb", "w", 0x34);
    uint32_t table;

    while (cap && *(volatile uint8_t *)(FUNCTION + cap) != 0x11)
        cap = *(volatile uint8_t *)(FUNCTION + cap + 1);
    expect("MSI-X capability", cap != 0, 1);
    table = *(volatile uint32_t *)(FUNCTION + cap + 4);
    expect("MSI-X table in BAR 0", table & 7, 0);
    STORE("str", "w", 0x10, 0x10000000);
    STORE("strh", "w", 4, 2);
    bar[table / 8] = 0x0123456789abcdec;
    expect("str x, ldr x", bar[table / 8], 0x0123456789abcdec);
    expect("its upper half", ((volatile uint32_t *)bar)[table / 4 + 1], 0x01234567);
}

void start(void)
{
    test_loads();
    test_stores();
    test_wide();
    expect("nobody there, 64 bits", *(volatile uint64_t *)0x0b000000ul, ~0ul);
    expect("nobody there, 8 bits", *(volatile uint8_t *)0x0b000000ul, 0xff);
    end_well(signs ? "mmio: every width and sign" : "mmio: every width; signs are lost by the host");
}
