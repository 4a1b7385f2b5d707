#!/usr/bin/env bats
# Sources: limits and rates for each source, and access lists.
# shellcheck disable=SC2153 # helpers.bash sets PID, LOG and STATUS in the test's own shell

load helpers
load counters

# Starts echo over both transports on 127.0.0.1 with two workers and LINES in its section.
start_echo() {
	start_daemon <<-END
		[daemon]
		workers = 2
		[echo]
		address = 127.0.0.1
		port = 0
		$(printf '%s\n' "$@")
	END
}

# assert_verdicts served|refused SOURCE...: checks that echo serves or refuses each SOURCE over both transports.
assert_verdicts() {
	python sources.py verdicts 127.0.0.1 "$(port_of echo tcp)" "$(port_of echo udp)" "$1" no "${@:2}"
}

# Makes a network namespace with the addresses fd00:9::1, fd00:9::2 and fd00:a::1.
make_v6_sources() {
	make_network
	need_ipv6
	make_interface
	"${NETWORK[@]}" ip address add fd00:a::1/64 dev net0 nodad
}

@test "sources: max_connections_per_source is exact over all workers, and closed connections free slots" {
	start_echo 'protocol = tcp' 'max_connections_per_source = 7'
	run -0 python sources.py connections 127.0.0.1 "$(port_of echo tcp)" 7 127.0.0.2 127.0.0.3 127.0.0.4
	await_counters echo tcp "accepted=22 refused\{max_connections_per_source\}=$output closed\{[a-z]+\}=.*"
	wait_for_log 'echo: tcp 127\.0\.0\.[234]:[0-9]+ refused: max_connections_per_source$'
}

@test "sources: max_connections_per_source = 1 allows one connection" {
	start_echo 'protocol = tcp' 'max_connections_per_source = 1'
	python sources.py connections 127.0.0.1 "$(port_of echo tcp)" 1 127.0.0.2 127.0.0.3
}

@test "sources: the default max_connections_per_source is half of max_connections" {
	start_daemon <<-END
		[daemon]
		workers = 2
		max_connections = 60
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = 0
	END
	python sources.py together 127.0.0.1 "$(port_of echo tcp)" 30 127.0.0.2
}

@test "sources: connections above connection_rate are refused, counted and logged" {
	start_echo 'protocol = tcp' 'connection_rate = 5/h'
	python sources.py connection_rate 127.0.0.1 "$(port_of echo tcp)" 5 127.0.0.2 127.0.0.3
	await_counters echo tcp 'accepted=10 refused\{connection_rate\}=20 closed\{.*'
	wait_for_log 'echo: tcp 127\.0\.0\.2:[0-9]+ refused: connection_rate$'
}

@test "sources: a source above connection_rate is served again later" {
	start_echo 'protocol = tcp' 'connection_rate = 2/s'
	python sources.py returns 127.0.0.1 "$(port_of echo tcp)" 127.0.0.2
}

@test "sources: datagrams above datagram_rate are dropped and counted" {
	start_echo 'protocol = udp' 'datagram_rate = 5/h'
	python sources.py datagram_rate 127.0.0.1 "$(port_of echo udp)" 5 127.0.0.2 127.0.0.3
	await_counters echo udp 'datagrams_received=100 datagrams_sent=10 dropped\{datagram_rate\}=90'
}

@test "sources: a source above datagram_rate is answered again later" {
	start_echo 'protocol = udp' 'datagram_rate = 2/s'
	python sources.py udp_returns 127.0.0.1 "$(port_of echo udp)" 127.0.0.2
}

@test "sources: by default an amplifying service answers 100 datagrams a second a source, echo all" {
	start_daemon <<-END
		[daemon]
		workers = 2
		[echo]
		protocol = udp
		address = 127.0.0.1
		port = 0
		[time]
		protocol = udp
		address = 127.0.0.1
		port = 0
	END
	python sources.py burst 127.0.0.1 "$(port_of time udp)" 127.0.0.2 200 100 100
	python sources.py burst 127.0.0.1 "$(port_of echo udp)" 127.0.0.2 200 200 0
}

@test "sources: source_prefix = /24 makes the addresses of an IPv4 network one source" {
	start_echo 'source_prefix = /24, /64' 'max_connections_per_source = 6' 'datagram_rate = 6/h'
	python sources.py together 127.0.0.1 "$(port_of echo tcp)" 6 127.0.1.1 127.0.1.2 127.0.1.255
	python sources.py together 127.0.0.1 "$(port_of echo tcp)" 6 127.0.2.1
	python sources.py replies_together 127.0.0.1 "$(port_of echo udp)" 6 127.0.1.1 127.0.1.2 127.0.1.255
	python sources.py replies_together 127.0.0.1 "$(port_of echo udp)" 6 127.0.2.1
}

@test "sources: by default each IPv4 address is one source" {
	start_echo 'max_connections_per_source = 3' 'datagram_rate = 3/h'
	python sources.py together 127.0.0.1 "$(port_of echo tcp)" 6 127.0.1.1 127.0.1.2
	python sources.py replies_together 127.0.0.1 "$(port_of echo udp)" 6 127.0.1.1 127.0.1.2
}

@test "sources: by default each IPv6 /64 prefix is one source" {
	make_v6_sources
	start_daemon <<-END
		[daemon]
		workers = 2
		[echo]
		address = fd00:9::1
		port = 0
		max_connections_per_source = 6
		connection_rate = 100/h
		datagram_rate = 6/h
	END
	python sources.py together fd00:9::1 "$(port_of echo tcp)" 6 fd00:9::1 fd00:9::2
	python sources.py together fd00:9::1 "$(port_of echo tcp)" 6 fd00:a::1
	python sources.py replies_together fd00:9::1 "$(port_of echo udp)" 6 fd00:9::1 fd00:9::2
	python sources.py replies_together fd00:9::1 "$(port_of echo udp)" 6 fd00:a::1
}

@test "sources: with source_prefix = /32, /128 each IPv6 address is one source" {
	make_v6_sources
	start_daemon <<-END
		[echo]
		address = fd00:9::1
		port = 0
		source_prefix = /32, /128
		max_connections_per_source = 3
		datagram_rate = 3/h
	END
	python sources.py together fd00:9::1 "$(port_of echo tcp)" 6 fd00:9::1 fd00:9::2
	python sources.py replies_together fd00:9::1 "$(port_of echo udp)" 6 fd00:9::1 fd00:9::2
}

@test "sources: deny refuses the listed addresses over TCP and UDP and counts them" {
	start_echo 'deny = 127.0.0.2, 127.0.1.0/24'
	assert_verdicts refused 127.0.0.2 127.0.1.0 127.0.1.255
	assert_verdicts served 127.0.0.1 127.0.0.3 127.0.2.1
	await_counters echo tcp 'accepted=3 refused\{denied\}=3.*'
	await_counters echo udp 'datagrams_received=6 datagrams_sent=3 dropped\{denied\}=3'
	wait_for_log 'echo: tcp 127\.0\.[01]\.[0-9]+:[0-9]+ refused: denied$'
}

@test "sources: allow serves the listed addresses only" {
	start_echo 'allow = 127.0.0.2, 127.0.1.0/24'
	assert_verdicts served 127.0.0.2 127.0.1.0 127.0.1.255
	assert_verdicts refused 127.0.0.1 127.0.0.3 127.0.2.1
	await_counters echo tcp 'accepted=3 refused\{denied\}=3.*'
	await_counters echo udp 'datagrams_received=6 datagrams_sent=3 dropped\{denied\}=3'
}

@test "sources: the most specific prefix of allow and deny decides" {
	start_echo 'deny = all, 127.0.1.0/24' 'allow = 127.0.0.0/16, 127.0.1.7'
	assert_verdicts served 127.0.0.1 127.0.2.1 127.0.1.7
	assert_verdicts refused 127.0.1.1 127.1.0.1
}

@test "sources: allow_file and deny_file hold one prefix a line" {
	printf '# allowed\n127.0.0.0/16\n\n  127.1.0.1 ; one more\n' >allowed
	printf '127.0.1.0/24' >denied
	start_echo "allow_file = $PWD/allowed" "deny_file = $PWD/denied" 'deny = 127.0.0.9'
	assert_verdicts served 127.0.0.1 127.0.2.1 127.1.0.1
	assert_verdicts refused 127.0.1.1 127.0.0.9 127.1.0.2
}

@test "sources: a deny_file of 10000 lines is applied" {
	printf '%s\n' 10.{0..39}.{0..249}.0/24 127.0.0.2 >denied
	start_echo "deny_file = $PWD/denied"
	assert_verdicts refused 127.0.0.2
	assert_verdicts served 127.0.0.1 127.0.0.3
}

@test "sources: a file with an invalid line fails the start with an error that names the line" {
	printf '127.0.0.0/16\n127.0.0.1/16\n' >allowed
	launch_daemon <<-END
		[echo]
		address = 127.0.0.1
		port = 0
		allow_file = $PWD/allowed
	END
	wait_for_end
	[[ $STATUS == 2 ]] || fail "exit status $STATUS"
	wait_for_log '\[echo\] allow_file: .*/allowed:2: "127\.0\.0\.1/16" has bits beyond its length: write 127\.0\.0\.0/16$'
}

@test "sources: a denied client gets no byte of a service that sends first" {
	start_daemon <<-END
		[defaults]
		deny = 127.0.0.2
		[daytime]
		address = 127.0.0.1
		port = 0
		[echo]
		address = 127.0.0.1
		port = 0
	END
	python sources.py verdicts 127.0.0.1 "$(port_of daytime tcp)" "$(port_of daytime udp)" refused yes 127.0.0.2
	python sources.py verdicts 127.0.0.1 "$(port_of daytime tcp)" "$(port_of daytime udp)" served yes 127.0.0.3
	assert_verdicts refused 127.0.0.2
	await_counters daytime tcp 'accepted=1 refused\{denied\}=1.*'
}

@test "sources: ::/0 matches IPv6 only, 0.0.0.0/0 IPv4 only, all both" {
	need_ipv6
	start_daemon <<-END
		[daemon]
		workers = 2
		[no-v6]
		type = echo
		port = 0
		address = 127.0.0.1, ::1
		deny = ::/0
		[no-v4]
		type = echo
		port = 0
		address = 127.0.0.1, ::1
		deny = 0.0.0.0/0
		[no-source]
		type = echo
		port = 0
		address = 127.0.0.1, ::1
		deny = all
		[only-v6]
		type = echo
		port = 0
		address = 127.0.0.1, ::1
		allow = ::/0
	END
	local name v4 v6
	while read -r name v4 v6; do
		python sources.py verdicts 127.0.0.1 "$(port_of "$name" tcp 127.0.0.1)" "$(port_of "$name" udp 127.0.0.1)" \
			"$v4" no 127.0.0.1
		python sources.py verdicts ::1 "$(port_of "$name" tcp '[::1]')" "$(port_of "$name" udp '[::1]')" "$v6" no ::1
	done <<-END
		no-v6 served refused
		no-v4 refused served
		no-source refused refused
		only-v6 refused served
	END
}

@test "sources: log lines of refused connections are rate limited" {
	start_echo 'protocol = tcp' 'connection_rate = 40/h'
	local began=$SECONDS lines
	python sources.py connection_rate 127.0.0.1 "$(port_of echo tcp)" 40 127.0.0.2 127.0.0.3
	await_counters echo tcp 'accepted=80 refused\{connection_rate\}=160 .*'
	lines=$(grep -ac 'refused' "$LOG")
	((lines >= 1 && lines <= 10 * (1 + (SECONDS - began) / 10 + 1))) || fail "$lines lines"
}

@test "sources: connections refused at the limit of one source do not affect other sources" {
	start_echo 'protocol = tcp' 'max_connections_per_source = 8'
	local elsewhere line
	elsewhere=$(port_of echo tcp)
	start_echo 'protocol = tcp' 'max_connections_per_source = 8'
	run -0 python sources.py flood 127.0.0.1 "$(port_of echo tcp)" "$elsewhere" 8 127.0.0.2 127.0.0.3 5000
	for line in "${lines[@]}"; do
		echo "# $line" >&3
	done
	await_counters echo tcp 'accepted=10 refused\{max_connections_per_source\}=5000.*'
	assert_idle
}
