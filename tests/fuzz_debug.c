/* fuzz_debug.c - debug.h against bytes that lie                    MIT licence, see LICENSE

   The first byte chooses: an instruction, a file of symbols, or a guest whose registers come first
   and whose memory is the rest, with page tables, a stack and Linux's tables in it. */
#include <stdint.h>
#include <stdlib.h>

#define DEBUG_IMPLEMENTATION
#include "../debug.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void disasm(const uint8_t *data, size_t len)
{
    char text[DBG_TEXT_MAX];

    for (unsigned bits = 16; bits <= 64; bits *= 2) {
        unsigned n = dbg_x86_disasm(data, len, bits, 0xfffffff0, text);
        if (n > len || n > DBG_INSN_MAX || strlen(text) >= DBG_TEXT_MAX || !*text)
            abort();
        if (n && dbg_x86_disasm(data, n, bits, 0, text) != n) /* needs no more than it took */
            abort();
    }
}

static void ask(const struct dbg_symbols *s, uint64_t addr)
{
    struct dbg_symbol symbol;

    if (dbg_symbol_at(s, addr, &symbol) && !memchr(symbol.name, 0, sizeof symbol.name))
        abort();
}

static void file(const uint8_t *data, size_t len)
{
    struct dbg_symbols s;

    if (len < 8 || dbg_symbols_file(&s, data + 8, len - 8))
        return;
    ask(&s, vmm_get64(data));
    dbg_symbols_moved(&s, "main", vmm_get64(data));
    ask(&s, vmm_get64(data));
}

static void arm64(const struct vmm_mem *mem, const uint8_t *data)
{
    struct vmm_arm64_regs r = {.sctlr_el1 = data[0] & 1, .tcr_el1 = vmm_get32(data + 1)};
    uint64_t found[8];
    struct dbg_page page;
    char text[DBG_TEXT_MAX];

    r.ttbr0_el1 = r.ttbr1_el1 = vmm_get64(data + 8);
    r.x[29] = vmm_get64(data + 16);
    r.x[30] = r.pc = vmm_get64(data + 24);
    if (dbg_arm64_walk(mem, &r, r.pc, &page) == 0 && !page.left)
        abort();
    if (dbg_arm64_stack(mem, &r, found, 8) > 8)
        abort();
    dbg_arm64_disasm(vmm_get32(data + 16), r.pc, text);
}

static void guest(const uint8_t *data, size_t len)
{
    static uint8_t ram[0x8000];
    struct vmm_x86_regs r = {0};
    struct vmm_mem mem = {0};
    struct dbg_symbols s;
    struct dbg_page page;
    uint64_t found[8];
    uint8_t buf[64];

    if (len < 32)
        return;
    memset(ram, 0, sizeof ram);
    memcpy(ram, data + 32, len - 32 < sizeof ram ? len - 32 : sizeof ram);
    vmm_mem_add(&mem, 0, 0x6000, ram);
    vmm_mem_add(&mem, 0x100000000, 0x2000, ram + 0x6000);
    r.cr0 = (uint64_t)(data[0] & 1) << 31;
    r.cr4 = (data[1] & 1) << 4 | (data[2] & 1) << 5 | (data[3] & 1) << 12;
    r.efer = (data[4] & 1) << 10 | (data[5] & 1) << 11;
    r.cs.attr = (uint16_t)(data[6] << 8);
    r.cr3 = vmm_get64(data + 8);
    r.gpr[VMM_RSP] = vmm_get64(data + 16);
    r.rip = vmm_get64(data + 24);
    if (dbg_x86_walk(&mem, &r, r.rip, &page) == 0 && !page.left)
        abort();
    if (dbg_x86_read(&mem, &r, r.rip, buf, sizeof buf) > sizeof buf ||
        dbg_x86_stack(&mem, &r, found, 8) > 8)
        abort();
    arm64(&mem, data);
    if (dbg_symbols_linux(&s, &mem) == 0)
        ask(&s, r.rip);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (!len)
        return 0;
    switch (data[0] % 3) {
    case 0:
        disasm(data + 1, len - 1);
        break;
    case 1:
        file(data + 1, len - 1);
        break;
    default:
        guest(data + 1, len - 1);
    }
    return 0;
}
