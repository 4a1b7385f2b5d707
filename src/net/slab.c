/* slab.c: objects of one size, handed out and taken back without a call of malloc each. */
#include "net/slab.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>

/* AddressSanitizer is told what is free, or it would see neither a use after the end nor a second end. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size)   ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

/* Lies at the start of SLAB_BLOCK_SIZE bytes that are aligned to just as many, so that an object's address tells its
 * block. Objects follow. */
struct slab_block {
	_Alignas(SLAB_ALIGNMENT) struct slab_block *next, **link; /* of the open ones; link NULL: it is full */
	void *free;     /* given back; each begins with a pointer to the next */
	uint32_t used;  /* objects that are out */
	uint32_t fresh; /* bytes from the start behind which no object was ever out: these pages are not touched */
};

static void open_block(struct slab *slab, struct slab_block *block)
{
	block->next = slab->open;
	block->link = &slab->open;
	if (block->next != NULL)
		block->next->link = &block->next;
	slab->open = block;
}

static void close_block(struct slab_block *block)
{
	*block->link = block->next;
	if (block->next != NULL)
		block->next->link = block->link;
	block->link = NULL;
}

/* Maps a block where its alignment is, and gives back what lies on both sides of it: malloc would leave pieces between
 * blocks, and each piece that is used touches a page. NULL when out of memory. */
static struct slab_block *map_block(void)
{
	char *memory =
		mmap(NULL, 2 * (size_t)SLAB_BLOCK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return NULL;
	size_t before = -(uintptr_t)memory % SLAB_BLOCK_SIZE;
	if (before > 0)
		munmap(memory, before);
	munmap(memory + before + SLAB_BLOCK_SIZE, SLAB_BLOCK_SIZE - before);
	return (void *)(memory + before);
}

static struct slab_block *block_new(struct slab *slab)
{
	struct slab_block *block = map_block();
	if (block == NULL)
		return NULL;
	*block = (struct slab_block){.fresh = sizeof *block};
	ASAN_POISON_MEMORY_REGION(block + 1, SLAB_BLOCK_SIZE - sizeof *block);
	slab->blocks++;
	open_block(slab, block);
	return block;
}

static void block_free(struct slab *slab, struct slab_block *block)
{
	close_block(block);
	slab->blocks--;
	ASAN_UNPOISON_MEMORY_REGION(block, SLAB_BLOCK_SIZE);
	munmap(block, SLAB_BLOCK_SIZE);
}

static bool has_fresh(const struct slab *slab, const struct slab_block *block)
{
	return block->fresh + slab->size <= SLAB_BLOCK_SIZE;
}

void slab_init(struct slab *slab, size_t size)
{
	assert(size >= sizeof(void *) && size <= SLAB_BLOCK_SIZE / 4);
	*slab = (struct slab){.size = (size + SLAB_ALIGNMENT - 1) / SLAB_ALIGNMENT * SLAB_ALIGNMENT};
}

void *slab_take(struct slab *slab)
{
	struct slab_block *block = slab->open != NULL ? slab->open : block_new(slab);
	if (block == NULL)
		return NULL;
	void *object = block->free;
	if (object != NULL) {
		ASAN_UNPOISON_MEMORY_REGION(object, slab->size);
		block->free = *(void **)object;
	} else {
		object = (char *)block + block->fresh;
		ASAN_UNPOISON_MEMORY_REGION(object, slab->size);
		block->fresh += (uint32_t)slab->size;
	}
	block->used++;
	if (block->free == NULL && !has_fresh(slab, block))
		close_block(block);
	return object;
}

void slab_give(struct slab *slab, void *object)
{
	struct slab_block *block = (void *)((uintptr_t)object & ~(uintptr_t)(SLAB_BLOCK_SIZE - 1));

	*(void **)object = block->free;
	block->free = object;
	block->used--;
	ASAN_POISON_MEMORY_REGION(object, slab->size);
	if (block->link == NULL)
		open_block(slab, block);
	/* one is kept, lest a connection that comes and goes costs a block each time */
	if (block->used == 0 && (slab->open != block || block->next != NULL))
		block_free(slab, block);
}

void slab_clear(struct slab *slab)
{
	while (slab->open != NULL)
		block_free(slab, slab->open);
	assert(slab->blocks == 0);
}
