#!/bin/sh
# grub-image.sh KERNEL INITRD OUT  a disk that boots as an installed Debian does: GRUB's boot sector, its core behind it,
#                                  and a partition with an ext4 file system that holds grub.cfg, kernel and initrd.
# It runs what is on the second virtio disk: in its first sector, GRUB may set extra to more kernel options; all of it
# are commands for a shell, exit the last. Without such a disk it runs an interactive shell.
# Needs no privileges: no mount, no loop device. What grub-install would do is done by hand: GRUB's boot sector looks for
# the core in sector 1, where a DOS partition table leaves a gap.
set -eu
kernel=$1 initrd=$2 out=$3
grub=/usr/lib/grub/i386-pc mkfs=$(PATH=$PATH:/usr/sbin:/sbin command -v mkfs.ext4) || mkfs=
[ -e $grub/boot.img ] && [ -n "$mkfs" ] || { echo "grub-image: GRUB or mkfs.ext4 is missing: make deps" >&2; exit 77; }
t=$(mktemp -d)
trap 'rm -rf "$t"' EXIT

gap=2048 # sectors before the partition
mkdir -p "$t/root/boot/grub"
cp -L "$kernel" "$t/root/boot/vmlinuz"
cp -L "$initrd" "$t/root/boot/initrd"
cat >"$t/root/boot/grub/grub.cfg" <<'CFG'
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
echo GRUB $grub_platform loads Debian
source (hd1)0+1
linux /boot/vmlinuz console=ttyS0 quiet panic=-1 acpi_force_table_verification $extra run="if [ -b /dev/vdb ]; then sh /dev/vdb; else setsid cttyhack sh; fi"
initrd /boot/initrd
boot
CFG
size=$(($(du -sm "$t/root" | cut -f 1) + 8)) # MiB
# features that this GRUB does not know must stay off
"$mkfs" -q -O ^metadata_csum_seed,^orphan_file -L root -d "$t/root" "$t/fs" ${size}M >"$t/err" 2>&1 || { cat "$t/err" >&2; exit 1; }
grub-mkimage -O i386-pc -p '(hd0,msdos1)/boot/grub' -o "$t/core" \
    biosdisk part_msdos ext2 normal configfile linux serial terminal echo reboot halt

byte() { printf "\\$(printf %o $(($1 & 255)))"; }
le32() { byte "$1" && byte $(($1 >> 8)) && byte $(($1 >> 16)) && byte $(($1 >> 24)); }
{
    head -c 440 $grub/boot.img
    printf 'VMM\1\0\0'
    printf '\200\376\377\377\203\376\377\377' # active, CHS too large to tell, Linux
    le32 $gap
    le32 $((size * 2048))
    head -c 48 /dev/zero
    printf '\125\252'
    cat "$t/core"
} >"$t/disk"
[ "$(wc -c <"$t/disk")" -le $((gap * 512)) ] || { echo "grub-image: the core does not fit before the partition" >&2; exit 1; }
truncate -s $((gap * 512)) "$t/disk"
cat "$t/fs" >>"$t/disk"
mv "$t/disk" "$out"
