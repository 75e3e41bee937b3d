/* test_bios.c - dev_bios.h as the handlers in its ROM call it      MIT licence, see LICENSE */
#define DEV_BIOS_IMPLEMENTATION
#include "../dev_bios.h"
#include "check.h"

enum { RAM = 2 << 20, STACK = 0x7000, SECTORS = 4096 };

static uint8_t ram[RAM], disk[SECTORS * 512];
static struct vmm_mem mem;
static struct vmm_bus ports;
static struct pc_bios bios;
static struct vmm_x86_regs r;
static char said[8192]; /* COM1 */
static size_t nsaid, room;
static uint8_t cmos[128], cmos_index;
static uint64_t now_ns;
static int disk_err;
static unsigned off, failed, key_room;

static uint64_t uart_read(void *dev, uint64_t reg, unsigned len)
{
    (void)dev;
    (void)len;
    return reg == 5 ? (room ? 0x60 : 0) : reg == 6 ? 0xb0 : 0;
}

static void uart_write(void *dev, uint64_t reg, unsigned len, uint64_t val)
{
    (void)dev;
    (void)len;
    if (reg || !room || nsaid == sizeof said - 1)
        return;
    room--;
    said[nsaid++] = (char)val;
    said[nsaid] = 0;
}

static uint64_t cmos_read(void *dev, uint64_t reg, unsigned len)
{
    (void)dev;
    (void)len;
    return reg ? cmos[cmos_index] : 0xff;
}

static void cmos_write(void *dev, uint64_t reg, unsigned len, uint64_t val)
{
    (void)dev;
    (void)len;
    if (reg)
        cmos[cmos_index] = (uint8_t)val;
    else
        cmos_index = val & 127;
}

static int move(void *ctx, unsigned which, bool write, void *buf, uint64_t sector, unsigned n)
{
    (void)ctx;
    CHECK(which == 0 && sector + n <= SECTORS);
    if (disk_err)
        return disk_err;
    if (write)
        memcpy(disk + sector * 512, buf, n * 512);
    else
        memcpy(buf, disk + sector * 512, n * 512);
    return 0;
}

static uint64_t now(void *ctx)
{
    (void)ctx;
    return now_ns;
}

static void count(void *ctx)
{
    ++*(unsigned *)ctx;
}

static void do_off(void *ctx)
{
    (void)ctx;
    count(&off);
}

static void do_failed(void *ctx)
{
    (void)ctx;
    count(&failed);
}

static void do_key_room(void *ctx)
{
    (void)ctx;
    count(&key_room);
}

static const struct pc_bios_range map[] = {
    {0, 0x9fc00, 1}, {0x9fc00, 0x400, 2}, {0xf0000, 0x10000, 2}, {0x100000, 0x100000, 1}};

/* One call as a handler makes it: AX to start with, flags on the stack. Returns CF and ZF after. */
static unsigned call(unsigned port, unsigned ax)
{
    r.gpr[VMM_RAX] = (r.gpr[VMM_RAX] & ~0xffffull) | ax;
    r.gpr[VMM_RSP] = STACK - 6;
    r.cs.base = 0xf0000;
    r.rip = 0xfd00;
    pc_bios_call(&bios, port, &r);
    return r.rflags & 0x41;
}

static unsigned ax(void)
{
    return r.gpr[VMM_RAX] & 0xffff;
}

static bool carry(void)
{
    return vmm_get16(ram + STACK - 2) & 1;
}

static void set(enum vmm_x86_gpr g, uint64_t v)
{
    r.gpr[g] = v;
}

static void segment(struct vmm_x86_seg *s, uint16_t selector)
{
    s->selector = selector;
    s->base = selector * 16u;
}

static void start(uint64_t disk_len)
{
    static const struct vmm_io com1 = {0x3f8, 8, uart_read, uart_write, NULL, {0}};
    static const struct vmm_io rtc = {0x70, 2, cmos_read, cmos_write, NULL, {0}};
    struct pc_bios_desc d = {.mem = &mem,
                             .ports = &ports,
                             .map = map,
                             .nmap = 4,
                             .disk_len = {disk_len},
                             .ndisks = disk_len ? 1 : 0,
                             .disk = move,
                             .now = now,
                             .off = do_off,
                             .failed = do_failed,
                             .key_room = do_key_room};

    memset(ram, 0xcc, sizeof ram);
    memset(&mem, 0, sizeof mem);
    memset(&ports, 0, sizeof ports);
    memset(&r, 0, sizeof r);
    vmm_mem_add(&mem, 0, RAM, ram);
    vmm_bus_add(&ports, &com1);
    vmm_bus_add(&ports, &rtc);
    nsaid = 0;
    said[0] = 0;
    room = sizeof said;
    disk_err = 0;
    cmos[4] = 0x10;
    cmos[2] = 0x30;
    cmos[0] = 0x15;
    cmos[0x0b] = 2;
    pc_bios_init(&bios, &d);
    CHECK_EQ(call(0x1f, 0), 0);
}

/* What COM1 got since the last question. */
static bool heard(const char *text)
{
    bool same = !strcmp(said, text);

    if (!same) {
        fprintf(stderr, "  heard:");
        for (size_t i = 0; i < nsaid; i++)
            fprintf(stderr, said[i] < 32 || said[i] > 126 ? "\\x%02x" : "%c", (uint8_t)said[i]);
        fprintf(stderr, "\n");
    }
    nsaid = 0;
    said[0] = 0;
    return same;
}

static void type(const char *text)
{
    for (; *text; text++)
        CHECK_EQ(call(0x10, 0x0e00 | (uint8_t)*text), 0);
}

/* The ROM in the header is what guests/bios/minibios.S says. */
static void test_rom(void)
{
    uint8_t rom[PC_BIOS_LEN], file[PC_BIOS_LEN + 1];
    FILE *f = fopen("build/minibios", "rb");

    pc_bios_rom(rom);
    CHECK(pc_bios_is_rom(rom, PC_BIOS_LEN) && !pc_bios_is_rom(rom, PC_BIOS_LEN - 1));
    if (CHECK(f)) {
        CHECK_EQ(fread(file, 1, sizeof file, f), PC_BIOS_LEN);
        CHECK(!memcmp(rom, file, PC_BIOS_LEN)); /* else: sh guests/bios/embed */
        fclose(f);
    }
    CHECK(pc_bios_entry() >= 0xfc00 && rom[0x3fe] == 0xfc && rom[0x3f0] == 0xe9);
    rom[3] ^= 1;
    CHECK(!pc_bios_is_rom(rom, PC_BIOS_LEN));
}

static void test_power_on(void)
{
    start(1440 * 1024);
    CHECK_EQ(vmm_get16(ram + 0x400), 0x3f8);
    CHECK_EQ(vmm_get16(ram + 0x40e), 0x9fc0);
    CHECK_EQ(vmm_get16(ram + 0x413), 639);
    CHECK_EQ(ram[0x9fc00], 1);
    CHECK_EQ(ram[0x475], 0);
    CHECK_EQ(vmm_get32(ram + 0x46c), (10 * 3600 + 30 * 60 + 15) * 1193182ull / 65536);
    CHECK_EQ(vmm_get16(ram + 0xb8000), 0x0720);
    call(0x11, 0);
    CHECK_EQ(ax(), 0x0223); /* a diskette drive, 80 columns, one serial port */
    call(0x12, 0);
    CHECK_EQ(ax(), 639);
    call(0x17, 0);
    CHECK_EQ(ax(), 0x0100);
    CHECK(heard(""));
}

/* Only its own handlers are listened to. */
static void test_strangers(void)
{
    start(1 << 20);
    call(0x12, 0);
    r.gpr[VMM_RAX] = 7;
    r.cr0 = 1;
    pc_bios_call(&bios, 0x12, &r);
    r.cr0 = 0;
    r.rip = 0x100;
    pc_bios_call(&bios, 0x12, &r);
    r.rip = 0xfd00;
    r.cs.base = 0;
    pc_bios_call(&bios, 0x12, &r);
    CHECK_EQ(ax(), 7);
    for (unsigned port = 0; port < 64; port++)
        if (port != 0x18)
            call(port, 0xff00);
    mem.nranges = 0;
    for (unsigned port = 0; port < 64; port++)
        call(port, 0x0e41); /* a machine without RAM */
    CHECK(!pc_bios_room(&bios));
}

static void test_teletype(void)
{
    start(1 << 20);
    type("hello\r\nworld\b!\a\r\n");
    CHECK(heard("hello\r\nworld\b!\a\r\n"));
    CHECK(!memcmp(ram + 0xb8000, "h\7e\7l\7", 6) && ram[0xb8000 + 160 + 8] == '!');
    CHECK_EQ(vmm_get16(ram + 0x450), 0x200);
    for (unsigned i = 0; i < 22; i++)
        type("\n");
    nsaid = 0;
    type("last\r\n"); /* the screen scrolls, the terminal too */
    CHECK(heard("last\r\n"));
    CHECK_EQ(vmm_get16(ram + 0x450), 0x1800);
    CHECK(ram[0xb8000 + 23 * 160] == 'l' && ram[0xb8000 + 24 * 160] == ' ');
    for (unsigned i = 0; i < 81; i++)
        type("x");
    CHECK(nsaid > 81 && said[79] == 'x' && strstr(said, "x\r\nx"));
    CHECK_EQ(vmm_get16(ram + 0x450), 0x1801);
    heard(said);
    type("\x81\xcd\1"); /* u with dots, double line, smile */
    CHECK(heard("\xc3\xbc\xe2\x95\x90\xe2\x98\xba"));
}

/* What the terminal is told by a call, and then where the cursor is. */
static bool shows(unsigned function, const char *cells, const char *cursor)
{
    bool same;

    CHECK_EQ(call(0x10, function), 0);
    same = heard(cells);
    CHECK_EQ(call(0x16, 0x0100), 0);
    return heard(cursor) && same;
}

static void test_screen(void)
{
    start(1 << 20);
    CHECK(shows(0x0003, "\33[2J\33[H", ""));
    set(VMM_RDX, 0x0a14);
    CHECK(shows(0x0200, "", "\33[11;21H"));
    set(VMM_RBX, 0x1e);
    set(VMM_RCX, 3);
    CHECK(shows(0x0941, "\33[0;1;33;44mAAA", "\33[11;21H")); /* it stays where it was */
    call(0x10, 0x0800);
    CHECK_EQ(ax(), 0x1e41);
    call(0x10, 0x0300);
    CHECK_EQ(r.gpr[VMM_RDX] & 0xffff, 0x0a14);
    CHECK_EQ(r.gpr[VMM_RCX] & 0xffff, 0x0607);
    call(0x10, 0x0f00);
    CHECK_EQ(ax(), 0x5003);
    set(VMM_RCX, 0x2000);
    CHECK(shows(0x0100, "\33[?25l", ""));
    set(VMM_RCX, 0x0607);
    CHECK(shows(0x0100, "\33[?25h", ""));
    set(VMM_RCX, 0x0a14); /* a window of two cells, blanked */
    set(VMM_RDX, 0x0a15);
    set(VMM_RBX, 0x0700);
    CHECK(shows(0x0600, "\33[0m  ", "\33[11;21H"));
    call(0x10, 0x1a00);
    CHECK_EQ(ax(), 0x1a1a);
    ram[0xb8000] = 'D'; /* the guest's own hand */
    CHECK(shows(0x0f00, "\33[1;1HD", "\33[11;21H"));
    call(0x10, 0x0013); /* no graphics */
    call(0x10, 0x0f00);
    CHECK_EQ(ax() & 0xff, 3);
    for (unsigned i = 0; i < 3; i++) { /* as GRUB writes: a character, and then the cursor */
        set(VMM_RCX, 1);
        set(VMM_RBX, 7);
        CHECK_EQ(call(0x10, 0x0958), 0);
        set(VMM_RDX, 0x0a15 + i);
        CHECK_EQ(call(0x10, 0x0200), 0);
    }
    CHECK(heard("XXX"));
}

static void test_redraw(void)
{
    start(1 << 20);
    type("one\r\n two\r\n");
    nsaid = 0;
    pc_bios_redraw(&bios);
    CHECK(heard("\33[0m\33[2J\33[Hone\33[2;2Htwo\r\n"));
    room = 0;
    pc_bios_redraw(&bios); /* nobody reads: it is told later */
    room = sizeof said;
    type("3");
    CHECK(heard("\33[0m\33[2J\33[Hone\33[2;2Htwo\r\n3"));
    memset(&bios.on, 0, sizeof bios.on);
    pc_bios_redraw(&bios);
    CHECK(heard(""));
}

static void test_scroll(void)
{
    start(1 << 20);
    for (unsigned i = 0; i < 2000; i++)
        vmm_put16(ram + 0xb8000 + 2 * i, (uint16_t)(0x700 | ('a' + i / 80)));
    call(0x10, 0x0f00);
    heard(said);
    set(VMM_RCX, 0x0202);
    set(VMM_RDX, 0x0503);
    set(VMM_RBX, 0x0700);
    call(0x10, 0x0701); /* down */
    CHECK(ram[0xb8000 + 2 * (2 * 80 + 2)] == ' ' && ram[0xb8000 + 2 * (3 * 80 + 2)] == 'c');
    CHECK(ram[0xb8000 + 2 * (5 * 80 + 3)] == 'e' && ram[0xb8000 + 2 * (5 * 80 + 4)] == 'f');
    call(0x10, 0x0602); /* up by two */
    CHECK(ram[0xb8000 + 2 * (2 * 80 + 2)] == 'd' && ram[0xb8000 + 2 * (4 * 80 + 2)] == ' ');
    set(VMM_RCX, 0xffff); /* nowhere */
    call(0x10, 0x0601);
    set(VMM_RCX, 0);
    set(VMM_RDX, 0xffff);
    call(0x10, 0x0600);
    CHECK_EQ(vmm_get16(ram + 0xb8000 + 3998), 0x0720);
    set(VMM_RDX, 0xfefe); /* a cursor that is nowhere */
    call(0x10, 0x0200);
    call(0x10, 0x0e58);
    CHECK_EQ(ram[0xb8000 + 3998 - 160], 'X'); /* its line has gone up */
}

static void test_string(void)
{
    start(1 << 20);
    memcpy(ram + 0x5000, "ab\r\ncd", 6);
    segment(&r.es, 0x500);
    set(VMM_RBP, 0);
    set(VMM_RCX, 6);
    set(VMM_RDX, 0x0100);
    set(VMM_RBX, 7);
    call(0x10, 0x1301);
    CHECK(heard("\nab\r\ncd"));
    CHECK_EQ(vmm_get16(ram + 0x450), 0x0202);
    memcpy(ram + 0x5000, "x\x1fy\x2f", 4);
    set(VMM_RCX, 2);
    set(VMM_RDX, 0x0300);
    call(0x10, 0x1302);
    CHECK_EQ(vmm_get16(ram + 0x450), 0x0202);
    CHECK(!memcmp(ram + 0xb8000 + 3 * 160, "x\x1fy\x2f", 4));
    segment(&r.es, 0xffff); /* beyond RAM: nothing happens */
    mem.range[0].len = 0x100000;
    set(VMM_RBP, 0xff00);
    set(VMM_RCX, 0xffff);
    CHECK_EQ(call(0x10, 0x1301), 0);
}

/* A terminal that reads slowly gets all of it, and a call is not carried out twice. */
static void test_slow_terminal(void)
{
    unsigned again = 0;

    start(1 << 20);
    room = 0;
    for (unsigned i = 0; i < 6000; i++)
        ram[0x20000 + i] = i % 60 < 58 ? (uint8_t)('A' + i % 60 % 26) : i % 60 == 58 ? '\r' : '\n';
    segment(&r.es, 0x2000);
    set(VMM_RBP, 0);
    set(VMM_RCX, 3000);
    set(VMM_RDX, 0);
    set(VMM_RBX, 7);
    while (call(0x10, 0x1301)) {
        CHECK_EQ(r.rflags & 0x41, 1); /* again, not after an interrupt */
        again++;
        room += 7;
        if (!CHECK(again < 2000))
            break;
    }
    CHECK(again > 400);
    CHECK_EQ(nsaid, 3000);
    for (unsigned i = 0; i < 3000 && i < nsaid; i++)
        if (!CHECK_EQ((uint8_t)said[i], ram[0x20000 + i]))
            break;
    room = 0;
    nsaid = 0;
    CHECK_EQ(call(0x10, 0x0e41), 1);
    CHECK_EQ(call(0x10, 0x0e41), 1);
    room = 9;
    CHECK_EQ(call(0x10, 0x0e41), 0);
    CHECK(heard("A"));
}

static void test_geometry(void)
{
    static const struct {
        uint64_t len;
        unsigned drive, cylinders, heads, sectors, type;
    } rows[] = {
        {360 << 10, 0, 40, 2, 9, 1},          {1440 << 10, 0, 80, 2, 18, 4},
        {1200 << 10, 0, 80, 2, 15, 2},        {512, 0x80, 1, 16, 63, 0},
        {504 << 20, 0x80, 1024, 16, 63, 0},   {505 << 20, 0x80, 513, 32, 63, 0},
        {8ull << 30, 0x80, 1024, 255, 63, 0}, {1ull << 40, 0x80, 1024, 255, 63, 0},
    };

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        memset(disk, 0, 512);
        start(rows[i].len);
        set(VMM_RDX, rows[i].drive);
        call(0x13, 0x0800);
        CHECK_EQ(ax(), 0);
        CHECK(!carry());
        CHECK_EQ((r.gpr[VMM_RCX] >> 8 & 0xff) | (r.gpr[VMM_RCX] & 0xc0) << 2,
                 rows[i].cylinders - 1);
        CHECK_EQ(r.gpr[VMM_RCX] & 63, rows[i].sectors);
        CHECK_EQ(r.gpr[VMM_RDX] & 0xffff, (rows[i].heads - 1) << 8 | 1);
        if (rows[i].type)
            CHECK_EQ(r.gpr[VMM_RBX] & 0xffff, rows[i].type);
        set(VMM_RDX, rows[i].drive);
        call(0x13, 0x1500);
        CHECK_EQ(ax() >> 8, rows[i].type ? 1 : 3);
    }
    memset(disk, 0, 512); /* as whoever partitioned it saw it */
    vmm_put16(disk + 510, 0xaa55);
    disk[446 + 4] = 0x83;
    disk[446 + 5] = 15;
    disk[446 + 6] = 0xc0 | 17;
    vmm_put32(disk + 446 + 12, 1000);
    start(1 << 20);
    CHECK_EQ(bios.disk[0].heads, 16);
    CHECK_EQ(bios.disk[0].sectors, 17);
    disk[446 + 6] = 0; /* that is no geometry */
    start(1 << 20);
    CHECK_EQ(bios.disk[0].sectors, 63);
}

struct chs {
    const char *what;
    unsigned function, cx, dx, bx;
    uint16_t es;
    unsigned status;
};

static void test_chs(void)
{
    static const struct chs rows[] = {
        {"first", 0x0201, 0x0001, 0x0080, 0x8000, 0, 0},
        {"head 1, sector 3", 0x0202, 0x0003, 0x0180, 0x8000, 0, 0},
        {"verify", 0x0401, 0x0001, 0x0080, 0x8000, 0, 0},
        {"none", 0x0200, 0x0001, 0x0080, 0x8000, 0, 1},
        {"too many", 0x0281, 0x0001, 0x0080, 0x8000, 0, 1},
        {"sector 0", 0x0201, 0x0000, 0x0080, 0x8000, 0, 4},
        {"sector 64", 0x0201, 0x0040, 0x0080, 0x8000, 0, 4},
        {"head 16", 0x0201, 0x0001, 0x1080, 0x8000, 0, 4},
        {"past the end", 0x0202, 0x0401, 0x0080, 0x8000, 0, 4}, /* sector 4032, and 64 more */
        {"verify past the end", 0x0480, 0x0401, 0x0080, 0x8000, 0, 4},
        {"no such disk", 0x0201, 0x0001, 0x0081, 0x8000, 0, 1},
        {"no such diskette", 0x0201, 0x0001, 0x0000, 0x8000, 0, 1},
        {"no such service", 0x0501, 0x0001, 0x0080, 0x8000, 0, 1},
        {"reset", 0x0000, 0, 0x0080, 0, 0, 0},
    };

    for (unsigned i = 0; i < SECTORS; i++)
        memset(disk + i * 512, (int)(i * 37 + 1), 512);
    memset(disk, 0, 512);
    start(sizeof disk);
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        set(VMM_RCX, rows[i].cx);
        set(VMM_RDX, rows[i].dx);
        set(VMM_RBX, rows[i].bx);
        segment(&r.es, rows[i].es);
        if (i == 8)
            set(VMM_RCX, 0x043f); /* cylinder 4, sector 63 of head 0: 4094 */
        CHECK_EQ(call(0x13, rows[i].function), 0);
        if (!CHECK_EQ(ax() >> 8, i == 8 ? 0 : rows[i].status))
            fprintf(stderr, "  %s\n", rows[i].what);
        CHECK_EQ(carry(), (ax() >> 8) != 0);
    }
    set(VMM_RBX, 0x8000);
    set(VMM_RCX, 0x0003);
    set(VMM_RDX, 0x0180);
    call(0x13, 0x0202);
    CHECK(!memcmp(ram + 0x8000, disk + 65 * 512, 1024));
    memset(ram + 0x8000, 0xee, 512);
    call(0x13, 0x0301);
    CHECK_EQ(disk[65 * 512], 0xee);
    disk_err = -EROFS;
    call(0x13, 0x0301);
    CHECK_EQ(ax() >> 8, 3);
    CHECK_EQ(ram[0x474], 3);
    call(0x13, 0x0100);
    CHECK_EQ(ax() >> 8, 3);
    disk_err = -EIO;
    call(0x13, 0x0201);
    CHECK_EQ(ax(), 0x2000);
    disk_err = 0;
    segment(&r.es, 0xffff);
    mem.range[0].len = 0x100000;
    call(0x13, 0x0201);
    CHECK_EQ(ax() >> 8, 9);
    call(0x13, 0x0801);
    CHECK_EQ(ax(), 0);
}

static void put_packet(unsigned size, unsigned n, uint32_t buffer, uint64_t sector)
{
    memset(ram + 0x6000, 0, 32);
    ram[0x6000] = (uint8_t)size;
    vmm_put16(ram + 0x6002, (uint16_t)n);
    vmm_put32(ram + 0x6004, buffer);
    vmm_put64(ram + 0x6008, sector);
}

static void test_packets(void)
{
    static const struct {
        const char *what;
        unsigned function, size, n;
        uint32_t buffer;
        uint64_t sector;
        unsigned status;
    } rows[] = {
        {"read", 0x4200, 16, 2, 0x08000000, 4094, 0},
        {"nothing", 0x4200, 16, 0, 0x08000000, 0, 0},
        {"one too far", 0x4200, 16, 2, 0x08000000, 4095, 4},
        {"wraps", 0x4200, 16, 1, 0x08000000, ~0ull, 4},
        {"short packet", 0x4200, 15, 1, 0x08000000, 0, 1},
        {"beyond RAM", 0x4200, 16, 0x1000, 0xffff0010, 0, 9},
        {"verify", 0x4400, 16, 2, 0xffffffff, 4094, 0},
        {"seek past the end", 0x4700, 16, 0, 0, 4096, 4},
        {"write", 0x4300, 16, 1, 0x08000000, 7, 0},
    };

    start(sizeof disk);
    set(VMM_RDX, 0x80);
    set(VMM_RBX, 0x55aa);
    call(0x13, 0x4100);
    CHECK(!carry() && ax() >> 8 == 0x30);
    CHECK_EQ(r.gpr[VMM_RBX] & 0xffff, 0xaa55);
    CHECK_EQ(r.gpr[VMM_RCX] & 0xffff, 1);
    set(VMM_RSI, 0);
    segment(&r.ds, 0x600);
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        put_packet(rows[i].size, rows[i].n, rows[i].buffer, rows[i].sector);
        call(0x13, rows[i].function);
        if (!CHECK_EQ(ax() >> 8, rows[i].status))
            fprintf(stderr, "  %s\n", rows[i].what);
        CHECK_EQ(carry(), rows[i].status != 0);
    }
    put_packet(24, 1, 0xffffffff, 9); /* a flat address above 1 MiB */
    vmm_put64(ram + 0x6010, 0x180000);
    call(0x13, 0x4200);
    CHECK(!carry() && !memcmp(ram + 0x180000, disk + 9 * 512, 512));
    put_packet(24, 1, 0xffffffff, 9);
    vmm_put64(ram + 0x6010, ~0ull);
    call(0x13, 0x4200);
    CHECK_EQ(ax() >> 8, 9);
    CHECK_EQ(vmm_get16(ram + 0x6002), 0);
    vmm_put16(ram + 0x6000, 30);
    call(0x13, 0x4800);
    CHECK(!carry() && vmm_get64(ram + 0x6010) == SECTORS && vmm_get16(ram + 0x6018) == 512);
    CHECK_EQ(vmm_get32(ram + 0x6008), 16);
    vmm_put16(ram + 0x6000, 25);
    call(0x13, 0x4800);
    CHECK(carry());
    start(1440 << 10);
    set(VMM_RDX, 0);
    set(VMM_RBX, 0x55aa);
    call(0x13, 0x4100);
    CHECK(carry());
    call(0x13, 0x4200);
    CHECK(carry());
}

static void test_memory(void)
{
    unsigned n = 0;

    start(1 << 20);
    segment(&r.es, 0x800);
    set(VMM_RDI, 0);
    set(VMM_RBX, 0);
    do {
        set(VMM_RAX, 0);
        set(VMM_RDX, 0x534d4150);
        set(VMM_RCX, 24);
        call(0x15, 0xe820);
        CHECK(!carry() && r.gpr[VMM_RAX] == 0x534d4150 && r.gpr[VMM_RCX] == 20);
        CHECK_EQ(vmm_get64(ram + 0x8000), map[n].gpa);
        CHECK_EQ(vmm_get32(ram + 0x8010), map[n].type);
    } while (r.gpr[VMM_RBX] && ++n < 9);
    CHECK_EQ(n, 3);
    set(VMM_RBX, 4);
    call(0x15, 0xe820);
    CHECK(carry());
    call(0x15, 0xe801);
    CHECK(!carry() && ax() == 1024 && (r.gpr[VMM_RDX] & 0xffff) == 0);
    call(0x15, 0x8800);
    CHECK(!carry() && ax() == 1024);
    call(0x15, 0xc000);
    CHECK(!carry() && r.es.base == 0xf0000);
    call(0x15, 0xc100);
    CHECK_EQ(r.es.selector, 0x9fc0);
    call(0x15, 0x2403);
    CHECK(!carry() && ax() == 3);
    call(0x15, 0x2402);
    CHECK_EQ(ax(), 1);
    call(0x15, 0x2400);
    CHECK(carry());
    call(0x15, 0x4f1e);
    CHECK(carry() && ax() == 0x4f1e);
    call(0x15, 0x9999);
    CHECK(carry() && ax() >> 8 == 0x86);
}

static void test_block_move(void)
{
    uint8_t *table = ram + 0x9000;

    start(1 << 20);
    memset(table, 0, 48);
    memset(ram + 0x30000, 0x5a, 4096);
    vmm_put32(table + 18, 0x030000);
    vmm_put32(table + 26, 0x180000);
    segment(&r.es, 0x900);
    set(VMM_RSI, 0);
    set(VMM_RCX, 2048);
    call(0x15, 0x8700);
    CHECK(!carry() && !memcmp(ram + 0x180000, ram + 0x30000, 4096) && ram[0x181000] == 0xcc);
    table[31] = 0x7f; /* far beyond RAM */
    call(0x15, 0x8700);
    CHECK(carry());
    set(VMM_RCX, 0x8001);
    table[31] = 0;
    call(0x15, 0x8700);
    CHECK(carry());
}

static void test_wait(void)
{
    start(1 << 20);
    now_ns = 5000;
    set(VMM_RCX, 1);
    set(VMM_RDX, 0x86a0); /* 100 ms */
    CHECK_EQ(call(0x15, 0x8600), 0x41);
    now_ns += 50000000;
    CHECK_EQ(call(0x15, 0x8600), 1);
    now_ns += 50000000 + 1000000;
    CHECK_EQ(call(0x15, 0x8600), 0);
    CHECK(!carry());
    CHECK_EQ(call(0x15, 0x8600), 0x41); /* the next one takes its time, too */
}

static void test_power_off(void)
{
    start(1 << 20);
    off = 0;
    set(VMM_RBX, 0);
    call(0x15, 0x5300);
    CHECK(!carry() && ax() == 0x0102 && (r.gpr[VMM_RBX] & 0xffff) == 0x504d);
    set(VMM_RBX, 0);
    call(0x15, 0x5301);
    CHECK(!carry());
    set(VMM_RBX, 1);
    set(VMM_RCX, 2); /* suspend */
    call(0x15, 0x5307);
    CHECK(carry() && !off);
    set(VMM_RCX, 3);
    call(0x15, 0x5307);
    CHECK(!carry());
    CHECK_EQ(off, 1);
}

/* Scan codes as a keyboard sends them, and what INT 16h then says. */
static void test_keys(void)
{
    static const struct {
        const char *codes;
        unsigned old, grey; /* what AH=00h and AH=10h return */
    } rows[] = {
        {"\x1e\x9e", 0x1e61, 0x1e61},         {"\x2a\x1e\x9e\xaa", 0x1e41, 0x1e41},
        {"\x2a\x02\x82\xaa", 0x0221, 0x0221}, {"\x1c\x9c", 0x1c0d, 0x1c0d},
        {"\x0e\x8e", 0x0e08, 0x0e08},         {"\x1d\x2e\xae\x9d", 0x2e03, 0x2e03},
        {"\x01\x81", 0x011b, 0x011b},         {"\xe0\x48\xe0\xc8", 0x4800, 0x48e0},
        {"\xe0\x53\xe0\xd3", 0x5300, 0x53e0}, {"\x3b\xbb", 0x3b00, 0x3b00},
        {"\x39\xb9", 0x3920, 0x3920},         {"\x0f\x8f", 0x0f09, 0x0f09},
    };

    start(1 << 20);
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (unsigned old = 0; old < 2; old++) {
            for (const char *p = rows[i].codes; *p; p++)
                call(0x1e, (uint8_t)*p);
            CHECK_EQ(ram[0x417], 0); /* nothing is held any more */
            CHECK_EQ(call(0x16, old ? 0x0100 : 0x1100), 0);
            CHECK(!(vmm_get16(ram + STACK - 2) & 0x40));
            CHECK_EQ(ax(), old ? rows[i].old : rows[i].grey);
            CHECK_EQ(call(0x16, old ? 0x0000 : 0x1000), 0);
            if (!CHECK_EQ(ax(), old ? rows[i].old : rows[i].grey))
                fprintf(stderr, "  row %u\n", i);
            CHECK_EQ(call(0x16, 0x0100), 0);
            CHECK(vmm_get16(ram + STACK - 2) & 0x40);
        }
}

static void test_escapes(void)
{
    static const struct {
        const char *text;
        unsigned key, taken;
    } rows[] = {{"\33[A", 0xe048, 3}, {"\33[3~x", 0xe053, 4}, {"\33OPq", 0x3b, 3}, {"\33[", 0, 0},
                {"\33", 0, 0},        {"\33[3", 0, 0},        {"\33[z", 0, 0},     {"a[A", 0, 0}};

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t taken = 0;
        CHECK_EQ(pc_bios_escape(rows[i].text, strlen(rows[i].text), &taken), rows[i].key);
        CHECK(!rows[i].key || taken == rows[i].taken);
    }
}

/* Keys that no terminal sends. */
static void test_scan_codes(void)
{
    static const struct {
        const char *codes;
        unsigned key, shift;
    } rows[] = {
        {"\x3a\xba\x1e", 0x1e41, 0x40}, /* caps lock */
        {"\x2a\x1e\xaa", 0x1e61, 0x40},
        {"\x3a\x1e", 0x1e61, 0},
        {"\x38\x1e\xb8", 0x1e00, 0},        /* alt */
        {"\x2a\x3b\xaa", 0x5400, 0},        /* shift F1 */
        {"\x1d\x58\x9d", 0x8a00, 0},        /* ctrl F12 */
        {"\x47", 0x4700, 0},                /* home on the pad */
        {"\x45\x47", 0x4737, 0x20},         /* with num lock */
        {"\xe0\x2a\xe0\x47", 0x47e0, 0x20}, /* the grey one, with its false shift */
        {"\x45\xc5\x4e", 0x4e2b, 0},
        {"\x36\x0f\xb6", 0x0f00, 0},
    };

    start(1 << 20);
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (const char *p = rows[i].codes; *p; p++)
            call(0x1e, (uint8_t)*p);
        CHECK_EQ(call(0x16, 0x1000), 0);
        if (!CHECK_EQ(ax(), rows[i].key))
            fprintf(stderr, "  row %u\n", i);
        call(0x16, 0x0200);
        CHECK_EQ(ax() & 0xff, rows[i].shift);
    }
}

static void test_ring(void)
{
    start(1 << 20);
    key_room = 0;
    CHECK_EQ(call(0x16, 0), 0x41); /* nothing yet: after the next interrupt */
    for (unsigned i = 0; i < 20; i++) {
        CHECK_EQ(pc_bios_room(&bios), i < 15);
        set(VMM_RCX, 0x1000 + i);
        call(0x16, 0x0500);
        CHECK_EQ(ax() & 0xff, i >= 15);
    }
    for (unsigned i = 0; i < 15; i++) {
        CHECK_EQ(call(0x16, 0), 0);
        CHECK_EQ(ax(), 0x1000 + i);
    }
    CHECK_EQ(key_room, 15);
    CHECK_EQ(call(0x16, 0), 0x41);
    memset(ram + 0x41a, 0xff, 4); /* whatever the guest makes of it */
    memset(ram + 0x480, 0xff, 4);
    CHECK_EQ(call(0x16, 0), 0x41);
    vmm_put16(ram + 0x480, 0xfe);
    vmm_put16(ram + 0x482, 0x100);
    CHECK_EQ(call(0x16, 0x0500), 0);
    CHECK_EQ(ax() & 0xff, 1); /* a ring for no key */
}

static void test_time(void)
{
    start(1 << 20);
    ram[0x470] = 1;
    vmm_put32(ram + 0x46c, 0x12345);
    call(0x1a, 0x0000);
    CHECK_EQ(ax(), 1);
    CHECK_EQ(r.gpr[VMM_RDX] & 0xffff, 0x2345);
    CHECK_EQ(r.gpr[VMM_RCX] & 0xffff, 1);
    CHECK_EQ(ram[0x470], 0);
    set(VMM_RCX, 0x17);
    set(VMM_RDX, 0xffff);
    call(0x1a, 0x0100);
    CHECK_EQ(vmm_get32(ram + 0x46c), 0x17ffff);
    call(0x1a, 0x0200);
    CHECK_EQ(r.gpr[VMM_RCX] & 0xffff, 0x1030);
    CHECK_EQ(r.gpr[VMM_RDX] & 0xffff, 0x1500);
    cmos[0x0b] = 6; /* the chip counts in binary: the service still speaks BCD */
    cmos[4] = 23;
    call(0x1a, 0x0200);
    CHECK_EQ(r.gpr[VMM_RCX] >> 8 & 0xff, 0x23);
    set(VMM_RCX, 0x2026);
    set(VMM_RDX, 0x1124);
    call(0x1a, 0x0500);
    CHECK(cmos[0x32] == 20 && cmos[9] == 26 && cmos[8] == 11 && cmos[7] == 24 && cmos[0x0b] == 6);
    set(VMM_RCX, 0);
    set(VMM_RDX, 0);
    call(0x1a, 0x0400);
    CHECK_EQ(r.gpr[VMM_RCX] & 0xffff, 0x2026);
    CHECK_EQ(r.gpr[VMM_RDX] & 0xffff, 0x1124);
    call(0x1a, 0xb101);
    CHECK(carry());
}

static void test_serial(void)
{
    start(1 << 20);
    set(VMM_RDX, 0);
    CHECK_EQ(call(0x14, 0x0142), 0);
    CHECK(heard("B"));
    call(0x14, 0x0300);
    CHECK_EQ(ax(), 0x60b0);
    call(0x14, 0x0200);
    CHECK(ax() & 0x8000);
    room = 0;
    CHECK_EQ(call(0x14, 0x0142), 1);
    set(VMM_RDX, 1);
    call(0x14, 0x0142);
    CHECK_EQ(ax() >> 8, 0x80);
}

static void test_boot(void)
{
    memset(disk, 0, 1024);
    memcpy(disk, "boot", 4);
    start(1 << 20);
    CHECK_EQ(call(0x19, 0), 1); /* no signature */
    vmm_put16(disk + 510, 0xaa55);
    CHECK_EQ(call(0x19, 0), 0);
    CHECK(!memcmp(ram + 0x7c00, disk, 512));
    CHECK_EQ(r.gpr[VMM_RDX] & 0xff, 0x80);
    start(1440 << 10);
    CHECK_EQ(call(0x19, 0), 0);
    CHECK_EQ(r.gpr[VMM_RDX] & 0xff, 0);
    disk_err = -EIO;
    CHECK_EQ(call(0x19, 0), 1);
    failed = 0;
    CHECK_EQ(call(0x18, 0), 0x41);
    CHECK_EQ(failed, 1);
    start(0);
    CHECK_EQ(call(0x19, 0), 1);
}

int main(void)
{
    test_rom();
    test_power_on();
    test_strangers();
    test_teletype();
    test_screen();
    test_redraw();
    test_scroll();
    test_string();
    test_slow_terminal();
    test_geometry();
    test_chs();
    test_packets();
    test_memory();
    test_block_move();
    test_wait();
    test_power_off();
    test_keys();
    test_escapes();
    test_scan_codes();
    test_ring();
    test_time();
    test_serial();
    test_boot();
    CHECK_DONE("test_bios");
}
