#!/bin/sh
# A machine with a real, working /dev/kvm on any host: a Debian kernel under QEMU's TCG, which emulates AMD SVM with
# nested paging. Needs no privileges and nothing of the host's /dev/kvm; `make deps` brings what it is made of.
#   x86-lab.sh run DIR COMMAND     boot it with DIR's files added to /, run COMMAND in /, exit with its status
#                                  (99: it died or took too long); output goes to standard output
#   x86-lab.sh shell DIR COMMAND   the same on the terminal: keys and screen belong to COMMAND
# Environment: ICOUNT=shift=0,sleep=off   instructions are the clock: repeatable, dependable, half as fast; empty: real time
#              MEM=MiB  TIMEOUT=seconds, STALL=seconds of computing without a word  CPU=QEMU-cpu-model  APPEND=kernel-arguments
#              KERNEL_ARGS=more of these
#              DRIVES=N: N empty drives of 64 MiB, drive0 and so on   QEMU_ARGS=more of QEMU's, such as devices for them
# Bugs of QEMU's SVM decide the defaults. 7.2: XSETBV of a guest is not intercepted, so that guest and machine disagree
# about XCR0 (a model without XSAVE avoids that); a CMPXCHG16B that faults on nested paging corrupts flags (hence -cx16);
# with -icount a one-shot timer interrupt can be lost on the way out of a guest, after which an idle machine sleeps for
# ever (a periodic tick wakes it). All versions up to 10.0 deliver an injected interrupt twice now and then, which hangs or
# crashes the guest: svmfix.c mends that in QEMUs built as Debian's 10.0, which make deps gets. Where nothing helps, STALL
# ends the machine and run.sh tries again.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
. "$root/tests/lab/watch.sh"
kernel=$(ls -d "$root"/build/kernels/cloud-* "$root"/build/kernels/generic-* 2>/dev/null | sort -V | head -n 1)
qemu=$(command -v "$root/build/qemu/qemu" || command -v qemu-system-x86_64) || qemu=
[ "$qemu" != "$root/build/qemu/qemu" ] || roms="-L $root/build/qemu -L /usr/share/qemu"
fix=$root/build/svmfix.so source=$root/tests/lab/svmfix.c
[ "$(uname -m)" = x86_64 ] && { [ "$fix" -nt "$source" ] || {
    gcc -std=c11 -O2 -shared -fPIC "$source" -o "$fix.$$" -ldl && mv "$fix.$$" "$fix"
}; } || fix=
[ -n "$kernel" ] && [ -n "$qemu" ] || { echo "x86-lab: run make deps first" >&2; exit 99; }

pack() { (cd "$1" && find -L . | LC_ALL=C sort | cpio --quiet -L -o -H newc -R 0:0); }

base() { # what every boot has in its /, in directory $1
    mkdir -p "$1/bin" "$1/proc" "$1/sys" "$1/dev" "$1/tmp" "$1/lab"
    cp "$(command -v busybox)" "$1/bin/busybox"
    for m in irqbypass ccp kvm kvm-amd; do
        [ ! -e "$kernel/modules/$m.ko" ] || cp "$kernel/modules/$m.ko" "$1/lab/"
    done
    cat >"$1/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o size=90% tmp /tmp
mount -t debugfs debug /sys/kernel/debug
mkdir -p /dev/pts && mount -t devpts pts /dev/pts
dmesg -n 1 # the serial line is the command's
for m in irqbypass ccp kvm kvm-amd; do [ ! -e /lab/$m.ko ] || insmod /lab/$m.ko; done
if [ -n "$shell" ]; then
    setsid cttyhack sh /lab/command
    rc=$?
else
    sh /lab/command </dev/null
    rc=$?
    echo "@@LAB-RC=$rc@@"
fi
poweroff -f
INIT
    chmod +x "$1/init"
}

machine() { # KERNEL-ARGS QEMU-ARG...: becomes QEMU
    args=$1 i=0
    shift
    # shellcheck disable=SC2086 # a list of words
    set -- ${roms:-} ${QEMU_ARGS:-} "$@"
    while [ $i -lt "${DRIVES:-0}" ]; do
        truncate -s 64M "$t/drive$i"
        set -- -drive "if=none,id=drive$i,format=raw,file=$t/drive$i" "$@"
        i=$((i + 1))
    done
    exec timeout --foreground "${TIMEOUT:-180}" env ${fix:+LD_PRELOAD="$fix"} "$qemu" -accel tcg -M q35 -cpu "${CPU:-qemu64,+svm,+npt,-cx16}" -m "${MEM:-2048}" \
        -nodefaults -display none -monitor none -no-reboot -kernel "$kernel/vmlinuz" -initrd "$t/initrd" \
        -append "console=ttyS0 quiet panic=-1 ${APPEND-nohz=off highres=off} ${KERNEL_ARGS:-} $args" "$@"
}

[ $# = 3 ] || { sed -n 2,10p "$0"; exit 2; }
t=$(mktemp -d)
trap 'kill $(cat "$t/pid" 2>/dev/null) 2>/dev/null || :; rm -rf "$t"' EXIT
trap 'exit 99' HUP INT TERM
base "$t/base"
printf '%s\n' "$3" >"$t/base/lab/command"
{ pack "$t/base"; [ -z "$2" ] || pack "$2"; } >"$t/initrd" # archives may be concatenated
icount=${ICOUNT-shift=0,sleep=off}
case $1 in
run) run_machine '' ${icount:+-icount $icount} -serial stdio ;;
shell)
    (TIMEOUT=0 machine shell=1 -chardev stdio,id=tty,signal=off -serial chardev:tty)
    ;;
esac
