#!/usr/bin/env bats
# Upgrades: on USR2 a new process takes over from the old one, or the upgrade fails with a reason and the old one continues.
# shellcheck disable=SC2030,SC2031,SC2034,SC2153 # helpers.bash sets PID, LOG, CONF and STATUS in the test's own shell, and reads RUNNER

load helpers

# Starts a daemon with the given lines in [daemon]. PID is that of subreaper.py, the parent of orphaned processes.
start_echo() {
	RUNNER=(python3 "$BATS_TEST_DIRNAME/subreaper.py")
	start_daemon <<-END
		[daemon]
		workers = 2
		pid_file = $BATS_TEST_TMPDIR/pid
		$(printf '%s\n' "$@")
		[echo]
		address = 127.0.0.1
		port = 0
	END
	OLD=$(main_pid)
	TCP=$(port_of echo tcp)
	UDP=$(port_of echo udp)
}

# Starts a daemon as start_echo does, from a copy of the program that a test can replace.
start_copy() {
	cp "$SMALLSERVD" program
	SMALLSERVD=$BATS_TEST_TMPDIR/program
	start_echo "$@"
}

# Replaces the copy of the program by a script with the given lines, by a rename as an installation does.
install_script() {
	printf '%s\n' '#!/bin/sh' "$@" >program.new
	chmod +x program.new
	mv program.new program
}

main_pid() {
	cat "$BATS_TEST_TMPDIR/pid"
}

log_count() {
	grep -caE -e "$1" "$LOG" || true
}

log_has_count() {
	[[ $(log_count "$1") -ge $2 ]]
}

# Upgrades the daemon and sets NEW to the id of the new process.
upgrade() {
	local before failed
	before=$(log_count 'upgraded: process [0-9]+ serves')
	failed=$(log_count 'upgrade failed')
	kill -USR2 "$(main_pid)"
	wait_until log_has_count 'upgraded: process [0-9]+ serves|upgrade failed' $((before + failed + 1)) ||
		fail "USR2 had no result"
	log_has_count 'upgraded: process [0-9]+ serves' $((before + 1)) || fail "the upgrade failed"
	NEW=$(main_pid)
}

# Checks that an upgrade fails with a reason that matches PATTERN and the old process serves as before.
upgrade_fails() {
	kill -USR2 "$OLD"
	wait_for_log "upgrade failed, this process goes on: .*$1"
	serves
	[[ $(main_pid) == "$OLD" ]] || fail "pid_file names $(main_pid), not $OLD"
	wait_until is_alone "$OLD" || fail "other processes are still running"
}

# True if process $1 is the only process of the daemon.
is_alone() {
	[[ $(python upgrade.py descendants "$PID") == "$1" ]]
}

serves() {
	assert_echo tcp 127.0.0.1 "$TCP"
	python upgrade.py spread 127.0.0.1 "$TCP" "$UDP" 5
}

descriptors() {
	find "/proc/$1/fd" -mindepth 1 | wc -l
}

ended_well() {
	grep -qxF "$1 0" ended
}

@test "upgrade: a new process serves on the same ports, and pid_file follows" {
	start_echo
	upgrade
	[[ $NEW != "$OLD" ]]
	log_matches "upgraded: process $NEW serves"
	wait_until ended_well "$OLD" || fail "the old process did not end with 0"
	serves
	running "$NEW"
	stop_daemon
	[[ ! -e pid ]] || fail "pid_file is still there"
}

@test "upgrade: the old process serves open connections until their clients close them" {
	start_echo
	python_background held upgrade.py holds 127.0.0.1 "$TCP" 8 end
	wait_for_line held served
	upgrade
	serves
	running "$OLD" || fail "the old process did not wait for its connections"
	: >end
	wait_for_helper held
	wait_until ended_well "$OLD" || fail "the old process did not end with 0"
}

@test "upgrade: no connection and no datagram is lost" {
	start_echo
	python_background connections upgrade.py connections 127.0.0.1 "$TCP" end
	local first=$HELPER round
	python_background datagrams upgrade.py datagrams 127.0.0.1 "$UDP" end
	wait_for_line connections served
	wait_for_line datagrams served
	for ((round = 0; round < 5; round++)); do
		upgrade
	done
	: >end
	wait_for_helper datagrams
	HELPER=$first
	wait_for_helper connections
}

@test "upgrade: five upgrades leak no descriptor" {
	start_echo
	local first round
	for ((round = 0; round < 5; round++)); do
		upgrade
		wait_until is_alone "$NEW" || fail "an old process is still running"
		[[ $round != 0 ]] || first=$(descriptors "$NEW")
	done
	have_as_many() {
		[[ $(descriptors "$NEW") == "$first" ]]
	}
	wait_until have_as_many || fail "$first descriptors after the first, $(descriptors "$NEW") after the last"
}

@test "upgrade: a replaced program file is run with the same arguments" {
	start_copy
	mv program real
	install_script "echo \"new: \$0 \$*\"" "exec '$BATS_TEST_TMPDIR/real' \"\$@\""
	upgrade
	log_matches "new: $BATS_TEST_TMPDIR/program -c $CONF"
	serves
}

@test "upgrade: a relative program path is resolved in the start directory" {
	cp "$SMALLSERVD" program
	SMALLSERVD=./program
	start_echo
	upgrade
	serves
}

@test "upgrade: the number of workers can grow and shrink" {
	start_echo
	local workers
	for workers in 4 1 3; do
		sed -i "s/^workers = .*/workers = $workers/" "$CONF"
		upgrade
		log_matches "ready: .* $workers workers"
		wait_until is_alone "$NEW" || fail "an old process is still running"
		python upgrade.py spread 127.0.0.1 "$TCP" "$UDP" 60
	done
}

@test "upgrade: a changed configuration takes effect and its removed endpoints are closed" {
	start_echo
	local port
	port=$(free_port)
	cat >>"$CONF" <<-END
		[daytime]
		address = 127.0.0.1
		port = $port
	END
	upgrade
	serves
	run -0 netcat -d 127.0.0.1 "$port"
	[[ $output =~ 20[0-9][0-9] ]]
	sed -i '/^\[daytime\]/,$d' "$CONF"
	upgrade
	wait_until is_alone "$NEW" || fail "an old process is still running"
	run netcat -d 127.0.0.1 "$port"
	[[ $status != 0 ]] || fail "the removed port is still open"
	serves
}

@test "upgrade: an address can replace the wildcard of its port and the other way round" {
	local port address
	start_echo
	port=$(free_port)
	for address in 0.0.0.0 127.0.0.1 '0.0.0.0, 127.0.0.1' 0.0.0.0; do
		sed -i -e "/^\[echo\]/,\$ { s/^address = .*/address = $address/; s/^port = .*/port = $port/ }" "$CONF"
		upgrade
		wait_until is_alone "$NEW" || fail "an old process is still running"
		TCP=$port UDP=$port serves
	done
}

@test "upgrade: the new process can reload" {
	start_echo
	upgrade
	local port
	port=$(free_port)
	printf '[discard]\naddress = 127.0.0.1\nprotocol = tcp\nport = %s\n' "$port" >>"$CONF"
	kill -HUP "$NEW"
	wait_for_log 'reloaded: 2 services'
	netcat -N 127.0.0.1 "$port" <<<"hello"
	serves
	upgrade
	netcat -N 127.0.0.1 "$port" <<<"hello"
	serves
}

@test "upgrade: with a program that exits, is killed or cannot run the old process keeps serving" {
	start_copy
	mv program real
	install_script 'exit 3'
	upgrade_fails 'exited with status 3'
	install_script 'kill -9 $$'
	upgrade_fails 'signal 9'
	rm program
	upgrade_fails "cannot run $BATS_TEST_TMPDIR/program: No such file or directory"
	: >program
	upgrade_fails 'cannot run .*: Permission denied'
	printf 'no program' >program
	chmod +x program
	upgrade_fails 'cannot run .*: Exec format error'
	mv real program
	upgrade
}

@test "upgrade: with an invalid configuration the old process keeps serving" {
	start_echo
	cp "$CONF" good
	echo 'nonsense = 7' >>"$CONF"
	upgrade_fails 'exited with status 2'
	log_matches "$CONF:[0-9]+: \[echo\] nonsense: unknown key"
	python_server occupied occupy_port.py tcp 127.0.0.1 0
	{
		cat good
		printf '[discard]\naddress = 127.0.0.1\nport = %s\n' "$SERVER_PORT"
	} >"$CONF"
	upgrade_fails 'exited with status 1'
	log_matches 'discard: cannot listen on tcp'
	cp good "$CONF"
	upgrade
	serves
}

@test "upgrade: a failed upgrade to more workers accepts no clients" {
	need_programs strace
	! sanitized || skip "a sanitizer and strace conflict"
	start_copy 'sandbox = off'
	cp "$CONF" good
	mv program real
	install_script "exec strace -f -o $BATS_TEST_TMPDIR/calls -e trace=bind,listen $BATS_TEST_TMPDIR/real \"\$@\""
	python_server occupied occupy_port.py tcp 127.0.0.1 0
	sed -i 's/^workers = .*/workers = 4/' "$CONF"
	printf '[discard]\naddress = 127.0.0.1\nport = %s\n' "$SERVER_PORT" >>"$CONF"
	upgrade_fails 'the new process exited'
	log_matches 'discard: cannot listen on tcp' || skip "strace cannot trace the new process here"
	grep -q 'bind(.*EADDRINUSE' calls
	# TCP sockets for the ports of the old process are bound but do not listen; UDP sockets are not bound
	[[ $(grep -c "bind(.*htons($TCP)," calls) == 2 ]]
	run ! grep -q "bind(.*htons($UDP)," calls
	run ! grep -q 'listen(' calls
	cp good "$CONF"
	mv real program
	upgrade
	serves
}

@test "upgrade: with a pid_file that cannot be written the old process keeps serving" {
	start_echo
	sed -i "s,^pid_file = .*,pid_file = $BATS_TEST_TMPDIR/missing/pid," "$CONF"
	upgrade_fails 'pid_file: cannot write'
}

# Installs a program that hangs and writes its id to the file hung.
start_hung() {
	start_copy
	mv program real
	install_script "echo \$\$ >$BATS_TEST_TMPDIR/hung.new" "mv $BATS_TEST_TMPDIR/hung.new $BATS_TEST_TMPDIR/hung" \
		'exec sleep 600'
	kill -USR2 "$OLD"
	wait_until test -e hung || fail "no new process"
}

@test "upgrade: a second USR2 during an upgrade is logged and ignored" {
	start_hung
	kill -USR2 "$OLD"
	wait_for_log 'an upgrade is in progress'
	kill -KILL "$(cat hung)"
	wait_for_log 'upgrade failed, this process goes on: .*signal 9'
	mv real program
	upgrade
	serves
}

@test "upgrade: TERM during an upgrade stops the old process and kills the new one" {
	start_hung
	kill -TERM "$OLD"
	wait_for_end
	[[ $STATUS == 0 ]]
	ended "$(cat hung)" || fail "the new process is still running"
	ended_well "$OLD"
	[[ ! -e pid ]] || fail "pid_file is still there"
}

@test "upgrade: HUP during an upgrade is deferred until its end" {
	start_hung
	printf '[discard]\naddress = 127.0.0.1\nport = 0\n' >>"$CONF"
	kill -HUP "$OLD"
	wait_for_log 'reload deferred until the upgrade has ended'
	kill -KILL "$(cat hung)"
	wait_for_log 'reloaded: 2 services'
	mv real program
	upgrade
}

# Sends HUP; the process that pid_file names may have exited after an upgrade.
hup() {
	kill -HUP "$(main_pid)" 2>/dev/null
}

@test "upgrade: HUP right after USR2 is not lost" {
	start_echo
	local round before
	for ((round = 0; round < 3; round++)); do
		before=$(log_count 'upgraded: process [0-9]+ serves')
		kill -USR2 "$(main_pid)"
		printf '[discard-%s]\ntype = discard\naddress = 127.0.0.1\nport = 0\n' "$round" >>"$CONF"
		wait_until hup || fail "no process accepts HUP"
		wait_until log_has_count 'upgraded: process [0-9]+ serves' $((before + 1)) || fail "no upgrade"
		wait_for_log "discard-$round: listening on tcp"
		serves
	done
}

@test "upgrade: USR2 right after HUP is handled after the reload" {
	start_echo
	printf '[discard]\naddress = 127.0.0.1\nport = 0\n' >>"$CONF"
	kill -HUP "$OLD"
	upgrade
	wait_for_log 'ready: 2 services'
	serves
}

@test "upgrade: a continuous stream of HUPs does not delay the upgrade" {
	start_echo
	python_background hups upgrade.py hups "$OLD"
	wait_until log_has_count 'reloaded: ' 3 || fail "no reloads"
	upgrade
	serves
}

@test "upgrade: an added multicast group is joined by a successful upgrade and not by a failed one" {
	make_network
	make_interface
	start_echo
	groups() { "${NETWORK[@]}" cat /proc/net/igmp | grep -c '030201EF' || true; }
	has_groups() { [[ $(groups) == "$1" ]]; }
	sed -i -e 's/^address = .*/address = 0.0.0.0\nmulticast_groups = 239.1.2.3%net0/' -e "s/^port = .*/port = 7777/" "$CONF"
	upgrade
	wait_until has_groups 1 || fail "not joined"
	sed -i 's/239.1.2.3/239.1.2.4/' "$CONF"
	cp "$CONF" good
	sed -i "s,^pid_file = .*,pid_file = $BATS_TEST_TMPDIR/missing/pid," "$CONF"
	OLD=$(main_pid)
	kill -USR2 "$OLD"
	wait_for_log 'upgrade failed, this process goes on: .*pid_file: cannot write'
	run "${NETWORK[@]}" cat /proc/net/igmp
	[[ $output == *030201EF* && $output != *040201EF* ]]
	cp good "$CONF"
	upgrade
	wait_until has_groups 0 || fail "not left"
	run "${NETWORK[@]}" cat /proc/net/igmp
	[[ $output == *040201EF* ]]
}

@test "upgrade: the old process forwards HUP and USR2 to the new one" {
	start_echo
	python_background held upgrade.py holds 127.0.0.1 "$TCP" 1 end
	wait_for_line held served
	upgrade
	printf '[discard]\naddress = 127.0.0.1\nport = 0\n' >>"$CONF"
	kill -HUP "$OLD"
	wait_for_log 'reloaded: 2 services'
	kill -USR2 "$OLD"
	wait_until log_has_count 'upgraded: process' 2 || fail "not upgraded"
	: >end
	wait_for_helper held
	wait_until ended_well "$OLD" || fail "the old process did not end with 0"
}

@test "upgrade: open connections are closed at drain_timeout, which is logged" {
	start_echo 'drain_timeout = 300ms'
	python_background held hold_connections.py 127.0.0.1 "$TCP" 1
	wait_for_line held 'served 1'
	upgrade
	wait_for_log 'drain_timeout: ending 1 open connections'
	wait_until ended_well "$OLD" || fail "the old process did not end with 0"
}

@test "upgrade: USR2 during a stop is ignored" {
	start_echo 'stop_timeout = 1h'
	python_background held hold_connections.py 127.0.0.1 "$TCP" 1
	wait_for_line held 'served 1'
	kill -TERM "$OLD"
	wait_for_log 'stopping'
	kill -USR2 "$OLD"
	wait_for_log 'upgrade ignored'
	kill -TERM "$HELPER"
	wait_for_end
	[[ $STATUS == 0 ]]
}

@test "upgrade: TERM at any moment of an upgrade stops the daemon and open connections are served" {
	local round
	for ((round = 0; round < 6; round++)); do
		rm -f pid end
		start_echo
		python_background held upgrade.py holds 127.0.0.1 "$TCP" 2 end
		wait_for_line held served
		kill -USR2 "$OLD"
		sleep "0.0$((round * 2))"
		kill -TERM "$OLD"
		: >end
		wait_for_helper held
		wait_until ended_well "$OLD" || fail "the old process did not end with 0"
		if [[ -e pid ]]; then
			serves # the upgrade had completed
		fi
		kill -TERM "$PID" 2>/dev/null || true
		wait_for_end
		[[ $STATUS == 0 ]] || fail "subreaper.py exited with $STATUS: $(cat ended)"
	done
}

@test "upgrade: when the old process is killed at any moment the new one serves" {
	local round
	for ((round = 0; round < 5; round++)); do
		rm -f pid
		start_echo
		kill -USR2 "$OLD"
		wait_for_log 'upgrade: running '
		sleep "0.0$((round * 2))"
		kill -KILL "$OLD" 2>/dev/null || true # the old process may have exited by then
		has_new_process() {
			[[ $(main_pid) != "$OLD" ]] && running "$(main_pid)"
		}
		wait_until has_new_process || fail "no new process serves"
		serves
		kill -TERM "$PID"
		wait_for_end
		[[ ! -e pid ]] || fail "pid_file is still there"
	done
}

@test "upgrade: when the new process is killed before the handover the old one keeps serving" {
	start_copy
	mv program real
	local round
	for ((round = 0; round < 8; round++)); do
		install_script "(sleep 0.00$round; exec kill -KILL \$\$) &" "exec '$BATS_TEST_TMPDIR/real' \"\$@\""
		kill -USR2 "$OLD"
		wait_until log_has_count 'upgrade failed, this|upgraded: process' $((round + 1)) || fail "USR2 had no result"
		if log_matches 'upgraded: process'; then
			break # the next kill would end the daemon
		fi
		serves
		[[ $(main_pid) == "$OLD" ]] || fail "pid_file names $(main_pid)"
	done
}

@test "upgrade: the old process notifies the service manager of the new main process and sends no later message" {
	need_libsystemd
	"$SMALLSERVD" --version >/dev/null
	python_background manager notify_socket.py --pid "$BATS_TEST_TMPDIR/notify"
	wait_for_line manager listening
	export NOTIFY_SOCKET=$BATS_TEST_TMPDIR/notify WATCHDOG_USEC=400000
	start_echo
	wait_for_line manager "$OLD READY=1"
	upgrade
	unset NOTIFY_SOCKET WATCHDOG_USEC
	wait_for_line manager "$OLD MAINPID=$NEW"
	wait_for_line manager "$NEW READY=1"
	wait_until ended_well "$OLD" || fail "the old process did not end with 0"
	[[ $(grep -E "^$OLD " manager | tail -n 1) == "$OLD MAINPID=$NEW" ]] || fail "a message after MAINPID=: $(cat manager)"
	# the messages of the new process follow
	[[ $(grep -nE "^$NEW " manager | head -n 1 | cut -d : -f 1) -gt $(grep -nxF "$OLD MAINPID=$NEW" manager | cut -d : -f 1) ]]
	stop_daemon
	wait_for_line manager "$NEW STOPPING=1"
}

@test "upgrade: the watchdog expects the new process" {
	need_libsystemd
	python_background manager notify_socket.py --pid "$BATS_TEST_TMPDIR/notify"
	wait_for_line manager listening
	start_watched
	wait_for_line manager "$OLD WATCHDOG=1"
	upgrade
	wait_for_line manager "$NEW WATCHDOG=1"
}

# Starts a daemon with WATCHDOG_PID set to the daemon, as systemd does, not to subreaper.py.
start_watched() {
	cat >watched <<-END
		#!/bin/sh
		WATCHDOG_PID=\$\$ exec "$SMALLSERVD" "\$@"
	END
	chmod +x watched
	NOTIFY_SOCKET=$BATS_TEST_TMPDIR/notify WATCHDOG_USEC=400000 SMALLSERVD=$BATS_TEST_TMPDIR/watched start_echo
}

@test "upgrade: sockets from LISTEN_FDS pass to the new process" {
	TCP=$(free_port)
	UDP=$TCP
	RUNNER=(python3 "$BATS_TEST_DIRNAME/subreaper.py" /usr/bin/env python3 "$BATS_TEST_DIRNAME/socket_activation.py"
		--names echo:echo "tcp=127.0.0.1:$TCP" "udp=127.0.0.1:$UDP" --)
	start_daemon <<-END
		[daemon]
		workers = 2
		pid_file = $BATS_TEST_TMPDIR/pid
		[echo]
		address = 127.0.0.1
		port = $TCP
	END
	OLD=$(main_pid)
	serves
	upgrade
	wait_until is_alone "$NEW" || fail "an old process is still running"
	serves
	upgrade
	wait_until is_alone "$NEW" || fail "an old process is still running"
	serves
}

# Copies the program to a folder that all users can read, unlike the folder of the test.
make_open_folder() {
	FOLDER=$(mktemp -d /tmp/smallservd-upgrade.XXXXXX)
	chmod 755 "$FOLDER"
	cp "$SMALLSERVD" "$FOLDER/program"
	SMALLSERVD=$FOLDER/program
}

@test "upgrade: a daemon that dropped root keeps its user, and its pid_file in a directory of root" {
	need_root
	make_open_folder
	RUNNER=("$BATS_TEST_TMPDIR/open_conf" python3 "$BATS_TEST_DIRNAME/subreaper.py")
	# the configuration is copied to where the user nobody can read it
	printf '%s\n' '#!/bin/bash' "cp \"\${*: -1}\" '$FOLDER/conf'" "exec \"\${@:1:\$#-1}\" '$FOLDER/conf'" >open_conf
	chmod +x open_conf
	start_daemon <<-END
		[daemon]
		workers = 2
		user = nobody
		pid_file = $FOLDER/pid
		[echo]
		address = 127.0.0.1
		port = 0
	END
	ln -s "$FOLDER/pid" pid
	OLD=$(main_pid)
	TCP=$(port_of echo tcp)
	UDP=$(port_of echo udp)
	local user=0
	upgrade && serves && user=$(stat -c %U "/proc/$NEW") || user=failed
	rm -r "$FOLDER"
	[[ $user == nobody ]] || fail "the new process runs as $user"
}

@test "upgrade: between fork and exec only async-signal-safe functions are called" {
	local object=${SMALLSERVD%/*}/src/handoff/upgrade_fork.o unsafe
	local allowed='_exit|close|execve|fcntl|fork|kill|memcpy|memset|poll|recvmsg|sendmsg|sigaction|sigfillset|sigprocmask|syscall|waitid'
	local compiler='__errno_location|__stack_chk_fail|__memcpy_chk|__poll_chk|_?_?(asan|ubsan|tsan|sanitizer|gcov|llvm)_.*|_GLOBAL_OFFSET_TABLE_'
	need_programs nm
	[[ -e $object ]] || skip "no object files beside smallservd"
	unsafe=$(nm -u "$object" | awk '{print $NF}' | grep -vxE "$allowed|$compiler" || true)
	[[ -z $unsafe ]] || fail "upgrade_fork.c calls $unsafe"
}
