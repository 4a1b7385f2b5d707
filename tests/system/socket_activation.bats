#!/usr/bin/env bats
# Socket activation: how descriptors of LISTEN_FDS are matched with endpoints, and errors.
# shellcheck disable=SC2030,SC2031,SC2034,SC2153 # helpers.bash sets PID, LOG, CONF and STATUS in the test's own shell, and reads RUNNER

load helpers

# Has the daemon started with the given sockets in LISTEN_FDS, such as `tcp=127.0.0.1:7`.
activate_with() {
	RUNNER=(python3 "$BATS_TEST_DIRNAME/socket_activation.py" "$@" --)
}

# Prints how many sockets are bound to PORT.
sockets_on() {
	"${NETWORK[@]}" ss -Hltun "sport = :$1" | wc -l
}

# Checks that the start fails with exit status 1 and a log line that matches PATTERN.
assert_start_fails() {
	wait_for_end
	[[ $STATUS == 1 ]] || fail "exit status $STATUS"
	log_matches "$1" || fail "not logged: $1"
	run ! log_matches '^ready: '
}

echo_on() {
	cat <<-END
		[daemon]
		workers = 2
		[echo]
		address = ${2:-127.0.0.1}
		port = $1
	END
}

@test "socket activation: sockets are matched by transport, address and port, and missing ones are bound" {
	local port other
	port=$(free_port) other=$(free_port)
	activate_with "udp=127.0.0.1:$port" "tcp=127.0.0.1:$port"
	start_daemon <<-END
		[daemon]
		workers = 2
		[daytime]
		address = 127.0.0.1
		port = $other
		[echo]
		address = 127.0.0.1
		port = $port
	END
	log_matches "^echo: listening on tcp 127\.0\.0\.1:$port$"
	log_matches '^ready: 2 services, 4 endpoints, 2 workers$'
	[[ $(sockets_on "$port") == 2 ]] || fail "$(sockets_on "$port") sockets"
	assert_echo tcp 127.0.0.1 "$port"
	python echo.py datagrams 127.0.0.1 "$port" 0 1 100
	[[ $(netcat -N 127.0.0.1 "$other" </dev/null) == *:*:* ]]
	stop_daemon
}

@test "socket activation: one TCP listener distributes its connections over all workers" {
	local port
	port=$(free_port)
	activate_with "tcp=127.0.0.1:$port" "udp=127.0.0.1:$port"
	start_daemon < <(echo_on "$port")
	python_background clients hold_connections.py 127.0.0.1 "$port" 20
	wait_for_line clients 'served 20'
	# the fdinfo of an epoll descriptor has a line `tfd:` for each registered descriptor
	local fd first second most loops=()
	for fd in "/proc/$PID/fdinfo"/*; do
		loops+=("$(grep -c '^tfd:' "$fd" || true)")
	done
	most=$(printf '%s\n' "${loops[@]}" | sort -n | tail -n 2 | tr '\n' ' ')
	read -r first second <<<"$most"
	((second >= 10 && first <= 14)) || fail "not evenly distributed: $most"
}

@test "socket activation: a dual-stack socket serves the IPv4 and the IPv6 endpoint of address = *" {
	need_ipv6
	local port
	port=$(free_port)
	activate_with "dual_tcp=[::]:$port" "dual_udp=[::]:$port"
	start_daemon <<-END
		[daemon]
		workers = 2
		[echo]
		port = $port
		log_connections = yes
		allow = 127.0.0.0/8, ::1
	END
	log_matches "^echo: listening on tcp 0\.0\.0\.0:$port$"
	log_matches "^echo: listening on udp \[::\]:$port$"
	log_matches '^ready: 1 services, 4 endpoints, 2 workers$'
	[[ $(sockets_on "$port") == 2 ]]
	local address
	for address in 127.0.0.1 127.0.0.5 ::1; do
		assert_echo tcp "$address" "$port"
		python echo.py datagrams "$address" "$port" 0 1 100
	done
	wait_for_log 'echo: tcp 127\.0\.0\.1:[0-9]+ closed'
	wait_for_log 'echo: tcp \[::1\]:[0-9]+ closed'
}

@test "socket activation: a dual-stack socket does not match an IPv6-only endpoint" {
	need_ipv6
	local port
	port=$(free_port)
	activate_with "dual_tcp=[::]:$port"
	launch_daemon < <(echo_on "$port" ::)
	assert_start_fails 'matches no endpoint: tcp .* \(dual-stack\)'
}

@test "socket activation: socket_name matches descriptors of that name only" {
	local port other
	port=$(free_port) other=$(free_port)
	conf() {
		cat <<-END
			[echo]
			protocol = tcp
			address = 127.0.0.1
			port = $port
			socket_name = mine
			[discard]
			protocol = tcp
			address = 127.0.0.1
			port = $other
		END
	}
	activate_with --names theirs:mine "tcp=127.0.0.1:$other" "tcp=127.0.0.1:$port"
	start_daemon < <(conf)
	[[ $(sockets_on "$port") == 1 ]]
	assert_echo tcp 127.0.0.1 "$port"
	stop_daemon
	activate_with --names mine:theirs "tcp=127.0.0.1:$other" "tcp=127.0.0.1:$port"
	launch_daemon < <(conf)
	assert_start_fails "echo: cannot listen on tcp 127\.0\.0\.1:$port: Address already in use"
}

@test "socket activation: a descriptor that matches no endpoint is an error with its name and address" {
	local port other
	port=$(free_port) other=$(free_port)
	activate_with --names a:b "tcp=127.0.0.1:$port" "tcp=127.0.0.1:$other"
	launch_daemon < <(echo_on "$port")
	assert_start_fails "LISTEN_FDS: descriptor 4 \(b\): matches no endpoint: tcp 127\.0\.0\.1:$other"
	activate_with "udp=127.0.0.1:$port" "tcp=127.0.0.2:$port"
	launch_daemon < <(echo_on "$port")
	assert_start_fails "LISTEN_FDS: descriptor 4: matches no endpoint: tcp 127\.0\.0\.2:$port"
}

@test "socket activation: a descriptor that is no IP socket, or does not listen, is an error with the reason" {
	local kind port
	declare -A wrong=([unix]='neither an IPv4 nor an IPv6' [seqpacket]='neither an IPv4 nor an IPv6'
		[connected]='does not listen' [file]='is not a socket')
	port=$(free_port)
	for kind in "${!wrong[@]}"; do
		activate_with "$kind"
		launch_daemon < <(echo_on "$port")
		assert_start_fails "LISTEN_FDS: descriptor 3: .*${wrong[$kind]}"
	done
}

@test "socket activation: descriptors for another process id are ignored" {
	local port
	port=$(free_port)
	activate_with --pid 1 "tcp=127.0.0.1:0"
	start_daemon < <(echo_on "$port")
	[[ $(sockets_on "$port") -ge 2 ]]
	assert_echo tcp 127.0.0.1 "$port"
}

@test "socket activation: a reload keeps the sockets, also when another service gets them" {
	local port
	port=$(free_port)
	activate_with "tcp=127.0.0.1:$port" "udp=127.0.0.1:$port"
	start_daemon < <(echo_on "$port")
	write_config "$CONF" <<-END
		[daemon]
		workers = 2
		[time]
		address = 127.0.0.1
		port = $port
		dscp = ef
	END
	kill -HUP "$PID"
	wait_for_log '^reloaded: 1 services, 2 endpoints$'
	[[ $(sockets_on "$port") == 2 ]]
	[[ $(netcat -N 127.0.0.1 "$port" </dev/null | wc -c) == 4 ]]
}

@test "socket activation: a stop serves the queued connections and datagrams" {
	local port
	port=$(free_port)
	activate_with "tcp=127.0.0.1:$port" "udp=127.0.0.1:$port"
	start_daemon < <(echo_on "$port")
	python signals.py queued "$PID" 127.0.0.1 "$port" "$port" 50
	wait_for_end
	[[ $STATUS == 0 ]]
}

@test "socket activation: the descriptors are close-on-exec" {
	local port fd
	port=$(free_port)
	activate_with "tcp=127.0.0.1:$port" "udp=127.0.0.1:$port"
	start_daemon < <(echo_on "$port")
	for fd in 3 4; do
		(($(awk '/^flags:/ {print $2}' "/proc/$PID/fdinfo/$fd") & 02000000)) || fail "descriptor $fd is inherited"
	done
}
