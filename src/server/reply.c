/* Answers: JSON, text, and OpenAI's error objects. */
#include "server_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

bool fail(struct failure *f, unsigned status, const char *param, const char *code, const char *format, ...)
{
    va_list args;

    if (f->status != 0)
        return false;
    f->status = status;
    f->code = code;
    snprintf(f->param, sizeof f->param, "%s", param ? param : "");
    va_start(args, format);
    vsnprintf(f->message, sizeof f->message, format, args);
    va_end(args);
    for (char *c = f->message; *c; c++) /* one line, whatever a client called its fields */
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = ' ';
    return false;
}

bool fail_of(struct failure *f, const char *param, const m40llm_error *err)
{
    switch (err->code) {
    case M40LLM_INVALID_ARGUMENT:
    case M40LLM_TEMPLATE:
        return fail(f, MHD_HTTP_BAD_REQUEST, param, NULL, "%s", err->text);
    case M40LLM_CONTEXT_FULL:
        return fail(f, MHD_HTTP_BAD_REQUEST, param, "context_length_exceeded", "%s", err->text);
    case M40LLM_QUEUE_FULL:
        f->retry_s = 1;
        return fail(f, MHD_HTTP_TOO_MANY_REQUESTS, NULL, "queue_full", "%s", err->text);
    case M40LLM_CANCELLED:
        f->retry_s = 5;
        return fail(f, MHD_HTTP_SERVICE_UNAVAILABLE, NULL, "cancelled", "the answer was cancelled: the server is shutting down");
    default:
        return fail(f, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "%s", err->text);
    }
}

static const char *failure_type(unsigned status)
{
    return status == MHD_HTTP_TOO_MANY_REQUESTS ? "rate_limit_error" : status >= 500 ? "server_error" : "invalid_request_error";
}

json_t *failure_json(const struct failure *f)
{
    return json_pack("{s:{s:o, s:s, s:o, s:s?}}", "error", "message", text_json(f->message, strlen(f->message)), "type", failure_type(f->status),
                     "param", f->param[0] ? text_json(f->param, strlen(f->param)) : json_null(), "code", f->code);
}

json_t *text_json(const char *text, size_t n_bytes)
{
    json_t *string = json_stringn(text, n_bytes);
    struct m40_buf valid = {0};
    bool ok = true;

    if (string)
        return string;
    for (size_t i = 0; i < n_bytes && ok;) {
        utf8proc_int32_t character;
        size_t n_left = n_bytes - i;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text + i, n_left < 4 ? (utf8proc_ssize_t)n_left : 4, &character);

        ok = n > 0 ? m40_buf_append(&valid, text + i, (size_t)n) : m40_buf_append(&valid, "\xef\xbf\xbd", 3);
        i += n > 0 ? (size_t)n : 1;
    }
    if (ok)
        string = json_stringn(valid.data, valid.n_bytes);
    m40_buf_free(&valid);
    return string;
}

enum MHD_Result reply(struct exchange *x, unsigned status, const char *content_type, struct MHD_Response *response)
{
    enum MHD_Result result;
    char number[24];

    if (!response)
        return MHD_NO;
    if (content_type)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    cors_add_headers(x, response);
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (!MHD_get_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL))
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    snprintf(number, sizeof number, "%llu", x->number);
    MHD_add_response_header(response, "X-Request-Id", number);
    if (x->failure.status == status && x->failure.retry_s) {
        snprintf(number, sizeof number, "%u", x->failure.retry_s);
        MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, number);
    }
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED && x->failure.allow)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, x->failure.allow);
    if (status == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    result = MHD_queue_response(x->connection, status, response);
    if (result == MHD_YES)
        x->status = status;
    MHD_destroy_response(response);
    return result;
}

enum MHD_Result reply_json(struct exchange *x, unsigned status, json_t *object)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    struct MHD_Response *response = NULL;

    json_decref(object);
    if (text)
        response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
    if (text && !response)
        free(text);
    return reply(x, status, "application/json", response);
}

enum MHD_Result reply_failure(struct exchange *x)
{
    return reply_json(x, x->failure.status, failure_json(&x->failure));
}

enum MHD_Result reply_text(struct exchange *x, const char *content_type, struct m40_buf *text)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(text->n_bytes, text->data, MHD_RESPMEM_MUST_FREE);

    if (!response)
        m40_buf_free(text);
    *text = (struct m40_buf){0};
    return reply(x, MHD_HTTP_OK, content_type, response);
}
