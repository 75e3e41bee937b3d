/* test_firmware.c - what a PC's firmware finds: its image, its log, its items, the bridge to ISA.
   MIT licence, see LICENSE

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
    CHECK_EQ(boot_firmware_files(&m, &f, &loud), 0);
    CHECK_EQ(f.e820_len, 80);
    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQ(vmm_get64(f.e820 + 20 * i), want[i].gpa);
        CHECK_EQ(vmm_get64(f.e820 + 20 * i + 8), want[i].len);
        CHECK_EQ(vmm_get32(f.e820 + 20 * i + 16), want[i].type);
    }
    said.n = 0;
    m.ncpus = 0;
    CHECK_EQ(boot_firmware_files(&m, &f, &loud), -EINVAL);
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
        CHECK_EQ(boot_firmware_files(&m, &f, &loud), 0);
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
    CHECK_EQ(boot_firmware_files(&m, &f, &loud), 0);
    CHECK(!f.loader_len && !f.tables_len && !f.rsdp_len && f.e820_len);
    said.n = 0;
    m.no_acpi = false;
    m.ncpus = 100000;
    CHECK_EQ(boot_firmware_files(&m, &f, &loud), -EINVAL);
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
    struct vmm_mem mem = {0};
    struct pc_fwcfg f = {.item = items, .nitems = 3, .mem = &mem};

    vmm_mem_add(&mem, 0, sizeof ram, ram);
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

static void plug_chipset(void)
{
    struct pci_root_desc root = {.vendor = 0x8086, .device = 0x1237};
    struct pci_isa_desc isa = {.irq = {set_line, NULL, 0}};
    struct pci_desc card = {.vendor = 1, .device = 1, .intx = true};

    memset(&pc, 0, sizeof pc);
    for (unsigned i = 0; i < 4; i++) {
        isa.intx[i] = (struct vmm_irq){set_line, NULL, 16 + i};
        root.intx[i] = (struct vmm_irq){pci_isa_intx, &pc.isa, i};
    }
    pci_root_init(&pc.root, &root);
    CHECK_EQ(pci_isa_init(&pc.isa, &isa), 0);
    CHECK_EQ(pci_plug(&pc.root, &pc.isa.dev), 0);
    for (unsigned i = 0; i < 2; i++) {
        CHECK_EQ(pci_init(&pc.card[i], &card), 0);
        CHECK_EQ(pci_plug(&pc.root, &pc.card[i]), 0);
    }
    CHECK_EQ(pci_root_add_io(&pc.root, NULL, &pc.ports), 0);
}

/* Slots 2 and 3 have the bus's lines 2 and 3, which are PIRQB# and PIRQC#. */
static void test_isa(void)
{
    plug_chipset();
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
    plug_chipset();
    CHECK_EQ(look(0, 0, 4), 0x12378086);
    CHECK_EQ(look(0, 0x58, 4), 0);
    config(0, 0x58, 4, 0xffffffff);
    config(0, 0x5c, 4, 0xffffffff);
    CHECK_EQ(look(0, 0x58, 4), 0x33333300);
    CHECK_EQ(look(0, 0x5c, 4), 0x33333333);
    pci_reset(&pc.root);
    CHECK_EQ(look(0, 0x5c, 4), 0);
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
    test_shadow();
    CHECK_DONE("test_firmware");
}
