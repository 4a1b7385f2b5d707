#!/usr/bin/env bats
# discard, qotd, chargen and time over both transports (daytime and echo have files of their own).

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

@test "discard: tcp takes what comes, never answers, and ends when the client ends" {
	start_service discard
	python services.py discards 127.0.0.1 "$(port_of discard tcp)" 1048576
}

@test "discard: tcp takes 64 MiB from netcat" {
	start_service discard
	run -0 netcat -N 127.0.0.1 "$(port_of discard tcp)" < <(head -c 64M /dev/zero)
	[[ -z $output ]]
}

@test "discard: udp never answers" {
	start_service discard
	python services.py unanswered 127.0.0.1 "$(port_of discard udp)" 127.0.0.1 "$(port_of fence udp)"
}

@test "chargen: tcp sends lines of 72 characters from the ring of 95" {
	start_service chargen
	python services.py stream 127.0.0.1 "$(port_of chargen tcp)" 20000
}

@test "chargen: netcat gets the first lines" {
	start_service chargen
	netcat -d 127.0.0.1 "$(port_of chargen tcp)" | head -c 148 >lines || true
	[[ $(python bytes.py visible lines) == *'fg\r\n!"#'*'gh\r\n' ]]
}

@test "chargen: tcp throws input away, and ends when the client closes" {
	start_service chargen 'log_connections = yes'
	python services.py hears_nothing_of_input 127.0.0.1 "$(port_of chargen tcp)"
	wait_for_log 'chargen.*127\.0\.0\.1.*(client|reset)'
}

@test "chargen: a udp reply is never longer than its request, and never over 512 bytes" {
	start_service chargen
	python services.py bounded 127.0.0.1 "$(port_of chargen udp)"
}

@test "time: tcp sends the seconds since 1900 and ends" {
	start_service time
	python services.py seconds tcp 127.0.0.1 "$(port_of time tcp)"
}

@test "time: udp sends the seconds since 1900, also for an empty datagram" {
	start_service time
	python services.py seconds udp 127.0.0.1 "$(port_of time udp)"
}

@test "time: netcat gets four bytes, whatever it sent" {
	start_service time
	netcat -N 127.0.0.1 "$(port_of time tcp)" <<<"what time is it?" >reply
	[[ $(wc -c <reply) == 4 ]]
	netcat -u -W 1 127.0.0.1 "$(port_of time udp)" <<<"what time is it?" >reply
	[[ $(wc -c <reply) == 4 ]]
}

@test "qotd: both transports tell quotations of the file, in time each of them" {
	printf 'The first.\n%%\nThe second,\nof two lines.\n%%\n' >quotes
	start_service qotd "quotes_file = $BATS_TEST_TMPDIR/quotes"
	local transport
	for transport in tcp udp; do
		python services.py quotations "$transport" 127.0.0.1 "$(port_of qotd "$transport")" 60 >told
		run -0 sort -u told
		[[ $output == $'%\nThe first.\nThe second,\nof two lines.' ]]
	done
}

@test "qotd: the quotations that are shipped are each under 512 bytes" {
	start_service qotd "quotes_file = $TESTS_SRCDIR/../etc/quotes" 'datagram_rate = unlimited'
	python services.py quotations tcp 127.0.0.1 "$(port_of qotd tcp)" 200 >/dev/null
	python services.py quotations udp 127.0.0.1 "$(port_of qotd udp)" 200 >/dev/null
}

@test "qotd: clients that send junk first get their quotation and an orderly end" {
	printf 'The only one.\n' >quotes
	start_service qotd "quotes_file = $BATS_TEST_TMPDIR/quotes"
	python services.py junk_first 127.0.0.1 "$(port_of qotd tcp)" 50 32768
}

@test "qotd: a file of quotations that is not there is an error of the configuration" {
	run -2 "$SMALLSERVD" -t -c - <<-END
		[qotd]
		quotes_file = $BATS_TEST_TMPDIR/missing
	END
	[[ $output == *'[qotd] quotes_file: '*missing* ]]
}
