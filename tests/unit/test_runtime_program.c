/* test_runtime_program.c - the program interpreter on hand-made programs: kernels over a team,
 * dynamic sizes, data-dependent sizes, If, Loop with swapped values and appended outputs, profile,
 * errors. */
#include "../../runtime/cpu.h"
#include "../../runtime/ops.h"
#include "../../runtime/program.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- kernels ---- */

/* y[i] = x[i] + 1; one element a tile; params: n */
static void add_one(const cmz_kargs *a, uint32_t begin, uint32_t end, uint32_t worker) {
  (void)worker;
  const float *x = a->operands[0];
  float *y = a->operands[1];
  for (uint32_t i = begin; i < end; i++) y[i] = x[i] + 1;
}

/* next = {b, a + b}; item = a (i64 scalars): Fibonacci */
static void fibonacci(const cmz_kargs *a, uint32_t begin, uint32_t end, uint32_t worker) {
  (void)begin, (void)end, (void)worker;
  const int64_t x = *(int64_t *)a->operands[0], y = *(int64_t *)a->operands[1];
  *(int64_t *)a->operands[2] = x + y;
  *(int64_t *)a->operands[3] = x;
}

static cmz_kernel_function *const kernels[] = {add_one, fibonacci};
static const cmz_program_level levels[] = {{"any", 0, kernels}};

static cmz_tensor floats(float *data, int64_t n) {
  return (cmz_tensor){
      .data = data, .element = CMZ_ELEMENT_F32, .rank = 1, .dims = {n}, .bytes = (size_t)n * 4};
}

/* ---- a program over a symbolic dim: y = x + 1 through an arena buffer ---- */

static const int64_t symbolic_dims[] = {-1};
static const cmz_port x_port[] = {{"x", CMZ_ELEMENT_F32, 1, symbolic_dims}},
                      y_port[] = {{"y", CMZ_ELEMENT_F32, 1, symbolic_dims}};
static const cmz_symbolic_dim n_dim[] = {{"n", 1, 100000}};
static const cmz_description dynamic_description = {.struct_size = sizeof(cmz_description),
                                                    .name = "dynamic",
                                                    .target = "test",
                                                    .input_count = 1,
                                                    .output_count = 1,
                                                    .dim_count = 1,
                                                    .inputs = x_port,
                                                    .outputs = y_port,
                                                    .dims = n_dim};
/* slots: 0 zero, 1 n, 2 four, 3 n*4, 4 64, 5 aligned, 6 work */
static const int64_t dynamic_slots[] = {0, 0, 4, 0, 64, 0, 1 << 20};
static const cmz_size_instruction dynamic_instructions[] = {{CMZ_SIZE_MUL, 3, 1, 2, 0},
                                                            {CMZ_SIZE_ALIGN, 5, 3, 4, 0}};
static const uint32_t dynamic_lists[] = {1, /* 1: */ 0, 1, /* 3: */ 1, 2, /* 5: */ 1};
static const cmz_program_buffer dynamic_buffers[] = {
    {CMZ_PB_INPUT, 0, 0, 3, CMZ_ELEMENT_F32, 1, 0, 0},
    {CMZ_PB_ARENA, 0, 0, 3, CMZ_ELEMENT_F32, 1, 0, 0},
    {CMZ_PB_OUTPUT, 0, 0, 3, CMZ_ELEMENT_F32, 1, 0, 0},
};
static const char strings[] = "\0first\0second";
static const cmz_program_step dynamic_steps[] = {
    {.kind = CMZ_PS_KERNEL,
     .a = 0,
     .operands = 1,
     .operand_count = 2,
     .params = 5,
     .param_count = 1,
     .tiles = 5,
     .name = 1,
     .flops_slot = 6},
    {.kind = CMZ_PS_KERNEL,
     .a = 0,
     .operands = 3,
     .operand_count = 2,
     .params = 5,
     .param_count = 1,
     .tiles = 5,
     .name = 7,
     .flops_slot = 6},
};
static const cmz_program_block dynamic_blocks[] = {{0, 2}};
static const cmz_program_input_dim dynamic_input_dim[] = {{1, 1}};
static const cmz_program_input_dim *const dynamic_input_dims[] = {dynamic_input_dim};
static const uint32_t dynamic_dim_slots[] = {1}, buffer_0[] = {0}, buffer_2[] = {2};
static const cmz_program dynamic_program = {.description = &dynamic_description,
                                            .slot_count = 7,
                                            .instruction_count = 2,
                                            .buffer_count = 3,
                                            .step_count = 2,
                                            .block_count = 1,
                                            .level_count = 1,
                                            .kernel_count = 2,
                                            .list_count = 6,
                                            .slot_init = dynamic_slots,
                                            .instructions = dynamic_instructions,
                                            .entry_instructions = 2,
                                            .arena_slot = 5,
                                            .buffers = dynamic_buffers,
                                            .steps = dynamic_steps,
                                            .blocks = dynamic_blocks,
                                            .lists = dynamic_lists,
                                            .strings = strings,
                                            .input_dims = dynamic_input_dims,
                                            .dim_slots = dynamic_dim_slots,
                                            .output_buffers = buffer_2,
                                            .input_buffers = buffer_0,
                                            .levels = levels};

static void run_dynamic(uint32_t threads) {
  cmz_config config = {.struct_size = sizeof config, .threads = threads};
  cmz_model *m;
  assert_int_equal(cmz_instance_create(&dynamic_program, &config, &m), CMZ_SUCCESS);
  static const int64_t sizes[] = {1, 7, 5000, 100000, 3};
  float *data = calloc(100000, sizeof *data);
  for (int i = 0; i < 100000; i++) data[i] = (float)i;
  for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
    cmz_tensor x = floats(data, sizes[s]), y = {0};
    assert_int_equal(cmz_instance_run(m, &x, &y), CMZ_SUCCESS);
    assert_int_equal(y.dims[0], sizes[s]);
    for (int64_t i = 0; i < sizes[s]; i++) assert_true(((float *)y.data)[i] == (float)i + 2);
  }
  cmz_tensor x = floats(data, 0), y = {0};
  assert_int_equal(cmz_instance_run(m, &x, &y), CMZ_INVALID_ARGUMENT);
  assert_non_null(strstr(cmz_instance_error(m), "\"x\""));
  assert_non_null(strstr(cmz_instance_error(m), "1..100000"));
  cmz_instance_destroy(m);
  free(data);
}

static void test_dynamic(void **state) {
  (void)state;
  run_dynamic(1);
  run_dynamic(2);
  run_dynamic(5);
  int64_t n = 100;
  assert_int_equal(cmz_instance_arena_bytes(&dynamic_program, &n), 448);
  n = 0;
  assert_int_equal(cmz_instance_arena_bytes(&dynamic_program, &n), 0);
}

static void test_profile(void **state) {
  (void)state;
  cmz_model *m;
  assert_int_equal(cmz_instance_create(&dynamic_program, NULL, &m), CMZ_SUCCESS);
  float data[16] = {0};
  cmz_tensor x = floats(data, 16), y = {0};
  cmz_instance_profile(m, 1);
  for (int i = 0; i < 3; i++) assert_int_equal(cmz_instance_run(m, &x, &y), CMZ_SUCCESS);
  cmz_profile_row rows[8];
  assert_int_equal(cmz_instance_profile_rows(m, rows, 8), 3);
  assert_string_equal(rows[0].name, "first");
  assert_string_equal(rows[1].name, "second");
  assert_int_equal(rows[0].calls, 3);
  cmz_instance_destroy(m);
}

static void test_missing_cpu(void **state) {
  (void)state;
  static const cmz_program_level none[] = {{"none", UINT64_C(1) << 63, kernels}};
  cmz_program p = dynamic_program;
  p.levels = none;
  cmz_model *m;
  assert_int_equal(cmz_instance_create(&p, NULL, &m), CMZ_UNAVAILABLE);
  assert_non_null(strstr(cmz_instance_error(m), "CPU"));
  assert_int_equal(cmz_instance_run(m, NULL, NULL), CMZ_UNAVAILABLE);
  cmz_instance_destroy(m);
}

/* ---- a loop: Fibonacci numbers appended until the trip count; values swapped as they are carried
 * ---- */

static const int64_t after_run_dims[] = {CMZ_DIM_AFTER_RUN};
static const cmz_port trip_port[] = {{"trips", CMZ_ELEMENT_I64, 0, NULL}};
static const cmz_port loop_outputs[] = {{"numbers", CMZ_ELEMENT_I64, 1, after_run_dims},
                                        {"last", CMZ_ELEMENT_I64, 0, NULL}};
static const cmz_description loop_description = {.struct_size = sizeof(cmz_description),
                                                 .name = "loop",
                                                 .target = "test",
                                                 .input_count = 1,
                                                 .output_count = 2,
                                                 .inputs = trip_port,
                                                 .outputs = loop_outputs};
/* slots: 0 zero, 1 eight, 2 count (data), 3 count * 8, 4..: offsets, 9 arena */
static const int64_t loop_slots[] = {0, 8, 0, 0, 64, 128, 192, 1, 0, 256};
static const cmz_size_instruction loop_instructions[] = {{CMZ_SIZE_MUL, 3, 2, 1, 0}};
enum { TRIPS, ZERO, ONE, STATE_A, STATE_B, SUM, ITEM, NUMBERS, LAST };
static const cmz_program_buffer loop_buffers[] = {
    [TRIPS] = {CMZ_PB_INPUT, 0, 0, 1, CMZ_ELEMENT_I64, 0, 0, 0},
    [ZERO] = {CMZ_PB_CONSTANT, 0, 0, 1, CMZ_ELEMENT_I64, 0, 0, 0},
    [ONE] = {CMZ_PB_CONSTANT, 1, 0, 1, CMZ_ELEMENT_I64, 0, 0, 0},
    [STATE_A] = {CMZ_PB_ARENA, 0, 0, 1, CMZ_ELEMENT_I64, 0, 0, 0},
    [STATE_B] = {CMZ_PB_ARENA, 0, 4, 1, CMZ_ELEMENT_I64, 0, 0, 0},
    [SUM] = {CMZ_PB_ARENA, 0, 5, 1, CMZ_ELEMENT_I64, 0, 0, 0},
    [ITEM] = {CMZ_PB_ARENA, 0, 6, 1, CMZ_ELEMENT_I64, 0, 0, 0},
    [NUMBERS] = {CMZ_PB_OUTPUT, 0, 0, 3, CMZ_ELEMENT_I64, 1, 0, 0},
    [LAST] = {CMZ_PB_OUTPUT, 1, 0, 1, CMZ_ELEMENT_I64, 0, 0, 0},
};
/* [0] dims of numbers; [1..4] operands of fibonacci; [24] its tiles; [5…] the loop: carried (a: 0
 * -> A, next B), (b: 1 -> B, next SUM) */
static const uint32_t loop_lists[] = {
    2,   STATE_A,    STATE_B, SUM,  ITEM,    TRIPS, UINT32_MAX, UINT32_MAX, UINT32_MAX,
    1,   UINT32_MAX, 2,       2,    0,       1,     ZERO,       STATE_A,    STATE_B,
    ONE, STATE_B,    SUM,     ITEM, NUMBERS, 0,     7};
static const cmz_program_step loop_steps[] = {
    {.kind = CMZ_PS_LOOP, .a = 5},
    {.kind = CMZ_PS_SIZES, .a = 0, .b = 1},
    {.kind = CMZ_PS_COPY, .a = STATE_A, .b = LAST},
    {.kind = CMZ_PS_KERNEL, .a = 1, .operands = 1, .operand_count = 4, .tiles = 24},
};
static const cmz_program_block loop_blocks[] = {{0, 3}, {3, 1}};
static const cmz_program_input_dim *const no_dims[] = {NULL};
static const uint32_t loop_out_buffers[] = {NUMBERS, LAST};
static const int64_t zero = 0, one = 1;
static const void *const loop_weights[] = {&zero, &one};
static const cmz_program loop_program = {.description = &loop_description,
                                         .slot_count = 10,
                                         .instruction_count = 1,
                                         .buffer_count = 9,
                                         .step_count = 4,
                                         .block_count = 2,
                                         .level_count = 1,
                                         .kernel_count = 2,
                                         .list_count = sizeof loop_lists / 4,
                                         .slot_init = loop_slots,
                                         .instructions = loop_instructions,
                                         .entry_instructions = 0,
                                         .arena_slot = 9,
                                         .buffers = loop_buffers,
                                         .steps = loop_steps,
                                         .blocks = loop_blocks,
                                         .lists = loop_lists,
                                         .strings = strings,
                                         .input_dims = no_dims,
                                         .output_buffers = loop_out_buffers,
                                         .input_buffers = buffer_0,
                                         .levels = levels,
                                         .weights = loop_weights};

static void test_loop(void **state) {
  (void)state;
  static const int64_t want[] = {0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89};
  cmz_model *m;
  assert_int_equal(cmz_instance_create(&loop_program, NULL, &m), CMZ_SUCCESS);
  for (int64_t trips = 12; trips >= 0; trips -= 4) {
    cmz_tensor input = {.data = &trips, .element = CMZ_ELEMENT_I64, .bytes = 8}, outputs[2] = {{0}};
    assert_int_equal(cmz_instance_run(m, &input, outputs), CMZ_SUCCESS);
    assert_int_equal(outputs[0].dims[0], trips);
    assert_int_equal(outputs[0].bytes, trips * 8);
    if (trips) assert_memory_equal(outputs[0].data, want, (size_t)trips * 8);
    if (trips == 8) assert_int_equal(*(int64_t *)outputs[1].data, 21);
  }
  int64_t trips = 4, small[2];
  cmz_tensor input = {.data = &trips, .element = CMZ_ELEMENT_I64, .bytes = 8};
  cmz_tensor outputs[2] = {{.data = small, .bytes = sizeof small}, {0}};
  assert_int_equal(cmz_instance_run(m, &input, outputs), CMZ_INVALID_ARGUMENT);
  assert_non_null(strstr(cmz_instance_error(m), "numbers"));
  cmz_instance_destroy(m);
}

/* Out of memory at any point: an error, and everything given back. */
static long allowed, balance;
static void *take(void *context, size_t bytes, size_t alignment) {
  (void)context;
  if (allowed-- <= 0) return NULL;
  balance++;
  return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}
static void give(void *context, void *memory, size_t bytes) {
  (void)context, (void)bytes;
  balance--;
  free(memory);
}

static void test_memory(void **state) {
  (void)state;
  cmz_config config = {
      .struct_size = sizeof config, .threads = 2, .allocate = take, .release = give};
  int64_t trips = 9;
  for (long n = 0; n < 12; n++) {
    allowed = n;
    cmz_model *m;
    cmz_tensor input = {.data = &trips, .element = CMZ_ELEMENT_I64, .bytes = 8}, outputs[2] = {{0}};
    int rc = cmz_instance_create(&loop_program, &config, &m);
    if (!rc) rc = cmz_instance_run(m, &input, outputs);
    if (n < 4) assert_int_equal(rc, CMZ_OUT_OF_MEMORY);
    cmz_instance_destroy(m);
    assert_int_equal(balance, 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_dynamic),     cmocka_unit_test(test_profile),
      cmocka_unit_test(test_missing_cpu), cmocka_unit_test(test_loop),
      cmocka_unit_test(test_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
