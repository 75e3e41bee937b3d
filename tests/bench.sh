#!/bin/sh
# bench.sh [start|boot|irqchip|memory|size|disk|net|vfio|arm64]...     the figures that vmm answers for; all of them without an argument
# Each line: what, vmm's value, the peer's value, their ratio, the limit. Every peer is measured in the same run.
#   start   from exec to the first instruction of the guest, against bench_floor.c, on this host's /dev/kvm
#   boot    a stock kernel from exec to exit, against QEMU, in the lab, where instructions are the clock (repeatable
#           within half a percent on any host, but blind to what a VM exit costs: hence their number)
#   irqchip the same boot with vmm's own interrupt controllers and timers, against KVM's, in the lab; and by hv_nvmm.h on
#           an NVMM that is played on /dev/kvm, with its exits by kind
#   memory  of vmm itself while a guest of 128 MiB is idle, against QEMU, in the lab
#   size    of the binary and of the sources
#   disk    virtio-blk on a file in memory, against QEMU with threads and with io_uring, whichever is faster, in the lab
#   net     virtio-net on a tap, TCP to the lab's machine itself, against QEMU, both without vhost, in the lab
#   vfio    an NVMe disk that was passed to the guest: exits and interrupts for a request; and the time of one, against
#           the lab's machine itself, best of three, in real time: the clock of instructions stands still or leaps while
#           one waits for an emulated disk. An emulated processor pays for a guest's nested page tables at each step
#   arm64   a stock arm64 kernel from exec to exit, against QEMU's virt, in the lab's arm64 machine, counted as for boot;
#           and the size of vmm-aarch64
set -eu
[ "${0##*/}" = inside ] || cd "$(dirname "$0")/.."
b=build/bench
QEMU_COMMON='-enable-kvm -cpu host -smp 1 -nodefaults -display none -no-reboot -serial stdio'
QEMU_MICROVM='microvm,acpi=on,rtc=on,pit=off,pic=off'

build() {
    mkdir -p $b
    flags='-std=c11 -O2 -static -s -idirafter /usr/include -idirafter /usr/include/'$(uname -m)-linux-gnu
    musl-gcc $flags tests/bench_time.c -o $b/bench_time
    musl-gcc $flags tests/bench_floor.c -o $b/bench_floor
    musl-gcc $flags tests/bench_load.c -o $b/bench_load
    # mov $0x3f8,%dx; mov $'x',%al; out %al,%dx; 1: hlt; jmp 1b
    printf '\146\272\370\003\260\170\356\364\353\375' >$b/byte.bin
}

heading() {
    printf '\n%s\n    reproduce: sh tests/bench.sh %s\n' "$1" "$2"
    printf '%-42s %11s %11s %7s %7s\n' '' vmm peer ratio limit
}
# line WHAT VALUE PEER LIMIT UNIT: "-" for what is not there; LIMIT as "1.3x" is one of the ratio, else one of the value
line() {
    awk -v what="$1" -v value="$2" -v peer="$3" -v limit="$4" -v unit="$5" 'BEGIN {
        ratio = peer + 0 > 0 ? sprintf("%.2f", value / peer) : "-"
        over = limit ~ /x$/ ? ratio + 0 > limit + 0 : limit != "-" && value + 0 > limit + 0
        printf "%-42s %11s %11s %7s %7s %s%s\n", what, value, peer, ratio, limit, unit, over ? "  OVER THE LIMIT" : ""
    }'
}
# field NAME < LINES of name=value: the first such value
field() { tr ' ' '\n' | sed -n "s/^$1=//p" | head -n 1; }
per() { awk -v n="$1" -v d="$2" -v p="$3" 'BEGIN { printf "%." p "f", n / d }'; }

bench_start() {
    heading 'Start: exec to the first byte of a flat guest, 512 MiB, medians' start
    if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then
        $b/bench_time first 200 $b/bench_floor -- ./vmm --binary $b/byte.bin --entry 0x1000 --mem 512M >$b/start
    else
        echo '    (no usable /dev/kvm on this host: in the lab)'
        lab start >$b/start
    fi
    for what in wall cpu; do
        line "$what time, against bare ioctls" "$(per "$(grep '^b' $b/start | field $what)" 1000 0)" \
            "$(per "$(grep '^a' $b/start | field $what)" 1000 0)" 1.3x us
    done
}

# lab WHAT: this script again, in the lab's machine, where it is called "inside"
lab() {
    [ -z "${d:-}" ] || rm -rf "$d"
    d=$(mktemp -d) inside="cp -r /bench /tmp/bench && cd /tmp/bench && sh ./inside $1"
    trap 'rm -rf "$d"' EXIT
    k=build/kernels/cloud-6.1
    [ -e $k/vmlinux ] || { echo "bench: no $k, run make deps" >&2; exit 1; }
    sh guests/initramfs/pack --one-line $b/one-line.cpio
    sh guests/initramfs/pack $k/modules $b/idle.cpio
    sh guests/initramfs/pack $k/modules $b/tools.cpio build/tools
    mkdir "$d/bench"
    cp tests/bench.sh "$d/bench/inside"
    [ ! -e build/vmm-nvmm-shim ] || cp build/vmm-nvmm-shim "$d/bench/"
    cp vmm $b/bench_time $b/bench_floor $b/bench_load $b/byte.bin $b/*.cpio $k/vmlinuz $k/vmlinux "$d/bench/"
    cp build/tools/bin/netload build/tools/bin/ioload $k/modules/tun.ko $k/modules/vfio*.ko "$d/bench/"
    qemu=$(command -v qemu-system-x86_64)
    mkdir -p "$d/usr/share/qemu" "$d/usr/share/seabios"
    cp "$qemu" "$d/bench/qemu"
    ldd "$qemu" | grep -o '/[^ ]*' | while read -r f; do mkdir -p "$d${f%/*}" && cp -L "$f" "$d$f"; done
    for f in bios-256k.bin bios-microvm.bin; do cp -L /usr/share/seabios/$f "$d/usr/share/seabios/"; done
    for f in kvmvapic.bin linuxboot.bin linuxboot_dma.bin pvh.bin; do cp -L /usr/share/qemu/$f "$d/usr/share/qemu/"; done
    # Under load L1 keeps a periodic tick, see x86-lab.sh. Without ERMS the kernels copy eight bytes with one counted
    # instruction; with it only one byte, and a copy would seem ten times as dear as it is.
    case $1 in
    vfio*)
        export DRIVES=1 KERNEL_ARGS='intel_iommu=on iommu=pt'
        export QEMU_ARGS='-device intel-iommu,intremap=on -device pcie-root-port,id=rp,chassis=1,slot=1 -device nvme,serial=one,drive=drive0,bus=rp'
        MEM=2048 TIMEOUT=900 CPU=max,-pku,-erms,-fsrm sh tests/lab/x86-lab.sh run "$d" "$inside"
        ;;
    disk | net) MEM=2048 TIMEOUT=900 CPU=max,-pku,-erms,-fsrm sh tests/lab/x86-lab.sh run "$d" "$inside" ;;
    *) MEM=2048 TIMEOUT=900 CPU=max,-pku APPEND= sh tests/lab/x86-lab.sh run "$d" "$inside" ;;
    esac
}

# In the lab: one line for each way to boot, "NAME wall=ns ... exits=N ..."
inside_boot() {
    for k in vmlinuz vmlinux; do
        inside_one "vmm-$k" ./vmm --mem 256M --kernel $k --initrd one-line.cpio --cmdline 'console=ttyS0 quiet panic=-1'
        for m in q35 $QEMU_MICROVM; do
            inside_one "${m%%,*}-$k" ./qemu -L /usr/share/qemu -L /usr/share/seabios -M $m $QEMU_COMMON -m 256 \
                -kernel $k -initrd one-line.cpio -append 'console=ttyS0 quiet panic=-1'
        done
    done
}
inside_one() {
    name=$1
    shift
    echo "$name $(./bench_time exit "$@" 2>err) $(./bench_time kvm "$@" 2>>err)"
    grep -q 'initramfs is up' err || sed 's/^/# /' err
}
# The first boot is not counted: it brings the files into the page cache.
inside_irqchip() {
    for chips in kernel kernel split user; do
        inside_one "$chips" ./vmm --irqchip $chips --mem 256M --kernel vmlinuz --initrd one-line.cpio \
            --cmdline 'console=ttyS0 quiet panic=-1'
    done | sed 1d
    NVMM_SHIM="version=2 stats" inside_one nvmm ./vmm-nvmm-shim --mem 256M --kernel vmlinuz --initrd one-line.cpio \
        --cmdline 'console=ttyS0 quiet panic=-1'
    sed -n 's/^shim_nvmm: /nvmm-exits /p' err | head -n 1
}
inside_start() { ./bench_time first 20 ./bench_floor -- ./vmm --binary byte.bin --entry 0x1000 --mem 512M; }

# In the lab: private memory, in KiB, of mappings that are not guest memory. vmm asks the kernel not to reserve and
# not to dump the guest's memory, and those are the flags nr and dd; QEMU's is the one of its size.
inside_memory() {
    inside_idle vmm ./vmm --mem 128M --kernel vmlinuz --initrd idle.cpio --append 'run="echo READY; sleep 1000"'
    for m in q35 $QEMU_MICROVM; do
        inside_idle "${m%%,*}" ./qemu -L /usr/share/qemu -L /usr/share/seabios -M $m $QEMU_COMMON -m 128 -kernel vmlinuz \
            -initrd idle.cpio -append 'console=ttyS0 quiet panic=-1 run="echo READY; sleep 1000"'
    done
}
inside_idle() {
    name=$1
    shift
    "$@" </dev/null >log 2>&1 &
    until grep -q READY log; do
        sleep 0.1
        kill -0 $! || { sed 's/^/# /' log; return; }
    done
    sleep 1
    awk -v name="$name" '
        /^[0-9a-f]+-/ { private = 0; size = 0 }
        /^Size:/ { size = $2 }
        /^Private_(Clean|Dirty):/ { private += $2 }
        /^VmFlags:/ { ram = / nr/ && / dd/ || size == 131072; if (!ram) sum += private }
        END { print name, "private=" sum }' /proc/$!/smaps
    kill -9 $!
}

# In the lab: what a guest does to a disk of 64 MiB that lies in memory, once against the clock and once counted:
# "VMM LOAD time|count KEY=VALUE...". The file is written before anything is measured.
disk_loads() {
    echo "ioload /dev/vda write block=1048576 depth=2 >/dev/null"
    while read -r name load; do
        echo "ioload /dev/vda $load mark=$name"
    done <<'LOADS'
seqread read block=131072 depth=8 requests=2048
seqwrite write block=131072 depth=8 requests=2048
randread1 randread requests=4000
randwrite1 randwrite requests=4000
randread32 randread requests=24576 depth=32
randwrite32 randwrite requests=24576 depth=32
LOADS
}
inside_disk() {
    truncate -s 64M disk.img
    run=$(disk_loads | tr '\n' ';')
    for t in pci mmio; do
        inside_load "vmm-$t" ./vmm --mem 256M --kernel vmlinuz --initrd tools.cpio --append "run=\"$run\"" --transport $t \
            --disk disk.img
    done
    for aio in threads io_uring; do
        inside_load "qemu-$aio" ./qemu -L /usr/share/qemu -L /usr/share/seabios -M $QEMU_MICROVM $QEMU_COMMON -m 256 \
            -kernel vmlinuz -initrd tools.cpio -append "console=ttyS0 quiet panic=-1 run=\"$run\"" \
            -drive if=none,id=d,format=raw,file=disk.img,aio=$aio -device virtio-blk-device,drive=d
    done
}

# In the lab: TCP between a guest and this machine, over a tap.
net_loads() {
    echo 'ip addr add 10.99.0.2/24 dev eth0; ip link set eth0 up'
    echo 'until grep -q 1 /sys/class/net/eth0/carrier; do sleep 0.1; done; ping -c 1 10.99.0.1 >/dev/null'
    for load in 'stream-out send 10.99.0.1 5077 128' 'stream-in receive 10.99.0.1 5077 128' 'ask ask 10.99.0.1 5077 2000'; do
        name=${load%% *}
        echo "echo MARK $name begin; sleep 0.1; f=\$(netload ${load#* }); echo MARK $name end; echo \$f"
    done
}
inside_net() {
    insmod ./tun.ko
    tunctl -t bench0 >/dev/null
    ip addr add 10.99.0.1/24 dev bench0
    ip link set bench0 up
    ./netload serve 5077 &
    run=$(net_loads | tr '\n' ';')
    for t in pci mmio; do
        inside_load "vmm-$t" ./vmm --mem 256M --kernel vmlinuz --initrd tools.cpio --append "run=\"$run\"" --transport $t \
            --net tap=bench0,vhost=off
    done
    inside_load qemu ./qemu -L /usr/share/qemu -L /usr/share/seabios -M $QEMU_MICROVM $QEMU_COMMON -m 256 -kernel vmlinuz \
        -initrd tools.cpio -append "console=ttyS0 quiet panic=-1 run=\"$run\"" \
        -netdev tap,id=n,ifname=bench0,script=no,downscript=no,vhost=off -device virtio-net-device,netdev=n
    kill $!
}
# In the lab: 4 KiB reads by a guest that has an NVMe disk, and before that by the machine that has it.
vfio_loads() { # ROUNDS
    for round in $(seq $1); do
        echo 'ioload /dev/nvme0n1 randread requests=2000 mark=randread1'
        echo 'ioload /dev/nvme0n1 randread requests=8192 depth=32 mark=randread32'
    done
}
inside_vfio_time() {
    vfio_loads 3 | while read -r load; do ./$load; done |
        awk '/^MARK/ { load = $2 } /^requests/ { print "host", load, "time", $0 }'
    inside_vfio 3
}
inside_vfio() {
    for m in vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci; do insmod ./$m.ko; done
    dev=0000:01:00.0 pci=/sys/bus/pci
    echo vfio-pci >$pci/devices/$dev/driver_override
    echo $dev >$pci/devices/$dev/driver/unbind
    echo $dev >$pci/drivers_probe
    run=$(vfio_loads ${1:-1} | tr '\n' ';')
    inside_load vmm-vfio ./vmm --mem 256M --kernel vmlinuz --initrd tools.cpio --append "run=\"$run\"" --vfio $dev
}
inside_load() {
    vmm=$1
    shift
    for how in time count; do
        ./bench_load $how "$@" 2>err | while read -r load figures; do
            echo "$vmm $load $how $figures"
        done
        [ ! -s err ] || sed 's/^/# /' err
    done
}

bench_boot() {
    heading 'Boot: stock Debian cloud kernel, 256 MiB, 1 CPU, one-line initramfs, exec to exit, virtual seconds' boot
    lab boot >$b/boot
    grep '^#' $b/boot || :
    value() { grep "^$1" $b/boot | field "$2"; }
    for k in vmlinuz vmlinux; do
        [ $k = vmlinuz ] && limit=1.90 || limit=1.65
        for peer in q35 microvm; do
            line "$k, against QEMU $peer" "$(per "$(value vmm-$k wall)" 1e9 3)" "$(per "$(value $peer-$k wall)" 1e9 3)" $limit s
        done
        for what in exits io_exits mmio_exits pf_fixed; do
            line "$k, KVM $what, against QEMU microvm" "$(value vmm-$k $what)" "$(value microvm-$k $what)" - ''
        done
    done
}

bench_irqchip() {
    heading 'Interrupt controllers: the boot with --irqchip split and user, against kernel, virtual seconds' irqchip
    lab irqchip >$b/irqchip
    grep '^#' $b/irqchip || :
    value() { grep "^$1" $b/irqchip | field "$2"; }
    for chips in split user; do
        line "$chips" "$(per "$(value $chips wall)" 1e9 3)" "$(per "$(value kernel wall)" 1e9 3)" 1.25x s
        for what in exits io_exits mmio_exits; do
            line "$chips, KVM $what" "$(value $chips $what)" "$(value kernel $what)" - ''
        done
    done
    line 'NVMM as the shim plays it, against user' "$(per "$(value nvmm\  wall)" 1e9 3)" \
        "$(per "$(value user wall)" 1e9 3)" 1.5x s
    for what in $(sed -n 's/^nvmm-exits //p' $b/irqchip); do
        [ "${what#*=}" = 0 ] || line "NVMM exits, ${what%=*}" "${what#*=}" - - ''
    done
}

# load_figure FILE VMM LOAD KEY: for one request, or 64 KiB of a stream; ns, given in us, against the clock, all else counted
load_figure() {
    [ "$4" = ns ] && how=time || how=count
    grep "^$2 $3 $how" "$1" | awk -v key="$4" '{
        for (i = 4; i <= NF; i++) { split($i, f, "="); v[f[1]] = f[2] }
        printf "%.3f", v[key] / ("requests" in v ? v["requests"] : v["bytes"] / 65536) / (key == "ns" ? 1000 : 1)
    }'
}
# compare_loads FILE < LINES of "LOAD NAME LIMIT": vmm over both transports with the fastest QEMU
compare_loads() {
    grep '^#' "$1" || :
    while read -r load name limit; do
        name=$(echo "$name" | tr _ ' ')
        best=$(for q in $(grep -o '^qemu[^ ]*' "$1" | sort -u); do echo "$(load_figure "$1" $q $load ns) $q"; done | sort -n | head -n 1)
        for t in pci mmio; do
            line "$name, $t, ${best#* }" "$(load_figure "$1" vmm-$t $load ns)" "${best% *}" "$limit" us
            for what in exits user_exits syscalls switches; do
                line "    $what" "$(load_figure "$1" vmm-$t $load $what)" "$(load_figure "$1" "${best#* }" $load $what)" - ''
            done
        done
    done
}
bench_disk() {
    heading 'Disk: raw file of 64 MiB in memory, cloud kernel, 1 CPU; virtual time per request (0.77x: 1.3 times the speed)' disk
    lab disk >$b/disk || lab disk >$b/disk # a machine that died gets a second chance
    compare_loads $b/disk <<'LOADS'
seqread 128k_sequential_read 1.00x
seqwrite 128k_sequential_write 1.00x
randread1 4k_random_read 0.77x
randwrite1 4k_random_write 0.77x
randread32 4k_random_read,_32_deep 0.77x
randwrite32 4k_random_write,_32_deep 0.77x
LOADS
}
bench_net() {
    heading 'Network: tap without vhost, cloud kernel, 1 CPU; virtual time per 64 KiB of a stream or request' net
    lab net >$b/net || lab net >$b/net
    compare_loads $b/net <<'LOADS'
stream-out TCP_stream,_guest_sends 1.00x
stream-in TCP_stream,_guest_receives 1.00x
ask request_and_response 1.00x
LOADS
}

vfio_time() { # host|vmm-vfio LOAD
    grep "^$1 $2 time" $b/vfio-time | sed 's/.* requests=\([0-9]*\) .* ns=\([0-9]*\).*/\2 \1/' |
        awk '{ printf "%.1f\n", $1 / $2 / 1000 }' | sort -n | head -n 1
}
bench_vfio() {
    heading 'Passthrough: NVMe of 64 MiB, cloud kernel, 1 CPU; what a random 4 KiB read costs' vfio
    lab vfio >$b/vfio || lab vfio >$b/vfio
    export ICOUNT=
    lab vfio_time >$b/vfio-time || lab vfio_time >$b/vfio-time
    unset ICOUNT
    grep -h '^#' $b/vfio $b/vfio-time || :
    for load in randread1 randread32; do
        line "$load: against the machine itself" "$(vfio_time vmm-vfio $load)" "$(vfio_time host $load)" - us
        for what in user_exits exits npf hlt intr messages syscalls; do
            [ $what = user_exits ] && limit=0.10 || limit=-
            line "$load: $what" "$(load_figure $b/vfio vmm-vfio $load $what)" - $limit ''
        done
    done
}

bench_memory() {
    heading 'Memory: private pages that are not guest memory, idle Linux guest of 128 MiB' memory
    lab memory >$b/memory
    grep '^#' $b/memory || :
    for peer in q35 microvm; do
        line "against QEMU $peer" "$(grep '^vmm' $b/memory | field private)" "$(grep "^$peer" $b/memory | field private)" 1024 KiB
    done
}

# Most of what both execute is the kernel testing its own cryptography, 4.9 s that no VMM can spare it: so the boot is
# also measured without (cryptomgr.notests), where a VMM's part is seen.
bench_arm64() {
    heading 'arm64: stock Debian cloud kernel, 256 MiB, 1 CPU, one-line initramfs, exec to exit, virtual seconds' arm64
    k=build/arm64/kernels/cloud-6.1
    [ -e $k/vmlinuz ] && [ -e build/arm64/qemu/qemu ] || { echo '    (nothing for arm64 here: make deps)'; return; }
    mkdir -p $b
    make -s vmm-aarch64 $b/bench_time64
    d=$(mktemp -d)
    trap 'rm -rf "$d"' EXIT
    mkdir "$d/bench"
    cp -r build/arm64/qemu/lib "$d/"
    cp vmm-aarch64 "$d/bench/vmm"
    cp $b/bench_time64 "$d/bench/bench_time"
    cp build/arm64/qemu/qemu $k/vmlinuz "$d/bench/"
    cp tests/bench.sh "$d/bench/inside"
    BUSYBOX=build/arm64/root/bin/busybox sh guests/initramfs/pack --one-line "$d/bench/one-line.cpio"
    ICOUNT=shift=3,sleep=off TIMEOUT=900 sh tests/lab/arm64-lab.sh run "$d" \
        'cp -r /bench /tmp/bench && cd /tmp/bench && sh ./inside arm64' >$b/arm64
    grep '^#' $b/arm64 || :
    line_arm64 'vmlinuz, against QEMU virt' ''
    line_arm64 'without tests of cryptography' -notests
    line 'vmlinuz, KVM exits' "$(grep '^vmm ' $b/arm64 | field exits)" "$(grep '^virt ' $b/arm64 | field exits)" - ''
    line 'vmm-aarch64, stripped' "$(($(wc -c <vmm-aarch64) / 1024))" "$(($(wc -c <build/arm64/qemu/qemu) / 1024))" 300 KiB
}
line_arm64() {
    line "$1" "$(per "$(grep "^vmm$2 " $b/arm64 | field wall)" 1e9 3)" \
        "$(per "$(grep "^virt$2 " $b/arm64 | field wall)" 1e9 3)" 0.80x s
}
# As elsewhere, the first boot is not counted.
inside_arm64() {
    set -- --mem 256M --kernel vmlinuz --initrd one-line.cpio
    ./vmm "$@" --cmdline 'console=ttyS0 quiet panic=-1' >err 2>&1 || :
    for tests in '' ' cryptomgr.notests'; do
        inside_one "vmm${tests:+-notests}" ./vmm "$@" --cmdline "console=ttyS0 quiet panic=-1$tests"
        inside_one "virt${tests:+-notests}" ./qemu -M virt,gic-version=host $QEMU_COMMON -m 256 -kernel vmlinuz \
            -initrd one-line.cpio -append "console=ttyAMA0 quiet panic=-1$tests"
    done
}

bench_size() {
    heading 'Size: the binary (stripped) and the sources' size
    strip -o $b/stripped vmm
    line 'binary, against QEMU without its libraries' "$(($(wc -c <$b/stripped) / 1024))" \
        "$(($(wc -c <"$(command -v qemu-system-x86_64)") / 1024))" 250 KiB
    wc -l vmm.c ./*.h
}

case ${0##*/} in
inside) "inside_$1" ;;
*)
    [ -x vmm ] || { echo 'bench: no ./vmm, run make' >&2; exit 1; }
    build
    for what in ${*:-start boot irqchip memory size disk net vfio arm64}; do
        "bench_$what"
    done
    ;;
esac
