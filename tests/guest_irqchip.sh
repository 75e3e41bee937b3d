#!/bin/sh
# guest_irqchip.sh: interrupt controllers and timers that are vmm's own, split and whole, as Linux uses them.
# needs: cloud
. tests/cases.sh
k=$(first_kernel '[cg]*-*')
head -c 1048576 /dev/urandom >"$T/disk"
sum=$(md5sum <"$T/disk" | cut -d ' ' -f 1)

# What every guest does: tells its CPUs; reads its disk from two sides at once; measures five seconds of the CMOS
# clock, which is the host's, with its own, asleep for most of them.
load='for i in 1 2 3 4; do md5sum /dev/vda & md5sum /dev/vda & wait; done'
clock='edge() { read s <$R; t=$s; while [ $t = $s ]; do read t <$R; done; }; R=/sys/class/rtc/rtc0/since_epoch;
    edge; read a x </proc/uptime; sleep 4.8; edge; read b x </proc/uptime; echo seconds $a $b'
both=$(echo "echo online \$(nproc); $load; $clock" | tr '\n' ' ')

# works NAME STATUS CPUS KERNEL COMMANDS OPTION...
works() {
    name=$1 status=$2 cpus=$3 kernel=$4 commands=$5
    shift 5
    linux "$kernel/vmlinuz" "$commands" --cpus "$cpus" "$@"
    check "$name: CPUs" "$status" "^online $cpus\$"
    if awk '/^seconds / { d = $3 - $2 } END { exit !(d >= 4.95 && d <= 5.05) }' "$out"; then
        ok "$name: five seconds are five seconds within 1 %"
    else
        not_ok "$name: five seconds are five seconds within 1 %" "$(grep '^seconds' "$out")"
    fi
}
disk() { # NAME: what the disk brought, eight times
    n=$(grep -c "^$sum  /dev/vda" "$out")
    [ "$n" = 8 ] && ok "$1: disk" || not_ok "$1: disk" "$n of 8 reads are right"
}

for chips in split user; do
    for n in 1 2 4; do
        works "$chips, $n CPUs" 0 $n "$k" "$both" --irqchip $chips --disk "$T/disk,ro"
        disk "$chips, $n CPUs"
    done
done
works "user, xAPIC" 0 2 "$k" "$both" --irqchip user --disk "$T/disk,ro" --append nox2apic
disk "user, xAPIC"

# no ACPI: 8259s and PIT, no IOAPIC; no power button and no power off
clock=$(echo "$clock" | tr '\n' ' ')
works "user, no ACPI" 4 1 "$k" "echo online \$(nproc); $clock; reboot -f" --irqchip user --append acpi=off
exit $failed
