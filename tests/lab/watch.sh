# watch.sh - sourced by the lab's scripts: what a machine says, and when it is given up. Uses their $t and $STALL.

# What the machine has cost so far, in seconds of a processor.
cpu_seconds() {
    for child in $(cat "/proc/$(cat "$t/pid")/task/"*/children 2>/dev/null); do
        awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); printf "%d", ($12 + $13) / hz }' "/proc/$child/stat" 2>/dev/null || :
    done
}

# run_machine ARG...: runs `machine ARG...`, passes on what it says but for the last words, and exits with the status of
# its command; 99 when it died. A machine hangs, and is ended, when it computes for so long without a word (seconds of
# a processor: those of a clock mean little on a busy host), or when it does not even compute for as long.
run_machine() {
    : >"$t/out"
    { machine "$@" </dev/null & echo $! >"$t/pid"; wait; } |
        sed -u -e 's/\r$//' -e "/^@@LAB-RC=/w $t/rc" -e '/^@@LAB-RC=/d' -e '/reboot: Power down$/d' |
        tee "$t/out" &
    said= since=0 was= idle=0
    while kill -0 $! 2>/dev/null; do
        sleep 0.5
        size=$(wc -c <"$t/out") used=$(cpu_seconds)
        [ "$size" = "$said" ] || since=${used:-0} said=$size idle=0
        [ "$used" = "$was" ] && idle=$((idle + 1)) || idle=0 was=$used
        [ $((${used:-$since} - since)) -lt "${STALL:-150}" ] && [ $idle -lt $((2 * ${STALL:-150})) ] ||
            kill "$(cat "$t/pid")" 2>/dev/null || :
    done
    rc=$(sed 's/[^0-9]//g' "$t/rc")
    exit "${rc:-99}"
}
