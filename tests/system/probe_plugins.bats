#!/usr/bin/env bats
# Programs based on smallprobe: the Nagios check, the smokeping module, the bash completion; and the manual page.

load helpers

: "${SMALLPROBE:=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)/smallprobe}"
export SMALLPROBE
SOURCE=$TESTS_SRCDIR/..

check() {
	timeout $((DEADLINE * 2)) "$SOURCE/plugins/check_smallprobe" "$@"
}

start_echo() {
	start_daemon <<-END
		[defaults]
		address = 127.0.0.1
		port = 0
		[echo]
		[daytime]
	END
}

@test "check_smallprobe: a service that answers in time is OK, with performance data" {
	start_echo
	run -0 check -H 127.0.0.1 -p "$(port_of echo tcp)" -n 3 -i 0.01 -w 100000,20% -c 200000,60% -t "$DEADLINE" -- \
		-W "$DEADLINE"
	[[ $output =~ ^'SMALLPROBE OK - echo 127.0.0.1: loss 0%, rta '[0-9.]+' ms | rta='[0-9.]+'ms;100000;200000;0; pl=0%;20;60;0;100'$ ]]
	run -0 check -H "127.0.0.1:$(port_of echo udp)" -u -n 1 -w 100000,20% -c 200000,60% -t "$DEADLINE" -- -W "$DEADLINE"
	run -0 check -H "127.0.0.1:$(port_of daytime tcp)" -T daytime -n 1 -w 100000,20% -c 200000,60% -t "$DEADLINE" -- -W "$DEADLINE"
	[[ $output == 'SMALLPROBE OK - daytime '* ]]
}

@test "check_smallprobe: a slow service is WARNING, above the critical limit CRITICAL" {
	start_echo
	run -1 check -H "127.0.0.1:$(port_of echo tcp)" -n 1 -w 0,20% -c 100000,60% -t "$DEADLINE" -- -W "$DEADLINE"
	[[ $output == 'SMALLPROBE WARNING - '* ]]
	run -2 check -H "127.0.0.1:$(port_of echo tcp)" -n 1 -w 0,20% -c 0,60% -t "$DEADLINE" -- -W "$DEADLINE"
	[[ $output == 'SMALLPROBE CRITICAL - '* ]]
}

@test "check_smallprobe: lost replies, wrong replies and a closed port are CRITICAL" {
	python_server server probe.py datagrams swallow
	run -2 check -H "127.0.0.1:$SERVER_PORT" -u -n 2 -i 0.01 -- -W 0.2
	[[ $output == 'SMALLPROBE CRITICAL - echo 127.0.0.1:'*': loss 100%, rta unknown | rta=U;100;500;0; pl=100%;20;60;0;100' ]]
	run -1 check -H "127.0.0.1:$SERVER_PORT" -u -n 1 -c 500,101% -- -W 0.2
	python_server server probe.py datagrams flip
	run -2 check -H "127.0.0.1:$SERVER_PORT" -u -n 1 -w 100000,20% -c 200000,60% -t "$DEADLINE" -- -W "$DEADLINE"
	[[ $output == *'wrong answers |'* ]]
	local port
	port=$(free_port)
	run -2 check -H "127.0.0.1:$port"
	[[ $output == "SMALLPROBE CRITICAL - connect to 127.0.0.1:$port: Connection refused | rta=U;"*'pl=100%;'* ]]
	run -2 check -H no-such-host.invalid
	[[ $output == 'SMALLPROBE CRITICAL - no-such-host.invalid: '*' | rta=U;'*'pl=100%;'* ]]
}

@test "check_smallprobe: invalid arguments are UNKNOWN" {
	run -3 check
	run -3 check -H
	run -3 check -H 127.0.0.1 -w 100
	[[ $output == 'SMALLPROBE UNKNOWN - -w 100: must be RTA,PL%, as 100,20%' ]]
	run -3 check -H 127.0.0.1 -c 100,x%
	run -3 check -H 127.0.0.1 -t x
	run -3 check -H 127.0.0.1 -T finger
	[[ $output == "SMALLPROBE UNKNOWN - there is no type 'finger'"* ]]
	run -3 check -H 'a b'
	SMALLPROBE=/missing/smallprobe run -3 check -H 127.0.0.1
	run -0 check -h
	run -0 check -V
}

# smokeping VERB...: calls the module as smokeping does, by smokeping.pl.
smokeping() {
	mkdir -p perl/Smokeping/probes
	cp -f "$SOURCE/plugins/SmallProbe.pm" perl/Smokeping/probes/
	timeout $((DEADLINE * 4)) perl -Iperl "$TESTS_SRCDIR/system/smokeping.pl" "$@"
}

need_smokeping() {
	need_programs perl
	smokeping own || skip "the classes of smokeping are not installed"
}

@test "smokeping: the module returns the times in seconds, sorted" {
	need_programs perl
	start_echo
	local service transport
	for service in echo daytime; do
		for transport in tcp udp; do
			run -0 smokeping measure "$service" "$transport" "127.0.0.1:$(port_of "$service" "$transport")"
			[[ $(wc -l <<<"$output") == 3 ]]
			[[ $output == "$(sort -g <<<"$output")" ]]
			awk '!($1 > 0 && $1 < 1000) || !/^[0-9]\.[0-9]+e-?[-+0-9]+$/ { exit 1 }' <<<"$output"
		done
	done
}

@test "smokeping: the module returns no time for lost and wrong replies" {
	need_programs perl
	python_server server probe.py datagrams flip
	run -0 smokeping measure echo udp "127.0.0.1:$SERVER_PORT"
	[[ -z $output ]]
	run -0 smokeping measure echo tcp "127.0.0.1:$(free_port)"
	[[ $output != *e-* ]]
}

# Prints a configuration of smokeping; the given lines are added to its target.
smokeping_config() {
	mkdir -p data
	touch tmail page.html
	cat <<-END
		*** General ***
		owner = admin
		contact = admin@example.invalid
		mailhost = localhost
		imgcache = $PWD/data
		imgurl = data
		datadir = $PWD/data
		piddir = $PWD/data
		cgiurl = http://localhost/
		smokemail = $PWD/tmail
		tmail = $PWD/tmail
		*** Database ***
		step = 300
		pings = 20
		AVERAGE 0.5 1 1008
		*** Presentation ***
		template = $PWD/page.html
		+ overview
		width = 600
		height = 50
		range = 10h
		+ detail
		width = 600
		height = 200
		"Last 3 Hours" 3h
		*** Probes ***
		+ SmallProbe
		binary = $SMALLPROBE
		*** Targets ***
		probe = SmallProbe
		menu = Top
		title = All
		+ lab
		menu = lab
		title = lab
		host = 127.0.0.1
		$(printf '%s\n' "$@")
	END
}

@test "smokeping: its configuration accepts the keys of the module and rejects invalid values" {
	need_smokeping
	local value
	smokeping_config 'type = daytime' 'transport = tls' 'port = 13' 'size = 100' 'interval = .5' 'waittime = 1.5' \
		'extraopts = -6 --cacert /etc/ssl/lab.pem' 'pings = 5' >right
	run -0 smokeping check right
	[[ $output == *'syntax OK'* ]]
	for value in 'type = finger' 'transport = sctp' 'port = echo' 'size = -1' 'interval = often' 'waittime = 1s'; do
		smokeping_config "$value" >wrong
		run ! smokeping check wrong
		[[ $output == *"syntax error in value of '${value%% *}'"* ]]
	done
	smokeping_config 'colour = red' >wrong
	run ! smokeping check wrong
	[[ $output == *"unknown variable 'colour'"* ]]
	smokeping_config | sed 's|^binary = .*|binary = /missing/smallprobe|' >wrong
	run ! smokeping check wrong
	[[ $output == *"SmallProbe 'binary' /missing/smallprobe is not executable"* ]]
}

@test "smokeping: the generated documentation has every key of the module" {
	need_smokeping
	local key
	run -0 smokeping makepod
	[[ $output == *"SmallProbe - measures small services"* ]]
	for key in binary type transport port size interval waittime extraopts forks pings timeout; do
		[[ $output == *"=item $key"$'\n'* ]]
	done
}

@test "smokeping: the module compiles without a warning" {
	need_programs perl
	run -0 smokeping compiles
	[[ -z $output ]]
}

# complete_words WORD...: prints the completions of the last word.
complete_words() {
	bash -c '
		source "$1" && shift
		COMP_WORDS=(smallprobe "$@") COMP_CWORD=$#
		_smallprobe
		printf "%s\n" "${COMPREPLY[@]}"
	' bash "$SOURCE/completion/smallprobe" "$@"
}

@test "completion: types, hosts and arguments of options are completed" {
	[[ $(complete_words d | sort | xargs) == 'daytime discard' ]]
	[[ $(complete_words -u --proxy '' | xargs) == 'v1 v2' ]]
	[[ $(complete_words --dscp e | xargs) == ef ]]
	[[ $(complete_words -I l) == *lo* ]]
	[[ -z $(complete_words -c '') ]]
	touch some.pem
	[[ $(complete_words --cacert some) == some.pem ]]
	[[ -z $(complete_words echo chargen-) ]]
}

@test "completion: every option of --help is completed and in the manual page" {
	local option
	"$SMALLPROBE" --help | sed -nE 's/^  (-.), (--[a-z0-9-]+).*/\1\n\2/p; s/^      (--[a-z0-9-]+).*/\1/p' | sort >options
	(($(wc -l <options) > 50))
	{
		complete_words -
		complete_words --
	} | sort -u >completed
	[[ -z $(comm -23 options completed) ]]
	while read -r option; do
		grep -qE -e "^\.It Fl ${option#-}( |$)" -e "^\.It Fl . , ${option#-}( |$)" "$SOURCE/doc/smallprobe.1" ||
			fail "smallprobe.1 does not have $option"
	done <options
}
