/* text_file.c: opens text files without blocking. */
#include "core/text_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static bool is_null_device(const struct stat *status)
{
	return S_ISCHR(status->st_mode) && status->st_rdev == makedev(1, 3);
}

FILE *text_file_open(const char *path, const char **reason)
{
	struct stat status;
	FILE *file = NULL;
	/* O_NONBLOCK: a FIFO and some devices block in open; O_NOCTTY: no controlling terminal */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0 || fstat(fd, &status) < 0)
		*reason = strerror(errno);
	else if (S_ISDIR(status.st_mode))
		*reason = strerror(EISDIR);
	else if (!S_ISREG(status.st_mode) && !is_null_device(&status))
		*reason = "not a regular file";
	else if (status.st_size > TEXT_FILE_MAX_BYTES)
		*reason = "over 64 MiB";
	else if ((file = fdopen(fd, "r")) == NULL)
		*reason = strerror(errno);
	if (file == NULL && fd >= 0)
		close(fd);
	return file;
}
