/* pid_file.c: the file that names the running daemon. */
#include "control/pid_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"

struct pid_file {
	int fd;
	char *path;
};

static void discard(struct pid_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	free(file->path);
	free(file);
}

/* The name beside PATH under which the file is written before it takes PATH's place. */
static char *make_temporary_name(const char *path)
{
	char *name;
	return asprintf(&name, "%s.%ld", path, (long)getpid()) < 0 ? NULL : name;
}

static bool fill(int fd, uid_t owner)
{
	if (fchmod(fd, 0644) < 0 || dprintf(fd, "%ld\n", (long)getpid()) < 0) /* whatever the umask */
		return false;
	return owner == (uid_t)-1 || fchown(fd, owner, (gid_t)-1) == 0;
}

/* Writes the file beside PATH and puts it in its place. False: errno says why. */
static bool replace(struct pid_file *file, uid_t owner)
{
	char *temporary = make_temporary_name(file->path);
	if (temporary == NULL)
		return false;
	unlink(temporary); /* of a process that had our id and died here */
	file->fd = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	bool replaced = file->fd >= 0 && fill(file->fd, owner) && rename(temporary, file->path) == 0;
	int error = errno;
	if (!replaced && file->fd >= 0) {
		unlink(temporary);
		close(file->fd);
		file->fd = -1;
	}
	free(temporary);
	errno = error;
	return replaced;
}

/* Writes over the file that a process before us left us, in a folder that does not let us put another there: it wrote it as
 * root, who we are not any more. One write of less than a page, so that no reader sees half a number. */
static bool write_over(struct pid_file *file)
{
	char text[32];
	struct stat status;
	int length = snprintf(text, sizeof text, "%ld\n", (long)getpid());

	file->fd = open(file->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (file->fd < 0 || fstat(file->fd, &status) < 0)
		return false;
	if (!S_ISREG(status.st_mode) || status.st_uid != geteuid()) {
		errno = EPERM;
		return false;
	}
	return pwrite(file->fd, text, (size_t)length, 0) == length && ftruncate(file->fd, length) == 0;
}

static bool is_refused(int error)
{
	return error == EACCES || error == EPERM || error == EROFS;
}

struct pid_file *pid_file_write(const char *path, uid_t owner)
{
	struct pid_file *file = calloc(1, sizeof *file);
	if (file == NULL)
		return NULL;
	file->fd = -1;
	file->path = strdup(path);
	if (file->path == NULL)
		goto fail;
	if (replace(file, owner))
		return file;
	int refusal = errno;
	if (is_refused(refusal) && write_over(file))
		return file;
	if (is_refused(refusal))
		errno = refusal; /* of the two reasons the one that can be mended */
fail:;
	int error = errno;
	discard(file);
	errno = error;
	return NULL;
}

/* Whether PATH still is the file that we wrote and names us: another daemon may have put its own id there. */
static bool is_ours(const struct pid_file *file)
{
	struct stat ours, there;
	char text[32] = "";
	if (fstat(file->fd, &ours) < 0 || lstat(file->path, &there) < 0)
		return false;
	if (ours.st_dev != there.st_dev || ours.st_ino != there.st_ino)
		return false;
	return pread(file->fd, text, sizeof text - 1, 0) > 0 && strtol(text, NULL, 10) == (long)getpid();
}

/* Whom the file at PATH names; 0: nobody. */
static pid_t find_named(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	ssize_t length = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);
	if (fd >= 0)
		close(fd);
	return length > 0 ? (pid_t)strtol(text, NULL, 10) : 0;
}

bool pid_file_restore(struct pid_file *file, pid_t other)
{
	if (other == 0 || find_named(file->path) != other)
		return true;
	struct pid_file *again = pid_file_write(file->path, (uid_t)-1);
	if (again == NULL)
		return false;
	close(file->fd);
	file->fd = again->fd;
	again->fd = -1;
	discard(again);
	return true;
}

void pid_file_remove(struct pid_file *file)
{
	if (file == NULL)
		return;
	if (is_ours(file) && unlink(file->path) < 0) {
		log_info("pid_file: cannot remove %s, so it is left empty: %s", file->path, strerror(errno));
		if (ftruncate(file->fd, 0) < 0)
			log_warning("pid_file: cannot empty %s: %s", file->path, strerror(errno));
	}
	discard(file);
}
