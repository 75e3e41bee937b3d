#!/bin/sh
# guest_nvmm.sh: stock Linux, SeaBIOS and GRUB on an NVMM that tests/shim_nvmm.c plays on /dev/kvm: hv_nvmm.h, with
# hv_x86.h for what guests do to devices, in each version of NVMM's interface.
# needs: cloud
# build: vmm-nvmm-shim grub.img firmware
# programs: gdb
# modules: tun
# stall: 300
. tests/cases.sh
VMM=$PWD/build/vmm-nvmm-shim
k=$(first_kernel '[cg]*-*')
random_disk
version() { export NVMM_SHIM="version=$* stats"; }

version 2
works_played "version 2, 1 CPU" 1
version 1
works_played "version 1, 2 CPUs" 2
version 3 vmx
works_played "version 3, 4 CPUs" 4 --transport mmio
version 2
linux "$k/vmlinuz" "echo online \$(nproc); md5sum /dev/vda" --cpus 2 --disk "$T/disk,ro" --append 'nox2apic tsc=reliable'
check "xAPIC, 2 CPUs" 0 "^$sum  /dev/vda"
compared 3000
linux "$k/vmlinux" 'reboot -f'
check "ELF kernel, reset" 4

network_load

version 3
for chip in pit pic ioapic lapic; do
    vm --binary build/guests/${chip}64.bin --entry 0x1000
    check "$chip, property by property" 0 "^$chip: [0-9]+ properties held"
done
vm --binary build/guests/triple64.bin --entry 0x1000
check "triple fault" 5 'ended in a triple fault'
vm --binary build/guests/smp64.bin --entry 0x1000 --cpus 4
check "4 CPUs wake each other" 4 '^cpus 4'
vm --binary build/guests/hello16.bin --entry 0x1000 --mode 16
check "real mode" 16 '^hello from 16 bits'

version 2
if command -v gdb >/dev/null; then
    gdb_at_work
    start --binary build/guests/hello64.bin --entry 0x1000 --gdb "unix:$T/s"
    gdb_on stepi 'info registers rip' 'continue'
    said "gdb: no step without a handler of debug exceptions" 'received signal SIGILL'
    said "gdb: and nothing done" '^rip  *0x1000 '
    stop
    check "gdb: the guest runs all the same" 64 'cannot be stepped'
else
    skip "gdb" "there is none here, run make deps"
fi

[ -e build/grub.img ] && [ -e build/firmware/bios.bin ] ||
    { skip "SeaBIOS boots GRUB" "no image with GRUB, or no SeaBIOS: make deps"; exit $failed; }
{ printf '%-511s\n' "extra=''"; echo 'echo online $(nproc); exit'; } >"$T/commands"
truncate -s 64K "$T/commands"
version 2
vm --bios build/firmware/bios.bin --disk build/grub.img,ro --disk "$T/commands,ro"
check "SeaBIOS boots GRUB" 0 'GRUB pc loads Debian$'
check "and that Debian" 0 '^online 1$'
exit $failed
