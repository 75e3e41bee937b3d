/* vmm --binary pic64.bin --entry 0x1000 --mode 64
   expect: COM1 "pic: N properties held", status 0

   The 8259s, with the devices of a PC at their lines: priorities, nesting, the slave, masks, the special mask
   mode, rotation, automatic EOI, polling, lines with edges and levels. MIT licence, see LICENSE */
#include "irq.h"

enum { KBD = 1, UART = 4, AUX = 12 };
enum { EOI_ANY = 0x20, EOI_ROTATE = 0xa0, READ_IRR = 0x0a, READ_ISR = 0x0b, POLL = 0x0c };
#define TOOK(i) (SHARED.vector[i])
#define STAY    SHARED.mine[0] /* lines whose interrupts do not end themselves */
#define HIGH    SHARED.mine[1] /* and whose devices are not silenced, */
#define TIMES   SHARED.mine[2] /* so many times */
#define ISR_WAS SHARED.mine[3] /* of the master, in the handler */
#define AUTO    SHARED.mine[4] /* no EOI: the chip does it */
#define HOW     SHARED.mine[5] /* else this */

/* A device asks: the i8042 by a byte that it is told to have, the UART by its empty transmitter. */
static void ask(unsigned line)
{
    if (line == UART) {
        outb(0x3fc, 8);
        outb(0x3f9, 2);
        return;
    }
    outb(0x64, line == KBD ? 0xd2 : 0xd3);
    outb(0x60, 'x');
}

static void silence(unsigned line)
{
    if (line == UART)
        outb(0x3f9, 0);
    else
        inb(0x60);
}

static uint8_t status(uint16_t port, uint8_t what)
{
    outb(port, what);
    return inb(port);
}

static void end(unsigned line)
{
    if (line >= 8)
        outb(0xa0, (uint8_t)HOW);
    outb(0x20, (uint8_t)HOW);
}

static void on_interrupt(unsigned vector)
{
    unsigned line = vector - 0x20;

    TOOK(SHARED.nvectors++ % 64) = line;
    ISR_WAS = status(0x20, READ_ISR);
    if (!(HIGH >> line & 1) || SHARED.nvectors >= TIMES)
        silence(line);
    if (!AUTO && !(STAY >> line & 1))
        end(line);
}

static void other_cpu(uint32_t id)
{
    (void)id;
}

/* Everything silent and as after a reset, these lines open. */
static void begin(uint8_t icw4, unsigned lines)
{
    cli();
    silence(UART);
    outb(0x64, 0x60);
    outb(0x60, 0x07); /* interrupts of both ports, no translation */
    while (inb(0x64) & 1)
        inb(0x60);
    outb(0x4d0, 0);
    outb(0x4d1, 0);
    for (unsigned i = 0; i < 16; i++) /* KVM keeps what is in service through an initialisation */
        outb(i & 1 ? 0xa0 : 0x20, EOI_ANY);
    pic_init(icw4, lines | (lines >> 8 ? 4 : 0));
    SHARED.nvectors = 0;
    STAY = HIGH = 0;
    TIMES = 1;
    AUTO = icw4 & 2;
    HOW = EOI_ANY;
}

static void priorities(void)
{
    begin(1, 0xffff);
    ask(UART);
    expect("request", status(0x20, READ_IRR) & 0x12, 0x10);
    ask(KBD);
    settle();
    expect("both came", SHARED.nvectors, 2);
    expect("line 1 first", TOOK(0), KBD);
    expect("line 4 second", TOOK(1), UART);
    expect("nothing in service", status(0x20, READ_ISR), 0);

    begin(1, 0xffff);
    STAY = 1 << UART;
    ask(UART);
    settle();
    expect("in service", ISR_WAS, 1 << UART);
    ask(UART);
    settle();
    expect("not again", SHARED.nvectors, 1);
    ask(KBD);
    settle();
    expect("line 1 nests", TOOK(1), KBD);
    expect("over line 4", ISR_WAS, 1 << KBD | 1 << UART);
    STAY = 0;
    outb(0x20, 0x60 | UART); /* specific */
    settle();
    expect("after the EOI", SHARED.nvectors, 3);
    expect("again", TOOK(2), UART);
}

static void slave(void)
{
    begin(1, 0xffff);
    STAY = 1 << AUX;
    ask(AUX);
    settle();
    expect("line 12", TOOK(0), AUX);
    expect("by line 2 of the master", ISR_WAS, 4);
    expect("and line 4 of the slave", status(0xa0, READ_ISR), 0x10);
    ask(UART);
    settle();
    expect("line 4 is lower than line 2", SHARED.nvectors, 1);
    outb(0xa0, EOI_ANY);
    settle();
    expect("the master has not been told", SHARED.nvectors, 1);
    outb(0x20, EOI_ANY);
    settle();
    expect("now line 4", TOOK(1), UART);
    begin(1, 0xffff);
    outb(0x21, 4);
    ask(AUX);
    settle();
    expect("masked at the master", SHARED.nvectors, 0);
    expect("asks at the slave", status(0xa0, READ_IRR) & 0x10, 0x10);
}

static void masks(void)
{
    begin(1, 0);
    ask(UART);
    settle();
    expect("masked", SHARED.nvectors, 0);
    expect("mask", inb(0x21), 0xff);
    outb(0x21, (uint8_t) ~(1 << UART));
    settle();
    expect("unmasked", TOOK(0), UART);

    begin(1, 0xffff);
    STAY = 1 << KBD;
    ask(KBD);
    settle();
    ask(UART);
    settle();
    expect("held back by line 1", SHARED.nvectors, 1);
    outb(0x21, 1 << KBD);
    settle();
    expect("its mask alone is no help", SHARED.nvectors, 1);
    outb(0x20, 0x68);
    settle();
    expect("special mask mode", TOOK(1), UART);
    expect("line 1 is still in service", status(0x20, READ_ISR) & 1 << KBD, 1 << KBD);
    outb(0x20, 0x48);
}

static void rotation(void)
{
    begin(1, 0xffff);
    HOW = EOI_ROTATE;
    ask(KBD);
    settle();
    ask(KBD);
    ask(UART);
    settle();
    expect("line 1 has had its turn", TOOK(1), UART);
    expect("now line 1", TOOK(2), KBD);
    begin(1, 0xffff);
    outb(0x20, 0xc3); /* line 3 is the lowest */
    ask(KBD);
    ask(UART);
    settle();
    expect("priority as set", TOOK(0), UART);
    begin(3, 0xffff);
    ask(UART);
    settle();
    expect("automatic EOI", ISR_WAS, 0);
    expect("taken", TOOK(0), UART);
    outb(0x20, 0x80); /* rotate with it */
    ask(KBD);
    settle();
    ask(KBD);
    ask(UART);
    settle();
    expect("automatic rotation", TOOK(2), UART);
    expect("the other one", TOOK(3), KBD);
}

static void polling(void)
{
    begin(1, 0xffff);
    expect("nobody asks", status(0x20, POLL) & 0x80, 0);
    ask(UART);
    ask(AUX);
    expect("the slave is first", status(0x20, POLL), 0x82);
    expect("at the slave, line 12", status(0xa0, POLL), 0x80 | (AUX - 8));
    expect("in service", status(0x20, READ_ISR), 4);
    expect("line 4 waits", status(0x20, POLL) & 0x80, 0);
    end(AUX);
    expect("then line 4", status(0x20, POLL), 0x80 | UART);
    silence(AUX);
    silence(UART);
    end(UART);
    settle();
    expect("no interrupt for what was polled", SHARED.nvectors, 0);
}

static void levels(void)
{
    begin(1, 0xffff);
    outb(0x4d0, 0xff);
    outb(0x4d1, 0xff);
    expect("lines that are always edges", inb(0x4d0), 0xf8);
    expect("of the slave", inb(0x4d1), 0xde);
    HIGH = 1 << UART;
    TIMES = 5;
    ask(UART);
    settle();
    expect("a level comes until it falls", SHARED.nvectors, 5);
    expect("request is gone", status(0x20, READ_IRR) & 1 << UART, 0);
    ask(UART);
    silence(UART);
    settle();
    expect("a level that fell in time", SHARED.nvectors, 5);
    begin(1, 0xffff);
    HIGH = 1 << UART;
    TIMES = 5;
    ask(UART);
    settle();
    expect("an edge comes once", SHARED.nvectors, 1);
    silence(UART);
}

static int guest(void)
{
    prepare();
    lapic_write(LINT0, EXTINT);
    priorities();
    slave();
    masks();
    rotation();
    if (!kvm_has_chips()) /* which does not say that there is something */
        polling();
    levels();
    begin(1, 0);
    return verdict("pic");
}
