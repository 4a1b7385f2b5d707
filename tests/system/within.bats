#!/usr/bin/env bats
# tests/within: all processes that a leg of `./dev check` has started end with it.

load helpers

within() {
	timeout $((DEADLINE * 2)) "$TESTS_SRCDIR/within" "$@"
}

# Writes a program that does not exit, with children in another process group, in another session, and orphaned in
# another session. Each writes its process id to a file of its name. The given lines are the first of each script.
write_strays() {
	local name
	for name in stray grouped in_session orphan; do
		printf '%s\n' '#!/bin/sh' "$@" "echo \$\$ >$name.new && mv $name.new $name" 'while :; do sleep 1; done' >"$name.sh"
	done
	cat >strays <<-'END'
		#!/bin/bash
		set -m
		sh grouped.sh &
		setsid sh in_session.sh &
		setsid sh -c 'setsid sh orphan.sh & exit 0'
		exec sh stray.sh
	END
	chmod +x strays
}

all_started() {
	[[ -e stray && -e grouped && -e in_session && -e orphan ]]
}

assert_all_ended() {
	local name
	for name in stray grouped in_session orphan; do
		[[ -s $name ]]
		run ! running "$(<"$name")"
	done
}

# Starts tests/within in the background. teardown ends it if the test fails.
within_background() {
	"$TESTS_SRCDIR/within" "$@" </dev/null >output 2>&1 3>&- 4>&- &
	HELPER=$!
	BACKGROUND+=("$HELPER")
}

@test "within: output and exit status of the command are passed on" {
	run -0 within 1000 1 echo hello
	[[ $output == hello ]]
	run -7 within 1000 1 sh -c 'exit 7'
	[[ -z $output ]]
	run -137 within 1000 1 sh -c 'kill -KILL $$'
	run -127 within 1000 1 /missing/program
	[[ $output == *'/missing/program: No such file'* ]]
	run -2 within
	run -2 within 1000 1
	run -2 within soon 1 true
}

@test "within: the command starts with the signal mask and dispositions of the caller" {
	run -0 within 1000 1 grep -E '^Sig(Blk|Ign)' /proc/self/status
	[[ $output == "$(grep -E '^Sig(Blk|Ign)' /proc/self/status)" ]]
}

@test "within: at a signal or at the time limit all descendants are ended" {
	write_strays
	within_background 1000 10 ./strays
	wait_until all_started
	kill -TERM "$HELPER"
	wait "$HELPER" || [[ $? == 143 ]]
	assert_all_ended
	[[ $(grep -c '^within: ending [0-9]' output) -ge 4 ]]
	run -124 within 0.2 10 sleep 1000
	[[ $output == *'ending '*' sleep 1000' ]]
}

@test "within: descendants that ignore SIGTERM are killed" {
	write_strays 'trap "" TERM'
	within_background 1000 0.5 ./strays
	wait_until all_started
	kill -TERM "$HELPER"
	wait "$HELPER" || [[ $? == 143 ]]
	assert_all_ended
}

@test "within: descendants that outlive the command are ended" {
	write_strays
	sed -i 's/^exec.*/sh stray.sh \&/' strays
	cat >>strays <<-'END'
		until [[ -e stray && -e grouped && -e in_session && -e orphan ]]; do sleep 0.02; done
		exit 5
	END
	run -5 within 1000 10 ./strays
	assert_all_ended
}

@test "within: no command is started if the caller has exited before" {
	run -0 sh -c "WITHIN_CALLER=\$\$ '$TESTS_SRCDIR/within' 1000 1 env; exit"
	[[ $output == *PATH=* && $output != *WITHIN_CALLER* ]]
	WITHIN_CALLER=$PPID run -143 within 1000 1 touch started # the caller is timeout(1)
	[[ ! -e started ]]
}

@test "within: a terminated test with a second try leaves no temporary file" {
	mkdir temporary
	printf '%s\n' '#!/bin/sh' 'touch started' 'sleep 1000' >test.sh
	SECOND_TRIES='' TMPDIR=$PWD/temporary within_background 1000 10 "$TESTS_SRCDIR/again" sh test.sh
	wait_until test -e started
	[[ $(ls temporary) ]]
	kill -TERM "$HELPER"
	wait "$HELPER" || [[ $? == 143 ]]
	[[ ! $(ls temporary) ]]
}

@test "within: all descendants are ended when the caller is killed" {
	write_strays
	printf '%s\n' '#!/bin/sh' "'$TESTS_SRCDIR/within' 1000 10 ./strays; exit" >caller.sh
	sh caller.sh </dev/null >output 2>&1 3>&- 4>&- &
	local caller=$!
	BACKGROUND+=("$caller")
	wait_until all_started
	kill -KILL "$caller"
	all_ended() {
		local name
		for name in stray grouped in_session orphan; do
			! running "$(<"$name")" || return
		done
	}
	wait_until all_ended
}
