/* The tokenizer as its own files see it. */
#ifndef M40_TOKENIZER_TOKENIZER_INTERNAL_H
#define M40_TOKENIZER_TOKENIZER_INTERNAL_H

#include "tokenizer/merge.h"
#include "tokenizer/pretokenize.h"
#include "tokenizer/special.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocab.h"

enum m40_tokenizer_kind { M40_TOKENIZER_BPE, M40_TOKENIZER_SPM };

struct m40_tokenizer {
    enum m40_tokenizer_kind kind;
    struct m40_vocab vocab;
    struct m40_merge_rules rules;
    struct m40_specials user_defined, all_specials;
    uint8_t *is_end;       /* [n_tokens] */
    int32_t byte_ids[256]; /* -1: none. BPE: the token of the byte; SPM: the fallback <0xNN> */
    int32_t bos, eos, unk; /* -1: none */
    bool add_bos, add_eos;
    uint8_t *takes_spaces; /* [n_tokens]: special tokens that take the white space behind them; NULL: none does */

    struct m40_pretokenizer *pretokenizer; /* BPE */
    bool ignore_merges;

    bool add_space_prefix;  /* SPM */
    bool splits_at_spaces;  /* SPM: no token holds a space behind something else, so words can be merged one by one */
    int32_t ascii_ids[128]; /* SPM: the tokens of single characters, the space's that of U+2581 */
};

/* Ids in the caller's array: beyond its capacity they are only counted. */
struct m40_id_sink {
    int32_t *ids;
    size_t capacity, n;
};

static inline void m40_id_sink_push(struct m40_id_sink *sink, int32_t id)
{
    if (sink->n < sink->capacity)
        sink->ids[sink->n] = id;
    sink->n++;
}

/* One call's working state. */
struct m40_encoder {
    const struct m40_tokenizer *t;
    struct m40_merger merger;
    struct m40_id_sink sink;
    int32_t last_special; /* the special token that the text ends with; -1: none */
};

/* bpe.c. open: the vocabulary is read; fills rules, byte_ids, pretokenizer. text: ordinary text, any bytes. decode appends a token's text. */
m40llm_status m40_bpe_open(struct m40_tokenizer *t, const struct m40_gguf *gguf, m40llm_error *err);
m40llm_status m40_bpe_encode(struct m40_encoder *e, const char *text, size_t n_bytes, m40llm_error *err);
bool m40_bpe_decode(const struct m40_tokenizer *t, int32_t id, struct m40_buf *out);

/* spm.c, likewise. with_prefix: the text gets a space in front; strip_prefix: one space at the token's front is left out. */
m40llm_status m40_spm_open(struct m40_tokenizer *t, const struct m40_gguf *gguf, m40llm_error *err);
m40llm_status m40_spm_encode(struct m40_encoder *e, const char *text, size_t n_bytes, bool with_prefix, m40llm_error *err);
bool m40_spm_decode(const struct m40_tokenizer *t, int32_t id, bool strip_prefix, struct m40_buf *out);

/* Appends the text of one token of a sequence. *at_start: the next text begins a sequence or follows a special token, where the tokenizer puts the
 * space prefix; true to begin with. INVALID_ARGUMENT: no such id. */
m40llm_status m40_token_decode(const struct m40_tokenizer *t, int32_t id, unsigned flags, bool *at_start, struct m40_buf *out, m40llm_error *err);

/* Metadata entries that may be absent: *out is then left as it is. BAD_FILE: of another kind. */
m40llm_status m40_metadata_bool(const struct m40_gguf *gguf, const char *key, bool *out, m40llm_error *err);

#endif
