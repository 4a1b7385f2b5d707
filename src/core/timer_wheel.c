/* timer_wheel.c: deadlines of many connections, driven by one timer of the event loop. */
#include "core/timer_wheel.h"

#include <event2/event.h>
#include <stdlib.h>

#include "core/clock.h"

enum {
	SLOTS = 2048, /* a horizon of 102 s: an entry with a later deadline is visited there and set again */
	WORDS = SLOTS / 64,
	BUDGET = 1024, /* entries per wake-up, so that many at once do not delay the data path */
};

struct timer_wheel {
	struct event *timer, *soon_timer;
	timer_wheel_callback *on_due;
	uint64_t tick;  /* all ticks up to this one have been visited */
	uint64_t armed; /* the tick that the timer is set for; TIMER_WHEEL_NEVER: none */
	bool unarmed;   /* setting the timer failed for lack of memory: the next timer_wheel_set tries again */
	struct timer_wheel_list slots[SLOTS];
	uint64_t occupied[WORDS]; /* a bit per slot: 0 means empty, 1 may be stale */
	/* due with soon_timer, and added since it was set, for which that would be too early */
	struct timer_wheel_list soon, next_soon;
};

static void arm(struct timer_wheel *wheel, uint64_t tick)
{
	uint64_t now = clock_ms(), due = tick * TIMER_WHEEL_TICK_MS;
	uint64_t wait = due > now ? due - now : 0;
	struct timeval timeout = clock_timeval((int64_t)wait);
	wheel->armed = tick;
	wheel->unarmed = evtimer_add(wheel->timer, &timeout) < 0;
}

/* Returns the first tick after the last visited one whose slot may hold entries. */
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

/* Calls back for ENTRY, and sets it to the deadline that the callback returns. */
static void fire(struct timer_wheel *wheel, struct timer_wheel_entry *entry, uint64_t now_ms)
{
	timer_wheel_remove(entry);
	uint64_t next = wheel->on_due(entry, now_ms);
	if (next != 0) /* never in the slot being visited, which would not become empty */
		timer_wheel_set(wheel, entry, next > now_ms ? next : now_ms + TIMER_WHEEL_TICK_MS);
}

/* Fires the entries of LIST. Returns false if BUDGET ran out before the list was empty. */
static bool fire_list(struct timer_wheel *wheel, const struct timer_wheel_list *list, uint64_t now_ms, unsigned *budget)
{
	while (!LIST_EMPTY(list)) {
		if ((*budget)-- == 0)
			return false;
		fire(wheel, LIST_FIRST(list), now_ms);
	}
	return true;
}

/* Fires the entries of TICK's slot; returns as fire_list. */
static bool visit_slot(struct timer_wheel *wheel, uint64_t tick, uint64_t now_ms, unsigned *budget)
{
	unsigned slot = tick % SLOTS;
	if (!fire_list(wheel, &wheel->slots[slot], now_ms, budget))
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
	wheel->armed = 0; /* timer_wheel_set must not arm: that is done below, once */
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

/* Moves the entries of FROM to TO, which is empty. */
static void move_list(struct timer_wheel_list *to, struct timer_wheel_list *from)
{
	LIST_FIRST(to) = LIST_FIRST(from);
	if (!LIST_EMPTY(to))
		LIST_FIRST(to)->link.le_prev = &LIST_FIRST(to);
	LIST_INIT(from);
}

static void on_soon(evutil_socket_t fd, short what, void *argument)
{
	struct timer_wheel *wheel = argument;
	unsigned budget = BUDGET;

	(void)fd, (void)what;
	if (fire_list(wheel, &wheel->soon, clock_ms(), &budget))
		move_list(&wheel->soon, &wheel->next_soon);
	if (!LIST_EMPTY(&wheel->soon))
		(void)arm_soon(wheel); /* cannot fail: the timer had its memory a moment ago */
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

/* Returns the tick at which DEADLINE_MS has passed, at most the horizon. */
static uint64_t reachable_tick(struct timer_wheel *wheel, uint64_t deadline_ms)
{
	uint64_t tick = deadline_ms == TIMER_WHEEL_NEVER ? TIMER_WHEEL_NEVER : deadline_ms / TIMER_WHEEL_TICK_MS + 1;
	if (tick > wheel->tick && tick - wheel->tick < SLOTS)
		return tick;

	uint64_t now_tick = clock_ms() / TIMER_WHEEL_TICK_MS;
	/* slots before the armed tick are empty: catch up, which moves the horizon forward */
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

	LIST_INSERT_HEAD(&wheel->slots[slot], entry, link);
	wheel->occupied[slot / 64] |= UINT64_C(1) << (slot % 64);
	if (tick < wheel->armed)
		arm(wheel, tick);
	else if (wheel->unarmed)
		arm(wheel, wheel->armed);
}

bool timer_wheel_set_soon(struct timer_wheel *wheel, struct timer_wheel_entry *entry)
{
	bool armed = evtimer_pending(wheel->soon_timer, NULL);
	timer_wheel_remove(entry);
	if (!armed && !arm_soon(wheel))
		return false;
	LIST_INSERT_HEAD(armed ? &wheel->next_soon : &wheel->soon, entry, link);
	return true;
}

void timer_wheel_remove(struct timer_wheel_entry *entry)
{
	if (entry->link.le_prev == NULL)
		return;
	LIST_REMOVE(entry, link);
	entry->link.le_prev = NULL;
}

static void visit_list(const struct timer_wheel_list *list, void (*visit)(struct timer_wheel_entry *entry))
{
	for (struct timer_wheel_entry *entry = LIST_FIRST(list), *next; entry != NULL; entry = next) {
		next = LIST_NEXT(entry, link);
		visit(entry);
	}
}

void timer_wheel_each(struct timer_wheel *wheel, void (*visit)(struct timer_wheel_entry *entry))
{
	for (int slot = 0; slot < SLOTS; slot++)
		visit_list(&wheel->slots[slot], visit);
	visit_list(&wheel->soon, visit);
	visit_list(&wheel->next_soon, visit);
}
