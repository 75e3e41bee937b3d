/* test_legacy.c - dev_legacy.h against the data sheets and against what Linux does to these devices
   when it probes them. MIT licence, see LICENSE */
#define DEV_LEGACY_IMPLEMENTATION
#include "../dev_legacy.h"
#include "check.h"

/* A far end for every device: counts what it is told. */
struct world {
    char out[4096];
    size_t nout, room;      /* room: how many more bytes the stream takes */
    unsigned writes, asks;  /* calls of out.write and out.rx_room */
    struct pc_uart *refill; /* rx_room hands this UART more input, synchronously */
    const char *input;
    bool line[16];
    unsigned edges[16]; /* rising ones */
    unsigned resets, offs, exits, lines, rooms;
    uint8_t status;
    int64_t now;
    uint64_t ns, wake_at; /* of struct vmm_timer */
};

static void set_line(void *ctx, unsigned line, bool level)
{
    struct world *w = ctx;

    CHECK(w->line[line] != level); /* devices report changes only */
    w->edges[line] += level;
    w->line[line] = level;
}

static size_t take(void *ctx, const void *buf, size_t len)
{
    struct world *w = ctx;
    size_t n = len < w->room ? len : w->room;

    w->writes++;
    memcpy(w->out + w->nout, buf, n);
    w->nout += n;
    w->room -= n;
    return n;
}

static void room(void *ctx)
{
    struct world *w = ctx;

    w->asks++;
    if (w->refill)
        w->input += pc_uart_rx(w->refill, w->input, strlen(w->input));
}

static void count_reset(void *ctx)
{
    ((struct world *)ctx)->resets++;
}

static void count_room(void *ctx)
{
    ((struct world *)ctx)->rooms++;
}

static uint64_t tell_ns(void *ctx)
{
    return ((struct world *)ctx)->ns;
}

static void note_wake(void *ctx, uint64_t at_ns)
{
    ((struct world *)ctx)->wake_at = at_ns;
}

static void count_off(void *ctx)
{
    ((struct world *)ctx)->offs++;
}

static void note_exit(void *ctx, uint8_t status)
{
    ((struct world *)ctx)->exits++;
    ((struct world *)ctx)->status = status;
}

static int64_t tell_time(void *ctx)
{
    return ((struct world *)ctx)->now;
}

static void count_line(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    (void)level, (void)fmt, (void)args;
    ((struct world *)ctx)->lines++;
}

/* >>uart */
enum { RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR, THR = 0, FCR = 2, DLL = 0, DLM = 1 };

static struct world w;
static struct pc_uart uart;
static struct vmm_log uart_log = {count_line, &w, VMM_LOG_DEBUG};

static void uart_new(void)
{
    struct pc_uart_desc desc = {{set_line, &w, 4}, {take, room, &w}, &uart_log};

    memset(&w, 0, sizeof w);
    w.room = sizeof w.out;
    pc_uart_init(&uart, &desc);
}

static unsigned in(unsigned reg)
{
    return (unsigned)pc_uart_read(&uart, reg, 1);
}

static void out(unsigned reg, unsigned val)
{
    pc_uart_write(&uart, reg, 1, val);
}

static size_t type(const char *text)
{
    return pc_uart_rx(&uart, text, strlen(text));
}

/* Data sheet table III: what a master reset leaves behind. */
static void uart_reset_values(void)
{
    static const uint8_t want[8] = {0, 0, 0x01, 0, 0, 0x60, 0xb0, 0};

    uart_new();
    for (unsigned i = 0; i < 8; i++)
        CHECK_EQ(in(i), want[i]);
    CHECK(!w.line[4]);
    out(LCR, 0x80);
    CHECK_EQ(in(DLL) | in(DLM) << 8, 1);
}

static void uart_registers_hold(void)
{
    static const struct {
        unsigned reg, write, read;
    } t[] = {{IER, 0xff, 0x0f}, {IER, 0, 0},       {LCR, 0x7f, 0x7f}, {MCR, 0xff, 0x1f},
             {MCR, 0, 0},       {SCR, 0xa5, 0xa5}, {SCR, 0x5a, 0x5a}, {LCR, 0x80, 0x80},
             {DLL, 12, 12},     {DLM, 3, 3},       {LCR, 0x03, 0x03}, {SCR, 0, 0}};

    uart_new();
    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        out(t[i].reg, t[i].write);
        CHECK_EQ(in(t[i].reg), t[i].read);
    }
    CHECK_EQ(w.nout, 0); /* the divisor is not output */
    out(LSR, 0);
    out(MSR, 0xff);
    CHECK_EQ(in(LSR), 0x60);
    CHECK_EQ(in(MSR)&0xf0, 0xb0);
}

static void uart_sends(void)
{
    uart_new();
    out(THR, 'h');
    out(THR, 'i');
    CHECK(w.nout == 2 && !memcmp(w.out, "hi", 2));
    CHECK_EQ(in(LSR), 0x60);
}

/* The stream refuses: LSR says so, nothing is lost or doubled, and the order stays. */
static void uart_holds_back(void)
{
    uart_new();
    out(FCR, 0x01);
    w.room = 1;
    for (unsigned i = 0; i < 17; i++)
        out(THR, 'a' + i); /* a goes out, b to q fill the FIFO */
    CHECK_EQ(w.nout, 1);
    CHECK_EQ(in(LSR), 0);
    CHECK_EQ(w.lines, 0);
    for (unsigned i = 0; i < 300; i++)
        out(THR, '!'); /* the guest ignores THRE: its own loss, and few lines of log */
    CHECK(w.lines > 0 && w.lines <= 8);
    w.room = 5;
    pc_uart_tx_ready(&uart);
    CHECK_EQ(in(LSR), 0);
    w.room = 100;
    pc_uart_tx_ready(&uart);
    CHECK_EQ(in(LSR), 0x60);
    CHECK(w.nout == 17 && !memcmp(w.out, "abcdefghijklmnopq", 17));
    pc_uart_tx_ready(&uart); /* with nothing to send: no call */
    CHECK_EQ(w.nout, 17);
}

/* Without FIFOs there is one holding register; its reset throws the byte away. */
static void uart_holds_one_without_fifo(void)
{
    uart_new();
    w.room = 0;
    out(THR, 'x');
    CHECK_EQ(in(LSR), 0);
    out(THR, 'y');
    CHECK_EQ(w.lines, 1);
    w.room = 9;
    pc_uart_tx_ready(&uart);
    CHECK(w.nout == 1 && w.out[0] == 'x');
    w.room = 0;
    out(FCR, 0x01);
    out(THR, 'z');
    out(FCR, 0x05);
    w.room = 9;
    pc_uart_tx_ready(&uart);
    CHECK_EQ(in(LSR), 0x60);
    CHECK_EQ(w.nout, 1);
}

static void uart_receives(void)
{
    uart_new();
    in(LSR); /* the guest looks for input */
    CHECK_EQ(type("ab"), 1);
    CHECK_EQ(in(LSR), 0x61);
    CHECK_EQ(in(RBR), 'a');
    CHECK_EQ(w.asks, 1);
    CHECK_EQ(in(LSR), 0x60);
    out(FCR, 0x01);
    CHECK_EQ(type("0123456789abcdefghij"), 16);
    for (unsigned i = 0; i < 15; i++)
        CHECK_EQ(in(RBR), (unsigned)"0123456789abcdef"[i]);
    CHECK_EQ(w.asks, 1);
    CHECK_EQ(in(RBR), 'f');
    CHECK_EQ(w.asks, 2);
    CHECK_EQ(in(LSR), 0x60); /* no overrun */
    CHECK_EQ(in(RBR), 0);
    CHECK_EQ(w.asks, 2); /* once is enough */
    CHECK_EQ(pc_uart_rx(&uart, NULL, 0), 0);
}

/* rx_room answers on the spot: a guest that reads until the FIFO is empty sees one stream. */
static void uart_refills_on_the_spot(void)
{
    static const char text[] = "The quick brown fox jumps over the lazy dog, twice if it must.";
    char got[sizeof text] = "";
    unsigned n = 0;

    uart_new();
    out(FCR, 0xc1);
    out(MCR, 0x0b);
    w.input = text;
    w.input += type(text);
    w.refill = &uart;
    while ((in(LSR)&1) && n < sizeof text - 1)
        got[n++] = (char)in(RBR);
    CHECK(!strcmp(got, text));
    CHECK_EQ(in(LSR), 0x60);
}

/* Input waits outside until the guest listens, and while it says "not now" with RTS. */
static void uart_waits_for_the_guest(void)
{
    uart_new();
    CHECK_EQ(type("early"), 0);
    CHECK_EQ(w.asks, 0);
    out(IER, 1); /* a guest without RTS: the interrupt enable will do */
    CHECK_EQ(w.asks, 1);
    CHECK_EQ(type("e"), 1);

    uart_new();
    CHECK_EQ(type("early"), 0);
    out(MCR, 0x01); /* Linux prints: DTR alone */
    in(LSR);
    out(IER, 1);
    CHECK_EQ(w.asks, 0);
    CHECK_EQ(type("early"), 0);
    out(FCR, 0x07);
    out(MCR, 0x0b); /* open */
    CHECK_EQ(w.asks, 1);
    CHECK_EQ(type("early"), 5);
    out(MCR, 0x08); /* and closed */
    CHECK_EQ(type("x"), 0);
}

/* IIR by priority, each cause cleared the way table IV says. */
static void uart_interrupts(void)
{
    uart_new();
    out(FCR, 0x81); /* trigger level 8 */
    out(MCR, 0x0b);
    in(MSR);
    CHECK_EQ(in(IIR), 0xc1);
    out(IER, 0x0f);
    CHECK(w.line[4]);
    CHECK_EQ(in(IIR), 0xc2); /* THRE: reading IIR acknowledges */
    CHECK_EQ(in(IIR), 0xc1);
    CHECK(!w.line[4]);
    CHECK_EQ(type("abc"), 3);
    CHECK_EQ(in(IIR), 0xcc); /* fewer than the trigger level: time-out */
    CHECK_EQ(type("defgh"), 5);
    CHECK_EQ(in(IIR), 0xc4);
    out(THR, 'x'); /* THRE is due again, behind the input */
    CHECK_EQ(in(IIR), 0xc4);
    CHECK_EQ(in(RBR), 'a');
    CHECK_EQ(in(IIR), 0xcc);
    for (unsigned i = 0; i < 7; i++)
        in(RBR);
    CHECK(w.line[4]);
    CHECK_EQ(in(IIR), 0xc2);
    CHECK_EQ(in(IIR), 0xc1);
    CHECK(!w.line[4]);
    out(THR, 'y');
    CHECK(w.line[4]);
    out(IER, 0x0d);
    CHECK(!w.line[4]);
    CHECK_EQ(in(IIR), 0xc1);
}

/* The line status interrupt is of highest priority, that of the modem of lowest. */
static void uart_line_and_modem(void)
{
    uart_new();
    out(MCR, 0x10); /* loopback: CTS, DSR and DCD fall */
    out(IER, 0x0f);
    CHECK_EQ(in(IIR), 0x02);
    CHECK_EQ(in(IIR), 0x00);
    CHECK_EQ(in(MSR), 0x0b);
    CHECK_EQ(in(IIR), 0x01);
    out(THR, '1');
    out(THR, '2'); /* overrun */
    CHECK_EQ(in(IIR), 0x06);
    CHECK_EQ(in(LSR), 0x63);
    CHECK_EQ(in(IIR), 0x04);
    CHECK_EQ(in(RBR), '1');
    CHECK_EQ(in(IIR), 0x02);
    CHECK(!w.line[4]);
    CHECK_EQ(w.nout, 0); /* loopback: nothing of it leaves */
}

static void uart_trigger_levels(void)
{
    static const unsigned level[] = {1, 4, 8, 14};

    for (unsigned i = 0; i < 4; i++) {
        uart_new();
        out(FCR, i << 6 | 1);
        out(MCR, 0x0b);
        out(IER, 0x01);
        for (unsigned n = 1; n <= 16; n++) {
            CHECK_EQ(type("x"), 1);
            CHECK_EQ(in(IIR), n < level[i] ? 0xcc : 0xc4);
        }
        CHECK_EQ(type("x"), 0);
        out(FCR, i << 6 | 3); /* clear the receiver */
        CHECK_EQ(in(IIR), 0xc1);
        CHECK_EQ(in(LSR), 0x60);
        CHECK_EQ(w.asks, 1);
    }
}

/* The line follows at once what happens behind the guest's back, and a byte that waits in the
   transmitter withdraws the THRE interrupt. */
static void uart_line_follows(void)
{
    uart_new();
    out(FCR, 0x01);
    out(MCR, 0x0b);
    out(IER, 0x01);
    CHECK_EQ(type("x"), 1);
    CHECK(w.line[4]);
    CHECK_EQ(in(RBR), 'x');
    CHECK(!w.line[4]);
    CHECK_EQ(w.asks, 0); /* all was taken: nothing to ask for */
    w.room = 0;
    out(IER, 0x02);
    CHECK(w.line[4]);
    out(THR, 'x');
    CHECK(!w.line[4]);
    out(IER, 0);
    out(IER, 0x02); /* not empty: enabling raises nothing */
    CHECK(!w.line[4]);
    out(FCR, 0x83); /* clears only the receiver */
    w.room = 1;
    pc_uart_tx_ready(&uart);
    CHECK(w.line[4]);
    CHECK_EQ(w.nout, 1);
    w.room = 0;
    out(THR, 'y');
    CHECK(!w.line[4]);
    out(FCR, 0x05); /* clear the transmitter: empty as well */
    CHECK(w.line[4]);
    CHECK_EQ(in(IIR), 0xc2);
    out(MCR, 0x1b);
    out(THR, 'z');
    CHECK_EQ(in(IIR), 0xc2);
}

static void uart_out2_gates(void)
{
    uart_new();
    out(IER, 0x02);
    CHECK(!w.line[4]);
    CHECK_EQ(uart.irq_level, 0);
    out(MCR, 0x08);
    CHECK(w.line[4]);
    out(MCR, 0x18);
    CHECK(!w.line[4]);
    out(MCR, 0x08);
    CHECK(w.line[4]);
    CHECK_EQ(in(IIR), 0x02);
    CHECK(!w.line[4]);
    CHECK_EQ(w.edges[4], 2);
}

/* Each modem output comes back on its input; the deltas stay until MSR is read. */
static void uart_loops_modem_lines(void)
{
    static const struct {
        unsigned mcr, msr;
    } t[] = {{0x10, 0x0b}, {0x12, 0x11}, {0x11, 0x23}, {0x14, 0x42},
             {0x10, 0x04}, {0x18, 0x88}, {0x1a, 0x91}, {0x1a, 0x90}};

    uart_new();
    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        out(MCR, t[i].mcr);
        CHECK_EQ(in(MSR), t[i].msr);
    }
}

/* The steps by which Linux's 8250 driver tells the chips apart: only a 16550A passes them all. */
static void uart_linux_autoconfig(void)
{
    unsigned count = 0;

    uart_new();
    out(IER, 0);
    CHECK_EQ(in(IER)&0x0f, 0);
    out(IER, 0x0f);
    CHECK_EQ(in(IER)&0x0f, 0x0f);
    out(IER, 0);
    out(MCR, 0x1a);
    CHECK_EQ(in(MSR)&0xf0, 0x90);
    out(MCR, 0);
    out(LCR, 0xbf); /* no enhanced feature register behind 0xbf */
    out(FCR, 0);
    out(LCR, 0);
    out(FCR, 0x01);
    CHECK_EQ(in(IIR) >> 6, 3);
    out(LCR, 0x80);
    CHECK(in(IIR) != 0); /* 16C650 */
    out(LCR, 0xbf);
    CHECK(in(IIR) != 0); /* 16C650V2 */
    out(LCR, 0xe0);
    CHECK(!((in(IIR) ^ in(MCR)) & 0x10)); /* National's superIO */
    out(LCR, 0);
    out(FCR, 0x21);
    CHECK_EQ(in(IIR) >> 5, 6);
    out(FCR, 0x01);
    out(LCR, 0x80);
    out(FCR, 0x21);
    CHECK_EQ(in(IIR) >> 5, 6); /* 16750 would say 7 */
    out(LCR, 0);
    out(IER, 0x40);
    CHECK_EQ(in(IER), 0); /* XScale */
    out(FCR, 0x07);
    out(MCR, 0x10);
    for (unsigned i = 0; i < 256; i++)
        out(THR, i);
    while ((in(LSR)&1) && count < 256)
        CHECK_EQ(in(RBR), count++);
    CHECK_EQ(count, 16);
    out(MCR, 0);
    CHECK_EQ(w.nout, 0);
}

/* Start-up in Linux: THRE must come back each time its interrupt is enabled anew. */
static void uart_linux_startup(void)
{
    uart_new();
    out(FCR, 0x01);
    out(FCR, 0x07);
    out(FCR, 0);
    CHECK(in(LSR) != 0xff);
    in(RBR), in(IIR), in(MSR);
    out(LCR, 0x03);
    out(MCR, 0x08);
    out(IER, 0x02);
    CHECK(!(in(IIR)&1));
    out(IER, 0);
    out(IER, 0x02);
    CHECK(!(in(IIR)&1));
    out(IER, 0);
    out(IER, 0x02); /* and the test for chips that do not say so at all */
    CHECK((in(LSR)&0x40) && !(in(IIR)&1));
    out(IER, 0);
    CHECK(!w.line[4]);
}

/* An interrupt handler in the manner of Linux sends a long text, the stream stalls now and then. */
static void uart_interrupt_driven(void)
{
    unsigned sent = 0, served = 0;

    uart_new();
    out(FCR, 0x81);
    out(MCR, 0x0b);
    out(IER, 0x02);
    w.room = 3;
    for (unsigned turn = 0; turn < 400 && sent < 1000; turn++) {
        if (!w.line[4]) {
            CHECK(!(in(LSR)&0x20)); /* no interrupt only because the stream is stuck */
            w.room += 7;
            pc_uart_tx_ready(&uart);
            continue;
        }
        served++;
        while (!(in(IIR)&1))
            for (unsigned i = 0; i < 16 && (in(LSR)&0x20); i++)
                out(THR, 'A' + sent++ % 26);
    }
    w.room = 100;
    pc_uart_tx_ready(&uart);
    CHECK(sent >= 1000 && w.nout == sent && served > 1);
    for (unsigned i = 0; i < w.nout; i++)
        if (!CHECK_EQ((unsigned)w.out[i], 'A' + i % 26))
            break;
}

static void uart_wide_accesses(void)
{
    uart_new();
    pc_uart_write(&uart, LCR, 4, 0xffff0003); /* LCR, MCR, LSR, MSR */
    CHECK_EQ(in(LCR), 3);
    CHECK_EQ(pc_uart_read(&uart, LSR, 4) >> 16 & 0xff, 0);
    CHECK_EQ(pc_uart_read(&uart, SCR, 2), 0xff00); /* beyond the last register: ones */
    pc_uart_write(&uart, THR, 2, 0x0f41);          /* A, and IER */
    CHECK(w.nout == 1 && w.out[0] == 'A');
    CHECK_EQ(in(IER), 0x0f);
    CHECK_EQ(pc_uart_read(&uart, 100, 8), ~(uint64_t)0);
    pc_uart_write(&uart, 100, 8, 0);
}

static void uart_without_callbacks(void)
{
    struct pc_uart_desc nothing = {0};

    pc_uart_init(&uart, &nothing);
    out(MCR, 0x0b);
    out(IER, 0x0f);
    out(THR, 'x');
    CHECK_EQ(in(LSR), 0x60);
    CHECK_EQ(type("xy"), 1);
    CHECK_EQ(in(RBR), 'x');
}

/* >>kbc */
static struct pc_kbc kbc;

static void kbc_new(bool aux)
{
    struct pc_kbc_desc desc = {
        {set_line, &w, 1}, {aux ? set_line : NULL, &w, 12}, count_reset, &w, count_room};

    memset(&w, 0, sizeof w);
    pc_kbc_init(&kbc, &desc);
}

static unsigned status(void)
{
    return (unsigned)pc_kbc_cmd_read(&kbc, 0, 1);
}

static unsigned data(void)
{
    return (unsigned)pc_kbc_data_read(&kbc, 0, 1);
}

static void command(unsigned val)
{
    pc_kbc_cmd_write(&kbc, 0, 1, val);
}

static void put(unsigned val)
{
    pc_kbc_data_write(&kbc, 0, 1, val);
}

/* Controller command `cmd` (-1: none), then data `to` (-1: none); `want` is what must come back. */
struct kbc_step {
    int cmd, to;
    unsigned nwant;
    uint8_t want[4];
};

static void kbc_run(const struct kbc_step *t, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (t[i].cmd >= 0)
            command((unsigned)t[i].cmd);
        if (t[i].to >= 0)
            put((unsigned)t[i].to);
        for (unsigned k = 0; k < t[i].nwant; k++) {
            CHECK(status() & 1);
            CHECK_EQ(data(), t[i].want[k]);
        }
        CHECK(!(status() & 3));
    }
}

static void kbc_controller_commands(void)
{
    static const struct kbc_step t[] = {
        {0xaa, -1, 1, {0x55}},   {0xab, -1, 1, {0}},      {0xa9, -1, 1, {0}},
        {0xa4, -1, 1, {0xf1}},   {0xc0, -1, 1, {0x80}},   {0x20, -1, 1, {0x65}},
        {0x60, 0x47, 0, {0}},    {0x20, -1, 1, {0x47}},   {0xad, -1, 0, {0}},
        {0x20, -1, 1, {0x57}},   {0xa7, -1, 0, {0}},      {0x20, -1, 1, {0x77}},
        {0xae, -1, 0, {0}},      {0xa8, -1, 0, {0}},      {0x20, -1, 1, {0x47}},
        {0xd2, 0x33, 1, {0x33}}, {0xd3, 0x44, 1, {0x44}}, {0xd0, -1, 1, {0xc3}},
        {0xd1, 0xc1, 0, {0}},    {0xd0, -1, 1, {0xc1}},   {0x7f, 0x12, 0, {0}},
        {0x3f, -1, 1, {0x12}},   {0x60, -1, 0, {0}},      {0x20, -1, 1, {0x47}},
        {0x99, -1, 0, {0}},      {0xff, -1, 0, {0}},      {0xd4, 0xf2, 2, {0xfa, 0}},
    };

    kbc_new(true);
    CHECK_EQ(status(), 0x14);
    kbc_run(t, sizeof t / sizeof t[0]);
    CHECK_EQ(w.resets, 0);
}

/* What the status register and the output port say besides; a command takes back the one before. */
static void kbc_status(void)
{
    kbc_new(true);
    command(0xae);
    CHECK_EQ(status(), 0x1c);
    command(0xc0);
    CHECK(w.line[1]);
    CHECK_EQ(data(), 0x80);
    command(0x60);
    put(0x43); /* without the system flag */
    CHECK_EQ(status(), 0x10);
    command(0xaa);
    CHECK_EQ(status(), 0x1d);
    CHECK_EQ(data(), 0x55);
    put(0xee);
    command(0xd0);
    CHECK(w.line[1]);
    CHECK_EQ(data(), 0xee);
    CHECK_EQ(data(), 0xd3);
    command(0xd3);
    put(0x11);
    command(0xd0);
    CHECK_EQ(data(), 0x11);
    CHECK_EQ(data(), 0xe3);
    command(0x60);
    command(0xae);
    put(0xee);
    CHECK_EQ(data(), 0xee);
    command(0x20);
    CHECK_EQ(data(), 0x47);
}

static void kbc_keyboard(void)
{
    static const struct kbc_step t[] = {
        {-1, 0xf0, 1, {0xfa}},
        {-1, 0, 2, {0xfa, 0x41}},
        {0x60, 0x05, 0, {0}}, /* no translation */
        {-1, 0xff, 2, {0xfa, 0xaa}},
        {-1, 0xf2, 3, {0xfa, 0xab, 0x83}},
        {-1, 0xed, 1, {0xfa}},
        {-1, 0x07, 1, {0xfa}},
        {-1, 0xf3, 1, {0xfa}},
        {-1, 0x20, 1, {0xfa}},
        {-1, 0xf4, 1, {0xfa}},
        {-1, 0xf5, 1, {0xfa}},
        {-1, 0xf6, 1, {0xfa}},
        {-1, 0xee, 1, {0xee}},
        {-1, 0xfe, 1, {0xee}},
        {-1, 0xf0, 1, {0xfa}},
        {-1, 0x00, 2, {0xfa, 0x02}},
        {-1, 0xf0, 1, {0xfa}},
        {-1, 0x03, 1, {0xfe}}, /* no set 3 */
        {-1, 0xf0, 1, {0xfa}},
        {-1, 0x01, 1, {0xfa}},
        {-1, 0xf0, 1, {0xfa}},
        {-1, 0x00, 2, {0xfa, 0x01}},
        {-1, 0xf6, 1, {0xfa}},
        {-1, 0xf0, 1, {0xfa}},
        {-1, 0, 2, {0xfa, 0x02}},
        {-1, 0xf0, 1, {0xfa}},
        {-1, 0x01, 1, {0xfa}},
        {-1, 0xff, 2, {0xfa, 0xaa}},
        {-1, 0xf0, 1, {0xfa}},
        {-1, 0, 2, {0xfa, 0x02}},
        {-1, 0xf0, 1, {0xfa}},
        {-1, 0x09, 1, {0xfe}},
        {-1, 0x12, 1, {0xfe}},
        {-1, 0xed, 1, {0xfa}},
        {-1, 0xf4, 1, {0xfa}}, /* a command cuts in */
        {-1, 0x00, 1, {0xfe}},
        {-1, 0xfa, 1, {0xfa}},
        {0x60, 0x45, 0, {0}}, /* translated to set 1, as firmware leaves it */
        {-1, 0xf2, 3, {0xfa, 0xab, 0x41}},
        {-1, 0xf6, 1, {0xfa}},
        {-1, 0xf0, 1, {0xfa}},
        {-1, 0x00, 2, {0xfa, 0x41}},
    };

    kbc_new(true);
    kbc_run(t, sizeof t / sizeof t[0]);
}

/* Every byte is one edge of its line, and the status says whose it is. */
static void kbc_interrupts(void)
{
    kbc_new(true);
    put(0xf2);
    CHECK_EQ(status(), 0x15);
    for (unsigned i = 1; i <= 3; i++) {
        CHECK(w.line[1]);
        CHECK_EQ(w.edges[1], i);
        data();
    }
    CHECK(!w.line[1]);
    CHECK_EQ(data(), 0x41); /* the buffer keeps what was read last */
    command(0x60);
    put(0x46);
    put(0xf4);
    CHECK(!w.line[1] && (status() & 1));
    command(0x60);
    put(0x47);
    CHECK(w.line[1]);
    data();
    command(0xd3);
    put(0xa5);
    CHECK(w.line[12] && !w.line[1]);
    CHECK_EQ(status(), 0x35);
    CHECK_EQ(data(), 0xa5);
    CHECK(!w.line[12]);
}

/* What Linux does to find an auxiliary port, and a mouse behind it. */
static void kbc_linux_aux_probe(void)
{
    kbc_new(true);
    command(0xd3);
    put(0x5a);
    CHECK((status() & 0x21) == 0x21);
    CHECK_EQ(data(), 0x5a);
    command(0xa7);
    command(0x20);
    CHECK(data() & 0x20);
    command(0xa8);
    command(0x20);
    CHECK(!(data() & 0x20));
    command(0x60);
    put(0x47);
    command(0xd3);
    put(0xa5);
    CHECK_EQ(w.edges[12], 1);
    data();
    command(0xd4);
    put(0xff);
    CHECK((status() & 0x61) == 0x21);
    CHECK(data() == 0xfa && data() == 0xaa && data() == 0x00);

    kbc_new(false); /* without the line: no port, said at once */
    command(0xd4);
    put(0xff);
    CHECK((status() & 0x61) == 0x41); /* time-out */
    CHECK_EQ(data(), 0xfe);
    command(0xd3);
    put(0x5a);
    CHECK((status() & 0x21) == 0x01);
    data();
    command(0xa9);
    CHECK_EQ(data(), 1);
    command(0xa8);
    command(0x20);
    CHECK(data() & 0x20);
    command(0x60);
    put(0x03);
    command(0x20);
    CHECK_EQ(data(), 0x23);
}

/* All that is in the output buffer, one after the other, is this, and comes with these bits. */
static void kbc_reads(const char *want, size_t len, unsigned bits)
{
    for (size_t i = 0; i < len; i++) {
        CHECK_EQ(status() & 0x61, bits | 1);
        CHECK_EQ(data(), (uint8_t)want[i]);
    }
    CHECK(!(status() & 1));
}
#define READS(want) kbc_reads(want, sizeof want - 1, 0)
#define MOUSE(want) kbc_reads(want, sizeof want - 1, 0x20)

/* Keys in the three ways that a guest can see them. */
static void kbc_keys(void)
{
    static const struct {
        uint16_t key;
        const char *translated, *set1, *set2;
    } t[] = {
        {0x1e, "\x1e\x9e", "\x1e\x9e", "\x1c\xf0\x1c"},                           /* A */
        {0x01, "\x01\x81", "\x01\x81", "\x76\xf0\x76"},                           /* escape */
        {0x33, "\x33\xb3", "\x33\xb3", "\x41\xf0\x41"},                           /* comma */
        {0x41, "\x41\xc1", "\x41\xc1", "\x83\xf0\x83"},                           /* F7 */
        {0x57, "\x57\xd7", "\x57\xd7", "\x78\xf0\x78"},                           /* F11 */
        {0x56, "\x56\xd6", "\x56\xd6", "\x61\xf0\x61"},                           /* the 102nd */
        {0xe048, "\xe0\x48\xe0\xc8", "\xe0\x48\xe0\xc8", "\xe0\x75\xe0\xf0\x75"}, /* up */
        {0xe01d, "\xe0\x1d\xe0\x9d", "\xe0\x1d\xe0\x9d", "\xe0\x14\xe0\xf0\x14"},
    };

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++)
        for (unsigned way = 0; way < 3; way++) {
            const char *want = way == 0 ? t[i].translated : way == 1 ? t[i].set1 : t[i].set2;
            kbc_new(true);
            if (way) {
                command(0x60), put(0x05);
                put(0xf0), data(), put(way), data();
            }
            CHECK(pc_kbc_key(&kbc, t[i].key, true) && pc_kbc_key(&kbc, t[i].key, false));
            CHECK(w.line[1]);
            kbc_reads(want, strlen(want), 0);
            CHECK_EQ(w.edges[1], strlen(want) + (way ? 2 : 0));
        }
    for (unsigned key = 1; key <= 0x58; key++) { /* all of them, there and back */
        char want[2] = {(char)key, (char)(key | 0x80)};
        kbc_new(true);
        pc_kbc_key(&kbc, (uint16_t)key, true), pc_kbc_key(&kbc, (uint16_t)key, false);
        kbc_reads(want, 2, 0);
    }
}

/* A keyboard that is off, or full, refuses, and says when it would take keys; answers come first. */
static void kbc_keys_wait(void)
{
    kbc_new(true);
    put(0xf5);
    READS("\xfa");
    CHECK(!pc_kbc_key(&kbc, 0x1e, true));
    CHECK_EQ(w.rooms, 0);
    put(0xf4);
    CHECK_EQ(w.rooms, 1);
    CHECK(pc_kbc_key(&kbc, 0x1e, true));
    READS("\xfa\x1e");
    command(0xad); /* its clock is stopped: it keeps them */
    CHECK(pc_kbc_type(&kbc, 'x'));
    CHECK(!(status() & 1));
    command(0x20);
    READS("\x75");
    command(0xae);
    READS("\x2d\xad");
    for (unsigned i = 0; i < 4; i++) /* three bytes each; one is in the output buffer */
        CHECK(pc_kbc_type(&kbc, 'a'));
    CHECK(pc_kbc_type(&kbc, 'b'));
    CHECK(!pc_kbc_type(&kbc, 'c'));
    CHECK_EQ(w.rooms, 1);
    READS("\x1e\x9e\x1e\x9e\x1e\x9e\x1e\x9e\x30\xb0");
    CHECK_EQ(w.rooms, 2);
    CHECK(pc_kbc_type(&kbc, 'c'));
    put(0xff); /* a reset forgets what waits, but not what is in the output buffer */
    READS("\x2e\xfa\xaa");
}

static void kbc_types(void)
{
    static const struct {
        char c;
        const char *want;
    } t[] = {
        {'a', "\x1e\x9e"},
        {'1', "\x02\x82"},
        {'A', "\x2a\x1e\x9e\xaa"},
        {'!', "\x2a\x02\x82\xaa"},
        {'\n', "\x1c\x9c"},
        {'\r', "\x1c\x9c"},
        {'\t', "\x0f\x8f"},
        {'\b', "\x0e\x8e"},
        {0x7f, "\x0e\x8e"},
        {0x1b, "\x01\x81"},
        {3, "\x1d\x2e\xae\x9d"},
        {26, "\x1d\x2c\xac\x9d"},
        {' ', "\x39\xb9"},
        {'~', "\x2a\x29\xa9\xaa"},
        {'/', "\x35\xb5"},
        {'|', "\x2a\x2b\xab\xaa"},
        {'?', "\x2a\x35\xb5\xaa"},
        {'\\', "\x2b\xab"},
        {'\'', "\x28\xa8"},
        {'"', "\x2a\x28\xa8\xaa"},
        {'z', "\x2c\xac"},
        {'}', "\x2a\x1b\x9b\xaa"},
        {0, ""},
        {(char)0xe4, ""},
    };

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        kbc_new(true);
        CHECK(pc_kbc_type(&kbc, t[i].c));
        kbc_reads(t[i].want, strlen(t[i].want), 0);
    }
    for (char c = ' '; c < 0x7f; c++) { /* every printable one has a key */
        kbc_new(true);
        pc_kbc_type(&kbc, c);
        CHECK(status() & 1);
    }
}

static void mouse_put(unsigned val)
{
    command(0xd4);
    put(val);
}

/* IBM's PS/2 mouse: commands and what they say. */
static void kbc_mouse_commands(void)
{
    static const struct {
        uint8_t put, n;
        const char *want;
    } t[] = {
        {0xff, 3, "\xfa\xaa\0"},     {0xf2, 2, "\xfa\0"},       {0xe9, 4, "\xfa\0\2\x64"},
        {0xe8, 1, "\xfa"},           {0x03, 1, "\xfa"},         {0xf3, 1, "\xfa"},
        {0x28, 1, "\xfa"},           {0xe7, 1, "\xfa"},         {0xf4, 1, "\xfa"},
        {0xe9, 4, "\xfa\x30\3\x28"}, {0xe8, 1, "\xfa"},         {0x04, 1, "\xfe"},
        {0xe6, 1, "\xfa"},           {0xf5, 1, "\xfa"},         {0xf0, 1, "\xfa"},
        {0xe9, 4, "\xfa\x40\3\x28"}, {0xeb, 4, "\xfa\x08\0\0"}, {0xea, 1, "\xfa"},
        {0xee, 1, "\xfa"},           {0xf2, 1, "\xf2"},         {0x55, 1, "\x55"},
        {0xec, 1, "\xfa"},           {0xfe, 1, "\xfa"},         {0xe1, 1, "\xfe"},
        {0xf6, 1, "\xfa"},           {0xe9, 4, "\xfa\0\2\x64"},
    };

    kbc_new(true);
    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        mouse_put(t[i].put);
        kbc_reads(t[i].want, t[i].n, 0x20);
    }
}

static void kbc_mouse_moves(void)
{
    static const uint8_t knock[] = {0xf3, 200, 0xf3, 100, 0xf3, 80};

    kbc_new(true);
    command(0x60), put(0x47); /* the port on, with its interrupt */
    pc_kbc_move(&kbc, 5, 5, 0, 1);
    CHECK(!(status() & 1)); /* nobody asked */
    mouse_put(0xf4);
    MOUSE("\xfa");
    pc_kbc_move(&kbc, 5, -3, 0, 0);
    CHECK(w.line[12]);
    MOUSE("\x28\x05\xfd");
    pc_kbc_move(&kbc, 0, 0, 1, 0); /* no wheel yet */
    pc_kbc_move(&kbc, 0, 0, 0, 0);
    CHECK(!(status() & 1));
    pc_kbc_move(&kbc, 0, 0, 0, 3);
    MOUSE("\x0b\0\0");
    pc_kbc_move(&kbc, -300, 260, 0, 4); /* further than one report reaches */
    MOUSE("\x1c\0\xff\x1c\xd4\x05");
    for (unsigned i = 0; i < sizeof knock; i++) {
        mouse_put(knock[i]);
        MOUSE("\xfa");
    }
    mouse_put(0xf2);
    MOUSE("\xfa\x03");
    pc_kbc_move(&kbc, 1, 0, -2, 4);
    MOUSE("\x0c\x01\0\x02");
    for (unsigned i = 0; i < 100; i++) /* nobody reads: it adds up */
        pc_kbc_move(&kbc, 1, 0, 0, 4);
    MOUSE("\x0c\x01\0\0\x0c\x01\0\0\x0c\x01\0\0\x0c\x01\0\0\x0c\x60\0\0");
    mouse_put(0xf0); /* only when asked */
    MOUSE("\xfa");
    pc_kbc_move(&kbc, 7, 0, 0, 0);
    CHECK(!(status() & 1));
    mouse_put(0xeb);
    MOUSE("\xfa\x08\x07\0\0");
    mouse_put(0xff);
    MOUSE("\xfa\xaa\0");
    mouse_put(0xf2);
    MOUSE("\xfa\0");
    mouse_put(0xf4);
    MOUSE("\xfa");
    command(0xa7); /* its clock is stopped */
    pc_kbc_move(&kbc, 1, 1, 0, 0);
    CHECK(pc_kbc_key(&kbc, 0x1e, true));
    READS("\x1e");
    command(0xa8);
    MOUSE("\x08\x01\x01");
}

static void kbc_resets(void)
{
    kbc_new(true);
    command(0xfe);
    CHECK_EQ(w.resets, 1);
    command(0xf0);
    CHECK_EQ(w.resets, 2);
    command(0xd1);
    put(0xfe);
    CHECK_EQ(w.resets, 3);
    command(0xff);
    command(0xd1);
    put(0xdf);
    CHECK_EQ(w.resets, 3);
}

static void kbc_floods_and_widths(void)
{
    unsigned n = 0;

    kbc_new(true);
    for (unsigned i = 0; i < 1000; i++)
        put(0xff);
    for (; (status() & 1) && n < 1000; n++)
        CHECK_EQ(data(), n % 2 ? 0xaa : 0xfa);
    CHECK_EQ(n, 16);
    put(0xee);
    CHECK_EQ(pc_kbc_cmd_read(&kbc, 0, 2), 0xff15);
    CHECK_EQ(pc_kbc_data_read(&kbc, 0, 4), 0xffffffee);
    CHECK_EQ(pc_kbc_data_read(&kbc, 0, 8), ~(uint64_t)0xff | 0xee);
    CHECK_EQ(pc_kbc_data_read(&kbc, 1, 1), 0xff);
    CHECK_EQ(pc_kbc_cmd_read(&kbc, 1, 2), 0xffff);
    pc_kbc_cmd_write(&kbc, 1, 1, 0xfe);
    pc_kbc_data_write(&kbc, 1, 1, 0xff);
    CHECK_EQ(w.resets, 0);
    CHECK(!(status() & 1));
}

/* >>rtc */
static struct pc_rtc rtc;

static void rtc_new(int64_t seconds)
{
    struct pc_rtc_desc desc = {tell_time, &w, 0, 0, {set_line, &w, 8}, {tell_ns, note_wake, &w}, 3};

    memset(&w, 0, sizeof w);
    w.wake_at = UINT64_MAX;
    w.now = seconds * 1000000000;
    pc_rtc_init(&rtc, &desc);
}

static unsigned cmos(unsigned reg)
{
    pc_rtc_write(&rtc, 0, 1, reg);
    return (unsigned)pc_rtc_read(&rtc, 1, 1);
}

static void cmos_put(unsigned reg, unsigned val)
{
    pc_rtc_write(&rtc, 0, 1, reg);
    pc_rtc_write(&rtc, 1, 1, val);
}

/* century year month day weekday hour minute second */
static const uint8_t time_regs[8] = {0x32, 9, 8, 7, 6, 4, 2, 0};

static void check_time(const uint8_t want[8])
{
    for (unsigned i = 0; i < 8; i++)
        CHECK_EQ(cmos(time_regs[i]), want[i]);
}

static const struct {
    int64_t seconds;
    uint8_t bcd[8];
} moments[] = {
    {0, {0x19, 0x70, 0x01, 0x01, 5, 0x00, 0x00, 0x00}},
    {-1, {0x19, 0x69, 0x12, 0x31, 4, 0x23, 0x59, 0x59}},
    {951782399, {0x20, 0x00, 0x02, 0x28, 2, 0x23, 0x59, 0x59}},
    {951782400, {0x20, 0x00, 0x02, 0x29, 3, 0x00, 0x00, 0x00}},
    {951868800, {0x20, 0x00, 0x03, 0x01, 4, 0x00, 0x00, 0x00}},
    {1709210096, {0x20, 0x24, 0x02, 0x29, 5, 0x12, 0x34, 0x56}},
    {2147483648, {0x20, 0x38, 0x01, 0x19, 3, 0x03, 0x14, 0x08}},
    {4107542400, {0x21, 0x00, 0x03, 0x01, 2, 0x00, 0x00, 0x00}},
    {4107542399, {0x21, 0x00, 0x02, 0x28, 1, 0x23, 0x59, 0x59}},
    {-2203891200, {0x19, 0x00, 0x03, 0x01, 5, 0x00, 0x00, 0x00}},
};

static void rtc_tells_time(void)
{
    for (unsigned i = 0; i < sizeof moments / sizeof moments[0]; i++) {
        rtc_new(moments[i].seconds);
        check_time(moments[i].bcd);
        w.now += 999000000; /* still the same second */
        check_time(moments[i].bcd);
    }
}

/* Setting the clock in the way of Linux, to every moment above, from another one. */
static void rtc_is_set(void)
{
    for (unsigned i = 0; i < sizeof moments / sizeof moments[0]; i++) {
        rtc_new(1700000000);
        cmos_put(0x0b, 0x82);
        for (unsigned k = 8; k-- > 0;)
            cmos_put(time_regs[k], moments[i].bcd[k]);
        w.now += (int64_t)5000000000; /* stands still meanwhile */
        check_time(moments[i].bcd);
        cmos_put(0x0b, 0x02);
        check_time(moments[i].bcd);
        w.now += (int64_t)86400 * 1000000000;
        CHECK_EQ(cmos(0), moments[i].bcd[7]);
        CHECK_EQ(cmos(6), moments[i].bcd[4] % 7 + 1u);
    }
}

/* SET shows the time at which the clock was stopped; writing it again changes nothing. */
static void rtc_stops(void)
{
    rtc_new(moments[5].seconds);
    cmos_put(0x0b, 0x82);
    w.now += (int64_t)3600 * 1000000000;
    check_time(moments[5].bcd);
    cmos_put(9, 0x99);
    cmos_put(0x0b, 0x82);
    CHECK_EQ(cmos(9), 0x99);
    cmos_put(9, moments[5].bcd[1]);
    cmos_put(0x0b, 0x02);
    check_time(moments[5].bcd);
    w.now += (int64_t)7200 * 1000000000;
    cmos_put(2, 0x59); /* the minute alone: the hour goes on */
    CHECK_EQ(cmos(4), 0x14);
    CHECK_EQ(cmos(2), 0x59);
}

/* 12 and 24 hours, BCD and binary: read and set. */
static void rtc_formats(void)
{
    static const struct {
        uint8_t b, hour0, hour1, hour12, hour23, year;
    } t[] = {{0x02, 0x00, 0x01, 0x12, 0x23, 0x23},
             {0x06, 0, 1, 12, 23, 23},
             {0x00, 0x12, 0x01, 0x92, 0x91, 0x23},
             {0x04, 12, 1, 0x80 | 12, 0x80 | 11, 23}};

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        const uint8_t *hours[] = {&t[i].hour0, &t[i].hour1, &t[i].hour12, &t[i].hour23};
        static const unsigned hour[] = {0, 1, 12, 23};
        for (unsigned k = 0; k < 4; k++) {
            rtc_new(1699920000 + 3600 * (int64_t)hour[k]); /* 2023-11-14 */
            cmos_put(0x0b, t[i].b);
            CHECK_EQ(cmos(4), *hours[k]);
            CHECK_EQ(cmos(9), t[i].year);
            cmos_put(0x0b, t[i].b | 0x80);
            cmos_put(4, *hours[3 - k]);
            cmos_put(0x0b, t[i].b);
            CHECK_EQ(cmos(4), *hours[3 - k]);
            cmos_put(4, *hours[k]); /* one register alone, while the clock runs */
            CHECK_EQ(cmos(4), *hours[k]);
            CHECK_EQ(cmos(9), t[i].year);
        }
    }
}

/* Nonsense is read back as written while it is being set, and forced into range afterwards. */
static void rtc_nonsense(void)
{
    static const uint8_t want[8] = {0x99, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59};
    static const uint8_t least[8] = {0, 0, 1, 1, 7, 0, 0, 0};

    rtc_new(0);
    cmos_put(0x0b, 0x82);
    for (unsigned k = 0; k < 8; k++)
        cmos_put(time_regs[k], 0xff);
    for (unsigned k = 0; k < 8; k++)
        CHECK_EQ(cmos(time_regs[k]), 0xff);
    cmos_put(0x0b, 0x02);
    check_time(want);
    w.now = INT64_MAX; /* beyond the last year: stands at its end */
    check_time(want);
    cmos_put(0x0b, 0x82);
    for (unsigned k = 0; k < 8; k++)
        cmos_put(time_regs[k], 0);
    cmos_put(0x0b, 0x02);
    check_time(least);
    w.now = INT64_MIN;
    check_time(least);
}

static void rtc_registers(void)
{
    rtc_new(1700000000);
    CHECK_EQ(cmos(0x0a), 0x26);
    CHECK_EQ(cmos(0x0b), 0x02);
    CHECK_EQ(cmos(0x0c), 0);
    CHECK_EQ(cmos(0x0d), 0x80);
    w.now += 999800000;
    CHECK_EQ(cmos(0x0a), 0xa6); /* update in progress, shortly before the next second */
    cmos_put(0x0b, 0x82);
    CHECK_EQ(cmos(0x0a), 0x26); /* but not while the clock is being set */
    cmos_put(0x0b, 0x02);
    cmos_put(0x0a, 0xf6);
    CHECK_EQ(cmos(0x0a), 0x76); /* nor while its divider is held in reset */
    cmos_put(0x0a, 0x26);
    w.now += 499700000; /* half a second from its end to the first update, less 300 us */
    CHECK_EQ(cmos(0x0a), 0x26);
    w.now += 100000;
    CHECK_EQ(cmos(0x0a), 0xa6);
    rtc_new(0);
    w.now = -1;
    CHECK_EQ(cmos(0x0a), 0xa6);
    cmos_put(0x0c, 0xff);
    cmos_put(0x0d, 0);
    CHECK_EQ(cmos(0x0c), 0);
    CHECK_EQ(cmos(0x0d), 0x80);
    cmos_put(0x0f, 0x0a);
    CHECK_EQ(cmos(0x8f), 0x0a); /* bit 7 of the index only masks NMI */
    cmos_put(0xff, 0x77);
    CHECK_EQ(cmos(0x7f), 0x77);
    CHECK_EQ(pc_rtc_read(&rtc, 0, 1), 0xff);
    pc_rtc_write(&rtc, 0, 2, 0x550f); /* index and data in one go */
    CHECK_EQ(pc_rtc_read(&rtc, 0, 2), 0x55ff);
    CHECK_EQ(pc_rtc_read(&rtc, 1, 4), 0xffffff55);
    CHECK_EQ(pc_rtc_read(&rtc, 7, 8), ~(uint64_t)0);
}

/* Time goes on: the owner calls when it is to. */
static void rtc_pass(uint64_t ns)
{
    uint64_t until = w.ns + ns;

    while (w.wake_at <= until) {
        CHECK(w.wake_at >= w.ns);
        w.now += (int64_t)(w.wake_at - w.ns);
        w.ns = w.wake_at;
        w.wake_at = UINT64_MAX;
        pc_rtc_tick(&rtc);
    }
    w.now += (int64_t)(until - w.ns);
    w.ns = until;
}

/* Interrupts in so many seconds, each acknowledged at once; all causes seen, or-ed. */
static unsigned rtc_interrupts(unsigned seconds, unsigned *causes)
{
    unsigned n = 0;

    *causes = 0;
    for (uint64_t end = w.ns + seconds * 1000000000ull; w.ns < end;) {
        uint64_t next = w.wake_at < end ? w.wake_at : end;
        rtc_pass(next - w.ns);
        while (w.line[8]) {
            *causes |= cmos(0x0c);
            n++;
        }
    }
    return n;
}

/* MC146818A, table "periodic interrupt rate", with a 32768 Hz time base. */
static void rtc_periodic(void)
{
    static const uint16_t hz[16] = {0,   256, 128, 8192, 4096, 2048, 1024, 512,
                                    256, 128, 64,  32,   16,   8,    4,    2};
    unsigned causes;

    for (unsigned rate = 0; rate < 16; rate++) {
        rtc_new(1700000000);
        cmos_put(0x0a, 0x20 | rate);
        cmos_put(0x0b, 0x42);
        CHECK_EQ(rtc_interrupts(2, &causes), 2 * hz[rate]);
        CHECK_EQ(causes, hz[rate] ? 0xd0 : 0); /* seconds passed as well */
        cmos_put(0x0a, 0x60 | rate);           /* a divider in reset */
        CHECK_EQ(rtc_interrupts(2, &causes), 0);
        CHECK(w.wake_at == UINT64_MAX);
    }
}

/* What a late owner or a slow guest missed comes afterwards, one by one, but not more than a second's
   worth; without the interrupt enabled a flag is all there is, and nobody is woken. */
static void rtc_catches_up(void)
{
    unsigned causes;

    rtc_new(1700000000);
    cmos_put(0x0a, 0x26);
    cmos_put(0x0b, 0x42);
    w.ns += 10000000, w.now += 10000000; /* 10 ms, 1024 Hz, and nobody called */
    pc_rtc_tick(&rtc);
    CHECK_EQ(w.edges[8], 1);
    CHECK(w.wake_at == UINT64_MAX);
    for (unsigned i = 1; i < 10; i++) {
        CHECK_EQ(cmos(0x0c), 0xc0);
        CHECK(w.line[8] && w.edges[8] == i + 1);
    }
    CHECK_EQ(cmos(0x0c), 0xc0);
    CHECK(!w.line[8]);
    rtc_pass(5000000000);
    CHECK_EQ(rtc_interrupts(0, &causes), 0);
    for (causes = 0; w.line[8]; causes++)
        cmos(0x0c);
    CHECK_EQ(causes, 1024);
    cmos_put(0x0b, 0x02);
    CHECK(w.wake_at == UINT64_MAX);
    rtc_pass(5000000000);
    CHECK_EQ(cmos(0x0c), 0x50);
    CHECK_EQ(cmos(0x0c), 0x00);
    CHECK(!w.line[8]);
}

static void rtc_update_interrupts(void)
{
    unsigned causes;

    rtc_new(1700000000);
    w.now += 250000000;
    cmos_put(0x0b, 0x12);
    CHECK_EQ(w.wake_at, 750000000);
    rtc_pass(749999999);
    CHECK(!w.line[8]);
    rtc_pass(1);
    CHECK(w.line[8]);
    CHECK(w.wake_at == UINT64_MAX);
    CHECK_EQ(cmos(0x0c), 0xd0); /* with the flag of the periodic one, which is not enabled */
    CHECK(!w.line[8]);
    CHECK_EQ(rtc_interrupts(10, &causes), 10);
    CHECK_EQ(causes, 0xd0);
    cmos_put(0x0b, 0x92); /* SET ends them, for good */
    CHECK_EQ(cmos(0x0b), 0x82);
    CHECK_EQ(rtc_interrupts(3, &causes), 0);
    cmos_put(0x0b, 0x12);
    w.now -= 3600000000000; /* somebody puts the host's clock back: no update is due at once */
    pc_rtc_tick(&rtc);
    CHECK(!w.line[8]);
    CHECK_EQ(rtc_interrupts(2, &causes), 2);
    cmos_put(0x0a, 0x66);
    rtc_pass(100000000);
    cmos_put(0x0a, 0x26); /* 500 ms after the divider is let go */
    CHECK_EQ(w.wake_at, w.ns + 500000000);
}

/* Alarms of a second, a minute, an hour and a day, in each format. */
static void rtc_alarms(void)
{
    static const struct {
        uint8_t b, hour, min, sec; /* register B but for the enable bit; the alarm's registers */
        unsigned first, day;       /* seconds from 12:34:56 to the first; how many in a day */
    } t[] = {
        {0x02, 0x12, 0x34, 0x57, 1, 1},     {0x02, 0x12, 0x34, 0x56, 86400, 1},
        {0x02, 0x12, 0x34, 0x55, 86399, 1}, {0x06, 12, 35, 0, 4, 1},
        {0x02, 0xff, 0x35, 0x00, 4, 24},    {0x02, 0xff, 0xc0, 0x00, 4, 1440},
        {0x02, 0xff, 0xff, 0xff, 1, 86400}, {0x02, 0x13, 0xff, 0xff, 1504, 3600},
        {0x00, 0x92, 0x35, 0x10, 14, 1},    {0x00, 0x12, 0x35, 0x10, 43214, 1},
        {0x04, 0x81, 0x00, 0x00, 1504, 1},  {0x02, 0x24, 0x00, 0x00, 0, 0},
        {0x02, 0x12, 0x34, 0x7f, 0, 0},     {0x02, 0xff, 0x00, 0xff, 1504, 1440},
    };
    unsigned causes;

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        rtc_new(1709210096); /* 12:34:56 */
        cmos_put(0x0b, t[i].b);
        cmos_put(5, t[i].hour);
        cmos_put(3, t[i].min);
        cmos_put(1, t[i].sec);
        cmos_put(0x0b, t[i].b | 0x20);
        CHECK_EQ(w.wake_at, t[i].first ? t[i].first * 1000000000ull : UINT64_MAX);
        CHECK_EQ(rtc_interrupts(86400, &causes), t[i].day);
        CHECK_EQ(causes, t[i].day ? 0xf0 : 0);
        CHECK_EQ(w.edges[8], t[i].day);
    }
}

/* Seen from a register that is read now and then, the alarm is a flag; time that is set over it does
   not raise it. */
static void rtc_alarm_flag(void)
{
    rtc_new(1709210096);
    cmos_put(5, 0x12), cmos_put(3, 0x35), cmos_put(1, 0x00);
    CHECK(w.wake_at == UINT64_MAX);
    w.now += 3000000000;
    CHECK_EQ(cmos(0x0c), 0x10);
    w.now += 1000000000;
    CHECK_EQ(cmos(0x0c), 0x30);
    w.now += 86400000000000;
    CHECK_EQ(cmos(0x0c), 0x30);
    cmos_put(2, 0x33);
    cmos_put(2, 0x36);
    CHECK_EQ(cmos(0x0c), 0x00);
    cmos_put(0x0b, 0x22);
    cmos_put(2, 0x34); /* 12:34:00 */
    CHECK_EQ(w.wake_at, 60000000000);
}

static void rtc_memory_sizes(void)
{
    static const uint64_t gib = 1 << 30;
    static const struct {
        uint64_t low, high;
        unsigned base, ext, ext16, above;
    } t[] = {
        {0, 0, 0, 0, 0, 0},
        {512 << 10, 0, 512, 0, 0, 0},
        {1 << 20, 0, 640, 0, 0, 0},
        {16 << 20, 0, 640, 15360, 0, 0},
        {128 << 20, 0, 640, 65535, 1792, 0},
        {(uint64_t)3 << 30, (uint64_t)5 << 30, 640, 65535, 0xbf00, 0x14000},
        {(uint64_t)4 << 30, (uint64_t)1 << 50, 640, 65535, 0xff00, 0xffffff},
    };

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct pc_rtc_desc desc = {.ram_low = t[i].low, .ram_high = t[i].high, .ncpus = i * 100};
        pc_rtc_init(&rtc, &desc);
        CHECK_EQ(cmos(0x15) | cmos(0x16) << 8, t[i].base);
        CHECK_EQ(cmos(0x17) | cmos(0x18) << 8, t[i].ext);
        CHECK_EQ(cmos(0x30) | cmos(0x31) << 8, t[i].ext);
        CHECK_EQ(cmos(0x34) | cmos(0x35) << 8, t[i].ext16);
        CHECK_EQ(cmos(0x5b) | cmos(0x5c) << 8 | cmos(0x5d) << 16, t[i].above);
        CHECK_EQ(cmos(9), 0x70); /* no clock: 1970 */
        CHECK_EQ(cmos(0x14), 0x02);
        CHECK_EQ(cmos(0x3d), 0x02);
        CHECK_EQ(cmos(0x5f), i == 0 ? 0 : i < 3 ? i * 100 - 1 : 255);
    }
    CHECK_EQ(t[5].high, 5 * gib);
}

/* >>debug >>power */
static void debug_ports(void)
{
    struct pc_debugexit quit = {note_exit, &w};
    struct pc_debugcon con = {{take, NULL, &w}};
    struct pc_debugexit deaf = {NULL, NULL};
    struct pc_debugcon mute = {{NULL, NULL, NULL}};

    memset(&w, 0, sizeof w);
    w.room = 3;
    CHECK_EQ(pc_debugexit_read(&quit, 0, 1), 0xff);
    pc_debugexit_write(&quit, 1, 1, 9);
    CHECK_EQ(w.exits, 0);
    pc_debugexit_write(&quit, 0, 4, 0x12345640);
    CHECK(w.exits == 1 && w.status == 0x40);
    pc_debugexit_write(&deaf, 0, 1, 0);
    CHECK_EQ(pc_debugcon_read(&con, 0, 1), 0xe9);
    CHECK_EQ(pc_debugcon_read(&con, 0, 2), 0xffe9);
    CHECK_EQ(pc_debugcon_read(&con, 0x18, 4), 0);
    pc_debugcon_write(&con, 0, 1, 'o');
    pc_debugcon_write(&con, 0, 4, 0x100 | 'k');
    pc_debugcon_write(&con, 4, 1, '!');
    CHECK(w.nout == 2 && !memcmp(w.out, "ok", 2));
    pc_debugcon_write(&mute, 0, 1, 'x');
}

static void power_registers(void)
{
    struct pc_power p = {count_off, count_reset, &w, 0};
    struct pc_power deaf = {NULL, NULL, NULL, 0};

    memset(&w, 0, sizeof w);
    for (unsigned val = 0; val < 256; val++)
        pc_power_sleep_write(&p, 0, 1, val);
    CHECK_EQ(w.offs, 256 / 16); /* type 5 and enable: four bits decide */
    pc_power_sleep_write(&p, 1, 1, 0x34);
    CHECK_EQ(w.offs, 16);
    pc_power_sleep_write(&p, 0, 2, 0x8034);
    CHECK_EQ(w.offs, 17);
    CHECK_EQ(pc_power_sleep_read(&p, 0, 2), 0);
    pc_power_reset_write(&p, 0, 1, 0x02);
    CHECK_EQ(pc_power_reset_read(&p, 0, 1), 0x02);
    CHECK_EQ(w.resets, 0);
    pc_power_reset_write(&p, 0, 1, 0x06);
    CHECK_EQ(w.resets, 1);
    pc_power_reset_write(&p, 0, 1, 0x0e);
    CHECK_EQ(w.resets, 1); /* bit 2 did not rise */
    pc_power_reset_write(&p, 0, 1, 0x00);
    pc_power_reset_write(&p, 1, 1, 0x04);
    CHECK_EQ(w.resets, 1);
    pc_power_reset_write(&p, 0, 1, 0x04);
    CHECK_EQ(w.resets, 2);
    CHECK_EQ(pc_power_reset_read(&p, 0, 2), 0xff04);
    CHECK_EQ(pc_power_reset_read(&p, 1, 1), 0xff);
    pc_power_sleep_write(&deaf, 0, 1, 0x34);
    pc_power_reset_write(&deaf, 0, 1, 0x04);
}

static void note_panic(void *ctx, enum pc_panic what)
{
    ((struct world *)ctx)->status = (uint8_t)(((struct world *)ctx)->status << 4 | what);
}

static void pvpanic_port(void)
{
    struct pc_pvpanic p = {note_panic, &w}, deaf = {NULL, NULL};
    static const struct {
        uint8_t off, len, val, status;
    } t[] = {{0, 1, 1, 1}, {0, 1, 2, 2}, {0, 1, 3, 1}, {0, 1, 0xfc, 0}, {1, 1, 1, 0}, {0, 4, 2, 2}};

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        memset(&w, 0, sizeof w);
        pc_pvpanic_write(&p, t[i].off, t[i].len, t[i].val);
        CHECK_EQ(w.status, t[i].status);
    }
    pc_pvpanic_write(&deaf, 0, 1, 1);
    CHECK_EQ(pc_pvpanic_read(&p, 0, 1), 3);
    CHECK_EQ(pc_pvpanic_read(&p, 0, 2), 0xff03);
    CHECK_EQ(pc_pvpanic_read(&p, 1, 1), 0xff);
}

static struct pc_pm pm;

static void pm_start(uint64_t ns)
{
    struct pc_pm_desc desc = {{set_line, &w, 9}, {tell_ns, note_wake, &w}, count_off, &w};

    memset(&w, 0, sizeof w);
    w.ns = ns;
    w.wake_at = UINT64_MAX;
    pc_pm_init(&pm, &desc);
}

/* ACPI 4.8.3: status is cleared by ones and alone by them, enable has the bits of what there is,
   control is in ACPI's mode for ever, and what is only written reads 0. */
static void pm_registers(void)
{
    static const struct {
        unsigned off, len;
        uint64_t put, get;
    } cases[] = {
        {0, 2, 0xffff, 0},
        {2, 2, 0xffff, 0x0521},
        {2, 1, 0x00, 0x00},
        {2, 2, 0x0000, 0},
        {3, 1, 0x05, 0x05},
        {2, 2, 0x0100, 0x0100},
        {4, 2, 0x0000, 1},
        {4, 2, 0x1c02, 0x1c03},
        {4, 2, 0xc3f8, 0x0001},
        {5, 1, 0x14, 0x14},
        {4, 1, 0x02, 0x03},
        {6, 2, 0xffff, 0},
        {0, 4, 0x0020ffff, 0x200000},
        {2, 4, 0x14000001, 0x14010001},
        {12, 4, 1, 0},
    };

    pm_start(0);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pc_pm_write(&pm, cases[i].off, cases[i].len, cases[i].put);
        CHECK_EQ(pc_pm_read(&pm, cases[i].off, cases[i].len), cases[i].get);
    }
    CHECK_EQ(w.offs, 0);
}

static void pm_sleep(void)
{
    static const struct {
        unsigned off, len;
        uint32_t val;
        bool off_then;
    } cases[] = {
        {4, 2, 0x2000, true},     {4, 2, 0x2001, true},  {5, 1, 0x20, true},
        {4, 4, 0x2000, true},     {4, 2, 0x2400, false}, {4, 2, 0x3c01, false},
        {4, 2, 0x1c00, false},    {4, 1, 0x20, false},   {2, 2, 0x2000, false},
        {2, 4, 0x20000000, true}, {0, 2, 0x2000, false},
    };

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pm_start(0);
        pc_pm_write(&pm, cases[i].off, cases[i].len, cases[i].val);
        CHECK_EQ(w.offs, cases[i].off_then);
    }
}

/* 3579545 Hz, 32 bits, read at once; each change of bit 31 sets its status, and interrupts. */
static void pm_timer(void)
{
    const uint64_t half = 599932015941; /* ns until the clock is at 2^31 */

    pm_start(5000000000);
    CHECK_EQ(pc_pm_read(&pm, 8, 4), 5 * 3579545);
    CHECK_EQ(pc_pm_read(&pm, 9, 2), 5 * 3579545 >> 8 & 0xffff);
    pc_pm_write(&pm, 8, 4, 0);
    CHECK_EQ(pc_pm_read(&pm, 8, 8), 5 * 3579545);
    CHECK(w.wake_at == UINT64_MAX);
    pc_pm_write(&pm, 2, 2, 1);
    CHECK_EQ(w.wake_at, half);
    w.ns = half - 1;
    CHECK_EQ(pc_pm_read(&pm, 8, 4), 0x7fffffff);
    pc_pm_tick(&pm);
    CHECK(!w.line[9] && pc_pm_read(&pm, 0, 2) == 0);
    w.ns = half;
    pc_pm_tick(&pm);
    CHECK_EQ(pc_pm_read(&pm, 8, 4), 0x80000000);
    CHECK(w.line[9] && pc_pm_read(&pm, 0, 2) == 1);
    CHECK(w.wake_at == UINT64_MAX); /* there is no second interrupt before this one is cleared */
    pc_pm_write(&pm, 0, 2, 1);
    CHECK(!w.line[9] && w.edges[9] == 1);
    CHECK(w.wake_at >= 2 * half - 1 && w.wake_at <= 2 * half);
    w.ns = w.wake_at;
    CHECK_EQ(pc_pm_read(&pm, 8, 4), 0);
    pc_pm_tick(&pm);
    CHECK(w.line[9]);
    pc_pm_write(&pm, 2, 2, 0);
    CHECK(!w.line[9] && w.wake_at == UINT64_MAX);
}

static void pm_button(void)
{
    pm_start(0);
    pc_pm_button(&pm);
    CHECK(!w.line[9]);
    CHECK_EQ(pc_pm_read(&pm, 0, 2), 0x100);
    pc_pm_write(&pm, 2, 2, 0x100); /* a press that came before is not lost */
    CHECK(w.line[9]);
    pc_pm_write(&pm, 0, 1, 0xff);
    CHECK(w.line[9]);
    pc_pm_write(&pm, 1, 1, 0x01);
    CHECK(!w.line[9]);
    pc_pm_button(&pm);
    CHECK(w.line[9] && w.edges[9] == 2);
}

int main(void)
{
    static void (*const tests[])(void) = {uart_reset_values,
                                          uart_registers_hold,
                                          uart_sends,
                                          uart_holds_back,
                                          uart_holds_one_without_fifo,
                                          uart_receives,
                                          uart_refills_on_the_spot,
                                          uart_waits_for_the_guest,
                                          uart_interrupts,
                                          uart_line_and_modem,
                                          uart_line_follows,
                                          uart_trigger_levels,
                                          uart_out2_gates,
                                          uart_loops_modem_lines,
                                          uart_linux_autoconfig,
                                          uart_linux_startup,
                                          uart_interrupt_driven,
                                          uart_wide_accesses,
                                          uart_without_callbacks,
                                          kbc_controller_commands,
                                          kbc_status,
                                          kbc_keyboard,
                                          kbc_interrupts,
                                          kbc_linux_aux_probe,
                                          kbc_keys,
                                          kbc_keys_wait,
                                          kbc_types,
                                          kbc_mouse_commands,
                                          kbc_mouse_moves,
                                          kbc_resets,
                                          kbc_floods_and_widths,
                                          rtc_tells_time,
                                          rtc_is_set,
                                          rtc_stops,
                                          rtc_formats,
                                          rtc_nonsense,
                                          rtc_registers,
                                          rtc_periodic,
                                          rtc_catches_up,
                                          rtc_update_interrupts,
                                          rtc_alarms,
                                          rtc_alarm_flag,
                                          rtc_memory_sizes,
                                          debug_ports,
                                          power_registers,
                                          pvpanic_port,
                                          pm_registers,
                                          pm_sleep,
                                          pm_timer,
                                          pm_button};

    for (unsigned i = 0; i < sizeof tests / sizeof tests[0]; i++)
        tests[i]();
    CHECK_DONE("test_legacy");
}
