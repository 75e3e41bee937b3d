/* vmm.c - the program: it knows every room and only wires them together  MIT licence, see LICENSE

   vmm.h     the vocabulary and the hypervisor contract
   hv_kvm.h  the contract on /dev/kvm          host.h   loop, streams, terminal, files, threads
   boot.h    loaders and the guest's tables    dev_*.h  chips and devices, pure state machines
   disk.h    raw and qcow2 images              debug.h  page tables, symbols, gdb's stub

   The I/O thread is the loop: it serves streams, doorbells, timers and signals. What may wait for
   the host, a disk or a network card, has a loop and a thread of its own. Each vCPU has a thread
   (the first one the main thread) that runs the guest and answers its port and MMIO accesses.
   Whoever learns that the VM is over calls vm_end with the exit status; the first one counts.

   Sections: >>status >>log >>config >>options >>vm >>trace >>architecture >>io >>disks >>net >>virtio >>vfio
             >>pci >>machine >>x86 >>arm64 >>boot >>debug >>look >>cpus >>life >>report >>doctor
             >>main
   What differs between architectures is in >>x86 and >>arm64, and in the constants at >>vm. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define VMM_DEF static __attribute__((unused))
#define VMM_IMPLEMENTATION
#if defined(__aarch64__)
#define DBG_NO_X86
#else
#define DBG_NO_ARM64
#endif

#ifndef VMM_BACKEND /* tests bring a scripted one */
#if defined(__linux__)
#define VMM_BACKEND "hv_kvm.h"
#elif defined(__APPLE__)
#define VMM_BACKEND "hv_hvf.h"
#else
#define VMM_BACKEND "hv_nvmm.h"
#endif
#endif
#include VMM_BACKEND
#include "host.h"
#include "boot.h"
#include "dev_bios.h"
#include "dev_legacy.h"
#include "dev_pci.h"
#include "dev_virtio.h"
#include "dev_vfio.h"
#include "disk.h"
#include "debug.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define VMM_VERSION "0.1.0"

/* >>status: what the process exits with; vmm.1 and the README list the same numbers --------- */

enum status {
    ST_POWEROFF = 0, /* also: the user left with Ctrl-A X */
    ST_FAILED = 1,   /* the host failed while the guest ran */
    ST_USAGE = 2,    /* the command line is wrong */
    ST_UNFIT = 3,    /* a file or this host is not fit for what was asked */
    ST_RESET = 4,
    ST_TRIPLE_FAULT = 5,
    ST_HYPERVISOR = 6, /* e.g. a KVM internal error */
    ST_PANIC = 7,      /* of the guest's kernel, which said so by pvpanic */
    ST_TIMEOUT = 124,  /* as timeout(1) */
    ST_SIGNAL = 128,   /* plus the signal's number */
};

/* >>log ------------------------------------------------------------------------------------- */

/* One write(2) a line, so that lines of several threads do not mix. */
static void log_line(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    char line[1024] = "vmm: ";
    size_t len = strlen(line);
    int n = vsnprintf(line + len, sizeof line - len - 1, fmt, args);

    (void)ctx;
    (void)level;
    len += n < 0 ? 0 : (size_t)n;
    if (len > sizeof line - 2)
        len = sizeof line - 2;
    line[len++] = '\n';
    if (write(STDERR_FILENO, line, len) < 0)
        return; /* nobody left to tell */
}

/* >>config: what the command line asks for -------------------------------------------------- */

enum console { CONSOLE_SERIAL, CONSOLE_VIRTIO, CONSOLE_NONE };
enum transport { TRANSPORT_PCI, TRANSPORT_MMIO };
enum uart_kind { UART_16550, UART_PL011 };
enum irqchip { IRQCHIP_KERNEL, IRQCHIP_SPLIT, IRQCHIP_USER };
enum trace { TRACE_IO = 1, TRACE_IRQ = 2, TRACE_EXIT = 4 };

#define DISKS_MAX       12
#define NETS_MAX        4
#define MODULES_MAX     (BOOT_MODULES_MAX - 1) /* and an initrd */
#define PORTS_MAX       30
#if defined(__x86_64__)
#define UARTS_MAX 4
#else
#define UARTS_MAX 1
#endif
#define VFIO_MAX        16
#define CMDLINE_DEFAULT "quiet panic=-1"

/* A network card and where its cable goes. */
struct net_config {
    enum { NET_NONE, NET_TAP, NET_TAPFD, NET_PASST } kind;
    const char *where; /* the tap's name, or a helper's socket; NULL: a passt of our own */
    bool datagrams;    /* NET_PASST: that socket is not of passt's kind but of gvproxy's */
    unsigned fd;       /* NET_TAPFD */
    bool have_mac;
    uint8_t mac[6];
    unsigned queues, mtu; /* 0: one, and the tap's own */
    enum { VHOST_AUTO, VHOST_ON, VHOST_OFF } vhost;
};

struct config {
    struct vmm_log log;
    enum vmm_level level; /* once the guest runs; what keeps it from running is always said */
    char *text;           /* copies of option values, quotes removed */
    size_t text_used;

    const char *kernel, *initrd, *cmdline, *binary, *bios;
    bool guest;           /* --guest: the first disk is booted from */
    bool mini_bios;       /* by the services of dev_bios.h, and not by firmware */
    char *append;         /* every --append, joined by spaces; NULL: none */
    uint64_t kernel_load; /* 0: the kernel's own preference */
    uint64_t himem_start; /* the kernel must not lie below it */
    enum boot_entry kernel_entry;
    uint64_t load, entry; /* of the flat binary */
    bool have_load, have_entry;
    unsigned mode;
    uint64_t mem; /* bytes */
    unsigned ncpus;
    struct module_config {
        const char *path, *cmdline; /* cmdline NULL: the path */
    } module[MODULES_MAX];
    unsigned nmodules;
    struct disk_config {
        const char *path, *serial; /* serial NULL: vda and so on */
        bool ro, direct;           /* direct: cache=none */
        bool ide;                  /* an IDE disk, and no virtio one */
        enum disk_format format;   /* DISK_PROBE: not given */
        bool overlay;              /* leave the file alone: */
        const char *overlay_path;  /* writes go here; NULL: and vanish with the VM */
        unsigned queues;           /* 0: 1 */
        uint64_t bps, iops;        /* bytes and requests a second; 0: no limit */
    } disk[DISKS_MAX];
    unsigned ndisks;
    struct {
        const char *name, *where;
    } port[PORTS_MAX];
    unsigned nports;
    uint64_t rng_rate;  /* bytes a second; 0: no limit */
    unsigned trace;         /* bits of enum trace */
    const char *trace_path; /* NULL: standard error */
    const char *symbols; /* of the kernel, for state dumps; NULL: it may be in the kernel itself */
    const char *serial[UARTS_MAX];
    unsigned nserials;
    struct net_config net[NETS_MAX];
    unsigned nnets;
    struct vfio_config {
        const char *address, *rom; /* rom NULL: the device's own */
    } vfio[VFIO_MAX];
    unsigned nvfio;
    enum console console;
    enum transport transport;
    enum irqchip irqchip;
    unsigned features_need, features_want; /* arm64: bits of enum hyp_feature */
    const char *dtb, *dump_dtb;            /* arm64 */
    enum uart_kind uart;                   /* arm64 */
    const char *gdb;   /* where gdb comes, as for a stream; NULL: nowhere */
    bool gdb_nowait;   /* the guest need not wait for it */
    unsigned gdb_mode; /* 0: that of the guest's entry */
    bool debugcon, time, no_acpi, json;
    bool list_vfio; /* doctor: --vfio */
    unsigned timeout; /* seconds; 0: none */
    enum { CMD_RUN, CMD_DOCTOR, CMD_HELP, CMD_VERSION } command;
};

/* >>options: one table drives parsing, --help and the messages ------------------------------ */

enum arg { ARG_NONE, ARG_ONE, ARG_MAYBE };

struct option_def {
    const char *names; /* long names, the first is the documented one, separated by | */
    char letter;
    enum arg arg;
    const char *value; /* what --help calls the value */
    const char *help;
    int (*set)(struct config *c, const char *name, const char *value);
};

/* Appends a copy to the config's text, which is as large as the command line. */
static char *config_keep(struct config *c, const char *s, size_t len)
{
    char *p = c->text + c->text_used;

    memcpy(p, s, len);
    p[len] = 0;
    c->text_used += len + 1;
    return p;
}

/* "key=value,key=value" with quotes; a segment without a known key is positional (key NULL). */
struct kv {
    const char *rest;
    const char *const *keys; /* NULL-terminated */
    const char *key;
    const char *val;
    unsigned index;
};

/* The known key that a segment begins with, or NULL. */
static const char *kv_key(const struct kv *kv, const char *s)
{
    for (const char *const *k = kv->keys; *k; k++)
        if (strncmp(s, *k, strlen(*k)) == 0 && s[strlen(*k)] == '=')
            return *k;
    return NULL;
}

/* A kernel command line may hold commas: there, only a comma before a known key ends the value. */
static bool kv_ends(const struct kv *kv, const char *s)
{
    if (!*s)
        return true;
    if (*s != ',')
        return false;
    return !kv->key || strcmp(kv->key, "cmdline") != 0 || kv_key(kv, s + 1);
}

/* Takes the next segment; false at the end. */
static bool kv_next(struct config *c, struct kv *kv)
{
    const char *s = kv->rest;
    char *out, quote = 0;
    size_t n = 0;

    if (!s)
        return false;
    kv->key = kv_key(kv, s);
    if (kv->key)
        s += strlen(kv->key) + 1;
    out = c->text + c->text_used;
    for (; quote ? *s != 0 : !kv_ends(kv, s); s++) {
        if (*s == quote)
            quote = 0;
        else if (!quote && (*s == '"' || *s == '\''))
            quote = *s;
        else
            out[n++] = *s;
    }
    out[n] = 0;
    c->text_used += n + 1;
    kv->val = out;
    kv->rest = *s == ',' ? s + 1 : NULL;
    kv->index++;
    return true;
}

/* A segment that the option has no use for. */
static int bad_segment(struct config *c, const char *name, const struct kv *kv)
{
    return vmm_err(&c->log, -EINVAL, "--%s does not know '%s': see vmm --help", name, kv->val);
}

/* A whole number, decimal or 0x..., from min to max. */
static int parse_number(struct config *c, const char *name, const char *s, uint64_t min,
                        uint64_t max, uint64_t *out)
{
    char *end;

    errno = 0;
    *out = isdigit((unsigned char)*s) ? strtoull(s, &end, 0) : 0;
    if (!isdigit((unsigned char)*s) || *end)
        return vmm_err(&c->log, -EINVAL,
                       "--%s: '%s' is not a number: give digits, or 0x and hex digits", name, s);
    if (errno || *out < min || *out > max)
        return vmm_err(&c->log, -EINVAL, "--%s: %s is out of range: give %llu to %llu", name, s,
                       (unsigned long long)min, (unsigned long long)max);
    return 0;
}

#define MEM_MIN (1ull << 20)
#define MEM_MAX (4ull << 40) /* half of what KVM takes in one slot */

/* A size in bytes, rounded down to whole pages: guest memory is mapped in pages. */
static int parse_size(struct config *c, const char *name, const char *s, uint64_t *out)
{
    static const char suffixes[] = "KMGT";
    const char *suffix;
    char *end = NULL;
    unsigned shift = 20;
    uint64_t n;

    errno = 0;
    n = isdigit((unsigned char)*s) ? strtoull(s, &end, 0) : 0;
    if (end && *end) {
        suffix = strchr(suffixes, toupper((unsigned char)*end));
        shift = suffix ? 10 * (unsigned)(suffix - suffixes + 1) : 0;
        end +=
            suffix
                ? strcasecmp(end + 1, "iB") == 0 || strcasecmp(end + 1, "B") == 0 ? strlen(end) : 1
                : 0;
    }
    if (!end || *end)
        return vmm_err(&c->log, -EINVAL,
                       "--%s: '%s' is not a size: give a number of MiB, or one with K, M, G or T",
                       name, s);
    if (errno || n > MEM_MAX >> shift || n << shift < MEM_MIN)
        return vmm_err(&c->log, -EINVAL, "--%s: %s is out of range: give 1M to 4T", name, s);
    *out = n << shift & ~(uint64_t)4095;
    return 0;
}

/* The keys are those of other monitors; entry= is ours. */
static int set_kernel(struct config *c, const char *name, const char *value)
{
    static const char *const keys[] = {"path",    "himem_start", "kernel_load_addr",
                                       "cmdline", "entry",       NULL};
    struct kv kv = {.rest = value, .keys = keys};
    int err = 0;

    while (!err && kv_next(c, &kv)) {
        if (kv.key ? strcmp(kv.key, "path") == 0 : kv.index == 1)
            c->kernel = kv.val;
        else if (!kv.key)
            err = bad_segment(c, name, &kv);
        else if (strcmp(kv.key, "cmdline") == 0)
            c->cmdline = kv.val;
        else if (strcmp(kv.key, "himem_start") == 0)
            err = parse_number(c, "kernel himem_start", kv.val, 0, MEM_MAX, &c->himem_start);
        else if (strcmp(kv.key, "kernel_load_addr") == 0)
            err = parse_number(c, "kernel kernel_load_addr", kv.val, 1 << 16, MEM_MAX,
                               &c->kernel_load);
        else if (strcmp(kv.val, "pvh") == 0)
            c->kernel_entry = BOOT_ENTRY_PVH;
        else if (strcmp(kv.val, "64") == 0)
            c->kernel_entry = BOOT_ENTRY_64;
        else if (strcmp(kv.val, "multiboot") == 0)
            c->kernel_entry = BOOT_ENTRY_MULTIBOOT;
        else if (strcmp(kv.val, "multiboot1") == 0)
            c->kernel_entry = BOOT_ENTRY_MULTIBOOT1;
        else
            err = vmm_err(&c->log, -EINVAL,
                          "--kernel: entry=%s is unknown: give 64, pvh, multiboot or multiboot1",
                          kv.val);
    }
    return err;
}

/* Options whose value is one text: a file name or a command line. */
static int set_text(struct config *c, const char *name, const char *value)
{
    static const char *const keys[] = {"path", NULL};
    struct kv kv = {.rest = value, .keys = keys};
    const char **field = strcmp(name, "initrd") == 0    ? &c->initrd
                         : strcmp(name, "bios") == 0    ? &c->bios
                         : strcmp(name, "symbols") == 0 ? &c->symbols
                                                        : &c->binary;

    kv_next(c, &kv);
    *field = kv.key ? kv.val : config_keep(c, value, strlen(value));
    return 0;
}

static int set_dtb(struct config *c, const char *name, const char *value)
{
    *(strcmp(name, "dtb") == 0 ? &c->dtb : &c->dump_dtb) = config_keep(c, value, strlen(value));
    return 0;
}

/* host, and features of the host's that guests get only on demand, or that they shall not have. */
static int set_cpu(struct config *c, const char *name, const char *value)
{
    static const char *const keys[] = {"sve", "pauth", "pmu", NULL};
    static const unsigned bits[] = {HYP_FEATURE_SVE, HYP_FEATURE_PAUTH, HYP_FEATURE_PMU};
    struct kv kv = {.rest = value, .keys = keys};

    while (kv_next(c, &kv)) {
        unsigned i = 0;
        bool on = strcmp(kv.val, "on") == 0;
        if (!kv.key && kv.index == 1 && strcmp(kv.val, "host") == 0)
            continue;
        if (!kv.key)
            return bad_segment(c, name, &kv);
        if (!on && strcmp(kv.val, "off") != 0)
            return vmm_err(&c->log, -EINVAL, "--%s: %s=%s is unknown: give on or off", name, kv.key,
                           kv.val);
        while (keys[i] != kv.key)
            i++;
        c->features_need = on ? c->features_need | bits[i] : c->features_need & ~bits[i];
        c->features_want &= ~bits[i];
    }
    return 0;
}

static int set_module(struct config *c, const char *name, const char *value)
{
    static const char *const keys[] = {"path", "cmdline", NULL};
    struct kv kv = {.rest = value, .keys = keys};
    struct module_config m = {0};
    int err = 0;

    while (!err && kv_next(c, &kv))
        if (kv.key && strcmp(kv.key, "cmdline") == 0)
            m.cmdline = kv.val;
        else if (kv.key || kv.index == 1)
            m.path = kv.val;
        else
            err = bad_segment(c, name, &kv);
    if (!err && (!m.path || !*m.path))
        err = vmm_err(&c->log, -EINVAL, "--%s: the file's name is empty: give FILE", name);
    if (!err && c->nmodules == MODULES_MAX)
        err =
            vmm_err(&c->log, -EINVAL, "--%s: more than %d modules: give fewer", name, MODULES_MAX);
    if (!err)
        c->module[c->nmodules++] = m;
    return err;
}

static int set_cmdline(struct config *c, const char *name, const char *value)
{
    (void)name;
    c->cmdline = config_keep(c, value, strlen(value));
    return 0;
}

/* Joins what several --append bring, in their order. */
static int set_append(struct config *c, const char *name, const char *value)
{
    size_t old = c->append ? strlen(c->append) + 1 : 0, len = strlen(value);
    char *joined = realloc(c->append, old + len + 1);

    (void)name;
    if (!joined)
        return vmm_err(&c->log, -ENOMEM, "out of memory");
    if (old)
        joined[old - 1] = ' ';
    memcpy(joined + old, value, len + 1);
    c->append = joined;
    return 0;
}

static int set_mem(struct config *c, const char *name, const char *value)
{
    static const char *const keys[] = {"mem_size_mib", "size_mib", "size", NULL};
    struct kv kv = {.rest = value, .keys = keys};
    int err = 0;

    while (!err && kv_next(c, &kv))
        err = kv.key || kv.index == 1 ? parse_size(c, name, kv.val, &c->mem)
                                      : bad_segment(c, name, &kv);
    return err;
}

static int set_cpus(struct config *c, const char *name, const char *value)
{
    static const char *const keys[] = {"num_vcpus", "num", NULL};
    struct kv kv = {.rest = value, .keys = keys};
    uint64_t n = 0;
    int err = 0;

    while (!err && kv_next(c, &kv))
        err = kv.key || kv.index == 1 ? parse_number(c, name, kv.val, 1, 1024, &n)
                                      : bad_segment(c, name, &kv);
    c->ncpus = (unsigned)n;
    return err;
}

/* Bytes a second, with K, M, G or T. */
static int parse_rate(struct config *c, const char *name, const char *s, uint64_t *out)
{
    static const char suffixes[] = "KMGT";
    const char *suffix = NULL;
    char *end = NULL;
    unsigned shift;

    errno = 0;
    *out = isdigit((unsigned char)*s) ? strtoull(s, &end, 0) : 0;
    if (end && *end && !end[1])
        suffix = strchr(suffixes, toupper((unsigned char)*end));
    if (!end || (*end && !suffix))
        return vmm_err(&c->log, -EINVAL,
                       "--%s: '%s' is not a rate: give a number, or one with K, M, G or T", name,
                       s);
    shift = suffix ? 10 * (unsigned)(suffix - suffixes + 1) : 0;
    if (errno || !*out || *out > (1ull << 44) >> shift)
        return vmm_err(&c->log, -EINVAL, "--%s: %s is out of range: give 1 to 16T", name, s);
    *out <<= shift;
    return 0;
}

static int set_disk_serial(struct config *c, struct disk_config *d, const char *val)
{
    if (strlen(val) > VIO_BLK_SERIAL_MAX)
        return vmm_err(&c->log, -EINVAL, "--disk serial: '%s' is too long: give at most %d bytes",
                       val, VIO_BLK_SERIAL_MAX);
    d->serial = val;
    return 0;
}

static int set_disk_cache(struct config *c, struct disk_config *d, const char *val)
{
    d->direct = strcmp(val, "none") == 0;
    if (!d->direct && strcmp(val, "writeback") != 0)
        return vmm_err(&c->log, -EINVAL, "--disk: cache=%s is unknown: give writeback or none",
                       val);
    return 0;
}

static int set_disk_format(struct config *c, struct disk_config *d, const char *val)
{
    if (strcmp(val, "raw") != 0 && strcmp(val, "qcow2") != 0)
        return vmm_err(&c->log, -EINVAL,
                       "--disk: format=%s cannot be read: give raw or qcow2, after qemu-img "
                       "convert -O qcow2",
                       val);
    d->format = *val == 'r' ? DISK_RAW : DISK_QCOW2;
    return 0;
}

static int set_disk_overlay(struct config *c, struct disk_config *d, const char *path)
{
    if (path && !*path)
        return vmm_err(&c->log, -EINVAL,
                       "--disk: overlay= names no file: give overlay=FILE, or overlay alone");
    d->overlay = true;
    d->overlay_path = path;
    return 0;
}

static int set_disk_bus(struct config *c, struct disk_config *d, const char *val)
{
    d->ide = strcmp(val, "ide") == 0;
    return d->ide || strcmp(val, "virtio") == 0
               ? 0
               : vmm_err(&c->log, -EINVAL, "--disk: bus=%s is unknown: give virtio or ide", val);
}

/* One key=value of a disk, or a word alone. */
static int set_disk_key(struct config *c, struct disk_config *d, const char *name,
                        const struct kv *kv)
{
    uint64_t queues = 0;
    int err = 0;

    if (kv->key ? strcmp(kv->key, "path") == 0 : kv->index == 1)
        d->path = kv->val;
    else if (!kv->key && (strcmp(kv->val, "ro") == 0 || strcmp(kv->val, "rw") == 0))
        d->ro = kv->val[1] == 'o';
    else if (strcmp(kv->key ? kv->key : kv->val, "overlay") == 0)
        err = set_disk_overlay(c, d, kv->key ? kv->val : NULL);
    else if (!kv->key)
        err = bad_segment(c, name, kv);
    else if (strcmp(kv->key, "format") == 0)
        err = set_disk_format(c, d, kv->val);
    else if (strcmp(kv->key, "serial") == 0)
        err = set_disk_serial(c, d, kv->val);
    else if (strcmp(kv->key, "cache") == 0)
        err = set_disk_cache(c, d, kv->val);
    else if (strcmp(kv->key, "bus") == 0)
        err = set_disk_bus(c, d, kv->val);
    else if (strcmp(kv->key, "bps") == 0)
        err = parse_rate(c, "disk bps", kv->val, &d->bps);
    else if (strcmp(kv->key, "iops") == 0)
        err = parse_number(c, "disk iops", kv->val, 1, 1000000000, &d->iops);
    else
        err = parse_number(c, "disk queues", kv->val, 1, VIO_BLK_QUEUES_MAX, &queues);
    d->queues = queues ? (unsigned)queues : d->queues;
    return err;
}

static int parse_disk(struct config *c, const char *name, const char *value, struct disk_config *d)
{
    static const char *const keys[] = {"path", "format", "overlay", "serial", "cache",
                                       "bps",  "iops",   "queues",  "bus",    NULL};
    struct kv kv = {.rest = value, .keys = keys};
    int err = 0;

    if (c->ndisks == DISKS_MAX)
        return vmm_err(&c->log, -EINVAL, "--%s: more than %d disks: give fewer", name, DISKS_MAX);
    while (!err && kv_next(c, &kv))
        err = set_disk_key(c, d, name, &kv);
    if (!err && (!d->path || !*d->path))
        err =
            vmm_err(&c->log, -EINVAL, "--%s: the file's name is empty: give FILE or FILE,ro", name);
    if (!err && d->ro && d->overlay)
        err = vmm_err(&c->log, -EINVAL,
                      "--%s: ro and overlay exclude each other: with overlay the guest can write, "
                      "but not to the file",
                      name);
    return err;
}

static int set_disk(struct config *c, const char *name, const char *value)
{
    struct disk_config d = {0};
    int err = parse_disk(c, name, value, &d);

    if (!err)
        c->disk[c->ndisks++] = d;
    return err;
}

/* The disk that is booted from comes first, wherever the option stands. */
static int set_guest(struct config *c, const char *name, const char *value)
{
    struct disk_config d = {0};
    int err = parse_disk(c, name, value, &d);

    if (!err && c->guest)
        err = vmm_err(&c->log, -EINVAL, "--guest is given twice: the second disk is a --disk");
    if (err)
        return err;
    memmove(&c->disk[1], &c->disk[0], c->ndisks * sizeof d);
    c->disk[0] = d;
    c->ndisks++;
    c->guest = true;
    return 0;
}

/* Six pairs of hex digits with colons; no multicast address. */
static int parse_mac(struct config *c, const char *name, const char *text, uint8_t mac[6])
{
    const char *s = text;

    for (unsigned i = 0; i < 6; i++, s += 3) {
        bool pair = isxdigit((unsigned char)s[0]) && isxdigit((unsigned char)s[1]);
        if (!pair || s[2] != (i < 5 ? ':' : 0))
            return vmm_err(&c->log, -EINVAL,
                           "--%s: '%s' is no MAC address: give one like 52:54:00:12:34:56", name,
                           text);
        mac[i] = (uint8_t)strtoul(s, NULL, 16);
    }
    if (mac[0] & 1)
        return vmm_err(&c->log, -EINVAL,
                       "--%s: %s is a multicast address: give one with an even first byte", name,
                       text);
    return 0;
}

/* Where the cable goes. */
static int set_net_kind(struct config *c, const char *name, const struct kv *kv,
                        struct net_config *n)
{
    uint64_t fd = 0;
    int err = 0;

    if (!kv->key && strcmp(kv->val, "passt") == 0) {
        n->kind = NET_PASST;
    } else if (!kv->key && strcmp(kv->val, "none") == 0) {
        n->kind = NET_NONE;
    } else if (!kv->key) {
        return bad_segment(c, name, kv);
    } else if (strcmp(kv->key, "tapfd") == 0) {
        n->kind = NET_TAPFD;
        err = parse_number(c, "net tapfd", kv->val, 3, 1 << 20, &fd);
        n->fd = (unsigned)fd;
    } else {
        n->kind = strcmp(kv->key, "tap") == 0 ? NET_TAP : NET_PASST;
        n->datagrams = strcmp(kv->key, "unixgram") == 0;
        n->where = kv->val;
    }
    if (!err && n->where && !*n->where)
        err = vmm_err(&c->log, -EINVAL, "--%s: %s= has no name: give one", name, kv->key);
    return err;
}

static int set_net_key(struct config *c, const char *name, const struct kv *kv,
                       struct net_config *n)
{
    static const char *const modes[] = {"auto", "on", "off"};
    uint64_t number;
    int err = 0;

    if (strcmp(kv->key, "mac") == 0) {
        n->have_mac = true;
        return parse_mac(c, name, kv->val, n->mac);
    }
    if (strcmp(kv->key, "queues") == 0) {
        err = parse_number(c, "net queues", kv->val, 1, VIO_NET_PAIRS_MAX, &number);
        n->queues = (unsigned)number;
        return err;
    }
    if (strcmp(kv->key, "mtu") == 0) {
        err = parse_number(c, "net mtu", kv->val, 68, 65535, &number);
        n->mtu = (unsigned)number;
        return err;
    }
    for (unsigned i = 0; i < 3; i++)
        if (strcmp(kv->val, modes[i]) == 0) {
            n->vhost = i;
            return 0;
        }
    return vmm_err(&c->log, -EINVAL, "--%s: vhost=%s is unknown: give on, off or auto", name,
                   kv->val);
}

static int set_net(struct config *c, const char *name, const char *value)
{
    static const char *const keys[] = {"tap",    "tapfd", "passt", "unixgram", "mac",
                                       "queues", "mtu",   "vhost", NULL};
    struct kv kv = {.rest = value, .keys = keys};
    struct net_config n = {.kind = NET_NONE};
    bool plugged = false;
    int err = 0;

    while (!err && kv_next(c, &kv))
        if (kv.key && strncmp(kv.key, "tap", 3) != 0 && strcmp(kv.key, "passt") != 0 &&
            strcmp(kv.key, "unixgram") != 0) {
            err = set_net_key(c, name, &kv, &n);
        } else {
            err = plugged ? bad_segment(c, name, &kv) : set_net_kind(c, name, &kv, &n);
            plugged = true;
        }
    if (!err && !plugged)
        err = vmm_err(&c->log, -EINVAL, "--%s: nowhere to go: give tap=IF, passt or unixgram=SOCKET",
                      name);
    if (!err && n.kind != NET_TAP && n.queues > 1)
        err = vmm_err(&c->log, -EINVAL, "--%s: only tap=IF can have more than one queue", name);
    if (!err && n.kind == NET_PASST && n.vhost == VHOST_ON)
        err =
            vmm_err(&c->log, -EINVAL, "--%s: vhost=on works with a tap alone: leave it out", name);
    if (err || n.kind == NET_NONE)
        return err;
    if (c->nnets == NETS_MAX)
        return vmm_err(&c->log, -EINVAL, "--%s: more than %d cards: give fewer", name, NETS_MAX);
    c->net[c->nnets++] = n;
    return 0;
}

/* --entry and --load; that they were given matters, for 0 is an address too. */
static int set_addr(struct config *c, const char *name, const char *value)
{
    bool load = strcmp(name, "load") == 0;

    *(load ? &c->have_load : &c->have_entry) = true;
    return parse_number(c, name, value, 0, MEM_MAX, load ? &c->load : &c->entry);
}

static int parse_mode(struct config *c, const char *name, const char *value, unsigned *out)
{
    uint64_t mode;
    int err = parse_number(c, name, value, 16, 64, &mode);

    if (!err && mode != 16 && mode != 32 && mode != 64)
        err = vmm_err(&c->log, -EINVAL, "--%s: %s is unknown: give 64, 32 or 16", name, value);
    *out = (unsigned)mode;
    return err;
}

static int set_mode(struct config *c, const char *name, const char *value)
{
    return parse_mode(c, name, value, &c->mode);
}

/* Where host.h can find the other end of a stream of bytes. */
static int check_where(struct config *c, const char *name, const char *value)
{
    static const char *const plain[] = {"stdio", "null", "pty"};
    bool known = strncmp(value, "file:", 5) == 0 || strncmp(value, "unix:", 5) == 0 ||
                 strncmp(value, "tcp:", 4) == 0;

    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        known |= strcmp(value, plain[i]) == 0;
    if (!known || (strchr(value, ':') && !strchr(value, ':')[1]))
        return vmm_err(&c->log, -EINVAL,
                       "--%s: '%s' is unknown: give stdio, null, file:PATH, unix:PATH, tcp:PORT or "
                       "pty",
                       name, value);
    return 0;
}

/* A port number alone is one of TCP. */
static int set_gdb(struct config *c, const char *name, const char *value)
{
#if defined(__x86_64__)
    static const char *const keys[] = {"mode", NULL};
#else
    static const char *const keys[] = {NULL};
#endif
    struct kv kv = {.rest = value, .keys = keys};
    uint64_t n = 0;
    int err = 0;

    while (!err && kv_next(c, &kv)) {
        if (kv.key) {
            err = parse_mode(c, "gdb mode", kv.val, &c->gdb_mode);
        } else if (kv.index > 1 && strcmp(kv.val, "nowait") == 0) {
            c->gdb_nowait = true;
        } else if (kv.index > 1) {
            err = bad_segment(c, name, &kv);
        } else if (strncmp(kv.val, "unix:", 5) == 0 && kv.val[5]) {
            c->gdb = kv.val;
        } else if (!(err = parse_number(c, name, kv.val, 1, 65535, &n))) {
            char spec[16];
            int len = snprintf(spec, sizeof spec, "tcp:%u", (unsigned)n);
            c->gdb = config_keep(c, spec, (size_t)len);
        }
    }
    return err;
}

/* A path alone is a socket's. */
static int set_serial(struct config *c, const char *name, const char *value)
{
    char *where = c->text + c->text_used;

    if (c->nserials == UARTS_MAX)
        return vmm_err(&c->log, -EINVAL, "--%s: more than %d serial ports: give fewer", name,
                       UARTS_MAX);
    if (*value == '/' || *value == '.') {
        config_keep(c, "unix:", 5);
        c->text_used--; /* the path goes on where its NUL is */
    }
    config_keep(c, value, strlen(value));
    c->serial[c->nserials++] = where;
    return check_where(c, name, where);
}

/* It becomes a file's name in the guest. */
static bool is_port_name(const char *s)
{
    size_t len = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

    return len > 0 && len <= VIO_CONSOLE_NAME_MAX && !s[len] && *s != '.' && *s != '-';
}

static int set_port(struct config *c, const char *name, const char *value)
{
    const char *equals = strchr(value, '=');
    char *port;

    if (!equals)
        return vmm_err(&c->log, -EINVAL, "--%s: '%s' does not say where it leads: give NAME=WHERE",
                       name, value);
    if (c->nports == PORTS_MAX)
        return vmm_err(&c->log, -EINVAL, "--%s: more than %d ports: give fewer", name, PORTS_MAX);
    port = config_keep(c, value, (size_t)(equals - value));
    if (!is_port_name(port))
        return vmm_err(&c->log, -EINVAL,
                       "--%s: '%s' is no name for a port: give up to %d letters, digits, '.', '_' "
                       "or '-', a letter or digit first",
                       name, port, VIO_CONSOLE_NAME_MAX);
    for (unsigned i = 0; i < c->nports; i++)
        if (strcmp(c->port[i].name, port) == 0)
            return vmm_err(&c->log, -EINVAL, "--%s: two ports are named '%s': rename one", name,
                           port);
    c->port[c->nports].name = port;
    c->port[c->nports++].where = config_keep(c, equals + 1, strlen(equals + 1));
    return check_where(c, name, equals + 1);
}

static int set_rng(struct config *c, const char *name, const char *value)
{
    static const char *const keys[] = {"rate", NULL};
    struct kv kv = {.rest = value, .keys = keys};
    int err = 0;

    while (!err && kv_next(c, &kv))
        err = kv.key ? parse_number(c, "rng rate", kv.val, 1, 1ull << 32, &c->rng_rate)
                     : bad_segment(c, name, &kv);
    return err;
}

/* Without a value the option is the debug console of teaching systems. */
static int set_console(struct config *c, const char *name, const char *value)
{
    static const char *const kinds[] = {"serial", "virtio", "none"};

    if (!value) {
        c->debugcon = true;
        return 0;
    }
    for (unsigned i = 0; i < 3; i++)
        if (strcmp(value, kinds[i]) == 0) {
            c->console = (enum console)i;
            return 0;
        }
    return vmm_err(&c->log, -EINVAL, "--%s: '%s' is unknown: give serial, virtio or none", name,
                   value);
}

/* io,irq,exit[:FILE] in any order. */
static int set_trace(struct config *c, const char *name, const char *value)
{
    static const char *const kinds[] = {"io", "irq", "exit"};
    const char *s = value;

    for (;;) {
        size_t len = strcspn(s, ",:");
        unsigned i = 0;
        while (i < 3 && (strlen(kinds[i]) != len || strncmp(s, kinds[i], len) != 0))
            i++;
        if (i == 3)
            return vmm_err(&c->log, -EINVAL, "--%s: '%s' is unknown: give io,irq,exit[:FILE]", name,
                           value);
        c->trace |= 1u << i;
        s += len;
        if (*s++ != ',')
            break;
    }
    if (s[-1] == ':')
        c->trace_path = config_keep(c, s, strlen(s));
    return 0;
}

static int set_irqchip(struct config *c, const char *name, const char *value)
{
    static const char *const kinds[] = {"kernel", "split", "user"};

    for (unsigned i = 0; i < 3; i++)
        if (strcmp(value, kinds[i]) == 0) {
            c->irqchip = (enum irqchip)i;
            return 0;
        }
    return vmm_err(&c->log, -EINVAL, "--%s: '%s' is unknown: give kernel, split or user", name,
                   value);
}

static int set_transport(struct config *c, const char *name, const char *value)
{
    bool mmio = strcmp(value, "mmio") == 0;

    c->transport = mmio ? TRANSPORT_MMIO : TRANSPORT_PCI;
    return mmio || strcmp(value, "pci") == 0
               ? 0
               : vmm_err(&c->log, -EINVAL, "--%s: '%s' is unknown: give pci or mmio", name, value);
}

static int set_uart(struct config *c, const char *name, const char *value)
{
    bool pl011 = strcmp(value, "pl011") == 0;

    c->uart = pl011 ? UART_PL011 : UART_16550;
    return pl011 || strcmp(value, "16550") == 0
               ? 0
               : vmm_err(&c->log, -EINVAL, "--%s: '%s' is unknown: give 16550 or pl011", name,
                         value);
}

/* Names, or the digits that other monitors use. */
static int set_log(struct config *c, const char *name, const char *value)
{
    static const char *const levels[] = {"none", "error", "warn", "info", "debug"};

    for (unsigned i = 0; i < 5; i++)
        if (strcmp(value, levels[i]) == 0 || (value[0] == (char)('0' + i) && !value[1])) {
            c->level = (enum vmm_level)i;
            return 0;
        }
    return vmm_err(&c->log, -EINVAL, "--%s: '%s' is unknown: give error, warn, info or debug", name,
                   value);
}

static int set_timeout(struct config *c, const char *name, const char *value)
{
    uint64_t seconds;
    int err = parse_number(c, name, value, 1, 31536000, &seconds);

    c->timeout = (unsigned)seconds;
    return err;
}

static int set_flag(struct config *c, const char *name, const char *value)
{
    (void)value;
    if (strcmp(name, "time") == 0)
        c->time = true;
    else if (strcmp(name, "no-acpi") == 0)
        c->no_acpi = true;
    else if (strcmp(name, "json") == 0)
        c->json = true;
    else
        c->command = strcmp(name, "help") == 0 ? CMD_HELP : CMD_VERSION;
    return 0;
}

/* Alone, for the doctor: list what could be passed. */
static int set_vfio(struct config *c, const char *name, const char *value)
{
    static const char *const keys[] = {"rom", NULL};
    struct kv kv = {.rest = value, .keys = keys};
    struct vfio_config *v = &c->vfio[c->nvfio];
    int err = 0;

    if (!value) {
        c->list_vfio = true;
        return 0;
    }
    if (c->nvfio == VFIO_MAX)
        return vmm_err(&c->log, -EINVAL, "more than %d --vfio: give fewer", VFIO_MAX);
    while (!err && kv_next(c, &kv)) {
        if (kv.key)
            v->rom = kv.val;
        else if (kv.index == 1)
            v->address = kv.val;
        else
            err = bad_segment(c, name, &kv);
    }
    for (unsigned i = 0; i < c->nvfio && !err && v->address; i++)
        if (strcmp(c->vfio[i].address, v->address) == 0)
            return vmm_err(&c->log, -EINVAL, "--vfio %s is given twice: give it once", v->address);
    if (!err && !v->address)
        return vmm_err(&c->log, -EINVAL, "--vfio names no device: give its address first");
    c->nvfio += !err;
    return err;
}

/* Options for what machines of this architecture do not have. */
#if defined(__x86_64__)
static const char *const foreign_options[] = {"cpu", "dtb", "dump-dtb", "uart"};
#define FOREIGN "arm64"
#define KERNEL  "FILE[,entry=64|pvh|multiboot]"
#define KERNELS "bzImage, ELF vmlinux (64-bit or PVH entry), or a multiboot kernel"
#else
static const char *const foreign_options[] = {"bios", "guest", "mode", "module", "no-acpi"};
#define FOREIGN "x86"
#define KERNEL  "FILE"
#define KERNELS "Image, as it is or packed (gzip, zstd, EFI zboot), or ELF"
#endif

/* To add an option: a field in struct config, a setter above, a row here. --help, the messages, the
   suggestions and the fuzz target follow by themselves; vmm.1 and tests/test_options.c do not. */
static const struct option_def option_table[] = {
    {"kernel", 'k', ARG_ONE, KERNEL, KERNELS, set_kernel},
    {"initrd", 'i', ARG_ONE, "FILE", "initial RAM disk", set_text},
    {"module", 0, ARG_ONE, "FILE[,cmdline=TEXT]", "a file for a multiboot kernel; repeatable",
     set_module},
    {"cmdline", 0, ARG_ONE, "TEXT", "kernel command line, in place of the default", set_cmdline},
    {"append", 0, ARG_ONE, "TEXT", "add to the kernel command line; repeatable", set_append},
    {"mem|memory", 'm', ARG_ONE, "SIZE", "guest RAM: 512 (MiB), 512M, 2G; default 512M", set_mem},
    {"cpus|vcpus|vcpu", 'c', ARG_ONE, "N", "virtual CPUs; default 1", set_cpus},
    {"disk|block", 0, ARG_ONE, "FILE[,ro][,KEY=VALUE]...",
     "raw or qcow2 disk; repeatable; KEY: format, overlay, serial, queues, cache, bps, iops, bus",
     set_disk},
    {"net", 'n', ARG_ONE, "tap=IF|passt[=SOCKET]|...", "network card, see vmm(1); repeatable",
     set_net},
    {"bios", 0, ARG_ONE, "FILE", "firmware instead of a kernel: boots from a disk", set_text},
    {"guest", 0, ARG_ONE, "FILE[,KEY=VALUE]...",
     "a disk to boot from: boot sector or image, keys of --disk; without --bios by a mini BIOS",
     set_guest},
    {"vfio", 0, ARG_MAYBE, "ADDRESS[,rom=FILE]",
     "PCI device of the host, 0000:01:00.0; repeatable; doctor: list", set_vfio},
    {"binary", 0, ARG_ONE, "FILE", "flat code instead of a kernel", set_text},
    {"entry", 0, ARG_ONE, "ADDR", "where the flat code is entered", set_addr},
    {"load", 0, ARG_ONE, "ADDR", "where the flat code is put; default: at its entry", set_addr},
    {"mode", 0, ARG_ONE, "64|32|16", "CPU mode at entry of the flat code; default 64", set_mode},
    {"serial", 0, ARG_ONE, "WHERE",
     "COM1: stdio, null, file:, unix:PATH, tcp:PORT or pty; default stdio; again: COM2 to COM4",
     set_serial},
    {"console", 0, ARG_MAYBE, "[serial|virtio|none]", "the guest's console; alone: debug ports too",
     set_console},
    {"transport", 0, ARG_ONE, "pci|mmio", "how the guest finds virtio devices; default pci",
     set_transport},
    {"port", 0, ARG_ONE, "NAME=WHERE", "a channel to the guest, by name; WHERE as for --serial",
     set_port},
    {"rng", 0, ARG_ONE, "rate=N", "limit the guest's random numbers to N bytes a second", set_rng},
    {"cpu", 0, ARG_ONE, "host[,FEATURE=on|off]...",
     "features of the host's CPU for the guest: sve, pauth, pmu; default pmu=on", set_cpu},
    {"dtb", 0, ARG_ONE, "FILE", "a device tree in place of the machine's own", set_dtb},
    {"dump-dtb", 0, ARG_ONE, "FILE", "write the device tree to a file, and run nothing", set_dtb},
    {"uart", 0, ARG_ONE, "16550|pl011", "the chip of the serial port; default 16550", set_uart},
    {"irqchip", 0, ARG_ONE, "kernel|split|user",
     "interrupt controllers: KVM's, but for its LAPICs (x86) vmm's, or all vmm's", set_irqchip},
    {"no-acpi", 0, ARG_NONE, NULL, "describe the machine by an MP table alone", set_flag},
    {"symbols", 0, ARG_ONE, "FILE", "ELF file or System.map that names addresses in state dumps",
     set_text},
    {"trace", 0, ARG_ONE, "io,irq,exit[:FILE]", "a line for each access, interrupt, exit of the guest",
     set_trace},
    {"log", 0, ARG_ONE, "LEVEL", "error, warn, info or debug (or 0 to 4); default warn", set_log},
    {"time", 0, ARG_NONE, NULL, "print the stages of the start as JSON at the end", set_flag},
    {"gdb", 0, ARG_ONE, "PORT|unix:PATH",
     "wait for gdb there before the guest starts; ,nowait: start it", set_gdb},
    {"timeout", 0, ARG_ONE, "SECONDS", "end the VM after that long, status 124", set_timeout},
    {"json", 0, ARG_NONE, NULL, "doctor: print JSON", set_flag},
    {"version", 0, ARG_NONE, NULL, "print the version", set_flag},
    {"help", 'h', ARG_NONE, NULL, "print this", set_flag},
};
#define NOPTIONS (sizeof option_table / sizeof option_table[0])

static bool is_foreign(const char *name)
{
    for (size_t i = 0; i < sizeof foreign_options / sizeof foreign_options[0]; i++)
        if (strcmp(foreign_options[i], name) == 0)
            return true;
    return false;
}

/* The next of an option's names: copies it to name, returns where to go on, NULL after the last. */
static const char *next_name(const char *names, char name[32])
{
    size_t len;

    if (!names)
        return NULL;
    len = strcspn(names, "|");
    memcpy(name, names, len);
    name[len] = 0;
    return names + len + (names[len] == '|');
}

/* How many letters must change to make one word the other (Levenshtein), for suggestions. */
static unsigned word_distance(const char *a, const char *b)
{
    unsigned row[33], la = (unsigned)strlen(a), lb = (unsigned)strlen(b);

    if (la > 32 || lb > 32)
        return 99;
    for (unsigned j = 0; j <= lb; j++)
        row[j] = j;
    for (unsigned i = 1; i <= la; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= lb; j++) {
            unsigned change = diagonal + (a[i - 1] != b[j - 1]);
            unsigned shift = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = change < shift ? change : shift;
        }
    }
    return row[lb];
}

/* By any of its names; NULL: there is none. */
static const struct option_def *find_option(const char *word)
{
    char name[32];

    for (size_t i = 0; i < NOPTIONS; i++)
        for (const char *p = option_table[i].names; *p;)
            if (p = next_name(p, name), strcmp(name, word) == 0)
                return &option_table[i];
    return NULL;
}

/* Suggests the name that needs the fewest changes, if that is believable. */
static int unknown_option(struct config *c, const char *word)
{
    char name[32], best[32] = "help";
    unsigned least = 99;

    for (size_t i = 0; i < NOPTIONS; i++)
        for (const char *p = option_table[i].names; *p;) {
            unsigned d;
            p = next_name(p, name);
            d = word_distance(name, word);
            if (d < least) {
                least = d;
                strcpy(best, name);
            }
        }
    if (least > 3)
        return vmm_err(&c->log, -EINVAL, "unknown option '--%s': see vmm --help", word);
    return vmm_err(&c->log, -EINVAL, "unknown option '--%s': did you mean --%s?", word, best);
}

/* A value in the next argument: required, or, when optional, whatever does not look like an
   option. */
static const char *take_value(const struct option_def *o, char **argv, int *i)
{
    const char *next = argv[*i + 1];

    if (o->arg == ARG_NONE || !next || (o->arg == ARG_MAYBE && next[0] == '-'))
        return NULL;
    ++*i;
    return next;
}

#if defined(__linux__)
#define ON_LINUX true
#else
#define ON_LINUX false
#endif

/* Is --help to name it? Who gives one that only Linux has hears so from what would have served it. */
static bool is_offered(const char *name)
{
    return !is_foreign(name) && (ON_LINUX || strcmp(name, "vfio") != 0);
}

/* Checks that a value is there where one is due, and hands it to the option. */
static int apply_option(struct config *c, const struct option_def *o, const char *value)
{
    char name[32];

    next_name(o->names, name);
    if (is_foreign(name))
        return vmm_err(&c->log, -EINVAL, "--%s is for " FOREIGN " machines alone: leave it out",
                       name);
    if (o->arg == ARG_ONE && !value)
        return vmm_err(&c->log, -EINVAL, "--%s needs a value: --%s %s", name, name, o->value);
    if (o->arg == ARG_ONE && !*value && o->set != set_append && o->set != set_cmdline)
        return vmm_err(&c->log, -EINVAL, "--%s: the value is empty: give %s", name, o->value);
    return o->set(c, name, value);
}

/* --name, --name=value, --name value. */
static int parse_long(struct config *c, char **argv, int *i)
{
    char word[64];
    const char *arg = argv[*i] + 2, *equals = strchr(arg, '=');
    size_t len = equals ? (size_t)(equals - arg) : strlen(arg);
    const struct option_def *o;

    snprintf(word, sizeof word, "%.*s", (int)(len < 60 ? len : 60), arg);
    o = find_option(word);
    if (!o)
        return unknown_option(c, word);
    if (equals && o->arg == ARG_NONE)
        return vmm_err(&c->log, -EINVAL, "--%s takes no value: leave '%s' out", word, equals);
    return apply_option(c, o, equals ? equals + 1 : take_value(o, argv, i));
}

/* -m value or -mvalue. Flags are not bundled: there is but one. */
static int parse_short(struct config *c, char **argv, int *i)
{
    const char *arg = argv[*i] + 1;

    for (size_t n = 0; n < NOPTIONS; n++)
        if (*arg && option_table[n].letter == *arg) {
            const struct option_def *o = &option_table[n];
            if (o->arg == ARG_NONE && arg[1])
                break;
            return apply_option(c, o, arg[1] ? arg + 1 : take_value(o, argv, i));
        }
    return vmm_err(&c->log, -EINVAL, "unknown option '-%s': see vmm --help", arg);
}

/* A word that is no option can only be the command, and only in first place. */
static int parse_word(struct config *c, const char *word, bool first)
{
    if (first && strcmp(word, "run") == 0)
        c->command = CMD_RUN;
    else if (first && strcmp(word, "doctor") == 0)
        c->command = CMD_DOCTOR;
    else
        return vmm_err(&c->log, -EINVAL,
                       "'%s' is neither a command nor an option: did you mean --kernel %s?", word,
                       word);
    return 0;
}

/* There is a COM1 always. */
static unsigned nuarts(const struct config *c)
{
    return c->nserials ? c->nserials : 1;
}

static const char *serial_where(const struct config *c, unsigned i)
{
    return c->nserials ? c->serial[i] : c->console == CONSOLE_VIRTIO ? "null" : "stdio";
}

/* Who wants a stream, in the words of the command line, and where. */
struct claim {
    const char *option, *name, *where;
};

/* The terminal, a file or a socket has room for one. */
static int check_claims(struct config *c, const struct claim *claim, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        for (unsigned j = 0; j < i; j++) {
            const struct claim *a = &claim[j], *b = &claim[i];
            if (strcmp(a->where, b->where) == 0 &&
                (strchr(a->where, ':') || strcmp(a->where, "stdio") == 0))
                return vmm_err(&c->log, -EINVAL,
                               "%s%s and %s%s both take %s: give %s%s another place", a->option,
                               a->name, b->option, b->name, a->where, a->option, a->name);
        }
    return 0;
}

static int check_streams(struct config *c)
{
    struct claim claim[PORTS_MAX + UARTS_MAX + 2];
    unsigned n = 0;

    for (unsigned i = 0; i < nuarts(c); i++)
        claim[n++] = (struct claim){"--serial", "", serial_where(c, i)};
    if (c->gdb)
        claim[n++] = (struct claim){"--gdb", "", c->gdb};
    if (c->console == CONSOLE_VIRTIO)
        claim[n++] = (struct claim){"--console virtio", "", "stdio"};
    for (unsigned i = 0; i < c->nports; i++)
        claim[n++] = (struct claim){"--port ", c->port[i].name, c->port[i].where};
    return check_claims(c, claim, n);
}

static int check_disks(struct config *c)
{
    unsigned nide = 0;

    for (unsigned i = 0; i < c->ndisks; i++) {
        const struct disk_config *d = &c->disk[i];
        nide += d->ide;
        if (d->ide && (d->direct || d->queues || d->bps || d->iops))
            return vmm_err(&c->log, -EINVAL,
                           "--disk: bus=ide knows no cache=none, queues, bps and iops: leave them "
                           "out");
    }
    if (nide > 1)
        return vmm_err(&c->log, -EINVAL, "--disk: one disk alone can have bus=ide: give one");
    if (nide && c->transport == TRANSPORT_MMIO)
        return vmm_err(&c->log, -EINVAL, "--disk: bus=ide needs PCI: leave out --transport");
    return 0;
}

/* What each option cannot know alone: which of them go together. */
static int config_check(struct config *c)
{
    bool disk = c->bios || c->guest;

    if (!c->kernel && !c->binary && !disk)
        return vmm_err(&c->log, -EINVAL,
                       "nothing to run: give --kernel FILE, --guest FILE, --bios FILE or --binary "
                       "FILE (vmm --help)");
    if (!!c->kernel + !!c->binary + disk > 1)
        return vmm_err(&c->log, -EINVAL, "--kernel, --%s and --binary exclude each other: give one",
                       c->bios ? "bios" : "guest");
    if (disk && (c->initrd || c->cmdline || c->append))
        return vmm_err(&c->log, -EINVAL,
                       "--%s takes no initrd and no command line, for it boots what is on a "
                       "disk: leave them out",
                       c->bios ? "bios" : "guest");
    c->mini_bios = c->guest && !c->bios;
    if (c->guest && c->bios)
        c->disk[0].ide = true; /* as every firmware knows them */
    if (c->bios && c->transport == TRANSPORT_MMIO)
        return vmm_err(&c->log, -EINVAL,
                       "--bios needs PCI, by which firmware finds disks: leave out --transport");
    if (!c->kernel && c->nmodules)
        return vmm_err(&c->log, -EINVAL, "--module belongs to --kernel: leave it out");
    if (c->binary && !c->have_entry)
        return vmm_err(&c->log, -EINVAL,
                       "--binary needs an address to start at: give --entry ADDR");
    if (!c->binary && (c->have_entry || c->have_load))
        return vmm_err(&c->log, -EINVAL, "--entry and --load belong to --binary: leave them out");
    if (c->binary && (c->dtb || c->dump_dtb))
        return vmm_err(&c->log, -EINVAL,
                       "--binary gets no device tree: leave --dtb and --dump-dtb out");
    if (c->binary && (c->initrd || c->cmdline || c->append))
        return vmm_err(&c->log, -EINVAL,
                       "--binary takes no initrd and no command line: leave them out");
    if (c->list_vfio)
        return vmm_err(&c->log, -EINVAL,
                       "--vfio needs a value: --vfio ADDRESS ('vmm doctor --vfio' lists them)");
    if (c->nvfio && c->transport == TRANSPORT_MMIO)
        return vmm_err(&c->log, -EINVAL, "--vfio needs a PCI bus: leave --transport mmio out");
    if (!c->have_load)
        c->load = c->entry;
    return check_disks(c) ? -EINVAL : check_streams(c);
}

/* The whole command line. argv ends with NULL. Free with config_free, also after an error. */
static int config_parse(struct config *c, int argc, char **argv)
{
    size_t len = 1;
    int err = 0;

    for (int i = 1; i < argc; i++)
        len += 2 * (strlen(argv[i]) + 1); /* a text is kept at most as segments and once whole */
    c->text = malloc(len);
    if (!c->text)
        return vmm_err(&c->log, -ENOMEM, "out of memory");
    for (int i = 1; i < argc && !err; i++)
        if (argv[i][0] == '-' && argv[i][1] == '-' && argv[i][2])
            err = parse_long(c, argv, &i);
        else if (argv[i][0] == '-' && argv[i][1])
            err = parse_short(c, argv, &i);
        else
            err = parse_word(c, argv[i], i == 1);
    if (!err && c->command == CMD_RUN)
        err = config_check(c);
    return err;
}

static void config_init(struct config *c)
{
    memset(c, 0, sizeof *c);
    c->log.sink = log_line;
    c->log.level = c->level = VMM_LOG_WARN;
    c->mem = 512ull << 20;
    c->ncpus = 1;
    c->mode = 64;
    c->features_want = HYP_FEATURE_PMU;
}

static void config_free(struct config *c)
{
    free(c->text);
    free(c->append);
}

/* >>vm -------------------------------------------------------------------------------------- */

/* The guest-physical map and the lines, in one place for each architecture; the tables that the
   guest reads are made from the same constants. First the PC:

     0          .. 3 GiB        RAM (at most; the rest goes on at 4 GiB)
     3 GiB      .. 4 GiB        devices: a window for PCI from MMIO32_BASE; virtio-mmio from
                                VIRTIO_BASE, one page each; PCI's ECAM; the IOAPIC at 0xfec00000,
                                LAPICs at 0xfee00000, KVM's own from 0xfffbc000
     4 GiB      ..              the rest of RAM, and above it a large window for PCI

   A machine with firmware (--bios) has its image at the end of the 32-bit addresses, and ECAM at
   0xfed00000: firmware puts BARs anywhere from the end of RAM to the IOAPIC.

   Lines 0, 2 and 13 are the PC's own, 1 and 12 the i8042's, 3 and 4 the serial ports', 8 is the
   clock's, 9 ACPI's. */
#if defined(__x86_64__)
#define HOLE_START 0xc0000000ull /* RAM below, devices up to 4 GiB, the rest of RAM above */
#define HOLE_END   0x100000000ull

#define COM1_PORT   0x3f8
#define RTC_PORT    0x70
#define RTC_GSI     8
#define SCI_GSI     9
#define PM_PORT     0x600
#define PANIC_PORT  0x505
#define RESET_PORT  0xcf9
#define RESET_VALUE 6
#define MMIO32_BASE HOLE_START
#define MMIO32_LEN  (VIRTIO_BASE - MMIO32_BASE)
#define VIRTIO_BASE 0xd0000000ull
#define ECAM_BASE   0xe0000000ull
#define ECAM_BIOS   0xfed00000ull /* with firmware */
#define IOAPIC_BASE 0xfec00000ull
#define DEBUG_MMIO  0x09000000ull
#define PC          "rip"   /* what people call the instruction pointer */

/* Interrupt lines: for virtio-mmio devices, those first that a kernel without ACPI can use too; for
   INTA# to INTD# on a machine with PCI, which then has no virtio-mmio, and of the 8259s for these. */
static const uint8_t virtio_gsi[] = {5, 6, 7, 10, 11, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23};
static const uint8_t pci_gsi[] = {16, 17, 18, 19};
static const uint8_t pci_pic[] = {10, 11, 5, 7};
static const uint8_t uart_gsi[UARTS_MAX] = {4, 3, 4, 3};

#else
/* The arm64 machine is laid out like QEMU's "virt", but for the redistributors, which have room here
   for as many CPUs as a GICv3 serves:

     0x04000000 .. 1 GiB        devices: the interrupt controller (GICv3 or GICv2, see struct
                                vmm_gic); serial port, clock, GPIO; virtio-mmio from VIRTIO_BASE, one
                                page each; a window for PCI from MMIO32_BASE; PCI's ECAM
     1 GiB      ..              RAM, and above it a large window for PCI

   Line n is SPI n of the interrupt controller. */
#define GIC_REDIST  0x04000000ull
#define GIC_DIST    0x08000000ull
#define GIC_CPU     0x08010000ull
#define GIC_V2M     0x08020000ull
#define V2M_GSI     HYP_GSIS /* the first line of the frame for messages; behind those of devices */
#define V2M_LINES   256
#define GIC_ITS     0x08080000ull
#define UART_BASE   0x09000000ull
#define UART_GSI    1
#define RTC_BASE    0x09010000ull
#define RTC_GSI     2
#define GPIO_BASE   0x09030000ull
#define GPIO_GSI    7
#define POWER_LINE  3 /* of the GPIO chip: the power button */
#define VIRTIO_BASE 0x0a000000ull
#define MMIO32_BASE 0x10000000ull
#define MMIO32_LEN  (ECAM_BASE - MMIO32_BASE)
#define ECAM_BASE   0x3f000000ull
#define RAM_BASE    0x40000000ull
#define PC          "pc"

static const uint8_t virtio_gsi[] = {16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
                                     27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37};
static const uint8_t pci_gsi[] = {3, 4, 5, 6};
#endif

#define MMIO64_LEN     (64ull << 30) /* bytes of the large window for PCI, and its alignment */
#define MMIO_SLOTS_MAX (sizeof virtio_gsi)
#define SLOTS_MAX      (PCI_SLOTS - 1)
#define DEVICES_MAX    (UARTS_MAX + 4 + SLOTS_MAX) /* that the guest cannot find by itself */

struct vm;

/* A virtio device with its lock, and who serves it. */
struct slot {
    struct vm *vm;
    struct vio_dev *dev;
    union {
        struct vio_mmio mmio;
        struct vio_pci pci;
    };
    uint64_t bar;            /* PCI: where the doorbells are, or PCI_NOWHERE */
    struct message *message; /* PCI: one a vector */
    struct host_mutex lock;
    struct host_loop *loop; /* its queues are served there: the VM's or its own */
    struct host_loop own;
    struct host_thread thread; /* of its own loop */
    bool running;              /* the thread does */
    struct bell *bell;         /* one a queue */
    struct host_event rung;    /* some bell was rung by hand */
    struct net *net;           /* NULL: the device is no network card */
    struct vmm_budget budget;
};

/* The timer of a device, which wants to be called with its lock held. */
struct wake {
    struct vm *vm;
    struct host_timer timer;
    struct vmm_lock lock;
    void (*tick)(struct vm *vm);
};

/* The doorbell of a queue. */
struct bell {
    struct slot *slot;
    unsigned queue;
    struct host_watch watch; /* fd -1: kicks come as plain writes */
    bool rung;               /* by hand, for no doorbell caught the write; atomic */
};

/* An interrupt by message with a line of its own, which a kernel can ring as well. */
struct message {
    uint64_t addr;
    uint32_t data;
    bool routed; /* the two above are what the line means */
    unsigned gsi;
    int bell; /* -1: it has no line yet */
};

/* A device of the host, and its interrupts. */
struct passed {
    struct vm *vm;
    struct vfiodev dev;
    struct host_mutex lock;
    struct pci_vector *vectors;
    int *bell;
    struct passed_vector {
        uint64_t addr;
        uint32_t data;
        bool routed, heard; /* the two above are what the line means; the hypervisor listens */
        int gsi;            /* -1: it has no line yet */
    } *vector;
    struct host_watch wanted; /* by the host */
    struct vmm_budget budget;
};

struct disk {
    struct vm *vm;
    struct slot *slot; /* NULL: it is no virtio device */
    const char *path;
    struct vio_blk blk;
    struct host_disk file;
    struct disk_image *image; /* what is in the file; NULL: the file is the disk */
    struct host_mutex image_lock; /* the disk's thread, and a CPU in INT 13h */
    struct disk_op {
        struct host_disk_op op;
        struct disk *disk;
    } op[VIO_BLK_INFLIGHT]; /* of the request of the same number in blk */
    struct vmm_budget budget;
    struct vmm_bucket bps, iops;
    struct host_timer paid; /* when the next request may come */
    bool waits;             /* for that */
    struct host_disk_growth growth;
};

/* A network card, the cable, and the rings that vhost serves. */
struct net {
    struct slot *slot;
    const struct net_config *cfg;
    unsigned npairs;
    struct vio_net card;
    struct host_tap tap;
    struct host_passt passt;
    bool gone; /* the other end of the cable */
    struct net_pair {
        struct net *net;
        struct host_watch watch; /* of the tap's queue */
        struct host_vhost vhost;
    } pair[VIO_NET_PAIRS_MAX];
    bool vhost; /* the kernel is asked to serve the rings */
    struct host_event rings;
    struct net_ring {
        struct net *net;
        bool wanted, runs; /* by the driver; in the kernel */
        struct host_watch call;
    } ring[2 * VIO_NET_PAIRS_MAX];
};

/* One end is a device, the other a stream of the host's. */
struct line {
    struct vm *vm;
    struct host_stream stream;
    struct vmm_lock lock; /* the device's */
    size_t (*rx)(struct line *l, const void *buf, size_t len);
    void (*tx_ready)(struct line *l);
    struct vio_console *console; /* NULL: the device is a serial port */
    unsigned port;               /* of console; else of the serial ports */
};

struct uart {
    struct pc_uart chip;
    struct host_mutex lock;
    struct line line;
};

/* A vCPU and the thread that creates, runs and closes it: some hypervisors insist on one thread. */
struct cpu {
    struct vm *vm;
    struct hyp_cpu hyp;
    struct host_thread thread;
    unsigned id;
    char name[16]; /* of the thread */
    bool open;     /* under vm->cpus_lock: may be kicked */
    bool look;     /* atomic: shall describe itself when it is next out of the guest */

    /* for a debugger */
    struct dbg_cpu state; /* the loop's while parked is true, else the thread's */
    bool changed;         /* by gdb */
    bool stepping;        /* one instruction, and no interrupt before it */
    bool parked, step;    /* stands still; what it shall do then; under cpus_lock, as is: */
    unsigned why;         /* it parked; 0: it was asked to, or gdb knows */
    struct dbg_arm64_step quiet; /* arm64: while stepping, what keeps interrupts away */

    /* with interrupt controllers of ours */
    bool inside;  /* runs, or is about to, and a kick gets it out; atomic, set under cpus_lock */
    bool halted;  /* by HLT */
    bool deaf;    /* with the interrupt flag off */
    unsigned cr8; /* when it last entered the guest */
    uint32_t ppis; /* arm64: of its own, as the interrupt controller was last told */
    struct host_cond wake; /* what halts or waits for its start has something to do */
};

/* gdb, and what all CPUs do for it. */
struct debugger {
    struct host_stream stream;
    struct dbg_gdb gdb; /* the loop's */
    struct host_event stood;
    bool attached;   /* gdb is there; atomic */
    bool stop;       /* all CPUs shall park; set under cpus_lock, atomic */
    unsigned nparked; /* under cpus_lock, as the rest */
    unsigned first;  /* CPU that had a reason to stop */
    struct vmm_debug want;
};

/* When each stage of the start was reached, host_now() or 0. */
enum stage {
    STAGE_START,
    STAGE_OPENED,
    STAGE_MEMORY,
    STAGE_LOADED,
    STAGE_ENTRY,
    STAGE_CONSOLE,
    STAGE_EXIT,
    NSTAGES
};

/* Everything about one VM. Who may touch what, once the guest runs:

     buses, memory, configuration   everybody reads, nobody writes
     a chip, a device               whoever holds its lock: uart.lock, chips_lock, slot.lock,
                                    passed.lock
     the PCI bus                    under pci_lock
     disk but blk                   the thread of its slot's loop
     loop, lines                    the I/O thread
     irqchip, cpu[i].open           under cpus_lock
     gic                            under gic_lock
     the mini BIOS                  under bios_lock
     symbols                        under look_lock
     status, bell.rung, stage       anybody, atomically

   Locks are taken in the order PCI bus, mini BIOS, COM1, device, serial ports' lines, CPUs or GIC,
   then stream, interrupt line or messages, which are leaves. */
struct vm {
    struct config *cfg;
    const struct vmm_log *log;
    struct hyp hyp;
    struct vmm_mem mem;
    struct vmm_bus ports, mmio;
    struct vmm_regs entry; /* of CPU 0 */
    struct host_loop loop;

    FILE *trace;                /* NULL: nothing is traced */
    struct dbg_symbols symbols; /* of the file, or found in the guest */
    struct host_file symbols_file;
    struct host_mutex look_lock; /* one CPU at a time describes itself */

    struct uart uart[UARTS_MAX];
    struct host_mutex chips_lock;
#if defined(__x86_64__)
    struct pc_kbc kbc;
    struct pc_rtc rtc;
    struct pc_power power;
    struct pc_pm pm;
    struct wake rtc_wake, pm_wake;
    struct pc_debugexit debugexit;
    struct pc_pvpanic pvpanic;
    struct pc_debugcon debugcon;
    struct pc_fwlog fwlog;
    struct pc_fwcfg fwcfg;
    struct firmware {
        struct boot_firmware_files files;
        struct pc_fwcfg_item item[12];
        uint64_t mmio64;
        uint16_t ncpus;
    } *firmware;        /* what fwcfg tells; with --bios */
    struct pci_isa isa; /* with --bios */
    struct pc_bios bios; /* without, for --guest */
    struct host_mutex bios_lock;
    struct host_mutex uarts_lock;
    unsigned uarts_asking; /* for an interrupt: a bit each; with more than two */
    struct pc_ata ata;  /* for a disk with bus=ide */
    struct pci_dev ide;
    struct host_mutex ata_lock;

    struct pc_irqchip irqchip; /* unless the hypervisor has all of it */
    struct pc_lapic *lapic;    /* unless the hypervisor has them */
    struct wake irq_wake;
#else
    struct pc_pl011 pl011; /* with --uart pl011, in place of the first of uart */
    struct pc_pl031 rtc;
    struct pc_pl061 gpio;
    struct pc_gic gic; /* unless the hypervisor has one */
    struct host_mutex gic_lock;
    struct wake rtc_wake;
    struct host_timer release; /* of the power button */
#endif

    struct pci_root pci; /* with --transport pci; else all zero */
    struct host_mutex pci_lock;

    struct slot slot[SLOTS_MAX];
    unsigned nslots;
    struct host_mutex messages_lock;      /* guards the hypervisor's lines for messages */
    struct vio_console console, channels; /* the terminal; the bundle of --port */
    struct vio_rng rng;
    struct vmm_bucket rng_limit;
    struct host_timer rng_timer;
    struct slot *rng_slot;
    struct disk disk[DISKS_MAX];
    struct net net[NETS_MAX];
    struct vfiodev_host vfio;
    struct passed passed[VFIO_MAX];
    unsigned npassed;

    struct line terminal; /* of the virtio console, if there is one */
    struct line port[PORTS_MAX];
    struct host_timer deadline;
    struct host_signals signals, asked, resized;
    bool button_pressed;

    struct debugger debug;
    struct cpu *cpu;   /* of them all */
    unsigned nthreads; /* of CPUs 1 and up that were started */
    struct host_mutex cpus_lock;
    struct host_gate others_open; /* CPU 0 must not start others that do not exist yet */
    int status;                   /* enum status, or -1 while the VM lives; atomic */
    uint64_t stage[NSTAGES];
};

static void vm_stamp(struct vm *vm, enum stage stage)
{
    uint64_t never = 0;

    __atomic_compare_exchange_n(&vm->stage[stage], &never, host_now(), false, __ATOMIC_RELAXED,
                                __ATOMIC_RELAXED);
}

/* Ends the VM, from any thread; the first status counts. Returns true to the one who said it
   first. */
static bool vm_end(struct vm *vm, int status)
{
    int alive = -1;

    if (!__atomic_compare_exchange_n(&vm->status, &alive, status, false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST))
        return false;
    host_loop_stop(&vm->loop);
    return true;
}

static bool vm_over(const struct vm *vm)
{
    return __atomic_load_n(&vm->status, __ATOMIC_SEQ_CST) >= 0;
}

/* Is the CPU to do something else than to run the guest? */
static bool cpu_wanted(const struct cpu *c)
{
    return __atomic_load_n(&c->look, __ATOMIC_SEQ_CST) ||
           __atomic_load_n(&c->vm->debug.stop, __ATOMIC_SEQ_CST);
}

static void look_at_cpus(struct vm *vm); /* >>look */

/* >>trace: what the guest did, a line each; one test of a bit when it is off. What the hypervisor does
   for itself (chips and doorbells of its own, interrupts of vhost and VFIO) never comes here. ---- */

static bool traces(const struct vm *vm, enum trace what)
{
    return vm->cfg->trace & what;
}

VMM_PRINTF(2, 3)
static void trace(struct vm *vm, const char *fmt, ...)
{
    uint64_t us = (host_now() - vm->stage[STAGE_START]) / 1000;
    char line[160];
    va_list args;

    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    fprintf(vm->trace, "%llu.%06llu %s\n", (unsigned long long)us / 1000000,
            (unsigned long long)us % 1000000, line);
}

static int open_trace(struct vm *vm)
{
    const struct config *c = vm->cfg;

    if (!c->trace)
        return 0;
    vm->trace = c->trace_path ? fopen(c->trace_path, "we") : fdopen(dup(STDERR_FILENO), "w");
    if (!vm->trace)
        return vmm_err(vm->log, -errno, "--trace: '%s' cannot be written: %s",
                       c->trace_path ? c->trace_path : "standard error", strerror(errno));
    setvbuf(vm->trace, NULL, c->trace_path ? _IOFBF : _IOLBF, 1 << 16);
    return 0;
}

static void close_trace(struct vm *vm)
{
    if (vm->trace && fclose(vm->trace))
        vmm_say(vm->log, VMM_LOG_WARN, "the trace is incomplete: %s", strerror(errno));
    vm->trace = NULL;
}

/* A port or MMIO access that is done: direction, address, width, and what went over the bus. */
static void trace_io(struct vm *vm, unsigned cpu, const struct vmm_exit *e)
{
    char data[2 * 16 + 1] = "";
    size_t len = (size_t)e->size * e->count;

    for (size_t i = 0; i < len && i < 16; i++) /* one value as a number, many as bytes */
        snprintf(data + 2 * i, 3, "%02x", e->data[e->count == 1 ? len - 1 - i : i]);
    trace(vm, "cpu%u %s %s 0x%llx/%u %s%s", cpu, e->kind == VMM_EXIT_PIO ? "port" : "mmio",
          e->write ? "write" : "read", (unsigned long long)e->addr, e->size, data,
          len > 16 ? "..." : "");
}

static void trace_exit(struct vm *vm, unsigned cpu, const struct vmm_exit *e)
{
    static const char *const names[] = {
        [VMM_EXIT_AGAIN] = "again", [VMM_EXIT_PIO] = "port",   [VMM_EXIT_MMIO] = "mmio",
        [VMM_EXIT_HALT] = "halt",   [VMM_EXIT_MSR] = "msr",    [VMM_EXIT_EOI] = "eoi",
        [VMM_EXIT_OFF] = "off",     [VMM_EXIT_RESET] = "reset", [VMM_EXIT_SHUTDOWN] = "shutdown",
        [VMM_EXIT_DEBUG] = "debug", [VMM_EXIT_FAULT] = "fault"};

    if (e->kind == VMM_EXIT_MSR || e->kind == VMM_EXIT_EOI)
        trace(vm, "cpu%u exit %s 0x%llx", cpu, names[e->kind], (unsigned long long)e->addr);
    else
        trace(vm, "cpu%u exit %s", cpu, names[e->kind]);
}

/* >>architecture: what the sections >>x86 and >>arm64 bring, each for its machine ------------ */

/* A line, or a message, where the hypervisor has no interrupt controller that could take it. */
static struct vmm_irq machine_irq(struct vm *vm, unsigned gsi);
static void machine_msi(struct vm *vm, unsigned vector, uint64_t addr, uint32_t data);
/* What to ask of the hypervisor. */
static void machine_hyp_desc(const struct config *cfg, struct hyp_desc *desc);
/* In words, for the doctor: by what it virtualises, and its interrupt controllers. */
static const char *machine_hardware(void);
static const char *machine_chips(unsigned caps);
/* What of the machine's own the root of PCI needs, and what else is on the bus, before all others. */
static void machine_pci(struct vm *vm, struct pci_root_desc *desc);
static int machine_plug_pci(struct vm *vm);
static int machine_plug_ide(struct vm *vm, struct disk *d, const char *serial);
static int plug_memory(struct vm *vm);
static int plug_irqchip(struct vm *vm);
static int plug_chips(struct vm *vm);
/* The machine, for the tables that boot.h writes; it keeps dev, which is given. */
static void machine_describe(const struct vm *vm, struct boot_machine *m, struct boot_dev *dev);
/* Loaders, which leave in vm->entry how to enter what they loaded. */
static int machine_boot_linux(struct vm *vm, struct boot_desc *desc, struct boot_result *at);
static int machine_boot_flat(struct vm *vm, const struct boot_flat_desc *desc);
static int machine_boot_firmware(struct vm *vm, const struct boot_file *file);
static int machine_boot_disk(struct vm *vm); /* by the mini BIOS */
/* Somebody has come to the serial console. */
static void machine_watched(struct vm *vm);
/* CPU 0 gets the registers that the loader chose. */
static int machine_enter(struct cpu *c);
/* One stay in the guest, and what only this architecture has of exits. */
static int cpu_run(struct cpu *c, struct vmm_exit *e);
static void cpu_mmio(struct cpu *c, const struct vmm_exit *e);
static void machine_exit(struct cpu *c, const struct vmm_exit *e);
/* The power button: is there one, for a guest that listens? */
static bool machine_has_button(const struct config *c);
static void machine_press(struct vm *vm);
/* For a human: registers, the next instructions, and addresses that calls will return to, the
   innermost first. */
static uint64_t regs_pc(const struct vmm_regs *r);
static void log_regs(const struct vmm_log *log, const struct vmm_regs *r);
static void log_code(const struct vmm_log *log, const struct vmm_mem *mem,
                     const struct vmm_regs *r);
static size_t regs_stack(const struct vmm_mem *mem, const struct vmm_regs *r, uint64_t *addr,
                         size_t n);
/* Where a Linux is whose symbols come from a file, told by its exception vectors. */
static void regs_find_kernel(const struct vmm_mem *mem, const struct vmm_regs *r,
                             struct dbg_symbols *symbols);

/* >>io: what the devices are wired to ------------------------------------------------------- */

static void irq_set(void *ctx, unsigned line, bool level)
{
    hyp_irq_set(ctx, line, level);
}

static bool vm_can(const struct vm *vm, enum hyp_cap cap)
{
    return hyp_caps(&vm->hyp) & cap;
}

/* Lines are values: to move them to another interrupt controller, change this. */
static struct vmm_irq chip_irq(struct vm *vm, unsigned gsi)
{
    if (vm_can(vm, HYP_CAP_IRQCHIP))
        return (struct vmm_irq){.set = irq_set, .ctx = &vm->hyp, .line = gsi};
    return machine_irq(vm, gsi);
}

static void irq_traced(void *ctx, unsigned line, bool level)
{
    struct vmm_irq irq = chip_irq(ctx, line);

    trace(ctx, "irq %u %s", line, level ? "up" : "down");
    vmm_irq_set(&irq, level);
}

static struct vmm_irq vm_irq(struct vm *vm, unsigned gsi)
{
    if (traces(vm, TRACE_IRQ))
        return (struct vmm_irq){.set = irq_traced, .ctx = vm, .line = gsi};
    return chip_irq(vm, gsi);
}

/* One interrupt of an edge-triggered line that is no bell. */
static void irq_pulse(void *ctx, unsigned line, bool level)
{
    struct vmm_irq irq = vm_irq(ctx, line);

    if (!level)
        return;
    vmm_irq_set(&irq, true);
    vmm_irq_set(&irq, false);
}

/* The line of an edge-triggered interrupt is a bell that the hypervisor hears, where there is such a
   thing. ctx: the loop of the device, which may save a system call. */
static void irq_ring(void *ctx, unsigned line, bool level)
{
    if (level)
        host_bell_post(ctx, (int)line);
}

static int plug_edge(struct vm *vm, unsigned gsi, struct host_loop *loop, struct vmm_irq *irq)
{
    int bell, err;

    *irq = (struct vmm_irq){.set = irq_pulse, .ctx = vm, .line = gsi};
    if (traces(vm, TRACE_IRQ))
        return 0; /* the hypervisor hears bells, but does not tell */
    bell = host_bell_open();
    if (bell < 0)
        return vmm_err(vm->log, bell, "cannot open a descriptor for an interrupt: %s",
                       strerror(-bell));
    err = hyp_irq_bell(&vm->hyp, gsi, bell, true);
    if (err) {
        close(bell);
        return err == -ENOSYS ? 0 : err;
    }
    *irq = (struct vmm_irq){.set = irq_ring, .ctx = loop, .line = (unsigned)bell};
    return 0;
}

/* A line ties a device with a byte stream to its other end. Output: device to stream, with the
   device's lock held. Input and "there is room again": loop to device, which takes that lock. */
static size_t line_out(void *ctx, const void *buf, size_t len)
{
    struct line *l = ctx;

    if (l->console != &l->vm->channels)
        vm_stamp(l->vm, STAGE_CONSOLE);
    return host_stream_write(&l->stream, buf, len);
}

static void line_room(void *ctx)
{
    host_stream_poke(&((struct line *)ctx)->stream);
}

static size_t line_input(void *ctx, const void *buf, size_t len)
{
    struct line *l = ctx;
    size_t n;

    vmm_enter(&l->lock);
    n = l->rx(l, buf, len);
    vmm_leave(&l->lock);
    return n;
}

static void line_writable(void *ctx)
{
    struct line *l = ctx;

    vmm_enter(&l->lock);
    l->tx_ready(l);
    vmm_leave(&l->lock);
}

/* Somebody came to the other end, or left it. */
static void line_peer(void *ctx, bool there)
{
    struct line *l = ctx;

    if (!l->console) { /* a serial port's cable is always plugged in */
        if (there)
            machine_watched(l->vm);
        return;
    }
    vmm_enter(&l->lock);
    vio_console_open(l->console, l->port, there);
    vmm_leave(&l->lock);
}

static struct vmm_stream line_stream(struct line *l)
{
    return (struct vmm_stream){.write = line_out, .rx_room = line_room, .ctx = l};
}

static size_t uart_rx(struct line *l, const void *buf, size_t len)
{
    return pc_uart_rx(&l->vm->uart[l->port].chip, buf, len);
}

static void uart_tx_ready(struct line *l)
{
    pc_uart_tx_ready(&l->vm->uart[l->port].chip);
}

static void init_uart(struct vm *vm, unsigned i, const struct vmm_irq *irq)
{
    struct uart *u = &vm->uart[i];
    struct pc_uart_desc desc = {.irq = *irq, .out = line_stream(&u->line), .log = vm->log};

    host_mutex_init(&u->lock);
    u->line = (struct line){.vm = vm, .rx = uart_rx, .tx_ready = uart_tx_ready, .port = i};
    u->line.lock = host_mutex_lock(&u->lock);
    pc_uart_init(&u->chip, &desc);
}

static size_t console_rx(struct line *l, const void *buf, size_t len)
{
    return vio_console_rx(l->console, l->port, buf, len);
}

static void console_tx_ready(struct line *l)
{
    vio_console_tx_ready(l->console, l->port);
}

/* Ctrl-A and a key on the terminal. */
static void on_escape(void *ctx, char key)
{
    static const char help[] =
        "\r\nCtrl-A X  end the VM    Ctrl-A S  state of its CPUs    Ctrl-A H  this help"
        "    Ctrl-A Ctrl-A  send Ctrl-A\r\n";

    if (key == 'x' || key == 'X')
        vm_end(((struct line *)ctx)->vm, ST_POWEROFF);
    else if (key == 's' || key == 'S')
        look_at_cpus(((struct line *)ctx)->vm);
    else if ((key == 'h' || key == 'H' || key == '?') &&
             write(STDOUT_FILENO, help, sizeof help - 1) < 0)
        return;
}

/* Has the queue served soon. Any thread. */
static void bell_ring(struct bell *b)
{
    __atomic_store_n(&b->rung, true, __ATOMIC_SEQ_CST);
    host_event_raise(&b->slot->rung);
}

/* >>disks: their threads carry requests out, without the device's lock --------------------- */

_Static_assert(sizeof(struct vio_iov) == sizeof(struct host_iov) &&
                   offsetof(struct vio_iov, base) == offsetof(struct host_iov, base) &&
                   offsetof(struct vio_iov, len) == offsetof(struct host_iov, len),
               "the buffers of a request are handed on as they are");

static uint64_t disk_len(const struct disk *d)
{
    return d->image ? d->image->len : d->file.len;
}

/* What the guest gets as an I/O error has a reason that only the host knows. */
static void disk_failed(struct disk *d, const struct vio_blk_req *req, int err)
{
    static const char *const what[] = {"reading", "writing", "flushing", "discarding", "zeroing"};

    if (vmm_spend(&d->budget))
        vmm_say(d->slot->vm->log, VMM_LOG_WARN,
                "disk '%s': %s %llu bytes at %llu failed: %s; the guest gets an I/O error", d->path,
                what[req->op], (unsigned long long)req->len, (unsigned long long)req->off,
                strerror(-err));
}

static void disk_done(struct host_disk_op *op, int err)
{
    struct disk *d = ((struct disk_op *)op)->disk;
    struct vio_blk_req *req = op->ctx;
    struct vmm_lock lock = host_mutex_lock(&d->slot->lock);

    if (!err && req->durable && op->kind != HOST_DISK_READ && op->kind != HOST_DISK_FLUSH &&
        op->kind != HOST_DISK_CALL) {
        op->kind = HOST_DISK_FLUSH;
        host_disk_submit(d->slot->loop, op);
        return;
    }
    if (err)
        disk_failed(d, req, err);
    vmm_enter(&lock);
    vio_blk_done(&d->blk, req, err);
    vmm_leave(&lock);
}

/* A request for an image, one at a time. */
static int image_request(struct disk_image *image, const struct vio_blk_req *req)
{
    const struct disk_iov *iov = (const struct disk_iov *)(const void *)req->iov;
    int err;

    if (req->op == VIO_BLK_READ)
        return disk_read(image, iov, req->niov, req->off);
    if (req->op == VIO_BLK_FLUSH)
        return disk_flush(image);
    if (req->op == VIO_BLK_WRITE)
        err = disk_write(image, iov, req->niov, req->off);
    else if (req->op == VIO_BLK_DISCARD)
        err = disk_discard(image, req->off, req->len);
    else
        err = disk_zero(image, req->off, req->len, req->unmap);
    return !err && req->durable ? disk_flush(image) : err;
}

/* On the thread of the disk's loop. */
static int disk_call(struct host_disk_op *op)
{
    struct disk *d = ((struct disk_op *)op)->disk;
    struct vmm_lock lock = host_mutex_lock(&d->image_lock);
    int err;

    vmm_enter(&lock);
    err = image_request(d->image, op->ctx);
    vmm_leave(&lock);
    return err;
}

/* With the device's lock held, on the thread of its loop. */
static void disk_submit(void *ctx, struct vio_blk_req *req)
{
    static const enum host_disk_kind kinds[] = {HOST_DISK_READ, HOST_DISK_WRITE, HOST_DISK_FLUSH,
                                                HOST_DISK_DISCARD, HOST_DISK_ZERO};
    struct disk *d = ctx;
    struct disk_op *o = &d->op[req - d->blk.req];
    bool moves = req->op == VIO_BLK_READ || req->op == VIO_BLK_WRITE;
    uint64_t now = d->iops.rate || d->bps.rate ? host_now() : 0;

    vmm_bucket_take(&d->iops, now, 1);
    vmm_bucket_take(&d->bps, now, moves ? req->len : 0);
    o->disk = d;
    o->op = (struct host_disk_op){.kind = d->image ? HOST_DISK_CALL : kinds[req->op],
                                  .call = disk_call,
                                  .unmap = req->unmap,
                                  .disk = &d->file,
                                  .iov = (const struct host_iov *)(const void *)req->iov,
                                  .n = req->niov,
                                  .off = req->off,
                                  .len = req->len,
                                  .done = disk_done,
                                  .ctx = req};
    host_disk_submit(d->slot->loop, &o->op);
}

static void disk_paid(void *ctx)
{
    struct disk *d = ctx;
    struct vmm_lock lock = host_mutex_lock(&d->slot->lock);

    vmm_enter(&lock);
    d->waits = false;
    vio_blk_resume(&d->blk);
    vmm_leave(&lock);
}

/* Are the limits used up? Then the requests wait in the rings, and kicks end here. */
static bool disk_hold(void *ctx)
{
    struct disk *d = ctx;
    uint64_t now, bytes, requests;

    if (d->waits)
        return true;
    now = host_now();
    bytes = vmm_bucket_wait(&d->bps, now);
    requests = vmm_bucket_wait(&d->iops, now);
    if (!bytes && !requests)
        return false;
    d->waits =
        !host_timer_set(d->slot->loop, &d->paid, bytes > requests ? bytes : requests, disk_paid, d);
    return d->waits;
}

static void disk_grown(void *ctx)
{
    struct disk *d = ctx;
    struct vmm_lock lock = host_mutex_lock(&d->slot->lock);

    vmm_say(d->slot->vm->log, VMM_LOG_INFO, "disk '%s' has grown to %llu bytes", d->path,
            (unsigned long long)d->file.len);
    vmm_enter(&lock);
    vio_blk_set_capacity(&d->blk, d->file.len);
    vmm_leave(&lock);
}

/* >>net: a card's loop carries frames, or the kernel does (vhost) --------------------------- */

/* With the card's lock held: what its loop is to watch now. */
static void net_watch(struct net *n)
{
    for (unsigned i = 0; i < n->npairs; i++) {
        unsigned waits = vio_net_waits(&n->card, i);
        unsigned events =
            (waits & VIO_NET_RX ? HOST_IN : 0u) | (waits & VIO_NET_TX ? HOST_OUT : 0u);
        if (n->cfg->kind == NET_PASST)
            host_passt_watch(&n->passt, events);
        else
            host_watch_set(n->slot->loop, &n->pair[i].watch, events);
    }
}

/* The tap has frames or room, or it is no more. */
static void on_tap(void *ctx, unsigned events)
{
    struct net_pair *p = ctx;
    struct net *n = p->net;
    struct vmm_lock lock = host_mutex_lock(&n->slot->lock);

    vmm_enter(&lock);
    if (events == HOST_HUP) {
        n->gone = true;
        vio_net_set_link(&n->card, false);
        vmm_say(n->slot->vm->log, VMM_LOG_WARN, "tap '%s' has gone: the guest's cable is out",
                n->tap.name);
    } else {
        vio_net_ready(&n->card, (unsigned)(p - n->pair));
    }
    net_watch(n);
    vmm_leave(&lock);
}

/* ip link set IF up or down is the cable that goes in and out. */
static void on_tap_changed(void *ctx)
{
    struct net *n = ctx;
    struct vmm_lock lock = host_mutex_lock(&n->slot->lock);

    vmm_enter(&lock);
    vio_net_set_link(&n->card, n->tap.up && !n->gone);
    net_watch(n);
    vmm_leave(&lock);
}

/* A passt that has just come knows nothing of the guest. */
static void on_passt(void *ctx)
{
    struct net *n = ctx;
    struct vmm_lock lock = host_mutex_lock(&n->slot->lock);

    vmm_enter(&lock);
    if (n->passt.up && n->gone)
        vio_net_announce(&n->card);
    n->gone = !n->passt.up;
    vio_net_set_link(&n->card, n->passt.up);
    vio_net_ready(&n->card, 0);
    net_watch(n);
    vmm_leave(&lock);
}

/* The same pieces for the host. */
static const struct host_iov *net_pieces(const struct vio_iov *iov, unsigned n,
                                         struct host_iov out[VIO_CHAIN_MAX + 1])
{
    for (unsigned i = 0; i < n; i++)
        out[i] = (struct host_iov){iov[i].base, iov[i].len};
    return out;
}

static int net_send(void *ctx, unsigned pair, const struct vio_iov *iov, unsigned niov)
{
    struct net *n = ctx;
    struct host_iov v[VIO_CHAIN_MAX + 1];

    net_pieces(iov, niov, v);
    return n->cfg->kind == NET_PASST ? host_passt_send(&n->passt, v, niov)
                                     : host_tap_send(&n->tap, pair, v, niov);
}

static int net_recv(void *ctx, unsigned pair, const struct vio_iov *iov, unsigned niov)
{
    struct net *n = ctx;
    struct host_iov v[VIO_CHAIN_MAX + 1];

    net_pieces(iov, niov, v);
    return n->cfg->kind == NET_PASST ? host_passt_recv(&n->passt, v, niov)
                                     : host_tap_recv(&n->tap, pair, v, niov);
}

static void net_set_offload(void *ctx, unsigned offload)
{
    host_tap_set_offload(&((struct net *)ctx)->tap, offload);
}

static void net_set_pairs(void *ctx, unsigned npairs)
{
    host_tap_set_queues(&((struct net *)ctx)->tap, npairs);
}

/* A queue came into service, on a vCPU's thread. The loop hands it to the kernel, or looks what is
   in it: not every driver rings then. */
static bool net_start(void *ctx, unsigned q)
{
    struct net *n = ctx;

    if (!n->vhost) {
        bell_ring(&n->slot->bell[q]);
        return false;
    }
    n->ring[q].wanted = true;
    host_event_raise(&n->rings);
    return true;
}

/* At once, for the guest's memory is its own again. */
static void net_stop(void *ctx, unsigned q)
{
    struct net *n = ctx;

    n->ring[q].wanted = false;
    if (n->ring[q].runs)
        host_vhost_stop(&n->pair[q / 2].vhost, q % 2);
    n->ring[q].runs = false;
    host_event_raise(&n->rings);
}

static int message_route(struct slot *s, struct message *m, uint64_t addr, uint32_t data);

/* The bell that the kernel is to ring for the driver. Where the interrupt is a message that is not
   masked, the hypervisor hears it; else on_call does, and decides what to do. */
static int net_call_bell(struct net *n, unsigned q)
{
    struct slot *s = n->slot;
    struct message *m;
    uint64_t addr;
    uint32_t data;

    if (s->vm->cfg->transport != TRANSPORT_PCI || !vm_can(s->vm, HYP_CAP_MSI) ||
        !vio_pci_message(&s->pci, q, &addr, &data))
        return n->ring[q].call.fd;
    m = &s->message[s->pci.queue_vector[q]];
    return message_route(s, m, addr, data) ? n->ring[q].call.fd : m->bell;
}

/* The driver masked an interrupt, or gave it another message. With the card's lock held. */
static void net_routed(struct net *n, unsigned q)
{
    if (q < 2 * n->npairs && n->ring[q].runs)
        host_vhost_call(&n->pair[q / 2].vhost, q % 2, net_call_bell(n, q));
}

/* Hands a ring to the kernel, which is to look into it at once. False: it refuses. */
static bool net_ring_start(struct net *n, unsigned q)
{
    struct bell *bell = &n->slot->bell[q];
    struct vio_rings r = vio_queue_rings(&n->card.dev, q);
    struct host_ring ring = {r.size,   r.desc,         r.driver,
                             r.device, bell->watch.fd, net_call_bell(n, q)};
    int err = host_vhost_start(&n->pair[q / 2].vhost, q % 2, &ring, n->card.dev.accepted,
                               n->tap.fd[q / 2]);

    if (err) {
        vmm_say(n->slot->vm->log, VMM_LOG_WARN,
                "vhost-net refuses a queue (%s): vmm serves it, which costs more", strerror(-err));
        return false;
    }
    host_bell_ring(bell->watch.fd);
    return true;
}

/* On the card's loop: brings about what net_start and net_stop want. */
static void on_rings(void *ctx)
{
    struct net *n = ctx;
    struct vmm_lock lock = host_mutex_lock(&n->slot->lock);

    vmm_enter(&lock);
    for (unsigned q = 0; q < 2 * n->npairs; q++) {
        struct net_ring *r = &n->ring[q];
        if (r->wanted && !r->runs) {
            host_watch_set(n->slot->loop, &n->slot->bell[q].watch, 0);
            r->runs = net_ring_start(n, q);
            r->wanted = r->runs;
            if (!r->runs)
                vio_net_take_back(&n->card, q);
        }
        if (!r->runs)
            host_watch_set(n->slot->loop, &n->slot->bell[q].watch, HOST_IN | HOST_EDGE);
    }
    net_watch(n);
    vmm_leave(&lock);
}

/* The kernel has something for the driver. */
static void on_call(void *ctx, unsigned events)
{
    struct net_ring *r = ctx;
    struct net *n = r->net;
    struct vmm_lock lock = host_mutex_lock(&n->slot->lock);

    (void)events;
    vmm_enter(&lock);
    if (r->runs)
        n->card.dev.interrupt(n->card.dev.transport, (unsigned)(r - n->ring));
    vmm_leave(&lock);
}

/* Opens vhost-net for every pair, before the card is made: its features depend on it. */
static int net_open_vhost(struct vm *vm, struct net *n)
{
    bool must = n->cfg->vhost == VHOST_ON;
    int err = 0;

    for (unsigned i = 0; i < n->npairs; i++)
        n->pair[i].vhost.fd = -1;
    if (n->cfg->vhost == VHOST_OFF || n->cfg->kind == NET_PASST)
        return 0;
    if (!(hyp_caps(&vm->hyp) & HYP_CAP_DOORBELL))
        return must ? vmm_err(vm->log, -ENOTSUP,
                              "--net: vhost=on needs ioeventfd of the "
                              "hypervisor: leave it out")
                    : 0;
    for (unsigned i = 0; i < n->npairs && !err; i++)
        err = host_vhost_open(&n->pair[i].vhost, &vm->mem, must ? vm->log : NULL);
    for (unsigned i = 0; i < n->npairs && err; i++)
        host_vhost_close(&n->pair[i].vhost);
    n->vhost = !err;
    return must ? err : 0;
}

/* A call bell for each ring, and the event that starts rings. */
static int net_hang_calls(struct net *n)
{
    int err = 0;

    host_event_init(n->slot->loop, &n->rings, on_rings, n);
    for (unsigned q = 0; q < 2 * n->npairs && n->vhost && !err; q++) {
        int fd = host_bell_open();
        n->ring[q].net = n;
        n->ring[q].call = (struct host_watch){fd, HOST_IN | HOST_EDGE, on_call, &n->ring[q], 0};
        err = fd < 0 ? fd : host_watch_add(n->slot->loop, &n->ring[q].call);
    }
    return err ? vmm_err(n->slot->vm->log, err, "no descriptor for a network card: %s",
                         strerror(-err))
               : 0;
}

/* A stable address that no other card of the same network is likely to have: from this machine, the
   cable's name and the card's number (FNV-1a). */
static void net_default_mac(const struct net *n, unsigned number, uint8_t mac[6])
{
    char id[128] = "";
    uint64_t hash = 0xcbf29ce484222325;
    int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? 0 : read(fd, id, 32);

    if (fd >= 0)
        close(fd);
    snprintf(id + (len > 0 ? len : 0), 64, "/%u/%s", number, n->tap.name);
    for (const char *s = id; *s; s++)
        hash = (hash ^ (uint8_t)*s) * 0x100000001b3;
    memcpy(mac, &hash, 6);
    mac[0] = 0x52; /* locally administered */
}

static void net_describe(struct net *n, unsigned number, struct vio_net_desc *desc)
{
    const struct net_config *cfg = n->cfg;
    uint64_t rings = VIO_F_CORE & ~VIO_F_RING_RESET; /* which is the transport's affair */

    *desc = (struct vio_net_desc){.port = {.send = net_send,
                                           .recv = net_recv,
                                           .start = net_start,
                                           .stop = net_stop,
                                           .ctx = n},
                                  .bare = cfg->kind == NET_PASST || n->tap.bare,
                                  .pairs = n->npairs,
                                  .mtu = (uint16_t)(cfg->mtu ? cfg->mtu : n->tap.mtu)};
    memcpy(desc->mac, cfg->mac, sizeof desc->mac);
    if (!cfg->have_mac)
        net_default_mac(n, number, desc->mac);
    if (cfg->kind == NET_PASST)
        return;
    desc->offload = n->tap.offload; /* the same bits, see below */
    desc->link_down = !n->tap.up;
    desc->port.set_offload = net_set_offload;
    desc->port.set_pairs = net_set_pairs;
    if (n->vhost)
        desc->features_off = (rings | VIO_NET_F_MRG_RXBUF) & ~n->pair[0].vhost.features;
}

_Static_assert((int)HOST_OFFLOAD_CSUM == (int)VIO_NET_CSUM &&
                   (int)HOST_OFFLOAD_TSO4 == (int)VIO_NET_TSO4 &&
                   (int)HOST_OFFLOAD_TSO6 == (int)VIO_NET_TSO6 &&
                   (int)HOST_OFFLOAD_ECN == (int)VIO_NET_ECN &&
                   (int)HOST_OFFLOAD_USO4 == (int)VIO_NET_USO4 &&
                   (int)HOST_OFFLOAD_USO6 == (int)VIO_NET_USO6,
               "offloads of host.h and dev_virtio.h are the same bits");

/* Puts the cable in, once the card has its loop. */
static int net_connect(struct net *n)
{
    struct host_loop *loop = n->slot->loop;
    struct host_passt_desc passt = {.loop = loop,
                                    .path = n->cfg->where,
                                    .datagrams = n->cfg->datagrams,
                                    .mtu = n->cfg->mtu,
                                    .ready = on_passt,
                                    .ctx = n,
                                    .log = n->slot->vm->log};

    if (n->cfg->kind == NET_PASST)
        return host_passt_open(&n->passt, &passt);
    for (unsigned i = 0; i < n->npairs; i++) {
        n->pair[i].net = n;
        n->pair[i].watch = (struct host_watch){n->tap.fd[i], 0, on_tap, &n->pair[i], 0};
    }
    return n->cfg->kind == NET_TAP
               ? host_tap_follow(&n->tap, loop, on_tap_changed, n, n->slot->vm->log)
               : 0;
}

/* >>virtio: slots, on PCI or on the MMIO bus ------------------------------------------------- */

/* Serves one queue, on the slot's loop only, so that a vCPU never waits for a disk. */
static void slot_serve(struct slot *s, unsigned q)
{
    struct vmm_lock lock = host_mutex_lock(&s->lock);

    vmm_enter(&lock);
    vio_queue_run(s->dev, q);
    if (s->net)
        net_watch(s->net);
    vmm_leave(&lock);
}

static void on_doorbell(void *ctx, unsigned events)
{
    struct bell *b = ctx;

    (void)events;
    slot_serve(b->slot, b->queue);
}

/* A kick that came as a plain write, on a vCPU thread, with the device's lock held. */
static void on_kick(void *ctx, unsigned q)
{
    bell_ring(&((struct slot *)ctx)->bell[q]);
}

static void on_rung(void *ctx)
{
    struct slot *s = ctx;

    for (unsigned q = 0; q < s->dev->nqueues; q++)
        if (__atomic_exchange_n(&s->bell[q].rung, false, __ATOMIC_SEQ_CST))
            slot_serve(s, q);
}

/* The guest's write to a queue's notify register wakes the loop without an exit to user space;
   where the hypervisor has no such thing, on_kick does. */
static int bell_open(struct bell *b)
{
    struct slot *s = b->slot;
    int fd;

    if (!(hyp_caps(&s->vm->hyp) & HYP_CAP_DOORBELL))
        return 0;
    fd = host_bell_open();
    if (fd < 0)
        return vmm_err(s->vm->log, fd, "cannot open a descriptor for a doorbell: %s",
                       strerror(-fd));
    b->watch = (struct host_watch){
        .fd = fd, .events = HOST_IN | HOST_EDGE, .ready = on_doorbell, .ctx = b};
    return host_watch_add(s->loop, &b->watch);
}

/* A bell without a place is no harm: on_kick gets its kicks. */
static void bell_place(const struct bell *b, const struct vmm_doorbell *where, bool on)
{
    if (b->watch.fd >= 0)
        hyp_doorbell(&b->slot->vm->hyp, where, b->watch.fd, on);
}

static void *slot_main(void *ctx)
{
    struct slot *s = ctx;

    if (host_loop_run(s->loop))
        vm_end(s->vm, ST_FAILED);
    host_disk_drain(s->loop);
    return NULL;
}

/* Threads for the slots with a loop of their own. */
static int start_slots(struct vm *vm)
{
    int err = 0;

    for (unsigned i = 0; i < vm->nslots && !err; i++) {
        struct slot *s = &vm->slot[i];
        if (s->loop != &s->own)
            continue;
        err = host_thread_start(&s->thread, slot_main, s, s->dev->cls->name);
        s->running = !err;
    }
    return err ? vmm_err(vm->log, err, "cannot start a thread for each device: %s", strerror(-err))
               : 0;
}

/* What they have begun they finish. */
static void stop_slots(struct vm *vm)
{
    for (unsigned i = 0; i < vm->nslots; i++)
        host_loop_stop(vm->slot[i].loop);
    for (unsigned i = 0; i < vm->nslots; i++)
        if (vm->slot[i].running)
            host_thread_join(&vm->slot[i].thread);
}

/* What is the same on all transports. own_loop: serving it may block, so it gets a thread. */
static int slot_init(struct slot *s, struct vm *vm, struct vio_dev *dev, bool own_loop)
{
    int err;

    *s = (struct slot){.vm = vm, .dev = dev, .loop = own_loop ? &s->own : &vm->loop};
    err = own_loop ? host_loop_init(&s->own, vm->log) : 0;
    if (err)
        return err;
    if (own_loop && host_loop_async(&s->own))
        vmm_say(vm->log, VMM_LOG_INFO, "no io_uring: a thread carries out what the disk is asked");
    s->bell = calloc(dev->nqueues, sizeof *s->bell);
    if (!s->bell)
        return vmm_err(vm->log, -ENOMEM, "out of memory");
    host_mutex_init(&s->lock);
    host_event_init(s->loop, &s->rung, on_rung, s);
    for (unsigned q = 0; q < dev->nqueues && !err; q++) {
        s->bell[q] = (struct bell){.slot = s, .queue = q, .watch.fd = -1};
        err = bell_open(&s->bell[q]);
    }
    return err;
}

/* Registers, interrupt and doorbells on the MMIO bus, at the place of the slot's number. */
static int slot_plug_mmio(struct slot *s)
{
    struct vm *vm = s->vm;
    unsigned at = (unsigned)(s - vm->slot);
    struct vio_mmio_desc desc = {
        .dev = s->dev, .mem = &vm->mem, .kick = on_kick, .ctx = s, .log = vm->log};
    struct vmm_io io = {.base = VIRTIO_BASE + at * (uint64_t)VIO_MMIO_LEN,
                        .len = VIO_MMIO_LEN,
                        .read = vio_mmio_read,
                        .write = vio_mmio_write,
                        .dev = &s->mmio,
                        .lock = host_mutex_lock(&s->lock)};
    struct vmm_doorbell where = {.gpa = io.base + VIO_MMIO_NOTIFY, .len = 4, .match = true};
    int err;

    if (at >= MMIO_SLOTS_MAX)
        return vmm_err(vm->log, -ENOSPC,
                       "more than %d virtio devices: give fewer, or --transport pci",
                       (int)MMIO_SLOTS_MAX);
    err = plug_edge(vm, virtio_gsi[at], s->loop, &desc.irq);
    vio_mmio_init(&s->mmio, &desc);
    for (; where.value < s->dev->nqueues; where.value++)
        bell_place(&s->bell[where.value], &where, true);
    return err ? err : vmm_bus_add(&vm->mmio, &io);
}

/* The guest moved the registers: the doorbells go along. Each has an address of its own, so that
   nobody has to look at what was written. */
static void slot_moved(void *ctx, uint64_t gpa)
{
    struct slot *s = ctx;
    struct vmm_doorbell where = {.len = 0};

    for (unsigned q = 0; q < s->dev->nqueues; q++) {
        where.gpa = s->bar + VIO_PCI_NOTIFY(q);
        if (s->bar != PCI_NOWHERE)
            bell_place(&s->bell[q], &where, false);
        where.gpa = gpa + VIO_PCI_NOTIFY(q);
        if (gpa != PCI_NOWHERE)
            bell_place(&s->bell[q], &where, true);
    }
    s->bar = gpa;
}

/* The line of a message, which it gets when it is first sent. */
static int message_line(struct slot *s, struct message *m)
{
    struct hyp *h = &s->vm->hyp;
    int gsi = m->bell < 0 ? hyp_msi_line(h, s->pci.pci.slot << 3) : 0, bell, err;

    if (m->bell >= 0 || gsi < 0)
        return gsi < 0 ? gsi : 0;
    bell = host_bell_open();
    err = bell < 0 ? bell : hyp_irq_bell(h, (unsigned)gsi, bell, true);
    if (err && bell >= 0)
        close(bell);
    if (err)
        return err;
    m->gsi = (unsigned)gsi;
    m->bell = bell;
    return 0;
}

/* Gives its line the meaning that the guest has chosen, unless it has that already. */
static int message_route(struct slot *s, struct message *m, uint64_t addr, uint32_t data)
{
    struct vmm_lock lock = host_mutex_lock(&s->vm->messages_lock);
    int err;

    if (m->routed && m->addr == addr && m->data == data)
        return 0;
    vmm_enter(&lock);
    err = message_line(s, m);
    if (!err)
        err = hyp_msi_route(&s->vm->hyp, m->gsi, addr, data);
    vmm_leave(&lock);
    if (err && vmm_spend(&s->budget))
        vmm_say(s->vm->log, VMM_LOG_WARN, "virtio-%s: an interrupt (0x%llx, 0x%x) is lost: %s",
                s->dev->cls->name, (unsigned long long)addr, data, strerror(-err));
    if (err)
        return err;
    m->routed = true;
    m->addr = addr;
    m->data = data;
    return 0;
}

/* With the device's lock held. */
static void slot_message(void *ctx, unsigned vector, uint64_t addr, uint32_t data)
{
    struct slot *s = ctx;
    struct message *m = &s->message[vector];

    if (traces(s->vm, TRACE_IRQ))
        trace(s->vm, "msi device %u vector %u to 0x%llx 0x%x", (unsigned)(s - s->vm->slot), vector,
              (unsigned long long)addr, data);
    if (!vm_can(s->vm, HYP_CAP_MSI))
        machine_msi(s->vm, vector, addr, data);
    else if (!message_route(s, m, addr, data))
        host_bell_post(s->loop, m->bell);
}

static void slot_routed(void *ctx, unsigned q)
{
    struct slot *s = ctx;

    if (s->net)
        net_routed(s->net, q);
}

/* A function of the PCI root bus. */
static int slot_plug_pci(struct slot *s)
{
    struct vm *vm = s->vm;
    struct vio_pci_desc desc = {.dev = s->dev,
                                .mem = &vm->mem,
                                .msi = {.send = slot_message, .ctx = s},
                                .lock = host_mutex_lock(&s->lock),
                                .kick = on_kick,
                                .moved = slot_moved,
                                .routed = slot_routed,
                                .ctx = s,
                                .log = vm->log};
    int err;

    s->bar = PCI_NOWHERE;
    s->message = calloc(1 + s->dev->nqueues, sizeof *s->message);
    if (!s->message)
        return vmm_err(vm->log, -ENOMEM, "out of memory");
    for (unsigned i = 0; i <= s->dev->nqueues; i++)
        s->message[i].bell = -1;
    err = vio_pci_init(&s->pci, &desc);
    return err ? err : pci_plug(&vm->pci, &s->pci.pci);
}

/* Puts a device into the next slot. */
static int slot_plug(struct vm *vm, struct vio_dev *dev, bool own_loop)
{
    struct slot *s = &vm->slot[vm->nslots++];
    int err = slot_init(s, vm, dev, own_loop);

    if (err)
        return err;
    return vm->cfg->transport == TRANSPORT_PCI ? slot_plug_pci(s) : slot_plug_mmio(s);
}

/* The serial number is the name that Linux is going to give: scripts in the guest can rely on
   it. */
static int plug_disk(struct vm *vm, unsigned i)
{
    const uint64_t burst = 100000000; /* ns of rest that may be made up for */
    const struct disk_config *c = &vm->cfg->disk[i];
    struct disk *d = &vm->disk[i];
    struct vio_blk_desc desc = {.capacity = disk_len(d),
                                .read_only = c->ro,
                                .serial = c->serial,
                                .queues = c->queues,
                                .block = d->file.sector,
                                .submit = disk_submit,
                                .hold = c->bps || c->iops ? disk_hold : NULL,
                                .ctx = d};
    char serial[] = "vda";
    int err;

    serial[2] = (char)('a' + i);
    if (!c->serial)
        desc.serial = serial;
    if (c->ide)
        return machine_plug_ide(vm, d, desc.serial);
    d->slot = &vm->slot[vm->nslots];
    d->bps = (struct vmm_bucket){.rate = c->bps, .burst_ns = burst};
    d->iops = (struct vmm_bucket){.rate = c->iops, .burst_ns = burst};
    err = vio_blk_init(&d->blk, &desc);
    if (!err)
        err = slot_plug(vm, &d->blk.dev, true);
    if (!err && !d->image && host_disk_watch(d->slot->loop, &d->growth, &d->file, disk_grown, d))
        vmm_say(vm->log, VMM_LOG_INFO, "disk '%s': the guest is not told when it grows", d->path);
    return err;
}

static int plug_net(struct vm *vm, unsigned i)
{
    struct net *n = &vm->net[i];
    struct vio_net_desc desc;
    int err = net_open_vhost(vm, n);

    if (err)
        return err;
    net_describe(n, i, &desc);
    err = vio_net_init(&n->card, &desc);
    if (!err)
        err = slot_plug(vm, &n->card.dev, true);
    if (err)
        return err;
    n->slot = &vm->slot[vm->nslots - 1];
    n->slot->net = n;
    err = net_hang_calls(n);
    return err ? err : net_connect(n);
}

static size_t rng_fill(void *ctx, void *buf, size_t len)
{
    struct vm *vm = ctx;

    vmm_bucket_take(&vm->rng_limit, host_now(), len);
    return host_random(buf, len);
}

static void rng_resume(void *ctx)
{
    struct vm *vm = ctx;

    slot_serve(vm->rng_slot, 0);
}

/* On the slot's loop, as whatever serves a queue. */
static uint64_t rng_wait(void *ctx)
{
    struct vm *vm = ctx;
    uint64_t ns = vmm_bucket_wait(&vm->rng_limit, host_now());

    if (ns)
        host_timer_set(vm->rng_slot->loop, &vm->rng_timer, ns, rng_resume, vm);
    return ns;
}

static int plug_rng(struct vm *vm)
{
    struct vio_rng_desc desc = {.fill = rng_fill, .wait = rng_wait, .ctx = vm};
    int err = vio_rng_init(&vm->rng, &desc);

    vm->rng_limit = (struct vmm_bucket){.rate = vm->cfg->rng_rate, .burst_ns = 1000000000};
    vm->rng_slot = &vm->slot[vm->nslots];
    return err ? err : slot_plug(vm, &vm->rng.dev, false);
}

/* A line to a port of a console that goes into the next slot. */
static void line_init(struct line *l, struct vm *vm, struct vio_console *c, unsigned port)
{
    *l = (struct line){
        .vm = vm, .rx = console_rx, .tx_ready = console_tx_ready, .console = c, .port = port};
    l->lock = host_mutex_lock(&vm->slot[vm->nslots].lock);
}

/* The terminal is a device of its own beside the ports: so it is there as soon as its driver is, and
   its size is told in the way that all kernels understand. */
static int plug_terminal(struct vm *vm)
{
    struct vio_console_desc desc = {.out = line_stream(&vm->terminal)};
    int err;

    if (vm->cfg->console != CONSOLE_VIRTIO)
        return 0;
    line_init(&vm->terminal, vm, &vm->console, 0);
    err = vio_console_init(&vm->console, &desc);
    return err ? err : slot_plug(vm, &vm->console.dev, false);
}

static int plug_channels(struct vm *vm)
{
    struct vio_console_port port[PORTS_MAX];
    struct vio_console_desc desc = {.ports = port, .nports = vm->cfg->nports};
    int err;

    if (!desc.nports)
        return 0;
    for (unsigned i = 0; i < desc.nports; i++) {
        line_init(&vm->port[i], vm, &vm->channels, i);
        port[i] = (struct vio_console_port){
            .out = line_stream(&vm->port[i]), .name = vm->cfg->port[i].name, .closed = true};
    }
    err = vio_console_init(&vm->channels, &desc);
    return err ? err : slot_plug(vm, &vm->channels.dev, false);
}

/* Disks first, so that their addresses and lines do not depend on what else is there. */
static int plug_virtio(struct vm *vm)
{
    int err = 0;

    for (unsigned i = 0; i < vm->cfg->ndisks && !err; i++)
        err = plug_disk(vm, i);
    for (unsigned i = 0; i < vm->cfg->nnets && !err; i++)
        err = plug_net(vm, i);
    if (!err)
        err = plug_rng(vm);
    if (!err)
        err = plug_terminal(vm);
    return err ? err : plug_channels(vm);
}

/* >>vfio: devices of the host ---------------------------------------------------------------- */

static int passed_map(void *ctx, uint64_t gpa, uint64_t len, void *hva, unsigned prot)
{
    return hyp_window_map(&((struct passed *)ctx)->vm->hyp, gpa, len, hva, prot);
}

static int passed_unmap(void *ctx, uint64_t gpa, uint64_t len)
{
    return hyp_window_unmap(&((struct passed *)ctx)->vm->hyp, gpa, len);
}

/* What the line of a vector means. With messages_lock held. */
static int passed_mean(struct passed *p, struct passed_vector *v, uint64_t addr, uint32_t data)
{
    struct hyp *h = &p->vm->hyp;
    int err;

    if (v->gsi < 0)
        v->gsi = hyp_msi_line(h, p->dev.pci.slot << 3);
    if (v->gsi < 0)
        return v->gsi;
    err = hyp_msi_route(h, (unsigned)v->gsi, addr, data);
    if (err)
        return err;
    v->addr = addr;
    v->data = data;
    v->routed = true;
    return 0;
}

/* The hypervisor listens to a vector's bell as long as the guest does; what rings meanwhile waits in
   the bell. */
static void passed_route(void *ctx, unsigned vector, bool on, uint64_t addr, uint32_t data)
{
    struct passed *p = ctx;
    struct passed_vector *v = &p->vector[vector];
    struct vmm_lock lock = host_mutex_lock(&p->vm->messages_lock);
    int err = 0;

    if (on && (!v->routed || v->addr != addr || v->data != data)) {
        vmm_enter(&lock);
        err = passed_mean(p, v, addr, data);
        vmm_leave(&lock);
    }
    if (!err && on != v->heard) {
        err = hyp_irq_bell(&p->vm->hyp, (unsigned)v->gsi, p->bell[vector], on);
        v->heard = err ? v->heard : on;
    }
    if (err && vmm_spend(&p->budget))
        vmm_say(p->vm->log, VMM_LOG_WARN, "%s: interrupt %u (0x%llx, 0x%x) is lost: %s", p->dev.name,
                vector, (unsigned long long)addr, data, strerror(-err));
}

static int passed_bell(struct passed *p, int *bell)
{
    *bell = host_bell_open();
    return *bell < 0 ? vmm_err(p->vm->log, *bell,
                               "no descriptors are left for the interrupts of %s: %s (ulimit -n)",
                               p->dev.name, strerror(-*bell))
                     : 0;
}

/* All bells, before the guest runs. */
static int passed_bells(struct passed *p)
{
    unsigned n = p->dev.nbells;
    int err = 0;

    p->vectors = calloc(p->dev.nvectors + 1, sizeof *p->vectors);
    p->bell = calloc(n + 1, sizeof *p->bell);
    p->vector = calloc(n + 1, sizeof *p->vector);
    if (!p->vectors || !p->bell || !p->vector)
        return vmm_err(p->vm->log, -ENOMEM, "out of memory");
    for (unsigned i = 0; i < n && !err; i++) {
        p->vector[i].gsi = -1;
        err = passed_bell(p, &p->bell[i]);
    }
    return err;
}

/* Somebody unbinds the device, and is held up until it is free. */
static void on_wanted(void *ctx, unsigned events)
{
    struct passed *p = ctx;

    (void)events;
    if (host_bell_take(p->wanted.fd) && vmm_spend(&p->budget))
        vmm_say(p->vm->log, VMM_LOG_WARN,
                "the host wants %s back, and waits: power the guest off, or end vmm", p->dev.name);
}

static int passed_watch(struct passed *p)
{
    int err = passed_bell(p, &p->wanted.fd);

    p->wanted.events = HOST_IN;
    p->wanted.ready = on_wanted;
    p->wanted.ctx = p;
    return err ? err : host_watch_add(&p->vm->loop, &p->wanted);
}

/* The line of the slot that it got, if the hypervisor can tell when the guest has served it. */
static int passed_plug(struct passed *p, struct vfiodev_desc *desc)
{
    struct vm *vm = p->vm;
    int err = 0;

    if (p->dev.intx && vm_can(vm, HYP_CAP_IRQCHIP)) {
        err = passed_bell(p, &desc->intx_bell);
        if (!err)
            err = passed_bell(p, &desc->intx_done);
    } else if (p->dev.intx && !p->dev.nbells) {
        return vmm_err(vm->log, -ENOTSUP, "%s interrupts by a line alone: leave --irqchip out",
                       p->dev.name);
    }
    if (!err)
        err = vfiodev_init(&p->dev, desc);
    if (!err)
        err = pci_plug(&vm->pci, &p->dev.pci);
    if (err || !desc->intx_done)
        return err;
    err = hyp_irq_resample(&vm->hyp, pci_gsi[p->dev.pci.slot % 4], desc->intx_bell, desc->intx_done,
                           true);
    return err ? vmm_err(vm->log, err, "the interrupt line of %s cannot be wired: %s", p->dev.name,
                         strerror(-err))
               : 0;
}

static int plug_passed(struct vm *vm, const struct vfio_config *c)
{
    struct passed *p = &vm->passed[vm->npassed++];
    struct vfiodev_desc desc = {.lock = host_mutex_lock(&p->lock),
                                .map = passed_map,
                                .unmap = passed_unmap,
                                .route = passed_route,
                                .ctx = p,
                                .log = vm->log};
    int err;

    p->vm = vm;
    host_mutex_init(&p->lock);
    err = vfiodev_open(&p->dev, &vm->vfio, c->address, c->rom, vm->log);
    if (!err)
        err = passed_bells(p);
    if (!err)
        err = passed_watch(p);
    desc.vectors = p->vectors;
    desc.bell = p->bell;
    desc.wanted = p->wanted.fd;
    return err ? err : passed_plug(p, &desc);
}

static void vfio_opened(void *ctx, int fd)
{
    (void)hyp_device_add(&((struct vm *)ctx)->hyp, fd); /* hypervisors may have no use for it */
}

/* Behind the virtio devices, whose numbers do not depend on these. */
static int plug_vfio(struct vm *vm)
{
    const struct config *c = vm->cfg;
    struct vfiodev_host_desc desc = {
        .ndevices = c->nvfio, .opened = vfio_opened, .ctx = vm, .log = vm->log};
    int err;

    if (!c->nvfio)
        return 0;
    err = vfiodev_host_init(&vm->vfio, &desc);
    if (err)
        return err;
    if (!vm_can(vm, HYP_CAP_MSI))
        return vmm_err(vm->log, -ENOTSUP,
                       "--vfio needs a hypervisor that takes interrupts by message: leave --irqchip "
                       "user out");
    host_files_raise();
    for (unsigned i = 0; i < c->nvfio && !err; i++)
        err = plug_passed(vm, &c->vfio[i]);
    return err;
}

static void close_vfio(struct vm *vm)
{
    for (unsigned i = 0; i < vm->npassed; i++)
        vfiodev_close(&vm->passed[i].dev);
    if (vm->npassed)
        vfiodev_host_fini(&vm->vfio);
}

/* >>pci: the root bus ----------------------------------------------------------------------- */

/* The window above RAM, where the guest's addresses reach that far. */
static uint64_t pci_mmio64_base(struct vm *vm)
{
    const struct vmm_range *last = &vm->mem.range[vm->mem.nranges - 1];
    uint64_t base = (last->gpa + last->len + MMIO64_LEN - 1) & ~(MMIO64_LEN - 1);

    return base + MMIO64_LEN <= 1ull << hyp_gpa_bits(&vm->hyp) ? base : 0;
}

/* A device of the host may have BARs of any size: then the window is as long as processors reach. */
static uint64_t pci_mmio64_len(struct vm *vm, uint64_t base)
{
    unsigned bits = hyp_gpa_bits(&vm->hyp);

    if (!base || !vm->cfg->nvfio)
        return base ? MMIO64_LEN : 0;
    return (1ull << (bits < 46 ? bits : 46)) - base;
}

static int plug_pci(struct vm *vm)
{
    struct pci_root_desc desc = {.ecam = ECAM_BASE,
                                 .mmio32 = {MMIO32_BASE, MMIO32_LEN},
                                 .mmio64.base = pci_mmio64_base(vm),
                                 .log = vm->log};
    int err;

    desc.mmio64.len = pci_mmio64_len(vm, desc.mmio64.base);
    for (unsigned i = 0; i < 4; i++)
        desc.intx[i] = vm_irq(vm, pci_gsi[i]);
    host_mutex_init(&vm->pci_lock);
    desc.lock = host_mutex_lock(&vm->pci_lock);
    machine_pci(vm, &desc);
    pci_root_init(&vm->pci, &desc);
    err = machine_plug_pci(vm);
    return err ? err : pci_root_add_io(&vm->pci, &vm->mmio, &vm->ports);
}

/* >>machine: who answers where -------------------------------------------------------------- */

/* One row a device; a byte address on the port or MMIO bus, its functions, and whose lock is held
   while they run. */
struct place {
    uint64_t base, len;
    uint64_t (*read)(void *dev, uint64_t off, unsigned len);
    void (*write)(void *dev, uint64_t off, unsigned len, uint64_t val);
    size_t dev, lock; /* where in struct vm */
};

static int plug_place(struct vm *vm, struct vmm_bus *bus, const struct place *p)
{
    struct vmm_io io = {.base = p->base,
                        .len = p->len,
                        .read = p->read,
                        .write = p->write,
                        .dev = (char *)vm + p->dev};

    io.lock = host_mutex_lock((struct host_mutex *)(void *)((char *)vm + p->lock));
    return vmm_bus_add(bus, &io);
}

static int64_t rtc_now(void *ctx)
{
    (void)ctx;
    return host_wall();
}

static uint64_t wake_now(void *ctx)
{
    (void)ctx;
    return host_now();
}

static void wake_again(void *ctx, uint64_t at_ns)
{
    uint64_t now = host_now();

    host_timer_again(&((struct wake *)ctx)->timer, at_ns > now ? at_ns - now : 0);
}

static void on_wake(void *ctx)
{
    struct wake *w = ctx;

    vmm_enter(&w->lock);
    w->tick(w->vm);
    vmm_leave(&w->lock);
}

/* What a device with timers is given. */
static struct vmm_timer wake_timer(struct wake *w)
{
    return (struct vmm_timer){wake_now, wake_again, w};
}

static int plug_wake(struct vm *vm, struct wake *w, struct host_mutex *lock,
                     void (*tick)(struct vm *vm))
{
    w->vm = vm;
    w->lock = host_mutex_lock(lock);
    w->tick = tick;
    return host_timer_set(&vm->loop, &w->timer, 0, on_wake, w);
}

/* Huge pages save a kernel's boot three quarters of its exits; flat code touches a few small pages,
   and would wait for 2 MiB of zeroes each. Mapped first and filled later: some hypervisors zero
   memory when they map it. */
static int add_ram(struct vm *vm, uint64_t gpa, uint64_t len)
{
    void *hva = host_ram(len, vm->cfg->binary ? 0 : HOST_RAM_HUGE, vm->log);
    int err = hva ? hyp_map(&vm->hyp, gpa, len, hva, VMM_READ | VMM_WRITE | VMM_EXEC) : -ENOMEM;

    return err ? err : vmm_mem_add(&vm->mem, gpa, len, hva);
}

/* Virtio devices that no bus announces. */
static unsigned mmio_slots(const struct vm *vm)
{
    return vm->cfg->transport == TRANSPORT_MMIO ? vm->nslots : 0;
}

static struct boot_pci boot_pci(const struct vm *vm)
{
    const struct pci_root_desc *d = &vm->pci.desc;

    return (struct boot_pci){.ecam = d->ecam,
                             .mmio32 = d->mmio32.base,
                             .mmio32_len = d->mmio32.len,
                             .mmio64 = d->mmio64.base,
                             .mmio64_len = d->mmio64.len,
                             .gsi = {pci_gsi[0], pci_gsi[1], pci_gsi[2], pci_gsi[3]},
                             .pic = {d->line[0], d->line[1], d->line[2], d->line[3]}};
}

/* >>x86: the PC ----------------------------------------------------------------------------- */
#if defined(__x86_64__)

/* The guest's ways to end itself. Each only notes the wish: the CPU that asked is still inside
   its access and leaves its loop after it. */
static void on_poweroff(void *ctx)
{
    vm_end(ctx, ST_POWEROFF);
}

static void on_reset(void *ctx)
{
    vm_end(ctx, ST_RESET);
}

static void on_debugexit(void *ctx, uint8_t status)
{
    vm_end(ctx, status);
}

/* What the kernel says about a panic is on its console by then. One that another kernel takes over
   (kdump) is that kernel's business. */
static void on_panic(void *ctx, enum pc_panic what)
{
    struct vm *vm = ctx;

    if (what == PC_PANIC_CRASHED)
        vmm_say(vm->log, VMM_LOG_WARN, "the guest's kernel crashed, and starts its crash kernel");
    else if (vm_end(vm, ST_PANIC))
        vmm_say(vm->log, VMM_LOG_ERROR, "the guest's kernel panicked");
}

/* The i8042 owns two single ports, because 0x61 between them is the PIT's. */
static const struct place machine_ports[] = {
#define DEV(name) offsetof(struct vm, name)
    {0x60, 1, pc_kbc_data_read, pc_kbc_data_write, DEV(kbc), DEV(chips_lock)},
    {0x64, 1, pc_kbc_cmd_read, pc_kbc_cmd_write, DEV(kbc), DEV(chips_lock)},
    {RTC_PORT, 2, pc_rtc_read, pc_rtc_write, DEV(rtc), DEV(chips_lock)},
    {0xf4, 4, pc_debugexit_read, pc_debugexit_write, DEV(debugexit), DEV(chips_lock)},
    {PANIC_PORT, 1, pc_pvpanic_read, pc_pvpanic_write, DEV(pvpanic), DEV(chips_lock)},
    {PM_PORT, PC_PM_LEN, pc_pm_read, pc_pm_write, DEV(pm), DEV(chips_lock)},
};
/* As many as were asked for. */
static const struct place uart_ports[UARTS_MAX] = {
#define UART(n, port)                                                                              \
    {                                                                                              \
        port, 8, pc_uart_read, pc_uart_write, DEV(uart[n].chip), DEV(uart[n].lock)                 \
    }
    UART(0, 0x3f8),
    UART(1, 0x2f8),
    UART(2, 0x3e8),
    UART(3, 0x2e8),
#undef UART
};
/* Only without the hypervisor's, and in its place. */
static const struct place irqchip_ports[] = {
    {0x20, 2, pc_pic_master_read, pc_pic_master_write, DEV(irqchip.pic), DEV(cpus_lock)},
    {0x40, 4, pc_pit_read, pc_pit_write, DEV(irqchip.pit), DEV(cpus_lock)},
    {0x61, 1, pc_pit_gate_read, pc_pit_gate_write, DEV(irqchip.pit), DEV(cpus_lock)},
    {0xa0, 2, pc_pic_slave_read, pc_pic_slave_write, DEV(irqchip.pic), DEV(cpus_lock)},
    {0x4d0, 2, pc_pic_elcr_read, pc_pic_elcr_write, DEV(irqchip.pic), DEV(cpus_lock)},
};
static const struct place ioapic_page = {
    IOAPIC_BASE, 4096, pc_ioapic_read, pc_ioapic_write, DEV(irqchip.ioapic), DEV(cpus_lock)};
/* Only without PCI, whose ports enclose it. */
static const struct place reset_port = {RESET_PORT,           1,          pc_power_reset_read,
                                        pc_power_reset_write, DEV(power), DEV(chips_lock)};
/* Only with --bios. */
static const struct place firmware_ports[] = {
    {0x400, 4, pc_fwlog_read, pc_fwlog_write, DEV(fwlog), DEV(chips_lock)},
    {0x510, PC_FWCFG_PORTS, pc_fwcfg_read, pc_fwcfg_write, DEV(fwcfg), DEV(chips_lock)},
};
/* Only with a disk of bus=ide. */
static const struct place ata_ports[] = {
    {0x1f0, 8, pc_ata_command_read, pc_ata_command_write, DEV(ata), DEV(ata_lock)},
    {0x3f6, 1, pc_ata_control_read, pc_ata_control_write, DEV(ata), DEV(ata_lock)},
};
/* Only with --console. */
static const struct place debug_port = {
    0xe9, 1, pc_debugcon_read, pc_debugcon_write, DEV(debugcon), DEV(chips_lock)};
static const struct place debug_mmio = {
    DEBUG_MMIO, 8, pc_debugcon_read, pc_debugcon_write, DEV(debugcon), DEV(chips_lock)};
#undef DEV

static void tick_irqchip(struct vm *vm)
{
    pc_irqchip_tick(&vm->irqchip);
}

static void tick_rtc(struct vm *vm)
{
    pc_rtc_tick(&vm->rtc);
}

static void tick_pm(struct vm *vm)
{
    pc_pm_tick(&vm->pm);
}

/* A vCPU has something to do: out of the guest, or out of its sleep. With cpus_lock held. */
static void irq_kick(void *ctx, unsigned id)
{
    struct cpu *c = &((struct vm *)ctx)->cpu[id];

    if (__atomic_exchange_n(&c->inside, false, __ATOMIC_SEQ_CST))
        hyp_kick(&c->hyp);
    else
        host_cond_wake(&c->wake);
}

/* Only a CPU that is setting its own timer asks, on its thread. */
static uint64_t irq_tsc(void *ctx, unsigned cpu, uint64_t *hz)
{
    return hyp_tsc(&((struct vm *)ctx)->cpu[cpu].hyp, hz);
}

/* The hypervisor's LAPICs get what our IOAPIC sends, and learn whose EOIs it waits for. */
static void irq_message(void *ctx, unsigned pin, uint64_t addr, uint32_t data)
{
    (void)pin;
    hyp_msi_send(&((struct vm *)ctx)->hyp, addr, data);
}

static void irq_route(void *ctx, unsigned pin, uint64_t addr, uint32_t data)
{
    struct vm *vm = ctx;
    struct vmm_lock lock = host_mutex_lock(&vm->messages_lock);

    if (!vm_can(vm, HYP_CAP_LAPIC) || !(data & PC_MSI_LEVEL))
        return;
    vmm_enter(&lock);
    (void)hyp_eoi_route(&vm->hyp, pin, addr, data); /* what failed is in the log */
    vmm_leave(&lock);
}

/* What the hypervisor lacks of interrupt controllers and timers. */
static int plug_irqchip(struct vm *vm)
{
    unsigned n = vm->cfg->ncpus;
    struct pc_irqchip_desc desc = {.timer = wake_timer(&vm->irq_wake),
                                   .tsc = irq_tsc,
                                   .kick = irq_kick,
                                   .msi = {irq_message, vm},
                                   .route = irq_route,
                                   .ctx = vm,
                                   .lock = host_mutex_lock(&vm->cpus_lock)};
    int err = plug_place(vm, &vm->mmio, &ioapic_page);

    if (!err && n > PC_LAPICS_MAX)
        return vmm_err(vm->log, -E2BIG, "--irqchip: at most %d CPUs, not %u: ask for fewer",
                       PC_LAPICS_MAX, n);
    for (size_t i = 0; i < sizeof irqchip_ports / sizeof irqchip_ports[0] && !err; i++)
        err = plug_place(vm, &vm->ports, &irqchip_ports[i]);
    if (!err)
        err = plug_wake(vm, &vm->irq_wake, &vm->cpus_lock, tick_irqchip);
    if (!err && !vm_can(vm, HYP_CAP_LAPIC)) {
        desc.lapic = vm->lapic = calloc(n, sizeof *vm->lapic);
        desc.ncpus = n;
        err = vm->lapic ? 0 : vmm_err(vm->log, -ENOMEM, "out of memory");
    }
    if (!err)
        pc_irqchip_init(&vm->irqchip, &desc);
    return err;
}

/* The keyboard or the buffer that its keys go to may have room again. */
static void on_key_room(void *ctx)
{
    host_stream_poke(&((struct vm *)ctx)->uart[0].line.stream);
}

/* One key of a text; returns how many bytes it takes, 0: there is no room for it. */
static size_t type_key(struct vm *vm, const char *text, size_t len)
{
    size_t taken = 1;
    uint16_t key = pc_bios_escape(text, len, &taken);

    if (!pc_bios_room(&vm->bios))
        return 0;
    if (!key)
        return pc_kbc_type(&vm->kbc, *text) ? 1 : 0;
    return pc_kbc_key(&vm->kbc, key, true) && pc_kbc_key(&vm->kbc, key, false) ? taken : 0;
}

/* Text as it is typed, as much as there is room for; returns how many bytes that was. */
static size_t type_keys(struct vm *vm, const char *text, size_t len)
{
    struct vmm_lock lock = host_mutex_lock(&vm->chips_lock);
    size_t at = 0, taken = 1;

    vmm_enter(&lock);
    for (; at < len && taken; at += taken)
        taken = type_key(vm, text + at, len - at);
    vmm_leave(&lock);
    return at;
}

/* With the mini BIOS, what comes by the serial line is typed on the keyboard and goes to COM1 too.
   Whichever the guest reads says how fast; the other gets what it has room for. */
static size_t keys_rx(struct line *l, const void *buf, size_t len)
{
    struct pc_uart *com1 = &l->vm->uart[0].chip;
    bool serial = com1->heard;
    size_t n = serial ? pc_uart_rx(com1, buf, len) : type_keys(l->vm, buf, len);

    if (serial)
        type_keys(l->vm, buf, n);
    else if (n)
        pc_uart_rx(com1, buf, n);
    return n;
}

/* COM1 and COM3 have a line together, and so have COM2 and COM4: it is high while one of them asks. */
static void uart_irq(void *ctx, unsigned n, bool level)
{
    struct vm *vm = ctx;
    struct vmm_irq irq = vm_irq(vm, uart_gsi[n]);
    struct vmm_lock lock = host_mutex_lock(&vm->uarts_lock);

    vmm_enter(&lock);
    vm->uarts_asking = (vm->uarts_asking & ~(1u << n)) | (unsigned)level << n;
    vmm_irq_set(&irq, vm->uarts_asking & 5u << (n & 1));
    vmm_leave(&lock);
}

static int plug_uarts(struct vm *vm)
{
    unsigned n = nuarts(vm->cfg);
    int err = 0;

    host_mutex_init(&vm->uarts_lock);
    for (unsigned i = 0; i < n && !err; i++) {
        struct vmm_irq shared = {uart_irq, vm, i}, own = vm_irq(vm, uart_gsi[i]);
        init_uart(vm, i, n > 2 ? &shared : &own);
        err = plug_place(vm, &vm->ports, &uart_ports[i]);
    }
    return err;
}

static void init_chips(struct vm *vm)
{
    uint64_t mem = vm->cfg->mem;
    struct pc_kbc_desc kbc = {.kbd = vm_irq(vm, 1),
                              .aux = vm_irq(vm, 12),
                              .reset = on_reset,
                              .room = on_key_room,
                              .ctx = vm};
    struct pc_rtc_desc rtc = {.now = rtc_now,
                              .ram_low = mem < HOLE_START ? mem : HOLE_START,
                              .ram_high = mem < HOLE_START ? 0 : mem - HOLE_START,
                              .irq = vm_irq(vm, RTC_GSI),
                              .timer = wake_timer(&vm->rtc_wake),
                              .ncpus = vm->cfg->ncpus};
    struct pc_pm_desc pm = {.sci = vm_irq(vm, SCI_GSI),
                            .timer = wake_timer(&vm->pm_wake),
                            .off = on_poweroff,
                            .ctx = vm};

    host_mutex_init(&vm->chips_lock);
    host_mutex_init(&vm->bios_lock);
    if (vm->cfg->mini_bios)
        vm->uart[0].line.rx = keys_rx;
    pc_kbc_init(&vm->kbc, &kbc);
    pc_rtc_init(&vm->rtc, &rtc);
    pc_pm_init(&vm->pm, &pm);
    vm->power = (struct pc_power){.reset = on_reset, .ctx = vm};
    vm->fwlog.log = vm->log;
    vm->debugexit = (struct pc_debugexit){.exit = on_debugexit, .ctx = vm};
    vm->pvpanic = (struct pc_pvpanic){.event = on_panic, .ctx = vm};
    vm->debugcon.out = line_stream(vm->terminal.vm ? &vm->terminal : &vm->uart[0].line);
}

static int plug_chips(struct vm *vm)
{
    int err = plug_uarts(vm);

    init_chips(vm);
    for (size_t i = 0; i < sizeof machine_ports / sizeof machine_ports[0] && !err; i++)
        err = plug_place(vm, &vm->ports, &machine_ports[i]);
    if (!err && !vm->pci.desc.ecam)
        err = plug_place(vm, &vm->ports, &reset_port);
    for (size_t i = 0; i < sizeof firmware_ports / sizeof firmware_ports[0] && !err; i++)
        err = vm->cfg->bios ? plug_place(vm, &vm->ports, &firmware_ports[i]) : 0;
    if (!err && vm->cfg->debugcon)
        err = plug_place(vm, &vm->ports, &debug_port);
    if (!err && vm->cfg->debugcon && !vmm_at(&vm->mem, DEBUG_MMIO, 1))
        err = plug_place(vm, &vm->mmio, &debug_mmio);
    if (!err)
        err = plug_wake(vm, &vm->rtc_wake, &vm->chips_lock, tick_rtc);
    return err ? err : plug_wake(vm, &vm->pm_wake, &vm->chips_lock, tick_pm);
}

/* RAM that would reach into the device hole continues above it. */
static int plug_memory(struct vm *vm)
{
    uint64_t low = vm->cfg->mem < HOLE_START ? vm->cfg->mem : HOLE_START;
    int err = add_ram(vm, 0, low);

    return err || low == vm->cfg->mem ? err : add_ram(vm, HOLE_END, vm->cfg->mem - low);
}

static struct vmm_irq machine_irq(struct vm *vm, unsigned gsi)
{
    return (struct vmm_irq){.set = pc_irqchip_set, .ctx = &vm->irqchip, .line = gsi};
}

static void machine_msi(struct vm *vm, unsigned vector, uint64_t addr, uint32_t data)
{
    pc_irqchip_msi(&vm->irqchip, vector, addr, data);
}

static void machine_hyp_desc(const struct config *cfg, struct hyp_desc *desc)
{
    (void)cfg;
    (void)desc; /* nothing that is not common */
}

static const char *machine_hardware(void)
{
    return "hardware (VMX or SVM)";
}

static const char *machine_chips(unsigned caps)
{
    (void)caps;
    return "interrupt controllers and timers in the kernel";
}

/* The ports of the bus enclose the reset register's. Firmware looks for a chipset that it knows:
   Intel's 82441FX, whose interrupts go through its 82371SB. Without firmware that only routes. */
static void machine_pci(struct vm *vm, struct pci_root_desc *desc)
{
    for (unsigned i = 0; i < 4; i++) {
        desc->intx[i] = (struct vmm_irq){.set = pci_isa_intx, .ctx = &vm->isa, .line = i};
        desc->line[i] = vm->cfg->bios ? 0 : pci_pic[i];
    }
    if (vm->cfg->bios) {
        desc->vendor = 0x8086;
        desc->device = 0x1237;
        desc->ecam = ECAM_BIOS;
        desc->mmio32.len = IOAPIC_BASE - MMIO32_BASE;
    }
    desc->reset_port = (struct vmm_io){.read = pc_power_reset_read,
                                       .write = pc_power_reset_write,
                                       .dev = &vm->power,
                                       .lock = host_mutex_lock(&vm->chips_lock)};
}

static int machine_plug_pci(struct vm *vm)
{
    struct pci_isa_desc desc = {.irq = vm_irq(vm, 0), .lock = host_mutex_lock(&vm->chips_lock)};
    int err;

    for (unsigned i = 0; i < 4; i++) {
        desc.intx[i] = vm_irq(vm, pci_gsi[i]);
        desc.route[i] = vm->cfg->bios ? 0 : pci_pic[i];
    }
    err = pci_isa_init(&vm->isa, &desc);
    return err || !vm->cfg->bios ? err : pci_plug(&vm->pci, &vm->isa.dev);
}

/* Sectors for a CPU that waits for them, on its thread. What the disk lacks of its last one is zeroes. */
static int disk_sectors(struct disk *d, bool write, void *buf, uint64_t sector, unsigned n)
{
    struct vmm_lock lock = host_mutex_lock(&d->image_lock);
    uint64_t off = sector * 512, all = n * 512ull, rest = disk_len(d) - off;
    uint64_t len = all < rest ? all : rest;
    struct host_iov iov = {buf, len};
    struct disk_iov piece = {buf, len};
    int err;

    if (!write)
        memset((char *)buf + len, 0, all - len);
    if (!d->image)
        return host_disk_rw(&d->file, write, &iov, 1, off);
    vmm_enter(&lock);
    err = write ? disk_write(d->image, &piece, 1, off) : disk_read(d->image, &piece, 1, off);
    vmm_leave(&lock);
    return err;
}

static int ata_rw(void *ctx, bool write, void *buf, uint64_t sector, unsigned n)
{
    struct disk *d = ctx;
    int err = disk_sectors(d, write, buf, sector, n);

    if (err && vmm_spend(&d->budget))
        vmm_say(d->vm->log, VMM_LOG_WARN,
                "disk '%s': %s %u sectors from %llu on failed: %s; the guest gets an I/O error",
                d->path, write ? "writing" : "reading", n, (unsigned long long)sector,
                strerror(-err));
    return err;
}

static int ata_flush(void *ctx)
{
    struct disk *d = ctx;
    struct vmm_lock lock = host_mutex_lock(&d->image_lock);
    int err;

    vmm_enter(&lock);
    err = d->image ? disk_flush(d->image) : host_disk_flush(&d->file);
    vmm_leave(&lock);
    return err;
}

static int machine_plug_ide(struct vm *vm, struct disk *d, const char *serial)
{
    struct pc_ata_desc desc = {.irq = vm_irq(vm, 14),
                               .nsectors = (disk_len(d) + 511) / 512,
                               .serial = serial,
                               .rw = ata_rw,
                               .flush = ata_flush,
                               .ctx = d};
    struct vmm_lock lock;
    int err = 0;

    host_mutex_init(&vm->ata_lock);
    lock = host_mutex_lock(&vm->ata_lock);
    pc_ata_init(&vm->ata, &desc);
    for (unsigned i = 0; i < 2 && !err; i++)
        err = plug_place(vm, &vm->ports, &ata_ports[i]);
    if (!err)
        err = pci_ide_init(&vm->ide, &lock);
    return err ? err : pci_plug(&vm->pci, &vm->ide);
}

/* What the guest cannot find by itself, for the tables that boot.h writes. */
static unsigned list_devices(const struct vm *vm, struct boot_dev *dev)
{
    unsigned n = 0;

    for (unsigned i = 0; i < nuarts(vm->cfg); i++)
        dev[n++] = (struct boot_dev){
            .kind = BOOT_DEV_UART, .base = uart_ports[i].base, .len = 8, .gsi = uart_gsi[i]};
    dev[n++] = (struct boot_dev){.kind = BOOT_DEV_RTC, .base = RTC_PORT, .len = 2, .gsi = RTC_GSI};
    dev[n++] = (struct boot_dev){.kind = BOOT_DEV_PVPANIC, .base = PANIC_PORT, .len = 1};
    for (unsigned i = 0; i < mmio_slots(vm); i++)
        dev[n++] = (struct boot_dev){.kind = BOOT_DEV_VIRTIO_MMIO,
                                     .base = VIRTIO_BASE + i * (uint64_t)VIO_MMIO_LEN,
                                     .len = VIO_MMIO_LEN,
                                     .gsi = virtio_gsi[i]};
    return n;
}

static void machine_describe(const struct vm *vm, struct boot_machine *m, struct boot_dev *dev)
{
    m->devs = dev;
    m->ndevs = list_devices(vm, dev);
    m->pm_port = PM_PORT;
    m->sci_gsi = SCI_GSI;
    m->reset_port = RESET_PORT;
    m->reset_value = RESET_VALUE;
    m->no_acpi = vm->cfg->no_acpi;
}

enum { MACHINE_MAPS_FILES = true };

static int machine_boot_linux(struct vm *vm, struct boot_desc *desc, struct boot_result *at)
{
    int err = boot_linux(desc, at);

    vm->entry = at->regs;
    return err;
}

static int machine_boot_flat(struct vm *vm, const struct boot_flat_desc *desc)
{
    return boot_flat(desc, &vm->entry);
}

/* The whole image where the CPU begins, at the end of the 32-bit addresses; nobody can write to
   it. */
static int plug_rom(struct vm *vm, const struct boot_file *file)
{
    void *rom = host_ram(file->len, 0, vm->log);
    int err = rom ? hyp_map(&vm->hyp, HOLE_END - file->len, file->len, rom, VMM_READ | VMM_EXEC)
                  : -ENOMEM;

    if (!err)
        memcpy(rom, file->data, file->len); /* not before: some hypervisors zero what they map */
    return err;
}

/* Under a number, or (name) as a file. */
static void add_item(struct vm *vm, unsigned key, const char *name, const void *data, size_t len)
{
    vm->firmware->item[vm->fwcfg.nitems++] = (struct pc_fwcfg_item){
        .name = name, .key = (uint16_t)key, .data = data, .len = (uint32_t)len};
}

/* What SeaBIOS reads to learn about its machine, and what it shall do: its console is COM1, too;
   no time is spent on a menu; and a machine that finds nothing to boot from resets. */
static int plug_fwcfg(struct vm *vm)
{
    enum { NB_CPUS = 5, MAX_CPUS = 0x0f, BOOT_MENU = 0x0e };
    static const uint8_t com1[2] = {COM1_PORT & 0xff, COM1_PORT >> 8}, zero[4];
    struct boot_dev dev[DEVICES_MAX];
    struct boot_machine machine = {.mem = &vm->mem, .ncpus = vm->cfg->ncpus, .pci = boot_pci(vm)};
    struct firmware *f = vm->firmware = calloc(1, sizeof *f);
    int err;

    if (!f)
        return vmm_err(vm->log, -ENOMEM, "out of memory");
    machine_describe(vm, &machine, dev);
    err = boot_firmware_make(&machine, &f->files, vm->log);
    f->ncpus = (uint16_t)vm->cfg->ncpus;
    f->mmio64 = machine.pci.mmio64;
    vm->fwcfg = (struct pc_fwcfg){.item = f->item, .mem = &vm->mem};
    add_item(vm, NB_CPUS, NULL, &f->ncpus, sizeof f->ncpus);
    add_item(vm, MAX_CPUS, NULL, &f->ncpus, sizeof f->ncpus);
    add_item(vm, BOOT_MENU, NULL, zero, 2);
    add_item(vm, 0, "etc/e820", f->files.e820, f->files.e820_len);
    if (f->files.loader_len) {
        add_item(vm, 0, "etc/acpi/tables", f->files.tables, f->files.tables_len);
        add_item(vm, 0, "etc/acpi/rsdp", f->files.rsdp, f->files.rsdp_len);
        add_item(vm, 0, "etc/table-loader", f->files.loader, f->files.loader_len);
    }
    add_item(vm, 0, "etc/sercon-port", com1, sizeof com1);
    add_item(vm, 0, "etc/boot-fail-wait", zero, sizeof zero);
    add_item(vm, 0, "etc/reserved-memory-end", &f->mmio64, sizeof f->mmio64);
    return err;
}

static int machine_boot_firmware(struct vm *vm, const struct boot_file *file)
{
    struct boot_firmware_desc desc = {.mem = &vm->mem, .file = *file, .log = vm->log};
    int err = boot_firmware(&desc, &vm->entry);

    if (!err)
        err = plug_rom(vm, file);
    return err ? err : plug_fwcfg(vm);
}

/* For INT 13h. */
static int bios_disk(void *ctx, unsigned disk, bool write, void *buf, uint64_t sector, unsigned n)
{
    return disk_sectors(&((struct vm *)ctx)->disk[disk], write, buf, sector, n);
}

static void on_no_boot(void *ctx)
{
    struct vm *vm = ctx;

    if (vm_end(vm, ST_RESET))
        vmm_say(vm->log, VMM_LOG_ERROR,
                "the guest found nothing to boot from, and left it to the BIOS (INT 18h)");
}

static uint64_t bios_now(void *ctx)
{
    (void)ctx;
    return host_now();
}

/* A file that is no boot disk is better refused now than by a guest that does not start. */
static int check_boot_sector(struct vm *vm)
{
    uint8_t sector[512];
    int err = bios_disk(vm, 0, false, sector, 0, 1);

    if (err)
        return vmm_err(vm->log, err, "disk '%s': its first sector cannot be read: %s",
                       vm->disk[0].path, strerror(-err));
    if (vmm_get16(sector + 510) != 0xaa55)
        return vmm_err(vm->log, -ENOEXEC,
                       "disk '%s' is no boot disk: its first sector does not end with 0x55, 0xaa",
                       vm->disk[0].path);
    return 0;
}

/* The ROM and what its services know of the machine, which stays with vm->bios. */
static void plug_bios(struct vm *vm, const struct boot_real_result *real)
{
    static struct pc_bios_range map[sizeof real->map / sizeof real->map[0]];
    struct pc_bios_desc desc = {.mem = &vm->mem,
                                .ports = &vm->ports,
                                .map = map,
                                .nmap = real->nmap,
                                .ndisks = vm->cfg->ndisks,
                                .disk = bios_disk,
                                .now = bios_now,
                                .off = on_poweroff,
                                .failed = on_no_boot,
                                .key_room = on_key_room,
                                .ctx = vm};

    for (unsigned i = 0; i < real->nmap; i++)
        map[i] = (struct pc_bios_range){real->map[i].gpa, real->map[i].len, real->map[i].type};
    for (unsigned i = 0; i < desc.ndisks; i++)
        desc.disk_len[i] = disk_len(&vm->disk[i]);
    pc_bios_rom(vmm_at(&vm->mem, PC_BIOS_GPA, PC_BIOS_LEN));
    pc_bios_init(&vm->bios, &desc);
}

/* He sees the screen, unless the guest speaks to COM1 itself. */
static void machine_watched(struct vm *vm)
{
    struct vmm_lock lock = host_mutex_lock(&vm->bios_lock);

    if (!vm->cfg->mini_bios || vm->uart[0].chip.heard)
        return;
    vmm_enter(&lock);
    pc_bios_redraw(&vm->bios);
    vmm_leave(&lock);
}

static int machine_boot_disk(struct vm *vm)
{
    struct boot_dev dev[4 + SLOTS_MAX];
    struct boot_real_desc desc = {
        .machine = {.mem = &vm->mem, .ncpus = vm->cfg->ncpus, .pci = boot_pci(vm)},
        .rom = PC_BIOS_GPA,
        .entry = pc_bios_entry(),
        .log = vm->log};
    struct boot_real_result real;
    int err = check_boot_sector(vm);

    machine_describe(vm, &desc.machine, dev);
    if (!err)
        err = boot_real(&desc, &real);
    if (err)
        return err;
    vm->entry = real.regs;
    plug_bios(vm, &real);
    return 0;
}

static int machine_enter(struct cpu *c)
{
    return hyp_set_regs(&c->hyp, &c->vm->entry);
}

static bool machine_has_button(const struct config *c)
{
    return !c->binary && !c->no_acpi;
}

static void machine_press(struct vm *vm)
{
    struct vmm_lock lock = host_mutex_lock(&vm->chips_lock);

    vmm_enter(&lock);
    pc_pm_button(&vm->pm);
    vmm_leave(&lock);
}

static uint64_t regs_pc(const struct vmm_regs *r)
{
    return r->rip;
}

static void log_regs(const struct vmm_log *log, const struct vmm_regs *r)
{
    static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15"};

    vmm_say(log, VMM_LOG_ERROR, "  %u-bit code, ring %u, interrupts %s", dbg_x86_bits(r),
            r->cr0 & 1 ? r->ss.attr >> 5 & 3u : 0, r->rflags & 0x200 ? "on" : "off");
    for (unsigned i = 0; i < 16; i += 4)
        vmm_say(log, VMM_LOG_ERROR, "  %s=%016llx %s=%016llx %s=%016llx %s=%016llx", names[i],
                (unsigned long long)r->gpr[i], names[i + 1], (unsigned long long)r->gpr[i + 1],
                names[i + 2], (unsigned long long)r->gpr[i + 2], names[i + 3],
                (unsigned long long)r->gpr[i + 3]);
    vmm_say(log, VMM_LOG_ERROR, "  rip=%016llx rflags=%08llx efer=%llx", (unsigned long long)r->rip,
            (unsigned long long)r->rflags, (unsigned long long)r->efer);
    vmm_say(log, VMM_LOG_ERROR, "  cs=%04x:%llx ss=%04x:%llx ds=%04x:%llx es=%04x:%llx",
            r->cs.selector, (unsigned long long)r->cs.base, r->ss.selector,
            (unsigned long long)r->ss.base, r->ds.selector, (unsigned long long)r->ds.base,
            r->es.selector, (unsigned long long)r->es.base);
    vmm_say(log, VMM_LOG_ERROR, "  fs=%04x:%llx gs=%04x:%llx tr=%04x:%llx gdt=%llx/%x idt=%llx/%x",
            r->fs.selector, (unsigned long long)r->fs.base, r->gs.selector,
            (unsigned long long)r->gs.base, r->tr.selector, (unsigned long long)r->tr.base,
            (unsigned long long)r->gdt.base, r->gdt.limit, (unsigned long long)r->idt.base,
            r->idt.limit);
    vmm_say(log, VMM_LOG_ERROR, "  cr0=%08llx cr2=%016llx cr3=%016llx cr4=%08llx",
            (unsigned long long)r->cr0, (unsigned long long)r->cr2, (unsigned long long)r->cr3,
            (unsigned long long)r->cr4);
}

/* A line of bytes in hex, and what they are called. */
static void log_insn(const struct vmm_log *log, uint64_t at, const uint8_t *code, unsigned len,
                     const char *text)
{
    char hex[3 * DBG_INSN_MAX + 1] = "";

    for (unsigned i = 0; i < len; i++)
        snprintf(hex + 3 * i, 4, " %02x", code[i]);
    vmm_say(log, VMM_LOG_ERROR, "  %16llx: %-24s %s", (unsigned long long)at, hex, text);
}

static void log_code(const struct vmm_log *log, const struct vmm_mem *mem, const struct vmm_regs *r)
{
    uint64_t base = dbg_x86_bits(r) == 64 ? 0 : r->cs.base;
    uint8_t code[4 * DBG_INSN_MAX];
    size_t known = dbg_x86_read(mem, r, base + r->rip, code, sizeof code), at = 0;
    char text[DBG_TEXT_MAX];

    if (!known)
        vmm_say(log, VMM_LOG_ERROR, "  there is no memory at rip");
    for (unsigned n = 0; n < 4 && at < known; n++) {
        unsigned len = dbg_x86_disasm(code + at, known - at, dbg_x86_bits(r), r->rip + at, text);
        if (!len) {
            log_insn(log, r->rip + at, code + at, known - at < 8 ? (unsigned)(known - at) : 8, "?");
            return;
        }
        log_insn(log, r->rip + at, code + at, len, text);
        at += len;
    }
}

static size_t regs_stack(const struct vmm_mem *mem, const struct vmm_regs *r, uint64_t *addr,
                         size_t n)
{
    return dbg_x86_stack(mem, r, addr, n);
}

/* The vector of divide errors has had these names since Linux 5.8, and before. */
static void regs_find_kernel(const struct vmm_mem *mem, const struct vmm_regs *r,
                             struct dbg_symbols *symbols)
{
    uint8_t gate[16];
    uint64_t handler;

    if (dbg_x86_read(mem, r, r->idt.base, gate, sizeof gate) != sizeof gate)
        return;
    handler = vmm_get16(gate) | (uint64_t)vmm_get16(gate + 6) << 16 |
              (uint64_t)vmm_get32(gate + 8) << 32;
    if (!dbg_symbols_moved(symbols, "asm_exc_divide_error", handler))
        dbg_symbols_moved(symbols, "divide_error", handler);
}

/* A CPU's own LAPIC is at the same address as everybody's. */
static void cpu_mmio(struct cpu *c, const struct vmm_exit *e)
{
    struct vm *vm = c->vm;
    struct vmm_lock lock = host_mutex_lock(&vm->cpus_lock);

    if (!vm->lapic || !pc_lapic_claims(&vm->lapic[c->id], e->addr)) {
        vmm_bus_exit(&vm->mmio, e);
        return;
    }
    vmm_enter(&lock);
    pc_irqchip_mmio(&vm->irqchip, c->id, e);
    vmm_leave(&lock);
}

static void cpu_msr(struct cpu *c, const struct vmm_exit *e)
{
    struct vmm_lock lock = host_mutex_lock(&c->vm->cpus_lock);
    bool known;

    vmm_enter(&lock);
    known = pc_irqchip_msr(&c->vm->irqchip, c->id, e);
    vmm_leave(&lock);
    if (!known)
        hyp_msr_refuse(&c->hyp);
}

static void cpu_eoi(struct cpu *c, uint8_t vector)
{
    struct vmm_lock lock = host_mutex_lock(&c->vm->cpus_lock);

    vmm_enter(&lock);
    pc_ioapic_eoi(&c->vm->irqchip.ioapic, vector);
    vmm_leave(&lock);
}

/* With the interrupt flag off, no interrupt ends HLT. A hypervisor may be unready for a moment with
   the flag on: then the guest is entered, and takes the interrupt as soon as it can. */
static void cpu_halt(struct cpu *c)
{
    struct vmm_regs regs;

    c->halted = true;
    c->deaf = !hyp_ready(&c->hyp) && !hyp_get_regs(&c->hyp, &regs) && !(regs.rflags & 0x200);
}

/* A handler of the mini BIOS asks for its service. One CPU boots. */
static bool is_bios_call(const struct cpu *c, const struct vmm_exit *e)
{
    return c->vm->cfg->mini_bios && c->id == 0 && e->write && e->addr >= PC_BIOS_PORT &&
           e->addr < PC_BIOS_PORT + PC_BIOS_PORTS;
}

static void cpu_bios(struct cpu *c, unsigned port)
{
    struct vmm_lock lock = host_mutex_lock(&c->vm->bios_lock);
    struct vmm_regs regs;
    int err = hyp_get_regs(&c->hyp, &regs);

    if (!err) {
        vmm_enter(&lock);
        pc_bios_call(&c->vm->bios, port, &regs);
        vmm_leave(&lock);
        err = hyp_set_regs(&c->hyp, &regs);
    }
    if (err)
        vm_end(c->vm, ST_HYPERVISOR);
}

static void machine_exit(struct cpu *c, const struct vmm_exit *e)
{
    if (e->kind == VMM_EXIT_PIO && is_bios_call(c, e))
        cpu_bios(c, (unsigned)e->addr);
    else if (e->kind == VMM_EXIT_PIO)
        vmm_bus_exit(&c->vm->ports, e);
    else if (e->kind == VMM_EXIT_MSR)
        cpu_msr(c, e);
    else if (e->kind == VMM_EXIT_EOI)
        cpu_eoi(c, (uint8_t)e->addr);
    else
        cpu_halt(c);
}

/* After an INIT a CPU waits for a start-up interrupt, but for the bootstrap one, which goes to the
   reset vector. Where there is no firmware, that is a reset. */
static int cpu_init(struct cpu *c)
{
    int err = hyp_uninject(&c->hyp);

    if (err || c->vm->lapic[c->id].waits)
        return err;
    if (c->vm->cfg->bios)
        return machine_enter(c);
    vm_end(c->vm, ST_RESET);
    return 0;
}

/* A CPU's registers after INIT and a start-up interrupt: real mode, at a page. */
static int cpu_startup(struct cpu *c, uint8_t page)
{
    const struct vmm_x86_seg data = {.limit = 0xffff, .attr = 0x93};
    struct vmm_regs r = {.rflags = 2, .cr0 = 0x60000010};

    r.ds = r.es = r.fs = r.gs = r.ss = r.cs = r.tr = r.ldt = data;
    r.cs.selector = (uint16_t)(page << 8);
    r.cs.base = (uint64_t)page << 12;
    r.cs.attr = 0x9b;
    r.tr.attr = 0x8b;
    r.ldt.attr = 0x82;
    r.gdt.limit = r.idt.limit = 0xffff;
    return hyp_set_regs(&c->hyp, &r);
}

/* What is to be done next, which for a halted CPU is to sleep until there is something, or until it
   is wanted: then it stays halted. With cpus_lock held: whatever comes up after the look wakes it.
 */
static enum pc_todo cpu_next(struct cpu *c, bool ready, uint8_t *vector)
{
    struct vm *vm = c->vm;

    for (;;) {
        enum pc_todo todo = pc_irqchip_next(&vm->irqchip, c->id, ready, vector);
        bool idle = todo == PC_TODO_NOTHING || (todo == PC_TODO_WINDOW && c->deaf);

        if (todo != PC_TODO_WAIT && !(c->halted && idle)) {
            c->halted = false;
            return todo;
        }
        if (vm_over(vm) || cpu_wanted(c))
            return PC_TODO_WAIT;
        host_cond_wait(&c->wake, &vm->cpus_lock);
    }
}

static int cpu_inject(struct cpu *c, uint8_t vector)
{
    if (traces(c->vm, TRACE_IRQ))
        trace(c->vm, "cpu%u takes 0x%02x", c->id, vector);
    return hyp_inject(&c->hyp, vector);
}

/* Has the CPU ready to enter the guest, with the interrupts that are due. */
static int cpu_prepare(struct cpu *c)
{
    struct vm *vm = c->vm;
    struct vmm_lock lock = host_mutex_lock(&vm->cpus_lock);
    enum pc_todo todo = PC_TODO_NOTHING;
    uint8_t vector = 0;
    int err = 0;

    vmm_enter(&lock);
    do {
        todo = cpu_next(c, hyp_ready(&c->hyp) && !c->stepping, &vector);
        if (todo == PC_TODO_INTERRUPT)
            err = cpu_inject(c, vector);
        else if (todo == PC_TODO_NMI)
            err = hyp_inject_nmi(&c->hyp);
        else if (todo == PC_TODO_INIT)
            err = cpu_init(c);
        else if (todo == PC_TODO_STARTUP)
            err = cpu_startup(c, vector);
    } while (!err && todo != PC_TODO_NOTHING && todo != PC_TODO_WINDOW && todo != PC_TODO_WAIT);
    hyp_want_window(&c->hyp, todo == PC_TODO_WINDOW && !c->stepping);
    if (vm->lapic) {
        c->cr8 = vm->lapic[c->id].tpr >> 4;
        hyp_set_cr8(&c->hyp, c->cr8);
    }
    __atomic_store_n(&c->inside, true, __ATOMIC_SEQ_CST);
    vmm_leave(&lock);
    return err;
}

/* The guest may have set its task priority by CR8, of which only the hypervisor knows. */
static void cpu_came_out(struct cpu *c)
{
    struct vm *vm = c->vm;
    struct vmm_lock lock = host_mutex_lock(&vm->cpus_lock);
    unsigned cr8 = hyp_cr8(&c->hyp);

    __atomic_store_n(&c->inside, false, __ATOMIC_SEQ_CST);
    if (!vm->lapic || cr8 == c->cr8)
        return;
    vmm_enter(&lock);
    pc_lapic_write(&vm->lapic[c->id], 0x80, 4, cr8 << 4);
    vmm_leave(&lock);
}

/* One stay in the guest. */
static int cpu_run(struct cpu *c, struct vmm_exit *e)
{
    int err;

    if (vm_can(c->vm, HYP_CAP_IRQCHIP))
        return hyp_run(&c->hyp, e);
    err = cpu_prepare(c);
    e->kind = VMM_EXIT_AGAIN;
    if (!err && !vm_over(c->vm) && !cpu_wanted(c))
        err = hyp_run(&c->hyp, e);
    cpu_came_out(c);
    return err;
}

#endif /* x86 */

/* >>arm64 ----------------------------------------------------------------------------------- */
#if defined(__aarch64__)

/* By enum uart_kind. */
static const struct place uart_places[] = {
#define DEV(name) offsetof(struct vm, name)
    {UART_BASE, 8, pc_uart_read, pc_uart_write, DEV(uart[0].chip), DEV(uart[0].lock)},
    {UART_BASE, PC_PRIMECELL_LEN, pc_pl011_read, pc_pl011_write, DEV(pl011), DEV(uart[0].lock)},
};
static const struct place machine_places[] = {
    {RTC_BASE, 4096, pc_pl031_read, pc_pl031_write, DEV(rtc), DEV(chips_lock)},
    {GPIO_BASE, 4096, pc_pl061_read, pc_pl061_write, DEV(gpio), DEV(chips_lock)},
#undef DEV
};

static struct vmm_irq machine_irq(struct vm *vm, unsigned gsi)
{
    return (struct vmm_irq){.set = pc_gic_set, .ctx = &vm->gic, .line = gsi};
}

static void gic_output(void *ctx, unsigned cpu, unsigned lines)
{
    struct vm *vm = ctx;

    if (traces(vm, TRACE_IRQ))
        trace(vm, "cpu%u's inputs are %u", cpu, lines);
    hyp_cpu_lines(&vm->hyp, cpu, lines);
}

static int plug_irqchip(struct vm *vm)
{
    struct pc_gic_desc desc = {
        .ncpus = vm->cfg->ncpus, .dist = GIC_DIST, .cpu = GIC_CPU, .output = gic_output, .ctx = vm};

    if (desc.ncpus > PC_GIC_CPUS)
        return vmm_err(vm->log, -E2BIG,
                       "vmm's own interrupt controller is a GICv2, which serves %d CPUs, not %u: ask "
                       "for fewer",
                       PC_GIC_CPUS, desc.ncpus);
    host_mutex_init(&vm->gic_lock);
    desc.lock = host_mutex_lock(&vm->gic_lock);
    pc_gic_init(&vm->gic, &desc);
    return 0;
}

/* Addresses as wide as RAM and the window for PCI behind it need. */
static void machine_hyp_desc(const struct config *cfg, struct hyp_desc *desc)
{
    static const struct vmm_gic gic = {GIC_DIST, GIC_REDIST, GIC_ITS, GIC_CPU, GIC_V2M};
    uint64_t end = RAM_BASE + cfg->mem + 2 * MMIO64_LEN;

    desc->gic = &gic;
    desc->features_need = cfg->features_need;
    desc->features_want = cfg->features_want;
    while (desc->gpa_bits < 63 && 1ull << desc->gpa_bits < end)
        desc->gpa_bits++;
}

static const char *machine_hardware(void)
{
    return "hardware (EL2)";
}

static const char *machine_chips(unsigned caps)
{
    if (!(caps & HYP_CAP_GICV3))
        return "GICv2 and timers in the kernel; messages by a frame of vmm's";
    return caps & HYP_CAP_MSI ? "GICv3 with an ITS, and timers, in the kernel"
                              : "GICv3 with a frame for messages, and timers, of the system's";
}

static void machine_pci(struct vm *vm, struct pci_root_desc *desc)
{
    (void)vm;
    (void)desc; /* nothing that is not common */
}

static int machine_plug_ide(struct vm *vm, struct disk *d, const char *serial)
{
    (void)d;
    (void)serial;
    return vmm_err(vm->log, -ENOTSUP,
                   "--disk: bus=ide is for " FOREIGN " machines alone: leave it out");
}

static int machine_plug_pci(struct vm *vm)
{
    (void)vm;
    return 0;
}

/* A GICv3 that takes messages has an ITS; else they come by the frame. */
static bool has_its(const struct vm *vm)
{
    return vm_can(vm, HYP_CAP_GICV3) && vm_can(vm, HYP_CAP_MSI);
}

/* The frame for messages, as in Arm's Server Base System Architecture: a write of an SPI's
   number is an edge on it. Which it has, the guest reads. */
static uint64_t v2m_read(void *ctx, uint64_t off, unsigned len)
{
    (void)ctx;
    return off == 8 && len == 4 ? (V2M_GSI + 32) << 16 | V2M_LINES : 0;
}

static void v2m_write(void *ctx, uint64_t off, unsigned len, uint64_t val)
{
    uint64_t gsi = val - 32 - V2M_GSI;

    if (off == 0x40 && len == 4 && gsi < V2M_LINES)
        irq_pulse(ctx, (unsigned)(V2M_GSI + gsi), true);
}

static void machine_msi(struct vm *vm, unsigned vector, uint64_t addr, uint32_t data)
{
    (void)vector;
    if (addr >> 12 == GIC_V2M >> 12)
        v2m_write(vm, addr & 0xfff, 4, data);
}

static void tick_rtc(struct vm *vm)
{
    pc_pl031_tick(&vm->rtc);
}

static size_t pl011_rx(struct line *l, const void *buf, size_t len)
{
    return pc_pl011_rx(&l->vm->pl011, buf, len);
}

static void pl011_tx_ready(struct line *l)
{
    pc_pl011_tx_ready(&l->vm->pl011);
}

/* Both chips; the guest finds one. */
static void init_serial(struct vm *vm)
{
    struct vmm_irq irq = vm_irq(vm, UART_GSI);
    struct line *l = &vm->uart[0].line;
    struct pc_pl011_desc pl011 = {.irq = irq, .out = line_stream(l), .log = vm->log};

    init_uart(vm, 0, &irq);
    pc_pl011_init(&vm->pl011, &pl011);
    if (vm->cfg->uart == UART_PL011) {
        l->rx = pl011_rx;
        l->tx_ready = pl011_tx_ready;
    }
}

static void init_chips(struct vm *vm)
{
    struct vmm_irq gpio = vm_irq(vm, GPIO_GSI);
    struct pc_pl031_desc rtc = {
        .irq = vm_irq(vm, RTC_GSI), .now = rtc_now, .timer = wake_timer(&vm->rtc_wake)};

    host_mutex_init(&vm->chips_lock);
    init_serial(vm);
    pc_pl031_init(&vm->rtc, &rtc);
    pc_pl061_init(&vm->gpio, &gpio);
}

static int plug_chips(struct vm *vm)
{
    struct vmm_io v2m = {GIC_V2M, 4096, v2m_read, v2m_write, vm, {0}};
    int err = has_its(vm) ? 0 : vmm_bus_add(&vm->mmio, &v2m);

    init_chips(vm);
    if (!err)
        err = plug_place(vm, &vm->mmio, &uart_places[vm->cfg->uart]);
    for (size_t i = 0; i < sizeof machine_places / sizeof machine_places[0] && !err; i++)
        err = plug_place(vm, &vm->mmio, &machine_places[i]);
    return err ? err : plug_wake(vm, &vm->rtc_wake, &vm->chips_lock, tick_rtc);
}

static int plug_memory(struct vm *vm)
{
    return add_ram(vm, RAM_BASE, vm->cfg->mem);
}

static unsigned list_devices(const struct vm *vm, struct boot_dev *dev)
{
    bool pl011 = vm->cfg->uart == UART_PL011;
    unsigned n = 0;

    dev[n++] = (struct boot_dev){.kind = pl011 ? BOOT_DEV_PL011 : BOOT_DEV_UART,
                                 .base = UART_BASE,
                                 .len = uart_places[vm->cfg->uart].len,
                                 .gsi = UART_GSI};
    dev[n++] =
        (struct boot_dev){.kind = BOOT_DEV_PL031, .base = RTC_BASE, .len = 4096, .gsi = RTC_GSI};
    dev[n++] =
        (struct boot_dev){.kind = BOOT_DEV_PL061, .base = GPIO_BASE, .len = 4096, .gsi = GPIO_GSI};
    for (unsigned i = 0; i < mmio_slots(vm); i++)
        dev[n++] = (struct boot_dev){.kind = BOOT_DEV_VIRTIO_MMIO,
                                     .base = VIRTIO_BASE + i * (uint64_t)VIO_MMIO_LEN,
                                     .len = VIO_MMIO_LEN,
                                     .gsi = virtio_gsi[i]};
    return n;
}

#ifdef DISK_LIBDEFLATE
/* The sum of a gzip member. libdeflate's own brings 14 KB of tables and code for each processor. */
static uint32_t crc32(const uint8_t *p, size_t len)
{
    uint32_t t[8][256], c = ~0u;

    for (uint32_t i = 0; i < 256; i++) {
        t[0][i] = i;
        for (int bit = 0; bit < 8; bit++)
            t[0][i] = t[0][i] >> 1 ^ (t[0][i] & 1 ? 0xedb88320 : 0);
    }
    for (int k = 1; k < 8; k++) /* the same with k bytes of zero behind it */
        for (int i = 0; i < 256; i++)
            t[k][i] = t[k - 1][i] >> 8 ^ t[0][t[k - 1][i] & 255];
    for (; len >= 8; p += 8, len -= 8) {
        uint64_t v = vmm_get64(p) ^ c;
        c = 0;
        for (int k = 0; k < 8; k++)
            c ^= t[7 - k][v >> (8 * k) & 255];
    }
    for (; len > 0; p++, len--)
        c = c >> 8 ^ t[0][(c ^ *p) & 255];
    return ~c;
}

/* A member's header (RFC 1952, 2.3): its length; 0: there is none. */
static size_t gzip_header(const uint8_t *p, size_t len)
{
    unsigned flags = len < 18 ? 0xff : p[3];
    size_t n = 10;

    if (flags & 0xe0 || memcmp(p, "\x1f\x8b\x08", 3))
        return 0;
    if (flags & 4) /* extra field */
        n += 2u + vmm_get16(p + n);
    for (unsigned strings = (flags >> 3 & 1) + (flags >> 4 & 1); strings > 0; strings--) {
        while (n < len && p[n])
            n++;
        n++; /* name, or comment */
    }
    n += flags & 2; /* a sum of the header */
    return n < len ? n : 0;
}

static int64_t gunzip(const uint8_t *src, size_t len, uint8_t *dst, size_t cap)
{
    struct libdeflate_decompressor *z = libdeflate_alloc_decompressor();
    enum libdeflate_result rc = LIBDEFLATE_BAD_DATA;
    size_t head = gzip_header(src, len), used = 0, got = 0;

    if (z && head)
        rc = libdeflate_deflate_decompress_ex(z, src + head, len - head, dst, cap, &used, &got);
    libdeflate_free_decompressor(z);
    if (rc)
        return rc == LIBDEFLATE_INSUFFICIENT_SPACE ? -ENOSPC : -EINVAL;
    src += head + used;
    if (len - head - used < 8 || vmm_get32(src) != crc32(dst, got) || vmm_get32(src + 4) != (uint32_t)got)
        return -EINVAL;
    return (int64_t)got;
}
#endif

static int64_t unzstd(const void *src, size_t len, void *dst, size_t cap)
{
    struct disk_zstd *z = malloc(sizeof *z);
    int64_t n = z ? disk_unzstd(z, dst, cap, src, len) : -ENOMEM;

    free(z);
    return n;
}

/* A packed kernel is unpacked straight into guest memory. */
static int64_t unpack_kernel(void *ctx, enum boot_packing packing, const void *src, uint64_t len,
                             void *dst, uint64_t cap)
{
    (void)ctx;
#ifdef DISK_LIBDEFLATE
    if (packing == BOOT_GZIP)
        return gunzip(src, len, dst, cap);
#endif
    return packing == BOOT_ZSTD ? unzstd(src, len, dst, cap) : -ENOSYS;
}

static void machine_describe(const struct vm *vm, struct boot_machine *m, struct boot_dev *dev)
{
    bool v3 = vm_can(vm, HYP_CAP_GICV3), its = has_its(vm);

    m->arch = BOOT_ARCH_ARM64;
    m->devs = dev;
    m->ndevs = list_devices(vm, dev);
    m->arm64 = (struct boot_arm64){.gic = v3 ? 3 : 2,
                                   .gic_dist = GIC_DIST,
                                   .gic_cpu = v3 ? GIC_REDIST : GIC_CPU,
                                   .gic_its = its ? GIC_ITS : 0,
                                   .gic_v2m = its ? 0 : GIC_V2M,
                                   .v2m_spi = V2M_GSI,
                                   .v2m_nspis = V2M_LINES,
                                   .pmu_ppi = vm_can(vm, HYP_CAP_PMU) ? 7 : 0};
}

/* --dump-dtb: what there is to know is in the file, so that the guest need not run. */
static int dump_dtb(struct vm *vm, const struct boot_result *at)
{
    const char *path = vm->cfg->dump_dtb;
    const void *dtb = vmm_at(&vm->mem, at->dtb_gpa, at->dtb_len);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    ssize_t n = fd < 0 || !dtb ? -1 : write(fd, dtb, at->dtb_len);
    int err = n == (ssize_t)at->dtb_len ? 0 : n < 0 ? -errno : -ENOSPC;

    if (fd >= 0 && close(fd) && !err)
        err = -errno;
    if (err)
        return vmm_err(vm->log, err, "--dump-dtb: cannot write '%s': %s", path, strerror(-err));
    vm_end(vm, ST_POWEROFF);
    return 0;
}

/* An arm64 kernel runs where it is loaded, and writes to all of itself when it finds its random
   place: mapped, each page of the file would cost two exits and a copy, and no page is huge. */
enum { MACHINE_MAPS_FILES = false };

static int machine_boot_linux(struct vm *vm, struct boot_desc *desc, struct boot_result *at)
{
    uint8_t entropy[BOOT_ENTROPY_LEN];
    int err;

    desc->unpack = unpack_kernel;
    if (host_random(entropy, sizeof entropy) == sizeof entropy)
        desc->entropy = entropy;
    err = boot_linux(desc, at);
    vm->entry = at->arm64;
    return err || !vm->cfg->dump_dtb ? err : dump_dtb(vm, at);
}

static int machine_boot_disk(struct vm *vm)
{
    return vmm_err(vm->log, -ENOTSUP, "--guest is for " FOREIGN " machines alone: leave it out");
}

static void machine_watched(struct vm *vm)
{
    (void)vm; /* what it missed is gone */
}

static int machine_boot_firmware(struct vm *vm, const struct boot_file *file)
{
    (void)file;
    return vmm_err(vm->log, -ENOTSUP, "--bios is for " FOREIGN " machines alone: leave it out");
}

static int machine_boot_flat(struct vm *vm, const struct boot_flat_desc *desc)
{
    return boot_flat_arm64(desc, &vm->entry);
}

/* System registers stay as the hypervisor has reset them.

   No cache is cleaned for what the loader wrote: KVM invalidates the caches of a page to the point of
   coherency when it maps it for a guest whose caches may be off (stage 2 faults, Linux's
   stage2_map_walker and kvm_arm's icache and dcache operations), unless hardware makes that needless
   (FEAT_S2FWB, CTR_EL0.IDC and DIC). All of guest memory is mapped only on the guest's first touch,
   which comes after all was written. */
static int machine_enter(struct cpu *c)
{
    const struct vmm_regs *entry = &c->vm->entry;
    struct vmm_regs r;
    int err = hyp_get_regs(&c->hyp, &r);

    memcpy(r.x, entry->x, sizeof r.x);
    r.pc = entry->pc;
    r.pstate = entry->pstate;
    r.sp_el1 = entry->sp_el1;
    return err ? err : hyp_set_regs(&c->hyp, &r);
}

static bool machine_has_button(const struct config *c)
{
    return c->kernel;
}

static void hold_button(struct vm *vm, bool down)
{
    struct vmm_lock lock = host_mutex_lock(&vm->chips_lock);

    vmm_enter(&lock);
    pc_pl061_set(&vm->gpio, POWER_LINE, down);
    vmm_leave(&lock);
}

static void on_release(void *ctx)
{
    hold_button(ctx, false);
}

/* Long enough for a driver that waits until the contacts have come to rest. On the loop. */
static void machine_press(struct vm *vm)
{
    hold_button(vm, true);
    host_timer_set(&vm->loop, &vm->release, 200000000, on_release, vm);
}

static uint64_t regs_pc(const struct vmm_regs *r)
{
    return r->pc;
}

static void log_regs(const struct vmm_log *log, const struct vmm_regs *r)
{
    for (unsigned i = 0; i < 28; i += 4)
        vmm_say(log, VMM_LOG_ERROR, "  x%-2u=%016llx x%-2u=%016llx x%-2u=%016llx x%-2u=%016llx", i,
                (unsigned long long)r->x[i], i + 1, (unsigned long long)r->x[i + 1], i + 2,
                (unsigned long long)r->x[i + 2], i + 3, (unsigned long long)r->x[i + 3]);
    vmm_say(log, VMM_LOG_ERROR, "  x28=%016llx x29=%016llx lr =%016llx sp =%016llx",
            (unsigned long long)r->x[28], (unsigned long long)r->x[29],
            (unsigned long long)r->x[30], (unsigned long long)vmm_arm64_sp(r));
    vmm_say(log, VMM_LOG_ERROR, "  pc=%016llx pstate=%08llx elr=%016llx spsr=%08llx esr=%08llx",
            (unsigned long long)r->pc, (unsigned long long)r->pstate,
            (unsigned long long)r->elr_el1, (unsigned long long)r->spsr_el1,
            (unsigned long long)r->esr_el1);
    vmm_say(log, VMM_LOG_ERROR, "  far=%016llx ttbr0=%016llx ttbr1=%016llx sctlr=%08llx",
            (unsigned long long)r->far_el1, (unsigned long long)r->ttbr0_el1,
            (unsigned long long)r->ttbr1_el1, (unsigned long long)r->sctlr_el1);
}

static void log_code(const struct vmm_log *log, const struct vmm_mem *mem, const struct vmm_regs *r)
{
    uint32_t code[4];
    size_t known = dbg_arm64_read(mem, r, r->pc, code, sizeof code) / 4;
    char text[DBG_TEXT_MAX];

    if (!known)
        vmm_say(log, VMM_LOG_ERROR, "  there is no memory at pc");
    for (size_t i = 0; i < known; i++) {
        dbg_arm64_disasm(code[i], r->pc + 4 * i, text);
        vmm_say(log, VMM_LOG_ERROR, "  %16llx: %08x  %s", (unsigned long long)(r->pc + 4 * i),
                code[i], text);
    }
}

static size_t regs_stack(const struct vmm_mem *mem, const struct vmm_regs *r, uint64_t *addr,
                         size_t n)
{
    return dbg_arm64_stack(mem, r, addr, n);
}

static void regs_find_kernel(const struct vmm_mem *mem, const struct vmm_regs *r,
                             struct dbg_symbols *symbols)
{
    (void)mem;
    dbg_symbols_moved(symbols, "vectors", r->vbar_el1);
}

static void cpu_mmio(struct cpu *c, const struct vmm_exit *e)
{
    struct vm *vm = c->vm;

    if (vm_can(vm, HYP_CAP_IRQCHIP) || !pc_gic_mmio(&vm->gic, c->id, e))
        vmm_bus_exit(&vm->mmio, e);
}

static void machine_exit(struct cpu *c, const struct vmm_exit *e)
{
    (void)c;
    (void)e; /* none but the common ones */
}

/* What the CPU's timers say reaches the interrupt controller before the guest's access does: it may
   be the end of the timer's interrupt. */
static int cpu_run(struct cpu *c, struct vmm_exit *e)
{
    int err = hyp_run(&c->hyp, e);
    uint32_t ppis;

    if (err || vm_can(c->vm, HYP_CAP_IRQCHIP))
        return err;
    ppis = hyp_cpu_ppis(&c->hyp);
    if (ppis != c->ppis)
        pc_gic_set_ppis(&c->vm->gic, c->id, ppis ^ c->ppis, ppis);
    c->ppis = ppis;
    return 0;
}

#endif /* arm64 */

/* >>boot ------------------------------------------------------------------------------------ */

struct images {
    const struct vmm_mem *mem;
    bool remap; /* else files are read */
    struct host_file kernel, initrd, dtb, module[MODULES_MAX];
};

/* boot.h asks for whole pages of a file in guest memory: mapped they cost no copy, and are shared
   until written. */
static int map_file(void *ctx, const struct boot_file *file, uint64_t off, uint64_t gpa,
                    uint64_t len)
{
    struct images *im = ctx;
    const struct host_file *from = file->data == im->kernel.data ? &im->kernel : &im->initrd;
    void *at = vmm_at(im->mem, gpa, len);

    for (unsigned i = 0; i < MODULES_MAX; i++)
        if (im->module[i].data == file->data)
            from = &im->module[i];
    if (!at)
        return -EFAULT;
    return im->remap ? host_ram_file(at, from, off, len) : host_file_read(from, off, at, len);
}

/* The default command line names the console; --append adds, and without ACPI the kernel is told
   where the virtio devices are (kernels with VIRTIO_MMIO_CMDLINE_DEVICES listen). The caller
   frees it. */
static char *make_cmdline(const struct vm *vm)
{
    static const char *const serials[] = {"console=ttyS0 ", "console=ttyAMA0 "}; /* by enum uart_kind */
    const struct config *c = vm->cfg;
    const char *const consoles[] = {serials[c->uart], "console=hvc0 ", ""};
    size_t size = (c->cmdline ? strlen(c->cmdline) : 64) + (c->append ? strlen(c->append) : 0) +
                  SLOTS_MAX * 48 + 2;
    char *line = malloc(size);
    int n;

    if (!line)
        return NULL;
    n = snprintf(line, size, "%s%s%s%s", c->cmdline ? "" : consoles[c->console],
                 c->cmdline ? c->cmdline : CMDLINE_DEFAULT, c->append ? " " : "",
                 c->append ? c->append : "");
    for (unsigned i = 0; i < mmio_slots(vm) && c->no_acpi; i++)
        n +=
            snprintf(line + n, size - (size_t)n, " virtio_mmio.device=4K@0x%llx:%u",
                     (unsigned long long)(VIRTIO_BASE + i * (uint64_t)VIO_MMIO_LEN), virtio_gsi[i]);
    return line;
}

static struct boot_file boot_file(const struct host_file *f, const char *name)
{
    return (struct boot_file){.data = f->data, .len = f->len, .name = name};
}

/* Hands boot.h one description of the machine; e820, ACPI and MP table come from it. */
static int load_images(struct vm *vm, struct images *im, const char *cmdline)
{
    const struct config *c = vm->cfg;
    struct boot_dev dev[DEVICES_MAX];
    struct boot_desc desc = {
        .machine = {.mem = &vm->mem, .ncpus = c->ncpus, .pci = boot_pci(vm)},
        .kernel = boot_file(&im->kernel, c->kernel),
        .initrd = boot_file(&im->initrd, c->initrd),
        .dtb = boot_file(&im->dtb, c->dtb),
        .cmdline = cmdline,
        .entry = c->kernel_entry,
        .load_addr = c->kernel_load,
        .map = map_file,
        .ctx = im,
        .log = vm->log,
    };
    struct boot_module module[MODULES_MAX];
    struct boot_result result;
    int err;

    for (unsigned i = 0; i < c->nmodules; i++)
        module[i] = (struct boot_module){boot_file(&im->module[i], c->module[i].path),
                                         c->module[i].cmdline};
    desc.modules = module;
    desc.nmodules = c->nmodules;
    machine_describe(vm, &desc.machine, dev);
    err = machine_boot_linux(vm, &desc, &result);
    if (err)
        return err;
    if (result.kernel_gpa < c->himem_start)
        return vmm_err(vm->log, -EINVAL,
                       "the kernel loads at 0x%llx, below himem_start: lower himem_start",
                       (unsigned long long)result.kernel_gpa);
    return 0;
}

/* The files are closed again before the guest runs: mapped pages keep what they need. */
static int load_kernel(struct vm *vm)
{
    const struct config *c = vm->cfg;
    struct images im = {.mem = &vm->mem, .remap = MACHINE_MAPS_FILES && vm_can(vm, HYP_CAP_REMAP)};
    char *cmdline = make_cmdline(vm);
    int err = cmdline ? host_file_open(&im.kernel, "kernel", c->kernel, vm->log) : -ENOMEM;

    if (!err && c->initrd)
        err = host_file_open(&im.initrd, "initrd", c->initrd, vm->log);
    if (!err && c->dtb)
        err = host_file_open(&im.dtb, "device tree", c->dtb, vm->log);
    for (unsigned i = 0; i < c->nmodules && !err; i++)
        err = host_file_open(&im.module[i], "module", c->module[i].path, vm->log);
    if (!err)
        err = load_images(vm, &im, cmdline);
    free(cmdline);
    for (unsigned i = 0; i < c->nmodules; i++)
        host_file_close(&im.module[i]);
    host_file_close(&im.dtb);
    host_file_close(&im.initrd);
    host_file_close(&im.kernel);
    return err;
}

static int load_binary(struct vm *vm)
{
    const struct config *c = vm->cfg;
    struct host_file file;
    int err = host_file_open(&file, "binary", c->binary, vm->log);
    struct boot_flat_desc desc = {
        .mem = &vm->mem, .load = c->load, .entry = c->entry, .mode = c->mode, .log = vm->log};

    if (err)
        return err;
    desc.file = boot_file(&file, c->binary);
    err = machine_boot_flat(vm, &desc);
    host_file_close(&file);
    return err;
}

static int load_firmware(struct vm *vm)
{
    struct host_file file;
    struct boot_file image;
    int err = host_file_open(&file, "firmware", vm->cfg->bios, vm->log);

    if (err)
        return err;
    image = boot_file(&file, vm->cfg->bios);
    err = machine_boot_firmware(vm, &image);
    host_file_close(&file);
    return err;
}

/* The mini BIOS may also be given as a file: then it is not firmware, and needs no chipset. Before the
   machine is built. */
static int choose_bios(struct vm *vm)
{
    struct config *c = vm->cfg;
    struct host_file file;
    int err = 0;

    if (c->bios) {
        err = host_file_open(&file, "firmware", c->bios, vm->log);
        c->mini_bios = !err && pc_bios_is_rom(file.data, file.len);
        host_file_close(&file);
    }
    if (err || !c->mini_bios)
        return err;
    c->bios = NULL;
    c->disk[0].ide = false;
    if (!c->ndisks)
        return vmm_err(vm->log, -EINVAL, "a BIOS without a disk has nothing to boot: give --guest");
    return 0;
}

static int load_guest(struct vm *vm)
{
    const struct config *c = vm->cfg;

    if (c->kernel)
        return load_kernel(vm);
    if (c->mini_bios)
        return machine_boot_disk(vm);
    return c->bios ? load_firmware(vm) : load_binary(vm);
}

/* >>debug: gdb's stub (debug.h) on the loop, and CPUs that stand still for it. A CPU parks between
   two stays in the guest, with nothing left to complete: when it was kicked out, when the debugger's
   own exit came, or when it is dead. Then the loop may read and change its registers. */

#if defined(__x86_64__)
/* Steps are the hypervisor's business, and it keeps interrupts away. */
static void debug_step_begin(struct cpu *c)
{
    (void)c;
}

static void debug_step_end(struct cpu *c)
{
    (void)c;
}

/* How gdb shall disassemble: for Linux, whatever mode it is entered in. */
static void debug_machine(const struct vm *vm, struct dbg_gdb_desc *desc)
{
    const struct config *c = vm->cfg;
    unsigned mode = c->gdb_mode ? c->gdb_mode : c->bios || c->guest ? 16 : c->kernel ? 64 : c->mode;

    desc->machine = mode == 64 ? DBG_X86_64 : mode == 32 ? DBG_X86_32 : DBG_X86_16;
}
#else
static void debug_step_begin(struct cpu *c)
{
    c->changed |= dbg_arm64_step_begin(&c->vm->mem, &c->state.regs, &c->quiet);
}

static void debug_step_end(struct cpu *c)
{
    dbg_arm64_step_end(&c->state.regs, &c->quiet);
    c->changed |= c->quiet.masked != 0;
}

static void debug_machine(const struct vm *vm, struct dbg_gdb_desc *desc)
{
    desc->machine = DBG_ARM64;
    hyp_debug_slots(&vm->hyp, &desc->breaks, &desc->watches);
}
#endif

/* With cpus_lock held: all CPUs shall park, each when it comes out of the guest and sees the flag,
   which therefore is set first. Once the last one has, the loop hears of it. */
static void debug_stop_all(struct vm *vm)
{
    struct debugger *d = &vm->debug;
    bool begun = __atomic_exchange_n(&d->stop, true, __ATOMIC_SEQ_CST);

    for (unsigned i = 0; i < vm->cfg->ncpus && !begun; i++) {
        if (vm->cpu[i].open && !vm->cpu[i].parked)
            hyp_kick(&vm->cpu[i].hyp);
        host_cond_wake(&vm->cpu[i].wake);
    }
    if (d->nparked == vm->cfg->ncpus)
        host_event_raise(&d->stood);
}

/* What gdb changed, and what it wants from now on. It may have asked for what no CPU can do. */
static void debug_leave(struct cpu *c, const struct vmm_debug *want)
{
    struct vm *vm = c->vm;

    if (want->step)
        debug_step_begin(c);
    if (c->changed &&
        (hyp_set_regs(&c->hyp, &c->state.regs) || hyp_set_fpu(&c->hyp, &c->state.fpu)))
        vmm_say(vm->log, VMM_LOG_WARN, "CPU %u cannot have the registers that gdb gave it", c->id);
    c->changed = false;
    c->stepping = want->step;
    hyp_debug(&c->hyp, want);
}

/* Stands still until gdb lets this CPU go. */
static void debug_park(struct cpu *c, unsigned why)
{
    struct vm *vm = c->vm;
    struct vmm_lock lock = host_mutex_lock(&vm->cpus_lock);
    struct vmm_debug want;

    if (hyp_get_regs(&c->hyp, &c->state.regs) || hyp_get_fpu(&c->hyp, &c->state.fpu))
        vm_end(vm, ST_FAILED);
    if (c->stepping)
        debug_step_end(c);
    vmm_enter(&lock);
    c->why = why;
    c->parked = true;
    vm->debug.nparked++;
    if (why && !vm->debug.stop)
        vm->debug.first = c->id;
    debug_stop_all(vm);
    while (c->parked && !vm_over(vm))
        host_cond_wait(&c->wake, &vm->cpus_lock);
    want = vm->debug.want;
    want.step = c->step;
    vmm_leave(&lock);
    debug_leave(c, &want);
}

/* Between two stays in the guest. */
static void debug_pause(struct cpu *c)
{
    if (__atomic_load_n(&c->vm->debug.stop, __ATOMIC_SEQ_CST))
        debug_park(c, 0);
}

/* The guest has breakpoint instructions of its own, and may single-step its programs. */
static void debug_exit(struct cpu *c, const struct vmm_exit *e)
{
    struct vmm_regs regs;
    bool ours = e->code;

    if (e->code & VMM_DEBUG_UNABLE)
        vmm_say(c->vm->log, VMM_LOG_WARN,
                "CPU %u cannot be stepped at " PC " 0x%llx: the guest has no handler of debug "
                "exceptions there; set a breakpoint where it has one",
                c->id, (unsigned long long)e->addr);
    if (e->code & VMM_DEBUG_TRAP)
        ours = !hyp_get_regs(&c->hyp, &regs) && dbg_gdb_owns(&c->vm->debug.gdb, &regs, e->addr);
    if (ours)
        debug_park(c, (unsigned)e->code);
    else
        hyp_debug_pass(&c->hyp);
}

/* HLT is stepped over, and the CPU asleep. */
static void debug_halted(struct cpu *c)
{
    if (c->stepping)
        debug_park(c, VMM_DEBUG_STEP);
}

/* Before the end, gdb may look at what is left. */
static void debug_died(struct cpu *c, const struct vmm_exit *e)
{
    if (__atomic_load_n(&c->vm->debug.attached, __ATOMIC_SEQ_CST) && !vm_over(c->vm))
        debug_park(c, e->kind == VMM_EXIT_SHUTDOWN ? DBG_WHY_SHUTDOWN : DBG_WHY_FAULT);
}

/* On the loop: all CPUs stand still, unless the stub has let them go meanwhile. */
static void on_stood(void *ctx)
{
    struct vm *vm = ctx;
    struct vmm_lock lock = host_mutex_lock(&vm->cpus_lock);
    unsigned n = vm->cfg->ncpus;
    bool stand;

    vmm_enter(&lock);
    stand = vm->debug.stop && vm->debug.nparked == n;
    for (unsigned i = 0; i < n && stand; i++) {
        struct cpu *c = &vm->cpu[(vm->debug.first + i) % n];
        if (c->why)
            dbg_gdb_why(&vm->debug.gdb, c->id, c->why);
        c->why = 0;
    }
    vmm_leave(&lock);
    if (stand)
        dbg_gdb_stopped(&vm->debug.gdb);
}

static void *on_gdb_cpu(void *ctx, unsigned cpu, bool write)
{
    struct vm *vm = ctx;

    vm->cpu[cpu].changed |= write;
    return &vm->cpu[cpu].state;
}

static void on_gdb_stop(void *ctx)
{
    struct vm *vm = ctx;
    struct vmm_lock lock = host_mutex_lock(&vm->cpus_lock);

    vmm_enter(&lock);
    debug_stop_all(vm);
    vmm_leave(&lock);
}

static void on_gdb_resume(void *ctx, const uint8_t *go, const struct vmm_debug *want)
{
    struct vm *vm = ctx;
    struct vmm_lock lock = host_mutex_lock(&vm->cpus_lock);

    vmm_enter(&lock);
    vm->debug.want = *want;
    __atomic_store_n(&vm->debug.stop, false, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < vm->cfg->ncpus; i++) {
        struct cpu *c = &vm->cpu[i];
        if (go[i] == DBG_STAY || !c->parked)
            continue;
        c->step = go[i] == DBG_STEP;
        c->parked = false;
        vm->debug.nparked--;
        host_cond_wake(&c->wake);
    }
    vmm_leave(&lock);
}

static void on_gdb_kill(void *ctx)
{
    vm_end(ctx, ST_SIGNAL + SIGKILL);
}

static size_t on_gdb_input(void *ctx, const void *buf, size_t len)
{
    return dbg_gdb_rx(&((struct vm *)ctx)->debug.gdb, buf, len);
}

static void on_gdb_writable(void *ctx)
{
    dbg_gdb_tx_ready(&((struct vm *)ctx)->debug.gdb);
}

static void on_gdb_peer(void *ctx, bool there)
{
    struct vm *vm = ctx;

    __atomic_store_n(&vm->debug.attached, there, __ATOMIC_SEQ_CST);
    dbg_gdb_peer(&vm->debug.gdb, there);
}

/* Before the first CPU runs. */
static int debug_open(struct vm *vm)
{
    const struct config *cfg = vm->cfg;
    struct debugger *d = &vm->debug;
    struct host_stream_desc stream = {.loop = &vm->loop,
                                      .spec = cfg->gdb,
                                      .input = on_gdb_input,
                                      .writable = on_gdb_writable,
                                      .peer = on_gdb_peer,
                                      .ctx = vm,
                                      .log = vm->log};
    struct dbg_gdb_desc desc = {.mem = &vm->mem,
                                .ncpus = cfg->ncpus,
                                .stopped = !cfg->gdb_nowait,
                                .stream = host_stream_port(&d->stream),
                                .cpu = on_gdb_cpu,
                                .stop = on_gdb_stop,
                                .resume = on_gdb_resume,
                                .kill = on_gdb_kill,
                                .ctx = vm};
    int err;

    if (!vm_can(vm, HYP_CAP_DEBUG))
        return vmm_err(vm->log, -ENOTSUP,
                       "--gdb: this host's hypervisor has no debugging of CPUs: leave it out");
    debug_machine(vm, &desc);
    host_event_init(&vm->loop, &d->stood, on_stood, vm);
    d->stop = desc.stopped;
    err = dbg_gdb_init(&d->gdb, &desc);
    if (!err)
        err = host_stream_open(&d->stream, &stream);
    if (!err && desc.stopped)
        fprintf(stderr, "vmm: the guest waits for gdb: target remote %s%s\n",
                *cfg->gdb == 't' ? ":" : "", strchr(cfg->gdb, ':') + 1);
    return err;
}

static void debug_close(struct vm *vm)
{
    if (!vm->debug.stream.desc.loop)
        return;
    dbg_gdb_over(&vm->debug.gdb, (uint8_t)vm->status);
    host_stream_close(&vm->debug.stream);
}

/* >>look: what CPUs are doing, for a human -------------------------------------------------- */

/* Symbols of a file that was given, or of the kernel's own if it is an ELF file that has some. */
static int open_symbols(struct vm *vm)
{
    const struct config *c = vm->cfg;
    const char *path = c->symbols ? c->symbols : c->kernel;
    int err;

    host_mutex_init(&vm->look_lock);
    if (!path)
        return 0;
    err = host_file_open(&vm->symbols_file, c->symbols ? "symbols" : "kernel", path, vm->log);
    if (err)
        return err;
    err = dbg_symbols_file(&vm->symbols, vm->symbols_file.data, vm->symbols_file.len);
    if (!err)
        return 0;
    host_file_close(&vm->symbols_file);
    vm->symbols = (struct dbg_symbols){0};
    if (!c->symbols)
        return 0;
    return vmm_err(vm->log, err, "symbols '%s': neither a System.map nor an ELF file with symbols",
                   path);
}

/* Before addresses are named: finds the kernel that runs. */
static void look_for_kernel(struct vm *vm, const struct vmm_regs *r)
{
    if (vm->symbols.file)
        regs_find_kernel(&vm->mem, r, &vm->symbols);
    else if (!vm->symbols.mem)
        dbg_symbols_linux(&vm->symbols, &vm->mem);
}

static void log_place(struct vm *vm, const struct vmm_log *log, const char *what, uint64_t addr)
{
    struct dbg_symbol symbol;

    if (dbg_symbol_at(&vm->symbols, addr, &symbol))
        vmm_say(log, VMM_LOG_ERROR, "%s%016llx %s+0x%llx", what, (unsigned long long)addr,
                symbol.name, (unsigned long long)symbol.offset);
    else
        vmm_say(log, VMM_LOG_ERROR, "%s%016llx", what, (unsigned long long)addr);
}

/* All that there is to say about a CPU, after a sentence that says why. On its thread, out of the
   guest. */
static void cpu_describe(struct cpu *c, const struct vmm_log *log)
{
    struct vm *vm = c->vm;
    struct vmm_regs regs;
    uint64_t from[16];
    size_t n;

    if (hyp_get_regs(&c->hyp, &regs)) {
        vmm_say(log, VMM_LOG_ERROR, "  its registers cannot be read");
        return;
    }
    look_for_kernel(vm, &regs);
    log_regs(log, &regs);
    log_place(vm, log, "  at   ", regs_pc(&regs));
    log_code(log, &vm->mem, &regs);
    n = regs_stack(&vm->mem, &regs, from, sizeof from / sizeof *from);
    for (size_t i = 0; i < n; i++)
        log_place(vm, log, "  from ", from[i]);
}

/* Does what it was wanted for. Asked for, it is said at any level of --log. */
static void cpu_attend(struct cpu *c)
{
    struct vmm_log log = {.sink = log_line, .level = VMM_LOG_ERROR};
    struct vmm_lock lock = host_mutex_lock(&c->vm->look_lock);

    if (!__atomic_exchange_n(&c->look, false, __ATOMIC_SEQ_CST))
        return;
    vmm_enter(&lock);
    vmm_say(&log, VMM_LOG_ERROR, "CPU %u of %u%s", c->id, c->vm->cfg->ncpus,
            c->halted ? ", halted" : "");
    cpu_describe(c, &log);
    vmm_leave(&lock);
}

/* >>cpus ------------------------------------------------------------------------------------ */

static const char software_kvm[] =
    "this host's KVM is a software one (no VMX or SVM), which interprets guests and cannot run "
    "every "
    "kernel: use a host with hardware virtualisation, or the lab ('make run')";

static bool is_software(const struct vm *vm)
{
    return hyp_caps(&vm->hyp) & HYP_CAP_SOFTWARE;
}

/* The guest is dead: says why, once, with what the CPU looked like. */
static void cpu_died(struct cpu *c, const struct vmm_exit *e)
{
    struct vm *vm = c->vm;
    struct vmm_lock lock = host_mutex_lock(&vm->look_lock);
    struct vmm_regs regs = {0};
    bool triple = e->kind == VMM_EXIT_SHUTDOWN;

    if (!vm_end(vm, triple ? ST_TRIPLE_FAULT : ST_HYPERVISOR))
        return;
    hyp_get_regs(&c->hyp, &regs);
    vmm_enter(&lock);
    if (triple)
        vmm_say(vm->log, VMM_LOG_ERROR, "the guest ended in a triple fault on CPU %u at " PC " 0x%llx",
                c->id, (unsigned long long)regs_pc(&regs));
    else
        vmm_say(vm->log, VMM_LOG_ERROR, "%s (%llu) on CPU %u at " PC " 0x%llx%s%s", e->why,
                (unsigned long long)e->code, c->id, (unsigned long long)regs_pc(&regs),
                is_software(vm) ? "; " : "", is_software(vm) ? software_kvm : "");
    cpu_describe(c, vm->log);
    vmm_leave(&lock);
}

/* Ports and MMIO go to whoever answers there; nobody's reads yield all ones. */
static void cpu_handle(struct cpu *c, const struct vmm_exit *e)
{
    if (traces(c->vm, TRACE_EXIT))
        trace_exit(c->vm, c->id, e);
    switch (e->kind) {
    case VMM_EXIT_MMIO:
        cpu_mmio(c, e);
        break;
    case VMM_EXIT_PIO:
    case VMM_EXIT_MSR:
    case VMM_EXIT_EOI:
        machine_exit(c, e);
        break;
    case VMM_EXIT_HALT:
        machine_exit(c, e);
        debug_halted(c);
        break;
    case VMM_EXIT_SHUTDOWN:
    case VMM_EXIT_FAULT:
        debug_died(c, e);
        cpu_died(c, e);
        break;
    case VMM_EXIT_OFF:
        vm_end(c->vm, ST_POWEROFF);
        break;
    case VMM_EXIT_RESET:
        vm_end(c->vm, ST_RESET);
        break;
    case VMM_EXIT_DEBUG:
        debug_exit(c, e);
        break;
    case VMM_EXIT_AGAIN:
        debug_pause(c);
        break;
    }
    if (traces(c->vm, TRACE_IO) && (e->kind == VMM_EXIT_PIO || e->kind == VMM_EXIT_MMIO))
        trace_io(c->vm, c->id, e);
}

static void cpu_set_open(struct cpu *c, bool open)
{
    struct vmm_lock lock = host_mutex_lock(&c->vm->cpus_lock);

    vmm_enter(&lock);
    c->open = open;
    vmm_leave(&lock);
}

/* Creates the CPU on its thread; CPU 0 gets the guest's first state once all others wait for it. */
static int cpu_open(struct cpu *c)
{
    struct vm *vm = c->vm;
    int err = hyp_cpu_open(&c->hyp, &vm->hyp, c->id);

    if (!err)
        cpu_set_open(c, true);
    else
        vm_end(vm, ST_UNFIT); /* before the gate: CPU 0 must not run without this one */
    if (c->id != 0) {
        host_gate_arrive(&vm->others_open);
        return err;
    }
    if (!err && (err = machine_enter(c)))
        vmm_err(vm->log, err, "the guest's first state is refused: %s", strerror(-err));
    host_gate_wait(&vm->others_open);
    vm_stamp(vm, STAGE_ENTRY);
    return err;
}

/* A vCPU's thread. Kicked out of the guest, it sees vm_over and leaves. */
static void *cpu_main(void *ctx)
{
    struct cpu *c = ctx;
    struct vm *vm = c->vm;
    struct vmm_exit e = {.kind = VMM_EXIT_AGAIN};
    int err = cpu_open(c);

    if (err)
        vm_end(vm, ST_UNFIT);
    else
        debug_pause(c);
    while (!err && !vm_over(vm)) {
        err = cpu_run(c, &e);
        if (!err)
            cpu_handle(c, &e);
        if (cpu_wanted(c))
            cpu_attend(c);
    }
    if (err)
        vm_end(vm, ST_FAILED);
    if (c->open) {
        cpu_set_open(c, false);
        hyp_cpu_close(&c->hyp);
    }
    return NULL;
}

/* The threads of all CPUs but the first, which runs on the main thread: it need not wait for the
   host's scheduler before it enters the guest. */
static int start_cpus(struct vm *vm)
{
    unsigned n = vm->cfg->ncpus;
    int err = 0;

    for (; vm->nthreads < n - 1 && !err; vm->nthreads += !err) {
        struct cpu *c = &vm->cpu[vm->nthreads + 1];
        snprintf(c->name, sizeof c->name, "vcpu%u", c->id);
        err = host_thread_start(&c->thread, cpu_main, c, c->name);
    }
    return err ? vmm_err(vm->log, err, "cannot start a thread for each CPU: %s", strerror(-err))
               : 0;
}

/* Has all come out of the guest, or look up from their sleep. */
static void kick_cpus(struct vm *vm)
{
    struct vmm_lock lock = host_mutex_lock(&vm->cpus_lock);

    vmm_enter(&lock);
    for (unsigned i = 0; i <= vm->nthreads; i++) {
        if (vm->cpu[i].open)
            hyp_kick(&vm->cpu[i].hyp);
        host_cond_wake(&vm->cpu[i].wake);
    }
    vmm_leave(&lock);
}

/* Each CPU prints its state, once it is out of the guest. */
static void look_at_cpus(struct vm *vm)
{
    for (unsigned i = 0; i < vm->cfg->ncpus; i++)
        __atomic_store_n(&vm->cpu[i].look, true, __ATOMIC_SEQ_CST);
    kick_cpus(vm);
}

/* The I/O thread. vm_end ends the loop, and then nobody shall stay in the guest. */
static void *io_main(void *ctx)
{
    struct vm *vm = ctx;

    if (host_loop_run(&vm->loop))
        vm_end(vm, ST_FAILED);
    kick_cpus(vm);
    return NULL;
}

/* Runs the guest to its end, on this thread and all others. */
static int run_cpus(struct vm *vm)
{
    struct host_thread io;
    int err;

    host_gate_init(&vm->others_open, vm->cfg->ncpus - 1);
    err = start_slots(vm);
    if (!err)
        err = start_cpus(vm);
    if (err)
        vm_end(vm, ST_UNFIT);
    if (host_thread_start(&io, io_main, vm, "io")) {
        kick_cpus(vm);
        return vmm_err(vm->log, -EAGAIN, "cannot start the I/O thread");
    }
    if (!err)
        cpu_main(&vm->cpu[0]);
    for (unsigned i = 1; i <= vm->nthreads; i++)
        host_thread_join(&vm->cpu[i].thread);
    stop_slots(vm);
    host_thread_join(&io);
    return err;
}

/* >>life ------------------------------------------------------------------------------------ */

static void on_deadline(void *ctx)
{
    struct vm *vm = ctx;

    if (vm_end(vm, ST_TIMEOUT))
        vmm_say(vm->log, VMM_LOG_ERROR, "the guest still ran after %u s: ended", vm->cfg->timeout);
}

/* SIGQUIT, or SIGHUP but for a terminal that is gone, asks for the state of all CPUs. */
static void on_ask(void *ctx, int signo)
{
    if (signo == SIGHUP && host_tty_gone(STDIN_FILENO))
        vm_end(ctx, ST_SIGNAL + signo);
    else
        look_at_cpus(ctx);
}

/* The first SIGTERM or SIGINT presses the power button, where the guest can have one; else it
   ends. */
static void on_signal(void *ctx, int signo)
{
    struct vm *vm = ctx;
    bool has_button = machine_has_button(vm->cfg);

    if (vm->button_pressed || !has_button) {
        vm_end(vm, ST_SIGNAL + signo);
        return;
    }
    vm->button_pressed = true;
    vmm_say(vm->log, VMM_LOG_WARN, "asked the guest to power off; a second signal ends it at once");
    machine_press(vm);
}

static int line_open(struct line *l, const char *spec)
{
    struct host_stream_desc desc = {.loop = &l->vm->loop,
                                    .spec = spec,
                                    .input = line_input,
                                    .writable = line_writable,
                                    .escape = on_escape,
                                    .peer = line_peer,
                                    .ctx = l,
                                    .log = l->vm->log};

    return host_stream_open(&l->stream, &desc);
}

/* A pseudo-terminal's name is known only now. */
static int line_open_as(struct line *l, const char *where, const char *what, const char *name)
{
    int err = line_open(l, where);

    if (!err && l->stream.pty_name[0])
        fprintf(stderr, "vmm: %s%s is at %s\n", what, name, l->stream.pty_name);
    return err;
}

static int open_streams(struct vm *vm)
{
    const struct config *c = vm->cfg;
    int err = 0;

    for (unsigned i = 0; i < nuarts(c) && !err; i++) {
        char n[2] = {(char)('1' + i), 0};
        err = line_open_as(&vm->uart[i].line, serial_where(c, i), "COM", n);
    }
    if (!err && vm->terminal.vm)
        err = line_open(&vm->terminal, "stdio");
    for (unsigned i = 0; i < c->nports && !err; i++)
        err = line_open_as(&vm->port[i], c->port[i].where, "port ", c->port[i].name);
    return err;
}

static void close_streams(struct vm *vm)
{
    for (unsigned i = 0; i < nuarts(vm->cfg); i++)
        host_stream_close(&vm->uart[i].line.stream);
    host_stream_close(&vm->terminal.stream);
    for (unsigned i = 0; i < vm->cfg->nports; i++)
        host_stream_close(&vm->port[i].stream);
    host_tty_restore();
}

/* The terminal that vmm runs on has another size, or has one at all. */
static void on_resize(void *ctx, int signo)
{
    struct vm *vm = ctx;
    struct line *l = &vm->terminal;
    uint16_t cols, rows;

    (void)signo;
    if (host_tty_size(STDIN_FILENO, &cols, &rows) && host_tty_size(STDOUT_FILENO, &cols, &rows))
        return;
    vmm_enter(&l->lock);
    vio_console_resize(l->console, l->port, cols, rows);
    vmm_leave(&l->lock);
}

/* Before any other thread exists: signals are blocked in all, and read by the loop. */
static int watch_life(struct vm *vm)
{
    static const int ends[] = {SIGTERM, SIGINT}, asks[] = {SIGQUIT, SIGHUP}, resize = SIGWINCH;
    int err = host_signals_add(&vm->loop, &vm->signals, ends, 2, on_signal, vm);

    if (!err)
        err = host_signals_add(&vm->loop, &vm->asked, asks, 2, on_ask, vm);
    if (!err && vm->terminal.vm) {
        err = host_signals_add(&vm->loop, &vm->resized, &resize, 1, on_resize, vm);
        on_resize(vm, SIGWINCH);
    }
    if (!err && vm->cfg->timeout)
        err = host_timer_set(&vm->loop, &vm->deadline, vm->cfg->timeout * 1000000000ull,
                             on_deadline, vm);
    return err;
}

/* >>images: qcow2 files and overlays, by disk.h over host_disk ------------------------------- */

_Static_assert(sizeof(struct disk_iov) == sizeof(struct host_iov) &&
                   offsetof(struct disk_iov, base) == offsetof(struct host_iov, base) &&
                   offsetof(struct disk_iov, len) == offsetof(struct host_iov, len),
               "buffers are handed on as they are");

static int image_rw(void *ctx, bool write, const struct disk_iov *iov, unsigned n, uint64_t off)
{
    struct host_disk *f = ctx;
    uint64_t end = off;

    for (unsigned i = 0; i < n; i++)
        end += iov[i].len;
    if (write && end > f->len)
        f->len = end;
    return host_disk_rw(f, write, (const struct host_iov *)(const void *)iov, n, off);
}

static int image_flush(void *ctx)
{
    return host_disk_flush(ctx);
}

static int image_punch(void *ctx, uint64_t off, uint64_t len)
{
    return host_disk_punch(ctx, off, len);
}

static struct disk_store image_store(struct host_disk *f)
{
    bool block = !f->ino;

    return (struct disk_store){.ctx = f,
                               .rw = image_rw,
                               .flush = image_flush,
                               .punch = image_punch,
                               .len = f->len,
                               .fixed = block,
                               .id = {f->dev, f->ino}};
}

static void backing_close(void *ctx)
{
    host_disk_close(ctx);
    free(ctx);
}

static int backing_open(void *ctx, const char *path, struct disk_store *store)
{
    const struct vm *vm = ctx;
    struct host_disk *f = calloc(1, sizeof *f);
    int err;

    if (!f)
        return vmm_err(vm->log, -ENOMEM, "out of memory");
    err = host_disk_open(f, path, HOST_DISK_RO | HOST_DISK_IMAGE, vm->log);
    if (err) {
        free(f);
        return err;
    }
    *store = image_store(f);
    store->close = backing_close;
    return 0;
}

static void *image_alloc(void *ctx, size_t len)
{
    (void)ctx;
    return calloc(1, len);
}

static void image_free(void *ctx, void *mem)
{
    (void)ctx;
    free(mem);
}

/* Opens what is in a file. name: for sentences, and to find backing files. */
static int image_open(struct vm *vm, struct disk_image *image, struct host_disk *f,
                      const char *name, enum disk_format format)
{
    struct disk_desc desc = {.log = vm->log,
                             .name = name,
                             .store = image_store(f),
                             .format = format,
                             .read_only = f->ro,
                             .open = backing_open,
                             .alloc = image_alloc,
                             .free = image_free,
                             .ctx = vm};

#ifdef DISK_LIBDEFLATE
    desc.inflate = disk_inflate;
#endif
    return disk_open(image, &desc);
}

/* The file that gets the writes: a temporary one, beside the disk or, where that is not possible,
   in TMPDIR; or the named one. */
static int overlay_file(struct vm *vm, const struct disk_config *c, const char *base,
                        struct host_disk *f)
{
    const char *tmp = getenv("TMPDIR");
    char *dir;
    int err;

    if (c->overlay_path)
        return host_disk_open(f, c->overlay_path,
                              HOST_DISK_IMAGE | HOST_DISK_NEW | (c->direct ? HOST_DISK_DIRECT : 0u),
                              vm->log);
    dir = strdup(base);
    if (!dir)
        return vmm_err(vm->log, -ENOMEM, "out of memory");
    strrchr(dir, '/')[1] = 0;
    err = host_disk_temp(f, dir, NULL);
    free(dir);
    return err ? host_disk_temp(f, tmp && *tmp ? tmp : "/tmp", vm->log) : 0;
}

/* An empty file becomes an overlay for the disk at path, of which length and format are needed. */
static int overlay_create(struct vm *vm, struct disk *d, const struct disk_config *c,
                          const char *path)
{
    struct disk_store store = image_store(&d->file);
    struct host_disk base;
    int err = host_disk_open(&base, path, HOST_DISK_RO | HOST_DISK_IMAGE, vm->log);

    if (err)
        return err;
    err = image_open(vm, d->image, &base, path, c->format);
    if (!err)
        err = disk_create(&store, d->image->len, path, d->image->format, vm->log);
    disk_close(d->image);
    host_disk_close(&base);
    if (err && c->overlay_path)
        remove(c->overlay_path);
    return err;
}

/* An overlay that was there already belongs to one disk, and shows nonsense over another. */
static int backing_is(struct vm *vm, const struct disk *d, const char *path, const char *name)
{
    const struct disk_image *b = d->image->backing;
    struct host_disk base;
    int err = host_disk_open(&base, path, HOST_DISK_RO | HOST_DISK_IMAGE, vm->log);

    if (err)
        return err;
    if (!b || b->desc.store.id[0] != base.dev || b->desc.store.id[1] != base.ino)
        err = vmm_err(vm->log, -EINVAL,
                      "overlay '%s' was made for another disk than '%s'; name a new file", name,
                      path);
    host_disk_close(&base);
    return err;
}

static int overlay_open(struct vm *vm, struct disk *d, const struct disk_config *c)
{
    const char *name = c->overlay_path ? c->overlay_path : c->path;
    char *path = realpath(c->path, NULL);
    struct host_disk base = {0};
    int err;

    if (!path)
        return host_disk_open(&base, c->path, HOST_DISK_RO, vm->log); /* says why */
    err = overlay_file(vm, c, path, &d->file);
    if (!err && !d->file.len)
        err = overlay_create(vm, d, c, path);
    if (!err)
        err = image_open(vm, d->image, &d->file, name, DISK_QCOW2);
    if (!err)
        err = backing_is(vm, d, path, name);
    free(path);
    return err;
}

/* What the guest did not flush is kept all the same, unless this process is killed. */
static void close_disk(struct vm *vm, struct disk *d)
{
    if (d->image && d->image->len && disk_flush(d->image))
        vmm_say(vm->log, VMM_LOG_WARN, "disk '%s': what was written last may be lost", d->path);
    if (d->image)
        disk_close(d->image);
    free(d->image);
    d->image = NULL;
    host_disk_close(&d->file);
}

/* A disk is a raw file, which the loop works on, or an image. */
static int open_disk(struct vm *vm, struct disk *d, const struct disk_config *c)
{
    unsigned flags = (c->ro ? HOST_DISK_RO : 0u) | (c->direct ? HOST_DISK_DIRECT : 0u);
    int err;

    if (c->format == DISK_RAW && !c->overlay)
        return host_disk_open(&d->file, c->path, flags, vm->log);
    host_mutex_init(&d->image_lock);
    d->image = calloc(1, sizeof *d->image);
    if (!d->image)
        return vmm_err(vm->log, -ENOMEM, "out of memory");
    if (c->overlay)
        return overlay_open(vm, d, c);
    err = host_disk_open(&d->file, c->path, flags | HOST_DISK_IMAGE, vm->log);
    if (!err)
        err = image_open(vm, d->image, &d->file, c->path, c->format);
    if (err || d->image->format != DISK_RAW)
        return err;
    disk_close(d->image);
    free(d->image);
    d->image = NULL;
    host_disk_close(&d->file);
    return host_disk_open(&d->file, c->path, flags, vm->log);
}

/* First of all, so that a disk in use is known before anything is built. */
static int open_disks(struct vm *vm)
{
    int err = 0;

    for (unsigned i = 0; i < vm->cfg->ndisks && !err; i++) {
        vm->disk[i].vm = vm;
        vm->disk[i].path = vm->cfg->disk[i].path;
        err = open_disk(vm, &vm->disk[i], &vm->cfg->disk[i]);
    }
    return err;
}

/* Taps with the disks; passt needs its card's loop. */
static int open_nets(struct vm *vm)
{
    int err = 0;

    for (unsigned i = 0; i < vm->cfg->nnets && !err; i++) {
        struct net *n = &vm->net[i];
        n->cfg = &vm->cfg->net[i];
        n->npairs = n->cfg->queues ? n->cfg->queues : 1;
        if (n->cfg->kind == NET_TAP)
            err = host_tap_open(&n->tap, n->cfg->where, n->npairs, vm->log);
        else if (n->cfg->kind == NET_TAPFD)
            err = host_tap_adopt(&n->tap, (int)n->cfg->fd, vm->log);
    }
    return err;
}

/* The hypervisor, with what is asked of it, and what vCPUs need before they exist: devices may
   interrupt them. A hypervisor without the chips asked for leaves them to us, but not half of
   them. */
static int open_hypervisor(struct vm *vm)
{
    const struct config *cfg = vm->cfg;
    struct hyp_desc desc = {.log = vm->log,
                            .ncpus = cfg->ncpus,
                            .no_irqchip = cfg->irqchip == IRQCHIP_USER,
                            .split_irqchip = cfg->irqchip == IRQCHIP_SPLIT};
    int err;

    machine_hyp_desc(cfg, &desc);
    err = hyp_open(&vm->hyp, &desc);
    if (!err && desc.split_irqchip && !vm_can(vm, HYP_CAP_LAPIC))
        return vmm_err(vm->log, -ENOTSUP,
                       "--irqchip split: this host's hypervisor has no LAPICs of their own: give "
                       "user or kernel");
    host_mutex_init(&vm->cpus_lock);
    host_mutex_init(&vm->messages_lock);
    vm->cpu = calloc(cfg->ncpus, sizeof *vm->cpu);
    if (!err && !vm->cpu)
        return vmm_err(vm->log, -ENOMEM, "out of memory");
    for (unsigned i = 0; vm->cpu && i < cfg->ncpus; i++) {
        vm->cpu[i].vm = vm;
        vm->cpu[i].id = i;
        host_cond_init(&vm->cpu[i].wake);
    }
    return err;
}

/* Everything up to the first vCPU; order: cheap refusals first, images after RAM is mapped. */
static int vm_build(struct vm *vm)
{
    int err = choose_bios(vm);

    if (!err)
        err = open_disks(vm);

    if (!err)
        err = open_nets(vm);
    if (!err)
        err = open_trace(vm);
    if (!err)
        err = open_symbols(vm);
    if (!err)
        err = open_hypervisor(vm);
    vm_stamp(vm, STAGE_OPENED);
    if (!err)
        err = plug_memory(vm);
    vm_stamp(vm, STAGE_MEMORY);
    if (!err && !vm_can(vm, HYP_CAP_IRQCHIP))
        err = plug_irqchip(vm);
    if (!err && vm->cfg->transport == TRANSPORT_PCI)
        err = plug_pci(vm);
    if (!err)
        err = plug_virtio(vm);
    if (!err)
        err = plug_vfio(vm);
    if (!err)
        err = plug_chips(vm);
    if (!err)
        err = load_guest(vm);
    if (!err && vm->npassed)
        err = vfiodev_host_map(&vm->vfio, &vm->mem);
    vm_stamp(vm, STAGE_LOADED);
    if (!err && vm->cfg->kernel && is_software(vm))
        vmm_say(vm->log, VMM_LOG_WARN, "%s", software_kvm);
    return err;
}

/* >>report ---------------------------------------------------------------------------------- */

/* Microseconds since main() began; `start` itself is CLOCK_MONOTONIC; null: never reached. */
static void print_times(const struct vm *vm)
{
    static const char *const names[NSTAGES] = {"start", "opened",  "memory", "loaded",
                                               "entry", "console", "exit"};
    uint64_t start = vm->stage[STAGE_START];

    fprintf(stderr, "{\"start\":%llu", (unsigned long long)start / 1000);
    for (unsigned i = 1; i < NSTAGES; i++)
        if (vm->stage[i])
            fprintf(stderr, ",\"%s\":%llu", names[i],
                    (unsigned long long)(vm->stage[i] - start) / 1000);
        else
            fprintf(stderr, ",\"%s\":null", names[i]);
    fprintf(stderr, "}\n");
}

/* >>doctor: what this host can do, and what to do about each lack --------------------------- */

enum verdict { FINE, LESS, LACK }; /* LESS: works, slower or with less; LACK: no VM can run */

struct doctor {
    bool json;
    unsigned nfindings;
    bool lacks;
    char said[512]; /* what the hypervisor backend said when it refused */
};

/* Text as a JSON string: quotes and backslashes escaped, control bytes left out. */
static void print_json_text(const char *s)
{
    putchar('"');
    for (; *s; s++)
        if (*s == '"' || *s == '\\')
            printf("\\%c", *s);
        else if ((unsigned char)*s >= 0x20)
            putchar(*s);
    putchar('"');
}

/* One line, or one JSON object, a finding. */
static void finding(struct doctor *d, enum verdict v, const char *topic, const char *what,
                    const char *remedy)
{
    static const char *const words[] = {"fine", "less", "lack"};

    d->lacks |= v == LACK;
    if (!d->json) {
        printf("%s  %-14s %s%s%s\n", words[v], topic, what, v == FINE ? "" : ": ",
               v == FINE ? "" : remedy);
        return;
    }
    printf("%s\n  {\"topic\": ", d->nfindings++ ? "," : "[");
    print_json_text(topic);
    printf(", \"verdict\": \"%s\", \"finding\": ", words[v]);
    print_json_text(what);
    printf(", \"remedy\": ");
    print_json_text(v == FINE ? "" : remedy);
    putchar('}');
}

static void doctor_hears(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    struct doctor *d = ctx;

    (void)level;
    vsnprintf(d->said, sizeof d->said, fmt, args);
}

/* The backend's own sentence is the finding and the remedy. */
static void check_hypervisor(struct doctor *d)
{
    static struct hyp h; /* some KiB */
    struct vmm_log log = {.sink = doctor_hears, .ctx = d, .level = VMM_LOG_ERROR};
    struct hyp_desc desc = {.log = &log};
    struct config cfg;

    config_init(&cfg);
    machine_hyp_desc(&cfg, &desc);
    if (hyp_open(&h, &desc)) {
        char *remedy = strstr(d->said, ": ");
        if (remedy)
            *remedy = 0;
        finding(d, LACK, "hypervisor", d->said,
                remedy ? remedy + 2 : "see the kernel's log (dmesg)");
        return;
    }
    finding(d, FINE, "hypervisor", "it opens and creates a VM", "");
    if (hyp_caps(&h) & HYP_CAP_SOFTWARE)
        finding(d, LESS, "virtualisation", "software: guest kernels are interpreted and may fail",
                "use a host with VMX or SVM, or switch on nested virtualisation of this machine");
    else
        finding(d, FINE, "virtualisation", machine_hardware(), "");
    if (hyp_caps(&h) & HYP_CAP_IRQCHIP)
        finding(d, FINE, "irqchip", machine_chips(hyp_caps(&h)), "");
    else
        finding(d, LESS, "irqchip", "no interrupt controllers in the hypervisor: vmm's own are slower",
                "where it is KVM, use a newer kernel");
    if (hyp_caps(&h) & HYP_CAP_DOORBELL)
        finding(d, FINE, "ioeventfd", "queue notifications without an exit to user space", "");
    else
        finding(d, LESS, "ioeventfd", "no ioeventfd: queue notifications are slow",
                "where it is KVM, use a newer kernel");
    hyp_close(&h);
}

#ifdef __linux__
/* Does the file hold the text? false also when it cannot be read. */
static bool file_says(const char *path, const char *text)
{
    char buf[256];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, buf, sizeof buf - 1);

    if (fd >= 0)
        close(fd);
    buf[n < 0 ? 0 : n] = 0;
    return strstr(buf, text) != NULL;
}

/* What guest RAM costs on this host. */
static void check_memory(struct doctor *d)
{
    static const char thp[] = "/sys/kernel/mm/transparent_hugepage/enabled";

    if (file_says(thp, "[always]") || file_says(thp, "[madvise]"))
        finding(d, FINE, "huge pages", "transparent huge pages are on", "");
    else
        finding(d, LESS, "huge pages", "no transparent huge pages: guest memory is slower",
                "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled, as root");
    if (file_says("/proc/sys/vm/overcommit_memory", "2"))
        finding(d, LESS, "overcommit",
                "memory is never overcommitted: guest RAM counts as used in full",
                "sysctl vm.overcommit_memory=0, as root");
    else
        finding(d, FINE, "overcommit", "guest RAM counts only where it is touched", "");
}

#endif

#if defined(__linux__) || defined(__NetBSD__) || defined(__DragonFly__)
/* Devices that later features need; no VM fails for lack of them. */
static void check_device(struct doctor *d, const char *topic, const char *path, const char *absent)
{
    char what[128], remedy[160];
    int fd = open(path, O_RDWR | O_CLOEXEC);

    if (fd >= 0) {
        close(fd);
        snprintf(what, sizeof what, "%s opens", path);
        finding(d, FINE, topic, what, "");
        return;
    }
    snprintf(what, sizeof what, "%s: %s", path, strerror(errno));
    snprintf(remedy, sizeof remedy, "%s", absent);
    if (errno == EACCES || errno == EPERM)
        snprintf(remedy, sizeof remedy, "run as root, or give your user access to %s", path);
    finding(d, LESS, topic, what, remedy);
}
#endif

/* Is there a program of this name on PATH? */
static bool is_installed(const char *name)
{
    const char *dir = getenv("PATH");
    char path[512];

    for (; dir && *dir; dir += strcspn(dir, ":"), dir += *dir == ':') {
        snprintf(path, sizeof path, "%.*s/%s", (int)strcspn(dir, ":"), dir, name);
        if (!access(path, X_OK))
            return true;
    }
    return false;
}

/* What carries the frames of a guest without privileges, and the option that reaches it. */
static void check_helper(struct doctor *d, const char *name, const char *option)
{
    char what[128];
    bool there = is_installed(name);

    snprintf(what, sizeof what, there ? "%s is installed: networks by %s" : "%s is not installed", name,
             option);
    finding(d, there ? FINE : LESS, name, what, "install it, for networks without privileges");
}

/* What other options than those of the hypervisor need. */
static void check_host(struct doctor *d)
{
#if defined(__linux__)
    check_memory(d);
    check_device(d, "tap", "/dev/net/tun", "modprobe tun, as root");
    check_device(d, "vhost-net", "/dev/vhost-net", "modprobe vhost_net, as root");
    check_helper(d, "passt", "--net passt");
    check_device(d, "vhost-vsock", "/dev/vhost-vsock", "modprobe vhost_vsock, as root");
#elif defined(__NetBSD__) || defined(__DragonFly__)
    check_device(d, "tap", "/dev/tap0", "ifconfig tap0 create up, as root");
    check_helper(d, "gvproxy", "--net unixgram=SOCKET");
#else
    finding(d, LESS, "tap", "this system has no taps",
            "give --net unixgram=SOCKET or passt=SOCKET of a helper");
    check_helper(d, "gvproxy", "--net unixgram=SOCKET");
#endif
#if defined(__APPLE__)
    check_helper(d, "socket_vmnet", "--net passt=SOCKET");
#endif
}

/* A device that the host keeps is no lack. */
static void found_vfio(void *ctx, int err, const struct vfiodev_finding *f)
{
    char what[640], *remedy;

    snprintf(what, sizeof what, "%s%s%s", f->what, err ? "; " : "", f->said);
    remedy = err ? strstr(what, ": ") : NULL;
    if (remedy)
        *remedy = 0;
    finding(ctx, err ? LESS : FINE, f->address, what, remedy ? remedy + 2 : f->what);
}

/* Which devices could be passed to a guest now. */
static int doctor_vfio(bool json)
{
    struct doctor d = {.json = json};

    if (!ON_LINUX)
        finding(&d, LESS, "pci", "this system has no VFIO", "only on Linux can devices be passed");
    else if (!vfiodev_list(found_vfio, &d))
        finding(&d, LESS, "pci", "no PCI device is to be seen", "run on the host, with /sys mounted");
    if (json)
        printf("\n]\n");
    return 0;
}

/* 0: a VM can run here. */
static int doctor(bool json)
{
    struct doctor d = {.json = json};

    check_hypervisor(&d);
    check_host(&d);
    if (json)
        printf("\n]\n");
    return d.lacks ? ST_UNFIT : 0;
}

/* >>main ------------------------------------------------------------------------------------ */

static void print_help(void)
{
    char name[32], left[64];

    printf("vmm " VMM_VERSION " - starts a virtual machine\n\n"
           "usage: vmm [run] [OPTION]...    run a VM until its guest powers off\n"
           "       vmm doctor [--json]      tell what this host can do\n"
           "%s\n",
           ON_LINUX
               ? "       vmm doctor --vfio        tell which devices of the host could be passed\n"
               : "");
    for (size_t i = 0; i < NOPTIONS; i++) {
        const struct option_def *o = &option_table[i];
        next_name(o->names, name);
        if (!is_offered(name))
            continue;
        snprintf(left, sizeof left, "%c%c --%s %s", o->letter ? '-' : ' ',
                 o->letter ? o->letter : ' ', name, o->value ? o->value : "");
        printf("  %-34s %s\n", left, o->help);
    }
    printf("\nOn a terminal: Ctrl-A X ends the VM, Ctrl-A S shows its CPUs, Ctrl-A H helps.\n"
           "Exit status: 0 powered off, 1 the host failed, 2 bad command line, 3 unfit file or "
           "host, 4 reset,\n"
           "5 triple fault, 6 hypervisor error, 7 guest panic, 124 timeout, 128+N signal N; port "
           "0xf4:\nthe guest's byte.\n");
}

/* The life of a VM. What fails before the guest runs is the host's or the user's fault:
   ST_UNFIT. */
static int run(struct config *cfg)
{
    static struct vm vm; /* large, and mostly never touched */
    int err;

    vm.cfg = cfg;
    vm.log = &cfg->log;
    vm.status = -1;
    vm_stamp(&vm, STAGE_START);
    cfg->log.level = cfg->level > VMM_LOG_ERROR ? cfg->level : VMM_LOG_ERROR;
    if (host_loop_init(&vm.loop, vm.log) || vm_build(&vm))
        return ST_UNFIT;
    err = watch_life(&vm);
    if (!err)
        err = open_streams(&vm);
    cfg->log.level = cfg->level;
    if (!err && cfg->gdb)
        err = debug_open(&vm);
    if (!err)
        err = run_cpus(&vm);
    if (err)
        vm_end(&vm, ST_UNFIT);
    for (unsigned i = 0; i < cfg->ndisks; i++)
        close_disk(&vm, &vm.disk[i]);
    for (unsigned i = 0; i < cfg->nnets; i++)
        host_passt_close(&vm.net[i].passt);
    close_vfio(&vm);
    close_streams(&vm);
    close_trace(&vm);
    debug_close(&vm);
    vm_stamp(&vm, STAGE_EXIT);
    if (cfg->time)
        print_times(&vm);
    return vm.status; /* the kernel takes descriptors and memory back */
}

/* A descriptor that the caller closed would otherwise become one of ours, and get the guest's
   output. */
static void occupy_standard_streams(void)
{
    while (true) {
        int fd = open("/dev/null", O_RDWR);
        if (fd < 0)
            return;
        if (fd > STDERR_FILENO) {
            close(fd);
            return;
        }
    }
}

VMM_DEF int vmm_main(int argc, char **argv)
{
    static struct config cfg;
    int status = ST_USAGE;

    occupy_standard_streams();
    config_init(&cfg);
    if (config_parse(&cfg, argc, argv) == 0)
        switch (cfg.command) {
        case CMD_HELP:
            print_help();
            status = 0;
            break;
        case CMD_VERSION:
            printf("vmm " VMM_VERSION "\n");
            status = 0;
            break;
        case CMD_DOCTOR:
            status = cfg.list_vfio ? doctor_vfio(cfg.json) : doctor(cfg.json);
            break;
        case CMD_RUN:
            status = run(&cfg);
            break;
        }
    config_free(&cfg);
    return status;
}

#ifndef VMM_NO_MAIN
int main(int argc, char **argv)
{
    return vmm_main(argc, argv);
}
#endif
