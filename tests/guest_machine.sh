#!/bin/sh
# guest_machine.sh: the machine that Linux finds: processors, memory, clocks, tables.
# needs: cloud full
. tests/cases.sh
k=$(first_kernel '[cg]*-*') full=$(first_kernel 'full-*')

for n in 1 2 4; do
    linux "$k/vmlinuz" 'echo $(nproc) online $(cat /sys/devices/system/cpu/online)' --cpus $n
    [ $n = 1 ] && list=0 || list=0-$((n - 1))
    check "$n CPUs" 0 "^$n online $list\$"
done
linux "$k/vmlinux,entry=pvh" 'echo $(nproc) online' --cpus 2
check "2 CPUs, PVH entry" 0 "^2 online\$"
linux "$k/vmlinuz" 'cd /sys/devices/system/cpu; echo $(cat cpu?/topology/core_id) of $(cat cpu?/topology/package_cpus_list)' --cpus 4
check "4 CPUs are cores of one package" 0 '^0 1 2 3 of 0-3 0-3 0-3 0-3$'

# MemTotal lacks what the kernel took before: its image, 1.6 % for page descriptors and, with RAM above 4 GiB, 64 MiB of
# bounce buffers; hardly more.
memory() { # SIZE MIB
    linux "$k/vmlinuz" 'grep MemTotal /proc/meminfo' --mem "$1"
    total=$(($(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' "$out") / 1024))
    if [ "$rc" = 0 ] && [ $total -le "$2" ] && [ $total -ge $(($2 * 97 / 100 - 114)) ]; then
        ok "memory $1"
    else
        not_ok "memory $1" "exit status $rc, MemTotal is $total MiB"
    fi
}
memory 128M 128
memory 1G 1024
memory 3G 3072
memory 3584M 3584
memory 4G 4096
memory 8G 8192
free=$(($(sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo) / 1024))
if [ $free -gt 1400 ]; then
    memory 64G 65536
else
    skip "memory 64G" "the guest's page descriptors need 1.1 GiB, $free MiB are available"
fi

linux "$k/vmlinuz" 'cat /sys/devices/system/clocksource/clocksource0/current_clocksource'
check "clock source" 0 '^(kvm-clock|tsc)$'

# ACPI's timer as the clock: the CMOS clock, which is the host's, tells whether it keeps time.
linux "$k/vmlinuz" "$(clock 5); cat /sys/devices/system/clocksource/clocksource0/current_clocksource" --append clocksource=acpi_pm
check "ACPI's timer as clock source" 0 '^acpi_pm$'
in_time "ACPI's timer" 5

cat "build/initramfs-$k.cpio" build/tools.cpio >"$T/initrd"
vm --kernel "build/kernels/$k/vmlinuz" --initrd "$T/initrd" --append 'run="rtcwait; hwclock -w && echo written"'
check "interrupts of the CMOS clock" 0 '^alarm 1[0-9]{3} ms, updates (2[0-9]{3}|30[0-9]{2}) ms, periodic (9[5-9][0-9]|10[0-9]{2}) ms$'
check "CMOS clock is set" 0 '^written$'

before=$(date +%s)
linux "$k/vmlinuz" 'echo rtc $(cat /sys/class/rtc/rtc0/since_epoch) clock $(date +%s)'
after=$(date +%s)
rtc=$(sed -n 's/^rtc \([0-9]*\) .*/\1/p' "$out") clock=$(sed -n 's/.* clock \([0-9]*\)$/\1/p' "$out")
if [ "${rtc:-0}" -ge $((before - 1)) ] && [ "$rtc" -le $((after + 1)) ] && [ "${clock:-0}" -ge $((before - 1)) ] &&
    [ "$clock" -le $((after + 1)) ]; then
    ok "time of day"
else
    not_ok "time of day" "RTC $rtc, clock $clock, host $before to $after"
fi

if [ -n "$full" ]; then
    linux "$full/vmlinuz" 'echo $(nproc) online, $(dmesg | grep -c MPTABLE) table; reboot -f' --no-acpi --cpus 2
    check "2 CPUs by the MP table" 4 '^2 online, [1-9]'
else
    skip "2 CPUs by the MP table" "no kernel that reads it: make deps fetches one"
fi
exit $failed
