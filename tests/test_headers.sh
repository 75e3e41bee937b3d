#!/bin/sh
# test_headers.sh: each header as an outsider meets it: alone, in C11 and C++17, with gcc and clang, twice in one
# program, beside the kernel's headers, as a one-file copy of `make dist`; and its quick start is what is compiled.
set -u
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
failed=0
warn='-Wall -Wextra -Wpedantic -Wshadow -Werror'

# tell NAME: ok, unless something was printed into $T/err
tell() {
    if [ -s "$T/err" ]; then
        failed=1
        echo "not ok - $1: $(grep -m 1 -E 'error|warning|undefined|differs' "$T/err" || head -n 1 "$T/err")"
        head -n 10 "$T/err" | sed 's/^/# /'
    else
        echo "ok - $1"
    fi
    : >"$T/err"
}
compile() { # COMPILER ARG...
    "$@" >>"$T/err" 2>&1 || echo "error: $*" >>"$T/err"
}
compilers=gcc
command -v clang >/dev/null && compilers='gcc clang'

# alone DIR HEADER: declarations in C11 and C++17, implementation in C11, then two of everything in one program
alone() {
    name=$(basename "$2" .h | tr a-z A-Z)
    case $2 in hv_x86.h | hv_nvmm.h) name=VMM ;; esac # with what they call
    printf '#include "%s"\n#include "%s"\nint use(void);\nint use(void) { return VMM_LOG_NONE; }\n' "$2" "$2" >"$T/decl.c"
    cp "$T/decl.c" "$T/decl.cc"
    printf '#define %s_IMPLEMENTATION\n#include "%s"\n#include "%s"\nint use(void);\nint main(void) { return use(); }\n' \
        "$name" "$2" "$2" >"$T/impl.c"
    printf '#define VMM_DEF static __attribute__((unused))\n#define %s_IMPLEMENTATION\n#include "%s"\n' "$name" "$2" >"$T/priv.c"
    for cc in $compilers; do
        compile $cc -std=c11 $warn -O1 -I"$1" -c "$T/decl.c" -o "$T/decl.o"
        compile $cc -std=c11 $warn -O1 -I"$1" -c "$T/impl.c" -o "$T/impl.o"
        compile $cc -std=c11 $warn -O1 -I"$1" -c "$T/priv.c" -o "$T/priv.o" # a second copy, private
        [ -s "$T/err" ] || compile $cc "$T/decl.o" "$T/impl.o" "$T/priv.o" -o "$T/prog" -pthread
        compile $cc -x c++ -std=c++17 $warn -I"$1" -fsyntax-only "$T/decl.cc"
    done
}

for h in vmm.h hv_kvm.h hv_nvmm.h hv_x86.h host.h boot.h dev_legacy.h dev_pci.h dev_virtio.h dev_vfio.h disk.h debug.h dev_bios.h; do
    alone . $h
    tell "$h alone, in C11 and C++17, twice in a program"
done

printf '#define BOOT_ARM64\n#include "boot.h"\nint use(void);\nint use(void) { return BOOT_ARCH_ARM64; }\n' >"$T/arm.cc"
printf '#define BOOT_IMPLEMENTATION\n' | cat - "$T/arm.cc" >"$T/arm.c"
for cc in $compilers; do
    for f in -UBOOT_NO_X86 -DBOOT_NO_X86; do
        compile $cc -std=c11 $warn $f -O1 -I. -c "$T/arm.c" -o "$T/arm.o"
        compile $cc -x c++ -std=c++17 $warn $f -I. -fsyntax-only "$T/arm.cc"
    done
done
tell "boot.h for arm64, with and without x86"

kernel='#include <linux/kvm.h>\n#include <linux/vhost.h>\n#include <linux/vfio.h>\n#include <linux/virtio_blk.h>\n#include <linux/pci_regs.h>\n'
ours='#include "hv_kvm.h"\n#include "hv_x86.h"\n#include "host.h"\n#include "boot.h"\n#include "dev_legacy.h"\n#include "dev_pci.h"\n#include "dev_virtio.h"\n#include "dev_vfio.h"\n#include "disk.h"\n#include "debug.h"\n#include "dev_bios.h"\n'
printf "#define _GNU_SOURCE\n#define VMM_IMPLEMENTATION\n$kernel${ours}int main(void) { return 0; }\n" >"$T/a.c"
printf "#define _GNU_SOURCE\n#define VMM_IMPLEMENTATION\n$ours${kernel}int main(void) { return 0; }\n" >"$T/b.c"
for cc in $compilers; do
    for f in a b; do
        compile $cc -std=c11 $warn -O1 -I. "$T/$f.c" -o "$T/$f" -pthread
    done
done
tell "all headers together with the kernel's, before and after"

# Others do not build with -Os, at which some warnings do not show.
for cc in $compilers; do
    compile $cc -std=c11 $warn -O2 -I. -c vmm.c -o "$T/vmm.o"
done
tell "vmm.c without a warning at -O2"

sh tests/dist.sh "$T/dist" >/dev/null 2>>"$T/err" || echo 'error: dist.sh' >>"$T/err"
for h in hv_kvm.h hv_nvmm.h hv_x86.h host.h boot.h dev_legacy.h dev_pci.h dev_virtio.h dev_vfio.h disk.h debug.h dev_bios.h; do
    mkdir -p "$T/one"
    cp "$T/dist/$h" "$T/one/"
    alone "$T/one" $h
    rm -rf "$T/one"
done
tell "one-file copies of make dist, each alone"

# Makefile leaves out of vmm-aarch64 what musl's printf needs for floating point
grep -nE '"[^"]*%[-+#0-9.*]*[lL]*[aefgAEFG]' vmm.c ./*.h >>"$T/err"
tell "nothing prints floating point"

# The QUICK START of a doc block, without indentation, is found line by line in the embed test.
quick_start() {
    sed -n '/^   QUICK START/,/^   CONFIGURATION/p' "$1" | sed -e '$d' -e 's/^   QUICK START//' -e 's/^ *//' -e '/^$/d'
}
for pair in vmm.h:test_vmm hv_kvm.h:embed_kvm hv_nvmm.h:embed_nvmm hv_x86.h:embed_x86 host.h:embed_host boot.h:embed_boot dev_legacy.h:embed_legacy \
    dev_pci.h:embed_pci dev_virtio.h:embed_virtio dev_vfio.h:embed_vfio disk.h:embed_disk debug.h:embed_debug \
    dev_bios.h:embed_bios; do
    h=${pair%:*} test=tests/${pair#*:}.c
    quick_start "$h" >"$T/doc"
    sed -n '/quick start \*\//,/\/\* end \*\//p' "$test" | sed -e '1d' -e '$d' -e 's/^ *//' -e '/^$/d' >"$T/used"
    [ -s "$T/doc" ] || echo "error: $h has no quick start" >>"$T/err"
    tr -s ' \n' '  ' <"$T/doc" >"$T/doc1"
    tr -s ' \n' '  ' <"$T/used" >"$T/used1"
    cmp -s "$T/doc1" "$T/used1" || { echo "the quick start of $h differs from $test"; diff "$T/doc" "$T/used"; } >>"$T/err"
done
tell "quick starts are what the tests compile"
exit $failed
