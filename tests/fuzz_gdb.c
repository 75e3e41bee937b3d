/* fuzz_gdb.c - a gdb that sends anything at any time to the stub of debug.h, and what must hold
   whatever it sends. MIT licence, see LICENSE

   The first byte chooses the machine, and whether it has page tables. Then: 0x80 | n opens n bytes of room in the stream, 0xc0 | cpu
   and a byte make that CPU stop for a reason, 0xff is gdb that goes and comes; a byte below 0x80 is
   the length of what gdb sends next, with its frame made right if it begins with '$'. */
#define DEBUG_IMPLEMENTATION
#include "../debug.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* No assert: it must hold in every build. */
static void must(bool held)
{
    if (!held)
        abort();
}

enum { RAM = 0x3000, NCPUS = 3 };

static struct machine {
    uint8_t ram[RAM];
    struct vmm_mem mem;
    struct dbg_x86_cpu x86[NCPUS];
    struct dbg_arm64_cpu arm64[NCPUS];
    struct dbg_gdb gdb;
    size_t room;
    bool stop; /* it shall */
    bool runs[NCPUS];
    enum { OUTSIDE, INSIDE, SUM1, SUM2 } state; /* of what gdb reads */
    uint8_t sum;
} m;

/* All that comes is packets with the right sum, and single characters between them. */
static void read_byte(char c)
{
    static const char hex[] = "0123456789abcdef";

    switch (m.state) {
    case OUTSIDE:
        must(c == '$' || c == '+' || c == '-');
        m.state = c == '$' ? INSIDE : OUTSIDE;
        m.sum = 0;
        break;
    case INSIDE:
        must(c != '$' && (uint8_t)c < 0x80 && (c >= ' ' || c == '\n'));
        m.state = c == '#' ? SUM1 : INSIDE;
        m.sum += c == '#' ? 0 : (uint8_t)c;
        break;
    case SUM1:
        must(c == hex[m.sum >> 4]);
        m.state = SUM2;
        break;
    case SUM2:
        must(c == hex[m.sum & 15]);
        m.state = OUTSIDE;
        break;
    }
}

static size_t take(void *ctx, const void *buf, size_t len)
{
    size_t n = len < m.room ? len : m.room;

    (void)ctx;
    must(len >= 1 && len <= DBG_PACKET_MAX + 8);
    for (size_t i = 0; i < n; i++)
        read_byte(((const char *)buf)[i]);
    m.room -= n;
    return n;
}

static void *cpu_of(void *ctx, unsigned cpu, bool write)
{
    (void)ctx;
    (void)write;
    must(cpu < NCPUS && !m.runs[cpu]);
    return m.gdb.desc.machine == DBG_ARM64 ? (void *)&m.arm64[cpu] : (void *)&m.x86[cpu];
}

static void stop(void *ctx)
{
    (void)ctx;
    m.stop = true;
}

static void resume(void *ctx, const uint8_t *go, const struct vmm_debug *want)
{
    bool some = false;

    (void)ctx;
    must(!want->step);
    for (unsigned i = 0; i < NCPUS; i++) {
        must(go[i] <= DBG_STEP);
        m.runs[i] |= go[i] != DBG_STAY;
        some |= m.runs[i];
    }
    must(some);
    for (unsigned i = 0; i < VMM_BREAKS; i++) {
        const struct vmm_break *b = &want->slot[i];
        must(b->len <= 8 && !(b->len & (b->len - 1u)) && b->kind <= VMM_BREAK_ACCESS);
        must(!b->len || !(b->addr & (b->len - 1u)));
        must(b->kind != VMM_BREAK_EXEC || b->len <= 1);
        must(b->kind != VMM_BREAK_EXEC || m.gdb.desc.machine != DBG_ARM64 || !(b->addr & 3));
    }
    m.stop = false;
}

static void kill_vm(void *ctx)
{
    (void)ctx;
}

/* The CPUs do what they were told to. */
static void settle(unsigned cpu, unsigned why)
{
    if (!m.stop && !(why && m.runs[cpu]))
        return;
    if (why && m.runs[cpu])
        dbg_gdb_why(&m.gdb, cpu, why);
    memset(m.runs, 0, sizeof m.runs);
    m.stop = false;
    dbg_gdb_stopped(&m.gdb);
}

/* What gdb sends: as it is, or as a packet with its sum. */
static void send(const uint8_t *body, size_t len)
{
    static const char hex[] = "0123456789abcdef";
    char buf[160];
    size_t n = 0;
    uint8_t sum = 0;

    memcpy(buf, body, len);
    if (len && body[0] == '$') {
        for (size_t i = 1; i < len; i++)
            sum += body[i];
        buf[len++] = '#';
        buf[len++] = hex[sum >> 4];
        buf[len++] = hex[sum & 15];
    }
    for (unsigned tries = 0; n < len && tries < 4; tries++) { /* else it has to wait for ever */
        n += dbg_gdb_rx(&m.gdb, buf + n, len - n);
        settle(0, 0);
        m.room = n < len ? 8192 : m.room;
        dbg_gdb_tx_ready(&m.gdb);
    }
}

/* Itself behind every address: x86 with 32-bit paging, 4 MiB pages, tables at 0; arm64 with 21 bits of
   each half, one level of 4 KiB pages. */
static void make_tables(enum dbg_machine machine)
{
    for (unsigned i = 0; i < 1024 && machine != DBG_ARM64; i++)
        vmm_put32(m.ram + 4 * i, 0x83);
    for (unsigned i = 0; i < 512 && machine == DBG_ARM64; i++)
        vmm_put64(m.ram + 8 * i, 0x403 | (uint64_t)(i % 3) << 12);
    for (unsigned i = 0; i < NCPUS; i++) {
        m.x86[i].regs.cr0 = 0x80000001;
        m.arm64[i].regs.sctlr_el1 = 1;
        m.arm64[i].regs.tcr_el1 = 43 | 43 << 16 | 2u << 30;
    }
}

static void start(uint8_t how)
{
    struct dbg_gdb_desc desc = {.machine = (enum dbg_machine)(how % 4),
                                .mem = &m.mem,
                                .ncpus = NCPUS,
                                .stopped = true,
                                .stream = {take, NULL, NULL},
                                .cpu = cpu_of,
                                .stop = stop,
                                .resume = resume,
                                .kill = kill_vm};

    memset(&m, 0, sizeof m);
    m.room = 8192;
    must(!vmm_mem_add(&m.mem, 0, RAM, m.ram));
    for (unsigned i = 0; i < NCPUS; i++) {
        m.x86[i].regs.cr0 = 1;
        m.x86[i].regs.cr4 = 0x10;
    }
    if (how & 0x40)
        make_tables(desc.machine);
    must(!dbg_gdb_init(&m.gdb, &desc));
    dbg_gdb_stopped(&m.gdb);
    dbg_gdb_peer(&m.gdb, true);
    settle(0, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (!len)
        return 0;
    start(*data++);
    for (len--; len; data++, len--) {
        size_t n = *data < len - 1 ? *data : len - 1;
        if (*data == 0xff) {
            dbg_gdb_peer(&m.gdb, false);
            settle(0, 0);
            must(!m.gdb.ntraps && !m.gdb.want.traps && !m.gdb.want.slot[0].len);
            m.state = OUTSIDE;
            dbg_gdb_peer(&m.gdb, true);
            settle(0, 0);
        } else if (*data >= 0xc0) {
            settle(*data % NCPUS, len > 1 ? data[1] : 0);
        } else if (*data >= 0x80) {
            m.room = *data & 0x3f;
            dbg_gdb_tx_ready(&m.gdb);
        } else {
            send(data + 1, n);
            data += n;
            len -= n;
        }
    }
    dbg_gdb_over(&m.gdb, 0);
    return 0;
}
