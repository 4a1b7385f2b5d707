/* fd_transfer.h: descriptors that one thread gives to another, which has a table of its own for them. */
#ifndef SMALLSERVD_THREAD_FD_TRANSFER_H
#define SMALLSERVD_THREAD_FD_TRANSFER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* A pair of sockets: what one end asks for the other does, and answers. */
struct fd_transfer {
	int giver, taker;
	unsigned owed;  /* answers that the giver waits for; its alone */
	uint64_t gifts; /* so far; its alone */
	_Atomic uint64_t
		wanted; /* the number of the one that it waits for; 0: it has been taken, or nobody wants it any more */
};

/* Makes the pair. Returns 0 or an errno. */
int fd_transfer_open(struct fd_transfer *fd_transfer);

/* Each closes an end, in the caller's table. */
void fd_transfer_close_giver(struct fd_transfer *fd_transfer);
void fd_transfer_close_taker(struct fd_transfer *fd_transfer);

/* TAKEN[i] is what the taker is to call FDS[i], which stays the giver's, too, until it closes that. Waits for the
 * taker, PATIENCE_MS at most for each batch. Returns 0 or an errno: then the taker has nothing of it, or will have nothing once it has got
 * that far. For the giver. */
int fd_transfer_give(struct fd_transfer *fd_transfer, const int *fds, int *taken, size_t count, int patience_ms);

/* Has the taker close what it calls TAKEN, and waits for that as fd_transfer_give. Returns 0 or an errno; ETIMEDOUT: it will be done once the
 * taker has got that far. For the giver. */
int fd_transfer_take_back(struct fd_transfer *fd_transfer, const int *taken, size_t count, int patience_ms);

/* Does what the giver asks for, once TAKER, which is the pair's, is readable. For the taker. */
void fd_transfer_serve(struct fd_transfer *fd_transfer, int taker);

#endif
