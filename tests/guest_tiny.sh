#!/bin/sh
# guest_tiny.sh: our own guests of a few bytes, one property each, on any /dev/kvm.
. tests/cases.sh

# options NAME: those that the first comment of the guest's source gives, without the ones it calls [optional]
options() {
    first=$(head -n 1 guests/"$1".[Sc])
    echo "$first" | sed -e 's/.*\* vmm //' -e 's/;.*//' -e 's/\[[^]]*\]//g' -e 's|--binary |--binary build/guests/|'
}
tiny() { # NAME OPTION...: see vm
    guest=$1
    shift
    vm $(options "$guest") "$@"
}

for bits in 16 32 64; do
    tiny hello$bits
    check "$bits-bit guest" $bits "^hello from $bits bits"
done
check "debug port" 64 '^hello, debugger'
tiny hello64 --serial null
[ "$rc" = 64 ] && ! grep -q 'from 64' "$out" && ok "serial port to nowhere" || not_ok "serial port to nowhere" "exit status $rc"
tiny hello64 --serial "file:$T/serial"
[ "$rc" = 64 ] && grep -q '^hello from 64 bits' "$T/serial" && ok "serial port to a file" || not_ok "serial port to a file" "exit status $rc"

tiny hello64 --serial null --trace "io,exit:$T/trace"
n=$(grep -Ec '^[0-9]+\.[0-9]{6} cpu0 port write 0x3f8/1 [0-9a-f]{2}$' "$T/trace") m=$(grep -c 'cpu0 exit port$' "$T/trace")
[ "$rc $n" = "64 19" ] && [ "$m" -gt 19 ] && ok "a trace has every byte" || not_ok "a trace has every byte" "$n bytes, $m exits"
vm $(options irq64 | sed "s/--cpus N/--cpus 1/") --irqchip user --trace irq
check "a trace of interrupts" "$rc" ' cpu0 takes 0x20$'

for n in 1 2 4; do
    vm $(options smp64 | sed "s/--cpus N/--cpus $n/")
    check "$n CPUs wake each other" $n "^cpus $n"
done

for chips in kernel split user; do
    for n in 1 2 4; do
        vm $(options irq64 | sed "s/--cpus N/--cpus $n/") --irqchip $chips
        check "interrupts, $n CPUs, --irqchip $chips" 0 '^interrupts: all came'
    done
done

for chips in kernel user; do
    tiny rtc64 --irqchip $chips
    check "clock interrupts, --irqchip $chips" 0 '^clock: all interrupts came, in time'
    tiny kbc64 --irqchip $chips
    check "keyboard and mouse, --irqchip $chips" 0 '^keyboard and mouse: all there'
done

# each chip of vmm's own by itself; KVM's, for comparison, in guest_irqchip.sh
for chip in pit pic ioapic lapic; do
    tiny ${chip}64 --irqchip user
    check "$chip, property by property" 0 "^$chip: [0-9]+ properties held"
done
for chip in pit pic; do
    tiny ${chip}64 --irqchip split
    check "$chip, property by property, --irqchip split" 0 "^$chip: [0-9]+ properties held"
done
for n in 1 2 4; do
    vm $(options ipi64 | sed "s/--cpus N/--cpus $n/") --irqchip user
    check "IPIs of every kind, $n CPUs" 0 '^ipi: [0-9]+ properties held'
    vm $(options stress64 | sed "s/--cpus N/--cpus $n/") --irqchip user
    check "interrupts race with HLT, flags and priorities, $n CPUs" 0 '^stress: no wake-up lost'
done

{ echo first line of the disk; head -c 1048576 /dev/zero; } | head -c 1048576 >"$T/disk"
# The peak of the resident memory of what start started, in KiB; nothing once it has ended.
peak() { sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status" 2>/dev/null; }

lied='^[0-9]+ devices, [0-9]+ lies, all survived'
for t in mmio pci; do
    tiny virtio64 --transport $t
    check "virtio random numbers, $t" 0 '^rng: 16 bytes'
    check "virtio random numbers, packed rings, $t" 0 '^rng, packed: 16 bytes'
    tiny virtio64 --transport $t --disk "$T/disk"
    check "virtio disk, $t" 0 '^disk: first line of the disk'
    tiny liar64 --transport $t --disk "$T/disk"
    check "lying driver, with a disk, $t" 0 "$lied"
    tiny liar64 --transport $t --disk "$T/disk,ro" --console virtio --serial "file:$T/serial"
    cat "$T/serial" >>"$out"
    check "lying driver, with a read-only disk and a console, $t" 0 "$lied"

    # three times the same lies: what the second and third time costs in memory is a leak
    start $(options liar64) --transport $t --disk "$T/disk"
    await '^pass 1' && first=$(peak) || first=
    last=$first
    while now=$(peak) && [ -n "$now" ]; do
        last=$now
        sleep 0.1
    done
    stop
    check "lying driver again and again, $t" 0 "$lied"
    [ -n "$first" ] && [ "$last" -le "$((first + 256))" ] && ok "lies cost no memory, $t" ||
        not_ok "lies cost no memory, $t" "peak of $first KiB after the first pass, $last KiB at the end"
done

# real mode, by the mini BIOS
typed() { # TEXT OPTION...: types it once the guest says that it echoes, then q
    text=$1
    shift
    start "$@"
    await 'keys are echoed' && printf "$text" >&3 && sleep 1 && printf q >&3
    stop
}
for bios in '' '--bios build/minibios'; do
    for chips in kernel user; do
        typed 'ab\rC!' --guest build/guest $bios --irqchip $chips
        check "boot sector, keys, power off, ${bios:-built in}, --irqchip $chips" 0 '^hello from a boot sector, drive 80$'
        grep -q '^ab$' "$out" && grep -q '^C!' "$out" && ok "its keys" || not_ok "its keys" "what was typed is not echoed"
    done
done
{ cat build/guest; head -c 1474048 /dev/zero; } >"$T/floppy"
typed x --guest "$T/floppy"
check "diskette" 0 'drive 00$'
cp build/guests/disk.img "$T/boot"
vm --guest "$T/boot"
check "disk by INT 13h" 5 '^read by packet'
grep -q '^read by cylinder, head and sector$' "$out" &&
    dd if="$T/boot" bs=512 skip=3 count=1 2>/dev/null | grep -q 'read by packet' &&
    ok "disk written by INT 13h" || not_ok "disk written by INT 13h" "sector 4 is not sector 3"
vm --guest build/guests/disk.img,ro
check "read-only disk" 1 '^the BIOS refused'
vm --guest build/guests/disk.img,overlay
check "overlay disk" 5 '^read by packet'
vm --guest build/guests/pmode.img --mem 64M
check "memory map, protected mode" 32 '^00000000 00100000 00000000 03F00000 00000001'
vm --guest build/guests/hello64.bin
check "no boot sector" 3

tiny off64
check "power off" 0
tiny reset64
check "reset by the keyboard controller" 4
tiny triple64
check "triple fault" 5 'riple fault'
tiny badinsn64
check "hypervisor gives up" 6
tiny hang64
check "timeout of a busy guest" 124 '^hanging'
tiny halt64
check "timeout of a halted guest" 124

# a guest that does not listen to its power button: the second signal ends it
for s in INT=130 TERM=143; do
    start $(options hang64) --timeout 60
    await '^hanging' && kill -s "${s%=*}" "$pid" && sleep 1 && kill -s "${s%=*}" "$pid" 2>/dev/null
    stop
    check "SIG${s%=*} twice" "${s#*=}"
done

# asked for its state, it goes on
start $(options hang64) --timeout 60 --cpus 2 --irqchip user
await '^hanging' && kill -s QUIT "$pid" && sleep 1 && kill -s HUP "$pid" && sleep 1 && kill "$pid"
stop
n=$(grep -c '^vmm: CPU [01] of 2' "$out") m=$(grep -c 'eb fe  *jmp 0x1015$' "$out")
[ "$rc $n $m" = "143 4 2" ] && ok "state of all CPUs, twice" || not_ok "state of all CPUs, twice" "exit status $rc, $n CPUs, $m jumps"

# gdb, with what the least of KVMs knows
if ! command -v gdb >/dev/null; then
    skip "gdb" "there is none here, run make deps"
elif [ -d /lab ]; then
    skip "gdb" "QEMU does not intercept INT3 in the lab; guest_gdb.sh has what works there"
else
    start $(options hello64) --gdb "unix:$T/s"
    gdb_on 'hbreak *0x1012' 'continue' 'x/i $pc' 'stepi' 'set $rdx = 0x80' 'info registers rdx' 'print $mxcsr' 'continue'
    said "gdb: hardware breakpoint" '^Breakpoint 1, 0x0*1012'
    said "gdb: disassembles 64-bit code" '^=> 0x1012:.call +0x1034'
    said "gdb: single step" '^0x0*1034 in'
    said "gdb: sets a register" '^rdx +0x80'
    said "gdb: learns how it ended" 'exited with code 0100'
    stop
    check "gdb: the guest ends as ever" 64
    ! grep -q 'from 64' "$out" && ok "gdb: the register counts" || not_ok "gdb: the register counts" "COM1 got the text"

    start $(options hello64) --gdb "unix:$T/s"
    gdb_on 'break *0x1012' 'continue' 'x/i $pc' 'kill'
    said "gdb: breakpoint in memory" '^Breakpoint 1, 0x0*1012'
    said "gdb: it is not to be seen in there" '^=> 0x1012:.call +0x1034'
    stop
    # a kernel that was written for GRUB: it shows its invaders in text memory
    if [ -e build/multiboot/invaders ]; then
        start --kernel build/multiboot/invaders --gdb "unix:$T/s,nowait"
        for i in 1 2 3 4 5 6 7 8 9 10; do
            sleep 1
            gdb_on "dump binary memory $T/screen 0xb8000 0xb8fa0" detach
            n=$(tr -cd '*' <"$T/screen" | wc -c)
            [ "$n" -lt 10 ] || break
        done
        kill "$pid" # the power button, to which it does not listen
        sleep 1
        kill "$pid"
        stop
        [ "$n" -ge 10 ] && ok "GRUB Invaders, by multiboot: they come" ||
            not_ok "GRUB Invaders, by multiboot: they come" "$n of them on the screen"
    else
        skip "GRUB Invaders" "no package grub-invaders: make deps"
    fi

    start $(options hello16) --gdb "unix:$T/s"
    gdb_on 'x/2i $pc' 'hbreak *0x1004' 'continue' 'kill'
    said "gdb: disassembles 16-bit code" '^=> 0x1000:.xor +%ax,%ax'
    said "gdb: breakpoint in real mode" '^Breakpoint 1, 0x0*1004'
    stop
    check "gdb: kill" 137

    start $(options smp64 | sed 's/--cpus N/--cpus 3/') --gdb "unix:$T/s"
    gdb_on 'hbreak *0x8000' 'continue' 'info threads' 'delete' 'detach'
    said "gdb: breakpoint on any CPU" '^Thread [23] "vcpu[12]" hit Breakpoint 1, 0x0*8000'
    said "gdb: all stop" '^ *1 .*vcpu0'
    stop
    check "gdb: 3 CPUs go on" 3 '^cpus 3'

    start $(options triple64) --gdb "unix:$T/s"
    gdb_on 'continue' 'print/x $pc' 'continue'
    said "gdb: sees a triple fault" 'received signal SIGSEGV'
    said "gdb: learns of the end" 'exited with code 05'
    stop
    check "gdb: a triple fault ends the guest" 5

    start $(options hang64) --timeout 60 --cpus 2 --gdb "unix:$T/s,nowait"
    await '^hanging'
    ctrl_c=2
    gdb_on 'continue' 'x/i $pc' 'detach'
    ctrl_c=
    said "gdb: Ctrl-C" 'received signal SIGINT'
    said "gdb: where a busy guest was" '^=> 0x1015:.jmp +0x1015'
    gdb_on 'print/x $pc' 'detach'
    said "gdb: comes and goes" 'detached'
    kill "$pid"
    stop
    check "gdb: SIGTERM after it has gone" 143

    for chips in kernel user; do
        start $(options halt64) --gdb "unix:$T/s,nowait" --cpus 2 --irqchip $chips --timeout 20
        sleep 0.3
        gdb_on 'info threads' 'kill'
        said "gdb: CPUs that halt or wait, --irqchip $chips" '^ *2 .*vcpu1'
        stop
        check "gdb: kill, --irqchip $chips" 137
    done
fi

# keeps going when nobody reads and nothing can be typed
rc=0
"$VMM" $(options hello64) <&- >/dev/full 2>"$T/raw" || rc=$?
tr -d '\r' <"$T/raw" >"$out"
check "standard output full, standard input closed" 64
exit $failed
