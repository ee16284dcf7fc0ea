/* m40llm: the command line. Every command is a face on m40llm.h. */
#include "options.h"

#include <stdio.h>
#include <string.h>

static const struct cli_command commands[] = {
    {"run", CMD_RUN, "MODEL (-p TEXT | -f FILE | -) [options]",
     "Continue a text and print the continuation as it comes. '-' reads the prompt from standard input.", cmd_run, 1, 2},
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
                "Environment: M40LLM_LOG (error, warn, info, debug, trace), M40LLM_DEVICE, M40LLM_CUDA_LIB (the driver to open), M40LLM_NVML_LIB, "
                "M40LLM_FORCE_M40=1.\n");
}

int main(int argc, char **argv)
{
    struct cli_settings settings;

    if (argc >= 2 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0)) {
        printf("m40llm %s\n", m40llm_version());
        return CLI_OK;
    }
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_overview(argc < 2 ? stderr : stdout);
        return argc < 2 ? CLI_USAGE : CLI_OK;
    }
    for (int i = 0; i < N_COMMANDS; i++) {
        int rc;

        if (strcmp(argv[1], commands[i].name) != 0)
            continue;
        rc = cli_parse(&settings, &commands[i], argc - 1, argv + 1);
        if (rc == CLI_OK && settings.help)
            cli_print_help(&commands[i]);
        else if (rc == CLI_OK)
            rc = commands[i].run(&settings);
        if (fflush(stdout) != 0 || ferror(stdout)) {
            fprintf(stderr, "m40llm: cannot write to standard output\n");
            return CLI_FAILURE;
        }
        return rc;
    }
    return cli_usage("unknown command '%s'; see m40llm --help", argv[1]);
}
