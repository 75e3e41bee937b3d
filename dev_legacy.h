/* dev_legacy.h - the small old devices of a PC, as pure state machines   MIT licence, see LICENSE

   WHAT IT IS      16550A UART, i8042 keyboard controller with a keyboard and no mouse, CMOS memory
                   with its clock (MC146818), debug-exit port, debug console port, and the two
                   registers that end a machine: ACPI sleep control and reset control. Bytes in,
                   bytes out: no clock, thread or descriptor of its own. Interrupts, output streams
                   and time are values that the caller hands in. Not here: the interrupt
                   controllers and the PIT, which live in the hypervisor.
                   Follows the data sheets of NS16550A, Intel 8042 (PS/2 keyboard controller) and
                   MC146818A, and ACPI 6.4 section 4.8.3.7 (sleep control and status).

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
                   call back into the device, with one exception: rx_room may call pc_uart_rx.
   MEMORY          The caller owns every struct; nothing is allocated. The fields of struct pc_uart,
                   pc_kbc and pc_rtc are private.
   ERRORS          None: nothing here can fail.
   GUEST TRUST     Every offset, width and value is answered. Accesses wider than a byte are carried
                   out as the ISA bus does: byte by byte, lowest address first, where the device has
                   several registers (UART, CMOS, sleep); else the lowest byte counts, and a
                   read has ones above it. A guest that ignores flow control harms only itself. */
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
    bool listens;    /* the guest has looked for input */
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
   data on port 0x60 and cmd on port 0x64. The keyboard answers commands and sends no keys. */
struct pc_kbc_desc {
    struct vmm_irq kbd;       /* line 1; none: for guests that poll */
    struct vmm_irq aux;       /* line 12; none: a controller without an auxiliary port */
    void (*reset)(void *ctx); /* the guest resets the machine; NULL: it cannot */
    void *ctx;
};

struct pc_kbc {
    struct pc_kbc_desc desc;
    struct pc_kbc_byte {
        uint8_t val;
        uint8_t status; /* bits of the status register that come with it: AUX, TIMEOUT */
    } out[16];          /* out[out_head] is in the output buffer, the others wait for their turn */
    uint8_t out_head, nout;
    uint8_t ram[32];       /* ram[0] is the command byte */
    uint8_t outport;       /* bit 1: A20 */
    uint8_t command;       /* the controller command that waits for its data byte; 0: none */
    uint8_t kbd_command;   /* likewise of the keyboard */
    uint8_t scancode_set;  /* 1, 2 or 3 */
    uint8_t kbd_last;      /* for the command RESEND */
    bool last_was_command; /* status bit 3 */
    bool kbd_level, aux_level;
};

VMM_DEF void pc_kbc_init(struct pc_kbc *k, const struct pc_kbc_desc *desc);
VMM_DEF uint64_t pc_kbc_data_read(void *kbc, uint64_t off, unsigned len);
VMM_DEF void pc_kbc_data_write(void *kbc, uint64_t off, unsigned len, uint64_t val);
VMM_DEF uint64_t pc_kbc_cmd_read(void *kbc, uint64_t off, unsigned len);
VMM_DEF void pc_kbc_cmd_write(void *kbc, uint64_t off, unsigned len, uint64_t val);

/* >>rtc: CMOS memory with the clock. Register it on the two ports 0x70 and 0x71. A guest that sets
   the clock shifts its own view of now() and nothing else. No interrupts: register C reads 0. */
struct pc_rtc_desc {
    int64_t (*now)(void *ctx); /* ns since 1970-01-01 UTC; NULL: it is always 1970 */
    void *ctx;
    uint64_t ram_low, ram_high; /* bytes of RAM below and above 4 GiB */
};

struct pc_rtc {
    int64_t (*now)(void *ctx);
    void *ctx;
    int64_t shift; /* seconds that the guest's clock is ahead of now() */
    uint8_t index; /* the register that port 0x71 means; bit 7, the NMI mask, is dropped */
    uint8_t ram[128];
};

VMM_DEF void pc_rtc_init(struct pc_rtc *r, const struct pc_rtc_desc *desc);
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

#ifdef __cplusplus
}
#endif
#endif /* DEV_LEGACY_H */

#if defined(DEV_LEGACY_IMPLEMENTATION) || defined(VMM_IMPLEMENTATION)
#ifndef PC__IMPLEMENTED
#define PC__IMPLEMENTED

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

/* >>kbc. Two chips: the controller (port 0x64, and what its commands make of port 0x60), and the
   keyboard behind it (port 0x60 otherwise). Both answer at once, through one queue. */
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

/* A byte from the keyboard. Translation to set 1 touches these of the values that it ever sends. */
static void pc__kbd_say(struct pc_kbc *k, uint8_t val)
{
    static const uint8_t translated[4] = {0xff, 0x43, 0x41, 0x3f};

    k->kbd_last = val;
    if (k->ram[0] & PC__KBC_TRANSLATE)
        val = val == 0x83 ? 0x41 : val < 4 ? translated[val] : val;
    pc__kbc_answer(k, val, 0);
}

/* The byte that follows a keyboard command: LEDs, typematic rate or scan code set (0 asks). */
static void pc__kbd_parameter(struct pc_kbc *k, uint8_t command, uint8_t val)
{
    if (command == 0xf0 && val > 3) {
        pc__kbd_say(k, PC__KBD_RESEND);
        return;
    }
    pc__kbd_say(k, PC__KBD_ACK);
    if (command == 0xf0 && val == 0)
        pc__kbd_say(k, k->scancode_set);
    else if (command == 0xf0)
        k->scancode_set = val;
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
    case 0xf5: /* disable, with defaults */
    case 0xf6: /* defaults */
        k->scancode_set = 2;
        pc__kbd_say(k, PC__KBD_ACK);
        break;
    case 0xfe: /* resend */
        pc__kbd_say(k, k->kbd_last);
        break;
    case 0xff: /* reset and self test */
        k->scancode_set = 2;
        pc__kbd_say(k, PC__KBD_ACK);
        pc__kbd_say(k, 0xaa);
        break;
    default: /* 0xf4 enable, 0xf7-0xfd kinds of keys; the rest are no commands */
        pc__kbd_say(k, val >= 0xf4 ? PC__KBD_ACK : PC__KBD_RESEND);
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

/* Without an auxiliary port its disable bit cannot be cleared: that is how Linux finds out. */
static void pc__kbc_set_ram(struct pc_kbc *k, unsigned at, uint8_t val)
{
    k->ram[at] = val;
    if (!pc__kbc_has_aux(k))
        k->ram[0] |= PC__KBC_AUX_OFF;
}

/* The data byte of a controller command. Nobody is at the auxiliary port: what is sent there comes
   back as the controller's own time-out report, so that a driver need not wait for its own. */
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
        pc__kbc_answer(k, PC__KBD_RESEND, aux | PC__KBC_TIMEOUT);
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
    pc__kbc_update_irq(k);
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
    pc__kbc_update_irq(k);
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
    pc__kbc_update_irq(k);
}

/* >>rtc. The time registers are computed from now() when they are read. While register B has SET,
   they are plain memory instead, so that a guest can write them one by one. */
enum {
    PC__RTC_SEC = 0x00,
    PC__RTC_MIN = 0x02,
    PC__RTC_HOUR = 0x04,
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
enum { PC__RTC_UIP = 0x80, PC__RTC_DIVIDER = 0x70, PC__RTC_RUNNING = 0x20 }; /* register A */
enum { PC__RTC_24H = 0x02, PC__RTC_BINARY = 0x04, PC__RTC_SET = 0x80 };      /* register B */

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

static int64_t pc__rtc_now(const struct pc_rtc *r)
{
    return r->now ? r->now(r->ctx) : 0;
}

/* Whole seconds of now(), rounded down: before 1970 too. */
static int64_t pc__rtc_now_seconds(const struct pc_rtc *r)
{
    int64_t ns = pc__rtc_now(r);

    return ns / 1000000000 - (ns % 1000000000 < 0);
}

static bool pc__rtc_is_time(uint8_t reg)
{
    return memchr(pc__rtc_time_regs, reg, sizeof pc__rtc_time_regs) != NULL;
}

static uint8_t pc__rtc_get_time(const struct pc_rtc *r, uint8_t reg)
{
    struct pc__rtc_time t = pc__rtc_from_seconds(pc__rtc_now_seconds(r) + r->shift);

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
    r->shift = pc__rtc_to_seconds(&t) - pc__rtc_now_seconds(r);
}

/* Update in progress: from 244 us before each second until it, while the clock runs. */
static uint8_t pc__rtc_get_a(const struct pc_rtc *r)
{
    int64_t ns = pc__rtc_now(r) % 1000000000;
    bool running = (r->ram[PC__RTC_A] & PC__RTC_DIVIDER) == PC__RTC_RUNNING;

    if (ns < 0)
        ns += 1000000000;
    if (!running || (r->ram[PC__RTC_B] & PC__RTC_SET) || ns < 1000000000 - 244000)
        return r->ram[PC__RTC_A];
    return r->ram[PC__RTC_A] | PC__RTC_UIP;
}

static uint8_t pc__rtc_get(const struct pc_rtc *r, uint8_t reg)
{
    if (pc__rtc_is_time(reg) && !(r->ram[PC__RTC_B] & PC__RTC_SET))
        return pc__rtc_get_time(r, reg);
    return reg == PC__RTC_A ? pc__rtc_get_a(r) : r->ram[reg];
}

static void pc__rtc_set_b(struct pc_rtc *r, uint8_t val)
{
    bool was_set = r->ram[PC__RTC_B] & PC__RTC_SET;

    r->ram[PC__RTC_B] = val;
    if (!was_set && (val & PC__RTC_SET))
        pc__rtc_freeze(r);
    if (was_set && !(val & PC__RTC_SET))
        pc__rtc_resume(r);
}

/* Registers C and D are read-only. A time register that is written while the clock runs takes
   effect alone. */
static void pc__rtc_put(struct pc_rtc *r, uint8_t reg, uint8_t val)
{
    bool live = pc__rtc_is_time(reg) && !(r->ram[PC__RTC_B] & PC__RTC_SET);

    if (reg == PC__RTC_C || reg == PC__RTC_D)
        return;
    if (reg == PC__RTC_B) {
        pc__rtc_set_b(r, val);
        return;
    }
    if (live)
        pc__rtc_freeze(r);
    r->ram[reg] = reg == PC__RTC_A ? val & (uint8_t)~PC__RTC_UIP : val;
    if (live)
        pc__rtc_resume(r);
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
    r->now = desc->now;
    r->ctx = desc->ctx;
    r->ram[PC__RTC_A] = PC__RTC_RUNNING | 6;
    r->ram[PC__RTC_B] = PC__RTC_24H;
    r->ram[PC__RTC_D] = 0x80;
    r->ram[0x14] = 0x02; /* equipment: a floating point unit, no diskettes */
    pc__rtc_put_size(r, 0x15, 2, low < 640 * kib ? low : 640 * kib, kib);
    pc__rtc_put_size(r, 0x17, 2, pc__rtc_above(low, mib), kib);
    pc__rtc_put_size(r, 0x30, 2, pc__rtc_above(low, mib), kib);
    pc__rtc_put_size(r, 0x34, 2, pc__rtc_above(low, 16 * mib), 64 * kib);
    pc__rtc_put_size(r, 0x5b, 3, desc->ram_high, 64 * kib);
}

/* Port 0x70 cannot be read back. */
VMM_DEF uint64_t pc_rtc_read(void *rtc, uint64_t off, unsigned len)
{
    const struct pc_rtc *r = (const struct pc_rtc *)rtc;
    uint64_t val = vmm_ones(len);

    for (unsigned i = 0; i < len; i++)
        if (off + i == 1)
            val ^= (uint64_t)(0xff ^ pc__rtc_get(r, r->index)) << (8 * i);
    return val;
}

VMM_DEF void pc_rtc_write(void *rtc, uint64_t off, unsigned len, uint64_t val)
{
    struct pc_rtc *r = (struct pc_rtc *)rtc;

    for (unsigned i = 0; i < len; i++) {
        uint8_t byte = (uint8_t)(val >> (8 * i));
        if (off + i == 0)
            r->index = byte & 0x7f;
        else if (off + i == 1)
            pc__rtc_put(r, r->index, byte);
    }
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

#endif /* PC__IMPLEMENTED */
#endif /* implementation */
