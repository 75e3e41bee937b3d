#!/bin/sh
# arm64_vfio.sh: a device of the host in arm64 guests, behind an emulated SMMU: NVMe, whose messages go through the ITS.
# kernels: cloud-6.1
# modules: vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci
# drives: 1
# devices: -machine iommu=smmuv3 -device pcie-root-port,id=rp1,chassis=1,slot=1 -device nvme,serial=one,drive=drive0,bus=rp1
. tests/cases.sh
k=cloud-6.1 dev=0000:01:00.0 pci=/sys/bus/pci
for m in vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci; do insmod build/lab/$m.ko; done
give() { # DRIVER
    echo $1 >$pci/devices/$dev/driver_override
    echo $dev >$pci/devices/$dev/driver/unbind
    echo $dev >$pci/drivers_probe
}
copy='dd bs=64k iflag=fullblock' sum='dd if=/dev/nvme0n1 bs=64k count=64 iflag=direct 2>/dev/null | md5sum'
is() { # NAME STATUS: the same was read
    check "$1" $2 "^$was"
}

vm --kernel build/kernels/$k/vmlinuz --vfio $dev
check "still the host's: the commands that bind it" 3 "$dev is still the host's, by its driver nvme: echo vfio-pci >"
give vfio-pci
linux $k/vmlinuz "$copy count=64 if=/dev/urandom of=/tmp/r; $copy if=/tmp/r of=/dev/nvme0n1 oflag=direct; echo wrote; md5sum </tmp/r; $sum; grep nvme0q1 /proc/interrupts; reboot -f" --vfio $dev
was=$(grep -A 1 '^wrote' "$out" | sed -n 2p)
[ "$(grep -c "^${was:-nothing}" "$out")" = 2 ] && ok "NVMe: written, read back" || not_ok "NVMe: written, read back" "status $rc"
check "NVMe: it interrupts, by the ITS" 4 ':  *[1-9][0-9]+  *ITS-MSI .*nvme0q1'
start --kernel build/kernels/$k/vmlinuz --initrd build/initramfs-$k.cpio --vfio $dev \
    --append "run=\"$sum; echo READY; while :; do $copy count=64 seek=512 if=/dev/zero of=/dev/nvme0n1 oflag=direct; done\""
await '^READY' || :
kill -9 $pid
stop
is "NVMe: found after the reset" 137
[ $(($(od -An -tu1 -j 4 -N 1 $pci/devices/$dev/config) & 4)) = 0 ] && ok "NVMe: silenced by a kill" || not_ok "NVMe: silenced by a kill" "it is a master of the bus"
linux $k/vmlinuz "$sum; grep nvme0q0 /proc/interrupts" --vfio $dev --append pci=nomsi
is "NVMe: found after a kill, and by its line" 0
check "NVMe: it interrupts, by its line" 0 ':  *[1-9][0-9]+  *GICv3 .*Level .*nvme0q0'
give nvme
until [ -e /dev/nvme0n1 ]; do sleep 0.1; done
rc=0
sh -c "$sum" >"$out"
is "NVMe: the host has it back" 0
exit $failed
