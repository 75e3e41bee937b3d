#!/bin/sh
# arm64_gdb.sh: stock gdb on arm64 guests: a tiny one, which has debug exceptions of its own, and a Linux that waits for
# gdb and goes on under way.
# kernels: cloud-6.1
# programs: gdb
. tests/cases.sh
k=cloud-6.1 elf=build/guests64/debug.elf

debug() { # OPTION...
    set -- --binary build/guests64/debug.bin --entry 0x40001000 "$@"
    case "$*" in *--gdb*) start "$@" ;; *) vm "$@" ;; esac
}
debug
check "a guest's own breakpoints" 0 '^debug: as it must be'
debug --gdb 1234,mode=64
stop
check "--gdb with a mode, which is for x86" 2 "does not know 'mode=64'"
command -v gdb >/dev/null || { skip "gdb" "there is none here, run make deps"; exit 0; }

debug --gdb "unix:$T/s"
gdb_on "symbol-file $elf" 'x/i $pc' 'stepi' 'info symbol $pc' 'set $x7 = 0x77' 'info registers x7 cpsr' 'print $v3.uint128' \
    'info registers vbar_el1' 'break count' 'continue' 'x/i $pc' 'info symbol $lr' 'delete' 'watch *(long *)&counter' 'continue' 'delete' \
    'hbreak count' 'continue' 'delete' 'break *0x40001004' 'continue'
said "gdb: disassembles arm64 code" '^=> 0x40001000.*bl.*start'
said "gdb: single step" '^start in section'
said "gdb: sets a register" '^x7 +0x77'
said "gdb: knows PSTATE" '^cpsr .*\[ SP EL=1 F I A D'
said "gdb: vectors" '^\$1 = 0$'
said "gdb: system registers" '^vbar_el1 +0x0'
said "gdb: breakpoint in memory" '^Breakpoint 1, 0x[0-9a-f]* in count'
said "gdb: it is not to be seen in there" '^=> 0x[0-9a-f]* <count[+0-9]*>:.(adrp|ldr|mov)'
said "gdb: who called" '^start \+ [0-9]+ in section'
said "gdb: watchpoint" '^New value = 1$'
said "gdb: learns how it ended" 'exited normally'
stop
check "the guest's own breakpoints stay its own" 0 '^debug: as it must be'

debug --gdb "unix:$T/s"
gdb_on "symbol-file $elf" 'hbreak count' 'continue' 'kill'
said "gdb: hardware breakpoint" '^Breakpoint 1, 0x[0-9a-f]* in count'
stop
check "gdb: kill" 137

symbol() { # NAME: where the guest says that it is
    tr -d '\r' <"$T/raw" | sed -n "s/^\([0-9a-f]*\) [a-zA-Z] $1\$/0x\1/p" | head -n 1
}
# It does the same again and again until it is told to end. Probes of kernel functions are breakpoint instructions, too.
[ "${GIC:-}" = 2 ] && chips='--irqchip user' || chips=
start --kernel build/kernels/$k/vmlinuz --initrd build/initramfs-$k.cpio --cpus 2 --gdb "unix:$T/s" $chips --append 'nokaslr
run="mount -t tracefs t /sys/kernel/tracing; cd /sys/kernel/tracing; echo p:p1 __arm64_sys_getppid >kprobe_events;
echo 1 >events/kprobes/enable; while sleep 0.1; do uname -a; sh -c :; done >/dev/null & echo $(nproc) CPUs;
grep __arm64_sys_newuname$ /proc/kallsyms; echo ready; read a; cat kprobe_profile"'
gdb_on 'info registers pc' 'stepi 5' 'info threads' 'disconnect'
said "gdb: the guest waits for it" '^pc +0x4[0-9a-f]{7} '
said "gdb: a CPU that is not started yet" '^ *2 .*vcpu1'
await '^ready'
uname=$(symbol __arm64_sys_newuname)
ctrl_c=4
gdb_on "continue" "info threads" "thread 2" "detach"
ctrl_c=
said "gdb: Ctrl-C" 'received signal SIGINT'
said "gdb: CPUs are threads" '^\* 2 .*vcpu1.*0xffff|^ *2 .*vcpu1.*0xffff'
said "gdb: detach" 'Inferior 1.*detached'
gdb_on "monitor walk $uname" "hbreak *$uname" "continue" "delete" 'watch -l *(long *)$x0' "continue" "detach"
said "gdb: a walk through the page tables" '^physical 0x.*read-only.*executable'
said "gdb: hardware breakpoint in Linux" 'hit Breakpoint 1,'
said "gdb: watchpoint in Linux" '^New value = 0$'
gdb_on "break *$uname" "continue" "x/1xw $uname" "shell sleep 0.2" "stepi" "shell sleep 0.2" "stepi" "print (long)\$pc - $uname" "continue" "detach"
said "gdb: breakpoint in Linux" 'hit Breakpoint 1,'
said "gdb: interrupts that wait do not divert a step" '^\$1 = 8$'
[ "$(grep -c 'hit Breakpoint 1,' "$T/gdb")" = 2 ] && ok "gdb: goes on from a breakpoint" || not_ok "gdb: goes on from a breakpoint" "once"
echo end >&3
stop
check "gdb: the guest goes on, and powers off" 0 '^2 CPUs'
check "gdb: probes of the guest's own" 0 '^ *p1 +[1-9][0-9]* +0'
exit $failed
