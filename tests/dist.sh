#!/bin/sh
# dist.sh DIRECTORY: copies of the headers with what they include inlined, so that one file is all that a project takes along.
set -eu
cd "$(dirname "$0")/.."
out=${1:-dist}
mkdir -p "$out"
for h in hv_kvm.h hv_nvmm.h hv_x86.h host.h boot.h dev_legacy.h dev_pci.h dev_virtio.h dev_vfio.h disk.h debug.h dev_bios.h; do
    # each has its own include guards: two such files in one program share one vocabulary
    sed -e '/^#include "hv_x86.h"$/{r hv_x86.h
d;}' "$h" | sed -e '/^#include "debug.h"$/{r debug.h
d;}' | sed -e '/^#include "vmm.h"$/{r vmm.h
d;}' >"$out/$h"
    { echo; echo '/*'; cat LICENSE; echo '*/'; } >>"$out/$h"
done
echo "dist: $out/ holds $(ls "$out" | tr '\n' ' ')"
