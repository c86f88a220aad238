//! The statements of an SQL script, told apart as psql does: a semicolon ends one, unless it is quoted or in a comment.

/// One statement of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// As the script has it, without the comments before it and without the semicolon.
    pub(crate) text: String,
    /// The words: its meaning, without its comments and line breaks. Quoted text is one word.
    pub(crate) words: Vec<String>,
}

/// The kinds of statements of a script, by the way in which a script that brings another release to this one treats
/// them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    /// Creates a function, procedure or view: it can be replaced.
    Replaceable(&'a str),
    /// Creates a table, index or event trigger: it can only be altered.
    Lasting(&'a str),
    /// Says something of an object: a comment, a privilege, that its rows are dumped.
    Remark(&'a str),
    /// Drops objects.
    Drop(Vec<&'a str>),
    /// Checks something.
    Check,
    Other,
}

/// The statements of a script. Commands of psql are left out. A body of a function between BEGIN ATOMIC and END has statements
/// of its own.
pub(crate) fn statements(script: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut start = None;
    let mut words: Vec<String> = Vec::new();
    let mut depth = 0_u32;
    let mut at = 0;
    while at < script.len() {
        let rest = &script[at..];
        let token = Token::first(rest);
        let end = at + token.length(rest);
        match token {
            Token::Space | Token::Comment => {}
            Token::Command if start.is_none() => {}
            Token::Semicolon if depth > 0 => words.push(";".to_owned()),
            Token::Semicolon => {
                if let Some(start) = start.take() {
                    let text = script[start..at].trim_end().to_owned();
                    statements.push(Statement { text, words: std::mem::take(&mut words) });
                }
            }
            Token::Command | Token::Word | Token::Quoted => {
                start.get_or_insert(at);
                let follows_begin = words.last().is_some_and(|word| word.eq_ignore_ascii_case("BEGIN"));
                match script[at..end].to_ascii_uppercase().as_str() {
                    "ATOMIC" if follows_begin => depth = 1,
                    "CASE" if depth > 0 => depth += 1,
                    "END" => depth = depth.saturating_sub(1),
                    _ => {}
                }
                words.push(script[at..end].to_owned());
            }
        }
        at = end;
    }
    statements
}

#[derive(Clone, Copy)]
enum Token {
    Space,
    Comment,
    /// A command of psql, to the end of its line.
    Command,
    Semicolon,
    Quoted,
    Word,
}

impl Token {
    fn first(rest: &str) -> Token {
        match rest.as_bytes()[0] {
            b' ' | b'\t' | b'\n' => Token::Space,
            b'-' if rest.starts_with("--") => Token::Comment,
            b'\\' => Token::Command,
            b';' => Token::Semicolon,
            b'\'' | b'"' => Token::Quoted,
            b'$' if dollar_tag(rest).is_some() => Token::Quoted,
            _ => Token::Word,
        }
    }

    fn length(self, rest: &str) -> usize {
        let to_end_of_line = || rest.find('\n').unwrap_or(rest.len());
        match self {
            Token::Space | Token::Semicolon => 1,
            Token::Comment | Token::Command => to_end_of_line(),
            Token::Quoted => match dollar_tag(rest) {
                Some(tag) => rest[tag.len()..].find(tag).map_or(rest.len(), |at| tag.len() + at + tag.len()),
                // A quote that is doubled begins another quoted word right away.
                None => rest[1..].find(&rest[..1]).map_or(rest.len(), |at| at + 2),
            },
            Token::Word => {
                let is_word = |c: char| c.is_alphanumeric() || "_.@".contains(c);
                match rest.find(|c| !is_word(c)) {
                    Some(0) => rest.chars().next().map_or(1, char::len_utf8),
                    Some(length) => length,
                    None => rest.len(),
                }
            }
        }
    }
}

/// `$tag$` at the start of a text.
fn dollar_tag(text: &str) -> Option<&str> {
    let tag = text.strip_prefix('$')?;
    let length = tag.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    tag[length..].starts_with('$').then(|| &text[..length + 2])
}

impl Statement {
    /// Its action, and the object of it: the name without arguments and columns.
    pub(crate) fn kind(&self) -> Kind<'_> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["CREATE", "FUNCTION" | "PROCEDURE" | "VIEW", name, ..] => Kind::Replaceable(name),
            ["CREATE", "TABLE" | "INDEX", name, ..]
            | ["CREATE", "UNIQUE", "INDEX", name, ..]
            | ["CREATE", "EVENT", "TRIGGER", name, ..] => Kind::Lasting(name),
            ["COMMENT", "ON", "EVENT", "TRIGGER", name, ..] | ["COMMENT", "ON", _, name, ..] => {
                Kind::Remark(object(name))
            }
            ["GRANT" | "REVOKE", ..] => words
                .iter()
                .skip_while(|word| **word != "ON")
                .skip(1)
                .find(|word| !["TABLE", "FUNCTION", "PROCEDURE"].contains(word))
                .map_or(Kind::Other, |name| Kind::Remark(name)),
            ["SELECT", "pg_catalog.pg_extension_config_dump", "(", name, ..] => {
                Kind::Remark(name.trim_matches('\''))
            }
            ["DROP", "EVENT", "TRIGGER", names @ ..] | ["DROP", _, names @ ..] => {
                let is_name = |word: &&&str| word.starts_with("clip_");
                Kind::Drop(names.iter().filter(is_name).copied().collect())
            }
            ["DO", ..] => Kind::Check,
            _ => Kind::Other,
        }
    }
}

/// The table or view of a column, or the object itself.
fn object(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::{Kind, statements};

    #[test]
    fn a_semicolon_ends_a_statement_unless_it_is_quoted() {
        let script = "\\echo Use it; \\quit\n-- one; two\nSELECT 'a;''b' -- c;\n  , \"d;\";\n\nDO $do$\nBEGIN; END\n$do$;\n";
        let found = statements(script);
        let texts: Vec<&str> = found.iter().map(|statement| statement.text.as_str()).collect();
        assert_eq!(texts, ["SELECT 'a;''b' -- c;\n  , \"d;\"", "DO $do$\nBEGIN; END\n$do$"]);
        assert_eq!(found[0].words, ["SELECT", "'a;'", "'b'", ",", "\"d;\""]);
    }

    #[test]
    fn a_body_of_sql_is_of_its_statement() {
        let script = "CREATE FUNCTION a() LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN b THEN 1 END; SELECT 2; END;\nSELECT 3;";
        let found = statements(script);
        assert_eq!(found.len(), 2);
        assert!(found[0].text.ends_with("SELECT 2; END"), "{}", found[0].text);
        assert_eq!(found[1].words, ["SELECT", "3"]);
    }

    #[test]
    fn comments_and_line_breaks_mean_nothing() {
        let one = statements("CREATE VIEW v AS -- why\n\tSELECT 1;");
        let other = statements("CREATE VIEW v AS SELECT 1;");
        assert_eq!(one[0].words, other[0].words);
        assert_ne!(statements("SELECT 'a  b';")[0].words, statements("SELECT 'a b';")[0].words);
    }

    #[test]
    fn a_statement_is_known_by_its_action_and_object() {
        let kind_of = |script: &str, expected: Kind| assert_eq!(statements(script)[0].kind(), expected);
        kind_of("CREATE FUNCTION clip_a(b int) RETURNS int;", Kind::Replaceable("clip_a"));
        kind_of("CREATE UNIQUE INDEX clip_i ON clip_t (a);", Kind::Lasting("clip_i"));
        kind_of("COMMENT ON FUNCTION clip_a(int) IS 'x';", Kind::Remark("clip_a"));
        kind_of("COMMENT ON COLUMN clip_t.a IS 'x';", Kind::Remark("clip_t"));
        kind_of("COMMENT ON EVENT TRIGGER clip_e IS 'x';", Kind::Remark("clip_e"));
        kind_of("GRANT SELECT ON clip_t TO PUBLIC;", Kind::Remark("clip_t"));
        kind_of("REVOKE ALL ON FUNCTION clip_a() FROM PUBLIC;", Kind::Remark("clip_a"));
        kind_of("SELECT pg_catalog.pg_extension_config_dump('clip_t', '');", Kind::Remark("clip_t"));
        kind_of("DROP FUNCTION clip_a(int), clip_b;", Kind::Drop(vec!["clip_a", "clip_b"]));
        kind_of("INSERT INTO clip_t VALUES (1);", Kind::Other);
    }
}
