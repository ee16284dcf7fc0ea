/* Functions that every template has. */
#include "tokenizer/template/builtins.h"

enum { MAX_RANGE = 100000 }; /* as the Python sandbox has it */

static struct m40_tv call_range(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args)
{
    struct m40_trange *range = m40_arena_object(&r->arena, sizeof *range, KIND_RANGE);

    (void)self;
    range->start = m40_has_arg(args, 1) ? m40_arg_int(r, args, 0, 0) : 0;
    range->stop = m40_arg_int(r, args, m40_has_arg(args, 1) ? 1 : 0, 0);
    range->step = m40_arg_int(r, args, 2, 1);
    if (range->step == 0)
        m40_tr_fail(r, "range() arg 3 must not be zero");
    else if (m40_trange_length(range) > MAX_RANGE)
        m40_tr_fail(r, "range too big: the sandbox blocks ranges larger than %d", MAX_RANGE);
    return (struct m40_tv){.type = TV_RANGE, .range = range};
}

/* What dict() and namespace() make of a dict or pairs, and keywords. */
static struct m40_tdict *make_dict(struct m40_trun *r, const struct m40_targs *args)
{
    struct m40_tdict *dict = m40_tdict_new(r);

    if (args->n_pos > 1)
        m40_tr_fail(r, "%s() takes at most 1 argument, %zu given", args->name, args->n_pos);
    if (args->n_pos == 1 && args->pos[0].type == TV_DICT) {
        for (size_t i = 0; i < args->pos[0].dict->n && !r->failed; i++)
            m40_tdict_set(r, dict, args->pos[0].dict->entries[i].key, args->pos[0].dict->entries[i].value);
    } else if (args->n_pos == 1) {
        const struct m40_tlist *pairs = m40_tr_iterate(r, args->pos[0]);

        for (size_t i = 0; i < pairs->n && !r->failed; i++) {
            const struct m40_tlist *pair = m40_tr_iterate(r, pairs->items[i]);

            if (pair->n == 2)
                m40_tdict_set(r, dict, pair->items[0], pair->items[1]);
            else
                m40_tr_fail(r, "dictionary update sequence element #%zu has length %zu; 2 is required", i, pair->n);
        }
    }
    for (size_t i = 0; args->keywords && i < args->keywords->n && !r->failed; i++)
        m40_tdict_set(r, dict, args->keywords->entries[i].key, args->keywords->entries[i].value);
    return dict;
}

static struct m40_tv call_dict(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args)
{
    (void)self;
    return (struct m40_tv){.type = TV_DICT, .dict = make_dict(r, args)};
}

static struct m40_tv call_namespace(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args)
{
    (void)self;
    return (struct m40_tv){.type = TV_NAMESPACE, .dict = make_dict(r, args)};
}

static struct m40_tv call_cycler(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args)
{
    struct m40_tv cycler = m40_tr_list(r, TV_CYCLER, args->n_pos);

    (void)self;
    for (size_t i = 0; i < args->n_pos && !r->failed; i++)
        m40_tr_push(r, cycler.list, args->pos[i]);
    if (args->n_pos == 0)
        m40_tr_fail(r, "cycler(): at least one item has to be provided");
    return r->failed ? TV(TV_UNDEFINED) : cycler;
}

static struct m40_tv call_joiner(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args)
{
    struct m40_tjoiner *joiner = m40_arena_object(&r->arena, sizeof *joiner, KIND_JOINER);

    (void)self;
    joiner->separator = m40_has_arg(args, 0) ? args->pos[0] : m40_tr_string(r, ", ", 2);
    return (struct m40_tv){.type = TV_JOINER, .joiner = joiner};
}

/* The template's own refusal of its context. */
static struct m40_tv call_raise_exception(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args)
{
    const struct m40_tstr *text = m40_tr_text(r, args->pos[0]);

    (void)self;
    m40_tr_fail(r, "%.*s", (int)(text->n_bytes < 230 ? text->n_bytes : 230), text->data);
    return TV(TV_UNDEFINED);
}

static struct m40_tv call_strftime_now(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args)
{
    (void)self;
    return m40_tr_strftime(r, m40_arg_str(r, args, 0, ""), r->now);
}

static const struct m40_tbuiltin globals[] = {
    {"range", call_range, "start stop step", 1},
    {"dict", call_dict, NULL, 0},
    {"namespace", call_namespace, NULL, 0},
    {"cycler", call_cycler, NULL, 0},
    {"joiner", call_joiner, "sep", 0},
    {"raise_exception", call_raise_exception, "message", 1},
    {"strftime_now", call_strftime_now, "format", 1},
};

const struct m40_tbuiltin *m40_find_global(struct m40_str name)
{
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (m40_str_equal(name, m40_str_from(globals[i].name)))
            return &globals[i];
    return NULL;
}
