#!/bin/sh
# guest_realmode.sh: real mode and what is started from it by the mini BIOS: GRUB from a disk image, and by that Debian's
# kernel; programs that bring their own world: memtest86+ as a bzImage, Xen as GRUB would start it.
# needs: cloud
# build: firmware grub.img multiboot
# stall: 300
. tests/cases.sh

if [ -e build/grub.img ]; then
    { printf '%-511s\n' "extra=''"; echo 'echo online $(nproc); ls /sys/firmware/acpi/tables | tr "\n" " "; echo; exit'; } >"$T/commands"
    truncate -s 64K "$T/commands"
    for chips in kernel user; do
        vm --guest build/grub.img,ro --disk "$T/commands,ro" --cpus 2 --irqchip $chips
        check "mini BIOS, --irqchip $chips: GRUB" 0 'GRUB pc loads Debian$'
        check "mini BIOS, --irqchip $chips: Debian" 0 '^online 2$'
    done
else
    skip "the mini BIOS boots GRUB" "no image with GRUB: make deps"
fi

# A pass of all its tests, but for the wait of the last, to see for minutes whether memory forgets. Keys: begin; menu, skip.
if [ -e build/firmware/memtest ]; then
    start --kernel build/firmware/memtest --cmdline 'console=ttyS0,115200 nobench' --mem 6M --timeout 300
    await 'Memtest86' && ok "memtest86+ starts" || not_ok "memtest86+ starts" "it does not say so"
    printf 0 >&3
    await '#10 \[Bit fade' && printf 1 >&3 && await 'Skip current test' && printf 5 >&3 &&
        await 'Pass:  1 +Errors: 0 ' && ok "memtest86+: a pass without errors" ||
        not_ok "memtest86+: a pass without errors" "it does not come to its end"
    kill "$pid" # its power button, to which it does not listen
    sleep 1
    kill "$pid"
    stop
else
    skip "memtest86+" "not installed: make deps"
fi

# Xen may be started by both versions of multiboot. It asks a BIOS unless told that there is none, and gives up without a
# Linux to run.
if [ -e build/multiboot/xen ]; then
    for entry in multiboot multiboot1; do
        vm --kernel build/multiboot/xen,entry=$entry --mem 256M --cmdline 'no-real-mode console=com1 com1=115200,8n1'
        check "Xen, entry=$entry" 4 '^\(XEN\) Bootloader: vmm'
        check "Xen, entry=$entry: all the way to its dom0" 4 '^\(XEN\) dom0 kernel not specified'
    done
else
    skip "Xen" "no package xen-hypervisor: make deps"
fi
exit $failed
