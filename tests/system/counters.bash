# counters.bash: what the daemon counts, as it tells on USR1. For tests that have loaded helpers.bash.
# shellcheck shell=bash

# Has the daemon log its counters, and waits until all of them are there.
tell_counters() {
	local before listening
	before=$(counters_told)
	listening=$(grep -aoE '[^ >=]+: listening on (tcp|udp) ' "$LOG" | sort -u | wc -l)
	kill -USR1 "$PID"
	wait_until told_at_least $((before + listening)) || fail "the counters are not logged"
}

counters_told() {
	grep -acE '(^|[ >=])[^ >=]+: (tcp: open|udp: received_bytes)=' "$LOG"
}

told_at_least() {
	(($(counters_told) >= $1))
}

# The counters of service NAME on PROTOCOL as last told, without the bytes: `accepted=1 closed{client}=1`.
counters_of() {
	grep -aE "(^|[ >=])$1: $2: " "$LOG" | tail -n 1 | grep -oE '(accepted|datagrams_received)=.*'
}

# Waits until the counters of service NAME on PROTOCOL match the extended regular expression PATTERN as a whole.
await_counters() {
	wait_until told_counters_match "$@" || fail "$1 $2: $(counters_of "$1" "$2"), not $3"
}

told_counters_match() {
	tell_counters && grep -qxE -e "$3" <<<"$(counters_of "$1" "$2")"
}
