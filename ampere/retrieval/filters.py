"""Conditions on the columns of a search table: a checked subset of SQL, for Lance and for Milvus.

    condition = parse_filter("price < 100 AND category IN ('tea', '茶')", dataset.schema)
    dataset.scanner(filter=lance_condition(condition))

Supported are comparisons of a column with a literal, `IN`, `BETWEEN`, `IS NULL`, `LIKE`, a
true/false column alone, `AND`, `OR`, `NOT`, parentheses, and `array_has`, `array_has_any` and
`array_has_all` on lists of texts. All else is refused, so that anyone may send a filter. A missing
value is SQL's null: a comparison with it is neither true nor false.

sqlglot finds the tokens and holds the tree. Its parser is not used: within 50 parentheses it
exceeds Python's recursion limit, and it accepts far more than is wanted here.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import pyarrow as pa
from sqlglot import exp
from sqlglot.errors import TokenError
from sqlglot.tokens import Token, Tokenizer, TokenType

MAX_CHARACTERS = 10_000
MAX_LITERALS = 1_000
MAX_DEPTH = 50  # parentheses and NOTs around a comparison

KINDS = {
    pa.string(): "text",
    pa.float64(): "number",
    pa.bool_(): "true/false",
    pa.timestamp("us", tz="UTC"): "time",
    pa.list_(pa.string()): "list of texts",
}
"""Column type -> kind. A filter uses no column of another type."""

_Tree = exp.Expr
_Operator = type[exp.Expr]

_SUPPORTED = (
    "supported are =, !=, <>, <, <=, >, >=, IN, BETWEEN, IS NULL, LIKE, AND, OR, NOT, parentheses, "
    "array_has, array_has_any and array_has_all"
)
_UNSUPPORTED = {
    ";": "more than one statement (;)",
    ":": "a cast (::)",
    "|": "joining texts (||)",
    ".": "a dot outside of a number such as 0.5",
    **{sign: f"arithmetic ({sign})" for sign in "+-*/%"},
}
_OPERATORS: dict[TokenType, _Operator] = {
    TokenType.EQ: exp.EQ,
    TokenType.NEQ: exp.NEQ,
    TokenType.LT: exp.LT,
    TokenType.LTE: exp.LTE,
    TokenType.GT: exp.GT,
    TokenType.GTE: exp.GTE,
}
_MIRRORED: dict[_Operator, _Operator] = {  # 3 < price is price > 3
    exp.LT: exp.GT,
    exp.GT: exp.LT,
    exp.LTE: exp.GTE,
    exp.GTE: exp.LTE,
}
_OPPOSITE: dict[_Operator, _Operator] = {
    exp.EQ: exp.NEQ,
    exp.NEQ: exp.EQ,
    exp.LT: exp.GTE,
    exp.GTE: exp.LT,
    exp.GT: exp.LTE,
    exp.LTE: exp.GT,
}
_FUNCTIONS: dict[str, _Operator] = {
    "array_has": exp.ArrayContains,
    "array_has_any": exp.ArrayOverlaps,
    "array_has_all": exp.ArrayContainsAll,
}
_WORDS = (TokenType.VAR, TokenType.IDENTIFIER)
_LITERALS = (TokenType.STRING, TokenType.NUMBER, TokenType.TRUE, TokenType.FALSE)
_A_LITERAL = "a text in single quotes, a number, TRUE or FALSE"
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?")  # as in a catalog's time columns
_TIME_HINT = "expected a time such as '2026-11-29' or '2026-11-29T08:30:00+08:00'"
_TIME_TYPE = exp.DataType(this=exp.DataType.Type.TIMESTAMPTZ)
_PATTERN = re.compile(r"([^\\]|\\[\\%_])*", re.DOTALL)
_SHOWN = 40  # characters of a text in a message

_LANCE: dict[_Operator, str] = {
    exp.EQ: "{column} = {values}",
    exp.NEQ: "{column} != {values}",
    exp.LT: "{column} < {values}",
    exp.LTE: "{column} <= {values}",
    exp.GT: "{column} > {values}",
    exp.GTE: "{column} >= {values}",
    exp.In: "{column} in ({values})",
    exp.Between: "{column} between {low} and {high}",
    exp.Like: "{column} like {values}",
    exp.Is: "{column} is null",
    exp.Not: "{column} is not null and not ({opposite})",  # see lance_condition
    exp.ArrayContains: "array_has({column}, {values})",
    exp.ArrayOverlaps: "array_has_any({column}, [{values}])",
    exp.ArrayContainsAll: "array_has_all({column}, [{values}])",
}
_MILVUS: dict[_Operator, str] = {
    exp.EQ: "({column} == {values})",
    exp.NEQ: "({column} is not null and {column} != {values})",
    exp.LT: "({column} < {values})",
    exp.LTE: "({column} <= {values})",
    exp.GT: "({column} > {values})",
    exp.GTE: "({column} >= {values})",
    exp.In: "({column} in [{values}])",
    exp.Between: "({column} >= {low} and {column} <= {high})",
    exp.Like: "({column} like {values})",
    exp.Is: "({column} is null)",
    exp.Not: "({column} is not null and not {opposite})",
    exp.ArrayContains: "(array_contains({column}, {values}))",
    exp.ArrayOverlaps: "(array_contains_any({column}, [{values}]))",
    exp.ArrayContainsAll: "(array_contains_all({column}, [{values}]))",
}
_MILVUS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MILVUS_WORDS = {
    *("and", "or", "not", "in", "like", "is", "null", "exists", "true", "false"),
    *("iso", "interval", "threshold"),
}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_EPOCH = datetime(1970, 1, 1)


@dataclass(frozen=True)
class Filter:
    """A validated condition on the columns of a search table.

    Attributes:
        tree: `And` and `Or` of comparisons with the column first. `Not` stands only before `In`,
            `Like`, `Is` and the array functions. Times are in UTC.
        columns: names of the columns in it.
    """

    tree: exp.Expr
    columns: frozenset[str]


def parse_filter(text: str, schema: pa.Schema) -> Filter:
    r"""Read and check a condition.

    Column names are case-sensitive. A name with spaces or signs, or that is a word of SQL, stands
    in double quotes or backticks. In a pattern of `LIKE`, `%` is any text and `_` any character;
    `\%`, `\_` and `\\` are these characters themselves.

    Args:
        text: such as `price < 100 AND NOT (shop = 'it''s' OR array_has(tags, 'new'))`.
        schema: of the search table. Columns do not exist for a filter if their type is not of
            `KINDS` (such as vectors), their name begins with an underscore, or it contains a
            backtick, since Lance cannot address it.

    Raises:
        ValueError: the text is no such condition, names no column of the table, compares a column
            with a literal of another type, or exceeds a limit.
    """
    if len(text) > MAX_CHARACTERS:
        _refuse(f"{len(text):,} characters; the limit is {MAX_CHARACTERS:,}")
    kinds = {
        field.name: kind
        for field in schema
        if (kind := _kind(field.type)) and not field.name.startswith("_") and "`" not in field.name
    }
    reader = _Reader(text, kinds)
    tree = reader.condition()
    return Filter(tree, frozenset(reader.columns))


def lance_condition(condition: Filter) -> str:
    """The condition as SQL for `filter=` of a Lance scanner.

    Each negated comparison asks for `is not null` too: Lance 14 takes `x not in (1) or x not in
    (2)` for true where x is null.
    """
    return _written(condition.tree, _LANCE, lambda name: f"`{name}`", _lance_value)


def milvus_condition(condition: Filter) -> str:
    """The condition as an expression for `filter=` of a Milvus client.

    The collection must hold texts as `VARCHAR`, numbers as `DOUBLE`, true/false as `BOOL`, lists
    as `ARRAY` of `VARCHAR`, all nullable, and times as `INT64` with microseconds since 1970: Milvus
    has no `IN` for its `TIMESTAMPTZ`.

    Milvus has no `BETWEEN` (written as two comparisons), no backslash in a pattern of `LIKE`
    (servers and milvus-lite read it differently, milvus#43864), no control characters but tabs and
    line ends, and only names of ASCII letters, digits and underscores. Nulls below its `not` give
    wrong rows (milvus#48441), so each negated comparison asks for `is not null` too.

    Raises:
        ValueError: the condition needs what Milvus lacks.
    """
    for like in condition.tree.find_all(exp.Like):
        if "\\" in like.expression.this:
            _refuse(f"Milvus has no backslash in a pattern of LIKE; got '{like.expression.this}'")
    return _written(condition.tree, _MILVUS, _milvus_name, _milvus_value)


class _Tokenizer(Tokenizer):
    """Knows the words of the subset alone, so that all others can be names of columns."""

    IDENTIFIERS = ['"', "`"]
    COMMANDS = set()
    SINGLE_TOKENS = {**Tokenizer.SINGLE_TOKENS, "!": TokenType.UNKNOWN}  # else it is NOT
    KEYWORDS = {
        **{"<>": TokenType.NEQ, "!=": TokenType.NEQ, "<=": TokenType.LTE, ">=": TokenType.GTE},
        **{"AND": TokenType.AND, "OR": TokenType.OR, "NOT": TokenType.NOT, "IN": TokenType.IN},
        **{"BETWEEN": TokenType.BETWEEN, "LIKE": TokenType.LIKE, "IS": TokenType.IS},
        **{"NULL": TokenType.NULL, "TRUE": TokenType.TRUE, "FALSE": TokenType.FALSE},
    }


class _Reader:
    """Reads a condition from left to right; what is negated becomes its opposite.

    Args:
        text: the condition.
        kinds: column name -> kind.
    """

    def __init__(self, text: str, kinds: dict[str, str]) -> None:
        self.columns: set[str] = set()
        self._text = text
        self._kinds = kinds
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0
        self._literals = 0

    def condition(self) -> _Tree:
        tree = self._either(negated=False)
        if self._next:
            self._unexpected("AND, OR or the end")
        return tree

    def _either(self, negated: bool) -> _Tree:
        parts = [self._both(negated)]
        while self._take(TokenType.OR):
            parts.append(self._both(negated))
        return _combined(exp.And if negated else exp.Or, parts)

    def _both(self, negated: bool) -> _Tree:
        parts = [self._term(negated)]
        while self._take(TokenType.AND):
            parts.append(self._term(negated))
        return _combined(exp.Or if negated else exp.And, parts)

    def _term(self, negated: bool) -> _Tree:
        if self._next not in (TokenType.NOT, TokenType.L_PAREN):
            return self._comparison(negated)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            _refuse(f"nested too deep; the limit is {MAX_DEPTH} levels of parentheses and NOT")
        if self._take(TokenType.NOT):
            tree = self._term(not negated)
        else:
            self._expect(TokenType.L_PAREN, "(")
            tree = self._either(negated)
            self._expect(TokenType.R_PAREN, "AND, OR or )")
        self._depth -= 1
        return tree

    def _comparison(self, negated: bool) -> _Tree:
        if self._next not in _WORDS:
            literal = self._literal("a column, NOT or (")
            if self._next not in _OPERATORS:
                self._unexpected("=, !=, <>, <, <=, > or >=")
            operator = self._operator()
            operator = _MIRRORED.get(operator, operator)
            return self._compared(self._column(), operator, literal, negated)
        if self._next == TokenType.VAR and self._after == TokenType.L_PAREN:
            return self._array_function(negated)
        column = self._column()
        if self._next in (None, TokenType.AND, TokenType.OR, TokenType.R_PAREN):
            if self._kinds[column] != "true/false":
                _refuse(
                    f"{column} is {_a(self._kinds[column])}; only a true/false column stands alone"
                )
            return _leaf(exp.EQ, column, exp.Boolean(this=not negated))
        if self._take(TokenType.IS):
            negated ^= self._take(TokenType.NOT)
            self._expect(TokenType.NULL, "NULL or NOT NULL")
            return _negated(_leaf(exp.Is, column, exp.Null()), negated)
        if self._next in _OPERATORS:
            return self._compared(column, self._operator(), self._literal(), negated)
        negated ^= self._take(TokenType.NOT)
        if self._take(TokenType.IN):
            self._expect(TokenType.L_PAREN, "a list such as ('tea', 'coffee')")
            values = self._values(column, self._kinds[column], TokenType.R_PAREN, ")")
            return _negated(exp.In(this=_name(column), expressions=values), negated)
        if self._take(TokenType.BETWEEN):
            return self._between(column, negated)
        if self._take(TokenType.LIKE):
            return self._like(column, negated)
        return self._unexpected("=, !=, <>, <, <=, >, >=, IN, BETWEEN, IS or LIKE")

    def _compared(
        self, column: str, operator: _Operator, literal: exp.Expr, negated: bool
    ) -> _Tree:
        value = self._value(column, self._kinds[column], literal)
        if negated:
            operator = _OPPOSITE[operator]
        if isinstance(value, exp.Boolean):
            if operator not in (exp.EQ, exp.NEQ):
                _refuse(f"{column} is true/false, which has no order; compare it with = or !=")
            value = exp.Boolean(this=value.this is (operator is exp.EQ))
            operator = exp.EQ
        return _leaf(operator, column, value)

    def _between(self, column: str, negated: bool) -> _Tree:
        low = self._compared(column, exp.GTE, self._literal(), negated)
        self._expect(TokenType.AND, "AND")
        high = self._compared(column, exp.LTE, self._literal(), negated)
        if negated:
            return exp.Or(this=low, expression=high)
        # One range, which a scalar index answers at once.
        return exp.Between(this=_name(column), low=low.expression, high=high.expression)

    def _like(self, column: str, negated: bool) -> _Tree:
        self._check_kind(column, "text", "LIKE")
        pattern = self._value(column, "text", self._literal())
        if not _PATTERN.fullmatch(pattern.this):
            _refuse(
                f"LIKE with {_shown(pattern)}: a backslash stands only before %, _ or another "
                "backslash"
            )
        return _negated(_leaf(exp.Like, column, pattern), negated)

    def _array_function(self, negated: bool) -> _Tree:
        function = self._tokens[self._at].text
        operator = _FUNCTIONS.get(function.lower())
        if operator is None:
            _refuse(f"{function}() is not supported; {_SUPPORTED}")
        self._at += 2
        column = self._column()
        self._check_kind(column, "list of texts", function)
        self._expect(TokenType.COMMA, ",")
        if operator is exp.ArrayContains:
            value = self._value(column, "text", self._literal())
        else:
            self._expect(TokenType.L_BRACKET, "a list such as ['new', 'sale']")
            values = self._values(column, "text", TokenType.R_BRACKET, "]")
            value = exp.Array(expressions=values)
        self._expect(TokenType.R_PAREN, ")")
        return _negated(_leaf(operator, column, value), negated)

    def _column(self) -> str:
        if self._next not in _WORDS:
            self._unexpected("a column")
        column = self._tokens[self._at].text
        if column not in self._kinds:
            columns = ", ".join(f"{name} ({kind})" for name, kind in self._kinds.items())
            _refuse(f"no column {column}; there are {columns or 'none'}")
        self._at += 1
        self.columns.add(column)
        return column

    def _check_kind(self, column: str, wanted: str, what: str) -> None:
        if self._kinds[column] != wanted:
            _refuse(f"{column} is {_a(self._kinds[column])}; {what} needs {_a(wanted)}")

    def _operator(self) -> _Operator:
        self._at += 1
        return _OPERATORS[self._tokens[self._at - 1].token_type]

    def _literal(self, expected: str = _A_LITERAL) -> _Tree:
        is_negative = self._next == TokenType.DASH and self._after == TokenType.NUMBER
        self._at += is_negative
        if self._next not in _LITERALS:
            self._unexpected(expected)
        self._literals += 1
        if self._literals > MAX_LITERALS:
            _refuse(f"too many literals; the limit is {MAX_LITERALS:,}")
        token = self._tokens[self._at]
        self._at += 1
        if token.token_type == TokenType.STRING:
            return exp.Literal(this=token.text, is_string=True)
        if token.token_type == TokenType.NUMBER:
            return exp.Literal(this=_number("-" * is_negative + token.text), is_string=False)
        return exp.Boolean(this=token.token_type == TokenType.TRUE)

    def _values(self, column: str, kind: str, closing: TokenType, sign: str) -> list[_Tree]:
        """Literals up to the end of their list."""
        values = [self._value(column, kind, self._literal())]
        while self._take(TokenType.COMMA):
            values.append(self._value(column, kind, self._literal()))
        self._expect(closing, f"a comma or {sign}")
        return values

    def _value(self, column: str, kind: str, literal: exp.Expr) -> _Tree:
        """A literal as a value of a column or, for the kind text, as an item of its list."""
        if kind == "list of texts":
            _refuse(f"{column} is a list of texts; use array_has, array_has_any or array_has_all")
        if kind == "time" and literal.is_string:
            return _time(column, literal)
        is_text, is_number = literal.is_string, literal.is_number
        if kind != ("text" if is_text else "number" if is_number else "true/false"):
            hint = f"; {_TIME_HINT}" if kind == "time" else ""
            _refuse(f"{column} is {_a(self._kinds[column])}; got {_shown(literal)}{hint}")
        return literal

    @property
    def _next(self) -> TokenType | None:
        return self._tokens[self._at].token_type if self._at < len(self._tokens) else None

    @property
    def _after(self) -> TokenType | None:
        rest = self._tokens[self._at + 1 : self._at + 2]
        return rest[0].token_type if rest else None

    def _take(self, kind: TokenType) -> bool:
        is_next = self._next == kind
        self._at += is_next
        return is_next

    def _expect(self, kind: TokenType, expected: str) -> None:
        if not self._take(kind):
            self._unexpected(expected)

    def _unexpected(self, expected: str) -> NoReturn:
        if not self._next:
            _refuse(f"expected {expected} at the end, after {self._text.strip()[-_SHOWN:]}")
        token = self._tokens[self._at]
        got = self._text[token.start : token.end + 1]
        if got in _UNSUPPORTED:
            _refuse(f"{_UNSUPPORTED[got]} is not supported; {_SUPPORTED}")
        if re.match(r"\(?\s*select\b", self._text[token.start :], re.IGNORECASE):
            _refuse(f"a subquery (SELECT) is not supported; {_SUPPORTED}")
        hint = self._hint(token) if expected == _A_LITERAL else ""
        _refuse(f"expected {expected} at character {token.start + 1}, got {got[:_SHOWN]}{hint}")

    def _hint(self, token: Token) -> str:
        """What may have been meant where a literal is expected."""
        if token.token_type == TokenType.NULL:
            return "; test for missing values with IS NULL"
        if token.token_type in _WORDS and token.text in self._kinds:
            return "; a column is not compared with another column"
        is_quoted = token.token_type == TokenType.IDENTIFIER
        return "; texts stand in single quotes, columns in double quotes" if is_quoted else ""


def _refuse(reason: str) -> NoReturn:
    raise ValueError(f"filter: {reason}")


def _tokens(text: str) -> list[Token]:
    try:
        text.encode()  # a lone surrogate, as JSON may have, would fail in Lance
        tokens = _Tokenizer().tokenize(text)
    except UnicodeEncodeError as error:
        _refuse(f"no valid Unicode at character {error.start + 1}")
    except TokenError:
        _refuse(f"a quote has no end in {text[-_SHOWN:]}")
    if any(token.comments for token in tokens):
        _refuse(f"a comment is not supported; {_SUPPORTED}")
    if any(token.token_type == TokenType.SEMICOLON for token in tokens):
        _refuse(f"{_UNSUPPORTED[';']} is not supported; {_SUPPORTED}")
    if not tokens:
        _refuse(f"there is no condition; {_SUPPORTED}")
    return tokens


def _kind(column_type: pa.DataType) -> str | None:
    is_list = pa.types.is_list(column_type)  # whatever its items are called
    return KINDS.get(pa.list_(column_type.value_type) if is_list else column_type)


def _number(text: str) -> str:
    try:
        number = float(text)
    except ValueError:
        _refuse(f"{text[:_SHOWN]} is not a number")
    if not math.isfinite(number):
        _refuse(f"{text[:_SHOWN]} is too large for a number")
    return repr(number)


def _time(column: str, literal: exp.Expr) -> _Tree:
    """A date or date-time as a time in UTC, to the microsecond."""
    text = literal.this
    try:
        if not _TIME.fullmatch(text):
            raise ValueError
        time = datetime.fromisoformat(text)
        time = time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
    except (ValueError, OverflowError):
        _refuse(f"{column} is a time; got {_shown(literal)}; {_TIME_HINT}")
    iso = exp.Literal(this=time.isoformat(" ", "microseconds"), is_string=True)
    return exp.Cast(this=iso, to=_TIME_TYPE.copy())


def _a(kind: str) -> str:
    return kind if kind == "true/false" else f"a {kind}"


def _shown(literal: exp.Expr) -> str:
    if literal.is_string:
        return f"the text '{literal.this[:_SHOWN]}{'...' * (len(literal.this) > _SHOWN)}'"
    return f"the number {float(literal.this):g}" if literal.is_number else str(literal.this).upper()


def _name(column: str) -> exp.Column:
    return exp.Column(this=exp.Identifier(this=column, quoted=True))


def _leaf(operator: _Operator, column: str, value: exp.Expr) -> _Tree:
    return operator(this=_name(column), expression=value)


def _negated(leaf: exp.Expr, negated: bool) -> _Tree:
    return exp.Not(this=leaf) if negated else leaf


def _combined(connector: _Operator, parts: Sequence[exp.Expr]) -> _Tree:
    """One tree of many parts, balanced: a chain of a thousand is ten levels deep."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    left, right = _combined(connector, parts[:middle]), _combined(connector, parts[middle:])
    return connector(this=left, expression=right)


def _written(
    tree: exp.Expr,
    templates: dict[_Operator, str],
    name: Callable[[str], str],
    value: Callable[[exp.Expr], str],
) -> str:
    """A tree as text. AND binds closer than OR, so only an OR within an AND has parentheses.

    Fewer parentheses matter: Lance refuses 50 of them, one in another.
    """
    if isinstance(tree, exp.And | exp.Or):
        sides = []
        for side in (tree.left, tree.right):
            text = _written(side, templates, name, value)
            is_or_in_and = isinstance(tree, exp.And) and isinstance(side, exp.Or)
            sides.append(f"({text})" if is_or_in_and else text)
        return (" and " if isinstance(tree, exp.And) else " or ").join(sides)
    if isinstance(tree, exp.Not):
        column = name(tree.this.this.name)
        if isinstance(tree.this, exp.Is):
            return f"({column} is not null)"
        opposite = _written(tree.this, templates, name, value)
        return templates[exp.Not].format(column=column, opposite=opposite)
    if isinstance(tree, exp.Between):
        ends = {end: value(tree.args[end]) for end in ("low", "high")}
        return templates[exp.Between].format(column=name(tree.this.name), **ends)
    listed = tree.expressions or getattr(tree.expression, "expressions", []) or [tree.expression]
    values = ", ".join(map(value, listed)) if not isinstance(tree, exp.Is) else ""
    return templates[type(tree)].format(column=name(tree.this.name), values=values)


def _lance_value(value: exp.Expr) -> str:
    if isinstance(value, exp.Boolean):
        return str(value.this).lower()
    if isinstance(value, exp.Cast):
        return f"timestamp '{value.this.this}'"
    return "'" + value.this.replace("'", "''") + "'" if value.is_string else value.this


def _milvus_name(name: str) -> str:
    if not _MILVUS_NAME.fullmatch(name) or name.lower() in _MILVUS_WORDS:
        _refuse(
            f"Milvus cannot filter by the column {name}; expected ASCII letters, digits and "
            "underscores, and no word of its expressions. Rename the column"
        )
    return name


def _milvus_value(value: exp.Expr) -> str:
    if isinstance(value, exp.Boolean):
        return str(value.this).lower()
    if isinstance(value, exp.Cast):
        since = datetime.fromisoformat(value.this.this) - _EPOCH
        return str(since // timedelta(microseconds=1))
    if value.is_string and _CONTROL.search(value.this):
        _refuse(f"Milvus has no control characters in a text; got {value.this[:_SHOWN]!r}")
    return json.dumps(value.this, ensure_ascii=False) if value.is_string else value.this
