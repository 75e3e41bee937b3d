#!/bin/sh
# guest_firmware.sh: unmodified firmware from its reset vector. SeaBIOS finds the machine and its virtio disk, boots
# GRUB from it, and that Debian's kernel from a file system; there is no --kernel. Bochs' BIOS knows IDE disks.
# needs: cloud
# build: firmware grub.img
# stall: 400
. tests/cases.sh
fw=build/firmware
[ -e $fw/bios.bin ] || { skip "firmware" "no SeaBIOS: make deps"; exit 0; }

# debian COMMANDS KERNEL-OPTIONS FIRMWARE OPTION...: what is booted runs the commands, see tests/lab/grub-image.sh
debian() {
    { printf '%-511s\n' "extra='$2'"; echo "$1"; echo exit; } >"$T/commands"
    truncate -s 64K "$T/commands"
    bios=$3
    shift 3
    vm --bios $fw/$bios --disk build/grub.img,ro --disk "$T/commands,ro" "$@"
}

# What the guest tells: its CPUs and memory; whether it has ACPI's tables, mended on their way through the firmware;
# the file on the disk that it came from; every complaint about tables, memory map or PCI.
look='echo online $(nproc); awk "/MemTotal/ {print \"mem\", int(\$2 / 1024)}" /proc/meminfo;
    echo acpi $(ls /sys/firmware/acpi/tables | tr "\n" " ");
    mkdir -p /mnt; insmod /modules/ext4.ko 2>/dev/null; mount -t ext4 -o ro /dev/vda1 /mnt; ls /mnt/boot/grub;
    grep virtio0 /proc/interrupts | tr -s " ";
    dmesg | grep -v -e run= -e "report a bug" -e "checksum verification enabled" |
    grep -iE "acpi|firmware|pci|e820|mptable" | grep -iE "error|bug|warn|fail|invalid|checksum|conflict" |
    sed s/^/complaint:/'

quiet() { # NAME: nothing was complained of
    if grep -q '^complaint:' "$out"; then
        not_ok "$1" "$(grep -m 1 '^complaint:' "$out")"
    else
        ok "$1"
    fi
}

boots() { # NAME FIRMWARE CPUS STATUS COMMANDS OPTION...
    name=$1 bios=$2 cpus=$3 status=$4 commands=$5
    shift 5
    debian "$commands" "$kernel_options" "$bios" --cpus "$cpus" "$@"
    check "$name: GRUB" "$status" 'GRUB pc loads Debian$'
    check "$name: CPUs" "$status" "^online $cpus\$"
    [ -n "$kernel_options" ] || check "$name: ACPI's tables" "$status" '^acpi APIC DSDT FACP FACS MCFG '
    check "$name: the disk it came from" "$status" '^grub.cfg$'
    quiet "$name: no complaint"
}

# The same boot sector from an IDE disk by every firmware, and from a virtio disk by the one that knows these.
sector() { # NAME FIRMWARE OPTION
    cp build/guests/sector16.bin "$T/sector"
    truncate -s 16M "$T/sector" # SeaBIOS reads no boot sector of a virtio disk that has not one cylinder
    vm --bios $fw/$2 $3 "$T/sector"
    # its first line mixes with what SeaBIOS still has to say
    check "$1: a boot sector; sectors read and written" 7 'the second sector, twice read and once written'
    [ "$(tail -c +1025 "$T/sector" | head -c 10)" = 'the second' ] && ok "$1: what was written is in the file" ||
        not_ok "$1: what was written is in the file" "it is not"
}
for bios in BIOS-bochs-legacy BIOS-bochs-latest bios.bin; do
    [ -e $fw/$bios ] || { skip "$bios: a boot sector" "not installed: make deps"; continue; }
    sector "$bios, IDE" $bios --guest
done
sector "bios-256k.bin, virtio" bios-256k.bin --disk
truncate -s 64K "$T/blank"
vm --bios $fw/bios.bin --disk "$T/blank"
check "nothing to boot from: a reset" 4 'No bootable device'

[ -e build/grub.img ] || { skip "firmware boots GRUB" "no image with GRUB: make deps"; exit $failed; }
kernel_options=
boots "SeaBIOS 256k" bios-256k.bin 1 0 "$look"
check "SeaBIOS 256k: memory" 0 '^mem (4[5-9].|50.)$'
boots "SeaBIOS 128k, 2 CPUs, reset" bios.bin 2 4 "$look; reboot -f" --mem 6G
check "SeaBIOS 128k: memory above 4 GiB" 4 '^mem (5[89]..|60..)$'
boots "SeaBIOS 256k, 2 CPUs, vmm's chips" bios-256k.bin 2 0 "$look" --irqchip user

# no ACPI, no messages: the bus's lines, by the table that firmware made, through the bridge to the 8259s
kernel_options='acpi=off noapic pci=nomsi'
for chips in kernel user; do
    boots "SeaBIOS 256k, 8259s, --irqchip $chips" bios-256k.bin 1 4 "$look; reboot -f" --irqchip $chips
    check "SeaBIOS 256k, 8259s, --irqchip $chips: the disk's line" 4 '^ 1[01]: [0-9]+ XT-PIC .*virtio0'
done

# somebody types into the shell that comes up
start --bios $fw/bios.bin --disk build/grub.img,ro --irqchip user
await 'guest:' && printf 'echo typed $((6 * 7))\npoweroff\n' >&3
stop
check "SeaBIOS 128k, vmm's chips: a shell on the serial line" 0 '^typed 42'
exit $failed
