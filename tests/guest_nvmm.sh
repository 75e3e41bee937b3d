#!/bin/sh
# guest_nvmm.sh: stock Linux on an NVMM that tests/shim_nvmm.c plays on /dev/kvm: hv_nvmm.h, with
# hv_x86.h for what guests do to devices, in each version of NVMM's interface.
# needs: cloud
# build: vmm-nvmm-shim
# stall: 300
. tests/cases.sh
VMM=$PWD/build/vmm-nvmm-shim
k=$(first_kernel '[cg]*-*')
head -c 1048576 /dev/urandom >"$T/disk"
sum=$(md5sum <"$T/disk" | cut -d ' ' -f 1)
version() { export NVMM_SHIM="version=$*"; }

# As in guest_irqchip.sh: the disk from two sides at once, and five seconds of the CMOS clock by the guest's own.
load='for i in 1 2 3 4; do md5sum /dev/vda & md5sum /dev/vda & wait; done'
clock='edge() { read s <$R; t=$s; while [ $t = $s ]; do read t <$R; done; }; R=/sys/class/rtc/rtc0/since_epoch;
    edge; read a x </proc/uptime; sleep 4.8; edge; read b x </proc/uptime; echo seconds $a $b'
both=$(echo "echo online \$(nproc); $load; $clock" | tr '\n' ' ')

# works NAME CPUS OPTION...: several CPUs are told that their TSCs agree, which Linux believes no AMD processor that does
# not call its TSC invariant, as the lab's: the ACPI timer, at three exits for each look at the clock, takes minutes here.
works() {
    name=$1 cpus=$2
    shift 2
    [ "$cpus" = 1 ] || set -- "$@" --append tsc=reliable
    linux "$k/vmlinuz" "$both" --cpus "$cpus" --disk "$T/disk,ro" "$@"
    check "$name: boots with all CPUs, powers off" 0 "^online $cpus\$"
    if awk '/^seconds / { d = $3 - $2 } END { exit !(d >= 4.95 && d <= 5.05) }' "$out"; then
        ok "$name: five seconds are five seconds within 1 %"
    else
        not_ok "$name: five seconds are five seconds within 1 %" "$(grep '^seconds' "$out")"
    fi
    n=$(grep -c "^$sum  /dev/vda" "$out")
    [ "$n" = 8 ] && ok "$name: disk" || not_ok "$name: disk" "$n of 8 reads are right"
}

version 2
works "version 2, 1 CPU" 1
version 1
works "version 1, 2 CPUs" 2
version 3 vmx
works "version 3, 4 CPUs" 4 --transport mmio
vm --binary build/guests/triple64.bin --entry 0x1000
check "triple fault" 5 'ended in a triple fault'
vm --binary build/guests/hello16.bin --entry 0x1000 --mode 16
check "real mode" 16 '^hello from 16 bits'
exit $failed
