#include "tokenizer/pretokenize_families.h"

#include <stddef.h>
#include <string.h>

/* Unicode's White_Space, spelled out for use inside brackets: PCRE2's \s also has U+180E, which the engines that the models were made with do not. */
#define SPACES   "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define SPACE    "[" SPACES "]"
#define NO_SPACE "[^" SPACES "]"
#define OTHER    "[^" SPACES "\\p{L}\\p{N}]" /* neither space, letter nor number */

/* What the expressions are made of. SPACE_RUNS: line ends with the spaces before them; spaces but for the last one before a word; other spaces. */
#define CONTRACTIONS         "'s|'t|'re|'ve|'m|'ll|'d"
#define PREFIX               "[^\\r\\n\\p{L}\\p{N}]?" /* one character that may stand before a word's letters */
#define SPACES_BEFORE_WORDS  SPACE "+(?!" NO_SPACE ")|" SPACE "+"
#define SPACE_RUNS(newlines) SPACE "*" newlines "|" SPACES_BEFORE_WORDS

/* The models' published expressions, from their tokenizer.json files. */
#define GPT2 CONTRACTIONS "| ?\\p{L}+| ?\\p{N}+| ?" OTHER "+|" SPACES_BEFORE_WORDS
/* after: what punctuation takes with it */
#define CL100K_LIKE(digits, after, newlines) "(?i:" CONTRACTIONS ")|" PREFIX "\\p{L}+|" digits "| ?" OTHER "+" after "|" SPACE_RUNS(newlines)
#define CL100K(digits)                       CL100K_LIKE(digits, "[\\r\\n]*", "[\\r\\n]+")

/* A word is upper case, then lower case; letters without case and marks go with either. */
#define UPPER              "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER              "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED_WORDS(end)   PREFIX UPPER "*" LOWER "+" end "|" PREFIX UPPER "+" LOWER "*" end
#define O200K_REST(digits) digits "| ?" OTHER "+[\\r\\n/]*|" SPACE_RUNS("[\\r\\n]+")
#define O200K              CASED_WORDS("(?i:" CONTRACTIONS ")?") "|" O200K_REST("\\p{N}{1,3}")
#define TEKKEN             CASED_WORDS("") "|" O200K_REST("\\p{N}")

/* Marks belong to words. */
#define QWEN35 "(?i:" CONTRACTIONS ")|" PREFIX "[\\p{L}\\p{M}]+|\\p{N}| ?[^" SPACES "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACE_RUNS("[\\r\\n]+")

#define CJK "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
/* DeepSeek's list of cased letters, an older Unicode's. */
#define CASED                                                                                                                                        \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{"    \
    "377}"                                                                                                                                           \
    "\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{"    \
    "556}"                                                                                                                                           \
    "\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}"          \
    "\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}"  \
    "\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}" \
    "\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}"   \
    "\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}"   \
    "\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}"           \
    "\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}"        \
    "\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"
#define DEEPSEEK_PUNCTUATION "!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}"
/* Spaces at the end: \s+$ in the original. The look-behind keeps a long run that is not at the end from being tried at each of its places. */
#define TRAILING_SPACES "(?<!" SPACE ")" SPACE "++\\z"
#define DEEPSEEK_V3     "[!-/:-@\\[-`{-~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACE_RUNS("[\\r\\n]+")

static const struct m40_split_family families[] = {
    {"default", {false, false}, {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {"gpt-2 mpt phi-2 olmo jais trillion granite-docling jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum exaone4 modern-bert",
     {false, false},
     {GPT2}},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", {true, true}, {CL100K("\\p{N}{1,3}")}},
    {"dbrx smaug-bpe glm4 chatglm-bpe", {false, false}, {CL100K("\\p{N}{1,3}")}},
    {"qwen2 deepseek-r1-qwen megrez kormo f2llmv2 stablelm2 hunyuan solar-open grok-2", {false, false}, {CL100K("\\p{N}")}},
    {"qwen35", {false, false}, {QWEN35}},
    {"gpt-4o llama4 kanana2 talkie minimax-m2", {false, false}, {O200K}},
    {"tekken", {true, true}, {TEKKEN}},
    {"command-r starcoder refact smollm codeshell exaone minerva-7b mellum2", {false, false}, {"\\p{N}", GPT2}},
    {"falcon", {false, false}, {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {"deepseek-llm", {false, false}, {"[\\r\\n]", SPACE "?[" CASED "]+", SPACE "?[" DEEPSEEK_PUNCTUATION "]+", TRAILING_SPACES, CJK, "\\p{N}+"}},
    {"deepseek-coder", {false, false}, {"[\\r\\n]", SPACE "?\\p{L}+", SPACE "?\\p{P}+", CJK, "\\p{N}"}},
    {"deepseek-v3 hunyuan-dense joyai-llm hy_v4",
     {false, false},
     {"\\p{N}{1,3}", "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+", DEEPSEEK_V3}},
    {"bailingmoe bailingmoe2 llada-moe", {false, false}, {CL100K_LIKE("\\p{N}", "[\\r\\n]*", "[\\r\\n]")}},
    {"seed-coder", {false, false}, {CL100K_LIKE("\\p{N}", "", "[\\r\\n]+")}},
};

static bool has_name(const char *names, struct m40_str name)
{
    for (const char *p = names; *p; p += strspn(p, " ")) {
        size_t n = strcspn(p, " ");

        if (m40_str_equal((struct m40_str){p, n}, name))
            return true;
        p += n;
    }
    return false;
}

const struct m40_split_family *m40_split_family_find(struct m40_str name)
{
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (has_name(families[i].names, name))
            return &families[i];
    return NULL;
}

m40llm_status m40_split_family_unknown(struct m40_str name, m40llm_error *err)
{
    char known[192] = "";
    size_t n = 0;

    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        size_t n_name = strcspn(families[i].names, " ");

        if (n + n_name + 3 > sizeof known)
            break;
        memcpy(known + n, families[i].names, n_name);
        memcpy(known + n + n_name, ", ", 3);
        n += n_name + 2;
    }
    known[n - 2] = 0;
    return m40_fail(err, M40LLM_NO_TOKENIZER, "tokenizer.ggml.pre: unknown '%.*s'; known are %s and aliases",
                    (int)(name.n_bytes < 24 ? name.n_bytes : 24), name.data, known);
}
