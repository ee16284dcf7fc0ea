/* Expressions, from the loosest operator to the tightest. */
#include "tokenizer/template/builtins.h"
#include "tokenizer/template/parser.h"

static struct m40_tnode *parse_unary(struct m40_tparser *p, bool with_filters);

static struct m40_tnode *binary(struct m40_tparser *p, enum m40_tnode_kind kind, int op, uint32_t line, struct m40_tnode *a, struct m40_tnode *b)
{
    struct m40_tnode *node = m40_tnode_new(p, kind, line);

    node->op = op;
    node->a = a;
    node->b = b;
    return node;
}

static struct m40_tnode *parse_pow(struct m40_tparser *p)
{
    struct m40_tnode *left = parse_unary(p, true);

    while (m40_tp_token(p)->kind == TOKEN_POW) {
        uint32_t line = m40_tp_next(p)->line;

        left = binary(p, NODE_BINARY, TOKEN_POW, line, left, parse_unary(p, true));
    }
    return left;
}

static struct m40_tnode *parse_product(struct m40_tparser *p)
{
    struct m40_tnode *left = parse_pow(p);
    int op;

    while ((op = m40_tp_token(p)->kind) == '*' || op == '/' || op == '%' || op == TOKEN_FLOORDIV) {
        uint32_t line = m40_tp_next(p)->line;

        left = binary(p, NODE_BINARY, op, line, left, parse_pow(p));
    }
    return left;
}

static struct m40_tnode *parse_concat(struct m40_tparser *p)
{
    struct m40_tnode *first = parse_product(p), *node;
    struct m40_tnode_list list = {0};

    if (m40_tp_token(p)->kind != '~')
        return first;
    node = m40_tnode_new(p, NODE_CONCAT, m40_tp_token(p)->line);
    m40_tnode_append(&list, first);
    while (m40_tp_skip(p, '~'))
        m40_tnode_append(&list, parse_product(p));
    node->a = list.first;
    return node;
}

static struct m40_tnode *parse_sum(struct m40_tparser *p)
{
    struct m40_tnode *left = parse_concat(p);
    int op;

    while ((op = m40_tp_token(p)->kind) == '+' || op == '-') {
        uint32_t line = m40_tp_next(p)->line;

        left = binary(p, NODE_BINARY, op, line, left, parse_concat(p));
    }
    return left;
}

/* Which comparison stands here, read; 0: none. */
static int comparison(struct m40_tparser *p)
{
    int kind = m40_tp_token(p)->kind;

    if (kind == TOKEN_EQ || kind == TOKEN_NE || kind == TOKEN_GE || kind == TOKEN_LE || kind == '<' || kind == '>')
        return m40_tp_next(p)->kind;
    if (m40_tp_skip_name(p, "in"))
        return OP_IN;
    if (m40_tp_is_name(p, "not") && p->pos + 1 < p->n_tokens && p->tokens[p->pos + 1].kind == TOKEN_NAME &&
        m40_str_equal(p->tokens[p->pos + 1].text, m40_str_from("in"))) {
        p->pos += 2;
        return OP_NOT_IN;
    }
    return 0;
}

static struct m40_tnode *parse_comparison(struct m40_tparser *p)
{
    uint32_t line = m40_tp_token(p)->line;
    struct m40_tnode *first = parse_sum(p), *node;
    struct m40_tnode_list operands = {0};
    int op;

    while ((op = comparison(p)) != 0)
        m40_tnode_append(&operands, binary(p, NODE_OPERAND, op, line, parse_sum(p), NULL));
    if (!operands.first)
        return first;
    node = m40_tnode_new(p, NODE_COMPARE, line);
    node->a = first;
    node->b = operands.first;
    return node;
}

static struct m40_tnode *parse_not(struct m40_tparser *p)
{
    uint32_t line = m40_tp_token(p)->line;
    struct m40_tnode *node = NULL;

    if (!m40_tp_is_name(p, "not"))
        return parse_comparison(p);
    if (m40_tp_enter(p)) {
        m40_tp_next(p);
        node = binary(p, NODE_NOT, 0, line, parse_not(p), NULL);
    }
    m40_tp_leave(p);
    return node;
}

static struct m40_tnode *parse_and(struct m40_tparser *p)
{
    struct m40_tnode *left = parse_not(p);

    while (m40_tp_is_name(p, "and")) {
        uint32_t line = m40_tp_next(p)->line;

        left = binary(p, NODE_AND, 0, line, left, parse_not(p));
    }
    return left;
}

static struct m40_tnode *parse_or(struct m40_tparser *p)
{
    struct m40_tnode *left = parse_and(p);

    while (m40_tp_is_name(p, "or")) {
        uint32_t line = m40_tp_next(p)->line;

        left = binary(p, NODE_OR, 0, line, left, parse_and(p));
    }
    return left;
}

struct m40_tnode *m40_parse_expression(struct m40_tparser *p, bool with_condition)
{
    uint32_t line = m40_tp_token(p)->line;
    struct m40_tnode *value = NULL;

    if (m40_tp_enter(p)) {
        value = parse_or(p);
        while (with_condition && m40_tp_skip_name(p, "if")) {
            struct m40_tnode *node = m40_tnode_new(p, NODE_COND, line);

            node->b = value;
            node->a = parse_or(p);
            if (m40_tp_skip_name(p, "else"))
                node->c = m40_parse_expression(p, true);
            value = node;
        }
    }
    m40_tp_leave(p);
    return value;
}

/* Whether a tuple ends here, as it may behind a comma. */
static bool at_tuple_end(const struct m40_tparser *p, const char *end_name)
{
    int kind = m40_tp_token(p)->kind;

    return kind == TOKEN_OUTPUT_END || kind == TOKEN_BLOCK_END || kind == ')' || kind == TOKEN_END || (end_name && m40_tp_is_name(p, end_name));
}

struct m40_tnode *m40_parse_tuple(struct m40_tparser *p, bool with_condition, const char *end_name, bool in_parentheses)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_TUPLE, m40_tp_token(p)->line);
    struct m40_tnode_list items = {0};
    bool has_comma = false;

    while (!at_tuple_end(p, end_name)) {
        m40_tnode_append(&items, m40_parse_expression(p, with_condition));
        if (!m40_tp_skip(p, ','))
            break;
        has_comma = true;
    }
    if (!has_comma && items.first)
        return items.first;
    if (!has_comma && !in_parentheses)
        m40_tp_unexpected(p, "an expression");
    node->a = items.first;
    return node;
}

static struct m40_tnode *parse_list(struct m40_tparser *p)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_LIST, m40_tp_next(p)->line);
    struct m40_tnode_list items = {0};

    while (m40_tp_token(p)->kind != ']') {
        m40_tnode_append(&items, m40_parse_expression(p, true));
        if (!m40_tp_skip(p, ','))
            break;
    }
    m40_tp_expect(p, ']', "']'");
    node->a = items.first;
    return node;
}

static struct m40_tnode *parse_dict(struct m40_tparser *p)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_DICT, m40_tp_next(p)->line);
    struct m40_tnode_list pairs = {0};

    while (m40_tp_token(p)->kind != '}') {
        struct m40_tnode *pair = m40_tnode_new(p, NODE_PAIR, m40_tp_token(p)->line);

        pair->a = m40_parse_expression(p, true);
        m40_tp_expect(p, ':', "':'");
        pair->b = m40_parse_expression(p, true);
        m40_tnode_append(&pairs, pair);
        if (!m40_tp_skip(p, ','))
            break;
    }
    m40_tp_expect(p, '}', "'}'");
    node->a = pairs.first;
    return node;
}

/* A name, or one of the words that are constants. */
static struct m40_tnode *parse_name(struct m40_tparser *p)
{
    static const struct {
        const char *word;
        struct m40_tv value;
    } constants[] = {
        {"true", {.type = TV_BOOL, .b = true}},
        {"True", {.type = TV_BOOL, .b = true}},
        {"false", {.type = TV_BOOL}},
        {"False", {.type = TV_BOOL}},
        {"none", {.type = TV_NONE}},
        {"None", {.type = TV_NONE}},
    };
    static const struct {
        const char *word;
        unsigned flag;
    } of_macros[] = {{"caller", FLAG_CALLER}, {"varargs", FLAG_VARARGS}, {"kwargs", FLAG_KWARGS}};
    const struct m40_ttoken *token = m40_tp_next(p);
    struct m40_tnode *node = m40_tnode_new(p, NODE_NAME, token->line);

    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (m40_str_equal(token->text, m40_str_from(constants[i].word))) {
            node->kind = NODE_CONST;
            node->value = constants[i].value;
            return node;
        }
    for (size_t i = 0; i < sizeof of_macros / sizeof *of_macros; i++)
        if (m40_str_equal(token->text, m40_str_from(of_macros[i].word)))
            p->macro_flags |= of_macros[i].flag;
    node->name = m40_tp_name(p, token);
    return node;
}

/* Strings that stand side by side are one. */
static struct m40_tnode *parse_strings(struct m40_tparser *p)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_CONST, m40_tp_token(p)->line);
    size_t n_bytes = 0, begin = p->pos;
    char *joined, *to;

    node->value = m40_tp_token(p)->value;
    while (m40_tp_token(p)->kind == TOKEN_STRING)
        n_bytes += m40_tp_next(p)->value.s->n_bytes;
    if (p->pos == begin + 1 || n_bytes == 0 || !(joined = to = m40_arena_alloc(p->arena, n_bytes)))
        return node;
    for (size_t i = begin; i < p->pos; i++) {
        memcpy(to, p->tokens[i].value.s->data, p->tokens[i].value.s->n_bytes);
        to += p->tokens[i].value.s->n_bytes;
    }
    node->value = m40_tv_of_str(m40_tstr_borrow(p->arena, joined, n_bytes));
    return node;
}

struct m40_tnode *m40_parse_primary(struct m40_tparser *p)
{
    struct m40_tnode *node;

    switch (m40_tp_token(p)->kind) {
    case TOKEN_NAME:
        return parse_name(p);
    case TOKEN_STRING:
        return parse_strings(p);
    case TOKEN_INTEGER:
    case TOKEN_FLOAT:
        node = m40_tnode_new(p, NODE_CONST, m40_tp_token(p)->line);
        node->value = m40_tp_next(p)->value;
        return node;
    case '(':
        m40_tp_next(p);
        node = m40_parse_tuple(p, true, NULL, true);
        m40_tp_expect(p, ')', "')'");
        return node;
    case '[':
        return parse_list(p);
    case '{':
        return parse_dict(p);
    default:
        m40_tp_unexpected(p, "an expression");
        return m40_tnode_new(p, NODE_CONST, 0);
    }
}

/* ---- what follows a value ---- */

/* One of the parts of a[...]: an expression, or a slice. */
static struct m40_tnode *parse_subscript_part(struct m40_tparser *p)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_SLICE, m40_tp_token(p)->line), **parts[] = {&node->b, &node->c};

    if (m40_tp_token(p)->kind != ':') {
        node->a = m40_parse_expression(p, true);
        if (m40_tp_token(p)->kind != ':')
            return node->a;
    }
    for (int i = 0; i < 2 && m40_tp_skip(p, ':'); i++) {
        int kind = m40_tp_token(p)->kind;

        if (kind != ':' && kind != ']' && kind != ',')
            *parts[i] = m40_parse_expression(p, true);
    }
    return node;
}

static struct m40_tnode *parse_subscript(struct m40_tparser *p, struct m40_tnode *object)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_ITEM, m40_tp_next(p)->line), *tuple;
    struct m40_tnode_list parts = {0};

    node->a = object;
    while (m40_tp_token(p)->kind != ']') {
        m40_tnode_append(&parts, parse_subscript_part(p));
        if (!m40_tp_skip(p, ','))
            break;
    }
    m40_tp_expect(p, ']', "']'");
    node->b = parts.first;
    if (parts.first && parts.first == parts.last)
        return node;
    tuple = m40_tnode_new(p, NODE_TUPLE, node->line);
    tuple->a = parts.first;
    node->b = tuple;
    return node;
}

static struct m40_tnode *parse_attribute(struct m40_tparser *p, struct m40_tnode *object)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_ATTR, m40_tp_next(p)->line);

    node->a = object;
    if (m40_tp_token(p)->kind == TOKEN_INTEGER) {
        node->kind = NODE_ITEM;
        node->b = m40_parse_primary(p);
        return node;
    }
    node->name = m40_tp_name(p, m40_tp_expect(p, TOKEN_NAME, "a name or a number"));
    return node;
}

/* The arguments of a call, parentheses included. */
static struct m40_tnode *parse_arguments(struct m40_tparser *p)
{
    struct m40_tnode_list args = {0};
    bool has_keyword = false, has_star = false, has_double_star = false;

    m40_tp_expect(p, '(', "'('");
    while (m40_tp_token(p)->kind != ')') {
        const struct m40_ttoken *token = m40_tp_token(p);
        struct m40_tnode *arg = m40_tnode_new(p, NODE_ARG, token->line);
        bool is_good = true;

        if (m40_tp_skip(p, '*')) {
            is_good = !has_star && !has_double_star;
            has_star = true;
            arg->op = '*';
        } else if (m40_tp_skip(p, TOKEN_POW)) {
            is_good = !has_double_star;
            has_double_star = true;
            arg->op = TOKEN_POW;
        } else if (token->kind == TOKEN_NAME && p->pos + 1 < p->n_tokens && p->tokens[p->pos + 1].kind == '=') {
            is_good = !has_double_star;
            has_keyword = true;
            arg->name = m40_tp_name(p, token);
            p->pos += 2;
        } else {
            is_good = !has_keyword && !has_star && !has_double_star;
        }
        if (!is_good)
            m40_tp_fail(p, token->line, "arguments in the wrong order in a call");
        arg->a = m40_parse_expression(p, true);
        m40_tnode_append(&args, arg);
        if (!m40_tp_skip(p, ','))
            break;
    }
    m40_tp_expect(p, ')', "')'");
    return args.first;
}

static struct m40_tnode *parse_call(struct m40_tparser *p, struct m40_tnode *callee)
{
    struct m40_tnode *node = m40_tnode_new(p, NODE_CALL, m40_tp_token(p)->line);

    node->a = callee;
    node->b = parse_arguments(p);
    return node;
}

static struct m40_tnode *parse_postfix(struct m40_tparser *p, struct m40_tnode *node)
{
    for (;;) {
        int kind = m40_tp_token(p)->kind;

        if (kind == '.')
            node = parse_attribute(p, node);
        else if (kind == '[')
            node = parse_subscript(p, node);
        else if (kind == '(')
            node = parse_call(p, node);
        else
            return node;
    }
}

/* A filter's or a test's name, which may have dots in it. */
static const struct m40_tstr *parse_dotted_name(struct m40_tparser *p)
{
    const struct m40_ttoken *first = m40_tp_expect(p, TOKEN_NAME, "a name"), *last = first;

    while (m40_tp_skip(p, '.'))
        last = m40_tp_expect(p, TOKEN_NAME, "a name");
    if (p->status != M40LLM_OK)
        return m40_tstr_borrow(p->arena, "", 0);
    return m40_tstr_borrow(p->arena, first->text.data, (size_t)(last->text.data + last->text.n_bytes - first->text.data));
}

struct m40_tnode *m40_parse_filters(struct m40_tparser *p, struct m40_tnode *input, bool inline_first)
{
    while (inline_first || m40_tp_skip(p, '|')) {
        struct m40_tnode *node = m40_tnode_new(p, NODE_FILTER, m40_tp_token(p)->line);

        inline_first = false;
        node->a = input;
        node->name = parse_dotted_name(p);
        node->builtin = m40_find_filter(m40_tstr_view(node->name));
        if (m40_tp_token(p)->kind == '(')
            node->b = parse_arguments(p);
        input = node;
    }
    return input;
}

/* Whether the word or value here is the argument of a test without parentheses. */
static bool at_test_argument(struct m40_tparser *p)
{
    int kind = m40_tp_token(p)->kind;

    if (m40_tp_is_name(p, "else") || m40_tp_is_name(p, "or") || m40_tp_is_name(p, "and"))
        return false;
    if (m40_tp_is_name(p, "is"))
        m40_tp_fail(p, m40_tp_token(p)->line, "tests cannot be chained with 'is'");
    return kind == TOKEN_NAME || kind == TOKEN_STRING || kind == TOKEN_INTEGER || kind == TOKEN_FLOAT || kind == '[' || kind == '{';
}

static struct m40_tnode *parse_test(struct m40_tparser *p, struct m40_tnode *input)
{
    uint32_t line = m40_tp_next(p)->line;
    bool is_negated = m40_tp_skip_name(p, "not");
    struct m40_tnode *node = m40_tnode_new(p, NODE_TEST, line);

    node->a = input;
    node->name = parse_dotted_name(p);
    node->builtin = m40_find_test(m40_tstr_view(node->name));
    if (m40_tp_token(p)->kind == '(') {
        node->b = parse_arguments(p);
    } else if (at_test_argument(p)) {
        node->b = m40_tnode_new(p, NODE_ARG, line);
        node->b->a = parse_postfix(p, m40_parse_primary(p));
    }
    return is_negated ? binary(p, NODE_NOT, 0, line, node, NULL) : node;
}

static struct m40_tnode *parse_filters_and_tests(struct m40_tparser *p, struct m40_tnode *node)
{
    for (;;) {
        if (m40_tp_token(p)->kind == '|')
            node = m40_parse_filters(p, node, false);
        else if (m40_tp_is_name(p, "is"))
            node = parse_test(p, node);
        else if (m40_tp_token(p)->kind == '(')
            node = parse_call(p, node);
        else
            return node;
    }
}

static struct m40_tnode *parse_unary(struct m40_tparser *p, bool with_filters)
{
    int kind = m40_tp_token(p)->kind;
    struct m40_tnode *node = NULL;

    if (m40_tp_enter(p)) {
        if (kind == '-' || kind == '+') {
            uint32_t line = m40_tp_next(p)->line;

            node = binary(p, NODE_UNARY, kind, line, parse_unary(p, false), NULL);
        } else {
            node = m40_parse_primary(p);
        }
        node = parse_postfix(p, node);
        if (with_filters)
            node = parse_filters_and_tests(p, node);
    }
    m40_tp_leave(p);
    return node;
}
