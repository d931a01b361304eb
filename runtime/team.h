/* team.h - the threads of one instance. In: a function over [0, count) tiles. Out: all tiles done.
 * Always holds: threads exist from create to destroy and hold no lock while they work; with one
 * thread nothing is started and calls go straight through. */
#ifndef CMZ_RUNTIME_TEAM_H
#define CMZ_RUNTIME_TEAM_H

#include "program.h"

/* Computes tiles [begin, end); WORKER numbers the thread from 0 (the caller). */
typedef void cmz_team_function(void *user, uint32_t begin, uint32_t end, uint32_t worker);

typedef struct cmz_team cmz_team;
struct cmz_model;

/* COUNT threads including the caller. NULL when memory or threads ran out. */
cmz_team *cmz_team_create(struct cmz_model *model, uint32_t count);
void cmz_team_destroy(struct cmz_model *model, cmz_team *team);
/* Splits COUNT tiles over the team: each worker starts on a contiguous share of its own, in chunks,
 * and then takes chunks of slower workers. */
void cmz_team_run(cmz_team *team, cmz_team_function *function, void *user, uint32_t count);

#endif
