/* vmm --binary rtc64.bin --entry 0x1000 --mode 64; linked at 0x1000
   expect: COM1 "clock: all interrupts came, in time", status 0

   The CMOS clock's interrupts, by line 8 and waiting in HLT each time: periodic ones, the end of an
   update, and an alarm, timed by ACPI's timer. MIT licence, see LICENSE */
#pragma GCC diagnostic ignored "-Wunused-function" /* virtio: not here */
#include "isa.h"

enum { LINE = 8, PM_TIMER = 0x608, PM_HZ = 3579545 };
enum { SECONDS = 0, ALARM = 1, A = 10, B = 11, C = 12 };
enum { UPDATE = 0x10, ALARMED = 0x20, PERIODIC = 0x40, IRQ = 0x80, HOURS_24 = 0x02 };
#define CAUSES (*(volatile uint32_t *)0x502000) /* of the last interrupt */

static uint8_t cmos(unsigned reg)
{
    outb(0x70, (uint8_t)reg);
    return inb(0x71);
}

static void cmos_put(unsigned reg, uint8_t val)
{
    outb(0x70, (uint8_t)reg);
    outb(0x71, val);
}

ISA_HANDLER(on_clock, LINE, CAUSES = cmos(C))

/* Takes n interrupts for this cause; the time that they took, in 1/1000 of seconds. */
static unsigned take(uint8_t cause, unsigned n)
{
    uint32_t start, took;

    cmos(C);
    cmos_put(B, cause | HOURS_24);
    isa_await(LINE, ISA_COUNT(LINE) + 1); /* at any time of the first period */
    start = inl(PM_TIMER);
    isa_await(LINE, ISA_COUNT(LINE) + n);
    took = inl(PM_TIMER) - start;
    cmos_put(B, HOURS_24);
    return (CAUSES & (cause | IRQ)) == (cause | IRQ) ? (unsigned)(took * 1000ull / PM_HZ) : 0;
}

static bool about(unsigned ms, unsigned want)
{
    return ms > want * 3 / 4 && ms < want * 5 / 4;
}

/* Any hour, any minute, two seconds from now. */
static bool alarm(void)
{
    unsigned now = cmos(SECONDS), at = ((now >> 4) * 10 + (now & 15) + 2) % 60;
    uint8_t bcd = (uint8_t)(at / 10 << 4 | at % 10);

    for (unsigned reg = 3; reg <= 5; reg += 2)
        cmos_put(reg, 0xff);
    cmos_put(ALARM, bcd);
    cmos(C);
    cmos_put(B, ALARMED | HOURS_24);
    isa_await(LINE, ISA_COUNT(LINE) + 1);
    cmos_put(B, HOURS_24);
    return (CAUSES & (ALARMED | IRQ)) == (ALARMED | IRQ) && cmos(SECONDS) == bcd;
}

static int guest(void)
{
    isa_start(1u << LINE);
    isa_handle(LINE, on_clock);
    cmos_put(A, 0x26); /* 1024 Hz */
    print("periodic\n");
    if (!about(take(PERIODIC, 512), 500))
        return 1;
    print("update\n");
    if (!about(take(UPDATE, 1), 1000))
        return 2;
    print("alarm\n");
    if (!alarm())
        return 3;
    print("clock: all interrupts came, in time\n");
    return 0;
}
