/* test_run.c - how a VM of vmm.c begins and ends, played by hv_fake.h    MIT licence, see LICENSE
   Each case is a process of its own, as vmm is. */
#define _GNU_SOURCE
#define VMM_NO_MAIN
#define VMM_BACKEND "tests/hv_fake.h"
#include "../vmm.c"

#include "check.h"
#include <sys/wait.h>

#define OUT(port, byte)                                                                            \
    {                                                                                              \
        .kind = VMM_EXIT_PIO, .addr = port, .val = byte, .write = true                             \
    }
#define IN(port, byte)                                                                             \
    {                                                                                              \
        .kind = VMM_EXIT_PIO, .addr = port, .val = byte                                            \
    }

#define OUT32(gpa, word)                                                                           \
    {                                                                                              \
        .kind = VMM_EXIT_MMIO, .addr = gpa, .val = word, .size = 4, .write = true                  \
    }
#define IN32(gpa, word)                                                                            \
    {                                                                                              \
        .kind = VMM_EXIT_MMIO, .addr = gpa, .val = word, .size = 4                                 \
    }
#define WRMSR(msr, word)                                                                           \
    {                                                                                              \
        .kind = VMM_EXIT_MSR, .addr = msr, .val = word, .size = 8, .write = true                   \
    }
#define RDMSR(msr, word)                                                                           \
    {                                                                                              \
        .kind = VMM_EXIT_MSR, .addr = msr, .val = word, .size = 8                                  \
    }
#define MASTER_8259 OUT(0x20, 0x11), OUT(0x21, 0x20), OUT(0x21, 4), OUT(0x21, 1)
#define PIT_ONCE    OUT(0x43, 0x30), OUT(0x40, 0x40), OUT(0x40, 0)

struct life {
    const char *name;
    const char *words; /* on standard error; "": nothing at all */
    int status;
    int open_err, cpu_err;
    int signals; /* SIGTERMs that the process gets */
    const char *option;
    struct fake_exit exits[20];
};

/* What the vCPUs saw of interrupt controllers of our own. */
struct seen {
    unsigned injected, ninjected, nmis, refused, started, messages, passed, uninjected;
};

static const struct life lives[] = {
    {"power off", "", ST_POWEROFF, 0, 0, 0, 0, {OUT(0x605, 0x20)}},
    {"no power off for S3", "", ST_RESET, 0, 0, 0, 0, {OUT(0x605, 0x24), OUT(0x64, 0xfe)}},
    {"reset by the i8042", "", ST_RESET, 0, 0, 0, 0, {OUT(0x64, 0xfe)}},
    {"reset by 0xcf9", "", ST_RESET, 0, 0, 0, 0, {OUT(0xcf9, 2), OUT(0xcf9, 6)}},
    {"debug exit", "", 77, 0, 0, 0, 0, {OUT(0xf4, 77)}},
    {"debug exit 255", "", 255, 0, 0, 0, 0, {OUT(0xf4, 255)}},
    {"nothing answers",
     "",
     9,
     0,
     0,
     0,
     0,
     {IN(0x1234, 0xff), OUT(0x1234, 1), IN(0x3fd, 0x60), OUT(0xf4, 9)}},
    {"triple fault",
     "triple fault on CPU 0 at rip 0x1234",
     ST_TRIPLE_FAULT,
     0,
     0,
     0,
     0,
     {{.kind = VMM_EXIT_SHUTDOWN}}},
    {"fault",
     "the script says so (7) on CPU 0 at rip 0x1234",
     ST_HYPERVISOR,
     0,
     0,
     0,
     0,
     {{.kind = VMM_EXIT_FAULT}}},
    {"run fails", "", ST_FAILED, 0, 0, 0, 0, {{.err = -EIO}}},
    {"no hypervisor", "does not open", ST_UNFIT, -ENOENT, 0, 0, 0, {OUT(0xf4, 1)}},
    {"no CPU", "fake CPU 2 does not open", ST_UNFIT, 0, -EINVAL, 0, 0, {OUT(0xf4, 1)}},
    {"timeout", "still ran after 1 s", ST_TIMEOUT, 0, 0, 0, "--timeout=1", {OUT(0x3f8, 'x')}},
    {"SIGTERM", "", ST_SIGNAL + SIGTERM, 0, 0, 1, 0, {OUT(0x3f8, 'x')}},
    {"network",
     "1 to 15 characters",
     ST_UNFIT,
     0,
     0,
     0,
     "--net=tap=a-name-that-is-too-long",
     {{0}}},
    {"times", "\"entry\":", 1, 0, 0, 0, "--time", {OUT(0xf4, 1)}},
};

static const struct chip_life {
    struct life life;
    struct seen seen;
} chip_lives[] = {
    {.life = {"HLT ends with the PIT's interrupt",
              "",
              9,
              0,
              0,
              0,
              "--irqchip=user",
              {MASTER_8259, PIT_ONCE, {.kind = VMM_EXIT_HALT, .ready = true}, OUT(0xf4, 9)}},
     .seen = {.injected = 0x20, .ninjected = 1}},
    {.life = {"the same with the hypervisor's LAPICs",
              "",
              9,
              0,
              0,
              0,
              "--irqchip=split",
              {MASTER_8259, PIT_ONCE, {.kind = VMM_EXIT_HALT, .ready = true}, OUT(0xf4, 9)}},
     .seen = {.injected = 0x20, .ninjected = 1}},
    {.life = {"an interrupt waits for its window",
              "",
              9,
              0,
              0,
              0,
              "--irqchip=user",
              {OUT32(0xfee000f0, 0x1ff),
               OUT32(0xfee00300, 0x40041),
               {.kind = VMM_EXIT_AGAIN, .await_window = true, .ready = true},
               OUT(0xf4, 9)}},
     .seen = {.injected = 0x41, .ninjected = 1}},
    {.life = {"HLT with interrupts off ends with an NMI alone", /* or never */
              "still ran",
              ST_TIMEOUT,
              0,
              0,
              0,
              "--timeout=1 --irqchip=user",
              {MASTER_8259, PIT_ONCE, {.kind = VMM_EXIT_HALT}, OUT(0xf4, 9)}},
     .seen = {0}},
    {.life = {"an NMI needs no window",
              "",
              9,
              0,
              0,
              0,
              "--irqchip=user",
              {OUT32(0xfee00300, 0x40400), {.kind = VMM_EXIT_AGAIN}, OUT(0xf4, 9)}},
     .seen = {.nmis = 1}},
    {.life = {"another CPU starts by INIT and start-up interrupts",
              "",
              9,
              0,
              0,
              0,
              "--irqchip=user",
              {IN32(0xfee00020, 0),
               OUT32(0xfee00310, 2 << 24),
               OUT32(0xfee00300, 0x4500),
               OUT32(0xfee00300, 0x699),
               {.kind = VMM_EXIT_AGAIN, .await_start = true},
               OUT(0xf4, 9)}},
     .seen = {.started = 0x99}},
    {.life = {"INIT of the first CPU, which has no firmware to go to",
              "",
              ST_RESET,
              0,
              0,
              0,
              "--irqchip=user",
              {OUT32(0xfee000f0, 0x1ff),
               OUT32(0xfee00300, 0x40051),
               {.kind = VMM_EXIT_AGAIN, .ready = true},
               OUT32(0xfee00300, 0x4500)}},
     .seen = {.injected = 0x51, .ninjected = 1, .uninjected = 1}},
    {.life = {"MSRs: x2APIC, and none",
              "",
              9,
              0,
              0,
              0,
              "--irqchip=user",
              {RDMSR(0x802, 0), WRMSR(0x1b, 0xfee00d00), WRMSR(0x808, 0x30), RDMSR(0x808, 0x30),
               RDMSR(0x2ff, 0), IN32(0xfee00020, 0xffffffff), OUT(0xf4, 9)}},
     .seen = {.refused = 2}},
    {.life = {"the end of a level-triggered interrupt brings it again",
              "",
              9,
              0,
              0,
              0,
              "--irqchip=split",
              {OUT32(0xfec00000, 0x18),
               OUT32(0xfec00010, 0x8044),
               OUT(0x3f9, 2),
               OUT(0x3fc, 8),
               {.kind = VMM_EXIT_EOI, .addr = 0x44, .write = true},
               OUT(0xf4, 9)}},
     .seen = {.messages = 2}},
    {.life = {"breakpoints and steps that are not gdb's are the guest's own",
              "",
              9,
              0,
              0,
              0,
              "--gdb=unix:build/run.sock,nowait",
              {{.kind = VMM_EXIT_DEBUG, .val = VMM_DEBUG_TRAP, .write = true},
               {.kind = VMM_EXIT_DEBUG, .write = true},
               OUT(0xf4, 9)}},
     .seen = {.passed = 2}},
    {.life = {"nothing runs before gdb comes",
              "waits for gdb: target remote build/run.sock",
              ST_TIMEOUT,
              0,
              0,
              0,
              "--gdb=unix:build/run.sock --timeout=1",
              {OUT(0xf4, 9)}},
     .seen = {0}},
};

static unsigned count_exits(const struct life *l)
{
    unsigned n = sizeof l->exits / sizeof l->exits[0];

    while (n > 0 && !l->exits[n - 1].kind && !l->exits[n - 1].err && !l->exits[n - 1].await_start)
        n--;
    return n;
}

/* The child: vmm with a flat binary and three CPUs. Its status says also when a read went wrong. */
static int live(const struct life *l, const struct seen *seen, const char *binary)
{
    char *argv[] = {"vmm", "--binary", (char *)binary, "--entry", "0x1000", "--cpus",
                    "3",   "--serial", "null",         NULL,      NULL,     NULL};
    char options[64] = "";
    int status, argc = 9;

    strncpy(options, l->option ? l->option : "", sizeof options - 1);
    for (char *o = strtok(options, " "); o; o = strtok(NULL, " "))
        argv[argc++] = o;

    fake.exits = l->exits;
    fake.nexits = count_exits(l);
    fake.open_err = l->open_err;
    fake.cpu_err = l->cpu_err;
    fake.last_cpu = 2;
    status = vmm_main(argc, argv);
    if (fake.mismatches)
        return 250;
    return fake.injected == seen->injected && fake.ninjected == seen->ninjected &&
                   fake.nmis == seen->nmis && fake.refused == seen->refused &&
                   fake.started == seen->started && fake.raised == seen->messages &&
                   fake.passed == seen->passed && fake.uninjected >= seen->uninjected
               ? status
               : 251;
}

static void check_life(const struct life *l, const struct seen *seen, const char *binary)
{
    char text[4096] = "";
    int p[2], status = 0;
    size_t len = 0;
    ssize_t n;
    pid_t pid;

    if (!CHECK(pipe(p) == 0))
        return;
    *fake.asleep = 0;
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        dup2(p[1], STDERR_FILENO);
        close(p[0]);
        exit(live(l, seen, binary));
    }
    close(p[1]);
    if (l->signals) {
        for (int i = 0; i < 10000 && !__atomic_load_n(fake.asleep, __ATOMIC_SEQ_CST); i++)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        kill(pid, SIGTERM);
    }
    while (len < sizeof text - 1 && (n = read(p[0], text + len, sizeof text - 1 - len)) > 0)
        len += (size_t)n;
    waitpid(pid, &status, 0);
    close(p[0]);
    if (!CHECK(WIFEXITED(status)) || !CHECK_EQ(WEXITSTATUS(status), l->status) ||
        !CHECK(*l->words ? strstr(text, l->words) != NULL : !*text))
        fprintf(stderr, "  in the life '%s': %s\n", l->name, text);
}

/* The power button asks a Linux guest; only the second signal ends it. */
static void test_button(void)
{
    static struct vm vm;
    static struct config c;

    config_init(&c);
    c.log.sink = NULL;
    c.kernel = "k";
    vm.cfg = &c;
    vm.log = &c.log;
    vm.status = -1;
    vm.hyp.caps = HYP_CAP_IRQCHIP;
    CHECK_EQ(host_loop_init(&vm.loop, NULL), 0);
    host_mutex_init(&vm.chips_lock);
    pc_pm_init(&vm.pm, &(struct pc_pm_desc){.sci = vm_irq(&vm, SCI_GSI)});
    pc_pm_write(&vm.pm, 2, 2, 1 << 8); /* PM1 enable: PWRBTN_EN */
    fake.raised = 0;
    on_signal(&vm, SIGTERM);
    CHECK(!vm_over(&vm));
    CHECK_EQ(fake.raised, 1);
    CHECK_EQ(pc_pm_read(&vm.pm, 0, 2) & 1 << 8, 1 << 8);
    on_signal(&vm, SIGINT);
    CHECK_EQ(vm.status, ST_SIGNAL + SIGINT);
    CHECK(!vm_end(&vm, 3)); /* the first one counts */
    CHECK_EQ(vm.status, ST_SIGNAL + SIGINT);
    host_loop_fini(&vm.loop);
}

int main(void)
{
    char binary[] = "/tmp/vmm-test-run-XXXXXX";
    int fd = mkstemp(binary);

    if (!CHECK(fd >= 0 && write(fd, "\xf4", 1) == 1))
        return 1;
    close(fd);
    fake.asleep =
        mmap(NULL, sizeof *fake.asleep, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!CHECK(fake.asleep != MAP_FAILED))
        return 1;
    for (size_t i = 0; i < sizeof lives / sizeof lives[0]; i++)
        check_life(&lives[i], &(struct seen){0}, binary);
    for (size_t i = 0; i < sizeof chip_lives / sizeof chip_lives[0]; i++)
        check_life(&chip_lives[i].life, &chip_lives[i].seen, binary);
    test_button();
    unlink(binary);
    CHECK_DONE("test_run");
}
