/* dev_bios.h - the services of a PC BIOS, done by the monitor             MIT licence, see LICENSE

   WHAT IT IS      What boot sectors, boot loaders and systems for teaching expect in real mode: INT
                   10h (text, by ANSI sequences to COM1), 11h, 12h, 13h (CHS and EDD), 14h, 15h, 16h
                   with the keyboard buffer, 18h, 19h, 1Ah. In the guest stands one KiB of code,
                   pc_bios_rom: the interrupt handlers, each of which writes to the port of its own
                   number and returns what pc_bios_call made of registers and memory. The clock
                   tick (INT 8), the keyboard (INT 9) and their chips are the guest's, and real.
                   Services follow Ralf Brown's Interrupt List, disks also the "BIOS Enhanced Disk
                   Drive Specification 3.0". No graphics, no VGA: text at 0xb8000 is RAM, of which
                   each INT 10h shows what has changed.

   QUICK START     static int one_char(struct vmm_mem *mem, struct vmm_bus *ports)
                   {
                       static struct pc_bios bios;
                       struct pc_bios_desc desc = {.mem = mem, .ports = ports};
                       struct vmm_x86_regs r = {.cs = {.base = 0xf0000}, .rip = 0xfc96};

                       pc_bios_rom((uint8_t *)vmm_at(mem, PC_BIOS_GPA, PC_BIOS_LEN));
                       pc_bios_init(&bios, &desc);
                       pc_bios_call(&bios, 0x1f, &r);  // power-on: the data area
                       r.gpr[VMM_RAX] = 0x0e41;        // INT 10h, teletype, 'A'
                       pc_bios_call(&bios, 0x10, &r);  // after the guest's write to port 0x10
                       return r.rflags & 1;            // 0: done
                   }

   CONFIGURATION   VMM_DEF (see vmm.h) and PC_BIOS_DISKS_MAX (12), set everywhere;
                   DEV_BIOS_IMPLEMENTATION or VMM_IMPLEMENTATION, set in one file before the include

   DEPENDS ON      vmm.h and <string.h>. desc.ports has a 16550 at 0x3f8 and a clock at 0x70.

   THREADS         pc_bios_call is for the thread of the CPU that wrote to the port, between two runs
                   of it; one CPU at a time, and not together with pc_bios_redraw: bring a lock if
                   you call that. pc_bios_room may be called by anybody.
   MEMORY          The caller owns struct pc_bios; nothing is allocated. Its fields are private.
   ERRORS          None. What the host's disk says becomes a status for the guest.
   GUEST TRUST     Calls are ignored unless they come from the ROM, in real mode. Every buffer that a
                   guest names is looked up by vmm_at, every count is bounded, and what the guest
                   keeps in its data area is checked each time. A guest may overwrite the ROM's
                   code, and harms itself. */
#ifndef DEV_BIOS_H
#define DEV_BIOS_H

#include "vmm.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef PC_BIOS_DISKS_MAX
#define PC_BIOS_DISKS_MAX 12
#endif

enum {
    PC_BIOS_GPA = 0xffc00, /* where the ROM goes, RAM also for the guest */
    PC_BIOS_LEN = 0x400,
    PC_BIOS_PORT = 0x10, /* PC_BIOS_PORTS from here, for pc_bios_call; reads mean nothing */
    PC_BIOS_PORTS = 16
};

/* Writes the ROM; the same bytes as build/minibios, which guests/bios/minibios.S explains. */
VMM_DEF void pc_bios_rom(uint8_t rom[PC_BIOS_LEN]);
/* Is a file that ROM? */
VMM_DEF bool pc_bios_is_rom(const void *data, size_t len);
/* Where CPU 0 starts, in segment 0xf000, with registers as after a reset. */
VMM_DEF uint16_t pc_bios_entry(void);

/* A range of the memory map that INT 15h, AX=E820h reports; type 1 is RAM. */
struct pc_bios_range {
    uint64_t gpa, len;
    uint32_t type;
};

struct pc_bios_desc {
    const struct vmm_mem *mem;   /* with RAM in the first MiB */
    const struct vmm_bus *ports; /* of the machine */
    const struct pc_bios_range *map;
    unsigned nmap;
    uint64_t
        disk_len[PC_BIOS_DISKS_MAX]; /* bytes. As long as a diskette: drive 0, 1 ...; else 0x80,
                                             0x81 ... The first is booted from */
    unsigned ndisks;
    /* Transfers sectors of 512 bytes, all of which the disk has but the rest of the last. 0 or
       -errno; -EROFS: write-protected. May wait: the CPU does. */
    int (*disk)(void *ctx, unsigned disk, bool write, void *buf, uint64_t sector, unsigned n);
    uint64_t (*now)(void *ctx);  /* ns, never goes back; NULL: it is always 0 */
    void (*off)(void *ctx);      /* switched off (APM); NULL: it cannot be */
    void (*failed)(void *ctx);   /* INT 18h: there is nothing to boot. NULL: the guest halts */
    void (*key_room)(void *ctx); /* a key left the guest's buffer; may be NULL */
    void *ctx;
};

struct pc_bios {
    struct pc_bios_desc desc;
    struct pc_bios_disk {
        uint64_t nsectors;
        uint32_t cylinders;
        uint16_t heads, sectors; /* of a track */
        uint8_t drive;
        uint8_t type; /* of a diskette drive, as INT 13h, AH=08h calls it; 0: a hard disk */
    } disk[PC_BIOS_DISKS_MAX];
    uint64_t until; /* of INT 15h, AH=86h; 0: no wait is under way */
    /* The terminal at the end of COM1 */
    uint8_t out[256]; /* what it is still to be told */
    uint16_t nout, out_at;
    uint16_t shown[80 * 25]; /* what it shows: character and attribute */
    uint16_t cursor;         /* where its cursor is: row and column */
    uint8_t attr;
    bool on;            /* there has been a power-on */
    bool hidden;        /* its cursor */
    bool told;          /* a call has done its work, and only waits for the terminal: ... */
    uint8_t function;   /* ... this one */
    uint32_t string_at; /* of a string that it shows in parts */
};

VMM_DEF void pc_bios_init(struct pc_bios *b, const struct pc_bios_desc *desc);
/* A write to port PC_BIOS_PORT + n, whatever the value, by the CPU with these registers; they are as
   the guest shall go on with them. */
VMM_DEF void pc_bios_call(struct pc_bios *b, unsigned port, struct vmm_x86_regs *regs);
/* Somebody new looks at the terminal: shows him the screen. */
VMM_DEF void pc_bios_redraw(struct pc_bios *b);
/* Has the guest's keyboard buffer room for a key? Only a hint. */
VMM_DEF bool pc_bios_room(const struct pc_bios *b);

/* The key (its code of set 1, with 0xe000 for the prefix) that a terminal sends as ESC [ or ESC O and
   a letter, or as ESC [ digit ~, and how many bytes that takes; 0: the text begins with none. */
VMM_DEF uint16_t pc_bios_escape(const char *text, size_t len, size_t *taken);

#ifdef __cplusplus
}
#endif
#endif /* DEV_BIOS_H */

/* ------------------------------------------------------------------------- implementation */
#if defined(DEV_BIOS_IMPLEMENTATION) || defined(VMM_IMPLEMENTATION)
#ifndef DEV_BIOS_IMPLEMENTED
#define DEV_BIOS_IMPLEMENTED

/* >>rom: build/minibios up to its last byte but zeroes, and its last 16 bytes. Made by
   guests/bios/embed */
/* clang-format off */
static const uint8_t pc__bios_code[] = {
    0x76, 0x6d, 0x6d, 0x20, 0x6d, 0x69, 0x6e, 0x69, 0x20, 0x42, 0x49, 0x4f, 0x53, 0x20, 0x31, 0x00,
    0x14, 0xfc, 0x8c, 0xfd, 0xfa, 0xfc, 0x31, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0x8e, 0xc0, 0x31,
    0xff, 0x0e, 0x1f, 0xb9, 0x00, 0x01, 0xb8, 0x57, 0xfd, 0xab, 0x8c, 0xc8, 0xab, 0xe2, 0xf7, 0xbe,
    0x62, 0xfd, 0xbf, 0x20, 0x00, 0xb9, 0x15, 0x00, 0xa5, 0xaf, 0xe2, 0xfc, 0xbf, 0xc0, 0x01, 0xb1,
    0x08, 0xb8, 0x4a, 0xfd, 0xab, 0xaf, 0xe2, 0xf9, 0x26, 0xc7, 0x06, 0x78, 0x00, 0x96, 0xfd, 0xe6,
    0x1f, 0xb0, 0x11, 0xe6, 0x20, 0xe6, 0xa0, 0xb0, 0x08, 0xe6, 0x21, 0xb0, 0x70, 0xe6, 0xa1, 0xb0,
    0x04, 0xe6, 0x21, 0xb0, 0x02, 0xe6, 0xa1, 0xb0, 0x01, 0xe6, 0x21, 0xe6, 0xa1, 0xb0, 0xf8, 0xe6,
    0x21, 0xb0, 0xff, 0xe6, 0xa1, 0xb0, 0x36, 0xe6, 0x43, 0x30, 0xc0, 0xe6, 0x40, 0xe6, 0x40, 0xfb,
    0xcd, 0x19, 0x31, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0x8e, 0xd8, 0x8e, 0xc0, 0xe6, 0x19, 0x72,
    0x06, 0xfb, 0xea, 0x00, 0x7c, 0x00, 0x00, 0xcd, 0x18, 0xe6, 0x10, 0x72, 0x01, 0xcf, 0x75, 0xf9,
    0xfb, 0xf4, 0xfa, 0xeb, 0xf4, 0xe6, 0x11, 0x72, 0x01, 0xcf, 0x75, 0xf9, 0xfb, 0xf4, 0xfa, 0xeb,
    0xf4, 0xe6, 0x12, 0x72, 0x01, 0xcf, 0x75, 0xf9, 0xfb, 0xf4, 0xfa, 0xeb, 0xf4, 0xe6, 0x13, 0x72,
    0x01, 0xcf, 0x75, 0xf9, 0xfb, 0xf4, 0xfa, 0xeb, 0xf4, 0xe6, 0x14, 0x72, 0x01, 0xcf, 0x75, 0xf9,
    0xfb, 0xf4, 0xfa, 0xeb, 0xf4, 0xe6, 0x15, 0x72, 0x01, 0xcf, 0x75, 0xf9, 0xfb, 0xf4, 0xfa, 0xeb,
    0xf4, 0xe6, 0x16, 0x72, 0x01, 0xcf, 0x75, 0xf9, 0xfb, 0xf4, 0xfa, 0xeb, 0xf4, 0xe6, 0x17, 0x72,
    0x01, 0xcf, 0x75, 0xf9, 0xfb, 0xf4, 0xfa, 0xeb, 0xf4, 0xe6, 0x18, 0x72, 0x01, 0xcf, 0x75, 0xf9,
    0xfb, 0xf4, 0xfa, 0xeb, 0xf4, 0xe6, 0x1a, 0x72, 0x01, 0xcf, 0x75, 0xf9, 0xfb, 0xf4, 0xfa, 0xeb,
    0xf4, 0x50, 0x52, 0x1e, 0xb8, 0x40, 0x00, 0x8e, 0xd8, 0x66, 0xff, 0x06, 0x6c, 0x00, 0x66, 0x81,
    0x3e, 0x6c, 0x00, 0xb0, 0x00, 0x18, 0x00, 0x72, 0x0d, 0x66, 0xc7, 0x06, 0x6c, 0x00, 0x00, 0x00,
    0x00, 0x00, 0xfe, 0x06, 0x70, 0x00, 0xcd, 0x1c, 0x1f, 0x5a, 0xeb, 0x16, 0x50, 0xe4, 0x60, 0xb4,
    0x4f, 0xf9, 0xcd, 0x15, 0x73, 0x0c, 0xe6, 0x1e, 0xeb, 0x08, 0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xeb,
    0x03, 0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf, 0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xfa, 0xf4,
    0xeb, 0xfc, 0x11, 0xfd, 0x3c, 0xfd, 0x51, 0xfd, 0x51, 0xfd, 0x51, 0xfd, 0x51, 0xfd, 0x51, 0xfd,
    0x51, 0xfd, 0x99, 0xfc, 0xa5, 0xfc, 0xb1, 0xfc, 0xbd, 0xfc, 0xc9, 0xfc, 0xd5, 0xfc, 0xe1, 0xfc,
    0xed, 0xfc, 0xf9, 0xfc, 0x82, 0xfc, 0x05, 0xfd, 0x57, 0xfd, 0x57, 0xfd, 0x08, 0x00, 0xfc, 0x00,
    0x00, 0x74, 0x00, 0x00, 0x00, 0x00, 0xaf, 0x02, 0x25, 0x02, 0x12, 0x1b, 0xff, 0x6c, 0xf6, 0x0f,
    0x08,
};
static const uint8_t pc__bios_tail[16] = {
    0xe9, 0x65, 0xfd, 0x00, 0x00, 0x31, 0x31, 0x2f, 0x32, 0x34, 0x2f, 0x32, 0x36, 0x00, 0xfc, 0x00,
};
/* clang-format on */

_Static_assert(sizeof pc__bios_code + sizeof pc__bios_tail <= PC_BIOS_LEN, "the ROM is too long");

enum { PC__BIOS_POST = 16, PC__BIOS_CONFIG = 18 }; /* offsets in it of two addresses in it */

static uint16_t pc__bios_word(unsigned at)
{
    return vmm_get16(pc__bios_code + at);
}

VMM_DEF void pc_bios_rom(uint8_t rom[PC_BIOS_LEN])
{
    memset(rom, 0, PC_BIOS_LEN);
    memcpy(rom, pc__bios_code, sizeof pc__bios_code);
    memcpy(rom + PC_BIOS_LEN - sizeof pc__bios_tail, pc__bios_tail, sizeof pc__bios_tail);
}

VMM_DEF bool pc_bios_is_rom(const void *data, size_t len)
{
    return len == PC_BIOS_LEN && !memcmp(data, pc__bios_code, 16);
}

VMM_DEF uint16_t pc_bios_entry(void)
{
    return pc__bios_word(PC__BIOS_POST);
}

/* >>call: what a service works on. */
enum { PC__CF = 0x01, PC__ZF = 0x40 };

enum pc__bios_todo {
    PC__BIOS_DONE,
    PC__BIOS_AGAIN, /* the terminal has no room: try again */
    PC__BIOS_HALT   /* try again after the next interrupt */
};

struct pc__bios_call {
    struct pc_bios *b;
    struct vmm_x86_regs *r;
    uint16_t set, clear; /* flags that the caller gets back */
};

static unsigned pc__lo(const struct vmm_x86_regs *r, enum vmm_x86_gpr g)
{
    return r->gpr[g] & 0xff;
}

static unsigned pc__hi(const struct vmm_x86_regs *r, enum vmm_x86_gpr g)
{
    return r->gpr[g] >> 8 & 0xff;
}

static unsigned pc__r16(const struct vmm_x86_regs *r, enum vmm_x86_gpr g)
{
    return r->gpr[g] & 0xffff;
}

static void pc__set_lo(struct vmm_x86_regs *r, enum vmm_x86_gpr g, unsigned v)
{
    r->gpr[g] = (r->gpr[g] & ~0xffull) | (v & 0xff);
}

static void pc__set_hi(struct vmm_x86_regs *r, enum vmm_x86_gpr g, unsigned v)
{
    r->gpr[g] = (r->gpr[g] & ~0xff00ull) | (v & 0xff) << 8;
}

static void pc__set16(struct vmm_x86_regs *r, enum vmm_x86_gpr g, unsigned v)
{
    r->gpr[g] = (r->gpr[g] & ~0xffffull) | (v & 0xffff);
}

static void pc__set32(struct vmm_x86_regs *r, enum vmm_x86_gpr g, uint32_t v)
{
    r->gpr[g] = v;
}

static void pc__set_es(struct vmm_x86_regs *r, uint16_t selector)
{
    r->es.selector = selector;
    r->es.base = selector * 16u;
}

/* Guest bytes, or NULL: the service fails. */
static uint8_t *pc__bios_at(const struct pc__bios_call *c, uint64_t gpa, uint64_t len)
{
    return (uint8_t *)vmm_at(c->b->desc.mem, gpa, len);
}

/* seg:offset */
static uint64_t pc__bios_far(const struct vmm_x86_seg *seg, unsigned offset)
{
    return seg->base + offset;
}

/* The BIOS data area; pc_bios_call has seen to it that there is RAM. */
static uint8_t *pc__bda(const struct pc_bios *b)
{
    return (uint8_t *)vmm_at(b->desc.mem, 0x400, 0x100);
}

static void pc__bios_carry(struct pc__bios_call *c, bool carry)
{
    *(carry ? &c->set : &c->clear) |= PC__CF;
}

/* How services 13h and 15h end: AH tells, and carry that it failed. */
static void pc__bios_status(struct pc__bios_call *c, unsigned status)
{
    pc__set_hi(c->r, VMM_RAX, status);
    pc__bios_carry(c, status != 0);
}

/* A byte-wide access as the CPU would do it. */
static uint8_t pc__bios_in(const struct pc_bios *b, uint16_t port)
{
    uint64_t val = 0xff;

    vmm_bus_access(b->desc.ports, port, 1, false, &val);
    return (uint8_t)val;
}

static void pc__bios_out(const struct pc_bios *b, uint16_t port, uint8_t byte)
{
    uint64_t val = byte;

    vmm_bus_access(b->desc.ports, port, 1, true, &val);
}

/* >>terminal: what it shows follows the text memory by the shortest way, so that plain text comes
   out as plain text. */
enum { PC__ROWS = 25, PC__COLS = 80, PC__CELLS = PC__ROWS * PC__COLS, PC__COM1 = 0x3f8 };
enum { PC__TEXT = 0xb8000, PC__BLANK = 0x0720, PC__CELL_MAX = 40 /* bytes to show one */ };
enum { PC__THR_EMPTY = 0x20 };
enum { /* the BIOS data area */
       PC__BDA_COM1 = 0x00,
       PC__BDA_EBDA = 0x0e,
       PC__BDA_EQUIPMENT = 0x10,
       PC__BDA_KIB = 0x13,
       PC__BDA_SHIFT = 0x17,
       PC__BDA_HEAD = 0x1a,
       PC__BDA_TAIL = 0x1c,
       PC__BDA_RING = 0x1e,
       PC__BDA_RING_END = 0x3e,
       PC__BDA_FLOPPY_STATUS = 0x41,
       PC__BDA_MODE = 0x49,
       PC__BDA_COLS = 0x4a,
       PC__BDA_CURSOR = 0x50,
       PC__BDA_SHAPE = 0x60,
       PC__BDA_TICKS = 0x6c,
       PC__BDA_MIDNIGHT = 0x70,
       PC__BDA_DISK_STATUS = 0x74,
       PC__BDA_DISKS = 0x75,
       PC__BDA_RING_START = 0x80,
       PC__BDA_RING_STOP = 0x82,
       PC__BDA_ROWS = 0x84,
       PC__BDA_KBD = 0x96 /* bit 4: 101 keys; bit 1: the last code was 0xe0 */
};

/* Code page 437 from 0x80, and what it has for control characters. */
static const uint16_t pc__cp437[128] = {
    0xc7,   0xfc,   0xe9,   0xe2,   0xe4,   0xe0,   0xe5,   0xe7,   0xea,   0xeb,   0xe8,   0xef,
    0xee,   0xec,   0xc4,   0xc5,   0xc9,   0xe6,   0xc6,   0xf4,   0xf6,   0xf2,   0xfb,   0xf9,
    0xff,   0xd6,   0xdc,   0xa2,   0xa3,   0xa5,   0x20a7, 0x192,  0xe1,   0xed,   0xf3,   0xfa,
    0xf1,   0xd1,   0xaa,   0xba,   0xbf,   0x2310, 0xac,   0xbd,   0xbc,   0xa1,   0xab,   0xbb,
    0x2591, 0x2592, 0x2593, 0x2502, 0x2524, 0x2561, 0x2562, 0x2556, 0x2555, 0x2563, 0x2551, 0x2557,
    0x255d, 0x255c, 0x255b, 0x2510, 0x2514, 0x2534, 0x252c, 0x251c, 0x2500, 0x253c, 0x255e, 0x255f,
    0x255a, 0x2554, 0x2569, 0x2566, 0x2560, 0x2550, 0x256c, 0x2567, 0x2568, 0x2564, 0x2565, 0x2559,
    0x2558, 0x2552, 0x2553, 0x256b, 0x256a, 0x2518, 0x250c, 0x2588, 0x2584, 0x258c, 0x2590, 0x2580,
    0x3b1,  0xdf,   0x393,  0x3c0,  0x3a3,  0x3c3,  0xb5,   0x3c4,  0x3a6,  0x398,  0x3a9,  0x3b4,
    0x221e, 0x3c6,  0x3b5,  0x2229, 0x2261, 0xb1,   0x2265, 0x2264, 0x2320, 0x2321, 0xf7,   0x2248,
    0xb0,   0x2219, 0xb7,   0x221a, 0x207f, 0xb2,   0x25a0, 0xa0};
static const uint16_t pc__cp437_low[32] = {
    ' ',    0x263a, 0x263b, 0x2665, 0x2666, 0x2663, 0x2660, 0x2022, 0x25d8, 0x25cb, 0x25d9,
    0x2642, 0x2640, 0x266a, 0x266b, 0x263c, 0x25ba, 0x25c4, 0x2195, 0x203c, 0xb6,   0xa7,
    0x25ac, 0x21a8, 0x2191, 0x2193, 0x2192, 0x2190, 0x221f, 0x2194, 0x25b2, 0x25bc};

/* Sends what waits. True: all of it is gone. */
static bool pc__term_flush(struct pc_bios *b)
{
    while (b->out_at < b->nout) {
        if (!(pc__bios_in(b, PC__COM1 + 5) & PC__THR_EMPTY))
            return false;
        pc__bios_out(b, PC__COM1, b->out[b->out_at++]);
    }
    b->nout = b->out_at = 0;
    return true;
}

/* Is there room for what one step needs? */
static bool pc__term_room(struct pc_bios *b)
{
    return sizeof b->out - b->nout >= PC__CELL_MAX || pc__term_flush(b);
}

static void pc__term_byte(struct pc_bios *b, unsigned byte)
{
    if (b->nout < sizeof b->out)
        b->out[b->nout++] = (uint8_t)byte;
}

static void pc__term_text(struct pc_bios *b, const char *s)
{
    for (; *s; s++)
        pc__term_byte(b, (uint8_t)*s);
}

static void pc__term_number(struct pc_bios *b, unsigned n)
{
    if (n >= 10)
        pc__term_byte(b, '0' + n / 10 % 10);
    pc__term_byte(b, '0' + n % 10);
}

/* A character of code page 437 in UTF-8. */
static void pc__term_char(struct pc_bios *b, uint8_t ch)
{
    unsigned u = ch < 32     ? pc__cp437_low[ch]
                 : ch < 127  ? ch
                 : ch == 127 ? 0x2302
                             : pc__cp437[ch - 128];

    if (u < 0x80) {
        pc__term_byte(b, u);
        return;
    }
    if (u < 0x800) {
        pc__term_byte(b, 0xc0 | u >> 6);
    } else {
        pc__term_byte(b, 0xe0 | u >> 12);
        pc__term_byte(b, 0x80 | (u >> 6 & 0x3f));
    }
    pc__term_byte(b, 0x80 | (u & 0x3f));
}

/* Colours of the two sorts are numbered by the same bits, in another order. */
static void pc__term_attr(struct pc_bios *b, uint8_t attr)
{
    static const uint8_t ansi[8] = {0, 4, 2, 6, 1, 5, 3, 7};

    if (attr == b->attr)
        return;
    b->attr = attr;
    pc__term_text(b, "\33[0");
    if (attr & 8)
        pc__term_text(b, ";1");
    if ((attr & 7) != 7) {
        pc__term_text(b, ";3");
        pc__term_number(b, ansi[attr & 7]);
    }
    if (attr & 0x70) {
        pc__term_text(b, ";4");
        pc__term_number(b, ansi[attr >> 4 & 7]);
    }
    pc__term_byte(b, 'm');
}

/* Are there but a few cells to a place on the same line, and of the colour that is set? */
static bool pc__term_gap(const struct pc_bios *b, unsigned row, unsigned col)
{
    unsigned at = b->cursor & 0xff;

    if (row != b->cursor >> 8 || col < at || col - at > 4)
        return false;
    while (at < col && b->shown[row * PC__COLS + at] >> 8 == b->attr)
        at++;
    return at == col;
}

/* Plain control characters where they do, for they are right on any terminal. */
static void pc__term_move(struct pc_bios *b, unsigned row, unsigned col)
{
    unsigned at_row = b->cursor >> 8, at_col = b->cursor & 0xff;

    if (row == at_row && col == at_col)
        return;
    if (col == at_col && row == at_row + 1 && col < PC__COLS) {
        pc__term_byte(b, '\n');
    } else if (col == 0 && (row == at_row || row == at_row + 1)) {
        pc__term_byte(b, '\r');
        if (row != at_row)
            pc__term_byte(b, '\n');
    } else if (row == at_row && col + 1 == at_col && at_col < PC__COLS) {
        pc__term_byte(b, '\b');
    } else if (pc__term_gap(b, row, col)) {
        for (; at_col < col; at_col++)
            pc__term_char(b, (uint8_t)b->shown[row * PC__COLS + at_col]);
    } else {
        pc__term_text(b, "\33[");
        pc__term_number(b, row + 1);
        pc__term_byte(b, ';');
        pc__term_number(b, col + 1);
        pc__term_byte(b, 'H');
    }
    b->cursor = (uint16_t)(row << 8 | col);
}

/* Shows one cell. In the last column terminals differ about where the cursor is then: it counts as
   beyond the line, so that the next move is by numbers or a carriage return. */
static void pc__term_cell(struct pc_bios *b, unsigned i, uint16_t cell)
{
    pc__term_move(b, i / PC__COLS, i % PC__COLS);
    pc__term_attr(b, (uint8_t)(cell >> 8));
    pc__term_char(b, (uint8_t)cell);
    b->shown[i] = cell;
    b->cursor++;
}

/* >>screen */
static uint8_t *pc__screen(const struct pc_bios *b)
{
    return (uint8_t *)vmm_at(b->desc.mem, PC__TEXT, 2 * PC__CELLS);
}

/* Makes the terminal show what has changed. False: it has no room yet. */
static bool pc__screen_cells(struct pc_bios *b)
{
    const uint8_t *screen = pc__screen(b);

    for (unsigned i = 0; i < PC__CELLS; i++) {
        uint16_t cell = vmm_get16(screen + 2 * i);
        if (cell == b->shown[i])
            continue;
        if (!pc__term_room(b))
            return false;
        pc__term_cell(b, i, cell);
    }
    return pc__term_room(b);
}

/* And the cursor. */
static bool pc__screen_show(struct pc_bios *b)
{
    const uint8_t *bda = pc__bda(b);
    unsigned at = vmm_get16(bda + PC__BDA_CURSOR), row = at >> 8, col = at & 0xff;
    bool hidden = bda[PC__BDA_SHAPE + 1] & 0x20 || row >= PC__ROWS || col >= PC__COLS;

    if (!pc__screen_cells(b))
        return false;
    if (hidden != b->hidden)
        pc__term_text(b, hidden ? "\33[?25l" : "\33[?25h");
    b->hidden = hidden;
    if (!hidden)
        pc__term_move(b, row, col);
    return true;
}

/* An empty screen that the terminal shows. False: it has no room yet. */
static bool pc__screen_clear(struct pc_bios *b)
{
    uint8_t *screen = pc__screen(b);

    if (!pc__term_room(b))
        return false;
    pc__term_attr(b, 7);
    pc__term_text(b, "\33[2J\33[H");
    b->cursor = 0;
    for (unsigned i = 0; i < PC__CELLS; i++) {
        vmm_put16(screen + 2 * i, PC__BLANK);
        b->shown[i] = PC__BLANK;
    }
    return true;
}

/* The whole screen one line up, also on the terminal, whose lines that go may be kept by it. What
   comes next is at column col: a new line is written as everybody writes it. */
static bool pc__screen_up(struct pc_bios *b, uint8_t attr, unsigned col)
{
    uint8_t *screen = pc__screen(b);
    unsigned kept = PC__CELLS - PC__COLS;

    if (!pc__screen_cells(b))
        return false;
    pc__term_attr(b, attr);
    if (b->cursor >> 8 != PC__ROWS - 1 || col == 0)
        pc__term_move(b, PC__ROWS - 1, col);
    pc__term_byte(b, '\n');
    memmove(screen, screen + 2 * PC__COLS, 2 * kept);
    memmove(b->shown, b->shown + PC__COLS, 2 * kept);
    for (unsigned i = kept; i < PC__CELLS; i++) {
        b->shown[i] = (uint16_t)(attr << 8 | ' ');
        vmm_put16(screen + 2 * i, b->shown[i]);
    }
    return true;
}

/* The lines of a window up or down by n; all of them go when n is 0 or too large. */
static void pc__screen_scroll(struct pc_bios *b, const struct vmm_x86_regs *r, bool up)
{
    unsigned top = pc__hi(r, VMM_RCX), left = pc__lo(r, VMM_RCX), n = pc__lo(r, VMM_RAX);
    unsigned bottom = pc__hi(r, VMM_RDX), right = pc__lo(r, VMM_RDX), lines;
    uint8_t *screen = pc__screen(b);

    bottom = bottom < PC__ROWS ? bottom : PC__ROWS - 1;
    right = right < PC__COLS ? right : PC__COLS - 1;
    if (top > bottom || left > right)
        return;
    lines = bottom - top + 1;
    n = n && n < lines ? n : lines;
    for (unsigned i = 0; i < lines; i++) {
        unsigned row = up ? top + i : bottom - i;
        uint8_t *to = screen + 2 * (row * PC__COLS + left);
        unsigned from = (up ? row + n : row - n) * PC__COLS + left;
        if (i + n < lines)
            memcpy(to, screen + 2 * from, 2 * (right - left + 1));
        for (unsigned k = 0; i + n >= lines && k <= right - left; k++)
            vmm_put16(to + 2 * k, (uint16_t)(pc__hi(r, VMM_RBX) << 8 | ' '));
    }
}

/* Where the guest's cursor is, on the screen. Read once: another CPU may write there. */
static unsigned pc__screen_cursor(const struct pc_bios *b)
{
    unsigned at = vmm_get16(pc__bda(b) + PC__BDA_CURSOR), row = at >> 8, col = at & 0xff;

    return (row < PC__ROWS ? row : PC__ROWS - 1) * PC__COLS + (col < PC__COLS ? col : PC__COLS - 1);
}

static void pc__screen_goto(const struct pc_bios *b, unsigned row, unsigned col)
{
    uint8_t *at = pc__bda(b) + PC__BDA_CURSOR;

    at[0] = (uint8_t)col;
    at[1] = (uint8_t)row;
}

/* A character as on a teletype. attr < 0: the colour that is there stays. */
static bool pc__screen_type(struct pc_bios *b, uint8_t ch, int attr)
{
    uint8_t *screen = pc__screen(b);
    unsigned i = pc__screen_cursor(b), row = i / PC__COLS, col = i % PC__COLS;

    if (!pc__term_room(b))
        return false;
    if (ch == '\r') {
        col = 0;
    } else if (ch == '\b') {
        col -= col > 0;
    } else if (ch == '\a') {
        pc__term_byte(b, '\a');
    } else if (ch != '\n') {
        screen[2 * i] = ch;
        screen[2 * i + 1] = attr < 0 ? screen[2 * i + 1] : (uint8_t)attr;
        b->shown[i] =
            (uint16_t)~vmm_get16(screen + 2 * i); /* what is written is sent, blanks too */
        col++;
    }
    if (ch == '\n' || col == PC__COLS) {
        col = ch == '\n' ? col : 0;
        if (row == PC__ROWS - 1 && !pc__screen_up(b, screen[2 * i + 1], col))
            return false;
        row += row < PC__ROWS - 1;
    }
    pc__screen_goto(b, row, col);
    return true;
}

/* AH=09h, 0Ah: a character some times, from the cursor, which stays. */
static void pc__screen_fill(struct pc_bios *b, const struct vmm_x86_regs *r, bool attr)
{
    uint8_t *screen = pc__screen(b);
    unsigned i = pc__screen_cursor(b), n = pc__r16(r, VMM_RCX);

    for (; n > 0 && i < PC__CELLS; n--, i++) {
        screen[2 * i] = (uint8_t)pc__lo(r, VMM_RAX);
        if (attr)
            screen[2 * i + 1] = (uint8_t)pc__lo(r, VMM_RBX);
    }
}

/* AH=13h: a string, in parts if the terminal is slow. */
static bool pc__screen_string(struct pc__bios_call *c)
{
    const struct vmm_x86_regs *r = c->r;
    struct pc_bios *b = c->b;
    unsigned mode = pc__lo(r, VMM_RAX), step = mode & 2 ? 2 : 1;
    const uint8_t *text = pc__bios_at(c, pc__bios_far(&r->es, pc__r16(r, VMM_RBP)),
                                      (uint64_t)pc__r16(r, VMM_RCX) * step);
    const uint8_t *bda = pc__bda(b);
    uint16_t before = vmm_get16(bda + PC__BDA_CURSOR);

    if (!text)
        return true;
    if (!b->string_at)
        pc__screen_goto(b, pc__hi(r, VMM_RDX), pc__lo(r, VMM_RDX));
    for (; b->string_at < pc__r16(r, VMM_RCX); b->string_at++) {
        const uint8_t *at = text + (size_t)b->string_at * step;
        if (!pc__screen_type(b, at[0], mode & 2 ? at[1] : (int)pc__lo(r, VMM_RBX)))
            return false;
    }
    b->string_at = 0;
    if (!(mode & 1))
        pc__screen_goto(b, before >> 8, before & 0xff);
    return true;
}

/* AH=00h. Text modes alone; all of them become 80 by 25 in colours. */
static bool pc__screen_mode(struct pc_bios *b, unsigned mode)
{
    uint8_t *bda = pc__bda(b);

    if ((mode & 0x7f) > 3 && (mode & 0x7f) != 7)
        return true;
    if (!(mode & 0x80) && !pc__screen_clear(b))
        return false;
    bda[PC__BDA_MODE] = 3;
    vmm_put16(bda + PC__BDA_SHAPE, 0x0607);
    pc__screen_goto(b, 0, 0);
    return true;
}

/* What only asks. */
static void pc__int10_ask(struct pc__bios_call *c)
{
    struct vmm_x86_regs *r = c->r;
    const uint8_t *bda = pc__bda(c->b);

    if (pc__hi(r, VMM_RAX) == 0x03) {
        pc__set16(r, VMM_RCX, vmm_get16(bda + PC__BDA_SHAPE));
        pc__set16(r, VMM_RDX, vmm_get16(bda + PC__BDA_CURSOR));
    } else if (pc__hi(r, VMM_RAX) == 0x08) {
        pc__set16(r, VMM_RAX, vmm_get16(pc__screen(c->b) + 2 * pc__screen_cursor(c->b)));
    } else if (pc__hi(r, VMM_RAX) == 0x0f) {
        pc__set16(r, VMM_RAX, PC__COLS << 8 | bda[PC__BDA_MODE]);
        pc__set_hi(r, VMM_RBX, 0);
    } else if (pc__r16(r, VMM_RAX) ==
               0x1a00) { /* a VGA with a colour display: text is at 0xb8000 */
        pc__set_lo(r, VMM_RAX, 0x1a);
        pc__set16(r, VMM_RBX, 8);
    }
}

static bool pc__int10_do(struct pc__bios_call *c)
{
    struct vmm_x86_regs *r = c->r;
    struct pc_bios *b = c->b;

    switch (pc__hi(r, VMM_RAX)) {
    case 0x00:
        return pc__screen_mode(b, pc__lo(r, VMM_RAX));
    case 0x01:
        vmm_put16(pc__bda(b) + PC__BDA_SHAPE, (uint16_t)pc__r16(r, VMM_RCX));
        break;
    case 0x02:
        pc__screen_goto(b, pc__hi(r, VMM_RDX), pc__lo(r, VMM_RDX));
        break;
    case 0x06:
        if (pc__lo(r, VMM_RAX) == 1 && !pc__r16(r, VMM_RCX) && pc__r16(r, VMM_RDX) == 0x184f)
            return pc__screen_up(b, (uint8_t)pc__hi(r, VMM_RBX), pc__screen_cursor(b) % PC__COLS);
        pc__screen_scroll(b, r, true);
        break;
    case 0x07:
        pc__screen_scroll(b, r, false);
        break;
    case 0x09:
    case 0x0a:
        pc__screen_fill(b, r, pc__hi(r, VMM_RAX) == 0x09);
        break;
    case 0x0e:
        return pc__screen_type(b, (uint8_t)pc__lo(r, VMM_RAX), -1);
    case 0x13:
        return pc__screen_string(c);
    default:
        pc__int10_ask(c);
        break;
    }
    return true;
}

/* A teletype's cursor is where it writes. Others move it about for each character: the terminal's
   follows when somebody waits for a key. */
static bool pc__screen_tell(struct pc_bios *b, unsigned function)
{
    bool follows = function == 0x01 || function == 0x0e || function == 0x13;

    return (follows ? pc__screen_show(b) : pc__screen_cells(b)) && pc__term_flush(b);
}

/* Done, and told again only because the terminal was slow: then the guest's registers are already
   what they are to be. */
static enum pc__bios_todo pc__int10(struct pc__bios_call *c)
{
    struct pc_bios *b = c->b;
    unsigned function = pc__hi(c->r, VMM_RAX);

    if (!b->told && !pc__int10_do(c))
        return PC__BIOS_AGAIN;
    if (!b->told)
        b->function = (uint8_t)function;
    b->told = true;
    if (!pc__screen_tell(b, b->function))
        return PC__BIOS_AGAIN;
    b->told = false;
    return PC__BIOS_DONE;
}

/* >>disks */
enum { /* what AH says */
       PC__DISK_BAD = 0x01,
       PC__DISK_PROTECTED = 0x03,
       PC__DISK_NOT_FOUND = 0x04,
       PC__DISK_NO_PARAMETERS = 0x07,
       PC__DISK_BUFFER = 0x09,
       PC__DISK_BROKEN = 0x20
};

/* Diskettes by their length: type as AH=08h has it, cylinders, heads, sectors. */
static const struct {
    uint16_t kib;
    uint8_t type, cylinders, heads, sectors;
} pc__floppies[] = {{160, 1, 40, 1, 8},   {180, 1, 40, 1, 9},  {320, 1, 40, 2, 8},
                    {360, 1, 40, 2, 9},   {720, 3, 80, 2, 9},  {1200, 2, 80, 2, 15},
                    {1440, 4, 80, 2, 18}, {2880, 5, 80, 2, 36}};

static bool pc__disk_is_floppy(struct pc_bios_disk *d)
{
    for (unsigned i = 0; i < sizeof pc__floppies / sizeof pc__floppies[0]; i++)
        if (d->nsectors == pc__floppies[i].kib * 2u) {
            d->type = pc__floppies[i].type;
            d->cylinders = pc__floppies[i].cylinders;
            d->heads = pc__floppies[i].heads;
            d->sectors = pc__floppies[i].sectors;
            return true;
        }
    return false;
}

/* Whoever partitioned a disk wrote by his own geometry where partitions end: at the end of a
   cylinder. */
static bool pc__disk_partitioned(struct pc_bios_disk *d, const uint8_t *mbr)
{
    if (vmm_get16(mbr + 510) != 0xaa55)
        return false;
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *entry = mbr + 446 + 16 * i;
        unsigned heads = entry[5] + 1u, sectors = entry[6] & 63;
        if (!entry[4] || !vmm_get32(entry + 12) || heads < 2 || heads > 255 || sectors < 2)
            continue;
        d->heads = (uint16_t)heads;
        d->sectors = (uint16_t)sectors;
        return true;
    }
    return false;
}

/* As many heads as it takes, that all of it, or as much as possible, can be addressed. */
static void pc__disk_geometry(struct pc_bios *b, unsigned i)
{
    struct pc_bios_disk *d = &b->disk[i];
    uint8_t mbr[512] = {0};
    uint64_t cylinders;

    d->heads = 16;
    d->sectors = 63;
    if (d->nsectors && b->desc.disk)
        (void)b->desc.disk(b->desc.ctx, i, false, mbr, 0, 1); /* unreadable: not partitioned */
    if (!pc__disk_partitioned(d, mbr))
        while (d->heads < 255 && d->nsectors / d->sectors / d->heads > 1024)
            d->heads = d->heads < 128 ? (uint16_t)(d->heads * 2) : 255;
    cylinders = d->nsectors / d->sectors / d->heads;
    d->cylinders = cylinders > 1024 ? 1024 : cylinders ? (uint32_t)cylinders : 1;
}

VMM_DEF void pc_bios_init(struct pc_bios *b, const struct pc_bios_desc *desc)
{
    uint8_t floppies = 0, disks = 0x80;

    memset(b, 0, sizeof *b);
    b->desc = *desc;
    if (b->desc.ndisks > PC_BIOS_DISKS_MAX)
        b->desc.ndisks = PC_BIOS_DISKS_MAX;
    for (unsigned i = 0; i < b->desc.ndisks; i++) {
        struct pc_bios_disk *d = &b->disk[i];
        d->nsectors = (desc->disk_len[i] >> 9) + !!(desc->disk_len[i] & 511);
        if (pc__disk_is_floppy(d)) {
            d->drive = floppies++;
        } else {
            d->drive = disks++;
            pc__disk_geometry(b, i);
        }
    }
}

/* NULL: there is no such drive. */
static struct pc_bios_disk *pc__disk_find(struct pc_bios *b, unsigned drive)
{
    for (unsigned i = 0; i < b->desc.ndisks; i++)
        if (b->disk[i].drive == drive)
            return &b->disk[i];
    return NULL;
}

static unsigned pc__disk_count(const struct pc_bios *b, bool floppy)
{
    unsigned n = 0;

    for (unsigned i = 0; i < b->desc.ndisks; i++)
        n += (b->disk[i].type != 0) == floppy;
    return n;
}

/* Transfers between a disk and guest memory; returns what AH shall say. */
static unsigned pc__disk_move(struct pc__bios_call *c, const struct pc_bios_disk *d, bool write,
                              uint64_t gpa, uint64_t sector, unsigned n)
{
    const struct pc_bios_desc *desc = &c->b->desc;
    uint8_t *buf = pc__bios_at(c, gpa, (uint64_t)n * 512);
    int err;

    if (sector >= d->nsectors || n > d->nsectors - sector)
        return PC__DISK_NOT_FOUND;
    if (!buf)
        return PC__DISK_BUFFER;
    err = n ? desc->disk(desc->ctx, (unsigned)(d - c->b->disk), write, buf, sector, n) : 0;
    return err == -EROFS ? PC__DISK_PROTECTED : err ? PC__DISK_BROKEN : 0;
}

/* AH=02h, 03h, 04h: read, write, verify by cylinder, head and sector. */
static unsigned pc__disk_chs(struct pc__bios_call *c, const struct pc_bios_disk *d)
{
    struct vmm_x86_regs *r = c->r;
    unsigned n = pc__lo(r, VMM_RAX), head = pc__hi(r, VMM_RDX), sector = pc__lo(r, VMM_RCX) & 63;
    unsigned cylinder = pc__hi(r, VMM_RCX) | (pc__lo(r, VMM_RCX) & 0xc0) << 2, status;
    uint64_t at = ((uint64_t)cylinder * d->heads + head) * d->sectors + sector - 1;

    if (!n || n > 128)
        return PC__DISK_BAD;
    if (head >= d->heads || !sector || sector > d->sectors)
        status = PC__DISK_NOT_FOUND;
    else if (pc__hi(r, VMM_RAX) == 0x04)
        status = at + n <= d->nsectors ? 0 : PC__DISK_NOT_FOUND;
    else
        status = pc__disk_move(c, d, pc__hi(r, VMM_RAX) == 0x03,
                               pc__bios_far(&r->es, pc__r16(r, VMM_RBX)), at, n);
    if (status)
        pc__set_lo(r, VMM_RAX, 0);
    return status;
}

/* AH=42h, 43h, 44h, 47h: read, write, verify, seek by a packet with the sector's number. */
static unsigned pc__disk_packet(struct pc__bios_call *c, const struct pc_bios_disk *d)
{
    const struct vmm_x86_regs *r = c->r;
    uint8_t *packet = pc__bios_at(c, pc__bios_far(&r->ds, pc__r16(r, VMM_RSI)), 16);
    unsigned n, function = pc__hi(r, VMM_RAX), status;
    uint64_t gpa, sector;

    if (!packet || packet[0] < 16)
        return PC__DISK_BAD;
    n = vmm_get16(packet + 2);
    gpa = vmm_get16(packet + 6) * 16ull + vmm_get16(packet + 4);
    sector = vmm_get64(packet + 8);
    if (vmm_get32(packet + 4) == 0xffffffff && packet[0] >= 24) { /* a flat address follows */
        uint8_t *flat = pc__bios_at(c, pc__bios_far(&r->ds, pc__r16(r, VMM_RSI)) + 16, 8);
        if (!flat)
            return PC__DISK_BAD;
        gpa = vmm_get64(flat);
    }
    if (function == 0x44 || function == 0x47)
        return sector < d->nsectors && n <= d->nsectors - sector ? 0 : PC__DISK_NOT_FOUND;
    status = pc__disk_move(c, d, function == 0x43, gpa, sector, n);
    if (status)
        vmm_put16(packet + 2, 0);
    return status;
}

/* AH=48h */
static unsigned pc__disk_parameters(struct pc__bios_call *c, const struct pc_bios_disk *d)
{
    uint8_t *p = pc__bios_at(c, pc__bios_far(&c->r->ds, pc__r16(c->r, VMM_RSI)), 30);
    unsigned room = p ? vmm_get16(p) : 0;

    if (room < 26)
        return PC__DISK_BAD;
    vmm_put16(p, room >= 30 ? 30 : 26);
    vmm_put16(p + 2, d->nsectors / d->heads / d->sectors <= 1024 ? 2 : 0); /* geometry is valid */
    vmm_put32(p + 4, d->cylinders);
    vmm_put32(p + 8, d->heads);
    vmm_put32(p + 12, d->sectors);
    vmm_put64(p + 16, d->nsectors);
    vmm_put16(p + 24, 512);
    if (room >= 30)
        vmm_put32(p + 26, 0xffffffff); /* no further table */
    return 0;
}

/* AH=08h */
static unsigned pc__disk_shape(struct pc__bios_call *c, const struct pc_bios_disk *d)
{
    struct vmm_x86_regs *r = c->r;
    unsigned last = d->cylinders - 1;
    const uint8_t *vector = pc__bios_at(c, 4 * 0x1e, 4);

    pc__set_lo(r, VMM_RAX, 0);
    pc__set16(r, VMM_RCX, (last & 0xff) << 8 | (last >> 8 & 3) << 6 | d->sectors);
    pc__set16(r, VMM_RDX, (d->heads - 1u) << 8 | pc__disk_count(c->b, d->type != 0));
    if (!d->type)
        return 0;
    pc__set16(r, VMM_RBX, d->type);
    pc__set16(r, VMM_RDI, vmm_get16(vector));
    pc__set_es(r, vmm_get16(vector + 2));
    return 0;
}

/* AH=15h: what is there; says so without a status. */
static unsigned pc__disk_kind(struct pc__bios_call *c, const struct pc_bios_disk *d)
{
    if (!d->type) {
        pc__set16(c->r, VMM_RCX, (unsigned)(d->nsectors >> 16));
        pc__set16(c->r, VMM_RDX, (unsigned)d->nsectors);
    }
    return d->type ? 1 : 3;
}

/* AH=41h: the services by packet, for disks that have them */
static unsigned pc__disk_has_packets(struct pc__bios_call *c, const struct pc_bios_disk *d)
{
    if (pc__r16(c->r, VMM_RBX) != 0x55aa || d->type)
        return PC__DISK_BAD;
    pc__set16(c->r, VMM_RBX, 0xaa55);
    pc__set16(c->r, VMM_RCX, 1);
    return 0;
}

static unsigned pc__int13_do(struct pc__bios_call *c, const struct pc_bios_disk *d)
{
    unsigned function = pc__hi(c->r, VMM_RAX);

    switch (function) {
    case 0x00: /* reset */
    case 0x0c: /* seek */
    case 0x0d: /* reset */
    case 0x10: /* ready? */
    case 0x11: /* recalibrate */
    case 0x16: /* changed? */
        return 0;
    case 0x02:
    case 0x03:
    case 0x04:
        return pc__disk_chs(c, d);
    case 0x08:
        return pc__disk_shape(c, d);
    case 0x41:
        return pc__disk_has_packets(c, d);
    case 0x42:
    case 0x43:
    case 0x44:
    case 0x47:
    case 0x48:
        if (d->type)
            return PC__DISK_BAD;
        return function == 0x48 ? pc__disk_parameters(c, d) : pc__disk_packet(c, d);
    default:
        return PC__DISK_BAD;
    }
}

static void pc__int13(struct pc__bios_call *c)
{
    unsigned drive = pc__lo(c->r, VMM_RDX), function = pc__hi(c->r, VMM_RAX), status;
    const struct pc_bios_disk *d = pc__disk_find(c->b, drive);
    uint8_t *last = pc__bda(c->b) + (drive < 0x80 ? PC__BDA_FLOPPY_STATUS : PC__BDA_DISK_STATUS);

    if (function == 0x15) {
        pc__bios_carry(c, false);
        pc__set_hi(c->r, VMM_RAX, d ? pc__disk_kind(c, d) : 0);
        return;
    }
    if (function == 0x01)
        status = *last;
    else if (!d)
        status = function == 0x08 ? PC__DISK_NO_PARAMETERS : PC__DISK_BAD;
    else
        status = pc__int13_do(c, d);
    *last = (uint8_t)status;
    pc__bios_status(c, status);
    if (function == 0x41 && !status)
        pc__set_hi(c->r, VMM_RAX, 0x30); /* the version */
}

/* >>memory and the rest of INT 15h */

/* The end of RAM from 1 MiB up, below 4 GiB. */
static uint64_t pc__ram_end(const struct pc_bios *b)
{
    for (unsigned i = 0; i < b->desc.nmap; i++) {
        const struct pc_bios_range *m = &b->desc.map[i];
        if (m->type == 1 && m->gpa == 0x100000)
            return m->gpa + m->len < 1ull << 32 ? m->gpa + m->len : 1ull << 32;
    }
    return 0x100000;
}

/* AX=E820h; EBX counts. */
static void pc__int15_map(struct pc__bios_call *c)
{
    struct vmm_x86_regs *r = c->r;
    uint32_t i = (uint32_t)r->gpr[VMM_RBX];
    uint8_t *p = pc__bios_at(c, pc__bios_far(&r->es, pc__r16(r, VMM_RDI)), 20);

    if ((uint32_t)r->gpr[VMM_RDX] != 0x534d4150 || (uint32_t)r->gpr[VMM_RCX] < 20 || !p ||
        i >= c->b->desc.nmap) {
        pc__bios_status(c, 0x86);
        return;
    }
    vmm_put64(p, c->b->desc.map[i].gpa);
    vmm_put64(p + 8, c->b->desc.map[i].len);
    vmm_put32(p + 16, c->b->desc.map[i].type);
    pc__set32(r, VMM_RAX, 0x534d4150);
    pc__set32(r, VMM_RBX, i + 1 < c->b->desc.nmap ? i + 1 : 0);
    pc__set32(r, VMM_RCX, 20);
    pc__bios_carry(c, false);
}

/* AX=E801h: KiB up to 16 MiB, then units of 64 KiB. */
static void pc__int15_e801(struct pc__bios_call *c)
{
    uint64_t end = pc__ram_end(c->b), split = 16 << 20;
    uint64_t low = (end < split ? end : split) - 0x100000, high = end > split ? end - split : 0;

    pc__set16(c->r, VMM_RAX, (unsigned)(low >> 10));
    pc__set16(c->r, VMM_RBX, (unsigned)(high >> 16));
    pc__set16(c->r, VMM_RCX, (unsigned)(low >> 10));
    pc__set16(c->r, VMM_RDX, (unsigned)(high >> 16));
    pc__bios_carry(c, false);
}

/* AH=87h: words from and to anywhere, by descriptors 2 and 3 of a table. */
static void pc__int15_move(struct pc__bios_call *c)
{
    const struct vmm_x86_regs *r = c->r;
    uint8_t *table = pc__bios_at(c, pc__bios_far(&r->es, pc__r16(r, VMM_RSI)), 32);
    uint64_t len = pc__r16(r, VMM_RCX) * 2ull;
    uint8_t *from, *to;

    if (!table || len > 0x10000) {
        pc__bios_status(c, 2);
        return;
    }
    from = pc__bios_at(c, (vmm_get32(table + 18) & 0xffffff) | (uint32_t)table[23] << 24, len);
    to = pc__bios_at(c, (vmm_get32(table + 26) & 0xffffff) | (uint32_t)table[31] << 24, len);
    if (from && to)
        memmove(to, from, (size_t)len);
    pc__bios_status(c, from && to ? 0 : 2);
}

/* AH=86h: CX:DX microseconds. The tick wakes from longer waits. */
static enum pc__bios_todo pc__int15_wait(struct pc__bios_call *c)
{
    struct pc_bios *b = c->b;
    uint64_t us = (uint64_t)pc__r16(c->r, VMM_RCX) << 16 | pc__r16(c->r, VMM_RDX);
    uint64_t now = b->desc.now ? b->desc.now(b->desc.ctx) : UINT64_MAX;

    if (!b->until)
        b->until = now + us * 1000;
    if (now < b->until)
        return b->until - now > 60000000 ? PC__BIOS_HALT : PC__BIOS_AGAIN;
    b->until = 0;
    pc__bios_status(c, 0);
    return PC__BIOS_DONE;
}

/* AH=24h: the gate of address line 20 is open for ever. */
static void pc__int15_a20(struct pc__bios_call *c)
{
    struct vmm_x86_regs *r = c->r;
    unsigned function = pc__lo(r, VMM_RAX);

    pc__bios_status(c, function >= 1 && function <= 3 ? 0 : 0x86);
    if (function == 2)
        pc__set_lo(r, VMM_RAX, 1);
    if (function == 3)
        pc__set16(r, VMM_RBX, 0);
}

/* AH=53h: as much of Advanced Power Management 1.2 as it takes to switch the machine off. */
static void pc__int15_apm(struct pc__bios_call *c)
{
    struct vmm_x86_regs *r = c->r;
    unsigned function = pc__lo(r, VMM_RAX);
    bool off = function == 7 && pc__r16(r, VMM_RBX) == 1 && pc__r16(r, VMM_RCX) == 3;

    if (!c->b->desc.off || !(function <= 1 || function == 4 || off || function == 0x0e)) {
        pc__bios_status(c, 0x86);
        return;
    }
    pc__bios_carry(c, false);
    if (off)
        c->b->desc.off(c->b->desc.ctx);
    if (function == 0 || function == 0x0e)
        pc__set16(r, VMM_RAX, 0x0102);
    if (function == 0) {
        pc__set16(r, VMM_RBX, 'P' << 8 | 'M');
        pc__set16(r, VMM_RCX, 0);
    }
}

/* What has no subfunctions. */
static enum pc__bios_todo pc__int15_misc(struct pc__bios_call *c)
{
    struct vmm_x86_regs *r = c->r;
    uint64_t kib = (pc__ram_end(c->b) >> 10) - 1024;

    switch (pc__hi(r, VMM_RAX)) {
    case 0x4f: /* the scan code stays what it is */
        pc__bios_carry(c, true);
        break;
    case 0x86:
        return pc__int15_wait(c);
    case 0x87:
        pc__int15_move(c);
        break;
    case 0x88:
        pc__set16(r, VMM_RAX, kib < 0xfc00 ? (unsigned)kib : 0xfc00);
        pc__bios_carry(c, false);
        break;
    case 0xc0:
        pc__bios_status(c, 0);
        pc__set_es(r, 0xf000);
        pc__set16(r, VMM_RBX, pc__bios_word(PC__BIOS_CONFIG));
        break;
    case 0xc1:
        pc__bios_carry(c, false);
        pc__set_es(r, vmm_get16(pc__bda(c->b) + PC__BDA_EBDA));
        break;
    default:
        pc__bios_status(c, 0x86); /* not supported */
        break;
    }
    return PC__BIOS_DONE;
}

static enum pc__bios_todo pc__int15(struct pc__bios_call *c)
{
    unsigned ax = pc__r16(c->r, VMM_RAX);

    if (ax == 0xe820)
        pc__int15_map(c);
    else if (ax == 0xe801)
        pc__int15_e801(c);
    else if (ax >> 8 == 0x24)
        pc__int15_a20(c);
    else if (ax >> 8 == 0x53)
        pc__int15_apm(c);
    else
        return pc__int15_misc(c);
    return PC__BIOS_DONE;
}

/* >>keyboard: INT 9 gets scan codes of set 1 and puts keys into a ring in the BIOS data area. */

/* US layout: what keys 1 to 0x39 are, without and with shift. */
static const char pc__keys[2][0x3a] = {
    "\0\0331234567890-=\b\tqwertyuiop[]\r\0asdfghjkl;'`\0\\zxcvbnm,./\0*\0 ",
    "\0\33!@#$%^&*()_+\b\0QWERTYUIOP{}\r\0ASDFGHJKL:\"~\0|ZXCVBNM<>?\0*\0 "};

enum { PC__SHIFT = 3, PC__CTRL = 4, PC__ALT = 8, PC__CAPS = 0x40, PC__NUM = 0x20 };

/* The ring, with head and tail in it whatever the guest made of them. */
struct pc__ring {
    uint8_t *bda;
    unsigned start, end, head, tail; /* from 0x400 */
};

static struct pc__ring pc__ring(const struct pc_bios *b)
{
    struct pc__ring q = {pc__bda(b), PC__BDA_RING, PC__BDA_RING_END, 0, 0};
    unsigned start = vmm_get16(q.bda + PC__BDA_RING_START);
    unsigned end = vmm_get16(q.bda + PC__BDA_RING_STOP);

    if (start < end && end <= 0x100 && !((start | end) & 1)) {
        q.start = start;
        q.end = end;
    }
    q.head = vmm_get16(q.bda + PC__BDA_HEAD);
    q.tail = vmm_get16(q.bda + PC__BDA_TAIL);
    if (q.head < q.start || q.head >= q.end || q.head & 1)
        q.head = q.start;
    if (q.tail < q.start || q.tail >= q.end || q.tail & 1)
        q.tail = q.start;
    return q;
}

static unsigned pc__ring_next(const struct pc__ring *q, unsigned at)
{
    return at + 2 < q->end ? at + 2 : q->start;
}

/* A key: scan code and character. False: the ring is full. */
static bool pc__ring_put(const struct pc_bios *b, uint16_t key)
{
    struct pc__ring q = pc__ring(b);
    unsigned next = pc__ring_next(&q, q.tail);

    if (next == q.head)
        return false;
    vmm_put16(q.bda + q.tail, key);
    vmm_put16(q.bda + PC__BDA_TAIL, (uint16_t)next);
    return true;
}

VMM_DEF bool pc_bios_room(const struct pc_bios *b)
{
    struct pc__ring q;

    if (!pc__bda(b))
        return false;
    q = pc__ring(b);
    return pc__ring_next(&q, q.tail) != q.head;
}

/* Function keys have other codes with shift, ctrl and alt. */
static uint16_t pc__key_function(unsigned code, unsigned shift)
{
    unsigned n = shift & PC__ALT ? 3 : shift & PC__CTRL ? 2 : shift & PC__SHIFT ? 1 : 0;

    if (code >= 0x57)
        return (uint16_t)((0x85 + code - 0x57 + 2 * n) << 8);
    return (uint16_t)((n ? 0x54 + code - 0x3b + 10 * (n - 1) : code) << 8);
}

/* The pad, whose digits need NumLock or shift, and not the grey keys. */
static uint16_t pc__key_pad(unsigned code, unsigned shift, bool grey)
{
    static const char digits[] = "789-456+1230.";
    bool digit = !grey && !(shift & PC__NUM) != !(shift & PC__SHIFT);

    if (digit || code == 0x4a || code == 0x4e)
        return (uint16_t)(code << 8 | (uint8_t)digits[code - 0x47]);
    return (uint16_t)(code << 8 | (grey ? 0xe0 : 0));
}

/* What a pressed key puts into the ring; 0: nothing. */
static uint16_t pc__key(unsigned code, unsigned shift, bool grey)
{
    unsigned ch;

    if ((code >= 0x3b && code <= 0x44) || code == 0x57 || code == 0x58)
        return pc__key_function(code, shift);
    if (code >= 0x47 && code <= 0x53)
        return pc__key_pad(code, shift, grey);
    if (code >= 0x3a)
        return 0;
    ch = (uint8_t)pc__keys[(shift & PC__SHIFT) != 0][code];
    if (shift & PC__CAPS && ((ch | 32) >= 'a' && (ch | 32) <= 'z'))
        ch ^= 32;
    if (shift & PC__ALT)
        ch = 0;
    else if (shift & PC__CTRL && ch >= '@' && ch < 0x7f)
        ch &= 0x1f;
    else if (shift & PC__CTRL && ch > ' ')
        return 0;
    return ch || shift & PC__ALT || code == 0x0f ? (uint16_t)(code << 8 | ch) : 0;
}

/* The bit of a key that is held or that locks; 0: it is neither. */
static unsigned pc__key_modifier(unsigned code)
{
    static const struct {
        uint8_t code, bit;
    } modifiers[] = {{0x36, 1},    {0x2a, 2},    {0x1d, 4},   {0x38, 8},
                     {0x46, 0x10}, {0x45, 0x20}, {0x3a, 0x40}};

    for (unsigned i = 0; i < sizeof modifiers / sizeof modifiers[0]; i++)
        if (modifiers[i].code == code)
            return modifiers[i].bit;
    return 0;
}

/* A scan code, from INT 9. */
static void pc__int9(struct pc__bios_call *c)
{
    uint8_t *bda = pc__bda(c->b);
    unsigned code = pc__lo(c->r, VMM_RAX), bit = pc__key_modifier(code & 0x7f);
    bool grey = bda[PC__BDA_KBD] & 2;
    uint16_t key;

    bda[PC__BDA_KBD] &= (uint8_t)~3u;
    if (code == 0xe0) {
        bda[PC__BDA_KBD] |= 2;
    } else if (bit && grey && bit < 4) { /* shifts that come with grey keys are not meant */
    } else if (bit >= 0x10) {
        bda[PC__BDA_SHIFT] ^= code < 0x80 ? bit : 0;
    } else if (bit) {
        bda[PC__BDA_SHIFT] =
            (uint8_t)(code < 0x80 ? bda[PC__BDA_SHIFT] | bit : bda[PC__BDA_SHIFT] & ~bit);
    } else if (code < 0x80) {
        key = pc__key(code, bda[PC__BDA_SHIFT], grey);
        if (key)
            (void)pc__ring_put(c->b, key); /* full: the key is lost, as on any PC */
    }
}

/* AH=00h, 10h take the next key, 01h, 11h look at it. Programs older than the grey keys are told
   that these have no character. */
static enum pc__bios_todo pc__int16_get(struct pc__bios_call *c, unsigned function)
{
    struct pc__ring q = pc__ring(c->b);
    uint16_t key = vmm_get16(q.bda + q.head);

    if (q.head == q.tail && !(function & 1))
        return PC__BIOS_HALT;
    *(q.head == q.tail ? &c->set : &c->clear) |= PC__ZF;
    if (q.head == q.tail)
        return PC__BIOS_DONE;
    if (!(function & 0x10) && (key & 0xff) == 0xe0)
        key &= 0xff00;
    pc__set16(c->r, VMM_RAX, key);
    if (function & 1)
        return PC__BIOS_DONE;
    vmm_put16(q.bda + PC__BDA_HEAD, (uint16_t)pc__ring_next(&q, q.head));
    if (c->b->desc.key_room)
        c->b->desc.key_room(c->b->desc.ctx);
    return PC__BIOS_DONE;
}

static enum pc__bios_todo pc__int16(struct pc__bios_call *c)
{
    struct vmm_x86_regs *r = c->r;
    unsigned function = pc__hi(r, VMM_RAX);

    switch (function) {
    case 0x00:
    case 0x01:
    case 0x10:
    case 0x11:
        if (pc__screen_show(c->b))
            pc__term_flush(c->b);
        return pc__int16_get(c, function);
    case 0x02:
    case 0x12:
        pc__set_lo(r, VMM_RAX, pc__bda(c->b)[PC__BDA_SHIFT]);
        if (function == 0x12)
            pc__set_hi(r, VMM_RAX, 0);
        break;
    case 0x05:
        pc__set_lo(r, VMM_RAX, !pc__ring_put(c->b, (uint16_t)pc__r16(r, VMM_RCX)));
        break;
    default: /* there is no answer that says no */
        break;
    }
    return PC__BIOS_DONE;
}

VMM_DEF uint16_t pc_bios_escape(const char *text, size_t len, size_t *taken)
{
    static const char letters[] = "ABCDHFPQRS", digits[] = "123456";
    static const uint16_t codes[] = {0xe048, 0xe050, 0xe04d, 0xe04b, 0xe047,
                                     0xe04f, 0x3b,   0x3c,   0x3d,   0x3e};
    static const uint16_t numbered[] = {0xe047, 0xe052, 0xe053, 0xe04f, 0xe049, 0xe051};
    const char *at;

    if (len < 3 || text[0] != 27 || (text[1] != '[' && text[1] != 'O'))
        return 0;
    *taken = 3;
    at = (const char *)memchr(letters, text[2], sizeof letters - 1);
    if (at)
        return codes[at - letters];
    at = (const char *)memchr(digits, text[2], sizeof digits - 1);
    if (!at || len < 4 || text[3] != '~')
        return 0;
    *taken = 4;
    return numbered[at - digits];
}

/* >>serial: INT 14h, AH=00h to 03h, for COM1 */
static enum pc__bios_todo pc__int14(struct pc__bios_call *c)
{
    struct vmm_x86_regs *r = c->r;
    const struct pc_bios *b = c->b;
    unsigned function = pc__hi(r, VMM_RAX), line = pc__bios_in(b, PC__COM1 + 5);

    if (pc__r16(r, VMM_RDX)) { /* no such port: it times out */
        pc__set_hi(r, VMM_RAX, 0x80);
        return PC__BIOS_DONE;
    }
    if (function == 0x01 && !(line & PC__THR_EMPTY))
        return PC__BIOS_AGAIN;
    if (function == 0x01)
        pc__bios_out(b, PC__COM1, (uint8_t)pc__lo(r, VMM_RAX));
    if (function == 0x02 && line & 1)
        pc__set_lo(r, VMM_RAX, pc__bios_in(b, PC__COM1));
    pc__set_hi(r, VMM_RAX, function == 0x02 && !(line & 1) ? 0x80 | line : line);
    if (function == 0x00 || function == 0x03)
        pc__set_lo(r, VMM_RAX, pc__bios_in(b, PC__COM1 + 6));
    return PC__BIOS_DONE;
}

/* >>time: the tick count is the guest's; the clock of the day is the chip at port 0x70. */
enum { PC__CLOCK_B = 0x0b, PC__CLOCK_BINARY = 4, PC__CLOCK_SET = 0x80 };
enum { PC__TICKS_A_DAY = 0x1800b0 };

static uint8_t pc__clock_in(const struct pc_bios *b, uint8_t reg)
{
    pc__bios_out(b, 0x70, reg);
    return pc__bios_in(b, 0x71);
}

static void pc__clock_out(const struct pc_bios *b, uint8_t reg, uint8_t val)
{
    pc__bios_out(b, 0x70, reg);
    pc__bios_out(b, 0x71, val);
}

/* Registers that belong together, all from the same second, in BCD whatever the chip is set to. */
static void pc__clock_read(const struct pc_bios *b, const uint8_t *regs, uint8_t *vals, unsigned n)
{
    bool binary = pc__clock_in(b, PC__CLOCK_B) & PC__CLOCK_BINARY;
    unsigned tries = 8;
    uint8_t second;

    do {
        second = pc__clock_in(b, 0);
        for (unsigned i = 0; i < n; i++)
            vals[i] = pc__clock_in(b, regs[i]);
    } while (second != pc__clock_in(b, 0) && --tries);
    for (unsigned i = 0; i < n && binary; i++)
        vals[i] = (uint8_t)(vals[i] / 10 % 10 << 4 | vals[i] % 10);
}

static void pc__clock_write(const struct pc_bios *b, const uint8_t *regs, const uint8_t *vals,
                            unsigned n)
{
    uint8_t control = pc__clock_in(b, PC__CLOCK_B);

    pc__clock_out(b, PC__CLOCK_B, control | PC__CLOCK_SET);
    for (unsigned i = 0; i < n; i++)
        pc__clock_out(b, regs[i],
                      control & PC__CLOCK_BINARY ? (uint8_t)((vals[i] >> 4) * 10 + (vals[i] & 15))
                                                 : vals[i]);
    pc__clock_out(b, PC__CLOCK_B, control & (uint8_t)~PC__CLOCK_SET);
}

static const uint8_t pc__clock_time[3] = {4, 2, 0}, pc__clock_date[4] = {0x32, 9, 8, 7};

static unsigned pc__from_bcd(uint8_t v)
{
    return (v >> 4) * 10u + (v & 15);
}

/* How many ticks of 65536 / 1193182 s of this day are over. */
static uint32_t pc__clock_ticks(const struct pc_bios *b)
{
    uint8_t t[3];
    uint64_t seconds;

    pc__clock_read(b, pc__clock_time, t, 3);
    seconds = (pc__from_bcd(t[0]) * 60ull + pc__from_bcd(t[1])) * 60 + pc__from_bcd(t[2]);
    return (uint32_t)(seconds * 1193182 / 65536 % PC__TICKS_A_DAY);
}

/* AH=02h to 05h */
static void pc__int1a_clock(struct pc__bios_call *c, unsigned function)
{
    struct vmm_x86_regs *r = c->r;
    uint8_t v[4] = {(uint8_t)pc__hi(r, VMM_RCX), (uint8_t)pc__lo(r, VMM_RCX),
                    (uint8_t)pc__hi(r, VMM_RDX), (uint8_t)pc__lo(r, VMM_RDX)};
    bool date = function >= 4;

    pc__bios_carry(c, false);
    if (function & 1) {
        pc__clock_write(c->b, date ? pc__clock_date : pc__clock_time, v, date ? 4 : 3);
        return;
    }
    v[3] = 0; /* no daylight saving */
    pc__clock_read(c->b, date ? pc__clock_date : pc__clock_time, v, date ? 4 : 3);
    pc__set16(r, VMM_RCX, (unsigned)v[0] << 8 | v[1]);
    pc__set16(r, VMM_RDX, (unsigned)v[2] << 8 | v[3]);
}

static void pc__int1a(struct pc__bios_call *c)
{
    struct vmm_x86_regs *r = c->r;
    uint8_t *bda = pc__bda(c->b);
    unsigned function = pc__hi(r, VMM_RAX);

    if (function == 0) {
        pc__set_lo(r, VMM_RAX, bda[PC__BDA_MIDNIGHT]);
        pc__set16(r, VMM_RDX, vmm_get16(bda + PC__BDA_TICKS));
        pc__set16(r, VMM_RCX, vmm_get16(bda + PC__BDA_TICKS + 2));
        bda[PC__BDA_MIDNIGHT] = 0;
        pc__bios_carry(c, false);
    } else if (function == 1) {
        vmm_put16(bda + PC__BDA_TICKS, (uint16_t)pc__r16(r, VMM_RDX));
        vmm_put16(bda + PC__BDA_TICKS + 2, (uint16_t)pc__r16(r, VMM_RCX));
        bda[PC__BDA_MIDNIGHT] = 0;
        pc__bios_carry(c, false);
    } else if (function <= 5) {
        pc__int1a_clock(c, function);
    } else {
        pc__bios_carry(c, true); /* alarms, PCI */
    }
}

/* >>start */

/* Port 0x1f: the BIOS data area, and the extended one, which is empty. */
static void pc__power_on(struct pc_bios *b)
{
    unsigned floppies = pc__disk_count(b, true);
    uint8_t *bda = pc__bda(b), *screen = pc__screen(b);
    uint8_t *ebda = (uint8_t *)vmm_at(b->desc.mem, 0x9fc00, 0x400);

    if (!bda || !screen || !ebda)
        return;
    memset(bda, 0, 0x100);
    vmm_put16(bda + PC__BDA_COM1, PC__COM1);
    vmm_put16(bda + PC__BDA_EBDA, 0x9fc0);
    vmm_put16(bda + PC__BDA_EQUIPMENT,
              (uint16_t)(0x0222u | (floppies ? 1 | (floppies - 1) << 6 : 0)));
    vmm_put16(bda + PC__BDA_KIB, 639);
    vmm_put16(bda + PC__BDA_HEAD, PC__BDA_RING);
    vmm_put16(bda + PC__BDA_TAIL, PC__BDA_RING);
    vmm_put16(bda + PC__BDA_RING_START, PC__BDA_RING);
    vmm_put16(bda + PC__BDA_RING_STOP, PC__BDA_RING_END);
    bda[PC__BDA_MODE] = 3;
    vmm_put16(bda + PC__BDA_COLS, PC__COLS);
    vmm_put16(bda + PC__BDA_COLS + 2, 0x1000); /* bytes of a page */
    vmm_put16(bda + PC__BDA_SHAPE, 0x0607);
    vmm_put16(bda + PC__BDA_SHAPE + 3, 0x3d4);
    vmm_put32(bda + PC__BDA_TICKS, pc__clock_ticks(b));
    bda[PC__BDA_DISKS] = (uint8_t)pc__disk_count(b, false);
    bda[PC__BDA_ROWS] = PC__ROWS - 1;
    bda[PC__BDA_KBD] = 0x10;
    ebda[0] = 1; /* KiB */
    for (unsigned i = 0; i < PC__CELLS; i++) {
        vmm_put16(screen + 2 * i, PC__BLANK);
        b->shown[i] = PC__BLANK;
    }
    b->attr = 7;
    b->cursor = 0;
    b->hidden = b->told = false;
    b->on = true;
    b->string_at = 0;
    b->until = 0;
}

/* INT 19h: the register that tells the rest of the ROM is carry, which is free then. */
static bool pc__boot(struct pc__bios_call *c)
{
    const struct pc_bios_disk *d = c->b->disk;
    const uint8_t *sector = pc__bios_at(c, 0x7c00, 512);

    if (!c->b->desc.ndisks || pc__disk_move(c, d, false, 0x7c00, 0, 1) ||
        vmm_get16(sector + 510) != 0xaa55)
        return false;
    pc__set16(c->r, VMM_RDX, d->drive);
    return true;
}

/* INT 18h */
static enum pc__bios_todo pc__no_boot(struct pc__bios_call *c)
{
    if (c->b->desc.failed)
        c->b->desc.failed(c->b->desc.ctx);
    return PC__BIOS_HALT;
}

/* What does not fit now comes with the next call. */
VMM_DEF void pc_bios_redraw(struct pc_bios *b)
{
    if (!b->on || !pc__term_room(b))
        return;
    pc__term_text(b, "\33[0m\33[2J\33[H");
    for (unsigned i = 0; i < PC__CELLS; i++)
        b->shown[i] = PC__BLANK;
    b->attr = 7;
    b->cursor = 0;
    b->hidden = false;
    if (pc__screen_show(b))
        pc__term_flush(b);
}

static enum pc__bios_todo pc__bios_serve(struct pc__bios_call *c, unsigned port)
{
    switch (port) {
    case 0x10:
        return pc__int10(c);
    case 0x11:
        pc__set16(c->r, VMM_RAX, vmm_get16(pc__bda(c->b) + PC__BDA_EQUIPMENT));
        break;
    case 0x12:
        pc__set16(c->r, VMM_RAX, vmm_get16(pc__bda(c->b) + PC__BDA_KIB));
        break;
    case 0x13:
        pc__int13(c);
        break;
    case 0x14:
        return pc__int14(c);
    case 0x15:
        return pc__int15(c);
    case 0x16:
        return pc__int16(c);
    case 0x17: /* no printer: it times out */
        pc__set_hi(c->r, VMM_RAX, 1);
        break;
    case 0x18:
        return pc__no_boot(c);
    case 0x1a:
        pc__int1a(c);
        break;
    case 0x1e:
        pc__int9(c);
        break;
    case 0x1f:
        pc__power_on(c->b);
        break;
    default:
        break;
    }
    return PC__BIOS_DONE;
}

/* The flags that IRET will bring back. */
static void pc__bios_flags(struct pc__bios_call *c)
{
    uint16_t sp = (uint16_t)(c->r->gpr[VMM_RSP] + 4);
    uint8_t *flags = pc__bios_at(c, c->r->ss.base + sp, 2);

    if (flags)
        vmm_put16(flags, (uint16_t)((vmm_get16(flags) & ~c->clear) | c->set));
}

VMM_DEF void pc_bios_call(struct pc_bios *b, unsigned port, struct vmm_x86_regs *regs)
{
    struct pc__bios_call c = {b, regs, 0, 0};
    enum pc__bios_todo todo = PC__BIOS_DONE;

    if (regs->cr0 & 1 || regs->cs.base != 0xf0000 || (uint16_t)regs->rip < (PC_BIOS_GPA & 0xffff) ||
        !vmm_at(b->desc.mem, 0, PC_BIOS_GPA))
        return;
    if (port == 0x19)
        todo = pc__boot(&c) ? PC__BIOS_DONE : PC__BIOS_AGAIN;
    else
        todo = pc__bios_serve(&c, port);
    if (todo == PC__BIOS_DONE && (c.set | c.clear))
        pc__bios_flags(&c);
    regs->rflags &= ~(uint64_t)(PC__CF | PC__ZF);
    regs->rflags |= todo == PC__BIOS_DONE ? 0 : todo == PC__BIOS_AGAIN ? PC__CF : PC__CF | PC__ZF;
}

#endif /* DEV_BIOS_IMPLEMENTED */
#endif /* DEV_BIOS_IMPLEMENTATION */
