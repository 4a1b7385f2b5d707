#!/usr/bin/env bats
# The bench: daemon and references do the same work, wrong answers are detected, and system calls are counted.
# shellcheck disable=SC2030,SC2031,SC2034 # a test and helpers.bash share their variables, each test has its own

load helpers

BUILD=$(cd "$(dirname "$SMALLSERVD")" && pwd)

need_bench() {
	[[ -x $BUILD/bench/load && -x $BUILD/bench/reference ]] || skip "the bench is not built (make bench)"
	unset NOTIFY_SOCKET
}

# Datagrams are lost if the kernel caps the requested buffers.
need_large_buffers() {
	is_root || (($(cat /proc/sys/net/core/rmem_max) >= 1048576)) || skip "net.core.rmem_max is too small for this user"
}

bench() {
	timeout $((DEADLINE * 8)) python3 "$TESTS_SRCDIR/../bench/run" --build "$BUILD" "$@"
}

@test "bench: the daemon and the references are given the same work over TCP" {
	need_bench
	bench check --only tcp-64 tcp-64-edges tcp-4k tcp-4k-open tcp-bulk connect-echo connect-daytime >out
	[[ $(grep -c 'the same for both' out) == 7 ]]
}

@test "bench: the daemon and the reference are given the same work inside TLS" {
	need_bench
	need_programs openssl
	bench check --only tls-64 tls-bulk >out
	[[ $(grep -c 'the same for both' out) == 2 ]]
}

@test "bench: the daemon and the references are given the same work over UDP" {
	need_bench
	need_large_buffers
	bench check --only udp-64 udp-64-any udp-64-price udp-one udp-one-open udp-trains >out
	[[ $(grep -c 'the same for both' out) == 6 ]]
}

# build_other COUNT: makes a build `other`; its load generator sends a byte more in each message after COUNT runs.
build_other() {
	mkdir -p other/bench
	ln -s "$BUILD/smallservd" other/smallservd
	ln -s "$BUILD/bench/reference" other/bench/reference
	ln -s "$BUILD/bench/tls_reference" other/bench/tls_reference
	cat >other/bench/load <<-END
		#!/bin/sh
		echo >>"$PWD/loads"
		if [ "\$(wc -l <"$PWD/loads")" -gt $1 ]; then
			set -- "\$@" -s 65
		fi
		exec "$BUILD/bench/load" "\$@"
	END
	chmod +x other/bench/load
}

@test "bench: check fails when the reference does other work than the daemon" {
	need_bench
	build_other 1
	run -1 bench --build other check --only tcp-64
	[[ $output == *"different work: sent_bytes 32000 for the daemon, 32500 for the reference"* ]]
}

@test "bench: a failed workload is reported at the end and the other workloads are measured" {
	need_bench
	build_other 2 # the runs of the daemon, with its warm-up
	run -1 bench --build other quick --only tcp-64-open tcp-64-edges
	[[ $output == *"FAILED:   and sandbox = off: different work: sent_bytes "* ]]
	[[ $output =~ "edge-triggered reference"\ +[0-9]+\ +[0-9]+\ +[0-9]\.[0-9]+ ]]
	grep -q '"failures": \[$' other/bench/results/bench.json
}

@test "bench: the load generator detects a single wrong byte" {
	need_bench
	python_background port wrong_echo.py 5000
	wait_for_line port '[0-9]+'
	run -1 timeout "$DEADLINE" "$BUILD/bench/load" --pid "$HELPER" --timeout "$DEADLINE" -c1 -s64 -o200 tcp-echo \
		"127.0.0.1:$(cat port)"
	[[ $output == *"wrong bytes on connection 0 near its byte 4"* ]]
}

# One receive, one send and a share of an epoll_wait for each message: no clock, no timer, no epoll_ctl, no setsockopt.
@test "bench: a message costs one receive call, one send call and no other system call" {
	need_bench
	need_programs strace
	need_large_buffers
	! sanitized || skip "a sanitizer makes system calls of its own"
	run bench syscalls
	[[ $output != *"strace cannot attach"* ]] || skip "strace may not attach here"
	echo "$output"
	[[ $status == 0 ]]
	[[ $output =~ tcp-64\ +.*recvfrom\ 1\.0 && $output =~ tcp-64\ +.*sendto\ 1\.000 ]]
	[[ $output =~ udp-one\ +.*sendto\ 1\.000 && $output =~ udp-64\ +.*sendmmsg ]]
}
