#!/usr/bin/env bats
# What the daemon gives up: the system calls it does not use, in every thread.
# shellcheck disable=SC2030,SC2031,SC2034,SC2153 # helpers.bash and a test share PID, LOG, STATUS and RUNNER

load helpers

need_filter() {
	! sanitized || skip "a build with a sanitizer has no filter of system calls"
	grep -qa 'libseccomp\.so' "$SMALLSERVD" || skip "built without libseccomp"
}

# The Seccomp: of each thread, each value once: 0 none, 2 a filter.
filters() {
	sed -n 's/^Seccomp:[[:space:]]*//p' "/proc/$PID/task"/*/status | sort -u
}

assert_serves() {
	assert_echo tcp 127.0.0.1 "$(port_of echo tcp)"
	assert_echo udp 127.0.0.1 "$(port_of echo udp)"
}

@test "sandbox: by default every thread has the seccomp filter and the daemon serves" {
	need_filter
	start_local_echo
	[[ $(filters) == 2 ]] || fail "Seccomp: $(filters)"
	[[ $(find "/proc/$PID/task" -mindepth 1 -maxdepth 1 | wc -l) -ge 3 ]]
	assert_serves
	run ! log_matches sandbox
	stop_daemon
}

@test "sandbox: sandbox = on loads the seccomp filter" {
	need_filter
	start_local_echo 'sandbox = on'
	[[ $(filters) == 2 ]] || fail "Seccomp: $(filters)"
	assert_serves
	stop_daemon
}

@test "sandbox: sandbox = off loads no filter and drops root" {
	local user
	is_root && user='user = nobody'
	start_local_echo 'sandbox = off' "${user-}"
	[[ $(filters) == 0 ]] || fail "Seccomp: $(filters)"
	grep -qE '^NoNewPrivs:	1$' "/proc/$PID/status"
	run ! grep -qE '^Uid:	0' "/proc/$PID/status"
	assert_serves
	stop_daemon
}

# What doc/deployment.md says that a container has to leave to root.
@test "sandbox: root in a container drops to another user with four capabilities, and a reload opens a port" {
	need_root
	need_programs setpriv
	chmod go+x "$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR/test" . # a reload reads the file as that user
	RUNNER=(setpriv '--bounding-set=-all,+setuid,+setgid,+setpcap,+net_bind_service')
	start_local_echo 'user = nobody'
	run ! grep -qE '^Uid:	0' "/proc/$PID/status"
	grep -qE '^CapPrm:	0+400$' "/proc/$PID/status"
	assert_serves
	printf '[daytime]\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n' >>"$CONF"
	kill -HUP "$PID"
	wait_for_log '^reloaded: 2 services'
	[[ $(netcat -d 127.0.0.1 "$(port_of daytime tcp)") =~ :[0-9]{2}\ 20[0-9]{2} ]]
	stop_daemon
}

@test "sandbox: root without CAP_SETUID logs the error and exits" {
	need_root
	need_programs setpriv
	RUNNER=(setpriv '--bounding-set=-all,+net_bind_service')
	launch_daemon <<-END
		[daemon]
		user = nobody
		[echo]
		address = 127.0.0.1
		port = 0
	END
	wait_for_end
	[[ $STATUS == 1 ]]
	log_matches '^cannot become user nobody: '
	run ! log_matches ready
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

@test "sandbox: sandbox = auto without seccomp support serves and logs one notice" {
	without_filter
	start_local_echo
	assert_serves
	[[ $(grep -c '^sandbox: continuing without a seccomp filter: .' "$LOG") == 1 ]]
	stop_daemon
}

@test "sandbox: sandbox = on without seccomp support fails to start" {
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
	[[ $(grep -c '^sandbox = on: no seccomp filter: .' "$LOG") == 1 ]]
	run ! log_matches ready
}
