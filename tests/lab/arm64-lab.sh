#!/bin/sh
# An arm64 machine with a real, working /dev/kvm on any host: a Debian kernel at EL2 under QEMU's TCG. Needs no
# privileges; `make deps` brings what it is made of. The counterpart of x86-lab.sh.
#   arm64-lab.sh run DIR COMMAND   boot it with DIR's files added to /, run COMMAND in /, exit with its status
#                                  (99: it died or took too long); output goes to standard output
# Environment: GIC=2|3   of the machine, and so of its guests: 3 is the default
#              MACHINE=cloud-VERSION   its kernel, if not the oldest
#              CPU=QEMU-cpu-model   cortex-a72 has no VHE; the default has all but what is slow to emulate
#              ICOUNT=shift=3,sleep=off   instructions are the clock; empty, the default: real time
#              MEM=MiB  TIMEOUT=seconds, STALL=seconds of computing without a word  APPEND=kernel-arguments
#              DRIVES=N: N empty drives of 64 MiB, drive0 and so on   QEMU_ARGS=more of QEMU's, such as devices for them
# What emulation cannot show: missing memory barriers (x86 orders its stores) and stale caches (QEMU has none).
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
. "$root/tests/lab/watch.sh"
kernel=$(ls -d "$root"/build/arm64/kernels/${MACHINE:-cloud-*} 2>/dev/null | sort -V | head -n 1)
qemu=$(command -v qemu-system-aarch64) || qemu=
[ -n "$kernel" ] && [ -n "$qemu" ] || { echo "arm64-lab: run make deps first" >&2; exit 99; }
[ "${1:-}" = run ] && [ $# = 3 ] || { sed -n 2,12p "$0"; exit 2; }

pack() { (cd "$1" && find -L . | LC_ALL=C sort | cpio --quiet -L -o -H newc -R 0:0); }

base() { # what every boot has in its /, in directory $1
    mkdir -p "$1/bin" "$1/proc" "$1/sys" "$1/dev" "$1/tmp" "$1/lab"
    cp "$root/build/arm64/root/bin/busybox" "$1/bin/busybox"
    cp "$kernel/modules/tun.ko" "$1/lab/"
    cat >"$1/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o size=90% tmp /tmp
mount -t debugfs debug /sys/kernel/debug
dmesg -n 1 # the serial line is the command's
insmod /lab/tun.ko
sh /lab/command </dev/null
echo "@@LAB-RC=$?@@"
poweroff -f
INIT
    chmod +x "$1/init"
}

machine() { # becomes QEMU
    # shellcheck disable=SC2086 # a list of words
    set -- ${QEMU_ARGS:-}
    i=0
    while [ $i -lt "${DRIVES:-0}" ]; do
        truncate -s 64M "$t/drive$i"
        set -- -drive "if=none,id=drive$i,format=raw,file=$t/drive$i" "$@"
        i=$((i + 1))
    done
    exec timeout --foreground "${TIMEOUT:-180}" "$qemu" -accel tcg ${ICOUNT:+-icount $ICOUNT} \
        -M "virt,virtualization=on,gic-version=${GIC:-3}" -cpu "${CPU:-max,pauth=off,sve=off}" -m "${MEM:-2048}" \
        -nodefaults -display none -monitor none -no-reboot -serial stdio -kernel "$kernel/vmlinuz" -initrd "$t/initrd" \
        -append "console=ttyAMA0 quiet panic=-1 ${APPEND:-}" "$@"
}

t=$(mktemp -d)
trap 'kill $(cat "$t/pid" 2>/dev/null) 2>/dev/null || :; rm -rf "$t"' EXIT
trap 'exit 99' HUP INT TERM
base "$t/base"
printf '%s\n' "$3" >"$t/base/lab/command"
{ pack "$t/base"; [ -z "$2" ] || pack "$2"; } >"$t/initrd" # archives may be concatenated
run_machine
