/* slab.h: objects of one size, handed out and taken back without a call of malloc each. */
#ifndef SMALLSERVD_NET_SLAB_H
#define SMALLSERVD_NET_SLAB_H

#include <stddef.h>

enum {
	SLAB_BLOCK_SIZE = 64 * 1024,
	SLAB_ALIGNMENT = 8, /* bytes: malloc's 16 would waste half of that on average */
};

struct slab_block;

/* For one thread at a time. */
struct slab {
	size_t size;             /* of an object, in bytes */
	struct slab_block *open; /* the blocks with room, the one used last first */
	size_t blocks;           /* how many there are, full ones included */
};

/* SIZE: at least a pointer's, at most a quarter of a block. Takes no memory yet. */
void slab_init(struct slab *slab, size_t size);

/* An object with unspecified content, aligned to SLAB_ALIGNMENT. NULL when out of memory. */
void *slab_take(struct slab *slab);

/* Takes OBJECT back, to be the next one that is handed out. Of the blocks that are empty by then one is kept. */
void slab_give(struct slab *slab, void *object);

/* Every object has been given back. */
void slab_clear(struct slab *slab);

#endif
