#include "harness/tiny_model.h"
#include "harness/harness.h"

#include "base/half.h"
#include "gguf/gguf_write.h"

#define OK(call)                                                                                                                                     \
    do {                                                                                                                                             \
        m40llm_error err = {0};                                                                                                                      \
        if ((call) != M40LLM_OK)                                                                                                                     \
            fail_msg("%s: %s", #call, err.text);                                                                                                     \
    } while (0)

struct key {
    const char *name;
    char type; /* u, f, b, s, t (array of `number` tokens) */
    double number;
    const char *text;
};

struct tensor {
    char name[64];
    uint32_t type;
    uint64_t dims[2];
    bool is_spoilt;
};

struct file_spec {
    struct key keys[32];
    size_t n_keys;
    struct tensor tensors[64];
    size_t n_tensors;
};

static void add_tensor(struct file_spec *s, const char *name, uint64_t cols, uint64_t rows)
{
    struct tensor *t = &s->tensors[s->n_tensors++];

    assert_true(s->n_tensors <= sizeof s->tensors / sizeof *s->tensors);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->type = M40_DTYPE_F32;
    t->dims[0] = cols;
    t->dims[1] = rows;
}

static void add_layer(struct file_spec *s, int layer)
{
    static const struct {
        const char *name;
        uint64_t cols, rows;
    } table[] = {
        {"attn_norm", EMBD, 1},
        {"attn_q", EMBD, HEADS * HEAD},
        {"attn_k", EMBD, KV_HEADS * HEAD},
        {"attn_v", EMBD, KV_HEADS * HEAD},
        {"ffn_norm", EMBD, 1},
        {"attn_output", HEADS * HEAD, EMBD},
        {"ffn_gate", EMBD, FF},
        {"ffn_up", EMBD, FF},
        {"ffn_down", FF, EMBD},
    };
    char name[64];

    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        snprintf(name, sizeof name, "blk.%d.%s.weight", layer, table[i].name);
        add_tensor(s, name, table[i].cols, table[i].rows);
    }
}

static void make_spec(struct file_spec *s)
{
    static const struct key keys[] = {
        {"general.architecture", 's', 0, "llama"},
        {"general.name", 's', 0, "tiny"},
        {"llama.block_count", 'u', LAYERS, NULL},
        {"llama.context_length", 'u', CTX, NULL},
        {"llama.embedding_length", 'u', EMBD, NULL},
        {"llama.feed_forward_length", 'u', FF, NULL},
        {"llama.attention.head_count", 'u', HEADS, NULL},
        {"llama.attention.head_count_kv", 'u', KV_HEADS, NULL},
        {"llama.attention.layer_norm_rms_epsilon", 'f', 1e-5, NULL},
    };

    memset(s, 0, sizeof *s);
    memcpy(s->keys, keys, sizeof keys);
    s->n_keys = sizeof keys / sizeof *keys;
    add_tensor(s, "token_embd.weight", EMBD, VOCAB);
    for (int i = 0; i < LAYERS; i++)
        add_layer(s, i);
    add_tensor(s, "output_norm.weight", EMBD, 1);
    add_tensor(s, "output.weight", EMBD, VOCAB);
}

static struct key *find_key(struct file_spec *s, const char *name, bool make)
{
    for (size_t i = 0; i < s->n_keys; i++)
        if (!strcmp(s->keys[i].name, name))
            return &s->keys[i];
    assert_true(make && s->n_keys < sizeof s->keys / sizeof *s->keys);
    s->keys[s->n_keys].name = name;
    return &s->keys[s->n_keys++];
}

static struct tensor *find_tensor(struct file_spec *s, const char *name)
{
    for (size_t i = 0; i < s->n_tensors; i++)
        if (!strcmp(s->tensors[i].name, name))
            return &s->tensors[i];
    fail_msg("no tensor %s in the test's model", name);
    return NULL;
}

static void apply(struct file_spec *s, const struct edit *e)
{
    static const char types[] = {[SET_U32] = 'u', [SET_F32] = 'f', [SET_BOOL] = 'b', [SET_STRING] = 's', [SET_TOKENS] = 't'};

    switch (e->kind) {
    case NONE:
        break;
    case DROP_KEY:
        *find_key(s, e->name, false) = s->keys[s->n_keys - 1];
        s->n_keys--;
        break;
    case SET_U32:
    case SET_F32:
    case SET_BOOL:
    case SET_STRING:
    case SET_TOKENS:
        *find_key(s, e->name, true) = (struct key){e->name, types[e->kind], e->number, e->text};
        break;
    case DROP_TENSOR:
        *find_tensor(s, e->name) = s->tensors[s->n_tensors - 1];
        s->n_tensors--;
        break;
    case SET_TYPE:
        find_tensor(s, e->name)->type = (uint32_t)e->number;
        break;
    case SET_SHAPE:
        memcpy(find_tensor(s, e->name)->dims, e->dims, sizeof e->dims);
        break;
    case ADD_VECTOR:
        add_tensor(s, e->name, (uint64_t)e->number, 1);
        break;
    case SPOIL_VALUES:
        find_tensor(s, e->name)->is_spoilt = true;
    }
}

static void write_key(struct m40_gguf_writer *w, const struct key *k)
{
    const char *texts[64];

    for (size_t i = 0; i < 64; i++)
        texts[i] = "token";
    switch (k->type) {
    case 'u':
        OK(m40_gguf_writer_set_u32(w, k->name, (uint32_t)k->number, &err));
        break;
    case 'f':
        OK(m40_gguf_writer_set_f32(w, k->name, (float)k->number, &err));
        break;
    case 'b':
        OK(m40_gguf_writer_set_bool(w, k->name, k->number != 0, &err));
        break;
    case 's':
        OK(m40_gguf_writer_set_string(w, k->name, k->text, &err));
        break;
    default:
        OK(m40_gguf_writer_set_string_array(w, k->name, texts, (size_t)k->number, &err));
    }
}

/* Values that F32, F16 and BF16 hold alike: vectors 1 + n/64, matrices n/256. */
static void write_values(struct m40_gguf_writer *w, const struct tensor *t)
{
    uint64_t n = t->dims[0] * t->dims[1], row_bytes, seed = test_seed();
    uint8_t *data;

    for (const char *c = t->name; *c; c++)
        seed = (seed ^ (uint8_t)*c) * 0x100000001b3u;
    assert_true(m40_dtype_row_bytes(m40_dtype_info(t->type), n, &row_bytes));
    data = calloc(1, row_bytes);
    assert_non_null(data);
    for (uint64_t i = 0; i < n; i++) {
        int r = (int)(test_random(&seed) % 64) - 32;
        float value = t->is_spoilt ? 0.0f : t->dims[1] == 1 ? 1.0f + (float)r / 64 : (float)r / 256;
        uint16_t half = t->type == M40_DTYPE_F16 ? m40_f32_to_f16(value) : (uint16_t)(m40_f32_to_bits(value) >> 16);

        if (t->type == M40_DTYPE_F32)
            memcpy(data + 4 * i, &value, 4);
        else if (t->type == M40_DTYPE_F16 || t->type == M40_DTYPE_BF16)
            memcpy(data + 2 * i, &half, 2);
    }
    OK(m40_gguf_writer_data(w, data, row_bytes, &err));
    free(data);
}

char *tiny_model_path(const struct edit *edits, size_t n_edits)
{
    static unsigned n_files;
    struct m40_gguf_writer *w;
    struct file_spec s;
    char *path = malloc(320);

    make_spec(&s);
    for (size_t i = 0; i < n_edits; i++)
        apply(&s, &edits[i]);
    assert_non_null(path);
    snprintf(path, 320, "%s/model-%u.gguf", test_tmp_dir(), n_files++);
    OK(m40_gguf_writer_open(&w, path, &err));
    for (size_t i = 0; i < s.n_keys; i++)
        write_key(w, &s.keys[i]);
    for (size_t i = 0; i < s.n_tensors; i++)
        OK(m40_gguf_writer_add_tensor(w, s.tensors[i].name, s.tensors[i].type, s.tensors[i].dims[1] == 1 ? 1 : 2, s.tensors[i].dims, &err));
    for (size_t i = 0; i < s.n_tensors; i++)
        write_values(w, &s.tensors[i]);
    OK(m40_gguf_writer_finish(w, &err));
    m40_gguf_writer_close(&w);
    return path;
}

struct m40_gguf *tiny_model_open(const struct edit *edits, size_t n_edits)
{
    char *path = tiny_model_path(edits, n_edits);
    struct m40_gguf *gguf;

    OK(m40_gguf_open(&gguf, path, &err));
    free(path);
    return gguf;
}
