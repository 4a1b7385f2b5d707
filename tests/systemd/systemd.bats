#!/usr/bin/env bats
# The installed service under systemd: start, reload, restart, crash, watchdog, socket unit, sandbox.
# shellcheck disable=SC2016 # sh -c expands its own script

load machine

setup_file()
{
	machine_start
	inside cp /etc/smallservd/smallservd.conf /etc/smallservd/as-installed
	inside cp /usr/sbin/smallservd /usr/sbin/smallservd.as-installed
}

teardown_file()
{
	machine_stop
}

setup()
{
	machine_reset
}

teardown()
{
	[[ -n ${BATS_TEST_COMPLETED:-} || -n ${BATS_TEST_SKIPPED:-} ]] || journal --lines 60 || true
}

# Prints the number of workers from the status text of the service.
workers()
{
	[[ $(property StatusText) =~ ([0-9]+)\ workers ]] && echo "${BASH_REMATCH[1]}"
}

version()
{
	inside systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p'
}

# Checks that the exposure of the service is at most LIMIT tenths.
assert_exposure()
{
	local summary tenths
	summary=$(inside systemd-analyze --no-pager security smallservd.service | tail -n 1)
	[[ $summary =~ :\ ([0-9]+)\.([0-9])\  ]] || fail "no figure: $summary" || return
	tenths=$((BASH_REMATCH[1] * 10 + BASH_REMATCH[2]))
	echo "# systemd $(version): ${summary#*for }" >&3
	((tenths <= $1)) || fail "exposed by $tenths tenths, not $1"
}

@test "systemd: the machine boots without failed units" {
	[[ $(inside systemctl is-system-running) == running ]] || fail "$(inside systemctl --failed --no-pager)"
}

@test "systemd: systemd-analyze verify prints no warning" {
	run -0 inside systemd-analyze --man=no verify smallservd.service smallservd.socket
	[[ -z $output ]] || fail "$output"
}

@test "systemd: the service notifies its start and serves as its own user with one capability" {
	run -0 inside systemctl start smallservd.service
	has_property ActiveState active
	has_property NRestarts 0
	[[ $(property StatusText) =~ ^2\ services,\ 8\ endpoints,\ [0-9]+\ workers$ ]]
	[[ $(inside systemctl status --no-pager smallservd.service) == *'active (running)'* ]]
	serves
	local pid uid status set
	pid=$(main_pid)
	uid=$(inside id -u _smallservd)
	[[ $uid -gt 0 ]]
	status=$(inside cat "/proc/$pid/status")
	grep -qE "^Uid:	$uid	$uid	$uid	$uid\$" <<<"$status"
	for set in Inh Prm Eff Bnd Amb; do
		grep -qE "^Cap$set:	0+400\$" <<<"$status" || fail "$status"
	done
	grep -qE '^NoNewPrivs:	1$' <<<"$status"
	grep -qE '^Seccomp:	2$' <<<"$status"
	run ! journal_has sandbox # the notice of a start without a filter
}

@test "systemd: an orderly stop has the result success" {
	inside systemctl start smallservd.service
	inside systemctl stop smallservd.service
	has_property ActiveState inactive
	has_property Result success
	has_property ExecMainStatus 0
}

@test "systemd: the service and the socket unit can be enabled" {
	inside systemctl enable --quiet smallservd.service smallservd.socket
	[[ $(inside systemctl is-enabled smallservd.service smallservd.socket) == $'enabled\nenabled' ]]
	inside systemctl disable --quiet smallservd.service smallservd.socket
}

@test "systemd: a restarted service serves as another process" {
	inside systemctl start smallservd.service
	local pid
	pid=$(main_pid)
	inside systemctl restart smallservd.service
	has_new_process "$pid"
	serves
}

@test "systemd: a reload applies a changed file in the same process, also for a port below 1024" {
	inside systemctl start smallservd.service
	local pid
	pid=$(main_pid)
	run ! netcat -z localhost 9
	configure '/^\[discard\]/,/^port/ s/^enabled = no/enabled = yes/'
	run -0 inside systemctl reload smallservd.service
	wait_until netcat -z localhost 9
	has_property ActiveState active
	has_property MainPID "$pid"
	serves
	configure ''
	run -0 inside systemctl reload smallservd.service
	wait_until refuses 9
}

refuses()
{
	! netcat -z localhost "$1"
}

@test "systemd: a reload of an invalid file fails and changes no service" {
	inside systemctl start smallservd.service
	local pid
	pid=$(main_pid)
	configure 's/^port = 7/prot = 7/'
	run -1 inside systemctl reload smallservd.service
	wait_until journal_has 'smallservd\.conf:[0-9]+: \[echo\] prot: '
	has_property ActiveState active
	has_property MainPID "$pid"
	serves
}

@test "systemd: a start with an invalid file is not retried" {
	configure 's/^port = 7/prot = 7/'
	run -1 inside systemctl start smallservd.service
	wait_until has_property ActiveState failed
	has_property ExecMainStatus 2
	has_property NRestarts 0
}

@test "systemd: a crashed service is restarted" {
	inside systemctl start smallservd.service
	local pid
	pid=$(main_pid)
	inside kill -SEGV "$pid"
	wait_until has_new_process "$pid"
	has_property NRestarts 1
	serves
}

@test "systemd: a process that misses the watchdog is killed and restarted" {
	drop_in smallservd.service watchdog <<<$'[Service]\nWatchdogSec=5s'
	inside systemctl start smallservd.service
	local pid
	pid=$(main_pid)
	inside kill -STOP "$pid"
	wait_until has_new_process "$pid"
	wait_until journal_has 'Watchdog timeout'
	serves
}

# Sends USR2, so that the service starts the installed program.
upgrade()
{
	inside kill -USR2 "$(main_pid)"
}

@test "systemd: after an upgrade systemd follows the new main process" {
	drop_in smallservd.service watchdog <<<$'[Service]\nWatchdogSec=5s'
	inside systemctl start smallservd.service
	local pid new found
	pid=$(main_pid)
	found=$(descriptors)
	upgrade
	wait_until has_new_process "$pid"
	wait_until inside test ! -e "/proc/$pid"
	serves
	new=$(main_pid)
	wait_until journal_has "upgraded: process $new serves"
	has_property ActiveState active
	has_property NRestarts 0
	grep -qE '^CapEff:	0+400$' <(inside cat "/proc/$new/status")
	wait_until has_descriptors "$found"
	run ! journal_has 'not our child|sandbox'
	run -0 inside systemctl reload smallservd.service
	has_property MainPID "$new"
	inside kill -STOP "$new" # the watchdog expects the new process
	wait_until has_new_process "$new"
	wait_until journal_has 'Watchdog timeout'
	serves
}

has_descriptors()
{
	[[ $(descriptors) == "$1" ]]
}

@test "systemd: with the socket unit an upgrade passes the sockets on" {
	inside systemctl start smallservd.socket smallservd.service
	local pid
	pid=$(main_pid)
	upgrade
	wait_until has_new_process "$pid"
	wait_until inside test ! -e "/proc/$pid"
	serves
	[[ $(descriptors | grep -E '^(tcp|udp) ') == "$(listening 1)" ]] || fail "$(descriptors)"
	has_property NRestarts 0
	inside systemctl restart smallservd.service
	serves
}

# The new program makes a folder on a read-only file system; the inherited filter rejects the call first.
@test "systemd: a system call outside the filter fails" {
	inside systemctl start smallservd.service
	local pid
	pid=$(main_pid)
	inside sh -c 'printf "#!/bin/sh\nmkdir /tmp/folder\nexit 1\n" >/usr/sbin/new && chmod 755 /usr/sbin/new && mv /usr/sbin/new /usr/sbin/smallservd'
	upgrade
	wait_until journal_has 'mkdir: .*/tmp/folder.*: Operation not permitted'
	wait_until journal_has 'upgrade failed, this process goes on: '
	has_property MainPID "$pid"
	serves
}

@test "systemd: journal entries have fields for the service, the client and the configuration line" {
	configure '/^\[echo\]/ a log_connections = yes'
	inside systemctl start smallservd.service
	netcat -N localhost 7 <<<"hello"
	wait_until journal_has 'closed: client' SERVICE=echo TRANSPORT=tcp
	local entry
	entry=$(journal --output json SERVICE=echo | grep 'closed: client')
	grep -qE '"SOURCE":"(127\.0\.0\.1|\[::1\]):[0-9]+"' <<<"$entry" || fail "$entry"
	grep -qE '"_COMM":"smallservd"' <<<"$entry" || fail "$entry"
	entry=$(journal --output json SERVICE=daytime TRANSPORT=udp | grep --max-count 1 'listening on udp')
	grep -qE '"CONFIG_FILE":"/etc/smallservd/smallservd\.conf"' <<<"$entry" || fail "$entry"
	grep -qE '"CONFIG_LINE":"[0-9]+"' <<<"$entry" || fail "$entry"
	run ! journal_has daytime SERVICE=echo
}

@test "systemd: the service can write to devices and systemd's sockets only" {
	inside systemctl start smallservd.service
	local found expected
	expected=$(printf '%s\n' /dev/full /dev/null /dev/pts/ptmx /dev/random /dev/tty /dev/urandom /dev/zero \
		/run/systemd/journal/dev-log /run/systemd/journal/socket /run/systemd/notify)
	# systemd 257 adds the journal's third socket
	found=$(inside nsenter --target "$(main_pid)" --mount setpriv --reuid _smallservd --regid _smallservd --clear-groups \
		find / -path /proc -prune -o ! -type l -writable -print 2>/dev/null | grep -vx /run/systemd/journal/stdout | LC_ALL=C sort)
	[[ $found == "$expected" ]] || fail "$found"
}

@test "systemd: RuntimeDirectory= allows a pid_file" {
	drop_in smallservd.service folder <<<$'[Service]\nRuntimeDirectory=smallservd'
	configure '/^\[daemon\]/ a pid_file = /run/smallservd/pid'
	inside systemctl start smallservd.service
	[[ $(inside cat /run/smallservd/pid) == "$(main_pid)" ]]
	inside systemctl stop smallservd.service
	run ! inside test -e /run/smallservd/pid
}

# Prints the listening sockets of the installed configuration, COUNT times each.
listening()
{
	local i endpoint
	for ((i = 0; i < $1; i++)); do
		for endpoint in 127.0.0.1:7 127.0.0.1:13 '[::1]:7' '[::1]:13'; do
			printf '%s\n' "tcp $endpoint" "udp $endpoint"
		done
	done | LC_ALL=C sort
}

# Prints the descriptors of the service.
descriptors()
{
	inside bash -s "$(main_pid)" <"$BATS_TEST_DIRNAME/descriptors"
}

@test "systemd: the service has descriptors for its endpoints, event loops and log only" {
	inside systemctl start smallservd.service
	local found
	found=$(descriptors)
	[[ $(grep -E '^(tcp|udp) ' <<<"$found") == "$(listening "$(workers)")" ]] || fail "$found"
	[[ $(grep -vE '^(tcp|udp) ' <<<"$found" | uniq) == $'/dev/null\nanon_inode:[eventfd]\nanon_inode:[eventpoll]\npipe\nunix' ]] ||
		fail "$found"
	# standard output and error, and the journal's
	[[ $(grep -c '^unix$' <<<"$found") -le 3 ]] || fail "$found"
}

@test "systemd: the exposure is at most 1.3 with ports 7 and 13 bound by the service" {
	assert_exposure 13
}

@test "systemd: with the socket unit a client starts the service over TCP and UDP" {
	inside systemctl start smallservd.socket
	has_property ActiveState inactive
	[[ $(netcat -4 -N localhost 7 <<<"hello") == hello ]]
	has_property ActiveState active
	serves
	[[ $(descriptors | grep -E '^(tcp|udp) ') == "$(listening 1)" ]] || fail "$(descriptors)"
	inside systemctl stop smallservd.socket smallservd.service
	inside systemctl start smallservd.socket
	has_property ActiveState inactive
	[[ $(netcat -6 -u -W 1 localhost 7 <<<"hello") == hello ]]
	has_property ActiveState active
	serves
}

@test "systemd: with the socket unit a restart refuses no connection" {
	inside systemctl start smallservd.socket smallservd.service
	local clients i pid results=$BATS_TEST_TMPDIR/results
	nsenter --target "$MACHINE" --net timeout 240 python3 "$BATS_TEST_DIRNAME/clients.py" 7 "$BATS_TEST_TMPDIR/enough" \
		</dev/null >"$results" 2>&1 3>&- 4>&- &
	clients=$!
	wait_until grep -qx first "$results"
	for i in 1 2 3; do
		pid=$(main_pid)
		inside systemctl restart smallservd.service
		has_new_process "$pid" || fail "restart $i"
	done
	touch "$BATS_TEST_TMPDIR/enough"
	wait "$clients" || fail "$(cat "$results")"
	[[ $(wc -l <"$results") == 2 && $(tail -n 1 "$results") =~ ^served:\ [0-9]+$ ]] || fail "$(cat "$results")"
	echo "# $(tail -n 1 "$results") over 3 restarts" >&3
}

@test "systemd: with the private-network drop-in it serves without capabilities and an exposure of at most 0.3" {
	use_example private-network
	inside systemctl start smallservd.socket
	serves
	local status set
	status=$(inside cat "/proc/$(main_pid)/status")
	for set in Inh Prm Eff Bnd Amb; do
		grep -qE "^Cap$set:	0+\$" <<<"$status" || fail "$status"
	done
	[[ $(inside readlink "/proc/$(main_pid)/ns/net") != "$(inside readlink /proc/1/ns/net)" ]]
	run -0 inside systemd-analyze --man=no verify smallservd.service smallservd.socket
	[[ -z $output ]] || fail "$output"
	assert_exposure 3
	run -0 inside systemctl reload smallservd.service
	serves
}

@test "systemd: with the private-network drop-in a forged datagram starts no loop" {
	use_example private-network
	drop_in smallservd.socket wildcard <<<$'[Socket]\nListenStream=\nListenDatagram=\nListenDatagram=0.0.0.0:7'
	inside sh -c 'cat >/etc/smallservd/smallservd.conf' <<-END
		[echo]
		protocol = udp
		address = 0.0.0.0
		port = 7
		refuse_source_ports = none
	END
	inside systemctl start smallservd.socket smallservd.service
	# both addresses are local to the machine, but not to the network namespace of the service
	nsenter --target "$MACHINE" --net timeout "$DEADLINE" \
		python3 "$BATS_TEST_DIRNAME/../system/spoof.py" send 127.0.0.2 7 127.0.0.1 7
	[[ $(netcat -4 -u -W 1 127.0.0.1 7 <<<"hello") == hello ]]
	inside systemctl kill --signal USR1 smallservd.service
	wait_until journal_has 'echo: udp: .*datagrams_received=2 datagrams_sent=1 .*dropped\{own_endpoint\}=1'
}

@test "systemd: with the notify-reload drop-in a reload works with and without Type=notify-reload" {
	use_example notify-reload
	inside systemctl start smallservd.service
	local pid
	pid=$(main_pid)
	if (($(version) >= 253)); then
		has_property Type notify-reload
	else
		has_property Type notify
	fi
	configure '/^\[discard\]/,/^port/ s/^enabled = no/enabled = yes/'
	run -0 inside systemctl reload smallservd.service
	if (($(version) >= 253)); then
		netcat -z localhost 9 # systemctl has waited for the reload
	fi
	wait_until netcat -z localhost 9
	configure 's/^port = 7/prot = 7/'
	run -1 inside systemctl reload smallservd.service
	wait_until has_property ActiveState active
	has_property MainPID "$pid"
	serves
}
