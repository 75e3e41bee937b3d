#!/bin/sh
# arm64_life.sh: how arm64 Linux guests begin and end; their disk, network, clock, power button, device tree.
# kernels: cloud-6.1 full-6.1
. tests/cases.sh
k=cloud-6.1

linux $k/vmlinuz 'poweroff -f'
check "power off" 0
linux $k/vmlinuz 'echo c >/proc/sysrq-trigger; sleep 10' --mem 128M
check "panic ends in a reset, 128 MiB" 4 'Kernel panic'
linux $k/vmlinuz 'echo sleeping; sleep 1000' --timeout 30 --time
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
await '^READY' && sleep 1 && kill -s QUIT "$pid" && await ' do_idle\+0x' && kill -s TERM "$pid"
stop
check "SIGTERM powers the guest off cleanly" 0 'asked the guest to power off'
check "state of a running guest: registers" 0 '^vmm: +pc=ffff[0-9a-f]{12} pstate='
check "state of a running guest: its stack, by name" 0 '^vmm: +from [0-9a-f]{16} do_idle\+0x'

vm --kernel build/kernels/$k/vmlinuz --dump-dtb "$T/tree.dtb"
check "--dump-dtb" 0
linux $k/vmlinuz 'cat /proc/device-tree/model; echo' --dtb "$T/tree.dtb"
check "--dtb" 0 '^vmm'
gzip <build/kernels/$k/vmlinuz >build/kernels/packed
vm --kernel build/kernels/packed --initrd build/initramfs-$k.cpio --append 'run="echo unpacked"'
check "a kernel packed with gzip" 0 '^unpacked$'
vm --kernel build/kernels/packed.zst --initrd build/initramfs-$k.cpio --append 'run="echo unpacked"'
check "a kernel packed with zstd" 0 '^unpacked$'

# the EFI program that unpacks itself, which newer kernels come in: a header, then the same
le32() { for shift in 0 8 16 24; do printf "\\$(printf %03o $(($1 >> shift & 255)))"; done; }
{
    printf 'MZ\0\0zimg' && le32 128 && le32 "$(wc -c <build/kernels/packed)"
    printf '\0\0\0\0\0\0\0\0gzip' && head -c 28 /dev/zero && printf '\315\043\202\201' && le32 64
    printf 'PE\0\0\144\252' && head -c 58 /dev/zero && cat build/kernels/packed
} >build/kernels/zboot
vm --kernel build/kernels/zboot --initrd build/initramfs-$k.cpio --append 'run="echo unpacked"'
check "a kernel in an EFI zboot wrapper" 0 '^unpacked$'

# input that comes early waits until the console is open
start --kernel build/kernels/$k/vmlinuz --initrd build/initramfs-$k.cpio --uart pl011 \
    --append 'run="read a; echo got $a; read b; echo got $b; head -c 3000 /dev/zero | tr \\0 y; echo; grep -m 1 pl011 /proc/interrupts"'
echo 'typed early' >&3
await '^got typed' && echo 'an answer that is longer than its FIFO of 32 bytes' >&3
stop
check "PL011: early input" 0 '^got typed early$'
check "PL011: input" 0 '^got an answer that is longer than its FIFO of 32 bytes$'
check "PL011: output" 0 '^y{3000}$'
check "PL011: interrupts" 0 '^ *[0-9]+: +[1-9].*uart-pl011'
linux $k/vmlinuz 'echo +2 >/sys/class/rtc/rtc0/wakealarm; sleep 4; grep -m 1 pl031 /proc/interrupts'
check "the clock's alarm" 0 '^ *[0-9]+: +[1-9].*rtc-pl031'
exit $failed
