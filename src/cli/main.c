/* m40llm: the command line. Every command is a face on m40llm.h. */
#include "options.h"
#include "terminal.h"

#include <stdio.h>
#include <string.h>

static const struct cli_command commands[] = {
    {"run", CMD_RUN, "MODEL [-p TEXT | -f FILE | -] [options]",
     "Chat in the terminal, or answer the message on standard input. With -p, -f or - (standard input), continue a text.", cmd_run, 1, 2},
    {"info", CMD_INFO, "[MODEL] [options]",
     "Without a model: the devices, and which would be chosen and why. With one: what is in the file and the memory it needs.", cmd_info, 0, 1},
    {"tokenize", CMD_TOKENIZE, "MODEL (-p TEXT | -f FILE) [options]", "Token ids of a text, on one line.", cmd_tokenize, 1, 1},
    {"detokenize", CMD_DETOKENIZE, "MODEL ID... [options]", "Text of token ids.", cmd_detokenize, 1, -1},
    {"render", CMD_RENDER, "(MODEL | --template FILE) --context FILE.json [options]", "Print a conversation as the model's chat template writes it.",
     cmd_render, 0, 1},
    {"logits", CMD_LOGITS, "MODEL --tokens 1,2,3 -o FILE [options]",
     "Write logits as little-endian float32 rows: of the last token, or of all. With --greedy, print the ids that follow.", cmd_logits, 1, 1},
    {"tensor", CMD_TENSOR, "MODEL NAME -o FILE", "Write one tensor as little-endian float32 and print its shape, slowest dimension first.",
     cmd_tensor, 2, 2},
    {"perplexity", CMD_PERPLEXITY, "MODEL -f FILE [options]", "Mean negative log-likelihood and perplexity of a text.", cmd_perplexity, 1, 1},
    {"bench", CMD_BENCH, "(MODEL | --synth SHAPE:TYPE) [options]",
     "Prefill and decode speed, with the share of the device's measured read bandwidth.", cmd_bench, 0, 1},
    {"serve", CMD_SERVE, "MODEL [options]", "Answer over HTTP, as OpenAI's API does (docs/api.md).", cmd_serve, 1, 1},
    {"synth", CMD_SYNTH, "--shape SHAPE --type TYPE -o FILE", "Write a deterministic random model.", cmd_synth, 0, 0},
};

enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_overview(FILE *to)
{
    fprintf(to, "m40llm %s: run GGUF language models on NVIDIA Maxwell GPUs\n\nusage: m40llm COMMAND ...\n\n", m40llm_version());
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(to, "  %-11s %s\n", commands[i].name, commands[i].summary);
    fprintf(to, "\nm40llm COMMAND --help tells a command's options.\n"
                "Environment: M40LLM_LOG (error, warn, info, debug, trace), M40LLM_DEVICE, M40LLM_CUDA_LIB (the driver to open), M40LLM_NVML_LIB,\n"
                "M40LLM_FORCE_M40=1, M40LLM_HISTORY=0 (a chat keeps no history), NO_COLOR.\n");
}

static const struct cli_command *find_command(const char *name)
{
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0)
            return &commands[i];
    return NULL;
}

static int unknown_command(const char *name)
{
    return cli_usage("unknown command '%s'; see m40llm --help", name);
}

/* m40llm help [COMMAND] */
static int help(const char *name)
{
    const struct cli_command *command = name ? find_command(name) : NULL;

    if (name && !command)
        return unknown_command(name);
    if (command)
        cli_print_help(command);
    else
        print_overview(stdout);
    return CLI_OK;
}

static int run_command(int argc, char **argv)
{
    const struct cli_command *command = find_command(argv[1]);
    struct cli_settings settings;
    int rc;

    if (!command)
        return unknown_command(argv[1]);
    rc = cli_parse(&settings, command, argc - 1, argv + 1);
    if (rc == CLI_OK && settings.help)
        cli_print_help(command);
    else if (rc == CLI_OK)
        rc = command->run(&settings);
    return rc;
}

static bool is_any(const char *word, const char *a, const char *b, const char *c)
{
    return strcmp(word, a) == 0 || strcmp(word, b) == 0 || strcmp(word, c) == 0;
}

int main(int argc, char **argv)
{
    int rc = CLI_OK;

    if (argc < 2) {
        print_overview(stderr);
        return CLI_USAGE;
    }
    if (is_any(argv[1], "--version", "-V", "version"))
        printf("m40llm %s\n", m40llm_version());
    else if (is_any(argv[1], "--help", "-h", "help"))
        rc = help(argv[2]);
    else
        rc = run_command(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        cli_say(stderr, "cannot write to standard output");
        return CLI_FAILURE;
    }
    return rc;
}
