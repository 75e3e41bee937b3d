/* fuzz_bios.c - any calls of a hostile guest to dev_bios.h, on machines with more or less RAM
   MIT licence, see LICENSE

   The input is a byte that chooses the machine, and records of a port, then the sixteen-bit
   registers that services look at, or of a byte and where in the data area it goes. What must hold:
   disk transfers lie in the disk and in guest memory, and every call comes back. */
#define DEV_BIOS_IMPLEMENTATION
#include "../dev_bios.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* No assert: it must hold in every build. */
static void must(bool held)
{
    if (!held)
        abort();
}

static struct vmm_mem mem;
static unsigned room; /* of the terminal */

static uint64_t port_read(void *dev, uint64_t off, unsigned len)
{
    (void)dev;
    (void)len;
    return off == 0x3fd ? (room ? 0x20 : 0) : off * 11;
}

static void port_write(void *dev, uint64_t off, unsigned len, uint64_t val)
{
    (void)dev;
    (void)len;
    (void)val;
    room -= off == 0x3f8 && room;
}

static int move(void *ctx, unsigned disk, bool write, void *buf, uint64_t sector, unsigned n)
{
    static const uint64_t sectors[] = {2880, 4096};
    bool inside = false;

    (void)ctx;
    must(disk < 2 && n && sector < sectors[disk] && n <= sectors[disk] - sector);
    for (unsigned i = 0; i < mem.nranges; i++)
        inside |= (uint8_t *)buf >= mem.range[i].hva &&
                  (uint8_t *)buf + n * 512ull <= mem.range[i].hva + mem.range[i].len;
    if (!write)
        memset(buf, (int)sector, n * 512ull);
    return write && sector & 1 ? -EROFS : (inside || sector == 0) ? 0 : (abort(), 0);
}

static uint64_t now(void *ctx)
{
    static uint64_t ns;

    (void)ctx;
    return ns += 1000000;
}

/* A record of 16 bytes. */
static void one_call(struct pc_bios *b, const uint8_t *p)
{
    static const enum vmm_x86_gpr gprs[] = {VMM_RAX, VMM_RBX, VMM_RCX, VMM_RDX, VMM_RDI};
    struct vmm_x86_regs r = {.rip = 0xfe00};
    unsigned tries = 0;

    if (p[0] & 0x80) { /* the guest's own hand */
        uint8_t *at = vmm_at(&mem, 0x400 + p[1], 1);
        if (at)
            *at = p[2];
        return;
    }
    r.cs.base = 0xf0000;
    for (unsigned i = 0; i < 5; i++)
        r.gpr[gprs[i]] = vmm_get16(p + 1 + 2 * i);
    if ((p[0] & 31) == 0x15 && r.gpr[VMM_RAX] == 0xe820)
        r.gpr[VMM_RDX] = 0x534d4150;
    r.gpr[VMM_RSI] = r.gpr[VMM_RBP] = r.gpr[VMM_RDI];
    r.gpr[VMM_RSP] = vmm_get16(p + 11);
    r.es.base = r.ds.base = vmm_get16(p + 13) * 16u;
    r.ss.base = p[15] * 4096u;
    do {
        room += 100;
        pc_bios_call(b, p[0] & 31, &r);
    } while ((r.rflags & 0x41) == 1 && (p[0] & 31) != 0x19 && ++tries < 4000);
    must(tries < 4000);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const uint32_t rams[] = {2 << 20, 1 << 20, 0xff000, 0x110000};
    static const struct pc_bios_range map[] = {{0, 0x9fc00, 1}, {0x100000, 0x100000, 1}};
    static const struct vmm_io all = {0, 0x10000, port_read, port_write, NULL, {0}};
    struct vmm_bus ports = {0};
    struct pc_bios bios;
    struct pc_bios_desc d = {.mem = &mem,
                             .ports = &ports,
                             .map = map,
                             .nmap = 2,
                             .disk_len = {1440 << 10, 2 << 20},
                             .ndisks = 2,
                             .disk = move,
                             .now = now};
    struct vmm_x86_regs r = {.rip = 0xfe00};
    uint8_t *ram;

    if (!len)
        return 0;
    ram = calloc(1, rams[data[0] & 3]); /* of just this size, for the sanitizer */
    must(ram != NULL);
    mem.nranges = 0;
    vmm_mem_add(&mem, 0, rams[data[0] & 3], ram);
    vmm_bus_add(&ports, &all);
    room = 0;
    pc_bios_init(&bios, &d);
    r.cs.base = 0xf0000;
    pc_bios_call(&bios, 0x1f, &r);
    for (size_t i = 1; i + 16 <= len; i += 16)
        one_call(&bios, data + i);
    for (size_t i = 0, taken = 1; i < len; i += taken) {
        taken = 1;
        (void)pc_bios_escape((const char *)data + i, len - i, &taken);
        must(taken && taken <= len - i);
    }
    free(ram);
    return 0;
}
