/* fd_transfer.c: descriptors that one thread gives to another, which has a table of its own for them. */
#include "thread/fd_transfer.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 253 }; /* as many as the kernel passes on with one message */

enum request { GIVE, TAKE_BACK };

/* A request, and its answer. */
struct parcel {
	enum request request;
	uint64_t number; /* of a gift */
	int error;       /* of the answer */
	unsigned count;
	int fds[BATCH]; /* as the taker calls them; of a gift only the answer can say */
};

/* A message of one parcel, with room for the descriptors of a gift. */
struct envelope {
	struct iovec part;
	struct msghdr message;
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(BATCH * sizeof(int))];
	} ancillary;
};

static struct msghdr *envelope_of(struct envelope *envelope, struct parcel *parcel)
{
	envelope->part = (struct iovec){.iov_base = parcel, .iov_len = sizeof *parcel};
	envelope->message = (struct msghdr){.msg_iov = &envelope->part, .msg_iovlen = 1};
	return &envelope->message;
}

int fd_transfer_open(struct fd_transfer *fd_transfer)
{
	int pair[2];
	*fd_transfer = (struct fd_transfer){.giver = -1, .taker = -1};
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return errno;
	fd_transfer->giver = pair[0];
	fd_transfer->taker = pair[1];
	return 0;
}

static void close_end(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void fd_transfer_close_giver(struct fd_transfer *fd_transfer)
{
	close_end(&fd_transfer->giver);
}

void fd_transfer_close_taker(struct fd_transfer *fd_transfer)
{
	close_end(&fd_transfer->taker);
}

/* --- the giver --- */

static int send_request(struct fd_transfer *fd_transfer, struct parcel *parcel, const int *gift)
{
	struct envelope envelope;
	struct msghdr *message = envelope_of(&envelope, parcel);

	if (gift != NULL) {
		size_t length = parcel->count * sizeof *gift;
		message->msg_control = envelope.ancillary.bytes;
		message->msg_controllen = CMSG_SPACE(length);
		memset(envelope.ancillary.bytes, 0, message->msg_controllen);
		envelope.ancillary.header = (struct cmsghdr){
			.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(length)};
		memcpy(CMSG_DATA(&envelope.ancillary.header), gift, length);
	}
	if (sendmsg(fd_transfer->giver, message, MSG_NOSIGNAL) < 0)
		return errno;
	fd_transfer->owed++;
	return 0;
}

/* Returns 0, or the errno for which there is no answer. */
static int await_answer(struct fd_transfer *fd_transfer, struct parcel *answer, int patience_ms)
{
	struct pollfd ready = {.fd = fd_transfer->giver, .events = POLLIN};
	int count;

	do
		count = poll(&ready, 1, patience_ms);
	while (count < 0 && errno == EINTR);
	if (count <= 0)
		return count < 0 ? errno : ETIMEDOUT;
	ssize_t length = recv(fd_transfer->giver, answer, sizeof *answer, 0);
	if (length != sizeof *answer)
		return length < 0 ? errno : ESHUTDOWN; /* the taker has ended */
	fd_transfer->owed--;
	return 0;
}

static int send_back(struct fd_transfer *fd_transfer, const int *taken, size_t count)
{
	struct parcel parcel = {.request = TAKE_BACK, .count = (unsigned)count};
	memcpy(parcel.fds, taken, count * sizeof *taken);
	return send_request(fd_transfer, &parcel, NULL);
}

/* Waits for answers that were not there in time: nobody wants any more what was given then. */
static int settle(struct fd_transfer *fd_transfer, int patience_ms)
{
	struct parcel answer;
	int error = 0;
	while (fd_transfer->owed > 0 && error == 0) {
		error = await_answer(fd_transfer, &answer, patience_ms);
		if (error == 0 && answer.request == GIVE && answer.error == 0)
			error = send_back(fd_transfer, answer.fds, answer.count);
	}
	return error;
}

/* True for the first of the two: the giver, which gives up waiting for gift NUMBER, or the taker, which takes it. */
static bool claim(struct fd_transfer *fd_transfer, uint64_t number)
{
	return atomic_compare_exchange_strong(&fd_transfer->wanted, &number, 0);
}

static int give_batch(struct fd_transfer *fd_transfer, const int *fds, int *taken, size_t count, int patience_ms)
{
	struct parcel parcel = {.request = GIVE, .count = (unsigned)count};
	int error = settle(fd_transfer, patience_ms);
	if (error != 0)
		return error;
	parcel.number = ++fd_transfer->gifts;
	atomic_store(&fd_transfer->wanted, parcel.number);
	error = send_request(fd_transfer, &parcel, fds);
	if (error == 0)
		error = await_answer(fd_transfer, &parcel, patience_ms);
	if (error != 0 && !claim(fd_transfer, parcel.number)) /* taken at the last moment: the answer is on its way */
		error = await_answer(fd_transfer, &parcel, patience_ms);
	if (error != 0)
		return error;
	memcpy(taken, parcel.fds, count * sizeof *taken);
	return parcel.error;
}

static size_t batch_of(size_t count)
{
	return count < BATCH ? count : BATCH;
}

int fd_transfer_take_back(struct fd_transfer *fd_transfer, const int *taken, size_t count, int patience_ms)
{
	for (size_t back = 0, batch; back < count; back += batch) {
		batch = batch_of(count - back);
		int error = send_back(fd_transfer, taken + back, batch);
		if (error == EAGAIN) { /* no room for another before it has read some */
			error = settle(fd_transfer, patience_ms);
			error = error == 0 ? send_back(fd_transfer, taken + back, batch) : error;
		}
		if (error != 0)
			return error;
	}
	return count > 0 ? settle(fd_transfer, patience_ms) : 0;
}

int fd_transfer_give(struct fd_transfer *fd_transfer, const int *fds, int *taken, size_t count, int patience_ms)
{
	for (size_t given = 0, batch; given < count; given += batch) {
		batch = batch_of(count - given);
		int error = give_batch(fd_transfer, fds + given, taken + given, batch, patience_ms);
		if (error != 0) {
			fd_transfer_take_back(fd_transfer, taken, given, patience_ms);
			return error;
		}
	}
	return 0;
}

/* --- the taker --- */

static void close_all(const int *fds, size_t count)
{
	for (size_t i = 0; i < count; i++)
		close(fds[i]);
}

/* Fills in FDS with what came with MESSAGE. Returns how many. */
static size_t unpack(struct msghdr *message, int *fds)
{
	const struct cmsghdr *header = CMSG_FIRSTHDR(message);
	if (header == NULL || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
		return 0;
	size_t length = header->cmsg_len - CMSG_LEN(0);
	memcpy(fds, CMSG_DATA(header), length);
	return length / sizeof *fds;
}

/* All or nothing: what has no room in the table the kernel leaves out. */
static void accept_gift(struct fd_transfer *fd_transfer, struct parcel *parcel, struct msghdr *message)
{
	size_t taken = unpack(message, parcel->fds);
	if (taken != parcel->count)
		parcel->error = EMFILE;
	else if (!claim(fd_transfer, parcel->number))
		parcel->error = ECANCELED;
	if (parcel->error != 0)
		close_all(parcel->fds, taken);
}

void fd_transfer_serve(struct fd_transfer *fd_transfer, int taker)
{
	struct parcel parcel;
	struct envelope envelope;
	struct msghdr *message = envelope_of(&envelope, &parcel);

	message->msg_control = envelope.ancillary.bytes;
	message->msg_controllen = sizeof envelope.ancillary.bytes;
	if (recvmsg(taker, message, MSG_CMSG_CLOEXEC) != sizeof parcel)
		return;
	if (parcel.request == GIVE)
		accept_gift(fd_transfer, &parcel, message);
	else
		close_all(parcel.fds, parcel.count);
	if (send(taker, &parcel, sizeof parcel, MSG_NOSIGNAL) == sizeof parcel)
		return;
	if (parcel.request == GIVE && parcel.error == 0)
		close_all(parcel.fds, parcel.count);
}
