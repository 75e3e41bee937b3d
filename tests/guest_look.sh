#!/bin/sh
# guest_look.sh: what vmm tells of a guest's CPUs when it is asked, or when the guest dies.
# needs: cloud
. tests/cases.sh
k=$(first_kernel '[cg]*-*')
idle='(default_idle|native_safe_halt|native_halt|acpi_idle|mwait_idle|kvm_).*\+0x'

# looks NAME SIGNAL CPUS OPTION...: a guest that sleeps, with CPUS of them, is asked for its state and then powered off.
# Each CPU tells once where it idles, by names, and from where that was called.
looks() {
    name=$1 signal=$2 cpus=$3
    shift 3
    start --kernel "build/kernels/$k/vmlinuz" --initrd "build/initramfs-$k.cpio" --cpus "$cpus" \
        --append 'run="echo READY; sleep 1000"' "$@"
    await '^READY' && sleep 2 && kill -s "$signal" "$pid" && sleep 2 && kill "$pid"
    stop
    check "$name" 0
    n=$(grep -c '^vmm: CPU [0-9]* of' "$out")
    [ "$n" = "$cpus" ] && ok "$name: all CPUs" || not_ok "$name: all CPUs" "$n of $cpus"
    n=$(grep -Ec "^vmm:   at   [0-9a-f]{16} $idle" "$out")
    [ "$n" = "$cpus" ] && ok "$name: symbols" || not_ok "$name: symbols" "$n of $cpus are idle by name"
    n=$(grep -c '^vmm:   from [0-9a-f]* do_idle+0x' "$out")
    [ "$n" -ge "$cpus" ] && ok "$name: stack" || not_ok "$name: stack" "$n of $cpus were called from do_idle"
}
looks "state, symbols of the kernel in memory" QUIT 2
looks "the same, irqchip user" HUP 2 --irqchip user

# The guest's own list of symbols, of a boot without KASLR, names those of another with KASLR.
head -c 16777216 /dev/zero >"$T/disk"
linux "$k/vmlinuz" 'cat /proc/kallsyms >/dev/vda; sync' --disk "$T/disk" --append nokaslr
check "list of symbols is written" 0
looks "state, symbols of a file" QUIT 1 --symbols "$T/disk"

linux "$k/vmlinuz" 'echo bye' --symbols tests/cases.sh
check "a file without symbols is refused" 3 'neither a System.map nor an ELF file with symbols$'
exit $failed
