"""Texts for the chat page: Markdown and what is to become of it, and what a page must survive."""

MARKDOWN = [
    ("Hello *there*, **you** and ***both***, ~~not~~ `code`.", "<p>Hello <em>there</em>, <strong>you</strong> and <em><strong>both</strong></em>, <del>not</del> <code>code</code>.</p>"),
    ("one\ntwo\n\nthree", "<p>one<br>two</p><p>three</p>"),
    ("# A\n### B ###\n####### no", "<h3 class=\"level-1\">A</h3><h5 class=\"level-3\">B</h5><p>####### no</p>"),
    ("- a\n- b\n  - c\n\n    more\n- d", "<ul><li>a</li><li>b<ul><li>c<p>more</p></li></ul></li><li>d</li></ul>"),
    ("3. a\n4. b\n   ```\n   x\n   ```\n\n5. c", "<ol start=\"3\"><li>a</li><li>b<div class=\"code-block\"><div class=\"code-head\"><span></span><button type=\"button\" "
     "aria-label=\"Copy the code\">Copy</button></div><pre dir=\"ltr\"><code>x</code></pre></div></li><li>c</li></ol>"),
    ("1. one\n\t- tab\n\t\t- two tabs", "<ol start=\"1\"><li>one<ul><li>tab<ul><li>two tabs</li></ul></li></ul></li></ol>"),
    ("- [ ] open\n- [x] done", "<ul><li>☐ open</li><li>☑ done</li></ul>"),
    ("text\n- item", "<p>text</p><ul><li>item</li></ul>"),
    ("in 1999\n2. no list", "<p>in 1999<br>2. no list</p>"),
    ("```c\nint *a = b;\n\n\tif (x < y) **z**\n```\nafter", "<div class=\"code-block\"><div class=\"code-head\"><span>c</span><button type=\"button\" aria-label=\"Copy the code\">Copy"
     "</button></div><pre dir=\"ltr\"><code>int *a = b;\n\n\tif (x &lt; y) **z**</code></pre></div><p>after</p>"),
    ("~~~\n```\n", "<div class=\"code-block\"><div class=\"code-head\"><span></span><button type=\"button\" aria-label=\"Copy the code\">Copy</button></div>"
     "<pre dir=\"ltr\"><code>```\n</code></pre></div>"),
    ("| a | b\\|c |\n|:-:|---:|\n| *1* | 2 | 3 |\n| x |\nend", "<div class=\"table\"><table><thead><tr><th class=\"center\">a</th><th class=\"right\">b|c</th></tr></thead><tbody>"
     "<tr><td class=\"center\"><em>1</em></td><td class=\"right\">2</td></tr><tr><td class=\"center\">x</td><td class=\"right\"></td></tr></tbody></table></div><p>end</p>"),
    ("a | b\n- | -", "<div class=\"table\"><table><thead><tr><th class=\"left\">a</th><th class=\"left\">b</th></tr></thead><tbody></tbody></table></div>"),
    ("a | b\nc | d", "<p>a | b<br>c | d</p>"),
    ("\\|\n|-|\n\\|", "<div class=\"table\"><table><thead><tr><th class=\"left\">|</th></tr></thead><tbody><tr><td class=\"left\">|</td></tr></tbody></table></div>"),
    ("> one\n> - two\n>> three", "<blockquote><p>one</p><ul><li>two</li></ul><blockquote><p>three</p></blockquote></blockquote>"),
    ("a\n\n---\n* * *\n- - -", "<p>a</p><hr><hr><hr>"),
    ("snake_case_name, 2 * 3 * 4, f(*args, **kwargs), a ** b", "<p>snake_case_name, 2 * 3 * 4, f(*args, **kwargs), a ** b</p>"),
    ("_a_ __b__ (_c_) *d", "<p><em>a</em> <strong>b</strong> (<em>c</em>) *d</p>"),
    ("**a *b* c** *d **e** f*", "<p><strong>a <em>b</em> c</strong> <em>d <strong>e</strong> f</em></p>"),
    ("**强调。**文字", "<p><strong>强调。</strong>文字</p>"),
    ("`` a ` b `` and ` c and \\*d\\* \\q", "<p><code>a ` b</code> and ` c and *d* \\q</p>"),
    ("[a *b*](https://example.org/x_(y) \"title\") and [no](relative) [c]", "<p><a href=\"https://example.org/x_(y)\" title=\"https://example.org/x_(y)\">a <em>b</em></a> and [no](relative) [c]</p>"),
    ("See https://example.org/a_b_c. (http://example.org/?q=1&r=2) <mailto:a@example.org> xhttp://no", "<p>See <a href=\"https://example.org/a_b_c\" title=\"https://example.org/a_b_c\">"
     "https://example.org/a_b_c</a>. (<a href=\"http://example.org/?q=1&amp;r=2\" title=\"http://example.org/?q=1&amp;r=2\">http://example.org/?q=1&amp;r=2</a>) "
     "<a href=\"mailto:a@example.org\" title=\"mailto:a@example.org\">mailto:a@example.org</a> xhttp://no</p>"),
    ("![a cat](https://example.org/cat.png) [![x](https://example.org/a.png)](https://example.org/)", "<p><a href=\"https://example.org/cat.png\" title=\"https://example.org/cat.png\">a cat</a> "
     "<a href=\"https://example.org/\" title=\"https://example.org/\">x</a></p>"),
    ("<b>bold</b> &amp; <!-- c --> 1 < 2", "<p>&lt;b&gt;bold&lt;/b&gt; &amp;amp; &lt;!-- c --&gt; 1 &lt; 2</p>"),
    ("", ""),
]

HOSTILE = [
    "<script>window.hit = 1</script><img src=x onerror='window.hit = 2'>",
    "<iframe src='javascript:parent.hit=3'></iframe><svg onload=hit=4><style>*{display:none}</style><base href='https://evil.example/'>",
    "[a](javascript:window.hit=5) [b](JaVaScRiPt:window.hit=6) [c](  javascript:window.hit=7 ) [d](<java\tscript:window.hit=8>) [e](\x01javascript:window.hit=9)",
    "[f](javascript&colon;window.hit=10) [g](&#106;avascript:window.hit=11) [h](data:text/html,<script>window.hit=12</script>) [i](vbscript:hit) [j](blob:x) [k](file:///etc/passwd)",
    "[l](//evil.example/x) [m](/props) [n](#x) [o](https://a\"onmouseover=\"window.hit=13) [p](https://a' onclick='window.hit=14') [q](https:javascript:hit)",
    "<javascript:window.hit=15> <https://a.example/\"onclick=\"window.hit=16> javascript:window.hit=17 https://x.example/<script>window.hit=18</script>",
    "![a](javascript:window.hit=19) ![b](https://evil.example/pixel.png?leak) ![\"onerror=\"window.hit=20](x)",
    "```\"><script>window.hit=21</script>\n</code></pre><script>window.hit=22</script>\n```",
    "| <script>window.hit=23</script> | a |\n|---|---|\n| [x](javascript:window.hit=24) | <img src=x onerror=window.hit=25> |",
    "# <img src=x onerror=window.hit=26>\n> [x](javascript:window.hit=27)\n- **[y](javascript:window.hit=28)**",
    "[a [b](javascript:window.hit=29)](https://a.example) [![c](javascript:window.hit=30)](javascript:window.hit=31) [d](https://a.example/ \"x\" onclick=window.hit=32)",
    "{{constructor.constructor('window.hit=33')()}} ${window.hit=34} \u202egnp.exe \x00 \ud83d lone",
]

# Repeated to 100,000 characters: what takes more than linear time in a careless reader.
FLOODS = ["*a", "**a ", "*a _b ", "_", "`", "`a``", "` `` ``` ", "[", "[a](", "[](a", "![", "[a](http://b.c)", "<", "<http://", "http://", "http://:", "http://a))", ">", "> ", "> > ",
          "- ", "- a\n", " - a\n  ", "1. ", "#", "# ", "#\n", "|", "|-", "|-|\n", "a|b\n-|-\n", "\\", "~~", "~~a ", "***a", " ", "\t", "\n", "-", "- - ", "= ", "```\n", "~~~~", "a", "\u0301", "h", "!"]

ANSWER = """Reading the weights dominates. A decode step touches **every weight once**, so the time of a token is about *bytes over bandwidth*:

```c
double token_seconds(double weight_bytes, double bandwidth)
{
    return weight_bytes / bandwidth; /* 4.7e9 / 248e9 = 19 ms, and a comment behind it that is too long for a phone and most windows */
}
```

### What that means

1. A 4-bit file of a model with 8 billion parameters has about 4.7 GB.
2. At `248 GB/s` it can be read 52 times a second.
   - a longer context adds the KV cache
   - several users share one reading
3. Beyond that, arithmetic is the limit.

| format | bits a weight | tok/s at best |
| :--- | ---: | ---: |
| Q4_K | 4.5 | 52 |
| Q6_K | 6.6 | 36 |
| Q8_0 | 8.5 | 28 |

> What is read once serves everybody who waits.

More in [the manual](https://example.org/manual) or at https://example.org/a_(b)."""

# To be looked at.
CONVERSATION = {"id": "y", "title": "Why is decoding bound by memory?", "changed": 1, "settings": {}, "messages": [
    {"role": "user", "content": "Why is decoding bound by memory?\nShow me a formula."},
    {"role": "assistant", "content": ANSWER, "reasoning": "The user asks about decoding.\n\nFirst what is read for each token, then the formula.", "finish": "stop",
     "figures": {"nTokens": 312, "isCounted": True, "rate": 23.14, "firstMs": 412.3, "reasoningMs": 3100, "nTotal": 388}}]}
