#!/bin/sh
# guest_irqchip.sh: interrupt controllers and timers that are vmm's own, split and whole, as Linux uses them.
# needs: cloud
# modules: tun
# stall: 200
. tests/cases.sh
k=$(first_kernel '[cg]*-*')
random_disk

for chips in split user; do
    for n in 1 2 4; do
        works "$chips, $n CPUs" 0 $n 5 "$both" --irqchip $chips --disk "$T/disk,ro"
        has_read "$chips, $n CPUs"
    done
done
works "user, xAPIC" 0 2 5 "$both" --irqchip user --disk "$T/disk,ro" --append nox2apic
has_read "user, xAPIC"

# Half a minute, by every clock: the one that Linux prefers, and what is left when it may not have that or the chips.
# Kernels without IOAPIC or LAPIC keep to the 8259s, ACPI's interrupt and the disk's among theirs.
for chips in split user; do
    works "$chips, half a minute" 0 1 30 "echo online \$(nproc); $(clock 30)" --irqchip $chips
done
for a in noapic nolapic notsc clocksource=acpi_pm; do
    works "user, $a" 0 1 30 "echo online \$(nproc); cat /sys/devices/system/clocksource/clocksource0/current_clocksource; $load; $(clock 30)" \
        --irqchip user --disk "$T/disk,ro" --append $a
    has_read "user, $a"
done
check "user, clocksource=acpi_pm: that is its clock" 0 '^acpi_pm$'

# Disk and network at the same time, every byte compared: an interrupt that is lost is a request that never ends.
traffic='ip addr add 10.99.0.2/24 dev eth0; ip link set eth0 up; ioload /dev/vda write depth=32; echo WRITTEN;
    until ping -c 1 -W 1 10.99.0.1 >/dev/null; do sleep 0.1; done;
    ioload /dev/vda randread depth=16 verify & ioload /dev/vda randread requests=1024 verify &
    netload send 10.99.0.1 5077 16 check & netload receive 10.99.0.1 5077 16 check; wait'
traffic=$(echo "$traffic" | tr '\n' ' ')
tap() { # CHIPS
    cat "build/initramfs-$k.cpio" build/tools.cpio >"$T/initrd"
    truncate -s 16M "$T/scratch"
    start --kernel "build/kernels/$k/vmlinuz" --initrd "$T/initrd" --cpus 2 --irqchip $1 --net tap=vmmt0 --disk "$T/scratch" \
        --append "run=\"$traffic\""
    until [ -e /sys/class/net/vmmt0 ] || ! kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    ip addr add 10.99.0.1/24 dev vmmt0 && ip link set vmmt0 up || echo "# $1: the tap cannot be set up"
    stop
    check "$1, disk and network: all ends" 0 '^WRITTEN'
    n=$(grep -cE '^requests=(1024|4096) .*errors=0 wrong=0 |^bytes=16777216 errors=0 ' "$out")
    [ "$n" = 5 ] && ok "$1, disk and network: every byte is right" ||
        not_ok "$1, disk and network: every byte is right" "$n of 5 loads"
}
[ ! -e build/lab/tun.ko ] || insmod build/lab/tun.ko || :
if [ -e /dev/net/tun ] && [ "$(id -u)" = 0 ]; then
    (cd "$T" && cpio -idu) <build/tools.cpio 2>/dev/null
    ip link set lo up
    "$T/bin/netload" serve 5077 &
    server=$!
    trap 'kill $server 2>/dev/null; rm -rf "$T"' EXIT
    tap split
    tap user
else
    skip "disk and network" "no /dev/net/tun, or not root"
fi

# an idle guest costs no CPU: less than 0.5 % in ten seconds
cpu_ns() { cat "/proc/$pid/task/"*/schedstat | awk '{ ns += $1 } END { printf "%.0f", ns }'; }
for chips in kernel user; do
    start --kernel "build/kernels/$k/vmlinuz" --initrd "build/initramfs-$k.cpio" --irqchip $chips \
        --append 'quiet run="echo READY; sleep 25"'
    await '^READY' && sleep 3 && ns=$(cpu_ns) && sleep 10 && ns=$(($(cpu_ns) - ns)) || ns=
    stop
    echo "# $chips: an idle guest cost ${ns:-no} ns in ten seconds"
    [ "$rc" = 0 ] && [ -n "$ns" ] && [ "$ns" -lt 50000000 ] && ok "$chips: an idle guest costs no CPU" ||
        not_ok "$chips: an idle guest costs no CPU" "${ns:-no} ns in ten seconds, exit status $rc"
done

# each chip, property by property; of KVM's own what KVM does as the data sheets say
for chips in kernel split user; do
    for chip in pit pic ioapic lapic; do
        vm --binary build/guests/${chip}64.bin --entry 0x1000 --irqchip $chips
        check "$chip, property by property, --irqchip $chips" 0 "^$chip: [0-9]+ properties held"
    done
done

# no ACPI: 8259s and PIT, no IOAPIC; no power button and no power off
works "user, no ACPI" 4 1 5 "echo online \$(nproc); $(clock 5); reboot -f" --irqchip user --append acpi=off
exit $failed
