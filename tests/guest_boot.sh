#!/bin/sh
# guest_boot.sh [KERNEL...]: every kernel, or those named, boots to a shell in each of the ways that its file allows.
. tests/cases.sh

[ $# -gt 0 ] || set -- $(kernels '*')
bad='ACPI.*(Error|Warning)|ACPI BIOS|BUG:|WARNING: CPU|Call Trace|unchecked MSR|nobody cared'
for k; do
    up="^up ${k##*-}\."
    linux "$k/vmlinuz" "echo up \$(uname -r); dmesg | grep -v run= | grep -E '$bad' | sed 's/^/BAD /'"
    check "boot $k bzImage" 0 "$up"
    if grep -q '^up' "$out" && ! grep '^BAD' "$out" >"$T/bad"; then
        ok "boot $k without complaints in its log"
    else
        not_ok "boot $k without complaints in its log" "$(head -n 1 "$T/bad")"
    fi
    linux "$k/vmlinux" "echo up \$(uname -r)"
    check "boot $k vmlinux, 64-bit entry" 0 "$up"
    linux "$k/vmlinux,entry=pvh" "echo up \$(uname -r)"
    check "boot $k vmlinux, PVH entry" 0 "$up"
    linux "$k/vmlinuz" "echo up \$(uname -r) with \$(nproc)" --irqchip user --cpus 2 --append nox2apic
    check "boot $k bzImage, vmm's chips, xAPIC, 2 CPUs" 0 "$up.* with 2\$"
done
exit $failed
