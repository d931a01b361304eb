/* profile.c - time per step. In: a charge after each step. Out: rows for the caller.
 * Always holds: every moment between the start and the end of a run is charged to exactly one cell,
 * so that the rows sum to the runs. */
#include "instance.h"

void cmz_profile_charge(cmz_model *m, uint32_t index) {
  uint64_t now = cmz_now();
  m->profile[index].nanoseconds += now - m->profile_last;
  m->profile[index].calls++;
  m->profile_last = now;
}

void cmz_instance_profile(cmz_model *m, int on) {
  if (!m->program) return;
  m->profiling = on != 0;
  memset(m->profile, 0, (m->program->step_count + 1u) * sizeof *m->profile);
}

static cmz_profile_row step_row(const cmz_model *m, uint32_t index) {
  const cmz_program *p = m->program;
  const cmz_program_step *step = &p->steps[index];
  cmz_profile_row row = {.name = p->strings + step->name,
                         .kernel = p->strings + step->kernel_name,
                         .is_runtime_op = step->kind == CMZ_PS_RUNTIME};
  int64_t flops = m->slots[step->flops_slot], bytes = m->slots[step->bytes_slot];
  row.flops = flops > 0 ? (uint64_t)flops : 0;
  row.bytes = bytes > 0 ? (uint64_t)bytes : 0;
  return row;
}

uint32_t cmz_instance_profile_rows(const cmz_model *m, cmz_profile_row *rows, uint32_t capacity) {
  if (!m->program) return 0;
  uint32_t count = 0;
  for (uint32_t i = 0; i <= m->program->step_count; i++) {
    if (m->profile[i].calls == 0) continue;
    if (count < capacity) {
      cmz_profile_row row = {.name = "(run)", .kernel = "(checks and sizes)"};
      if (i < m->program->step_count) row = step_row(m, i);
      row.nanoseconds = m->profile[i].nanoseconds;
      row.calls = m->profile[i].calls;
      rows[count] = row;
    }
    count++;
  }
  /* The device's counts as rows without time; they are a run's, and readers divide calls by runs.
   */
  static const char *const counted[] = {"(dispatches)", "(barriers)", "(submissions)"};
  uint64_t runs = m->profile[m->program->step_count].calls / 2;
  for (uint32_t i = 0; i < 3 && m->device_counts[0]; i++, count++)
    if (count < capacity)
      rows[count] = (cmz_profile_row){
          .name = "(device)", .kernel = counted[i], .calls = m->device_counts[i] * runs};
  return count;
}
