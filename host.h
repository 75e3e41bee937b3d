/* host.h - loop, streams, files, disks, threads, clocks of a VMM   MIT licence, see LICENSE

   WHAT IT IS      The only room of vmm that talks to the operating system, apart from the
                   hypervisor: one I/O loop, timers, signals, clocks, entropy, threads, guest RAM,
                   mapped files, disk images, and byte streams for guest consoles (terminal, file,
                   Unix socket, pseudo-terminal) with a raw mode that is undone on every way out.
                   For Linux (epoll, io_uring, eventfd, timerfd, signalfd), macOS, NetBSD and
                   DragonFly (kqueue), and Haiku (poll); what they do differently stands between
                   the marks >>system and >>posix.

   QUICK START     // an echo: what comes in goes out again, until the loop has run for 50 ms
                   static struct host_loop loop;
                   static struct host_stream console;
                   static struct host_timer timer;
                   static size_t echo(void *ctx, const void *buf, size_t len)
                   {
                       return host_stream_write((struct host_stream *)ctx, buf, len);
                   }
                   static void done(void *ctx)
                   {
                       host_loop_stop((struct host_loop *)ctx);
                   }
                   static int run(const char *spec) // "stdio", "unix:/tmp/console", ...
                   {
                       struct host_stream_desc desc = {&loop, spec, echo, 0, 0, 0, &console, 0};
                       if (host_loop_init(&loop, NULL) || host_stream_open(&console, &desc))
                           return -1;
                       host_timer_set(&loop, &timer, 50000000, done, &loop);
                       return host_loop_run(&loop);
                   }

   CONFIGURATION   set everywhere, before the first include:
                   HOST_STREAM_OUT   bytes of a stream's output ring; default 16384
                   HOST_STREAM_IN    bytes of a stream's input buffer; default 1024
                   HOST_TAP_QUEUES   queues of a tap at most; default 8
                   HOST_PASST_IN     bytes of frames from passt that are read ahead; default 131072
                   HOST_LOOP_EDGES   HOST_EDGE watches that a loop's io_uring serves, more of them
                                     go the usual way; default 32
                   HOST_LOOP_KQUEUE, HOST_LOOP_POLL
                                     how a loop waits; by default as the system does it best:
                                     epoll on Linux, poll on Haiku, elsewhere kqueue
                   HOST_LOOP_WATCHES descriptors that a loop with poll can watch; default 256
                   set in the implementing file only:
                   HOST_STACK_LEN    bytes of a thread's stack; default 131072
                   HOST_STREAM_LAG   ns that output of a busy stream is collected; default 2000000
                   HOST_STREAM_BYE   ns that host_stream_flush waits for a slow reader, and
                                     host_stream_close for all of a loop together; default 1 s
                   HOST_STREAM_RETRY ns between looks at what no descriptor reports (a pty without a
                                     client, a terminal in the background); default 200000000
                   _GNU_SOURCE, _NETBSD_SOURCE
                                     needed; defined here unless a system header came first
                   _BSD_SOURCE, B_USE_POSITIVE_POSIX_ERRORS
                                     needed on Haiku, where the latter asks for libposix_error_mapper

   DEPENDS ON      vmm.h. The declarations need no header of the system; the implementation libc.

   THREADS         Everything runs on the thread of its loop, or before host_loop_run and after it.
                   Any thread may call host_loop_stop, host_event_raise, host_bell_*,
                   host_stream_write, host_stream_poke, host_disk_rw, host_disk_flush, host_random,
                   the clocks, and what a mutex is for.
                   No callback is called with a lock of host.h held.
   MEMORY          The caller owns every object; none moves while it is in use. Nothing is allocated
                   but RAM, file mappings, io_urings and thread stacks.
   PROCESS         What a process has only once: host_stream_open has SIGPIPE, SIGTTIN and SIGTTOU
                   ignored where they have the default action; host_tty_raw keeps the terminal's
                   saved mode in a static variable (signal handlers have no other place) and takes
                   the handlers of fatal signals and SIGCONT. Descriptors 0, 1 and 2 must be open
                   before anything else is. None that was inherited gets O_NONBLOCK, for others
                   share it, but a tap's. host_passt_open may start a child process.
   ERRORS          0 or a negative errno; whatever a user can cause has a sentence in the log.
   GUEST TRUST     Lengths and offsets of disk transfers may be the guest's: checked here again. What
                   passt sends is checked like a guest's.
                   What a guest prints reaches the terminal as it is. */
#ifndef HOST_H
#define HOST_H

#if (defined(HOST_IMPLEMENTATION) || defined(VMM_IMPLEMENTATION)) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#if defined(__NetBSD__) && !defined(_NETBSD_SOURCE)
#define _NETBSD_SOURCE
#endif
#include "vmm.h"

#ifndef HOST_STREAM_OUT
#define HOST_STREAM_OUT 16384
#endif
#ifndef HOST_STREAM_IN
#define HOST_STREAM_IN 1024
#endif
#ifndef HOST_TAP_QUEUES
#define HOST_TAP_QUEUES 8
#endif
#ifndef HOST_PASST_IN
#define HOST_PASST_IN 131072
#endif
#define HOST_FRAME_MAX 65597 /* bytes of the largest frame: 64 KiB of IPv6, and two VLAN tags */
#ifndef HOST_LOOP_EDGES
#define HOST_LOOP_EDGES 32
#endif
#ifndef HOST_LOOP_WATCHES
#define HOST_LOOP_WATCHES 256
#endif
#if !defined(__linux__) && !defined(HOST_LOOP_KQUEUE) && !defined(HOST_LOOP_POLL)
#ifdef __HAIKU__
#define HOST_LOOP_POLL
#else
#define HOST_LOOP_KQUEUE
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

struct host_mutex {
    uint64_t opaque[8];
};

struct host_thread {
    void *(*fn)(void *ctx);
    void *ctx;
    const char *name;
    uintptr_t handle;
};

/* >>loop: waits for descriptors, events, timers and signals, and calls back. Fields without a
   comment are private. */
enum host_ready {
    HOST_IN = 1,  /* there is something to read, or its end */
    HOST_OUT = 2, /* a write would not block */
    HOST_HUP = 4, /* the other side is gone, or an error; reported whenever any bit is asked for */
    HOST_EDGE = 8 /* with HOST_IN, for a bell: each ring is reported once; no need to take it */
};

struct host_watch {
    int fd;          /* stays the caller's, open while watched; no regular file */
    unsigned events; /* enum host_ready; 0: dormant, nothing is reported */
    void (*ready)(void *ctx, unsigned events);
    void *ctx;
    unsigned armed;
};

struct host_event {
    void (*fn)(void *ctx);
    void *ctx;
    struct host_loop *loop;
    struct host_event *next;
    unsigned raised;
};

/* The io_uring of a loop. */
struct host__ring {
    int fd;       /* -1: none */
    bool asked;   /* the kernel was asked to report poll_fd */
    bool begun;   /* by the thread that runs the loop, to which the ring belongs then */
    bool unsure;  /* the file system cannot tell whether a read would wait */
    bool dirty;   /* some edge wants to be started or ended */
    void *shared; /* the two queues, and the entries of the first */
    void *sqes;
    size_t shared_len, sqes_len;
    unsigned *sq_head, *sq_tail, *cq_head, *cq_tail;
    unsigned sq_mask, cq_mask, sq_len;
    void *cqes;
    unsigned queued;   /* entries that the kernel has not seen yet */
    unsigned inflight; /* disk operations that it works on */
    struct host__edge {
        struct host_watch *watch; /* NULL: deleted */
        bool armed, ending;
    } edge[HOST_LOOP_EDGES];
};

struct host_loop {
    const struct vmm_log *log;
    int poll_fd;
    struct host_watch wake;
    int wake_end; /* where it is woken */
    struct host_event *events, *cursor;
    unsigned woken, stopping;
    uint64_t bye; /* when the streams that are closed shall be done; 0: none was since it ran */
    void *batch;  /* what is being dispatched, so that a deleted watch is not called */
    int nbatch;
    uintptr_t runner; /* the thread in host_loop_run; atomic */
    int bell[8];      /* to be rung before the loop waits again */
    unsigned nbells;
    struct host__ring ring;
    struct host__ops {
        struct host_disk_op *first, *last;
    } jobs, asks; /* operations to be done by the loop's thread, to be handed to the ring */
    struct host__timers {
        struct host_mutex mutex;
        struct host_timer *first;
        uint64_t until; /* the loop sleeps until then at most; 0: it does not */
    } timers;           /* where they are no descriptors */
#ifdef HOST_LOOP_POLL
    struct host_watch *watched[HOST_LOOP_WATCHES];
    unsigned nwatched;
#endif
};

/* All zero before the first host_timer_set. */
struct host_timer {
    void (*fn)(void *ctx);
    void *ctx;
    struct host_loop *loop;
    struct host_watch watch; /* it is a descriptor, or has: */
    uint64_t due;            /* host_now() then; 0: it has nothing to do */
    struct host_timer *next;
};

struct host_signals {
    void (*fn)(void *ctx, int signo);
    void *ctx;
    struct host_watch watch;
    struct host_thread thread; /* that waits for them, where no descriptor does */
    uint64_t set;
    int report;
    unsigned ended;
};

VMM_DEF int host_loop_init(struct host_loop *l, const struct vmm_log *log);
/* After everything that uses the loop was taken from it. */
VMM_DEF void host_loop_fini(struct host_loop *l);
/* Before the first host_loop_run: has an io_uring do this loop's waiting and its disk operations,
   with one system call for all that is to be begun and waited for. -errno: this host has none (or
   forbids it, or one older than Linux 5.17); the loop then works as before. */
VMM_DEF int host_loop_async(struct host_loop *l);
/* Calls back until host_loop_stop. Every callback runs on the calling thread. */
VMM_DEF int host_loop_run(struct host_loop *l);
/* Ends the current or, when none is under way, the next host_loop_run. Any thread. */
VMM_DEF void host_loop_stop(struct host_loop *l);

/* Starts watching w->fd for w->events; fill the first four fields. -EPERM: a regular file or such,
   which is always ready and cannot be waited for. */
VMM_DEF int host_watch_add(struct host_loop *l, struct host_watch *w);
VMM_DEF int host_watch_set(struct host_loop *l, struct host_watch *w, unsigned events);
/* Before its descriptor is closed. Safe from any callback, for any watch, and when not watched. */
VMM_DEF void host_watch_del(struct host_loop *l, struct host_watch *w);

/* An event calls fn on the loop once for any number of raises before. Costs no descriptor. */
VMM_DEF void host_event_init(struct host_loop *l, struct host_event *ev, void (*fn)(void *ctx),
                             void *ctx);
VMM_DEF void host_event_raise(struct host_event *ev); /* any thread */
VMM_DEF void host_event_fini(struct host_loop *l, struct host_event *ev);

/* A bell is a descriptor that can be rung and watched (HOST_IN), even by a hypervisor: on Linux an
   eventfd. The caller closes it. Hypervisors of other systems know of no such thing, and so there
   are none. */
VMM_DEF int host_bell_open(void);      /* -errno; -ENOSYS: not on this system */
VMM_DEF void host_bell_ring(int bell); /* any thread */
/* The same, but on the loop's own thread only before the loop waits again: for several interrupts in
   a row the guest is interrupted once, and with an io_uring that is no system call of its own. */
VMM_DEF void host_bell_post(struct host_loop *l, int bell);
VMM_DEF bool host_bell_take(int bell); /* rearms it; false: it had not been rung */

/* Calls fn once, in ns nanoseconds; replaces what was set before. */
VMM_DEF int host_timer_set(struct host_loop *l, struct host_timer *t, uint64_t ns,
                           void (*fn)(void *ctx), void *ctx);
/* Once it was set: another time, any thread. The last word counts. */
VMM_DEF void host_timer_again(struct host_timer *t, uint64_t ns);
VMM_DEF void host_timer_cancel(struct host_timer *t);

/* Blocks these signals in the calling thread, and so in those that it starts afterwards, and has
   the loop call fn for each. */
VMM_DEF int host_signals_add(struct host_loop *l, struct host_signals *s, const int *signos,
                             unsigned n, void (*fn)(void *ctx, int signo), void *ctx);
/* Ends the delivery; the signals stay blocked. */
VMM_DEF void host_signals_del(struct host_loop *l, struct host_signals *s);

/* >>clock, >>random */
VMM_DEF uint64_t host_now(void); /* monotonic ns */
VMM_DEF int64_t host_wall(void); /* ns since 1970, UTC */
/* Fills buf with entropy of the system's; returns the bytes filled, fewer only if it has none. */
VMM_DEF size_t host_random(void *buf, size_t len);

/* >>thread: struct host_mutex and struct host_thread stand above */
VMM_DEF void host_mutex_init(struct host_mutex *m);
/* The mutex as the lock that devices and buses are given. */
VMM_DEF struct vmm_lock host_mutex_lock(struct host_mutex *m);
/* name is what top shows, up to 15 characters, kept by reference; a small stack: no big locals. */
VMM_DEF int host_thread_start(struct host_thread *t, void *(*fn)(void *ctx), void *ctx,
                              const char *name);
VMM_DEF void host_thread_join(struct host_thread *t);

/* A condition that a thread waits for with a mutex held, and that others make true under the same
   mutex. */
struct host_cond {
    uint64_t opaque[8];
};

VMM_DEF void host_cond_init(struct host_cond *c);
/* Gives the mutex back while it waits. May return for no reason: look again. */
VMM_DEF void host_cond_wait(struct host_cond *c, struct host_mutex *m);
VMM_DEF void host_cond_wake(struct host_cond *c); /* all who wait */

/* A gate that opens once `missing` threads have arrived. */
struct host_gate {
    struct host_mutex mutex;
    struct host_cond opened;
    unsigned missing;
};

VMM_DEF void host_gate_init(struct host_gate *g, unsigned missing);
VMM_DEF void host_gate_arrive(struct host_gate *g);
VMM_DEF void host_gate_wait(struct host_gate *g); /* until it is open */

/* >>memory */
enum { HOST_RAM_HUGE = 1 }; /* ask for huge pages: faster, and memory comes in pieces of 2 MiB */

struct host_file;

/* Zeroed private memory, aligned to 2 MiB, that costs nothing until touched and stays out of core
   dumps. len in whole pages. NULL: no address space; the log says so. */
VMM_DEF void *host_ram(uint64_t len, unsigned flags, const struct vmm_log *log);
VMM_DEF void host_ram_free(void *ram, uint64_t len);
/* Replaces RAM at `at` by a private view of the file, which nobody has to read or copy. All three
   in whole pages, the last of which may hold the file's end (zeroes follow it), else -EINVAL.
   Whoever truncates the file later faults the guest. */
VMM_DEF int host_ram_file(void *at, const struct host_file *f, uint64_t off, uint64_t len);
/* Reads len bytes, or as many as there are, to `at`: half the price of copying them from f->data. */
VMM_DEF int host_file_read(const struct host_file *f, uint64_t off, void *at, uint64_t len);

/* >>file: a whole file, read-only, as memory. */
struct host_file {
    int fd;
    const uint8_t *data; /* NULL: not open */
    uint64_t len;
};

/* `what` begins the sentence on failure: "kernel". -ENOENT, -EACCES, -EISDIR, -EINVAL: empty or not
   a regular file. */
VMM_DEF int host_file_open(struct host_file *f, const char *what, const char *path,
                           const struct vmm_log *log);
VMM_DEF void host_file_close(struct host_file *f); /* also when all zero */
/* As many open descriptors as the system lets this process have. */
VMM_DEF void host_files_raise(void);

/* >>disk: a regular file or a block device in sectors of 512 bytes. */
enum {
    HOST_DISK_RO = 1,     /* never written */
    HOST_DISK_DIRECT = 2, /* transfers bypass the host's page cache */
    HOST_DISK_IMAGE = 4,  /* holds a disk rather than is one: has any length, see host_disk.len */
    HOST_DISK_NEW = 8     /* IMAGE: made, empty, if there is none */
};

struct host_disk {
    int fd;       /* O_DIRECT if that was asked for */
    int plain_fd; /* not O_DIRECT, for what is not aligned; else the same as fd */
    bool ro;
    bool image;      /* the caller raises len before it writes beyond; may be open and empty */
    uint64_t len;    /* bytes; 0: not open */
    uint32_t sector; /* bytes of a logical block: 512, of a block device what it says */
    uint64_t dev, ino;
};

struct host_iov { /* is a struct iovec */
    void *base;
    size_t len;
};

/* Opens and locks it: many readers or one writer, among those who lock at all. flags: HOST_DISK_*.
   -EBUSY: in use, -EROFS: not writable, -EINVAL: also a file system without O_DIRECT. */
VMM_DEF int host_disk_open(struct host_disk *d, const char *path, unsigned flags,
                           const struct vmm_log *log);
/* Both are the same file, by whatever names. */
VMM_DEF bool host_disk_same(const struct host_disk *a, const struct host_disk *b);
/* Transfers all of it, or -errno: -EIO outside the disk or where the file has become shorter,
   -EROFS. Blocks. */
VMM_DEF int host_disk_rw(const struct host_disk *d, bool write, const struct host_iov *iov,
                         unsigned n, uint64_t off);
/* What was written before survives a power cut. */
VMM_DEF int host_disk_flush(const struct host_disk *d);
/* Gives the room of a range back, which then reads as zeroes. -EOPNOTSUPP: not there. */
VMM_DEF int host_disk_punch(const struct host_disk *d, uint64_t off, uint64_t len);
/* Opens a new, empty image without a name in a directory: it is gone once closed. */
VMM_DEF int host_disk_temp(struct host_disk *d, const char *dir, const struct vmm_log *log);
VMM_DEF void host_disk_close(struct host_disk *d); /* also when all zero */

/* The same without waiting. A loop with an io_uring lets the kernel do what the kernel can do
   without a thread of its own, or slowly; buffered writes, which are copies into the page cache, and
   everything where there is no io_uring, are done one by one on the loop's thread. Hence a loop and
   a thread for each disk. */
enum host_disk_kind {
    HOST_DISK_READ,
    HOST_DISK_WRITE,
    HOST_DISK_FLUSH,   /* what was done before survives a power cut */
    HOST_DISK_DISCARD, /* the space may be given back: a hint */
    HOST_DISK_ZERO,    /* reads as zeroes from now on */
    HOST_DISK_CALL     /* whatever `call` does on the loop's thread, and it may block */
};

/* Fill the first part; the rest zero. */
struct host_disk_op {
    enum host_disk_kind kind;
    bool unmap; /* ZERO: its space may be given back */
    const struct host_disk *disk;
    const struct host_iov *iov; /* READ, WRITE; stays until done */
    unsigned n;
    uint64_t off, len;                    /* bytes; len: DISCARD, ZERO */
    int (*call)(struct host_disk_op *op); /* CALL: returns what done is told */
    /* On the loop's thread, never from within host_disk_submit: 0 or -errno, as host_disk_rw. */
    void (*done)(struct host_disk_op *op, int err);
    void *ctx;
    /* private */
    struct host_disk_op *next;
    struct host_iov rest; /* what is left of an element */
    size_t skip;          /* bytes of the first element that are done */
    int fd, err;
    bool by_hand; /* zeroes have to be written */
};

/* Begins an operation. On the loop's thread, or before that runs. Operations end in any order: who
   wants a write on disk flushes after it is done. */
VMM_DEF void host_disk_submit(struct host_loop *l, struct host_disk_op *op);
/* On the thread that ran the loop, after host_loop_run: waits for the operations that the kernel
   works on, whose done is called, and forgets those not begun. */
VMM_DEF void host_disk_drain(struct host_loop *l);

/* Notices that a disk's file has become longer, at once, but during writes, and where a loop does not
   wait by epoll, only once a second. */
struct host_disk_growth {
    struct host_disk *disk;
    void (*grown)(void *ctx);
    void *ctx;
    struct host_loop *loop;
    struct host_watch watch;
    struct host_timer timer;
};

/* From now on d->len grows with the file, and then grown is called on the loop's thread. -ENOTSUP:
   a block device, whose changes are not reported. */
VMM_DEF int host_disk_watch(struct host_loop *l, struct host_disk_growth *w, struct host_disk *d,
                            void (*grown)(void *ctx), void *ctx);
VMM_DEF void host_disk_unwatch(struct host_disk_growth *w); /* also when all zero */

/* >>stream: where a guest console comes from and goes to.
       stdio       standard input and output; a terminal is put into raw mode, and there Ctrl-A is
                   the escape key
       null        swallows everything
       file:PATH   output alone; the file is created or emptied
       unix:PATH   listens there, mode 0600, for one client at a time; others wait for their turn
       tcp:PORT    the same on this host's loopback address alone, where every user may come
       pty         a new pseudo-terminal, pty_name says which
   Input is not lost: no more is read than there is room for, and it is offered until taken. The next
   client of a socket is let in once the device has taken what the last one sent, or
   HOST_STREAM_BYE after it came: then the rest of that is thrown away.
   Output never blocks the writer, and waits for a listener that is slow. What is printed while
   nobody listens (no client, reader gone) is lost, and so is what a client had not read when it
   left: the next one starts afresh. */
struct host_stream_desc {
    struct host_loop *loop;
    const char *spec; /* one of the above; need not live on */
    /* The device takes input and says how many bytes. NULL: input is not read at all. */
    size_t (*input)(void *ctx, const void *buf, size_t len);
    /* There is room again after a host_stream_write that took less than all. May be NULL. */
    void (*writable)(void *ctx);
    /* Ctrl-A and then key came from a terminal. NULL: Ctrl-A is a byte like any other. Ctrl-A twice
       sends it once. Must not close the stream. */
    void (*escape)(void *ctx, char key);
    /* Somebody is at the other end from now on, or is gone and all that he sent was taken. At first
       nobody is; host_stream_open tells of those who need not come (all but unix, tcp and
       pty). */
    void (*peer)(void *ctx, bool there);
    void *ctx;
    const struct vmm_log *log;
};

struct host_stream {
    struct host_stream_desc desc;
    char pty_name[32]; /* "/dev/pts/7"; "" unless a pty */
    char path[108];    /* the socket's, else "" */
    uint64_t path_dev, path_ino;
    int kind, put;
    struct host_watch in, out,
        door; /* out has a descriptor of its own; door: the listening socket */
    struct host_event event;
    struct host_timer lag, retry;
    /* output, guarded by mutex */
    struct host_mutex mutex;
    size_t out_at, out_len;
    bool active;  /* the loop will look at the ring without being told */
    bool hurried; /* it was told to do so at once */
    bool starved; /* a write took less than all */
    bool drop;    /* nobody listens */
    /* input, of the loop's thread */
    size_t in_at, in_len;
    bool in_always; /* cannot be waited for: a regular file, /dev/null */
    bool in_eof, in_asleep, tty, prefix;
    bool there;       /* what peer() was told last */
    bool left;        /* the client is gone, but not all of its input is taken */
    unsigned waiting; /* the device may have left something: atomic */
    uint8_t in_buf[HOST_STREAM_IN];
    uint8_t out_ring[HOST_STREAM_OUT];
};

/* Opens it; callbacks come once the loop runs. -EINVAL: an unknown spec. */
VMM_DEF int host_stream_open(struct host_stream *s, const struct host_stream_desc *d);
/* Flushes, closes, removes a socket file, restores the terminal. When nobody writes any more. Of
   several streams none waits for a slow reader after HOST_STREAM_BYE since the first. */
VMM_DEF void host_stream_close(struct host_stream *s);
/* Takes up to len bytes without blocking, and says how many. Fewer: writable() will be called. Any
   thread. */
VMM_DEF size_t host_stream_write(struct host_stream *s, const void *buf, size_t len);
/* Writes out what was taken, as far as the other side takes it within HOST_STREAM_BYE. Not while
   the loop runs on another thread. */
VMM_DEF void host_stream_flush(struct host_stream *s);
/* The device has room for input again. Any thread; next to nothing when none is waiting. */
VMM_DEF void host_stream_poke(struct host_stream *s);
/* The stream as a device wants it: write and poke. */
VMM_DEF struct vmm_stream host_stream_port(struct host_stream *s);

/* >>net: where the frames of a guest's network card go. Frames are whole Ethernet packets; a Linux
   tap's and vhost's stand behind 12 bytes of struct virtio_net_hdr_v1. None of these calls blocks.
   macOS and Haiku have no taps, vhost is Linux's: there, these say so. */
enum host_offload { /* what a tap can leave to the reader of its frames */
                    HOST_OFFLOAD_CSUM = 1,
                    HOST_OFFLOAD_TSO4 = 2,
                    HOST_OFFLOAD_TSO6 = 4,
                    HOST_OFFLOAD_ECN = 8,
                    HOST_OFFLOAD_USO4 = 16,
                    HOST_OFFLOAD_USO6 = 32
};

struct host_tap {
    int fd[HOST_TAP_QUEUES]; /* one a queue; HOST_IN: there are frames, HOST_OUT: there is room */
    unsigned nqueues;
    unsigned offload; /* what this kernel can: enum host_offload */
    unsigned mtu;     /* 0: not known */
    bool up;          /* the interface is up, as far as we are told */
    bool bare;        /* its frames have no header: on NetBSD and DragonFly */
    char name[16];
    /* private */
    unsigned nused;
    struct host_watch news;
    void (*changed)(void *ctx);
    void *ctx;
};

/* Opens the tap of this name, or makes one that vanishes with us, with so many queues. */
VMM_DEF int host_tap_open(struct host_tap *t, const char *name, unsigned nqueues,
                          const struct vmm_log *log);
/* Takes over a descriptor of a tap that was opened with IFF_VNET_HDR and IFF_NO_PI; it gets
   O_NONBLOCK. Its interface may be in another network namespace: up stays true, mtu 0. */
VMM_DEF int host_tap_adopt(struct host_tap *t, int fd, const struct vmm_log *log);
VMM_DEF void host_tap_close(struct host_tap *t);
/* One frame; bytes, or -EAGAIN, or -errno: it is lost. */
VMM_DEF int host_tap_send(struct host_tap *t, unsigned queue, const struct host_iov *iov,
                          unsigned n);
VMM_DEF int host_tap_recv(struct host_tap *t, unsigned queue, const struct host_iov *iov,
                          unsigned n);
VMM_DEF void host_tap_set_offload(struct host_tap *t, unsigned offload);
/* The first n queues get frames from now on; at first it is one. */
VMM_DEF void host_tap_set_queues(struct host_tap *t, unsigned n);
/* Has `changed` called on the loop when t->up changes. Not after host_tap_adopt. */
VMM_DEF int host_tap_follow(struct host_tap *t, struct host_loop *l, void (*changed)(void *ctx),
                            void *ctx, const struct vmm_log *log);

/* The network by a Unix socket of a helper's: a stream, each frame behind its length in 4 bytes, as
   passt (1) and socket_vmnet have it, or one of datagrams, each a frame, which begins with the word
   VFKT, as gvproxy knows it by the name of vfkit or unixgram. Helpers are told apart by `datagrams`;
   the names here are passt's. */
struct host_passt_desc {
    struct host_loop *loop;
    const char *path; /* its socket, kept by reference; NULL: on Linux our own passt is started */
    bool datagrams;
    unsigned mtu; /* that our own tells the guest; 0: its default */
    /* There are frames, or there is room, or `up` has changed. */
    void (*ready)(void *ctx);
    void *ctx;
    const struct vmm_log *log;
};

struct host_passt {
    struct host_passt_desc desc;
    bool up; /* connected */
    /* private */
    struct host_watch watch;
    struct host_timer retry;
    struct host_event more;
    uint64_t delay; /* ns until the next try */
    int pid;        /* of our own passt, or 0 */
    bool broken;    /* to be hung up */
    char own[108];  /* the path of our end of a datagram socket, else "" */
    size_t in_at, in_len, out_at, out_len;
    uint8_t in[HOST_PASST_IN];
    uint8_t out[HOST_FRAME_MAX + 4]; /* the rest of a frame that was sent in part */
};

VMM_DEF int host_passt_open(struct host_passt *p, const struct host_passt_desc *d);
VMM_DEF void host_passt_close(struct host_passt *p);
/* As host_tap_send and host_tap_recv. While it is not up, what is sent is lost. */
VMM_DEF int host_passt_send(struct host_passt *p, const struct host_iov *iov, unsigned n);
VMM_DEF int host_passt_recv(struct host_passt *p, const struct host_iov *iov, unsigned n);
/* What `ready` is to be called for: HOST_IN, HOST_OUT. Only on the loop's thread. */
VMM_DEF void host_passt_watch(struct host_passt *p, unsigned events);

/* vhost-net: the kernel serves two rings of a card itself, between guest memory and a tap. */
struct host_vhost {
    int fd;            /* -1: not open */
    uint64_t features; /* what the kernel can do with rings */
};

struct host_ring {
    uint32_t size;
    void *desc, *driver, *device;
    int kick, call; /* bells: rung by the guest, and for it */
};

/* -errno, with a sentence in the log (which may be NULL). */
VMM_DEF int host_vhost_open(struct host_vhost *v, const struct vmm_mem *mem,
                            const struct vmm_log *log);
/* Ring 0 to the guest or 1 from it, with those of `features` that concern rings. */
VMM_DEF int host_vhost_start(struct host_vhost *v, unsigned ring, const struct host_ring *r,
                             uint64_t features, int tap_fd);
/* Another bell for the guest. */
VMM_DEF void host_vhost_call(struct host_vhost *v, unsigned ring, int call);
VMM_DEF void host_vhost_stop(struct host_vhost *v, unsigned ring);
VMM_DEF void host_vhost_close(struct host_vhost *v); /* also when not open, but not when all zero */

/* >>tty: one terminal per process. Raw mode: every key goes to the guest, even Ctrl-C; output
   processing stays. It is entered as soon as the process is in the foreground, again after SIGCONT,
   and left before a signal that would end the process takes effect. */
VMM_DEF int host_tty_raw(int fd);    /* -ENOTTY: not a terminal. host_stream_open calls it */
VMM_DEF void host_tty_restore(void); /* async-signal-safe; nothing when not raw */
/* In characters. -ENOTTY: no terminal, or one that does not know its size. SIGWINCH tells of a change;
   in raw mode it also comes after SIGCONT. */
VMM_DEF int host_tty_size(int fd, uint16_t *cols, uint16_t *rows);
/* Was it a terminal that is no longer there? */
VMM_DEF bool host_tty_gone(int fd);

#ifdef __cplusplus
}
#endif
#endif /* HOST_H */

#if (defined(HOST_IMPLEMENTATION) || defined(VMM_IMPLEMENTATION)) && !defined(HOST__IMPLEMENTED)
#define HOST__IMPLEMENTED

#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/falloc.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/vhost.h>
#include <net/if.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#elif defined(__APPLE__)
#include <sys/disk.h>
#elif defined(__NetBSD__) || defined(__DragonFly__)
#define HOST__BSD
#include <net/if.h>
#include <net/route.h>
#ifdef __NetBSD__
#include <sys/dkio.h>
#else
#include <pthread_np.h>
#endif
#elif defined(__HAIKU__)
#include <OS.h>
#else
#error "host.h: not ported to this system yet"
#endif
#ifdef HOST_LOOP_KQUEUE
#include <sys/event.h>
#endif
#ifndef MAP_ANON
#error "host.h: define _GNU_SOURCE before the first include of the implementing file"
#endif

#ifndef HOST_STACK_LEN
#define HOST_STACK_LEN 131072
#endif
#ifndef HOST_STREAM_LAG
#define HOST_STREAM_LAG 2000000
#endif
#ifndef HOST_STREAM_BYE
#define HOST_STREAM_BYE 1000000000
#endif
#ifndef HOST_STREAM_RETRY
#define HOST_STREAM_RETRY 200000000
#endif

#define HOST__BATCH     16 /* descriptors reported by one wait */
#define HOST__RING_LEN  64 /* what an io_uring is asked at once */
#define HOST__JOBS      8  /* blocking steps before a loop looks around again */
#define HOST__ZEROES    65536
#define HOST__IOV_MAX   1024 /* what the system takes at once, IOV_MAX everywhere */
#define HOST__FRAME_IOV 512  /* pieces of a frame */
#define HOST__SIP       256  /* bytes that a terminal reported writable is trusted to take */
#define HOST__RAM_UNIT  ((uintptr_t)2 << 20)

/* >>system: what each does in its own way, up to >>posix: first what has nothing to do with the loop.
 */
#if defined(__linux__)

VMM_DEF int host_bell_open(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    return fd < 0 ? -errno : fd;
}

VMM_DEF void host_bell_ring(int bell)
{
    uint64_t one = 1;

    if (write(bell, &one, sizeof one) < 0)
        return; /* full: then it is readable, which is all we want */
}

VMM_DEF bool host_bell_take(int bell) /* also of a timerfd */
{
    uint64_t count;

    return read(bell, &count, sizeof count) == (ssize_t)sizeof count;
}

/* At most 256 bytes. */
static bool host__entropy(void *buf, size_t len)
{
    return !getentropy(buf, len);
}

static void host__thread_name(const char *name)
{
    pthread_setname_np(pthread_self(), name);
}

/* A description of standard output that is ours alone, so that O_NONBLOCK on it concerns nobody
   else. -1: the system does not give us one. */
static int host__own_stdout(void)
{
    return open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

/* Block devices opened with it refuse a second user, such as a mounted file system. */
#define HOST__O_EXCL O_EXCL

/* A block device: its logical block, and its length where that is not where lseek ends. */
static void host__device_know(int fd, uint32_t *sector, uint64_t *len)
{
    int bytes = 0;

    (void)len;
    if (!ioctl(fd, BLKSSZGET, &bytes) && bytes >= 512)
        *sector = (uint32_t)bytes;
}

/* Has the range of a file or device read as zeroes, and gives its space back if `punch`. */
static int host__zero_range(int fd, bool punch, uint64_t off, uint64_t len)
{
    int mode = (punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE;

    return fallocate(fd, mode, (off_t)off, (off_t)len) ? -errno : 0;
}

static int host__sync(int fd)
{
    return fdatasync(fd);
}

/* Transfers with this descriptor bypass the page cache. -EINVAL: the file system knows no such thing.
 */
static int host__open_direct(const char *path, int flags)
{
    int fd = open(path, flags | O_DIRECT);

    return fd < 0 ? -errno : fd;
}

#else

/* Loops wake up by a pipe, to which these two are of use. */
VMM_DEF int host_bell_open(void)
{
    return -ENOSYS;
}

VMM_DEF void host_bell_ring(int bell)
{
    if (write(bell, "", 1) < 0)
        return; /* full: then it is readable, which is all we want */
}

VMM_DEF bool host_bell_take(int bell)
{
    char rings[64];
    bool any = false;

    while (read(bell, rings, sizeof rings) > 0)
        any = true;
    return any;
}

static bool host__entropy(void *buf, size_t len)
{
    arc4random_buf(buf, len);
    return true;
}

static void host__thread_name(const char *name)
{
#if defined(__APPLE__)
    pthread_setname_np(name);
#elif defined(__NetBSD__)
    pthread_setname_np(pthread_self(), "%s", (void *)(uintptr_t)name);
#elif defined(__DragonFly__)
    pthread_set_name_np(pthread_self(), name);
#else
    rename_thread(find_thread(NULL), name);
#endif
}

/* A terminal can be opened once more by its name, and what is opened is ours alone. */
static int host__own_stdout(void)
{
    const char *name = ttyname(1);

    return name ? open(name, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC) : -1;
}

#define HOST__O_EXCL 0

static void host__device_know(int fd, uint32_t *sector, uint64_t *len)
{
    uint32_t bytes = 0;
#if defined(__APPLE__)
    uint64_t blocks = 0;

    if (ioctl(fd, DKIOCGETBLOCKSIZE, &bytes) || ioctl(fd, DKIOCGETBLOCKCOUNT, &blocks))
        return;
    *len = blocks * bytes;
#elif defined(__NetBSD__)
    off_t all = 0;

    if (ioctl(fd, DIOCGSECTORSIZE, &bytes) || ioctl(fd, DIOCGMEDIASIZE, &all))
        return;
    *len = (uint64_t)all;
#else
    (void)fd;
    (void)len;
#endif
    if (bytes >= 512)
        *sector = bytes;
}

/* Only of macOS is it documented that a hole, which must be of whole blocks, reads as zeroes. */
static int host__zero_range(int fd, bool punch, uint64_t off, uint64_t len)
{
#ifdef F_PUNCHHOLE
    struct fpunchhole hole = {.fp_offset = (off_t)off, .fp_length = (off_t)len};

    if (punch && !fcntl(fd, F_PUNCHHOLE, &hole))
        return 0;
    if (punch && errno != EINVAL && errno != ENOTSUP)
        return -errno;
#else
    (void)fd;
    (void)punch;
    (void)off;
    (void)len;
#endif
    return -EOPNOTSUPP;
}

/* fsync alone may leave data in the cache of the drive. */
static int host__sync(int fd)
{
#if defined(F_FULLFSYNC)
    return fcntl(fd, F_FULLFSYNC) < 0 ? fsync(fd) : 0;
#elif defined(FDISKSYNC)
    return fsync_range(fd, FDATASYNC | FDISKSYNC, 0, 0);
#else
    return fsync(fd);
#endif
}

static int host__open_direct(const char *path, int flags)
{
#ifdef F_NOCACHE
    int fd = open(path, flags);

    if (fd >= 0)
        (void)fcntl(fd, F_NOCACHE, 1);
    return fd < 0 ? -errno : fd;
#elif defined(O_DIRECT)
    int fd = open(path, flags | O_DIRECT);

    return fd < 0 ? -errno : fd;
#else
    (void)path;
    (void)flags;
    return -EINVAL;
#endif
}

#endif

#ifdef __HAIKU__ /* which has these two by other names */
#define preadv(fd, v, n, off)  readv_pos(fd, off, v, (size_t)(n))
#define pwritev(fd, v, n, off) writev_pos(fd, off, v, (size_t)(n))
#endif

#if defined(HOST_LOOP_KQUEUE) || defined(HOST_LOOP_POLL)
#define HOST__BY_HAND
#endif

#ifndef HOST__BY_HAND
/* >>epoll: a loop where bells, timers, signals and changes of files are descriptors, and one with an
   io_uring. */

static int host__poll_open(struct host_loop *l)
{
    l->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    return l->poll_fd < 0 ? -errno : 0;
}

static int host__wake_open(struct host_loop *l)
{
    l->wake.fd = l->wake_end = host_bell_open();
    return l->wake.fd < 0 ? l->wake.fd : 0;
}

/* Changes what is reported for w from `from` to `to`, sets of enum host_ready. */
static int host__poll_set(struct host_loop *l, struct host_watch *w, unsigned from, unsigned to)
{
    int op = !from ? EPOLL_CTL_ADD : to ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;
    struct epoll_event e = {.data.ptr = w};

    e.events = (to & HOST_IN ? EPOLLIN : 0u) | (to & HOST_OUT ? EPOLLOUT : 0u) |
               (to & HOST_EDGE ? EPOLLET : 0u);
    return epoll_ctl(l->poll_fd, op, w->fd, &e) ? -errno : 0;
}

/* A watch that is about to vanish may still wait for its call in the batch under way. */
static void host__poll_forget(struct host_loop *l, const struct host_watch *w)
{
    struct epoll_event *batch = (struct epoll_event *)l->batch;

    for (int i = 0; batch && i < l->nbatch; i++)
        if (batch[i].data.ptr == w)
            batch[i].data.ptr = NULL;
}

/* Waits once, for at most `ms` (-1: for ever), and calls back whoever is ready. */
static int host__poll_wait(struct host_loop *l, int ms)
{
    struct epoll_event batch[HOST__BATCH];
    int n = epoll_wait(l->poll_fd, batch, HOST__BATCH, ms);

    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    l->batch = batch;
    l->nbatch = n;
    for (int i = 0; i < n; i++) {
        struct host_watch *w = (struct host_watch *)batch[i].data.ptr;
        unsigned e = batch[i].events;
        if (w)
            w->ready(w->ctx, (e & EPOLLIN ? HOST_IN : 0u) | (e & EPOLLOUT ? HOST_OUT : 0u) |
                                 (e & (EPOLLHUP | EPOLLERR) ? HOST_HUP : 0u));
    }
    l->batch = NULL;
    return 0;
}

/* >>epoll timers and signals */

static int host__timer_open(void)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

    return fd < 0 ? -errno : fd;
}

static int host__timer_arm(int fd, uint64_t ns)
{
    struct itimerspec at = {.it_interval = {0, 0}};

    ns = ns ? ns : 1; /* zero would disarm it */
    at.it_value.tv_sec = (time_t)(ns / 1000000000);
    at.it_value.tv_nsec = (long)(ns % 1000000000);
    return timerfd_settime(fd, 0, &at, NULL) ? -errno : 0;
}

static void host__timer_ready(void *ctx, unsigned events)
{
    struct host_timer *t = (struct host_timer *)ctx;

    (void)events;
    if (host_bell_take(t->watch.fd)) /* else it was set anew since it became ready */
        t->fn(t->ctx);
}

VMM_DEF int host_timer_set(struct host_loop *l, struct host_timer *t, uint64_t ns,
                           void (*fn)(void *ctx), void *ctx)
{
    t->fn = fn;
    t->ctx = ctx;
    if (!t->loop) {
        int rc, fd = host__timer_open();
        if (fd < 0)
            return vmm_err(l->log, fd, "no descriptor for a timer; raise ulimit -n");
        t->watch = (struct host_watch){fd, HOST_IN, host__timer_ready, t, 0};
        rc = host_watch_add(l, &t->watch);
        if (rc) {
            close(fd);
            return vmm_err(l->log, rc, "a timer cannot be waited for: %s", strerror(-rc));
        }
        t->loop = l;
    }
    return host__timer_arm(t->watch.fd, ns);
}

VMM_DEF void host_timer_again(struct host_timer *t, uint64_t ns)
{
    (void)host__timer_arm(t->watch.fd, ns);
}

VMM_DEF void host_timer_cancel(struct host_timer *t)
{
    if (!t->loop)
        return;
    host_watch_del(t->loop, &t->watch);
    close(t->watch.fd);
    t->loop = NULL;
}

static int host__signals_open(const sigset_t *set)
{
    int fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);

    return fd < 0 ? -errno : fd;
}

/* The next signal that has come in, or 0. */
static int host__signals_take(int fd)
{
    struct signalfd_siginfo info;

    return read(fd, &info, sizeof info) == (ssize_t)sizeof info ? (int)info.ssi_signo : 0;
}

/* One signal a call: fn may delete us, and if more have come in, the loop calls again. */
static void host__signals_ready(void *ctx, unsigned events)
{
    struct host_signals *s = (struct host_signals *)ctx;
    int signo = host__signals_take(s->watch.fd);

    (void)events;
    if (signo)
        s->fn(s->ctx, signo);
}

VMM_DEF int host_signals_add(struct host_loop *l, struct host_signals *s, const int *signos,
                             unsigned n, void (*fn)(void *ctx, int signo), void *ctx)
{
    sigset_t set;
    int rc, fd;

    sigemptyset(&set);
    for (unsigned i = 0; i < n; i++)
        sigaddset(&set, signos[i]);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    fd = host__signals_open(&set);
    if (fd < 0)
        return vmm_err(l->log, fd, "no descriptor for signals; raise ulimit -n");
    s->fn = fn;
    s->ctx = ctx;
    s->watch = (struct host_watch){fd, HOST_IN, host__signals_ready, s, 0};
    rc = host_watch_add(l, &s->watch);
    if (rc) {
        close(fd);
        return vmm_err(l->log, rc, "signals cannot be waited for: %s", strerror(-rc));
    }
    return 0;
}

VMM_DEF void host_signals_del(struct host_loop *l, struct host_signals *s)
{
    host_watch_del(l, &s->watch);
    close(s->watch.fd);
    s->watch.fd = -1;
}

static int host__inotify_open(void)
{
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

    return fd < 0 ? -errno : fd;
}

/* Has `fd` tell of the next change of a file, and of that alone: our own writes are changes too. */
static int host__inotify_arm(int fd, int file)
{
    char path[32];

    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    return inotify_add_watch(fd, path, IN_MODIFY | IN_ONESHOT) < 0 ? -errno : 0;
}

static void host__inotify_take(int fd)
{
    _Alignas(struct inotify_event) char events[1024];

    while (read(fd, events, sizeof events) > 0)
        ;
}

/* >>ring: the io_uring of a loop. Its submission queue is filled in one place, just before the
   loop waits, with what was asked for since: edges, bells, disk operations. What finds no room
   waits in its list for the next time. user_data says what a completion is about. */
enum {
    HOST__TAG_OP,   /* the address of a disk operation, which is a multiple of 4 */
    HOST__TAG_POLL, /* poll_fd is readable */
    HOST__TAG_EDGE, /* the number of the edge in the bits above */
    HOST__TAG_NONE, /* nobody waits for it */
    HOST__TAG_MASK = 3
};

static void host__op_ended(struct host_loop *l, struct host_disk_op *op, int res);
static const struct host_iov *host__op_iov(struct host_disk_op *op, unsigned *n);

/* A free entry, all zero, or NULL: the queue is full. */
static struct io_uring_sqe *host__sqe(struct host__ring *r)
{
    unsigned tail = *r->sq_tail;
    struct io_uring_sqe *e = (struct io_uring_sqe *)r->sqes + (tail & r->sq_mask);

    if (tail - __atomic_load_n(r->sq_head, __ATOMIC_ACQUIRE) == r->sq_len)
        return NULL;
    memset(e, 0, sizeof *e);
    /* The kernel looks only when this thread calls it: the entry may be announced empty. */
    __atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
    r->queued++;
    return e;
}

/* Starts or ends edge i, as its owner wants; false: no room. */
static bool host__edge_change(struct host__ring *r, unsigned i)
{
    struct host__edge *edge = &r->edge[i];
    bool start = edge->watch && !edge->armed, end = !edge->watch && edge->armed && !edge->ending;
    struct io_uring_sqe *e = start || end ? host__sqe(r) : NULL;

    if (!e)
        return !start && !end;
    if (start) {
        e->opcode = IORING_OP_POLL_ADD;
        e->fd = edge->watch->fd;
        e->len = IORING_POLL_ADD_MULTI;
        e->poll32_events = POLLIN;
        e->user_data = i << 2 | HOST__TAG_EDGE;
        edge->armed = true;
        return true;
    }
    e->opcode = IORING_OP_POLL_REMOVE;
    e->addr = i << 2 | HOST__TAG_EDGE;
    e->user_data = HOST__TAG_NONE;
    edge->ending = true;
    return true;
}

static bool host__edges_fill(struct host__ring *r)
{
    for (unsigned i = 0; r->dirty && i < HOST_LOOP_EDGES; i++)
        if (!host__edge_change(r, i))
            return false;
    r->dirty = false;
    return true;
}

/* Asks once for poll_fd: whatever is ready when it is asked again is reported again. */
static bool host__poll_fill(struct host_loop *l)
{
    struct io_uring_sqe *e = l->ring.asked ? NULL : host__sqe(&l->ring);

    if (!e)
        return l->ring.asked;
    e->opcode = IORING_OP_POLL_ADD;
    e->fd = l->poll_fd;
    e->poll32_events = POLLIN;
    e->user_data = HOST__TAG_POLL;
    l->ring.asked = true;
    return true;
}

static bool host__bells_fill(struct host_loop *l)
{
    static const uint64_t one = 1;

    while (l->nbells) {
        struct io_uring_sqe *e = host__sqe(&l->ring);
        if (!e)
            return false;
        e->opcode = IORING_OP_WRITE;
        e->fd = l->bell[--l->nbells];
        e->addr = (uintptr_t)&one;
        e->len = sizeof one;
        e->flags = IOSQE_CQE_SKIP_SUCCESS;
        e->user_data = HOST__TAG_NONE;
    }
    return true;
}

static void host__sqe_op(struct io_uring_sqe *e, struct host_disk_op *op)
{
    unsigned n;

    e->fd = op->fd;
    e->user_data = (uintptr_t)op;
    if (op->kind == HOST_DISK_FLUSH) {
        e->opcode = IORING_OP_FSYNC;
        e->fsync_flags = IORING_FSYNC_DATASYNC;
        return;
    }
    e->off = op->off;
    if (op->kind == HOST_DISK_READ || op->kind == HOST_DISK_WRITE) {
        e->opcode = op->kind == HOST_DISK_READ ? IORING_OP_READV : IORING_OP_WRITEV;
        e->addr = (uintptr_t)host__op_iov(op, &n);
        e->len = n;
        return;
    }
    e->opcode = IORING_OP_FALLOCATE;
    e->addr = op->len;
    e->len =
        FALLOC_FL_KEEP_SIZE |
        (op->kind == HOST_DISK_DISCARD || op->unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
}

/* A read that is alone is done at once if its data is in the page cache: to ask the ring costs more
   than the system call that it saves. Else it stays. */
static bool host__ask_now(struct host_loop *l)
{
    struct host_disk_op *op = l->asks.first;
    const struct iovec *v;
    unsigned n;
    ssize_t res;

    if (!op || op->next || l->ring.unsure || l->ring.inflight || op->kind != HOST_DISK_READ ||
        op->fd != op->disk->plain_fd)
        return false;
    v = (const struct iovec *)(const void *)host__op_iov(op, &n);
    res = syscall(SYS_preadv2, op->fd, v, (long)n, (long)op->off, 0L, RWF_NOWAIT);
    l->ring.unsure = res < 0 && errno == EOPNOTSUPP;
    if (res <= 0)
        return false;
    l->asks.first = NULL;
    host__op_ended(l, op, (int)res);
    return true;
}

static bool host__asks_fill(struct host_loop *l)
{
    for (struct host_disk_op *op; (op = l->asks.first); l->ring.inflight++) {
        struct io_uring_sqe *e = host__sqe(&l->ring);
        if (!e)
            return false;
        l->asks.first = op->next;
        host__sqe_op(e, op);
    }
    return true;
}

/* One system call: begins what was queued and, if `wait`, waits until something has ended. A full
   or busy kernel is no error: the caller takes completions and comes back. */
static int host__ring_enter(struct host__ring *r, bool wait)
{
    long n = syscall(SYS_io_uring_enter, r->fd, r->queued, wait ? 1 : 0, IORING_ENTER_GETEVENTS,
                     NULL, 0);

    if (n < 0)
        return errno == EINTR || errno == EBUSY || errno == EAGAIN ? 0 : -errno;
    r->queued -= (unsigned)n;
    return 0;
}

/* A multishot poll has something to report, or has ended: on our wish, or because the kernel had
   no room for a report. One that cannot be had is left to the loop's usual way. */
static void host__edge_event(struct host_loop *l, unsigned i, int res, unsigned flags)
{
    struct host__edge *edge = &l->ring.edge[i];
    struct host_watch *w = edge->watch;

    if (!(flags & IORING_CQE_F_MORE))
        edge->armed = false;
    if (edge->ending || !edge->armed) { /* a poll that is about to report refuses to end: again */
        edge->ending = false;
        l->ring.dirty = true;
    }
    if (w && res < 0 && res != -ECANCELED) {
        edge->watch = NULL;
        host__poll_set(l, w, 0, w->armed);
    } else if (w) {
        w->ready(w->ctx, HOST_IN);
    }
}

static int host__ring_event(struct host_loop *l, const struct io_uring_cqe *c)
{
    switch (c->user_data & HOST__TAG_MASK) {
    case HOST__TAG_OP:
        l->ring.inflight--;
        host__op_ended(l, (struct host_disk_op *)(uintptr_t)c->user_data, c->res);
        return 0;
    case HOST__TAG_POLL:
        l->ring.asked = false;
        return host__poll_wait(l, 0);
    case HOST__TAG_EDGE:
        host__edge_event(l, (unsigned)(c->user_data >> 2), c->res, c->flags);
        return 0;
    default:
        return 0;
    }
}

/* Takes the completions that are there now. */
static int host__ring_reap(struct host_loop *l)
{
    struct host__ring *r = &l->ring;
    unsigned head = *r->cq_head, n = __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE) - head;
    int rc = 0;

    while (n-- && !rc) {
        struct io_uring_cqe c = ((struct io_uring_cqe *)r->cqes)[head & r->cq_mask];
        __atomic_store_n(r->cq_head, ++head, __ATOMIC_RELEASE);
        rc = host__ring_event(l, &c);
    }
    return rc;
}

/* Begins all that was asked for, waits if the loop has nothing else to do, and calls back. */
static int host__ring_turn(struct host_loop *l, bool wait)
{
    struct host__ring *r = &l->ring;
    bool all;
    int rc;

    if (!r->begun && syscall(SYS_io_uring_register, r->fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0))
        return -errno;
    r->begun = true;
    for (int i = 0; i < HOST__JOBS && host__ask_now(l); i++)
        ;
    wait = wait && !l->jobs.first;
    all = host__edges_fill(r) && host__poll_fill(l) && host__bells_fill(l) && host__asks_fill(l);
    rc = host__ring_enter(r, wait && all);
    return rc ? rc : host__ring_reap(l);
}

/* Takes over an edge watch, or its end; false: not ours. */
static bool host__ring_edge(struct host__ring *r, struct host_watch *w, unsigned events)
{
    struct host__edge *at = NULL;

    for (unsigned i = 0; r->fd >= 0 && !at && i < HOST_LOOP_EDGES; i++)
        if (events ? !r->edge[i].watch && !r->edge[i].armed : r->edge[i].watch == w)
            at = &r->edge[i];
    if (!at)
        return false;
    at->watch = events ? w : NULL;
    r->dirty = true;
    return true;
}

static void host__ring_close(struct host__ring *r)
{
    if (r->fd < 0)
        return;
    if (r->shared)
        munmap(r->shared, r->shared_len);
    if (r->sqes)
        munmap(r->sqes, r->sqes_len);
    close(r->fd);
    r->fd = -1;
}

static void *host__ring_map(const struct host__ring *r, size_t len, off_t what)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, what);

    return p == MAP_FAILED ? NULL : p;
}

/* Where the kernel has put everything. */
static int host__ring_find(struct host__ring *r, const struct io_uring_params *p)
{
    size_t sq_end = p->sq_off.array + p->sq_entries * sizeof(unsigned);
    size_t cq_end = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
    uint8_t *base;

    r->shared_len = sq_end > cq_end ? sq_end : cq_end;
    r->sqes_len = p->sq_entries * sizeof(struct io_uring_sqe);
    r->shared = host__ring_map(r, r->shared_len, IORING_OFF_SQ_RING);
    r->sqes = host__ring_map(r, r->sqes_len, IORING_OFF_SQES);
    base = (uint8_t *)r->shared;
    if (!base || !r->sqes)
        return -ENOMEM;
    r->sq_head = (unsigned *)(void *)(base + p->sq_off.head);
    r->sq_tail = (unsigned *)(void *)(base + p->sq_off.tail);
    r->cq_head = (unsigned *)(void *)(base + p->cq_off.head);
    r->cq_tail = (unsigned *)(void *)(base + p->cq_off.tail);
    r->cqes = base + p->cq_off.cqes;
    r->sq_len = p->sq_entries;
    r->sq_mask = p->sq_entries - 1;
    r->cq_mask = p->cq_entries - 1;
    for (unsigned i = 0; i < r->sq_len; i++)
        ((unsigned *)(void *)(base + p->sq_off.array))[i] = i;
    return 0;
}

/* Made by one thread and run by another: it belongs to nobody until it is begun. The kernel does
   least when it may assume that one thread alone uses it, and works only while that one waits. */
static int host__ring_open(struct host__ring *r)
{
    const unsigned need = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_CQE_SKIP;
    struct io_uring_params p = {.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER |
                                         IORING_SETUP_DEFER_TASKRUN};
    int rc;

    r->fd = (int)syscall(SYS_io_uring_setup, HOST__RING_LEN, &p);
    if (r->fd < 0 && errno == EINVAL) { /* before Linux 6.1 */
        p = (struct io_uring_params){.flags = IORING_SETUP_R_DISABLED};
        r->fd = (int)syscall(SYS_io_uring_setup, HOST__RING_LEN, &p);
    }
    if (r->fd < 0)
        return -errno;
    rc = (p.features & need) == need ? host__ring_find(r, &p) : -ENOSYS;
    if (rc)
        host__ring_close(r);
    return rc;
}

/* Waits for what the kernel works on. */
static void host__ring_drain(struct host_loop *l)
{
    int rc = 0;

    while (l->ring.inflight && !rc) {
        rc = host__ring_enter(&l->ring, true);
        rc = rc ? rc : host__ring_reap(l);
    }
}

#else
/* >>by hand: what epoll's companions do, for the two loops below: a pipe wakes the loop, which knows its
   timers itself, and a thread waits for signals. */

/* Both ends; neither waits. */
static int host__pipe(int ends[2])
{
    if (pipe(ends))
        return -errno;
    for (unsigned i = 0; i < 2; i++) {
        (void)fcntl(ends[i], F_SETFD, FD_CLOEXEC);
        (void)fcntl(ends[i], F_SETFL, O_NONBLOCK);
    }
    return 0;
}

static int host__wake_open(struct host_loop *l)
{
    int ends[2], rc = host__pipe(ends);

    if (rc)
        return rc;
    l->wake.fd = ends[0];
    l->wake_end = ends[1];
    return 0;
}

/* Its data is always there, and to wait for it is refused. */
static bool host__never_waits(int fd)
{
    struct stat st;

    return !fstat(fd, &st) && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISBLK(st.st_mode));
}

static void host__mutex_enter(void *ctx);
static void host__mutex_leave(void *ctx);
static void host__loop_wake(struct host_loop *l);

/* The last word counts; a loop that would sleep for longer is woken. */
VMM_DEF void host_timer_again(struct host_timer *t, uint64_t ns)
{
    struct host__timers *all = &t->loop->timers;
    bool early;

    host__mutex_enter(&all->mutex);
    t->due = host_now() + (!ns ? 1 : ns < INT64_MAX ? ns : INT64_MAX);
    early = t->due < all->until;
    host__mutex_leave(&all->mutex);
    if (early)
        host__loop_wake(t->loop);
}

VMM_DEF int host_timer_set(struct host_loop *l, struct host_timer *t, uint64_t ns,
                           void (*fn)(void *ctx), void *ctx)
{
    host__mutex_enter(&l->timers.mutex);
    t->fn = fn;
    t->ctx = ctx;
    if (!t->loop) {
        t->loop = l;
        t->next = l->timers.first;
        l->timers.first = t;
    }
    host__mutex_leave(&l->timers.mutex);
    host_timer_again(t, ns);
    return 0;
}

VMM_DEF void host_timer_cancel(struct host_timer *t)
{
    struct host_loop *l = t->loop;
    struct host_timer **at;

    if (!l)
        return;
    host__mutex_enter(&l->timers.mutex);
    for (at = &l->timers.first; *at != t; at = &(*at)->next)
        ;
    *at = t->next;
    t->due = 0;
    t->loop = NULL;
    host__mutex_leave(&l->timers.mutex);
}

/* The loop is about to sleep, for `ms` (-1: for ever) or until the first timer is due: says for how
   many ns, UINT64_MAX for ever. */
static uint64_t host__timers_sleep(struct host_loop *l, int ms)
{
    uint64_t now = host_now(), until = ms < 0 ? UINT64_MAX : now + (uint64_t)ms * 1000000;

    host__mutex_enter(&l->timers.mutex);
    for (struct host_timer *t = l->timers.first; t; t = t->next)
        if (t->due && t->due < until)
            until = t->due;
    l->timers.until = until;
    host__mutex_leave(&l->timers.mutex);
    return until == UINT64_MAX ? until : until > now ? until - now : 0;
}

static void host__timers_awake(struct host_loop *l)
{
    host__mutex_enter(&l->timers.mutex);
    l->timers.until = 0;
    host__mutex_leave(&l->timers.mutex);
}

/* One that was due at `now`, and is no more; or NULL. */
static struct host_timer *host__timer_due(struct host_loop *l, uint64_t now)
{
    struct host_timer *t;

    host__mutex_enter(&l->timers.mutex);
    for (t = l->timers.first; t && (!t->due || t->due > now); t = t->next)
        ;
    if (t)
        t->due = 0;
    host__mutex_leave(&l->timers.mutex);
    return t;
}

/* One that is set anew meanwhile is due later than `now`. */
static void host__timers_run(struct host_loop *l)
{
    uint64_t now = host_now();
    struct host_timer *t;

    while ((t = host__timer_due(l, now)))
        t->fn(t->ctx);
}

static void host__sigset(sigset_t *set, uint64_t bits)
{
    sigemptyset(set);
    for (int signo = 1; signo < 64; signo++)
        if (bits >> signo & 1)
            sigaddset(set, signo);
}

/* Says which came; when the pipe is full, the loop has long been told. */
static void *host__signals_main(void *ctx)
{
    struct host_signals *s = (struct host_signals *)ctx;
    sigset_t set;
    int signo;

    host__sigset(&set, s->set);
    while (!sigwait(&set, &signo) && !__atomic_load_n(&s->ended, __ATOMIC_SEQ_CST)) {
        uint8_t byte = (uint8_t)signo;
        while (write(s->report, &byte, 1) < 0 && errno == EINTR)
            ;
    }
    return NULL;
}

/* The thread blocks all signals: those that others wait for must not come to it. */
static int host__signals_start(struct host_signals *s)
{
    sigset_t all, mine;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &mine);
    rc = host_thread_start(&s->thread, host__signals_main, s, "signals");
    pthread_sigmask(SIG_SETMASK, &mine, NULL);
    return rc;
}

/* One a call: fn may delete us, and if more have come in, the loop calls again. */
static void host__signals_ready(void *ctx, unsigned events)
{
    struct host_signals *s = (struct host_signals *)ctx;
    uint8_t signo;

    (void)events;
    if (read(s->watch.fd, &signo, 1) == 1)
        s->fn(s->ctx, signo);
}

VMM_DEF int host_signals_add(struct host_loop *l, struct host_signals *s, const int *signos,
                             unsigned n, void (*fn)(void *ctx, int signo), void *ctx)
{
    int ends[2], rc;
    sigset_t set;

    *s = (struct host_signals){.fn = fn, .ctx = ctx};
    for (unsigned i = 0; i < n; i++)
        s->set |= 1ull << signos[i];
    host__sigset(&set, s->set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    rc = host__pipe(ends);
    if (rc)
        return vmm_err(l->log, rc, "no descriptor for signals; raise ulimit -n");
    s->report = ends[1];
    s->watch = (struct host_watch){ends[0], HOST_IN, host__signals_ready, s, 0};
    rc = host_watch_add(l, &s->watch);
    if (!rc)
        rc = host__signals_start(s);
    if (!rc)
        return 0;
    host_watch_del(l, &s->watch);
    close(ends[0]);
    close(ends[1]);
    return vmm_err(l->log, rc, "signals cannot be waited for: %s", strerror(-rc));
}

VMM_DEF void host_signals_del(struct host_loop *l, struct host_signals *s)
{
    pthread_t waiter;
    int signo = 1;

    while (!(s->set >> signo & 1))
        signo++;
    __atomic_store_n(&s->ended, 1, __ATOMIC_SEQ_CST);
    memcpy(&waiter, &s->thread.handle, sizeof waiter);
    pthread_kill(waiter, signo);
    host_thread_join(&s->thread);
    host_watch_del(l, &s->watch);
    close(s->watch.fd);
    close(s->report);
    s->watch.fd = -1;
}

/* Without an io_uring l->ring.fd stays -1, and disk operations are done on the loop's thread. */
static int host__ring_open(struct host__ring *r)
{
    (void)r;
    return -ENOSYS;
}

static bool host__ring_edge(struct host__ring *r, struct host_watch *w, unsigned events)
{
    (void)r;
    (void)w;
    (void)events;
    return false;
}

static int host__ring_turn(struct host_loop *l, bool wait)
{
    (void)l;
    (void)wait;
    return -ENOSYS;
}

static void host__ring_drain(struct host_loop *l)
{
    (void)l;
}

static void host__ring_close(struct host__ring *r)
{
    (void)r;
}

#ifdef HOST_LOOP_KQUEUE
/* >>kqueue: a filter for each direction. Only that of writing tells for certain that the other side is
   gone; who wants to know that alone is told of changes, most of which are something else. */

static int host__poll_open(struct host_loop *l)
{
    l->poll_fd = kqueue();
    if (l->poll_fd < 0)
        return -errno;
    (void)fcntl(l->poll_fd, F_SETFD, FD_CLOEXEC);
    return 0;
}

/* How to add the filters for a set of enum host_ready; 0: not at all. */
static unsigned host__kq_read(unsigned events)
{
    return !(events & HOST_IN) ? 0 : events & HOST_EDGE ? EV_ADD | EV_CLEAR : EV_ADD;
}

static unsigned host__kq_write(unsigned events)
{
    return events & HOST_OUT ? EV_ADD : events == HOST_HUP ? EV_ADD | EV_CLEAR : 0;
}

/* Some devices that never wait have no filters. */
static int host__kq_filter(struct host_loop *l, struct host_watch *w, bool out, unsigned from,
                           unsigned to)
{
    struct kevent e;

    if (from == to)
        return 0;
    memset(&e, 0, sizeof e);
    e.ident = (uintptr_t)w->fd;
    e.filter = out ? EVFILT_WRITE : EVFILT_READ;
    e.udata = (__typeof__(e.udata))(uintptr_t)w; /* which is no pointer on NetBSD 9 */
    e.flags = EV_DELETE;
    if (from && kevent(l->poll_fd, &e, 1, NULL, 0, NULL) < 0)
        return -errno;
    e.flags = (__typeof__(e.flags))to;
    if (!to || kevent(l->poll_fd, &e, 1, NULL, 0, NULL) >= 0)
        return 0;
    return (errno == EINVAL || errno == ENODEV || errno == EOPNOTSUPP) && !isatty(w->fd) ? -EPERM
                                                                                         : -errno;
}

static int host__poll_set(struct host_loop *l, struct host_watch *w, unsigned from, unsigned to)
{
    int rc = !from && host__never_waits(w->fd) ? -EPERM : 0;

    if (!rc)
        rc = host__kq_filter(l, w, false, host__kq_read(from), host__kq_read(to));
    if (!rc)
        rc = host__kq_filter(l, w, true, host__kq_write(from), host__kq_write(to));
    return rc;
}

static void host__poll_forget(struct host_loop *l, const struct host_watch *w)
{
    struct kevent *batch = (struct kevent *)l->batch;

    for (int i = 0; batch && i < l->nbatch; i++)
        if ((uintptr_t)batch[i].udata == (uintptr_t)w)
            batch[i].udata = 0;
}

/* What an event means to its watch, which may have lost interest since. */
static unsigned host__kq_ready(const struct kevent *e, const struct host_watch *w)
{
    if (e->filter == EVFILT_READ)
        return w->armed & HOST_IN;
    return (w->armed & HOST_OUT) | (e->flags & EV_EOF ? HOST_HUP : 0u);
}

static int host__poll_wait(struct host_loop *l, int ms)
{
    uint64_t ns = host__timers_sleep(l, ms);
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    struct kevent batch[HOST__BATCH];
    int n = kevent(l->poll_fd, NULL, 0, batch, HOST__BATCH, ns == UINT64_MAX ? NULL : &t);
    int err = n < 0 ? errno : 0;

    host__timers_awake(l);
    if (n < 0)
        return err == EINTR ? 0 : -err;
    l->batch = batch;
    l->nbatch = n;
    for (int i = 0; i < n; i++) {
        struct host_watch *w = (struct host_watch *)(uintptr_t)batch[i].udata;
        unsigned ready = w ? host__kq_ready(&batch[i], w) : 0;
        if (ready)
            w->ready(w->ctx, ready);
    }
    l->batch = NULL;
    host__timers_run(l);
    return 0;
}

#else
/* >>poll: the loop keeps a list of what it watches. */

static int host__poll_open(struct host_loop *l)
{
    (void)l;
    return 0;
}

static int host__poll_set(struct host_loop *l, struct host_watch *w, unsigned from, unsigned to)
{
    unsigned i = 0;

    if (!from && host__never_waits(w->fd))
        return -EPERM;
    if (!from && l->nwatched == HOST_LOOP_WATCHES)
        return -EMFILE;
    if (!from)
        l->watched[l->nwatched++] = w;
    while (l->watched[i] != w)
        i++;
    if (!to)
        l->watched[i] = l->watched[--l->nwatched];
    return 0;
}

static void host__poll_forget(struct host_loop *l, const struct host_watch *w)
{
    struct host_watch **batch = (struct host_watch **)l->batch;

    for (int i = 0; batch && i < l->nbatch; i++)
        if (batch[i] == w)
            batch[i] = NULL;
}

/* What poll found means to a watch. There are no edges: a bell is taken for its owner. */
static unsigned host__poll_ready(const struct pollfd *p, const struct host_watch *w)
{
    if (w->armed & HOST_EDGE && p->revents & POLLIN)
        host_bell_take(w->fd);
    return (p->revents & POLLIN ? w->armed & HOST_IN : 0u) |
           (p->revents & POLLOUT ? w->armed & HOST_OUT : 0u) |
           (p->revents & (POLLHUP | POLLERR | POLLNVAL) ? HOST_HUP : 0u);
}

/* In ms, and never too short. */
static int host__poll_ms(uint64_t ns)
{
    if (ns == UINT64_MAX)
        return -1;
    return ns < INT_MAX / 2 * 1000000ull ? (int)((ns + 999999) / 1000000) : INT_MAX / 2;
}

static int host__poll_wait(struct host_loop *l, int ms)
{
    struct host_watch *batch[HOST_LOOP_WATCHES];
    struct pollfd p[HOST_LOOP_WATCHES];
    int n = (int)l->nwatched, err;

    for (int i = 0; i < n; i++) {
        batch[i] = l->watched[i];
        p[i].fd = batch[i]->fd;
        p[i].events = (short)((batch[i]->armed & HOST_IN ? POLLIN : 0) |
                              (batch[i]->armed & HOST_OUT ? POLLOUT : 0));
    }
    err = poll(p, (nfds_t)n, host__poll_ms(host__timers_sleep(l, ms))) < 0 ? errno : 0;
    host__timers_awake(l);
    if (err)
        return err == EINTR ? 0 : -err;
    l->batch = batch;
    l->nbatch = n;
    for (int i = 0; i < n; i++) {
        struct host_watch *w = batch[i];
        unsigned ready = w && p[i].revents ? host__poll_ready(&p[i], w) : 0;
        if (ready)
            w->ready(w->ctx, ready);
    }
    l->batch = NULL;
    host__timers_run(l);
    return 0;
}
#endif
#endif

/* >>posix: from here on every Unix is much the same, up to the taps. */

#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* SIGPIPE is ignored anyhow */
#endif

/* >>loop */

static bool host__jobs_run(struct host_loop *l);

/* Dormant means not registered at all: a system that always reports hang-ups could not be silenced
   otherwise. */
VMM_DEF int host_watch_set(struct host_loop *l, struct host_watch *w, unsigned events)
{
    int rc = 0;

    w->events = events;
    if (events == w->armed)
        return 0;
    if (!((events | w->armed) & HOST_EDGE) || !host__ring_edge(&l->ring, w, events))
        rc = host__poll_set(l, w, w->armed, events);
    if (!rc)
        w->armed = events;
    if (!events)
        host__poll_forget(l, w);
    return rc;
}

VMM_DEF int host_watch_add(struct host_loop *l, struct host_watch *w)
{
    w->armed = 0;
    return host_watch_set(l, w, w->events);
}

VMM_DEF void host_watch_del(struct host_loop *l, struct host_watch *w)
{
    host_watch_set(l, w, 0);
}

/* `woken` says that the loop's descriptor is readable already, `raised` that an event is: so a
   burst of raises costs one system call. The loop clears each before it looks behind it. */
static void host__loop_wake(struct host_loop *l)
{
    if (!__atomic_exchange_n(&l->woken, 1, __ATOMIC_SEQ_CST))
        host_bell_ring(l->wake_end);
}

static void host__loop_woken(void *ctx, unsigned events)
{
    struct host_loop *l = (struct host_loop *)ctx;
    struct host_event *ev;

    (void)events;
    host_bell_take(l->wake.fd);
    __atomic_store_n(&l->woken, 0, __ATOMIC_SEQ_CST);
    for (l->cursor = l->events; (ev = l->cursor);) {
        l->cursor = ev->next; /* which host_event_fini moves on, should fn delete that one */
        if (__atomic_exchange_n(&ev->raised, 0, __ATOMIC_SEQ_CST))
            ev->fn(ev->ctx);
    }
}

VMM_DEF int host_loop_init(struct host_loop *l, const struct vmm_log *log)
{
    int rc;

    memset(l, 0, sizeof *l);
    l->log = log;
    l->ring.fd = l->poll_fd = l->wake_end = -1;
    l->wake = (struct host_watch){-1, HOST_IN, host__loop_woken, l, 0};
    host_mutex_init(&l->timers.mutex);
    rc = host__poll_open(l);
    if (!rc)
        rc = host__wake_open(l);
    if (!rc)
        rc = host_watch_add(l, &l->wake);
    if (!rc)
        return 0;
    host_loop_fini(l);
    return vmm_err(log, rc, "the I/O loop gets no descriptors; raise ulimit -n");
}

VMM_DEF int host_loop_async(struct host_loop *l)
{
    return host__ring_open(&l->ring);
}

VMM_DEF void host_loop_fini(struct host_loop *l)
{
    host__ring_close(&l->ring);
    if (l->wake_end >= 0 && l->wake_end != l->wake.fd)
        close(l->wake_end);
    if (l->wake.fd >= 0)
        close(l->wake.fd);
    if (l->poll_fd >= 0)
        close(l->poll_fd);
    l->wake.fd = l->wake_end = l->poll_fd = -1;
}

_Static_assert(sizeof(pthread_t) <= sizeof(uintptr_t), "host_thread.handle is too small");

/* Which thread this is; never 0. */
static uintptr_t host__self(void)
{
    pthread_t id = pthread_self();
    uintptr_t self = 0;

    memcpy(&self, &id, sizeof id);
    return self;
}

VMM_DEF void host_bell_post(struct host_loop *l, int bell)
{
    if (__atomic_load_n(&l->runner, __ATOMIC_RELAXED) != host__self()) {
        host_bell_ring(bell);
        return;
    }
    for (unsigned i = 0; i < l->nbells; i++)
        if (l->bell[i] == bell)
            return;
    if (l->nbells == sizeof l->bell / sizeof l->bell[0])
        host_bell_ring(l->bell[--l->nbells]);
    l->bell[l->nbells++] = bell;
}

/* Everything once: what this thread has to do by itself, then all that is to be waited for. */
static int host__loop_turn(struct host_loop *l)
{
    bool more = host__jobs_run(l);

    if (l->ring.fd >= 0)
        return host__ring_turn(l, !more);
    while (l->nbells)
        host_bell_ring(l->bell[--l->nbells]);
    return host__poll_wait(l, more ? 0 : -1);
}

VMM_DEF int host_loop_run(struct host_loop *l)
{
    int rc = 0;

    __atomic_store_n(&l->runner, host__self(), __ATOMIC_RELAXED);
    l->bye = 0;
    while (!rc && !__atomic_exchange_n(&l->stopping, 0, __ATOMIC_SEQ_CST))
        rc = host__loop_turn(l);
    __atomic_store_n(&l->runner, 0, __ATOMIC_RELAXED);
    while (l->nbells)
        host_bell_ring(l->bell[--l->nbells]);
    return rc ? vmm_err(l->log, rc, "the I/O loop cannot wait: %s", strerror(-rc)) : 0;
}

VMM_DEF void host_loop_stop(struct host_loop *l)
{
    __atomic_store_n(&l->stopping, 1, __ATOMIC_SEQ_CST);
    host__loop_wake(l);
}

VMM_DEF void host_event_init(struct host_loop *l, struct host_event *ev, void (*fn)(void *ctx),
                             void *ctx)
{
    *ev = (struct host_event){fn, ctx, l, l->events, 0};
    l->events = ev;
}

/* An event that is raised already will be seen: its raiser has woken the loop, or is about to. */
VMM_DEF void host_event_raise(struct host_event *ev)
{
    if (!__atomic_exchange_n(&ev->raised, 1, __ATOMIC_SEQ_CST))
        host__loop_wake(ev->loop);
}

VMM_DEF void host_event_fini(struct host_loop *l, struct host_event *ev)
{
    struct host_event **at = &l->events;

    while (*at && *at != ev)
        at = &(*at)->next;
    if (*at)
        *at = ev->next;
    if (l->cursor == ev)
        l->cursor = ev->next;
}

/* >>clock */

VMM_DEF uint64_t host_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

VMM_DEF int64_t host_wall(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* >>random */

VMM_DEF size_t host_random(void *buf, size_t len)
{
    size_t done = 0;

    while (done < len) {
        size_t n = len - done < 256 ? len - done : 256;
        if (!host__entropy((uint8_t *)buf + done, n))
            break;
        done += n;
    }
    return done;
}

/* >>thread */

_Static_assert(sizeof(pthread_mutex_t) <= sizeof(struct host_mutex), "host_mutex is too small");

static void host__mutex_enter(void *ctx)
{
    pthread_mutex_lock((pthread_mutex_t *)ctx);
}

static void host__mutex_leave(void *ctx)
{
    pthread_mutex_unlock((pthread_mutex_t *)ctx);
}

VMM_DEF void host_mutex_init(struct host_mutex *m)
{
    pthread_mutex_init((pthread_mutex_t *)(void *)m, NULL);
}

VMM_DEF struct vmm_lock host_mutex_lock(struct host_mutex *m)
{
    return (struct vmm_lock){host__mutex_enter, host__mutex_leave, m};
}

static void *host__thread_main(void *ctx)
{
    struct host_thread *t = (struct host_thread *)ctx;

    host__thread_name(t->name);
    return t->fn(t->ctx);
}

VMM_DEF int host_thread_start(struct host_thread *t, void *(*fn)(void *ctx), void *ctx,
                              const char *name)
{
    pthread_attr_t attr;
    pthread_t id;
    int rc;

    *t = (struct host_thread){fn, ctx, name, 0};
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, HOST_STACK_LEN);
    rc = pthread_create(&id, &attr, host__thread_main, t);
    pthread_attr_destroy(&attr);
    if (!rc)
        memcpy(&t->handle, &id, sizeof id);
    return -rc;
}

VMM_DEF void host_thread_join(struct host_thread *t)
{
    pthread_t id;

    memcpy(&id, &t->handle, sizeof id);
    pthread_join(id, NULL);
}

_Static_assert(sizeof(pthread_cond_t) <= sizeof(struct host_cond), "host_cond is too small");

VMM_DEF void host_cond_init(struct host_cond *c)
{
    pthread_cond_init((pthread_cond_t *)(void *)c, NULL);
}

VMM_DEF void host_cond_wait(struct host_cond *c, struct host_mutex *m)
{
    pthread_cond_wait((pthread_cond_t *)(void *)c, (pthread_mutex_t *)(void *)m);
}

VMM_DEF void host_cond_wake(struct host_cond *c)
{
    pthread_cond_broadcast((pthread_cond_t *)(void *)c);
}

VMM_DEF void host_gate_init(struct host_gate *g, unsigned missing)
{
    host_mutex_init(&g->mutex);
    host_cond_init(&g->opened);
    g->missing = missing;
}

VMM_DEF void host_gate_arrive(struct host_gate *g)
{
    host__mutex_enter(&g->mutex);
    if (--g->missing == 0)
        host_cond_wake(&g->opened);
    host__mutex_leave(&g->mutex);
}

VMM_DEF void host_gate_wait(struct host_gate *g)
{
    host__mutex_enter(&g->mutex);
    while (g->missing)
        host_cond_wait(&g->opened, &g->mutex);
    host__mutex_leave(&g->mutex);
}

/* >>memory */

static void *host__map(size_t len)
{
    void *p =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

/* Aligned memory. Newer kernels align by themselves; otherwise map more and cut both ends off. */
static uint8_t *host__map_aligned(size_t len)
{
    uint8_t *p = (uint8_t *)host__map(len);
    size_t head;

    if (!p || (uintptr_t)p % HOST__RAM_UNIT == 0)
        return p;
    munmap(p, len);
    p = (uint8_t *)host__map(len + HOST__RAM_UNIT);
    if (!p)
        return NULL;
    head = -(uintptr_t)p % HOST__RAM_UNIT;
    if (head)
        munmap(p, head);
    if (head < HOST__RAM_UNIT)
        munmap(p + head + len, HOST__RAM_UNIT - head);
    return p + head;
}

VMM_DEF void *host_ram(uint64_t len, unsigned flags, const struct vmm_log *log)
{
    uint8_t *p = NULL;

    if (len && len <= SIZE_MAX - HOST__RAM_UNIT)
        p = host__map_aligned((size_t)len);
    if (!p) {
        vmm_err(log, -ENOMEM, "no address space for %llu MiB of guest memory; give the guest less",
                (unsigned long long)(len >> 20));
        return NULL;
    }
#ifdef MADV_DONTDUMP
    madvise(p, (size_t)len, MADV_DONTDUMP); /* advice: failure changes nothing for the guest */
#endif
#ifdef MADV_HUGEPAGE
    if (flags & HOST_RAM_HUGE)
        madvise(p, (size_t)len, MADV_HUGEPAGE);
#endif
    (void)flags;
    return p;
}

VMM_DEF void host_ram_free(void *ram, uint64_t len)
{
    if (ram)
        munmap(ram, (size_t)len);
}

VMM_DEF int host_ram_file(void *at, const struct host_file *f, uint64_t off, uint64_t len)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

    if (!len || ((uintptr_t)at | off | len) % page || off >= f->len ||
        len - 1 > (f->len - off - 1) / page * page + page - 1)
        return -EINVAL;
    if (mmap(at, (size_t)len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
             f->fd, (off_t)off) == MAP_FAILED)
        return -errno;
#ifdef MADV_DONTDUMP
    madvise(at, (size_t)len, MADV_DONTDUMP);
#endif
    return 0;
}

/* >>file */

/* The sentence for an open that failed with errno `err`. */
static int host__cannot_open(const struct vmm_log *log, const char *what, const char *path, int err)
{
    if (err == ENOENT)
        return vmm_err(log, -err, "%s '%s' does not exist; check the path", what, path);
    if (err == EACCES || err == EPERM)
        return vmm_err(log, -err, "%s '%s' may not be opened by this user; change its permissions",
                       what, path);
    return vmm_err(log, -err, "%s '%s' cannot be opened: %s", what, path, strerror(err));
}

/* The checks that a file's kind and length must pass. */
static int host__check_kind(const struct vmm_log *log, const char *what, const char *path,
                            const struct stat *st, bool kind_ok)
{
    if (S_ISDIR(st->st_mode))
        return vmm_err(log, -EISDIR, "%s '%s' is a directory; name a file in it", what, path);
    if (!kind_ok)
        return vmm_err(log, -EINVAL, "%s '%s' is not a regular file; copy it into one", what, path);
    if (S_ISREG(st->st_mode) && !st->st_size)
        return vmm_err(log, -EINVAL, "%s '%s' is empty; make or fetch it again", what, path);
    return 0;
}

static int host__file_map(struct host_file *f, const char *what, const char *path,
                          const struct vmm_log *log)
{
    struct stat st;
    void *p;
    int rc;

    if (fstat(f->fd, &st))
        return host__cannot_open(log, what, path, errno);
    rc = host__check_kind(log, what, path, &st, S_ISREG(st.st_mode));
    if (rc)
        return rc;
    p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, f->fd, 0);
    if (p == MAP_FAILED)
        return host__cannot_open(log, what, path, errno);
    f->data = (const uint8_t *)p;
    f->len = (uint64_t)st.st_size;
    return 0;
}

VMM_DEF int host_file_read(const struct host_file *f, uint64_t off, void *at, uint64_t len)
{
    uint8_t *p = (uint8_t *)at;

    for (ssize_t n; len && off < f->len; off += (uint64_t)n, p += n, len -= (uint64_t)n) {
        n = pread(f->fd, p, len < 1u << 30 ? (size_t)len : 1u << 30, (off_t)off);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (!n)
            return -EIO; /* it has been cut short */
        n = n < 0 ? 0 : n;
    }
    return 0;
}

VMM_DEF int host_file_open(struct host_file *f, const char *what, const char *path,
                           const struct vmm_log *log)
{
    int rc;

    f->data = NULL;
    f->len = 0;
    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); /* a FIFO must not hang us */
    if (f->fd < 0)
        return host__cannot_open(log, what, path, errno);
    rc = host__file_map(f, what, path, log);
    if (rc)
        close(f->fd);
    return rc;
}

VMM_DEF void host_file_close(struct host_file *f)
{
    if (!f->data)
        return;
    munmap((void *)(uintptr_t)f->data, (size_t)f->len);
    close(f->fd);
    f->data = NULL;
    f->len = 0;
}

VMM_DEF void host_files_raise(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit))
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* >>disk */

_Static_assert(sizeof(struct host_iov) == sizeof(struct iovec) &&
                   offsetof(struct host_iov, base) == offsetof(struct iovec, iov_base) &&
                   offsetof(struct host_iov, len) == offsetof(struct iovec, iov_len),
               "struct host_iov must be struct iovec");

/* The sentence for a disk that could not be opened; one that can at least be read has a remedy. */
static int host__disk_refused(const struct vmm_log *log, const char *path, bool ro, int err)
{
    if (err == EISDIR)
        return vmm_err(log, -err, "disk '%s' is a directory; name a file in it", path);
    if (err == EBUSY)
        return vmm_err(log, -err, "disk '%s' is in use by the system; unmount it first", path);
    if (!ro && (err == EROFS || (err != ENOENT && !access(path, R_OK))))
        return vmm_err(log, -EROFS, "disk '%s' is not writable; attach it as '%s,ro'", path, path);
    return host__cannot_open(log, "disk", path, err);
}

/* Logical block and identity, and the length of a device that tells it. */
static void host__disk_know(struct host_disk *d, const struct stat *st)
{
    d->sector = 512;
    if (S_ISBLK(st->st_mode))
        host__device_know(d->fd, &d->sector, &d->len);
    d->dev = (uint64_t)(S_ISBLK(st->st_mode) ? st->st_rdev : st->st_dev);
    d->ino = S_ISBLK(st->st_mode) ? 0 : (uint64_t)st->st_ino;
}

/* False: somebody else has it. Systems and files without locks do without. */
static bool host__lock(int fd, bool shared)
{
#ifdef LOCK_NB
    return !flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) || errno != EWOULDBLOCK;
#else
    (void)fd;
    (void)shared;
    return true;
#endif
}

/* Kind, length and lock of an open disk. */
static int host__disk_check(struct host_disk *d, const char *path, const struct vmm_log *log)
{
    struct stat st;
    off_t len;
    int rc;

    if (fstat(d->fd, &st))
        return host__cannot_open(log, "disk", path, errno);
    st.st_size += d->image; /* may be empty */
    rc = host__check_kind(log, "disk", path, &st, S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));
    if (rc)
        return rc;
    host__disk_know(d, &st);
    len = d->len ? (off_t)d->len : lseek(d->fd, 0, SEEK_END); /* on Linux true of devices, too */
    d->len = 0;
    if (len < 0 || (!len && !d->image))
        return vmm_err(log, -EINVAL, "disk '%s' is empty; is there a medium in it?", path);
    if (len % 512 && !d->image)
        return vmm_err(log, -EINVAL,
                       "disk '%s' has %lld bytes, not a multiple of 512; extend it with truncate",
                       path, (long long)len);
    if (!host__lock(d->fd, d->ro))
        return vmm_err(log, -EBUSY,
                       "disk '%s' is in use, by another program or as another disk here; use a "
                       "copy, or attach it read-only everywhere",
                       path);
    d->len = (uint64_t)len;
    return 0;
}

/* A second way to the same file, past the page cache. */
static int host__disk_direct(struct host_disk *d, const char *path, const struct vmm_log *log)
{
    struct stat st;

    d->fd =
        host__open_direct(path, (d->ro ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (d->fd == -EINVAL)
        return vmm_err(log, -EINVAL,
                       "disk '%s' is on a file system without direct I/O; leave cache=none out",
                       path);
    if (d->fd < 0)
        return host__disk_refused(log, path, d->ro, -d->fd);
    if (!fstat(d->fd, &st) && (S_ISBLK(st.st_mode) || (uint64_t)st.st_ino == d->ino))
        return 0;
    return vmm_err(log, -EBUSY, "disk '%s' was replaced while it was opened; try again", path);
}

VMM_DEF int host_disk_open(struct host_disk *d, const char *path, unsigned flags,
                           const struct vmm_log *log)
{
    int rc;

    memset(d, 0, sizeof *d);
    d->ro = flags & HOST_DISK_RO;
    d->image = flags & HOST_DISK_IMAGE;
    d->fd = open(path,
                 (d->ro ? O_RDONLY : O_RDWR) | (flags & HOST_DISK_NEW ? O_CREAT : 0) |
                     (d->ro || flags & HOST_DISK_NEW ? 0 : HOST__O_EXCL) | O_CLOEXEC | O_NOCTTY |
                     O_NONBLOCK,
                 0600);
    d->plain_fd = d->fd;
    if (d->fd < 0)
        return host__disk_refused(log, path, d->ro, errno);
    rc = host__disk_check(d, path, log);
    if (!rc && flags & HOST_DISK_DIRECT)
        rc = host__disk_direct(d, path, log);
    if (!rc)
        return 0;
    if (d->fd >= 0 && d->fd != d->plain_fd)
        close(d->fd);
    close(d->plain_fd);
    memset(d, 0, sizeof *d);
    return rc;
}

VMM_DEF int host_disk_temp(struct host_disk *d, const char *dir, const struct vmm_log *log)
{
    char path[4096];
    struct stat st;

    memset(d, 0, sizeof *d);
    d->fd = -1;
#ifdef O_TMPFILE
    d->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
#endif
    if (d->fd < 0 && (size_t)snprintf(path, sizeof path, "%s/.vmm-XXXXXX", dir) < sizeof path) {
        d->fd = mkstemp(path); /* a file system without nameless files */
        if (d->fd >= 0 && !fcntl(d->fd, F_SETFD, FD_CLOEXEC))
            unlink(path);
    }
    if (d->fd < 0 || fstat(d->fd, &st))
        return vmm_err(log, -errno, "no temporary file can be made in '%s': %s", dir,
                       strerror(errno));
    d->plain_fd = d->fd;
    d->image = true;
    host__disk_know(d, &st);
    return 0;
}

VMM_DEF bool host_disk_same(const struct host_disk *a, const struct host_disk *b)
{
    return a->dev == b->dev && a->ino == b->ino;
}

VMM_DEF void host_disk_close(struct host_disk *d)
{
    bool open = d->len || d->image;

    if (open && d->fd != d->plain_fd)
        close(d->fd);
    if (open)
        close(d->plain_fd);
    d->len = 0;
    d->image = false;
}

/* >>disk operations: begun (host__op_begin), then carried on step by step, each of which is a
   system call of ours or of the kernel's, until one returns 0 or -errno. */

static bool host__op_transfers(const struct host_disk_op *op)
{
    return op->kind == HOST_DISK_READ || op->kind == HOST_DISK_WRITE;
}

/* `done` more bytes are done; empty elements are skipped. */
static void host__op_advance(struct host_disk_op *op, size_t done)
{
    op->off += done;
    op->skip += done;
    for (; op->n && op->skip >= op->iov->len; op->iov++, op->n--)
        op->skip -= op->iov->len;
}

/* What is left, as one system call takes it. Only whole elements can be handed over as a vector;
   the rest of a broken one goes alone. */
static const struct host_iov *host__op_iov(struct host_disk_op *op, unsigned *n)
{
    if (!op->skip) {
        *n = op->n < HOST__IOV_MAX ? op->n : HOST__IOV_MAX;
        return op->iov;
    }
    *n = 1;
    op->rest.base = (uint8_t *)op->iov->base + op->skip;
    op->rest.len = op->iov->len - op->skip;
    return &op->rest;
}

/* Whether the disk takes it at all; for kinds with a place on it. */
static int host__op_check(const struct host_disk_op *op)
{
    const struct host_disk *d = op->disk;
    uint64_t left = d->len - op->off;

    if (op->kind != HOST_DISK_READ && d->ro)
        return -EROFS;
    if (op->off > d->len)
        return -EIO;
    if (!host__op_transfers(op))
        return op->len > left ? -EIO : 0;
    for (unsigned i = 0; i < op->n; i++) {
        if (op->iov[i].len > left)
            return -EIO;
        left -= op->iov[i].len;
    }
    return 0;
}

/* Fit for O_DIRECT on any file system and device. */
static bool host__op_aligned(const struct host_disk_op *op)
{
    uint64_t bits = op->off;

    for (unsigned i = 0; i < op->n; i++)
        bits |= (uintptr_t)op->iov[i].base | op->iov[i].len;
    return bits % 4096 == 0;
}

/* 1: there is something to do; 0 or -errno: it has ended. */
static int host__op_begin(struct host_disk_op *op)
{
    const struct host_disk *d = op->disk;
    bool direct;
    int rc;

    op->skip = 0;
    op->by_hand = false;
    if (op->kind == HOST_DISK_CALL)
        return 1;
    direct = d->fd != d->plain_fd && host__op_transfers(op) && host__op_aligned(op);
    op->fd = direct ? d->fd : d->plain_fd;
    if (op->kind == HOST_DISK_FLUSH)
        return !d->ro;
    rc = host__op_check(op);
    if (rc)
        return rc;
    if (!host__op_transfers(op))
        return op->len > 0;
    host__op_advance(op, 0);
    return op->n > 0;
}

/* A step of a transfer moved `res` bytes, or failed. 1: more to do. */
static int host__op_moved(struct host_disk_op *op, ssize_t res)
{
    if (res <= 0)
        return res ? (int)res : -EIO; /* 0: the file ends before the disk does */
    host__op_advance(op, (size_t)res);
    return op->n > 0;
}

static int host__op_transfer(struct host_disk_op *op)
{
    unsigned n;
    const struct iovec *v = (const struct iovec *)(const void *)host__op_iov(op, &n);
    ssize_t res;

    do
        res = op->kind == HOST_DISK_WRITE ? pwritev(op->fd, v, (int)n, (off_t)op->off)
                                          : preadv(op->fd, v, (int)n, (off_t)op->off);
    while (res < 0 && errno == EINTR);
    if (res < 0 && errno == EINVAL && op->fd != op->disk->plain_fd) {
        op->fd = op->disk->plain_fd; /* it wants more alignment than there is */
        return 1;
    }
    return host__op_moved(op, res < 0 ? -errno : res);
}

/* Zeroes for a file system that cannot make them: at most 1 MiB of them. */
static int host__op_zeroes(struct host_disk_op *op)
{
    static uint8_t zeroes[HOST__ZEROES]; /* not const: it costs no room in the program */
    struct iovec v[16];
    uint64_t left = op->len;
    int n = 0;
    ssize_t res;

    for (; n < 16 && left; left -= v[n++].iov_len)
        v[n] = (struct iovec){zeroes, left < sizeof zeroes ? (size_t)left : sizeof zeroes};
    do
        res = pwritev(op->fd, v, n, (off_t)op->off);
    while (res < 0 && errno == EINTR);
    if (res <= 0)
        return res ? -errno : -EIO;
    op->off += (uint64_t)res;
    op->len -= (uint64_t)res;
    return op->len > 0;
}

/* DISCARD and ZERO, with what the file system offers: a hole, zeroes, or neither. */
static int host__op_erase(struct host_disk_op *op)
{
    bool punch = op->kind == HOST_DISK_DISCARD || op->unmap;
    int rc;

    if (op->by_hand)
        return host__op_zeroes(op);
    do
        rc = host__zero_range(op->fd, punch, op->off, op->len);
    while (rc == -EINTR);
    if (rc != -EOPNOTSUPP)
        return rc;
    if (op->kind == HOST_DISK_DISCARD)
        return 0;
    op->by_hand = !op->unmap;
    op->unmap = false;
    return 1;
}

static int host__op_sync(const struct host_disk_op *op)
{
    int rc;

    do
        rc = host__sync(op->fd);
    while (rc && errno == EINTR);
    return rc ? -errno : 0;
}

/* One system call for it, on this thread. 1: more to do. */
static int host__op_step(struct host_disk_op *op)
{
    if (op->kind == HOST_DISK_FLUSH)
        return host__op_sync(op);
    if (op->kind == HOST_DISK_CALL)
        return op->call(op);
    return host__op_transfers(op) ? host__op_transfer(op) : host__op_erase(op);
}

/* All of it, on this thread. */
static int host__op_do(struct host_disk_op *op)
{
    int rc = host__op_begin(op);

    while (rc > 0)
        rc = host__op_step(op);
    return rc;
}

VMM_DEF int host_disk_rw(const struct host_disk *d, bool write, const struct host_iov *iov,
                         unsigned n, uint64_t off)
{
    struct host_disk_op op = {.kind = write ? HOST_DISK_WRITE : HOST_DISK_READ,
                              .disk = d,
                              .iov = iov,
                              .n = n,
                              .off = off};

    return host__op_do(&op);
}

VMM_DEF int host_disk_flush(const struct host_disk *d)
{
    struct host_disk_op op = {.kind = HOST_DISK_FLUSH, .disk = d};

    return host__op_do(&op);
}

VMM_DEF int host_disk_punch(const struct host_disk *d, uint64_t off, uint64_t len)
{
    return host__zero_range(d->plain_fd, true, off, len);
}

static void host__ops_add(struct host__ops *list, struct host_disk_op *op)
{
    op->next = NULL;
    if (list->first)
        list->last->next = op;
    else
        list->first = op;
    list->last = op;
}

/* A buffered write is a copy, which the kernel would hand to a thread of its own, and those wait
   for each other: measured, it is faster here. */
VMM_DEF void host_disk_submit(struct host_loop *l, struct host_disk_op *op)
{
    int rc = host__op_begin(op);
    bool here =
        op->kind == HOST_DISK_CALL || (op->kind == HOST_DISK_WRITE && op->fd == op->disk->plain_fd);

    op->err = rc;
    host__ops_add(rc <= 0 || here || l->ring.fd < 0 ? &l->jobs : &l->asks, op);
}

/* The operations of this thread, a few of them, each by one step. True: there are more. */
static bool host__jobs_run(struct host_loop *l)
{
    for (unsigned i = 0; i < HOST__JOBS && l->jobs.first; i++) {
        struct host_disk_op *op = l->jobs.first;
        int rc;
        l->jobs.first = op->next;
        rc = op->err > 0 ? host__op_step(op) : op->err;
        if (rc > 0)
            host__ops_add(&l->jobs, op);
        else
            op->done(op, rc);
    }
    return l->jobs.first;
}

#ifndef HOST__BY_HAND
/* The kernel has done a step. Where it is not able or willing to, this thread is. */
static void host__op_ended(struct host_loop *l, struct host_disk_op *op, int res)
{
    bool here = res == -EAGAIN || res == -EINTR || res == -EINVAL || res == -EOPNOTSUPP;
    int rc = here ? 1 : host__op_transfers(op) ? host__op_moved(op, res) : res;

    if (rc > 0)
        host__ops_add(here ? &l->jobs : &l->asks, op);
    else
        op->done(op, rc);
}
#endif

VMM_DEF void host_disk_drain(struct host_loop *l)
{
    host__ring_drain(l);
    l->jobs.first = l->asks.first = NULL;
}

#define HOST__GROW_LAG 1000000000ull /* ns between looks while the file is written to */

static void host__grow_look(struct host_disk_growth *w)
{
    off_t len = lseek(w->disk->plain_fd, 0, SEEK_END);

    if (len < 0 || (uint64_t)len / 512 * 512 <= w->disk->len)
        return;
    w->disk->len = (uint64_t)len / 512 * 512;
    w->grown(w->ctx);
}

#ifdef HOST__BY_HAND
/* Now and then is enough. */
static void host__grow_again(void *ctx)
{
    struct host_disk_growth *w = (struct host_disk_growth *)ctx;

    host__grow_look(w);
    host_timer_again(&w->timer, HOST__GROW_LAG);
}

static int host__grow_begin(struct host_loop *l, struct host_disk_growth *w)
{
    w->watch.fd = -1;
    return host_timer_set(l, &w->timer, HOST__GROW_LAG, host__grow_again, w);
}

static void host__grow_end(struct host_disk_growth *w)
{
    (void)w;
}
#else
/* Waits for the next change again, and sees what came in between. */
static void host__grow_again(void *ctx)
{
    struct host_disk_growth *w = (struct host_disk_growth *)ctx;

    host__inotify_arm(w->watch.fd, w->disk->plain_fd);
    host__grow_look(w);
}

/* The file has changed, most likely by a write of ours. */
static void host__grow_ready(void *ctx, unsigned events)
{
    struct host_disk_growth *w = (struct host_disk_growth *)ctx;

    (void)events;
    host__inotify_take(w->watch.fd);
    host__grow_look(w);
    host_timer_set(w->loop, &w->timer, HOST__GROW_LAG, host__grow_again, w);
}

static int host__grow_begin(struct host_loop *l, struct host_disk_growth *w)
{
    int rc, fd = host__inotify_open();

    if (fd < 0)
        return fd;
    w->watch = (struct host_watch){fd, HOST_IN, host__grow_ready, w, 0};
    rc = host__inotify_arm(fd, w->disk->plain_fd);
    if (!rc)
        rc = host_watch_add(l, &w->watch);
    if (rc)
        close(fd);
    return rc;
}

static void host__grow_end(struct host_disk_growth *w)
{
    host_watch_del(w->loop, &w->watch);
    close(w->watch.fd);
}
#endif

VMM_DEF int host_disk_watch(struct host_loop *l, struct host_disk_growth *w, struct host_disk *d,
                            void (*grown)(void *ctx), void *ctx)
{
    struct stat st;
    int rc;

    *w = (struct host_disk_growth){.disk = d, .grown = grown, .ctx = ctx};
    if (!fstat(d->plain_fd, &st) && S_ISBLK(st.st_mode))
        return -ENOTSUP;
    rc = host__grow_begin(l, w);
    if (!rc)
        w->loop = l;
    return rc;
}

VMM_DEF void host_disk_unwatch(struct host_disk_growth *w)
{
    if (!w->loop)
        return;
    host_timer_cancel(&w->timer);
    host__grow_end(w);
    w->loop = NULL;
}

/* >>tty: the one global of vmm. Signal handlers must find the terminal, and have no context. */

#define HOST__NDEATHS 9

static const int host__deaths[HOST__NDEATHS] = {SIGSEGV, SIGBUS, SIGILL,  SIGFPE, SIGABRT,
                                                SIGTERM, SIGHUP, SIGQUIT, SIGINT};

static struct {
    volatile sig_atomic_t wanted; /* host_tty_raw was called */
    volatile sig_atomic_t taken;  /* `saved` is valid: raw mode was entered */
    int fd;
    struct termios saved, raw;
    bool caught; /* the handlers are installed */
    struct sigaction before[HOST__NDEATHS];
} host__tty;

/* A terminal that is not ours to control (no job control there) counts as foreground. */
static bool host__tty_foreground(int fd)
{
    pid_t group = tcgetpgrp(fd);

    return group < 0 || group == getpgrp();
}

/* Async-signal-safe, for SIGCONT: the shell has changed the mode while we were stopped. */
static void host__tty_enter(void)
{
    if (!host__tty.wanted || !host__tty_foreground(host__tty.fd))
        return;
    if (!host__tty.taken) {
        struct termios *raw = &host__tty.raw;
        if (tcgetattr(host__tty.fd, &host__tty.saved))
            return;
        *raw = host__tty.saved;
        raw->c_iflag &=
            ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | INPCK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
        raw->c_lflag &= ~(tcflag_t)(ISIG | ICANON | ECHO | ECHONL | IEXTEN);
        raw->c_cc[VMIN] = 1;
        raw->c_cc[VTIME] = 0;
        host__tty.taken = 1;
    }
    tcsetattr(host__tty.fd, TCSANOW, &host__tty.raw);
}

/* Leaves the terminal alone when a shell has it: it has put its own mode there. */
VMM_DEF void host_tty_restore(void)
{
    int err = errno;

    if (host__tty.taken && host__tty_foreground(host__tty.fd))
        tcsetattr(host__tty.fd, TCSANOW, &host__tty.saved);
    host__tty.wanted = host__tty.taken = 0;
    errno = err;
}

static void host__tty_continue(int signo)
{
    int err = errno;

    (void)signo;
    host__tty_enter();
    kill(getpid(), SIGWINCH); /* which only those in the foreground were told of */
    errno = err;
}

/* Gives the signal back to whoever had it before, by default death. A fault comes again by itself
   once we return, with the right address for a debugger or sanitizer. */
static void host__tty_death(int signo, siginfo_t *info, void *uc)
{
    bool fault = signo == SIGSEGV || signo == SIGBUS || signo == SIGILL || signo == SIGFPE;

    (void)uc;
    host_tty_restore();
    for (unsigned i = 0; i < HOST__NDEATHS; i++)
        if (host__deaths[i] == signo)
            sigaction(signo, &host__tty.before[i], NULL);
    if (!fault || info->si_code <= 0)
        raise(signo);
}

/* Once per process. What was ignored stays ignored. */
static void host__tty_catch(void)
{
    struct sigaction death = {.sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct sigaction cont = {.sa_flags = SA_RESTART | SA_ONSTACK};
    struct sigaction old;

    if (host__tty.caught)
        return;
    host__tty.caught = true;
    sigemptyset(&death.sa_mask);
    sigemptyset(&cont.sa_mask);
    death.sa_sigaction = host__tty_death;
    cont.sa_handler = host__tty_continue;
    for (unsigned i = 0; i < HOST__NDEATHS; i++) {
        struct sigaction *before = &host__tty.before[i];
        if (!sigaction(host__deaths[i], &death, before) && before->sa_handler == SIG_IGN)
            sigaction(host__deaths[i], before, NULL);
    }
    if (!sigaction(SIGCONT, NULL, &old) && old.sa_handler == SIG_DFL)
        sigaction(SIGCONT, &cont, NULL);
}

VMM_DEF int host_tty_raw(int fd)
{
    if (!isatty(fd))
        return -ENOTTY;
    if (host__tty.wanted)
        return fd == host__tty.fd ? 0 : -EBUSY;
    host__tty_catch();
    host__tty.fd = fd;
    host__tty.wanted = 1;
    host__tty_enter();
    return 0;
}

VMM_DEF int host_tty_size(int fd, uint16_t *cols, uint16_t *rows)
{
    struct winsize size;

    if (ioctl(fd, TIOCGWINSZ, &size) || !size.ws_col || !size.ws_row)
        return -ENOTTY;
    *cols = size.ws_col;
    *rows = size.ws_row;
    return 0;
}

/* One that was hung up answers all calls with EIO (POSIX, 11.1.10, modem disconnect). */
VMM_DEF bool host_tty_gone(int fd)
{
    struct termios t;

    return tcgetattr(fd, &t) && errno == EIO;
}

/* >>stream: each has an input end and an output end, with a watch each. The output ring is filled
   by any thread and drained by the loop; everything else belongs to the loop's thread. */

enum host__kind { HOST__NULL, HOST__STDIO, HOST__FILE, HOST__SOCKET, HOST__PTY };

enum host__put {              /* how to write without blocking */
                 HOST__WRITE, /* the description is our own and O_NONBLOCK, or a file */
                 HOST__SEND,  /* a socket: per call */
                 HOST__SIPS   /* shared with others: poll, then a few bytes */
};

enum host__flow {                /* why host__out_push came back */
                  HOST__IDLE,    /* nothing to do */
                  HOST__DRAINED, /* something was written, nothing is left */
                  HOST__BLOCKED, /* the descriptor takes no more for now */
                  HOST__MORE     /* others are due first */
};

static void host__stream_retry(void *ctx);

/* Tries again later what no descriptor will tell us. */
static void host__retry_later(struct host_stream *s)
{
    host_timer_set(s->desc.loop, &s->retry, HOST_STREAM_RETRY, host__stream_retry, s);
}

/* >>stream output */

/* The next contiguous piece of the ring. When there is none and `rest` is set, the loop turns to
   other things, and the next write will have to wake it. */
static size_t host__out_peek(struct host_stream *s, const uint8_t **p, bool rest)
{
    size_t len;

    host__mutex_enter(&s->mutex);
    len = s->out_len;
    if (!len) {
        s->hurried = false;
        s->active = s->active && !rest;
    }
    if (len > HOST_STREAM_OUT - s->out_at)
        len = HOST_STREAM_OUT - s->out_at;
    *p = s->out_ring + s->out_at;
    host__mutex_leave(&s->mutex);
    return len;
}

/* Tells a writer that went away with less than it wanted, once there is room worth the call. */
static void host__out_feed(struct host_stream *s)
{
    bool feed;

    host__mutex_enter(&s->mutex);
    feed = s->starved && s->out_len <= HOST_STREAM_OUT / 2;
    if (feed)
        s->starved = false;
    host__mutex_leave(&s->mutex);
    if (feed && s->desc.writable)
        s->desc.writable(s->desc.ctx);
}

/* n bytes at the front are done. */
static void host__out_took(struct host_stream *s, size_t n)
{
    host__mutex_enter(&s->mutex);
    s->out_len -= n;
    s->out_at = (s->out_at + n) % HOST_STREAM_OUT;
    if (!s->out_len)
        s->out_at = 0; /* stay in the pages that are touched already */
    host__mutex_leave(&s->mutex);
    host__out_feed(s);
}

/* Whether anybody listens from now on. */
static void host__out_drop(struct host_stream *s, bool drop)
{
    host__mutex_enter(&s->mutex);
    s->drop = drop;
    if (drop) {
        s->out_at = s->out_len = 0;
        s->active = s->hurried = false;
    }
    host__mutex_leave(&s->mutex);
    if (drop)
        host__out_feed(s);
}

/* Waits that long until a write would not block, or would fail. */
static bool host__out_ready(int fd, int ms)
{
    struct pollfd p = {fd, POLLOUT, 0};

    return poll(&p, 1, ms) > 0;
}

/* Bytes written, 0: would block, or -errno. */
static ssize_t host__out_put(const struct host_stream *s, const uint8_t *p, size_t len)
{
    ssize_t n;

    if (s->put == HOST__SIPS && !host__out_ready(s->out.fd, 0))
        return 0;
    if (s->put == HOST__SIPS && len > HOST__SIP)
        len = HOST__SIP;
    do
        n = s->put == HOST__SEND ? send(s->out.fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL)
                                 : write(s->out.fd, p, len);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
    return n;
}

/* Closes one end of the stream; nothing when it is closed. */
static void host__end_close(struct host_stream *s, struct host_watch *w)
{
    host_watch_del(s->desc.loop, w);
    if (w->fd > 2) /* the standard descriptors are not ours */
        close(w->fd);
    w->fd = -1;
}

/* Tells the owner of the stream, once for each change. */
static void host__peer_there(struct host_stream *s, bool there)
{
    if (s->there == there)
        return;
    s->there = there;
    if (s->desc.peer)
        s->desc.peer(s->desc.ctx, there);
}

/* A client of the socket or pseudo-terminal left. What it sent is still to be taken. */
static void host__peer_gone(struct host_stream *s)
{
    if (s->left)
        return;
    s->left = true;
    if (s->kind == HOST__SOCKET) {
        host__end_close(s, &s->out);
        host_watch_set(s->desc.loop, &s->door, HOST_IN);
    } else { /* the master would report a hang-up without end: look now and then */
        host_watch_set(s->desc.loop, &s->in, 0);
        host_watch_set(s->desc.loop, &s->out, 0);
        host__retry_later(s);
    }
    host__out_drop(s, true);
    host_event_raise(&s->event);
}

/* What it sent is taken, or has had its time: the next one may come. */
static void host__peer_done(struct host_stream *s)
{
    s->left = false;
    if (s->kind == HOST__SOCKET) {
        host__end_close(s, &s->in);
        s->in_eof = !s->desc.input;
        s->in_at = s->in_len = 0;
        host_timer_cancel(&s->retry);
        host_watch_set(s->desc.loop, &s->door, HOST_IN);
    }
    host__peer_there(s, false);
}

/* A write failed. What a socket's client sent before it left is read on to its end. */
static void host__out_lost(struct host_stream *s, int err)
{
    if (s->kind == HOST__PTY) {
        host__peer_gone(s);
        return;
    }
    if (s->kind != HOST__SOCKET && err != EPIPE && err != EIO)
        vmm_say(s->desc.log, VMM_LOG_WARN, "console output is lost from now on: %s", strerror(err));
    host__end_close(s, &s->out);
    host__out_drop(s, true);
    if (s->kind == HOST__FILE)
        host__peer_there(s, false);
}

/* Writes what the ring holds; at most one ring's worth, so that a busy guest does not keep the loop
   from its other duties. */
static enum host__flow host__out_push(struct host_stream *s)
{
    size_t budget = HOST_STREAM_OUT;

    while (budget) {
        const uint8_t *p;
        size_t len = host__out_peek(s, &p, budget == HOST_STREAM_OUT);
        ssize_t n;
        if (!len)
            return budget == HOST_STREAM_OUT ? HOST__IDLE : HOST__DRAINED;
        n = host__out_put(s, p, len < budget ? len : budget);
        if (n == 0)
            return HOST__BLOCKED;
        if (n < 0) {
            host__out_lost(s, (int)-n);
            return HOST__IDLE;
        }
        host__out_took(s, (size_t)n);
        budget -= (size_t)n;
    }
    return HOST__MORE;
}

/* The first byte of a burst wakes the loop and goes out at once; after that the loop comes back by
   itself every HOST_STREAM_LAG, and writers need not wake it, until it finds nothing new. */
static void host__out_drain(void *ctx)
{
    struct host_stream *s = (struct host_stream *)ctx;
    struct host_loop *l = s->desc.loop;
    enum host__flow flow = host__out_push(s);

    host_watch_set(l, &s->out, flow == HOST__BLOCKED ? HOST_OUT : 0);
    if (flow == HOST__DRAINED && host_timer_set(l, &s->lag, HOST_STREAM_LAG, host__out_drain, s))
        flow = HOST__MORE; /* no timer to be had: do without */
    if (flow == HOST__MORE)
        host_event_raise(&s->event);
}

static void host__out_event(void *ctx, unsigned events)
{
    (void)events;
    host__out_drain(ctx);
}

/* The loop is woken by the first byte of a burst, and once more when the ring is half full: such a
   burst should not have to wait for HOST_STREAM_LAG. */
VMM_DEF size_t host_stream_write(struct host_stream *s, const void *buf, size_t len)
{
    size_t n, end, first;
    bool hurry, raise;

    host__mutex_enter(&s->mutex);
    if (s->drop) {
        host__mutex_leave(&s->mutex);
        return len;
    }
    n = HOST_STREAM_OUT - s->out_len < len ? HOST_STREAM_OUT - s->out_len : len;
    end = (s->out_at + s->out_len) % HOST_STREAM_OUT;
    first = HOST_STREAM_OUT - end < n ? HOST_STREAM_OUT - end : n;
    memcpy(s->out_ring + end, buf, first);
    memcpy(s->out_ring, (const uint8_t *)buf + first, n - first);
    s->out_len += n;
    s->starved = s->starved || n < len;
    hurry = s->out_len > HOST_STREAM_OUT / 2;
    raise = !s->active || (hurry && !s->hurried);
    s->active = true;
    s->hurried = s->hurried || hurry;
    host__mutex_leave(&s->mutex);
    if (raise)
        host_event_raise(&s->event);
    return n;
}

static void host__flush_until(struct host_stream *s, uint64_t until)
{
    for (;;) {
        enum host__flow flow = host__out_push(s);
        uint64_t now = host_now();
        if (flow == HOST__IDLE || now >= until)
            return;
        if (flow == HOST__BLOCKED)
            host__out_ready(s->out.fd, (int)((until - now) / 1000000) + 1);
    }
}

VMM_DEF void host_stream_flush(struct host_stream *s)
{
    host__flush_until(s, host_now() + HOST_STREAM_BYE);
}

/* >>stream input */

/* Offers what is buffered until the device takes no more. `waiting` is set before the device is
   asked, so that a poke while it answers is not lost. */
static void host__in_offer(struct host_stream *s)
{
    while (s->in_len) {
        size_t n;
        __atomic_store_n(&s->waiting, 1, __ATOMIC_SEQ_CST);
        n = s->desc.input(s->desc.ctx, s->in_buf + s->in_at, s->in_len);
        if (!n)
            return;
        s->in_at += n;
        s->in_len -= n;
    }
    s->in_at = 0;
    __atomic_store_n(&s->waiting, 0, __ATOMIC_SEQ_CST);
}

/* Takes escape sequences out of n fresh bytes and acts on them; returns the bytes left. */
static size_t host__in_escapes(struct host_stream *s, uint8_t *buf, size_t n)
{
    const uint8_t ctrl_a = 1;
    size_t kept = 0;

    if (!s->tty || !s->desc.escape)
        return n;
    for (size_t i = 0; i < n; i++) {
        if (!s->prefix && buf[i] == ctrl_a) {
            s->prefix = true;
            continue;
        }
        if (s->prefix && buf[i] != ctrl_a)
            s->desc.escape(s->desc.ctx, (char)buf[i]);
        else
            buf[kept++] = buf[i];
        s->prefix = false;
    }
    return kept;
}

/* The end of the input, or an error. A Unix socket's client may still want to read, and is gone when
   the socket hangs up; of one that came by TCP this is all that is heard. */
static void host__in_ended(struct host_stream *s, int err)
{
    if (err == EAGAIN || err == EWOULDBLOCK || err == EINTR)
        return;
    s->in_eof = s->kind != HOST__PTY;
    if (s->kind == HOST__PTY || (s->kind == HOST__SOCKET && (err || !s->path[0])))
        host__peer_gone(s);
}

/* One read, after the loop said that it will not block, into the room there is. */
static void host__in_read(struct host_stream *s)
{
    size_t room = sizeof s->in_buf - s->in_len;
    ssize_t n;

    if (!room || s->in_eof || s->in_asleep || s->in.fd < 0)
        return;
    if (s->tty && !host__tty_foreground(s->in.fd)) {
        s->in_asleep = true; /* what is typed now is for the shell */
        host__retry_later(s);
        return;
    }
    memmove(s->in_buf, s->in_buf + s->in_at, s->in_len);
    s->in_at = 0;
    n = read(s->in.fd, s->in_buf + s->in_len, room);
    if (n > 0)
        s->in_len += host__in_escapes(s, s->in_buf + s->in_len, (size_t)n);
    else
        host__in_ended(s, n ? errno : 0);
}

/* What to wait for at the input: data exactly when there is room for it, else at a socket that its
   client leaves. */
static unsigned host__in_wants(const struct host_stream *s)
{
    if (s->in.fd < 0 || (s->kind == HOST__PTY && s->drop))
        return 0;
    if (!s->in_eof && !s->in_asleep && s->in_len < sizeof s->in_buf)
        return HOST_IN;
    return s->kind == HOST__SOCKET && !s->left ? HOST_HUP : 0;
}

/* Offers what is there, parts with a client that left, and waits for more. */
static void host__in_turn(struct host_stream *s)
{
    unsigned want;

    host__in_offer(s);
    if (s->left && !s->in_len && (s->in_eof || s->kind == HOST__PTY))
        host__peer_done(s);
    want = host__in_wants(s);
    if (!s->in_always && host_watch_set(s->desc.loop, &s->in, want) == -EPERM)
        s->in_always = true;
    if (s->in_always && want)
        host_event_raise(&s->event);
}

/* The input is readable or its client has left. */
static void host__in_event(void *ctx, unsigned events)
{
    struct host_stream *s = (struct host_stream *)ctx;

    if (s->kind == HOST__SOCKET && (events & HOST_HUP))
        host__peer_gone(s);
    host__in_read(s);
    host__in_turn(s);
}

/* Somebody wrote or poked, or an input that is always ready has its turn. */
static void host__stream_event(void *ctx)
{
    struct host_stream *s = (struct host_stream *)ctx;

    host__out_drain(s);
    if (s->in_always)
        host__in_read(s);
    host__in_turn(s);
}

VMM_DEF void host_stream_poke(struct host_stream *s)
{
    if (__atomic_load_n(&s->waiting, __ATOMIC_SEQ_CST))
        host_event_raise(&s->event);
}

static size_t host__port_write(void *ctx, const void *buf, size_t len)
{
    return host_stream_write((struct host_stream *)ctx, buf, len);
}

static void host__port_room(void *ctx)
{
    host_stream_poke((struct host_stream *)ctx);
}

VMM_DEF struct vmm_stream host_stream_port(struct host_stream *s)
{
    return (struct vmm_stream){host__port_write, host__port_room, s};
}

/* >>stream kinds */

/* Both ends of one descriptor; each needs its own, or the loop could not watch them apart. */
static int host__ends(struct host_stream *s, int fd)
{
    s->out.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (s->out.fd < 0) {
        close(fd);
        return vmm_err(s->desc.log, -EMFILE, "no descriptor for a console; raise ulimit -n");
    }
    s->in.fd = fd;
    return 0;
}

/* Standard output is shared with whoever started us. A pipe or terminal can be opened anew and then
   be switched to O_NONBLOCK; a socket takes that per call; a file does not block. */
static int host__stdio_open(struct host_stream *s)
{
    struct stat st;
    int own = -1;

    s->kind = HOST__STDIO;
    s->in.fd = 0;
    s->tty = host_tty_raw(0) == 0;
    if (fstat(1, &st))
        return 0; /* closed: as if nobody listened */
    s->out.fd = 1;
    s->put = S_ISSOCK(st.st_mode) ? HOST__SEND : HOST__WRITE;
    if (S_ISFIFO(st.st_mode) || (S_ISCHR(st.st_mode) && isatty(1))) {
        own = host__own_stdout();
        s->out.fd = own >= 0 ? own : 1;
        s->put = own >= 0 ? HOST__WRITE : HOST__SIPS;
    }
    host__out_drop(s, false);
    return 0;
}

/* O_NONBLOCK: the path may name a FIFO, whose reader comes and goes. */
static int host__file_sink(struct host_stream *s, const char *path)
{
    s->kind = HOST__FILE;
    s->out.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0666);
    if (s->out.fd < 0 && errno == ENXIO)
        return vmm_err(s->desc.log, -ENXIO, "console '%s' has no reader; start that first", path);
    if (s->out.fd < 0)
        return host__cannot_open(s->desc.log, "console file", path, errno);
    host__out_drop(s, false);
    return 0;
}

/* Makes a descriptor one that nobody inherits and that never waits. -1: it was none. */
static int host__tame(int fd)
{
    if (fd >= 0) {
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
        (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    }
    return fd;
}

/* Whether the file in the way of our socket is one that nobody listens on any more. */
static int host__unix_stale(const struct sockaddr_un *a, const struct vmm_log *log)
{
    struct stat st;
    int fd, err = 0;

    if (!lstat(a->sun_path, &st) && !S_ISSOCK(st.st_mode))
        return vmm_err(log, -EEXIST, "'%s' exists and is no socket; choose another path",
                       a->sun_path);
    fd = host__tame(socket(AF_UNIX, SOCK_STREAM, 0));
    if (fd < 0 || connect(fd, (const struct sockaddr *)a, sizeof *a))
        err = errno;
    if (fd >= 0)
        close(fd);
    if (err == ECONNREFUSED)
        return 0;
    return vmm_err(log, -EADDRINUSE,
                   "socket '%s' is in use by another program; choose another path", a->sun_path);
}

/* Binds and listens, in the place of a dead predecessor if there is one. */
static int host__unix_bind(int fd, const struct sockaddr_un *a, const struct vmm_log *log)
{
    const struct sockaddr *sa = (const struct sockaddr *)a;
    int rc = bind(fd, sa, sizeof *a);

    if (rc && errno == EADDRINUSE) {
        rc = host__unix_stale(a, log);
        if (rc)
            return rc;
        unlink(a->sun_path);
        rc = bind(fd, sa, sizeof *a);
    }
    /* Nobody can connect before listen(), so nobody slips in before the mode is right. */
    if (rc || chmod(a->sun_path, 0600) || listen(fd, 4))
        return vmm_err(log, -errno, "socket '%s' cannot be made: %s", a->sun_path, strerror(errno));
    return 0;
}

/* An address that only this host reaches. The last one's connections do not keep the port. */
static int host__tcp_open(struct host_stream *s, const char *port)
{
    const struct vmm_log *log = s->desc.log;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    unsigned long n = strspn(port, "0123456789") == strlen(port) ? strtoul(port, NULL, 10) : 0;
    int on = 1;

    s->kind = HOST__SOCKET;
    if (!n || n > 65535)
        return vmm_err(log, -EINVAL, "'%s' is no TCP port: give 1 to 65535", port);
    a.sin_port = htons((uint16_t)n);
    s->door.fd = host__tame(socket(AF_INET, SOCK_STREAM, 0));
    if (s->door.fd < 0)
        return vmm_err(log, -errno, "no descriptor for a socket: %s", strerror(errno));
    (void)setsockopt(s->door.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(s->door.fd, (const struct sockaddr *)&a, sizeof a) || listen(s->door.fd, 4))
        return vmm_err(log, -errno, "TCP port %s cannot be had: %s; choose another", port,
                       strerror(errno));
    return host_watch_set(s->desc.loop, &s->door, HOST_IN);
}

/* Takes the next client and leaves the others in the queue; all of them, for a while, when the
   last one's input is not taken yet. */
static void host__knock(void *ctx, unsigned events)
{
    struct host_stream *s = (struct host_stream *)ctx;
    int fd, on = 1;

    (void)events;
    if (s->left) {
        host_watch_set(s->desc.loop, &s->door, 0);
        host_timer_set(s->desc.loop, &s->retry, HOST_STREAM_BYE, host__stream_retry, s);
        return;
    }
    fd = host__tame(accept(s->door.fd, NULL, NULL));
    if (fd < 0 && errno != EMFILE && errno != ENFILE)
        return; /* the client changed its mind */
    host_watch_set(s->desc.loop, &s->door, 0);
    if (fd < 0 || host__ends(s, fd)) {
        host__retry_later(s); /* out of descriptors: it would be reported for ever */
        return;
    }
    s->put = HOST__SEND;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* unless it is a Unix socket */
    host__out_drop(s, false);
    host__peer_there(s, true);
    host__in_turn(s);
}

static int host__unix_open(struct host_stream *s, const char *path)
{
    const struct vmm_log *log = s->desc.log;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    struct stat st;
    int rc;

    s->kind = HOST__SOCKET;
    if (!len || len >= sizeof a.sun_path || len >= sizeof s->path)
        return vmm_err(log, -ENAMETOOLONG, "socket path '%s' must have 1 to %d bytes", path,
                       (int)sizeof s->path - 1);
    memcpy(a.sun_path, path, len + 1);
    s->door.fd = host__tame(socket(AF_UNIX, SOCK_STREAM, 0));
    if (s->door.fd < 0)
        return vmm_err(log, -errno, "no descriptor for a socket: %s", strerror(errno));
    rc = host__unix_bind(s->door.fd, &a, log);
    if (rc)
        return rc;
    if (!lstat(path, &st)) {
        memcpy(s->path, path, len + 1);
        s->path_dev = (uint64_t)st.st_dev;
        s->path_ino = st.st_ino;
    }
    return host_watch_set(s->desc.loop, &s->door, HOST_IN);
}

/* The slave is opened once, for two things: raw mode, lest the terminal echo the guest's output
   back to it, and to be closed, which makes the master tell "nobody there" from "nobody reads". */
static int host__pty_slave(struct host_stream *s)
{
    struct termios t;
    int fd = open(s->pty_name, O_RDWR | O_NOCTTY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    if (!tcgetattr(fd, &t)) {
        t.c_iflag = 0;
        t.c_oflag = 0;
        t.c_lflag = 0;
        t.c_cc[VMIN] = 1;
        t.c_cc[VTIME] = 0;
        tcsetattr(fd, TCSANOW, &t);
    }
    close(fd);
    return 0;
}

static int host__pty_open(struct host_stream *s)
{
    int rc, fd = host__tame(posix_openpt(O_RDWR | O_NOCTTY));
    const char *name;

    s->kind = HOST__PTY;
    if (fd < 0)
        return vmm_err(s->desc.log, -errno, "no pseudo-terminal: %s", strerror(errno));
    rc = host__ends(s, fd);
    if (rc)
        return rc;
    name = grantpt(fd) || unlockpt(fd) ? NULL : ptsname(fd);
    if (!name || strlen(name) >= sizeof s->pty_name) {
        rc = name ? -ENAMETOOLONG : -errno;
    } else {
        memcpy(s->pty_name, name, strlen(name) + 1);
        rc = host__pty_slave(s);
    }
    if (rc)
        return vmm_err(s->desc.log, rc, "no pseudo-terminal: %s; is /dev/pts mounted?",
                       strerror(-rc));
    host__peer_gone(s);
    return 0;
}

static bool host__pty_absent(const struct host_stream *s)
{
    struct pollfd p = {s->in.fd, 0, 0};

    return poll(&p, 1, 0) > 0 && (p.revents & POLLHUP);
}

/* A client may have opened the pseudo-terminal, descriptors may have become free, or the shell may
   have brought us to the foreground. */
static void host__stream_retry(void *ctx)
{
    struct host_stream *s = (struct host_stream *)ctx;

    if (s->kind == HOST__SOCKET) {
        if (s->left)
            host__peer_done(s);
        host_watch_set(s->desc.loop, &s->door, s->in.fd < 0 ? HOST_IN : 0);
        return;
    }
    if (s->kind == HOST__PTY ? host__pty_absent(s) : !host__tty_foreground(s->in.fd)) {
        host__retry_later(s);
        return;
    }
    if (s->kind == HOST__PTY) {
        s->left = false;
        host__out_drop(s, false);
        host__peer_there(s, true);
    } else {
        host__tty_enter();
    }
    s->in_asleep = false;
    host__in_turn(s);
}

/* >>stream life */

/* A reader that leaves must not kill us, nor a terminal stop us in the background: the error that
   comes instead is handled. */
static void host__mute_signals(void)
{
    static const int signos[] = {SIGPIPE, SIGTTIN, SIGTTOU};
    struct sigaction sa;

    for (unsigned i = 0; i < sizeof signos / sizeof signos[0]; i++)
        if (!sigaction(signos[i], NULL, &sa) && sa.sa_handler == SIG_DFL) {
            sa.sa_handler = SIG_IGN;
            sigaction(signos[i], &sa, NULL);
        }
}

/* What follows the prefix in a spec, or NULL when it has another one. */
static const char *host__after(const char *spec, const char *prefix)
{
    size_t len = strlen(prefix);

    return strncmp(spec, prefix, len) ? NULL : spec + len;
}

/* The one place that knows the words of a spec. */
static int host__kind_open(struct host_stream *s, const char *spec)
{
    const char *path;

    if (!strcmp(spec, "null"))
        return 0;
    host__mute_signals();
    if (!strcmp(spec, "stdio"))
        return host__stdio_open(s);
    if (!strcmp(spec, "pty"))
        return host__pty_open(s);
    if ((path = host__after(spec, "file:")))
        return host__file_sink(s, path);
    if ((path = host__after(spec, "unix:")))
        return host__unix_open(s, path);
    if ((path = host__after(spec, "tcp:")))
        return host__tcp_open(s, path);
    return vmm_err(s->desc.log, -EINVAL,
                   "unknown console '%s'; use stdio, null, file:PATH, unix:PATH, tcp:PORT or pty",
                   spec);
}

VMM_DEF int host_stream_open(struct host_stream *s, const struct host_stream_desc *d)
{
    int rc;

    memset(s, 0, offsetof(struct host_stream, in_buf)); /* leave the buffers untouched */
    s->desc = *d;
    s->drop = true;
    s->in_eof = !d->input;
    s->in = (struct host_watch){-1, 0, host__in_event, s, 0};
    s->out = (struct host_watch){-1, 0, host__out_event, s, 0};
    s->door = (struct host_watch){-1, 0, host__knock, s, 0};
    host_mutex_init(&s->mutex);
    host_event_init(d->loop, &s->event, host__stream_event, s);
    rc = host__kind_open(s, d->spec);
    s->desc.spec = NULL;
    if (rc) {
        host_stream_close(s);
        return rc;
    }
    if (s->kind != HOST__SOCKET && s->kind != HOST__PTY)
        host__peer_there(s, true);
    host__in_turn(s);
    return 0;
}

VMM_DEF void host_stream_close(struct host_stream *s)
{
    struct host_loop *l = s->desc.loop;
    struct stat st;

    if (!l)
        return;
    if (!l->bye)
        l->bye = host_now() + HOST_STREAM_BYE;
    if (!s->drop)
        host__flush_until(s, l->bye);
    s->desc.writable = NULL;
    host__out_drop(s, true);
    host_event_fini(l, &s->event);
    host_timer_cancel(&s->lag);
    host_timer_cancel(&s->retry);
    host__end_close(s, &s->in);
    host__end_close(s, &s->out);
    host__end_close(s, &s->door);
    /* Unless somebody has put another socket in the place of ours. */
    if (s->path[0] && !lstat(s->path, &st) && (uint64_t)st.st_dev == s->path_dev &&
        (uint64_t)st.st_ino == s->path_ino)
        unlink(s->path);
    if (s->tty)
        host_tty_restore();
    s->waiting = 0;
    s->desc.loop = NULL;
}

/* >>net tap: what is the same for all of them */

static void host__tap_init(struct host_tap *t)
{
    memset(t, 0, sizeof *t);
    for (unsigned i = 0; i < HOST_TAP_QUEUES; i++)
        t->fd[i] = -1;
    t->news.fd = -1;
    t->up = true;
}

VMM_DEF void host_tap_close(struct host_tap *t)
{
    for (unsigned i = 0; i < t->nqueues; i++)
        if (t->fd[i] >= 0)
            close(t->fd[i]);
    if (t->news.fd >= 0)
        close(t->news.fd);
    host__tap_init(t);
}

/* Frames in more pieces than the system takes at once do not occur: their sender drops them. */
VMM_DEF int host_tap_send(struct host_tap *t, unsigned queue, const struct host_iov *iov,
                          unsigned n)
{
    ssize_t done = writev(t->fd[queue], (const struct iovec *)(const void *)iov, (int)n);

    return done < 0 ? -errno : (int)done;
}

VMM_DEF int host_tap_recv(struct host_tap *t, unsigned queue, const struct host_iov *iov,
                          unsigned n)
{
    ssize_t done = readv(t->fd[queue], (const struct iovec *)(const void *)iov, (int)n);

    return done < 0 ? -errno : (int)done;
}

#if defined(__linux__) || defined(HOST__BSD)
/* musl has the request as an int. */
static int host__ioctl(int fd, unsigned long request, void *arg)
{
#ifdef __linux__
    return ioctl(fd, (int)request, arg) ? -errno : 0;
#else
    return ioctl(fd, request, arg) ? -errno : 0;
#endif
}

/* A question to the kernel about the interface by its name. */
static int host__tap_ask(const struct host_tap *t, int sock, unsigned long request,
                         struct ifreq *ifr)
{
    memset(ifr, 0, sizeof *ifr);
    memcpy(ifr->ifr_name, t->name, sizeof t->name);
    return host__ioctl(sock, request, ifr);
}

static void host__tap_look(struct host_tap *t, int sock)
{
    struct ifreq ifr;

    t->up = !host__tap_ask(t, sock, SIOCGIFFLAGS, &ifr) && ifr.ifr_flags & IFF_UP;
}

/* What is to be known of an interface that has been opened. */
static void host__tap_know(struct host_tap *t)
{
    int sock = host__tame(socket(AF_INET, SOCK_DGRAM, 0));
    struct ifreq ifr;

    if (sock < 0)
        return;
    host__tap_look(t, sock);
    t->mtu = host__tap_ask(t, sock, SIOCGIFMTU, &ifr) ? 0 : (unsigned)ifr.ifr_mtu;
    close(sock);
}

/* The news are not read for what they say: some may have been lost. They are a reason to look. */
static void host__tap_news(void *ctx, unsigned events)
{
    struct host_tap *t = (struct host_tap *)ctx;
    bool was = t->up;
    char news[1024];
    ssize_t n;

    (void)events;
    do
        n = recv(t->news.fd, news, sizeof news, MSG_DONTWAIT);
    while (n > 0 || (n < 0 && errno == ENOBUFS));
    host__tap_know(t);
    if (t->up != was)
        t->changed(t->ctx);
}

VMM_DEF int host_tap_follow(struct host_tap *t, struct host_loop *l, void (*changed)(void *ctx),
                            void *ctx, const struct vmm_log *log)
{
#ifdef __linux__
    struct sockaddr_nl who = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
    int fd = host__tame(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
    bool deaf = fd < 0 || bind(fd, (const struct sockaddr *)&who, sizeof who);
#else
    int fd = host__tame(socket(PF_ROUTE, SOCK_RAW, 0));
    bool deaf = fd < 0;
#endif
    int rc;

    t->changed = changed;
    t->ctx = ctx;
    t->news = (struct host_watch){fd, HOST_IN, host__tap_news, t, 0};
    if (deaf)
        return vmm_err(log, -errno, "the state of tap '%s' cannot be watched: %s", t->name,
                       strerror(errno));
    rc = host_watch_add(l, &t->news);
    if (!rc)
        host__tap_know(t);
    return rc;
}
#endif

#if defined(__linux__)
/* >>net tap, of Linux */

#ifndef TUN_F_USO4 /* headers older than Linux 6.2 */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

static const struct {
    unsigned ours, tun;
} host__offloads[] = {{HOST_OFFLOAD_CSUM, TUN_F_CSUM}, {HOST_OFFLOAD_TSO4, TUN_F_TSO4},
                      {HOST_OFFLOAD_TSO6, TUN_F_TSO6}, {HOST_OFFLOAD_ECN, TUN_F_TSO_ECN},
                      {HOST_OFFLOAD_USO4, TUN_F_USO4}, {HOST_OFFLOAD_USO6, TUN_F_USO6}};

static int host__tap_offload(int fd, unsigned offload)
{
    uintptr_t bits = 0;

    for (unsigned i = 0; i < sizeof host__offloads / sizeof host__offloads[0]; i++)
        if (offload & host__offloads[i].ours)
            bits |= host__offloads[i].tun;
    return host__ioctl(fd, TUNSETOFFLOAD, (void *)bits);
}

/* Tries the offloads, the newest first, and leaves them off. */
static int host__tap_setup(struct host_tap *t, int fd, const struct vmm_log *log)
{
    const unsigned tcp =
        HOST_OFFLOAD_CSUM | HOST_OFFLOAD_TSO4 | HOST_OFFLOAD_TSO6 | HOST_OFFLOAD_ECN;
    int hdr = 12, err;

    if (host__ioctl(fd, TUNSETVNETHDRSZ, &hdr))
        return vmm_err(log, -errno, "tap '%s' takes no virtio headers: %s", t->name,
                       strerror(errno));
    t->offload = tcp | HOST_OFFLOAD_USO4 | HOST_OFFLOAD_USO6;
    if (host__tap_offload(fd, t->offload))
        t->offload = tcp;
    if (host__tap_offload(fd, t->offload))
        t->offload = 0;
    err = host__tap_offload(fd, 0);
    return err ? vmm_err(log, err, "tap '%s' takes no offloads: %s", t->name, strerror(-err)) : 0;
}

static int host__tap_refused(const struct host_tap *t, int err, const struct vmm_log *log)
{
    const char *multi = t->nqueues > 1 ? " multi_queue" : "";

    if (err == EPERM || err == EACCES)
        return vmm_err(log, -err,
                       "no permission for tap '%s': as root, ip tuntap add dev %s mode tap%s user "
                       "$USER makes one that is yours",
                       t->name, t->name, multi);
    if (err == EBUSY)
        return vmm_err(log, -err, "tap '%s' is in use by another program: choose another", t->name);
    if (err == EINVAL)
        return vmm_err(
            log, -err,
            "'%s' is no tap with %u queue%s: ip tuntap add dev NAME mode tap%s makes one", t->name,
            t->nqueues, t->nqueues > 1 ? "s" : "", multi);
    return vmm_err(log, -err, "tap '%s' cannot be opened: %s", t->name, strerror(err));
}

static int host__tun_open(const struct vmm_log *log)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (fd >= 0)
        return fd;
    if (errno == EACCES || errno == EPERM)
        return vmm_err(log, -errno, "no permission to open /dev/net/tun: ask its owner (%s)",
                       "usually anybody may: chmod 666 /dev/net/tun");
    return vmm_err(log, -errno, "/dev/net/tun cannot be opened (%s): modprobe tun, as root",
                   strerror(errno));
}

/* One more queue of the tap. */
static int host__tap_queue(struct host_tap *t, const struct vmm_log *log)
{
    struct ifreq ifr = {.ifr_flags = 0};
    int multi = t->nqueues > 1 ? IFF_MULTI_QUEUE : 0, fd = host__tun_open(log), rc;

    if (fd < 0)
        return fd;
    memcpy(ifr.ifr_name, t->name, sizeof t->name);
    ifr.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | multi);
    rc = host__ioctl(fd, TUNSETIFF, &ifr);
    if (rc == -EINVAL && !multi) { /* one that was made for several can be used with one */
        ifr.ifr_flags = (short)(ifr.ifr_flags | IFF_MULTI_QUEUE);
        rc = host__ioctl(fd, TUNSETIFF, &ifr);
    }
    if (rc) {
        close(fd);
        return host__tap_refused(t, -rc, log);
    }
    memcpy(t->name, ifr.ifr_name, sizeof t->name); /* "tap%d" has become "tap0" */
    return fd;
}

VMM_DEF int host_tap_open(struct host_tap *t, const char *name, unsigned nqueues,
                          const struct vmm_log *log)
{
    int err = 0;

    host__tap_init(t);
    if (!*name || strlen(name) >= sizeof t->name)
        return vmm_err(log, -EINVAL, "'%s' is no name of an interface: 1 to 15 characters", name);
    if (!nqueues || nqueues > HOST_TAP_QUEUES)
        return vmm_err(log, -EINVAL, "a tap can have 1 to %d queues", HOST_TAP_QUEUES);
    memcpy(t->name, name, strlen(name));
    t->nqueues = nqueues;
    for (t->nused = 0; t->nused < nqueues && !err; t->nused++) {
        t->fd[t->nused] = host__tap_queue(t, log);
        err = t->fd[t->nused] < 0 ? t->fd[t->nused] : host__tap_setup(t, t->fd[t->nused], log);
    }
    if (err) {
        host_tap_close(t);
        return err;
    }
    host__tap_know(t);
    host_tap_set_queues(t, 1);
    return 0;
}

VMM_DEF int host_tap_adopt(struct host_tap *t, int fd, const struct vmm_log *log)
{
    struct ifreq ifr;
    int flags = fcntl(fd, F_GETFL);

    host__tap_init(t);
    if (flags < 0)
        return vmm_err(log, -EBADF, "descriptor %d is not open: give that of a tap", fd);
    memset(&ifr, 0, sizeof ifr);
    if (host__ioctl(fd, TUNGETIFF, &ifr) || !(ifr.ifr_flags & IFF_TAP))
        return vmm_err(log, -EINVAL, "descriptor %d is no tap: give that of one", fd);
    if (!(ifr.ifr_flags & IFF_VNET_HDR) || !(ifr.ifr_flags & IFF_NO_PI))
        return vmm_err(log, -EINVAL,
                       "descriptor %d is a tap opened without IFF_VNET_HDR and IFF_NO_PI: open it "
                       "with both",
                       fd);
    if (fcntl(fd, F_SETFL, flags | O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC))
        return vmm_err(log, -errno, "descriptor %d cannot be used: %s", fd, strerror(errno));
    memcpy(t->name, ifr.ifr_name, sizeof t->name);
    t->fd[0] = fd;
    t->nqueues = t->nused = 1;
    return host__tap_setup(t, fd, log);
}

VMM_DEF void host_tap_set_offload(struct host_tap *t, unsigned offload)
{
    host__tap_offload(t->fd[0], offload & t->offload);
}

/* A detached queue gets no frames; those that wait in it are lost. */
VMM_DEF void host_tap_set_queues(struct host_tap *t, unsigned n)
{
    for (unsigned i = 0; i < t->nqueues; i++) {
        struct ifreq ifr = {.ifr_flags = 0};
        bool use = i < n;
        if (use == (i < t->nused))
            continue;
        ifr.ifr_flags = use ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
        host__ioctl(t->fd[i], TUNSETQUEUE,
                    &ifr); /* on failure, frames wait in vain: as on a bad cable */
    }
    t->nused = n < t->nqueues ? n : t->nqueues;
}

#else
/* >>net tap, of the BSDs: one queue of frames without headers. And none at all. */

VMM_DEF int host_tap_adopt(struct host_tap *t, int fd, const struct vmm_log *log)
{
    host__tap_init(t);
    return vmm_err(log, -ENOTSUP, "descriptor %d: this system has no taps to inherit: leave it out",
                   fd);
}

VMM_DEF void host_tap_set_offload(struct host_tap *t, unsigned offload)
{
    (void)t;
    (void)offload;
}

VMM_DEF void host_tap_set_queues(struct host_tap *t, unsigned n)
{
    (void)t;
    (void)n;
}

#ifdef HOST__BSD
/* What a node's mode forbids is EACCES; EPERM comes from DragonFly's driver, which asks who one is. */
static int host__tap_refused(const char *path, int err, const struct vmm_log *log)
{
    if (err == EACCES)
        return vmm_err(log, -err,
                       "no permission for %s: run as root, or give your user access to it", path);
    if (err == EPERM)
        return vmm_err(log, -err,
                       "%s is for root alone: as root, sysctl net.link.tap.user_open=1 gives it to "
                       "those who have access",
                       path);
    if (err == EBUSY)
        return vmm_err(log, -err, "%s is in use by another program: choose another tap", path);
    return vmm_err(log, -err, "%s cannot be opened (%s): as root, ifconfig %s create up makes one",
                   path, strerror(err), path + 5);
}

VMM_DEF int host_tap_open(struct host_tap *t, const char *name, unsigned nqueues,
                          const struct vmm_log *log)
{
    char path[32];

    host__tap_init(t);
    if (strncmp(name, "tap", 3) || strlen(name) >= sizeof t->name || strchr(name, '/'))
        return vmm_err(log, -EINVAL, "'%s' is no name of a tap: give tap0 or another number", name);
    if (nqueues != 1)
        return vmm_err(log, -EINVAL, "a tap of this system has one queue: leave queues out");
    memcpy(t->name, name, strlen(name));
    snprintf(path, sizeof path, "/dev/%s", name);
    t->fd[0] = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (t->fd[0] < 0)
        return host__tap_refused(path, errno, log);
    t->nqueues = t->nused = 1;
    t->bare = true;
    host__tap_know(t);
    return 0;
}
#else
VMM_DEF int host_tap_open(struct host_tap *t, const char *name, unsigned nqueues,
                          const struct vmm_log *log)
{
    (void)nqueues;
    host__tap_init(t);
    return vmm_err(log, -ENOTSUP,
                   "tap '%s': this system has no taps: give unixgram=SOCKET or passt=SOCKET", name);
}

VMM_DEF int host_tap_follow(struct host_tap *t, struct host_loop *l, void (*changed)(void *ctx),
                            void *ctx, const struct vmm_log *log)
{
    (void)t;
    (void)l;
    (void)changed;
    (void)ctx;
    (void)log;
    return -ENOTSUP;
}
#endif
#endif

/* >>net passt */

#define HOST__PASST_FIRST 100000000  /* ns until the first try to connect again, then twice that */
#define HOST__PASST_LAST  5000000000 /* and so on up to this */

static void host__passt_up(struct host_passt *p, int fd)
{
    p->watch.fd = fd;
    p->up = true;
    p->broken = false;
    p->in_at = p->in_len = p->out_at = p->out_len = 0;
    p->delay = HOST__PASST_FIRST;
}

/* Our end of a datagram socket needs a name, or nobody could answer: beside that of the helper's, and
   for us alone. */
static int host__gram_bind(struct host_passt *p, int fd)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int len = snprintf(p->own, sizeof p->own, "%s.%d.%d", p->desc.path, (int)getpid(), fd);

    if (len < 0 || (size_t)len >= sizeof p->own || (size_t)len >= sizeof a.sun_path) {
        p->own[0] = 0;
        return -ENAMETOOLONG;
    }
    memcpy(a.sun_path, p->own, (size_t)len);
    unlink(p->own);
    return bind(fd, (const struct sockaddr *)&a, sizeof a) || chmod(p->own, 0600) ? -errno : 0;
}

/* By default macOS has room for a frame or two; where there is more, more is not given. */
static int host__gram_greet(int fd)
{
    static const char hello[4] = {'V', 'F', 'K', 'T'};
    int out = 1 << 20, in = 4 << 20;

    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &out, sizeof out);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &in, sizeof in);
    return send(fd, hello, sizeof hello, MSG_NOSIGNAL) == sizeof hello ? 0 : -errno;
}

/* Our end is no more. */
static void host__gram_unbind(struct host_passt *p)
{
    if (p->own[0])
        unlink(p->own);
    p->own[0] = 0;
}

static int host__passt_connect(struct host_passt *p)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t len = strlen(p->desc.path);
    int fd, rc = 0;

    if (len >= sizeof a.sun_path)
        return -ENAMETOOLONG;
    memcpy(a.sun_path, p->desc.path, len);
    fd = host__tame(socket(AF_UNIX, p->desc.datagrams ? SOCK_DGRAM : SOCK_STREAM, 0));
    if (fd < 0)
        return -errno;
    if (p->desc.datagrams)
        rc = host__gram_bind(p, fd);
    if (!rc && connect(fd, (const struct sockaddr *)&a, sizeof a))
        rc = -errno;
    if (!rc && p->desc.datagrams)
        rc = host__gram_greet(fd);
    if (!rc)
        return fd;
    host__gram_unbind(p);
    close(fd);
    return rc;
}

/* It may have come back. */
static void host__passt_retry(void *ctx)
{
    struct host_passt *p = (struct host_passt *)ctx;
    int fd = host__passt_connect(p);

    if (fd < 0) {
        p->delay = p->delay < HOST__PASST_LAST / 2 ? p->delay * 2 : HOST__PASST_LAST;
        host_timer_set(p->desc.loop, &p->retry, p->delay, host__passt_retry, p);
        return;
    }
    host__passt_up(p, fd);
    vmm_say(p->desc.log, VMM_LOG_WARN, "the network at '%s' is back", p->desc.path);
    p->desc.ready(p->desc.ctx);
}

/* It has gone, or talks nonsense. */
static void host__passt_down(struct host_passt *p)
{
    host_watch_del(p->desc.loop, &p->watch);
    close(p->watch.fd);
    p->watch.fd = -1;
    p->up = false;
    host__gram_unbind(p);
    if (p->desc.path) {
        vmm_say(p->desc.log, VMM_LOG_WARN,
                "the network at '%s' has gone: the guest's cable is out until it is back",
                p->desc.path);
        host_timer_set(p->desc.loop, &p->retry, p->delay, host__passt_retry, p);
        return;
    }
    vmm_say(p->desc.log, VMM_LOG_WARN, "passt has ended: the guest's cable is out");
    if (p->pid)
        waitpid(p->pid, NULL, WNOHANG);
}

/* Looks again once the caller is done: nothing is hung up under its feet. */
static void host__passt_break(struct host_passt *p)
{
    p->broken = true;
    host_event_raise(&p->more);
}

/* What is left of the last frame. False: there is still no room. */
static bool host__passt_flush(struct host_passt *p)
{
    while (p->out_at < p->out_len) {
        ssize_t n = send(p->watch.fd, p->out + p->out_at, p->out_len - p->out_at,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            return false;
        if (n < 0) {
            host__passt_break(p);
            return true;
        }
        p->out_at += (size_t)n;
    }
    return true;
}

static void host__passt_more(void *ctx)
{
    struct host_passt *p = (struct host_passt *)ctx;

    if (p->up && p->watch.events)
        p->desc.ready(p->desc.ctx);
    if (p->up && p->broken) {
        host__passt_down(p);
        p->desc.ready(p->desc.ctx);
    }
}

static void host__passt_event(void *ctx, unsigned events)
{
    struct host_passt *p = (struct host_passt *)ctx;

    if (events & HOST_HUP && !(events & HOST_IN))
        p->broken = true;
    else if (events & HOST_OUT)
        host__passt_flush(p);
    host__passt_more(p);
}

#ifdef __linux__
/* Which descriptor of the child's is the socket. */
#define HOST__PASST_FD "3"

/* In the child: becomes passt, which ends when its socket is closed, or says why not. */
static void host__passt_exec(int sock, int report, unsigned mtu)
{
    char mtu_text[16];
    const char *argv[] = {"passt",        "--foreground",       "--quiet", "--fd",
                          HOST__PASST_FD, mtu ? "--mtu" : NULL, mtu_text,  NULL};
    int err, in = open("/dev/null", O_RDWR | O_CLOEXEC);
    sigset_t none;

    snprintf(mtu_text, sizeof mtu_text, "%u", mtu);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    report = fcntl(report, F_DUPFD_CLOEXEC, 10); /* out of the way */
    sock = fcntl(sock, F_DUPFD_CLOEXEC, 10);
    if (report >= 0 && sock >= 0 && in >= 0 && dup2(in, 0) == 0 && dup2(sock, 3) == 3)
        execvp("passt", (char *const *)(uintptr_t)argv);
    err = errno;
    if (write(report, &err, sizeof err) < 0)
        _exit(126);
    _exit(127);
}

static int host__passt_spawn(struct host_passt *p)
{
    int sock[2] = {-1, -1}, report[2] = {-1, -1}, err = 0;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) || pipe2(report, O_CLOEXEC) ||
        fcntl(sock[0], F_SETFL, O_NONBLOCK) || (p->pid = fork()) < 0)
        err = errno;
    if (!err && !p->pid)
        host__passt_exec(sock[1], report[1], p->desc.mtu);
    close(sock[1]);
    close(report[1]);
    if (!err && read(report[0], &err, sizeof err) <= 0)
        err = 0;
    close(report[0]);
    if (!err) {
        host__passt_up(p, sock[0]);
        return 0;
    }
    close(sock[0]);
    if (p->pid > 0)
        waitpid(p->pid, NULL, 0);
    p->pid = 0;
    return vmm_err(p->desc.log, -err, "passt cannot be started (%s): install it, or give tap=IF",
                   strerror(err));
}
#else
static int host__passt_spawn(struct host_passt *p)
{
    return vmm_err(p->desc.log, -ENOTSUP,
                   "passt runs on Linux alone: give passt=SOCKET or unixgram=SOCKET of a helper");
}
#endif

VMM_DEF int host_passt_open(struct host_passt *p, const struct host_passt_desc *d)
{
    int rc;

    memset(p, 0, offsetof(struct host_passt, in)); /* leave the buffers untouched */
    p->desc = *d;
    p->watch = (struct host_watch){-1, 0, host__passt_event, p, 0};
    host__mute_signals();
    if (d->path) {
        rc = host__passt_connect(p);
        if (rc < 0 && d->datagrams)
            return vmm_err(d->log, rc, "no helper takes frames at '%s' (%s): start gvproxy %s%s",
                           d->path, strerror(-rc), "--listen-vfkit unixgram://", d->path);
        if (rc < 0)
            return vmm_err(d->log, rc, "no passt listens at '%s' (%s): start passt --socket %s",
                           d->path, strerror(-rc), d->path);
        host__passt_up(p, rc);
    } else if ((rc = host__passt_spawn(p))) {
        return rc;
    }
    host_event_init(d->loop, &p->more, host__passt_more, p);
    return 0;
}

VMM_DEF void host_passt_close(struct host_passt *p)
{
    if (!p->desc.loop)
        return;
    host_watch_del(p->desc.loop, &p->watch);
    host_event_fini(p->desc.loop, &p->more);
    host_timer_cancel(&p->retry);
    if (p->watch.fd >= 0)
        close(p->watch.fd);
    host__gram_unbind(p);
    if (p->pid) {
        kill(p->pid, SIGKILL);
        waitpid(p->pid, NULL, 0);
    }
    p->up = false;
    p->desc.loop = NULL;
}

/* Keeps what follows byte `done` of length and frame. */
static void host__passt_keep(struct host_passt *p, const struct iovec *iov, unsigned n, size_t done)
{
    p->out_at = p->out_len = 0;
    for (unsigned i = 0; i < n; i++) {
        size_t skip = done < iov[i].iov_len ? done : iov[i].iov_len;
        memcpy(p->out + p->out_len, (const uint8_t *)iov[i].iov_base + skip, iov[i].iov_len - skip);
        p->out_len += iov[i].iov_len - skip;
        done -= skip;
    }
}

/* A send or receive of a datagram failed. One too many or too long is lost; what else there is says
   that the helper has gone. */
static int host__gram_failed(struct host_passt *p, int err)
{
    if (err == EAGAIN || err == EINTR)
        return -EAGAIN;
    if (err != ENOBUFS && err != EMSGSIZE && err != ENOMEM)
        host__passt_break(p);
    return -err;
}

static int host__gram_send(struct host_passt *p, struct iovec *v, unsigned n)
{
    struct msghdr m = {.msg_iov = v};
    ssize_t done;

    m.msg_iovlen = (__typeof__(m.msg_iovlen))n;
    done = sendmsg(p->watch.fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    return done < 0 ? host__gram_failed(p, errno) : (int)done;
}

/* Empty ones are no frames. */
static int host__gram_recv(struct host_passt *p, const struct host_iov *iov, unsigned n)
{
    struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)iov};
    ssize_t done = 0;

    if (p->broken)
        return -EAGAIN;
    m.msg_iovlen = (__typeof__(m.msg_iovlen))(n < HOST__IOV_MAX ? n : HOST__IOV_MAX);
    for (unsigned tries = 0; tries < 16 && !done; tries++)
        done = recvmsg(p->watch.fd, &m, MSG_DONTWAIT);
    if (done < 0)
        return host__gram_failed(p, errno);
    return done ? (int)done : -EAGAIN;
}

VMM_DEF int host_passt_send(struct host_passt *p, const struct host_iov *iov, unsigned n)
{
    struct iovec v[HOST__FRAME_IOV + 1];
    struct msghdr m = {.msg_iov = v};
    uint32_t len = 0, net;
    ssize_t done;

    if (!p->up || p->broken)
        return -ENOTCONN;
    if (!host__passt_flush(p))
        return -EAGAIN;
    if (n > HOST__FRAME_IOV)
        return -EINVAL;
    for (unsigned i = 0; i < n; i++) {
        v[1 + i] = (struct iovec){iov[i].base, iov[i].len};
        if (iov[i].len > HOST_FRAME_MAX - len)
            return -EMSGSIZE;
        len += (uint32_t)iov[i].len;
    }
    if (p->desc.datagrams)
        return host__gram_send(p, v + 1, n);
    net = htonl(len);
    v[0] = (struct iovec){&net, sizeof net};
    m.msg_iovlen = (__typeof__(m.msg_iovlen))(n + 1);
    done = sendmsg(p->watch.fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (done < 0 && errno != EAGAIN)
        host__passt_break(p);
    if (done < 0)
        return -errno;
    host__passt_keep(p, v, n + 1, (size_t)done);
    return (int)len;
}

/* The length of the frame at the front of the buffer when all of it is there; else 0. */
static uint32_t host__passt_whole(struct host_passt *p)
{
    uint32_t len;

    if (p->in_len < sizeof len || p->broken)
        return 0;
    memcpy(&len, p->in + p->in_at, sizeof len);
    len = ntohl(len);
    if (!len || len > HOST_FRAME_MAX) { /* this is no passt, or we have lost step */
        host__passt_break(p);
        return 0;
    }
    return p->in_len - sizeof len >= len ? len : 0;
}

/* Reads as much as there is room for. False: nothing came. */
static bool host__passt_fill(struct host_passt *p)
{
    ssize_t n;

    memmove(p->in, p->in + p->in_at, p->in_len);
    p->in_at = 0;
    n = recv(p->watch.fd, p->in + p->in_len, sizeof p->in - p->in_len, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        host__passt_break(p);
    if (n > 0)
        p->in_len += (size_t)n;
    return n > 0;
}

VMM_DEF int host_passt_recv(struct host_passt *p, const struct host_iov *iov, unsigned n)
{
    uint32_t len, done = 0;

    if (!p->up)
        return -ENOTCONN;
    if (p->desc.datagrams)
        return host__gram_recv(p, iov, n);
    while (!(len = host__passt_whole(p)))
        if (p->broken || !host__passt_fill(p))
            return -EAGAIN;
    for (unsigned i = 0; i < n && done < len; i++) {
        size_t part = iov[i].len < len - done ? iov[i].len : len - done;
        memcpy(iov[i].base, p->in + p->in_at + 4 + done, part);
        done += (uint32_t)part;
    }
    p->in_at += 4 + len;
    p->in_len -= 4 + len;
    return (int)len;
}

/* Frames that we have read already do not show at the descriptor. */
VMM_DEF void host_passt_watch(struct host_passt *p, unsigned events)
{
    if (!p->up) {
        p->watch.events = 0;
        return;
    }
    if (p->out_at < p->out_len)
        events |= HOST_OUT;
    host_watch_set(p->desc.loop, &p->watch, events);
    if (events & HOST_IN && host__passt_whole(p))
        host_event_raise(&p->more);
}

/* >>net vhost */

#ifdef __linux__
VMM_DEF int host_vhost_open(struct host_vhost *v, const struct vmm_mem *mem,
                            const struct vmm_log *log)
{
    uint64_t room[(sizeof(struct vhost_memory) + VMM_MEM_MAX * sizeof(struct vhost_memory_region)) /
                  sizeof(uint64_t)] = {0};
    struct vhost_memory *table = (struct vhost_memory *)(void *)room;
    uint64_t features;

    table->nregions = mem->nranges;
    for (unsigned i = 0; i < mem->nranges; i++)
        table->regions[i] =
            (struct vhost_memory_region){.guest_phys_addr = mem->range[i].gpa,
                                         .memory_size = mem->range[i].len,
                                         .userspace_addr = (uintptr_t)mem->range[i].hva};
    v->fd = open("/dev/vhost-net", O_RDWR | O_CLOEXEC);
    if (v->fd < 0)
        return vmm_err(log, -errno, "/dev/vhost-net cannot be opened (%s): %s", strerror(errno),
                       errno == EACCES ? "run as root, or give your user access"
                                       : "modprobe vhost_net, as root");
    if (host__ioctl(v->fd, VHOST_SET_OWNER, NULL) ||
        host__ioctl(v->fd, VHOST_GET_FEATURES, &features) ||
        host__ioctl(v->fd, VHOST_SET_MEM_TABLE, table)) {
        int err = errno;
        host_vhost_close(v);
        return vmm_err(log, -err, "/dev/vhost-net refuses the guest's memory: %s", strerror(err));
    }
    v->features = features & ~(1ull << VHOST_NET_F_VIRTIO_NET_HDR); /* the tap brings headers */
    return 0;
}

VMM_DEF int host_vhost_start(struct host_vhost *v, unsigned ring, const struct host_ring *r,
                             uint64_t features, int tap_fd)
{
    struct vhost_vring_state num = {ring, r->size}, base = {ring, 0};
    struct vhost_vring_addr addr = {.index = ring,
                                    .desc_user_addr = (uintptr_t)r->desc,
                                    .avail_user_addr = (uintptr_t)r->driver,
                                    .used_user_addr = (uintptr_t)r->device};
    struct vhost_vring_file kick = {ring, r->kick}, call = {ring, r->call}, tap = {ring, tap_fd};

    features &= v->features;
    if (host__ioctl(v->fd, VHOST_SET_FEATURES, &features) ||
        host__ioctl(v->fd, VHOST_SET_VRING_NUM, &num) ||
        host__ioctl(v->fd, VHOST_SET_VRING_BASE, &base) ||
        host__ioctl(v->fd, VHOST_SET_VRING_ADDR, &addr) ||
        host__ioctl(v->fd, VHOST_SET_VRING_KICK, &kick) ||
        host__ioctl(v->fd, VHOST_SET_VRING_CALL, &call) ||
        host__ioctl(v->fd, VHOST_NET_SET_BACKEND, &tap))
        return -errno;
    return 0;
}

VMM_DEF void host_vhost_call(struct host_vhost *v, unsigned ring, int call)
{
    struct vhost_vring_file file = {ring, call};

    host__ioctl(v->fd, VHOST_SET_VRING_CALL, &file); /* the kernel keeps the last one if it fails */
}

/* Without a back end the kernel takes its hands off the ring, before the call returns. */
VMM_DEF void host_vhost_stop(struct host_vhost *v, unsigned ring)
{
    struct vhost_vring_file none = {ring, -1};

    host__ioctl(v->fd, VHOST_NET_SET_BACKEND, &none);
    host__ioctl(v->fd, VHOST_SET_VRING_KICK, &none);
    host__ioctl(v->fd, VHOST_SET_VRING_CALL, &none);
}

VMM_DEF void host_vhost_close(struct host_vhost *v)
{
    if (v->fd >= 0)
        close(v->fd);
    v->fd = -1;
}
#else
VMM_DEF int host_vhost_open(struct host_vhost *v, const struct vmm_mem *mem,
                            const struct vmm_log *log)
{
    (void)mem;
    v->fd = -1;
    return vmm_err(log, -ENOTSUP, "this system has no vhost: leave vhost=on out");
}

VMM_DEF int host_vhost_start(struct host_vhost *v, unsigned ring, const struct host_ring *r,
                             uint64_t features, int tap_fd)
{
    (void)v;
    (void)ring;
    (void)r;
    (void)features;
    (void)tap_fd;
    return -ENOTSUP;
}

VMM_DEF void host_vhost_call(struct host_vhost *v, unsigned ring, int call)
{
    (void)v;
    (void)ring;
    (void)call;
}

VMM_DEF void host_vhost_stop(struct host_vhost *v, unsigned ring)
{
    (void)v;
    (void)ring;
}

VMM_DEF void host_vhost_close(struct host_vhost *v)
{
    (void)v;
}
#endif

#endif /* HOST_IMPLEMENTATION */
