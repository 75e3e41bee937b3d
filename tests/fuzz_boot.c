/* fuzz_boot.c - any bytes as kernel, initrd, flat binary or firmware for boot.h, on small machines
   of many shapes. MIT licence, see LICENSE

   The input is six bytes that choose the machine and the loader, and a file. What must hold: an
   error comes with one sentence, success with none; then kernel, initrd and entry lie in guest
   memory, apart; and mappings are asked for as promised. */
#define BOOT_IMPLEMENTATION
#include "../boot.h"
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { LOW = 6 << 20, HIGH = 64 << 10 };

static uint8_t *low, *high;
static struct vmm_mem mem;
static unsigned sentences;

/* No assert: it must hold in every build. */
static void must(bool held)
{
    if (!held)
        abort();
}

static void sink(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    char line[512];

    (void)ctx;
    must(vsnprintf(line, sizeof line, fmt, args) > 0 && !strchr(line, '\n'));
    sentences += level == VMM_LOG_ERROR;
}

static const struct vmm_log talkative = {sink, NULL, VMM_LOG_DEBUG};

static int map(void *ctx, const struct boot_file *f, uint64_t off, uint64_t gpa, uint64_t len)
{
    uint8_t *at = vmm_at(&mem, gpa, len);

    must(at && len && (off | gpa | len) % 4096 == 0);
    must(off < f->len && len - 4096 < f->len - off);
    if (ctx)
        return -ENOSYS;
    memset(at, 0, len);
    memcpy(at, f->data + off, len < f->len - off ? len : f->len - off);
    return 0;
}

static void fuzz_linux(const uint8_t *pick, struct boot_file file)
{
    static const struct boot_dev devs[] = {{BOOT_DEV_UART, 0x3f8, 8, 4},
                                           {BOOT_DEV_RTC, 0x70, 2, 0},
                                           {BOOT_DEV_VIRTIO_MMIO, 0xd0000000, 0x200, 6}};
    static const unsigned ncpus[] = {1, 2, 255, 3000};
    struct boot_desc d = {.machine = {.mem = &mem, .devs = devs, .ndevs = pick[0] >> 2 & 3},
                          .kernel = file,
                          .cmdline = pick[0] & 128 ? "quiet" : NULL,
                          .log = &talkative};
    struct boot_result at = {0};
    uint64_t rd;
    int err, format;

    d.machine.ncpus = ncpus[pick[0] & 3];
    d.machine.no_acpi = pick[0] & 16;
    d.machine.power_gsi = pick[0] >> 5 & 1;
    d.machine.pm_port = pick[0] >> 6 & 1 ? 0x600 : 0;
    d.machine.reset_port = d.machine.sleep_port = pick[0] >> 5 & 2;
    d.entry = (enum boot_entry)(pick[1] % 5);
    d.map = pick[1] & 8 ? map : NULL;
    d.ctx = pick[1] & 16 ? &mem : NULL;
    d.load_addr = pick[1] & 32 ? (uint64_t)pick[2] << (pick[3] & 63) : 0;
    if (pick[1] & 64)
        d.initrd = file;
    err = boot_linux(&d, &at);
    must(err <= 0 && sentences == (err != 0));
    format = boot_probe(&file, NULL);
    must(err || format > 0);
    if (err)
        return;
    rd = at.initrd_gpa;
    must(vmm_at(&mem, at.kernel_gpa, at.kernel_end - at.kernel_gpa));
    must(vmm_at(&mem, at.regs.rip, 1) &&
         (at.kernel_gpa >= BOOT_HIGH || at.format >= BOOT_MULTIBOOT));
    must(!rd == !d.initrd.len);
    must(!rd || (vmm_at(&mem, rd, d.initrd.len) && rd >= BOOT_HIGH));
    must(!rd || rd >= at.kernel_end || rd + d.initrd.len <= at.kernel_gpa);
    must(!rd || !memcmp(vmm_at(&mem, rd, d.initrd.len), file.data, d.initrd.len));
}

static void fuzz_flat(const uint8_t *pick, struct boot_file file)
{
    static const unsigned modes[] = {64, 32, 16, 7};
    struct boot_flat_desc d = {.mem = &mem, .file = file, .log = &talkative};
    struct vmm_x86_regs r = {0};
    int err;

    d.load = (uint64_t)pick[2] << (pick[3] & 63);
    d.entry = d.load + (int8_t)pick[4];
    d.mode = modes[pick[1] & 3];
    err = boot_flat(&d, &r);
    must(err <= 0 && sentences == (err != 0));
    if (err)
        return;
    must(r.cs.base + r.rip == d.entry);
    must(!memcmp(vmm_at(&mem, d.load, file.len), file.data, file.len));
    must(d.mode == 16 || r.gpr[VMM_RSP] >= d.load + file.len);
}

/* The machine brings the image's length, up to 5 units of 64 KiB, for files are shorter. */
static void fuzz_firmware(const uint8_t *pick, struct boot_file file)
{
    uint64_t len = (pick[0] & 7) * 0x10000u - (pick[0] >> 7), last;
    uint8_t *rom = calloc(1, len < file.len ? file.len : len + 1);
    struct boot_firmware_desc d = {&mem, {rom, pick[0] & 64 ? file.len : len, NULL}, &talkative};
    struct vmm_x86_regs r = {0};
    int err;

    must(rom != NULL);
    memcpy(rom, file.data, file.len);
    if (d.file.len >= 16)
        rom[d.file.len - 16] = pick[1];
    err = boot_firmware(&d, &r);
    must(err <= 0 && sentences == (err != 0));
    last = d.file.len < 0x20000 ? d.file.len : 0x20000;
    must(err || r.cs.base + r.rip == 0xfffffff0);
    must(err || !memcmp(vmm_at(&mem, 0x100000 - last, last), rom + d.file.len - last, last));
    free(rom);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const uint32_t lows[] = {LOW, 4096, 1 << 20, 3 << 20, LOW - 4096, LOW - 100, 0, 0x9f000};
    uint32_t ram;

    if (len < 6)
        return 0;
    ram = lows[data[5] & 7];
    low = malloc(ram ? ram : 1); /* of just this size, for the sanitizer */
    high = malloc(HIGH);
    must(low && high);
    mem.nranges = 0;
    if (ram)
        vmm_mem_add(&mem, 0, ram, low);
    if (data[5] & 8)
        vmm_mem_add(&mem, 1ull << 32, HIGH, high);
    sentences = 0;
    if (data[5] & 32)
        fuzz_firmware(data, (struct boot_file){data + 6, len - 6, NULL});
    else if (data[5] & 16)
        fuzz_flat(data, (struct boot_file){data + 6, len - 6, "f"});
    else
        fuzz_linux(data, (struct boot_file){data + 6, len - 6, NULL});
    free(low);
    free(high);
    return 0;
}
