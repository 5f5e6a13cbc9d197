//! Figures of the server and its store, in the text format that Prometheus scrapes.
//!
//! Handles are cheap to clone and lock nothing when they count. Names carry their unit; what has a limit reports the
//! limit too. Nothing a client sends becomes a name or a label.

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;

use headwater_controller::Controller;
use headwater_engine::Engine;
use headwater_engine::api::Refusal;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::auth::Kind;

/// Upper bounds of [`Metrics::append_latency`], in seconds: from a cached disk write to a client's patience.
const LATENCY_BOUNDS_SECONDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// What the listeners and connections count; every connection has a clone.
#[derive(Clone, Debug)]
pub struct Metrics(std::sync::Arc<Figures>);

impl std::ops::Deref for Metrics {
    type Target = Figures;

    fn deref(&self) -> &Figures {
        &self.0
    }
}

/// See [`Metrics`].
#[derive(Debug)]
pub struct Figures {
    /// Connections open now, on all listeners.
    pub connections: Gauge,
    /// Most connections allowed at a time.
    pub connections_max: Gauge,
    /// Connections accepted since the start.
    pub accepted: Counter,
    /// Connections closed because of what the peer sent or did not send.
    pub protocol_errors: Counter,
    /// Connections closed because the peer did not take its answers.
    pub stalled: Counter,
    /// Frames of the segment store protocol received.
    pub frames_received: Counter,
    /// Frames of the segment store protocol sent.
    pub frames_sent: Counter,
    /// Bytes received by the segment store listener.
    pub bytes_received: Counter,
    /// Bytes sent by the segment store listener.
    pub bytes_sent: Counter,
    /// Handshakes that came to nothing.
    pub tls_handshakes_failed: Counter,
    /// Changes of files with users or keys.
    pub auth_reloads: Counter,
    /// Changes of such files that are no good.
    pub auth_reloads_failed: Counter,
    /// Callers who were not who they said they are, by the kind of their credentials.
    auth_refused: Family<[(&'static str, &'static str); 1], Counter>,
    /// Callers who were turned away because too many others prove who they are.
    pub auth_busy: Counter,
    /// Commands of the segment store protocol whose token does not allow them.
    pub tokens_refused: Counter,
    /// Changes of the certificate.
    pub tls_reloads: Counter,
    /// Changes of the certificate's files that are no good.
    pub tls_reloads_failed: Counter,
    /// Appends acknowledged.
    pub appends: Counter,
    /// Bytes of acknowledged appends.
    pub append_bytes: Counter,
    /// Appends answered with anything but an acknowledgement, by [`Reason`].
    appends_refused: Family<[(&'static str, &'static str); 1], Counter>,
    /// 1 while the wall clock is more than a day away from the time that has passed.
    pub retention_clock_jumped: Gauge,
    /// From the last byte of an append to its acknowledgement, in seconds.
    pub append_latency: Histogram,
    registry: Registry,
}

/// Why an append was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reason {
    /// It was on condition of a length that the segment does not have.
    Condition,
    /// Its writer has written over another connection meanwhile.
    Stale,
    /// The segment is sealed.
    Sealed,
    /// There is no such segment.
    NoSuchSegment,
    /// The segment is a table, which takes no appends.
    Unsupported,
    /// The append can never succeed.
    Invalid,
    /// What the store needed to decide it is damaged.
    Damaged,
    /// What the store needed to decide it cannot be reached for now.
    Unavailable,
    /// The store is closing.
    Closing,
    /// What no append is refused for today.
    Other,
}

impl Reason {
    const ALL: [Self; 10] = [
        Self::Condition,
        Self::Stale,
        Self::Sealed,
        Self::NoSuchSegment,
        Self::Unsupported,
        Self::Invalid,
        Self::Damaged,
        Self::Unavailable,
        Self::Closing,
        Self::Other,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Condition => "condition",
            Self::Stale => "stale",
            Self::Sealed => "sealed",
            Self::NoSuchSegment => "no_such_segment",
            Self::Unsupported => "unsupported",
            Self::Invalid => "invalid",
            Self::Damaged => "damaged",
            Self::Unavailable => "unavailable",
            Self::Closing => "closing",
            Self::Other => "other",
        }
    }
}

impl From<&Refusal> for Reason {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::LengthMismatch { .. } => Self::Condition,
            Refusal::WriterConflict { .. } => Self::Stale,
            Refusal::Sealed => Self::Sealed,
            Refusal::NoSuchSegment => Self::NoSuchSegment,
            Refusal::Unsupported => Self::Unsupported,
            Refusal::Invalid(_) => Self::Invalid,
            Refusal::Damaged => Self::Damaged,
            Refusal::Unavailable => Self::Unavailable,
            Refusal::Closing => Self::Closing,
            Refusal::SegmentExists
            | Refusal::Truncated { .. }
            | Refusal::BehindEnd { .. }
            | Refusal::AttributeMismatch
            | Refusal::KeyMissing
            | Refusal::KeyVersion
            | Refusal::OffsetMismatch { .. }
            | Refusal::TableNotEmpty
            | Refusal::WrongKind
            | Refusal::SourceTruncated => Self::Other,
        }
    }
}

impl Metrics {
    /// All zero. The store joins with [`render`](Self::render).
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::<u64, AtomicU64>::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let accepted = counter("connections_accepted", "Connections accepted, all listeners");
        let stalled = counter("stalled_connections", "Connections closed because the peer did not take its answers");
        let protocol_errors = counter("protocol_errors", "Connections closed for what the peer did");
        let frames_received = counter("frames_received", "Segment store frames received");
        let frames_sent = counter("frames_sent", "Segment store frames sent");
        let bytes_received = counter("bytes_received", "Bytes received from segment store clients");
        let bytes_sent = counter("bytes_sent", "Bytes sent to segment store clients");
        let auth_reloads = counter("auth_reloads", "Files with users or keys read again");
        let auth_reloads_failed =
            counter("auth_reloads_failed", "Files with users or keys that could not be read again");
        let auth_busy = counter("auth_busy", "Callers turned away because too many others prove who they are");
        let tokens_refused = counter("tokens_refused", "Segment store commands whose token does not allow them");
        let tls_handshakes_failed = counter("tls_handshakes_failed", "TLS handshakes that failed or took too long");
        let tls_reloads = counter("tls_reloads", "New certificates taken into use");
        let tls_reloads_failed = counter("tls_reloads_failed", "Certificates that could not be taken into use");
        let appends = counter("appends", "Appends acknowledged");
        let append_bytes = counter("append_bytes", "Bytes of acknowledged appends");
        let appends_refused = Family::default();
        for reason in Reason::ALL {
            drop(appends_refused.get_or_create(&[("reason", reason.as_str())]));
        }
        registry.register("appends_refused", "Appends refused, by reason", appends_refused.clone());
        let auth_refused = Family::default();
        for kind in [Kind::Basic, Kind::Bearer, Kind::Other] {
            drop(auth_refused.get_or_create(&[("kind", kind.as_str())]));
        }
        registry.register("auth_refused", "Callers whose credentials are wrong, by their kind", auth_refused.clone());
        let connections = Gauge::default();
        registry.register("connections", "Connections open, all listeners", connections.clone());
        let connections_max = Gauge::default();
        registry.register("connections_max", "Most connections at a time", connections_max.clone());
        let retention_clock_jumped = Gauge::default();
        let help = "1 while the wall clock is more than a day away from the time that has passed";
        registry.register("retention_clock_jumped", help, retention_clock_jumped.clone());
        let append_latency = Histogram::new(LATENCY_BOUNDS_SECONDS);
        registry.register("append_latency_seconds", "From an append's last byte to its answer", append_latency.clone());
        Self(std::sync::Arc::new(Figures {
            connections,
            connections_max,
            accepted,
            protocol_errors,
            stalled,
            frames_received,
            frames_sent,
            bytes_received,
            bytes_sent,
            auth_reloads,
            auth_reloads_failed,
            auth_refused,
            auth_busy,
            tokens_refused,
            tls_handshakes_failed,
            tls_reloads,
            tls_reloads_failed,
            appends,
            append_bytes,
            appends_refused,
            retention_clock_jumped,
            append_latency,
            registry,
        }))
    }

    /// Appends that were refused for this reason.
    pub(crate) fn appends_refused(&self, reason: Reason) -> Counter {
        self.appends_refused.get_or_create(&[("reason", reason.as_str())]).clone()
    }

    /// Callers who were not who they said they are, with credentials of this kind.
    pub(crate) fn auth_refused(&self, kind: Kind) -> Counter {
        self.auth_refused.get_or_create(&[("kind", kind.as_str())]).clone()
    }

    /// The page of this moment; the store's figures join once it is open.
    pub fn render(&self, engine: Option<&Engine>, controller: Option<&Controller>) -> String {
        let mut page = String::new();
        if let Some(controller) = controller {
            self.retention_clock_jumped.set(controller.has_clock_jumped().into());
        }
        encode(&mut page, &self.registry).expect("a String takes whatever is written to it");
        if let Some(engine) = engine {
            let end = page.rfind("# EOF").unwrap_or(page.len());
            page.truncate(end);
            let mut store = Registry::default();
            store.register_collector(Box::new(StoreFigures(engine.metrics().values)));
            encode(&mut page, &store).expect("a String takes whatever is written to it");
        }
        if page.is_empty() {
            let _ = writeln!(page, "# EOF");
        }
        page
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Figures of the store: counters end in `_total`, everything else is a gauge.
#[derive(Debug)]
struct StoreFigures(Vec<(&'static str, u64)>);

impl Collector for StoreFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for &(name, value) in &self.0 {
            // The format writes a counter's family without the suffix and each sample with it.
            if let Some(family) = name.strip_suffix("_total") {
                let counter = ConstCounter::new(value);
                counter.encode(encoder.encode_descriptor(family, "Store", None, MetricType::Counter)?)?;
            } else {
                let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
                gauge.encode(encoder.encode_descriptor(name, "Store", None, MetricType::Gauge)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_on_the_page() {
        let metrics = Metrics::new();
        metrics.accepted.inc();
        metrics.connections.set(1);
        metrics.append_latency.observe(0.0004);
        let page = metrics.render(None, None);
        for line in [
            "connections_accepted_total 1",
            "connections 1",
            "append_latency_seconds_bucket{le=\"0.00025\"} 0",
            "append_latency_seconds_bucket{le=\"0.0005\"} 1",
            "append_latency_seconds_count 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn refused_appends_are_counted_by_reason() {
        let metrics = Metrics::new();
        for (reason, count) in Reason::ALL.into_iter().zip(1..) {
            metrics.appends_refused(reason).inc_by(count);
        }
        metrics.appends_refused((&Refusal::Sealed).into()).inc();
        let page = metrics.render(None, None);
        for (reason, count) in Reason::ALL.into_iter().zip(1..) {
            let count = count + u64::from(reason == Reason::Sealed);
            let line = format!("appends_refused_total{{reason=\"{}\"}} {count}", reason.as_str());
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn figures_of_the_store_keep_their_names() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(StoreFigures(vec![("wal_syncs_total", 3), ("cache_bytes", 9)])));
        let mut page = String::new();
        encode(&mut page, &registry).unwrap();
        assert!(page.contains("\nwal_syncs_total 3\n") && page.contains("\ncache_bytes 9\n"), "{page}");
    }
}
