/* pid_file.h: the file that names the running daemon. */
#ifndef SMALLSERVD_CONTROL_PID_FILE_H
#define SMALLSERVD_CONTROL_PID_FILE_H

#include <stdbool.h>
#include <sys/types.h>

/* A written pid file, open for as long as the daemon runs. */
struct pid_file;

/* Writes this process's id to PATH, at once and whole; the file belongs to OWNER ((uid_t)-1: whoever we are). Where
 * the folder does not let us, a file of ours that is there is written over. NULL: errno says why. */
struct pid_file *pid_file_write(const char *path, uid_t owner);

/* Writes this process's id again where process OTHER has put its own: it did not live up to it. False: errno says why. */
bool pid_file_restore(struct pid_file *file, pid_t other);

/* Removes the file if it still names this process, and frees. Where its folder does not let us, it is left empty. NULL
 * is fine. */
void pid_file_remove(struct pid_file *file);

#endif
