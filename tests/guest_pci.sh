#!/bin/sh
# guest_pci.sh: the PCI bus that Linux finds, by ACPI and without.
# needs: cloud full
. tests/cases.sh
k=$(first_kernel '[cg]*-*') full=$(first_kernel 'full-*')

# What the guest prints: the bridge with the bytes of its configuration space, the windows, and every line of the
# kernel's log that complains about PCI or its tables, at any level.
look='cd /sys/bus/pci/devices; echo bridge $(ls | head -n 1) $(cat 0000:00:00.0/class) $(wc -c <0000:00:00.0/config); grep PCI /proc/iomem; dmesg | grep -v Command.line | grep -v command.line | grep -v run= | grep -iE pci.\|mmconf\|mcfg\|_OSC | grep -iE error\|fail\|warn\|bug\]\|can.t\|cannot\|conflict\|not.reserved\|no.config\|invalid\|unable\|broken | sed s/^/complaint:/'

quiet() { # NAME: nothing was complained of
    if grep -q '^complaint:' "$out"; then
        not_ok "$1" "$(grep -m 1 '^complaint:' "$out")"
    else
        ok "$1"
    fi
}

for n in "$k" ${full:+"$full"}; do
    linux "$n/vmlinuz" "$look"
    check "$n: host bridge by ECAM" 0 '^bridge 0000:00:00.0 0x060000 4096$'
    check "$n: window below 4 GiB" 0 '^c0000000-cfffffff : PCI Bus 0000:00$'
    check "$n: window above RAM" 0 '^1000000000-1fffffffff : PCI Bus 0000:00$'
    quiet "$n: no complaint about PCI"
done
linux "$k/vmlinuz" "$look" --mem 6G
check "6 GiB: window above RAM" 0 '^1000000000-1fffffffff : PCI Bus 0000:00$'
if [ -n "$full" ]; then
    linux "$full/vmlinuz" "$look; reboot -f" --no-acpi --cpus 2
    check "host bridge by ports, without ACPI" 4 '^bridge 0000:00:00.0 0x060000 256$'
    quiet "no complaint about PCI without ACPI"
else
    skip "PCI without ACPI" "no kernel that reads an MP table: make deps fetches one"
fi
exit $failed
