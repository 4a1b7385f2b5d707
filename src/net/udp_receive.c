/* udp_receive.c: receiving in batches that adapt to the traffic.
 *
 * recvmmsg(2) receives a batch of datagrams in one call, but a lone datagram dearer than recvfrom(2) does. A socket
 * therefore receives one by one while its batches find one datagram each, and tries a batch from time to time. Measured
 * in server CPU per datagram: with one datagram in flight a batch each time costs 4.7 % more (95 % interval 2.7 to
 * 6.4); with 16 in flight single receives cost 62 % more. */
#include <sys/socket.h>

#include "net/udp_internal.h"

enum {
	SINGLES_MAX = 8, /* successive batches of one datagram until receiving goes one by one */
	PAUSE_FIRST = 8, /* single receives until a batch is tried again; doubled by each that finds one datagram */
	PAUSE_MAX = 64,
};

void udp_receive_init(struct udp_socket *socket)
{
	struct udp_receive_state *state = &socket->receive;
	int on = 0;
	socklen_t length = sizeof on;

	state->pause = PAUSE_FIRST;
	if (getsockopt(socket->listener.fd, IPPROTO_UDP, UDP_GRO, &on, &length) == 0 && on != 0)
		state->gro_requested = state->gro_on = true; /* turned on by a process before */
}

static void prepare(struct udp_worker *worker, bool control, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct msghdr *message = &worker->in[i].msg_hdr;
		message->msg_namelen = sizeof worker->names[i];
		message->msg_control = control ? worker->control_in[i].bytes : NULL;
		message->msg_controllen = control ? UDP_CONTROL_SIZE : 0;
		message->msg_flags = 0;
	}
}

/* Receives one message into the first buffer. Returns as recvmmsg. */
static int receive_one(struct udp_socket *socket, bool control)
{
	struct udp_worker *worker = socket->worker;
	struct msghdr *message = &worker->in[0].msg_hdr;
	ssize_t length;

	prepare(worker, control, 1);
	if (control)
		length = recvmsg(socket->listener.fd, message, 0);
	else
		length = recvfrom(socket->listener.fd, worker->buffers, UDP_DATAGRAM_SIZE, 0, message->msg_name,
				  &message->msg_namelen);
	worker->in[0].msg_len = (unsigned)length;
	return length < 0 ? -1 : 1;
}

/* Turns on UDP_GRO, once there is more than one datagram at a time: a lone one is dearer with it. It is never turned
 * off again: the batches in the receive queue would become long datagrams. */
static void request_gro(struct udp_socket *socket)
{
	struct udp_receive_state *state = &socket->receive;
	const int yes = 1;

	if (state->gro_requested || socket->listener.instance->service->amplifies || atomic_load(&socket->shared))
		return;
	state->gro_requested = true;
	if (setsockopt(socket->listener.fd, IPPROTO_UDP, UDP_GRO, &yes, sizeof yes) == 0)
		state->gro_on = true;
}

int udp_receive(struct udp_socket *socket)
{
	struct udp_receive_state *state = &socket->receive;

	if (atomic_load_explicit(&socket->shared, memory_order_relaxed))
		state->gro_on = true; /* the other process may have turned it on */
	bool control = socket->wants_control || state->gro_on;
	if (!state->batching && ++state->paused < state->pause)
		return receive_one(socket, control);
	prepare(socket->worker, control, UDP_BATCH);
	int count = recvmmsg(socket->listener.fd, socket->worker->in, UDP_BATCH, 0, NULL);
	if (count > 1) {
		state->batching = true;
		state->singles = 0;
		state->pause = PAUSE_FIRST;
		request_gro(socket);
	} else if (state->batching) {
		state->batching = ++state->singles < SINGLES_MAX;
	} else if (state->pause < PAUSE_MAX) {
		state->pause *= 2;
	}
	state->paused = 0;
	return count;
}
