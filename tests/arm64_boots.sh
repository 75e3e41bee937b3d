#!/bin/sh
# arm64_boots.sh: stock kernels boot to a shell, over both transports, with one processor and more.
# kernels: cloud-6.1 cloud-6.12 full-6.1 full-6.12
. tests/cases.sh

bad='BUG:|WARNING: CPU|Call trace|nobody cared|GICv?[23]?.*(error|fail)|ITS.*fail'
boot() { # KERNEL TRANSPORT CPUS OPTION...
    k=$1 transport=$2 cpus=$3
    shift 3
    linux "$k/vmlinuz" "echo up \$(uname -r) \$(nproc) \$(ls -d /sys/class/block/vda); dmesg | grep -v run= | grep -iE '$bad' | sed 's/^/BAD /'" \
        --transport "$transport" --cpus "$cpus" --disk "$T/disk" "$@"
    what="$k, $transport, $cpus CPUs${*:+, $*}"
    check "$what" 0 "^up ${k##*-}\..* $cpus /sys/class/block/vda\$"
    if grep '^BAD' "$out" >"$T/bad"; then
        not_ok "$what: complaints in its log" "$(head -n 1 "$T/bad")"
    fi
}
head -c 1048576 /dev/zero >"$T/disk"
boot cloud-6.1 pci 1
boot cloud-6.12 mmio 4
boot full-6.1 mmio 1
boot full-6.12 pci 4
if [ "${GIC:-3}" = 2 ]; then # else the kernel rightly wonders about a GICv3's registers
    boot cloud-6.1 pci 1 --irqchip user
    boot cloud-6.1 mmio 2 --irqchip user
    boot cloud-6.1 pci 4 --irqchip user --timeout 150 # each interrupt comes out of the kernel twice
fi
exit $failed
