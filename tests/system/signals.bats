#!/usr/bin/env bats
# Signals: the orderly stop, counters on USR1, ignored signals.
# shellcheck disable=SC2030,SC2031,SC2153 # helpers.bash sets PID, LOG, CONF and STATUS in the test's own shell

load helpers

# Starts a daemon with echo and the given lines in [daemon].
start_echo() {
	start_daemon <<-END
		[daemon]
		workers = 2
		$(printf '%s\n' "$@")
		[echo]
		address = 127.0.0.1
		port = 0
		log_connections = yes
	END
}

@test "signals: TERM and INT cause an orderly stop with exit status 0" {
	local signal
	for signal in TERM INT; do
		start_echo
		kill -"$signal" "$PID"
		wait_for_end
		[[ $STATUS == 0 ]]
	done
}

@test "signals: TERM during the start causes an orderly stop or the default exit" {
	local round
	for ((round = 0; round < 20; round++)); do
		launch_daemon <<-END
			[daemon]
			workers = 4
			[echo]
			address = 127.0.0.1
			port = 0
		END
		sleep "0.00$round"
		kill -TERM "$PID"
		wait_for_end
		[[ $STATUS == 0 || $STATUS == 143 ]] || fail "exit status $STATUS"
	done
}

@test "signals: a stop serves an open connection until its client ends" {
	start_echo 'stop_timeout = 1h'
	python signals.py drains "$PID" 127.0.0.1 "$(port_of echo tcp)"
	wait_for_end
	[[ $STATUS == 0 ]]
	log_matches 'echo.*127\.0\.0\.1.*client'
}

@test "signals: a stop without connections does not wait for stop_timeout" {
	start_echo 'stop_timeout = 1h'
	stop_daemon
}

@test "signals: stop_timeout closes the remaining connections" {
	start_echo 'stop_timeout = 1s'
	python signals.py times_out "$PID" 127.0.0.1 "$(port_of echo tcp)" 1
	wait_for_end
	[[ $STATUS == 0 ]]
	log_matches 'echo.*127\.0\.0\.1.*stop'
}

@test "signals: stop_timeout ends a daemon with clients that neither read nor close" {
	start_echo 'stop_timeout = 1s'
	python_background stuck signals.py stuck 127.0.0.1 "$(port_of echo tcp)" 20
	wait_for_line stuck stuck
	stop_daemon
}

@test "signals: a second TERM stops at once" {
	start_echo 'stop_timeout = 1h'
	python signals.py second_term "$PID" 127.0.0.1 "$(port_of echo tcp)"
	wait_for_end
	[[ $STATUS == 0 ]] || fail "exit status $STATUS"
}

@test "signals: a stop serves queued connections and datagrams" {
	start_echo
	python signals.py queued "$PID" 127.0.0.1 "$(port_of echo tcp)" "$(port_of echo udp)" 50
	wait_for_end
	[[ $STATUS == 0 ]]
}

# Stops a daemon of SERVICE under load ten times, because a loss would happen in the moment between two system calls.
assert_stops_under_load() {
	local service=$1 round
	for ((round = 0; round < 10; round++)); do
		start_"$service" "${@:2}"
		python signals.py under_load "$PID" 127.0.0.1 "$(port_of "$service" tcp)" "$service"
		wait_for_end
		[[ $STATUS == 0 ]]
	done
}

start_daytime() {
	start_daemon <<-END
		[daemon]
		workers = 4
		[daytime]
		address = 127.0.0.1
		port = 0
	END
}

@test "signals: a stop under load loses no accepted connection" {
	assert_stops_under_load echo
}

@test "signals: a stop under load of a daemon that dropped root loses no accepted connection" {
	need_root
	assert_stops_under_load echo 'user = nobody'
}

@test "signals: a stop under load loses no reply of daytime" {
	assert_stops_under_load daytime
}

@test "signals: a stop under a flood of datagrams ends" {
	start_echo
	python_background flood signals.py flood 127.0.0.1 "$(port_of echo udp)"
	wait_for_line flood 'answered'
	stop_daemon
}

# assert_stops_at_limit CLIENTS: stops a daemon with that many clients and max_connections = 2.
assert_stops_at_limit() {
	start_daemon <<-END
		[daemon]
		workers = 2
		stop_timeout = 1h
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = 0
		max_connections = 2
	END
	python signals.py stop_at_limit "$PID" 127.0.0.1 "$(port_of echo tcp)" 2 "$1"
	wait_for_end
	[[ $STATUS == 0 ]]
}

@test "signals: a stop at max_connections serves the clients that wait" {
	assert_stops_at_limit 10
}

@test "signals: a stop at max_connections without waiting clients ends with the last connection" {
	assert_stops_at_limit 2
}

@test "signals: USR1 logs the sums of each service and transport" {
	start_daemon <<-END
		[daemon]
		workers = 4
		[echo]
		address = 127.0.0.1
		port = 0
		max_datagram = 100
		[daytime]
		protocol = tcp
		address = 127.0.0.1
		port = 0
	END
	local round
	for ((round = 0; round < 3; round++)); do
		netcat -N 127.0.0.1 "$(port_of echo tcp)" <<<"1234567" >/dev/null
	done
	netcat -N 127.0.0.1 "$(port_of daytime tcp)" </dev/null >/dev/null
	python echo.py datagrams 127.0.0.1 "$(port_of echo udp)" 30 40
	python echo.py dropped 127.0.0.1 "$(port_of echo udp)" 101 50
	sums_match() {
		kill -USR1 "$PID"
		sleep 0.05
		log_matches 'echo:? tcp: .*accepted=3( |$)' && log_matches 'echo:? tcp: .*closed[^ ]*client[^ ]*=3( |$)'
	}
	wait_until sums_match || fail "no sums: $(tail -n 3 "$LOG")"
	log_matches 'echo:? tcp: .*received[^ ]*=24( |$)'
	log_matches 'echo:? tcp: .*sent[^ ]*=24( |$)'
	log_matches 'echo:? udp: .*datagrams_received=4( |$)'
	log_matches 'echo:? udp: .*datagrams_sent=3( |$)'
	log_matches 'echo:? udp: .*too_long[^ ]*=1( |$)'
	log_matches 'daytime:? tcp: .*accepted=1( |$)'
}

@test "signals: HUP with an unchanged file leaves connections open" {
	start_echo
	python signals.py survives "$PID" HUP 127.0.0.1 "$(port_of echo tcp)"
	wait_for_log 'reloaded: 1 services, 2 endpoints'
}

@test "signals: PIPE is ignored" {
	start_echo
	python signals.py survives "$PID" PIPE 127.0.0.1 "$(port_of echo tcp)"
}

@test "signals: clients that reset connections during a reply do not affect others" {
	start_daemon <<-END
		[echo]
		address = 127.0.0.1
		port = 0
		log_connections = yes
		[chargen]
		protocol = tcp
		address = 127.0.0.1
		port = 0
	END
	python signals.py resets 127.0.0.1 "$(port_of chargen tcp)" 200
	python signals.py resets 127.0.0.1 "$(port_of echo tcp)" 20
	wait_for_log 'echo.*127\.0\.0\.1.*reset'
	assert_echo tcp 127.0.0.1 "$(port_of echo tcp)"
}

@test "signals: a thousand signals in a row are handled" {
	start_echo
	local round
	for ((round = 0; round < 500; round++)); do
		kill -USR1 "$PID"
		kill -HUP "$PID"
	done
	assert_echo tcp 127.0.0.1 "$(port_of echo tcp)"
	stop_daemon
}

@test "signals: a daemon that was stopped and continued serves" {
	start_echo
	kill -STOP "$PID"
	kill -CONT "$PID"
	assert_echo tcp 127.0.0.1 "$(port_of echo tcp)"
}
