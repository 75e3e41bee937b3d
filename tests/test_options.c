/* test_options.c - the command line of vmm.c  MIT licence, see LICENSE */
#define VMM_NO_MAIN
#include "../vmm.c"

#include "check.h"

static char said[1024];
static unsigned nsaid;

static void hear(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    (void)ctx;
    (void)level;
    nsaid++;
    vsnprintf(said, sizeof said, fmt, args);
}

/* Parses a line whose words are separated by | (so that words may hold spaces). */
static int parse(struct config *c, const char *line)
{
    static char buf[1024];
    char *argv[40] = {"vmm"}, *p = buf;
    int argc = 1;

    snprintf(buf, sizeof buf, "%s", line);
    while (*p && argc < 39) {
        argv[argc++] = p;
        p += strcspn(p, "|");
        if (*p)
            *p++ = 0;
    }
    config_init(c);
    c->log.sink = hear;
    nsaid = 0;
    said[0] = 0;
    return config_parse(c, argc, argv);
}

#define GOOD(line)                                                                                 \
    struct config c;                                                                               \
    if (!CHECK(parse(&c, line) == 0 && nsaid == 0))                                                \
    fprintf(stderr, "  %s: %s\n", line, said)

static void test_plain(void)
{
    GOOD("run|--kernel|a b|--initrd=rd,1|-c|4|-m2G|--append|x=1|--append=y z|--disk|d,ro|--disk|e");
    CHECK(c.command == CMD_RUN);
    CHECK(strcmp(c.kernel, "a b") == 0);
    CHECK(strcmp(c.initrd, "rd,1") == 0);
    CHECK(strcmp(c.append, "x=1 y z") == 0);
    CHECK_EQ(c.ncpus, 4);
    CHECK_EQ(c.mem, 2ull << 30);
    CHECK_EQ(c.ndisks, 2);
    CHECK(c.disk[0].ro && strcmp(c.disk[0].path, "d") == 0);
    CHECK(!c.disk[1].ro && strcmp(c.disk[1].path, "e") == 0);
    config_free(&c);
}

static void test_defaults(void)
{
    GOOD("-k|k");
    CHECK_EQ(c.mem, 512ull << 20);
    CHECK_EQ(c.ncpus, 1);
    CHECK(c.console == CONSOLE_SERIAL && nuarts(&c) == 1 && !strcmp(serial_where(&c, 0), "stdio") &&
          !c.debugcon && !c.no_acpi && !c.time);
    CHECK(c.level == VMM_LOG_WARN && c.transport == TRANSPORT_PCI);
    config_free(&c);
}

static void test_flat(void)
{
    GOOD("--binary|x86_64_simple.bin|--entry|0x1000|--mem|128M");
    CHECK_EQ(c.entry, 0x1000);
    CHECK_EQ(c.load, 0x1000);
    CHECK_EQ(c.mode, 64);
    CHECK_EQ(c.mem, 128ull << 20);
    config_free(&c);
}

static void test_short_names(void)
{
    GOOD("--kernel|vmlinux|--memory|512|--disk|disk.img");
    CHECK_EQ(c.mem, 512ull << 20);
    CHECK(c.ndisks == 1 && strcmp(c.disk[0].path, "disk.img") == 0);
    config_free(&c);
}

static void test_lists(void)
{
    GOOD("--memory|mem_size_mib=1024|--vcpus|num_vcpus=1|"
         "--kernel|path=vmlinux,himem_start=1024,cmdline=\"console=ttyS0 pci=off\"");
    CHECK_EQ(c.mem, 1ull << 30);
    CHECK_EQ(c.ncpus, 1);
    CHECK_EQ(c.himem_start, 1024);
    CHECK(strcmp(c.kernel, "vmlinux") == 0);
    CHECK(strcmp(c.cmdline, "console=ttyS0 pci=off") == 0);
    config_free(&c);
}

static void test_more_lists(void)
{
    GOOD("--memory|size_mib=1024|--vcpu|num=2|--block|path=disk.img|"
         "--kernel|path=bzImage,kernel_load_addr=1048576,cmdline=console=ttyS0,115200 a=b,c");
    CHECK_EQ(c.kernel_load, 1048576);
    CHECK_EQ(c.ncpus, 2);
    CHECK(strcmp(c.disk[0].path, "disk.img") == 0);
    CHECK(strcmp(c.cmdline, "console=ttyS0,115200 a=b,c") == 0); /* commas of its own */
    config_free(&c);
}

static void test_order(void)
{
    GOOD("--kernel|cmdline=a=b,path=k=,entry=pvh");
    CHECK(strcmp(c.kernel, "k=") == 0);
    CHECK(strcmp(c.cmdline, "a=b") == 0);
    CHECK(c.kernel_entry == BOOT_ENTRY_PVH);
    config_free(&c);
}

static void test_path_alone(void)
{
    GOOD("--kernel|path=bzimage-hello-busybox");
    CHECK(strcmp(c.kernel, "bzimage-hello-busybox") == 0);
    config_free(&c);
}

static void test_vfio(void)
{
    GOOD("-k|k|--vfio|0000:01:00.2,rom=a.rom|--vfio=0000:01:00.3");
    CHECK_EQ(c.nvfio, 2);
    CHECK(!strcmp(c.vfio[0].address, "0000:01:00.2") && !strcmp(c.vfio[0].rom, "a.rom"));
    CHECK(!strcmp(c.vfio[1].address, "0000:01:00.3") && !c.vfio[1].rom);
    config_free(&c);
}

static void test_vfio_list(void)
{
    GOOD("doctor|--vfio");
    CHECK(c.command == CMD_DOCTOR && c.list_vfio && !c.nvfio);
    config_free(&c);
}

static void test_transport(void)
{
    GOOD("--kernel|k|--transport|mmio");
    CHECK(c.transport == TRANSPORT_MMIO);
    config_free(&c);
}

static void test_trace(unsigned want, const char *path, const char *words)
{
    struct config c;

    CHECK_EQ(parse(&c, words), 0);
    CHECK_EQ(c.trace, want);
    CHECK(path ? c.trace_path && strcmp(c.trace_path, path) == 0 : !c.trace_path);
    config_free(&c);
}

static void test_irqchip(enum irqchip want, const char *words)
{
    GOOD(words);
    CHECK(c.irqchip == want);
    config_free(&c);
}

static void test_net_and_console(void)
{
    GOOD("--kernel|bzImage|--initrd|rd|--cmdline|...|--cpus|2|--disk|d.img|--net|tap=tap0|--"
         "console|--log|3");
    CHECK(c.debugcon && c.console == CONSOLE_SERIAL);
    CHECK_EQ(c.nnets, 1);
    CHECK(c.net[0].kind == NET_TAP && strcmp(c.net[0].where, "tap0") == 0);
    CHECK(c.level == VMM_LOG_INFO);
    CHECK_EQ(c.ndisks, 1);
    config_free(&c);
}

static void test_net(void)
{
    static const uint8_t mac[] = {0x52, 0x54, 0, 0xab, 0xcd, 0xef};
    static const char *const bad[] = {"tap0",
                                      "tap=",
                                      "passt=",
                                      "unixgram",
                                      "unixgram=",
                                      "unixgram=/run/g,passt",
                                      "unixgram=/run/g,vhost=on",
                                      "tapfd=2",
                                      "tapfd=x",
                                      "mac=52:54:00:ab:cd:ef",
                                      "tap=a,tap=b",
                                      "tap=a,passt",
                                      "tap=a,mac=52:54:00:ab:cd",
                                      "tap=a,mac=53:54:00:ab:cd:ef",
                                      "tap=a,mac=52:54:00:ab:cd:ef:",
                                      "tap=a,mac=5:254:00:ab:cd:ef",
                                      "tap=a,queues=0",
                                      "tap=a,queues=9",
                                      "passt,queues=2",
                                      "tapfd=5,queues=2",
                                      "tap=a,mtu=67",
                                      "tap=a,mtu=65536",
                                      "tap=a,vhost=yes",
                                      "passt,vhost=on",
                                      "tap=a,fast"};
    char line[80];

    GOOD("--kernel|k|--net|tap=t0,queues=4,mac=52:54:00:ab:CD:ef,vhost=off|--net|mtu=9000,passt|"
         "-n|passt=/run/p|--net|none|-ntapfd=7,vhost=on");
    CHECK_EQ(c.nnets, 4);
    CHECK(c.net[0].queues == 4 && c.net[0].have_mac && c.net[0].vhost == VHOST_OFF);
    CHECK(!memcmp(c.net[0].mac, mac, 6) && !c.net[0].mtu);
    CHECK(c.net[1].kind == NET_PASST && !c.net[1].where && c.net[1].mtu == 9000);
    CHECK(c.net[1].vhost == VHOST_AUTO && !c.net[1].have_mac);
    CHECK(c.net[2].kind == NET_PASST && strcmp(c.net[2].where, "/run/p") == 0);
    CHECK(c.net[3].kind == NET_TAPFD && c.net[3].fd == 7 && c.net[3].vhost == VHOST_ON);
    config_free(&c);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(line, sizeof line, "--kernel|k|--net|%s", bad[i]);
        if (!CHECK_EQ(parse(&c, line), -EINVAL))
            printf("  %s\n", bad[i]);
        config_free(&c);
    }
    CHECK_EQ(parse(&c, "--kernel|k|-npasst|-npasst|-npasst|-npasst|-npasst"), -EINVAL);
    config_free(&c);
}

static void test_unixgram(void)
{
    GOOD("--kernel|k|--net|unixgram=/run/g,mtu=1500|--net|passt=/run/p");
    CHECK(c.net[0].kind == NET_PASST && c.net[0].datagrams && c.net[0].mtu == 1500);
    CHECK(c.nnets == 2 && strcmp(c.net[0].where, "/run/g") == 0 && !c.net[1].datagrams);
    config_free(&c);
}

static void test_disks(void)
{
    GOOD("-k|k|--disk|d,rw,format=raw,serial=S 1,queues=4,cache=none,bps=10M,iops=500|"
         "--disk|serial=,path=e,cache=writeback,bps=16t,ro");
    CHECK(!c.disk[0].ro && c.disk[0].direct && strcmp(c.disk[0].serial, "S 1") == 0);
    CHECK(c.disk[0].queues == 4 && c.disk[0].bps == 10 << 20 && c.disk[0].iops == 500);
    CHECK(c.disk[1].ro && !c.disk[1].direct && !*c.disk[1].serial && !c.disk[1].queues);
    CHECK(strcmp(c.disk[1].path, "e") == 0 && c.disk[1].bps == 1ull << 44 && !c.disk[1].iops);
    CHECK(c.disk[0].format == DISK_RAW && c.disk[1].format == DISK_PROBE && !c.disk[1].overlay);
    config_free(&c);
}

static void test_overlays(void)
{
    GOOD("-k|k|--disk|d,overlay,format=qcow2|--disk|e,overlay=f");
    CHECK(c.disk[0].overlay && !c.disk[0].overlay_path && c.disk[0].format == DISK_QCOW2);
    CHECK(c.disk[1].overlay && strcmp(c.disk[1].overlay_path, "f") == 0);
    config_free(&c);
}

static void test_quotes(void)
{
    GOOD("--kernel|'odd,name'|--disk|\"a,b\".img,ro|--console|virtio");
    CHECK(strcmp(c.kernel, "odd,name") == 0);
    CHECK(strcmp(c.disk[0].path, "a,b.img") == 0 && c.disk[0].ro);
    CHECK(c.console == CONSOLE_VIRTIO && !c.debugcon);
    config_free(&c);
}

static void test_sizes(void)
{
    static const struct {
        const char *text;
        uint64_t len;
    } sizes[] = {
        {"512", 512ull << 20},
        {"512M", 512ull << 20},
        {"512m", 512ull << 20},
        {"512MiB", 512ull << 20},
        {"1T", 1ull << 40},
        {"0x200", 512ull << 20},
        {"1048576K", 1ull << 30},
        {"2g", 2ull << 30},
        {"1GB", 1ull << 30},
        {"1", 1ull << 20},
        {"4T", 4ull << 40},
        {"1025K", 1ull << 20},
        {"0", 0},
        {"1023K", 0},
        {"5T", 0},
        {"12X", 0},
        {"-5", 0},
        {"1.5G", 0},
        {"M", 0},
        {"1MM", 0},
        {" 1", 0},
        {"18446744073709551616", 0},
    };
    char line[64];

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct config c;
        snprintf(line, sizeof line, "-k|k|-m|%s", sizes[i].text);
        if (!CHECK(parse(&c, line) == (sizes[i].len ? 0 : -EINVAL)) ||
            (sizes[i].len && !CHECK_EQ(c.mem, sizes[i].len)))
            fprintf(stderr, "  --mem %s: %s\n", sizes[i].text, said);
        CHECK_EQ(nsaid, !sizes[i].len);
        config_free(&c);
    }
}

static void test_ports(void)
{
    struct config c;

    CHECK_EQ(
        parse(&c, "-k|k|--port|org.qemu.guest_agent.0=unix:/tmp/a=b,c|--serial|null|--port=x=stdio|"
                  "--port|y=pty|--port|z=pty|--rng|rate=4096"),
        0);
    CHECK_EQ(c.nports, 4);
    CHECK(!strcmp(c.port[0].name, "org.qemu.guest_agent.0"));
    CHECK(!strcmp(c.port[0].where, "unix:/tmp/a=b,c"));
    CHECK(!strcmp(c.port[1].name, "x") && !strcmp(c.port[1].where, "stdio"));
    CHECK_EQ(c.rng_rate, 4096);
    config_free(&c);
    CHECK_EQ(parse(&c, "-k|k|--gdb|1234|--serial|tcp:1235"), 0);
    CHECK(!strcmp(c.gdb, "tcp:1234") && !c.gdb_nowait && !c.gdb_mode);
    config_free(&c);
    CHECK_EQ(parse(&c, "-k|k|--gdb|unix:a,nowait,mode=32"), 0);
    CHECK(!strcmp(c.gdb, "unix:a") && c.gdb_nowait && c.gdb_mode == 32);
    config_free(&c);
    CHECK_EQ(parse(&c, "-k|k|--serial|null|--console|virtio|--port|a=null|--port|b=null"), 0);
    CHECK(nuarts(&c) == 1 && !strcmp(serial_where(&c, 0), "null"));
    CHECK_EQ(c.rng_rate, 0);
    config_free(&c);
    CHECK_EQ(parse(&c, "-k|k|--serial|null|--serial|pty|--serial|stdio|--serial|null"), 0);
    CHECK(nuarts(&c) == 4 && !strcmp(serial_where(&c, 1), "pty"));
    CHECK(!strcmp(serial_where(&c, 2), "stdio") && !strcmp(serial_where(&c, 3), "null"));
    config_free(&c);
}

/* Each of these is refused in one sentence that holds the words. */
static void test_bad(void)
{
    static const struct {
        const char *line, *words;
    } bad[] = {
        {"", "--kernel FILE"},
        {"--kernal|k", "did you mean --kernel"},
        {"--memry|k", "did you mean --memory"},
        {"--zzzzzzzzzzzzzzzz", "vmm --help"},
        {"-z", "unknown option '-z'"},
        {"-hx", "unknown option"},
        {"kernel", "did you mean --kernel kernel"},
        {"run|run", "neither a command"},
        {"-k", "--kernel needs a value"},
        {"--kernel|", "needs a value"},
        {"-k|k|--cpus|0", "1 to 1024"},
        {"-k|k|--cpus|4096", "1 to 1024"},
        {"-k|k|--cpus|2x", "not a number"},
        {"-k|k|--cpus|num=2,foo=3", "does not know 'foo=3'"},
        {"-k|k|--disk|d,rox", "does not know 'rox'"},
        {"-k|k|--disk|,ro", "name is empty"},
        {"-k|k|--disk|queues=2", "name is empty"},
        {"-k|k|--disk|d,queues=0", "1 to 16"},
        {"-k|k|--disk|d,queues=17", "1 to 16"},
        {"-k|k|--disk|d,queues=two", "disk queues: 'two' is not a number"},
        {"-k|k|--disk|d,cache=unsafe", "give writeback or none"},
        {"-k|k|--disk|d,format=vmdk", "qemu-img convert"},
        {"-k|k|--disk|d,overlay=", "overlay=FILE"},
        {"-k|k|--disk|d,overlay,ro", "exclude each other"},
        {"-k|k|--disk|d,bus=scsi", "give virtio or ide"},
        {"-k|k|--disk|d,bus=ide,queues=2", "knows no cache=none, queues"},
        {"-k|k|--disk|d,bus=ide,cache=none", "knows no cache=none"},
        {"-k|k|--disk|d,bus=ide|--disk|e,bus=ide", "one disk alone"},
        {"-k|k|--disk|d,bus=ide|--transport|mmio", "bus=ide needs PCI"},
        {"-k|k|--disk|d,serial=123456789012345678901", "at most 20"},
        {"-k|k|--disk|d,bps=0", "disk bps: 0 is out of range"},
        {"-k|k|--disk|d,bps=M", "disk bps: 'M' is not a rate"},
        {"-k|k|--disk|d,bps=17T", "1 to 16T"},
        {"-k|k|--disk|d,bps=99999999999999999999", "out of range"},
        {"-k|k|--disk|d,iops=1K", "disk iops: '1K' is not a number"},
        {"-k|k|--disk|d,iops=0", "disk iops: 0 is out of range"},
        {"--kernel|k,foo", "does not know 'foo'"},
        {"--kernel|k,entry=7", "give 64, pvh, multiboot"},
        {"-k|k|--serial|tty", "unix:PATH"},
        {"-k|k|--gdb|unix:", "is not a number"},
        {"-k|k|--gdb|65536", "1 to 65535"},
        {"-k|k|--gdb|1234,wait", "does not know 'wait'"},
        {"-k|k|--gdb|1234,mode=8", "--gdb mode: 8 is out of range"},
        {"-k|k|--gdb|unix:x|--serial|unix:x", "both take unix:x"},
        {"-k|k|--gdb|1234|--serial|tcp:1234", "both take tcp:1234"},
        {"-k|k|--serial|unix:", "unix:PATH"},
        {"-k|k|--console=vga", "serial, virtio or none"},
        {"-k|k|--log|5", "warn"},
        {"-k|k|--timeout|0", "1 to"},
        {"-k|k|--time=yes", "takes no value"},
        {"-k|k|--mode|48", "64, 32 or 16"},
        {"-k|k|--binary|b|--entry|0", "exclude each other"},
        {"-k|k|--bios|b", "exclude each other"},
        {"--bios|b|--append|x", "--bios takes no initrd"},
        {"--bios|b|--transport|mmio", "--bios needs PCI"},
        {"--bios|b|--entry|0", "belong to --binary"},
        {"--guest|g|-k|k", "--kernel, --guest and --binary exclude each other"},
        {"--guest|g|--initrd|i", "--guest takes no initrd"},
        {"--guest|g|--guest|h", "given twice"},
        {"--guest|,ro", "name is empty"},
        {"--binary|b", "--entry ADDR"},
        {"-k|k|--entry|0", "belong to --binary"},
        {"--binary|b|--entry|0|--initrd|i", "no initrd"},
        {"-k|k|--console|virtio|--serial|stdio", "give --serial another place"},
        {"-k|k|--serial|stdio|--serial|stdio", "--serial and --serial both take stdio"},
        {"-k|k|--serial|null|--serial|pty|--serial|pty|--serial|pty|--serial|null", "more than 4"},
        {"-k|k|--vfio", "--vfio needs a value: --vfio ADDRESS ('vmm doctor --vfio' lists them)"},
        {"-k|k|--vfio|rom=x", "--vfio names no device"},
        {"-k|k|--vfio|0000:01:00.0,ro", "--vfio does not know 'ro'"},
        {"-k|k|--vfio|0000:01:00.0|--vfio|0000:01:00.0,rom=x", "0000:01:00.0 is given twice"},
        {"-k|k|--vfio|0000:01:00.0|--transport|mmio", "--vfio needs a PCI bus"},
        {"-k|k|--port|a=stdio", "--serial and --port a both take stdio"},
        {"-k|k|--console|virtio|--port|a=stdio", "--console virtio and --port a"},
        {"-k|k|--port|a=file:x|--port|b=file:x", "--port a and --port b both take file:x"},
        {"-k|k|--serial|unix:x|--port|b=unix:x", "both take unix:x"},
        {"-k|k|--port|a=null|--port|a=null", "two ports are named 'a'"},
        {"-k|k|--port|a", "give NAME=WHERE"},
        {"-k|k|--port|a=tty", "unix:PATH"},
        {"-k|k|--port|=null", "'' is no name"},
        {"-k|k|--port|..=null", "'..' is no name"},
        {"-k|k|--port|a/b=null", "'a/b' is no name"},
        {"-k|k|--port|0123456789012345678901234567890123456789012345678901234567890123=null",
         "up to 63"},
        {"-k|k|--port=1=null|--port=2=null|--port=3=null|--port=4=null|--port=5=null|--port=6=null|"
         "--port=7=null|--port=8=null|--port=9=null|--port=10=null|--port=11=null|--port=12=null|"
         "--port=13=null|--port=14=null|--port=15=null|--port=16=null|--port=17=null|--port|18="
         "null|"
         "--port=19=null|--port=20=null|--port=21=null|--port=22=null|--port=23=null|--port|24="
         "null|"
         "--port=25=null|--port=26=null|--port=27=null|--port=28=null|--port=29=null|--port|30="
         "null|"
         "--port=31=null",
         "more than 30"},
        {"-k|k|--rng|1000", "does not know '1000'"},
        {"-k|k|--rng|rate=0", "1 to 4294967296"},
        {"-k|k|--disk|1|--disk|2|--disk|3|--disk|4|--disk|5|--disk|6|--disk|7|--disk|8|--disk|9|"
         "--disk|10|--disk|11|--disk|12|--disk|13",
         "more than 12"},
    };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct config c;
        if (!CHECK(parse(&c, bad[i].line) == -EINVAL) || !CHECK_EQ(nsaid, 1) ||
            !CHECK(strstr(said, bad[i].words)))
            fprintf(stderr, "  %s: %s\n", bad[i].line, said);
        config_free(&c);
    }
}

/* The default command line, --append, and the hints of a machine without ACPI. */
static void test_cmdline(void)
{
    static struct vm vm;
    struct config c;
    char *line;

    CHECK_EQ(parse(&c, "-k|k|--append|a b"), 0);
    vm.cfg = &c;
    line = make_cmdline(&vm);
    CHECK(strcmp(line, "console=ttyS0 " CMDLINE_DEFAULT " a b") == 0);
    free(line);
    config_free(&c);
    CHECK_EQ(parse(&c, "-k|k|--cmdline||--console|virtio|--no-acpi|--transport|mmio"), 0);
    vm.nslots = MMIO_SLOTS_MAX;
    line = make_cmdline(&vm);
    CHECK(strncmp(line, " virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6",
                  70) == 0);
    CHECK(strstr(line, "@0xd000e000:23"));
    free(line);
    config_free(&c);
}

int main(void)
{
    test_plain();
    test_defaults();
    test_flat();
    test_short_names();
    test_lists();
    test_more_lists();
    test_order();
    test_path_alone();
    test_transport();
    test_vfio();
    test_vfio_list();
    test_trace(0, NULL, "--kernel|k");
    test_trace(TRACE_IO, NULL, "--kernel|k|--trace|io");
    test_trace(TRACE_IO | TRACE_EXIT | TRACE_IRQ, "a:b", "--kernel|k|--trace=exit,irq,io:a:b");
    test_irqchip(IRQCHIP_KERNEL, "--kernel|k");
    test_irqchip(IRQCHIP_SPLIT, "--kernel|k|--irqchip=split");
    test_irqchip(IRQCHIP_USER, "--kernel|k|--irqchip|user");
    test_net_and_console();
    test_net();
    test_unixgram();
    test_disks();
    test_overlays();
    test_quotes();
    test_sizes();
    test_ports();
    test_bad();
    test_cmdline();
    CHECK_DONE("test_options");
}
