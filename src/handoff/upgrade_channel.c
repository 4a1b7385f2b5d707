/* upgrade_channel.c: the messages between the parent and the new process of an upgrade. */
#include "handoff/upgrade_channel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

bool upgrade_channel_send(int channel, const char *message)
{
	return send(channel, message, strlen(message), MSG_NOSIGNAL) == (ssize_t)strlen(message);
}

ssize_t upgrade_channel_receive(int channel, char message[UPGRADE_MESSAGE_SIZE])
{
	ssize_t length = recv(channel, message, UPGRADE_MESSAGE_SIZE - 1, 0);
	if (length < 0)
		return errno == EAGAIN || errno == EINTR ? -1 : 0;
	message[length] = '\0';
	return length;
}
