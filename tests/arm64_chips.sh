#!/bin/sh
# arm64_chips.sh: what an arm64 machine has for a PC's chips: PL011, PL031 with its alarm, PL061 with the power button;
# the device tree, written and brought.
# needs: full
. tests/cases.sh
k=$(first_kernel 'full-*') file=build/kernels/$k/vmlinuz initrd=build/initramfs-$k.cpio

linux "$k/vmlinuz" "cd /sys/class/rtc/rtc0; echo clock \$(cat name) \$((\$(cat since_epoch) - \$(date +%s))); \
    echo +2 >wakealarm; sleep 4; grep -m 1 pl031 /proc/interrupts"
check "clock: the host's time" 0 '^clock rtc-pl031 [^ ]* (0|-1|1)$'
check "clock: an alarm interrupts" 0 '^ *[0-9]+: +[1-9][0-9]* .*rtc-pl031'

start --kernel "$file" --initrd "$initrd" --uart pl011 \
    --append 'run="tr x x </proc/cmdline; grep -c pl011 /proc/interrupts; echo say; read a; echo got $a; head -c 3000 /dev/zero | tr \\0 y; echo"'
echo 'typed too early' >&3
if await '^say'; then
    echo 'an answer, longer than the FIFO of thirty-two bytes' >&3
fi
stop
check "pl011: the console" 0 'console=ttyAMA0'
check "pl011: input waits until it is wanted, and is whole" 0 '^got typed too early$'
check "pl011: output is whole" 0 '^y{3000}$'

start --kernel "$file" --initrd "$initrd" --append 'run="echo up; sleep 50"'
await '^up' && kill "$pid"
stop
check "power button: SIGTERM presses it" 0 'asked the guest to power off'

vm --kernel "$file" --dump-dtb "$T/dtb" --cpus 2
check "device tree: written" 0
linux "$k/vmlinuz" "echo up \$(nproc) \$(cat /sys/firmware/devicetree/base/model)" --cpus 2 --dtb "$T/dtb"
check "device tree: brought" 0 '^up 2 vmm'
gzip -1 <"$file" >"$T/gz"
vm --kernel "$T/gz" --initrd "$initrd" --append 'run="echo up $(uname -m)"'
check "a kernel packed with gzip" 0 '^up aarch64'
exit $failed
