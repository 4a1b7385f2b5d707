#!/usr/bin/env bats
# PROXY headers: versions, trusted sources, limits, and HAProxy in front of the daemon.

# shellcheck disable=SC2030,SC2031 # each test runs in a shell of its own

load helpers
load counters
load certificates

setup_file() {
	export PKI=$BATS_FILE_TMPDIR
	command -v openssl >/dev/null || return 0
	make_authority authority
	sign authority server server
}

# Starts [echo] with proxy_from = 127.0.0.1 and further keys from standard input.
start_proxied() {
	start_daemon < <(
		printf '%s\n' '[echo]' 'protocol = tcp' 'address = 127.0.0.1' 'port = 0' 'proxy_protocol = on' \
			'proxy_from = 127.0.0.1' 'log_connections = yes'
		cat
	)
	PORT=$(port_of echo tcp)
}

hexadecimal() {
	od -An -v -tx1 | tr -d ' \n'
}

@test "proxy: a header of version 1 or 2 sets the client address" {
	start_proxied </dev/null
	python proxy.py echo "$PORT" v1 192.0.2.1 1001
	python proxy.py echo "$PORT" v1 2001:db8::1 1002
	python proxy.py echo "$PORT" v2 192.0.2.2 1003
	python proxy.py echo "$PORT" v2 2001:db8::2 1004
	python proxy.py echo "$PORT" v2+tlv 192.0.2.3 1005
	await_counters echo tcp 'accepted=5 closed\{client\}=5'
	local source
	for source in 192.0.2.1:1001 '\[2001:db8::1\]:1002' 192.0.2.2:1003 '\[2001:db8::2\]:1004' 192.0.2.3:1005; do
		log_matches "echo: tcp $source closed: client, .* 5 bytes received, 5 sent"
	done
}

@test "proxy: a LOCAL or UNKNOWN header keeps the address of the connection" {
	start_proxied </dev/null
	python proxy.py echo "$PORT" local 192.0.2.1 1001
	python proxy.py echo "$PORT" unknown - 0
	await_counters echo tcp 'accepted=2 closed\{client\}=2'
	[[ $(grep -cE 'echo: tcp 127\.0\.0\.1:[0-9]+ closed: client' "$LOG") == 2 ]]
}

@test "proxy: a header split at any byte is parsed and no byte after it is lost" {
	start_proxied </dev/null
	[[ $(python proxy.py split "$PORT" v1 192.0.2.1) == 39 ]]
	[[ $(python proxy.py split "$PORT" v2 2001:db8::1) == 52 ]]
	python proxy.py bytewise "$PORT" v1 2001:db8::1
	python proxy.py bytewise "$PORT" v2+tlv 192.0.2.1
	await_counters echo tcp 'accepted=93 closed\{client\}=93'
}

@test "proxy: a service that sends first waits for the header" {
	start_daemon <<-END
		[daytime]
		protocol = tcp
		address = 127.0.0.1
		port = 0
		proxy_protocol = on
		proxy_from = all
	END
	PORT=$(port_of daytime tcp)
	printf 'PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n' | netcat -N 127.0.0.1 "$PORT" >reply
	[[ $(wc -c <reply) == 26 ]]
}

@test "proxy: invalid, oversized and partial headers close the connection without a reply and are counted" {
	start_proxied </dev/null
	python proxy.py refused "$PORT" "$(printf 'GET / HTTP/1.0\r\n\r\n' | hexadecimal)"
	python proxy.py refused "$PORT" "$(printf 'PROXY TCP4 192.0.2.1 192.0.2.2 1\r\nhello' | hexadecimal)"
	python proxy.py refused "$PORT" "$(printf 'PROXY UNKNOWN%0100d' 0 | hexadecimal)"
	python proxy.py refused "$PORT" 0d0a0d0a000d0a515549540a2111ffff
	python proxy.py leaves "$PORT" "$(printf 'PROXY TCP4 192.0.2.1' | hexadecimal)"
	python proxy.py leaves "$PORT" ''
	await_counters echo tcp 'accepted=0 refused\{proxy_header\}=6'
	log_matches 'refused: proxy_header: no PROXY header$'
	log_matches 'refused: proxy_header: longer than 4096 bytes$'
	log_matches 'refused: proxy_header: connection closed by the proxy$'
}

@test "proxy: handshake_timeout closes a connection with a late header, whether bytes arrive or not" {
	start_proxied <<<'handshake_timeout = 300ms'
	python proxy.py refused "$PORT" ''
	python proxy.py refused "$PORT" "$(printf 'PROXY TCP4' | hexadecimal)"
	await_counters echo tcp 'accepted=0 refused\{handshake_timeout\}=2'
}

@test "proxy: a connection from outside proxy_from is refused" {
	start_proxied <<<'allow = 192.0.2.0/24'
	python proxy.py refused "$PORT" "$(printf 'PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nhello' | hexadecimal)" 127.0.0.2
	await_counters echo tcp 'accepted=0 refused\{proxy_refused\}=1'
	log_matches 'tcp 127\.0\.0\.2:[0-9]+ refused: proxy_refused'
	python proxy.py echo "$PORT" v2 192.0.2.1 1001
}

@test "proxy: allow, deny and the limits of a source apply to the client in the header" {
	start_proxied <<-END
		deny = 198.51.100.0/24
		max_connections_per_source = 2
	END
	mkfifo stay
	python proxy.py hold "$PORT" 192.0.2.1 192.0.2.1 192.0.2.1 192.0.2.2 198.51.100.1 192.0.2.2 192.0.2.2 <stay >verdicts \
		2>&1 3>&- 4>&- &
	BACKGROUND+=("$!")
	exec 9>stay
	wait_for_line verdicts held
	[[ $(tr '\n' ' ' <verdicts) == '192.0.2.1 in 192.0.2.1 in 192.0.2.1 out 192.0.2.2 in 198.51.100.1 out 192.0.2.2 in 192.0.2.2 out held ' ]]
	exec 9>&-
	await_counters echo tcp 'accepted=4 refused\{denied\}=1 refused\{max_connections_per_source\}=2 closed\{client\}=4'
	log_matches 'tcp 198\.51\.100\.1:4660 refused: denied'
}

@test "proxy: a connection that awaits its header counts for max_connections" {
	start_proxied <<-END
		max_connections = 2
		handshake_timeout = 300ms
	END
	python proxy.py refused "$PORT" '' &
	BACKGROUND+=("$!")
	python proxy.py refused "$PORT" '' &
	BACKGROUND+=("$!")
	wait_until counted_refused 2
	python proxy.py echo "$PORT" v2 192.0.2.1 1001
}

counted_refused() {
	counters_match echo tcp "accepted=[0-9]+ refused\\{handshake_timeout\\}=$1.*"
}

@test "proxy: a stop closes connections that await their header" {
	start_proxied <<-END
		handshake_timeout = 1h
		[daemon]
		stop_timeout = 100ms
	END
	python proxy.py refused "$PORT" '' &
	local client=$!
	BACKGROUND+=("$client")
	wait_until accepted_by_daemon
	stop_daemon
	wait "$client"
}

# True if the kernel has an established connection and an empty accept queue.
accepted_by_daemon() {
	ss -Htn state established "sport = :$PORT" | grep -q . && ! ss -Htln "sport = :$PORT" | awk '{print $2}' | grep -qv '^0$'
}

# --- HAProxy ---

# Starts HAProxy with the frontends and backends on standard input and waits until it listens on PROXY_PORT.
start_haproxy() {
	need_programs haproxy
	PROXY_PORT=$(free_port 4)
	sed "s/@port@/$PROXY_PORT/; s/@port1@/$((PROXY_PORT + 1))/; s/@port2@/$((PROXY_PORT + 2))/; s/@port3@/$((PROXY_PORT + 3))/" \
		>haproxy.cfg < <(
			printf '%s\n' defaults ' mode tcp' ' timeout connect 20s' ' timeout client 60s' ' timeout server 60s'
			cat
		)
	timeout $((DEADLINE * 4)) haproxy -db -f haproxy.cfg >haproxy.log 2>&1 3>&- 4>&- &
	BACKGROUND+=("$!")
	wait_until listening "$PROXY_PORT" || {
		cat haproxy.log
		fail "HAProxy does not listen"
	}
}

listening() {
	ss -Htln "sport = :$1" | grep -q .
}

@test "proxy: HAProxy with send-proxy and send-proxy-v2 passes the client to the log and the limits" {
	start_proxied <<-END
		max_connections_per_source = 1
	END
	start_haproxy <<-END
		listen one
		 bind 127.0.0.1:@port@
		 server daemon 127.0.0.1:$PORT send-proxy
		listen two
		 bind 127.0.0.1:@port1@
		 server daemon 127.0.0.1:$PORT send-proxy-v2 proxy-v2-options unique-id,crc32c
	END
	wait_until listening $((PROXY_PORT + 1))
	[[ $(echo hello | netcat -N -s 127.0.0.7 127.0.0.1 "$PROXY_PORT") == hello ]]
	[[ $(echo hello | netcat -N -s 127.0.0.8 127.0.0.1 $((PROXY_PORT + 1))) == hello ]]
	await_counters echo tcp 'accepted=2 closed\{client\}=2'
	log_matches 'echo: tcp 127\.0\.0\.7:[0-9]+ closed: client, .* 6 bytes received, 6 sent'
	log_matches 'echo: tcp 127\.0\.0\.8:[0-9]+ closed: client, .* 6 bytes received, 6 sent'
	# the limit of one connection counts each client, not the proxy
	local address
	for address in 127.0.0.7 127.0.0.8 127.0.0.9; do
		mkfifo "stay.$address"
		netcat -s "$address" 127.0.0.1 $((PROXY_PORT + 1)) <"stay.$address" >"reply.$address" 3>&- 4>&- &
		BACKGROUND+=("$!")
		exec {HOLD}>"stay.$address"
		echo hello >&"$HOLD"
		wait_for_line "reply.$address" hello
	done
	[[ -z $(echo hello | netcat -N -s 127.0.0.7 127.0.0.1 $((PROXY_PORT + 1)) || true) ]]
	await_counters echo tcp '.* refused\{max_connections_per_source\}=1 .*'
}

@test "proxy: HAProxy with TLS passed through, terminated and re-encrypted is served" {
	need_programs openssl
	start_proxied <<-END
		[secure]
		type = echo
		protocol = tcp
		address = 127.0.0.1
		port = 0
		proxy_protocol = on
		proxy_from = 127.0.0.1
		log_connections = yes
		tls = yes
		tls_certificate = $PKI/server.pem
		tls_key = $PKI/server.key
	END
	local secure
	secure=$(port_of secure tcp)
	cat "$PKI/server.pem" "$PKI/server.key" >both.pem
	start_haproxy <<-END
		listen passed
		 bind 127.0.0.1:@port@
		 server daemon 127.0.0.1:$secure send-proxy-v2
		listen terminated
		 bind 127.0.0.1:@port1@ ssl crt both.pem
		 server daemon 127.0.0.1:$PORT send-proxy-v2-ssl
		listen again
		 bind 127.0.0.1:@port2@ ssl crt both.pem
		 server daemon 127.0.0.1:$secure send-proxy-v2 ssl verify required ca-file $PKI/authority.pem
	END
	local port
	for port in "$PROXY_PORT" $((PROXY_PORT + 1)) $((PROXY_PORT + 2)); do
		wait_until listening "$port"
		wait_until echoes_inside_tls "$port" || fail "no echo through port $port: $(cat haproxy.log)"
	done
	wait_for_log 'secure: tcp 127\.0\.0\.1:[0-9]+ closed: [a-z_]+, .* 6 bytes received, 6 sent'
}

echoes_inside_tls() {
	mkfifo "in.$1"
	timeout "$DEADLINE" openssl s_client -quiet -no_ign_eof -connect "127.0.0.1:$1" <"in.$1" >"out.$1" 2>/dev/null 3>&- 4>&- &
	BACKGROUND+=("$!")
	exec {HOLD}>"in.$1"
	echo hello >&"$HOLD"
	wait_for_line "out.$1" hello
	exec {HOLD}>&-
}
