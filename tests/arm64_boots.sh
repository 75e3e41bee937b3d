#!/bin/sh
# arm64_boots.sh: stock kernels boot to a shell, over both transports, with one processor and more.
# kernels: cloud-6.1 cloud-6.12 full-6.1 full-6.12
. tests/cases.sh

bad='BUG:|WARNING: CPU|Call trace|nobody cared|GICv?[23]?.*(error|fail)|ITS.*fail'
boot() { # KERNEL TRANSPORT CPUS
    linux "$1/vmlinuz" "echo up \$(uname -r) \$(nproc) \$(ls -d /sys/class/block/vda); dmesg | grep -v run= | grep -iE '$bad' | sed 's/^/BAD /'" \
        --transport "$2" --cpus "$3" --disk "$T/disk"
    check "$1, $2, $3 CPUs" 0 "^up ${1##*-}\..* $3 /sys/class/block/vda\$"
    if grep '^BAD' "$out" >"$T/bad"; then
        not_ok "$1, $2, $3 CPUs: complaints in its log" "$(head -n 1 "$T/bad")"
    fi
}
head -c 1048576 /dev/zero >"$T/disk"
boot cloud-6.1 pci 1
boot cloud-6.12 mmio 4
boot full-6.1 mmio 1
boot full-6.12 pci 4
exit $failed
