#!/usr/bin/env bats
# Reload on HUP: a valid file takes effect as a whole, an invalid one changes no service.
# shellcheck disable=SC2030,SC2031,SC2153 # helpers.bash sets PID, LOG, CONF and STATUS in the test's own shell

load helpers

# Prints the number of finished reloads.
reload_count() {
	grep -caE '(^|[ >=])(reloaded: |reload failed)' "$LOG" || true
}

has_more_reloads() {
	(($(reload_count) > $1))
}

# Reloads the daemon with the configuration on standard input and waits for the result.
reload() {
	local before
	before=$(reload_count)
	write_config "$CONF.new"
	mv "$CONF.new" "$CONF"
	kill -HUP "$PID"
	wait_until has_more_reloads "$before" || fail "no reload: $(tail -n 3 "$LOG")"
}

# Runs a command of reload.py for the running daemon.
reload_client() {
	python reload.py "$1" "$PID" "$CONF" "$LOG" "${@:2}"
}

# Prints the inodes of the daemon's sockets.
sockets() {
	find "/proc/$PID/fd" -lname 'socket:*' -printf '%l\n' | sort
}

@test "reload: an open connection keeps its service, a new connection gets the new one" {
	local port
	port=$(free_port)
	start_daemon <<-END
		[daemon]
		workers = 2
		[echo]
		address = 127.0.0.1
		port = $port
	END
	write_config next <<-END
		[daemon]
		workers = 2
		[daytime]
		address = 127.0.0.1
		port = $port
	END
	reload_client keeps 127.0.0.1 "$port" next
	log_matches "echo: no longer listening on tcp 127\.0\.0\.1:$port$"
	log_matches "daytime: listening on udp 127\.0\.0\.1:$port$"
	log_matches 'reloaded: 1 services, 2 endpoints$'
}

@test "reload: unchanged endpoints keep their sockets and the ports chosen by the kernel" {
	start_local_echo
	local before port
	before=$(sockets)
	port=$(port_of echo tcp)
	reload <<-END
		[daemon]
		workers = 2
		$(local_services daytime)
		[echo]
		address = 127.0.0.1
		port = 0
		idle_timeout = 1h
	END
	[[ $(comm -12 <(sockets) <(echo "$before")) == "$before" ]]
	[[ $(port_of echo tcp) == "$port" ]]
	[[ $(grep -c 'echo: listening' "$LOG") == 2 ]] || fail "an unchanged endpoint was logged again"
	assert_echo tcp 127.0.0.1 "$port"
	[[ $(netcat -N 127.0.0.1 "$(port_of daytime tcp)" </dev/null) == *:*:* ]]
}

@test "reload: connections accepted while a listener is removed are served, later ones are refused" {
	local service port round
	for service in echo daytime; do
		port=$(free_port)
		start_daemon <<-END
			[daemon]
			workers = 2
			[$service]
			address = 127.0.0.1
			port = $port
			$(local_services discard)
		END
		cp "$CONF" with
		sed "/^\[$service\]/,/^port/d" with >without
		for ((round = 0; round < 2; round++)); do
			reload_client removed 127.0.0.1 "$port" without "$service"
			log_matches "$service: no longer listening on tcp 127\.0\.0\.1:$port$"
			reload <with
		done
	done
}

@test "reload: queued connections and datagrams of a removed service are served" {
	start_daemon <<-END
		[daemon]
		workers = 2
		$(local_services echo discard)
	END
	write_config next <<-END
		[daemon]
		workers = 2
		$(local_services discard)
	END
	reload_client queued 127.0.0.1 "$(port_of echo tcp)" "$(port_of echo udp)" next 50
}

# True if the user nobody can read FILE.
readable_for_nobody() {
	setpriv --reuid nobody --clear-groups cat "$1" >/dev/null
}

@test "reload: a daemon that dropped root loses no connection of a removed service" {
	need_root
	local port
	port=$(free_port)
	start_daemon <<-END
		[daemon]
		user = nobody
		workers = 2
		[echo]
		address = 127.0.0.1
		port = $port
		$(local_services discard)
	END
	chmod go+x "$BATS_RUN_TMPDIR" "${BATS_TEST_TMPDIR%/*}" "$BATS_TEST_TMPDIR"
	write_config next <<-END
		[daemon]
		user = nobody
		workers = 2
		$(local_services discard)
	END
	readable_for_nobody "$CONF" || skip "the user nobody cannot read in $BATS_RUN_TMPDIR"
	reload_client removed 127.0.0.1 "$port" next echo
}

@test "reload: an invalid file changes no service and is reported with file, line and reason" {
	python_server other occupy_port.py tcp 127.0.0.1 0
	start_local_echo
	cp "$CONF" good
	cp good unknown_key && echo 'bogus = 1' >>unknown_key
	cp good bad_value && echo 'idle_timeout = 30' >>bad_value
	cp good no_value && echo 'idle_timeout =' >>no_value
	cp good header && echo '[echo' >>header
	cp good twice && printf '[echo]\nport = 0\n' >>twice
	cp good nul && printf 'idle_timeout = 1\000s\n' >>nul
	cp good utf8 && printf 'interface = \377\n' >>utf8
	cp good include && sed -i 's/^\[daemon\]/[daemon]\ninclude = missing\/file.conf/' include
	cp good prefixes && echo 'allow_file = /does/not/exist' >>prefixes
	cp good quotes && printf '[qotd]\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\nquotes_file = /does/not/exist\n' >>quotes
	cp good port_in_use && printf '[time]\nprotocol = tcp\naddress = 127.0.0.1\nport = 0, %s\n' "$SERVER_PORT" >>port_in_use
	cp good foreign && printf '[time]\nprotocol = tcp\naddress = 192.0.2.1\nport = 0\n' >>foreign
	cp good interface && printf '[time]\nprotocol = tcp\ninterface = missing0\nport = 0\n' >>interface
	cp good group && printf '[time]\nprotocol = udp\naddress = 0.0.0.0\nport = 0\nmulticast_groups = 239.1.2.3%%missing0\n' >>group
	: >empty
	local bad=(unknown_key bad_value no_value header twice nul utf8 include prefixes quotes port_in_use foreign interface group empty)
	reload_client bad_files 127.0.0.1 "$(port_of echo tcp)" "$(port_of echo udp)" "${bad[@]}"
	[[ $(grep -c 'reload failed, the running configuration stays: ' "$LOG") == "${#bad[@]}" ]]
	[[ $(grep -cE "reload failed, the running configuration stays: $CONF:[0-9]+: |$CONF: " "$LOG") == "${#bad[@]}" ]]
	log_matches "stays: $CONF:[0-9]+: \[echo\] bogus: unknown key"
	log_matches "stays: $CONF:[0-9]+: time: cannot listen on tcp 127\.0\.0\.1:$SERVER_PORT: Address already in use"
	[[ $(grep -c '^reloaded' "$LOG") == 1 ]] # by settled_descriptors() of reload.py
}

@test "reload: a missing file changes no service" {
	start_local_echo
	local text
	text=$(<"$CONF")
	rm "$CONF"
	kill -HUP "$PID"
	wait_for_log "reload failed, the running configuration stays: $CONF"
	assert_echo tcp 127.0.0.1 "$(port_of echo tcp)"
	reload <<<"$text"
	log_matches '^reloaded: 1 services, 2 endpoints$'
}

@test "reload: all errors of a file are reported" {
	start_local_echo
	reload <<-END
		[echo]
		address = 127.0.0.1
		port = 0
		first = 1
		second = 2
	END
	log_matches 'reload failed.*\[echo\] first: unknown key'
	log_matches "^$CONF:[0-9]+: \[echo\] second: unknown key"
}

@test "reload: keys that need a restart are reported and the others take effect" {
	start_local_echo
	reload <<-END
		[daemon]
		workers = 3
		pid_file = $BATS_TEST_TMPDIR/pid
		$(local_services echo discard)
	END
	log_matches '\[daemon\] workers changed: takes effect at a restart'
	log_matches '\[daemon\] pid_file changed: takes effect at a restart'
	run ! log_matches '\[daemon\] (user|group|stop_timeout|log_level) changed'
	log_matches '^reloaded: 2 services, 4 endpoints$'
	[[ ! -e $BATS_TEST_TMPDIR/pid ]]
	[[ $(find "/proc/$PID/task" -mindepth 1 -maxdepth 1 -exec cat {}/comm \; | grep -c worker) == 2 ]]
}

@test "reload: log_level takes effect at once" {
	start_local_echo
	reload <<-END
		[daemon]
		workers = 2
		log_level = error
		$(local_services echo)
		bogus = 1
	END
	log_matches 'reload failed'
	write_config "$CONF" <<-END
		[daemon]
		workers = 2
		log_level = error
		$(local_services echo discard)
	END
	local before
	before=$(sockets | wc -l)
	kill -HUP "$PID"
	has_more_sockets() { (($(sockets | wc -l) > before)); }
	wait_until has_more_sockets
	stop_daemon
	run ! log_matches 'reloaded|stopping|discard'
}

@test "reload: after a storm of signals the last file is in effect" {
	start_local_echo
	cp "$CONF" one
	{
		cat "$CONF"
		local_services last
		echo 'type = echo'
	} >two
	reload_client storm 2000 one two one two
	wait_for_log 'last: listening on tcp'
	last_is_in_force() {
		tail -n 1 "$LOG" | grep -q '^reloaded: 2 services, 4 endpoints$'
	}
	wait_until last_is_in_force
	local port
	port=$(grep 'last: listening on tcp' "$LOG" | tail -n 1 | sed 's/.*://')
	assert_echo tcp 127.0.0.1 "$port"
	(($(reload_count) < 2000)) || fail "signals are not merged: $(reload_count) reloads"
}

@test "reload: reloads under load lose no connection and leak no descriptor or memory" {
	start_local_echo 'log_level = notice'
	local rounds=60 allowed=512
	if sanitized; then
		rounds=20 allowed=1000000 # a sanitizer keeps freed memory
	fi
	reload_client leaks 127.0.0.1 "$(port_of echo tcp)" "$(port_of echo udp)" "$rounds" "$allowed"
}

@test "reload: open connections count for max_connections, and a higher limit admits waiting clients" {
	local limit
	for limit in 2 3; do
		write_config "limit.$limit" <<-END
			[daemon]
			workers = 2
			[echo]
			protocol = tcp
			address = 127.0.0.1
			port = 0
			max_connections = $limit
		END
	done
	start_daemon <limit.2
	reload_client raises_limit 127.0.0.1 "$(port_of echo tcp)" limit.2 limit.3
}

@test "reload: drain_timeout closes the connections of a removed service in order" {
	start_local_echo 'drain_timeout = 1s'
	write_config next <<-END
		[daemon]
		workers = 2
		drain_timeout = 1s
		$(local_services discard)
	END
	reload_client drains 127.0.0.1 "$(port_of echo tcp)" next 1
}

@test "reload: drain_timeout closes a waiting client of a removed service too" {
	start_daemon <<-END
		[daemon]
		workers = 1
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = 0
		max_connections = 1
	END
	write_config next <<-END
		[daemon]
		workers = 1
		drain_timeout = 500ms
		$(local_services discard)
	END
	reload_client drains_queue 127.0.0.1 "$(port_of echo tcp)" next
}

@test "reload: a service that is restored before drain_timeout keeps its connections" {
	start_local_echo 'drain_timeout = 1s'
	write_config next <<-END
		[daemon]
		workers = 2
		drain_timeout = 1s
		$(local_services discard)
	END
	reload_client comes_back 127.0.0.1 "$(port_of echo tcp)" next 1.5
}

@test "reload: an address and its wildcard replace each other without losing a connection" {
	local port
	port=$(free_port)
	serving_on() {
		write_config "$1" <<-END
			[daemon]
			workers = 2
			[echo]
			address = $2
			port = $port
		END
	}
	serving_on wildcard 0.0.0.0
	serving_on both '0.0.0.0, 127.0.0.1'
	serving_on address 127.0.0.1
	start_daemon <wildcard
	reload_client keeps_clients_of_overlap 127.0.0.1 "$port" both address both wildcard address wildcard
}

@test "reload: a failed reload that added an address under its wildcard loses no connection" {
	local port late=()
	port=$(free_port)
	write_config late <<-END
		[daemon]
		workers = 2
		[echo]
		address = 0.0.0.0, 127.0.0.1, 192.0.2.1
		port = $port
	END
	printf -v late '%.0slate ' {1..20}
	read -ra late <<<"${late[*]}"
	start_daemon <<<"$(sed 's/, 127.*//' late)"
	reload_client keeps_clients_of_overlap 127.0.0.1 "$port" "${late[@]}"
	log_matches "reload failed, .*cannot listen on tcp 192.0.2.1:$port: "
	run ! log_matches '192.0.2.1.*listening|^reloaded'
}

@test "reload: HUP during a stop is ignored" {
	start_local_echo 'stop_timeout = 1h'
	python reload.py hup_during_stop "$PID" 127.0.0.1 "$(port_of echo tcp)"
	wait_for_log 'reload ignored'
	wait_for_end
	[[ $STATUS == 0 ]]
	run ! log_matches 'reloaded'
}

@test "reload: TERM right after HUP is an orderly stop" {
	local round
	for ((round = 0; round < 10; round++)); do
		start_local_echo
		local_services discard >>"$CONF"
		kill -HUP "$PID"
		sleep "0.00$round"
		stop_daemon
	done
}

@test "reload: a configuration from standard input cannot be reloaded, which is logged" {
	local text
	text=$(write_config /dev/stdout <<-END
		$(local_services echo)
	END
	)
	LOG=$BATS_TEST_TMPDIR/log.stdin
	"$SMALLSERVD" -c - <<<"$text" >"$LOG" 2>&1 3>&- 4>&- &
	PID=$!
	STARTED+=("$PID")
	wait_for_log 'ready: '
	kill -HUP "$PID"
	wait_for_log 'reload failed, the running configuration stays: standard input'
	assert_echo tcp 127.0.0.1 "$(port_of echo tcp)"
}

@test "reload: a configuration or allow_file that is a pipe fails the reload without blocking" {
	mkfifo pipe
	LOG=$BATS_TEST_TMPDIR/log.pipe
	"$SMALLSERVD" -c pipe </dev/null >"$LOG" 2>&1 3>&- 4>&- &
	PID=$!
	STARTED+=("$PID")
	write_config pipe <<-END
		[echo]
		address = 127.0.0.1
		port = 0
	END
	wait_for_log 'ready: '
	kill -HUP "$PID"
	wait_for_log 'reload failed, the running configuration stays: pipe: cannot read: not a regular file'
	rm pipe
	write_config pipe <<<$'[echo]\naddress = 127.0.0.1\nport = 0\nallow_file = allowed'
	mkfifo allowed
	kill -HUP "$PID"
	wait_for_log 'reload failed, .*pipe:[0-9]+: \[echo\] allow_file: allowed: not a regular file'
	assert_echo tcp 127.0.0.1 "$(port_of echo tcp)"
}

@test "reload: the service manager is notified of the begin and the end, also of a failed reload" {
	need_libsystemd
	python_background messages notify_socket.py "$BATS_TEST_TMPDIR/manager"
	wait_for_line messages listening
	NOTIFY_SOCKET=$BATS_TEST_TMPDIR/manager start_local_echo
	wait_for_line messages READY=1
	local_services discard >>"$CONF"
	kill -HUP "$PID"
	wait_for_line messages 'STATUS=2 services, 4 endpoints, 2 workers'
	echo 'bogus = 1' >>"$CONF"
	kill -HUP "$PID"
	wait_for_log 'reload failed'
	ready_three_times() { [[ $(grep -c '^READY=1$' messages) == 3 ]]; }
	wait_until ready_three_times
	[[ $(grep -c '^RELOADING=1$' messages) == 2 ]]
	[[ $(grep -cE '^MONOTONIC_USEC=[0-9]+$' messages) == 2 ]]
	[[ $(grep -nE '^(READY|RELOADING)=1$' messages | cut -d : -f 2 | tr '\n' ' ') == 'READY=1 RELOADING=1 READY=1 RELOADING=1 READY=1 ' ]]
}

@test "reload: a daemon that dropped root binds a port below 1024" {
	make_network
	chmod go+x "$BATS_RUN_TMPDIR" "${BATS_TEST_TMPDIR%/*}" "$BATS_TEST_TMPDIR"
	start_daemon <<-END
		[daemon]
		user = nobody
		workers = 2
		[echo]
		address = 127.0.0.1
		port = 7
	END
	readable_for_nobody "$CONF" || skip "the user nobody cannot read in $BATS_RUN_TMPDIR"
	reload <<-END
		[daemon]
		user = nobody
		workers = 2
		[echo]
		address = 127.0.0.1
		port = 7
		[daytime]
		address = 127.0.0.1
		port = 13
	END
	grep -q '^CapEff:.*[1-9a-f]' "/proc/$PID/status" || skip "this build keeps no capability"
	log_matches '^reloaded: 2 services, 4 endpoints$'
	[[ $(netcat -N 127.0.0.1 13 </dev/null) == *:*:* ]]
}

@test "reload: a datagram from the port of an added service is dropped" {
	start_local_echo
	reload <<-END
		[daemon]
		workers = 2
		$(local_services echo)
		[next]
		type = echo
		protocol = udp
		address = 127.0.0.2
		port = 0
	END
	python reload.py refuses_port "$PID" "$LOG" 127.0.0.1 "$(port_of echo udp)" "$(port_of next udp)"
}

@test "reload: an added multicast group is joined and a removed one left" {
	make_network
	make_interface
	echo_with() {
		printf '%s\n' '[daemon]' 'workers = 2' '[echo]' 'protocol = udp' 'address = 0.0.0.0' 'port = 7777' "$@"
	}
	start_daemon < <(echo_with)
	groups() { "${NETWORK[@]}" cat /proc/net/igmp | grep -c '030201EF' || true; }
	[[ $(groups) == 0 ]]
	reload < <(echo_with 'multicast_groups = 239.1.2.3%net0')
	[[ $(groups) == 1 ]]
	reload < <(echo_with 'multicast_groups = 239.1.2.3%net0, 239.1.2.4%missing')
	log_matches 'reload failed.*cannot join 239\.1\.2\.4'
	[[ $(groups) == 1 ]]
	reload < <(echo_with)
	[[ $(groups) == 0 ]]
}

@test "reload: without free descriptors in a worker it fails and changes no socket, later it succeeds" {
	start_local_echo '[defaults]' 'max_connections_per_source = unlimited'
	local port
	port=$(free_port)
	{
		cat "$CONF"
		printf '%s\n' '[more-echo]' 'type = echo' 'address = 127.0.0.1' "port = $port"
	} >next
	reload_client exhausts_descriptors next 127.0.0.1 "$(port_of echo tcp)" "$port"
}

# Makes the next two epoll_ctl calls of thread $1 fail with ENOSPC, by strace.
fail_epoll_ctl() {
	: >"strace.$1"
	strace -p "$1" -e trace=epoll_ctl -e inject=epoll_ctl:error=ENOSPC:when=1..2 </dev/null >/dev/null 2>"strace.$1" 3>&- 4>&- &
	BACKGROUND+=("$!")
	wait_until grep -q . "strace.$1"
	grep -q attached "strace.$1" || skip "strace may not attach here: $(cat "strace.$1")"
}

@test "reload: sockets that epoll_ctl rejects are retried a moment later" {
	need_programs strace
	! sanitized || skip "a sanitizer and strace conflict"
	start_local_echo
	local task port
	for task in "/proc/$PID/task"/*; do
		[[ ${task##*/} == "$PID" ]] || fail_epoll_ctl "${task##*/}"
	done
	port=$(free_port)
	reload <<-END
		$(cat "$CONF")
		[more-echo]
		type = echo
		address = 127.0.0.1
		port = $port
	END
	wait_for_log 'more-echo: accepting pauses: No space left on device'
	wait_for_log 'more-echo: receiving pauses: No space left on device'
	for _ in {1..12}; do # often enough that each worker gets some
		run -0 netcat -N 127.0.0.1 "$port" <<<"hello"
		[[ $output == hello ]]
		run -0 netcat -u -W 1 127.0.0.1 "$port" <<<"hello"
		[[ $output == hello ]]
	done
	[[ $(cat strace.* | grep -c INJECTED) == 4 ]]
	stop_daemon
}
