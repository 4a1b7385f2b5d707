#!/usr/bin/env bats
# The ledger: under load, reloads and upgrades lose no byte, datagram or connection.

load helpers

# Runs tests/ledger for some seconds. `./dev check` runs it in several builds, a minute in all; by hand it runs as long
# as its option --minutes says.
run_ledger() {
	local minutes=0.3 memory=()
	if sanitized; then
		minutes=0.15
		memory=(--any-memory) # a sanitizer keeps freed memory for a while
	fi
	! is_root || make_network
	run "${NETWORK[@]}" timeout $((DEADLINE * 8)) "$TESTS_SRCDIR/ledger" --daemon "$SMALLSERVD" \
		--minutes "$minutes" "${memory[@]}" "$@"
	printf '%s\n' "$output"
	[[ $status == 0 ]]
}

@test "ledger: reloads and upgrades under load lose no byte, datagram or connection" {
	run_ledger --upgrades
}
