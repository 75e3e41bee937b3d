#!/bin/sh
# test_qcow2.sh: disk.h and qemu-img read each other's images; a raw file that gets the same writes says what is right.
set -u
cd "$(dirname "$0")/.." || exit 1
tool=$PWD/build/tests/disk_tool
command -v qemu-img >/dev/null || { echo 'skip - qcow2 against qemu-img: no qemu-img, run make deps'; exit 0; }
T=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)
trap 'rm -rf "$T"' EXIT
cd "$T" || exit 1
failed=0

tell() { # NAME STATUS
    if [ "$2" = 0 ]; then
        echo "ok - $1"
    else
        failed=1
        echo "not ok - $1"
        sed 's/^/# /' err | tail -n 8
    fi
    : >err
}
quietly() { "$@" >>err 2>&1; }

# 9 MiB: noise, text that compresses, zeroes, noise again up to an odd end
head -c 3000000 /dev/urandom >base.raw
yes 'all work and no play makes jack a dull boy' | head -c 2000000 >>base.raw
truncate -s 8M base.raw
head -c 1048064 /dev/urandom >>base.raw
truncate -s 9M base.raw
len=$((9 << 20))

# What a guest does: parts, whole clusters, ranges; the same for IMAGE and the model.
workload() { # FORMAT IMAGE
    "$tool" "$1" "$2" write 100000 5000 1 write 0 512 2 write 4194304 1500000 3 flush discard 2097152 2097152 \
        zero 6000128 700000 write 2200064 70000 4 keep 300032 400000 write 330240 3072 5 flush \
        write 8000000 $((len - 8000000)) 6 discard 0 2097152 zero 7340032 300 write $((len - 512)) 512 7 flush
}
same() { # IMAGE: reads as the model does, for us and for qemu-img, which finds nothing to complain about
    "$tool" qcow2 "$1" dump >seen.raw 2>>err && quietly cmp seen.raw model.raw &&
        quietly qemu-img check -q "$1" && quietly qemu-img compare -q -f qcow2 -F raw "$1" model.raw
}
# proper NAME IMAGE: read, write, read again
proper() {
    cp base.raw model.raw
    same "$2"
    rc=$?
    quietly workload qcow2 "$2" && quietly workload raw model.raw || rc=1
    same "$2" || rc=1
    tell "$1" $rc
    rm -f "$2"
}
for size in 512 4k 64k 2M; do
    quietly qemu-img convert -O qcow2 -o cluster_size=$size base.raw a.qcow2
    proper "version 3, clusters of $size" a.qcow2
    quietly qemu-img convert -O qcow2 -o compat=0.10,cluster_size=$size base.raw a.qcow2
    proper "version 2, clusters of $size" a.qcow2
done
for bits in 1 2 4 8 32 64; do
    quietly qemu-img convert -O qcow2 -o cluster_size=4k,refcount_bits=$bits base.raw a.qcow2
    proper "refcounts of $bits bits" a.qcow2
done
for size in 512 64k 2M; do
    quietly qemu-img convert -c -O qcow2 -o cluster_size=$size base.raw a.qcow2
    proper "zlib, clusters of $size" a.qcow2
    quietly qemu-img convert -c -O qcow2 -o compression_type=zstd,cluster_size=$size base.raw a.qcow2
    proper "zstd, clusters of $size" a.qcow2
done
for how in metadata falloc full; do
    quietly qemu-img create -q -f qcow2 -o preallocation=$how a.qcow2 9M
    quietly qemu-img convert -n -O qcow2 base.raw a.qcow2
    proper "preallocation=$how" a.qcow2
done
quietly qemu-img convert -O qcow2 -o lazy_refcounts=on base.raw a.qcow2
proper "lazy refcounts" a.qcow2

# Backing files: the overlay longer and shorter than what it covers, formats mixed, names relative to the image.
chain() { # NAME LENGTH OPTION...: an overlay over base.qcow2 (over base.raw) in a directory of its own
    name=$1 size=$2
    shift 2
    mkdir -p sub/dir
    rm -f sub/base.qcow2 sub/dir/a.qcow2
    quietly qemu-img create -q -f qcow2 -F raw -b ../base.raw sub/base.qcow2
    quietly "$tool" qcow2 sub/base.qcow2 write 1000000 200000 9 zero 3500032 100000 flush
    quietly qemu-img create -q -f qcow2 -F qcow2 -b ../base.qcow2 "$@" sub/dir/a.qcow2 $size
    cp base.raw model.raw
    quietly "$tool" raw model.raw write 1000000 200000 9 zero 3500032 100000 flush
    truncate -s $size model.raw
    rc=0
    same sub/dir/a.qcow2 || rc=1
    if [ $size -gt $len ]; then more="write $((size - 70000)) 60000 8"; else more=; fi
    for x in "qcow2 sub/dir/a.qcow2" "raw model.raw"; do
        # shellcheck disable=SC2086
        quietly "$tool" $x write 10 100 1 write 1100000 5 2 write 3500000 70000 3 zero 0 4096 zero 4194304 800000 \
            write 4300000 10000 4 flush $more flush || rc=1
    done
    same sub/dir/a.qcow2 || rc=1
    tell "$name" $rc
}
chain "backing chain of three" $len
chain "overlay longer than its backing file" $((len + 500000 / 512 * 512))
chain "overlay shorter than its backing file" 5000192
chain "overlay of version 2" $len -o compat=0.10
chain "overlay with clusters of 512 bytes" $len -o cluster_size=512

# A build without libdeflate says what it cannot read.
quietly qemu-img convert -c -O qcow2 base.raw a.qcow2
! BARE=1 "$tool" -r qcow2 a.qcow2 dump >seen.raw 2>>err && grep -q 'compressed clusters, which this build cannot read' err
tell "compressed clusters in a build that cannot inflate" $?

# Clusters and tables that a snapshot shares are copied, and the snapshot keeps its content.
quietly qemu-img convert -c -O qcow2 -o cluster_size=4k base.raw a.qcow2
quietly "$tool" qcow2 a.qcow2 write 0 300000 20 flush
quietly qemu-img snapshot -c one a.qcow2
"$tool" qcow2 a.qcow2 dump >model.raw 2>>err
cp model.raw one.raw
quietly workload qcow2 a.qcow2 && quietly workload raw model.raw && same a.qcow2 &&
    quietly qemu-img convert -l one -O raw a.qcow2 one2.raw && quietly cmp one.raw one2.raw &&
    quietly qemu-img snapshot -d one a.qcow2 && same a.qcow2
tell "internal snapshot" $?

# Our own overlays, over raw and qcow2.
for format in raw qcow2; do
    quietly qemu-img convert -O $format base.raw base.$format
    cp base.raw model.raw
    rm -f o.qcow2
    quietly "$tool" create o.qcow2 "$PWD/base.$format" $format && proper "overlay over $format" o.qcow2
done

# What is freed is used again: the same range, discarded and written many times.
quietly qemu-img create -q -f qcow2 a.qcow2 64M
for i in 1 2 3 4 5; do
    quietly "$tool" qcow2 a.qcow2 write 0 8000000 $i flush discard 0 8388608 flush
done
[ "$(stat -c %s a.qcow2)" -lt 10000000 ] && [ "$(stat -c %b a.qcow2)" -lt 4000 ] && quietly qemu-img check -q a.qcow2
tell "freed clusters are used again, and their room is given back" $?

# More clusters than the refcount table has room for: it moves.
quietly qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 a.qcow2 16M
truncate -s 16M model.raw
rc=0
for x in "qcow2 a.qcow2" "raw model.raw"; do
    # shellcheck disable=SC2086
    quietly "$tool" $x zero 0 16777216 write 0 7000000 1 flush write 7000000 9000000 2 flush || rc=1
done
same a.qcow2 || rc=1
tell "the refcount table grows" $rc

# A process that dies leaves leaks at most, and what it flushed.
quietly qemu-img create -q -f qcow2 a.qcow2 64M
quietly "$tool" qcow2 a.qcow2 write 0 5000000 1 flush write 5000000 9000000 2 zero 0 1048576 kill
qemu-img check -q a.qcow2 >>err 2>&1
rc=$?
truncate -s 0 model.raw
truncate -s 64M model.raw
quietly "$tool" raw model.raw write 0 5000000 1
"$tool" qcow2 a.qcow2 dump 2>>err | cmp -n 5000000 - model.raw >>err 2>&1 && { [ $rc = 0 ] || [ $rc = 3 ]; }
tell "killed: leaks at most" $?

# refused NAME REMEDY FORMAT IMAGE [FLAG]
refused() {
    "$tool" ${5:-} "$3" "$4" dump >seen.raw 2>err
    [ $? = 1 ] && [ ! -s seen.raw ] && grep -q -- "$2" err
    tell "refused with a remedy: $1" $?
}
poke() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null; }
quietly qemu-img create -q -f qcow2 a.qcow2 1M
refused "writable qcow2 without a format" 'say format=qcow2' probe a.qcow2
quietly "$tool" -r probe a.qcow2 dump
tell "a read-only qcow2 without a backing file is told by content" $?
quietly qemu-img create -q -f qcow2 -F raw -b base.raw b.qcow2
refused "backing file, format told by content" 'say format=qcow2' probe b.qcow2 -r
refused "raw as qcow2" 'not a qcow2 image' qcow2 base.raw
quietly qemu-img create -q -f qcow2 -u -F qcow2 -b a.qcow2 b.qcow2 1M
poke b.qcow2 112 '\\0\\0\\0\\0' # where the extension with the format is: as if there were none
refused "backing file that may be qcow2" 'rebase -u -F' qcow2 b.qcow2
quietly qemu-img create -q -f qcow2 -u -F qcow2 -b c.qcow2 b.qcow2 1M
quietly qemu-img create -q -f qcow2 -u -F qcow2 -b b.qcow2 c.qcow2 1M
refused "loop" 'its own backing file' qcow2 b.qcow2
quietly qemu-img create -q -f qcow2 -u -F vmdk -b a.qcow2 b.qcow2 1M
refused "vmdk as backing file" 'qemu-img convert' qcow2 b.qcow2
quietly qemu-img create -q -f qcow2 -u -F raw -b nbd://host/x b.qcow2 1M
refused "backing file over a network" 'only files' qcow2 b.qcow2
quietly qemu-img create -q -f qcow2 -o data_file=data.raw b.qcow2 1M
refused "external data file" 'qemu-img convert' qcow2 b.qcow2
quietly qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=64k b.qcow2 1M
refused "subclusters" 'qemu-img convert' qcow2 b.qcow2
quietly qemu-img create -q -f qcow2 --object secret,id=s,data=x -o encrypt.format=aes,encrypt.key-secret=s b.qcow2 1M
refused "encryption" 'qemu-img convert' qcow2 b.qcow2
for f in vmdk vdi vhdx qed vpc; do
    quietly qemu-img create -q -f $f b.img 1M
    refused "$f" "looks like a $f image" probe b.img -r
done
poke a.qcow2 79 '\001'
refused "dirty" 'qemu-img check -r all' qcow2 a.qcow2
quietly "$tool" -r qcow2 a.qcow2 dump
tell "a dirty image can be read" $?
poke a.qcow2 79 '\002'
refused "corrupt" 'qemu-img check -r all' qcow2 a.qcow2
poke a.qcow2 72 '\200'
refused "unknown features" 'qemu-img convert' qcow2 a.qcow2 -r

# A bitmap is dropped by the first write, as the specification asks of those who do not keep it up to date.
quietly qemu-img create -q -f qcow2 a.qcow2 1M && quietly qemu-img bitmap --add a.qcow2 b
quietly "$tool" qcow2 a.qcow2 flush && qemu-img info a.qcow2 | grep -q 'name: b' &&
    quietly "$tool" qcow2 a.qcow2 write 0 512 1 flush && ! qemu-img info a.qcow2 2>>err | grep -q 'name: b'
tell "bitmaps are invalidated by the first write" $?
exit $failed
