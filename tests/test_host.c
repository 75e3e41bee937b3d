/* test_host.c - host.h against real pipes, sockets, files, threads and pseudo-terminals */
#define HOST_IMPLEMENTATION
#define HOST_STREAM_BYE   150000000 /* ns: no test may take long */
#define HOST_STREAM_RETRY 20000000
#include "../host.h"
#include "check.h"
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#if defined(HOST_LOOP_KQUEUE)
#define TEST_NAME "test_host_kqueue"
#elif defined(HOST_LOOP_POLL)
#define TEST_NAME "test_host_poll"
#else
#define TEST_NAME "test_host"
#endif
/* >>tools */

static char dir[64]; /* of this run's own files */

static const char *in_dir(const char *name)
{
    static char path[2][128];
    static unsigned turn;

    turn ^= 1;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

/* A log that remembers its last sentence and how many there were. */
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

/* Exactly one sentence since the last call, with `part` in it; none when part is NULL. */
static bool said_once(const char *part)
{
    bool held = part ? said.lines == 1 && strstr(said.text, part) : said.lines == 0;

    if (!held)
        fprintf(stderr, "%u sentences, the last one: %s\n", said.lines, said.text);
    said.lines = 0;
    said.text[0] = 0;
    return held;
}

static struct host_loop loop;

static void stop_loop(void *ctx)
{
    host_loop_stop((struct host_loop *)ctx);
}

/* Lets the loop work for so many ms. */
static void turn(unsigned ms)
{
    struct host_timer t = {0};

    CHECK(!host_timer_set(&loop, &t, ms * 1000000ull, stop_loop, &loop));
    CHECK(!host_loop_run(&loop));
    host_timer_cancel(&t);
    for (int i = 0; i < 8; i++) /* what is due, however slow the machine */
        CHECK(!host__poll_wait(&loop, 0));
}

/* Lets the loop work until *value is at least `goal`, for two seconds at most. */
static bool reaches(const volatile size_t *value, size_t goal)
{
    for (unsigned ms = 0; ms < 2000 && __atomic_load_n(value, __ATOMIC_SEQ_CST) < goal; ms += 2)
        turn(2);
    return __atomic_load_n(value, __ATOMIC_SEQ_CST) >= goal;
}

static void count(void *ctx)
{
    ++*(size_t *)ctx;
}

static uint8_t pattern(size_t i)
{
    return (uint8_t)(i * 7 + i / 251);
}

static void make_file(const char *name, size_t len)
{
    int fd = open(in_dir(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);

    for (size_t i = 0; i < len; i++) {
        uint8_t b = pattern(i);
        CHECK(write(fd, &b, 1) == 1);
    }
    close(fd);
}

/* Reads what there is without blocking. */
static size_t slurp(int fd, void *buf, size_t len)
{
    size_t done = 0;

    for (;;) {
        struct pollfd p = {fd, POLLIN, 0};
        ssize_t n = poll(&p, 1, 0) > 0 ? read(fd, (uint8_t *)buf + done, len - done) : 0;
        if (n <= 0)
            return done;
        done += (size_t)n;
    }
}

/* A guest's device: takes at most `take` bytes a call and holds at most `hold` until `fifo` is
   emptied. */
struct device {
    struct host_stream s;
    uint8_t got[20000];
    volatile size_t ngot;
    size_t take, hold, fifo;
    volatile size_t room, escapes;
    char key;
    volatile size_t came, went; /* at the other end */
};

static struct device dev;

static size_t dev_input(void *ctx, const void *buf, size_t len)
{
    struct device *d = (struct device *)ctx;
    size_t n = len < d->take ? len : d->take;

    n = n < d->hold - d->fifo ? n : d->hold - d->fifo;
    n = n < sizeof d->got - d->ngot ? n : sizeof d->got - d->ngot;
    memcpy(d->got + d->ngot, buf, n);
    d->ngot += n;
    d->fifo += n;
    return n;
}

static void dev_writable(void *ctx)
{
    ((struct device *)ctx)->room++;
}

static void dev_escape(void *ctx, char key)
{
    struct device *d = (struct device *)ctx;

    d->escapes++;
    d->key = key;
    if (key == 'x')
        host_loop_stop(d->s.desc.loop);
}

static void dev_peer(void *ctx, bool there)
{
    struct device *d = (struct device *)ctx;

    CHECK(there ? d->came == d->went : d->came == d->went + 1);
    ++*(there ? &d->came : &d->went);
}

static int dev_open(const char *spec)
{
    struct host_stream_desc desc = {&loop,      spec,     dev_input, dev_writable,
                                    dev_escape, dev_peer, &dev,      &test_log};

    dev.ngot = dev.fifo = dev.room = dev.escapes = dev.came = dev.went = 0;
    dev.take = dev.hold = sizeof dev.got;
    return host_stream_open(&dev.s, &desc);
}

/* Puts other descriptors in the place of standard input and output, and back (-1, -1). */
static void redirect(int in, int out)
{
    static int saved[2] = {-1, -1};

    for (int i = 0; i < 2; i++) {
        int fd = i ? out : in;
        if (saved[i] < 0)
            saved[i] = dup(i);
        CHECK(dup2(fd >= 0 ? fd : saved[i], i) == i);
    }
}

/* >>loop */

static struct host_watch pair[2];
static size_t pair_calls;

static void delete_other(void *ctx, unsigned events)
{
    CHECK_EQ(events, HOST_IN);
    pair_calls++;
    host_watch_del(&loop, (struct host_watch *)ctx);
}

/* Two descriptors are ready in one batch; the first callback deletes the other watch. */
static void test_watch(void)
{
    int a[2], b[2];

    CHECK(!pipe(a) && !pipe(b));
    CHECK(write(a[1], "x", 1) == 1 && write(b[1], "x", 1) == 1);
    pair[0] = (struct host_watch){a[0], HOST_IN, delete_other, &pair[1], 0};
    pair[1] = (struct host_watch){b[0], HOST_IN, delete_other, &pair[0], 0};
    CHECK(!host_watch_add(&loop, &pair[0]) && !host_watch_add(&loop, &pair[1]));
    host_loop_stop(&loop);
    CHECK(!host_loop_run(&loop)); /* a stop before the run counts */
    CHECK_EQ(pair_calls, 0);
    CHECK(!host_watch_set(&loop, &pair[0], 0) && !host_watch_set(&loop, &pair[0], HOST_IN));
    for (int i = 0; i < 5 && !pair_calls; i++)
        turn(1);
    CHECK(pair_calls >= 1);
    CHECK(!pair[0].armed != !pair[1].armed);
    host_watch_del(&loop, &pair[0]);
    host_watch_del(&loop, &pair[1]);
    close(a[0]), close(a[1]), close(b[0]), close(b[1]);
}

static void test_timer(void)
{
    struct host_timer t = {0}, never = {0};
    volatile size_t fired = 0, wrong = 0;
    uint64_t start = host_now();

    CHECK(!host_timer_set(&loop, &never, 1, count, (void *)&wrong));
    host_timer_cancel(&never);
    CHECK(!host_timer_set(&loop, &t, 1, count, (void *)&wrong));
    CHECK(!host_timer_set(&loop, &t, 3000000, count, (void *)&fired)); /* replaces */
    CHECK(reaches(&fired, 1));
    CHECK(host_now() - start >= 3000000);
    turn(5);
    CHECK_EQ(fired, 1);
    CHECK_EQ(wrong, 0);
    host_timer_cancel(&t);
    host_timer_cancel(&t);
    CHECK(!host_timer_set(&loop, &t, 0, count, (void *)&fired));
    CHECK(reaches(&fired, 2));
    host_timer_cancel(&t);
}

static void *set_again(void *ctx)
{
    poll(NULL, 0, 20); /* the loop sleeps by then, most likely */
    host_timer_again((struct host_timer *)ctx, 1000000);
    return NULL;
}

/* Another thread wants it earlier than the loop has planned to wake up. */
static void test_timer_again(void)
{
    struct host_timer t = {0}, late = {0};
    struct host_thread thread;
    uint64_t start = host_now();

    CHECK(!host_timer_set(&loop, &late, 5000000000, stop_loop, &loop));
    CHECK(!host_timer_set(&loop, &t, 4000000000, stop_loop, &loop));
    CHECK(!host_thread_start(&thread, set_again, &t, "again"));
    CHECK(!host_loop_run(&loop));
    CHECK(host_now() - start < 2000000000);
    host_thread_join(&thread);
    host_timer_cancel(&t);
    host_timer_cancel(&late);
}

static struct host_event event, event2;
static volatile size_t level, seen;

/* What the raiser did before it raised must be visible at the latest in the last call. */
static void look(void *ctx)
{
    (void)ctx;
    seen = __atomic_load_n(&level, __ATOMIC_SEQ_CST);
}

static void *raise_often(void *ctx)
{
    char name[16] = "";

    for (int i = 0; i < 50000; i++) {
        __atomic_add_fetch(&level, 1, __ATOMIC_SEQ_CST);
        host_event_raise(&event);
    }
    prctl(PR_GET_NAME, name);
    return strcmp(name, (const char *)ctx) ? NULL : ctx;
}

static void fini_both(void *ctx)
{
    (void)ctx;
    host_event_fini(&loop, &event);
    host_event_fini(&loop, &event2);
}

static void test_event(void)
{
    struct host_thread t;
    size_t calls = 0;

    host_event_init(&loop, &event, look, NULL);
    CHECK(!host_thread_start(&t, raise_often, "raiser", "raiser"));
    CHECK(reaches(&seen, 50000));
    host_thread_join(&t);
    host_event_fini(&loop, &event);

    host_event_init(&loop, &event, count, &calls);
    for (int i = 0; i < 5; i++)
        host_event_raise(&event);
    turn(2);
    CHECK_EQ(calls, 1);
    host_event_init(&loop, &event2, fini_both, NULL); /* runs first, deletes itself and the next */
    host_event_raise(&event2);
    host_event_raise(&event);
    turn(2);
    CHECK_EQ(calls, 1);
    CHECK(!loop.events);
}

static void on_signal(void *ctx, int signo)
{
    *(volatile size_t *)ctx = (size_t)signo;
}

static void test_signals(void)
{
    static const int signos[] = {SIGUSR1, SIGUSR2}, later = SIGALRM;
    struct host_signals s, s2;
    volatile size_t got = 0;

    CHECK(!host_signals_add(&loop, &s, signos, 2, on_signal, (void *)&got));
    kill(getpid(), SIGUSR2);
    CHECK(reaches(&got, 1));
    CHECK_EQ(got, SIGUSR2);
    for (unsigned i = 0; i < 3; i++) {
        int signo = signos[i % 2];
        got = 0;
        kill(getpid(), signo);
        CHECK(reaches(&got, 1));
        CHECK_EQ(got, signo);
    }
    CHECK(!host_signals_add(&loop, &s2, &later, 1, on_signal, (void *)&got));
    for (unsigned i = 0; i < 20; i++) { /* not to a thread that waits for others */
        got = 0;
        kill(getpid(), later);
        CHECK(reaches(&got, 1));
        CHECK_EQ(got, later);
    }
    host_signals_del(&loop, &s2);
    host_signals_del(&loop, &s);
}

static size_t shared;

static void *add_locked(void *ctx)
{
    for (int i = 0; i < 20000; i++) {
        vmm_enter((const struct vmm_lock *)ctx);
        shared++;
        vmm_leave((const struct vmm_lock *)ctx);
    }
    return NULL;
}

static void test_small_things(void)
{
    static struct host_mutex m;
    struct host_thread t[2];
    struct vmm_lock lock;
    uint8_t r[600] = {0};
    size_t zeros = 0;

    host_mutex_init(&m);
    lock = host_mutex_lock(&m);
    for (int i = 0; i < 2; i++)
        CHECK(!host_thread_start(&t[i], add_locked, &lock, "adder"));
    for (int i = 0; i < 2; i++)
        host_thread_join(&t[i]);
    CHECK_EQ(shared, 40000);
    CHECK_EQ(host_random(r, sizeof r), sizeof r);
    for (size_t i = 0; i < sizeof r; i++)
        zeros += !r[i];
    CHECK(zeros < 50);
    CHECK(host_wall() > 1600000000ll * 1000000000);
}

/* >>files */

static void test_ram(void)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), len = 5 << 20;
    struct host_file f;
    uint8_t *p = (uint8_t *)host_ram(len, HOST_RAM_HUGE, &test_log), *q;

    CHECK(p && (uintptr_t)p % (2 << 20) == 0);
    q = (uint8_t *)host_ram(page, 0, &test_log);
    CHECK(q && (uintptr_t)q % (2 << 20) == 0);
    host_ram_free(q, page);
    CHECK(!p[0] && !p[len - 1]);
    p[len - 1] = 1;

    make_file("pages", 3 * page + 5);
    CHECK(!host_file_open(&f, "kernel", in_dir("pages"), &test_log));
    CHECK_EQ(f.len, 3 * page + 5);
    CHECK(f.data[page] == pattern(page));
    p[0] = p[3 * page] = 0xaa;
    CHECK(!host_ram_file(p + page, &f, page, 2 * page));
    CHECK(p[0] == 0xaa && p[page] == pattern(page) && p[3 * page - 1] == pattern(3 * page - 1));
    CHECK_EQ(p[3 * page], 0xaa);
    p[page] ^= 0xff; /* the guest's copy alone */
    CHECK(f.data[page] == pattern(page));
    CHECK(!host_ram_file(p, &f, page, 3 * page)); /* the last page ends with zeroes */
    CHECK(p[2 * page + 4] == pattern(3 * page + 4) && !p[2 * page + 5] && !p[3 * page - 1]);
    CHECK_EQ(p[3 * page], 0xaa);
    CHECK(!host_file_read(&f, 3 * page + 1, p + 7 * page, page) &&
          p[7 * page + 3] == pattern(3 * page + 4));
    CHECK(!p[7 * page + 4] && !host_file_read(&f, 9 * page, p, page));
    CHECK_EQ(host_ram_file(p, &f, 0, 5 * page), -EINVAL);
    CHECK_EQ(host_ram_file(p, &f, page, 4 * page), -EINVAL);
    CHECK_EQ(host_ram_file(p, &f, page, 0 - page), -EINVAL);
    CHECK_EQ(host_ram_file(p, &f, 4 * page, page), -EINVAL);
    CHECK_EQ(host_ram_file(p, &f, ~(page - 1), page), -EINVAL);
    CHECK_EQ(host_ram_file(p, &f, 1, page), -EINVAL);
    CHECK_EQ(host_ram_file(p + 1, &f, 0, page), -EINVAL);
    CHECK_EQ(host_ram_file(p, &f, 0, 5), -EINVAL);
    CHECK_EQ(host_ram_file(p, &f, 0, 0), -EINVAL);
    host_file_close(&f);
    host_file_close(&f);
    host_ram_free(p, len);
    CHECK(said_once(NULL));
    CHECK(!host_ram((uint64_t)1 << 62, 0, &test_log) && said_once("guest memory"));
    CHECK(!host_ram(0, 0, &test_log) && said_once("guest memory"));
}

static void make_files(void)
{
    make_file("good", 4096);
    make_file("empty", 0);
    make_file("odd", 513);
    make_file("secret", 512);
    make_file("fixed", 512);
    CHECK(!chmod(in_dir("secret"), 0) && !chmod(in_dir("fixed"), 0444) && !chmod(dir, 0755));
    CHECK(!mkfifo(in_dir("fifo"), 0644) && !mkdir(in_dir("folder"), 0755));
}

/* As a user whom permissions concern. */
static void test_bad_files(void)
{
    static const struct {
        const char *name;
        int file, disk, disk_ro;
        const char *why_file, *why_disk, *why_ro; /* part of the sentence; NULL: it opens */
    } t[] = {
        {"missing", -ENOENT, -ENOENT, -ENOENT, "does not exist", "does not exist", "does not"},
        {"good/x", -ENOTDIR, -ENOTDIR, -ENOTDIR, "cannot be", "cannot be", "cannot be"},
        {"", -EISDIR, -EISDIR, -EISDIR, "directory", "directory", "directory"},
        {"folder", -EISDIR, -EISDIR, -EISDIR, "directory", "directory", "directory"},
        {"empty", -EINVAL, -EINVAL, -EINVAL, "is empty", "is empty", "is empty"},
        {"fifo", -EINVAL, -EINVAL, -EINVAL, "not a regular", "not a regular", "not a regular"},
        {"odd", 0, -EINVAL, -EINVAL, NULL, "not a multiple of 512", "not a multiple of 512"},
        {"secret", -EACCES, -EACCES, -EACCES, "permissions", "permissions", "permissions"},
        {"fixed", 0, -EROFS, 0, NULL, ",ro'", NULL},
        {"good", 0, 0, 0, NULL, NULL, NULL},
    };
    bool root = geteuid() == 0;

    make_files();
    if (root)
        for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++)
            if (t[i].name[0] && access(in_dir(t[i].name), F_OK) == 0)
                CHECK(!chown(in_dir(t[i].name), 65534, 65534));
    if (root)
        CHECK(!setresuid(65534, 65534, 0)); /* access() asks for the real user */
    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct host_file f;
        struct host_disk d;
        CHECK_EQ(host_file_open(&f, "kernel", in_dir(t[i].name), &test_log), t[i].file);
        CHECK(said_once(t[i].why_file));
        host_file_close(&f);
        CHECK_EQ(host_disk_open(&d, in_dir(t[i].name), false, &test_log), t[i].disk);
        CHECK(said_once(t[i].why_disk));
        host_disk_close(&d);
        CHECK_EQ(host_disk_open(&d, in_dir(t[i].name), true, &test_log), t[i].disk_ro);
        CHECK(said_once(t[i].why_ro));
        host_disk_close(&d);
    }
    if (root)
        CHECK(!setresuid(0, 0, 0));
}

/* Files that hold a disk: of any length, made on demand, or nameless. */
static void test_disk_image(void)
{
    static char text[] = "some bytes";
    struct host_iov iov = {text, sizeof text}, back;
    char got[sizeof text];
    struct host_disk d, t;

    back = (struct host_iov){got, sizeof got};
    CHECK_EQ(host_disk_open(&d, in_dir("image"), HOST_DISK_IMAGE, &test_log), -ENOENT);
    CHECK(said_once("does not exist"));
    CHECK(!host_disk_open(&d, in_dir("image"), HOST_DISK_IMAGE | HOST_DISK_NEW, &test_log));
    CHECK_EQ(d.len, 0);
    CHECK_EQ(host_disk_rw(&d, true, &iov, 1, 5000), -EIO);
    d.len = 5000 + sizeof text;
    CHECK(!host_disk_rw(&d, true, &iov, 1, 5000));
    host_disk_close(&d);
    CHECK(!host_disk_open(&d, in_dir("image"), HOST_DISK_IMAGE | HOST_DISK_NEW, &test_log));
    CHECK_EQ(d.len, 5000 + sizeof text);
    CHECK(!host_disk_rw(&d, false, &back, 1, 5000) && !strcmp(got, text));
    if (!host_disk_punch(&d, 4096, 4096)) /* not every file system can */
        CHECK(!host_disk_rw(&d, false, &back, 1, 5000) && !got[0] && !got[5]);
    CHECK(!host_disk_temp(&t, dir, &test_log));
    CHECK(!t.len && !host_disk_same(&t, &d));
    t.len = sizeof text;
    CHECK(!host_disk_rw(&t, true, &iov, 1, 0) && !host_disk_rw(&t, false, &back, 1, 0));
    CHECK(!strcmp(got, text));
    host_disk_close(&t);
    host_disk_close(&d);
    CHECK(fcntl(t.fd, F_GETFD) < 0 && fcntl(d.fd, F_GETFD) < 0);
    CHECK(!unlink(in_dir("image"))); /* the last file: else the directory could not go */
    CHECK_EQ(host_disk_temp(&t, in_dir("image"), &test_log), -ENOENT);
    CHECK(said_once("no temporary file"));
}

static void test_disk_lock(void)
{
    static const struct {
        bool ro_a, ro_b;
        int rc;
    } t[] = {{false, false, -EBUSY}, {false, true, -EBUSY}, {true, false, -EBUSY}, {true, true, 0}};
    struct host_disk a, b;

    CHECK(!link(in_dir("good"), in_dir("alias")));
    for (unsigned i = 0; i < 4; i++) {
        CHECK(!host_disk_open(&a, in_dir("good"), t[i].ro_a, &test_log));
        CHECK_EQ(host_disk_open(&b, in_dir("alias"), t[i].ro_b, &test_log), t[i].rc);
        CHECK(said_once(t[i].rc ? "in use" : NULL));
        CHECK(t[i].rc || host_disk_same(&a, &b));
        host_disk_close(&b);
        host_disk_close(&a);
    }
    CHECK(!host_disk_open(&a, in_dir("good"), false, &test_log));
    CHECK(!host_disk_open(&b, in_dir("fixed"), true, &test_log));
    CHECK(!host_disk_same(&a, &b));
    host_disk_close(&a);
    host_disk_close(&b);
}

static void test_disk_rw(void)
{
    static uint8_t buf[4096], back[4096];
    static struct host_iov many[3000];
    struct host_disk d;
    unsigned n = 0;
    struct {
        uint64_t off;
        size_t len;
        int rc;
    } t[] = {{0, 4096, 0},      {4096, 0, 0},         {4096, 1, -EIO},  {0, 4097, -EIO},
             {4097, 0, -EIO},   {3584, 512, 0},       {~0ull, 2, -EIO}, {~0ull - 511, 512, -EIO},
             {512, 3585, -EIO}, {1ull << 63, 1, -EIO}};

    for (size_t i = 0; i < sizeof buf; i++)
        buf[i] = pattern(i * 3);
    CHECK(!host_disk_open(&d, in_dir("good"), false, &test_log));
    CHECK_EQ(d.len, 4096);
    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct host_iov v = {back, t[i].len};
        CHECK_EQ(host_disk_rw(&d, false, &v, 1, t[i].off), t[i].rc);
        v.base = buf;
        CHECK_EQ(host_disk_rw(&d, true, &v, 1, t[i].off), t[i].rc);
    }
    /* more elements than a system call takes, empty ones among them, in total 2600 bytes */
    for (size_t at = 0; n < 3000; n++) {
        size_t len = n % 15 < 13 ? 1 : 0;
        many[n] = (struct host_iov){buf + at, len};
        at += len;
    }
    CHECK(!host_disk_rw(&d, true, many, n, 1000) && !host_disk_flush(&d));
    CHECK(!host_disk_rw(&d, false, &(struct host_iov){back, 4096}, 1, 0));
    CHECK(!memcmp(back + 1000, buf, 2600) && back[3600] == buf[3600 - 3584]);
    CHECK(!host_disk_rw(&d, false, NULL, 0, 0));
    /* a file that shrinks behind our back: an error, not a short transfer */
    CHECK(!truncate(in_dir("good"), 1024));
    CHECK_EQ(host_disk_rw(&d, false, &(struct host_iov){back, 2048}, 1, 0), -EIO);
    CHECK(!truncate(in_dir("good"), 4096));
    host_disk_close(&d);
    CHECK(!host_disk_open(&d, in_dir("good"), true, &test_log));
    CHECK_EQ(host_disk_rw(&d, true, &(struct host_iov){buf, 512}, 1, 0), -EROFS);
    CHECK(!host_disk_flush(&d));
    host_disk_close(&d);
}

/* >>async: the same work by the loop's thread alone and by an io_uring */

struct job {
    struct host_disk_op op;
    struct host_iov iov[4];
    unsigned calls, when; /* `when`: the how manyth of all that ended */
    int err;
};

static struct host_loop disk_loop;
static unsigned jobs_ended, jobs_goal;

static void job_done(struct host_disk_op *op, int err)
{
    struct job *j = op->ctx;

    j->calls++;
    j->err = err;
    j->when = ++jobs_ended;
    if (jobs_ended == jobs_goal)
        host_loop_stop(&disk_loop);
}

static void job_submit(struct job *j, const struct host_disk *d, enum host_disk_kind kind,
                       uint64_t off, uint64_t len)
{
    j->calls = j->when = 0;
    j->op.kind = kind;
    j->op.disk = d;
    j->op.iov = j->iov;
    j->op.off = off;
    j->op.len = len;
    j->op.done = job_done;
    j->op.ctx = j;
    host_disk_submit(&disk_loop, &j->op);
    CHECK_EQ(j->calls, 0);
}

/* Runs the loop until so many operations have ended. */
static void jobs_wait(unsigned n)
{
    struct host_timer late = {0};

    jobs_ended = 0;
    jobs_goal = n;
    CHECK(!host_timer_set(&disk_loop, &late, 2000000000, stop_loop, &disk_loop));
    CHECK(!host_loop_run(&disk_loop));
    host_timer_cancel(&late);
    CHECK_EQ(jobs_ended, n);
}

/* One operation with one buffer, to its end. */
static int job_do(const struct host_disk *d, enum host_disk_kind kind, void *buf, uint64_t off,
                  uint64_t len)
{
    static struct job j;

    j = (struct job){.iov = {{buf, (size_t)len}}, .op.n = 1};
    job_submit(&j, d, kind, off, len);
    jobs_wait(1);
    CHECK_EQ(j.calls, 1);
    return j.err;
}

/* Opens disk_loop in one of its two modes; false: this host has no such mode. */
static bool async_open(bool ring)
{
    CHECK(!host_loop_init(&disk_loop, &test_log));
    if (!ring || !host_loop_async(&disk_loop))
        return true;
    printf(TEST_NAME ": no io_uring here: only half of the asynchronous tests\n");
    host_loop_fini(&disk_loop);
    return false;
}

static void async_close(void)
{
    host_disk_drain(&disk_loop);
    CHECK_EQ(disk_loop.ring.inflight, 0);
    host_loop_fini(&disk_loop);
}

#define DISK_LEN (2u << 20)

static void big_file(const char *name)
{
    static uint8_t buf[4096];
    int fd = open(in_dir(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);

    memset(buf, 0xa5, sizeof buf);
    for (unsigned i = 0; i < DISK_LEN / sizeof buf; i++)
        CHECK(write(fd, buf, sizeof buf) == sizeof buf);
    close(fd);
}

/* All bytes of [off, off + len) are `value`. */
static bool all_are(const struct host_disk *d, uint64_t off, size_t len, uint8_t value)
{
    static uint8_t buf[DISK_LEN];
    size_t same = 0;

    CHECK(!host_disk_rw(d, false, &(struct host_iov){buf, len}, 1, off));
    while (same < len && buf[same] == value)
        same++;
    return same == len;
}

static void test_async_errors(const struct host_disk *d, const struct host_disk *ro)
{
    static uint8_t buf[4096];
    static const struct {
        enum host_disk_kind kind;
        bool ro;
        uint64_t off, len;
        int rc;
    } t[] = {
        {HOST_DISK_READ, false, DISK_LEN - 4096, 4096, 0},
        {HOST_DISK_READ, false, DISK_LEN - 4096 + 512, 4096, -EIO},
        {HOST_DISK_READ, false, DISK_LEN, 512, -EIO},
        {HOST_DISK_READ, false, ~0ull - 511, 512, -EIO},
        {HOST_DISK_READ, true, 0, 4096, 0},
        {HOST_DISK_READ, false, DISK_LEN, 0, 0},
        {HOST_DISK_WRITE, false, DISK_LEN - 512, 512, 0},
        {HOST_DISK_WRITE, false, DISK_LEN - 512, 1024, -EIO},
        {HOST_DISK_WRITE, true, 0, 512, -EROFS},
        {HOST_DISK_FLUSH, false, 0, 0, 0},
        {HOST_DISK_FLUSH, true, 0, 0, 0},
        {HOST_DISK_DISCARD, true, 0, 4096, -EROFS},
        {HOST_DISK_DISCARD, false, DISK_LEN, 0, 0},
        {HOST_DISK_DISCARD, false, DISK_LEN, 512, -EIO},
        {HOST_DISK_ZERO, true, 0, 4096, -EROFS},
        {HOST_DISK_ZERO, false, 512, ~0ull - 511, -EIO},
    };

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++)
        CHECK_EQ(job_do(t[i].ro ? ro : d, t[i].kind, buf, t[i].off, t[i].len), t[i].rc);
    /* the file has become shorter than the disk */
    CHECK(!truncate(in_dir("big"), DISK_LEN - 2048));
    CHECK_EQ(job_do(d, HOST_DISK_READ, buf, DISK_LEN - 4096, 4096), -EIO);
    CHECK_EQ(job_do(d, HOST_DISK_READ, buf, DISK_LEN - 8192, 4096), 0);
    CHECK(!truncate(in_dir("big"), DISK_LEN));
}

/* Broken into odd pieces, with empty ones. */
static void test_async_data(const struct host_disk *d)
{
    static uint8_t out[8192], in[8192];
    static struct job w[4], r[4];

    for (size_t i = 0; i < sizeof out; i++)
        out[i] = pattern(i);
    for (unsigned i = 0; i < 4; i++) {
        uint8_t *from = out + 2048 * i, *to = in + 2048 * i;
        w[i] = (struct job){.iov = {{from, 0}, {from, 1}, {from + 1, 2000}, {from + 2001, 47}}};
        r[i] = (struct job){.iov = {{to, 2045}, {to, 0}, {to + 2045, 3}}};
        w[i].op.n = 4;
        r[i].op.n = 3;
        job_submit(&w[i], d, HOST_DISK_WRITE, 4096 + 2048 * i, 0);
    }
    jobs_wait(4);
    for (unsigned i = 0; i < 4; i++)
        job_submit(&r[i], d, HOST_DISK_READ, 4096 + 2048 * i, 0);
    jobs_wait(4);
    for (unsigned i = 0; i < 4; i++)
        CHECK(w[i].calls == 1 && !w[i].err && r[i].calls == 1 && !r[i].err);
    CHECK(!memcmp(in, out, sizeof in));
}

#ifndef HOST__BY_HAND
/* A short transfer is carried on where it stopped, whatever it left in the pieces. */
static void test_async_short(const struct host_disk *d)
{
    static uint8_t buf[3000];
    static const unsigned cut[] = {1, 999, 1000, 1001, 1500, 2000, 2999, 3000};

    for (unsigned i = 0; i < sizeof cut / sizeof cut[0]; i++) {
        struct job j = {
            .iov = {{buf, 1000}, {buf + 1000, 0}, {buf + 1000, 1000}, {buf + 2000, 1000}}};
        memset(buf, 0, sizeof buf);
        j.op.n = 4;
        job_submit(&j, d, HOST_DISK_READ, 4096, 0);
        disk_loop.asks.first = disk_loop.jobs.first = NULL; /* as if the kernel had begun it */
        for (unsigned k = 0; k < cut[i]; k++)
            buf[k] = pattern(k);
        jobs_goal = ~0u;
        host__op_ended(&disk_loop, &j.op, (int)cut[i]);
        if (!j.calls)
            jobs_wait(1);
        CHECK(j.calls == 1 && j.err == 0);
        for (unsigned k = 0; k < sizeof buf; k++)
            CHECK(buf[k] == pattern(k));
    }
}

#endif

static uint64_t blocks_of(const char *name)
{
    struct stat st;

    CHECK(!stat(in_dir(name), &st));
    return (uint64_t)st.st_blocks;
}

static void test_async_erase(const struct host_disk *d)
{
    struct job j = {0};
    uint64_t full = blocks_of("big");

    CHECK_EQ(job_do(d, HOST_DISK_DISCARD, NULL, 65536, 65536), 0);
    CHECK(all_are(d, 65536, 65536, 0) && all_are(d, 131072, 512, 0xa5));
    CHECK(all_are(d, 65536 - 512, 512, 0xa5));
    CHECK(blocks_of("big") < full);
    CHECK_EQ(job_do(d, HOST_DISK_ZERO, NULL, 512, 1024), 0);
    CHECK(all_are(d, 512, 1024, 0) && all_are(d, 0, 512, 0xa5) && all_are(d, 1536, 512, 0xa5));
    full = blocks_of("big");
    j.op.unmap = true;
    job_submit(&j, d, HOST_DISK_ZERO, 262144, 262144);
    jobs_wait(1);
    CHECK(!j.err && all_are(d, 262144, 262144, 0) && blocks_of("big") < full);
}

/* A file in memory has holes, but cannot be told to read as zeroes: they are written. */
static void test_async_zeroes(void)
{
    static uint8_t buf[DISK_LEN];
    struct host_disk d = {.fd = memfd_create("disk", MFD_CLOEXEC), .len = DISK_LEN};

    d.plain_fd = d.fd;
    memset(buf, 0xa5, sizeof buf);
    CHECK(pwrite(d.fd, buf, DISK_LEN, 0) == DISK_LEN);
    CHECK_EQ(job_do(&d, HOST_DISK_ZERO, NULL, 512, DISK_LEN - 1024), 0);
    CHECK(all_are(&d, 512, DISK_LEN - 1024, 0));
    CHECK(all_are(&d, 0, 512, 0xa5) && all_are(&d, DISK_LEN - 512, 512, 0xa5));
    close(d.fd);
}

/* A full file system, and with it a file that must not become longer. */
static void test_async_full(const struct host_disk *d)
{
    static uint8_t buf[4096];
    struct rlimit was, small = {.rlim_cur = DISK_LEN / 2};

    CHECK(!getrlimit(RLIMIT_FSIZE, &was));
    small.rlim_max = was.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    CHECK(!setrlimit(RLIMIT_FSIZE, &small));
    CHECK_EQ(job_do(d, HOST_DISK_WRITE, buf, DISK_LEN - 4096, 4096), -EFBIG);
    CHECK_EQ(job_do(d, HOST_DISK_READ, buf, DISK_LEN - 4096, 4096), 0);
    CHECK_EQ(job_do(d, HOST_DISK_WRITE, buf, 0, 4096), 0);
    CHECK(!setrlimit(RLIMIT_FSIZE, &was));
    if (!access("/dev/full", W_OK)) {
        struct host_disk full = {.fd = open("/dev/full", O_RDWR | O_CLOEXEC), .len = 4096};
        full.plain_fd = full.fd;
        CHECK_EQ(job_do(&full, HOST_DISK_WRITE, buf, 0, 4096), -ENOSPC);
        close(full.fd);
    }
}

/* More at once than the ring holds; nothing of it is lost, and each ends once. */
static void test_async_many(const struct host_disk *d)
{
    static struct job j[3 * HOST__RING_LEN];
    static uint8_t buf[512];
    const unsigned n = sizeof j / sizeof j[0];

    for (unsigned i = 0; i < n; i++) {
        j[i] = (struct job){.iov = {{buf, 512}}, .op.n = 1};
        job_submit(&j[i], d, i % 5 ? HOST_DISK_READ : HOST_DISK_WRITE, 512 * (uint64_t)i, 0);
    }
    jobs_wait(n);
    for (unsigned i = 0; i < n; i++)
        CHECK(j[i].calls == 1 && !j[i].err);
}

/* An operation that takes its time does not hold up those after it, and is waited for at the end. */
static void test_async_order(const struct host_disk *d)
{
    static char late[4], early[512];
    struct job slow = {.iov = {{late, 4}}, .op.n = 1}, fast = {.iov = {{early, 512}}, .op.n = 1};
    struct host_disk pipe_disk = {.len = 4096};
    int ends[2];

    CHECK(!pipe2(ends, O_CLOEXEC));
    pipe_disk.fd = pipe_disk.plain_fd = ends[0];
    job_submit(&slow, &pipe_disk, HOST_DISK_READ, 0, 0);
    job_submit(&fast, d, HOST_DISK_READ, 0, 0);
    jobs_wait(1);
    CHECK(fast.when == 1 && !fast.err && !slow.calls);
    CHECK_EQ(disk_loop.ring.inflight, 1);
    job_submit(&fast, d, HOST_DISK_READ, 0, 0); /* not begun: forgotten */
    CHECK(write(ends[1], "late", 4) == 4);
    host_disk_drain(&disk_loop);
    CHECK(slow.calls == 1 && !slow.err && !memcmp(late, "late", 4) && !fast.calls);
    CHECK_EQ(job_do(d, HOST_DISK_READ, early, 0, 512), 0);
    close(ends[0]);
    close(ends[1]);
}

static void test_async(void)
{
    struct host_disk d, ro;

    for (unsigned mode = 0; mode < 2 && async_open(mode); mode++) {
        big_file("big");
        CHECK(!link(in_dir("big"), in_dir("big2")));
        CHECK(!host_disk_open(&ro, in_dir("big"), HOST_DISK_RO, &test_log));
        CHECK(!flock(ro.fd, LOCK_UN));
        CHECK(!host_disk_open(&d, in_dir("big2"), 0, &test_log));
        test_async_errors(&d, &ro);
        test_async_data(&d);
#ifndef HOST__BY_HAND
        if (mode)
            test_async_short(&d);
#endif
        test_async_many(&d);
        big_file("big");
        test_async_erase(&d);
        test_async_zeroes();
        test_async_full(&d);
        if (mode)
            test_async_order(&d);
        host_disk_close(&d);
        host_disk_close(&ro);
        CHECK(!unlink(in_dir("big2")) && !unlink(in_dir("big")));
        async_close();
    }
}

/* O_DIRECT for what is aligned, the page cache for the rest; one sees what the other wrote. */
static void test_direct(void)
{
    static _Alignas(4096) uint8_t buf[8192], back[8192];
    struct host_disk d;

    big_file("big");
    if (host_disk_open(&d, in_dir("big"), HOST_DISK_DIRECT, &test_log)) {
        CHECK(said_once("leave cache=none out") && !unlink(in_dir("big")));
        return;
    }
    CHECK(d.fd != d.plain_fd && fcntl(d.fd, F_GETFL) & O_DIRECT);
    memset(buf, 0x11, sizeof buf);
    for (unsigned mode = 0; mode < 2 && async_open(mode); mode++) {
        CHECK_EQ(job_do(&d, HOST_DISK_WRITE, buf, 0, 8192), 0);
        buf[0] = 0x22;
        CHECK_EQ(job_do(&d, HOST_DISK_WRITE, buf, 512, 512), 0);
        CHECK_EQ(job_do(&d, HOST_DISK_WRITE, buf + 1, 4096 + 512, 512), 0);
        CHECK_EQ(job_do(&d, HOST_DISK_READ, back, 0, 8192), 0);
        CHECK(back[511] == 0x11 && back[512] == 0x22 && back[513] == 0x11 && back[4608] == 0x11);
        CHECK_EQ(job_do(&d, HOST_DISK_READ, back + 1, 512, 1024), 0);
        CHECK(back[1] == 0x22 && back[2] == 0x11);
        CHECK_EQ(job_do(&d, HOST_DISK_FLUSH, NULL, 0, 0), 0);
        async_close();
    }
    host_disk_close(&d);
    CHECK(!unlink(in_dir("big")));
}

static int job_call(struct host_disk_op *op)
{
    CHECK(!((struct job *)op->ctx)->calls);
    return -EDOM;
}

static void test_call(void)
{
    static struct job j;

    for (unsigned mode = 0; mode < 2 && async_open(mode); mode++) {
        j = (struct job){.op.call = job_call};
        job_submit(&j, NULL, HOST_DISK_CALL, 0, 0);
        jobs_wait(1);
        CHECK(j.calls == 1 && j.err == -EDOM);
        async_close();
    }
}

static void disk_grown(void *ctx)
{
    ++*(unsigned *)ctx;
    host_loop_stop(&disk_loop);
}

/* Whoever makes the file longer; that it is written to means nothing. Where changes are not reported,
   the loop looks once a second, which is over in this test when it says so. */
static void test_grow(void)
{
    static uint8_t buf[512];
    struct host_disk_growth w = {0};
    struct host_disk d;
    unsigned grown = 0;

    host_disk_unwatch(&w);
    big_file("big");
    CHECK(!host_disk_open(&d, in_dir("big"), HOST_DISK_RO, &test_log));
    CHECK(async_open(false));
    CHECK(!host_disk_watch(&disk_loop, &w, &d, disk_grown, &grown));
    CHECK(!truncate(in_dir("big"), DISK_LEN + 511));
    CHECK_EQ(job_do(&d, HOST_DISK_READ, buf, 0, 512), 0);
    CHECK(!host__poll_wait(&disk_loop, 0));
    CHECK(!grown && d.len == DISK_LEN && w.timer.loop);
    CHECK(!truncate(in_dir("big"), DISK_LEN + 513)); /* while nobody listens */
    CHECK(!host__poll_wait(&disk_loop, 0) && !grown);
    host_timer_again(&w.timer, 1); /* the second is over */
    CHECK(!host__poll_wait(&disk_loop, 1000));
    CHECK(grown == 1 && d.len == DISK_LEN + 512);
    CHECK(!truncate(in_dir("big"), DISK_LEN + 1024)); /* and somebody listens again */
#ifdef HOST__BY_HAND
    host_timer_again(&w.timer, 1);
#endif
    CHECK(!host__poll_wait(&disk_loop, 1000));
    CHECK(grown == 2 && d.len == DISK_LEN + 1024);
    host_timer_again(&w.timer, 1);
    CHECK(!host__poll_wait(&disk_loop, 1000));
    CHECK(!truncate(in_dir("big"), 512)); /* shorter is an error when it is read */
    CHECK(!host__poll_wait(&disk_loop, 1000));
    CHECK(grown == 2 && d.len == DISK_LEN + 1024);
    host_disk_unwatch(&w);
    async_close();
    host_disk_close(&d);
    CHECK(!unlink(in_dir("big")));
}

/* >>edges and bells posted */

struct gong {
    struct host_watch w;
    unsigned heard;
    int post; /* a bell to post twice for each ring heard, or -1 */
};

static void gong_ready(void *ctx, unsigned events)
{
    struct gong *g = ctx;

    CHECK_EQ(events, HOST_IN);
    g->heard++;
    for (unsigned i = 0; g->post >= 0 && i < 2; i++)
        host_bell_post(&disk_loop, g->post);
    host_loop_stop(&disk_loop);
}

static void gong_hang(struct gong *g, int post)
{
    *g = (struct gong){.post = post};
    g->w = (struct host_watch){
        .fd = host_bell_open(), .events = HOST_IN | HOST_EDGE, .ready = gong_ready, .ctx = g};
    CHECK(!host_watch_add(&disk_loop, &g->w));
}

static uint64_t rings_of(int bell)
{
    uint64_t n = 0;

    return read(bell, &n, sizeof n) == sizeof n ? n : 0;
}

static void test_edges(void)
{
    static struct gong g[HOST_LOOP_EDGES + 3]; /* some the ring has no room for */
    const unsigned n = sizeof g / sizeof g[0];

    for (unsigned mode = 0; mode < 2 && async_open(mode); mode++) {
        int line = host_bell_open();
        for (unsigned i = 0; i < n; i++)
            gong_hang(&g[i], line);
        for (unsigned round = 1; round <= 3; round++)
            for (unsigned i = 0; i < n; i += n - 1) {
                host_bell_ring(g[i].w.fd); /* never taken, and heard each time */
                CHECK(!host_loop_run(&disk_loop));
                CHECK_EQ(g[i].heard, round);
            }
        CHECK(rings_of(line) >= 1);
        host_bell_post(&disk_loop, line); /* the loop does not run: at once */
        CHECK_EQ(rings_of(line), 1);
        for (unsigned i = 0; i < n; i++) {
            host_watch_del(&disk_loop, &g[i].w);
            host_bell_ring(g[i].w.fd);
        }
        job_do(&(struct host_disk){.len = 512, .ro = true, .plain_fd = -1, .fd = -1},
               HOST_DISK_FLUSH, NULL, 0, 0);
        CHECK_EQ(g[1].heard, 0);
        CHECK_EQ(g[0].heard, 3);
        for (unsigned i = 0; i < n; i++)
            close(g[i].w.fd);
        close(line);
        async_close();
    }
}

#ifndef HOST__BY_HAND
/* The kernel may end a multishot poll on its own: it is begun anew. */
static void test_edge_ends(void)
{
    static struct gong g;
    struct io_uring_sqe *e;

    if (!async_open(true))
        return;
    gong_hang(&g, -1);
    host_bell_ring(g.w.fd);
    CHECK(!host_loop_run(&disk_loop) && g.heard == 1);
    e = host__sqe(&disk_loop.ring);
    e->opcode = IORING_OP_POLL_REMOVE;
    e->addr = HOST__TAG_EDGE;
    e->user_data = HOST__TAG_NONE;
    CHECK(!host_loop_run(&disk_loop) && g.heard == 2); /* told once too often */
    job_do(&(struct host_disk){.len = 512, .ro = true, .plain_fd = -1, .fd = -1}, HOST_DISK_FLUSH,
           NULL, 0, 0);
    g.heard = 0;
    host_bell_ring(g.w.fd);
    jobs_goal = 0;
    for (unsigned i = 0; i < 50 && !g.heard; i++) {
        struct host_timer t = {0};
        CHECK(!host_timer_set(&disk_loop, &t, 20000000, stop_loop, &disk_loop));
        CHECK(!host_loop_run(&disk_loop));
        host_timer_cancel(&t);
    }
    CHECK(g.heard >= 1);
    host_watch_del(&disk_loop, &g.w);
    close(g.w.fd);
    async_close();
}

#else
static void test_edge_ends(void)
{
    CHECK_EQ(host_loop_async(&loop), -ENOSYS);
}
#endif

/* A watch is deleted just when the kernel is about to report a ring, and refuses to end its poll. */
static void test_edge_busy(void)
{
    static struct gong g;
    struct host_disk none = {.len = 512, .ro = true, .plain_fd = -1, .fd = -1};

    if (!async_open(true))
        return;
    gong_hang(&g, -1);
    job_do(&none, HOST_DISK_FLUSH, NULL, 0, 0);
    host_bell_ring(g.w.fd);
    host_watch_del(&disk_loop, &g.w);
    for (unsigned i = 0; i < 3; i++)
        job_do(&none, HOST_DISK_FLUSH, NULL, 0, 0);
    CHECK(!disk_loop.ring.edge[0].armed && !disk_loop.ring.edge[0].ending);
    CHECK_EQ(g.heard, 0);
    close(g.w.fd);
    async_close();
}

/* >>streams */

static void test_specs(void)
{
    static const struct {
        const char *spec, *why;
        int rc;
    } t[] = {{"stdin", "unknown console 'stdin'", -EINVAL},
             {"", "unknown console ''", -EINVAL},
             {"file", "unknown", -EINVAL},
             {"stdio:", "unknown", -EINVAL},
             {"file:", "does not exist", -ENOENT},
             {"file:/", "cannot be opened", -EISDIR},
             {"unix:", "1 to 107 bytes", -ENAMETOOLONG},
             {"tcp:", "is no TCP port", -EINVAL},
             {"tcp:65536", "is no TCP port", -EINVAL},
             {"tcp:1x", "is no TCP port", -EINVAL},
             {"unix:/nonexistent/s", "cannot be made", -ENOENT}};
    char longer[160] = "unix:";

    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        CHECK_EQ(dev_open(t[i].spec), t[i].rc);
        CHECK(said_once(t[i].why));
    }
    memset(longer + 5, 'x', 108);
    CHECK_EQ(dev_open(longer), -ENAMETOOLONG);
    CHECK(said_once("1 to 107 bytes"));
    CHECK(!loop.events);
    CHECK(!dev_open("null"));
    CHECK_EQ(dev.came, 1);
    for (int i = 0; i < 1000; i++)
        CHECK_EQ(host_stream_write(&dev.s, dir, sizeof dir), sizeof dir);
    CHECK_EQ(__atomic_load_n(&dev.s.event.raised, __ATOMIC_SEQ_CST), 0);
    host_stream_close(&dev.s);
    host_stream_close(&dev.s);
}

/* A slow device behind a pipe with more input than every buffer: all of it arrives, in order. */
static void test_input_never_lost(void)
{
    enum { TOTAL = 12000 };
    struct device *d = &dev;
    bool right = true;
    int p[2], null = open("/dev/null", O_RDWR);
    struct vmm_stream port;

    CHECK(!pipe(p));
    for (size_t i = 0; i < TOTAL; i++) {
        uint8_t b = pattern(i);
        CHECK(write(p[1], &b, 1) == 1);
    }
    close(p[1]); /* the writer is gone before the first byte is read */
    redirect(p[0], null);
    CHECK(!dev_open("stdio"));
    port = host_stream_port(&dev.s);
    d->take = 1;
    d->hold = 16;
    turn(5);
    CHECK_EQ(d->ngot, 16);
    for (unsigned i = 0; i < 5000 && d->ngot < TOTAL; i++) {
        d->fifo -= d->fifo < 1 + i % 16 ? d->fifo : 1 + i % 16; /* the guest reads some */
        host_stream_poke(&d->s);
        port.rx_room(port.ctx);
        host_event_raise(&d->s.event);
        host__poll_wait(&loop, -1);
        if (loop.woken)
            host__poll_wait(&loop, -1);
    }
    CHECK_EQ(d->ngot, TOTAL);
    for (size_t i = 0; i < d->ngot; i++)
        right = right && d->got[i] == pattern(i);
    CHECK(right);
    turn(5);
    CHECK(d->s.in_eof && !d->s.waiting);
    host_stream_poke(&d->s);
    CHECK_EQ(d->s.event.raised, 0); /* nothing is waiting: no wake-up */
    host_stream_close(&d->s);
    redirect(-1, -1);
    close(p[0]), close(null);
}

/* What epoll refuses to wait for. */
static void test_input_files(void)
{
    int f = open(in_dir("pages"), O_RDONLY), null = open("/dev/null", O_RDWR);
    size_t len = (size_t)lseek(f, 0, SEEK_END);

    lseek(f, 0, SEEK_SET);
    redirect(f, null);
    CHECK(!dev_open("stdio"));
    dev.hold = 100;
    turn(3);
    CHECK_EQ(dev.ngot, 100);
    dev.hold = sizeof dev.got;
    host_stream_poke(&dev.s);
    CHECK(reaches(&dev.ngot, len));
    CHECK(dev.got[len - 1] == pattern(len - 1));
    turn(3);
    CHECK_EQ(dev.ngot, len);
    host_stream_close(&dev.s);

    redirect(null, null);
    CHECK(!dev_open("stdio"));
    turn(3);
    CHECK(dev.s.in_eof && dev.ngot == 0);
    host_stream_close(&dev.s);
    redirect(-1, -1);
    close(f), close(null);
}

/* A pipe that nobody reads for long: the writer gets short counts, then everything is there. `way`
   is how standard output can be written. */
static void output_full(int in, int out, enum host__put way)
{
    static uint8_t all[400000], back[400000];
    int null = open("/dev/null", O_RDONLY);
    size_t sent = 0, got = 0, n, stuck;

    for (size_t i = 0; i < sizeof all; i++)
        all[i] = pattern(i);
    redirect(null, out);
    CHECK(!dev_open("stdio"));
    CHECK_EQ(dev.s.put, (unsigned)way == HOST__SIPS ? HOST__WRITE : way);
    if (way == HOST__SIPS) { /* as without /proc */
        host__end_close(&dev.s, &dev.s.out);
        dev.s.out.fd = 1;
        dev.s.put = HOST__SIPS;
    }
    do {
        dev.room = 0;
        n = host_stream_write(&dev.s, all + sent, sizeof all - sent);
        sent += n;
        turn(4);
    } while (n || dev.room);
    stuck = dev.room;
    CHECK(sent < sizeof all);
    turn(4);
    CHECK_EQ(dev.room, stuck); /* not a word while it is full */
    for (int i = 0; i < 2000 && got < sizeof all; i++) {
        got += slurp(in, back + got, sizeof back - got);
        if (dev.room) /* there is room when it says so, and it says so when there is */
            sent += host_stream_write(&dev.s, all + sent, sizeof all - sent);
        dev.room = 0;
        if (got < sizeof all)
            turn(1);
    }
    CHECK(!memcmp(all, back, sizeof all));
    CHECK(!(fcntl(1, F_GETFL) & O_NONBLOCK));
    host_stream_close(&dev.s);
    redirect(-1, -1);
    close(null), close(in), close(out);
}

static void test_output_full(void)
{
    int p[2], small = 4096;

    CHECK(!pipe(p));
    output_full(p[0], p[1], HOST__WRITE);
    CHECK(!pipe(p));
    output_full(p[0], p[1], HOST__SIPS);
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, p));
    CHECK(!setsockopt(p[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof small));
    output_full(p[0], p[1], HOST__SEND);
}

/* The reader goes away: no signal, no error, the writer goes on. */
static void test_output_gone(void)
{
    int p[2], null = open("/dev/null", O_RDONLY);
    static uint8_t page[4096];

    signal(SIGPIPE, SIG_DFL);
    CHECK(!pipe(p));
    redirect(null, p[1]);
    close(p[1]);
    CHECK(!dev_open("stdio"));
    CHECK_EQ(host_stream_write(&dev.s, "a", 1), 1);
    turn(3);
    close(p[0]);
    for (int i = 0; i < 50; i++) {
        size_t n = host_stream_write(&dev.s, page, sizeof page);
        CHECK(n == sizeof page || i < 5);
        turn(1);
    }
    CHECK(dev.s.drop && said_once(NULL));
    host_stream_close(&dev.s);
    redirect(-1, -1);
    close(null);
}

/* One byte at a time from another thread, as a UART prints. */
static void *print_slowly(void *ctx)
{
    for (size_t i = 0; i < 100000;) {
        uint8_t b = pattern(i);
        i += host_stream_write((struct host_stream *)ctx, &b, 1);
    }
    __atomic_store_n(&dev.escapes, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static void test_file_sink(void)
{
    char spec[128];
    struct host_file f;
    struct host_thread t;
    bool right = true;

    snprintf(spec, sizeof spec, "file:%s", in_dir("sink"));
    CHECK(!dev_open(spec));
    CHECK(!host_thread_start(&t, print_slowly, &dev.s, "printer"));
    CHECK(reaches(&dev.escapes, 1));
    host_thread_join(&t);
    CHECK_EQ(host_stream_write(&dev.s, "end", 3), 3); /* close flushes without the loop */
    host_stream_close(&dev.s);
    CHECK(!host_file_open(&f, "sink", in_dir("sink"), &test_log));
    CHECK_EQ(f.len, 100003);
    for (size_t i = 0; f.data && i < 100000; i++)
        right = right && f.data[i] == pattern(i);
    CHECK(right && !memcmp(f.data + 100000, "end", 3));
    host_file_close(&f);

    /* the first byte of a burst wakes the loop, the second does not */
    CHECK(!dev_open(spec));
    for (size_t i = 1; i <= 2; i++) {
        CHECK_EQ(host_stream_write(&dev.s, "x", 1), 1);
        CHECK_EQ(dev.s.event.raised, i == 1);
        if (i == 1)
            CHECK(!host__poll_wait(&loop, -1));
        CHECK_EQ(dev.s.out_len, i - 1);
    }
    for (unsigned i = 0; i < 250 && dev.s.active; i++)
        turn(8); /* until the burst is over */
    CHECK_EQ(dev.s.out_len, 0);
    CHECK_EQ(host_stream_write(&dev.s, "x", 1), 1);
    CHECK_EQ(dev.s.event.raised, 1);
    host_stream_close(&dev.s);

    CHECK(!dev_open(spec)); /* emptied; flushed before the loop runs */
    CHECK_EQ(host_stream_write(&dev.s, "x", 1), 1);
    host_stream_flush(&dev.s);
    CHECK(!host_file_open(&f, "sink", in_dir("sink"), &test_log) && f.len == 1);
    host_file_close(&f);
    host_stream_close(&dev.s);
    CHECK(said_once(NULL));
    snprintf(spec, sizeof spec, "file:%s", in_dir("fifo"));
    CHECK_EQ(dev_open(spec), -ENXIO);
    CHECK(said_once("no reader"));
    CHECK(!dev_open("file:/dev/full"));
    CHECK_EQ(host_stream_write(&dev.s, "x", 1), 1);
    turn(3);
    CHECK(said_once("No space left"));
    CHECK(dev.came == 1 && dev.went == 1);
    host_stream_close(&dev.s);
}

/* Readers that have stopped for good cost one HOST_STREAM_BYE and no more, however many they are. */
static void test_close_bounded(void)
{
    static uint8_t page[HOST_STREAM_OUT];
    static struct host_stream stuck[12];
    struct host_stream_desc desc = {.loop = &loop, .spec = "stdio", .log = &test_log};
    int p[2], null = open("/dev/null", O_RDONLY);
    uint64_t start;

    CHECK(!pipe(p));
    fcntl(p[1], F_SETPIPE_SZ, 4096);
    redirect(null, p[1]);
    for (int i = 0; i < 12; i++) {
        CHECK(!host_stream_open(&stuck[i], &desc));
        CHECK_EQ(host_stream_write(&stuck[i], page, sizeof page), sizeof page);
    }
    turn(1);
    start = host_now();
    for (int i = 0; i < 12; i++)
        host_stream_close(&stuck[i]);
    CHECK(host_now() - start >= HOST_STREAM_BYE);
    CHECK(host_now() - start < 8ull * HOST_STREAM_BYE);
    redirect(-1, -1);
    close(null), close(p[0]), close(p[1]);
}

static int dial(const char *name)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strcpy(a.sun_path, in_dir(name));
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) {
        close(fd);
        return -1;
    }
    return fd;
}

static void test_unix_clients(void)
{
    char spec[128], buf[64];
    struct stat st;
    int a, b;

    snprintf(spec, sizeof spec, "unix:%s", in_dir("sock"));
    CHECK(!dev_open(spec));
    CHECK(!stat(in_dir("sock"), &st) && S_ISSOCK(st.st_mode) && (st.st_mode & 0777) == 0600);
    CHECK_EQ(host_stream_write(&dev.s, "lost", 4), 4);
    turn(2);
    a = dial("sock");
    b = dial("sock"); /* waits */
    CHECK(a >= 0 && b >= 0);
    CHECK(write(a, "hello", 5) == 5 && write(b, "later", 5) == 5);
    CHECK(reaches(&dev.ngot, 5));
    CHECK(!memcmp(dev.got, "hello", 5));
    CHECK_EQ(host_stream_write(&dev.s, "for a", 5), 5);
    turn(3);
    CHECK(slurp(a, buf, sizeof buf) == 5 && !memcmp(buf, "for a", 5));
    CHECK_EQ(dev.ngot, 5);
    /* a leaves after a last word, while the device is full */
    dev.hold = dev.fifo;
    CHECK(write(a, "bye", 3) == 3);
    close(a);
    CHECK_EQ(host_stream_write(&dev.s, "to nobody", 9), 9);
    host_stream_flush(&dev.s); /* fails before the last word is read */
    turn(3);
    dev.hold = sizeof dev.got;
    host_stream_poke(&dev.s);
    CHECK(reaches(&dev.ngot, 13));
    CHECK(!memcmp(dev.got, "hellobyelater", 13));
    CHECK_EQ(host_stream_write(&dev.s, "for b", 5), 5);
    turn(3);
    CHECK(slurp(b, buf, sizeof buf) == 5 && !memcmp(buf, "for b", 5));
    /* b stops talking but listens on */
    shutdown(b, SHUT_WR);
    turn(3);
    CHECK_EQ(host_stream_write(&dev.s, "still", 5), 5);
    turn(3);
    CHECK(slurp(b, buf, sizeof buf) == 5 && !memcmp(buf, "still", 5));
    close(b);
    turn(3);
    CHECK(dev.s.in.fd < 0 && dev.s.drop);
    host_stream_close(&dev.s);
    CHECK(stat(in_dir("sock"), &st) && errno == ENOENT);
}

/* A port of the loopback address, as nobody else has it now; 0: there is none. */
static unsigned free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&a, len) ||
        getsockname(fd, (struct sockaddr *)&a, &len))
        a.sin_port = 0;
    close(fd);
    return ntohs(a.sin_port);
}

static int dial_tcp(unsigned port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    a.sin_port = htons((uint16_t)port);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* The same by TCP; who ends his input there is gone. */
static void test_tcp(void)
{
    struct sockaddr_in name;
    socklen_t len = sizeof name;
    unsigned port = free_port();
    char spec[32], buf[64];
    int a, b;

    snprintf(spec, sizeof spec, "tcp:%u", port);
    CHECK(port && !dev_open(spec));
    CHECK(!getsockname(dev.s.door.fd, (struct sockaddr *)&name, &len));
    CHECK_EQ(ntohl(name.sin_addr.s_addr), INADDR_LOOPBACK);
    a = dial_tcp(port);
    b = dial_tcp(port);
    CHECK(a >= 0 && b >= 0 && write(a, "hello", 5) == 5 && write(b, "later", 5) == 5);
    CHECK(reaches(&dev.ngot, 5));
    CHECK_EQ(host_stream_write(&dev.s, "for a", 5), 5);
    turn(3);
    CHECK(slurp(a, buf, sizeof buf) == 5 && !memcmp(buf, "for a", 5));
    CHECK(dev.came == 1 && dev.went == 0);
    close(a);
    CHECK(reaches(&dev.ngot, 10));
    CHECK(!memcmp(dev.got, "hellolater", 10));
    CHECK(dev.came == 2 && dev.went == 1);
    close(b);
    turn(5);
    CHECK_EQ(dev.went, 2);
    host_stream_close(&dev.s);
}

/* A client leaves while the device takes nothing, and has sent more than the buffer holds. */
static int leave_behind(size_t len)
{
    char page[3 * HOST_STREAM_IN];
    int fd = dial("sock");

    dev.hold = dev.fifo;
    for (size_t i = 0; i < len; i++)
        page[i] = (char)pattern(i);
    CHECK(fd >= 0 && write(fd, page, len) == (ssize_t)len);
    turn(3);
    CHECK(dev.came == dev.went + 1);
    close(fd);
    turn(3);
    CHECK(dev.s.drop && dev.came == dev.went + 1); /* nobody listens; its input is still due */
    return dial("sock");
}

static void test_unix_leftovers(void)
{
    char spec[128], buf[64];
    size_t len = 3 * HOST_STREAM_IN, same = 0;
    int b;

    snprintf(spec, sizeof spec, "unix:%s", in_dir("sock"));
    CHECK(!dev_open(spec));
    CHECK_EQ(dev.came, 0);
    b = leave_behind(len);
    CHECK(b >= 0 && write(b, "next", 4) == 4);
    turn(3);
    CHECK_EQ(dev.came, 1); /* waits */
    dev.hold = sizeof dev.got;
    host_stream_poke(&dev.s);
    CHECK(reaches(&dev.ngot, len + 4));
    while (same < len && dev.got[same] == pattern(same))
        same++;
    CHECK_EQ(same, len);
    CHECK(!memcmp(dev.got + len, "next", 4));
    CHECK(dev.came == 2 && dev.went == 1);
    close(b);
    CHECK(reaches(&dev.went, 2));
    /* a device that does not take it: the next client gets on after a while, and starts afresh */
    b = leave_behind(len);
    CHECK(b >= 0 && write(b, "fresh", 5) == 5);
    CHECK(reaches(&dev.came, 4));
    CHECK_EQ(dev.went, 3);
    CHECK_EQ(host_stream_write(&dev.s, "hello", 5), 5);
    turn(3);
    CHECK(slurp(b, buf, sizeof buf) == 5 && !memcmp(buf, "hello", 5));
    dev.hold = sizeof dev.got;
    host_stream_poke(&dev.s);
    CHECK(reaches(&dev.ngot, len + 9));
    turn(3);
    CHECK_EQ(dev.ngot, len + 9);
    CHECK(!memcmp(dev.got + len + 4, "fresh", 5));
    close(b);
    CHECK(reaches(&dev.went, 4));
    host_stream_close(&dev.s);
}

/* What a client did not read is not the next one's. */
static void test_unix_unread(void)
{
    static uint8_t page[4096], all[1 << 20];
    char spec[128];
    size_t sent = 0, n;
    int a, b;

    snprintf(spec, sizeof spec, "unix:%s", in_dir("sock"));
    CHECK(!dev_open(spec));
    a = dial("sock");
    CHECK(reaches(&dev.came, 1));
    memset(page, 'o', sizeof page);
    do {
        n = host_stream_write(&dev.s, page, sizeof page);
        sent += n;
        turn(1);
    } while (n == sizeof page && sent < sizeof all);
    CHECK(n < sizeof page); /* the socket and the ring are full */
    close(a);
    b = dial("sock");
    CHECK(reaches(&dev.came, 2));
    CHECK(dev.room > 0); /* the device was told to go on */
    CHECK_EQ(host_stream_write(&dev.s, "new", 3), 3);
    turn(3);
    CHECK(slurp(b, all, sizeof all) == 3 && !memcmp(all, "new", 3));
    close(b);
    host_stream_close(&dev.s);
}

static void test_unix_path(void)
{
    static struct host_stream other;
    struct host_stream_desc desc = {&loop, NULL, NULL, NULL, NULL, NULL, NULL, &test_log};
    char spec[128];
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strcpy(a.sun_path, in_dir("stale"));
    CHECK(!bind(fd, (struct sockaddr *)&a, sizeof a));
    close(fd);
    snprintf(spec, sizeof spec, "unix:%s", in_dir("stale"));
    desc.spec = spec;
    CHECK(!host_stream_open(&other, &desc)); /* replaces the stale one */
    CHECK_EQ(dev_open(spec), -EADDRINUSE);   /* refuses the live one */
    CHECK(said_once("in use by another program"));
    fd = dial("stale"); /* a stream without input still notices who comes and goes */
    CHECK(fd >= 0);
    turn(3);
    CHECK(!other.drop && write(fd, "ignored", 7) == 7);
    close(fd);
    turn(3);
    CHECK(other.drop && other.door.armed);
    CHECK(!unlink(in_dir("stale")) && !dev_open(spec)); /* somebody took our place */
    host_stream_close(&other);
    CHECK(!access(in_dir("stale"), F_OK)); /* which is not ours to remove */
    host_stream_close(&dev.s);
    CHECK(access(in_dir("stale"), F_OK));
    make_file("plain", 3);
    snprintf(spec, sizeof spec, "unix:%s", in_dir("plain"));
    CHECK_EQ(dev_open(spec), -EEXIST);
    CHECK(said_once("is no socket"));
    CHECK(!access(in_dir("plain"), F_OK)); /* and leaves it alone */
}

static void test_pty(void)
{
    char buf[64];
    int fd;

    CHECK(!dev_open("pty"));
    CHECK(!strncmp(dev.s.pty_name, "/dev/", 5));
    CHECK_EQ(host_stream_write(&dev.s, "lost", 4), 4);
    for (int round = 0; round < 2; round++) {
        size_t before = dev.ngot;
        fd = open(dev.s.pty_name, O_RDWR | O_NOCTTY | O_NONBLOCK);
        CHECK(fd >= 0 && write(fd, "in\r\n\3", 5) == 5);
        CHECK(reaches(&dev.ngot, before + 5));
        CHECK(!memcmp(dev.got + before, "in\r\n\3", 5)); /* raw */
        CHECK_EQ(host_stream_write(&dev.s, "out\n", 4), 4);
        turn(3);
        CHECK(slurp(fd, buf, sizeof buf) == 4 && !memcmp(buf, "out\n", 4));
        turn(3);
        CHECK_EQ(dev.ngot, before + 5); /* no echo */
        CHECK(dev.came == (size_t)round + 1 && dev.went == (size_t)round);
        if (round)
            dev.hold = dev.fifo;
        CHECK(write(fd, "bye", 3) == 3);
        close(fd);
        turn(3);
        CHECK(dev.s.drop);
        CHECK_EQ(dev.went, 1); /* in the second round not yet */
    }
    CHECK_EQ(dev.ngot, 13); /* the last word is still due */
    dev.hold = sizeof dev.got;
    host_stream_poke(&dev.s);
    CHECK(reaches(&dev.ngot, 16));
    CHECK_EQ(dev.went, 2);
    host_stream_close(&dev.s);
}

/* >>tty: a child with a terminal of its own */

static void test_tty_size(void)
{
    int fd = posix_openpt(O_RDWR | O_NOCTTY), null = open("/dev/null", O_RDWR);
    struct winsize size = {.ws_col = 132, .ws_row = 43};
    uint16_t cols = 1, rows = 2;

    CHECK(fd >= 0 && null >= 0);
    CHECK_EQ(host_tty_size(null, &cols, &rows), -ENOTTY);
    CHECK_EQ(host_tty_size(fd, &cols, &rows), -ENOTTY); /* 0 by 0 */
    CHECK(cols == 1 && rows == 2);
    CHECK(!ioctl(fd, TIOCSWINSZ, &size));
    CHECK_EQ(host_tty_size(fd, &cols, &rows), 0);
    CHECK(cols == 132 && rows == 43);
    close(fd);
    close(null);
}

static int master;

static bool is_raw(void)
{
    struct termios t;

    return !tcgetattr(master, &t) && !(t.c_lflag & (ICANON | ECHO | ISIG)) && (t.c_oflag & OPOST);
}

/* Waits until the terminal is raw, or is not. */
static bool gets_raw(bool raw)
{
    for (int i = 0; i < 200 && is_raw() != raw; i++)
        poll(NULL, 0, 5);
    return is_raw() == raw;
}

/* Forks a session leader on a new terminal; its exit status is what `body` returns. */
static pid_t on_terminal(int (*body)(void))
{
    pid_t pid;

    master = posix_openpt(O_RDWR | O_NOCTTY);
    CHECK(master >= 0 && !grantpt(master) && !unlockpt(master));
    fflush(NULL);
    pid = fork();
    if (!pid) {
        int fd;
        setsid();
        fd = open(ptsname(master), O_RDWR);
        ioctl(fd, TIOCSCTTY, 0);
        dup2(fd, 0), dup2(fd, 1);
        if (fd > 2)
            close(fd);
        alarm(10);
        check_failed = 0;
        _exit(body());
    }
    return pid;
}

static int child_end(pid_t pid)
{
    int status = -1;

    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static void stop_on(void *ctx, int signo)
{
    (void)signo;
    host_loop_stop((struct host_loop *)ctx);
}

/* A console until SIGTERM or Ctrl-A x; fails unless `ngot` bytes came. */
static int console_body(void)
{
    static const int signos[] = {SIGTERM};
    static struct host_signals sig;

    if (host_loop_init(&loop, &test_log) ||
        host_signals_add(&loop, &sig, signos, 1, stop_on, &loop) || dev_open("stdio"))
        return 100;
    host_stream_write(&dev.s, "ready\n", 6);
    if (host_loop_run(&loop))
        return 101;
    host_stream_close(&dev.s);
    return check_failed ? 102 : (int)dev.ngot;
}

static void on_size(void *ctx, int signo)
{
    CHECK_EQ(signo, SIGWINCH);
    dev.key = 'r';
    host_loop_stop((struct host_loop *)ctx);
}

/* Ends with 7 when it hears that the size may have changed. */
static int resized_body(void)
{
    static const int signo = SIGWINCH;
    static struct host_signals sig;
    static struct host_timer late;

    dev.key = 0;
    if (host_loop_init(&loop, &test_log) ||
        host_signals_add(&loop, &sig, &signo, 1, on_size, &loop) ||
        host_timer_set(&loop, &late, 3000000000, stop_loop, &loop) || host_tty_raw(0))
        return 100;
    host_loop_run(&loop);
    host_tty_restore();
    return dev.key == 'r' && !check_failed ? 7 : 101;
}

static int crash_body(void)
{
    int quiet = open("/dev/null", O_WRONLY);

    dup2(quiet, 2); /* a sanitizer's report */
    if (dev_open("stdio"))
        return 100;
    raise(SIGSTOP); /* the parent looks and lets us go on, or to die */
    raise(SIGSTOP);
    *(volatile char *)mmap(NULL, 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) = 1;
    return 101;
}

static int abort_body(void)
{
    if (host_tty_raw(0))
        return 100;
    raise(SIGSTOP);
    abort();
}

static void test_tty_console(void)
{
    char buf[256] = "";
    pid_t pid = on_terminal(console_body);

    CHECK(gets_raw(true));
    for (int i = 0; i < 200 && !strstr(buf, "ready\r\n"); i++) {
        poll(NULL, 0, 5);
        slurp(master, buf + strlen(buf), sizeof buf - 1 - strlen(buf));
    }
    CHECK(strstr(buf, "ready\r\n"));
    CHECK(write(master, "\3\32\21ab\1\1c\1", 9) == 9); /* ^C ^Z ^Q a b ^A c: seven bytes */
    poll(NULL, 0, 20);
    CHECK(is_raw());
    CHECK(write(master, "x", 1) == 1);
    CHECK_EQ(WEXITSTATUS(child_end(pid)), 7);
    CHECK(!is_raw());
    close(master);

    pid = on_terminal(console_body);
    CHECK(gets_raw(true));
    kill(pid, SIGTERM);
    CHECK_EQ(child_end(pid), 0);
    CHECK(!is_raw());
    close(master);
}

static void test_tty_resized(void)
{
    struct winsize size = {.ws_col = 90, .ws_row = 30};

    for (int round = 0; round < 2; round++) {
        int status;
        pid_t pid = on_terminal(resized_body);
        CHECK(gets_raw(true));
        if (round == 0) {
            CHECK(!ioctl(master, TIOCSWINSZ, &size));
        } else { /* while it is stopped its terminal is another's, who resizes it */
            kill(pid, SIGSTOP);
            CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
            kill(pid, SIGCONT);
        }
        CHECK_EQ(WEXITSTATUS(child_end(pid)), 7);
        close(master);
    }
}

/* Waits until the child stops, in raw mode, and puts the terminal back as a shell does. */
static void tty_stopped(pid_t pid)
{
    struct termios t;
    int status;

    CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
    CHECK(is_raw() && !tcgetattr(master, &t));
    t.c_lflag |= ICANON | ECHO | ISIG;
    CHECK(!tcsetattr(master, TCSANOW, &t));
}

/* The child stops so many times, each time in raw mode again, then dies of a signal. */
static void tty_death(int (*body)(void), int stops, int kill_with, int died_of)
{
    pid_t pid = on_terminal(body);
    struct termios t;
    int status;

    while (stops--) {
        tty_stopped(pid);
        if (kill_with)
            kill(pid, kill_with);
        kill(pid, SIGCONT);
    }
    status = child_end(pid);
    if (WIFEXITED(status)) /* a sanitizer has reported it */
        CHECK(WEXITSTATUS(status) && WEXITSTATUS(status) < 100);
    else
        CHECK_EQ(WTERMSIG(status), died_of);
    CHECK(!is_raw());
    CHECK(!tcgetattr(master, &t) && (t.c_lflag & ECHO));
    close(master);
}

static int background_body(void)
{
    int status = 0, fd = open("/dev/null", O_WRONLY);
    struct pollfd typed = {0, POLLIN, 0};
    pid_t pid = fork();

    if (!pid) {
        setpgid(0, 0);
        _exit(console_body());
    }
    dup2(fd, 2);
    signal(SIGTTOU, SIG_IGN);
    setpgid(pid, pid);
    poll(&typed, 1, 2000); /* something is typed that it must not take, nor be stopped by */
    poll(NULL, 0, 60);
    if (waitpid(pid, &status, WUNTRACED | WNOHANG))
        return 200;
    tcflush(0, TCIFLUSH);
    tcsetpgrp(0, pid);
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 201;
}

static void test_tty_background(void)
{
    pid_t pid = on_terminal(background_body);

    poll(NULL, 0, 50);
    CHECK(!is_raw());
    CHECK(write(master, "nothing for it\n", 15) == 15);
    CHECK(gets_raw(true)); /* once it is in the foreground */
    poll(NULL, 0, 10);
    CHECK(write(master, "abc\1x", 5) == 5);
    CHECK_EQ(WEXITSTATUS(child_end(pid)), 3);
    CHECK(!is_raw());
    close(master);
}

static void remove_files(void)
{
    static const char *const names[] = {"pages", "good", "alias", "empty", "odd",  "secret",
                                        "fixed", "fifo", "sink",  "plain", "sock", "stale"};

    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
        unlink(in_dir(names[i]));
    rmdir(in_dir("folder"));
    CHECK(!rmdir(dir));
}

/* >>net: the test is passt: a socket that listens, and then one end of a stream of frames. */

static struct host_passt passt;
static int passt_peer = -1;
static size_t passt_calls;
static uint8_t passt_frame[HOST_FRAME_MAX];

static void passt_ready(void *ctx)
{
    CHECK(ctx == &passt);
    passt_calls++;
    host_passt_watch(&passt, HOST_IN);
}

static int passt_listen(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(a.sun_path, sizeof a.sun_path, "%s", in_dir("passt"));
    unlink(a.sun_path);
    CHECK(!bind(fd, (const struct sockaddr *)&a, sizeof a) && !listen(fd, 1));
    return fd;
}

/* What passt sends: a length and n bytes, or as many of them as `cut` allows. */
static void passt_says(uint32_t len, size_t n, size_t cut)
{
    static uint8_t out[4 + HOST_FRAME_MAX];

    out[0] = (uint8_t)(len >> 24);
    out[1] = (uint8_t)(len >> 16);
    out[2] = (uint8_t)(len >> 8);
    out[3] = (uint8_t)len;
    for (size_t i = 0; i < n; i++)
        out[4 + i] = (uint8_t)(i * 3 + len);
    n = 4 + n < cut ? 4 + n : cut;
    CHECK_EQ(send(passt_peer, out, n, MSG_NOSIGNAL), n);
}

/* The next frame, into two pieces. */
static int passt_take(void)
{
    struct host_iov iov[2] = {{passt_frame, 10}, {passt_frame + 10, sizeof passt_frame - 10}};

    return host_passt_recv(&passt, iov, 2);
}

static bool passt_took(uint32_t len)
{
    if (!CHECK_EQ(passt_take(), len))
        return false;
    for (uint32_t i = 0; i < len; i++)
        if (passt_frame[i] != (uint8_t)(i * 3 + len))
            return false;
    return true;
}

static bool passt_falls(void)
{
    for (unsigned ms = 0; ms < 2000 && passt.up; ms += 2)
        turn(2);
    return !passt.up && said_once("has gone");
}

static void passt_meet(int door)
{
    struct host_passt_desc d = {.loop = &loop,
                                .path = in_dir("passt"),
                                .ready = passt_ready,
                                .ctx = &passt,
                                .log = &test_log};

    CHECK(!host_passt_open(&passt, &d));
    passt_peer = accept(door, NULL, NULL);
    CHECK(passt.up && passt_peer >= 0);
    passt_calls = 0;
}

/* Frames come whole, however the stream was cut. */
static void test_passt_recv(int door)
{
    passt_meet(door);
    CHECK_EQ(passt_take(), -EAGAIN);
    passt_says(60, 60, SIZE_MAX);
    passt_says(1, 1, SIZE_MAX);
    passt_says(1514, 1514, SIZE_MAX);
    CHECK(passt_took(60) && passt_took(1) && passt_took(1514));
    CHECK_EQ(passt_take(), -EAGAIN);
    for (size_t cut = 0; cut < 4 + 30; cut++) {
        passt_says(30, 30, cut);
        CHECK_EQ(passt_take(), -EAGAIN);
        passt_says(0, 0, 0);
        for (size_t i = cut; i < 34; i++) {
            uint8_t byte = i < 4 ? (uint8_t)(i == 3 ? 30 : 0) : (uint8_t)((i - 4) * 3 + 30);
            CHECK_EQ(send(passt_peer, &byte, 1, MSG_NOSIGNAL), 1);
        }
        CHECK(passt_took(30));
    }
    for (unsigned i = 0; i < 3; i++) { /* over the end of the buffer and back */
        passt_says(HOST_FRAME_MAX, HOST_FRAME_MAX, SIZE_MAX);
        passt_says(40, 40, SIZE_MAX);
        CHECK(passt_took(HOST_FRAME_MAX) && passt_took(40));
    }
    passt_says(60, 60, SIZE_MAX); /* frames read ahead are told of without the descriptor */
    passt_says(60, 60, SIZE_MAX);
    host_passt_watch(&passt, HOST_IN);
    CHECK(reaches(&passt_calls, 1));
    CHECK(passt_took(60));
    passt_calls = 0;
    host_passt_watch(&passt, HOST_IN);
    CHECK(reaches(&passt_calls, 1));
    CHECK(passt_took(60));
    CHECK(said_once(NULL));
    host_passt_close(&passt);
    close(passt_peer);
}

/* Lengths that cannot be, and ends in the middle of a frame: the cable is out, nothing worse. */
static void test_passt_lies(int door)
{
    static const uint32_t lengths[] = {0, HOST_FRAME_MAX + 1, 0x7fffffff, 0x80000000, UINT32_MAX};

    for (unsigned i = 0; i <= sizeof lengths / sizeof lengths[0]; i++) {
        passt_meet(door);
        host_passt_watch(&passt, HOST_IN);
        if (i < sizeof lengths / sizeof lengths[0])
            passt_says(lengths[i], 100, SIZE_MAX);
        else
            passt_says(100, 100, 50);
        CHECK_EQ(passt_take(), -EAGAIN);
        close(passt_peer);
        CHECK_EQ(passt_take(), -EAGAIN);
        CHECK(passt_falls());
        CHECK_EQ(passt_take(), -ENOTCONN);
        host_passt_close(&passt);
    }
}

/* A frame that was sent in part is finished before the next begins. */
static void test_passt_send(int door)
{
    static uint8_t frame[2][HOST_FRAME_MAX];
    struct host_iov iov[2] = {{frame[0], 20}, {frame[0] + 20, HOST_FRAME_MAX - 20}};
    uint32_t len = 0, sent = 0, came = 0;
    int n;

    passt_meet(door);
    for (uint32_t i = 0; i < HOST_FRAME_MAX; i++)
        frame[0][i] = (uint8_t)(i * 5);
    while ((n = host_passt_send(&passt, iov, 2)) > 0)
        sent++;
    CHECK_EQ(n, -EAGAIN);
    CHECK(sent > 0 && sent < 100);
    host_passt_watch(&passt, HOST_OUT);
    while (came < sent) {
        uint8_t head[4];
        turn(1);
        CHECK_EQ(recv(passt_peer, head, 4, MSG_WAITALL), 4);
        len = (uint32_t)head[0] << 24 | (uint32_t)head[1] << 16 | (uint32_t)head[2] << 8 | head[3];
        if (!CHECK_EQ(len, HOST_FRAME_MAX))
            break;
        for (uint32_t got = 0; got < len; got += (uint32_t)n) {
            turn(0);
            n = (int)recv(passt_peer, frame[1] + got, len - got, MSG_DONTWAIT);
            if (n < 0)
                n = 0;
        }
        CHECK(!memcmp(frame[0], frame[1], len));
        came++;
    }
    CHECK_EQ(host_passt_send(&passt, iov, 2), HOST_FRAME_MAX);
    iov[1].len++;
    CHECK_EQ(host_passt_send(&passt, iov, 2), -EMSGSIZE);
    close(passt_peer);
    CHECK(host_passt_send(&passt, iov, 1) < 0);
    CHECK_EQ(host_passt_send(&passt, iov, 1), -ENOTCONN);
    CHECK(passt_falls());
    passt_calls = 0; /* it comes back */
    CHECK(reaches(&passt_calls, 1) && passt.up);
    passt_peer = accept(door, NULL, NULL);
    CHECK(said_once("is back"));
    iov[1].len--;
    CHECK_EQ(host_passt_send(&passt, iov, 1), 20);
    close(passt_peer);
    host_passt_close(&passt);
}

static void test_passt(void)
{
    struct host_passt_desc d = {.loop = &loop, .path = in_dir("nowhere"), .log = &test_log};
    const char *path = getenv("PATH");
    char kept[4096];
    int door = passt_listen();

    CHECK_EQ(host_passt_open(&passt, &d), -ENOENT);
    CHECK(said_once("start passt"));
    snprintf(kept, sizeof kept, "%s", path ? path : "");
    d.path = NULL;
    setenv("PATH", "/nonexistent", 1);
    CHECK_EQ(host_passt_open(&passt, &d), -ENOENT);
    CHECK(said_once("install it"));
    setenv("PATH", kept, 1);
    test_passt_recv(door);
    test_passt_lies(door);
    test_passt_send(door);
    close(door);
    unlink(in_dir("passt"));
}

/* The same by datagrams: the test is gvproxy. */
static int gram_listen(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    snprintf(a.sun_path, sizeof a.sun_path, "%s", in_dir("gram"));
    unlink(a.sun_path);
    CHECK(!bind(fd, (const struct sockaddr *)&a, sizeof a));
    return fd;
}

/* Takes the greeting, and answers to where it came from from now on. */
static void gram_meet(int fd, struct sockaddr_un *from)
{
    socklen_t len = sizeof *from;
    char word[16] = "";

    memset(from, 0, sizeof *from);
    CHECK_EQ(recvfrom(fd, word, sizeof word, MSG_DONTWAIT, (struct sockaddr *)from, &len), 4);
    CHECK(!memcmp(word, "VFKT", 4) && !strncmp(from->sun_path, in_dir("gram"), strlen(dir)));
}

static void test_gram_frames(int fd, const struct sockaddr_un *to)
{
    static uint8_t frame[9000], back[sizeof frame];
    struct host_iov iov[2] = {{frame, 14}, {frame + 14, 986}}, in = {back, sizeof back};
    int n = 0, sent = 0;

    for (size_t i = 0; i < sizeof frame; i++)
        frame[i] = pattern(i);
    CHECK_EQ(host_passt_send(&passt, iov, 2), 1000);
    CHECK(recv(fd, back, sizeof back, MSG_DONTWAIT) == 1000 && !memcmp(back, frame, 1000));
    CHECK_EQ(host_passt_recv(&passt, &in, 1), -EAGAIN);
    passt_calls = 0;
    host_passt_watch(&passt, HOST_IN);
    CHECK_EQ(sendto(fd, "", 0, 0, (const struct sockaddr *)to, sizeof *to), 0); /* no frame */
    CHECK_EQ(sendto(fd, frame, 9000, 0, (const struct sockaddr *)to, sizeof *to), 9000);
    CHECK(reaches(&passt_calls, 1));
    CHECK(host_passt_recv(&passt, &in, 1) == 9000 && !memcmp(back, frame, 9000));
    CHECK_EQ(host_passt_recv(&passt, &in, 1), -EAGAIN);
    while (sent < 100000 && (n = host_passt_send(&passt, iov, 2)) == 1000)
        sent++;
    CHECK(n == -EAGAIN && sent > 0);
    passt_calls = 0;
    host_passt_watch(&passt, HOST_OUT);
    turn(5);
    CHECK_EQ(passt_calls, 0);
    while (recv(fd, back, sizeof back, MSG_DONTWAIT) == 1000)
        sent--;
    CHECK_EQ(sent, 0);
    host_passt_watch(&passt, HOST_OUT);
    CHECK(reaches(&passt_calls, 1));
    iov[1] = (struct host_iov){back, HOST_FRAME_MAX - 13};
    CHECK_EQ(host_passt_send(&passt, iov, 2), -EMSGSIZE);
    CHECK(passt.up && said_once(NULL));
}

static void test_gram(void)
{
    struct host_passt_desc d = {.loop = &loop,
                                .path = in_dir("gram"),
                                .datagrams = true,
                                .ready = passt_ready,
                                .ctx = &passt,
                                .log = &test_log};
    struct host_iov iov = {passt_frame, 60};
    struct sockaddr_un to;
    char longer[120];
    int fd;

    CHECK_EQ(host_passt_open(&passt, &d), -ENOENT);
    CHECK(said_once("gvproxy --listen-vfkit unixgram:///"));
    memset(longer, 'x', sizeof longer);
    longer[105] = 0; /* no room for the name of our own end */
    d.path = longer;
    CHECK_EQ(host_passt_open(&passt, &d), -ENAMETOOLONG);
    CHECK(said_once("no helper"));
    d.path = in_dir("gram");
    fd = gram_listen();
    CHECK(!host_passt_open(&passt, &d) && passt.up);
    gram_meet(fd, &to);
    test_gram_frames(fd, &to);
    host_passt_watch(&passt, HOST_IN);
    close(fd);
    for (unsigned i = 0; i < 100 && passt.up; i++) { /* the helper has gone, as a send finds out */
        host_passt_send(&passt, &iov, 1);
        turn(2);
    }
    CHECK(!passt.up && said_once("has gone") && access(to.sun_path, F_OK));
    fd = gram_listen();
    passt_calls = 0;
    CHECK(reaches(&passt_calls, 1) && passt.up && said_once("is back"));
    gram_meet(fd, &to);
    CHECK(!access(to.sun_path, F_OK));
    host_passt_close(&passt);
    CHECK(access(to.sun_path, F_OK)); /* nothing is left behind */
    close(fd);
    unlink(in_dir("gram"));
}

static void test_tap_refusals(void)
{
    struct host_tap t;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    CHECK_EQ(host_tap_open(&t, "", 1, &test_log), -EINVAL);
    CHECK(said_once("1 to 15"));
    CHECK_EQ(host_tap_open(&t, "a-name-of-16-bytes", 1, &test_log), -EINVAL);
    CHECK(said_once("1 to 15"));
    CHECK_EQ(host_tap_open(&t, "tap0", HOST_TAP_QUEUES + 1, &test_log), -EINVAL);
    CHECK(said_once("1 to 8 queues"));
    CHECK_EQ(host_tap_adopt(&t, null, &test_log), -EINVAL);
    CHECK(said_once("is no tap"));
    CHECK_EQ(host_tap_adopt(&t, 1000000, &test_log), -EBADF);
    CHECK(said_once("is not open"));
    close(null);
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");

    snprintf(dir, sizeof dir, "%.40s/vmm-host-XXXXXX", tmp ? tmp : "/tmp");
    if (!CHECK(mkdtemp(dir)))
        return 1;
    CHECK(!host_loop_init(&loop, &test_log));
    test_watch();
    test_timer();
    test_timer_again();
    test_event();
    test_signals();
    test_small_things();
    test_ram();
    test_bad_files();
    test_disk_image();
    test_disk_lock();
    test_disk_rw();
    test_async();
    test_direct();
    test_call();
    test_grow();
    test_edges();
    test_edge_ends();
    test_edge_busy();
    test_specs();
    test_input_never_lost();
    test_input_files();
    test_output_full();
    test_output_gone();
    test_file_sink();
    test_close_bounded();
    test_unix_clients();
    test_tcp();
    test_unix_leftovers();
    test_unix_unread();
    test_unix_path();
    test_passt();
    test_gram();
    test_tap_refusals();
    test_pty();
    test_tty_size();
    test_tty_console();
    test_tty_resized();
    tty_death(crash_body, 2, 0, SIGSEGV);
    tty_death(crash_body, 1, SIGHUP, SIGHUP);
    tty_death(abort_body, 1, 0, SIGABRT);
    test_tty_background();
    CHECK(!loop.events);
    host_loop_fini(&loop);
    remove_files();
    CHECK_DONE(TEST_NAME);
}
