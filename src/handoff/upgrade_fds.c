/* upgrade_fds.c: open endpoints in writing, for the process that goes on with them.
 *
 * A line says how many there are, then each has one, of fields with a blank between them:
 *
 *     smallservd-endpoints 1 COUNT
 *     STATE TRANSPORT WANTED ADDRESS INTERFACE SERVICE NAME KIND DESCRIPTORS GROUPS
 *
 * STATE is + and becomes - where the reader leaves the endpoint. An address is FAMILY/IP/PORT/SCOPE, the IP in hexadecimal digits; a
 * text is = and its bytes, with %XX for what is not plain, or - for none; KIND has an h when handed over by the service manager, a b
 * when of both families; DESCRIPTORS and GROUPS (ADDRESS@INTERFACE) have commas between them. */
#include "handoff/upgrade_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/transport.h"

#define TITLE "smallservd-endpoints 1 "

enum {
	SIZE_MAX_BYTES = 64 * 1024 * 1024,
	DESCRIPTORS_MAX = 4096, /* of an endpoint */
	GROUPS_MAX = 4096,
	TEXT_MAX = 256,
	SEALS = F_SEAL_SHRINK | F_SEAL_GROW, /* the states are still to be written */
	STATE_TAKEN = '+',
	STATE_LEFT = '-',
};

/* --- writing --- */

static void write_address(FILE *file, const struct socket_address *address)
{
	bool v4 = address->any.sa_family == AF_INET;
	const unsigned char *ip = v4 ? (const unsigned char *)&address->v4.sin_addr : address->v6.sin6_addr.s6_addr;
	fprintf(file, "%c/", v4 ? '4' : '6');
	for (size_t i = 0; i < (v4 ? 4U : 16U); i++)
		fprintf(file, "%02x", ip[i]);
	fprintf(file, "/%u/%" PRIu32, (unsigned)socket_address_port(address), v4 ? 0 : address->v6.sin6_scope_id);
}

static bool is_plain(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
	       c == '-';
}

static void write_text(FILE *file, const char *text)
{
	fputs(text == NULL ? " -" : " =", file);
	for (; text != NULL && *text != '\0'; text++)
		fprintf(file, is_plain(*text) ? "%c" : "%%%02x", (unsigned char)*text);
}

static void write_descriptors(FILE *file, const struct endpoint *endpoint)
{
	const char *before = " ";
	for (unsigned i = 0; i < endpoint->count; i++) {
		if (endpoint->fds[i] < 0)
			continue;
		fprintf(file, "%s%d", before, endpoint->fds[i]);
		before = ",";
	}
}

static void write_groups(FILE *file, const struct endpoint *endpoint)
{
	for (size_t i = 0; i < endpoint->groups_in_force; i++) {
		fputs(i == 0 ? " " : ",", file);
		write_address(file, &endpoint->groups[i].address);
		fprintf(file, "@%u", endpoint->groups[i].interface);
	}
	if (endpoint->groups_in_force == 0)
		fputs(" -", file);
}

static void write_endpoint(FILE *file, const struct endpoint *endpoint)
{
	fprintf(file, "%c %s ", STATE_TAKEN, transport_name(endpoint->transport));
	write_address(file, &endpoint->wanted);
	fputc(' ', file);
	write_address(file, &endpoint->address);
	write_text(file, endpoint->interface[0] != '\0' ? endpoint->interface : NULL);
	write_text(file, endpoint->service);
	write_text(file, endpoint->socket_name);
	fprintf(file, " %s%s%s", endpoint->from_listen_fds ? "h" : "", endpoint->dual_stack ? "b" : "",
		endpoint->from_listen_fds || endpoint->dual_stack ? "" : "-");
	write_descriptors(file, endpoint);
	write_groups(file, endpoint);
	fputc('\n', file);
}

int upgrade_fds_write(struct endpoint *const *list, size_t count)
{
	int fd = memfd_create("smallservd-endpoints", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
	FILE *file = copy < 0 ? NULL : fdopen(copy, "w");
	int error = errno;

	if (file != NULL) {
		fprintf(file, TITLE "%zu\n", count);
		for (size_t i = 0; i < count; i++)
			write_endpoint(file, list[i]);
		errno = 0;
		bool written = !ferror(file);
		written &= fclose(file) == 0;
		if (written && fcntl(fd, F_ADD_SEALS, SEALS) == 0)
			return fd;
		error = errno != 0 ? errno : EIO;
	} else if (copy >= 0) {
		close(copy);
	}
	if (fd >= 0)
		close(fd);
	errno = error;
	return -1;
}

/* --- reading --- */

/* A number without a sign at *TEXT, which is set behind it. */
static bool read_number(const char **text, unsigned long maximum, unsigned long *number)
{
	char *end;
	if (**text < '0' || **text > '9')
		return false;
	errno = 0;
	*number = strtoul(*text, &end, 10);
	*text = end;
	return errno == 0 && *number <= maximum;
}

static int read_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_bytes(const char **text, unsigned char *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		int high = read_digit((*text)[0]), low = high < 0 ? -1 : read_digit((*text)[1]);
		if (low < 0)
			return false;
		bytes[i] = (unsigned char)(high << 4 | low);
		*text += 2;
	}
	return true;
}

static bool skip(const char **text, char c)
{
	bool found = **text == c;
	*text += found;
	return found;
}

static bool read_address(const char **text, struct socket_address *address)
{
	bool v4 = **text == '4';
	unsigned char ip[16];
	unsigned long port, scope;

	if ((!v4 && **text != '6') || *++*text != '/')
		return false;
	++*text;
	if (!read_bytes(text, ip, v4 ? 4 : 16) || !skip(text, '/') || !read_number(text, UINT16_MAX, &port) ||
	    !skip(text, '/') || !read_number(text, v4 ? 0 : UINT32_MAX, &scope))
		return false;
	socket_address_set(address, v4 ? AF_INET : AF_INET6, ip, "", (uint16_t)port);
	if (!v4)
		address->v6.sin6_scope_id = (uint32_t)scope;
	return true;
}

/* False: it is none. NULL in *COPY where there is none; else the caller's to free. */
static bool read_text(const char *text, char **copy)
{
	size_t length = 0;
	char plain[TEXT_MAX];

	*copy = NULL;
	if (strcmp(text, "-") == 0)
		return true;
	if (!skip(&text, '='))
		return false;
	while (*text != '\0' && length < sizeof plain - 1) {
		bool coded = skip(&text, '%');
		if (coded ? !read_bytes(&text, (unsigned char *)&plain[length], 1) : !is_plain(*text))
			return false;
		if (!coded)
			plain[length] = *text++;
		if (plain[length++] == '\0')
			return false;
	}
	plain[length] = '\0';
	*copy = *text == '\0' ? strdup(plain) : NULL;
	return *copy != NULL;
}

static bool read_interface(const char *text, char interface[IF_NAMESIZE])
{
	char *name;
	if (!read_text(text, &name) || (name != NULL && strlen(name) >= IF_NAMESIZE)) {
		free(name);
		return false;
	}
	snprintf(interface, IF_NAMESIZE, "%s", name != NULL ? name : "");
	free(name);
	return true;
}

static bool read_kind(const char *text, struct endpoint *endpoint)
{
	endpoint->from_listen_fds = skip(&text, 'h');
	endpoint->dual_stack = skip(&text, 'b');
	if (!endpoint->from_listen_fds && !endpoint->dual_stack && !skip(&text, '-'))
		return false;
	return *text == '\0';
}

static size_t count_parts(const char *text)
{
	size_t count = 1;
	for (; *text != '\0'; text++)
		count += *text == ',';
	return count;
}

static bool read_groups(const char *text, struct endpoint *endpoint)
{
	if (strcmp(text, "-") == 0)
		return true;
	size_t count = count_parts(text);
	endpoint->groups = count <= GROUPS_MAX ? calloc(count, sizeof *endpoint->groups) : NULL;
	for (size_t i = 0; i < count; i++) {
		unsigned long interface;
		if (endpoint->groups == NULL || !read_address(&text, &endpoint->groups[i].address) ||
		    !skip(&text, '@') || !read_number(&text, UINT32_MAX, &interface) ||
		    !skip(&text, i + 1 < count ? ',' : '\0'))
			return false;
		endpoint->groups[i].interface = (unsigned)interface;
	}
	endpoint->group_count = endpoint->groups_in_force = count;
	return true;
}

/* Whether FD is what ENDPOINT says. It is closed by an exec from here on; who comes twice is found out by that. */
static const char *examine(int fd, const struct endpoint *endpoint)
{
	struct socket_kind kind;
	int flags = fcntl(fd, F_GETFD);
	if (flags < 0)
		return "is not open";
	if (flags & FD_CLOEXEC)
		return "was not handed on, or is named twice";
	const char *wrong = socket_examine(fd, &kind);
	if (wrong != NULL)
		return wrong;
	if ((kind.type == SOCK_STREAM) != (endpoint->transport == TRANSPORT_TCP) ||
	    kind.address.length != endpoint->address.length ||
	    !socket_address_same_ip(&kind.address, &endpoint->address) ||
	    socket_address_port(&kind.address) != socket_address_port(&endpoint->address))
		return "is a socket of another address";
	return fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? strerror(errno) : NULL;
}

enum field { STATE, TRANSPORT, WANTED, ADDRESS, INTERFACE, SERVICE, NAME, KIND, DESCRIPTORS, GROUPS, FIELD_COUNT };

/* Cuts LINE at its blanks. False: there are not as many fields as there have to be. */
static bool split(char *line, char *fields[FIELD_COUNT])
{
	size_t count = 0;
	for (char *field; (field = strsep(&line, " ")) != NULL; count++) {
		if (count == FIELD_COUNT)
			return false;
		fields[count] = field;
	}
	return count == FIELD_COUNT;
}

static bool read_transport(const char *text, unsigned *transport)
{
	bool tcp = strcmp(text, "tcp") == 0;
	*transport = tcp ? TRANSPORT_TCP : TRANSPORT_UDP;
	return tcp || strcmp(text, "udp") == 0;
}

static bool read_whole_address(const char *text, struct socket_address *address)
{
	return read_address(&text, address) && *text == '\0';
}

/* All but the descriptors. */
static bool read_fields(char *const fields[FIELD_COUNT], struct endpoint *endpoint)
{
	return strlen(fields[STATE]) == 1 && (fields[STATE][0] == STATE_TAKEN || fields[STATE][0] == STATE_LEFT) &&
	       read_transport(fields[TRANSPORT], &endpoint->transport) &&
	       read_whole_address(fields[WANTED], &endpoint->wanted) &&
	       read_whole_address(fields[ADDRESS], &endpoint->address) &&
	       read_interface(fields[INTERFACE], endpoint->interface) &&
	       read_text(fields[SERVICE], &endpoint->service) && read_text(fields[NAME], &endpoint->socket_name) &&
	       read_kind(fields[KIND], endpoint) && read_groups(fields[GROUPS], endpoint);
}

/* Those that are right belong to ENDPOINT from then on. */
static bool read_descriptors(const char *text, struct endpoint *endpoint, unsigned line, struct problems *problems)
{
	for (unsigned i = 0; i < endpoint->count; i++) {
		unsigned long fd;
		if (!read_number(&text, INT32_MAX, &fd) || !skip(&text, i + 1 < endpoint->count ? ',' : '\0')) {
			problems_add(problems, NULL, UPGRADE_FDS_VARIABLE ": line %u: no list of descriptors", line);
			return false;
		}
		const char *wrong = examine((int)fd, endpoint);
		if (wrong != NULL) {
			problems_add(problems, NULL, UPGRADE_FDS_VARIABLE ": line %u: descriptor %lu %s", line, fd,
				     wrong);
			return false;
		}
		endpoint->fds[i] = (int)fd;
	}
	return true;
}

/* Returns an endpoint whose COUNT sockets are still to be set. */
static struct endpoint *new_closed(unsigned count)
{
	const struct endpoint_record record = {.interface = ""};
	const struct socket_kind kind = {.type = 0};
	int fds[DESCRIPTORS_MAX];

	memset(fds, -1, sizeof fds);
	return endpoint_from_parent(fds, count, &kind, &record);
}

static struct endpoint *read_endpoint(char *text, unsigned line, struct problems *problems)
{
	char *fields[FIELD_COUNT];
	struct endpoint *endpoint = NULL;
	size_t count = split(text, fields) ? count_parts(fields[DESCRIPTORS]) : 0;

	if (count > 0 && count <= DESCRIPTORS_MAX)
		endpoint = new_closed((unsigned)count);
	if (endpoint == NULL || !read_fields(fields, endpoint)) {
		problems_add(problems, NULL, UPGRADE_FDS_VARIABLE ": line %u: not an endpoint", line);
		goto fail;
	}
	if (!read_descriptors(fields[DESCRIPTORS], endpoint, line, problems))
		goto fail;
	return endpoint;
fail:
	endpoint_free(endpoint);
	return NULL;
}

/* The whole writing as a string, for the caller to free. NULL: errno says why. */
static char *read_writing(int fd)
{
	struct stat status;
	if (fstat(fd, &status) < 0)
		return NULL;
	size_t size = status.st_size <= SIZE_MAX_BYTES ? (size_t)status.st_size : 0;
	char *text = malloc(size + 1);
	ssize_t length = text != NULL ? pread(fd, text, size, 0) : -1;
	if (length < 0 || (size_t)length != size || memchr(text, '\0', size) != NULL) {
		errno = length < 0 ? errno : EINVAL;
		free(text);
		return NULL;
	}
	text[size] = '\0';
	return text;
}

/* How many endpoints the title at *TEXT promises, which is set behind it. */
static bool read_title(char **text, size_t *count)
{
	const char *at = *text + strlen(TITLE);
	unsigned long number;
	if (strncmp(*text, TITLE, strlen(TITLE)) != 0 || !read_number(&at, SIZE_MAX_BYTES, &number) || !skip(&at, '\n'))
		return false;
	*text += at - *text;
	*count = number;
	return true;
}

/* The line at *TEXT, without its end, and sets *TEXT behind it. NULL: there is no whole one. */
static char *next_line(char **text)
{
	char *line = *text, *end = strchr(line, '\n');
	if (end == NULL)
		return NULL;
	*end = '\0';
	*text = end + 1;
	return line;
}

static bool is_sealed(int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);
	return seals >= 0 && (seals & SEALS) == SEALS;
}

int upgrade_fds_find(struct problems *problems)
{
	const char *value = getenv(UPGRADE_FDS_VARIABLE), *text = value;
	unsigned long fd = 0;

	if (value == NULL)
		return -1;
	bool valid = read_number(&text, INT32_MAX, &fd) && *text == '\0' && fd > STDERR_FILENO && is_sealed((int)fd) &&
		     fcntl((int)fd, F_SETFD, FD_CLOEXEC) == 0;
	if (!valid)
		problems_add(problems, NULL, UPGRADE_FDS_VARIABLE "=%.32s names no list of endpoints", value);
	unsetenv(UPGRADE_FDS_VARIABLE);
	return valid ? (int)fd : -1;
}

static bool read_all(char *text, struct endpoint_pool *pool, struct problems *problems)
{
	size_t count;
	if (!read_title(&text, &count)) {
		problems_add(problems, NULL, UPGRADE_FDS_VARIABLE ": line 1: not a list of endpoints of this version");
		return false;
	}
	for (unsigned line = 2; line < count + 2; line++) {
		char *written = next_line(&text);
		if (written == NULL) {
			problems_add(problems, NULL, UPGRADE_FDS_VARIABLE ": line %u: missing", line);
			return false;
		}
		struct endpoint *endpoint = read_endpoint(written, line, problems);
		if (endpoint == NULL)
			return false;
		if (!endpoint_pool_add(pool, endpoint)) {
			endpoint_free(endpoint);
			problems_add(problems, NULL, UPGRADE_FDS_VARIABLE ": out of memory");
			return false;
		}
	}
	if (*text != '\0')
		problems_add(problems, NULL, UPGRADE_FDS_VARIABLE ": more than %zu endpoints", count);
	return *text == '\0';
}

bool upgrade_fds_read(int fd, struct endpoint_pool *pool, struct problems *problems)
{
	char *text = read_writing(fd);
	if (text == NULL) {
		problems_add(problems, NULL, UPGRADE_FDS_VARIABLE ": cannot read the endpoints: %s", strerror(errno));
		return false;
	}
	bool read = read_all(text, pool, problems);
	free(text);
	return read;
}

/* --- what is left --- */

/* The first descriptor of the endpoint at LINE, or -1. */
static int first_descriptor(char *line)
{
	char *fields[FIELD_COUNT];
	unsigned long fd;
	const char *text;
	if (!split(line, fields))
		return -1;
	text = fields[DESCRIPTORS];
	return read_number(&text, INT32_MAX, &fd) ? (int)fd : -1;
}

static bool is_left(int fd, struct endpoint_pool *pool)
{
	const struct endpoint *endpoint;
	for (size_t i = 0; (endpoint = endpoint_pool_next(pool, &i)) != NULL;)
		if (endpoint->fds[0] == fd)
			return true;
	return false;
}

bool upgrade_fds_leave(int fd, struct endpoint_pool *pool)
{
	char *text = read_writing(fd), *at = text, *line;
	bool written = text != NULL;

	if (written)
		next_line(&at);
	while (written && (line = next_line(&at)) != NULL) {
		off_t place = line - text;
		if (is_left(first_descriptor(line), pool))
			written = pwrite(fd, &(char){STATE_LEFT}, 1, place) == 1;
	}
	free(text);
	return written;
}

bool upgrade_fds_list_left(int fd, bool *left, size_t count)
{
	char *text = read_writing(fd), *at = text, *line;
	size_t promised, found = 0;

	if (text != NULL && read_title(&at, &promised) && promised == count)
		while (found < count && (line = next_line(&at)) != NULL)
			left[found++] = line[0] == STATE_LEFT;
	free(text);
	return found == count;
}
