/* test_primecell.c - PL011, PL031 and PL061 of dev_legacy.h, by ARM's manuals   MIT licence, see LICENSE

   Offsets, bits and levels are written out here once more from DDI0183, DDI0224 and DDI0190. */
#define DEV_LEGACY_IMPLEMENTATION
#include "../dev_legacy.h"
#include "check.h"

static struct {
    unsigned rises;
    bool level;
} line;

static void set_line(void *ctx, unsigned n, bool level)
{
    (void)ctx;
    CHECK_EQ(n, 5);
    CHECK(level != line.level); /* it is told of changes only */
    line.rises += level;
    line.level = level;
}

static const struct vmm_irq irq = {set_line, NULL, 5};

static char sent[256];
static size_t nsent, room;

static size_t put(void *ctx, const void *buf, size_t len)
{
    (void)ctx;
    if (len > room)
        len = room;
    memcpy(sent + nsent, buf, len);
    nsent += len;
    room -= len;
    return len;
}

static unsigned rooms;

static void rx_room(void *ctx)
{
    (void)ctx;
    rooms++;
}

/* >>pl011 */
enum {
    DR = 0,
    RSR = 4,
    FR = 0x18,
    ILPR = 0x20,
    IBRD = 0x24,
    FBRD = 0x28,
    LCR_H = 0x2c,
    CR = 0x30,
    IFLS = 0x34,
    IMSC = 0x38,
    RIS = 0x3c,
    MIS = 0x40,
    ICR = 0x44,
    DMACR = 0x48
};
enum { CTS = 1, DSR = 2, DCD = 4, BUSY = 8, RXFE = 16, TXFF = 32, RXFF = 64, TXFE = 128, RI = 256 };
enum { RIIM = 1, CTSIM = 2, DCDIM = 4, DSRIM = 8, RXIM = 16, TXIM = 32, RTIM = 64, OEIM = 0x400 };

static struct pc_pl011 u;

static uint32_t get(unsigned off)
{
    return (uint32_t)pc_pl011_read(&u, off, 4);
}

static void set(unsigned off, uint32_t val)
{
    pc_pl011_write(&u, off, 4, val);
}

/* 115200 8N1 with FIFOs, as Linux sets it up, and its interrupts. */
static void start(void)
{
    struct pc_pl011_desc d = {irq, {put, rx_room, NULL}, NULL};

    line.rises = 0;
    line.level = false;
    nsent = rooms = 0;
    room = sizeof sent;
    pc_pl011_init(&u, &d);
    set(IBRD, 13);
    set(FBRD, 1);
    set(LCR_H, 0x70);
    set(CR, 0x301);
    set(IMSC, RXIM | RTIM);
}

static void test_pl011_registers(void)
{
    static const struct {
        unsigned off;
        uint32_t reset, writable;
    } regs[] = {
        {RSR, 0, 0},         {FR, CTS | DSR | DCD | RXFE | TXFE, 0},
        {ILPR, 0, 0xff},     {IBRD, 13, 0xffff},
        {FBRD, 1, 0x3f},     {LCR_H, 0x70, 0xff},
        {CR, 0x301, 0xff87}, {IFLS, 0x12, 0x3f},
        {IMSC, 0, 0x7ff},    {RIS, 0, 0},
        {MIS, 0, 0},         {ICR, 0, 0},
        {DMACR, 0, 7},       {0x4c, 0, 0},
        {0xfdc, 0, 0},       {0xfe0, 0x11, 0},
        {0xfe4, 0x10, 0},    {0xfe8, 0x34, 0},
        {0xfec, 0, 0},       {0xff0, 0x0d, 0},
        {0xff4, 0xf0, 0},    {0xff8, 5, 0},
        {0xffc, 0xb1, 0},
    };
    struct pc_pl011_desc d = {0};

    for (unsigned i = 0; i < sizeof regs / sizeof regs[0]; i++) {
        pc_pl011_init(&u, &d);
        if (!CHECK_EQ(get(regs[i].off), regs[i].reset))
            fprintf(stderr, "  register 0x%x\n", regs[i].off);
        if (!regs[i].writable)
            continue;
        set(regs[i].off, 0xffffffff);
        CHECK_EQ(get(regs[i].off), regs[i].writable);
        set(regs[i].off, 0);
        CHECK_EQ(get(regs[i].off), 0);
    }
    pc_pl011_init(&u, &d);
    set(IBRD, 0x1234);
    CHECK_EQ(pc_pl011_read(&u, IBRD, 1), 0x34);
    CHECK_EQ(pc_pl011_read(&u, IBRD + 1, 1), 0x12);
    CHECK_EQ(pc_pl011_read(&u, IBRD, 2), 0x1234);
    CHECK_EQ(pc_pl011_read(&u, IBRD + 2, 2), 0);
    CHECK_EQ(pc_pl011_read(&u, IBRD, 8), 0x1234);
    pc_pl011_write(&u, IBRD, 1, 0x56);
    CHECK_EQ(get(IBRD), 0x56);
    pc_pl011_write(&u, IBRD + 1, 1, 0x77); /* no byte lanes */
    CHECK_EQ(get(IBRD), 0x56);
    pc_pl011_write(&u, IBRD, 2, 0x8765);
    CHECK_EQ(get(IBRD), 0x8765);
}

static void test_pl011_output(void)
{
    start();
    for (const char *s = "hello"; *s; s++)
        pc_pl011_write(&u, DR, 1, (uint8_t)*s);
    CHECK(nsent == 5 && !memcmp(sent, "hello", 5));
    CHECK_EQ(get(FR) & (TXFE | BUSY | TXFF), TXFE);
    CHECK_EQ(get(RIS), TXIM);
    CHECK(!line.level);
    set(IMSC, TXIM);
    CHECK(line.level);
    CHECK_EQ(get(MIS), TXIM);
    set(ICR, TXIM);
    CHECK(!line.level);
    room = 0; /* the host does not take any more */
    for (unsigned i = 0; i < 32; i++) {
        CHECK_EQ(get(FR) & TXFF, 0);
        set(DR, 'a' + i);
    }
    CHECK_EQ(get(FR) & (TXFE | BUSY | TXFF), BUSY | TXFF);
    CHECK_EQ(get(RIS) & TXIM, 0);
    set(DR, '!'); /* lost */
    room = 15;
    pc_pl011_tx_ready(&u); /* 17 are left: more than half of 32 */
    CHECK_EQ(get(RIS) & TXIM, 0);
    CHECK_EQ(get(FR) & (TXFE | BUSY | TXFF), BUSY);
    room = 1;
    pc_pl011_tx_ready(&u);
    CHECK_EQ(get(RIS) & TXIM, TXIM);
    CHECK(line.level);
    set(DR, 'x'); /* 17 again */
    CHECK(!line.level);
    room = 2;
    pc_pl011_tx_ready(&u);
    CHECK(line.level);
    set(DR, 'y'); /* just 16 */
    CHECK(line.level);
    room = 100;
    pc_pl011_tx_ready(&u);
    CHECK_EQ(nsent, 5 + 34);
    CHECK(!memcmp(sent + 5, "abcdefghijklmnopqrstuvwxyz{|}~\x7f\x80xy", 34));
    set(LCR_H, 0x60); /* without FIFOs there is room for one, and its leaving interrupts */
    set(ICR, 0x7ff);
    room = 0;
    set(DR, 'a');
    CHECK_EQ(get(FR) & (TXFE | BUSY | TXFF), BUSY | TXFF);
    CHECK(!line.level);
    room = 1;
    pc_pl011_tx_ready(&u);
    CHECK(line.level);
}

/* What is written while the transmitter is off waits. */
static void test_pl011_disabled(void)
{
    start();
    set(CR, 0x300);
    set(DR, 'a');
    CHECK_EQ(nsent, 0);
    CHECK_EQ(get(FR) & (TXFE | BUSY), 0);
    set(CR, 0x201);
    CHECK_EQ(nsent, 0);
    CHECK_EQ(pc_pl011_rx(&u, "a", 1), 1);
    set(CR, 0x101);
    CHECK_EQ(nsent, 1);
    CHECK_EQ(pc_pl011_rx(&u, "b", 1), 0);
}

static void test_pl011_input(void)
{
    static const struct {
        unsigned ifls, bytes; /* eighths of 32 */
    } levels[] = {{0, 4}, {1, 8}, {2, 16}, {3, 24}, {4, 28}};
    char buf[40];

    memset(buf, 'x', sizeof buf);
    for (unsigned i = 0; i < 5; i++) {
        start();
        set(IFLS, levels[i].ifls << 3);
        set(IMSC, RXIM);
        CHECK_EQ(pc_pl011_rx(&u, buf, levels[i].bytes - 1), levels[i].bytes - 1);
        CHECK_EQ(get(RIS), RTIM);
        CHECK(!line.level);
        CHECK_EQ(pc_pl011_rx(&u, buf, 1), 1);
        CHECK_EQ(get(RIS), RTIM | RXIM);
        CHECK(line.level);
        CHECK_EQ(pc_pl011_rx(&u, buf, 1), 1);
        CHECK_EQ(get(DR), 'x');
        CHECK(line.level); /* as many as the level */
        CHECK_EQ(get(DR), 'x');
        CHECK(!line.level); /* below the level again */
        for (unsigned k = 2; k < levels[i].bytes; k++)
            get(DR);
        CHECK_EQ(get(RIS), RTIM);
        get(DR);
        CHECK_EQ(get(RIS), 0);
    }
    start();
    CHECK_EQ(get(FR) & (RXFE | RXFF), RXFE);
    CHECK_EQ(pc_pl011_rx(&u, buf, 40), 32);
    CHECK_EQ(get(FR) & (RXFE | RXFF), RXFF);
    set(ICR, RTIM | RXIM); /* cleared, though bytes are there, until more come */
    CHECK(!line.level);
    for (unsigned i = 0; i < 31; i++)
        get(DR);
    CHECK_EQ(rooms, 0);
    CHECK_EQ(get(DR), 'x');
    CHECK_EQ(rooms, 1);
    CHECK_EQ(get(DR), 0);
    set(LCR_H, 0x60); /* without FIFOs each byte interrupts */
    CHECK_EQ(pc_pl011_rx(&u, "ab", 2), 1);
    CHECK_EQ(get(RIS) & RXIM, RXIM);
    CHECK_EQ(get(FR) & RXFF, RXFF);
    set(LCR_H, 0x70);
    CHECK_EQ(get(FR) & RXFE, RXFE);
    CHECK_EQ(get(RIS), 0);
}

/* Input waits for a guest that wants it: what Linux does until its tty is open takes none. */
static void test_pl011_listens(void)
{
    struct pc_pl011_desc d = {irq, {put, rx_room, NULL}, NULL};

    line.level = false;
    room = sizeof sent;
    nsent = rooms = 0;
    pc_pl011_init(&u, &d);
    for (unsigned i = 0; i < 50; i++) { /* printk */
        get(FR);
        set(DR, 'a');
        get(FR);
    }
    CHECK_EQ(pc_pl011_rx(&u, "ls\n", 3), 0);
    set(IMSC, RXIM | RTIM); /* Linux's pl011_hwinit, then pl011_startup */
    set(IMSC, 0);
    get(FR);
    CHECK_EQ(rooms, 0);
    set(CR, 0x701); /* DTR */
    set(IMSC, RXIM | RTIM);
    CHECK_EQ(pc_pl011_rx(&u, "ls\n", 3), 0);
    CHECK_EQ(rooms, 0);
    set(CR, 0xf01); /* RTS */
    CHECK_EQ(rooms, 1);
    CHECK_EQ(pc_pl011_rx(&u, "ls\n", 3), 3);
    set(CR, 0x701);
    CHECK_EQ(pc_pl011_rx(&u, "ls\n", 3), 0);

    pc_pl011_init(&u, &d); /* a guest that polls */
    CHECK_EQ(pc_pl011_rx(&u, "x", 1), 0);
    rooms = 0;
    for (unsigned i = 0; i < 63; i++)
        CHECK_EQ(get(FR) & RXFE, RXFE);
    CHECK_EQ(rooms, 0);
    get(FR);
    CHECK_EQ(rooms, 1);
    CHECK_EQ(pc_pl011_rx(&u, "x", 1), 1);
    CHECK_EQ(get(DR), 'x');
    pc_pl011_init(&u, &d); /* one that waits for interrupts */
    CHECK_EQ(pc_pl011_rx(&u, "x", 1), 0);
    rooms = 0;
    set(IMSC, RXIM);
    set(ICR, 0x7ff);
    CHECK_EQ(rooms, 1);
    CHECK_EQ(pc_pl011_rx(&u, "x", 1), 1);
    line.level = false;
    pc_pl011_init(&u, &d); /* one that just reads */
    get(DR);
    CHECK_EQ(pc_pl011_rx(&u, "x", 1), 1);
}

static void test_pl011_loopback(void)
{
    start();
    set(IMSC, 0x7ff);
    set(CR, 0x381);
    CHECK_EQ(get(FR) & (CTS | DSR | DCD | RI), 0);
    CHECK_EQ(get(RIS), CTSIM | DSRIM | DCDIM); /* all have changed */
    set(ICR, 0x7ff);
    CHECK(!line.level);
    set(CR, 0x2381);
    CHECK_EQ(get(RIS), RIIM);
    set(CR, 0x3f81);
    CHECK_EQ(get(FR) & (CTS | DSR | DCD | RI), CTS | DSR | DCD | RI);
    set(ICR, 0x7ff);
    CHECK_EQ(pc_pl011_rx(&u, "x", 1), 0);
    for (unsigned i = 0; i < 33; i++) /* the last overruns */
        set(DR, 'a' + i);
    CHECK_EQ(nsent, 0);
    CHECK_EQ(get(RIS) & OEIM, OEIM);
    CHECK_EQ(get(RSR), 8);
    set(RSR, 0);
    CHECK_EQ(get(RSR), 0);
    for (unsigned i = 0; i < 32; i++)
        CHECK_EQ(get(DR), 'a' + i);
    set(DR, 'z'); /* the first that comes in after an overrun says so */
    CHECK_EQ(get(DR), 0x800 | 'z');
    set(DR, 'z');
    CHECK_EQ(get(DR), 'z');
}

/* >>pl031 */
enum { MR = 4, LR = 8, CTL = 0xc, MASK = 0x10, RAW = 0x14, MASKED = 0x18, CLEAR = 0x1c };

static struct pc_pl031 rtc;
static int64_t wall;
static uint64_t mono, wake_at;

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

#define SECOND 1000000000ll

static void pass(int64_t ns)
{
    wall += ns;
    mono += (uint64_t)ns;
}

static uint32_t rget(unsigned off)
{
    return (uint32_t)pc_pl031_read(&rtc, off, 4);
}

static void rset(unsigned off, uint32_t val)
{
    pc_pl031_write(&rtc, off, 4, val);
}

static void test_pl031(void)
{
    struct pc_pl031_desc d = {irq, wall_now, NULL, {mono_now, wake, NULL}};
    static const uint8_t id[] = {0x31, 0x10, 4, 0, 0x0d, 0xf0, 5, 0xb1};

    line.level = false;
    wall = 1700000000 * SECOND + 250000000;
    mono = 5000;
    wake_at = UINT64_MAX;
    pc_pl031_init(&rtc, &d);
    for (unsigned i = 0; i < 8; i++)
        CHECK_EQ(rget(0xfe0 + 4 * i), id[i]);
    CHECK_EQ(rget(DR), 1700000000);
    CHECK_EQ(rget(CTL), 1);
    rset(CTL, 0);
    CHECK_EQ(rget(CTL), 1);
    rset(MR, 1700000003);
    CHECK_EQ(rget(MR), 1700000003);
    CHECK_EQ(wake_at, UINT64_MAX); /* nobody is to be told */
    rset(MASK, 1);
    CHECK_EQ(rget(MASK), 1);
    CHECK_EQ(wake_at, 5000 + 2750000000);
    pass(2749999999);
    pc_pl031_tick(&rtc); /* too early */
    CHECK(!line.level);
    CHECK_EQ(wake_at, mono + 1);
    pass(1);
    pc_pl031_tick(&rtc);
    CHECK(line.level);
    CHECK_EQ(rget(RAW), 1);
    CHECK_EQ(rget(MASKED), 1);
    CHECK_EQ(wake_at, UINT64_MAX);
    rset(CLEAR, 1);
    CHECK(!line.level);
    CHECK_EQ(rget(RAW), 0);
    CHECK_EQ(wake_at, mono + (1ull << 32) * SECOND); /* once around */
    rset(MASK, 0);
    CHECK_EQ(wake_at, UINT64_MAX);

    rset(LR, 100); /* the guest sets its clock */
    CHECK_EQ(rget(LR), 100);
    CHECK_EQ(rget(DR), 100);
    pass(10 * SECOND);
    CHECK_EQ(rget(DR), 110);
    rset(MR, 112);
    pass(5 * SECOND); /* it passes while masked */
    CHECK_EQ(rget(RAW), 1);
    CHECK_EQ(rget(MASKED), 0);
    CHECK(!line.level);
    rset(MASK, 1);
    CHECK(line.level);
    rset(CLEAR, 1);
    rset(MR, rget(DR)); /* at once */
    CHECK(line.level);
    rset(CLEAR, 1);
    rset(MR, 200);
    wall -= 50 * SECOND; /* the host sets its clock back: no alarm */
    pc_pl031_tick(&rtc);
    CHECK(!line.level);
    CHECK_EQ(rget(DR), 65);
    rset(LR, 200); /* set to the alarm's second */
    CHECK(line.level);
    rset(CLEAR, 1);
    rset(LR, 0xffffffff); /* around */
    rset(MR, 1);
    pass(2 * SECOND);
    pc_pl031_tick(&rtc);
    CHECK_EQ(rget(DR), 1);
    CHECK(line.level);
    CHECK_EQ(pc_pl031_read(&rtc, LR + 1, 1), 0xff);
}

/* >>pl061 */
enum {
    DIR = 0x400,
    IS = 0x404,
    IBE = 0x408,
    IEV = 0x40c,
    IE = 0x410,
    GRIS = 0x414,
    GMIS = 0x418,
    IC = 0x41c,
    AFSEL = 0x420
};

static struct pc_pl061 gpio;

static uint32_t gget(unsigned off)
{
    return (uint32_t)pc_pl061_read(&gpio, off, 4);
}

static void gset(unsigned off, uint32_t val)
{
    pc_pl061_write(&gpio, off, 4, val);
}

static void test_pl061_data(void)
{
    static const uint8_t id[] = {0x61, 0x10, 4, 0, 0x0d, 0xf0, 5, 0xb1};

    line.level = false;
    pc_pl061_init(&gpio, &irq);
    for (unsigned i = 0; i < 8; i++)
        CHECK_EQ(gget(0xfe0 + 4 * i), id[i]);
    for (unsigned off = DIR; off <= AFSEL; off += 4) {
        bool writable = off != GRIS && off != GMIS && off != IC;
        pc_pl061_init(&gpio, &irq);
        gset(off, 0x1a5);
        line.level = false;
        if (!CHECK_EQ(gget(off), writable ? 0xa5 : 0))
            fprintf(stderr, "  register 0x%x\n", off);
    }
    pc_pl061_init(&gpio, &irq);
    gset(DIR, 0xf0);
    gset(0xff << 2, 0xff); /* all lines, of which four are the guest's */
    CHECK_EQ(gget(0xff << 2), 0xf0);
    gset(0x30 << 2, 0); /* two of them */
    CHECK_EQ(gget(0xff << 2), 0xc0);
    CHECK_EQ(gget(0x4f << 2), 0x40);
    pc_pl061_set(&gpio, 3, true);
    pc_pl061_set(&gpio, 7, false); /* an output: the guest's level counts */
    CHECK_EQ(gget(0xff << 2), 0xc8);
    gset(DIR, 0);
    CHECK_EQ(gget(0xff << 2), 8);
    CHECK_EQ(pc_pl061_read(&gpio, 0xff << 2, 1), 8);
}

static void test_pl061_interrupts(void)
{
    static const struct {
        uint8_t is, ibe, iev;
        bool rise, fall; /* does it interrupt? */
    } edges[] = {{0, 0, 0, false, true},
                 {0, 0, 8, true, false},
                 {0, 8, 0, true, true},
                 {0, 8, 8, true, true}};

    for (unsigned i = 0; i < 4; i++) {
        line.level = false;
        pc_pl061_init(&gpio, &irq);
        gset(IBE, edges[i].ibe);
        gset(IEV, edges[i].iev);
        gset(IE, 8);
        pc_pl061_set(&gpio, 2, true); /* another line */
        CHECK(!line.level);
        gset(IC, 0xff);
        pc_pl061_set(&gpio, 3, true);
        CHECK_EQ(line.level, edges[i].rise);
        CHECK_EQ(gget(GMIS), edges[i].rise ? 8 : 0);
        gset(IC, 8);
        CHECK(!line.level);
        pc_pl061_set(&gpio, 3, false);
        CHECK_EQ(line.level, edges[i].fall);
        CHECK_EQ(gget(GRIS) & 8, edges[i].fall ? 8 : 0);
        gset(IE, 0);
        CHECK(!line.level);
        CHECK_EQ(gget(GRIS) & 8, edges[i].fall ? 8 : 0);
        gset(IE, 8);
        gset(IC, 8);
        CHECK(!line.level);
    }
    line.level = false;
    pc_pl061_init(&gpio, &irq); /* levels: nothing but the line itself clears them */
    gset(IS, 8);
    gset(IEV, 8);
    gset(IE, 8);
    pc_pl061_set(&gpio, 3, true);
    CHECK(line.level);
    gset(IC, 8);
    CHECK(line.level);
    pc_pl061_set(&gpio, 3, false);
    CHECK(!line.level);
    gset(IEV, 0); /* low */
    CHECK(line.level);
}

int main(void)
{
    test_pl011_registers();
    test_pl011_output();
    test_pl011_disabled();
    test_pl011_input();
    test_pl011_listens();
    test_pl011_loopback();
    test_pl031();
    test_pl061_data();
    test_pl061_interrupts();
    CHECK_DONE("test_primecell");
}
