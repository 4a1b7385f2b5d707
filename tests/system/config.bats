#!/usr/bin/env bats
# The command line and the configuration: accepted input, errors and their messages.

load helpers

# Writes standard input to test.conf and runs --check on it. Sets status and output.
check() {
	cat >test.conf
	check_again
}

check_again() {
	run timeout "$DEADLINE" "$SMALLSERVD" -t -c test.conf
}

accepts() {
	check
	[[ $status == 0 ]] || fail "exit status $status: $output"
}

# Checks that the configuration on standard input has exactly one error, on line LINE and, if WHERE is not empty, in
# WHERE, `[SECTION] KEY`. The text of the error matches the extended regular expression PATTERN.
refuses() {
	local line=$1 where=$2 pattern=${3:-.}
	check
	[[ $status == 2 ]] || fail "exit status $status: $output"
	errors=$(grep -vE '^[^:]+:[0-9]+: warning: ' <<<"$output" || true)
	[[ $(wc -l <<<"$errors") == 1 ]] || fail "not one error: $errors"
	[[ $errors == "test.conf:$line: "* ]] || fail "not of line $line: $errors"
	[[ -z $where || $errors == "test.conf:$line: $where: "* ]] || fail "not of $where: $errors"
	[[ ${errors#"test.conf:$line: "} =~ $pattern ]] || fail "not $pattern: $errors"
}

# Writes the effective configuration of test.conf to the file dump.
dump() {
	run -0 --separate-stderr timeout "$DEADLINE" "$SMALLSERVD" -T -c test.conf
	# shellcheck disable=SC2154 # run sets output
	printf '%s\n' "$output" >dump
}

# dumped KEY SECTION: prints a value of the file dump.
dumped() {
	awk -v section="[$2]" -v key="$1" '
		/^\[/ { here = $0 == section }
		here && index($0, key " = ") == 1 { print substr($0, length(key) + 4) }' dump
}

# The command line

@test "options: --help and --version are printed and exit 0" {
	local option
	for option in -h --help -V --version; do
		run -0 --separate-stderr "$SMALLSERVD" "$option"
		[[ -n $output && -z $stderr ]]
	done
	run -0 "$SMALLSERVD" -V
	[[ $output =~ ^smallservd\ [0-9]+\.[0-9]+ ]]
	run -0 "$SMALLSERVD" --help
	for option in --config --check --dump --list-types --verbose --version --help; do
		[[ $output == *"$option"* ]]
	done
}

@test "options: --list-types lists each type with its port, transports and RFC" {
	local option
	for option in -l --list-types; do
		run -0 --separate-stderr "$SMALLSERVD" "$option"
		local type port rfc
		while read -r type port rfc; do
			grep -iE "^$type( .*)? $port( .*)? tcp(,| ).*udp.*(RFC ?)?$rfc( |\$)" <<<"$output"
		done <<-END
			echo 7 862
			discard 9 863
			daytime 13 867
			qotd 17 865
			chargen 19 864
			time 37 868
		END
	done
}

@test "options: an unknown option or argument is an error and exits 2" {
	local arguments
	for arguments in --nonsense -Z --check=yes extra -c; do
		run -2 --separate-stderr "$SMALLSERVD" "$arguments"
		[[ -n $stderr && -z $output ]]
	done
}

@test "options: long names are equivalent to the short ones" {
	printf '[echo]\nport = 10007\n' >test.conf
	run -0 "$SMALLSERVD" --check --config test.conf
	run -0 "$SMALLSERVD" --check --config=test.conf
	run -0 --separate-stderr "$SMALLSERVD" --dump --config=test.conf
	[[ $output == *'port = 10007'* ]]
}

@test "options: -c - reads the configuration from standard input" {
	run -0 "$SMALLSERVD" -t -c - <<<'[echo]'
	run -2 "$SMALLSERVD" -t -c - <<<'[echo'
	[[ $output =~ :1:\  ]]
	start_daemon_from_stdin
	assert_echo tcp 127.0.0.1 "$(port_of echo tcp)"
}

start_daemon_from_stdin() {
	write_config conf.stdin <<-END
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = 0
	END
	LOG=log.stdin
	"$SMALLSERVD" -c - <conf.stdin >"$LOG" 2>&1 3>&- 4>&- &
	PID=$!
	STARTED+=("$PID")
	wait_for_log 'ready:'
}

# Files

@test "files: a missing configuration file is an error and exits 2" {
	run -2 "$SMALLSERVD" -t -c missing.conf
	[[ $output == *missing.conf*'No such file or directory'* ]]
	run -2 "$SMALLSERVD" -c missing.conf
	[[ $output == *missing.conf*'No such file or directory'* ]]
}

@test "files: a directory is an error, not an empty file" {
	mkdir directory
	run -2 "$SMALLSERVD" -t -c directory
	[[ $output == *directory* ]]
}

@test "files: a configuration file without read permission is an error" {
	local as=()
	printf '[echo]\n' >test.conf
	chmod 000 test.conf
	if is_root; then
		need_programs setpriv
		chmod go+x "$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR/test" .
		as=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
		"${as[@]}" test -x "$SMALLSERVD" || skip "the user nobody cannot execute $SMALLSERVD"
	fi
	run -2 "${as[@]}" "$SMALLSERVD" -t -c test.conf
	[[ $output == *test.conf*'Permission denied'* ]]
}

@test "files: the shipped configurations pass --check without output" {
	local file
	cd "$TESTS_SRCDIR/.."
	for file in smallservd.conf demo.conf; do
		[[ -e etc/$file ]]
		run -0 "$SMALLSERVD" -t -c "etc/$file"
		[[ -z $output ]]
	done
}

@test "files: --check by an ordinary user accepts a configuration for root" {
	local as=()
	if is_root; then
		need_programs setpriv
		as=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
		"${as[@]}" test -x "$SMALLSERVD" || skip "the user nobody cannot execute $SMALLSERVD"
	fi
	run -0 "${as[@]}" "$SMALLSERVD" -t -c - <<-END
		[daemon]
		user = root
		pid_file = /run/smallservd-no-such-directory/pid
		[echo]
		[daytime]
		interface = nosuch0
	END
}

@test "files: --check binds no port and writes no file" {
	python_server occupied occupy_port.py tcp 127.0.0.1 0
	accepts <<-END
		[daemon]
		pid_file = $BATS_TEST_TMPDIR/pid
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = $SERVER_PORT
	END
	[[ ! -e pid ]]
}

@test "files: include reads services from a glob that is relative to its own file" {
	mkdir -p etc/conf.d
	printf '[daemon]\ninclude = conf.d/*.conf\n[echo]\nport = 10007\n' >etc/main.conf
	printf '[one]\ntype = echo\nport = 10001\n' >etc/conf.d/one.conf
	printf '[two]\ntype = daytime\nport = 10002\n' >etc/conf.d/two.conf
	printf 'not read\n' >etc/conf.d/three.txt
	run -0 --separate-stderr "$SMALLSERVD" -T -c etc/main.conf
	printf '%s\n' "$output" >dump
	[[ $(dumped port echo) == 10007 && $(dumped port one) == 10001 && $(dumped port two) == 10002 ]]
	[[ $(dumped type two) == daytime ]]
}

@test "files: an error in an included file names that file and its line" {
	mkdir conf.d
	printf '\n[one]\ntype = echo\nprot = 10001\n' >conf.d/one.conf
	check <<-END
		[daemon]
		include = conf.d/*.conf
		[echo]
		prot = 7
	END
	[[ $status == 2 ]]
	grep -E '^test\.conf:4: \[echo\] prot: ' <<<"$output"
	grep -E '(^|/)conf\.d/one\.conf:4: \[one\] prot: ' <<<"$output"
}

@test "files: an included file with [daemon] or [defaults] is an error" {
	mkdir conf.d
	printf '[daemon]\nworkers = 1\n' >conf.d/one.conf
	check <<-END
		[daemon]
		include = conf.d/*.conf
		[echo]
	END
	[[ $status == 2 && $output == *'one.conf:1: [daemon]'* ]]
	printf '[defaults]\nidle_timeout = 1m\n' >conf.d/one.conf
	check_again
	[[ $status == 2 && $output == *'one.conf:1: [defaults]'* ]]
}

@test "files: a section name or an endpoint that occurs in two files is an error" {
	mkdir conf.d
	printf '[one]\ntype = echo\nport = 10001\n' >conf.d/a.conf
	printf '[one]\ntype = echo\nport = 10002\n' >conf.d/b.conf
	check <<-END
		[daemon]
		include = conf.d/*.conf
	END
	[[ $status == 2 && $output == *'conf.d/b.conf:1: [one]'* ]]
	printf '[two]\ntype = echo\nport = 10001\n' >conf.d/b.conf
	check_again
	[[ $status == 2 && $output == *'conf.d/b.conf:'*'[two]'* ]]
}

@test "files: an include pattern that matches a directory is an error" {
	mkdir -p conf.d/directory.conf
	check <<-END
		[daemon]
		include = conf.d/*.conf
		[echo]
	END
	[[ $status == 2 && $output == *directory.conf* ]]
}

# Errors

@test "errors: --check reports all errors, one a line" {
	check <<-'END'
		[daemon]
		workers = many
		log_levle = info

		[echo]
		prot = 7
		idle_timeout = 30
		protocol = tcp, sctp

		[dytime]
		port = 13

		[chargen]
		port = 70000
		format = ctime
	END
	[[ $status == 2 ]]
	local expected
	while read -r expected; do
		grep -qE "^test\\.conf:$expected: .+" <<<"$output" || fail "no error at $expected: $output"
	done <<-'END'
		2: \[daemon\] workers
		3: \[daemon\] log_levle
		6: \[echo\] prot
		7: \[echo\] idle_timeout
		8: \[echo\] protocol
		10: \[dytime\]( type)?
		14: \[chargen\] port
		15: \[chargen\] format
	END
	run ! grep -vE '^test\.conf:[0-9]+: (warning: )?\[[^]]+\]( [a-z_]+)?: .+' <<<"$output"
}

@test "errors: errors are reported in the order of the lines" {
	check <<-'END'
		[echo]
		prot = 7
		[daytime]
		prot = 13
		[daemon]
		wrokers = 1
	END
	[[ $status == 2 ]]
	[[ $(cut -d: -f2 <<<"$output") == $'2\n4\n6' ]]
}

@test "errors: a start with an invalid configuration reports all errors, exits 2 and opens no socket" {
	printf '[echo]\naddress = 127.0.0.1\nport = 0\nprot = 1\nlisten = 2\n' >test.conf
	run -2 timeout "$DEADLINE" "$SMALLSERVD" -c test.conf
	[[ $output == *'test.conf:4: [echo] prot: '*'test.conf:5: [echo] listen: '* ]]
	[[ $output != *'listening on'* ]]
}

@test "errors: an unknown key suggests the nearest key" {
	refuses 2 '[echo] protcol' '"?protocol' <<<$'[echo]\nprotcol = tcp'
	refuses 2 '[echo] idletimeout' 'idle_timeout' <<<$'[echo]\nidletimeout = 1m'
	refuses 2 '[echo] max_connection' 'max_connections' <<<$'[echo]\nmax_connection = 1'
	refuses 2 '[daemon] worker' 'workers' <<<$'[daemon]\nworker = 1\n[echo]'
	refuses 2 '[daytime] fromat' 'format' <<<$'[daytime]\nfromat = ctime'
}

@test "errors: a key of another program suggests the equivalent key" {
	refuses 2 '[echo] bind' 'address' <<<$'[echo]\nbind = 127.0.0.1'
	refuses 2 '[echo] listen' 'address' <<<$'[echo]\nlisten = 127.0.0.1'
	refuses 2 '[echo] disable' 'enabled' <<<$'[echo]\ndisable = yes'
	refuses 2 '[echo] instances' 'max_connections' <<<$'[echo]\ninstances = 10'
}

@test "errors: an unknown section suggests the nearest section" {
	check <<<$'[ehco]\nport = 7'
	[[ $status == 2 && $output =~ test\.conf:1:\ \[ehco\].*echo ]]
	check <<<$'[deamon]\nworkers = 1\n[echo]'
	[[ $status == 2 && $output =~ test\.conf:1:\ \[deamon\].*daemon ]]
	check <<<$'[echo]\n[default]\nidle_timeout = 1m'
	[[ $status == 2 && $output =~ test\.conf:2:\ \[default\].*defaults ]]
}

@test "errors: an unknown type suggests the nearest type" {
	refuses 2 '[lab] type' 'echo' <<<$'[lab]\ntype = ecoh'
}

@test "errors: a key in a section of another kind is an error" {
	check <<<$'[echo]\nworkers = 1'
	[[ $status == 2 && $output == *'test.conf:2: [echo] workers: '* ]]
	check <<<$'[daemon]\nport = 7\n[echo]'
	[[ $status == 2 && $output == *'test.conf:2: [daemon] port: '* ]]
}

@test "errors: a key that the type or the protocol does not support is an error" {
	refuses 2 '[discard] format' <<<$'[discard]\nformat = ctime'
	refuses 2 '[echo] quotes_file' <<<$'[echo]\nquotes_file = /etc/passwd'
	refuses 3 '[echo] max_datagram' <<<$'[echo]\nprotocol = tcp\nmax_datagram = 100'
	refuses 3 '[echo] multicast_groups' <<<$'[echo]\nprotocol = tcp\nmulticast_groups = 239.1.2.3'
	refuses 3 '[echo] max_connections' <<<$'[echo]\nprotocol = udp\nmax_connections = 100'
	refuses 3 '[echo] idle_timeout' <<<$'[echo]\nprotocol = udp\nidle_timeout = 1m'
	refuses 3 '[echo] backlog' <<<$'[echo]\nprotocol = udp\nbacklog = 10'
}

@test "errors: two services on one endpoint are an error" {
	check <<<$'[echo]\nport = 10007\n[other]\ntype = echo\nport = 10007'
	[[ $status == 2 && $output =~ test\.conf:[345]:\ \[other\] ]]
	check <<<$'[echo]\naddress = 127.0.0.1, 127.0.0.1\nport = 10007'
	[[ $status == 2 ]]
	check <<<$'[echo]\nport = 10000-10009, 10007'
	[[ $status == 2 ]]
	check <<<$'[echo]\nport = 10007\n[other]\ntype = echo\nprotocol = udp\naddress = 0.0.0.0\nport = 10007'
	[[ $status == 2 ]]
	check <<<$'[echo]\naddress = ::1\nport = 10007\n[other]\ntype = echo\naddress = 0:0:0:0:0:0:0:1\nport = 10007'
	[[ $status == 2 ]]
}

@test "errors: services that share a port but no endpoint are valid" {
	accepts <<<$'[echo]\nprotocol = tcp\nport = 10007\n[other]\ntype = echo\nprotocol = udp\nport = 10007'
	accepts <<<$'[echo]\nport = 10007\n[other]\ntype = echo\naddress = 127.0.0.1\nport = 10007'
	accepts <<<$'[echo]\naddress = 0.0.0.0\nport = 10007\n[other]\ntype = echo\naddress = ::\nport = 10007'
	accepts <<<$'[echo]\nport = 0\n[other]\ntype = echo\nport = 0'
	accepts <<<$'[echo]\nport = 10007\n[other]\ntype = echo\nport = 10007\nenabled = no'
}

@test "errors: a UDP port in the range of ephemeral ports gives a warning" {
	local first
	read -r first _ </proc/sys/net/ipv4/ip_local_port_range
	accepts <<<$'[echo]\nport = '"$first"
	[[ $output =~ ^test\.conf:2:\ warning:\ \[echo\]\ port:\ .+$ ]]
	accepts <<<$'[echo]\nprotocol = tcp\nport = '"$first"
	[[ -z $output || $output != *warning* ]]
	accepts <<<$'[echo]\nport = 7'
	[[ -z $output || $output != *warning* ]]
}

# Lines: inih alone fails each of these tests

@test "lines: a comment of up to 4 KiB is read as one comment" {
	local filler
	filler=$(printf '%0190d' 0)
	accepts <<<$'[echo]\n# '"$filler"$'   port = none\n; '"$filler$filler"$' [nonsense]\nport = 10007'
	dump
	[[ $(dumped port echo) == 10007 ]]
}

@test "lines: a value of more than 200 characters is read whole" {
	local list
	list=$(seq -s ', ' 10001 10200)
	accepts <<<$'[echo]\nprotocol = tcp\nport = '"$list"
	dump
	run -0 timeout "$DEADLINE" "$SMALLSERVD" -t -c dump
	grep -qE '10200' dump
	grep -qE '10001' dump
}

@test "lines: a line of more than 4 KiB is an error and the following lines are read" {
	check < <(
		echo '[echo]'
		printf '# %05000d\n' 0
		echo 'prot = 7'
	)
	[[ $status == 2 ]]
	grep -E '^test\.conf:2: ' <<<"$output"
	grep -E '^test\.conf:3: \[echo\] prot: ' <<<"$output"
}

@test "lines: keys after a section header without ] do not belong to the section before it" {
	check <<<$'[echo]\nport = 10007\n[daytime\nport = 10013'
	[[ $status == 2 ]]
	grep -E '^test\.conf:3: ' <<<"$output"
	run ! grep -E '^test\.conf:4: \[echo\]' <<<"$output"
}

@test "lines: text after ] is an error, a comment after ] is not" {
	refuses 1 '' <<<$'[echo] port = 7'
	check <<<$'[a]b] junk'
	[[ $status == 2 && $output == test.conf:1:*b* ]]
	accepts <<<$'[echo] # here\n[daytime]\t; there'
}

@test "lines: a section name has 1 to 48 letters, digits, dots, dashes and underscores" {
	local name
	name=$(printf 'x%.0s' {1..48})
	accepts <<<"[$name]"$'\ntype = echo'
	dump
	[[ $(dumped type "$name") == echo ]]
	refuses 1 '' <<<"[${name}x]"$'\ntype = echo'
	accepts <<<$'[Az09_.-]\ntype = echo'
	for name in '' 'a b' 'a/b' ' echo' 'ä' 'a=b' 'a%b'; do
		check <<<"[$name]"$'\ntype = echo'
		[[ $status == 2 && $output == test.conf:1:* ]] || fail "[$name]: $output"
	done
}

@test "lines: indentation is ignored" {
	accepts <<<$'  [echo]\n  port = 10007\n\t\tprotocol = tcp\n    address = 127.0.0.1\n'
	dump
	[[ $(dumped port echo) == 10007 && $(dumped protocol echo) == tcp && $(dumped address echo) == 127.0.0.1 ]]
}

@test "lines: spaces around = and at the end of the line are ignored" {
	accepts <<<$'[echo]\nport=10007\nprotocol   =tcp   \naddress= 127.0.0.1\t'
	dump
	[[ $(dumped port echo) == 10007 && $(dumped protocol echo) == tcp && $(dumped address echo) == 127.0.0.1 ]]
}

@test "lines: # and ; start a comment only after white space" {
	accepts <<<$'# one\n; two\n  # three\n[echo]\nport = 10007 # four\nprotocol = tcp\t; five\n'
	dump
	[[ $(dumped port echo) == 10007 && $(dumped protocol echo) == tcp ]]
	refuses 2 '[echo] port' <<<$'[echo]\nport = 10007#four'
	refuses 2 '[echo] port' <<<$'[echo]\nport = 10007;four'
}

@test "lines: # and ; inside double quotes are part of the value" {
	accepts <<<$'[daytime]\nformat = "%H ; %M # %S"  ; a comment "with" quotes\n'
	dump
	[[ $(dumped format daytime) == '"%H ; %M # %S"' ]]
	refuses 2 '' <<<$'[daytime]\nformat = "%H ; %M'
}

@test "lines: a colon instead of =, a missing = and an empty value are errors" {
	refuses 2 '' <<<$'[echo]\nport: 7'
	refuses 2 '' <<<$'[echo]\nport'
	refuses 2 '[echo] port' <<<$'[echo]\nport ='
	refuses 2 '[echo] port' <<<$'[echo]\nport =   # 7'
	refuses 2 '' <<<$'[echo]\n= 7'
}

@test "lines: a key before the first section is an error" {
	check <<<$'port = 7\n[echo]'
	[[ $status == 2 && $output == test.conf:1:* ]]
}

@test "lines: a NUL byte is an error and the following lines are read" {
	check < <(printf '[echo]\nport = 10007\0 # hidden\nprot = 1\n')
	[[ $status == 2 ]]
	grep -aE '^test\.conf:2: ' <<<"$output"
	grep -aE '^test\.conf:3: \[echo\] prot: ' <<<"$output"
	check < <(printf '[echo]\n# comment \0\n')
	[[ $status == 2 ]]
}

@test "lines: invalid UTF-8 is an error, valid UTF-8 in a comment is not" {
	check < <(printf '[echo]\n# caf\xe9\n')
	[[ $status == 2 && $output == test.conf:2:* ]]
	check < <(printf '[echo]\n# \xc0\xaf\n')
	[[ $status == 2 ]]
	check < <(printf '[echo]\n# \xed\xa0\x80\n')
	[[ $status == 2 ]]
	accepts < <(printf '[echo]\n# caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\n')
}

@test "lines: a last line without a line end is read" {
	accepts < <(printf '[echo]\nport = 10007')
	dump
	[[ $(dumped port echo) == 10007 ]]
	check < <(printf '[echo]\nprot = 10007')
	[[ $status == 2 && $output == 'test.conf:2: [echo] prot: '* ]]
}

@test "lines: duplicate sections and keys are errors" {
	check <<<$'[echo]\nport = 10007\n[daytime]\n[echo]\nprotocol = tcp'
	[[ $status == 2 && $output == 'test.conf:4: [echo]'* ]]
	check <<<$'[daemon]\n[echo]\n[daemon]'
	[[ $status == 2 && $output == 'test.conf:3: [daemon]'* ]]
	refuses 3 '[echo] port' <<<$'[echo]\nport = 10007\nport = 10007'
}

@test "lines: a section without keys defines a service" {
	accepts <<<$'[echo]\n[daytime]'
	dump
	[[ $(dumped port echo) == 7 && $(dumped port daytime) == 13 ]]
	check <<<$'[nonsense]'
	[[ $status == 2 && $output == 'test.conf:1: [nonsense]'* ]]
}

# Values

@test "values: a duration needs a unit" {
	local value
	for value in 500ms 1s 30s 10m 2h; do
		accepts <<<$'[echo]\nidle_timeout = '"$value"
	done
	accepts <<<$'[echo]\nidle_timeout = off'
	refuses 2 '[echo] idle_timeout' '30s' <<<$'[echo]\nidle_timeout = 30'
	for value in 's' '-1s' '1.5.s' '10 years' 'on' '99999999999999999999h' '1s1'; do
		refuses 2 '[echo] idle_timeout' <<<$'[echo]\nidle_timeout = '"$value"
	done
}

@test "values: a size may have the suffix K or M" {
	accepts <<<$'[echo]\nreceive_buffer = 64K\nsend_buffer = 1M'
	dump
	[[ $(dumped receive_buffer echo) == 64K && $(dumped send_buffer echo) == 1M ]]
	local value
	for value in 1X K -1 1.5M 99999999999999999999; do
		refuses 2 '[echo] send_buffer' <<<$'[echo]\nsend_buffer = '"$value"
	done
}

@test "values: a boolean is yes or no, on or off, true or false" {
	local value
	for value in yes on true; do
		accepts <<<$'[echo]\nlog_connections = '"$value"
		dump
		[[ $(dumped log_connections echo) == yes ]]
	done
	for value in no off false; do
		accepts <<<$'[echo]\nlog_connections = '"$value"
		dump
		[[ $(dumped log_connections echo) == no ]]
	done
	for value in maybe 1 0 y '"yes'; do
		refuses 2 '' <<<$'[echo]\nlog_connections = '"$value"
	done
}

@test "values: a port is a number, a range or a name of services(5)" {
	accepts <<<$'[echo]\nprotocol = tcp\nport = 7, 20000-20003,20010'
	if getent services daytime/tcp >/dev/null; then
		accepts <<<$'[echo]\nprotocol = tcp\nport = daytime'
	fi
	local value
	for value in 65536 70000 -1 20-10 '7,' ',7' '7,,8' 7-65536 no-such-service 7x 0x10 '7 8' 1-; do
		refuses 3 '[echo] port' <<<$'[echo]\nprotocol = tcp\nport = '"$value"
	done
}

@test "values: an address is a literal IPv4 or IPv6 address" {
	accepts <<<$'[echo]\naddress = 127.0.0.1, ::1, 192.0.2.1, 2001:db8::1, fe80::1%lo'
	local value
	for value in localhost 127.0.0 127.0.0.256 127.0.0.1:7 '[::1]' ::1::2 '127.0.0.1,' 239.1.2.3 ff02::1; do
		refuses 2 '[echo] address' <<<$'[echo]\naddress = '"$value"
	done
	for value in 127.0.0.1 ::1 nonsense; do
		refuses 2 '[echo] multicast_groups' <<<$'[echo]\nmulticast_groups = '"$value"
	done
}

@test "values: a number outside its bounds is an error" {
	local value
	for value in 1 256 auto; do
		accepts <<<$'[daemon]\nworkers = '"$value"$'\n[echo]'
	done
	for value in 0 257 -1 1.5 many '1 2'; do
		refuses 2 '[daemon] workers' <<<$'[daemon]\nworkers = '"$value"$'\n[echo]'
	done
	refuses 2 '[echo] max_connections' <<<$'[echo]\nmax_connections = 0'
	refuses 2 '[echo] max_datagram' <<<$'[echo]\nmax_datagram = 65528'
	accepts <<<$'[echo]\nmax_datagram = 65527'
}

@test "values: a word outside the list of its key is an error" {
	refuses 2 '[daemon] log_level' 'debug' <<<$'[daemon]\nlog_level = loud\n[echo]'
	refuses 2 '[daemon] log_target' 'stderr' <<<$'[daemon]\nlog_target = stdout\n[echo]'
	refuses 2 '[echo] protocol' <<<$'[echo]\nprotocol = icmp'
	refuses 2 '[daytime] format' <<<$'[daytime]\nformat = iso8601'
	refuses 2 '[daytime] format' <<<$'[daytime]\nformat = "%Q"'
	refuses 2 '[daytime] timezone' <<<$'[daytime]\ntimezone = Mars/Olympus'
	refuses 2 '[daytime] timezone' <<<$'[daytime]\ntimezone = ../../../etc/passwd'
	refuses 2 '[echo] dscp' <<<$'[echo]\ndscp = 64'
	accepts <<<$'[echo]\ndscp = ef'
}

# Defaults and the dump

@test "defaults: [defaults] applies to all services that support the key" {
	accepts <<-'END'
		[defaults]
		idle_timeout = 5m
		max_datagram = 1000
		format = rfc3339
		address = 127.0.0.1
		[echo]
		[daytime]
		idle_timeout = 1m
		[discard]
		protocol = udp
		[chargen]
		protocol = tcp
	END
	dump
	[[ $(dumped idle_timeout echo) == 5m && $(dumped idle_timeout daytime) == 1m ]]
	[[ -z $(dumped idle_timeout discard) && $(dumped idle_timeout chargen) == 5m ]]
	[[ $(dumped max_datagram echo) == 1000 && $(dumped max_datagram discard) == 1000 ]]
	[[ -z $(dumped max_datagram chargen) ]]
	[[ $(dumped format daytime) == rfc3339 && -z $(dumped format echo) ]]
	[[ $(dumped address chargen) == 127.0.0.1 ]]
}

@test "defaults: a list in a service replaces the list in [defaults]" {
	accepts <<<$'[defaults]\naddress = 127.0.0.1, ::1\n[echo]\naddress = 127.0.0.2'
	dump
	[[ $(dumped address echo) == 127.0.0.2 ]]
}

@test "defaults: errors in [defaults] are reported like errors in other sections" {
	refuses 2 '[defaults] idle_timeout' <<<$'[defaults]\nidle_timeout = 30\n[echo]'
	refuses 2 '[defaults] prot' <<<$'[defaults]\nprot = 30\n[echo]'
}

@test "dump: --dump prints every key with its default" {
	accepts <<<'[echo]'
	dump
	local key value
	while read -r key value; do
		[[ $(dumped "$key" echo) == "$value" ]] || fail "$key is $(dumped "$key" echo), not $value"
	done <<-'END'
		type echo
		enabled yes
		protocol tcp, udp
		address *
		port 7
		free_bind no
		backlog 4096
		max_connections unlimited
		idle_timeout 10m
		lifetime off
		max_datagram 65527
		log_connections no
	END
	[[ $(dumped workers daemon) == auto && $(dumped log_level daemon) == notice ]]
	[[ $(dumped stop_timeout daemon) == 5s && $(dumped log_target daemon) == auto ]]
}

@test "dump: the output of --dump gives the same output when it is read back" {
	mkdir conf.d
	printf '[included]\ntype = discard\nport = 10009\n' >conf.d/one.conf
	printf 'One.\n%%\nTwo.\n' >"quotes, # ; of mine"
	check <<-END
		[daemon]
		workers = 3
		user = root
		group = daemon
		pid_file = "/tmp/a # file"
		log_target = syslog
		log_level = info
		syslog_facility = local3
		max_connections = 1000
		stop_timeout = 90s
		sandbox = off
		include = conf.d/*.conf
		[defaults]
		idle_timeout = 5m
		[echo]
		protocol = tcp
		address = 127.0.0.1, ::1, fe80::1%lo
		port = 10007, 20000-20063
		interface = lo
		free_bind = yes
		backlog = 7
		max_connections = 12
		lifetime = 1500ms
		dscp = af21
		receive_buffer = 65537
		send_buffer = 1M
		keepalive = 60s
		log_connections = yes
		[lab.echo-2_x]
		type = echo
		protocol = udp
		port = 0
		max_datagram = 1472
		multicast_groups = 239.1.2.3, ff15::7%lo
		dscp = copy
		[off]
		type = time
		enabled = no
		[daytime]
		format = "%H ; %M # \\ 'x' 100%%"
		timezone = utc
		[qotd]
		quotes_file = "$BATS_TEST_TMPDIR/quotes, # ; of mine"
	END
	[[ $status == 0 ]] || fail "$output"
	dump
	run -0 --separate-stderr "$SMALLSERVD" -c - -T <dump
	diff dump <(printf '%s\n' "$output")
	[[ $(dumped port included) == 10009 ]]
	[[ $(dumped port echo) == '10007, 20000-20063' ]]
	[[ $(dumped address echo) == '127.0.0.1, ::1, fe80::1%lo' ]]
	[[ $(dumped idle_timeout echo) == 5m ]]
	[[ $(dumped enabled off) == no ]]
	[[ $(dumped stop_timeout daemon) == 90s ]]
	[[ $(dumped format daytime) == '"%H ; %M # \ '"'x'"' 100%%"' ]]
}

@test "dump: the shipped configurations give the same output when they are read back" {
	local file dump
	cd "$TESTS_SRCDIR/.."
	for file in smallservd.conf demo.conf; do
		dump=$("$SMALLSERVD" -T -c "etc/$file")
		diff <(printf '%s\n' "$dump") <("$SMALLSERVD" -T -c - <<<"$dump")
	done
}

@test "dump: an invalid configuration prints errors on standard error only and exits 2" {
	printf '[echo]\nprot = 7\n' >test.conf
	run -2 --separate-stderr "$SMALLSERVD" -T -c test.conf
	[[ -z $output && $stderr == *'test.conf:2: [echo] prot: '* ]]
}
