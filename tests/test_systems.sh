#!/bin/sh
# test_systems.sh [macos|netbsd|dragonfly|haiku]...: vmm compiled for systems that are not here, and for macOS also
# linked, against headers and lists of symbols of our own (tests/systems), whose values are those of the systems. It shows
# that the sources use nothing that is not there, not that they work: nothing of it is run.
set -u
cd "$(dirname "$0")/.." || exit 1
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
failed=0
warn='-std=c11 -Wall -Wextra -Wpedantic -Wshadow -Werror -O1'
stubs='-nostdlibinc -isystem tests/systems/include'

# tell NAME: ok, unless something was printed into $T/err
tell() {
    if [ -s "$T/err" ]; then
        failed=1
        echo "not ok - $1: $(grep -m 1 -E 'error|undefined' "$T/err" || head -n 1 "$T/err")"
        head -n 10 "$T/err" | sed 's/^/# /'
    else
        echo "ok - $1"
    fi
    : >"$T/err"
}
quietly() { "$@" >>"$T/err" 2>&1 || echo "error: $*" >>"$T/err"; }

# The values and layouts in our headers are those that were read from the systems' own.
drift() { # NAME TARGET [FLAG...]
    name=$1 target=$2
    shift 2
    quietly clang -target "$target" $stubs $warn "$@" -fsyntax-only tests/systems/drift.c
    tell "$name: our headers have its values and layouts"
}

# What a system does not have does not compile for it, whichever other system has it.
lacks() { # NAME TARGET WORD...
    name=$1 target=$2
    shift 2
    for word; do
        printf '#include "tests/systems/drift.c"\nint main(void)\n{\n    return (int)sizeof(%s);\n}\n' "$word" >"$T/lacks.c"
        if clang -target "$target" $stubs -std=c11 $haiku -I. -fsyntax-only "$T/lacks.c" >"$T/lacks" 2>&1 ||
            ! grep -Eq "undeclared identifier '$word'|no member named '${word#*.}'" "$T/lacks"; then
            echo "error: $word compiles" >>"$T/err"
        fi
    done
    tell "$name: what it lacks does not compile"
}

link() { # ARCH OBJECT [FLAG...]
    arch=$1 object=$2
    shift 2
    "$lld" -arch "$arch" -platform_version macos 13.0 15.0 -syslibroot "$T/sdk" -lSystem "$@" -o "$T/$arch.out" "$object"
}

# What links on macOS: the C library, the framework, and for arm64 libfdt, whose symbols are those of the one here.
sdk() {
    framework=$T/sdk/System/Library/Frameworks/Hypervisor.framework
    mkdir -p "$T/sdk/usr/lib" "$framework" "$T/fdt"
    cp tests/systems/libSystem.tbd "$T/sdk/usr/lib/"
    cp tests/macos/Hypervisor.tbd "$framework/"
    cp /usr/include/libfdt.h /usr/include/libfdt_env.h /usr/include/fdt.h "$T/fdt/"
    {
        printf -- "--- !tapi-tbd\ntbd-version: 4\ntargets: [ arm64-macos, x86_64-macos ]\ninstall-name: libfdt.dylib\n"
        printf 'exports:\n  - targets: [ arm64-macos, x86_64-macos ]\n    symbols: [ '
        nm -g "$(gcc -print-file-name=libfdt.a)" 2>/dev/null | sed -n 's/.* T \(fdt_.*\)/_\1, /p' | sort -u | tr -d '\n'
        printf '_fdt_last ]\n...\n'
    } >"$T/sdk/usr/lib/libfdt.tbd"
}

macos_vmm() { # ARCH: compiles and links it
    arch=$1 extra='' libs='-framework Hypervisor'
    [ "$arch" = x86_64 ] || extra='-DBOOT_ARM64 -DBOOT_NO_X86' libs="$libs -lfdt"
    quietly clang -target "$arch-apple-macos13" $stubs -isystem tests/macos -isystem "$T/fdt" $warn -I. \
        $extra -c vmm.c -o "$T/$arch.o"
    [ -s "$T/err" ] || quietly link "$arch" "$T/$arch.o" $libs
    tell "macOS $arch: vmm with hv_hvf.h compiles and links"
}

macos() {
    sdk
    for arch in arm64 x86_64; do
        drift "macOS $arch" "$arch-apple-macos13"
        macos_vmm $arch
        printf 'int hv_vm_creat(void);\nint kqueueue(void);\nint main(void) { return hv_vm_creat() + kqueueue(); }\n' >"$T/typo.c"
        quietly clang -target "$arch-apple-macos13" $warn -c "$T/typo.c" -o "$T/typo.o"
        if link $arch "$T/typo.o" -framework Hypervisor >"$T/typo" 2>&1 || ! grep -q 'undefined symbol: _*kqueueue' "$T/typo" ||
            ! grep -q 'undefined symbol: _*hv_vm_creat' "$T/typo"; then
            echo "error: a misspelt symbol links" >>"$T/err"
        fi
        tell "macOS $arch: misspelt symbols do not link"
    done
}

nvmm() { # NAME TARGET [FLAG...]
    drift "$@"
    name=$1 target=$2
    shift 2
    quietly clang -target "$target" $stubs $warn "$@" -I. -fsyntax-only vmm.c
    tell "$name: vmm with hv_nvmm.h compiles"
}

netbsd() {
    nvmm NetBSD x86_64-unknown-netbsd
    nvmm 'NetBSD 9' x86_64-unknown-netbsd -DSTUB_UDATA=intptr_t
    lacks NetBSD x86_64-unknown-netbsd F_PUNCHHOLE pthread_set_name_np readv_pos \
        '(struct sigaction){{0}}.sa_userdata'
}

dragonfly() {
    nvmm DragonFly x86_64-unknown-dragonfly
    lacks DragonFly x86_64-unknown-dragonfly FDISKSYNC fsync_range DIOCGMEDIASIZE F_FULLFSYNC pthread_setname_np readv_pos \
        '(struct stat){0}.st_type'
}

# Its errors are negative but for who asks for others, as the Makefile does; vmm.h insists.
haiku='-D_BSD_SOURCE -DB_USE_POSITIVE_POSIX_ERRORS'
haiku() {
    nvmm Haiku x86_64-unknown-haiku $haiku
    lacks Haiku x86_64-unknown-haiku preadv RLIMIT_MEMLOCK PF_ROUTE kqueue EV_ADD madvise fsync_range SIOCGIFMTU \
        '(struct stat){0}.st_flags'
    clang -target x86_64-unknown-haiku $stubs -std=c11 -D_BSD_SOURCE -I. -fsyntax-only vmm.c >"$T/negative" 2>&1
    grep -q 'B_USE_POSITIVE_POSIX_ERRORS' "$T/negative" || echo 'error: with negative errors it compiles' >>"$T/err"
    tell 'Haiku: with negative errors vmm does not compile'
}

# What make would do there.
makes() { # PATTERN ARGUMENT...
    pattern=$1
    shift
    make -n -B CC=cc FDT=/fdt "$@" >"$T/make" 2>&1 && grep -Eq -- "$pattern" "$T/make" || { echo "error: make $*"; cat "$T/make"; } >>"$T/err"
}
makefile() {
    makes '-framework Hypervisor -arch arm64 .*/fdt/lib/libfdt.a -o vmm$' SYSTEM=Darwin ARCH=arm64
    makes '-framework Hypervisor -arch x86_64  *-o vmm$' SYSTEM=Darwin ARCH=x86_64
    makes '^lipo -create vmm-arm64 vmm-x86_64 -output vmm$' SYSTEM=Darwin universal
    makes '^codesign .*--entitlements vmm.entitlements' SYSTEM=Darwin universal
    makes '^cc .* vmm.c -o vmm -pthread' SYSTEM=NetBSD
    makes '^cc .* vmm.c -o vmm -pthread' SYSTEM=DragonFly
    makes "^cc .* vmm.c -o vmm +$haiku -lposix_error_mapper -lnetwork -lbsd\$" SYSTEM=Haiku
    makes '^install -m 644 vmm.1 /usr/local/share/man/man1/vmm.1$' SYSTEM=DragonFly install
    makes '^install -m 644 vmm.1 /boot/system/non-packaged/documentation/man/man1/vmm.1$' SYSTEM=Haiku install
    tell "make builds on macOS, NetBSD, DragonFly and Haiku with what is there"
}

lld=$(command -v ld64.lld || ls /usr/lib/llvm-*/bin/ld64.lld 2>/dev/null | tail -n 1)
if ! command -v clang >/dev/null || [ -z "$lld" ]; then
    echo "skip - other systems: clang or ld64.lld is not installed, run make deps"
    exit 0
fi
: >"$T/err"
for system in ${@:-macos netbsd dragonfly haiku makefile}; do
    $system
done
exit $failed
