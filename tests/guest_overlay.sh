#!/bin/sh
# guest_overlay.sh: overlays keep writes apart from the disk, for one life or for several; what an image file cannot
# hold is an error for the guest.
# needs: cloud
# programs: qemu-img
. tests/cases.sh
k=$(first_kernel '[cg]*-*')

first='dd if=/dev/vda bs=8 count=1 2>/dev/null; echo'
# what COMMANDS DISK: runs them on a guest with this disk
guest() { linux "$k/vmlinuz" "$1" --disk "$2"; }
sound() {
    qemu-img check -q -f qcow2 "$2" >"$out" 2>&1 && ok "$1" || not_ok "$1" "qemu-img check says $?"
}

truncate -s 64M "$T/disk.raw"
printf 'pristine' | dd of="$T/disk.raw" conv=notrunc 2>/dev/null
qemu-img convert -f raw -O qcow2 "$T/disk.raw" "$T/disk.qcow2" 2>/dev/null
for format in raw qcow2; do
    disk=$T/disk.$format,format=$format sum=$(sha256sum <"$T/disk.$format")
    change='printf modified | dd of=/dev/vda conv=fsync 2>/dev/null'
    guest "$first; $change; $first" "$disk,overlay"
    check "overlay of $format: shows the disk" 0 '^pristine'
    check "overlay of $format: takes writes" 0 '^modified'
    guest "$first; $change" "$disk,overlay=$T/o"
    check "overlay=FILE of $format: what another one took is gone" 0 '^pristine'
    guest "$first; dd if=/dev/zero of=/dev/vda bs=64k seek=16 count=64 conv=fsync 2>/dev/null" "$disk,overlay=$T/o"
    check "overlay=FILE of $format: continued" 0 '^modified'
    [ "$(sha256sum <"$T/disk.$format")" = "$sum" ] && ok "overlay of $format: the disk is as it was" ||
        not_ok "overlay of $format: the disk is as it was" "its checksum changed"
    sound "overlay=FILE of $format: qemu-img check" "$T/o"
    qemu-img convert -f qcow2 -O raw "$T/o" "$T/flat" && [ "$(head -c 8 "$T/flat")" = modified ] &&
        ok "overlay=FILE of $format: qemu-img reads it" || not_ok "overlay=FILE of $format: qemu-img reads it" "it does not"
    rm -f "$T/o" "$T/flat"
done

mkdir "$T/small"
if mount -t tmpfs -o size=8m small "$T/small" 2>/dev/null; then
    qemu-img create -q -f qcow2 "$T/small/disk" 64M
    guest "dd if=/dev/zero of=/dev/vda bs=1M count=32 conv=fsync 2>&1; $change; $first; echo alive" \
        "$T/small/disk,format=qcow2"
    check "no space for a qcow2 disk: the guest sees an error" 0 'dd: .*(Input/output error|No space)'
    check "no space for a qcow2 disk: it lives on" 0 '^alive'
    sound "no space for a qcow2 disk: qemu-img check" "$T/small/disk"
    umount "$T/small"
else
    skip "no space for a qcow2 disk" "cannot mount a small file system here"
fi
exit $failed
