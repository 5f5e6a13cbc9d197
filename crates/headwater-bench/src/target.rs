//! The server under load, and what a run leaves on it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use headwater_types::{Name, ScopedStream};
use headwater_wire::Text;
use tempfile::TempDir;

use crate::audit::Watch;
use crate::connection::Connection;
use crate::error::{BenchError, Context};
use crate::machine::Machine;
use crate::own::OwnServer;

/// Where the server is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Target {
    /// The segment store of a running server, host:port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:12345", conflicts_with = "own")]
    pub(crate) server: String,
    /// Where that server shows /metrics, host:port: its durable writes are compared with the device's flushes
    #[arg(long, value_name = "ADDR", conflicts_with = "own")]
    pub(crate) metrics: Option<String>,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Start a server of this program on a temporary data directory and measure that
    #[arg(long)]
    pub(crate) own: bool,
    /// Do not delete the segments of the run
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Where the controller is, for what segment stores alone do not do.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ControllerAt {
    /// The controller of that server (gRPC), host:port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9090", conflicts_with = "own")]
    pub(crate) controller: String,
}

impl ControllerAt {
    /// That of our own server, if we started one.
    pub(crate) fn of<'a>(&'a self, attached: &'a Attached) -> &'a str {
        attached.own().map_or(&self.controller, |own| &own.controller)
    }
}

/// Which disk, and which program.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Place {
    /// A directory on the server's disk, whose flushes and written bytes are counted; temporary data directories are
    /// made there
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) data_dir: PathBuf,
    /// The program to start instead of this one
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: Option<PathBuf>,
}

/// A server that can be written to.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) server: String,
    pub(crate) watch: Watch,
    pub(crate) machine: Machine,
    own: Option<Own>,
}

/// A server of our own and where it lives.
#[derive(Debug)]
struct Own {
    /// Before the directory it uses, so that it ends first.
    server: OwnServer,
    binary: PathBuf,
    directory: TempDir,
}

impl Target {
    /// The running server, or a new one.
    pub(crate) fn attach(&self) -> Result<Attached, BenchError> {
        if self.own {
            return self.place.attach();
        }
        Ok(Attached {
            server: self.server.clone(),
            watch: Watch { directory: self.place.data_dir.clone(), metrics: self.metrics.clone() },
            machine: Machine::look(&self.place.data_dir),
            own: None,
        })
    }
}

impl Place {
    /// The program to start: absolute, since it is started from another directory.
    pub(crate) fn program(&self) -> Result<PathBuf, BenchError> {
        match &self.binary {
            Some(binary) => std::fs::canonicalize(binary).on("find", binary.display()),
            None => std::env::current_exe().on("find", "this program"),
        }
    }

    /// A new server on an empty directory.
    pub(crate) fn attach(&self) -> Result<Attached, BenchError> {
        let machine = Machine::look(&self.data_dir);
        let parent = std::fs::canonicalize(&self.data_dir).on("find", self.data_dir.display())?;
        let directory = tempfile::Builder::new().prefix("headwater-bench-").tempdir_in(&parent);
        let directory = directory.on("create a directory in", parent.display())?;
        let binary = self.program()?;
        let server = OwnServer::start(&binary, &directory.path().join("data"))?;
        let watch = Watch { directory: directory.path().to_owned(), metrics: Some(server.http.clone()) };
        let own = Own { server, binary, directory };
        Ok(Attached { server: own.server.segment_store.clone(), watch, machine, own: Some(own) })
    }
}

impl Attached {
    /// The child process, if we started one.
    pub(crate) fn own(&self) -> Option<&OwnServer> {
        self.own.as_ref().map(|own| &own.server)
    }

    /// Directory of the data of our own server.
    pub(crate) fn own_data(&self) -> Option<PathBuf> {
        self.own.as_ref().map(|own| own.directory.path().join("data"))
    }

    /// Ends our own server, in order or as if the power went, does something to its data, and starts it again. The
    /// addresses change.
    pub(crate) fn restart(
        mut self,
        way: Restart,
        between: impl FnOnce(&Path) -> Result<(), BenchError>,
    ) -> Result<Self, BenchError> {
        let Some(Own { server, binary, directory }) = self.own.take() else {
            return Err(BenchError::Setting { what: "only a server of our own (--own) can be restarted".to_owned() });
        };
        match way {
            Restart::Orderly => server.stop()?,
            Restart::Killed => server.kill()?,
        }
        let data = directory.path().join("data");
        between(&data)?;
        let server = OwnServer::start(&binary, &data)?;
        self.server.clone_from(&server.segment_store);
        self.watch.metrics = Some(server.http.clone());
        self.own = Some(Own { server, binary, directory });
        Ok(self)
    }
}

/// Everything of ours is in it; it stays.
pub(crate) const SCOPE: &str = "bench";

/// How a server ends before it is started again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Restart {
    /// With a checkpoint.
    Orderly,
    /// `kill -9`.
    Killed,
}

/// Segments of one run. They stay when the run fails: they are its evidence.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) segments: Vec<Text>,
    /// Tells this run's writers from those of any other.
    tag: u32,
}

impl Run {
    /// Creates so many segments that nobody else has.
    pub(crate) fn start(server: &str, segments: usize) -> Result<Self, BenchError> {
        let run = Self::named(segments);
        Connection::open(server)?.create(&run.segments)?;
        Ok(run)
    }

    /// Names that nobody else has, for segments that are not created yet.
    pub(crate) fn named(segments: usize) -> Self {
        let tag = tag();
        let name = |number| format!("{SCOPE}/run-{tag:08x}/{number}.#epoch.0").into();
        Self { segments: (0..segments).map(name).collect(), tag }
    }

    /// The same with the first so many segments only.
    pub(crate) fn first(&self, segments: usize) -> Self {
        Self { segments: self.segments[..segments].to_vec(), tag: self.tag }
    }

    /// The stream whose segments these are, if a controller is to create them.
    pub(crate) fn stream(&self) -> ScopedStream {
        let name = |text: &str| Name::parse(text).expect("letters, digits and a hyphen are a name");
        ScopedStream { scope: name(SCOPE), stream: name(&format!("run-{:08x}", self.tag)) }
    }

    /// Ids of this run's writers begin here.
    pub(crate) fn first_writer(&self) -> u64 {
        u64::from(self.tag) << 32
    }

    /// Deletes the segments.
    pub(crate) fn delete(self, server: &str) -> Result<(), BenchError> {
        Connection::open(server)?.delete(&self.segments)
    }
}

/// Differs from run to run, also of the same process or second; never zero.
fn tag() -> u32 {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let seed = now ^ (u64::from(std::process::id()) << 40) ^ (u64::from(RUNS.fetch_add(1, Ordering::Relaxed)) << 20);
    let mixed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((mixed >> 32) as u32).max(1)
}
