#!/usr/bin/env bats
# Privileges: the seccomp filter of every thread, and dropping root.
# shellcheck disable=SC2030,SC2031,SC2034,SC2153 # helpers.bash and a test share PID, LOG, STATUS and RUNNER

load helpers

# Prints each value of the field Seccomp of the daemon's threads once: 0 without, 2 with a filter.
seccomp_modes() {
	sed -n 's/^Seccomp:[[:space:]]*//p' "/proc/$PID/task"/*/status | sort -u
}

assert_serves() {
	assert_echo tcp 127.0.0.1 "$(port_of echo tcp)"
	assert_echo udp 127.0.0.1 "$(port_of echo udp)"
}

@test "sandbox: by default every thread has the seccomp filter and the daemon serves" {
	need_filter
	start_local_echo
	[[ $(seccomp_modes) == 2 ]] || fail "Seccomp: $(seccomp_modes)"
	[[ $(find "/proc/$PID/task" -mindepth 1 -maxdepth 1 | wc -l) -ge 3 ]]
	assert_serves
	run ! log_matches sandbox
	stop_daemon
}

@test "sandbox: sandbox = on loads the seccomp filter" {
	need_filter
	start_local_echo 'sandbox = on'
	[[ $(seccomp_modes) == 2 ]] || fail "Seccomp: $(seccomp_modes)"
	assert_serves
	stop_daemon
}

@test "sandbox: sandbox = off loads no filter and drops root" {
	local user
	is_root && user='user = nobody'
	start_local_echo 'sandbox = off' "${user-}"
	[[ $(seccomp_modes) == 0 ]] || fail "Seccomp: $(seccomp_modes)"
	grep -qE '^NoNewPrivs:	1$' "/proc/$PID/status"
	run ! grep -qE '^Uid:	0' "/proc/$PID/status"
	assert_serves
	stop_daemon
}

# The capabilities that a container needs according to doc/deployment.md.
@test "sandbox: root in a container drops to another user with four capabilities, and a reload opens a port" {
	need_root
	need_programs setpriv
	chmod go+x "$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR/test" . # the reload reads the file as the user nobody
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

# Has the daemon started on a kernel that seems to have no seccomp.
without_seccomp() {
	if sanitized || ! grep -qa 'libseccomp\.so' "$SMALLSERVD"; then
		return 0 # this build has no filter
	fi
	run python3 "$BATS_TEST_DIRNAME/reduced_kernel.py" seccomp /bin/true
	[[ $status == 0 ]] || skip "cannot hide seccomp here: $output"
	RUNNER=(python3 "$BATS_TEST_DIRNAME/reduced_kernel.py" seccomp)
}

@test "sandbox: sandbox = auto without seccomp support serves and logs one notice" {
	without_seccomp
	start_local_echo
	assert_serves
	[[ $(grep -c '^sandbox: continuing without a seccomp filter: .' "$LOG") == 1 ]]
	stop_daemon
}

@test "sandbox: sandbox = on without seccomp support fails to start" {
	without_seccomp
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
