/* pid_file.c: the file with the process id of the running daemon. */
#include "control/pid_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"

enum { OPEN_FLAGS = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, TEXT_SIZE = 32 };

/* Writes this process's id to FD, which may be -1, in one call, so that a reader never sees half of it. */
static bool write_pid(int fd)
{
	char text[TEXT_SIZE];
	int length = snprintf(text, sizeof text, "%ld\n", (long)getpid());
	return fd >= 0 && pwrite(fd, text, (size_t)length, 0) == length && ftruncate(fd, length) == 0;
}

/* Writes a new file next to PATH and renames it. Returns 0 or -errno. */
static int replace(const char *path, uid_t owner)
{
	char *temporary;
	if (asprintf(&temporary, "%s.%ld", path, (long)getpid()) < 0)
		return -ENOMEM;
	unlink(temporary); /* left by a process that had this id */
	int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | OPEN_FLAGS, 0644);
	bool replaced = write_pid(fd) && fchmod(fd, 0644) == 0 && /* despite the umask */
			(owner == (uid_t)-1 || fchown(fd, owner, (gid_t)-1) == 0) && rename(temporary, path) == 0;
	int error = errno;
	if (fd >= 0)
		close(fd);
	if (fd >= 0 && !replaced)
		unlink(temporary);
	free(temporary);
	return replaced ? 0 : -error;
}

/* Overwrites the file at PATH, which an earlier process wrote as root for the user that this process has become. */
static bool overwrite(const char *path)
{
	struct stat status;
	int fd = open(path, O_WRONLY | OPEN_FLAGS);
	bool own = fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_uid == geteuid();
	bool overwritten = own && write_pid(fd);
	if (fd >= 0)
		close(fd);
	return overwritten;
}

int pid_file_write(const char *path, uid_t owner)
{
	int error = replace(path, owner);
	bool folder_is_read_only = error == -EACCES || error == -EPERM || error == -EROFS;
	return folder_is_read_only && overwrite(path) ? 0 : error;
}

/* Returns the id in the file at PATH; 0 for none. */
static pid_t read_pid(const char *path)
{
	char text[TEXT_SIZE] = "";
	int fd = open(path, O_RDONLY | OPEN_FLAGS);
	ssize_t length = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
	if (fd >= 0)
		close(fd);
	return length > 0 ? (pid_t)strtol(text, NULL, 10) : 0;
}

void pid_file_restore(const char *path, pid_t other)
{
	if (path == NULL || other == 0 || read_pid(path) != other)
		return;
	int error = pid_file_write(path, (uid_t)-1);
	if (error != 0)
		log_error("pid_file: cannot restore %s: %s", path, strerror(-error));
}

void pid_file_remove(const char *path)
{
	if (path == NULL || read_pid(path) != getpid() || unlink(path) == 0)
		return;
	log_info("pid_file: cannot remove %s, so it is left empty: %s", path, strerror(errno));
	int fd = open(path, O_WRONLY | O_TRUNC | OPEN_FLAGS);
	if (fd < 0)
		log_warning("pid_file: cannot empty %s: %s", path, strerror(errno));
	else
		close(fd);
}
