#!/bin/sh
# Gets what `make`, `make check`, `make bench` and `make run` need beyond the base system, once: packages that are
# missing (Debian and Ubuntu, as root) and stock kernels to boot (no privileges). The only step that uses the network.
#   build/kernels/NAME/{vmlinuz,vmlinux,modules/*.ko}     NAME on Debian 12: cloud-6.1 full-6.1 cloud-6.12 full-6.12
#   build/qemu          a newer QEMU than Debian 12's, for the lab's x86_64 machine
#   build/arm64/{root,kernels/NAME,qemu,gdb}     for arm64, on Debian: musl, libraries and busybox; kernels like those above
#                                       (on an arm64 machine the kernels alone); programs for the arm64 lab
# What is there already is left alone; remove build/kernels and build/arm64 to get newer ones.
set -eu
cd "$(dirname "$0")/.."
out=$PWD/build/kernels
say() { printf 'deps: %s\n' "$*" >&2; }

packages='make gcc g++ libc6-dev linux-libc-dev musl-tools clang lld libclang-rt-dev
    qemu-system-x86 seabios busybox-static cpio kmod xz-utils lz4 zstd ca-certificates
    e2fsprogs passt qemu-utils libdeflate-dev libzstd-dev libfdt-dev device-tree-compiler gdb
    libzydis-dev'

# for the other architecture, where this machine is an x86_64 one; and what a PC's firmware boots
[ "$(uname -m)" != x86_64 ] || packages="$packages gcc-aarch64-linux-gnu qemu-system-arm qemu-user-static
    grub-pc-bin grub-common bochsbios memtest86+"
[ "$(uname -m)" != aarch64 ] || packages="$(echo "$packages" | sed -e 's/qemu-system-x86 seabios/qemu-system-arm/') libfdt-dev"

install_packages() {
    # shellcheck disable=SC2086 # lists of words throughout
    have=" $(dpkg-query -W -f '${Package}=${db:Status-Status} ' $packages 2>/dev/null || :)"
    missing=
    for p in $packages; do
        case $have in *" $p=installed "*) ;; *) missing="$missing $p" ;; esac
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ]; then
        say "packages are missing; run this as root, then make deps again:"
        say "  apt-get update && apt-get install -y --no-install-recommends$missing"
        exit 1
    fi
    for p in $missing; do
        apt-cache show "$p" >/dev/null 2>&1 || { apt-get update; break; }
    done
    say "installing$missing"
    DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $missing
}

# What a guest or the lab's machine may load: taken decompressed out of a kernel package into one flat directory.
modules='virtio* vmw_vsock* vsock* vhost* kvm* irqbypass ccp button evdev failover net_failover tun tap
    gpio_keys pvpanic pvpanic-mmio fuse netfs fscache 9p* vfio* iommufd nvme* ext4 jbd2 mbcache crc16 crc32c_generic
    libcrc32c'

unpack() { # DIRECTORY DEB...: makes DIRECTORY appear, complete or not at all
    dir=$1 new=$1.new
    shift
    rm -rf "$dir" "$new"
    mkdir -p "$new/x" "$new/modules"
    { echo './boot/vmlinuz-*'; set -f; printf '*/%s.ko*\n' $modules; set +f; } >"$new/wanted"
    for deb; do
        # tar complains about patterns that match nothing; what matters is looked at below
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$new/x" --wildcards -T "$new/wanted" 2>/dev/null || :
    done
    mv "$new"/x/boot/vmlinuz-* "$new/vmlinuz"
    find "$new/x" -name '*.ko*' -exec mv {} "$new/modules/" \;
    find "$new/modules" -name '*.xz' -exec xz -d {} +
    find "$new/modules" -name '*.zst' -exec zstd -q -d --rm {} +
    # an arm64 kernel is no wrapper around something else
    [ "$machine" = arm64 ] || sh tests/lab/extract-vmlinux.sh "$new/vmlinuz" >"$new/vmlinux"
    rm -rf "$new/x" "$new/wanted"
    mv "$new" "$dir"
}

# fetch FLAVOUR FROM PACKAGE APT-OPTION...: the kernel that meta-package PACKAGE stands for. The file .FLAVOUR-FROM
# remembers which directory it became, so that a second run needs neither the network nor apt.
fetch() {
    flavour=$1 from=$2 meta=$3 stamp=$out/.$1-$2
    shift 3
    [ ! -e "$stamp" ] || [ ! -d "$out/$(cat "$stamp")" ] || return 0
    pkg=$(apt-cache "$@" show --no-all-versions "$meta" 2>/dev/null |
        sed -n 's/^Depends:.*\(linux-image-[0-9][^ ,]*\).*/\1/p' | head -n 1)
    [ -n "$pkg" ] || { say "no package $meta in the lists of $from"; return 1; }
    name=$flavour-$(echo "$pkg" | sed 's/linux-image-\([0-9]*\.[0-9]*\).*/\1/')
    # Ubuntu keeps modules in packages of their own
    extra=$(apt-cache "$@" show --no-all-versions "$pkg" | sed -n 's/^Depends:.*\(linux-modules-[0-9][^ ,]*\).*/\1/p')
    mkdir -p "$out/$name.debs"
    say "fetching $pkg ($from)"
    (cd "$out/$name.debs" && apt-get "$@" -q -o APT::Sandbox::User=root -o Acquire::Retries=3 download $pkg $extra) ||
        { say "could not fetch $pkg; run make deps again, it continues where it stopped"; return 1; }
    unpack "$out/$name" "$out/$name.debs"/*.deb
    rm -rf "$out/$name.debs"
    echo "$name" >"$stamp"
}

# Options for apt that make it see nothing but the backports of this machine's own Debian mirror, through lists of
# its own: no package source is added to the machine.
backports_view() { # APT-OPTION...
    view=$out/.backports
    mkdir -p "$view/lists/partial" "$view/cache"
    : >"$view/status"
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e "$key" ] && trust=" [signed-by=$key]" || trust=
    apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Identifier: Packages' |
        sed -n "s|^\([^ ]*\) \([a-z]*\)\$|deb$trust \1 \2-backports main|p" | head -n 1 >"$view/sources.list"
    set -- "$@" -o Dir::Etc::SourceList="$view/sources.list" -o Dir::Etc::SourceParts=/dev/null -o APT::Sandbox::User=root \
        -o Dir::State::Lists="$view/lists" -o Dir::State::status="$view/status" -o Dir::Cache="$view/cache"
    apt-get "$@" -qq update || return 1
    echo "$@"
}

fetch_kernels() {
    mkdir -p "$out"
    if [ "$ID" = ubuntu ]; then
        fetch generic release linux-image-virtual
        return
    fi
    fetch cloud release "linux-image-cloud-$machine"
    fetch full release "linux-image-$machine"
    [ ! -e "$out/.cloud-backports" ] || [ ! -e "$out/.full-backports" ] || return 0
    # newer kernels widen the tests but nothing depends on them: without backports the tests that want one are skipped
    opts=$(backports_view) || { say "no backports here: going on without the newer kernels"; return 0; }
    fetch cloud backports "linux-image-cloud-$machine" $opts || :
    fetch full backports "linux-image-$machine" $opts || :
}

# The QEMU of Debian 12 (7.2) emulates SVM with bugs that kill a lab machine now and then (tests/lab/x86-lab.sh has the
# list); the one of its backports runs with the libraries that the former brings. Without it the lab goes on with that.
fetch_qemu() {
    q=$PWD/build/qemu
    [ "$ID $(uname -m)" = "debian x86_64" ] && [ ! -d "$q" ] || return 0
    case $(qemu-system-x86_64 --version) in *"version "[1-7].*) ;; *) return 0 ;; esac
    opts=$(backports_view) || { say "no backports here: going on without a newer QEMU"; return 0; }
    rm -rf "$q.new" "$q.debs"
    mkdir -p "$q.new" "$q.debs"
    say "fetching a newer QEMU for the lab"
    (cd "$q.debs" && apt-get $opts -q -o Acquire::Retries=3 download qemu-system-x86 qemu-system-data seabios) ||
        { say "no newer QEMU in the backports: going on without"; return 0; }
    for deb in "$q.debs"/*.deb; do
        dpkg-deb -x "$deb" "$q.debs/x"
    done
    cp "$q.debs/x/usr/bin/qemu-system-x86_64" "$q.new/qemu"
    cp "$q.debs"/x/usr/share/qemu/*.bin "$q.debs"/x/usr/share/seabios/*.bin "$q.new/"
    rm -rf "$q.debs"
    "$q.new/qemu" --version >/dev/null 2>&1 || { say "it does not run here: going on without"; return 0; }
    mv "$q.new" "$q"
}

# Options for apt that make it see the arm64 packages of this machine's own sources, through lists of its own: no
# architecture is added to the machine and nothing is installed.
arm64_view() {
    view=$PWD/build/arm64/view
    mkdir -p "$view/lists/partial" "$view/cache"
    : >"$view/status"
    set -- -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root \
        -o Dir::State::Lists="$view/lists" -o Dir::State::status="$view/status" -o Dir::Cache="$view/cache"
    apt-get "$@" -qq update || return 1
    echo "$@"
}

# What vmm-aarch64 is made of, and busybox for its guests: unpacked, not installed.
fetch_arm64_root() {
    root=build/arm64/root
    [ ! -d $root ] || return 0
    rm -rf $root.new $root.debs
    mkdir -p $root.new $root.debs
    say "fetching musl, libraries and busybox for arm64"
    (cd $root.debs && apt-get "$@" -q -o Acquire::Retries=3 download \
        musl-dev linux-libc-dev libfdt-dev libdeflate-dev busybox-static) || return 1
    for deb in $root.debs/*.deb; do
        dpkg-deb -x "$deb" $root.new
    done
    rm -rf $root.debs
    mv $root.new $root
}

# fetch_arm64_program PACKAGE PROGRAM NAME APT-OPTION...: a program for the lab's arm64 machine and the libraries that it
# names, as build/arm64/NAME/NAME and lib: QEMU, which is the bench's peer there, and gdb.
fetch_arm64_program() {
    package=$1 program=$2 name=$3 q=build/arm64/$3
    shift 3
    [ ! -d $q ] || return 0
    rm -rf $q.new $q.root
    mkdir -p $q.new/lib $q.root "$PWD/build/arm64/view/cache/archives/partial"
    say "fetching $package for arm64"
    apt-get "$@" -q -y -d --no-install-recommends -o Acquire::Retries=3 install $package >/dev/null || return 1
    for deb in build/arm64/view/cache/archives/*.deb; do
        dpkg-deb -x "$deb" $q.root
    done
    cp $q.root/usr/bin/$program $q.new/$name || return 1
    todo=$q.new/$name
    while [ -n "$todo" ]; do
        next=
        for library in $(for f in $todo; do aarch64-linux-gnu-readelf -d "$f"; done | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | sort -u); do
            from=$(find $q.root -name "$library" | head -n 1)
            [ ! -e "$q.new/lib/$library" ] && [ -n "$from" ] || continue
            cp -L "$from" $q.new/lib/
            next="$next $q.new/lib/$library"
        done
        todo=$next
    done
    rm -rf $q.root build/arm64/view/cache
    mv $q.new $q
}

fetch_arm64() {
    [ "$ID $(uname -m)" = "debian x86_64" ] || return 0
    out=$PWD/build/arm64/kernels machine=arm64
    mkdir -p "$out"
    [ ! -e "$out/.cloud-release" ] || [ ! -e "$out/.full-release" ] || [ ! -d build/arm64/root ] ||
        [ ! -d build/arm64/qemu ] || [ ! -d build/arm64/gdb ] || return 0
    opts=$(arm64_view) || { say "no arm64 packages here: going on without what arm64 needs"; return 0; }
    fetch_arm64_root $opts
    fetch_arm64_program qemu-system-arm qemu-system-aarch64 qemu $opts
    fetch_arm64_program gdb-minimal gdb gdb $opts || say "no gdb for arm64 here: going on without"
    fetch cloud release linux-image-cloud-arm64 $opts
    fetch full release linux-image-arm64 $opts
    opts="$(backports_view -o APT::Architecture=arm64 -o APT::Architectures=arm64)" || return 0
    fetch cloud backports linux-image-cloud-arm64 $opts || :
    fetch full backports linux-image-arm64 $opts || :
}

# Kernels that GRUB would start: unpacked and not installed, for their packages want to be in GRUB's menu. Without them a
# few tests are skipped.
fetch_multiboot() {
    dir=$PWD/build/multiboot
    [ "$machine" = amd64 ] && [ ! -d "$dir" ] || return 0
    xen=$(apt-cache pkgnames xen-hypervisor- | grep -x 'xen-hypervisor-[0-9.]*-amd64' | sort -V | tail -n 1)
    rm -rf "$dir.new"
    mkdir -p "$dir.new/x"
    (cd "$dir.new" && apt-get -q -o APT::Sandbox::User=root -o Acquire::Retries=3 download grub-invaders $xen) ||
        { say "no packages grub-invaders and xen-hypervisor here: going on without"; return 0; }
    for deb in "$dir.new"/*.deb; do
        dpkg-deb -x "$deb" "$dir.new/x"
    done
    cp "$dir.new/x/boot/invaders.exec" "$dir.new/invaders"
    [ -z "$xen" ] || gzip -dc "$dir.new"/x/boot/xen-*.gz >"$dir.new/xen"
    rm -rf "$dir.new/x" "$dir.new"/*.deb
    mv "$dir.new" "$dir"
}

# A gdb for the lab's machine: the usual one wants half of Python along. Without it a few tests are skipped.
fetch_gdb() {
    dir=$PWD/build/gdb
    [ ! -e "$dir/gdb" ] || return 0
    mkdir -p "$dir/x"
    (cd "$dir" && apt-get -q -o APT::Sandbox::User=root -o Acquire::Retries=3 download gdb-minimal) &&
        dpkg-deb -x "$dir"/gdb-minimal_*.deb "$dir/x" && mv "$dir/x/usr/bin/gdb" "$dir/" ||
        say "no package gdb-minimal here: going on without"
    rm -rf "$dir/x" "$dir"/*.deb
}

ID=unknown ID_LIKE=
[ ! -r /etc/os-release ] || . /etc/os-release
case "$ID $ID_LIKE" in
*debian* | *ubuntu*) ;;
*)
    say "this knows only Debian and Ubuntu. Elsewhere install the counterparts of:"
    say "  $(echo $packages)"
    say "and put kernels into build/kernels/NAME/{vmlinuz,vmlinux,modules/*.ko} (arm64: build/arm64/kernels) for the tests with Linux guests"
    exit 1
    ;;
esac
install_packages
machine=$(dpkg --print-architecture)
[ "$machine" != arm64 ] || out=$PWD/build/arm64/kernels
fetch_kernels
fetch_qemu
fetch_multiboot
fetch_arm64
fetch_gdb
