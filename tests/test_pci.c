/* test_pci.c - a guest that walks dev_pci.h                        MIT licence, see LICENSE

   Every access goes over the two buses, as a guest's would. Numbers of registers are written out
   from the specification here once more, so that a mistake in the header does not cancel itself
   out. Locks are checked in every call-back. */
#define DEV_PCI_IMPLEMENTATION
#include "../dev_pci.h"

#include "check.h"

#define ECAM   0xe0000000ull
#define LOW    0xc0000000ull
#define HIGH   0x1000000000ull
#define LEN32  0x10000000ull
#define LEN64  0x1000000000ull
#define ABSENT 0xffffffffu

enum { COMMAND = 4, STATUS = 6, BAR0 = 0x10, CAPS = 0x34, MEMORY = 2, MASTER = 4, NO_INTX = 0x400 };
enum { NVECTORS = 70, TABLE = 0x1000, PBA = TABLE + 16 * NVECTORS };
enum { CARD, DISK, THIRD, NCARDS };

/* What the machine around the bus did. */
static struct {
    struct vmm_bus mmio, ports;
    struct pci_root root;
    struct pci_dev dev[NCARDS];
    struct pci_vector vector[NVECTORS];
    bool locked[NCARDS], root_locked; /* who holds which lock */
    bool line[4];
    unsigned reset_writes, resets, moves, changes;
    uint64_t at[NCARDS][6]; /* as `moved` told */
    unsigned nmsi, msi_vector;
    uint64_t msi_addr;
    uint32_t msi_data;
    uint64_t off, val; /* the last access to a BAR of CARD */
    unsigned len, lines;
    unsigned side_effects; /* on CARD's own capability */
    bool meddle;           /* another device pulls the line while it is being let go */
} m;

static void enter(void *ctx)
{
    CHECK(!*(bool *)ctx);
    *(bool *)ctx = true;
}

static void leave(void *ctx)
{
    CHECK(*(bool *)ctx);
    *(bool *)ctx = false;
}

/* The root's lock comes before those of devices. */
static void enter_root(void *ctx)
{
    for (unsigned i = 0; i < NCARDS; i++)
        CHECK(!m.locked[i]);
    enter(ctx);
}

static void on_irq(void *ctx, unsigned line, bool level)
{
    (void)ctx;
    if (m.meddle && !level) {
        m.meddle = false;
        pci_intx_set(&m.dev[THIRD], true);
    }
    m.line[line - 16] = level;
}

static void on_msi(void *ctx, unsigned vector, uint64_t addr, uint32_t data)
{
    CHECK(m.locked[(struct pci_dev *)ctx - m.dev]);
    m.nmsi++;
    m.msi_vector = vector;
    m.msi_addr = addr;
    m.msi_data = data;
}

static void on_moved(void *ctx, unsigned bar, uint64_t gpa)
{
    CHECK(m.root_locked && m.locked[(struct pci_dev *)ctx - m.dev]);
    m.at[(struct pci_dev *)ctx - m.dev][bar] = gpa;
    m.moves++;
}

static void on_changed(void *ctx, unsigned vector)
{
    CHECK(m.locked[(struct pci_dev *)ctx - m.dev] && vector < NVECTORS);
    m.changes++;
}

static void on_reset(void *ctx)
{
    CHECK(m.root_locked && m.locked[(struct pci_dev *)ctx - m.dev]);
    CHECK_EQ(vmm_get16(((struct pci_dev *)ctx)->config + COMMAND), 0);
    m.resets++;
}

static uint64_t bar_read(void *ctx, uint64_t off, unsigned len)
{
    CHECK(m.locked[(struct pci_dev *)ctx - m.dev] && !m.root_locked);
    m.off = off;
    m.len = len;
    return 0x1122334455667788;
}

static void bar_write(void *ctx, uint64_t off, unsigned len, uint64_t val)
{
    CHECK(m.locked[(struct pci_dev *)ctx - m.dev] && !m.root_locked);
    m.off = off;
    m.len = len;
    m.val = val;
}

/* CARD's last dword of the header's space, and one of its extended space, have side effects. */
static bool config_read(void *ctx, unsigned off, unsigned len, uint32_t *val)
{
    CHECK(m.locked[(struct pci_dev *)ctx - m.dev] && off % 4 + len <= 4);
    *val = 0xdead0000 + off;
    return (off & ~3u) == 0xfc || (off & ~3u) == 0x100;
}

static bool config_write(void *ctx, unsigned off, unsigned len, uint32_t val)
{
    CHECK(m.locked[(struct pci_dev *)ctx - m.dev] && off % 4 + len <= 4);
    CHECK(len == 4 || !(val >> 8 * len));
    if ((off & ~3u) != 0xfc)
        return false;
    m.side_effects++;
    m.val = val;
    return true;
}

static void on_line(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    char text[256];

    (void)ctx;
    CHECK_EQ(level, VMM_LOG_ERROR);
    CHECK(vsnprintf(text, sizeof text, fmt, args) < (int)sizeof text);
    m.lines++;
}

static const struct vmm_log the_log = {on_line, NULL, VMM_LOG_DEBUG};

static uint64_t reset_read(void *dev, uint64_t off, unsigned len)
{
    (void)dev;
    CHECK(off == 0 && len == 1);
    return 0x5a;
}

static void reset_write(void *dev, uint64_t off, unsigned len, uint64_t val)
{
    (void)dev;
    CHECK(off == 0 && len == 1 && val == 6);
    m.reset_writes++;
}

/* CARD: a 32-bit BAR 0, a 64-bit BAR 2 with MSI-X, INTx. DISK: MSI, a 64-bit BAR 4. THIRD: INTx
   only, on the line that CARD has. */
static struct pci_desc desc_of(unsigned card)
{
    struct pci_desc d = {.vendor = 0x1af4,
                         .device = (uint16_t)(0x1000 + card),
                         .subvendor = 0xabcd,
                         .subdevice = 0xef01,
                         .class_code = 0x018002,
                         .revision = 7,
                         .moved = on_moved,
                         .msix_changed = on_changed,
                         .reset = on_reset,
                         .ctx = &m.dev[card],
                         .log = &the_log};

    d.lock = (struct vmm_lock){enter, leave, &m.locked[card]};
    d.msi = (struct vmm_msi){on_msi, &m.dev[card]};
    d.intx = card != DISK;
    if (card == CARD) {
        d.bar[0] = (struct pci_bar){.len = 4096, .read = bar_read, .write = bar_write};
        d.bar[2] = (struct pci_bar){.len = 16384, .is64 = true, .prefetch = true};
        d.bar[2].read = bar_read;
        d.msix = (struct pci_msix_desc){NVECTORS, m.vector, 2, 2, TABLE, PBA};
        d.config_read = config_read;
        d.config_write = config_write;
    } else if (card == DISK) {
        d.bar[4] = (struct pci_bar){.len = 1 << 20, .is64 = true};
        d.nmsi = 4;
    } else {
        d.slot = 5; /* its INTA# shares the line of slot 1 */
    }
    return d;
}

static void machine(void)
{
    struct pci_root_desc root = {.ecam = ECAM, .mmio32 = {LOW, LEN32}, .mmio64 = {HIGH, LEN64}};
    static const uint8_t body[] = {6, 0x11, 0x22, 0x33, 0x44, 0x55};
    static const uint8_t mask[] = {0, 0, 0xff, 0x0f, 0, 0};

    memset(&m, 0, sizeof m);
    root.lock = (struct vmm_lock){enter_root, leave, &m.root_locked};
    root.reset_port.read = reset_read;
    root.reset_port.write = reset_write;
    root.log = &the_log;
    for (unsigned i = 0; i < 4; i++)
        root.intx[i] = (struct vmm_irq){on_irq, NULL, 16 + i};
    pci_root_init(&m.root, &root);
    for (unsigned i = 0; i < NCARDS; i++) {
        struct pci_desc desc = desc_of(i);
        CHECK_EQ(pci_init(&m.dev[i], &desc), 0);
        if (i == CARD)
            CHECK_EQ(pci_add_cap(&m.dev[i], 9, body, sizeof body, mask), 0x4c);
        CHECK_EQ(pci_plug(&m.root, &m.dev[i]), 0);
    }
    CHECK_EQ(pci_root_add_io(&m.root, &m.mmio, &m.ports), 0);
}

static uint64_t rd(uint64_t gpa, unsigned len)
{
    uint64_t val = 0;

    CHECK(vmm_bus_access(&m.mmio, gpa, len, false, &val));
    return val;
}

static void wr(uint64_t gpa, unsigned len, uint64_t val)
{
    CHECK(vmm_bus_access(&m.mmio, gpa, len, true, &val));
}

static uint64_t in(uint64_t port, unsigned len)
{
    uint64_t val = 0;

    CHECK(vmm_bus_access(&m.ports, port, len, false, &val));
    return val;
}

static void out(uint64_t port, unsigned len, uint64_t val)
{
    CHECK(vmm_bus_access(&m.ports, port, len, true, &val));
}

static uint64_t cfg(unsigned slot, unsigned reg)
{
    return ECAM + (slot << 15) + reg;
}

static uint32_t conf1(unsigned bus, unsigned slot, unsigned function, unsigned reg, unsigned len)
{
    out(0xcf8, 4, 0x80000000 | bus << 16 | slot << 11 | function << 8 | (reg & 0xfc));
    return (uint32_t)in(0xcfc + (reg & 3), len);
}

/* The capability with this id in a device's list; 0: none. */
static unsigned find_cap(unsigned slot, unsigned id)
{
    unsigned at = (unsigned)rd(cfg(slot, CAPS), 1);

    for (unsigned n = 0; at && n < 48; n++, at = (unsigned)rd(cfg(slot, at + 1), 1))
        if (rd(cfg(slot, at), 1) == id)
            return at;
    return 0;
}

static void test_enumeration(void)
{
    static const uint32_t ids[PCI_SLOTS] = {0x0b1d1234, 0x10001af4, 0x10011af4, 0, 0, 0x10021af4};

    machine();
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        uint32_t id = ids[slot] ? ids[slot] : ABSENT;
        CHECK_EQ(rd(cfg(slot, 0), 4), id);
        CHECK_EQ(conf1(0, slot, 0, 0, 4), id);
        CHECK_EQ(conf1(1, slot, 0, 0, 4), ABSENT);
        for (unsigned function = 1; function < 8; function++) {
            CHECK_EQ(rd(cfg(slot, function << 12), 4), ABSENT);
            CHECK_EQ(conf1(0, slot, function, 0, 4), ABSENT);
        }
    }
    CHECK_EQ(rd(cfg(0, 8), 4), 0x06000000);
    CHECK_EQ(rd(cfg(0, CAPS), 1), 0);
    CHECK_EQ(rd(cfg(1, 8), 4), 0x01800207);
    CHECK_EQ(rd(cfg(1, 0x2c), 4), 0xef01abcd);
    CHECK_EQ(rd(cfg(1, STATUS), 2), 0x10);
    CHECK_EQ(rd(cfg(1, 0x3c), 2), 0x0100);
    CHECK_EQ(rd(cfg(2, 0x3c), 2), 0);
    CHECK_EQ(find_cap(1, 0x11), 0x40);
    CHECK_EQ(find_cap(1, 9), 0x4c);
    CHECK_EQ(find_cap(2, 5), 0x40);
    CHECK_EQ(find_cap(2, 0x11), 0);
}

/* Widths, lanes, odd offsets, what is reserved and what is outside. */
static void test_config_access(void)
{
    static const struct {
        unsigned reg, len;
        uint64_t want;
    } reads[] = {
        {0, 1, 0xf4},           {1, 2, 0x001a},
        {3, 1, 0x10},           {0, 8, 0x0010000010001af4}, /* ids, then command and status */
        {2, 4, 0x00001000},                                 /* across two dwords */
        {0x4c, 4, 0x11060009},  {0x50, 4, 0x55443322},
        {0x100 - 8, 4, 0},      {0xfc, 4, 0xdead00fc}, /* the device's own */
        {0xfe, 2, 0x00fe},      {0xfa, 4, 0x00fc0000}, /* half of it */
        {0x100, 4, 0xdead0100}, {0x104, 4, 0},         /* extended space: no capability */
        {0xffc, 4, 0},          {0xffe, 4, ABSENT},    /* leaves the function */
        {0xffd, 8, ~0ull},
    };

    machine();
    for (size_t i = 0; i < sizeof reads / sizeof reads[0]; i++)
        CHECK_EQ(rd(cfg(1, reads[i].reg), reads[i].len), reads[i].want);
    for (unsigned reg = 0; reg < 0x40; reg++)
        wr(cfg(0, reg), 1, 0xff); /* the bridge: nothing sticks but these */
    CHECK_EQ(rd(cfg(0, 0), 8), 0x000004060b1d1234);
    CHECK_EQ(rd(cfg(0, BAR0), 4), 0);
    CHECK_EQ(rd(cfg(0, 0x3c), 4), 0xff);
    wr(cfg(1, 0x4c), 8, ~0ull); /* only what the capability allows */
    CHECK_EQ(rd(cfg(1, 0x4c), 8), 0x55443fff11060009);
    wr(cfg(1, 0xfd), 2, 0x1234);
    wr(cfg(1, 0xfa), 4, 0x56780000);
    CHECK_EQ(m.side_effects, 2);
    CHECK_EQ(m.val, 0x5678);
    wr(cfg(1, 0xffe), 4, ~0ull);
    wr(cfg(1, 0x200), 4, ~0ull);
    wr(cfg(9, 0), 4, ~0ull);
    CHECK_EQ(m.side_effects, 2);
}

static void test_ports(void)
{
    machine();
    out(0xcf8, 4, 0xffffffff);
    CHECK_EQ(in(0xcf8, 4), 0x80fffffc);
    CHECK_EQ(in(0xcfc, 4), ABSENT); /* bus 255 */
    out(0xcf8, 4, 0x80000800);
    out(0xcf8, 2, 0); /* not an access to the address */
    out(0xcfb, 1, 1);
    CHECK_EQ(in(0xcf8, 4), 0x80000800);
    CHECK_EQ(in(0xcfc, 2), 0x1af4);
    CHECK_EQ(in(0xcfe, 2), 0x1000);
    CHECK_EQ(in(0xcff, 1), 0x10);
    CHECK_EQ(in(0xcfd, 4 - 2), 0x001a);
    CHECK_EQ(in(0xcfa, 4), ABSENT); /* half address, half data */
    CHECK_EQ(in(0xcfa, 2), 0xffff);
    CHECK_EQ(pci_port_read(&m.root, 5, 4), ABSENT); /* leaves the ports */
    out(0xcf8, 4, 0x80000804);
    out(0xcfc, 1, MASTER);
    CHECK_EQ(rd(cfg(1, COMMAND), 4), 0x00100004);
    out(0xcfe, 2, 0xffff); /* the status register has no bit to clear */
    CHECK_EQ(rd(cfg(1, COMMAND), 4), 0x00100004);
    out(0xcf8, 4, 0x00000800); /* not enabled */
    CHECK_EQ(in(0xcfc, 4), ABSENT);
    CHECK_EQ(in(0xcf9, 1), 0x5a);
    out(0xcf9, 1, 6);
    CHECK_EQ(m.reset_writes, 1);
    CHECK_EQ(in(0xcf8, 4), 0x00000800);
}

static void test_sizing(void)
{
    machine();
    CHECK_EQ(rd(cfg(1, BAR0), 4), LOW);
    CHECK_EQ(rd(cfg(1, BAR0 + 8), 8), HIGH | 0xc);
    CHECK_EQ(rd(cfg(2, BAR0 + 16), 8), (HIGH + 0x100000) | 4);
    wr(cfg(1, BAR0), 4, ABSENT);
    wr(cfg(1, BAR0 + 4), 4, ABSENT);
    wr(cfg(1, BAR0 + 8), 4, ABSENT);
    wr(cfg(1, BAR0 + 12), 4, ABSENT);
    CHECK_EQ(rd(cfg(1, BAR0), 4), 0xfffff000);
    CHECK_EQ(rd(cfg(1, BAR0 + 4), 4), 0);
    CHECK_EQ(rd(cfg(1, BAR0 + 8), 8), 0xffffffffffffc00c);
    CHECK_EQ(rd(cfg(1, BAR0 + 16), 8), 0);
    wr(cfg(1, 0x30), 4, ABSENT); /* no expansion ROM */
    CHECK_EQ(rd(cfg(1, 0x30), 4), 0);
    CHECK_EQ(m.moves, 0);
}

static void test_relocation(void)
{
    machine();
    CHECK_EQ(rd(LOW, 4), ABSENT); /* not decoded yet */
    wr(cfg(1, COMMAND), 2, MEMORY);
    CHECK_EQ(m.moves, 2);
    CHECK_EQ(m.at[CARD][0], LOW);
    CHECK_EQ(m.at[CARD][2], HIGH);
    CHECK_EQ(rd(LOW + 0xff8, 8), 0x1122334455667788);
    CHECK_EQ(m.off, 0xff8);
    CHECK_EQ(rd(LOW + 0xffc, 8), ~0ull); /* leaves the BAR */
    wr(LOW + 3, 2, 0xabcdef);
    CHECK(m.off == 3 && m.len == 2 && m.val == 0xcdef);
    wr(cfg(1, BAR0), 4, LOW + 0x123456f);
    CHECK_EQ(m.at[CARD][0], LOW + 0x1234000);
    CHECK_EQ(rd(LOW, 4), ABSENT);
    CHECK_EQ(rd(LOW + 0x1234010, 2), 0x7788);
    CHECK_EQ(m.off, 0x10);
    wr(cfg(1, BAR0 + 8), 4, LOW); /* half moved: between the windows */
    CHECK_EQ(m.at[CARD][2], HIGH + LOW);
    wr(cfg(1, BAR0 + 12), 4, 0); /* a 64-bit BAR in the low window */
    CHECK_EQ(m.at[CARD][2], LOW);
    CHECK_EQ(rd(LOW, 4), 0x55667788);
    wr(cfg(1, COMMAND), 2, 0);
    CHECK_EQ(m.at[CARD][0], PCI_NOWHERE);
    CHECK_EQ(m.at[CARD][2], PCI_NOWHERE);
    CHECK_EQ(rd(LOW, 4), ABSENT);
    CHECK_EQ(m.moves, 7);
}

/* Addresses that a sane guest would not choose. */
static void test_odd_places(void)
{
    static const uint64_t odd[] = {0,
                                   0x1000,
                                   ECAM,
                                   ECAM - 0x1000,
                                   0xfffff000,
                                   0xfee00000,
                                   LOW - 0x4000,
                                   0xffffffffffffc000,
                                   HIGH + LEN64,
                                   LOW + LEN32,
                                   HIGH - 0x4000};

    machine();
    wr(cfg(1, COMMAND), 2, MEMORY);
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        wr(cfg(1, BAR0 + 8), 8, odd[i]);
        CHECK_EQ(m.at[CARD][2], PCI_NOWHERE);
        CHECK_EQ(rd(ECAM, 4), 0x0b1d1234);
    }
    wr(cfg(1, BAR0 + 8), 8, LOW + LEN32 - 0x4000); /* the last place of a window */
    CHECK_EQ(m.at[CARD][2], LOW + LEN32 - 0x4000);
    CHECK_EQ(rd(LOW + LEN32 - 8, 8), 0x1122334455667788);
    wr(cfg(2, COMMAND), 2, MEMORY); /* two in one place: the lower number answers */
    wr(cfg(2, BAR0 + 16), 8, LOW);
    wr(cfg(1, BAR0 + 8), 8, LOW + 0x4000);
    CHECK_EQ(rd(LOW + 0x4000, 4), 0x55667788);
    CHECK_EQ(rd(LOW + 0x8000, 4), 0); /* the disk's, which has no handler */
    wr(LOW + 0x8000, 4, 1);
    CHECK_EQ(rd(LOW + 0x8000, 4), 0);
}

static void intx(unsigned card, bool level)
{
    enter(&m.locked[card]);
    pci_intx_set(&m.dev[card], level);
    leave(&m.locked[card]);
}

static void test_intx(void)
{
    machine();
    intx(CARD, true);
    CHECK(m.line[1] && !m.line[0] && !m.line[2] && !m.line[3]);
    CHECK_EQ(rd(cfg(1, STATUS), 2), 0x18);
    intx(THIRD, true); /* shares it */
    intx(CARD, false);
    CHECK(m.line[1]);
    CHECK_EQ(rd(cfg(1, STATUS), 2), 0x10);
    wr(cfg(5, COMMAND), 2, NO_INTX);
    CHECK(!m.line[1]);
    CHECK_EQ(rd(cfg(5, STATUS), 2), 8); /* still wanted */
    wr(cfg(5, COMMAND), 2, 0);
    CHECK(m.line[1]);
    intx(THIRD, false);
    CHECK(!m.line[1]);
    intx(CARD, true);
    wr(cfg(1, 0x42), 2, 0x8000); /* MSI-X takes over */
    CHECK(!m.line[1] && pci_msix_enabled(&m.dev[CARD]));
    wr(cfg(1, 0x42), 2, 0);
    CHECK(m.line[1]);
    intx(DISK, true); /* has no pin */
    CHECK_EQ(rd(cfg(2, STATUS), 2), 0x10);
    CHECK(!m.line[2]);
}

/* Two devices under two locks set one line at a time: the later false must not stay. */
static void test_intx_race(void)
{
    machine();
    intx(CARD, true);
    m.meddle = true;
    intx(CARD, false);
    CHECK(!m.meddle && m.line[1]);
    intx(THIRD, false);
    CHECK(!m.line[1]);
}

static void msi(unsigned card, unsigned vector)
{
    enter(&m.locked[card]);
    (card == DISK ? pci_msi_send : pci_msix_send)(&m.dev[card], vector);
    leave(&m.locked[card]);
}

static void test_msi(void)
{
    unsigned cap;

    machine();
    cap = find_cap(2, 5);
    CHECK_EQ(rd(cfg(2, cap + 2), 2), 0x0184); /* masks, 64 bits, 4 vectors */
    wr(cfg(2, cap + 4), 8, 0x1fee00007);
    wr(cfg(2, cap + 12), 4, 0xffff4043);
    CHECK_EQ(rd(cfg(2, cap + 4), 8), 0x1fee00004);
    CHECK_EQ(rd(cfg(2, cap + 12), 4), 0x4043);
    wr(cfg(2, COMMAND), 2, MASTER);
    msi(DISK, 0); /* not enabled */
    CHECK_EQ(m.nmsi, 0);
    wr(cfg(2, cap + 2), 2, 0x0001); /* one vector: all become that one */
    msi(DISK, 3);
    CHECK(m.nmsi == 1 && m.msi_addr == 0x1fee00004 && m.msi_data == 0x4043);
    wr(cfg(2, cap + 2), 2, 0xffff); /* asks for 128, has 4 */
    CHECK_EQ(rd(cfg(2, cap + 2), 2), 0x01f5);
    msi(DISK, 2);
    CHECK(m.nmsi == 2 && m.msi_data == 0x4042 && m.msi_vector == 2);
    msi(DISK, 4);
    CHECK_EQ(m.nmsi, 2);
    wr(cfg(2, cap + 16), 4, ABSENT); /* all masked */
    CHECK_EQ(rd(cfg(2, cap + 16), 4), 0xf);
    msi(DISK, 1);
    msi(DISK, 1);
    wr(cfg(2, cap + 20), 4, 0); /* pending bits are the device's */
    CHECK_EQ(rd(cfg(2, cap + 20), 4), 2);
    CHECK_EQ(m.nmsi, 2);
    wr(cfg(2, COMMAND), 2, 0);
    wr(cfg(2, cap + 16), 4, 0);
    CHECK_EQ(m.nmsi, 2); /* not master: cannot write */
    wr(cfg(2, COMMAND), 2, MASTER);
    CHECK(m.nmsi == 3 && m.msi_data == 0x4041);
    CHECK_EQ(rd(cfg(2, cap + 20), 4), 0);
}

/* CARD decodes, MSI-X is on, vector v says 0x4000 + v to 0xfee00000 + v * 4096. */
static uint64_t start_msix(void)
{
    uint64_t table = HIGH + TABLE;

    machine();
    CHECK_EQ(rd(cfg(1, 0x42), 2), NVECTORS - 1);
    CHECK_EQ(rd(cfg(1, 0x44), 8), (uint64_t)(PBA | 2) << 32 | TABLE | 2);
    wr(cfg(1, COMMAND), 2, MEMORY | MASTER);
    CHECK_EQ(rd(table + 12, 4), 1); /* masked at power-on */
    for (unsigned v = 0; v < NVECTORS; v++) {
        wr(table + 16 * v, 8, 0xfee00000 + v * 4096);
        wr(table + 16 * v + 8, 4, 0x4000 + v);
        wr(table + 16 * v + 12, 4, 0);
    }
    CHECK_EQ(m.changes, 3 * NVECTORS);
    msi(CARD, 0); /* not enabled */
    CHECK_EQ(m.nmsi, 0);
    CHECK_EQ(rd(HIGH + PBA, 8), 0);
    wr(cfg(1, 0x42), 2, 0x8000);
    CHECK_EQ(m.changes, 4 * NVECTORS);
    return table;
}

static void test_msix(void)
{
    uint64_t table = start_msix(), addr = 0;
    uint32_t data = 0;

    msi(CARD, 69);
    CHECK(m.nmsi == 1 && m.msi_vector == 69 && m.msi_data == 0x4045 && m.msi_addr == 0xfee45000);
    msi(CARD, NVECTORS);
    msi(CARD, ~0u);
    CHECK_EQ(m.nmsi, 1);
    CHECK(pci_msix_get(&m.dev[CARD], 3, &addr, &data) && addr == 0xfee03000 && data == 0x4003);
    CHECK(!pci_msix_get(&m.dev[CARD], NVECTORS, &addr, &data));
    wr(table + 16 * 69 + 12, 4, ABSENT); /* one masked */
    CHECK_EQ(rd(table + 16 * 69 + 12, 4), 1);
    CHECK(!pci_msix_get(&m.dev[CARD], 69, &addr, &data));
    msi(CARD, 69);
    msi(CARD, 69);
    CHECK_EQ(m.nmsi, 1);
    CHECK_EQ(rd(HIGH + PBA + 8, 8), 1 << 5);
    CHECK_EQ(rd(HIGH + PBA + 8, 1), 1 << 5);
    CHECK_EQ(rd(HIGH + PBA + 4, 8), 1ull << 37);
    wr(HIGH + PBA + 8, 8, 0); /* not the guest's to write */
    CHECK_EQ(rd(HIGH + PBA + 8, 8), 1 << 5);
    wr(table + 16 * 69 + 8, 8, 0x5000); /* data and unmasked at once */
    CHECK(m.nmsi == 2 && m.msi_data == 0x5000);
    CHECK_EQ(rd(HIGH + PBA + 8, 8), 0);
}

/* What masks all vectors: the function mask, and no right to write. */
static void test_msix_function(void)
{
    uint64_t addr;
    uint32_t data;

    start_msix();
    wr(cfg(1, 0x42), 2, 0xc000);
    CHECK_EQ(m.changes, 5 * NVECTORS);
    CHECK(!pci_msix_get(&m.dev[CARD], 0, &addr, &data));
    msi(CARD, 0);
    msi(CARD, 1);
    CHECK_EQ(rd(HIGH + PBA, 8), 3);
    wr(cfg(1, COMMAND), 2, MEMORY);
    wr(cfg(1, 0x42), 2, 0x8000);
    CHECK_EQ(m.nmsi, 0);
    wr(cfg(1, COMMAND), 2, MEMORY | MASTER);
    CHECK_EQ(m.nmsi, 2);
    CHECK_EQ(m.changes, 6 * NVECTORS);
    wr(cfg(1, 0x42), 2, 0xc000);
    msi(CARD, 5);
    wr(cfg(1, 0x42), 2, 0); /* off: forgets what was pending */
    wr(cfg(1, 0x42), 2, 0x8000);
    CHECK_EQ(m.nmsi, 2);
    CHECK_EQ(rd(HIGH + PBA, 8), 0);
}

/* Accesses of all widths to table and pending bits, and around them. */
static void test_msix_widths(void)
{
    uint64_t table = start_msix();

    for (unsigned i = 0; i < 8; i++)
        wr(table + 32 + i, 1, 0x10 + i);
    CHECK_EQ(rd(table + 32, 8), 0x1716151413121110);
    wr(table + 32, 1, 0xff); /* the low two bits of an address are 0 */
    CHECK_EQ(rd(table + 32, 1), 0xfc);
    wr(table + 32 + 9, 2, 0xbeef);
    CHECK_EQ(rd(table + 32 + 8, 4), 0x00beef02);
    CHECK_EQ(rd(table + 32 + 9, 4), 0x0000beef);
    wr(table + 32 + 14, 4, 0); /* two entries at a time: nobody */
    CHECK_EQ(rd(table + 32 + 14, 4), ABSENT);
    CHECK_EQ(rd(table + 32 + 15, 2), 0xffff);
    CHECK_EQ(rd(table - 4, 8), ~0ull);
    CHECK_EQ(rd(HIGH + PBA - 2, 4), ABSENT);
    CHECK_EQ(rd(table - 8, 8), 0x1122334455667788); /* the device's own again */
    CHECK_EQ(m.off, TABLE - 8);
    CHECK_EQ(rd(HIGH + PBA + 16, 2), 0x7788);
    CHECK_EQ(m.off, PBA + 16);
    CHECK_EQ(rd(HIGH + PBA + 12, 8), 0);
    enter(&m.locked[CARD]);
    CHECK_EQ(pci_bar_read(&m.dev[CARD], 2, TABLE + 8, 4), 0x4000);
    pci_bar_write(&m.dev[CARD], 2, TABLE + 8, 4, 7);
    CHECK_EQ(pci_bar_read(&m.dev[CARD], 2, TABLE + 8, 4), 7);
    CHECK_EQ(pci_bar_read(&m.dev[CARD], 2, 16384 - 2, 4), ABSENT);
    CHECK_EQ(pci_bar_read(&m.dev[CARD], 3, 0, 4), ABSENT);
    CHECK_EQ(pci_bar_read(&m.dev[CARD], 6, 0, 4), ABSENT);
    pci_bar_write(&m.dev[CARD], ~0u, 0, 4, 7);
    leave(&m.locked[CARD]);
}

static void test_reset(void)
{
    uint8_t before[256];

    machine();
    memcpy(before, m.dev[CARD].config, sizeof before);
    start_msix();
    intx(THIRD, true);
    msi(CARD, 0);
    wr(cfg(1, 0x42), 2, 0xc000);
    msi(CARD, 1);
    wr(cfg(1, BAR0), 4, LOW + 0x10000);
    out(0xcf8, 4, 0x80000800);
    pci_reset(&m.root);
    CHECK_EQ(m.resets, 3);
    CHECK(!m.line[1]);
    CHECK_EQ(m.at[CARD][0], PCI_NOWHERE);
    CHECK_EQ(m.at[CARD][2], PCI_NOWHERE);
    CHECK(memcmp(before, m.dev[CARD].config, sizeof before) == 0);
    CHECK_EQ(in(0xcf8, 4), 0);
    wr(cfg(1, COMMAND), 2, MEMORY | MASTER);
    CHECK_EQ(m.at[CARD][0], LOW);
    CHECK_EQ(rd(HIGH + TABLE, 8), 0);
    CHECK_EQ(rd(HIGH + TABLE + 12, 4), 1);
    CHECK_EQ(rd(HIGH + PBA, 8), 0);
}

static void test_bad_devices(void)
{
    struct pci_desc bad[9];
    static struct pci_dev d;
    unsigned n = sizeof bad / sizeof bad[0];

    machine();
    for (unsigned i = 0; i < n; i++)
        bad[i] = desc_of(CARD);
    bad[0].bar[0].len = 12;
    bad[1].bar[0].len = 0x180;
    bad[2].bar[3].len = 4096; /* upper half of BAR 2 */
    bad[3].bar[0].len = 1ull << 32;
    bad[4].nmsi = 3;
    bad[5].msix.nvectors = 2049;
    bad[6].msix.table_off = 16384 - 16 * NVECTORS + 8;
    bad[7].msix.pba_off = TABLE + 8;
    bad[8].msix.table_bar = 1;
    for (unsigned i = 0; i < n; i++)
        CHECK_EQ(pci_init(&d, &bad[i]), -EINVAL);
    CHECK_EQ(m.lines, n);
}

/* The table at the start and the pending bits behind it, by default; then apart. */
static void test_msix_layout(void)
{
    struct pci_desc desc = {.bar[1].len = 4096, .msix = {65, m.vector, 1, 1, 0, 0}};
    static struct pci_dev d;

    machine();
    CHECK_EQ(pci_init(&d, &desc), 0);
    CHECK_EQ(vmm_get64(d.config + d.config[0x34] + 4), 65ull * 16 << 32 | 1ull << 32 | 1);
    CHECK_EQ(PCI_MSIX_LEN(65), 65 * 16 + 16);
    desc.msix.pba_off = 0x800;
    CHECK_EQ(pci_init(&d, &desc), 0);
    CHECK_EQ(pci_bar_read(&d, 1, 0x800, 8), 0);
    CHECK_EQ(pci_bar_read(&d, 1, 0x7fe, 4), ABSENT);
    CHECK_EQ(pci_bar_read(&d, 1, 0x7fc, 4), 0); /* no handler */
}

/* Windows that begin or end within a BAR's size. */
static void test_tight_windows(void)
{
    static const struct {
        uint64_t base, len;
        int err;
    } cases[] = {{LOW, 0x6000, 0},
                 {LOW, 0x3000, -ENOSPC},
                 {LOW + 0x1000, 0x2000, -ENOSPC},
                 {LOW + 0x1000, 0x6000, -ENOSPC},
                 {LOW + 0x1000, 0x7000, 0},
                 {0, 0, -ENOSPC}};
    struct pci_desc desc = {.bar[0].len = 0x4000};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct pci_root_desc root = {.mmio32 = {cases[i].base, cases[i].len}};
        static struct pci_root r;
        static struct pci_dev d;

        pci_root_init(&r, &root);
        CHECK_EQ(pci_init(&d, &desc), 0);
        CHECK_EQ(pci_plug(&r, &d), cases[i].err);
        if (cases[i].err)
            continue;
        pci_ecam_write(&r, 0x8004, 2, MEMORY);
        CHECK_EQ(d.bar_gpa[0], cases[i].base == LOW ? LOW : LOW + 0x4000);
        pci_ecam_write(&r, 0x8010, 4, cases[i].base == LOW ? LOW + 0x4000 : LOW);
        CHECK_EQ(d.bar_gpa[0], PCI_NOWHERE);
    }
}

static void test_full(void)
{
    static struct pci_dev more[PCI_SLOTS], d;
    static const uint8_t body[200];
    struct pci_desc desc = {.slot = 5, .log = &the_log};
    unsigned n = 0;

    machine();
    CHECK_EQ(pci_init(&d, &desc), 0);
    CHECK_EQ(pci_plug(&m.root, &d), -EEXIST);
    CHECK_EQ(pci_add_cap(&d, 9, body, 5, NULL), 0x40);
    CHECK_EQ(pci_add_cap(&d, 9, body, 182, NULL), 0x48); /* at a multiple of 4 */
    CHECK_EQ(pci_add_cap(&d, 9, body, 1, NULL), -ENOSPC);
    desc.slot = 32;
    CHECK_EQ(pci_init(&d, &desc), 0);
    CHECK_EQ(pci_plug(&m.root, &d), -ENOSPC);
    desc.slot = 0;
    desc.bar[0].len = LEN32; /* one BAR is there already */
    CHECK_EQ(pci_init(&d, &desc), 0);
    CHECK_EQ(pci_plug(&m.root, &d), -ENOSPC);
    desc.bar[0].len = 0;
    desc.bar[5].len = 16;
    while (n < PCI_SLOTS && pci_init(&more[n], &desc) == 0 && pci_plug(&m.root, &more[n]) == 0)
        n++;
    CHECK_EQ(n, PCI_SLOTS - 1 - NCARDS);
    CHECK_EQ(more[0].slot, 3);
    CHECK_EQ(more[n - 1].slot, 31);
    CHECK_EQ(vmm_get32(more[1].config + 0x24), vmm_get32(more[0].config + 0x24) + 4096);
    CHECK_EQ(m.lines, 5);
}

static unsigned nchanges;

static void on_any_change(void *ctx)
{
    (void)ctx;
    nchanges++;
}

/* A device that looks like one of the host's: capabilities where they are there, MSI in its shortest
   form, and an expansion ROM. */
static void test_foreign(void)
{
    static struct pci_dev d;
    static const uint8_t body[14];
    struct pci_desc desc = {.nmsi = 1,
                            .msi_is32 = true,
                            .msi_bare = true,
                            .msi_at = 0xd0,
                            .changed = on_any_change,
                            .log = &the_log};
    uint32_t data;
    uint64_t addr;

    machine();
    desc.slot = 7;
    desc.bar[PCI_ROM] = (struct pci_bar){.len = 4096, .read = bar_read};
    desc.ctx = &m.dev[CARD];
    CHECK_EQ(pci_init(&d, &desc), 0);
    CHECK_EQ(pci_put_cap(&d, 0xd8, 9, body, 2, NULL), -EEXIST);
    CHECK_EQ(pci_put_cap(&d, 0x3c, 9, body, 2, NULL), -ENOSPC);
    CHECK_EQ(pci_put_cap(&d, 0xf4, 9, body, 11, NULL), -ENOSPC);
    CHECK_EQ(pci_put_cap(&d, 0x60, 9, body, 14, NULL), 0x60);
    CHECK_EQ(pci_plug(&m.root, &d), 0);
    CHECK(find_cap(7, 5) == 0xd0 && find_cap(7, 9) == 0x60);
    CHECK_EQ(rd(cfg(7, 0xd2), 2), 0);
    wr(cfg(7, 0xd4), 4, 0xfee01003);
    wr(cfg(7, 0xd8), 4, 0xffff4055);
    CHECK_EQ(rd(cfg(7, 0xd8), 4), 0x4055);
    CHECK(!pci_msi_get(&d, 0, &addr, &data));
    wr(cfg(7, 0xd2), 2, 1);
    CHECK(!pci_msi_get(&d, 0, &addr, &data)); /* not master */
    wr(cfg(7, COMMAND), 2, MASTER);
    CHECK(pci_msi_get(&d, 0, &addr, &data) && addr == 0xfee01000 && data == 0x4055);
    CHECK(!pci_msi_get(&d, 1, &addr, &data));
    CHECK(nchanges >= 2);
    wr(cfg(7, 0x30), 4, 0xffffffff);
    CHECK_EQ(rd(cfg(7, 0x30), 4), 0xfffff001);
    wr(cfg(7, 0x30), 4, LOW + 0x3000);
    wr(cfg(7, COMMAND), 2, 2);
    CHECK_EQ(d.bar_gpa[PCI_ROM], PCI_NOWHERE);
    wr(cfg(7, 0x30), 4, LOW + 0x3001);
    CHECK_EQ(d.bar_gpa[PCI_ROM], LOW + 0x3000);
}

int main(void)
{
    test_enumeration();
    test_config_access();
    test_ports();
    test_sizing();
    test_relocation();
    test_odd_places();
    test_intx();
    test_intx_race();
    test_msi();
    test_msix();
    test_msix_function();
    test_msix_widths();
    test_reset();
    test_bad_devices();
    test_msix_layout();
    test_tight_windows();
    test_full();
    test_foreign();
    CHECK_DONE("test_pci");
}
