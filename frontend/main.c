/* main.c - the program: prints what the library says, draws the progress bar, removes temporary
 * files when killed. In: argv. Out: exit status. Always holds: the only file of cmzc that prints,
 * exits or handles signals. */
#include "cmzc.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What a signal handler needs; the program is one compilation. */
static char temporary_folder[4096];
static pid_t program;
static int word_count;
static const char *const *words;

typedef struct screen {
  double start;
  int terminal, drawn;
} screen;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void clear_bar(screen *s) {
  if (s->drawn) fputs("\r\033[K", stderr);
  s->drawn = 0;
}

static void print_message(void *user, const cmzc_message *message) {
  clear_bar(user);
  fprintf(stderr, "%s\n", message->text);
}

static void print_text(void *user, const char *text, size_t length) {
  clear_bar(user);
  fwrite(text, 1, length, stdout);
}

static void draw_progress(void *user, const char *stage, unsigned done, unsigned total) {
  enum { WIDTH = 30 };
  static const char full[WIDTH + 1] = "##############################",
                                 empty[WIDTH + 1] = "..............................";
  screen *s = user;
  if (!s->terminal || !total || now() - s->start < 2) return;
  int part = (int)((unsigned long long)done * WIDTH / total);
  fprintf(stderr, "\r%s [%.*s%.*s] %u/%u", stage, part, full, WIDTH - part, empty, done, total);
  fflush(stderr);
  s->drawn = 1;
  if (done == total) clear_bar(s);
}

static void keep_temporary(void *user, const char *path, int made) {
  (void)user;
  temporary_folder[0] = 0;
  if (made && strlen(path) < sizeof temporary_folder) strcpy(temporary_folder, path);
}

/* Ends the compile workers, which would go on writing into the temporary folder. */
static void end_workers(void) {
  char list[4096];
  int file = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
  ssize_t length = file >= 0 ? read(file, list, sizeof list) : 0;
  if (file >= 0) close(file);
  pid_t pid = 0;
  for (ssize_t i = 0; i < length; i++) {
    if (list[i] >= '0' && list[i] <= '9') {
      pid = pid * 10 + (list[i] - '0');
    } else if (pid) {
      kill(pid, SIGKILL);
      waitpid(pid, NULL, 0);
      pid = 0;
    }
  }
}

/* Runs in signal handlers: only calls that may be made there. */
static void remove_temporary(void) {
  if (!temporary_folder[0] || getpid() != program) return;
  end_workers();
  pid_t child = fork();
  if (child == 0) {
    execl("/bin/rm", "rm", "-rf", "--", temporary_folder, (char *)NULL);
    _exit(127);
  }
  if (child > 0) waitpid(child, NULL, 0);
}

static void on_kill(int number) {
  remove_temporary();
  signal(number, SIG_DFL);
  raise(number);
}

static void put(int file, const char *text) {
  size_t length = strlen(text);
  while (length) {
    ssize_t n = write(file, text, length);
    if (n <= 0) return;
    text += n, length -= (size_t)n;
  }
}

/* A crash is a defect of ours: say so, leave the command line in a file, exit 4. */
static void on_crash(int number) {
  signal(number, SIG_DFL);
  if (getpid() != program) {
    raise(number);
    return;
  }
  static const char name[] = "cmzc.reproducer.txt";
  int file = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (file >= 0) {
    put(file, "cmzc "), put(file, cmzc_version()), put(file, ": crashed\ncommand: cmzc");
    for (int i = 0; i < word_count; i++) put(file, " '"), put(file, words[i]), put(file, "'");
    put(file, "\n");
    close(file);
  }
  put(2, "cmzc: error: internal error (crash); please report it with the model and ");
  put(2, file >= 0 ? name : "the command line"), put(2, "\n");
  remove_temporary();
  _exit(4);
}

static void handle(const int *numbers, size_t count, void (*handler)(int)) {
  for (size_t i = 0; i < count; i++) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(numbers[i], &action, NULL);
  }
}

int main(int argc, char **argv) {
  static const int kills[] = {SIGINT, SIGTERM, SIGHUP},
                   crashes[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
  word_count = argc > 0 ? argc - 1 : 0;
  words = (const char *const *)argv + (argc > 0);
  program = getpid();
  handle(kills, 3, on_kill);
  handle(crashes, 5, on_crash);
  signal(SIGPIPE, SIG_IGN);
  screen s = {.start = now(), .terminal = isatty(2)};
  cmzc_callbacks callbacks = {.message = print_message,
                              .progress = draw_progress,
                              .text = print_text,
                              .user = &s,
                              .temporary = keep_temporary,
                              .terminal = s.terminal};
  int status = cmzc_compile(word_count, words, &callbacks);
  clear_bar(&s);
  if (fflush(stdout) != 0 && status == 0) {
    fputs("cmzc: error: cannot write to standard output\n", stderr);
    status = 1;
  }
  return status;
}
