/* upgrade_fds.c: the list of endpoints that an upgrade passes to the new process.
 *
 * It names the sockets and what getsockname(2) and its kin do not return. A line an endpoint follows the title, with
 * a blank between the fields:
 *
 *     smallservd-endpoints 1 COUNT
 *     STATE TRANSPORT WANTED ADDRESS INTERFACE SERVICE SOCKET_NAME ORIGIN DESCRIPTORS GROUPS
 *
 * The new process changes STATE from + to - where it does not use the endpoint. Addresses are FAMILY/IP/PORT/SCOPE,
 * the IP in hexadecimal digits. Texts are = and their bytes, with %XX for special ones, or - for none. ORIGIN
 * contains h for a socket from LISTEN_FDS and b for a dual-stack one. DESCRIPTORS and GROUPS (ADDRESS@INTERFACE, or -
 * for none) have commas between them. The reader asks the kernel for TRANSPORT, ADDRESS and b, which earlier versions
 * read, and ignores further fields and lines. */
#include "handoff/upgrade_fds.h"

#include <ctype.h>
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
#include "handoff/received_fd.h"

#define TITLE "smallservd-endpoints 1 "

enum {
	SIZE_MAX_BYTES = 64 * 1024 * 1024,
	DESCRIPTORS_MAX = 4096, /* of an endpoint */
	GROUPS_MAX = 4096,
	SEALS = F_SEAL_SHRINK | F_SEAL_GROW, /* not F_SEAL_WRITE: the new process changes states */
	STATE_USED = '+',
	STATE_UNUSED = '-',
};

enum field {
	STATE,
	TRANSPORT,
	WANTED,
	ADDRESS,
	INTERFACE,
	SERVICE,
	SOCKET_NAME,
	ORIGIN,
	DESCRIPTORS,
	GROUPS,
	FIELD_COUNT
};

/* --- writing --- */

static void write_address(FILE *file, const struct socket_address *address)
{
	bool v4 = address->any.sa_family == AF_INET;
	const unsigned char *ip = socket_address_bytes(address);
	fputs(v4 ? "4/" : "6/", file);
	for (size_t i = 0; i < (v4 ? 4U : 16U); i++)
		fprintf(file, "%02x", ip[i]);
	fprintf(file, "/%u/%" PRIu32, (unsigned)socket_address_port(address), v4 ? 0 : address->v6.sin6_scope_id);
}

static void write_text(FILE *file, const char *text)
{
	fputs(text == NULL ? " -" : " =", file);
	for (; text != NULL && *text != '\0'; text++)
		fprintf(file, isalnum((unsigned char)*text) ? "%c" : "%%%02x", (unsigned char)*text);
}

static void write_endpoint(FILE *file, const struct endpoint *endpoint)
{
	const char *separator = "";

	fprintf(file, "%c %s ", STATE_USED, transport_name(endpoint->transport));
	write_address(file, &endpoint->wanted);
	fputc(' ', file);
	write_address(file, &endpoint->address);
	write_text(file, endpoint->interface[0] != '\0' ? endpoint->interface : NULL);
	write_text(file, endpoint->service);
	write_text(file, endpoint->socket_name);
	fputs(endpoint->dual_stack ? " hb " : endpoint->from_listen_fds ? " h " : " - ", file);
	for (unsigned i = 0; i < endpoint->count; i++)
		if (endpoint->fds[i] >= 0) {
			fprintf(file, "%s%d", separator, endpoint->fds[i]);
			separator = ",";
		}
	fputs(endpoint->groups_in_force == 0 ? " -" : " ", file);
	for (size_t i = 0; i < endpoint->groups_in_force; i++) {
		fputs(i == 0 ? "" : ",", file);
		write_address(file, &endpoint->groups[i].address);
		fprintf(file, "@%u", endpoint->groups[i].interface);
	}
	fputc('\n', file);
}

/* Returns a sealed memfd with the list of COUNT ENDPOINTS, or -1 with errno. */
static int write_list(struct endpoint *const *endpoints, size_t count)
{
	char *text = NULL;
	size_t size = 0;
	int fd = memfd_create("smallservd-endpoints", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	FILE *file = fd < 0 ? NULL : open_memstream(&text, &size);

	if (file != NULL) {
		fprintf(file, TITLE "%zu\n", count);
		for (size_t i = 0; i < count; i++)
			write_endpoint(file, endpoints[i]);
		bool written = fclose(file) == 0 && write(fd, text, size) == (ssize_t)size &&
			       fcntl(fd, F_ADD_SEALS, SEALS) == 0;
		free(text);
		if (written)
			return fd;
	}
	int error = errno;
	if (fd >= 0)
		close(fd);
	errno = error;
	return -1;
}

/* Sets the list of descriptors. Returns false when out of memory. */
static bool list_fds(struct upgrade_fds *fds)
{
	size_t sockets = 0;
	for (size_t i = 0; i < fds->endpoint_count; i++)
		sockets += fds->endpoints[i]->count;
	fds->list = calloc(sockets + 1, sizeof *fds->list);
	if (fds->list == NULL)
		return false;
	for (size_t i = 0; i < fds->endpoint_count; i++)
		for (unsigned j = 0; j < fds->endpoints[i]->count; j++)
			if (fds->endpoints[i]->fds[j] >= 0)
				fds->list[fds->count++] = fds->endpoints[i]->fds[j];
	fds->list[fds->count++] = fds->memfd;
	return true;
}

struct upgrade_fds *upgrade_fds_new(struct endpoint **endpoints, size_t count)
{
	struct upgrade_fds *fds = calloc(1, sizeof *fds);
	if (fds == NULL) {
		free(endpoints);
		return NULL;
	}
	fds->endpoints = endpoints;
	fds->endpoint_count = count;
	fds->memfd = write_list(endpoints, count);
	snprintf(fds->variable, sizeof fds->variable, UPGRADE_FDS_VARIABLE "=%d", fds->memfd);
	if (fds->memfd >= 0 && list_fds(fds))
		return fds;
	int error = errno;
	upgrade_fds_free(fds);
	errno = error;
	return NULL;
}

void upgrade_fds_free(struct upgrade_fds *fds)
{
	if (fds == NULL)
		return;
	if (fds->memfd >= 0)
		close(fds->memfd);
	free(fds->endpoints);
	free(fds->list);
	free(fds);
}

/* --- reading --- */

/* An endpoint that is being read. */
struct reader {
	struct endpoint_record record;
	unsigned fd_count;
	int fds[DESCRIPTORS_MAX];
	struct socket_group groups[GROUPS_MAX];
};

/* Reads COUNT bytes of two hexadecimal digits each. Returns false if TEXT does not begin with them. */
static bool read_hex(const char *text, unsigned char *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++, text += 2) {
		if (!isxdigit((unsigned char)text[0]) || !isxdigit((unsigned char)text[1]))
			return false;
		bytes[i] = (unsigned char)strtoul((char[]){text[0], text[1], '\0'}, NULL, 16);
	}
	return true;
}

static bool read_address(char *text, struct socket_address *address)
{
	bool v4 = *strsep(&text, "/") == '4';
	const char *ip = strsep(&text, "/");
	long port = received_fd_number(strsep(&text, "/"), UINT16_MAX), scope = received_fd_number(text, UINT32_MAX);
	unsigned char bytes[16];

	if (port < 0 || scope < 0 || !read_hex(ip, bytes, v4 ? 4 : 16))
		return false;
	socket_address_set(address, v4 ? AF_INET : AF_INET6, bytes, "", (uint16_t)port);
	if (!v4)
		address->v6.sin6_scope_id = (uint32_t)scope;
	return true;
}

/* Decodes TEXT in place: *DECODED is within it, or NULL for none. */
static bool read_text(char *text, const char **decoded)
{
	char *to = text;

	*decoded = *text == '=' ? text : NULL;
	if (*decoded == NULL)
		return strcmp(text, "-") == 0;
	for (const char *from = text + 1; *from != '\0'; to++) {
		bool coded = *from == '%';
		*to = *from;
		if (coded && !read_hex(from + 1, (unsigned char *)to, 1))
			return false;
		from += coded ? 3 : 1;
	}
	*to = '\0';
	return true;
}

static bool read_fds(char *text, struct reader *reader)
{
	for (const char *part; (part = strsep(&text, ",")) != NULL; reader->fd_count++) {
		long fd = received_fd_number(part, INT32_MAX);
		if (fd < 0 || reader->fd_count == DESCRIPTORS_MAX)
			return false;
		reader->fds[reader->fd_count] = (int)fd;
	}
	return true;
}

static bool read_groups(char *text, struct reader *reader)
{
	size_t *count = &reader->record.group_count;
	if (strcmp(text, "-") == 0)
		return true;
	for (char *part; (part = strsep(&text, ",")) != NULL; ++*count) {
		struct socket_group *group = &reader->groups[*count];
		char *address = strsep(&part, "@");
		long interface = received_fd_number(part, UINT32_MAX);
		if (*count == GROUPS_MAX || interface < 0 || !read_address(address, &group->address))
			return false;
		group->interface = (unsigned)interface;
	}
	return true;
}

/* Splits LINE at its blanks. Returns false if fields are missing. */
static bool split(char *line, char *fields[FIELD_COUNT])
{
	size_t count = 0;
	while (count < FIELD_COUNT && (fields[count] = strsep(&line, " ")) != NULL)
		count++;
	return count == FIELD_COUNT;
}

static bool read_fields(char *line, struct reader *reader)
{
	struct endpoint_record *record = &reader->record;
	char *fields[FIELD_COUNT];

	*record = (struct endpoint_record){.groups = reader->groups};
	reader->fd_count = 0;
	if (!split(line, fields))
		return false;
	record->from_listen_fds = strchr(fields[ORIGIN], 'h') != NULL;
	return read_address(fields[WANTED], &record->wanted) && read_text(fields[INTERFACE], &record->interface) &&
	       read_text(fields[SERVICE], &record->service) && read_text(fields[SOCKET_NAME], &record->socket_name) &&
	       read_fds(fields[DESCRIPTORS], reader) && read_groups(fields[GROUPS], reader);
}

/* Adds the endpoint of LINE, which has NUMBER, to POOL. Returns false and a problem. */
static bool read_endpoint(char *line, unsigned number, struct reader *reader, struct endpoint_pool *pool,
			  struct diagnostics *diagnostics)
{
	struct socket_kind kind;
	const char *reason = NULL;

	if (!read_fields(line, reader)) {
		diagnostics_log(diagnostics, NULL, UPGRADE_FDS_VARIABLE ": line %u: not an endpoint", number);
		return false;
	}
	for (unsigned i = 0; i < reader->fd_count; i++)
		if ((reason = received_fd_examine(reader->fds[i], &kind)) != NULL) {
			diagnostics_log(diagnostics, NULL, UPGRADE_FDS_VARIABLE ": line %u: descriptor %d %s", number,
					reader->fds[i], reason);
			return false;
		}
	struct endpoint *endpoint = endpoint_from_parent(reader->fds, reader->fd_count, &kind, &reader->record);
	if (endpoint != NULL && endpoint_pool_add(pool, endpoint))
		return true;
	endpoint_free(endpoint);
	diagnostics_log(diagnostics, NULL, UPGRADE_FDS_VARIABLE ": out of memory");
	return false;
}

/* Returns the list as a string, for the caller to free; or NULL with errno. */
static char *load(int fd)
{
	struct stat status;
	if (fstat(fd, &status) < 0)
		return NULL;
	size_t size = status.st_size <= SIZE_MAX_BYTES ? (size_t)status.st_size : 0;
	char *text = calloc(1, size + 1);
	if (text == NULL || pread(fd, text, size, 0) == (ssize_t)size)
		return text;
	free(text);
	return NULL;
}

/* Returns the next line of *REST that is an endpoint's, and counts lines in NUMBER; NULL at the end. */
static char *next_endpoint(char **rest, unsigned *number)
{
	for (char *line; (line = strsep(rest, "\n")) != NULL;) {
		++*number;
		if (line[0] == STATE_USED || line[0] == STATE_UNUSED)
			return line;
	}
	return NULL;
}

bool upgrade_fds_read(int fd, struct endpoint_pool *pool, struct diagnostics *diagnostics)
{
	struct reader *reader = calloc(1, sizeof *reader);
	char *text = load(fd), *rest = text;
	unsigned number = 0;
	bool valid = reader != NULL && text != NULL && strncmp(text, TITLE, strlen(TITLE)) == 0;

	if (!valid)
		diagnostics_log(diagnostics, NULL, UPGRADE_FDS_VARIABLE ": not a list of version 1");
	for (char *line; valid && (line = next_endpoint(&rest, &number)) != NULL;)
		valid = read_endpoint(line, number, reader, pool, diagnostics);
	free(text);
	free(reader);
	return valid;
}

static bool is_list(int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);
	return seals >= 0 && (seals & SEALS) == SEALS;
}

int upgrade_fds_find(struct diagnostics *diagnostics)
{
	return received_fd_from_environment(UPGRADE_FDS_VARIABLE, is_list, diagnostics);
}

/* --- unused endpoints --- */

static bool pool_has_fd(struct endpoint_pool *pool, int fd)
{
	const struct endpoint *endpoint;
	for (size_t i = 0; (endpoint = endpoint_pool_next(pool, &i)) != NULL;)
		if (endpoint->fds[0] == fd)
			return true;
	return false;
}

bool upgrade_fds_mark_unused(int fd, struct endpoint_pool *pool)
{
	char *text = load(fd), *rest = text, *fields[FIELD_COUNT];
	unsigned number = 0;
	bool marked = text != NULL;

	for (char *line; marked && (line = next_endpoint(&rest, &number)) != NULL;)
		if (split(line, fields) && pool_has_fd(pool, atoi(fields[DESCRIPTORS])))
			marked = pwrite(fd, &(char){STATE_UNUSED}, 1, line - text) == 1;
	free(text);
	return marked;
}

void upgrade_fds_mark_shared(const struct upgrade_fds *fds)
{
	char *text = load(fds->memfd), *rest = text;
	unsigned number = 0;

	for (size_t i = 0; i < fds->endpoint_count; i++) {
		const char *line = text != NULL ? next_endpoint(&rest, &number) : NULL;
		if (line == NULL || line[0] != STATE_UNUSED) /* to be safe also where the list cannot be read */
			endpoint_mark_shared(fds->endpoints[i]);
	}
	free(text);
}
