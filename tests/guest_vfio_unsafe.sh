#!/bin/sh
# guest_vfio_unsafe.sh: a host whose IOMMU does not remap interrupts: it refuses, says the switch and its risk, and
# works once that is set.
# needs: cloud
# drives: 1
# modules: iommufd vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci
# kernel: intel_iommu=on
# devices: -device intel-iommu,intremap=off -device edu
# devices: -device pcie-root-port,id=rp1,chassis=1,slot=1 -device nvme,serial=one,drive=drive0,bus=rp1
. tests/cases.sh
if [ ! -d /lab ] || [ ! -e /sys/kernel/iommu_groups/0 ]; then
    skip "a host without interrupt remapping" "only in the lab, whose machine can be one"
    exit 0
fi
for m in iommufd vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci; do
    [ ! -e build/lab/$m.ko ] || insmod build/lab/$m.ko
done
for d in /sys/bus/pci/devices/*; do
    [ "$(cat "$d/vendor")" != 0x1234 ] || edu=${d##*/}
done
k=$(first_kernel '[cg]*-*') nvme=0000:01:00.0
cat "build/initramfs-$k.cpio" build/tools.cpio >"$T/initrd"
echo $nvme >/sys/bus/pci/devices/$nvme/driver/unbind
for d in $edu $nvme; do
    echo vfio-pci >/sys/bus/pci/devices/$d/driver_override
    echo $d >/sys/bus/pci/drivers_probe
done
vm --binary build/guests/edu64.bin --entry 0x1000 --vfio $edu
check "no interrupt remapping: the risk, and the switch" 3 'raise any interrupt of the host: .* echo 1 > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts'
echo 1 >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts
vm --binary build/guests/edu64.bin --entry 0x1000 --vfio $edu
check "no interrupt remapping, and that is accepted" 0 '^edu: line, messages and DMA work$'
load='block=65536 span=16777216'
linux "$k/vmlinuz" "ioload /dev/nvme0n1 write $load; ioload /dev/nvme0n1 read $load verify; reboot -f" --initrd "$T/initrd" --mem 256M --vfio $nvme
check "... by NVMe, too" 4 '^requests=256 .* errors=0 wrong=0 '
exit $failed
