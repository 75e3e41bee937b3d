/* test_disk.c - disk.h over a store in memory that can lose what was not flushed, and fail

   Every sector that the tests write holds its own version number, so that reading back tells which
   write it came from. The checker of images here knows nothing of disk.h. */
#include <stdio.h>
#include <stdlib.h>

#define DISK_L2_SLICES  8 /* one set: entries are evicted all the time */
#define DISK_REF_SLICES 8
#define DISK_CHAIN_MAX  4
#define DISK_IMPLEMENTATION
#include "../disk.h"
#include "check.h"

/* >>tools */

#define STORE_MAX ((uint64_t)8 << 20)

enum { JOURNAL_MAX = 16384, SECTOR = 512 };

static struct {
    char text[256];
    unsigned lines;
} said;

VMM_PRINTF(3, 0)
static void sink(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    (void)ctx;
    (void)level;
    vsnprintf(said.text, sizeof said.text, fmt, args);
    said.lines++;
}

static const struct vmm_log test_log = {sink, NULL, VMM_LOG_INFO};

static uint64_t dice_state = 88172645463325252u;

static unsigned dice(unsigned n)
{
    dice_state ^= dice_state << 13;
    dice_state ^= dice_state >> 7;
    dice_state ^= dice_state << 17;
    return (unsigned)(dice_state >> 33) % n;
}

/* A file as the host sees it, as the disk has it for sure, and the writes between the two. */
struct mem {
    uint8_t *live, *durable;
    uint64_t len, durable_len;
    struct {
        uint64_t off, len;
        uint8_t *data; /* NULL: zeroes */
    } journal[JOURNAL_MAX];
    unsigned njournal, writes, flushes;
    unsigned fail_at; /* this many writes from now one fails; 0: none */
    int fail_with, flush_fails;
    bool no_punch;
    void (*before_flush)(struct mem *m);
};

static void mem_note(struct mem *m, uint64_t off, uint64_t len, const uint8_t *data)
{
    unsigned i = m->njournal++;

    if (i >= JOURNAL_MAX || off + len > STORE_MAX) {
        fprintf(stderr, "the store of the test is too small\n");
        exit(1);
    }
    m->journal[i].off = off;
    m->journal[i].len = len;
    m->journal[i].data = data ? malloc(len) : NULL;
    if (data)
        memcpy(m->journal[i].data, data, len);
    m->len = off + len > m->len ? off + len : m->len;
}

static int mem_rw(void *ctx, bool write, const struct disk_iov *iov, unsigned n, uint64_t off)
{
    struct mem *m = ctx;

    m->writes += write;
    if (write && m->fail_at && !--m->fail_at)
        return m->fail_with;
    for (; n; off += iov->len, iov++, n--) {
        if (!write && off + iov->len > m->len && !CHECK(!"read beyond the end"))
            continue;
        if (write) {
            mem_note(m, off, iov->len, iov->base);
            memcpy(m->live + off, iov->base, iov->len);
        } else {
            memcpy(iov->base, m->live + off, iov->len);
        }
    }
    return 0;
}

static int mem_flush(void *ctx)
{
    struct mem *m = ctx;

    if (m->flush_fails)
        return m->flush_fails;
    if (m->before_flush)
        m->before_flush(m);
    for (unsigned i = 0; i < m->njournal; i++)
        free(m->journal[i].data);
    memcpy(m->durable, m->live, m->len);
    m->durable_len = m->len;
    m->njournal = 0;
    m->flushes++;
    return 0;
}

static int mem_punch(void *ctx, uint64_t off, uint64_t len)
{
    struct mem *m = ctx;

    if (m->no_punch || off >= m->len)
        return m->no_punch ? -EOPNOTSUPP : 0;
    len = len < m->len - off ? len : m->len - off;
    mem_note(m, off, len, NULL);
    memset(m->live + off, 0, len);
    return 0;
}

static void mem_init(struct mem *m)
{
    memset(m, 0, sizeof *m);
    m->live = calloc(1, STORE_MAX);
    m->durable = calloc(1, STORE_MAX);
}

static void mem_free(struct mem *m)
{
    m->before_flush = NULL;
    mem_flush(m);
    free(m->live);
    free(m->durable);
}

static struct disk_store mem_store(struct mem *m)
{
    return (struct disk_store){
        .ctx = m, .rw = mem_rw, .flush = mem_flush, .punch = mem_punch, .len = m->len};
}

static unsigned allocated; /* blocks that disk_close has to give back */

static void *get_mem(void *ctx, size_t len)
{
    (void)ctx;
    allocated++;
    return calloc(1, len);
}

static void put_mem(void *ctx, void *p)
{
    (void)ctx;
    allocated--;
    free(p);
}

static struct mem base; /* what every backing file is */

static int open_base(void *ctx, const char *path, struct disk_store *store)
{
    (void)ctx;
    if (strcmp(path, "dir/base"))
        return -ENOENT;
    *store = mem_store(&base);
    return 0;
}

static struct disk_desc desc_of(struct mem *m, bool ro)
{
    return (struct disk_desc){.log = &test_log,
                              .name = "dir/image",
                              .store = mem_store(m),
                              .format = DISK_QCOW2,
                              .read_only = ro,
                              .open = open_base,
                              .alloc = get_mem,
                              .free = put_mem};
}

static bool opens(struct disk_image *d, struct mem *m, bool ro)
{
    struct disk_desc desc = desc_of(m, ro);

    said.lines = 0;
    return !disk_open(d, &desc);
}

/* >>make: an empty image of any shape, on a store of its own */

struct shape {
    unsigned version, cluster_bits, ref_order;
    uint64_t len;
    bool backing;
};

static void make(struct mem *m, const struct shape *s)
{
    uint64_t cluster = 1u << s->cluster_bits, l2s = s->len / cluster / (cluster / 8) + 1;
    uint64_t nl1 = (l2s * 8 + cluster - 1) / cluster, used = 3 + nl1;
    uint8_t *h = m->live;

    memcpy(h, "QFI\xfb", 4);
    disk__put32(h + 4, s->version);
    disk__put32(h + 20, s->cluster_bits);
    disk__put64(h + 24, s->len);
    disk__put32(h + 36, (uint32_t)l2s);
    disk__put64(h + 40, 3 * cluster);
    disk__put64(h + 48, cluster);
    disk__put32(h + 56, 1);
    disk__put32(h + 96, s->version > 2 ? s->ref_order : 0);
    disk__put32(h + 100, s->version > 2 ? 104 : 0);
    if (s->backing) { /* its format is not recorded: raw by content */
        disk__put64(h + 8, 200);
        disk__put32(h + 16, 4);
        memcpy(h + 200, "base", 4);
    }
    disk__put64(h + cluster, 2 * cluster);
    for (unsigned i = 0; i < used; i++) {
        if (s->ref_order >= 3)
            h[2 * cluster + ((i + 1) << (s->ref_order - 3)) - 1] = 1;
        else
            h[2 * cluster + (i << s->ref_order) / 8] |= (uint8_t)(1 << ((i << s->ref_order) & 7));
    }
    m->len = used * cluster;
    mem_flush(m);
}

/* >>checker: what qemu-img check would say about an image in memory */

struct verdict {
    unsigned errors, leaks;
};

static struct {
    const uint8_t *p;
    uint64_t len;
    unsigned bits, order;
    uint16_t *refs;
    struct verdict v;
} ck;

static uint64_t ck_count(uint64_t cluster)
{
    uint64_t per = 8ull << ck.bits >> ck.order, i = cluster % per, v = 0;
    const uint8_t *block, *rt = ck.p + disk__get64(ck.p + 48);
    uint64_t off = cluster / per < disk__get32(ck.p + 56) << ck.bits >> 3
                       ? disk__get64(rt + 8 * (cluster / per))
                       : 0;

    if (!off || off >= ck.len)
        return 0;
    block = ck.p + off;
    if (ck.order < 3)
        return block[(i << ck.order) / 8] >> ((i << ck.order) % 8) & ((1u << (1 << ck.order)) - 1);
    for (unsigned k = 0; k < 1u << (ck.order - 3); k++)
        v = v << 8 | block[(i << (ck.order - 3)) + k];
    return v;
}

static void ck_ref(uint64_t off, uint64_t len)
{
    for (uint64_t c = off >> ck.bits; c <= (off + len - 1) >> ck.bits; c++) {
        if (c > ck.len >> ck.bits)
            ck.v.errors++;
        else
            ck.refs[c]++;
    }
}

/* One pointer of the active tables: COPIED says that it is the only one. */
static void ck_pointer(uint64_t e, bool active)
{
    uint64_t off = e & DISK__OFFSET;

    if (!off)
        return;
    ck_ref(off, 1);
    if (off % (1u << ck.bits) || (active && (ck_count(off >> ck.bits) == 1) != (e >> 63)))
        ck.v.errors++;
}

static void ck_tables(uint64_t l1, uint32_t n, bool active)
{
    ck_ref(l1, 8ull * n);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t e = disk__get64(ck.p + l1 + 8 * i), off = e & DISK__OFFSET;
        ck_pointer(e, active);
        for (unsigned k = 0; off && off < ck.len && k < 1u << (ck.bits - 3); k++)
            ck_pointer(disk__get64(ck.p + off + 8 * k), active);
    }
}

static struct verdict check_image(const uint8_t *p, uint64_t len)
{
    uint64_t rt = disk__get64(p + 48), nrt = (uint64_t)disk__get32(p + 56) << disk__get32(p + 20);

    memset(&ck.v, 0, sizeof ck.v);
    ck.p = p;
    ck.len = len;
    ck.bits = disk__get32(p + 20);
    ck.order = disk__get32(p + 4) > 2 ? disk__get32(p + 96) : 4;
    ck.refs = calloc((STORE_MAX >> ck.bits) + 2, sizeof ck.refs[0]);
    ck_ref(0, 1);
    ck_ref(rt, nrt);
    for (uint64_t i = 0; i < nrt / 8; i++)
        if (disk__get64(p + rt + 8 * i))
            ck_ref(disk__get64(p + rt + 8 * i), 1);
    ck_tables(disk__get64(p + 40), disk__get32(p + 36), true);
    if (disk__get32(p + 60)) /* a snapshot of the test: its table is the L1 table itself */
        ck_tables(disk__get64(p + 64), disk__get32(p + 36), false);
    for (uint64_t c = 0; c <= len >> ck.bits; c++) {
        ck.v.errors += ck.refs[c] > ck_count(c);
        ck.v.leaks += ck.refs[c] < ck_count(c);
    }
    free(ck.refs);
    return ck.v;
}

/* >>crash: a random guest; at every flush of the store, and now and then between, the host dies */

static struct {
    struct mem store;
    struct disk_image d;
    uint64_t nsectors, version;
    uint64_t *now, *flushed; /* versions of each sector */
    struct {
        uint64_t sector, version;
    } since[200000]; /* what was written after the last flush, or is being written */
    unsigned nsince, crashes, leaks;
    struct mem after;
} w;

static bool may_hold(uint64_t sector, uint64_t version)
{
    if (version == w.flushed[sector])
        return true;
    for (unsigned i = w.nsince; i-- > 0;)
        if (w.since[i].sector == sector && w.since[i].version == version)
            return true;
    return false;
}

static uint64_t base_version(uint64_t sector)
{
    return sector * SECTOR < base.len ? 1ull << 40 | sector : 0;
}

/* The host dies: what was flushed is there, and of what was not, in the order of the writes, either
   a start (the process was killed) or any sectors of any writes (the power failed). */
static void die(struct mem *m, bool power)
{
    struct mem *a = &w.after;
    unsigned n = power ? m->njournal : dice(m->njournal + 1);

    memset(a->live + m->durable_len, 0, STORE_MAX - m->durable_len);
    memcpy(a->live, m->durable, m->durable_len);
    a->len = m->durable_len;
    for (unsigned i = 0; i < n; i++) {
        uint64_t step, end = m->journal[i].off + m->journal[i].len;
        for (uint64_t at = m->journal[i].off; at < end; at += step) {
            step = SECTOR - at % SECTOR;
            step = step < end - at ? step : end - at;
            if (power && dice(2))
                continue;
            if (m->journal[i].data)
                memcpy(a->live + at, m->journal[i].data + (at - m->journal[i].off), step);
            else
                memset(a->live + at, 0, step);
            a->len = at + step > a->len ? at + step : a->len;
        }
    }
}

static void look_after_crash(void)
{
    static struct disk_image d;
    struct verdict v = check_image(w.after.live, w.after.len);
    unsigned wrong = 0;

    w.crashes++;
    w.leaks += v.leaks != 0;
    CHECK_EQ(v.errors, 0);
    if (CHECK(opens(&d, &w.after, true))) {
        for (uint64_t s = 0; s < w.nsectors; s++) {
            uint64_t sector[SECTOR / 8] = {0};
            struct disk_iov iov = {sector, SECTOR};
            wrong += disk_read(&d, &iov, 1, s * SECTOR) || !may_hold(s, sector[0]);
        }
    }
    CHECK_EQ(wrong, 0);
    disk_close(&d);
}

static void crash_here(struct mem *m)
{
    unsigned n = 2;

    for (unsigned i = 0; i < m->njournal; i++)
        n = m->journal[i].off < SECTOR ? 16 : n; /* the header: look closely */
    while (n-- > 0) {
        die(m, n % 2);
        look_after_crash();
    }
}

static void becomes(uint64_t first, uint64_t n, uint64_t version)
{
    for (uint64_t s = first; s < first + n; s++) {
        w.now[s] = version ? ++w.version : 0;
        w.since[w.nsince].sector = s;
        w.since[w.nsince++].version = w.now[s];
    }
}

static void guest_write(uint64_t first, uint64_t n)
{
    static uint64_t buf[256 * SECTOR / 8];
    struct disk_iov iov[2] = {{buf, n / 2 * SECTOR}, {(uint8_t *)buf + n / 2 * SECTOR, 0}};

    iov[1].len = n * SECTOR - iov[0].len;
    becomes(first, n, 1);
    for (uint64_t s = 0; s < n; s++)
        for (unsigned i = 0; i < SECTOR / 8; i++)
            buf[s * (SECTOR / 8) + i] = w.now[first + s];
    CHECK_EQ(disk_write(&w.d, iov + (n < 2), 2 - (n < 2), first * SECTOR), 0);
}

static void guest_clear(uint64_t first, uint64_t n, bool discard)
{
    uint64_t cluster = disk__cluster(&w.d) / SECTOR;

    if (discard) { /* whole clusters, so that all of it reads as zero */
        first = first / cluster * cluster;
        n = (n + cluster - 1) / cluster * cluster;
        n = n < w.nsectors - first ? n : w.nsectors - first;
    }
    if (discard && w.d.version < 3 && w.d.backing)
        return;
    becomes(first, n, 0);
    if (discard)
        CHECK_EQ(disk_discard(&w.d, first * SECTOR, n * SECTOR), 0);
    else
        CHECK_EQ(disk_zero(&w.d, first * SECTOR, n * SECTOR, dice(2)), 0);
}

static void guest_flush(void)
{
    CHECK_EQ(disk_flush(&w.d), 0);
    memcpy(w.flushed, w.now, w.nsectors * 8);
    w.nsince = 0;
}

static void guest_step(void)
{
    uint64_t first = dice((unsigned)w.nsectors);
    uint64_t n = 1 + (dice(4) ? dice(12) : dice(250));

    n = n < w.nsectors - first ? n : w.nsectors - first;
    switch (dice(8)) {
    case 0:
        guest_flush();
        break;
    case 1:
        guest_clear(first, n, true);
        break;
    case 2:
        guest_clear(first, n, false);
        break;
    default:
        guest_write(first, n);
    }
}

/* Everything reads as it was written last, and after a flush nothing has leaked. */
static void guest_compare(void)
{
    unsigned wrong = 0;
    struct verdict v;

    for (uint64_t s = 0; s < w.nsectors; s++) {
        uint64_t sector[SECTOR / 8] = {0};
        struct disk_iov iov = {sector, SECTOR};
        wrong += disk_read(&w.d, &iov, 1, s * SECTOR) || sector[0] != w.now[s];
    }
    CHECK_EQ(wrong, 0);
    guest_flush();
    v = check_image(w.store.live, w.store.len);
    CHECK_EQ(v.errors, 0);
    CHECK_EQ(v.leaks, 0);
}

/* What `qemu-img snapshot -c` does: a second L1 table, one more reference to all, COPIED cleared.
   Counts are 16 bits wide, of one block. */
static void take_snapshot(struct mem *m)
{
    uint8_t *p = m->live;
    uint64_t l1 = disk__get64(p + 40), bits = disk__get32(p + 20), cluster = 1ull << bits;
    uint8_t *counts = p + disk__get64(p + disk__get64(p + 48));
    uint32_t n = disk__get32(p + 36);
    uint64_t copy = (m->len + cluster - 1) >> bits << bits;

    for (uint32_t i = 0; i < n; i++) {
        uint64_t off = disk__get64(p + l1 + 8 * i) & DISK__OFFSET;
        disk__put64(p + l1 + 8 * i, off);
        counts[2 * (off >> bits) + 1] = (uint8_t)(counts[2 * (off >> bits) + 1] + !!off);
        for (uint64_t k = 0; off && k < cluster / 8; k++) {
            uint64_t e = disk__get64(p + off + 8 * k), at = (e & DISK__OFFSET) >> bits;
            disk__put64(p + off + 8 * k, e & ~DISK__COPIED);
            counts[2 * at + 1] = (uint8_t)(counts[2 * at + 1] + !!at);
        }
    }
    memcpy(p + copy, p + l1, cluster);
    counts[2 * (copy >> bits) + 1] = 1;
    disk__put32(p + 60, 1);
    disk__put64(p + 64, copy);
    m->len = copy + cluster;
    mem_flush(m);
}

static void crash_run(const struct shape *s, bool snapshot, bool fill, unsigned steps)
{
    mem_init(&w.store);
    make(&w.store, s);
    w.nsectors = s->len / SECTOR;
    w.now = calloc(w.nsectors, 8);
    w.flushed = calloc(w.nsectors, 8);
    w.nsince = 0;
    for (uint64_t i = 0; s->backing && i < w.nsectors; i++)
        w.now[i] = w.flushed[i] = base_version(i);
    w.store.no_punch = snapshot;
    w.store.before_flush = crash_here;
    if (CHECK(opens(&w.d, &w.store, false))) {
        for (unsigned i = 0; i < steps; i++) {
            if (snapshot && i == steps / 3) {
                guest_flush();
                disk_close(&w.d);
                w.store.before_flush = NULL;
                take_snapshot(&w.store);
                w.store.before_flush = crash_here;
                CHECK(opens(&w.d, &w.store, false));
            }
            if (fill && i * 250ull < w.nsectors)
                guest_write(i * 250ull, i * 250ull + 250 < w.nsectors ? 250 : w.nsectors - i * 250);
            else
                guest_step();
            if (!dice(8))
                crash_here(&w.store);
        }
        w.store.before_flush = NULL;
        guest_compare();
    }
    disk_close(&w.d);
    mem_free(&w.store);
    free(w.now);
    free(w.flushed);
}

static void test_crashes(void)
{
    static const struct {
        struct shape shape;
        bool snapshot, fill;
    } runs[] = {
        {{3, 9, 4, 300 << 10, false}, 0, 0},
        {{3, 9, 0, 300 << 10, true}, 0, 0},
        {{2, 9, 4, 600 << 10, true}, 0, 1},
        {{3, 9, 6, 200 << 10, false}, 0, 0},
        {{3, 12, 4, 1 << 20, true}, 1, 0},
        {{2, 12, 4, 1 << 20, false}, 1, 0},
        {{3, 12, 2, 1000 << 10, true}, 0, 0},
        {{3, 16, 4, 1 << 20, true}, 0, 0},
        {{3, 16, 3, 1000 << 10, false}, 0, 0},
        {{3, 9, 6, 2500 << 10, false}, 0, 1}, /* table moves */
    };

    mem_init(&w.after);
    for (unsigned i = 0; i < sizeof runs / sizeof runs[0]; i++)
        crash_run(&runs[i].shape, runs[i].snapshot, runs[i].fill, 40);
    free(w.after.live);
    free(w.after.durable);
    CHECK(w.crashes > 100);
    CHECK(w.leaks > 0); /* else nothing was ever in danger */
}

/* >>failures */

static const struct shape plain = {3, 12, 4, 1 << 20, false};

static int put(struct disk_image *d, uint64_t off, uint8_t byte, size_t len)
{
    static uint8_t buf[1 << 20];
    struct disk_iov iov = {buf, len};

    memset(buf, byte, len);
    return disk_write(d, &iov, 1, off);
}

static bool holds(struct disk_image *d, uint64_t off, uint8_t byte, size_t len)
{
    static uint8_t buf[1 << 20];
    struct disk_iov iov = {buf, len};

    if (disk_read(d, &iov, 1, off))
        return false;
    for (size_t i = 0; i < len; i++)
        if (buf[i] != byte)
            return false;
    return true;
}

/* Each write of the store in turn fails once: the guest gets the error, its next try succeeds, and
   the image stays sound. */
static void test_write_errors(void)
{
    static struct disk_image d;
    static struct mem m;
    bool failed, hit = true;

    for (unsigned k = 1; hit && k < 100; k++) {
        mem_init(&m);
        make(&m, &plain);
        CHECK(opens(&d, &m, false));
        m.fail_at = k;
        m.fail_with = k % 2 ? -ENOSPC : -EIO;
        failed = put(&d, 5000, 1, 30000) != 0;
        failed |= disk_flush(&d) != 0;
        failed |= disk_zero(&d, 8192, 9000, true) != 0;
        failed |= put(&d, 100, 2, 3) != 0;
        failed |= disk_flush(&d) != 0;
        hit = !m.fail_at;
        CHECK(failed == hit || (hit && m.fail_with == -ENOSPC)); /* a commit can make room */
        m.fail_at = 0;
        CHECK_EQ(put(&d, 40000, 3, 10000), 0);
        CHECK_EQ(disk_flush(&d), 0);
        CHECK(holds(&d, 40000, 3, 10000));
        CHECK_EQ(check_image(m.live, m.len).errors, 0);
        disk_close(&d);
        mem_free(&m);
    }
    CHECK(!hit); /* in the end there were fewer writes than k */
}

/* What was written before a failed flush may be lost: no later flush may say that all is well. */
static void test_flush_error(void)
{
    static struct disk_image d;
    static struct mem m;

    mem_init(&m);
    make(&m, &plain);
    CHECK(opens(&d, &m, false));
    CHECK_EQ(put(&d, 0, 1, 512), 0);
    m.flush_fails = -EIO;
    CHECK_EQ(disk_flush(&d), -EIO);
    m.flush_fails = 0;
    CHECK_EQ(disk_flush(&d), -EIO);
    CHECK_EQ(put(&d, 0, 1, 512), -EIO);
    CHECK(holds(&d, 0, 1, 512));
    disk_close(&d);
    mem_free(&m);
}

/* A store that cannot grow is full; what is discarded makes room for what comes. */
static void test_full(void)
{
    static struct disk_image d;
    static struct mem m;
    struct disk_desc desc;

    mem_init(&m);
    make(&m, &plain);
    m.len = 40 << 12;
    desc = desc_of(&m, false);
    desc.store.fixed = true;
    CHECK(!disk_open(&d, &desc));
    CHECK_EQ(put(&d, 0, 1, 32 << 12), 0);
    CHECK_EQ(put(&d, 32 << 12, 2, 10 << 12), -ENOSPC);
    CHECK_EQ(disk_discard(&d, 0, 16 << 12), 0);
    CHECK_EQ(put(&d, 32 << 12, 2, 10 << 12), 0);
    CHECK_EQ(disk_flush(&d), 0);
    CHECK(holds(&d, 0, 0, 16 << 12) && holds(&d, 16 << 12, 1, 16 << 12));
    CHECK(holds(&d, 32 << 12, 2, 10 << 12));
    CHECK_EQ(check_image(m.live, m.len).errors, 0);
    CHECK_EQ(m.len, 40 << 12);
    disk_close(&d);
    mem_free(&m);
}

/* A cluster that is used anew shows nothing of what it held. */
static void test_reuse(void)
{
    static struct disk_image d;
    static struct mem m;

    mem_init(&m);
    make(&m, &plain);
    m.no_punch = true;
    CHECK(opens(&d, &m, false));
    CHECK_EQ(put(&d, 0, 0xaa, 1 << 20), 0);
    CHECK_EQ(disk_discard(&d, 0, 1 << 20), 0);
    CHECK_EQ(disk_flush(&d), 0);
    CHECK_EQ(put(&d, 4096 + 512, 1, 512), 0);
    CHECK(holds(&d, 4096, 0, 512) && holds(&d, 4096 + 1024, 0, 1 << 19));
    disk_close(&d);
    mem_free(&m);
}

/* Sequential writes of 4 KiB: one write of the store each, and a few for the tables. */
static void test_write_count(void)
{
    static const struct shape shape = {3, 16, 4, 4 << 20, false};
    static struct disk_image d;
    static struct mem m;

    mem_init(&m);
    make(&m, &shape);
    CHECK(opens(&d, &m, false));
    m.writes = m.flushes = 0;
    for (unsigned i = 0; i < 512; i++)
        CHECK_EQ(put(&d, i * 4096, (uint8_t)i, 4096), 0);
    CHECK_EQ(disk_flush(&d), 0);
    CHECK(m.writes <= 512 + 5);
    CHECK_EQ(m.flushes, 2);
    CHECK_EQ(disk_flush(&d), 0);
    CHECK_EQ(m.flushes, 3);
    disk_close(&d);
    mem_free(&m);
}

/* >>damage */

/* What is wrong with the image in m once all of it is one cluster of data at 0. */
enum wrong { DATA_ON_L1, DATA_ON_L2, DATA_ON_HEADER, FREE_HEADER, UNALIGNED, BEYOND, COUNT_ZERO };

static void spoil(struct mem *m, enum wrong what)
{
    static const uint64_t where[] = {3 << 12, 4 << 12, 0, 0, 0x5200, 1 << 22};
    uint64_t l2 = disk__get64(m->live + (3 << 12)) & DISK__OFFSET;
    uint64_t data = disk__get64(m->live + l2) & DISK__OFFSET;

    CHECK_EQ(l2, 4 << 12);
    if (what == COUNT_ZERO)
        vmm_put16(m->live + (2 << 12) + 2 * (data >> 12), 0);
    else if (what == FREE_HEADER || what == DATA_ON_HEADER) /* offset 0 means none: compressed */
        disk__put64(m->live + l2, DISK__PACKED | 512);
    else
        disk__put64(m->live + l2, where[what] | DISK__COPIED);
}

static void test_damage(void)
{
    static const struct {
        enum wrong what;
        bool corrupt; /* found by a write that would have made it worse: no one writes any more */
    } t[] = {{DATA_ON_L1, true}, {DATA_ON_L2, true}, {DATA_ON_HEADER, true}, {FREE_HEADER, true},
             {UNALIGNED, false}, {BEYOND, false},    {COUNT_ZERO, true}};
    static struct disk_image d;
    static struct mem m;
    int rc;

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        mem_init(&m);
        make(&m, &plain);
        CHECK(opens(&d, &m, false) && !put(&d, 0, 1, 4096) && !disk_flush(&d));
        disk_close(&d);
        spoil(&m, t[i].what);
        CHECK(opens(&d, &m, false));
        rc = t[i].what == FREE_HEADER || t[i].what == COUNT_ZERO ? disk_discard(&d, 0, 4096)
             : t[i].what == DATA_ON_HEADER                       ? disk_zero(&d, 0, 4096, true)
                                                                 : put(&d, 0, 2, 512);
        rc = rc ? rc : disk_flush(&d);
        CHECK_EQ(rc, -EIO);
        CHECK(said.lines == 1 && strstr(said.text, "qemu-img check"));
        CHECK_EQ(put(&d, 8192, 2, 512), t[i].corrupt ? -EIO : 0);
        CHECK_EQ(m.live[79] & 2, t[i].corrupt ? 2 : 0);
        disk_close(&d);
        CHECK_EQ(opens(&d, &m, false), !t[i].corrupt);
        disk_close(&d);
        CHECK(opens(&d, &m, true));
        disk_close(&d);
        mem_free(&m);
    }
}

/* Headers and tables that are refused, each with a sentence. */
static void test_refused(void)
{
    static const struct {
        uint32_t off;
        uint64_t value;
        unsigned len;
        bool ro; /* also when only read */
        const char *why;
    } t[] = {
        {4, 1, 4, true, "looks like"},
        {4, 4, 4, true, "unknown version"},
        {20, 8, 4, true, "cluster size"},
        {20, 22, 4, true, "cluster size"},
        {24, 0, 8, true, "length"},
        {24, 1ull << 62, 8, true, "length"},
        {24, 1 << 30, 8, true, "L1"},
        {32, 1, 4, true, "encrypted"},
        {36, 0, 4, true, "L1"},
        {36, 1 << 23, 4, true, "L1"},
        {36, 1 << 20, 4, true, "L1"},
        {40, 0, 8, true, "L1"},
        {40, 0x3200, 8, true, "L1"},
        {40, 1ull << 40, 8, true, "L1"},
        {48, 0, 8, true, "refcount"},
        {48, 0x1100, 8, true, "refcount"},
        {48, ~0ull, 8, true, "refcount"},
        {56, 0, 4, true, "refcount"},
        {56, 1 << 20, 4, true, "refcount"},
        {72, 1, 8, false, "check -r all"},
        {72, 2, 8, false, "check -r all"},
        {72, 4, 8, true, "convert"},
        {72, 8, 8, true, "compression"},
        {72, 16, 8, true, "convert"},
        {72, 32, 8, true, "convert"},
        {96, 7, 4, true, "refcount width"},
        {100, 96, 4, true, "header"},
        {100, 105, 4, true, "header"},
        {100, 8192, 4, true, "header"},
        {8, 4094, 8, true, "backing"},
        {8, 50, 8, true, "backing"},
        {3 << 12, 1 << 12, 8, false, "overlap"},
        {3 << 12, 1 << 30, 8, false, "overlap"},
    };
    static struct disk_image d;
    static struct mem m;

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct shape s = plain;
        s.backing = t[i].off == 8;
        mem_init(&m);
        make(&m, &s);
        if (t[i].len == 4)
            disk__put32(m.live + t[i].off, (uint32_t)t[i].value);
        else
            disk__put64(m.live + t[i].off, t[i].value);
        if (!CHECK(!opens(&d, &m, false) && said.lines == 1) ||
            !CHECK(strstr(said.text, t[i].off == 4 && t[i].value == 1 ? "not a qcow2" : t[i].why)))
            fprintf(stderr, "row %u: %s\n", i, said.text);
        disk_close(&d);
        CHECK_EQ(opens(&d, &m, true), !t[i].ro);
        disk_close(&d);
        mem_free(&m);
    }
}

static void test_bounds(void)
{
    static struct disk_image d;
    static struct mem m;
    uint8_t b[1024];
    struct disk_iov iov[2] = {{b, 512}, {b, (size_t)-1}};

    mem_init(&m);
    make(&m, &plain);
    CHECK(opens(&d, &m, false));
    CHECK_EQ(disk_read(&d, iov, 1, d.len), -EINVAL);
    CHECK_EQ(disk_read(&d, iov, 1, d.len - 511), -EINVAL);
    CHECK_EQ(disk_read(&d, iov, 1, ~0ull), -EINVAL);
    CHECK_EQ(disk_write(&d, iov, 2, 0), -EINVAL);
    CHECK_EQ(disk_read(&d, iov, 1, d.len - 512), 0);
    CHECK_EQ(disk_discard(&d, 1, d.len), -EINVAL);
    CHECK_EQ(disk_zero(&d, ~0ull, 2, true), -EINVAL);
    disk_close(&d);
    CHECK(opens(&d, &m, true));
    CHECK_EQ(disk_write(&d, iov, 1, 0), -EROFS);
    CHECK_EQ(disk_discard(&d, 0, 4096), -EROFS);
    CHECK_EQ(disk_zero(&d, 0, 4096, false), -EROFS);
    CHECK_EQ(disk_flush(&d), 0);
    disk_close(&d);
    mem_free(&m);
}

int main(void)
{
    mem_init(&base);
    base.len = 400 << 10;
    for (uint64_t s = 0; s < base.len / SECTOR; s++)
        for (unsigned i = 0; i < SECTOR / 8; i++)
            vmm_put64(base.live + s * SECTOR + 8 * i, base_version(s));
    test_crashes();
    test_write_errors();
    test_flush_error();
    test_full();
    test_reuse();
    test_write_count();
    test_damage();
    test_refused();
    test_bounds();
    mem_free(&base);
    CHECK_EQ(allocated, 0);
    CHECK_DONE("test_disk");
}
