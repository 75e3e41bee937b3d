#!/bin/sh
# guest_realmode.sh: real mode and what is started from it by the mini BIOS: GRUB from a disk image, and by that Debian's
# kernel; programs that bring their own world: memtest86+ as a bzImage.
# needs: cloud
# build: firmware grub.img
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

if [ -e build/firmware/memtest ]; then
    start --kernel build/firmware/memtest --cmdline 'console=ttyS0,115200' --mem 8M
    await 'Memtest86' && ok "memtest86+ starts" || not_ok "memtest86+ starts" "it does not say so"
    kill "$pid" # its power button, to which it does not listen
    sleep 1
    kill "$pid"
    stop
else
    skip "memtest86+" "not installed: make deps"
fi
exit $failed
