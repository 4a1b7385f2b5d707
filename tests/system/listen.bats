#!/usr/bin/env bats
# Listening: addresses, ports, conflicts with other programs, the user of the daemon, the pid file.

# shellcheck disable=SC2030,SC2031,SC2153 # helpers.bash sets PID, LOG, CONF and STATUS in the test's own shell

load helpers

# Checks that a daemon exits with status 1 and a log line that matches PATTERN.
assert_cannot_start() {
	launch_daemon
	wait_for_end
	[[ $STATUS == 1 ]] || fail "exit status $STATUS"
	log_matches "$1" || fail "not logged: $1"
	run ! log_matches 'ready:'
}

listening_lines() {
	grep -acE "$1: listening on " "$LOG" || true
}

@test "listen: port = 0 with several workers is one port for each endpoint" {
	start_daemon <<-END
		[daemon]
		workers = 4
		[echo]
		address = 127.0.0.1, 127.0.0.2
		port = 0
	END
	[[ $(listening_lines echo) == 4 ]]
	log_matches '(^|[ >=])ready: .*4 endpoints, 4 workers$'
	python echo.py many 127.0.0.1 "$(port_of echo tcp 127.0.0.1)" 50 100
	python echo.py many 127.0.0.2 "$(port_of echo tcp 127.0.0.2)" 50 100
	python echo.py burst 127.0.0.1 "$(port_of echo udp 127.0.0.1)" 50 100
	python echo.py burst 127.0.0.2 "$(port_of echo udp 127.0.0.2)" 50 100
}

@test "listen: address = * opens an IPv4 and an IPv6 endpoint" {
	need_ipv6
	start_daemon <<-END
		[echo]
		address = *
		port = 0
	END
	[[ $(listening_lines echo) == 4 ]]
	assert_echo tcp 127.0.0.1 "$(port_of echo tcp 0.0.0.0)"
	assert_echo tcp ::1 "$(port_of echo tcp '[::]')"
	assert_echo udp 127.0.0.1 "$(port_of echo udp 0.0.0.0)"
	assert_echo udp ::1 "$(port_of echo udp '[::]')"
}

@test "listen: address = * with a fixed port uses it for IPv4 and IPv6" {
	need_ipv6
	local port
	port=$(free_port)
	start_daemon <<-END
		[echo]
		port = $port
	END
	local host
	for host in 127.0.0.1 ::1; do
		assert_echo tcp "$host" "$port"
		assert_echo udp "$host" "$port"
	done
}

@test "listen: address = :: is IPv6 only" {
	need_ipv6
	local port
	port=$(free_port)
	start_daemon <<-END
		[echo]
		address = ::
		port = $port
		[daytime]
		address = 0.0.0.0
		port = $port
	END
	assert_echo tcp ::1 "$port"
	run -0 netcat -N 127.0.0.1 "$port" <<<"hello"
	[[ $output =~ [0-9]{4} ]]
	run -0 netcat -u -W 1 127.0.0.1 "$port" <<<"hello"
	[[ $output =~ [0-9]{4} ]]
}

@test "listen: with IPv6 disabled by sysctl address = * serves IPv4" {
	make_network
	"${NETWORK[@]}" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 ||
		skip "cannot disable IPv6 here"
	start_daemon <<-END
		[echo]
		address = *
		port = 0
	END
	assert_echo tcp 127.0.0.1 "$(port_of echo tcp 0.0.0.0)"
	assert_echo udp 127.0.0.1 "$(port_of echo udp 0.0.0.0)"
}

@test "listen: with a kernel without IPv6 address = * serves IPv4" {
	RUNNER=(python3 "$BATS_TEST_DIRNAME/reduced_kernel.py" ipv6)
	"${RUNNER[@]}" true || skip "cannot hide IPv6 here"
	start_daemon <<-END
		[echo]
		address = *
		port = 0
	END
	assert_echo tcp 127.0.0.1 "$(port_of echo tcp 0.0.0.0)"
	assert_echo udp 127.0.0.1 "$(port_of echo udp 0.0.0.0)"
	run ! log_matches 'listening on (tcp|udp) \[::\]'
}

@test "listen: with a kernel without IPv6 an IPv6 address is an error" {
	RUNNER=(python3 "$BATS_TEST_DIRNAME/reduced_kernel.py" ipv6)
	"${RUNNER[@]}" true || skip "cannot hide IPv6 here"
	assert_cannot_start 'echo: cannot listen on (tcp|udp) \[::1\]:[0-9]+: ' <<-END
		[echo]
		address = ::1
		port = 0
	END
}

@test "listen: a port that another program uses is an error that names it" {
	local protocol port options
	for options in "" reuse_address; do
		for protocol in tcp udp; do
			# shellcheck disable=SC2086
			python_server occupied occupy_port.py "$protocol" 127.0.0.1 0 $options
			port=$SERVER_PORT
			assert_cannot_start "(^|[ >=])echo: cannot listen on $protocol 127\\.0\\.0\\.1:$port: Address already in use\$" <<-END
				[daemon]
				workers = 2
				[echo]
				protocol = $protocol
				address = 127.0.0.1
				port = $port
			END
		done
	done
}

@test "listen: a second daemon on the same address fails with EADDRINUSE and gets no clients" {
	local protocol port first log
	for protocol in tcp udp; do
		port=$(free_port)
		start_daemon <<-END
			[daemon]
			workers = 2
			[echo]
			protocol = $protocol
			address = 127.0.0.1
			port = $port
		END
		first=$PID
		log=$LOG
		assert_cannot_start "(^|[ >=])echo: cannot listen on $protocol 127\\.0\\.0\\.1:$port: Address already in use\$" <"$CONF"
		PID=$first
		LOG=$log
		if [[ $protocol == tcp ]]; then
			python echo.py many 127.0.0.1 "$port" 50 10
		else
			python echo.py burst 127.0.0.1 "$port" 50 10
		fi
	done
}

@test "listen: a second daemon on the same wildcard address fails with EADDRINUSE" {
	local port
	port=$(free_port)
	start_daemon <<-END
		[daemon]
		workers = 2
		[echo]
		port = $port
	END
	assert_cannot_start "echo: cannot listen on (tcp|udp) [^ ]+:$port: Address already in use\$" <"$CONF"
}

@test "listen: a second daemon with a wildcard over the address fails with EADDRINUSE" {
	local port
	port=$(free_port)
	start_daemon <<-END
		[daemon]
		workers = 2
		[echo]
		address = 127.0.0.1
		port = $port
	END
	assert_cannot_start "echo: cannot listen on (tcp|udp) 127\\.0\\.0\\.1:$port: Address already in use\$" <<-END
		[daemon]
		workers = 2
		[echo]
		address = 127.0.0.2, 0.0.0.0, 127.0.0.1
		port = $port
	END
}

@test "listen: another program cannot bind a port of the daemon" {
	start_daemon <<-END
		[daemon]
		workers = 2
		[echo]
		address = 127.0.0.1
		port = 0
	END
	local protocol options
	for protocol in tcp udp; do
		for options in "" reuse_address; do
			# shellcheck disable=SC2086
			run -1 python occupy_port.py "$protocol" 127.0.0.1 "$(port_of echo "$protocol")" $options
			[[ $output == *'Address already in use'* ]]
		done
	done
}

@test "listen: a program of another user cannot share a port of the daemon with SO_REUSEPORT" {
	need_root
	start_daemon <<-END
		[daemon]
		user = nobody
		workers = 2
		[echo]
		address = 127.0.0.1
		port = 0
	END
	local protocol
	for protocol in tcp udp; do
		run -1 python occupy_port.py "$protocol" 127.0.0.1 "$(port_of echo "$protocol")" reuse_port
		[[ $output == *'Address already in use'* ]]
	done
}

@test "listen: after a stop with open connections the port can be bound at once" {
	local port
	port=$(free_port)
	start_daemon <<-END
		[daemon]
		stop_timeout = 500ms
		[echo]
		address = 127.0.0.1
		port = $port
	END
	python_background held hold_connections.py 127.0.0.1 "$port" 3
	wait_for_line held 'served 3'
	stop_daemon
	start_daemon <"$CONF"
	assert_echo tcp 127.0.0.1 "$port"
}

@test "listen: a specific address has precedence over a wildcard on the same port" {
	local port order
	port=$(free_port)
	for order in 'general special' 'special general'; do
		start_daemon <<-END
			[daemon]
			workers = 2
			$(for section in $order; do
				case $section in
				general) printf '[general]\ntype = echo\naddress = 0.0.0.0\nport = %s\n' "$port" ;;
				special) printf '[special]\ntype = daytime\naddress = 127.0.0.2\nport = %s\n' "$port" ;;
				esac
			done)
		END
		local round
		for ((round = 0; round < 5; round++)); do
			assert_echo tcp 127.0.0.1 "$port"
			run -0 netcat -N 127.0.0.2 "$port" <<<"hello"
			[[ $output =~ [0-9]{4} ]]
			assert_echo udp 127.0.0.1 "$port"
			run -0 netcat -u -W 1 127.0.0.2 "$port" <<<"hello"
			[[ $output =~ [0-9]{4} ]]
		done
		stop_daemon
	done
}

@test "listen: each port of a range and of a list is an endpoint" {
	local first port
	first=$(free_port 6)
	start_daemon <<-END
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = $first-$((first + 3)), $((first + 5))
	END
	[[ $(listening_lines echo) == 5 ]]
	log_matches '5 endpoints'
	for port in "$first" $((first + 1)) $((first + 2)) $((first + 3)) $((first + 5)); do
		assert_echo tcp 127.0.0.1 "$port"
	done
	run -1 netcat -N 127.0.0.1 $((first + 4)) <<<"hello"
}

@test "listen: a service with enabled = no opens no socket" {
	start_daemon <<-END
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = 0
		[daytime]
		enabled = no
		port = 0
	END
	run ! log_matches 'daytime: listening'
	log_matches '1 endpoint'
}

@test "listen: a service with interface = lo or net0 is reached through that interface only" {
	make_network
	make_interface
	start_daemon <<-END
		[here]
		type = echo
		address = 0.0.0.0
		port = 7001
		interface = lo
		[there]
		type = echo
		address = 0.0.0.0
		port = 7002
		interface = net0
	END
	assert_echo tcp 127.0.0.1 7001
	assert_echo udp 127.0.0.1 7001
	run ! netcat -N 127.0.0.1 7002 <<<"hello"
	run netcat -u -W 1 -w 1 127.0.0.1 7002 <<<"hello"
	[[ -z $output ]]
}

@test "listen: an interface that does not exist is an error" {
	assert_cannot_start 'echo: cannot listen on (tcp|udp) 127\.0\.0\.1:[0-9]+: .*(No such device|nosuch0)' <<-END
		[echo]
		address = 127.0.0.1
		port = 0
		interface = nosuch0
	END
}

@test "listen: an address that this host does not have is an error unless free_bind = yes" {
	need_ipv6
	make_network
	assert_cannot_start 'echo: cannot listen on (tcp|udp) 192\.0\.2\.77:7000: Cannot assign requested address$' <<-END
		[echo]
		address = 192.0.2.77
		port = 7000
	END
	start_daemon <<-END
		[echo]
		address = 192.0.2.77, 2001:db8::77
		port = 7000
		free_bind = yes
	END
	"${NETWORK[@]}" ip address add 192.0.2.77/32 dev lo
	assert_echo tcp 192.0.2.77 7000
	assert_echo udp 192.0.2.77 7000
}

@test "listen: several ports in use are an error that names one of them" {
	local first
	first=$(free_port 2)
	python_server one occupy_port.py tcp 127.0.0.1 "$first"
	python_server other occupy_port.py tcp 127.0.0.1 $((first + 1))
	assert_cannot_start "echo: cannot listen on tcp 127\\.0\\.0\\.1:$first: Address already in use\$" <<-END
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = $first-$((first + 1))
	END
}

@test "listen: ports 7 and 13 are served as the user nobody with CAP_NET_BIND_SERVICE only" {
	need_root
	need_ipv6
	need_programs setpriv
	make_network
	chmod go+x "$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR/test" .
	RUNNER=(setpriv "--groups=0,1,2") # supplementary groups that the daemon has to drop
	start_daemon <<-END
		[daemon]
		user = nobody
		workers = 2
		[echo]
		[daytime]
	END
	local task set uid gid
	uid=$(id -u nobody)
	gid=$(id -g nobody)
	for task in "/proc/$PID/task"/*; do
		grep -qE "^Uid:	$uid	$uid	$uid	$uid\$" "$task/status"
		grep -qE "^Gid:	$gid	$gid	$gid	$gid\$" "$task/status"
		grep -qE "^Groups:	($gid)? *\$" "$task/status"
		for set in Prm Eff Inh Bnd Amb; do
			grep -qE "^Cap$set:	0+400\$" "$task/status" # only CAP_NET_BIND_SERVICE
		done
		grep -qE '^NoNewPrivs:	1$' "$task/status"
	done
	assert_echo tcp 127.0.0.1 7
	assert_echo udp 127.0.0.1 7
	run -0 netcat -N ::1 13 <<<"hello"
	[[ $output =~ [0-9]{4} ]]
	run -0 netcat -u -W 1 ::1 13 <<<"hello"
	[[ $output =~ [0-9]{4} ]]
	stop_daemon
}

@test "listen: group sets the group of the daemon" {
	need_root
	start_daemon <<-END
		[daemon]
		user = nobody
		group = daemon
		[echo]
		address = 127.0.0.1
		port = 0
	END
	local gid
	gid=$(getent group daemon | cut -d: -f3)
	grep -qE "^Gid:	$gid	$gid	$gid	$gid\$" "/proc/$PID/status"
}

@test "listen: the daemon keeps root only with user = root" {
	need_root
	printf '[echo]\naddress = 127.0.0.1\nport = 0\n' >conf.default
	"$SMALLSERVD" -c conf.default </dev/null >log.default 2>&1 3>&- 4>&- &
	PID=$!
	LOG=log.default
	STARTED+=("$PID")
	wait_until is_ready_or_ended
	if log_matches 'ready:'; then
		run ! grep -qE '^Uid:	0	' "/proc/$PID/status"
	else
		wait_for_end
		[[ $STATUS == 1 || $STATUS == 2 ]]
		log_matches 'no such user'
	fi
}

is_ready_or_ended() {
	log_matches 'ready:' || ended "$PID"
}

@test "listen: a user that does not exist is an error" {
	need_root
	launch_daemon <<-END
		[daemon]
		user = no-such-user
		[echo]
		address = 127.0.0.1
		port = 0
	END
	wait_for_end
	[[ $STATUS == 1 || $STATUS == 2 ]]
	log_matches 'no-such-user'
}

@test "listen: port 7 without privileges fails with EACCES" {
	make_network
	"${NETWORK[@]}" sysctl -qw net.ipv4.ip_unprivileged_port_start=1024 || skip "cannot set ip_unprivileged_port_start"
	need_programs setpriv
	chmod go+x "$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR/test" .
	RUNNER=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
	"${RUNNER[@]}" test -x "$SMALLSERVD" || skip "the user nobody cannot execute $SMALLSERVD"
	assert_cannot_start 'echo: cannot listen on tcp (0\.0\.0\.0|\[::\]):7: Permission denied$' <<-END
		[daemon]
		user = nobody
		[echo]
		protocol = tcp
	END
}

@test "listen: pid_file has the process id once the daemon is ready, and is removed by a stop" {
	echo stale >pid
	start_daemon <<-END
		[daemon]
		pid_file = $BATS_TEST_TMPDIR/pid
		[echo]
		address = 127.0.0.1
		port = 0
	END
	wait_until grep -qsx "$PID" pid
	stop_daemon
	[[ ! -e pid ]]
}

@test "listen: a pid_file that cannot be written is an error" {
	assert_cannot_start 'pid' <<-END
		[daemon]
		pid_file = $BATS_TEST_TMPDIR/missing/pid
		[echo]
		address = 127.0.0.1
		port = 0
	END
}

@test "listen: a daemon that dropped root removes its pid_file from a directory of that user" {
	need_root
	chmod go+x "$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR/test" .
	install -d -o nobody "$BATS_TEST_TMPDIR/run"
	start_daemon <<-END
		[daemon]
		user = nobody
		pid_file = $BATS_TEST_TMPDIR/run/pid
		[echo]
		address = 127.0.0.1
		port = 0
	END
	wait_until grep -qsx "$PID" run/pid
	stop_daemon
	[[ ! -e run/pid ]]
}

@test "listen: a daemon that fails to start leaves no pid_file" {
	python_server occupied occupy_port.py tcp 127.0.0.1 0
	assert_cannot_start 'Address already in use' <<-END
		[daemon]
		pid_file = $BATS_TEST_TMPDIR/pid
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = $SERVER_PORT
	END
	[[ ! -e pid ]]
}
