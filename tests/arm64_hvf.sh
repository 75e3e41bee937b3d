#!/bin/sh
# arm64_hvf.sh: hv_hvf.h boots stock kernels, on a Hypervisor.framework that tests/shim_hvf_arm64.c plays on KVM: with
# macOS' own interrupt controller (a GICv3 of KVM's plays it) and with vmm's GICv2. The machine needs Linux 6.4.
# kernels: cloud-6.1
# programs: gdb
VMM=$PWD/vmm-hvf
. tests/cases.sh
k=cloud-6.1/vmlinuz

bad='BUG:|WARNING: CPU|Call trace|nobody cared|GICv?[23]?.*(error|fail)'
guest="echo up \$(nproc); cat /dev/vda | md5sum; dmesg | grep -v run= | grep -iE '$bad' | sed 's/^/BAD /'"
head -c 4194304 /dev/urandom >"$T/disk"
sum=$(md5sum <"$T/disk" | cut -d ' ' -f 1)
boot() { # CPUS TRANSPORT OPTION...
    cpus=$1 transport=$2
    shift 2
    linux $k "$guest" --cpus $cpus --transport $transport --disk "$T/disk" --timeout 120 "$@"
    what="$cpus CPUs, $transport${*:+, $*}"
    check "$what" 0 "^up $cpus\$"
    check "$what: a disk" 0 "^$sum "
    ! grep '^BAD' "$out" >"$T/bad" || not_ok "$what: complaints in its log" "$(head -n 1 "$T/bad")"
}
boot 1 mmio
boot 2 pci --irqchip user
boot 4 pci
boot 4 mmio --irqchip user --timeout 200 # four CPUs on the lab's one spin a lot

linux $k 'reboot -f' --irqchip user
check "reset" 4
linux $k 'echo c >/proc/sysrq-trigger; sleep 10'
check "panic" 4 'Kernel panic'

# the clock: between two answers of the guest lies as much time as the host saw pass, within 1 %
now() { cut -d ' ' -f 1 /proc/uptime; }
answer() { sed -n "s/^$1 \([0-9.]*\) .*/\1/p" "$T/raw"; }
start --kernel build/kernels/$k --initrd build/initramfs-cloud-6.1.cpio --irqchip user \
    --append 'run="echo ready; read a; echo t $(cat /proc/uptime); read b; echo u $(cat /proc/uptime)"'
await '^ready' && sent=$(now) && echo >&3 && await '^t ' && seen=$(now) && sleep 8
again=$(now) && echo >&3 && await '^u ' && last=$(now)
stop
awk -v g="$(answer t) $(answer u)" -v h="$sent $seen $again $last" 'BEGIN { split(g, a); split(h, b); d = a[2] - a[1];
    printf "# the guest counted %.2f s, the host %.2f to %.2f\n", d, b[3] - b[2], b[4] - b[1];
    exit !(d > 0.99 * (b[3] - b[2]) - 0.02 && d < 1.01 * (b[4] - b[1]) + 0.02) }' && ok "the clock" ||
    not_ok "the clock" "it is wrong by more than 1 %"

tunctl -t vmmtest0 >/dev/null && ip addr add 10.98.0.1/24 dev vmmtest0 && ip link set vmmtest0 up
head -c 1000000 /dev/urandom >"$T/page"
page=$(md5sum <"$T/page" | cut -d ' ' -f 1)
httpd -p 10.98.0.1:8080 -h "$T"
for chip in kernel user; do
    linux $k 'ip addr add 10.98.0.2/24 dev eth0; ip link set eth0 up; sleep 1; wget -qO- http://10.98.0.1:8080/page | md5sum' \
        --net tap=vmmtest0,vhost=off --cpus 2 --irqchip $chip
    check "a million bytes over a tap, --irqchip $chip" 0 "^$page "
done

# gdb's script, on this
VMM=$VMM sh tests/arm64_gdb.sh || failed=1
exit $failed
