/* test_firmware.c - what a PC's firmware finds: its image, its log, its items, the bridge to ISA,
   an ATA disk. MIT licence, see LICENSE

   Numbers of ports and registers are written out from the specifications once more. */
#define BOOT_IMPLEMENTATION
#define DEV_LEGACY_IMPLEMENTATION
#define DEV_PCI_IMPLEMENTATION
#include "../boot.h"
#include "../dev_legacy.h"
#include "../dev_pci.h"

#include "check.h"

/* The last lines of the log. */
static struct {
    char text[8][256];
    enum vmm_level level[8];
    unsigned n;
} said;

static void sink(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    (void)ctx;
    said.level[said.n % 8] = level;
    vsnprintf(said.text[said.n % 8], sizeof said.text[0], fmt, args);
    said.n++;
}

static struct vmm_log loud = {.sink = sink, .level = VMM_LOG_DEBUG};

/* >>image */
static void test_image(void)
{
    static uint8_t ram[1 << 20], rom[5 * 65536];
    static const struct {
        uint64_t len, ram;
        uint8_t jump;
        int err;
        const char *words;
    } cases[] = {
        {65536, sizeof ram, 0xea, 0, ""},
        {2 * 65536, sizeof ram, 0xe9, 0, ""},
        {4 * 65536, sizeof ram, 0xeb, 0, ""},
        {0, sizeof ram, 0xea, -ENOEXEC, "64, 128, 192 or 256 KiB"},
        {65535, sizeof ram, 0xea, -ENOEXEC, "has 65535 bytes"},
        {5 * 65536, sizeof ram, 0xea, -ENOEXEC, "64, 128, 192 or 256 KiB"},
        {65536, sizeof ram, 0, -ENOEXEC, "no jump at its reset vector"},
        {65536, sizeof ram - 4096, 0xea, -ENOMEM, "--mem 1M"},
    };

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vmm_mem mem = {0};
        struct boot_firmware_desc d = {&mem, {rom, cases[i].len, NULL}, &loud};
        struct vmm_x86_regs r;
        uint64_t low = cases[i].len < 0x20000 ? cases[i].len : 0x20000;

        memset(ram, 0, sizeof ram);
        for (unsigned b = 0; b < sizeof rom; b++)
            rom[b] = (uint8_t)(b * 7 + (b >> 8));
        if (cases[i].len >= 16)
            rom[cases[i].len - 16] = cases[i].jump;
        vmm_mem_add(&mem, 0, cases[i].ram, ram);
        said.n = 0;
        CHECK_EQ(boot_firmware(&d, &r), cases[i].err);
        CHECK_EQ(said.n, cases[i].err ? 1 : 0);
        if (cases[i].err) {
            CHECK(strstr(said.text[0], cases[i].words) && strstr(said.text[0], "firmware: "));
            continue;
        }
        CHECK(!memcmp(ram + sizeof ram - low, rom + cases[i].len - low, low));
        CHECK(!ram[sizeof ram - 0x20001]);
        CHECK_EQ(r.cs.base + r.rip, 0xfffffff0);
        CHECK_EQ(r.cs.selector, 0xf000);
        CHECK_EQ(r.cs.limit, 0xffff);
        CHECK(!r.ds.base && !r.ds.selector && !r.ss.base && !(r.cr0 & 1) && r.rflags == 2);
    }
}

/* >>files */
static void test_e820(void)
{
    static uint8_t low[1 << 20], high[4096];
    static struct boot_firmware_files f;
    struct vmm_mem mem = {0};
    struct boot_machine m = {.mem = &mem, .ncpus = 1, .pci = {.ecam = 0xfed00000}};
    static const struct {
        uint64_t gpa, len;
        uint32_t type;
    } want[] = {{0, sizeof low, 1},
                {1ull << 32, sizeof high, 1},
                {0xfffbc000, 0x4000, 2},
                {0xfed00000, 0x100000, 2}};

    vmm_mem_add(&mem, 0, sizeof low, low);
    vmm_mem_add(&mem, 1ull << 32, sizeof high, high);
    CHECK_EQ(boot_firmware_make(&m, &f, &loud), 0);
    CHECK_EQ(f.e820_len, 80);
    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQ(vmm_get64(f.e820 + 20 * i), want[i].gpa);
        CHECK_EQ(vmm_get64(f.e820 + 20 * i + 8), want[i].len);
        CHECK_EQ(vmm_get32(f.e820 + 20 * i + 16), want[i].type);
    }
    said.n = 0;
    m.ncpus = 0;
    CHECK_EQ(boot_firmware_make(&m, &f, &loud), -EINVAL);
    CHECK_EQ(said.n, 1);
}

/* The firmware's part: places the two files, and mends them as the orders say. */
#define TABLES 0x7ff00000u
#define RSDP   0xf5a00u

static uint8_t sum(const uint8_t *p, uint32_t n)
{
    uint8_t s = 0;

    while (n--)
        s = (uint8_t)(s + *p++);
    return s;
}

static void obey(struct boot_firmware_files *f, const uint8_t *order)
{
    const char *file = (const char *)order + 4;
    bool rsdp = !strcmp(file, "etc/acpi/rsdp");
    uint8_t *data = rsdp ? f->rsdp : f->tables;
    uint32_t len = rsdp ? f->rsdp_len : f->tables_len, at, n;
    uint64_t v = 0;

    CHECK(rsdp || !strcmp(file, "etc/acpi/tables"));
    switch (vmm_get32(order)) {
    case 1: /* place */
        CHECK_EQ(vmm_get32(order + 60), rsdp ? 16 : 64);
        CHECK_EQ(order[64], rsdp ? 2 : 1);
        break;
    case 2: /* pointer */
        CHECK(!strcmp(file + 56, "etc/acpi/tables"));
        at = vmm_get32(order + 116);
        n = order[120];
        if (!CHECK((n == 4 || n == 8) && at + n <= len))
            break;
        memcpy(&v, data + at, n);
        CHECK(v < f->tables_len);
        v += TABLES;
        memcpy(data + at, &v, n);
        break;
    case 3: /* checksum */
        at = vmm_get32(order + 64);
        n = vmm_get32(order + 68);
        if (CHECK(at + n <= len && vmm_get32(order + 60) - at < n))
            data[vmm_get32(order + 60)] -= sum(data + at, n);
        break;
    default:
        CHECK(!"an order that there is not");
    }
}

/* A table at an address, if all of it is among the tables and sound. */
static const uint8_t *table(const struct boot_firmware_files *f, uint64_t gpa, const char *sig)
{
    const uint8_t *t = f->tables + (gpa - TABLES);

    if (!CHECK(gpa >= TABLES && gpa - TABLES + 36 <= f->tables_len) || !CHECK(!memcmp(t, sig, 4)) ||
        !CHECK(gpa - TABLES + vmm_get32(t + 4) <= f->tables_len))
        return f->tables;
    if (strcmp(sig, "FACS"))
        CHECK_EQ(sum(t, vmm_get32(t + 4)), 0);
    return t;
}

/* With and without the registers that a machine with hardware-reduced ACPI lacks. */
static void test_acpi(void)
{
    static uint8_t low[1 << 20];
    static struct boot_firmware_files f;
    static const char *const sig[] = {"FACP", "APIC", "MCFG"};
    struct vmm_mem mem = {0};
    struct boot_machine m = {.mem = &mem, .ncpus = 3, .pci = {.ecam = 0xfed00000}};
    const uint8_t *t;

    vmm_mem_add(&mem, 0, sizeof low, low);
    for (unsigned pm = 0; pm < 2; pm++) {
        m.pm_port = pm ? 0x600 : 0;
        CHECK_EQ(boot_firmware_make(&m, &f, &loud), 0);
        CHECK(f.loader_len && f.loader_len % 128 == 0 && f.loader_len <= sizeof f.loader);
        for (uint32_t at = 0; at < f.loader_len; at += 128)
            obey(&f, f.loader + at);
        CHECK(!memcmp(f.rsdp, "RSD PTR ", 8) && !sum(f.rsdp, 20) && !sum(f.rsdp, 36));
        t = table(&f, vmm_get64(f.rsdp + 24), "XSDT");
        CHECK_EQ(vmm_get32(t + 4), 36 + 3 * 8);
        for (unsigned i = 0; i < 3; i++)
            table(&f, vmm_get64(t + 36 + 8 * i), sig[i]);
        t = table(&f, vmm_get64(t + 36), "FACP");
        table(&f, vmm_get64(t + 140), "DSDT");
        if (pm)
            CHECK_EQ((table(&f, vmm_get32(t + 36), "FACS") - f.tables) % 64, 0);
        else
            CHECK_EQ(vmm_get32(t + 36), 0);
    }
    m.no_acpi = true;
    CHECK_EQ(boot_firmware_make(&m, &f, &loud), 0);
    CHECK(!f.loader_len && !f.tables_len && !f.rsdp_len && f.e820_len);
    said.n = 0;
    m.no_acpi = false;
    m.ncpus = 100000;
    CHECK_EQ(boot_firmware_make(&m, &f, &loud), -EINVAL);
    CHECK(said.n == 1 && strstr(said.text[0], "100000 CPUs"));
}

/* >>log */
static void put_text(struct pc_fwlog *f, unsigned port, const char *s)
{
    for (; *s; s++)
        pc_fwlog_write(f, port, 1, (uint8_t)*s);
}

static void test_log(void)
{
    struct pc_fwlog f = {.log = &loud};

    said.n = 0;
    put_text(&f, 2, "hello\r");
    put_text(&f, 3, "detail\n");
    CHECK_EQ(said.n, 1);
    CHECK(!strcmp(said.text[0], "firmware: detail") && said.level[0] == VMM_LOG_DEBUG);
    put_text(&f, 2, "\n\n");
    CHECK_EQ(said.n, 2);
    CHECK(!strcmp(said.text[1], "firmware: hello") && said.level[1] == VMM_LOG_INFO);
    CHECK_EQ(pc_fwlog_read(&f, 2, 1), 0xe9);
    CHECK_EQ(pc_fwlog_read(&f, 2, 2), 0xffe9);
    CHECK_EQ(pc_fwlog_read(&f, 1, 1), 0xff);

    for (unsigned i = 0; i < 250; i++)
        put_text(&f, 2, "x");
    CHECK_EQ(said.n, 4); /* what never ends is cut */
    CHECK_EQ(strlen(said.text[2]), strlen("firmware: ") + 99);
    for (unsigned i = 0; i < 1000; i++)
        put_text(&f, 0, "panic\n");
    CHECK_EQ(said.n, 4 + 8); /* within a budget */
    CHECK_EQ(said.level[5], VMM_LOG_WARN);

    loud.level = VMM_LOG_WARN;
    put_text(&f, 2, "unheard\n");
    CHECK_EQ(said.n, 12);
    CHECK_EQ(pc_fwlog_read(&f, 2, 1), 0xff);
    CHECK_EQ(pc_fwlog_read(&f, 0, 1), 0xe9);
    loud.level = VMM_LOG_DEBUG;
}

/* >>items */
static uint8_t ram[0x4000];
static const uint8_t nine[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
static const struct pc_fwcfg_item items[] = {
    {NULL, 5, 2, "\x04"},
    {"etc/nine", 0, sizeof nine, nine},
    {"a name that is longer than the fifty-five bytes that there are for it", 0, 1, "x"},
};

static void select_item(struct pc_fwcfg *f, uint16_t key)
{
    pc_fwcfg_write(f, 0, 2, key);
}

static unsigned next(struct pc_fwcfg *f)
{
    return (unsigned)pc_fwcfg_read(f, 1, 1);
}

static void test_items_by_port(void)
{
    struct pc_fwcfg f = {.item = items, .nitems = 3};
    uint8_t entry[64];

    select_item(&f, 0);
    CHECK(next(&f) == 'Q' && next(&f) == 'E' && next(&f) == 'M' && next(&f) == 'U' && !next(&f));
    select_item(&f, 1);
    CHECK(next(&f) == 1 && !next(&f));
    select_item(&f, 5);
    CHECK(next(&f) == 4 && !next(&f) && !next(&f));
    select_item(&f, 0x19);
    CHECK(!next(&f) && !next(&f) && !next(&f) && next(&f) == 2);
    for (unsigned i = 0; i < sizeof entry; i++)
        entry[i] = (uint8_t)next(&f);
    CHECK(!memcmp(entry, "\0\0\0\x09\0\x21\0\0etc/nine", 17));
    for (unsigned i = 0; i < sizeof entry; i++)
        entry[i] = (uint8_t)next(&f);
    CHECK(!memcmp(entry, "\0\0\0\1\0\x22\0\0a name", 14) && entry[62] && !entry[63]);
    CHECK_EQ(next(&f), 0);
    select_item(&f, 0x21);
    for (unsigned i = 0; i < sizeof nine; i++)
        CHECK_EQ(next(&f), nine[i]);
    CHECK_EQ(next(&f), 0);
    select_item(&f, 0x20); /* the first has no name, so not this key */
    CHECK_EQ(next(&f), 0);
    CHECK_EQ(pc_fwcfg_read(&f, 4, 4), 0xffffffff); /* no transfers without memory */
    CHECK_EQ(pc_fwcfg_read(&f, 0, 2), 0xffff);
}

/* A descriptor at 0x100, and what its control word is afterwards. */
static uint32_t transfer(struct pc_fwcfg *f, uint32_t control, uint32_t len, uint64_t gpa)
{
    uint8_t *d = ram + 0x100;

    for (unsigned i = 0; i < 4; i++) {
        d[i] = (uint8_t)(control >> (24 - 8 * i));
        d[4 + i] = (uint8_t)(len >> (24 - 8 * i));
    }
    for (unsigned i = 0; i < 8; i++)
        d[8 + i] = (uint8_t)(gpa >> (56 - 8 * i));
    pc_fwcfg_write(f, 4, 4, 0);
    pc_fwcfg_write(f, 8, 4, 0x00010000); /* 0x100, big-endian */
    return (uint32_t)d[0] << 24 | (uint32_t)d[1] << 16 | (uint32_t)d[2] << 8 | d[3];
}

static void test_items_by_transfer(void)
{
    enum { ERROR = 1, READ = 2, SKIP = 4, SELECT = 8, WRITE = 16, NINE = 0x21 << 16 };
    static uint8_t large[PC_FWCFG_DMA_MAX + 1];
    struct vmm_mem mem = {0};
    struct pc_fwcfg f = {.item = items, .nitems = 3, .mem = &mem};

    vmm_mem_add(&mem, 0, sizeof ram, ram);
    vmm_mem_add(&mem, 1ull << 32, sizeof large, large);
    select_item(&f, 1);
    CHECK_EQ(next(&f), 3);
    CHECK_EQ(pc_fwcfg_read(&f, 4, 4), 0x554d4551); /* "QEMU" */
    CHECK_EQ(pc_fwcfg_read(&f, 8, 4), 0x47464320); /* " CFG" */

    memset(ram, 0xcc, sizeof ram);
    CHECK_EQ(transfer(&f, NINE | SELECT | READ, 12, 0x1000), 0);
    CHECK(!memcmp(ram + 0x1000, nine, 9) && !memcmp(ram + 0x1009, "\0\0\0\xcc", 4));
    CHECK_EQ(transfer(&f, NINE | SELECT | SKIP, 7, 0), 0);
    CHECK_EQ(transfer(&f, READ, 1, 0x1000), 0);
    CHECK_EQ(ram[0x1000], 8);
    CHECK_EQ(next(&f), 9); /* both ways go on where the other was */
    CHECK_EQ(transfer(&f, SKIP, 0xffffffff, 0), 0);
    CHECK_EQ(transfer(&f, SKIP, 0xffffffff, 0), 0);
    CHECK_EQ(next(&f), 0);

    CHECK_EQ(transfer(&f, READ, 0x101, sizeof ram - 0x100), ERROR);
    CHECK_EQ(transfer(&f, READ, 1, ~0ull), ERROR);
    CHECK_EQ(transfer(&f, READ, 0xffffffff, 0), ERROR);
    CHECK_EQ(transfer(&f, NINE | SELECT | READ, sizeof large - 1, 1ull << 32), 0);
    CHECK_EQ(large[8], 9);
    CHECK_EQ(transfer(&f, NINE | SELECT | READ, sizeof large, 1ull << 32), ERROR);
    CHECK_EQ(transfer(&f, NINE | SELECT | WRITE, 1, 0x1000), ERROR);
    CHECK_EQ(nine[0], 1);

    memset(ram, 0xcc, sizeof ram); /* a descriptor that is nowhere */
    pc_fwcfg_write(&f, 4, 4, 0x01000000);
    pc_fwcfg_write(&f, 8, 4, 0x00010000);
    CHECK_EQ(ram[0x100], 0xcc);
    pc_fwcfg_write(&f, 8, 4, 0xf83f0000); /* 0x3ff8: its end is */
    CHECK_EQ(ram[0x3ff8], 0xcc);
    pc_fwcfg_write(&f, 8, 2, 0); /* and no half a trigger */
    CHECK_EQ(ram[0], 0xcc);
}

/* >>isa */
static struct {
    bool line[24];
    struct pci_root root;
    struct pci_isa isa;
    struct pci_dev card[2];
    struct vmm_bus ports;
} pc;

static void set_line(void *ctx, unsigned line, bool level)
{
    (void)ctx;
    if (CHECK(line < 24))
        pc.line[line] = level;
}

static void config(unsigned slot, unsigned reg, unsigned len, uint64_t val)
{
    uint64_t where = 0x80000000 | slot << 11 | (reg & 0xfc);

    vmm_bus_access(&pc.ports, 0xcf8, 4, true, &where);
    vmm_bus_access(&pc.ports, 0xcfc + (reg & 3), len, true, &val);
}

static uint64_t look(unsigned slot, unsigned reg, unsigned len)
{
    uint64_t where = 0x80000000 | slot << 11 | (reg & 0xfc), val = 0;

    vmm_bus_access(&pc.ports, 0xcf8, 4, true, &where);
    vmm_bus_access(&pc.ports, 0xcfc + (reg & 3), len, false, &val);
    return val;
}

static bool lines_are(uint32_t set)
{
    for (unsigned i = 0; i < 24; i++)
        if (pc.line[i] != (set >> i & 1))
            return false;
    return true;
}

/* seen: the bridge is on the bus; else lines are routed for good. */
static void plug_bus(bool seen)
{
    struct pci_root_desc root = {.vendor = 0x8086, .device = 0x1237, .line = {10, 11, 5, 7}};
    struct pci_isa_desc isa = {.irq = {set_line, NULL, 0}};
    struct pci_desc card = {.vendor = 1, .device = 1, .intx = true};

    memset(&pc, 0, sizeof pc);
    for (unsigned i = 0; i < 4; i++) {
        isa.intx[i] = (struct vmm_irq){set_line, NULL, 16 + i};
        root.intx[i] = (struct vmm_irq){pci_isa_intx, &pc.isa, i};
    }
    if (!seen)
        memcpy(isa.route, root.line, sizeof isa.route);
    pci_root_init(&pc.root, &root);
    CHECK_EQ(pci_isa_init(&pc.isa, &isa), 0);
    CHECK(!seen || !pci_plug(&pc.root, &pc.isa.dev));
    for (unsigned i = 0; i < 2; i++) {
        CHECK_EQ(pci_init(&pc.card[i], &card), 0);
        CHECK_EQ(pci_plug(&pc.root, &pc.card[i]), 0);
    }
    CHECK_EQ(pci_root_add_io(&pc.root, NULL, &pc.ports), 0);
}

/* Lines that nobody sees a bridge for, and what the devices' registers say of them. */
static void test_routes(void)
{
    plug_bus(false);
    CHECK_EQ(look(1, 0, 4), 0x00010001);
    CHECK_EQ(look(1, 0x3c, 2), 0x10b);
    CHECK_EQ(look(2, 0x3c, 2), 0x105);
    pci_intx_set(&pc.card[0], true);
    CHECK(lines_are(1 << 17 | 1 << 11));
    pci_intx_set(&pc.card[1], true);
    CHECK(lines_are(1 << 17 | 1 << 18 | 1 << 11 | 1 << 5));
    config(2, 0x3c, 1, 0x42); /* a note, and no more */
    pci_intx_set(&pc.card[0], false);
    CHECK(lines_are(1 << 18 | 1 << 5));
    pci_reset(&pc.root);
    CHECK(lines_are(0));
    CHECK_EQ(look(2, 0x3c, 2), 0x105);
}

/* Slots 2 and 3 have the bus's lines 2 and 3, which are PIRQB# and PIRQC#. */
static void test_isa(void)
{
    plug_bus(true);
    CHECK_EQ(look(1, 0, 4), 0x70008086);
    CHECK_EQ(look(1, 8, 4) >> 8, 0x060100);
    CHECK_EQ(look(1, 0x60, 4), 0x80808080);
    pci_intx_set(&pc.card[0], true);
    CHECK(lines_are(1 << 18));
    config(1, 0x61, 1, 10); /* routed while it is pulled */
    CHECK(lines_are(1 << 18 | 1 << 10));
    config(1, 0x62, 1, 10); /* shared */
    pci_intx_set(&pc.card[1], true);
    CHECK(lines_are(1 << 18 | 1 << 19 | 1 << 10));
    pci_intx_set(&pc.card[0], false);
    CHECK(lines_are(1 << 19 | 1 << 10));
    config(1, 0x62, 1, 0x7b); /* elsewhere; bits that there are not */
    CHECK_EQ(look(1, 0x62, 1), 0x0b);
    CHECK(lines_are(1 << 19 | 1 << 11));
    for (unsigned irq = 0; irq < 16; irq++) { /* those that are no PCI device's */
        config(1, 0x60, 4, irq * 0x01010101);
        CHECK(lines_are(1 << 19 | (irq < 3 || irq == 8 || irq == 13 ? 0 : 1u << irq)));
    }
    config(1, 0x62, 2, 0x8080);
    CHECK(lines_are(1 << 19));
    config(1, 0x60, 4, 0x05050505);
    CHECK(lines_are(1 << 19 | 1 << 5));
    pci_reset(&pc.root);
    CHECK(lines_are(0));
    CHECK_EQ(look(1, 0x60, 4), 0x80808080);
    pci_intx_set(&pc.card[1], true);
    CHECK(lines_are(1 << 19));
}

static void test_shadow(void)
{
    plug_bus(true);
    CHECK_EQ(look(0, 0, 4), 0x12378086);
    CHECK_EQ(look(0, 0x58, 4), 0);
    config(0, 0x58, 4, 0xffffffff);
    config(0, 0x5c, 4, 0xffffffff);
    CHECK_EQ(look(0, 0x58, 4), 0x33333300);
    CHECK_EQ(look(0, 0x5c, 4), 0x33333333);
    pci_reset(&pc.root);
    CHECK_EQ(look(0, 0x5c, 4), 0);
}

/* >>ata: 0x1f0 and 0x3f6, by their offsets */
enum { DATA, ERROR, COUNT, LBA0, LBA1, LBA2, DEVICE, STATUS, CMD = STATUS, FEATURES = ERROR };
enum { READY = 0x50, DRQ = 0x58, FAILED = 0x51, NSECTORS = 3 * 1008 + 5 };

static struct {
    struct pc_ata ata;
    uint8_t sector[NSECTORS][512];
    bool line, broken; /* broken: the host fails */
    unsigned irqs, flushes, ios;
} ide;

static void ide_line(void *ctx, unsigned line, bool level)
{
    (void)ctx;
    CHECK_EQ(line, 14);
    ide.irqs += level && !ide.line;
    ide.line = level;
}

static int ide_rw(void *ctx, bool write, void *buf, uint64_t sector, unsigned n)
{
    (void)ctx;
    if (!CHECK(n && n <= 16 && sector < NSECTORS && n <= NSECTORS - sector))
        return -EIO;
    ide.ios++;
    if (ide.broken)
        return -EIO;
    if (write)
        memcpy(ide.sector[sector], buf, 512 * n);
    else
        memcpy(buf, ide.sector[sector], 512 * n);
    return 0;
}

static int ide_flush(void *ctx)
{
    (void)ctx;
    ide.flushes++;
    return ide.broken ? -EIO : 0;
}

static void ide_power_on(uint64_t nsectors)
{
    struct pc_ata_desc d = {{ide_line, NULL, 14}, nsectors, "serial", ide_rw, ide_flush, NULL};

    memset(&ide, 0, sizeof ide);
    for (unsigned i = 0; i < NSECTORS; i++)
        for (unsigned b = 0; b < 512; b++)
            ide.sector[i][b] = (uint8_t)(i * 3 + b);
    pc_ata_init(&ide.ata, &d);
}

static void out(unsigned reg, uint8_t val)
{
    pc_ata_command_write(&ide.ata, reg, 1, val);
}

static unsigned in(unsigned reg)
{
    return (unsigned)pc_ata_command_read(&ide.ata, reg, 1);
}

/* The status as polled: without a word to the interrupt. */
static unsigned peek(void)
{
    return (unsigned)pc_ata_control_read(&ide.ata, 0, 1);
}

/* A command that addresses `count` sectors by LBA; one of 48 bits by the upper halves first. */
static void command48(uint8_t cmd, uint64_t lba, unsigned count, bool is48)
{
    out(DEVICE, is48 ? 0x40 : 0xe0 | (uint8_t)(lba >> 24 & 15));
    for (unsigned half = is48; half < 2; half--) {
        out(COUNT, (uint8_t)(count >> 8 * half));
        for (unsigned i = 0; i < 3; i++)
            out(LBA0 + i, (uint8_t)(lba >> 8 * (i + 3 * half)));
    }
    out(CMD, cmd);
}

static bool reads(unsigned sector, unsigned n)
{
    bool same = true;

    for (unsigned i = 0; i < 256 * n; i++)
        same &= pc_ata_command_read(&ide.ata, DATA, 2) == vmm_get16(ide.sector[sector] + 2 * i);
    return same;
}

static void writes(uint8_t val, unsigned n)
{
    for (unsigned i = 0; i < 256 * n; i++)
        pc_ata_command_write(&ide.ata, DATA, 2, val * 0x101u);
}

static void test_ata_identity(void)
{
    uint16_t id[256];

    ide_power_on(NSECTORS);
    CHECK(in(STATUS) == READY && in(COUNT) == 1 && in(LBA0) == 1 && !in(LBA1) && !in(LBA2));
    out(CMD, 0xec);
    CHECK(ide.line && peek() == DRQ && ide.line);
    CHECK(in(STATUS) == DRQ && !ide.line);
    for (unsigned i = 0; i < 256; i++)
        id[i] = (uint16_t)pc_ata_command_read(&ide.ata, DATA, 2);
    CHECK(in(STATUS) == READY && ide.irqs == 1);
    CHECK_EQ(pc_ata_command_read(&ide.ata, DATA, 2), 0xffff);
    CHECK(id[0] == 0x40 && id[1] == 3 && id[3] == 16 && id[5] == 512 && id[6] == 63);
    CHECK_EQ(id[10], 's' << 8 | 'e');
    CHECK_EQ(id[13], ' ' << 8 | ' ');
    CHECK(id[47] == 0x8010 && (id[49] & 0x300) == 0x200 && !id[63] && !id[88]);
    CHECK_EQ(id[60] | id[61] << 16, NSECTORS);
    CHECK_EQ(id[100] | id[101] << 16, NSECTORS);
    CHECK(id[57] == 3 * 1008 && !id[58] && (id[83] & 0x7400) == 0x7400);

    ide_power_on((uint64_t)1 << 40); /* beyond 28 bits and CHS */
    out(CMD, 0xec);
    for (unsigned i = 0; i < 256; i++)
        id[i] = (uint16_t)pc_ata_command_read(&ide.ata, DATA, 2);
    CHECK(id[1] == 16383 && id[60] == 0xffff && id[61] == 0x0fff && id[102] == 0x100);
}

static void test_ata_reads(void)
{
    ide_power_on(NSECTORS);
    command48(0x20, 7, 3, false);
    CHECK(peek() == DRQ && ide.irqs == 1);
    CHECK(reads(7, 3));
    CHECK_EQ(in(STATUS), READY);
    command48(0x20, 7, 3, false); /* an interrupt for each sector */
    for (unsigned i = 0; i < 3; i++)
        CHECK(in(STATUS) == DRQ && !ide.line && reads(7 + i, 1) && ide.line == (i < 2));
    CHECK_EQ(ide.irqs, 4);
    CHECK_EQ(in(STATUS), READY);
    command48(0x24, NSECTORS - 2, 2, true);
    CHECK(reads(NSECTORS - 2, 2) && in(STATUS) == READY);
    command48(0x20, 0, 0, false); /* 0 is 256 */
    CHECK(reads(0, 255) && in(STATUS) == DRQ);
    CHECK(reads(255, 1) && in(STATUS) == READY);
    command48(0x20, 0, 1, false); /* by 32 bits */
    for (unsigned i = 0; i < 128; i++)
        CHECK_EQ(pc_ata_command_read(&ide.ata, DATA, 4), vmm_get32(ide.sector[0] + 4 * i));
    CHECK_EQ(in(STATUS), READY);

    out(DEVICE, 0xa0 | 5); /* cylinder 2, head 5, sector 63 */
    out(LBA1, 2);
    out(LBA2, 0);
    out(LBA0, 63);
    out(COUNT, 1);
    out(CMD, 0x20);
    CHECK(reads((2 * 16 + 5) * 63 + 62, 1) && in(STATUS) == READY);
    out(DEVICE, 0xa3); /* 4 heads of 10 sectors: cylinder 2, head 3, sector 1 */
    out(COUNT, 10);
    out(CMD, 0x91);
    out(COUNT, 1);
    out(LBA0, 1);
    out(CMD, 0x21);
    CHECK(in(STATUS) == DRQ && reads((2 * 4 + 3) * 10, 1));
    out(LBA0, 11);
    out(CMD, 0x20);
    CHECK(in(STATUS) == FAILED && in(ERROR) == 0x10);
    out(LBA0, 0);
    out(CMD, 0x20);
    CHECK(in(STATUS) == FAILED && in(ERROR) == 0x10);
}

static void test_ata_writes(void)
{
    ide_power_on(NSECTORS);
    command48(0x30, 9, 2, false);
    CHECK(peek() == DRQ && !ide.irqs);
    writes(0x11, 1);
    CHECK(in(STATUS) == DRQ && ide.irqs == 1 && ide.sector[9][511] == 0x11);
    CHECK_EQ(pc_ata_command_read(&ide.ata, DATA, 2), 0xffff); /* the other way round */
    writes(0x22, 1);
    CHECK(in(STATUS) == READY && ide.irqs == 2 && ide.sector[10][0] == 0x22);
    CHECK_EQ(ide.sector[11][0], 33);
    command48(0x34, NSECTORS - 1, 1, true);
    writes(0x33, 1);
    CHECK(in(STATUS) == READY && ide.sector[NSECTORS - 1][0] == 0x33);
    out(CMD, 0xe7);
    CHECK(in(STATUS) == READY && ide.flushes == 1);

    out(COUNT, 8); /* eight for one interrupt */
    out(CMD, 0xc6);
    CHECK_EQ(in(STATUS), READY);
    ide.irqs = 0;
    command48(0xc5, 20, 10, false);
    writes(0x44, 8);
    CHECK(in(STATUS) == DRQ && ide.irqs == 1);
    writes(0x44, 2);
    CHECK(in(STATUS) == READY && ide.irqs == 2 && ide.sector[29][511] == 0x44);
    CHECK_EQ(ide.sector[30][0], 90);
    ide.irqs = 0;
    command48(0x29, 20, 10, true);
    CHECK(reads(20, 10) && ide.irqs == 1);
    CHECK_EQ(in(STATUS), READY);
    for (unsigned n = 3; n < 256; n += 29) { /* no power of two up to 16 */
        out(COUNT, (uint8_t)n);
        out(CMD, 0xc6);
        CHECK(in(STATUS) == FAILED && in(ERROR) == 4);
    }
    command48(0xc4, 0, 1, false); /* and then the mode is off */
    CHECK(in(STATUS) == FAILED && in(ERROR) == 4);
}

static void test_ata_errors(void)
{
    static const struct {
        uint64_t lba;
        uint8_t cmd;
        uint16_t count;
        bool is48;
        uint8_t error;
    } cases[] = {
        {NSECTORS, 0x20, 1, false, 0x10},
        {NSECTORS - 1, 0x20, 2, false, 0x10},
        {NSECTORS, 0x30, 1, false, 0x10},
        {0xffffffffffff, 0x24, 1, true, 0x10},
        {0xffffffffffff, 0x34, 0, true, 0x10},
        {NSECTORS, 0x40, 1, false, 0x10},
        {0, 0x40, 200, false, 0},
        {0, 0x42, 0, true, 0x10},
        {0, 0xc8, 1, false, 4},
        {0, 0xa1, 0, false, 4},
        {0, 0x08, 0, false, 4},
        {0, 0xb0, 0, false, 4},
        {0, 0x10, 0, false, 0},
        {0, 0x7f, 0, false, 0},
        {0, 0xe0, 0, false, 0},
        {0, 0xff, 0, false, 4},
    };

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ide_power_on(NSECTORS);
        command48(cases[i].cmd, cases[i].lba, cases[i].count, cases[i].is48);
        CHECK(ide.line && !ide.ios);
        CHECK_EQ(in(ERROR), cases[i].error);
        CHECK_EQ(in(STATUS), cases[i].error ? FAILED : READY);
        CHECK(!ide.line);
    }
    ide_power_on(NSECTORS);
    ide.broken = true;
    command48(0x20, 0x123, 1, false);
    CHECK(in(STATUS) == FAILED && in(ERROR) == 0x40 && in(LBA0) == 0x23 && in(LBA1) == 1);
    command48(0x30, 0, 1, false);
    writes(1, 1);
    CHECK(in(STATUS) == FAILED && in(ERROR) == 4);
    out(CMD, 0xea);
    CHECK(in(STATUS) == FAILED && in(ERROR) == 4);
    out(FEATURES, 3);
    out(COUNT, 0x0c); /* PIO mode 4, but no DMA */
    out(CMD, 0xef);
    CHECK_EQ(in(STATUS), READY);
    out(COUNT, 0x45);
    out(CMD, 0xef);
    CHECK_EQ(in(STATUS), FAILED);
}

static void test_ata_reset(void)
{
    ide_power_on(NSECTORS);
    command48(0x30, 5, 1, false);
    writes(0x55, 0);
    out(DEVICE, 0xb0);
    pc_ata_control_write(&ide.ata, 0, 1, 6); /* SRST, nIEN, in the middle of a transfer */
    CHECK(in(STATUS) == 0x80);
    out(CMD, 0xec);
    CHECK(in(STATUS) == 0x80 && !ide.line);
    pc_ata_control_write(&ide.ata, 0, 1, 2);
    CHECK(in(STATUS) == READY && in(ERROR) == 1 && in(COUNT) == 1 && in(LBA0) == 1);
    CHECK_EQ(ide.sector[5][0], 15);
    out(CMD, 0xec);
    CHECK(!ide.line); /* nIEN */
    pc_ata_control_write(&ide.ata, 0, 1, 0);
    CHECK(ide.line);
    out(COUNT, 0x12);
    out(COUNT, 0x34);
    pc_ata_control_write(&ide.ata, 0, 1, 0x80); /* HOB */
    CHECK_EQ(in(COUNT), 0x12);
    out(LBA0, 0);
    CHECK_EQ(in(COUNT), 0x34);

    out(DEVICE, 0xb0); /* nobody */
    CHECK(in(STATUS) == 0 && peek() == 0);
    ide.irqs = 0;
    out(CMD, 0x20);
    CHECK(in(STATUS) == 0 && !ide.irqs);
    out(CMD, 0x90);
    CHECK(in(STATUS) == READY && in(ERROR) == 1 && ide.irqs == 1);
}

int main(void)
{
    test_image();
    test_e820();
    test_acpi();
    test_log();
    test_items_by_port();
    test_items_by_transfer();
    test_isa();
    test_routes();
    test_shadow();
    test_ata_identity();
    test_ata_reads();
    test_ata_writes();
    test_ata_errors();
    test_ata_reset();
    CHECK_DONE("test_firmware");
}
