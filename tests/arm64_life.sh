#!/bin/sh
# arm64_life.sh: how arm64 Linux guests begin and end; their disk, network, clock, power button, device tree.
# kernels: cloud-6.1 full-6.1
. tests/cases.sh
k=cloud-6.1

linux $k/vmlinuz 'poweroff -f'
check "power off" 0
linux $k/vmlinuz 'echo c >/proc/sysrq-trigger; sleep 10' --mem 128M
check "panic ends in a reset, 128 MiB" 4 'Kernel panic'
linux $k/vmlinuz 'echo sleeping; sleep 1000' --timeout 15 --time
check "timeout" 124 '^sleeping'
check "--time prints one line of JSON" 124 '^\{"start":[0-9]+,.*"exit":[0-9]+\}$'

for t in pci mmio; do
    head -c 1048576 /dev/zero >"$T/disk"
    linux $k/vmlinuz 'echo kept >/dev/vda; sync; reboot -f' --disk "$T/disk" --transport $t
    check "reset after a write, $t" 4
    linux $k/vmlinuz 'head -n 1 /dev/vda; cat /proc/interrupts | grep -c virtio' --disk "$T/disk" --transport $t
    check "the disk has kept it, $t" 0 '^kept'
done

# what the clock chip says, and eight processors
before=$(date +%s)
linux $k/vmlinuz 'echo rtc $(cat /sys/class/rtc/rtc0/since_epoch) $(nproc)' --cpus 8
after=$(date +%s)
rtc=$(sed -n 's/^rtc \([0-9]*\) 8$/\1/p' "$out")
[ "${rtc:-0}" -ge $((before - 1)) ] && [ "$rtc" -le $((after + 1)) ] && ok "time of day, 8 CPUs" ||
    not_ok "time of day, 8 CPUs" "RTC ${rtc:-?}, host $before to $after"

tunctl -t vmmtest0 >/dev/null && ip addr add 10.98.0.1/24 dev vmmtest0 && ip link set vmmtest0 up
echo over the wire >"$T/page"
httpd -p 10.98.0.1:8080 -h "$T"
linux $k/vmlinuz 'ip addr add 10.98.0.2/24 dev eth0; ip link set eth0 up; sleep 1; wget -qO- http://10.98.0.1:8080/page' \
    --net tap=vmmtest0,vhost=off
check "network over a tap" 0 '^over the wire$'

# the power button is a key of a GPIO chip, for which the cloud kernel has no driver
start --kernel build/kernels/full-6.1/vmlinuz --initrd build/initramfs-full-6.1.cpio --append 'run="echo READY; sleep 1000"'
await '^READY' && sleep 1 && kill -s TERM "$pid"
stop
check "SIGTERM powers the guest off cleanly" 0 'asked the guest to power off'

vm --kernel build/kernels/$k/vmlinuz --dump-dtb "$T/tree.dtb"
check "--dump-dtb" 0
linux $k/vmlinuz 'cat /proc/device-tree/model; echo' --dtb "$T/tree.dtb"
check "--dtb" 0 '^vmm'
gzip <build/kernels/$k/vmlinuz >build/kernels/packed
vm --kernel build/kernels/packed --initrd build/initramfs-$k.cpio --append 'run="echo unpacked"'
check "a kernel packed with gzip" 0 '^unpacked$'
exit $failed
