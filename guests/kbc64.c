/* vmm --binary kbc64.bin --entry 0x1000 --mode 64; linked at 0x1000
   expect: COM1 "keyboard and mouse: all there", status 0

   The i8042 as a driver uses it, waiting in HLT for each byte: self tests, keyboard and mouse identify
   themselves and are reset, keys and moves as the controller's loop brings them, and the line of each.
   MIT licence, see LICENSE */
#pragma GCC diagnostic ignored "-Wunused-function" /* virtio: not here */
#include "isa.h"

enum { DATA = 0x60, COMMAND = 0x64, KEYBOARD = 1, MOUSE = 12 };
#define GOT ((volatile uint8_t *)0x502000) /* what came in, at the number of its interrupt */

static uint32_t came(void)
{
    return ISA_COUNT(KEYBOARD) + ISA_COUNT(MOUSE);
}

ISA_HANDLER(on_keyboard, KEYBOARD, GOT[came()] = inb(DATA))
ISA_HANDLER(on_mouse, MOUSE, GOT[came()] = inb(DATA))

/* A command (0: none) and a byte; do these bytes come in by this line? */
static bool ask(uint8_t command, uint8_t byte, unsigned line, const char *want, unsigned n)
{
    uint32_t first = came(), count = ISA_COUNT(line);

    if (command)
        outb(COMMAND, command);
    outb(DATA, byte);
    isa_await(line, count + n);
    for (unsigned i = 0; i < n; i++)
        if (GOT[first + i] != (uint8_t)want[i])
            return false;
    return came() == first + n;
}

/* A controller's answer, polled: its interrupts are off. */
static bool polled(uint8_t command, uint8_t want)
{
    outb(COMMAND, command);
    while (!(inb(COMMAND) & 1))
        ;
    return inb(DATA) == want;
}

static int guest(void)
{
    isa_start(1u << KEYBOARD | 1u << MOUSE);
    isa_handle(KEYBOARD, on_keyboard);
    isa_handle(MOUSE, on_mouse);
    print("controller\n");
    outb(COMMAND, 0x60);
    outb(DATA, 0x34);
    if (!polled(0xaa, 0x55) || !polled(0xab, 0) || !polled(0xa9, 0) || !polled(0x20, 0x34))
        return 1;
    outb(COMMAND, 0x60);
    outb(DATA, 0x47); /* both on, with interrupts and translation */
    print("keyboard\n");
    if (!ask(0, 0xff, KEYBOARD, "\xfa\xaa", 2) || !ask(0, 0xf2, KEYBOARD, "\xfa\xab\x41", 3) ||
        !ask(0, 0xed, KEYBOARD, "\xfa", 1) || !ask(0, 0x02, KEYBOARD, "\xfa", 1))
        return 2;
    print("mouse\n");
    if (!ask(0xd4, 0xff, MOUSE, "\xfa\xaa\0", 3) || !ask(0xd4, 0xf2, MOUSE, "\xfa\0", 2) ||
        !ask(0xd4, 0xe9, MOUSE, "\xfa\0\2\x64", 4) || !ask(0xd4, 0xf4, MOUSE, "\xfa", 1))
        return 3;
    print("loop\n");
    if (!ask(0xd2, 0x1e, KEYBOARD, "\x1e", 1) || !ask(0xd3, 0x5a, MOUSE, "\x5a", 1))
        return 4;
    print("keyboard and mouse: all there\n");
    return 0;
}
