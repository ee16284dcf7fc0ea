/* The command line as its users see it: exit codes, what goes to which stream, results against the references of the demo model, and bad input. */
#define _GNU_SOURCE
#include "cli/process.h"
#include "m40llm.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

static json_t *reference; /* demo_ref.json */

static const char *demo(void)
{
    static char path[512];

    if (!path[0])
        snprintf(path, sizeof path, "%s", test_data("../../models/demo.gguf"));
    return path;
}

static const char *tmp(const char *name)
{
    static char paths[4][512];
    static unsigned turn;
    char *path = paths[turn++ % 4];

    snprintf(path, sizeof paths[0], "%s/%s", test_tmp_dir(), name);
    return path;
}

static const char *tiny(void)
{
    static char path[512];
    struct output o;

    if (path[0])
        return path;
    snprintf(path, sizeof path, "%s/tiny.gguf", test_tmp_dir());
    o = RUN("synth", "--shape", "tiny", "--type", "q4_k", "-o", path);
    assert_int_equal(o.status, 0);
    output_free(&o);
    return path;
}

static size_t count_lines(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += *text == '\n';
    return n;
}

static const char *last_line(const char *text)
{
    const char *end = text + strlen(text);

    if (end > text)
        end--;
    while (end > text && end[-1] != '\n')
        end--;
    return end;
}

/* The program failed with `status`, wrote nothing to stdout, and its last line on stderr (the n_lines-th) is an error that has `needle`. */
static void expect_error_at(struct output o, int status, size_t n_lines, const char *needle)
{
    if (o.status != status || count_lines(o.err) != n_lines || !strstr(last_line(o.err), needle) || strncmp(last_line(o.err), "m40llm: ", 8) != 0)
        fail_msg("exit %d (wanted %d), wanted '%s' in line %zu of:\n%s", o.status, status, needle, n_lines, o.err);
    assert_int_equal(o.n_out, 0);
    output_free(&o);
}

static void expect_error(struct output o, int status, const char *needle)
{
    expect_error_at(o, status, 1, needle);
}

static void expect_ok(const struct output *o)
{
    if (o->status != 0)
        fail_msg("exit %d: %s", o->status, o->err);
    assert_null(strchr(o->err, '\r')); /* bars are for terminals */
}

static void expect_text(struct output o, const char *text)
{
    expect_ok(&o);
    assert_string_equal(o.out, text);
    output_free(&o);
}

/* ---- usage ---- */

static void test_help(void **state)
{
    static const char *const commands[] = {"run",    "info",       "tokenize", "detokenize", "render", "logits",
                                           "tensor", "perplexity", "bench",    "synth",      "serve"};
    static const char *const compute[] = {"run", "logits", "perplexity", "bench"};
    struct output o = RUN("--help");

    (void)state;
    expect_ok(&o);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        struct output help = RUN(commands[i], "--help"), same = RUN("help", commands[i]);

        assert_non_null(strstr(o.out, commands[i]));
        expect_ok(&help);
        assert_non_null(strstr(help.out, commands[i]));
        assert_non_null(strstr(help.out, "--help"));
        assert_string_equal(help.err, "");
        assert_string_equal(help.out, same.out);
        output_free(&help);
        output_free(&same);
    }
    output_free(&o);
    for (size_t i = 0; i < sizeof compute / sizeof *compute; i++) {
        o = RUN(compute[i], "-h");
        for (const char *const *flag = (const char *const[]){"--device", "--ctx", "--kv-type", "--chunk", NULL}; *flag; flag++)
            assert_non_null(strstr(o.out, *flag));
        output_free(&o);
    }
    o = RUN("--version");
    expect_ok(&o);
    output_free(&o);
}

static void test_usage_errors(void **state)
{
    struct output o = RUN(NULL);

    (void)state;
    assert_int_equal(o.status, 2);
    assert_int_equal(o.n_out, 0);
    output_free(&o);
    expect_error(RUN("frobnicate"), 2, "'frobnicate'");
    expect_error(RUN("help", "frobnicate"), 2, "'frobnicate'");
    expect_error(RUN("run", "", "-p", "x"), 2, "empty");
    expect_error(RUN("run", demo(), "-p", "x", "--json=yes"), 2, "'--json' takes no value");
    expect_error(RUN("run", demo(), "-p", "x", "--threads", "1000000"), 2, "--threads 1000000: must be from 0 to 4096");
    expect_error(RUN("run", demo(), "-p", "x", "--cpu-level", "sse"), 2, "--cpu-level sse: must be one of auto|scalar|avx2|avx512");
    expect_error(RUN("run", demo(), "-p", "x", "--kv-mem", "16000000G"), 1, "a KV cache of 16384000000 MiB was asked for");
    expect_error(RUN("logits", demo(), "--tokens", "1,,2", "-o", tmp("x")), 2, "',2' is not a token id");
    expect_error(RUN("bench", demo(), "--synth", "tiny:f16"), 2, "not both");
    expect_error(RUN("serve", demo(), "--port", "65536"), 2, "--port");
    expect_error(RUN("serve", demo(), "--max-connections", "0"), 2, "--max-connections");
    expect_error(RUN("run", demo(), "--frobnicate"), 2, "'--frobnicate'");
    expect_error(RUN("run", demo(), "-Q"), 2, "'-Q'");
    expect_error(RUN("run", demo(), "-p"), 2, "'-p'");
    expect_error(RUN("run", demo(), "-p", "x", "-n"), 2, "'-n'");
    expect_error(RUN("run", demo(), "-p", "x", "-n", "many"), 2, "many");
    expect_error(RUN("run", demo(), "-p", "x", "-n", "-3"), 2, "-3");
    expect_error(RUN("run", demo(), "-p", "x", "--temp", "hot"), 2, "hot");
    expect_error(RUN("run", demo(), "-p", "x", "--temp", "nan"), 2, "--temp");
    expect_error(RUN("run", demo(), "-p", "x", "--top-p", "1.5"), 2, "--top-p");
    expect_error(RUN("run", demo(), "-p", "x", "--kv-type", "q8"), 2, "--kv-type");
    expect_error(RUN("run", demo(), "-p", "x", "--kv-mem", "4X"), 2, "--kv-mem");
    expect_error(RUN("run", demo(), "-p", "x", "--kv-mem", "18446744073709551615K"), 2, "--kv-mem");
    expect_error(RUN("run", demo(), "-p", "x", "--kv-mem", "1M", "--ctx", "1024", "--device", "cpu"), 1, "24 more");
    expect_error(RUN("run", demo(), "-p", "x", "--device", "tpu"), 2, "--device");
    expect_error(RUN("run", demo(), "-p", "x", "-f", "y"), 2, "only one");
    expect_error(RUN("run", demo()), 2, "prompt");
    expect_error(RUN("run", demo(), "-p", "x", "--system", "y"), 2, "--system");
    expect_error(RUN("run", demo(), "-p", "x", "--chat-template", "y"), 2, "--chat-template");
    expect_error(RUN_WITH({.input = "x"}, "run", demo(), "--no-bos"), 2, "--no-bos");
    expect_error(RUN_WITH({.input = "x"}, "run", demo()), 1, "no chat template");
    expect_error(RUN_WITH({.input = "x"}, "run", demo(), "--chat-template", tmp("no-such-template")), 1, "no-such-template");
    expect_error(RUN_WITH({.input = "x"}, "run", demo(), "--chat-template", test_tmp_dir()), 1, "Is a directory");
    expect_error(RUN("run"), 2, "MODEL");
    expect_error(RUN("run", demo(), "text"), 2, "'text'");
    expect_error(RUN("tokenize", demo()), 2, "-p");
    expect_error(RUN("detokenize", demo(), "1", "two"), 2, "'two'");
    expect_error(RUN("logits", demo(), "-o", tmp("x")), 2, "--tokens");
    expect_error(RUN("logits", demo(), "--tokens", "1,b", "-o", tmp("x")), 2, "'b'");
    expect_error(RUN("logits", demo(), "--tokens", "", "-o", tmp("x")), 2, "--tokens");
    expect_error(RUN("logits", demo(), "--tokens", "1"), 2, "-o");
    expect_error(RUN("tensor", demo()), 2, "NAME");
    expect_error(RUN("tensor", demo(), "output_norm.weight"), 2, "-o");
    expect_error(RUN("perplexity", demo()), 2, "-f");
    expect_error(RUN("perplexity", demo(), "-f", "x", "--style", "odd"), 2, "--style");
    expect_error(RUN("bench"), 2, "--synth");
    expect_error(RUN("bench", "--synth", "tiny"), 2, "--synth");
    expect_error(RUN("bench", "--synth", "tiny:q9"), 2, "'q9'");
    expect_error(RUN("synth", "--shape", "tiny"), 2, "--type");
    expect_error(RUN("synth", "--shape", "huge", "--type", "f16", "-o", tmp("x")), 2, "tiny 1b 8b 14b");
    expect_error(RUN("synth", "--shape", "tiny", "--type", "f12", "-o", tmp("x")), 2, "q4_k");
    assert_int_equal(access(tmp("x"), F_OK), -1);
}

static void test_environment(void **state)
{
    (void)state;
    setenv("M40LLM_LOG", "bogus", 1);
    expect_error(RUN("info"), 2, "M40LLM_LOG");
    setenv("M40LLM_LOG", "error", 1);
    setenv("M40LLM_FORCE_M40", "yes", 1);
    expect_error(RUN("info"), 2, "M40LLM_FORCE_M40=yes: must be 0 or 1");
    unsetenv("M40LLM_FORCE_M40");
    setenv("M40LLM_HISTORY", "off", 1);
    expect_error(RUN("info"), 2, "M40LLM_HISTORY=off: must be 0 or 1");
    unsetenv("M40LLM_HISTORY");
    setenv("M40LLM_CUDA_LIB", "/nonexistent/libcuda.so", 1);
    expect_error(RUN("run", demo(), "-p", "x", "--device", "cuda"), 1, "/nonexistent/libcuda.so");
    setenv("M40LLM_DEVICE", "cuda:7", 1);
    expect_error(RUN("run", demo(), "-p", "x"), 1, "/nonexistent/libcuda.so");
    unsetenv("M40LLM_LOG");
    unsetenv("M40LLM_CUDA_LIB");
    setenv("M40LLM_DEVICE", "cpu", 1);
}

/* Sets a variable to the path of a library that the build puts beside the program. */
static void set_library(const char *variable, const char *name)
{
    const char *program = program_path();
    char path[512];

    snprintf(path, sizeof path, "%.*s%s", (int)(strrchr(program, '/') + 1 - program), program, name);
    setenv(variable, path, 1);
}

/* On the emulated driver, with a fake cuBLAS. */
static void test_cublas_switch(void **state)
{
    struct output o;

    (void)state;
    setenv("M40LLM_ENABLE_CUBLAS", "yes", 1);
    expect_error(RUN("info"), 2, "M40LLM_ENABLE_CUBLAS=yes: must be 0 or 1");
    setenv("M40LLM_ENABLE_CUBLAS", "", 1);
    expect_error(RUN("info"), 2, "M40LLM_ENABLE_CUBLAS=: must be 0 or 1");
    set_library("M40LLM_CUDA_LIB", "libcuda-emu-test.so");
    setenv("M40LLM_ENABLE_CUBLAS", "1", 1);
    setenv("M40LLM_CUBLAS_LIB", "/nonexistent/libcublas.so", 1);
    expect_error(RUN("run", demo(), "-p", "x", "--device", "cuda"), 1, "no cuBLAS: /nonexistent/libcublas.so");
    expect_error(RUN("run", demo(), "-p", "x", "--device", "auto"), 1, "no cuBLAS: /nonexistent/libcublas.so");
    for (int is_on = 0; is_on < 2; is_on++) {
        set_library("M40LLM_CUBLAS_LIB", "libcublas-fake.so");
        setenv("M40LLM_ENABLE_CUBLAS", is_on ? "1" : "0", 1);
        o = RUN("run", demo(), "-p", "x", "-n", "1", "--device", "cuda");
        expect_ok(&o);
        assert_int_equal(strstr(o.err, "by cuBLAS 12.4.5") != NULL, is_on);
        assert_int_equal(strstr(o.err, "not bit-equal") != NULL, is_on);
        output_free(&o);
    }
    unsetenv("M40LLM_CUDA_LIB");
    unsetenv("M40LLM_CUBLAS_LIB");
    unsetenv("M40LLM_ENABLE_CUBLAS");
}

/* ---- run ---- */

static void ids_argument(const json_t *ids, size_t n, const char *separator, char *out, size_t capacity)
{
    size_t at = 0;

    out[0] = 0;
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(out + at, capacity - at, "%s%lld", i ? separator : "", json_integer_value(json_array_get(ids, i)));
}

/* The text of the first n greedy ids, with the newline that the program puts behind it. */
static struct output greedy_text(const json_t *ids, size_t n)
{
    static char numbers[64][16];
    const char *args[70] = {"detokenize", demo()};

    for (size_t i = 0; i < n; i++) {
        snprintf(numbers[i], sizeof numbers[i], "%lld", json_integer_value(json_array_get(ids, i)));
        args[2 + i] = numbers[i];
    }
    return run_program(&(struct launch){0}, args);
}

/* How many greedy tokens come before the first near-tie. */
static size_t n_certain(const json_t *prompt)
{
    const json_t *margins = json_object_get(prompt, "greedy_margins");
    size_t n = 0;

    while (n < json_array_size(margins) && json_real_value(json_array_get(margins, n)) >= 0.01)
        n++;
    return n;
}

static void test_run_greedy_equals_reference(void **state)
{
    size_t i;
    json_t *prompt;

    (void)state;
    json_array_foreach(json_object_get(reference, "prompts"), i, prompt)
    {
        const char *text = json_string_value(json_object_get(prompt, "text"));
        size_t n = n_certain(prompt);
        struct output wanted = greedy_text(json_object_get(prompt, "greedy_ids"), n), o;
        char number[16];

        snprintf(number, sizeof number, "%zu", n);
        o = RUN("run", demo(), "-p", text, "-n", number, "--temp", "0", "--kv-type", "f32", "--ignore-eos", "--threads", "1");
        expect_ok(&o);
        assert_string_equal(o.out, wanted.out);
        assert_memory_equal(o.out, json_string_value(json_object_get(prompt, "greedy_text")), o.n_out - 1);
        assert_non_null(strstr(o.err, "context "));
        assert_non_null(strstr(o.err, "tok/s"));
        assert_non_null(strstr(o.err, "memory"));
        assert_null(strstr(o.err, "seed")); /* greedy needs none */
        output_free(&o);
        output_free(&wanted);
    }
}

static void test_run_takes_its_prompt_from_anywhere(void **state)
{
    static const char text[] = "The old man sat by the fire and";
    struct output o = RUN("run", demo(), "-p", text, "-n", "8", "--temp", "0", "--threads", "1");
    FILE *f = fopen(tmp("prompt.txt"), "wb");

    (void)state;
    fputs(text, f);
    fclose(f);
    expect_ok(&o);
    expect_text(RUN("run", demo(), "-f", tmp("prompt.txt"), "-n", "8", "--temp", "0", "--threads", "1"), o.out);
    expect_text(RUN_WITH({.input = text}, "run", demo(), "-", "-n", "8", "--temp", "0", "--threads", "1"), o.out);
    expect_text(RUN_WITH({.input = text}, "run", "-n", "8", "--temp", "0", "--threads", "1", demo(), "-f", "-", "--chunk", "3"), o.out);
    output_free(&o);
    o = RUN("run", demo(), "-p", "\xff\xc3(\x80 bytes", "-n", "2", "--threads", "1"); /* not UTF-8: taken byte for byte */
    expect_ok(&o);
    output_free(&o);
    o = RUN("run", demo(), "-p", "", "-n", "2", "--temp", "0", "--threads", "1"); /* begin of text alone */
    expect_ok(&o);
    output_free(&o);
    expect_error(RUN("run", demo(), "-f", tmp("no-such-file")), 1, "no-such-file");
}

static json_t *parse_json(const struct output *o)
{
    json_error_t error;
    json_t *object = json_loadb(o->out, o->n_out, JSON_REJECT_DUPLICATES, &error);

    if (!object)
        fail_msg("%s in:\n%s", error.text, o->out);
    return object;
}

static void test_run_json(void **state)
{
    struct output o = RUN("run", demo(), "-p", "Once upon a time", "-n", "5", "--seed", "7", "--json", "--threads", "1");
    struct output plain = RUN("run", demo(), "-p", "Once upon a time", "-n", "5", "--seed", "7", "--threads", "1");
    json_t *object = parse_json(&o);
    char *text = strdup(json_string_value(json_object_get(object, "text")));

    (void)state;
    expect_ok(&o);
    assert_int_equal(plain.n_out, strlen(text) + 1);
    assert_memory_equal(plain.out, text, strlen(text)); /* the same seed, the same text */
    assert_int_equal(json_integer_value(json_object_get(object, "seed")), 7);
    assert_int_equal(json_integer_value(json_object_get(object, "prompt_tokens")), 6);
    assert_int_equal(json_integer_value(json_object_get(object, "completion_tokens")), 5);
    assert_string_equal(json_string_value(json_object_get(object, "finish")), "length");
    assert_string_equal(json_string_value(json_object_get(object, "device")), "cpu");
    assert_true(json_real_value(json_object_get(object, "prompt_tokens_per_s")) > 0);
    assert_true(json_real_value(json_object_get(object, "completion_tokens_per_s")) > 0);
    assert_true(json_real_value(json_object_get(object, "memory_mib")) > 1);
    free(text);
    json_decref(object);
    output_free(&o);
    output_free(&plain);
}

static void test_printed_seed_reproduces(void **state)
{
    struct output o = RUN("run", demo(), "-p", "Once", "-n", "20", "--temp", "1.5", "--top-k", "0", "--threads", "1");
    const char *seed = strstr(o.err, "seed ");
    char number[32];

    (void)state;
    expect_ok(&o);
    assert_non_null(seed);
    snprintf(number, sizeof number, "%.*s", (int)strspn(seed + 5, "0123456789"), seed + 5);
    expect_text(RUN("run", demo(), "-p", "Once", "-n", "20", "--temp", "1.5", "--top-k", "0", "-s", number, "--threads", "1"), o.out);
    output_free(&o);
}

/* With a terminal for standard error there are bars while loading and while a long prompt is read, and the line is cleared behind them. */
static void test_progress_on_a_terminal(void **state)
{
    const json_t *prompt = json_array_get(json_object_get(reference, "prompts"), 4);
    int terminal = posix_openpt(O_RDWR | O_NOCTTY), keeps_it_open;
    char text[4096] = "";
    size_t n = 0;
    ssize_t got;
    struct output o;

    (void)state;
    if (terminal < 0)
        skip(); /* a container without /dev/pts */
    assert_true(grantpt(terminal) == 0 && unlockpt(terminal) == 0);
    keeps_it_open = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    o = RUN_WITH({.err_path = ptsname(terminal)}, "run", demo(), "-p", json_string_value(json_object_get(prompt, "text")), "-n", "1", "--temp", "0",
                 "--threads", "1", "--chunk", "200");
    assert_int_equal(o.status, 0);
    fcntl(terminal, F_SETFL, O_NONBLOCK);
    while (n + 1 < sizeof text && (got = read(terminal, text + n, sizeof text - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = 0;
    assert_non_null(strstr(text, "loading ["));
    assert_non_null(strstr(text, "prompt ["));
    assert_non_null(strstr(text, "\033[K"));
    assert_non_null(strstr(text, "tok/s"));
    close(keeps_it_open);
    close(terminal);
    output_free(&o);
}

static void test_interrupt_stops_cleanly(void **state)
{
    const char *const args[] = {"run",          demo(),        "-p",     "Once upon a time", "-n", "100000",
                                "--ignore-eos", "--cpu-level", "scalar", "--threads",        "1",  NULL};
    pid_t pid = start_program(&(struct launch){0}, args);
    struct output o;
    struct stat info = {0};
    unsigned long answered;

    (void)state;
    for (int i = 0; i < 1000 && info.st_size == 0; i++) {
        usleep(10000);
        stat(running_output_path(), &info);
    }
    assert_true(info.st_size > 0);
    kill(pid, SIGINT);
    o = finish_program(pid);
    expect_ok(&o);
    assert_true(o.n_out > 1 && o.out[o.n_out - 1] == '\n');
    assert_non_null(strstr(o.err, "answer "));
    answered = strtoul(strstr(o.err, "answer ") + 7, NULL, 10);
    assert_true(answered >= 1 && answered < 1000);
    output_free(&o);
}

/* ---- tokens ---- */

static void test_tokenize_and_back(void **state)
{
    json_t *root = json_load_file(test_data("demo/tokenizer_cases.json"), JSON_ALLOW_NUL, NULL), *one;
    size_t i;

    (void)state;
    assert_non_null(root);
    json_array_foreach(json_object_get(root, "cases"), i, one)
    {
        const char *text = json_string_value(json_array_get(one, 0));
        const json_t *ids = json_array_get(one, 1);
        const char *args[1100] = {"detokenize", demo()};
        char wanted[8192], *copy, *save;
        struct output o;
        int n = 2;

        if (strlen(text) != json_string_length(json_array_get(one, 0))) /* no argument can hold a NUL */
            continue;
        o = RUN("tokenize", demo(), "-p", text, "--no-bos");
        ids_argument(ids, json_array_size(ids), " ", wanted, sizeof wanted - 2);
        strcat(wanted, "\n");
        expect_text(o, wanted);
        copy = strdup(wanted);
        for (char *id = strtok_r(copy, " \n", &save); id && n < 1098; id = strtok_r(NULL, " \n", &save))
            args[n++] = id;
        snprintf(wanted, sizeof wanted, "%s\n", text);
        expect_text(run_program(&(struct launch){0}, args), wanted);
        free(copy);
    }
    json_decref(root);
}

static void test_tokenize_flags(void **state)
{
    (void)state;
    expect_text(RUN("tokenize", demo(), "-p", "Hello, world!"), "4094 39 504 78 11 947 0\n");
    expect_text(RUN_WITH({.input = "Hello, world!"}, "tokenize", demo(), "-f", "-", "--no-bos"), "39 504 78 11 947 0\n");
    expect_text(RUN("tokenize", demo(), "-p", "a\n\nb", "--pieces", "--no-bos"), "64\ta\n296\t\\x0a\\x0a\n65\tb\n");
    expect_text(RUN("detokenize", demo(), "39", "504", "78"), "Hello\n");
    expect_error(RUN("detokenize", demo(), "39", "4096"), 1, "4096");
    expect_error(RUN("tokenize", tmp("no-model"), "-p", "x"), 1, "no-model");
    expect_text(RUN("tokenize", test_data("vocab/ggml-vocab-gpt-2.gguf"), "-p", "Hello"), "15496\n"); /* a vocabulary needs no weights */
}

/* ---- logits, tensor, perplexity ---- */

static float *read_floats(const char *path, size_t wanted)
{
    size_t n_bytes;
    float *values = (float *)test_read_file(path, &n_bytes);

    assert_int_equal(n_bytes, wanted * sizeof(float));
    return values;
}

static void expect_near(const float *a, const float *b, size_t n, float tolerance)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(a[i] - b[i]) <= tolerance))
            fail_msg("value %zu: %g and %g", i, (double)a[i], (double)b[i]);
}

static void test_logits_equal_reference(void **state)
{
    float *wanted = read_floats(test_data("demo/demo_logits.f32"), 8 * 4096);
    size_t i;
    json_t *prompt;

    (void)state;
    json_array_foreach(json_object_get(reference, "prompts"), i, prompt)
    {
        const json_t *ids = json_object_get(prompt, "ids"), *greedy = json_object_get(prompt, "greedy_ids");
        size_t n = json_array_size(ids), n_greedy = n_certain(prompt) < 6 ? n_certain(prompt) : 6;
        char tokens[8192], line[256], count[16];
        float *got;

        ids_argument(ids, n, ",", tokens, sizeof tokens);
        ids_argument(greedy, n_greedy, " ", line, sizeof line - 2);
        strcat(line, "\n");
        snprintf(count, sizeof count, "%zu", n_greedy);
        expect_text(RUN("logits", demo(), "--tokens", tokens, "--greedy", count, "-o", tmp("l.f32"), "--kv-type", "f32", "--threads", "1"), line);
        got = read_floats(tmp("l.f32"), 4096);
        expect_near(got, wanted + i * 4096, 4096, 2e-4f);
        free(got);
        if (n > 60)
            continue;
        expect_text(RUN("logits", demo(), "-t", tokens, "--all", "-o", tmp("all.f32"), "--kv-type", "f32", "--chunk", "7", "--threads", "1"), "");
        got = read_floats(tmp("all.f32"), n * 4096);
        expect_near(got + (n - 1) * 4096, wanted + i * 4096, 4096, 2e-4f);
        free(got);
    }
    free(wanted);
}

/* The file's F16 values are exact in float32; a norm is float32 already. */
static void test_tensor(void **state)
{
    struct output o = RUN("tensor", demo(), "token_embd.weight", "-o", tmp("t.f32"));
    float *values, *again;

    (void)state;
    expect_text(o, "4096 256\n");
    values = read_floats(tmp("t.f32"), 4096 * 256);
    for (size_t i = 0; i < 4096 * 256; i++) {
        float x = values[i], unit = fmaxf(exp2f(floorf(log2f(fabsf(x))) - 10), 0x1p-24f);

        assert_true(x == 0 || (fabsf(x) < 65536 && x / unit == rintf(x / unit))); /* every value is one of FP16 */
    }
    free(values);
    expect_text(RUN("tensor", demo(), "blk.0.ffn_down.weight", "-o", tmp("t.f32")), "256 768\n");
    expect_text(RUN("tensor", demo(), "output_norm.weight", "-o", tmp("n.f32")), "256\n");
    values = read_floats(tmp("n.f32"), 256);
    expect_text(RUN("tensor", test_data("demo/demo-q4_k_m.gguf"), "output_norm.weight", "-o", tmp("m.f32")), "256\n");
    again = read_floats(tmp("m.f32"), 256);
    assert_memory_equal(values, again, 1024);
    free(values);
    free(again);
    expect_error(RUN("tensor", demo(), "no.such", "-o", tmp("never")), 1, "'no.such'");
    assert_int_equal(access(tmp("never"), F_OK), -1);
}

/* -log softmax(row)[id] */
static double nll(const float *row, int id)
{
    double sum = 0, best = row[0];

    for (int i = 0; i < 4096; i++)
        best = fmax(best, row[i]);
    for (int i = 0; i < 4096; i++)
        sum += exp(row[i] - best);
    return log(sum) - (row[id] - best);
}

/* Mean over tokens first .. 511 of [BOS] + ids[from .. from + 511), from the program's own logits. */
static double window_nll(const int *ids, size_t from, int first)
{
    char tokens[8192] = "4094";
    size_t at = 4;
    double sum = 0;
    float *rows;

    for (size_t i = 0; i < 511; i++)
        at += (size_t)snprintf(tokens + at, sizeof tokens - at, ",%d", ids[from + i]);
    expect_text(RUN("logits", demo(), "--tokens", tokens, "--all", "-o", tmp("w.f32"), "--kv-type", "f32"), "");
    rows = read_floats(tmp("w.f32"), 512 * 4096);
    for (int k = first; k < 512; k++)
        sum += nll(rows + (size_t)(k - 1) * 4096, ids[from + (size_t)k - 1]);
    free(rows);
    return sum / (512 - first);
}

static double printed_nll(struct output o, const char *scored)
{
    double value;

    expect_ok(&o);
    assert_non_null(strstr(o.out, scored));
    assert_int_equal(count_lines(o.out), 1);
    assert_int_equal(sscanf(strstr(o.out, "mean NLL"), "mean NLL %lf", &value), 1);
    output_free(&o);
    return value;
}

static void test_perplexity_equals_reference(void **state)
{
    const json_t *windows = json_object_get(json_object_get(reference, "perplexity"), "window_mean_nll");
    struct output o = RUN("tokenize", demo(), "-f", test_data("demo/valid.txt"), "--no-bos");
    double wanted = (json_real_value(json_array_get(windows, 0)) + json_real_value(json_array_get(windows, 1))) / 2, got;
    int *ids = calloc(2048, sizeof *ids), n = 0;
    char *p = o.out;

    (void)state;
    got = printed_nll(RUN("perplexity", demo(), "-f", test_data("demo/valid.txt"), "--windows", "2", "--kv-type", "f32"), "scored 1022 ");
    assert_true(fabs(got - wanted) <= 5e-4 * wanted);
    /* the reference has no single chunks in llama's way: the logits, which are checked elsewhere, stand in */
    while (n < 2048)
        ids[n++] = (int)strtol(p, &p, 10);
    wanted = (window_nll(ids, 0, 257) + window_nll(ids, 512, 257)) / 2;
    got = printed_nll(RUN("perplexity", demo(), "-f", test_data("demo/valid.txt"), "--windows", "2", "--style", "llama", "--kv-type", "f32"),
                      "scored 510 ");
    assert_true(fabs(got - wanted) <= 1e-5 * wanted);
    free(ids);
    output_free(&o);
    o = RUN_WITH({.input = "too short"}, "perplexity", demo(), "-f", "-");
    expect_error_at(o, 1, 3, "too few");
}

/* ---- info, bench, synth ---- */

static void test_info(void **state)
{
    struct output o = RUN("info");

    (void)state;
    expect_ok(&o);
    assert_non_null(strstr(o.out, "cpu"));
    assert_non_null(strstr(o.out, "auto would take"));
    output_free(&o);
    o = RUN("info", demo(), "--ctx", "512");
    expect_ok(&o);
    for (const char *const *s =
             (const char *const[]){"general.architecture = llama", "token_embd.weight", "[4096, 256]", "f16", "GGUF v3", "context of 512",
                                   "KV cache 2.0", "a card of 12 GB: a context of 1024 tokens (the model's)", NULL};
         *s; s++)
        if (!strstr(o.out, *s))
            fail_msg("no '%s' in:\n%s", *s, o.out);
    assert_string_equal(o.err, "");
    output_free(&o);
    o = RUN("info", test_data("vocab/ggml-vocab-llama-spm.gguf"));
    expect_ok(&o);
    assert_non_null(strstr(o.out, "vocabulary only"));
    output_free(&o);
}

static void test_bench(void **state)
{
    struct output o = RUN("bench", "--synth", "tiny:q4_k", "-p", "16", "-n", "4", "-r", "3", "--json", "--threads", "1");
    json_t *object;

    (void)state;
    expect_ok(&o);
    object = parse_json(&o);
    for (const char *const *series = (const char *const[]){"prefill_tok_s", "decode_tok_s", NULL}; *series; series++) {
        const json_t *s = json_object_get(object, *series);

        assert_int_equal(json_integer_value(json_object_get(s, "runs")), 3);
        assert_true(json_real_value(json_object_get(s, "min")) > 0);
        assert_true(json_real_value(json_object_get(s, "min")) <= json_real_value(json_object_get(s, "median")));
        assert_true(json_real_value(json_object_get(s, "median")) <= json_real_value(json_object_get(s, "max")));
    }
    for (const char *const *f = (const char *const[]){"read_bandwidth_gb_s", "memory_mib", "decode_gb_s", "decode_percent_of_bandwidth", NULL}; *f;
         f++)
        assert_true(json_real_value(json_object_get(object, *f)) > 0);
    json_decref(object);
    output_free(&o);
    o = RUN("bench", tiny(), "-p", "8", "-n", "2", "-r", "1", "--threads", "1");
    expect_ok(&o);
    assert_non_null(strstr(o.out, "read bandwidth"));
    assert_non_null(strstr(o.out, "tok/s"));
    output_free(&o);
}

static void test_synth_can_be_run(void **state)
{
    struct output o;

    (void)state;
    expect_text(RUN("tokenize", tiny(), "-p", "ab"), "256 97 98\n");
    o = RUN("run", tiny(), "-p", "ab", "-n", "4", "--temp", "0", "--threads", "1");
    expect_ok(&o);
    output_free(&o);
}

/* ---- bad input ---- */

static void write_file(const char *path, const void *data, size_t n_bytes)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n_bytes, f), n_bytes);
    fclose(f);
}

/* ---- render ---- */

/* A file with a text; its path is valid until the eighth call after this. */
static const char *text_file(const char *name, const char *text)
{
    static char paths[8][512];
    static unsigned turn;
    char *path = paths[turn++ % 8];

    snprintf(path, sizeof paths[0], "%s/%s", test_tmp_dir(), name);
    write_file(path, text, strlen(text));
    return path;
}

static void test_render_template(void **state)
{
    static const char context[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"Gr\xc3\xbc\xc3\x9f"
                                  "e\"}], \"add_generation_prompt\": true}";
    static const char wanted[] = "<|user|>\nGr\xc3\xbc\xc3\x9f"
                                 "e<|end|>\n<|assistant|>\n";
    const char *phi = test_data("templates/microsoft-Phi-3.5-mini-instruct.jinja"), *file = text_file("context.json", context);
    struct output o = RUN_WITH({.input = context}, "render", "--template", phi, "--context", "-");

    (void)state;
    expect_ok(&o);
    assert_string_equal(o.err, "");
    assert_string_equal(o.out, wanted);
    output_free(&o);
    expect_text(RUN("render", "--template", phi, "--context", file), wanted);
    expect_text(
        RUN_WITH({.input = "{{ strftime_now('%d %b %Y %H:%M') }}"}, "render", "--template", "-", "--context", file, "--now", "2026-01-15T12:34:56"),
        "15 Jan 2026 12:34");
    expect_text(RUN_WITH({.input = "{{ strftime_now('%H') }}"}, "render", "--template", "-", "--context", file, "--now", "2026-01-15"), "00");
}

static void test_render_errors(void **state)
{
    const char *context = text_file("context.json", "{}"), *template = text_file("t.jinja", "a\n{{ raise_exception('not this') }}");

    (void)state;
    expect_error(RUN("render", "--template", template, "--context", context), 1, "t.jinja: line 2: not this");
    expect_error(RUN("render", "--template", text_file("bad.jinja", "{% if %}"), "--context", context), 1, "bad.jinja: line 1: unexpected");
    expect_error(RUN("render", "--template", template, "--context", text_file("bad.json", "[]")), 1, "bad.json: context: not a JSON object");
    expect_error(RUN("render", "--template", template, "--context", tmp("none.json")), 1, "none.json");
    expect_error(RUN("render", "--template", tmp("none.jinja"), "--context", context), 1, "none.jinja");
    expect_error(RUN("render", demo(), "--context", context), 1, "the model has no chat template");
    expect_error(RUN("render", "--context", context), 2, "MODEL or --template");
    expect_error(RUN("render", demo(), "--template", template, "--context", context), 2, "not both");
    expect_error(RUN("render", "--template", template), 2, "--context");
    expect_error(RUN("render", "--template", template, "--name", "x", "--context", context), 2, "--name");
    expect_error(RUN("render", "--template", "-", "--context", "-"), 2, "standard input");
    expect_error(RUN("render", "--template", template, "--context", context, "--now", "yesterday"), 2, "--now: 'yesterday'");
    expect_error(RUN("render", "--template", template, "--context", context, "--now", "2026-02-31"), 2, "--now: '2026-02-31'");
    expect_error(RUN("render", "--template", template, "--context", context, "--now", ""), 2, "--now: ''");
    expect_error(RUN("render", "--template", template, "--context", "/dev/zero"), 1, "/dev/zero: more than");
    expect_error(RUN("render", "--template", "/dev/zero", "--context", context), 1, "/dev/zero: more than");
}

/* A model's templates, with the texts of its special tokens. */
static void test_render_model(void **state)
{
    static const char *const tokens[] = {"<unk>", "<s>", "</s>", "x"};
    const char *path = tmp("template.gguf"), *context = text_file("context.json", "{\"x\": 1}"),
               *own = text_file("own.json", "{\"bos_token\": \"B\"}");
    m40llm_writer *w;

    (void)state;
    assert_int_equal(m40llm_writer_open(&w, path, NULL), M40LLM_OK);
    m40llm_writer_set_string(w, "general.architecture", "llama", NULL);
    m40llm_writer_set_string(w, "tokenizer.chat_template", "{{ bos_token }}{{ x }}{{ eos_token }}{{ unk_token }}{{ pad_token is defined }}", NULL);
    m40llm_writer_set_string(w, "tokenizer.chat_template.tool_use", "{{ eos_token }}tools", NULL);
    m40llm_writer_set_string(w, "tokenizer.chat_template.bad", "{{ x.y.z }}", NULL);
    m40llm_writer_set_u32(w, "tokenizer.chat_template.number", 5, NULL);
    m40llm_writer_set_string_array(w, "tokenizer.ggml.tokens", tokens, 4, NULL);
    m40llm_writer_set_u32(w, "tokenizer.ggml.bos_token_id", 1, NULL);
    m40llm_writer_set_u32(w, "tokenizer.ggml.eos_token_id", 2, NULL);
    m40llm_writer_set_u32(w, "tokenizer.ggml.unknown_token_id", 0, NULL);
    m40llm_writer_set_u32(w, "tokenizer.ggml.padding_token_id", 99, NULL); /* beyond the vocabulary */
    assert_int_equal(m40llm_writer_finish(w, NULL), M40LLM_OK);
    m40llm_writer_close(&w);
    expect_text(RUN("render", path, "--context", context), "<s>1</s><unk>False");
    expect_text(RUN("render", path, "--context", own), "B</s><unk>False");
    expect_text(RUN("render", path, "--context", context, "--name", "tool_use"), "</s>tools");
    expect_error(RUN("render", path, "--context", context, "--name", "bad"), 1, "template.gguf: line 1: 'int object' has no attribute 'y'");
    expect_error(RUN("render", path, "--context", context, "--name", "other"), 1, "tokenizer.chat_template.other");
    expect_error(RUN("render", path, "--context", context, "--name", "number"), 1, "tokenizer.chat_template.number is not a string");
}

static void test_bad_models(void **state)
{
    const char *bad = tmp("bad.gguf");
    size_t n_bytes;
    char *data = test_read_file(tiny(), &n_bytes);

    (void)state;
    expect_error(RUN("run", tmp("missing.gguf"), "-p", "x"), 1, "missing.gguf");
    write_file(bad, "", 0);
    expect_error(RUN("run", bad, "-p", "x"), 1, "bad.gguf");
    expect_error(RUN("info", bad), 1, "bad.gguf");
    write_file(bad, data, n_bytes);
    for (int i = 15; i > 0; i--) {
        assert_int_equal(truncate(bad, (off_t)(n_bytes * (size_t)i / 16)), 0);
        expect_error(RUN("run", bad, "-p", "x"), 1, "bad.gguf");
    }
    memcpy(data, "GGML", 4);
    write_file(bad, data, n_bytes);
    expect_error(RUN("tokenize", bad, "-p", "x"), 1, "bad.gguf");
    free(data);
    expect_error(RUN("run", test_data("vocab/ggml-vocab-llama-spm.gguf"), "-p", "x"), 1, "ggml-vocab-llama-spm.gguf");
    expect_error(RUN("run", test_tmp_dir(), "-p", "x"), 1, test_tmp_dir());
}

static void test_bad_requests(void **state)
{
    (void)state;
    expect_error_at(RUN("logits", demo(), "--tokens", "1,4096", "-o", tmp("never")), 1, 3, "4096");
    assert_int_equal(access(tmp("never"), F_OK), -1);
    expect_error_at(RUN("run", demo(), "-p", "a b c d e f g h i j k l m n o p q r s t", "-c", "8", "--temp", "0"), 1, 3,
                    "more than the context of 8");
    expect_error(RUN("run", demo(), "-p", "x", "--ctx", "1025"), 1, "1024");
    expect_error(RUN("run", demo(), "-p", "x", "--ctx", "1025"), 1, demo());
}

static void test_unwritable_outputs(void **state)
{
    struct stat info;

    (void)state;
    expect_error(RUN("tensor", demo(), "token_embd.weight", "-o", tmp("no/folder")), 1, "no/folder");
    expect_error_at(RUN("logits", demo(), "--tokens", "1", "-o", tmp("no/folder")), 1, 3, "no/folder");
    expect_error(RUN("synth", "--shape", "tiny", "--type", "f16", "-o", tmp("no/folder")), 1, "no/folder");
    expect_error(RUN_WITH({.max_file_bytes = 65536}, "tensor", demo(), "token_embd.weight", "-o", tmp("part")), 1, "part");
    assert_int_equal(access(tmp("part"), F_OK), -1);
    expect_error_at(RUN_WITH({.max_file_bytes = 65536}, "logits", demo(), "--tokens", "1,2,3,4,5,6,7,8", "--all", "-o", tmp("part")), 1, 3, "part");
    assert_int_equal(access(tmp("part"), F_OK), -1);
    expect_error(RUN_WITH({.max_file_bytes = 65536}, "synth", "--shape", "tiny", "--type", "f16", "-o", tmp("part")), 1, "part");
    assert_int_equal(access(tmp("part"), F_OK), -1);
    expect_error(RUN("tensor", demo(), "token_embd.weight", "-o", "/dev/full"), 1, "/dev/full");
    expect_error(RUN("synth", "--shape", "tiny", "--type", "f16", "-o", "/dev/full"), 1, "/dev/full");
    assert_true(stat("/dev/full", &info) == 0 && S_ISCHR(info.st_mode)); /* not removed */
}

static void test_full_standard_output(void **state)
{
    (void)state;
    expect_error(RUN_WITH({.out_path = "/dev/full"}, "info", demo()), 1, "standard output");
    expect_error(RUN_WITH({.out_path = "/dev/full"}, "tokenize", demo(), "-p", "x"), 1, "standard output");
    expect_error(RUN_WITH({.out_path = "/dev/full"}, "run", "--help"), 1, "standard output");
    expect_error_at(RUN_WITH({.out_path = "/dev/full"}, "run", demo(), "-p", "x", "-n", "3", "--temp", "0"), 1, 3, "standard output");
    expect_error_at(RUN_WITH({.out_path = "/dev/full"}, "run", demo(), "-p", "x", "-n", "3", "--temp", "0", "--json"), 1, 3, "standard output");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_usage_errors),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_cublas_switch),
        cmocka_unit_test(test_run_greedy_equals_reference),
        cmocka_unit_test(test_run_takes_its_prompt_from_anywhere),
        cmocka_unit_test(test_run_json),
        cmocka_unit_test(test_printed_seed_reproduces),
        cmocka_unit_test(test_progress_on_a_terminal),
        cmocka_unit_test(test_interrupt_stops_cleanly),
        cmocka_unit_test(test_tokenize_and_back),
        cmocka_unit_test(test_tokenize_flags),
        cmocka_unit_test(test_logits_equal_reference),
        cmocka_unit_test(test_tensor),
        cmocka_unit_test(test_perplexity_equals_reference),
        cmocka_unit_test(test_info),
        cmocka_unit_test(test_bench),
        cmocka_unit_test(test_synth_can_be_run),
        cmocka_unit_test(test_render_template),
        cmocka_unit_test(test_render_errors),
        cmocka_unit_test(test_render_model),
        cmocka_unit_test(test_bad_models),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_unwritable_outputs),
        cmocka_unit_test(test_full_standard_output),
    };
    int n_failed;

    setenv("M40LLM_DEVICE", "cpu", 1);
    unsetenv("M40LLM_LOG");
    unsetenv("M40LLM_CUDA_LIB");
    unsetenv("M40LLM_FORCE_M40");
    unsetenv("M40LLM_ENABLE_CUBLAS");
    unsetenv("M40LLM_CUBLAS_LIB");
    reference = json_load_file(test_data("demo/demo_ref.json"), 0, NULL);
    if (!reference) {
        fprintf(stderr, "cannot read %s\n", test_data("demo/demo_ref.json"));
        return 1;
    }
    n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(reference);
    return n_failed;
}
