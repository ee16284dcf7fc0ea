#include "bench/sm52_model.h"
#include "backend/cuda/kernels/matmul_args.h"
#include "base/mem.h"
#include "base/status.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

const char *const sm52_bound_names[SM52_N_BOUNDS] = {"memory", "issue", "conversion", "64-lane", "shared", "latency"};

/* ---- occupancy: the allocation units of compute capability 5.2 ---- */

struct sm52_occupancy sm52_occupancy(uint32_t n_registers, uint32_t n_shared_bytes, uint32_t n_threads)
{
    const uint32_t warps = (n_threads + 31) / 32;
    const uint32_t registers_per_warp = (uint32_t)m40_round_up(n_registers * 32, 256);
    const uint32_t shared = (uint32_t)m40_round_up(n_shared_bytes, 256);
    /* each of the four schedulers has 16384 registers of its own; a block takes warps from them in turn */
    const uint32_t limits[] = {
        [SM52_BY_REGISTERS] = 16384 / registers_per_warp * 4 / warps,
        [SM52_BY_SHARED] = shared ? 98304 / shared : UINT32_MAX,
        [SM52_BY_THREADS] = 64 / warps,
        [SM52_BY_BLOCKS] = 32,
    };
    struct sm52_occupancy occupancy = {.n_blocks = UINT32_MAX};

    for (int i = 0; i < 4; i++) {
        if (limits[i] < occupancy.n_blocks) {
            occupancy.n_blocks = limits[i];
            occupancy.limit = (enum sm52_limit)i;
        }
    }
    occupancy.n_warps = occupancy.n_blocks * warps;
    return occupancy;
}

/* ---- loops and straight runs ---- */

/* Whether a straight run ends with instruction i: control may leave it there, or come in behind it. */
static bool ends_run(const struct sm52_kernel *k, uint32_t i, const bool *is_target)
{
    return i + 1 >= k->n_insts || k->insts[i].flow != SM52_NEXT || is_target[i + 1];
}

static bool is_back_branch(const struct sm52_kernel *k, uint32_t i)
{
    return k->insts[i].flow == SM52_BRANCH && k->insts[i].target <= i;
}

bool sm52_enclosing_loop(const struct sm52_kernel *k, struct sm52_region region, struct sm52_region *loop)
{
    uint32_t least = UINT32_MAX;

    for (uint32_t i = 0; i < k->n_insts; i++) {
        uint32_t first = k->insts[i].target, size = i + 1 - first;

        if (!is_back_branch(k, i) || first > region.first || i + 1 < region.end || size >= least || size <= region.end - region.first)
            continue;
        least = size;
        *loop = (struct sm52_region){first, i + 1, true};
    }
    return least != UINT32_MAX;
}

static bool *find_targets(const struct sm52_kernel *k)
{
    bool *is_target = m40_calloc(k->n_insts, sizeof *is_target);

    for (uint32_t i = 0; is_target && i < k->n_insts; i++)
        if (k->insts[i].target != SM52_NO_TARGET)
            is_target[k->insts[i].target] = true;
    return is_target;
}

/* The straight run with the most FFMA that no predicate guards; where two are equal, one that is in a loop. */
static struct sm52_region busiest_run(const struct sm52_kernel *k, const bool *is_target)
{
    struct sm52_region best = {0, k->n_insts, false}, loop;
    uint64_t best_score = 0;

    for (uint32_t i = 0, first = 0; i < k->n_insts; i++) {
        struct sm52_region run = {first, i + 1, false};
        uint64_t score = 0;

        if (!ends_run(k, i, is_target))
            continue;
        for (uint32_t j = first; j <= i; j++)
            score += k->insts[j].is_ffma && !k->insts[j].is_predicated ? 2 : 0;
        if (score && sm52_enclosing_loop(k, run, &loop))
            score++;
        if (score > best_score) {
            best = run;
            best_score = score;
        }
        first = i + 1;
    }
    return best;
}

static struct sm52_region busiest_loop(const struct sm52_kernel *k)
{
    struct sm52_region best = {0, k->n_insts, false};
    uint64_t best_score = 0;

    for (uint32_t i = 0; i < k->n_insts; i++) {
        struct sm52_counts counts;
        uint64_t score;
        bool has_inner = false;

        if (!is_back_branch(k, i))
            continue;
        for (uint32_t j = k->insts[i].target; j < i; j++)
            has_inner |= is_back_branch(k, j) && k->insts[j].target > k->insts[i].target;
        counts = sm52_count(k, k->insts[i].target, i + 1);
        score = ((uint64_t)counts.global_load_bytes << 32) + counts.slots;
        if (!has_inner && score > best_score && counts.slots > 1) {
            best = (struct sm52_region){k->insts[i].target, i + 1, true};
            best_score = score;
        }
    }
    return best;
}

/* busiest_run, or nothing where there is no memory. */
static struct sm52_region find_run(const struct sm52_kernel *k)
{
    bool *is_target = find_targets(k);
    struct sm52_region run = {0};

    if (is_target)
        run = busiest_run(k, is_target);
    m40_free(is_target);
    return run;
}

struct sm52_region sm52_hot_region(const struct sm52_kernel *k, enum sm52_family family)
{
    struct sm52_region run = {0}, loop;

    if (family != SM52_OTHER)
        run = find_run(k);
    if (run.end == 0)
        return busiest_loop(k);
    if (k->insts[run.end - 1].flow == SM52_BRANCH && k->insts[run.end - 1].target == run.first)
        run.is_loop = true;
    else if (sm52_enclosing_loop(k, run, &loop))
        run = loop;
    return run;
}

/* ---- ways through the code ---- */

/* What lanes of a warp do at a predicated SYNC or EXIT on the way. */
enum way {
    WAY_ALL_WORK, /* some lanes always go on */
    WAY_SHORTEST, /* all may leave */
};

struct walk {
    const struct sm52_kernel *kernel;
    uint32_t end; /* beyond the last instruction that belongs to it */
    bool longest; /* the way with the most slots rather than the fewest */
    enum way way;
};

/* cost[i]: slots of the chosen way from instruction i (included) to `goal` (excluded) without going back; next[i]: where it goes on. UINT32_MAX: no way. goal == the
 * kernel's n_insts: any EXIT. */
static void walk_costs(const struct walk *w, uint32_t goal, uint32_t *cost, uint32_t *next)
{
    const struct sm52_kernel *k = w->kernel;

    for (uint32_t i = w->end; i-- > 0;) {
        const struct sm52_inst *inst = &k->insts[i];
        bool may_go = inst->flow != SM52_NEXT && (w->way == WAY_SHORTEST || !inst->is_predicated || inst->flow == SM52_BRANCH);
        bool may_stay = inst->flow == SM52_NEXT || inst->is_predicated;
        uint32_t to[2] = {may_stay ? i + 1 : UINT32_MAX, UINT32_MAX};
        uint32_t best = UINT32_MAX;

        next[i] = UINT32_MAX;
        if (may_go)
            to[1] = inst->flow == SM52_END ? k->n_insts : inst->target > i ? inst->target : UINT32_MAX;
        for (int j = 0; j < 2; j++) {
            uint32_t rest = to[j] == goal ? 0 : to[j] < w->end ? cost[to[j]] : UINT32_MAX;

            if (rest == UINT32_MAX || (best != UINT32_MAX && (w->longest ? rest <= best : rest >= best)))
                continue;
            best = rest;
            next[i] = to[j];
        }
        cost[i] = best == UINT32_MAX ? best : best + 1;
    }
}

/* A way: the instructions that a warp issues, in order. Zero it to begin. */
struct trail {
    uint32_t *insts;
    size_t n, capacity;
};

static bool trail_append(struct trail *trail, const uint32_t *insts, size_t n)
{
    if (trail->n + n > trail->capacity) {
        size_t capacity = 2 * (trail->n + n);
        uint32_t *bigger = m40_realloc_array(trail->insts, capacity, sizeof *bigger);

        if (!bigger)
            return false;
        trail->insts = bigger;
        trail->capacity = capacity;
    }
    if (n)
        memcpy(trail->insts + trail->n, insts, n * sizeof *insts);
    trail->n += n;
    return true;
}

/* Appends the way from `from` (included) to `goal` (not included); false where there is none, or no memory. */
static bool add_way(const struct walk *w, uint32_t from, uint32_t goal, struct trail *trail)
{
    uint32_t *cost, *next;
    bool is_found;

    if (from == goal)
        return true;
    cost = m40_calloc(w->kernel->n_insts, 2 * sizeof *cost);
    if (!cost)
        return false;
    next = cost + w->kernel->n_insts;
    walk_costs(w, goal, cost, next);
    is_found = from < w->end && cost[from] != UINT32_MAX;
    for (uint32_t i = from; is_found && i != goal; i = next[i])
        is_found = trail_append(trail, &i, 1);
    m40_free(cost);
    return is_found;
}

static struct sm52_counts count_trail(const struct sm52_kernel *k, const struct trail *trail)
{
    struct sm52_counts sum = {0};

    for (size_t i = 0; i < trail->n; i++) {
        struct sm52_counts one = sm52_count(k, trail->insts[i], trail->insts[i] + 1);

        sm52_counts_add(&sum, &one, 1);
    }
    return sum;
}

/* ---- loads under way ---- */

struct load {
    uint64_t dest[4];
    uint32_t n_bytes;
    size_t slot;
};

static bool uses(const struct sm52_inst *inst, const struct load *load)
{
    uint64_t common = 0;

    for (int i = 0; i < 4; i++)
        common |= inst->regs[i] & load->dest[i];
    return common != 0;
}

struct sm52_flight sm52_flight(const struct sm52_kernel *k, const uint32_t *insts, size_t n)
{
    struct sm52_flight flight = {0};
    struct load loads[128];
    size_t n_loads = 0, clock = 0;
    uint32_t n_bytes = 0;

    for (size_t slot = 0; slot < n; slot++, clock++) {
        const struct sm52_inst *inst = &k->insts[insts[slot]];
        size_t i = n_loads;

        while (i > 0 && !uses(inst, &loads[i - 1]))
            i--;
        if (i > 0) { /* waits for load i - 1; what began before it has come too */
            size_t since = clock - loads[i - 1].slot;

            if (since < SM52_LATENCY_CLOCKS) {
                flight.wait_clocks += (uint32_t)(SM52_LATENCY_CLOCKS - since);
                clock += SM52_LATENCY_CLOCKS - since;
            }
            for (size_t j = 0; j < i; j++)
                n_bytes -= loads[j].n_bytes;
            n_loads -= i;
            memmove(loads, loads + i, n_loads * sizeof loads[0]);
        }
        if (inst->is_global_load && n_loads < sizeof loads / sizeof loads[0]) {
            loads[n_loads] = (struct load){.n_bytes = inst->load_bytes, .slot = clock};
            memcpy(loads[n_loads++].dest, inst->dest, sizeof inst->dest);
            n_bytes += inst->load_bytes;
        }
        if (n_bytes > flight.max_bytes)
            flight.max_bytes = n_bytes;
    }
    return flight;
}

/* ---- one kernel ---- */

/* The format of that name, in small letters. */
static const struct m40_format *format_by_suffix(const char *suffix)
{
    for (uint32_t i = 0; i < M40_DTYPE_LIMIT; i++)
        if (m40_dtypes[i].name && strcasecmp(m40_dtypes[i].name, suffix) == 0)
            return m40_format(i);
    return NULL;
}

static void classify(struct sm52_cost *cost)
{
    const char *name = cost->kernel->name;
    unsigned n_tokens = 0;
    int n_read = 0;

    cost->family = SM52_OTHER;
    if (sscanf(name, "matvec%2u_%n", &n_tokens, &n_read) == 1 && n_read && n_tokens)
        cost->family = SM52_MATVEC;
    else if (sscanf(name, "gemm%3u_%n", &n_tokens, &n_read) == 1 && n_read && n_tokens)
        cost->family = SM52_GEMM;
    cost->n_tokens = n_tokens;
    cost->format = cost->family == SM52_OTHER ? NULL : format_by_suffix(name + n_read);
    if (!cost->format)
        cost->family = SM52_OTHER;
}

static uint32_t floor_power(uint32_t n)
{
    uint32_t power = 1;

    while (power <= n / 2)
        power *= 2;
    return n ? power : 0;
}

/* The power of two that lies nearest by ratio. */
static uint32_t nearest_power(double n)
{
    uint32_t power = 1;

    while (power < 65536 && (double)power * 1.41421356 < n)
        power *= 2;
    return power;
}

/* FFMAs that a weight takes: one for each token, and one that widens it (tensor/formats/unpack.h) except in the formats that keep the values' own zeros and infinities. */
static uint32_t ffmas_per_weight(const struct sm52_cost *cost)
{
    const struct m40_dtype_info *type = cost->format->type;

    return cost->n_tokens + (type->block_elems > 1 && type->number != M40_DTYPE_MXFP4);
}

static struct sm52_weights find_weights(const struct sm52_cost *cost)
{
    const double bytes_per_weight = cost->format->tile_bytes / 8192.0;
    struct sm52_weights w = {
        .by_ffma = floor_power(cost->pass.n_ffma / ffmas_per_weight(cost)),
        .by_x = floor_power(cost->pass.shared_words / cost->n_tokens),
        .by_bytes = nearest_power(cost->pass.global_load_bytes / bytes_per_weight),
    };

    w.n_row_tiles = w.by_x ? nearest_power((double)cost->pass.n_ffma / ffmas_per_weight(cost) / w.by_x) : 1;
    w.by_x *= w.n_row_tiles;
    if (w.by_ffma == w.by_x || w.by_ffma == w.by_bytes)
        w.n = w.by_ffma;
    else if (w.by_x == w.by_bytes)
        w.n = w.by_x;
    return w;
}

/* Two passes in a row are enough to see the loads of the next one under way. */
static uint32_t bytes_under_way(const struct sm52_kernel *k, struct sm52_region region, const struct trail *pass)
{
    struct trail twice = {0};
    uint32_t max_bytes = 0;

    if (trail_append(&twice, pass->insts, pass->n) && (!region.is_loop || trail_append(&twice, pass->insts, pass->n)))
        max_bytes = sm52_flight(k, twice.insts, twice.n).max_bytes;
    m40_free(twice.insts);
    return max_bytes;
}

/* A mat-vec kernel's hot region once, by way of its busiest run: the loop of the kernels for few tokens has another way for a chunk that is not whole. */
static m40llm_status read_pass(struct sm52_cost *cost, struct trail *pass, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct sm52_kernel *k = cost->kernel;
    const struct walk walk = {k, cost->hot.end, false, WAY_ALL_WORK};
    const uint32_t last = cost->hot.end - 1, run = find_run(k).first, middle = run > cost->hot.first && run < last ? run : cost->hot.first;

    M40_FAIL_IF(!add_way(&walk, cost->hot.first, middle, pass) || !add_way(&walk, middle, last, pass) || !trail_append(pass, &last, 1),
                M40LLM_BAD_FILE, "kernel %s: no way through its hot code", k->name);
    cost->pass = count_trail(k, pass);
    cost->flight.max_bytes = bytes_under_way(k, cost->hot, pass);
    cost->weights = find_weights(cost);
    M40_FAIL_IF(cost->weights.n == 0 || cost->weights.n > 256 * cost->weights.n_row_tiles, M40LLM_BAD_FILE,
                "kernel %s: a pass of %04x takes %u, %u or %u weights", k->name, (unsigned)k->insts[cost->hot.first].address, cost->weights.by_ffma,
                cost->weights.by_x, cost->weights.by_bytes);
    cost->n_passes = 256 * cost->weights.n_row_tiles / cost->weights.n;
fail:
    return status;
}

/* The passes of one stage. */
static bool add_passes(const struct trail *pass, uint32_t n, struct trail *trail)
{
    bool is_ok = true;

    for (uint32_t i = 0; i < n && is_ok; i++)
        is_ok = trail_append(trail, pass->insts, pass->n);
    return is_ok;
}

/* All that a warp does for a chunk. matvec_tmpl.h: the x of a chunk comes to shared memory in stages of 1024 floats a warp; where there is more than one, a loop over them
 * is around the hot one. On the way to the hot code all lanes work; on the way out the shortest way counts, because few of a block's
 * warps add the sums; it is that of a matrix with one group of K. */
static m40llm_status read_matvec(struct sm52_cost *cost, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct sm52_kernel *k = cost->kernel;
    const struct sm52_inst *last = &k->insts[cost->hot.end - 1];
    /* where control goes on: a straight run may end in a SYNC, which goes elsewhere */
    const uint32_t after = !cost->hot.is_loop && last->flow != SM52_NEXT && last->target != SM52_NO_TARGET ? last->target : cost->hot.end;
    const uint32_t stage_weights = cost->n_tokens <= 4 ? 256 : 1024 / cost->n_tokens;
    struct sm52_region outer = cost->hot;
    const uint32_t n_stages = sm52_enclosing_loop(k, cost->hot, &outer) ? 256 / stage_weights : 1;
    const struct walk in = {k, k->n_insts, false, WAY_ALL_WORK}, out = {k, k->n_insts, false, WAY_SHORTEST},
                      back = {k, outer.end, false, WAY_SHORTEST};
    struct trail pass = {0}, chunk = {0};

    M40_TRY(read_pass(cost, &pass, err));
    for (uint32_t stage = 0; stage < n_stages; stage++) {
        M40_FAIL_IF(!add_way(&in, stage ? outer.first : 0, cost->hot.first, &chunk), M40LLM_BAD_FILE, "kernel %s: no way to its hot code", k->name);
        M40_FAIL_IF(!add_passes(&pass, cost->n_passes / n_stages, &chunk), M40LLM_NO_MEMORY, "kernel %s", k->name);
        M40_FAIL_IF(stage < n_stages - 1 && (!add_way(&back, after, outer.end - 1, &chunk) || !trail_append(&chunk, &(uint32_t){outer.end - 1}, 1)),
                    M40LLM_BAD_FILE, "kernel %s: no way through its outer loop", k->name);
    }
    M40_FAIL_IF(!add_way(&out, after, k->n_insts, &chunk), M40LLM_BAD_FILE, "kernel %s: no way from its hot code to its end", k->name);
    cost->chunk = count_trail(k, &chunk);
    cost->flight.wait_clocks = sm52_flight(k, chunk.insts, chunk.n).wait_clocks;
fail:
    m40_free(pass.insts);
    m40_free(chunk.insts);
    return status;
}

static struct sm52_counts mean_counts(const struct sm52_counts *a, const struct sm52_counts *b)
{
    struct sm52_counts mean = {.slots = (a->slots + b->slots) / 2};

    for (int i = 0; i < SM52_N_PIPES; i++)
        mean.pipe[i] = (a->pipe[i] + b->pipe[i]) / 2;
    mean.n_ffma = (a->n_ffma + b->n_ffma) / 2;
    mean.n_global_loads = (a->n_global_loads + b->n_global_loads) / 2;
    mean.n_shared_loads = (a->n_shared_loads + b->n_shared_loads) / 2;
    mean.global_load_bytes = (a->global_load_bytes + b->global_load_bytes) / 2;
    mean.shared_words = (a->shared_words + b->shared_words) / 2;
    return mean;
}

/* One step of a GEMM warp: `step` from its first to its last instruction, and within it n_rounds times through the loop with the straight run of FFMA. */
static bool add_step(const struct walk *w, struct sm52_region step, struct sm52_region inner, uint32_t run_first, uint32_t n_rounds,
                     struct trail *trail)
{
    const uint32_t last = step.end - 1, inner_last = inner.end - 1;
    bool is_ok = add_way(w, step.first, run_first, trail);

    for (uint32_t i = 1; i < n_rounds && is_ok; i++)
        is_ok = add_way(w, run_first, inner_last, trail) && trail_append(trail, &inner_last, 1) && add_way(w, inner.first, run_first, trail);
    return is_ok && add_way(w, run_first, last, trail) && trail_append(trail, &last, 1);
}

/* The loop of a GEMM's steps of 32 columns: the hot one, or the one around it where the hot one takes n_rounds to a step. */
static struct sm52_region find_step(const struct sm52_cost *cost, struct sm52_region run, uint32_t *n_rounds)
{
    const uint32_t n_ffma = sm52_count(cost->kernel, run.first, run.end).n_ffma;
    const uint32_t n_step = MATMUL_TILE * GEMM_ROWS * cost->n_tokens / GEMM_THREADS_OF(cost->n_tokens);
    struct sm52_region around;

    *n_rounds = n_ffma ? (n_step + n_ffma / 2) / n_ffma : 1;
    if (*n_rounds >= 2 && sm52_enclosing_loop(cost->kernel, cost->hot, &around))
        return around;
    *n_rounds = 1;
    return cost->hot;
}

/* With T = 128 a warp widens one of two halves of the columns, a branch each: the mean of the longest and the shortest way through a step. Else all warps go the longest.
 * They meet at barriers, so all wait as long as those that wait longer. */
static m40llm_status read_gemm(struct sm52_cost *cost, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct sm52_kernel *k = cost->kernel;
    const bool is_uniform = GEMM_THREADS_OF(cost->n_tokens) <= GEMM_ROWS;
    struct sm52_counts counts[2];
    bool *is_target = find_targets(k);
    struct trail trail = {0};
    struct sm52_region run, step;
    uint32_t n_rounds;

    M40_FAIL_IF(!is_target, M40LLM_NO_MEMORY, "kernel %s", k->name);
    run = busiest_run(k, is_target);
    step = find_step(cost, run, &n_rounds);
    for (int longest = 0; longest < 2; longest++) {
        const struct walk w = {k, step.end, longest || is_uniform, WAY_ALL_WORK};
        struct sm52_flight flight;

        trail.n = 0;
        M40_FAIL_IF(!cost->hot.is_loop || !add_step(&w, step, cost->hot, run.first, n_rounds, &trail), M40LLM_BAD_FILE,
                    "kernel %s: no way through its loop", k->name);
        counts[longest] = count_trail(k, &trail);
        flight = sm52_flight(k, trail.insts, trail.n);
        if (longest == 0 || flight.wait_clocks > cost->flight.wait_clocks)
            cost->flight = flight;
    }
    cost->hot = step;
    cost->pass = mean_counts(&counts[0], &counts[1]);
fail:
    m40_free(is_target);
    m40_free(trail.insts);
    return status;
}

/* The hot region as it stands: both sides of its branches. */
static m40llm_status read_other(struct sm52_cost *cost, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct sm52_kernel *k = cost->kernel;
    struct trail all = {0};

    for (uint32_t i = cost->hot.first; i < cost->hot.end; i++)
        M40_FAIL_IF(!trail_append(&all, &i, 1), M40LLM_NO_MEMORY, "kernel %s", k->name);
    cost->pass = count_trail(k, &all);
    cost->flight = sm52_flight(k, all.insts, all.n);
    cost->flight.max_bytes = bytes_under_way(k, cost->hot, &all);
fail:
    m40_free(all.insts);
    return status;
}

m40llm_status sm52_cost_read(struct sm52_cost *cost, const struct sm52_kernel *kernel, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    memset(cost, 0, sizeof *cost);
    cost->kernel = kernel;
    classify(cost);
    cost->occupancy = sm52_occupancy(kernel->n_registers, kernel->n_shared_bytes, kernel->n_threads);
    M40_FAIL_IF(cost->occupancy.n_blocks == 0, M40LLM_BAD_FILE, "kernel %s: not one block fits an SM", kernel->name);
    cost->hot = sm52_hot_region(kernel, cost->family);
    switch (cost->family) {
    case SM52_MATVEC:
        M40_TRY(read_matvec(cost, err));
        break;
    case SM52_GEMM:
        M40_TRY(read_gemm(cost, err));
        break;
    case SM52_OTHER:
        M40_TRY(read_other(cost, err));
        break;
    }
fail:
    return status;
}

double sm52_hot_slots(const struct sm52_cost *cost)
{
    return cost->weights.n ? (double)cost->pass.slots / cost->weights.n : 0;
}

/* ---- time ---- */

void sm52_pick_bound(struct sm52_time *time)
{
    time->bound = SM52_MEMORY;
    for (int i = 0; i < SM52_N_BOUNDS; i++)
        if (time->limit_s[i] > time->limit_s[time->bound])
            time->bound = (enum sm52_bound)i;
    time->s = time->limit_s[time->bound];
}

/* Adds the pipes' limits for n_warps warps that each issue `counts`. A load from shared memory is taken as one clock, whatever its width: what it fetches is the same in
 * all lanes, or no more than 128 bytes in all. */
static void pipe_limits(struct sm52_time *time, const struct sm52_counts *counts, double n_warps)
{
    const double sm_clocks = n_warps / (SM52_SMS * SM52_CLOCK_HZ);

    time->limit_s[SM52_ISSUE] += sm_clocks * counts->slots / 4;
    time->limit_s[SM52_CONVERSION] += sm_clocks * counts->pipe[SM52_QUARTER];
    time->limit_s[SM52_SHIFT] += sm_clocks * counts->pipe[SM52_HALF] / 2;
    time->limit_s[SM52_SHARED_BOUND] += sm_clocks * counts->pipe[SM52_SHARED];
}

struct sm52_time sm52_matmul_time(const struct sm52_cost *cost, uint64_t n_rows, uint64_t n_cols, uint64_t n_tokens, double read_bytes_s)
{
    const double row_tiles = (double)((n_rows + 31) / 32), chunks = (double)((n_cols + 255) / 256);
    struct sm52_time time = {.limit_s[SM52_MEMORY] = row_tiles * chunks * cost->format->tile_bytes / read_bytes_s};
    const bool is_stream = cost->family == SM52_MATVEC && cost->n_tokens <= MATVEC_STREAM_TOKENS;
    const struct sm52_counts *work = cost->family == SM52_MATVEC && !is_stream ? &cost->chunk : &cost->pass;
    double n; /* times that a warp does `work` */

    if (cost->family == SM52_MATVEC)
        n = row_tiles / cost->weights.n_row_tiles * chunks;
    else { /* each of a block's warps takes 32 columns in a pass */
        const uint32_t rows = GEMM_ROWS, n_warps = GEMM_THREADS_OF(cost->n_tokens) / 32;

        n = (double)((n_rows + rows - 1) / rows) * (double)((n_tokens + cost->n_tokens - 1) / cost->n_tokens) * n_warps *
            (double)((n_cols + 31) / 32);
    }
    pipe_limits(&time, work, n);
    if (is_stream) { /* what is around the loop, once for each warp that stays */
        const double n_resident = cost->occupancy.n_warps * SM52_SMS, n_warps = n < n_resident ? n : n_resident;

        pipe_limits(&time, &cost->chunk, n_warps);
        pipe_limits(&time, &cost->pass, -n_warps);
    }
    /* a warp issues at most one instruction a clock, and waits for what it loads */
    time.limit_s[SM52_LATENCY] = n * (cost->flight.wait_clocks + work->slots) / (cost->occupancy.n_warps * SM52_SMS * SM52_CLOCK_HZ);
    sm52_pick_bound(&time);
    return time;
}

struct sm52_time sm52_pass_time(const struct sm52_cost *cost)
{
    struct sm52_time time = {.limit_s[SM52_MEMORY] = cost->pass.global_load_bytes * 32.0 / SM52_READ_BYTES_S};

    pipe_limits(&time, &cost->pass, 1);
    time.limit_s[SM52_LATENCY] = (cost->flight.wait_clocks + cost->pass.slots) / (cost->occupancy.n_warps * SM52_SMS * SM52_CLOCK_HZ);
    sm52_pick_bound(&time);
    return time;
}
