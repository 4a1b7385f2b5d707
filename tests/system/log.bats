#!/usr/bin/env bats
# The log, and the notifications of the service manager.
# shellcheck disable=SC2030,SC2031,SC2034,SC2153 # helpers.bash and a test share PID, LOG, STATUS and RUNNER

load helpers

# Starts a daemon with echo and waits for its pid file, because its log may have no ready line. An argument that begins with -
# is one of the daemon, the others are lines in [daemon].
start_quiet_echo() {
	local arguments=()
	if [[ $1 == -* ]]; then
		arguments=("$1")
		shift
	fi
	launch_daemon "${arguments[@]}" <<-END
		[daemon]
		workers = 2
		pid_file = $BATS_TEST_TMPDIR/pid
		$(printf '%s\n' "$@")
		[echo]
		address = 127.0.0.1
		port = 0
	END
	wait_until grep -qsx "$PID" pid
}

@test "log: a start logs a line for each endpoint and one with the counts" {
	start_daemon <<-END
		[daemon]
		workers = 3
		[echo]
		address = 127.0.0.1
		port = 0
		[daytime]
		protocol = tcp
		address = 127.0.0.1
		port = 0
	END
	[[ $(grep -cxE 'echo: listening on (tcp|udp) 127\.0\.0\.1:[1-9][0-9]*' "$LOG") == 2 ]]
	[[ $(grep -cxE 'daytime: listening on tcp 127\.0\.0\.1:[1-9][0-9]*' "$LOG") == 1 ]]
	[[ $(grep -cxE 'ready: 2 services, 3 endpoints, 3 workers' "$LOG") == 1 ]]
	[[ $(tail -n 1 "$LOG") == ready:* ]]
}

@test "log: the address of an IPv6 endpoint is in brackets" {
	need_ipv6
	start_daemon <<-END
		[echo]
		protocol = tcp
		address = ::1
		port = 0
	END
	[[ $(grep -cxE 'echo: listening on tcp \[::1\]:[1-9][0-9]*' "$LOG") == 1 ]]
}

@test "log: after the ready line every endpoint answers" {
	local round
	for ((round = 0; round < 10; round++)); do
		start_local_echo
		assert_echo tcp 127.0.0.1 "$(port_of echo tcp)"
		stop_daemon
	done
}

@test "log: with log_level = warning a start and a stop log no line" {
	start_quiet_echo 'log_level = warning'
	stop_daemon
	[[ ! -s $LOG ]]
}

@test "log: log_level = debug includes the lines of level notice" {
	start_local_echo 'log_level = debug'
	log_matches 'echo: listening on tcp'
	stop_daemon
}

@test "log: -v raises the level by one, -vv by two" {
	start_quiet_echo -v 'log_level = error'
	stop_daemon
	run ! log_matches 'ready:'
	start_quiet_echo -v 'log_level = warning'
	wait_for_log 'ready:'
	stop_daemon
	start_quiet_echo -vv 'log_level = error'
	wait_for_log 'ready:'
	stop_daemon
}

@test "log: log_level = error includes the reason of a failed start" {
	python_server occupied occupy_port.py tcp 127.0.0.1 0
	launch_daemon <<-END
		[daemon]
		log_level = error
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = $SERVER_PORT
	END
	wait_for_end
	[[ $STATUS == 1 ]]
	log_matches 'cannot listen.*Address already in use'
}

@test "log: a closed connection logs its source, duration, bytes each way and reason" {
	start_daemon <<-END
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = 0
		log_connections = yes
		[daytime]
		protocol = tcp
		address = 127.0.0.1
		port = 0
		log_connections = yes
		timezone = utc
	END
	netcat -p "$(free_port)" -N 127.0.0.1 "$(port_of echo tcp)" <<<"1234567" >/dev/null
	wait_for_log 'echo.*127\.0\.0\.1:[0-9]+.*client'
	local line
	line=$(grep -aE 'echo.*127\.0\.0\.1:[0-9]+.*client' "$LOG" | tail -n 1)
	[[ $line =~ (^|[^0-9])8([^0-9].*[^0-9]|[^0-9])8([^0-9]|$) ]] || fail "no 8 bytes each way: $line"
	[[ $line =~ [0-9.]+\ ?m?s ]] || fail "no duration: $line"
	netcat -N 127.0.0.1 "$(port_of daytime tcp)" </dev/null >/dev/null
	wait_for_log 'daytime.*127\.0\.0\.1:[0-9]+.*done'
	log_matches 'daytime.*127\.0\.0\.1:[0-9]+.*[^0-9]26[^0-9]'
}

@test "log: without log_connections a closed connection logs no line" {
	start_local_echo
	netcat -N 127.0.0.1 "$(port_of echo tcp)" <<<"1234567" >/dev/null
	kill -USR1 "$PID"
	wait_for_log 'echo:? tcp: .*accepted='
	stop_daemon
	run ! log_matches '127\.0\.0\.1:[0-9]+.*client'
}

@test "log: the address of an IPv6 client is in brackets" {
	need_ipv6
	start_daemon <<-END
		[echo]
		protocol = tcp
		address = ::1
		port = 0
		log_connections = yes
	END
	netcat -N ::1 "$(port_of echo tcp)" <<<"hello" >/dev/null
	wait_for_log 'echo.*\[::1\]:[0-9]+.*client'
}

@test "log: lines have a priority prefix where standard error is the journal's stream" {
	use_journal_stream
	start_local_echo 'log_target = stderr'
	[[ $(grep -cE '^<5>echo: listening on tcp 127\.0\.0\.1:[0-9]+$' "$LOG") == 1 ]]
	[[ $(grep -cE '^<5>ready: ' "$LOG") == 1 ]]
	run ! grep -qvE '^<[0-7]>' "$LOG"
}

# Sets JOURNAL_STREAM so that the log of the next daemon, log.0, counts as the journal's stream.
use_journal_stream() {
	: >log.0
	RUNNER=(env "JOURNAL_STREAM=$(stat -c %d:%i log.0)")
}

@test "log: lines have no prefix where JOURNAL_STREAM names another file" {
	: >another
	RUNNER=(env "JOURNAL_STREAM=$(stat -c %d:%i another)")
	start_local_echo
	run ! grep -qE '^<' "$LOG"
	[[ $(grep -cE '^ready: ' "$LOG") == 1 ]]
}

# Has the daemon run below a log daemon of this test, with its socket NAME in FOLDER.
use_log_daemon() {
	need_mounts
	RUNNER+=(unshare --mount python3 "$BATS_TEST_DIRNAME/log_daemon.py" "$@")
}

@test "log: log_target = syslog writes to /dev/log, with facility and priority" {
	need_root
	use_log_daemon /dev log
	start_local_echo 'log_target = syslog' 'syslog_facility = local3'
	wait_for_log '^socket: <157>.*smallservd\[[0-9]+\]: echo: listening on tcp 127\.0\.0\.1:[0-9]+'
	log_matches '^socket: <157>.*smallservd\[[0-9]+\]: ready: '
	stop_daemon
	run ! grep -qvE '^socket: ' "$LOG"
}

@test "log: log_target = journal writes to the journal, with fields" {
	need_root
	need_libsystemd
	use_log_daemon /run systemd/journal/socket
	start_local_echo 'log_target = journal'
	assert_in_journal
}

@test "log: a journal entry of a connection has its client in the field SOURCE" {
	need_root
	need_libsystemd
	use_log_daemon /run systemd/journal/socket
	local port
	port=$(free_port)
	start_daemon <<-END
		[daemon]
		log_target = journal
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = $port
		log_connections = yes
	END
	netcat -N 127.0.0.1 "$port" <<<"hello" >/dev/null
	wait_for_log '^socket: MESSAGE=echo: tcp .* closed: client'
	grep -E 'closed: client' "$LOG" | grep -qE '[ |]SOURCE=127\.0\.0\.1:[0-9]+(\||$)'
}

@test "log: log_target = auto is the journal where standard error is the journal's stream" {
	need_root
	need_libsystemd
	use_journal_stream
	use_log_daemon /run systemd/journal/socket
	start_local_echo
	assert_in_journal
}

# Starts a daemon with log_target = TARGET and sets PORTS, because port_of cannot read that log.
start_logging_echo() {
	PORTS=()
	mapfile -t PORTS < <(free_port && free_port)
	start_daemon <<-END
		[daemon]
		workers = 2
		log_target = $1
		[echo]
		address = 127.0.0.1
		port = ${PORTS[0]}
		log_connections = yes
	END
}

assert_serves_while_log_stalls() {
	local reader
	reader=$(tr -d " " <"/proc/$PID/task/$PID/children")
	sed "s/^port = .*/port = ${PORTS[*]}/; s/^\(port = [0-9]*\) /\1, /" "$CONF" >next
	python stalled_log_daemon.py serves_while_stalled "$reader" "$PID" "$CONF" next 127.0.0.1 "${PORTS[@]}"
	wait_until reports_lost_lines || fail "lost lines are not reported"
}

# The daemon reports lost lines with the next line, which a connection causes.
reports_lost_lines() {
	python stalled_log_daemon.py flood 127.0.0.1 "${PORTS[0]}" 1
	log_matches 'log: [0-9]+ lines lost, more than could be written'
}

@test "log: a syslog daemon that does not read does not stop the daemon" {
	need_root
	use_log_daemon /dev log
	start_logging_echo syslog
	assert_serves_while_log_stalls
}

@test "log: a journal that does not read does not stop the daemon" {
	need_root
	need_libsystemd
	use_log_daemon /run systemd/journal/socket
	start_logging_echo journal
	assert_serves_while_log_stalls
}

# Checks that the journal entry of an endpoint has all fields. The log daemon joins the fields of an entry by |.
assert_in_journal() {
	local field
	wait_for_log '^socket: .*MESSAGE=ready: '
	for field in PRIORITY=5 SERVICE=echo TRANSPORT=tcp SYSLOG_IDENTIFIER=smallservd "CONFIG_FILE=$CONF" 'CONFIG_LINE=[0-9]+'; do
		grep -E '^socket: .*MESSAGE=echo: listening on tcp' "$LOG" | grep -qE "[ |]$field(\||\$)" || fail "no $field"
	done
	run ! grep -qvE '^socket: ' "$LOG"
}

@test "log: after a burst of connections every line is logged or counted as lost" {
	start_daemon <<-END
		[daemon]
		workers = 4
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = 0
		log_connections = yes
	END
	python limits.py churn 1000 100 20 127.0.0.1 "$(port_of echo tcp)"
	stop_daemon
	local lines lost
	lines=$(grep -caE 'echo.*127\.0\.0\.1:[0-9]+.*(client|reset)' "$LOG")
	lost=$(grep -aoE '[0-9]+ lines lost|[0-9]+ more like this' "$LOG" | awk '{ sum += $1 } END { print sum + 0 }')
	((lines + lost == 2000)) || fail "$lines lines and $lost lost for 2000 connections"
	run ! grep -qaE '127\.0\.0\.1:[0-9]+.*127\.0\.0\.1:[0-9]+' "$LOG"
}

@test "log: a closed pipe on standard error does not end the daemon" {
	python closed_log_pipe.py "$SMALLSERVD"
}

@test "notify: READY=1 is sent when the endpoints answer, STOPPING=1 at a stop" {
	need_libsystemd
	python_background messages notify_socket.py "$BATS_TEST_TMPDIR/socket"
	wait_for_line messages listening
	RUNNER=(env "NOTIFY_SOCKET=$BATS_TEST_TMPDIR/socket")
	start_local_echo
	wait_for_line messages 'READY=1'
	assert_echo tcp 127.0.0.1 "$(port_of echo tcp)"
	grep -qE '^STATUS=.+' messages
	run ! grep -q STOPPING messages
	stop_daemon
	wait_for_line messages 'STOPPING=1'
	[[ $(grep -cx 'READY=1' messages) == 1 && $(grep -cx 'STOPPING=1' messages) == 1 ]]
}

@test "notify: a failed start sends no READY=1" {
	need_libsystemd
	python_background messages notify_socket.py "$BATS_TEST_TMPDIR/socket"
	wait_for_line messages listening
	python_server occupied occupy_port.py tcp 127.0.0.1 0
	RUNNER=(env "NOTIFY_SOCKET=$BATS_TEST_TMPDIR/socket")
	launch_daemon <<-END
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = $SERVER_PORT
	END
	wait_for_end
	[[ $STATUS == 1 ]]
	run ! grep -q READY messages
}

@test "notify: STOPPING=1 is sent while connections are still open" {
	need_libsystemd
	python_background messages notify_socket.py "$BATS_TEST_TMPDIR/socket"
	wait_for_line messages listening
	RUNNER=(env "NOTIFY_SOCKET=$BATS_TEST_TMPDIR/socket")
	start_local_echo 'stop_timeout = 1h'
	python_background held hold_connections.py 127.0.0.1 "$(port_of echo tcp)" 1
	wait_for_line held 'served 1'
	kill -TERM "$PID"
	wait_for_line messages 'STOPPING=1'
	running "$PID"
}

@test "notify: a NOTIFY_SOCKET without a reader has no effect" {
	RUNNER=(env "NOTIFY_SOCKET=$BATS_TEST_TMPDIR/missing")
	start_local_echo
	assert_echo tcp 127.0.0.1 "$(port_of echo tcp)"
	stop_daemon
}
