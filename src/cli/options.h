/* The command line: one table of flags, from which parsing and --help are made, and the settings they fill. */
#ifndef M40_CLI_OPTIONS_H
#define M40_CLI_OPTIONS_H

#include "option_values.h"

#include "m40llm.h"

#include <stdbool.h>

enum cli_exit { CLI_OK = 0, CLI_FAILURE = 1, CLI_USAGE = 2 };

/* Commands, as bits: a flag belongs to one or more. */
enum cli_command_bit {
    CMD_RUN = 1 << 0,
    CMD_INFO = 1 << 1,
    CMD_TOKENIZE = 1 << 2,
    CMD_DETOKENIZE = 1 << 3,
    CMD_LOGITS = 1 << 4,
    CMD_TENSOR = 1 << 5,
    CMD_PERPLEXITY = 1 << 6,
    CMD_BENCH = 1 << 7,
    CMD_SYNTH = 1 << 8,
    CMD_RENDER = 1 << 9,
    CMD_SERVE = 1 << 10,
    CMD_COMPUTE = CMD_RUN | CMD_LOGITS | CMD_PERPLEXITY | CMD_BENCH | CMD_SERVE,
    CMD_ALL = (1 << 11) - 1,
};

/* What the flags and the environment say. Strings point into argv or the environment. */
struct cli_settings {
    bool help;
    /* devices and memory */
    const char *device;
    uint32_t ctx, chunk, threads;
    uint64_t kv_mem; /* bytes; 0: the default */
    const char *kv_type, *prefill, *cpu_level;
    bool no_graphs;
    /* input and output */
    const char *prompt, *prompt_file, *output, *tokens;
    bool json, echo;
    uint32_t n;
    /* sampling */
    float temp, top_p, min_p, repeat_penalty, frequency_penalty, presence_penalty;
    uint32_t top_k, repeat_last_n;
    uint64_t seed;
    bool has_seed, has_n, has_prompt_tokens, ignore_eos;
    /* chat */
    const char *system;
    bool no_history;
    /* tokenize, detokenize */
    bool no_bos, special, pieces;
    /* render */
    const char *template_file, *template_name, *context, *now;
    /* logits */
    bool all;
    uint32_t greedy;
    /* perplexity */
    uint32_t windows;
    const char *style;
    /* bench, synth */
    uint32_t prompt_tokens, repetitions;
    const char *synth, *shape, *type;
    /* serve */
    const char *host, *api_key, *api_key_file, *alias, *tls_cert, *tls_key;
    struct cli_list cors, allow_hosts;
    uint32_t port, parallel, max_requests, max_connections, idle, drain;
    uint64_t max_body;
    uint32_t longest_step_ms; /* as m40llm_engine_options has it */
    /* positional arguments */
    const char **args;
    int n_args;
    /* from the environment */
    const char *cuda_library, *cublas_library, *nvml_library;
    bool force_m40, use_cublas;
    m40llm_log_level log_level;
};

struct cli_command {
    const char *name;
    enum cli_command_bit bit;
    const char *arguments; /* "MODEL [...]" */
    const char *summary;
    int (*run)(struct cli_settings *settings);
    int min_args, max_args; /* positional; max_args < 0: any number */
};

/* Fills settings from argv[first..] and the environment. Returns CLI_OK, or CLI_USAGE after saying on stderr what is wrong. */
int cli_parse(struct cli_settings *settings, const struct cli_command *command, int argc, char **argv);

/* One option of `command` by its long name, as the command line would set it. false: why says what is wrong, and the settings are as they were. A text must outlive the settings. */
bool cli_set_option(struct cli_settings *settings, unsigned command, const char *name, const char *text, char *why, size_t capacity);
/* Its value; false: there is no such option, or nobody has set one that has no default. */
bool cli_get_option(const struct cli_settings *settings, unsigned command, const char *name, char *text, size_t capacity);

/* The command's --help. */
void cli_print_help(const struct cli_command *command);

/* "m40llm: text" on stderr; returns CLI_FAILURE, or CLI_USAGE for the second. */
int cli_fail(const m40llm_error *err);
/* The same with the file's name in front, where the text does not have it. */
int cli_fail_at(const char *path, const m40llm_error *err);
int cli_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same for what needs no details. */
int cli_no_memory(void);
int cli_stopped(void); /* by Ctrl-C */

int cmd_run(struct cli_settings *settings);
int cmd_info(struct cli_settings *settings);
int cmd_tokenize(struct cli_settings *settings);
int cmd_detokenize(struct cli_settings *settings);
int cmd_render(struct cli_settings *settings);
int cmd_logits(struct cli_settings *settings);
int cmd_tensor(struct cli_settings *settings);
int cmd_perplexity(struct cli_settings *settings);
int cmd_bench(struct cli_settings *settings);
int cmd_synth(struct cli_settings *settings);
int cmd_serve(struct cli_settings *settings);

#endif
