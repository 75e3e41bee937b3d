#!/bin/sh
# guest_console.sh: the virtio console's size, ports with data both ways, clients that come and go, and the limit of
# random numbers, as Linux uses them.
# needs: cloud
. tests/cases.sh
k=$(first_kernel '[cg]*-*')
(cd "$T" && cpio -idm bin/wire) <build/tools.cpio 2>/dev/null
wire=$T/bin/wire

# What the guest runs is long: it comes as a file.
guest() { # the script on standard input; makes the initramfs $T/initrd
    mkdir -p "$T/root"
    cat >"$T/root/script"
    (cat "build/initramfs-$k.cpio" && cd "$T/root" && find . | cpio -o -H newc 2>/dev/null) >"$T/initrd"
}
sum() { md5sum <"$1" | cut -d ' ' -f 1; }

guest <<'EOF2'
until [ "$(stty size)" != '0 0' ]; do sleep 0.1; done
echo "first $(stty size)"
echo RESIZE
old=$(stty size)
until [ "$(stty size)" != "$old" ]; do sleep 0.1; done
echo "second $(stty size)"
EOF2
for transport in pci mmio; do
    rc=0
    "$wire" term 101x31 RESIZE 93x27 "$VMM" --timeout 60 --transport $transport --console virtio \
        --kernel "build/kernels/$k/vmlinuz" --initrd "$T/initrd" --append 'run="sh /script"' >"$T/raw" 2>&1 || rc=$?
    tr -d '\r' <"$T/raw" >"$out"
    check "virtio console has the terminal's size ($transport)" 0 '^first 31 101$'
    check "virtio console follows the terminal's size ($transport)" 0 '^second 27 93$'
done

# Four serial ports, of which each two share a line: all write at once, COM2 listens too.
guest <<'EOF2'
for i in 1 2 3; do stty -F /dev/ttyS$i raw -echo; done
seq 1 2000 >/dev/ttyS2 &
seq 2001 4000 >/dev/ttyS3 &
seq 4001 6000
wait
echo READY >/dev/ttyS1
read -r line </dev/ttyS1
echo "got $line" >/dev/ttyS1
EOF2
start --kernel "build/kernels/$k/vmlinuz" --initrd "$T/initrd" --append 'run="sh /script"' --serial "file:$T/com1" \
    --serial stdio --serial "file:$T/com3" --serial "file:$T/com4"
await '^READY' && printf 'a line\n' >&3
stop
check "four serial ports: COM2 both ways" 0 '^got a line$'
tr -d '\r' <"$T/com1" | grep -E '^[0-9]+$' >"$T/com1.lines"
seq 1 2000 | cmp - "$T/com3" && seq 2001 4000 | cmp - "$T/com4" && seq 4001 6000 | cmp - "$T/com1.lines" &&
    ok "four serial ports: nothing lost on shared lines" || not_ok "four serial ports: nothing lost on shared lines" "see above"

# Up to a ready file, so that the host's side comes when the guest is there. Of the ports one is read by nobody and one
# has a client that never reads: neither holds up anything else.
guest <<'EOF2'
port() {
    until grep -lx "$1" /sys/class/virtio-ports/*/name >/tmp/found 2>/dev/null; do sleep 0.1; done
    read -r name </tmp/found
    name=${name%/name}
    echo "/dev/${name##*/}"
}
head -c 1048576 /dev/urandom >/tmp/data
echo "sent $(md5sum </tmp/data)"
exec 4<>"$(port duplex)" 5<>"$(port stuck)"
head -c 4194304 /dev/zero >&5 &
cat /tmp/data >"$(port log)" &
log=$!
cat /tmp/data >&4 &
echo "got $(head -c 1048576 <&4 | md5sum)"
wait $log $!
echo ALL
until read -r line <&4; do sleep 0.1; done
echo "next $line"
echo "answer to $line" >&4
kill -0 %1 && echo "stuck port waits"
start=$(cut -d . -f 1 /proc/uptime)
dd if=/dev/hwrng bs=256 count=16 2>/dev/null | wc -c
[ $(($(cut -d . -f 1 /proc/uptime) - start)) -ge 2 ] && echo "random numbers took their time"
EOF2
head -c 1048576 /dev/urandom >"$T/input"
for transport in pci mmio; do
    start --transport $transport --kernel "build/kernels/$k/vmlinuz" --initrd "$T/initrd" --append 'run="sh /script"' \
        --rng rate=1000 --port "duplex=unix:$T/duplex" --port "log=file:$T/log" --port "stuck=unix:$T/stuck" \
        --port "unread=unix:$T/unread"
    until [ -S "$T/unread" ] || ! kill -0 "$pid"; do sleep 0.1; done
    "$wire" dial "$T/stuck" </dev/null >/dev/null &
    stuck=$!
    "$wire" dial "$T/unread" <"$T/input" >/dev/null &
    unread=$!
    sleep 0.2
    kill -STOP $stuck
    "$wire" dial "$T/duplex" <"$T/input" >"$T/output" &
    first=$!
    await '^ALL'
    for i in 1 2 3 4 5 6 7 8 9 10; do
        [ "$(wc -c <"$T/output")" -lt 1048576 ] || break
        sleep 0.2
    done
    kill $first # it leaves only now
    echo hello | "$wire" dial "$T/duplex" >"$T/answer" &
    dialled=$!
    await '^next' && wait $dialled
    stop
    kill -KILL $stuck $unread
    check "1 MiB from a socket ($transport)" 0 "^got $(sum "$T/input")"
    check "1 MiB to a socket ($transport)" 0 "^sent $(sum "$T/output")"
    check "1 MiB to a file ($transport)" 0 "^sent $(sum "$T/log")"
    check "the next client is heard ($transport)" 0 '^next hello$'
    [ "$(cat "$T/answer")" = 'answer to hello' ] && ok "the next client is answered ($transport)" ||
        not_ok "the next client is answered ($transport)" "it read '$(head -c 60 "$T/answer")'"
    check "a client that does not read holds up its port ($transport)" 0 '^stuck port waits'
    check "random numbers are limited ($transport)" 0 '^random numbers took their time$'
    [ ! -e "$T/duplex" ] && ok "sockets are removed ($transport)" || not_ok "sockets are removed ($transport)" "one is left"
done
exit $failed
