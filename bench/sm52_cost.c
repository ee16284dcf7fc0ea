/* sm52-cost: what our kernels cost on a Tesla M40, from their sm_52 machine code. Usage text below; the model is in sm52_model.h. */
#include "bench/sm52_model.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SHAPES        8
#define MAX_LISTING_BYTES ((size_t)256 << 20)

static const char usage[] = "usage: sm52-cost [--json] [--shape ROWSxCOLS]... LISTING...\n"
                            "Reads listings of sm_52 code (tools/sm52_listing.sh makes them) and prints what each kernel costs on a Tesla M40.\n"
                            "  --json             one JSON object instead of the tables\n"
                            "  --shape ROWSxCOLS  a matrix to predict the time of; default 4096x14336 and 14336x4096\n";

struct shape {
    uint32_t n_rows, n_cols;
};

struct options {
    bool json;
    struct shape shapes[MAX_SHAPES];
    size_t n_shapes;
    char **paths;
    int n_paths;
};

struct report {
    struct options options;
    struct sm52_listing listing;
    struct sm52_cost *costs;
    size_t n_costs;
};

/* ---- arguments and files ---- */

static bool parse_shape(const char *text, struct shape *shape)
{
    char *end;
    unsigned long rows = strtoul(text, &end, 10), cols;

    if (*end != 'x' || rows == 0 || rows > 1 << 24 || text[0] < '0' || text[0] > '9' || end[1] < '0' || end[1] > '9')
        return false;
    cols = strtoul(end + 1, &end, 10);
    *shape = (struct shape){(uint32_t)rows, (uint32_t)cols};
    return *end == '\0' && cols > 0 && cols <= 1 << 24;
}

static bool parse_options(struct options *o, int argc, char **argv)
{
    int i = 1;

    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        if (strcmp(argv[i], "--json") == 0)
            o->json = true;
        else if (strcmp(argv[i], "--shape") == 0 && i + 1 < argc && o->n_shapes < MAX_SHAPES && parse_shape(argv[i + 1], &o->shapes[o->n_shapes]))
            o->n_shapes++, i++;
        else
            return false;
    }
    if (o->n_shapes == 0) {
        o->shapes[o->n_shapes++] = (struct shape){4096, 14336};
        o->shapes[o->n_shapes++] = (struct shape){14336, 4096};
    }
    o->paths = argv + i;
    o->n_paths = argc - i;
    return o->n_paths > 0;
}

static m40llm_status read_file(const char *path, struct m40_buf *text, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    FILE *file = fopen(path, "rb");
    char part[65536];
    size_t n;

    M40_FAIL_IF(!file, M40LLM_IO, "%s: %s", path, strerror(errno));
    while ((n = fread(part, 1, sizeof part, file)) > 0) {
        M40_FAIL_IF(text->n_bytes + n > MAX_LISTING_BYTES, M40LLM_BAD_FILE, "%s: larger than a listing can be", path);
        M40_FAIL_IF(!m40_buf_append(text, part, n), M40LLM_NO_MEMORY, "%s", path);
    }
    M40_FAIL_IF(ferror(file), M40LLM_IO, "%s: %s", path, strerror(errno));
fail:
    if (file)
        fclose(file);
    return status;
}

static m40llm_status read_listing(struct sm52_listing *listing, const char *path, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_buf text = {0};
    m40llm_error why;

    M40_TRY(read_file(path, &text, err));
    status = sm52_parse(listing, text.data ? text.data : "", text.n_bytes, &why);
    if (status != M40LLM_OK)
        m40_fail(err, status, "%s: %s", path, why.text);
fail:
    m40_buf_free(&text);
    return status;
}

/* By family, format, tokens, name. */
static int by_kind(const void *left, const void *right)
{
    const struct sm52_cost *a = left, *b = right;

    if (a->family != b->family)
        return a->family < b->family ? -1 : 1;
    if (a->format != b->format)
        return a->format->type->number < b->format->type->number ? -1 : 1;
    if (a->n_tokens != b->n_tokens)
        return a->n_tokens < b->n_tokens ? -1 : 1;
    return strcmp(a->kernel->name, b->kernel->name);
}

static m40llm_status read_all(struct report *r, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    for (int i = 0; i < r->options.n_paths; i++)
        M40_TRY(read_listing(&r->listing, r->options.paths[i], err));
    r->n_costs = r->listing.n_kernels;
    r->costs = m40_calloc(r->n_costs, sizeof *r->costs);
    M40_FAIL_IF(!r->costs, M40LLM_NO_MEMORY, "costs");
    for (size_t i = 0; i < r->n_costs; i++)
        M40_TRY(sm52_cost_read(&r->costs[i], &r->listing.kernels[i], err));
    qsort(r->costs, r->n_costs, sizeof *r->costs, by_kind);
fail:
    return status;
}

/* ---- tables ---- */

static const char *const limit_names[] = {"registers", "shared", "threads", "blocks"};

static uint32_t address_of(const struct sm52_cost *c, bool end)
{
    return c->kernel->insts[end ? c->hot.end - 1 : c->hot.first].address;
}

/* Weights of a lane in a chunk. */
static double chunk_weights(const struct sm52_cost *c)
{
    return 256.0 * c->weights.n_row_tiles;
}

static void print_place(const struct sm52_cost *c)
{
    printf("%-22s %4u %6u %3u %-9s %04x-%04x %-5s", c->kernel->name, c->kernel->n_registers, c->kernel->n_shared_bytes, c->occupancy.n_warps,
           limit_names[c->occupancy.limit], address_of(c, false), address_of(c, true), c->hot.is_loop ? "loop" : "once");
}

static void print_matvec_head(const struct options *o)
{
    printf("Mat-vec. Slots a weight: hot: in the region shown; all: with what a warp does around it for 256 columns; then of `all' by pipe (lanes a "
           "clock).\n"
           "words: 32-bit words a weight through shared memory; more than all / 4 would bind if a broadcast took as long as 32 different words.\n"
           "loads: of a pass, number x bytes a thread. KB/SM: loads under way in all resident warps. Times in us without ECC; issue: share of the "
           "slots\n"
           "used when weights come at %.0f GB/s. *: one of the three ways to find the weights of a pass disagrees.\n\n",
           SM52_READ_BYTES_S / 1e9);
    printf("%-22s %4s %6s %3s %-9s %-9s %-5s %6s %5s %5s %5s %5s %5s %5s %5s %6s %6s", "kernel", "regs", "shared", "w/SM", "limit", "region", "",
           "w/pass", "hot", "all", "128", "64", "32", "lds", "words", "loads", "KB/SM");
    for (size_t i = 0; i < o->n_shapes; i++)
        printf(" %6ux%-6u %-10s", o->shapes[i].n_rows, o->shapes[i].n_cols, "bound");
    printf(" %6s\n", "issue");
}

static void print_matvec(const struct sm52_cost *c, const struct options *o)
{
    const uint32_t n_loads = c->pass.n_global_loads;
    struct sm52_time time = {0};
    char loads[32];

    snprintf(loads, sizeof loads, "%ux%u", n_loads, n_loads ? c->pass.global_load_bytes / n_loads : 0);
    print_place(c);
    printf(" %6u %5.2f %5.2f %5.2f %5.2f %5.2f %5.2f %5.2f %6s %6.1f", c->weights.n, sm52_hot_slots(c), c->chunk.slots / chunk_weights(c),
           c->chunk.pipe[SM52_ALU] / chunk_weights(c), c->chunk.pipe[SM52_HALF] / chunk_weights(c), c->chunk.pipe[SM52_QUARTER] / chunk_weights(c),
           c->chunk.pipe[SM52_SHARED] / chunk_weights(c), c->chunk.shared_words / chunk_weights(c), loads,
           c->flight.max_bytes * 32.0 * c->occupancy.n_warps / 1024);
    for (size_t i = 0; i < o->n_shapes; i++) {
        time = sm52_matmul_time(c, o->shapes[i].n_rows, o->shapes[i].n_cols, c->n_tokens, SM52_READ_BYTES_S);
        printf(" %13.1f %-10s", time.s * 1e6, sm52_bound_names[time.bound]);
    }
    printf(" %5.0f%%%s\n", 100 * time.limit_s[SM52_ISSUE] / time.limit_s[SM52_MEMORY],
           c->weights.by_ffma == c->weights.by_x && c->weights.by_x == c->weights.by_bytes ? "" : " *");
}

static void print_gemm_head(const struct options *o)
{
    printf(
        "\nGEMM. A pass is 32 columns of a block's rows and tokens; the mean of the block's warps. FFMA: their share of the slots, which bounds the "
        "share of the FP32 peak. Times in "
        "us, 512 tokens.\n\n");
    printf("%-22s %4s %6s %3s %-9s %-9s %-5s %6s %6s %5s %5s %5s", "kernel", "regs", "shared", "w/SM", "limit", "region", "", "slots", "FFMA", "64",
           "32", "lds");
    for (size_t i = 0; i < o->n_shapes; i++)
        printf(" %6ux%-6u %-10s", o->shapes[i].n_rows, o->shapes[i].n_cols, "bound");
    printf("\n");
}

static void print_gemm(const struct sm52_cost *c, const struct options *o)
{
    print_place(c);
    printf(" %6u %5.1f%% %5u %5u %5u", c->pass.slots, 100.0 * c->pass.n_ffma / c->pass.slots, c->pass.pipe[SM52_HALF], c->pass.pipe[SM52_QUARTER],
           c->pass.pipe[SM52_SHARED]);
    for (size_t i = 0; i < o->n_shapes; i++) {
        struct sm52_time time = sm52_matmul_time(c, o->shapes[i].n_rows, o->shapes[i].n_cols, 512, SM52_READ_BYTES_S);

        printf(" %13.0f %-10s", time.s * 1e6, sm52_bound_names[time.bound]);
    }
    printf("\n");
}

static void print_other_head(void)
{
    printf("\nOthers. One pass of the innermost loop that loads most (all of the code where there is none), a warp.\n\n");
    printf("%-22s %4s %6s %3s %-9s %-9s %-5s %6s %5s %5s %5s %5s %5s %6s %-10s\n", "kernel", "regs", "shared", "w/SM", "limit", "region", "", "slots",
           "ffma", "64", "32", "lds", "bytes", "KB/SM", "bound");
}

static void print_other(const struct sm52_cost *c)
{
    print_place(c);
    printf(" %6u %5u %5u %5u %5u %5u %6.1f %-10s\n", c->pass.slots, c->pass.n_ffma, c->pass.pipe[SM52_HALF], c->pass.pipe[SM52_QUARTER],
           c->pass.pipe[SM52_SHARED], c->pass.global_load_bytes, c->flight.max_bytes * 32.0 * c->occupancy.n_warps / 1024,
           sm52_bound_names[sm52_pass_time(c).bound]);
}

/* Launches of a step. */
static double launch_s(const struct sm52_model *model)
{
    return (model->n_layers * (model->n_experts ? SM52_LAUNCHES_PER_MIXTURE : SM52_LAUNCHES_PER_LAYER) + 5) * SM52_LAUNCH_S;
}

static void print_model(const struct report *r, const struct sm52_model *model, const struct sm52_mix *mix)
{
    static const uint32_t tokens[] = {1, 2, 4, 8, 16};
    struct sm52_prediction p;

    if (!sm52_predict(r->costs, r->n_costs, model, mix, SM52_MATVEC, 1, SM52_READ_BYTES_S, &p))
        return;
    printf("%-13s %-7s %6.2f %6.1f %4.0f%%", model->name, mix->name, p.bytes / 1e9, 1 / p.memory_s, 100 * p.issue_s / p.memory_s);
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        bool is_known = sm52_predict(r->costs, r->n_costs, model, mix, SM52_MATVEC, tokens[i], SM52_READ_BYTES_S, &p);

        if (is_known)
            printf(" %7.1f", tokens[i] / p.s);
        else
            printf(" %7s", "-");
    }
    sm52_predict(r->costs, r->n_costs, model, mix, SM52_MATVEC, 1, SM52_READ_BYTES_S, &p);
    printf(" %8.1f", 1 / (p.s + launch_s(model)));
    sm52_predict(r->costs, r->n_costs, model, mix, SM52_MATVEC, 1, SM52_READ_BYTES_S * SM52_ECC_FACTOR, &p);
    printf(" %7.1f", 1 / p.s);
    if (sm52_predict(r->costs, r->n_costs, model, mix, SM52_GEMM, 512, SM52_READ_BYTES_S, &p))
        printf(" %8.0f", 512 / p.s);
    printf("\n");
}

static void print_models(const struct report *r)
{
    printf("\nWhole models, matmuls only: tokens a second of all sequences together, 1 to 16 at once; one with launches (%d a layer, %d of a "
           "mixture, %.1f us each); "
           "one with ECC (assumed: %.0f%% of the\n"
           "bandwidth); prompt of 512. memory: what %.0f GB/s alone allow; issue: slots used at that rate.\n\n",
           SM52_LAUNCHES_PER_LAYER, SM52_LAUNCHES_PER_MIXTURE, SM52_LAUNCH_S * 1e6, SM52_ECC_FACTOR * 100, SM52_READ_BYTES_S / 1e9);
    printf("%-13s %-7s %6s %6s %5s %7s %7s %7s %7s %7s %8s %7s %8s\n", "model", "weights", "GB", "memory", "issue", "1", "2", "4", "8", "16",
           "launches", "ECC", "prompt");
    for (size_t m = 0; m < sm52_n_models; m++)
        for (size_t i = 0; i < sm52_n_mixes; i++)
            print_model(r, &sm52_models[m], &sm52_mixes[i]);
}

static void print_tables(const struct report *r)
{
    for (size_t i = 0; i < r->n_costs; i++) {
        const struct sm52_cost *c = &r->costs[i];

        if (i == 0 || c->family != c[-1].family)
            c->family == SM52_MATVEC ? print_matvec_head(&r->options) : c->family == SM52_GEMM ? print_gemm_head(&r->options) : print_other_head();
        c->family == SM52_MATVEC ? print_matvec(c, &r->options) : c->family == SM52_GEMM ? print_gemm(c, &r->options) : print_other(c);
    }
    print_models(r);
    for (size_t i = 0; i < r->n_costs; i++)
        if (r->costs[i].kernel->n_unknown)
            printf("%s: %u instructions that the table of pipes does not have, the first is %s; taken as 128-lane ones\n", r->costs[i].kernel->name,
                   r->costs[i].kernel->n_unknown, r->costs[i].kernel->unknown);
}

/* ---- JSON: names are [A-Za-z0-9_.$], so nothing needs escaping ---- */

static void print_json_counts(const char *key, const struct sm52_counts *n)
{
    printf(",\"%s\":{\"slots\":%u,\"alu\":%u,\"half\":%u,\"quarter\":%u,\"shared\":%u,\"global\":%u,\"double\":%u,\"control\":%u,\"unknown\":%u,"
           "\"ffma\":%u,"
           "\"global_loads\":%u,\"global_load_bytes\":%u,\"shared_words\":%u}",
           key, n->slots, n->pipe[SM52_ALU], n->pipe[SM52_HALF], n->pipe[SM52_QUARTER], n->pipe[SM52_SHARED], n->pipe[SM52_GLOBAL],
           n->pipe[SM52_DOUBLE], n->pipe[SM52_CONTROL], n->pipe[SM52_UNKNOWN], n->n_ffma, n->n_global_loads, n->global_load_bytes, n->shared_words);
}

static void print_json_time(const struct shape *shape, uint32_t n_tokens, const struct sm52_time *time)
{
    printf("{\"rows\":%u,\"cols\":%u,\"tokens\":%u,\"us\":%.3f,\"bound\":\"%s\",\"limits_us\":{", shape->n_rows, shape->n_cols, n_tokens,
           time->s * 1e6, sm52_bound_names[time->bound]);
    for (int i = 0; i < SM52_N_BOUNDS; i++)
        printf("%s\"%s\":%.3f", i ? "," : "", sm52_bound_names[i], time->limit_s[i] * 1e6);
    printf("}}");
}

static void print_json_kernel(const struct sm52_cost *c, const struct options *o)
{
    const uint32_t n_tokens = c->family == SM52_GEMM ? 512 : c->n_tokens;

    printf(
        "{\"name\":\"%s\",\"registers\":%u,\"shared_bytes\":%u,\"threads\":%u,\"warps_per_sm\":%u,\"limit\":\"%s\",\"region\":[%u,%u],\"is_loop\":%s,"
        "\"in_flight_bytes\":%u,\"wait_clocks\":%u",
        c->kernel->name, c->kernel->n_registers, c->kernel->n_shared_bytes, c->kernel->n_threads, c->occupancy.n_warps,
        limit_names[c->occupancy.limit], address_of(c, false), address_of(c, true), c->hot.is_loop ? "true" : "false", c->flight.max_bytes,
        c->flight.wait_clocks);
    print_json_counts("pass", &c->pass);
    if (c->family == SM52_MATVEC) {
        printf(",\"weights_per_pass\":%u,\"slots_per_weight\":%.4f,\"chunk_slots_per_weight\":%.4f", c->weights.n, sm52_hot_slots(c),
               c->chunk.slots / chunk_weights(c));
        print_json_counts("chunk", &c->chunk);
    }
    if (c->family != SM52_OTHER) {
        printf(",\"times\":[");
        for (size_t i = 0; i < o->n_shapes; i++) {
            struct sm52_time time = sm52_matmul_time(c, o->shapes[i].n_rows, o->shapes[i].n_cols, n_tokens, SM52_READ_BYTES_S);

            printf("%s", i ? "," : "");
            print_json_time(&o->shapes[i], n_tokens, &time);
        }
        printf("]");
    }
    printf("}");
}

static void print_json_models(const struct report *r)
{
    static const uint32_t tokens[] = {1, 2, 4, 8, 16, 512};
    bool is_first = true;

    for (size_t m = 0; m < sm52_n_models; m++) {
        for (size_t i = 0; i < sm52_n_mixes; i++) {
            for (size_t t = 0; t < sizeof tokens / sizeof tokens[0]; t++) {
                struct sm52_prediction p, ecc;
                enum sm52_family family = tokens[t] > 16 ? SM52_GEMM : SM52_MATVEC;

                if (!sm52_predict(r->costs, r->n_costs, &sm52_models[m], &sm52_mixes[i], family, tokens[t], SM52_READ_BYTES_S, &p) ||
                    !sm52_predict(r->costs, r->n_costs, &sm52_models[m], &sm52_mixes[i], family, tokens[t], SM52_READ_BYTES_S * SM52_ECC_FACTOR,
                                  &ecc))
                    continue;
                printf("%s{\"model\":\"%s\",\"weights\":\"%s\",\"tokens\":%u,\"bytes\":%.0f,\"tok_s\":%.3f,\"tok_s_ecc\":%.3f,\"memory_s\":%.6f,"
                       "\"issue_s\":%.6f}",
                       is_first ? "" : ",\n", sm52_models[m].name, sm52_mixes[i].name, tokens[t], p.bytes, tokens[t] / p.s, tokens[t] / ecc.s,
                       p.memory_s, p.issue_s);
                is_first = false;
            }
        }
    }
}

static void print_json(const struct report *r)
{
    printf("{\"sms\":%d,\"clock_hz\":%.0f,\"read_bytes_per_s\":%.0f,\"ecc_factor\":%.2f,\"kernels\":[\n", SM52_SMS, SM52_CLOCK_HZ, SM52_READ_BYTES_S,
           SM52_ECC_FACTOR);
    for (size_t i = 0; i < r->n_costs; i++) {
        printf("%s", i ? ",\n" : "");
        print_json_kernel(&r->costs[i], &r->options);
    }
    printf("],\n\"models\":[\n");
    print_json_models(r);
    printf("]}\n");
}

int main(int argc, char **argv)
{
    struct report r = {0};
    m40llm_error err;
    int exit_code = 0;

    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        fputs(usage, stdout);
        return 0;
    }
    if (!parse_options(&r.options, argc, argv)) {
        fputs(usage, stderr);
        return 2;
    }
    if (read_all(&r, &err) != M40LLM_OK) {
        fprintf(stderr, "sm52-cost: %s\n", err.text);
        exit_code = 1;
    } else if (r.options.json) {
        print_json(&r);
    } else {
        print_tables(&r);
    }
    m40_free(r.costs);
    sm52_listing_free(&r.listing);
    return exit_code;
}
