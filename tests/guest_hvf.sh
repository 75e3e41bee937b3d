#!/bin/sh
# guest_hvf.sh: stock Linux on a Hypervisor.framework for Intel that tests/shim_hvf_x86.c plays on /dev/kvm: the x86_64
# half of hv_hvf.h, with hv_x86.h for what guests do to devices. arm64_hvf.sh is its counterpart.
# needs: cloud
# build: vmm-hvf-shim
# programs: gdb
# modules: tun
# stall: 300
. tests/cases.sh
VMM=$PWD/build/vmm-hvf-shim
export NVMM_SHIM=stats
k=$(first_kernel '[cg]*-*')
random_disk

works_played "1 CPU" 1
works_played "2 CPUs" 2
works_played "4 CPUs, mmio" 4 --transport mmio
linux "$k/vmlinux" 'reboot -f'
check "ELF kernel, reset" 4
cpio -t <"build/initramfs-$k.cpio" 2>/dev/null | grep -q pvpanic-mmio && dead=7 || dead=4
linux "$k/vmlinuz" 'echo c >/proc/sysrq-trigger; sleep 10' --append panic=-1
check "panic" $dead 'Kernel panic'

if command -v gdb >/dev/null; then
    gdb_at_work
else
    skip "gdb" "there is none here, run make deps"
fi

network_load

vm --binary build/guests/triple64.bin --entry 0x1000
check "triple fault" 5 'ended in a triple fault'
vm --binary build/guests/hello16.bin --entry 0x1000 --mode 16
check "real mode" 16 '^hello from 16 bits'
# Random instructions of every kind that is known, and what is read is random, too.
forms='--binary build/guests/forms64.bin --entry 0x1000 --mem 64M'
NVMM_SHIM='stats noise' vm $forms
check "instructions of every kind at a device, 16, 32 and 64 bits" 0 '^forms: done'
compared 50000
NVMM_SHIM=lie vm $forms
check "what is not as KVM makes it is noticed" 134 '^shim_nvmm: .* instruction [0-9a-f ]+: hv_x86.h leaves 0x[0-9a-f]+ in rax, KVM 0x'
exit $failed
