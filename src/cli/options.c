#define _GNU_SOURCE
#include "options.h"

#include "base/str.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { FLAG, TEXT, LIST, U32, U64, REAL, SIZE };

/* One row a flag. A flag whose presence matters beside its value names a bool in `seen`. */
struct flag {
    const char *name;
    char letter; /* 0: none */
    enum kind kind;
    unsigned commands;
    size_t offset, seen; /* in cli_settings; seen 0: none */
    const char *argument, *help;
};

#define AT(field) offsetof(struct cli_settings, field)

static const struct flag flags[] = {
    {"prompt", 'p', TEXT, CMD_RUN | CMD_TOKENIZE, AT(prompt), 0, "TEXT", "the prompt"},
    {"file", 'f', TEXT, CMD_RUN | CMD_TOKENIZE | CMD_PERPLEXITY, AT(prompt_file), 0, "FILE", "read the text from a file"},
    {"max-tokens", 'n', U32, CMD_RUN, AT(n), AT(has_n), "N", "tokens to generate (default 128)"},
    {"temp", 0, REAL, CMD_RUN, AT(temp), 0, "T", "temperature; 0 takes the likeliest token (default 0.8)"},
    {"top-k", 0, U32, CMD_RUN, AT(top_k), 0, "K", "draw from the K likeliest tokens; 0: all (default 40)"},
    {"top-p", 0, REAL, CMD_RUN, AT(top_p), 0, "P", "draw from the likeliest tokens that sum to P (default 0.95)"},
    {"min-p", 0, REAL, CMD_RUN, AT(min_p), 0, "M", "drop tokens less likely than M times the likeliest (default 0.05)"},
    {"repeat-penalty", 0, REAL, CMD_RUN, AT(repeat_penalty), 0, "R", "penalty for tokens used lately; 1: none (default 1)"},
    {"frequency-penalty", 0, REAL, CMD_RUN, AT(frequency_penalty), 0, "R", "penalty for each use of a token (default 0)"},
    {"presence-penalty", 0, REAL, CMD_RUN, AT(presence_penalty), 0, "R", "penalty for any use of a token (default 0)"},
    {"repeat-last-n", 0, U32, CMD_RUN, AT(repeat_last_n), 0, "N", "tokens that the penalties look back (default 64)"},
    {"seed", 's', U64, CMD_RUN, AT(seed), AT(has_seed), "S", "seed of the draw (default: random, and printed)"},
    {"ignore-eos", 0, FLAG, CMD_RUN, AT(ignore_eos), 0, NULL, "go on past end-of-text tokens"},
    {"echo", 0, FLAG, CMD_RUN, AT(echo), 0, NULL, "print the prompt before the answer"},
    {"special", 0, FLAG, CMD_RUN | CMD_TOKENIZE | CMD_DETOKENIZE, AT(special), 0, NULL, "text of control tokens stands for those tokens"},
    {"no-bos", 0, FLAG, CMD_RUN | CMD_TOKENIZE, AT(no_bos), 0, NULL, "do not put the begin-of-text token in front"},
    {"pieces", 0, FLAG, CMD_TOKENIZE, AT(pieces), 0, NULL, "one line a token: id and text"},
    {"template", 0, TEXT, CMD_RENDER, AT(template_file), 0, "FILE", "a template instead of the model's"},
    {"name", 0, TEXT, CMD_RENDER, AT(template_name), 0, "NAME", "one of the templates that the model has beside its usual one"},
    {"context", 0, TEXT, CMD_RENDER, AT(context), 0, "FILE", "JSON object of the template's variables; '-': standard input"},
    {"now", 0, TEXT, CMD_RENDER, AT(now), 0, "TIME", "the time that strftime_now shows, e.g. 2026-01-15T12:00:00 (default: the local time)"},
    {"tokens", 't', TEXT, CMD_LOGITS, AT(tokens), 0, "1,2,3", "token ids to evaluate"},
    {"all", 0, FLAG, CMD_LOGITS, AT(all), 0, NULL, "a row for every token, not only the last"},
    {"greedy", 0, U32, CMD_LOGITS, AT(greedy), 0, "N", "go on greedily for N tokens and print their ids"},
    {"windows", 0, U32, CMD_PERPLEXITY, AT(windows), 0, "N", "windows to score (default: all that the text has)"},
    {"style", 0, TEXT, CMD_PERPLEXITY, AT(style), 0, "full|llama",
     "full: every token of [BOS + 511 tokens] (default); llama: the second half of 512-token chunks, as llama.cpp does"},
    {"prompt-tokens", 'p', U32, CMD_BENCH, AT(prompt_tokens), AT(has_prompt_tokens), "N", "prompt tokens (default 512)"},
    {"max-tokens", 'n', U32, CMD_BENCH, AT(n), AT(has_n), "N", "tokens to generate (default 128)"},
    {"repetitions", 'r', U32, CMD_BENCH, AT(repetitions), 0, "N", "runs to take the median of (default 5)"},
    {"synth", 0, TEXT, CMD_BENCH, AT(synth), 0, "SHAPE:TYPE", "a random model instead of a file, e.g. 8b:q4_k"},
    {"shape", 0, TEXT, CMD_SYNTH, AT(shape), 0, "SHAPE", "dimensions of the model"},
    {"type", 0, TEXT, CMD_SYNTH, AT(type), 0, "TYPE", "type of its matrices, e.g. f16, q4_k"},
    {"host", 0, TEXT, CMD_SERVE, AT(host), 0, "HOST", "address to listen at; 0.0.0.0 or ::: all (default 127.0.0.1)"},
    {"port", 0, U32, CMD_SERVE, AT(port), 0, "PORT", "port to listen at; 0: any that is free, and printed (default 8080)"},
    {"api-key", 0, TEXT, CMD_SERVE, AT(api_key), 0, "KEY",
     "what clients must send as 'Authorization: Bearer KEY'; other users of the machine can see it"},
    {"api-key-file", 0, TEXT, CMD_SERVE, AT(api_key_file), 0, "FILE", "the same from a file's first line"},
    {"tls-cert", 0, TEXT, CMD_SERVE, AT(tls_cert), 0, "FILE", "PEM certificate, and those that lead to its issuer: HTTPS instead of HTTP"},
    {"tls-key", 0, TEXT, CMD_SERVE, AT(tls_key), 0, "FILE", "its PEM key, without a passphrase"},
    {"cors", 0, LIST, CMD_SERVE, AT(cors), 0, "ORIGIN",
     "let web pages of scheme://name[:port], or of any with '*', use the server; repeat it for more"},
    {"allow-host", 0, LIST, CMD_SERVE, AT(allow_hosts), 0, "NAME",
     "a name that clients may call the server by, beside localhost; '*': any; repeat it for more"},
    {"alias", 0, TEXT, CMD_SERVE, AT(alias), 0, "NAME", "the model's name for clients (default: the file's, without .gguf)"},
    {"chat-template", 0, TEXT, CMD_SERVE, AT(template_file), 0, "FILE", "a chat template instead of the model's"},
    {"parallel", 0, U32, CMD_SERVE, AT(parallel), 0, "N", "answers that are computed at once (default 16)"},
    {"max-requests", 0, U32, CMD_SERVE, AT(max_requests), 0, "N", "requests that run or wait at once; one more is told to come later (default 256)"},
    {"max-connections", 0, U32, CMD_SERVE, AT(max_connections), 0, "N", "connections at once (default 512)"},
    {"max-body", 0, SIZE, CMD_SERVE, AT(max_body), 0, "BYTES", "of a request (default 8M)"},
    {"idle", 0, U32, CMD_SERVE, AT(idle), 0, "S", "seconds after which a client that neither sends nor reads is disconnected (default 60)"},
    {"drain", 0, U32, CMD_SERVE, AT(drain), 0, "S", "seconds that answers may go on after SIGTERM (default 30)"},
    {"output", 'o', TEXT, CMD_LOGITS | CMD_TENSOR | CMD_SYNTH, AT(output), 0, "FILE", "file to write"},
    {"json", 0, FLAG, CMD_RUN | CMD_BENCH, AT(json), 0, NULL, "one JSON object on stdout instead of text"},
    {"device", 'd', TEXT, CMD_COMPUTE | CMD_INFO, AT(device), 0, "DEVICE", "auto, cpu, cuda or cuda:N (default auto; $M40LLM_DEVICE)"},
    {"ctx", 'c', U32, CMD_COMPUTE | CMD_INFO, AT(ctx), 0, "N", "context in tokens (default: the least of the model's, what fits, and 8192)"},
    {"kv-mem", 0, SIZE, CMD_COMPUTE, AT(kv_mem), 0, "BYTES",
     "memory of the KV cache, e.g. 900M or 4G (default: one context for each answer at once)"},
    {"kv-type", 0, TEXT, CMD_COMPUTE | CMD_INFO, AT(kv_type), 0, "f16|f32", "type of the KV cache (default f16)"},
    {"chunk", 0, U32, CMD_COMPUTE | CMD_INFO, AT(chunk), 0, "N", "prompt tokens in one step (default 512)"},
    {"threads", 0, U32, CMD_COMPUTE, AT(threads), 0, "N", "threads of the CPU backend (default: one a core)"},
    {"cpu-level", 0, TEXT, CMD_COMPUTE, AT(cpu_level), 0, "auto|scalar|avx2|avx512", "instructions the CPU backend may use"},
    {"no-graphs", 0, FLAG, CMD_COMPUTE, AT(no_graphs), 0, NULL, "launch every CUDA kernel by itself, for measuring and debugging"},
    {"help", 'h', FLAG, CMD_ALL, AT(help), 0, NULL, "this text"},
};

enum { N_FLAGS = sizeof flags / sizeof *flags };

/* What REAL flags may be. */
static const struct {
    const char *flag;
    float least, most;
} ranges[] = {
    {"temp", 0, 1e6f},
    {"top-p", 1e-6f, 1},
    {"min-p", 0, 1},
    {"repeat-penalty", 1e-3f, 1e3f},
    {"frequency-penalty", -1e3f, 1e3f},
    {"presence-penalty", -1e3f, 1e3f},
};

enum { N_RANGES = sizeof ranges / sizeof *ranges };

int cli_fail(const m40llm_error *err)
{
    fprintf(stderr, "m40llm: %s\n", err->text);
    return CLI_FAILURE;
}

int cli_fail_at(const char *path, const m40llm_error *err)
{
    if (strstr(err->text, path))
        return cli_fail(err);
    fprintf(stderr, "m40llm: %s: %s\n", path, err->text);
    return CLI_FAILURE;
}

int cli_no_memory(void)
{
    fprintf(stderr, "m40llm: out of memory\n");
    return CLI_FAILURE;
}

int cli_stopped(void)
{
    fprintf(stderr, "m40llm: stopped before the end\n");
    return CLI_FAILURE;
}

int cli_usage(const char *format, ...)
{
    va_list args;

    fprintf(stderr, "m40llm: ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    return CLI_USAGE;
}

void cli_print_help(const struct cli_command *command)
{
    printf("m40llm %s %s\n\n%s\n\n", command->name, command->arguments, command->summary);
    for (int i = 0; i < N_FLAGS; i++) {
        char left[64];

        if (!(flags[i].commands & command->bit))
            continue;
        snprintf(left, sizeof left, "%c%c%s--%s%s%s", flags[i].letter ? '-' : ' ', flags[i].letter ? flags[i].letter : ' ',
                 flags[i].letter ? ", " : "  ", flags[i].name, flags[i].argument ? " " : "", flags[i].argument ? flags[i].argument : "");
        printf("  %-34s %s\n", left, flags[i].help);
    }
}

static int set_real(const struct flag *flag, float *field, const char *text)
{
    char *end;
    float value;

    errno = 0;
    value = strtof(text, &end);
    if (end == text || *end || errno || !isfinite(value))
        return cli_usage("--%s %s: not a number", flag->name, text);
    for (int i = 0; i < N_RANGES; i++)
        if (strcmp(ranges[i].flag, flag->name) == 0 && (value < ranges[i].least || value > ranges[i].most))
            return cli_usage("--%s %s: must be from %g to %g", flag->name, text, (double)ranges[i].least, (double)ranges[i].most);
    *field = value;
    return CLI_OK;
}

static int set_whole_number(const struct flag *flag, void *field, const char *text)
{
    uint64_t limit = flag->kind == U32 ? UINT32_MAX / 4 : UINT64_MAX, value;
    char *end;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value > limit)
        return cli_usage("--%s %s: not a whole number from 0 to %llu", flag->name, text, (unsigned long long)limit);
    if (flag->kind == U32)
        *(uint32_t *)field = (uint32_t)value;
    else
        *(uint64_t *)field = value;
    return CLI_OK;
}

/* A whole number of bytes, or of KiB, MiB or GiB. */
static int set_size(const struct flag *flag, uint64_t *field, const char *text)
{
    static const char units[] = "KMG";
    uint64_t value, limit = UINT64_MAX;
    const char *unit;
    char *end;

    errno = 0;
    value = strtoull(text, &end, 10);
    unit = *end ? strchr(units, *end) : NULL;
    if (unit) {
        limit = UINT64_MAX >> 10 * (unit - units + 1);
        end++;
    }
    if (*text < '0' || *text > '9' || *end || errno || value > limit)
        return cli_usage("--%s %s: not a number of bytes, as 4096, 900M or 4G", flag->name, text);
    *field = unit ? value << 10 * (unit - units + 1) : value;
    return CLI_OK;
}

static int add_to_list(const struct flag *flag, struct cli_list *list, const char *text)
{
    if (!*text)
        return cli_usage("--%s: it is empty", flag->name);
    if (list->n == sizeof list->items / sizeof *list->items)
        return cli_usage("--%s: more than %u of them", flag->name, list->n);
    list->items[list->n++] = text;
    return CLI_OK;
}

static int set_flag(struct cli_settings *settings, const struct flag *flag, const char *text)
{
    void *field = (char *)settings + flag->offset;

    if (flag->seen)
        *(bool *)((char *)settings + flag->seen) = true;
    if (flag->kind == FLAG)
        *(bool *)field = true;
    else if (flag->kind == TEXT)
        *(const char **)field = text;
    else if (flag->kind == LIST)
        return add_to_list(flag, field, text);
    else if (flag->kind == REAL)
        return set_real(flag, field, text);
    else if (flag->kind == SIZE)
        return set_size(flag, field, text);
    else
        return set_whole_number(flag, field, text);
    return CLI_OK;
}

static const struct flag *flag_of_letter(unsigned command, int letter)
{
    for (int i = 0; i < N_FLAGS; i++)
        if ((flags[i].commands & command) && flags[i].letter == letter)
            return &flags[i];
    return NULL;
}

static int read_environment(struct cli_settings *settings)
{
    static const char *const levels[] = {"error", "warn", "info", "debug", "trace"};
    const char *level = getenv("M40LLM_LOG"), *force = getenv("M40LLM_FORCE_M40"), *cublas = getenv("M40LLM_ENABLE_CUBLAS");

    settings->cuda_library = getenv("M40LLM_CUDA_LIB");
    settings->cublas_library = getenv("M40LLM_CUBLAS_LIB");
    settings->nvml_library = getenv("M40LLM_NVML_LIB");
    settings->device = getenv("M40LLM_DEVICE");
    settings->force_m40 = force && strcmp(force, "1") == 0;
    settings->log_level = M40LLM_LOG_WARN;
    if (!m40_parse_switch(cublas, &settings->use_cublas))
        return cli_usage("M40LLM_ENABLE_CUBLAS=%s: must be 0 or 1", cublas);
    for (int i = 0; level && i < 5; i++)
        if (strcmp(level, levels[i]) == 0) {
            settings->log_level = (m40llm_log_level)i;
            return CLI_OK;
        }
    return level ? cli_usage("M40LLM_LOG=%s: must be error, warn, info, debug or trace", level) : CLI_OK;
}

static void set_defaults(struct cli_settings *settings)
{
    *settings = (struct cli_settings){
        .kv_type = "f16",
        .cpu_level = "auto",
        .style = "full",
        .n = 128,
        .prompt_tokens = 512,
        .repetitions = 5,
        .temp = 0.8f,
        .top_k = 40,
        .top_p = 0.95f,
        .min_p = 0.05f,
        .repeat_penalty = 1.0f,
        .repeat_last_n = 64,
        .port = 8080,
        .max_connections = 512,
        .max_body = 8u << 20,
        .idle = 60,
        .drain = 30,
    };
}

static int check_choice(const char *flag, const char *value, const char *const *choices)
{
    for (int i = 0; choices[i]; i++)
        if (strcmp(value, choices[i]) == 0)
            return CLI_OK;
    return cli_usage("--%s %s: not one of the choices (see --help)", flag, value);
}

static int check_device(const char *device)
{
    unsigned n;
    int end = 0;

    if (!device || strcmp(device, "auto") == 0 || strcmp(device, "cpu") == 0 || strcmp(device, "cuda") == 0)
        return CLI_OK;
    if (sscanf(device, "cuda:%4u%n", &n, &end) == 1 && device[end] == 0)
        return CLI_OK;
    return cli_usage("--device %s: must be auto, cpu, cuda or cuda:N", device);
}

static int check_settings(const struct cli_settings *s, const struct cli_command *command)
{
    int rc = check_choice("kv-type", s->kv_type, (const char *const[]){"f16", "f32", NULL});

    if (rc == CLI_OK)
        rc = check_choice("cpu-level", s->cpu_level, (const char *const[]){"auto", "scalar", "avx2", "avx512", NULL});
    if (rc == CLI_OK)
        rc = check_choice("style", s->style, (const char *const[]){"full", "llama", NULL});
    if (rc == CLI_OK)
        rc = check_device(s->device);
    if (rc != CLI_OK)
        return rc;
    if (s->n_args < command->min_args)
        return cli_usage("%s: too few arguments; usage: m40llm %s %s", command->name, command->name, command->arguments);
    if (command->max_args >= 0 && s->n_args > command->max_args)
        return cli_usage("%s: unexpected argument '%s'; usage: m40llm %s %s", command->name, s->args[command->max_args], command->name,
                         command->arguments);
    return CLI_OK;
}

/* getopt's tables, made from ours. letters must hold 2 + 2 * N_FLAGS bytes. */
static void make_getopt_tables(unsigned command, struct option *longs, char *letters)
{
    int n = 0;

    *letters++ = ':'; /* tell a missing argument from an unknown flag */
    for (int i = 0; i < N_FLAGS; i++) {
        if (!(flags[i].commands & command))
            continue;
        longs[n++] = (struct option){flags[i].name, flags[i].kind == FLAG ? no_argument : required_argument, NULL, 256 + i};
        if (flags[i].letter) {
            *letters++ = flags[i].letter;
            if (flags[i].kind != FLAG)
                *letters++ = ':';
        }
    }
    *letters = 0;
    longs[n] = (struct option){0};
}

int cli_parse(struct cli_settings *settings, const struct cli_command *command, int argc, char **argv)
{
    struct option longs[N_FLAGS + 1];
    char letters[2 + 2 * N_FLAGS];
    int rc, c;

    set_defaults(settings);
    rc = read_environment(settings);
    make_getopt_tables(command->bit, longs, letters);
    opterr = 0;
    while (rc == CLI_OK && (c = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
        if (c == '?' && optopt > 0 && optopt < 256) /* a letter, perhaps one of several in one argument */
            return cli_usage("%s: unknown option '-%c'; see m40llm %s --help", command->name, optopt, command->name);
        if (c == '?')
            return cli_usage("%s: unknown option '%s'; see m40llm %s --help", command->name, argv[optind - 1], command->name);
        if (c == ':')
            return cli_usage("%s: option '%s' needs a value", command->name, argv[optind - 1]);
        rc = set_flag(settings, c >= 256 ? &flags[c - 256] : flag_of_letter(command->bit, c), optarg);
    }
    if (rc != CLI_OK || settings->help)
        return rc;
    settings->args = (const char **)argv + optind;
    settings->n_args = argc - optind;
    return check_settings(settings, command);
}
