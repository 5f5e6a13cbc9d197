//! Settings and where each came from.
//!
//! ```text
//!   flag  >  HEADWATER_* in the environment  >  headwater.toml  >  default
//! ```
//!
//! Every setting has one key, such as `data-dir`; its flag is `--data-dir`, its variable `HEADWATER_DATA_DIR`, and the file
//! has it as a top-level key. An unknown variable or key is refused, since a misspelt limit is worse than none.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_server::{AuthConfig, BearerConfig, S3Location, TlsConfig};

use crate::memory;

/// File read when none is named, if it is there.
pub(crate) const FILE: &str = "headwater.toml";
/// Start of our environment variables.
const PREFIX: &str = "HEADWATER_";
/// Names the file; not a setting itself.
const FILE_VARIABLE: &str = "HEADWATER_CONFIG";

/// Every key and its default. `None`: the setting is absent, or worked out from the machine.
const KEYS: [(&str, Option<&str>); 23] = [
    ("advertise", None),
    ("auth-audience", Some("pravega-controller")),
    ("auth-claim", None),
    ("auth-issuer", None),
    ("auth-keys", None),
    ("auth-passwords", None),
    ("chunks", None),
    ("controller", Some("127.0.0.1:9090")),
    ("data-dir", Some("./headwater-data")),
    ("http", Some("127.0.0.1:9091")),
    ("http-hosts", None),
    ("insecure", Some("false")),
    ("log", Some("info")),
    ("log-format", Some("text")),
    ("memory-limit", None),
    ("retention-minutes", Some("30")),
    ("scrub-days", Some("7")),
    ("segment-store", Some("127.0.0.1:12345")),
    ("tls", None),
    ("tls-cert", None),
    ("tls-key", None),
    ("token-key", None),
    ("token-lifetime", Some("600")),
];

/// The settings as flags. Each is also an environment variable and a key of the settings file.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Flags {
    /// Where the store lives; created if absent [default: ./headwater-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where clients find the controller (gRPC); port 0 takes a free one [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    controller: Option<String>,
    /// Where clients read and write segments; port 0 takes a free one [default: 127.0.0.1:12345]
    #[arg(long, value_name = "ADDR")]
    segment_store: Option<String>,
    /// Where HTTP is served: administration, health, metrics, backups; port 0 takes a free one [default: 127.0.0.1:9091]
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Host that clients are told to connect to [default: the address of the segment store]
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Further names that HTTP is asked for under, with commas between them. Without authentication only addresses,
    /// localhost, the advertised host and these are answered
    #[arg(long, value_name = "NAMES")]
    http_hosts: Option<String>,
    /// Memory for everything, such as 512MiB [default: from the cgroup or the machine]
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,
    /// Object storage for chunks, such as s3://bucket/prefix; endpoint, region and credentials come from the variables
    /// that S3 tools use, such as AWS_ENDPOINT_URL [default: the data directory]
    #[arg(long, value_name = "URL")]
    chunks: Option<String>,
    /// Minutes between two looks at a stream with a retention policy [default: 30]
    #[arg(long, value_name = "MINUTES")]
    retention_minutes: Option<String>,
    /// Days in which everything stored is read and verified once; 0: never [default: 7]
    #[arg(long, value_name = "DAYS")]
    scrub_days: Option<String>,
    /// Password file: callers prove who they are with Basic; see `headwater user`. Read again when it changes
    #[arg(long, value_name = "FILE")]
    auth_passwords: Option<String>,
    /// Public keys whose Bearer tokens are believed, PEM or a JSON key set; read again when it changes
    #[arg(long, value_name = "FILE")]
    auth_keys: Option<String>,
    /// Issuer whose Bearer tokens are believed; without --auth-keys it is asked for its keys (OpenID Connect discovery)
    #[arg(long, value_name = "URL")]
    auth_issuer: Option<String>,
    /// Audience that Bearer tokens have to name [default: pravega-controller]
    #[arg(long, value_name = "NAME")]
    auth_audience: Option<String>,
    /// Claim of Bearer tokens with texts `resource,LEVEL`, beside authorization.permissions; dots lead into objects
    #[arg(long, value_name = "PATH")]
    auth_claim: Option<String>,
    /// Key that signs tokens for the segment store, at least 32 bytes [default: made in the data directory]
    #[arg(long, value_name = "FILE")]
    token_key: Option<String>,
    /// Seconds that a token for the segment store is good for [default: 600]
    #[arg(long, value_name = "SECONDS")]
    token_lifetime: Option<String>,
    /// Encryption of all connections: off, files (--tls-cert and --tls-key) or self-signed, for development: clients then
    /// have to trust tls/ca.pem of the data directory [default: off, or files if they are named]
    #[arg(long, value_name = "HOW")]
    tls: Option<String>,
    /// Certificate chain for TLS, a PEM file; read again when it changes
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// Key of the certificate, a PEM file that only its owner may read
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// Allow listening beyond this machine without authentication
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    insecure: Option<String>,
    /// What is logged: error, warn, info, debug, trace, or directives such as info,headwater_server=debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// How it is logged: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Settings file [default: headwater.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Where a setting came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Origin {
    /// The command line.
    Flag(&'static str),
    /// The environment.
    Variable(String),
    /// The settings file.
    File(PathBuf),
    /// Built in.
    Default,
    /// Worked out from this.
    Machine(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(key) => write!(f, "flag --{key}"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
            Self::Machine(what) => f.write_str(what),
        }
    }
}

/// Why settings are refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// No setting has this variable.
    #[error("unknown environment variable {name}")]
    UnknownVariable {
        /// As found.
        name: String,
    },
    /// A variable of ours is not text.
    #[error("environment variable {name} is not UTF-8")]
    NotText {
        /// As found.
        name: String,
    },
    /// No setting has this key.
    #[error("{}: unknown key {key:?}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// As found.
        key: String,
    },
    /// The file cannot be read.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A value makes no sense.
    #[error("{key} = {value:?} ({origin}): {reason}")]
    Value {
        /// The setting.
        key: &'static str,
        /// As given.
        value: String,
        /// By whom.
        origin: Origin,
        /// What is wrong.
        reason: String,
    },
}

/// All settings, read and checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Settings {
    /// Where the store lives.
    pub(crate) data_dir: PathBuf,
    /// Where gRPC is served.
    pub(crate) controller: SocketAddr,
    /// Where segments are served.
    pub(crate) segment_store: SocketAddr,
    /// Where HTTP is served.
    pub(crate) http: SocketAddr,
    /// Host that clients are told.
    pub(crate) advertise: Option<String>,
    /// Further names that HTTP is asked for under.
    pub(crate) http_hosts: Vec<String>,
    /// Object storage for chunks.
    pub(crate) chunks: Option<S3Location>,
    /// Memory for everything, in bytes.
    pub(crate) memory_bytes: u64,
    /// Time between two looks at a stream with a retention policy.
    pub(crate) retention_every: Duration,
    /// Everything stored is read and verified once in this time.
    pub(crate) scrub: Option<Duration>,
    /// How callers prove who they are.
    pub(crate) auth: Option<AuthConfig>,
    /// Certificate of the listeners.
    pub(crate) tls: Option<TlsConfig>,
    /// Listening beyond this machine without authentication is fine.
    pub(crate) insecure: bool,
    /// Log directives.
    pub(crate) log: String,
    /// How to log.
    pub(crate) log_format: LogFormat,
    /// Key, value and origin of each, for people.
    shown: Vec<(&'static str, String, Origin)>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For collectors.
    Json,
}

/// What the outside gives, so that tests can give something else.
#[derive(Debug)]
pub(crate) struct Outside {
    /// Name and value of every environment variable of ours.
    pub(crate) variables: Vec<(String, String)>,
    /// Directory that a relative settings file lies in.
    pub(crate) directory: PathBuf,
}

impl Outside {
    /// This process.
    ///
    /// # Errors
    /// A variable of ours that is not text.
    pub(crate) fn of_process() -> Result<Self, SettingsError> {
        let mut variables = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
            let value = value.into_string().map_err(|_| SettingsError::NotText { name: name.to_owned() })?;
            variables.push((name.to_owned(), value));
        }
        // The order of the environment is nobody's intention; the first error should be the same each time.
        variables.sort();
        Ok(Self { variables, directory: PathBuf::new() })
    }
}

type Given = BTreeMap<&'static str, (String, Origin)>;

impl Settings {
    /// Gathers, checks and ranks them.
    ///
    /// # Errors
    /// Any [`SettingsError`]; it names the key and who gave it.
    pub(crate) fn gather(flags: &Flags, outside: &Outside) -> Result<Self, SettingsError> {
        let mut given = Given::new();
        for (key, value) in KEYS {
            if let Some(value) = value {
                given.insert(key, (value.to_owned(), Origin::Default));
            }
        }
        let mut from_variables = Given::new();
        let mut file = flags.config.clone();
        for (name, value) in &outside.variables {
            if name == FILE_VARIABLE {
                file = file.or_else(|| Some(PathBuf::from(value)));
                continue;
            }
            // A shell that has these for all commands may start a server, too.
            if crate::cli::VARIABLES.contains(&name.as_str()) {
                continue;
            }
            let spelt = name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_lowercase().replace('_', "-");
            let key = key(&spelt).filter(|key| variable(key) == *name);
            let key = key.ok_or_else(|| SettingsError::UnknownVariable { name: name.clone() })?;
            from_variables.insert(key, (value.clone(), Origin::Variable(name.clone())));
        }
        given.extend(from_file(file.as_deref(), &outside.directory)?);
        given.extend(from_variables);
        given.extend(from_flags(flags));
        Self::check(given)
    }

    fn check(given: Given) -> Result<Self, SettingsError> {
        let mut shown = Vec::new();
        for (key, _) in KEYS {
            if let Some((value, origin)) = given.get(key) {
                shown.push((key, value.clone(), origin.clone()));
            }
        }
        let memory_bytes = match optional(&given, "memory-limit", memory::parse_size)? {
            Some(bytes) => bytes,
            None => {
                let (bytes, origin) = memory::budget();
                shown.push(("memory-limit", bytes.to_string(), Origin::Machine(origin)));
                bytes
            }
        };
        shown.sort_by_key(|(key, ..)| *key);
        Ok(Self {
            data_dir: required(&given, "data-dir", path)?,
            controller: required(&given, "controller", address)?,
            segment_store: required(&given, "segment-store", address)?,
            http: required(&given, "http", address)?,
            advertise: optional(&given, "advertise", |text| Ok(text.to_owned()))?,
            http_hosts: optional(&given, "http-hosts", hosts)?.unwrap_or_default(),
            chunks: optional(&given, "chunks", S3Location::parse)?,
            memory_bytes,
            retention_every: required(&given, "retention-minutes", |text| match text.parse::<u64>() {
                Ok(minutes @ 1..=1440) => Ok(Duration::from_secs(minutes * 60)),
                _ => Err("is no number of minutes from 1 to 1440".into()),
            })?,
            scrub: required(&given, "scrub-days", |text| match text.parse::<u64>() {
                Ok(0) => Ok(None),
                Ok(days @ 1..=3650) => Ok(Some(Duration::from_secs(days * 24 * 60 * 60))),
                _ => Err("is no number of days from 0 to 3650".into()),
            })?,
            auth: auth(&given)?,
            tls: tls(&given)?,
            insecure: required(&given, "insecure", |text| {
                text.parse().map_err(|_| "is neither true nor false".to_owned())
            })?,
            log: required(&given, "log", |text| {
                let words: Vec<_> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
                // A directive without a level names a target, so that a misspelt level would silence everything else.
                let is_level = |word: &str| word.parse::<tracing::level_filters::LevelFilter>().is_ok();
                if let Some(word) = words.iter().find(|word| !word.contains('=') && !is_level(word)) {
                    return Err(format!("{word:?} is no level (error, warn, info, debug, trace, off)"));
                }
                if let Some(word) = words.iter().find(|word| word.contains(['[', '{', ' '])) {
                    return Err(format!("{word:?} is neither LEVEL nor TARGET=LEVEL"));
                }
                if words.is_empty() {
                    return Err("names no level".to_owned());
                }
                let words = words.join(",");
                words.parse::<tracing_subscriber::filter::Targets>().map_err(|error| error.to_string())?;
                Ok(words)
            })?,
            log_format: required(&given, "log-format", |text| match text {
                "text" => Ok(LogFormat::Text),
                "json" => Ok(LogFormat::Json),
                _ => Err("is neither text nor json".into()),
            })?,
            shown,
        })
    }

    /// The settings as a file that would give the same, with the origin of each as a comment if wanted.
    pub(crate) fn show(&self, origin: bool) -> String {
        let mut page = String::new();
        for (key, value, from) in &self.shown {
            let value = match *key {
                "insecure" => value.clone(),
                _ => toml::Value::String(value.clone()).to_string(),
            };
            let comment = if origin { format!("  # {from}") } else { String::new() };
            page.push_str(&format!("{key} = {value}{comment}\n"));
        }
        page
    }

    /// The same for programs: each setting as an object on a line of its own.
    pub(crate) fn objects(&self) -> String {
        let object = |(key, value, from): &(&str, String, Origin)| {
            format!("{}\n", serde_json::json!({"setting": key, "value": value, "origin": from.to_string()}))
        };
        self.shown.iter().map(object).collect()
    }
}

/// Also when it was said: `config show` says it.
fn is_default(key: &str, value: &str) -> bool {
    KEYS.iter().any(|(known, default)| *known == key && *default == Some(value))
}

fn key(text: &str) -> Option<&'static str> {
    KEYS.iter().map(|(key, _)| *key).find(|key| *key == text)
}

fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('-', "_"))
}

fn from_flags(flags: &Flags) -> Given {
    let Flags {
        data_dir,
        controller,
        segment_store,
        http,
        advertise,
        http_hosts,
        auth_passwords,
        auth_keys,
        auth_issuer,
        auth_audience,
        auth_claim,
        token_key,
        token_lifetime,
        chunks,
        memory_limit,
        insecure,
        retention_minutes,
        scrub_days,
        tls,
        tls_cert,
        tls_key,
        log,
        log_format,
        config: _,
    } = flags;
    let flags = [
        ("data-dir", data_dir),
        ("controller", controller),
        ("segment-store", segment_store),
        ("http", http),
        ("advertise", advertise),
        ("http-hosts", http_hosts),
        ("auth-passwords", auth_passwords),
        ("auth-keys", auth_keys),
        ("auth-issuer", auth_issuer),
        ("auth-audience", auth_audience),
        ("auth-claim", auth_claim),
        ("token-key", token_key),
        ("token-lifetime", token_lifetime),
        ("chunks", chunks),
        ("memory-limit", memory_limit),
        ("insecure", insecure),
        ("retention-minutes", retention_minutes),
        ("scrub-days", scrub_days),
        ("tls", tls),
        ("tls-cert", tls_cert),
        ("tls-key", tls_key),
        ("log", log),
        ("log-format", log_format),
    ];
    flags.into_iter().filter_map(|(key, value)| Some((key, (value.clone()?, Origin::Flag(key))))).collect()
}

/// A file that was named must be there; the one by custom may be absent.
fn from_file(named: Option<&Path>, directory: &Path) -> Result<Given, SettingsError> {
    let path = directory.join(named.unwrap_or(Path::new(FILE)));
    let failed = |reason: String| SettingsError::File { path: path.clone(), reason };
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => return Ok(Given::new()),
        text => text.map_err(|error| failed(error.to_string()))?,
    };
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| failed(error.to_string()))?;
    let mut given = Given::new();
    for (spelt, value) in table {
        let Some(key) = key(&spelt) else { return Err(SettingsError::UnknownKey { path, key: spelt }) };
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            _ => return Err(failed(format!("{key} is neither a text nor a number nor true or false"))),
        };
        given.insert(key, (value, Origin::File(path.clone())));
    }
    Ok(given)
}

/// On if there is any way to prove who one is. What only makes sense with it is refused without.
fn auth(given: &Given) -> Result<Option<AuthConfig>, SettingsError> {
    let text = |text: &str| if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) };
    let passwords = optional(given, "auth-passwords", path)?;
    let (keys, issuer) = (optional(given, "auth-keys", path)?, optional(given, "auth-issuer", text)?);
    let (audience, claim) = (required(given, "auth-audience", text)?, optional(given, "auth-claim", text)?);
    let token_key = optional(given, "token-key", path)?;
    let token_lifetime_seconds = required(given, "token-lifetime", |text| match text.parse::<u32>() {
        // Clients come back for a new one 5 s before the end; shorter ones would be none. Longer ones would let in for long
        // who was taken away.
        Ok(seconds @ 10..=3600) => Ok(seconds),
        _ => Err("is no number of seconds from 10 to 3600".to_owned()),
    })?;
    let is_bearer = keys.is_some() || issuer.is_some();
    let is_on = is_bearer || passwords.is_some();
    for (key, makes_sense) in
        [("auth-audience", is_bearer), ("auth-claim", is_bearer), ("token-key", is_on), ("token-lifetime", is_on)]
    {
        if let Some((value, origin)) = given.get(key).filter(|(value, _)| !makes_sense && !is_default(key, value)) {
            let reason = if key.starts_with("auth") {
                "needs auth-keys or auth-issuer"
            } else {
                "needs auth-passwords, auth-keys or auth-issuer"
            };
            let (value, origin, reason) = (value.clone(), origin.clone(), reason.to_owned());
            return Err(SettingsError::Value { key, value, origin, reason });
        }
    }
    let bearer = is_bearer.then_some(BearerConfig { keys, issuer, audience, claim });
    Ok(is_on.then_some(AuthConfig { passwords, bearer, token_key, token_lifetime_seconds }))
}

/// Both files or none; naming them is enough.
fn tls(given: &Given) -> Result<Option<TlsConfig>, SettingsError> {
    let file = |key| optional(given, key, path);
    let other = |is_there: bool, key: &'static str, reason: &str| match given.get(key) {
        Some((value, origin)) if !is_there => {
            Err(SettingsError::Value { key, value: value.clone(), origin: origin.clone(), reason: reason.to_owned() })
        }
        _ => Ok(()),
    };
    let (certificate, key) = (file("tls-cert")?, file("tls-key")?);
    other(certificate.is_some(), "tls-key", "needs tls-cert")?;
    other(key.is_some(), "tls-cert", "needs tls-key")?;
    let files = certificate.zip(key).map(|(certificate, key)| TlsConfig::Files { certificate, key });
    if !given.contains_key("tls") {
        return Ok(files);
    }
    let said = optional(given, "tls", |text| match (text, files) {
        ("off", None) => Ok(None),
        ("files", Some(files)) => Ok(Some(files)),
        ("files", None) => Err("needs tls-cert and tls-key".to_owned()),
        ("self-signed", None) => Ok(Some(TlsConfig::SelfSigned)),
        ("off" | "self-signed", Some(_)) => Err("contradicts tls-cert and tls-key".to_owned()),
        _ => Err("is none of off, files and self-signed".to_owned()),
    })?;
    Ok(said.flatten())
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("is empty".into()) } else { Ok(PathBuf::from(text)) }
}

fn required<T>(
    given: &Given,
    key: &'static str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, SettingsError> {
    optional(given, key, read).map(|value| value.expect("a setting that is required has a default"))
}

fn optional<T>(
    given: &Given,
    key: &'static str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, SettingsError> {
    let Some((value, origin)) = given.get(key) else { return Ok(None) };
    read(value).map(Some).map_err(|reason| SettingsError::Value {
        key,
        value: value.clone(),
        origin: origin.clone(),
        reason,
    })
}

/// Names, with commas between them. Those of container platforms may have underscores.
fn hosts(text: &str) -> Result<Vec<String>, String> {
    let is_name = |name: &str| {
        let is_readable = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        is_readable && (1..=253).contains(&name.len())
    };
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    match names.iter().find(|name| !is_name(name)) {
        None => Ok(names),
        Some(name) => Err(format!("has {name:?}, which is no name of letters, digits, dots, hyphens and underscores")),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is no IP address with a port, such as 127.0.0.1:9090".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outside(directory: &Path, variables: &[(&str, &str)]) -> Outside {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Outside { variables, directory: directory.to_owned() }
    }

    fn write(directory: &Path, text: &str) {
        use std::io::Write as _;
        let mut file =
            std::fs::File::options().write(true).create(true).truncate(true).open(directory.join(FILE)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[track_caller]
    fn refused(flags: &Flags, outside: &Outside) -> String {
        Settings::gather(flags, outside).unwrap_err().to_string()
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
        let directory = tempfile::tempdir().unwrap();
        let mut flags = Flags::default();
        let mut variables = Vec::new();
        let expect = |flags: &Flags, variables: &[(&str, &str)], port: u16, origin: &str| {
            let settings = Settings::gather(flags, &outside(directory.path(), variables)).unwrap();
            assert_eq!(settings.http.port(), port);
            assert!(settings.show(true).contains(origin), "{origin} is not in\n{}", settings.show(true));
        };
        expect(&flags, &variables, 9091, "http = \"127.0.0.1:9091\"  # default");
        write(directory.path(), "http = \"127.0.0.1:1\"");
        expect(&flags, &variables, 1, "# file ");
        variables.push(("HEADWATER_HTTP", "127.0.0.1:2"));
        expect(&flags, &variables, 2, "# variable HEADWATER_HTTP");
        flags.http = Some("127.0.0.1:3".into());
        expect(&flags, &variables, 3, "# flag --http");
    }

    #[test]
    fn unknown_variables_and_keys_are_named() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["HEADWATER_DATADIR", "HEADWATER_data_dir", "HEADWATER_"] {
            let message = refused(&Flags::default(), &outside(directory.path(), &[(name, "x")]));
            assert!(message.contains(name), "{message}");
        }
        // Those of the other commands are none of the server's.
        let theirs = crate::cli::VARIABLES.map(|name| (name, "x"));
        assert!(Settings::gather(&Flags::default(), &outside(directory.path(), &theirs)).is_ok());
        write(directory.path(), "data_dir = \"x\"");
        assert!(refused(&Flags::default(), &outside(directory.path(), &[])).contains("\"data_dir\""));
    }

    #[test]
    fn further_hosts_are_names_with_commas_between_them() {
        let directory = tempfile::tempdir().unwrap();
        let flags = Flags { http_hosts: Some("a.example, head_water".into()), ..Flags::default() };
        let settings = Settings::gather(&flags, &outside(directory.path(), &[])).unwrap();
        assert_eq!(settings.http_hosts, ["a.example", "head_water"]);
    }

    #[test]
    fn a_bad_value_is_named_with_its_key_and_its_origin() {
        let directory = tempfile::tempdir().unwrap();
        for (name, value) in [
            ("HEADWATER_HTTP_HOSTS", "*"),
            ("HEADWATER_HTTP_HOSTS", "a.example,"),
            ("HEADWATER_HTTP_HOSTS", "http://a.example"),
            ("HEADWATER_HTTP", "localhost"),
            ("HEADWATER_MEMORY_LIMIT", "much"),
            ("HEADWATER_INSECURE", "perhaps"),
            ("HEADWATER_LOG_FORMAT", "xml"),
            ("HEADWATER_DATA_DIR", ""),
            ("HEADWATER_CHUNKS", "/var/chunks"),
            ("HEADWATER_SCRUB_DAYS", "weekly"),
            ("HEADWATER_LOG", "inof"),
            ("HEADWATER_LOG", "headwater_server=debug,wran"),
            ("HEADWATER_LOG", "headwater_server[call]=debug"),
            ("HEADWATER_LOG", "info,headwater_server=loud"),
            ("HEADWATER_LOG", " ,"),
            ("HEADWATER_TOKEN_LIFETIME", "-1"),
            ("HEADWATER_TOKEN_LIFETIME", "601"),
            ("HEADWATER_AUTH_CLAIM", "roles"),
            ("HEADWATER_TLS", "on"),
            ("HEADWATER_TLS", "files"),
            ("HEADWATER_TLS_CERT", "cert.pem"),
            ("HEADWATER_TLS_KEY", "key.pem"),
        ] {
            let message = refused(&Flags::default(), &outside(directory.path(), &[(name, value)]));
            assert!(message.contains(name) && message.contains(value), "{message}");
        }
    }

    #[test]
    fn what_is_logged_may_be_written_with_spaces_and_commas_to_spare() {
        let directory = tempfile::tempdir().unwrap();
        for (given, kept) in [("info ", "info"), ("info, headwater_server=debug,", "info,headwater_server=debug")] {
            let settings = Settings::gather(&Flags::default(), &outside(directory.path(), &[("HEADWATER_LOG", given)]));
            assert_eq!(settings.unwrap().log, kept);
        }
    }

    #[test]
    fn any_way_to_prove_who_one_is_puts_authentication_on() {
        let directory = tempfile::tempdir().unwrap();
        let of = |variables: &[(&str, &str)]| {
            Settings::gather(&Flags::default(), &outside(directory.path(), variables)).unwrap().auth
        };
        assert_eq!(of(&[]), None);
        let auth = of(&[("HEADWATER_AUTH_PASSWORDS", "p"), ("HEADWATER_TOKEN_LIFETIME", "60")]).unwrap();
        assert_eq!((auth.passwords, auth.bearer, auth.token_lifetime_seconds), (Some("p".into()), None, 60));
        for seconds in ["9", "3601"] {
            let variables = [("HEADWATER_AUTH_PASSWORDS", "p"), ("HEADWATER_TOKEN_LIFETIME", seconds)];
            let message = refused(&Flags::default(), &outside(directory.path(), &variables));
            assert!(message.contains("from 10 to 3600"), "{message}");
        }
        let bearer =
            of(&[("HEADWATER_AUTH_ISSUER", "https://id"), ("HEADWATER_AUTH_CLAIM", "c")]).unwrap().bearer.unwrap();
        assert_eq!((bearer.keys, bearer.issuer.as_deref()), (None, Some("https://id")));
        assert_eq!((bearer.audience.as_str(), bearer.claim.as_deref()), ("pravega-controller", Some("c")));
    }

    #[test]
    fn naming_a_certificate_and_its_key_is_enough_for_tls() {
        let directory = tempfile::tempdir().unwrap();
        let of =
            |variables: &[(&str, &str)]| Settings::gather(&Flags::default(), &outside(directory.path(), variables));
        let both = [("HEADWATER_TLS_CERT", "c"), ("HEADWATER_TLS_KEY", "k")];
        let files = TlsConfig::Files { certificate: "c".into(), key: "k".into() };
        assert_eq!(of(&both).unwrap().tls, Some(files));
        assert_eq!(of(&[("HEADWATER_TLS", "self-signed")]).unwrap().tls, Some(TlsConfig::SelfSigned));
        assert_eq!(of(&[]).unwrap().tls, None);
        for said in ["off", "self-signed"] {
            assert!(of(&[both[0], both[1], ("HEADWATER_TLS", said)]).is_err(), "{said}");
        }
    }

    #[test]
    fn a_named_file_must_be_there_and_hold_settings() {
        let directory = tempfile::tempdir().unwrap();
        let named = Flags { config: Some("missing.toml".into()), ..Flags::default() };
        assert!(refused(&named, &outside(directory.path(), &[])).contains("missing.toml"));
        for text in ["http = [1]", "http"] {
            write(directory.path(), text);
            assert!(refused(&Flags::default(), &outside(directory.path(), &[])).contains(FILE), "{text}");
        }
    }

    #[test]
    fn what_is_shown_gives_the_same_settings_again() {
        let directory = tempfile::tempdir().unwrap();
        let variables = [
            ("HEADWATER_ADVERTISE", "a-b.c"),
            ("HEADWATER_INSECURE", "true"),
            ("HEADWATER_TLS_CERT", "c"),
            ("HEADWATER_TLS_KEY", "k"),
        ];
        let first = Settings::gather(&Flags::default(), &outside(directory.path(), &variables)).unwrap();
        write(directory.path(), &first.show(true));
        let second = Settings::gather(&Flags::default(), &outside(directory.path(), &[])).unwrap();
        assert_eq!(first.show(false), second.show(false));
    }
}
