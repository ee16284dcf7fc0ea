/* Byte-level BPE, as GPT-2 introduced it. Token texts and merges in the file stand in a notation that gives each byte a printable character: bytes
 * that are printable in Latin-1 stand for themselves, the other 68 for U+0100 and up, in ascending order. */
#include "tokenizer/tokenizer_internal.h"
#include "tokenizer/utf8.h"

#include <inttypes.h>

static const char merges_key[] = "tokenizer.ggml.merges";

static bool is_printable(uint32_t c)
{
    return (c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xff && c != 0xad);
}

/* The character of a byte. */
static uint32_t byte_to_code(uint8_t byte)
{
    if (is_printable(byte))
        return byte;
    return 0x100u + (byte <= 0x20 ? byte : byte == 0xad ? 67u : 33u + byte - 0x7fu);
}

/* The byte of a character; -1: none. */
static int code_to_byte(uint32_t code)
{
    if (code < 0x100)
        return is_printable(code) ? (int)code : -1;
    if (code <= 0x120)
        return (int)(code - 0x100);
    if (code <= 0x142)
        return (int)(code - 0x121 + 0x7f);
    return code == 0x143 ? 0xad : -1;
}

bool m40_bpe_decode(const struct m40_tokenizer *t, int32_t id, struct m40_buf *out)
{
    struct m40_str text = m40_vocab_text(&t->vocab, id);
    uint8_t type = t->vocab.types[id];

    /* added tokens are written as they are, not in the notation for bytes */
    if (type == M40_TOKEN_CONTROL || type == M40_TOKEN_USER_DEFINED || type == M40_TOKEN_UNKNOWN)
        return m40_buf_append(out, text.data, text.n_bytes);
    if (!m40_buf_reserve(out, text.n_bytes))
        return false;
    for (size_t i = 0; i < text.n_bytes;) {
        struct m40_utf8 u = m40_utf8_decode((const uint8_t *)text.data + i, text.n_bytes - i);
        int byte = u.valid ? code_to_byte(u.code) : -1;
        char c = (char)byte;

        /* within the room reserved above: a byte is no longer than its character */
        m40_buf_append(out, byte < 0 ? text.data + i : &c, byte < 0 ? u.n_bytes : 1);
        i += u.n_bytes;
    }
    return true;
}

/* Rule `rank` from "left right". */
static m40llm_status add_merge(struct m40_tokenizer *t, struct m40_str merge, uint32_t rank, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const char *space = merge.n_bytes > 1 ? memchr(merge.data + 1, ' ', merge.n_bytes - 1) : NULL;
    char joined[2 * M40_TOKEN_MAX_BYTES];
    struct m40_str left, right;
    int32_t ids[3];

    M40_FAIL_IF(!space, M40LLM_BAD_FILE, "%s: rule %" PRIu32 " is not two tokens: '%.*s'", merges_key, rank,
                (int)(merge.n_bytes < 60 ? merge.n_bytes : 60), merge.data);
    left = (struct m40_str){merge.data, (size_t)(space - merge.data)};
    right = (struct m40_str){space + 1, merge.n_bytes - left.n_bytes - 1};
    ids[0] = m40_vocab_find(&t->vocab, left);
    ids[1] = m40_vocab_find(&t->vocab, right);
    ids[2] = -1;
    if (ids[0] >= 0 && ids[1] >= 0) {
        memcpy(joined, left.data, left.n_bytes);
        memcpy(joined + left.n_bytes, right.data, right.n_bytes);
        ids[2] = m40_vocab_find(&t->vocab, (struct m40_str){joined, left.n_bytes + right.n_bytes});
    }
    M40_FAIL_IF(ids[2] < 0, M40LLM_BAD_FILE, "%s: rule %" PRIu32 " names something that is no token: '%.*s'", merges_key, rank,
                (int)(merge.n_bytes < 60 ? merge.n_bytes : 60), merge.data);
    status = m40_merge_rules_add(&t->rules, ids[0], ids[1], rank, ids[2], err);
    M40_FAIL_IF(status == M40LLM_INVALID_ARGUMENT, M40LLM_BAD_FILE, "%s: rule %" PRIu32 " is there twice: '%.*s'", merges_key, rank,
                (int)(merge.n_bytes < 60 ? merge.n_bytes : 60), merge.data);
fail:
    return status;
}

/* A rule that names no token is an error, as it is for the Hugging Face tokenizers that the files come from. */
static m40llm_status read_merges(struct m40_tokenizer *t, const struct m40_gguf *gguf, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_gguf_kv *kv = m40_gguf_find_kv(gguf, merges_key);
    struct m40_gguf_cursor cursor = {0};
    struct m40_str merge;

    M40_FAIL_IF(!kv, M40LLM_BAD_FILE, "%s is missing", merges_key);
    M40_FAIL_IF(kv->type != M40LLM_VALUE_ARRAY || kv->element_type != M40LLM_VALUE_STRING, M40LLM_BAD_FILE, "%s is not an array of strings",
                merges_key);
    M40_FAIL_IF(kv->n_elements > INT32_MAX / 4, M40LLM_BAD_FILE, "%s: %" PRIu64 " rules", merges_key, kv->n_elements);
    M40_TRY(m40_merge_rules_open(&t->rules, (size_t)kv->n_elements, err));
    for (uint32_t rank = 0; rank < kv->n_elements; rank++) {
        M40_FAIL_IF(!m40_gguf_next_string(kv, &cursor, &merge), M40LLM_BAD_FILE, "%s ends at %" PRIu32, merges_key, rank);
        M40_TRY(add_merge(t, merge, rank, err));
    }
fail:
    return status;
}

m40llm_status m40_bpe_open(struct m40_tokenizer *t, const struct m40_gguf *gguf, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_gguf_kv *kv = m40_gguf_find_kv(gguf, "tokenizer.ggml.pre");
    struct m40_pretokenizer_traits traits;
    struct m40_str name = m40_str_from("default");

    M40_FAIL_IF(kv && !m40_gguf_kv_string(kv, &name), M40LLM_BAD_FILE, "tokenizer.ggml.pre is not a string");
    if (name.n_bytes == 0)
        name = m40_str_from("default");
    M40_TRY(m40_pretokenizer_open(&t->pretokenizer, name, err));
    traits = m40_pretokenizer_traits(t->pretokenizer);
    t->ignore_merges = traits.ignore_merges;
    t->add_bos = traits.adds_bos;
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[2];
        size_t n = m40_utf8_encode_short(byte_to_code((uint8_t)byte), text);

        t->byte_ids[byte] = m40_vocab_find(&t->vocab, (struct m40_str){text, n});
    }
    M40_TRY(read_merges(t, gguf, err));
fail:
    return status;
}

/* The token that a whole piece is; -1: none. Control tokens are not to be had from ordinary text. */
static int32_t find_piece(const struct m40_tokenizer *t, const char *piece, size_t n_bytes)
{
    char text[M40_TOKEN_MAX_BYTES + 2];
    size_t n = 0;
    int32_t id;

    for (size_t i = 0; i < n_bytes; i++) {
        if (n > t->vocab.longest_bytes)
            return -1;
        n += m40_utf8_encode_short(byte_to_code((uint8_t)piece[i]), text + n);
    }
    id = m40_vocab_find(&t->vocab, (struct m40_str){text, n});
    return id >= 0 && (t->vocab.types[id] == M40_TOKEN_CONTROL || t->vocab.types[id] == M40_TOKEN_UNKNOWN) ? -1 : id;
}

/* A byte that has no token becomes the unknown token, or nothing where the model has none, as in the Hugging Face implementation: some vocabularies
 * lack control characters. */
static m40llm_status encode_piece(void *user, const char *piece, size_t n_bytes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_encoder *e = user;
    const struct m40_tokenizer *t = e->t;
    int32_t whole = t->ignore_merges ? find_piece(t, piece, n_bytes) : -1;

    if (whole >= 0) {
        m40_id_sink_push(&e->sink, whole);
        return M40LLM_OK;
    }
    e->merger.n_symbols = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        int32_t id = t->byte_ids[(uint8_t)piece[i]];

        if (id < 0)
            id = t->unk;
        M40_FAIL_IF(id >= 0 && !m40_merger_push(&e->merger, id, 0), M40LLM_NO_MEMORY, "%zu bytes of text", n_bytes);
    }
    if (e->merger.n_symbols == 0)
        return M40LLM_OK;
    m40_merger_run(&e->merger, &t->rules);
    for (uint32_t i = 0; i != M40_SYMBOL_END; i = e->merger.symbols[i].next)
        m40_id_sink_push(&e->sink, e->merger.symbols[i].id);
fail:
    return status;
}

m40llm_status m40_bpe_encode(struct m40_encoder *e, const char *text, size_t n_bytes, m40llm_error *err)
{
    return m40_pretokenize(e->t->pretokenizer, text, n_bytes, encode_piece, e, err);
}
