#!/bin/sh
# guest_vfio.sh: devices of the host in guests, behind an emulated IOMMU: NVMe with its MSI-X table among its registers
# and in a BAR of its own, two virtual functions, a network card, one that interrupts by a line, and that beside one
# whose memory it reaches.
# needs: cloud
# modules: iommufd vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci
# stall: 400
# drives: 3
# kernel: intel_iommu=on iommu=pt
# devices: -device intel-iommu,intremap=on -device edu,dma_mask=0xffffffffffffffff
# devices: -object memory-backend-ram,id=shm,size=1M,share=on -device ivshmem-plain,memdev=shm
# devices: -device pcie-root-port,id=rp1,chassis=1,slot=1 -device nvme,serial=shared,drive=drive0,bus=rp1
# devices: -device pcie-root-port,id=rp2,chassis=2,slot=2
# devices: -device nvme,serial=own,drive=drive1,bus=rp2,msix-exclusive-bar=on,msix_qsize=2048
# devices: -device pcie-root-port,id=rp3,chassis=3,slot=3 -device nvme-subsys,id=sub
# devices: -device nvme,serial=pf,subsys=sub,bus=rp3,sriov_max_vfs=2,sriov_vq_flexible=4,sriov_vi_flexible=2,max_ioqpairs=6,msix_qsize=5
# devices: -device nvme-ns,drive=drive2,shared=on
# devices: -device pcie-root-port,id=rp4,chassis=4,slot=4 -netdev user,id=net,restrict=on,guestfwd=tcp:10.0.2.100:7-cmd:cat
# devices: -device virtio-net-pci,netdev=net,bus=rp4,iommu_platform=on,disable-legacy=on
. tests/cases.sh
if [ ! -d /lab ] || [ ! -e /sys/kernel/iommu_groups/0 ]; then
    skip "devices of the host" "only in the lab, whose machine has some to give away"
    exit 0
fi
k=$(first_kernel '[cg]*-*')
cat "build/initramfs-$k.cpio" build/tools.cpio >"$T/initrd"
(cd "$T" && cpio -idu) <build/tools.cpio 2>/dev/null
for m in iommufd vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core; do
    [ ! -e build/lab/$m.ko ] || insmod build/lab/$m.ko # newer kernels have some, and not others
done
pci=/sys/bus/pci edu= shm=
for d in $pci/devices/*; do
    case $(cat "$d/vendor" "$d/device") in
    0x1234*) edu=${d##*/} ;;
    *0x1110) shm=${d##*/} ;;
    esac
done
shared=0000:01:00.0 own=0000:02:00.0 pf=0000:03:00.0 vf1=0000:03:00.1 vf2=0000:03:00.2 net=0000:04:00.0

# give DEVICE: as vmm's own sentence says it is done; take DEVICE DRIVER: back
give() {
    echo vfio-pci >$pci/devices/$1/driver_override
    [ ! -e $pci/devices/$1/driver ] || echo $1 >$pci/devices/$1/driver/unbind
    echo $1 >$pci/drivers_probe
}
take() {
    echo $1 >$pci/devices/$1/driver/unbind
    echo $2 >$pci/devices/$1/driver_override
    echo $1 >$pci/drivers_probe
}
node() { # DEVICE: the host's name of its namespace, once it is there
    until set -- $1 $pci/devices/$1/nvme/nvme*/nvme*n1 && [ -e "$2" ]; do sleep 0.1; done
    echo "${2##*/}" | sed 's/c[0-9]*n/n/'
}
guest() { # COMMANDS OPTION...
    commands=$1
    shift
    linux "$k/vmlinuz" "$commands" --initrd "$T/initrd" --mem 256M "$@"
}
boot() { # the same in the background, with standard input
    commands=$1
    shift
    start --kernel "build/kernels/$k/vmlinuz" --initrd "$T/initrd" --mem 256M --append "run=\"$commands\"" "$@"
}
load() { echo "ioload /dev/nvme0n1 $1 block=65536 span=16777216 $2"; }
irqs="grep nvme0q /proc/interrupts | tr -s ' '"

vm --binary build/guests/edu64.bin --entry 0x1000 --vfio $edu
check "no vfio-pci yet: one sentence" 3 "$edu has no driver: modprobe vfio-pci; echo vfio-pci >"
insmod build/lab/vfio-pci.ko
vm --binary build/guests/edu64.bin --entry 0x1000 --vfio $shared
check "still the host's: the commands that bind it" 3 "$shared is still the host's, by its driver nvme: echo vfio-pci > .*driver_override; echo"
give $edu
rc=0
"$VMM" doctor --vfio >"$out" || rc=$?
check "doctor: what could be passed" 0 "^fine  $edu   1234:11e8, class 00ff00, driver vfio-pci"
check "doctor: what not, and why" 0 "^less  $shared   .* by its driver nvme: echo vfio-pci"
for n in first second; do
    vm --binary build/guests/edu64.bin --entry 0x1000 --vfio $edu
    check "line, MSI and DMA, the $n time" 0 '^edu: line, messages and DMA work$'
done
give $shm
vm --binary build/guests/edu64.bin --entry 0x1000 --vfio $edu --vfio $shm
check "two devices: DMA from one to the other, where that is and where it is moved" 0 '^edu: DMA from and to its neighbour works$'

# Without privileges: the device's group and enough locked memory are all it takes.
user() {
    rc=0
    (ulimit -l $1 && exec start-stop-daemon -S -c user -x "$VMM" -- --timeout 60 --mem 32M \
        --binary build/guests/edu64.bin --entry 0x1000 --vfio $edu) </dev/null >"$out" 2>&1 || rc=$?
}
mkdir -p /etc
echo 'user:x:1000:1000::/:/bin/sh' >/etc/passwd
chmod 666 /dev/kvm
group=/dev/vfio/$(basename "$(readlink $pci/devices/$edu/iommu_group)")
user 65536
check "no permission: one sentence" 3 "no permission to open $group, the group of $edu: run as root, or 'chown USER"
chown 1000 "$group" && chmod 666 /dev/vfio/vfio
user 1024
check "too little lockable memory: how much it takes" 3 'all 32 MiB of guest RAM locked, and the limit is 1024 KiB: ulimit -l 32768'
user 65536
check "without privileges" 0 '^edu: line, messages and DMA work$'

# A life that ends by a reset, one that is killed, and the next ones find what was promised.
works() { # NAME DEVICE
    give $2
    guest "$(load write); $(load read verify); $irqs; reboot -f" --vfio $2
    check "$1: written, read back" 4 '^requests=256 .* errors=0 wrong=0 '
    n=$(sed -n 's/^ *[0-9]*: \([0-9]*\) .*nvme0q1.*/\1/p' "$out")
    [ "${n:-0}" -ge 512 ] && ok "$1: an interrupt for each request" || not_ok "$1: an interrupt for each request" "${n:-none}"
}
idle() { # NAME DEVICE: that nobody uses any more may not write to memory
    [ $(($(od -An -tu1 -j 4 -N 1 $pci/devices/$2/config) & 4)) = 0 ] && ok "$1: silenced by the kill" ||
        not_ok "$1: silenced by the kill" "it is a master of the bus"
}
lives() { # NAME DEVICE
    boot "$(load read verify); echo READY; while :; do $(load randwrite seed=1); done" --vfio $2
    await '^READY' || :
    echo $2 >$pci/drivers/vfio-pci/unbind &
    await 'wants .* back' || :
    kill -9 $pid
    stop
    idle "$1" $2
    check "$1: found after the reset" 137 '^requests=256 .* errors=0 wrong=0 '
    check "$1: somebody else who wants it is not ignored" 137 "vmm: the host wants $2 back, and waits: power the guest off"
    wait # for who wanted it
    give $2
    guest "$(load read verify)" --vfio $2
    check "$1: found after a kill" 0 '^requests=256 .* errors=0 wrong=0 '
}
returns() { # NAME DEVICE
    take $2 nvme
    rc=0
    "$T/bin/ioload" /dev/"$(node $2)" read block=65536 span=16777216 verify >"$out" 2>&1 || rc=$?
    check "$1: the host has it back" 0 '^requests=256 .* errors=0 wrong=0 '
}
works "NVMe, table among registers" $shared
lives "NVMe, table among registers" $shared
returns "NVMe, table among registers" $shared
works "NVMe, table in its own BAR" $own
guest "od -An -tx2 -j 66 -N 2 /sys/class/nvme/nvme0/device/config" --vfio $own
check "NVMe, table in its own BAR: 2048 vectors" 0 '^ *87ff$'
lives "NVMe, table in its own BAR" $own
returns "NVMe, table in its own BAR" $own

# Virtual functions get queues and interrupts from the physical one ("NVM Express Base Specification", 5.28), of whose
# namespace all have a part.
functions() {
    c=/dev/$(ls $pci/devices/$pf/nvme)
    "$T/bin/nvmevf" "$c" 0 1 1 0 && "$T/bin/nvmevf" "$c" 0 0 1 0
    echo 1 >$pci/devices/$pf/reset
    echo 0 >$pci/devices/$pf/sriov_drivers_autoprobe
    echo 2 >$pci/devices/$pf/sriov_numvfs
    for i in 1 2; do
        "$T/bin/nvmevf" "$c" $i 1 8 1 && "$T/bin/nvmevf" "$c" $i 0 8 2 && "$T/bin/nvmevf" "$c" $i 0 9 0
    done
    disk=/dev/$(node $pf)
}
functions
echo nvme >$pci/devices/$vf2/driver_override
echo $vf2 >$pci/drivers_probe
works "a virtual function in the guest, another the host's" $vf1
rc=0
"$T/bin/ioload" "$disk" read block=65536 span=16777216 verify >"$out" 2>&1 || rc=$?
check "... and read by the host" 0 '^requests=256 .* errors=0 wrong=0 '
take $vf2 vfio-pci
boot "$(load read verify); echo READY; read go; $(load read verify); echo AGAIN; while :; do $(load randwrite seed=1); done" --vfio $vf2
await '^READY' || :
mv "$T/raw" "$T/other" # whose it is goes on writing there
guest "$(load read verify)" --vfio $vf1
check "one in each of two guests: this one reads" 0 '^requests=256 .* errors=0 wrong=0 '
vm --binary build/guests/edu64.bin --entry 0x1000 --vfio $vf2
check "what another guest has: one sentence" 3 "$vf2 is in use: end the program that has"
mv "$T/other" "$T/raw"
echo >&3
await '^AGAIN' || :
kill -9 $pid
stop
n=$(sed '/^AGAIN/q' "$out" | grep -c '^requests=256 .* errors=0 wrong=0 ')
[ "$rc $n" = '137 2' ] && ok "... and that one, before and after" || not_ok "... and that one, before and after" "status $rc, $n times"
idle "a virtual function" $vf2
guest "$(load read verify)" --vfio $vf2
check "a virtual function: found after a kill" 0 '^requests=256 .* errors=0 wrong=0 '

# What is sent to port 7 of 10.0.2.100 comes back.
give $net
up='ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ping -c 1 10.0.2.2'
echoes='head -c 1000000 /dev/urandom >/tmp/r; nc 10.0.2.100 7 </tmp/r >/tmp/s; cmp /tmp/r /tmp/s && echo the same $(wc -c </tmp/s)'
guest "$up; $echoes; grep virtio1 /proc/interrupts; reboot -f" --vfio $net --vfio $edu
check "network card, and a second device beside it: what it sends comes back" 4 '^the same 1000000$'
check "network card: it interrupts" 4 '[1-9][0-9]* +PCI-MSI .*virtio1-input'
boot "$up; echo READY; ping -A 10.0.2.2 >/dev/null; sleep 60" --vfio $net --vfio $edu
await '^READY' || :
kill -9 $pid
stop
idle "network card" $net
guest "$up; $echoes" --vfio $net
check "network card: found after a reset and a kill" 0 '^the same 1000000$'
vm --binary build/guests/edu64.bin --entry 0x1000 --vfio $edu
check "line, MSI and DMA: found after a reset and a kill" 0 '^edu: line, messages and DMA work$'
exit $failed
