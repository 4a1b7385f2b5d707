#!/usr/bin/env bats
# smallprobe as a load generator: many requests at once, every byte of the replies checked.

load helpers
load certificates
load counters

start_echo() {
	start_daemon <<-END
		[daemon]
		workers = 2
		[echo]
		address = ${1:-127.0.0.1}
		port = 0
	END
	TCP=$(port_of echo tcp)
	UDP=$(port_of echo udp)
}

# load_result STATUS ARGUMENTS...: runs a load; writes its JSON to `result` and its errors to `errors`.
load_result() {
	local expected=$1 status=0
	shift
	smallprobe -W "$DEADLINE" --json echo "$@" >result 2>errors || status=$?
	[[ $status == "$expected" ]] || {
		cat result errors
		fail "exit status $status, not $expected"
	}
	grep -q "\"exit_status\": $expected}\$" result
}

# Starts a load in the background with the default action for SIGINT, which a shell ignores in background processes.
start_probe() {
	: >result
	env --default-signal=INT "$SMALLPROBE" echo "$@" >result 2>errors 3>&- 4>&- &
	PROBE=$!
	BACKGROUND+=("$PROBE")
}

# assert_members NAME=VALUE...: checks members of the result.
assert_members() {
	python3 -c 'import functools, json, sys
result = json.load(open("result"))
for pair in sys.argv[1:]:
    name, wanted = pair.split("=")
    value = functools.reduce(lambda at, part: at[part], name.split("."), result)
    if str(value) != wanted:
        sys.exit(f"{name} is {value}, not {wanted}: {result}")' "$@" || {
		cat errors
		return 1
	}
}

all_answered() {
	assert_members "sent=$1" "received=$1" lost=0 in_flight=0 duplicated=0 corrupted=0 unexpected=0 broken=0 error=None
}

start_relay() {
	python_server relay.out relay.py "$@"
	RELAY=$SERVER_PORT
}

end_relay() {
	kill -TERM "$HELPER"
	wait_for_helper relay.out
}

@test "load: requests over TCP are all answered, on several connections with several in flight" {
	start_echo
	load_result 0 "127.0.0.1:$TCP" -c 2000 --connections 5 --depth 3
	all_answered 2000
	assert_members sent_bytes=112000 received_bytes=112000 transport=tcp load.connections=5 load.depth=3
}

@test "load: requests over UDP are all answered, one in flight or many" {
	start_echo
	local how
	for how in "--connections 7" "--connections 3 --depth 16 --batch 4" "--depth 40 --batch 1" "--depth 2 --batch 64"; do
		# shellcheck disable=SC2086 # these are several words
		load_result 0 "127.0.0.1:$UDP" -u -c 2000 $how
		all_answered 2000
	done
	assert_members transport=udp
}

@test "load: requests over IPv6 are all answered" {
	need_ipv6
	start_echo ::1
	load_result 0 "[::1]:$TCP" -c 500 --connections 3
	all_answered 500
	load_result 0 "[::1]:$UDP" -u -c 500 --connections 3
	all_answered 500
	assert_members "peer=[::1]:$UDP"
}

@test "load: threads share connections and requests" {
	start_echo
	load_result 0 "127.0.0.1:$TCP" -c 1001 --connections 7 --threads 3
	all_answered 1001
	load_result 0 "127.0.0.1:$UDP" -u -c 1001 --connections 7 --threads 3
	all_answered 1001
	# there are at most as many threads as connections
	load_result 0 "127.0.0.1:$TCP" -c 10 --connections 2 --threads 5
	assert_members sent=10 load.threads=2
}

start_tls() {
	need_programs openssl
	PKI=$BATS_TEST_TMPDIR/pki
	mkdir "$PKI"
	make_authority lab
	sign lab server server
	cat "$PKI/server.pem" "$PKI/server.key" >both.pem
	chmod 600 both.pem
	start_daemon <<-END
		[daemon]
		workers = 2
		[defaults]
		protocol = tcp
		address = 127.0.0.1
		port = 0
		[echo]
		tls = yes
		tls_certificate = $BATS_TEST_TMPDIR/both.pem
		[proxied]
		type = echo
		proxy_protocol = on
		proxy_from = 127.0.0.1
		[both]
		type = echo
		proxy_protocol = on
		proxy_from = 127.0.0.1
		tls = yes
		tls_certificate = $BATS_TEST_TMPDIR/both.pem
	END
}

@test "load: requests over TLS are all answered, and an untrusted certificate is refused" {
	start_tls
	local port
	port=$(port_of echo tcp)
	load_result 0 "127.0.0.1:$port" -c 500 --connections 5 --depth 3 --threads 2 --tls --cacert "$PKI/lab.pem"
	all_answered 500
	assert_members transport=tls
	load_result 0 "127.0.0.1:$port" -c 10 -s 300000 --connections 2 --depth 2 --tls --cacert "$PKI/lab.pem"
	all_answered 10
	# each connection had a close_notify: none is counted as truncated
	await_counters echo tcp 'accepted=7( closed\{(client|reset)\}=[0-9]+)+'
	load_result 0 "127.0.0.1:$port" -c 10 --connections 2 --tls -k
	load_result 1 "127.0.0.1:$port" -c 10 --connections 2 --tls
	assert_members sent=0
	grep -qE "^smallprobe: connect to 127.0.0.1:$port: the certificate: " errors
}

@test "load: connections begin with a PROXY header of either version, with and without TLS" {
	start_tls
	local version
	for version in v1 v2; do
		load_result 0 "127.0.0.1:$(port_of proxied tcp)" -c 200 --connections 5 --proxy "$version"
		all_answered 200
		load_result 0 "127.0.0.1:$(port_of both tcp)" -c 200 --connections 5 --proxy "$version" --tls --cacert "$PKI/lab.pem"
		all_answered 200
	done
	# without a header the service refuses the connection
	load_result 1 "127.0.0.1:$(port_of proxied tcp)" -c 200 --connections 2
}

@test "load: messages of 1 byte and of 1 MiB come back whole over TCP" {
	start_echo
	load_result 0 "127.0.0.1:$TCP" -c 300 -s 1 --connections 2 --depth 20
	assert_members received=300 received_bytes=300
	load_result 0 "127.0.0.1:$TCP" -c 30 -s 1048576 --connections 3 --depth 2
	assert_members received=30 received_bytes=31457280
}

@test "load: datagrams of 0, 1 and 65507 bytes come back whole" {
	start_echo
	load_result 0 "127.0.0.1:$UDP" -u -c 30 -s 0 --connections 2
	assert_members received=30 received_bytes=0 lost=0
	load_result 0 "127.0.0.1:$UDP" -u -c 300 -s 1 --connections 2 --depth 4
	assert_members received=300 lost=0
	load_result 0 "127.0.0.1:$UDP" -u -c 30 -s 65507 --connections 2
	assert_members received=30 lost=0
}

@test "load: --duration and --deadline end the run" {
	start_echo
	load_result 0 "127.0.0.1:$TCP" --duration 300ms --connections 2
	python3 -c 'import json
r = json.load(open("result"))
assert r["received"] > 0 and r["elapsed_s"] >= 0.3 and r["load"]["duration_s"] == 0.3, r'
	# --deadline ends the run too
	load_result 0 "127.0.0.1:$TCP" -w 200ms --connections 2
}

@test "load: with --rate requests are sent when they are due" {
	start_echo
	load_result 0 "127.0.0.1:$TCP" --rate 200 -c 41 --connections 3 --depth 100
	all_answered 41
	python3 -c 'import json
r = json.load(open("result"))
assert r["elapsed_s"] >= 0.2 and r["load"]["rate"] == 200, r'
	load_result 0 "127.0.0.1:$UDP" -u --rate 200 -c 41 --connections 3 --depth 100
	all_answered 41
}

@test "load: with --rate a stall counts for all requests that were due in it" {
	start_echo
	# a second of silence before reply 11 of 56 bytes: 200 requests are due in that second
	start_relay tcp "$TCP" counts reply:delay:561=1000
	load_result 0 "127.0.0.1:$RELAY" --rate 200 -c 250 --depth 1 -W 20
	all_answered 250
	python3 -c 'import json
r = json.load(open("result"))
slow = sum(row["count"] for row in r["histogram"] if row["from_ms"] >= 100)
assert slow >= 100, (slow, r)
assert r["rtt_ms"]["max"] >= 990, r'
	# without --rate each request waits for the reply before it, and one is slow
	start_relay tcp "$TCP" counts reply:delay:561=1000
	load_result 0 "127.0.0.1:$RELAY" -c 250 --depth 1 -W 20
	assert_members received=250
}

@test "load: with --rate due requests without a free slot are counted as behind" {
	start_echo
	# no reply arrives before the end of the run
	start_relay tcp "$TCP" counts reply:delay:1=60000
	load_result 1 "127.0.0.1:$RELAY" --rate 100 --duration 0.5 --depth 3 -W 0.2
	assert_members sent=3 received=0 lost=3 behind=47 stalls=1
}

@test "load: a silent connection and its recovery are reported during the run" {
	start_echo
	start_relay tcp "$TCP" counts reply:delay:5601=1500
	start_probe "127.0.0.1:$RELAY" -W 300ms --duration 100 --json
	wait_for_line errors "smallprobe: connection 1 to 127.0.0.1:$RELAY: no byte for [0-9.]+ m?s, 1 requests in flight"
	wait_for_line errors "smallprobe: connection 1 to 127.0.0.1:$RELAY: goes on after [0-9.]+ m?s"
	running "$PROBE"
	kill -INT "$PROBE"
	wait_until ended "$PROBE"
	wait "$PROBE" || true
	python3 -c 'import json
r = json.load(open("result"))
# one request is in flight at SIGINT; on a busy machine its reply may take longer than the timeout
assert r["stalls"] >= 1 and r["interrupted"] and r["late"] >= 1 and r["lost"] <= 1, r'
}

@test "load: a wrong byte over TCP is reported with its reply, and no other reply is wrong" {
	start_echo
	start_relay tcp "$TCP" counts reply:flip:5606=3
	load_result 1 "127.0.0.1:$RELAY" -c 500 --depth 4
	assert_members sent=500 received=500 lost=0 corrupted=1 unexpected=0
	grep -qx "smallprobe: connection 1 to 127.0.0.1:$RELAY: byte 6 of reply 101 is wrong" errors
}

@test "load: a reset connection is reported and the others continue" {
	start_echo
	start_relay tcp "$TCP" counts reply:reset:5601
	load_result 1 "127.0.0.1:$RELAY" -c 2000 --connections 3 --depth 2
	assert_members broken=1 corrupted=0
	grep -qE "connection [123] to 127.0.0.1:$RELAY: (Connection reset by peer|closed by the server), [12] requests in flight" errors
	python3 -c 'import json
r = json.load(open("result"))
assert r["received"] + r["lost"] == r["sent"] and 1 <= r["lost"] <= 2 and r["received"] >= 1900, r'
}

@test "load: lost, duplicated, reordered and corrupted datagrams of a faulty relay are counted exactly" {
	start_echo
	local seed
	for seed in 1 2; do
		start_relay udp "$UDP" "counts.$seed" "random:$seed:500"
		load_result 1 "127.0.0.1:$RELAY" -u -c 600 --depth 64 --batch 8 -W 3
		end_relay
		python relay.py compare "$BATS_TEST_TMPDIR/counts.$seed" "$BATS_TEST_TMPDIR/result"
		python3 -c 'import json, sys
counts = json.load(open(sys.argv[1]))
assert all(counts[name] > 0 for name in ("lost", "duplicated", "reordered", "corrupted")), counts
assert json.load(open("result"))["unexpected"] == 0' "counts.$seed"
	done
}

@test "load: loss up to --max-loss exits 0" {
	start_echo
	start_relay udp "$UDP" counts reply:lose:3 request:lose:7
	load_result 0 "127.0.0.1:$RELAY" -u -c 100 --depth 32 -W 1 --max-loss 2
	assert_members lost=2 loss_percent=2.0
	end_relay
	start_relay udp "$UDP" counts reply:lose:3 request:lose:7
	load_result 1 "127.0.0.1:$RELAY" -u -c 100 --depth 32 -W 1 --max-loss 1.9
}

@test "load: a closed port is reported once and exits 3" {
	local port how
	port=$(free_port)
	for how in "" "-u" "--connections 20 --threads 3"; do
		# shellcheck disable=SC2086 # none or several words
		run -3 --separate-stderr smallprobe echo "127.0.0.1:$port" --duration 5 --connections 2 $how
		[[ -z $output ]]
		# shellcheck disable=SC2154 # run sets it
		[[ $stderr == "smallprobe: connect to 127.0.0.1:$port: Connection refused" ]] || fail "$stderr"
	done
	load_result 3 "127.0.0.1:$port" --duration 5
	assert_members sent=0 "error=connect to 127.0.0.1:$port: Connection refused"
}

@test "load: --connections with a type other than echo is a usage error" {
	run -2 --separate-stderr smallprobe time 127.0.0.1:1 --connections 2
	[[ $stderr == "smallprobe: a load is for echo alone" ]]
}

@test "load: the first SIGINT ends the run with its result" {
	need_programs ss
	start_echo
	start_probe "127.0.0.1:$TCP" --duration 100 --connections 3
	wait_until connected 3 "$TCP"
	kill -INT "$PROBE"
	wait_until ended "$PROBE"
	wait "$PROBE"
	grep -qE '^[0-9.]+ s \(interrupted\), ' result
	[[ ! -s errors ]]
}

@test "load: SIGINT ends the run while connections are being opened" {
	need_programs ss
	# a silent server, so that no handshake completes
	python_server server.out probe.py silent
	local port=$SERVER_PORT
	start_probe "127.0.0.1:$port" --tls -k -W 1h --connections 2 --rate 100 --json
	wait_until connected 2 "$port"
	kill -INT "$PROBE"
	wait_until ended "$PROBE"
	local status=0
	wait "$PROBE" || status=$?
	[[ $status == 1 ]]
	assert_members sent=0 behind=0 interrupted=True "error=connect to 127.0.0.1:$port: not done at the end"
}

# connected COUNT PORT: true if PORT has COUNT established connections.
connected() {
	[[ $(ss -Htn state established "sport = :$2" | wc -l) == "$1" ]]
}

@test "load: text output has a histogram of all requests, and no progress line in a file" {
	start_echo
	smallprobe echo "127.0.0.1:$TCP" -c 500 --connections 2 >result 2>errors
	[[ ! -s errors ]]
	grep -qx '500 sent, 500 received, 0 lost (0%)' result
	grep -qE '^rtt min/avg/max/mdev = ([0-9.]+/){3}[0-9.]+ ms$' result
	grep -qE '^median [0-9.]+ ms, p90 [0-9.]+ ms, p99 [0-9.]+ ms, p99.9 [0-9.]+ ms$' result
	[[ $(awk '$1 == "from" { sum += $4 } END { print sum }' result) == 500 ]]
	[[ $(awk '$1 == "from" { last = $5 } END { print last }' result) == "100.000%" ]]
}

@test "load: a terminal shows a progress line" {
	need_programs script
	start_echo
	script -qec "'$SMALLPROBE' echo 127.0.0.1:$TCP --duration 1 --connections 2" /dev/null >typescript </dev/null
	tr '\r' '\n' <typescript >lines
	grep -qE '\[#* *\] [0-9.]+ s  [0-9]+ requests/s  lost 0%  p99 [0-9.]+ [mun]?s' lines
	grep -q 'received, 0 lost' lines
}
