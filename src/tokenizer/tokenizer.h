/* Text to ids and back, from a GGUF file's tokenizer metadata. Two models: byte-level BPE ("gpt2", bpe.c) behind a pre-tokenizer (pretokenize.c),
 * and SentencePiece-style BPE ("llama", spm.c). The public functions in m40llm.h are thin covers of these. */
#ifndef M40_TOKENIZER_TOKENIZER_H
#define M40_TOKENIZER_TOKENIZER_H

#include "gguf/gguf.h"

struct m40_tokenizer;

/* Copies what it needs: the file may be closed afterwards. NO_TOKENIZER: no metadata, or an unknown model or pre-tokenizer (named, with those that
 * are known); BAD_FILE: contradictory metadata. */
m40llm_status m40_tokenizer_open(struct m40_tokenizer **out, const struct m40_gguf *gguf, m40llm_error *err);
void m40_tokenizer_close(struct m40_tokenizer **tokenizer);

size_t m40_tokenizer_n_vocab(const struct m40_tokenizer *t);
/* Bytes of a text that one token stands for at most; SIZE_MAX where there is no bound: special tokens may take the white space behind them. */
size_t m40_tokenizer_most_bytes(const struct m40_tokenizer *t);
int32_t m40_tokenizer_bos(const struct m40_tokenizer *t); /* -1: none */
int32_t m40_tokenizer_eos(const struct m40_tokenizer *t);
/* EOS, EOT, EOM by metadata, or a control token with one of the usual names of an end (<|eot_id|>, <|im_end|>, <|end|>, <end_of_turn>,
 * <|endoftext|>, </s>, ...). <|end|> is none where <|return|> and <|call|> are: there it ends a message of several. */
bool m40_tokenizer_is_end(const struct m40_tokenizer *t, int32_t id);

/* A token that is found in no text without M40LLM_TOKENIZE_SPECIAL, and gives none without M40LLM_DETOKENIZE_SPECIAL. */
bool m40_tokenizer_is_control(const struct m40_tokenizer *t, int32_t id);

/* flags: M40LLM_TOKENIZE_*. Contracts as m40llm_tokenize and m40llm_detokenize. Thread-safe.
 * - Control and unknown tokens are found in the text with M40LLM_TOKENIZE_SPECIAL only, user-defined ones always; the leftmost first, the longest
 *   of those that begin there.
 * - Special tokens of Phi-3 take the white space behind them, which is lost.
 * - ADD_BOS adds no second BOS to a text that begins with one (nor a second EOS to one that ends so), where the special token is parsed as such.
 * - SentencePiece models whose metadata ask for a space in front get it at the beginning and behind every special token, as in llama.cpp and
 *   Hugging Face's legacy mode; detokenising takes it away at the same places. So a stream that continues a prompt must be pushed the prompt's
 *   ids first.
 * - A byte for which the vocabulary has no token becomes the unknown token, or nothing where the model has none, as in the original
 *   implementations. */
m40llm_status m40_tokenize(const struct m40_tokenizer *t, const char *text, size_t n_bytes, unsigned flags, int32_t *ids, size_t capacity,
                           size_t *n_out, m40llm_error *err);
m40llm_status m40_detokenize(const struct m40_tokenizer *t, const int32_t *ids, size_t n_ids, unsigned flags, char *text, size_t capacity,
                             size_t *n_bytes_out, m40llm_error *err);

/* Streaming detokenizer, as m40llm_stream_*: never emits half a UTF-8 sequence. */
struct m40_token_stream;
m40llm_status m40_token_stream_open(struct m40_token_stream **out, const struct m40_tokenizer *t, unsigned flags, m40llm_error *err);
m40llm_status m40_token_stream_push(struct m40_token_stream *s, int32_t id, const char **text, size_t *n_bytes, m40llm_error *err);
m40llm_status m40_token_stream_flush(struct m40_token_stream *s, const char **text, size_t *n_bytes, m40llm_error *err);
void m40_token_stream_close(struct m40_token_stream **s);

#endif
