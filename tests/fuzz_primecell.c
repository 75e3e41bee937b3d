/* fuzz_primecell.c - a guest at random with PL011, PL031 and PL061        MIT licence, see LICENSE

   The input is steps of four bytes: what, which register, how wide, which value. What must hold: the
   line is what status and mask say, and told of changes only; FIFOs hold what they can; what is
   received came in; a clock that will interrupt waits for a moment to come. */
#define DEV_LEGACY_IMPLEMENTATION
#include "../dev_legacy.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct pc_pl011 uart;
static struct pc_pl031 rtc;
static struct pc_pl061 gpio;
static bool line[3];
static size_t room;
static uint64_t mono, wake_at;
static int64_t wall;
static bool refill;

/* No assert: it must hold in every build. */
static void must(bool held)
{
    if (!held)
        abort();
}

static void set_line(void *ctx, unsigned n, bool level)
{
    (void)ctx;
    must(n < 3 && level != line[n]);
    line[n] = level;
}

static size_t put(void *ctx, const void *buf, size_t len)
{
    (void)ctx;
    must(buf && len && len <= PC_PL011_FIFO);
    len = len < room ? len : room;
    room -= len;
    return len;
}

static void rx_room(void *ctx)
{
    (void)ctx;
    if (refill)
        pc_pl011_rx(&uart, "refilled", 8);
}

static int64_t wall_now(void *ctx)
{
    (void)ctx;
    return wall;
}

static uint64_t mono_now(void *ctx)
{
    (void)ctx;
    return mono;
}

static void wake(void *ctx, uint64_t at)
{
    (void)ctx;
    wake_at = at;
}

/* The offset: mostly that of a register, now and then any. */
static uint64_t offset(uint8_t a, uint8_t w)
{
    return w & 0x40 ? a * 16u + (w >> 4) : a & 0x80 ? 0xf80u + (a & 0x7f) : a & ~3u;
}

static void step_uart(uint8_t op, uint64_t off, unsigned len, uint32_t val)
{
    if (op & 8)
        must(!(pc_pl011_read(&uart, off, len) & ~vmm_ones(len)));
    else if (op & 16)
        pc_pl011_write(&uart, off, len, val);
    else if (op & 32)
        must(pc_pl011_rx(&uart, "0123456789abcdefghijklmnopqrstuvwxyz", val % 36) <= PC_PL011_FIFO);
    else {
        room = val & 63;
        refill = val & 64;
        pc_pl011_tx_ready(&uart);
    }
    must(uart.nrx <= PC_PL011_FIFO && uart.ntx <= PC_PL011_FIFO && uart.rx_head < PC_PL011_FIFO);
    must(uart.lcr & 0x10 || (uart.nrx <= 1 && uart.ntx <= 1));
    must(line[0] == ((uart.ris & uart.imsc) != 0));
    must(!(uart.ris & 0x50) || uart.nrx);
}

static void step_rtc(uint8_t op, uint64_t off, unsigned len, uint32_t val)
{
    if (op & 8)
        pc_pl031_read(&rtc, off, len);
    else if (op & 16)
        pc_pl031_write(&rtc, off, len, op & 64 ? rtc.seen + (val & 7) : val);
    else if (op & 32)
        wall += (int64_t)(int32_t)val * (op & 64 ? 1000000000 : 1000);
    mono += val;
    wall += val;
    if (mono >= wake_at)
        pc_pl031_tick(&rtc);
    pc_pl031_write(&rtc, 0x0c, 4, 1); /* which does nothing but look at the time */
    must(line[1] == (rtc.enabled && rtc.raised));
    must(wake_at > mono && (wake_at != UINT64_MAX) == (rtc.enabled && !rtc.raised));
}

static void step_gpio(uint8_t op, uint64_t off, unsigned len, uint32_t val)
{
    if (op & 8)
        pc_pl061_read(&gpio, off, len);
    else if (op & 16)
        pc_pl061_write(&gpio, op & 64 ? 0x400 + (off & 0x3f) : off, len, val);
    else
        pc_pl061_set(&gpio, val & 7, val & 8);
    must(line[2] == (pc_pl061_read(&gpio, 0x418, 4) != 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const struct pc_pl011_desc u = {{set_line, NULL, 0}, {put, rx_room, NULL}, NULL};
    const struct pc_pl031_desc r = {{set_line, NULL, 1}, wall_now, NULL, {mono_now, wake, NULL}};
    const struct vmm_irq irq = {set_line, NULL, 2};

    memset(line, 0, sizeof line);
    room = 3;
    mono = 1;
    wall = 1700000000000000000;
    wake_at = UINT64_MAX;
    refill = false;
    pc_pl011_init(&uart, &u);
    pc_pl031_init(&rtc, &r);
    pc_pl061_init(&gpio, &irq);
    for (; len >= 4; data += 4, len -= 4) {
        static void (*const step[])(uint8_t, uint64_t, unsigned, uint32_t) = {step_uart, step_uart,
                                                                              step_rtc, step_gpio};
        uint32_t val = data[3] * (data[2] & 4 ? 0x1010101u : 1);
        step[data[0] & 3](data[0], offset(data[1], data[2]), 1u << (data[2] & 3), val);
    }
    return 0;
}
