/* upgrade_channel.h: the messages between the parent and the new process of an upgrade. */
#ifndef SMALLSERVD_HANDOFF_UPGRADE_CHANNEL_H
#define SMALLSERVD_HANDOFF_UPGRADE_CHANNEL_H

#include <stdbool.h>
#include <sys/types.h>

/* Environment variable with the descriptor of the new process's end of the channel. */
#define UPGRADE_VARIABLE "SMALLSERVD_UPGRADE"

/* The messages on the channel, a datagram each. A blank and the reason follow UPGRADE_FAILED. */
#define UPGRADE_READY  "ready"  /* new process: I serve, too */
#define UPGRADE_TAKE   "take"   /* parent: take over, pid_file included */
#define UPGRADE_TAKEN  "taken"  /* new process: I have taken over */
#define UPGRADE_FAILED "failed" /* new process: I cannot take over */
#define UPGRADE_STOP   "stop"   /* parent: the upgrade has failed, stop */
#define UPGRADE_SERVE  "serve"  /* parent: the service manager knows you; end of file: the sockets are yours */
enum { UPGRADE_MESSAGE_SIZE = 512 };

/* Sends MESSAGE, a string, without waiting. Returns false with errno. Main thread only, as is the next. */
bool upgrade_channel_send(int channel, const char *message);

/* Receives a message as a string. Returns its length; 0: the other process has closed the channel, or exited; -1: no
 * message is there yet. */
ssize_t upgrade_channel_receive(int channel, char message[UPGRADE_MESSAGE_SIZE]);

#endif
