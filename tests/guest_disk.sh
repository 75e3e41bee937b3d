#!/bin/sh
# guest_disk.sh: disks that people trust their data to: file systems that survive, formats that others agree with,
# kills under load.
# needs: cloud
# programs: qemu-img
. tests/cases.sh
k=$(first_kernel '[cg]*-*')
cat "build/initramfs-$k.cpio" build/tools.cpio >"$T/initrd"

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
sound() { # NAME FILE
    qemu-img check -q -f qcow2 "$2" >"$out" 2>&1 && ok "$1" || not_ok "$1" "qemu-img check does not agree"
}

mkfs='mkfs.ext4 -q -F /dev/vda 2>/dev/null && mount -t ext4 /dev/vda /mnt'
again='mount -t ext4 /dev/vda /mnt'
fsck='umount /mnt && e2fsck -fn /dev/vda >/tmp/fsck 2>&1 && echo fsck clean || cat /tmp/fsck'

# A file system with many files, a reset, the same files in another life; converted by qemu-img they are still the same.
survives() { # TRANSPORT FORMAT MIB
    what="$2 over $1" format=
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

# kill -9 of the VMM while the guest writes, again and again. Each next life recovers the journal and looks for every
# record whose fsync had returned in the one before.
kills() { # FORMAT COUNT
    what="$1, $2 kills" format= lost=0 broken=0 unsound=0 promised=0
    [ "$1" = raw ] || format=,format=qcow2
    image "kill-$1" "$1"
    load='rm -rf /mnt/*; mkdir /mnt/load; files write /mnt/load 1 64 >/dev/null & synclog write /mnt/log'
    life=$mkfs
    for i in $(seq "$2"); do
        boot "$life; $load" --disk "$d/disk$format"
        await "^synced $((i * 7 % 40 + 10))" && kill -9 "$pid"
        stop
        [ $rc = 137 ] && judge || { broken=$((broken + 1)); sed "s/^/# life $i: /" "$out" | tail -n 5; }
        promised=$(sed -n 's/^synced \([0-9]*\)$/\1/p' "$out" | tail -n 1)
        [ "$1" = raw ] || qemu-img check -q -f qcow2 "$d/disk" >/dev/null 2>&1 || [ $? = 3 ] || unsound=$((unsound + 1))
        life="$again && synclog check /mnt/log && $fsck && $again"
    done
    guest "$life" --disk "$d/disk$format"
    judge
    [ $broken = 0 ] && ok "$what: the file system recovers" || not_ok "$what: the file system recovers" "$broken times not"
    [ $lost = 0 ] && ok "$what: what was fsynced is there" || not_ok "$what: what was fsynced is there" "$lost times not"
    [ "$1" = raw ] || {
        [ $unsound = 0 ] && ok "$what: at most leaks" || not_ok "$what: at most leaks" "$unsound times worse"
    }
    rm -r "$d"
}
judge() { # what this life found of the one before, of which file $promised is the last record that was promised
    [ "$promised" != 0 ] || return 0
    grep -q '^fsck clean' "$out" || { broken=$((broken + 1)); sed 's/^/# /' "$out" | tail -n 5; }
    found=$(sed -n 's/^records=\([0-9]*\) hole=0$/\1/p' "$out")
    [ "${found:-0}" -ge "${promised:-1}" ] || { lost=$((lost + 1)); echo "# promised ${promised:-none}, found ${found:-none}"; }
}

formats='raw qcow2 backing'
command -v qemu-img >/dev/null || { formats=raw; skip "qcow2" "no qemu-img: make deps"; }
for t in pci mmio; do
    transport="--transport $t"
    [ $t = pci ] && size=256 || size=64
    for format in $formats; do
        survives $t $format $size
    done
done
transport=
kills raw 5
[ "$formats" = raw ] || kills qcow2 20
exit $failed
