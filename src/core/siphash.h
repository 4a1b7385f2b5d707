/* siphash.h: SipHash-1-3 (Aumasson and Bernstein), a keyed hash for tables: clients cannot choose addresses that
 * collide. */
#ifndef SMALLSERVD_CORE_SIPHASH_H
#define SMALLSERVD_CORE_SIPHASH_H

#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

struct siphash_key {
	uint64_t halves[2];
};

/* Fills KEY with random bits. */
static inline void siphash_key_init(struct siphash_key *key)
{
	if (getrandom(key, sizeof *key, 0) != sizeof *key) /* fails before Linux 3.17 only */
		*key = (struct siphash_key){{(uint64_t)time(NULL), (uint64_t)getpid()}};
}

static inline uint64_t siphash_rotate(uint64_t value, int bits)
{
	return value << bits | value >> (64 - bits);
}

static inline void siphash_round(uint64_t v[4])
{
	v[0] += v[1], v[2] += v[3];
	v[1] = siphash_rotate(v[1], 13) ^ v[0], v[3] = siphash_rotate(v[3], 16) ^ v[2];
	v[0] = siphash_rotate(v[0], 32);
	v[2] += v[1], v[0] += v[3];
	v[1] = siphash_rotate(v[1], 17) ^ v[2], v[3] = siphash_rotate(v[3], 21) ^ v[0];
	v[2] = siphash_rotate(v[2], 32);
}

/* Returns the hash of the 16 bytes of ADDRESS. */
static inline uint64_t siphash_address(const struct siphash_key *key, const struct in6_addr *address)
{
	uint64_t words[3];
	memcpy(words, address, sizeof *address);
	words[2] = (uint64_t)sizeof *address << 56;

	uint64_t v[4] = {
		key->halves[0] ^ UINT64_C(0x736f6d6570736575),
		key->halves[1] ^ UINT64_C(0x646f72616e646f6d),
		key->halves[0] ^ UINT64_C(0x6c7967656e657261),
		key->halves[1] ^ UINT64_C(0x7465646279746573),
	};
	for (int i = 0; i < 3; i++) {
		v[3] ^= words[i];
		siphash_round(v);
		v[0] ^= words[i];
	}
	v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		siphash_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
