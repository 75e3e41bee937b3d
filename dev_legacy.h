/* dev_legacy.h - the small old devices of a PC, as pure state machines   MIT licence, see LICENSE

   WHAT IT IS      A PC's 16550A UART, i8042 keyboard controller with keyboard and mouse, CMOS
                   memory with its clock (MC146818), debug-exit port, debug console port, panic
                   notifier, ACPI's registers (PM1 events and control, timer), and the two that end a
                   machine without them: sleep control and reset control. For a PC's firmware: QEMU's
                   fw_cfg, the ports that its debug text goes to, and an ATA disk. For hypervisors
                   without them:
                   8259A pair with ELCR, 8254 PIT, IOAPIC, and LAPICs in xAPIC and x2APIC mode;
                   pc_irqchip wires them together. For arm64 machines: PL011 UART, PL031 clock,
                   PL061 GPIO, GICv2. Bytes in, bytes out: no clock, thread or descriptor of its own.
                   Interrupts, output streams, time and wake-ups are values that the caller hands in.
                   Follows the data sheets of NS16550A, Intel 8042 (PS/2 keyboard controller),
                   MC146818A, 8259A, 8254 and 82093AA, ARM's DDI0183, DDI0224, DDI0190 (PL011,
                   PL031, PL061) and IHI0048B (GICv2), Intel's SDM volume 3 (the APIC), ACPI 6.4
                   section 4.8.3 (PM1 and timer, sleep control and status), and ATA-6.

   QUICK START     static size_t put(void *ctx, const void *buf, size_t len)
                   {
                       return fwrite(buf, 1, len, (FILE *)ctx);
                   }
                   static int com1_says_a(FILE *f)
                   {
                       struct pc_uart com1;
                       struct pc_uart_desc desc = {.out = {.write = put, .ctx = f}};
                       struct vmm_io io = {0x3f8, 8, pc_uart_read, pc_uart_write, &com1, {0}};
                       struct vmm_bus ports = {0};
                       uint64_t val = 'A';

                       pc_uart_init(&com1, &desc);
                       vmm_bus_add(&ports, &io);
                       return vmm_bus_access(&ports, 0x3f8, 1, true, &val) ? 0 : 1;
                   }

   CONFIGURATION   VMM_DEF (see vmm.h), set everywhere; DEV_LEGACY_IMPLEMENTATION or
                   VMM_IMPLEMENTATION, set in one file before the include, adds the function bodies.

   DEPENDS ON      vmm.h and <string.h>.

   THREADS         A device belongs to one thread at a time: bring a lock (vmm_io.lock) and hold it
                   in every call. The callbacks of a desc run with that lock held; they must not
                   call back into the device, but rx_room may call pc_uart_rx or pc_pl011_rx.
                   pc_irqchip has one lock for all that belongs to it; pc_irqchip_set and
                   pc_irqchip_msi take it, and may be called with a device's lock held.
   MEMORY          The caller owns every struct; nothing is allocated. The fields of devices are
                   private.
   ERRORS          None: nothing here can fail.
   GUEST TRUST     Every offset, width and value is answered. Accesses wider than a byte are carried
                   out as the ISA bus does: byte by byte, lowest address first, where the device has
                   several registers (UART, CMOS, ACPI); else the lowest byte counts, and a
                   read has ones above it. The PrimeCells' registers are words. A guest that ignores
                   flow control harms only itself. */
#ifndef DEV_LEGACY_H
#define DEV_LEGACY_H

#include "vmm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* >>uart: a 16550A with a connected line (CTS, DSR and DCD are on). Register it on 8 ports.
   Every byte written is offered to out.write at once; what that refuses stays in the 16-byte
   transmit FIFO, where the guest sees it (THRE = 0), until pc_uart_tx_ready. */
struct pc_uart_desc {
    struct vmm_irq irq;        /* none: for guests that poll */
    struct vmm_stream out;     /* write NULL: output is swallowed */
    const struct vmm_log *log; /* NULL: silent */
};

struct pc_uart {
    struct vmm_irq irq;
    struct vmm_stream out;
    const struct vmm_log *log;
    struct vmm_budget lost;     /* log lines about a guest that writes into a full FIFO */
    uint8_t ier, fcr, lcr, mcr; /* as written, without the bits that do not exist */
    uint8_t scr, dll, dlm;      /* scratch; divisor latch */
    uint8_t msr_delta;          /* low four bits of MSR */
    uint8_t rx[16], rx_head, nrx;
    uint8_t tx[16], ntx;
    bool overrun;    /* LSR bit 1 */
    bool thre_event; /* a THRE interrupt is due, enabled or not */
    bool irq_level;  /* what the line was last told */
    bool modem;      /* the guest has raised DTR or RTS once: RTS low means "do not send" */
    bool listens;    /* the guest has looked for input ... */
    bool heard;      /* ... and has taken some */
    bool rx_refused; /* pc_uart_rx could not take all: rx_room is owed */
};

/* The line must be low; it is not touched before the guest asks for interrupts. */
VMM_DEF void pc_uart_init(struct pc_uart *u, const struct pc_uart_desc *desc);
VMM_DEF uint64_t pc_uart_read(void *uart, uint64_t off, unsigned len);
VMM_DEF void pc_uart_write(void *uart, uint64_t off, unsigned len, uint64_t val);
/* Offers input; returns how many bytes were taken. The rest is the caller's to offer again after
   out.rx_room, which comes once the guest has emptied the FIFO. Nothing is taken before the guest
   looks for input (reads LSR or enables the interrupt), in loopback, and, once it has used DTR or
   RTS, while RTS is down: input that arrives before the guest's driver is not lost in its FIFO
   resets, and a guest that asks for a pause gets one. */
VMM_DEF size_t pc_uart_rx(struct pc_uart *u, const void *buf, size_t len);
/* The stream has room again: offers it the bytes that it refused. */
VMM_DEF void pc_uart_tx_ready(struct pc_uart *u);

/* >>kbc: i8042 as firmware leaves it: tested, keyboard enabled, translation on, A20 open. Register
   data on port 0x60 and cmd on port 0x64. A keyboard (US, scan code sets 1 and 2) is behind it and,
   if its line is given, a mouse with a wheel. */
struct pc_kbc_desc {
    struct vmm_irq kbd;       /* line 1; none: for guests that poll */
    struct vmm_irq aux;       /* line 12; none: a controller without an auxiliary port */
    void (*reset)(void *ctx); /* the guest resets the machine; NULL: it cannot */
    void *ctx;
    void (*room)(void *ctx); /* keys that were refused would be taken now; NULL: nobody waits */
};

struct pc_kbc {
    struct pc_kbc_desc desc;
    struct pc_kbc_byte {
        uint8_t val;
        uint8_t status; /* bits of the status register that come with it: AUX, TIMEOUT */
    } out[16];          /* out[out_head] is in the output buffer, the others wait for their turn */
    uint8_t out_head, nout;
    struct pc_kbc_fifo {
        uint8_t byte[16], head, n;
    } keys, moves;         /* what happened at the devices and waits for all answers */
    uint8_t ram[32];       /* ram[0] is the command byte */
    uint8_t outport;       /* bit 1: A20 */
    uint8_t command;       /* the controller command that waits for its data byte; 0: none */
    uint8_t kbd_command;   /* likewise of the keyboard */
    uint8_t scancode_set;  /* 1 or 2 */
    uint8_t kbd_last;      /* for the command RESEND */
    bool kbd_off;          /* no keys, until it is enabled */
    bool key_refused;      /* room is owed */
    bool released;         /* translation saw the prefix of a key that is let go */
    bool last_was_command; /* status bit 3 */
    bool kbd_level, aux_level;
    struct pc_mouse {
        uint8_t command, last;
        uint8_t id; /* 0; 3 once the guest has knocked for the wheel */
        uint8_t rate, resolution, knock[2];
        bool on, remote, wrap, twice; /* data reporting; modes; scaling 2:1 */
        uint8_t buttons, told;        /* as they are, as last reported */
        int dx, dy, dz;               /* not yet reported */
    } mouse;
};

/* A key is pressed or let go; its code is that of set 1, with 0xe000 for the prefix. false: the
   keyboard cannot take it now, room will be called. */
VMM_DEF bool pc_kbc_key(struct pc_kbc *k, uint16_t key, bool down);
/* Types a character of ASCII: presses and lets go what it takes for it. false: as pc_kbc_key, and
   nothing was pressed. Characters that no key has are dropped. */
VMM_DEF bool pc_kbc_type(struct pc_kbc *k, char c);
/* The mouse is moved, right, up and away from the user; buttons: 1 left, 2 right, 4 middle. */
VMM_DEF void pc_kbc_move(struct pc_kbc *k, int dx, int dy, int dz, unsigned buttons);
VMM_DEF void pc_kbc_init(struct pc_kbc *k, const struct pc_kbc_desc *desc);
VMM_DEF uint64_t pc_kbc_data_read(void *kbc, uint64_t off, unsigned len);
VMM_DEF void pc_kbc_data_write(void *kbc, uint64_t off, unsigned len, uint64_t val);
VMM_DEF uint64_t pc_kbc_cmd_read(void *kbc, uint64_t off, unsigned len);
VMM_DEF void pc_kbc_cmd_write(void *kbc, uint64_t off, unsigned len, uint64_t val);

/* >>rtc: CMOS memory with the clock. Register it on the two ports 0x70 and 0x71. A guest that sets
   the clock shifts its own view of now() and nothing else. Periodic interrupts go by the timer,
   all of them: one that comes late is followed by those that it delayed. */
struct pc_rtc_desc {
    int64_t (*now)(void *ctx); /* ns since 1970-01-01 UTC; NULL: it is always 1970 */
    void *ctx;
    uint64_t ram_low, ram_high; /* bytes of RAM below and above 4 GiB */
    struct vmm_irq irq;         /* line 8; none: for guests that poll */
    struct vmm_timer timer;     /* calls pc_rtc_tick */
    unsigned ncpus;             /* that firmware is told of; 0: 1 */
};

struct pc_rtc {
    struct pc_rtc_desc desc;
    int64_t shift;  /* seconds that the guest's clock is ahead of now() ... */
    uint32_t phase; /* ... and nanoseconds, less than a second */
    int64_t seen;   /* the guest's second up to which updates and alarms are in register C */
    uint64_t ticks; /* the 32768 Hz clock up to which periods are */
    uint32_t owed;  /* periodic interrupts that the guest has not seen yet */
    bool level, armed;
    uint8_t index; /* the register that port 0x71 means; bit 7, the NMI mask, is dropped */
    uint8_t ram[128];
};

VMM_DEF void pc_rtc_init(struct pc_rtc *r, const struct pc_rtc_desc *desc);
VMM_DEF void pc_rtc_tick(struct pc_rtc *r);
VMM_DEF uint64_t pc_rtc_read(void *rtc, uint64_t off, unsigned len);
VMM_DEF void pc_rtc_write(void *rtc, uint64_t off, unsigned len, uint64_t val);

/* >>debug: a port (0xf4) where the guest's byte v ends the VM with status v, and a port (0xe9) that
   prints bytes and reads as 0xe9, by which guests know it. Only offset 0 does anything; registered
   on more bytes, they accept wide accesses too, and count the lowest byte. */
struct pc_debugexit {
    void (*exit)(void *ctx, uint8_t status);
    void *ctx;
};

VMM_DEF uint64_t pc_debugexit_read(void *debugexit, uint64_t off, unsigned len);
VMM_DEF void pc_debugexit_write(void *debugexit, uint64_t off, unsigned len, uint64_t val);

struct pc_debugcon {
    struct vmm_stream out; /* a byte that it refuses is lost: the port has no status to wait for */
};

VMM_DEF uint64_t pc_debugcon_read(void *debugcon, uint64_t off, unsigned len);
VMM_DEF void pc_debugcon_write(void *debugcon, uint64_t off, unsigned len, uint64_t val);

/* >>fwlog: where the firmware of a PC tells what it does, by custom. Register it on the four ports
   0x400 (what it says when it gives up), 0x401, 0x402 (text) and 0x403 (details). Whole lines go to
   the log, as warnings within a budget, information and details; the ports read as 0xe9, by which
   firmware knows them, where the log wants that. */
struct pc_fwlog {
    const struct vmm_log *log; /* the caller's; all else zero */
    struct vmm_budget panics;
    struct pc_fwlog_line {
        char text[100];
        uint8_t len;
    } line[4];
};

VMM_DEF uint64_t pc_fwlog_read(void *fwlog, uint64_t off, unsigned len);
VMM_DEF void pc_fwlog_write(void *fwlog, uint64_t off, unsigned len, uint64_t val);

/* >>fwcfg: items of bytes that firmware asks for by number or by name, as QEMU has it (its
   specification is docs/specs/fw_cfg): the signature, the features and the directory of names are
   made here. Register it on PC_FWCFG_PORTS ports from 0x510. Nothing can be written. */
#define PC_FWCFG_PORTS   12
#define PC_FWCFG_DMA_MAX (16u << 20) /* bytes of one transfer */
struct pc_fwcfg_item {
    const char *name; /* at most 55 bytes; NULL: goes by its key alone */
    uint16_t key;     /* without a name, and none of the three above (0, 1, 0x19) */
    uint32_t len;
    const void *data; /* the caller's, as long as the machine runs */
};

struct pc_fwcfg {
    const struct pc_fwcfg_item *item;
    unsigned nitems;           /* at most 64; the n-th has the key 0x20 + n if it has a name */
    const struct vmm_mem *mem; /* for transfers; NULL: none, byte by byte only */
    uint16_t key;
    uint32_t off; /* of the next byte in the item of this key */
    uint32_t dma_high;
};

VMM_DEF uint64_t pc_fwcfg_read(void *fwcfg, uint64_t off, unsigned len);
VMM_DEF void pc_fwcfg_write(void *fwcfg, uint64_t off, unsigned len, uint64_t val);

/* >>ata: one disk as device 0 of an IDE channel, for guests that know nothing newer: programmed
   input and output alone, in CHS, 28 and 48 bits of address (ATA/ATAPI-6). Register command on 8
   ports from 0x1f0 and control on port 0x3f6; its line is 14. */
#define PC_ATA_BLOCK 16 /* sectors at most for one interrupt: SET MULTIPLE MODE */
struct pc_ata_desc {
    struct vmm_irq irq;
    uint64_t nsectors;  /* of 512 bytes, at most 2^48 */
    const char *serial; /* at most 20 characters count; NULL: none */
    /* n sectors from `sector` on, within the disk, from or to buf; 0, or the guest gets an error. */
    int (*rw)(void *ctx, bool write, void *buf, uint64_t sector, unsigned n);
    int (*flush)(void *ctx); /* what was written is safe: 0, or an error; NULL: it always is */
    void *ctx;
};

struct pc_ata {
    struct pc_ata_desc desc;
    /* the last two values written: [0] is what registers show, [1] the upper half of 48 bits */
    uint8_t features[2], count[2], lba[3][2];
    uint8_t device, control, status, error, command;
    bool irq_level, line; /* line: what it was last told, which nIEN keeps low */
    unsigned heads, per_track; /* as the guest chose them for CHS */
    unsigned multiple;         /* sectors for one interrupt of the MULTIPLE commands; 0: off */
    uint64_t sector;           /* of the transfer: the next one */
    uint32_t left, block;      /* sectors that are still to come; at most so many at once */
    bool writing;
    uint32_t pos, len; /* bytes of buf that were moved, of those that are to be */
    uint8_t buf[PC_ATA_BLOCK * 512];
};

VMM_DEF void pc_ata_init(struct pc_ata *a, const struct pc_ata_desc *desc);
VMM_DEF uint64_t pc_ata_command_read(void *ata, uint64_t off, unsigned len);
VMM_DEF void pc_ata_command_write(void *ata, uint64_t off, unsigned len, uint64_t val);
VMM_DEF uint64_t pc_ata_control_read(void *ata, uint64_t off, unsigned len);
VMM_DEF void pc_ata_control_write(void *ata, uint64_t off, unsigned len, uint64_t val);

/* >>power: how a guest ends. Register sleep on two ports (ACPI sleep control and sleep status, for
   the FADT of a hardware-reduced machine; S5 is type 5) and reset on port 0xcf9. The callbacks
   should only note the wish: the vCPU that asked is still in the middle of its access. */
struct pc_power {
    void (*off)(void *ctx);
    void (*reset)(void *ctx);
    void *ctx;
    uint8_t reset_control; /* as last written; 0 at first */
};

VMM_DEF uint64_t pc_power_sleep_read(void *power, uint64_t off, unsigned len);
VMM_DEF void pc_power_sleep_write(void *power, uint64_t off, unsigned len, uint64_t val);
VMM_DEF uint64_t pc_power_reset_read(void *power, uint64_t off, unsigned len);
VMM_DEF void pc_power_reset_write(void *power, uint64_t off, unsigned len, uint64_t val);

/* >>pm: the registers of an ACPI machine that is not hardware-reduced: PM1 events, with a power
   button, PM1 control, and the timer of 32 bits. Register it on PC_PM_LEN ports; control is at +4,
   the timer at +8. There is no other mode than ACPI's: SCI_EN is set from the start. S5 is sleep
   type 0, as in Intel's PIIX4. */
#define PC_PM_LEN 12
#define PC_PM_HZ  3579545
struct pc_pm_desc {
    struct vmm_irq sci;     /* level-triggered, usually line 9 */
    struct vmm_timer timer; /* calls pc_pm_tick */
    void (*off)(void *ctx); /* the guest powers off; as those of pc_power */
    void *ctx;
};

struct pc_pm {
    struct pc_pm_desc desc;
    uint16_t status, enable, control;
    uint64_t seen; /* the clock up to which the timer's overflows are in status */
    bool sci_level;
};

VMM_DEF void pc_pm_init(struct pc_pm *p, const struct pc_pm_desc *desc);
VMM_DEF void pc_pm_tick(struct pc_pm *p);
/* The power button is pressed and let go. */
VMM_DEF void pc_pm_button(struct pc_pm *p);
VMM_DEF uint64_t pc_pm_read(void *pm, uint64_t off, unsigned len);
VMM_DEF void pc_pm_write(void *pm, uint64_t off, unsigned len, uint64_t val);

/* >>pvpanic: QEMU's port (usually 0x505) by which a guest's kernel tells that it has panicked, or
   has crashed and goes on in another that it kept for that. Register it on one port. */
enum pc_panic { PC_PANIC_DEAD = 1, PC_PANIC_CRASHED = 2 };
struct pc_pvpanic {
    void (*event)(void *ctx, enum pc_panic what);
    void *ctx;
};

VMM_DEF uint64_t pc_pvpanic_read(void *pvpanic, uint64_t off, unsigned len);
VMM_DEF void pc_pvpanic_write(void *pvpanic, uint64_t off, unsigned len, uint64_t val);

/* >>pic: the two 8259As of a PC. The slave's output is line 2 of the master. Register master on
   ports 0x20 and 0x21, slave on 0xa0 and 0xa1, elcr on 0x4d0 and 0x4d1. */
struct pc_pic {
    struct vmm_irq intr; /* the output: to the CPU, or LINT0 of its LAPIC */
    bool intr_level;
    struct pc_pic_chip {
        uint8_t in, elcr;      /* lines as they are; those that are level-triggered */
        uint8_t irr, isr, imr; /* requests, interrupts in service, masks */
        uint8_t base;          /* vector of line 0 */
        uint8_t lowest;        /* the line of lowest priority */
        uint8_t step;          /* which ICW comes next at the odd port; 0: OCW1 */
        uint8_t icw1, icw4;    /* as written */
        bool special_mask, rotate_aeoi;
        bool read_isr, poll; /* what the next read of the even port brings */
    } chip[2];               /* master, slave */
};

VMM_DEF void pc_pic_init(struct pc_pic *p, const struct vmm_irq *intr);
/* Lines 0 to 15, but not 2. A rising edge is remembered until it is acknowledged, even if the line
   falls before: what a pulse asks for is never a spurious interrupt. */
VMM_DEF void pc_pic_set(struct pc_pic *p, unsigned line, bool level);
/* The CPU acknowledges: the vector, a spurious one (line 7 of a chip) when nothing is requested. */
VMM_DEF uint8_t pc_pic_ack(struct pc_pic *p);
VMM_DEF uint64_t pc_pic_master_read(void *pic, uint64_t off, unsigned len);
VMM_DEF void pc_pic_master_write(void *pic, uint64_t off, unsigned len, uint64_t val);
VMM_DEF uint64_t pc_pic_slave_read(void *pic, uint64_t off, unsigned len);
VMM_DEF void pc_pic_slave_write(void *pic, uint64_t off, unsigned len, uint64_t val);
VMM_DEF uint64_t pc_pic_elcr_read(void *pic, uint64_t off, unsigned len);
VMM_DEF void pc_pic_elcr_write(void *pic, uint64_t off, unsigned len, uint64_t val);

/* >>pit: an 8254 at 1193182 Hz, and port 0x61 that opens the gate of channel 2. Register timer on
   ports 0x40 to 0x43 and gate on port 0x61. */
#define PC_PIT_HZ 1193182
struct pc_pit_desc {
    struct vmm_timer timer; /* calls pc_pit_tick */
    /* Output 0 rises: an interrupt. false: the last one is still not taken; this one is offered
       again at the next pc_pit_tick. NULL: nobody cares. */
    bool (*rise)(void *ctx);
    void *ctx;
};

struct pc_pit {
    struct pc_pit_desc desc;
    struct pc_pit_channel {
        uint64_t start;       /* the clock at which count was loaded */
        uint64_t switch_at;   /* when next is */
        uint64_t held;        /* clocks counted when the gate closed */
        uint32_t count, next; /* 1 to 65536; next 0: none */
        uint16_t latch;
        uint8_t nlatched; /* bytes of latch still to be read */
        uint8_t control;  /* as written, without the channel */
        uint8_t status, low;
        bool status_latched, write_high, read_high;
        bool counting, gate, paused;
    } channel[3];
    uint64_t seen;  /* the clock up to which rises of output 0 are told */
    uint64_t owed;  /* rises that were not taken yet */
    uint8_t port61; /* bits 0 and 1: gate 2, speaker */
};

VMM_DEF void pc_pit_init(struct pc_pit *p, const struct pc_pit_desc *desc);
/* Tells the rises until now. One that comes late tells all that it missed. */
VMM_DEF void pc_pit_tick(struct pc_pit *p);
VMM_DEF uint64_t pc_pit_read(void *pit, uint64_t off, unsigned len);
VMM_DEF void pc_pit_write(void *pit, uint64_t off, unsigned len, uint64_t val);
VMM_DEF uint64_t pc_pit_gate_read(void *pit, uint64_t off, unsigned len);
VMM_DEF void pc_pit_gate_write(void *pit, uint64_t off, unsigned len, uint64_t val);

/* >>apic: what IOAPICs, devices and LAPICs send each other. */
enum pc_apic_mode {
    PC_APIC_FIXED,
    PC_APIC_LOWEST,
    PC_APIC_SMI,
    PC_APIC_NMI = 4,
    PC_APIC_INIT,
    PC_APIC_STARTUP,
    PC_APIC_EXTINT
};
#define PC_APIC_ALL  0xffffffffu /* the destination that is everybody */
#define PC_MSI_LEVEL 0x8000u     /* of the data of a message: level-triggered */

struct pc_apic_msg {
    uint32_t dest;
    bool logical;      /* dest is a set of LAPICs, not an id */
    bool lowest;       /* one of them alone, the one that is least busy */
    bool level;        /* level-triggered: its EOI matters to the sender */
    bool deassert;     /* INIT level de-assert: nobody reacts to it any more */
    uint8_t mode;      /* enum pc_apic_mode */
    uint8_t vector;    /* start-up: the page to start at */
    uint8_t shorthand; /* 0: dest; 1: the sender; 2: everybody; 3: everybody else */
};

/* What becomes of one. */
enum pc_taken {
    PC_NOBODY, /* no LAPIC is there for it */
    PC_MERGED, /* it is pending there already, so that two became one */
    PC_TAKEN
};

/* A write of data to addr, as IOAPICs and devices do it; false: addr is no LAPIC's. */
VMM_DEF bool pc_apic_from_msi(struct pc_apic_msg *m, uint64_t addr, uint32_t data);

/* >>ioapic: 24 pins (82093AA, with the EOI register of version 0x20). Register it on a page, usually
   at 0xfec00000. Polarity is a fact about wires and is ignored: lines are high when asserted. */
#define PC_IOAPIC_PINS 24
struct pc_ioapic_desc {
    /* An interrupt, as the write that stands for it. */
    enum pc_taken (*send)(void *ctx, unsigned pin, uint64_t addr, uint32_t data);
    /* The guest changed what a pin sends. NULL: nobody cares. */
    void (*route)(void *ctx, unsigned pin, uint64_t addr, uint32_t data);
    void *ctx;
};

struct pc_ioapic {
    struct pc_ioapic_desc desc;
    uint64_t pin[PC_IOAPIC_PINS]; /* redirection entries */
    uint32_t in;                  /* lines as they are */
    uint32_t unheard;             /* pins whose level nobody has taken: see pc_ioapic_retry */
    uint8_t id, index;
};

VMM_DEF void pc_ioapic_init(struct pc_ioapic *a, const struct pc_ioapic_desc *desc);
/* false: it rose, but the same interrupt is still waiting at its LAPIC. */
VMM_DEF bool pc_ioapic_set(struct pc_ioapic *a, unsigned pin, bool level);
/* LAPICs have changed: levels that nobody has taken, and that are still there, are sent again. */
VMM_DEF void pc_ioapic_retry(struct pc_ioapic *a);
/* Some LAPIC finished a level-triggered interrupt of this vector. */
VMM_DEF void pc_ioapic_eoi(struct pc_ioapic *a, uint8_t vector);
VMM_DEF uint64_t pc_ioapic_read(void *ioapic, uint64_t off, unsigned len);
VMM_DEF void pc_ioapic_write(void *ioapic, uint64_t off, unsigned len, uint64_t val);

/* >>lapic: the interrupt controller of one CPU, in xAPIC (memory) or x2APIC (MSR) mode. Its timer
   counts at 1 GHz before the divider. CPU 0 finds it as firmware leaves it, LINT0 passing the
   interrupts of the 8259s on ("virtual wire"); the others wait for a start-up interrupt. */
#define PC_LAPIC_HZ  1000000000
#define PC_LAPIC_LEN 4096
struct pc_lapic;
struct pc_lapic_desc {
    uint32_t id;
    struct vmm_timer timer;     /* calls pc_lapic_tick */
    /* The TSC of this CPU, and how fast it is; hz 0: unknown. NULL: no TSC-deadline mode. */
    uint64_t (*tsc)(void *ctx, uint32_t id, uint64_t *hz);
    void (*ipi)(void *ctx, const struct pc_lapic *from, const struct pc_apic_msg *m);
    void (*eoi)(void *ctx, uint8_t vector); /* of a level-triggered interrupt */
    void *ctx;
};

struct pc_lapic {
    struct pc_lapic_desc desc;
    uint64_t base; /* the MSR: address, 0x800 enabled, 0x400 x2APIC, 0x100 bootstrap CPU */
    uint32_t irr[8], isr[8], tmr[8];
    uint32_t ldr, dfr, svr, icr, icr_dest, lvt[6], initial;
    uint8_t tpr, divide;
    uint8_t esr, errors;     /* what ESR shows; what was found since it was last written */
    uint64_t fire_at;        /* of the timer, in ns; UINT64_MAX: it does not run */
    uint64_t deadline;       /* of the timer, by the guest's TSC */
    uint64_t owed;           /* timer interrupts that could not be told apart from one before */
    bool lint[2];            /* levels */
    bool nmi, init, startup; /* what came in and waits for the CPU */
    bool waits;              /* the CPU does, for a start-up interrupt */
    bool told;               /* pc_irqchip has kicked it since it last asked */
    uint8_t page;            /* to start up at */
};

VMM_DEF void pc_lapic_init(struct pc_lapic *l, const struct pc_lapic_desc *desc);
VMM_DEF void pc_lapic_tick(struct pc_lapic *l);
/* Is the message for this LAPIC (whatever its shorthand says)? */
VMM_DEF bool pc_lapic_matches(const struct pc_lapic *l, const struct pc_apic_msg *m);
VMM_DEF enum pc_taken pc_lapic_accept(struct pc_lapic *l, const struct pc_apic_msg *m);
VMM_DEF void pc_lapic_lint(struct pc_lapic *l, unsigned pin, bool level);
/* The vector that waits and has the priority to come in now; -1: none. */
VMM_DEF int pc_lapic_pending(const struct pc_lapic *l);
/* The 8259s' interrupt comes in here, and is asserted. */
VMM_DEF bool pc_lapic_extint(const struct pc_lapic *l);
/* The CPU takes pc_lapic_pending, or the spurious vector when there is none. */
VMM_DEF uint8_t pc_lapic_ack(struct pc_lapic *l);
/* Is this guest-physical address one of its registers (in xAPIC mode)? */
VMM_DEF bool pc_lapic_claims(const struct pc_lapic *l, uint64_t addr);
VMM_DEF uint64_t pc_lapic_read(void *lapic, uint64_t off, unsigned len);
VMM_DEF void pc_lapic_write(void *lapic, uint64_t off, unsigned len, uint64_t val);
/* MSRs 0x1b, 0x6e0 and 0x800 to 0x83f. false: none, or not so: the guest gets a #GP. */
VMM_DEF bool pc_lapic_msr(struct pc_lapic *l, uint32_t msr, bool write, uint64_t *val);

/* >>irqchip: 8259s, IOAPIC, PIT and the LAPIC of every CPU, wired as in a PC: line N is pin N of the
   IOAPIC and, below 16, line N of the 8259s; the 8259s' output is LINT0 of every LAPIC. Register the
   chips on buses with desc.lock. */
enum pc_todo { /* what a CPU has to do before it enters the guest */
               PC_TODO_NOTHING,
               PC_TODO_WINDOW,    /* an interrupt waits until the guest can take it */
               PC_TODO_INTERRUPT, /* inject the vector */
               PC_TODO_NMI,       /* inject one */
               PC_TODO_INIT,      /* forget what was injected and take the registers of a CPU after
                                     INIT; the one whose LAPIC does not wait goes on */
               PC_TODO_STARTUP,   /* start in real mode at page `vector` */
               PC_TODO_WAIT       /* do not run: no start-up interrupt has come yet */
};

#define PC_LAPICS_MAX 254 /* as far as 8 bits of destination reach, but for the one of everybody */

struct pc_irqchip_desc {
    struct pc_lapic *lapic; /* ncpus of them, the caller's; NULL: the hypervisor has LAPICs */
    unsigned ncpus;         /* at most PC_LAPICS_MAX */
    struct vmm_timer timer; /* calls pc_irqchip_tick */
    uint64_t (*tsc)(void *ctx, unsigned cpu, uint64_t *hz); /* as a LAPIC's */
    /* CPU `cpu` has to call pc_irqchip_next again: ends its run or its sleep. */
    void (*kick)(void *ctx, unsigned cpu);
    struct vmm_msi msi; /* without LAPICs: where interrupts go; vector: the IOAPIC's pin */
    void (*route)(void *ctx, unsigned pin, uint64_t addr, uint32_t data); /* as the IOAPIC's */
    void *ctx;
    struct vmm_lock lock;
};

struct pc_irqchip {
    struct pc_irqchip_desc desc;
    struct pc_pic pic;
    struct pc_pit pit;
    struct pc_ioapic ioapic;
    uint64_t armed; /* what the timer was last told */
    unsigned turn;  /* where the search for the least busy LAPIC begins */
};

VMM_DEF void pc_irqchip_init(struct pc_irqchip *c, const struct pc_irqchip_desc *desc);
/* These two take the lock: they are what struct vmm_irq and struct vmm_msi want. */
VMM_DEF void pc_irqchip_set(void *irqchip, unsigned line, bool level);
VMM_DEF void pc_irqchip_msi(void *irqchip, unsigned vector, uint64_t addr, uint32_t data);
/* All others, and the registers, want it held. */
VMM_DEF void pc_irqchip_tick(struct pc_irqchip *c);
/* ready: the guest can take an interrupt at its next instruction. Whatever comes up after this
   call kicks the CPU. */
VMM_DEF enum pc_todo pc_irqchip_next(struct pc_irqchip *c, unsigned cpu, bool ready,
                                     uint8_t *vector);
/* What CPU `cpu` finds at its LAPIC's page or MSRs; false: nothing. */
VMM_DEF bool pc_irqchip_mmio(struct pc_irqchip *c, unsigned cpu, const struct vmm_exit *e);
VMM_DEF bool pc_irqchip_msr(struct pc_irqchip *c, unsigned cpu, const struct vmm_exit *e);

/* >>primecell: what an arm64 machine has for a PC's 16550A, CMOS clock and power button. Register
   each on 4 KiB of memory; their registers are words, of which narrower accesses see a part.

   >>pl011: a PL011 UART, revision r1p5, with FIFOs of 32 bytes, as firmware leaves it: enabled, with
   FIFOs and 8 bits. The line is connected (CTS, DSR and DCD are on); output works as pc_uart's. */
#define PC_PRIMECELL_LEN 4096
#define PC_PL011_FIFO    32

struct pc_pl011_desc {
    struct vmm_irq irq;        /* UARTINTR, level-triggered; none: for guests that poll */
    struct vmm_stream out;     /* write NULL: output is swallowed */
    const struct vmm_log *log; /* NULL: silent */
};

struct pc_pl011 {
    struct pc_pl011_desc desc;
    struct vmm_budget lost;                          /* as pc_uart's */
    uint32_t ibrd, fbrd, lcr, cr, ifls, ilpr, dmacr; /* as written */
    uint32_t ris, imsc;         /* interrupts as they are, and those that matter */
    uint16_t rx[PC_PL011_FIFO]; /* with the error bits of DR */
    uint8_t tx[PC_PL011_FIFO];
    uint8_t rx_head, nrx, ntx;
    uint8_t errors;  /* RSR */
    uint8_t looks;   /* how often in a row the flags were read, and nothing written */
    bool overrun;    /* for the next byte that comes in */
    bool irq_level;  /* what the line was last told */
    bool modem;      /* the guest has raised DTR or RTS once: RTS low means "do not send" */
    bool listens;    /* the guest has looked for input */
    bool rx_refused; /* pc_pl011_rx could not take all: rx_room is owed */
};

VMM_DEF void pc_pl011_init(struct pc_pl011 *u, const struct pc_pl011_desc *desc);
VMM_DEF uint64_t pc_pl011_read(void *pl011, uint64_t off, unsigned len);
VMM_DEF void pc_pl011_write(void *pl011, uint64_t off, unsigned len, uint64_t val);
/* As pc_uart_rx. The guest looks for input when it leaves the receive interrupts enabled, reads
   data, or reads the flags 64 times without sending anything: Linux does less of that before it
   opens the port, and a guest that polls for input does more in no time. */
VMM_DEF size_t pc_pl011_rx(struct pc_pl011 *u, const void *buf, size_t len);
VMM_DEF void pc_pl011_tx_ready(struct pc_pl011 *u);

/* >>pl031: a PL031 clock of seconds, with an alarm. A guest that sets it shifts its own view of
   now() and nothing else. */
struct pc_pl031_desc {
    struct vmm_irq irq;        /* RTCINTR, level-triggered; none: for guests that poll */
    int64_t (*now)(void *ctx); /* ns since 1970-01-01 UTC; NULL: it is always 1970 */
    void *ctx;
    struct vmm_timer timer; /* calls pc_pl031_tick */
};

struct pc_pl031 {
    struct pc_pl031_desc desc;
    uint32_t shift; /* seconds that the guest's clock is ahead of now() */
    uint32_t match, load;
    uint32_t seen; /* the second up to which matches are told */
    bool raised, enabled, irq_level, armed;
};

VMM_DEF void pc_pl031_init(struct pc_pl031 *r, const struct pc_pl031_desc *desc);
VMM_DEF void pc_pl031_tick(struct pc_pl031 *r);
VMM_DEF uint64_t pc_pl031_read(void *pl031, uint64_t off, unsigned len);
VMM_DEF void pc_pl031_write(void *pl031, uint64_t off, unsigned len, uint64_t val);

/* >>pl061: a PL061 with eight lines, which come in from outside (a power button); what the guest
   sends out by them goes nowhere. */
struct pc_pl061 {
    struct vmm_irq irq; /* GPIOINTR, level-triggered */
    uint8_t in;         /* the lines' levels outside */
    uint8_t data, dir;  /* what the guest sends, and by which lines */
    uint8_t is, ibe, iev, ie, afsel;
    uint8_t edges; /* seen, not yet cleared */
    bool irq_level;
};

VMM_DEF void pc_pl061_init(struct pc_pl061 *g, const struct vmm_irq *irq);
/* A level from outside. Linux looks at a button a while after its edge: hold it for 100 ms. */
VMM_DEF void pc_pl061_set(struct pc_pl061 *g, unsigned line, bool level);
VMM_DEF uint64_t pc_pl061_read(void *pl061, uint64_t off, unsigned len);
VMM_DEF void pc_pl061_write(void *pl061, uint64_t off, unsigned len, uint64_t val);

/* >>gic: a GICv2 for at most 8 CPUs, without the Security Extensions and with 5 bits of priority. What
   its registers hold depends on which CPU looks: ask pc_gic_mmio before the bus. A message is a pulse
   on the line that its frame (GICv2m) names; the frame is the caller's. */
#define PC_GIC_CPUS  8
#define PC_GIC_LINES 384 /* INTIDs: 16 SGIs, 16 PPIs, and SPIs from 32 on; a multiple of 32 */

enum pc_gic_output { PC_GIC_IRQ = 1, PC_GIC_FIQ = 2 }; /* bits: a CPU's inputs */

struct pc_gic_desc {
    unsigned ncpus;     /* at most PC_GIC_CPUS; 0: 1 */
    uint64_t dist, cpu; /* addresses of the distributor (4 KiB) and the CPU interface (8 KiB) */
    /* The inputs of a CPU are these now. Called when they change, with the lock held. */
    void (*output)(void *ctx, unsigned cpu, unsigned lines);
    void *ctx;
    struct vmm_lock lock; /* all functions but pc_gic_init take it */
};

struct pc_gic_word { /* 32 interrupts, a bit each */
    uint32_t group1, enabled, active, edge;
    uint32_t latched; /* an edge was seen, a sender waits, or the guest says so */
    uint32_t level;   /* of the lines */
};

struct pc_gic_cpu {
    struct pc_gic_word own; /* SGIs and PPIs */
    uint8_t priority[32];   /* theirs */
    uint8_t from[16];       /* who waits for which SGI to be taken: a bit for each CPU */
    uint32_t ctlr;
    uint8_t pmr, bpr, abpr;
    uint32_t running; /* group priorities of what was taken and not ended: bit n for 8 * n */
    unsigned lines;   /* what it was last told */
};

struct pc_gic {
    struct pc_gic_desc desc;
    uint32_t ctlr;
    struct pc_gic_word spi[PC_GIC_LINES / 32]; /* the first is not in use; nor the first 32 here: */
    uint8_t priority[PC_GIC_LINES], targets[PC_GIC_LINES];
    struct pc_gic_cpu cpu[PC_GIC_CPUS];
};

VMM_DEF void pc_gic_init(struct pc_gic *g, const struct pc_gic_desc *desc);
/* SPI `line`, which is INTID 32 + line: what struct vmm_irq wants. */
VMM_DEF void pc_gic_set(void *gic, unsigned line, bool level);
/* Those lines of a CPU's own that are in `which`, bits 16 to 31 by INTID. */
VMM_DEF void pc_gic_set_ppis(struct pc_gic *g, unsigned cpu, uint32_t which, uint32_t levels);
/* false: it is no access to the controller. */
VMM_DEF bool pc_gic_mmio(struct pc_gic *g, unsigned cpu, const struct vmm_exit *e);

#ifdef __cplusplus
}
#endif
#endif /* DEV_LEGACY_H */

#if defined(DEV_LEGACY_IMPLEMENTATION) || defined(VMM_IMPLEMENTATION)
#ifndef PC__IMPLEMENTED
#define PC__IMPLEMENTED

/* >>bytes: registers of a byte each, which a wide access reaches one after the other. */
static uint64_t pc__read_bytes(void *dev, uint64_t off, unsigned len, unsigned n,
                               uint8_t (*get)(void *dev, unsigned reg))
{
    uint64_t val = vmm_ones(len);

    for (unsigned i = 0; i < len && off + i < n; i++)
        val ^= (uint64_t)(0xff ^ get(dev, (unsigned)off + i)) << (8 * i);
    return val;
}

static void pc__write_bytes(void *dev, uint64_t off, unsigned len, unsigned n, uint64_t val,
                            void (*put)(void *dev, unsigned reg, uint8_t val))
{
    for (unsigned i = 0; i < len && off + i < n; i++)
        put(dev, (unsigned)off + i, (uint8_t)(val >> (8 * i)));
}

/* >>clocks: what a clock of so many Hz has counted since time zero. */
static uint64_t pc__clocks(uint64_t ns, uint64_t hz)
{
    return ns / 1000000000 * hz + ns % 1000000000 * hz / 1000000000;
}

/* The first nanosecond of a clock. */
static uint64_t pc__clocks_ns(uint64_t clock, uint64_t hz)
{
    return clock / hz * 1000000000 + (clock % hz * 1000000000 + hz - 1) / hz;
}

/* >>uart. Register and bit names are the data sheet's. */
enum {
    PC__IER_RX = 1,   /* ERBFI: received data, and the character time-out */
    PC__IER_THRE = 2, /* ETBEI: transmitter holding register empty */
    PC__IER_LINE = 4, /* ELSI: overrun */
    PC__IER_MODEM = 8 /* EDSSI: modem status changed */
};
enum {
    PC__IIR_MODEM = 0x0,
    PC__IIR_NONE = 0x1,
    PC__IIR_THRE = 0x2,
    PC__IIR_RX = 0x4,
    PC__IIR_LINE = 0x6,
    PC__IIR_TIMEOUT = 0xc,
    PC__IIR_FIFO = 0xc0 /* the two bits by which a 16550A is told from a 16450 and a 16550 */
};
enum { PC__FCR_ENABLE = 1, PC__FCR_RX_RESET = 2, PC__FCR_TX_RESET = 4, PC__FCR_TRIGGER = 0xc0 };
enum { PC__LCR_DLAB = 0x80 };
enum { PC__MCR_DTR = 1, PC__MCR_RTS = 2, PC__MCR_OUT1 = 4, PC__MCR_OUT2 = 8, PC__MCR_LOOP = 16 };
enum { PC__LSR_DR = 1, PC__LSR_OE = 2, PC__LSR_THRE = 0x20, PC__LSR_TEMT = 0x40 };
enum { PC__MSR_CTS = 0x10, PC__MSR_DSR = 0x20, PC__MSR_RI = 0x40, PC__MSR_DCD = 0x80 };

/* How many bytes either direction holds: without FIFOs there are only the holding registers. */
static unsigned pc__uart_depth(const struct pc_uart *u)
{
    return u->fcr & PC__FCR_ENABLE ? 16 : 1;
}

static unsigned pc__uart_trigger(const struct pc_uart *u)
{
    static const uint8_t level[] = {1, 4, 8, 14};

    return u->fcr & PC__FCR_ENABLE ? level[u->fcr >> 6] : 1;
}

/* What IIR says: the pending and enabled cause of highest priority (data sheet, table IV). The
   character time-out needs four silent character times on the wire; here bytes below the trigger
   level time out at once, because there is nothing more on its way. */
static uint8_t pc__uart_cause(const struct pc_uart *u)
{
    if ((u->ier & PC__IER_LINE) && u->overrun)
        return PC__IIR_LINE;
    if ((u->ier & PC__IER_RX) && u->nrx)
        return u->nrx >= pc__uart_trigger(u) ? PC__IIR_RX : PC__IIR_TIMEOUT;
    if ((u->ier & PC__IER_THRE) && u->thre_event)
        return PC__IIR_THRE;
    if ((u->ier & PC__IER_MODEM) && u->msr_delta)
        return PC__IIR_MODEM;
    return PC__IIR_NONE;
}

/* On a PC the interrupt pin passes a gate that OUT2 opens; loopback disconnects OUT2. */
static void pc__uart_update_irq(struct pc_uart *u)
{
    bool open = (u->mcr & (PC__MCR_OUT2 | PC__MCR_LOOP)) == PC__MCR_OUT2;
    bool level = open && pc__uart_cause(u) != PC__IIR_NONE;

    if (level == u->irq_level)
        return;
    u->irq_level = level;
    vmm_irq_set(&u->irq, level);
}

/* May the far end send? A guest that has ever used DTR or RTS is taken at its word; one that never
   did has a three-wire cable, and is heard from when it first looks for input. Linux raises DTR
   when it prints, but RTS only as the last step of opening the port for input, after it has thrown
   away, several times, whatever was in the FIFO. */
static bool pc__uart_hears(const struct pc_uart *u)
{
    if (u->mcr & PC__MCR_LOOP)
        return false;
    return u->modem ? (u->mcr & PC__MCR_RTS) != 0 : u->listens;
}

/* The end of every guest access. rx_room comes last: it may call pc_uart_rx. Waiting for an empty
   FIFO rather than for room for one byte makes it 1 call for 16 bytes. */
static void pc__uart_settle(struct pc_uart *u)
{
    pc__uart_update_irq(u);
    if (!u->rx_refused || u->nrx || !pc__uart_hears(u))
        return;
    u->rx_refused = false;
    if (u->out.rx_room)
        u->out.rx_room(u->out.ctx);
}

static void pc__uart_drain(struct pc_uart *u)
{
    size_t taken = u->ntx;

    if (!u->ntx)
        return;
    if (u->out.write)
        taken = u->out.write(u->out.ctx, u->tx, u->ntx);
    if (taken > u->ntx)
        taken = u->ntx;
    u->ntx = (uint8_t)(u->ntx - taken);
    memmove(u->tx, u->tx + taken, u->ntx);
    u->thre_event = u->ntx == 0;
}

static void pc__uart_rx_put(struct pc_uart *u, uint8_t byte)
{
    u->rx[(u->rx_head + u->nrx++) % sizeof u->rx] = byte;
}

/* Writing THR. In loopback the byte comes straight back; there a full FIFO is an overrun. */
static void pc__uart_transmit(struct pc_uart *u, uint8_t byte)
{
    if (u->mcr & PC__MCR_LOOP) {
        if (u->nrx < pc__uart_depth(u))
            pc__uart_rx_put(u, byte);
        else
            u->overrun = true;
        u->thre_event = u->ntx == 0;
        return;
    }
    if (u->ntx < pc__uart_depth(u))
        u->tx[u->ntx++] = byte;
    else if (vmm_spend(&u->lost))
        vmm_say(
            u->log, VMM_LOG_WARN,
            "UART: a byte is lost, the guest wrote it into a full transmitter (LSR has THRE = 0)");
    pc__uart_drain(u);
}

static uint8_t pc__uart_receive(struct pc_uart *u)
{
    uint8_t byte = u->rx[u->rx_head];

    if (!u->nrx)
        return 0;
    u->rx_head = (u->rx_head + 1) % sizeof u->rx;
    u->nrx--;
    u->heard = true;
    return byte;
}

/* The upper half of MSR: the far end's lines, or in loopback our own four outputs. */
static uint8_t pc__uart_lines(const struct pc_uart *u)
{
    if (!(u->mcr & PC__MCR_LOOP))
        return PC__MSR_CTS | PC__MSR_DSR | PC__MSR_DCD;
    return (uint8_t)((u->mcr & PC__MCR_RTS ? PC__MSR_CTS : 0) |
                     (u->mcr & PC__MCR_DTR ? PC__MSR_DSR : 0) |
                     (u->mcr & PC__MCR_OUT1 ? PC__MSR_RI : 0) |
                     (u->mcr & PC__MCR_OUT2 ? PC__MSR_DCD : 0));
}

/* The delta bits lie four below their lines. The one of RI marks only its trailing edge. */
static void pc__uart_set_mcr(struct pc_uart *u, uint8_t val)
{
    uint8_t before = pc__uart_lines(u), after, changed;

    u->mcr = val & 0x1f;
    u->modem = u->modem || (val & (PC__MCR_DTR | PC__MCR_RTS));
    after = pc__uart_lines(u);
    changed = (before ^ after) & (uint8_t) ~(after & PC__MSR_RI);
    u->msr_delta |= changed >> 4;
}

/* Turning the FIFOs on or off clears both; while they stay off, no other bit counts. */
static void pc__uart_set_fcr(struct pc_uart *u, uint8_t val)
{
    bool toggled = (val ^ u->fcr) & PC__FCR_ENABLE;

    if (!(val & PC__FCR_ENABLE))
        val = 0;
    if (toggled || (val & PC__FCR_RX_RESET))
        u->nrx = 0;
    if ((toggled || (val & PC__FCR_TX_RESET)) && u->ntx) {
        u->ntx = 0;
        u->thre_event = true;
    }
    u->fcr = val & (PC__FCR_ENABLE | PC__FCR_TRIGGER);
}

/* Enabling the THRE interrupt while the transmitter is empty raises it at once, even if it has been
   acknowledged before; Linux tests for this and falls back to a timer without it. */
static void pc__uart_set_ier(struct pc_uart *u, uint8_t val)
{
    if ((val & ~u->ier & PC__IER_THRE) && !u->ntx)
        u->thre_event = true;
    u->ier = val & 0x0f;
    if (val & PC__IER_RX)
        u->listens = true;
}

/* Reading IIR acknowledges the THRE interrupt, but only when that is what it reports. */
static uint8_t pc__uart_get_iir(struct pc_uart *u)
{
    uint8_t cause = pc__uart_cause(u);

    if (cause == PC__IIR_THRE)
        u->thre_event = false;
    return u->fcr & PC__FCR_ENABLE ? cause | PC__IIR_FIFO : cause;
}

static uint8_t pc__uart_get_lsr(struct pc_uart *u)
{
    unsigned lsr = u->ntx ? 0 : PC__LSR_THRE | PC__LSR_TEMT;

    lsr |= u->nrx ? PC__LSR_DR : 0;
    lsr |= u->overrun ? PC__LSR_OE : 0;
    u->overrun = false;
    u->listens = true;
    return (uint8_t)lsr;
}

static uint8_t pc__uart_get_msr(struct pc_uart *u)
{
    uint8_t msr = pc__uart_lines(u) | u->msr_delta;

    u->msr_delta = 0;
    return msr;
}

static uint8_t pc__uart_get(struct pc_uart *u, uint64_t reg)
{
    bool dlab = u->lcr & PC__LCR_DLAB;

    switch (reg) {
    case 0:
        return dlab ? u->dll : pc__uart_receive(u);
    case 1:
        return dlab ? u->dlm : u->ier;
    case 2:
        return pc__uart_get_iir(u);
    case 3:
        return u->lcr;
    case 4:
        return u->mcr;
    case 5:
        return pc__uart_get_lsr(u);
    case 6:
        return pc__uart_get_msr(u);
    case 7:
        return u->scr;
    default:
        return 0xff;
    }
}

/* LSR and MSR are read-only: their writes are for factory tests. */
static void pc__uart_put(struct pc_uart *u, uint64_t reg, uint8_t val)
{
    bool dlab = u->lcr & PC__LCR_DLAB;

    switch (reg) {
    case 0:
        if (dlab)
            u->dll = val;
        else
            pc__uart_transmit(u, val);
        break;
    case 1:
        if (dlab)
            u->dlm = val;
        else
            pc__uart_set_ier(u, val);
        break;
    case 2:
        pc__uart_set_fcr(u, val);
        break;
    case 3:
        u->lcr = val;
        break;
    case 4:
        pc__uart_set_mcr(u, val);
        break;
    case 7:
        u->scr = val;
        break;
    default:
        break;
    }
}

/* The divisor starts at 1, 115200 baud: a guest that computes its speed from it divides by no 0. */
VMM_DEF void pc_uart_init(struct pc_uart *u, const struct pc_uart_desc *desc)
{
    memset(u, 0, sizeof *u);
    u->irq = desc->irq;
    u->out = desc->out;
    u->log = desc->log;
    u->dll = 1;
}

VMM_DEF uint64_t pc_uart_read(void *uart, uint64_t off, unsigned len)
{
    struct pc_uart *u = (struct pc_uart *)uart;
    uint64_t val = 0;

    for (unsigned i = 0; i < len; i++)
        val |= (uint64_t)pc__uart_get(u, off + i) << (8 * i);
    pc__uart_settle(u);
    return val;
}

VMM_DEF void pc_uart_write(void *uart, uint64_t off, unsigned len, uint64_t val)
{
    struct pc_uart *u = (struct pc_uart *)uart;

    for (unsigned i = 0; i < len; i++)
        pc__uart_put(u, off + i, (uint8_t)(val >> (8 * i)));
    pc__uart_settle(u);
}

VMM_DEF size_t pc_uart_rx(struct pc_uart *u, const void *buf, size_t len)
{
    const uint8_t *bytes = (const uint8_t *)buf;
    size_t n = 0;

    if (pc__uart_hears(u))
        for (; n < len && u->nrx < pc__uart_depth(u); n++)
            pc__uart_rx_put(u, bytes[n]);
    u->rx_refused = n < len;
    pc__uart_update_irq(u);
    return n;
}

VMM_DEF void pc_uart_tx_ready(struct pc_uart *u)
{
    pc__uart_drain(u);
    pc__uart_update_irq(u);
}

/* >>kbc. The controller (port 0x64, and what its commands make of port 0x60), the keyboard behind
   it (port 0x60 otherwise) and the mouse (port 0x60 after command 0xd4). All answer at once, through
   one queue; keys and moves come when it is empty. */
enum {
    PC__KBC_FULL = 0x01, /* status register; input is consumed at once, so bit 1 is never set */
    PC__KBC_SYSTEM = 0x04,
    PC__KBC_COMMAND = 0x08,
    PC__KBC_UNLOCKED = 0x10,
    PC__KBC_AUX = 0x20,
    PC__KBC_TIMEOUT = 0x40
};
enum { /* command byte; its bit 2 is the status register's */
       PC__KBC_KBD_IRQ = 0x01,
       PC__KBC_AUX_IRQ = 0x02,
       PC__KBC_KBD_OFF = 0x10,
       PC__KBC_AUX_OFF = 0x20,
       PC__KBC_TRANSLATE = 0x40
};
enum { PC__KBD_ACK = 0xfa, PC__KBD_RESEND = 0xfe };

static bool pc__kbc_has_aux(const struct pc_kbc *k)
{
    return k->desc.aux.set != NULL;
}

static void pc__kbc_lines(struct pc_kbc *k, bool kbd, bool aux)
{
    if (kbd != k->kbd_level)
        vmm_irq_set(&k->desc.kbd, kbd);
    if (aux != k->aux_level)
        vmm_irq_set(&k->desc.aux, aux);
    k->kbd_level = kbd;
    k->aux_level = aux;
}

static void pc__kbc_update_irq(struct pc_kbc *k)
{
    bool aux = k->nout && (k->out[k->out_head].status & PC__KBC_AUX);
    bool kbd = k->nout && !aux;

    pc__kbc_lines(k, kbd && (k->ram[0] & PC__KBC_KBD_IRQ), aux && (k->ram[0] & PC__KBC_AUX_IRQ));
}

/* Queues a byte for the guest. One that asks on and on without reading loses the newest answers. */
static void pc__kbc_answer(struct pc_kbc *k, uint8_t val, uint8_t status)
{
    enum { SIZE = sizeof k->out / sizeof k->out[0] };
    struct pc_kbc_byte *b = &k->out[(k->out_head + k->nout) % SIZE];

    if (k->nout == SIZE)
        return;
    b->val = val;
    b->status = status;
    k->nout++;
}

static void pc__kbc_reset_machine(struct pc_kbc *k)
{
    if (k->desc.reset)
        k->desc.reset(k->desc.ctx);
}

/* The controller's translation of set 2 to set 1. */
static const uint8_t pc__kbc_set1[128] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
};
enum { PC__KBD_F7 = 0x83, PC__KBD_SYSRQ = 0x84, PC__KBD_RELEASED = 0xf0 };

static uint8_t pc__kbc_translate(uint8_t val)
{
    if (val < 0x80)
        return pc__kbc_set1[val];
    return val == PC__KBD_F7 ? 0x41 : val == PC__KBD_SYSRQ ? 0x54 : val;
}

/* A byte from the keyboard, which the controller may translate; the prefix of a key that is let go
   becomes bit 7 of its code. */
static void pc__kbc_from_kbd(struct pc_kbc *k, uint8_t val)
{
    if (k->ram[0] & PC__KBC_TRANSLATE) {
        uint8_t up = k->released ? 0x80 : 0;
        k->released = val == PC__KBD_RELEASED;
        if (k->released)
            return;
        val = pc__kbc_translate(val) | up;
    }
    pc__kbc_answer(k, val, 0);
}

/* An answer of the keyboard's. */
static void pc__kbd_say(struct pc_kbc *k, uint8_t val)
{
    k->kbd_last = val;
    pc__kbc_from_kbd(k, val);
}

/* The byte that follows a keyboard command: LEDs, typematic rate or scan code set (0 asks). */
static void pc__kbd_parameter(struct pc_kbc *k, uint8_t command, uint8_t val)
{
    if (command == 0xf0 && val > 2) {
        pc__kbd_say(k, PC__KBD_RESEND);
        return;
    }
    pc__kbd_say(k, PC__KBD_ACK);
    if (command == 0xf0 && val == 0)
        pc__kbd_say(k, k->scancode_set);
    else if (command == 0xf0)
        k->scancode_set = val;
}

static void pc__kbd_defaults(struct pc_kbc *k, bool off)
{
    k->scancode_set = 2;
    k->keys.n = 0;
    k->kbd_off = off;
}

static void pc__kbd_command(struct pc_kbc *k, uint8_t val)
{
    switch (val) {
    case 0xed: /* set LEDs */
    case 0xf0: /* set or ask for the scan code set */
    case 0xf3: /* set typematic rate */
        k->kbd_command = val;
        pc__kbd_say(k, PC__KBD_ACK);
        break;
    case 0xee: /* echo */
        pc__kbd_say(k, 0xee);
        break;
    case 0xf2: /* identify: a keyboard with 101 keys or more */
        pc__kbd_say(k, PC__KBD_ACK);
        pc__kbd_say(k, 0xab);
        pc__kbd_say(k, 0x83);
        break;
    case 0xf4: /* enable */
        k->kbd_off = false;
        pc__kbd_say(k, PC__KBD_ACK);
        break;
    case 0xf5: /* disable, with defaults */
    case 0xf6: /* defaults */
        pc__kbd_defaults(k, val == 0xf5);
        pc__kbd_say(k, PC__KBD_ACK);
        break;
    case 0xfe: /* resend */
        pc__kbd_say(k, k->kbd_last);
        break;
    case 0xff: /* reset and self test */
        pc__kbd_defaults(k, false);
        pc__kbd_say(k, PC__KBD_ACK);
        pc__kbd_say(k, 0xaa);
        break;
    default: /* 0xf7-0xfd kinds of keys; the rest are no commands */
        pc__kbd_say(k, val >= 0xf7 ? PC__KBD_ACK : PC__KBD_RESEND);
        break;
    }
}

/* Every byte from 0xed up is a command, even where a parameter was expected. */
static void pc__kbd_write(struct pc_kbc *k, uint8_t val)
{
    uint8_t command = k->kbd_command;

    k->kbd_command = 0;
    if (command && val < 0xed)
        pc__kbd_parameter(k, command, val);
    else
        pc__kbd_command(k, val);
}

static void pc__fifo_put(struct pc_kbc_fifo *f, const uint8_t *bytes, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        f->byte[(f->head + f->n++) % sizeof f->byte] = bytes[i];
}

static uint8_t pc__fifo_take(struct pc_kbc_fifo *f)
{
    uint8_t val = f->byte[f->head];

    f->head = (f->head + 1) % sizeof f->byte;
    f->n--;
    return val;
}

/* Adds a key's code in the scan code set that the guest has chosen. */
static unsigned pc__kbd_encode(const struct pc_kbc *k, uint8_t *out, uint16_t key, bool down)
{
    uint8_t code = key & 0x7f, set2 = 1;
    unsigned n = 0;

    if (key >> 8)
        out[n++] = (uint8_t)(key >> 8);
    if (k->scancode_set == 1) {
        out[n++] = down ? code : code | 0x80;
        return n;
    }
    while (set2 < 0x80 && pc__kbc_set1[set2] != code)
        set2++;
    set2 = code == 0x41 ? PC__KBD_F7 : code == 0x54 ? PC__KBD_SYSRQ : set2;
    if (!down)
        out[n++] = PC__KBD_RELEASED;
    out[n++] = set2;
    return n;
}

/* What waits at the devices, one byte: when all answers are read, and unless the guest has stopped
   the device's clock. */
static void pc__kbc_feed(struct pc_kbc *k)
{
    while (!k->nout && k->keys.n && !(k->ram[0] & PC__KBC_KBD_OFF))
        pc__kbc_from_kbd(k, pc__fifo_take(&k->keys));
    if (!k->nout && k->moves.n && !(k->ram[0] & PC__KBC_AUX_OFF))
        pc__kbc_answer(k, pc__fifo_take(&k->moves), PC__KBC_AUX);
}

static bool pc__kbd_enqueue(struct pc_kbc *k, const uint8_t *bytes, unsigned n)
{
    k->key_refused = k->kbd_off || n > sizeof k->keys.byte - k->keys.n;
    if (k->key_refused)
        return false;
    pc__fifo_put(&k->keys, bytes, n);
    pc__kbc_feed(k);
    pc__kbc_update_irq(k);
    return true;
}

VMM_DEF bool pc_kbc_key(struct pc_kbc *k, uint16_t key, bool down)
{
    uint8_t bytes[3];

    return pc__kbd_enqueue(k, bytes, pc__kbd_encode(k, bytes, key, down));
}

/* The characters of the keys 0x01 to 0x39, alone and with shift. */
static const char pc__kbd_plain[] =
    "\x1b"
    "1234567890-=\b\tqwertyuiop[]\r\0asdfghjkl;'`\0\\zxcvbnm,./\0\0\0 ";
static const char pc__kbd_shift[] = "\0!@#$%^&*()_+\0\0QWERTYUIOP{}\0\0ASDFGHJKL:\"~\0|ZXCVBNM<>?";

/* The key of a character, 0: none. */
static uint8_t pc__kbd_key_of(const char *keys, size_t len, char c)
{
    const char *at = c ? (const char *)memchr(keys, c, len) : NULL;

    return at ? (uint8_t)(at - keys + 1) : 0;
}

VMM_DEF bool pc_kbc_type(struct pc_kbc *k, char c)
{
    enum { CONTROL = 0x1d, SHIFT = 0x2a };
    uint8_t bytes[6], key, with = 0;
    unsigned n = 0;

    c = c == '\n' ? '\r' : c == 0x7f ? '\b' : c;
    key = pc__kbd_key_of(pc__kbd_plain, sizeof pc__kbd_plain - 1, c);
    if (!key && (key = pc__kbd_key_of(pc__kbd_shift, sizeof pc__kbd_shift - 1, c)) != 0)
        with = SHIFT;
    if (!key && c > 0 && c < 0x20 &&
        (key = pc__kbd_key_of(pc__kbd_plain, sizeof pc__kbd_plain - 1, c | 0x60)) != 0)
        with = CONTROL;
    if (!key)
        return true;
    n += with ? pc__kbd_encode(k, bytes, with, true) : 0;
    n += pc__kbd_encode(k, bytes + n, key, true);
    n += pc__kbd_encode(k, bytes + n, key, false);
    n += with ? pc__kbd_encode(k, bytes + n, with, false) : 0;
    return pc__kbd_enqueue(k, bytes, n);
}

/* The mouse, as IBM's PS/2 manual and Microsoft's for the one with a wheel have it. */
static void pc__mouse_defaults(struct pc_mouse *m)
{
    uint8_t id = m->id, buttons = m->buttons;

    memset(m, 0, sizeof *m);
    m->id = id;
    m->buttons = m->told = buttons;
    m->rate = 100;
    m->resolution = 2;
}

static void pc__mouse_say(struct pc_kbc *k, uint8_t val)
{
    k->mouse.last = val;
    pc__kbc_answer(k, val, PC__KBC_AUX);
}

static int pc__mouse_clamp(int v, int max)
{
    return v < -max - 1 ? -max - 1 : v > max ? max : v;
}

/* A report of what moved since the last one, as far as it has room for that. */
static unsigned pc__mouse_report(struct pc_mouse *m, uint8_t out[4])
{
    int dx = pc__mouse_clamp(m->dx, 255), dy = pc__mouse_clamp(m->dy, 255);
    int dz = pc__mouse_clamp(m->dz, 7);

    m->dx -= dx;
    m->dy -= dy;
    m->dz -= dz;
    m->told = m->buttons;
    out[0] = (uint8_t)(8 | m->buttons | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0));
    out[1] = (uint8_t)dx;
    out[2] = (uint8_t)dy;
    out[3] = (uint8_t)-dz; /* towards the user is positive */
    return m->id == 3 ? 4 : 3;
}

/* Reports while there is something to report and room for it. */
static void pc__mouse_stream(struct pc_kbc *k)
{
    struct pc_mouse *m = &k->mouse;
    uint8_t report[4];

    if (m->id != 3)
        m->dz = 0;
    while (m->on && !m->remote && !m->wrap && sizeof k->moves.byte - k->moves.n >= sizeof report &&
           (m->dx || m->dy || m->dz || m->buttons != m->told)) {
        unsigned n = pc__mouse_report(m, report);
        pc__fifo_put(&k->moves, report, n);
    }
    pc__kbc_feed(k);
}

/* A mouse that reports nothing forgets what it did not report. */
VMM_DEF void pc_kbc_move(struct pc_kbc *k, int dx, int dy, int dz, unsigned buttons)
{
    enum { FAR = 4096 };
    struct pc_mouse *m = &k->mouse;

    if (!m->on)
        return;
    m->dx = pc__mouse_clamp(m->dx + pc__mouse_clamp(dx, FAR), FAR);
    m->dy = pc__mouse_clamp(m->dy + pc__mouse_clamp(dy, FAR), FAR);
    m->dz = pc__mouse_clamp(m->dz + pc__mouse_clamp(dz, FAR), FAR);
    m->buttons = buttons & 7;
    pc__mouse_stream(k);
    pc__kbc_update_irq(k);
}

/* The byte that follows a command: resolution, or the rate, which in a row of 200, 100 and 80 wakes
   the wheel. */
static void pc__mouse_parameter(struct pc_kbc *k, uint8_t command, uint8_t val)
{
    struct pc_mouse *m = &k->mouse;

    if (command == 0xe8 && val > 3) {
        pc__mouse_say(k, PC__KBD_RESEND);
        return;
    }
    pc__mouse_say(k, PC__KBD_ACK);
    if (command == 0xe8) {
        m->resolution = val;
        return;
    }
    if (m->knock[0] == 200 && m->knock[1] == 100 && val == 80)
        m->id = 3;
    m->knock[0] = m->knock[1];
    m->knock[1] = m->rate = val;
}

static void pc__mouse_status(struct pc_kbc *k)
{
    const struct pc_mouse *m = &k->mouse;
    unsigned b = m->buttons;

    pc__mouse_say(k, (uint8_t)((b & 1) << 2 | (b & 2) >> 1 | (b & 4) >> 1 | (m->twice ? 0x10 : 0) |
                               (m->on ? 0x20 : 0) | (m->remote ? 0x40 : 0)));
    pc__mouse_say(k, m->resolution);
    pc__mouse_say(k, m->rate);
}

static void pc__mouse_read(struct pc_kbc *k)
{
    uint8_t report[4];
    unsigned n = pc__mouse_report(&k->mouse, report);

    for (unsigned i = 0; i < n; i++)
        pc__mouse_say(k, report[i]);
}

/* Commands that only set something: false: it is none of them. */
static bool pc__mouse_set(struct pc_kbc *k, uint8_t val)
{
    struct pc_mouse *m = &k->mouse;

    switch (val) {
    case 0xe6: /* scaling 1:1 */
    case 0xe7: /* 2:1 */
        m->twice = val == 0xe7;
        return true;
    case 0xe8: /* resolution */
    case 0xf3: /* sample rate */
        m->command = val;
        return true;
    case 0xea: /* stream mode */
    case 0xf0: /* remote mode */
        m->remote = val == 0xf0;
        return true;
    case 0xec: /* end of wrap mode */
    case 0xee: /* wrap mode */
        m->wrap = val == 0xee;
        return true;
    case 0xf4: /* enable */
    case 0xf5: /* disable */
        m->on = val == 0xf4;
        return true;
    case 0xf6:
        pc__mouse_defaults(m);
        return true;
    default:
        return false;
    }
}

static void pc__mouse_command(struct pc_kbc *k, uint8_t val)
{
    k->moves.n = 0; /* what was under way is not sent any more */
    if (val == 0xfe) {
        pc__mouse_say(k, k->mouse.last);
        return;
    }
    if (val == 0xff)
        k->mouse.id = 0;
    if (pc__mouse_set(k, val == 0xff ? 0xf6 : val)) {
        pc__mouse_say(k, PC__KBD_ACK);
        if (val == 0xff) {
            pc__mouse_say(k, 0xaa);
            pc__mouse_say(k, 0);
        }
        return;
    }
    if (val != 0xe9 && val != 0xeb && val != 0xf2) {
        pc__mouse_say(k, PC__KBD_RESEND);
        return;
    }
    pc__mouse_say(k, PC__KBD_ACK);
    if (val == 0xe9)
        pc__mouse_status(k);
    else if (val == 0xeb)
        pc__mouse_read(k);
    else
        pc__mouse_say(k, k->mouse.id);
}

/* In wrap mode all but its end and a reset come back. */
static void pc__mouse_write(struct pc_kbc *k, uint8_t val)
{
    uint8_t command = k->mouse.command;

    k->mouse.command = 0;
    if (k->mouse.wrap && val != 0xec && val != 0xff)
        pc__mouse_say(k, val);
    else if (command)
        pc__mouse_parameter(k, command, val);
    else
        pc__mouse_command(k, val);
}

/* Without an auxiliary port its disable bit cannot be cleared: that is how Linux finds out. */
static void pc__kbc_set_ram(struct pc_kbc *k, unsigned at, uint8_t val)
{
    k->ram[at] = val;
    if (!pc__kbc_has_aux(k))
        k->ram[0] |= PC__KBC_AUX_OFF;
}

/* The data byte of a controller command. What is sent to an auxiliary port that is not there comes
   back as the controller's time-out report, so that a driver need not wait for its own. */
static void pc__kbc_parameter(struct pc_kbc *k, uint8_t command, uint8_t val)
{
    uint8_t aux = pc__kbc_has_aux(k) ? PC__KBC_AUX : 0;

    switch (command) {
    case 0xd1:
        k->outport = val;
        if (!(val & 1)) /* the processor's reset line */
            pc__kbc_reset_machine(k);
        break;
    case 0xd2:
        pc__kbc_answer(k, val, 0);
        break;
    case 0xd3:
        pc__kbc_answer(k, val, aux);
        break;
    case 0xd4:
        if (aux)
            pc__mouse_write(k, val);
        else
            pc__kbc_answer(k, PC__KBD_RESEND, PC__KBC_TIMEOUT);
        break;
    default: /* 0x60-0x7f */
        pc__kbc_set_ram(k, command & 0x1f, val);
        break;
    }
}

/* The output port's bits 4 and 5 are the two interrupt requests. */
static uint8_t pc__kbc_outport(const struct pc_kbc *k)
{
    unsigned full = 0;

    if (k->nout)
        full = k->out[k->out_head].status & PC__KBC_AUX ? 0x20 : 0x10;
    return (uint8_t)((k->outport & ~0x30u) | full);
}

static void pc__kbc_command(struct pc_kbc *k, uint8_t val)
{
    k->command = 0;
    switch (val) {
    case 0xa4: /* is a password installed? */
        pc__kbc_answer(k, 0xf1, 0);
        break;
    case 0xa7:
        pc__kbc_set_ram(k, 0, k->ram[0] | PC__KBC_AUX_OFF);
        break;
    case 0xa8:
        pc__kbc_set_ram(k, 0, k->ram[0] & (uint8_t)~PC__KBC_AUX_OFF);
        break;
    case 0xa9: /* test the auxiliary port; 1: its clock line is stuck low */
        pc__kbc_answer(k, pc__kbc_has_aux(k) ? 0 : 1, 0);
        break;
    case 0xaa: /* self test */
        pc__kbc_set_ram(k, 0, k->ram[0] | PC__KBC_SYSTEM);
        pc__kbc_answer(k, 0x55, 0);
        break;
    case 0xab: /* test the keyboard port */
        pc__kbc_answer(k, 0, 0);
        break;
    case 0xad:
        pc__kbc_set_ram(k, 0, k->ram[0] | PC__KBC_KBD_OFF);
        break;
    case 0xae:
        pc__kbc_set_ram(k, 0, k->ram[0] & (uint8_t)~PC__KBC_KBD_OFF);
        break;
    case 0xc0: /* input port: the keyboard is not locked */
        pc__kbc_answer(k, 0x80, 0);
        break;
    case 0xd0:
        pc__kbc_answer(k, pc__kbc_outport(k), 0);
        break;
    case 0xd1: /* write output port */
    case 0xd2: /* write as if from the keyboard */
    case 0xd3: /* write as if from the auxiliary device */
    case 0xd4: /* write to the auxiliary device */
        k->command = val;
        break;
    default:
        if ((val & 0xe0) == 0x20)
            pc__kbc_answer(k, k->ram[val & 0x1f], 0);
        else if ((val & 0xe0) == 0x60)
            k->command = val;
        else if (val >= 0xf0 && !(val & 1)) /* pulse output lines; line 0 resets the processor */
            pc__kbc_reset_machine(k);
        break;
    }
}

VMM_DEF void pc_kbc_init(struct pc_kbc *k, const struct pc_kbc_desc *desc)
{
    memset(k, 0, sizeof *k);
    k->desc = *desc;
    k->ram[0] = PC__KBC_KBD_IRQ | PC__KBC_SYSTEM | PC__KBC_AUX_OFF | PC__KBC_TRANSLATE;
    k->outport = 0xc3; /* clock and data lines of the keyboard, A20, reset not asserted */
    k->scancode_set = 2;
    pc__mouse_defaults(&k->mouse);
}

/* After each of the guest's accesses: what comes next, and who may go on. */
static void pc__kbc_settle(struct pc_kbc *k)
{
    bool room = k->key_refused && !k->kbd_off && !k->keys.n;

    pc__mouse_stream(k);
    pc__kbc_update_irq(k);
    if (!room)
        return;
    k->key_refused = false;
    if (k->desc.room)
        k->desc.room(k->desc.ctx);
}

/* An empty output buffer still holds the last byte. Each byte is an edge of the interrupt line. */
VMM_DEF uint64_t pc_kbc_data_read(void *kbc, uint64_t off, unsigned len)
{
    enum { SIZE = sizeof((struct pc_kbc *)kbc)->out / sizeof((struct pc_kbc *)kbc)->out[0] };
    struct pc_kbc *k = (struct pc_kbc *)kbc;
    uint64_t above = vmm_ones(len) & ~(uint64_t)0xff;
    uint8_t val;

    if (off)
        return vmm_ones(len);
    if (!k->nout)
        return above | k->out[(k->out_head + SIZE - 1) % SIZE].val;
    val = k->out[k->out_head].val;
    k->out_head = (uint8_t)((k->out_head + 1) % SIZE);
    k->nout--;
    pc__kbc_lines(k, false, false);
    pc__kbc_settle(k);
    return above | val;
}

VMM_DEF void pc_kbc_data_write(void *kbc, uint64_t off, unsigned len, uint64_t val)
{
    struct pc_kbc *k = (struct pc_kbc *)kbc;
    uint8_t command = k->command;

    (void)len;
    if (off)
        return;
    k->command = 0;
    k->last_was_command = false;
    if (command)
        pc__kbc_parameter(k, command, (uint8_t)val);
    else
        pc__kbd_write(k, (uint8_t)val);
    pc__kbc_settle(k);
}

VMM_DEF uint64_t pc_kbc_cmd_read(void *kbc, uint64_t off, unsigned len)
{
    const struct pc_kbc *k = (const struct pc_kbc *)kbc;
    unsigned status = PC__KBC_UNLOCKED | (k->ram[0] & PC__KBC_SYSTEM);

    if (off)
        return vmm_ones(len);
    status |= k->last_was_command ? PC__KBC_COMMAND : 0;
    if (k->nout)
        status |= PC__KBC_FULL | k->out[k->out_head].status;
    return (vmm_ones(len) & ~(uint64_t)0xff) | status;
}

VMM_DEF void pc_kbc_cmd_write(void *kbc, uint64_t off, unsigned len, uint64_t val)
{
    struct pc_kbc *k = (struct pc_kbc *)kbc;

    (void)len;
    if (off)
        return;
    k->last_was_command = true;
    pc__kbc_command(k, (uint8_t)val);
    pc__kbc_settle(k);
}

/* >>rtc. The time registers are computed from now() when they are read. While register B has SET,
   or the divider is held, they are plain memory instead, so that a guest can write them one by one.
   The flags of register C are computed when somebody looks, or is to be interrupted. */
enum {
    PC__RTC_SEC = 0x00, /* the alarm's are one above: */
    PC__RTC_SEC_ALARM = 0x01,
    PC__RTC_MIN = 0x02,
    PC__RTC_MIN_ALARM = 0x03,
    PC__RTC_HOUR = 0x04,
    PC__RTC_HOUR_ALARM = 0x05,
    PC__RTC_WEEKDAY = 0x06, /* 1: Sunday */
    PC__RTC_DAY = 0x07,
    PC__RTC_MONTH = 0x08,
    PC__RTC_YEAR = 0x09,
    PC__RTC_A = 0x0a,
    PC__RTC_B = 0x0b,
    PC__RTC_C = 0x0c,
    PC__RTC_D = 0x0d,
    PC__RTC_CENTURY = 0x32
};
enum { /* register A */
       PC__RTC_UIP = 0x80,
       PC__RTC_DIVIDER = 0x70,
       PC__RTC_RUNNING = 0x20,
       PC__RTC_RATE = 0x0f
};
enum { PC__RTC_24H = 0x02, PC__RTC_BINARY = 0x04, PC__RTC_SET = 0x80 }; /* register B ... */
enum { /* ... and what may interrupt, there and as flags in C */
       PC__RTC_UPDATE = 0x10,
       PC__RTC_ALARM = 0x20,
       PC__RTC_PERIODIC = 0x40,
       PC__RTC_CAUSES = PC__RTC_UPDATE | PC__RTC_ALARM | PC__RTC_PERIODIC,
       PC__RTC_IRQ = 0x80
};
enum { PC__RTC_HZ = 32768, PC__RTC_DAY_LEN = 86400, PC__RTC_SECOND = 1000000000 };

static const uint8_t pc__rtc_time_regs[] = {PC__RTC_SEC,     PC__RTC_MIN,    PC__RTC_HOUR,
                                            PC__RTC_WEEKDAY, PC__RTC_DAY,    PC__RTC_MONTH,
                                            PC__RTC_YEAR,    PC__RTC_CENTURY};

struct pc__rtc_time {
    unsigned year;                                /* 0 to 9999 */
    unsigned month, day, hour, min, sec, weekday; /* month, day and weekday from 1 */
};

static bool pc__rtc_leap(unsigned year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static unsigned pc__rtc_month_days(unsigned year, unsigned month)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    return days[month - 1] + (month == 2 && pc__rtc_leap(year));
}

/* Days from the first of January of year 0 to that of `year`, in the Gregorian calendar: 365 each
   and one for every leap year before. */
static int64_t pc__rtc_year_start(unsigned year)
{
    return 365 * (int64_t)year + (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
}

static int64_t pc__rtc_to_seconds(const struct pc__rtc_time *t)
{
    int64_t days = pc__rtc_year_start(t->year) - pc__rtc_year_start(1970) + t->day - 1;

    for (unsigned month = 1; month < t->month; month++)
        days += pc__rtc_month_days(t->year, month);
    return ((days * 24 + t->hour) * 60 + t->min) * 60 + t->sec;
}

/* The inverse; seconds outside the years 0 to 9999 become the nearest one within. */
static struct pc__rtc_time pc__rtc_from_seconds(int64_t seconds)
{
    const int64_t epoch = pc__rtc_year_start(1970) * 86400;
    const int64_t end = pc__rtc_year_start(10000) * 86400;
    struct pc__rtc_time t = {0};
    int64_t since, days;

    since = seconds < -epoch ? 0 : seconds >= end - epoch ? end - 1 : seconds + epoch;
    days = since / 86400;
    t.sec = (unsigned)(since % 60);
    t.min = (unsigned)(since / 60 % 60);
    t.hour = (unsigned)(since / 3600 % 24);
    t.weekday = (unsigned)((days + 6) % 7 + 1); /* 0000-01-01 was a Saturday */
    t.year = (unsigned)(days / 366);            /* not too late; at most 20 years early */
    while (t.year < 9999 && pc__rtc_year_start(t.year + 1) <= days)
        t.year++;
    days -= pc__rtc_year_start(t.year);
    for (t.month = 1; t.month < 12 && days >= pc__rtc_month_days(t.year, t.month); t.month++)
        days -= pc__rtc_month_days(t.year, t.month);
    t.day = (unsigned)days + 1;
    return t;
}

static uint8_t pc__rtc_encode(const struct pc_rtc *r, unsigned val)
{
    return (uint8_t)(r->ram[PC__RTC_B] & PC__RTC_BINARY ? val : val / 10 << 4 | val % 10);
}

/* What a guest wrote, forced into the range that the field has. */
static unsigned pc__rtc_decode(const struct pc_rtc *r, uint8_t raw, unsigned min, unsigned max)
{
    unsigned val = r->ram[PC__RTC_B] & PC__RTC_BINARY ? raw : (raw >> 4) * 10u + (raw & 15);

    return val < min ? min : val > max ? max : val;
}

/* Hours: 0 to 23, or 12, 1 to 11 with bit 7 for the afternoon. */
static uint8_t pc__rtc_encode_hour(const struct pc_rtc *r, unsigned hour)
{
    if (r->ram[PC__RTC_B] & PC__RTC_24H)
        return pc__rtc_encode(r, hour);
    return pc__rtc_encode(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0);
}

static unsigned pc__rtc_decode_hour(const struct pc_rtc *r, uint8_t raw)
{
    if (r->ram[PC__RTC_B] & PC__RTC_24H)
        return pc__rtc_decode(r, raw, 0, 23);
    return pc__rtc_decode(r, raw & 0x7f, 1, 12) % 12 + (raw & 0x80 ? 12 : 0);
}

/* Without a break, in any time zone: a guest's second, and nanoseconds of it. */
struct pc__rtc_moment {
    int64_t sec;
    uint32_t ns;
};

static struct pc__rtc_moment pc__rtc_moment(const struct pc_rtc *r)
{
    int64_t now = r->desc.now ? r->desc.now(r->desc.ctx) : 0, ns = now % PC__RTC_SECOND;
    struct pc__rtc_moment m = {now / PC__RTC_SECOND + r->shift, 0};

    ns += r->phase; /* below 0 before 1970 */
    m.sec += ns < 0 ? -1 : ns / PC__RTC_SECOND;
    m.ns = (uint32_t)(ns < 0 ? ns + PC__RTC_SECOND : ns % PC__RTC_SECOND);
    return m;
}

static bool pc__rtc_divides(const struct pc_rtc *r)
{
    return (r->ram[PC__RTC_A] & PC__RTC_DIVIDER) == PC__RTC_RUNNING;
}

static bool pc__rtc_runs(const struct pc_rtc *r)
{
    return pc__rtc_divides(r) && !(r->ram[PC__RTC_B] & PC__RTC_SET);
}

static bool pc__rtc_is_time(uint8_t reg)
{
    return memchr(pc__rtc_time_regs, reg, sizeof pc__rtc_time_regs) != NULL;
}

static uint8_t pc__rtc_get_time(const struct pc_rtc *r, uint8_t reg)
{
    struct pc__rtc_time t = pc__rtc_from_seconds(pc__rtc_moment(r).sec);

    switch (reg) {
    case PC__RTC_SEC:
        return pc__rtc_encode(r, t.sec);
    case PC__RTC_MIN:
        return pc__rtc_encode(r, t.min);
    case PC__RTC_HOUR:
        return pc__rtc_encode_hour(r, t.hour);
    case PC__RTC_WEEKDAY:
        return pc__rtc_encode(r, t.weekday);
    case PC__RTC_DAY:
        return pc__rtc_encode(r, t.day);
    case PC__RTC_MONTH:
        return pc__rtc_encode(r, t.month);
    case PC__RTC_YEAR:
        return pc__rtc_encode(r, t.year % 100);
    default:
        return pc__rtc_encode(r, t.year / 100);
    }
}

/* The running clock into memory, where the guest edits it ... */
static void pc__rtc_freeze(struct pc_rtc *r)
{
    for (unsigned i = 0; i < sizeof pc__rtc_time_regs; i++)
        r->ram[pc__rtc_time_regs[i]] = pc__rtc_get_time(r, pc__rtc_time_regs[i]);
}

/* ... and back: the clock goes on from there. The weekday follows from the date. */
static void pc__rtc_resume(struct pc_rtc *r)
{
    const uint8_t *ram = r->ram;
    struct pc__rtc_time t = {0};

    t.year = pc__rtc_decode(r, ram[PC__RTC_CENTURY], 0, 99) * 100 +
             pc__rtc_decode(r, ram[PC__RTC_YEAR], 0, 99);
    t.month = pc__rtc_decode(r, ram[PC__RTC_MONTH], 1, 12);
    t.day = pc__rtc_decode(r, ram[PC__RTC_DAY], 1, pc__rtc_month_days(t.year, t.month));
    t.hour = pc__rtc_decode_hour(r, ram[PC__RTC_HOUR]);
    t.min = pc__rtc_decode(r, ram[PC__RTC_MIN], 0, 59);
    t.sec = pc__rtc_decode(r, ram[PC__RTC_SEC], 0, 59);
    r->seen = pc__rtc_to_seconds(&t);
    r->shift += r->seen - pc__rtc_moment(r).sec;
}

/* Does an alarm register match? Two high bits mean "whatever it is". */
static bool pc__rtc_matches(const struct pc_rtc *r, uint8_t reg, uint8_t val)
{
    return (r->ram[reg] & 0xc0) == 0xc0 || r->ram[reg] == val;
}

/* Seconds from `sec` until the next alarm, at least 1; 0: never. An hour or a minute that does not
   match is left as a whole: some 150 steps at most. */
static unsigned pc__rtc_alarm_in(const struct pc_rtc *r, int64_t sec)
{
    unsigned start = (unsigned)((sec % PC__RTC_DAY_LEN + PC__RTC_DAY_LEN) % PC__RTC_DAY_LEN);

    for (unsigned in = 1; in <= PC__RTC_DAY_LEN;) {
        unsigned at = (start + in) % PC__RTC_DAY_LEN;
        if (!pc__rtc_matches(r, PC__RTC_HOUR_ALARM, pc__rtc_encode_hour(r, at / 3600)))
            in += 3600 - at % 3600;
        else if (!pc__rtc_matches(r, PC__RTC_MIN_ALARM, pc__rtc_encode(r, at / 60 % 60)))
            in += 60 - at % 60;
        else if (!pc__rtc_matches(r, PC__RTC_SEC_ALARM, pc__rtc_encode(r, at % 60)))
            in++;
        else
            return in;
    }
    return 0;
}

/* Of the 32768 Hz clock; 0: no periodic interrupt. The two shortest codes stand for long ones. */
static unsigned pc__rtc_period(const struct pc_rtc *r)
{
    unsigned rate = r->ram[PC__RTC_A] & PC__RTC_RATE;

    if (!rate || !pc__rtc_divides(r))
        return 0;
    return 1u << (rate < 3 ? rate + 6 : rate - 1);
}

/* Counts the periods since it was last called, of which a guest is owed a second's at most. */
static void pc__rtc_periodic(struct pc_rtc *r)
{
    uint64_t ticks = pc__clocks(vmm_timer_now(&r->desc.timer), PC__RTC_HZ), n = 0;
    unsigned period = pc__rtc_period(r);

    if (period)
        n = ticks / period - r->ticks / period;
    r->ticks = ticks;
    if (!n)
        return;
    r->ram[PC__RTC_C] |= PC__RTC_PERIODIC;
    n += r->owed;
    r->owed = (uint32_t)(n < PC__RTC_HZ / period ? n : PC__RTC_HZ / period);
}

/* Brings register C up to date. A host that sets its clock back repeats no alarm. */
static void pc__rtc_catch_up(struct pc_rtc *r)
{
    int64_t sec = pc__rtc_moment(r).sec;
    unsigned in;

    pc__rtc_periodic(r);
    if (!(r->ram[PC__RTC_B] & PC__RTC_PERIODIC))
        r->owed = 0;
    if (!pc__rtc_runs(r))
        return;
    if (sec > r->seen) {
        in = pc__rtc_alarm_in(r, r->seen);
        r->ram[PC__RTC_C] |= PC__RTC_UPDATE;
        r->ram[PC__RTC_C] |= in && in <= sec - r->seen ? PC__RTC_ALARM : 0;
    }
    r->seen = sec;
}

static bool pc__rtc_interrupts(const struct pc_rtc *r)
{
    return r->ram[PC__RTC_B] & r->ram[PC__RTC_C] & PC__RTC_CAUSES;
}

/* When the next interrupt is due; while one is, no other can be. */
static uint64_t pc__rtc_due(const struct pc_rtc *r)
{
    uint64_t now = vmm_timer_now(&r->desc.timer), at = UINT64_MAX, second;
    unsigned period = pc__rtc_period(r), in = 1;
    uint8_t b = r->ram[PC__RTC_B];

    if (pc__rtc_interrupts(r))
        return at;
    if ((b & PC__RTC_PERIODIC) && period)
        at = pc__clocks_ns((r->ticks / period + 1) * period, PC__RTC_HZ);
    if (!pc__rtc_runs(r) || !(b & (PC__RTC_UPDATE | PC__RTC_ALARM)))
        return at;
    if (!(b & PC__RTC_UPDATE))
        in = pc__rtc_alarm_in(r, r->seen);
    second = now + PC__RTC_SECOND - pc__rtc_moment(r).ns + (in - 1ull) * PC__RTC_SECOND;
    return in && second < at ? second : at;
}

static void pc__rtc_update(struct pc_rtc *r)
{
    uint64_t at = pc__rtc_due(r);
    bool level = pc__rtc_interrupts(r);

    if (level != r->level)
        vmm_irq_set(&r->desc.irq, level);
    r->level = level;
    if (r->armed || at != UINT64_MAX)
        vmm_timer_wake(&r->desc.timer, at);
    r->armed = at != UINT64_MAX;
}

VMM_DEF void pc_rtc_tick(struct pc_rtc *r)
{
    pc__rtc_catch_up(r);
    pc__rtc_update(r);
}

/* Update in progress: from 244 us before each second until it, while the clock runs. */
static uint8_t pc__rtc_get_a(const struct pc_rtc *r)
{
    bool soon = pc__rtc_moment(r).ns >= PC__RTC_SECOND - 244000;

    return r->ram[PC__RTC_A] | (soon && pc__rtc_runs(r) ? PC__RTC_UIP : 0);
}

/* Reading acknowledges. A periodic interrupt that is owed comes at once: the line falls between. */
static uint8_t pc__rtc_get_c(struct pc_rtc *r)
{
    uint8_t val;

    pc__rtc_catch_up(r);
    val = r->ram[PC__RTC_C] | (pc__rtc_interrupts(r) ? PC__RTC_IRQ : 0);
    r->ram[PC__RTC_C] = 0;
    pc__rtc_update(r);
    r->owed -= r->owed > 0;
    if (r->owed) {
        r->ram[PC__RTC_C] = PC__RTC_PERIODIC;
        pc__rtc_update(r);
    }
    return val;
}

static uint8_t pc__rtc_get(struct pc_rtc *r, uint8_t reg)
{
    if (pc__rtc_is_time(reg) && pc__rtc_runs(r))
        return pc__rtc_get_time(r, reg);
    if (reg == PC__RTC_C)
        return pc__rtc_get_c(r);
    return reg == PC__RTC_A ? pc__rtc_get_a(r) : r->ram[reg];
}

/* A divider that is let go makes its first update after half a second. Setting SET ends interrupts
   at updates. */
static void pc__rtc_set_control(struct pc_rtc *r, uint8_t reg, uint8_t val)
{
    bool ran = pc__rtc_runs(r), divided = pc__rtc_divides(r);
    uint32_t half = PC__RTC_SECOND / 2;

    r->ram[reg] = reg == PC__RTC_A ? val & (uint8_t)~PC__RTC_UIP : val;
    if (r->ram[PC__RTC_B] & PC__RTC_SET)
        r->ram[PC__RTC_B] &= (uint8_t)~PC__RTC_UPDATE;
    if (ran && !pc__rtc_runs(r))
        pc__rtc_freeze(r);
    if (!divided && pc__rtc_divides(r)) {
        uint32_t ns = pc__rtc_moment(r).ns;
        r->phase = (r->phase + PC__RTC_SECOND - ns + half) % PC__RTC_SECOND;
    }
    if (!ran && pc__rtc_runs(r))
        pc__rtc_resume(r);
}

/* Registers C and D are read-only. A time register that is written while the clock runs takes
   effect alone. */
static void pc__rtc_put(struct pc_rtc *r, uint8_t reg, uint8_t val)
{
    bool live = pc__rtc_is_time(reg) && pc__rtc_runs(r);

    if (reg == PC__RTC_C || reg == PC__RTC_D)
        return;
    pc__rtc_catch_up(r);
    if (live)
        pc__rtc_freeze(r);
    if (reg == PC__RTC_A || reg == PC__RTC_B)
        pc__rtc_set_control(r, reg, val);
    else
        r->ram[reg] = val;
    if (live)
        pc__rtc_resume(r);
    pc__rtc_update(r);
}

/* The lower of n / unit and what `len` bytes can hold, little-endian. */
static void pc__rtc_put_size(struct pc_rtc *r, uint8_t reg, unsigned len, uint64_t n, uint64_t unit)
{
    uint64_t val = n / unit < vmm_ones(len) ? n / unit : vmm_ones(len);

    for (unsigned i = 0; i < len; i++)
        r->ram[reg + i] = (uint8_t)(val >> (8 * i));
}

static uint64_t pc__rtc_above(uint64_t ram, uint64_t limit)
{
    return ram > limit ? ram - limit : 0;
}

/* 32768 Hz, BCD, 24 hours, battery good; and the memory sizes where firmware looks for them. */
VMM_DEF void pc_rtc_init(struct pc_rtc *r, const struct pc_rtc_desc *desc)
{
    uint64_t low = desc->ram_low, kib = 1024, mib = 1024 * kib;

    memset(r, 0, sizeof *r);
    r->desc = *desc;
    r->seen = pc__rtc_moment(r).sec;
    r->ticks = pc__clocks(vmm_timer_now(&desc->timer), PC__RTC_HZ);
    r->ram[PC__RTC_A] = PC__RTC_RUNNING | 6;
    r->ram[PC__RTC_B] = PC__RTC_24H;
    r->ram[PC__RTC_D] = 0x80;
    r->ram[0x14] = 0x02; /* equipment: a floating point unit, no diskettes */
    pc__rtc_put_size(r, 0x15, 2, low < 640 * kib ? low : 640 * kib, kib);
    pc__rtc_put_size(r, 0x17, 2, pc__rtc_above(low, mib), kib);
    pc__rtc_put_size(r, 0x30, 2, pc__rtc_above(low, mib), kib);
    pc__rtc_put_size(r, 0x34, 2, pc__rtc_above(low, 16 * mib), 64 * kib);
    pc__rtc_put_size(r, 0x5b, 3, desc->ram_high, 64 * kib);
    pc__rtc_put_size(r, 0x5f, 1, desc->ncpus ? desc->ncpus - 1 : 0, 1);
    r->ram[0x3d] = 0x02; /* boot from the first hard disk alone */
}

/* Port 0x70 cannot be read back. */
static uint8_t pc__rtc_in(void *rtc, unsigned port)
{
    struct pc_rtc *r = (struct pc_rtc *)rtc;

    return port ? pc__rtc_get(r, r->index) : 0xff;
}

static void pc__rtc_out(void *rtc, unsigned port, uint8_t val)
{
    struct pc_rtc *r = (struct pc_rtc *)rtc;

    if (port)
        pc__rtc_put(r, r->index, val);
    else
        r->index = val & 0x7f;
}

VMM_DEF uint64_t pc_rtc_read(void *rtc, uint64_t off, unsigned len)
{
    return pc__read_bytes(rtc, off, len, 2, pc__rtc_in);
}

VMM_DEF void pc_rtc_write(void *rtc, uint64_t off, unsigned len, uint64_t val)
{
    pc__write_bytes(rtc, off, len, 2, val, pc__rtc_out);
}

/* >>debug */
VMM_DEF uint64_t pc_debugexit_read(void *debugexit, uint64_t off, unsigned len)
{
    (void)debugexit, (void)off;
    return vmm_ones(len);
}

VMM_DEF void pc_debugexit_write(void *debugexit, uint64_t off, unsigned len, uint64_t val)
{
    const struct pc_debugexit *d = (const struct pc_debugexit *)debugexit;

    (void)len;
    if (!off && d->exit)
        d->exit(d->ctx, (uint8_t)val);
}

/* Other offsets read 0: in place of a PL011, a guest finds its flag register saying "not busy". */
VMM_DEF uint64_t pc_debugcon_read(void *debugcon, uint64_t off, unsigned len)
{
    (void)debugcon;
    return off ? 0 : (vmm_ones(len) & ~(uint64_t)0xff) | 0xe9;
}

VMM_DEF void pc_debugcon_write(void *debugcon, uint64_t off, unsigned len, uint64_t val)
{
    const struct pc_debugcon *d = (const struct pc_debugcon *)debugcon;
    uint8_t byte = (uint8_t)val;

    (void)len;
    if (!off && d->out.write)
        d->out.write(d->out.ctx, &byte, 1);
}

/* >>fwlog */
static const uint8_t pc__fwlog_level[] = {VMM_LOG_WARN, VMM_LOG_NONE, VMM_LOG_INFO, VMM_LOG_DEBUG};

static bool pc__fwlog_wants(const struct pc_fwlog *f, unsigned port)
{
    return f->log && pc__fwlog_level[port] && pc__fwlog_level[port] <= (unsigned)f->log->level;
}

VMM_DEF uint64_t pc_fwlog_read(void *fwlog, uint64_t off, unsigned len)
{
    bool there = pc__fwlog_wants((const struct pc_fwlog *)fwlog, (unsigned)off & 3);

    return vmm_ones(len) & (there ? ~(uint64_t)0xff | 0xe9 : ~(uint64_t)0);
}

static void pc__fwlog_end(struct pc_fwlog *f, unsigned port)
{
    struct pc_fwlog_line *l = &f->line[port];
    enum vmm_level level = (enum vmm_level)pc__fwlog_level[port];

    l->text[l->len] = 0;
    if (l->len && (level != VMM_LOG_WARN || vmm_spend(&f->panics)))
        vmm_say(f->log, level, "firmware: %s", l->text);
    l->len = 0;
}

VMM_DEF void pc_fwlog_write(void *fwlog, uint64_t off, unsigned len, uint64_t val)
{
    struct pc_fwlog *f = (struct pc_fwlog *)fwlog;
    unsigned port = (unsigned)off & 3;
    struct pc_fwlog_line *l = &f->line[port];
    uint8_t c = (uint8_t)val;

    (void)len;
    if (!pc__fwlog_wants(f, port))
        return;
    if (c >= ' ' && c < 0x7f)
        l->text[l->len++] = (char)c;
    if (c == '\n' || l->len == sizeof l->text - 1)
        pc__fwlog_end(f, port);
}

/* >>fwcfg */
enum { PC__FWCFG_SIGNATURE, PC__FWCFG_ID, PC__FWCFG_DIR = 0x19, PC__FWCFG_FILES = 0x20 };
enum { PC__FWCFG_DATA = 1, PC__FWCFG_DMA = 4 }; /* ports */
enum { PC__FWCFG_ERROR = 1, PC__FWCFG_READ = 2, PC__FWCFG_SKIP = 4 };
enum { PC__FWCFG_SELECT = 8, PC__FWCFG_WRITE = 16, PC__FWCFG_ENTRY = 64 /* bytes of a name's */ };

static void pc__put_be(uint8_t *p, uint64_t v, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        p[i] = (uint8_t)(v >> 8 * (len - 1 - i));
}

static uint64_t pc__get_be(const uint8_t *p, unsigned len)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < len; i++)
        v = v << 8 | p[i];
    return v;
}

static const struct pc_fwcfg_item *pc__fwcfg_find(const struct pc_fwcfg *f, uint16_t key)
{
    for (unsigned i = 0; i < f->nitems; i++)
        if (key == (f->item[i].name ? PC__FWCFG_FILES + i : f->item[i].key))
            return &f->item[i];
    return NULL;
}

/* The `nth` item that has a name; NULL: there are not so many. */
static const struct pc_fwcfg_item *pc__fwcfg_nth(const struct pc_fwcfg *f, unsigned nth)
{
    for (unsigned i = 0; i < f->nitems; i++)
        if (f->item[i].name && nth-- == 0)
            return &f->item[i];
    return NULL;
}

/* The directory: how many names, then of each length, key, and name, big-endian. */
static uint8_t pc__fwcfg_dir(const struct pc_fwcfg *f, uint32_t off)
{
    uint8_t entry[PC__FWCFG_ENTRY] = {0};
    const struct pc_fwcfg_item *it;
    unsigned n = 0;

    while (off < 4 && pc__fwcfg_nth(f, n))
        n++;
    if (off < 4)
        return (uint8_t)(n >> 8 * (3 - off));
    it = pc__fwcfg_nth(f, (off - 4) / sizeof entry);
    if (!it)
        return 0;
    pc__put_be(entry, it->len, 4);
    pc__put_be(entry + 4, PC__FWCFG_FILES + (uint64_t)(it - f->item), 2);
    for (n = 0; it->name[n] && n < PC__FWCFG_ENTRY - 9; n++)
        entry[8 + n] = (uint8_t)it->name[n];
    return entry[(off - 4) % sizeof entry];
}

/* The next byte of what is selected; zeroes behind its end. */
static uint8_t pc__fwcfg_next(struct pc_fwcfg *f, const struct pc_fwcfg_item *it)
{
    uint32_t off = f->off;

    f->off += off != UINT32_MAX;
    if (f->key == PC__FWCFG_SIGNATURE)
        return off < 4 ? (uint8_t) "QEMU"[off] : 0;
    if (f->key == PC__FWCFG_ID)
        return off ? 0 : f->mem ? 3 : 1; /* the interface by ports, and that by transfers */
    if (f->key == PC__FWCFG_DIR)
        return pc__fwcfg_dir(f, off);
    return it && off < it->len ? ((const uint8_t *)it->data)[off] : 0;
}

static void pc__fwcfg_select(struct pc_fwcfg *f, uint16_t key)
{
    f->key = key;
    f->off = 0;
}

/* One transfer, as its descriptor (a copy) says. */
static bool pc__fwcfg_transfer(struct pc_fwcfg *f, const uint8_t desc[16])
{
    uint32_t control = (uint32_t)pc__get_be(desc, 4), len = (uint32_t)pc__get_be(desc + 4, 4);
    const struct pc_fwcfg_item *it;
    uint8_t *to;

    if (control & PC__FWCFG_SELECT)
        pc__fwcfg_select(f, (uint16_t)(control >> 16));
    if (control & PC__FWCFG_READ) {
        to = (uint8_t *)vmm_at(f->mem, pc__get_be(desc + 8, 8), len);
        if (!to || len > PC_FWCFG_DMA_MAX)
            return false;
        it = pc__fwcfg_find(f, f->key);
        for (uint32_t i = 0; i < len; i++)
            to[i] = pc__fwcfg_next(f, it);
    } else if (control & PC__FWCFG_SKIP) {
        f->off = len < UINT32_MAX - f->off ? f->off + len : UINT32_MAX;
    }
    return !(control & PC__FWCFG_WRITE);
}

static void pc__fwcfg_dma(struct pc_fwcfg *f, uint64_t gpa)
{
    uint8_t desc[16], *at = f->mem ? (uint8_t *)vmm_at(f->mem, gpa, sizeof desc) : NULL;
    bool done;

    if (!at)
        return; /* nowhere to tell it */
    memcpy(desc, at, sizeof desc);
    done = pc__fwcfg_transfer(f, desc);
    pc__put_be(at, done ? 0 : PC__FWCFG_ERROR, 4);
}

VMM_DEF uint64_t pc_fwcfg_read(void *fwcfg, uint64_t off, unsigned len)
{
    struct pc_fwcfg *f = (struct pc_fwcfg *)fwcfg;
    uint64_t val = vmm_ones(len);

    if (off == PC__FWCFG_DATA)
        return (val & ~(uint64_t)0xff) | pc__fwcfg_next(f, pc__fwcfg_find(f, f->key));
    for (unsigned i = 0; i < len && off + i >= PC__FWCFG_DMA && off + i < PC_FWCFG_PORTS && f->mem;
         i++)
        val ^= (uint64_t)(0xff ^ (uint8_t) "QEMU CFG"[off + i - PC__FWCFG_DMA]) << 8 * i;
    return val;
}

/* The low half of a descriptor's address starts the transfer. */
VMM_DEF void pc_fwcfg_write(void *fwcfg, uint64_t off, unsigned len, uint64_t val)
{
    struct pc_fwcfg *f = (struct pc_fwcfg *)fwcfg;
    uint8_t byte[4];
    uint64_t gpa;

    vmm_put32(byte, (uint32_t)val);
    if (off == 0 && len == 2)
        pc__fwcfg_select(f, (uint16_t)val);
    if (off == PC__FWCFG_DMA && len == 4)
        f->dma_high = (uint32_t)pc__get_be(byte, 4);
    if (off != PC__FWCFG_DMA + 4 || len != 4)
        return;
    gpa = (uint64_t)f->dma_high << 32 | pc__get_be(byte, 4);
    f->dma_high = 0;
    pc__fwcfg_dma(f, gpa);
}

/* >>ata: "AT Attachment with Packet Interface - 6", chapters 6 (registers), 8 (commands), 9
   (protocols). */
enum { /* registers of the command block */
       PC__ATA_DATA,
       PC__ATA_ERROR, /* features, when written */
       PC__ATA_COUNT,
       PC__ATA_LBA, /* three of them */
       PC__ATA_DEVICE = 6,
       PC__ATA_STATUS /* command, when written */
};
enum {
    PC__ATA_ERR = 0x01,
    PC__ATA_DRQ = 0x08,
    PC__ATA_READY = 0x50, /* DRDY, and DSC as before ATA-4 */
    PC__ATA_BSY = 0x80
};
enum { PC__ATA_ABRT = 0x04, PC__ATA_IDNF = 0x10, PC__ATA_UNC = 0x40 };  /* error */
enum { PC__ATA_DEV1 = 0x10, PC__ATA_IS_LBA = 0x40 };                    /* device */
enum { PC__ATA_NIEN = 0x02, PC__ATA_SRST = 0x04, PC__ATA_HOB = 0x80 };  /* control */
enum { PC__ATA_CYLINDERS_MAX = 16383, PC__ATA_LBA28_MAX = 0x0fffffff }; /* what fits */
enum { PC__ATA_HEADS = 16, PC__ATA_PER_TRACK = 63, PC__ATA_IDENTIFY = 0xec };

static void pc__ata_irq(struct pc_ata *a, bool level)
{
    bool line = level && !(a->control & PC__ATA_NIEN);

    a->irq_level = level;
    if (line != a->line)
        vmm_irq_set(&a->desc.irq, line);
    a->line = line;
}

/* The command is over. */
static void pc__ata_done(struct pc_ata *a, uint8_t error)
{
    a->error = error;
    a->status = PC__ATA_READY | (error ? PC__ATA_ERR : 0);
    a->pos = a->len = a->left = 0;
    pc__ata_irq(a, true);
}

/* What a disk shows after reset, by which it is known; diagnostics have found nothing. */
static void pc__ata_signature(struct pc_ata *a)
{
    memset(a->lba, 0, sizeof a->lba);
    a->count[0] = a->lba[0][0] = 1;
    a->device = 0;
    a->error = 1;
    a->status = PC__ATA_READY;
    a->pos = a->len = a->left = 0;
}

static unsigned pc__ata_cylinders(const struct pc_ata *a, unsigned heads, unsigned per_track)
{
    uint64_t n = a->desc.nsectors / (heads * per_track);

    return n < 1 ? 1 : n > PC__ATA_CYLINDERS_MAX ? PC__ATA_CYLINDERS_MAX : (unsigned)n;
}

/* Text in words, the first character of each in its upper half, padded by spaces. */
static void pc__ata_text(uint8_t *id, unsigned word, unsigned nwords, const char *s)
{
    for (unsigned i = 0; i < 2 * nwords; i++)
        id[2 * word + (i ^ 1)] = (uint8_t)(*s ? *s++ : ' ');
}

static void pc__ata_identify(const struct pc_ata *a, uint8_t id[512])
{
    enum { LBA = 0x200, WRITE_CACHE = 1 << 5, FLUSH = 3 << 12, LBA48 = 1 << 10, VALID = 1 << 14 };
    uint64_t n = a->desc.nsectors, n28 = n < PC__ATA_LBA28_MAX ? n : PC__ATA_LBA28_MAX;
    unsigned cylinders = pc__ata_cylinders(a, a->heads, a->per_track);

    memset(id, 0, 512);
    vmm_put16(id + 2 * 0, 0x40); /* not removable */
    vmm_put16(id + 2 * 1, (uint16_t)pc__ata_cylinders(a, PC__ATA_HEADS, PC__ATA_PER_TRACK));
    vmm_put16(id + 2 * 3, PC__ATA_HEADS);
    vmm_put16(id + 2 * 4, PC__ATA_PER_TRACK * 512); /* of ATA-1: bytes of a track, a sector */
    vmm_put16(id + 2 * 5, 512);
    vmm_put16(id + 2 * 6, PC__ATA_PER_TRACK);
    pc__ata_text(id, 10, 10, a->desc.serial ? a->desc.serial : "");
    pc__ata_text(id, 23, 4, "1");
    pc__ata_text(id, 27, 20, "VMM DISK");
    vmm_put16(id + 2 * 47, 0x8000 | PC_ATA_BLOCK);
    vmm_put16(id + 2 * 49, LBA); /* and no DMA */
    vmm_put16(id + 2 * 50, VALID);
    vmm_put16(id + 2 * 53, 3); /* words 54 to 58 and 64 to 70 are valid: */
    vmm_put16(id + 2 * 54, (uint16_t)cylinders);
    vmm_put16(id + 2 * 55, (uint16_t)a->heads);
    vmm_put16(id + 2 * 56, (uint16_t)a->per_track);
    vmm_put32(id + 2 * 57, cylinders * a->heads * a->per_track);
    vmm_put16(id + 2 * 59, (uint16_t)(a->multiple ? 0x100 | a->multiple : 0));
    vmm_put32(id + 2 * 60, (uint32_t)n28);
    vmm_put16(id + 2 * 64, 3); /* PIO modes 3 and 4, of cycles of 120 ns */
    vmm_put16(id + 2 * 67, 120);
    vmm_put16(id + 2 * 68, 120);
    vmm_put16(id + 2 * 80, 0x7e); /* ATA-1 to ATA-6 */
    for (unsigned i = 0; i < 6; i += 3) { /* what there is, and what is on */
        vmm_put16(id + 2 * (82 + i), WRITE_CACHE);
        vmm_put16(id + 2 * (83 + i), VALID | FLUSH | LBA48);
        vmm_put16(id + 2 * (84 + i), VALID);
    }
    vmm_put64(id + 2 * 100, n);
}

/* Has the sectors come that the registers ask for? Sets sector and left. */
static bool pc__ata_address(struct pc_ata *a, bool is48)
{
    uint64_t lba = a->lba[0][0] | a->lba[1][0] << 8 | (uint32_t)a->lba[2][0] << 16;
    unsigned head = a->device & 15, track = a->lba[0][0];

    a->left = a->count[0] ? a->count[0] : 256;
    if (is48) {
        a->left = a->count[1] << 8 | a->count[0];
        a->left = a->left ? a->left : 65536;
        lba |= (uint64_t)(a->lba[0][1] | a->lba[1][1] << 8) << 24 | (uint64_t)a->lba[2][1] << 40;
    } else if (a->device & PC__ATA_IS_LBA) {
        lba |= (uint64_t)head << 24;
    } else {
        lba = (uint64_t)(a->lba[1][0] | a->lba[2][0] << 8) * a->heads + head;
        lba = lba * a->per_track + track - 1;
        if (!track || track > a->per_track || head >= a->heads)
            return false;
    }
    a->sector = lba;
    return lba < a->desc.nsectors && a->left <= a->desc.nsectors - lba;
}

/* After an error the registers tell the sector; in CHS those that were written stay. */
static void pc__ata_failed(struct pc_ata *a, uint8_t error)
{
    for (unsigned i = 0; i < 3 && (a->device & PC__ATA_IS_LBA); i++)
        a->lba[i][0] = (uint8_t)(a->sector >> 8 * i);
    pc__ata_done(a, error);
}

/* The next block of a transfer: read it, or wait for the guest to bring it. */
static void pc__ata_block(struct pc_ata *a)
{
    uint32_t n = a->left < a->block ? a->left : a->block;

    if (!a->writing && a->desc.rw(a->desc.ctx, false, a->buf, a->sector, n)) {
        pc__ata_failed(a, PC__ATA_UNC);
        return;
    }
    a->pos = 0;
    a->len = n * 512;
    a->status = PC__ATA_READY | PC__ATA_DRQ;
}

/* All of a block has been moved. */
static void pc__ata_moved(struct pc_ata *a)
{
    uint32_t n = a->len / 512;

    if (a->writing && a->desc.rw(a->desc.ctx, true, a->buf, a->sector, n)) {
        pc__ata_failed(a, PC__ATA_ABRT);
        return;
    }
    a->pos = a->len = 0;
    a->status = PC__ATA_READY;
    a->sector += n;
    a->left -= n < a->left ? n : a->left;
    if (a->left)
        pc__ata_block(a);
    if (a->len || a->writing)
        pc__ata_irq(a, true);
}

static void pc__ata_transfer(struct pc_ata *a, bool write, bool is48, unsigned block)
{
    if (!block || !pc__ata_address(a, is48)) {
        pc__ata_done(a, block ? PC__ATA_IDNF : PC__ATA_ABRT);
        return;
    }
    a->writing = write;
    a->block = block;
    pc__ata_block(a);
    if (!write && a->len)
        pc__ata_irq(a, true);
}

static void pc__ata_say_identity(struct pc_ata *a)
{
    pc__ata_identify(a, a->buf);
    a->writing = false;
    a->left = 0;
    a->pos = 0;
    a->len = 512;
    a->status = PC__ATA_READY | PC__ATA_DRQ;
    pc__ata_irq(a, true);
}

/* INITIALIZE DEVICE PARAMETERS, SET MULTIPLE MODE, SET FEATURES: true if it can be so. */
static bool pc__ata_set(struct pc_ata *a)
{
    enum { PARAMETERS = 0x91, MULTIPLE = 0xc6, CACHE_ON = 0x02, TRANSFER_MODE = 0x03 };
    uint8_t n = a->count[0];

    if (a->command == PARAMETERS) {
        a->heads = (a->device & 15u) + 1;
        a->per_track = n ? n : 1;
        return n;
    }
    if (a->command == MULTIPLE) {
        a->multiple = n <= PC_ATA_BLOCK && !(n & (n - 1)) ? n : 0;
        return a->multiple == n;
    }
    return a->features[0] == CACHE_ON || (a->features[0] == TRANSFER_MODE && n <= 0x0c);
}

/* Sectors on a host's disk need not be read to know that they can be. */
static uint8_t pc__ata_other(struct pc_ata *a)
{
    switch (a->command) {
    case 0x40: /* READ VERIFY SECTORS */
    case 0x41:
    case 0x42: /* EXT */
        return pc__ata_address(a, a->command == 0x42) ? 0 : PC__ATA_IDNF;
    case 0x91:
    case 0xc6:
    case 0xef:
        return pc__ata_set(a) ? 0 : PC__ATA_ABRT;
    case 0xe5: /* CHECK POWER MODE: active */
        a->count[0] = 0xff;
        return 0;
    case 0xe0: /* STANDBY, IDLE, at once or later */
    case 0xe1:
    case 0xe2:
    case 0xe3:
        return 0;
    case 0xe7: /* FLUSH CACHE */
    case 0xea: /* EXT */
        return a->desc.flush && a->desc.flush(a->desc.ctx) ? PC__ATA_ABRT : 0;
    default: /* RECALIBRATE and SEEK were commands once */
        return (a->command & 0xf0) == 0x10 || (a->command & 0xf0) == 0x70 ? 0 : PC__ATA_ABRT;
    }
}

static void pc__ata_command(struct pc_ata *a, uint8_t command)
{
    a->command = command;
    a->error = 0;
    pc__ata_irq(a, false);
    switch (command) {
    case 0x20: /* READ SECTORS, with and without retries; EXT; MULTIPLE; MULTIPLE EXT */
    case 0x21:
        pc__ata_transfer(a, false, false, 1);
        break;
    case 0x24:
        pc__ata_transfer(a, false, true, 1);
        break;
    case 0xc4:
    case 0x29:
        pc__ata_transfer(a, false, command == 0x29, a->multiple);
        break;
    case 0x30: /* WRITE, likewise */
    case 0x31:
        pc__ata_transfer(a, true, false, 1);
        break;
    case 0x34:
        pc__ata_transfer(a, true, true, 1);
        break;
    case 0xc5:
    case 0x39:
        pc__ata_transfer(a, true, command == 0x39, a->multiple);
        break;
    case 0x90: /* EXECUTE DEVICE DIAGNOSTIC */
        pc__ata_signature(a);
        pc__ata_irq(a, true);
        break;
    case PC__ATA_IDENTIFY:
        pc__ata_say_identity(a);
        break;
    default:
        pc__ata_done(a, pc__ata_other(a));
    }
}

/* The data register, 16 bits wide; a wider or narrower access moves so many bytes. */
static uint64_t pc__ata_data(struct pc_ata *a, unsigned len, bool write, uint64_t val)
{
    uint64_t got = vmm_ones(len);

    if (!(a->status & PC__ATA_DRQ) || a->writing != write || (a->device & PC__ATA_DEV1))
        return got;
    len = len < a->len - a->pos ? len : a->len - a->pos;
    if (write)
        memcpy(a->buf + a->pos, &val, len);
    else
        memcpy(&got, a->buf + a->pos, len);
    a->pos += len;
    if (a->pos == a->len)
        pc__ata_moved(a);
    return got;
}

/* There is no device 1: device 0 answers in its place, with a status of 0, but not while both are
   reset. */
static uint8_t pc__ata_status(const struct pc_ata *a)
{
    return (a->device & PC__ATA_DEV1) && a->status != PC__ATA_BSY ? 0 : a->status;
}

static uint8_t pc__ata_get(struct pc_ata *a, unsigned reg)
{
    unsigned half = a->control & PC__ATA_HOB ? 1 : 0;

    switch (reg) {
    case PC__ATA_ERROR:
        return a->error;
    case PC__ATA_COUNT:
        return a->count[half];
    case PC__ATA_DEVICE:
        return a->device | 0xa0; /* two bits that were always 1 once */
    case PC__ATA_STATUS:
        if (!(a->device & PC__ATA_DEV1))
            pc__ata_irq(a, false);
        return pc__ata_status(a);
    default:
        return a->lba[reg - PC__ATA_LBA][half];
    }
}

static void pc__ata_push(uint8_t reg[2], uint8_t val)
{
    reg[1] = reg[0];
    reg[0] = val;
}

/* Any of these writes clears HOB. In reset nothing is heard; device 1, which there is not, does not
   carry out commands but the diagnostics of both. */
static void pc__ata_put(struct pc_ata *a, unsigned reg, uint8_t val)
{
    enum { DIAGNOSTIC = 0x90 };

    a->control &= (uint8_t)~PC__ATA_HOB;
    if (a->control & PC__ATA_SRST)
        return;
    if (reg == PC__ATA_ERROR)
        pc__ata_push(a->features, val);
    else if (reg == PC__ATA_COUNT)
        pc__ata_push(a->count, val);
    else if (reg == PC__ATA_DEVICE)
        a->device = val & 0x5f;
    else if (reg != PC__ATA_STATUS)
        pc__ata_push(a->lba[reg - PC__ATA_LBA], val);
    else if (!(a->device & PC__ATA_DEV1) || val == DIAGNOSTIC)
        pc__ata_command(a, val);
}

VMM_DEF void pc_ata_init(struct pc_ata *a, const struct pc_ata_desc *desc)
{
    memset(a, 0, sizeof *a);
    a->desc = *desc;
    a->heads = PC__ATA_HEADS;
    a->per_track = PC__ATA_PER_TRACK;
    pc__ata_signature(a);
}

VMM_DEF uint64_t pc_ata_command_read(void *ata, uint64_t off, unsigned len)
{
    struct pc_ata *a = (struct pc_ata *)ata;

    if (off == PC__ATA_DATA)
        return pc__ata_data(a, len, false, 0);
    return (vmm_ones(len) & ~(uint64_t)0xff) | pc__ata_get(a, (unsigned)off & 7);
}

VMM_DEF void pc_ata_command_write(void *ata, uint64_t off, unsigned len, uint64_t val)
{
    struct pc_ata *a = (struct pc_ata *)ata;

    if (off == PC__ATA_DATA)
        pc__ata_data(a, len, true, val);
    else
        pc__ata_put(a, (unsigned)off & 7, (uint8_t)val);
}

/* The alternate status does not touch the interrupt. */
VMM_DEF uint64_t pc_ata_control_read(void *ata, uint64_t off, unsigned len)
{
    (void)off;
    return (vmm_ones(len) & ~(uint64_t)0xff) | pc__ata_status((const struct pc_ata *)ata);
}

VMM_DEF void pc_ata_control_write(void *ata, uint64_t off, unsigned len, uint64_t val)
{
    struct pc_ata *a = (struct pc_ata *)ata;
    bool was_reset = a->control & PC__ATA_SRST;

    (void)len;
    if (off)
        return;
    a->control = (uint8_t)val & (PC__ATA_NIEN | PC__ATA_SRST | PC__ATA_HOB);
    if (val & PC__ATA_SRST) {
        a->irq_level = false;
        a->status = PC__ATA_BSY;
        a->pos = a->len = a->left = 0;
    } else if (was_reset) {
        pc__ata_signature(a);
    }
    pc__ata_irq(a, a->irq_level);
}

/* >>power */
enum { PC__SLEEP_ENABLE = 0x20, PC__SLEEP_TYPE = 0x1c, PC__SLEEP_S5 = 5 << 2 };
enum { PC__RESET_NOW = 0x04 };

/* SLP_EN reads as zero by definition, and nothing ever wakes up here: WAK_STS is clear. */
VMM_DEF uint64_t pc_power_sleep_read(void *power, uint64_t off, unsigned len)
{
    (void)power, (void)off, (void)len;
    return 0;
}

VMM_DEF void pc_power_sleep_write(void *power, uint64_t off, unsigned len, uint64_t val)
{
    const struct pc_power *p = (const struct pc_power *)power;

    (void)len; /* the second byte of a wide write would only clear WAK_STS */
    if (!off && (val & PC__SLEEP_ENABLE) && (val & PC__SLEEP_TYPE) == PC__SLEEP_S5 && p->off)
        p->off(p->ctx);
}

VMM_DEF uint64_t pc_power_reset_read(void *power, uint64_t off, unsigned len)
{
    const struct pc_power *p = (const struct pc_power *)power;

    return off ? vmm_ones(len) : (vmm_ones(len) & ~(uint64_t)0xff) | p->reset_control;
}

/* Bit 1 chooses between a reset of the processor and of the whole machine: the same to us. */
VMM_DEF void pc_power_reset_write(void *power, uint64_t off, unsigned len, uint64_t val)
{
    struct pc_power *p = (struct pc_power *)power;
    bool rises = val & ~(uint64_t)p->reset_control & PC__RESET_NOW;

    (void)len;
    if (off)
        return;
    p->reset_control = (uint8_t)val;
    if (rises && p->reset)
        p->reset(p->ctx);
}

/* >>pm. ACPI 6.4, section 4.8.3. */
enum { /* status and enable */
       PC__PM_TIMER = 1 << 0,
       PC__PM_GLOBAL = 1 << 5,
       PC__PM_BUTTON = 1 << 8,
       PC__PM_RTC = 1 << 10,
       PC__PM_EVENTS = PC__PM_TIMER | PC__PM_GLOBAL | PC__PM_BUTTON | PC__PM_RTC
};
enum { /* control; GBL_RLS (bit 2) and SLP_EN are write-only */
       PC__PM_SCI_EN = 1 << 0,
       PC__PM_BM_RLD = 1 << 1,
       PC__PM_SLP_TYP = 7 << 10,
       PC__PM_SLP_EN = 1 << 13
};
enum { PC__PM_HALF = 31 }; /* an overflow is a change of the timer's highest bit */

static uint64_t pc__pm_clock(const struct pc_pm *p)
{
    return pc__clocks(vmm_timer_now(&p->desc.timer), PC_PM_HZ);
}

/* The next overflow matters only while it would interrupt. */
static void pc__pm_update(struct pc_pm *p)
{
    bool level = p->status & p->enable, waits = p->enable & ~p->status & PC__PM_TIMER;
    uint64_t next = ((p->seen >> PC__PM_HALF) + 1) << PC__PM_HALF;

    if (level != p->sci_level)
        vmm_irq_set(&p->desc.sci, level);
    p->sci_level = level;
    vmm_timer_wake(&p->desc.timer, waits ? pc__clocks_ns(next, PC_PM_HZ) : UINT64_MAX);
}

static void pc__pm_catch_up(struct pc_pm *p)
{
    uint64_t clock = pc__pm_clock(p);

    if (clock >> PC__PM_HALF != p->seen >> PC__PM_HALF)
        p->status |= PC__PM_TIMER;
    p->seen = clock;
}

VMM_DEF void pc_pm_init(struct pc_pm *p, const struct pc_pm_desc *desc)
{
    memset(p, 0, sizeof *p);
    p->desc = *desc;
    p->control = PC__PM_SCI_EN;
    p->seen = pc__pm_clock(p);
}

VMM_DEF void pc_pm_tick(struct pc_pm *p)
{
    pc__pm_catch_up(p);
    pc__pm_update(p);
}

VMM_DEF void pc_pm_button(struct pc_pm *p)
{
    p->status |= PC__PM_BUTTON;
    pc_pm_tick(p);
}

/* The timer is read at one moment, whatever the width. */
VMM_DEF uint64_t pc_pm_read(void *pm, uint64_t off, unsigned len)
{
    struct pc_pm *p = (struct pc_pm *)pm;
    uint8_t regs[PC_PM_LEN + 8] = {0};
    uint64_t val = 0;

    pc__pm_catch_up(p);
    vmm_put16(regs, p->status);
    vmm_put16(regs + 2, p->enable);
    vmm_put16(regs + 4, p->control);
    vmm_put32(regs + 8, (uint32_t)p->seen);
    memcpy(&val, regs + (off < PC_PM_LEN ? off : PC_PM_LEN), len);
    return val;
}

/* Status bits are cleared by writing ones. */
static void pc__pm_put(void *pm, unsigned reg, uint8_t val)
{
    struct pc_pm *p = (struct pc_pm *)pm;
    unsigned shift = 8 * (reg & 1), bits = (unsigned)val << shift, others = 0xff00u >> shift;

    if (reg < 2)
        p->status &= (uint16_t)~bits;
    else if (reg < 4)
        p->enable = (uint16_t)((p->enable & others) | (bits & PC__PM_EVENTS));
    else if (reg < 6)
        p->control = (uint16_t)((p->control & (others | PC__PM_SCI_EN)) |
                                (bits & (PC__PM_BM_RLD | PC__PM_SLP_TYP)));
    if (reg < 6 && reg >= 4 && (bits & PC__PM_SLP_EN) && !(bits & PC__PM_SLP_TYP) && p->desc.off)
        p->desc.off(p->desc.ctx);
}

VMM_DEF void pc_pm_write(void *pm, uint64_t off, unsigned len, uint64_t val)
{
    struct pc_pm *p = (struct pc_pm *)pm;

    pc__pm_catch_up(p);
    pc__write_bytes(p, off, len, PC_PM_LEN, val, pc__pm_put);
    pc__pm_update(p);
}

/* >>pvpanic. QEMU's docs/specs/pvpanic: a read tells which events are known; unknown ones are
   ignored. */
VMM_DEF uint64_t pc_pvpanic_read(void *pvpanic, uint64_t off, unsigned len)
{
    (void)pvpanic;
    if (off)
        return vmm_ones(len);
    return (vmm_ones(len) & ~(uint64_t)0xff) | PC_PANIC_DEAD | PC_PANIC_CRASHED;
}

VMM_DEF void pc_pvpanic_write(void *pvpanic, uint64_t off, unsigned len, uint64_t val)
{
    const struct pc_pvpanic *p = (const struct pc_pvpanic *)pvpanic;

    (void)len;
    if (off || !p->event)
        return;
    if (val & PC_PANIC_DEAD)
        p->event(p->ctx, PC_PANIC_DEAD);
    else if (val & PC_PANIC_CRASHED)
        p->event(p->ctx, PC_PANIC_CRASHED);
}

/* >>pic. Names of command words and modes are the data sheet's (8259A). */
enum { PC__ICW1_IC4 = 1, PC__ICW1_SNGL = 2, PC__ICW1 = 0x10 };
enum { PC__ICW4_AEOI = 2, PC__ICW4_SFNM = 0x10 };
enum { PC__OCW3_RIS = 1, PC__OCW3_RR = 2, PC__OCW3_POLL = 4, PC__OCW3 = 8 };
enum { PC__OCW3_SMM = 0x20, PC__OCW3_ESMM = 0x40 };
enum { PC__PIC_CASCADE = 2 }; /* the master's line that is the slave's output */

/* The line of highest priority in a set, -1 if it is empty. */
static int pc__pic_first(const struct pc_pic_chip *c, unsigned lines)
{
    for (unsigned i = 1; i <= 8; i++)
        if (lines >> ((c->lowest + i) % 8) & 1)
            return (int)((c->lowest + i) % 8);
    return -1;
}

/* How far a line is from the highest priority. */
static unsigned pc__pic_rank(const struct pc_pic_chip *c, unsigned line)
{
    return (line + 7u - c->lowest) % 8;
}

/* The line that asks for an interrupt and may have one, or -1. Lines in service hold back those of
   the same and lower priority. In special mask mode only unmasked ones do; in special fully nested
   mode the master lets the slave interrupt itself. */
static int pc__pic_request(const struct pc_pic_chip *c, bool master)
{
    unsigned serving = c->isr;
    int line = pc__pic_first(c, c->irr & ~(unsigned)c->imr), busy;

    if (c->step || line < 0)
        return -1;
    if (c->special_mask)
        serving &= ~(unsigned)c->imr;
    if (master && (c->icw4 & PC__ICW4_SFNM))
        serving &= ~(1u << PC__PIC_CASCADE);
    busy = pc__pic_first(c, serving);
    if (busy >= 0 && pc__pic_rank(c, (unsigned)busy) <= pc__pic_rank(c, (unsigned)line))
        return -1;
    return line;
}

/* After any change: the slave's output is a level at the master, the master's the CPU's. */
static void pc__pic_update(struct pc_pic *p)
{
    struct pc_pic_chip *master = &p->chip[0];
    unsigned cascade = 1u << PC__PIC_CASCADE;
    bool level;

    if (pc__pic_request(&p->chip[1], false) >= 0)
        master->irr |= (uint8_t)cascade;
    else
        master->irr &= (uint8_t)~cascade;
    level = pc__pic_request(master, true) >= 0;
    if (level == p->intr_level)
        return;
    p->intr_level = level;
    vmm_irq_set(&p->intr, level);
}

VMM_DEF void pc_pic_init(struct pc_pic *p, const struct vmm_irq *intr)
{
    memset(p, 0, sizeof *p);
    p->intr = *intr;
    p->chip[0].lowest = p->chip[1].lowest = 7;
    p->chip[0].imr = p->chip[1].imr = 0xff; /* until the guest has said which vectors */
}

VMM_DEF void pc_pic_set(struct pc_pic *p, unsigned line, bool level)
{
    struct pc_pic_chip *c = &p->chip[line >> 3 & 1];
    uint8_t bit = (uint8_t)(1u << (line & 7)), was = c->in & bit;

    c->in = level ? c->in | bit : c->in & (uint8_t)~bit;
    if (level && (!was || (c->elcr & bit)))
        c->irr |= bit;
    else if (!level && (c->elcr & bit))
        c->irr &= (uint8_t)~bit;
    pc__pic_update(p);
}

/* The end of an INTA sequence, and of a poll: the request becomes a service. */
static void pc__pic_serve(struct pc_pic_chip *c, unsigned line)
{
    uint8_t bit = (uint8_t)(1u << line);

    if (!(c->elcr & bit))
        c->irr &= (uint8_t)~bit;
    if (!(c->icw4 & PC__ICW4_AEOI))
        c->isr |= bit;
    else if (c->rotate_aeoi)
        c->lowest = (uint8_t)line;
}

VMM_DEF uint8_t pc_pic_ack(struct pc_pic *p)
{
    struct pc_pic_chip *master = &p->chip[0], *slave = &p->chip[1];
    int line = pc__pic_request(master, true), behind = -1;
    unsigned vector = master->base + (line < 0 ? 7u : (unsigned)line);

    if (line == PC__PIC_CASCADE) {
        behind = pc__pic_request(slave, false);
        vector = slave->base + (behind < 0 ? 7u : (unsigned)behind);
    }
    if (line >= 0)
        pc__pic_serve(master, (unsigned)line);
    if (behind >= 0)
        pc__pic_serve(slave, (unsigned)behind);
    pc__pic_update(p);
    return (uint8_t)vector;
}

/* ICW1 clears everything but the lines; what is level-triggered asks again at once. */
static void pc__pic_icw1(struct pc_pic_chip *c, uint8_t val)
{
    c->irr = c->in & c->elcr;
    c->isr = c->imr = c->icw4 = 0;
    c->lowest = 7;
    c->special_mask = c->rotate_aeoi = c->read_isr = c->poll = false;
    c->icw1 = val;
    c->step = 2;
}

/* End of interrupt and rotation. In special mask mode a non-specific EOI passes over what is masked. */
static void pc__pic_ocw2(struct pc_pic_chip *c, uint8_t val)
{
    enum { ROTATE = 0x80, SPECIFIC = 0x40, EOI = 0x20 };
    unsigned open = c->special_mask ? ~(unsigned)c->imr : ~0u;
    int line = val & SPECIFIC ? val & 7 : pc__pic_first(c, c->isr & open);

    if (!(val & (SPECIFIC | EOI))) {
        c->rotate_aeoi = val & ROTATE;
        return;
    }
    if (line < 0)
        return;
    if (val & EOI)
        c->isr &= (uint8_t) ~(1u << line);
    if (val & ROTATE)
        c->lowest = (uint8_t)line;
}

static void pc__pic_ocw3(struct pc_pic_chip *c, uint8_t val)
{
    c->poll = val & PC__OCW3_POLL;
    if (val & PC__OCW3_RR)
        c->read_isr = val & PC__OCW3_RIS;
    if (val & PC__OCW3_ESMM)
        c->special_mask = val & PC__OCW3_SMM;
}

/* The odd port: the rest of an initialisation that is under way, else the masks. */
static void pc__pic_odd(struct pc_pic_chip *c, uint8_t val)
{
    bool more = c->icw1 & PC__ICW1_IC4;

    switch (c->step) {
    case 2:
        c->base = val & 0xf8;
        c->step = !(c->icw1 & PC__ICW1_SNGL) ? 3 : more ? 4 : 0;
        break;
    case 3: /* who is where: on a PC that is soldered */
        c->step = more ? 4 : 0;
        break;
    case 4:
        c->icw4 = val;
        c->step = 0;
        break;
    default:
        c->imr = val;
        break;
    }
}

static void pc__pic_put(struct pc_pic *p, struct pc_pic_chip *c, unsigned reg, uint8_t val)
{
    if (reg)
        pc__pic_odd(c, val);
    else if (val & PC__ICW1)
        pc__pic_icw1(c, val);
    else if (val & PC__OCW3)
        pc__pic_ocw3(c, val);
    else
        pc__pic_ocw2(c, val);
    pc__pic_update(p);
}

/* The read after a poll command is an acknowledge that says which line, if any, in place of a
   vector. */
static uint8_t pc__pic_get(struct pc_pic *p, struct pc_pic_chip *c, unsigned reg)
{
    int line;

    if (!c->poll)
        return reg ? c->imr : c->read_isr ? c->isr : c->irr;
    c->poll = false;
    line = pc__pic_request(c, c == &p->chip[0]);
    if (line < 0)
        return 0;
    pc__pic_serve(c, (unsigned)line);
    pc__pic_update(p);
    return (uint8_t)(0x80 | line);
}

static uint8_t pc__pic_master_get(void *pic, unsigned reg)
{
    return pc__pic_get((struct pc_pic *)pic, &((struct pc_pic *)pic)->chip[0], reg);
}

static uint8_t pc__pic_slave_get(void *pic, unsigned reg)
{
    return pc__pic_get((struct pc_pic *)pic, &((struct pc_pic *)pic)->chip[1], reg);
}

static uint8_t pc__pic_elcr_get(void *pic, unsigned reg)
{
    return ((struct pc_pic *)pic)->chip[reg].elcr;
}

static void pc__pic_master_put(void *pic, unsigned reg, uint8_t val)
{
    pc__pic_put((struct pc_pic *)pic, &((struct pc_pic *)pic)->chip[0], reg, val);
}

static void pc__pic_slave_put(void *pic, unsigned reg, uint8_t val)
{
    pc__pic_put((struct pc_pic *)pic, &((struct pc_pic *)pic)->chip[1], reg, val);
}

/* Lines 0, 1, 2, 8 and 13 are edge-triggered on every PC. */
static void pc__pic_elcr_put(void *pic, unsigned reg, uint8_t val)
{
    struct pc_pic *p = (struct pc_pic *)pic;
    struct pc_pic_chip *c = &p->chip[reg];
    uint8_t was = c->elcr;

    c->elcr = val & (reg ? 0xde : 0xf8);
    c->irr &= (uint8_t) ~(was ^ c->elcr);
    c->irr |= c->in & c->elcr;
    pc__pic_update(p);
}

VMM_DEF uint64_t pc_pic_master_read(void *pic, uint64_t off, unsigned len)
{
    return pc__read_bytes(pic, off, len, 2, pc__pic_master_get);
}

VMM_DEF void pc_pic_master_write(void *pic, uint64_t off, unsigned len, uint64_t val)
{
    pc__write_bytes(pic, off, len, 2, val, pc__pic_master_put);
}

VMM_DEF uint64_t pc_pic_slave_read(void *pic, uint64_t off, unsigned len)
{
    return pc__read_bytes(pic, off, len, 2, pc__pic_slave_get);
}

VMM_DEF void pc_pic_slave_write(void *pic, uint64_t off, unsigned len, uint64_t val)
{
    pc__write_bytes(pic, off, len, 2, val, pc__pic_slave_put);
}

VMM_DEF uint64_t pc_pic_elcr_read(void *pic, uint64_t off, unsigned len)
{
    return pc__read_bytes(pic, off, len, 2, pc__pic_elcr_get);
}

VMM_DEF void pc_pic_elcr_write(void *pic, uint64_t off, unsigned len, uint64_t val)
{
    pc__write_bytes(pic, off, len, 2, val, pc__pic_elcr_put);
}

/* >>pit. All arithmetic is in clocks since the owner's time zero; a channel is a start and a count,
   and everything else follows from what time it is. Modes are the data sheet's (8254). */
enum {
    PC__PIT_COUNT_END,  /* 0: output rises after N clocks */
    PC__PIT_ONE_SHOT,   /* 1: the gate starts a low pulse of N clocks */
    PC__PIT_RATE,       /* 2: low for the last of every N clocks */
    PC__PIT_SQUARE,     /* 3: high for one half of every N clocks, low for the other */
    PC__PIT_STROBE,     /* 4: low for one clock after N */
    PC__PIT_GATE_STROBE /* 5: the same, started by the gate */
};
#define PC__PIT_CATCH_UP 4096 /* rises that are remembered */
#define PC__PIT_REST     240  /* clocks, 200 us: rises that come faster are told in bunches */

static uint64_t pc__pit_now(const struct pc_pit *p)
{
    return pc__clocks(vmm_timer_now(&p->desc.timer), PC_PIT_HZ);
}

/* Modes 6 and 7 are 2 and 3. */
static unsigned pc__pit_mode(const struct pc_pit_channel *c)
{
    unsigned mode = c->control >> 1 & 7;

    return mode > 5 ? mode - 4 : mode;
}

static bool pc__pit_repeats(const struct pc_pit_channel *c)
{
    return pc__pit_mode(c) == PC__PIT_RATE || pc__pit_mode(c) == PC__PIT_SQUARE;
}

static bool pc__pit_gate_starts(const struct pc_pit_channel *c)
{
    return pc__pit_mode(c) == PC__PIT_ONE_SHOT || pc__pit_mode(c) == PC__PIT_GATE_STROBE;
}

/* Clocks that were counted since the count was loaded. */
static uint64_t pc__pit_elapsed(const struct pc_pit_channel *c, uint64_t clock)
{
    if (c->paused)
        return c->held;
    return clock > c->start ? clock - c->start : 0;
}

/* The high part of a square wave; the low one is the rest, a clock less when N is odd. */
static uint64_t pc__pit_high(uint32_t count)
{
    return (count + 1u) / 2;
}

static bool pc__pit_out(const struct pc_pit_channel *c, uint64_t clock)
{
    uint64_t done = pc__pit_elapsed(c, clock), n = c->count;
    unsigned mode = pc__pit_mode(c);

    if (!c->counting)
        return mode != PC__PIT_COUNT_END;
    switch (mode) {
    case PC__PIT_COUNT_END:
        return done >= n;
    case PC__PIT_ONE_SHOT:
        return clock < c->start || done >= n;
    case PC__PIT_RATE:
        return c->paused || done % n != n - 1;
    case PC__PIT_SQUARE:
        return c->paused || done % n < pc__pit_high(c->count);
    default:
        return done != n;
    }
}

/* What the counting element holds, binary; it wraps around where a mode does not reload it. */
static uint64_t pc__pit_value(const struct pc_pit_channel *c, uint64_t clock)
{
    uint64_t done = pc__pit_elapsed(c, clock), n = c->count, high = pc__pit_high(c->count);
    uint64_t around = c->control & 1 ? 10000 : 65536;

    if (!n)
        return 0;
    if (pc__pit_mode(c) == PC__PIT_RATE)
        return n - done % n;
    if (pc__pit_mode(c) == PC__PIT_SQUARE) /* by twos, from the even number below */
        return (n & ~(uint64_t)1) - 2 * (done % n < high ? done % n : done % n - high);
    return (n + around - done % around) % around;
}

static uint16_t pc__pit_visible(const struct pc_pit_channel *c, uint64_t clock)
{
    uint64_t v = pc__pit_value(c, clock);

    if (c->control & 1)
        v = v / 1000 % 10 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10;
    return (uint16_t)v;
}

static void pc__pit_load(struct pc_pit_channel *c, uint32_t count, uint64_t clock)
{
    c->count = count;
    c->next = 0;
    c->held = 0;
    c->start = clock;
    c->counting = true;
}

/* A new count in modes 2 and 3 waits for the end of the (half) period that it is written in; in
   the middle of a square wave the low half of the new one follows. */
static void pc__pit_switch(struct pc_pit_channel *c, uint64_t clock)
{
    uint64_t into, back = 0;

    if (!c->next || c->paused || clock < c->switch_at || !pc__pit_repeats(c))
        return;
    into = (c->switch_at - c->start) % c->count;
    if (into)
        back = pc__pit_high(c->next);
    pc__pit_load(c, c->next, c->switch_at - back);
}

static void pc__pit_plan_switch(struct pc_pit_channel *c, uint32_t count, uint64_t clock)
{
    uint64_t done = pc__pit_elapsed(c, clock), into = done % c->count, high;

    high = pc__pit_mode(c) == PC__PIT_SQUARE ? pc__pit_high(c->count) : c->count;
    c->next = count;
    c->switch_at = c->start + done - into + (into < high ? high : c->count);
}

/* Rises of the output after clock `from` until `to`. Those that a control word itself makes are
   not counted. */
static uint64_t pc__pit_rises(const struct pc_pit_channel *c, uint64_t from, uint64_t to)
{
    uint64_t once = c->start + c->count + (pc__pit_mode(c) == PC__PIT_STROBE);

    if (!c->counting || c->paused || pc__pit_gate_starts(c) || to < c->start)
        return 0;
    if (!pc__pit_repeats(c))
        return from < once && once <= to;
    from = from > c->start ? from : c->start;
    return to < from ? 0 : (to - c->start) / c->count - (from - c->start) / c->count;
}

/* The clock of the first rise after `clock`; UINT64_MAX: there is none. */
static uint64_t pc__pit_next_rise(const struct pc_pit_channel *c, uint64_t clock)
{
    uint64_t once = c->start + c->count + (pc__pit_mode(c) == PC__PIT_STROBE);

    if (!c->counting || c->paused || pc__pit_gate_starts(c))
        return UINT64_MAX;
    if (!pc__pit_repeats(c))
        return once > clock ? once : UINT64_MAX;
    return c->start + (pc__pit_elapsed(c, clock) / c->count + 1) * c->count;
}

/* Brings channels up to date. Channel 0 first counts its rises with the old count. */
static uint64_t pc__pit_settle(struct pc_pit *p)
{
    struct pc_pit_channel *c = &p->channel[0];
    uint64_t clock = pc__pit_now(p), until = clock;

    if (c->next && c->switch_at <= clock) {
        until = c->switch_at;
        p->owed += pc__pit_rises(c, p->seen, until);
        p->seen = until;
    }
    for (unsigned i = 0; i < 3; i++)
        pc__pit_switch(&p->channel[i], clock);
    p->owed += pc__pit_rises(c, p->seen, clock);
    p->seen = clock;
    if (p->owed > PC__PIT_CATCH_UP)
        p->owed = PC__PIT_CATCH_UP;
    return clock;
}

static void pc__pit_arm(struct pc_pit *p, uint64_t clock)
{
    const struct pc_pit_channel *c = &p->channel[0];
    uint64_t next = pc__pit_next_rise(c, clock);

    if (!p->desc.rise)
        return;
    if (pc__pit_repeats(c) && c->count < PC__PIT_REST)
        next += next < UINT64_MAX ? PC__PIT_REST : 0;
    vmm_timer_wake(&p->desc.timer, next == UINT64_MAX ? next : pc__clocks_ns(next, PC_PIT_HZ));
}

VMM_DEF void pc_pit_tick(struct pc_pit *p)
{
    uint64_t clock = pc__pit_settle(p);

    while (p->owed && (!p->desc.rise || p->desc.rise(p->desc.ctx)))
        p->owed--;
    pc__pit_arm(p, clock);
}

VMM_DEF void pc_pit_init(struct pc_pit *p, const struct pc_pit_desc *desc)
{
    memset(p, 0, sizeof *p);
    p->desc = *desc;
    for (unsigned i = 0; i < 3; i++)
        p->channel[i].gate = i < 2; /* of channel 2 it is bit 0 of port 0x61 */
    p->seen = pc__pit_now(p);
}

/* A whole count is written: modes decide when it counts. */
static void pc__pit_set_count(struct pc_pit_channel *c, int raw, uint64_t clock)
{
    uint32_t n = (uint32_t)raw;

    if (c->control & 1)
        n = (n >> 12) * 1000 + (n >> 8 & 15) * 100 + (n >> 4 & 15) * 10 + (n & 15);
    if (!n)
        n = c->control & 1 ? 10000 : 65536;
    if (pc__pit_gate_starts(c))
        c->next = n;
    else if (pc__pit_repeats(c) && c->counting && c->paused)
        c->next = n;
    else if (pc__pit_repeats(c) && c->counting)
        pc__pit_plan_switch(c, n, clock);
    else {
        pc__pit_load(c, n, clock + 1); /* with the next clock */
        c->paused = !c->gate;
    }
}

/* Bits 4 and 5 of the control word: low byte, high byte, or one after the other. Mode 0 stands still
   between the two. */
static void pc__pit_put_count(struct pc_pit_channel *c, uint8_t val, uint64_t clock)
{
    unsigned access = c->control >> 4 & 3;

    if (access == 3 && !c->write_high) {
        c->low = val;
        c->write_high = true;
        if (pc__pit_mode(c) == PC__PIT_COUNT_END)
            c->counting = false;
        return;
    }
    c->write_high = false;
    pc__pit_set_count(c, access == 3 ? val << 8 | c->low : access == 2 ? val << 8 : val, clock);
}

static void pc__pit_latch(struct pc_pit_channel *c, uint64_t clock)
{
    if (c->nlatched)
        return;
    c->latch = pc__pit_visible(c, clock);
    c->nlatched = (c->control >> 4 & 3) == 3 ? 2 : 1;
    c->read_high = (c->control >> 4 & 3) == 2;
}

/* Bit 6: the count that was written is not what counts yet. */
static void pc__pit_latch_status(struct pc_pit_channel *c, uint64_t clock)
{
    bool null = !c->counting || c->next || clock < c->start;

    if (c->status_latched)
        return;
    c->status = (uint8_t)(c->control | (null ? 0x40 : 0) | (pc__pit_out(c, clock) ? 0x80 : 0));
    c->status_latched = true;
}

static void pc__pit_read_back(struct pc_pit *p, uint8_t val, uint64_t clock)
{
    for (unsigned i = 0; i < 3; i++) {
        if (!(val >> (i + 1) & 1))
            continue;
        if (!(val & 0x20))
            pc__pit_latch(&p->channel[i], clock);
        if (!(val & 0x10))
            pc__pit_latch_status(&p->channel[i], clock);
    }
}

static void pc__pit_control(struct pc_pit *p, uint8_t val, uint64_t clock)
{
    struct pc_pit_channel *c;

    if (val >> 6 == 3) {
        pc__pit_read_back(p, val, clock);
        return;
    }
    c = &p->channel[val >> 6];
    if (!(val & 0x30)) {
        pc__pit_latch(c, clock);
        return;
    }
    c->control = val & 0x3f;
    c->counting = c->paused = c->write_high = c->read_high = c->status_latched = false;
    c->nlatched = 0;
    c->count = c->next = 0;
}

static uint8_t pc__pit_get(void *pit, unsigned reg)
{
    struct pc_pit *p = (struct pc_pit *)pit;
    struct pc_pit_channel *c = &p->channel[reg % 3];
    uint64_t clock = pc__pit_settle(p);
    uint16_t v;
    bool high;

    if (reg == 3)
        return 0xff; /* the control register cannot be read */
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    v = c->nlatched ? c->latch : pc__pit_visible(c, clock);
    c->nlatched -= c->nlatched > 0;
    high = (c->control >> 4 & 3) == 2 || c->read_high;
    c->read_high = (c->control >> 4 & 3) == 3 && !c->read_high;
    return (uint8_t)(high ? v >> 8 : v);
}

static void pc__pit_put(void *pit, unsigned reg, uint8_t val)
{
    struct pc_pit *p = (struct pc_pit *)pit;
    uint64_t clock = pc__pit_settle(p);

    if (reg == 3)
        pc__pit_control(p, val, clock);
    else
        pc__pit_put_count(&p->channel[reg], val, clock);
}

VMM_DEF uint64_t pc_pit_read(void *pit, uint64_t off, unsigned len)
{
    return pc__read_bytes(pit, off, len, 4, pc__pit_get);
}

VMM_DEF void pc_pit_write(void *pit, uint64_t off, unsigned len, uint64_t val)
{
    pc__write_bytes(pit, off, len, 4, val, pc__pit_put);
    pc_pit_tick((struct pc_pit *)pit);
}

/* The gate pauses modes 0 and 4, stops modes 2 and 3 and starts them anew, and triggers 1 and 5. */
static void pc__pit_set_gate(struct pc_pit_channel *c, bool gate, uint64_t clock)
{
    bool rises = gate && !c->gate, falls = !gate && c->gate;

    c->gate = gate;
    if (pc__pit_gate_starts(c)) {
        if (rises && (c->next || c->count))
            pc__pit_load(c, c->next ? c->next : c->count, clock + 1);
    } else if (c->counting && falls) {
        c->held = pc__pit_elapsed(c, clock);
        c->paused = true;
    } else if (c->counting && rises) {
        c->paused = false;
        c->start = clock - c->held;
        if (pc__pit_repeats(c))
            pc__pit_load(c, c->next ? c->next : c->count, clock + 1);
    }
}

/* Bit 4 toggles with each refresh of memory, every 15 us; bit 5 is the output of channel 2. */
VMM_DEF uint64_t pc_pit_gate_read(void *pit, uint64_t off, unsigned len)
{
    struct pc_pit *p = (struct pc_pit *)pit;
    uint64_t clock = pc__pit_settle(p);
    unsigned val = p->port61 | (unsigned)(clock / 18 & 1) << 4 |
                   (unsigned)pc__pit_out(&p->channel[2], clock) << 5;

    return off ? vmm_ones(len) : (vmm_ones(len) & ~(uint64_t)0xff) | val;
}

VMM_DEF void pc_pit_gate_write(void *pit, uint64_t off, unsigned len, uint64_t val)
{
    struct pc_pit *p = (struct pc_pit *)pit;

    (void)len;
    if (off)
        return;
    p->port61 = val & 3;
    pc__pit_set_gate(&p->channel[2], val & 1, pc__pit_settle(p));
}

/* >>apic: Intel's SDM volume 3, "Message Signalled Interrupts": the write that stands for an
   interrupt. */
enum { PC__MSI_LOWEST = 8, PC__MSI_LOGICAL = 4 }; /* of the address: redirection hint, mode */
#define PC__MSI_BASE 0xfee00000u

/* A destination is 8 bits; 255 is everybody. */
VMM_DEF bool pc_apic_from_msi(struct pc_apic_msg *m, uint64_t addr, uint32_t data)
{
    uint32_t dest = addr >> 12 & 0xff;

    memset(m, 0, sizeof *m);
    if (addr >> 20 != PC__MSI_BASE >> 20)
        return false;
    m->logical = addr & PC__MSI_LOGICAL;
    m->dest = dest == 0xff ? PC_APIC_ALL : dest;
    m->mode = data >> 8 & 7;
    m->lowest = m->mode == PC_APIC_LOWEST || (addr & PC__MSI_LOWEST);
    m->vector = (uint8_t)data;
    m->level = data >> 15 & 1;
    m->deassert = m->level && !(data >> 14 & 1);
    return true;
}

/* >>ioapic: 82093AA, section 3.2; the EOI register as in the ICH's. */
#define PC__RTE_LOGICAL 0x800u
#define PC__RTE_REMOTE  0x4000u /* sent, and not yet finished by the CPU */
#define PC__RTE_LEVEL   0x8000u
#define PC__RTE_MASKED  0x10000u
#define PC__RTE_WRITE   0xff0000000001afffull

static uint64_t pc__rte_addr(uint64_t rte)
{
    return PC__MSI_BASE | (rte >> 56) << 12 | (rte & PC__RTE_LOGICAL ? PC__MSI_LOGICAL : 0);
}

/* Only fixed interrupts (of one or of the least busy CPU) end, so that others are edges whatever the
   entry says. */
static bool pc__rte_is_level(uint64_t rte)
{
    return (rte & PC__RTE_LEVEL) && (rte >> 8 & 7) <= PC_APIC_LOWEST;
}

static uint32_t pc__rte_data(uint64_t rte)
{
    return (uint32_t)(rte & 0x7ff) | (pc__rte_is_level(rte) ? 0xc000 : 0);
}

/* Sends what a pin stands for. A level-triggered one that was taken waits for its end before it sends
   again; remote IRR is set before, for the end may come at once. */
static bool pc__ioapic_fire(struct pc_ioapic *a, unsigned pin)
{
    uint64_t *rte = &a->pin[pin];
    bool level = pc__rte_is_level(*rte);
    enum pc_taken taken;

    a->unheard &= ~(1u << pin);
    if (*rte & (PC__RTE_MASKED | PC__RTE_REMOTE))
        return true;
    if (level)
        *rte |= PC__RTE_REMOTE;
    taken = a->desc.send(a->desc.ctx, pin, pc__rte_addr(*rte), pc__rte_data(*rte));
    if (level && taken == PC_NOBODY) {
        *rte &= ~(uint64_t)PC__RTE_REMOTE;
        a->unheard |= 1u << pin;
    }
    return taken != PC_MERGED;
}

VMM_DEF void pc_ioapic_retry(struct pc_ioapic *a)
{
    uint32_t pins = a->unheard & a->in;

    a->unheard = 0;
    for (unsigned i = 0; pins >> i; i++)
        if (pins >> i & 1)
            pc__ioapic_fire(a, i);
}

VMM_DEF void pc_ioapic_init(struct pc_ioapic *a, const struct pc_ioapic_desc *desc)
{
    memset(a, 0, sizeof *a);
    a->desc = *desc;
    for (unsigned i = 0; i < PC_IOAPIC_PINS; i++)
        a->pin[i] = PC__RTE_MASKED;
}

/* An edge at a masked pin is lost, as on the chip. */
VMM_DEF bool pc_ioapic_set(struct pc_ioapic *a, unsigned pin, bool level)
{
    uint32_t bit = 1u << pin, was = a->in & bit;

    a->in = level ? a->in | bit : a->in & ~bit;
    if (!level || (was && !pc__rte_is_level(a->pin[pin])))
        return true;
    return pc__ioapic_fire(a, pin);
}

VMM_DEF void pc_ioapic_eoi(struct pc_ioapic *a, uint8_t vector)
{
    for (unsigned i = 0; i < PC_IOAPIC_PINS; i++) {
        if (!(a->pin[i] & PC__RTE_REMOTE) || (uint8_t)a->pin[i] != vector)
            continue;
        a->pin[i] &= ~(uint64_t)PC__RTE_REMOTE;
        if (a->in >> i & 1)
            pc__ioapic_fire(a, i);
    }
}

/* Half of a redirection entry. Turning a pin to edges ends the wait for an EOI. */
static void pc__ioapic_set_entry(struct pc_ioapic *a, unsigned pin, bool high, uint32_t val)
{
    uint64_t *rte = &a->pin[pin], mask = high ? 0xffffffff00000000 : 0xffffffff;

    mask &= PC__RTE_WRITE;
    *rte = (*rte & ~mask) | ((uint64_t)val << (high ? 32 : 0) & mask);
    if (!pc__rte_is_level(*rte))
        *rte &= ~(uint64_t)PC__RTE_REMOTE;
    if (a->desc.route)
        a->desc.route(a->desc.ctx, pin, pc__rte_addr(*rte), pc__rte_data(*rte));
    if (pc__rte_is_level(*rte) && (a->in >> pin & 1))
        pc__ioapic_fire(a, pin);
}

static uint32_t pc__ioapic_get(const struct pc_ioapic *a)
{
    unsigned entry = a->index - 0x10u;

    if (a->index == 0 || a->index == 2) /* the arbitration id follows the id */
        return (uint32_t)a->id << 24;
    if (a->index == 1)
        return (PC_IOAPIC_PINS - 1) << 16 | 0x20;
    if (a->index < 0x10 || entry / 2 >= PC_IOAPIC_PINS)
        return 0xffffffff;
    return (uint32_t)(a->pin[entry / 2] >> (entry % 2 ? 32 : 0));
}

/* Registers are 32 bits, 16 bytes apart: the index, the window, the EOI register. */
VMM_DEF uint64_t pc_ioapic_read(void *ioapic, uint64_t off, unsigned len)
{
    const struct pc_ioapic *a = (const struct pc_ioapic *)ioapic;
    uint64_t val = vmm_ones(8);

    if (off / 4 == 0)
        val = a->index;
    else if (off / 4 == 0x10 / 4)
        val = pc__ioapic_get(a);
    return val >> (8 * (off & 3)) & vmm_ones(len);
}

VMM_DEF void pc_ioapic_write(void *ioapic, uint64_t off, unsigned len, uint64_t val)
{
    struct pc_ioapic *a = (struct pc_ioapic *)ioapic;
    unsigned entry = a->index - 0x10u;

    if (off == 0)
        a->index = (uint8_t)val;
    else if (off == 0x40)
        pc_ioapic_eoi(a, (uint8_t)val);
    if (off != 0x10 || len < 4)
        return;
    if (a->index == 0)
        a->id = val >> 24 & 15;
    else if (a->index >= 0x10 && entry / 2 < PC_IOAPIC_PINS)
        pc__ioapic_set_entry(a, entry / 2, entry % 2, (uint32_t)val);
}

/* >>lapic: Intel's SDM volume 3, the chapter on the APIC. Registers are numbered as the MSRs of
   x2APIC mode: the offset in the page divided by 16. */
enum {
    PC__LAPIC_ID = 0x02,
    PC__LAPIC_VERSION = 0x03,
    PC__LAPIC_TPR = 0x08,
    PC__LAPIC_APR = 0x09,
    PC__LAPIC_PPR = 0x0a,
    PC__LAPIC_EOI = 0x0b,
    PC__LAPIC_LDR = 0x0d,
    PC__LAPIC_DFR = 0x0e,
    PC__LAPIC_SVR = 0x0f,
    PC__LAPIC_ISR = 0x10,
    PC__LAPIC_TMR = 0x18,
    PC__LAPIC_IRR = 0x20,
    PC__LAPIC_ESR = 0x28,
    PC__LAPIC_ICR = 0x30,
    PC__LAPIC_ICR2 = 0x31,
    PC__LAPIC_LVT = 0x32, /* timer, thermal, performance, LINT0, LINT1, error */
    PC__LAPIC_INITIAL = 0x38,
    PC__LAPIC_CURRENT = 0x39,
    PC__LAPIC_DIVIDE = 0x3e,
    PC__LAPIC_SELF = 0x3f
};
enum { PC__LVT_TIMER, PC__LVT_LINT0 = 3, PC__LVT_LINT1, PC__LVT_ERROR, PC__NLVT };
#define PC__LVT_MASKED     0x10000u
#define PC__SVR_ENABLED    0x100u
#define PC__SVR_DIRECT     0x1000u /* no broadcast of EOIs: the guest tells the IOAPIC itself */
#define PC__BASE_ENABLED   0x800u
#define PC__BASE_X2        0x400u
#define PC__BASE_BSP       0x100u
#define PC__TIMER_PERIODIC 0x20000u
#define PC__TIMER_DEADLINE 0x40000u
#define PC__TIMER_MODE     0x60000u
enum { PC__ESR_SEND = 0x20, PC__ESR_RECEIVE = 0x40, PC__ESR_REGISTER = 0x80 };
enum { PC__X2_MSR = 0x800, PC__BASE_MSR = 0x1b, PC__DEADLINE_MSR = 0x6e0 };
#define PC__LAPIC_CATCH_UP 4096   /* timer interrupts that are remembered */
#define PC__LAPIC_REST     200000 /* ns; a periodic timer is never faster */

/* What may be done to a register: in both modes, or only in xAPIC (X) or x2APIC (2) mode. */
enum { PC__R = 1, PC__W = 2, PC__XR = 4, PC__XW = 8, PC__2W = 16 };
#define PC__RW (PC__R | PC__W)
static const uint8_t pc__lapic_access[64] = {
    [PC__LAPIC_ID] = PC__R,
    [PC__LAPIC_VERSION] = PC__R,
    [PC__LAPIC_TPR] = PC__RW,
    [PC__LAPIC_APR] = PC__XR,
    [PC__LAPIC_PPR] = PC__R,
    [PC__LAPIC_EOI] = PC__W,
    [PC__LAPIC_LDR] = PC__R | PC__XW,
    [PC__LAPIC_DFR] = PC__XR | PC__XW,
    [PC__LAPIC_SVR] = PC__RW,
    [PC__LAPIC_ISR] = PC__R,
    PC__R,
    PC__R,
    PC__R,
    PC__R,
    PC__R,
    PC__R,
    PC__R,
    [PC__LAPIC_TMR] = PC__R,
    PC__R,
    PC__R,
    PC__R,
    PC__R,
    PC__R,
    PC__R,
    PC__R,
    [PC__LAPIC_IRR] = PC__R,
    PC__R,
    PC__R,
    PC__R,
    PC__R,
    PC__R,
    PC__R,
    PC__R,
    [PC__LAPIC_ESR] = PC__RW,
    [PC__LAPIC_ICR] = PC__RW,
    PC__XR | PC__XW,
    [PC__LAPIC_LVT] = PC__RW,
    PC__RW,
    PC__RW,
    PC__RW,
    PC__RW,
    PC__RW,
    [PC__LAPIC_INITIAL] = PC__RW,
    PC__R,
    [PC__LAPIC_DIVIDE] = PC__RW,
    PC__2W,
};
/* The bits that the entries of the local vector table have. */
static const uint32_t pc__lvt_bits[PC__NLVT] = {0x710ff, 0x107ff, 0x107ff,
                                                0x1a7ff, 0x1a7ff, 0x100ff};

static bool pc__lapic_x2(const struct pc_lapic *l)
{
    return l->base & PC__BASE_X2;
}

static bool pc__lapic_enabled(const struct pc_lapic *l)
{
    return (l->base & PC__BASE_ENABLED) && (l->svr & PC__SVR_ENABLED);
}

/* The highest vector in a set of 256, -1 if it is empty. */
static int pc__vector_highest(const uint32_t set[8])
{
    for (int i = 7; i >= 0; i--)
        for (int bit = 31; set[i] && bit >= 0; bit--)
            if (set[i] >> bit & 1)
                return i * 32 + bit;
    return -1;
}

static bool pc__vector_has(const uint32_t set[8], unsigned vector)
{
    return set[vector / 32] >> vector % 32 & 1;
}

static void pc__vector_put(uint32_t set[8], unsigned vector, bool in)
{
    uint32_t bit = 1u << vector % 32;

    set[vector / 32] = in ? set[vector / 32] | bit : set[vector / 32] & ~bit;
}

/* The priority of what the CPU does: the task's, or that of the interrupt in service. */
static unsigned pc__lapic_ppr(const struct pc_lapic *l)
{
    int serving = pc__vector_highest(l->isr);

    if (serving >= 0 && serving >> 4 > l->tpr >> 4)
        return (unsigned)serving & 0xf0;
    return l->tpr;
}

VMM_DEF int pc_lapic_pending(const struct pc_lapic *l)
{
    int vector = pc__lapic_enabled(l) ? pc__vector_highest(l->irr) : -1;

    return vector >= 0 && (unsigned)vector >> 4 > pc__lapic_ppr(l) >> 4 ? vector : -1;
}

/* A LAPIC that is switched off passes the 8259s' line on. */
VMM_DEF bool pc_lapic_extint(const struct pc_lapic *l)
{
    uint32_t lvt = l->lvt[PC__LVT_LINT0];

    if (!(l->base & PC__BASE_ENABLED))
        return l->lint[0] && (l->base & PC__BASE_BSP);
    return l->lint[0] && !(lvt & PC__LVT_MASKED) && (lvt >> 8 & 7) == PC_APIC_EXTINT;
}

static enum pc_taken pc__lapic_request(struct pc_lapic *l, uint8_t vector, bool level);

/* Errors come as an interrupt of their own, if the guest wants that. */
static void pc__lapic_error(struct pc_lapic *l, uint8_t bit)
{
    uint32_t lvt = l->lvt[PC__LVT_ERROR];

    l->errors |= bit;
    if (!(lvt & PC__LVT_MASKED) && (uint8_t)lvt >= 16)
        pc__lapic_request(l, (uint8_t)lvt, false);
}

/* A fixed interrupt comes in. Vectors below 16 are the CPU's own. */
static enum pc_taken pc__lapic_request(struct pc_lapic *l, uint8_t vector, bool level)
{
    bool news;

    if (!pc__lapic_enabled(l))
        return PC_NOBODY;
    if (vector < 16) {
        pc__lapic_error(l, PC__ESR_RECEIVE);
        return PC_NOBODY;
    }
    news = !pc__vector_has(l->irr, vector);
    pc__vector_put(l->irr, vector, true);
    pc__vector_put(l->tmr, vector, level);
    return news ? PC_TAKEN : PC_MERGED;
}

/* INIT leaves the LAPIC as a reset does, but for its id, address and mode. */
static void pc__lapic_reset(struct pc_lapic *l)
{
    memset(l->irr, 0, sizeof l->irr);
    memset(l->isr, 0, sizeof l->isr);
    memset(l->tmr, 0, sizeof l->tmr);
    l->ldr = l->icr = l->icr_dest = l->initial = 0;
    l->dfr = 0xffffffff;
    l->svr = 0xff;
    l->tpr = l->divide = l->esr = l->errors = 0;
    for (unsigned i = 0; i < PC__NLVT; i++)
        l->lvt[i] = PC__LVT_MASKED;
    l->fire_at = UINT64_MAX;
    l->deadline = l->owed = 0;
    l->nmi = l->startup = false;
    vmm_timer_wake(&l->desc.timer, UINT64_MAX);
}

VMM_DEF void pc_lapic_init(struct pc_lapic *l, const struct pc_lapic_desc *desc)
{
    memset(l, 0, sizeof *l);
    l->desc = *desc;
    l->base = PC__MSI_BASE | PC__BASE_ENABLED | (desc->id ? 0 : PC__BASE_BSP);
    pc__lapic_reset(l);
    if (desc->id)
        l->waits = true;
    else
        l->lvt[PC__LVT_LINT0] = PC_APIC_EXTINT << 8;
}

/* The logical id that x2APIC mode derives from the id: 16 to a cluster, one bit each. */
static uint32_t pc__lapic_ldr(const struct pc_lapic *l)
{
    if (pc__lapic_x2(l))
        return l->desc.id >> 4 << 16 | 1u << (l->desc.id & 15);
    return l->ldr;
}

/* Flat: a bit each. Cluster: the upper four bits choose one (15: all), the lower are a bit each. */
VMM_DEF bool pc_lapic_matches(const struct pc_lapic *l, const struct pc_apic_msg *m)
{
    uint32_t ldr = pc__lapic_ldr(l);

    if (!(l->base & PC__BASE_ENABLED))
        return false;
    if (m->dest == PC_APIC_ALL)
        return true;
    if (!m->logical)
        return m->dest == l->desc.id;
    if (pc__lapic_x2(l))
        return m->dest >> 16 == ldr >> 16 && (m->dest & ldr & 0xffff);
    if (m->dest > 0xff)
        return false;
    if (l->dfr >> 28 == 15)
        return m->dest & ldr >> 24;
    return (m->dest >> 4 == ldr >> 28 || m->dest >> 4 == 15) && (m->dest & ldr >> 24 & 15);
}

/* After an INIT the bootstrap CPU starts at the reset vector, the others wait (SDM 3A, 8.4.2). */
static void pc__lapic_reinit(struct pc_lapic *l)
{
    pc__lapic_reset(l);
    l->init = true;
    l->waits = !(l->base & PC__BASE_BSP);
}

VMM_DEF enum pc_taken pc_lapic_accept(struct pc_lapic *l, const struct pc_apic_msg *m)
{
    switch (m->mode) {
    case PC_APIC_FIXED:
    case PC_APIC_LOWEST:
        return pc__lapic_request(l, m->vector, m->level);
    case PC_APIC_NMI:
        l->nmi = true;
        return PC_TAKEN;
    case PC_APIC_INIT:
        if (!m->deassert)
            pc__lapic_reinit(l);
        return PC_TAKEN;
    case PC_APIC_STARTUP: /* the first one after INIT counts */
        if (l->waits && !l->startup)
            l->page = m->vector;
        l->startup = l->waits;
        return PC_TAKEN;
    default: /* there is no system management mode, and ExtINT comes by LINT0 */
        return PC_TAKEN;
    }
}

VMM_DEF void pc_lapic_lint(struct pc_lapic *l, unsigned pin, bool level)
{
    uint32_t lvt = l->lvt[PC__LVT_LINT0 + pin];
    bool rises = level && !l->lint[pin];
    struct pc_apic_msg m = {0};

    l->lint[pin] = level;
    m.mode = lvt >> 8 & 7;
    m.vector = (uint8_t)lvt;
    if (rises && !(lvt & PC__LVT_MASKED) && (l->base & PC__BASE_ENABLED) &&
        (m.mode == PC_APIC_FIXED || m.mode == PC_APIC_NMI))
        pc_lapic_accept(l, &m);
}

static bool pc__timer_is(const struct pc_lapic *l, uint32_t mode)
{
    return (l->lvt[PC__LVT_TIMER] & PC__TIMER_MODE) == mode;
}

/* A periodic interrupt that finds the last one still waiting cannot wait, too: it is owed. */
static void pc__lapic_fire(struct pc_lapic *l, uint64_t times)
{
    uint32_t lvt = l->lvt[PC__LVT_TIMER];

    if (lvt & PC__LVT_MASKED)
        return;
    if (pc__lapic_request(l, (uint8_t)lvt, false) != PC_MERGED ||
        !pc__timer_is(l, PC__TIMER_PERIODIC))
        times--;
    l->owed += times;
    if (l->owed > PC__LAPIC_CATCH_UP)
        l->owed = PC__LAPIC_CATCH_UP;
}

VMM_DEF uint8_t pc_lapic_ack(struct pc_lapic *l)
{
    int vector = pc_lapic_pending(l);

    if (vector < 0)
        return (uint8_t)l->svr;
    pc__vector_put(l->irr, (unsigned)vector, false);
    pc__vector_put(l->isr, (unsigned)vector, true);
    if (l->owed && vector == (uint8_t)l->lvt[PC__LVT_TIMER]) {
        l->owed--;
        pc__lapic_fire(l, 1);
    }
    return (uint8_t)vector;
}

/* The highest interrupt in service ends; the IOAPIC hears of level-triggered ones. */
static void pc__lapic_eoi(struct pc_lapic *l)
{
    int vector = pc__vector_highest(l->isr);

    if (vector < 0)
        return;
    pc__vector_put(l->isr, (unsigned)vector, false);
    if (pc__vector_has(l->tmr, (unsigned)vector) && !(l->svr & PC__SVR_DIRECT))
        l->desc.eoi(l->desc.ctx, (uint8_t)vector);
}

static uint64_t pc__lapic_now(const struct pc_lapic *l)
{
    return vmm_timer_now(&l->desc.timer);
}

/* Bits 3, 1 and 0: 0 divides by 2, 6 by 128, 7 by 1. */
static uint64_t pc__lapic_divider(const struct pc_lapic *l)
{
    return 1ull << (((l->divide & 3u) | (l->divide & 8u) >> 1) + 1u) % 8u;
}

static uint64_t pc__lapic_period(const struct pc_lapic *l)
{
    uint64_t ns = l->initial * pc__lapic_divider(l);

    return pc__timer_is(l, PC__TIMER_PERIODIC) && ns < PC__LAPIC_REST ? PC__LAPIC_REST : ns;
}

/* A timer that may interrupt nobody need not wake anybody: its count is computed when read. */
static void pc__lapic_arm(struct pc_lapic *l)
{
    bool masked = l->lvt[PC__LVT_TIMER] & PC__LVT_MASKED;

    vmm_timer_wake(&l->desc.timer, masked ? UINT64_MAX : l->fire_at);
}

static void pc__lapic_start(struct pc_lapic *l)
{
    l->owed = 0;
    if (pc__timer_is(l, PC__TIMER_DEADLINE))
        return;
    l->fire_at = l->initial ? pc__lapic_now(l) + pc__lapic_period(l) : UINT64_MAX;
    pc__lapic_arm(l);
}

VMM_DEF void pc_lapic_tick(struct pc_lapic *l)
{
    uint64_t now = pc__lapic_now(l), times = 1, period = pc__lapic_period(l);

    if (now >= l->fire_at) {
        if (pc__timer_is(l, PC__TIMER_PERIODIC)) {
            times += (now - l->fire_at) / period;
            l->fire_at += times * period;
        } else {
            l->fire_at = UINT64_MAX;
            l->deadline = 0;
        }
        pc__lapic_fire(l, times);
    }
    pc__lapic_arm(l);
}

/* The current count: what is left, in units of the divided clock, rounded up. */
static uint32_t pc__lapic_current(const struct pc_lapic *l)
{
    uint64_t now = pc__lapic_now(l), divider = pc__lapic_divider(l), left;

    if (l->fire_at == UINT64_MAX || pc__timer_is(l, PC__TIMER_DEADLINE))
        return 0;
    if (now < l->fire_at)
        left = l->fire_at - now;
    else if (pc__timer_is(l, PC__TIMER_PERIODIC))
        left = pc__lapic_period(l) - (now - l->fire_at) % pc__lapic_period(l);
    else
        left = 0;
    left = (left + divider - 1) / divider;
    return left < l->initial ? (uint32_t)left : l->initial;
}

/* So many ticks of the TSC in ns, at most 1e18: parts of a second apart, for no overflow. */
static uint64_t pc__tsc_ns(uint64_t ticks, uint64_t hz)
{
    uint64_t s = hz < 1000000 ? UINT64_MAX : ticks / hz;

    return s > 1000000000 ? 1000000000000000000
                          : s * 1000000000 + ticks % hz * 1000 / (hz / 1000000);
}

/* Only in its mode; 0 disarms. */
static void pc__lapic_set_deadline(struct pc_lapic *l, uint64_t deadline)
{
    uint64_t tsc, hz;

    if (!pc__timer_is(l, PC__TIMER_DEADLINE))
        return;
    tsc = l->desc.tsc(l->desc.ctx, l->desc.id, &hz);
    l->owed = 0;
    l->deadline = deadline;
    l->fire_at = pc__lapic_now(l);
    if (!deadline)
        l->fire_at = UINT64_MAX;
    else if (deadline > tsc)
        l->fire_at += pc__tsc_ns(deadline - tsc, hz);
    pc_lapic_tick(l);
}

/* A new divider goes on from the count as it is. */
static void pc__lapic_set_divide(struct pc_lapic *l, uint32_t val)
{
    uint64_t count = pc__lapic_current(l);

    l->divide = val & 11;
    if (l->fire_at == UINT64_MAX || pc__timer_is(l, PC__TIMER_DEADLINE))
        return;
    l->fire_at = pc__lapic_now(l) + count * pc__lapic_divider(l);
    pc__lapic_arm(l);
}

/* To and from TSC-deadline mode the timer stops. A LAPIC that is off keeps everything masked. */
static void pc__lapic_set_lvt(struct pc_lapic *l, unsigned i, uint32_t val)
{
    uint32_t was = l->lvt[i];

    val &= pc__lvt_bits[i];
    if (i == PC__LVT_TIMER && !l->desc.tsc)
        val &= ~PC__TIMER_DEADLINE;
    if (!(l->svr & PC__SVR_ENABLED))
        val |= PC__LVT_MASKED;
    l->lvt[i] = val;
    if (i != PC__LVT_TIMER)
        return;
    if ((was ^ val) & PC__TIMER_DEADLINE) {
        l->fire_at = UINT64_MAX;
        l->deadline = 0;
    }
    pc_lapic_tick(l);
}

static void pc__lapic_set_svr(struct pc_lapic *l, uint32_t val)
{
    l->svr = val & 0x11ff;
    if (l->svr & PC__SVR_ENABLED)
        return;
    for (unsigned i = 0; i < PC__NLVT; i++)
        l->lvt[i] |= PC__LVT_MASKED;
    pc__lapic_arm(l);
}

/* Writing the interrupt command register sends. */
static void pc__lapic_send(struct pc_lapic *l, uint32_t icr, uint32_t dest)
{
    struct pc_apic_msg m = {0};
    bool fixed;

    m.vector = (uint8_t)icr;
    m.mode = icr >> 8 & 7;
    m.lowest = m.mode == PC_APIC_LOWEST;
    m.logical = icr >> 11 & 1;
    m.shorthand = icr >> 18 & 3;
    m.deassert = (icr >> 15 & 1) && !(icr >> 14 & 1);
    m.dest = !pc__lapic_x2(l) && dest == 0xff ? PC_APIC_ALL : dest;
    fixed = m.mode == PC_APIC_FIXED || m.lowest;
    if (fixed && m.vector < 16)
        pc__lapic_error(l, PC__ESR_SEND);
    else
        l->desc.ipi(l->desc.ctx, l, &m);
}

static uint32_t pc__lapic_get(const struct pc_lapic *l, unsigned reg)
{
    if (reg >= PC__LAPIC_ISR && reg < PC__LAPIC_TMR)
        return l->isr[reg - PC__LAPIC_ISR];
    if (reg >= PC__LAPIC_TMR && reg < PC__LAPIC_IRR)
        return l->tmr[reg - PC__LAPIC_TMR];
    if (reg >= PC__LAPIC_IRR && reg < PC__LAPIC_ESR)
        return l->irr[reg - PC__LAPIC_IRR];
    if (reg >= PC__LAPIC_LVT && reg < PC__LAPIC_LVT + PC__NLVT)
        return l->lvt[reg - PC__LAPIC_LVT];
    switch (reg) {
    case PC__LAPIC_ID:
        return pc__lapic_x2(l) ? l->desc.id : l->desc.id << 24;
    case PC__LAPIC_VERSION: /* with directed EOI */
        return 1u << 24 | (PC__NLVT - 1) << 16 | 0x14;
    case PC__LAPIC_TPR:
        return l->tpr;
    case PC__LAPIC_APR:
    case PC__LAPIC_PPR:
        return pc__lapic_ppr(l);
    case PC__LAPIC_LDR:
        return pc__lapic_ldr(l);
    case PC__LAPIC_DFR:
        return l->dfr;
    case PC__LAPIC_SVR:
        return l->svr;
    case PC__LAPIC_ESR:
        return l->esr;
    case PC__LAPIC_ICR:
        return l->icr;
    case PC__LAPIC_ICR2:
        return l->icr_dest;
    case PC__LAPIC_INITIAL:
        return pc__timer_is(l, PC__TIMER_DEADLINE) ? 0 : l->initial;
    case PC__LAPIC_CURRENT:
        return pc__lapic_current(l);
    default:
        return l->divide;
    }
}

/* A register that may be written in this mode. */
static void pc__lapic_put(struct pc_lapic *l, unsigned reg, uint32_t val)
{
    if (reg >= PC__LAPIC_LVT && reg < PC__LAPIC_LVT + PC__NLVT) {
        pc__lapic_set_lvt(l, reg - PC__LAPIC_LVT, val);
        return;
    }
    switch (reg) {
    case PC__LAPIC_TPR:
        l->tpr = (uint8_t)val;
        break;
    case PC__LAPIC_EOI:
        pc__lapic_eoi(l);
        break;
    case PC__LAPIC_LDR:
        l->ldr = val & 0xff000000;
        break;
    case PC__LAPIC_DFR:
        l->dfr = val | 0x0fffffff;
        break;
    case PC__LAPIC_SVR:
        pc__lapic_set_svr(l, val);
        break;
    case PC__LAPIC_ESR: /* shows what has come up since the last write */
        l->esr = l->errors;
        l->errors = 0;
        break;
    case PC__LAPIC_ICR:
        l->icr = val & 0xccfff;
        pc__lapic_send(l, l->icr, pc__lapic_x2(l) ? l->icr_dest : l->icr_dest >> 24);
        break;
    case PC__LAPIC_ICR2:
        l->icr_dest = val & 0xff000000;
        break;
    case PC__LAPIC_INITIAL:
        l->initial = val;
        pc__lapic_start(l);
        break;
    case PC__LAPIC_DIVIDE:
        pc__lapic_set_divide(l, val);
        break;
    default: /* self IPI */
        pc__lapic_send(l, 1u << 18 | (uint8_t)val, 0);
        break;
    }
}

VMM_DEF bool pc_lapic_claims(const struct pc_lapic *l, uint64_t addr)
{
    uint64_t mode = l->base & (PC__BASE_ENABLED | PC__BASE_X2);

    return mode == PC__BASE_ENABLED && addr >> 12 == l->base >> 12;
}

/* In the page, registers are 32 bits at multiples of 16; the rest of the 16 bytes reads as 0. */
VMM_DEF uint64_t pc_lapic_read(void *lapic, uint64_t off, unsigned len)
{
    struct pc_lapic *l = (struct pc_lapic *)lapic;
    unsigned reg = (unsigned)(off >> 4);

    if (reg >= sizeof pc__lapic_access || !(pc__lapic_access[reg] & (PC__R | PC__XR))) {
        pc__lapic_error(l, PC__ESR_REGISTER);
        return 0;
    }
    if ((off & 15) > 3)
        return 0;
    return (uint64_t)pc__lapic_get(l, reg) >> (8 * (off & 3)) & vmm_ones(len);
}

VMM_DEF void pc_lapic_write(void *lapic, uint64_t off, unsigned len, uint64_t val)
{
    struct pc_lapic *l = (struct pc_lapic *)lapic;
    unsigned reg = (unsigned)(off >> 4);

    if (reg >= sizeof pc__lapic_access || !(pc__lapic_access[reg] & (PC__W | PC__XW)))
        pc__lapic_error(l, PC__ESR_REGISTER);
    else if (!(off & 15) && len >= 4)
        pc__lapic_put(l, reg, (uint32_t)val);
}

/* xAPIC to x2APIC mode and back only by way of "off", which forgets everything. */
static bool pc__lapic_set_base(struct pc_lapic *l, uint64_t val)
{
    uint64_t mode = val & (PC__BASE_ENABLED | PC__BASE_X2), was = l->base & PC__BASE_ENABLED;

    if (val & 0xfff00000000002ffull || mode == PC__BASE_X2)
        return false;
    if (mode == PC__BASE_ENABLED && pc__lapic_x2(l))
        return false;
    if (mode & PC__BASE_X2 && !was)
        return false;
    l->base = val;
    if (was && !mode)
        pc__lapic_reset(l);
    return true;
}

/* In x2APIC mode, reserved bits are checked: most registers have 32 bits, a priority and the vector of
   a self IPI 8, EOI and ESR take 0. */
static bool pc__lapic_x2_write(struct pc_lapic *l, unsigned reg, uint64_t val)
{
    if (!(pc__lapic_access[reg] & (PC__W | PC__2W)))
        return false;
    if (reg == PC__LAPIC_ICR)
        l->icr_dest = (uint32_t)(val >> 32);
    else if (val >> 32 || ((reg == PC__LAPIC_EOI || reg == PC__LAPIC_ESR) && val) ||
             ((reg == PC__LAPIC_TPR || reg == PC__LAPIC_SELF) && val > 0xff))
        return false;
    pc__lapic_put(l, reg, (uint32_t)val);
    return true;
}

VMM_DEF bool pc_lapic_msr(struct pc_lapic *l, uint32_t msr, bool write, uint64_t *val)
{
    unsigned reg = msr - PC__X2_MSR;

    if (msr == PC__BASE_MSR && write)
        return pc__lapic_set_base(l, *val);
    if (msr == PC__DEADLINE_MSR && !l->desc.tsc)
        return false;
    if (msr == PC__DEADLINE_MSR && write)
        pc__lapic_set_deadline(l, *val);
    else if (msr == PC__BASE_MSR || msr == PC__DEADLINE_MSR)
        *val = msr == PC__BASE_MSR ? l->base : l->deadline;
    else if (msr < PC__X2_MSR || reg >= sizeof pc__lapic_access || !pc__lapic_x2(l))
        return false;
    else if (write)
        return pc__lapic_x2_write(l, reg, *val);
    else if (!(pc__lapic_access[reg] & PC__R))
        return false;
    else
        *val = pc__lapic_get(l, reg) | (reg == PC__LAPIC_ICR ? (uint64_t)l->icr_dest << 32 : 0);
    return true;
}

/* >>irqchip */

/* Tells CPU `cpu` once that there is something for it, until it asks. */
static void pc__irqchip_kick(struct pc_irqchip *c, unsigned cpu)
{
    struct pc_lapic *l = &c->desc.lapic[cpu];
    bool wants = l->init || (l->waits && l->startup) ||
                 (!l->waits && (l->nmi || pc_lapic_pending(l) >= 0 || pc_lapic_extint(l)));

    if (!wants || l->told)
        return;
    l->told = true;
    c->desc.kick(c->desc.ctx, cpu);
}

static enum pc_taken pc__irqchip_accept(struct pc_irqchip *c, unsigned cpu,
                                        const struct pc_apic_msg *m)
{
    enum pc_taken taken = pc_lapic_accept(&c->desc.lapic[cpu], m);

    pc__irqchip_kick(c, cpu);
    return taken;
}

static bool pc__irqchip_is_for(const struct pc_irqchip *c, unsigned cpu,
                               const struct pc_lapic *from, const struct pc_apic_msg *m)
{
    const struct pc_lapic *l = &c->desc.lapic[cpu];

    switch (from ? m->shorthand : 0) {
    case 1:
        return l == from;
    case 2:
        return true;
    case 3:
        return l != from;
    default:
        return pc_lapic_matches(l, m);
    }
}

/* Lowest priority: the least busy of those who take interrupts; equals take turns. */
static enum pc_taken pc__irqchip_lowest(struct pc_irqchip *c, const struct pc_lapic *from,
                                        const struct pc_apic_msg *m)
{
    unsigned best = c->desc.ncpus, n = c->desc.ncpus;

    for (unsigned i = 0; i < n; i++) {
        unsigned cpu = (c->turn + i) % n;
        const struct pc_lapic *l = &c->desc.lapic[cpu];
        if (!pc__lapic_enabled(l) || !pc__irqchip_is_for(c, cpu, from, m))
            continue;
        if (best == n || pc__lapic_ppr(l) < pc__lapic_ppr(&c->desc.lapic[best]))
            best = cpu;
    }
    if (best == n)
        return PC_NOBODY;
    c->turn = (best + 1) % n;
    return pc__irqchip_accept(c, best, m);
}

/* Of all whom it is for, what the one made of it who made most of it. */
static enum pc_taken pc__irqchip_deliver(struct pc_irqchip *c, const struct pc_lapic *from,
                                         const struct pc_apic_msg *m)
{
    enum pc_taken best = PC_NOBODY, taken;

    if (m->lowest)
        return pc__irqchip_lowest(c, from, m);
    for (unsigned cpu = 0; cpu < c->desc.ncpus; cpu++) {
        if (!pc__irqchip_is_for(c, cpu, from, m))
            continue;
        taken = pc__irqchip_accept(c, cpu, m);
        best = taken > best ? taken : best;
    }
    return best;
}

static void pc__irqchip_ipi(void *ctx, const struct pc_lapic *from, const struct pc_apic_msg *m)
{
    pc__irqchip_deliver((struct pc_irqchip *)ctx, from, m);
}

static void pc__irqchip_eoi(void *ctx, uint8_t vector)
{
    pc_ioapic_eoi(&((struct pc_irqchip *)ctx)->ioapic, vector);
}

/* What IOAPIC pins and devices send. Nobody tells what LAPICs of the hypervisor make of it. */
static enum pc_taken pc__irqchip_send(void *ctx, unsigned pin, uint64_t addr, uint32_t data)
{
    struct pc_irqchip *c = (struct pc_irqchip *)ctx;
    struct pc_apic_msg m;

    if (!c->desc.lapic)
        vmm_msi_send(&c->desc.msi, pin, addr, data);
    else if (pc_apic_from_msi(&m, addr, data))
        return pc__irqchip_deliver(c, NULL, &m);
    else
        return PC_NOBODY;
    return PC_TAKEN;
}

static void pc__irqchip_route(void *ctx, unsigned pin, uint64_t addr, uint32_t data)
{
    const struct pc_irqchip *c = (const struct pc_irqchip *)ctx;

    if (c->desc.route)
        c->desc.route(c->desc.ctx, pin, addr, data);
}

/* The 8259s' output. Without LAPICs of ours, CPU 0 is the one that acknowledges. */
static void pc__irqchip_intr(void *ctx, unsigned line, bool level)
{
    struct pc_irqchip *c = (struct pc_irqchip *)ctx;

    (void)line;
    if (!c->desc.lapic && level)
        c->desc.kick(c->desc.ctx, 0);
    for (unsigned cpu = 0; c->desc.lapic && cpu < c->desc.ncpus; cpu++) {
        pc_lapic_lint(&c->desc.lapic[cpu], 0, level);
        pc__irqchip_kick(c, cpu);
    }
}

static bool pc__irqchip_line(struct pc_irqchip *c, unsigned line, bool level)
{
    if (line < 16 && line != PC__PIC_CASCADE)
        pc_pic_set(&c->pic, line, level);
    return line >= PC_IOAPIC_PINS || pc_ioapic_set(&c->ioapic, line, level);
}

/* The PIT's interrupt is a pulse. It is taken unless it finds the one before still waiting, at the
   8259 or behind the IOAPIC, whichever the guest listens to. */
static bool pc__irqchip_rise(void *ctx)
{
    struct pc_irqchip *c = (struct pc_irqchip *)ctx;
    const struct pc_pic_chip *master = &c->pic.chip[0];
    bool waits = master->irr & ~master->imr & 1, news;

    news = pc__irqchip_line(c, 0, true);
    pc__irqchip_line(c, 0, false);
    return news && !waits;
}

static uint64_t pc__irqchip_now(void *ctx)
{
    return vmm_timer_now(&((struct pc_irqchip *)ctx)->desc.timer);
}

static uint64_t pc__irqchip_tsc(void *ctx, uint32_t id, uint64_t *hz)
{
    const struct pc_irqchip_desc *d = &((struct pc_irqchip *)ctx)->desc;

    return d->tsc(d->ctx, id, hz);
}

/* One timer serves all chips: it is set to the earliest wish. A wish that is taken back leaves it as
   it is, for a tick that finds nothing to do costs less than a search at each wish. */
static void pc__irqchip_wake(void *ctx, uint64_t at)
{
    struct pc_irqchip *c = (struct pc_irqchip *)ctx;

    if (at >= c->armed)
        return;
    c->armed = at;
    vmm_timer_wake(&c->desc.timer, at);
}

VMM_DEF void pc_irqchip_tick(struct pc_irqchip *c)
{
    c->armed = UINT64_MAX;
    pc_pit_tick(&c->pit);
    for (unsigned cpu = 0; c->desc.lapic && cpu < c->desc.ncpus; cpu++) {
        pc_lapic_tick(&c->desc.lapic[cpu]);
        pc__irqchip_kick(c, cpu);
    }
}

VMM_DEF void pc_irqchip_init(struct pc_irqchip *c, const struct pc_irqchip_desc *desc)
{
    struct vmm_irq intr = {pc__irqchip_intr, c, 0};
    struct vmm_timer timer = {pc__irqchip_now, pc__irqchip_wake, c};
    struct pc_pit_desc pit = {timer, pc__irqchip_rise, c};
    struct pc_ioapic_desc ioapic = {pc__irqchip_send, pc__irqchip_route, c};
    struct pc_lapic_desc lapic = {0, timer, NULL, pc__irqchip_ipi, pc__irqchip_eoi, c};

    memset(c, 0, sizeof *c);
    c->desc = *desc;
    c->armed = UINT64_MAX;
    pc_pic_init(&c->pic, &intr);
    pc_pit_init(&c->pit, &pit);
    pc_ioapic_init(&c->ioapic, &ioapic);
    lapic.tsc = desc->tsc ? pc__irqchip_tsc : NULL;
    for (; desc->lapic && lapic.id < desc->ncpus; lapic.id++)
        pc_lapic_init(&desc->lapic[lapic.id], &lapic);
}

VMM_DEF void pc_irqchip_set(void *irqchip, unsigned line, bool level)
{
    struct pc_irqchip *c = (struct pc_irqchip *)irqchip;

    vmm_enter(&c->desc.lock);
    pc__irqchip_line(c, line, level);
    vmm_leave(&c->desc.lock);
}

VMM_DEF void pc_irqchip_msi(void *irqchip, unsigned vector, uint64_t addr, uint32_t data)
{
    struct pc_irqchip *c = (struct pc_irqchip *)irqchip;

    vmm_enter(&c->desc.lock);
    pc__irqchip_send(c, vector, addr, data);
    vmm_leave(&c->desc.lock);
}

/* An interrupt was taken: PIT interrupts that waited behind it come now. */
static enum pc_todo pc__irqchip_taken(struct pc_irqchip *c)
{
    if (c->pit.owed)
        pc_pit_tick(&c->pit);
    return PC_TODO_INTERRUPT;
}

/* An external interrupt goes to whoever has it on LINT0; with the hypervisor's LAPICs to CPU 0,
   which is ready for it only if its LAPIC says so. */
static enum pc_todo pc__irqchip_extint(struct pc_irqchip *c, bool ready, uint8_t *vector)
{
    if (!c->pic.intr_level)
        return PC_TODO_NOTHING;
    if (!ready)
        return PC_TODO_WINDOW;
    *vector = pc_pic_ack(&c->pic);
    return pc__irqchip_taken(c);
}

VMM_DEF enum pc_todo pc_irqchip_next(struct pc_irqchip *c, unsigned cpu, bool ready,
                                     uint8_t *vector)
{
    struct pc_lapic *l = c->desc.lapic ? &c->desc.lapic[cpu] : NULL;

    if (!l)
        return cpu ? PC_TODO_NOTHING : pc__irqchip_extint(c, ready, vector);
    l->told = false;
    if (l->init) {
        l->init = false;
        return PC_TODO_INIT;
    }
    if (l->waits) {
        *vector = l->page;
        l->waits = !l->startup;
        l->startup = false;
        return l->waits ? PC_TODO_WAIT : PC_TODO_STARTUP;
    }
    if (l->nmi) {
        l->nmi = false;
        return PC_TODO_NMI;
    }
    if (pc_lapic_extint(l))
        return pc__irqchip_extint(c, ready, vector);
    if (pc_lapic_pending(l) < 0)
        return PC_TODO_NOTHING;
    if (!ready)
        return PC_TODO_WINDOW;
    *vector = pc_lapic_ack(l);
    return pc__irqchip_taken(c);
}

VMM_DEF bool pc_irqchip_mmio(struct pc_irqchip *c, unsigned cpu, const struct vmm_exit *e)
{
    struct pc_lapic *l = c->desc.lapic ? &c->desc.lapic[cpu] : NULL;
    uint64_t val = 0;

    if (!l || !pc_lapic_claims(l, e->addr))
        return false;
    if (e->write) {
        memcpy(&val, e->data, e->size);
        pc_lapic_write(l, e->addr & 0xfff, e->size, val);
        pc_ioapic_retry(&c->ioapic);
    } else {
        val = pc_lapic_read(l, e->addr & 0xfff, e->size);
        memcpy(e->data, &val, e->size);
    }
    return true;
}

VMM_DEF bool pc_irqchip_msr(struct pc_irqchip *c, unsigned cpu, const struct vmm_exit *e)
{
    uint64_t val = vmm_get64(e->data);
    bool known =
        c->desc.lapic && pc_lapic_msr(&c->desc.lapic[cpu], (uint32_t)e->addr, e->write, &val);

    if (known && !e->write)
        vmm_put64(e->data, val);
    else if (known)
        pc_ioapic_retry(&c->ioapic);
    return known;
}

/* >>primecell: registers are words. Narrower reads see their bytes of one; narrower writes reach it
   only at its own address, zero-extended, for APB knows no byte lanes. */
static uint32_t pc__word_get(uint32_t word, uint64_t off, unsigned len)
{
    return (uint32_t)(word >> 8 * (off & 3) & vmm_ones(len));
}

/* The last eight words of each: part number, designer, revision, and a magic number. */
static uint32_t pc__primecell_id(uint64_t off, unsigned part, unsigned revision)
{
    const uint8_t id[] = {(uint8_t)part, 0x10, (uint8_t)(revision << 4 | 4), 0, 0x0d, 0xf0, 5,
                          0xb1};

    return off >= 0xfe0 && off < 0x1000 ? id[(off - 0xfe0) / 4] : 0;
}

/* >>pl011. Names are those of ARM DDI0183, without the UART in front. */
enum {
    PC__PL011_DR = 0x00,
    PC__PL011_RSR = 0x04, /* write: ECR */
    PC__PL011_FR = 0x18,
    PC__PL011_ILPR = 0x20,
    PC__PL011_IBRD = 0x24,
    PC__PL011_FBRD = 0x28,
    PC__PL011_LCR = 0x2c,
    PC__PL011_CR = 0x30,
    PC__PL011_IFLS = 0x34,
    PC__PL011_IMSC = 0x38,
    PC__PL011_RIS = 0x3c,
    PC__PL011_MIS = 0x40,
    PC__PL011_ICR = 0x44,
    PC__PL011_DMACR = 0x48
};
enum {
    PC__FR_CTS = 1,
    PC__FR_DSR = 2,
    PC__FR_DCD = 4,
    PC__FR_BUSY = 8,
    PC__FR_RXFE = 0x10,
    PC__FR_TXFF = 0x20,
    PC__FR_RXFF = 0x40,
    PC__FR_TXFE = 0x80,
    PC__FR_RI = 0x100
};
enum {
    PC__CR_ENABLE = 1,
    PC__CR_LOOP = 0x80,
    PC__CR_TX = 0x100,
    PC__CR_RX = 0x200,
    PC__CR_DTR = 0x400,
    PC__CR_RTS = 0x800,
    PC__CR_OUT1 = 0x1000,
    PC__CR_OUT2 = 0x2000,
    PC__CR_BITS = 0xff87
};
enum {
    PC__INT_RI = 1,
    PC__INT_CTS = 2,
    PC__INT_DCD = 4,
    PC__INT_DSR = 8,
    PC__INT_RX = 0x10,
    PC__INT_TX = 0x20,
    PC__INT_RT = 0x40,
    PC__INT_OE = 0x400,
    PC__INT_BITS = 0x7ff
};
enum { PC__LCR_FEN = 0x10, PC__RSR_OE = 8, PC__PL011_LOOKS = 64 };

static unsigned pc__pl011_depth(const struct pc_pl011 *u)
{
    return u->lcr & PC__LCR_FEN ? PC_PL011_FIFO : 1;
}

/* How many bytes raise the receive interrupt, and how many left to send the other: fields of IFLS
   in eighths; without FIFOs any byte, and none. */
static unsigned pc__pl011_rx_level(const struct pc_pl011 *u)
{
    static const uint8_t eighths[] = {1, 2, 4, 6, 7, 7, 7, 7};

    return u->lcr & PC__LCR_FEN ? eighths[u->ifls >> 3 & 7] * PC_PL011_FIFO / 8u : 1;
}

static unsigned pc__pl011_tx_level(const struct pc_pl011 *u)
{
    static const uint8_t eighths[] = {1, 2, 4, 6, 7, 7, 7, 7};

    return u->lcr & PC__LCR_FEN ? eighths[u->ifls & 7] * PC_PL011_FIFO / 8u : 0;
}

static void pc__pl011_update_irq(struct pc_pl011 *u)
{
    bool level = u->ris & u->imsc;

    if (level == u->irq_level)
        return;
    u->irq_level = level;
    vmm_irq_set(&u->desc.irq, level);
}

/* Does the guest want input now? As for pc_uart, one that has ever used DTR or RTS is taken at its
   word: Linux raises RTS last, when it has emptied the FIFO. */
static bool pc__pl011_hears(const struct pc_pl011 *u)
{
    const uint32_t on = PC__CR_ENABLE | PC__CR_RX;

    if ((u->cr & on) != on || u->cr & PC__CR_LOOP)
        return false;
    return u->listens && (!u->modem || u->cr & PC__CR_RTS);
}

/* The end of every guest access, before which imsc was in force. Interrupts that are enabled and
   disabled again with nothing in between, as Linux does before it empties the FIFO, are no sign of
   interest. */
static void pc__pl011_settle(struct pc_pl011 *u, uint32_t imsc)
{
    u->listens |= (imsc & u->imsc & (PC__INT_RX | PC__INT_RT)) != 0;
    pc__pl011_update_irq(u);
    if (!u->rx_refused || u->nrx || !pc__pl011_hears(u))
        return;
    u->rx_refused = false;
    if (u->desc.out.rx_room)
        u->desc.out.rx_room(u->desc.out.ctx);
}

/* On the wire a time-out comes 32 bit periods after the last byte; here all bytes of a burst come
   at once, and with them the time-out. */
static void pc__pl011_rx_put(struct pc_pl011 *u, uint8_t byte)
{
    unsigned at = (u->rx_head + u->nrx) % PC_PL011_FIFO;

    if (u->nrx == pc__pl011_depth(u)) {
        u->overrun = true;
        u->errors |= PC__RSR_OE;
        u->ris |= PC__INT_OE;
        return;
    }
    u->rx[at] = (uint16_t)(byte | (u->overrun ? PC__RSR_OE << 8 : 0));
    u->overrun = false;
    u->nrx++;
    u->ris |= PC__INT_RT;
    if (u->nrx >= pc__pl011_rx_level(u))
        u->ris |= PC__INT_RX;
}

static uint32_t pc__pl011_receive(struct pc_pl011 *u)
{
    uint16_t val = u->rx[u->rx_head];

    u->listens = true;
    if (!u->nrx)
        return 0;
    u->rx_head = (uint8_t)((u->rx_head + 1) % PC_PL011_FIFO);
    u->nrx--;
    u->errors = (uint8_t)((u->errors & PC__RSR_OE) | (val >> 8 & 7));
    if (u->nrx < pc__pl011_rx_level(u))
        u->ris &= ~(uint32_t)PC__INT_RX;
    if (!u->nrx)
        u->ris &= ~(uint32_t)PC__INT_RT;
    return val;
}

/* Bytes leave while transmitter and UART are on. One that does takes the FIFO through its level, as
   it were, when few enough are left: without a wire, it would never fill up. */
static void pc__pl011_drain(struct pc_pl011 *u)
{
    const uint32_t on = PC__CR_ENABLE | PC__CR_TX;
    size_t taken = u->ntx;

    if (!u->ntx || (u->cr & on) != on)
        return;
    if (u->cr & PC__CR_LOOP)
        for (unsigned i = 0; i < u->ntx; i++)
            pc__pl011_rx_put(u, u->tx[i]);
    else if (u->desc.out.write)
        taken = u->desc.out.write(u->desc.out.ctx, u->tx, u->ntx);
    if (taken > u->ntx)
        taken = u->ntx;
    u->ntx = (uint8_t)(u->ntx - taken);
    memmove(u->tx, u->tx + taken, u->ntx);
    if (taken && u->ntx <= pc__pl011_tx_level(u))
        u->ris |= PC__INT_TX;
}

static void pc__pl011_transmit(struct pc_pl011 *u, uint8_t byte)
{
    u->looks = 0;
    if (u->ntx < pc__pl011_depth(u))
        u->tx[u->ntx++] = byte;
    else if (vmm_spend(&u->lost))
        vmm_say(u->desc.log, VMM_LOG_WARN,
                "PL011: a byte is lost, the guest wrote it into a full transmitter (FR has TXFF)");
    if (u->ntx > pc__pl011_tx_level(u))
        u->ris &= ~(uint32_t)PC__INT_TX;
    pc__pl011_drain(u);
}

/* The far end's lines, or in loopback our own four outputs. */
static uint32_t pc__pl011_lines(const struct pc_pl011 *u)
{
    if (!(u->cr & PC__CR_LOOP))
        return PC__FR_CTS | PC__FR_DSR | PC__FR_DCD;
    return (u->cr & PC__CR_RTS ? PC__FR_CTS : 0) | (u->cr & PC__CR_DTR ? PC__FR_DSR : 0) |
           (u->cr & PC__CR_OUT1 ? PC__FR_DCD : 0) | (u->cr & PC__CR_OUT2 ? PC__FR_RI : 0);
}

static uint32_t pc__pl011_flags(struct pc_pl011 *u)
{
    uint32_t fr = pc__pl011_lines(u);

    fr |= u->ntx ? 0 : PC__FR_TXFE;
    fr |= u->ntx && u->cr & PC__CR_ENABLE ? PC__FR_BUSY : 0;
    fr |= u->ntx == pc__pl011_depth(u) ? PC__FR_TXFF : 0;
    fr |= u->nrx ? 0 : PC__FR_RXFE;
    fr |= u->nrx == pc__pl011_depth(u) ? PC__FR_RXFF : 0;
    if (u->looks < PC__PL011_LOOKS && !u->ntx)
        u->listens |= ++u->looks == PC__PL011_LOOKS;
    return fr;
}

/* Lines that change raise their interrupts. */
static void pc__pl011_set_cr(struct pc_pl011 *u, uint32_t val)
{
    uint32_t before = pc__pl011_lines(u), changed;

    u->cr = val & PC__CR_BITS;
    u->modem |= (val & (PC__CR_DTR | PC__CR_RTS)) != 0;
    changed = before ^ pc__pl011_lines(u);
    u->ris |= (changed & PC__FR_RI ? PC__INT_RI : 0) | (changed & PC__FR_CTS ? PC__INT_CTS : 0) |
              (changed & PC__FR_DCD ? PC__INT_DCD : 0) | (changed & PC__FR_DSR ? PC__INT_DSR : 0);
    pc__pl011_drain(u);
}

/* Turning the FIFOs on or off empties both. */
static void pc__pl011_set_lcr(struct pc_pl011 *u, uint32_t val)
{
    if ((val ^ u->lcr) & PC__LCR_FEN) {
        u->nrx = u->ntx = 0;
        u->ris &= ~(uint32_t)(PC__INT_RX | PC__INT_RT);
    }
    u->lcr = val & 0xff;
}

static uint32_t pc__pl011_get(struct pc_pl011 *u, uint64_t off)
{
    switch (off) {
    case PC__PL011_DR:
        return pc__pl011_receive(u);
    case PC__PL011_RSR:
        return u->errors;
    case PC__PL011_FR:
        return pc__pl011_flags(u);
    case PC__PL011_ILPR:
        return u->ilpr;
    case PC__PL011_IBRD:
        return u->ibrd;
    case PC__PL011_FBRD:
        return u->fbrd;
    case PC__PL011_LCR:
        return u->lcr;
    case PC__PL011_CR:
        return u->cr;
    case PC__PL011_IFLS:
        return u->ifls;
    case PC__PL011_IMSC:
        return u->imsc;
    case PC__PL011_RIS:
        return u->ris;
    case PC__PL011_MIS:
        return u->ris & u->imsc;
    case PC__PL011_DMACR:
        return u->dmacr;
    default:
        return pc__primecell_id(off, 0x11, 3);
    }
}

static void pc__pl011_put(struct pc_pl011 *u, uint64_t off, uint32_t val)
{
    switch (off) {
    case PC__PL011_DR:
        pc__pl011_transmit(u, (uint8_t)val);
        break;
    case PC__PL011_RSR:
        u->errors = 0;
        break;
    case PC__PL011_ILPR:
        u->ilpr = val & 0xff;
        break;
    case PC__PL011_IBRD:
        u->ibrd = val & 0xffff;
        break;
    case PC__PL011_FBRD:
        u->fbrd = val & 0x3f;
        break;
    case PC__PL011_LCR:
        pc__pl011_set_lcr(u, val);
        break;
    case PC__PL011_CR:
        pc__pl011_set_cr(u, val);
        break;
    case PC__PL011_IFLS:
        u->ifls = val & 0x3f;
        break;
    case PC__PL011_IMSC:
        u->imsc = val & PC__INT_BITS;
        break;
    case PC__PL011_ICR:
        u->ris &= ~val;
        break;
    case PC__PL011_DMACR:
        u->dmacr = val & 7;
        break;
    default:
        break;
    }
}

VMM_DEF void pc_pl011_init(struct pc_pl011 *u, const struct pc_pl011_desc *desc)
{
    memset(u, 0, sizeof *u);
    u->desc = *desc;
    u->cr = PC__CR_ENABLE | PC__CR_TX | PC__CR_RX;
    u->lcr = 0x60 | PC__LCR_FEN;
    u->ifls = 0x12;
    u->ibrd = 13; /* 115200 baud of a clock of 24 MHz, with the fraction */
    u->fbrd = 1;
}

VMM_DEF uint64_t pc_pl011_read(void *pl011, uint64_t off, unsigned len)
{
    struct pc_pl011 *u = (struct pc_pl011 *)pl011;
    uint64_t val = pc__word_get(pc__pl011_get(u, off & ~3ull), off, len);

    pc__pl011_settle(u, u->imsc);
    return val;
}

VMM_DEF void pc_pl011_write(void *pl011, uint64_t off, unsigned len, uint64_t val)
{
    struct pc_pl011 *u = (struct pc_pl011 *)pl011;
    uint32_t imsc = u->imsc;

    pc__pl011_put(u, off, (uint32_t)(val & vmm_ones(len)));
    pc__pl011_settle(u, imsc);
}

VMM_DEF size_t pc_pl011_rx(struct pc_pl011 *u, const void *buf, size_t len)
{
    const uint8_t *bytes = (const uint8_t *)buf;
    size_t n = 0;

    u->listens |= (u->imsc & (PC__INT_RX | PC__INT_RT)) != 0;
    if (pc__pl011_hears(u))
        for (; n < len && u->nrx < pc__pl011_depth(u); n++)
            pc__pl011_rx_put(u, bytes[n]);
    u->rx_refused = n < len;
    pc__pl011_update_irq(u);
    return n;
}

VMM_DEF void pc_pl011_tx_ready(struct pc_pl011 *u)
{
    pc__pl011_drain(u);
    pc__pl011_update_irq(u);
}

/* >>pl031. Names are those of ARM DDI0224, without the RTC in front. */
enum {
    PC__PL031_DR = 0x00,
    PC__PL031_MR = 0x04,
    PC__PL031_LR = 0x08,
    PC__PL031_CR = 0x0c,
    PC__PL031_IMSC = 0x10,
    PC__PL031_RIS = 0x14,
    PC__PL031_MIS = 0x18,
    PC__PL031_ICR = 0x1c
};
#define PC__SECOND_NS 1000000000

static int64_t pc__pl031_wall(const struct pc_pl031 *r)
{
    return r->desc.now ? r->desc.now(r->desc.ctx) : 0;
}

static uint32_t pc__pl031_second(const struct pc_pl031 *r)
{
    return (uint32_t)(pc__pl031_wall(r) / PC__SECOND_NS) + r->shift;
}

/* Tells the matches since it last looked. Seconds are counted modulo 2^32: if more than 68 years
   seem to have passed, the host has set its clock back. */
static void pc__pl031_catch_up(struct pc_pl031 *r)
{
    uint32_t now = pc__pl031_second(r), passed = now - r->seen;

    if (passed && passed < 1u << 31 && r->match - r->seen - 1 < passed)
        r->raised = true;
    r->seen = now;
}

/* The line, and a call at the second that matches, if anybody is to be told. */
static void pc__pl031_update(struct pc_pl031 *r)
{
    bool level = r->raised && r->enabled, wait = r->enabled && !r->raised;
    uint64_t now = vmm_timer_now(&r->desc.timer);
    uint64_t into = (uint64_t)(pc__pl031_wall(r) % PC__SECOND_NS);
    uint64_t left = (uint64_t)(r->match - r->seen) * PC__SECOND_NS;

    if (level != r->irq_level)
        vmm_irq_set(&r->desc.irq, level);
    r->irq_level = level;
    if (!left)
        left = (1ull << 32) * PC__SECOND_NS; /* it has just been: once around */
    if (wait || r->armed)
        vmm_timer_wake(&r->desc.timer, wait ? now + left - into : UINT64_MAX);
    r->armed = wait;
}

static uint32_t pc__pl031_get(const struct pc_pl031 *r, uint64_t off)
{
    switch (off) {
    case PC__PL031_DR:
        return r->seen;
    case PC__PL031_MR:
        return r->match;
    case PC__PL031_LR:
        return r->load;
    case PC__PL031_CR:
        return 1; /* it runs, and cannot be stopped */
    case PC__PL031_IMSC:
        return r->enabled;
    case PC__PL031_RIS:
        return r->raised;
    case PC__PL031_MIS:
        return r->raised && r->enabled;
    default:
        return pc__primecell_id(off, 0x31, 0);
    }
}

static void pc__pl031_put(struct pc_pl031 *r, uint64_t off, uint32_t val)
{
    switch (off) {
    case PC__PL031_MR:
        r->match = val;
        r->raised |= val == r->seen;
        break;
    case PC__PL031_LR:
        r->shift += val - r->seen;
        r->load = r->seen = val;
        r->raised |= val == r->match;
        break;
    case PC__PL031_IMSC:
        r->enabled = val & 1;
        break;
    case PC__PL031_ICR:
        if (val & 1)
            r->raised = false;
        break;
    default:
        break;
    }
}

VMM_DEF void pc_pl031_init(struct pc_pl031 *r, const struct pc_pl031_desc *desc)
{
    memset(r, 0, sizeof *r);
    r->desc = *desc;
    r->seen = pc__pl031_second(r);
}

VMM_DEF void pc_pl031_tick(struct pc_pl031 *r)
{
    pc__pl031_catch_up(r);
    pc__pl031_update(r);
}

VMM_DEF uint64_t pc_pl031_read(void *pl031, uint64_t off, unsigned len)
{
    struct pc_pl031 *r = (struct pc_pl031 *)pl031;

    pc_pl031_tick(r);
    return pc__word_get(pc__pl031_get(r, off & ~3ull), off, len);
}

VMM_DEF void pc_pl031_write(void *pl031, uint64_t off, unsigned len, uint64_t val)
{
    struct pc_pl031 *r = (struct pc_pl031 *)pl031;

    pc__pl031_catch_up(r);
    pc__pl031_put(r, off, (uint32_t)(val & vmm_ones(len)));
    pc__pl031_update(r);
}

/* >>pl061. Names are those of ARM DDI0190, without the GPIO in front. DATA is 256 words, of which bits
   9 to 2 of the address choose the lines that are read or written. */
enum {
    PC__PL061_DATA_END = 0x400,
    PC__PL061_DIR = 0x400,
    PC__PL061_IS = 0x404,
    PC__PL061_IBE = 0x408,
    PC__PL061_IEV = 0x40c,
    PC__PL061_IE = 0x410,
    PC__PL061_RIS = 0x414,
    PC__PL061_MIS = 0x418,
    PC__PL061_IC = 0x41c,
    PC__PL061_AFSEL = 0x420
};

static uint8_t pc__pl061_lines(const struct pc_pl061 *g)
{
    return (uint8_t)((g->in & ~g->dir) | (g->data & g->dir));
}

/* Levels as they are now, edges as they were seen. */
static uint8_t pc__pl061_ris(const struct pc_pl061 *g)
{
    uint8_t levels = (uint8_t) ~(pc__pl061_lines(g) ^ g->iev);

    return (uint8_t)((levels & g->is) | (g->edges & ~g->is));
}

/* After a change of the lines, which were `before`. */
static void pc__pl061_update(struct pc_pl061 *g, uint8_t before)
{
    uint8_t now = pc__pl061_lines(g), rise = (uint8_t)(now & ~before),
            fall = (uint8_t)(before & ~now);
    bool level;

    g->edges |= (uint8_t)(((rise & (g->ibe | g->iev)) | (fall & (g->ibe | ~g->iev))) & ~g->is);
    level = pc__pl061_ris(g) & g->ie;
    if (level != g->irq_level)
        vmm_irq_set(&g->irq, level);
    g->irq_level = level;
}

static uint8_t *pc__pl061_reg(struct pc_pl061 *g, uint64_t off)
{
    switch (off) {
    case PC__PL061_DIR:
        return &g->dir;
    case PC__PL061_IS:
        return &g->is;
    case PC__PL061_IBE:
        return &g->ibe;
    case PC__PL061_IEV:
        return &g->iev;
    case PC__PL061_IE:
        return &g->ie;
    case PC__PL061_AFSEL:
        return &g->afsel;
    default:
        return NULL;
    }
}

VMM_DEF void pc_pl061_init(struct pc_pl061 *g, const struct vmm_irq *irq)
{
    memset(g, 0, sizeof *g);
    g->irq = *irq;
}

VMM_DEF void pc_pl061_set(struct pc_pl061 *g, unsigned line, bool level)
{
    uint8_t before = pc__pl061_lines(g), bit = (uint8_t)(1 << (line & 7));

    g->in = (uint8_t)(level ? g->in | bit : g->in & ~bit);
    pc__pl061_update(g, before);
}

VMM_DEF uint64_t pc_pl061_read(void *pl061, uint64_t off, unsigned len)
{
    struct pc_pl061 *g = (struct pc_pl061 *)pl061;
    uint64_t word = off & ~3ull;
    const uint8_t *reg = pc__pl061_reg(g, word);
    uint32_t val = pc__primecell_id(word, 0x61, 0);

    if (word < PC__PL061_DATA_END)
        val = pc__pl061_lines(g) & word >> 2;
    else if (reg)
        val = *reg;
    else if (word == PC__PL061_RIS)
        val = pc__pl061_ris(g);
    else if (word == PC__PL061_MIS)
        val = pc__pl061_ris(g) & g->ie;
    return pc__word_get(val, off, len);
}

VMM_DEF void pc_pl061_write(void *pl061, uint64_t off, unsigned len, uint64_t val)
{
    struct pc_pl061 *g = (struct pc_pl061 *)pl061;
    uint8_t before = pc__pl061_lines(g), byte = (uint8_t)val, mask = (uint8_t)(off >> 2);
    uint8_t *reg = pc__pl061_reg(g, off);

    (void)len;
    if (off < PC__PL061_DATA_END && !(off & 3))
        g->data = (uint8_t)((g->data & ~mask) | (byte & mask));
    else if (reg)
        *reg = byte;
    else if (off == PC__PL061_IC)
        g->edges &= (uint8_t)~byte;
    pc__pl061_update(g, before);
}

/* >>gic. Names and sections are those of ARM IHI 0048B.b, GICv2. The distributor: */
enum {
    PC__GICD_CTLR = 0,
    PC__GICD_TYPER = 4,
    PC__GICD_IIDR = 8,
    PC__GICD_IGROUPR = 0x080, /* from here on sets of bits, 0x80 bytes each: */
    PC__GICD_ISENABLER = 0x100,
    PC__GICD_ICENABLER = 0x180,
    PC__GICD_ISPENDR = 0x200,
    PC__GICD_ICPENDR = 0x280,
    PC__GICD_ISACTIVER = 0x300,
    PC__GICD_ICACTIVER = 0x380,
    PC__GICD_IPRIORITYR = 0x400, /* a byte for each interrupt */
    PC__GICD_ITARGETSR = 0x800,
    PC__GICD_ICFGR = 0xc00, /* two bits for each */
    PC__GICD_ICFGR_END = 0xd00,
    PC__GICD_SGIR = 0xf00,
    PC__GICD_CPENDSGIR = 0xf10, /* a byte for each SGI */
    PC__GICD_SPENDSGIR = 0xf20,
    PC__GICD_SGI_END = 0xf30,
    PC__GICD_ID = 0xfd0 /* identification, to the end of the page */
};

/* The CPU interface: */
enum {
    PC__GICC_CTLR = 0,
    PC__GICC_PMR = 4,
    PC__GICC_BPR = 8,
    PC__GICC_IAR = 0xc,
    PC__GICC_EOIR = 0x10,
    PC__GICC_RPR = 0x14,
    PC__GICC_HPPIR = 0x18,
    PC__GICC_ABPR = 0x1c,
    PC__GICC_AIAR = 0x20,
    PC__GICC_AEOIR = 0x24,
    PC__GICC_AHPPIR = 0x28,
    PC__GICC_APR = 0xd0,
    PC__GICC_IIDR = 0xfc,
    PC__GICC_DIR = 0x1000
};

enum {
    PC__GIC_GROUPS = 3, /* GICD_CTLR and GICC_CTLR: group 0, group 1 */
    PC__GICC_ACKCTL = 4,
    PC__GICC_FIQEN = 8,
    PC__GICC_CBPR = 0x10,
    PC__GICC_EOIMODE = 0x200,
    PC__GICC_CTLR_MASK = 0x3ff,
    PC__GIC_SGIS = 0xffff,     /* bits of the first word */
    PC__GIC_PRIORITIES = 0xf8, /* the bits of a priority that are there */
    PC__GIC_BPR_MIN = 2,       /* which is why a group priority has no more */
    PC__GIC_DIST_LEN = 0x1000,
    PC__GIC_CPU_LEN = 0x2000,
    PC__GIC_ARM = 0x43b,        /* whose design it is */
    PC__GIC_OTHER_GROUP = 1022, /* INTIDs that are none */
    PC__GIC_NOTHING = 1023
};

static struct pc_gic_word *pc__gic_word(struct pc_gic *g, unsigned cpu, unsigned id)
{
    return id < 32 ? &g->cpu[cpu].own : &g->spi[id / 32];
}

static uint32_t pc__gic_bit(unsigned id)
{
    return 1u << id % 32;
}

static uint8_t *pc__gic_priority(struct pc_gic *g, unsigned cpu, unsigned id)
{
    return id < 32 ? &g->cpu[cpu].priority[id] : &g->priority[id];
}

static bool pc__gic_group1(struct pc_gic *g, unsigned cpu, unsigned id)
{
    return pc__gic_word(g, cpu, id)->group1 & pc__gic_bit(id);
}

/* A system of one CPU has no targets to choose (4.3.12). */
static bool pc__gic_is_for(const struct pc_gic *g, unsigned cpu, unsigned id)
{
    return id < 32 || g->desc.ncpus == 1 || (g->targets[id] >> cpu & 1);
}

/* What a set reads as pending: a level as it is now, an edge as it was seen (4.3.7). */
static uint32_t pc__gic_pending(const struct pc_gic_word *w)
{
    return w->latched | (w->level & ~w->edge);
}

static unsigned pc__lowest_bit(uint32_t set)
{
    unsigned n = 0;

    while (!(set >> n & 1))
        n++;
    return n;
}

/* The interrupt of the highest priority, which is the lowest number, that waits for a CPU in one of
   these groups; of several that with the lowest INTID (3.2.1). */
static unsigned pc__gic_best(struct pc_gic *g, unsigned cpu, uint32_t groups)
{
    unsigned best = PC__GIC_NOTHING;

    for (unsigned id = 0; id < PC_GIC_LINES; id += 32) {
        const struct pc_gic_word *w = pc__gic_word(g, cpu, id);
        uint32_t ready = pc__gic_pending(w) & w->enabled & ~w->active;
        ready &= (groups & 1 ? ~w->group1 : 0) | (groups & 2 ? w->group1 : 0);
        for (; ready; ready &= ready - 1) {
            unsigned i = id + pc__lowest_bit(ready);
            if (pc__gic_is_for(g, cpu, i) &&
                (best == PC__GIC_NOTHING ||
                 *pc__gic_priority(g, cpu, i) < *pc__gic_priority(g, cpu, best)))
                best = i;
        }
    }
    return best;
}

/* The part of a priority that decides who interrupts whom (3.3.3). */
static unsigned pc__gic_group_priority(struct pc_gic *g, unsigned cpu, unsigned id)
{
    const struct pc_gic_cpu *c = &g->cpu[cpu];
    bool alias = pc__gic_group1(g, cpu, id) && !(c->ctlr & PC__GICC_CBPR);
    unsigned low = alias ? c->abpr : c->bpr + 1u; /* the lowest bit that counts */

    return *pc__gic_priority(g, cpu, id) & (0xff00u >> (8 - low));
}

static unsigned pc__gic_running(const struct pc_gic_cpu *c)
{
    return c->running ? 8 * pc__lowest_bit(c->running) : 0x100;
}

/* What a CPU is interrupted by, if anything: it is important enough, and more so than what runs. */
static unsigned pc__gic_signalled(struct pc_gic *g, unsigned cpu)
{
    struct pc_gic_cpu *c = &g->cpu[cpu];
    unsigned id = pc__gic_best(g, cpu, g->ctlr & c->ctlr & PC__GIC_GROUPS);

    if (id == PC__GIC_NOTHING || *pc__gic_priority(g, cpu, id) >= c->pmr ||
        pc__gic_group_priority(g, cpu, id) >= pc__gic_running(c))
        return PC__GIC_NOTHING;
    return id;
}

/* After anything that may have changed what CPUs are told (3.6.1: group 0 may be FIQs). */
static void pc__gic_update(struct pc_gic *g)
{
    for (unsigned cpu = 0; cpu < g->desc.ncpus; cpu++) {
        struct pc_gic_cpu *c = &g->cpu[cpu];
        unsigned id = pc__gic_signalled(g, cpu), lines = 0;
        if (id != PC__GIC_NOTHING)
            lines = !pc__gic_group1(g, cpu, id) && c->ctlr & PC__GICC_FIQEN ? PC_GIC_FIQ
                                                                            : PC_GIC_IRQ;
        if (lines == c->lines)
            continue;
        c->lines = lines;
        g->desc.output(g->desc.ctx, cpu, lines);
    }
}

static void pc__gic_line(struct pc_gic_word *w, uint32_t bit, bool level)
{
    if (level && !(w->level & bit))
        w->latched |= bit & w->edge;
    w->level = level ? w->level | bit : w->level & ~bit;
}

/* An SGI is pending as long as somebody waits for it. */
static void pc__gic_sgi(struct pc_gic *g, unsigned cpu, unsigned id, uint8_t from)
{
    struct pc_gic_cpu *c = &g->cpu[cpu];

    c->from[id] = (uint8_t)(from & ((1u << g->desc.ncpus) - 1));
    c->own.latched = c->from[id] ? c->own.latched | pc__gic_bit(id)
                                 : c->own.latched & ~pc__gic_bit(id);
}

/* GICD_SGIR (4.3.15). */
static void pc__gic_send(struct pc_gic *g, unsigned cpu, uint32_t val)
{
    unsigned id = val & 15, filter = val >> 24 & 3;
    uint32_t to = filter == 0 ? val >> 16 & 0xff : filter == 1 ? ~(1u << cpu) : 1u << cpu;

    for (unsigned i = 0; i < g->desc.ncpus && filter != 3; i++)
        if (to >> i & 1)
            pc__gic_sgi(g, i, id, (uint8_t)(g->cpu[i].from[id] | 1u << cpu));
}

/* An INTID as the CPU interface tells it: of an SGI with its first sender. */
static uint32_t pc__gic_tell(const struct pc_gic_cpu *c, unsigned id)
{
    return id < 16 ? id | pc__lowest_bit(c->from[id]) << 10 : id;
}

/* What may be told of an interrupt at a register (IAR, HPPIR) or at its alias, which is of group 1
   alone (4.4.4, 4.4.7, 4.4.9). */
static unsigned pc__gic_visible(struct pc_gic *g, unsigned cpu, unsigned id, bool alias)
{
    if (id == PC__GIC_NOTHING || (alias && !pc__gic_group1(g, cpu, id)))
        return PC__GIC_NOTHING;
    if (!alias && pc__gic_group1(g, cpu, id) && !(g->cpu[cpu].ctlr & PC__GICC_ACKCTL))
        return PC__GIC_OTHER_GROUP;
    return id;
}

/* GICC_IAR and GICC_AIAR: the CPU takes an interrupt. */
static uint32_t pc__gic_ack(struct pc_gic *g, unsigned cpu, bool alias)
{
    struct pc_gic_cpu *c = &g->cpu[cpu];
    unsigned id = pc__gic_visible(g, cpu, pc__gic_signalled(g, cpu), alias);
    struct pc_gic_word *w;
    uint32_t told;

    if (id >= PC_GIC_LINES)
        return id;
    w = pc__gic_word(g, cpu, id);
    told = pc__gic_tell(c, id);
    c->running |= 1u << pc__gic_group_priority(g, cpu, id) / 8;
    w->active |= pc__gic_bit(id);
    w->latched &= ~pc__gic_bit(id);
    if (id < 16)
        pc__gic_sgi(g, cpu, id, (uint8_t)(c->from[id] & (c->from[id] - 1)));
    return told;
}

/* GICC_HPPIR and GICC_AHPPIR: what waits, may it interrupt or not. */
static uint32_t pc__gic_waiting(struct pc_gic *g, unsigned cpu, bool alias)
{
    const struct pc_gic_cpu *c = &g->cpu[cpu];
    unsigned id = pc__gic_best(g, cpu, g->ctlr & PC__GIC_GROUPS);

    if (id != PC__GIC_NOTHING && !(c->ctlr & (pc__gic_group1(g, cpu, id) ? 2u : 1u)))
        return PC__GIC_NOTHING;
    return pc__gic_tell(c, pc__gic_visible(g, cpu, id, alias));
}

static void pc__gic_deactivate(struct pc_gic *g, unsigned cpu, unsigned id)
{
    if (id < PC_GIC_LINES)
        pc__gic_word(g, cpu, id)->active &= ~pc__gic_bit(id);
}

/* GICC_EOIR and GICC_AEOIR (4.4.5, 4.4.10): what runs has ended; with EOImode the interrupt stays
   active until GICC_DIR. */
static void pc__gic_end(struct pc_gic *g, unsigned cpu, unsigned id, bool alias)
{
    struct pc_gic_cpu *c = &g->cpu[cpu];
    bool other;

    if (id >= PC_GIC_LINES || !c->running)
        return;
    other = pc__gic_group1(g, cpu, id) ? !alias && !(c->ctlr & PC__GICC_ACKCTL) : alias;
    if (other)
        return;
    c->running &= c->running - 1;
    if (!(c->ctlr & PC__GICC_EOIMODE))
        pc__gic_deactivate(g, cpu, id);
}

/* A set of bits of the distributor, chosen by its offset. */
static uint32_t pc__gic_get_bits(struct pc_gic *g, unsigned cpu, unsigned off)
{
    unsigned id = off % 0x80 * 8;
    const struct pc_gic_word *w;

    if (id >= PC_GIC_LINES)
        return 0;
    w = pc__gic_word(g, cpu, id);
    switch (off & ~0x7fu) {
    case PC__GICD_IGROUPR:
        return w->group1;
    case PC__GICD_ISENABLER:
    case PC__GICD_ICENABLER:
        return w->enabled;
    case PC__GICD_ISPENDR:
    case PC__GICD_ICPENDR:
        return pc__gic_pending(w);
    default:
        return w->active;
    }
}

/* SGIs are always enabled, and pending by GICD_SPENDSGIR alone. */
static void pc__gic_put_bits(struct pc_gic *g, unsigned cpu, unsigned off, uint32_t val)
{
    unsigned id = off % 0x80 * 8;
    uint32_t others = id ? val : val & ~(uint32_t)PC__GIC_SGIS;
    struct pc_gic_word *w;

    if (id >= PC_GIC_LINES)
        return;
    w = pc__gic_word(g, cpu, id);
    switch (off & ~0x7fu) {
    case PC__GICD_IGROUPR:
        w->group1 = val;
        break;
    case PC__GICD_ISENABLER:
        w->enabled |= val;
        break;
    case PC__GICD_ICENABLER:
        w->enabled &= ~others;
        break;
    case PC__GICD_ISPENDR:
        w->latched |= others;
        break;
    case PC__GICD_ICPENDR:
        w->latched &= ~others;
        break;
    case PC__GICD_ISACTIVER:
        w->active |= val;
        break;
    default:
        w->active &= ~val;
    }
}

/* GICD_ICFGR: the higher of two bits says that an interrupt is an edge; SGIs are. */
static uint32_t pc__gic_get_config(struct pc_gic *g, unsigned cpu, unsigned off)
{
    unsigned id = (off - PC__GICD_ICFGR) * 4;
    uint32_t val = 0;

    for (unsigned i = 0; i < 16 && id + i < PC_GIC_LINES; i++)
        if (pc__gic_word(g, cpu, id + i)->edge & pc__gic_bit(id + i))
            val |= 2u << 2 * i;
    return val;
}

static void pc__gic_put_config(struct pc_gic *g, unsigned cpu, unsigned off, uint32_t val)
{
    unsigned id = (off - PC__GICD_ICFGR) * 4;

    for (unsigned i = 0; i < 16 && id && id + i < PC_GIC_LINES; i++) {
        struct pc_gic_word *w = pc__gic_word(g, cpu, id + i);
        uint32_t bit = pc__gic_bit(id + i);
        w->edge = val >> 2 * i & 2 ? w->edge | bit : w->edge & ~bit;
    }
}

/* Registers that are a byte for each interrupt; -1: there is none. */
static int pc__gic_get_byte(struct pc_gic *g, unsigned cpu, unsigned off)
{
    unsigned id = off % 0x400;

    if (off >= PC__GICD_CPENDSGIR && off < PC__GICD_SGI_END)
        return g->cpu[cpu].from[off % 16];
    if (off < PC__GICD_IPRIORITYR || off >= PC__GICD_ICFGR)
        return -1;
    if (id >= PC_GIC_LINES || (off >= PC__GICD_ITARGETSR && g->desc.ncpus == 1))
        return 0;
    if (off < PC__GICD_ITARGETSR)
        return *pc__gic_priority(g, cpu, id);
    return id < 32 ? 1 << cpu : g->targets[id];
}

static void pc__gic_put_byte(struct pc_gic *g, unsigned cpu, unsigned off, uint8_t val)
{
    unsigned id = off % 0x400;

    if (off >= PC__GICD_SPENDSGIR && off < PC__GICD_SGI_END)
        pc__gic_sgi(g, cpu, off % 16, g->cpu[cpu].from[off % 16] | val);
    else if (off >= PC__GICD_CPENDSGIR && off < PC__GICD_SPENDSGIR)
        pc__gic_sgi(g, cpu, off % 16, (uint8_t)(g->cpu[cpu].from[off % 16] & ~val));
    else if (off >= PC__GICD_IPRIORITYR && off < PC__GICD_ITARGETSR && id < PC_GIC_LINES)
        *pc__gic_priority(g, cpu, id) = val & PC__GIC_PRIORITIES;
    else if (off >= PC__GICD_ITARGETSR && off < PC__GICD_ICFGR && id >= 32 && id < PC_GIC_LINES)
        g->targets[id] = (uint8_t)(val & ((1u << g->desc.ncpus) - 1));
}

/* The words of the identification: those of ARM's GICv2. */
static uint32_t pc__gic_id(unsigned off)
{
    static const uint8_t id[] = {4, 0, 0, 0, 0x90, 0xb4, 0x2b, 0, 0x0d, 0xf0, 5, 0xb1};

    return off >= PC__GICD_ID ? id[(off - PC__GICD_ID) / 4] : 0;
}

static uint32_t pc__gic_dist_get(struct pc_gic *g, unsigned cpu, unsigned off)
{
    uint32_t val = 0;

    if (off == PC__GICD_CTLR)
        return g->ctlr;
    if (off == PC__GICD_TYPER)
        return (PC_GIC_LINES / 32 - 1) | (g->desc.ncpus - 1) << 5;
    if (off == PC__GICD_IIDR)
        return PC__GIC_ARM;
    if (off >= PC__GICD_IGROUPR && off < PC__GICD_IPRIORITYR)
        return pc__gic_get_bits(g, cpu, off);
    if (off >= PC__GICD_ICFGR && off < PC__GICD_ICFGR_END)
        return pc__gic_get_config(g, cpu, off);
    for (unsigned i = 0; i < 4 && pc__gic_get_byte(g, cpu, off) >= 0; i++)
        val |= (uint32_t)pc__gic_get_byte(g, cpu, off + i) << 8 * i;
    return val | pc__gic_id(off);
}

static void pc__gic_dist_put(struct pc_gic *g, unsigned cpu, unsigned off, uint32_t val)
{
    if (off == PC__GICD_CTLR)
        g->ctlr = val & PC__GIC_GROUPS;
    else if (off == PC__GICD_SGIR)
        pc__gic_send(g, cpu, val);
    else if (off >= PC__GICD_IGROUPR && off < PC__GICD_IPRIORITYR)
        pc__gic_put_bits(g, cpu, off, val);
    else if (off >= PC__GICD_ICFGR && off < PC__GICD_ICFGR_END)
        pc__gic_put_config(g, cpu, off, val);
}

static uint32_t pc__gic_cpu_get(struct pc_gic *g, unsigned cpu, unsigned off)
{
    struct pc_gic_cpu *c = &g->cpu[cpu];

    switch (off) {
    case PC__GICC_CTLR:
        return c->ctlr;
    case PC__GICC_PMR:
        return c->pmr;
    case PC__GICC_BPR:
        return c->bpr;
    case PC__GICC_ABPR:
        return c->abpr;
    case PC__GICC_IAR:
    case PC__GICC_AIAR:
        return pc__gic_ack(g, cpu, off == PC__GICC_AIAR);
    case PC__GICC_HPPIR:
    case PC__GICC_AHPPIR:
        return pc__gic_waiting(g, cpu, off == PC__GICC_AHPPIR);
    case PC__GICC_RPR:
        return c->running ? pc__gic_running(c) : 0xff;
    case PC__GICC_APR:
        return c->running;
    case PC__GICC_IIDR:
        return PC__GIC_ARM | 2u << 16;
    default:
        return 0;
    }
}

/* The alias is the binary point of group 1, and one more. */
static uint8_t pc__gic_binary_point(uint32_t val, unsigned least)
{
    return (uint8_t)((val & 7) > least ? val & 7 : least);
}

static void pc__gic_cpu_put(struct pc_gic *g, unsigned cpu, unsigned off, uint32_t val)
{
    struct pc_gic_cpu *c = &g->cpu[cpu];

    switch (off) {
    case PC__GICC_CTLR:
        c->ctlr = val & PC__GICC_CTLR_MASK;
        break;
    case PC__GICC_PMR:
        c->pmr = val & PC__GIC_PRIORITIES;
        break;
    case PC__GICC_BPR:
        c->bpr = pc__gic_binary_point(val, PC__GIC_BPR_MIN);
        break;
    case PC__GICC_ABPR:
        c->abpr = pc__gic_binary_point(val, PC__GIC_BPR_MIN + 1);
        break;
    case PC__GICC_EOIR:
    case PC__GICC_AEOIR:
        pc__gic_end(g, cpu, val & 0x3ff, off == PC__GICC_AEOIR);
        break;
    case PC__GICC_APR:
        c->running = val;
        break;
    case PC__GICC_DIR:
        if (c->ctlr & PC__GICC_EOIMODE)
            pc__gic_deactivate(g, cpu, val & 0x3ff);
        break;
    }
}

/* Words alone may be written, and bytes where each is an interrupt's; narrow reads see a part. */
static void pc__gic_write(struct pc_gic *g, unsigned cpu, bool dist, unsigned off, unsigned len,
                          uint64_t val)
{
    bool bytes = dist && pc__gic_get_byte(g, cpu, off) >= 0;

    for (unsigned i = 0; i < len && bytes; i++)
        pc__gic_put_byte(g, cpu, off + i, (uint8_t)(val >> 8 * i));
    if (bytes || off & 3 || len < 4)
        return;
    if (dist)
        pc__gic_dist_put(g, cpu, off, (uint32_t)val);
    else
        pc__gic_cpu_put(g, cpu, off, (uint32_t)val);
}

static uint64_t pc__gic_read(struct pc_gic *g, unsigned cpu, bool dist, unsigned off, unsigned len)
{
    unsigned word = off & ~3u;

    return pc__word_get(dist ? pc__gic_dist_get(g, cpu, word) : pc__gic_cpu_get(g, cpu, word), off,
                        len);
}

VMM_DEF void pc_gic_init(struct pc_gic *g, const struct pc_gic_desc *desc)
{
    memset(g, 0, sizeof *g);
    g->desc = *desc;
    if (!g->desc.ncpus)
        g->desc.ncpus = 1;
    for (unsigned i = 0; i < PC_GIC_CPUS; i++) {
        g->cpu[i].own.enabled = g->cpu[i].own.edge = PC__GIC_SGIS;
        g->cpu[i].bpr = PC__GIC_BPR_MIN;
        g->cpu[i].abpr = PC__GIC_BPR_MIN + 1;
    }
}

VMM_DEF void pc_gic_set(void *gic, unsigned line, bool level)
{
    struct pc_gic *g = (struct pc_gic *)gic;
    unsigned id = 32 + line;

    if (line >= PC_GIC_LINES - 32)
        return;
    vmm_enter(&g->desc.lock);
    pc__gic_line(&g->spi[id / 32], pc__gic_bit(id), level);
    pc__gic_update(g);
    vmm_leave(&g->desc.lock);
}

VMM_DEF void pc_gic_set_ppis(struct pc_gic *g, unsigned cpu, uint32_t which, uint32_t levels)
{
    struct pc_gic_word *w = &g->cpu[cpu].own;

    vmm_enter(&g->desc.lock);
    for (uint32_t bit = 1u << 16; bit; bit <<= 1)
        if (which & bit)
            pc__gic_line(w, bit, levels & bit);
    pc__gic_update(g);
    vmm_leave(&g->desc.lock);
}

VMM_DEF bool pc_gic_mmio(struct pc_gic *g, unsigned cpu, const struct vmm_exit *e)
{
    bool dist = e->addr - g->desc.dist < PC__GIC_DIST_LEN;
    uint64_t off = e->addr - (dist ? g->desc.dist : g->desc.cpu), val = 0;

    if (off + e->size > (dist ? PC__GIC_DIST_LEN : PC__GIC_CPU_LEN) || off + e->size < off)
        return false;
    vmm_enter(&g->desc.lock);
    if (e->write) {
        memcpy(&val, e->data, e->size);
        pc__gic_write(g, cpu, dist, (unsigned)off, e->size, val);
    } else {
        val = pc__gic_read(g, cpu, dist, (unsigned)off, e->size);
        memcpy(e->data, &val, e->size);
    }
    pc__gic_update(g);
    vmm_leave(&g->desc.lock);
    return true;
}

#endif /* PC__IMPLEMENTED */
#endif /* implementation */
