# cases.sh - what the guest tests are written in. Sourced by guest_*.sh, which run in a directory that looks like the
# checkout after `make`: on a host with hardware virtualisation that is the checkout, in the lab it is a copy of what
# they need. Plain POSIX sh, for the lab's shell is busybox.
#
# One line for each case: "ok - NAME", "not ok - NAME: WHY", "skip - NAME: WHY"; lines with # explain.
VMM=${VMM:-$PWD/vmm}
T=$(mktemp -d)
out=$T/out rc=0 failed=0
# Seconds that a guest may take: in the x86_64 lab of its clock, in the arm64 lab of the host's, which may be busy.
[ "$(uname -m)" = aarch64 ] && patience=180 || patience=60
trap 'rm -rf "$T"' EXIT
trap 'exit 1' HUP INT TERM

ok() { echo "ok - $1"; }
skip() { echo "skip - $1: $2"; }
not_ok() { # NAME WHY
    failed=1
    echo "not ok - $1: $2"
    [ ! -s "$out" ] || tail -n 12 "$out" | cut -c 1-200 | sed 's/^/# /'
}

# vm OPTION...: runs vmm with nothing on standard input; leaves its output, without carriage returns, in file $out and
# its exit status in $rc. No guest runs for ever.
vm() {
    rc=0
    "$VMM" --timeout $patience "$@" </dev/null >"$T/raw" 2>&1 || rc=$?
    tr -d '\r' <"$T/raw" >"$out"
}

# linux KERNEL-FILE COMMANDS OPTION...: boots Linux, which runs COMMANDS in a shell and powers off. KERNEL-FILE is
# NAME/vmlinuz or NAME/vmlinux below build/kernels, with further keys of --kernel after a comma. COMMANDS may not
# contain a double quote.
linux() {
    file=build/kernels/$1 initrd=build/initramfs-${1%%/*}.cpio commands=$2
    shift 2
    vm --kernel "path=$file" --initrd "$initrd" --append "run=\"$commands\"" "$@"
}

# check NAME STATUS [PATTERN]: the last run ended with STATUS and, if given, a line of its output matches PATTERN.
check() {
    if [ "$rc" != "$2" ]; then
        not_ok "$1" "exit status $rc instead of $2"
    elif [ -n "${3:-}" ] && ! grep -Eq -e "$3" "$out"; then
        not_ok "$1" "no line matches '$3'"
    else
        ok "$1"
    fi
}

# start OPTION...: vmm in the background, with file descriptor 3 as its standard input and its output in $T/raw; stop
# waits for its end and leaves $rc and $out as vm does.
start() {
    mkfifo "$T/keys" 2>/dev/null || :
    : >"$T/raw"
    "$VMM" --timeout $patience "$@" <"$T/keys" >"$T/raw" 2>&1 &
    pid=$!
    exec 3>"$T/keys"
}
stop() {
    exec 3>&-
    rc=0
    wait "$pid" || rc=$?
    tr -d '\r' <"$T/raw" >"$out"
}

# await PATTERN: waits until a line of the output of what start started matches; false when that has ended before.
await() {
    until grep -Eq -e "$1" "$T/raw"; do
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.1
    done
}

# kernels PATTERN: names of the kernels that are there, oldest first.
kernels() { ls -d build/kernels/$1 2>/dev/null | sed 's|.*/||' | sort -t - -k 2 -V; }
first_kernel() { kernels "$1" | head -n 1; }

# gdb_on COMMAND...: what gdb says to these about the guest that start started with --gdb unix:$T/s, in file $T/gdb.
# With $ctrl_c it gets SIGINT after so many seconds. `make deps` brings a gdb without Python, which needs no more than its
# libraries.
PATH=$PWD/build/gdb:$PATH ctrl_c=
gdb_on() {
    for command; do
        set -- "$@" -ex "$command"
        shift
    done
    until [ -S "$T/s" ] || ! kill -0 "$pid"; do sleep 0.1; done
    ${ctrl_c:+timeout -s INT $ctrl_c} gdb -nx -batch -ex 'set confirm off' -ex 'set pagination off' \
        -ex 'set remotetimeout 60' -ex "target remote $T/s" "$@" >"$T/gdb" 2>&1 </dev/null || :
}
said() { # NAME PATTERN: gdb did
    if grep -Eq -e "$2" "$T/gdb"; then
        ok "$1"
    else
        not_ok "$1" "gdb did not say '$2'"
        tail -n 30 "$T/gdb" | cut -c 1-200 | sed 's/^/# gdb: /'
    fi
}

# gdb on a Linux with two CPUs that does the same again and again, and has a program with breakpoints and steps of its
# own: in the kernel, in a program behind the system call that it came by, in the processor's debug registers.
gdb_at_work() {
    commands='while sleep 0.1; do uname -a >/dev/null; traps 20; done'
    cat "build/initramfs-$k.cpio" build/tools.cpio >"$T/initrd"
    start --kernel "build/kernels/$k/vmlinuz" --initrd "$T/initrd" --cpus 2 --gdb "unix:$T/s,nowait" --append \
        "nokaslr tsc=reliable run=\"grep -E ' (jiffies_64|__x64_sys_newuname)$' /proc/kallsyms; echo ready; $commands\""
    await '^ready'
    uname=$(tr -d '\r' <"$T/raw" | sed -n 's/^\([0-9a-f]*\) T __x64_sys_newuname$/0x\1/p')
    jiffies=$(tr -d '\r' <"$T/raw" | sed -n 's/^\([0-9a-f]*\) D jiffies_64$/0x\1/p')
    gdb_on "break *$uname" "continue" "x/1xb $uname" "backtrace 2" 'set $user = *(long *)($rdi + 128)' "stepi" "stepi" \
        "info registers eflags" 'break *$user' "continue" "info registers cs" "stepi" "delete 2" "continue 8" "detach"
    said "gdb: breakpoint in the kernel" 'hit Breakpoint 1,'
    said "gdb: it is not to be seen in there" ':.0x0f$'
    said "gdb: backtrace" '^#1 '
    said "gdb: steps, whose flag is not the guest's" '^eflags .*\[ [A-SU-Z ]*\]'
    said "gdb: breakpoint in a program" 'hit Breakpoint 2,'
    said "gdb: it is a program's" '^cs  *0x33 '
    gdb_on "hbreak *$uname" "continue 8" "delete" "watch *(long *)$jiffies" "continue" "delete" "detach"
    said "gdb: hardware breakpoint" 'hit Breakpoint 1,'
    said "gdb: watchpoint" 'hit Hardware watchpoint 2:'
    kill "$pid"
    stop
    check "gdb: the guest goes on, and powers off" 0 '^breakpoints=20 steps=20 wrong=0'
    ! grep -q '^breakpoints=.* wrong=[1-9]' "$out" && ok "gdb: what is the guest's own it gets" ||
        not_ok "gdb: what is the guest's own it gets" "$(grep -m 1 'wrong=[1-9]' "$out")"
}

# What guests do that are to prove interrupts and clocks: tell their CPUs; read their disk, $T/disk, from two sides at
# once; measure some seconds of the CMOS clock, which is the host's, with their own, asleep for most of them.
load='for i in 1 2 3 4; do md5sum /dev/vda & md5sum /dev/vda & wait; done'
clock() { # SECONDS
    echo 'edge() { read s <$R; t=$s; while [ $t = $s ]; do read t <$R; done; }; R=/sys/class/rtc/rtc0/since_epoch;' \
        "edge; read a x </proc/uptime; sleep $(($1 - 1)).8; edge; read b x </proc/uptime; echo seconds \$a \$b"
}
both="echo online \$(nproc); $load; $(clock 5)"
random_disk() {
    head -c 1048576 /dev/urandom >"$T/disk"
    sum=$(md5sum <"$T/disk" | cut -d ' ' -f 1)
}

# What came of it: in_time NAME SECONDS: so long they were; has_read NAME: the disk brought what is on it, eight times.
in_time() {
    if awk -v n="$2" '/^seconds / { d = ($3 - $2) / n } END { exit !(d >= 0.99 && d <= 1.01) }' "$out"; then
        ok "$1: $2 seconds are as many within 1 %"
    else
        not_ok "$1: $2 seconds are as many within 1 %" "$(grep '^seconds' "$out")"
    fi
}
has_read() {
    n=$(grep -c "^$sum  /dev/vda" "$out")
    [ "$n" = 8 ] && ok "$1: disk" || not_ok "$1: disk" "$n of 8 reads are right"
}

# works NAME STATUS CPUS SECONDS COMMANDS OPTION...: kernel $k has all CPUs, and time.
works() {
    name=$1 status=$2 cpus=$3 seconds=$4 commands=$5
    shift 5
    linux "$k/vmlinuz" "$commands" --cpus "$cpus" "$@"
    check "$name: CPUs" "$status" "^online $cpus\$"
    in_time "$name" "$seconds"
}

# network_load: 8 MiB each way between a guest with kernel $k and this host, over a tap, then requests with answers.
# Needs "modules: tun" of its script.
network_load() {
    [ ! -e build/lab/tun.ko ] || insmod build/lab/tun.ko || :
    if [ "$(id -u)" != 0 ] || [ ! -e /dev/net/tun ]; then
        skip "network" "taps are root's, and need tun"
        return
    fi
    (cd "$T" && cpio -idu) <build/tools.cpio 2>/dev/null
    cat "build/initramfs-$k.cpio" build/tools.cpio >"$T/initrd"
    ip link set lo up
    "$T/bin/netload" serve 5078 &
    server=$!
    trap 'kill $server 2>/dev/null; rm -rf "$T"' EXIT
    up='ip addr add 10.98.0.2/24 dev eth0; ip link set eth0 up; until grep -q 1 /sys/class/net/eth0/carrier; do sleep 0.1; done'
    start --kernel "build/kernels/$k/vmlinuz" --initrd "$T/initrd" --net tap=vmmt9 --append \
        "run=\"$up; netload send 10.98.0.1 5078 8 check; netload receive 10.98.0.1 5078 8 check; netload ask 10.98.0.1 5078 100\""
    until [ -e /sys/class/net/vmmt9 ] || ! kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    ip addr add 10.98.0.1/24 dev vmmt9 && ip link set vmmt9 up
    stop
    n=$(grep -c '^bytes=8388608 errors=0 ' "$out")
    [ "$n" = 2 ] && ok "8 MiB each way, every byte right" || not_ok "8 MiB each way, every byte right" "$n of 2"
    check "requests and answers" 0 '^requests=100 errors=0 '
}

# works_played NAME CPUS OPTION...: on a stand-in that knows another hypervisor. Several CPUs are told that their TSCs
# agree, which Linux believes no AMD processor that does not call its TSC invariant, as the lab's: the ACPI timer, at
# three exits for each look at the clock, takes minutes here.
works_played() {
    name=$1 cpus=$2
    shift 2
    [ "$cpus" = 1 ] || set -- "$@" --append tsc=reliable
    works "$name" 0 "$cpus" 5 "$both" --disk "$T/disk,ro" "$@"
    has_read "$name"
    compared 1000
}

# compared LEAST: the last run's stand-in, by its statistics, has compared that many accesses that hv_x86.h decoded with
# KVM's own decoding of the same instruction; a difference would have ended it (shim_nvmm.c).
compared() {
    n=$(sed -n 's/^shim_nvmm: .* compared=\([0-9]*\) .*/\1/p' "$out")
    [ "${n:-0}" -ge "$1" ] && ok "$n decoded accesses compared with KVM's own" ||
        not_ok "decoded accesses compared with KVM's own" "${n:-none}, not $1 at least"
}
