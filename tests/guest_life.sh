#!/bin/sh
# guest_life.sh: how a Linux guest's life begins and ends, and what vmm says about it.
# needs: cloud
. tests/cases.sh
k=$(first_kernel '[cg]*-*')

linux "$k/vmlinuz" 'poweroff -f'
check "power off" 0
linux "$k/vmlinuz" 'reboot -f'
check "reset" 4
linux "$k/vmlinuz" 'echo c >/proc/sysrq-trigger; sleep 10' --append panic=-1
if cpio -t <"build/initramfs-$k.cpio" 2>/dev/null | grep -q pvpanic-mmio; then
    check "panic ends in an exit status of its own" 7 'Kernel panic'
    linux "$k/vmlinuz" 'rmmod pvpanic-mmio; echo c >/proc/sysrq-trigger; sleep 10' --append panic=-1
else
    skip "panic ends in an exit status of its own" "no pvpanic among the modules: make deps fetches them"
fi
check "panic ends in a reset" 4 'Kernel panic'
linux "$k/vmlinuz" 'echo sleeping; sleep 1000' --timeout 10
check "timeout" 124 '^sleeping$'
linux "$k/vmlinuz" 'echo bye' --time
check "--time prints one line of JSON" 0 '^\{"start":[0-9]+,.*"exit":[0-9]+\}$'

start --kernel "build/kernels/$k/vmlinuz" --initrd "build/initramfs-$k.cpio"
await 'Leave with' && sleep 1 && printf 'echo $((6*7))\npoweroff\n' >&3
stop
check "interactive shell, left with poweroff" 0 '^42$'

signal() { # NAME SIGNAL OPTION...: sent to a guest that is up
    name=$1 signal=$2
    shift 2
    start --kernel "build/kernels/$k/vmlinuz" --initrd "build/initramfs-$k.cpio" \
        --append 'run="echo READY; sleep 1000"' "$@"
    await '^READY' && kill -s "$signal" "$pid"
    stop
    check "$name" 0
}
signal "SIGTERM powers the guest off cleanly" TERM
signal "SIGINT powers the guest off cleanly" INT
signal "power button, user irqchip" TERM --irqchip user
signal "power button, 8259s of the kernel" TERM --append noapic
signal "power button, 8259s of vmm, no LAPIC" TERM --append nolapic --irqchip user

linux "$k/vmlinuz" 'for f in /sys/class/input/event*/device/name; do cat $f; done'
check "power button is there" 0 '^Power Button$'

# Nothing but the binary, /dev/kvm and the guest's files.
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$T/jail/dev"
    cp "$VMM" "$T/jail/vmm"
    cp "build/kernels/$k/vmlinuz" "build/initramfs-$k.cpio" "$T/jail/"
    if mknod "$T/jail/dev/kvm" c 10 232 2>/dev/null; then
        rc=0
        chroot "$T/jail" /vmm --timeout 60 --kernel vmlinuz --initrd "initramfs-$k.cpio" --append 'run="echo inside"' \
            </dev/null >"$T/raw" 2>&1 || rc=$?
        tr -d '\r' <"$T/raw" >"$out"
        check "empty chroot" 0 '^inside$'
    else
        skip "empty chroot" "cannot make device nodes here"
    fi
else
    skip "empty chroot" "needs root"
fi

# Command lines that people bring along. Without a root file system Linux panics; that it came so far is the test.
lost='Kernel panic - not syncing: VFS|No working init|Unable to mount root'
: | head -c 1048576 /dev/zero >"$T/disk.img"
foreign() { # WHAT OPTION...
    what=$1
    shift
    vm "$@" --timeout 6
    case $rc in
    4 | 124) check "command line of $what" "$rc" "$lost" ;;
    *) not_ok "command line of $what" "exit status $rc" ;;
    esac
}
d=build/kernels/$k
foreign "short names" --kernel "$d/vmlinux" --memory 512 --disk "$T/disk.img" --append panic=-1
foreign "microVM key=value lists" --memory mem_size_mib=1024 --vcpus num_vcpus=1 \
    --kernel "path=$d/vmlinux,himem_start=1024,cmdline=\"console=ttyS0 pci=off\""
foreign "key=value lists with a disk" --memory size_mib=1024 --vcpu num=2 \
    --kernel "path=$d/vmlinuz,kernel_load_addr=1048576,cmdline=\"console=ttyS0\"" --block "path=$T/disk.img"
foreign "a kernel alone" --kernel "path=$d/vmlinuz"
vm --kernel "$d/vmlinuz" --initrd "build/initramfs-$k.cpio" --cmdline 'console=ttyS0 run="echo here"' --cpus 2 \
    --disk "$T/disk.img" --net none --console --log 3
check "command line with --net, --console, --log 3" 0 '^here'
exit $failed
