#!/usr/bin/env bats
# smallprobe against other inetds: all their types are measured, and their errors are reported.

load helpers

TYPES=(echo discard daytime chargen time)

# start_inetd PROGRAM ARGUMENTS...: starts an unpacked inetd in a network namespace with its own libraries.
start_inetd() {
	[[ -d ${SMALLSERVD_PEERS:-} ]] || skip "SMALLSERVD_PEERS names no folder of unpacked inetds (./dev check fetches them)"
	local program=$SMALLSERVD_PEERS/usr/sbin/$1 libraries
	shift
	need_programs ss
	[[ -x $program ]] || skip "$program is not there"
	libraries=$(printf '%s:' "$SMALLSERVD_PEERS"/{usr/,}lib/*-linux-gnu*)
	make_network
	make_interface
	"${NETWORK[@]}" env LD_LIBRARY_PATH="$libraries" "$program" "$@" </dev/null >inetd.out 2>&1 3>&- 4>&- &
	BACKGROUND+=("$!")
	wait_until all_listen || {
		cat inetd.out
		fail "${program##*/} does not listen"
	}
}

all_listen() {
	[[ $("${NETWORK[@]}" ss -Hlntu 'sport <= 37' | wc -l) -ge $((2 * ${#TYPES[@]})) ]]
}

# Writes a configuration as in inetd.conf(5).
write_inetd_conf() {
	local type
	for type in "${TYPES[@]}"; do
		echo "$type stream tcp nowait root internal"
		echo "$type dgram udp wait root internal"
	done >inetd.conf
}

write_xinetd_conf() {
	local type protocol kind
	printf 'defaults\n{\n\tinstances = UNLIMITED\n\tper_source = UNLIMITED\n\tcps = 100000 1\n}\n'
	for type in "${TYPES[@]}"; do
		for protocol in tcp udp; do
			kind=$'\tsocket_type = stream\n\twait = no\n'
			[[ $protocol == tcp ]] || kind=$'\tsocket_type = dgram\n\twait = yes\n'
			printf 'service %s\n{\n\tid = %s-%s\n\ttype = INTERNAL\n\tprotocol = %s\n%s\tuser = root\n}\n' \
				"$type" "$type" "$protocol" "$protocol" "$kind"
		done
	done
}

# ask STATUS ARGUMENTS...: runs smallprobe and sets output.
ask() {
	run smallprobe -W "$DEADLINE" "${@:2}" 10.9.0.1
	# shellcheck disable=SC2154 # run sets it
	[[ $status == "$1" ]] || fail "exit status $status of ${*:2}, not $1: $output"
}

# check_common DATAGRAMS: checks echo and discard over both transports, with that many datagrams in succession.
check_common() {
	local over count=20
	for over in --ipv4 --udp; do
		[[ $over == --ipv4 ]] || count=$1
		ask 0 "$over" -c "$count" -i 0.01 echo
		grep -q "^$count sent, $count received, 0% lost, 0 duplicated, 0 reordered, 0 late, 0 corrupted" <<<"$output"
		# over UDP the probe waits for a reply that must not arrive
		ask 0 "$over" -W 1 discard
		grep -q '^1 sent, 1 received' <<<"$output"
	done
}

# check_load OVER: checks echo under load.
check_load() {
	ask 0 "$1" -s 1000 -c 300 --connections 3 --depth 2 echo
	grep -q '^300 sent, 300 received, 0 lost (0%)$' <<<"$output"
}

# check_clock TYPE FORMAT: checks that the clock over both transports is near that of this host.
check_clock() {
	local over offset
	for over in --ipv4 --udp; do
		ask 0 "$over" "$1"
		offset=$(sed -nE "s/^clock [-0-9]+T[:0-9]+Z \($2[^)]*\), offset ([-+][0-9]+)\.[0-9]+ s, .*/\1/p" <<<"$output")
		[[ -n $offset ]] || fail "no clock of format $2: $output"
		# the offset includes half of the reply time of a slow machine
		((offset > -DEADLINE && offset < DEADLINE)) || fail "$offset s from our clock"
	done
}

# check_chargen OVER STATUS PATTERN: checks chargen with exit status STATUS and output that matches PATTERN.
check_chargen() {
	ask "$2" "$1" chargen
	grep -qE "$3" <<<"$output" || fail "not in the output: $3: $output"
}

readonly LINE='^!"#\$%&.\(\)\*\+,-\./0123456789:;<=>\?@ABCDEFGHIJKLMNOPQRSTUVWXYZ'

@test "inetds: all types of xinetd are measured, and its broken chargen pattern over UDP is reported" {
	write_xinetd_conf >xinetd.conf
	start_inetd xinetd -dontfork -f "$BATS_TEST_TMPDIR/xinetd.conf" -pidfile "$BATS_TEST_TMPDIR/xinetd.pid"
	check_common 1 # xinetd drops further queued datagrams
	check_load --ipv4
	check_clock daytime smtp
	check_clock time time
	check_chargen --ipv4 0 "$LINE"
	check_chargen --udp 1 '^1024 bytes from 10\.9\.0\.1:19: .* wrong: not the pattern at byte 1022$'
}

@test "inetds: all types of openbsd-inetd are measured" {
	write_inetd_conf
	start_inetd inetd -i "$BATS_TEST_TMPDIR/inetd.conf"
	check_common 20
	check_load --ipv4
	check_load --udp
	check_clock daytime ctime
	check_clock time time
	check_chargen --ipv4 0 "$LINE"
	check_chargen --udp 0 '^74 bytes from 10\.9\.0\.1:19: '
}

@test "inetds: all types of inetutils-inetd are measured, and its time reply of 8 bytes is reported" {
	write_inetd_conf
	start_inetd inetutils-inetd -d --rate=1000000 --pidfile="$BATS_TEST_TMPDIR/inetd.pid" "$BATS_TEST_TMPDIR/inetd.conf"
	check_common 20
	check_load --ipv4
	check_load --udp
	check_clock daytime ctime
	check_chargen --ipv4 0 "$LINE"
	check_chargen --udp 0 '^74 bytes from 10\.9\.0\.1:19: '
	local over
	for over in --ipv4 --udp; do
		if [[ $(getconf LONG_BIT) == 64 ]]; then
			ask 1 "$over" time
			grep -qE '^8 bytes from 10\.9\.0\.1:37: .* wrong: 8 bytes instead of 4$' <<<"$output"
		fi
	done
}
