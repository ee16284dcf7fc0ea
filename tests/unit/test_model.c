/* model/: every refusal of a bad model has its words; a good one is described, loaded, run and closed, also where any allocation fails. */
#include "harness/golden_gguf.h"
#include "harness/harness.h"
#include "harness/tiny_model.h"

#include "base/half.h"
#include "base/mem.h"
#include "model/model.h"

#include <math.h>

#pragma GCC diagnostic ignored "-Wmissing-field-initializers" /* edits name only what they need */

#define OK(call)                                                                                                                                     \
    do {                                                                                                                                             \
        m40llm_error err = {0};                                                                                                                      \
        if ((call) != M40LLM_OK)                                                                                                                     \
            fail_msg("%s: %s", #call, err.text);                                                                                                     \
    } while (0)

/* ---- refusals ---- */

struct bad_model {
    struct edit edits[3];
    m40llm_status status;
    const char *text;
};

/* clang-format off */
static const struct bad_model bad_models[] = {
    {{{DROP_KEY, "general.architecture"}}, M40LLM_BAD_MODEL, "metadata key general.architecture is missing"},
    {{{SET_U32, "general.architecture", 3}}, M40LLM_BAD_MODEL, "metadata key general.architecture is not a string"},
    {{{SET_STRING, "general.architecture", 0, "falcon"}}, M40LLM_UNSUPPORTED, "architecture \"falcon\" is not supported (known: llama, qwen2, qwen3, gemma2, gemma3, phi3, granite, smollm3, olmo2, mistral3, qwen2moe, qwen3moe, gpt-oss)"},
    {{{SET_STRING, "general.architecture", 0, "an architecture of a name that is longer than any\n"}}, M40LLM_UNSUPPORTED,
     "architecture \"an architecture of a name that \" is not supported (known: llama, qwen2, qwen3, gemma2, gemma3, phi3, granite, smollm3, olmo2, mistral3, qwen2moe, qwen3moe, gpt-oss)"},
    {{{SET_STRING, "general.architecture", 0, "qwen2"}}, M40LLM_BAD_MODEL, "metadata key qwen2.block_count is missing"},

    {{{DROP_KEY, "llama.block_count"}}, M40LLM_BAD_MODEL, "metadata key llama.block_count is missing"},
    {{{DROP_KEY, "llama.context_length"}}, M40LLM_BAD_MODEL, "metadata key llama.context_length is missing"},
    {{{DROP_KEY, "llama.embedding_length"}}, M40LLM_BAD_MODEL, "metadata key llama.embedding_length is missing"},
    {{{DROP_KEY, "llama.feed_forward_length"}}, M40LLM_BAD_MODEL, "metadata key llama.feed_forward_length is missing"},
    {{{DROP_KEY, "llama.attention.head_count"}}, M40LLM_BAD_MODEL, "metadata key llama.attention.head_count is missing"},
    {{{DROP_KEY, "llama.attention.layer_norm_rms_epsilon"}}, M40LLM_BAD_MODEL, "metadata key llama.attention.layer_norm_rms_epsilon is missing"},
    {{{SET_STRING, "llama.block_count", 0, "two"}}, M40LLM_BAD_MODEL, "metadata key llama.block_count is not a whole number >= 0"},
    {{{SET_TOKENS, "llama.feed_forward_length", 2}}, M40LLM_BAD_MODEL, "metadata key llama.feed_forward_length is not a whole number >= 0"},

    {{{SET_U32, "llama.block_count", 0}}, M40LLM_BAD_MODEL, "metadata key llama.block_count is 0, expected 1 to 1024"},
    {{{SET_U32, "llama.block_count", 4294967295.0}}, M40LLM_BAD_MODEL, "metadata key llama.block_count is 4294967295, expected 1 to 1024"},
    {{{SET_U32, "llama.embedding_length", 4294967295.0}}, M40LLM_BAD_MODEL, "metadata key llama.embedding_length is 4294967295, expected 1 to 1048576"},
    {{{SET_U32, "llama.feed_forward_length", 1048577}}, M40LLM_BAD_MODEL, "metadata key llama.feed_forward_length is 1048577, expected 1 to 1048576"},
    {{{SET_U32, "llama.context_length", 4294967295.0}}, M40LLM_BAD_MODEL, "metadata key llama.context_length is 4294967295, expected 1 to 16777216"},

    {{{SET_U32, "llama.attention.head_count", 0}}, M40LLM_BAD_MODEL, "metadata key llama.attention.head_count is 0, expected 1 to 4096"},
    {{{SET_U32, "llama.attention.head_count_kv", 0}}, M40LLM_BAD_MODEL, "metadata key llama.attention.head_count_kv is 0, expected 1 to 4096"},
    {{{SET_U32, "llama.attention.head_count_kv", 3}}, M40LLM_BAD_MODEL,
     "llama.attention.head_count is 4, not divisible by attention.head_count_kv, which is 3"},
    {{{SET_U32, "llama.attention.head_count_kv", 8}}, M40LLM_BAD_MODEL,
     "llama.attention.head_count is 4, not divisible by attention.head_count_kv, which is 8"},
    {{{SET_U32, "llama.attention.head_count", 5}, {SET_U32, "llama.attention.head_count_kv", 5}}, M40LLM_BAD_MODEL,
     "llama.embedding_length is 64, not divisible by attention.head_count, which is 5"},
    {{{SET_U32, "llama.attention.key_length", 0}}, M40LLM_BAD_MODEL, "metadata key llama.attention.key_length is 0, expected 1 to 1048576"},
    {{{SET_U32, "llama.attention.key_length", 512}, {SET_U32, "llama.attention.value_length", 512}}, M40LLM_UNSUPPORTED,
     "heads of 512 elements are not supported: expected a multiple of 8, at most 256"},
    {{{SET_U32, "llama.attention.key_length", 12}}, M40LLM_UNSUPPORTED, "heads of 12 elements are not supported: expected a multiple of 8, at most 256"},
    {{{SET_U32, "llama.attention.key_length", 16}, {SET_U32, "llama.attention.value_length", 32}}, M40LLM_UNSUPPORTED,
     "llama.attention.key_length is 16 and value_length 32; heads of two sizes are not supported"},

    {{{SET_F32, "llama.attention.layer_norm_rms_epsilon", 0}}, M40LLM_BAD_MODEL,
     "metadata key llama.attention.layer_norm_rms_epsilon is 0, expected 1e-30 to 1"},
    {{{SET_F32, "llama.attention.layer_norm_rms_epsilon", NAN}}, M40LLM_BAD_MODEL,
     "metadata key llama.attention.layer_norm_rms_epsilon is nan, expected 1e-30 to 1"},
    {{{SET_STRING, "llama.attention.layer_norm_rms_epsilon", 0, "small"}}, M40LLM_BAD_MODEL,
     "metadata key llama.attention.layer_norm_rms_epsilon is not a number"},
    {{{SET_F32, "llama.rope.freq_base", 0}}, M40LLM_BAD_MODEL, "metadata key llama.rope.freq_base is 0, expected 1 to 1e+15"},
    {{{SET_F32, "llama.rope.freq_base", INFINITY}}, M40LLM_BAD_MODEL, "metadata key llama.rope.freq_base is inf, expected 1 to 1e+15"},
    {{{SET_U32, "llama.rope.dimension_count", 15}}, M40LLM_BAD_MODEL, "llama.rope.dimension_count is 15, expected an even number"},
    {{{SET_U32, "llama.rope.dimension_count", 32}}, M40LLM_BAD_MODEL, "metadata key llama.rope.dimension_count is 32, expected 2 to 16"},
    {{{SET_STRING, "llama.rope.scaling.type", 0, "dynamic"}}, M40LLM_UNSUPPORTED, "llama.rope.scaling.type \"dynamic\" is not supported (known: none, linear, yarn, longrope): with dynamic NTK, "
     "what the cache holds would have to change as a sequence grows"},
    {{{SET_U32, "llama.rope.scaling.type", 1}}, M40LLM_BAD_MODEL, "metadata key llama.rope.scaling.type is not a string"},
    {{{SET_F32, "llama.rope.scaling.factor", -1}}, M40LLM_BAD_MODEL, "metadata key llama.rope.scaling.factor is -1, expected 0.5 to 1e+06"},
    {{{ADD_VECTOR, "rope_freqs.weight", 4}}, M40LLM_BAD_MODEL, "tensor rope_freqs.weight has 4 elements, expected 8 (rope.dimension_count / 2)"},
    {{{ADD_VECTOR, "rope_freqs.weight", 8}, {SET_TYPE, "rope_freqs.weight", M40_DTYPE_F16}}, M40LLM_BAD_MODEL,
     "tensor rope_freqs.weight has type f16, expected f32"},
    {{{ADD_VECTOR, "rope_freqs.weight", 8}, {SPOIL_VALUES, "rope_freqs.weight"}}, M40LLM_BAD_MODEL,
     "tensor rope_freqs.weight has 0 at element 0, expected 0.5 or more"},

    {{{SET_STRING, "llama.rope.scaling.type", 0, "yarn"}}, M40LLM_BAD_MODEL, "metadata key llama.rope.scaling.factor is missing"},
    {{{SET_STRING, "llama.rope.scaling.type", 0, "yarn"}, {SET_F32, "llama.rope.scaling.factor", 0.5}}, M40LLM_BAD_MODEL,
     "metadata key llama.rope.scaling.factor is 0.5, expected 1 to 1e+06"},
    {{{SET_STRING, "llama.rope.scaling.type", 0, "yarn"}, {SET_F32, "llama.rope.scaling.factor", 4}, {SET_F32, "llama.rope.scaling.yarn_beta_fast", 0.5}}, M40LLM_BAD_MODEL,
     "metadata key llama.rope.scaling.yarn_beta_fast is 0.5, expected 1 to 1e+06"},
    {{{SET_STRING, "llama.rope.scaling.type", 0, "yarn"}, {SET_F32, "llama.rope.scaling.factor", 4}, {SET_F32, "llama.rope.freq_base", 1}}, M40LLM_BAD_MODEL,
     "llama.rope.freq_base is 1, too small for yarn"},
    {{{SET_STRING, "llama.rope.scaling.type", 0, "longrope"}}, M40LLM_BAD_MODEL, "tensor rope_factors_long.weight is missing"},
    {{{SPOIL_VALUES, "output_norm.weight"}, {ADD_VECTOR, "rope_factors_short.weight", 8}, {SPOIL_VALUES, "rope_factors_short.weight"}}, M40LLM_BAD_MODEL,
     "tensor rope_factors_short.weight has 0 at element 0, expected 0.5 or more"},
    {{{SET_F32, "llama.attn_logit_softcapping", -1}}, M40LLM_BAD_MODEL, "metadata key llama.attn_logit_softcapping is -1, expected 0 to 1e+06"},
    {{{SET_F32, "llama.final_logit_softcapping", NAN}}, M40LLM_BAD_MODEL, "metadata key llama.final_logit_softcapping is nan, expected 0 to 1e+06"},
    {{{SET_F32, "llama.attention.scale", 0}}, M40LLM_BAD_MODEL, "metadata key llama.attention.scale is 0, expected 1e-06 to 1e+06"},
    {{{SET_F32, "llama.attention.temperature_scale", 0.125}, {SET_U32, "llama.rope.dimension_count", 8}}, M40LLM_UNSUPPORTED,
     "llama.attention.temperature_scale is 0.125, but only 8 of 16 elements of a head are rotated"},

    {{{SET_U32, "llama.expert_count", 8}}, M40LLM_BAD_MODEL, "metadata key llama.expert_used_count is missing"},
    {{{SET_U32, "llama.expert_count", 513}, {SET_U32, "llama.expert_used_count", 2}}, M40LLM_UNSUPPORTED, "llama.expert_count is 513, expected at most 512"},
    {{{SET_U32, "llama.expert_count", 8}, {SET_U32, "llama.expert_used_count", 9}}, M40LLM_BAD_MODEL,
     "metadata key llama.expert_used_count is 9, expected 1 to 8"},
    {{{SET_U32, "llama.expert_count", 64}, {SET_U32, "llama.expert_used_count", 33}}, M40LLM_UNSUPPORTED,
     "llama.expert_used_count is 33, expected at most 32"},
    {{{SET_U32, "llama.expert_count", 8}, {SET_U32, "llama.expert_used_count", 2}, {SET_U32, "llama.expert_feed_forward_length", 48}}, M40LLM_UNSUPPORTED,
     "experts of 48 x 64 are not supported: expected multiples of 32"},
    {{{SET_U32, "llama.expert_count", 8}, {SET_U32, "llama.expert_used_count", 2}, {SET_U32, "llama.leading_dense_block_count", 1}}, M40LLM_UNSUPPORTED,
     "llama.leading_dense_block_count is 1: dense layers before the mixtures are not supported"},
    {{{SET_U32, "llama.expert_count", 8}, {SET_U32, "llama.expert_used_count", 2}, {SET_U32, "llama.expert_gating_func", 3}}, M40LLM_BAD_MODEL,
     "metadata key llama.expert_gating_func is 3, expected 0 to 2"},
    {{{SET_U32, "llama.expert_count", 8}, {SET_U32, "llama.expert_used_count", 2}, {SET_U32, "llama.expert_weights_norm", 1}}, M40LLM_BAD_MODEL,
     "metadata key llama.expert_weights_norm is not a bool"},
    {{{SET_U32, "llama.expert_count", 8}, {SET_U32, "llama.expert_used_count", 2}, {ADD_VECTOR, "blk.0.ffn_gate.0.weight", 8}}, M40LLM_UNSUPPORTED,
     "tensor blk.0.ffn_gate.0.weight is of one expert, as old converters wrote them: convert the model anew"},
    {{{SET_U32, "llama.expert_count", 8}, {SET_U32, "llama.expert_used_count", 2}}, M40LLM_BAD_MODEL, "tensor blk.0.ffn_gate_inp.weight is missing"},
    {{{SET_U32, "llama.attention.sliding_window", 64}}, M40LLM_UNSUPPORTED,
     "llama.attention.sliding_window is 64, less than context_length, which is 128: sliding-window attention is not known of this architecture"},
    {{{SET_BOOL, "llama.attention.causal", 0}}, M40LLM_UNSUPPORTED, "llama.attention.causal is false: only causal attention is supported"},

    {{{SET_TOKENS, "tokenizer.ggml.tokens", 41}}, M40LLM_BAD_MODEL, "tensor token_embd.weight has 40 rows, but the tokenizer has 41 tokens"},
    {{{DROP_TENSOR, "token_embd.weight"}}, M40LLM_BAD_MODEL, "tensor token_embd.weight is missing"},
    {{{DROP_TENSOR, "output_norm.weight"}}, M40LLM_BAD_MODEL, "tensor output_norm.weight is missing"},
    {{{DROP_TENSOR, "blk.0.attn_q.weight"}}, M40LLM_BAD_MODEL, "tensor blk.0.attn_q.weight is missing"},
    {{{DROP_TENSOR, "blk.1.ffn_down.weight"}}, M40LLM_BAD_MODEL, "tensor blk.1.ffn_down.weight is missing"},
    {{{SET_U32, "llama.block_count", 3}}, M40LLM_BAD_MODEL, "tensor blk.2.attn_norm.weight is missing"},
    {{{ADD_VECTOR, "blk.0.attn_q.bias", 64}}, M40LLM_BAD_MODEL, "tensor blk.1.attn_q.bias is missing, but blk.0.attn_q.bias is there"},
    {{{ADD_VECTOR, "blk.1.attn_v.bias", 32}}, M40LLM_BAD_MODEL, "tensor blk.0.attn_v.bias is missing, but blk.1.attn_v.bias is there"},
    {{{ADD_VECTOR, "blk.0.attn_output.bias", 64}}, M40LLM_UNSUPPORTED,
     "tensor blk.0.attn_output.bias has no place in architecture llama as it is known here"},

    {{{SET_SHAPE, "token_embd.weight", 0, NULL, {32, 40}}}, M40LLM_BAD_MODEL, "tensor token_embd.weight has shape [32, 40], expected [64, 40]"},
    {{{SET_SHAPE, "output.weight", 0, NULL, {64, 41}}}, M40LLM_BAD_MODEL, "tensor output.weight has shape [64, 41], expected [64, 40]"},
    {{{SET_SHAPE, "blk.1.attn_k.weight", 0, NULL, {64, 64}}}, M40LLM_BAD_MODEL, "tensor blk.1.attn_k.weight has shape [64, 64], expected [64, 32]"},
    {{{SET_SHAPE, "blk.0.ffn_down.weight", 0, NULL, {64, 96}}}, M40LLM_BAD_MODEL, "tensor blk.0.ffn_down.weight has shape [64, 96], expected [96, 64]"},
    {{{SET_SHAPE, "blk.0.attn_norm.weight", 0, NULL, {65, 1}}}, M40LLM_BAD_MODEL, "tensor blk.0.attn_norm.weight has shape [65], expected [64]"},
    {{{SET_TYPE, "blk.0.attn_norm.weight", M40_DTYPE_Q8_0}}, M40LLM_BAD_MODEL, "tensor blk.0.attn_norm.weight has type q8_0, expected f32, f16 or bf16"},
    {{{SET_TYPE, "blk.1.attn_v.weight", M40_DTYPE_I32}}, M40LLM_UNSUPPORTED, "tensor blk.1.attn_v.weight has type i32, which is not supported"},
    {{{SET_TYPE, "token_embd.weight", M40_DTYPE_F64}}, M40LLM_UNSUPPORTED, "tensor token_embd.weight has type f64, which is not supported"},
};
/* clang-format on */

static void test_bad_models_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_models / sizeof *bad_models; i++) {
        const struct bad_model *bad = &bad_models[i];
        struct m40_gguf *gguf = tiny_model_open(bad->edits, 3);
        m40llm_model_info info;
        m40llm_error err = {0};
        m40llm_status status = m40_model_describe(gguf, M40LLM_KV_F16, &info, &err);

        assert_string_equal(err.text, bad->text);
        assert_int_equal(status, bad->status);
        m40_gguf_close(&gguf);
    }
}

/* A file with a vocabulary only. */
static void test_no_tensors(void **state)
{
    struct m40_gguf *gguf;
    m40llm_model_info info;
    m40llm_error error = {0};

    (void)state;
    OK(m40_gguf_open(&gguf, test_data("vocab/ggml-vocab-llama-spm.gguf"), &err));
    assert_int_equal(m40_model_describe(gguf, M40LLM_KV_F16, &info, &error), M40LLM_BAD_MODEL);
    assert_string_equal(error.text, "tensor token_embd.weight is missing: the file has no tensors, a vocabulary at most");
    m40_gguf_close(&gguf);
}

/* ---- what is accepted ---- */

static struct m40_model_config read_config(const struct edit *edits, size_t n)
{
    struct m40_gguf *gguf = tiny_model_open(edits, n);
    struct m40_model_config config;

    OK(m40_model_config_read(&config, gguf, &err));
    m40_gguf_close(&gguf);
    return config;
}

static void test_config_defaults_and_options(void **state)
{
    struct m40_model_config c = read_config(NULL, 0);

    (void)state;
    assert_string_equal(c.architecture, "llama");
    assert_string_equal(c.name, "tiny");
    assert_true(c.head_dim == 16 && c.rope.n_rot == 16 && c.rope.base == 10000.0 && c.rope.factor == 1.0 && !c.rope.divisors);
    assert_true(c.n_vocab == VOCAB && !c.is_tied && !c.has_qkv_bias && !c.has_row_qk_norm && c.rope_style == M40_ROPE_NORM && c.norm_eps == 1e-5f);

    assert_int_equal(read_config(&(struct edit){DROP_KEY, "llama.attention.head_count_kv"}, 1).n_kv_heads, HEADS);
    assert_true(read_config(&(struct edit){DROP_TENSOR, "output.weight"}, 1).is_tied);
    assert_true(read_config(&(struct edit){SET_F32, "llama.rope.scaling.factor", 4}, 1).rope.factor == 4.0);
    assert_true(read_config(&(struct edit){SET_F32, "llama.rope.scale_linear", 2}, 1).rope.factor == 2.0);
    assert_int_equal(read_config(&(struct edit){SET_U32, "llama.rope.dimension_count", 8}, 1).rope.n_rot, 8);
    assert_int_equal(read_config(&(struct edit){SET_U32, "llama.attention.sliding_window", 128}, 1).n_ctx_train, CTX);
    assert_int_equal(read_config(&(struct edit){SET_TOKENS, "tokenizer.ggml.tokens", VOCAB}, 1).n_vocab, VOCAB);
    c = read_config((struct edit[]){{SET_STRING, "llama.rope.scaling.type", 0, "none"}, {SET_F32, "llama.rope.scaling.factor", 4}}, 2);
    assert_true(c.rope.factor == 1.0);
    assert_true(c.attn_scale == 0.25f && c.embed_scale == 1 && c.logit_scale == 1 && c.attn_softcap == 0 && c.logit_softcap == 0);
    assert_true(m40_layer_window(&c, 0) == 0 && !m40_layer_has(&c, 1, M40_LAYER_NO_ROPE) && !c.has_local_rope);
    assert_true(read_config(&(struct edit){SET_F32, "llama.attention.scale", 0.5}, 1).attn_scale == 0.5f);
    assert_true(read_config(&(struct edit){SET_F32, "llama.attn_logit_softcapping", 20}, 1).attn_softcap == 20);
    c = read_config((struct edit[]){{SET_STRING, "llama.rope.scaling.type", 0, "yarn"}, {SET_F32, "llama.rope.scaling.factor", 4}}, 2);
    assert_true(c.rope.is_yarn && c.rope.n_ctx_original == CTX && fabs(c.rope.magnitude - (0.1 * log(4) + 1)) < 1e-12);
    c = read_config(&(struct edit){SET_STRING, "general.name", 0, "line\nbreak"}, 1);
    assert_string_equal(c.name, "line?break");
}

static void test_describe(void **state)
{
    const uint64_t layer = 2 * EMBD + 2 * EMBD * HEADS * HEAD + 2 * EMBD * KV_HEADS * HEAD + 3 * EMBD * FF;
    const uint64_t n = 2 * EMBD * VOCAB + EMBD + LAYERS * layer;
    struct m40_gguf *gguf = tiny_model_open(NULL, 0);
    m40llm_model_info info;

    (void)state;
    OK(m40_model_describe(gguf, M40LLM_KV_F16, &info, &err));
    assert_int_equal(info.n_parameters, n);
    assert_int_equal(info.weight_bytes, 4 * n);
    assert_int_equal(info.weight_bytes_per_token, 4 * (n - EMBD * (VOCAB - 1)));
    assert_int_equal(info.kv_bytes_per_token, LAYERS * 2 * KV_HEADS * HEAD * 2);
    assert_true(info.n_active_parameters == n && info.expert_bytes == 0 && info.window == 0 && info.window_kv_bytes_per_token == 0);
    OK(m40_model_describe(gguf, M40LLM_KV_F32, &info, &err));
    assert_int_equal(info.kv_bytes_per_token, LAYERS * 2 * KV_HEADS * HEAD * 4);
    m40_gguf_close(&gguf);
    gguf = tiny_model_open(&(struct edit){DROP_TENSOR, "output.weight"}, 1);
    OK(m40_model_describe(gguf, M40LLM_KV_F16, &info, &err));
    assert_int_equal(info.weight_bytes_per_token, info.weight_bytes); /* a tied embedding is read whole */
    m40_gguf_close(&gguf);
}

/* What sets layers apart, where a golden file asks for it. */
static void test_layers_of_families(void **state)
{
    static const struct {
        const char *name;
        uint32_t window;
        const char *layers; /* w: with the window; n: not rotated; f: neither */
    } families[] = {{"gemma2", 16, "wfw"}, {"gemma3", 16, "wwwwwf"}, {"smollm3", 0, "fffn"}, {"olmo3", 16, "wwwf"}, {"phi3", 2047, "ww"}};

    (void)state;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char *path = golden_gguf_path(families[i].name);
        struct m40_model_config c;
        struct m40_gguf *gguf;
        m40llm_model_info info;

        OK(m40_gguf_open(&gguf, path, &err));
        OK(m40_model_config_read(&c, gguf, &err));
        OK(m40_model_describe(gguf, M40LLM_KV_F16, &info, &err));
        assert_int_equal(c.n_layers, strlen(families[i].layers));
        assert_int_equal(info.window, families[i].window);
        for (uint32_t layer = 0; layer < c.n_layers; layer++) {
            assert_int_equal(m40_layer_window(&c, layer), families[i].layers[layer] == 'w' ? families[i].window : 0);
            assert_int_equal(m40_layer_has(&c, layer, M40_LAYER_NO_ROPE), families[i].layers[layer] == 'n');
        }
        m40_gguf_close(&gguf);
        free(path);
    }
}

/* ---- loading and running ---- */

struct log_text {
    char text[4096];
};

static void collect(void *user, m40llm_log_level level, const char *line)
{
    struct log_text *log = user;
    size_t n = strlen(log->text);

    snprintf(log->text + n, sizeof log->text - n, "%d %s\n", (int)level, line);
}

static struct m40_backend *open_backend(struct log_text *log)
{
    m40llm_device_options options = M40LLM_DEVICE_OPTIONS_INIT;
    struct m40_backend *be;

    options.n_threads = 1;
    if (log)
        options.logger = (m40llm_logger){collect, log, M40LLM_LOG_DEBUG};
    OK(m40_backend_open_cpu(&be, &options, &err));
    return be;
}

static const struct m40_forward_limits limits = {
    .n_tokens = 8, .n_logits = 8, .n_slots = 2, .n_slot_pages = 2, .n_pages = 5, .kv_type = M40LLM_KV_F32};

static const int32_t ids[] = {1, 5, 7, 39, 0, 2}, pos[] = {0, 1, 2, 0, 1, 3}, slots[] = {0, 0, 0, 1, 1, 0}, logit_rows[] = {0, 1, 2, 3, 4, 5},
                     pages[] = {4, -1, 1, -1}; /* second pages are not reached, hence not read */
static const struct m40_batch good_batch = {6, ids, pos, slots, 6, logit_rows, pages};

static m40llm_status run_once(const struct m40_gguf *gguf, struct m40_backend *be, const struct m40_batch *batch, float *logits, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_model *model = NULL;
    struct m40_forward *forward = NULL;

    M40_TRY(m40_model_open(&model, gguf, be, NULL, NULL, err));
    M40_TRY(m40_forward_open(&forward, model, &limits, err));
    M40_TRY(m40_forward_step(forward, batch, logits, err));
fail:
    m40_forward_close(&forward);
    m40_model_close(&model);
    return status;
}

static void run_edited(const struct edit *edits, size_t n, float *logits)
{
    struct m40_gguf *gguf = tiny_model_open(edits, n);
    struct m40_backend *be = open_backend(NULL);

    OK(run_once(gguf, be, &good_batch, logits, &err));
    for (size_t i = 0; i < 6 * VOCAB; i++)
        assert_true(isfinite(logits[i]));
    m40_backend_close(&be);
    m40_gguf_close(&gguf);
}

/* Whatever a number in the metadata says, the file is refused with a reason, or runs. */
static void test_any_number_is_survived(void **state)
{
    static const char *const names[] = {
        "llama.block_count",          "llama.context_length",          "llama.embedding_length",     "llama.feed_forward_length",
        "llama.attention.head_count", "llama.attention.head_count_kv", "llama.attention.key_length", "llama.attention.value_length",
        "llama.rope.dimension_count", "llama.rope.freq_base",          "llama.rope.scaling.factor",  "llama.attention.sliding_window",
        "llama.expert_count",
    };
    static const double values[] = {0, 1, 2, 3, 8, 16, 63, 64, 65, 128, 256, 65536, 1048576, 16777216, 2147483648.0, 4294967295.0};
    static float logits[6 * VOCAB];
    struct m40_backend *be = open_backend(NULL);
    unsigned n_ran = 0;

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (size_t j = 0; j < sizeof values / sizeof *values; j++) {
            struct m40_gguf *gguf = tiny_model_open(&(struct edit){SET_U32, names[i], values[j]}, 1);
            m40llm_error err = {0};
            m40llm_status status = run_once(gguf, be, &good_batch, logits, &err);

            assert_true(status == M40LLM_OK || ((status == M40LLM_BAD_MODEL || status == M40LLM_UNSUPPORTED) && err.text[0]));
            n_ran += status == M40LLM_OK;
            m40_gguf_close(&gguf);
        }
    assert_true(n_ran > 13 && n_ran < 100);
    m40_backend_close(&be);
}

/* Norms and biases in F16 or BF16 are widened exactly: the same logits. Biases count. */
static void test_vectors_are_widened(void **state)
{
    static const struct edit with_bias[] = {{ADD_VECTOR, "blk.0.attn_q.bias", 64}, {ADD_VECTOR, "blk.1.attn_q.bias", 64}};
    static float plain[6 * VOCAB], other[6 * VOCAB];

    (void)state;
    run_edited(NULL, 0, plain);
    run_edited((struct edit[]){{SET_TYPE, "blk.0.attn_norm.weight", M40_DTYPE_F16}, {SET_TYPE, "output_norm.weight", M40_DTYPE_BF16}}, 2, other);
    assert_memory_equal(plain, other, sizeof plain);
    run_edited(with_bias, 2, other);
    assert_memory_not_equal(plain, other, sizeof plain);
}

static void test_unused_tensors_are_logged(void **state)
{
    const struct edit extra[] = {{ADD_VECTOR, "vision.norm", 3}, {ADD_VECTOR, "blk.0.attn_rot_embd", 8}, {ADD_VECTOR, "blk.7.extra.weight", 8}};
    struct m40_gguf *gguf = tiny_model_open(extra, 3);
    struct log_text log = {0};
    struct m40_backend *be = open_backend(&log);
    struct m40_model *model;

    (void)state;
    OK(m40_model_open(&model, gguf, be, NULL, NULL, &err));
    assert_non_null(strstr(log.text, "2 tensor vision.norm is not used\n"));
    assert_non_null(strstr(log.text, "3 tensor blk.0.attn_rot_embd is not used\n"));
    assert_non_null(strstr(log.text, "2 tensor blk.7.extra.weight is not used\n"));
    m40_model_close(&model);
    m40_backend_close(&be);
    m40_gguf_close(&gguf);
}

struct progress {
    uint64_t done, total, stop_at;
    unsigned n_calls;
};

static int watch(void *user, uint64_t done, uint64_t total)
{
    struct progress *p = user;

    assert_true(done > p->done && done <= total);
    p->done = done;
    p->total = total;
    p->n_calls++;
    return p->stop_at && done >= p->stop_at;
}

static void test_progress_and_cancel(void **state)
{
    struct m40_gguf *gguf = tiny_model_open(NULL, 0);
    struct m40_backend *be = open_backend(NULL);
    struct progress p = {0}, stopped = {.stop_at = 20000};
    struct m40_model *model;
    m40llm_error error;

    (void)state;
    OK(m40_model_open(&model, gguf, be, watch, &p, &err));
    assert_true(p.done == p.total && p.total == model->weight_bytes && p.n_calls == 3 + 9 * LAYERS);
    m40_model_close(&model);
    assert_int_equal(m40_model_open(&model, gguf, be, watch, &stopped, &error), M40LLM_CANCELLED);
    assert_null(model);
    assert_true(stopped.done < stopped.total);
    m40_backend_close(&be);
    m40_gguf_close(&gguf);
}

static bool fail_nth(void *user)
{
    uint64_t *left = user;

    return (*left)-- == 0;
}

/* Each allocation of opening a backend, a model and a forward pass fails in turn: an error, no leak, and none while a step runs. */
static void test_every_allocation_may_fail(void **state)
{
    struct m40_gguf *gguf = tiny_model_open(NULL, 0);
    static float logits[6 * VOCAB];
    m40llm_status status = M40LLM_NO_MEMORY;
    uint64_t n;

    (void)state;
    for (n = 0; status != M40LLM_OK; n++) {
        struct m40_backend *be = open_backend(NULL);
        m40llm_error err = {0};
        uint64_t left = n;

        m40_mem_set_failure_hook(fail_nth, &left);
        status = run_once(gguf, be, &good_batch, logits, &err);
        m40_mem_set_failure_hook(NULL, NULL);
        if (status != M40LLM_OK) {
            assert_true(status == M40LLM_NO_MEMORY || status == M40LLM_OUT_OF_DEVICE_MEMORY);
            assert_true(err.code == status && err.text[0]);
        }
        m40_backend_close(&be);
        assert_true(n < 1000);
    }
    assert_true(n > 10);
    m40_gguf_close(&gguf);
}

static bool count(void *user)
{
    ++*(uint64_t *)user;
    return false;
}

static void test_steps_do_not_allocate(void **state)
{
    struct m40_gguf *gguf = tiny_model_open(NULL, 0);
    struct m40_backend *be = open_backend(NULL);
    struct m40_model *model;
    struct m40_forward *forward;
    static float logits[6 * VOCAB], again[6 * VOCAB];
    uint64_t n_allocations = 0;

    (void)state;
    OK(m40_model_open(&model, gguf, be, NULL, NULL, &err));
    OK(m40_forward_open(&forward, model, &limits, &err));
    m40_mem_set_failure_hook(count, &n_allocations);
    OK(m40_forward_step(forward, &good_batch, logits, &err));
    OK(m40_forward_step(forward, &good_batch, again, &err));
    m40_mem_set_failure_hook(NULL, NULL);
    assert_int_equal(n_allocations, 0);
    assert_memory_equal(logits, again, sizeof logits);
    m40_forward_close(&forward);
    m40_model_close(&model);
    m40_backend_close(&be);
    m40_gguf_close(&gguf);
}

/* ---- memory ---- */

/* A card that is too small, played by the CPU. */
static void small_card(const struct m40_backend *be, m40llm_device_info *out)
{
    (void)be;
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "Small Card");
    out->memory_total_bytes = 1 << 20;
    out->memory_free_bytes = 100000;
}

static void test_memory_is_checked_first(void **state)
{
    struct m40_forward_limits large = limits;
    struct m40_gguf *gguf = tiny_model_open(NULL, 0);
    struct m40_backend *be = open_backend(NULL);
    struct m40_model *model;
    struct m40_forward *forward;
    struct progress p = {0};
    m40llm_error error;
    uint64_t n_bytes;
    char expected[128];

    (void)state;
    OK(m40_model_device_bytes(gguf, &n_bytes, &err));
    assert_true(n_bytes > 100000);
    OK(m40_model_open(&model, gguf, be, NULL, NULL, &err));
    be->ops.get_info = small_card;
    large.n_pages = 100000;
    assert_int_equal(m40_forward_open(&forward, model, &large, &error), M40LLM_OUT_OF_DEVICE_MEMORY);
    assert_null(forward);
    assert_non_null(strstr(error.text, "a KV cache of 3200000 tokens needs 1.53 GiB"));
    assert_non_null(strstr(error.text, "tokens would fit"));
    m40_model_close(&model);
    be->is_cuda = true;
    assert_int_equal(m40_model_open(&model, gguf, be, watch, &p, &error), M40LLM_OUT_OF_DEVICE_MEMORY);
    snprintf(expected, sizeof expected, "the weights need %.0f MiB, but Small Card has 0 MiB free", (double)n_bytes / (1 << 20));
    assert_non_null(strstr(error.text, expected));
    assert_int_equal(p.n_calls, 0);
    m40_backend_close(&be);
    m40_gguf_close(&gguf);
}

static void test_memory_estimate(void **state)
{
    struct m40_model_config c = read_config(NULL, 0);
    struct m40_forward_limits absurd = {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, M40LLM_KV_F32};
    uint64_t kv, other;

    (void)state;
    m40_forward_memory(&c, &limits, &kv, &other);
    assert_int_equal(kv, 5 * 32 * (uint64_t)LAYERS * 2 * KV_HEADS * HEAD * 4);
    assert_true(other > 8 * 4 * (2 * EMBD + VOCAB) && other < 1 << 30);
    c.n_layers = 1024, c.n_kv_heads = 4096, c.head_dim = 256;
    m40_forward_memory(&c, &absurd, &kv, &other);
    assert_true(kv == UINT64_MAX && other == UINT64_MAX);
}

/* ---- batches from a careless caller ---- */

static void test_bad_batches(void **state)
{
#define ROW(...)                                                                                                                                     \
    (const int32_t[])                                                                                                                                \
    {                                                                                                                                                \
        __VA_ARGS__                                                                                                                                  \
    }
    struct m40_gguf *gguf = tiny_model_open(NULL, 0);
    struct m40_backend *be = open_backend(NULL);
    static float logits[6 * VOCAB];
    const struct {
        struct m40_batch batch;
        const char *text;
    } table[] = {
        {{0, ids, pos, slots, 0, NULL, pages}, "a batch of 0 tokens, expected 1 to 8"},
        {{9, ids, pos, slots, 0, NULL, pages}, "a batch of 9 tokens, expected 1 to 8"},
        {{1, ROW(-1), pos, slots, 0, NULL, pages}, "token id -1 at row 0 is outside the vocabulary of 40"},
        {{2, ROW(1, 40), pos, slots, 0, NULL, pages}, "token id 40 at row 1 is outside the vocabulary of 40"},
        {{1, ids, ROW(-1), slots, 0, NULL, pages}, "position -1 at row 0 is outside the context of 64"},
        {{1, ids, ROW(64), slots, 0, NULL, pages}, "position 64 at row 0 is outside the context of 64"},
        {{1, ids, pos, ROW(2), 0, NULL, pages}, "sequence 2 at row 0, expected 0 to 1"},
        {{2, ids, ROW(0, 2), slots, 0, NULL, pages}, "position 2 of sequence 0 follows position 0"},
        {{2, ids, ROW(3, 3), slots, 0, NULL, pages}, "position 3 of sequence 0 follows position 3"},
        {{1, ids, pos, slots, 0, NULL, ROW(5, 0, 0, 0)}, "page 5 of sequence 0, expected 0 to 4"},
        {{1, ids, ROW(32), slots, 0, NULL, ROW(0, -1, 0, 0)}, "page -1 of sequence 0, expected 0 to 4"},
        {{2, ids, pos, slots, 2, ROW(0, 2), pages}, "logits of row 2 after row 0 in a batch of 2"},
        {{2, ids, pos, slots, 2, ROW(1, 1), pages}, "logits of row 1 after row 1 in a batch of 2"},
        {{2, ids, pos, slots, 9, logit_rows, pages}, "logits of 9 rows, expected at most 8"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        m40llm_error err = {0};

        assert_int_equal(run_once(gguf, be, &table[i].batch, logits, &err), M40LLM_INVALID_ARGUMENT);
        assert_string_equal(err.text, table[i].text);
    }
    m40_backend_close(&be);
    m40_gguf_close(&gguf);
}

static void test_bad_limits(void **state)
{
    struct m40_gguf *gguf = tiny_model_open(NULL, 0);
    struct m40_backend *be = open_backend(NULL);
    struct m40_model *model;
    struct m40_forward *forward;
    const struct m40_forward_limits bad[] = {
        {0, 0, 1, 1, 1, M40LLM_KV_F16}, {8, 9, 1, 1, 1, M40LLM_KV_F16},       {8, 1, 0, 1, 1, M40LLM_KV_F16},       {8, 1, 1, 0, 1, M40LLM_KV_F16},
        {8, 1, 1, 1, 0, M40LLM_KV_F16}, {8, 1, 1, 1 << 27, 1, M40LLM_KV_F16}, {1 << 30, 1, 1, 1, 1, M40LLM_KV_F16},
    };

    (void)state;
    OK(m40_model_open(&model, gguf, be, NULL, NULL, &err));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        m40llm_error error;

        assert_int_equal(m40_forward_open(&forward, model, &bad[i], &error), M40LLM_INVALID_ARGUMENT);
        assert_null(forward);
    }
    m40_model_close(&model);
    m40_backend_close(&be);
    m40_gguf_close(&gguf);
}

/* ---- the cache ---- */

/* K and V of a token that both sequences have at the same position are equal, wherever their pages lie; another token's differ. F16 is F32 rounded. */
static void check_kv(m40llm_kv_type type, float *k_out)
{
    static const int32_t same_ids[] = {3, 9, 3, 9}, two_pos[] = {0, 1, 0, 1}, two_slots[] = {0, 0, 1, 1};
    const struct m40_batch batch = {.n_tokens = 4, .ids = same_ids, .pos = two_pos, .slot = two_slots, .pages = pages};
    struct m40_gguf *gguf = tiny_model_open(NULL, 0);
    struct m40_backend *be = open_backend(NULL);
    struct m40_forward_limits typed = limits;
    struct m40_model *model;
    struct m40_forward *forward;
    float k[4][KV_HEADS * HEAD], v[4][KV_HEADS * HEAD];
    m40llm_error error;

    typed.kv_type = type;
    OK(m40_model_open(&model, gguf, be, NULL, NULL, &err));
    OK(m40_forward_open(&forward, model, &typed, &err));
    OK(m40_forward_step(forward, &batch, NULL, &err));
    for (uint32_t i = 0; i < 4; i++)
        OK(m40_forward_read_kv(forward, 1, (uint32_t)pages[i / 2 * 2], i % 2, k[i], v[i], &err));
    assert_memory_equal(k[0], k[2], sizeof k[0]);
    assert_memory_equal(k[1], k[3], sizeof k[0]);
    assert_memory_equal(v[1], v[3], sizeof v[0]);
    assert_memory_not_equal(k[0], k[1], sizeof k[0]);
    assert_memory_not_equal(k[0], v[0], sizeof k[0]);
    assert_int_equal(m40_forward_read_kv(forward, LAYERS, 0, 0, k[0], v[0], &error), M40LLM_INVALID_ARGUMENT);
    assert_int_equal(m40_forward_read_kv(forward, 0, 5, 0, k[0], v[0], &error), M40LLM_INVALID_ARGUMENT);
    OK(m40_forward_read_kv(forward, 0, 4, 1, k_out, v[0], &err));
    m40_forward_close(&forward);
    m40_model_close(&model);
    m40_backend_close(&be);
    m40_gguf_close(&gguf);
}

static void test_kv_is_where_it_belongs(void **state)
{
    float exact[KV_HEADS * HEAD], rounded[KV_HEADS * HEAD];

    (void)state;
    check_kv(M40LLM_KV_F32, exact);
    check_kv(M40LLM_KV_F16, rounded);
    for (size_t i = 0; i < KV_HEADS * HEAD; i++)
        assert_true(rounded[i] == m40_f16_to_f32(m40_f32_to_f16(exact[i])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_models_are_refused),
        cmocka_unit_test(test_no_tensors),
        cmocka_unit_test(test_config_defaults_and_options),
        cmocka_unit_test(test_describe),
        cmocka_unit_test(test_layers_of_families),
        cmocka_unit_test(test_any_number_is_survived),
        cmocka_unit_test(test_vectors_are_widened),
        cmocka_unit_test(test_unused_tensors_are_logged),
        cmocka_unit_test(test_progress_and_cancel),
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_steps_do_not_allocate),
        cmocka_unit_test(test_bad_batches),
        cmocka_unit_test(test_bad_limits),
        cmocka_unit_test(test_kv_is_where_it_belongs),
        cmocka_unit_test(test_memory_is_checked_first),
        cmocka_unit_test(test_memory_estimate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
