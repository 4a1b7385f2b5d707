# machine.bash: common functions of the tests under systemd: the machine and its service.
# shellcheck shell=bash disable=SC2016 # sh -c expands its own script

bats_require_minimum_version 1.5.0

: "${MACHINE_ROOT:?a folder with a Debian}"
: "${MACHINE_STAGE:?the folder of make install DESTDIR=}"

# Time limit in seconds of each wait. It ends tests that hang and is no measure of speed.
DEADLINE=120

fail()
{
	printf '%s\n' "$*"
	return 1
}

wait_until()
{
	local ends=$((SECONDS + DEADLINE))
	until "$@"; do
		((SECONDS < ends)) || fail "not within $DEADLINE s: $*" || return
		sleep 0.05
	done
}

# Runs a command in the machine.
inside()
{
	timeout "$DEADLINE" nsenter --target "$MACHINE" --all "$@"
}

is_up()
{
	MACHINE=$(tr -d ' ' 2>/dev/null <"$MACHINE_FOLDER/pid") && [[ -n $MACHINE ]] || return
	[[ $(inside systemctl is-system-running 2>/dev/null) =~ ^(running|degraded)$ ]]
}

machine_start()
{
	export MACHINE MACHINE_FOLDER MACHINE_HOLDER
	MACHINE_FOLDER=$(mktemp -d)
	setpriv --pdeathsig KILL "$BATS_TEST_DIRNAME/machine" "$MACHINE_ROOT" "$MACHINE_FOLDER" "$MACHINE_STAGE" </dev/null >"$MACHINE_FOLDER/log" 2>&1 3>&- 4>&- &
	MACHINE_HOLDER=$!
	wait_until is_up || {
		cat "$MACHINE_FOLDER/log"
		inside systemctl list-jobs
	}
}

is_gone()
{
	[[ ! -e /proc/$1 ]] || grep -q '^State:	Z' "/proc/$1/status" 2>/dev/null
}

machine_stop()
{
	inside systemctl poweroff --force --force >/dev/null 2>&1 || true
	wait_until is_gone "$MACHINE" || kill -KILL "$MACHINE"
	wait "$MACHINE_HOLDER" 2>/dev/null || true
	rm -rf --one-file-system "$MACHINE_FOLDER"
}

# The service in the machine

# Prints a property of the service as systemctl show does.
property()
{
	inside systemctl show --property "$1" --value smallservd.service
}

has_property()
{
	[[ $(property "$1") =~ ^($2)$ ]]
}

main_pid()
{
	property MainPID
}

# True if the service is active with another main process than PID.
has_new_process()
{
	has_property ActiveState active && ! has_property MainPID "$1|0"
}

# Prints the journal since the begin of the test, limited to entries with FIELD=VALUE if given.
journal()
{
	inside journalctl --quiet --no-pager --output cat --after-cursor "$CURSOR" "$@"
}

journal_has()
{
	grep -qE -e "$1" <(journal "${@:2}")
}

# Replaces the configuration by the installed one changed by a sed(1) SCRIPT, by a rename as editors do.
configure()
{
	inside sh -c 'sed -e "$1" /etc/smallservd/as-installed >/etc/smallservd/new && mv /etc/smallservd/new /etc/smallservd/smallservd.conf' \
		sh "$1"
}

# drop_in UNIT NAME: installs a drop-in of UNIT from standard input.
drop_in()
{
	inside sh -c 'mkdir -p "/etc/systemd/system/$1.d" && cat >"/etc/systemd/system/$1.d/$2.conf"' sh "$1" "$2"
	inside systemctl daemon-reload
}

# Installs the shipped drop-in NAME.
use_example()
{
	drop_in smallservd.service "$1" <"$MACHINE_STAGE/usr/share/doc/smallservd/examples/$1.conf"
}

# Runs netcat in the machine.
netcat()
{
	inside timeout 20 nc "$@"
}

# Checks that echo and daytime answer over TCP and UDP, IPv4 and IPv6.
serves()
{
	local family
	for family in -4 -6; do
		[[ $(netcat "$family" -N localhost 7 <<<"hello") == hello ]] || fail "no echo over TCP $family" || return
		[[ $(netcat "$family" -u -W 1 localhost 7 <<<"hello") == hello ]] || fail "no echo over UDP $family" || return
		[[ $(netcat "$family" -d localhost 13) =~ :[0-9]{2}\ 20[0-9]{2} ]] || fail "no daytime over TCP $family" || return
		[[ $(netcat "$family" -u -W 1 localhost 13 <<<"hello") =~ :[0-9]{2}\ 20[0-9]{2} ]] || fail "no daytime over UDP $family" || return
	done
}

# Restores the installed files and stops the service and the socket unit.
machine_reset()
{
	inside systemctl stop smallservd.socket smallservd.service
	inside systemctl reset-failed
	inside sh -c 'rm -rf /etc/systemd/system/smallservd.service.d /etc/systemd/system/smallservd.socket.d'
	inside sh -c 'cp /usr/sbin/smallservd.as-installed /usr/sbin/new && mv /usr/sbin/new /usr/sbin/smallservd'
	inside systemctl daemon-reload
	configure ''
	CURSOR=$(inside journalctl --quiet --no-pager --lines 1 --show-cursor --output cat | sed -n 's/^-- cursor: //p')
}
