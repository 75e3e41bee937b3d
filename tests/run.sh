#!/bin/sh
# run.sh unit     programs in build/tests and tests/test_*.sh: no privileges, no hypervisor
# run.sh guests   tests/guest_*.sh: real guests on a real hypervisor
# run.sh all      both
# run.sh linux    an interactive Linux: the host's own kernel if it can be read, else a fetched one
# The last line of the first three is "N passed, N failed, N skipped"; logs stay in build/check.
#
# Where guests run: with hardware virtualisation and a usable /dev/kvm on this host, here. Without, tiny guests on
# this host's (software) /dev/kvm if it has one, Linux guests in the lab (tests/lab/x86-lab.sh), an emulated machine
# whose /dev/kvm is real; and those for arm64 in its own (tests/lab/arm64-lab.sh). LAB=1 in the environment puts
# everything into the lab.
set -u
cd "$(dirname "$0")/.." || exit 1
logs=build/check

usable_kvm() { [ -z "${LAB:-}" ] && [ -r /dev/kvm ] && [ -w /dev/kvm ]; }
on_arm64() { [ "$(uname -m)" = aarch64 ]; }
hardware() { usable_kvm && { on_arm64 || grep -Eq '^flags.* (vmx|svm)( |$)' /proc/cpuinfo; }; }
verdicts() { grep -E --line-buffered '^(ok|not ok|skip) - |^# '; }
kernels() { ls -d build/kernels/$1 2>/dev/null | sed 's|.*/||' | sort -t - -k 2 -V; }

# script NAME COMMAND...: runs a script of cases. One that ended badly without having said so is a failure of its own;
# when it is the emulated machine that died, with all that ran in it, it gets three more chances.
script() {
    log=$logs/$1.log raw=$logs/$1.out began=$(date +%s)
    : >"$log"
    { shift; "$@"; echo "status $?"; } 2>&1 | tee "$raw" | verdicts | tee "$log"
    if [ "$(tail -n 1 "$raw")" = 'status 99' ] && [ "${tries:-1}" -lt 4 ]; then
        echo "# $1: the lab's machine died; once more from the start"
        tries=$((${tries:-1} + 1)) script "$@"
        return
    fi
    if ! tail -n 1 "$raw" | grep -q '^status 0$' && ! grep -q '^not ok' "$log"; then
        echo "not ok - $(basename "$raw" .out): $(tail -n 1 "$raw"), see $raw" | tee -a "$log"
    fi
    echo "# $(basename "$raw" .out) took $(($(date +%s) - began)) s"
}

# unit PROGRAM ARGUMENT...: one result for each program, which says how much it checked in its last line; exit status 77
# says why it could not
unit() {
    case "$1 ${2:-}" in
    qemu-*) name=$(basename "$2")-aarch64 ;;
    *tests64/*) name=$(basename "$1")-aarch64 ;;
    *) name=$(basename "$1") ;;
    esac
    timeout 300 "$@" >"$logs/$name.out" 2>&1
    rc=$?
    last=$(tail -n 1 "$logs/$name.out" | sed -e "s/^${name%-aarch64}: //" -e 's|^build/tests/[^:]*: ||')
    if [ $rc = 0 ]; then
        echo "ok - $name: $last"
    elif [ $rc = 77 ]; then
        echo "skip - $name: $last"
    else
        sed 's/^/# /' "$logs/$name.out" | tail -n 20
        echo "not ok - $name: see $logs/$name.out"
    fi | tee "$logs/$name.log"
}

units() {
    for p in build/tests/test_* build/tests/embed_*; do
        [ ! -x "$p" ] || unit "$p"
    done
    for p in build/tests/fuzz_*; do
        [ ! -x "$p" ] || unit "$p" -r 2000 1 "tests/corpus/${p#build/tests/fuzz_}"
    done
    on_arm64 && emulator='' || emulator=qemu-aarch64-static
    for p in build/tests64/test_*; do
        [ ! -x "$p" ] || unit $emulator "$p"
    done
    for p in build/tests64/fuzz_*; do
        [ ! -x "$p" ] || unit $emulator "$p" -r 200 1 "tests/corpus/${p#build/tests64/fuzz_}"
    done
    for s in tests/test_*.sh; do
        [ ! -e "$s" ] || script "$(basename "$s" .sh)" sh "$s"
    done
}

# with_libraries PROGRAM ROOT: copies it into ROOT/bin, its libraries to where they are here. One that this host does
# not have is not copied: the script skips what needs it.
with_libraries() {
    file=$(PATH=$PWD/build/gdb:$PATH:/usr/sbin:/sbin command -v "$1") || return 0
    mkdir -p "$2/bin"
    cp -L "$file" "$2/bin/"
    ldd "$file" 2>/dev/null | grep -o '/[^ )]*' | while read -r library; do
        mkdir -p "$2${library%/*}"
        cp -L "$library" "$2$library"
    done
}

# What guests may be given beside busybox: guests/tools and the host's tools for ext4, as an archive that is appended
# to an initramfs.
pack_tools() {
    rm -rf build/guest-root
    cp -r build/tools build/guest-root
    for program in mkfs.ext4 e2fsck; do
        with_libraries $program build/guest-root
    done
    (cd build/guest-root && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >build/tools.cpio
}

# Firmware for --bios from the host's packages, and a disk for it to boot from.
pack_firmware() {
    k=$(kernels '[cg]*-*' | head -n 1)
    mkdir -p build/firmware
    for f in /usr/share/seabios/bios.bin /usr/share/seabios/bios-256k.bin /usr/share/bochs/BIOS-bochs-*; do
        [ ! -e "$f" ] || cp "$f" build/firmware/
    done
    [ ! -e /boot/memtest86+x64.bin ] || cp /boot/memtest86+x64.bin build/firmware/memtest
    [ -z "$k" ] || sh tests/lab/grub-image.sh "build/kernels/$k/vmlinuz" "build/initramfs-$k.cpio" build/grub.img ||
        rm -f build/grub.img
}

# in_lab SCRIPT KERNEL...: runs a script in a lab machine that has a copy of what it needs of the checkout. Arguments
# of guest_boot are its kernels.
in_lab() {
    name=$1 dir=$(mktemp -d) args=
    shift
    [ "$name" != guest_boot ] || args=$*
    chmod 755 "$dir" # it becomes /, which passt wants to see without being root
    mkdir -p "$dir/t/build/kernels"
    ln -s "$PWD/vmm" "$PWD/tests" "$PWD/guests" "$dir/t/"
    ln -s "$PWD/build/guests" "$PWD/build/guest" "$PWD/build/minibios" "$dir/t/build/"
    mkdir "$dir/bin"
    for program in $(sed -n 's/^# programs: //p' "tests/$name.sh"); do
        with_libraries "$program" "$dir"
    done
    for module in $(sed -n 's/^# modules: //p' "tests/$name.sh"); do # of the machine's own kernel
        mkdir -p "$dir/t/build/lab"
        module=build/kernels/$(kernels '[cg]*-*' | head -n 1)/modules/$module.ko
        [ ! -e "$module" ] || cp "$module" "$dir/t/build/lab/"
    done
    for file in $(sed -n 's/^# build: //p' "tests/$name.sh"); do
        [ ! -e "build/$file" ] || ln -s "$PWD/build/$file" "$dir/t/build/"
    done
    [ ! -e build/tools.cpio ] || ln -s "$PWD/build/tools.cpio" "$dir/t/build/"
    for k; do
        mkdir "$dir/t/build/kernels/$k"
        ln -s "$PWD/build/kernels/$k/vmlinuz" "$PWD/build/kernels/$k/vmlinux" "$dir/t/build/kernels/$k/"
        ln -s "$PWD/build/initramfs-$k.cpio" "$dir/t/build/"
    done
    stall=$(sed -n 's/^# stall: //p' "tests/$name.sh")
    export DRIVES="$(sed -n 's/^# drives: //p' "tests/$name.sh")"
    export QEMU_ARGS="$(sed -n 's/^# devices: //p' "tests/$name.sh" | tr '\n' ' ')"
    export KERNEL_ARGS="$(sed -n 's/^# kernel: //p' "tests/$name.sh")"
    TIMEOUT=1800 STALL=${stall:-120} MEM=3072 script "$name${args:+-$args}" \
        sh tests/lab/x86-lab.sh run "$dir" "cd /t && sh tests/$name.sh $args"
    rm -rf "$dir"
}

# stage_arm64 DIR SCRIPT: what SCRIPT, of tests for arm64, needs of the checkout, in DIR.
stage_arm64() {
    a=$PWD/build/arm64
    mkdir -p "$1/build/kernels"
    ln -s "$PWD/vmm-aarch64" "$1/vmm"
    [ "$2" != arm64_hvf ] || ln -s "$PWD/build/vmm-hvf-arm64" "$1/vmm-hvf"
    ln -s "$PWD/tests" "$1/"
    ln -s "$PWD/build/guests64" "$1/build/"
    for module in $(sed -n 's/^# modules: //p' "tests/$2.sh"); do
        mkdir -p "$1/build/lab"
        cp "$a/kernels/$(ls "$a/kernels" | grep ^cloud | sort -V | head -n 1)/modules/$module.ko" "$1/build/lab/"
    done
    for k in $(sed -n 's/^# kernels: //p' "tests/$2.sh"); do
        [ -e "$a/kernels/$k" ] || continue
        mkdir "$1/build/kernels/$k"
        ln -s "$a/kernels/$k/vmlinuz" "$1/build/kernels/$k/"
        ln -s "$PWD/build/initramfs-arm64-$k.cpio" "$1/build/initramfs-$k.cpio"
    done
    x86=build/kernels/$(kernels '[cg]*-*' | head -n 1)/vmlinuz
    [ ! -e "$x86" ] || ln -s "$PWD/$x86" "$1/build/kernels/x86-vmlinuz"
    [ "$2" != arm64_life ] || zstd -q -3 -o "$1/build/kernels/packed.zst" "$a/kernels/cloud-6.1/vmlinuz"
}

# in_arm64_lab SCRIPT VARIABLE=VALUE...: runs tests/arm64_SCRIPT.sh in the lab's arm64 machine, with such an environment.
in_arm64_lab() {
    name=arm64_$1 dir=$(mktemp -d)
    shift
    chmod 755 "$dir"
    stage_arm64 "$dir/t" "$name"
    for program in $(sed -n 's/^# programs: //p' "tests/$name.sh"); do # with its libraries
        [ -d "$a/$program" ] || continue
        mkdir -p "$dir/bin"
        ln -s "$a/$program/$program" "$dir/bin/"
        ln -s "$a/$program/lib" "$dir/lib"
    done
    export DRIVES="$(sed -n 's/^# drives: //p' "tests/$name.sh")"
    export QEMU_ARGS="$(sed -n 's/^# devices: //p' "tests/$name.sh" | tr '\n' ' ')"
    [ $# = 0 ] || export "$@"
    TIMEOUT=1800 script "$name$(printf '%s' "$*" | tr -c 'a-zA-Z0-9' -)" \
        sh tests/lab/arm64-lab.sh run "$dir" "cd /t && GIC=${GIC:-3} sh tests/$name.sh"
    rm -rf "$dir"
}

# here_on_arm64 SCRIPT: the same on this host.
here_on_arm64() {
    dir=$(mktemp -d)
    stage_arm64 "$dir" "arm64_$1"
    script "arm64_$1" sh -c "cd $dir && sh tests/arm64_$1.sh"
    rm -rf "$dir"
}

# Every way to run guests that a host may have: GICv3 and GICv2, with VHE (the kernel at EL2) and without (cortex-a72).
arm64_jobs() {
    echo in_arm64_lab life GIC=3
    echo in_arm64_lab boots GIC=2 CPU=cortex-a72
    echo in_arm64_lab boots GIC=3
    echo in_arm64_lab tiny GIC=3 CPU=cortex-a72
    echo in_arm64_lab hvf MACHINE=cloud-6.12
    echo in_arm64_lab gdb GIC=3
    echo in_arm64_lab tiny GIC=2
    echo in_arm64_lab cpu GIC=3 MEM=3072 CPU=max,pauth-impdef=on
    echo in_arm64_lab vfio GIC=3
}

# The labs' jobs, the longest first; a script's "needs:" line names flavours of kernels, of each it gets the oldest, and
# its "programs:" line what it runs beside vmm and busybox, its "modules:" line what it loads, its "build:" line what else
# of the build it needs, its "stall:" line how many seconds it may say nothing (else 120). Its "devices:" lines are for
# the machine's QEMU, "drives:" says how many empty drives they find, and "kernel:" is for the machine's kernel.
jobs() {
    [ ! -d build/arm64/kernels ] || ! command -v qemu-system-aarch64 >/dev/null || arm64_jobs
    [ -n "$(kernels '*-*')" ] && command -v qemu-system-x86_64 >/dev/null || return 0
    for k in $(kernels 'full-*') $(kernels '[cg]*-*'); do
        echo "in_lab guest_boot $k"
    done
    for s in tests/guest_*.sh; do
        name=$(basename "$s" .sh)
        [ "$name" != guest_boot ] || continue
        [ "$name" != guest_tiny ] || ! usable_kvm || continue
        echo "in_lab $name" $(for f in $(sed -n 's/^# needs: //p' "$s"); do kernels "$f-*" | head -n 1; done)
    done
}

initramfs() {
    for k in $(kernels '*-*'); do
        sh guests/initramfs/pack "build/kernels/$k/modules" "build/initramfs-$k.cpio" || exit 1
    done
    on_arm64 && busybox=$(command -v busybox) || busybox=build/arm64/root/bin/busybox
    for k in $(ls build/arm64/kernels 2>/dev/null); do
        BUSYBOX=$busybox sh guests/initramfs/pack "build/arm64/kernels/$k/modules" "build/initramfs-arm64-$k.cpio" || exit 1
    done
}

guests_here() {
    if on_arm64; then
        for s in life boots tiny cpu hvf gdb; do
            here_on_arm64 $s
        done
        return
    fi
    for s in tests/guest_*.sh; do
        script "$(basename "$s" .sh)" sh "$s"
    done
}

guests() {
    initramfs
    on_arm64 || pack_tools
    on_arm64 || pack_firmware
    if hardware; then
        guests_here
        return
    fi
    on_arm64 || ! usable_kvm || script guest_tiny sh tests/guest_tiny.sh
    if [ -z "$(jobs)" ]; then
        echo "skip - Linux guests: no kernels or no QEMU here, run make deps" | tee "$logs/lab.log"
        return
    fi
    workers=$(nproc)
    [ "$workers" -le 4 ] || workers=4
    jobs | xargs -P "$workers" -L 1 sh tests/run.sh
}

# The summary; its exit status says whether all is well.
summary() {
    passed=$(cat $logs/*.log | grep -c '^ok - ')
    failed=$(cat $logs/*.log | grep -c '^not ok - ')
    skipped=$(cat $logs/*.log | grep -c '^skip - ')
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ] && [ "$passed" != 0 ]
}

run_linux() {
    version=$(uname -r)
    if [ -r "/boot/vmlinuz-$version" ] && [ -d "/lib/modules/$version" ]; then
        kernel=/boot/vmlinuz-$version modules=/lib/modules/$version
    else
        on_arm64 && all=build/arm64/kernels || all=build/kernels
        k=$(ls -d $all/[cg]*-* 2>/dev/null | sort -t - -k 2 -V | tail -n 1)
        [ -n "$k" ] || { echo "run.sh: /boot/vmlinuz-$version cannot be read and no kernel was fetched: make deps" >&2; exit 1; }
        kernel=$k/vmlinuz modules=$k/modules
    fi
    mkdir -p build
    sh guests/initramfs/pack "$modules" build/initramfs-run.cpio || exit 1
    if hardware; then
        exec ./vmm --kernel "$kernel" --initrd build/initramfs-run.cpio
    fi
    echo "This host has no hardware virtualisation that vmm may use (./vmm doctor says why)." >&2
    ! on_arm64 || exit 3
    echo "Booting Linux in the emulated lab instead: slower, but the same vmm and the same guest." >&2
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    mkdir "$dir/t"
    cp "$kernel" "$dir/t/kernel"
    cp vmm build/initramfs-run.cpio "$dir/t/"
    sh tests/lab/x86-lab.sh shell "$dir" "cd /t && ./vmm --kernel kernel --initrd initramfs-run.cpio"
}

case ${1:-} in
unit | guests | all)
    rm -rf "$logs"
    mkdir -p "$logs"
    [ "$1" = guests ] || units
    [ "$1" = unit ] || guests
    summary
    ;;
linux) run_linux ;;
in_lab | in_arm64_lab) "$@" ;;
*)
    sed -n 2,5p "$0"
    exit 2
    ;;
esac
