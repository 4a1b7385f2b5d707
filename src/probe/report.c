/* report.c: output for people: lines with time and colour as the options say. */
#include "probe/report.h"

#include <stdarg.h>
#include <string.h>
#include <time.h>

static void print_time(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	printf("[%lld.%06ld] ", (long long)now.tv_sec, now.tv_nsec / 1000);
}

static void print_line(const struct options *options, enum report_tone tone, const char *format, va_list values)
	__attribute__((format(printf, 3, 0)));

/* Prints a line and flushes it: the reader of a pipe sees it at once. */
static void print_line(const struct options *options, enum report_tone tone, const char *format, va_list values)
{
	static const char *const colours[] = {
		[REPORT_PLAIN] = "", [REPORT_GOOD] = "\x1b[32m", [REPORT_BAD] = "\x1b[31m"};
	bool coloured = options->colour && tone != REPORT_PLAIN;

	if (coloured)
		fputs(colours[tone], stdout);
	vprintf(format, values);
	if (coloured)
		fputs("\x1b[m", stdout);
	putchar('\n');
	fflush(stdout);
}

void report_line(const struct options *options, enum report_tone tone, const char *format, ...)
{
	va_list values;

	if (options->quiet || options->json || options->silent)
		return;
	if (options->timestamps)
		print_time();
	va_start(values, format);
	print_line(options, tone, format, values);
	va_end(values);
}

void report_summary(const struct options *options, enum report_tone tone, const char *format, ...)
{
	va_list values;

	if (options->json || options->silent)
		return;
	va_start(values, format);
	print_line(options, tone, format, values);
	va_end(values);
}

/* Returns the length of the printable UTF-8 character at AT; 0: none. */
static size_t printable(const unsigned char *at, size_t left)
{
	size_t length = at[0] < 0x80 ? 1 : at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;

	if (length == 1)
		return at[0] == '\n' || at[0] == '\t' || (at[0] >= ' ' && at[0] != 0x7f);
	if (at[0] < 0xc2 || at[0] > 0xf4 || length > left)
		return 0;
	for (size_t i = 1; i < length; i++)
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	return at[0] == 0xc2 && at[1] < 0xa0 ? 0 : length;
}

void report_text(const struct options *options, const char *bytes, size_t length)
{
	const unsigned char *at = (const unsigned char *)bytes, *end = at + length;

	if (options->quiet || options->json || options->silent)
		return;
	while (at < end) {
		size_t whole = printable(at, (size_t)(end - at));

		if (whole > 0)
			fwrite(at, 1, whole, stdout);
		else if (at[0] != '\r' || at + 1 == end || at[1] != '\n')
			printf("\\x%02x", at[0]);
		at += whole > 0 ? whole : 1;
	}
	if (length > 0 && end[-1] != '\n')
		putchar('\n');
	fflush(stdout);
}

bool report_is_lost(void)
{
	return ferror(stdout);
}

void report_error(const char *format, ...)
{
	va_list values;

	fflush(stdout);
	fputs("smallprobe: ", stderr);
	va_start(values, format);
	vfprintf(stderr, format, values);
	va_end(values);
	fputc('\n', stderr);
}
