/* test_gdb.c - the stub of debug.h, spoken to as gdb speaks to it   MIT licence, see LICENSE

   The machine that it debugs is played here: two CPUs that stop when the test says so, memory without
   paging, and a stream that takes as many bytes as the test allows. */
#define DEBUG_IMPLEMENTATION
#include "../debug.h"

#include "check.h"
#include <stdlib.h>

enum { RAM = 0x4000 };

static uint8_t ram[RAM];
static struct vmm_mem mem;
static struct dbg_x86_cpu cpus[2];
static struct dbg_arm64_cpu arms[2];
static struct dbg_gdb g;
static struct {
    char out[65536]; /* what gdb got since the last look */
    size_t len, room;
    unsigned stops, resumes, kills, writes, offers;
    uint8_t go[2];
    struct vmm_debug want;
} seen;

static size_t take(void *ctx, const void *buf, size_t len)
{
    (void)ctx;
    if (len > seen.room)
        len = seen.room;
    memcpy(seen.out + seen.len, buf, len);
    seen.len += len;
    seen.room -= len;
    seen.out[seen.len] = 0;
    return len;
}

static void offer(void *ctx)
{
    (void)ctx;
    seen.offers++;
}

static void *cpu_of(void *ctx, unsigned cpu, bool write)
{
    (void)ctx;
    seen.writes += write;
    return g.desc.machine == DBG_ARM64 ? (void *)&arms[cpu] : (void *)&cpus[cpu];
}

static void stop(void *ctx)
{
    (void)ctx;
    seen.stops++;
}

static void resume(void *ctx, const uint8_t *go, const struct vmm_debug *want)
{
    (void)ctx;
    seen.resumes++;
    memcpy(seen.go, go, sizeof seen.go);
    seen.want = *want;
}

static void kill_vm(void *ctx)
{
    (void)ctx;
    seen.kills++;
}

static void start(enum dbg_machine machine, bool stopped)
{
    const struct dbg_gdb_desc desc = {.machine = machine,
                                      .mem = &mem,
                                      .ncpus = 2,
                                      .breaks = machine == DBG_ARM64 ? 2 : 0,
                                      .watches = machine == DBG_ARM64 ? 3 : 0,
                                      .stopped = stopped,
                                      .stream = {take, offer, NULL},
                                      .cpu = cpu_of,
                                      .stop = stop,
                                      .resume = resume,
                                      .kill = kill_vm};

    memset(&seen, 0, sizeof seen);
    memset(cpus, 0, sizeof cpus);
    memset(arms, 0, sizeof arms);
    memset(&mem, 0, sizeof mem);
    for (unsigned i = 0; i < RAM; i++)
        ram[i] = (uint8_t)(i * 7);
    seen.room = sizeof seen.out - 1;
    CHECK_EQ(vmm_mem_add(&mem, 0, RAM, ram), 0);
    CHECK_EQ(dbg_gdb_init(&g, &desc), 0);
}

static size_t raw(const char *bytes, size_t len)
{
    seen.len = 0;
    seen.out[0] = 0;
    return dbg_gdb_rx(&g, bytes, len);
}

/* A packet with its frame. */
static size_t frame(char *buf, const char *body, size_t len)
{
    uint8_t sum = 0;

    buf[0] = '$';
    memcpy(buf + 1, body, len);
    for (size_t i = 0; i < len; i++)
        sum += (uint8_t)body[i];
    snprintf(buf + 1 + len, 4, "#%02x", sum);
    return len + 4;
}

/* Sends a packet; the reply without its frame, whose sum must be right. NULL: none came. */
static const char *ask_bytes(const char *body, size_t body_len)
{
    static char reply[65536];
    char packet[8192], again[8192];
    size_t len = frame(packet, body, body_len);
    char *dollar;

    CHECK_EQ(raw(packet, len), len);
    dollar = strchr(seen.out, '$');
    if (!dollar)
        return NULL;
    strcpy(reply, dollar + 1);
    if (!CHECK(strlen(reply) >= 3 && reply[strlen(reply) - 3] == '#'))
        return NULL;
    reply[strlen(reply) - 3] = 0;
    frame(again, reply, strlen(reply));
    CHECK(strcmp(again, dollar) == 0);
    return reply;
}

static const char *ask(const char *body)
{
    return ask_bytes(body, strlen(body));
}

/* The reply is this, exactly. */
static void expect(const char *body, const char *reply)
{
    const char *got = ask(body);

    if (!CHECK(got && !strcmp(got, reply)))
        fprintf(stderr, "  %s: %s instead of %s\n", body, got ? got : "nothing", reply);
}

/* A packet that is answered later, if at all. */
static void silent(const char *body)
{
    CHECK(ask(body) == NULL);
}

/* All that gdb got since the last look. */
static void got(const char *what)
{
    char packet[256];

    frame(packet, what, strlen(what));
    if (!CHECK(strcmp(seen.out, packet) == 0))
        fprintf(stderr, "  %s instead of %s\n", seen.out, packet);
    seen.len = 0;
    seen.out[0] = 0;
}

/* gdb comes to a guest that waits for it, and says what gdb always says first. */
static void attach(enum dbg_machine machine)
{
    start(machine, true);
    dbg_gdb_stopped(&g);
    CHECK_EQ(seen.resumes, 0); /* until gdb comes, and as long as it likes */
    dbg_gdb_peer(&g, true);
    dbg_gdb_stopped(&g);
    CHECK(strstr(ask("qSupported:multiprocess+;swbreak+;hwbreak+"), "QStartNoAckMode+"));
    CHECK(seen.out[0] == '+');
    expect("QStartNoAckMode", "OK");
    CHECK(seen.out[0] == '+');
    CHECK_EQ(raw("+", 1), 1);
    expect("?", "T05thread:1;");
    CHECK(seen.out[0] == '$');
}

static void test_frames(void)
{
    char big[8192];

    start(DBG_X86_64, true);
    dbg_gdb_peer(&g, true);
    CHECK_EQ(raw("$?#3f", 5), 0); /* the guest does not stand still yet */
    dbg_gdb_stopped(&g);
    CHECK_EQ(seen.offers, 1);
    raw("$?#3f", 5);
    CHECK(strcmp(seen.out, "+$T05thread:1;#d7") == 0);
    raw("-", 1); /* once more, please */
    CHECK(strcmp(seen.out, "$T05thread:1;#d7") == 0);
    raw("$?#40", 5);
    CHECK(strcmp(seen.out, "-") == 0);
    raw("-", 1);
    CHECK(strcmp(seen.out, "") == 0);
    expect("vMustReplyEmpty", "");
    expect("qCRC:0,10", ""); /* and not qC */
    expect("", "");
    memset(big, 'm', sizeof big);
    CHECK(!strcmp(ask_bytes(big, 4097), "E16"));
    expect("qC", "QC1");
}

/* What gdb does not read stays until it does, and nothing new is taken meanwhile. */
static void test_slow(void)
{
    char packet[32];
    size_t len = frame(packet, "m0,800", 6), n;

    attach(DBG_X86_64);
    seen.room = 10;
    CHECK_EQ(raw(packet, len), len);
    CHECK_EQ(dbg_gdb_rx(&g, "$?#3f", 5), 0);
    for (n = 10; seen.len == n; n += 10) {
        seen.room = 10;
        dbg_gdb_tx_ready(&g);
    }
    CHECK_EQ(seen.len, 1 + 0x1000 + 3);
    seen.room = sizeof seen.out - seen.len - 1;
    dbg_gdb_tx_ready(&g);
    expect("?", "T05thread:1;");
}

/* A stop that comes while the last reply still waits to be read. */
static void test_slow_stop(void)
{
    start(DBG_X86_64, true);
    dbg_gdb_peer(&g, true);
    dbg_gdb_stopped(&g);
    seen.room = 0;
    raw("$c#63", 5);
    CHECK_EQ(seen.resumes, 1);
    dbg_gdb_why(&g, 1, VMM_DEBUG_STEP);
    dbg_gdb_stopped(&g);
    CHECK_EQ(seen.len, 0);
    seen.room = 100;
    dbg_gdb_tx_ready(&g);
    CHECK(strcmp(seen.out, "+$T05thread:2;#d8") == 0);
}

/* "name" in a description; where it begins, or NULL. */
static const char *described(const char *xml, const char *name)
{
    char quoted[32];

    snprintf(quoted, sizeof quoted, "name=\"%s\"", name);
    return strstr(xml, quoted);
}

/* All of a document, in pieces as gdb asks for them. */
static char *document(const char *what, unsigned piece)
{
    static char text[32768];
    char packet[64];
    size_t len = 0;
    const char *r;

    do {
        snprintf(packet, sizeof packet, "qXfer:%s:%zx,%x", what, len, piece);
        r = ask(packet);
        if (!CHECK(r && (*r == 'm' || *r == 'l') && strlen(r + 1) <= piece))
            break;
        CHECK(!strpbrk(r, "$#}*"));
        strcpy(text + len, r + 1);
        len += strlen(r + 1);
    } while (*r == 'm' && len < 30000);
    return text;
}

static void test_description(void)
{
    static const struct {
        const char *arch, *names[6];
    } want[] = {{"i386:x86-64", {"rax", "rip", "xmm15", "fs_base", "cr3", "fop"}},
                {"i386", {"eax", "eip", "xmm7", "fs_base", "cr3", "fop"}},
                {"i8086", {"eax", "eip", "mxcsr", "gs_base", "efer", "st7"}},
                {"aarch64", {"x0", "x30", "sp", "cpsr", "v31", "ttbr1_el1"}}};
    char arch[64], whole[32768];

    for (unsigned m = 0; m < 4; m++) {
        attach((enum dbg_machine)m);
        strcpy(whole, document("features:read:target.xml", 0xffb));
        snprintf(arch, sizeof arch, "<architecture>%s</architecture>", want[m].arch);
        CHECK(strstr(whole, arch));
        for (unsigned i = 0; i < 6; i++)
            CHECK(described(whole, want[m].names[i]));
        CHECK(!described(whole, m ? "rax" : "eax"));
        CHECK(strcmp(whole, document("features:read:target.xml", 100)) == 0);
        CHECK(strcmp(whole + strlen(whole) - 9, "</target>") == 0);
    }
    expect("qXfer:features:read:other.xml:0,100", "");
    CHECK(strstr(document("threads:read:", 50), "<thread id=\"2\" name=\"vcpu1\"/></threads>"));
    expect("qfThreadInfo", "m1,2");
    expect("qsThreadInfo", "l");
}

/* Of a description, what gdb numbers. */
static int number_of(const char *name)
{
    const char *xml = document("features:read:target.xml", 0xffb), *at = described(xml, name);
    int n = 0;

    if (!CHECK(at))
        return -1;
    while ((xml = strstr(xml, "<reg ")) != NULL && xml + 5 < at) {
        n++;
        xml++;
    }
    return n;
}

static void reg(const char *name, const char *value)
{
    char packet[32];

    snprintf(packet, sizeof packet, "p%x", number_of(name));
    expect(packet, value);
}

static void set_reg(const char *name, const char *value)
{
    char packet[64];

    snprintf(packet, sizeof packet, "P%x=%s", number_of(name), value);
    expect(packet, "OK");
}

static void test_registers(void)
{
    char *all, packet[4096] = "G";

    attach(DBG_X86_64);
    cpus[0].regs.gpr[VMM_RSI] = 0x1122334455667788;
    cpus[0].regs.rip = 0xffffffff81000000;
    cpus[0].regs.efer = 0x500;
    cpus[0].regs.cs = (struct vmm_x86_seg){0x10000, 0xffffffff, 0x10, 0xa09b};
    cpus[0].regs.gs.base = 0xffff888000000000;
    cpus[0].fpu.ftw = 0x81;
    cpus[0].fpu.st[1][9] = 0x40;
    cpus[0].fpu.xmm[15][15] = 0x5a;
    cpus[1].regs.gpr[VMM_RSI] = 2;
    reg("rsi", "8877665544332211");
    reg("rip", "00000081ffffffff"); /* 64-bit code has no base */
    reg("cs", "10000000");
    reg("gs_base", "000000008088ffff");
    reg("ftag", "fc3f0000");
    reg("st1", "00000000000000000040");
    reg("xmm15", "0000000000000000000000000000005a");
    reg("efer", "0005000000000000");
    expect("p1000", "E16");
    CHECK_EQ(seen.writes, 0);
    set_reg("rip", "efbeadde00000000");
    CHECK_EQ(cpus[0].regs.rip, 0xdeadbeef);
    set_reg("ftag", "ffff0000");
    CHECK_EQ(cpus[0].fpu.ftw, 0);
    set_reg("xmm15", "000102030405060708090a0b0c0d0e0f");
    CHECK_EQ(cpus[0].fpu.xmm[15][14], 14);
    CHECK_EQ(seen.writes, 3);
    expect("P0=12", "E16");
    expect("P0", "E16");
    expect("Hg2", "OK");
    reg("rsi", "0200000000000000");
    expect("Hg3", "E16");
    all = strcat(packet, ask("g"));
    cpus[1].regs.gpr[VMM_RSI] = 3;
    CHECK(!strcmp(ask(all), "OK"));
    CHECK_EQ(cpus[1].regs.gpr[VMM_RSI], 2);
    cpus[1].regs.gpr[VMM_RSI] = 3;
    all[strlen(all) - 1] = 0; /* short of half a byte: nothing is set */
    CHECK(!strcmp(ask(all), "E16"));
    CHECK_EQ(cpus[1].regs.gpr[VMM_RSI], 3);
}

/* gdb takes x0 to x30, SP, PC, CPSR, V0 to V31, FPSR and FPCR by these numbers, whatever is said. */
static void test_arm64_registers(void)
{
    char *all, packet[4096] = "G";

    attach(DBG_ARM64);
    CHECK(strstr(document("features:read:target.xml", 0xffb),
                 "<field name=\"EL\" start=\"2\" end=\"3\"/>"));
    arms[0].regs.x[30] = 0xffff800008001234;
    arms[0].regs.sp_el0 = 1;
    arms[0].regs.sp_el1 = 2;
    arms[0].regs.pstate = 0x3c5;
    arms[0].fpu.v[31][15] = 0x5a;
    arms[1].regs.x[0] = 7;
    expect("p1e", "341200080080ffff");
    expect("p1f", "0200000000000000"); /* EL1h */
    expect("p21", "c5030000");
    expect("p41", "0000000000000000000000000000005a");
    expect("P1f=0300000000000000", "OK");
    expect("P21=c4030000", "OK"); /* EL1t */
    expect("p1f", "0100000000000000");
    CHECK(arms[0].regs.sp_el1 == 3 && arms[0].regs.pstate == 0x3c4);
    expect("P1f=0400000000000000", "OK");
    expect("P20=0010000000000000", "OK");
    expect("P43=00000003", "OK");
    CHECK(arms[0].regs.sp_el0 == 4 && arms[0].regs.pc == 0x1000);
    CHECK_EQ(arms[0].fpu.fpcr, 0x3000000);
    reg("sp_el1", "0300000000000000");
    set_reg("tpidr_el1", "0000000000000080");
    CHECK_EQ(arms[0].regs.tpidr_el1, 1ull << 63);
    expect("p52", "E16"); /* there are 0x44 and 14 */
    expect("Hg2", "OK");
    expect("p0", "0700000000000000");
    all = strcat(packet, ask("g"));
    arms[1].regs.x[0] = 8;
    CHECK(!strcmp(ask(all), "OK") && arms[1].regs.x[0] == 7);
    CHECK(strstr(ask("qRcmd,72656773"), "696e666f20726567697374657273")); /* info registers */
}

/* Where a code segment has a base, gdb is told the linear address. */
static void test_real_mode(void)
{
    attach(DBG_X86_16);
    cpus[0].regs.rip = 0xfff0;
    cpus[0].regs.cs = (struct vmm_x86_seg){0xffff0000, 0xffff, 0xf000, 0x9b};
    reg("eip", "f0ffffff");
    set_reg("eip", "000affff");
    CHECK_EQ(cpus[0].regs.rip, 0xa00);
    reg("cs_base", "0000ffff00000000");
}

static void test_memory(void)
{
    attach(DBG_X86_64);
    expect("m1,4", "070e151c");
    expect("m3fff,2", "f9"); /* as much as there is */
    expect("m4000,1", "E0e");
    expect("mffffffffffffffff,2", "E0e");
    expect("m0,0", "");
    expect("m0", "E16");
    expect("m11112222333344445,1", "E16");
    CHECK_EQ(strlen(ask("m0,ffffffff")), 4096);
    expect("M100,3:abcdef", "OK");
    CHECK(ram[0x100] == 0xab && ram[0x102] == 0xef && ram[0x103] == (uint8_t)(0x103 * 7));
    expect("M100,3:abcd", "E16");
    expect("M100,2:abxx", "E16");
    expect("M3fff,2:0102", "E0e");
    expect("X200,0:", "OK");
    CHECK(!strcmp(ask_bytes("X200,4:}\x03}\x04}]a", 14), "OK")); /* # $ } a */
    CHECK(memcmp(ram + 0x200, "#$}a", 4) == 0);
    CHECK(!strcmp(ask_bytes("X200,4:abc", 10), "E16"));
}

/* Addresses behind page tables, and the physical ones below them. */
static void test_paging(void)
{
    attach(DBG_X86_64);
    memset(ram, 0, sizeof ram);
    vmm_put32(ram + 4 * 0x300, 0x83); /* 32-bit paging, 0xc0000000: the first 4 MiB */
    ram[0x2345] = 0x77;
    cpus[0].regs.cr0 = 0x80000001;
    cpus[0].regs.cr4 = 0x10;
    expect("mc0002345,1", "77");
    expect("m2345,1", "E0e");
    expect("qRcmd,70687973206f6e", "OK"); /* phys on */
    expect("m2345,1", "77");
    expect("Z0,c0002345,1", "OK"); /* a breakpoint stays the CPU's */
    CHECK_EQ(ram[0x2345], 0xcc);
    expect("m2345,1", "77");
    expect("qRcmd,70687973206f6666", "OK"); /* phys off */
    expect("Z0,2345,1", "E0e");
    CHECK(dbg_gdb_owns(&g, &cpus[0].regs, 0xc0002345));
    CHECK(!dbg_gdb_owns(&g, &cpus[0].regs, 0xc0002346));
    CHECK(!dbg_gdb_owns(&g, &cpus[0].regs, 0x2345));
    cpus[0].regs.cr0 = 1; /* other tables by the time that it is taken out */
    expect("z0,c0002345,1", "OK");
    CHECK_EQ(ram[0x2345], 0x77);
}

static void test_traps(void)
{
    attach(DBG_X86_64);
    expect("Z0,1000,1", "OK");
    expect("Z0,1000,1", "OK"); /* as often as it likes */
    CHECK_EQ(ram[0x1000], 0xcc);
    expect("mfff,3", "f90007");
    expect("Mfff,3:010203", "OK"); /* goes below it */
    CHECK(ram[0xfff] == 1 && ram[0x1000] == 0xcc && ram[0x1001] == 3);
    expect("mfff,3", "010203");
    expect("z0,1000,1", "OK");
    CHECK_EQ(ram[0x1000], 2);
    expect("z0,1000,1", "OK");
    expect("Z0,4000,1", "E0e");
    expect("Z0,10", "E16");
    expect("Z5,10,1", "");
    expect("Z0,2000,1", "OK");
    ram[0x2000] = 0x90; /* the guest loads other code there */
    expect("z0,2000,1", "OK");
    CHECK_EQ(ram[0x2000], 0x90);
}

/* A word, to which addresses are aligned; behind page tables of 16 KiB pages. */
static void test_arm64_traps(void)
{
    attach(DBG_ARM64);
    expect("Z0,1000,4", "OK");
    CHECK(memcmp(ram + 0x1000, "\0\0\x20\xd4", 4) == 0);
    expect("m1002,4", "0e151c23");
    expect("M1003,2:abcd", "OK"); /* partly below it */
    CHECK(memcmp(ram + 0x1000, "\0\0\x20\xd4\xcd", 5) == 0);
    expect("mffe,8", "f2f900070eabcd23");
    expect("Z0,1002,4", "E16");
    expect("Z1,1002,4", "E16");
    expect("z0,1000,4", "OK");
    CHECK_EQ(ram[0x1003], 0xab);
    memset(ram, 0, sizeof ram);
    arms[0].regs.sctlr_el1 = 1; /* 25 bits above: one level, of one page, which holds the table */
    arms[0].regs.tcr_el1 = 39 << 16 | 1u << 30;
    vmm_put64(ram + 8 * 5, 0x403);
    expect("Z0,ffffffffffff014000,4", "E16");
    expect("Z0,ffffffffff014100,4", "E0e");
    expect("Z0,ffffffffffe14100,4", "E0e");
    expect("Z0,fffffffffe014100,4", "OK");
    CHECK_EQ(vmm_get32(ram + 0x100), 0xd4200000);
    CHECK(dbg_gdb_owns(&g, &arms[0].regs, 0xfffffffffe014100));
    CHECK(!dbg_gdb_owns(&g, &arms[0].regs, 0xfffffffffe014104));
    dbg_gdb_peer(&g, false);
    CHECK_EQ(vmm_get32(ram + 0x100), 0);
}

/* Two addresses may lead to the same byte. */
static void test_aliases(void)
{
    attach(DBG_X86_64);
    memset(ram, 0, sizeof ram);
    vmm_put32(ram + 4 * 0x300, 0x83);
    vmm_put32(ram + 4 * 0x301, 0x83);
    ram[0x2345] = 0x77;
    cpus[0].regs.cr0 = 0x80000001;
    cpus[0].regs.cr4 = 0x10;
    expect("Z0,c0002345,1", "OK");
    expect("Z0,c0402345,1", "OK");
    expect("mc0402345,1", "77");
    expect("Mc0402345,1:78", "OK");
    CHECK_EQ(ram[0x2345], 0xcc);
    expect("z0,c0002345,1", "OK");
    CHECK_EQ(ram[0x2345], 0xcc);
    expect("z0,c0402345,1", "OK");
    CHECK_EQ(ram[0x2345], 0x78);
}

static void test_table_full(void)
{
    char packet[32];

    attach(DBG_X86_64);
    for (unsigned i = 0; i < DBG_TRAPS_MAX; i++) {
        snprintf(packet, sizeof packet, "Z0,%x,1", i);
        expect(packet, "OK");
    }
    expect("Z0,1000,1", "E1c");
    dbg_gdb_peer(&g, false);
    for (unsigned i = 0; i < RAM; i++)
        CHECK(ram[i] == (uint8_t)(i * 7));
}

static void test_watches(void)
{
    attach(DBG_X86_64);
    expect("Z1,1000,1", "OK");
    expect("Z2,2002,4", "OK"); /* two slots: neither 4 nor 8 bytes are aligned there */
    expect("Z4,3000,8", "OK");
    expect("Z3,3000,1", "E1c");
    expect("Z2,5000,0", "E16");
    expect("Z2,2002,4", "OK");
    silent("vCont;c");
    CHECK(seen.want.slot[0].addr == 0x1000 && seen.want.slot[0].kind == VMM_BREAK_EXEC);
    CHECK(seen.want.slot[1].addr == 0x2002 && seen.want.slot[1].len == 2);
    CHECK(seen.want.slot[2].addr == 0x2004 && seen.want.slot[2].kind == VMM_BREAK_WRITE);
    CHECK(seen.want.slot[3].len == 8 && seen.want.slot[3].kind == VMM_BREAK_ACCESS);
    CHECK(!seen.want.traps && seen.go[0] == DBG_RUN && seen.go[1] == DBG_RUN);
    seen.len = 0;
    dbg_gdb_why(&g, 1, 4);
    dbg_gdb_stopped(&g);
    got("T05watch:2004;thread:2;");
    expect("qC", "QC2");
    silent("vCont;c");
    dbg_gdb_why(&g, 0, 1);
    dbg_gdb_stopped(&g);
    got("T05hwbreak:;thread:1;");
    expect("z2,2002,4", "OK");
    expect("Z3,3000,1", "OK");
    silent("c");
    CHECK(seen.want.slot[1].addr == 0x3000 && seen.want.slot[1].len == 8);
    CHECK(seen.want.slot[2].addr == 0x3000 && seen.want.slot[2].len == 1);
    CHECK_EQ(seen.want.slot[3].len, 0);
    dbg_gdb_why(&g, 0, 4);
    dbg_gdb_stopped(&g);
    got("T05rwatch:3000;thread:1;");
}

/* This CPU has two breakpoints and three watchpoints. */
static void test_arm64_watches(void)
{
    attach(DBG_ARM64);
    expect("Z1,1000,4", "OK");
    expect("Z1,2000,4", "OK");
    expect("Z1,3000,4", "E1c");
    expect("Z2,2006,4", "OK");  /* two */
    expect("Z2,2010,1", "E1c"); /* of four slots */
    expect("z1,2000,4", "OK");
    expect("Z3,2010,1", "OK");
    expect("z1,1000,4", "OK");
    expect("Z4,2020,1", "E1c");
    silent("vCont;s:2;c");
    CHECK(seen.go[0] == DBG_RUN && seen.go[1] == DBG_STEP);
    CHECK(seen.want.slot[0].addr == 0x2010 && seen.want.slot[0].len == 1);
    CHECK(seen.want.slot[2].addr == 0x2008 && !seen.want.slot[3].len);
    dbg_gdb_why(&g, 1, 1);
    dbg_gdb_stopped(&g);
    got("T05rwatch:2010;thread:2;");
    silent("s3000");
    CHECK_EQ(arms[1].regs.pc, 0x3000);
}

/* Interrupts stay away from a step, but not from what has to do with them. */
static void test_arm64_step(void)
{
    static const struct {
        uint32_t insn;
        uint64_t pstate, masked;
    } cases[] = {
        {0xd503201f, 0x05, 0xc5}, {0xd503201f, 0x45, 0xc5}, /* NOP */
        {0xd503201f, 0xc5, 0xc5}, {0x91000400, 0x00, 0xc0}, /* at EL0 */
        {0xd51be020, 0x05, 0xc5},                           /* MSR CNTP_CTL_EL0 */
        {0xd4000001, 0x00, 0x00}, {0xd4200000, 0x05, 0x05}, /* SVC, BRK */
        {0xd53b4220, 0x05, 0x05}, {0xd51b423f, 0x05, 0x05}, /* MRS, MSR DAIF */
        {0xd50342df, 0x05, 0x05}, {0xd50343ff, 0x05, 0x05}, /* DAIFSet, DAIFClr */
        {0xd69f03e0, 0x05, 0x05}, {0xd69f0bff, 0x05, 0x05}, /* ERET, ERETAA */
    };
    struct vmm_arm64_regs r = {.vbar_el1 = 0x8000, .pc = 0x1000};
    struct dbg_arm64_step step;

    start(DBG_ARM64, true);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vmm_put32(ram + 0x1000, cases[i].insn);
        r.pstate = cases[i].pstate;
        CHECK_EQ(dbg_arm64_step_begin(&mem, &r, &step), cases[i].masked != cases[i].pstate);
        CHECK_EQ(r.pstate, cases[i].masked);
        dbg_arm64_step_end(&r, &step);
        CHECK_EQ(r.pstate, cases[i].pstate);
    }
    r.pc = RAM; /* no memory */
    CHECK(!dbg_arm64_step_begin(&mem, &r, &step));
    vmm_put32(ram + 0x1000, 0xf9400000); /* LDR, and then its fault's handler */
    r.pc = 0x1000;
    r.pstate = 0x80000045;
    CHECK(dbg_arm64_step_begin(&mem, &r, &step));
    r.elr_el1 = r.pc;
    r.spsr_el1 = r.pstate;
    r.pc = r.vbar_el1 + 0x200;
    r.pstate = 0x3c5;
    dbg_arm64_step_end(&r, &step);
    CHECK(r.pstate == 0x3c5 && r.spsr_el1 == 0x80000045);
}

/* Two CPUs stop at once: gdb learns of the second when it lets that go. */
static void test_both(void)
{
    attach(DBG_X86_64);
    expect("Z2,2000,4", "OK");
    silent("vCont;c");
    dbg_gdb_why(&g, 1, VMM_DEBUG_TRAP);
    dbg_gdb_why(&g, 0, 1);
    dbg_gdb_stopped(&g);
    got("T05swbreak:;thread:2;");
    silent("vCont;s:2"); /* the first stays, and keeps it */
    CHECK(seen.go[0] == DBG_STAY && seen.go[1] == DBG_STEP);
    dbg_gdb_why(&g, 1, VMM_DEBUG_STEP);
    dbg_gdb_stopped(&g);
    got("T05thread:2;");
    CHECK_EQ(seen.resumes, 2);
    expect("vCont;c", "T05watch:2000;thread:1;");
    CHECK_EQ(seen.resumes, 2);
    silent("vCont;c");
    CHECK_EQ(seen.resumes, 3);
    dbg_gdb_why(&g, 1, VMM_DEBUG_TRAP);
    dbg_gdb_why(&g, 0, 1);
    dbg_gdb_stopped(&g);
    got("T05swbreak:;thread:2;");
    expect("z2,2000,4", "OK"); /* no more of interest */
    silent("vCont;c");
    CHECK_EQ(seen.resumes, 4);
}

static void test_vcont(void)
{
    static const struct {
        const char *packet;
        uint8_t go[2];
    } good[] = {
        {"vCont;c", {DBG_RUN, DBG_RUN}},
        {"vCont;s:1;c", {DBG_STEP, DBG_RUN}},
        {"vCont;s:2;c:-1", {DBG_RUN, DBG_STEP}},
        {"vCont;C05:2", {DBG_STAY, DBG_RUN}},
        {"vCont;S05:0", {DBG_STEP, DBG_STAY}},
        {"c", {DBG_RUN, DBG_RUN}},
        {"s", {DBG_STEP, DBG_STAY}},
        {"C05", {DBG_RUN, DBG_RUN}},
        {"S05;1234", {DBG_STEP, DBG_STAY}},
    };
    static const char *const bad[] = {
        "vCont;", "vCont;x", "vCont;c:3", "vCont;c:", "vCont;c:1x", "vCont;C:1", "vCont;c:-2"};

    attach(DBG_X86_64);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        expect(bad[i], "E16");
    expect("vCont?", "vCont;c;C;s;S");
    for (unsigned i = 0; i < sizeof good / sizeof good[0]; i++) {
        silent(good[i].packet);
        CHECK_EQ(seen.resumes, i + 1);
        CHECK(memcmp(seen.go, good[i].go, 2) == 0);
        CHECK(!seen.want.step);
        dbg_gdb_why(&g, 0, VMM_DEBUG_STEP);
        dbg_gdb_stopped(&g);
        got("T05thread:1;");
    }
    CHECK_EQ(cpus[0].regs.rip, 0x1234);
}

static void test_interrupt(void)
{
    char packet[] = "$m0,1#fa\x03";

    attach(DBG_X86_64);
    raw("\x03", 1); /* stands still already */
    CHECK_EQ(seen.stops, 0);
    silent("vCont;c");
    CHECK_EQ(raw(packet, 9), 9); /* not now */
    CHECK_EQ(seen.stops, 1);
    CHECK_EQ(seen.len, 0);
    dbg_gdb_stopped(&g);
    got("T02thread:1;");
    silent("vCont;c");
    raw("\x03", 1);
    dbg_gdb_why(&g, 1, VMM_DEBUG_TRAP); /* comes at the same time, and is told first */
    dbg_gdb_stopped(&g);
    got("T05swbreak:;thread:2;");
    silent("vCont;c");
    dbg_gdb_why(&g, 0, DBG_WHY_SHUTDOWN);
    dbg_gdb_stopped(&g);
    got("T0bthread:1;");
    silent("c");
    dbg_gdb_over(&g, 5);
    got("W05");
}

/* A guest that runs is stopped when gdb comes, and is as before when it has gone. */
static void leave(const char *how)
{
    start(DBG_X86_64, false);
    dbg_gdb_peer(&g, true);
    CHECK_EQ(seen.stops, 1);
    dbg_gdb_stopped(&g);
    expect("Z0,1000,1", "OK");
    expect("Z1,1000,1", "OK");
    silent("c");
    CHECK(seen.want.traps && seen.want.slot[0].len);
    if (!strcmp(how, "while it runs")) {
        dbg_gdb_peer(&g, false);
        CHECK_EQ(seen.stops, 2);
        dbg_gdb_why(&g, 0, VMM_DEBUG_TRAP);
        dbg_gdb_stopped(&g);
    } else {
        dbg_gdb_stopped(&g);
        if (!strcmp(how, "D"))
            expect("D", "OK");
        dbg_gdb_peer(&g, false);
    }
    CHECK_EQ(seen.resumes, 2);
    CHECK(!seen.want.traps && !seen.want.slot[0].len && seen.go[0] == DBG_RUN);
    CHECK_EQ(ram[0x1000], 0);
    dbg_gdb_peer(&g, true); /* and once more */
    dbg_gdb_stopped(&g);
    expect("?", "T05thread:1;");
}

static void test_kill(void)
{
    attach(DBG_X86_64);
    silent("k");
    CHECK_EQ(seen.kills, 1);
    expect("vKill;1", "OK");
    CHECK_EQ(seen.kills, 2);
    expect("qAttached", "1");
}

/* In words, what gdb hands on: the text of a command, and of its output. */
static const char *monitor(const char *line)
{
    static char text[4096];
    char packet[256] = "qRcmd,";
    const char *r;

    for (size_t i = 0; line[i]; i++)
        snprintf(packet + 6 + 2 * i, 3, "%02x", (uint8_t)line[i]);
    r = ask(packet);
    if (!r || !strcmp(r, "OK"))
        return r;
    for (size_t i = 0; i < strlen(r) / 2; i++) {
        char digits[3] = {r[2 * i], r[2 * i + 1], 0};
        text[i] = (char)strtoul(digits, NULL, 16);
        text[i + 1] = 0;
    }
    return text;
}

static void test_monitor(void)
{
    attach(DBG_X86_64);
    cpus[0].regs.tr = (struct vmm_x86_seg){0xfffffe0000003000, 0x206f, 0x40, 0x8b};
    CHECK(strstr(monitor("help"), "monitor phys on|off"));
    CHECK(
        strstr(monitor("regs"), "tr  0040 base fffffe0000003000 limit 0000206f attributes 008b\n"));
    CHECK(strstr(monitor("walk 0x1234"), "physical 0x1234, writable, executable, user"));
    CHECK(strstr(monitor("walk"), "say monitor walk"));
    CHECK(strstr(monitor("physics"), "no such command"));
    CHECK(strstr(monitor("phys maybe"), "say monitor phys"));
    expect("qRcmd,zz", "E16");
    expect("qRcmd,", "6e6f207375636820636f6d6d616e643a20736565206d6f6e69746f722068656c700a");
}

int main(void)
{
    const struct dbg_gdb_desc none = {.ncpus = 0}, many = {.ncpus = DBG_CPUS_MAX + 1},
                              other = {.ncpus = 1, .machine = (enum dbg_machine)(DBG_ARM64 + 1)};

    CHECK_EQ(dbg_gdb_init(&g, &none), -EINVAL);
    CHECK_EQ(dbg_gdb_init(&g, &many), -EINVAL);
    CHECK_EQ(dbg_gdb_init(&g, &other), -EINVAL);
    test_frames();
    test_slow();
    test_slow_stop();
    test_description();
    test_registers();
    test_arm64_registers();
    test_real_mode();
    test_memory();
    test_paging();
    test_traps();
    test_arm64_traps();
    test_aliases();
    test_table_full();
    test_watches();
    test_arm64_watches();
    test_arm64_step();
    test_both();
    test_vcont();
    test_interrupt();
    leave("D");
    leave("gone");
    leave("while it runs");
    test_kill();
    test_monitor();
    CHECK_DONE("test_gdb");
}
