#!/usr/bin/env python3
"""Writes language.json: each snippet below, rendered by Jinja2 as chat templates are. Needs the package jinja2."""
import datetime
import json
import os

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2026, 1, 15, 12, 0, 0)


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception
env.globals["strftime_now"] = NOW.strftime

# Variables of all snippets.
CONTEXT = {
    "n": 7, "neg": -7, "zero": 0, "f": 2.5, "big": 9007199254740993, "yes": True, "no": False, "nil": None, "s": "Hello, World", "e": "", "u": "Grüße, 世界 😀",
    "ws": " \t a  b\n\n c \u00a0", "lines": "one\ntwo\r\nthree\n\nfive", "l": [3, 1, 2], "ls": ["b", "A", "c", "a"], "el": [], "d": {"a": 1, "b": [1, 2], "items": 3, "x y": None},
    "ed": {}, "nested": {"k": {"m": [{"z": "deep"}]}}, "html": "<a href=\"x\">T&C's</a>",
    "people": [{"name": "Bob", "age": 30, "tags": ["x"]}, {"name": "alice", "age": 25, "tags": []}, {"name": "Carol", "age": 30, "tags": ["y", "z"]}],
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello"}],
    "floats": [1.0, 0.1, 1e16, 1e15, 123456789.123, 1e-5, 0.0001, -0.0, 1e100, 5e-324, 1.7976931348623157e308, 100.0],
}

# One expression a line: printed with {{ }}.
EXPRESSIONS = r"""
1 + 2 * 3
(1 + 2) * 3
7 / 2
6 / 2
7 // 2
neg // 2
neg % 3
7 % -3
7.5 % 2
-7.5 % 2
-7.5 // 2
7.5 // -2
2 ** 10
2 ** -1
2 ** 0.5
2 ** 3 ** 2
-2 ** 2
+5
-n
--n
- 1 | abs
1 / 0
1 // 0
1 % 0
1.0 / 0
5 // 2.0
0.1 + 0.2
1e3
1.5e-7
1_000_000
0x1f
0o17
0b101
0xFF_FF
1.0
10.0 ** 20
100000000000000000.0
123456.789e3
floats
big
9223372036854775807
yes + 1
yes and no
yes or no
e or 'default'
s and 'both'
not yes
not e
not not n
nil or 'x'
0 or 0.0 or e or el or 'last'
1 < 2 < 3
1 < 3 < 2
3 > 2 >= 2 == 2 != 3
1 == 1.0
1 == true
'a' < 'b'
'a' < 'B'
'Z' < 'a'
[1, 2] < [1, 3]
[1, 2] == [1, 2]
[1, 2] == (1, 2)
(1, 2) < (1, 2, 3)
{'a': 1} == {'a': 1.0}
'a' < 1
nil < 1
none == none
nope == nope2
nope == none
'el' in 'hello'
'' in ''
1 in l
5 not in l
'a' in d
'z' not in d
1 in 'a1'
not 1 in l
nope in l
3 in range(5)
'k' in nested
'x' in nope
n if n > 5 else 'small'
'a' if false
('a' if false) is defined
'a' if false else 'b' if false else 'c'
'a' if true else 'b' if true else 'c'
'x' ~ 1 ~ nil ~ 2.0 ~ true ~ nope
1 ~ 2 + 3
'a' + 'b' 'c'
'a' 'b'
'a' * 3
3 * 'ab'
'a' * -1
[1] * 3
[1] + [2]
(1,) + (2,)
[1] + (2,)
'a' + 1
1 + 'a'
nil + 1
nope + 1
nope ~ 'x'
-nope
1 - nope
{'a': 1} + {}
[]
{}
()
(1,)
(1)
1, 2
1,
[1, [2, [3]], {'a': {'b': (1, 2)}}]
['a', "b'c", 'd"e', 'f\'g"h', 'new\nline', 'tab\t', 'back\\slash', 'é', '\x00\x1f\x7f\x80', '\u200b\ue000', '\U0001f600']
{'a': none, 1: true, none: 2.5, (1, 2): 'x', true: 'one'}
{1: 'a', 1.0: 'b', true: 'c'}
{'a': 1, 'a': 2}
{[1]: 2}
'\u00e9\x41\101\n\t\\\'\"\q'
'a\
b'
true
True
false
False
none
None
nil
nope
nope.x
nope['x']
nope()
nil.x
nil.x.y
nil['x']
n.x
n.x is defined
s.nope
d.a
d.b[1]
d.items
d['items']
d.nope
d.nope.x
d['nope']
d['x y']
d.b.0
d.b.5
l[0]
l[-1]
l[10]
l[10].x
l['a']
l.length
s[0]
s[-1]
s[100]
s['upper']()
u[7]
u[-1]
nested.k.m[0].z
nested['k']['m'][-1]['z']
people[0].name
people[1]['name']
s[1:5]
s[:5]
s[-5:]
s[::2]
s[::-1]
s[5:1:-1]
s[10:2:-3]
s[100:]
s[:-100]
u[:5]
u[7:9]
u[::-1]
l[1:]
l[::-1]
l[:2]
l[5:]
l[-2:]
l[::2]
l[nil:2]
l['a':]
l[::0]
(1, 2, 3)[1:]
range(10)[2:8:2]
range(10)[::-1]
range(5)
range(2, 10, 3)
range(5)|list
range(10, 0, -3)|list
range(0)|list
range(3)[1]
range(3)[-1]
range(3)[5]
range(200000)
range(1, 2, 0)
range('a')
nope[1:2]
nil[1:2]
n[1:2]
d[1:2]
s.upper()
s.lower()
s.title()
s.capitalize()
s.swapcase()
u.upper()
u.lower()
'straße ﬁ ŉ'.upper()
'İI ΑΣ ΑΣΑ'.lower()
'STRASSE ß'.casefold()
'they\'re bill\'s friends-from the UK'.title()
ws.strip()
ws.lstrip()
ws.rstrip()
'xxhixx'.strip('x')
'xyhiyx'.strip('xy')
'xyhiyx'.lstrip('xy')
'xyhiyx'.rstrip('xy')
'abc'.strip('')
'éaé'.strip('é')
ws.strip(none)
s.split()
s.split(',')
s.split(', ')
'a,b,,c,'.split(',')
'a,b,c'.split(',', 1)
'a b  c '.split(none, 1)
' a b  c '.split(' ')
'a,b,c'.rsplit(',', 1)
'  a b  c '.rsplit(none, 1)
'a b c'.split(maxsplit=1)
'a--b--c'.split(sep='--')
'a'.split('')
''.split()
''.split(',')
lines.splitlines()
lines.splitlines(true)
'a\x0bb\u2028c'.splitlines()
s.startswith('Hell')
s.startswith(('x', 'He'))
s.startswith('lo', 3)
s.startswith('lo', 3, 4)
s.startswith('', 100)
s.endswith('ld')
s.endswith(('x', 'ld'))
s.endswith('lo', 0, 5)
s.startswith(1)
s.replace('l', 'L')
s.replace('l', 'L', 1)
'abc'.replace('', '-')
'abc'.replace('', '-', 2)
''.replace('', 'x')
'aaa'.replace('aa', 'b')
s.find('o')
s.find('o', 5)
s.find('zz')
s.rfind('o')
s.rfind('')
u.find('世')
u.rfind('ß')
s.index('W')
s.index('zz')
s.rindex('l')
s.count('l')
s.count('l', 4)
'aaaa'.count('aa')
'abc'.count('')
u.count('')
'-'.join(['a', 'b'])
'-'.join('abc')
'-'.join(d)
'-'.join([1])
'-'.join([])
s.partition(', ')
s.partition('zz')
s.rpartition('o')
s.rpartition('zz')
'ab'.center(7)
'abc'.center(6, '*')
'abc'.center(7, '*')
'ab'.ljust(5, '.')
'ab'.rjust(5, '.')
'ab'.center(1)
'42'.zfill(5)
'-42'.zfill(5)
'+4'.zfill(1)
'a\tb\n\tc'.expandtabs(4)
'prefix-x'.removeprefix('prefix-')
'x.py'.removesuffix('.py')
'x'.removesuffix('y')
['abc'.isalpha(), 'ab1'.isalpha(), ''.isalpha(), 'é'.isalpha()]
['123'.isdigit(), '1.2'.isdigit(), '²'.isdigit(), '²'.isdecimal(), '½'.isnumeric(), ''.isdigit()]
['ab1'.isalnum(), 'a b'.isalnum(), ' \t'.isspace(), ''.isspace(), '\u00a0'.isspace()]
['abc'.islower(), 'aBc'.islower(), 'ab1'.islower(), '1'.islower(), 'ABC'.isupper(), 'ABc'.isupper()]
['Ab Cd'.istitle(), 'AB'.istitle(), 'ab'.istitle(), 'a'.isascii(), 'é'.isascii(), 'a\n'.isprintable(), 'ab'.isprintable(), 'a_1'.isidentifier(), '1a'.isidentifier()]
d.keys()
d.values()
d.items()
d.keys()|list
d.items()|list
d.get('a')
d.get('zz')
d.get('zz', 5)
d.get('a', 5)
d.get([1])
d.copy() == d
d.keys()|length
d.items()|first
d.update({'z': 1})
d.pop('a')
d.update is defined
l.append(4)
l.append is defined
l.index(1)
l.index(9)
l.count(1)
l.copy()
(1, 2, 1).count(1)
l.pop()
l.sort()
s.__class__
s.__class__.__mro__
''.__class__.__base__.__subclasses__()
l.__len__
range.__globals__
s.format
'{} and {}'.format(1, 'x')
'{0}{1}{0}'.format('a', 'b')
'{x}-{y}'.format(x=1, y=[2])
'{:>8}|{:<8}|{:^8}|{:*^9}'.format('a', 'b', 'c', 'd')
'{:05d}|{:+d}|{:x}|{:#x}|{:b}|{:o}|{:X}|{:,}|{:_}'.format(42, 42, 255, 255, 5, 8, 255, 1234567, 1234567)
'{:.2f}|{:8.3f}|{:e}|{:g}|{:%}|{:.1%}|{:+.1f}|{:,.2f}'.format(3.14159, 3.14159, 12345.678, 0.00001234, 0.5, 0.123, 2.0, 1234567.891)
'{:.3}|{:.3}|{}'.format('abcdef', 3.14159, 3.0)
'{:<5}|{:>5}|{:^5}|{:05}'.format(1, 2, 3, -4)
'{!r} {!s} {!r:>6}'.format('a', 'b', 'c')
'{0[a]} {0[b][1]} {1.name}'.format(d, {'name': 'n'})
'{{}} {}'.format(1)
'{:{}}|'.format('a', 5)
'{'.format(1)
'}'.format(1)
'{}'.format()
'{a}'.format(b=1)
'{:d}'.format('a')
'{:d}'.format(1.5)
'{}{}'.format(true, none)
'{:>10}'.format('世界')
'{0.__class__}'.format(1)
'%s is %d' % ('x', 5)
'%s' % 'x'
'%s' % [1, 2]
'%s' % (1,)
'%5.2f|%-5d|%05d|%+d|%x|%X|%o|%e|%g' % (3.14159, 42, 42, 42, 255, 255, 8, 12345.678, 0.0001)
'%%|%c|%c|%r|%5s|%-5s|%.2s' % ('a', 66, 'x', 'ab', 'ab', 'abc')
'%(a)s-%(x)d' % {'a': 'v', 'x': 3}
'%s %s' % 'x'
'%s' % ('a', 'b')
'%d' % 'x'
'%d' % 3.9
'%i' % true
'%*d' % (5, 42)
'%s%%' % 50
'%z' % 1
'100%' % ()
'%s' % none
'%.3d' % 5
'%#x' % 255
'%s' % d
'%(a)s' % 5
n is defined
nope is defined
nope is undefined
nope is not defined
nil is none
nil is not none
n is none
n is number
f is number
yes is number
n is integer
yes is integer
f is float
n is float
yes is boolean
n is boolean
yes is true
1 is true
no is false
0 is false
s is string
n is string
d is mapping
l is mapping
nope is mapping
l is sequence
s is sequence
d is sequence
n is sequence
nope is sequence
d.keys() is sequence
range(3) is sequence
l is iterable
s is iterable
d is iterable
n is iterable
nil is iterable
nope is iterable
d.items() is iterable
(l|map('string')) is iterable
range is callable
n is callable
s.upper is callable
3 is odd
4 is even
'a' is odd
9 is divisibleby 3
9 is divisibleby(4)
9 is divisibleby 0
5 is eq 5
5 is equalto 5
5 is sameas 5
l is sameas l
[1] is sameas [1]
none is sameas none
5 is ne 6
5 is lt 6
5 is gt 6
5 is le 5
5 is ge 6
5 is greaterthan 3
5 is lessthan 3
1 is in [1, 2]
1 is in(l)
9 is not in l
'abc' is lower
'ABC' is upper
'aBC' is upper
5 is lower
'upper' is filter
'nope' is filter
'odd' is test
s is escaped
(s|safe) is escaped
5 is nosuchtest
n is defined and n > 5
n is number and f is number or false
not n is defined
n is defined if yes else 0
n is not defined or yes
n is divisibleby 7 and true
n == 7 is true
d.a is defined
d.zz is defined
d.zz.y is defined
d['a'] is number
l[0] is odd
-1|abs
neg|abs
f|abs
-2.5|abs
'x'|abs
s|upper
s|lower
s|title
'hello wORLD foo-bar (baz) [qux] {quux} <corge'|title
s|capitalize
n|upper
nil|upper
nope|upper
ws|trim
'xxhixx'|trim('x')
5|trim
nope|trim
s|length
u|length
l|count
d|length
nope|length
n|length
nil|length
l|first
l|last
el|first
el|last
s|first
s|last
u|last
d|first
nope|first
n|first
l|sort
l|sort(reverse=true)
ls|sort
ls|sort(case_sensitive=true)
ls|sort(true, true)
people|sort(attribute='age')|map(attribute='name')|list
people|sort(attribute='age,name')|map(attribute='name')|list
people|sort(attribute='name')|map(attribute='name')|join(',')
[1, 'a']|sort
[[2, 'b'], [1, 'z'], [2, 'a']]|sort
[[2, 'b'], [1, 'z'], [2, 'a']]|sort(attribute=1)
[[2, 'b'], [1, 'z'], [2, 'a']]|sort(attribute='0')
d|dictsort
{'b': 1, 'A': 2, 'c': 0}|dictsort
{'b': 1, 'A': 2, 'c': 0}|dictsort(true)
{'b': 1, 'A': 2, 'c': 0}|dictsort(by='value')
{'b': 1, 'A': 2, 'c': 0}|dictsort(false, 'value', true)
{'b': 1}|dictsort(by='x')
l|reverse|list
s|reverse
l|reverse
d|reverse|list
l|join
l|join(', ')
people|join(', ', attribute='name')
people|join(attribute='age')
s|join('-')
d|join(',')
nope|join(',')
n|join
[1, none, true, 'x', 1.5, [1]]|join('|')
[nope, 'a']|join('-')
l|list
s|list
d|list
nope|list
n|list
nil|list
d|items|list
nope|items|list
l|items|list
l|map('string')|list
l|map('string')|join
ls|map('upper')|list
people|map(attribute='name')|list
people|map(attribute='tags.0')|list
people|map(attribute='tags.0', default='none')|list
people|map(attribute='nope', default='x')|join(',')
[[1, 2], [3]]|map('join', ',')|list
[[1, 2], [3]]|map('first')|list
[1, 2]|map('nosuch')|list
[1, 2]|map|list
['1', 'x']|map('int', 5)|list
['1', 'x']|map('int', default=6)|list
l|map('string')|length
[1, 2, 3, 4]|select('odd')|list
[1, 2, 3, 4]|reject('odd')|list
[0, 1, '', 'a', none]|select|list
[0, 1, '', 'a', none]|reject|list
[1, 5, 9]|select('gt', 4)|list
[1, 5, 9]|select('>', 4)|list
[1, 5, 9]|select('in', [1, 9])|list
[1, 'a', none]|select('none')|list
[1, nope, 2]|select('defined')|list
people|selectattr('age', 'equalto', 30)|map(attribute='name')|list
people|selectattr('tags')|map(attribute='name')|list
people|rejectattr('tags')|map(attribute='name')|list
people|selectattr('tags.0', 'defined')|map(attribute='name')|list
people|selectattr('name', 'in', ['Bob', 'Carol'])|list|length
people|selectattr('age', '==', 25)|first
people|selectattr('age', 'gt', 100)|first
people|selectattr('age', 'gt', 100)|first is defined
people|rejectattr('age', 'eq', 30)|map(attribute='name')|join
people|selectattr|list
messages|selectattr('role', 'equalto', 'user')|list|last
(messages|selectattr('role', 'equalto', 'nobody')) is iterable
'yes' if messages|selectattr('role', 'equalto', 'nobody') else 'no'
'yes' if messages|selectattr('role', 'equalto', 'nobody')|list else 'no'
people|groupby('age')|map('first')|list
people|groupby('age')|map(attribute='grouper')|list
people|groupby('age')|map(attribute='list')|map('length')|list
people|groupby('nope', default='q')|length
people|groupby(attribute='name')|map('first')|list
[{'k': 'B'}, {'k': 'a'}, {'k': 'b'}]|groupby('k')|map('first')|list
[{'k': 'B'}, {'k': 'a'}, {'k': 'b'}]|groupby('k', case_sensitive=true)|map('first')|list
[1, 2, 1, 3, 2]|unique|list
['a', 'A', 'b']|unique|list
['a', 'A', 'b']|unique(true)|list
people|unique(attribute='age')|map(attribute='name')|list
[1, 1.0, true]|unique|list
l|min
l|max
ls|min
ls|max
ls|max(case_sensitive=true)
el|min
people|max(attribute='age')
[1, 'a']|max
l|sum
[1.5, 2]|sum
people|sum(attribute='age')
people|sum('age', 100)
[[1], [2]]|sum(start=[])
['a']|sum
[1, 2, 3, 4, 5]|batch(2)|list
[1, 2, 3, 4, 5]|batch(2, 'x')|list
[1, 2, 3, 4, 5, 6, 7]|slice(3)|list
[1, 2, 3, 4, 5, 6, 7]|slice(3, 'x')|list
nope|default('x')
nope|d('x')
nope|default
nil|default('x')
nil|default('x', true)
e|default('x')
e|default('x', boolean=true)
d.zz|default('x')
d.zz.y|default('x')
s|replace('l', 'L')
s|replace('l', 'L', 2)
n|replace('7', 'seven')
s|replace('l', 1)
'x'|center(5)
'x'|center
lines|indent
lines|indent(2)
lines|indent(2, true)
lines|indent(2, first=true, blank=true)
lines|indent('> ')
'one line'|indent
''|indent(first=true)
5|indent
'hello world this is long'|truncate(10)
'hello world this is long'|truncate(10, true)
'hello world this is long'|truncate(11, false, '...', 0)
'hello world this is long'|truncate(18)
'hello world this is long'|truncate(5, end='')
'short'|truncate(3)
'hello world'|truncate(2)
'the quick brown fox jumps over the lazy dog'|wordwrap(10)
'the quick brown fox'|wordwrap(4)
'the quick brown fox'|wordwrap(4, false)
'abcdefghij klm'|wordwrap(4)
'well-known self-evident truth'|wordwrap(8)
'a\nb c d e\n\nf'|wordwrap(3)
'a b c d'|wordwrap(3, wrapstring='|')
u|wordcount
'foo bar  baz-qux x_y'|wordcount
'42'|int
'42.7'|int
'x'|int
'x'|int(-1)
' 42 '|int
'-5'|int
'1_000'|int
'0x1f'|int(0, 16)
'0x1f'|int
'ff'|int(0, 16)
'0b11'|int(0, 0)
2.9|int
-2.9|int
true|int
nil|int
nope|int
l|int
'1e3'|int
'inf'|int
'3.14'|float
'x'|float
'x'|float(1.5)
'1e3'|float
'inf'|float
n|float
nil|float
nope|float
2.5|round
3.5|round
2.675|round(2)
42|round
42.55|round
42.55|round(1)
42.55|round(1, 'floor')
42.55|round(1, 'ceil')
42|round(0, 'ceil')
1234|round(-2)
1250|round(-2)
1350|round(-2)
1234.5|round(-2)
-2.5|round
'x'|round
2.5|round(0, 'x')
n|string
nil|string
l|string
[n|string, f|string]
html|e
html|escape
html|e|e
html|forceescape
html|safe
html|safe + '<b>'
'<i>' + html|e
html|e ~ '<b>'
html|striptags
'<p>a  &lt;b&gt; <!-- c > d -->e</p>'|striptags
html|urlencode
'a b/c?d=é'|urlencode
{'a b': 'c&d', 'e': 1}|urlencode
[('x', 'y z')]|urlencode
{'class': 'a b', 'id': none, 'n': 1}|xmlattr
{'a': '"'}|xmlattr(false)
'%s-%s'|format('a', 5)
'%(x)s'|format(x=1)
'%05.1f'|format(3.14159)
1000|filesizeformat
1|filesizeformat
0|filesizeformat
999|filesizeformat
1234567|filesizeformat
1234567|filesizeformat(true)
1500000000|filesizeformat
'300'|filesizeformat
s|attr('upper') is defined
d|attr('a') is defined
d|attr('items') is defined
s|nosuchfilter
s|upper|lower|title
s|upper()|length
(s|upper).lower()
s|list|length
l|tojson
d|tojson
u|tojson
html|tojson
'a"b\\c\n\t\r\x08\x0c\x01\x7f/\u2028'|tojson
'é😀'|tojson(ensure_ascii=true)
floats|tojson
[true, false, none]|tojson
(1, 2)|tojson
{1: 'a', true: 'b', none: 'c', 1.5: 'd'}|tojson
{(1, 2): 1}|tojson
d|tojson(indent=2)
d|tojson(indent=4)
{}|tojson(indent=2)
[[], {}]|tojson(indent=2)
nested|tojson(indent=1)
nested|tojson(indent='--')
d|tojson(separators=(',', ':'))
d|tojson(indent=2, separators=(',', ': '))
{'b': 1, 'a': {'d': 1, 'c': 2}}|tojson(sort_keys=true)
{'b': 1, 'a': 2}|tojson(true, 2, none, true)
nope|tojson
d.items()|tojson
(l|map('string'))|tojson
namespace(a=1)|tojson
[nope]|tojson
dict(a=1, b=2)
dict({'a': 1}, b=2)
dict([('a', 1), ('b', 2)])
dict()
dict([1])
dict(d, **{'zz': 1}).zz
namespace(a=1).a
namespace({'a': 1}, b=2).b
namespace(a=1).zz
namespace(a=1)
namespace(a=1)['a']
cycler('a', 'b').next()
cycler('a', 'b').current
cycler()
joiner()()
strftime_now('%Y-%m-%d')
strftime_now('%d %b %Y')
strftime_now('%A, %B %d, %Y %H:%M:%S %p %I %j %y %a %b %U %W %w %u %V %G %e %F %T %D %R %c %x %X %% %C %h %n%t%M')
strftime_now('%-d/%-m %_d')
strftime_now('%f|%z|%Z|')
raise_exception('no ' ~ n)
s()
n()
d.a()
s.upper(1)
s.split(nosuch=1)
s|upper(1)
s|replace('a')
foo.bar
none.foo is defined
[1, 2, 3].0
(1, 2)[0]
'abc'.0
"it's"
'say "hi"'
"a" ~ 'b'
[1, 2,]
{'a': 1,}
(1, 2,)
d.get('a',)
{'a': {'b': {}}}
[[1, 2], [3]][0][1]
{'}}': 1}['}}']
'%}' ~ '}}'
'{{ x }}'
n|abs if n else 0
n * 2|abs
-n|abs
(n - 10)|abs
n in l|list
l == [3, 1, 2] and n == 7
l|length > 2
l|length == 3 and not el
'a' ~ 'b'|upper
1 if n is odd else 2
[n, s][0]
[x for x in l]
lambda x: x
n = 5
n ? 1 : 2
n & 1
n.
.5
1.
"unclosed
a b
(1
1)
[1
{'a'}
{'a' 1}
|upper
1 +
not
is defined
n is
s|
f(a=1, 2)
f(**d, a=1)
f(*l, *l)
1 is odd is true
{}['a']
{}.a.b
"\xe9"
"\ud83d"
"\x4"
l[-1:][0]
messages[-1].content.split('</think>')[-1].lstrip('\n')
messages[-1]['content'].split('</think>')[0].rstrip('\n').split('<think>')[-1].strip()
messages[1:]|length
messages|map(attribute='role')|join('/')
messages[0].role == 'system' and messages[0]['content'] is string
n + 1
n 
n–s
über is defined
naïve
messages|selectattr('role', 'eq', 'user')|map(attribute='content')|list|first
'content' in messages[0] and messages[0].content
(messages|last).role
messages[::-1]|map(attribute='role')|list
loop
caller()
super()
varargs
""" 

# Whole templates, separated by lines of ====.
TEMPLATES = r"""
{% if n > 5 %}big{% elif n > 3 %}mid{% else %}small{% endif %}
====
{% if nope %}a{% elif nil %}b{% elif e %}c{% elif d %}d{% endif %}
====
{% for i in l %}{{ i }},{% endfor %}
====
{% for i in el %}x{% else %}empty{% endfor %}
====
{% for i in nope %}x{% else %}empty{% endfor %}
====
{% for i in nil %}x{% endfor %}
====
{% for i in n %}x{% endfor %}
====
{% for k in d %}{{ k }};{% endfor %}
====
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}
====
{% for k, v in d|items %}{{ loop.index }}{{ k }}={{ v }};{% endfor %}
====
{% for k, v in d|dictsort %}{{ k }}={{ v }};{% endfor %}
====
{% for a, b in [(1, 2), [3, 4]] %}{{ a }}-{{ b }};{% endfor %}
====
{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}
====
{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}
====
{% for a, b in [1] %}{{ a }}{% endfor %}
====
{% for c in u %}[{{ c }}]{% endfor %}
====
{% for i in l if i > 1 %}{{ loop.index }}/{{ loop.length }}:{{ i }} {% endfor %}
====
{% for i in l if i > 10 %}{{ i }}{% else %}none{% endfor %}
====
{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }}|{% endfor %}
====
{% for i in l %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }} {% endfor %}
====
{% for i in l %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }} {% endfor %}
====
{% for i in l %}{{ loop.previtem.x }}{% endfor %}
====
{% for i in range(5) %}{{ loop.cycle('a', 'b') }}{% endfor %}
====
{% for i in [1, 1, 2, 2, 1] %}{% if loop.changed(i) %}{{ i }}{% endif %}{% endfor %}
====
{% for i in [1, 1, 2] %}{{ loop.changed() }}{% endfor %}
====
{% for i in l %}{% for j in [1, 2] %}{{ loop.index }}{{ i }}{{ j }} {% endfor %}{{ loop.index }}|{% endfor %}
====
{% for i in l %}{% set outer = loop %}{% for j in [1, 2] %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}
====
{% for i in l %}{{ loop }}{% endfor %}
====
{% for i in range(10) %}{% if i == 3 %}{% continue %}{% endif %}{% if i == 6 %}{% break %}{% endif %}{{ i }}{% endfor %}
====
{% for i in range(3) %}{% for j in range(3) %}{% if j == 1 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}
====
{% break %}
====
{% for x in [[1, [2, 3]], 4] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}@{{ loop.depth }} {% endif %}{% endfor %}
====
{% for x in l %}{{ loop(l) }}{% endfor %}
====
{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}
====
{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}
====
{% set ns = namespace(x=1) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}
====
{% set ns = namespace() %}{% set ns.a = 1 %}{% set ns.b = ns.a + 1 %}{{ ns.a }}{{ ns.b }}{{ ns.c }}
====
{% set q = {} %}{% set q.a = 1 %}
====
{% set a, b = 1, 2 %}{{ a }}{{ b }}
====
{% set a, b = [1, 2, 3] %}
====
{% set (a, b), c = (1, 2), 3 %}{{ a }}{{ b }}{{ c }}
====
{% set x %}Hello {{ n }}{% endset %}[{{ x }}]
====
{% set x | upper | trim %}  Hello {{ n }} {% endset %}[{{ x }}]
====
{% set x = 1, 2 %}{{ x }}
====
{% set x = 'a' if n > 3 else 'b' %}{{ x }}
====
{% set 5 = 1 %}
====
{% set none = 1 %}
====
{% for i in l %}{% set y = i %}{% endfor %}{{ y is defined }}
====
{% for i in l %}{% endfor %}{{ i is defined }}{{ loop is defined }}
====
{% macro m(a, b=2, c='x') %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(1, c='z') }} {{ m(b=5, a=4) }} {{ m() }}
====
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
====
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(q=2) }}
====
{% macro m(a) %}{{ a }}|{{ varargs }}|{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }} {{ m() }}
====
{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}
====
{% macro m() %}{{ caller() }}!{{ caller() }}{% endmacro %}{% call m() %}x{{ n }}{% endcall %}
====
{% macro m(items) %}{% for i in items %}{{ caller(i) }}{% endfor %}{% endmacro %}{% call(i) m([1, 2]) %}<{{ i }}>{% endcall %}
====
{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}
====
{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}
====
{% macro m(x) %}{% if x > 0 %}{{ x }}{{ m(x - 1) }}{% endif %}{% endmacro %}{{ m(5) }}
====
{{ m(1) }}{% macro m(x) %}{{ x }}{% endmacro %}
====
{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}
====
{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}
====
{% set x = 1 %}{% macro m() %}{% set x = 5 %}{{ x }}{% endmacro %}{{ m() }}{{ x }}
====
{% macro m(n) %}{{ n }}{% endmacro %}{{ m(1) }}{{ n }}
====
{% macro m(n) %}{{ n }}{% endmacro %}{{ m }}
====
{% macro m(a, b=1, c) %}{% endmacro %}
====
{% macro m(x) %}  {{ x }}  {% endmacro %}[{{ m(1)|trim }}]{{ m(1)|length }}
====
{% macro m() %}{% set y = 3 %}{% endmacro %}{{ m() }}{{ y is defined }}
====
{% macro m(x) -%}
  {{ x }}
{%- endmacro %}
{{ m(1) }}|
====
{% macro f(a) %}{{ a.name }}{% endmacro %}{% for p in people %}{{ f(p) }},{% endfor %}
====
{% macro m(*a) %}{% endmacro %}
====
{% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{'a': 3, 'b': 4}) }}{{ m(*[5], b=6) }}
====
{% filter upper %}hello {{ s }}{% endfilter %}
====
{% filter replace('l', 'L')|trim %} hello {% endfilter %}
====
{% with %}{% set x = 5 %}{{ x }}{% endwith %}{{ x is defined }}
====
{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}
====
{% set a = 9 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}
====
{% raw %}{{ x }} {% if %}{# c #}{% endraw %}|
====
{%- raw -%}  a  {%- endraw -%}  b
====
a {% raw %}
 b
  {% endraw %}
c
====
{% generation %}x{{ n }}{% endgeneration %}y
====
{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}
====
{# comment #}a{#- b -#} c {#+ d +#}
====
a
  {# comment #}
b
====
a
  {%- if true %}
  b
  {%- endif %}
c
====
a
  {% if true %}
  b
  {% endif %}
c
====
  {% if true %}  x  {% endif %}  
y
====
  {%+ if true %}x{% endif +%}
y
====
a {{- ' b ' -}} c
====
a
{{ n }}
b
====
  {{ n }}
  {{- n }}
{{ n -}}
  z
====
{% if true -%}
   x   
{%- endif %}   
  y
====
{% for i in l %}
  {{ i }}
{% endfor %}
====
{% for i in l -%}
  {{ i }}
{%- endfor %}
====
{% for i in l %}

{{ i }}

{% endfor %}
====
x{% set a = 1 %}
y
====
x {% set a = 1 %} y
====
	{% set a = 1 %}	
z
====
{{ n }}

====
trailing newline

====


leading

====
{{ '\n' }}|{{ "\n" }}
====
{{- n -}}
====
{{ n }}{{ n }}
====
a{{ n }}b{% if yes %}c{% endif %}d
====
{ { } } {%{% if true %}x{% endif %}
====
{{ '{{' }}{{ '}}' }}{{ '{%' }}
====
{ n } % # }} %}
====
{% if n %}a
====
{% for i in l %}{% endif %}
====
{% endif %}
====
{% foo %}
====
{{ n
====
{# no end
====
{% raw %} no end
====
{% if %}x{% endif %}
====
{% for in l %}{% endfor %}
====
{% for x l %}{% endfor %}
====
{% set %}
====
{% set x %}{% endset
====
{% include 'x' %}
====
{% import 'x' as y %}
====
{% extends 'x' %}
====
{% do l.append(1) %}
====
{{ }}
====
{%- -%}
====
{% if true %}{% else %}{% else %}{% endif %}
====
{% print 5 %}{% print n, s %}
====
{% block a %}x{{ n }}{% endblock %}
====
{% block a %}x{% endblock a %}
====
{% set x = 1 %}{% block a %}{{ x }}{% endblock %}
====
{% if a is defined and a.b is defined %}x{% else %}y{% endif %}
====
{% if not (nope is defined) %}{% set nope = 'now' %}{% endif %}{{ nope }}
====
{%- if messages[0]['role'] == 'system' -%}
    {%- set sys = messages[0]['content'] -%}
    {%- set rest = messages[1:] -%}
{%- else -%}
    {%- set rest = messages -%}
{%- endif -%}
{{ sys }}
{% for m in rest -%}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('alternate') }}
    {%- endif -%}
    {{ '<|' + m['role'] + '|>' }}
    {{- m['content'] | trim + '\n' }}
{%- endfor %}
====
{%- for m in messages %}
{{ m.role }}: {{ m.content }}
{%- if not loop.last %}

{% endif %}
{%- endfor %}
====
{% set ns = namespace(found=false, items=[]) %}{% for m in messages %}{% if m.role == 'user' and not ns.found %}{% set ns.found = true %}{% set ns.items = ns.items + [m.content] %}{% endif %}{% endfor %}{{ ns.items }}{{ ns.found }}
====
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.next() }}{% set _ = c.reset() %}{{ c.current }}
====
{% set j = joiner('; ') %}{% for i in l %}{{ j() }}{{ i }}{% endfor %}
====
{% set g = l|map('string') %}{{ g|join }}{{ g|join }}|
====
{% set g = l|select %}{% for a in g %}{{ a }}{% endfor %}{% for a in g %}{{ a }}{% endfor %}
====
{% for grade, list in people|groupby('age') %}{{ grade }}:{% for p in list %}{{ p.name }} {% endfor %}{% endfor %}
====
{% for g in people|groupby('age') %}{{ g.grouper }}{{ g.list|length }}{{ g[0] }} {% endfor %}
====
{% for row in [1, 2, 3, 4, 5]|batch(2, '-') %}{{ row|join(',') }};{% endfor %}
====
{% set f = s.upper %}{{ f() }}
====
{% set x = d %}{% for k in x %}{{ x[k] }}{% endfor %}
====
{% for key, value in {'b': 1, 'a': 2}.items() %}{{ key }}{{ value }}{% if not loop.last %}, {% endif %}{% endfor %}
====
{% for i in range(3) %}{{ i }}{{ "," if not loop.last }}{% endfor %}
====
{%- set tools_text -%}
[{% for p in people %}{{ p | tojson }}{% if not loop.last %}, {% endif %}{% endfor %}]
{%- endset -%}
{{ tools_text }}
====
{% if 'x' in d and d['x'] %}a{% elif d.b %}b{% endif %}
====
{% for i in l %}{% if loop.first %}[{% endif %}{{ i }}{% if loop.last %}]{% else %},{% endif %}{% endfor %}
====
{% set a = 1 %}{% set a = a + 1 %}{% set a = a * 5 %}{{ a }}
====
{% set text = "" %}{% for c in s %}{% set text = text ~ c %}{% endfor %}[{{ text }}]
====
{% macro row(x) %}{% if x is mapping %}{{ '{' }}{% for k, v in x.items() %}{{ k }}: {{ row(v) }}{% if not loop.last %}, {% endif %}{% endfor %}{{ '}' }}{% elif x is sequence and x is not string %}[{% for v in x %}{{ row(v) }}{% if not loop.last %}, {% endif %}{% endfor %}]{% else %}{{ x }}{% endif %}{% endmacro %}{{ row(nested) }} {{ row(people) }}
====
{{ "a
b" }}
====
{{
  n
  +
  1
}}
====
{% if n == 7
   and yes %}ok{% endif %}
====
{% set x = [
  1,
  2
] %}{{ x }}
====
{% for i in [1,2,3] %}{{ i }}{% if i == 2 %}{{ raise_exception('two') }}{% endif %}{% endfor %}
====
{% set x = namespace(v=[]) %}{% for p in people if p.age > 25 %}{% set x.v = x.v + [p.name] %}{% endfor %}{{ x.v|join(' & ') }}
====
{% for p in people %}{% for t in p.tags %}{{ p.name }}{{ t }}{{ loop.index }}{% else %}-{% endfor %};{% endfor %}
====
{% call missing() %}x{% endcall %}
====
{% call n %}x{% endcall %}
====
{% if n is divisibleby(7) and s is string %}x{% endif %}
====
{% for i in l %}{% macro q() %}{{ i }}{% endmacro %}{{ q() }}{% endfor %}
====
{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = 9 %}{{ x }}{% endfor %}{{ x }}
====
{% for i in l recursive %}{{ i }}{{ loop.index }}{% endfor %}
====
{% for item in [{'n': 'a', 'c': [{'n': 'b', 'c': []}]}] recursive %}{{ item.n }}{% if item.c %}<{{ loop(item.c) }}>{% endif %}{% endfor %}
====
{% set d2 = dict(d, extra=1) %}{{ d2.extra }}{{ d2|length }}
====
{{ [1, 2] | first }} {{- 3 }} {#- x #} {{ 4 }}
====
line1\nline2
====
{{ 'a' -}}

{{- 'b' }}
====
{% for i in [1] %}{{ loop.foo }}{{ loop.foo is defined }}{% endfor %}
====
{% set a %}{% for i in l %}{{ i }}{% if i == 1 %}{% break %}{% endif %}{% endfor %}{% endset %}{{ a }}
====
{% with x = n %}{% for i in [1] %}{{ x }}{% endfor %}{% endwith %}
====
{% if true %}{% macro inner() %}in{% endmacro %}{% endif %}{{ inner() }}
"""


def render(text):
    try:
        return env.from_string(text).render(**json.loads(json.dumps(CONTEXT)))
    except Exception:  # whatever it is: the template fails
        return None


def main():
    snippets = ["{{ " + line + " }}" for line in EXPRESSIONS.replace("\\\nb", "\\\x00b").strip("\n").split("\n") if line.strip()]
    snippets = [s.replace("\x00", "\n") for s in snippets]
    snippets += TEMPLATES.strip("\n").split("\n====\n")
    cases = []
    for text in snippets:
        expected = render(text)
        if expected is not None and (" at 0x" in expected or any("\ud800" <= c <= "\udfff" for c in expected)):
            continue  # an address; what is no text in UTF-8
        cases.append({"template": text, "expected": expected})
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "language.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"context": CONTEXT, "cases": cases}, f, ensure_ascii=True, indent=0)
        f.write("\n")
    print(len(cases), "cases,", sum(c["expected"] is None for c in cases), "of them errors")


main()
