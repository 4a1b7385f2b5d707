#!/usr/bin/env bats
# Socket options: the options of the kernel's sockets are those of the configuration.

load helpers

# Prints the output of ss for the sockets with local port PORT and the given options.
sockets() {
	local port=$1
	shift
	"${NETWORK[@]}" ss -H -n "$@" "sport = :$port"
}

@test "sockets: dscp = ef sets the DSCP of replies over UDP" {
	start_daemon <<-END
		[echo]
		protocol = udp
		address = 127.0.0.1$(! has_ipv6 || echo ', ::1')
		port = 0
		dscp = ef
	END
	python dscp.py datagram 127.0.0.1 "$(port_of echo udp 127.0.0.1)" 0 0xb8
	! has_ipv6 || python dscp.py datagram ::1 "$(port_of echo udp '[::1]')" 0 0xb8
}

@test "sockets: dscp = copy copies the DSCP of a datagram to its reply, without the ECN bits" {
	start_daemon <<-END
		[echo]
		protocol = udp
		address = 0.0.0.0, 127.0.0.1$(! has_ipv6 || echo ', ::1')
		port = 0
		dscp = copy
	END
	local class
	for class in 0x28 0xb8 0; do
		python dscp.py datagram 127.0.0.2 "$(port_of echo udp 0.0.0.0)" "$class" "$class"
		python dscp.py datagram 127.0.0.1 "$(port_of echo udp 127.0.0.1)" "$class" "$class"
		! has_ipv6 || python dscp.py datagram ::1 "$(port_of echo udp '[::1]')" "$class" "$class"
	done
	python dscp.py datagram 127.0.0.1 "$(port_of echo udp 127.0.0.1)" 0x29 0x28
}

@test "sockets: without dscp replies over UDP have DSCP 0" {
	start_daemon <<-END
		[echo]
		protocol = udp
		address = 127.0.0.1
		port = 0
	END
	python dscp.py datagram 127.0.0.1 "$(port_of echo udp)" 0xb8 0
}

@test "sockets: dscp = ef and copy set the DSCP of connections" {
	need_ipv6
	make_network
	start_daemon <<-END
		[marked]
		type = echo
		protocol = tcp
		address = 127.0.0.1, ::1
		port = 0
		dscp = af21
		[copied]
		type = echo
		protocol = tcp
		address = 127.0.0.1, ::1
		port = 0
		dscp = copy
		[proxied]
		type = echo
		protocol = tcp
		address = 127.0.0.1, ::1
		port = 0
		dscp = copy
		proxy_protocol = on
		proxy_from = all
	END
	local host address
	python dscp.py stream 127.0.0.1 "$(port_of proxied tcp 127.0.0.1)" 0x28 0x28 'PROXY TCP6 2001:db8::1 2001:db8::2 1 2'
	python dscp.py stream ::1 "$(port_of proxied tcp '[::1]')" 0x28 0x28 'PROXY TCP4 192.0.2.1 192.0.2.2 1 2'
	for host in 127.0.0.1 ::1; do
		address=$host
		[[ $host != ::1 ]] || address='[::1]'
		python dscp.py stream "$host" "$(port_of marked tcp "$address")" 0 0x48
		python dscp.py stream "$host" "$(port_of copied tcp "$address")" 0x28 0x28
		python dscp.py stream "$host" "$(port_of copied tcp "$address")" 0 0
	done
}

@test "sockets: backlog sets the backlog of the listener" {
	need_programs ss
	(($(cat /proc/sys/net/core/somaxconn) >= 4096)) || skip "net.core.somaxconn is smaller"
	start_daemon <<-END
		[daemon]
		workers = 2
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = 0
		backlog = 77
		[daytime]
		protocol = tcp
		address = 127.0.0.1
		port = 0
	END
	[[ $(sockets "$(port_of echo tcp)" -lt | awk '{ print $3 }' | sort -u) == 77 ]]
	[[ $(sockets "$(port_of daytime tcp)" -lt | awk '{ print $3 }' | sort -u) == 4096 ]]
}

@test "sockets: keepalive is set on accepted connections" {
	need_programs ss
	start_daemon <<-END
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = 0
		keepalive = 60s
		[other-echo]
		type = echo
		protocol = tcp
		address = 127.0.0.1
		port = 0
	END
	python_background held hold_connections.py 127.0.0.1 "$(port_of echo tcp)" 1
	wait_for_line held 'served 1'
	python_background held.other hold_connections.py 127.0.0.1 "$(port_of other-echo tcp)" 1
	wait_for_line held.other 'served 1'
	keeps_alive() {
		[[ $(sockets "$(port_of echo tcp)" -to state established) =~ timer:\(keepalive,([45][0-9]|60)(\.[0-9]+)?sec ]]
	}
	wait_until keeps_alive
	[[ $(sockets "$(port_of other-echo tcp)" -to state established) != *keepalive* ]]
}

@test "sockets: receive_buffer and send_buffer set the socket buffers" {
	need_programs ss
	start_daemon <<-END
		[daemon]
		workers = 2
		[echo]
		address = 127.0.0.1
		port = 0
		receive_buffer = 64K
		send_buffer = 32K
	END
	[[ $(sockets "$(port_of echo udp)" -uam | grep -o 'rb[0-9]*' | sort -u) == rb131072 ]]
	[[ $(sockets "$(port_of echo udp)" -uam | grep -o 'tb[0-9]*' | sort -u) == tb65536 ]]
	[[ $(sockets "$(port_of echo tcp)" -ltm | grep -o 'rb[0-9]*' | sort -u) == rb131072 ]]
	python echo.py many 127.0.0.1 "$(port_of echo tcp)" 10 1000000
}

@test "sockets: the default UDP receive buffer is 1 MiB, or the limit of the kernel" {
	need_programs ss
	start_daemon <<-END
		[daemon]
		workers = 2
		[echo]
		protocol = udp
		address = 127.0.0.1
		port = 0
	END
	local allowed wanted=1048576 buffer
	allowed=$(cat /proc/sys/net/core/rmem_max)
	is_root || ((allowed >= wanted)) || wanted=$allowed
	buffer=$(sockets "$(port_of echo udp)" -uam | grep -o 'rb[0-9]*' | sort -u)
	[[ $buffer == rb$((wanted * 2)) || $buffer == rb$((allowed * 2)) ]] || fail "$buffer"
}

@test "sockets: a receive_buffer above the kernel's limit is logged once an endpoint" {
	need_root
	need_programs setpriv
	local allowed
	allowed=$(cat /proc/sys/net/core/rmem_max)
	chmod go+x "$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR/test" .
	# shellcheck disable=SC2034 # helpers.bash uses RUNNER
	RUNNER=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
	"${RUNNER[@]}" test -x "$SMALLSERVD" || skip "the user nobody cannot execute $SMALLSERVD"
	start_daemon <<-END
		[daemon]
		workers = 4
		[echo]
		protocol = udp
		address = 127.0.0.1
		port = 0
		receive_buffer = $((allowed * 2))
	END
	[[ $(grep -c 'receive_buffer' "$LOG") == 1 ]]
	log_matches "receive_buffer.*$allowed"
}
