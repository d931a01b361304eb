/* device.c - what instances of one library have in common on devices. In: a program's list, entries
 * of the drivers'. Out: entries counted, found by drivers, taken out when nobody uses them. Always
 * holds: the list changes only under the program's lock; this list is the only thing in a library
 * that is written to, and it is empty when there is no instance. */
#include "device.h"

enum { FREE, TAKEN, WAITED_FOR };

/* Drivers exist on Linux's kernels alone, where a waiter has no state of its own. */
void cmz_lock(uint32_t *word) {
  uint32_t expected = FREE;
  if (__atomic_compare_exchange_n(word, &expected, TAKEN, false, __ATOMIC_ACQUIRE,
                                  __ATOMIC_RELAXED))
    return;
  cmz_waiter waiter;
  cmz_waiter_begin(&waiter);
  while (__atomic_exchange_n(word, WAITED_FOR, __ATOMIC_ACQUIRE) != FREE)
    cmz_waiter_sleep(&waiter, word, WAITED_FOR);
  cmz_waiter_end(&waiter);
}

void cmz_unlock(uint32_t *word) {
  if (__atomic_exchange_n(word, FREE, __ATOMIC_RELEASE) != WAITED_FOR) return;
  cmz_waiter waiter;
  cmz_waiter_begin(&waiter);
  cmz_waiter_wake(&waiter, word);
  cmz_waiter_end(&waiter);
}

void cmz_shared_add(const cmz_program *p, cmz_shared *s) {
  s->users = 1;
  s->next = p->device->commons->entries;
  p->device->commons->entries = s;
}

bool cmz_shared_leave(const cmz_program *p, cmz_shared *s) {
  if (--s->users) return false;
  cmz_shared **at = &p->device->commons->entries;
  while (*at != s) at = &(*at)->next;
  *at = s->next;
  return true;
}
