# machine.bash: what the tests under systemd need: a machine, its service, patience.
# shellcheck shell=bash disable=SC2016 # what sh gets in quotes is for that sh

bats_require_minimum_version 1.5.0

: "${MACHINE_ROOT:?a folder with a Debian}"
: "${MACHINE_STAGE:?what make install has installed}"

# Seconds within which what is promised has to happen: an end for tests that would hang, no measure of speed.
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

# Runs COMMAND in the machine.
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

# A property of the service, as systemctl show has it.
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

# Whether the service runs as another process than PID.
runs_anew()
{
	has_property ActiveState active && ! has_property MainPID "$1|0"
}

# A line of the journal since the test began, with a field where FIELD=VALUE is given.
journal()
{
	inside journalctl --quiet --no-pager --output cat --after-cursor "$CURSOR" "$@"
}

journal_has()
{
	grep -qE -e "$1" <(journal "${@:2}")
}

# The installed configuration with the sed(1) SCRIPT applied, by renaming, as editors do.
configure()
{
	inside sh -c 'sed -e "$1" /etc/smallservd/as-installed >/etc/smallservd/new && mv /etc/smallservd/new /etc/smallservd/smallservd.conf' \
		sh "$1"
}

# drop_in UNIT NAME: a drop-in of UNIT from standard input.
drop_in()
{
	inside sh -c 'mkdir -p "/etc/systemd/system/$1.d" && cat >"/etc/systemd/system/$1.d/$2.conf"' sh "$1" "$2"
	inside systemctl daemon-reload
}

# The shipped drop-in NAME in force.
use_example()
{
	drop_in smallservd.service "$1" <"$MACHINE_STAGE/usr/share/doc/smallservd/examples/$1.conf"
}

# netcat in the machine.
ask()
{
	inside timeout 20 nc "$@"
}

# Echo and daytime answer on TCP and UDP, IPv4 and IPv6.
serves()
{
	local family
	for family in -4 -6; do
		[[ $(ask "$family" -N localhost 7 <<<"hello") == hello ]] || fail "no echo over TCP $family" || return
		[[ $(ask "$family" -u -W 1 localhost 7 <<<"hello") == hello ]] || fail "no echo over UDP $family" || return
		[[ $(ask "$family" -d localhost 13) =~ :[0-9]{2}\ 20[0-9]{2} ]] || fail "no daytime over TCP $family" || return
		[[ $(ask "$family" -u -W 1 localhost 13 <<<"hello") =~ :[0-9]{2}\ 20[0-9]{2} ]] || fail "no daytime over UDP $family" || return
	done
}

# Back to what was installed, with nothing running.
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
