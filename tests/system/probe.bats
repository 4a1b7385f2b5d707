#!/usr/bin/env bats
# smallprobe on the command line: types, transports, output and exit status.

# run sets stderr
# shellcheck disable=SC2154

load helpers

: "${SMALLPROBE:=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)/smallprobe}"

# Runs smallprobe with a timeout that is the deadline of the tests, so that a slow machine loses no reply.
probe() {
	"${NETWORK[@]}" timeout $((DEADLINE * 2)) "$SMALLPROBE" -W "$DEADLINE" "$@"
}

start_all() {
	printf 'The only one.\n' >quotes
	start_daemon <<-END
		[daemon]
		workers = 1
		[defaults]
		address = 127.0.0.1$(! has_ipv6 || echo ', ::1')
		port = 0
		datagram_rate = unlimited
		[echo]
		[discard]
		[daytime]
		[chargen]
		[time]
		[qotd]
		quotes_file = $BATS_TEST_TMPDIR/quotes
	END
}

# Starts a server of probe.py and sets PORT.
start_server() {
	python_server server probe.py "$@"
	PORT=$SERVER_PORT
}

json() {
	python3 -c 'import json, sys; print(eval(sys.argv[1], {"j": json.load(open("out.json"))}))' "$1"
}

has() {
	[[ $output == *"$1"* ]] || fail "not in the output: $1
$output"
}

has_line() {
	grep -qxE -e "$1" <<<"$output" || fail "no such line: $1
$output"
}

@test "probe: echo over tcp prints a line for each reply and a summary" {
	start_all
	local port
	port=$(port_of echo tcp 127.0.0.1)
	run -0 probe -c 3 -i 0.01 echo "127.0.0.1:$port"
	has_line "56 bytes from 127\.0\.0\.1:$port: seq=1 time=[0-9]+\.[0-9]{3} ms"
	has_line "56 bytes from 127\.0\.0\.1:$port: seq=3 time=[0-9]+\.[0-9]{3} ms"
	has_line '3 sent, 3 received, 0% lost, 0 duplicated, 0 reordered, 0 late, 0 corrupted, 0 wrong source'
	has_line 'rtt min/avg/max/mdev = [0-9.]+/[0-9.]+/[0-9.]+/[0-9.]+ ms'
	has_line 'median [0-9.]+ ms, p90 [0-9.]+ ms, p99 [0-9.]+ ms, p99\.9 [0-9.]+ ms, jitter [0-9.]+ ms'
}

@test "probe: echo over udp prints the TTL, and requests of every size come back whole" {
	start_all
	local port size
	port=$(port_of echo udp 127.0.0.1)
	run -0 probe -u -c 2 -i 0.01 echo "127.0.0.1:$port"
	has_line "56 bytes from 127\.0\.0\.1:$port: seq=2 ttl=64 time=[0-9.]+ ms"
	for size in 0 1 7 8 24 25 1472 65507; do
		run -0 probe -u -c 2 -i 0.01 -s "$size" echo "127.0.0.1:$port"
		has_line "$size bytes from .* seq=2 .*"
		has '2 sent, 2 received, 0% lost, 0 duplicated, 0 reordered, 0 late, 0 corrupted'
	done
	run -2 probe -u -c 1 -s 65508 echo "127.0.0.1:$port"
	has 65507
}

@test "probe: echo over tcp sends large requests and has many in flight" {
	start_all
	run -0 probe -c 3 -i 0.001 -s 3000000 echo "127.0.0.1:$(port_of echo tcp 127.0.0.1)"
	has '3 sent, 3 received, 0% lost'
	run -0 probe -q -c 500 -i 0.0005 -s 1000 echo "127.0.0.1:$(port_of echo tcp 127.0.0.1)"
	has '500 sent, 500 received, 0% lost'
}

@test "probe: echo over IPv6 works over tcp and udp" {
	need_ipv6
	start_all
	local port
	port=$(port_of echo tcp '[::1]')
	run -0 probe -c 1 echo "[::1]:$port"
	has_line "56 bytes from \[::1\]:$port: seq=1 time=.*"
	run -0 probe -6 -c 1 -p "$port" echo ::1
	port=$(port_of echo udp '[::1]')
	run -0 probe -u -c 1 echo "[::1]:$port"
	has_line "56 bytes from \[::1\]:$port: seq=1 ttl=64 time=.*"
}

# Runs smallprobe in a mount namespace where /etc/hosts consists of standard input.
probe_with_hosts() {
	cat >hosts
	"${NETWORK[@]}" unshare --mount timeout $((DEADLINE * 2)) \
		sh -c 'mount --bind hosts /etc/hosts && exec "$@"' sh "$SMALLPROBE" -W "$DEADLINE" "$@"
}

@test "probe: a name with two addresses is reached at the address that answers" {
	need_ipv6
	make_network
	make_interface
	need_mounts
	start_daemon <<-END
		[echo]
		protocol = tcp
		address = 127.0.0.1, 10.9.0.1
		port = 0
	END
	local port
	port=$(port_of echo tcp 127.0.0.1)
	run -0 probe_with_hosts -c 1 echo "two.example:$port" < <(printf '%s two.example\n' ::1 127.0.0.1)
	has "56 bytes from 127.0.0.1:$port: seq=1"
	run -3 probe_with_hosts -6 -c 1 echo "two.example:$port" < <(printf '%s two.example\n' ::1 127.0.0.1)
	has "connect to [::1]:$port: Connection refused"
	# the first address sends no error: the second is tried while the first is pending
	run -0 probe_with_hosts -c 1 echo "two.example:$(port_of echo tcp 10.9.0.1)" \
		< <(printf '%s two.example\n' fd00:9::99 10.9.0.1)
	has "56 bytes from 10.9.0.1:$(port_of echo tcp 10.9.0.1): seq=1"
}

@test "probe: discard over tcp measures the close, over udp it reports that no reply is expected" {
	start_all
	run -0 probe -s 100000 discard "127.0.0.1:$(port_of discard tcp 127.0.0.1)"
	has_line '100000 bytes taken by .*: seq=1 time=[0-9.]+ ms'
	run -0 probe -u -W 0.2 discard "127.0.0.1:$(port_of discard udp 127.0.0.1)"
	has ': seq=1, no reply data'
	start_server says hello
	run -1 probe discard "127.0.0.1:$PORT"
	has 'wrong: answered, with 5 bytes'
}

@test "probe: daytime and time print the clock and its offset" {
	start_all
	local type transport flags
	for type in daytime time; do
		for transport in tcp udp; do
			flags=()
			[[ $transport == tcp ]] || flags=(-u)
			run -0 probe "${flags[@]}" "$type" "127.0.0.1:$(port_of "$type" "$transport" 127.0.0.1)"
			has_line 'clock 2[0-9]{3}-[01][0-9]-[0-3][0-9]T[0-9:]{8}Z \((ctime|time).*\), offset [-+][0-9.]+ s, uncertainty [0-9.]+ s'
			has_line 'clock offset [-+][0-9.]+ s, uncertainty [0-9.]+ s, of 1 answers'
		done
	done
	probe -u -c 5 -i 0.05 --json time "127.0.0.1:$(port_of time udp 127.0.0.1)" >out.json
	# both programs read the same clock: the offset is 0 within its uncertainty
	[[ $(json 'abs(j["clock"]["offset_s"]) <= j["clock"]["uncertainty_s"] + 1e-6') == True ]]
	[[ $(json 'j["clock"]["answers"], j["received"]') == '(5, 5)' ]]
}

@test "probe: daytime parses every format, with local time where the format has no zone" {
	start_daemon <<-END
		[defaults]
		type = daytime
		protocol = tcp
		address = 127.0.0.1
		port = 0
		timezone = Asia/Kolkata
		[rfc3339]
		format = rfc3339
		[nist]
		format = nist
		[smtp]
		format = smtp
		[ctime]
		format = ctime
	END
	local format
	for format in rfc3339 nist smtp ctime; do
		TZ=Asia/Kolkata probe --json daytime "127.0.0.1:$(port_of "$format" tcp)" >out.json
		[[ $(json 'j["clock"]["format"]') == "$format" ]]
		[[ $(json 'abs(j["clock"]["offset_s"]) <= j["clock"]["uncertainty_s"] + 1e-6') == True ]] || {
			cat out.json
			fail "$format: the offset is wrong"
		}
	done
	[[ $(json 'j["clock"]["zone"]') == local ]]
}

@test "probe: daytime reports the offset of a wrong clock, and prints text that is no time" {
	start_server says '2001-09-09T01:46:40Z\r\n'
	run -0 probe --json daytime "127.0.0.1:$PORT"
	printf '%s\n' "$output" >out.json
	[[ $(json 'j["clock"]["time"]') == 2001-09-09T01:46:40Z ]]
	[[ $(json 'j["clock"]["offset_s"] < -7e8') == True ]]
	start_server says 'half past nine\r\n'
	run -0 probe daytime "127.0.0.1:$PORT"
	has 'half past nine'
	[[ $output != *'clock '* ]]
}

@test "probe: qotd and chargen print the reply, and a wrong chargen pattern is an error" {
	start_all
	local transport flags
	for transport in tcp udp; do
		flags=()
		[[ $transport == tcp ]] || flags=(-u)
		run -0 probe "${flags[@]}" qotd "127.0.0.1:$(port_of qotd "$transport" 127.0.0.1)"
		has_line 'The only one\.'
		run -0 probe "${flags[@]}" chargen "127.0.0.1:$(port_of chargen "$transport" 127.0.0.1)"
		has $'cdefg\n!"#$%'
	done
	run -0 probe -q -s 1000000 chargen "127.0.0.1:$(port_of chargen tcp 127.0.0.1)"
	start_server says ' !"#$%&x'
	run -1 probe chargen "127.0.0.1:$PORT"
	has 'wrong: not the pattern at byte 7'
	start_server says ' !"#'
	run -1 probe chargen "127.0.0.1:$PORT"
	has 'wrong: only 4 of 740 bytes came'
}

@test "probe: control characters in a reply are escaped" {
	start_server says '\x1b[31mred\x07\xc2\x9b \xc3\xa4\x80\r\n'
	run -0 probe qotd "127.0.0.1:$PORT"
	has '\x1b[31mred\x07\xc2\x9b'
	has $'\xc3\xa4\\x80'
	[[ $output != *$'\e'* ]]
}

@test "probe: empty, overlong and reset replies are wrong" {
	start_server says ''
	run -1 probe daytime "127.0.0.1:$PORT"
	has 'wrong: closed without an answer'
	start_server says 'abcde'
	run -1 probe time "127.0.0.1:$PORT"
	has 'wrong: 5 bytes instead of 4'
	start_server says '' reset
	run -1 probe qotd "127.0.0.1:$PORT"
	has 'Connection reset by peer'
}

@test "probe: a reply without a close by the server counts as received" {
	start_server says 'slow\r\n' stay
	run -0 probe -W 2 qotd "127.0.0.1:$PORT"
	has 'not closed by the server'
}

@test "probe: a target that cannot be reached is reported once and exits 3" {
	local port
	port=$(free_port)
	run -3 --separate-stderr probe -c 5 echo "127.0.0.1:$port"
	[[ -z $output && $stderr == "smallprobe: connect to 127.0.0.1:$port: Connection refused" ]]
	run -3 --separate-stderr probe daytime "127.0.0.1:$port"
	[[ -z $output && $stderr == "smallprobe: connect to 127.0.0.1:$port: Connection refused" ]]
	run -3 --separate-stderr probe -u -c 2 -i 0.01 echo "127.0.0.1:$port"
	[[ $stderr == "smallprobe: send to 127.0.0.1:$port: Connection refused" ]]
	has 'refused seq=1 by 127.0.0.1: Connection refused'
	has '2 sent, 0 received, 100% lost'
	run -3 --separate-stderr probe -u time "127.0.0.1:$port"
	[[ $stderr == "smallprobe: send to 127.0.0.1:$port: Connection refused" ]]
	run -3 --separate-stderr probe --json daytime "127.0.0.1:$port"
	printf '%s\n' "$output" >out.json
	[[ $(json 'j["error"], j["exit_status"]') == "('connect to 127.0.0.1:$port: Connection refused', 3)" ]]
	run -3 --separate-stderr probe -c 1 echo no-such-host.invalid
	[[ -z $output && $stderr == 'smallprobe: no-such-host.invalid: '* ]]
	run -3 --separate-stderr probe --json -c 1 -u time no-such-host.invalid
	printf '%s\n' "$output" >out.json
	[[ $(json 'j["error"].startswith("no-such-host.invalid: "), j["peer"], j["sent"], j["exit_status"]') == '(True, None, 0, 3)' ]]
}

@test "probe: a usage error exits 2" {
	run -2 probe
	run -2 probe finger localhost
	run -2 probe echo 'a b'
	has "'a b' is neither a host name nor an address"
	run -2 probe echo 127.0.0.1:0
	run -2 probe -B localhost echo 127.0.0.1
	run -2 probe --tls --cacert "$BATS_TEST_TMPDIR/missing.pem" echo 127.0.0.1
	has 'missing.pem'
	run -0 probe --help
	run -0 probe -V
	has_line 'smallprobe [0-9.]+'
}

@test "probe: missing replies are timeouts and exit 1 unless --max-loss allows them" {
	start_server datagrams swallow
	run -1 probe -u -c 2 -i 0.01 -W 0.2 echo "127.0.0.1:$PORT"
	has_line 'timeout seq=1'
	has_line 'timeout seq=2'
	has '2 sent, 0 received, 100% lost'
	run -0 probe -u -c 1 -W 0.2 --max-loss 100 echo "127.0.0.1:$PORT"
	run -1 probe -u -c 1 -W 0.2 --max-loss 99 daytime "127.0.0.1:$PORT"
	has_line 'timeout seq=1'
	start_server silent
	run -1 probe -c 1 -W 0.5 echo "127.0.0.1:$PORT"
	has_line 'timeout seq=1'
	run -1 probe -c 1 -W 0.5 daytime "127.0.0.1:$PORT"
	has_line 'timeout seq=1'
}

@test "probe: a flipped bit is reported with its byte offset" {
	start_server datagrams flip
	run -1 probe -u -c 1 echo "127.0.0.1:$PORT"
	has 'corrupted at byte 40'
	has '1 sent, 1 received, 0% lost, 0 duplicated, 0 reordered, 0 late, 1 corrupted'
}

@test "probe: a reply from another port is reported as a wrong source" {
	start_server datagrams elsewhere
	run -1 probe -u -c 1 echo "127.0.0.1:$PORT"
	has ' wrong source'
	has '0 corrupted, 1 wrong source'
	run -1 probe -u -c 1 -W 0.3 daytime "127.0.0.1:$PORT"
	has ' wrong source'
}

@test "probe: duplicate and reordered replies are reported" {
	start_server datagrams twice
	run -0 probe -u -c 2 -i 0.05 echo "127.0.0.1:$PORT"
	has_line '.* seq=1 .* duplicate'
	# the duplicate of the last reply may arrive after the end
	has_line '2 sent, 2 received, 0% lost, [12] duplicated, .*'
	start_server datagrams swap
	run -0 probe -u -c 2 -i 0.01 echo "127.0.0.1:$PORT"
	has_line '.* seq=1 .* reordered'
	has '2 sent, 2 received, 0% lost, 0 duplicated, 1 reordered'
}

@test "probe: a datagram that matches no request is reported as unexpected" {
	start_server datagrams chatty
	run -1 probe -u -c 1 -W 0.3 echo "127.0.0.1:$PORT"
	has '1 unexpected'
	run -1 probe -u time "127.0.0.1:$PORT"
	has 'wrong: 5 bytes instead of 4'
	run -1 probe -u discard "127.0.0.1:$PORT"
	has 'wrong: answered, with 5 bytes'
}

@test "probe: SIGINT and --deadline end the run with the summary" {
	start_all
	# the deadline ends the probe if the test fails
	"$SMALLPROBE" -w $((DEADLINE * 4)) -i 0.01 echo "127.0.0.1:$(port_of echo tcp 127.0.0.1)" >out &
	local pid=$!
	wait_until grep -qs 'seq=3' out
	kill -INT "$pid"
	wait_until ended "$pid"
	wait "$pid"
	run cat out
	has ' 0% lost'
	has 'rtt min/avg/max/mdev'
	# a busy server may not answer in so short a time
	run probe -u -i 0.05 -w 0.3 echo "127.0.0.1:$(port_of echo udp 127.0.0.1)"
	[[ $status == [01] ]]
	has ' sent, '
}

# The name server sends no reply: getaddrinfo tries for ten seconds.
@test "probe: --deadline and --wait bound the lookup of a name" {
	make_network
	need_mounts
	"${NETWORK[@]}" nc -k -u -l 127.0.0.1 53 </dev/null >/dev/null 2>&1 3>&- 4>&- &
	BACKGROUND+=("$!")
	name_server_listens() { "${NETWORK[@]}" ss -Huln 'sport = 53' | grep -q 53; }
	wait_until name_server_listens || fail "no name server"
	echo 'nameserver 127.0.0.1' >resolv.conf
	echo 'hosts: dns' >nsswitch.conf
	local with_silent_dns=("${NETWORK[@]}" unshare --mount sh -c
		'mount --bind resolv.conf /etc/resolv.conf && mount --bind nsswitch.conf /etc/nsswitch.conf && exec "$@"' -
		timeout "$DEADLINE" "$SMALLPROBE")
	run -3 "${with_silent_dns[@]}" -w 0.3 echo missing.example:7
	has 'missing.example: the name was not looked up within 0.3 s'
	run -3 "${with_silent_dns[@]}" --wait 0.4 --json -u echo missing.example:7
	has 'did not answer within 0.4 s: missing.example: the name was not looked up within 0.'
}

@test "probe: a broken connection ends the run, with --reconnect it continues and reports the outage" {
	start_server breaks 112
	run -1 probe -c 9 -i 0.01 echo "127.0.0.1:$PORT"
	has 'Connection reset by peer'
	has ' 2 received'
	start_server breaks 112
	run -1 probe -c 9 -i 0.01 --reconnect echo "127.0.0.1:$PORT"
	has 'connection lost: '
	has "connected again to 127.0.0.1:$PORT after an outage of "
	has_line '1 outages, [0-9.]+ s in all'
	# requests in flight are lost: one, or more on a busy machine
	has_line '9 sent, [2-8] received, .*'
	start_server breaks 112
	run -0 probe -c 9 -i 0.01 --reconnect --max-loss 99 --json echo "127.0.0.1:$PORT"
	printf '%s\n' "$output" >out.json
	[[ $(json 'j["outages"], j["outage_ms"] > 0, j["lost"] > 0, j["sent"]') == '(1, True, True, 9)' ]]
}

@test "probe: --wait returns when the service answers, else it prints the reason" {
	local port
	port=$(free_port)
	run -3 --separate-stderr probe --wait 0.3 echo "127.0.0.1:$port"
	[[ $stderr == "smallprobe: 127.0.0.1:$port did not answer within 0.3 s: connect to 127.0.0.1:$port: Connection refused" ]]
	run -3 --separate-stderr probe --wait 0.3 --json echo "127.0.0.1:$port"
	printf '%s\n' "$output" >out.json
	[[ $(json 'j["error"]') == "127.0.0.1:$port did not answer within 0.3 s: connect to 127.0.0.1:$port: Connection refused" ]]
	probe --wait "$DEADLINE" echo "127.0.0.1:$port" >out 2>&1 &
	local pid=$!
	start_daemon <<-END
		[echo]
		address = 127.0.0.1
		port = $port
	END
	wait "$pid"
	grep -q '1 sent, 1 received, 0% lost' out
	run -0 probe --wait "$DEADLINE" -c 2 -i 0.01 -u echo "127.0.0.1:$port"
	has '2 sent, 2 received'
}

@test "probe: a run without any reply exits with an error at each kind of end" {
	start_server silent
	run -1 probe -w 1 -i 9 echo "127.0.0.1:$PORT"
	has '1 sent, 0 received'
	run -1 probe -w 1 daytime "127.0.0.1:$PORT"
	run -1 probe --wait 1 --max-loss 100 daytime "127.0.0.1:$PORT"
	has 'did not answer within 1 s'
	start_server datagrams swallow
	run -1 probe -u -w 0.2 echo "127.0.0.1:$PORT"
	make_network
	make_interface
	run -3 --separate-stderr probe -w 0.2 echo 10.9.0.99
	[[ $stderr == 'smallprobe: connect to 10.9.0.99 port 7: not done at the end' ]]
	run -3 probe -W 0.2 daytime 10.9.0.99
	has 'connect to 10.9.0.99:13: Connection timed out'
}

# Reads two lines of the output of COMMAND and closes the pipe; COMMAND has to exit with 1.
read_two() {
	"$@" | head -n 2
	[[ ${PIPESTATUS[0]} == 1 ]]
}

@test "probe: a closed pipe on standard output ends the run" {
	start_all
	# a probe that ignored the closed pipe would run into the deadline
	run -0 read_two timeout "$DEADLINE" "$SMALLPROBE" -i 0.01 echo "127.0.0.1:$(port_of echo tcp 127.0.0.1)"
	has 'seq=1'
	run -0 read_two timeout "$DEADLINE" "$SMALLPROBE" -i 0.01 -c 1000000 qotd "127.0.0.1:$(port_of qotd tcp 127.0.0.1)"
}

@test "probe: a write error on standard output is reported and exits with an error" {
	start_all
	local arguments
	for arguments in '-c 1' '--json -c 1' '--duration 10ms' '--json --duration 10ms'; do
		# shellcheck disable=SC2086
		probe $arguments echo "127.0.0.1:$(port_of echo tcp 127.0.0.1)" >/dev/full 2>errors && fail "$arguments: success"
		[[ $(<errors) == 'smallprobe: cannot write to standard output' ]] || fail "$arguments: $(<errors)"
	done
	for arguments in --help --version; do
		run -1 --separate-stderr bash -c "'$SMALLPROBE' $arguments >/dev/full"
		[[ $stderr == 'smallprobe: cannot write to standard output' ]]
	done
}

@test "probe: --half-close and --early pass with this daemon and fail with servers that do not support them" {
	start_all
	run -0 probe --half-close -s 300000 echo "127.0.0.1:$(port_of echo tcp 127.0.0.1)"
	has 'after the shutdown of the sending side'
	run -0 probe --half-close qotd "127.0.0.1:$(port_of qotd tcp 127.0.0.1)"
	run -0 probe --early -s 1000 daytime "127.0.0.1:$(port_of daytime tcp 127.0.0.1)"
	start_server breaks 100
	run -1 probe --half-close -s 1000 echo "127.0.0.1:$PORT"
	has 'wrong: '
	start_server says ''
	run -1 probe --half-close echo "127.0.0.1:$PORT"
	has 'wrong: only 0 of 56 bytes came after the shutdown of the sending side'
}

make_certificates() {
	need_programs openssl
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=probe authority' \
		-keyout ca.key -out ca.pem -addext basicConstraints=critical,CA:TRUE 2>openssl.log
	local name
	for name in server client; do
		openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" \
			-keyout "$name.key" -out "$name.csr" 2>>openssl.log
		openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out "$name.pem" \
			-extfile <(echo 'subjectAltName = DNS:probe.example, IP:127.0.0.1') 2>>openssl.log
	done
}

@test "probe: --tls verifies the certificate by address and by name" {
	make_certificates
	start_server tls server.pem server.key
	run -0 probe --tls --cacert ca.pem -c 2 -i 0.01 echo "127.0.0.1:$PORT"
	has '2 sent, 2 received, 0% lost'
	run -0 probe --tls --cacert ca.pem --server-name probe.example -c 1 -s 1000000 echo "127.0.0.1:$PORT"
	run -0 probe --tls -k -c 1 echo "127.0.0.1:$PORT"
	run -1 probe --tls -c 1 echo "127.0.0.1:$PORT"
	has "127.0.0.1:$PORT: the certificate: "
	run -1 probe --tls --cacert ca.pem --server-name other.example -c 1 echo "127.0.0.1:$PORT"
	has 'ostname mismatch'
	start_server tls server.pem server.key ca.pem
	run -1 probe --tls --cacert ca.pem -c 1 echo "127.0.0.1:$PORT"
	run -0 probe --tls --cacert ca.pem --cert client.pem --key client.key -c 1 echo "127.0.0.1:$PORT"
}

@test "probe: all types work with TLS, client certificates and PROXY headers" {
	make_certificates
	printf 'The only one.\n' >quotes
	start_daemon <<-END
		[defaults]
		protocol = tcp
		address = 127.0.0.1
		port = 0
		tls = yes
		tls_certificate = $BATS_TEST_TMPDIR/server.pem
		tls_key = $BATS_TEST_TMPDIR/server.key
		tls_client_ca = $BATS_TEST_TMPDIR/ca.pem
		tls_client_auth = required
		proxy_protocol = on
		proxy_from = 127.0.0.1
		[echo]
		[discard]
		[daytime]
		[chargen]
		[time]
		[qotd]
		quotes_file = $BATS_TEST_TMPDIR/quotes
	END
	local type version
	for type in echo discard daytime chargen time qotd; do
		for version in v1 v2; do
			run -0 probe --tls --cacert ca.pem --cert client.pem --key client.key --proxy "$version" -c 2 -i 0.01 \
				"$type" "127.0.0.1:$(port_of "$type" tcp)"
			has '2 sent, 2 received, 0% lost'
			has ' over tls ---'
		done
	done
	run -0 probe --tls --cacert ca.pem --cert client.pem --key client.key --proxy v2 --half-close -s 100000 \
		echo "127.0.0.1:$(port_of echo tcp)"
	run -1 probe --tls --cacert ca.pem --proxy v2 -c 1 echo "127.0.0.1:$(port_of echo tcp)"
	run -1 probe --tls --cacert ca.pem --cert client.pem --key client.key -c 1 echo "127.0.0.1:$(port_of echo tcp)"
}

@test "probe: --tls with a plain server is reported as a TLS error" {
	start_all
	run -1 probe --tls -k -c 1 echo "127.0.0.1:$(port_of echo tcp 127.0.0.1)"
	has 'TLS: '
}

@test "probe: --proxy sends a header with the addresses of the connection" {
	start_server proxied
	run -0 probe --proxy v1 -c 1 echo "127.0.0.1:$PORT"
	run -0 probe --proxy v2 -c 1 echo "127.0.0.1:$PORT"
	[[ $(grep -c '^header true$' server) == 2 ]]
	! has_ipv6 || {
		start_server proxied ::1
		run -0 probe --proxy v1 -c 1 echo "[::1]:$PORT"
		run -0 probe --proxy v2 -c 1 echo "[::1]:$PORT"
		[[ $(grep -c '^header true$' server) == 2 ]]
	}
}

@test "probe: -B, -I, -t and --dscp set source address, interface, TTL and DSCP" {
	need_programs ss
	start_all
	run -0 probe -B 127.0.0.9 -c 1 echo "127.0.0.1:$(port_of echo tcp 127.0.0.1)"
	run -0 probe -u -B 127.0.0.9 -t 9 --dscp ef -I lo -c 1 echo "127.0.0.1:$(port_of echo udp 127.0.0.1)"
	has ' seq=1 ttl='
	run -3 probe -B 192.0.2.1 -c 1 echo "127.0.0.1:$(port_of echo tcp 127.0.0.1)"
	has 'bind to 192.0.2.1: '
	run -3 probe -I no-such-one -c 1 echo "127.0.0.1:$(port_of echo tcp 127.0.0.1)"
	has 'no-such-one'
}

@test "probe: output is coloured only on a terminal and without NO_COLOR" {
	start_server datagrams swallow
	local arguments=(-u -c 1 -W 0.1 echo "127.0.0.1:$PORT")
	run python probe.py terminal env -u NO_COLOR "$SMALLPROBE" "${arguments[@]}"
	has $'\e[31mtimeout seq=1'
	run python probe.py terminal env NO_COLOR=1 "$SMALLPROBE" "${arguments[@]}"
	has 'timeout seq=1'
	[[ $output != *$'\e['* ]]
	run -1 "$SMALLPROBE" "${arguments[@]}"
	[[ $output != *$'\e['* ]]
}

@test "probe: -D prints timestamps, -q only the summary, --json one object" {
	start_all
	local target
	target=127.0.0.1:$(port_of echo udp 127.0.0.1)
	run -0 probe -u -D -c 1 echo "$target"
	has_line '\[[0-9]{10}\.[0-9]{6}\] 56 bytes from .*'
	run -0 probe -u -q -c 2 -i 0.01 echo "$target"
	[[ $output != *seq=* ]]
	has '2 sent, 2 received'
	probe -u --json -c 2 -i 0.01 echo "$target" >out.json
	[[ $(wc -l <out.json) == 1 ]]
	[[ $(json 'j["type"], j["transport"], j["sent"], j["received"], j["lost"], j["exit_status"]') == "('echo', 'udp', 2, 2, 0, 0)" ]]
	[[ $(json '0 < j["rtt_ms"]["min"] <= j["rtt_ms"]["median"] <= j["rtt_ms"]["p99"] <= j["rtt_ms"]["max"]') == True ]]
}

# Makes three namespaces, NEAR, ROUTER and FAR; the link between ROUTER and FAR has an MTU of 1400.
make_path() {
	make_network
	NEAR=("${NETWORK[@]}")
	make_network
	ROUTER=("${NETWORK[@]}")
	make_network
	FAR=("${NETWORK[@]}")
	local router=${ROUTER[2]} far=${FAR[2]}
	"${NEAR[@]}" ip link add n0 type veth peer name r0 netns "$router" 2>/dev/null || skip "the kernel has no veth"
	"${ROUTER[@]}" ip link add r1 type veth peer name f0 netns "$far"
	"${NEAR[@]}" ip address add 10.8.1.1/24 dev n0
	"${ROUTER[@]}" ip address add 10.8.1.2/24 dev r0
	"${ROUTER[@]}" ip address add 10.8.2.2/24 dev r1
	"${FAR[@]}" ip address add 10.8.2.1/24 dev f0
	"${NEAR[@]}" ip address add fd00:8:1::1/64 dev n0 nodad
	"${ROUTER[@]}" ip address add fd00:8:1::2/64 dev r0 nodad
	"${ROUTER[@]}" ip address add fd00:8:2::2/64 dev r1 nodad
	"${FAR[@]}" ip address add fd00:8:2::1/64 dev f0 nodad
	"${NEAR[@]}" ip link set n0 up
	"${ROUTER[@]}" ip link set r0 up
	"${ROUTER[@]}" ip link set r1 mtu 1400 up
	"${FAR[@]}" ip link set f0 mtu 1400 up
	"${NEAR[@]}" ip route add default via 10.8.1.2
	"${FAR[@]}" ip route add default via 10.8.2.2
	"${NEAR[@]}" ip -6 route add default via fd00:8:1::2
	"${FAR[@]}" ip -6 route add default via fd00:8:2::2
	"${ROUTER[@]}" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 2>/dev/null ||
		skip "cannot enable forwarding here"
}

@test "probe: --mtu finds the MTU of a narrow link and prints the ICMP answers of the path" {
	need_ipv6
	make_path
	NETWORK=("${FAR[@]}")
	start_daemon <<-END
		[echo]
		protocol = udp
		address = 10.8.2.1, fd00:8:2::1
		port = 0
		datagram_rate = unlimited
	END
	NETWORK=("${NEAR[@]}")
	run -0 probe --mtu echo "10.8.2.1:$(port_of echo udp 10.8.2.1)"
	has 'says 10.8.1.2, 1400 would pass'
	has 'says this host'
	has_line 'largest datagram that passes: 1372 bytes, MTU 1400'
	run -0 probe --mtu --json echo "[fd00:8:2::1]:$(port_of echo udp '[fd00:8:2::1]')"
	printf '%s\n' "$output" >out.json
	[[ $(json 'j["mtu"]') == "{'datagram_bytes': 1352, 'packet_bytes': 1400}" ]]
}

@test "probe: --mtu measures loopback, exits 3 at a closed port and 1 without replies" {
	start_all
	run -0 probe --mtu echo "127.0.0.1:$(port_of echo udp 127.0.0.1)"
	has_line 'largest datagram that passes: 65507 bytes, MTU 65535'
	run -3 probe --mtu echo "127.0.0.1:$(free_port)"
	has 'Connection refused'
	start_server datagrams swallow
	run -1 probe --mtu -W 0.1 echo "127.0.0.1:$PORT"
	has 'no answer to 3 tries'
}
