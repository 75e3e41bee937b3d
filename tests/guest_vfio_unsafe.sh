#!/bin/sh
# guest_vfio_unsafe.sh: a host whose IOMMU does not remap interrupts: it refuses, says the switch and its risk, and
# works once that is set.
# modules: vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci
# kernel: intel_iommu=on
# devices: -device intel-iommu,intremap=off -device edu
. tests/cases.sh
if [ ! -d /lab ] || [ ! -e /sys/kernel/iommu_groups/0 ]; then
    skip "a host without interrupt remapping" "only in the lab, whose machine can be one"
    exit 0
fi
for m in vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci; do insmod build/lab/$m.ko; done
for d in /sys/bus/pci/devices/*; do
    [ "$(cat "$d/vendor")" != 0x1234 ] || edu=${d##*/}
done
echo vfio-pci >/sys/bus/pci/devices/$edu/driver_override
echo $edu >/sys/bus/pci/drivers_probe
vm --binary build/guests/edu64.bin --entry 0x1000 --vfio $edu
check "no interrupt remapping: the risk, and the switch" 3 'raise any interrupt of the host: .* echo 1 > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts'
echo 1 >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts
vm --binary build/guests/edu64.bin --entry 0x1000 --vfio $edu
check "no interrupt remapping, and that is accepted" 0 '^edu: line, messages and DMA work$'
exit $failed
