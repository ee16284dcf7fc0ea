/* m40llm perplexity: windows of a text, scored. Two ways of cutting and scoring:
 *  full:  window i is [BOS] + ids[(W-1) i : (W-1)(i+1)]; every token after BOS is scored, given all before it in the window.
 *  llama: s = [BOS] + ids; chunk i is s[W i : W (i+1)] with its first token replaced by BOS; the tokens from W/2 + 1 on are scored (as llama.cpp's tool does).
 * W is 512, or --ctx. Each window starts with an empty cache. Natural logarithms. */
#include "session.h"
#include "terminal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_WINDOW = 512 };

struct scorer {
    const int32_t *window;
    uint32_t n_window, first_scored; /* the first token that counts */
    double sum;                      /* of -log p */
    uint64_t n_scored;
};

/* -log softmax(row)[id], in double precision. */
static double negative_log_likelihood(const float *row, size_t n_vocab, int32_t id)
{
    float best = row[0];
    double sum = 0;

    for (size_t i = 1; i < n_vocab; i++)
        if (row[i] > best)
            best = row[i];
    for (size_t i = 0; i < n_vocab; i++)
        sum += exp((double)row[i] - (double)best);
    return log(sum) - ((double)row[id] - (double)best);
}

static void on_logits(void *user, uint32_t pos, const float *row, size_t n_vocab)
{
    struct scorer *s = user;

    if (pos + 1 < s->first_scored || pos + 1 >= s->n_window)
        return;
    s->sum += negative_log_likelihood(row, n_vocab, s->window[pos + 1]);
    s->n_scored++;
}

static int score_window(m40llm_engine *engine, struct scorer *s)
{
    m40llm_request_options options = M40LLM_REQUEST_OPTIONS_INIT;
    m40llm_result result = M40LLM_RESULT_INIT;
    m40llm_error err;
    uint64_t id;

    options.all_logits = 1;
    options.no_cache = 1;
    options.on_logits = on_logits;
    options.user = s;
    if (m40llm_submit(engine, s->window, s->n_window, &options, &id, &err) != M40LLM_OK)
        return cli_fail(&err);
    cli_set_request(engine, id);
    if (m40llm_wait(engine, id, &result, &err) != M40LLM_OK)
        return cli_fail(&err);
    cli_set_request(NULL, 0);
    return result.finish == M40LLM_FINISH_CANCELLED ? cli_stopped() : CLI_OK;
}

/* Window i of the text into window[0..size). */
static void cut_window(bool is_llama, const int32_t *ids, size_t i, uint32_t size, int32_t bos, int32_t *window)
{
    size_t first = is_llama ? i * size : i * (size - 1);

    window[0] = bos;
    /* in llama's way the text itself begins with BOS, so chunk 0's token k is ids[k - 1], as everywhere else */
    memcpy(window + 1, ids + first, (size - 1) * sizeof *window);
}

static int score_text(struct cli_session *session, const struct cli_settings *settings, const int32_t *ids, size_t n_ids)
{
    bool is_llama = strcmp(settings->style, "llama") == 0;
    uint32_t size = session->engine_info.n_ctx;
    size_t n_windows = is_llama ? (n_ids + 1) / size : n_ids / (size - 1);
    int32_t bos = m40llm_tokenizer_bos(session->tokenizer);
    int32_t *window = calloc(size, sizeof *window);
    struct scorer scorer = {.window = window, .n_window = size, .first_scored = is_llama ? size / 2 + 1 : 1};
    int rc = window ? CLI_OK : cli_no_memory();

    if (settings->windows && settings->windows < n_windows)
        n_windows = settings->windows;
    if (n_windows == 0) {
        free(window);
        fprintf(stderr, "m40llm: the text has %zu tokens: too few for a window of %u\n", n_ids, size);
        return CLI_FAILURE;
    }
    for (size_t i = 0; i < n_windows && rc == CLI_OK; i++) {
        cut_window(is_llama, ids, i, size, bos, window);
        rc = score_window(session->engine, &scorer);
        cli_progress("perplexity", i + 1, n_windows);
    }
    cli_progress_end();
    free(window);
    if (rc == CLI_OK)
        printf("windows %zu of %u tokens (%s), scored %llu tokens, mean NLL %.6f, perplexity %.4f\n", n_windows, size, settings->style,
               (unsigned long long)scorer.n_scored, scorer.sum / (double)scorer.n_scored, exp(scorer.sum / (double)scorer.n_scored));
    return rc;
}

int cmd_perplexity(struct cli_settings *settings)
{
    struct cli_session session = {0};
    int32_t *ids = NULL;
    char *text = NULL;
    size_t n_bytes, n_ids;
    int rc = CLI_OK;

    if (!settings->prompt_file)
        return cli_usage("perplexity needs a text: -f FILE");
    if (settings->ctx == 1)
        return cli_usage("perplexity needs windows of at least 2 tokens");
    rc = cli_read_file(settings->prompt_file, &text, &n_bytes);
    if (rc == CLI_OK)
        rc = cli_session_open(&session, settings, settings->args[0], SESSION_TOKENIZER | SESSION_SAY_CTX, DEFAULT_WINDOW);
    if (rc == CLI_OK && m40llm_tokenizer_bos(session.tokenizer) < 0) {
        fprintf(stderr, "m40llm: the model has no begin-of-text token to start a window with\n");
        rc = CLI_FAILURE;
    }
    if (rc == CLI_OK)
        rc = cli_tokenize(session.tokenizer, text, n_bytes, 0, &ids, &n_ids);
    if (rc == CLI_OK)
        rc = score_text(&session, settings, ids, n_ids);
    cli_session_close(&session);
    free(ids);
    free(text);
    return rc;
}
