#!/usr/bin/env bats
# Services inside TLS: openssl, ncat and sslscan as clients, valid and invalid certificates, closes of every kind.

# shellcheck disable=SC2030,SC2031 # each test runs in a shell of its own

load helpers
load counters
load certificates

setup_file() {
	export PKI=$BATS_FILE_TMPDIR
	command -v openssl >/dev/null || return 0
	make_clients
}

# start_secure NAME=TYPE: starts a service with TLS and further keys from standard input.
start_secure() {
	local name=${1%=*} type=${1#*=}
	need_programs openssl
	start_daemon < <(
		printf '%s\n' "[$name]" "type = $type" 'protocol = tcp' 'address = 127.0.0.1' 'port = 0' 'tls = yes' \
			"tls_certificate = $PKI/server.pem" "tls_key = $PKI/server.key" 'log_connections = yes'
		cat
	)
	PORT=$(port_of "$name" tcp)
}

# Prints the data that openssl s_client receives without sending any.
s_client() {
	timeout "$DEADLINE" openssl s_client -connect "127.0.0.1:$PORT" -quiet -CAfile "$PKI/authority.pem" \
		-verify_return_error "$@" 2>s_client.log
}

@test "tls: openssl s_client reads daytime over TLS 1.2 and 1.3 and verifies the chain" {
	start_secure day=daytime </dev/null
	local version
	for version in -tls1_2 -tls1_3; do
		s_client "$version" </dev/null >reply
		[[ $(<reply) =~ ^[A-Z][a-z]{2}\ [A-Z][a-z]{2}\ [\ 0-9]{2}\ [0-9:]{8}\ [0-9]{4} ]] || fail "$(cat reply s_client.log)"
	done
	await_counters day tcp 'accepted=2 closed\{done\}=2'
}

@test "tls: ncat --ssl gets the echo of its input and reads daytime" {
	need_programs ncat
	start_secure echo=echo <<-END
		[daytime]
		protocol = tcp
		address = 127.0.0.1
		port = 0
		tls = yes
		tls_certificate = $PKI/server.pem
		tls_key = $PKI/server.key
	END
	echo hello | timeout "$DEADLINE" ncat --ssl 127.0.0.1 "$PORT" >reply
	[[ $(<reply) == hello ]]
	timeout "$DEADLINE" ncat --ssl --recv-only 127.0.0.1 "$(port_of daytime tcp)" >reply
	[[ $(wc -c <reply) == 26 ]]
}

@test "tls: 32 MiB followed at once by close_notify come back whole" {
	start_secure echo=echo </dev/null
	python tls.py whole "$PORT" 1.3 $((32 << 20))
	python tls.py whole "$PORT" 1.2 $((4 << 20))
	await_counters echo tcp 'accepted=2 closed\{client\}=2'
	log_matches "closed: client, .* $((32 << 20)) bytes received, $((32 << 20)) sent"
}

@test "tls: close_notify is sent last, also if the socket was not writable at first" {
	start_secure echo=echo <<<'send_buffer = 4K'
	[[ $(python tls.py late "$PORT" 1.3) == 31 ]]
	[[ $(python tls.py late "$PORT" 1.2) == 31 ]]
	await_counters echo tcp 'accepted=62 closed\{client\}=62'
}

@test "tls: chargen sends the same stream with and without TLS" {
	start_secure secure=chargen <<-END
		send_buffer = 64K
		[plain]
		type = chargen
		protocol = tcp
		address = 127.0.0.1
		port = 0
	END
	timeout "$DEADLINE" openssl s_client -quiet -connect "127.0.0.1:$PORT" </dev/null 2>/dev/null | head -c 4000000 >inside
	netcat -d 127.0.0.1 "$(port_of plain tcp)" | head -c 4000000 >outside
	cmp inside outside
	await_counters secure tcp 'accepted=1 closed\{reset\}=1'
}

@test "tls: a stream without close_notify is echoed and counted as truncated" {
	start_secure echo=echo </dev/null
	python tls.py truncated "$PORT" 1.2
	python tls.py truncated "$PORT" 1.3
	await_counters echo tcp 'accepted=2 closed\{tls_truncated\}=2'
	log_matches 'closed: tls_truncated, .* 5 bytes received, 5 sent'
}

@test "tls: a failed session is closed without CPU use while its client keeps sending" {
	start_secure echo=echo </dev/null
	mkfifo stay
	python tls.py garbage "$PORT" 1.3 <stay >output 2>&1 3>&- 4>&- &
	BACKGROUND+=("$!")
	exec 9>stay
	wait_for_line output sent
	await_counters echo tcp 'accepted=1 closed\{tls_protocol\}=1'
	assert_idle
	exec 9>&-
	echo alive | timeout "$DEADLINE" openssl s_client -quiet -connect "127.0.0.1:$PORT" -no_ign_eof 2>/dev/null
}

@test "tls: a client without TLS is closed and counted, with the reason in the log" {
	start_secure echo=echo </dev/null
	printf 'GET / HTTP/1.0\r\n\r\n' | netcat -N 127.0.0.1 "$PORT" >reply || true
	await_counters echo tcp 'accepted=1 closed\{tls_handshake\}=1'
	log_matches 'closed: tls_handshake: http request'
}

@test "tls: handshake_timeout closes a client that stalls within the handshake" {
	start_secure echo=echo <<<'handshake_timeout = 300ms'
	python tls.py silent "$PORT" 1603010200
	python tls.py silent "$PORT" ''
	await_counters echo tcp 'accepted=2 closed\{handshake_timeout\}=2'
}

@test "tls: idle_timeout counts from the end of the handshake" {
	start_secure echo=echo <<-END
		idle_timeout = 300ms
		handshake_timeout = 100s
	END
	python tls.py wait "$PORT"
	await_counters echo tcp 'accepted=1 closed\{idle_timeout\}=1'
}

@test "tls: at its lifetime a connection ends with close_notify" {
	start_secure echo=echo <<<'lifetime = 300ms'
	python tls.py wait "$PORT"
	await_counters echo tcp 'accepted=1 closed\{lifetime\}=1'
}

@test "tls: at its lifetime a connection with a partly sent record is reset" {
	start_secure endless=chargen <<-END
		lifetime = 500ms
		send_buffer = 16K
	END
	mkfifo go
	python tls.py stall "$PORT" <go >output 2>&1 3>&- 4>&- &
	local client=$!
	BACKGROUND+=("$client")
	exec 9>go
	wait_for_line output stalling
	await_counters endless tcp 'accepted=1 closed\{lifetime\}=1'
	exec 9>&-
	wait "$client"
}

@test "tls: a client that offers a session gets a full handshake" {
	start_secure echo=echo </dev/null
	python tls.py resume "$PORT" 1.2
	python tls.py resume "$PORT" 1.3
}

@test "tls: tls_min_version and tls_max_version bound the version" {
	start_secure new=daytime <<-END
		tls_min_version = 1.3
		[old]
		type = daytime
		protocol = tcp
		address = 127.0.0.1
		port = 0
		tls = yes
		tls_max_version = 1.2
		tls_certificate = $PKI/server.pem
		tls_key = $PKI/server.key
	END
	s_client -tls1_3 </dev/null | grep -q .
	[[ -z $(s_client -tls1_2 </dev/null) ]]
	PORT=$(port_of old tcp)
	s_client -tls1_2 </dev/null | grep -q .
	[[ -z $(s_client -tls1_3 </dev/null) ]]
	await_counters new tcp 'accepted=2 closed\{done\}=1 closed\{tls_handshake\}=1'
}

# assert_client_refused CERTIFICATE VERSION: checks that a client with CERTIFICATE, or with `none`, receives no data.
assert_client_refused() {
	local with=(-cert "$PKI/$1.pem" -key "$PKI/$1.key")
	[[ $1 != none ]] || with=()
	s_client "${with[@]}" "$2" </dev/null >reply || true
	[[ ! -s reply ]] || fail "$1 over $2 got: $(cat reply)"
}

@test "tls: tls_client_auth = required sends no byte without a valid certificate and counts each reason" {
	start_secure day=daytime <<-END
		tls_client_ca = $PKI/authority.pem
		tls_client_auth = required
		tls_crl = $PKI/authority.crl
	END
	local client version
	for version in -tls1_2 -tls1_3; do
		for client in none expired young revoked foreign alone purpose; do
			assert_client_refused "$client" "$version"
		done
		s_client -cert "$PKI/good.pem" -key "$PKI/good.key" "$version" </dev/null | grep -qE '^[A-Z][a-z]{2} .* 20[0-9]{2}'
	done
	local counters='accepted=16 closed\{done\}=2'
	local reason
	for reason in missing expired not_yet_valid revoked unknown_authority self_signed wrong_purpose; do
		counters+=" closed\\{tls_certificate_$reason\\}=2"
	done
	await_counters day tcp "$counters"
	log_matches 'closed: done, .* 26 sent, certificate CN=good$'
	log_matches 'closed: tls_certificate_expired: certificate has expired, certificate CN=expired$'
}

@test "tls: a refused certificate is counted by its reason, also if the client has closed" {
	start_secure day=daytime <<-END
		tls_client_ca = $PKI/authority.pem
		tls_client_auth = required
	END
	local client
	for client in expired foreign alone purpose; do
		python tls.py leave "$PORT" "$PKI/$client"
	done
	local counters='accepted=4' reason
	for reason in expired unknown_authority self_signed wrong_purpose; do
		counters+=" closed\\{tls_certificate_$reason\\}=1"
	done
	await_counters day tcp "$counters"
	log_matches 'closed: tls_certificate_expired, .* 0 sent, certificate CN=expired$'
}

@test "tls: tls_client_auth = optional accepts no certificate or a valid one" {
	start_secure day=daytime <<-END
		tls_client_ca = $PKI/authority.pem
		tls_client_auth = optional
	END
	local client
	for client in expired foreign alone purpose; do
		assert_client_refused "$client" -tls1_3
	done
	s_client -tls1_3 </dev/null | grep -q .
	s_client -cert "$PKI/good.pem" -key "$PKI/good.key" -tls1_3 </dev/null | grep -q .
	await_counters day tcp '.* closed\{done\}=2 .*'
	log_matches 'certificate CN=good$'
}

# Prints the output of --check for [secure] with the keys on standard input, and its exit status.
check_secure() {
	write_config conf.check < <(
		printf '%s\n' '[secure]' 'type = echo' 'protocol = tcp' 'address = 127.0.0.1' 'port = 0' 'tls = yes'
		cat
	)
	local status=0
	"$SMALLSERVD" --check -c conf.check 2>&1 || status=$?
	echo "status $status"
}

# assert_message KEY MESSAGE: checks that OUTPUT, of check_secure, has MESSAGE for the line that begins with KEY.
assert_message() {
	local line
	line=$(grep -nm1 "^$1" conf.check | cut -d: -f1)
	grep -qF "conf.check:$line: $2" <<<"$OUTPUT" || fail "not reported for line $line: $2: $OUTPUT"
}

@test "tls: --check reports errors of certificates and keys with file and line" {
	need_programs openssl
	cp "$PKI/server.key" mine.key
	OUTPUT=$(check_secure <<-END
		tls_certificate = missing.pem
	END
	)
	assert_message tls_certificate '[secure] tls_certificate: missing.pem: No such file or directory'
	[[ $OUTPUT == *'status 2' ]]
	OUTPUT=$(check_secure <<-END
		tls_certificate = $PKI/server.pem
		tls_key = $PKI/good.key
	END
	)
	assert_message tls_key "[secure] tls_key: $PKI/good.key: the key does not match tls_certificate"
	openssl ec -in mine.key -aes128 -passout pass:secret -out secret.key 2>/dev/null
	OUTPUT=$(check_secure <<-END
		tls_certificate = $PKI/server.pem
		tls_key = secret.key
	END
	)
	assert_message tls_key '[secure] tls_key: secret.key: encrypted private keys are not supported'
	[[ $OUTPUT == *'status 2' ]]
}

@test "tls: --check warns of an expired certificate and of a key that is readable for all users" {
	need_programs openssl
	cp "$PKI/expired.key" open.key
	chmod 644 open.key
	OUTPUT=$(check_secure <<-END
		tls_certificate = $PKI/expired.pem
		tls_key = open.key
	END
	)
	assert_message tls_certificate "warning: [secure] tls_certificate: $PKI/expired.pem: the certificate of CN=expired expired on 2020-01-02 00:00:00 UTC"
	assert_message tls_key 'warning: [secure] tls_key: open.key: the key file is world-readable'
	[[ $OUTPUT == *'status 0' ]]
	chmod 640 open.key
	OUTPUT=$(check_secure <<-END
		tls_certificate = $PKI/expired.pem
		tls_key = open.key
	END
	)
	[[ $OUTPUT != *world-readable* ]]
}

# Prints the common name of the server's certificate.
server_name() {
	timeout "$DEADLINE" openssl s_client -connect "127.0.0.1:$PORT" </dev/null 2>/dev/null |
		openssl x509 -noout -subject -nameopt multiline | sed -n 's/ *commonName *= //p'
}

@test "tls: a reload replaces the certificate for new sessions only, and an invalid file changes no session" {
	need_programs openssl
	cp "$PKI/server.pem" mine.pem
	cp "$PKI/server.key" mine.key
	start_daemon <<-END
		[echo]
		protocol = tcp
		address = 127.0.0.1
		port = 0
		tls = yes
		tls_certificate = mine.pem
		tls_key = mine.key
	END
	PORT=$(port_of echo tcp)
	mkfifo input
	timeout "$DEADLINE" openssl s_client -quiet -connect "127.0.0.1:$PORT" <input >output 2>/dev/null 3>&- 4>&- &
	BACKGROUND+=("$!")
	exec 9>input
	echo before >&9
	wait_for_line output before
	[[ $(server_name) == server ]]

	cp "$PKI/good.pem" mine.pem
	kill -HUP "$PID"
	wait_for_log 'reload failed, the running configuration stays: .*conf\.0:[0-9]+: \[echo\] tls_key: mine\.key: the key does not match tls_certificate'
	[[ $(server_name) == server ]]

	cp "$PKI/good.key" mine.key
	kill -HUP "$PID"
	wait_for_log 'reloaded: 1 services, 1 endpoints'
	[[ $(server_name) == good ]]
	echo after >&9
	wait_for_line output after
	exec 9>&-
}

@test "tls: with sandbox = on handshakes and reloads of certificates succeed" {
	need_filter
	need_programs ncat
	start_secure echo=echo <<-END
		[daemon]
		sandbox = on
	END
	[[ $(echo hello | timeout "$DEADLINE" ncat --ssl 127.0.0.1 "$PORT") == hello ]]
	kill -HUP "$PID"
	wait_for_log 'reloaded: 1 services, 1 endpoints'
	[[ $(echo hello | timeout "$DEADLINE" ncat --ssl 127.0.0.1 "$PORT") == hello ]]
}

@test "tls: a stop closes open sessions with an orderly end" {
	start_secure echo=echo <<-END
		[daemon]
		stop_timeout = 100ms
	END
	mkfifo stay
	python tls.py hold "$PORT" 3 <stay >held 2>&1 3>&- 4>&- &
	BACKGROUND+=("$!")
	exec 9>stay
	wait_for_line held holding
	stop_daemon
	exec 9>&-
	[[ $(grep -c 'closed: stop' "$LOG") == 3 ]]
}

# Checks that no line of the report matches the extended regular expression.
assert_report_lacks() {
	if grep -E "$1" report; then
		fail "the report has an unexpected line"
	fi
}

@test "tls: sslscan finds no old protocol, no weak cipher and no renegotiation" {
	need_programs sslscan
	start_secure echo=echo </dev/null
	timeout $((DEADLINE * 2)) sslscan --no-colour --no-heartbleed "127.0.0.1:$PORT" >report
	grep -qE 'TLSv1.2 +enabled' report
	grep -qE 'TLSv1.3 +enabled' report
	assert_report_lacks '(SSLv2|SSLv3|TLSv1.0|TLSv1.1) +enabled'
	assert_report_lacks '^(Accepted|Preferred).*(CBC|RC4|3DES|NULL|EXP|MD5|SHA$)'
	grep -q 'Session renegotiation not supported' report
}
