"""c_code.py: tokens and functions of C text, for the linters of this folder."""

import collections
import re

TOKEN = re.compile(
    r"(?P<skip>/\*.*?\*/|//[^\n]*|^[ \t]*\#(?:/\*.*?\*/|\\.|[^\n\\])*|\s+)"
    r'|"(?:\\.|[^"\\\n])*"|' r"'(?:\\.|[^'\\\n])*'" r"|[A-Za-z_]\w*|->|.",
    re.M | re.S,
)
OPENING, CLOSING = set("([{"), set(")]}")

# A function definition. SPECIFIERS, PARAMETERS and BODY are tokens. FIRST is the line of its name, LAST of its closing brace.
Definition = collections.namedtuple("Definition", "specifiers name parameters body first last")


def tokens_of(text):
    """Yields (token, line) of each token that is no comment, no preprocessor line and no space."""
    line = 1
    for match in TOKEN.finditer(text):
        if match.lastgroup != "skip":
            yield match.group(), line
        line += match.group().count("\n")


def closing(tokens, start):
    """Returns the index of the bracket that closes the one at START."""
    depth = 0
    for index in range(start, len(tokens)):
        depth += (tokens[index][0] in OPENING) - (tokens[index][0] in CLOSING)
        if depth == 0:
            return index
    return len(tokens)


def split(tokens, separator=","):
    """Returns the parts of TOKENS between separators outside of brackets."""
    parts, depth = [[]], 0
    for token in tokens:
        depth += (token[0] in OPENING) - (token[0] in CLOSING)
        if depth == 0 and token[0] == separator:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def functions_of(text):
    """Yields the Definition of each function: a name, parentheses and braces at the outermost level."""
    tokens = list(tokens_of(text))
    index, begin, head = 0, 0, None
    while index < len(tokens):
        token = tokens[index][0]
        if token == "(":
            end = closing(tokens, index)
            if head is None and index > 0 and tokens[index - 1][0] != "__attribute__":
                head = (tokens[begin:index - 1], tokens[index - 1], tokens[index + 1:end])
            index = end
        elif token == "{":
            end = closing(tokens, index)
            if head and end < len(tokens):
                specifiers, (name, first), parameters = head
                yield Definition(specifiers, name, parameters, tokens[index + 1:end], first, tokens[end][1])
            index, begin, head = end, end + 1, None
        elif token in (";", "="):
            head = None
            if token == "=":
                index = next(i for i in range(index, len(tokens)) if tokens[i][0] in "{;") - 1
            begin = index + 1
        index += 1
