#!/usr/bin/env bats
# Limits of connections, time, descriptors and memory.
# shellcheck disable=SC2030,SC2031,SC2034 # a test and helpers.bash share their variables, each test has its own

load helpers

# Skips the test if the memory of the daemon cannot be measured.
need_memory_figures() {
	! sanitized || skip "a sanitizer uses memory of its own"
	[[ -r /proc/self/smaps_rollup ]] || skip "the kernel has no smaps_rollup"
	cat "/proc/$PID/smaps_rollup" >/dev/null 2>&1 || skip "the daemon's memory cannot be read by this user"
}

start_echo() {
	start_daemon <<-END
		[daemon]
		workers = 4
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = 0
		$(printf '%s\n' "$@")
	END
}

@test "limits: a service serves max_connections clients at once over all workers, and the others in turn" {
	start_echo 'max_connections = 5'
	python limits.py connections "$PID" 5 25 127.0.0.1 "$(port_of echo tcp)"
}

@test "limits: with max_connections = 1 clients are served one after the other" {
	start_echo 'max_connections = 1'
	python limits.py connections "$PID" 1 10 127.0.0.1 "$(port_of echo tcp)"
}

@test "limits: at the limit of a service 40 clients that connect and leave are all served" {
	start_echo 'max_connections = 3'
	python limits.py churn 3 40 10 127.0.0.1 "$(port_of echo tcp)"
}

@test "limits: queued clients that disconnect do not delay the clients behind them" {
	start_echo 'max_connections = 2'
	python limits.py disconnects_while_queued 2 127.0.0.1 "$(port_of echo tcp)"
}

@test "limits: a service at its limit does not affect another service" {
	start_daemon <<-END
		[daemon]
		workers = 2
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = 0
		max_connections = 1
		[other-echo]
		type = echo
		protocol = tcp
		address = 127.0.0.1
		port = 0
	END
	local port
	port=$(port_of echo tcp)
	python_background held hold_connections.py 127.0.0.1 "$port" 2
	wait_for_line held 'served 1'
	assert_echo tcp 127.0.0.1 "$(port_of other-echo tcp)"
}

@test "limits: [daemon] max_connections bounds the connections of all services together" {
	start_daemon <<-END
		[daemon]
		workers = 4
		max_connections = 6
		[defaults]
		max_connections_per_source = unlimited
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = 0
		[other-echo]
		type = echo
		protocol = tcp
		address = 127.0.0.1
		port = 0
	END
	python limits.py connections "$PID" 6 24 127.0.0.1 "$(port_of echo tcp)" "$(port_of other-echo tcp)"
	python limits.py churn 6 40 5 127.0.0.1 "$(port_of echo tcp)" "$(port_of other-echo tcp)"
}

@test "limits: under a service limit and a daemon limit all clients are served in the end" {
	start_daemon <<-END
		[daemon]
		workers = 4
		max_connections = 3
		[defaults]
		max_connections_per_source = unlimited
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = 0
		max_connections = 2
		[other-echo]
		type = echo
		protocol = tcp
		address = 127.0.0.1
		port = 0
		max_connections = 2
	END
	python limits.py churn 3 40 10 127.0.0.1 "$(port_of echo tcp)" "$(port_of other-echo tcp)"
}

@test "limits: datagrams are served while connections are at their limit" {
	start_daemon <<-END
		[daemon]
		workers = 2
		max_connections = 1
		[echo]
		address = 127.0.0.1
		port = 0
	END
	python_background held hold_connections.py 127.0.0.1 "$(port_of echo tcp)" 2
	wait_for_line held 'served 1'
	python echo.py burst 127.0.0.1 "$(port_of echo udp)" 50 32
}

@test "limits: a connection without traffic is closed after idle_timeout" {
	start_echo 'idle_timeout = 1s' 'log_connections = yes'
	python limits.py idle 127.0.0.1 "$(port_of echo tcp)" 1
	wait_for_log 'echo.*idle_timeout'
}

@test "limits: a connection with occasional traffic outlives idle_timeout" {
	start_echo 'idle_timeout = 2s'
	python limits.py active 127.0.0.1 "$(port_of echo tcp)" 2
}

@test "limits: a connection that only receives outlives idle_timeout" {
	start_daemon <<-END
		[chargen]
		protocol = tcp
		address = 127.0.0.1
		port = 0
		idle_timeout = 2s
	END
	python limits.py reader 127.0.0.1 "$(port_of chargen tcp)" 2
}

@test "limits: a busy connection is closed at its lifetime" {
	start_echo 'lifetime = 1s' 'log_connections = yes'
	python limits.py lifetime 127.0.0.1 "$(port_of echo tcp)" 1
	wait_for_log 'echo.*lifetime'
}

@test "limits: without free descriptors the daemon stays idle and resumes when some are free" {
	start_echo
	python limits.py descriptors "$PID" 127.0.0.1 "$(port_of echo tcp)"
}

@test "limits: eight clients that send without reading cost less than 4 MiB" {
	start_echo
	need_memory_figures
	python limits.py stalled "$PID" 127.0.0.1 "$(port_of echo tcp)"
}

@test "limits: eight clients of chargen that do not read cost less than 4 MiB" {
	start_daemon <<-END
		[daemon]
		workers = 2
		[chargen]
		protocol = tcp
		address = 127.0.0.1
		port = 0
	END
	need_memory_figures
	python limits.py chargen_stalled "$PID" 127.0.0.1 "$(port_of chargen tcp)"
}

@test "limits: beside 2000 idle connections a new one is served" {
	(($(ulimit -Hn) > 2100)) || skip "needs 2100 descriptors a process"
	start_echo 'max_connections_per_source = unlimited'
	python limits.py idle_memory "$PID" 127.0.0.1 "$(port_of echo tcp)" 2000 no
}

@test "limits: 15000 idle connections cost less than 1 KiB each, and a new one is served" {
	[[ $(ulimit -Hn) == unlimited ]] || (($(ulimit -Hn) > 15100)) || skip "needs 15100 descriptors a process"
	start_echo 'max_connections_per_source = unlimited'
	need_memory_figures
	python limits.py idle_memory "$PID" 127.0.0.1 "$(port_of echo tcp)" 15000 yes
}

@test "limits: the soft limit of descriptors is raised to the hard limit" {
	need_programs prlimit
	[[ $(ulimit -Hn) == unlimited ]] || (($(ulimit -Hn) > 300)) || skip "needs a higher hard limit"
	RUNNER=(prlimit --nofile=64:300)
	start_echo 'max_connections_per_source = unlimited'
	[[ $(awk '/^Max open files/ { print $4 }' "/proc/$PID/limits") == 300 ]]
	python limits.py churn 100 100 1 127.0.0.1 "$(port_of echo tcp)"
}

@test "limits: clients beyond the limit of descriptors wait and none is refused" {
	need_programs prlimit
	RUNNER=(prlimit --nofile=128:128)
	start_echo 'max_connections_per_source = unlimited'
	python limits.py churn 128 150 2 127.0.0.1 "$(port_of echo tcp)"
}
