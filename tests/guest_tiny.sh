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

for n in 1 2 4; do
    vm $(options smp64 | sed "s/--cpus N/--cpus $n/")
    check "$n CPUs wake each other" $n "^cpus $n"
done

{ echo first line of the disk; head -c 1048576 /dev/zero; } | head -c 1048576 >"$T/disk"
tiny virtio64 --transport mmio
check "virtio random numbers" 0 '^rng: 16 bytes'
tiny virtio64 --disk "$T/disk" --transport mmio
check "virtio disk" 0 '^disk: first line of the disk'
lied='^[0-9]+ devices, [0-9]+ lies, all survived'
tiny liar64 --transport mmio
check "lying driver" 0 "$lied"
tiny liar64 --transport mmio --disk "$T/disk"
check "lying driver, with a disk" 0 "$lied"
tiny liar64 --transport mmio --disk "$T/disk,ro" --console virtio --serial "file:$T/serial"
cat "$T/serial" >>"$out"
check "lying driver, with a read-only disk and a console" 0 "$lied"

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
for s in HUP=129 INT=130 TERM=143; do
    start $(options hang64) --timeout 60
    await '^hanging' && kill -s "${s%=*}" "$pid" && sleep 1 && kill -s "${s%=*}" "$pid" 2>/dev/null
    stop
    check "SIG${s%=*} twice" "${s#*=}"
done

# keeps going when nobody reads and nothing can be typed
rc=0
"$VMM" $(options hello64) <&- >/dev/full 2>"$T/raw" || rc=$?
tr -d '\r' <"$T/raw" >"$out"
check "standard output full, standard input closed" 64
exit $failed
