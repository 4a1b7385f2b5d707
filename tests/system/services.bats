#!/usr/bin/env bats
# discard, qotd, chargen and time over both transports. echo.bats and daytime.bats test the other services.

load helpers

start_service() {
	start_daemon <<-END
		[daemon]
		workers = 2
		[$1]
		address = 127.0.0.1
		port = 0
		$(printf '%s\n' "${@:2}")
		[fence]
		type = echo
		protocol = udp
		address = 127.0.0.1
		port = 0
	END
}

@test "discard: tcp reads all input, sends no reply and closes after the client's FIN" {
	start_service discard
	python services.py discards 127.0.0.1 "$(port_of discard tcp)" 1048576
}

@test "discard: tcp reads 64 MiB from netcat" {
	start_service discard
	run -0 netcat -N 127.0.0.1 "$(port_of discard tcp)" < <(head -c 64M /dev/zero)
	[[ -z $output ]]
}

@test "discard: udp sends no reply" {
	start_service discard
	python services.py unanswered 127.0.0.1 "$(port_of discard udp)" 127.0.0.1 "$(port_of fence udp)"
}

@test "chargen: tcp sends lines of 72 characters from the ring of 95" {
	start_service chargen
	python services.py stream 127.0.0.1 "$(port_of chargen tcp)" 20000
}

@test "chargen: netcat receives the first lines" {
	start_service chargen
	netcat -d 127.0.0.1 "$(port_of chargen tcp)" | head -c 148 >lines || true
	[[ $(python bytes.py visible lines) == *'fg\r\n!"#'*'gh\r\n' ]]
}

@test "chargen: tcp discards input and closes when the client closes" {
	start_service chargen 'log_connections = yes'
	python services.py discards_input 127.0.0.1 "$(port_of chargen tcp)"
	wait_for_log 'chargen.*127\.0\.0\.1.*(client|reset)'
}

@test "chargen: a udp reply is at most as long as its request and at most 512 bytes" {
	start_service chargen
	python services.py bounded 127.0.0.1 "$(port_of chargen udp)"
}

@test "time: tcp sends the seconds since 1900 and closes" {
	start_service time
	python services.py seconds tcp 127.0.0.1 "$(port_of time tcp)"
}

@test "time: udp sends the seconds since 1900, also for an empty datagram" {
	start_service time
	python services.py seconds udp 127.0.0.1 "$(port_of time udp)"
}

@test "time: netcat receives four bytes whether it sends data or not" {
	start_service time
	netcat -N 127.0.0.1 "$(port_of time tcp)" <<<"time, please" >reply
	[[ $(wc -c <reply) == 4 ]]
	netcat -u -W 1 127.0.0.1 "$(port_of time udp)" <<<"time, please" >reply
	[[ $(wc -c <reply) == 4 ]]
}

@test "qotd: tcp and udp send each quotation of the file after some requests" {
	printf 'The first.\n%%\nThe second,\nof two lines.\n%%\n' >quotes
	start_service qotd "quotes_file = $BATS_TEST_TMPDIR/quotes"
	local transport
	for transport in tcp udp; do
		python services.py quotations "$transport" 127.0.0.1 "$(port_of qotd "$transport")" 60 >received
		run -0 sort -u received
		[[ $output == $'%\nThe first.\nThe second,\nof two lines.' ]]
	done
}

@test "qotd: the shipped quotations are shorter than 512 bytes" {
	start_service qotd "quotes_file = $TESTS_SRCDIR/../etc/quotes" 'datagram_rate = unlimited'
	python services.py quotations tcp 127.0.0.1 "$(port_of qotd tcp)" 200 >/dev/null
	python services.py quotations udp 127.0.0.1 "$(port_of qotd udp)" 200 >/dev/null
}

@test "qotd: clients that send data first get their quotation and an orderly close" {
	printf 'The only one.\n' >quotes
	start_service qotd "quotes_file = $BATS_TEST_TMPDIR/quotes"
	python services.py junk_first 127.0.0.1 "$(port_of qotd tcp)" 50 32768
}

@test "qotd: a missing quotes_file is a configuration error" {
	run -2 "$SMALLSERVD" -t -c - <<-END
		[qotd]
		quotes_file = $BATS_TEST_TMPDIR/missing
	END
	[[ $output == *'[qotd] quotes_file: '*missing* ]]
}
