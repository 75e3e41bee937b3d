#!/bin/sh
# guest_net.sh: the network card, as Linux uses it, over a tap, vhost and passt.
# needs: cloud
# programs: passt
# modules: tun vhost_iotlb tap vhost vhost_net
# stall: 200
. tests/cases.sh
k=$(first_kernel '[cg]*-*')
[ "$(id -u)" = 0 ] || { skip "network" "taps and addresses are root's"; exit 0; }
for m in tun vhost_iotlb tap vhost vhost_net; do
    [ ! -e build/lab/$m.ko ] || insmod build/lab/$m.ko || :
done
[ -e /dev/net/tun ] || { skip "network" "no /dev/net/tun: modprobe tun"; exit 0; }
port=5077
(cd "$T" && cpio -idu) <build/tools.cpio 2>/dev/null
load=$T/bin/netload
cat "build/initramfs-$k.cpio" build/tools.cpio >"$T/initrd"
ip link set lo up
$load serve $port &
server=$!
trap 'kill $server 2>/dev/null; ip link del vmmup 2>/dev/null; rm -rf "$T"' EXIT

# What the guest does first: its end of the cable, and then it waits until that is plugged in.
up='ip addr add 10.99.0.2/24 dev eth0; ip link set eth0 up; until grep -q 1 /sys/class/net/eth0/carrier; do sleep 0.1; done'

# card NAME COMMANDS OPTION...: a guest with a card on a tap of its own, which this end sets up while the guest boots.
card() {
    commands=$2
    name=$1
    shift 2
    start --kernel "build/kernels/$k/vmlinuz" --initrd "$T/initrd" --append "run=\"$up; $commands\"" "$@"
    until [ -e /sys/class/net/vmmt0 ] || ! kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    ip addr add 10.99.0.1/24 dev vmmt0 && ip link set vmmt0 up ||
        echo "# $name: the tap cannot be set up"
}

traffic='ping -c 3 10.99.0.1; netload send 10.99.0.1 5077 64 check; echo SENT; netload receive 10.99.0.1 5077 64 check; echo RECEIVED; netload ask 10.99.0.1 5077 100'
carried() { # NAME: what $traffic prints is there
    check "$1: ping" 0 '^3 packets transmitted, 3 packets received'
    n=$(grep -c '^bytes=67108864 errors=0 ' "$out")
    [ "$n" = 2 ] && ok "$1: 64 MiB each way, every byte right" || not_ok "$1: 64 MiB each way, every byte right" "$n of 2"
    check "$1: requests and answers" 0 '^requests=100 errors=0 '
}

for transport in pci mmio; do
    for vhost in off on; do
        name="$transport, tap, vhost $vhost"
        if [ $vhost = on ] && [ ! -e /dev/vhost-net ]; then
            skip "$name" "no /dev/vhost-net: modprobe vhost_net"
            continue
        fi
        card "$name" "echo card \$(cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu); $traffic" \
            --transport "$transport" --net "tap=vmmt0,mac=52:54:00:ab:cd:ef,mtu=1400,vhost=$vhost"
        for stage in SENT RECEIVED; do # the lab takes a machine for dead that says nothing for long
            await "^$stage" && echo "# $name: $stage"
        done
        stop
        check "$name: MAC and MTU as asked" 0 '^card 52:54:00:ab:cd:ef 1400$'
        carried "$name"

        # streams from all CPUs at once, so that all queues carry some
        [ "$transport" = pci ] || continue
        name="$name, 4 queues"
        card "$name" 'echo queues $(ls -d /sys/class/net/eth0/queues/rx-* | wc -l); for i in 0 1 2 3; do taskset $((1 << i)) netload send 10.99.0.1 5077 4 check & done; wait' \
            --cpus 4 --transport "$transport" --net "tap=vmmt0,queues=4,vhost=$vhost"
        stop
        check "$name: there" 0 '^queues 4$'
        n=$(grep -c '^bytes=4194304 errors=0 ' "$out")
        [ "$n" = 4 ] && ok "$name: streams of four CPUs" || not_ok "$name: streams of four CPUs" "$n of 4"
    done

    name="$transport: link"
    card "$name" 'echo LINK up; while grep -q 1 /sys/class/net/eth0/carrier; do sleep 0.1; done; echo LINK down; until grep -q 1 /sys/class/net/eth0/carrier; do sleep 0.1; done; ping -c 1 10.99.0.1' \
        --transport "$transport" --net tap=vmmt0
    await '^LINK up' && ip link set vmmt0 down
    await '^LINK down' && ip link set vmmt0 up
    stop
    check "$name goes down with the tap, and up again" 0 '^1 packets transmitted, 1 packets received'
done

# passt takes over the host's address and routes; its gateway leads to this host's own services.
if command -v passt >/dev/null; then
    # a lab machine has no network for passt to stand for: a tap that nobody serves will do; nor has it users
    mkdir -p /etc
    [ -e /etc/passwd ] || printf '%s\n' root:x:0:0::/:/bin/sh nobody:x:65534:65534::/:/bin/false >/etc/passwd
    if ! ip route | grep -q ^default; then
        tunctl -t vmmup >/dev/null && ip addr add 192.0.2.1/24 dev vmmup && ip link set vmmup up &&
            ip route add default via 192.0.2.254
    fi
    # passt moves to a root of its own, which works on all file systems but the initramfs: there a bind mount of
    # it becomes the root first, as switch_root does it
    if grep -q ' / rootfs ' /proc/mounts; then
        mkdir -p /vmm-root
        cat >"$T/vmm" <<'SH'
#!/bin/sh
exec unshare -m sh -c 'mount --rbind / /vmm-root && cd /vmm-root && mount --move . / &&
    exec chroot . sh -c "cd \"$here\" && exec ./vmm \"\$@\"" vmm "$@"' vmm "$@"
SH
        chmod +x "$T/vmm"
        export here="$PWD"
        VMM=$T/vmm
    fi
    gateway=$(ip route | sed -n 's/^default via \([0-9.]*\).*/\1/p' | head -n 1)
    address=$(ip -4 addr show dev "$(ip route | sed -n 's/^default .*dev \([^ ]*\).*/\1/p' | head -n 1)" |
        sed -n 's/.*inet \([0-9.\/]*\).*/\1/p' | head -n 1)
    plug="ip addr add $address dev eth0; ip link set eth0 mtu 65520 up; ip route add default via $gateway"
    linux "$k/vmlinuz" "$plug; netload send $gateway $port 64 check; netload receive $gateway $port 64 check; netload ask $gateway $port 100" \
        --net passt --initrd "$T/initrd"
    n=$(grep -c '^bytes=67108864 errors=0 ' "$out")
    [ "$n" = 2 ] && ok "passt: 64 MiB each way, every byte right" || not_ok "passt: 64 MiB each way, every byte right" "$n of 2"
    check "passt: requests and answers" 0 '^requests=100 errors=0 '
else
    skip "passt" "it is not installed"
fi
exit $failed
