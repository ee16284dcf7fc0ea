/* The chat page at /: one HTML file, made of src/server/page/ by tools/embed_page.sh. It needs no key and no model: it asks for the one and waits for the other. */
#include "chat_page.h"
#include "server_internal.h"

#include <string.h>

extern const char chat_page_html[], chat_page_end[];

/* Whether the browser has this very page. */
static bool has_page(struct exchange *x)
{
    const char *tags = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_IF_NONE_MATCH);

    return tags && strstr(tags, CHAT_PAGE_ETAG) != NULL;
}

enum MHD_Result handle_page(struct exchange *x)
{
    bool is_known = has_page(x);
    size_t n_bytes = is_known ? 0 : (size_t)(chat_page_end - chat_page_html);
    /* MHD only reads it. */
    struct MHD_Response *response = MHD_create_response_from_buffer(n_bytes, (void *)(uintptr_t)chat_page_html, MHD_RESPMEM_PERSISTENT);

    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_ETAG, CHAT_PAGE_ETAG);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache"); /* kept, but asked for each time */
    MHD_add_response_header(response, "Content-Security-Policy", CHAT_PAGE_CSP);
    MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
    return reply(x, is_known ? MHD_HTTP_NOT_MODIFIED : MHD_HTTP_OK, "text/html; charset=utf-8", response);
}
