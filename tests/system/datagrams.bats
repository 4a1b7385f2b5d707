#!/usr/bin/env bats
# UDP requests: the source address of replies, and requests that get no reply.

load helpers

@test "datagrams: a request longer than max_datagram is dropped and the next one is answered" {
	start_daemon <<-END
		[echo]
		protocol = udp
		address = 127.0.0.1
		port = 0
		max_datagram = 100
	END
	local port
	port=$(port_of echo udp)
	python echo.py datagrams 127.0.0.1 "$port" 99 100
	python echo.py dropped 127.0.0.1 "$port" 101 100
	python echo.py dropped 127.0.0.1 "$port" 65507 7
}

@test "datagrams: on a wildcard socket a reply has the destination address of its request as the source" {
	start_daemon <<-END
		[daemon]
		workers = 2
		[echo]
		protocol = udp
		address = 0.0.0.0
		port = 0
	END
	local address
	for address in 127.0.0.1 127.0.0.2 127.1.2.3; do
		python echo.py datagrams "$address" "$(port_of echo udp)" 5 0 1400 65507
		python echo.py burst "$address" "$(port_of echo udp)" 100 64
	done
}

@test "datagrams: with two addresses on an interface a reply has the destination of its request as the source" {
	make_network
	make_interface
	start_daemon <<-END
		[echo]
		protocol = udp
		port = 0
	END
	local address
	for address in 10.9.0.1 10.9.0.2 127.0.0.1; do
		python echo.py datagrams "$address" "$(port_of echo udp 0.0.0.0)" 5 0 1400
	done
	has_ipv6 || return 0
	for address in fd00:9::1 fd00:9::2 ::1; do
		python echo.py datagrams "$address" "$(port_of echo udp '[::]')" 5 0 1400
	done
}

@test "datagrams: a request to a broadcast address gets no reply" {
	make_network
	make_interface
	start_daemon <<-END
		[daemon]
		workers = 2
		[echo]
		protocol = udp
		port = 0
	END
	local port
	port=$(port_of echo udp 0.0.0.0)
	python datagrams.py broadcast 10.9.0.255 10.9.0.1 "$port"
	python datagrams.py broadcast 255.255.255.255 10.9.0.1 "$port"
	kill -USR1 "$PID"
	wait_for_log 'echo.*udp.*broadcast[^ ]*[=: ]+[1-9]'
}

@test "datagrams: a request to a multicast group that only another program joined gets no reply" {
	make_network
	make_interface
	start_daemon <<-END
		[daemon]
		workers = 2
		[echo]
		protocol = udp
		port = 0
	END
	python datagrams.py foreign_group 239.9.9.9 10.9.0.1 "$(port_of echo udp 0.0.0.0)"
	! has_ipv6 || python datagrams.py foreign_group ff15::99 fd00:9::1 "$(port_of echo udp '[::]')"
}

@test "datagrams: a request to a configured multicast group gets one reply from a unicast address" {
	make_network
	make_interface
	local port
	port=$(free_port)
	start_daemon <<-END
		[daemon]
		workers = 4
		[echo]
		protocol = udp
		port = $port
		multicast_groups = 239.1.2.3, ff15::7%net0
	END
	python datagrams.py group 239.1.2.3 10.9.0.2 "$port"
	! has_ipv6 || python datagrams.py group ff15::7 fd00:9::2 "$port"
	python echo.py datagrams 10.9.0.1 "$port" 5 0 1400
}

@test "datagrams: another member of a configured group on this host receives the requests too" {
	make_network
	make_interface
	local port
	port=$(free_port)
	python_background before datagrams.py member 239.1.2.3 10.9.0.1 "$port"
	wait_for_line before joined
	start_daemon <<-END
		[daemon]
		workers = 2
		[echo]
		protocol = udp
		address = 0.0.0.0
		port = $port
		multicast_groups = 239.1.2.3
	END
	local first=$HELPER
	python_background after datagrams.py member 239.1.2.3 10.9.0.1 "$port"
	wait_for_line after joined
	python datagrams.py group 239.1.2.3 10.9.0.2 "$port"
	wait_for_helper after
	HELPER=$first
	wait_for_helper before
}

# Checks that the daemon is idle and has sent fewer than ten datagrams.
assert_no_loop() {
	local sent
	assert_idle
	kill -USR1 "$PID"
	wait_for_log 'datagrams_sent'
	sent=$(grep -aoE 'datagrams_sent=[0-9]+' "$LOG" | sort -t = -k 2n | tail -n 1)
	((${sent#*=} < 10)) || fail "$sent"
}

@test "datagrams: a request with the endpoint itself as the forged source starts no loop" {
	make_network
	start_daemon <<-END
		[echo]
		protocol = udp
		address = 127.0.0.1
		port = 0
		[chargen]
		protocol = udp
		address = 127.0.0.1
		port = 0
	END
	local name port
	for name in echo chargen; do
		port=$(port_of "$name" udp)
		python spoof.py send 127.0.0.1 "$port" 127.0.0.1 "$port"
	done
	assert_no_loop
	kill -USR1 "$PID"
	for name in echo chargen; do
		wait_for_log "$name.*udp.*own_endpoint[^ ]*[=: ]+1( |\$)"
	done
	python echo.py datagrams 127.0.0.1 "$(port_of echo udp)" 5
}

@test "datagrams: a request with another endpoint of the daemon as the forged source starts no loop" {
	make_network
	start_daemon <<-END
		[echo]
		protocol = udp
		address = 127.0.0.1
		port = 0
		[chargen]
		protocol = udp
		address = 127.0.0.2
		port = 0
	END
	python spoof.py send 127.0.0.2 "$(port_of chargen udp)" 127.0.0.1 "$(port_of echo udp)"
	assert_no_loop
	python echo.py datagrams 127.0.0.1 "$(port_of echo udp)" 5
}

@test "datagrams: on a wildcard socket a request with the endpoint itself as the forged source starts no loop" {
	make_network
	start_daemon <<-END
		[echo]
		protocol = udp
		address = 0.0.0.0
		port = 0
	END
	local port
	port=$(port_of echo udp)
	python spoof.py send 127.0.0.1 "$port" 127.0.0.1 "$port"
	python spoof.py send 127.0.0.2 "$port" 127.0.0.1 "$port"
	assert_no_loop
	python echo.py datagrams 127.0.0.1 "$port" 5
}

@test "datagrams: a request from port 0 is dropped and counted" {
	make_network
	start_daemon <<-END
		[echo]
		protocol = udp
		address = 127.0.0.1
		port = 0
	END
	local port
	port=$(port_of echo udp)
	python spoof.py send 127.0.0.1 0 127.0.0.1 "$port"
	python echo.py datagrams 127.0.0.1 "$port" 5
	kill -USR1 "$PID"
	wait_for_log 'echo.*udp.*port_zero[^ ]*[=: ]+1( |$)'
}

@test "datagrams: clients that close before the reply do not affect the replies to another client" {
	start_daemon <<-END
		[daemon]
		workers = 1
		[echo]
		protocol = udp
		address = 127.0.0.1
		port = 0
	END
	python datagrams.py gone 127.0.0.1 "$(port_of echo udp)" 100
	assert_idle
}
