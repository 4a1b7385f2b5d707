/* check_ini.c: valid and invalid INI files. */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check_run.h"
#include "config/ini.h"
#include "core/array.h"

struct transcript {
	char *text;
	size_t size;
	FILE *out;
};

static void open_transcript(struct transcript *transcript)
{
	transcript->out = open_memstream(&transcript->text, &transcript->size);
	ck_assert_ptr_nonnull(transcript->out);
}

static void on_error(void *context, unsigned line, const char *section, const char *key, const char *message)
{
	struct transcript *transcript = context;
	fprintf(transcript->out, "%u:", line);
	if (section != NULL)
		fprintf(transcript->out, " [%s]", section);
	if (key != NULL)
		fprintf(transcript->out, " %s:", key);
	fprintf(transcript->out, " %s\n", message);
}

static void write_ini(struct transcript *transcript, const struct ini *ini)
{
	for (size_t i = 0; i < ini->section_count; i++) {
		const struct ini_section *section = &ini->sections[i];
		fprintf(transcript->out, "%u[%s]\n", section->line, section->name);
		for (size_t j = 0; j < section->entry_count; j++)
			fprintf(transcript->out, "%u %s=%s\n", section->entries[j].line, section->entries[j].key,
				section->entries[j].value);
	}
}

/* Returns the errors in LENGTH bytes, for the caller to free; then, if ALL, the content. The bytes are in a block of
 * the exact size, so that a sanitizer detects an overread. */
static char *read_bytes(const char *bytes, size_t length, bool all)
{
	struct transcript transcript;
	open_transcript(&transcript);
	char *copy = malloc(length);
	ck_assert(copy || length == 0);
	if (length > 0)
		memcpy(copy, bytes, length);
	struct ini *ini = ini_read_memory(copy, length, on_error, &transcript);
	free(copy);
	if (ini != NULL && all)
		write_ini(&transcript, ini);
	ini_free(ini);
	fclose(transcript.out);
	return transcript.text;
}

static void assert_read(const char *bytes, size_t length, const char *expected)
{
	char *text = read_bytes(bytes, length, true);
	ck_assert_str_eq(text, expected);
	free(text);
}

static void assert_errors(const char *bytes, size_t length, const char *expected)
{
	char *text = read_bytes(bytes, length, false);
	ck_assert_str_eq(text, expected);
	free(text);
}

static const struct {
	const char *text, *expected;
} readings[] = {
	{"", ""},
	{"\n\n \t\n", ""},
	{"[a]\nk = v\n", "1[a]\n2 k=v\n"},
	/* a last line without line end */
	{"[a]\nk=v", "1[a]\n2 k=v\n"},
	{"[a]", "1[a]\n"},
	/* line ends of other systems, a byte order mark */
	{"[a]\r\nk = v\r\n\r\n", "1[a]\n2 k=v\n"},
	{"[a]\nk = v\r", "1[a]\n2 k=v\n"},
	{"\xef\xbb\xbf[a]\nk = v\n", "1[a]\n2 k=v\n"},
	/* line numbers, and sections for which inih calls no callback */
	{"# one\n\n[empty]\n\n; five\n[a]\n\nk = v\n[last]\n", "3[empty]\n6[a]\n8 k=v\n9[last]\n"},
	/* indentation is no continuation */
	{"[a]\nk = v\n  l = w\n\tm = x\n  [b]\n", "1[a]\n2 k=v\n3 l=w\n4 m=x\n5[b]\n"},
	/* comments */
	{"[a] # why\nk = v ; w\nl = v#w;x # y\nm = #\n", "4: [a] m: empty value\n1[a]\n2 k=v\n3 l=v#w;x\n"},
	{"[a]\nk =# v\n", "1[a]\n2 k=# v\n"},
	{"  # k = v\n\t; [a]\n", ""},
	/* quotes stay, and keep comment signs */
	{"[a]\nf = \"%H ; %M # %S\" ; c\n", "1[a]\n2 f=\"%H ; %M # %S\"\n"},
	{"[a]\nf = \" \"\n", "1[a]\n2 f=\" \"\n"},
	{"[a]\nf = \"\"\n", "1[a]\n2 f=\"\"\n"},
	/* characters of a value */
	{"[a]\nk = a=b:c [d]\n", "1[a]\n2 k=a=b:c [d]\n"},
	{"[a]\nk = \xc3\xbc \xe2\x82\xac \xf0\x9f\x98\x80\n", "1[a]\n2 k=\xc3\xbc \xe2\x82\xac \xf0\x9f\x98\x80\n"},
	/* duplicates are checked by the caller */
	{"[a]\nk = v\nk = w\n[a]\nk = x\n", "1[a]\n2 k=v\n3 k=w\n4[a]\n5 k=x\n"},
};

START_TEST(sections_keys_and_values_have_their_lines)
{
	assert_read(readings[_i].text, strlen(readings[_i].text), readings[_i].expected);
}
END_TEST

static const struct {
	const char *text, *expected;
} errors[] = {
	{"[a\n", "1: section header without \"]\": \"[a\"\n"},
	{"[a # b]\n", "1: bad section name \"a # b\": 1 to 48 letters, digits, \"_\", \".\" and \"-\"\n"},
	{"[a] b\n", "1: text after \"]\": \"[a] b\"\n"},
	{"[a]# b\n", "1: text after \"]\": \"[a]# b\"\n"},
	{"[a]b] junk\n", "1: text after \"]\": \"[a]b] junk\"\n"},
	{"[]\n", "1: bad section name \"\": 1 to 48 letters, digits, \"_\", \".\" and \"-\"\n"},
	{"[a b]\n", "1: bad section name \"a b\": 1 to 48 letters, digits, \"_\", \".\" and \"-\"\n"},
	{"[\xc3\xbc]\n", "1: bad section name \"\xc3\xbc\": 1 to 48 letters, digits, \"_\", \".\" and \"-\"\n"},
	{"[a b]\nk = v\n", "1: bad section name \"a b\": 1 to 48 letters, digits, \"_\", \".\" and \"-\"\n"},
	{"[a]\nport: 7\n", "2: [a] \":\" after a key: write \"port = 7\"\n"},
	{"[a]\nport: a=b\n", "2: [a] \":\" after a key: write \"port = a=b\"\n"},
	{"[a]\nport\n", "2: [a] no \"=\" in \"port\": a line is \"key = value\"\n"},
	{"[a]\nport # = 7\n", "2: [a] no \"=\" in \"port\": a line is \"key = value\"\n"},
	{"[a]\nport\t7\n", "2: [a] no \"=\" in \"port 7\": a line is \"key = value\"\n"},
	{"[a]\n= 7\n", "2: [a] no key before \"=\"\n"},
	{"[a]\np rt = 7\n", "2: [a] bad key \"p rt\": 1 to 48 letters, digits, \"_\", \".\" and \"-\"\n"},
	{"[a]\nport =\n", "2: [a] port: empty value\n"},
	{"[a]\nport = ; 7\n", "2: [a] port: empty value\n"},
	{"[a]\nf = \"a\n", "2: [a] f: unclosed quote\n"},
	{"[a]\nf = \"\n", "2: [a] f: unclosed quote\n"},
	{"[a]\nf = \"a\" b\n", "2: [a] f: text after the closing quote\n"},
	{"[a]\nf = \"a\"#b\n", "2: [a] f: text after the closing quote\n"},
	{"[a]\nf = \"a\", \"b\"\n", "2: [a] f: text after the closing quote\n"},
	{"[a]\nf = a\"b\"\n", "2: [a] f: a quote inside a value: quotes go around the whole of it\n"},
	{"port = 7\n", "1: port: a key before any section\n"},
	{"[a]\nk = \x01\n", "2: [a] control character\n"},
	{"[a]\nk = \x7f\n", "2: [a] control character\n"},
	{"[a]\nk = \x1b[31m\n", "2: [a] control character\n"},
	{"[a]\nk = v\rl = w\n", "2: [a] control character\n"},
	{"[a]\nk = \xc2\x85\n", "2: [a] control character\n"},
	{"# \x02\n", "1: control character\n"},
	/* UTF-8: truncated, a lone byte, overlong, a surrogate, beyond Unicode */
	{"[a]\nk = \xc3\n", "2: [a] invalid UTF-8\n"},
	{"[a]\nk = \xc3", "2: [a] invalid UTF-8\n"},
	{"[a]\nk = \xe2\x82\n", "2: [a] invalid UTF-8\n"},
	{"[a]\nk = \x80\n", "2: [a] invalid UTF-8\n"},
	{"[a]\nk = \xc0\xaf\n", "2: [a] invalid UTF-8\n"},
	{"[a]\nk = \xe0\x80\xaf\n", "2: [a] invalid UTF-8\n"},
	{"[a]\nk = \xed\xa0\x80\n", "2: [a] invalid UTF-8\n"},
	{"[a]\nk = \xf4\x90\x80\x80\n", "2: [a] invalid UTF-8\n"},
	{"[a]\nk = \xf0\x9f\x98g\n", "2: [a] invalid UTF-8\n"},
	{"[a]\nk = \xff\n", "2: [a] invalid UTF-8\n"},
	{"# \xfc\n", "1: invalid UTF-8\n"},
};

START_TEST(ambiguous_input_is_refused)
{
	assert_errors(errors[_i].text, strlen(errors[_i].text), errors[_i].expected);
}
END_TEST

START_TEST(all_errors_are_reported)
{
	static const char text[] = "k = v\n[a\nk\n[b]\n= 1\nk: v\n\nk =\n[c c]\nl\n";
	assert_errors(text, strlen(text),
		      "1: k: a key before any section\n"
		      "2: section header without \"]\": \"[a\"\n"
		      "3: [a] no \"=\" in \"k\": a line is \"key = value\"\n"
		      "5: [b] no key before \"=\"\n"
		      "6: [b] \":\" after a key: write \"k = v\"\n"
		      "8: [b] k: empty value\n"
		      "9: bad section name \"c c\": 1 to 48 letters, digits, \"_\", \".\" and \"-\"\n"
		      "10: no \"=\" in \"l\": a line is \"key = value\"\n");
}
END_TEST

START_TEST(nul_bytes_and_later_errors_are_reported)
{
	static const char text[] = "[a]\nk = v\0w\nl = x\n";
	assert_read(text, sizeof text - 1, "2: [a] NUL byte\n1[a]\n3 l=x\n");
}
END_TEST

/* inih would add such keys to the section before. */
START_TEST(keys_below_an_invalid_header_join_no_section)
{
	static const char *const headers[] = {"[b\n", "[b] x\n", "[b b]\n", "[b\x01]\n", "[b\xff]\n", "[\n"};
	for (size_t i = 0; i < COUNT_OF(headers); i++) {
		char text[64];
		snprintf(text, sizeof text, "[a]\nk = v\n%sl = w\n", headers[i]);
		char *read = read_bytes(text, strlen(text), true);
		ck_assert_ptr_nonnull(strstr(read, "1[a]\n2 k=v\n"));
		ck_assert_ptr_null(strstr(read, "2 k=v\n4 l=w\n"));
		free(read);
	}
}
END_TEST

START_TEST(section_name_of_49_bytes_is_refused)
{
	char name[64], text[128], expected[256];

	memset(name, 'n', sizeof name);
	snprintf(text, sizeof text, "[%.48s]\n", name);
	snprintf(expected, sizeof expected, "1[%.48s]\n", name);
	assert_read(text, strlen(text), expected);

	snprintf(text, sizeof text, "[%.49s]\n", name);
	snprintf(expected, sizeof expected,
		 "1: bad section name \"%.49s\": 1 to 48 letters, digits, \"_\", \".\" and \"-\"\n", name);
	assert_read(text, strlen(text), expected);
}
END_TEST

START_TEST(key_of_49_bytes_is_refused)
{
	char key[64], text[128], expected[256];

	memset(key, 'k', sizeof key);
	snprintf(text, sizeof text, "[a]\n%.48s = v\n", key);
	snprintf(expected, sizeof expected, "1[a]\n2 %.48s=v\n", key);
	assert_read(text, strlen(text), expected);

	snprintf(text, sizeof text, "[a]\n%.49s = v\n", key);
	snprintf(expected, sizeof expected,
		 "2: [a] bad key \"%.49s\": 1 to 48 letters, digits, \"_\", \".\" and \"-\"\n", key);
	assert_errors(text, strlen(text), expected);
}
END_TEST

/* Returns a file whose second line has LENGTH bytes, `k = vvv`, and the expected result, both for the caller to free.
 */
static char *make_long_line(size_t length, char **expected)
{
	char *text = malloc(length + 64);
	ck_assert_ptr_nonnull(text);
	strcpy(text, "[a]\nk = ");
	memset(text + 8, 'v', length - 4);
	strcpy(text + 4 + length, "\nl = w\n");

	*expected = malloc(length + 64);
	ck_assert_ptr_nonnull(*expected);
	sprintf(*expected, "1[a]\n2 k=%.*s\n3 l=w\n", (int)(length - 4), text + 8);
	return text;
}

/* inih splits lines at 199 bytes. */
START_TEST(line_of_4096_bytes_is_read_whole)
{
	static const size_t lengths[] = {150, 197, 198, 199, 200, 201, 202, 398, 400, 1000, 4095, 4096};
	for (size_t i = 0; i < COUNT_OF(lengths); i++) {
		char *expected, *text = make_long_line(lengths[i], &expected);
		assert_read(text, strlen(text), expected);
		free(text);
		free(expected);
	}
}
END_TEST

START_TEST(line_of_4097_bytes_is_refused_once)
{
	static const size_t lengths[] = {4097, 5000, 100000};
	for (size_t i = 0; i < COUNT_OF(lengths); i++) {
		char *expected, *text = make_long_line(lengths[i], &expected);
		assert_read(text, strlen(text), "2: [a] line over 4096 bytes\n1[a]\n3 l=w\n");
		free(text);
		free(expected);
	}
}
END_TEST

START_TEST(quoted_text_is_shortened_between_characters)
{
	char text[256] = "[a]\n", expected[256] = "2: [a] no \"=\" in \"";

	for (size_t i = 0; i < 40; i++)
		strcat(text, "\xe2\x82\xac");
	for (size_t i = 0; i < 20; i++)
		strcat(expected, "\xe2\x82\xac");
	strcat(expected, "...\": a line is \"key = value\"\n");
	assert_errors(text, strlen(text), expected);

	/* the 60th byte is within a character */
	memmove(text + 5, text + 4, strlen(text + 4) + 1);
	text[4] = 'x';
	strcpy(expected, "2: [a] no \"=\" in \"x");
	for (size_t i = 0; i < 19; i++)
		strcat(expected, "\xe2\x82\xac");
	strcat(expected, "...\": a line is \"key = value\"\n");
	assert_errors(text, strlen(text), expected);
}
END_TEST

START_TEST(file_above_16_mib_is_refused)
{
	size_t length = 16 * 1024 * 1024 + 1;
	char *text = malloc(length);
	ck_assert_ptr_nonnull(text);
	memset(text, '\n', length);
	assert_errors(text, length, "0: over 16 MiB\n");
	assert_errors(text, length - 1, "");
	free(text);
}
END_TEST

/* --- files --- */

typedef struct ini *read_ini(const char *path, ini_on_error on_error, void *context);

static char *read_path(const char *path, read_ini *read)
{
	struct transcript transcript;
	open_transcript(&transcript);
	struct ini *ini = read(path, on_error, &transcript);
	if (ini != NULL)
		write_ini(&transcript, ini);
	ini_free(ini);
	fclose(transcript.out);
	return transcript.text;
}

static void assert_opened(const char *path, read_ini *read, const char *expected)
{
	char *text = read_path(path, read);
	ck_assert_str_eq(text, expected);
	free(text);
}

/* Checks PATH as the file of the command line, and as an included one. */
static void assert_path(const char *path, const char *expected)
{
	assert_opened(path, ini_read_file, expected);
	assert_opened(path, ini_read_input, expected);
}

/* Creates a file with TEXT; its name is for the caller to remove and free. */
static char *make_file(const char *text)
{
	char *path = strdup("/tmp/check_ini.XXXXXX");
	int descriptor = mkstemp(path);
	ck_assert_int_ge(descriptor, 0);
	ck_assert_int_eq(write(descriptor, text, strlen(text)), (ssize_t)strlen(text));
	close(descriptor);
	return path;
}

START_TEST(file_is_read)
{
	char *path = make_file("[a]\nk = v\n");
	assert_path(path, "1[a]\n2 k=v\n");
	unlink(path);
	free(path);
}
END_TEST

START_TEST(stdin_is_read)
{
	char *path = make_file("[a]\nk = v\n");
	ck_assert_ptr_nonnull(freopen(path, "r", stdin));
	assert_opened("-", ini_read_input, "1[a]\n2 k=v\n");
	unlink(path);
	free(path);
}
END_TEST

START_TEST(directory_is_refused)
{
	assert_path("/tmp", "0: cannot read: Is a directory\n");
}
END_TEST

START_TEST(missing_file_is_refused)
{
	assert_path("/nonexistent/x.conf", "0: cannot read: No such file or directory\n");
}
END_TEST

START_TEST(unreadable_file_is_refused)
{
	char *path = make_file("[a]\n");
	ck_assert_int_eq(chmod(path, 0), 0);
	if (geteuid() == 0)
		ck_assert_int_eq(seteuid(65534), 0);
	assert_path(path, "0: cannot read: Permission denied\n");
	if (getuid() == 0)
		ck_assert_int_eq(seteuid(0), 0);
	unlink(path);
	free(path);
}
END_TEST

START_TEST(endless_file_is_refused)
{
	assert_opened("/dev/zero", ini_read_input, "0: over 16 MiB\n");
	assert_opened("/dev/zero", ini_read_file, "0: cannot read: not a regular file\n");
}
END_TEST

START_TEST(only_a_pipe_of_the_command_line_is_waited_for)
{
	static const char text[] = "[a]\nk = v\n";
	char path[64];
	int ends[2];
	ck_assert_int_eq(pipe(ends), 0);
	snprintf(path, sizeof path, "/dev/fd/%d", ends[0]);
	assert_opened(path, ini_read_file, "0: cannot read: not a regular file\n");
	ck_assert_int_eq(write(ends[1], text, strlen(text)), (ssize_t)strlen(text));
	close(ends[1]);
	assert_opened(path, ini_read_input, "1[a]\n2 k=v\n");
	close(ends[0]);
}
END_TEST

static Suite *make_suite(void)
{
	Suite *suite = suite_create("ini");
	TCase *texts = tcase_create("texts");
	tcase_add_loop_test(texts, sections_keys_and_values_have_their_lines, 0, COUNT_OF(readings));
	tcase_add_loop_test(texts, ambiguous_input_is_refused, 0, COUNT_OF(errors));
	tcase_add_test(texts, all_errors_are_reported);
	tcase_add_test(texts, nul_bytes_and_later_errors_are_reported);
	tcase_add_test(texts, keys_below_an_invalid_header_join_no_section);
	tcase_add_test(texts, section_name_of_49_bytes_is_refused);
	tcase_add_test(texts, key_of_49_bytes_is_refused);
	tcase_add_test(texts, line_of_4096_bytes_is_read_whole);
	tcase_add_test(texts, line_of_4097_bytes_is_refused_once);
	tcase_add_test(texts, quoted_text_is_shortened_between_characters);
	tcase_add_test(texts, file_above_16_mib_is_refused);
	suite_add_tcase(suite, texts);

	TCase *files = tcase_create("files");
	tcase_add_test(files, file_is_read);
	tcase_add_test(files, stdin_is_read);
	tcase_add_test(files, directory_is_refused);
	tcase_add_test(files, missing_file_is_refused);
	tcase_add_test(files, unreadable_file_is_refused);
	tcase_add_test(files, endless_file_is_refused);
	tcase_add_test(files, only_a_pipe_of_the_command_line_is_waited_for);
	suite_add_tcase(suite, files);
	return suite;
}

int main(void)
{
	return check_run(make_suite());
}
