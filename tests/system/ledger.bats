#!/usr/bin/env bats
# The ledger: under load, whatever is done to the daemon, no byte, no datagram and no connection is missing.

load helpers

# Keeps books for MINUTES; all there are must be in order at the end. `./dev check` runs this in several builds, a minute
# together; by hand tests/ledger runs as long as one likes.
keep_books() {
	local minutes=0.3 memory=()
	if sanitized; then
		minutes=0.15
		memory=(--any-memory) # what was freed is kept a while
	fi
	! is_root || make_network
	run "${NETWORK[@]}" timeout $((DEADLINE * 8)) "$TESTS_SRCDIR/ledger" --daemon "$SMALLSERVD" \
		--minutes "$minutes" "${memory[@]}" "$@"
	printf '%s\n' "$output"
	[[ $status == 0 ]]
}

@test "ledger: reloads and upgrades under load lose no byte, datagram or connection" {
	keep_books --upgrades
}
