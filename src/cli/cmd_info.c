/* m40llm info: the devices, or what is in a file and the memory it needs. */
#include "session.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { MAX_DEVICES = 32, MAX_TYPES = 64 };

static int print_devices(const struct cli_settings *settings)
{
    m40llm_device_options options = cli_device_options(settings);
    m40llm_device_info devices[MAX_DEVICES] = {M40LLM_DEVICE_INFO_INIT};
    char reason[256];
    size_t n;
    m40llm_error err;

    if (m40llm_device_list(&options, devices, MAX_DEVICES, &n, reason, &err) != M40LLM_OK)
        return cli_fail(&err);
    for (size_t i = 0; i < n && i < MAX_DEVICES; i++) {
        const m40llm_device_info *d = &devices[i];

        printf("%s  %s", d->spec, d->name);
        if (d->cc_major)
            printf(", compute capability %d.%d, driver %s", d->cc_major, d->cc_minor, d->driver);
        if (d->memory_total_bytes)
            printf(", memory %" PRIu64 " MiB", d->memory_total_bytes >> 20);
        if (d->memory_free_bytes) /* a card tells it only once it is open */
            printf(" (%" PRIu64 " MiB free)", d->memory_free_bytes >> 20);
        printf("\n    %s\n", d->why);
    }
    if (reason[0])
        printf("no CUDA device: %s\n", reason);
    printf("--device auto would take %s\n", reason[0] ? "cpu" : devices[0].spec);
    return CLI_OK;
}

/* Names and texts of a file may hold anything: a control character becomes a space. */
static const char *clean(char *text)
{
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = ' ';
    return text;
}

static void print_metadata(const m40llm_file *file)
{
    char text[200], key[200];

    for (size_t i = 0; i < m40llm_file_n_metadata(file); i++) {
        m40llm_metadata m = M40LLM_METADATA_INIT;
        size_t n = m40llm_file_metadata_text(file, i, 8, text, sizeof text);

        m40llm_file_metadata(file, i, &m);
        snprintf(key, sizeof key, "%s", m.key);
        printf("  %s = %s%s\n", clean(key), clean(text), n >= sizeof text ? " ..." : "");
    }
}

static double mib(uint64_t n_bytes)
{
    return (double)n_bytes / 1048576.0;
}

static void print_tensors(const m40llm_file *file)
{
    struct {
        const char *name;
        uint64_t n_tensors, n_elements, n_bytes;
    } types[MAX_TYPES];
    size_t n_types = 0;
    char name[200];

    for (size_t i = 0; i < m40llm_file_n_tensors(file); i++) {
        m40llm_tensor_info t = M40LLM_TENSOR_INFO_INIT;
        size_t k = 0;

        m40llm_file_tensor(file, i, &t);
        snprintf(name, sizeof name, "%s", t.name);
        printf("  %-36s %-8s [", clean(name), t.type_name);
        for (uint32_t d = t.n_dims; d > 0; d--)
            printf("%" PRIu64 "%s", t.dims[d - 1], d > 1 ? ", " : "]");
        printf("  %.2f MiB%s\n", mib(t.size_bytes), t.is_readable ? "" : "  (cannot be used)");
        while (k < n_types && strcmp(types[k].name, t.type_name) != 0)
            k++;
        if (k == n_types && n_types < MAX_TYPES) {
            types[n_types].name = t.type_name;
            types[n_types].n_tensors = types[n_types].n_elements = types[n_types].n_bytes = 0;
            n_types++;
        }
        if (k < n_types) {
            types[k].n_tensors++;
            types[k].n_elements += t.n_elements;
            types[k].n_bytes += t.size_bytes;
        }
    }
    for (size_t k = 0; k < n_types; k++)
        printf("%-8s %6" PRIu64 " tensors, %12" PRIu64 " weights, %10.2f MiB\n", types[k].name, types[k].n_tensors, types[k].n_elements,
               (double)types[k].n_bytes / 1048576.0);
}

/* The longest context whose memory is at most n_bytes, in whole pages of the KV cache, up to the model's own; 0: none. */
static m40llm_status longest_context(const m40llm_file *file, const m40llm_model_info *info, const struct cli_settings *settings, uint64_t n_bytes,
                                     uint32_t *out, m40llm_error *err)
{
    enum { PAGE = 32 };
    uint32_t fits = 0, beyond = info->n_ctx_train / PAGE + 1;

    while (beyond - fits > 1) {
        uint32_t middle = fits + (beyond - fits) / 2;
        uint64_t weights, kv, other;
        m40llm_status status = m40llm_file_memory_needed(file, middle * PAGE, cli_kv_type(settings), settings->chunk, &weights, &kv, &other, err);

        if (status != M40LLM_OK)
            return status;
        *(weights + kv + other <= n_bytes ? &fits : &beyond) = middle;
    }
    *out = fits * PAGE;
    return M40LLM_OK;
}

/* What fits on the cards that this program is for: with error correction switched on a sixteenth of their memory is gone, and the driver keeps some. */
static int print_contexts(const m40llm_file *file, const char *path, const m40llm_model_info *info, const struct cli_settings *settings)
{
    static const uint32_t sizes_gib[] = {12, 24};

    for (size_t i = 0; i < sizeof sizes_gib / sizeof *sizes_gib; i++) {
        uint64_t usable = ((uint64_t)sizes_gib[i] << 30) / 16 * 15 - (128 << 20);
        uint32_t n_ctx;
        m40llm_error err;

        if (longest_context(file, info, settings, usable, &n_ctx, &err) != M40LLM_OK)
            return cli_fail_at(path, &err);
        if (n_ctx == 0)
            printf("a card of %u GB: too small\n", sizes_gib[i]);
        else
            printf("a card of %u GB: a context of %u tokens%s\n", sizes_gib[i], n_ctx, n_ctx + 32 > info->n_ctx_train ? " (the model's)" : "");
    }
    return CLI_OK;
}

static int print_memory(const m40llm_file *file, const char *path, const struct cli_settings *settings)
{
    m40llm_model_info info = M40LLM_MODEL_INFO_INIT;
    uint64_t weights, kv, other;
    uint32_t n_ctx;
    m40llm_error err;

    if (m40llm_file_model_info(file, cli_kv_type(settings), &info, &err) != M40LLM_OK)
        return cli_fail_at(path, &err);
    n_ctx = settings->ctx ? settings->ctx : info.n_ctx_train < 8192 ? info.n_ctx_train : 8192;
    printf("model: %s (%s), %.3g B parameters, %u layers, width %u, %u heads on %u KV heads of %u, FFN %u, vocabulary %u, trained for %u tokens\n",
           info.name, info.architecture, (double)info.n_parameters * 1e-9, info.n_layers, info.n_embd, info.n_heads, info.n_kv_heads, info.head_dim,
           info.n_ff, info.n_vocab, info.n_ctx_train);
    if (info.n_active_parameters < info.n_parameters)
        printf("parameters that a token uses: %.3g B of %.3g B\n", (double)info.n_active_parameters * 1e-9, (double)info.n_parameters * 1e-9);
    if (m40llm_file_memory_needed(file, n_ctx, cli_kv_type(settings), settings->chunk, &weights, &kv, &other, &err) != M40LLM_OK)
        return cli_fail_at(path, &err);
    printf("device memory for a context of %u: %.1f MiB (weights %.1f, KV cache %.1f, other %.1f)\n", n_ctx, mib(weights + kv + other), mib(weights),
           mib(kv), mib(other));
    if (info.expert_bytes)
        printf("of the weights %.1f MiB are dense, %.1f MiB experts\n", mib(info.weight_bytes - info.expert_bytes), mib(info.expert_bytes));
    if (info.window_kv_bytes_per_token)
        printf("of the KV cache %.1f MiB belong to layers that see the whole context, %.1f MiB to layers with a window of %u tokens\n",
               mib(kv / info.kv_bytes_per_token * (info.kv_bytes_per_token - info.window_kv_bytes_per_token)),
               mib(kv / info.kv_bytes_per_token * info.window_kv_bytes_per_token), info.window);
    return print_contexts(file, path, &info, settings);
}

int cmd_info(struct cli_settings *settings)
{
    m40llm_file *file;
    m40llm_error err;
    int rc = CLI_OK;

    if (settings->n_args == 0)
        return print_devices(settings);
    if (m40llm_file_open(&file, settings->args[0], &err) != M40LLM_OK)
        return cli_fail(&err);
    printf("%s: GGUF v%u, %u part%s, %.2f MiB, %zu metadata entries, %zu tensors\n", settings->args[0], m40llm_file_version(file),
           m40llm_file_n_parts(file), m40llm_file_n_parts(file) == 1 ? "" : "s", (double)m40llm_file_size_bytes(file) / 1048576.0,
           m40llm_file_n_metadata(file), m40llm_file_n_tensors(file));
    print_metadata(file);
    print_tensors(file);
    if (m40llm_file_n_tensors(file) > 0)
        rc = print_memory(file, settings->args[0], settings);
    else
        printf("a vocabulary only: there are no weights\n");
    m40llm_file_close(&file);
    return rc;
}
