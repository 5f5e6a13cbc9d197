//! What a command says: text for people, or one JSON object per line.

use std::io::{BufWriter, StdoutLock, Write as _};

use serde::Serialize;

/// Standard output, in one of two forms.
pub(super) struct Output {
    is_json: bool,
    out: BufWriter<StdoutLock<'static>>,
}

impl Output {
    pub(super) fn new(is_json: bool) -> Self {
        Self { is_json, out: BufWriter::new(std::io::stdout().lock()) }
    }

    pub(super) fn is_json(&self) -> bool {
        self.is_json
    }

    /// Says one thing: `object` as JSON, or `text` for people.
    pub(super) fn say(&mut self, object: &impl Serialize, text: impl std::fmt::Display) -> std::io::Result<()> {
        self.put(object, text)?;
        self.flush()
    }

    /// As [`say`](Self::say), one of many: it is seen at the latest with [`flush`](Self::flush).
    pub(super) fn put(&mut self, object: &impl Serialize, text: impl std::fmt::Display) -> std::io::Result<()> {
        if self.is_json {
            serde_json::to_writer(&mut self.out, object)?;
            writeln!(self.out)
        } else {
            writeln!(self.out, "{text}")
        }
    }

    /// Bytes as they are.
    pub(super) fn put_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Bytes as they are, and a line's end.
    pub(super) fn put_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.out.write_all(bytes)?;
        writeln!(self.out)
    }

    pub(super) fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
