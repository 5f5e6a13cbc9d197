//! The password file: who there is, how each proves it, what each was granted.
//!
//! One entry on each line: `user:proof:resource,LEVEL;resource,LEVEL;…`. The proof is the hexadecimal form of the text
//! `iterations:salt:hash`, salt and hash in hexadecimal themselves, of PBKDF2 with HMAC-SHA256. Empty lines and those that
//! begin with `#` say nothing.
//!
//! Guarantees:
//! * one bad line refuses the whole file and is named: a grant that is missing, or a denial, may be the point of it
//! * so does a line with a character that nobody sees: it would speak of somebody or something else than it seems to
//! * a wrong password costs what a right one costs, and so does a user who does not exist
//!
//! Source: the format of Pravega's password file, which its own server reads only up to the first empty line.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;

use ring::pbkdf2;

use crate::grants::{Grant, GrantError, Grants};

/// Iterations of new entries. Source: OWASP's recommendation for PBKDF2 with HMAC-SHA256.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(600_000).expect("it is not zero");
/// Most iterations that are believed; more would be an attack on the server's time.
pub const ITERATIONS_MAX: u32 = 10_000_000;
/// Bytes of salt in new entries.
pub const SALT_BYTES: usize = 32;
/// Bytes of hash in new entries, as in those of the original.
const HASH_BYTES: usize = 64;
/// Bytes of a hash that one derivation of all iterations gives.
const BLOCK_BYTES: usize = 32;
/// Fewest bytes of a hash.
const HASH_BYTES_MIN: usize = 16;
/// Most users; each costs some hundred bytes.
const USERS_MAX: usize = 100_000;
/// Longest password, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Salt for users who do not exist.
const NOBODY: [u8; SALT_BYTES] = [0x5a; SALT_BYTES];

/// Why a password file is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct FileError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: LineError,
}

/// What is wrong with a line of a password file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LineError {
    /// A colon is missing.
    #[error("is not user:proof:grants")]
    Parts,
    /// A character that shows nothing or changes how others are shown. As the first of a file U+FEFF is a byte order mark.
    #[error("has a character that cannot be seen: {}", named(.character))]
    Unseen {
        /// The first of them.
        character: char,
    },
    /// Empty, or with characters that are not printable.
    #[error("user name is empty or not printable")]
    User,
    /// Another line has the same user.
    #[error("user has another line already")]
    Twice,
    /// Not what [`new_entry`] writes, or out of its limits.
    #[error("proof of the password is malformed")]
    Proof,
    /// A grant that cannot be read.
    #[error("grant {number}: {error}")]
    Grant {
        /// Counted from 1.
        number: usize,
        /// Why.
        error: GrantError,
    },
    /// More users than anyone has.
    #[error("more than {USERS_MAX} users")]
    TooMany,
}

#[derive(Clone, Eq, PartialEq)]
struct Proof {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl Proof {
    fn parse(text: &str) -> Option<Self> {
        let inner = String::from_utf8(unhex(text)?).ok()?;
        let mut parts = inner.split(':');
        let (iterations, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || !iterations.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let iterations = NonZeroU32::new(iterations.parse().ok()?).filter(|count| count.get() <= ITERATIONS_MAX)?;
        let (salt, hash) = (unhex(salt)?, unhex(hash)?);
        let fits = !salt.is_empty() && (HASH_BYTES_MIN..=HASH_BYTES).contains(&hash.len());
        fits.then_some(Self { iterations, salt, hash })
    }

    /// Iterations times blocks: what a derivation costs.
    fn cost(&self) -> u32 {
        let blocks = if self.hash.len() > BLOCK_BYTES { 2 } else { 1 };
        self.iterations.get() * blocks
    }

    fn holds(&self, password: &[u8]) -> bool {
        pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, self.iterations, &self.salt, password, &self.hash).is_ok()
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct User {
    proof: Proof,
    grants: Grants,
}

/// A password file that was read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PasswordFile {
    users: BTreeMap<String, User>,
    /// Of the most expensive user; zero without users.
    cost_max: u32,
}

impl PasswordFile {
    /// Reads a whole file.
    ///
    /// # Errors
    /// [`FileError`] for the first line that is not an entry.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let mut users = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let refused = |reason| FileError { line: index + 1, reason };
            let Some((name, proof, rest)) = entry(line).map_err(refused)? else { continue };
            let proof = Proof::parse(proof).ok_or(refused(LineError::Proof))?;
            let grants = grants(rest).map_err(|(number, error)| refused(LineError::Grant { number, error }))?;
            if users.len() == USERS_MAX {
                return Err(refused(LineError::TooMany));
            }
            if users.insert(name.to_owned(), User { proof, grants }).is_some() {
                return Err(refused(LineError::Twice));
            }
        }
        let cost_max = users.values().map(|user| user.proof.cost()).max().unwrap_or_default();
        Ok(Self { users, cost_max })
    }

    /// What a user was granted, if the password is right. Takes the time of a derivation, up to seconds with the most
    /// iterations allowed. A refusal takes as long for every name, so that it does not tell who is a user.
    pub fn check(&self, user: &str, password: &[u8]) -> Option<&Grants> {
        if password.len() > PASSWORD_BYTES_MAX {
            return None;
        }
        let known = self.users.get(user);
        if let Some(user) = known.filter(|user| user.proof.holds(password)) {
            return Some(&user.grants);
        }
        if let Some(iterations) = NonZeroU32::new(self.owed(known)) {
            let nobody = Proof { iterations, salt: NOBODY.to_vec(), hash: vec![0; BLOCK_BYTES] };
            // Nobody's hash is no hash of anything, but the answer must not hang on it.
            let _ = nobody.holds(password);
        }
        None
    }

    /// What a refusal still has to cost, after the derivation of those who are known.
    fn owed(&self, known: Option<&User>) -> u32 {
        let most = if self.cost_max == 0 { 2 * ITERATIONS.get() } else { self.cost_max };
        most - known.map_or(0, |user| user.proof.cost())
    }

    /// Names and grants, by name.
    pub fn users(&self) -> impl Iterator<Item = (&str, &Grants)> {
        self.users.iter().map(|(name, user)| (name.as_str(), &user.grants))
    }
}

/// The three parts of a line; nothing for one that says nothing.
fn entry(line: &str) -> Result<Option<(&str, &str, &str)>, LineError> {
    if line.trim().is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    // Tabs between grants are blanks.
    if let Some(character) = line.chars().find(|c| *c != '\t' && is_unseen(*c)) {
        return Err(LineError::Unseen { character });
    }
    let (user, rest) = line.split_once(':').ok_or(LineError::Parts)?;
    let (proof, grants) = rest.split_once(':').ok_or(LineError::Parts)?;
    if is_user(user) { Ok(Some((user, proof, grants))) } else { Err(LineError::User) }
}

/// Printable, without a colon or blanks at its ends; not the start of a comment.
fn is_user(name: &str) -> bool {
    let printable = name.chars().all(|c| !is_unseen(c) && c != ':');
    !name.is_empty() && name.len() <= 255 && name.trim() == name && !name.starts_with('#') && printable
}

/// What is not ASCII and cannot be seen: formats (Cf), separators of lines and paragraphs (Zl, Zp), and what is shown as nothing
/// (Default_Ignorable_Code_Point). First and last of each run, ascending. Source: the character database of Unicode 15.
const UNSEEN: [(char, char); 25] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

fn is_unseen(c: char) -> bool {
    c.is_control() || !c.is_ascii() && UNSEEN.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

fn named(unseen: &char) -> String {
    let what = if *unseen == '\u{feff}' { ", a byte order mark if a file begins with it" } else { "" };
    format!("U+{:04X}{what}", u32::from(*unseen))
}

fn grants(text: &str) -> Result<Grants, (usize, GrantError)> {
    let parts = text.split(';').map(str::trim).enumerate().filter(|(_, part)| !part.is_empty());
    let grants: Result<Vec<_>, _> =
        parts.map(|(index, part)| Grant::parse(part).map_err(|error| (index + 1, error))).collect();
    grants.map(Grants::new)
}

/// Why an entry cannot be made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EntryError {
    /// Empty, too long, or with characters that a line cannot have.
    #[error(
        "user name {name:?} is empty, longer than 255 bytes, begins with #, has blanks at its ends, or has a colon or characters that cannot be seen"
    )]
    User {
        /// As given.
        name: String,
    },
    /// Empty or too long.
    #[error("password is empty or longer than {PASSWORD_BYTES_MAX} bytes")]
    Password,
    /// A grant that cannot be read.
    #[error("grant {text:?}: {error}")]
    Grant {
        /// As given.
        text: String,
        /// Why.
        error: GrantError,
    },
}

/// A user with a password, and nothing about what they may do: made before a file is looked at, since it takes as long as
/// a login.
pub struct NewUser {
    /// The line up to its grants.
    start: String,
}

impl fmt::Debug for NewUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewUser").finish_non_exhaustive()
    }
}

impl NewUser {
    /// `salt` has to be random.
    ///
    /// # Errors
    /// [`EntryError::User`] and [`EntryError::Password`].
    pub fn new(
        user: &str,
        password: &[u8],
        salt: &[u8; SALT_BYTES],
        iterations: NonZeroU32,
    ) -> Result<Self, EntryError> {
        if !is_user(user) {
            return Err(EntryError::User { name: user.to_owned() });
        }
        if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
            return Err(EntryError::Password);
        }
        let mut hash = [0; HASH_BYTES];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, &mut hash);
        let inner = format!("{iterations}:{}:{}", hex(salt), hex(&hash));
        Ok(Self { start: format!("{user}:{}:", hex(inner.as_bytes())) })
    }

    /// Their line, without its end.
    pub fn line(&self, grants: &[Grant]) -> String {
        grants.iter().fold(self.start.clone(), |line, grant| format!("{line}{grant};"))
    }
}

/// Reads grants as they are given one by one.
///
/// # Errors
/// [`EntryError::Grant`].
pub fn parse_grants(texts: &[String]) -> Result<Vec<Grant>, EntryError> {
    let parse = |text: &String| Grant::parse(text).map_err(|error| EntryError::Grant { text: text.clone(), error });
    texts.iter().map(parse).collect()
}

/// A line for a user, without its end. `salt` has to be random.
///
/// # Errors
/// Any [`EntryError`].
pub fn new_entry(
    user: &str,
    password: &[u8],
    grants: &[String],
    salt: &[u8; SALT_BYTES],
    iterations: NonZeroU32,
) -> Result<String, EntryError> {
    let grants = parse_grants(grants)?;
    Ok(NewUser::new(user, password, salt, iterations)?.line(&grants))
}

/// The file with a user's line replaced by `line`, or taken away; everything else, comments included, stays. The second
/// value says whether there was such a line.
///
/// # Errors
/// [`FileError`] if the file is no good as it is.
pub fn with_entry(text: &str, user: &str, line: Option<&str>) -> Result<(String, bool), FileError> {
    PasswordFile::parse(text)?;
    let mut found = false;
    let mut lines: Vec<&str> = Vec::new();
    for old in text.lines() {
        let is_theirs = matches!(entry(old), Ok(Some((name, ..))) if name == user);
        found |= is_theirs;
        match line {
            Some(new) if is_theirs => lines.push(new),
            None if is_theirs => {}
            _ => lines.push(old),
        }
    }
    if let (Some(new), false) = (line, found) {
        lines.push(new);
    }
    // A file without a word looks like one that is still being written.
    let whole = if lines.is_empty() { "# nobody".to_owned() } else { lines.join("\n") };
    Ok((whole + "\n", found))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes().chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::{Level, Resource};

    /// User `alice`, password `secret-1`, salt 00 01 … 1f, 5,000 iterations; computed with another implementation.
    const ALICE: &str = "alice:353030303a3030303130323033303430353036303730383039306130623063306430653066313031313132313331\
                         34313531363137313831393161316231633164316531663a35386432323234646432656561303338363033393566\
                         35363632393666376461346362666336363463643062643738366666363961383530613965653066383235616261\
                         34653939323530656361323164313335653931373562333839313735303163343235363034313836363465303132\
                         3733613831303137313063363234\
                         :prn::/scope:s1/*,READ;";
    const FEW: NonZeroU32 = NonZeroU32::new(2).unwrap();

    fn made(user: &str, password: &str) -> String {
        let grants = ["prn::*,READ_UPDATE".to_owned()];
        new_entry(user, password.as_bytes(), &grants, &[7; SALT_BYTES], FEW).unwrap()
    }

    #[test]
    fn an_entry_of_the_original_is_read() {
        let file = PasswordFile::parse(ALICE).unwrap();
        let grants = file.check("alice", b"secret-1").expect("the password is right");
        assert_eq!(grants.level(Resource::Stream("s1", "orders")), Level::Read);
        assert_eq!(grants.level(Resource::Stream("s2", "orders")), Level::None);
        assert!(file.check("alice", b"secret-2").is_none());
        assert!(file.check("alic", b"secret-1").is_none());
    }

    #[test]
    fn an_entry_that_was_made_is_read_again() {
        let file = PasswordFile::parse(&made("bob", "päss:wörd")).unwrap();
        assert!(file.check("bob", "päss:wörd".as_bytes()).is_some());
        assert!(file.check("bob", b"").is_none());
    }

    #[test]
    fn a_refusal_costs_the_same_whoever_it_is() {
        let slow = new_entry("slow", b"x", &[], &[7; SALT_BYTES], NonZeroU32::new(50).unwrap()).unwrap();
        let short = format!("short:{}:", hex(b"30:00:00000000000000000000000000000000"));
        let file = PasswordFile::parse(&format!("{}\n{slow}\n{short}\n", made("fast", "x"))).unwrap();
        let cost = |name: &str| {
            let known = file.users.get(name);
            known.map_or(0, |user| user.proof.cost()) + file.owed(known)
        };
        for name in ["slow", "fast", "short", "nobody"] {
            assert_eq!(cost(name), 100, "{name}");
            assert!(file.check(name, b"wrong").is_none());
        }
        assert_eq!(file.owed(file.users.get("slow")), 0);
        assert_eq!(PasswordFile::default().owed(None), 2 * ITERATIONS.get());
    }

    #[test]
    fn reading_goes_on_after_empty_lines_and_comments() {
        let text = format!("# people\n\n{}\r\n\n# more\n{}\n", made("a", "x"), made("b", "y"));
        let file = PasswordFile::parse(&text).unwrap();
        assert_eq!(file.users().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b"]);
        assert!(file.check("b", b"y").is_some());
    }

    #[test]
    fn one_bad_line_refuses_the_file_and_is_named() {
        let good = made("good", "x");
        let proof = good.split(':').nth(1).unwrap();
        for (line, reason) in [
            ("nonsense".to_owned(), LineError::Parts),
            ("user:only".to_owned(), LineError::Parts),
            (format!(":{proof}:"), LineError::User),
            ("u:zz:".to_owned(), LineError::Proof),
            ("u::prn::*,READ;".to_owned(), LineError::Proof),
            (format!("u:{}:", &proof[..proof.len() - 2]), LineError::Proof),
            (format!("u:{}:", &proof[..proof.len() / 2]), LineError::Proof),
            (format!("u:{}:", hex(b"10000001:00:00000000000000000000000000000000")), LineError::Proof),
            (format!("u:{}:", hex(b"0:00:00000000000000000000000000000000")), LineError::Proof),
            (format!("u:{proof}:prn::*"), LineError::Grant { number: 1, error: GrantError::NoLevel }),
            (format!("u:{proof}:prn::*,READ;x,READ"), LineError::Grant { number: 2, error: GrantError::Pattern }),
            (good.clone(), LineError::Twice),
        ] {
            let refused = PasswordFile::parse(&format!("# c\n{good}\n{line}\n"));
            assert_eq!(refused, Err(FileError { line: 3, reason }), "{line}");
        }
    }

    #[test]
    fn what_cannot_be_seen_refuses_the_file_and_is_named() {
        let good = made("good", "x");
        let refused =
            |text: &str| PasswordFile::parse(text).map(|file| file.users().count()).map_err(|e| e.to_string());
        let mark = "line 1: has a character that cannot be seen: U+FEFF, a byte order mark if a file begins with it";
        for text in [format!("\u{feff}{good}\n"), format!("\u{feff}# people: all\n{good}\n"), "\u{feff}".to_owned()] {
            assert_eq!(refused(&text), Err(mark.to_owned()), "{text:?}");
        }
        for character in [
            '\0',
            '\r',
            '\u{7f}',
            '\u{85}',
            '\u{ad}',
            '\u{61c}',
            '\u{200b}',
            '\u{200d}',
            '\u{202e}',
            '\u{2066}',
            '\u{2028}',
            '\u{2060}',
            '\u{feff}',
            '\u{1d173}',
            '\u{e0041}',
        ] {
            let name = format!("ad{character}min");
            let salt = [7; SALT_BYTES];
            assert!(matches!(new_entry(&name, b"x", &[], &salt, FEW), Err(EntryError::User { .. })), "{name:?}");
            // In a name, and where it keeps a denial from being one.
            for line in [good.replace("good", &name), format!("{}prn::/scope:s{character},NONE;", made("v", "x"))] {
                let error = Err(FileError { line: 2, reason: LineError::Unseen { character } });
                assert_eq!(PasswordFile::parse(&format!("{good}\n{line}\n")), error, "{line:?}");
            }
            let comment = format!("# {character}\n{good}\n");
            assert_eq!(refused(&comment), Ok(1), "nothing in a comment is anybody or anything");
        }
        let seen = format!("{good};\t prn::/,READ \n{}\n", made("Zoë Ωmega 名前 é", "x"));
        assert_eq!(refused(&seen), Ok(2));
        assert!(UNSEEN.is_sorted() && UNSEEN.iter().all(|(first, last)| first <= last && !first.is_ascii()));
    }

    #[test]
    fn users_come_and_go_and_everything_else_stays() {
        let text = "# people\n\n";
        let (text, was_there) = with_entry(text, "a", Some(&made("a", "x"))).unwrap();
        assert!(!was_there);
        let (text, _) = with_entry(&text, "b", Some(&made("b", "y"))).unwrap();
        let (text, was_there) = with_entry(&text, "a", Some(&made("a", "z"))).unwrap();
        assert!(was_there && text.starts_with("# people\n\na:"));
        assert!(PasswordFile::parse(&text).unwrap().check("a", b"z").is_some());
        let (text, was_there) = with_entry(&text, "a", None).unwrap();
        assert!(was_there);
        assert_eq!(PasswordFile::parse(&text).unwrap().users().count(), 1);
        assert!(!with_entry(&text, "a", None).unwrap().1);
        assert!(with_entry("broken", "a", None).is_err());
    }

    #[test]
    fn nothing_shows_a_hash() {
        let file = PasswordFile::parse(ALICE).unwrap();
        let shown = format!("{file:?}");
        assert!(!shown.contains("58d2") && !shown.contains("[88, "), "{shown}");
    }
}
