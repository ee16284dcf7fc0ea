/* m40llm.h - run GGUF language models on a Tesla M40 (or a CPU) from C.
 *
 * The order of use:
 *
 *     m40llm_file_open      a GGUF file: metadata, tensors, no device needed
 *     m40llm_device_open    the CPU, or a CUDA card
 *     m40llm_model_open     the file's weights on the device
 *     m40llm_engine_open    a KV cache and the forward pass over it
 *     m40llm_tokenizer_open text to ids and back
 *     m40llm_submit         one request; its events are read (m40llm_read), or arrive through a callback
 *     m40llm_wait           for its end
 *
 * and *_close in the reverse order. An object refers to the ones it was opened from: close it before them.
 *
 * Conventions, unless a function says otherwise:
 *  - Fallible functions return a status and fill *err (which may be NULL) with the reason: one line, no newline at its end.
 *  - On failure no object is created: *out is NULL and there is nothing to close.
 *  - *_close takes the address of the pointer, accepts NULL and a pointer to NULL, and sets the pointer to NULL.
 *  - Strings are UTF-8 and NUL-terminated where no length stands beside them. Pointers returned into an object live as
 *    long as the object.
 *  - Structs that may grow start with struct_size; set it with the *_INIT macro, which also sets the defaults. That holds for those that a function fills, too: fields are only ever added at the end, and
 *    what the library and the caller's header both know is filled; the rest stays as it was, and struct_size as the caller set it. With a struct_size that is none a function fails with
 *    INVALID_ARGUMENT, or fills nothing. Structs that a callback is shown are the library's: one built with a later header looks at struct_size before it reads what it added.
 *  - One object belongs to one thread at a time; different objects may be used by different threads. Exceptions say so: an engine is for all threads.
 *  - The library does not print, exit or read environment variables.
 */
#ifndef M40LLM_H
#define M40LLM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define M40LLM_API __attribute__((visibility("default")))
#else
#define M40LLM_API
#endif

#define M40LLM_VERSION "0.1.0"

/* The version of the library that is linked, e.g. "0.1.0". */
M40LLM_API const char *m40llm_version(void);

/* ---- status ------------------------------------------------------------------------------------------------------ */

/* number, name, text. Numbers are never reused; gaps are left per area. */
#define M40LLM_STATUS_MAP(X)                                                                                           \
    X(0, OK, "ok")                                                                                                     \
    X(1, INVALID_ARGUMENT, "invalid argument")                                                                         \
    X(2, NO_MEMORY, "out of host memory")                                                                              \
    X(3, IO, "input/output error")                                                                                     \
    X(4, CANCELLED, "cancelled")                                                                                       \
    X(5, UNSUPPORTED, "not supported")                                                                                 \
    X(6, BUFFER_TOO_SMALL, "buffer too small")                                                                         \
    X(7, NOT_FOUND, "not found")                                                                                       \
    X(20, BAD_FILE, "malformed file")                                                                                  \
    X(21, BAD_MODEL, "not a usable model")                                                                             \
    X(22, NO_TOKENIZER, "no usable tokenizer")                                                                         \
    X(23, TEMPLATE, "chat template failed")                                                                            \
    X(40, NO_DEVICE, "no such device")                                                                                 \
    X(41, DRIVER, "driver error")                                                                                      \
    X(42, DRIVER_TOO_OLD, "driver too old")                                                                            \
    X(43, OUT_OF_DEVICE_MEMORY, "out of device memory")                                                                \
    X(44, NO_CUBLAS, "no usable cuBLAS")                                                                               \
    X(60, CONTEXT_FULL, "context is full")                                                                             \
    X(61, QUEUE_FULL, "no room for another request")                                                                   \
    X(62, TIMED_OUT, "timed out")

typedef enum m40llm_status {
#define M40LLM_STATUS_ENUM(number, name, text) M40LLM_##name = number,
    M40LLM_STATUS_MAP(M40LLM_STATUS_ENUM)
#undef M40LLM_STATUS_ENUM
} m40llm_status;

typedef struct m40llm_error {
    m40llm_status code;
    char text[256]; /* one line, names the thing at fault */
} m40llm_error;

/* The text of a status, e.g. "malformed file"; "unknown status" for any other number. */
M40LLM_API const char *m40llm_status_text(m40llm_status status);

/* ---- logging ----------------------------------------------------------------------------------------------------- */

typedef enum m40llm_log_level {
    M40LLM_LOG_ERROR,
    M40LLM_LOG_WARN,
    M40LLM_LOG_INFO,
    M40LLM_LOG_DEBUG,
    M40LLM_LOG_TRACE,
} m40llm_log_level;

/* Where the log goes: write() gets one line without newline, on the calling thread; NULL: nowhere. Lines above `level` are not made. */
typedef struct m40llm_logger {
    void (*write)(void *user, m40llm_log_level level, const char *line);
    void *user;
    m40llm_log_level level;
} m40llm_logger;

/* Progress of a long call: `done` of `total` units (bytes or tokens). Return non-zero to cancel: the call then ends with CANCELLED. */
typedef int (*m40llm_progress_fn)(void *user, uint64_t done, uint64_t total);

/* ---- files ------------------------------------------------------------------------------------------------------- */

typedef struct m40llm_file m40llm_file;

typedef enum m40llm_value_type { /* GGUF's numbers */
    M40LLM_VALUE_U8,
    M40LLM_VALUE_I8,
    M40LLM_VALUE_U16,
    M40LLM_VALUE_I16,
    M40LLM_VALUE_U32,
    M40LLM_VALUE_I32,
    M40LLM_VALUE_F32,
    M40LLM_VALUE_BOOL,
    M40LLM_VALUE_STRING,
    M40LLM_VALUE_ARRAY,
    M40LLM_VALUE_U64,
    M40LLM_VALUE_I64,
    M40LLM_VALUE_F64,
} m40llm_value_type;

typedef struct m40llm_metadata {
    size_t struct_size;
    const char *key;
    m40llm_value_type type;
    m40llm_value_type element_type; /* of an array; otherwise equal to type */
    uint64_t n_elements;            /* of an array; otherwise 1 */
} m40llm_metadata;
#define M40LLM_METADATA_INIT {.struct_size = sizeof(m40llm_metadata)}

typedef struct m40llm_tensor_info {
    size_t struct_size;
    const char *name;
    const char *type_name; /* "f16", "q4_k", ... */
    uint32_t type;         /* ggml's number */
    uint32_t n_dims;
    uint64_t dims[4]; /* fastest first, as GGUF writes them; 1 beyond n_dims */
    uint64_t n_elements;
    uint64_t size_bytes;
    int is_readable; /* 0: a known type that this version cannot dequantise */
} m40llm_tensor_info;
#define M40LLM_TENSOR_INFO_INIT {.struct_size = sizeof(m40llm_tensor_info)}

/* Maps a GGUF file (v2 or v3, little-endian). A name ending in -00001-of-0000N.gguf opens all N parts as one.
 * Nothing in the file is trusted: every count, length and offset is checked before use.
 * IO: cannot be opened or mapped. BAD_FILE: what is wrong and where. */
M40LLM_API m40llm_status m40llm_file_open(m40llm_file **out, const char *path, m40llm_error *err);
M40LLM_API void m40llm_file_close(m40llm_file **file);

/* GGUF version, total bytes on disk, number of parts. */
M40LLM_API uint32_t m40llm_file_version(const m40llm_file *file);
M40LLM_API uint64_t m40llm_file_size_bytes(const m40llm_file *file);
M40LLM_API uint32_t m40llm_file_n_parts(const m40llm_file *file);

M40LLM_API size_t m40llm_file_n_metadata(const m40llm_file *file);
/* i < n_metadata, in file order. NOT_FOUND; INVALID_ARGUMENT: out->struct_size. */
M40LLM_API m40llm_status m40llm_file_metadata(const m40llm_file *file, size_t i, m40llm_metadata *out);
/* Writes entry i as text: a number, a string as it is, an array as [a, b, ...] cut after max_elements. Always NUL-terminates
 * when capacity > 0; returns the bytes the whole text needs, without the NUL (as snprintf does). */
M40LLM_API size_t m40llm_file_metadata_text(const m40llm_file *file, size_t i, size_t max_elements, char *buffer, size_t capacity);
/* Typed look-ups by key. NOT_FOUND: no such key; INVALID_ARGUMENT: it is of another kind. Integers of every width convert. */
M40LLM_API m40llm_status m40llm_file_get_u64(const m40llm_file *file, const char *key, uint64_t *out);
M40LLM_API m40llm_status m40llm_file_get_f64(const m40llm_file *file, const char *key, double *out);
/* The string is not NUL-terminated; it may hold any bytes. */
M40LLM_API m40llm_status m40llm_file_get_string(const m40llm_file *file, const char *key, const char **out, size_t *out_bytes);

M40LLM_API size_t m40llm_file_n_tensors(const m40llm_file *file);
M40LLM_API m40llm_status m40llm_file_tensor(const m40llm_file *file, size_t i, m40llm_tensor_info *out);
M40LLM_API m40llm_status m40llm_file_find_tensor(const m40llm_file *file, const char *name, size_t *out_index);
/* Rows [first_row, first_row + n_rows) of tensor i as float32: n_rows * dims[0] values. A row is dims[0] elements; a tensor has
 * n_elements / dims[0] of them. UNSUPPORTED: the type cannot be dequantised. */
M40LLM_API m40llm_status m40llm_file_dequantize(const m40llm_file *file, size_t i, uint64_t first_row, uint64_t n_rows, float *out,
                                                m40llm_error *err);

/* ---- writing files ----------------------------------------------------------------------------------------------- */

typedef struct m40llm_writer m40llm_writer;

/* Writes a GGUF v3 file: open, then all metadata, then all tensors, then their data in the same order, then finish.
 * Close without finish removes the file. */
M40LLM_API m40llm_status m40llm_writer_open(m40llm_writer **out, const char *path, m40llm_error *err);
M40LLM_API m40llm_status m40llm_writer_set_u32(m40llm_writer *w, const char *key, uint32_t value, m40llm_error *err);
M40LLM_API m40llm_status m40llm_writer_set_i32(m40llm_writer *w, const char *key, int32_t value, m40llm_error *err);
M40LLM_API m40llm_status m40llm_writer_set_u64(m40llm_writer *w, const char *key, uint64_t value, m40llm_error *err);
M40LLM_API m40llm_status m40llm_writer_set_f32(m40llm_writer *w, const char *key, float value, m40llm_error *err);
M40LLM_API m40llm_status m40llm_writer_set_bool(m40llm_writer *w, const char *key, int value, m40llm_error *err);
M40LLM_API m40llm_status m40llm_writer_set_string(m40llm_writer *w, const char *key, const char *value, m40llm_error *err);
M40LLM_API m40llm_status m40llm_writer_set_i32_array(m40llm_writer *w, const char *key, const int32_t *values, size_t n, m40llm_error *err);
M40LLM_API m40llm_status m40llm_writer_set_f32_array(m40llm_writer *w, const char *key, const float *values, size_t n, m40llm_error *err);
M40LLM_API m40llm_status m40llm_writer_set_string_array(m40llm_writer *w, const char *key, const char *const *values, size_t n,
                                                        m40llm_error *err);
/* type: ggml's number. dims: fastest first. The tensor's size follows from both. */
M40LLM_API m40llm_status m40llm_writer_add_tensor(m40llm_writer *w, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dims,
                                                  m40llm_error *err);
/* The next size_bytes of tensor data, in the order the tensors were added; padding between tensors is made here. A piece may not
 * cross a tensor's end. */
M40LLM_API m40llm_status m40llm_writer_data(m40llm_writer *w, const void *data, size_t size_bytes, m40llm_error *err);
/* Checks that all data has come, and flushes. */
M40LLM_API m40llm_status m40llm_writer_finish(m40llm_writer *w, m40llm_error *err);
M40LLM_API void m40llm_writer_close(m40llm_writer **w);

/* Writes a deterministic random model. shape: "tiny", "1b" (Llama-3.2-1B's dimensions), "8b" (Llama-3-8B's), "14b" (Qwen2.5-14B's), and the mixtures "tiny-moe",
 * "qwen3-30b-a3b" and "gpt-oss-20b"; NAME/LAYERS has fewer layers. m40llm_synth_shapes() lists them, separated by spaces. type: the matrices' type, e.g. "q4_k". The same arguments give the same bytes
 * on any machine. Weights are random blocks with scales that keep activations finite, not quantised floats. */
M40LLM_API m40llm_status m40llm_synth_write(const char *shape, const char *type, const char *path, m40llm_progress_fn progress, void *user,
                                            m40llm_error *err);
M40LLM_API const char *m40llm_synth_shapes(void);

/* ---- tokenizer --------------------------------------------------------------------------------------------------- */

typedef struct m40llm_tokenizer m40llm_tokenizer;

enum {
    M40LLM_TOKENIZE_ADD_BOS = 1,   /* add BOS (and EOS) where the model's metadata asks for it */
    M40LLM_TOKENIZE_SPECIAL = 2,   /* text of control tokens becomes those tokens; otherwise it is ordinary text */
    M40LLM_DETOKENIZE_SPECIAL = 4, /* control tokens are written out; otherwise they give no text */
};

/* From a file's tokenizer metadata; needs no weights. NO_TOKENIZER: there is none, or its kind is unknown (the text names it). The file may be closed
 * afterwards. */
M40LLM_API m40llm_status m40llm_tokenizer_open(m40llm_tokenizer **out, const m40llm_file *file, m40llm_error *err);
M40LLM_API void m40llm_tokenizer_close(m40llm_tokenizer **tokenizer);

M40LLM_API size_t m40llm_tokenizer_n_vocab(const m40llm_tokenizer *tokenizer);
/* -1: the model has none. */
M40LLM_API int32_t m40llm_tokenizer_bos(const m40llm_tokenizer *tokenizer);
M40LLM_API int32_t m40llm_tokenizer_eos(const m40llm_tokenizer *tokenizer);
/* Whether the token ends an answer (EOS, EOT, EOM and their likes). */
M40LLM_API int m40llm_tokenizer_is_end(const m40llm_tokenizer *tokenizer, int32_t id);

/* Ids of `text` (any bytes; invalid UTF-8 is taken byte for byte). Writes at most `capacity` ids; *n_out is the number there are.
 * BUFFER_TOO_SMALL: *n_out > capacity, nothing else is wrong. n_bytes + 8 ids suffice for every vocabulary in use. Thread-safe. */
M40LLM_API m40llm_status m40llm_tokenize(const m40llm_tokenizer *tokenizer, const char *text, size_t n_bytes, unsigned flags, int32_t *ids,
                                         size_t capacity, size_t *n_out, m40llm_error *err);
/* Text of `ids`, not NUL-terminated. INVALID_ARGUMENT: an id outside the vocabulary. BUFFER_TOO_SMALL as above. Thread-safe. */
M40LLM_API m40llm_status m40llm_detokenize(const m40llm_tokenizer *tokenizer, const int32_t *ids, size_t n_ids, unsigned flags, char *text,
                                           size_t capacity, size_t *n_bytes_out, m40llm_error *err);

/* Detokenising piece by piece: text that ends inside a UTF-8 sequence is held back until the rest has come. Bytes that can no longer become UTF-8 are
 * given out as U+FFFD. A stream that shows an answer is pushed the prompt's ids first, and their text left aside: whether a SentencePiece text begins with a space depends on what came
 * before. */
typedef struct m40llm_stream m40llm_stream;
M40LLM_API m40llm_status m40llm_stream_open(m40llm_stream **out, const m40llm_tokenizer *tokenizer, unsigned flags, m40llm_error *err);
/* The text that id adds: *text is valid until the next call, NUL-terminated, *n_bytes long (may be 0). */
M40LLM_API m40llm_status m40llm_stream_push(m40llm_stream *stream, int32_t id, const char **text, size_t *n_bytes, m40llm_error *err);
/* What is still held back, as U+FFFD. */
M40LLM_API m40llm_status m40llm_stream_flush(m40llm_stream *stream, const char **text, size_t *n_bytes, m40llm_error *err);
M40LLM_API void m40llm_stream_close(m40llm_stream **stream);

/* ---- chat templates ---------------------------------------------------------------------------------------------- */

/* How a model wants a conversation written: the Jinja2 template that it brings, or any other. The language is run as the usual
 * Python tooling runs it: immutable sandbox, trim_blocks, lstrip_blocks, break and continue, generation blocks, tojson without
 * escaping HTML, raise_exception, strftime_now. include, import and extends are refused. A template sees its context and nothing
 * else; time, steps, recursion, memory and output are bounded. Several threads may render a compiled template at once. */
typedef struct m40llm_template m40llm_template;

/* From text. TEMPLATE: err says "line N: " and what is wrong there. */
M40LLM_API m40llm_status m40llm_template_compile(m40llm_template **out, const char *text, size_t n_bytes, m40llm_error *err);
/* A model's own. name: NULL for the usual one, else one of those it has beside it ("tool_use", ...). Renderings find bos_token,
 * eos_token, unk_token, sep_token, pad_token, cls_token and mask_token, as far as the model has them, as UTF-8, and the context does
 * not name them. NOT_FOUND: the model has no such template. The file may be closed afterwards. */
M40LLM_API m40llm_status m40llm_template_open(m40llm_template **out, const m40llm_file *file, const char *name, m40llm_error *err);
M40LLM_API void m40llm_template_close(m40llm_template **t);

typedef struct m40llm_template_options {
    size_t struct_size;
    const char *now;           /* what strftime_now shows: "2026-01-15" or "2026-01-15T12:00:00"; NULL: the local time */
    uint64_t n_max_steps;      /* 0, here and below: the default; 50 million */
    uint64_t max_time_ms;      /* 10 s */
    uint64_t max_output_bytes; /* 64 MiB */
    uint64_t max_memory_bytes; /* of the template's values: 256 MiB */
} m40llm_template_options;
#define M40LLM_TEMPLATE_OPTIONS_INIT {.struct_size = sizeof(m40llm_template_options)}

/* Renders with the variables of a JSON object: messages, tools, add_generation_prompt and whatever else the template reads. On OK
 * *text is the rendering, NUL-terminated, *out_bytes long, to be freed with m40llm_free; on failure it is NULL. TEMPLATE: what the
 * template ran into, or what it raised itself, after "line N: ". INVALID_ARGUMENT: the context is no JSON object, has more
 * than 16 MiB, a million values (2^20), or values nested more than 200 deep; or `now` is no time. Compiling and rendering take up to 512 KiB of stack. */
M40LLM_API m40llm_status m40llm_template_render(const m40llm_template *t, const char *context_json, size_t n_bytes,
                                                const m40llm_template_options *options, char **text, size_t *out_bytes, m40llm_error *err);

/* Frees what a function of this header says to free with it; NULL is fine. */
M40LLM_API void m40llm_free(void *block);

/* ---- devices ----------------------------------------------------------------------------------------------------- */

typedef struct m40llm_device m40llm_device;

typedef enum m40llm_cpu_level { M40LLM_CPU_AUTO, M40LLM_CPU_SCALAR, M40LLM_CPU_AVX2, M40LLM_CPU_AVX512 } m40llm_cpu_level;

typedef struct m40llm_device_options {
    size_t struct_size;
    const char *spec;           /* "auto" (also NULL), "cpu", "cuda" (the best card), "cuda:N" */
    const char *cuda_library;   /* the driver to open; NULL: libcuda.so.1 */
    int require_sm52;           /* refuse every card that is not of compute capability 5.2 */
    int n_threads;              /* of the CPU backend; 0: one a core */
    m40llm_cpu_level cpu_level; /* highest instruction set that the CPU backend may use */
    m40llm_logger logger;
    int no_graphs; /* CUDA: issue every kernel of every step by itself; for measuring and debugging */
    /* CUDA: matmuls of many tokens by cuBLAS, opened at run time. What it computes is not bit-equal to anything else, and depends on the batch; the log says so, as a warning. */
    int use_cublas;
    const char *cublas_library; /* the cuBLAS to open; NULL: libcublas.so.12, .11 or .13 */
} m40llm_device_options;
#define M40LLM_DEVICE_OPTIONS_INIT {.struct_size = sizeof(m40llm_device_options)}

typedef struct m40llm_device_info {
    size_t struct_size;
    char spec[16]; /* "cpu", "cuda:0": what names it in m40llm_device_options */
    char name[96]; /* "Tesla M40 24GB", "AMD EPYC ..." */
    int cc_major, cc_minor;
    uint64_t memory_total_bytes, memory_free_bytes; /* 0: not known */
    char driver[32];                                /* "12.4"; empty for the CPU */
    char code[48];                                  /* "SASS sm_52", "PTX compute_52, cuBLAS 12.4.5", "AVX2", "scalar"; empty until opened */
    char why[128];                                  /* why this device was or would be chosen, or why it cannot be */
    char pci[16];                                   /* "0000:3b:00.0": where the card sits; empty: the CPU, or not known */
} m40llm_device_info;
#define M40LLM_DEVICE_INFO_INIT {.struct_size = sizeof(m40llm_device_info)}

/* All devices, best first for "auto"; at most `capacity` are written, *n_out counts all (the CPU is always one, and last). out[0].struct_size is that of all.
 * *cuda_reason (256 bytes, may be NULL) says why there is no CUDA device, or is empty. */
M40LLM_API m40llm_status m40llm_device_list(const m40llm_device_options *options, m40llm_device_info *out, size_t capacity, size_t *n_out,
                                            char *cuda_reason, m40llm_error *err);
/* Opens the device that options->spec names. "auto" takes the best CUDA card and falls to the CPU with a warning in the log. NO_DEVICE, DRIVER,
 * DRIVER_TOO_OLD; NO_CUBLAS: use_cublas was set, and there is none for the card ("auto" then fails, too). */
M40LLM_API m40llm_status m40llm_device_open(m40llm_device **out, const m40llm_device_options *options, m40llm_error *err);
M40LLM_API void m40llm_device_get_info(const m40llm_device *device, m40llm_device_info *out);
/* Measures how fast the device reads its own memory (bytes a second, best of several runs over a buffer larger than its caches). Takes about a second. */
M40LLM_API m40llm_status m40llm_device_measure_bandwidth(m40llm_device *device, double *out_bytes_per_s, m40llm_error *err);
M40LLM_API void m40llm_device_close(m40llm_device **device);

/* ---- models ------------------------------------------------------------------------------------------------------ */

typedef struct m40llm_model m40llm_model;

typedef enum m40llm_kv_type { M40LLM_KV_F16, M40LLM_KV_F32 } m40llm_kv_type;

/* How one vector is made of a text's hidden states. */
typedef enum m40llm_pooling {
    M40LLM_POOLING_NONE, /* a model's: its file names none */
    M40LLM_POOLING_MEAN, /* of all tokens', added in their order */
    M40LLM_POOLING_LAST, /* the last token's */
} m40llm_pooling;

typedef struct m40llm_model_info {
    size_t struct_size;
    char architecture[32];
    char name[96];
    uint32_t n_layers, n_heads, n_kv_heads, head_dim, n_embd, n_ff, n_vocab;
    uint32_t n_ctx_train; /* the context length that the file names */
    uint64_t n_parameters;
    uint64_t weight_bytes;           /* of all tensors the model uses, as stored in the file */
    uint64_t weight_bytes_per_token; /* of those, what decoding one token reads */
    uint64_t kv_bytes_per_token;     /* of KV cache, for the kv_type asked */
    uint64_t n_active_parameters;    /* of n_parameters, those that one token uses: of a mixture's experts the chosen ones */
    uint64_t expert_bytes;           /* of weight_bytes, that of experts */
    uint32_t window;                 /* tokens that layers with a window see; 0: no layer has one */
    uint64_t window_kv_bytes_per_token; /* of kv_bytes_per_token, that of layers with a window */
    m40llm_pooling pooling;          /* that the file names for embeddings */
} m40llm_model_info;
#define M40LLM_MODEL_INFO_INIT {.struct_size = sizeof(m40llm_model_info)}

/* Reads and validates a file's hyper-parameters and tensor list without loading anything. BAD_MODEL or UNSUPPORTED say what is wrong. */
M40LLM_API m40llm_status m40llm_file_model_info(const m40llm_file *file, m40llm_kv_type kv_type, m40llm_model_info *out, m40llm_error *err);
/* Device memory that the model takes with a context of n_ctx tokens: weights, KV cache, and everything else. */
M40LLM_API m40llm_status m40llm_file_memory_needed(const m40llm_file *file, uint32_t n_ctx, m40llm_kv_type kv_type, uint32_t n_chunk,
                                                   uint64_t *weight_bytes, uint64_t *kv_bytes, uint64_t *other_bytes, m40llm_error *err);

typedef struct m40llm_model_options {
    size_t struct_size;
    m40llm_progress_fn progress; /* in bytes; may be NULL */
    void *user;
} m40llm_model_options;
#define M40LLM_MODEL_OPTIONS_INIT {.struct_size = sizeof(m40llm_model_options)}

/* Loads the file's weights onto the device. The file and the device must outlive the model. OUT_OF_DEVICE_MEMORY says how much was needed and what there is. */
M40LLM_API m40llm_status m40llm_model_open(m40llm_model **out, const m40llm_file *file, m40llm_device *device,
                                           const m40llm_model_options *options, m40llm_error *err);
M40LLM_API void m40llm_model_get_info(const m40llm_model *model, m40llm_model_info *out);
M40LLM_API void m40llm_model_close(m40llm_model **model);

/* ---- engine ------------------------------------------------------------------------------------------------------ */

typedef struct m40llm_engine m40llm_engine;

/* How a prompt is read while answers are generated. */
typedef enum m40llm_prefill {
    M40LLM_PREFILL_MIXED,  /* in the answers' own steps, a few rows in each (step_growth) */
    M40LLM_PREFILL_STREAM, /* n_chunk rows at once on a stream of their own, which gives way to that of the answers; CUDA only. Takes memory for another step */
} m40llm_prefill;

typedef struct m40llm_engine_options {
    size_t struct_size;
    uint32_t n_ctx;       /* tokens of context a request may use; 0: the least of the model's, what fits, and 8192 */
    uint32_t n_chunk;     /* most prompt tokens in one step; 0: 512 */
    uint32_t n_sequences; /* most answers that are computed at once; 0: 1 */
    m40llm_kv_type kv_type;
    const m40llm_tokenizer *tokenizer; /* makes text of tokens and knows which of them end an answer; must outlive the engine. NULL: no text, no end tokens */
    uint32_t n_requests;  /* most requests that there are at once: waiting, running, or ended and not yet forgotten; 0: 1024 */
    uint64_t kv_bytes;    /* of device memory for the KV cache, at least one context; 0: n_sequences contexts, as far as memory goes (of the CPU's half is left alone) */
    float step_growth;    /* by what factor prompts may lengthen the steps of answers that are being generated, above 1; 0: 2 */
    int no_prefix_cache;  /* pages of earlier prompts and answers are not looked for */
    m40llm_prefill prefill;
    /* About how long a step with prompts alone may take, by fewer of their tokens at once: nothing is cancelled or begun during a step. 0: as long as n_chunk tokens take. Prompts on a stream of their own
     * always go on by n_chunk. */
    uint32_t longest_step_ms;
} m40llm_engine_options;
#define M40LLM_ENGINE_OPTIONS_INIT {.struct_size = sizeof(m40llm_engine_options)}

typedef struct m40llm_engine_info {
    size_t struct_size;
    uint32_t n_ctx, n_chunk, n_sequences;
    char n_ctx_why[96]; /* what set n_ctx: "asked for", "the model's", "the default", "what fits in memory" */
    uint64_t weight_bytes, kv_bytes, other_bytes; /* device memory taken */
    uint32_t n_requests, n_pages;                 /* pages of 32 tokens in the KV cache */
} m40llm_engine_info;
#define M40LLM_ENGINE_INFO_INIT {.struct_size = sizeof(m40llm_engine_info)}

/* Starts the engine's thread, which owns the model and its device from now on. Until the engine is closed or stands still (m40llm_engine_pause), nothing else may use them. All functions below may be
 * called by any thread, several at once, from the return of open until close begins; docs/engine.md is how it works. */
M40LLM_API m40llm_status m40llm_engine_open(m40llm_engine **out, m40llm_model *model, const m40llm_engine_options *options, m40llm_error *err);
M40LLM_API void m40llm_engine_get_info(const m40llm_engine *engine, m40llm_engine_info *out);
/* Cancels what is under way (every request gets its last event), and forgets all requests. No other function of the engine may be running, nor be called later. Not from a callback. */
M40LLM_API void m40llm_engine_close(m40llm_engine **engine);
/* Returns when the engine stands still between two steps; requests may still be submitted, and wait. The device is the caller's until m40llm_engine_resume was called as often as this. Not from a callback. */
M40LLM_API void m40llm_engine_pause(m40llm_engine *engine);
M40LLM_API void m40llm_engine_resume(m40llm_engine *engine);

typedef struct m40llm_logit_bias {
    int32_t id;
    float bias; /* added to the token's logit; -INFINITY forbids it */
} m40llm_logit_bias;

/* How the next token is chosen. The stages, in this order: logit bias; repetition penalty (over the last penalty_last_n tokens of prompt and answer: a
 * positive logit is divided by it, a negative one multiplied), frequency penalty (times the count) and presence penalty, subtracted; with temperature 0 the
 * highest logit wins (ties: the lower id); otherwise logits are divided by the temperature, candidates (those within 27 of the best: the others' probability is below e^-27 of its) are
 * ordered by (logit descending, id ascending), cut to top_k, to the fewest whose probabilities sum to top_p or more, and to those of at least min_p times the best one's probability;
 * then one is drawn. */
typedef struct m40llm_sampling {
    float temperature;       /* 0: greedy */
    uint32_t top_k;          /* 0: off */
    float top_p;             /* 1: off */
    float min_p;             /* 0: off */
    float repeat_penalty;    /* 1: off */
    float frequency_penalty; /* 0: off */
    float presence_penalty;  /* 0: off */
    uint32_t penalty_last_n;
    uint64_t seed; /* the draw for the token at position p of choice c depends on (seed, c, p) alone */
    const m40llm_logit_bias *bias;
    size_t n_bias;
    uint32_t reserved[16]; /* zero: room to grow, since the struct stands inside m40llm_request_options */
} m40llm_sampling;
#define M40LLM_SAMPLING_INIT                                                                                           \
    {.top_p = 1.0f, .repeat_penalty = 1.0f, .penalty_last_n = 64}

typedef enum m40llm_finish {
    M40LLM_FINISH_NONE,   /* still running */
    M40LLM_FINISH_STOP,   /* an end token or a stop token came, neither reported nor counted; or a stop string, whose text is not given out */
    M40LLM_FINISH_LENGTH, /* n_max_tokens reached, or the context is full */
    M40LLM_FINISH_CANCELLED,
    M40LLM_FINISH_ERROR,
} m40llm_finish;

typedef struct m40llm_result {
    size_t struct_size;
    m40llm_finish finish; /* of choice 0; ERROR where the request failed */
    uint32_t n_prompt, n_generated; /* tokens; generated by all choices together */
    uint64_t prefill_ns;    /* from the first prompt token's step to the first generated token */
    uint64_t decode_ns;     /* from there to the last token: n_generated - 1 steps of one choice */
    uint64_t queue_ns;      /* from m40llm_submit to the first prompt token's step */
    uint32_t n_cached;      /* of the prompt's tokens, those that were found in the prefix cache */
    uint32_t n_preemptions; /* how often a choice lost its pages and was computed again */
} m40llm_result;
#define M40LLM_RESULT_INIT {.struct_size = sizeof(m40llm_result)}

typedef struct m40llm_token_logprob {
    int32_t id;
    float logprob;
} m40llm_token_logprob;

typedef enum m40llm_event_type {
    M40LLM_EVENT_PREFILL, /* of choice 0: n_done of its prompt's tokens are in the KV cache */
    M40LLM_EVENT_TOKEN,   /* a token was chosen */
    M40LLM_EVENT_FINISH,  /* a choice has ended */
    M40LLM_EVENT_END,     /* all have: the request's last event. Every request gets exactly one */
    M40LLM_EVENT_EMBEDDING, /* a text's embedding; its FINISH follows */
} m40llm_event_type;

/* Something that happened to a request. What does not belong to the type is zero. */
typedef struct m40llm_event {
    size_t struct_size;
    m40llm_event_type type;
    uint32_t choice;
    uint64_t id;             /* of the request */
    uint32_t n_done;         /* PREFILL */
    int32_t token;           /* TOKEN */
    uint32_t pos;            /* TOKEN: n_prompt for the first one */
    float logprob;           /* TOKEN, with options.logprobs */
    uint32_t n_top;          /* TOKEN: the n_top_logprobs likeliest tokens, likeliest first */
    const m40llm_token_logprob *top;
    const char *text;        /* TOKEN, FINISH: the answer's text that is now certain, in whole UTF-8 characters; it may be less or more than the token's own. NUL-terminated, never NULL there */
    size_t n_text;           /* its bytes */
    m40llm_finish finish;    /* FINISH */
    const m40llm_result *result; /* END; otherwise NULL */
    const float *embedding;  /* EMBEDDING: [n_embedding], of length 1 (all zero where the hidden states are) */
    size_t n_embedding;      /* the model's n_embd */
    m40llm_status status;    /* END: OK, or why the request failed */
    const char *error;       /* END: the reason in words; NULL: none */
} m40llm_event;
#define M40LLM_EVENT_INIT {.struct_size = sizeof(m40llm_event)}

enum { M40LLM_MAX_CHOICES = 128, M40LLM_MAX_STOPS = 64, M40LLM_MAX_STOP_BYTES = 4096, M40LLM_MAX_STOP_TOKENS = 1024, M40LLM_MAX_TOP_LOGPROBS = 64 };
enum { M40LLM_MAX_PRIORITY = 100 };

typedef struct m40llm_request_options {
    size_t struct_size;
    m40llm_sampling sampling;
    uint32_t n_max_tokens; /* tokens to generate for each choice; 0: only the prompt is evaluated */
    int ignore_end;        /* go on past end tokens */
    int all_logits;        /* on_logits also for every prompt token but the last; nothing is then taken from the prefix cache */
    /* Called on the engine's thread for every event, whose pointers are valid during the call; all requests wait meanwhile. It may call m40llm_submit, m40llm_cancel and m40llm_forget.
     * NULL: events are kept for m40llm_read. */
    void (*on_event)(void *user, const m40llm_event *event);
    /* The same thread: logits after the token at position pos: n_vocab floats, valid during the call, which nothing has been applied to. After the last prompt token, after every generated token
     * but the last, and, with all_logits, after every prompt token. May be NULL; for one choice only. */
    void (*on_logits)(void *user, uint32_t pos, const float *logits, size_t n_vocab);
    void *user;
    uint32_t n_min_tokens; /* before so many tokens were generated no end token and no stop token is chosen, and stop strings are not looked for */
    uint32_t n_choices;    /* answers to the prompt, which differ by their draws; 0: one */
    int priority;          /* -100 .. 100: a greater one is served as if it had come 10 s earlier for each step */
    int no_cache;          /* take nothing from the prefix cache and leave nothing in it */
    const char *const *stops; /* [n_stops]: the answer ends before the first of these, which does not reach across a control token; UTF-8, needs a tokenizer */
    size_t n_stops;
    const int32_t *stop_tokens; /* [n_stop_tokens]: end the answer as end tokens do, with ignore_end too */
    size_t n_stop_tokens;
    int logprobs;            /* tell every token's log probability: of the model's own distribution, before bias, penalties, temperature and cuts */
    uint32_t n_top_logprobs; /* and that of so many likeliest tokens (ties: the lower id) */
} m40llm_request_options;
#define M40LLM_REQUEST_OPTIONS_INIT                                                                                    \
    {.struct_size = sizeof(m40llm_request_options), .sampling = M40LLM_SAMPLING_INIT}

/* Queues one request and returns. prompt: n_prompt >= 1 ids, each < n_vocab; copied, as are the options and all that they point to (but user).
 * On OK *out_id names the request (never 0), which stays until m40llm_wait or m40llm_forget. Its events may come before the call returns. INVALID_ARGUMENT, CONTEXT_FULL (the prompt does not fit; the
 * text says by how much), QUEUE_FULL (there are n_requests), CANCELLED (from a callback, while the engine is closed). */
M40LLM_API m40llm_status m40llm_submit(m40llm_engine *engine, const int32_t *prompt, size_t n_prompt, const m40llm_request_options *options,
                                       uint64_t *out_id, m40llm_error *err);
/* The same for a text; flags: M40LLM_TOKENIZE_*. NO_TOKENIZER: the engine has none. */
M40LLM_API m40llm_status m40llm_submit_text(m40llm_engine *engine, const char *text, size_t n_bytes, unsigned flags,
                                            const m40llm_request_options *options, uint64_t *out_id, m40llm_error *err);
enum { M40LLM_MAX_EMBED_TEXTS = 2048 };

typedef struct m40llm_embed_options {
    size_t struct_size;
    m40llm_pooling pooling; /* NONE: what the model's file names, else MEAN */
    int priority, no_cache; /* as in m40llm_request_options; MEAN takes nothing from the prefix cache in any case */
    void (*on_event)(void *user, const m40llm_event *event);
    void *user;
} m40llm_embed_options;
#define M40LLM_EMBED_OPTIONS_INIT {.struct_size = sizeof(m40llm_embed_options)}

/* Queues one request for the embeddings of n_texts (1 .. M40LLM_MAX_EMBED_TEXTS) texts, whose ids lie one behind the other: n_ids[i] >= 1 of text i. All are copied. Each text is a choice of the
 * request: EMBEDDING and FINISH come for it (event.choice, in any order), then END; the result counts the tokens of all. The hidden states are those behind the model's last norm, pooled and scaled to
 * length 1; the bits depend on the text and the pooling alone. Statuses as of m40llm_submit. */
M40LLM_API m40llm_status m40llm_submit_embeddings(m40llm_engine *engine, const int32_t *ids, const size_t *n_ids, size_t n_texts,
                                                  const m40llm_embed_options *options, uint64_t *out_id, m40llm_error *err);

/* The request's next event; waits for one up to timeout_ms (less than 0: for ever). The event's pointers are valid until the next call for the same request. END comes again when it was read. One
 * thread at a time for a request, and not a callback. NOT_FOUND: there is no such request; TIMED_OUT; INVALID_ARGUMENT: it has on_event. */
M40LLM_API m40llm_status m40llm_read(m40llm_engine *engine, uint64_t id, int timeout_ms, m40llm_event *out, m40llm_error *err);
/* Waits until the request has ended and its END was told, fills *result (may be NULL) and forgets the request, with events nobody has read. A request that was cancelled ends
 * with OK and FINISH_CANCELLED; one that failed gives its own status. NOT_FOUND. Not from a callback. Nobody else may be in m40llm_read or m40llm_wait for it. */
M40LLM_API m40llm_status m40llm_wait(m40llm_engine *engine, uint64_t id, m40llm_result *result, m40llm_error *err);
/* Cancels the request if it has not ended, and forgets it; waits for nothing. on_event is still called up to END. Unknown ids are ignored. Nobody may be in m40llm_read or m40llm_wait for it. */
M40LLM_API void m40llm_forget(m40llm_engine *engine, uint64_t id);
/* Ends the request at its next step. Also from a signal handler. Unknown ids are ignored. */
M40LLM_API void m40llm_cancel(m40llm_engine *engine, uint64_t id);

/* counts[i]: values up to m40llm_histogram_bound(i), and above the one before; the last: all above. */
enum { M40LLM_HISTOGRAM_BUCKETS = 20 };
typedef struct m40llm_histogram {
    uint64_t counts[M40LLM_HISTOGRAM_BUCKETS];
    uint64_t sum;
} m40llm_histogram;
/* 2^i; for times the unit is 100 us (but sum is in ns): 0.1 ms to 26 s. */
M40LLM_API uint64_t m40llm_histogram_bound(uint32_t i);

typedef struct m40llm_stats {
    size_t struct_size;
    uint64_t n_steps, n_prompt_tokens, n_generated_tokens, n_requests; /* prompt tokens that were evaluated, for the first time; requests that were accepted */
    uint64_t step_ns;     /* host time of all steps */
    uint64_t n_pages, n_pages_used, n_pages_used_max; /* used: by sequences that run */
    uint64_t n_pages_shared, n_pages_cached;          /* used by several; used by none, but found again by content until they are needed. The others are free */
    uint64_t n_waiting, n_running;                    /* choices now */
    uint64_t n_ended[5];                              /* requests, by their result's m40llm_finish */
    uint64_t n_preemptions, n_recomputed_tokens;      /* tokens that were evaluated again after them */
    uint64_t n_cache_lookups, n_cache_hits;           /* admissions that looked for pages; those that found some */
    uint64_t n_cached_tokens, n_evicted_pages;        /* tokens of the pages found */
    m40llm_histogram step_times, first_token_times, token_times; /* of steps; from submit to a choice's first token; from a token to the next of a choice */
    m40llm_histogram batch_rows;                      /* tokens in a step */
    uint64_t n_mixed_steps, n_mixed_prompt_tokens, mixed_step_ns; /* steps with answers and prompts: how fast prompts are meanwhile is tokens over time */
} m40llm_stats;
#define M40LLM_STATS_INIT {.struct_size = sizeof(m40llm_stats)}
M40LLM_API void m40llm_engine_get_stats(const m40llm_engine *engine, m40llm_stats *out);

#ifdef __cplusplus
}
#endif
#endif
