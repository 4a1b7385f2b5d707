/* qotd.c: RFC 865: a random quotation from a file. */
#include "service/service.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/array.h"
#include "core/text_file.h"
#include "core/transport.h"

#ifndef PKGDATADIR
#define PKGDATADIR "/usr/share/smallservd"
#endif

enum {
	QUOTE_MAX = 511, /* RFC 865: less than 512 characters, line ends included */
	FILE_MAX = 16 * 1024 * 1024,
};

struct quotes {
	char *file;
	char **list; /* as sent */
	size_t count;
};

struct settings {
	struct quotes quotes;
};

static size_t write_quote(const struct service_context *context, char *bytes)
{
	const struct settings *settings = context->settings;
	const char *quote = settings->quotes.list[context->random % settings->quotes.count];
	size_t length = strlen(quote);

	memcpy(bytes, quote, length);
	return length;
}

static struct service_output qotd_output(const struct service_context *context, uint64_t position, char *buffer,
					 size_t size)
{
	(void)position;
	(void)size;
	return (struct service_output){.bytes = buffer, .length = write_quote(context, buffer), .done = true};
}

static ssize_t qotd_reply(const struct service_context *context, char *bytes, size_t length, size_t size)
{
	(void)length;
	(void)size;
	return (ssize_t)write_quote(context, bytes);
}

/* The quotation that is being read. */
struct draft {
	char text[QUOTE_MAX + 1];
	size_t length; /* counts beyond QUOTE_MAX; the text is truncated then */
	unsigned line; /* its first line; 0: empty so far */
};

static void append(struct draft *draft, const char *text, size_t length)
{
	if (draft->length + length <= QUOTE_MAX)
		memcpy(draft->text + draft->length, text, length);
	draft->length += length;
}

static bool end_quote(struct quotes *quotes, struct draft *draft, char *error)
{
	if (draft->length == 0) /* empty before a first % or after a last one */
		return true;
	if (draft->length > QUOTE_MAX) {
		snprintf(error, OPTION_ERROR_SIZE, "%s:%u: a quotation of %zu bytes, RFC 865 has room for %d",
			 quotes->file, draft->line, draft->length, QUOTE_MAX);
		return false;
	}

	char **list = array_grow(quotes->list, quotes->count, sizeof *list);
	if (list != NULL)
		quotes->list = list;
	char *quote = strndup(draft->text, draft->length);
	if (list == NULL || quote == NULL) {
		free(quote);
		snprintf(error, OPTION_ERROR_SIZE, "out of memory");
		return false;
	}
	list[quotes->count++] = quote;
	*draft = (struct draft){0};
	return true;
}

/* Adds one line of the file, its end included. */
static bool add_line(struct quotes *quotes, struct draft *draft, unsigned number, const char *line, size_t length,
		     char *error)
{
	if (memchr(line, '\0', length) != NULL) {
		snprintf(error, OPTION_ERROR_SIZE, "%s:%u: a NUL byte", quotes->file, number);
		return false;
	}
	if (length > 0 && line[length - 1] == '\n')
		length--;
	if (length > 0 && line[length - 1] == '\r')
		length--;
	if (length == 1 && line[0] == '%')
		return end_quote(quotes, draft, error);
	if (draft->length == 0)
		draft->line = number;
	append(draft, line, length);
	append(draft, "\r\n", 2);
	return true;
}

static bool read_quotes(struct quotes *quotes, FILE *file, char *error)
{
	struct draft draft = {0};
	char *line = NULL;
	size_t size = 0;
	ssize_t length;
	bool good = true;

	for (unsigned number = 1; good && (length = getline(&line, &size, file)) >= 0; number++)
		good = add_line(quotes, &draft, number, line, (size_t)length, error);
	free(line);
	if (!good || !end_quote(quotes, &draft, error))
		return false;
	if (feof(file) && quotes->count > 0)
		return true;
	snprintf(error, OPTION_ERROR_SIZE, "%s: %s", quotes->file, feof(file) ? "no quotation in it" : strerror(errno));
	return false;
}

/* Opens a file of bounded size. Returns NULL with the error. */
static FILE *open_quotes(const char *path, char *error)
{
	struct stat status;
	const char *reason;
	FILE *file = text_file_open(path, &reason);

	if (file != NULL && fstat(fileno(file), &status) != 0)
		reason = strerror(errno);
	else if (file != NULL && status.st_size > FILE_MAX)
		reason = "over 16 MiB";
	else if (file != NULL)
		return file;
	snprintf(error, OPTION_ERROR_SIZE, "%s: %s", path, reason);
	if (file != NULL)
		fclose(file);
	return NULL;
}

static void quotes_free(void *field)
{
	struct quotes *quotes = field;

	for (size_t i = 0; i < quotes->count; i++)
		free(quotes->list[i]);
	free(quotes->list);
	option_string.free(&quotes->file);
	*quotes = (struct quotes){0};
}

static bool quotes_parse(const struct option *option, const char *text, void *field, char *error)
{
	struct quotes *quotes = field;
	return option_string.parse(option, text, &quotes->file, error);
}

static bool quotes_load(const struct option *option, void *field, option_report *report, void *context)
{
	struct quotes *quotes = field;
	char error[OPTION_ERROR_SIZE];

	(void)option;
	if (quotes->file == NULL)
		return true;
	FILE *file = open_quotes(quotes->file, error);
	bool good = file != NULL && read_quotes(quotes, file, error);
	if (file != NULL)
		fclose(file);
	if (!good)
		report(context, error);
	return good;
}

static void quotes_print(const struct option *option, const void *field, FILE *out)
{
	const struct quotes *quotes = field;

	option_string.print(option, &quotes->file, out);
}

static const struct option_type quotes_type = {
	.parse = quotes_parse,
	.load = quotes_load,
	.print = quotes_print,
	.free = quotes_free,
};

static const struct option options[] = {
	{
		.key = "quotes_file",
		.type = &quotes_type,
		.offset = offsetof(struct settings, quotes),
		.initial = PKGDATADIR "/quotes",
		.help = "quotations, separated by lines that hold only a % sign",
	},
};

const struct service qotd_service = {
	.name = "qotd",
	.port = 17,
	.rfc = 865,
	.transports = TRANSPORT_BOTH,
	.amplifies = true,
	.options = options,
	.option_count = COUNT_OF(options),
	.settings_size = sizeof(struct settings),
	.tcp_output = qotd_output,
	.udp_reply = qotd_reply,
};
