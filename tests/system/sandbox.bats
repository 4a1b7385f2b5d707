#!/usr/bin/env bats
# What the daemon gives up: the system calls it does not use, in every thread.
# shellcheck disable=SC2030,SC2031,SC2034,SC2153 # helpers.bash and a test share PID, LOG, STATUS and RUNNER

load helpers

# An echo on TCP and UDP; the lines given go into [daemon].
start_echo() {
	start_daemon <<-END
		[daemon]
		workers = 2
		$(printf '%s\n' "$@")
		[echo]
		address = 127.0.0.1
		port = 0
	END
}

need_filter() {
	! sanitized || skip "a build with a sanitizer has no filter of system calls"
	grep -qa 'libseccomp\.so' "$SMALLSERVD" || skip "built without libseccomp"
}

# The Seccomp: of each thread, each value once: 0 none, 2 a filter.
filters() {
	sed -n 's/^Seccomp:[[:space:]]*//p' "/proc/$PID/task"/*/status | sort -u
}

assert_serves() {
	run -0 netcat -N 127.0.0.1 "$(port_of echo tcp)" <<<"hello"
	[[ $output == hello ]]
	run -0 netcat -u -W 1 127.0.0.1 "$(port_of echo udp)" <<<"hello"
	[[ $output == hello ]]
}

@test "sandbox: as a rule every thread has the filter of system calls, and serves" {
	need_filter
	start_echo
	[[ $(filters) == 2 ]] || fail "Seccomp: $(filters)"
	[[ $(find "/proc/$PID/task" -mindepth 1 -maxdepth 1 | wc -l) -ge 3 ]]
	assert_serves
	run ! log_matches sandbox
	stop_daemon
}

@test "sandbox: on has it as well" {
	need_filter
	start_echo 'sandbox = on'
	[[ $(filters) == 2 ]] || fail "Seccomp: $(filters)"
	assert_serves
	stop_daemon
}

@test "sandbox: off has none, and gives up root all the same" {
	local user
	is_root && user='user = nobody'
	start_echo 'sandbox = off' "${user-}"
	[[ $(filters) == 0 ]] || fail "Seccomp: $(filters)"
	grep -qE '^NoNewPrivs:	1$' "/proc/$PID/status"
	run ! grep -qE '^Uid:	0' "/proc/$PID/status"
	assert_serves
	stop_daemon
}

# Has the daemon start where there is no filter to be had.
without_filter() {
	if sanitized || ! grep -qa 'libseccomp\.so' "$SMALLSERVD"; then
		return 0 # it has none anyway
	fi
	run python3 "$BATS_TEST_DIRNAME/no_seccomp.py" /bin/true
	[[ $status == 0 ]] || skip "cannot make a kernel without filters here: $output"
	RUNNER=(python3 "$BATS_TEST_DIRNAME/no_seccomp.py")
}

@test "sandbox: auto goes on where there is no filter, and says so once" {
	without_filter
	start_echo
	assert_serves
	[[ $(grep -c '^sandbox: going on without a filter of system calls: .' "$LOG") == 1 ]]
	stop_daemon
}

@test "sandbox: on refuses to start where there is no filter" {
	without_filter
	launch_daemon <<-END
		[daemon]
		sandbox = on
		[echo]
		address = 127.0.0.1
		port = 0
	END
	wait_for_end
	[[ $STATUS == 1 ]]
	[[ $(grep -c '^sandbox = on: no filter of system calls: .' "$LOG") == 1 ]]
	run ! log_matches ready
}
