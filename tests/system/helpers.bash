# helpers.bash: common functions of the system tests: daemons, network namespaces, clients.
# shellcheck shell=bash

bats_require_minimum_version 1.5.0

: "${SMALLSERVD:=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)/smallservd}"
: "${SMALLPROBE:=$(dirname "$SMALLSERVD")/smallprobe}"
: "${TESTS_SRCDIR:=$(cd "$BATS_TEST_DIRNAME/.." && pwd)}"
export PYTHONDONTWRITEBYTECODE=1

if [[ ! -x $SMALLSERVD ]]; then
	echo "no daemon: $SMALLSERVD (build it, or set SMALLSERVD)" >&2
	exit 1
fi

# True if the daemon was built with a sanitizer, which makes it slow and large.
sanitized() {
	grep -qaE '__(asan|tsan|msan|lsan)_init' "$SMALLSERVD"
}

# Time limit in seconds of each wait. It ends tests that hang and is no measure of speed.
DEADLINE=30
if sanitized; then
	DEADLINE=150
fi
export DEADLINE

setup() {
	STARTED=()    # process ids of daemons
	BACKGROUND=() # process ids of other programs
	NETWORK=()    # command prefix that enters the network namespace of the test
	RUNNER=()     # command prefix of the daemon
	cd "$BATS_TEST_TMPDIR" || return
}

# Ends the processes of the test. A daemon that is still running has to exit with status 0, without a sanitizer report.
teardown() {
	local pid status=0
	for pid in "${STARTED[@]}"; do
		end_daemon "$pid" || status=1
	done
	for pid in "${BACKGROUND[@]}"; do
		kill -TERM "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	if grep -lE 'Sanitizer|runtime error:' log.* 2>/dev/null; then
		status=1
	fi
	if [[ $status != 0 || (-z ${BATS_TEST_COMPLETED:-} && -z ${BATS_TEST_SKIPPED:-}) ]]; then
		head -n 200 conf.* log.* 2>/dev/null || true
	fi
	return "$status"
}

end_daemon() {
	local pid=$1 began=$SECONDS resent=
	running "$pid" || return 0
	kill -CONT "$pid"
	kill -TERM "$pid"
	while running "$pid"; do
		if [[ -z $resent ]] && ((SECONDS > began + 2)); then
			kill -TERM "$pid" 2>/dev/null || true
			resent=yes
		fi
		if ((SECONDS > began + DEADLINE)); then
			kill -KILL "$pid" 2>/dev/null || true
			echo "teardown: the daemon $pid did not stop within $DEADLINE s"
			return 1
		fi
		sleep 0.02
	done
	wait "$pid" || {
		echo "teardown: the daemon $pid ended with status $?"
		return 1
	}
}

fail() {
	printf '%s\n' "$*"
	return 1
}

is_root() {
	[[ $(id -u) == 0 ]]
}

need_root() {
	is_root || skip "needs root"
}

# Features that the host or the build lacks are a reason to skip.
need_programs() {
	local program
	for program; do
		command -v "$program" >/dev/null || skip "needs $program"
	done
}

need_mounts() {
	need_programs unshare
	unshare --mount true 2>/dev/null || skip "cannot make a mount namespace here"
}

need_filter() {
	! sanitized || skip "a build with a sanitizer has no seccomp filter"
	grep -qa 'libseccomp\.so' "$SMALLSERVD" || skip "built without libseccomp"
}

need_libsystemd() {
	grep -qa 'libsystemd\.so' "$SMALLSERVD" || skip "built without libsystemd"
}

has_ipv6() {
	[[ -e /proc/net/if_inet6 ]] && grep -q '^0\{31\}1 ' /proc/net/if_inet6
}

need_ipv6() {
	has_ipv6 || skip "this host has no ::1"
}

running() {
	local stat
	{ read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
	stat=${stat##*) }
	[[ $stat != [ZX]* ]]
}

# Repeats COMMAND until it succeeds. Fails at the deadline.
wait_until() {
	local ends=$((SECONDS + DEADLINE))
	until "$@"; do
		((SECONDS < ends)) || return 1
		sleep 0.02
	done
}

# Writes the configuration on standard input to FILE. Adds `user = root` for root unless the test sets a user, because
# the default user may not exist.
write_config() {
	local text
	text=$(cat)
	if is_root && ! grep -qE '^user = ' <<<"$text"; then
		if grep -qF '[daemon]' <<<"$text"; then
			text=${text/'[daemon]'/$'[daemon]\nuser = root'}
		else
			text=$'[daemon]\nuser = root\n\n'$text
		fi
	fi
	printf '%s\n' "$text" >"$1"
}

# Prints sections of the services NAME..., each on 127.0.0.1 with ports chosen by the kernel.
local_services() {
	printf '[%s]\naddress = 127.0.0.1\nport = 0\n' "$@"
}

# Starts a daemon with the configuration on standard input and further ARGUMENTS, without waiting for it. Sets PID, LOG
# and CONF.
launch_daemon() {
	local number=${#STARTED[@]}
	CONF=$BATS_TEST_TMPDIR/conf.$number
	LOG=$BATS_TEST_TMPDIR/log.$number
	write_config "$CONF"
	: >>"$LOG"
	"${NETWORK[@]}" "${RUNNER[@]}" "$SMALLSERVD" -c "$CONF" "$@" \
		</dev/null >>"$LOG" 2>&1 3>&- 4>&- &
	PID=$!
	STARTED+=("$PID")
}

# Starts a daemon as launch_daemon does and waits until it is ready.
# shellcheck disable=SC2120 # tests give it arguments
start_daemon() {
	launch_daemon "$@"
	wait_for_log '(^|[ >=])ready: '
}

# Starts a daemon with echo on 127.0.0.1 and two workers; LINES are added to [daemon].
start_local_echo() {
	# shellcheck disable=SC2119 # the arguments are lines of the configuration
	start_daemon <<-END
		[daemon]
		workers = 2
		$(printf '%s\n' "$@")
		$(local_services echo)
	END
}

# Waits for a line that matches the extended regular expression PATTERN in LOG.
wait_for_log() {
	local ends=$((SECONDS + DEADLINE))
	until grep -qaE -e "$1" "$LOG"; do
		if ! running "$PID"; then
			grep -qaE -e "$1" "$LOG" && return
			fail "the daemon exited before it logged: $1"
			return
		fi
		((SECONDS < ends)) || {
			fail "not logged within $DEADLINE s: $1"
			return
		}
		sleep 0.02
	done
}

log_matches() {
	grep -qaE -e "$1" "$LOG"
}

# Waits until the daemon has exited and sets STATUS to its exit status.
wait_for_end() {
	wait_until ended "$PID" || {
		fail "the daemon is still running"
		return
	}
	STATUS=0
	wait "$PID" || STATUS=$?
}

ended() {
	! running "$1"
}

# Stops the daemon with TERM and checks that its exit status is 0.
stop_daemon() {
	kill -TERM "$PID"
	wait_for_end
	[[ $STATUS == 0 ]] || fail "exit status $STATUS after TERM"
}

# Prints the port of service NAME on PROTOCOL, and on ADDRESS (IPv6 in brackets) if given.
port_of() {
	local name=$1 protocol=$2 address=${3:-} line
	while read -r line; do
		if [[ $line =~ (^|[ >=])"$name: listening on $protocol "(.+):([0-9]+)$ ]] &&
			[[ -z $address || ${BASH_REMATCH[2]} == "$address" ]]; then
			echo "${BASH_REMATCH[3]}"
			return
		fi
	done <"$LOG"
	fail "no port of $name $protocol $address in the log" >&2
}

# Prints the first of COUNT consecutive ports that are free for TCP and UDP and outside the ephemeral range.
free_port() {
	python free_ports.py "${1:-1}"
}

# Prints the CPU time of process PID so far, in ticks of 10 ms.
cpu_ticks() {
	local stat fields
	read -r stat <"/proc/$1/stat"
	read -ra fields <<<"${stat##*) }"
	echo $((fields[11] + fields[12]))
}

# Checks that the idle daemon uses less than 0.1 s of CPU time in a second.
assert_idle() {
	local before after
	before=$(cpu_ticks "$PID")
	sleep 1
	after=$(cpu_ticks "$PID")
	((after - before < 10)) || fail "the daemon spins: $((after - before)) ticks of CPU time in a second"
}

# Makes a network namespace with loopback up and sets NETWORK to the command prefix that enters it. Daemons and clients
# of this file use the prefix. The namespace exists as long as its holder process.
make_network() {
	need_root
	need_programs unshare nsenter ip
	unshare --net true 2>/dev/null || skip "cannot make a network namespace here"
	unshare --net sleep infinity </dev/null >/dev/null 2>&1 3>&- 4>&- &
	local holder=$!
	BACKGROUND+=("$holder")
	wait_until is_sleep "$holder"
	NETWORK=(nsenter --target "$holder" --net)
	"${NETWORK[@]}" ip link set lo up
}

is_sleep() {
	[[ $(cat "/proc/$1/comm" 2>/dev/null) == sleep ]]
}

# Adds an interface net0 to the namespace, with 10.9.0.1/24, 10.9.0.2/24, fd00:9::1/64, fd00:9::2/64 and multicast.
make_interface() {
	"${NETWORK[@]}" ip link add net0 type veth peer name net1 2>/dev/null || skip "the kernel has no veth"
	local address
	for address in 10.9.0.1/24 10.9.0.2/24; do
		"${NETWORK[@]}" ip address add "$address" broadcast + dev net0
	done
	for address in fd00:9::1/64 fd00:9::2/64; do
		"${NETWORK[@]}" ip address add "$address" dev net0 nodad 2>/dev/null || true
	done
	"${NETWORK[@]}" ip link set net1 up
	"${NETWORK[@]}" ip link set net0 up
	"${NETWORK[@]}" ip route add 224.0.0.0/4 dev net0
}

# Runs netcat with a deadline.
netcat() {
	"${NETWORK[@]}" timeout "$DEADLINE" nc "$@"
}

# Checks that echo answers on TRANSPORT HOST PORT.
assert_echo() {
	local how=(-N) answer
	[[ $1 == tcp ]] || how=(-u -W 1)
	answer=$(netcat "${how[@]}" "$2" "$3" <<<"hello") || fail "no echo on $*: netcat ended with status $?"
	[[ $answer == hello ]] || fail "no echo on $*: $answer"
}

# Runs smallprobe with a deadline.
smallprobe() {
	"${NETWORK[@]}" timeout $((DEADLINE * 4)) "$SMALLPROBE" "$@"
}

# Runs a Python helper of this folder with a deadline, as in `python echo.py split ...`.
python() {
	"${NETWORK[@]}" timeout $((DEADLINE * 4)) python3 "$BATS_TEST_DIRNAME/$1" "${@:2}"
}

# Starts a Python helper in the background with its output in FILE and sets HELPER to its process id.
python_background() {
	: >"$1"
	"${NETWORK[@]}" timeout $((DEADLINE * 4)) python3 "$BATS_TEST_DIRNAME/$2" "${@:3}" \
		</dev/null >"$1" 2>&1 3>&- 4>&- &
	HELPER=$!
	BACKGROUND+=("$HELPER")
}

# Starts a Python helper that prints `port N`, as python_background does, and sets SERVER_PORT to that port.
# shellcheck disable=SC2034 # tests use SERVER_PORT
python_server() {
	python_background "$@"
	wait_for_line "$1" 'port [0-9]+'
	SERVER_PORT=$(sed -n 's/^port //p' "$1")
}

# Waits for a line of FILE that matches the extended regular expression PATTERN as a whole.
wait_for_line() {
	wait_until grep -qsxE -e "$2" "$1" || {
		cat "$1"
		fail "$1 has no line: $2"
	}
}

# Waits for HELPER and checks that its exit status is 0; else prints its output in FILE.
wait_for_helper() {
	local status=0
	wait "$HELPER" || status=$?
	[[ $status == 0 ]] || {
		cat "$1"
		fail "the helper ended with status $status"
	}
}
