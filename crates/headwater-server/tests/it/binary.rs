//! The binary that is shipped, as a process of its own, with the settings that a test would give the server in its own
//! process.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use headwater_server::{AuthConfig, BearerConfig, Config, TlsConfig};
use rustix::process::{Pid, Signal, kill_process};

/// A running server; it dies with its owner.
pub(crate) struct Binary {
    process: Child,
    pub(crate) controller: SocketAddr,
    pub(crate) segment_store: SocketAddr,
    pub(crate) http: SocketAddr,
}

impl Binary {
    #[allow(clippy::disallowed_methods, reason = "starts a process, whose words are kept in a file")]
    pub(crate) fn start(path: OsString, config: &Config) -> Self {
        let mut command = Command::new(path);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HEADWATER_") {
                command.env_remove(name);
            }
        }
        let log = config.data_dir.with_extension("log");
        command.arg("serve").args(flags(config)).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let Some(ready) = lines.find(|line| line.as_ref().unwrap().starts_with("ready ")) else {
            panic!("the binary does not become ready: {}", std::fs::read_to_string(log).unwrap());
        };
        let ready = ready.unwrap();
        let address = |name: &str| {
            let field = ready.split(' ').find_map(|field| field.strip_prefix(name)).unwrap();
            field.parse().unwrap()
        };
        let [controller, segment_store, http] = [address("controller="), address("segment-store="), address("http=")];
        Self { process, controller, segment_store, http }
    }

    /// As an operator asks for it.
    pub(crate) fn reload(&self) {
        kill_process(Pid::from_child(&self.process), Signal::HUP).unwrap();
    }

    pub(crate) fn stop(mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        let status = self.process.wait().unwrap();
        assert!(status.success(), "the server stopped with {status}");
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What settings there are for it on the command line. Every field of the configuration is looked at, so that none can be
/// forgotten.
fn flags(config: &Config) -> Vec<OsString> {
    let Config {
        data_dir,
        controller,
        segment_store,
        http,
        http_hosts,
        advertise,
        memory_bytes,
        retention_every,
        scrub,
        insecure,
        auth,
        tls,
        chunks,
        on_fatal: _,
    } = config;
    assert!(chunks.is_none(), "object storage is named by its address, which the configuration does not keep");
    let mut flags: Vec<OsString> = Vec::new();
    let mut flag = |name: &str, value: OsString| flags.extend([name.into(), value]);
    flag("--data-dir", data_dir.into());
    flag("--controller", controller.to_string().into());
    flag("--segment-store", segment_store.to_string().into());
    flag("--http", http.to_string().into());
    flag("--memory-limit", memory_bytes.to_string().into());
    flag("--retention-minutes", (retention_every.as_secs() / 60).to_string().into());
    flag("--scrub-days", scrub.map_or(0, |all| all.as_secs() / 86_400).to_string().into());
    if !http_hosts.is_empty() {
        flag("--http-hosts", http_hosts.join(",").into());
    }
    if let Some(host) = advertise {
        flag("--advertise", host.into());
    }
    match tls {
        None => {}
        Some(TlsConfig::SelfSigned) => flag("--tls", "self-signed".into()),
        Some(TlsConfig::Files { certificate, key }) => {
            flag("--tls-cert", certificate.into());
            flag("--tls-key", key.into());
        }
    }
    if let Some(AuthConfig { passwords, bearer, token_key, token_lifetime_seconds }) = auth {
        flag("--token-lifetime", token_lifetime_seconds.to_string().into());
        if let Some(file) = passwords {
            flag("--auth-passwords", file.into());
        }
        if let Some(file) = token_key {
            flag("--token-key", file.into());
        }
        if let Some(BearerConfig { keys, issuer, audience, claim }) = bearer {
            flag("--auth-audience", audience.into());
            if let Some(file) = keys {
                flag("--auth-keys", file.into());
            }
            if let Some(issuer) = issuer {
                flag("--auth-issuer", issuer.into());
            }
            if let Some(claim) = claim {
                flag("--auth-claim", claim.into());
            }
        }
    }
    if *insecure {
        flags.push("--insecure".into());
    }
    flags
}
