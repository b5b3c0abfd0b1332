"""Expressions over `text`, `n`, `words` and `figures`, each with the same value here and in OPA."""

BUILTINS = r"""
contains(text, "é")
startswith(text, "a")
endswith(text, "b")
lower(text)
upper(text)
trim(text, " a")
trim_left(text, "a")
trim_right(text, "b")
trim_prefix(text, "a")
trim_suffix(text, "b")
trim_space(text)
split(text, " ")
concat(",", words)
replace(text, "a", "bb")
indexof(text, "b")
indexof_n(text, "b")
substring(text, 1, 2)
substring(text, 1, -1)
count(text)
strings.count(text, "a")
strings.reverse(text)
strings.any_prefix_match(text, ["a", "x"])
strings.any_suffix_match(text, ["a", "x"])
strings.replace_n({"a": "1", "b": "2"}, text)
sprintf("%s %v", [text, words])
format_int(n, 2)
count(words)
sum(figures)
product(figures)
max(figures)
min(figures)
sort(words)
sort(figures)
array.concat(words, figures)
array.slice(words, 0, 2)
array.reverse(words)
{word | some word in words}
{word: place | some place, word in words; not later(place, word)}
{1, 2} & {n}
{1, 2} | {n}
{1, 2} - {n}
union({{1, 2}, {n}})
intersection({{1, 2}, {n}})
object.get(input, "text", "none")
object.get(input, ["a", "b"], "none")
object.keys(input)
object.remove(input, ["text"])
object.filter(input, ["text"])
object.union({"a": 1}, {"b": n})
object.union_n([{"a": 1}, {"b": n}])
object.subset(input, {"n": 1})
json.marshal(words)
json.unmarshal(json.marshal(input))
json.is_valid(text)
json.filter(input, ["text"])
json.remove(input, ["text"])
base64.encode(text)
base64.decode(base64.encode(text))
base64url.encode(text)
base64.is_valid(text)
hex.encode(text)
hex.decode(hex.encode(text))
urlquery.decode(urlquery.encode(text))
regex.match("^[a-z]+$", text)
regex.match(`(?i)A`, text)
regex.match(`\bab\b`, text)
regex.match(`\pL+`, text)
regex.find_n("[ab]+", text, -1)
regex.find_all_string_submatch_n("(a)(b)?", text, -1)
regex.replace(text, "a(b)?", "x$1")
regex.split("[ab]", text)
glob.match("*.com", ["."], "a.com")
abs(n)
round(n / 2)
n / 4
n * 3
n % 3
n + 0.5
numbers.range(1, n)
bits.and(5, 3)
bits.xor(5, 3)
bits.lsh(1, 4)
to_number("1.50")
is_string(text)
is_number(n)
is_array(words)
is_object(input)
type_name(n)
semver.compare("1.2.3", "1.10.0")
semver.is_valid(text)
time.parse_rfc3339_ns("2024-01-02T03:04:05Z")
time.parse_duration_ns("1h2m")
time.date(1700000000000000000)
time.clock([1700000000000000000, "UTC"])
time.weekday(1700000000000000000)
time.add_date(1700000000000000000, 0, 1, 0)
time.diff(1700000000000000000, 1600000000000000000)
net.cidr_contains("10.0.0.0/8", "10.1.2.3")
units.parse("10K")
units.parse_bytes("10KB")
graph.reachable({"a": ["b"], "b": []}, ["a"])
text < "b"
words < figures
n == 1.0
"a" in words
not input.absent
not "a" in words
""".strip().splitlines()
HELPERS = """
text := input.text
n := input.n
words := input.words
figures := input.numbers
later(place, word) if {
    some other, word2 in input.words
    word2 == word
    other > place
}
"""
CONDITIONS = ("text <", "words <", "n ==", '"a" in', "not ")
