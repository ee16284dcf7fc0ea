/* GET /metrics: the engine's statistics and the server's own in Prometheus' text format, version 0.0.4. */
#include "server_internal.h"

static bool add(struct m40_buf *b, const char *name, const char *type, const char *help, double value)
{
    return m40_buf_printf(b, "# HELP m40llm_%s %s\n# TYPE m40llm_%s %s\nm40llm_%s %.17g\n", name, help, name, type, name, value);
}

/* scale: of bounds; sum_scale: of the sum. */
static bool add_histogram(struct m40_buf *b, const char *name, const char *help, const m40llm_histogram *h, double scale, double sum_scale)
{
    uint64_t n = 0;
    bool ok = m40_buf_printf(b, "# HELP m40llm_%s %s\n# TYPE m40llm_%s histogram\n", name, help, name);

    for (uint32_t i = 0; i + 1 < M40LLM_HISTOGRAM_BUCKETS; i++) {
        n += h->counts[i];
        ok = ok && m40_buf_printf(b, "m40llm_%s_bucket{le=\"%.10g\"} %llu\n", name, (double)m40llm_histogram_bound(i) * scale, (unsigned long long)n);
    }
    n += h->counts[M40LLM_HISTOGRAM_BUCKETS - 1];
    return ok && m40_buf_printf(b, "m40llm_%s_bucket{le=\"+Inf\"} %llu\nm40llm_%s_sum %.10g\nm40llm_%s_count %llu\n", name, (unsigned long long)n,
                                name, (double)h->sum * sum_scale, name, (unsigned long long)n);
}

static bool add_pages(struct m40_buf *b, const m40llm_stats *s)
{
    return m40_buf_printf(
        b,
        "# HELP m40llm_kv_pages Pages of 32 tokens in the KV cache. Shared ones are among those used.\n# TYPE m40llm_kv_pages gauge\n"
        "m40llm_kv_pages{state=\"used\"} %llu\nm40llm_kv_pages{state=\"shared\"} %llu\nm40llm_kv_pages{state=\"cached\"} %llu\n"
        "m40llm_kv_pages{state=\"free\"} %llu\n",
        (unsigned long long)s->n_pages_used, (unsigned long long)s->n_pages_shared, (unsigned long long)s->n_pages_cached,
        (unsigned long long)(s->n_pages - s->n_pages_used - s->n_pages_cached));
}

static bool add_ended(struct m40_buf *b, const m40llm_stats *s)
{
    static const struct {
        m40llm_finish finish;
        const char *name;
    } kinds[] = {
        {M40LLM_FINISH_STOP, "stop"}, {M40LLM_FINISH_LENGTH, "length"}, {M40LLM_FINISH_CANCELLED, "cancelled"}, {M40LLM_FINISH_ERROR, "error"}};
    bool ok = m40_buf_printf(
        b, "# HELP m40llm_requests_ended_total Requests of the engine by how they ended.\n# TYPE m40llm_requests_ended_total counter\n");

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        ok = ok &&
             m40_buf_printf(b, "m40llm_requests_ended_total{finish=\"%s\"} %llu\n", kinds[i].name, (unsigned long long)s->n_ended[kinds[i].finish]);
    return ok;
}

static bool add_http(struct m40_buf *b, struct server *s)
{
    bool ok = m40_buf_printf(b, "# HELP m40llm_http_responses_total Answers by the first digit of their status; 0: none was given.\n"
                                "# TYPE m40llm_http_responses_total counter\n");
    uint32_t n_open;

    for (int i = 0; i < 6; i++)
        ok = ok && m40_buf_printf(b, "m40llm_http_responses_total{class=\"%d\"} %llu\n", i, (unsigned long long)s->n_by_class[i]);
    pthread_mutex_lock(&s->lock);
    n_open = s->n_open;
    pthread_mutex_unlock(&s->lock);
    return ok && add(b, "http_requests_open", "gauge", "HTTP requests that are being read or answered, this one included.", n_open);
}

static bool add_engine(struct m40_buf *b, const m40llm_stats *s)
{
    return add(b, "requests_total", "counter", "Requests that the engine accepted.", (double)s->n_requests) && add_ended(b, s) &&
           add(b, "waiting", "gauge", "Answers that wait.", (double)s->n_waiting) &&
           add(b, "running", "gauge", "Answers that are computed.", (double)s->n_running) &&
           add(b, "prompt_tokens_total", "counter", "Prompt tokens that were evaluated.", (double)s->n_prompt_tokens) &&
           add(b, "generated_tokens_total", "counter", "Tokens generated.", (double)s->n_generated_tokens) &&
           add(b, "preemptions_total", "counter", "Answers that lost their pages and were computed again.", (double)s->n_preemptions) &&
           add(b, "recomputed_tokens_total", "counter", "Tokens evaluated again after that.", (double)s->n_recomputed_tokens) && add_pages(b, s) &&
           add(b, "prefix_cache_lookups_total", "counter", "Admissions that looked for known pages.", (double)s->n_cache_lookups) &&
           add(b, "prefix_cache_hits_total", "counter", "Those that found some.", (double)s->n_cache_hits) &&
           add(b, "prefix_cache_tokens_total", "counter", "Tokens of the pages found.", (double)s->n_cached_tokens) &&
           add(b, "prefix_cache_evicted_pages_total", "counter", "Known pages whose memory was needed.", (double)s->n_evicted_pages) &&
           add_histogram(b, "step_seconds", "Time of a step.", &s->step_times, 1e-4, 1e-9) &&
           add_histogram(b, "first_token_seconds", "From a request to the first token of an answer.", &s->first_token_times, 1e-4, 1e-9) &&
           add_histogram(b, "token_seconds", "From a token of an answer to its next.", &s->token_times, 1e-4, 1e-9) &&
           add_histogram(b, "batch_tokens", "Tokens in a step.", &s->batch_rows, 1, 1);
}

static bool add_memory(struct m40_buf *b, const m40llm_engine_info *e)
{
    return m40_buf_printf(b,
                          "# HELP m40llm_device_memory_bytes Device memory that is taken.\n# TYPE m40llm_device_memory_bytes gauge\n"
                          "m40llm_device_memory_bytes{for=\"weights\"} %llu\nm40llm_device_memory_bytes{for=\"kv\"} %llu\n"
                          "m40llm_device_memory_bytes{for=\"other\"} %llu\n",
                          (unsigned long long)e->weight_bytes, (unsigned long long)e->kv_bytes, (unsigned long long)e->other_bytes);
}

enum MHD_Result handle_metrics(struct exchange *x)
{
    struct server *s = x->server;
    struct m40_buf text = {0};
    m40llm_stats stats;

    m40llm_engine_get_stats(s->model.engine, &stats);
    if (!add_http(&text, s) || !add_engine(&text, &stats) || !add_memory(&text, &s->model.engine_info) || !metrics_add_gpu(&text, s)) {
        m40_buf_free(&text);
        return MHD_NO;
    }
    return reply_text(x, "text/plain; version=0.0.4; charset=utf-8", &text);
}
