#!/usr/bin/env bats
# smallprobe through a relay that injects faults: each fault is counted as its kind.

load helpers

# start_relay PROTOCOL FAULT...: starts a relay in front of an echo service and sets RELAY to its port.
start_relay() {
	start_daemon <<-END
		[daemon]
		workers = 1
		[echo]
		address = 127.0.0.1
		port = 0
	END
	python_server relay.out relay.py "$1" "$(port_of echo "$1")" counts "${@:2}"
	RELAY=$SERVER_PORT
}

# ping STATUS ARGUMENTS...: runs smallprobe through the relay; writes its JSON to `result`.
ping() {
	local expected=$1 status=0
	shift
	smallprobe --json -i 0.005 "$@" echo "127.0.0.1:$RELAY" >result 2>errors || status=$?
	[[ $status == "$expected" ]] || {
		cat result errors
		fail "exit status $status, not $expected"
	}
}

# Compares the result with the counts of the relay.
compare() {
	kill -TERM "$HELPER"
	wait_for_helper relay.out
	python relay.py compare "$BATS_TEST_TMPDIR/counts" "$BATS_TEST_TMPDIR/result"
}

# assert_counts EXPRESSION: checks a Python expression of the counts c of the relay and the result r.
assert_counts() {
	python3 -c 'import json, sys
c, r = (json.load(open(name)) for name in ("counts", "result"))
assert eval(sys.argv[1]), (sys.argv[1], c, r)' "$1"
}

@test "relay: a relay without faults gives a result without faults" {
	start_relay udp
	ping 0 -u -c 100 -W "$DEADLINE"
	compare
	assert_counts 'c["sent"] == c["received"] == 100 and c["faults"] == {}'
}

@test "relay: lost requests and replies are counted as lost" {
	start_relay udp request:lose:2 request:lose:3 reply:lose:5 reply:lose:20
	ping 1 -u -c 100 -W 3
	compare
	assert_counts 'r["lost"] == 4 and r["loss_percent"] == 4 and c["faults"] == {"lose": 4}'
}

@test "relay: duplicated requests and replies are counted as duplicates" {
	start_relay udp request:double:2 reply:double:5 reply:double:30
	ping 0 -u -c 100 -W "$DEADLINE"
	compare
	assert_counts 'r["duplicated"] == 3 and r["lost"] == 0'
}

@test "relay: swapped requests and replies are counted as reordered once each" {
	start_relay udp request:swap:2 reply:swap:10 reply:swap:50
	ping 0 -u -c 100 -W "$DEADLINE"
	compare
	assert_counts 'r["reordered"] == 3 and r["lost"] == 0'
}

@test "relay: a flipped bit in any field is counted as corruption of that reply" {
	# in the sequence number, the time, the checksum and the pattern, in requests and replies
	start_relay udp reply:flip:2=0 reply:flip:4=7 reply:flip:6=63 request:flip:8=64 reply:flip:10=130 request:flip:12=200 \
		reply:flip:14=447
	ping 1 -u -c 60 -W "$DEADLINE"
	compare
	assert_counts 'r["corrupted"] == 7 and r["lost"] == 0 and r["unexpected"] == 0'
}

@test "relay: a truncated request or reply is counted as corrupted" {
	start_relay udp reply:cut:2=55 reply:cut:4=24 request:cut:6=20
	ping 1 -u -c 60 -W "$DEADLINE"
	compare
	assert_counts 'r["corrupted"] == 3 and r["lost"] == 0'
}

@test "relay: a reply from another port is counted as a wrong source" {
	start_relay udp reply:other_port:3 reply:other_port:7
	ping 1 -u -c 60 -W "$DEADLINE"
	compare
	assert_counts 'r["wrong_source"] == 2 and r["lost"] == 0'
}

@test "relay: a delayed reply is counted as late and not as lost" {
	# 500 requests take 2.5 s, so the delayed reply arrives before the summary
	start_relay udp reply:delay:3=1500
	ping 0 -u -c 500 -W 1
	compare
	assert_counts 'r["late"] >= 1 and r["reordered"] >= 1 and r["lost"] == 0'
}

@test "relay: a random mix of faults is counted exactly" {
	local seed=$((BATS_TEST_NUMBER + 40))
	start_relay udp "random:$seed:200"
	ping 1 -u -c 260 -W 3
	compare
	assert_counts 'all(c[name] > 0 for name in ("lost", "duplicated", "reordered", "corrupted"))'
}

@test "relay: the output names the reply of each fault" {
	start_relay udp reply:double:2 reply:swap:4 reply:flip:7=240 reply:lose:9
	run -1 smallprobe -u -c 30 -i 0.005 -W 2 echo "127.0.0.1:$RELAY"
	grep -qE '^56 bytes from .* seq=2 .* duplicate$' <<<"$output"
	grep -qE '^56 bytes from .* seq=4 .* reordered$' <<<"$output"
	grep -qE '^56 bytes from .* seq=7 .* corrupted at byte 30$' <<<"$output"
	grep -qx 'timeout seq=9' <<<"$output"
}

@test "relay: a flipped bit in a TCP stream is counted as corruption of its reply" {
	start_relay tcp reply:flip:570=1 request:flip:1130=2
	ping 1 -c 60 -W "$DEADLINE"
	kill -TERM "$HELPER"
	wait_for_helper relay.out
	assert_counts 'r["corrupted"] == c["corrupted"] == 2 and r["received"] == 60 and r["lost"] == 0'
}

@test "relay: a TCP connection that stalls and continues loses no reply" {
	start_relay tcp reply:delay:570=700
	ping 0 -c 60 -W "$DEADLINE"
	kill -TERM "$HELPER"
	wait_for_helper relay.out
	assert_counts 'r["received"] == 60 and r["rtt_ms"]["max"] >= 690 and c["faults"] == {"delay": 1}'
}

@test "relay: with --reconnect the run continues after a reset of the TCP connection" {
	start_relay tcp reply:reset:570
	ping 1 -c 60 -W "$DEADLINE" --reconnect
	kill -TERM "$HELPER"
	wait_for_helper relay.out
	assert_counts 'c["faults"] == {"reset": 1} and r["sent"] == 60 and 0 < r["lost"] < 60 and r["received"] + r["lost"] == 60'
}
