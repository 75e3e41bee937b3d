/* test_debug.c - debug.h on guests made by hand                    MIT licence, see LICENSE

   Page tables are written out here once more from the SDM, entry by entry. */
#define DEBUG_IMPLEMENTATION
#include "../debug.h"

#include "check.h"

enum { P = 1, W = 2, U = 4, PS = 0x80, RAM = 0x20000, HOLE = 0x40000000 };
#define NX  (1ull << 63)
#define TOP 0x100000000ull /* a second piece of memory, beyond 4 GiB */

static uint8_t ram[RAM], top[0x3000];
static struct vmm_mem mem;

static void put(uint64_t table, unsigned index, unsigned size, uint64_t entry)
{
    memcpy(vmm_at(&mem, table + index * size, size), &entry, size);
}

static void start(void)
{
    memset(ram, 0, sizeof ram);
    memset(&mem, 0, sizeof mem);
    CHECK(vmm_mem_add(&mem, 0, sizeof ram, ram) == 0);
    CHECK(vmm_mem_add(&mem, TOP, sizeof top, top) == 0);
}

/* An address, and what is expected behind it. */
struct walk {
    uint64_t gva;
    int err;
    uint64_t gpa, left;
    bool writable, user, exec;
};

static void walks(const struct vmm_x86_regs *r, const struct walk *w, unsigned n)
{
    struct dbg_page page;

    for (unsigned i = 0; i < n; i++, w++) {
        CHECK_EQ(dbg_x86_walk(&mem, r, w->gva, &page), w->err);
        if (w->err)
            continue;
        CHECK_EQ(page.gpa, w->gpa);
        CHECK_EQ(page.left, w->left);
        CHECK_EQ(page.writable, w->writable);
        CHECK_EQ(page.user, w->user);
        CHECK_EQ(page.exec, w->exec);
    }
}

static void test_no_paging(void)
{
    static const struct walk want[] = {{0x1234, 0, 0x1234, 0xdcc, true, true, true},
                                       {0xfffffff0, 0, 0xfffffff0, 0x10, true, true, true}};
    struct vmm_x86_regs r = {.cr3 = 0x1000};

    start();
    walks(&r, want, 2);
}

static void test_32bit(void)
{
    static const struct walk want[] = {
        {0x00401234, 0, 0x7234, 0xdcc, true, false, true},
        {0x00402000, -EFAULT, 0, 0, false, false, false},
        {0x00800000, -EFAULT, 0, 0, false, false, false},
        {0x00c12345, 0, 0x1200012345ull + 0x800000, 0x3edcbb, false, true, true},
        {0x100401234ull, -EFAULT, 0, 0, false, false, false},
    };
    struct vmm_x86_regs r = {.cr0 = 0x80000001, .cr3 = 0x1018, .cr4 = 1 << 4};

    start();
    put(0x1000, 1, 4, 0x2000 | P | W);
    put(0x2000, 1, 4, 0x7000 | P | W | U);
    put(0x1000, 3, 4, 0x00800000 | 0x12 << 13 | PS | P | U);
    walks(&r, want, 5);
    r.cr4 = 0; /* without PSE the same entry is a table: outside of memory */
    CHECK_EQ(dbg_x86_walk(&mem, &r, 0x00c12345, &(struct dbg_page){0}), -EFAULT);
}

static void test_pae(void)
{
    static const struct walk want[] = {
        {0x40003456, 0, TOP + 0x1456, 0xbaa, true, true, false},
        {0x40212345, 0, 0x400000 + 0x12345, 0x1edcbb, true, false, true},
        {0x00003456, -EFAULT, 0, 0, false, false, false},
    };
    struct vmm_x86_regs r = {.cr0 = 0x80000001, .cr3 = 0x1020, .cr4 = 1 << 5, .efer = 1 << 11};

    start();
    put(0x1020, 1, 8, 0x2000 | P);
    put(0x2000, 0, 8, 0x3000 | P | W | U);
    put(0x3000, 3, 8, NX | (TOP + 0x1000) | P | W | U);
    put(0x2000, 1, 8, 0x400000 | PS | P | W);
    walks(&r, want, 3);
}

static void test_4level(void)
{
    static const struct walk want[] = {
        {0xffffffff80001abc, 0, 0x7abc, 0x544, false, false, true},
        {0xffffffff80212345, 0, 0x600000 + 0x12345, 0x1edcbb, true, false, true},
        {0xffffffffc0123456, 0, 0x140000000 + 0x123456, 0x3fedcbaa, true, false, true},
        {0x0000ffff80001abc, -EFAULT, 0, 0, false, false, false}, /* not canonical */
        {0xffff7fffffffffff, -EFAULT, 0, 0, false, false, false},
        {0x0000000000000000, -EFAULT, 0, 0, false, false, false},
    };
    struct vmm_x86_regs r = {
        .cr0 = 0x80000001, .cr3 = 0x1fff, .cr4 = 1 << 5, .efer = 1 << 10 | 1 << 11};

    start();
    put(0x1000, 511, 8, 0x2000 | P | W);
    put(0x2000, 510, 8, 0x3000 | P | W);
    put(0x2000, 511, 8, 0x140000000 | PS | P | W);
    put(0x3000, 0, 8, 0x4000 | P | W);
    put(0x4000, 1, 8, 0x7000 | P | U);
    put(0x3000, 1, 8, 0x600000 | PS | P | W);
    walks(&r, want, 6);
    r.cr3 = HOLE;
    CHECK_EQ(dbg_x86_walk(&mem, &r, want[0].gva, &(struct dbg_page){0}), -EFAULT);
}

static void test_5level(void)
{
    static const struct walk want[] = {
        {0xff00000000000123, 0, 0x7123, 0xedd, true, false, true},
        {0x0100000000000000, -EFAULT, 0, 0, false, false, false},
    };
    struct vmm_x86_regs r = {
        .cr0 = 0x80000001, .cr3 = 0x1000, .cr4 = 1 << 5 | 1 << 12, .efer = 1 << 10};

    start();
    put(0x1000, 256, 8, 0x2000 | P | W);
    for (unsigned level = 2; level <= 5; level++)
        put(0x1000 * level, 0, 8, 0x1000 * (level == 5 ? 7 : level + 1) | P | W);
    walks(&r, want, 2);
}

/* Two neighbouring pages that are far apart in memory, then nothing. */
static void test_read_write(void)
{
    struct vmm_x86_regs r = {.cr0 = 0x80000001, .cr3 = 0x1000, .cr4 = 1 << 5, .efer = 1 << 10};
    char text[32] = "";

    start();
    for (unsigned level = 1; level <= 3; level++)
        put(0x1000 * level, 0, 8, 0x1000 * (level + 1) | P);
    put(0x4000, 0, 8, 0x9000 | P);
    put(0x4000, 1, 8, (TOP + 0x2000) | P);
    put(0x4000, 2, 8, HOLE | P);
    CHECK_EQ(dbg_x86_write(&mem, &r, 0xffa, "across pages", 12), 12);
    CHECK(memcmp(ram + 0x9ffa, "across", 6) == 0 && memcmp(top + 0x2000, " pages", 6) == 0);
    CHECK_EQ(dbg_x86_read(&mem, &r, 0xffa, text, 12), 12);
    CHECK(strcmp(text, "across pages") == 0);
    CHECK_EQ(dbg_x86_read(&mem, &r, 0x1ff0, text, sizeof text), 16);
    CHECK_EQ(dbg_x86_write(&mem, &r, 0x1ff0, text, sizeof text), 16);
    CHECK_EQ(dbg_x86_read(&mem, &r, 0x2000, text, 1), 0);
}

int main(void)
{
    test_no_paging();
    test_32bit();
    test_pae();
    test_4level();
    test_5level();
    test_read_write();
    CHECK_DONE("test_debug");
}
