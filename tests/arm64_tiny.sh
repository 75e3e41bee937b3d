#!/bin/sh
# arm64_tiny.sh: our own arm64 guests of a few bytes, one property each.
. tests/cases.sh

tiny() { # NAME OPTION...
    guest=build/guests64/$1.bin
    shift
    vm --binary "$guest" --entry 0x40001000 "$@"
}
tiny mmio
check "accesses to devices, every width" 0 '^mmio: every width'
for n in 1 2 8; do
    tiny psci --cpus $n
    check "PSCI, $n CPUs" 0 "^psci: $n CPUs"
done
tiny timer
check "the timer's interrupt, GICv${GIC:-?}" 0 "^timer: in time, GICv${GIC:-}"
tiny odd
check "an access that nobody emulates" 6 'by an instruction that cannot be emulated.* pc 0x40001004$'
grep -Eq '^vmm:   pc=0000000040001004 pstate=000003c5 ' "$out" && grep -q '40001004: b8404420' "$out" &&
    ok "state dump" || not_ok "state dump" "registers or bytes are missing"

for n in 1 8; do
    tiny psci --cpus $n --irqchip user
    check "PSCI, $n CPUs, vmm's own interrupt controller" 0 "^psci: $n CPUs"
done
if [ "${GIC:-}" = 2 ]; then # a GICv3's system registers would still be announced by the lab's KVM
    tiny timer --irqchip user
    check "the timer's interrupt, vmm's own GICv2" 0 "^timer: in time, GICv2"
fi
tiny psci --cpus 9 --irqchip user
check "more CPUs than a GICv2 has" 3 '8 CPUs.*, not 9'
tiny psci --irqchip split
check "--irqchip split is for x86" 3 'give user or kernel'
vm --bios "$PWD/vmm"
check "--bios is for x86" 2 '^vmm: --bios is for x86 machines alone'
vm --kernel "$PWD/vmm" --cpu host,sve=maybe
check "--cpu with a wrong value" 2 '^vmm: --cpu: sve=maybe is unknown: give on or off'
vm --kernel "$PWD/vmm" --cpu host,sve=on # the lab's processor is started without
check "--cpu with a feature that is not there" 3 '^vmm: this host.s KVM has no SVE for guests'
vm --binary build/guests64/psci.bin --entry 0x1000
check "flat code where there is no RAM" 3
vm --kernel build/kernels/x86-vmlinuz
check "a kernel for x86" 3 'x86'
"$VMM" doctor >"$out"
rc=$?
check "doctor" 0 "GICv${GIC:-}"
exit $failed
