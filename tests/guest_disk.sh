#!/bin/sh
# guest_disk.sh: disks that people trust their data to: file systems that survive, formats that others agree with,
# kills under load, hosts that run out of space.
# needs: cloud
# programs: qemu-img
# stall: 400
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

# What the host cannot do comes to the guest as an error of that request; the VM lives on.
troubles() { # TRANSPORT
    over=" over $1"
    mkdir "$T/small"
    if mount -t tmpfs -o size=8m small "$T/small" 2>/dev/null; then
        truncate -s 64M "$T/small/disk"
        guest 'ioload /dev/vda write block=65536; ioload /dev/vda randread requests=100' --disk "$T/small/disk"
        check "no space left$over: the guest's writes fail" 0 '^requests=1024 .* errors=[1-9].* errno=5'
        check "no space left$over: its reads still work" 0 '^requests=100 .* errors=0 wrong=0'
        umount "$T/small"
    else
        skip "no space left$over" "cannot mount a small file system here"
    fi
    truncate -s 64M "$T/disk"
    boot 'echo READY; read go; ioload /dev/vda read block=65536; ioload /dev/vda write span=65536; echo alive' --disk "$T/disk"
    await '^READY' && truncate -s 1M "$T/disk" && echo >&3
    stop
    check "file truncated under the guest$over: the guest sees errors" 0 '^requests=1024 .* errors=[1-9]'
    check "file truncated under the guest$over: it lives on" 0 '^alive'
    rm -r "$T/small" "$T/disk"
}

# du in KiB
used() { du -k "$1" | cut -f 1; }
gives_back() { # TRANSPORT
    over=" over $1"
    truncate -s 64M "$T/disk"
    guest 'ioload /dev/vda write block=1048576' --disk "$T/disk"
    before=$(used "$T/disk")
    guest 'ioload /dev/vda discard span=33554432; ioload /dev/vda read block=65536 span=33554432 blank' --disk "$T/disk"
    after=$(used "$T/disk")
    [ "$before" -ge 65536 ] && [ "$after" -le 33792 ] && ok "discard punches holes$over" ||
        not_ok "discard punches holes$over" "$before KiB before, $after KiB after"
    check "discard: what was given back reads as zeroes$over" 0 '^requests=512 .* wrong=0 '
    guest 'ioload /dev/vda zero span=50331648; for what in verify blank; do ioload /dev/vda read block=65536 $what; done' \
        --disk "$T/disk"
    check "write zeroes: zeroes are there$over" 0 '^requests=1024 .* wrong=256 '
    check "write zeroes: nothing else is touched$over" 0 '^requests=1024 .* wrong=768 '
    rm "$T/disk"
}

# took NAME PATTERN MIN MAX: the load whose line matches took so many milliseconds.
took() {
    ms=$(sed -n "s/^$2.* ns=\([0-9]*\)[0-9]\{6\} .*/\1/p" "$out")
    [ "${ms:-0}" -ge "$3" ] && [ "${ms:-0}" -le "$4" ] && ok "$1" || not_ok "$1" "it took ${ms:-?} ms, not $3 to $4"
}
# 8 MiB at 2 MiB a second and 400 requests at 200 a second; a tenth of a second's worth is saved up at the start, and
# what is under way at the end is paid for by whoever comes next.
limits() {
    truncate -s 64M "$T/disk" "$T/disk2"
    guest 'ioload /dev/vda read block=65536 requests=128 depth=4; ioload /dev/vdb randread requests=400 depth=8' \
        --disk "$T/disk,bps=2097152" --disk "$T/disk2,iops=200"
    took "2 MiB a second, no more and hardly less" 'requests=128 ' 3600 4400
    took "200 requests a second, no more and hardly less" 'requests=400 ' 1800 2200
    rm "$T/disk" "$T/disk2"
}

queues() {
    truncate -s 64M "$T/disk"
    guest 'echo queues $(ls /sys/block/vda/mq | wc -l); for i in 0 1 2 3; do taskset $((1 << i)) ioload /dev/vda randwrite depth=8 requests=2048 & done; wait; ioload /dev/vda write block=65536; ioload /dev/vda read block=65536 verify' \
        --cpus 4 --disk "$T/disk,queues=4"
    check "4 queues: there" 0 '^queues 4$'
    n=$(grep -c '^requests=2048 .* errors=0 wrong=0 ' "$out")
    [ "$n" = 4 ] && ok "4 queues: loads of four CPUs" || not_ok "4 queues: loads of four CPUs" "$n of 4"
    check "4 queues: what was written is there" 0 '^requests=1024 .* errors=0 wrong=0 '
    rm "$T/disk"
}

formats='raw qcow2 backing'
command -v qemu-img >/dev/null || { formats=raw; skip "qcow2" "no qemu-img: make deps"; }
for t in pci mmio; do
    transport="--transport $t"
    [ $t = pci ] && size=256 || size=64
    for format in $formats; do
        survives $t $format $size
    done
    troubles $t
    gives_back $t
done
transport=
limits
queues
kills raw 5
[ "$formats" = raw ] || kills qcow2 20
exit $failed
