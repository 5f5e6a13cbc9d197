//! Resources, levels, and which of somebody's grants decides.
//!
//! Guarantees:
//! * a pattern matches literally but for `*`, which stands for any text, also none
//! * of the patterns that match, the most specific decides: the one with more literal characters, then with fewer `*`,
//!   then the one that grants less; for a table's segments those that are about tables go before all others
//! * a name that a client made up cannot look like another resource: what no name may have is replaced
//!
//! Source of the resource strings: Pravega's permission resources; the original matches regular expressions in the order of
//! the file instead.

use std::cmp::Reverse;
use std::fmt;

/// Start of the name of what a Java reader group keeps its state in.
const READER_GROUP: &str = "_RG";
/// Start of the name of what the times of a stream are kept in.
const MARK: &str = "_MARK";
/// End of the name of what a key-value table is kept in.
pub(crate) const TABLE: &str = "_kvtable";

/// What somebody may do with a resource. Each includes those before it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// Nothing.
    None,
    /// Look.
    Read,
    /// Look and change.
    ReadUpdate,
}

impl Level {
    /// As it is written in files and tokens.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "NONE" => Some(Self::None),
            "READ" => Some(Self::Read),
            "READ_UPDATE" => Some(Self::ReadUpdate),
            _ => None,
        }
    }

    /// As it is written in files and tokens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Read => "READ",
            Self::ReadUpdate => "READ_UPDATE",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that can be protected. The names are whatever a client sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resource<'a> {
    /// Everything.
    Root,
    /// A scope, without what is in it.
    Scope(&'a str),
    /// A stream of a scope; also those that clients and servers keep things in.
    Stream(&'a str, &'a str),
    /// A reader group of a scope.
    ReaderGroup(&'a str, &'a str),
    /// A key-value table of a scope.
    Table(&'a str, &'a str),
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inside = |f: &mut fmt::Formatter<'_>, kind: &str, scope: &str, name: &str| {
            write!(f, "prn::/scope:{}/{kind}:{}", Plain(scope), Plain(name))
        };
        match self {
            Self::Root => f.write_str("prn::/"),
            Self::Scope(scope) => write!(f, "prn::/scope:{}", Plain(scope)),
            Self::Stream(scope, name) => inside(f, "stream", scope, name),
            Self::ReaderGroup(scope, name) => inside(f, "reader-group", scope, name),
            Self::Table(scope, name) => inside(f, "key-value-table", scope, name),
        }
    }
}

/// Whether a text has only characters that names of streams, groups and tables have, those of internal ones included.
pub fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 1024
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Shows a name with `?` for every character that no name may have.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        self.0
            .chars()
            .try_for_each(|c| f.write_char(if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '?' }))
    }
}

impl<'a> Resource<'a> {
    /// What has to be granted for this: itself, but for what others keep their things in. A reader group's stream stands
    /// for the group, a mark stream for its stream, and a table's segments for the table or the stream of its name.
    pub fn stand_ins(self) -> Vec<Resource<'a>> {
        let Self::Stream(scope, name) = self else { return vec![self] };
        if let Some(group) = name.strip_prefix(READER_GROUP) {
            return vec![Self::ReaderGroup(scope, group)];
        }
        if let Some(stream) = name.strip_prefix(MARK) {
            return vec![Self::Stream(scope, stream)];
        }
        match name.strip_suffix(TABLE) {
            Some(table) => vec![self, Self::Table(scope, table), Self::Stream(scope, table)],
            None => vec![self],
        }
    }

    /// What others keep their things in. Whoever may read the group or stream may ask for a token there.
    pub fn is_kept_for_another(self) -> bool {
        matches!(self, Self::Stream(_, name) if name.starts_with(READER_GROUP) || name.starts_with(MARK))
    }

    /// Where the readers of a group write down where they are.
    pub fn is_written_by_readers(self) -> bool {
        matches!(self, Self::Stream(_, name) if name.starts_with(READER_GROUP))
    }
}

/// Why a grant cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum GrantError {
    /// No comma between pattern and level.
    #[error("grant has no comma between resource and level")]
    NoLevel,
    /// Not one of the three.
    #[error("level is none of NONE, READ and READ_UPDATE")]
    Level,
    /// It would never match.
    #[error("resource is neither * nor begins with prn::, or has a character that no resource has")]
    Pattern,
}

/// One line of somebody's permissions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    pattern: String,
    level: Level,
}

impl Grant {
    /// A grant of a level on whatever a pattern matches.
    ///
    /// # Errors
    /// [`GrantError::Pattern`].
    pub fn new(pattern: &str, level: Level) -> Result<Self, GrantError> {
        let is_whole = pattern.starts_with("prn::") || pattern.bytes().all(|byte| byte == b'*') && !pattern.is_empty();
        // Also what nobody sees, which would make a denial one of nothing.
        let is_of_resources = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/?*".contains(&byte);
        if is_whole && pattern.bytes().all(is_of_resources) {
            Ok(Self { pattern: pattern.to_owned(), level })
        } else {
            Err(GrantError::Pattern)
        }
    }

    /// Reads `resource,LEVEL`.
    ///
    /// # Errors
    /// Any [`GrantError`].
    pub fn parse(text: &str) -> Result<Self, GrantError> {
        let (pattern, level) = text.rsplit_once(',').ok_or(GrantError::NoLevel)?;
        Self::new(pattern.trim(), Level::parse(level.trim()).ok_or(GrantError::Level)?)
    }

    /// Compares by who decides: the greatest of those that match.
    fn weight(&self) -> (usize, Reverse<usize>, Reverse<Level>) {
        let stars = self.pattern.bytes().filter(|byte| *byte == b'*').count();
        (self.pattern.len() - stars, Reverse(stars), Reverse(self.level))
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.pattern, self.level)
    }
}

/// Everything that somebody was granted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Grants(Vec<Grant>);

impl Grants {
    /// In any order.
    pub fn new(grants: Vec<Grant>) -> Self {
        Self(grants)
    }

    /// What they allow on a resource.
    pub fn level(&self, resource: Resource<'_>) -> Level {
        let names: Vec<_> = resource.stand_ins().iter().map(Resource::to_string).collect();
        // A table's segments, the table, and the stream of its name: what is said about the table goes before what is
        // said about the stream, however long the pattern.
        if let [segments, table, stream] = names.as_slice() {
            let is_about_table = |grant: &&Grant| {
                let pattern = grant.pattern.as_str();
                pattern.contains("key-value-table:") && matches(pattern, table)
                    || matches(pattern, segments) && !matches(pattern, stream)
            };
            if let Some(grant) = self.0.iter().filter(is_about_table).max_by_key(|grant| grant.weight()) {
                return grant.level;
            }
        }
        let matching = self.0.iter().filter(|grant| names.iter().any(|name| matches(&grant.pattern, name)));
        matching.max_by_key(|grant| grant.weight()).map_or(Level::None, |grant| grant.level)
    }

    /// Whether they allow as much as this on a resource.
    pub fn allow(&self, resource: Resource<'_>, level: Level) -> bool {
        self.level(resource) >= level
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = &Grant> {
        self.0.iter()
    }
}

/// Whether a pattern with `*` for any text matches the whole of a text. Takes at most their lengths' product.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last `*` does not match: one more byte belongs to it.
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            back = Some((p + 1, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((after, from)) = back {
            back = Some((after, from + 1));
            (p, t) = (after, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(texts: &[&str]) -> Grants {
        Grants::new(texts.iter().map(|text| Grant::parse(text).unwrap()).collect())
    }

    #[test]
    fn a_dot_is_a_dot_and_a_scope_is_not_the_start_of_another() {
        for (pattern, name, expected) in [
            ("prn::/scope:s/stream:a.b", "prn::/scope:s/stream:a.b", true),
            ("prn::/scope:s/stream:a.b", "prn::/scope:s/stream:axb", false),
            ("prn::/scope:a", "prn::/scope:ab", false),
            ("prn::/scope:a", "prn::/scope:a/stream:b", false),
            ("prn::/scope:a/*", "prn::/scope:a/stream:b", true),
            ("prn::/scope:a/*", "prn::/scope:ab/stream:b", false),
            ("prn::/scope:a*", "prn::/scope:ab/stream:b", true),
            ("prn::*", "prn::/", true),
            ("*", "prn::/scope:a", true),
            ("prn::/*:b", "prn::/scope:a/stream:b", true),
            ("prn::/*:b", "prn::/scope:a/stream:bb", false),
            ("prn::/*a*a*", "prn::/aa", true),
            ("prn::/*a*a*", "prn::/a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_most_specific_grant_decides_in_whatever_order() {
        let texts = ["prn::*,READ_UPDATE", "prn::/scope:s/*,READ", "prn::/scope:s/stream:secret,NONE"];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let grants = grants(&order.map(|index| texts[index]));
            for (resource, level) in [
                (Resource::Root, Level::ReadUpdate),
                (Resource::Scope("s"), Level::ReadUpdate),
                (Resource::Stream("s", "t"), Level::Read),
                (Resource::Stream("s", "secret"), Level::None),
                (Resource::Stream("s", "_MARKsecret"), Level::None),
                (Resource::Stream("t", "t"), Level::ReadUpdate),
            ] {
                assert_eq!(grants.level(resource), level, "{resource}");
            }
        }
        assert_eq!(grants(&["prn::/,READ_UPDATE", "prn::/,READ"]).level(Resource::Root), Level::Read);
        assert_eq!(grants(&[]).level(Resource::Root), Level::None);
    }

    #[test]
    fn what_is_kept_for_another_follows_the_other() {
        let of_group = grants(&["prn::/scope:s/reader-group:g,READ"]);
        assert_eq!(of_group.level(Resource::Stream("s", "_RGg")), Level::Read);
        assert_eq!(of_group.level(Resource::Stream("s", "g")), Level::None);
        let of_table = grants(&["prn::/scope:s/key-value-table:k,READ_UPDATE"]);
        assert_eq!(of_table.level(Resource::Stream("s", "k_kvtable")), Level::ReadUpdate);
        assert_eq!(of_table.level(Resource::Stream("s", "k")), Level::None);
    }

    #[test]
    fn what_is_said_about_a_table_goes_before_what_is_said_about_the_stream_of_its_name() {
        let of = |texts: &[&str]| grants(texts).level(Resource::Stream("s", "orders_kvtable"));
        let stream = "prn::/scope:s/stream:orders,READ_UPDATE";
        assert_eq!(of(&[stream]), Level::ReadUpdate);
        assert_eq!(of(&[stream, "prn::/scope:s/key-value-table:*,NONE"]), Level::None);
        assert_eq!(of(&[stream, "prn::/*key-value-table:o*,READ"]), Level::Read);
        assert_eq!(of(&[stream, "prn::/scope:s/stream:*_kvtable,NONE"]), Level::None);
        assert_eq!(of(&["prn::/scope:s/*,NONE", stream]), Level::ReadUpdate);
        assert_eq!(of(&[stream, "prn::/scope:s/key-value-table:other,NONE"]), Level::ReadUpdate);
    }

    #[test]
    fn a_name_cannot_smuggle_a_resource_in() {
        let grants = grants(&["prn::/scope:s/stream:mine,READ_UPDATE"]);
        assert_eq!(grants.level(Resource::Scope("s/stream:mine")), Level::None);
        assert_eq!(Resource::Stream("a/b", "c:d*\n").to_string(), "prn::/scope:a?b/stream:c?d??");
    }

    #[test]
    fn malformed_grants_are_named() {
        for (text, error) in [
            ("prn::/", GrantError::NoLevel),
            ("prn::/,WRITE", GrantError::Level),
            ("prn::/,read", GrantError::Level),
            ("scope:a,READ", GrantError::Pattern),
            (",READ", GrantError::Pattern),
        ] {
            assert_eq!(Grant::parse(text), Err(error), "{text}");
        }
    }
}
