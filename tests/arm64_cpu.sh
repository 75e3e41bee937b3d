#!/bin/sh
# arm64_cpu.sh: what guests get of a processor that has SVE and pointer authentication, and as much RAM as 64 GiB.
# kernels: cloud-6.1
. tests/cases.sh
k=cloud-6.1
features='x=; for f in $(grep -m 1 Features /proc/cpuinfo); do case $f in sve|paca|pacg) x=$x,$f ;; esac; done; echo has$x'

if grep '^Features.* paca' /proc/cpuinfo | grep -q ' sve '; then
    linux $k/vmlinuz "$features" --cpu host,sve=on,pauth=on
    check "SVE and pointer authentication on demand" 0 '^has,sve,paca,pacg$'
else
    skip "SVE and pointer authentication on demand" "this host's processor lacks them"
fi
linux $k/vmlinuz "$features" --cpus 2
check "and not without" 0 '^has$'
linux $k/vmlinuz 'echo $(grep MemTotal /proc/meminfo)' --mem 64G
check "64 GiB of RAM" 0 '^MemTotal: 6[0-9]{7} kB$'
exit $failed
