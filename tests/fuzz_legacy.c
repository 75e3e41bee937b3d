/* fuzz_legacy.c - any sequence of guest accesses, input and stalls against dev_legacy.h, with what
   must hold after each step. MIT licence, see LICENSE

   The input is records of three bytes: operation, register or count, value. */
#define DEV_LEGACY_IMPLEMENTATION
#include "../dev_legacy.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* No assert: it must hold in every build. */
static void must(bool held)
{
    if (!held)
        abort();
}

struct machine {
    struct pc_uart uart;
    struct pc_kbc kbc;
    struct pc_rtc rtc;
    struct pc_power power;
    struct pc_pm pm;
    struct pc_pvpanic panic;
    struct pc_debugexit quit;
    struct pc_debugcon con;
    size_t room;  /* of the stream */
    bool refills; /* rx_room offers more on the spot */
    bool line[16];
    int64_t now;
    uint64_t ns, wake_at, rtc_at; /* when the power management timer and the clock are called */
};

static void set_line(void *ctx, unsigned line, bool level)
{
    struct machine *m = ctx;

    must(line < 16 && m->line[line] != level);
    m->line[line] = level;
}

static size_t take(void *ctx, const void *buf, size_t len)
{
    struct machine *m = ctx;
    size_t n = len < m->room ? len : m->room;

    must(buf && len >= 1 && len <= 16);
    m->room -= n;
    return n;
}

/* Asked for input: the FIFO is empty, so some of it must fit. */
static void room(void *ctx)
{
    struct machine *m = ctx;

    must(m->uart.nrx == 0);
    if (m->refills)
        must(pc_uart_rx(&m->uart, "0123456789abcdefghij", 20) >= 1);
}

static void note(void *ctx)
{
    must(ctx != NULL);
}

static void note_exit(void *ctx, uint8_t status)
{
    must(ctx != NULL);
    (void)status;
}

static void note_panic(void *ctx, enum pc_panic what)
{
    must(ctx != NULL && (what == PC_PANIC_DEAD || what == PC_PANIC_CRASHED));
}

static int64_t tell_time(void *ctx)
{
    return ((struct machine *)ctx)->now;
}

static uint64_t tell_ns(void *ctx)
{
    return ((struct machine *)ctx)->ns;
}

static void note_wake(void *ctx, uint64_t at_ns)
{
    ((struct machine *)ctx)->wake_at = at_ns;
}

static void note_rtc_wake(void *ctx, uint64_t at_ns)
{
    ((struct machine *)ctx)->rtc_at = at_ns;
}

static void machine_init(struct machine *m, bool aux)
{
    struct pc_uart_desc uart = {{set_line, m, 4}, {take, room, m}, NULL};
    struct pc_kbc_desc kbc = {{set_line, m, 1}, {aux ? set_line : NULL, m, 12}, note, m, note};
    struct pc_rtc_desc rtc = {tell_time,
                              m,
                              (uint64_t)3 << 30,
                              (uint64_t)1 << 32,
                              {set_line, m, 8},
                              {tell_ns, note_rtc_wake, m},
                              4};
    struct pc_pm_desc pm = {{set_line, m, 9}, {tell_ns, note_wake, m}, note, m};

    memset(m, 0, sizeof *m);
    pc_uart_init(&m->uart, &uart);
    pc_kbc_init(&m->kbc, &kbc);
    m->wake_at = m->rtc_at = UINT64_MAX;
    pc_rtc_init(&m->rtc, &rtc);
    pc_pm_init(&m->pm, &pm);
    m->panic = (struct pc_pvpanic){note_panic, m};
    m->power = (struct pc_power){note, note, m, 0};
    m->quit = (struct pc_debugexit){note_exit, m};
    m->con = (struct pc_debugcon){{take, NULL, m}};
}

/* The interrupt line and IIR tell the same story, before and after IIR is read. */
static void read_iir(struct machine *m)
{
    bool open = (m->uart.mcr & 0x18) == 0x08;
    bool high = m->line[4];
    uint64_t iir = pc_uart_read(&m->uart, 2, 1);

    must((iir & 0x30) == 0 && (iir >> 6 == 0 || iir >> 6 == 3));
    must(!open || high == !(iir & 1));
    must(open || !high);
    must(!(iir & 1) || !m->line[4]);
}

static void read_lsr(struct machine *m)
{
    bool empty = m->uart.ntx == 0, full = m->uart.nrx != 0;
    uint64_t lsr = pc_uart_read(&m->uart, 5, 1);

    must(!(lsr & ~(uint64_t)0x63));
    must((lsr & 0x60) == (empty ? 0x60u : 0));
    must((lsr & 1) == full);
}

static void check_uart(const struct machine *m)
{
    unsigned depth = m->uart.fcr & 1 ? 16 : 1;

    must(m->uart.nrx <= depth && m->uart.ntx <= depth && m->uart.rx_head < 16);
    must(m->line[4] == m->uart.irq_level);
    must(m->uart.ntx == 0 || m->room == 0 || !m->uart.out.write); /* held only because refused */
}

static void check_kbc(struct machine *m)
{
    uint64_t status = pc_kbc_cmd_read(&m->kbc, 0, 1);
    bool aux = status & 0x20;

    must(m->kbc.nout <= 16 && m->kbc.out_head < 16);
    must(m->kbc.keys.n <= 16 && m->kbc.keys.head < 16);
    must(m->kbc.moves.n <= 16 && m->kbc.moves.head < 16);
    must((status & 1) || !m->kbc.keys.n || (m->kbc.ram[0] & 0x10));
    must((status & 1) || !m->kbc.moves.n || (m->kbc.ram[0] & 0x20));
    must((status & 0x12) == 0x10 && (status & 1) == (m->kbc.nout != 0));
    must(m->line[1] == ((status & 1) && !aux && (m->kbc.ram[0] & 1)));
    must(m->line[12] == ((status & 1) && aux && (m->kbc.ram[0] & 2)));
}

/* Outside of SET, the time registers hold a time. */
static void check_rtc(struct machine *m)
{
    static const uint8_t regs[] = {0, 2, 4, 6, 7, 8, 9, 0x32};
    static const uint8_t max[] = {59, 59, 23, 7, 31, 12, 99, 99};
    struct pc_rtc *r = &m->rtc;

    must(r->index < 128 && r->phase < 1000000000 && r->owed <= 8192);
    must(m->line[8] == ((r->ram[0x0b] & r->ram[0x0c] & 0x70) != 0));
    must(!m->line[8] || m->rtc_at == UINT64_MAX);
    if (m->rtc_at <= m->ns) {
        m->rtc_at = UINT64_MAX;
        pc_rtc_tick(r);
        must(m->rtc_at > m->ns);
    }
    if ((r->ram[0x0b] & 0x80) || (r->ram[0x0a] & 0x70) != 0x20)
        return;
    for (unsigned i = 0; i < sizeof regs; i++) {
        unsigned raw = pc__rtc_get(r, regs[i]);
        if (regs[i] == 4 && !(r->ram[0x0b] & 2))
            raw &= 0x7f;
        if (!(r->ram[0x0b] & 4)) {
            must((raw & 15) < 10 && raw >> 4 < 10);
            raw = (raw >> 4) * 10 + (raw & 15);
        }
        must(raw <= max[i]);
    }
}

/* Writes `val` at several widths: the upper bytes are its complement. */
static uint64_t widen(uint8_t val, unsigned len)
{
    return ((uint64_t) ~(uint64_t)val << 8 | val) & vmm_ones(len);
}

static void step_uart(struct machine *m, unsigned op, uint8_t a, uint8_t b)
{
    unsigned len = 1u << (op >> 4 & 3);

    switch (op & 7) {
    case 0:
        pc_uart_read(&m->uart, a & 7, len);
        break;
    case 1:
        pc_uart_write(&m->uart, a & 7, len, widen(b, len));
        break;
    case 2:
        must(pc_uart_rx(&m->uart, "0123456789abcdefghijklmnopqrstuvwxyz", a % 36) <= 16);
        break;
    case 3:
        m->room = b;
        pc_uart_tx_ready(&m->uart);
        break;
    case 4:
        m->refills = b & 1;
        break;
    case 5:
        read_iir(m);
        break;
    case 6:
        read_lsr(m);
        break;
    default:
        pc_uart_write(&m->uart, 4, 1, 0x0b);
        break;
    }
    check_uart(m);
}

/* The line follows status and enable; a timer that would interrupt is waited for. */
static void step_pm(struct machine *m, uint8_t a, unsigned len, uint64_t val)
{
    struct pc_pm *p = &m->pm;

    m->ns = m->ns + (uint64_t)a * a * a * 100003;
    if (m->ns >= m->wake_at || a == 0xff)
        a & 1 ? pc_pm_tick(p) : pc_pm_button(p);
    else if (a & 0x80)
        pc_pm_write(p, a & 15, len, val);
    else
        must(!(pc_pm_read(p, a & 15, len) & ~vmm_ones(len)));
    must(m->line[9] == ((p->status & p->enable) != 0));
    must(!(p->enable & ~0x521u) && (p->control & 0x2001) == 1);
    must(!(p->enable & ~p->status & 1) || m->wake_at > m->ns);
}

static void step_others(struct machine *m, unsigned op, uint8_t a, uint8_t b)
{
    unsigned len = 1u << (op >> 4 & 3);

    switch ((op & 7) | (op >> 3 & 8)) {
    case 0:
        pc_kbc_data_read(&m->kbc, a & 1, len);
        break;
    case 1:
        pc_kbc_data_write(&m->kbc, a & 1, len, widen(b, len));
        break;
    case 2:
        pc_kbc_cmd_write(&m->kbc, a & 1, len, widen(b, len));
        break;
    case 3:
        pc_rtc_read(&m->rtc, a & 3, len);
        break;
    case 4:
        pc_rtc_write(&m->rtc, a & 3, len, widen(b, len));
        break;
    case 5:
        m->now = (int64_t)((uint64_t)m->now * 251 + ((uint64_t)a << 8 | b) * 1000003);
        break;
    case 6:
        pc_power_reset_write(&m->power, a & 1, len, b);
        pc_power_sleep_write(&m->power, a & 1, len, b);
        must(a & 1 || (pc_power_reset_read(&m->power, 0, 1) & 0xff) == b);
        break;
    case 7:
        step_pm(m, a, len, widen(b, len));
        break;
    case 8:
        pc_kbc_key(&m->kbc, (uint16_t)(b & 0x80 ? 0xe000 | a : a), b & 1);
        break;
    case 9:
        pc_kbc_type(&m->kbc, (char)a);
        break;
    case 10:
        pc_kbc_move(&m->kbc, (int8_t)a * 1000, (int8_t)b * 1000000, a ^ b, b);
        break;
    case 12:
        pc_pvpanic_write(&m->panic, a & 1, len, b);
        must((pc_pvpanic_read(&m->panic, 0, len) & 0xff) == 3);
        break;
    case 11: /* to the mouse */
        pc_kbc_cmd_write(&m->kbc, 0, 1, 0xd4);
        pc_kbc_data_write(&m->kbc, 0, 1, b);
        break;
    default:
        pc_debugexit_write(&m->quit, a & 3, len, b);
        pc_debugcon_write(&m->con, a & 3, len, b);
        break;
    }
    check_kbc(m);
    check_rtc(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct machine m;

    machine_init(&m, len % 3 != 1);
    for (; len >= 3; data += 3, len -= 3) {
        if (data[0] & 8)
            step_others(&m, data[0], data[1], data[2]);
        else
            step_uart(&m, data[0], data[1], data[2]);
    }
    return 0;
}
