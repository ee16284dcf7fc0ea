/* TLS: what can be said about a certificate and its key before libmicrohttpd is given them, whose own words say little. */
#include "server_internal.h"

#define MARK "-----BEGIN "

/* Is there a PEM block whose label ends so? */
static bool has_block(const char *pem, const char *label_end)
{
    for (const char *at = strstr(pem, MARK); at; at = strstr(at + 1, MARK)) {
        const char *label = at + strlen(MARK);
        size_t n = strcspn(label, "-\n"), n_end = strlen(label_end);

        if (n >= n_end && memcmp(label + n - n_end, label_end, n_end) == 0)
            return true;
    }
    return false;
}

bool tls_check(const struct server_options *o, char *why, size_t why_bytes)
{
    const char *reason = NULL;

    if (!o->tls_cert && !o->tls_key)
        return true;
    if (!o->tls_cert || !o->tls_key)
        reason = "TLS needs both a certificate and its key";
    else if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
        reason = "this libmicrohttpd was built without TLS";
    else if (!has_block(o->tls_cert, "CERTIFICATE"))
        reason = "the TLS certificate's file has no 'BEGIN CERTIFICATE': it must be PEM";
    else if (has_block(o->tls_key, "ENCRYPTED PRIVATE KEY") || strstr(o->tls_key, "\nProc-Type: 4,ENCRYPTED"))
        reason = "the TLS key is encrypted: 'openssl pkey -in KEY -out PLAIN' writes it without its passphrase";
    else if (!has_block(o->tls_key, "PRIVATE KEY"))
        reason = "the TLS key's file has no 'BEGIN PRIVATE KEY': it must be PEM";
    if (reason)
        snprintf(why, why_bytes, "%s", reason);
    return !reason;
}

size_t tls_options(const struct server_options *o, struct MHD_OptionItem *out)
{
    size_t n = 0;

    if (!o->tls_cert)
        return 0;
    out[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)o->tls_cert};
    out[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)o->tls_key};
    out[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)"NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"};
    return n;
}
