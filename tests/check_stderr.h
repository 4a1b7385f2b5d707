/* check_stderr.h: captures standard error. */
#ifndef SMALLSERVD_CHECK_STDERR_H
#define SMALLSERVD_CHECK_STDERR_H

#include <check.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { STDERR_TEXT_SIZE = 512 * 1024 };

static int stderr_before = -1, stderr_file = -1;
static char stderr_text[STDERR_TEXT_SIZE];

/* Sends standard error to memory. */
static inline void stderr_begin(void)
{
	fflush(stderr);
	stderr_before = dup(STDERR_FILENO);
	stderr_file = memfd_create("stderr", MFD_CLOEXEC);
	ck_assert_int_ge(dup2(stderr_file, STDERR_FILENO), 0);
}

/* Returns the output so far. */
static inline const char *stderr_so_far(void)
{
	ssize_t length = pread(stderr_file, stderr_text, sizeof stderr_text - 1, 0);
	ck_assert_int_ge(length, 0);
	stderr_text[length] = '\0';
	return stderr_text;
}

/* Returns the output, and restores standard error. */
static inline const char *stderr_end(void)
{
	fflush(stderr);
	const char *text = stderr_so_far();
	dup2(stderr_before, STDERR_FILENO);
	close(stderr_before);
	close(stderr_file);
	return text;
}

#endif
