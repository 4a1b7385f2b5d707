#!/usr/bin/env bats
# echo, RFC 862: received data is sent back.

load helpers

start_echo() {
	start_daemon <<-END
		[daemon]
		workers = 2
		[echo]
		address = ${1:-127.0.0.1}
		port = 0
	END
}

@test "echo: tcp over IPv4 echoes the input of netcat and closes after its half-close" {
	start_echo
	run -0 netcat -N 127.0.0.1 "$(port_of echo tcp)" <<<"hello, world"
	[[ $output == "hello, world" ]]
}

@test "echo: tcp over IPv6 echoes the input of netcat and closes after its half-close" {
	need_ipv6
	start_echo ::1
	run -0 netcat -N ::1 "$(port_of echo tcp '[::1]')" <<<"hello, world"
	[[ $output == "hello, world" ]]
}

@test "echo: a connection closed by the client without data gets no data" {
	start_echo
	run -0 netcat -N 127.0.0.1 "$(port_of echo tcp)" </dev/null
	[[ -z $output ]]
}

@test "echo: 32 MiB come back unchanged" {
	start_echo
	head -c 32M /dev/urandom >sent
	DEADLINE=$((DEADLINE * 4)) netcat -N 127.0.0.1 "$(port_of echo tcp)" <sent >received
	cmp sent received
}

@test "echo: 32 MiB come back unchanged over IPv6" {
	need_ipv6
	start_echo ::1
	head -c 32M /dev/urandom >sent
	DEADLINE=$((DEADLINE * 4)) netcat -N ::1 "$(port_of echo tcp '[::1]')" <sent >received
	cmp sent received
}

@test "echo: 2000 bytes sent one by one come back" {
	start_echo
	python echo.py split 127.0.0.1 "$(port_of echo tcp)" 2000
}

@test "echo: data sent before a half-close is echoed whole to a client that reads only afterwards" {
	start_echo
	local port size
	port=$(port_of echo tcp)
	for size in 1 4096 65536 262144 400000; do
		python echo.py half_close 127.0.0.1 "$port" "$size"
	done
}

@test "echo: 200 concurrent connections each get their own bytes only" {
	start_echo
	python echo.py many 127.0.0.1 "$(port_of echo tcp)" 200 20000
}

@test "echo: udp over IPv4 echoes the input of netcat" {
	start_echo
	run -0 netcat -u -W 1 127.0.0.1 "$(port_of echo udp)" <<<"hello, world"
	[[ $output == "hello, world" ]]
}

@test "echo: udp over IPv6 echoes the input of netcat" {
	need_ipv6
	start_echo ::1
	run -0 netcat -u -W 1 ::1 "$(port_of echo udp '[::1]')" <<<"hello, world"
	[[ $output == "hello, world" ]]
}

@test "echo: datagrams of 0 to 65507 bytes come back over IPv4" {
	start_echo
	python echo.py datagrams 127.0.0.1 "$(port_of echo udp)" 0 1 2 1400 0 1472 1473 9000 65507 0 65506 1
}

@test "echo: datagrams of 0 to 65527 bytes come back over IPv6" {
	need_ipv6
	start_echo ::1
	python echo.py datagrams ::1 "$(port_of echo udp '[::1]')" 0 1 2 1400 0 1452 1453 9000 65507 0 65527 1
}

@test "echo: a burst of 500 datagrams gets 500 replies over IPv4" {
	start_echo
	python echo.py burst 127.0.0.1 "$(port_of echo udp)" 500 32
}

@test "echo: a burst of 500 datagrams gets 500 replies over IPv6" {
	need_ipv6
	start_echo ::1
	python echo.py burst ::1 "$(port_of echo udp '[::1]')" 500 32
}

@test "echo: a burst of datagrams of different lengths comes back in order with its boundaries" {
	start_echo
	python echo.py mixed_burst 127.0.0.1 "$(port_of echo udp)" 100
}

@test "echo: two services on four ports answer on each port" {
	local first port
	first=$(free_port 4)
	start_daemon <<-END
		[echo]
		address = 127.0.0.1
		port = $first-$((first + 1))
		[other-echo]
		type = echo
		address = 127.0.0.1
		port = $((first + 2)), $((first + 3))
	END
	for ((port = first; port < first + 4; port++)); do
		run -0 netcat -N 127.0.0.1 "$port" <<<"tcp $port"
		[[ $output == "tcp $port" ]]
		run -0 netcat -u -W 1 127.0.0.1 "$port" <<<"udp $port"
		[[ $output == "udp $port" ]]
	done
}
