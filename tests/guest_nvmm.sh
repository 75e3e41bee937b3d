#!/bin/sh
# guest_nvmm.sh: stock Linux, SeaBIOS and GRUB on an NVMM that tests/shim_nvmm.c plays on /dev/kvm: hv_nvmm.h with
# hv_x86.h carries out what guests do to devices, in each version of NVMM's interface.
# needs: cloud
# build: vmm-nvmm-shim grub.img firmware
. tests/cases.sh
VMM=$PWD/build/vmm-nvmm-shim
k=$(first_kernel '[cg]*-*')
head -c 1048576 /dev/urandom >"$T/disk"
sum=$(md5sum <"$T/disk" | cut -d ' ' -f 1)
version() { export NVMM_SHIM="version=$*"; }

# As guest_irqchip.sh: the disk from two sides at once, and five seconds of the CMOS clock by the guest's own.
load='for i in 1 2 3 4; do md5sum /dev/vda & md5sum /dev/vda & wait; done'
clock='edge() { read s <$R; t=$s; while [ $t = $s ]; do read t <$R; done; }; R=/sys/class/rtc/rtc0/since_epoch;
    edge; read a x </proc/uptime; sleep 4.8; edge; read b x </proc/uptime; echo seconds $a $b'
both=$(echo "echo online \$(nproc); $load; $clock" | tr '\n' ' ')

# works NAME CPUS OPTION...
works() {
    name=$1 cpus=$2
    shift 2
    linux "$k/vmlinuz" "$both" --cpus "$cpus" --disk "$T/disk,ro" "$@"
    check "$name: boots, all CPUs, powers off" 0 "^online $cpus\$"
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
works "version 3, 4 CPUs" 4
version 2
works "xAPIC, 2 CPUs" 2 --append nox2apic

linux "$k/vmlinuz" 'reboot -f' --transport mmio
check "virtio-mmio, reset" 4
linux "$k/vmlinux" "echo c >/proc/sysrq-trigger" --append panic=0 --timeout 8
check "ELF kernel, timeout ends a guest that is stuck" 124 'sysrq: Trigger a crash'

# frames, by vmm's own switch to nothing but a file of Linux's: a tap
if [ -e /dev/net/tun ] || insmod build/lab/tun.ko 2>/dev/null; then :; fi

for chip in pit pic ioapic lapic; do
    for v in 1 2 3; do
        version $v
        vm --binary build/guests/${chip}64.bin --entry 0x1000 --irqchip user
        check "$chip, property by property, version $v" 0 "^$chip: [0-9]+ properties held"
    done
done
version 3
vm --binary build/guests/triple64.bin --entry 0x1000
check "triple fault" 5 'ended in a triple fault'
vm --binary build/guests/smp64.bin --entry 0x1000 --cpus 4
check "4 CPUs wake each other" 4 '^cpus 4'
vm --binary build/guests/hello16.bin --entry 0x1000 --mode 16
check "real mode" 16 '^hello from 16 bits'
vm --guest build/guest
check "a boot sector by the mini BIOS" 0

version 2 stats
if [ -e build/grub.img ] && [ -e build/firmware/bios-256k.bin ]; then
    vm --bios build/firmware/bios-256k.bin --disk build/grub.img --mem 512M
    check "SeaBIOS boots GRUB, and that Debian" 0 'initramfs is up'
fi
exit $failed
