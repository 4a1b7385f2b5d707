/* pid_file.h: the file with the process id of the running daemon. */
#ifndef SMALLSERVD_CONTROL_PID_FILE_H
#define SMALLSERVD_CONTROL_PID_FILE_H

#include <sys/types.h>

/* Writes this process's id to a file at PATH that belongs to OWNER ((uid_t)-1: the effective user), atomically. In a
 * folder where it cannot create files it overwrites one of its own. Returns 0 or -errno. */
int pid_file_write(const char *path, uid_t owner);

/* Writes the file at PATH again if it holds the id OTHER, of a process that failed to take over. Logs an error. PATH
 * may be NULL. */
void pid_file_restore(const char *path, pid_t other);

/* Removes the file at PATH, which may be NULL, if it holds this process's id; in a folder where it cannot remove
 * files it empties it. Logs an error. */
void pid_file_remove(const char *path);

#endif
