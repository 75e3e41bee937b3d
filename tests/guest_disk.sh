#!/bin/sh
# guest_disk.sh: disks that people trust their data to: file systems that survive, formats that others agree with,
# kills under load, hosts that run out of space.
# needs: cloud
# programs: qemu-img
. tests/cases.sh
k=$(first_kernel '[cg]*-*')
cat "build/initramfs-$k.cpio" build/tools.cpio >"$T/initrd"
transports=default
! "$VMM" --help | grep -q -e '--transport' || transports='pci mmio'
has() { "$VMM" --help | grep -q -e "--disk.*$1"; }

# guest COMMANDS OPTION...: a Linux with the tools of guests/tools, mkfs.ext4 and e2fsck
guest() {
    commands=$1
    shift
    linux "$k/vmlinuz" "$commands" --initrd "$T/initrd" --mem 512M $transport "$@"
}
boot() { # the same in the background, with standard input: see start
    commands=$1
    shift
    start --kernel "build/kernels/$k/vmlinuz" --initrd "$T/initrd" --mem 512M --append "run=\"$commands\"" $transport "$@"
}
image() { # NAME FORMAT: makes a disk of 512 MiB in a new directory $d
    d=$T/image-$1
    mkdir "$d"
    case $2 in
    raw) truncate -s 512M "$d/disk" ;;
    qcow2) qemu-img create -q -f qcow2 "$d/disk" 512M ;;
    backing)
        truncate -s 512M "$d/base"
        qemu-img create -q -f qcow2 -F raw -b "$d/base" "$d/disk"
        ;;
    esac
}
# The image is sound, says who has the reference implementation.
sound() { # NAME FILE [leaks]
    status=0
    qemu-img check -q -f qcow2 "$2" >"$out" 2>&1 || status=$?
    [ $status = 0 ] || [ "$status${3:-}" = 3leaks ] && ok "$1" || not_ok "$1" "qemu-img check says $status"
}

mkfs='mkfs.ext4 -q -F /dev/vda 2>/dev/null && mount -t ext4 /dev/vda /mnt'
again='mount -t ext4 /dev/vda /mnt'
fsck='umount /mnt && e2fsck -fn /dev/vda >/tmp/fsck 2>&1 && echo fsck clean || cat /tmp/fsck'

# A file system with many files, a reset, the same files in another life; converted by qemu-img they are still the same.
survives() { # TRANSPORT FORMAT MIB
    what="$2${1:+ over $1}" format=
    [ "$2" = raw ] || format=,format=qcow2
    image "$2" "$2"
    guest "$mkfs && files write /mnt 1 $3 && $fsck; reboot -f" --disk "$d/disk$format"
    check "$what: file system with $3 MiB of files" 4 '^fsck clean$'
    guest "$again && files check /mnt 1 $3 && $fsck" --disk "$d/disk$format"
    check "$what: the files are there after a reset" 0 '^files=.* wrong=0'
    check "$what: the file system is clean" 0 '^fsck clean$'
    if [ "$2" != raw ]; then
        sound "$what: qemu-img check" "$d/disk"
        qemu-img convert -f qcow2 -O raw "$d/disk" "$d/raw" && rm "$d/disk"
        guest "$again && files check /mnt 1 $3" --disk "$d/raw,ro"
        check "$what: qemu-img reads what the guest wrote" 0 '^files=.* wrong=0'
    fi
    rm -r "$d"
}

for t in $transports; do
    [ $t = default ] && transport= t= || transport="--transport $t"
    survives "$t" raw 256
    if has qcow2; then
        survives "$t" qcow2 256
        survives "$t" backing 256
    fi
done
exit $failed
