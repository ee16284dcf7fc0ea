/* The tokenizer's parts, each against something simpler or someone else's: pre-tokenizers, merging, special tokens, UTF-8. */
#include "harness/harness.h"

#include "tokenizer/merge.h"
#include "tokenizer/pretokenize.h"
#include "tokenizer/special.h"
#include "tokenizer/utf8.h"

/* ---- pre-tokenizers ---- */

static const char *const texts[] = {
    "I'LL don't he'Ve  \tit's",
    "a  b\302\240c\343\200\200d \n\n e\r\n  ",
    "x=1234567 +89.5%",
    "caf\xc3\xa9 \xcc\x81\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe3\x81\x8b\xe3\x81\xaa \xed\x95\x9c\xea\xb5\xad",
    "'\xc5\xbf $+<=>^~|` \xd9\xa2\xd9\xa3\xc2\xb2\xc2\xbd",                                       /* long s: 's without case; Arabic digits */
    "\xe1\xa0\x8e\xe2\x80\x8b \xc2\x85\xe2\x80\xa8 \xf0\x9f\x9a\x80\xf0\x9f\x98\xb6\xe2\x80\x8d", /* U+180E is no space, U+0085 is one */
};
enum { N_TEXTS = sizeof texts / sizeof texts[0] };

/* Lengths in bytes of the pieces that the Hugging Face tokenizers library makes of the texts with the models' own pre-tokenizers. */
static const struct {
    const char *name;
    const char *pieces[N_TEXTS];
} splits[] = {
    {"gpt-2", {"1 1 2 4 2 3 1 2 2 1 2 2", "1 1 2 2 1 3 1 3 2 4", "1 1 7 2 2 1 1 1", "5 3 15 7", "1 2 10 9", "6 6 12"}},
    {"mpt", {"1 1 2 4 2 3 1 2 2 1 2 2", "1 1 2 2 1 3 1 3 2 4", "1 1 7 2 2 1 1 1", "5 3 15 7", "1 2 10 9", "6 6 12"}},
    {"llama-bpe", {"1 3 4 2 3 3 2 3 2", "1 1 2 3 4 3 2 2 2", "1 1 3 3 1 2 2 1 1 1", "5 3 15 7", "3 10 1 6 2", "6 6 12"}},
    {"llama-v3", {"1 3 4 2 3 3 2 3 2", "1 1 2 3 4 3 2 2 2", "1 1 3 3 1 2 2 1 1 1", "5 3 15 7", "3 10 1 6 2", "6 6 12"}},
    {"qwen2", {"1 3 4 2 3 3 2 3 2", "1 1 2 3 4 3 2 2 2", "1 1 1 1 1 1 1 1 1 2 1 1 1 1 1", "5 3 15 7", "3 10 1 2 2 2 2", "6 6 12"}},
    {"starcoder", {"1 1 2 4 2 3 1 2 2 1 2 2", "1 1 2 2 1 3 1 3 2 4", "1 1 1 1 1 1 1 1 1 2 1 1 1 1 1", "5 3 15 7", "1 2 10 1 2 2 2 2", "6 6 12"}},
    {"refact", {"1 1 2 4 2 3 1 2 2 1 2 2", "1 1 2 2 1 3 1 3 2 4", "1 1 1 1 1 1 1 1 1 2 1 1 1 1 1", "5 3 15 7", "1 2 10 1 2 2 2 2", "6 6 12"}},
    {"deepseek-coder",
     {"1 1 2 4 1 1 3 1 2 2 3 1 1", "1 1 2 3 3 1 1 1 1 2 1 1 2", "1 1 1 1 1 1 1 1 1 2 1 1 1 1 1", "5 3 15 1 6", "1 2 11 2 2 2 2", "6 3 3 9 3"}},
    {"falcon", {"1 1 2 4 1 1 3 1 2 2 1 2 1 1", "1 1 2 2 1 3 1 3 2 4", "1 1 3 3 1 1 1 2 1 1 1", "5 3 15 7", "1 2 1 9 9", "6 6 12"}},
};

struct pieces {
    const char *next;
    char lengths[4096];
    size_t n, n_pieces;
};

static m40llm_status take_piece(void *user, const char *piece, size_t n_bytes, m40llm_error *err)
{
    struct pieces *p = user;

    (void)err;
    assert_ptr_equal(piece, p->next);
    assert_true(n_bytes > 0);
    p->next += n_bytes;
    p->n_pieces++;
    if (p->n + 24 < sizeof p->lengths)
        p->n += (size_t)snprintf(p->lengths + p->n, 24, p->n ? " %zu" : "%zu", n_bytes);
    return M40LLM_OK;
}

static void test_splits(void **state)
{
    struct m40_pretokenizer *pre;

    (void)state;
    for (size_t k = 0; k < sizeof splits / sizeof splits[0]; k++) {
        assert_int_equal(m40_pretokenizer_open(&pre, m40_str_from(splits[k].name), NULL), M40LLM_OK);
        for (size_t i = 0; i < N_TEXTS; i++) {
            struct pieces p = {.next = texts[i]};

            assert_int_equal(m40_pretokenize(pre, texts[i], strlen(texts[i]), take_piece, &p, NULL), M40LLM_OK);
            assert_string_equal(p.lengths, splits[k].pieces[i]);
        }
        m40_pretokenizer_close(&pre);
    }
}

/* Bytes that are no UTF-8 (surrogates, overlong forms, what is cut off) are single pieces; nothing is lost. */
static void test_splits_of_any_bytes(void **state)
{
    static const char bytes[] = "ab\xed\xa0\x80 cd\xc0\x80"
                                "e\xf5 \xf0\x9f\x98";
    static const char *const names[] = {"default", "gpt-2",     "llama-bpe", "dbrx",   "qwen2",        "qwen35",         "gpt-4o",
                                        "tekken",  "command-r", "starcoder", "falcon", "deepseek-llm", "deepseek-coder", "seed-coder"};
    uint64_t random = test_seed();

    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        struct m40_pretokenizer *pre;
        struct pieces p = {.next = bytes};
        char text[512];

        assert_int_equal(m40_pretokenizer_open(&pre, m40_str_from(names[k]), NULL), M40LLM_OK);
        assert_int_equal(m40_pretokenize(pre, bytes, sizeof bytes - 1, take_piece, &p, NULL), M40LLM_OK);
        assert_string_equal(p.lengths, "2 1 1 1 3 1 1 1 1 1 1 1 1");
        for (int round = 0; round < 200; round++) {
            size_t n = test_random(&random) % sizeof text;

            for (size_t i = 0; i < n; i++)
                text[i] = " \n\r'st1.\xc3\xa9\xe3\x80\x80\xff"[test_random(&random) % 15];
            p = (struct pieces){.next = text};
            assert_int_equal(m40_pretokenize(pre, text, n, take_piece, &p, NULL), M40LLM_OK);
            assert_ptr_equal(p.next, text + n);
        }
        m40_pretokenizer_close(&pre);
    }
}

static m40llm_status refuse(void *user, const char *piece, size_t n_bytes, m40llm_error *err)
{
    (void)user;
    (void)piece;
    (void)n_bytes;
    (void)err;
    return M40LLM_CANCELLED;
}

static void test_split_passes_failure_on(void **state)
{
    struct m40_pretokenizer *pre;
    m40llm_error err;

    (void)state;
    assert_int_equal(m40_pretokenizer_open(&pre, m40_str_from("qwen2"), NULL), M40LLM_OK);
    assert_int_equal(m40_pretokenize(pre, "a b", 3, refuse, NULL, &err), M40LLM_CANCELLED);
    m40_pretokenizer_close(&pre);
    assert_int_equal(m40_pretokenizer_open(&pre, m40_str_from("gpt-5"), &err), M40LLM_NO_TOKENIZER);
    assert_null(pre);
    assert_non_null(strstr(err.text, "'gpt-5'; known are default, gpt-2, llama-bpe"));
}

/* ---- merging ---- */

enum { N_IDS = 40, MAX_WORD = 60 };

struct rule {
    uint32_t rank; /* UINT32_MAX: no rule */
    int32_t merged;
};

/* As the definition says: look at all pairs, join the best, again. */
static size_t merge_naively(struct rule rules[N_IDS][N_IDS], int32_t *ids, size_t n)
{
    for (;;) {
        size_t best = n;

        for (size_t i = 0; i + 1 < n; i++) {
            if (ids[i] < 0 || ids[i + 1] < 0 || rules[ids[i]][ids[i + 1]].rank == UINT32_MAX)
                continue;
            if (best == n || rules[ids[i]][ids[i + 1]].rank < rules[ids[best]][ids[best + 1]].rank)
                best = i;
        }
        if (best == n)
            return n;
        ids[best] = rules[ids[best]][ids[best + 1]].merged;
        memmove(ids + best + 1, ids + best + 2, (n - best - 2) * sizeof *ids);
        n--;
    }
}

/* Few ranks, so that ties are common. */
static void make_rules(struct rule table[N_IDS][N_IDS], struct m40_merge_rules *rules, uint64_t *random)
{
    assert_int_equal(m40_merge_rules_open(rules, 1, NULL), M40LLM_OK); /* grows */
    for (int32_t left = 0; left < N_IDS; left++)
        for (int32_t right = 0; right < N_IDS; right++) {
            struct rule rule = {UINT32_MAX, 0};

            if (test_random(random) % 3 == 0) {
                rule = (struct rule){(uint32_t)(test_random(random) % 50), (int32_t)(test_random(random) % N_IDS)};
                assert_int_equal(m40_merge_rules_add(rules, left, right, rule.rank, rule.merged, NULL), M40LLM_OK);
                assert_int_equal(m40_merge_rules_add(rules, left, right, 1, 1, NULL), M40LLM_INVALID_ARGUMENT);
            }
            table[left][right] = rule;
        }
}

static void test_merging(void **state)
{
    static struct rule table[N_IDS][N_IDS];
    uint64_t random = test_seed();
    struct m40_merger merger = {0};

    (void)state;
    for (int round = 0; round < 20; round++) {
        struct m40_merge_rules rules = {0};

        make_rules(table, &rules, &random);
        for (int word = 0; word < 200; word++) {
            size_t n = 1 + test_random(&random) % MAX_WORD;
            int32_t ids[MAX_WORD];
            uint32_t at = 0;

            merger.n_symbols = 0;
            for (size_t i = 0; i < n; i++) {
                ids[i] = (int32_t)(test_random(&random) % (N_IDS + 1)) - 1; /* -1: joins nothing */
                assert_true(m40_merger_push(&merger, ids[i], (uint32_t)i));
            }
            n = merge_naively(table, ids, n);
            m40_merger_run(&merger, &rules);
            for (size_t i = 0; i < n; i++, at = merger.symbols[at].next) {
                assert_int_not_equal(at, M40_SYMBOL_END);
                assert_int_equal(merger.symbols[at].id, ids[i]);
            }
            assert_int_equal(at, M40_SYMBOL_END);
        }
        m40_merge_rules_free(&rules);
    }
    m40_merger_free(&merger);
}

/* ---- special tokens ---- */

enum { N_SPECIALS = 60 };

/* A vocabulary of random short texts of two letters, all types. */
static void make_vocab(struct m40_vocab *vocab, char texts_of[N_SPECIALS][8], uint64_t *random)
{
    *vocab = (struct m40_vocab){.n_tokens = N_SPECIALS};
    vocab->offsets = calloc(N_SPECIALS + 1, sizeof *vocab->offsets);
    vocab->types = calloc(N_SPECIALS, 1);
    vocab->bytes = calloc(N_SPECIALS, 8);
    for (size_t i = 0; i < N_SPECIALS; i++) {
        bool again = true;

        while (again) {
            size_t n = test_random(random) % 7;

            for (size_t k = 0; k < n; k++)
                texts_of[i][k] = test_random(random) % 2 ? 'a' : '\xff';
            texts_of[i][n] = 0;
            again = false;
            for (size_t k = 0; k < i; k++)
                again = again || strcmp(texts_of[k], texts_of[i]) == 0;
        }
        memcpy(vocab->bytes + vocab->offsets[i], texts_of[i], strlen(texts_of[i]));
        vocab->offsets[i + 1] = vocab->offsets[i] + strlen(texts_of[i]);
        vocab->types[i] = (uint8_t)(1 + test_random(random) % 6);
    }
}

static struct m40_special_match find_naively(const struct m40_vocab *vocab, char texts_of[N_SPECIALS][8], bool control, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct m40_special_match best = {i, i, -1};

        for (int32_t id = 0; id < N_SPECIALS; id++) {
            size_t length = strlen(texts_of[id]);
            uint8_t type = vocab->types[id];
            bool wanted = type == M40_TOKEN_USER_DEFINED || (control && (type == M40_TOKEN_CONTROL || type == M40_TOKEN_UNKNOWN));

            if (wanted && length > best.end - i && length <= n - i && memcmp(text + i, texts_of[id], length) == 0)
                best = (struct m40_special_match){i, i + length, id};
        }
        if (best.id >= 0)
            return best;
    }
    return (struct m40_special_match){n, n, -1};
}

static void test_special_search(void **state)
{
    uint64_t random = test_seed();

    (void)state;
    for (int round = 0; round < 100; round++) {
        char texts_of[N_SPECIALS][8], text[64];
        struct m40_specials specials = {0};
        struct m40_vocab vocab;
        bool control = round % 2;

        make_vocab(&vocab, texts_of, &random);
        assert_int_equal(m40_specials_open(&specials, &vocab, control, NULL), M40LLM_OK);
        for (size_t i = 0; i < sizeof text; i++)
            text[i] = "a\xff-"[test_random(&random) % 3];
        for (size_t from = 0; from <= sizeof text; from++) {
            struct m40_special_match found = m40_specials_find(&specials, text, sizeof text, from);
            struct m40_special_match expected = find_naively(&vocab, texts_of, control, text + from, sizeof text - from);

            assert_int_equal(found.begin, from + expected.begin);
            assert_int_equal(found.end, from + expected.end);
            assert_int_equal(found.id, expected.id);
        }
        m40_specials_free(&specials);
        free(vocab.offsets);
        free(vocab.types);
        free(vocab.bytes);
    }
}

/* ---- UTF-8 ---- */

static size_t encode(uint32_t code, uint8_t *out)
{
    if (code < 0x800)
        return m40_utf8_encode_short(code, (char *)out);
    if (code < 0x10000) {
        memcpy(out, (uint8_t[]){(uint8_t)(0xe0 | code >> 12), (uint8_t)(0x80 | (code >> 6 & 63)), (uint8_t)(0x80 | (code & 63))}, 3);
        return 3;
    }
    memcpy(out,
           (uint8_t[]){(uint8_t)(0xf0 | code >> 18), (uint8_t)(0x80 | (code >> 12 & 63)), (uint8_t)(0x80 | (code >> 6 & 63)),
                       (uint8_t)(0x80 | (code & 63))},
           4);
    return 4;
}

static void test_utf8(void **state)
{
    uint8_t bytes[4];

    (void)state;
    for (uint32_t code = 0; code < 0x120000; code++) {
        size_t n = encode(code, bytes);
        struct m40_utf8 u = m40_utf8_decode(bytes, n);
        bool valid = code < 0x110000 && !(code >= 0xd800 && code < 0xe000);

        assert_int_equal(u.valid, valid);
        assert_false(u.incomplete);
        if (!valid)
            continue;
        assert_int_equal(u.code, code);
        assert_int_equal(u.n_bytes, n);
        for (size_t cut = 1; cut < n; cut++) {
            u = m40_utf8_decode(bytes, cut);
            assert_true(!u.valid && u.incomplete && u.n_bytes == cut);
        }
    }
    /* overlong forms */
    assert_false(m40_utf8_decode((const uint8_t *)"\xc0\x80", 2).valid);
    assert_false(m40_utf8_decode((const uint8_t *)"\xc1\xbf", 2).valid);
    assert_false(m40_utf8_decode((const uint8_t *)"\xe0\x9f\xbf", 3).valid);
    assert_false(m40_utf8_decode((const uint8_t *)"\xf0\x8f\xbf\xbf", 4).valid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_splits),  cmocka_unit_test(test_splits_of_any_bytes), cmocka_unit_test(test_split_passes_failure_on),
        cmocka_unit_test(test_merging), cmocka_unit_test(test_special_search),      cmocka_unit_test(test_utf8),
    };

    return cmocka_run_group_tests_name("tokenizer parts", tests, NULL, NULL);
}
