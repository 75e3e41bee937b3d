/* boot.h - puts a kernel, and all it expects to find, into guest memory   MIT licence, see LICENSE

   WHAT IT IS      Loaders for x86-64 and arm64 guests. boot_linux recognises by content and enters:
                   bzImage (64- or 32-bit boot protocol, Linux Documentation/arch/x86/boot), ELF64 by its
                   64-bit entry as Linux' vmlinux has it, ELF64 by PVH (Xen's HVM direct boot
                   ABI, v1), and multiboot kernels (0.6.96 and 2.0); for arm64 Image (Documentation/arch/arm64/booting.rst), bare, packed
                   with gzip or zstd, or in an EFI zboot wrapper, and ELF64.
                   It writes what such a kernel looks for: command line, initrd, memory map, ACPI
                   6.3 tables (hardware-reduced or not) and a table after the MultiProcessor
                   Specification 1.4, or a device tree, all from one struct boot_machine, so that
                   they agree. boot_flat loads bare code for x86's 64-, 32- or 16-bit mode,
                   boot_flat_arm64 for EL1. boot_firmware starts a PC's firmware, which boots from
                   disks; boot_real a machine in real mode, whose BIOS is the caller's.

   QUICK START     static uint8_t ram[32 << 20]; // zeroed
                   struct vmm_mem mem = {0};
                   struct boot_dev devs[] = {{BOOT_DEV_UART, 0x3f8, 8, 4}};
                   struct boot_desc desc = {0};
                   struct boot_result at;

                   vmm_mem_add(&mem, 0, sizeof ram, ram);
                   desc.machine.mem = &mem;
                   desc.machine.ncpus = 1;
                   desc.machine.devs = devs;
                   desc.machine.ndevs = 1;
                   desc.kernel.data = file; // the whole file, read or mapped
                   desc.kernel.len = len;
                   desc.kernel.name = "vmlinux";
                   desc.cmdline = "console=ttyS0";
                   int err = boot_linux(&desc, &at); // 0: give at.regs to vCPU 0

   CONFIGURATION   set everywhere: VMM_DEF and VMM_MEM_MAX (at most 74 here), see vmm.h;
                   BOOT_ARM64 to have arm64 guests, BOOT_NO_X86 to have no others
                   set in one file: BOOT_IMPLEMENTATION (or VMM_IMPLEMENTATION), before the include

   DEPENDS ON      vmm.h and <string.h>; with BOOT_ARM64 also libfdt (link with -lfdt).

   THREADS         No state: call it from any thread, before any vCPU runs.
   MEMORY          Allocates nothing, keeps no pointer. Guest memory must be zero, as fresh memory
                   is. Few pages of it are touched: the tables (see enum boot_place) and, of kernel
                   and initrd, only what desc.map does not take over.
   ERRORS          0 or a negative errno, and exactly one sentence in the log.
                   -ENOEXEC: the kernel or binary is damaged, or is no kernel for this machine;
                   -ENOMEM: it needs more RAM; -E2BIG: the command line is too long;
                   -EINVAL: the description asks for the impossible; -ENOSYS: this copy was built
                   without loaders for this architecture. Guest memory is then undefined.
   GUEST TRUST     No guest runs yet. Kernel, initrd and binary may be hostile: every field is
                   checked before use, every walk is bounded, and what reaches a loader's memory is
                   confined to guest memory. */
#ifndef BOOT_H
#define BOOT_H

#include "vmm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where boot_linux puts things below 1 MiB; what is not named stays untouched. The memory map that
   the guest gets calls [0, BOOT_EBDA) RAM: kernels move out before they reuse it. */
enum boot_place {
    BOOT_ZERO_PAGE = 0x7000,    /* struct boot_params, for the 64-bit entry */
    BOOT_PAGE_TABLES = 0x8000,  /* six pages: the first 4 GiB, identity mapped; 64-bit entry only */
    BOOT_GDT = 0xe000,          /* null, null, 0x10 flat code, 0x18 flat data */
    BOOT_PVH_INFO = 0xe040,     /* hvm_start_info, its module and its memory map; PVH entry only */
    BOOT_CMDLINE = 0xe800,      /* NUL-terminated ... */
    BOOT_CMDLINE_END = 0x20000, /* ... before this */
    BOOT_MULTIBOOT_INFO = 0x80000,     /* multiboot entry only: all that is passed, ... */
    BOOT_MULTIBOOT_INFO_END = 0x9f000, /* ... before this; then the GDT. The kernel may have the
                                          rest */
    BOOT_EBDA = 0x9fc00,               /* reserved by custom, unused, to 0xa0000 */
    BOOT_BIOS = 0xe0000,               /* reserved by custom, to BOOT_HIGH */
    BOOT_TABLES = 0xf0000, /* at or above: MP floating pointer, MP table, ACPI tables ... */
    BOOT_RESET = 0xffff0,  /* ... below this: 16-bit code that resets the machine. Linux jumps
                                   here when ACPI is hardware-reduced and there is no EFI to ask */
    BOOT_HIGH = 0x100000   /* kernel and initrd live above */
};

/* A whole file in host memory. */
struct boot_file {
    const uint8_t *data;
    uint64_t len;
    const char *name; /* only for sentences; NULL: what the file is for */
};

enum boot_arch { BOOT_ARCH_X86, BOOT_ARCH_ARM64 };
enum boot_format {
    BOOT_NONE,
    BOOT_BZIMAGE,   /* entered in 64-bit mode */
    BOOT_BZIMAGE32, /* in 32-bit protected mode: i386 kernels, memtest86+ */
    BOOT_ELF64,
    BOOT_PVH,
    BOOT_IMAGE,
    BOOT_MULTIBOOT,
    BOOT_MULTIBOOT2
};
enum boot_entry {
    BOOT_ENTRY_AUTO,
    BOOT_ENTRY_64,
    BOOT_ENTRY_PVH,
    BOOT_ENTRY_MULTIBOOT, /* either version, 2 if there are both */
    BOOT_ENTRY_MULTIBOOT1
};

enum boot_dev_kind {
    BOOT_DEV_UART,        /* a 16550 at ports base .. base+len-1; arm64: guest-physical */
    BOOT_DEV_RTC,         /* an MC146818 at ports base, base+1; not on arm64 */
    BOOT_DEV_VIRTIO_MMIO, /* a virtio-mmio window at guest-physical base */
    BOOT_DEV_PL011,       /* arm64: a UART, */
    BOOT_DEV_PL031,       /* a clock, */
    BOOT_DEV_PL061,       /* a GPIO chip, with a power button at its line 3 */
    BOOT_DEV_PVPANIC      /* QEMU's panic notifier at port base; not on arm64 */
};

/* A device that the guest cannot find by itself. */
struct boot_dev {
    enum boot_dev_kind kind;
    uint64_t base, len;
    unsigned gsi; /* its edge-triggered, active-high line; 0: none. On arm64 the SPI of this number,
                     counted from 0, of all but virtio level-triggered */
};

/* A PCI root bus: bus 0 and no other. Windows are for BARs, a len of 0: none. */
struct boot_pci {
    uint64_t ecam; /* 1 MiB of configuration space below 4 GiB, 1 MiB-aligned; 0: there is no PCI */
    uint64_t mmio32, mmio32_len; /* below 4 GiB */
    uint64_t mmio64, mmio64_len;
    unsigned gsi[4]; /* level-triggered; device n, pin p (INTA# is 0) has gsi[(n + p) % 4] ... */
    unsigned pic[4]; /* ... and, for who has no IOAPIC, that line of the 8259s; 0: it has not */
};

/* What only arm64 machines have. In guest-physical memory take a GICv3's distributor 64 KiB, its
   redistributors 128 KiB for each CPU, its ITS 128 KiB; a GICv2's distributor 4 KiB, its CPU
   interface 8 KiB; a v2m frame 4 KiB. */
struct boot_arm64 {
    unsigned gic;       /* 2 or 3 */
    uint64_t gic_dist;  /* distributor */
    uint64_t gic_cpu;   /* GICv3: the redistributors; GICv2: the CPU interface */
    uint64_t gic_its;   /* GICv3: the ITS, through which MSIs come; 0: none */
    uint64_t gic_v2m;   /* without an ITS: a v2m frame, likewise; 0: none ... */
    unsigned v2m_spi;   /* ... and the SPIs that it has, from this one on, ... */
    unsigned v2m_nspis; /* ... so many */
    unsigned pmu_ppi;   /* private interrupt of the performance counters; 0: they are not there */
    unsigned granules;  /* sizes of pages that the CPUs know, in KiB: 4, 16, 64, or'ed; 0: all */
};

/* The machine as its tables describe it. The local APIC id of CPU n is n; for the MPIDR of arm64 see
   boot_mpidr. */
struct boot_machine {
    enum boot_arch arch;
    const struct vmm_mem *mem; /* RAM: a range at 0 of at least 1 MiB, others ascending. arm64: the
                                  first, anywhere, gets all that is loaded */
    unsigned ncpus;            /* 1 or more */
    const struct boot_dev *devs;
    unsigned ndevs;
    struct boot_pci pci;
    uint64_t lapic, ioapic; /* 0: 0xfee00000, 0xfec00000; the IOAPIC serves GSIs 0 to 23 */
    uint16_t pm_port; /* ACPI registers with a power button: PM1 events, control at +4, the timer of
                         32 bits at +8; S5 is sleep type 0. 0: ACPI is hardware-reduced */
    unsigned sci_gsi; /* ... and their level-triggered line */
    unsigned power_gsi;  /* hardware-reduced: edge line of the ACPI event device that is the power
                            button; 0: none */
    uint16_t sleep_port; /* hardware-reduced: ACPI sleep control register, status register at +1;
                            the guest powers off by writing BOOT_SLEEP_S5. 0: it cannot */
    uint16_t reset_port; /* ACPI reset register: ... 0: none */
    uint8_t reset_value; /* ... the guest resets by writing this to it */
    bool no_acpi;        /* MP table only */
    struct boot_arm64 arm64;
};

/* SLP_EN (bit 5) and SLP_TYP 5 (bits 2-4): what means S5 in the sleep control register. */
enum { BOOT_SLEEP_S5 = 0x20 | 5 << 2 };

enum boot_packing { BOOT_GZIP, BOOT_ZSTD };
enum { BOOT_ENTROPY_LEN = 8 + 64 };

/* A file that a multiboot kernel gets beside itself. */
struct boot_module {
    struct boot_file file;
    const char *cmdline; /* NULL: the file's name */
};
enum { BOOT_MODULES_MAX = 16 }; /* the initrd counts */

struct boot_desc {
    struct boot_machine machine;
    struct boot_file kernel;
    struct boot_file initrd;           /* len 0: none; of a multiboot kernel the first module */
    const struct boot_module *modules; /* only for multiboot kernels */
    unsigned nmodules;
    const char *cmdline;   /* NULL: empty */
    enum boot_entry entry; /* AUTO: what suits the file */
    uint64_t load_addr;    /* of a bzImage; 0: the place it prefers, see boot__bz_place */
    /* Makes whole pages of a file appear at gpa, for less than a copy. Returns 0 when done; anything
       else: boot.h copies. off, gpa, len are page-aligned and within one range of RAM; len may end beyond
       the file's end, inside the page that holds it. NULL: always copy. */
    int (*map)(void *ctx, const struct boot_file *file, uint64_t off, uint64_t gpa, uint64_t len);
    /* arm64: unpacks all of src, one frame or member that bytes without meaning may follow, to dst.
       Returns how many bytes it became, or -ENOSPC: more than cap; -ENOSYS: this packing is not
       known; else: damaged. NULL: packed kernels are refused. */
    int64_t (*unpack)(void *ctx, enum boot_packing packing, const void *src, uint64_t len,
                      void *dst, uint64_t cap);
    void *ctx;
    struct boot_file dtb;      /* arm64: the device tree, of which only /chosen is changed; len 0:
                                  one that describes the machine is made */
    const uint8_t *entropy;    /* arm64: BOOT_ENTROPY_LEN random bytes for the guest; NULL: none */
    const struct vmm_log *log; /* NULL: silent */
};

struct boot_result {
    enum boot_format format;
    struct vmm_x86_regs regs;        /* of vCPU 0; all others wait for INIT and SIPI */
    uint64_t kernel_gpa, kernel_end; /* memory the kernel takes until it manages memory itself */
    uint64_t initrd_gpa;             /* 0: none */
    uint64_t rsdp;                   /* 0: no ACPI */
    struct vmm_arm64_regs arm64;     /* of vCPU 0; all others wait for PSCI CPU_ON */
    uint64_t dtb_gpa, dtb_len;       /* of the device tree; 0: none */
};

/* Loads kernel and initrd, writes every table, and says how to start vCPU 0. */
VMM_DEF int boot_linux(const struct boot_desc *desc, struct boot_result *out);

/* What boot_linux would make of a file on x86: a positive enum boot_format, or its error and
   sentence. */
#ifndef BOOT_NO_X86
VMM_DEF int boot_probe(const struct boot_file *kernel, const struct vmm_log *log);
#endif

/* Bare code. It finds, in 64- and 32-bit mode: flat segments (code 0x10, data 0x18) up to 4 GiB,
   interrupts off, the stack at 28 KiB below the end of the RAM range that holds the binary (or
   below 4 GiB); above the stack lie GDT and, in 64-bit mode, page tables that map the first 4 GiB
   to themselves. In 16-bit mode: cs = ds = es = ss = entry >> 4 & 0xf000, ip = entry & 0xffff,
   sp = 0xfff0, the interrupt table at 0, empty. All other general registers are 0. */
struct boot_flat_desc {
    const struct vmm_mem *mem;
    struct boot_file file;
    uint64_t load, entry; /* entry lies within the loaded file */
    unsigned mode;        /* 64, 32, 16; 0: 64 */
    const struct vmm_log *log;
};

#ifndef BOOT_NO_X86
VMM_DEF int boot_flat(const struct boot_flat_desc *desc, struct vmm_x86_regs *regs);
#endif

/* The same for arm64: EL1h, interrupts and MMU off, the stack at the end of the RAM range that holds
   the binary; all other general registers are 0. The mode is 0 or 64. */
#ifdef BOOT_ARM64
VMM_DEF int boot_flat_arm64(const struct boot_flat_desc *desc, struct vmm_arm64_regs *regs);
#endif

/* The affinity fields of MPIDR_EL1 of an arm64 CPU, as KVM numbers them: 16 to a group. */
static inline uint64_t boot_mpidr(unsigned cpu)
{
    return (cpu & 15) | (uint64_t)(cpu >> 4 & 255) << 8 | (uint64_t)(cpu >> 12 & 255) << 16;
}

/* A PC's firmware, which starts at its reset vector. The caller makes the whole image appear, read
   only, below 4 GiB: at 2^32 - file.len. boot_firmware checks it, puts its last 128 KiB where such a
   chip shows too, from BOOT_BIOS to BOOT_HIGH, as RAM that the firmware can write to, and gives the
   registers of a processor after reset. */
struct boot_firmware_desc {
    const struct vmm_mem *mem; /* RAM: a range at 0 of at least 1 MiB */
    struct boot_file file;     /* of whole 64 KiB, at most BOOT_ROM_MAX */
    const struct vmm_log *log;
};
enum { BOOT_ROM_MAX = 0x40000 }; /* what KVM leaves free below 4 GiB */

#ifndef BOOT_NO_X86
VMM_DEF int boot_firmware(const struct boot_firmware_desc *desc, struct vmm_x86_regs *regs);
#endif

/* A machine without firmware that starts in real mode, at segment 0xf000: what its guest may look for
   in memory. The code is the caller's: from `rom` to BOOT_HIGH, ACPI and MP tables lie below it. */
struct boot_real_desc {
    struct boot_machine machine;
    uint64_t rom;   /* BOOT_TABLES or above */
    uint16_t entry; /* in segment 0xf000 */
    const struct vmm_log *log;
};

/* A range of the memory map. */
struct boot_range {
    uint64_t gpa, len;
    uint32_t type; /* 1: RAM, 2: reserved */
};

struct boot_real_result {
    struct vmm_x86_regs regs;
    struct boot_range map[VMM_MEM_MAX + 4]; /* what INT 15h, AX=E820h is to say */
    unsigned nmap;
};

#ifndef BOOT_NO_X86
VMM_DEF int boot_real(const struct boot_real_desc *desc, struct boot_real_result *out);
#endif

/* What firmware asks its host for, to build upon: files of QEMU's fw_cfg (dev_legacy.h has it),
   by their names there. */
struct boot_firmware_files {
    uint8_t e820[20 * (VMM_MEM_MAX + 2)];      /* etc/e820 */
    uint8_t tables[0x10000], loader[32 * 128]; /* etc/acpi/tables; etc/table-loader, with */
    uint8_t rsdp[36];                          /* etc/acpi/rsdp */
    uint32_t e820_len, tables_len, loader_len, rsdp_len; /* all but the first 0: no ACPI */
};

#ifndef BOOT_NO_X86
VMM_DEF int boot_firmware_make(const struct boot_machine *m, struct boot_firmware_files *f,
                               const struct vmm_log *log);
#endif

#ifdef __cplusplus
}
#endif
#endif /* BOOT_H */

/* ------------------------------------------------------------------------- implementation */
#if defined(BOOT_IMPLEMENTATION) || defined(VMM_IMPLEMENTATION)
#ifndef BOOT_IMPLEMENTED
#define BOOT_IMPLEMENTED

#ifdef BOOT_ARM64
#include <libfdt.h>
#elif defined(BOOT_NO_X86)
#error BOOT_NO_X86 leaves no loaders without BOOT_ARM64
#endif

enum {
    BOOT__PAGE = 4096,
    BOOT__GSIS = 24,           /* lines of the IOAPIC */
    BOOT__ECAM_LEN = 0x100000, /* 4 KiB for each of 8 functions of 32 devices */
    BOOT__PCI_SLOTS = 32,
    BOOT__SEGS_MAX = 64,     /* program headers; Linux has five */
    BOOT__NOTES_MAX = 65536, /* bytes of notes that are looked at, per segment */
    BOOT__E820_MAX = VMM_MEM_MAX + 4,
    BOOT__CMDLINE_ROOM = BOOT_CMDLINE_END - BOOT_CMDLINE,
    BOOT__FLAT_TABLES = 7 * BOOT__PAGE /* GDT and page tables, at the end of RAM */
};

/* struct boot_params (Linux Documentation/arch/x86/zero-page.rst); the setup header in it and at
   the start of a bzImage has the same offsets (boot.rst there). */
enum {
    BOOT__ZP_RSDP = 0x070,
    BOOT__ZP_E820_ENTRIES = 0x1e8,
    BOOT__ZP_E820 = 0x2d0,
    BOOT__HDR_SECTS = 0x1f1, /* the first field */
    BOOT__HDR_SYSSIZE = 0x1f4,
    BOOT__HDR_FLAG = 0x1fe,
    BOOT__HDR_LENGTH = 0x201,
    BOOT__HDR_MAGIC = 0x202,
    BOOT__HDR_VERSION = 0x206,
    BOOT__HDR_LOADER = 0x210,
    BOOT__HDR_LOADFLAGS = 0x211,
    BOOT__HDR_CODE32 = 0x214,
    BOOT__HDR_INITRD = 0x218,
    BOOT__HDR_INITRD_LEN = 0x21c,
    BOOT__HDR_CMDLINE = 0x228,
    BOOT__HDR_INITRD_MAX = 0x22c,
    BOOT__HDR_ALIGN = 0x230,
    BOOT__HDR_RELOCATABLE = 0x234,
    BOOT__HDR_XLOADFLAGS = 0x236,
    BOOT__HDR_CMDLINE_MAX = 0x238,
    BOOT__HDR_PREF = 0x258,
    BOOT__HDR_INIT_SIZE = 0x260,
    BOOT__HDR_END = 0x290 /* of its room in boot_params */
};

_Static_assert(BOOT__E820_MAX <= 128, "boot_params holds 128 ranges");
_Static_assert(BOOT_PVH_INFO + 96 + 24 * BOOT__E820_MAX <= BOOT_CMDLINE, "PVH memory map too long");

/* A run of file bytes and where it goes. */
struct boot__seg {
    uint64_t off, gpa, filesz, memsz;
};

/* What a kernel file says about itself, checked, before anything is placed. */
struct boot__image {
    enum boot_format format;
    uint64_t entry;       /* guest-physical */
    uint64_t start, end;  /* memory it takes until it manages memory itself */
    uint64_t initrd_max;  /* the last byte an initrd may have */
    uint64_t cmdline_max; /* without NUL */
    uint64_t hdr_len;     /* bzImage: bytes of setup header from BOOT__HDR_SECTS */
    uint64_t bias;        /* what an ELF file's physical addresses are too high by */
    uint64_t load_base;   /* multiboot 2: where it begins, if it may lie anywhere; else 0 */
    bool spill;           /* file bytes before and behind it may show in its first and last page */
    unsigned nsegs;
    struct boot__seg seg[BOOT__SEGS_MAX];
};

/* One boot_linux under way. */
struct boot__job {
    const struct boot_desc *desc;
    struct boot__image img;
    uint8_t *low;        /* the first MiB */
    uint64_t ram;        /* end of the RAM that starts at 0 */
    uint64_t initrd_gpa; /* 0: none */
    uint64_t module_gpa[BOOT_MODULES_MAX];
    uint64_t rsdp;
    const char *name;
};

static uint64_t boot__down(uint64_t v)
{
    return v & ~(uint64_t)(BOOT__PAGE - 1);
}

static uint64_t boot__up(uint64_t v)
{
    return boot__down(v + BOOT__PAGE - 1);
}

static unsigned long long boot__mib(uint64_t bytes)
{
    return (bytes >> 20) + !!(bytes & 0xfffff);
}

static const char *boot__name(const struct boot_file *f, const char *role)
{
    return f->name ? f->name : role;
}

/* What to give instead of a file that is no kernel for this machine. */
static const char *boot__wanted(enum boot_arch arch)
{
    return arch == BOOT_ARCH_ARM64 ? "an arm64 Image or vmlinux" : "an x86-64 bzImage or vmlinux";
}

/* >>foreign: files that are no kernel for this machine, told apart for the sake of the remedy */
struct boot__magic {
    uint16_t off, len;
    const char *bytes;
    const char *what;
};

/* clang-format off */
static const struct boot__magic boot__packed[] = {
    {0, 2, "\x1f\x8b", "gzip"},
    {0, 6, "\xfd\x37zXZ", "xz"},
    {0, 4, "\x28\xb5\x2f\xfd", "zstd"},
    {0, 4, "\x02\x21\x4c\x18", "lz4"}, /* as Linux has it */
    {0, 4, "\x04\x22\x4d\x18", "lz4"},
    {0, 3, "BZh", "bzip2"},
    {0, 4, "\x89LZO", "lzop"},
    {0, 3, "\x5d\0\0", "lzma"},
};

static const struct boot__magic boot__others[] = {
    {56, 4, "ARM\x64", "a kernel for arm64"},
    {56, 4, "RSC\5", "a kernel for RISC-V"},
    {56, 4, "\xcd\x23\x82\x81", "a kernel for LoongArch"},
    {36, 4, "\x18\x28\x6f\x01", "a kernel for 32-bit ARM"},
    {0, 6, "070701", "an initramfs (cpio archive)"},
    {510, 2, "\x55\xaa", "a boot sector or disk image"},
};
/* clang-format on */

static const char *boot__match(const struct boot__magic *m, unsigned n, const struct boot_file *f)
{
    for (; n > 0; n--, m++)
        if (f->len >= (uint64_t)m->off + m->len && !memcmp(f->data + m->off, m->bytes, m->len))
            return m->what;
    return NULL;
}

/* The machine numbers of ELF and PE. */
static const char *boot__arch(unsigned machine)
{
    static const struct {
        uint16_t machine;
        const char *name;
    } known[] = {
        {3, "32-bit x86"},  {8, "MIPS"},           {20, "PowerPC"},       {21, "64-bit PowerPC"},
        {22, "s390"},       {40, "32-bit ARM"},    {62, "x86-64"},        {183, "arm64"},
        {243, "RISC-V"},    {258, "LoongArch"},    {0x14c, "32-bit x86"}, {0x1c2, "32-bit ARM"},
        {0x5064, "RISC-V"}, {0x6264, "LoongArch"}, {0x8664, "x86-64"},    {0xaa64, "arm64"},
    };

    for (unsigned i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].machine == machine)
            return known[i].name;
    return "another architecture";
}

static int boot__pe(const struct boot_file *f, const struct vmm_log *log, const char *name,
                    const char *wanted)
{
    uint32_t pe = vmm_get32(f->data + 0x3c);
    const char *arch = "an unknown machine";

    if (pe <= f->len - 6 && !memcmp(f->data + pe, "PE\0\0", 4))
        arch = boot__arch(vmm_get16(f->data + pe + 4));
    if (!memcmp(f->data + 4, "zimg", 4))
        return vmm_err(log, -ENOEXEC, "%s: is a compressed EFI kernel for %s: give %s", name, arch,
                       wanted);
    return vmm_err(log, -ENOEXEC, "%s: is an EFI program for %s: give %s itself", name, arch,
                   wanted);
}

static bool boot__is_bzimage(const struct boot_file *f)
{
    return f->len >= BOOT__HDR_VERSION + 2 && vmm_get16(f->data + BOOT__HDR_FLAG) == 0xaa55 &&
           !memcmp(f->data + BOOT__HDR_MAGIC, "HdrS", 4);
}

static int boot__not_a_kernel(const struct boot_file *f, const struct vmm_log *log,
                              const char *name, enum boot_arch arch)
{
    const char *what, *wanted = boot__wanted(arch);

    what = boot__match(boot__packed, sizeof boot__packed / sizeof boot__packed[0], f);
    if (what)
        return vmm_err(log, -ENOEXEC, "%s: looks like %s: decompress it first", name, what);
    if (f->len < 1024)
        return vmm_err(log, -ENOEXEC, "%s: is truncated or no kernel: it has only %llu bytes", name,
                       (unsigned long long)f->len);
    if (!memcmp(f->data, "MZ", 2) && !memcmp(f->data + 4, "zimg", 4))
        return boot__pe(f, log, name, wanted);
    what = boot__match(boot__others, sizeof boot__others / sizeof boot__others[0], f);
    if (boot__is_bzimage(f))
        what = "a bzImage, a kernel for x86";
    if (what)
        return vmm_err(log, -ENOEXEC, "%s: is %s: give %s", name, what, wanted);
    if (!memcmp(f->data, "MZ", 2))
        return boot__pe(f, log, name, wanted);
    return vmm_err(log, -ENOEXEC, "%s: is not a kernel: give %s", name, wanted);
}

static int boot__truncated(const struct boot_file *f, const struct vmm_log *log, const char *name,
                           uint64_t need)
{
    return vmm_err(log, -ENOEXEC, "%s: is truncated: it has %llu of at least %llu bytes", name,
                   (unsigned long long)f->len, (unsigned long long)need);
}

#ifndef BOOT_NO_X86
/* >>bzimage: setup sectors, then the kernel proper, which is entered 0x200 behind its start */

/* Older protocols lack fields that are used here, and their 16-bit setup code needs a BIOS. */
static int boot__bz_check(const struct boot_file *f, const struct vmm_log *log, const char *name,
                          uint64_t setup)
{
    const uint8_t *h = f->data;
    unsigned version = vmm_get16(h + BOOT__HDR_VERSION);
    uint32_t align = vmm_get32(h + BOOT__HDR_ALIGN);
    uint64_t payload = (uint64_t)vmm_get32(h + BOOT__HDR_SYSSIZE) * 16;

    if (version < 0x20c)
        return vmm_err(log, -ENOEXEC,
                       "%s: is too old (boot protocol %u.%02u): take Linux 3.8 or newer", name,
                       version >> 8, version & 255);
    if (!(h[BOOT__HDR_LOADFLAGS] & 1) || payload <= 0x200 || !align || align & (align - 1) ||
        BOOT__HDR_MAGIC + h[BOOT__HDR_LENGTH] < BOOT__HDR_INIT_SIZE + 4)
        return vmm_err(log, -ENOEXEC, "%s: is damaged: its setup header makes no sense", name);
    if (f->len - setup + 15 <
        payload) /* the size is rounded up, the file (memtest86+) may not be */
        return boot__truncated(f, log, name, setup + payload);
    return 0;
}

/* Where to load. A relocatable kernel runs at the preferred address when it is loaded anywhere
   below, and first moves itself there. Below, its file pages are only read, so that mapped ones
   stay shared: best is 1 MiB, when all of it lies below the preferred address. Else the last page
   before that. Of the addresses in a page the one is taken that is congruent to the file offset. */
static uint64_t boot__bz_place(const uint8_t *hdr, uint64_t setup, uint64_t wanted)
{
    uint64_t pref = vmm_get64(hdr + BOOT__HDR_PREF), skew = setup % BOOT__PAGE;
    uint64_t len = (uint64_t)vmm_get32(hdr + BOOT__HDR_SYSSIZE) * 16;

    if (wanted || !hdr[BOOT__HDR_RELOCATABLE])
        return wanted ? wanted : pref;
    if (BOOT_HIGH + skew + len <= pref)
        return BOOT_HIGH + skew;
    if (!skew)
        return pref;
    return pref >= BOOT_HIGH + BOOT__PAGE ? pref - BOOT__PAGE + skew : pref + skew;
}

/* What the kernel will use: from the load address to the end of the buffer that it decompresses
   into, which starts at the aligned load address or, when that is lower, at the preferred one. */
static int boot__bz_extent(const struct boot_desc *d, struct boot__image *img, const char *name)
{
    const uint8_t *hdr = d->kernel.data;
    uint64_t pref = vmm_get64(hdr + BOOT__HDR_PREF), align = vmm_get32(hdr + BOOT__HDR_ALIGN);
    uint64_t load = img->seg[0].gpa, run;

    if (d->load_addr && !hdr[BOOT__HDR_RELOCATABLE] && load != pref)
        return vmm_err(d->log, -EINVAL, "%s: is not relocatable: its load address must be 0x%llx",
                       name, (unsigned long long)pref);
    if (pref >> 32 || (d->load_addr && load >> 32))
        return vmm_err(d->log, -EINVAL, "%s: load address 0x%llx is not below 4 GiB", name,
                       (unsigned long long)load);
    if (load < BOOT_HIGH)
        return vmm_err(d->log, -EINVAL, "%s: load address 0x%llx is below 1 MiB", name,
                       (unsigned long long)load);
    run = hdr[BOOT__HDR_RELOCATABLE] ? (load + align - 1) & ~(align - 1) : pref;
    if (run < pref)
        run = pref;
    img->start = load;
    img->end = run + vmm_get32(hdr + BOOT__HDR_INIT_SIZE);
    if (img->end < load + img->seg[0].memsz)
        img->end = load + img->seg[0].memsz;
    return 0;
}

static int boot__bz_parse(const struct boot_desc *d, struct boot__image *img, const char *name)
{
    const struct boot_file *f = &d->kernel;
    const uint8_t *h = f->data;
    uint64_t setup = ((h[BOOT__HDR_SECTS] ? h[BOOT__HDR_SECTS] : 4) + 1) * 512u;
    int err;

    if (f->len < setup)
        return boot__truncated(f, d->log, name, setup);
    err = boot__bz_check(f, d->log, name, setup);
    if (err)
        return err;
    if (d->entry == BOOT_ENTRY_PVH)
        return vmm_err(d->log, -EINVAL,
                       "%s: is a bzImage, which has no PVH entry: give the vmlinux", name);
    img->format = h[BOOT__HDR_XLOADFLAGS] & 1 ? BOOT_BZIMAGE : BOOT_BZIMAGE32;
    if (d->entry == BOOT_ENTRY_64 && img->format != BOOT_BZIMAGE)
        return vmm_err(d->log, -EINVAL, "%s: is a 32-bit kernel, which has no 64-bit entry", name);
    img->spill = true;
    img->initrd_max = vmm_get32(h + BOOT__HDR_INITRD_MAX);
    img->cmdline_max = vmm_get32(h + BOOT__HDR_CMDLINE_MAX);
    img->hdr_len = BOOT__HDR_MAGIC + h[BOOT__HDR_LENGTH] - BOOT__HDR_SECTS;
    if (img->hdr_len > BOOT__HDR_END - BOOT__HDR_SECTS)
        img->hdr_len = BOOT__HDR_END - BOOT__HDR_SECTS;
    img->nsegs = 1;
    img->seg[0].off = setup;
    img->seg[0].gpa = boot__bz_place(h, setup, d->load_addr);
    img->seg[0].memsz = (uint64_t)vmm_get32(h + BOOT__HDR_SYSSIZE) * 16;
    img->seg[0].filesz = img->seg[0].memsz < f->len - setup ? img->seg[0].memsz : f->len - setup;
    img->entry = img->seg[0].gpa + (img->format == BOOT_BZIMAGE ? 0x200 : 0);
    return boot__bz_extent(d, img, name);
}

#endif /* BOOT_NO_X86 */

/* >>elf: program headers, as vmlinux and PVH guests have them */
static int boot__elf_check(const struct boot_file *f, const struct vmm_log *log, const char *name,
                           enum boot_arch arch)
{
    const uint8_t *e = f->data;
    unsigned machine, phnum, ours = arch == BOOT_ARCH_ARM64 ? 183 : 62;
    uint64_t phoff;

    if (f->len < 64)
        return boot__truncated(f, log, name, 64);
    machine = vmm_get16(e + 18);
    if (e[5] != 1)
        return vmm_err(log, -ENOEXEC, "%s: is a big-endian ELF file: give an %s kernel", name,
                       boot__arch(ours));
    if (e[4] != 2 || machine != ours)
        return vmm_err(log, -ENOEXEC, "%s: is a %s ELF file for %s: give an %s kernel", name,
                       e[4] == 2 ? "64-bit" : "32-bit", boot__arch(machine), boot__arch(ours));
    if (vmm_get16(e + 16) != 2 && vmm_get16(e + 16) != 3)
        return vmm_err(log, -ENOEXEC, "%s: is an ELF file that cannot be run: give a linked kernel",
                       name);
    phoff = vmm_get64(e + 32);
    phnum = vmm_get16(e + 56);
    if (vmm_get16(e + 54) != 56 || !phnum || phnum > BOOT__SEGS_MAX || phoff >> 62)
        return vmm_err(log, -ENOEXEC, "%s: is damaged: its ELF program headers make no sense",
                       name);
    if (f->len < phoff + phnum * 56u)
        return boot__truncated(f, log, name, phoff + phnum * 56u);
    return 0;
}

/* The PVH entry in a segment of notes; 0: none. Notes are name and value, each padded to 4. */
static uint64_t boot__elf_note(const uint8_t *p, uint64_t len)
{
    if (len > BOOT__NOTES_MAX)
        len = BOOT__NOTES_MAX;
    while (len >= 12) {
        uint64_t namesz = vmm_get32(p), descsz = vmm_get32(p + 4), type = vmm_get32(p + 8);
        uint64_t value = 12 + ((namesz + 3) & ~3ull), next = value + ((descsz + 3) & ~3ull);

        if (value + descsz > len)
            return 0;
        if (type == 18 && namesz == 4 && !memcmp(p + 12, "Xen", 4) && (descsz == 4 || descsz == 8))
            return descsz == 4 ? vmm_get32(p + value) : vmm_get64(p + value);
        if (next > len)
            return 0;
        p += next;
        len -= next;
    }
    return 0;
}

/* From where on memory may be taken: boot__mb_room says more of multiboot kernels. */
static uint64_t boot__lowest(const struct boot__image *img)
{
    return img->format == BOOT_MULTIBOOT || img->format == BOOT_MULTIBOOT2 ? 0 : BOOT_HIGH;
}

/* Takes a PT_LOAD segment into the image. */
static int boot__elf_load(const struct boot_desc *d, struct boot__image *img, const char *name,
                          const uint8_t *ph)
{
    struct boot__seg s = {vmm_get64(ph + 8), vmm_get64(ph + 24), vmm_get64(ph + 32),
                          vmm_get64(ph + 40)};

    if (!s.memsz)
        return 0;
    s.gpa -= img->bias;
    if (s.filesz > s.memsz || s.gpa >> 62 || s.memsz >> 62)
        return vmm_err(d->log, -ENOEXEC, "%s: is damaged: an ELF segment makes no sense", name);
    if (d->machine.arch == BOOT_ARCH_X86 && s.gpa < boot__lowest(img))
        return vmm_err(d->log, -ENOEXEC,
                       "%s: has a segment at physical address 0x%llx: a kernel lies above 1 MiB",
                       name, (unsigned long long)s.gpa);
    for (unsigned i = 0; i < img->nsegs; i++)
        if (s.gpa < img->seg[i].gpa + img->seg[i].memsz && img->seg[i].gpa < s.gpa + s.memsz)
            return vmm_err(d->log, -ENOEXEC, "%s: is damaged: ELF segments overlap at 0x%llx", name,
                           (unsigned long long)s.gpa);
    if (!img->nsegs || s.gpa < img->start)
        img->start = s.gpa;
    if (s.gpa + s.memsz > img->end)
        img->end = s.gpa + s.memsz;
    img->seg[img->nsegs++] = s;
    return 0;
}

static bool boot__in_image(const struct boot__image *img, uint64_t gpa)
{
    for (unsigned i = 0; i < img->nsegs; i++)
        if (gpa >= img->seg[i].gpa && gpa - img->seg[i].gpa < img->seg[i].memsz)
            return true;
    return false;
}

static int boot__elf_segments(const struct boot_desc *d, struct boot__image *img, const char *name,
                              uint64_t *pvh, bool *entry_is_virtual)
{
    const uint8_t *e = d->kernel.data, *ph = e + vmm_get64(e + 32);
    unsigned phnum = vmm_get16(e + 56);

    for (unsigned i = 0; i < phnum; i++, ph += 56) {
        enum { LOAD = 1, INTERP = 3, NOTE = 4 };
        uint32_t type = vmm_get32(ph);
        uint64_t off = vmm_get64(ph + 8), vaddr = vmm_get64(ph + 16), filesz = vmm_get64(ph + 32);
        int err = 0;

        if (type == INTERP)
            return vmm_err(d->log, -ENOEXEC, "%s: is a program, not a kernel", name);
        if (type != LOAD && type != NOTE)
            continue;
        if (off >> 62 || filesz >> 62)
            return vmm_err(d->log, -ENOEXEC, "%s: is damaged: an ELF segment makes no sense", name);
        if (off + filesz > d->kernel.len)
            return boot__truncated(&d->kernel, d->log, name, off + filesz);
        if (type == LOAD)
            err = boot__elf_load(d, img, name, ph);
        else if (!*pvh)
            *pvh = boot__elf_note(e + off, filesz);
        if (err)
            return err;
        if (type == LOAD && vmm_get64(e + 24) - vaddr < vmm_get64(ph + 40))
            *entry_is_virtual = true;
    }
    return 0;
}

#ifndef BOOT_NO_X86
/* Which way in. The start address of Linux' vmlinux is physical, and no segment has it as a virtual
   one; with a PVH note in other kernels it is often for a loader that maps memory their way. */
static int boot__elf_entry(const struct boot_desc *d, struct boot__image *img, const char *name,
                           uint64_t pvh, bool entry_is_virtual)
{
    uint64_t e_entry = vmm_get64(d->kernel.data + 24);
    bool has_pvh = pvh && !(pvh >> 32) && boot__in_image(img, pvh);
    bool has_64 = boot__in_image(img, e_entry);

    if (d->entry == BOOT_ENTRY_64 && !has_64)
        return vmm_err(d->log, -EINVAL,
                       "%s: has no 64-bit entry: no segment is at its start address 0x%llx", name,
                       (unsigned long long)e_entry);
    if (d->entry == BOOT_ENTRY_PVH && !has_pvh)
        return vmm_err(d->log, -EINVAL, "%s: has no PVH entry: no valid ELF note says where", name);
    if (!has_pvh && !has_64)
        return vmm_err(d->log, -ENOEXEC,
                       "%s: has no entry of use: neither a PVH note nor a physical start address",
                       name);
    if (d->entry == BOOT_ENTRY_PVH ||
        (d->entry == BOOT_ENTRY_AUTO && has_pvh && (!has_64 || entry_is_virtual)))
        img->format = BOOT_PVH;
    else
        img->format = BOOT_ELF64;
    img->entry = img->format == BOOT_PVH ? pvh : e_entry;
    return 0;
}

static int boot__elf_parse(const struct boot_desc *d, struct boot__image *img, const char *name)
{
    uint64_t pvh = 0;
    bool entry_is_virtual = false;
    int err = boot__elf_check(&d->kernel, d->log, name, BOOT_ARCH_X86);

    if (!err)
        err = boot__elf_segments(d, img, name, &pvh, &entry_is_virtual);
    if (!err)
        err = boot__elf_entry(d, img, name, pvh, entry_is_virtual);
    if (err)
        return err;
    if (d->load_addr && d->load_addr != img->start)
        return vmm_err(d->log, -EINVAL,
                       "%s: is an ELF file, which belongs at 0x%llx: leave out the load address",
                       name, (unsigned long long)img->start);
    img->initrd_max = 0x7fffffff;
    img->cmdline_max = 2047;
    return 0;
}

/* The end of the range of RAM at 0, as far as the identity map and the 32-bit loader fields go. */
static uint64_t boot__low_ram(const struct vmm_mem *mem)
{
    for (unsigned i = 0; i < mem->nranges; i++)
        if (mem->range[i].gpa == 0)
            return mem->range[i].len < 1ull << 32 ? mem->range[i].len : 1ull << 32;
    return 0;
}

/* >>multiboot: the Multiboot Specification, versions 0.6.96 and 2.0. A header in the first bytes of the
   file says that it is one, and either where its bytes belong or, in an ELF file, nothing. */
enum {
    BOOT__MB_MAGIC = 0x1badb002,
    BOOT__MB_EAX = 0x2badb002,
    BOOT__MB2_MAGIC = (int)0xe85250d6,
    BOOT__MB2_EAX = 0x36d76289
};

/* Where the bytes of a kernel belong that does not leave that to ELF. */
struct boot__mb_address {
    uint32_t header, load, load_end, bss_end;
};

/* What a header asks for. */
struct boot__mb {
    uint32_t off;     /* of the header in the file */
    bool has_address; /* address is valid */
    bool has_entry, movable;
    struct boot__mb_address address;
    uint32_t entry;
    uint32_t min, max, align, preference; /* of a place for a movable one */
};

static bool boot__is_elf(const struct boot_file *f)
{
    return f->len >= 6 && !memcmp(f->data, "\x7f\x45LF", 4);
}

/* The offset of the header, or -1. */
static int64_t boot__mb_header(const struct boot_file *f, unsigned version)
{
    uint32_t magic = version == 2 ? (uint32_t)BOOT__MB2_MAGIC : BOOT__MB_MAGIC;
    uint64_t limit = version == 2 ? 32768 : 8192, len = version == 2 ? 16 : 12;

    if (limit > f->len)
        limit = f->len;
    for (uint64_t at = 0; at + len <= limit; at += 4 * version) {
        const uint8_t *p = f->data + at;
        uint32_t sum = vmm_get32(p) + vmm_get32(p + 4) + vmm_get32(p + 8);
        if (vmm_get32(p) != magic)
            continue;
        if (version == 1 ? !sum : !(sum + vmm_get32(p + 12)) && vmm_get32(p + 8) <= limit - at)
            return (int64_t)at;
    }
    return -1;
}

static int boot__mb_refused(const struct boot_desc *d, const char *name, const char *what)
{
    return vmm_err(d->log, -ENOEXEC, "%s: its multiboot header %s", name, what);
}

static struct boot__mb_address boot__mb_address(const uint8_t *p)
{
    return (struct boot__mb_address){vmm_get32(p), vmm_get32(p + 4), vmm_get32(p + 8),
                                     vmm_get32(p + 12)};
}

/* Version 1: flags. There is memory information always, and no video mode to choose. */
static int boot__mb1_read(const struct boot_desc *d, const char *name, struct boot__mb *mb)
{
    const uint8_t *p = d->kernel.data + mb->off;
    uint32_t flags = vmm_get32(p + 4);

    if (flags & 0xfff8)
        return boot__mb_refused(d, name, "requires what this loader does not know");
    if (!(flags & 0x10000))
        return 0;
    if (d->kernel.len - mb->off < 32)
        return boot__truncated(&d->kernel, d->log, name, mb->off + 32);
    mb->has_address = mb->has_entry = true;
    mb->address = boot__mb_address(p + 12);
    mb->entry = vmm_get32(p + 28);
    return 0;
}

/* A list of information that is required: what the specification names is passed if there is such a
   thing here. */
static bool boot__mb2_passes(const uint8_t *tag, uint32_t size)
{
    enum { KNOWN = 21 };

    for (uint32_t at = 8; at + 4 <= size; at += 4)
        if (vmm_get32(tag + at) > KNOWN)
            return false;
    return true;
}

/* One tag of a header of version 2. What is not optional has to be understood, and a frame buffer or a
   text screen there is not. */
static int boot__mb2_tag(const struct boot_desc *d, const char *name, struct boot__mb *mb,
                         const uint8_t *tag, uint32_t size)
{
    enum { REQUEST = 1, ADDRESS, ENTRY, CONSOLE, FRAMEBUFFER, ALIGN, EFI, EFI32, EFI64, RELOCATE };
    unsigned type = vmm_get16(tag);
    bool optional = vmm_get16(tag + 2) & 1;

    if (type == ADDRESS && size >= 24) {
        mb->has_address = true;
        mb->address = boot__mb_address(tag + 8);
    } else if (type == ENTRY && size >= 12) {
        mb->has_entry = true;
        mb->entry = vmm_get32(tag + 8);
    } else if (type == RELOCATE && size >= 24) {
        mb->movable = true;
        mb->min = vmm_get32(tag + 8);
        mb->max = vmm_get32(tag + 12);
        mb->align = vmm_get32(tag + 16);
        mb->preference = vmm_get32(tag + 20);
    } else if (type == CONSOLE && size >= 12 && vmm_get32(tag + 8) & 1) {
        return boot__mb_refused(d, name,
                                "requires a text screen, which this machine does not have");
    } else if (type == FRAMEBUFFER && !optional) {
        return boot__mb_refused(d, name,
                                "requires a frame buffer, which this machine does not have");
    } else if (!optional &&
               (type > RELOCATE || (type == REQUEST && !boot__mb2_passes(tag, size)))) {
        return boot__mb_refused(d, name, "requires what this loader does not know");
    }
    return 0;
}

static int boot__mb2_read(const struct boot_desc *d, const char *name, struct boot__mb *mb)
{
    const uint8_t *p = d->kernel.data + mb->off;
    uint32_t len = vmm_get32(p + 8), at = 16, size;
    int err = 0;

    if (vmm_get32(p + 4))
        return boot__mb_refused(d, name, "is for another architecture");
    for (; !err && at + 8 <= len && vmm_get16(p + at); at += (size + 7) & ~7u) {
        size = vmm_get32(p + at + 4);
        if (size < 8 || size > len - at)
            return boot__mb_refused(d, name, "is damaged: a tag makes no sense");
        err = boot__mb2_tag(d, name, mb, p + at, size);
    }
    return err;
}

/* Bytes in a row: from the file's beginning or behind, to its end or before; then zeroes. */
static int boot__mb_flat(const struct boot_desc *d, struct boot__image *img, const char *name,
                         const struct boot__mb *mb)
{
    const struct boot__mb_address *a = &mb->address;
    uint64_t before = a->header - (uint64_t)a->load, off = mb->off - before;
    uint64_t room = d->kernel.len - off, len = a->load_end ? a->load_end - (uint64_t)a->load : room;
    uint64_t end = a->load + len;

    if (a->header < a->load || before > mb->off || (a->load_end && a->load_end < a->load) ||
        !mb->has_entry)
        return boot__mb_refused(d, name, "is damaged: its addresses make no sense");
    if (len > room)
        return boot__truncated(&d->kernel, d->log, name, off + len);
    img->nsegs = 1;
    img->seg[0] =
        (struct boot__seg){off, a->load, len, a->bss_end > end ? a->bss_end - a->load : len};
    img->start = a->load;
    img->end = a->load + img->seg[0].memsz;
    img->entry = mb->entry;
    return 0;
}

/* A program header of either class in the form of class 64. */
static void boot__elf_wide(const uint8_t *ph, bool wide, uint8_t out[56])
{
    if (wide) {
        memcpy(out, ph, 56);
        return;
    }
    memset(out, 0, 56);
    vmm_put32(out, vmm_get32(ph));
    for (unsigned i = 0; i < 5; i++) /* offset, two addresses, two lengths */
        vmm_put64(out + 8 + 8 * i, vmm_get32(ph + 4 + 4 * i));
}

static int boot__mb_elf_check(const struct boot_desc *d, const char *name, bool wide,
                              uint64_t phoff, unsigned phnum)
{
    const uint8_t *e = d->kernel.data;
    unsigned machine = vmm_get16(e + 18), size = wide ? 56 : 32;

    if (e[5] != 1 || (machine != 3 && machine != 62))
        return vmm_err(d->log, -ENOEXEC, "%s: is an ELF file for %s: give one for x86", name,
                       boot__arch(machine));
    if (vmm_get16(e + (wide ? 54 : 42)) != size || !phnum || phnum > BOOT__SEGS_MAX || phoff >> 62)
        return vmm_err(d->log, -ENOEXEC, "%s: is damaged: its ELF program headers make no sense",
                       name);
    if (d->kernel.len < phoff + (uint64_t)phnum * size)
        return boot__truncated(&d->kernel, d->log, name, phoff + (uint64_t)phnum * size);
    return 0;
}

/* The start address of an ELF file is a virtual one. */
static int boot__mb_elf(const struct boot_desc *d, struct boot__image *img, const char *name)
{
    const uint8_t *e = d->kernel.data;
    bool wide = e[4] == 2;
    uint64_t phoff, entry;
    unsigned phnum;
    int err;

    if (d->kernel.len < 64)
        return boot__truncated(&d->kernel, d->log, name, 64);
    phoff = wide ? vmm_get64(e + 32) : vmm_get32(e + 28);
    phnum = vmm_get16(e + (wide ? 56 : 44));
    entry = wide ? vmm_get64(e + 24) : vmm_get32(e + 24);
    err = boot__mb_elf_check(d, name, wide, phoff, phnum);
    for (unsigned i = 0; i < phnum && !err; i++) {
        uint8_t ph[56];
        uint64_t off, len, vaddr;
        boot__elf_wide(e + phoff + i * (wide ? 56u : 32u), wide, ph);
        off = vmm_get64(ph + 8);
        vaddr = vmm_get64(ph + 16);
        len = vmm_get64(ph + 32);
        if (vmm_get32(ph) != 1)
            continue;
        if (off > d->kernel.len || len > d->kernel.len - off)
            return boot__truncated(&d->kernel, d->log, name,
                                   off >> 62 || len >> 62 ? ~0ull : off + len);
        err = boot__elf_load(d, img, name, ph);
        if (entry - vaddr < vmm_get64(ph + 40))
            img->entry = entry - vaddr + vmm_get64(ph + 24);
    }
    return err;
}

/* Where a movable kernel goes: it says from where to where, and which end it likes better. */
static int boot__mb_move(const struct boot_desc *d, struct boot__image *img, const char *name,
                         const struct boot__mb *mb)
{
    enum { LOWEST = 1, HIGHEST };
    uint64_t align = mb->align ? mb->align : 1, len = img->end - img->start, to = img->start;
    uint64_t min = mb->min < BOOT_HIGH ? BOOT_HIGH : mb->min, max = mb->max;
    uint64_t ram = d->machine.mem ? boot__low_ram(d->machine.mem) : 1ull << 32;

    if (align & (align - 1))
        return boot__mb_refused(d, name, "is damaged: its alignment makes no sense");
    min = (min + align - 1) & ~(align - 1);
    max = ram && ram - 1 < max ? ram - 1 : max;
    if (max < min || max - min < len - 1)
        return vmm_err(d->log, -ENOMEM, "%s: does not fit where it may be: give more --mem", name);
    if (mb->preference == HIGHEST)
        to = (max - len + 1) & ~(align - 1);
    else if (mb->preference == LOWEST || to < min || to + len - 1 > max || to & (align - 1))
        to = min;
    for (unsigned i = 0; i < img->nsegs; i++)
        img->seg[i].gpa += to - img->start;
    img->entry += to - img->start;
    img->end = to + len;
    img->start = img->load_base = to;
    return 0;
}

/* Below 4 GiB, and not where tables are and what is passed. */
static int boot__mb_room(const struct boot_desc *d, const char *name, const struct boot__seg *seg)
{
    if (seg->gpa + seg->memsz > 1ull << 32)
        return boot__mb_refused(d, name, "wants to be loaded above 4 GiB");
    if (seg->gpa < BOOT__PAGE ||
        (seg->gpa < BOOT_HIGH && seg->gpa + seg->memsz > BOOT_MULTIBOOT_INFO))
        return boot__mb_refused(d, name, "wants to be loaded to 512 KiB up to 1 MiB, or to page 0");
    return 0;
}

static int boot__mb_parse(const struct boot_desc *d, struct boot__image *img, const char *name,
                          unsigned version)
{
    struct boot__mb mb = {.off = (uint32_t)boot__mb_header(&d->kernel, version)};
    int err = version == 2 ? boot__mb2_read(d, name, &mb) : boot__mb1_read(d, name, &mb);

    img->format = version == 2 ? BOOT_MULTIBOOT2 : BOOT_MULTIBOOT;
    if (!err && !mb.has_address && !boot__is_elf(&d->kernel))
        return boot__mb_refused(d, name, "has no addresses, and the file is not ELF");
    if (!err)
        err = mb.has_address ? boot__mb_flat(d, img, name, &mb) : boot__mb_elf(d, img, name);
    if (!err && mb.has_entry)
        img->entry = mb.entry;
    if (!err && (!img->nsegs || !boot__in_image(img, img->entry)))
        err = boot__mb_refused(d, name, "leads to an entry outside of the kernel");
    if (!err && mb.movable)
        err = boot__mb_move(d, img, name, &mb);
    for (unsigned i = 0; i < img->nsegs && !err; i++)
        err = boot__mb_room(d, name, &img->seg[i]);
    if (!err && d->load_addr && d->load_addr != img->start)
        err = vmm_err(
            d->log, -EINVAL,
            "%s: is a multiboot kernel, which belongs at 0x%llx: leave out the load address", name,
            (unsigned long long)img->start);
    img->cmdline_max = BOOT__CMDLINE_ROOM - 1;
    return err;
}

/* Which version of multiboot the kernel is started by; 0: none. A note of PVH says that an ELF file
   wants to be started otherwise, unless it is told. */
static unsigned boot__mb_wanted(const struct boot_desc *d)
{
    bool v1 = boot__mb_header(&d->kernel, 1) >= 0, v2 = boot__mb_header(&d->kernel, 2) >= 0;
    struct boot_desc quiet = *d;
    struct boot__image img = {0};

    if (d->entry == BOOT_ENTRY_MULTIBOOT1)
        return v1 ? 1 : 0;
    if (d->entry == BOOT_ENTRY_MULTIBOOT)
        return v2 ? 2 : v1 ? 1 : 0;
    if (d->entry != BOOT_ENTRY_AUTO || boot__is_bzimage(&d->kernel) || !(v1 || v2))
        return 0;
    quiet.log = NULL;
    quiet.entry = BOOT_ENTRY_PVH;
    if (boot__is_elf(&d->kernel) && !boot__elf_parse(&quiet, &img, ""))
        return 0;
    return v2 ? 2 : 1;
}

static int boot__parse(const struct boot_desc *d, struct boot__image *img)
{
    const char *name = boot__name(&d->kernel, "kernel");
    unsigned multiboot;

    memset(img, 0, sizeof *img);
    if (!d->kernel.data || !d->kernel.len)
        return vmm_err(d->log, -ENOEXEC, "%s: is empty: give an x86-64 bzImage or vmlinux", name);
    multiboot = boot__mb_wanted(d);
    if (multiboot)
        return boot__mb_parse(d, img, name, multiboot);
    if (d->entry == BOOT_ENTRY_MULTIBOOT || d->entry == BOOT_ENTRY_MULTIBOOT1)
        return vmm_err(d->log, -EINVAL,
                       "%s: has no multiboot header of this version: leave out entry=", name);
    if (d->nmodules)
        return vmm_err(d->log, -EINVAL,
                       "%s: is no multiboot kernel, which alone takes modules: leave them out",
                       name);
    if (boot__is_bzimage(&d->kernel))
        return boot__bz_parse(d, img, name);
    if (boot__is_elf(&d->kernel))
        return boot__elf_parse(d, img, name);
    return boot__not_a_kernel(&d->kernel, d->log, name, BOOT_ARCH_X86);
}

VMM_DEF int boot_probe(const struct boot_file *kernel, const struct vmm_log *log)
{
    struct boot_desc desc = {.kernel = *kernel, .log = log};
    struct boot__image img;
    int err = boot__parse(&desc, &img);

    return err ? err : (int)img.format;
}

/* >>room: does it all fit? */
static bool boot__below_4g(uint64_t gpa, uint64_t len)
{
    return gpa < 1ull << 32 && len <= (1ull << 32) - gpa;
}

static int boot__check_pci(const struct boot_pci *p, const struct vmm_log *log)
{
    bool fits = !(p->ecam & (BOOT__ECAM_LEN - 1)) && boot__below_4g(p->ecam, BOOT__ECAM_LEN) &&
                boot__below_4g(p->mmio32, p->mmio32_len) &&
                (!p->mmio64_len || p->mmio64 + p->mmio64_len - 1 >= p->mmio64);

    for (unsigned i = 0; i < 4; i++)
        fits &= p->gsi[i] < BOOT__GSIS && p->pic[i] < 16;
    return fits || !p->ecam ? 0
                            : vmm_err(log, -EINVAL,
                                      "the PCI bus with ECAM at 0x%llx cannot be described in "
                                      "ACPI: wrong address or line",
                                      (unsigned long long)p->ecam);
}

static int boot__check_machine(const struct boot_machine *m, const struct vmm_log *log)
{
    if (!m->ncpus)
        return vmm_err(log, -EINVAL, "a machine without CPUs cannot boot: give --cpus 1 or more");
    for (unsigned i = 0; i < m->ndevs; i++) {
        const struct boot_dev *d = &m->devs[i];
        uint64_t space = d->kind == BOOT_DEV_VIRTIO_MMIO ? 1ull << 32 : 1u << 16;
        bool known = (unsigned)d->kind <= BOOT_DEV_VIRTIO_MMIO || d->kind == BOOT_DEV_PVPANIC;
        if (!known || !d->len || d->base >= space || d->len > space - d->base ||
            (d->kind != BOOT_DEV_VIRTIO_MMIO && d->len > 255))
            return vmm_err(log, -EINVAL,
                           "device %u at 0x%llx cannot be described in ACPI: wrong address", i,
                           (unsigned long long)d->base);
    }
    return boot__check_pci(&m->pci, log);
}

/* How much RAM would do; beyond the hole for devices more RAM does not help. */
static int boot__no_room(const struct boot__job *j, const char *name)
{
    uint64_t need = boot__up(j->img.end) + boot__up(j->desc->initrd.len);

    if (j->desc->machine.mem->nranges > 1 || need > 3ull << 30)
        return vmm_err(j->desc->log, -ENOMEM,
                       "%s: does not fit: it needs %llu MiB of RAM below 4 GiB, there are %llu",
                       name, boot__mib(need), (unsigned long long)(j->ram >> 20));
    return vmm_err(j->desc->log, -ENOMEM, "%s: does not fit into RAM: give --mem %lluM or more",
                   name, boot__mib(need));
}

static int boot__fit_kernel(const struct boot__job *j)
{
    uint64_t addr = j->desc->load_addr;

    if (addr >= j->ram)
        return vmm_err(j->desc->log, -EINVAL,
                       "%s: load address 0x%llx is outside RAM, which ends at 0x%llx", j->name,
                       (unsigned long long)addr, (unsigned long long)j->ram);
    return j->img.end <= j->ram ? 0 : boot__no_room(j, j->name);
}

/* As high as possible, where the kernel does not allocate first; else below the kernel. */
static int boot__fit_initrd(struct boot__job *j)
{
    const struct boot_file *f = &j->desc->initrd;
    uint64_t top = boot__down(j->ram <= j->img.initrd_max ? j->ram : j->img.initrd_max + 1);
    uint64_t len = boot__up(f->len), below = boot__down(j->img.start);

    if (!f->len)
        return 0;
    if (f->len <= j->ram && top >= boot__up(j->img.end) && len <= top - boot__up(j->img.end))
        j->initrd_gpa = top - len;
    else if (f->len <= j->ram && below <= top && len <= below - BOOT_HIGH)
        j->initrd_gpa = below - len;
    else if (j->ram > j->img.initrd_max)
        return vmm_err(j->desc->log, -ENOMEM,
                       "%s: does not fit below %llu MiB, where the kernel wants it: give a smaller",
                       boot__name(f, "initrd"), boot__mib(j->img.initrd_max));
    else
        return boot__no_room(j, boot__name(f, "initrd"));
    return 0;
}

static bool boot__is_multiboot(const struct boot__job *j)
{
    return j->img.format == BOOT_MULTIBOOT || j->img.format == BOOT_MULTIBOOT2;
}

/* The initrd of a multiboot kernel is its first module. */
static unsigned boot__mb_modules(const struct boot_desc *d)
{
    return d->nmodules + (d->initrd.len ? 1 : 0);
}

static struct boot_module boot__mb_module(const struct boot_desc *d, unsigned i)
{
    if (d->initrd.len && i == 0)
        return (struct boot_module){d->initrd, NULL};
    return d->modules[i - (d->initrd.len ? 1 : 0)];
}

/* One after the other behind the kernel, each on pages of its own. */
static int boot__fit_modules(struct boot__job *j)
{
    uint64_t at = j->img.end > BOOT_HIGH ? boot__up(j->img.end) : BOOT_HIGH;
    unsigned n = boot__mb_modules(j->desc);

    if (n > BOOT_MODULES_MAX)
        return vmm_err(j->desc->log, -EINVAL, "%s: takes at most %d modules: give fewer", j->name,
                       BOOT_MODULES_MAX);
    for (unsigned i = 0; i < n; i++) {
        struct boot_module m = boot__mb_module(j->desc, i);
        if (at > j->ram || m.file.len > j->ram - at || boot__up(m.file.len) > j->ram - at)
            return vmm_err(j->desc->log, -ENOMEM, "%s: does not fit into RAM: give more --mem",
                           boot__name(&m.file, "module"));
        j->module_gpa[i] = at;
        at += boot__up(m.file.len);
    }
    return 0;
}

static int boot__fit(struct boot__job *j)
{
    const struct boot_desc *d = j->desc;
    uint64_t cmdline = d->cmdline ? strlen(d->cmdline) : 0, max = j->img.cmdline_max;
    int err;

    if (max > BOOT__CMDLINE_ROOM - 1)
        max = BOOT__CMDLINE_ROOM - 1;
    if (cmdline > max)
        return vmm_err(d->log, -E2BIG, "the command line has %llu bytes, %s takes %llu: shorten it",
                       (unsigned long long)cmdline, j->name, (unsigned long long)max);
    j->ram = boot__low_ram(d->machine.mem);
    if (j->ram < BOOT_HIGH)
        return boot__no_room(j, j->name);
    j->low = (uint8_t *)vmm_at(d->machine.mem, 0, BOOT_HIGH);
    err = boot__fit_kernel(j);
    if (!err)
        err = boot__is_multiboot(j) ? boot__fit_modules(j) : boot__fit_initrd(j);
    return err;
}

#endif /* BOOT_NO_X86 */

/* >>place: file bytes to guest memory, by mapping pages where offset and address agree. With spill
   the first and last page are mapped too, though they show other bytes of the file around it. */
static void boot__place(const struct boot_desc *d, const struct boot_file *f,
                        const struct boot__seg *s, bool spill)
{
    uint64_t end = s->gpa + s->filesz;
    uint64_t from = spill ? boot__down(s->gpa) : boot__up(s->gpa);
    uint64_t to = spill ? boot__up(end) : boot__down(end);
    uint8_t *at = (uint8_t *)vmm_at(d->machine.mem, s->gpa, s->filesz);

    if (!s->filesz)
        return;
    if (!d->map || (s->off - s->gpa) % BOOT__PAGE || from >= to ||
        !vmm_at(d->machine.mem, from, to - from) ||
        d->map(d->ctx, f, s->off + (from - s->gpa), from, to - from))
        from = to = end;
    if (from > s->gpa)
        memcpy(at, f->data + s->off, from - s->gpa);
    if (to < end)
        memcpy(at + (to - s->gpa), f->data + s->off + (to - s->gpa), end - to);
}

#ifndef BOOT_NO_X86
static void boot__place_all(const struct boot__job *j)
{
    const struct boot_desc *d = j->desc;
    struct boot__seg initrd = {0, j->initrd_gpa, d->initrd.len, d->initrd.len};

    for (unsigned i = 0; i < j->img.nsegs; i++)
        boot__place(d, &d->kernel, &j->img.seg[i], j->img.spill);
    if (j->initrd_gpa)
        boot__place(d, &d->initrd, &initrd, true);
    for (unsigned i = 0; boot__is_multiboot(j) && i < boot__mb_modules(d); i++) {
        struct boot_module m = boot__mb_module(d, i);
        struct boot__seg to = {0, j->module_gpa[i], m.file.len, m.file.len};
        boot__place(d, &m.file, &to, true);
    }
    if (!boot__is_multiboot(j))
        memcpy(j->low + BOOT_CMDLINE, d->cmdline ? d->cmdline : "",
               (d->cmdline ? strlen(d->cmdline) : 0) + 1);
}

/* >>e820: the memory map, for both entries. Linux uses ECAM only where it is reserved. */
static unsigned boot__memory_map(const struct boot_machine *m, struct boot_range *e)
{
    const struct vmm_mem *mem = m->mem;
    uint64_t ecam = m->pci.ecam;
    unsigned n = 0;

    e[n++] = (struct boot_range){0, BOOT_EBDA, 1};
    e[n++] = (struct boot_range){BOOT_EBDA, 0xa0000 - BOOT_EBDA, 2};
    e[n++] = (struct boot_range){BOOT_BIOS, BOOT_HIGH - BOOT_BIOS, 2};
    for (unsigned i = 0; i < mem->nranges; i++) {
        const struct vmm_range *r = &mem->range[i];
        if (ecam && r->gpa > ecam) {
            e[n++] = (struct boot_range){ecam, BOOT__ECAM_LEN, 2};
            ecam = 0;
        }
        if (r->gpa)
            e[n++] = (struct boot_range){r->gpa, r->len, 1};
        else if (r->len > BOOT_HIGH)
            e[n++] = (struct boot_range){BOOT_HIGH, r->len - BOOT_HIGH, 1};
    }
    if (ecam)
        e[n++] = (struct boot_range){ecam, BOOT__ECAM_LEN, 2};
    return n;
}

/* >>params: struct boot_params for the 64-bit entry, hvm_start_info for PVH */
static void boot__zero_page(const struct boot__job *j)
{
    const struct boot_desc *d = j->desc;
    struct boot_range map[BOOT__E820_MAX];
    unsigned n = boot__memory_map(&d->machine, map);
    uint8_t *zp = j->low + BOOT_ZERO_PAGE;

    if (j->img.hdr_len) {
        memcpy(zp + BOOT__HDR_SECTS, d->kernel.data + BOOT__HDR_SECTS, j->img.hdr_len);
    } else { /* a vmlinux brings no setup header */
        vmm_put16(zp + BOOT__HDR_FLAG, 0xaa55);
        memcpy(zp + BOOT__HDR_MAGIC, "HdrS", 4);
        vmm_put16(zp + BOOT__HDR_VERSION, 0x20c);
        vmm_put32(zp + BOOT__HDR_ALIGN, 2 << 20);
        zp[BOOT__HDR_LOADFLAGS] = 1; /* LOADED_HIGH */
    }
    zp[BOOT__HDR_LOADER] = 0xff; /* a boot loader without a number of its own */
    vmm_put32(zp + BOOT__HDR_CODE32, (uint32_t)j->img.start);
    vmm_put32(zp + BOOT__HDR_CMDLINE, BOOT_CMDLINE);
    vmm_put32(zp + BOOT__HDR_INITRD, (uint32_t)j->initrd_gpa);
    vmm_put32(zp + BOOT__HDR_INITRD_LEN, (uint32_t)d->initrd.len);
    vmm_put64(zp + BOOT__ZP_RSDP, j->rsdp);
    zp[BOOT__ZP_E820_ENTRIES] = (uint8_t)n;
    for (unsigned i = 0; i < n; i++) { /* 20 bytes each: no padding */
        uint8_t *p = zp + BOOT__ZP_E820 + 20 * i;
        vmm_put64(p, map[i].gpa);
        vmm_put64(p + 8, map[i].len);
        vmm_put32(p + 16, map[i].type);
    }
}

static void boot__pvh_info(const struct boot__job *j)
{
    enum { MODULE = 64, MEMMAP = 96 }; /* behind the start info of 56 bytes */
    struct boot_range map[BOOT__E820_MAX];
    unsigned n = boot__memory_map(&j->desc->machine, map);
    uint8_t *info = j->low + BOOT_PVH_INFO;

    vmm_put32(info, 0x336ec578);
    vmm_put32(info + 4, 1); /* version: has a memory map */
    vmm_put32(info + 12, j->initrd_gpa ? 1 : 0);
    vmm_put64(info + 16, j->initrd_gpa ? BOOT_PVH_INFO + MODULE : 0);
    vmm_put64(info + 24, BOOT_CMDLINE);
    vmm_put64(info + 32, j->rsdp);
    vmm_put64(info + 40, BOOT_PVH_INFO + MEMMAP);
    vmm_put32(info + 48, n);
    vmm_put64(info + MODULE, j->initrd_gpa);
    vmm_put64(info + MODULE + 8, j->desc->initrd.len);
    for (unsigned i = 0; i < n; i++) { /* 24 bytes each: padded */
        uint8_t *p = info + MEMMAP + 24 * i;
        vmm_put64(p, map[i].gpa);
        vmm_put64(p + 8, map[i].len);
        vmm_put32(p + 16, map[i].type);
    }
}

/* >>out: a bounded writer into guest memory. What does not fit makes it full, and stays out. */
struct boot__out {
    uint8_t *base;
    uint64_t gpa;             /* of base */
    uint32_t len, cap;        /* len > cap: full */
    struct boot__out *loader; /* NULL, or who learns what must change with base: see >>loader */
};

static void boot__put(struct boot__out *o, const void *src, uint32_t n)
{
    if (o->len > o->cap || n > o->cap - o->len) {
        o->len = o->cap + 1;
        return;
    }
    memcpy(o->base + o->len, src, n);
    o->len += n;
}

/* The low n bytes of v. */
static void boot__num(struct boot__out *o, uint64_t v, uint32_t n)
{
    boot__put(o, &v, n);
}

static void boot__align(struct boot__out *o, uint32_t to)
{
    while (o->len <= o->cap && o->len % to)
        boot__num(o, 0, 1);
}

/* Overwrites bytes written before. */
static void boot__fix(struct boot__out *o, uint32_t at, uint64_t v, uint32_t n)
{
    if (o->len <= o->cap)
        memcpy(o->base + at, &v, n);
}

/* Makes the bytes [at, at + n) sum up to 0 by the one at `field`, which is 0 now. */
static void boot__sum(struct boot__out *o, uint32_t at, uint32_t n, uint32_t field)
{
    uint8_t sum = 0;

    if (o->len > o->cap)
        return;
    for (uint32_t i = at; i < at + n; i++)
        sum = (uint8_t)(sum + o->base[i]);
    o->base[field] = (uint8_t)-sum;
}

/* >>mp: MultiProcessor Specification 1.4, chapter 4 */
static uint64_t boot__or(uint64_t v, uint64_t otherwise)
{
    return v ? v : otherwise;
}

static void boot__mp_cpu(struct boot__out *o, unsigned id)
{
    boot__num(o, 0, 1); /* entry type: processor */
    boot__num(o, id, 1);
    boot__num(o, 0x14, 1);       /* local APIC version */
    boot__num(o, id ? 1 : 3, 1); /* enabled; CPU 0 is the bootstrap processor */
    boot__num(o, 0, 8);          /* signature and features: the kernel asks CPUID */
    boot__num(o, 0, 8);
}

/* The PCI bus goes by the number that it has for the kernel, so that ISA comes after it. */
static unsigned boot__mp_isa(const struct boot_machine *m)
{
    return m->pci.ecam ? 1 : 0;
}

/* An I/O interrupt (type 3) or local interrupt (type 4) entry. */
static void boot__mp_int(struct boot__out *o, unsigned type, unsigned what, unsigned bus,
                         unsigned irq, unsigned apic, unsigned pin)
{
    boot__num(o, type, 1);
    boot__num(o, what, 1); /* 0: vectored, 1: NMI, 3: from the 8259 */
    boot__num(o, 0, 2);    /* as the bus has it: ISA high and edge, PCI low and level */
    boot__num(o, bus, 1);
    boot__num(o, irq, 1);
    boot__num(o, apic, 1);
    boot__num(o, pin, 1);
}

static void boot__mp_bus(struct boot__out *o, unsigned id, const char *type)
{
    boot__num(o, 1, 1);
    boot__num(o, id, 1);
    boot__put(o, type, 6);
}

/* Each line of the IOAPIC is ISA's, pin by pin (KVM has the timer on pin 0, too), or PCI's. */
static void boot__mp_lines(struct boot__out *o, const struct boot_machine *m, unsigned ioapic_id)
{
    const unsigned *gsi = m->pci.gsi;

    for (unsigned irq = 0; irq < BOOT__GSIS; irq++)
        if (!m->pci.ecam || (irq != gsi[0] && irq != gsi[1] && irq != gsi[2] && irq != gsi[3]))
            boot__mp_int(o, 3, 0, boot__mp_isa(m), irq, ioapic_id, irq);
    for (unsigned slot = 1; m->pci.ecam && slot < BOOT__PCI_SLOTS; slot++)
        for (unsigned pin = 0; pin < 4; pin++)
            boot__mp_int(o, 3, 0, 0, slot << 2 | pin, ioapic_id, gsi[(slot + pin) % 4]);
}

static void boot__mp_entries(struct boot__out *o, const struct boot_machine *m, unsigned ncpus,
                             unsigned ioapic_id)
{
    for (unsigned i = 0; i < ncpus; i++)
        boot__mp_cpu(o, i);
    if (m->pci.ecam)
        boot__mp_bus(o, 0, "PCI   ");
    boot__mp_bus(o, boot__mp_isa(m), "ISA   ");
    boot__num(o, 2, 1); /* IOAPIC */
    boot__num(o, ioapic_id, 1);
    boot__num(o, 0x11, 1); /* version */
    boot__num(o, 1, 1);    /* enabled */
    boot__num(o, boot__or(m->ioapic, 0xfec00000), 4);
    boot__mp_lines(o, m, ioapic_id);
    boot__mp_int(o, 4, 3, boot__mp_isa(m), 0, 0xff, 0); /* every CPU: LINT0 is the 8259, ... */
    boot__mp_int(o, 4, 1, boot__mp_isa(m), 0, 0xff, 1); /* ... LINT1 is NMI */
}

/* Ids are bytes, 255 is everybody and the IOAPIC needs one of its own: later CPUs go without. */
static void boot__mp_table(struct boot__out *o, const struct boot_machine *m)
{
    unsigned ncpus = m->ncpus < 254 ? m->ncpus : 254;
    uint32_t fp = o->len, at = fp + 16;

    boot__put(o, "_MP_", 4);
    boot__num(o, o->gpa + at, 4);
    boot__num(o, 1, 1); /* length in units of 16 bytes */
    boot__num(o, 4, 1); /* specification 1.4 */
    boot__num(o, 0, 6); /* checksum; a table is there; no IMCR */
    boot__sum(o, fp, 16, fp + 10);

    boot__put(o, "PCMP", 4);
    boot__num(o, 0, 2); /* length, below */
    boot__num(o, 4, 1);
    boot__num(o, 0, 1); /* checksum, below */
    boot__put(o, "VMM     VMM         ", 20);
    boot__num(o, 0, 6); /* no OEM table */
    boot__num(o, 0, 2); /* entries, below */
    boot__num(o, boot__or(m->lapic, 0xfee00000), 4);
    boot__num(o, 0, 4); /* no extended table */
    boot__mp_entries(o, m, ncpus, ncpus);
    boot__fix(o, at + 4, o->len - at, 2);
    boot__fix(o, at + 34, ncpus + (o->len - at - 44 - 20 * ncpus) / 8,
              2); /* a CPU's has 20 bytes */
    boot__sum(o, at, o->len - at, at + 7);
}

/* >>aml: the few terms of the ACPI Machine Language (ACPI 6.3, chapter 20) that a DSDT needs.
   A package length is written as three bytes always, since it is known only at the end. */
static uint32_t boot__aml_open(struct boot__out *o, const char *op, uint32_t nop)
{
    boot__put(o, op, nop);
    boot__num(o, 0, 3);
    return o->len - 3;
}

static void boot__aml_close(struct boot__out *o, uint32_t at)
{
    uint32_t n = o->len - at;

    boot__fix(o, at, 0x80 | (n & 15) | (n >> 4 & 0xff) << 8 | (n >> 12 & 0xff) << 16, 3);
}

/* DefName: a name of four characters; its value follows. */
static void boot__aml_name(struct boot__out *o, const char *name)
{
    boot__num(o, 0x08, 1);
    boot__put(o, name, 4);
}

static void boot__aml_uid(struct boot__out *o, unsigned uid)
{
    boot__aml_name(o, "_UID");
    boot__num(o, 0x0c, 1); /* DWordConst */
    boot__num(o, uid, 4);
}

/* PNPxxxx as the integer that EISAID("PNPxxxx") is. */
static void boot__aml_eisaid(struct boot__out *o, const char *id)
{
    static const char digits[] = "0123456789ABCDEF";
    unsigned v = 0;

    for (unsigned i = 3; i < 7; i++)
        v = v << 4 | (unsigned)((const char *)memchr(digits, id[i], 16) - digits);
    boot__put(o, "\x0c\x41\xd0", 3);
    boot__num(o, v >> 8, 1);
    boot__num(o, v, 1);
}

/* DefDevice, with its _HID: an EISAID or a string. */
static uint32_t boot__aml_device(struct boot__out *o, const char *name, const char *hid)
{
    uint32_t at = boot__aml_open(o, "\x5b\x82", 2);

    boot__put(o, name, 4);
    boot__aml_name(o, "_HID");
    if (hid[0] == 'P') {
        boot__aml_eisaid(o, hid);
    } else {
        boot__num(o, 0x0d, 1);
        boot__put(o, hid, (uint32_t)strlen(hid) + 1);
    }
    return at;
}

/* Resource descriptors, ACPI 6.3, 6.4.2 and 6.4.3. */
static void boot__crs_io(struct boot__out *o, uint64_t port, uint64_t len)
{
    boot__num(o, 0x47, 1);
    boot__num(o, 1, 1); /* decodes 16 bits */
    boot__num(o, port, 2);
    boot__num(o, port, 2);
    boot__num(o, 1, 1); /* alignment */
    boot__num(o, len, 1);
}

static void boot__crs_mem(struct boot__out *o, uint64_t gpa, uint64_t len)
{
    boot__put(o, "\x86\x09\0\1", 4); /* Memory32Fixed, writable */
    boot__num(o, gpa, 4);
    boot__num(o, len, 4);
}

static void boot__crs_irq(struct boot__out *o, unsigned gsi, bool shared)
{
    if (!gsi)
        return;
    boot__num(o, 0x000689, 3);
    boot__num(o, shared ? 0x0b : 0x03, 1); /* consumer, edge, active high */
    boot__num(o, 1, 1);                    /* one */
    boot__num(o, gsi, 4);
}

/* Name (_CRS, Buffer (size) {descriptors, end tag}); the size is a word, filled in at the end. */
static uint32_t boot__crs_open(struct boot__out *o)
{
    uint32_t at;

    boot__aml_name(o, "_CRS");
    at = boot__aml_open(o, "\x11", 1);
    boot__num(o, 0x0b, 1);
    boot__num(o, 0, 2);
    return at;
}

static void boot__crs_close(struct boot__out *o, uint32_t at)
{
    boot__num(o, 0x79, 2); /* end tag, no checksum */
    boot__fix(o, at + 4, o->len - at - 6, 2);
    boot__aml_close(o, at);
}

/* Device n of the machine, the uid-th of its kind. */
static void boot__dsdt_dev(struct boot__out *o, const struct boot_machine *m, unsigned n,
                           unsigned uid)
{
    static const char hid[][9] = {[BOOT_DEV_UART] = "PNP0501",
                                  [BOOT_DEV_RTC] = "PNP0B00",
                                  [BOOT_DEV_VIRTIO_MMIO] = "LNRO0005",
                                  [BOOT_DEV_PVPANIC] = "QEMU0001"};
    static const char letter[] = {'U', 'R', 'V', [BOOT_DEV_PVPANIC] = 'P'};
    static const char hex[] = "0123456789ABCDEF";
    const struct boot_dev *d = &m->devs[n];
    char name[4] = {letter[d->kind], hex[n >> 8 & 15], hex[n >> 4 & 15], hex[n & 15]};
    uint32_t dev = boot__aml_device(o, name, hid[d->kind]), crs;
    bool shared = false;

    for (unsigned i = 0; i < m->ndevs; i++)
        shared = shared || (i != n && m->devs[i].gsi == d->gsi);

    boot__aml_uid(o, uid);
    crs = boot__crs_open(o);
    if (d->kind == BOOT_DEV_VIRTIO_MMIO)
        boot__crs_mem(o, d->base, d->len);
    else
        boot__crs_io(o, d->base, d->len);
    boot__crs_irq(o, d->gsi, shared);
    boot__crs_close(o, crs);
    boot__aml_close(o, dev);
}

/* The power button is a device without registers; the event device (ACPI 6.3, 5.6.9) has the
   interrupt, and a method that says whose event it was. */
static void boot__dsdt_power(struct boot__out *o, unsigned gsi)
{
    uint32_t dev, part;

    boot__aml_close(o, boot__aml_device(o, "PWRB", "PNP0C0C"));
    dev = boot__aml_device(o, "GED_", "ACPI0013");
    boot__aml_uid(o, 0);
    part = boot__crs_open(o);
    boot__crs_irq(o, gsi, false);
    boot__crs_close(o, part);
    part = boot__aml_open(o, "\x14", 1);
    boot__put(o, "_EVT\x09", 5);                    /* one argument, serialized */
    boot__put(o, "\x86\\\x2e_SB_PWRB\x0a\x80", 13); /* Notify (\_SB.PWRB, 0x80) */
    boot__aml_close(o, part);
    boot__aml_close(o, dev);
}

/* Address space that the bridge passes on (ACPI 6.3, 6.4.3.5), type 0: memory, 2: bus numbers, in
   fields of `size` bytes; both ends fixed. */
static void boot__crs_window(struct boot__out *o, unsigned type, uint64_t base, uint64_t len,
                             uint32_t size)
{
    static const uint8_t tag[] = {[2] = 0x88, [4] = 0x87, [8] = 0x8a};

    if (!len)
        return;
    boot__num(o, tag[size], 1);
    boot__num(o, 3 + 5 * size, 2);
    boot__num(o, type, 1);
    boot__num(o, 0x0c, 1);
    boot__num(o, type ? 0 : 1, 1); /* memory: writable, not prefetchable, for any BAR */
    boot__num(o, 0, size);         /* granularity */
    boot__num(o, base, size);
    boot__num(o, base + len - 1, size);
    boot__num(o, 0, size); /* translation */
    boot__num(o, len, size);
}

/* Package () {Package (4) {device << 16 | all functions, pin, 0, line}, ...} */
static void boot__pci_lines(struct boot__out *o, const unsigned line[4])
{
    uint32_t at = boot__aml_open(o, "\x12", 1);

    boot__num(o, 4 * (BOOT__PCI_SLOTS - 1), 1);
    for (unsigned slot = 1; slot < BOOT__PCI_SLOTS; slot++)
        for (unsigned pin = 0; pin < 4; pin++) {
            boot__put(o, "\x12\x0c\x04\x0c", 4);
            boot__num(o, slot << 16 | 0xffff, 4);
            boot__num(o, 0x0a | pin << 8, 2);
            boot__num(o, 0x0a00 | line[(slot + pin) % 4] << 16, 3);
        }
    boot__aml_close(o, at);
}

/* Systems tell by _PIC whether they use the IOAPIC, before they ask.
     Method (_PRT) {
         If (PICM) {Return (lines of the IOAPIC)}
         Return (lines of the 8259s)
     } */
static void boot__pci_prt(struct boot__out *o, const struct boot_pci *p)
{
    uint32_t method, part;

    if (!p->pic[0]) {
        boot__aml_name(o, "_PRT");
        boot__pci_lines(o, p->gsi);
        return;
    }
    method = boot__aml_open(o, "\x14", 1);
    boot__put(o, "_PRT", 5);
    part = boot__aml_open(o, "\xa0", 1);
    boot__put(o, "PICM\xa4", 5);
    boot__pci_lines(o, p->gsi);
    boot__aml_close(o, part);
    boot__put(o, "\xa4", 1);
    boot__pci_lines(o, p->pic);
    boot__aml_close(o, method);
}

/* Name (PICM, 0), Method (_PIC, 1) {PICM = Arg0}, at the root */
static void boot__dsdt_pic(struct boot__out *o)
{
    uint32_t method;

    boot__put(o, "\x08PICM", 6);
    method = boot__aml_open(o, "\x14", 1);
    boot__put(o, "_PIC\1\x70\x68PICM", 11);
    boot__aml_close(o, method);
}

/* Operating systems ask what of PCI Express the firmware leaves to them: all, as it does nothing.
     Method (_OSC, 4, Serialized) {
         CreateDWordField (Arg3, 0, CDW1)
         If (Arg0 == ToUUID ("33DB4D5B-1FF7-401C-9657-7441C03DD766")) {Return (Arg3)}
         CDW1 |= 4 // unrecognized UUID
         Return (Arg3)
     } */
static void boot__pci_osc(struct boot__out *o)
{
    uint32_t method = boot__aml_open(o, "\x14", 1), part;

    boot__put(o, "_OSC\x0c\x8a\x6b\0CDW1", 12);
    part = boot__aml_open(o, "\xa0", 1);
    boot__put(o, "\x93\x68\x11\x13\x0a\x10\x5b\x4d\xdb\x33\xf7\x1f\x1c\x40", 14);
    boot__put(o, "\x96\x57\x74\x41\xc0\x3d\xd7\x66\xa4\x6b", 10);
    boot__aml_close(o, part);
    boot__put(o, "}CDW1\x0a\4CDW1\xa4\x6b", 13);
    boot__aml_close(o, method);
}

/* The bridge, and a device that owns the ECAM. */
static void boot__dsdt_pci(struct boot__out *o, const struct boot_pci *p)
{
    uint32_t dev = boot__aml_device(o, "PCI0", "PNP0A08"), crs;

    boot__aml_name(o, "_CID");
    boot__aml_eisaid(o, "PNP0A03");
    boot__aml_uid(o, 0);
    boot__put(o, "\x08_SEG\0\x08_BBN\0\x08_CBA\x0c", 18);
    boot__num(o, p->ecam, 4);
    crs = boot__crs_open(o);
    boot__crs_window(o, 2, 0, 1, 2);
    boot__crs_io(o, 0xcf8, 8);
    boot__crs_window(o, 0, p->mmio32, p->mmio32_len, 4);
    boot__crs_window(o, 0, p->mmio64, p->mmio64_len, 8);
    boot__crs_close(o, crs);
    boot__pci_prt(o, p);
    boot__pci_osc(o);
    boot__aml_close(o, dev);

    dev = boot__aml_device(o, "ECAM", "PNP0C02");
    crs = boot__crs_open(o);
    boot__crs_mem(o, p->ecam, BOOT__ECAM_LEN);
    boot__crs_close(o, crs);
    boot__aml_close(o, dev);
}

static void boot__dsdt_body(struct boot__out *o, const struct boot_machine *m)
{
    unsigned uid[BOOT_DEV_PVPANIC + 1] = {0};
    uint32_t scope;

    if (m->pm_port) /* Name (_S5, Package (4) {0, 0, 0, 0}) */
        boot__put(o, "\x08_S5_\x12\x06\x04\0\0\0\0", 12);
    else if (m->sleep_port) /* Name (_S5, Package (4) {5, 0, 0, 0}) */
        boot__put(o, "\x08_S5_\x12\x07\x04\x0a\x05\0\0\0", 13);
    if (m->pci.ecam && m->pci.pic[0])
        boot__dsdt_pic(o);
    scope = boot__aml_open(o, "\x10", 1);
    boot__put(o, "\\_SB_", 5);
    for (unsigned i = 0; i < m->ndevs; i++)
        boot__dsdt_dev(o, m, i, uid[m->devs[i].kind]++);
    if (m->power_gsi && !m->pm_port)
        boot__dsdt_power(o, m->power_gsi);
    if (m->pci.ecam)
        boot__dsdt_pci(o, &m->pci);
    boot__aml_close(o, scope);
}

/* >>loader: tables whose place the firmware chooses, and orders to it to make their addresses and
   checksums right: QEMU's etc/table-loader, 128 bytes each. Names of files are those of fw_cfg. */
#define BOOT__TABLES_FILE "etc/acpi/tables"
#define BOOT__RSDP_FILE   "etc/acpi/rsdp"

static void boot__order(struct boot__out *loader, unsigned command, const char *file,
                        const char *source)
{
    char names[2][56] = {{0}};

    memcpy(names[0], file, strlen(file));
    memcpy(names[1], source, strlen(source));
    boot__align(loader, 128);
    boot__num(loader, command, 4);
    boot__put(loader, names[0], sizeof names[0]);
    if (*source)
        boot__put(loader, names[1], sizeof names[1]);
}

/* Zone 1: anywhere below 4 GiB; 2: where operating systems look for the root pointer. */
static void boot__order_place(struct boot__out *loader, const char *file, unsigned align,
                              unsigned zone)
{
    boot__order(loader, 1, file, "");
    boot__num(loader, align, 4);
    boot__num(loader, zone, 1);
    boot__align(loader, 128);
}

/* The n bytes at `at` of a file are an offset in the tables. */
static void boot__order_pointer(struct boot__out *loader, const char *file, uint32_t at, uint32_t n)
{
    boot__order(loader, 2, file, BOOT__TABLES_FILE);
    boot__num(loader, at, 4);
    boot__num(loader, n, 1);
    boot__align(loader, 128);
}

static void boot__order_sum(struct boot__out *loader, const char *file, uint32_t at, uint32_t n,
                            uint32_t field)
{
    boot__order(loader, 3, file, "");
    boot__num(loader, field, 4);
    boot__num(loader, at, 4);
    boot__num(loader, n, 4);
    boot__align(loader, 128);
}

/* The n bytes at `at` are an address in these tables. */
static void boot__points(struct boot__out *o, uint32_t at, uint32_t n)
{
    if (o->loader)
        boot__order_pointer(o->loader, BOOT__TABLES_FILE, at, n);
}

/* >>acpi: ACPI 6.3, chapter 5 */
static uint32_t boot__table(struct boot__out *o, const char *sig, unsigned revision)
{
    uint32_t at;

    boot__align(o, 8);
    at = o->len;
    boot__put(o, sig, 4);
    boot__num(o, 0, 4); /* length */
    boot__num(o, revision, 1);
    boot__num(o, 0, 1); /* checksum */
    boot__put(o, "VMM   VMM     \1\0\0\0VMM \1\0\0\0", 26);
    return at;
}

/* Returns where the finished table is. */
static uint64_t boot__table_end(struct boot__out *o, uint32_t at)
{
    boot__fix(o, at + 4, o->len - at, 4);
    boot__sum(o, at, o->len - at, at + 9);
    if (o->loader)
        boot__order_sum(o->loader, BOOT__TABLES_FILE, at, o->len - at, at + 9);
    return o->gpa + at;
}

/* A generic address structure at offset `at`: one byte at a port. */
static void boot__gas(struct boot__out *o, uint32_t at, unsigned port)
{
    boot__fix(o, at, 0x01000801, 4); /* port space, 8 bits, offset 0, byte access */
    boot__fix(o, at + 4, port, 8);
}

/* Firmware ACPI control structure; it has no checksum. */
static uint64_t boot__facs(struct boot__out *o)
{
    uint32_t at;

    boot__align(o, 64);
    at = o->len;
    boot__put(o, "FACS\x40", 5);
    boot__num(o, 0, 8);
    while (o->len <= o->cap && o->len - at < 64)
        boot__num(o, o->len - at == 32 ? 2 : 0, 1); /* version */
    return o->gpa + at;
}

/* The registers of a machine that is not hardware-reduced. Nothing switches to ACPI's mode (SMI_CMD
   is 0): it is on. C2 and C3 are slower than any that would be used. */
static void boot__fadt_pm(struct boot__out *o, uint32_t at, const struct boot_machine *m,
                          uint64_t facs)
{
    enum { NO_C2 = 0x0fff };

    boot__fix(o, at + 36, facs, 4);
    boot__points(o, at + 36, 4);
    boot__fix(o, at + 46, m->sci_gsi, 2);
    boot__fix(o, at + 56, m->pm_port, 4);
    boot__fix(o, at + 64, m->pm_port + 4u, 4);
    boot__fix(o, at + 76, m->pm_port + 8u, 4);
    boot__fix(o, at + 88, 0x04000204, 4); /* lengths: event, control, none, timer */
    boot__fix(o, at + 96, NO_C2 | NO_C2 << 16, 4);
}

static void boot__fadt_sleep(struct boot__out *o, uint32_t at, const struct boot_machine *m)
{
    if (!m->sleep_port)
        return;
    boot__gas(o, at + 244, m->sleep_port);
    boot__gas(o, at + 256, m->sleep_port + 1u);
}

/* A button that has its bit clear is one of the registers'. */
static uint32_t boot__fadt_flags(const struct boot_machine *m)
{
    enum {
        WBINVD = 1,
        C1 = 4,
        PWR_BUTTON = 16,
        SLP_BUTTON = 32,
        FIX_RTC = 64,
        TMR_VAL_EXT = 256,
        RESET = 1 << 10,
        REDUCED = 1 << 20
    };
    uint32_t flags = WBINVD | C1 | SLP_BUTTON | (m->reset_port ? RESET : 0);

    return flags | (m->pm_port ? FIX_RTC | TMR_VAL_EXT : PWR_BUTTON | REDUCED);
}

static uint64_t boot__fadt(struct boot__out *o, const struct boot_machine *m, uint64_t dsdt)
{
    enum { NO_VGA = 4, NO_RTC = 32, CENTURY = 0x32 };
    uint64_t facs = m->pm_port ? boot__facs(o) : 0;
    uint32_t at = boot__table(o, "FACP", 6);
    bool rtc = false;

    for (unsigned i = 0; i < m->ndevs; i++)
        rtc = rtc || m->devs[i].kind == BOOT_DEV_RTC;

    while (o->len <= o->cap && o->len - at < 276)
        boot__num(o, 0, 4);
    boot__fix(o, at + 108, rtc ? CENTURY : 0, 1);
    /* IAPC_BOOT_ARCH: nor an i8042, which Linux then spares */
    boot__fix(o, at + 109, rtc ? NO_VGA : NO_VGA | NO_RTC, 2);
    boot__fix(o, at + 112, boot__fadt_flags(m), 4);
    boot__fix(o, at + 131, 3, 1);   /* minor revision */
    boot__fix(o, at + 40, dsdt, 4); /* GRUB's halt looks for it here alone */
    boot__points(o, at + 40, 4);
    boot__fix(o, at + 140, dsdt, 8);
    boot__points(o, at + 140, 8);
    if (m->reset_port) {
        boot__gas(o, at + 116, m->reset_port);
        boot__fix(o, at + 128, m->reset_value, 1);
    }
    if (m->pm_port)
        boot__fadt_pm(o, at, m, facs);
    else
        boot__fadt_sleep(o, at, m);
    return boot__table_end(o, at);
}

static void boot__madt_cpu(struct boot__out *o, unsigned id)
{
    if (id < 255) {
        boot__put(o, "\0\x08", 2); /* processor local APIC */
        boot__num(o, id, 1);       /* processor UID */
        boot__num(o, id, 1);
        boot__num(o, 1, 4); /* enabled */
    } else {
        boot__put(o, "\x09\x10\0\0", 4); /* processor local x2APIC */
        boot__num(o, id, 4);
        boot__num(o, 1, 4);
        boot__num(o, id, 4);
    }
}

static uint64_t boot__madt(struct boot__out *o, const struct boot_machine *m)
{
    uint32_t at = boot__table(o, "APIC", 5);

    boot__num(o, boot__or(m->lapic, 0xfee00000), 4);
    boot__num(o, m->pm_port ? 1 : 0, 4); /* are there 8259s to be silenced? */
    for (unsigned i = 0; i < m->ncpus && o->len <= o->cap; i++)
        boot__madt_cpu(o, i);
    boot__put(o, "\x01\x0c\0\0", 4); /* IOAPIC 0 */
    boot__num(o, boot__or(m->ioapic, 0xfec00000), 4);
    boot__num(o, 0, 4); /* serves GSIs from 0 */
    if (m->pm_port) {
        boot__put(o, "\x02\x0a\0", 3); /* an interrupt of ISA that is none as ISA has them: */
        boot__num(o, m->sci_gsi, 1);
        boot__num(o, m->sci_gsi, 4);
        boot__num(o, 0x0d, 2); /* active high, level-triggered */
    }
    return boot__table_end(o, at);
}

/* Where ECAM is, "PCI Firmware Specification 3.0", 4.1.2. */
static uint64_t boot__mcfg(struct boot__out *o, const struct boot_pci *p)
{
    uint32_t at = boot__table(o, "MCFG", 1);

    boot__num(o, 0, 8);
    boot__num(o, p->ecam, 8);
    boot__num(o, 0, 8); /* segment 0, from bus 0 to bus 0 */
    return boot__table_end(o, at);
}

/* A table of tables: those of ACPI 1.0 have addresses of 4 bytes, and old guests know no other. */
static uint64_t boot__root(struct boot__out *o, const char *name, uint32_t width,
                           const uint64_t *table, unsigned n)
{
    uint32_t at = boot__table(o, name, 1);

    for (unsigned i = 0; i < n; i++) {
        boot__num(o, table[i], width);
        boot__points(o, o->len - width, width);
    }
    return boot__table_end(o, at);
}

struct boot__roots {
    uint64_t rsdt, xsdt;
};

/* Returns where the tables of all others are. */
static struct boot__roots boot__acpi(struct boot__out *o, const struct boot_machine *m)
{
    struct boot__roots roots;
    uint64_t dsdt, table[3];
    unsigned n = 0;
    uint32_t at = boot__table(o, "DSDT", 2);

    boot__dsdt_body(o, m);
    dsdt = boot__table_end(o, at);
    table[n++] = boot__fadt(o, m, dsdt);
    table[n++] = boot__madt(o, m);
    if (m->pci.ecam)
        table[n++] = boot__mcfg(o, &m->pci);
    roots.rsdt = boot__root(o, "RSDT", 4, table, n);
    roots.xsdt = boot__root(o, "XSDT", 8, table, n);
    return roots;
}

/* Returns where the root pointer is. */
static uint64_t boot__rsdp(struct boot__out *o, struct boot__roots roots)
{
    uint32_t at;

    boot__align(o, 16);
    at = o->len;
    boot__put(o, "RSD PTR \0VMM   \2", 16); /* checksum, OEM, revision 2 */
    boot__num(o, roots.rsdt, 4);
    boot__num(o, 36, 4);
    boot__num(o, roots.xsdt, 8);
    boot__num(o, 0, 4);
    boot__sum(o, at, 20, at + 8);  /* the first 20 bytes, as in ACPI 1.0 ... */
    boot__sum(o, at, 36, at + 32); /* ... and all of it */
    return o->gpa + at;
}

/* mov dx, port; mov al, value; out dx, al; cli; hlt; and again hlt */
static void boot__reset_code(uint8_t *at, const struct boot_machine *m)
{
    memcpy(at, "\xba\0\0\xb0\0\xee\xfa\xf4\xeb\xfd", 10);
    vmm_put16(at + 1, m->reset_port);
    at[4] = m->reset_value;
}

static int boot__too_many(const struct boot_machine *m, const struct vmm_log *log)
{
    return vmm_err(log, -EINVAL,
                   "%u CPUs and %u devices do not fit into the ACPI tables: take fewer", m->ncpus,
                   m->ndevs);
}

/* They start on the last page below `end` from which they surely fit: with few CPUs that is the very
   last. */
static int boot__tables(const struct boot_machine *m, uint8_t *low, uint64_t end, uint64_t *rsdp,
                        const struct vmm_log *log)
{
    uint64_t pci = m->pci.ecam ? 512 + 4 * (BOOT__PCI_SLOTS - 1) * (8 + 13) : 0;
    uint64_t guess = 2400 + (uint64_t)m->ncpus * (20 + 16) + (uint64_t)m->ndevs * 64 + pci;
    uint64_t gpa = guess < end - BOOT_TABLES ? boot__down(end - guess) : BOOT_TABLES;
    struct boot__out o = {low + gpa, gpa, 0, (uint32_t)(end - gpa), NULL};

    boot__mp_table(&o, m);
    if (!m->no_acpi)
        *rsdp = boot__rsdp(&o, boot__acpi(&o, m));
    return o.len > o.cap ? boot__too_many(m, log) : 0;
}

/* >>multiboot information */
static const char boot__mb_loader[] = "vmm";

static const char *boot__cmdline(const struct boot_desc *d)
{
    return d->cmdline ? d->cmdline : "";
}

/* KiB of RAM below 640 KiB, and from 1 MiB to the first hole. */
static void boot__mb_meminfo(struct boot__out *o, const struct boot__job *j)
{
    boot__num(o, BOOT_EBDA >> 10, 4);
    boot__num(o, (j->ram - BOOT_HIGH) >> 10, 4);
}

static const char *boot__mb_string(const struct boot_module *m)
{
    return m->cmdline ? m->cmdline : boot__name(&m->file, "module");
}

/* Version 1: a structure of 120 bytes, and what it points at. */
static int boot__mb1_info(const struct boot__job *j)
{
    enum { FLAGS = 1 | 4 | 8 | 64 | 512 }; /* memory, command line, modules, map, loader's name */
    enum {
        CMDLINE = 16,
        NMODULES = 20,
        MODULES = 24,
        MAP_LEN = 44,
        MAP = 48,
        LOADER = 64,
        LEN = 120
    };
    struct boot__out o = {j->low + BOOT_MULTIBOOT_INFO, BOOT_MULTIBOOT_INFO, 0,
                          BOOT_MULTIBOOT_INFO_END - BOOT_MULTIBOOT_INFO, NULL};
    struct boot_range map[BOOT__E820_MAX];
    unsigned n = boot__memory_map(&j->desc->machine, map), nmodules = boot__mb_modules(j->desc);
    uint32_t at;

    boot__num(&o, FLAGS, 4);
    boot__mb_meminfo(&o, j);
    while (o.len < LEN)
        boot__num(&o, 0, 4);
    boot__fix(&o, CMDLINE, o.gpa + o.len, 4);
    boot__put(&o, boot__cmdline(j->desc), (uint32_t)strlen(boot__cmdline(j->desc)) + 1);
    boot__align(&o, 4);
    boot__fix(&o, NMODULES, nmodules, 4);
    boot__fix(&o, MODULES, nmodules ? o.gpa + o.len : 0, 4);
    at = o.len;
    for (unsigned i = 0; i < nmodules; i++) {
        boot__num(&o, j->module_gpa[i], 4);
        boot__num(&o, j->module_gpa[i] + boot__mb_module(j->desc, i).file.len, 4);
        boot__num(&o, 0, 8); /* its string, below */
    }
    for (unsigned i = 0; i < nmodules; i++) {
        struct boot_module m = boot__mb_module(j->desc, i);
        boot__fix(&o, at + 16 * i + 8, o.gpa + o.len, 4);
        boot__put(&o, boot__mb_string(&m), (uint32_t)strlen(boot__mb_string(&m)) + 1);
    }
    boot__align(&o, 4);
    boot__fix(&o, MAP, o.gpa + o.len, 4);
    boot__fix(&o, MAP_LEN, n * 24, 4);
    for (unsigned i = 0; i < n; i++) {
        boot__num(&o, 20, 4); /* bytes of what follows */
        boot__num(&o, map[i].gpa, 8);
        boot__num(&o, map[i].len, 8);
        boot__num(&o, map[i].type, 4);
    }
    boot__fix(&o, LOADER, o.gpa + o.len, 4);
    boot__put(&o, boot__mb_loader, sizeof boot__mb_loader);
    return o.len > o.cap ? -E2BIG : 0;
}

/* Version 2: tags, each on 8 bytes. Returns where the tag's length is to be written. */
static uint32_t boot__mb2_open(struct boot__out *o, uint32_t type)
{
    boot__align(o, 8);
    boot__num(o, type, 4);
    boot__num(o, 0, 4);
    return o->len - 4;
}

static void boot__mb2_close(struct boot__out *o, uint32_t at)
{
    boot__fix(o, at, o->len - at + 4, 4);
}

static void boot__mb2_string(struct boot__out *o, uint32_t type, const char *s)
{
    uint32_t at = boot__mb2_open(o, type);

    boot__put(o, s, (uint32_t)strlen(s) + 1);
    boot__mb2_close(o, at);
}

static void boot__mb2_modules(struct boot__out *o, const struct boot__job *j)
{
    for (unsigned i = 0; i < boot__mb_modules(j->desc); i++) {
        struct boot_module m = boot__mb_module(j->desc, i);
        uint32_t at = boot__mb2_open(o, 3);
        boot__num(o, j->module_gpa[i], 4);
        boot__num(o, j->module_gpa[i] + m.file.len, 4);
        boot__put(o, boot__mb_string(&m), (uint32_t)strlen(boot__mb_string(&m)) + 1);
        boot__mb2_close(o, at);
    }
}

static void boot__mb2_map(struct boot__out *o, const struct boot__job *j)
{
    struct boot_range map[BOOT__E820_MAX];
    unsigned n = boot__memory_map(&j->desc->machine, map);
    uint32_t at = boot__mb2_open(o, 6);

    boot__num(o, 24, 4); /* bytes of an entry, and the version of its form */
    boot__num(o, 0, 4);
    for (unsigned i = 0; i < n; i++) {
        boot__num(o, map[i].gpa, 8);
        boot__num(o, map[i].len, 8);
        boot__num(o, map[i].type, 8);
    }
    boot__mb2_close(o, at);
}

static int boot__mb2_info(const struct boot__job *j)
{
    enum { END, CMDLINE, LOADER, MODULE, MEMINFO, ACPI_OLD = 14, ACPI_NEW, LOAD_BASE = 21 };
    struct boot__out o = {j->low + BOOT_MULTIBOOT_INFO, BOOT_MULTIBOOT_INFO, 0,
                          BOOT_MULTIBOOT_INFO_END - BOOT_MULTIBOOT_INFO, NULL};
    uint32_t at;

    boot__num(&o, 0, 8); /* length, below */
    boot__mb2_string(&o, CMDLINE, boot__cmdline(j->desc));
    boot__mb2_string(&o, LOADER, boot__mb_loader);
    boot__mb2_modules(&o, j);
    at = boot__mb2_open(&o, MEMINFO);
    boot__mb_meminfo(&o, j);
    boot__mb2_close(&o, at);
    boot__mb2_map(&o, j);
    for (unsigned i = 0; i < 2 && j->rsdp; i++) { /* a copy of the first 20 bytes, and of all */
        at = boot__mb2_open(&o, i ? ACPI_NEW : ACPI_OLD);
        boot__put(&o, j->low + j->rsdp, i ? 36 : 20);
        boot__mb2_close(&o, at);
    }
    if (j->img.load_base) {
        at = boot__mb2_open(&o, LOAD_BASE);
        boot__num(&o, j->img.load_base, 4);
        boot__mb2_close(&o, at);
    }
    boot__mb2_close(&o, boot__mb2_open(&o, END));
    boot__fix(&o, 0, o.len, 4);
    return o.len > o.cap ? -E2BIG : 0;
}

/* A kernel that was written for GRUB may ask the BIOS data area where conventional memory ends. */
static void boot__mb_bda(uint8_t *low)
{
    enum { EBDA = 0x40e, KIB = 0x413 };

    vmm_put16(low + EBDA, BOOT_EBDA >> 4);
    vmm_put16(low + KIB, BOOT_EBDA >> 10);
}

static int boot__mb_info(const struct boot__job *j)
{
    int err = j->img.format == BOOT_MULTIBOOT2 ? boot__mb2_info(j) : boot__mb1_info(j);

    boot__mb_bda(j->low);
    return err ? vmm_err(j->desc->log, err,
                         "%s: command lines do not fit into 64 KiB: shorten them", j->name)
               : 0;
}

/* >>registers */
enum { BOOT__CODE64 = 0xa09b, BOOT__CODE32 = 0xc09b, BOOT__DATA = 0xc093 };

static struct vmm_x86_seg boot__seg(uint16_t selector, uint16_t attr)
{
    return (struct vmm_x86_seg){0, 0xffffffff, selector, attr};
}

static void boot__set_data(struct vmm_x86_regs *r, struct vmm_x86_seg seg)
{
    r->ds = r->es = r->fs = r->gs = r->ss = seg;
}

/* A descriptor of 4 GiB at 0. */
static uint64_t boot__descriptor(uint16_t attr)
{
    return 0xffffu | (uint64_t)attr << 40 | 15ull << 48;
}

/* Protected mode with flat segments and a GDT that agrees with them. */
static void boot__regs_flat(struct vmm_x86_regs *r, uint16_t code, uint8_t *gdt, uint64_t gdt_gpa)
{
    memset(r, 0, sizeof *r);
    r->rflags = 2; /* always set; interrupts off */
    r->cr0 = 0x31; /* PE, ET, NE */
    r->cs = boot__seg(0x10, code);
    boot__set_data(r, boot__seg(0x18, BOOT__DATA));
    r->tr = (struct vmm_x86_seg){0, 0x67, 0, 0x8b}; /* a busy TSS: virtualisation insists */
    r->ldt = (struct vmm_x86_seg){0, 0xffff, 0, 0x82};
    r->gdt.base = gdt_gpa;
    r->gdt.limit = 4 * 8 - 1;
    vmm_put64(gdt + 0x10, boot__descriptor(code));
    vmm_put64(gdt + 0x18, boot__descriptor(BOOT__DATA));
}

/* Long mode: a top-level page, a page of directory pointers, four directories of 2 MiB pages. */
static void boot__regs_long(struct vmm_x86_regs *r, uint8_t *tables, uint64_t gpa)
{
    enum { PRESENT_WRITABLE = 3, LARGE = 0x83 };

    vmm_put64(tables, (gpa + BOOT__PAGE) | PRESENT_WRITABLE);
    for (unsigned i = 0; i < 4; i++)
        vmm_put64(tables + BOOT__PAGE + 8 * i, (gpa + (2 + i) * BOOT__PAGE) | PRESENT_WRITABLE);
    for (uint64_t i = 0; i < 4ull * 512; i++)
        vmm_put64(tables + 2 * BOOT__PAGE + 8 * i, i << 21 | LARGE);
    r->cr0 |= 1u << 31; /* PG */
    r->cr3 = gpa;
    r->cr4 = 1 << 5; /* PAE */
    r->efer = 0x500; /* LME, LMA */
}

static void boot__regs_linux(const struct boot__job *j, struct vmm_x86_regs *r)
{
    bool pvh = j->img.format == BOOT_PVH, multiboot = boot__is_multiboot(j);
    bool mode32 = pvh || multiboot || j->img.format == BOOT_BZIMAGE32;
    uint64_t gdt = multiboot ? BOOT_MULTIBOOT_INFO_END : BOOT_GDT;

    boot__regs_flat(r, mode32 ? BOOT__CODE32 : BOOT__CODE64, j->low + gdt, gdt);
    r->rip = j->img.entry;
    if (multiboot)
        r->gpr[VMM_RAX] = j->img.format == BOOT_MULTIBOOT2 ? BOOT__MB2_EAX : BOOT__MB_EAX;
    if (pvh || multiboot) {
        r->gpr[VMM_RBX] = multiboot ? BOOT_MULTIBOOT_INFO : BOOT_PVH_INFO;
        return;
    }
    if (!mode32)
        boot__regs_long(r, j->low + BOOT_PAGE_TABLES, BOOT_PAGE_TABLES);
    r->gpr[VMM_RSI] = BOOT_ZERO_PAGE;
}

static int boot__x86_linux(const struct boot_desc *desc, struct boot_result *out)
{
    struct boot__job j = {.desc = desc, .name = boot__name(&desc->kernel, "kernel")};
    int err = boot__check_machine(&desc->machine, desc->log);

    if (!err)
        err = boot__parse(desc, &j.img);
    if (!err)
        err = boot__fit(&j);
    if (!err)
        err = boot__tables(&desc->machine, j.low, BOOT_RESET, &j.rsdp, desc->log);
    if (!err && boot__is_multiboot(&j))
        err = boot__mb_info(&j);
    if (err)
        return err;
    if (desc->machine.reset_port)
        boot__reset_code(j.low + BOOT_RESET, &desc->machine);
    boot__place_all(&j);
    if (j.img.format == BOOT_PVH)
        boot__pvh_info(&j);
    else if (!boot__is_multiboot(&j))
        boot__zero_page(&j);
    boot__regs_linux(&j, &out->regs);
    out->format = j.img.format;
    out->kernel_gpa = j.img.start;
    out->kernel_end = j.img.end;
    out->initrd_gpa = boot__is_multiboot(&j) && desc->initrd.len ? j.module_gpa[0] : j.initrd_gpa;
    out->rsdp = j.rsdp;
    vmm_say(desc->log, VMM_LOG_DEBUG, "%s: in 0x%llx-0x%llx, entered at 0x%llx, initrd at 0x%llx",
            j.name, (unsigned long long)j.img.start, (unsigned long long)j.img.end,
            (unsigned long long)j.img.entry, (unsigned long long)j.initrd_gpa);
    return 0;
}

/* >>flat: code without a format */
static void boot__regs_real(struct vmm_x86_regs *r, uint64_t entry)
{
    uint16_t selector = (uint16_t)(entry >> 4 & 0xf000);
    struct vmm_x86_seg seg = {selector * 16u, 0xffff, selector, 0x93};

    memset(r, 0, sizeof *r);
    r->rflags = 2;
    r->cr0 = 0x10; /* ET */
    r->rip = entry & 0xffff;
    r->gpr[VMM_RSP] = 0xfff0;
    boot__set_data(r, seg);
    seg.attr = 0x9b;
    r->cs = seg;
    r->tr = (struct vmm_x86_seg){0, 0xffff, 0, 0x8b};
    r->ldt = (struct vmm_x86_seg){0, 0xffff, 0, 0x82};
    r->gdt.limit = 0xffff;
    r->idt.limit = 0x3ff;
}

/* The end of the range of RAM that holds gpa, below 4 GiB; 0: there is none. */
static uint64_t boot__ram_end(const struct vmm_mem *mem, uint64_t gpa)
{
    for (unsigned i = 0; i < mem->nranges; i++) {
        uint64_t end = mem->range[i].gpa + mem->range[i].len;
        if (gpa >= mem->range[i].gpa && gpa - mem->range[i].gpa < mem->range[i].len)
            return boot__down(end < 1ull << 32 ? end : 1ull << 32);
    }
    return 0;
}

/* Checks a flat binary; end is that of the RAM it may use. */
static int boot__flat_check(const struct boot_flat_desc *d, const char *name, uint64_t end)
{
    uint64_t tables = d->mode == 16 ? 0 : BOOT__FLAT_TABLES;

    if (!d->file.data || !d->file.len)
        return vmm_err(d->log, -ENOEXEC, "%s: is empty: give a binary with code", name);
    if (d->mode && d->mode != 64 && d->mode != 32 && d->mode != 16)
        return vmm_err(d->log, -EINVAL, "mode %u is not known: give 64, 32 or 16", d->mode);
    if (d->load >= end)
        return vmm_err(d->log, -EINVAL, "%s: load address 0x%llx is outside RAM below 4 GiB", name,
                       (unsigned long long)d->load);
    if (d->file.len > end - d->load || tables > end - d->load - d->file.len)
        return vmm_err(d->log, -ENOMEM, "%s: does not fit into RAM: give --mem %lluM or more", name,
                       boot__mib(d->load + d->file.len + tables));
    if (d->entry < d->load || d->entry - d->load >= d->file.len)
        return vmm_err(d->log, -EINVAL, "%s: entry 0x%llx is outside the binary at 0x%llx-0x%llx",
                       name, (unsigned long long)d->entry, (unsigned long long)d->load,
                       (unsigned long long)(d->load + d->file.len));
    if (d->mode == 16 && d->entry >= BOOT_HIGH)
        return vmm_err(d->log, -EINVAL,
                       "%s: entry 0x%llx is not below 1 MiB, as 16-bit mode needs it", name,
                       (unsigned long long)d->entry);
    return 0;
}

VMM_DEF int boot_flat(const struct boot_flat_desc *desc, struct vmm_x86_regs *regs)
{
    uint64_t end = boot__ram_end(desc->mem, desc->load), gdt = end - BOOT__FLAT_TABLES;
    uint8_t *tables;
    int err = boot__flat_check(desc, boot__name(&desc->file, "binary"), end);

    if (err)
        return err;
    memcpy(vmm_at(desc->mem, desc->load, desc->file.len), desc->file.data, desc->file.len);
    if (desc->mode == 16) {
        boot__regs_real(regs, desc->entry);
        return 0;
    }
    tables = (uint8_t *)vmm_at(desc->mem, gdt, BOOT__FLAT_TABLES);
    boot__regs_flat(regs, desc->mode == 32 ? BOOT__CODE32 : BOOT__CODE64, tables, gdt);
    if (desc->mode != 32)
        boot__regs_long(regs, tables + BOOT__PAGE, gdt + BOOT__PAGE);
    regs->gpr[VMM_RSP] = gdt;
    regs->rip = desc->entry;
    return 0;
}

/* >>firmware: an image that brings its own reset vector */
static int boot__firmware_check(const struct boot_firmware_desc *d, const char *name)
{
    enum { UNIT = 0x10000, RESET = 16, JUMP_FAR = 0xea, JUMP = 0xe9, JUMP_SHORT = 0xeb };
    const struct boot_file *f = &d->file;
    unsigned first;

    if (!f->data || !f->len || f->len % UNIT || f->len > BOOT_ROM_MAX)
        return vmm_err(d->log, -ENOEXEC,
                       "%s: has %llu bytes: a PC's firmware has 64, 128, 192 or 256 KiB", name,
                       (unsigned long long)f->len);
    first = f->data[f->len - RESET];
    if (first != JUMP_FAR && first != JUMP && first != JUMP_SHORT)
        return vmm_err(d->log, -ENOEXEC,
                       "%s: has no jump at its reset vector, 16 bytes before its end: is it a PC's "
                       "firmware?",
                       name);
    if (!vmm_at(d->mem, 0, BOOT_HIGH))
        return vmm_err(d->log, -ENOMEM, "%s: does not fit into RAM: give --mem 1M or more", name);
    return 0;
}

VMM_DEF int boot_firmware(const struct boot_firmware_desc *desc, struct vmm_x86_regs *regs)
{
    const struct boot_file *f = &desc->file;
    uint64_t low = f->len < BOOT_HIGH - BOOT_BIOS ? f->len : BOOT_HIGH - BOOT_BIOS;
    int err = boot__firmware_check(desc, boot__name(f, "firmware"));

    if (err)
        return err;
    memcpy(vmm_at(desc->mem, BOOT_HIGH - low, low), f->data + f->len - low, low);
    boot__regs_real(regs, 0xfffff0);
    boot__set_data(regs, (struct vmm_x86_seg){0, 0xffff, 0, 0x93});
    regs->cs.selector = 0xf000;
    regs->cs.base = 0xffff0000;
    regs->rip = 0xfff0;
    regs->cr0 = 0x60000010; /* CD, NW, ET */
    regs->gpr[VMM_RSP] = 0;
    regs->gpr[VMM_RDX] = 0x600; /* a P6 */
    regs->idt.limit = 0xffff;
    return 0;
}

VMM_DEF int boot_real(const struct boot_real_desc *desc, struct boot_real_result *out)
{
    uint8_t *low = (uint8_t *)vmm_at(desc->machine.mem, 0, BOOT_HIGH);
    uint64_t rsdp;
    int err = boot__check_machine(&desc->machine, desc->log);

    if (!err && !low)
        return vmm_err(desc->log, -ENOMEM,
                       "real mode needs RAM below 1 MiB: give --mem 1M or more");
    if (!err && (desc->rom < BOOT_TABLES || desc->rom >= BOOT_HIGH))
        return vmm_err(desc->log, -EINVAL, "a ROM at 0x%llx is outside its segment",
                       (unsigned long long)desc->rom);
    if (!err)
        err = boot__tables(&desc->machine, low, desc->rom, &rsdp, desc->log);
    if (err)
        return err;
    out->nmap = boot__memory_map(&desc->machine, out->map);
    boot__regs_real(&out->regs, 0xf0000);
    boot__set_data(&out->regs, (struct vmm_x86_seg){0, 0xffff, 0, 0x93});
    out->regs.rip = desc->entry;
    out->regs.gpr[VMM_RSP] = 0;
    return 0;
}

static void boot__put_e820(struct boot__out *o, const struct boot_range *e)
{
    boot__num(o, e->gpa, 8);
    boot__num(o, e->len, 8);
    boot__num(o, e->type, 4);
}

/* RAM, and what of the addresses is taken; from below 1 MiB the firmware itself takes its share. */
static void boot__firmware_e820(struct boot__out *o, const struct boot_machine *m)
{
    enum { RAM = 1, RESERVED = 2 };
    static const struct boot_range kvm = {0xfffbc000, 0x4000, RESERVED};
    const struct boot_range ecam = {m->pci.ecam, BOOT__ECAM_LEN, RESERVED};

    for (unsigned i = 0; i < m->mem->nranges; i++) {
        const struct vmm_range *r = &m->mem->range[i];
        boot__put_e820(o, &(struct boot_range){r->gpa, r->len, RAM});
    }
    boot__put_e820(o, &kvm);
    if (m->pci.ecam)
        boot__put_e820(o, &ecam);
}

/* As boot__tables has them, at 0, with orders to the firmware. */
static int boot__firmware_acpi(const struct boot_machine *m, struct boot_firmware_files *f,
                               const struct vmm_log *log)
{
    struct boot__out loader = {f->loader, 0, 0, sizeof f->loader, NULL};
    struct boot__out tables = {f->tables, 0, 0, sizeof f->tables, &loader};
    struct boot__out rsdp = {f->rsdp, 0, 0, sizeof f->rsdp, NULL};

    boot__order_place(&loader, BOOT__TABLES_FILE, 64, 1);
    boot__order_place(&loader, BOOT__RSDP_FILE, 16, 2);
    boot__rsdp(&rsdp, boot__acpi(&tables, m));
    boot__order_pointer(&loader, BOOT__RSDP_FILE, 16, 4);
    boot__order_pointer(&loader, BOOT__RSDP_FILE, 24, 8);
    boot__order_sum(&loader, BOOT__RSDP_FILE, 0, 20, 8);
    boot__order_sum(&loader, BOOT__RSDP_FILE, 0, 36, 32);
    if (tables.len > tables.cap || loader.len > loader.cap)
        return boot__too_many(m, log);
    f->tables_len = tables.len;
    f->loader_len = loader.len;
    f->rsdp_len = rsdp.len;
    return 0;
}

VMM_DEF int boot_firmware_make(const struct boot_machine *m, struct boot_firmware_files *f,
                               const struct vmm_log *log)
{
    struct boot__out e820 = {f->e820, 0, 0, sizeof f->e820, NULL};
    int err = boot__check_machine(m, log);

    if (err)
        return err;
    boot__firmware_e820(&e820, m);
    f->e820_len = e820.len;
    f->tables_len = f->loader_len = f->rsdp_len = 0;
    return m->no_acpi ? 0 : boot__firmware_acpi(m, f, log);
}

#endif /* BOOT_NO_X86 */

#ifdef BOOT_ARM64
/* >>arm64: kernels as Linux Documentation/arch/arm64/booting.rst has them */
enum {
    BOOT__A64_HEADER = 64, /* bytes of an Image's header: */
    BOOT__A64_TEXT_OFFSET = 8,
    BOOT__A64_SIZE = 16,
    BOOT__A64_FLAGS = 24,
    BOOT__A64_MAGIC = 56,
    BOOT__A64_CMDLINE_MAX = 2047,
    BOOT__A64_EL1H = 0x3c5, /* PSTATE: EL1 with its own stack pointer; D, A, I, F masked */
    BOOT__2M = 2 << 20, /* of this the base of an Image is a multiple, and a tree is no longer */
    BOOT__SPIS = 988    /* shared peripheral interrupts */
};

/* One boot_linux for arm64 under way. */
struct boot__a64 {
    const struct boot_desc *desc;
    const char *name;
    uint64_t ram, base, end; /* RAM for all that is loaded; its first multiple of 2 MiB */
    struct boot__image img;
    uint64_t initrd_gpa; /* 0: none */
    uint64_t dtb_gpa, dtb_len;
};

static int boot__a64_check_devs(const struct boot_machine *m, const struct vmm_log *log)
{
    const struct boot_pci *p = &m->pci;
    bool fits = true;

    for (unsigned i = 0; i < m->ndevs; i++) {
        const struct boot_dev *d = &m->devs[i];
        if (d->kind == BOOT_DEV_RTC || (unsigned)d->kind > BOOT_DEV_PL061 || !d->len ||
            d->base + d->len - 1 < d->base || d->gsi >= BOOT__SPIS)
            return vmm_err(log, -EINVAL,
                           "device %u at 0x%llx cannot be described in a device tree: wrong kind, "
                           "address or line",
                           i, (unsigned long long)d->base);
    }
    for (unsigned i = 0; i < 4; i++)
        fits &= p->gsi[i] < BOOT__SPIS;
    if (p->ecam && (!fits || p->ecam & (BOOT__ECAM_LEN - 1) ||
                    p->mmio32 + p->mmio32_len > 1ull << 32 || p->mmio32 >> 32))
        return vmm_err(log, -EINVAL,
                       "the PCI bus with ECAM at 0x%llx cannot be described in a device tree: "
                       "wrong address or line",
                       (unsigned long long)p->ecam);
    return 0;
}

static int boot__a64_check(struct boot__a64 *j)
{
    const struct boot_desc *d = j->desc;
    const struct boot_machine *m = &d->machine;
    uint64_t cmdline = d->cmdline ? strlen(d->cmdline) : 0;

    if (!m->ncpus || m->ncpus > 1 << 16)
        return vmm_err(d->log, -EINVAL, "a machine with %u CPUs cannot boot: give --cpus 1 or more",
                       m->ncpus);
    if (m->arm64.gic != 2 && m->arm64.gic != 3)
        return vmm_err(d->log, -EINVAL, "GICv%u is not known: take 2 or 3", m->arm64.gic);
    if (m->arm64.gic == 2 && m->ncpus > 8)
        return vmm_err(d->log, -EINVAL, "a GICv2 serves at most 8 CPUs, not %u", m->ncpus);
    if (d->load_addr || d->entry != BOOT_ENTRY_AUTO)
        return vmm_err(d->log, -EINVAL,
                       "an arm64 kernel says itself where it is loaded and entered: leave out the "
                       "load address and the kind of entry");
    if (cmdline > BOOT__A64_CMDLINE_MAX)
        return vmm_err(d->log, -E2BIG, "the command line has %llu bytes, %s takes %u: shorten it",
                       (unsigned long long)cmdline, j->name, BOOT__A64_CMDLINE_MAX);
    return boot__a64_check_devs(m, d->log);
}

/* The range that all goes to, the first. */
static int boot__a64_ram(struct boot__a64 *j)
{
    const struct vmm_mem *mem = j->desc->machine.mem;

    if (!mem->nranges || mem->range[0].len < 2 * BOOT__2M || mem->range[0].gpa >> 56)
        return vmm_err(j->desc->log, -ENOMEM, "%s: does not fit into RAM: give --mem 128M or more",
                       j->name);
    j->ram = mem->range[0].gpa;
    j->base = (j->ram + BOOT__2M - 1) & ~(uint64_t)(BOOT__2M - 1);
    j->end = boot__down(j->ram + mem->range[0].len);
    return 0;
}

/* How much RAM would do: kernel, initrd, and for the tree 2 MiB and what aligning them may cost. */
static int boot__a64_no_room(const struct boot__a64 *j, const char *name)
{
    uint64_t need = j->img.end - j->ram + boot__up(j->desc->initrd.len) + 2 * BOOT__2M;

    return vmm_err(j->desc->log, -ENOMEM, "%s: does not fit into RAM: give --mem %lluM or more",
                   name, boot__mib(need));
}

static bool boot__a64_is_image(const uint8_t *p, uint64_t len)
{
    return len >= BOOT__A64_HEADER && !memcmp(p + BOOT__A64_MAGIC, "ARM\x64", 4);
}

/* Takes from an Image's header where the kernel wants to be, and how much it takes. It may be
   anywhere, or (without flag 3) near the start of RAM: there it always is. Headers from before
   Linux 3.17 have no size, and then no meaning but this. */
static int boot__a64_header(struct boot__a64 *j, const uint8_t *h)
{
    static const uint8_t kib[] = {0, 4, 16, 64};
    uint64_t offset = vmm_get64(h + BOOT__A64_TEXT_OFFSET), size = vmm_get64(h + BOOT__A64_SIZE);
    uint64_t flags = size ? vmm_get64(h + BOOT__A64_FLAGS) : 0;
    unsigned granule = kib[flags >> 1 & 3], known = j->desc->machine.arm64.granules;

    if (!size)
        offset = 0x80000;
    if (flags & 1)
        return vmm_err(j->desc->log, -ENOEXEC,
                       "%s: is a big-endian arm64 kernel: give a little-endian one", j->name);
    if (known && granule && !(known & granule))
        return vmm_err(j->desc->log, -ENOEXEC,
                       "%s: is built for pages of %u KiB, which this host's CPUs do not have: give "
                       "a kernel for %s pages",
                       j->name, granule,
                       known & 4    ? "4 KiB"
                       : known & 64 ? "64 KiB"
                                    : "16 KiB");
    if (offset >= BOOT__2M || offset & 7 || size >> 40)
        return vmm_err(j->desc->log, -ENOEXEC, "%s: is damaged: its Image header makes no sense",
                       j->name);
    j->img.format = BOOT_IMAGE;
    j->img.start = j->img.entry = j->base + offset;
    j->img.end = j->img.start + size;
    return 0;
}

/* Where the last section of a PE file ends, by which a truncated Image is known; 0: it has none. */
static uint64_t boot__pe_end(const struct boot_file *f)
{
    uint64_t pe = f->len >= 64 ? vmm_get32(f->data + 0x3c) : f->len, end = 0, at;

    if (memcmp(f->data, "MZ", 2) || pe + 24 > f->len || memcmp(f->data + pe, "PE\0\0", 4))
        return 0;
    at = pe + 24 + vmm_get16(f->data + pe + 20);
    for (unsigned n = vmm_get16(f->data + pe + 6); n > 0 && at + 40 <= f->len; n--, at += 40) {
        uint64_t to = (uint64_t)vmm_get32(f->data + at + 16) + vmm_get32(f->data + at + 20);
        end = to > end ? to : end;
    }
    return end;
}

static int boot__a64_image(struct boot__a64 *j)
{
    const struct boot_file *f = &j->desc->kernel;
    int err = boot__a64_header(j, f->data);

    if (err)
        return err;
    if (boot__pe_end(f) > f->len)
        return boot__truncated(f, j->desc->log, j->name, boot__pe_end(f));
    j->img.spill = true;
    j->img.nsegs = 1;
    j->img.seg[0] = (struct boot__seg){0, j->img.start, f->len, f->len};
    if (j->img.end < j->img.start + f->len)
        j->img.end = j->img.start + f->len;
    return 0;
}

/* Why unpacking failed, or made no Image. */
static int boot__a64_not_unpacked(const struct boot__a64 *j, const char *how, int64_t n)
{
    const struct vmm_log *log = j->desc->log;

    if (n == -ENOSPC)
        return vmm_err(log, -ENOMEM, "%s: does not fit into RAM when unpacked: give more by --mem",
                       j->name);
    if (n == -ENOSYS)
        return vmm_err(log, -ENOEXEC, "%s: looks like %s: decompress it first", j->name, how);
    if (n < 0)
        return vmm_err(log, -ENOEXEC, "%s: is damaged: it cannot be unpacked as %s", j->name, how);
    return vmm_err(log, -ENOEXEC, "%s: holds no arm64 Image, packed with %s: give one", j->name,
                   how);
}

/* Straight to where it belongs, or, as only the header tells, a little below. */
static int boot__a64_unpack(struct boot__a64 *j, enum boot_packing packing, const uint8_t *src,
                            uint64_t len)
{
    const struct boot_desc *d = j->desc;
    uint64_t room = j->end - j->base, skip;
    uint8_t *dst = (uint8_t *)vmm_at(d->machine.mem, j->base, room);
    const char *how = packing == BOOT_GZIP ? "gzip" : "zstd";
    int64_t n = d->unpack ? d->unpack(d->ctx, packing, src, len, dst, room) : -ENOSYS;
    int err;

    if (n < 0 || (uint64_t)n > room || !boot__a64_is_image(dst, (uint64_t)n))
        return boot__a64_not_unpacked(j, how, n);
    err = boot__a64_header(j, dst);
    if (err)
        return err;
    skip = j->img.start - j->base;
    if (skip > room - (uint64_t)n)
        return boot__a64_not_unpacked(j, how, -ENOSPC);
    if (skip) {
        memmove(dst + skip, dst, (size_t)n);
        memset(dst, 0, skip);
    }
    if (j->img.end < j->img.start + (uint64_t)n)
        j->img.end = j->img.start + (uint64_t)n;
    return 0;
}

static bool boot__is_zboot(const struct boot_file *f)
{
    return f->len >= 64 && !memcmp(f->data, "MZ", 2) && !memcmp(f->data + 4, "zimg", 4);
}

/* An EFI program that unpacks an Image (Linux drivers/firmware/efi/libstub/zboot-header.S): where
   the payload is, how long, and the name of its packing. */
static int boot__a64_zboot(struct boot__a64 *j)
{
    const struct boot_file *f = &j->desc->kernel;
    uint64_t off = vmm_get32(f->data + 8), len = vmm_get32(f->data + 12);
    uint64_t pe = vmm_get32(f->data + 0x3c);

    if (pe + 6 > f->len || vmm_get16(f->data + pe + 4) != 0xaa64)
        return boot__not_a_kernel(f, j->desc->log, j->name, BOOT_ARCH_ARM64);
    if (off + len > f->len)
        return boot__truncated(f, j->desc->log, j->name, off + len);
    if (!memcmp(f->data + 24, "gzip", 5))
        return boot__a64_unpack(j, BOOT_GZIP, f->data + off, len);
    if (!memcmp(f->data + 24, "zstd", 4))
        return boot__a64_unpack(j, BOOT_ZSTD, f->data + off, len);
    return vmm_err(j->desc->log, -ENOEXEC,
                   "%s: is an EFI kernel that is packed neither with gzip nor zstd: give %s itself",
                   j->name, boot__wanted(BOOT_ARCH_ARM64));
}

/* Linux' vmlinux has virtual addresses for physical ones. It is the same kernel as in the Image,
   header included, and goes where that goes. */
static int boot__a64_elf_bias(struct boot__a64 *j)
{
    const struct boot_file *f = &j->desc->kernel;
    const uint8_t *ph = f->data + vmm_get64(f->data + 32), *first = NULL;
    uint64_t gpa, off;
    int err;

    for (unsigned i = 0; i < vmm_get16(f->data + 56); i++, ph += 56)
        if (vmm_get32(ph) == 1 && vmm_get64(ph + 40) &&
            (!first || vmm_get64(ph + 24) < vmm_get64(first + 24)))
            first = ph;
    if (!first)
        return vmm_err(j->desc->log, -ENOEXEC, "%s: is damaged: it has no ELF segment", j->name);
    gpa = vmm_get64(first + 24);
    off = vmm_get64(first + 8);
    if (gpa >= j->ram && gpa < j->end)
        return 0;
    if (off > f->len || !boot__a64_is_image(f->data + off, f->len - off))
        return vmm_err(j->desc->log, -ENOEXEC,
                       "%s: belongs at 0x%llx, where this machine has no RAM: give an Image",
                       j->name, (unsigned long long)gpa);
    err = boot__a64_header(j, f->data + off);
    j->img.bias = gpa - j->img.start;
    return err;
}

/* The start address is virtual in most files; a segment says what that is. */
static uint64_t boot__a64_elf_entry(const struct boot__a64 *j)
{
    const uint8_t *e = j->desc->kernel.data, *ph = e + vmm_get64(e + 32);
    uint64_t entry = vmm_get64(e + 24);

    for (unsigned i = 0; i < vmm_get16(e + 56); i++, ph += 56)
        if (vmm_get32(ph) == 1 && entry - vmm_get64(ph + 16) < vmm_get64(ph + 40))
            return vmm_get64(ph + 24) - j->img.bias + (entry - vmm_get64(ph + 16));
    return entry - j->img.bias;
}

static int boot__a64_elf(struct boot__a64 *j)
{
    const struct boot_desc *d = j->desc;
    uint64_t pvh = 0;
    bool is_virtual = false;
    int err = boot__elf_check(&d->kernel, d->log, j->name, BOOT_ARCH_ARM64);

    if (!err)
        err = boot__a64_elf_bias(j);
    if (!err)
        err = boot__elf_segments(d, &j->img, j->name, &pvh, &is_virtual);
    if (err)
        return err;
    j->img.format = BOOT_ELF64;
    j->img.entry = boot__a64_elf_entry(j);
    if (!boot__in_image(&j->img, j->img.entry) || j->img.entry & 3)
        return vmm_err(d->log, -ENOEXEC,
                       "%s: has no entry of use: no segment is at its start address 0x%llx",
                       j->name, (unsigned long long)vmm_get64(d->kernel.data + 24));
    if (j->img.start < j->ram)
        return vmm_err(d->log, -ENOEXEC, "%s: belongs at 0x%llx, where this machine has no RAM",
                       j->name, (unsigned long long)j->img.start);
    return 0;
}

static int boot__a64_parse(struct boot__a64 *j)
{
    const struct boot_file *f = &j->desc->kernel;

    if (!f->data || !f->len)
        return vmm_err(j->desc->log, -ENOEXEC, "%s: is empty: give %s", j->name,
                       boot__wanted(BOOT_ARCH_ARM64));
    if (f->len >= 6 && !memcmp(f->data, "\x7f\x45LF", 4))
        return boot__a64_elf(j);
    if (f->len >= 6 && !memcmp(f->data, "\x1f\x8b", 2))
        return boot__a64_unpack(j, BOOT_GZIP, f->data, f->len);
    if (f->len >= 6 && !memcmp(f->data, "\x28\xb5\x2f\xfd", 4))
        return boot__a64_unpack(j, BOOT_ZSTD, f->data, f->len);
    if (boot__is_zboot(f))
        return boot__a64_zboot(j);
    if (boot__a64_is_image(f->data, f->len))
        return boot__a64_image(j);
    return boot__not_a_kernel(f, j->desc->log, j->name, BOOT_ARCH_ARM64);
}

/* The tree has the last 2 MiB of RAM that kernels before 4.2 can see, 512 MiB from the base on, or
   simply the last; of such a block, as the kernel maps it, nothing else is used. */
static int boot__a64_fit_dtb(struct boot__a64 *j)
{
    uint64_t seen = j->base + (512u << 20), top = j->end < seen ? j->end : seen;
    uint64_t block = ~(uint64_t)(BOOT__2M - 1);

    if (j->img.end > j->end)
        return boot__a64_no_room(j, j->name);
    if ((top & block) < j->img.end + BOOT__2M)
        top = j->end;
    if ((top & block) < j->img.end + BOOT__2M)
        return boot__a64_no_room(j, j->name);
    j->dtb_gpa = (top & block) - BOOT__2M;
    return 0;
}

/* Below the tree; else as high as it may be: within 32 GiB that begin at a multiple of 1 GiB and
   hold the kernel. */
static int boot__a64_fit_initrd(struct boot__a64 *j)
{
    const struct boot_file *f = &j->desc->initrd;
    uint64_t window = (j->img.start & ~((1ull << 30) - 1)) + (32ull << 30);
    uint64_t top = j->end < window ? j->end : window, len = boot__up(f->len);
    uint64_t above = j->dtb_gpa + BOOT__2M, below = j->dtb_gpa < window ? j->dtb_gpa : window;

    if (!f->len)
        return 0;
    if (f->len > j->end - j->ram)
        return boot__a64_no_room(j, boot__name(f, "initrd"));
    if (boot__up(j->img.end) <= below && len <= below - boot__up(j->img.end))
        j->initrd_gpa = below - len;
    else if (above <= top && len <= top - above)
        j->initrd_gpa = top - len;
    else
        return boot__a64_no_room(j, boot__name(f, "initrd"));
    return 0;
}

static void boot__a64_place(const struct boot__a64 *j)
{
    const struct boot_desc *d = j->desc;
    struct boot__seg initrd = {0, j->initrd_gpa, d->initrd.len, d->initrd.len};

    for (unsigned i = 0; i < j->img.nsegs; i++)
        boot__place(d, &d->kernel, &j->img.seg[i], j->img.spill);
    if (j->initrd_gpa)
        boot__place(d, &d->initrd, &initrd, true);
}

/* >>fdt: the machine as a device tree (Devicetree Specification 0.4, and the bindings of Linux),
   or one that the caller brings */
enum boot__phandle { BOOT__PH_GIC = 1, BOOT__PH_MSI, BOOT__PH_CLOCK, BOOT__PH_GPIO, BOOT__PH_CPU };
enum boot__intr { BOOT__SPI, BOOT__PPI, BOOT__EDGE = 1, BOOT__LEVEL = 4 };

/* A tree under construction. The first error stays, and all that follows does nothing. */
struct boot__fdt {
    void *fdt;
    const struct boot_machine *m;
    int err;
};

static void boot__fdt_prop(struct boot__fdt *f, const char *name, const void *val, uint32_t len)
{
    if (!f->err)
        f->err = fdt_property(f->fdt, name, val, (int)len);
}

static void boot__fdt_str(struct boot__fdt *f, const char *name, const char *val)
{
    boot__fdt_prop(f, name, val, (uint32_t)strlen(val) + 1);
}

/* Two strings. */
static void boot__fdt_strs(struct boot__fdt *f, const char *name, const char *a, const char *b)
{
    char both[64] = {0};
    size_t n = strlen(a) + 1;

    memcpy(both, a, n);
    memcpy(both + n, b, strlen(b) + 1);
    boot__fdt_prop(f, name, both, (uint32_t)(n + strlen(b) + 1));
}

/* At most 20 cells. */
static void boot__fdt_cells(struct boot__fdt *f, const char *name, const uint32_t *cell, unsigned n)
{
    fdt32_t big[20];

    for (unsigned i = 0; i < n; i++)
        big[i] = cpu_to_fdt32(cell[i]);
    boot__fdt_prop(f, name, big, n * 4);
}

static void boot__fdt_u32(struct boot__fdt *f, const char *name, uint32_t v)
{
    boot__fdt_cells(f, name, &v, 1);
}

static void boot__fdt_empty(struct boot__fdt *f, const char *name)
{
    boot__fdt_prop(f, name, "", 0);
}

static void boot__cell64(uint32_t *cell, uint64_t v)
{
    cell[0] = (uint32_t)(v >> 32);
    cell[1] = (uint32_t)v;
}

/* One or two address ranges; no length: there is no second. */
static void boot__fdt_reg(struct boot__fdt *f, uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
    uint32_t cell[8];

    boot__cell64(cell, a);
    boot__cell64(cell + 2, alen);
    boot__cell64(cell + 4, b);
    boot__cell64(cell + 6, blen);
    boot__fdt_cells(f, "reg", cell, blen ? 8 : 4);
}

static void boot__fdt_open(struct boot__fdt *f, const char *name)
{
    if (!f->err)
        f->err = fdt_begin_node(f->fdt, name);
}

/* name@unit, in hexadecimal, or, without the sign, name and a number. */
static void boot__name_at(char *to, const char *name, const char *sign, uint64_t unit)
{
    unsigned shift = 60;

    to = (char *)memcpy(to, name, strlen(name)) + strlen(name);
    to = (char *)memcpy(to, sign, strlen(sign)) + strlen(sign);
    while (shift && !(unit >> shift))
        shift -= 4;
    for (;; shift -= 4) {
        *to++ = "0123456789abcdef"[unit >> shift & 15];
        if (!shift)
            break;
    }
    *to = 0;
}

static void boot__fdt_open_at(struct boot__fdt *f, const char *name, const char *sign,
                              uint64_t unit)
{
    char buf[64];

    boot__name_at(buf, name, sign, unit);
    boot__fdt_open(f, buf);
}

static void boot__fdt_close(struct boot__fdt *f)
{
    if (!f->err)
        f->err = fdt_end_node(f->fdt);
}

static void boot__fdt_spi(struct boot__fdt *f, unsigned gsi, enum boot__intr trigger)
{
    const uint32_t cell[] = {BOOT__SPI, gsi, trigger};

    if (gsi)
        boot__fdt_cells(f, "interrupts", cell, 3);
}

/* A private interrupt's flags: level-triggered, and for a GICv2 the CPUs that have it. */
static uint32_t boot__fdt_ppi(const struct boot_machine *m)
{
    return BOOT__LEVEL | (m->arm64.gic == 2 ? ((1u << m->ncpus) - 1) << 8 : 0);
}

static void boot__fdt_cpus(struct boot__fdt *f)
{
    boot__fdt_open(f, "cpus");
    boot__fdt_u32(f, "#address-cells", 1);
    boot__fdt_u32(f, "#size-cells", 0);
    boot__fdt_open(f, "cpu-map");
    boot__fdt_open(f, "cluster0");
    for (unsigned i = 0; i < f->m->ncpus; i++) {
        char core[32] = "core", digits[8];
        unsigned n = 0, v = i;

        do
            digits[n++] = (char)('0' + v % 10);
        while (v /= 10);
        for (unsigned k = 0; k < n; k++)
            core[4 + k] = digits[n - 1 - k];
        boot__fdt_open(f, core);
        boot__fdt_u32(f, "cpu", BOOT__PH_CPU + i);
        boot__fdt_close(f);
    }
    boot__fdt_close(f);
    boot__fdt_close(f);
    for (unsigned i = 0; i < f->m->ncpus; i++) {
        boot__fdt_open_at(f, "cpu", "@", boot_mpidr(i));
        boot__fdt_str(f, "device_type", "cpu");
        boot__fdt_str(f, "compatible", "arm,armv8");
        boot__fdt_str(f, "enable-method", "psci");
        boot__fdt_u32(f, "reg", (uint32_t)boot_mpidr(i));
        boot__fdt_u32(f, "phandle", BOOT__PH_CPU + i);
        boot__fdt_close(f);
    }
    boot__fdt_close(f);
}

static void boot__fdt_memory(struct boot__fdt *f)
{
    const struct vmm_mem *mem = f->m->mem;

    for (unsigned i = 0; i < mem->nranges; i++) {
        boot__fdt_open_at(f, "memory", "@", mem->range[i].gpa);
        boot__fdt_str(f, "device_type", "memory");
        boot__fdt_reg(f, mem->range[i].gpa, mem->range[i].len, 0, 0);
        boot__fdt_close(f);
    }
}

static void boot__fdt_msi(struct boot__fdt *f)
{
    const struct boot_arm64 *a = &f->m->arm64;

    if (a->gic == 3 && a->gic_its) {
        boot__fdt_open_at(f, "msi-controller", "@", a->gic_its);
        boot__fdt_str(f, "compatible", "arm,gic-v3-its");
        boot__fdt_u32(f, "#msi-cells", 1);
        boot__fdt_reg(f, a->gic_its, 0x20000, 0, 0);
    } else if (a->gic_v2m) {
        boot__fdt_open_at(f, "v2m", "@", a->gic_v2m);
        boot__fdt_str(f, "compatible", "arm,gic-v2m-frame");
        boot__fdt_reg(f, a->gic_v2m, 0x1000, 0, 0);
        boot__fdt_u32(f, "arm,msi-base-spi", a->v2m_spi + 32); /* as the CPU sees it */
        boot__fdt_u32(f, "arm,msi-num-spis", a->v2m_nspis);
    } else {
        return;
    }
    boot__fdt_empty(f, "msi-controller");
    boot__fdt_u32(f, "phandle", BOOT__PH_MSI);
    boot__fdt_close(f);
}

static void boot__fdt_gic(struct boot__fdt *f)
{
    const struct boot_arm64 *a = &f->m->arm64;

    boot__fdt_open_at(f, "interrupt-controller", "@", a->gic_dist);
    boot__fdt_str(f, "compatible", a->gic == 3 ? "arm,gic-v3" : "arm,cortex-a15-gic");
    boot__fdt_empty(f, "interrupt-controller");
    boot__fdt_u32(f, "#interrupt-cells", 3);
    boot__fdt_u32(f, "#address-cells", 2);
    boot__fdt_u32(f, "#size-cells", 2);
    boot__fdt_empty(f, "ranges");
    if (a->gic == 3)
        boot__fdt_reg(f, a->gic_dist, 0x10000, a->gic_cpu, 0x20000ull * f->m->ncpus);
    else
        boot__fdt_reg(f, a->gic_dist, 0x1000, a->gic_cpu, 0x2000);
    boot__fdt_u32(f, "phandle", BOOT__PH_GIC);
    boot__fdt_msi(f);
    boot__fdt_close(f);
}

/* What every CPU has: its way to start others, its timers (secure, physical, virtual, hypervisor),
   its performance counters. */
static void boot__fdt_core(struct boot__fdt *f)
{
    uint32_t flags = boot__fdt_ppi(f->m), pmu[] = {BOOT__PPI, f->m->arm64.pmu_ppi, flags};
    uint32_t timer[] = {BOOT__PPI, 13, flags, BOOT__PPI, 14, flags,
                        BOOT__PPI, 11, flags, BOOT__PPI, 10, flags};

    boot__fdt_open(f, "psci");
    boot__fdt_strs(f, "compatible", "arm,psci-1.0", "arm,psci-0.2");
    boot__fdt_str(f, "method", "hvc");
    boot__fdt_close(f);
    boot__fdt_open(f, "timer");
    boot__fdt_str(f, "compatible", "arm,armv8-timer");
    boot__fdt_cells(f, "interrupts", timer, 12);
    boot__fdt_empty(f, "always-on");
    boot__fdt_close(f);
    if (!f->m->arm64.pmu_ppi)
        return;
    boot__fdt_open(f, "pmu");
    boot__fdt_str(f, "compatible", "arm,armv8-pmuv3");
    boot__fdt_cells(f, "interrupts", pmu, 3);
    boot__fdt_close(f);
}

/* The clock that drives the PrimeCells. */
static void boot__fdt_clock(struct boot__fdt *f)
{
    boot__fdt_open(f, "apb-clock");
    boot__fdt_str(f, "compatible", "fixed-clock");
    boot__fdt_u32(f, "#clock-cells", 0);
    boot__fdt_u32(f, "clock-frequency", 24000000);
    boot__fdt_str(f, "clock-output-names", "apb");
    boot__fdt_u32(f, "phandle", BOOT__PH_CLOCK);
    boot__fdt_close(f);
}

static const char *const boot__fdt_names[] = {
    [BOOT_DEV_UART] = "serial",  [BOOT_DEV_RTC] = "",      [BOOT_DEV_VIRTIO_MMIO] = "virtio_mmio",
    [BOOT_DEV_PL011] = "serial", [BOOT_DEV_PL031] = "rtc", [BOOT_DEV_PL061] = "gpio",
};

static void boot__fdt_primecell(struct boot__fdt *f, enum boot_dev_kind kind)
{
    static const uint32_t clocks[] = {BOOT__PH_CLOCK, BOOT__PH_CLOCK};

    if (kind == BOOT_DEV_PL011) {
        boot__fdt_strs(f, "compatible", "arm,pl011", "arm,primecell");
        boot__fdt_cells(f, "clocks", clocks, 2);
        boot__fdt_strs(f, "clock-names", "uartclk", "apb_pclk");
        return;
    }
    boot__fdt_cells(f, "clocks", clocks, 1);
    boot__fdt_str(f, "clock-names", "apb_pclk");
    if (kind == BOOT_DEV_PL031) {
        boot__fdt_strs(f, "compatible", "arm,pl031", "arm,primecell");
        return;
    }
    boot__fdt_strs(f, "compatible", "arm,pl061", "arm,primecell");
    boot__fdt_empty(f, "gpio-controller");
    boot__fdt_u32(f, "#gpio-cells", 2);
    boot__fdt_u32(f, "phandle", BOOT__PH_GPIO);
}

static void boot__fdt_dev(struct boot__fdt *f, const struct boot_dev *d)
{
    boot__fdt_open_at(f, boot__fdt_names[d->kind], "@", d->base);
    if (d->kind == BOOT_DEV_VIRTIO_MMIO) {
        boot__fdt_str(f, "compatible", "virtio,mmio");
        boot__fdt_empty(f, "dma-coherent");
    } else if (d->kind == BOOT_DEV_UART) {
        boot__fdt_str(f, "compatible", "ns16550a");
        boot__fdt_u32(f, "clock-frequency", 1843200);
    } else {
        boot__fdt_primecell(f, d->kind);
    }
    boot__fdt_reg(f, d->base, d->len, 0, 0);
    boot__fdt_spi(f, d->gsi, d->kind == BOOT_DEV_VIRTIO_MMIO ? BOOT__EDGE : BOOT__LEVEL);
    boot__fdt_close(f);
}

static void boot__fdt_button(struct boot__fdt *f)
{
    static const uint32_t line3[] = {BOOT__PH_GPIO, 3, 0};

    boot__fdt_open(f, "gpio-keys");
    boot__fdt_str(f, "compatible", "gpio-keys");
    boot__fdt_str(f, "label", "Power Button"); /* as ACPI's is called */
    boot__fdt_open(f, "poweroff");
    boot__fdt_str(f, "label", "Power Button");
    boot__fdt_u32(f, "linux,code", 116); /* KEY_POWER */
    boot__fdt_cells(f, "gpios", line3, 3);
    boot__fdt_close(f);
    boot__fdt_close(f);
}

/* Where BARs may be: flags (1 << 24: 32-bit memory, 3: 64-bit), bus address, CPU address, length. */
static void boot__fdt_pci_ranges(struct boot__fdt *f, const struct boot_pci *p)
{
    const uint64_t base[] = {p->mmio32, p->mmio64}, len[] = {p->mmio32_len, p->mmio64_len};
    uint32_t cell[14];
    unsigned n = 0;

    for (unsigned i = 0; i < 2; i++)
        if (len[i]) {
            cell[n] = i ? 0x03000000 : 0x02000000;
            boot__cell64(cell + n + 1, base[i]);
            boot__cell64(cell + n + 3, base[i]);
            boot__cell64(cell + n + 5, len[i]);
            n += 7;
        }
    boot__fdt_cells(f, "ranges", cell, n);
}

/* Lines repeat every four devices, hence the mask: two bits of the device, three of the pin. An
   entry: device (three cells), pin, controller, its unit address (two), its interrupt (three). */
static void boot__fdt_pci_intx(struct boot__fdt *f, const struct boot_pci *p)
{
    static const uint32_t mask[] = {3 << 11, 0, 0, 7};
    fdt32_t map[16 * 10];

    memset(map, 0, sizeof map);
    for (unsigned i = 0; i < 16; i++) {
        unsigned slot = i / 4, pin = i % 4;
        fdt32_t *e = map + i * 10;
        e[0] = cpu_to_fdt32(slot << 11);
        e[3] = cpu_to_fdt32(pin + 1);
        e[4] = cpu_to_fdt32(BOOT__PH_GIC);
        e[8] = cpu_to_fdt32(p->gsi[(slot + pin) % 4]);
        e[9] = cpu_to_fdt32(BOOT__LEVEL);
    }
    boot__fdt_u32(f, "#interrupt-cells", 1);
    boot__fdt_cells(f, "interrupt-map-mask", mask, 4);
    boot__fdt_prop(f, "interrupt-map", map, sizeof map);
}

static void boot__fdt_pci(struct boot__fdt *f)
{
    static const uint32_t buses[] = {0, 0}, devids[] = {0, BOOT__PH_MSI, 0, 0x10000};
    const struct boot_pci *p = &f->m->pci;
    const struct boot_arm64 *a = &f->m->arm64;

    boot__fdt_open_at(f, "pcie", "@", p->ecam);
    boot__fdt_str(f, "compatible", "pci-host-ecam-generic");
    boot__fdt_str(f, "device_type", "pci");
    boot__fdt_reg(f, p->ecam, BOOT__ECAM_LEN, 0, 0);
    boot__fdt_cells(f, "bus-range", buses, 2);
    boot__fdt_u32(f, "linux,pci-domain", 0);
    boot__fdt_u32(f, "#address-cells", 3);
    boot__fdt_u32(f, "#size-cells", 2);
    boot__fdt_empty(f, "dma-coherent");
    boot__fdt_pci_ranges(f, p);
    boot__fdt_pci_intx(f, p);
    if (a->gic == 3 && a->gic_its)
        boot__fdt_cells(f, "msi-map", devids, 4); /* a function's number is its device id */
    else if (a->gic_v2m)
        boot__fdt_u32(f, "msi-parent", BOOT__PH_MSI);
    boot__fdt_close(f);
}

/* An empty /chosen but for the console, which is the first UART. */
static void boot__fdt_chosen(struct boot__fdt *f)
{
    char path[64];

    boot__fdt_open(f, "chosen");
    for (unsigned i = 0; i < f->m->ndevs; i++) {
        const struct boot_dev *d = &f->m->devs[i];
        if (d->kind == BOOT_DEV_UART || d->kind == BOOT_DEV_PL011) {
            boot__name_at(path, "/serial", "@", d->base);
            boot__fdt_str(f, "stdout-path", path);
            break;
        }
    }
    boot__fdt_close(f);
}

static void boot__fdt_body(struct boot__fdt *f)
{
    bool gpio = false, clock = false;

    boot__fdt_open(f, "");
    boot__fdt_str(f, "compatible", "linux,dummy-virt");
    boot__fdt_str(f, "model", "vmm");
    boot__fdt_u32(f, "#address-cells", 2);
    boot__fdt_u32(f, "#size-cells", 2);
    boot__fdt_u32(f, "interrupt-parent", BOOT__PH_GIC);
    boot__fdt_chosen(f);
    boot__fdt_cpus(f);
    boot__fdt_memory(f);
    boot__fdt_core(f);
    boot__fdt_gic(f);
    for (unsigned i = 0; i < f->m->ndevs; i++) {
        boot__fdt_dev(f, &f->m->devs[i]);
        gpio |= f->m->devs[i].kind == BOOT_DEV_PL061;
        clock |= f->m->devs[i].kind >= BOOT_DEV_PL011;
    }
    if (clock)
        boot__fdt_clock(f);
    if (gpio)
        boot__fdt_button(f);
    if (f->m->pci.ecam)
        boot__fdt_pci(f);
    boot__fdt_close(f);
}

static int boot__fdt_make(const struct boot_machine *m, void *buf, int cap)
{
    struct boot__fdt f = {buf, m, fdt_create(buf, cap)};

    if (!f.err)
        f.err = fdt_finish_reservemap(buf);
    boot__fdt_body(&f);
    return f.err ? f.err : fdt_finish(buf);
}

/* What the kernel is told at boot: command line, initrd, and randomness. */
static int boot__fdt_patch(const struct boot__a64 *j, void *fdt)
{
    const struct boot_desc *d = j->desc;
    int err = 0, at = fdt_path_offset(fdt, "/chosen");

    if (at == -FDT_ERR_NOTFOUND)
        at = fdt_add_subnode(fdt, 0, "chosen");
    if (at < 0)
        return at;
    fdt_delprop(fdt, at, "linux,initrd-start"); /* which need not be there */
    fdt_delprop(fdt, at, "linux,initrd-end");
    if (d->cmdline)
        err = fdt_setprop_string(fdt, at, "bootargs", d->cmdline);
    if (!err && j->initrd_gpa)
        err = fdt_setprop_u64(fdt, at, "linux,initrd-start", j->initrd_gpa);
    if (!err && j->initrd_gpa)
        err = fdt_setprop_u64(fdt, at, "linux,initrd-end", j->initrd_gpa + d->initrd.len);
    if (!err && d->entropy)
        err = fdt_setprop(fdt, at, "kaslr-seed", d->entropy, 8);
    if (!err && d->entropy)
        err = fdt_setprop(fdt, at, "rng-seed", d->entropy + 8, BOOT_ENTROPY_LEN - 8);
    return err;
}

/* All within the 2 MiB that are the tree's. */
static int boot__a64_dtb(struct boot__a64 *j)
{
    const struct boot_file *own = &j->desc->dtb;
    void *fdt = vmm_at(j->desc->machine.mem, j->dtb_gpa, BOOT__2M);
    int err = 0;

    if (own->len > BOOT__2M / 2)
        return vmm_err(j->desc->log, -E2BIG, "%s: has %llu bytes, a device tree at most 1 MiB",
                       boot__name(own, "device tree"), (unsigned long long)own->len);
    if (own->len) {
        memcpy(fdt, own->data, own->len);
        err = fdt_check_full(fdt, own->len);
        if (err)
            return vmm_err(j->desc->log, -ENOEXEC, "%s: is no device tree, or damaged: %s",
                           boot__name(own, "device tree"), fdt_strerror(err));
    } else {
        err = boot__fdt_make(&j->desc->machine, fdt, BOOT__2M / 2);
    }
    if (!err)
        err = fdt_open_into(fdt, fdt, BOOT__2M);
    if (!err)
        err = boot__fdt_patch(j, fdt);
    if (!err)
        err = fdt_pack(fdt);
    if (err)
        return vmm_err(j->desc->log, -EINVAL, "the device tree cannot be made: %s",
                       fdt_strerror(err));
    j->dtb_len = fdt_totalsize(fdt);
    return 0;
}

static int boot__a64_linux(const struct boot_desc *desc, struct boot_result *out)
{
    struct boot__a64 j = {.desc = desc, .name = boot__name(&desc->kernel, "kernel")};
    int err = boot__a64_check(&j);

    if (!err)
        err = boot__a64_ram(&j);
    if (!err)
        err = boot__a64_parse(&j);
    if (!err)
        err = boot__a64_fit_dtb(&j);
    if (!err)
        err = boot__a64_fit_initrd(&j);
    if (!err)
        err = boot__a64_dtb(&j);
    if (err)
        return err;
    boot__a64_place(&j);
    memset(out, 0, sizeof *out);
    out->format = j.img.format;
    out->arm64.x[0] = out->dtb_gpa = j.dtb_gpa;
    out->arm64.pc = j.img.entry;
    out->arm64.pstate = BOOT__A64_EL1H;
    out->kernel_gpa = j.img.start;
    out->kernel_end = j.img.end;
    out->initrd_gpa = j.initrd_gpa;
    out->dtb_len = j.dtb_len;
    vmm_say(desc->log, VMM_LOG_DEBUG,
            "%s: in 0x%llx-0x%llx, entered at 0x%llx, initrd at 0x%llx, device tree at 0x%llx",
            j.name, (unsigned long long)j.img.start, (unsigned long long)j.img.end,
            (unsigned long long)j.img.entry, (unsigned long long)j.initrd_gpa,
            (unsigned long long)j.dtb_gpa);
    return 0;
}

VMM_DEF int boot_flat_arm64(const struct boot_flat_desc *d, struct vmm_arm64_regs *regs)
{
    const char *name = boot__name(&d->file, "binary");
    uint64_t end = 0;

    for (unsigned i = 0; i < d->mem->nranges; i++)
        if (d->load - d->mem->range[i].gpa < d->mem->range[i].len)
            end = d->mem->range[i].gpa + d->mem->range[i].len;
    if (!d->file.data || !d->file.len)
        return vmm_err(d->log, -ENOEXEC, "%s: is empty: give a binary with code", name);
    if (d->mode && d->mode != 64)
        return vmm_err(d->log, -EINVAL, "mode %u is not known on arm64: give 64", d->mode);
    if (!end)
        return vmm_err(d->log, -EINVAL, "%s: load address 0x%llx is outside RAM", name,
                       (unsigned long long)d->load);
    if (d->file.len > end - d->load)
        return vmm_err(d->log, -ENOMEM, "%s: does not fit into RAM: give --mem %lluM or more", name,
                       boot__mib(d->load - d->mem->range[0].gpa + d->file.len));
    if (d->entry - d->load >= d->file.len || d->entry & 3)
        return vmm_err(d->log, -EINVAL,
                       "%s: entry 0x%llx is no multiple of 4 in the binary at 0x%llx-0x%llx", name,
                       (unsigned long long)d->entry, (unsigned long long)d->load,
                       (unsigned long long)(d->load + d->file.len));
    memcpy(vmm_at(d->mem, d->load, d->file.len), d->file.data, d->file.len);
    memset(regs, 0, sizeof *regs);
    regs->pc = d->entry;
    regs->sp_el1 = end & ~15ull;
    regs->pstate = BOOT__A64_EL1H;
    return 0;
}
#endif /* BOOT_ARM64 */

VMM_DEF int boot_linux(const struct boot_desc *desc, struct boot_result *out)
{
#ifdef BOOT_ARM64
    if (desc->machine.arch == BOOT_ARCH_ARM64)
        return boot__a64_linux(desc, out);
#endif
#ifndef BOOT_NO_X86
    if (desc->machine.arch == BOOT_ARCH_X86)
        return boot__x86_linux(desc, out);
#endif
    (void)out;
    return vmm_err(desc->log, -ENOSYS, "this program was built without the loaders for %s",
                   desc->machine.arch == BOOT_ARCH_ARM64 ? "arm64" : "x86");
}

#endif /* BOOT_IMPLEMENTED */
#endif /* BOOT_IMPLEMENTATION */
