#!/usr/bin/env bats
# The linters of tests/lint, each on a small tree of its own that breaks one rule.

# shellcheck disable=SC2016 # the literals of Markdown and bash are not expanded here

bats_require_minimum_version 1.5.0

setup() {
	: "${TESTS_SRCDIR:=$(cd "$BATS_TEST_DIRNAME/.." && pwd)}"
	TREE=$BATS_TEST_TMPDIR/tree
	export PYTHONDONTWRITEBYTECODE=1
	make_tree
}

# A tree that satisfies all rules.
make_tree() {
	mkdir -p "$TREE/src/core" "$TREE/src/net" "$TREE/src/probe" "$TREE/doc" "$TREE/tests"
	echo 'int log_open(void); /* Opens the log. */' >"$TREE/src/core/log.h"
	write src/net/tcp.c '#include "net/tcp.h"' '#include "core/log.h"' '' 'int tcp_start(void)' '{' 'return log_open();' '}'
	write src/net/tcp.h 'int tcp_start(void);'
	write src/probe/main.c '#include "core/log.h"' 'int main(void)' '{' 'return log_open();' '}'
	write README.md 'A daemon for small services.'
	write CONTRIBUTING.md 'Run the tests.'
	write NEWS.md 'The first release.'
	write doc/map.md 'A map of the sources.'
}

# write FILE LINE...: a file of the tree.
write() {
	local file=$1
	shift
	printf '%s\n' "$@" >"$TREE/$file"
}

# write_function NAME LINES: on standard output, a function of LINES lines.
write_function() {
	local count
	printf 'static int %s(int value)\n{\n' "$1"
	for ((count = 3; count < $2; count++)); do
		printf '\tvalue++;\n'
	done
	printf '}\n'
}

# words COUNT: that many words without a word of any group.
words() {
	local text
	printf -v text 'word %.0s' $(seq "$1")
	echo "$text"
}

sources() {
	"$TESTS_SRCDIR/lint/sources" --root "$TREE" "$@"
}

prose() {
	"$TESTS_SRCDIR/lint/prose" --root "$TREE" "$@"
}

documents() {
	"$TESTS_SRCDIR/lint/documents" "$TREE"
}

messages() {
	"$TESTS_SRCDIR/lint/messages" "$TREE"
}

# The linter given fails and its whole output is LINE.
assert_violation() {
	local line=$1
	shift
	run "$@"
	[[ $status == 1 && $output == "$line" ]] || {
		echo "status $status: $output"
		return 1
	}
}

# The linter given fails and a line of its output is LINE.
assert_reported() {
	local line=$1
	shift
	run "$@"
	if [[ $status != 1 ]] || ! grep -qxF -e "$line" <<<"$output"; then
		echo "status $status: $output"
		return 1
	fi
}

@test "lint: a tree that satisfies all rules passes" {
	sources
	prose
}

@test "lint: an unknown rule or area is a usage error" {
	run -2 sources functionz
	run -2 prose source
}

@test "lint includes: a header of a higher folder is reported" {
	write src/core/log.c '#include "core/log.h"' '#include "net/tcp.h"'
	assert_violation 'src/core/log.c:2: core/ may not include net/tcp.h' sources includes
}

@test "lint includes: a relative path to a higher folder is reported" {
	write src/core/log.c '#include "../net/tcp.h"'
	assert_violation 'src/core/log.c:1: core/ may not include ../net/tcp.h' sources includes
}

@test "lint includes: the probe may include core only" {
	write src/probe/main.c '#include "net/tcp.h"'
	assert_violation 'src/probe/main.c:1: probe/ may not include net/tcp.h' sources includes
}

@test "lint includes: a subfolder obeys the rules of its folder" {
	mkdir "$TREE/src/probe/load"
	write src/probe/load/load.h ''
	write src/probe/main.c '#include "probe/load/load.h"'
	sources includes
	write src/probe/load/load.h '#include "net/tcp.h"'
	assert_violation 'src/probe/load/load.h:1: probe/ may not include net/tcp.h' sources includes
}

@test "lint includes: a header of a folder above all others is reported" {
	write src/main.h ''
	write src/net/tcp.h '#include "main.h"'
	assert_violation 'src/net/tcp.h:1: net/ may not include main.h' sources includes
}

@test "lint includes: a folder that the table does not name is reported" {
	mkdir "$TREE/src/extra"
	write src/extra/extra.c '#include "core/log.h"'
	assert_violation 'src/extra/extra.c:1: the folder extra/ is not in MAY_INCLUDE' sources includes
}

@test "lint includes: generated and system headers are not checked" {
	write src/core/log.c '#include "config_build.h"' '#include <stdio.h>'
	sources includes
}

@test "lint cycles: two headers that include each other are reported" {
	write src/net/udp.h '#include "net/tcp.h"'
	write src/net/tcp.h '#include "net/udp.h"'
	assert_violation 'src/net/tcp.h:1: include cycle: net/tcp -> net/udp -> net/tcp' sources cycles
}

@test "lint cycles: a cycle over the sources of three modules is reported" {
	write src/net/accept.h ''
	write src/net/accept.c '#include "net/udp.h"'
	write src/net/udp.h ''
	write src/net/udp.c '#include "net/tcp.h"'
	write src/net/tcp.c '#include "net/accept.h"'
	assert_violation 'src/net/accept.c:1: include cycle: net/accept -> net/udp -> net/tcp -> net/accept' sources cycles
}

@test "lint cycles: each of two separate cycles is reported" {
	write src/net/udp.h '#include "net/tcp.h"'
	write src/net/tcp.h '#include "net/udp.h"'
	write src/core/log.h '#include "core/clock.h"'
	write src/core/clock.h '#include "core/log.h"'
	assert_violation "$(printf '%s\n' 'src/core/clock.h:1: include cycle: core/clock -> core/log -> core/clock' \
		'src/net/tcp.h:1: include cycle: net/tcp -> net/udp -> net/tcp')" sources cycles
}

@test "lint cycles: a module that includes its own header passes" {
	sources cycles
}

@test "lint files: 700 lines pass, 701 are reported" {
	yes 'int x;' | head -n 700 >"$TREE/src/net/tcp.h" || true
	sources files
	echo 'int x;' >>"$TREE/src/net/tcp.h"
	assert_violation 'src/net/tcp.h:701: 701 lines, at most 700' sources files
}

@test "lint folders: 22 modules pass, 23 are reported" {
	local number
	for number in {2..22}; do
		write "src/net/module_$number.c" ''
		write "src/net/module_$number.h" ''
	done
	sources folders
	write src/net/module_23.h ''
	assert_violation 'src/net:1: 23 modules, at most 22' sources folders
}

@test "lint functions: 56 lines pass, 57 are reported" {
	write_function longest 56 >"$TREE/src/net/tcp.c"
	sources functions
	write_function too_long 57 >>"$TREE/src/net/tcp.c"
	assert_violation 'src/net/tcp.c:57: too_long has 57 lines, at most 56' sources functions
}

@test "lint functions: braces in comments, literals and preprocessor lines are not code" {
	{
		write_function first 56
		printf '%s\n' '/* { " */' '// {' 'static const char *text = "{\"";' "static const char brace = '{';" $'#define OPEN \\\n\t{'
		write_function second 57
	} >"$TREE/src/net/tcp.c"
	assert_violation 'src/net/tcp.c:63: second has 57 lines, at most 56' sources functions
}

@test "lint functions: structures, tables and declarations are not functions" {
	{
		echo 'struct big {'
		yes 'int x;' | head -n 100 || true
		printf '%s\n' '};' 'int declared(int);' 'static const int table[] = {'
		yes '0,' | head -n 100 || true
		echo '};'
	} >"$TREE/src/net/tcp.c"
	sources functions
}

@test "lint functions: parameters over several lines and attributes are found" {
	{
		printf '%s\n' 'static __attribute__((noreturn)) void' 'wide(int one,' 'int two) __attribute__((cold))'
		write_function body 57 | tail -n +2
	} >"$TREE/src/net/tcp.c"
	assert_violation 'src/net/tcp.c:2: wide has 58 lines, at most 56' sources functions
}

@test "lint prose: one word of a group in 1,000 passes, two are reported" {
	write README.md "$(words 1500) who"
	prose readme
	write README.md "$(words 1500)" 'whoever' 'Who'
	assert_violation "$(printf '%s\n' "README.md:1: 1.3 words per 1,000 are of the group 'who', at most 1" \
		'README.md:2: whoever' 'README.md:3: Who')" prose readme
}

@test "lint prose: each group has its limit" {
	local word
	for word in whose whatever tells nowhere; do
		write README.md "$(words 100) $word"
		assert_reported "README.md:1: $word" prose readme
		write src/net/tcp.h "/* $(words 100) $word */"
		assert_reported "src/net/tcp.h:1: $word" prose src
	done
}

@test "lint prose: README.md, and CONTRIBUTING.md with NEWS.md, are measured apart" {
	write README.md "$(words 10000)"
	write NEWS.md "$(words 100) whose"
	prose readme
	assert_reported 'NEWS.md:1: whose' prose contributing
	write CONTRIBUTING.md "$(words 1000)"
	prose contributing
}

@test "lint prose: code and literals in documents are not prose" {
	write README.md 'Run `tell nobody`, see [the map](nowhere.md).' '```' 'whoever' '```'
	write doc/daemon.8 '.Ql nobody' '.Ic what' '.Bd -literal' 'nothing' '.Ed' '.Nm' 'serves.'
	prose readme doc
}

@test "lint prose: text of a manual page is prose" {
	write doc/daemon.8 '.Sh NAME' 'The client' '.Em who' 'connects.'
	assert_reported 'doc/daemon.8:3: who' prose doc
}

@test "lint prose: the user name nobody is not a word of a group" {
	write README.md 'The daemon becomes the user nobody, or `nobody`.'
	prose readme
}

@test "lint prose: code and literals of C are not prose, comments are" {
	write src/net/tcp.c 'static const char *who = "/* nobody */";' 'int what; // whatever' '/* The client' ' * nobody */'
	assert_reported 'src/net/tcp.c:2: whatever' prose src
	run prose src
	[[ $output == *"src/net/tcp.c:4: nobody"* && $output != *:1:\ nobody* && $output != *": what" ]]
}

@test "lint prose: comments and titles of bats tests are prose, code is not" {
	write tests/a.bats '# whoever' '@test "echo: what comes back" {' 'tell nobody # nowhere' 'echo "${#who}"' '}'
	run prose tests
	[[ $status == 1 ]]
	[[ $(grep -c '^tests/a.bats:' <<<"$output") == 3 ]]
	for line in '1: whoever' '2: what' '3: nowhere'; do
		grep -qxF "tests/a.bats:$line" <<<"$output"
	done
}

@test "lint prose: comments and docstrings of Python are prose, other strings are not" {
	write tests/a.py '"""Whoever' 'comes."""' 'who = "nobody"' 'def what():' '    """Nowhere."""' '    return who  # told'
	cp "$TREE/tests/a.py" "$TREE/tests/b"
	sed -i '1i #!/usr/bin/env python3' "$TREE/tests/b"
	run prose tests
	[[ $status == 1 ]]
	[[ $(grep -c '^tests/[ab]' <<<"$output") == 6 ]]
	for line in a.py:1:\ Whoever a.py:5:\ Nowhere a.py:6:\ told b:2:\ Whoever b:6:\ Nowhere b:7:\ told; do
		grep -qxF "tests/$line" <<<"$output"
	done
}

@test "lint documents: a link to a missing file is reported, others are not" {
	write doc/architecture.md 'See [the map](map.md), [news](../NEWS.md#first), [the web](https://example.org) and [it](gone.md).'
	assert_violation "$TREE/doc/architecture.md: no such file: gone.md" documents
}

@test "lint documents: a missing path of the tree is reported" {
	write doc/architecture.md 'A map.'
	write doc/map.md 'See `src/core/log.h`, `src/core/gone.c` and `tests/check_MODULE.c`.'
	assert_violation "$TREE/doc/map.md: no such file: src/core/gone.c" documents
}

@test "lint documents: a function that is not in the file named beside it is reported" {
	write doc/architecture.md '| start | `tcp_start` | `net/tcp.c` |' '| stop | `tcp_start`, `tcp_stop` | `net/tcp.c` |'
	assert_violation "$TREE/doc/architecture.md: tcp_stop is not in tcp.c" documents
}

# write_manual LINE...: a manual with a list of log messages.
write_manual() {
	write doc/smallservd.8 .Sh\ RELOAD '.Bd -literal' 'an example' .Ed .Sh\ LOG '.Bd -literal -offset indent' "$@" .Ed .Sh\ COUNTERS
}

# write_source STATEMENT...: a source that logs.
write_source() {
	write src/net/tcp.c '#define VARIABLE "LISTEN_FDS"' 'void tcp_log(const char *name, bool own)' '{' "$@" '}'
}

@test "lint messages: a manual that lists the logged messages passes" {
	write_manual 'cannot start worker N: REASON' stopped
	write_source 'log_error("cannot start worker %u: %s", i, strerror(error));' 'log_notice("stopped");'
	messages
}

@test "lint messages: a logged message that the manual lacks is reported" {
	write_manual stopped
	write_source 'log_notice("stopped");' 'log_warning("cannot write %s: %s", path,' 'strerror(errno));'
	assert_violation 'src/net/tcp.c:5: not in doc/smallservd.8: cannot write ...: ...' messages
}

@test "lint messages: a message of the manual that no source logs is reported" {
	write_manual stopped 'started: N workers'
	write_source 'log_notice("stopped");' '/* log_notice("started: %u workers", count); */'
	assert_violation 'doc/smallservd.8:8: logged by no source: started: N workers' messages
}

@test "lint messages: a message with other constant words is reported on both sides" {
	write_manual 'NAME: cannot join GROUP: REASON'
	write_source 'log_error("%s: cannot leave %s: %s", name, text, strerror(errno));'
	assert_violation "$(printf '%s\n' 'src/net/tcp.c:4: not in doc/smallservd.8: ...: cannot leave ...: ...' \
		'doc/smallservd.8:7: logged by no source: NAME: cannot join GROUP: REASON')" messages
}

@test "lint messages: debug lines, the probe and lines of conversions alone need no entry" {
	write_manual stopped
	write src/probe/main.c 'int main(void)' '{' 'log_error("no reply");' '}'
	write_source 'log_notice("stopped");' 'log_debug("late");' 'log_write(LOG_DEBUG, &context, "later");' 'log_error("%s", text());' \
		'log_error("%s: %s", a(), b());'
	messages
}

@test "lint messages: a function after a macro with an escape sequence is examined" {
	write_manual stopped
	write src/net/tcp.c '#define TEXT "a\nb = c\n"' 'void tcp_log(void)' '{' 'log_notice("stopped");' '}'
	messages
}

@test "lint messages: macros, adjacent literals and PRI conversions are part of the format" {
	write_manual 'LISTEN_FDS: N bytes'
	write_source 'diagnostics_log(diagnostics, NULL, VARIABLE ": %" PRId64 " bytes", size);'
	messages
}

@test "lint messages: a line of a service starts with its name, and with a peer with transport and source" {
	write_manual 'NAME: pauses' 'NAME: tcp SOURCE refused: REASON'
	write_source 'instance_log(instance, LOG_WARNING, TRANSPORT_TCP, NULL, "pauses");' \
		'instance_log(instance, LOG_WARNING, TRANSPORT_TCP, &peer, "refused: %s", reason());'
	messages
	write_manual pauses 'NAME: refused: REASON'
	assert_reported 'src/net/tcp.c:4: not in doc/smallservd.8: ...: pauses' messages
	assert_reported 'src/net/tcp.c:5: not in doc/smallservd.8: ...: tcp ... refused: ...' messages
}

@test "lint messages: each branch of a condition is a message, equal conditions have equal values" {
	write_manual 'limit of the service: N' 'limit of the daemon'
	write_source 'log_notice("limit of the %s%s%d", own ? "service" : "daemon", own ? ": " : "", n);'
	assert_reported 'src/net/tcp.c:4: not in doc/smallservd.8: limit of the daemon...' messages
	write_manual 'limit of the service: N' 'limit of the daemonN'
	run messages
	[[ $output != *'service...'* && $output != *'daemon: '* ]]
}

@test "lint messages: a text is followed into the function that fills the buffer and to callers" {
	write_manual 'cannot go: no path' 'worker started'
	write src/net/tcp.c 'static void fill(char text[SIZE])' '{' 'snprintf(text, SIZE, "no %s", "path");' '}' \
		'static void report(const char *event)' '{' 'log_notice("worker %s", event);' '}' \
		'void tcp_log(void)' '{' 'fill(error);' 'log_error("cannot go: %s", error);' 'report("started");' '}'
	messages
	sed -i 's/"started"/"stopped"/' "$TREE/src/net/tcp.c"
	assert_reported 'src/net/tcp.c:7: not in doc/smallservd.8: worker stopped' messages
}

@test "lint messages: REASON stands for any text, a continued line of the manual is one message" {
	write_manual 'upgrade failed: REASON' 'closed: N bytes received,' '    N sent'
	write_source 'log_error("upgrade failed: no such file");' 'log_notice("closed: %d bytes received, %d sent", 1, 2);'
	messages
}

@test "lint messages: a static function of another file is not followed" {
	write_manual 'worker started'
	write src/net/tcp.c 'static void report(const char *event)' '{' 'log_notice("worker %s", event);' '}' 'void tcp_log(void)' '{' \
		'report("started");' '}'
	write src/net/udp.c 'static int report(const char *text)' '{' 'return 0;' '}' 'int udp_log(void)' '{' 'return report("else");' '}'
	messages
}
