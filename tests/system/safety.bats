#!/usr/bin/env bats
# Forged, multicast and broadcast datagrams start no loop and are not amplified.
# Raw sockets in a network namespace send the datagrams.

load helpers
load counters

TYPES=(echo discard daytime qotd chargen time)

# section NAME TYPE ADDRESSES LINE...: prints a section for a UDP service.
section() {
	printf '[%s]\ntype = %s\nprotocol = udp\naddress = %s\nport = 0\n' "$1" "$2" "$3"
	printf '%s\n' "${@:4}"
	[[ $2 != qotd ]] || printf 'quotes_file = %s\n' "$PWD/quotes"
}

# Starts all six services on ADDRESSES, with LINES in each section.
start_six() {
	local type
	need_ipv6
	printf 'Well begun is half done.\n' >quotes
	start_daemon < <(
		printf '[daemon]\nworkers = 2\n'
		for type in "${TYPES[@]}"; do
			section "$type" "$type" "$@"
		done
	)
}

# Starts two echo services on ADDRESSES, with LINES in each section.
start_two() {
	start_daemon < <(
		printf '[daemon]\nworkers = 2\n'
		section ping echo "$@"
		section pong echo "$@"
	)
}

# Sets V4 and V6 to the ports of all six services on an IPv4 and an IPv6 address, in the order of TYPES.
find_ports() {
	local type
	V4=() V6=()
	for type in "${TYPES[@]}"; do
		V4+=("$(port_of "$type" udp "$1")")
		V6+=("$(port_of "$type" udp "$2")")
	done
}

# Prints the number of datagrams sent by UDP sockets of the namespace, without those of raw sockets.
datagrams_out() {
	"${NETWORK[@]}" cat /proc/net/snmp /proc/net/snmp6 |
		awk '$1 == "Udp:" && $5 ~ /^[0-9]+$/ { sum += $5 } $1 == "Udp6OutDatagrams" { sum += $2 } END { print sum + 0 }'
}

note_datagrams_out() {
	BEFORE=$(datagrams_out)
}

# Checks that COUNT datagrams were sent since note_datagrams_out.
assert_replies() {
	local replies=$(($(datagrams_out) - BEFORE))
	((replies == $1)) || fail "$replies replies, not $1"
}

# Waits until service NAME has received COUNT datagrams and dropped all of them.
await_all_dropped() {
	await_counters "$1" udp "datagrams_received=$2 datagrams_sent=0( dropped\{[a-z_]+\}=[0-9]+)+"
	wait_until all_dropped "$@" || fail "$1: $(counters_of "$1" udp)"
}

all_dropped() {
	log_counters
	counters_of "$1" udp |
		awk -v count="$2" '{ for (i = 3; i <= NF; i++) { sub(/.*=/, "", $i); sum += $i } } END { exit sum != count }'
}

more_sent_than() {
	log_counters
	(($(counters_of "$1" udp | grep -oP 'datagrams_sent=\K[0-9]+') > $2))
}

@test "safety: a forged datagram between any two ports of the daemon gets no reply and starts no loop" {
	make_network
	start_six '127.0.0.1, ::1'
	local type
	find_ports 127.0.0.1 '[::1]'
	note_datagrams_out
	python spoof.py send 127.0.0.1 each 127.0.0.1 "${V4[@]}"
	python spoof.py send ::1 each ::1 "${V6[@]}"
	for type in "${TYPES[@]}"; do
		await_counters "$type" udp \
			'datagrams_received=12 datagrams_sent=0 dropped\{own_endpoint\}=2 dropped\{refused_port\}=10'
	done
	assert_idle
	assert_replies 0
	python echo.py datagrams 127.0.0.1 "${V4[0]}" 5 1400
	python echo.py datagrams ::1 "${V6[0]}" 5 1400
}

@test "safety: on wildcard sockets a forged datagram from any local address starts no loop" {
	make_network
	make_interface
	start_six '*'
	local type source
	find_ports 0.0.0.0 '[::]'
	note_datagrams_out
	for source in 127.0.0.1 127.0.0.9 10.9.0.1 10.9.0.2; do
		python spoof.py send "$source" each 10.9.0.1 "${V4[@]}"
		python spoof.py send "$source" each 127.0.0.1 "${V4[@]}"
	done
	for source in ::1 fd00:9::1 fd00:9::2; do
		python spoof.py send "$source" each fd00:9::1 "${V6[@]}"
		python spoof.py send "$source" each ::1 "${V6[@]}"
	done
	for type in "${TYPES[@]}"; do
		await_all_dropped "$type" $((14 * ${#TYPES[@]}))
	done
	assert_idle
	assert_replies 0
	python echo.py datagrams 10.9.0.1 "${V4[0]}" 5 1400
	python echo.py datagrams fd00:9::1 "${V6[0]}" 5 1400
}

@test "safety: with refuse_source_ports = none a forged datagram loops until the daemon ends" {
	make_network
	need_ipv6
	local family address
	for address in 127.0.0.1 ::1; do
		family=$address
		[[ $address != *:* ]] || family="[$address]"
		start_two "$address" 'refuse_source_ports = none'
		python spoof.py send "$address" "$(port_of pong udp "$family")" "$address" "$(port_of ping udp "$family")"
		wait_until more_sent_than ping 1000 || fail "no loop"
		wait_until more_sent_than pong "$(counters_of pong udp | grep -oP 'datagrams_sent=\K[0-9]+')" ||
			fail "the loop ended by itself"
		stop_daemon
	done
}

@test "safety: with the default refuse_source_ports a forged datagram starts no loop" {
	make_network
	start_two '127.0.0.1'
	python spoof.py send 127.0.0.1 "$(port_of pong udp)" 127.0.0.1 "$(port_of ping udp)"
	await_counters ping udp 'datagrams_received=1 datagrams_sent=0 dropped\{refused_port\}=1'
	await_counters pong udp 'datagrams_received=0 datagrams_sent=0'
}

@test "safety: with refuse_source_ports = none datagram_rate ends a loop" {
	make_network
	start_two '127.0.0.1' 'refuse_source_ports = none' 'datagram_rate = 20/h'
	python spoof.py send 127.0.0.1 "$(port_of pong udp)" 127.0.0.1 "$(port_of ping udp)"
	await_counters ping udp 'datagrams_received=21 datagrams_sent=20 dropped\{datagram_rate\}=1'
	await_counters pong udp 'datagrams_received=20 datagrams_sent=20'
	assert_idle
}

@test "safety: with refuse_source_ports = none a datagram from the endpoint itself is dropped" {
	make_network
	start_six '127.0.0.1, ::1' 'refuse_source_ports = none'
	local type
	find_ports 127.0.0.1 '[::1]'
	python spoof.py send 127.0.0.1 same 127.0.0.1 "${V4[@]}"
	python spoof.py send ::1 same ::1 "${V6[@]}"
	for type in "${TYPES[@]}"; do
		await_counters "$type" udp 'datagrams_received=2 datagrams_sent=0 dropped\{own_endpoint\}=2'
	done
}

@test "safety: a wildcard socket drops datagrams from its own port on a loopback address" {
	make_network
	start_six '*' 'refuse_source_ports = none'
	local type
	find_ports 0.0.0.0 '[::]'
	python spoof.py send 127.0.0.1 same 127.0.0.1 "${V4[@]}"
	python spoof.py send 127.0.0.2 same 127.0.0.1 "${V4[@]}"
	python spoof.py send ::1 same ::1 "${V6[@]}"
	for type in "${TYPES[@]}"; do
		await_counters "$type" udp 'datagrams_received=3 datagrams_sent=0 dropped\{own_endpoint\}=3'
	done
}

@test "safety: a wildcard socket drops datagrams from its own port on an address of an interface" {
	make_network
	make_interface
	start_six '*' 'refuse_source_ports = none'
	local type source target
	find_ports 0.0.0.0 '[::]'
	for source in 10.9.0.1 10.9.0.2 127.0.0.1; do
		for target in 10.9.0.1 127.0.0.1; do
			python spoof.py send "$source" same "$target" "${V4[@]}"
		done
	done
	for source in fd00:9::1 fd00:9::2 ::1; do
		for target in fd00:9::1 ::1; do
			python spoof.py send "$source" same "$target" "${V6[@]}"
		done
	done
	for type in "${TYPES[@]}"; do
		await_counters "$type" udp 'datagrams_received=12 datagrams_sent=0 dropped\{own_endpoint\}=12'
	done
}

@test "safety: a datagram from the link with a local address as the source gets at most one reply" {
	make_network
	make_interface
	start_six '*' 'refuse_source_ports = none'
	local type
	find_ports 0.0.0.0 '[::]'
	note_datagrams_out
	python spoof.py wire net1 net0 fd00:9::2 same fd00:9::1 "${V6[@]}"
	python spoof.py wire net1 net0 10.9.0.2 same 10.9.0.1 "${V4[@]}" # the kernel itself usually drops these
	python spoof.py wire net1 net0 fd00:9::99 0 fd00:9::1 "${V6[@]}" # sent last, so the others have arrived
	for type in "${TYPES[@]}"; do
		await_counters "$type" udp '.* dropped\{port_zero\}=1( .*)?'
	done
	assert_idle
	(($(datagrams_out) - BEFORE <= 12)) || fail "$(($(datagrams_out) - BEFORE)) replies"
}

@test "safety: source port 0 is dropped with any refuse_source_ports" {
	make_network
	local checks type
	for checks in '0-1023, 2049' none; do
		start_six '127.0.0.1, ::1' "refuse_source_ports = $checks"
		find_ports 127.0.0.1 '[::1]'
		python spoof.py send 127.0.0.1 0 127.0.0.1 "${V4[@]}"
		python spoof.py send ::1 0 ::1 "${V6[@]}"
		for type in "${TYPES[@]}"; do
			await_counters "$type" udp 'datagrams_received=2 datagrams_sent=0 dropped\{port_zero\}=2'
		done
		stop_daemon
	done
}

@test "safety: source ports below 1024 and 2049 are dropped, adjacent ports are answered once" {
	make_network
	start_six '127.0.0.1, ::1'
	local type
	find_ports 127.0.0.1 '[::1]'
	note_datagrams_out
	python spoof.py send 127.0.0.1 1,7,9,13,17,19,37,53,69,123,161,1023,2049,1024,2048,2050 127.0.0.1 "${V4[@]}"
	python spoof.py send ::1 1,7,9,13,17,19,37,53,69,123,161,1023,2049,1024,2048,2050 ::1 "${V6[@]}"
	for type in "${TYPES[@]}"; do
		local replies=6
		[[ $type != discard ]] || replies=0
		await_counters "$type" udp \
			"datagrams_received=32 datagrams_sent=$replies dropped\{refused_port\}=26"
	done
	assert_idle
	assert_replies 30
}

@test "safety: refuse_source_ports drops the listed ports and those of the daemon" {
	make_network
	start_two 127.0.0.1 'refuse_source_ports = 5000-5002, 6000'
	python spoof.py send 127.0.0.1 "4999,5000,5001,5002,5003,6000,19,1023,$(port_of pong udp)" \
		127.0.0.1 "$(port_of ping udp)"
	await_counters ping udp 'datagrams_received=9 datagrams_sent=4 dropped\{refused_port\}=5'
}

@test "safety: multicast, broadcast and unspecified source addresses are dropped" {
	make_network
	make_interface
	start_six '*' 'refuse_source_ports = none'
	local type source
	find_ports 0.0.0.0 '[::]'
	note_datagrams_out
	for source in 224.0.0.1 239.1.2.3 255.255.255.255; do
		python spoof.py send "$source" 5000 127.0.0.1 "${V4[@]}"
	done
	python spoof.py send :: 5000 ::1 "${V6[@]}"
	# the kernel drops these two itself
	python spoof.py send ff02::1 5000 ::1 "${V6[@]}"
	python spoof.py wire net1 all 224.0.0.1 5000 10.9.0.1 "${V4[@]}"
	# a datagram from 0.0.0.0 is received only with this destination, and by both workers
	python spoof.py wire net1 all 0.0.0.0 5000 255.255.255.255 "${V4[@]}"
	local dropped='dropped\{source_multicast\}=2 dropped\{source_broadcast\}=1 dropped\{source_unspecified\}=3'
	for type in "${TYPES[@]}"; do
		await_counters "$type" udp "datagrams_received=6 datagrams_sent=0 $dropped"
	done
	assert_idle
	assert_replies 0
}

@test "safety: a datagram from the broadcast address of a local network gets no reply" {
	make_network
	make_interface
	start_six '*' 'refuse_source_ports = none'
	local type
	find_ports 0.0.0.0 '[::]'
	note_datagrams_out
	python spoof.py send 10.9.0.255 5000 10.9.0.1 "${V4[@]}"
	for type in "${TYPES[@]}"; do
		await_counters "$type" udp 'datagrams_received=1 datagrams_sent=0( dropped\{[a-z_]+\}=1)?'
	done
	assert_replies 0
}

@test "safety: datagrams to a broadcast address are dropped by every worker" {
	make_network
	make_interface
	start_six '*'
	local type target
	find_ports 0.0.0.0 '[::]'
	note_datagrams_out
	for target in 255.255.255.255 10.9.0.255; do
		python spoof.py wire net1 all 10.9.0.77 5000 "$target" "${V4[@]}"
	done
	for type in "${TYPES[@]}"; do
		await_counters "$type" udp 'datagrams_received=4 datagrams_sent=0 dropped\{to_broadcast\}=4'
	done
	assert_replies 0
}

@test "safety: a datagram to a multicast group has one reply if the group is configured, else none" {
	make_network
	make_interface
	start_six '*' 'multicast_groups = 239.1.2.3, ff15::7%net0'
	local type
	find_ports 0.0.0.0 '[::]'
	note_datagrams_out
	python spoof.py wire net1 all 10.9.0.77 5000 224.0.0.1 "${V4[@]}"
	python spoof.py wire net1 all 10.9.0.77 5000 239.1.2.4 "${V4[@]}"
	python spoof.py wire net1 all 10.9.0.77 5000 239.1.2.3 "${V4[@]}" # sent last, so the others have arrived
	python spoof.py wire net1 all fd00:9::77 5000 ff02::1 "${V6[@]}"
	python spoof.py wire net1 all fd00:9::77 5000 ff15::8 "${V6[@]}"
	python spoof.py wire net1 all fd00:9::77 5000 ff15::7 "${V6[@]}"
	for type in "${TYPES[@]}"; do
		local replies=2
		[[ $type != discard ]] || replies=0
		await_counters "$type" udp "datagrams_received=2 datagrams_sent=$replies"
	done
	assert_replies 10
}
