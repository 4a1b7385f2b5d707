# counters.bash: the counters that the daemon logs on USR1. Requires helpers.bash.
# shellcheck shell=bash

# Sends USR1 and waits until the counters of all services are logged.
log_counters() {
	local before listening
	before=$(count_counter_lines)
	listening=$(grep -aoE '[^ >=]+: listening on (tcp|udp) ' "$LOG" | sort -u | wc -l)
	kill -USR1 "$PID"
	wait_until has_counter_lines $((before + listening)) || fail "the counters are not logged"
}

count_counter_lines() {
	grep -acE '(^|[ >=])[^ >=]+: (tcp: open|udp: received_bytes)=' "$LOG"
}

has_counter_lines() {
	(($(count_counter_lines) >= $1))
}

# Prints the last logged counters of service NAME on PROTOCOL, without the bytes: `accepted=1 closed{client}=1`.
counters_of() {
	grep -aE "(^|[ >=])$1: $2: " "$LOG" | tail -n 1 | grep -oE '(accepted|datagrams_received)=.*'
}

# Waits until the counters of service NAME on PROTOCOL match the extended regular expression PATTERN as a whole.
await_counters() {
	wait_until counters_match "$@" || fail "$1 $2: $(counters_of "$1" "$2"), not $3"
}

counters_match() {
	log_counters && grep -qxE -e "$3" <<<"$(counters_of "$1" "$2")"
}
