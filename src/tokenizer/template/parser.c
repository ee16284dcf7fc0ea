/* Statements. */
#include "tokenizer/template/parser.h"

enum { MAX_DEPTH = 200 };

static const struct m40_ttoken end_token = {.kind = TOKEN_END, .text = {"end of template", 15}};

void m40_tp_fail(struct m40_tparser *p, uint32_t line, const char *format, ...)
{
    va_list args;

    if (p->status != M40LLM_OK)
        return;
    va_start(args, format);
    p->status = m40_template_fail(p->err, line, format, args);
    va_end(args);
}

const struct m40_ttoken *m40_tp_token(const struct m40_tparser *p)
{
    return p->status == M40LLM_OK ? &p->tokens[p->pos] : &end_token;
}

const struct m40_ttoken *m40_tp_next(struct m40_tparser *p)
{
    const struct m40_ttoken *token = m40_tp_token(p);

    if (token->kind != TOKEN_END)
        p->pos++;
    return token;
}

bool m40_tp_skip(struct m40_tparser *p, int kind)
{
    if (m40_tp_token(p)->kind != kind)
        return false;
    m40_tp_next(p);
    return true;
}

bool m40_tp_is_name(const struct m40_tparser *p, const char *name)
{
    return m40_tp_token(p)->kind == TOKEN_NAME && m40_str_equal(m40_tp_token(p)->text, m40_str_from(name));
}

bool m40_tp_skip_name(struct m40_tparser *p, const char *name)
{
    if (!m40_tp_is_name(p, name))
        return false;
    m40_tp_next(p);
    return true;
}

void m40_tp_unexpected(struct m40_tparser *p, const char *expected)
{
    const struct m40_ttoken *token = m40_tp_token(p);

    m40_tp_fail(p, token->line, "unexpected '%.*s', expected %s", m40_shown(token->text.n_bytes), token->text.data, expected);
}

const struct m40_ttoken *m40_tp_expect(struct m40_tparser *p, int kind, const char *what)
{
    if (m40_tp_token(p)->kind != kind)
        m40_tp_unexpected(p, what);
    return m40_tp_next(p);
}

bool m40_tp_enter(struct m40_tparser *p)
{
    if (++p->depth > MAX_DEPTH)
        m40_tp_fail(p, m40_tp_token(p)->line, "statements or expressions nested more than %d deep", MAX_DEPTH);
    return p->status == M40LLM_OK;
}

void m40_tp_leave(struct m40_tparser *p)
{
    p->depth--;
}

void m40_tnode_append(struct m40_tnode_list *list, struct m40_tnode *node)
{
    if (!node)
        return;
    if (list->last)
        list->last->next = node;
    else
        list->first = node;
    list->last = node;
}

struct m40_tnode *m40_tnode_new(struct m40_tparser *p, enum m40_tnode_kind kind, uint32_t line)
{
    struct m40_tnode *node = m40_arena_object(p->arena, sizeof *node, KIND_NODE);

    if (m40_arena_failed(p->arena) && p->status == M40LLM_OK)
        p->status = m40_fail(p->err, p->arena->is_out ? M40LLM_NO_MEMORY : M40LLM_TEMPLATE, "line %u: the template is too large", line);
    node->kind = kind;
    node->line = line;
    return node;
}

const struct m40_tstr *m40_tp_name(struct m40_tparser *p, const struct m40_ttoken *token)
{
    return m40_tstr_borrow(p->arena, token->text.data, token->text.n_bytes);
}

/* ---- statements ---- */

static struct m40_tnode *parse_body(struct m40_tparser *p, const char *const *ends);

/* The end of the statement's mark, then its body up to one of the words in `ends` (NULL at its end), which is left standing. */
static struct m40_tnode *parse_block(struct m40_tparser *p, const char *const *ends)
{
    struct m40_tnode *body = NULL;

    m40_tp_skip(p, ':');
    m40_tp_expect(p, TOKEN_BLOCK_END, "the end of the block");
    if (m40_tp_enter(p))
        body = parse_body(p, ends);
    m40_tp_leave(p);
    if (m40_tp_token(p)->kind == TOKEN_END)
        m40_tp_fail(p, p->tokens[p->n_tokens - 1].line, "the template ends where '%s' is missing", ends[0]);
    return body;
}

static struct m40_tnode *parse_block_to(struct m40_tparser *p, const char *end)
{
    struct m40_tnode *body = parse_block(p, (const char *const[]){end, NULL});

    m40_tp_next(p);
    return body;
}

/* A target's part: a name, an attribute of a namespace, or in parentheses or brackets a tuple of targets. */
static struct m40_tnode *parse_target(struct m40_tparser *p, bool with_namespace, const char *end_name);

static struct m40_tnode *parse_target_part(struct m40_tparser *p, bool with_namespace)
{
    const struct m40_ttoken *token = m40_tp_token(p);
    struct m40_tnode *node = NULL;

    if (token->kind == '(') {
        if (m40_tp_enter(p)) {
            m40_tp_next(p);
            node = parse_target(p, with_namespace, NULL);
            m40_tp_expect(p, ')', "')'");
        }
        m40_tp_leave(p);
        return node;
    }
    if (token->kind != TOKEN_NAME) {
        m40_tp_unexpected(p, "a name to assign to");
        return NULL;
    }
    if (with_namespace && p->tokens[p->pos + 1].kind == '.') {
        node = m40_tnode_new(p, NODE_NSREF, token->line);
        node->name = m40_tp_name(p, token);
        p->pos += 2;
        node->value = m40_tv_of_str(m40_tp_name(p, m40_tp_expect(p, TOKEN_NAME, "an attribute's name")));
        return node;
    }
    {
        unsigned flags = p->macro_flags; /* assigning to a name is not using it */

        node = m40_parse_primary(p);
        p->macro_flags = flags;
    }
    if (node->kind != NODE_NAME)
        m40_tp_fail(p, token->line, "cannot assign to '%.*s'", (int)token->text.n_bytes, token->text.data);
    return node;
}

/* Whether another target follows a comma. */
static bool at_target(const struct m40_tparser *p, const char *end_name)
{
    int kind = m40_tp_token(p)->kind;

    return kind == '(' || (kind == TOKEN_NAME && !(end_name && m40_tp_is_name(p, end_name)));
}

static struct m40_tnode *parse_target(struct m40_tparser *p, bool with_namespace, const char *end_name)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_TUPLE, m40_tp_token(p)->line), *first = parse_target_part(p, with_namespace);
    struct m40_tnode_list items = {0};

    if (m40_tp_token(p)->kind != ',')
        return first;
    m40_tnode_append(&items, first);
    while (m40_tp_skip(p, ',') && at_target(p, end_name))
        m40_tnode_append(&items, parse_target_part(p, with_namespace));
    node->a = items.first;
    return node;
}

static struct m40_tnode *parse_for(struct m40_tparser *p, uint32_t line)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_FOR, line);

    node->a = parse_target(p, false, "in");
    if (!m40_tp_skip_name(p, "in"))
        m40_tp_unexpected(p, "'in'");
    node->b = m40_parse_tuple(p, false, "recursive", false);
    if (m40_tp_skip_name(p, "if"))
        node->e = m40_parse_expression(p, true);
    if (m40_tp_skip_name(p, "recursive"))
        node->flags = FLAG_RECURSIVE;
    p->loop_depth++;
    node->c = parse_block(p, (const char *const[]){"endfor", "else", NULL});
    p->loop_depth--;
    if (m40_tp_skip_name(p, "else"))
        node->d = parse_block(p, (const char *const[]){"endfor", NULL});
    m40_tp_next(p);
    return node;
}

static struct m40_tnode *parse_if(struct m40_tparser *p, uint32_t line)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_IF, line);
    struct m40_tnode_list branches = {0};
    bool is_else = false;

    do {
        struct m40_tnode *branch = m40_tnode_new(p, NODE_BRANCH, m40_tp_token(p)->line);

        if (is_else) {
            branch->b = parse_block(p, (const char *const[]){"endif", NULL});
        } else {
            branch->a = m40_parse_tuple(p, false, NULL, false);
            branch->b = parse_block(p, (const char *const[]){"endif", "elif", "else", NULL});
        }
        m40_tnode_append(&branches, branch);
        is_else = m40_tp_is_name(p, "else");
    } while (m40_tp_skip_name(p, "elif") || m40_tp_skip_name(p, "else"));
    m40_tp_next(p);
    node->a = branches.first;
    return node;
}

static struct m40_tnode *parse_set(struct m40_tparser *p, uint32_t line)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_SET, line);

    node->a = parse_target(p, true, NULL);
    if (m40_tp_skip(p, '=')) {
        node->b = m40_parse_tuple(p, true, NULL, false);
        return node;
    }
    node->kind = NODE_SET_BLOCK;
    node->b = m40_parse_filters(p, NULL, false);
    node->c = parse_block_to(p, "endset");
    return node;
}

/* "(a, b=1)" */
static struct m40_tnode *parse_parameters(struct m40_tparser *p)
{
    struct m40_tnode_list params = {0};
    bool has_default = false;

    m40_tp_expect(p, '(', "'('");
    while (m40_tp_token(p)->kind != ')') {
        const struct m40_ttoken *token = m40_tp_expect(p, TOKEN_NAME, "a parameter's name");
        struct m40_tnode *param = m40_tnode_new(p, NODE_PARAM, token->line);

        param->name = m40_tp_name(p, token);
        if (m40_tp_skip(p, '=')) {
            param->a = m40_parse_expression(p, true);
            has_default = true;
        } else if (has_default) {
            m40_tp_fail(p, token->line, "a parameter without a default follows one that has one");
        }
        m40_tnode_append(&params, param);
        if (!m40_tp_skip(p, ','))
            break;
    }
    m40_tp_expect(p, ')', "')'");
    return params.first;
}

/* The rest of a macro, from its parameters on, or without any. */
static void parse_macro_body(struct m40_tparser *p, struct m40_tnode *macro, const char *end)
{
    unsigned flags = p->macro_flags, loop_depth = p->loop_depth;

    p->macro_flags = 0;
    p->loop_depth = 0;
    macro->c = parse_block_to(p, end);
    macro->flags = p->macro_flags;
    p->macro_flags |= flags;
    p->loop_depth = loop_depth;
}

static struct m40_tnode *parse_macro(struct m40_tparser *p, uint32_t line)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_MACRO, line);

    node->name = m40_tp_name(p, m40_tp_expect(p, TOKEN_NAME, "the macro's name"));
    node->a = parse_parameters(p);
    parse_macro_body(p, node, "endmacro");
    return node;
}

static struct m40_tnode *parse_call_block(struct m40_tparser *p, uint32_t line)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_CALL_BLOCK, line), *macro = m40_tnode_new(p, NODE_MACRO, line);

    if (m40_tp_token(p)->kind == '(')
        macro->a = parse_parameters(p);
    node->b = m40_parse_expression(p, true);
    if (node->b && node->b->kind != NODE_CALL)
        m40_tp_fail(p, line, "'call' needs a call");
    parse_macro_body(p, macro, "endcall");
    node->d = macro;
    return node;
}

static struct m40_tnode *parse_filter_block(struct m40_tparser *p, uint32_t line)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_FILTER_BLOCK, line);

    node->b = m40_parse_filters(p, NULL, true);
    node->c = parse_block_to(p, "endfilter");
    return node;
}

static struct m40_tnode *parse_with(struct m40_tparser *p, uint32_t line)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_WITH, line);
    struct m40_tnode_list pairs = {0};

    while (m40_tp_token(p)->kind != TOKEN_BLOCK_END && m40_tp_token(p)->kind != TOKEN_END) {
        struct m40_tnode *pair = m40_tnode_new(p, NODE_PAIR, m40_tp_token(p)->line);

        if (pairs.first)
            m40_tp_expect(p, ',', "','");
        pair->a = parse_target_part(p, false);
        m40_tp_expect(p, '=', "'='");
        pair->b = m40_parse_expression(p, true);
        m40_tnode_append(&pairs, pair);
    }
    node->a = pairs.first;
    node->c = parse_block_to(p, "endwith");
    return node;
}

/* A block of a template that nothing extends stands where it is. */
static struct m40_tnode *parse_named_block(struct m40_tparser *p, uint32_t line)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_BLOCK, line);
    const struct m40_ttoken *name = m40_tp_expect(p, TOKEN_NAME, "the block's name");

    if (m40_tp_skip_name(p, "scoped"))
        node->kind = NODE_WITH;
    parse_macro_body(p, node, "endblock");
    if (m40_tp_token(p)->kind == TOKEN_NAME && m40_str_equal(m40_tp_token(p)->text, name->text))
        m40_tp_next(p);
    return node;
}

/* For the tooling's training masks; its text is ordinary text. Like a call block it keeps what is set in it to itself. */
static struct m40_tnode *parse_generation(struct m40_tparser *p, uint32_t line)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_WITH, line);

    parse_macro_body(p, node, "endgeneration");
    return node;
}

/* "{% print a, b %}" writes one behind the other; "{{ a, b }}" is a tuple. */
static struct m40_tnode *parse_print(struct m40_tparser *p, uint32_t line)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_OUTPUT, line);
    struct m40_tnode_list parts = {0};

    node->a = m40_tnode_new(p, NODE_CONCAT, line);
    while (m40_tp_token(p)->kind != TOKEN_BLOCK_END && m40_tp_token(p)->kind != TOKEN_END) {
        if (parts.first)
            m40_tp_expect(p, ',', "','");
        m40_tnode_append(&parts, m40_parse_expression(p, true));
    }
    node->a->a = parts.first;
    return node;
}

static struct m40_tnode *parse_output(struct m40_tparser *p, uint32_t line)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_OUTPUT, line);

    node->a = m40_parse_tuple(p, true, NULL, false);
    m40_tp_expect(p, TOKEN_OUTPUT_END, "'}}'");
    return node;
}

static struct m40_tnode *parse_jump(struct m40_tparser *p, enum m40_tnode_kind kind, uint32_t line)
{
    if (p->loop_depth == 0)
        m40_tp_fail(p, line, "'%s' outside of a loop", kind == NODE_BREAK ? "break" : "continue");
    return m40_tnode_new(p, kind, line);
}

static struct m40_tnode *parse_break(struct m40_tparser *p, uint32_t line)
{
    return parse_jump(p, NODE_BREAK, line);
}

static struct m40_tnode *parse_continue(struct m40_tparser *p, uint32_t line)
{
    return parse_jump(p, NODE_CONTINUE, line);
}

static struct m40_tnode *parse_statement(struct m40_tparser *p)
{
    static const struct {
        const char *word;
        struct m40_tnode *(*parse)(struct m40_tparser *p, uint32_t line);
    } statements[] = {
        {"if", parse_if},
        {"for", parse_for},
        {"set", parse_set},
        {"macro", parse_macro},
        {"call", parse_call_block},
        {"with", parse_with},
        {"filter", parse_filter_block},
        {"break", parse_break},
        {"continue", parse_continue},
        {"print", parse_print},
        {"block", parse_named_block},
        {"generation", parse_generation},
    };
    static const char *const refused[] = {"include", "import", "from", "extends", "autoescape", "do", "trans", "debug", NULL};
    const struct m40_ttoken *token = m40_tp_expect(p, TOKEN_NAME, "a statement");

    for (size_t i = 0; token->kind == TOKEN_NAME && i < sizeof statements / sizeof *statements; i++)
        if (m40_str_equal(token->text, m40_str_from(statements[i].word)))
            return statements[i].parse(p, token->line);
    for (size_t i = 0; refused[i]; i++)
        if (m40_str_equal(token->text, m40_str_from(refused[i])))
            m40_tp_fail(p, token->line, "'%s' is not supported in a chat template", refused[i]);
    m40_tp_fail(p, token->line, "unknown statement '%.*s'", m40_shown(token->text.n_bytes), token->text.data);
    return NULL;
}

static bool at_one_of(const struct m40_tparser *p, const char *const *names)
{
    for (; names && *names; names++)
        if (m40_tp_is_name(p, *names))
            return true;
    return false;
}

static struct m40_tnode *parse_body(struct m40_tparser *p, const char *const *ends)
{
    struct m40_tnode_list body = {0};

    for (;;) {
        const struct m40_ttoken *token = m40_tp_next(p);
        struct m40_tnode *node;

        if (token->kind == TOKEN_END)
            return body.first;
        if (token->kind == TOKEN_DATA) {
            node = m40_tnode_new(p, NODE_DATA, token->line);
            node->value = token->value;
        } else if (token->kind == TOKEN_OUTPUT_BEGIN) {
            node = parse_output(p, token->line);
        } else {
            if (at_one_of(p, ends))
                return body.first;
            node = parse_statement(p);
            m40_tp_expect(p, TOKEN_BLOCK_END, "'%}'");
        }
        m40_tnode_append(&body, node);
    }
}

m40llm_status m40_template_parse(struct m40_tnode **out, const struct m40_ttokens *tokens, struct m40_arena *arena, m40llm_error *err)
{
    struct m40_tparser p = {.tokens = tokens->tokens, .n_tokens = tokens->n, .arena = arena, .err = err};

    *out = parse_body(&p, NULL);
    return p.status;
}
