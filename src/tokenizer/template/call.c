/* Calls: arguments to parameters, and what can be called. */
#include "tokenizer/template/builtins.h"

enum { MAX_PARAMS = 8 };

/* The word of `params` (words with single spaces between them) that is `name`, or -1; *n_params counts them. */
static int find_param(const char *params, struct m40_str name, int *n_params)
{
    int found = -1;

    *n_params = 0;
    while (*params) {
        size_t n = strcspn(params, " ");

        if (m40_str_equal((struct m40_str){params, n}, name))
            found = *n_params;
        ++*n_params;
        params += n + (params[n] == ' ');
    }
    return found;
}

static void bind_keywords(struct m40_trun *r, const struct m40_tbuiltin *builtin, const struct m40_tdict *keywords, struct m40_tv *bound)
{
    int n_params;

    for (size_t i = 0; keywords && i < keywords->n && !r->failed; i++) {
        const struct m40_tstr *name = m40_tr_text(r, keywords->entries[i].key);
        int p = find_param(builtin->params, m40_tstr_view(name), &n_params), n = m40_shown(name->n_bytes);

        if (p < 0)
            m40_tr_fail(r, "%s() got an unexpected keyword argument '%.*s'", builtin->name, n, name->data);
        else if (bound[p].type != TV_MISSING)
            m40_tr_fail(r, "%s() got multiple values for argument '%.*s'", builtin->name, n, name->data);
        else
            bound[p] = keywords->entries[i].value;
    }
}

/* The arguments in the order of the parameters, into bound[MAX_PARAMS]; returns how many parameters there are. */
static size_t bind_arguments(struct m40_trun *r, const struct m40_tbuiltin *builtin, const struct m40_targs *args, struct m40_tv *bound)
{
    int n_params = 0;

    for (int i = 0; i < MAX_PARAMS; i++)
        bound[i] = TV(TV_MISSING);
    find_param(builtin->params, m40_str_from(""), &n_params);
    if (args->n_pos > (size_t)n_params)
        m40_tr_fail(r, "%s() takes at most %d argument(s), %zu given", builtin->name, n_params, args->n_pos);
    else if (args->n_pos)
        memcpy(bound, args->pos, args->n_pos * sizeof *bound);
    bind_keywords(r, builtin, args->keywords, bound);
    for (int i = 0; i < builtin->n_required; i++)
        if (bound[i].type == TV_MISSING)
            m40_tr_fail(r, "%s() is missing a required argument", builtin->name);
    return (size_t)n_params;
}

struct m40_tv m40_tr_call_builtin(struct m40_trun *r, const struct m40_tbuiltin *builtin, struct m40_tv self, const struct m40_targs *args)
{
    struct m40_tv bound[MAX_PARAMS], result = TV(TV_UNDEFINED);
    struct m40_targs bound_args = {.name = builtin->name, .pos = bound};

    if (r->failed)
        return result;
    if (builtin->params) {
        bound_args.n_pos = bind_arguments(r, builtin, args, bound);
    } else {
        bound_args = *args;
        bound_args.name = builtin->name;
    }
    if (m40_tr_enter(r)) /* map calls filters, map among them */
        result = builtin->call(r, self, &bound_args);
    m40_tr_leave(r);
    return result;
}

struct m40_tv m40_tr_call(struct m40_trun *r, struct m40_tv callee, const struct m40_targs *args)
{
    if (r->failed)
        return TV(TV_UNDEFINED);
    switch (callee.type) {
    case TV_FUNCTION:
        return m40_tr_call_builtin(r, callee.method->builtin, callee.method->self, args);
    case TV_MACRO:
        return m40_tr_call_macro(r, callee.macro, args);
    case TV_LOOP:
        if (args->n_pos == 1 && !args->keywords)
            return m40_tr_call_loop(r, callee.loop, args->pos[0]);
        m40_tr_fail(r, "loop() takes one argument");
        break;
    case TV_JOINER:
        if (callee.joiner->is_used)
            return callee.joiner->separator;
        callee.joiner->is_used = true;
        return m40_tr_string(r, "", 0);
    default:
        if (!m40_tr_refuse_undefined(r, callee))
            m40_tr_fail(r, "'%s' object is not callable", m40_tv_type_name(callee));
        break;
    }
    return TV(TV_UNDEFINED);
}

int64_t m40_arg_int(struct m40_trun *r, const struct m40_targs *args, size_t i, int64_t fallback)
{
    if (!m40_has_arg(args, i))
        return fallback;
    if (m40_tv_is_integer(args->pos[i]))
        return m40_tv_as_int(args->pos[i]);
    m40_tr_fail(r, "%s(): '%s' object cannot be interpreted as an integer", args->name, m40_tv_type_name(args->pos[i]));
    return fallback;
}

bool m40_arg_bool(const struct m40_targs *args, size_t i, bool fallback)
{
    return m40_has_arg(args, i) ? m40_tv_truth(args->pos[i]) : fallback;
}

struct m40_str m40_arg_str(struct m40_trun *r, const struct m40_targs *args, size_t i, const char *fallback)
{
    if (!m40_has_arg(args, i))
        return m40_str_from(fallback);
    if (args->pos[i].type == TV_STR)
        return m40_tstr_view(args->pos[i].s);
    m40_tr_fail(r, "%s() argument must be str, not %s", args->name, m40_tv_type_name(args->pos[i]));
    return m40_str_from(fallback);
}
