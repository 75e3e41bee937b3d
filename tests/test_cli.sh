#!/bin/sh
# test_cli.sh: what is wrong with a command line or a file is said in one sentence that names the thing and the remedy,
# with status 2 (the command line) or 3 (a file, or this host), before any VM exists.
set -u
VMM=${VMM:-$PWD/vmm}
T=$(mktemp -d)
trap 'chmod -R u+rwx "$T"; rm -rf "$T"' EXIT
failed=0

# bad STATUS PATTERN OPTION...: exactly one line, which matches
bad() {
    status=$1 pattern=$2
    shift 2
    out=$(timeout 60 "$VMM" "$@" </dev/null 2>&1)
    rc=$?
    if [ $rc = "$status" ] && [ "$(echo "$out" | wc -l)" = 1 ] && echo "$out" | grep -Eq -e "$pattern"; then
        echo "ok - vmm $* | $(echo "$out" | cut -c 1-150)" | sed "s|$T/||g"
    else
        failed=1
        echo "not ok - vmm $*: status $rc instead of $status, or not one line with '$pattern'" | sed "s|$T/||g"
        echo "$out" | head -n 5 | sed 's/^/# /'
    fi
}

cd "$T" || exit 1
# a bzImage and an ELF kernel that are whole as far as a header goes: cases below damage copies of them
word() { # FILE OFFSET OCTAL-BYTES
    printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
head -c 65536 /dev/zero >bz
word bz 497 '\001'                  # setup_sects
word bz 510 '\125\252'              # boot flag
word bz 514 'HdrS\017\002'          # protocol 2.15
word bz 529 '\001'                  # loadflags: LOADED_HIGH
word bz 566 '\003\000'              # xloadflags: 64-bit entry
word bz 568 '\377\007\000\000'      # cmdline_size
word bz 500 '\000\016\000\000'      # syssize, in 16 bytes
word bz 513 '\152'                  # length of the header
word bz 556 '\377\377\377\177'      # an initrd ends below 2 GiB
word bz 560 '\000\000\040\000\001' # alignment 2 MiB, relocatable
word bz 600 '\000\000\000\001'      # preferred address 16 MiB
word bz 608 '\000\000\000\002'      # init_size 32 MiB
head -c 4096 /dev/zero >elf
word elf 0 '\177ELF\002\001\001'
word elf 16 '\002\000\267\000'      # an executable, for aarch64
head -c 4096 /dev/zero >arm64
word arm64 56 'ARM\144'
head -c 4096 /dev/zero >packed
word packed 0 '\037\213'
head -c 41943040 /dev/zero >big.rd
head -c 1048576 /dev/zero >disk
head -c 1000 /dev/zero >disk.odd
head -c 1048576 /dev/zero >cow
word cow 0 'QFI\373\000\000\000\003'
head -c 1048576 /dev/zero >vmdk
word vmdk 0 'KDMV'
: >empty
echo 'just text, nothing that could be booted' >text
mkdir dir
cp text secret
chmod 0 secret

bad 2 "did you mean --kernel" --kernal bz
bad 2 "'--qqqqqqqqqqqq'" --qqqqqqqqqqqq
bad 2 '.' -Z
bad 2 '--kernel' --kernel
bad 2 '--mem' --kernel bz --mem 12X
bad 2 '--mem' --kernel bz --mem ''
bad 2 '--mem' --kernel bz --mem -5
bad 2 '--mem' --kernel bz --mem 99999999999999999999
bad 2 '--mem' --kernel bz --mem 1P
bad 2 '--cpus' --kernel bz --cpus 0
bad 2 '--cpus' --kernel bz --cpus 4096
bad 2 '--cpus' --kernel bz --cpus two
bad 2 '--mode' --binary text --entry 0 --mode 48
bad 2 '--entry' --binary text
bad 2 '--entry' --binary text --entry zero
bad 2 '--serial' --kernel bz --serial tty
bad 2 '--console' --kernel bz --console=vga
bad 2 'give kernel, split or user' --kernel bz --irqchip none
bad 2 'give pci or mmio' --kernel bz --transport isa
bad 2 '--log' --kernel bz --log loud
bad 2 '--timeout' --kernel bz --timeout soon
bad 2 '--time' --kernel bz --time=3
bad 2 'net.*tap0' --kernel bz --net tap0
bad 2 'MAC' --kernel bz --net tap=tap0,mac=52:54:00
bad 2 'even first byte' --kernel bz --net tap=tap0,mac=53:54:00:00:00:00
bad 2 'queues' --kernel bz --net tap=tap0,queues=99
bad 2 'vhost' --kernel bz --net passt,vhost=on
bad 2 'disk queues.*1 to 16' --kernel bz --disk disk,queues=99
bad 2 'cache=fast.*writeback or none' --kernel bz --disk disk,cache=fast
bad 2 "disk bps.*'fast' is not a rate" --kernel bz --disk disk,bps=fast
bad 2 'serial.*at most 20' --kernel bz --disk disk,serial=123456789012345678901
bad 2 'format=vmdk.*qemu-img' --kernel bz --disk disk,format=vmdk
bad 2 'ro and overlay exclude' --kernel bz --disk disk,overlay,ro
bad 2 'exclude' --kernel bz --binary text --entry 0
bad 2 'kernel' bz
bad 2 '.' --mem 1G

bad 3 "kernel 'nowhere' does not exist; check the path" --kernel nowhere
bad 3 'nowhere' --log 0 --kernel nowhere
bad 3 'empty' --kernel empty
bad 3 'dir' --kernel dir
[ "$(id -u)" = 0 ] || bad 3 'secret' --kernel secret
bad 3 'text' --kernel text
bad 3 'elf.*(aarch64|arm64|architecture|x86)' --kernel elf
bad 3 'nowhere' --kernel bz --initrd nowhere
bad 3 'dir' --kernel bz --initrd dir
bad 3 'empty' --kernel bz --initrd empty
bad 3 'nowhere' --kernel bz --disk nowhere
bad 3 'dir' --kernel bz --disk dir
bad 3 'disk.odd.*512' --kernel bz --disk disk.odd
bad 3 'disk' --kernel bz --disk disk --disk disk
bad 3 'cow.*looks like qcow2.*say format=' --kernel bz --disk cow
bad 3 'cow.*damaged.*qemu-img check' --kernel bz --disk cow,format=qcow2
bad 3 'disk.*not a qcow2 image' --kernel bz --disk disk,format=qcow2
bad 3 'vmdk.*qemu-img convert' --kernel bz --disk vmdk
bad 3 'nowhere' --kernel bz --disk nowhere,overlay
bad 3 'nowhere/o' --kernel bz --disk disk,overlay=nowhere/o
bad 3 'vmdk.*not a qcow2 image' --kernel bz --disk disk,overlay=vmdk
bad 3 'nowhere' --binary nowhere --entry 0x1000
bad 3 'empty' --binary empty --entry 0x1000
for n in 1 100 511 600 1000 1024 58352; do
    head -c $n bz >"cut$n"
    bad 3 "cut$n" --kernel "cut$n"
done
bad 3 'packed.*gzip.*decompress' --kernel packed
bad 3 'arm64.*x86-64' --kernel arm64
bad 3 'bz.*give --mem 48M' --kernel bz --mem 32
bad 3 'big.rd.*give --mem 88M' --kernel bz --initrd big.rd --mem 64
bad 3 'command line has [0-9]* bytes.*takes 2047' --kernel bz --cmdline "$(head -c 2048 /dev/zero | tr '\0' x)"
bad 3 'outside RAM' --kernel bz,kernel_load_addr=0x40000000
bad 3 'bz.*PVH' --kernel bz,entry=pvh
bad 3 'himem_start' --kernel bz,himem_start=0x2000000
bad 3 'text: has .* bytes: a PC.s firmware has 64' --bios text
bad 3 'bz: has no jump at its reset vector' --bios bz
bad 3 'nowhere' --bios /nowhere/bios
bad 2 'exclude' --bios bz --kernel bz
bad 2 'bus=ide needs PCI' --kernel bz --disk bz,bus=ide --transport mmio
bad 3 'text.*RAM' --binary text --entry 0x80000000 --mem 16M
bad 3 'entry' --binary text --load 0x1000 --entry 0x2000
bad 3 '/nowhere/x' --binary text --entry 0x1000 --serial file:/nowhere/x
bad 3 '1 to 15 characters' --binary text --entry 0x1000 --net tap=a-name-that-is-too-long
bad 3 'descriptor 77 is not open' --binary text --entry 0x1000 --net tapfd=77
bad 3 'no helper.*nowhere' --binary text --entry 0x1000 --net unixgram=/nowhere/gvproxy
bad 3 'passt.*nowhere' --binary text --entry 0x1000 --net passt=/nowhere/passt
bad 3 'unix:|unix|socket' --binary text --entry 0x1000 --serial unix:text

# what only root can stage: no /dev/kvm, and one that this user may not open
if [ "$(id -u)" = 0 ]; then
    mkdir jail
    cp "$VMM" text jail/
    out=$(chroot jail /vmm --binary text --entry 0x1000 2>&1) && rc=0 || rc=$?
    [ $rc = 3 ] && [ "$out" != "${out#vmm: /dev/kvm is not there: }" ] && echo "ok - no /dev/kvm | $out" ||
        { failed=1; echo "not ok - no /dev/kvm: status $rc, $out"; }
    chmod 755 "$T"
    out=$(setpriv --reuid=65534 --regid=65534 --clear-groups jail/vmm --binary text --entry 0x1000 2>&1) && rc=0 || rc=$?
    [ $rc = 3 ] && echo "$out" | grep -Eq "no permission to open /dev/kvm.* group '?[a-z]+" && echo "ok - /dev/kvm of others | $out" ||
        { failed=1; echo "not ok - /dev/kvm of others: status $rc, $out"; }
else
    echo "skip - no /dev/kvm, no permission for it: only root can stage these"
fi
exit $failed
