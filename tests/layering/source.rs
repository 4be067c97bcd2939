//! Just enough understanding of Rust's text for the rules: tokens, inline modules, paths, functions.
//!
//! No parser: comments and literals are blanked first, and after that braces, words and `::` are
//! all the rules need. Lengths and line numbers stay those of the file.

/// A word or a mark of the code, with its line (from 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

/// A path such as `crate::wire::addr::Addr`, groups spread out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) line: usize,
    pub(crate) segments: Vec<String>,
    /// The inline modules around it, outermost first.
    pub(crate) inside: Vec<String>,
}

/// Replaces what comments, strings and character literals contain by blanks.
pub(crate) fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_comment(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => block_comment(bytes, at),
            b'"' => string(bytes, at),
            b'r' if starts_raw(bytes, at) => raw_string(bytes, at),
            b'\'' => char_literal(bytes, at),
            _ => at,
        };
        for byte in out.iter_mut().take(end).skip(at) {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).expect("blanked in whole characters")
}

fn line_comment(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n)
}

fn block_comment(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i < bytes.len() {
        if bytes[i..].starts_with(b"/*") {
            depth += 1;
            i += 2;
        } else if bytes[i..].starts_with(b"*/") {
            depth -= 1;
            i += 2;
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    bytes.len()
}

fn string(bytes: &[u8], at: usize) -> usize {
    let mut i = at + 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    bytes.len()
}

/// `r"` or `r#"`, not the end of a word and not a raw identifier.
fn starts_raw(bytes: &[u8], at: usize) -> bool {
    let joined = at > 0 && is_word(bytes[at - 1]) && bytes[at - 1] != b'b';
    let hashes = bytes[at + 1..].iter().take_while(|b| **b == b'#').count();
    !joined && bytes.get(at + 1 + hashes) == Some(&b'"')
}

fn raw_string(bytes: &[u8], at: usize) -> usize {
    let hashes = bytes[at + 1..].iter().take_while(|b| **b == b'#').count();
    let end = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    let body = at + 2 + hashes;
    (body..bytes.len())
        .find(|i| bytes[*i..].starts_with(&end))
        .map_or(bytes.len(), |i| i + end.len())
}

/// A character literal's end; a lifetime is left as it is.
fn char_literal(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at + 1..];
    if rest.first() == Some(&b'\\') {
        let close = rest.iter().skip(2).position(|b| *b == b'\'');
        return close.map_or(bytes.len(), |n| at + n + 4);
    }
    let width =
        std::str::from_utf8(rest).ok().and_then(|s| s.chars().next()).map_or(1, char::len_utf8);
    if rest.get(width) == Some(&b'\'') { at + width + 2 } else { at }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// Words, `::` and single marks of blanked code.
pub(crate) fn tokens(code: &str) -> Vec<Token<'_>> {
    let bytes = code.as_bytes();
    let (mut out, mut at, mut line) = (Vec::new(), 0, 1);
    while at < bytes.len() {
        let len = match bytes[at] {
            b if is_word(b) => bytes[at..].iter().take_while(|b| is_word(**b)).count(),
            b':' if bytes.get(at + 1) == Some(&b':') => 2,
            _ => 1,
        };
        if bytes[at] == b'\n' {
            line += 1;
        } else if !bytes[at].is_ascii_whitespace() {
            out.push(Token { text: &code[at..at + len], line });
        }
        at += len;
    }
    out
}

/// Index just behind the brace that closes the one at `open`.
fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "{" => depth += 1,
            "}" if depth == 1 => return i + 1,
            "}" => depth -= 1,
            _ => {}
        }
    }
    tokens.len()
}

/// Lines (first, last) of the modules marked `#[cfg(test)]`.
pub(crate) fn test_modules(code: &str) -> Vec<(usize, usize)> {
    let tokens = tokens(code);
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut found = Vec::new();
    for (i, window) in tokens.windows(mark.len()).enumerate() {
        if !window.iter().zip(mark).all(|(token, text)| token.text == text) {
            continue;
        }
        let rest = &tokens[i..];
        let Some(start) = rest.iter().position(|t| ["{", ";"].contains(&t.text)) else { continue };
        if rest[start].text == "{" && rest[..start].iter().any(|t| t.text == "mod") {
            found.push((tokens[i].line, tokens[closing(&tokens, i + start) - 1].line));
        }
    }
    found
}

/// All paths whose first word is one of `roots`.
pub(crate) fn paths(code: &str, roots: &[&str]) -> Vec<Path> {
    let tokens = tokens(code);
    let mut modules: Vec<(String, usize)> = Vec::new();
    let (mut out, mut depth) = (Vec::new(), 0);
    for (i, token) in tokens.iter().enumerate() {
        match token.text {
            "{" => {
                depth += 1;
                if i >= 2 && tokens[i - 2].text == "mod" {
                    modules.push((tokens[i - 1].text.to_owned(), depth));
                }
            }
            "}" => {
                modules.retain(|(_, at)| *at != depth);
                depth -= 1;
            }
            word if roots.contains(&word) && begins_path(&tokens, i) => {
                let inside: Vec<String> = modules.iter().map(|(name, _)| name.clone()).collect();
                spread(&tokens, i, &[], &inside, &mut out);
            }
            _ => {}
        }
    }
    out
}

/// Whether the word at `i` begins a path of more than one segment, and is no path's middle.
fn begins_path(tokens: &[Token<'_>], i: usize) -> bool {
    let goes_on = tokens.get(i + 1).is_some_and(|t| t.text == "::");
    let before = i.checked_sub(1).map(|j| tokens[j].text);
    let absolute = before == Some("::") && (i < 2 || !is_word(tokens[i - 2].text.as_bytes()[0]));
    goes_on && (before != Some("::") || absolute)
}

/// Reads the path at `i` behind `prefix` and spreads its groups; returns the index behind it.
fn spread(
    tokens: &[Token<'_>],
    mut i: usize,
    prefix: &[String],
    inside: &[String],
    out: &mut Vec<Path>,
) -> usize {
    let mut segments = prefix.to_vec();
    let line = tokens[i].line;
    while let Some(token) = tokens.get(i) {
        if token.text == "{" {
            i += 1;
            while tokens.get(i).is_some_and(|t| t.text != "}") {
                i = spread(tokens, i, &segments, inside, out);
                // What is left of this member is a comma, or `as` and a name.
                while tokens.get(i).is_some_and(|t| t.text != "," && t.text != "}") {
                    i += 1;
                }
                i += usize::from(tokens.get(i).is_some_and(|t| t.text == ","));
            }
            return i + 1;
        }
        if !is_word(token.text.as_bytes()[0]) && token.text != "*" {
            break;
        }
        segments.push(token.text.to_owned());
        i += 1;
        if tokens.get(i).is_none_or(|t| t.text != "::") {
            break;
        }
        i += 1;
    }
    if segments.len() > prefix.len() {
        out.push(Path { line, segments, inside: inside.to_vec() });
    }
    i
}

/// Name, first and last line of every function that has a body.
pub(crate) fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let tokens = tokens(code);
    let mut out = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        let Some(name) = tokens.get(i + 1) else { break };
        if token.text != "fn" || !is_word(name.text.as_bytes()[0]) {
            continue;
        }
        let mut nesting = 0_i32;
        for (j, mark) in tokens.iter().enumerate().skip(i) {
            match mark.text {
                "(" | "[" => nesting += 1,
                ")" | "]" => nesting -= 1,
                ";" if nesting == 0 => break,
                "{" if nesting == 0 => {
                    let last = tokens[closing(&tokens, j) - 1].line;
                    out.push((name.text.to_owned(), token.line, last));
                    break;
                }
                _ => {}
            }
        }
    }
    out
}
