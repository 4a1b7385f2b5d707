/* timer_wheel.c: deadlines of many connections behind one lazy timer. */
#include "core/timer_wheel.h"

#include <event2/event.h>
#include <stdlib.h>

#include "core/clock.h"

enum {
	SLOTS = 2048, /* horizon of 102 s: what is due later is looked at again then */
	WORDS = SLOTS / 64,
	BUDGET = 1024, /* entries a wake-up, so that many at once do not hold up the data path */
};

struct timer_wheel {
	struct event *timer, *soon_timer;
	timer_wheel_callback *on_due;
	uint64_t tick;  /* all ticks up to this one have been looked at */
	uint64_t armed; /* the tick the timer is set for; TIMER_WHEEL_NEVER: it sleeps */
	bool unset;     /* for want of memory it is not: whatever is set next tries again */
	struct timer_wheel_entry *slots[SLOTS];
	uint64_t occupied[WORDS]; /* a bit a slot: clear means empty, set may be stale */
	/* what is told of when soon_timer is due, and what came since it was set, for which that would be too early */
	struct timer_wheel_entry *soon, *next_soon;
};

static void link_entry(struct timer_wheel_entry **list, struct timer_wheel_entry *entry)
{
	entry->next = *list;
	entry->link = list;
	if (entry->next != NULL)
		entry->next->link = &entry->next;
	*list = entry;
}

static void arm(struct timer_wheel *wheel, uint64_t tick)
{
	uint64_t now = clock_ms(), due = tick * TIMER_WHEEL_TICK_MS;
	uint64_t wait = due > now ? due - now : 0;
	struct timeval timeout = clock_timeval((int64_t)wait);
	wheel->armed = tick;
	wheel->unset = evtimer_add(wheel->timer, &timeout) < 0;
}

/* The first tick after the last one looked at whose slot may hold something. */
static uint64_t next_occupied(const struct timer_wheel *wheel)
{
	for (uint64_t tick = wheel->tick + 1; tick <= wheel->tick + SLOTS;) {
		unsigned slot = tick % SLOTS;
		uint64_t word = wheel->occupied[slot / 64] >> (slot % 64);
		if (word != 0)
			return tick + (unsigned)__builtin_ctzll(word);
		tick += 64 - slot % 64;
	}
	return TIMER_WHEEL_NEVER;
}

/* Tells of ENTRY, and sets it to the deadline that is answered. */
static void tell(struct timer_wheel *wheel, struct timer_wheel_entry *entry, uint64_t now_ms)
{
	timer_wheel_remove(entry);
	uint64_t next = wheel->on_due(entry, now_ms);
	if (next != 0) /* never in the slot it was in, or that would not get empty */
		timer_wheel_set(wheel, entry, next > now_ms ? next : now_ms + TIMER_WHEEL_TICK_MS);
}

/* Tells of all in LIST. False: the budget ran out before it was empty. */
static bool tell_all(struct timer_wheel *wheel, struct timer_wheel_entry *const *list, uint64_t now_ms,
		     unsigned *budget)
{
	while (*list != NULL) {
		if ((*budget)-- == 0)
			return false;
		tell(wheel, *list, now_ms);
	}
	return true;
}

/* Handles TICK's slot, as tell_all. */
static bool visit_slot(struct timer_wheel *wheel, uint64_t tick, uint64_t now_ms, unsigned *budget)
{
	unsigned slot = tick % SLOTS;
	if (!tell_all(wheel, &wheel->slots[slot], now_ms, budget))
		return false;
	wheel->occupied[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
	return true;
}

static void on_timer(evutil_socket_t fd, short what, void *argument)
{
	struct timer_wheel *wheel = argument;
	uint64_t now_ms = clock_ms(), now_tick = now_ms / TIMER_WHEEL_TICK_MS, tick;
	unsigned budget = BUDGET;

	(void)fd, (void)what;
	wheel->armed = 0; /* keeps timer_wheel_set from arming: it is done below, once */
	while ((tick = next_occupied(wheel)) <= now_tick) {
		wheel->tick = tick - 1;
		if (!visit_slot(wheel, tick, now_ms, &budget)) {
			arm(wheel, tick);
			return;
		}
		wheel->tick = tick;
	}
	wheel->tick = now_tick > wheel->tick ? now_tick : wheel->tick;
	wheel->armed = TIMER_WHEEL_NEVER;
	tick = next_occupied(wheel);
	if (tick != TIMER_WHEEL_NEVER)
		arm(wheel, tick);
}

static bool arm_soon(struct timer_wheel *wheel)
{
	const struct timeval wait = clock_timeval(TIMER_WHEEL_SOON_MS);
	return evtimer_add(wheel->soon_timer, &wait) == 0;
}

static void on_soon(evutil_socket_t fd, short what, void *argument)
{
	struct timer_wheel *wheel = argument;
	unsigned budget = BUDGET;

	(void)fd, (void)what;
	if (tell_all(wheel, &wheel->soon, clock_ms(), &budget) && wheel->next_soon != NULL) {
		wheel->soon = wheel->next_soon;
		wheel->soon->link = &wheel->soon;
		wheel->next_soon = NULL;
	}
	if (wheel->soon != NULL)
		(void)arm_soon(wheel); /* in the room that it had a moment ago */
}

struct timer_wheel *timer_wheel_new(struct event_base *base, timer_wheel_callback *on_due)
{
	struct timer_wheel *wheel = calloc(1, sizeof *wheel);
	if (wheel == NULL)
		return NULL;
	wheel->on_due = on_due;
	wheel->tick = clock_ms() / TIMER_WHEEL_TICK_MS;
	wheel->armed = TIMER_WHEEL_NEVER;
	wheel->timer = evtimer_new(base, on_timer, wheel);
	wheel->soon_timer = evtimer_new(base, on_soon, wheel);
	if (wheel->timer == NULL || wheel->soon_timer == NULL) {
		timer_wheel_free(wheel);
		return NULL;
	}
	return wheel;
}

void timer_wheel_free(struct timer_wheel *wheel)
{
	if (wheel == NULL)
		return;
	if (wheel->timer != NULL)
		event_free(wheel->timer);
	if (wheel->soon_timer != NULL)
		event_free(wheel->soon_timer);
	free(wheel);
}

/* The tick at which DEADLINE_MS has passed, as far as the wheel reaches. */
static uint64_t reachable_tick(struct timer_wheel *wheel, uint64_t deadline_ms)
{
	uint64_t tick = deadline_ms == TIMER_WHEEL_NEVER ? TIMER_WHEEL_NEVER : deadline_ms / TIMER_WHEEL_TICK_MS + 1;
	if (tick > wheel->tick && tick - wheel->tick < SLOTS)
		return tick;

	uint64_t now_tick = clock_ms() / TIMER_WHEEL_TICK_MS;
	/* what lies before the tick it is armed for is empty: catch up, to reach as far as can be */
	if (wheel->armed > wheel->tick + 1 && now_tick > wheel->tick)
		wheel->tick = now_tick < wheel->armed ? now_tick : wheel->armed - 1;
	if (tick <= wheel->tick)
		return wheel->tick + 1;
	return tick - wheel->tick < SLOTS ? tick : wheel->tick + SLOTS - 1;
}

void timer_wheel_set(struct timer_wheel *wheel, struct timer_wheel_entry *entry, uint64_t deadline_ms)
{
	timer_wheel_remove(entry);
	uint64_t tick = reachable_tick(wheel, deadline_ms);
	unsigned slot = tick % SLOTS;

	link_entry(&wheel->slots[slot], entry);
	wheel->occupied[slot / 64] |= UINT64_C(1) << (slot % 64);
	if (tick < wheel->armed)
		arm(wheel, tick);
	else if (wheel->unset)
		arm(wheel, wheel->armed);
}

bool timer_wheel_set_soon(struct timer_wheel *wheel, struct timer_wheel_entry *entry)
{
	bool armed = evtimer_pending(wheel->soon_timer, NULL);
	timer_wheel_remove(entry);
	if (!armed && !arm_soon(wheel))
		return false;
	link_entry(armed ? &wheel->next_soon : &wheel->soon, entry);
	return true;
}

void timer_wheel_remove(struct timer_wheel_entry *entry)
{
	if (entry->link == NULL)
		return;
	*entry->link = entry->next;
	if (entry->next != NULL)
		entry->next->link = entry->link;
	entry->link = NULL;
}

static void visit_list(struct timer_wheel_entry *entry, void (*visit)(struct timer_wheel_entry *entry))
{
	for (struct timer_wheel_entry *next; entry != NULL; entry = next) {
		next = entry->next;
		visit(entry);
	}
}

void timer_wheel_each(struct timer_wheel *wheel, void (*visit)(struct timer_wheel_entry *entry))
{
	for (int slot = 0; slot < SLOTS; slot++)
		visit_list(wheel->slots[slot], visit);
	visit_list(wheel->soon, visit);
	visit_list(wheel->next_soon, visit);
}
