#!/bin/sh
# guest_gdb.sh: stock gdb on a Linux under way, and on one that waits for it. In the lab not all breakpoints: QEMU's SVM
# does not intercept a guest's INT3, and before QEMU 8 did not load its debug registers. guest_tiny.sh has those that any
# KVM knows.
# needs: cloud
# programs: gdb
. tests/cases.sh
k=$(first_kernel '[cg]*-*')
command -v gdb >/dev/null || { skip "gdb" "there is none here, run make deps"; exit 0; }

symbol() { # NAME: where the guest says that it is
    tr -d '\r' <"$T/raw" | sed -n "s/^\([0-9a-f]*\) [a-zA-Z] $1\$/0x\1/p" | head -n 1
}
gdb_linux() { # COMMANDS OPTION...
    commands=$1
    shift
    start --kernel "path=build/kernels/$k/vmlinuz" --initrd "build/initramfs-$k.cpio" --append "nokaslr run=\"$commands\"" "$@"
}

# It does the same again and again until its power button is pressed.
gdb_linux "grep -E ' (linux_banner|jiffies_64|__x64_sys_newuname)$' /proc/kallsyms; echo ready; \
while sleep 0.1; do uname -a >/dev/null; done" --cpus 2 --timeout 300 --gdb "unix:$T/s,nowait"
await '^ready'
banner=$(symbol linux_banner) jiffies=$(symbol jiffies_64) uname=$(symbol __x64_sys_newuname)
gdb_on "info threads" "x/s $banner" "info registers rip cr3" "monitor walk $banner" "thread 2" "stepi" "stepi" \
    'print $_thread' "detach"
said "gdb: a guest under way stops, its CPUs are threads" '^ *2 .*vcpu1'
said "gdb: memory behind the kernel's page tables" '"Linux version 6'
said "gdb: registers" '^cr3 '
said "gdb: a walk through the page tables" '^physical 0x'
said "gdb: single steps of one CPU" '^\$1 = 2'
said "gdb: detach" 'Inferior 1.*detached'
ctrl_c=5
gdb_on "continue" "info threads" "detach"
ctrl_c=
said "gdb: Ctrl-C" 'received signal SIGINT'
if grep -q 'q35-[1-7]\.' /sys/class/dmi/id/product_version 2>/dev/null && [ -d /lab ]; then
    skip "gdb: hardware breakpoints in Linux" "the lab's processor has none in its guests before QEMU 8"
else
    gdb_on "hbreak *$uname" "continue" "delete" "watch *(long *)$jiffies" "continue" "delete" "detach"
    said "gdb: hardware breakpoint in Linux" 'hit Breakpoint 1,'
    said "gdb: watchpoint in Linux" 'hit Hardware watchpoint 2:'
fi
if [ -d /lab ]; then
    skip "gdb: breakpoint in Linux's memory" "QEMU's SVM does not intercept INT3"
else
    gdb_on "break *$uname" "continue" "x/1xb $uname" "delete" "detach"
    said "gdb: breakpoint in Linux" 'hit Breakpoint 1,'
fi
kill "$pid"
stop
check "gdb: the guest goes on, and powers off" 0

# It waits for gdb; a gdb that vanishes lets it go.
gdb_linux "echo \$(nproc) CPUs" --cpus 2 --irqchip user --timeout 300 --gdb "unix:$T/s"
gdb_on "info registers rip" "stepi 50" "monitor regs" "info threads" "disconnect"
said "gdb: the guest waits for it" '^rip  *0x[1-9]'
said "gdb: a CPU that is not started yet" '^ *2 .*0x0*fffffff0'
said "gdb: segments" '^cs  0010 base 0000000000000000'
stop
check "gdb: the guest starts when it has gone" 0 '^2 CPUs'
exit $failed
