/* m40llm.h alone, through the shared library: what is exported is what the header declares, and a request works from file to text. */
#include "m40llm.h"

#include "harness/harness.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>

/* X(name) for every function that the header declares: made from the header (mk/47-cli-tests.mk). */
static const char *const declared[] = {
#define X(name) #name,
#include "public_functions.h"
#undef X
};

enum { N_DECLARED = sizeof declared / sizeof *declared };

static bool is_declared(const char *name)
{
    for (int i = 0; i < N_DECLARED; i++)
        if (strcmp(declared[i], name) == 0)
            return true;
    return false;
}

/* Section of a type in an ELF64 file. */
static const Elf64_Shdr *find_section(const char *file, unsigned type)
{
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)file;
    const Elf64_Shdr *sections = (const Elf64_Shdr *)(file + head->e_shoff);

    for (unsigned i = 0; i < head->e_shnum; i++)
        if (sections[i].sh_type == type)
            return &sections[i];
    fail_msg("the library has no section of type %u", type);
    return NULL;
}

static void test_exports_are_the_header(void **state)
{
    Dl_info library;
    const Elf64_Shdr *section;
    const Elf64_Sym *symbols;
    const char *names;
    char *file;
    int n_exported = 0;

    (void)state;
    assert_true(dladdr((const void *)(uintptr_t)&m40llm_version, &library) != 0);
    assert_non_null(strstr(library.dli_fname, "libm40llm.so"));
    file = test_read_file(library.dli_fname, NULL);
    section = find_section(file, SHT_DYNSYM);
    symbols = (const Elf64_Sym *)(file + section->sh_offset);
    names = file + ((const Elf64_Shdr *)(file + ((const Elf64_Ehdr *)file)->e_shoff))[section->sh_link].sh_offset;
    for (size_t i = 1; i < section->sh_size / sizeof *symbols; i++) {
        const char *name = names + symbols[i].st_name;

        if (symbols[i].st_shndx == SHN_UNDEF || strncmp(name, "__asan", 6) == 0 || strncmp(name, "__odr_asan", 10) == 0)
            continue;
        if (!is_declared(name))
            fail_msg("%s is exported, but is not in m40llm.h", name);
        n_exported++;
    }
    assert_int_equal(n_exported, N_DECLARED);
    assert_true(N_DECLARED > 60);
    free(file);
}

struct answer {
    int32_t ids[8];
    size_t n;
};

static void on_event(void *user, const m40llm_event *event)
{
    struct answer *a = user;

    if (event->type != M40LLM_EVENT_TOKEN)
        return;
    a->ids[a->n++] = event->token;
}

static void expect_ok(m40llm_status status, const m40llm_error *err)
{
    if (status != M40LLM_OK)
        fail_msg("%s: %s", m40llm_status_text(status), err->text);
}

struct forgetter {
    m40llm_engine *engine;
    int n_ends;
};

static void forget_at_end(void *user, const m40llm_event *event)
{
    struct forgetter *f = user;

    if (event->type != M40LLM_EVENT_END)
        return;
    f->n_ends++;
    m40llm_forget(f->engine, event->id);
}

static void test_from_file_to_text(void **state)
{
    struct forgetter forgetter = {0};
    m40llm_device_options device_options = M40LLM_DEVICE_OPTIONS_INIT;
    m40llm_request_options request = M40LLM_REQUEST_OPTIONS_INIT;
    struct answer answer = {.n = 0};
    m40llm_file *file = NULL;
    m40llm_device *device = NULL;
    m40llm_model *model = NULL;
    m40llm_engine *engine = NULL;
    m40llm_tokenizer *tokenizer = NULL;
    m40llm_result result = M40LLM_RESULT_INIT;
    m40llm_error err;
    char path[512], text[64];
    int32_t ids[16];
    size_t n_ids, n_bytes;
    uint64_t id;

    (void)state;
    assert_string_equal(m40llm_version(), M40LLM_VERSION);
    snprintf(path, sizeof path, "%s/tiny.gguf", test_tmp_dir());
    expect_ok(m40llm_synth_write("tiny", "q6_k", path, NULL, NULL, &err), &err);
    expect_ok(m40llm_file_open(&file, path, &err), &err);
    device_options.spec = "cpu";
    device_options.n_threads = 1;
    expect_ok(m40llm_device_open(&device, &device_options, &err), &err);
    expect_ok(m40llm_model_open(&model, file, device, NULL, &err), &err); /* NULL: the defaults */
    expect_ok(m40llm_tokenizer_open(&tokenizer, file, &err), &err);
    expect_ok(m40llm_engine_open(&engine, model, NULL, &err), &err);
    expect_ok(m40llm_tokenize(tokenizer, "Hello", 5, M40LLM_TOKENIZE_ADD_BOS, ids, 16, &n_ids, &err), &err);
    assert_int_equal(n_ids, 6);
    request.n_max_tokens = 8;
    request.on_event = on_event;
    request.user = &answer;
    expect_ok(m40llm_submit(engine, ids, n_ids, &request, &id, &err), &err);
    expect_ok(m40llm_wait(engine, id, &result, &err), &err);
    assert_int_equal(result.finish, M40LLM_FINISH_LENGTH);
    assert_int_equal(answer.n, 8);
    expect_ok(m40llm_detokenize(tokenizer, ids, n_ids, 0, text, sizeof text, &n_bytes, &err), &err);
    assert_int_equal(n_bytes, 5);
    assert_memory_equal(text, "Hello", 5);
    forgetter.engine = engine; /* closing is no obstacle to a callback */
    request.n_max_tokens = 100;
    request.ignore_end = 1;
    request.on_event = forget_at_end;
    request.user = &forgetter;
    expect_ok(m40llm_submit(engine, ids, n_ids, &request, &id, &err), &err);
    m40llm_engine_close(&engine);
    assert_int_equal(forgetter.n_ends, 1);
    m40llm_tokenizer_close(&tokenizer);
    m40llm_model_close(&model);
    m40llm_device_close(&device);
    m40llm_file_close(&file);
    assert_null(engine);
    m40llm_file_close(&file); /* again, and on nothing */
    m40llm_file_close(NULL);
}

/* A program compiled with an older header has shorter structs: what it does not know keeps its default. */
static void test_shorter_options(void **state)
{
    m40llm_device_options options = M40LLM_DEVICE_OPTIONS_INIT;
    m40llm_device_info info = M40LLM_DEVICE_INFO_INIT;
    m40llm_device *device;
    m40llm_error err;

    (void)state;
    options.spec = "cpu";
    options.struct_size = offsetof(m40llm_device_options, cpu_level);
    options.cpu_level = M40LLM_CPU_SCALAR; /* beyond the struct's end */
    expect_ok(m40llm_device_open(&device, &options, &err), &err);
    m40llm_device_get_info(device, &info);
    assert_string_equal(info.spec, "cpu");
    m40llm_device_close(&device);
    options.struct_size = sizeof options;
    expect_ok(m40llm_device_open(&device, &options, &err), &err);
    m40llm_device_get_info(device, &info);
    assert_string_equal(info.code, "scalar");
    m40llm_device_close(&device);
}

/* Nor is anything written beyond the end of a shorter struct, or into what this library does not know of a longer one. */
static void test_results_of_other_versions(void **state)
{
    struct {
        m40llm_device_info known;
        char later[64];
    } longer = {.known = {.struct_size = sizeof longer}};
    char shorter[3 * sizeof(m40llm_device_info)], untouched[sizeof shorter];
    const size_t n_bytes = offsetof(m40llm_device_info, cc_major);
    m40llm_device_info devices[4] = {{0}};
    m40llm_device_options options = M40LLM_DEVICE_OPTIONS_INIT;
    size_t n_devices;
    m40llm_error err;

    (void)state;
    options.cuda_library = "/nonexistent";
    memset(longer.later, 'x', sizeof longer.later);
    memset(shorter, 'x', sizeof shorter);
    memset(untouched, 'x', sizeof untouched);
    memcpy(shorter, &n_bytes, sizeof n_bytes);
    expect_ok(m40llm_device_list(&options, (m40llm_device_info *)(void *)shorter, 2, &n_devices, NULL, &err), &err);
    assert_int_equal(n_devices, 1);
    assert_string_equal(shorter + offsetof(m40llm_device_info, spec), "cpu");
    assert_memory_equal(shorter + n_bytes, untouched, sizeof shorter - n_bytes);
    expect_ok(m40llm_device_list(&options, &longer.known, 1, &n_devices, NULL, &err), &err);
    assert_string_equal(longer.known.spec, "cpu");
    assert_int_equal(longer.known.struct_size, sizeof longer);
    assert_memory_equal(longer.later, untouched, sizeof longer.later);
    assert_int_equal(m40llm_device_list(&options, devices, 4, &n_devices, NULL, &err), M40LLM_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "struct_size"));
    memset(devices, 'x', sizeof devices); /* never set */
    assert_int_equal(m40llm_device_list(&options, devices, 4, &n_devices, NULL, &err), M40LLM_INVALID_ARGUMENT);
    expect_ok(m40llm_device_list(&options, NULL, 0, &n_devices, NULL, &err), &err);
}

static void test_chat_template(void **state)
{
    static const char source[] = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{{ strftime_now('%Y') }}";
    static const char context[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}";
    m40llm_template_options options = M40LLM_TEMPLATE_OPTIONS_INIT;
    m40llm_template *t;
    m40llm_error err;
    size_t n_bytes;
    char *text;

    (void)state;
    expect_ok(m40llm_template_compile(&t, source, sizeof source - 1, &err), &err);
    options.now = "2026-01-15";
    expect_ok(m40llm_template_render(t, context, sizeof context - 1, &options, &text, &n_bytes, &err), &err);
    assert_string_equal(text, "<user>Hi\n2026");
    assert_int_equal(n_bytes, strlen(text));
    m40llm_free(text);
    options.n_max_steps = 3;
    assert_int_equal(m40llm_template_render(t, context, sizeof context - 1, &options, &text, &n_bytes, &err), M40LLM_TEMPLATE);
    assert_string_equal(err.text, "line 1: the template takes more than 3 steps");
    assert_null(text);
    options = (m40llm_template_options)M40LLM_TEMPLATE_OPTIONS_INIT;
    options.max_output_bytes = 5;
    assert_int_equal(m40llm_template_render(t, context, sizeof context - 1, &options, &text, &n_bytes, &err), M40LLM_TEMPLATE);
    assert_string_equal(err.text, "line 1: the template writes more than 5 bytes");
    options.now = "tomorrow";
    assert_int_equal(m40llm_template_render(t, context, sizeof context - 1, &options, &text, &n_bytes, &err), M40LLM_INVALID_ARGUMENT);
    assert_int_equal(m40llm_template_render(t, "[", 1, NULL, &text, &n_bytes, &err), M40LLM_INVALID_ARGUMENT);
    m40llm_template_close(&t);
    assert_null(t);
    m40llm_template_close(&t);
    m40llm_free(NULL);
    assert_int_equal(m40llm_template_compile(&t, "{%", 2, &err), M40LLM_TEMPLATE);
    assert_null(t);
}

static void test_failures_leave_nothing(void **state)
{
    m40llm_file *file = (m40llm_file *)1;
    m40llm_device *device = (m40llm_device *)1;
    m40llm_device_options options = M40LLM_DEVICE_OPTIONS_INIT;
    m40llm_error err;

    (void)state;
    assert_int_equal(m40llm_file_open(&file, "/no/such/file.gguf", &err), M40LLM_IO);
    assert_null(file);
    assert_int_equal(err.code, M40LLM_IO);
    assert_non_null(strstr(err.text, "/no/such/file.gguf"));
    options.spec = "cuda";
    options.cuda_library = "/no/such/driver.so";
    assert_int_equal(m40llm_device_open(&device, &options, &err), M40LLM_NO_DEVICE);
    assert_null(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exports_are_the_header),    cmocka_unit_test(test_from_file_to_text), cmocka_unit_test(test_shorter_options),
        cmocka_unit_test(test_results_of_other_versions), cmocka_unit_test(test_chat_template),     cmocka_unit_test(test_failures_leave_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
