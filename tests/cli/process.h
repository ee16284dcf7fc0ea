/* Runs the program under test and keeps what it wrote. */
#ifndef M40_TESTS_CLI_PROCESS_H
#define M40_TESTS_CLI_PROCESS_H

#include "harness/harness.h"

#include <sys/types.h>

struct output {
    int status; /* exit status; 128 + n after signal n */
    char *out, *err;
    size_t n_out;
};

struct launch {
    const char *input;       /* standard input; NULL: empty */
    const char *out_path;    /* standard output goes there instead of into `out`; NULL: it is kept */
    const char *err_path;    /* and standard error; NULL: it is kept */
    uint64_t max_file_bytes; /* no file may grow beyond it (writes then fail); 0: no limit */
};

/* The program's path: $M40LLM_BIN, or build/m40llm. */
const char *program_path(void);

/* args: NULL-terminated, without the program's name. Free with output_free. */
struct output run_program(const struct launch *launch, const char *const *args);
void output_free(struct output *o);

/* In two steps, for what happens on the way: the file that standard output goes to grows meanwhile. */
pid_t start_program(const struct launch *launch, const char *const *args);
const char *running_output_path(void);
struct output finish_program(pid_t pid);

#define RUN(...)               run_program(&(struct launch){0}, (const char *const[]){__VA_ARGS__, NULL})
#define RUN_WITH(launch_, ...) run_program(&(struct launch)launch_, (const char *const[]){__VA_ARGS__, NULL})

#endif
