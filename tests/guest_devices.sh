#!/bin/sh
# guest_devices.sh: disks, random numbers, consoles, as Linux uses them.
# needs: cloud
. tests/cases.sh
k=$(first_kernel '[cg]*-*')

# 8 MiB that differ in every sector
pattern() { awk -v s="$1" 'BEGIN { for (i = 0; i < 16384; i++) printf "%-511s\n", s " sector " i }'; }
sum() { md5sum <"$1" | cut -d ' ' -f 1; }
pattern first >"$T/a.img"
pattern second | head -c 4194304 >"$T/b.img"
a=$(sum "$T/a.img") b=$(sum "$T/b.img")

linux "$k/vmlinuz" 'for d in vda vdb; do echo $d $(cat /sys/block/$d/size) $(md5sum </dev/$d); done' \
    --disk "$T/a.img" --disk "$T/b.img,ro"
check "first of two disks reads right" 0 "^vda 16384 $a"
check "second of two disks reads right" 0 "^vdb 8192 $b"

linux "$k/vmlinuz" 'echo flag $(cat /sys/block/vda/ro); echo x >/dev/vda || echo refused' --disk "$T/a.img,ro"
check "read-only disk refuses writes" 0 '^refused$'
check "read-only disk says so" 0 '^flag 1$'
[ "$(sum "$T/a.img")" = "$a" ] && ok "read-only disk is unchanged" || not_ok "read-only disk is unchanged" "it is not"

# A file system with a file: written, the guest reset without a farewell, read in another life.
linux "$k/vmlinuz" 'mke2fs -q /dev/vda >/dev/null; mount -t ext4 /dev/vda /mnt || mount -t ext2 /dev/vda /mnt; seq 20000 >/mnt/file; sync; reboot -f' \
    --disk "$T/a.img"
check "guest resets itself after writing" 4
linux "$k/vmlinuz" 'mount -t ext4 -o ro,noload /dev/vda /mnt || mount -t ext2 -o ro /dev/vda /mnt; echo file $(md5sum </mnt/file)' --disk "$T/a.img"
check "file survives a reset" 0 "^file $(seq 20000 | md5sum | cut -d ' ' -f 1)"

linux "$k/vmlinuz" 'for i in 0 1 2 3; do dd if=/dev/zero of=/dev/vda bs=512 seek=$((i*100)) count=50 conv=fsync,notrunc 2>/dev/null & done; wait; sync; echo sum $(md5sum </dev/vda)' \
    --disk "$T/b.img" --cpus 2
check "writers in parallel" 0 "^sum $(sum "$T/b.img")"

# What --disk asks for is what the guest finds.
linux "$k/vmlinuz" 'cd /sys/block/vda; echo serial $(cat serial), queues $(ls mq | wc -l), $(cat queue/write_cache); echo block $(cat queue/physical_block_size); echo write through >cache_type; cat queue/write_cache; dd if=/dev/zero of=/dev/vda bs=4k count=8 oflag=direct 2>/dev/null && echo written' \
    --disk "$T/b.img,serial=a serial,queues=2" --cpus 2
check "disk: serial number, queues and cache" 0 '^serial a serial, queues 2, write back$'
check "disk: physical block size" 0 '^block 4096$'
check "disk: the guest makes it write-through" 0 '^write through$'
check "disk: and writes to it" 0 '^written$'

start --kernel "build/kernels/$k/vmlinuz" --initrd "build/initramfs-$k.cpio" --disk "$T/b.img,ro" \
    --append 'run="cd /sys/block/vda; echo READY; while [ $(cat size) = 8192 ]; do sleep 1; done; echo size $(cat size)"'
await '^READY' && truncate -s 5242880 "$T/b.img"
stop
check "disk: a file that grows is a larger disk at once" 0 '^size 10240$'

# 5 requests are saved up, the others take a second for 50
linux "$k/vmlinuz" 'up() { sed s/[.].*// /proc/uptime; }; a=$(up); dd if=/dev/vda of=/dev/null bs=4k count=255 iflag=direct 2>/dev/null; t=$(($(up) - a)); [ $t -ge 4 ] && [ $t -le 7 ] && echo slow enough || echo $t s' \
    --disk "$T/b.img,iops=50"
check "disk: so many requests a second" 0 '^slow enough$'

linux "$k/vmlinuz" 'cat /sys/class/misc/hw_random/rng_current; echo $(dd if=/dev/hwrng bs=64 count=4 2>/dev/null | wc -c) bytes'
check "random numbers" 0 '^256 bytes$'
check "random numbers come from virtio" 0 '^virtio_rng'

linux "$k/vmlinuz" 'echo console $(cat /sys/class/tty/console/active); seq 2000 | md5sum' --console virtio --append console=hvc0
check "virtio console" 0 "^console .*hvc0$"
linux "$k/vmlinuz" 'seq 1000' --console virtio --append console=hvc0
[ "$(grep -E '^[0-9]+$' "$out" | md5sum)" = "$(seq 1000 | md5sum)" ] && ok "virtio console loses nothing" ||
    not_ok "virtio console loses nothing" "$(grep -Ec '^[0-9]+$' "$out") of 1000 lines came"

linux "$k/vmlinuz" 'seq 3000' --serial "file:$T/serial"
[ "$rc" = 0 ] && [ "$(tr -d '\r' <"$T/serial" | grep -E '^[0-9]+$' | md5sum)" = "$(seq 3000 | md5sum)" ] &&
    ok "serial output to a file loses nothing" || not_ok "serial output to a file loses nothing" "exit status $rc"

# 4 KiB at once, much more than any FIFO holds
typed() { # NAME OPTION...
    name=$1
    shift
    seq 2000 | head -c 4095 >"$T/typed"
    echo >>"$T/typed"
    start --kernel "build/kernels/$k/vmlinuz" --initrd "build/initramfs-$k.cpio" \
        --append 'run="stty raw -echo; echo READY; echo; echo SUM $(head -c 4096 | md5sum)"' "$@"
    await '^READY' && cat "$T/typed" >&3
    stop
    check "$name" 0 "^SUM $(sum "$T/typed")"
}
typed "serial input is not lost"
typed "virtio console input is not lost" --console virtio --append console=hvc0
exit $failed
