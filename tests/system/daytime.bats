#!/usr/bin/env bats
# daytime, RFC 867: one line, then the close.
# shellcheck disable=SC2034 # helpers.bash uses RUNNER

load helpers

days='(Mon|Tue|Wed|Thu|Fri|Sat|Sun)'
months='(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)'
clock='([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)'

# Starts a daemon with the given lines in [daytime].
start_daytime() {
	start_daemon <<-END
		[daemon]
		workers = 2
		[daytime]
		address = 127.0.0.1
		port = 0
		$(printf '%s\n' "$@")
	END
}

# Writes the replies over TCP and UDP to reply.tcp and reply.udp.
ask_both() {
	netcat -N 127.0.0.1 "$(port_of daytime tcp)" </dev/null >reply.tcp
	netcat -u -W 1 127.0.0.1 "$(port_of daytime udp)" <<<"" >reply.udp
	[[ -s reply.tcp && -s reply.udp ]]
}

# Checks that both replies, with line ends written as \r and \n, match the extended regular expression as a whole.
replies_match() {
	local file text
	for file in reply.tcp reply.udp; do
		text=$(python bytes.py visible "$file")
		[[ $text =~ ^$1$ ]] || fail "$file: $text"
	done
}

# Checks that DATE, in a format of date(1), is the current time.
is_now() {
	local age
	age=$(($(date -u +%s) - $(date -u -d "$1" +%s)))
	((age >= -1 && age <= DEADLINE)) || fail "it is $(date -u), not $1"
}

@test "daytime: the default format is ctime, 26 bytes with CR LF at the end" {
	start_daytime 'timezone = utc'
	ask_both
	replies_match "$days $months ( [1-9]|[12][0-9]|3[01]) $clock [0-9]{4}\\\\r\\\\n"
	[[ $(wc -c <reply.tcp) == 26 && $(wc -c <reply.udp) == 26 ]]
	is_now "$(tr -d '\r' <reply.tcp) UTC"
	is_now "$(tr -d '\r' <reply.udp) UTC"
}

@test "daytime: format = rfc3339 has microseconds, and Z for UTC" {
	start_daytime 'format = rfc3339' 'timezone = utc'
	ask_both
	replies_match "[0-9]{4}-[01][0-9]-[0-3][0-9]T$clock\\.[0-9]{6}Z\\\\r\\\\n"
	is_now "$(tr -d '\r' <reply.tcp)"
}

@test "daytime: format = smtp is the second example of RFC 867" {
	start_daytime 'format = smtp' 'timezone = utc'
	ask_both
	replies_match "[0-3][0-9] (JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC) [0-9]{4} $clock UTC\\\\r\\\\n"
	is_now "$(tr -d '\r' <reply.tcp)"
}

@test "daytime: format = nist has the fields of NIST between two line ends, under a label of its own" {
	start_daytime 'format = nist'
	ask_both
	replies_match "\\\\n[0-9]{5} [0-9]{2}-[01][0-9]-[0-3][0-9] $clock [0-9]{2} [0-2] [0-9] [ 0-9]{1,3}[0-9]\\.[0-9] UTC\\([A-Za-z0-9_.-]+\\) [*#] ?\\\\n"
	run ! grep -q 'UTC(NIST)' reply.tcp
	local mjd day time
	read -r mjd day time _ < <(tail -n +2 reply.tcp)
	is_now "20$day $time UTC"
	[[ $mjd == $(($(date -u -d "20$day" +%s) / 86400 + 40587)) ]]
}

@test "daytime: a strftime format may contain ; and #" {
	start_daytime 'format = "%Y ; %m # %d, at %H"' 'timezone = utc'
	ask_both
	replies_match '[0-9]{4} ; [01][0-9] # [0-3][0-9], at [0-2][0-9]\\r\\n'
}

@test "daytime: timezone = Asia/Kolkata gives the local time of that zone" {
	[[ -e /usr/share/zoneinfo/Asia/Kolkata ]] || skip "this host has no tz database"
	start_daytime 'format = rfc3339' 'timezone = Asia/Kolkata'
	ask_both
	replies_match "[0-9]{4}-[01][0-9]-[0-3][0-9]T$clock\\.[0-9]{6}\\+05:30\\\\r\\\\n"
	is_now "$(tr -d '\r' <reply.tcp)"
	is_now "$(tr -d '\r' <reply.udp)"
}

@test "daytime: the default timezone is that of the variable TZ" {
	RUNNER=(env TZ=XST+3:30)
	start_daytime 'format = rfc3339'
	ask_both
	replies_match "[0-9]{4}-[01][0-9]-[0-3][0-9]T$clock\\.[0-9]{6}-03:30\\\\r\\\\n"
	is_now "$(tr -d '\r' <reply.tcp)"
}

@test "daytime: the second of two replies has a later time" {
	start_daytime 'format = rfc3339'
	local port first second
	port=$(port_of daytime tcp)
	first=$(netcat -N 127.0.0.1 "$port" </dev/null)
	second=$(netcat -N 127.0.0.1 "$port" </dev/null)
	[[ $second > $first ]]
}

@test "daytime: each datagram of a burst gets a line, an empty datagram too" {
	start_daytime
	python services.py replies 127.0.0.1 "$(port_of daytime udp)" 100
}

@test "daytime: 500 clients that send junk first get 500 replies" {
	start_daytime
	local port replies
	port=$(port_of daytime tcp)
	junk() {
		printf 'unexpected input\n' | timeout "$DEADLINE" nc -N 127.0.0.1 "$2" || echo "$1: status $?"
	}
	export -f junk
	seq 500 | xargs -P 8 -I{} bash -c 'junk "$@"' junk {} "$port" >replies
	replies=$(grep -cE "^$days $months .*[0-9]{4}"$'\r$' replies || true)
	[[ $replies == 500 && $(wc -l <replies) == 500 ]] || fail "$replies replies"
}

@test "daytime: 100 clients that send 32 KiB first get their reply and an orderly close" {
	start_daytime
	python services.py junk_first 127.0.0.1 "$(port_of daytime tcp)" 100 32768
}

@test "daytime: a client that keeps sending is closed after its reply" {
	start_daytime
	python services.py keeps_sending 127.0.0.1 "$(port_of daytime tcp)"
}

@test "daytime: a client that stays connected without sending is closed after its reply" {
	start_daytime 'log_connections = yes'
	python services.py stays 127.0.0.1 "$(port_of daytime tcp)"
	wait_for_log 'daytime.*127\.0\.0\.1'
}
