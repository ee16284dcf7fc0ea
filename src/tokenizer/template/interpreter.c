/* Walks the tree. */
#include "tokenizer/template/builtins.h"
#include "tokenizer/template/lexer.h"

/* What a statement asks of the loop around it. */
enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };

static struct m40_tv eval(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *node);
static enum flow exec(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *body);

/* ---- variables ---- */

static struct m40_tscope *new_scope(struct m40_trun *r, struct m40_tscope *parent)
{
    struct m40_tscope *scope = m40_arena_object(&r->arena, sizeof *scope, KIND_SCOPE);

    scope->parent = parent == scope ? NULL : parent; /* after a failure both may be the same */
    return scope;
}

static void assign(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tstr *name, struct m40_tv value)
{
    if (!m40_tr_step(r, 1 + scope->n / 16))
        return;
    for (size_t i = 0; i < scope->n; i++)
        if (m40_str_equal(m40_tstr_view(scope->bindings[i].name), m40_tstr_view(name))) {
            scope->bindings[i].value = value;
            return;
        }
    if (scope->n == scope->capacity) {
        size_t capacity = scope->capacity ? 2 * scope->capacity : 4;
        struct m40_tbinding *bindings = m40_arena_alloc(&r->arena, capacity * sizeof *bindings);

        if (!bindings)
            return;
        if (scope->n)
            memcpy(bindings, scope->bindings, scope->n * sizeof *bindings);
        scope->bindings = bindings;
        scope->capacity = capacity;
    }
    scope->bindings[scope->n++] = (struct m40_tbinding){name, value};
}

static struct m40_tv lookup(struct m40_trun *r, const struct m40_tscope *scope, const struct m40_tstr *name)
{
    const struct m40_tv *found;
    const struct m40_tbuiltin *global;

    for (; scope && m40_tr_step(r, scope->n / 16); scope = scope->parent) {
        for (size_t i = 0; i < scope->n; i++)
            if (m40_str_equal(m40_tstr_view(scope->bindings[i].name), m40_tstr_view(name)))
                return scope->bindings[i].value;
        if (scope->context && (found = m40_tdict_get(r, scope->context, m40_tv_of_str(name))))
            return *found;
    }
    global = m40_find_global(m40_tstr_view(name));
    if (global) {
        struct m40_tmethod *method = m40_arena_object(&r->arena, sizeof *method, KIND_METHOD);

        method->builtin = global;
        method->self = TV(TV_NONE);
        return (struct m40_tv){.type = TV_FUNCTION, .method = method};
    }
    return m40_tr_undefined(r, "'%.*s' is undefined", m40_shown(name->n_bytes), name->data);
}

static void assign_target(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *target, struct m40_tv value)
{
    const struct m40_tlist *items;
    size_t i = 0;

    if (target->kind == NODE_NAME) {
        assign(r, scope, target->name, value);
    } else if (target->kind == NODE_NSREF) {
        struct m40_tv ns = lookup(r, scope, target->name);

        if (ns.type == TV_NAMESPACE)
            m40_tdict_set(r, ns.dict, target->value, value);
        else
            m40_tr_fail(r, "cannot assign attribute on non-namespace object");
    } else {
        items = m40_tr_iterate(r, value);
        for (const struct m40_tnode *part = target->a; part && !r->failed; part = part->next, i++) {
            if (i < items->n)
                assign_target(r, scope, part, items->items[i]);
            else
                m40_tr_fail(r, "not enough values to unpack (got %zu)", items->n);
        }
        if (i < items->n)
            m40_tr_fail(r, "too many values to unpack (expected %zu)", i);
    }
}

/* ---- expressions ---- */

/* A call's arguments; `first` (TV_MISSING: none) goes in front. */
static struct m40_targs eval_args(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *node, const char *name)
{
    struct m40_tlist *pos = m40_tlist_new(&r->arena, 0);
    struct m40_targs args = {.name = name};

    for (const struct m40_tnode *arg = node; arg && !r->failed; arg = arg->next) {
        struct m40_tv v = eval(r, scope, arg->a);

        if (arg->op == '*') {
            const struct m40_tlist *more = m40_tr_iterate(r, v);

            for (size_t i = 0; i < more->n && !r->failed; i++)
                m40_tr_push(r, pos, more->items[i]);
            continue;
        }
        if (!arg->name && arg->op == 0) {
            m40_tr_push(r, pos, v);
            continue;
        }
        if (!args.keywords)
            args.keywords = m40_tdict_new(r);
        if (arg->name) {
            m40_tdict_set(r, args.keywords, m40_tv_of_str(arg->name), v);
        } else if (v.type != TV_DICT) {
            m40_tr_fail(r, "argument after ** must be a mapping, not %s", m40_tv_type_name(v));
        } else {
            for (size_t i = 0; i < v.dict->n && !r->failed; i++)
                m40_tdict_set(r, args.keywords, v.dict->entries[i].key, v.dict->entries[i].value);
        }
    }
    args.pos = pos->items;
    args.n_pos = pos->n;
    return args;
}

/* node->a is the input, or it is given (a block's text). */
static struct m40_tv eval_filter(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *node, const struct m40_tv *block_text)
{
    struct m40_tv input = TV(TV_UNDEFINED);
    struct m40_targs args;

    if (!m40_tr_enter(r)) {
        m40_tr_leave(r);
        return input;
    }
    if (!node->a)
        input = block_text ? *block_text : input;
    else if (node->a->kind == NODE_FILTER)
        input = eval_filter(r, scope, node->a, block_text);
    else
        input = eval(r, scope, node->a);
    m40_tr_leave(r);
    r->line = node->line;
    if (!node->builtin) {
        m40_tr_fail(r, "there is no filter '%.*s'", m40_shown(node->name->n_bytes), node->name->data);
        return TV(TV_UNDEFINED);
    }
    args = eval_args(r, scope, node->b, node->builtin->name);
    return m40_tr_call_builtin(r, node->builtin, input, &args);
}

static struct m40_tv eval_test(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *node)
{
    struct m40_tv input = eval(r, scope, node->a);
    struct m40_targs args;

    r->line = node->line;
    if (!node->builtin) {
        m40_tr_fail(r, "there is no test '%.*s'", m40_shown(node->name->n_bytes), node->name->data);
        return TV(TV_UNDEFINED);
    }
    args = eval_args(r, scope, node->b, node->builtin->name);
    return m40_tv_bool(m40_tv_truth(m40_tr_call_builtin(r, node->builtin, input, &args)));
}

static struct m40_tv eval_call(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *node, const struct m40_tv *caller)
{
    struct m40_tv callee = eval(r, scope, node->a);
    struct m40_targs args = eval_args(r, scope, node->b, "call");

    if (caller) {
        static const struct m40_tstr name = {"caller", 6, 6, false};

        if (!args.keywords)
            args.keywords = m40_tdict_new(r);
        m40_tdict_set(r, args.keywords, m40_tv_of_str(&name), *caller);
    }
    r->line = node->line;
    return m40_tr_call(r, callee, &args);
}

static struct m40_tv eval_compare(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *node)
{
    struct m40_tv left = eval(r, scope, node->a);

    for (const struct m40_tnode *operand = node->b; operand; operand = operand->next) {
        struct m40_tv right = eval(r, scope, operand->a);

        r->line = node->line;
        if (r->failed || !m40_tr_compare(r, operand->op, left, right))
            return m40_tv_bool(false);
        left = right;
    }
    return m40_tv_bool(true);
}

static struct m40_tv eval_items(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *node, enum m40_tv_type type)
{
    struct m40_tv list = m40_tr_list(r, type, 0);

    for (const struct m40_tnode *item = node->a; item && !r->failed; item = item->next)
        m40_tr_push(r, list.list, eval(r, scope, item));
    return list;
}

static struct m40_tv eval_dict(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *node)
{
    struct m40_tdict *dict = m40_tdict_new(r);

    for (const struct m40_tnode *pair = node->a; pair && !r->failed; pair = pair->next) {
        struct m40_tv key = eval(r, scope, pair->a);

        m40_tdict_set(r, dict, key, eval(r, scope, pair->b));
    }
    return (struct m40_tv){.type = TV_DICT, .dict = dict};
}

static struct m40_tv eval_concat(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *node)
{
    struct m40_buf buf = {0};

    for (const struct m40_tnode *part = node->a; part && !r->failed; part = part->next) {
        const size_t n_held = buf.n_bytes;
        struct m40_tv v;

        r->n_held_bytes += n_held;
        v = eval(r, scope, part);
        r->n_held_bytes -= n_held;
        m40_tr_print(r, &buf, v);
    }
    return m40_tr_take(r, &buf);
}

static struct m40_tv eval_item(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *node)
{
    struct m40_tv object = eval(r, scope, node->a), parts[3];
    const struct m40_tnode *nodes[3];

    if (node->b->kind != NODE_SLICE) {
        struct m40_tv key = eval(r, scope, node->b);

        r->line = node->line;
        return m40_tr_item(r, object, key);
    }
    nodes[0] = node->b->a;
    nodes[1] = node->b->b;
    nodes[2] = node->b->c;
    for (int i = 0; i < 3; i++)
        parts[i] = nodes[i] ? eval(r, scope, nodes[i]) : TV(TV_NONE);
    r->line = node->line;
    return m40_tr_slice(r, object, parts[0], parts[1], parts[2]);
}

static struct m40_tv eval_node(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *node)
{
    struct m40_tv a, b;

    switch (node->kind) {
    case NODE_CONST:
        return node->value;
    case NODE_NAME:
        return lookup(r, scope, node->name);
    case NODE_LIST:
        return eval_items(r, scope, node, TV_LIST);
    case NODE_TUPLE:
        return eval_items(r, scope, node, TV_TUPLE);
    case NODE_DICT:
        return eval_dict(r, scope, node);
    case NODE_ATTR:
        a = eval(r, scope, node->a);
        r->line = node->line;
        return m40_tr_attribute(r, a, node->name);
    case NODE_ITEM:
        return eval_item(r, scope, node);
    case NODE_CALL:
        return eval_call(r, scope, node, NULL);
    case NODE_FILTER:
        return eval_filter(r, scope, node, NULL);
    case NODE_TEST:
        return eval_test(r, scope, node);
    case NODE_UNARY:
        return m40_tr_unary(r, node->op, eval(r, scope, node->a));
    case NODE_BINARY:
        a = eval(r, scope, node->a);
        b = eval(r, scope, node->b);
        r->line = node->line;
        return m40_tr_binary(r, node->op, a, b);
    case NODE_CONCAT:
        return eval_concat(r, scope, node);
    case NODE_COMPARE:
        return eval_compare(r, scope, node);
    case NODE_AND:
        a = eval(r, scope, node->a);
        return m40_tv_truth(a) ? eval(r, scope, node->b) : a;
    case NODE_OR:
        a = eval(r, scope, node->a);
        return m40_tv_truth(a) ? a : eval(r, scope, node->b);
    case NODE_NOT:
        return m40_tv_bool(!m40_tv_truth(eval(r, scope, node->a)));
    case NODE_COND:
        if (m40_tv_truth(eval(r, scope, node->a)))
            return eval(r, scope, node->b);
        if (node->c)
            return eval(r, scope, node->c);
        return m40_tr_undefined(r, "the inline if-expression on line %u evaluated to false and no else section was defined.", node->line);
    default:
        m40_tr_fail(r, "a slice outside of a subscript");
        return TV(TV_UNDEFINED);
    }
}

static struct m40_tv eval(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *node)
{
    struct m40_tv v = TV(TV_UNDEFINED);

    if (m40_tr_enter(r)) {
        r->line = node->line;
        v = eval_node(r, scope, node);
    }
    m40_tr_leave(r);
    return r->failed ? TV(TV_UNDEFINED) : v;
}

/* ---- loops ---- */

/* The items of a loop that its filter lets through. */
static const struct m40_tlist *filter_items(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *node, const struct m40_tlist *items)
{
    struct m40_tlist *kept;
    struct m40_tscope *inner;

    if (!node->e)
        return items;
    kept = m40_tlist_new(&r->arena, 0);
    inner = new_scope(r, scope);
    for (size_t i = 0; i < items->n && !r->failed; i++) {
        inner->n = 0;
        assign_target(r, inner, node->a, items->items[i]);
        if (m40_tv_truth(eval(r, inner, node->e)))
            m40_tr_push(r, kept, items->items[i]);
    }
    return kept;
}

/* The body for each item, or the else part where there is none. */
static void run_loop(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *node, struct m40_tv iterable, size_t depth0)
{
    static const struct m40_tstr loop_name = {"loop", 4, 4, false};
    struct m40_tloop *loop = m40_arena_object(&r->arena, sizeof *loop, KIND_LOOP);
    struct m40_tscope *inner = new_scope(r, scope);
    size_t n;

    loop->node = node->flags & FLAG_RECURSIVE ? node : NULL;
    loop->scope = scope;
    loop->items = filter_items(r, scope, node, m40_tr_iterate(r, iterable));
    loop->depth0 = depth0;
    loop->last_changed = TV(TV_MISSING);
    n = loop->items->n;
    for (size_t i = 0; i < n && !r->failed; i++) {
        if (++r->n_iterations > r->limits->n_iterations) {
            m40_tr_fail(r, "the template's loops take more than %llu iterations", (unsigned long long)r->limits->n_iterations);
            return;
        }
        loop->index0 = i;
        inner->n = 0;
        assign_target(r, inner, node->a, loop->items->items[i]);
        assign(r, inner, &loop_name, (struct m40_tv){.type = TV_LOOP, .loop = loop});
        if (exec(r, inner, node->c) == FLOW_BREAK)
            break;
    }
    if (n == 0 && node->d)
        exec(r, new_scope(r, scope), node->d);
}

/* Runs `body` with r->out set aside; its text. */
static struct m40_buf begin_capture(struct m40_trun *r)
{
    struct m40_buf saved = r->out;

    r->n_held_bytes += saved.n_bytes;
    r->out = (struct m40_buf){0};
    return saved;
}

static struct m40_tv end_capture(struct m40_trun *r, struct m40_buf saved)
{
    struct m40_tv text = m40_tr_take(r, &r->out);

    r->n_held_bytes -= saved.n_bytes;
    r->out = saved;
    return text;
}

struct m40_tv m40_tr_call_loop(struct m40_trun *r, const struct m40_tloop *loop, struct m40_tv items)
{
    struct m40_buf saved;
    struct m40_tv text = TV(TV_UNDEFINED);

    if (!loop->node) {
        m40_tr_fail(r, "the loop must have the 'recursive' marker to be called recursively");
        return text;
    }
    if (m40_tr_enter(r)) {
        saved = begin_capture(r);
        run_loop(r, loop->scope, loop->node, items, loop->depth0 + 1);
        text = end_capture(r, saved);
    }
    m40_tr_leave(r);
    return text;
}

/* ---- macros ---- */

/* Takes a keyword argument out of those given; TV_MISSING: it is not there. */
static struct m40_tv take_keyword(struct m40_trun *r, const struct m40_targs *args, struct m40_str name, size_t *n_taken)
{
    const struct m40_tv *found = args->keywords ? m40_tdict_get_text(r, args->keywords, name) : NULL;

    *n_taken += found != NULL;
    return found ? *found : TV(TV_MISSING);
}

static bool is_parameter(struct m40_trun *r, const struct m40_tmacro *macro, size_t n_skipped, struct m40_tv key)
{
    for (const struct m40_tnode *p = macro->node->a; p && m40_tr_step(r, 1); p = p->next)
        if (n_skipped > 0)
            n_skipped--;
        else if (key.type == TV_STR && m40_str_equal(m40_tstr_view(p->name), m40_tstr_view(key.s)))
            return true;
    return false;
}

/* What no parameter took. */
static struct m40_tv other_keywords(struct m40_trun *r, const struct m40_tmacro *macro, const struct m40_targs *args, size_t n_pos_taken)
{
    struct m40_tdict *rest = m40_tdict_new(r);
    bool takes_caller = macro->node->flags & FLAG_CALLER;

    for (size_t i = 0; args->keywords && i < args->keywords->n && !r->failed; i++) {
        struct m40_tv key = args->keywords->entries[i].key;

        if (!is_parameter(r, macro, n_pos_taken, key) && !(takes_caller && m40_tv_is_text(key, "caller")))
            m40_tdict_set(r, rest, key, args->keywords->entries[i].value);
    }
    return (struct m40_tv){.type = TV_DICT, .dict = rest};
}

static void check_arguments(struct m40_trun *r, const struct m40_tmacro *macro, const struct m40_targs *args, size_t n_params,
                            const struct m40_tv *rest)
{
    const struct m40_tstr *name = macro->node->name;
    int n_name = name ? m40_shown(name->n_bytes) : 6;
    const char *text = name ? name->data : "caller";

    if (!(macro->node->flags & FLAG_KWARGS) && rest->dict->n > 0) {
        const struct m40_tstr *key = m40_tr_text(r, rest->dict->entries[0].key);

        m40_tr_fail(r, "macro '%.*s' takes no keyword argument '%.*s'", n_name, text, m40_shown(key->n_bytes), key->data);
    }
    if (!(macro->node->flags & FLAG_VARARGS) && args->n_pos > n_params)
        m40_tr_fail(r, "macro '%.*s' takes not more than %zu argument(s)", n_name, text, n_params);
}

static void bind_parameters(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tmacro *macro, const struct m40_targs *args)
{
    static const struct m40_tstr caller_name = {"caller", 6, 6, false}, kwargs_name = {"kwargs", 6, 6, false},
                                 varargs_name = {"varargs", 7, 7, false};
    size_t i = 0, n_pos = args->n_pos, n_taken = 0;
    struct m40_tv rest;

    for (const struct m40_tnode *p = macro->node->a; p && !r->failed; p = p->next, i++) {
        struct m40_tv v = i < n_pos ? args->pos[i] : take_keyword(r, args, m40_tstr_view(p->name), &n_taken);

        if (v.type == TV_MISSING)
            v = p->a ? eval(r, scope, p->a) : m40_tr_undefined(r, "parameter '%.*s' was not provided", m40_shown(p->name->n_bytes), p->name->data);
        assign(r, scope, p->name, v);
    }
    rest = other_keywords(r, macro, args, n_pos < i ? n_pos : i);
    check_arguments(r, macro, args, i, &rest);
    if (macro->node->flags & FLAG_CALLER) {
        struct m40_tv caller = take_keyword(r, args, m40_str_from("caller"), &n_taken);

        assign(r, scope, &caller_name, caller.type == TV_MISSING ? m40_tr_undefined(r, "no caller defined") : caller);
    }
    if (macro->node->flags & FLAG_KWARGS)
        assign(r, scope, &kwargs_name, rest);
    if (macro->node->flags & FLAG_VARARGS) {
        struct m40_tv more = m40_tr_list(r, TV_TUPLE, 0);

        for (; i < n_pos && !r->failed; i++)
            m40_tr_push(r, more.list, args->pos[i]);
        assign(r, scope, &varargs_name, more);
    }
}

struct m40_tv m40_tr_call_macro(struct m40_trun *r, const struct m40_tmacro *macro, const struct m40_targs *args)
{
    struct m40_tv text = TV(TV_UNDEFINED);
    struct m40_buf saved;

    if (m40_tr_enter(r)) {
        struct m40_tscope *scope = new_scope(r, macro->scope);

        bind_parameters(r, scope, macro, args);
        saved = begin_capture(r);
        exec(r, scope, macro->node->c);
        text = end_capture(r, saved);
    }
    m40_tr_leave(r);
    return text;
}

static struct m40_tv make_macro(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *node)
{
    struct m40_tmacro *macro = m40_arena_object(&r->arena, sizeof *macro, KIND_MACRO);

    macro->node = node;
    macro->scope = scope;
    return (struct m40_tv){.type = TV_MACRO, .macro = macro};
}

/* ---- statements ---- */

static enum flow exec_if(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *node)
{
    for (const struct m40_tnode *branch = node->a; branch && !r->failed; branch = branch->next)
        if (!branch->a || m40_tv_truth(eval(r, scope, branch->a)))
            return exec(r, scope, branch->b);
    return FLOW_ON;
}

/* The body's text through the filters; *flow is what the body ended with. */
static struct m40_tv captured(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *node, enum flow *flow)
{
    struct m40_buf saved = begin_capture(r);
    struct m40_tv text;

    *flow = exec(r, new_scope(r, scope), node->c);
    text = end_capture(r, saved);
    return node->b && !r->failed ? eval_filter(r, scope, node->b, &text) : text;
}

static enum flow exec_with(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *node)
{
    struct m40_tscope *inner = new_scope(r, scope);

    for (const struct m40_tnode *pair = node->a; pair && !r->failed; pair = pair->next) {
        struct m40_tv v = eval(r, scope, pair->b);

        assign_target(r, inner, pair->a, v);
    }
    return exec(r, inner, node->c);
}

static enum flow exec_node(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *node)
{
    enum flow flow = FLOW_ON;
    struct m40_tv v;

    switch (node->kind) {
    case NODE_DATA:
        m40_tr_put(r, &r->out, node->value.s->data, node->value.s->n_bytes);
        return FLOW_ON;
    case NODE_OUTPUT:
        v = eval(r, scope, node->a);
        m40_tr_print(r, &r->out, v);
        return FLOW_ON;
    case NODE_IF:
        return exec_if(r, scope, node);
    case NODE_FOR:
        v = eval(r, scope, node->b);
        r->line = node->line;
        run_loop(r, scope, node, v, 0);
        return FLOW_ON;
    case NODE_SET:
        v = eval(r, scope, node->b);
        r->line = node->line;
        assign_target(r, scope, node->a, v);
        return FLOW_ON;
    case NODE_SET_BLOCK:
        v = captured(r, scope, node, &flow);
        if (flow == FLOW_ON)
            assign_target(r, scope, node->a, v);
        return flow;
    case NODE_MACRO:
        assign(r, scope, node->name, make_macro(r, scope, node));
        return FLOW_ON;
    case NODE_CALL_BLOCK:
        v = make_macro(r, scope, node->d);
        v = eval_call(r, scope, node->b, &v);
        m40_tr_print(r, &r->out, v);
        return FLOW_ON;
    case NODE_FILTER_BLOCK:
        v = captured(r, scope, node, &flow);
        if (flow == FLOW_ON)
            m40_tr_print(r, &r->out, v);
        return flow;
    case NODE_WITH:
        return exec_with(r, scope, node);
    case NODE_BLOCK:
        return exec(r, new_scope(r, r->globals), node->c);
    case NODE_BREAK:
        return FLOW_BREAK;
    case NODE_CONTINUE:
        return FLOW_CONTINUE;
    default:
        m40_tr_fail(r, "an expression in the place of a statement");
        return FLOW_ON;
    }
}

static enum flow exec(struct m40_trun *r, struct m40_tscope *scope, const struct m40_tnode *body)
{
    enum flow flow = FLOW_ON;

    if (m40_tr_enter(r))
        for (const struct m40_tnode *node = body; node && flow == FLOW_ON && m40_tr_step(r, 1); node = node->next) {
            r->line = node->line;
            flow = exec_node(r, scope, node);
        }
    m40_tr_leave(r);
    return flow;
}

void m40_tr_render(struct m40_trun *r, const struct m40_tnode *body, const struct m40_tdict *context)
{
    struct m40_tscope *outer = new_scope(r, NULL);

    outer->context = context;
    r->globals = new_scope(r, outer);
    exec(r, r->globals, body);
}
