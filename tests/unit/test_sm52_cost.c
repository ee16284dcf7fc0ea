/* bench/sm52-cost: what it counts in listings of our own kernels (tests/data/sm52, as tools/sm52_listing.sh made them) against counts by hand, and what it says to text that
 * is no listing.
 *
 * Counting by hand: instructions lie 8 bytes apart, and every fourth 8 bytes (addresses divisible by 0x20) hold scheduling control. So a straight run from address a to
 * address b has (b - a) / 8 + 1 places, less the multiples of 0x20 among them. */
#include "harness/harness.h"

#include "bench/sm52_model.h"
#include "bench/sm52_parse.h"

static void read_listing(struct sm52_listing *listing, const char *name)
{
    size_t n_bytes;
    char *text = test_read_file(test_data(name), &n_bytes);
    m40llm_error err = {0};

    memset(listing, 0, sizeof *listing);
    if (sm52_parse(listing, text, n_bytes, &err) != M40LLM_OK)
        fail_msg("%s: %s", name, err.text);
    free(text);
}

static void read_cost(struct sm52_listing *listing, struct sm52_cost *cost, const char *name)
{
    m40llm_error err = {0};

    read_listing(listing, name);
    assert_int_equal(listing->n_kernels, 1);
    assert_int_equal(listing->kernels[0].n_unknown, 0);
    if (sm52_cost_read(cost, &listing->kernels[0], &err) != M40LLM_OK)
        fail_msg("%s: %s", name, err.text);
}

static uint32_t hot_address(const struct sm52_cost *cost, bool end)
{
    return cost->kernel->insts[end ? cost->hot.end - 1 : cost->hot.first].address;
}

/* One token, F16, all 256 columns unrolled: the run behind label .L_x_185, 0e58-2938, (0x2938 - 0x0e58) / 8 + 1 - 215 = 646 slots. A weight is one F2F and one FFMA; a
 * 16-byte load brings 8 weights, and one of shared memory 4 of x. What is left: 31 DEPBAR and a BRK; IADD, IADD.X, LOP32I, XMAD, XMAD.PSL and a SHL for addresses. */
static void test_unrolled(void **state)
{
    struct sm52_listing listing;
    struct sm52_cost c;

    (void)state;
    read_cost(&listing, &c, "sm52/matvec1_f16.sass");
    assert_int_equal(c.family, SM52_MATVEC);
    assert_int_equal(c.n_tokens, 1);
    assert_false(c.hot.is_loop);
    assert_int_equal(hot_address(&c, false), 0x0e58);
    assert_int_equal(hot_address(&c, true), 0x2938);
    assert_int_equal(c.pass.slots, 646);
    assert_int_equal(c.pass.n_ffma, 256);
    assert_int_equal(c.pass.pipe[SM52_ALU], 256 + 5);
    assert_int_equal(c.pass.pipe[SM52_HALF], 1);
    assert_int_equal(c.pass.pipe[SM52_QUARTER], 256);
    assert_int_equal(c.pass.pipe[SM52_SHARED], 64);
    assert_int_equal(c.pass.pipe[SM52_GLOBAL], 32);
    assert_int_equal(c.pass.pipe[SM52_CONTROL], 32);
    assert_int_equal(c.pass.global_load_bytes, 512);
    assert_int_equal(c.pass.shared_words, 256);
    assert_int_equal(c.weights.by_ffma, 256);
    assert_int_equal(c.weights.by_x, 256);
    assert_int_equal(c.weights.by_bytes, 256);
    /* seven LDG.E.128 (0e88-0ed0) before the first F2F (0ef8) that needs one */
    assert_int_equal(c.flight.max_bytes, 7 * 16);
    /* around it: 0008-0430, whose BRA goes to 0e58, is 134 - 33 = 101; then 2948-2a30, whose SYNC leaves, is 30 - 7 = 23; and 33b8-33e8, the EXIT, 5 */
    assert_int_equal(c.chunk.slots, 101 + 646 + 23 + 5);
    sm52_listing_free(&listing);
}

/* Eight tokens, Q4_K: a loop over sub-blocks of 32 columns, 10b8-2608, 683 - 171 = 512 slots. Each token has an FFMA for each weight and one for the sub-block's offset; a
 * weight's eight x are two 16-byte loads, the eight sums of x another two. ptxas made four 4-byte loads of the 16 bytes of quants. By opcode, counted with grep:
 *   128 lanes: 264 FFMA, 32 FADD, 35 FMUL, 4 IADD*, 24 LOP32I.AND, 32 LOP32I.OR, 2 LOP3, 1 LOP, 4 XMAD*, 1 MOV
 *   64 lanes: 17 SHR, 13 BFE, 2 SHL, 2 ISET, 1 ISETP, 1 LEA;  32 lanes: 2 F2F, 2 I2F;  control: 2 DEPBAR, 1 BRA */
static void test_loop(void **state)
{
    struct sm52_listing listing;
    struct sm52_cost c;

    (void)state;
    read_cost(&listing, &c, "sm52/matvec8_q4_k.sass");
    assert_int_equal(c.n_tokens, 8);
    assert_true(c.hot.is_loop);
    assert_int_equal(hot_address(&c, false), 0x10b8);
    assert_int_equal(hot_address(&c, true), 0x2608);
    assert_int_equal(c.pass.slots, 512);
    assert_int_equal(c.pass.n_ffma, 8 * 33);
    assert_int_equal(c.pass.pipe[SM52_ALU], 264 + 32 + 35 + 4 + 24 + 32 + 2 + 1 + 4 + 1);
    assert_int_equal(c.pass.pipe[SM52_HALF], 17 + 13 + 2 + 2 + 1 + 1);
    assert_int_equal(c.pass.pipe[SM52_QUARTER], 4);
    assert_int_equal(c.pass.pipe[SM52_SHARED], 66);
    assert_int_equal(c.pass.pipe[SM52_GLOBAL], 4);
    assert_int_equal(c.pass.pipe[SM52_CONTROL], 3);
    assert_int_equal(c.pass.n_global_loads, 4);
    assert_int_equal(c.pass.global_load_bytes, 16);
    assert_int_equal(c.pass.shared_words, 66 * 4);
    assert_int_equal(c.weights.n, 32);
    assert_int_equal(c.weights.by_bytes, 32);
    assert_int_equal(c.n_passes, 8);
    assert_true(sm52_hot_slots(&c) == 16.0);
    /* The chunk: 0008-02d0 once, 401 - 333 = 68; two stages of 02d8-10b0, 444 - 111 = 333 each; eight passes; between the stages the SYNC of 2610 and 2618-2630, 4; and out:
     * those 4 again, 2638-2768, whose SYNC leaves, 39 - 10 = 29, and 30e8-3110, the EXIT, 5. */
    assert_int_equal(c.chunk.slots, 68 + 2 * 333 + 8 * 512 + 4 + 4 + 29 + 5);
    assert_int_equal(c.chunk.n_ffma, 8 * 8 * 33);
    sm52_listing_free(&listing);
}

/* The sum of squares, four values a turn: 0178-0290, 36 - 9 = 27 slots: 4 LDG, 4 FFMA, 4 SHR, 4 ISCADD, 1 ISETP, 4 IADD32I and 4 IADD.X, a DEPBAR and the BRA. */
static void test_other_kernel(void **state)
{
    struct sm52_listing listing;
    struct sm52_cost c;

    (void)state;
    read_cost(&listing, &c, "sm52/rms_norm.sass");
    assert_int_equal(c.family, SM52_OTHER);
    assert_null(c.format);
    assert_int_equal(hot_address(&c, false), 0x0178);
    assert_int_equal(hot_address(&c, true), 0x0290);
    assert_int_equal(c.pass.slots, 27);
    assert_int_equal(c.pass.n_ffma, 4);
    assert_int_equal(c.pass.pipe[SM52_ALU], 12);
    assert_int_equal(c.pass.pipe[SM52_HALF], 9);
    assert_int_equal(c.pass.pipe[SM52_CONTROL], 2);
    assert_int_equal(c.pass.global_load_bytes, 16);
    assert_int_equal(c.flight.max_bytes, 16);
    sm52_listing_free(&listing);
}

static void assert_occupancy(uint32_t n_registers, uint32_t n_shared_bytes, uint32_t n_threads, uint32_t n_blocks, enum sm52_limit limit)
{
    struct sm52_occupancy o = sm52_occupancy(n_registers, n_shared_bytes, n_threads);

    assert_int_equal(o.n_blocks, n_blocks);
    assert_int_equal(o.n_warps, n_blocks * ((n_threads + 31) / 32));
    assert_int_equal(o.limit, limit);
}

/* Registers go to warps in 256s, and a scheduler has 16384: 62 registers are 2048 a warp, 8 warps a scheduler; 97 are 3328, 4 warps; 168 are 5376, 3. */
static void test_occupancy(void **state)
{
    (void)state;
    assert_occupancy(62, 9488, 256, 4, SM52_BY_REGISTERS);
    assert_occupancy(97, 34832, 256, 2, SM52_BY_REGISTERS);
    assert_occupancy(168, 17920, 128, 3, SM52_BY_REGISTERS);
    assert_occupancy(32, 0, 256, 8, SM52_BY_REGISTERS);
    assert_occupancy(17, 32, 256, 8, SM52_BY_THREADS);
    assert_occupancy(16, 0, 32, 32, SM52_BY_BLOCKS);
    assert_occupancy(32, 20000, 128, 4, SM52_BY_SHARED); /* 20224 in units of 256 */
    assert_occupancy(255, 0, 1024, 0, SM52_BY_REGISTERS);
}

/* 4096 x 14336 in F16 is 117.4 MB: 473.5 us at 248 GB/s. 128 row tiles x 56 chunks of 646 slots, and 775 - 646 around them for each of the 32 warps that an SM keeps, 4 a clock and
 * SM, are 44.4 us of issue; as many chunks of 256 conversions at one a clock 68.9 us. */
static void test_time(void **state)
{
    struct sm52_listing listing;
    struct sm52_cost c;
    struct sm52_time time;

    (void)state;
    read_cost(&listing, &c, "sm52/matvec1_f16.sass");
    time = sm52_matmul_time(&c, 4096, 14336, 1, SM52_READ_BYTES_S);
    assert_int_equal(time.bound, SM52_MEMORY);
    assert_float_equal(time.s * 1e6, 4096.0 * 14336 * 2 / 248e3, 0.01);
    assert_float_equal(time.limit_s[SM52_ISSUE] * 1e6, (128 * 56 * 646 + 24 * 32 * (775 - 646)) / (4 * 24 * 1110.0), 0.01);
    assert_float_equal(time.limit_s[SM52_CONVERSION] * 1e6, 128 * 56 * 256 / (24 * 1110.0), 0.01);
    /* with an eighth of the bandwidth gone, memory still binds */
    time = sm52_matmul_time(&c, 4096, 14336, 1, SM52_READ_BYTES_S * SM52_ECC_FACTOR);
    assert_float_equal(time.s * 1e6, 4096.0 * 14336 * 2 / 248e3 / 0.88, 0.01);
    sm52_listing_free(&listing);
}

/* A whole model needs the kernels of all of its types. */
static void test_model(void **state)
{
    struct sm52_listing listing;
    struct sm52_cost c;
    struct sm52_prediction p;
    /* Llama 3.1 8B: per layer 2 x 4096^2 + 2 x 4096 x 1024 + 3 x 4096 x 14336 weights, and the output matrix */
    const double n_weights = 32.0 * (2.0 * 4096 * 4096 + 2.0 * 4096 * 1024 + 3.0 * 4096 * 14336) + 4096.0 * 128256;

    (void)state;
    read_cost(&listing, &c, "sm52/matvec1_f16.sass");
    assert_true(sm52_predict(&c, 1, &sm52_models[1], &sm52_mixes[0], SM52_MATVEC, 1, SM52_READ_BYTES_S, &p));
    assert_float_equal(p.bytes / 1e9, n_weights * 2 / 1e9, 1e-6);
    assert_float_equal(p.s, n_weights * 2 / 248e9, 1e-9);
    assert_false(sm52_predict(&c, 1, &sm52_models[1], &sm52_mixes[0], SM52_MATVEC, 2, SM52_READ_BYTES_S, &p));
    assert_false(sm52_predict(&c, 1, &sm52_models[1], &sm52_mixes[1], SM52_MATVEC, 1, SM52_READ_BYTES_S, &p));
    sm52_listing_free(&listing);
}

/* A GEMM's loop as cuobjdump prints it: after the head (2 slots) half of the warps load (the BRA, 3 more), half go round (the BRA); then 4 FFMA, ISETP and BRA. */
static const char gemm[] = "//sm52 kernel=gemm128_f16 registers=32 shared=1024 threads=256\n"
                           "\t\tFunction : gemm128_f16\n"
                           "        /*0008*/                   MOV R1, c[0x0][0x20];      /* 0x4c98078000870001 */\n"
                           "                                                               /* 0x001fc000e22007f6 */\n"
                           "        /*0010*/                   IADD R2, R2, R1;\n"
                           "        /*0018*/                   BAR.SYNC 0x0;\n"
                           "        /*0028*/              @!P0 BRA 0x48;\n"
                           "        /*0030*/                   LDG.E.64 R4, [R2];\n"
                           "        /*0038*/                   F2F.F32.F16 R6, R5.H1;\n"
                           "        /*0040*/                   STS.64 [R2], R6;\n"
                           "        /*0048*/                   FFMA R8, R9, R10, R8;\n"
                           "        /*0050*/         {         FFMA R8, R9, R10, R8;\n"
                           "        /*0058*/               @P1 LDS.U.128 R12, [R3];    }\n"
                           "        /*0068*/                   FFMA R8, R9, R10, R8;\n"
                           "        /*0070*/                   FFMA R8, R9, R10, R8;\n"
                           "        /*0078*/                   ISETP.NE.AND P2, PT, R2, RZ, PT;\n"
                           "        /*0088*/               @P2 BRA 0x10;\n"
                           "        /*0090*/                   EXIT;\n";

static void test_gemm(void **state)
{
    struct sm52_listing listing = {0};
    struct sm52_cost c;

    (void)state;
    assert_int_equal(sm52_parse(&listing, gemm, sizeof gemm - 1, NULL), M40LLM_OK);
    assert_int_equal(sm52_cost_read(&c, &listing.kernels[0], NULL), M40LLM_OK);
    assert_int_equal(c.family, SM52_GEMM);
    assert_true(c.hot.is_loop);
    assert_int_equal(hot_address(&c, false), 0x10);
    assert_int_equal(hot_address(&c, true), 0x88);
    assert_int_equal(c.pass.slots, (3 + 3 + 7 + 3 + 7) / 2);
    assert_int_equal(c.pass.n_ffma, 4);
    assert_int_equal(c.flight.max_bytes, 8);
    assert_int_equal(c.flight.wait_clocks, SM52_LATENCY_CLOCKS - 1); /* the F2F is the next instruction */
    sm52_listing_free(&listing);
}

#define HEAD "//sm52 kernel=k registers=8 shared=0 threads=32\n.section .text.k,\"ax\"\n"

static void test_bad_listings(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "no kernels"},
        {"an error of some other program\n", "no kernels"},
        {"/*0008*/ EXIT ;\n", "outside any kernel"},
        {HEAD, "no instructions"},
        {".section .text.k,\"ax\"\n/*0008*/ EXIT ;\n", "no //sm52 line"},
        {"//sm52 kernel=k registers=8 shared=0 threads=32\n", "no code"},
        {"//sm52 registers=8\n", "no kernel=NAME"},
        {"//sm52 kernel=k shared=0 threads=32\n", "no  registers="},
        {"//sm52 kernel=k registers=256 shared=0 threads=32\n", "not in 1..255"},
        {"//sm52 kernel=k registers=8 shared=0 threads=0\n", "not in 1..1024"},
        {"//sm52 kernel=k registers=8 shared=99999999999999999999999 threads=1\n", "not in 0..49152"},
        {"//sm52 kernel=k registers=8 shared=0 threads=32\n" HEAD, "comes twice"},
        {HEAD "/*0008*/ EXIT ;\n.section .text.k,\"ax\"\n/*0008*/ EXIT ;\n", "comes twice"},
        {HEAD "/*0008*/ NOP ;\n/*0008*/ EXIT ;\n", "does not rise"},
        {HEAD "/*0008*/ @P0\n", "no opcode"},
        {HEAD "/*0008*/ ;\n", "no opcode"},
        {HEAD "/*0008*/ BRA `(.L_x_9) ;\n", "which is nowhere"},
        {HEAD "/*0008*/ BRA 0x100 ;\n", "which is nowhere"},
        {HEAD "/*0008*/ BRA R3 ;\n", "without a target"},
        {HEAD "/*0008*/ SYNC ;\n", "nowhere to go"},
        {HEAD ".L_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:\n", "too long"},
        {".section .text.,\"ax\"\n", "without a name"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sm52_listing listing = {0};
        m40llm_error err = {0};

        assert_int_equal(sm52_parse(&listing, cases[i].text, strlen(cases[i].text), &err), M40LLM_BAD_FILE);
        if (!strstr(err.text, cases[i].says))
            fail_msg("case %zu: `%s' does not say `%s'", i, err.text, cases[i].says);
        sm52_listing_free(&listing);
    }
}

static void test_not_text(void **state)
{
    static char text[1000];
    struct sm52_listing listing = {0};
    m40llm_error err;

    (void)state;
    assert_int_equal(sm52_parse(&listing, text, sizeof text, &err), M40LLM_BAD_FILE);
    assert_string_equal(err.text, "not text");
    memset(text, 'x', sizeof text);
    assert_int_equal(sm52_parse(&listing, text, sizeof text, &err), M40LLM_BAD_FILE);
    assert_non_null(strstr(err.text, "longer than"));
    sm52_listing_free(&listing);
}

/* A kernel of a mat-vec's name that is none, and one that does not fit an SM, are refused in words. */
static void test_bad_kernels(void **state)
{
    static const char *const texts[] = {
        "//sm52 kernel=matvec1_f16 registers=8 shared=0 threads=32\n.section .text.matvec1_f16,\"ax\"\n/*0008*/ NOP ;\n/*0010*/ EXIT ;\n",
        "//sm52 kernel=gemm64_f16 registers=8 shared=0 threads=32\n.section .text.gemm64_f16,\"ax\"\n/*0008*/ NOP ;\n/*0010*/ EXIT ;\n",
        "//sm52 kernel=k registers=255 shared=0 threads=1024\n.section .text.k,\"ax\"\n/*0008*/ EXIT ;\n",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct sm52_listing listing = {0};
        struct sm52_cost c;
        m40llm_error err = {0};

        assert_int_equal(sm52_parse(&listing, texts[i], strlen(texts[i]), &err), M40LLM_OK);
        assert_int_equal(sm52_cost_read(&c, &listing.kernels[0], &err), M40LLM_BAD_FILE);
        assert_non_null(strstr(err.text, listing.kernels[0].name));
        sm52_listing_free(&listing);
    }
}

/* Opcodes that the table of pipes does not know are counted as such, and named. */
static void test_unknown_opcode(void **state)
{
    static const char text[] = HEAD "/*0008*/ FROB.X R1, R2 ;\n/*0010*/ EXIT ;\n";
    struct sm52_listing listing = {0};
    struct sm52_cost c;

    (void)state;
    assert_int_equal(sm52_parse(&listing, text, sizeof text - 1, NULL), M40LLM_OK);
    assert_int_equal(listing.kernels[0].n_unknown, 1);
    assert_string_equal(listing.kernels[0].unknown, "FROB.X");
    assert_int_equal(sm52_cost_read(&c, &listing.kernels[0], NULL), M40LLM_OK);
    assert_int_equal(c.pass.slots, 2);
    assert_int_equal(c.pass.pipe[SM52_UNKNOWN], 1);
    sm52_listing_free(&listing);
}

/* A listing with bytes changed, cut short: an answer or an error, and no more. */
static void test_damaged_listings(void **state)
{
    size_t n_bytes;
    char *text = test_read_file(test_data("sm52/rms_norm.sass"), &n_bytes);
    char *damaged = malloc(n_bytes);
    uint64_t random = test_seed() ^ 0x736d3532;

    (void)state;
    assert_non_null(damaged);
    for (int round = 0; round < 200; round++) {
        struct sm52_listing listing = {0};
        struct sm52_cost c;
        size_t n = round % 2 ? n_bytes : test_random(&random) % n_bytes;

        memcpy(damaged, text, n);
        for (int i = 0; i < 8 && n; i++)
            damaged[test_random(&random) % n] = " \n*/0xL_.[]RPB1f@{};"[test_random(&random) % 20];
        if (sm52_parse(&listing, damaged, n, NULL) == M40LLM_OK)
            for (size_t i = 0; i < listing.n_kernels; i++)
                if (sm52_cost_read(&c, &listing.kernels[i], NULL) == M40LLM_OK)
                    assert_in_range(c.pass.slots, 1, listing.kernels[i].n_insts);
        sm52_listing_free(&listing);
    }
    free(damaged);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unrolled),    cmocka_unit_test(test_loop),           cmocka_unit_test(test_other_kernel),
        cmocka_unit_test(test_occupancy),   cmocka_unit_test(test_time),           cmocka_unit_test(test_model),
        cmocka_unit_test(test_gemm),        cmocka_unit_test(test_bad_listings),   cmocka_unit_test(test_not_text),
        cmocka_unit_test(test_bad_kernels), cmocka_unit_test(test_unknown_opcode), cmocka_unit_test(test_damaged_listings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
